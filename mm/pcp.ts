/**
 * Per-CPU page lists: a few blocks of each common order that a CPU keeps of each zone, so that most requests for pages
 * need no lock.
 *
 *     zone->per_cpu_pageset  ->  CPU 0: count high batch …  lists[14]
 *                                CPU 1: …                     3 * order + type for orders 0..3; 12, 13 for order 9
 *
 * Order of service, allocation:  1 head of the list   2 refill from the buddy allocator: `batch` blocks and, while one
 *   only allocates, twice as many each time; appended at the tail, so a fresh block is handed out in ascending order
 * Order of service, free:  1 head of the list   2 above `high`, the tails of the lists go back to the buddy allocator
 *
 * `high` moves between high_min and high_max: up while refills go on, down while the zone runs short.
 *
 * Locks: pcp->lock, outside zone->lock, and only tried: if a refill or a drain of this very CPU is in progress, the page
 * comes from, or goes to, the buddy allocator. The hot path (mm/page_alloc.ts) needs no lock.
 * Invariant: count = sum of 2^order over the blocks on the lists. These pages have refcount 0, are not marked buddy, and
 *   are neither in NR_FREE_PAGES nor in /proc/buddyinfo.
 *
 * Unlike Linux: another CPU's lists are drained by becoming that CPU (`on_cpu`), not by taking its lock.
 */
