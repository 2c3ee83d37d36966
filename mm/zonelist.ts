/**
 * From a request to a zone: the way of every request for pages that the hot path (mm/page_alloc.ts) did not serve.
 *
 *     1 each zone of the zonelist       `get_page_from_freelist`: low mark; this CPU's list of the zone, then free areas
 *     2 kswapd is woken; the same, deeper   `__alloc_pages_slowpath`: min mark, reserves, as far as the flags permit
 *     3 compaction, then again          for large blocks, and for small ones of pages that cannot be moved (mm/compaction.ts)
 *     4 direct reclaim, then again      as long as it frees something, or 16 rounds more if there is something to free;
 *                                       for blocks compaction after each round, harder each time
 *     5 the OOM killer, then again      for small requests that may have memory of any zone
 *     6 a report in the log, and NULL
 *
 * Which zones: the low bits of the flags name the highest zone that will do; a zonelist goes downwards and outwards
 * from there, so a request for DMA memory never gets a page above it, and an ordinary one spares DMA until last.
 *
 * Locks: pcp->lock, then zone->lock. Nothing here sleeps.
 * Unlike Linux: no cpusets or dirty-page spreading. Nobody else runs before the entry of a request
 * ends: where Linux would wait for others to free memory, the request fails, or if it may not, the machine stops.
 */
