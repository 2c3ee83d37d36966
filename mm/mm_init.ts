/**
 * Brings memory up, from the firmware's map to the buddy allocator. start_kernel calls, in this order:
 *
 *     1 setup_arch_memory        e820 -> memblock; nodes from SRAT and SLIT; CPUs to nodes
 *     2 free_area_init           zones of each node, mem_map, page blocks
 *     3 build_all_zonelists      where each node looks for memory
 *     4 mem_init                 memblock_free_all: what is free goes to the buddy allocator
 *     5 init_per_zone_wmark_min  marks and reserves of each zone
 *     6 mem_init_print_info      the "Memory:" line
 *
 *     spanned = last frame - first frame + 1   >=   present = spanned - holes   >=   managed = present - reserved
 *
 * The numbers come from mm/zone_sizing.ts; here they are stored in RAM and printed.
 *
 * Locks: none; one CPU runs.
 * Unlike Linux: every page struct is initialised at once (no deferred init).
 */
import { L1_CACHE_BYTES, PAGE_SIZE, hex, type NodeId, type Pfn } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { BOOT_PARAMS, BP_DMA32_LIMIT, BP_DMA_LIMIT } from "../hal/firmware.ts";
import { DATA_BASE, TEXT_BASE, TEXT_BYTES, image_sizes } from "../hal/image.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_bool, cmdline_param } from "../kernel/lib/cmdline.ts";
import { pr_info, pr_notice, pr_warn } from "../kernel/lib/printk.ts";
import { read_le } from "./acpi.ts";
import { high_wmark_pages, lowmem_reserve_ratio, watermark_scale_factor } from "./watermark.ts";
import { e820_memblock_setup, e820_memory_setup, e820_setup_gap } from "./e820.ts";
import {
  MAX_NR_ZONES,
  MIGRATE_TYPES,
  NUMA_NO_NODE,
  ZONE_DEVICE,
  ZONE_MOVABLE,
  ZONE_NAMES,
  ZONE_NORMAL,
} from "./gfp.ts";
import { alloc_mem_map, memmap_init } from "./mem_map.ts";
import {
  for_each_free_mem_range,
  for_each_mem_pfn_range,
  memblock_alloc_node,
  memblock_close,
  memblock_dump_all,
  memblock_init,
} from "./memblock.ts";
import { initmem_init, madt_nr_cpus } from "./numa.ts";
import { pfn_to_page } from "./page.ts";
import { __free_pages_core } from "./page_alloc.ts";
import { page_group_by_mobility } from "./pageblock.ts";
import { zone_pcp_update } from "./pagesets.ts";
import { zone_marks_changed } from "./plenty.ts";
import { global_zone_page_state, refresh_zone_stat_thresholds } from "./vmstat.ts";
import {
  NODE_DATA,
  NR_FREE_PAGES,
  PgData,
  WMARK_HIGH,
  WMARK_LOW,
  WMARK_MIN,
  WMARK_PROMO,
  Zone,
  ZONELIST_FALLBACK,
  ZONELIST_NOFALLBACK,
  ZoneList,
  ZoneRef,
  for_each_online_node,
  for_each_populated_zone,
  for_each_zone,
  node_distance,
  node_state,
  node_zonelist,
  pageblock_nr_pages,
  type ZoneListPtr,
  type ZonePtr,
} from "./zone.ts";
import {
  computed_min_free_kbytes,
  core_pages,
  fallback_orders,
  free_blocks,
  lowmem_reserves,
  mobility_grouping_disabled,
  node_span,
  possible_zones,
  reserve_pages,
  thp_min_free_kbytes,
  zone_movable_pfns,
  zone_sizes,
  zone_watermarks,
  type NodeRange,
  type PfnRange,
} from "./zone_sizing.ts";

const KIB_PER_PAGE = PAGE_SIZE / 1024;

/** Learns from the firmware what memory, nodes and CPUs there are. */
export function setup_arch_memory(): void {
  memblock_init();
  e820_memory_setup();
  e820_memblock_setup();
  initmem_init();
  memblock_dump_all();
  const cpus = madt_nr_cpus();
  if (cpus !== nr_cpu_ids()) pr_warn(`ACPI: MADT lists ${cpus} CPUs, the image is loaded for ${nr_cpu_ids()}`);
  pr_info(`CPU topo: Allowing ${cpus} present CPUs plus 0 hotplug CPUs`);
}

