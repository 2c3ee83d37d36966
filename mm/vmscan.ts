/**
 * Reclaim: pages in use are had back.
 *
 *     shrink_node(node, priority)        both ways in come here; priority 12 looks at 1/4096 of each list, 0 at all of it
 *       1 shrink_lruvec                  inactive and active list of pages of files, 32 at a time in turns, size >> priority each:
 *                                        what is taken, and what has a second chance, mm/vmscan_lru.ts says
 *       2 shrink_slab                    every shrinker: dentries, inodes, whatever was registered (mm/shrinker.ts)
 *
 *     try_to_free_pages                  direct reclaim, by whoever needs a page: priority 12, 11, … until 32 pages are free;
 *                                        each round shrinks every node of the zonelist once
 *     balance_pgdat                      kswapd, in the background: until some zone of its node is above its high mark
 *
 * Slab pages that shrinkers set free count as reclaimed; the objects they freed do not.
 *
 * Locks: lru_lock, only to take pages off and put them back. Context: may not be under any lock. Does not recurse:
 * PF_MEMALLOC (mm/reclaim_state.ts).
 * Unlike Linux: no swap, so anonymous pages are not scanned and costs of anonymous and file pages are not weighed; nothing
 * is dirty that could be written; no refault distances (workingset), no multi-generation LRU, no memory cgroups. Nothing
 * can sleep: a direct reclaimer that Linux would throttle is counted (pgscan_direct_throttle) and goes on itself.
 */
import { NULL, type NodeId, type Ptr } from "../hal/addr.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { GFP_KERNEL, MAX_NR_ZONES, ZONE_NORMAL, gfp_zone } from "./gfp.ts";
import { node_reclaim_init } from "./node_reclaim.ts";
import { zone_clear_flag, zone_marks_changed, zone_set_flag } from "./plenty.ts";
import {
  PF_MEMALLOC, call_reclaim_slot, node_is_hopeless, reclaim_flags, set_reclaim_flags, set_reclaim_slot,
} from "./reclaim_state.ts"; // prettier-ignore
import { shrink_slab, shrinker_init } from "./shrinker.ts";
import { lruvec_init, zone_reclaimable_pages } from "./swap.ts";
import {
  ALLOCSTALL, NR_ACTIVE_FILE, NR_INACTIVE_FILE, NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, PAGEOUTRUN,
  PGSCAN_DIRECT_THROTTLE, count_vm_event, global_node_page_state, node_page_state, zone_page_state,
} from "./vmstat.ts"; // prettier-ignore
import { inactive_is_low, shrink_active_list, shrink_inactive_list, type ScanControl } from "./vmscan_lru.ts";
import { high_wmark_pages, wmark_pages, zone_free_pages, zone_watermark_ok } from "./watermark.ts";
import {
  LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, NODE_DATA, NR_ZONE_INACTIVE_ANON,
  PgData, WMARK_MIN, Zone, ZONE_KSWAPD_AWAKE, ZONE_RECLAIM_ACTIVE, ZoneRef, for_each_online_node, node_allowed,
  type NodeMask, type PgDataPtr, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** Pages that are looked at, or wanted, at a time. */
const SWAP_CLUSTER_MAX = 32;
const DEF_PRIORITY = 12;
/** Node reclaim looks at a sixteenth of each list at least. */
const NODE_RECLAIM_PRIORITY = 4;

/** Boot: empty lists; direct reclaim is there, kswapd not yet. */
export function vmscan_init(): void {
  lruvec_init();
  shrinker_init();
  for (const nid of for_each_online_node()) PgData.kswapd_highest_zoneidx.set(NODE_DATA(nid), MAX_NR_ZONES);
  set_reclaim_slot("try_to_free_pages", try_to_free_pages);
  set_reclaim_slot("wakeup_kswapd", wakeup_kswapd);
  set_reclaim_slot("shrink_one_node", shrink_one_node);
  node_reclaim_init();
}

/* Lists of pages */

/** Zones of a node, up to `highest`, that have memory. */
function* managed_zones(pgdat: PgDataPtr, highest: number): Generator<ZonePtr> {
  for (let i = 0; i <= highest && i < MAX_NR_ZONES; i++) {
    const zone = PgData.node_zones.at(pgdat, i);
    if (Zone.managed_pages.get(zone) > 0) yield zone;
  }
}

/** Pages of a list that lie in zones up to `highest`. */
function lruvec_lru_size(pgdat: PgDataPtr, lru: number, highest: number): number {
  let size = 0;
  for (const zone of managed_zones(pgdat, highest)) size += zone_page_state(zone, NR_ZONE_INACTIVE_ANON + lru);
  return size;
}

/** A node's pages of files: as many of each list as the priority says, 32 at a time, until enough are free. */
function shrink_lruvec(pgdat: PgDataPtr, sc: ScanControl): void {
  const low = inactive_is_low(node_page_state(pgdat, NR_INACTIVE_FILE), node_page_state(pgdat, NR_ACTIVE_FILE));
  const lists = [LRU_INACTIVE_FILE, LRU_ACTIVE_FILE];
  const left = lists.map((lru) => lruvec_lru_size(pgdat, lru, sc.reclaim_idx) >> sc.priority);
  // The first, lightest round of a direct reclaimer goes all the way, so that all lists age alike.
  const whole = !sc.is_kswapd && sc.priority === DEF_PRIORITY;
  let reclaimed = 0;
  while (left.some((nr) => nr > 0)) {
    for (const [i, lru] of lists.entries()) {
      const nr = Math.min(left[i], SWAP_CLUSTER_MAX);
      left[i] -= nr;
      if (nr === 0) continue;
      if (lru === LRU_INACTIVE_FILE) reclaimed += shrink_inactive_list(pgdat, lru, nr, sc);
      else if (low || sc.force_deactivate) shrink_active_list(pgdat, lru, nr, sc);
      else sc.skipped_deactivate = true;
    }
    if (reclaimed >= sc.nr_to_reclaim && !whole) break;
  }
  sc.nr_reclaimed += reclaimed;
}

const slab_pages = (): number =>
  global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);