import { NULL, PAGE_SIZE, type NodeId, type Ptr } from "../hal/addr.ts";
import { CPU_NODE, cpu_regs } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { ram32, ram_zero } from "../hal/ram.ts";
import { WARN_ON, panic } from "../kernel/lib/bug.ts";
import { check_new_pages } from "./bad_page.ts";
import { claim_pages } from "./claims.ts";
import { should_fail_alloc_page } from "./fault_inject.ts";
import {
  MIGRATE_MOVABLE, ZONE_NORMAL, __GFP_COMP, __GFP_DIRECT_RECLAIM, __GFP_FS, __GFP_HARDWALL, __GFP_HIGH, __GFP_IO, __GFP_KSWAPD_RECLAIM, __GFP_MEMALLOC,
  __GFP_NOFAIL, __GFP_NOMEMALLOC, __GFP_NORETRY, __GFP_NOWARN, __GFP_RECLAIM, __GFP_RETRY_MAYFAIL, __GFP_THISNODE,
  __GFP_ZERO, gfp_zone,
} from "./gfp.ts"; // prettier-ignore
import { current_gfp_context } from "./gfp_scope.ts";
import { reserve_highatomic_pageblock, unreserve_highatomic_pageblock } from "./highatomic.ts";
import { node_reclaim } from "./node_reclaim.ts";
import { Page, page_address, prep_compound_page, type PagePtr } from "./page.ts";
import { page_allocator } from "./page_allocator.ts";
import { request_migratetype } from "./pageblock.ts";
import { drain_all_pages, pcp_allowed_order, rmqueue_pcplist } from "./pcp.ts";
import {
  GATE_CHECK, GATE_CLAIMS, GATE_EARLY, GATE_FAULT, alloc_gate, zone_clear_flag, zone_lock, zone_marks_changed, zone_set_flag, zone_unlock,
} from "./plenty.ts"; // prettier-ignore
import {
  COMPACT_DEFERRED, COMPACT_PRIO_ASYNC, COMPACT_PRIO_SYNC_FULL, COMPACT_PRIO_SYNC_LIGHT, COMPACT_SKIPPED, COMPACT_SUCCESS,
  MAX_RECLAIM_RETRIES, PF_MEMALLOC, call_reclaim_slot, reclaim_flags,
} from "./reclaim_state.ts"; // prettier-ignore
import { warn_alloc } from "./show_mem.ts";
import { zone_reclaimable_pages } from "./swap.ts";
import { COMPACTFAIL, COMPACTSTALL, COMPACTSUCCESS, PGALLOC, count_vm_events } from "./vmstat.ts";
import {
  ALLOC_CPUSET, ALLOC_HIGHATOMIC, ALLOC_KSWAPD, ALLOC_MIN_RESERVE, ALLOC_NOFRAGMENT, ALLOC_NON_BLOCK,
  ALLOC_NO_WATERMARKS, ALLOC_OOM, ALLOC_WMARK_LOW, ALLOC_WMARK_MASK, ALLOC_WMARK_MIN, __zone_watermark_ok,
  high_wmark_pages, wmark_pages, zone_free_pages, zone_watermark_fast, zone_watermark_ok,
} from "./watermark.ts"; // prettier-ignore
import {
  MAX_PAGE_ORDER, NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER, PAGE_ALLOC_COSTLY_ORDER, PgData,
  WMARK_HIGH, WMARK_MIN, ZONELIST_FALLBACK, ZONELIST_NOFALLBACK, ZONE_BELOW_HIGH, ZONE_BOOSTED_WATERMARK,
  ZONE_KSWAPD_AWAKE, Zone, ZoneList, ZoneRef, node_allowed,
  node_state, pageblock_order, type NodeMask, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

type ZoneRefPtr = Ptr<"zoneref">;
/** Rounds of compaction that made blocks, of which the request got none. */
const MAX_COMPACT_RETRIES = 16;

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
const AWAKE = 1 << ZONE_KSWAPD_AWAKE;

const state = static_data("page_alloc", { warned_order: "u32" });

/** What the fast attempt of a request may do: NOFRAGMENT protects Normal while a lower zone can take small requests. */
export function alloc_flags_nofragment(zone: ZonePtr, gfp: number): number {
  const flags = gfp & ALLOC_KSWAPD; // the same bit as __GFP_KSWAPD_RECLAIM
  if (Z.zone_idx.get(zone) !== NORMAL) return flags;
  const several = m[NR_NODES] > 1;
  return several && Z.present_pages.get(zone - Z.sizeof) === 0 ? flags : flags | ALLOC_NOFRAGMENT; // DMA32 lies before
}

/** The first zone of a node's zonelist that a request may use, as a pointer to its zoneref. */
export function first_zoneref(nid: NodeId, gfp: number, highest: number, nodemask: NodeMask): ZoneRefPtr {
  let ref = m[NODES + nid + nid] + ((gfp & THISNODE) !== 0 ? THIS_NODE_LIST : FALLBACK_LIST);
  while (m[ref >> 2] !== 0 && (m[(ref + REF_IDX) >> 2] > highest || !node_allowed(m[ref >> 2], nodemask)))
    ref += REF_BYTES;
  return ref;
}

/** Tries every zone of the zonelist from `preferred` on; mixing types in a page block only on a second round. */
function get_page_from_freelist(
  gfp: number,
  order: number,
  flags: number,
  preferred: ZoneRefPtr,
  nodemask: NodeMask,
): PagePtr {
  const page = walk_zonelist(gfp, order, flags, preferred, nodemask);
  if (page !== NULL || (flags & ALLOC_NOFRAGMENT) === 0) return page;
  return walk_zonelist(gfp, order, flags & ~ALLOC_NOFRAGMENT, preferred, nodemask);
}

function walk_zonelist(gfp: number, order: number, flags: number, preferred: ZoneRefPtr, nodemask: NodeMask): PagePtr {
  const highest = gfp_zone(gfp);
  const migratetype = request_migratetype(gfp);
  const first = m[preferred >> 2];
  // A node whose kswapd is at work already is passed over, unless it is so with all of them.
  for (let pass_over = m[NR_NODES] > 1, passed_over = false; ; pass_over = passed_over = false) {
    for (let ref = preferred, zone = first; zone !== 0; ref += REF_BYTES, zone = m[ref >> 2]) {
      if (m[(ref + REF_IDX) >> 2] > highest || !node_allowed(zone, nodemask)) continue;
      // Memory of this node matters more than page blocks of one type.
      if ((flags & NOFRAGMENT) !== 0 && zone !== first && Z.node.get(zone) !== Z.node.get(first)) return 0;
      if (m[(zone + PLENTY) >> 2] === 0 || order > BLOCK_ORDER) {
        const busy = pass_over && (m[(zone + ZONE_FLAGS) >> 2] & AWAKE) !== 0;
        passed_over ||= busy;
        if (busy || !zone_admits(first, zone, order, flags, gfp)) continue;
      }
      const page = rmqueue(first, zone, order, flags, migratetype);
      if (page === NULL) continue;
      prep_new_page(page, order, gfp);
      if ((flags & HIGHATOMIC) !== 0) reserve_highatomic_pageblock(zone, page, order);
      return page;
    }
    if (!passed_over) return NULL;
  }
}

/** True if a zone has enough free pages for a request. Below its high mark the zone says so, and CPUs keep less of it. */
function zone_admits(preferred: ZonePtr, zone: ZonePtr, order: number, flags: number, gfp: number): boolean {
  const highest = gfp_zone(gfp);
  if ((Z.flags.get(zone) & BELOW_HIGH) === 0) {
    if (zone_watermark_fast(zone, order, high_wmark_pages(zone), highest, flags)) return true;
    zone_set_flag(zone, ZONE_BELOW_HIGH);
  }
  if ((flags & ALLOC_NO_WATERMARKS) !== 0) return true;
  const mark = wmark_pages(zone, flags & ALLOC_WMARK_MASK);
  if (zone_watermark_fast(zone, order, mark, highest, flags)) return true;
  return node_reclaim(preferred, zone, gfp, order) && zone_watermark_ok(zone, order, mark, highest, flags);
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
    call_reclaim_slot("wakeup_kswapd", zone, 0, 0, Z.zone_idx.get(zone));
  }
  return page;
}

