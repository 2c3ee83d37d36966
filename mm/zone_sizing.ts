/**
 * Sizing: every number that boot derives from the shape of the machine, as pure functions of numbers.
 *
 *     RAM ranges + zone bounds  ->  where each zone lies, what it spans, what is present   (zone_sizes)
 *     managed pages of all zones -> min_free_kbytes -> watermarks, reserves                (zone_watermarks, …)
 *     free low pages             -> hash tables                                            (hash_table_size)
 *
 * Nothing here touches RAM, so that the answers for machines far larger than ours can be checked against what real ones
 * print (test/mm/zone_sizing.test.ts); mm/mm_init.ts applies them. Units are pages unless named. The limits of the
 * per-CPU lists are worked out in mm/pagesets.ts.
 */
import { PAGE_SIZE, align_up, type NodeId, type Pfn } from "../hal/addr.ts";
import { clamp, get_order, int_sqrt } from "../kernel/lib/bitops.ts";
import { ZONE_DEVICE, ZONE_DMA, ZONE_MOVABLE, ZONE_NORMAL } from "./gfp.ts";
import { MAX_PAGE_ORDER, pageblock_nr_pages } from "./zone.ts";

export const MAX_ORDER_NR_PAGES = 1 << MAX_PAGE_ORDER;

/** Page frames [start, end). */
export interface PfnRange {
  readonly start: Pfn;
  readonly end: Pfn;
}
/** RAM of a node. */
export interface NodeRange extends PfnRange {
  readonly nid: NodeId;
}

/* Where zones lie */

/** The frames that may belong to each zone, by zone number; Movable and Device get none here. */
export function possible_zones(dma_end: Pfn, dma32_end: Pfn, first: Pfn, last: Pfn): PfnRange[] {
  const bounds = [Math.min(dma_end, last), Math.min(dma32_end, last), last];
  const zones: PfnRange[] = [];
  let start = first;
  for (const bound of bounds) {
    const end = Math.max(bound, start);
    zones.push({ start, end });
    start = end;
  }
  return [...zones, { start: 0, end: 0 }, { start: 0, end: 0 }];
}

/** The highest zone that ordinary memory reaches into: Movable memory is taken from its top. */
export function movable_donor(possible: readonly PfnRange[]): number {
  for (let zone = ZONE_NORMAL; zone > ZONE_DMA; zone--) if (size_of(possible[zone]!) > 0) return zone;
  return ZONE_DMA;
}

function size_of(range: PfnRange): number {
  return range.end - range.start;
}

/** Frames that two ranges share. */
function overlap(a: PfnRange, b: PfnRange): number {
  return Math.max(0, Math.min(a.end, b.end) - Math.max(a.start, b.start));
}

/** Lowest and one past the highest frame of a node; 0, 0 for a node without memory. */
export function node_span(ranges: readonly NodeRange[], nid: NodeId): PfnRange {
  const own = ranges.filter((range) => range.nid === nid);
  if (own.length === 0) return { start: 0, end: 0 };
  return { start: Math.min(...own.map((range) => range.start)), end: Math.max(...own.map((range) => range.end)) };
}

/** Frames of a node's RAM within a range. */
export function present_pages(ranges: readonly NodeRange[], nid: NodeId, within: PfnRange): number {
  return ranges.reduce((sum, range) => sum + (range.nid === nid ? overlap(range, within) : 0), 0);
}

/** Reads `512M`-like byte counts and `30%` of kernelcore= and movablecore= as pages; NaN where the text is neither. */
export function core_pages(text: string, total: number): number {
  const percent = /^(\d+)%$/.exec(text);
  if (percent) return Math.floor((total * 100 * Number(percent[1])) / 10000);
  const bytes = /^(\d+)([kmg]?)$/i.exec(text);
  if (!bytes) return NaN;
  return Math.floor((Number(bytes[1]) * 1024 ** ["", "k", "m", "g"].indexOf(bytes[2]!.toLowerCase())) / PAGE_SIZE);
}

/**
 * Where Movable memory starts on each node, by node number; 0 where there is none.
 *
 * `kernelcore` pages are to stay ordinary memory, spread evenly over the nodes; memory below the donor zone counts
 * towards them. `movablecore` is the same told from the other side. A node too small for its share leaves the rest to
 * the others, so the spreading is repeated with fewer nodes until what is still needed is spread too thin to matter.
 */