/** One round over a node: pages of files, then shrinkers. */
function shrink_node(pgdat: PgDataPtr, sc: ScanControl): void {
  const before = sc.nr_reclaimed;
  shrink_lruvec(pgdat, sc);
  const slabs = slab_pages();
  shrink_slab(sc.gfp, PgData.node_id.get(pgdat), sc.priority);
  sc.nr_reclaimed += Math.max(slabs - slab_pages(), 0);
  if (sc.nr_reclaimed > before) PgData.kswapd_failures.set(pgdat, 0);
}

/* Direct reclaim */

/** Shrinks each node of a zonelist once. */
function shrink_zones(first: Ptr<"zoneref">, nodemask: NodeMask, sc: ScanControl): void {
  let last: PgDataPtr = NULL;
  for (let ref = first; ZoneRef.zone.get(ref) !== NULL; ref += ZoneRef.sizeof) {
    const zone = ZoneRef.zone.get(ref);
    if (ZoneRef.zone_idx.get(ref) > sc.reclaim_idx || !node_allowed(zone, nodemask)) continue;
    const pgdat = Zone.zone_pgdat.get(zone);
    if (pgdat !== last) shrink_node(pgdat, sc);
    last = pgdat;
  }
}

/** False once the node's free pages are down to half of its min marks: these are for those who free memory. */
function allow_direct_reclaim(pgdat: PgDataPtr): boolean {
  if (node_is_hopeless(pgdat)) return true;
  let [reserve, free] = [0, 0];
  for (const zone of managed_zones(pgdat, ZONE_NORMAL)) {
    if (zone_reclaimable_pages(zone) === 0) continue;
    reserve += wmark_pages(zone, WMARK_MIN);
    free += zone_free_pages(zone);
  }
  return reserve === 0 || free > reserve >> 1;
}

/** Where Linux lets a direct reclaimer wait for kswapd: that is woken, and the event counted. */
function throttle_direct_reclaim(first: Ptr<"zoneref">, order: number, gfp: number): void {
  const zone = ZoneRef.zone.get(first);
  if (zone === NULL || allow_direct_reclaim(Zone.zone_pgdat.get(zone))) return;
  count_vm_event(PGSCAN_DIRECT_THROTTLE);
  wakeup_kswapd(zone, gfp, order, gfp_zone(gfp));
}

/**
 * Direct reclaim for a request: frees 32 pages, or as many as there are, of the nodes of a zonelist from `first` on.
 * Returns how many. Context: may take any lock of a shrinker; the caller holds none.
 */