function rmqueue_buddy(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  for (;;) {
    zone_lock(zone);
    const page = page_allocator().alloc(zone, order, migratetype, flags);
    zone_unlock(zone);
    if (page === NULL || (m[GATE] & GATE_CHECK) === 0 || !check_new_pages(page, order)) return page;
  }
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
  if ((m[GATE] & GATE_CLAIMS) !== 0) claim_pages(page, order);
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

/** Reserves that a request may use: all of them if it frees memory, a part if its task is the OOM killer's victim. */
function reserve_flags(gfp: number): number {
  if ((gfp & __GFP_NOMEMALLOC) !== 0) return 0;
  if ((gfp & __GFP_MEMALLOC) !== 0 || (reclaim_flags() & PF_MEMALLOC) !== 0) return ALLOC_NO_WATERMARKS;
  return call_reclaim_slot("is_oom_victim") === true ? ALLOC_OOM : 0;
}

/** Wakes the kswapd of every node that a request could have memory of. */
function wake_all_kswapds(gfp: number, order: number, preferred: ZoneRefPtr, nodemask: NodeMask): void {
  let last = 0;
  for (const zone of zones_of(preferred, gfp_zone(gfp), nodemask)) {
    if (Z.zone_pgdat.get(zone) !== last) call_reclaim_slot("wakeup_kswapd", zone, gfp, order, gfp_zone(gfp));
    last = Z.zone_pgdat.get(zone);
  }
}

/** The zones of a zonelist that a request may use. */
function* zones_of(preferred: ZoneRefPtr, highest: number, nodemask: NodeMask): Generator<ZonePtr> {
  for (let ref = preferred, zone = m[ref >> 2]; zone !== 0; ref += REF_BYTES, zone = m[ref >> 2])
    if (m[(ref + REF_IDX) >> 2] <= highest && node_allowed(zone, nodemask)) yield zone;
}

/** The ladder of the needy: lower marks, reserves, reclaim, the OOM killer; at its end a report. */
function __alloc_pages_slowpath(gfp: number, order: number, nid: NodeId, only: NodeMask): PagePtr {
  const can_reclaim = (gfp & __GFP_DIRECT_RECLAIM) !== 0;
  const highest = gfp_zone(gfp);
  let flags = gfp_to_alloc_flags(gfp, order);
  let nodemask = only;
  let preferred = first_zoneref(nid, gfp, highest, nodemask);
  if ((flags & ALLOC_KSWAPD) !== 0) wake_all_kswapds(gfp, order, preferred, nodemask);
  let page = get_page_from_freelist(gfp, order, flags, preferred, nodemask);
  const is_costly = order > PAGE_ALLOC_COSTLY_ORDER;
  const compact: Compact = { prio: COMPACT_PRIO_SYNC_LIGHT, result: COMPACT_SKIPPED, retries: 0 };
  const can_compact = can_reclaim && (gfp & __GFP_IO) !== 0;
  const moves_first = is_costly || (order > 0 && request_migratetype(gfp) !== MIGRATE_MOVABLE);
  if (page === NULL && can_compact && moves_first && reserve_flags(gfp) === 0) {
    page = direct_compact(gfp, order, flags, preferred, nodemask, compact, COMPACT_PRIO_ASYNC);
    if (page === NULL && is_costly && (gfp & __GFP_NORETRY) !== 0) {
      compact.prio = COMPACT_PRIO_ASYNC;
      if (compact.result <= COMPACT_DEFERRED) {
        warn_alloc(gfp, order, nodemask);
        return NULL;
      }
    }
  }
  for (let in_vain = 0; page === NULL;) {
    const reserves = reserve_flags(gfp);
    if (reserves !== 0) flags = reserves | (flags & ALLOC_KSWAPD);
    // Who may not wait, or has reserves, is not bound to nodes.
    if (reserves !== 0 || (flags & ALLOC_CPUSET) === 0) preferred = first_zoneref(nid, gfp, highest, (nodemask = 0));
    page = get_page_from_freelist(gfp, order, flags, preferred, nodemask);
    if (page !== NULL || !can_reclaim || (reclaim_flags() & PF_MEMALLOC) !== 0) break;
    const freed = Number(call_reclaim_slot("try_to_free_pages", preferred, order, gfp, nodemask) ?? 0);
    if (freed > 0) page = after_reclaim(gfp, order, flags, preferred, nodemask);
    if (page === NULL && order > 0)
      page = direct_compact(gfp, order, flags, preferred, nodemask, compact, compact.prio);
    if (page !== NULL || (gfp & __GFP_NORETRY) !== 0) break;
    if (is_costly && (!can_compact || (gfp & __GFP_RETRY_MAYFAIL) === 0)) break;
    in_vain = freed > 0 && !is_costly ? 0 : in_vain + 1;
    if (should_reclaim_retry(gfp, order, flags, preferred, nodemask, in_vain)) continue;
    if (freed > 0 && order > 0 && should_compact_retry(gfp, order, preferred, nodemask, compact)) continue;
    page = alloc_may_oom(gfp, order, preferred, nodemask);
    if (page !== OOM_PROGRESS) break;
    page = in_vain = 0;
    // A victim that could not even have its share of the reserves, or may not have it, must end first.
    if ((flags & ALLOC_OOM) !== 0) break;
    if ((gfp & __GFP_NOMEMALLOC) !== 0 && call_reclaim_slot("is_oom_victim") === true) break;
  }
  if (page !== NULL) return page;
  if ((gfp & __GFP_NOFAIL) !== 0 && can_reclaim)
    return alloc_nofail(gfp, order, flags | ALLOC_MIN_RESERVE, preferred, nodemask);
  warn_alloc(gfp, order, nodemask);
  return NULL;
}

/** How a request stands with compaction. */
interface Compact {
  /** COMPACT_PRIO_*: how hard the next round tries. */
  prio: number;
  /** COMPACT_*: what the last one came to. */
  result: number;
  retries: number;
}

/** Moves pages until some zone has a block; NULL if none has it then. */
function direct_compact(
  gfp: number,
  order: number,
  flags: number,
  preferred: ZoneRefPtr,
  nodemask: NodeMask,
  compact: Compact,
  prio: number,
): PagePtr {
  const result = call_reclaim_slot("try_to_compact_pages", preferred, order, gfp, nodemask, flags, prio);
  compact.result = Number(result ?? COMPACT_SKIPPED);
  if (compact.result === COMPACT_SKIPPED) return NULL;
  count_vm_events(COMPACTSTALL, 1);
  const page = get_page_from_freelist(gfp, order, flags, preferred, nodemask);
  count_vm_events(page === NULL ? COMPACTFAIL : COMPACTSUCCESS, 1);
  if (page !== NULL) call_reclaim_slot("compaction_served", page, order);
  return page;
}

/** True if another round of compaction is worth while: some more if it made blocks, else harder, once for each step. */
function should_compact_retry(
  gfp: number,
  order: number,
  preferred: ZoneRefPtr,
  nodemask: NodeMask,
  compact: Compact,
): boolean {
  const is_costly = order > PAGE_ALLOC_COSTLY_ORDER;
  if (compact.result === COMPACT_SKIPPED)
    return call_reclaim_slot("compaction_would_help", preferred, order, gfp, nodemask) === true;
  const most = is_costly ? MAX_COMPACT_RETRIES / 4 : MAX_COMPACT_RETRIES;
  if (compact.result === COMPACT_SUCCESS && ++compact.retries <= most) return true;
  if (compact.prio <= (is_costly ? COMPACT_PRIO_SYNC_LIGHT : COMPACT_PRIO_SYNC_FULL)) return false;
  compact.prio--;
  compact.retries = 0;
  return true;
}

/**
 * True if another round of reclaim is worth while: not too many were in vain, and some zone would have enough if all that
 * can be reclaimed were free. If not, the HighAtomic reserve and boosts of the marks are given up first.
 */
function should_reclaim_retry(
  gfp: number,
  order: number,
  flags: number,
  preferred: ZoneRefPtr,
  nodemask: NodeMask,
  in_vain: number,
): boolean {
  const highest = gfp_zone(gfp);
  if (in_vain <= MAX_RECLAIM_RETRIES)
    for (const zone of zones_of(preferred, highest, nodemask)) {
      const available = zone_free_pages(zone) + zone_reclaimable_pages(zone);
      if (__zone_watermark_ok(zone, order, wmark_pages(zone, WMARK_MIN), highest, flags, available)) return true;
    }
  if (unreserve_highatomic_pageblock(preferred, highest, request_migratetype(gfp), nodemask, true)) return true;
  return unboost([...zones_of(preferred, highest, nodemask)]);
}

/** Takes the boosts of zones back, as kswapd does at the end of a run; it cannot run before this entry ends. */
function unboost(zones: readonly ZonePtr[]): boolean {
  const boosted = zones.filter((zone) => Z.watermark_boost.get(zone) > 0);
  for (const zone of boosted) {
    Z.watermark_boost.set(zone, 0);
    zone_marks_changed(zone);
  }
  return boosted.length > 0;
}

/** The OOM killer did something: the request is tried again. No page has this address. */
const OOM_PROGRESS = -1;

/** One more try at the high mark, then the OOM killer. A page, OOM_PROGRESS, or NULL: it was not asked, or could not help. */
function alloc_may_oom(gfp: number, order: number, preferred: ZoneRefPtr, nodemask: NodeMask): PagePtr {
  const light = (gfp | __GFP_HARDWALL) & ~__GFP_DIRECT_RECLAIM;
  const page = get_page_from_freelist(light, order, WMARK_HIGH | ALLOC_CPUSET, preferred, nodemask);
  if (page !== NULL) return page;
  // It does not make large blocks, nor memory of one node or of low zones; and who can do without is not worth a life.
  if (order > PAGE_ALLOC_COSTLY_ORDER || (gfp & (__GFP_RETRY_MAYFAIL | __GFP_THISNODE)) !== 0) return NULL;
  if (gfp_zone(gfp) < ZONE_NORMAL || call_reclaim_slot("out_of_memory", gfp, order, nodemask) !== true) return NULL;
  const reserved =
    gfp & __GFP_NOFAIL ? get_page_from_freelist(gfp, order, ALLOC_NO_WATERMARKS, preferred, nodemask) : 0;
  return reserved !== NULL ? reserved : OOM_PROGRESS;
}

/** Reclaim freed something, but perhaps somewhere else: try; then give up what is set aside, and try once more. */
function after_reclaim(gfp: number, order: number, flags: number, preferred: ZoneRefPtr, nodemask: NodeMask): PagePtr {
  const page = get_page_from_freelist(gfp, order, flags, preferred, nodemask);
  if (page !== NULL) return page;
  unreserve_highatomic_pageblock(preferred, gfp_zone(gfp), request_migratetype(gfp), nodemask, false);
  drain_all_pages();
  return get_page_from_freelist(gfp, order, flags, preferred, nodemask);
}

/** The last attempt of a caller that cannot take no. Nobody else runs before this entry ends, so waiting would not help. */
function alloc_nofail(gfp: number, order: number, flags: number, preferred: ZoneRefPtr, nodemask: NodeMask): PagePtr {
  drain_all_pages();
  const page = get_page_from_freelist(gfp, order, flags, preferred, nodemask);
  if (page === NULL) {
    warn_alloc(gfp, order, nodemask);
    panic("System is deadlocked on memory");
  }
  return page;
}

/** The heart of the page allocator: every request that the hot path did not serve. `nodemask`: which nodes will do. */
export function __alloc_pages(gfp: number, order: number, nid: NodeId, nodemask: NodeMask = 0): PagePtr {
  if (!(order >= 0 && order <= MAX_ORDER)) return warn_order(gfp, order);
  if (m[NODES + nid + nid] === 0) return warn_node(nid);
  const allowed = current_gfp_context(allowed_gfp(gfp));
  if ((m[GATE] & GATE_FAULT) !== 0 && should_fail_alloc_page(allowed, order)) return 0;
  const preferred = first_zoneref(nid, allowed, gfp_zone(allowed), nodemask);
  const zone = m[preferred >> 2];
  if (zone === 0) return __alloc_pages_slowpath(allowed, order, nid, nodemask); // no zone will do
  const flags = ALLOC_WMARK_LOW | alloc_flags_nofragment(zone, allowed);
  const page = get_page_from_freelist(allowed, order, flags, preferred, nodemask);
  return page !== 0 ? page : __alloc_pages_slowpath(allowed, order, nid, nodemask);
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
