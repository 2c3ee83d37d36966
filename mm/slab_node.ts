/**
 * SLAB: what a node keeps of a cache, and how objects move between its slabs, its arrays and those of its CPUs.
 *
 *     slabs_partial   ── taken from first; a slab that objects were taken from goes to the front, one that they came
 *     slabs_full         back to goes to the end
 *     slabs_free      ── taken from second, at the front; given back to the page allocator from the end
 *
 * Objects that come back are `free_objects` again, and no longer active. With more of those than free_limit, slabs of
 * slabs_free go: never more than is there of them, so a cache in pieces keeps what it has.
 *
 * Slabs that have come off the lists wait in a chain, linked by the first word of slab_list, until the lock is released:
 * slabs_destroy gives them to the page allocator.
 */
import { NULL, type NodeId, type Obj } from "../hal/addr.ts";
import { ram32, ram_copy } from "../hal/ram.ts";
import {
  list_add,
  list_add_tail,
  list_del,
  list_empty,
  list_next,
  list_prev,
  type ListPtr,
} from "../kernel/lib/list.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import type { CachePtr } from "./slab_common.ts";
import { IN_OBJECT } from "./slab_geometry.ts";
import {
  ALLOCATED, AlienCache, ArrayCache, GROWN, NODE_ALLOCS, NODE_FREES, OVERFLOWS, SlabCache, SlabNode, SlabPage, ac_entry,
  ac_push, alien_array, alien_of, entries_at, get_node, notify, slab_destroy, slab_get_obj, slab_nid, slab_num,
  slab_put_obj, stat_add, virt_to_slab, type ArrayPtr, type NodePtr, type SlabPtr,
} from "./slab_page.ts"; // prettier-ignore

const m = ram32;

/** Moves up to `max` of the newest objects of one array to another; returns how many. */
export function transfer_objects(to: ArrayPtr, from: ArrayPtr, max: number): number {
  const has = ArrayCache.avail.get(from);
  const had = ArrayCache.avail.get(to);
  const nr = Math.min(has, max, ArrayCache.limit.get(to) - had);
  if (nr === 0) return 0;
  ram_copy(entries_at(to, had), entries_at(from, has - nr), nr * 8);
  ArrayCache.avail.set(from, has - nr);
  ArrayCache.avail.set(to, had + nr);
  return nr;
}

/** Takes the `nr` oldest entries out of an array: they have gone elsewhere. */
export function drop_oldest(ac: ArrayPtr, nr: number): void {
  const left = ArrayCache.avail.get(ac) - nr;
  ArrayCache.avail.set(ac, left);
  ram_copy(entries_at(ac, 0), entries_at(ac, nr), left * 8);
}

/** A slab with free objects; NULL if the node has none. Context: list_lock; fixup_slab_list puts it back. */
export function get_first_slab(n: NodePtr): SlabPtr {
  const partial = SlabNode.slabs_partial.at(n);
  if (!list_empty(partial)) return slab_at(list_next(partial));
  SlabNode.free_touched.set(n, 1);
  const free = SlabNode.slabs_free.at(n);
  if (list_empty(free)) return NULL;
  SlabNode.free_slabs.set(n, SlabNode.free_slabs.get(n) - 1);
  return slab_at(list_next(free));
}

/** The slab that is linked at a place of a list. */
export function slab_at(node: ListPtr): SlabPtr {
  return node - SlabPage.slab_list.offset;
}

/** Moves a slab's next objects to an array, at most `batchcount`; returns how many of those are still wanted. */
export function alloc_block(cache: CachePtr, ac: ArrayPtr, slab: SlabPtr, batchcount: number): number {
  const nr = Math.min(slab_num(cache) - SlabPage.active.get(slab), batchcount);
  for (let i = 0; i < nr; i++) ac_push(ac, slab_get_obj(cache, slab));
  count_active(cache, nr);
  return batchcount - nr;
}

function count_active(cache: CachePtr, nr: number): void {
  const active = SlabCache.num_active.get(cache) + nr;
  SlabCache.num_active.set(cache, active);
  if (nr < 0) return;
  stat_add(cache, ALLOCATED, nr);
  if (active > SlabCache.high_mark.get(cache)) SlabCache.high_mark.set(cache, active);
}

