/**
 * SLAB, Bonwick's allocator as Linux had it until 6.7: allocation and freeing.
 *
 *     CPU 0  array_cache  ┐                     ┌  slabs_partial
 *     CPU 1  array_cache  ┼──  shared  ── node ─┼  slabs_full
 *     other nodes' objects ──  alien[n]         └  slabs_free
 *
 * Objects in hand lie in arrays, last in, first out, so that the one freed last, still in the CPU's cache, goes first.
 * An allocation is served in this order:
 *   1 the top of this CPU's array                                          no lock
 *   2 a batch moved to the array: from the node's shared array             list_lock
 *   3   or, object by object, from slabs_partial, then slabs_free          list_lock
 *   4   or from a new slab of this node
 *   5 one object past the array: of a slab of this node, of the nodes in zonelist order, of a new slab of any node
 * A free goes:
 *   1 on top of this CPU's array, if the object is of this CPU's node      no lock
 *   2 a full array first loses its oldest batch: to the shared array, or, if that is full, to the slabs
 *   3 an object of another node waits in the alien array for that node; a full one is emptied: as much as fits into the
 *     shared array there, the rest into the slabs
 *
 * What comes back to a slab moves it: the last object puts it at the front of slabs_free, any other at the end of
 * slabs_partial, so that it has the longest time to lose the rest. More free objects than `free_limit`: the slabs at the
 * end of slabs_free are destroyed.
 *
 * A request for another node passes the array by. So does, allocation by allocation, what a memory policy sends there.
 *
 * Locks: an alien array's own before the list_lock of the node its objects are from; the page allocator is called with
 * neither held.
 * Unlike Linux: no pfmemalloc slabs; CONFIG_DEBUG_SLAB's red zones, poison and last users are not there; a hardened kernel
 * warns of each second free of an array's top, not of the first one only.
 * See: Bonwick, The Slab Allocator, USENIX 1994; mm/slab_page.ts for the structs, mm/slab_reap.ts for the timer.
 */
import { NULL, px, type NodeId, type Obj } from "../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, cpu_to_node, smp_processor_id } from "../hal/cpu.ts";
import { ram32, ram_copy, ram_zero } from "../hal/ram.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { should_failslab } from "./fault_inject.ts";
import {
  NUMA_NO_NODE,
  __GFP_NOFAIL,
  __GFP_NOWARN,
  __GFP_RECLAIM,
  __GFP_THISNODE,
  __GFP_ZERO,
  gfp_zone,
} from "./gfp.ts";
import { mempolicy_slab_node } from "./mempolicy_alloc.ts";
import { Page, mem_map_state } from "./page.ts";
import { page_fast } from "./plenty.ts";
import { KmemCache, cache_from_obj, slab_data, type CachePtr } from "./slab_common.ts";
import {
  alloc_block, cache_free_alien, cache_grow_end, drop_oldest, fixup_slab_list, free_block, get_first_slab,
  object_of_node, slabs_destroy, take_object, transfer_objects,
} from "./slab_node.ts"; // prettier-ignore
import {
  ALLOC_HIT, ALLOC_MISS, ALLOC_PAST, ArrayCache, FREE_HIT, FREE_MISS, SlabCache, SlabCpu, SlabNode, ac_entry, ac_pop,
  ac_push, cache_grow_begin, cpu_cache_get, entries_at, get_node, slab_nid, stat_add, virt_to_slab, type ArrayPtr,
  type NodePtr, type SlabPtr,
} from "./slab_page.ts"; // prettier-ignore
import { ZONELIST_FALLBACK, Zone, ZoneList, ZoneRef, local_memory_node, node_zonelist } from "./zone.ts";

const m = ram32;
const r = cpu_regs;
const R_CPU_OFFSET = CPU_OFFSET;
const CPU_CACHE = SlabCache.cpu_cache.offset;
const CLOSED = SlabCache.closed.offset;
const HOME = SlabCpu.home.offset;
const AVAIL = SlabCpu.array.offset + ArrayCache.avail.offset;
const LIMIT = SlabCpu.array.offset + ArrayCache.limit.offset;
const TOUCHED = SlabCpu.array.offset + ArrayCache.touched.offset;
const ENTRIES = SlabCpu.sizeof;
const HITS = SlabCpu.stat.offset + 4 * ALLOC_HIT;
const FREE_HITS = SlabCpu.stat.offset + 4 * FREE_HIT;
const MEM_MAP = mem_map_state.$at("mem_map") >> 2;
const ZONE_NODE = Page.zone_node.offset;
const POLICY = page_fast.ptr + page_fast.policy.offset;
const ZERO = __GFP_ZERO;

