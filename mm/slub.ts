/**
 * SLUB: allocation and freeing.
 *
 *     kmem_cache_cpu  (one a CPU)             kmem_cache_node  (one a node)
 *       freelist  next free object              partial  slabs with some free objects
 *       page      the active slab               full     slabs with none
 *       partial   slabs kept in reserve
 *
 * An allocation is served in this order:
 *   1 this CPU's freelist                                       no lock, no atomic       ALLOC_FASTPATH
 *   2 what others freed into the active slab meanwhile          the slab's word          ALLOC_REFILL
 *   3 the first slab of this CPU's partial list                                          CPU_PARTIAL_ALLOC
 *   4 the node's partial list; some more go to the CPU's        node->list_lock          ALLOC_FROM_PARTIAL
 *   5 another node's partial list                               its list_lock
 *   6 a new slab from the page allocator, constructors run                               ALLOC_SLAB
 * A free goes:
 *   1 to this CPU's freelist, if the object lies in its active slab                      FREE_FASTPATH
 *   2 to its slab's own list. The first object freed from a full slab puts that slab on this CPU's partial list (or, in
 *     a cache without those, on the node's); the last one frees the slab, once the node keeps min_partial empty ones.
 *
 * An active slab whose objects are all handed out leaves `freelist` NULL; the next allocation lets go of it
 * (DEACTIVATE_BYPASS) and it is on node->full, until an object of it is freed.
 *
 * Locks: node->list_lock for a node's lists and counts; a slab's word by compare-and-swap; nothing for what only its CPU
 * touches. The page allocator is never called with a list_lock held.
 * A cache with sheaves (mm/sheaf.ts) has its fast path closed: alloc_slow and free_slow look there first.
 * Unlike Linux: no transaction id, since no entry is preempted; `full` is kept without debugging.
 */
import { NULL, PAGE_SIZE, type NodeId, type Obj } from "../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, numa_node_id } from "../hal/cpu.ts";
import { local_clock } from "../hal/clock.ts";
import { ram32, ram_zero } from "../hal/ram.ts";
import { static_data } from "../hal/image.ts";
import { list_empty, list_next, list_prev } from "../kernel/lib/list.ts";
import { pr_warn } from "../kernel/lib/printk.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { get_order } from "../kernel/lib/bitops.ts";
import { should_failslab } from "./fault_inject.ts";
import { GFP_NOWAIT, NUMA_NO_NODE, __GFP_NOWARN, __GFP_THISNODE, __GFP_ZERO, format_gfp, gfp_zone } from "./gfp.ts";
import { mempolicy_slab_node } from "./mempolicy_alloc.ts";
import { Slab, page_to_nid, type PagePtr, type SlabPtr } from "./page.ts";
import { sheaf_alloc, sheaf_free, type SlabSide } from "./sheaf.ts";
import { CACHE_NO_CPU_PARTIAL, KmemCache, cache_from_obj, oo_order, slab_data, type CachePtr } from "./slab_common.ts";
import { SLAB_DEBUG_FLAGS } from "./slab_layout.ts";
import {
  ALLOC_FASTPATH, ALLOC_FROM_PARTIAL, ALLOC_NODE_MISMATCH, ALLOC_REFILL, ALLOC_SLAB, ALLOC_SLOWPATH, CPUSLAB_FLUSH,
  CPU_PARTIAL_ALLOC, CPU_PARTIAL_DRAIN, CPU_PARTIAL_FREE, CPU_PARTIAL_NODE, DEACTIVATE_BYPASS, DEACTIVATE_EMPTY,
  DEACTIVATE_FULL, DEACTIVATE_REMOTE_FREES, DEACTIVATE_TO_HEAD, DEACTIVATE_TO_TAIL, FREE_ADD_PARTIAL, FREE_FASTPATH,
  FREE_FROZEN, FREE_REMOVE_PARTIAL, FREE_SLAB, FREE_SLOWPATH, KmemCacheCpu, KmemCacheNode, add_full,
  add_partial_locked, discard_slab, get_freepointer, inc_slabs_node, new_slab, node_of, notify,
  on_node_partial, remove_full, remove_partial_locked, set_freepointer, slab_address, slab_freelist,
  slab_inuse, slab_order, slab_push, slab_take, slab_thaw, stat, virt_to_slab, was_full, type CpuPtr, type NodePtr,
} from "./slub_slab.ts"; // prettier-ignore
import { NODE_DATA, Zone, ZoneList, ZoneRef, ZONELIST_FALLBACK, for_each_online_node, local_memory_node, node_zonelist } from "./zone.ts"; // prettier-ignore