/* Zones */

/** Sizes the zones of every node, and makes the page structs. */
export function free_area_init(): void {
  const ranges = [...for_each_mem_pfn_range(NUMA_NO_NODE)];
  const limit = (field: number): Pfn => read_le(BOOT_PARAMS + field, 8) / PAGE_SIZE;
  const possible = possible_zones(limit(BP_DMA_LIMIT), limit(BP_DMA32_LIMIT), ranges[0].start, ranges.at(-1)!.end);
  const movable = movable_starts(ranges, possible);
  print_ranges(ranges, possible, movable);
  for (const nid of for_each_online_node()) free_area_init_node(nid, ranges, possible, movable[nid] ?? 0);
  alloc_mem_map(ranges);
  memmap_init(ranges);
  e820_setup_gap();
}

function mem_range({ start, end }: PfnRange): string {
  return `[mem 0x${hex(start * PAGE_SIZE, 16)}-0x${hex(end * PAGE_SIZE - 1, 16)}]`;
}

function movable_starts(ranges: readonly NodeRange[], possible: readonly PfnRange[]): Pfn[] {
  const total = ranges.reduce((sum, range) => sum + range.end - range.start, 0);
  const wish = (name: string): number => core_pages(cmdline_param(name) ?? "0", total) || 0;
  return zone_movable_pfns(ranges, possible, wish("kernelcore"), wish("movablecore"));
}

function print_ranges(ranges: readonly NodeRange[], possible: readonly PfnRange[], movable: readonly Pfn[]): void {
  pr_info("Zone ranges:");
  for (const [zone, range] of possible.entries()) {
    if (zone === ZONE_MOVABLE) continue;
    const print = zone === ZONE_DEVICE ? pr_info : pr_notice;
    print(`  ${ZONE_NAMES[zone].padEnd(8)} ${range.start < range.end ? mem_range(range) : "empty"}`);
  }
  pr_info("Movable zone start for each node");
  for (const [nid, pfn] of movable.entries()) if (pfn > 0) pr_info(`  Node ${nid}: 0x${hex(pfn * PAGE_SIZE, 16)}`);
  pr_info("Early memory node ranges");
  for (const range of ranges) pr_info(`  node ${String(range.nid).padStart(3)}: ${mem_range(range)}`);
}

function free_area_init_node(
  nid: NodeId,
  ranges: readonly NodeRange[],
  possible: readonly PfnRange[],
  movable_pfn: Pfn,
): void {
  const pgdat = NODE_DATA(nid);
  const span = node_span(ranges, nid);
  pr_info(`Initmem setup node ${nid} ${span.end > 0 ? mem_range(span) : "as memoryless"}`);
  let spanned_sum = 0;
  let present_sum = 0;
  for (const [zone_idx, { start, spanned, present }] of zone_sizes(ranges, nid, possible, movable_pfn).entries()) {
    const zone = PgData.node_zones.at(pgdat, zone_idx);
    Zone.name.set(zone, ZONE_NAMES[zone_idx]);
    Zone.zone_idx.set(zone, zone_idx);
    Zone.node.set(zone, nid);
    Zone.zone_pgdat.set(zone, pgdat);
    Zone.zone_start_pfn.set(zone, start);
    Zone.spanned_pages.set(zone, spanned);
    Zone.present_pages.set(zone, present);
    Zone.managed_pages.set(zone, present); // for now; memblock_free_all counts anew
    if (spanned > 0) alloc_pageblock_flags(zone);
    if (present > 0) PgData.nr_zones.set(pgdat, zone_idx + 1);
    spanned_sum += spanned;
    present_sum += present;
  }
  PgData.node_start_pfn.set(pgdat, span.start);
  PgData.node_spanned_pages.set(pgdat, spanned_sum);
  PgData.node_present_pages.set(pgdat, present_sum);
}