export function zone_movable_pfns(
  ranges: readonly NodeRange[],
  possible: readonly PfnRange[],
  kernelcore: number,
  movablecore: number,
): Pfn[] {
  const nids = [...new Set(ranges.map((range) => range.nid))].sort((a, b) => a - b);
  const movable: Pfn[] = Array.from({ length: Math.max(-1, ...nids) + 1 }, () => 0);
  const total = ranges.reduce((sum, range) => sum + size_of(range), 0);
  const movable_pages = Math.min(align_up(movablecore, MAX_ORDER_NR_PAGES), total);
  let needed = movablecore > 0 ? Math.max(kernelcore, total - movable_pages) : kernelcore;
  if (needed === 0 || needed >= total) return movable;
  const usable_start = possible[movable_donor(possible)]!.start;

  for (let nodes = nids.length; nodes > 0; nodes--) {
    let share = Math.floor(needed / nodes);
    for (const nid of nids) {
      if (needed < share) share = Math.floor(needed / nodes);
      const own = ranges.filter((range) => range.nid === nid);
      const { pfn, counted } = take_kernel_memory(own, movable[nid]!, usable_start, share);
      movable[nid] = pfn;
      needed -= Math.min(counted, needed);
    }
    if (nodes === 1 || needed <= nodes - 1) break;
  }
  return movable.map((pfn, nid) => {
    const start = align_up(pfn, MAX_ORDER_NR_PAGES);
    return start >= node_span(ranges, nid).end ? 0 : start;
  });
}

/** Walks a node's RAM upwards from `from` until `share` pages are kernel memory: where that is, and how many counted. */
function take_kernel_memory(own: readonly NodeRange[], from: Pfn, usable_start: Pfn, share: number) {
  let pfn = from;
  let left = share;
  let counted = 0;
  for (const range of own) {
    let start = Math.max(range.start, pfn);
    if (start >= range.end) continue;
    if (start < usable_start) {
      const below = Math.min(range.end, usable_start) - start;
      left -= Math.min(below, left);
      counted += below;
      start += below;
      pfn = start;
      if (start === range.end) continue;
    }
    const taken = Math.min(range.end - start, left);
    pfn = start + taken;
    left -= taken;
    counted += taken;
    if (left === 0) break;
  }
  return { pfn, counted };
}

export interface ZoneSize {
  /** 0 if nothing is spanned. */
  readonly start: Pfn;
  /** From the first frame to the last, holes included. */
  readonly spanned: number;
  /** Without holes. */
  readonly present: number;
}

/** The zones of a node, by zone number. `movable_pfn` is where its Movable memory starts, 0 for none. */
export function zone_sizes(
  ranges: readonly NodeRange[],
  nid: NodeId,
  possible: readonly PfnRange[],
  movable_pfn: Pfn = 0,
): ZoneSize[] {
  const node = node_span(ranges, nid);
  const donor_end = possible[movable_donor(possible)]!.end;
  return possible.map((bounds, zone) => {
    let start = clamp(node.start, bounds.start, bounds.end);
    let end = clamp(node.end, bounds.start, bounds.end);
    if (zone === ZONE_MOVABLE && movable_pfn > 0) {
      start = movable_pfn;
      end = Math.min(node.end, donor_end);
    } else if (movable_pfn > 0) end = clamp(movable_pfn, start, end);
    const span = { start, end };
    if (size_of(node) === 0 || size_of(span) <= 0) return { start: 0, spanned: 0, present: 0 };
    return { start, spanned: size_of(span), present: present_pages(ranges, nid, span) };
  });
}

/** First frames of the sections of `section_pages` frames that have RAM: these get page structs. */
export function present_sections(ranges: readonly PfnRange[], section_pages: number): Pfn[] {
  const first = (pfn: Pfn): number => Math.floor(pfn / section_pages);
  const sections = new Set<number>();
  for (const { start, end } of ranges)
    for (let section = first(start); section <= first(end - 1); section++) sections.add(section);
  return [...sections].map((section) => section * section_pages);
}

/** How boot hands a free range to the buddy allocator: the largest aligned blocks, ascending. */
export function* free_blocks(start: Pfn, end: Pfn): Generator<{ pfn: Pfn; order: number }> {
  for (let pfn = start; pfn < end;) {
    let order = MAX_PAGE_ORDER;
    while (order > 0 && (pfn % 2 ** order !== 0 || pfn + 2 ** order > end)) order--;
    yield { pfn, order };
    pfn += 2 ** order;
  }
}

/** Grouping pages by mobility costs more than it brings on a machine with fewer blocks than types. */
export function mobility_grouping_disabled(total_pages: number, migrate_types: number): boolean {
  return total_pages < pageblock_nr_pages * migrate_types;
}

/* Zonelists */

/** Linux's MAX_NUMNODES on x86-64: the weight of distance against load. */
const LOAD_WEIGHT = 1024;

/**
 * The order in which each node falls back on others: its own memory, then by distance; of equally distant nodes the one
 * that fewer nodes before it chose first. At boot no CPU is in a node's mask yet, so `has_cpus` is all false.
 */
export function fallback_orders(
  distance: (from: NodeId, to: NodeId) => number,
  with_memory: readonly NodeId[],
  nodes: readonly NodeId[],
  has_cpus: (node: NodeId) => boolean = () => false,
): NodeId[][] {
  const load = new Map<NodeId, number>();
  return nodes.map((local) => {
    const order: NodeId[] = [];
    let previous = local;
    while (order.length < with_memory.length) {
      const unused = with_memory.filter((node) => !order.includes(node));
      const cost = (node: NodeId): number =>
        (distance(local, node) + (node < local ? 1 : 0) + (has_cpus(node) ? 1 : 0)) * LOAD_WEIGHT +
        (load.get(node) ?? 0);
      const best = (a: NodeId, b: NodeId): NodeId => (cost(b) < cost(a) ? b : a);
      const next = unused.includes(local) ? local : unused.reduce(best);
      if (distance(local, next) !== distance(local, previous)) load.set(next, (load.get(next) ?? 0) + 1);
      order.push(next);
      previous = next;
    }
    return order;
  });
}