const m = ram32;
const r = cpu_regs;
const CPU_SLAB = KmemCache.cpu_slab.offset;
const CPU_SHEAVES = KmemCache.cpu_sheaves.offset;
const FAST_OFFSET = KmemCache.fast_offset.offset;
const FREELIST = KmemCacheCpu.freelist.offset;
const PAGE = KmemCacheCpu.page.offset;
const BASE = KmemCacheCpu.base.offset;
const BYTES = KmemCacheCpu.bytes.offset;
const STAT = KmemCacheCpu.stat.offset;
const STAT_ALLOC = STAT + 4 * ALLOC_FASTPATH;
const STAT_FREE = STAT + 4 * FREE_FASTPATH;
const R_CPU_OFFSET = CPU_OFFSET;
const ZERO = __GFP_ZERO;

/** Takes an object: this CPU's freelist, or the slow path (which also zeroes). Hot path. */
export function slub_alloc(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const c = m[(cache + CPU_SLAB) >> 2]! + r[R_CPU_OFFSET]!;
  const object = m[(c + FREELIST) >> 2]!;
  const offset = m[(cache + FAST_OFFSET) >> 2]!;
  if (object === 0 || offset < 0 || node >= 0 || (gfp & ZERO) !== 0) return alloc_slow(cache, gfp, node) | 0;
  m[(c + FREELIST) >> 2] = m[(object + offset) >> 2]!;
  m[(c + STAT_ALLOC) >> 2] = m[(c + STAT_ALLOC) >> 2]! + 1;
  return object;
}

/** Gives an object back: to this CPU's freelist if it lies in the active slab. Hot path. */
export function slub_free(cache: CachePtr, object: Obj): void {
  const c = m[(cache + CPU_SLAB) >> 2]! + r[R_CPU_OFFSET]!;
  const offset = m[(cache + FAST_OFFSET) >> 2]!;
  if (offset < 0 || (object - m[(c + BASE) >> 2]!) >>> 0 >= m[(c + BYTES) >> 2]! >>> 0) {
    free_slow(cache, object);
    return;
  }
  m[(object + offset) >> 2] = m[(c + FREELIST) >> 2]!;
  m[(c + FREELIST) >> 2] = object;
  m[(c + STAT_FREE) >> 2] = m[(c + STAT_FREE) >> 2]! + 1;
}

/** Opens or closes a cache's fast path: sheaves, a hardened list, or who wants to see every allocation closes it. */
export function set_fast_path(cache: CachePtr): void {
  const sheaves = KmemCache.cpu_sheaves.get(cache) !== NULL;
  const closed = sheaves || slab_data.fast_paths_closed !== 0 || KmemCache.random.get(cache) !== 0;
  KmemCache.fast_offset.set(cache, closed ? -1 : KmemCache.offset.get(cache));
}

function zero_object(cache: CachePtr, object: Obj): void {
  ram_zero(object, (KmemCache.object_size.get(cache) + 7) & ~7);
}

/** This CPU's part of a cache. */
export function this_cpu_slab(cache: CachePtr): CpuPtr {
  return m[(cache + CPU_SLAB) >> 2]! + r[CPU_OFFSET]!;
}