/** Takes an object: the top of this CPU's array, or the slow path (which also zeroes). Hot path. */
export function slab_alloc(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const c = m[(cache + CPU_CACHE) >> 2]! + r[R_CPU_OFFSET]!;
  const avail = m[(c + AVAIL) >> 2]! - 1;
  const other = m[(cache + CLOSED) >> 2]! | m[(POLICY + r[R_CPU_OFFSET]!) >> 2]!;
  if (avail < 0 || other !== 0 || node >= 0 || (gfp & ZERO) !== 0) return alloc_slow(cache, gfp, node) | 0;
  m[(c + AVAIL) >> 2] = avail;
  m[(c + TOUCHED) >> 2] = 1;
  m[(c + HITS) >> 2] = m[(c + HITS) >> 2]! + 1;
  return m[(c + ENTRIES + (avail << 3)) >> 2]!;
}

/** Gives an object back: on top of this CPU's array, if it is of this CPU's node. Hot path. */
export function slab_free(cache: CachePtr, object: Obj): void {
  const c = m[(cache + CPU_CACHE) >> 2]! + r[R_CPU_OFFSET]!;
  const avail = m[(c + AVAIL) >> 2]!;
  const home = m[(c + HOME) >> 2]!;
  const page = m[MEM_MAP]! + ((object >>> 12) << 6); // virt_to_page: a tail page has its node too
  const away = home >= 0 && m[(page + ZONE_NODE) >> 2]! >>> 4 !== home;
  if (away || avail >= m[(c + LIMIT) >> 2]! || m[(cache + CLOSED) >> 2]! !== 0) {
    free_slow(cache, object);
    return;
  }
  m[(c + ENTRIES + (avail << 3)) >> 2] = object;
  m[(c + AVAIL) >> 2] = avail + 1;
  m[(c + FREE_HITS) >> 2] = m[(c + FREE_HITS) >> 2]! + 1;
}

/** Opens or closes a cache's fast path: hardening, or who wants to see every allocation, closes it. */
export function set_fast_path(cache: CachePtr): void {
  SlabCache.closed.set(cache, slab_data.fast_paths_closed | slab_data.freelist_hardened);
}

/** The node whose memory is nearest to this CPU. */
export function numa_mem_id(): NodeId {
  return local_memory_node(cpu_to_node(smp_processor_id()));
}

/** Everything that is not a plain pop. */
function alloc_slow(cache: CachePtr, gfp: number, node: NodeId): Obj {
  if (should_failslab(cache, gfp)) return NULL;
  const object = do_cache_alloc(cache, gfp, node);
  if (object !== NULL && gfp & __GFP_ZERO) ram_zero(object, (KmemCache.object_size.get(cache) + 7) & ~7);
  return object;
}

function do_cache_alloc(cache: CachePtr, gfp: number, wanted: NodeId): Obj {
  const here = numa_mem_id();
  const node = wanted === NUMA_NO_NODE ? policy_node(gfp, here) : wanted;
  if (node !== here) {
    stat_add(cache, ALLOC_PAST, 1);
    const there = get_node(cache, node) === NULL ? fallback_alloc(cache, gfp) : cache_alloc_node(cache, gfp, node);
    if (there !== NULL || wanted !== NUMA_NO_NODE) return there;
  }
  return cache_alloc(cache, gfp) || cache_alloc_node(cache, gfp, here);
}

/** The node that the running task's memory policy chooses for this one allocation. */
function policy_node(gfp: number, here: NodeId): NodeId {
  return m[(POLICY + r[CPU_OFFSET]!) >> 2] === NULL || gfp & __GFP_THISNODE ? here : mempolicy_slab_node();
}

/** Steps 1 to 4 of the file head. */
function cache_alloc(cache: CachePtr, gfp: number): Obj {
  const ac = cpu_cache_get(cache);
  if (ArrayCache.avail.get(ac) === 0) return cache_alloc_refill(cache, gfp);
  stat_add(cache, ALLOC_HIT, 1);
  ArrayCache.touched.set(ac, 1);
  return ac_pop(ac);
}

/** An array that was idle is not filled with more than this at once. */
const BATCHREFILL_LIMIT = 16;

function cache_alloc_refill(cache: CachePtr, gfp: number): Obj {
  stat_add(cache, ALLOC_MISS, 1);
  const ac = cpu_cache_get(cache);
  const batch = ArrayCache.batchcount.get(ac);
  const batchcount = ArrayCache.touched.get(ac) === 0 ? Math.min(batch, BATCHREFILL_LIMIT) : batch;
  const node = numa_mem_id();
  const n = get_node(cache, node);
  refill_from_node(cache, ac, n, batchcount);
  if (ArrayCache.avail.get(ac) === 0) {
    const slab = cache_grow_begin(cache, gfp_exact_node(gfp), node);
    // A constructor may have allocated from this very cache, and so filled the array.
    if (slab !== NULL && ArrayCache.avail.get(ac) === 0) alloc_block(cache, ac, slab, batchcount);
    cache_grow_end(cache, slab);
    if (ArrayCache.avail.get(ac) === 0) return NULL;
  }
  ArrayCache.touched.set(ac, 1);
  return ac_pop(ac);
}

