/**
 * The counters behind /proc/vmstat, /proc/zoneinfo and /proc/meminfo.
 *
 *     events   what happened (PGALLOC_*, PGFREE, PGFAULT …)     a word a CPU, plain; the sum is taken by the reader
 *     zone     what is (NR_FREE_PAGES …)                        zone->vm_stat[], NR_FREE_PAGES under zone->lock
 *     node     what is (NR_SLAB_*, NR_FILE_PAGES …)             pgdat->vm_stat[], atomic
 *     NUMA     whence pages came (NUMA_HIT …)                   zone->numa_event[] + pcp->allocs of each CPU
 *
 * An event is counted by the CPU on which it happens, so a count is one plain load and store. Words are 32 bits wide:
 * each second `fold_vm_events` carries them into 64-bit totals.
 *
 * Names and order are those of a kernel with all that is usual: compaction, huge pages, swap, NUMA balancing. What is not
 * there counts nothing.
 *
 * Unlike Linux: zone and node counters have no per-CPU deltas, so every value is exact at every moment and never reads
 * as negative. The threshold up to which Linux would let a delta grow is still worked out, since /proc/zoneinfo shows it.
 */
import { NULL, type CpuId, type NodeId, type Ptr } from "../hal/addr.ts";
import { atomic_add } from "../hal/atomic.ts";
import { CPU_OFFSET, cpu_regs, cpu_to_node, num_online_cpus, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { fls } from "../kernel/lib/bitops.ts";
import {
  NODE_DATA, NR_NUMA_EVENTS, NUMA_HIT, NUMA_LOCAL, NUMA_OTHER, PerCpuPages, PgData, Zone,
  for_each_online_node, for_each_populated_zone, for_each_zone, type PgDataPtr, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

const m = ram32;
const r = cpu_regs;
const OFFSET = CPU_OFFSET;

/** Names of the zone counters, by NR_*. */
export const ZONE_STAT_NAMES: readonly string[] = Object.freeze([
  "nr_free_pages", "nr_free_pages_blocks", "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file",
  "nr_zone_active_file", "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock", "nr_free_cma",
]); // prettier-ignore
/** Names of the NUMA counters, by NUMA_*. */
export const NUMA_STAT_NAMES: readonly string[] = Object.freeze([
  "numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other",
]); // prettier-ignore
/** Names of the node counters, by the NR_* below. */
export const NODE_STAT_NAMES: readonly string[] = Object.freeze([
  "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
  "nr_slab_reclaimable", "nr_slab_unreclaimable", "nr_isolated_anon", "nr_isolated_file", "workingset_nodes",
  "workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon", "workingset_activate_file",
  "workingset_restore_anon", "workingset_restore_file", "workingset_nodereclaim", "nr_anon_pages", "nr_mapped",
  "nr_file_pages", "nr_dirty", "nr_writeback", "nr_shmem", "nr_shmem_hugepages", "nr_shmem_pmdmapped",
  "nr_file_hugepages", "nr_file_pmdmapped", "nr_anon_transparent_hugepages", "nr_vmscan_write",
  "nr_vmscan_immediate_reclaim", "nr_dirtied", "nr_written", "nr_throttled_written", "nr_kernel_misc_reclaimable",
  "nr_foll_pin_acquired", "nr_foll_pin_released", "nr_kernel_stack", "nr_page_table_pages",
  "nr_sec_page_table_pages", "nr_iommu_pages", "nr_swapcached", "pgpromote_success", "pgpromote_candidate",
  "pgpromote_candidate_nrl", "pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive",
  "nr_hugetlb", "nr_balloon_pages", "nr_kernel_file_pages",
]); // prettier-ignore
/** Index of a node counter. */
export const NR_INACTIVE_ANON = 0;
export const NR_ACTIVE_ANON = 1;
export const NR_INACTIVE_FILE = 2;
export const NR_ACTIVE_FILE = 3;
export const NR_UNEVICTABLE = 4;
export const NR_SLAB_RECLAIMABLE = 5;
export const NR_SLAB_UNRECLAIMABLE = 6;
export const NR_ISOLATED_ANON = 7;
export const NR_ISOLATED_FILE = 8;
export const NR_ANON_MAPPED = 17;
export const NR_FILE_MAPPED = 18;
export const NR_FILE_PAGES = 19;
export const NR_FILE_DIRTY = 20;
export const NR_WRITEBACK = 21;
export const NR_SHMEM = 22;
export const NR_KERNEL_MISC_RECLAIMABLE = 33;
/** Kernel stacks in KiB, as in Linux. */
export const NR_KERNEL_STACK_KB = 36;
export const NR_PAGETABLE = 37;
export const NR_SECONDARY_PAGETABLE = 38;

/** Names of the events, by the numbers below; the order is that of /proc/vmstat. */
export const VM_EVENT_NAMES: readonly string[] = Object.freeze([
  "pgpgin", "pgpgout", "pswpin", "pswpout",
  "pgalloc_dma", "pgalloc_dma32", "pgalloc_normal", "pgalloc_movable", "pgalloc_device",
  "allocstall_dma", "allocstall_dma32", "allocstall_normal", "allocstall_movable", "allocstall_device",
  "pgskip_dma", "pgskip_dma32", "pgskip_normal", "pgskip_movable", "pgskip_device",
  "pgfree", "pgactivate", "pgdeactivate", "pglazyfree", "pgfault", "pgmajfault", "pglazyfreed", "pgrefill", "pgreuse",
  "pgsteal_kswapd", "pgsteal_direct", "pgsteal_khugepaged", "pgsteal_proactive", "pgscan_kswapd", "pgscan_direct",
  "pgscan_khugepaged", "pgscan_proactive", "pgscan_direct_throttle", "pgscan_anon", "pgscan_file", "pgsteal_anon",
  "pgsteal_file", "zone_reclaim_success", "zone_reclaim_failed", "pginodesteal", "slabs_scanned", "kswapd_inodesteal",
  "kswapd_low_wmark_hit_quickly", "kswapd_high_wmark_hit_quickly", "pageoutrun", "pgrotated", "drop_pagecache",
  "drop_slab", "oom_kill", "numa_pte_updates", "numa_huge_pte_updates", "numa_hint_faults", "numa_hint_faults_local",
  "numa_pages_migrated", "pgmigrate_success", "pgmigrate_fail", "thp_migration_success", "thp_migration_fail",
  "thp_migration_split", "compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "compact_stall",
  "compact_fail", "compact_success", "compact_daemon_wake", "compact_daemon_migrate_scanned",
  "compact_daemon_free_scanned", "htlb_buddy_alloc_success", "htlb_buddy_alloc_fail", "unevictable_pgs_culled",
  "unevictable_pgs_scanned", "unevictable_pgs_rescued", "unevictable_pgs_mlocked", "unevictable_pgs_munlocked",
  "unevictable_pgs_cleared", "unevictable_pgs_stranded", "thp_fault_alloc", "thp_fault_fallback",
  "thp_fault_fallback_charge", "thp_collapse_alloc", "thp_collapse_alloc_failed", "thp_file_alloc",
  "thp_file_fallback", "thp_file_fallback_charge", "thp_file_mapped", "thp_split_page", "thp_split_page_failed",
  "thp_deferred_split_page", "thp_underused_split_page", "thp_split_pmd", "thp_scan_exceed_none_pte",
  "thp_scan_exceed_swap_pte", "thp_scan_exceed_share_pte", "thp_split_pud", "thp_zero_page_alloc",
  "thp_zero_page_alloc_failed", "thp_swpout", "thp_swpout_fallback", "balloon_inflate", "balloon_deflate",
  "balloon_migrate", "swap_ra", "swap_ra_hit", "swpin_zero", "swpout_zero", "direct_map_level2_splits",
  "direct_map_level3_splits", "direct_map_level2_collapses", "direct_map_level3_collapses",
]); // prettier-ignore
/** KiB read from a device. */
export const PGPGIN = 0;
/** Pages allocated from a zone: PGALLOC + its index. */
export const PGALLOC = 4;
/** Direct reclaims for a request of a zone: ALLOCSTALL + its index; pages of too high a zone that a scan met: PGSKIP + it. */
export const ALLOCSTALL = 9;
export const PGSKIP = 14;
export const PGFREE = 19;
export const PGACTIVATE = 20;
export const PGDEACTIVATE = 21;
/** Page faults resolved; those among them that could keep a page instead of copying it. */
export const PGFAULT = 23;
export const PGMAJFAULT = 24;
export const PGREUSE = 27;
export const PGREFILL = 26;
/** By whom: + 0 kswapd, + 1 whoever allocates. */
export const PGSTEAL_KSWAPD = 28;
export const PGSCAN_KSWAPD = 32;
export const PGSCAN_DIRECT_THROTTLE = 36;
/** Of what: + 0 anonymous pages, + 1 pages of files. */
export const PGSCAN_ANON = 37;
export const PGSTEAL_ANON = 39;
/** Node reclaims (mm/node_reclaim.ts) that freed what they were to free, and others. */
export const ZONE_RECLAIM_SUCCESS = 41;
export const ZONE_RECLAIM_FAILED = 42;
export const SLABS_SCANNED = 44;
export const KSWAPD_LOW_WMARK_HIT_QUICKLY = 46;
export const KSWAPD_HIGH_WMARK_HIT_QUICKLY = 47;
export const PAGEOUTRUN = 48;
export const DROP_PAGECACHE = 50;
export const DROP_SLAB = 51;
export const OOM_KILL = 52;
export const PGMIGRATE_SUCCESS = 58;
export const PGMIGRATE_FAIL = 59;
export const COMPACTMIGRATE_SCANNED = 63;
export const COMPACTFREE_SCANNED = 64;
export const COMPACTISOLATED = 65;
export const COMPACTSTALL = 66;
export const COMPACTFAIL = 67;
export const COMPACTSUCCESS = 68;
/** Pages that came to the unevictable list. */
export const UNEVICTABLE_PGCULLED = 74;
const NR_VM_EVENT_ITEMS = 114;

/** Counts of each CPU. Only that CPU writes its copy. */
export const vm_event_states = per_cpu_data("vm_event_states", { event: "u32[114]", total: "u64[114]" });
const EVENTS = vm_event_states.ptr + vm_event_states.event.offset;

/** Counts `nr` events of a kind, on this CPU. Hot path. */
export function count_vm_events(item: number, nr: number): void {
  const w = (EVENTS + r[OFFSET] + (item << 2)) >> 2;
  m[w] = m[w] + nr;
}

export function count_vm_event(item: number): void {
  count_vm_events(item, 1);
}

/** What all CPUs together counted, by event. */
export function all_vm_events(): number[] {
  const sums = new Array<number>(NR_VM_EVENT_ITEMS).fill(0);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const copy = per_cpu_ptr(vm_event_states.ptr, cpu);
    for (let item = 0; item < NR_VM_EVENT_ITEMS; item++)
      sums[item] += vm_event_states.event.get(copy, item) + vm_event_states.total.get(copy, item);
    for (const zone of for_each_populated_zone())
      sums[PGALLOC + Zone.zone_idx.get(zone)] += PerCpuPages.allocs.get(
        per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu),
      );
  }
  return sums;
}