/** Everything that is not a plain pop. */
function alloc_slow(cache: CachePtr, gfp: number, node: NodeId): Obj {
  if (should_failslab(cache, gfp)) return NULL;
  const sheafed = m[(cache + CPU_SHEAVES) >> 2]! === 0 ? NULL : sheaf_alloc(cache, gfp, node, slabs);
  const taken = sheafed || take_from_slabs(cache, gfp, node);
  if (taken !== NULL && gfp & __GFP_ZERO) zero_object(cache, taken);
  return taken;
}

/** An object past the sheaves. */
function take_from_slabs(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const c = this_cpu_slab(cache);
  const object = KmemCacheCpu.freelist.get(c);
  const slab = KmemCacheCpu.page.get(c);
  const match = object !== NULL && (node === NUMA_NO_NODE || page_to_nid(slab as PagePtr) === node);
  return match ? pop(cache, c, object, ALLOC_FASTPATH) : slab_alloc(cache, gfp, node);
}

function pop(cache: CachePtr, c: CpuPtr, object: Obj, item: number): Obj {
  KmemCacheCpu.freelist.set(c, get_freepointer(cache, object));
  stat(cache, item);
  return object;
}

/** The ladder: steps 2 to 6 of the file head. */
function slab_alloc(cache: CachePtr, gfp: number, wanted: NodeId): Obj {
  stat(cache, ALLOC_SLOWPATH);
  const c = this_cpu_slab(cache);
  const node = wanted !== NUMA_NO_NODE && KmemCache.node.get(cache, wanted) === NULL ? NUMA_NO_NODE : wanted;
  const freelist =
    from_cpu_slab(cache, c, node) || from_cpu_partial(cache, c, node) || from_elsewhere(cache, gfp, node);
  if (freelist === NULL) {
    slab_out_of_memory(cache, gfp, node);
    return NULL;
  }
  KmemCacheCpu.freelist.set(c, get_freepointer(cache, freelist));
  return freelist;
}

/** Step 2: what lies on the active slab's own list. Lets go of the slab if there is nothing, or it is of another node. */
function from_cpu_slab(cache: CachePtr, c: CpuPtr, node: NodeId): Obj {
  const slab = KmemCacheCpu.page.get(c);
  if (slab === NULL) return NULL;
  const freelist = KmemCacheCpu.freelist.get(c);
  if (node !== NUMA_NO_NODE && page_to_nid(slab as PagePtr) !== node) {
    stat(cache, ALLOC_NODE_MISMATCH);
    clear_cpu_slab(c);
    deactivate_slab(cache, slab, freelist);
    return NULL;
  }
  if (freelist !== NULL) return freelist;
  const refill = slab_take(cache, slab);
  if (refill !== NULL) {
    stat(cache, ALLOC_REFILL);
    return refill;
  }
  clear_cpu_slab(c);
  stat(cache, DEACTIVATE_BYPASS);
  add_full(cache, slab, DEACTIVATE_BYPASS);
  return NULL;
}

/** Step 3. A slab of the wrong node goes to its node's list. */
function from_cpu_partial(cache: CachePtr, c: CpuPtr, node: NodeId): Obj {
  for (;;) {
    const slab = KmemCacheCpu.partial.get(c);
    if (slab === NULL) return NULL;
    KmemCacheCpu.partial.set(c, partial_next(slab));
    if (node === NUMA_NO_NODE || page_to_nid(slab as PagePtr) === node) {
      stat(cache, CPU_PARTIAL_ALLOC);
      return install(cache, slab, CPU_PARTIAL_ALLOC);
    }
    set_partial_next(slab, NULL);
    put_partials(cache, slab);
  }
}