/** A byte for every page block that the zone touches, zero (unmovable) for now. */
function alloc_pageblock_flags(zone: ZonePtr): void {
  const start = Zone.zone_start_pfn.get(zone);
  const end = start + Zone.spanned_pages.get(zone);
  const blocks = Math.ceil(end / pageblock_nr_pages) - Math.floor(start / pageblock_nr_pages);
  const flags = memblock_alloc_node(blocks, L1_CACHE_BYTES, Zone.node.get(zone));
  if (flags === 0) panic(`Failed to allocate ${blocks} bytes for zone ${Zone.name.get(zone)} pageblock flags`);
  Zone.pageblock_flags.set(zone, flags);
}

/* Zonelists */

/** Writes every node's lists of zones to try, and says how memory looks so far. */
export function build_all_zonelists(): void {
  const nodes = [...for_each_online_node()];
  const with_memory = nodes.filter((nid) => PgData.node_present_pages.get(NODE_DATA(nid)) > 0);
  for (const [i, order] of fallback_orders(node_distance, with_memory, nodes).entries()) {
    write_zonelist(node_zonelist(nodes[i], ZONELIST_FALLBACK), order);
    write_zonelist(node_zonelist(nodes[i], ZONELIST_NOFALLBACK), [nodes[i]]);
    pr_info(`Fallback order for Node ${nodes[i]}: ${order.map((nid) => `${nid} `).join("")}`);
  }
  const total = free_zone_pages(ZONE_MOVABLE);
  const disabled = mobility_grouping_disabled(total, MIGRATE_TYPES);
  page_group_by_mobility.disabled = disabled ? 1 : 0;
  pr_notice(`Built ${nodes.length} zonelists, mobility grouping ${disabled ? "off" : "on"}.  Total pages: ${total}`);
  const policy = Math.max(
    ...[...for_each_populated_zone()].map((zone) => Zone.zone_idx.get(zone)).filter(below_movable),
  );
  node_state.policy_zone = policy;
  pr_info(`Policy zone: ${ZONE_NAMES[policy]}`);
}

function below_movable(zone_idx: number): boolean {
  return zone_idx < ZONE_MOVABLE;
}

/** Each node's populated zones, highest first; a NULL zone ends the list. */
function write_zonelist(list: ZoneListPtr, order: readonly NodeId[]): void {
  let i = 0;
  for (const nid of order)
    for (let zone_idx = MAX_NR_ZONES - 1; zone_idx >= 0; zone_idx--) {
      const zone = PgData.node_zones.at(NODE_DATA(nid), zone_idx);
      if (Zone.managed_pages.get(zone) === 0) continue;
      const ref = ZoneList.refs.at(list, i++);
      ZoneRef.zone.set(ref, zone);
      ZoneRef.zone_idx.set(ref, zone_idx);
    }
  const end = ZoneList.refs.at(list, i);
  ZoneRef.zone.set(end, 0);
  ZoneRef.zone_idx.set(end, 0);
}

/** Pages above the high marks of all zones up to `highest`. */
function free_zone_pages(highest: number): number {
  let sum = 0;
  for (const zone of for_each_zone())
    if (Zone.zone_idx.get(zone) <= highest) sum += Math.max(0, Zone.managed_pages.get(zone) - high_wmark_pages(zone));
  return sum;
}

/* To the buddy allocator */

/** Hands all free memory to the buddy allocator; memblock gives out nothing from here on. */
export function mem_init(): void {
  const state = (name: string): string => (cmdline_bool(false, name) ? "on" : "off");
  const [alloc, free] = [state("init_on_alloc"), state("init_on_free")];
  pr_info(`mem auto-init: stack:off, heap alloc:${alloc}, heap free:${free}`);
  memblock_free_all();
  memblock_close();
}

/** Frees each free range in the largest aligned blocks, lowest first, to the tail of the free lists. */
function memblock_free_all(): void {
  for (const zone of for_each_zone()) Zone.managed_pages.set(zone, 0);
  let pages = 0;
  for (const range of for_each_free_mem_range(NUMA_NO_NODE)) {
    const start = Math.ceil(range.start / PAGE_SIZE);
    const end = Math.floor(range.end / PAGE_SIZE);
    for (const { pfn, order } of free_blocks(start, end)) __free_pages_core(pfn_to_page(pfn), order);
    pages += Math.max(0, end - start);
  }
  node_state.totalram_pages = pages;
}

/* Marks and reserves */

