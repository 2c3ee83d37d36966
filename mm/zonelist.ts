/**
 * From a request to a zone: the way of every request for pages that the hot path (mm/page_alloc.ts) did not serve.
 *
 *     1 each zone of the zonelist       `get_page_from_freelist`: low mark; this CPU's list of the zone, then free areas
 *     2 the same, deeper                `__alloc_pages_slowpath`: min mark, reserves, as far as the flags permit
 *     3 reclaim, then again             one place, `try_to_free_pages`
 *     4 a report in the log, and NULL
 *
 * Which zones: the low bits of the flags name the highest zone that will do; a zonelist goes downwards and outwards
 * from there, so a request for DMA memory never gets a page above it, and an ordinary one spares DMA until last.
 *
 * Locks: pcp->lock, then zone->lock. Nothing here sleeps.
 * Unlike Linux: no memory policies, cpusets, dirty-page spreading, zone_reclaim, kswapd, compaction or OOM killer yet.
 */
import { NULL, PAGE_SIZE, type NodeId, type Ptr } from "../hal/addr.ts";
import { CPU_NODE, cpu_regs } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { ram32, ram_zero } from "../hal/ram.ts";
import { WARN_ON, panic } from "../kernel/lib/bug.ts";
import { should_fail_alloc_page } from "./fault_inject.ts";
import {
  ZONE_NORMAL, __GFP_COMP, __GFP_DIRECT_RECLAIM, __GFP_FS, __GFP_HIGH, __GFP_IO, __GFP_KSWAPD_RECLAIM, __GFP_MEMALLOC,
  __GFP_NOFAIL, __GFP_NOMEMALLOC, __GFP_NORETRY, __GFP_NOWARN, __GFP_RECLAIM, __GFP_RETRY_MAYFAIL, __GFP_THISNODE,
  __GFP_ZERO, gfp_zone,
} from "./gfp.ts"; // prettier-ignore
import { reserve_highatomic_pageblock, unreserve_highatomic_pageblock } from "./highatomic.ts";
import { Page, page_address, prep_compound_page, type PagePtr } from "./page.ts";
import { page_allocator } from "./page_allocator.ts";
import { request_migratetype } from "./pageblock.ts";
import { drain_all_pages, pcp_allowed_order, rmqueue_pcplist } from "./pcp.ts";
import {
  GATE_EARLY, GATE_FAULT, alloc_gate, zone_clear_flag, zone_lock, zone_set_flag, zone_unlock,
} from "./plenty.ts"; // prettier-ignore
import { warn_alloc } from "./show_mem.ts";
import { PGALLOC, count_vm_events } from "./vmstat.ts";
import {
  ALLOC_CPUSET, ALLOC_HIGHATOMIC, ALLOC_KSWAPD, ALLOC_MIN_RESERVE, ALLOC_NOFRAGMENT, ALLOC_NON_BLOCK,
  ALLOC_NO_WATERMARKS, ALLOC_WMARK_LOW, ALLOC_WMARK_MASK, ALLOC_WMARK_MIN, high_wmark_pages, wmark_pages,
  zone_watermark_fast,
} from "./watermark.ts"; // prettier-ignore
import {
  MAX_PAGE_ORDER, NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER, PAGE_ALLOC_COSTLY_ORDER, PgData,
  ZONELIST_FALLBACK, ZONELIST_NOFALLBACK, ZONE_BELOW_HIGH, ZONE_BOOSTED_WATERMARK, Zone, ZoneList, ZoneRef, node_state,
  pageblock_order, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

type ZoneRefPtr = Ptr<"zoneref">;

const m = ram32;
const r = cpu_regs;
const Z = Zone;
const NODE = CPU_NODE;
const NODES = node_state.$at("node_data") >> 2;
const NR_NODES = node_state.$at("nr_node_ids") >> 2;
const GATE = alloc_gate.$at("bits") >> 2;
const REF_BYTES = ZoneRef.sizeof;
const REF_IDX = ZoneRef.zone_idx.offset;
const FALLBACK_LIST = PgData.node_zonelists.offset + ZONELIST_FALLBACK * ZoneList.sizeof;
const THIS_NODE_LIST = PgData.node_zonelists.offset + ZONELIST_NOFALLBACK * ZoneList.sizeof;
const PRIVATE = Page.private.offset;
const REFCOUNT = Page.refcount.offset;
const PLENTY = Zone.plenty.offset;
const ZONE_IDX = Zone.zone_idx.offset;
const ZONE_NID = Zone.node.offset;
const ZONE_FLAGS = Zone.flags.offset;
const HIT = Zone.numa_event.offset + NUMA_HIT * 4;
const MISS = Zone.numa_event.offset + NUMA_MISS * 4;
const FOREIGN = Zone.numa_event.offset + NUMA_FOREIGN * 4;
const LOCAL = Zone.numa_event.offset + NUMA_LOCAL * 4;
const OTHER = Zone.numa_event.offset + NUMA_OTHER * 4;
const ALLOCATED = PGALLOC;
const NORMAL = ZONE_NORMAL;
const MAX_ORDER = MAX_PAGE_ORDER;
const BLOCK_ORDER = pageblock_order;
const THISNODE = __GFP_THISNODE;
const COMPOUND = __GFP_COMP;
const ZEROED = __GFP_ZERO;
const MAY_RECLAIM = __GFP_RECLAIM | __GFP_IO | __GFP_FS;
const NOFRAGMENT = ALLOC_NOFRAGMENT;
const HIGHATOMIC = ALLOC_HIGHATOMIC;
const BELOW_HIGH = 1 << ZONE_BELOW_HIGH;
const BOOSTED = 1 << ZONE_BOOSTED_WATERMARK;
/** Rounds of reclaim for one request. */
const MAX_RECLAIM_RETRIES = 16;

const state = static_data("page_alloc", { warned_order: "u32" });

/** What the fast attempt of a request may do: NOFRAGMENT protects Normal while a lower zone can take small requests. */
export function alloc_flags_nofragment(zone: ZonePtr, gfp: number): number {
  const flags = gfp & ALLOC_KSWAPD; // the same bit as __GFP_KSWAPD_RECLAIM
  if (Z.zone_idx.get(zone) !== NORMAL) return flags;
  const several = m[NR_NODES] > 1;
  return several && Z.present_pages.get(zone - Z.sizeof) === 0 ? flags : flags | ALLOC_NOFRAGMENT; // DMA32 lies before
}

/** The first zone of a node's zonelist that a request may use, as a pointer to its zoneref. */
export function first_zoneref(nid: NodeId, gfp: number, highest: number): ZoneRefPtr {
  let ref = m[NODES + nid + nid] + ((gfp & THISNODE) !== 0 ? THIS_NODE_LIST : FALLBACK_LIST);
  while (m[ref >> 2] !== 0 && m[(ref + REF_IDX) >> 2] > highest) ref += REF_BYTES;
  return ref;
}

/** Tries every zone of the zonelist from `preferred` on; mixing types in a page block only on a second round. */
function get_page_from_freelist(gfp: number, order: number, flags: number, preferred: ZoneRefPtr): PagePtr {
  const page = walk_zonelist(gfp, order, flags, preferred);
  if (page !== NULL || (flags & ALLOC_NOFRAGMENT) === 0) return page;
  return walk_zonelist(gfp, order, flags & ~ALLOC_NOFRAGMENT, preferred);
}

function walk_zonelist(gfp: number, order: number, flags: number, preferred: ZoneRefPtr): PagePtr {
  const highest = gfp_zone(gfp);
  const migratetype = request_migratetype(gfp);
  const first = m[preferred >> 2];
  for (let ref = preferred, zone = first; zone !== 0; ref += REF_BYTES, zone = m[ref >> 2]) {
    if (m[(ref + REF_IDX) >> 2] > highest) continue;
    // Memory of this node matters more than page blocks of one type.
    if ((flags & NOFRAGMENT) !== 0 && zone !== first && Z.node.get(zone) !== Z.node.get(first)) return 0;
    if ((m[(zone + PLENTY) >> 2] === 0 || order > BLOCK_ORDER) && !zone_admits(zone, order, flags, highest)) continue;
    const page = rmqueue(first, zone, order, flags, migratetype);
    if (page === NULL) continue;
    prep_new_page(page, order, gfp);
    if ((flags & HIGHATOMIC) !== 0) reserve_highatomic_pageblock(zone, page, order);
    return page;
  }
  return NULL;
}

/** True if a zone has enough free pages for a request. Below its high mark the zone says so, and CPUs keep less of it. */
function zone_admits(zone: ZonePtr, order: number, flags: number, highest: number): boolean {
  if ((Z.flags.get(zone) & BELOW_HIGH) === 0) {
    if (zone_watermark_fast(zone, order, high_wmark_pages(zone), highest, flags)) return true;
    zone_set_flag(zone, ZONE_BELOW_HIGH);
  }
  if ((flags & ALLOC_NO_WATERMARKS) !== 0) return true;
  return zone_watermark_fast(zone, order, wmark_pages(zone, flags & ALLOC_WMARK_MASK), highest, flags);
}

/** Takes a block from one zone: this CPU's list first, then the free areas. */
function rmqueue(preferred: ZonePtr, zone: ZonePtr, order: number, flags: number, migratetype: number): PagePtr {
  let page = pcp_allowed_order(order) ? rmqueue_pcplist(zone, order, migratetype, flags) : NULL;
  if (page === NULL) page = rmqueue_buddy(zone, order, migratetype, flags);
  if (page !== NULL) {
    count_vm_events(ALLOCATED + m[(zone + ZONE_IDX) >> 2], 1 << order);
    zone_statistics(preferred, zone, 1);
  }
  if ((m[(zone + ZONE_FLAGS) >> 2] & BOOSTED) !== 0 && (flags & ALLOC_KSWAPD) !== 0) {
    zone_clear_flag(zone, ZONE_BOOSTED_WATERMARK);
    wakeup_kswapd(zone);
  }
  return page;
}

function rmqueue_buddy(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  zone_lock(zone);
  const page = page_allocator().alloc(zone, order, migratetype, flags);
  zone_unlock(zone);
  return page;
}

/** Counts where pages came from: by call, not by page. */
export function zone_statistics(preferred: ZonePtr, zone: ZonePtr, calls: number): void {
  const node = m[(zone + ZONE_NID) >> 2];
  if (node === m[(preferred + ZONE_NID) >> 2]) count_numa(zone + HIT, calls);
  else {
    count_numa(zone + MISS, calls);
    count_numa(preferred + FOREIGN, calls);
  }
  count_numa(node === r[NODE] ? zone + LOCAL : zone + OTHER, calls);
}

function count_numa(counter: Ptr, calls: number): void {
  m[counter >> 2] = m[counter >> 2] + calls;
}

/** What early boot may not do is taken off a request. */
export function allowed_gfp(gfp: number): number {
  return (m[GATE] & GATE_EARLY) !== 0 ? gfp & ~MAY_RECLAIM : gfp;
}

/** Makes what the free areas gave a block that the caller owns. */
export function prep_new_page(page: PagePtr, order: number, gfp: number): void {
  m[(page + PRIVATE) >> 2] = 0;
  m[(page + REFCOUNT) >> 2] = 1;
  if ((gfp & ZEROED) !== 0) ram_zero(page_address(page), PAGE_SIZE << order);
  if (order > 0 && (gfp & COMPOUND) !== 0) prep_compound_page(page, order);
}

/** The place where kswapd is woken; there is none yet. */
function wakeup_kswapd(_zone: ZonePtr): void {}

/** The place of direct reclaim: frees pages for this request and returns how many. There is none yet. */
function try_to_free_pages(_gfp: number, _order: number): number {
  return 0;
}

/** What a request that failed above the low mark may do. */
function gfp_to_alloc_flags(gfp: number, order: number): number {
  let flags = ALLOC_WMARK_MIN | ALLOC_CPUSET | (gfp & (__GFP_HIGH | __GFP_KSWAPD_RECLAIM)); // equal bits in both
  if ((gfp & __GFP_DIRECT_RECLAIM) !== 0) return flags;
  if ((gfp & __GFP_NOMEMALLOC) === 0) {
    flags |= ALLOC_NON_BLOCK;
    if (order > 0 && (gfp & __GFP_HIGH) !== 0) flags |= ALLOC_HIGHATOMIC;
  }
  return (gfp & __GFP_HIGH) !== 0 ? flags & ~ALLOC_CPUSET : flags;
}

/** The ladder of the needy: lower marks, reserves, reclaim; at its end a report. */
function __alloc_pages_slowpath(gfp: number, order: number, preferred: ZoneRefPtr): PagePtr {
  const can_reclaim = (gfp & __GFP_DIRECT_RECLAIM) !== 0;
  let flags = gfp_to_alloc_flags(gfp, order);
  for (let retries = 0; ; retries++) {
    let page = get_page_from_freelist(gfp, order, flags, preferred);
    if (page !== NULL) return page;
    if ((gfp & __GFP_MEMALLOC) !== 0 && (gfp & __GFP_NOMEMALLOC) === 0 && (flags & ALLOC_NO_WATERMARKS) === 0) {
      flags = ALLOC_NO_WATERMARKS | (flags & ALLOC_KSWAPD);
      continue;
    }
    if (!can_reclaim) break;
    const progress = try_to_free_pages(gfp, order);
    if (progress > 0) page = after_reclaim(gfp, order, flags, preferred);
    if (page !== NULL) return page;
    if ((gfp & __GFP_NORETRY) !== 0) break;
    if (order > PAGE_ALLOC_COSTLY_ORDER && (gfp & __GFP_RETRY_MAYFAIL) === 0) break;
    if (progress > 0 && retries < MAX_RECLAIM_RETRIES) continue;
    if (!unreserve_highatomic_pageblock(preferred, gfp_zone(gfp), request_migratetype(gfp), true)) break;
  }
  if ((gfp & __GFP_NOFAIL) !== 0 && can_reclaim) return alloc_nofail(gfp, order, flags | ALLOC_MIN_RESERVE, preferred);
  warn_alloc(gfp, order);
  return NULL;
}

/** Reclaim freed something, but perhaps somewhere else: try; then give up what is set aside, and try once more. */
function after_reclaim(gfp: number, order: number, flags: number, preferred: ZoneRefPtr): PagePtr {
  const page = get_page_from_freelist(gfp, order, flags, preferred);
  if (page !== NULL) return page;
  unreserve_highatomic_pageblock(preferred, gfp_zone(gfp), request_migratetype(gfp), false);
  drain_all_pages();
  return get_page_from_freelist(gfp, order, flags, preferred);
}

/** The last attempt of a caller that cannot take no. Nobody else runs before this entry ends, so waiting would not help. */
function alloc_nofail(gfp: number, order: number, flags: number, preferred: ZoneRefPtr): PagePtr {
  drain_all_pages();
  const page = get_page_from_freelist(gfp, order, flags, preferred);
  if (page === NULL) {
    warn_alloc(gfp, order);
    panic("System is deadlocked on memory");
  }
  return page;
}

/** The heart of the page allocator: every request that the hot path did not serve. */
export function __alloc_pages(gfp: number, order: number, nid: NodeId): PagePtr {
  if (!(order >= 0 && order <= MAX_ORDER)) return warn_order(gfp, order);
  if (m[NODES + nid + nid] === 0) return warn_node(nid);
  const allowed = allowed_gfp(gfp);
  if ((m[GATE] & GATE_FAULT) !== 0 && should_fail_alloc_page(allowed, order)) return 0;
  const preferred = first_zoneref(nid, gfp, gfp_zone(gfp));
  const zone = m[preferred >> 2];
  if (zone === 0) return __alloc_pages_slowpath(allowed, order, preferred); // no zone will do
  const flags = ALLOC_WMARK_LOW | alloc_flags_nofragment(zone, allowed);
  const page = get_page_from_freelist(allowed, order, flags, preferred);
  return page !== 0 ? page : __alloc_pages_slowpath(allowed, order, preferred);
}

function warn_node(nid: NodeId): PagePtr {
  WARN_ON(true, `page request for node ${nid}, which is not there`);
  return NULL;
}

function warn_order(gfp: number, order: number): PagePtr {
  if ((gfp & __GFP_NOWARN) === 0 && state.warned_order === 0) {
    state.warned_order = 1;
    WARN_ON(true, `page request of order ${order}: the largest is ${MAX_PAGE_ORDER}`);
  }
  return NULL;
}