/** Steps 4 to 6. A wish for a node is tried hard there first, then given up unless it is __GFP_THISNODE. */
function from_elsewhere(cache: CachePtr, gfp: number, node: NodeId): Obj {
  if (node !== NUMA_NO_NODE && !(gfp & __GFP_THISNODE)) {
    const there =
      get_partial(cache, GFP_NOWAIT | __GFP_THISNODE, node) || get_new(cache, GFP_NOWAIT | __GFP_THISNODE, node);
    if (there !== NULL) return there;
  }
  return get_partial(cache, gfp, node) || get_new(cache, gfp, node);
}

function get_new(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const slab = new_slab(cache, gfp, node);
  if (slab === NULL) return NULL;
  inc_slabs_node(node_of(cache, slab), slab);
  stat(cache, ALLOC_SLAB);
  notify("slab:new", cache, slab, ALLOC_SLAB);
  return install(cache, slab, ALLOC_SLAB);
}

/** Makes a slab this CPU's active one and returns its whole free list. */
function install(cache: CachePtr, slab: SlabPtr, item: number): Obj {
  const c = this_cpu_slab(cache);
  // A constructor may have allocated from this very cache meanwhile: its slab gives way.
  if (KmemCacheCpu.page.get(c) !== NULL) flush_slab(cache, c);
  const freelist = slab_take(cache, slab);
  KmemCacheCpu.page.set(c, slab);
  KmemCacheCpu.base.set(c, slab_address(slab));
  KmemCacheCpu.bytes.set(c, PAGE_SIZE << slab_order(slab));
  notify("slab:cpu", cache, slab, item);
  return freelist;
}

function clear_cpu_slab(c: CpuPtr): void {
  KmemCacheCpu.page.set(c, NULL);
  KmemCacheCpu.freelist.set(c, NULL);
  KmemCacheCpu.base.set(c, 0);
  KmemCacheCpu.bytes.set(c, 0);
}

/** Step 4 on the wanted or the local node, then step 5. */
function get_partial(cache: CachePtr, gfp: number, node: NodeId): Obj {
  const local = node === NUMA_NO_NODE ? local_memory_node(numa_node_id()) : node;
  const object = get_partial_node(cache, KmemCache.node.get(cache, local));
  if (object !== NULL || (node !== NUMA_NO_NODE && gfp & __GFP_THISNODE)) return object;
  return get_any_partial(cache, gfp);
}

/** The first slab becomes ours; as many as half of the limit go to this CPU's partial list. */
function get_partial_node(cache: CachePtr, n: NodePtr): Obj {
  if (n === NULL || KmemCacheNode.nr_partial.get(n) === 0) return NULL;
  const head = KmemCacheNode.partial.at(n);
  const limit = has_cpu_partial(cache) ? KmemCache.cpu_partial_slabs.get(cache) : 0;
  let first: SlabPtr = NULL;
  let kept = 0;
  spin_lock(KmemCacheNode.list_lock.at(n));
  while (!list_empty(head)) {
    const slab: SlabPtr = list_next(head) - Slab.slab_list.offset;
    remove_partial_locked(n, slab);
    if (first === NULL) {
      first = slab;
      stat(cache, ALLOC_FROM_PARTIAL);
      if (limit === 0) break;
    } else {
      put_cpu_partial(cache, slab, false, CPU_PARTIAL_NODE);
      stat(cache, CPU_PARTIAL_NODE);
      if (++kept > limit >> 1) break;
    }
  }
  spin_unlock(KmemCacheNode.list_lock.at(n));
  return first === NULL ? NULL : install(cache, first, ALLOC_FROM_PARTIAL);
}