/** Works out min_free_kbytes, and from it all marks, reserves and per-CPU limits. After boot: after hotplug. */
export function init_per_zone_wmark_min(): void {
  const lowmem = free_zone_pages(ZONE_NORMAL);
  let min_free_kbytes = computed_min_free_kbytes(lowmem);
  const thp = cmdline_param("transparent_hugepage");
  if (thp === "always" || thp === "madvise") {
    const low_zones = [...for_each_populated_zone()].filter((zone) => Zone.zone_idx.get(zone) <= ZONE_NORMAL);
    min_free_kbytes = thp_min_free_kbytes(min_free_kbytes, low_zones.length, lowmem);
  }
  node_state.min_free_kbytes = min_free_kbytes;
  setup_per_zone_wmarks();
  refresh_zone_stat_thresholds();
  setup_per_zone_lowmem_reserve();
}

/** Sets every zone's marks from node_state.min_free_kbytes. */
export function setup_per_zone_wmarks(): void {
  const zones = [...for_each_zone()];
  const sizes = zones.map((zone) => ({ zone: Zone.zone_idx.get(zone), managed: Zone.managed_pages.get(zone) }));
  const all = zone_watermarks(sizes, node_state.min_free_kbytes, watermark_scale_factor());
  for (const [i, marks] of all.entries()) {
    const zone = zones[i];
    Zone.watermark_boost.set(zone, 0);
    Zone.watermark.set(zone, WMARK_MIN, marks.min);
    Zone.watermark.set(zone, WMARK_LOW, marks.low);
    Zone.watermark.set(zone, WMARK_HIGH, marks.high);
    Zone.watermark.set(zone, WMARK_PROMO, marks.promo);
    if (Zone.present_pages.get(zone) > 0) zone_pcp_update(zone);
  }
  calculate_totalreserve_pages();
}

/** Keeps low zones from being eaten by requests that could use higher ones. After boot: when the ratio was changed. */
export function setup_per_zone_lowmem_reserve(): void {
  for (const nid of for_each_online_node()) {
    const zones = Array.from({ length: MAX_NR_ZONES }, (_, i) => PgData.node_zones.at(NODE_DATA(nid), i));
    const managed = zones.map((zone) => Zone.managed_pages.get(zone));
    const reserves = lowmem_reserves(managed, lowmem_reserve_ratio());
    for (const [i, zone] of zones.entries()) {
      for (const [j, pages] of reserves[i].entries()) Zone.lowmem_reserve.set(zone, j, pages);
      if (managed[i]! > 0) zone_marks_changed(zone);
    }
  }
  calculate_totalreserve_pages();
}

function calculate_totalreserve_pages(): void {
  let total = 0;
  for (const nid of for_each_online_node()) {
    let node_total = 0;
    for (let i = 0; i < MAX_NR_ZONES; i++) {
      const zone = PgData.node_zones.at(NODE_DATA(nid), i);
      const reserve = Array.from({ length: MAX_NR_ZONES }, (_, j) => Zone.lowmem_reserve.get(zone, j));
      node_total += reserve_pages(reserve, high_wmark_pages(zone), Zone.managed_pages.get(zone));
    }
    PgData.totalreserve_pages.set(NODE_DATA(nid), node_total);
    total += node_total;
  }
  node_state.totalreserve_pages = total;
}

/** Prints what became of memory. */
export function mem_init_print_info(): void {
  let present = 0;
  for (const zone of for_each_zone()) present += Zone.present_pages.get(zone);
  const free = global_zone_page_state(NR_FREE_PAGES);
  const { text, data } = image_sizes();
  const kib = (bytes: number): number => Math.ceil(bytes / 1024);
  const symbols = kib(DATA_BASE - (TEXT_BASE + TEXT_BYTES));
  const kernel = `${kib(text)}K kernel code, ${kib(data)}K rwdata, ${symbols}K rodata, 0K init, 0K bss`;
  const reserved = (present - node_state.totalram_pages) * KIB_PER_PAGE;
  const sizes = `${free * KIB_PER_PAGE}K/${present * KIB_PER_PAGE}K`;
  pr_notice(`Memory: ${sizes} available (${kernel}, ${reserved}K reserved, 0K cma-reserved)`);
}
