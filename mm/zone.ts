/**
 * Nodes and zones: the structs, how to walk them, and the zonelists.
 *
 *     pglist_data (a node)                      zone (a kind of memory on that node)
 *       node_zones[5]  DMA DMA32 Normal …  ->     free_area[11]   per order: a list a migrate type, and nr_free
 *       node_zonelists[2]                         per_cpu_pageset what each CPU keeps ready (mm/pcp.ts)
 *         0 every node, nearest first             watermark[4], lowmem_reserve[5], counters
 *         1 this node only
 *
 * A zonelist is an array of zones in the order in which a request from that node tries them. Which frames a zone spans,
 * its marks and its reserves are worked out by pure functions (mm/zone_sizing.ts) and stored by mm/mm_init.ts.
 *
 * Locks: zone->lock protects free_area, page block types, free page counts. See mm/README.md.
 */
import { L1_CACHE_BYTES, NULL, type NodeId, type Pfn, type Ptr } from "../hal/addr.ts";
import { array, struct } from "../hal/struct.ts";
import { static_data } from "../hal/image.ts";
import { ListHead } from "../kernel/lib/list.ts";
import { SpinLock } from "../kernel/lib/spinlock.ts";
import { MAX_NR_ZONES, MIGRATE_TYPES } from "./gfp.ts";
import { page_to_nid, page_zonenum, type PagePtr } from "./page.ts";

export const MAX_PAGE_ORDER = 10;
export const NR_PAGE_ORDERS = 11;
export const PAGE_ALLOC_COSTLY_ORDER = 3;
/** Pages of one block that carries one migrate type: 2 MiB. */
export const pageblock_order = 9;
export const pageblock_nr_pages = 512;
/** Orders 0..3 with three types each, and order 9 twice. */
export const NR_PCP_LISTS = 14;
export const MAX_NUMNODES = 16;
/** A set of nodes: bit n is node n. Where it limits a request, 0 stands for any node. */
export type NodeMask = number;

export const WMARK_MIN = 0;
export const WMARK_LOW = 1;
export const WMARK_HIGH = 2;
export const WMARK_PROMO = 3;

export const FreeArea = struct("free_area", {
  free_list: array(ListHead, MIGRATE_TYPES),
  nr_free: "u32", // blocks of this order, all types
});

/** What one CPU keeps ready of one zone. Only that CPU touches it, but for drains, which take the lock. */
export const PerCpuPages = struct(
  "per_cpu_pages",
  {
    lock: SpinLock,
    count: "s32", // pages on the lists (not blocks)
    high: "s32", // drain above this; moves between high_min and high_max
    high_min: "s32",
    high_max: "s32",
    batch: "s32", // pages a refill or a drain moves at a time
    flags: "u32", // PCPF_*
    alloc_factor: "s32", // refills grow by this power of two while allocations go on
    expire: "s32", // remote zones: ticks until a drain
    free_count: "s32", // pages freed lately without an allocation in between
    // For the hot path (mm/page_alloc.ts).
    limit: "s32", // below it a free is a push and nothing else: `high`, or 0 while more is to be done
    free_max: "s32", // free_count stops there: 32 batches
    allocs: "u32", // pages popped there: readers add them to PGALLOC_*, numa_hit, and numa_local or numa_other
    zone_node: "u32", // what pages of this zone have in their page->zone_node
    blocks: "s32", // zone->pageblock_flags - (zone_start_pfn >> pageblock_order)
    lists: array(ListHead, NR_PCP_LISTS),
  },
  { align: L1_CACHE_BYTES },
);