/** What all CPUs together counted of one event. */
export function global_vm_event(item: number): number {
  return all_vm_events()[item];
}

/** Carries the 32-bit counts of one CPU into its totals. Context: that CPU, once a second. */
export function fold_vm_events(cpu: number): void {
  const copy = per_cpu_ptr(vm_event_states.ptr, cpu);
  for (let item = 0; item < NR_VM_EVENT_ITEMS; item++) {
    const count = vm_event_states.event.get(copy, item);
    vm_event_states.total.set(copy, item, vm_event_states.total.get(copy, item) + count);
    vm_event_states.event.set(copy, item, 0);
  }
}

/** Adds to a zone counter. Context: zone->lock for NR_FREE_PAGES, else any. */
export function mod_zone_page_state(zone: ZonePtr, item: number, nr: number): void {
  atomic_add(Zone.vm_stat.at(zone, item), nr);
}

export function zone_page_state(zone: ZonePtr, item: number): number {
  return Zone.vm_stat.get(zone, item);
}

/** A zone counter summed over all zones. */
export function global_zone_page_state(item: number): number {
  let sum = 0;
  for (const zone of for_each_zone()) sum += zone_page_state(zone, item);
  return sum;
}

/** A zone counter summed over one node's zones. */
export function sum_zone_node_page_state(node: NodeId, item: number): number {
  let sum = 0;
  for (let i = 0; i < PgData.node_zones.length; i++)
    sum += zone_page_state(PgData.node_zones.at(NODE_DATA(node), i), item);
  return sum;
}