/** Puts a slab from which objects were taken at the front of the list where it now belongs. Context: list_lock. */
export function fixup_slab_list(cache: CachePtr, n: NodePtr, slab: SlabPtr): void {
  list_del(SlabPage.slab_list.at(slab));
  put_slab(cache, n, slab);
}

function put_slab(cache: CachePtr, n: NodePtr, slab: SlabPtr): void {
  if (SlabPage.active.get(slab) === slab_num(cache)) {
    list_add(SlabPage.slab_list.at(slab), SlabNode.slabs_full.at(n));
    // The object that held the index array has been handed out with the rest.
    if (SlabCache.mode.get(cache) === IN_OBJECT) SlabPage.freelist.set(slab, NULL);
    notify("slab:full", cache, slab, "fixup_slab_list");
  } else {
    list_add(SlabPage.slab_list.at(slab), SlabNode.slabs_partial.at(n));
    notify("slab:partial", cache, slab, "fixup_slab_list");
  }
}

/** A new slab, from which objects may have been taken already, joins its node; NULL does nothing. */
export function cache_grow_end(cache: CachePtr, slab: SlabPtr): void {
  if (slab === NULL) return;
  notify("slab:new", cache, slab, "cache_grow_end");
  const n = get_node(cache, slab_nid(slab));
  const active = SlabPage.active.get(slab);
  spin_lock(SlabNode.list_lock.at(n));
  SlabNode.total_slabs.set(n, SlabNode.total_slabs.get(n) + 1);
  if (active === 0) {
    list_add_tail(SlabPage.slab_list.at(slab), SlabNode.slabs_free.at(n));
    SlabNode.free_slabs.set(n, SlabNode.free_slabs.get(n) + 1);
    notify("slab:free", cache, slab, "cache_grow_end");
  } else put_slab(cache, n, slab);
  stat_add(cache, GROWN, 1);
  SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) + slab_num(cache) - active);
  spin_unlock(SlabNode.list_lock.at(n));
}

/** An object of the slabs that a node has; NULL if none is free. */
export function object_of_node(cache: CachePtr, n: NodePtr): Obj {
  spin_lock(SlabNode.list_lock.at(n));
  const slab = get_first_slab(n);
  const object = slab === NULL ? NULL : take_object(cache, slab);
  if (slab !== NULL) {
    stat_add(cache, NODE_ALLOCS, 1);
    SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) - 1);
    fixup_slab_list(cache, n, slab);
  }
  spin_unlock(SlabNode.list_lock.at(n));
  return object;
}

export function take_object(cache: CachePtr, slab: SlabPtr): Obj {
  count_active(cache, 1);
  return slab_get_obj(cache, slab);
}

/**
 * Puts the `nr` oldest objects of an array back into the slabs of their node; the array itself stays as it is. Slabs
 * that the node has too many of come off its lists: the first is returned, the others are linked behind it, and
 * slabs_destroy gives them back. Context: list_lock.
 */
export function free_block(cache: CachePtr, n: NodePtr, ac: ArrayPtr, nr: number): SlabPtr {
  SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) + nr);
  for (let i = 0; i < nr; i++) free_to_slab(cache, n, ac_entry(ac, i));
  count_active(cache, -nr);
  return trim_free_slabs(cache, n);
}

function free_to_slab(cache: CachePtr, n: NodePtr, object: Obj): void {
  const slab = virt_to_slab(object);
  list_del(SlabPage.slab_list.at(slab));
  slab_put_obj(cache, slab, object);
  if (SlabPage.active.get(slab) === 0) {
    list_add(SlabPage.slab_list.at(slab), SlabNode.slabs_free.at(n));
    SlabNode.free_slabs.set(n, SlabNode.free_slabs.get(n) + 1);
    notify("slab:free", cache, slab, "free_block");
  } else {
    list_add_tail(SlabPage.slab_list.at(slab), SlabNode.slabs_partial.at(n));
    notify("slab:partial", cache, slab, "free_block");
  }
}

/** Takes slabs off the end of slabs_free until the node has no more free objects than its limit. */
function trim_free_slabs(cache: CachePtr, n: NodePtr): SlabPtr {
  let doomed: SlabPtr = NULL;
  while (SlabNode.free_objects.get(n) > SlabNode.free_limit.get(n) && !list_empty(SlabNode.slabs_free.at(n))) {
    const slab = take_last_free(cache, n);
    m[SlabPage.slab_list.at(slab) >> 2] = doomed;
    doomed = slab;
  }
  return doomed;
}