/** Zone counters (`zone->vm_stat`), in the order of /proc/vmstat. */
export const NR_FREE_PAGES = 0;
export const NR_FREE_PAGES_BLOCKS = 1;
export const NR_ZONE_INACTIVE_ANON = 2;
export const NR_ZONE_ACTIVE_ANON = 3;
export const NR_ZONE_INACTIVE_FILE = 4;
export const NR_ZONE_ACTIVE_FILE = 5;
export const NR_ZONE_UNEVICTABLE = 6;
export const NR_ZONE_WRITE_PENDING = 7;
export const NR_MLOCK = 8;
export const NR_FREE_CMA = 9;
export const NR_ZONE_STATS = 10;
/** NUMA event counters of a zone (`zone->numa_event`). */
export const NUMA_HIT = 0;
export const NUMA_MISS = 1;
export const NUMA_FOREIGN = 2;
export const NUMA_INTERLEAVE_HIT = 3;
export const NUMA_LOCAL = 4;
export const NUMA_OTHER = 5;
export const NR_NUMA_EVENTS = 6;

/** Bits of `zone->flags`. */
export const ZONE_BOOSTED_WATERMARK = 0;
export const ZONE_RECLAIM_ACTIVE = 1;
export const ZONE_BELOW_HIGH = 2;
export const ZONE_KSWAPD_AWAKE = 3; // the node's kswapd runs: requests look at other nodes first

export const Zone = struct(
  "zone",
  {
    // Read by every allocation, written rarely.
    watermark: "u32[4]", // pages; what is used is the mark + watermark_boost
    watermark_boost: "u32",
    nr_reserved_highatomic: "u32", // zone->lock
    nr_free_highatomic: "u32", // zone->lock
    flags: "u32", // ZONE_* bits; atomic
    plenty: "u32", // 1: no request of order <= 9 need ask for watermarks; see mm/plenty.ts
    lowmem_reserve: "u32[5]", // pages kept from requests that could use a higher zone, by that zone's index
    zone_idx: "u32",
    node: "u32",
    zone_pgdat: "*pglist_data",
    per_cpu_pageset: "*per_cpu_pages", // per-CPU pointer; never NULL once memory is up
    pageset_batch: "s32",
    pageset_high_min: "s32",
    pageset_high_max: "s32",
    stat_threshold: "s32",
    zone_start_pfn: "u32",
    spanned_pages: "u32", // holes included
    present_pages: "u32", // without holes
    managed_pages: "u32", // present less what boot reserved
    pageblock_flags: "*u8", // a byte a page block: its migrate type; index (pfn - rounddown(start, 512)) / 512
    name: "char[8]",
    // The allocator's own part.
    lock: SpinLock, // protects what follows
    free_area: array(FreeArea, NR_PAGE_ORDERS),
    vm_stat: "s32[10]", // NR_* counters; NR_FREE_PAGES under zone->lock
    numa_event: "u32[6]", // NUMA_*; carried by the CPU that allocates
  },
  { align: L1_CACHE_BYTES },
);
export type ZonePtr = Ptr<"zone">;

/** Node counters (`pgdat->vm_stat`), in the order of /proc/vmstat; see mm/vmstat.ts for their names. */
export const NR_NODE_STATS = 56;

export const ZoneRef = struct("zoneref", { zone: "*zone", zone_idx: "u32", pad: "u32" }, { sizeof: 16 });
export const ZoneList = struct("zonelist", { refs: array(ZoneRef, MAX_NUMNODES * 4 + 1) }); // ends with a NULL zone
export type ZoneListPtr = Ptr<"zonelist">;
export const ZONELIST_FALLBACK = 0;
export const ZONELIST_NOFALLBACK = 1;

/** Lists of `lruvec`: pages in use that could be had back, by what they are and how lately they were used. */
export const LRU_INACTIVE_ANON = 0;
export const LRU_ACTIVE_ANON = 1;
export const LRU_INACTIVE_FILE = 2;
export const LRU_ACTIVE_FILE = 3;
export const LRU_UNEVICTABLE = 4;
export const NR_LRU_LISTS = 5;