/** Step 5: nodes in zonelist order that have more slabs than they are meant to keep. */
function get_any_partial(cache: CachePtr, gfp: number): Obj {
  const ratio = KmemCache.remote_node_defrag_ratio.get(cache);
  if (ratio === 0 || local_clock() % 1024 > ratio) return NULL;
  const list = node_zonelist(mempolicy_slab_node(), ZONELIST_FALLBACK);
  for (let i = 0; ; i++) {
    const ref = ZoneList.refs.at(list, i);
    const zone = ZoneRef.zone.get(ref);
    if (zone === NULL) return NULL;
    if (ZoneRef.zone_idx.get(ref) > gfp_zone(gfp)) continue;
    const n = KmemCache.node.get(cache, Zone.node.get(zone));
    if (n === NULL || KmemCacheNode.nr_partial.get(n) <= KmemCache.min_partial.get(cache)) continue;
    const object = get_partial_node(cache, n);
    if (object !== NULL) return object;
  }
}

/** True if the cache has CPU partial lists at all. */
export function has_cpu_partial(cache: CachePtr): boolean {
  return (KmemCache.flags.get(cache) & (SLAB_DEBUG_FLAGS | CACHE_NO_CPU_PARTIAL)) === 0;
}

// On a CPU partial list the two words of slab_list mean: next slab, and slabs from here to the end.
const PARTIAL_NEXT = Slab.slab_list.offset;
const PARTIAL_SLABS = Slab.slab_list.offset + 8;
/** The slab behind this one on a CPU partial list. */
export function partial_next(slab: SlabPtr): SlabPtr {
  return m[(slab + PARTIAL_NEXT) >> 2]!;
}
function set_partial_next(slab: SlabPtr, next: SlabPtr): void {
  m[(slab + PARTIAL_NEXT) >> 2] = next;
}
/** Slabs from this one to the end of its CPU partial list. */
export function partial_slabs(slab: SlabPtr): number {
  return m[(slab + PARTIAL_SLABS) >> 2]!;
}

/** Everything that is not a plain push: most often an object of a slab that is not this CPU's active one. */
function free_slow(cache: CachePtr, object: Obj): void {
  if (m[(cache + FAST_OFFSET) >> 2]! < 0) free_closed(cache, object);
  else free_to_slab(cache, object);
}

/** A free of a cache whose fast path is closed: a hardened one looks whose the object is; sheaves come before slabs. */
function free_closed(cache: CachePtr, object: Obj): void {
  const owner = slab_data.freelist_hardened ? cache_from_obj(cache, object) : cache;
  if (owner === NULL || (m[(owner + CPU_SHEAVES) >> 2]! !== 0 && sheaf_free(owner, object, slabs))) return;
  free_to_slab(owner, object);
}

function free_to_slab(cache: CachePtr, object: Obj): void {
  const slab = virt_to_slab(object);
  const c = m[(cache + CPU_SLAB) >> 2]! + r[R_CPU_OFFSET]!;
  if (slab !== m[(c + PAGE) >> 2]!) {
    slab_free(cache, slab, object, object, 1);
    return;
  }
  set_freepointer(cache, object, m[(c + FREELIST) >> 2]!);
  m[(c + FREELIST) >> 2] = object;
  m[(c + STAT_FREE) >> 2] = m[(c + STAT_FREE) >> 2]! + 1;
}

/** Puts a run of objects back on their slab's own list, and the slab where it now belongs. */
function slab_free(cache: CachePtr, slab: SlabPtr, head: Obj, tail: Obj, count: number): void {
  stat(cache, FREE_SLOWPATH);
  const old = slab_push(cache, slab, head, tail, count);
  if (old & 1) stat(cache, FREE_FROZEN);
  else if (was_full(old)) free_full(cache, slab);
  else if ((old & 0xfffe) === count << 1) free_empty(cache, slab);
}

/** The first object of a full slab was freed. */
function free_full(cache: CachePtr, slab: SlabPtr): void {
  remove_full(cache, slab);
  if (has_cpu_partial(cache)) {
    put_cpu_partial(cache, slab, true, CPU_PARTIAL_FREE);
    stat(cache, CPU_PARTIAL_FREE);
  } else add_or_discard(cache, slab);
}

