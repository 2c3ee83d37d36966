/**
 * Shrinkers: caches above the page allocator that give memory back when asked.
 *
 * Each says how many objects it could free on a node, and frees up to as many as it is asked for. How many that is
 * follows from the pressure (`priority`, 12 light, 0 all there is):
 *
 *     delta = seeks ? (freeable >> priority) * 4 / seeks : freeable / 2
 *     total = min((deferred >> priority) + delta, 2 * freeable)       asked for in batches
 *     deferred = what was not scanned                                 kept for the next time
 *
 * Locks: shrinker_data.mutex protects the list; it is not held while a shrinker works.
 */
import { NULL, type NodeId, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { ksym_address, ksym_fn, type FnPtr } from "../kernel/lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "../kernel/lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { CLAIM_SHRINKER, claiming, unclaim } from "./claims.ts";
import { GFP_KERNEL } from "./gfp.ts";
import { kcalloc, kfree, kzalloc } from "./kmalloc.ts";
import { SLABS_SCANNED, count_vm_events } from "./vmstat.ts";
import { node_state } from "./zone.ts";

/** What a shrinker is asked. */
export interface ShrinkControl {
  readonly gfp: number;
  readonly nid: NodeId;
  nr_to_scan: number;
  /** Set by the shrinker if it looked at fewer than it was asked to. */
  nr_scanned: number;
}
/** Objects that could be freed; 0 or SHRINK_EMPTY: none. */
export type CountObjects = (shrinker: ShrinkerPtr, sc: ShrinkControl) => number;
/** Objects freed; SHRINK_STOP: no more to be had now. */
export type ScanObjects = (shrinker: ShrinkerPtr, sc: ShrinkControl) => number;

/** scan_objects: nothing can be freed now. */
export const SHRINK_STOP = -1;
/** count_objects: there is nothing at all. */
export const SHRINK_EMPTY = -2;
/** What an object costs to make again, where nobody knows better. */
export const DEFAULT_SEEKS = 2;
const SHRINK_BATCH = 128;
/** `flags`: what is freed depends on the node; without it only node 0's deferred count is used. */
export const SHRINKER_NUMA_AWARE = 1;

/** Who can give memory back when it is short. */
export const Shrinker = struct("shrinker", {
  count_objects: "*fn",
  scan_objects: "*fn",
  batch: "u32",
  seeks: "u32", // cost of making an object again
  flags: "u32",
  pad: "u32",
  private_data: "*void", // the owner's
  list: ListHead, // shrinker_data.list, in the order of registration
  nr_deferred: "*u64", // one a node
});
export type ShrinkerPtr = Ptr<"shrinker">;
const Deferred = struct("nr_deferred", { count: "u64" });

const shrinker_data = static_data("shrinker_list", { mutex: SpinLock, list: ListHead });

/** Boot: nobody has registered. */
export function shrinker_init(): void {
  init_list_head(shrinker_data.list);
}

/** Makes a shrinker with default batch and seeks. NULL without memory. */
export function shrinker_alloc(flags: number): ShrinkerPtr {
  return claiming(CLAIM_SHRINKER, () => new_shrinker(flags));
}

function new_shrinker(flags: number): ShrinkerPtr {
  const shrinker: ShrinkerPtr = kzalloc(Shrinker.sizeof, GFP_KERNEL);
  if (shrinker === NULL) return NULL;
  const deferred = kcalloc(flags & SHRINKER_NUMA_AWARE ? node_state.nr_node_ids : 1, Deferred.sizeof, GFP_KERNEL);
  if (deferred === NULL) {
    kfree(shrinker);
    return NULL;
  }
  Shrinker.nr_deferred.set(shrinker, deferred);
  Shrinker.flags.set(shrinker, flags);
  Shrinker.batch.set(shrinker, SHRINK_BATCH);
  Shrinker.seeks.set(shrinker, DEFAULT_SEEKS);
  return shrinker;
}

/** Lets reclaim call it from now on, after all others. */
export function shrinker_register(
  shrinker: ShrinkerPtr,
  count: FnPtr | CountObjects,
  scan: FnPtr | ScanObjects,
  private_data: Ptr,
): void {
  Shrinker.count_objects.set(shrinker, ksym_address(count));
  Shrinker.scan_objects.set(shrinker, ksym_address(scan));
  Shrinker.private_data.set(shrinker, private_data);
  spin_lock(shrinker_data.mutex);
  list_add_tail(Shrinker.list.at(shrinker), shrinker_data.list);
  spin_unlock(shrinker_data.mutex);
}

/** Takes a shrinker off the list, if it was registered, and frees it. */
export function shrinker_free(shrinker: ShrinkerPtr): void {
  if (shrinker === NULL) return;
  unclaim(CLAIM_SHRINKER, shrinker);
  if (Shrinker.count_objects.get(shrinker) !== NULL) {
    spin_lock(shrinker_data.mutex);
    list_del(Shrinker.list.at(shrinker));
    spin_unlock(shrinker_data.mutex);
  }
  kfree(Shrinker.nr_deferred.get(shrinker));
  kfree(shrinker);
}

/** Asks one shrinker. Returns the objects it freed. */
function do_shrink_slab(sc: ShrinkControl, shrinker: ShrinkerPtr, priority: number): number {
  const freeable = (ksym_fn(Shrinker.count_objects.get(shrinker)) as CountObjects)(shrinker, sc);
  if (freeable === 0 || freeable === SHRINK_EMPTY) return 0;
  const scan_objects = ksym_fn(Shrinker.scan_objects.get(shrinker)) as ScanObjects;
  const nid = Shrinker.flags.get(shrinker) & SHRINKER_NUMA_AWARE ? sc.nid : 0;
  const deferred = Shrinker.nr_deferred.get(shrinker) + nid * Deferred.sizeof;
  const before = Deferred.count.get(deferred);
  const seeks = Shrinker.seeks.get(shrinker);
  const batch = Shrinker.batch.get(shrinker);
  const shifted = (x: number): number => Math.floor(x / 2 ** priority);
  const delta = Math.floor(seeks ? (shifted(freeable) * 4) / seeks : freeable / 2);
  let total = Math.min(shifted(before) + delta, 2 * freeable);
  let scanned = 0;
  let freed = 0;
  while (total >= batch || total >= freeable) {
    sc.nr_to_scan = sc.nr_scanned = Math.min(batch, total);
    const result = scan_objects(shrinker, sc);
    if (result === SHRINK_STOP) break;
    freed += result;
    count_vm_events(SLABS_SCANNED, sc.nr_scanned);
    total -= sc.nr_scanned;
    scanned += sc.nr_scanned;
  }
  Deferred.count.set(deferred, Math.min(Math.max(before + delta - scanned, 0), 2 * freeable));
  return freed;
}

/** Asks every shrinker to free some of what it has on a node. Returns the objects freed. Context: may sleep. */
export function shrink_slab(gfp: number, nid: NodeId, priority: number): number {
  let freed = 0;
  for (let node = list_next(shrinker_data.list); node !== shrinker_data.list; node = list_next(node))
    freed += do_shrink_slab({ gfp, nid, nr_to_scan: 0, nr_scanned: 0 }, node - Shrinker.list.offset, priority);
  return freed;
}

/** What the shrinker put off on a node. */
export function shrinker_deferred(shrinker: ShrinkerPtr, nid: NodeId): number {
  return Deferred.count.get(Shrinker.nr_deferred.get(shrinker) + nid * Deferred.sizeof);
}