/** A node's pages in use: see mm/swap.ts. */
export const Lruvec = struct("lruvec", {
  lru_lock: SpinLock,
  lists: array(ListHead, NR_LRU_LISTS), // newest at the head; linked by page->lru
});

export const PgData = struct(
  "pglist_data",
  {
    node_zones: array(Zone, MAX_NR_ZONES),
    node_zonelists: array(ZoneList, 2),
    nr_zones: "u32", // index of the highest populated zone + 1
    node_id: "u32",
    node_start_pfn: "u32",
    node_present_pages: "u32",
    node_spanned_pages: "u32",
    totalreserve_pages: "u32",
    vm_stat: `u32[56]`,
    lruvec: Lruvec,
    // Of kswapd, the node's own thread of reclaim: see mm/vmscan.ts.
    kswapd: "*task_struct", // NULL while there is none
    kswapd_awake: "u32",
    kswapd_order: "u32", // what it was woken for: the largest order, and
    kswapd_highest_zoneidx: "u32", // the highest zone; MAX_NR_ZONES: nothing
    kswapd_failures: "u32", // runs without a page; MAX_RECLAIM_RETRIES: the node is hopeless
  },
  { align: L1_CACHE_BYTES },
);
export type PgDataPtr = Ptr<"pglist_data">;

export const node_state = static_data("node_data", {
  node_data: "*pglist_data[16]", // NULL where there is no such node
  nr_node_ids: "u32", // highest node number + 1
  distance: "u8[256]", // [from * 16 + to]
  totalram_pages: "u32", // managed pages of the machine
  totalreserve_pages: "u32",
  min_free_kbytes: "u32",
  policy_zone: "u32", // the highest zone below Movable that any node has: memory policies bind requests for it
});

/** The node's control block; NULL where there is no such node. */
export function NODE_DATA(node: NodeId): PgDataPtr {
  return node_state.node_data.get(node);
}

/** Nodes that are there, in order. */
export function* for_each_online_node(): Generator<NodeId> {
  for (let node = 0; node < node_state.nr_node_ids; node++) if (NODE_DATA(node) !== NULL) yield node;
}

/** Zones with memory, node by node, lowest zone first. */
export function* for_each_populated_zone(): Generator<ZonePtr> {
  for (const zone of for_each_zone()) if (Zone.present_pages.get(zone) > 0) yield zone;
}

/** All zones, empty ones too. */
export function* for_each_zone(): Generator<ZonePtr> {
  for (const node of for_each_online_node())
    for (let i = 0; i < MAX_NR_ZONES; i++) yield PgData.node_zones.at(NODE_DATA(node), i);
}

/** The zone of a page. */
export function page_zone(page: PagePtr): ZonePtr {
  return PgData.node_zones.at(node_state.node_data.get(page_to_nid(page)), page_zonenum(page));
}

/** True if a request limited to `nodemask` may use a zone. */
export function node_allowed(zone: ZonePtr, nodemask: NodeMask): boolean {
  return nodemask === 0 || ((nodemask >> Zone.node.get(zone)) & 1) !== 0;
}

export function zone_end_pfn(zone: ZonePtr): Pfn {
  return Zone.zone_start_pfn.get(zone) + Zone.spanned_pages.get(zone);
}

/** Distance of two nodes: 10 is local. */
export function node_distance(from: NodeId, to: NodeId): number {
  return node_state.distance.get(from * MAX_NUMNODES + to);
}

/** The list of zones that a request for `node` tries; `this_node_only` for __GFP_THISNODE. */
export function node_zonelist(node: NodeId, which: number): ZoneListPtr {
  return PgData.node_zonelists.at(NODE_DATA(node), which);
}

/** Node of the nearest memory: the node itself unless it has none. */
export function local_memory_node(node: NodeId): NodeId {
  const zone = ZoneRef.zone.get(ZoneList.refs.at(node_zonelist(node, ZONELIST_FALLBACK), 0));
  return zone === NULL ? node : Zone.node.get(zone);
}