/* Watermarks and reserves */

export interface ZoneManaged {
  readonly zone: number;
  readonly managed: number;
}
export interface Watermarks {
  readonly min: number;
  readonly low: number;
  readonly high: number;
  readonly promo: number;
}

/** min_free_kbytes of a machine with so many free low pages, before any user's wish. */
export function computed_min_free_kbytes(lowmem_pages: number): number {
  return clamp(int_sqrt(lowmem_pages * (PAGE_SIZE / 1024) * 16), 128, 262144);
}

/**
 * What transparent huge pages want free: room for two page blocks a zone to stay apart, and for each type to fall back
 * on each other. `zones` counts the populated zones up to Normal on all nodes. In kB; never lowers `min_free_kbytes`.
 */
export function thp_min_free_kbytes(min_free_kbytes: number, zones: number, lowmem_pages: number): number {
  const wanted = pageblock_nr_pages * zones * 2 + pageblock_nr_pages * zones * 3 * 3;
  const pages = Math.min(wanted, Math.floor(lowmem_pages / 20));
  return Math.max(min_free_kbytes, (pages * PAGE_SIZE) / 1024);
}

/** True for zones whose pages the kernel itself can use anywhere: their share of min_free_kbytes counts. */
function is_ordinary(zone: number): boolean {
  return zone !== ZONE_MOVABLE;
}

/** The four marks of each zone, in the order given. `scale_factor` is watermark_scale_factor, 10 by default. */
export function zone_watermarks(
  zones: readonly ZoneManaged[],
  min_free_kbytes: number,
  scale_factor = 10,
): Watermarks[] {
  const pages_min = Math.floor((min_free_kbytes * 1024) / PAGE_SIZE);
  const lowmem = zones.reduce((sum, { zone, managed }) => sum + (is_ordinary(zone) ? managed : 0), 0);
  return zones.map(({ zone, managed }) => {
    const share = lowmem === 0 ? 0 : Math.floor((pages_min * managed) / lowmem);
    const min = is_ordinary(zone) ? share : clamp(Math.floor(managed / 1024), 32, 128);
    const step = Math.max(Math.floor(share / 4), Math.floor((managed * scale_factor) / 10000));
    return { min, low: min + step, high: min + 2 * step, promo: min + 3 * step };
  });
}

/** What boot sets sysctl lowmem_reserve_ratio to, by zone. */
export const LOWMEM_RESERVE_RATIO: readonly number[] = Object.freeze([256, 256, 32, 0, 0]);

/**
 * Pages that each zone of a node keeps from requests that could use a higher zone: reserve[zone][request's zone].
 * `managed` has the node's zones by number; a zone's ratio is lowmem_reserve_ratio, 0 keeps nothing.
 */
export function lowmem_reserves(managed: readonly number[], ratios = LOWMEM_RESERVE_RATIO): number[][] {
  return managed.map((own, zone) => {
    const ratio = ratios[zone]!;
    let above = 0;
    return managed.map((pages, request) => {
      if (request <= zone) return 0;
      above += pages;
      return zone === ZONE_DEVICE || ratio === 0 || own === 0 ? 0 : Math.floor(above / ratio);
    });
  });
}

/** What a zone adds to totalreserve_pages: memory that user space should not count on. */
export function reserve_pages(reserve: readonly number[], high: number, managed: number): number {
  return Math.min(Math.max(...reserve) + high, managed);
}

/* Hash tables */

export interface HashSize {
  readonly entries: number;
  readonly order: number;
  readonly bytes: number;
}

/**
 * Size of a boot-time hash table: one entry for each 2^scale bytes of free low memory, a power of two, at most 1/16 of
 * memory. `scale` is 13 for dentries, 14 for inodes; it grows by 1 for each factor of 4 above 64 GiB.
 */
export function hash_table_size(free_pages: number, entry_bytes: number, scale: number): HashSize {
  let shift = scale;
  for (let at = (64 * 1024 ** 3) / PAGE_SIZE; at < free_pages; at *= 4) shift++;
  let entries = align_up(free_pages, (1024 * 1024) / PAGE_SIZE);
  entries = shift > 12 ? Math.floor(entries / 2 ** (shift - 12)) : entries * 2 ** (12 - shift);
  const most = Math.floor((free_pages * PAGE_SIZE) / 16 / entry_bytes);
  entries = Math.min(power_of_two_up(entries), power_of_two_down(most));
  return { entries, order: get_order(entries * entry_bytes), bytes: entries * entry_bytes };
}

function power_of_two_up(x: number): number {
  let power = 1;
  while (power < x) power *= 2;
  return power;
}

function power_of_two_down(x: number): number {
  const up = power_of_two_up(x);
  return up > x ? up / 2 : up;
}
