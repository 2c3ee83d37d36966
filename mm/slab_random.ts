/**
 * The order in which a cache links the objects of its new slabs, drawn once a cache (`slab_freelist_random=on`).
 *
 *     random_seq  | 3 | 0 | 4 | 1 | 2 |        a slab's list starts anywhere in it and goes round
 *
 * Who overflows an object then cannot tell which object is handed out next to it. The first caches get theirs once kmalloc
 * works, every later one when it is made; a cache with one object a slab needs none.
 */
import { NULL } from "../hal/addr.ts";
import { struct } from "../hal/struct.ts";
import { ENOMEM } from "../kernel/lib/errno.ts";
import { RANDOM_SLAB, get_random_u32_below } from "../kernel/lib/random.ts";
import { GFP_KERNEL } from "./gfp.ts";
import { kfree, kmalloc } from "./kmalloc.ts";
import { KmemCache, SLAB_UP, oo_objects, slab_data, type CachePtr } from "./slab_common.ts";

/** A cache's random sequence: indices of objects, as many as a slab has; a block of kmalloc. */
export const RandomSeq = struct("random_seq", { at: "u16[32767]" });

/** Draws a cache's sequence, by Fisher and Yates. 0 or -ENOMEM. */
export function init_cache_random_seq(cache: CachePtr): number {
  const count = oo_objects(KmemCache.oo.get(cache));
  if (!slab_data.freelist_random || slab_data.state < SLAB_UP || count < 2) return 0;
  if (KmemCache.random_seq.get(cache) !== NULL) return 0;
  const seq = kmalloc(count * 2, GFP_KERNEL);
  if (seq === NULL) return -ENOMEM;
  for (let i = 0; i < count; i++) RandomSeq.at.set(seq, i, i);
  for (let i = count - 1; i > 0; i--) {
    const j = get_random_u32_below(RANDOM_SLAB, i + 1);
    const swap = RandomSeq.at.get(seq, i);
    RandomSeq.at.set(seq, i, RandomSeq.at.get(seq, j));
    RandomSeq.at.set(seq, j, swap);
  }
  KmemCache.random_seq.set(cache, seq);
  return 0;
}

/** Gives a cache's sequence back. */
export function free_cache_random_seq(cache: CachePtr): void {
  kfree(KmemCache.random_seq.get(cache));
  KmemCache.random_seq.set(cache, NULL);
}