/** A formerly full slab of a cache without CPU partial lists. */
function add_or_discard(cache: CachePtr, slab: SlabPtr): void {
  const n = node_of(cache, slab);
  spin_lock(KmemCacheNode.list_lock.at(n));
  const keep = slab_inuse(slab) > 0 || KmemCacheNode.nr_partial.get(n) < KmemCache.min_partial.get(cache);
  if (keep) add_partial_locked(n, slab, true);
  spin_unlock(KmemCacheNode.list_lock.at(n));
  stat(cache, keep ? FREE_ADD_PARTIAL : FREE_SLAB);
  if (keep) notify("slab:partial", cache, slab, FREE_ADD_PARTIAL);
  else discard_slab(cache, slab);
}

/** A slab lost its last object. One on a CPU's partial list stays there. */
function free_empty(cache: CachePtr, slab: SlabPtr): void {
  const n = node_of(cache, slab);
  spin_lock(KmemCacheNode.list_lock.at(n));
  const drop = on_node_partial(slab) && KmemCacheNode.nr_partial.get(n) >= KmemCache.min_partial.get(cache);
  if (drop) remove_partial_locked(n, slab);
  spin_unlock(KmemCacheNode.list_lock.at(n));
  if (!drop) return;
  stat(cache, FREE_REMOVE_PARTIAL);
  stat(cache, FREE_SLAB);
  discard_slab(cache, slab);
}

/** Puts a slab first on this CPU's partial list; a list at its limit goes to the node first, whole, if `drain`. */
function put_cpu_partial(cache: CachePtr, slab: SlabPtr, drain: boolean, item: number): void {
  const c = this_cpu_slab(cache);
  const old = KmemCacheCpu.partial.get(c);
  const slabs = old === NULL ? 0 : partial_slabs(old);
  const overflow = old !== NULL && drain && slabs >= KmemCache.cpu_partial_slabs.get(cache);
  m[(slab + PARTIAL_SLABS) >> 2] = overflow ? 1 : slabs + 1;
  set_partial_next(slab, overflow ? NULL : old);
  KmemCacheCpu.partial.set(c, slab);
  notify("slab:cpu", cache, slab, item, "partial");
  if (!overflow) return;
  put_partials(cache, old);
  stat(cache, CPU_PARTIAL_DRAIN);
}

/** Hands a list of partial slabs to their nodes; empty ones beyond min_partial are freed. */
function put_partials(cache: CachePtr, list: SlabPtr): void {
  for (let slab = list; slab !== NULL;) {
    const next = partial_next(slab);
    const n = node_of(cache, slab);
    spin_lock(KmemCacheNode.list_lock.at(n));
    const drop = slab_inuse(slab) === 0 && KmemCacheNode.nr_partial.get(n) >= KmemCache.min_partial.get(cache);
    if (!drop) add_partial_locked(n, slab, true);
    spin_unlock(KmemCacheNode.list_lock.at(n));
    if (drop) {
      stat(cache, DEACTIVATE_EMPTY);
      stat(cache, FREE_SLAB);
      discard_slab(cache, slab);
    } else {
      stat(cache, FREE_ADD_PARTIAL);
      notify("slab:partial", cache, slab, FREE_ADD_PARTIAL);
    }
    slab = next;
  }
}