/** Steps 2 and 3: up to a batch from the shared array, or else from slabs. */
function refill_from_node(cache: CachePtr, ac: ArrayPtr, n: NodePtr, batchcount: number): void {
  const shared = SlabNode.shared.get(n);
  if (SlabNode.free_objects.get(n) === 0 && (shared === NULL || ArrayCache.avail.get(shared) === 0)) return;
  spin_lock(SlabNode.list_lock.at(n));
  if (shared !== NULL && transfer_objects(ac, shared, batchcount) > 0) ArrayCache.touched.set(shared, 1);
  else {
    for (let left = batchcount; left > 0;) {
      const slab = get_first_slab(n);
      if (slab === NULL) break;
      left = alloc_block(cache, ac, slab, left);
      fixup_slab_list(cache, n, slab);
    }
    SlabNode.free_objects.set(n, SlabNode.free_objects.get(n) - ArrayCache.avail.get(ac));
  }
  spin_unlock(SlabNode.list_lock.at(n));
}

/** A request for one node only that neither reclaims nor complains: others are tried after it. */
function gfp_exact_node(gfp: number): number {
  return (gfp | __GFP_THISNODE | __GFP_NOWARN) & ~(__GFP_RECLAIM | __GFP_NOFAIL);
}

/** Step 5: one object of a node, past the array. */
function cache_alloc_node(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const object = object_of_node(cache, get_node(cache, node));
  if (object !== NULL) return object;
  const slab = cache_grow_begin(cache, gfp_exact_node(gfp), node);
  const fresh = slab === NULL ? NULL : take_object(cache, slab);
  cache_grow_end(cache, slab);
  return fresh || fallback_alloc(cache, gfp);
}

/** The node has no memory: any node that has an object, then a page from anywhere, with all the effort gfp allows. */
function fallback_alloc(cache: CachePtr, gfp: number): Obj {
  if (gfp & __GFP_THISNODE) return NULL;
  const list = node_zonelist(mempolicy_slab_node(), ZONELIST_FALLBACK);
  for (let i = 0; ; i++) {
    const ref = ZoneList.refs.at(list, i);
    const zone = ZoneRef.zone.get(ref);
    if (zone === NULL) break;
    const n = ZoneRef.zone_idx.get(ref) > gfp_zone(gfp) ? NULL : get_node(cache, Zone.node.get(zone));
    const object = n === NULL || SlabNode.free_objects.get(n) === 0 ? NULL : object_of_node(cache, n);
    if (object !== NULL) return object;
  }
  const slab = cache_grow_begin(cache, gfp, numa_mem_id());
  cache_grow_end(cache, slab);
  return slab === NULL ? NULL : object_of_node(cache, get_node(cache, slab_nid(slab)));
}

/** Everything that is not a plain push. */
function free_slow(cache: CachePtr, object: Obj): void {
  const owner = slab_data.freelist_hardened ? cache_from_obj(cache, object) : cache;
  if (owner === NULL) return;
  const home = SlabCpu.home.get(m[(owner + CPU_CACHE) >> 2]! + r[CPU_OFFSET]!);
  const node = slab_nid(virt_to_slab(object));
  if (home >= 0 && node !== home) {
    cache_free_alien(owner, object, home, node);
    return;
  }
  const ac = cpu_cache_get(owner);
  const full = ArrayCache.avail.get(ac) === ArrayCache.limit.get(ac);
  stat_add(owner, full ? FREE_MISS : FREE_HIT, 1);
  if (full) cache_flusharray(owner, ac);
  free_one(owner, ac, object);
}

/** Puts an object into an array that has room. A hardened kernel sees if it is there already, on top. */
function free_one(cache: CachePtr, ac: ArrayPtr, object: Obj): void {
  const avail = ArrayCache.avail.get(ac);
  if (slab_data.freelist_hardened && avail > 0 && ac_entry(ac, avail - 1) === object)
    WARN_ON(true, `${KmemCache.name.get(cache)}: double free of ${px(object)}`);
  else ac_push(ac, object);
}

/** A full array loses its oldest batch: to the shared array as far as there is room, to the slabs if there is none. */
function cache_flusharray(cache: CachePtr, ac: ArrayPtr): void {
  const n = get_node(cache, numa_mem_id());
  const shared = SlabNode.shared.get(n);
  const room = shared === NULL ? 0 : ArrayCache.limit.get(shared) - ArrayCache.avail.get(shared);
  let batchcount = ArrayCache.batchcount.get(ac);
  let doomed: SlabPtr = NULL;
  spin_lock(SlabNode.list_lock.at(n));
  if (room > 0) {
    batchcount = Math.min(batchcount, room);
    ram_copy(entries_at(shared, ArrayCache.avail.get(shared)), entries_at(ac, 0), batchcount * 8);
    ArrayCache.avail.set(shared, ArrayCache.avail.get(shared) + batchcount);
  } else {
    doomed = free_block(cache, n, ac, batchcount);
    const { max_freeable } = SlabCache;
    max_freeable.set(cache, Math.max(max_freeable.get(cache), SlabNode.free_slabs.get(n)));
  }
  spin_unlock(SlabNode.list_lock.at(n));
  drop_oldest(ac, batchcount);
  slabs_destroy(cache, doomed);
}
