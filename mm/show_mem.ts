/**
 * What the page allocator tells people: the report of a failed request, and the totals of `free`.
 *
 * The report is Linux's: a line that says what was asked, the call trace, then "Mem-Info:" with the machine, each node,
 * each zone, the free blocks of each zone by order (letters U M E H C I: types that have some), then totals.
 */
import { type NodeId } from "../hal/addr.ts";
import { NSEC_PER_SEC, local_clock } from "../hal/clock.ts";
import { cpu_is_online, nr_cpu_ids, smp_processor_id } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { format_list } from "../kernel/lib/bitops.ts";
import { current_comm, dump_stack } from "../kernel/lib/dump_stack.ts";
import { list_empty } from "../kernel/lib/list.ts";
import { KERN_WARNING, pr_warn } from "../kernel/lib/printk.ts";
import {
  GFP_DMA, MAX_NR_ZONES, MIGRATE_TYPES, ZONE_DMA, __GFP_DIRECT_RECLAIM, __GFP_NOWARN, format_gfp, gfp_zone,
} from "./gfp.ts"; // prettier-ignore
import { zone_pcp } from "./pcp.ts";
import { node_is_hopeless } from "./reclaim_state.ts";
import {
  NR_ACTIVE_ANON, NR_ACTIVE_FILE, NR_FILE_DIRTY, NR_FILE_MAPPED, NR_FILE_PAGES, NR_INACTIVE_ANON,
  NR_INACTIVE_FILE, NR_ISOLATED_ANON, NR_ISOLATED_FILE, NR_KERNEL_MISC_RECLAIMABLE, NR_KERNEL_STACK_KB, NR_PAGETABLE,
  NR_SECONDARY_PAGETABLE, NR_SHMEM, NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, NR_UNEVICTABLE, NR_WRITEBACK,
  global_node_page_state, global_zone_page_state, node_page_state, zone_page_state,
} from "./vmstat.ts"; // prettier-ignore
import { wmark_pages } from "./watermark.ts";
import {
  FreeArea, NODE_DATA, NR_FREE_CMA, NR_FREE_PAGES, NR_MLOCK, NR_PAGE_ORDERS, NR_ZONE_ACTIVE_ANON,
  NR_ZONE_ACTIVE_FILE, NR_ZONE_INACTIVE_ANON, NR_ZONE_INACTIVE_FILE, NR_ZONE_UNEVICTABLE, NR_ZONE_WRITE_PENDING,
  PerCpuPages, WMARK_HIGH, WMARK_LOW, WMARK_MIN, Zone, for_each_online_node, for_each_populated_zone, for_each_zone, node_allowed,
  node_state, type NodeMask, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** vm.overcommit_ratio, percent. */
const OVERCOMMIT_RATIO = 50;
const RATE_LIMIT_NS = 10 * NSEC_PER_SEC;
/** `next_ns`: no report before then. */
const state = static_data("warn_alloc", { next_ns: "u64" });

/** Reports a request that failed, unless it does not want that or another report was made in the last 10 seconds. */
export function warn_alloc(gfp: number, order: number, nodemask: NodeMask): void {
  warn_alloc_text(gfp, nodemask, `page allocation failure: order:${order}`);
}

/** The same for who takes pages in his own way: `what` failed. */
export function warn_alloc_text(gfp: number, nodemask: NodeMask, what: string): void {
  if ((gfp & __GFP_NOWARN) !== 0) return;
  if ((gfp & GFP_DMA) !== 0 && !has_managed_dma()) return;
  if (local_clock() < state.next_ns) return;
  state.next_ns = local_clock() + RATE_LIMIT_NS;
  pr_warn(warn_alloc_head(gfp, nodemask, what));
  dump_stack(KERN_WARNING);
  // Nodes that a request was not allowed are left out if it was one that may wait.
  const shown = (gfp & __GFP_DIRECT_RECLAIM) !== 0 ? nodemask : 0;
  for (const line of show_mem_lines(gfp_zone(gfp), shown)) pr_warn(line);
}

function has_managed_dma(): boolean {
  for (const zone of for_each_populated_zone())
    if (Zone.zone_idx.get(zone) === ZONE_DMA && Zone.managed_pages.get(zone) > 0) return true;
  return false;
}

/** First line of the report of a failed request. */
function warn_alloc_head(gfp: number, nodemask: NodeMask, what: string): string {
  const nodes = [...for_each_online_node()];
  const mask = nodemask === 0 ? "(null)" : format_list(nodes.filter((node) => (nodemask >> node) & 1));
  const mode = `mode:0x${gfp.toString(16)}(${format_gfp(gfp)})`;
  return `${current_comm()}: ${what}, ${mode}, nodemask=${mask},cpuset=/,mems_allowed=${format_list(nodes)}`;
}

/** "Mem-Info:" and what follows, of the zones up to `highest_zone` and the nodes of a mask. */
export function show_mem_lines(highest_zone = MAX_NR_ZONES - 1, nodemask: NodeMask = 0): string[] {
  const zones = [...for_each_populated_zone()];
  const nodes = [...for_each_online_node()].filter((node) => nodemask === 0 || (nodemask >> node) & 1);
  const shown = zones.filter((zone) => Zone.zone_idx.get(zone) <= highest_zone && node_allowed(zone, nodemask));
  const present = sum(zones, (zone) => Zone.present_pages.get(zone));
  const managed = sum(zones, (zone) => Zone.managed_pages.get(zone));
  return [
    "Mem-Info:",
    ...global_lines(sum(zones, free_pcp)),
    ...nodes.map(node_line),
    ...shown.flatMap(zone_lines),
    ...shown.map(free_blocks_line),
    ...nodes.map((node) => `Node ${node} hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB`),
    `${global_node_page_state(NR_FILE_PAGES)} total pagecache pages`,
    "0 pages in swap cache",
    "Free swap  = 0kB",
    "Total swap = 0kB",
    `${present} pages RAM`,
    "0 pages HighMem/MovableOnly",
    `${present - managed} pages reserved`,
    "0 pages hwpoisoned",
  ];
}

function sum(zones: readonly ZonePtr[], of: (zone: ZonePtr) => number): number {
  return zones.reduce((total, zone) => total + of(zone), 0);
}

/** Pages of a zone on the lists of all CPUs. */
export function free_pcp(zone: ZonePtr): number {
  let pages = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    if (cpu_is_online(cpu) || cpu === smp_processor_id()) pages += PerCpuPages.count.get(zone_pcp(zone, cpu));
  return pages;
}

function global_lines(pcp: number): string[] {
  const n = global_node_page_state;
  return [
    `active_anon:${n(NR_ACTIVE_ANON)} inactive_anon:${n(NR_INACTIVE_ANON)} isolated_anon:${n(NR_ISOLATED_ANON)}`,
    ` active_file:${n(NR_ACTIVE_FILE)} inactive_file:${n(NR_INACTIVE_FILE)} isolated_file:${n(NR_ISOLATED_FILE)}`,
    ` unevictable:${n(NR_UNEVICTABLE)} dirty:${n(NR_FILE_DIRTY)} writeback:${n(NR_WRITEBACK)}`,
    ` slab_reclaimable:${n(NR_SLAB_RECLAIMABLE)} slab_unreclaimable:${n(NR_SLAB_UNRECLAIMABLE)}`,
    ` mapped:${n(NR_FILE_MAPPED)} shmem:${n(NR_SHMEM)} pagetables:${n(NR_PAGETABLE)}`,
    ` sec_pagetables:${n(NR_SECONDARY_PAGETABLE)} bounce:0`,
    ` kernel_misc_reclaimable:${n(NR_KERNEL_MISC_RECLAIMABLE)}`,
    ` free:${global_zone_page_state(NR_FREE_PAGES)} free_pcp:${pcp} free_cma:${global_zone_page_state(NR_FREE_CMA)}`,
  ];
}

function node_line(node: NodeId): string {
  const kb = (item: number): string => `${node_page_state(NODE_DATA(node), item) * 4}kB`;
  return [
    `Node ${node} active_anon:${kb(NR_ACTIVE_ANON)}`, `inactive_anon:${kb(NR_INACTIVE_ANON)}`,
    `active_file:${kb(NR_ACTIVE_FILE)}`, `inactive_file:${kb(NR_INACTIVE_FILE)}`, `unevictable:${kb(NR_UNEVICTABLE)}`,
    `isolated(anon):${kb(NR_ISOLATED_ANON)}`, `isolated(file):${kb(NR_ISOLATED_FILE)}`, `mapped:${kb(NR_FILE_MAPPED)}`,
    `dirty:${kb(NR_FILE_DIRTY)}`, `writeback:${kb(NR_WRITEBACK)}`, `shmem:${kb(NR_SHMEM)}`,
    "shmem_thp:0kB", "shmem_pmdmapped:0kB", "anon_thp:0kB",
    `kernel_stack:${node_page_state(NODE_DATA(node), NR_KERNEL_STACK_KB)}kB`, `pagetables:${kb(NR_PAGETABLE)}`,
    `sec_pagetables:${kb(NR_SECONDARY_PAGETABLE)}`, `all_unreclaimable? ${node_is_hopeless(NODE_DATA(node)) ? "yes" : "no"}`, "Balloon:0kB",
  ].join(" "); // prettier-ignore
}

function zone_name(zone: ZonePtr): string {
  return `Node ${Zone.node.get(zone)} ${Zone.name.get(zone)}`;
}

function zone_lines(zone: ZonePtr): string[] {
  const kb = (pages: number): string => `${pages * 4}kB`;
  const stat = (item: number): string => kb(zone_page_state(zone, item));
  const local_pcp = PerCpuPages.count.get(zone_pcp(zone, smp_processor_id()));
  const reserve = Array.from({ length: MAX_NR_ZONES }, (_, i) => Zone.lowmem_reserve.get(zone, i));
  const line = [
    `${zone_name(zone)} free:${stat(NR_FREE_PAGES)}`, `boost:${kb(Zone.watermark_boost.get(zone))}`,
    `min:${kb(wmark_pages(zone, WMARK_MIN))}`, `low:${kb(wmark_pages(zone, WMARK_LOW))}`,
    `high:${kb(wmark_pages(zone, WMARK_HIGH))}`,
    `reserved_highatomic:${Zone.nr_reserved_highatomic.get(zone) * 4}KB`,
    `free_highatomic:${Zone.nr_free_highatomic.get(zone) * 4}KB`, `active_anon:${stat(NR_ZONE_ACTIVE_ANON)}`,
    `inactive_anon:${stat(NR_ZONE_INACTIVE_ANON)}`, `active_file:${stat(NR_ZONE_ACTIVE_FILE)}`,
    `inactive_file:${stat(NR_ZONE_INACTIVE_FILE)}`, `unevictable:${stat(NR_ZONE_UNEVICTABLE)}`,
    `writepending:${stat(NR_ZONE_WRITE_PENDING)}`, "zspages:0kB", `present:${kb(Zone.present_pages.get(zone))}`,
    `managed:${kb(Zone.managed_pages.get(zone))}`, `mlocked:${stat(NR_MLOCK)}`, "bounce:0kB",
    `free_pcp:${kb(free_pcp(zone))}`, `local_pcp:${kb(local_pcp)}`, `free_cma:${stat(NR_FREE_CMA)}`,
  ].join(" "); // prettier-ignore
  return [line, `lowmem_reserve[]: ${reserve.join(" ")}`];
}

const LETTERS = "UMEHI";

/** `Node 0 DMA: 1*4kB (U) 0*8kB … = 15360kB`. */
function free_blocks_line(zone: ZonePtr): string {
  let total = 0;
  let line = `${zone_name(zone)}: `;
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    const area = Zone.free_area.at(zone, order);
    const nr_free = FreeArea.nr_free.get(area);
    total += nr_free << order;
    line += `${nr_free}*${4 << order}kB `;
    if (nr_free > 0) line += `(${free_types(area)}) `;
  }
  return `${line}= ${total * 4}kB`;
}

