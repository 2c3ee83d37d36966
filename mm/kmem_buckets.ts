/**
 * Sets of size classes apart from kmalloc's ("buckets"), for memory whose size and contents a program chooses.
 *
 *     const set = kmem_buckets_create("msg_msg", SLAB_ACCOUNT, 48, 4048);     msg_msg-8 … msg_msg-8k
 *     const block = kmem_buckets_alloc(set, 200, GFP_KERNEL);                 an object of msg_msg-256
 *     kfree(block);
 *
 * In kmalloc's caches such a block could be made to lie beside, or to follow, an object of the kernel's own; in a set it
 * only ever meets its like. Blocks above 8192 bytes are pages in both cases.
 *
 * `slab_buckets=on|off`; by default as `slab_freelist_hardened`, as Linux is configured. Off: a set is ZERO_SIZE_PTR, and
 * its blocks are kmalloc's. As in Linux, a set is for good, and its caches are aligned to a word only. SLUB's alone: the
 * others were gone when Linux (6.11) got them.
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { cmdline_bool } from "../kernel/lib/cmdline.ts";
import { GFP_KERNEL } from "./gfp.ts";
import { ZERO_SIZE_PTR, kmalloc } from "./kmalloc.ts";
import {
  KMALLOC_MAX_CACHE_SIZE,
  KMALLOC_NORMAL,
  kmalloc_caches,
  kmalloc_index,
  kmalloc_slot,
} from "./kmalloc_class.ts";
import {
  KmemCache, kmem_cache_alloc, kmem_cache_create, kmem_cache_create_usercopy, kmem_cache_destroy, kmem_cache_free, kmem_cache_zalloc, slab_data, type CachePtr, type Ctor,
} from "./slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "./slab_layout.ts";

/** Classes are numbered as kmalloc's. */
const NR_CLASSES = 14;
export const KmemBuckets = struct("kmem_buckets", { cache: "*kmem_cache[14]" });
export type BucketsPtr = Ptr<"kmem_buckets">;

const sets = static_data("kmem_buckets", {
  cache: "*kmem_cache", // of the sets; NULL: there are none
});

/** Boot: makes the cache of the sets, if there are to be any. Context: kmalloc works. */
export function kmem_buckets_init(): void {
  if (cmdline_bool(slab_data.freelist_hardened !== 0, "slab_buckets"))
    sets.cache = kmem_cache_create("kmalloc_buckets", KmemBuckets.sizeof, 0, SLAB_NO_MERGE, null);
}

/**
 * Makes a set of caches `name-8` … `name-8k`. Programs may be copied `usersize` bytes of each object from `useroffset` on,
 * as far as the object reaches. NULL without memory. Context: may sleep.
 */
export function kmem_buckets_create(
  name: string,
  flags: number,
  useroffset: number,
  usersize: number,
  ctor: Ctor | null = null,
): BucketsPtr {
  if (sets.cache === NULL) return ZERO_SIZE_PTR;
  const set = kmem_cache_zalloc(sets.cache, GFP_KERNEL) as Ptr as BucketsPtr;
  if (set === NULL) return NULL;
  for (let index = 0; index < NR_CLASSES; index++) {
    const model = kmalloc_caches.get(kmalloc_slot(KMALLOC_NORMAL, index));
    if (model === NULL) continue;
    const size = KmemCache.object_size.get(model);
    const window = Math.min(Math.max(size - useroffset, 0), usersize);
    const from = window === 0 ? 0 : useroffset;
    const own_name = name + KmemCache.name.get(model).slice("kmalloc".length);
    const cache = kmem_cache_create_usercopy(own_name, size, 0, flags | SLAB_NO_MERGE, from, window, ctor);
    KmemBuckets.cache.set(set, index, cache);
    if (cache !== NULL) continue;
    for (const made of bucket_caches(set)) kmem_cache_destroy(made);
    kmem_cache_free(sets.cache, set);
    return NULL;
  }
  return set;
}

/** The caches of a set. */
export function* bucket_caches(set: BucketsPtr): Generator<CachePtr> {
  for (let index = 0; index < NR_CLASSES; index++) {
    const cache = KmemBuckets.cache.get(set, index);
    if (cache !== NULL) yield cache;
  }
}

/** Takes `size` bytes of a set (NULL: of kmalloc), as kmalloc does; kfree gives them back. Context: as kmalloc. */
export function kmem_buckets_alloc(set: BucketsPtr, size: number, gfp: number): Obj {
  if (set <= ZERO_SIZE_PTR || size === 0 || size > KMALLOC_MAX_CACHE_SIZE) return kmalloc(size, gfp);
  return kmem_cache_alloc(KmemBuckets.cache.get(set, kmalloc_index(size)), gfp);
}