/** Adds to a node counter. Context: any. */
export function mod_node_page_state(pgdat: PgDataPtr, item: number, nr: number): void {
  atomic_add(PgData.vm_stat.at(pgdat, item), nr);
}

export function node_page_state(pgdat: PgDataPtr, item: number): number {
  return pgdat === NULL ? 0 : PgData.vm_stat.get(pgdat, item);
}

/** A node counter summed over all nodes. */
export function global_node_page_state(item: number): number {
  let sum = 0;
  for (const node of for_each_online_node()) sum += node_page_state(NODE_DATA(node), item);
  return sum;
}

const numa_stat = static_data("numa_stat", { off: "u32" });

/** `vm.numa_stat`: 0 while NUMA counters are not wanted; all of them read as 0 then. */
export function numa_stat_enabled(): number {
  return 1 - numa_stat.off;
}

/** Switches them off, or on again from 0. What happens in between is counted and thrown away: cheaper than to ask. */
export function set_numa_stat(on: number): void {
  if (on === numa_stat_enabled()) return;
  numa_stat.off = 1 - on;
  for (const zone of for_each_populated_zone()) {
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => fold_pcp_allocs(zone, cpu));
    for (let item = 0; item < NR_NUMA_EVENTS; item++) Zone.numa_event.set(zone, item, 0);
  }
}

