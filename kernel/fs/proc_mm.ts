/**
 * What /proc says of memory: slabinfo, buddyinfo, pagetypeinfo, zoneinfo, meminfo, vmstat.
 *
 * Every text is Linux's, letter for letter, with figures taken from the allocators' own structs at this moment. So all
 * of them agree: blocks of buddyinfo = free pages of zoneinfo; zones and nodes add up to meminfo and vmstat.
 */
import { PAGE_SIZE, type NodeId } from "../../hal/addr.ts";
import { cpu_is_online, nr_cpu_ids } from "../../hal/cpu.ts";
import { MAX_NR_ZONES, MIGRATE_NAMES, MIGRATE_TYPES } from "../../mm/gfp.ts";
import { direct_map_kib } from "../../mm/kernel_map.ts";
import { si_mem_available, vm_commit_limit } from "../../mm/show_mem.ts";
import { node_is_hopeless } from "../../mm/reclaim_state.ts";
import { nr_memmap_boot_pages } from "../../mm/mem_map.ts";
import { pfn_to_page, pfn_valid } from "../../mm/page.ts";
import { get_pageblock_migratetype } from "../../mm/pageblock.ts";
import { pcpu_nr_pages } from "../../mm/percpu.ts";
import { zone_pcp } from "../../mm/pcp.ts";
import { KmemCache, get_slabinfo, slab_ops } from "../../mm/slab_common.ts";
import {
  NODE_STAT_NAMES, NR_ACTIVE_ANON, NR_ACTIVE_FILE, NR_ANON_MAPPED, NR_FILE_DIRTY, NR_FILE_MAPPED, NR_FILE_PAGES,
  NR_INACTIVE_ANON, NR_INACTIVE_FILE, NR_KERNEL_MISC_RECLAIMABLE, NR_KERNEL_STACK_KB, NR_PAGETABLE,
  NR_SECONDARY_PAGETABLE, NR_SHMEM, NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, NR_UNEVICTABLE, NR_WRITEBACK,
  NUMA_STAT_NAMES, ZONE_STAT_NAMES, global_node_page_state, global_zone_page_state, node_page_state, vmstat_lines,
  zone_numa_event_state, zone_page_state,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { vmalloc_nr_pages } from "../../mm/vmalloc.ts";
import { wmark_pages } from "../../mm/watermark.ts";
import {
  FreeArea, NODE_DATA, NR_FREE_PAGES, NR_MLOCK, NR_PAGE_ORDERS, PerCpuPages, PgData, WMARK_HIGH, WMARK_LOW, WMARK_MIN,
  WMARK_PROMO, Zone, for_each_online_node, for_each_populated_zone, node_state, page_zone,
  pageblock_nr_pages, pageblock_order, zone_end_pfn, type PgDataPtr, type ZonePtr,
} from "../../mm/zone.ts"; // prettier-ignore
import { ksym } from "../lib/ksym.ts";
import { list_count } from "../lib/list.ts";
import type { Store } from "./kernfs.ts";
import { proc_create, proc_symbol } from "./procfs.ts";
import { lpad, rpad } from "./seq_file.ts";
import { slab_names } from "./slab_names.ts";

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const ORDERS: readonly number[] = range(NR_PAGE_ORDERS);
const zone_name = (zone: ZonePtr): string => lpad(Zone.name.get(zone), 8);
/** Pages as kB. */
export const K = (pages: number): number => pages * (PAGE_SIZE / 1024);

/** What stands behind the columns with slab_stats=on, in an allocator that counts so. */
const STATISTICS =
  " : globalstat <listallocs> <maxobjs> <grown> <reaped> <error> <maxfreeable> <nodeallocs> <remotefrees>" +
  " <alienoverflow> : cpustat <allochit> <allocmiss> <freehit> <freemiss>";

function slabinfo(): string {
  const { slabinfo_stats = () => "" } = slab_ops();
  const caches = [...slab_names()];
  const counts = caches.length > 0 && slabinfo_stats(caches[0]![0]) !== "";
  const lines = [
    `slabinfo - version: 2.1${counts ? " (statistics)" : ""}`,
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>" +
      " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>" +
      (counts ? STATISTICS : ""),
  ];
  for (const [cache, name] of caches) {
    const info = get_slabinfo(cache);
    lines.push(
      `${rpad(name, 17)} ${lpad(info.active_objs, 6)} ${lpad(info.num_objs, 6)} ` +
        `${lpad(KmemCache.size.get(cache), 6)} ${lpad(info.objects_per_slab, 4)} ${lpad(2 ** info.cache_order, 4)}` +
        ` : tunables ${lpad(info.limit, 4)} ${lpad(info.batchcount, 4)} ${lpad(info.shared, 4)}` +
        ` : slabdata ${lpad(info.active_slabs, 6)} ${lpad(info.num_slabs, 6)} ${lpad(info.shared_avail, 6)}` +
        slabinfo_stats(cache),
    );
  }
  return lines.join("\n") + "\n";
}

function buddyinfo(): string {
  let text = "";
  for (const zone of for_each_populated_zone()) {
    const counts = ORDERS.map((order) => `${lpad(FreeArea.nr_free.get(Zone.free_area.at(zone, order)), 6)} `);
    text += `Node ${Zone.node.get(zone)}, zone ${zone_name(zone)} ${counts.join("")}\n`;
  }
  return text;
}

/** A list is counted no further; from here on it has "more than" that. */
const MAX_COUNT = 100_000;

function* populated_zones(node: NodeId): Generator<ZonePtr> {
  for (const zone of for_each_populated_zone()) if (Zone.node.get(zone) === node) yield zone;
}

function free_list_count(zone: ZonePtr, order: number, type: number): string {
  const count = list_count(FreeArea.free_list.at(Zone.free_area.at(zone, order), type), MAX_COUNT);
  return `${count === MAX_COUNT ? ">" : ""}${lpad(count, 6)} `;
}

/** Page blocks of a zone by type: those whose first frame is one of the zone's pages. */
function pageblock_counts(zone: ZonePtr): number[] {
  const counts = new Array<number>(MIGRATE_TYPES).fill(0);
  for (let pfn = Zone.zone_start_pfn.get(zone); pfn < zone_end_pfn(zone); pfn += pageblock_nr_pages) {
    const page = pfn_to_page(pfn);
    if (pfn_valid(pfn) && page_zone(page) === zone) counts[get_pageblock_migratetype(page)]!++;
  }
  return counts;
}

function pagetypeinfo(): string {
  let text = "";
  for (const node of for_each_online_node()) {
    if (PgData.node_present_pages.get(NODE_DATA(node)) === 0) continue;
    text += `Page block order: ${pageblock_order}\nPages per block:  ${pageblock_nr_pages}\n\n`;
    const orders = ORDERS.map((order) => `${lpad(order, 6)} `).join("");
    text += `${rpad("Free pages count per migrate type at order", 43)} ${orders}\n`;
    for (const zone of populated_zones(node))
      for (const [type, name] of MIGRATE_NAMES.entries()) {
        const counts = ORDERS.map((order) => free_list_count(zone, order, type)).join("");
        text += `Node ${lpad(node, 4)}, zone ${zone_name(zone)}, type ${lpad(name, 12)} ${counts}\n`;
      }
    text += `\n${rpad("Number of blocks type ", 23)}${MIGRATE_NAMES.map((name) => `${lpad(name, 12)} `).join("")}\n`;
    for (const zone of populated_zones(node)) {
      const counts = pageblock_counts(zone).map((count) => `${lpad(count, 12)} `);
      text += `Node ${node}, zone ${zone_name(zone)} ${counts.join("")}\n`;
    }
  }
  return text;
}

const counter = (name: string, value: number): string => `\n      ${rpad(name, 12)} ${value}`;
const HUGE_PAGES = /^nr_(shmem_(huge|pmd)|file_(huge|pmd)|anon_transparent_huge)/;
/** Counters of huge pages are in pages; they are shown in huge pages. */
const shown = (name: string, pages: number): number => (HUGE_PAGES.test(name) ? Math.floor(pages / 512) : pages);

function node_counters(pgdat: PgDataPtr): string {
  return NODE_STAT_NAMES.map((name, i) => counter(name, shown(name, node_page_state(pgdat, i)))).join("");
}

function pageset(zone: ZonePtr, cpu: number): string {
  const pcp = zone_pcp(zone, cpu);
  const { count, high, batch, high_min, high_max } = PerCpuPages;
  const line = (label: string, field: typeof count): string => `\n              ${rpad(label, 9)} ${field.get(pcp)}`;
  return (
    `\n    cpu: ${cpu}` + line("count:   ", count) + line("high:    ", high) + line("batch:   ", batch) +
    line("high_min:", high_min) + line("high_max:", high_max) +
    `\n  vm stats threshold: ${Zone.stat_threshold.get(zone)}`
  ); // prettier-ignore
}

function zone_text(zone: ZonePtr, with_node: string): string {
  const line = (label: string, value: number): string => `\n        ${rpad(label, 8)} ${value}`;
  let text =
    `Node ${Zone.node.get(zone)}, zone ${zone_name(zone)}${with_node}` +
    `\n  pages free     ${zone_page_state(zone, NR_FREE_PAGES)}` +
    line("boost", Zone.watermark_boost.get(zone)) +
    line("min", wmark_pages(zone, WMARK_MIN)) +
    line("low", wmark_pages(zone, WMARK_LOW)) +
    line("high", wmark_pages(zone, WMARK_HIGH)) +
    line("promo", wmark_pages(zone, WMARK_PROMO)) +
    line("spanned", Zone.spanned_pages.get(zone)) +
    line("present", Zone.present_pages.get(zone)) +
    line("managed", Zone.managed_pages.get(zone)) +
    line("cma", 0) +
    `\n        protection: (${range(MAX_NR_ZONES).map((i) => Zone.lowmem_reserve.get(zone, i)).join(", ")})`; // prettier-ignore
  if (Zone.present_pages.get(zone) === 0) return text + "\n";
  text += ZONE_STAT_NAMES.map((name, i) => counter(name, zone_page_state(zone, i))).join("");
  text += NUMA_STAT_NAMES.map((name, i) => counter(name, zone_numa_event_state(zone, i))).join("");
  text += "\n  pagesets";
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (cpu_is_online(cpu)) text += pageset(zone, cpu);
  return (
    text +
    `\n  node_unreclaimable:  ${node_is_hopeless(Zone.zone_pgdat.get(zone)) ? 1 : 0}\n  start_pfn:           ${Zone.zone_start_pfn.get(zone)}\n`
  );
}

function zoneinfo(): string {
  let text = "";
  for (const node of for_each_online_node()) {
    const [first] = populated_zones(node);
    for (let i = 0; i < MAX_NR_ZONES; i++) {
      const zone = PgData.node_zones.at(NODE_DATA(node), i);
      const counters = zone === first ? `\n  per-node stats${node_counters(NODE_DATA(node))}` : "";
      text += zone_text(zone, counters);
    }
  }
  return text;
}

/** The lines that /proc/meminfo and a node's meminfo have in common, in kB by label; `state` gives a node counter. */
export function meminfo_counters(state: (item: number) => number): Record<string, number> {
  const [active_anon, inactive_anon] = [state(NR_ACTIVE_ANON), state(NR_INACTIVE_ANON)];
  const [active_file, inactive_file] = [state(NR_ACTIVE_FILE), state(NR_INACTIVE_FILE)];
  const [reclaimable, unreclaimable] = [state(NR_SLAB_RECLAIMABLE), state(NR_SLAB_UNRECLAIMABLE)];
  return {
    Active: K(active_anon + active_file),
    Inactive: K(inactive_anon + inactive_file),
    "Active(anon)": K(active_anon),
    "Inactive(anon)": K(inactive_anon),
    "Active(file)": K(active_file),
    "Inactive(file)": K(inactive_file),
    Unevictable: K(state(NR_UNEVICTABLE)),
    Dirty: K(state(NR_FILE_DIRTY)),
    Writeback: K(state(NR_WRITEBACK)),
    FilePages: K(state(NR_FILE_PAGES)),
    Mapped: K(state(NR_FILE_MAPPED)),
    AnonPages: K(state(NR_ANON_MAPPED)),
    Shmem: K(state(NR_SHMEM)),
    KReclaimable: K(reclaimable + state(NR_KERNEL_MISC_RECLAIMABLE)),
    Slab: K(reclaimable + unreclaimable),
    SReclaimable: K(reclaimable),
    SUnreclaim: K(unreclaimable),
    KernelStack: state(NR_KERNEL_STACK_KB),
    PageTables: K(state(NR_PAGETABLE)),
    SecPageTables: K(state(NR_SECONDARY_PAGETABLE)),
  };
}

/** What this kernel does not have, and Linux shows as 0. */
const MEMINFO_LABELS =
  "MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon) Active(file) " +
  "Inactive(file) Unevictable Mlocked SwapTotal SwapFree Dirty Writeback AnonPages Mapped Shmem KReclaimable Slab " +
  "SReclaimable SUnreclaim KernelStack PageTables SecPageTables NFS_Unstable Bounce WritebackTmp CommitLimit " +
  "Committed_AS VmallocTotal VmallocUsed VmallocChunk Percpu AnonHugePages ShmemHugePages ShmemPmdMapped " +
  "FileHugePages FilePmdMapped Balloon HugePages_Total HugePages_Free HugePages_Rsvd HugePages_Surp Hugepagesize " +
  "Hugetlb DirectMap4k DirectMap2M DirectMap1G";

function meminfo(): string {
  const counters = meminfo_counters(global_node_page_state);
  const values: Record<string, number> = {
    ...counters,
    MemTotal: K(node_state.totalram_pages),
    MemFree: K(global_zone_page_state(NR_FREE_PAGES)),
    MemAvailable: K(si_mem_available()),
    Cached: counters.FilePages!,
    Mlocked: K(global_zone_page_state(NR_MLOCK)),
    CommitLimit: K(vm_commit_limit(node_state.totalram_pages)),
    VmallocTotal: 34359738367,
    VmallocUsed: K(vmalloc_nr_pages()),
    Percpu: K(pcpu_nr_pages()),
    Hugepagesize: 2048,
    ...direct_map_kib(),
  };
  const line = (label: string): string =>
    label.startsWith("HugePages_")
      ? `${rpad(`${label}:`, 19)}${lpad(values[label] ?? 0, 5)}\n`
      : `${rpad(`${label}:`, 16)}${lpad(values[label] ?? 0, 8)} kB\n`;
  return MEMINFO_LABELS.split(" ").map(line).join("");
}

/** Pages that may be dirty before writers must write back (20 %), and before that is begun behind their backs (10 %). */
function dirty_thresholds(): [number, number] {
  const free = global_zone_page_state(NR_FREE_PAGES);
  const cache = global_node_page_state(NR_INACTIVE_FILE) + global_node_page_state(NR_ACTIVE_FILE);
  const base = free - Math.min(free, node_state.totalreserve_pages) + cache + 1;
  return [Math.floor((base * 819) / 4096), Math.floor((base * 409) / 4096)];
}

function vmstat(): string {
  const lines = vmstat_lines().map(({ name, value }) => `${name} ${shown(name, value)}\n`);
  const [dirty, background] = dirty_thresholds();
  const events = lines.findIndex((line) => line.startsWith("pgpgin "));
  lines.splice(
    events, 0,
    `nr_dirty_threshold ${dirty}\n`, `nr_dirty_background_threshold ${background}\n`, `nr_memmap_pages 0\n`,
    `nr_memmap_boot_pages ${nr_memmap_boot_pages()}\n`,
  ); // prettier-ignore
  return lines.join("") + "nr_unstable 0\n";
}

/** A node's vmstat: /sys/devices/system/node/nodeN/vmstat. */
export function node_vmstat(node: NodeId): string {
  return vmstat_lines(node).map(({ name, value }) => `${name} ${shown(name, value)}\n`).join(""); // prettier-ignore
}

const show = {
  slabinfo: proc_symbol("slabinfo", slabinfo),
  buddyinfo: proc_symbol("buddyinfo", buddyinfo),
  pagetypeinfo: proc_symbol("pagetypeinfo", pagetypeinfo),
  zoneinfo: proc_symbol("zoneinfo", zoneinfo),
  meminfo: proc_symbol("meminfo", meminfo),
  vmstat: proc_symbol("vmstat", vmstat),
} as const;

const slabinfo_store: Store = (_instance, text) => slab_ops().slabinfo_write!(text);
const SLABINFO_STORE = ksym("slabinfo_store", slabinfo_store);

/** Boot: makes the files. */
export function proc_mm_init(): void {
  for (const name of ["buddyinfo", "pagetypeinfo", "zoneinfo", "meminfo", "vmstat"] as const)
    proc_create(name, { mode: name === "pagetypeinfo" ? 0o400 : 0o444, show: show[name] });
  const writable = slab_ops().slabinfo_write !== undefined;
  if (!slab_ops().no_slabinfo) proc_create("slabinfo", { mode: writable ? 0o600 : 0o400, show: show.slabinfo, ...(writable && { store: SLABINFO_STORE }) }); // prettier-ignore
}