export function try_to_free_pages(first: Ptr<"zoneref">, order: number, gfp: number, nodemask: NodeMask): number {
  throttle_direct_reclaim(first, order, gfp);
  const flags = set_reclaim_flags(reclaim_flags() | PF_MEMALLOC);
  const sc: ScanControl = {
    gfp, order, reclaim_idx: gfp_zone(gfp), is_kswapd: false, nr_to_reclaim: SWAP_CLUSTER_MAX, priority: DEF_PRIORITY,
    nr_scanned: 0, nr_reclaimed: 0, force_deactivate: false, skipped_deactivate: false,
  }; // prettier-ignore
  do_try_to_free_pages(first, nodemask, sc);
  if (sc.nr_reclaimed === 0 && sc.skipped_deactivate) {
    sc.force_deactivate = true; // active pages were spared although there is nothing else
    do_try_to_free_pages(first, nodemask, sc);
  }
  set_reclaim_flags(flags);
  return sc.nr_reclaimed;
}
ksym("try_to_free_pages", try_to_free_pages);

function do_try_to_free_pages(first: Ptr<"zoneref">, nodemask: NodeMask, sc: ScanControl): void {
  count_vm_event(ALLOCSTALL + sc.reclaim_idx);
  for (sc.priority = DEF_PRIORITY; sc.priority >= 0; sc.priority--) {
    shrink_zones(first, nodemask, sc);
    if (sc.nr_reclaimed >= sc.nr_to_reclaim) break;
  }
}

/* Node reclaim */

/** Shrinks one node for a request that could go to another (mm/node_reclaim.ts). True if that freed enough. */
function shrink_one_node(nid: NodeId, order: number, gfp: number): boolean {
  const flags = set_reclaim_flags(reclaim_flags() | PF_MEMALLOC);
  const sc: ScanControl = {
    gfp, order, reclaim_idx: gfp_zone(gfp), is_kswapd: false, nr_to_reclaim: Math.max(1 << order, SWAP_CLUSTER_MAX),
    priority: NODE_RECLAIM_PRIORITY, nr_scanned: 0, nr_reclaimed: 0, force_deactivate: false, skipped_deactivate: false,
  }; // prettier-ignore
  for (; sc.priority >= 0 && sc.nr_reclaimed < sc.nr_to_reclaim; sc.priority--) shrink_node(NODE_DATA(nid), sc);
  set_reclaim_flags(flags);
  return sc.nr_reclaimed >= sc.nr_to_reclaim;
}
ksym("shrink_one_node", shrink_one_node);

/* kswapd */

/** True if some zone up to `highest` is above its high mark for a block of that order, or there is none. */
export function pgdat_balanced(pgdat: PgDataPtr, order: number, highest: number): boolean {
  let zones = 0;
  for (const zone of managed_zones(pgdat, highest)) {
    if (zone_watermark_ok(zone, order, high_wmark_pages(zone), highest, 0)) return true;
    zones++;
  }
  return zones === 0;
}

const boost_of = (pgdat: PgDataPtr, highest: number): number =>
  [...managed_zones(pgdat, highest)].reduce((sum, zone) => sum + Zone.watermark_boost.get(zone), 0);

/**
 * Tells a zone's kswapd that a request of `order` in zones up to `highest` found too little, and wakes it if it sleeps and
 * could help. Context: any; takes no lock but the run queue's.
 */
function wakeup_kswapd(zone: ZonePtr, _gfp: number, order: number, highest: number): void {
  if (Zone.managed_pages.get(zone) === 0) return;
  const pgdat = Zone.zone_pgdat.get(zone);
  const before = PgData.kswapd_highest_zoneidx.get(pgdat);
  if (before === MAX_NR_ZONES || before < highest) PgData.kswapd_highest_zoneidx.set(pgdat, highest);
  if (PgData.kswapd_order.get(pgdat) < order) PgData.kswapd_order.set(pgdat, order);
  if (PgData.kswapd.get(pgdat) === NULL || PgData.kswapd_awake.get(pgdat) !== 0) return;
  if (node_is_hopeless(pgdat)) return;
  if (pgdat_balanced(pgdat, order, highest) && boost_of(pgdat, highest) === 0) return;
  set_kswapd_awake(pgdat, true);
  call_reclaim_slot("kswapd_runs", PgData.node_id.get(pgdat));
}
ksym("wakeup_kswapd", wakeup_kswapd);