/** A NUMA counter of a zone, with what CPUs counted apart on the hot path: allocations from their nearest zone. */
export function zone_numa_event_state(zone: ZonePtr, item: number): number {
  if (numa_stat.off !== 0) return 0;
  let sum = Zone.numa_event.get(zone, item);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const local = cpu_to_node(cpu) === Zone.node.get(zone) ? NUMA_LOCAL : NUMA_OTHER;
    if (item === NUMA_HIT || item === local)
      sum += PerCpuPages.allocs.get(per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu));
  }
  return sum;
}

/** Adds what a CPU counted apart to the counters where it belongs. Context: that CPU, once a second. */
export function fold_pcp_allocs(zone: ZonePtr, cpu: CpuId): void {
  const pcp = per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu);
  const allocs = PerCpuPages.allocs.get(pcp);
  const local = cpu_to_node(cpu) === Zone.node.get(zone) ? NUMA_LOCAL : NUMA_OTHER;
  for (const item of [NUMA_HIT, local]) Zone.numa_event.set(zone, item, Zone.numa_event.get(zone, item) + allocs);
  count_vm_events(PGALLOC + Zone.zone_idx.get(zone), allocs);
  PerCpuPages.allocs.set(pcp, 0);
}

/** A NUMA counter summed over all zones. */
function global_numa_event_state(item: number): number {
  let sum = 0;
  for (const zone of for_each_populated_zone()) sum += zone_numa_event_state(zone, item);
  return sum;
}

/** A NUMA counter summed over one node's zones. */
export function sum_zone_numa_event_state(node: NodeId, item: number): number {
  let sum = 0;
  for (const zone of for_each_populated_zone())
    if (Zone.node.get(zone) === node) sum += zone_numa_event_state(zone, item);
  return sum;
}

/** How far Linux would let a CPU's delta of a counter of this zone grow. */
export function calculate_normal_threshold(online_cpus: number, managed_pages: number): number {
  return Math.min(125, 2 * fls(online_cpus) * (1 + fls(managed_pages >>> 15)));
}

/** Works out every zone's threshold anew. Context: after zones were sized and after a CPU came or went. */
export function refresh_zone_stat_thresholds(): void {
  for (const zone of for_each_zone())
    if (Zone.present_pages.get(zone) > 0)
      Zone.stat_threshold.set(zone, calculate_normal_threshold(num_online_cpus(), Zone.managed_pages.get(zone)));
}

/** Address of a CPU's count of an event, for tests that read it alone. */
export function vm_event_ptr(item: number, cpu: number): Ptr {
  return per_cpu_ptr(EVENTS, cpu) + item * 4;
}

/** Every line of /proc/vmstat but the thresholds: name and value, in order; `node` limits it to one node's file. */
export function vmstat_lines(node?: NodeId): { name: string; value: number }[] {
  const lines: { name: string; value: number }[] = [];
  const add = (names: readonly string[], value: (item: number) => number): void =>
    names.forEach((name, item) => lines.push({ name, value: value(item) }));
  add(ZONE_STAT_NAMES, (i) => (node === undefined ? global_zone_page_state(i) : sum_zone_node_page_state(node, i)));
  add(NUMA_STAT_NAMES, (i) => (node === undefined ? global_numa_event_state(i) : sum_zone_numa_event_state(node, i)));
  add(NODE_STAT_NAMES, (i) => (node === undefined ? global_node_page_state(i) : node_page_state(NODE_DATA(node), i)));
  if (node !== undefined) return lines;
  const events = all_vm_events();
  add(VM_EVENT_NAMES, (i) => events[i]);
  return lines;
}