import { NULL } from "../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { clamp } from "../kernel/lib/bitops.ts";
import { init_list_head, list_add, list_del, list_empty, list_next, list_prev } from "../kernel/lib/list.ts";
import { spin_trylock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { MIGRATE_MOVABLE, MIGRATE_PCPTYPES, ZONE_MOVABLE } from "./gfp.ts";
import { check_new_pages } from "./bad_page.ts";
import { Page, type PagePtr } from "./page.ts";
import { page_allocator } from "./page_allocator.ts";
import { GATE_CHECK, alloc_gate, zone_clear_flag, zone_lock, zone_unlock } from "./plenty.ts";
import { node_is_hopeless } from "./reclaim_state.ts";
import { PGFREE, count_vm_events } from "./vmstat.ts";
import { high_wmark_pages, zone_watermark_ok } from "./watermark.ts";
import {
  NR_PCP_LISTS, PAGE_ALLOC_COSTLY_ORDER, PerCpuPages, PgData, ZONE_BELOW_HIGH, ZONE_RECLAIM_ACTIVE, Zone,
  for_each_populated_zone, for_each_zone, pageblock_order, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

const m = ram32;
const r = cpu_regs;
const P = PerCpuPages;
const Z = Zone;
const AREA = CPU_OFFSET;
// Offsets in words.
const COUNT = PerCpuPages.count.offset >> 2;
const LIMIT = PerCpuPages.limit.offset >> 2;
const BATCH = PerCpuPages.batch.offset >> 2;
const HIGH = PerCpuPages.high.offset >> 2;
const HIGH_MAX = PerCpuPages.high_max.offset >> 2;
const FREE_MAX = PerCpuPages.free_max.offset >> 2;
const HIGH_MIN = PerCpuPages.high_min.offset >> 2;
const FLAGS = PerCpuPages.flags.offset >> 2;
const FACTOR = PerCpuPages.alloc_factor.offset >> 2;
const FREE_COUNT = PerCpuPages.free_count.offset >> 2;
const ZONE_FLAGS = Zone.flags.offset >> 2;
const GATE = alloc_gate.$at("bits") >> 2;
// Offsets in bytes.
const LISTS = PerCpuPages.lists.offset;
const LRU = Page.lru.offset;
const PAGESET = Zone.per_cpu_pageset.offset;
const NR_LISTS = NR_PCP_LISTS;
const TYPES = MIGRATE_PCPTYPES;
const MOVABLE = MIGRATE_MOVABLE;
const BLOCK_ORDER = pageblock_order;
const COSTLY_ORDER = PAGE_ALLOC_COSTLY_ORDER;
const NR_LOWORDER_LISTS = MIGRATE_PCPTYPES * (PAGE_ALLOC_COSTLY_ORDER + 1);
type PcpPtr = number;

/** Bits of pcp->flags: the last free was of order 1..3; this CPU's cache is large enough for `batch` more. */
const PCPF_PREV_FREE_HIGH_ORDER = 1;
const PCPF_FREE_HIGH_BATCH = 2;
/** Refills grow at most 2^5-fold, drains likewise. */
const PCP_BATCH_SCALE_MAX = 5;
const BELOW_HIGH = 1 << ZONE_BELOW_HIGH;
const RECLAIM_ACTIVE = 1 << ZONE_RECLAIM_ACTIVE;

/** This CPU's lists of a zone. */
export function this_pcp(zone: ZonePtr): PcpPtr {
  return m[(zone + PAGESET) >> 2] + r[AREA];
}

/** A CPU's lists of a zone. */
export function zone_pcp(zone: ZonePtr, cpu: number): PcpPtr {
  return per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu);
}

/** Orders that CPUs keep: the common ones, and that of a huge page. */
export function pcp_allowed_order(order: number): boolean {
  return order <= COSTLY_ORDER || order === BLOCK_ORDER;
}

function order_to_pindex(order: number, migratetype: number): number {
  if (order === BLOCK_ORDER) return NR_LOWORDER_LISTS + (migratetype === MOVABLE ? 1 : 0);
  return TYPES * order + migratetype;
}

/** Order of the blocks on a list. */
export function pindex_to_order(pindex: number): number {
  return pindex >= NR_LOWORDER_LISTS ? BLOCK_ORDER : Math.floor(pindex / TYPES);
}

/**
 * Says up to where a free is a mere push: `high`, but not while a free would also change alloc_factor, flags, or a `high`
 * that is out of bounds. Returns `high`, or 0 if that is out of bounds.
 */
export function set_pcp_limit(pcp: PcpPtr): number {
  const p = pcp >> 2;
  const high = m[p + HIGH] >= m[p + HIGH_MIN] && m[p + HIGH] <= m[p + HIGH_MAX] ? m[p + HIGH] : 0;
  const settled = m[p + FACTOR] === 0 && (m[p + FLAGS] & PCPF_PREV_FREE_HIGH_ORDER) === 0;
  m[p + LIMIT] = settled ? high : 0;
  m[p + FREE_MAX] = m[p + BATCH] << PCP_BATCH_SCALE_MAX;
  return high;
}

/** Empties a CPU's lists of `zone` and makes it keep nothing: every free goes straight through. */
export function per_cpu_pages_init(pcp: PcpPtr, zone: ZonePtr): void {
  for (let w = pcp >> 2; w < (pcp + P.sizeof) >> 2; w++) m[w] = 0;
  for (let i = 0; i < NR_LISTS; i++) init_list_head(P.lists.at(pcp, i));
  P.batch.set(pcp, 1);
  set_pcp_limit(pcp);
  if (zone === NULL) return;
  P.zone_node.set(pcp, (Zone.node.get(zone) << 4) | Zone.zone_idx.get(zone));
  P.blocks.set(pcp, Zone.pageblock_flags.get(zone) - (Zone.zone_start_pfn.get(zone) >> BLOCK_ORDER));
}

/** Before memory is up: lists that keep nothing, shared by all zones. */
const boot_pageset = per_cpu_data("boot_pageset", { pcp: PerCpuPages });

/** Gives every zone the boot pageset. */
export function boot_pagesets_init(): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) per_cpu_pages_init(per_cpu_ptr(boot_pageset.ptr, cpu), NULL);
  for (const zone of for_each_zone()) Zone.per_cpu_pageset.set(zone, boot_pageset.ptr);
}

/** Takes a block from this CPU's lists, refilling them; 0 if the zone has none or the lists are busy. */
export function rmqueue_pcplist(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  const pcp = this_pcp(zone);
  if (!spin_trylock(pcp)) return NULL;
  m[(pcp >> 2) + FREE_COUNT] = m[(pcp >> 2) + FREE_COUNT] >> 1;
  const page = pcp_pop(zone, pcp, order, migratetype, flags);
  spin_unlock(pcp);
  return page;
}

/** The first block of a list, which is refilled if it is empty. Context: pcp->lock. */
export function pcp_pop(zone: ZonePtr, pcp: PcpPtr, order: number, migratetype: number, flags: number): PagePtr {
  const list = pcp + LISTS + (order_to_pindex(order, migratetype) << 4);
  for (;;) {
    if (list_empty(list)) refill(zone, pcp, list, order, migratetype, flags);
    const node = list_next(list);
    if (node === list) return 0;
    list_del(node);
    m[(pcp >> 2) + COUNT] = m[(pcp >> 2) + COUNT] - (1 << order);
    if ((m[GATE] & GATE_CHECK) === 0 || !check_new_pages(node - LRU, order)) return node - LRU;
  }
}