/** Takes an active slab from its CPU: what is left of the CPU's list goes in front of what others freed. */
function deactivate_slab(cache: CachePtr, slab: SlabPtr, freelist: Obj): void {
  const remote = slab_freelist(cache, slab) !== NULL;
  if (remote) stat(cache, DEACTIVATE_REMOTE_FREES);
  if (freelist !== NULL) {
    let tail = freelist;
    let count = 1;
    for (let next = get_freepointer(cache, tail); next !== NULL; next = get_freepointer(cache, tail)) {
      tail = next;
      count++;
    }
    slab_push(cache, slab, freelist, tail, count);
  }
  slab_thaw(slab);
  const n = node_of(cache, slab);
  const inuse = slab_inuse(slab);
  if (inuse === Slab.objects.get(slab)) {
    stat(cache, DEACTIVATE_FULL);
    add_full(cache, slab, DEACTIVATE_FULL);
    return;
  }
  spin_lock(KmemCacheNode.list_lock.at(n));
  const drop = inuse === 0 && KmemCacheNode.nr_partial.get(n) >= KmemCache.min_partial.get(cache);
  if (!drop) add_partial_locked(n, slab, remote);
  spin_unlock(KmemCacheNode.list_lock.at(n));
  if (drop) {
    stat(cache, DEACTIVATE_EMPTY);
    stat(cache, FREE_SLAB);
    discard_slab(cache, slab);
    return;
  }
  stat(cache, remote ? DEACTIVATE_TO_TAIL : DEACTIVATE_TO_HEAD);
  notify("slab:partial", cache, slab, remote ? DEACTIVATE_TO_TAIL : DEACTIVATE_TO_HEAD);
}

function flush_slab(cache: CachePtr, c: CpuPtr): void {
  const slab = KmemCacheCpu.page.get(c);
  const freelist = KmemCacheCpu.freelist.get(c);
  clear_cpu_slab(c);
  deactivate_slab(cache, slab, freelist);
  stat(cache, CPUSLAB_FLUSH);
}

/** Gives back everything this CPU keeps of a cache. */
export function flush_this_cpu(cache: CachePtr): void {
  const c = this_cpu_slab(cache);
  if (KmemCacheCpu.page.get(c) !== NULL) flush_slab(cache, c);
  const list = KmemCacheCpu.partial.get(c);
  KmemCacheCpu.partial.set(c, NULL);
  put_partials(cache, list);
}

/** What sheaves find below them. */
export const slabs: SlabSide = Object.freeze({
  take: (cache: CachePtr, gfp: number) => take_from_slabs(cache, gfp, NUMA_NO_NODE),
  give: free_to_slabs,
});

/** As many objects as asked for, or none; drains this CPU's freelist directly. */
export function slub_alloc_bulk(cache: CachePtr, gfp: number, nr: number, objects: Obj[]): number {
  for (let i = 0; i < nr; i++) {
    objects[i] = slub_alloc(cache, gfp, NUMA_NO_NODE);
    if (objects[i] !== NULL) continue;
    slub_free_bulk(cache, i, objects);
    return 0;
  }
  return nr;
}

/** Frees objects of one cache, or of any if `cache` is NULL; those of one with sheaves go there, one by one. */
export function slub_free_bulk(cache: CachePtr, nr: number, objects: Obj[]): void {
  if (cache === NULL || m[(cache + CPU_SHEAVES) >> 2]! === 0) return free_to_slabs(cache, nr, objects);
  for (let i = 0; i < nr; i++) slub_free(cache, objects[i]!);
}

/**
 * Frees objects of any slabs: from the end of the array, each time with those of the same slab that are found before
 * three others have been passed over. One group is one operation on its slab; its lowest index becomes the list's head.
 */
function free_to_slabs(cache: CachePtr, nr: number, objects: Obj[]): void {
  for (let size = nr; size > 0;) {
    const tail = objects[--size]!;
    const slab = virt_to_slab(tail);
    const owner = Slab.slab_cache.get(slab);
    let head = tail;
    let count = 1;
    let lookahead = 3;
    let same = size; // objects[same..] are dealt with or were passed over
    for (let i = size - 1; i >= 0; i--) {
      const object = objects[i]!;
      if (virt_to_slab(object) === slab) {
        set_freepointer(owner, object, head);
        head = object;
        count++;
        same--;
        objects[i] = objects[same]!; // the last one passed over takes its place
      } else if (--lookahead === 0) break;
    }
    size = same;
    const believed = cache !== NULL && slab_data.freelist_hardened ? cache_from_obj(cache, tail) : cache;
    free_run(believed || owner, slab, head, tail, count);
  }
}