function free_types(area: number): string {
  let types = "";
  for (let type = 0; type < MIGRATE_TYPES; type++)
    if (!list_empty(FreeArea.free_list.at(area, type))) types += LETTERS[type];
  return types;
}

/** The totals of `free` and /proc/meminfo, in pages. */
export function si_meminfo(): { total: number; free: number; available: number; shared: number; cached: number } {
  const cached = global_node_page_state(NR_FILE_PAGES);
  const free = global_zone_page_state(NR_FREE_PAGES);
  const shared = global_node_page_state(NR_SHMEM);
  return { total: node_state.totalram_pages, free, available: si_mem_available(), shared, cached };
}

/** Pages that could be had without swapping: free ones, and about half of what caches hold. */
export function si_mem_available(): number {
  const low = sum([...for_each_zone()], (zone) => wmark_pages(zone, WMARK_LOW));
  const file = global_node_page_state(NR_ACTIVE_FILE) + global_node_page_state(NR_INACTIVE_FILE);
  const slab = global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_KERNEL_MISC_RECLAIMABLE);
  const free = global_zone_page_state(NR_FREE_PAGES) - node_state.totalreserve_pages;
  return available_pages(free, file, slab, low);
}

/** The same of any machine: `free` without the reserves, `low` the sum of all low marks: of so much, caches are not shrunk. */
export function available_pages(free: number, file: number, slab: number, low: number): number {
  const half = (pages: number): number => pages - Math.min(pages >> 1, low);
  return Math.max(free + half(file) + half(slab), 0);
}

/** Pages that may be promised: half of RAM, as there is neither swap nor a pool of huge pages. */
export function vm_commit_limit(totalram_pages: number): number {
  return Math.floor((totalram_pages * OVERCOMMIT_RATIO) / 100);
}