/** Says whether a node's kswapd runs or sleeps; while it runs, requests for memory try other nodes first. */
export function set_kswapd_awake(pgdat: PgDataPtr, awake: boolean): void {
  PgData.kswapd_awake.set(pgdat, awake ? 1 : 0);
  set_zone_flags(pgdat, MAX_NR_ZONES, ZONE_KSWAPD_AWAKE, awake);
}

/** Sets or clears a flag of all zones of a node up to `highest`. */
function set_zone_flags(pgdat: PgDataPtr, highest: number, flag: number, on: boolean): void {
  for (const zone of managed_zones(pgdat, highest)) (on ? zone_set_flag : zone_clear_flag)(zone, flag);
}

/** One round of kswapd at a priority; true if it looked at as many pages as it is to free. */
function kswapd_shrink_node(pgdat: PgDataPtr, sc: ScanControl): boolean {
  sc.nr_to_reclaim = 0;
  for (const zone of managed_zones(pgdat, sc.reclaim_idx))
    sc.nr_to_reclaim += Math.max(high_wmark_pages(zone), SWAP_CLUSTER_MAX);
  shrink_node(pgdat, sc);
  // Pages may be there, but not side by side; that is no work for reclaim.
  if (sc.order > 0 && sc.nr_reclaimed >= 2 << sc.order) sc.order = 0;
  return sc.nr_scanned >= sc.nr_to_reclaim;
}

/**
 * One run of kswapd: reclaims until the node is balanced for `order` and zones up to `highest`, and takes back what
 * boosted marks called for. Returns the order that it reclaimed for: less than asked if a large block is not to be had.
 * Context: an entry of the node's kswapd.
 */
export function balance_pgdat(pgdat: PgDataPtr, order: number, highest: number): number {
  const flags = set_reclaim_flags(PF_MEMALLOC);
  const sc: ScanControl = {
    gfp: GFP_KERNEL, order, reclaim_idx: highest, is_kswapd: true, nr_to_reclaim: 0, priority: DEF_PRIORITY,
    nr_scanned: 0, nr_reclaimed: 0, force_deactivate: false, skipped_deactivate: false,
  }; // prettier-ignore
  count_vm_event(PAGEOUTRUN);
  const boosts = [...managed_zones(pgdat, highest)].map((zone) => ({ zone, boost: Zone.watermark_boost.get(zone) }));
  set_zone_flags(pgdat, highest, ZONE_RECLAIM_ACTIVE, true);
  reclaim_until_balanced(pgdat, sc, boosts.reduce((sum, { boost }) => sum + boost, 0)); // prettier-ignore
  set_zone_flags(pgdat, highest, ZONE_RECLAIM_ACTIVE, false);
  for (const { zone, boost } of boosts) {
    Zone.watermark_boost.set(zone, Math.max(Zone.watermark_boost.get(zone) - boost, 0));
    zone_marks_changed(zone);
  }
  set_reclaim_flags(flags);
  return sc.order;
}

/** `boost`: pages to reclaim although the node is balanced. Nothing at all reclaimed is a failure. */
function reclaim_until_balanced(pgdat: PgDataPtr, sc: ScanControl, boost: number): void {
  while (sc.priority >= 1) {
    const balanced = pgdat_balanced(pgdat, sc.order, sc.reclaim_idx);
    if (!balanced && boost > 0) {
      boost = 0; // memory is short in earnest: start over
      sc.priority = DEF_PRIORITY;
    } else if (balanced && boost === 0) return;
    const before = sc.nr_reclaimed;
    sc.nr_scanned = 0;
    const enough = kswapd_shrink_node(pgdat, sc);
    const reclaimed = sc.nr_reclaimed - before;
    // For a boost alone it is not worth while to look hard.
    const light = boost > 0 && sc.priority === DEF_PRIORITY - 2;
    boost = Math.max(boost - reclaimed, 0);
    if (boost > 0 && reclaimed === 0) break;
    if ((!enough && !light) || reclaimed === 0) sc.priority--;
  }
  if (sc.nr_reclaimed === 0) PgData.kswapd_failures.set(pgdat, PgData.kswapd_failures.get(pgdat) + 1);
}

/** True if kswapd may sleep: the node is balanced, or hopeless. */
export function prepare_kswapd_sleep(pgdat: PgDataPtr, order: number, highest: number): boolean {
  return node_is_hopeless(pgdat) || pgdat_balanced(pgdat, order, highest);
}
