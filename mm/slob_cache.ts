/**
 * SLOB: kmalloc and caches over blocks, and the record that the rest of the kernel calls.
 *
 *     kmalloc(100)            | 100 | unused | 100 bytes … |        a block of 108; the caller gets its 9th byte, aligned
 *                                            ^ result             to 8, or to its size if that is a power of two
 *     from a cache            | object … |                          a block of the object's size, which the cache knows
 *     SLAB_TYPESAFE_BY_RCU    | object … | head | size | pad |      given back a grace period later
 *
 * From 4088 bytes on kmalloc takes whole pages, as do objects of 4096 and more. A cache owns no page and keeps nothing
 * ready: objects of all caches and of kmalloc share the pages. So a constructor runs at each allocation, shrinking frees
 * nothing, and nobody can tell whether a cache that is destroyed still had objects: that succeeds, and they are lost.
 *
 * Unlike Linux: objects are counted, for the checks of mm/slob_check.ts and the console (Linux keeps no figure of a cache
 * at all); an RCU footer is aligned to 8, since no load here spans two words; fault injection is asked. As in Linux there
 * is no merging, __GFP_DMA and SLAB_CACHE_DMA say nothing of the pages that are there already, and all pages count as
 * unreclaimable.
 */
import { NULL, PAGE_SIZE, align_up, type NodeId, type Obj } from "../hal/addr.ts";
import { ram32 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { get_order, is_power_of_2 } from "../kernel/lib/bitops.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { EINVAL } from "../kernel/lib/errno.ts";
import { ksym, ksym_fn } from "../kernel/lib/ksym.ts";
import { list_add } from "../kernel/lib/list.ts";
import { RcuHead, call_rcu } from "../kernel/lib/rcu.ts";
import { should_failslab } from "./fault_inject.ts";
import { __GFP_ZERO } from "./gfp.ts";
import { kfree } from "./kmalloc.ts";
import {
  KmemCache, init_descriptor, oo_make, slab_data, type CachePtr, type Ctor, type SlabInfo, type SlabOps,
} from "./slab_common.ts"; // prettier-ignore
import { SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { slob_alloc, slob_data, slob_free, slob_free_pages, slob_init, slob_new_pages, slob_units } from "./slob.ts";
import { SlobCache, check_slob, object_units } from "./slob_check.ts";
import { MAX_PAGE_ORDER } from "./zone.ts";

const m = ram32;

/** Bytes in front of what kmalloc gives; the first word of them is the size that was asked for. */
export const KMALLOC_MINALIGN = 8;

function kmalloc_alloc(size: number, gfp: number, node: NodeId): Obj {
  if (should_failslab(NULL, gfp, size)) return NULL;
  const align = is_power_of_2(size) ? Math.max(KMALLOC_MINALIGN, size) : KMALLOC_MINALIGN;
  const block = slob_alloc(size + KMALLOC_MINALIGN, gfp, align, node, KMALLOC_MINALIGN);
  if (block === NULL) return NULL;
  m[block >> 2] = size;
  slob_data.kmalloc_allocs = slob_data.kmalloc_allocs + 1;
  slob_data.kmalloc_units = slob_data.kmalloc_units + slob_units(size + KMALLOC_MINALIGN);
  return block + KMALLOC_MINALIGN;
}

function kmalloc_free(object: Obj): void {
  const block = object - KMALLOC_MINALIGN;
  const size = m[block >> 2]! + KMALLOC_MINALIGN;
  slob_data.kmalloc_frees = slob_data.kmalloc_frees + 1;
  slob_data.kmalloc_units = slob_data.kmalloc_units - slob_units(size);
  slob_free(block, size);
}

/** Behind an object of a SLAB_TYPESAFE_BY_RCU cache. */
const SlobRcu = struct("slob_rcu", { head: RcuHead, size: "u32" }, { sizeof: 24 });

function create(cache: CachePtr): number {
  const rcu = KmemCache.flags.get(cache) & SLAB_TYPESAFE_BY_RCU;
  const object_size = KmemCache.object_size.get(cache);
  const size = rcu ? align_up(object_size, 8) + SlobRcu.sizeof : object_size;
  const order = get_order(size);
  if (order > MAX_PAGE_ORDER || KmemCache.align.get(cache) > PAGE_SIZE << order) return -EINVAL;
  KmemCache.size.set(cache, size);
  KmemCache.inuse.set(cache, object_size);
  KmemCache.oo.set(cache, size < PAGE_SIZE ? 0 : oo_make(order, 1));
  SlobCache.allocs.set(cache, 0);
  SlobCache.frees.set(cache, 0);
  return 0;
}

function alloc(cache: CachePtr, gfp: number, node: NodeId): Obj {
  if (should_failslab(cache, gfp)) return NULL;
  const size = KmemCache.size.get(cache);
  const object =
    size < PAGE_SIZE
      ? slob_alloc(size, gfp, KmemCache.align.get(cache), node, 0)
      : slob_new_pages(gfp, get_order(size), node);
  if (object === NULL) return NULL;
  SlobCache.allocs.set(cache, SlobCache.allocs.get(cache) + 1);
  if (KmemCache.ctor.get(cache) !== NULL) construct(cache, object, gfp);
  return object;
}

function construct(cache: CachePtr, object: Obj, gfp: number): void {
  if (gfp & __GFP_ZERO && slab_data.warned_ctor_zero === 0) {
    slab_data.warned_ctor_zero = 1;
    WARN_ON(true, `${KmemCache.name.get(cache)}: __GFP_ZERO and a constructor`);
  }
  (ksym_fn(KmemCache.ctor.get(cache)) as Ctor)(object);
}

function free(cache: CachePtr, object: Obj): void {
  if (cache === NULL) return kmalloc_free(object);
  const size = KmemCache.size.get(cache);
  SlobCache.frees.set(cache, SlobCache.frees.get(cache) + 1);
  if (!(KmemCache.flags.get(cache) & SLAB_TYPESAFE_BY_RCU)) return free_object(object, size);
  const footer = object + size - SlobRcu.sizeof;
  SlobRcu.size.set(footer, size);
  slob_data.rcu_units = slob_data.rcu_units + object_units(size);
  call_rcu(SlobRcu.head.at(footer), kmem_rcu_free);
}

const kmem_rcu_free = ksym("kmem_rcu_free", (footer: Obj): void => {
  const size = SlobRcu.size.get(footer);
  slob_data.rcu_units = slob_data.rcu_units - object_units(size);
  free_object(footer + SlobRcu.sizeof - size, size);
});

function free_object(object: Obj, size: number): void {
  if (size < PAGE_SIZE) slob_free(object, size);
  else slob_free_pages(object, get_order(size));
}

function free_bulk(cache: CachePtr, nr: number, objects: Obj[]): void {
  for (let i = nr - 1; i >= 0; i--)
    if (cache === NULL) kfree(objects[i]!);
    else free(cache, objects[i]!);
}

function destroy(cache: CachePtr): number {
  slob_data.lost_units = slob_data.lost_units + live_objects(cache) * object_units(KmemCache.size.get(cache));
  return 0;
}

/** The first cache stays in its static descriptor: no object of it says whose it is. */
function bootstrap([cache]: readonly [CachePtr, CachePtr]): void {
  slob_init();
  slab_data.nomerge = 1;
  slab_data.kmem_cache = cache;
  init_descriptor(cache, "kmem_cache", KmemCache.node.offset, {}, 0);
  create(cache);
  KmemCache.refcount.set(cache, -1);
  list_add(KmemCache.list.at(cache), slab_data.caches);
  slab_data.nr_caches = 1;
}

function live_objects(cache: CachePtr): number {
  return SlobCache.allocs.get(cache) - SlobCache.frees.get(cache);
}

/** A cache has objects, and nothing else. All of SLOB is checked once, with "kmem_cache". */
function inspect(cache: CachePtr, findings?: string[]): SlabInfo {
  if (findings && cache === slab_data.kmem_cache) check_slob(findings);
  const live_objs = live_objects(cache);
  return {
    active_objs: live_objs, num_objs: live_objs, active_slabs: 0, num_slabs: 0, shared_avail: 0, limit: 0,
    batchcount: 0, shared: 0, objects_per_slab: 0, cache_order: 0, live_objs,
  }; // prettier-ignore
}

export const slob: SlabOps = {
  name: "slob",
  create,
  alloc,
  free,
  shrink: () => 0,
  destroy,
  inspect,
  bootstrap,
  no_slabinfo: true,
  shared_pages: () => slob_data.nr_pages,
  kmalloc: {
    max_size: PAGE_SIZE - KMALLOC_MINALIGN - 1,
    alloc: kmalloc_alloc,
    ksize: (object) => align_up(m[(object - KMALLOC_MINALIGN) >> 2]!, 2),
    size_roundup: (size) => align_up(size, KMALLOC_MINALIGN),
    live_objects: () => slob_data.kmalloc_allocs - slob_data.kmalloc_frees,
  },
  free_bulk,
};
