/**
 * Compaction: makes large free blocks by moving pages out of the way. How a round goes: mm/compact_zone.ts.
 *
 *     try_to_compact_pages     for a request of order > 0: each zone of its zonelist until one has such a block
 *     compact_node             all zones of a node as far as it goes: /proc/sys/vm/compact_memory
 *
 * A zone is worth it if it has a block already (then there is nothing to do), or free pages enough to work with
 * (2 * 2^order above the mark) and, for order > 3, if it is fragmentation that a request would fail by, not lack of memory
 * (fragmentation index above 500). A zone in which it was in vain is left alone for the next 2^n requests of that order,
 * n up to 6 ("deferred").
 *
 * How hard: an asynchronous round moves pages only out of page blocks of the request's own type; the others out of all;
 * the last, COMPACT_PRIO_SYNC_FULL, also into blocks of all types.
 *
 * Locks: none here. Context: as direct reclaim, which it does not cause: PF_MEMALLOC.
 * Unlike Linux: no kcompactd and no proactive compaction. A round is as long as Linux's longest: nobody else could run
 * meanwhile anyway.
 */
import { NULL, type NodeId, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { WHOLE, compact_control, compact_zone } from "./compact_zone.ts";
import { MAX_NR_ZONES, __GFP_IO, gfp_zone } from "./gfp.ts";
import type { PagePtr } from "./page.ts";
import { drain_all_pages } from "./pcp.ts";
import {
  COMPACT_COMPLETE, COMPACT_CONTINUE, COMPACT_DEFERRED, COMPACT_PRIO_ASYNC, COMPACT_PRIO_SYNC_FULL,
  COMPACT_PRIO_SYNC_LIGHT, COMPACT_SKIPPED, COMPACT_SUCCESS, PF_MEMALLOC, reclaim_flags, set_reclaim_flags,
  set_reclaim_slot,
} from "./reclaim_state.ts"; // prettier-ignore
import { zone_reclaimable_pages } from "./swap.ts";
import { ALLOC_WMARK_MASK, __zone_watermark_ok, wmark_pages, zone_free_pages, zone_watermark_ok } from "./watermark.ts";
import {
  FreeArea, NODE_DATA, NR_PAGE_ORDERS, PAGE_ALLOC_COSTLY_ORDER, PgData, WMARK_LOW, WMARK_MIN, Zone, ZoneRef,
  node_allowed, page_zone, type NodeMask, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

const COMPACT_MAX_DEFER_SHIFT = 6;
/** vm.extfrag_threshold. */
const EXTFRAG_THRESHOLD = 500;

/** By zone: what became of earlier attempts. */
const deferred = static_data("compaction", {
  considered: "u32[64]", // requests since the last attempt
  defer_shift: "u32[64]",
  order_failed: "u32[64]", // the lowest order that it was in vain for
});
const slot_of = (zone: ZonePtr): number => Zone.node.get(zone) * MAX_NR_ZONES + Zone.zone_idx.get(zone);

/** Boot: compaction is there. */
export function compaction_init(): void {
  set_reclaim_slot("try_to_compact_pages", try_to_compact_pages);
  set_reclaim_slot("compaction_would_help", compaction_would_help);
  set_reclaim_slot("compaction_served", compaction_served);
}

/* Is it worth it? */

/** How fragmented a zone is for a request, in thousandths: near 0 memory is short, near 1000 it is in pieces; -1000: it has a block. */
export function fragmentation_index(zone: ZonePtr, order: number): number {
  let [free, blocks] = [0, 0];
  for (let at = 0; at < NR_PAGE_ORDERS; at++) {
    const nr = FreeArea.nr_free.get(Zone.free_area.at(zone, at));
    if (nr > 0 && at >= order) return -1000;
    free += nr << at;
    blocks += nr;
  }
  if (blocks === 0) return 0;
  return 1000 - Math.floor((1000 + Math.floor((free * 1000) / (1 << order))) / blocks);
}

/** True if a zone with `free` free pages has room to work in. */
function has_room(zone: ZonePtr, order: number, mark: number, highest: number, free: number): boolean {
  let need = mark + (2 << order);
  if (order > PAGE_ALLOC_COSTLY_ORDER) need += wmark_pages(zone, WMARK_LOW) - wmark_pages(zone, WMARK_MIN);
  return __zone_watermark_ok(zone, 0, need, highest, 0, free);
}

/** COMPACT_SUCCESS: the request would be served as it is; COMPACT_SKIPPED: it would not help; else COMPACT_CONTINUE. */
function compaction_suitable(zone: ZonePtr, order: number, highest: number, flags: number): number {
  const mark = wmark_pages(zone, flags & ALLOC_WMARK_MASK);
  if (zone_watermark_ok(zone, order, mark, highest, flags)) return COMPACT_SUCCESS;
  if (!has_room(zone, order, mark, highest, zone_free_pages(zone))) return COMPACT_SKIPPED;
  if (order <= PAGE_ALLOC_COSTLY_ORDER) return COMPACT_CONTINUE;
  const index = fragmentation_index(zone, order);
  return index >= 0 && index <= EXTFRAG_THRESHOLD ? COMPACT_SKIPPED : COMPACT_CONTINUE;
}

/** The zones of a zonelist that a request may use. */
function* zones_from(first: Ptr<"zoneref">, highest: number, nodemask: NodeMask): Generator<ZonePtr> {
  for (let ref = first; ZoneRef.zone.get(ref) !== NULL; ref += ZoneRef.sizeof)
    if (ZoneRef.zone_idx.get(ref) <= highest && node_allowed(ZoneRef.zone.get(ref), nodemask))
      yield ZoneRef.zone.get(ref);
}

/** True if some zone would have room to work in, were all that can be reclaimed free. */
function compaction_would_help(first: Ptr<"zoneref">, order: number, gfp: number, nodemask: NodeMask): boolean {
  for (const zone of zones_from(first, gfp_zone(gfp), nodemask)) {
    const free = zone_free_pages(zone) + Math.floor(zone_reclaimable_pages(zone) / order);
    if (has_room(zone, order, wmark_pages(zone, WMARK_MIN), gfp_zone(gfp), free)) return true;
  }
  return false;
}
ksym("compaction_would_help", compaction_would_help);

function defer_compaction(zone: ZonePtr, order: number): void {
  const slot = slot_of(zone);
  const failed = deferred.order_failed.get(slot);
  deferred.considered.set(slot, 0);
  deferred.defer_shift.set(slot, Math.min(deferred.defer_shift.get(slot) + 1, COMPACT_MAX_DEFER_SHIFT));
  if (order < failed) deferred.order_failed.set(slot, order);
}

/** True if a zone is to be left alone this time. */
function compaction_deferred(zone: ZonePtr, order: number): boolean {
  const slot = slot_of(zone);
  if (order < deferred.order_failed.get(slot)) return false;
  const limit = 1 << deferred.defer_shift.get(slot);
  const considered = Math.min(deferred.considered.get(slot) + 1, limit);
  deferred.considered.set(slot, considered);
  return considered < limit;
}

/** There is a block again; `was_allocated`: and the request got it. */
function compaction_defer_reset(zone: ZonePtr, order: number, was_allocated: boolean): void {
  const slot = slot_of(zone);
  if (was_allocated) {
    deferred.considered.set(slot, 0);
    deferred.defer_shift.set(slot, 0);
  }
  if (order >= deferred.order_failed.get(slot)) deferred.order_failed.set(slot, order + 1);
}

/** A request got a block that compaction made. */
function compaction_served(page: PagePtr, order: number): void {
  compaction_defer_reset(page_zone(page), order, true);
}
ksym("compaction_served", compaction_served);

/**
 * Compacts the zones of a zonelist from `first` on until one has a block for a request; `flags` are its ALLOC_*, `prio` says
 * how hard. Returns the best COMPACT_* that any zone came to. Context: may sleep; the caller holds no lock.
 */
function try_to_compact_pages(
  first: Ptr<"zoneref">,
  order: number,
  gfp: number,
  nodemask: NodeMask,
  flags: number,
  prio: number,
): number {
  // prettier-ignore
  if (!(gfp & __GFP_IO)) return COMPACT_SKIPPED;
  const before = set_reclaim_flags(reclaim_flags() | PF_MEMALLOC);
  const highest = gfp_zone(gfp);
  let best = COMPACT_SKIPPED;
  for (const zone of zones_from(first, highest, nodemask)) {
    if (prio > COMPACT_PRIO_SYNC_FULL && compaction_deferred(zone, order)) {
      best = Math.max(best, COMPACT_DEFERRED);
      continue;
    }
    let result = compaction_suitable(zone, order, highest, flags);
    if (result === COMPACT_CONTINUE) result = compact_zone(compact_control(zone, order, gfp, prio));
    best = Math.max(best, result);
    if (result === COMPACT_SUCCESS) {
      compaction_defer_reset(zone, order, false);
      break;
    }
    if (prio !== COMPACT_PRIO_ASYNC && result === COMPACT_COMPLETE) defer_compaction(zone, order);
  }
  set_reclaim_flags(before);
  return best;
}
ksym("try_to_compact_pages", try_to_compact_pages);

/** Compacts all zones of a node as far as it goes. */
export function compact_node(nid: NodeId, gfp: number): void {
  drain_all_pages();
  const before = set_reclaim_flags(reclaim_flags() | PF_MEMALLOC);
  for (let i = 0; i < MAX_NR_ZONES; i++) {
    const zone = PgData.node_zones.at(NODE_DATA(nid), i);
    if (Zone.managed_pages.get(zone) > 0) compact_zone(compact_control(zone, WHOLE, gfp, COMPACT_PRIO_SYNC_LIGHT));
  }
  set_reclaim_flags(before);
}