function refill(zone: ZonePtr, pcp: PcpPtr, list: number, order: number, migratetype: number, flags: number): void {
  const count = nr_pcp_alloc(zone, pcp, order);
  zone_lock(zone);
  const taken = page_allocator().alloc_bulk(zone, order, migratetype, flags, count, list);
  P.count.set(pcp, P.count.get(pcp) + (taken << order));
  set_pcp_limit(pcp);
  zone_unlock(zone);
}

/** How many blocks a refill takes. */
export function nr_pcp_alloc(zone: ZonePtr, pcp: PcpPtr, order: number): number {
  const base_batch = P.batch.get(pcp);
  const high_min = P.high_min.get(pcp);
  const high_max = P.high_max.get(pcp);
  let high = clamp(P.high.get(pcp), high_min, high_max);
  P.high.set(pcp, high);
  if (high < base_batch) return 1;
  const factor = P.alloc_factor.get(pcp);
  let batch = order > 0 ? base_batch : base_batch << factor;
  // A larger `high` would have avoided this refill.
  if (high_min !== high_max && (Z.flags.get(zone) & BELOW_HIGH) === 0) {
    high = Math.min(high + batch, high_max);
    P.high.set(pcp, high);
  }
  if (order === 0) {
    const room = Math.max(high - P.count.get(pcp) - base_batch, base_batch);
    if (batch <= room && factor < PCP_BATCH_SCALE_MAX) P.alloc_factor.set(pcp, factor + 1);
    batch = Math.min(batch, room);
  }
  return batch > 1 ? Math.max(batch >> order, 2) : batch;
}

/**
 * Puts a block that nobody refers to on this CPU's lists; false if the lists are busy.
 * `migratetype` is the page block's, with HighAtomic kept among the movable ones.
 */
export function free_to_pcp(zone: ZonePtr, page: PagePtr, order: number, migratetype: number): boolean {
  const pcp = this_pcp(zone);
  if (!spin_trylock(pcp)) return false;
  const p = pcp >> 2;
  const pindex = order_to_pindex(order, migratetype);
  m[p + FACTOR] = m[p + FACTOR] >> 1;
  count_vm_events(PGFREE, 1 << order);
  list_add(page + LRU, pcp + LISTS + (pindex << 4));
  m[p + COUNT] = m[p + COUNT] + (1 << order);
  const free_high = note_high_order(p, order);
  if (m[p + FREE_COUNT] < m[p + FREE_MAX]) m[p + FREE_COUNT] = m[p + FREE_COUNT] + (1 << order);
  const high = set_pcp_limit(pcp);
  if (free_high || m[p + COUNT] >= high || m[(zone >> 2) + ZONE_FLAGS] !== 0) pcp_trim(zone, pcp, pindex, free_high);
  spin_unlock(pcp);
  return true;
}

/** True if blocks of order 1..3 come back one after another, so that keeping them would only fragment memory. */
function note_high_order(p: number, order: number): boolean {
  const flags = m[p + FLAGS];
  const high_order = order !== 0 && order <= COSTLY_ORDER;
  m[p + FLAGS] = high_order ? flags | PCPF_PREV_FREE_HIGH_ORDER : flags & ~PCPF_PREV_FREE_HIGH_ORDER;
  if (!high_order || (flags & PCPF_PREV_FREE_HIGH_ORDER) === 0) return false;
  if (m[p + FREE_COUNT] < m[p + BATCH] + (m[p + HIGH_MIN] >> 1)) return false;
  return (flags & PCPF_FREE_HIGH_BATCH) === 0 || m[p + COUNT] >= m[p + BATCH];
}

/** After a free to list `pindex`, at the limit or with the zone short: gives pages back if there are too many. */
function pcp_trim(zone: ZonePtr, pcp: PcpPtr, pindex: number, free_high: boolean): void {
  const limit = nr_pcp_high(zone, pcp, free_high);
  set_pcp_limit(pcp);
  if (P.count.get(pcp) < limit) return;
  free_pcppages_bulk(zone, pcp, nr_pcp_free(pcp, limit, free_high), pindex);
  if ((Z.flags.get(zone) & BELOW_HIGH) !== 0 && zone_watermark_ok(zone, 0, high_wmark_pages(zone), ZONE_MOVABLE, 0))
    pressure_is_over(zone);
}