function take_last_free(cache: CachePtr, n: NodePtr): SlabPtr {
  const slab = slab_at(list_prev(SlabNode.slabs_free.at(n)));
  list_del(SlabPage.slab_list.at(slab));
  SlabNode.free_slabs.set(n, SlabNode.free_slabs.get(n) - 1);
  SlabNode.total_slabs.set(n, SlabNode.total_slabs.get(n) - 1);
  SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) - slab_num(cache));
  return slab;
}

/** Gives a chain of slabs back. Context: no list_lock. */
export function slabs_destroy(cache: CachePtr, doomed: SlabPtr): void {
  for (let slab = doomed; slab !== NULL;) {
    const next = m[SlabPage.slab_list.at(slab) >> 2]!;
    slab_destroy(cache, slab);
    slab = next;
  }
}

/** Gives up to `max` slabs at the end of slabs_free back, free_limit or not; returns how many. Context: no list_lock. */
export function drain_freelist(cache: CachePtr, n: NodePtr, max: number): number {
  let freed = 0;
  for (; freed < max && !list_empty(SlabNode.slabs_free.at(n)); freed++) {
    spin_lock(SlabNode.list_lock.at(n));
    const slab = take_last_free(cache, n);
    spin_unlock(SlabNode.list_lock.at(n));
    slab_destroy(cache, slab);
  }
  return freed;
}

/** Takes an object of node `node` that a CPU of node `home` frees. */
export function cache_free_alien(cache: CachePtr, object: Obj, home: NodeId, node: NodeId): void {
  stat_add(cache, NODE_FREES, 1);
  const alien = alien_of(get_node(cache, home), node);
  if (alien === NULL) return free_one_to_slab(cache, get_node(cache, node), object);
  const ac = alien_array(alien);
  let doomed: SlabPtr = NULL;
  spin_lock(AlienCache.lock.at(alien));
  if (ArrayCache.avail.get(ac) === ArrayCache.limit.get(ac)) {
    stat_add(cache, OVERFLOWS, 1);
    doomed = drain_alien_locked(cache, ac, node);
  }
  ac_push(ac, object);
  spin_unlock(AlienCache.lock.at(alien));
  slabs_destroy(cache, doomed);
}

function free_one_to_slab(cache: CachePtr, n: NodePtr, object: Obj): void {
  spin_lock(SlabNode.list_lock.at(n));
  SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) + 1);
  free_to_slab(cache, n, object);
  count_active(cache, -1);
  const doomed = trim_free_slabs(cache, n);
  spin_unlock(SlabNode.list_lock.at(n));
  slabs_destroy(cache, doomed);
}

/** Empties an alien array: what fits goes to the shared array of the node its objects are from, the rest to the slabs. */
function drain_alien_locked(cache: CachePtr, ac: ArrayPtr, node: NodeId): SlabPtr {
  const n = get_node(cache, node);
  const shared = SlabNode.shared.get(n);
  spin_lock(SlabNode.list_lock.at(n));
  if (shared !== NULL) transfer_objects(shared, ac, ArrayCache.limit.get(ac));
  const doomed = free_block(cache, n, ac, ArrayCache.avail.get(ac));
  ArrayCache.avail.set(ac, 0);
  spin_unlock(SlabNode.list_lock.at(n));
  return doomed;
}

/** Empties the array that a node has for objects of `node`, if there is one and it is not empty. */
export function drain_alien(cache: CachePtr, n: NodePtr, node: NodeId): void {
  const alien = alien_of(n, node);
  if (alien === NULL || ArrayCache.avail.get(alien_array(alien)) === 0) return;
  spin_lock(AlienCache.lock.at(alien));
  const doomed = drain_alien_locked(cache, alien_array(alien), node);
  spin_unlock(AlienCache.lock.at(alien));
  slabs_destroy(cache, doomed);
}

/** Puts the `nr` oldest objects of an array back into their node's slabs. */
export function drain_array(cache: CachePtr, n: NodePtr, ac: ArrayPtr, nr: number): void {
  if (ac === NULL || nr === 0) return;
  spin_lock(SlabNode.list_lock.at(n));
  const doomed = free_block(cache, n, ac, nr);
  drop_oldest(ac, nr);
  spin_unlock(SlabNode.list_lock.at(n));
  slabs_destroy(cache, doomed);
}