function free_run(cache: CachePtr, slab: SlabPtr, head: Obj, tail: Obj, count: number): void {
  const c = this_cpu_slab(cache);
  if (slab !== KmemCacheCpu.page.get(c)) {
    slab_free(cache, slab, head, tail, count);
    return;
  }
  set_freepointer(cache, tail, KmemCacheCpu.freelist.get(c));
  KmemCacheCpu.freelist.set(c, head);
  stat(cache, FREE_FASTPATH);
}

const warned = static_data("slub_oom_ratelimit", { until: "u64", printed: "u32" });

/** At most 10 reports in 5 seconds, none with __GFP_NOWARN. */
function slab_out_of_memory(cache: CachePtr, gfp: number, node: NodeId): void {
  if (gfp & __GFP_NOWARN) return;
  if (local_clock() >= warned.until) {
    warned.until = local_clock() + 5e9;
    warned.printed = 0;
  }
  if (warned.printed++ >= 10) return;
  const cpu = r[0]!;
  const object_size = KmemCache.object_size.get(cache);
  const min = oo_order(KmemCache.min.get(cache));
  pr_warn(
    `SLUB: Unable to allocate memory on CPU ${cpu} (of node ${numa_node_id()}) on node ${node}, ` +
      `gfp=0x${(gfp >>> 0).toString(16)}(${format_gfp(gfp)})`,
  );
  pr_warn(
    `  cache: ${KmemCache.name.get(cache)}, object size: ${object_size}, buffer size: ${KmemCache.size.get(cache)}, ` +
      `default order: ${oo_order(KmemCache.oo.get(cache))}, min order: ${min}`,
  );
  if (min > get_order(object_size))
    pr_warn(`  ${KmemCache.name.get(cache)} debugging increased min order, use slab_debug=O to disable.`);
  for (const nid of for_each_online_node()) {
    const n = NODE_DATA(nid) === NULL ? NULL : KmemCache.node.get(cache, nid);
    if (n === NULL) continue;
    const objects = KmemCacheNode.total_objects.get(n);
    pr_warn(`  node ${nid}: slabs: ${KmemCacheNode.nr_slabs.get(n)}, objs: ${objects}, free: ${count_free_approx(n)}`);
  }
}

/** Free objects on a node's partial slabs. */
export function count_free(n: NodePtr): number {
  return count_free_from(n, KmemCacheNode.nr_partial.get(n), list_next);
}

/** Slabs that are looked at for /proc/slabinfo, half of them at either end of the list. */
const MAX_PARTIAL_TO_SCAN = 10_000;

/** The same, of a list that is longer than that an estimate. */
export function count_free_approx(n: NodePtr): number {
  const nr = KmemCacheNode.nr_partial.get(n);
  if (nr <= MAX_PARTIAL_TO_SCAN) return count_free(n);
  const half = MAX_PARTIAL_TO_SCAN / 2;
  const seen = count_free_from(n, half, list_next) + count_free_from(n, half, list_prev);
  const whole = Math.floor(seen / MAX_PARTIAL_TO_SCAN) * nr;
  const rest = Math.floor(((seen % MAX_PARTIAL_TO_SCAN) * nr) / MAX_PARTIAL_TO_SCAN);
  return Math.min(whole + rest, KmemCacheNode.total_objects.get(n));
}

/** Free objects on the first `count` slabs of a partial list, from the end that `step` starts at. */
function count_free_from(n: NodePtr, count: number, step: typeof list_next): number {
  const head = KmemCacheNode.partial.at(n);
  let free = 0;
  for (let node = step(head), left = count; node !== head && left > 0; node = step(node), left--) {
    const slab: SlabPtr = node - Slab.slab_list.offset;
    free += Slab.objects.get(slab) - slab_inuse(slab);
  }
  return free;
}