/** A zone has more than its high mark again. If its node was hopeless, kswapd may try again. */
function pressure_is_over(zone: ZonePtr): void {
  zone_clear_flag(zone, ZONE_BELOW_HIGH);
  if (node_is_hopeless(Zone.zone_pgdat.get(zone))) PgData.kswapd_failures.set(Zone.zone_pgdat.get(zone), 0);
}

/** Pages above which some go back; moves `high`. */
function nr_pcp_high(zone: ZonePtr, pcp: PcpPtr, free_high: boolean): number {
  const batch = P.batch.get(pcp);
  const high_min = P.high_min.get(pcp);
  const high_max = P.high_max.get(pcp);
  const free_count = P.free_count.get(pcp);
  const high = clamp(P.high.get(pcp), high_min, high_max);
  P.high.set(pcp, high);
  if (high === 0) return 0;
  if (free_high) {
    P.high.set(pcp, Math.max(high - (batch << PCP_BATCH_SCALE_MAX), high_min));
    return 0;
  }
  const flags = Z.flags.get(zone);
  const lower = Math.max(high - Math.max(free_count, batch), high_min);
  if ((flags & RECLAIM_ACTIVE) !== 0) {
    P.high.set(pcp, lower);
    return Math.min(batch << 2, lower);
  }
  if (high_min === high_max) return high;
  if ((flags & BELOW_HIGH) !== 0) {
    P.high.set(pcp, lower);
    return Math.max(P.count.get(pcp), high_min);
  }
  if (P.count.get(pcp) >= high && high < free_count + batch)
    P.high.set(pcp, clamp(free_count + batch, high_min, high_max));
  return high;
}

/** How many pages go back. */
function nr_pcp_free(pcp: PcpPtr, limit: number, free_high: boolean): number {
  const batch = P.batch.get(pcp);
  if (free_high) return Math.min(P.count.get(pcp), batch << PCP_BATCH_SCALE_MAX);
  if (limit < batch) return 1;
  return clamp(P.free_count.get(pcp), batch, limit - batch);
}

/** Gives back at least `count` pages (blocks are whole): tails first, list `pindex` first, then the next. */
function free_pcppages_bulk(zone: ZonePtr, pcp: PcpPtr, count: number, pindex: number): void {
  const ops = page_allocator();
  let left = Math.min(count, P.count.get(pcp));
  zone_lock(zone);
  for (let at = pindex; left > 0; at = at + 1 === NR_LISTS ? 0 : at + 1) {
    const list = P.lists.at(pcp, at);
    const order = pindex_to_order(at);
    while (left > 0 && !list_empty(list)) {
      const node = list_prev(list);
      list_del(node);
      left -= 1 << order;
      P.count.set(pcp, P.count.get(pcp) - (1 << order));
      ops.free(zone, node - LRU, order, 0);
    }
  }
  zone_unlock(zone);
}

/** Gives back at least `count` pages of this CPU's lists, if they are not busy. */
export function drain_pcp(zone: ZonePtr, count: number): void {
  const pcp = this_pcp(zone);
  if (count <= 0 || !spin_trylock(pcp)) return;
  free_pcppages_bulk(zone, pcp, count, 0);
  spin_unlock(pcp);
}

/** Empties this CPU's lists of one zone, a batch at a time. */
export function drain_zone_pages(zone: ZonePtr): void {
  const pcp = this_pcp(zone);
  for (let left = -1; P.count.get(pcp) !== left;) {
    left = P.count.get(pcp);
    drain_pcp(zone, Math.min(left, P.batch.get(pcp) << PCP_BATCH_SCALE_MAX));
  }
}

/** Empties this CPU's lists. */
export function drain_local_pages(): void {
  for (const zone of for_each_populated_zone()) drain_zone_pages(zone);
}

/** Empties all lists of all CPUs. */
export function drain_all_pages(): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, drain_local_pages);
}

/** The blocks that a CPU keeps of a zone: lists in order, each from its head. */
export function* pcp_blocks(zone: ZonePtr, cpu: number): Generator<{ page: PagePtr; order: number; pindex: number }> {
  const pcp = zone_pcp(zone, cpu);
  for (let pindex = 0; pindex < NR_PCP_LISTS; pindex++) {
    const list = P.lists.at(pcp, pindex);
    let left = Zone.spanned_pages.get(zone) + 1;
    for (let node = list_next(list); node !== list && left-- > 0; node = list_next(node))
      yield { page: node - LRU, order: pindex_to_order(pindex), pindex };
  }
}
