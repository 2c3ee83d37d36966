/**
 * The size classes of kmalloc: which cache serves a request.
 *
 *     class      3  4  5  1  6  7   2   8  …  13         bytes    8 16 32 96 64 128 192 256 … 8192
 *     kind       by the flags: DMA, reclaimable, accounted, or none of these
 *     kmalloc_caches [kind * 16 + class]
 *
 * Hot: kmalloc_slab is a look-up in two tables.
 */
import { static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { fls } from "../kernel/lib/bitops.ts";
import { dump_stack } from "../kernel/lib/dump_stack.ts";
import { KERN_WARNING, pr_warn } from "../kernel/lib/printk.ts";
import {
  __GFP_ACCOUNT, __GFP_BITS_MASK, __GFP_DMA, __GFP_DMA32, __GFP_HIGHMEM, __GFP_RECLAIMABLE, format_gfp,
} from "./gfp.ts"; // prettier-ignore
import type { CachePtr } from "./slab_common.ts";

const m = ram32;

/** Kinds of kmalloc caches, and the names they put before the size. */
export const KMALLOC_NORMAL = 0;
export const KMALLOC_RECLAIM = 1;
export const KMALLOC_DMA = 2;
export const KMALLOC_CGROUP = 3;
export const KMALLOC_MAX_CACHE_SIZE = 8192;
const KINDS = __GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT;

/** Index of the size class of each request up to 8192 bytes, by (size + 7) / 8: 96 is class 1, 192 is 2, 2^n is n. */
// eslint-disable-next-line kheap/no-module-state -- a constant table, filled once
const size_index = new Uint8Array(KMALLOC_MAX_CACHE_SIZE / 8 + 1);
for (let words = 1; words < size_index.length; words++) {
  const size = words * 8;
  size_index[words] = size > 64 && size <= 96 ? 1 : size > 128 && size <= 192 ? 2 : Math.max(fls(size - 1), 3);
}
/** Flags that no request for an object may carry: those that name a zone of their own, and unknown bits. */
const GFP_SLAB_BUG_MASK = __GFP_DMA32 | __GFP_HIGHMEM | ~__GFP_BITS_MASK;

/** Takes off a request what makes no sense for objects, with a warning. Context: a slab or a large block is needed. */
export function kmalloc_fix_flags(gfp: number): number {
  const invalid = gfp & GFP_SLAB_BUG_MASK;
  if (invalid === 0) return gfp;
  const fixed = gfp & ~GFP_SLAB_BUG_MASK;
  const show = (flags: number): string => `0x${(flags >>> 0).toString(16)} (${format_gfp(flags)})`;
  pr_warn(`Unexpected gfp: ${show(invalid)}. Fixing up to gfp: ${show(fixed)}. Fix your code!`);
  dump_stack(KERN_WARNING);
  return fixed;
}

/** Filled when the caches are made (mm/slab_init.ts): the cache of each kind and class. */
export const kmalloc_caches = static_data("kmalloc_caches", { at: "*kmem_cache[64]" }).at;
const CACHES = kmalloc_caches.at(0) >> 2;
const NR_TYPE_SLOTS_SHIFT = 4;

/** The place in kmalloc_caches of a kind's class. */
export const kmalloc_slot = (type: number, index: number): number => (type << NR_TYPE_SLOTS_SHIFT) + index;

/** The size class of a request of 1 to 8192 bytes. */
export function kmalloc_index(size: number): number {
  return size_index[(size + 7) >> 3]!;
}

/** The kind of kmalloc cache that a request is served from: DMA before reclaimable before accounted. */
export function kmalloc_type(gfp: number): number {
  if (gfp & __GFP_DMA) return KMALLOC_DMA;
  if (gfp & __GFP_RECLAIMABLE) return KMALLOC_RECLAIM;
  return gfp & __GFP_ACCOUNT ? KMALLOC_CGROUP : KMALLOC_NORMAL;
}

/**
 * The cache that serves `kmalloc(size)`; NULL for 0 and for more than 8192 bytes, and where the allocator has no size
 * classes. Hot path.
 */
export function kmalloc_slab(size: number, gfp: number): CachePtr {
  if (size > 8192) return 0;
  const type = gfp & KINDS ? kmalloc_type(gfp) : 0;
  return m[CACHES + (((type << NR_TYPE_SLOTS_SHIFT) + size_index[(size + 7) >> 3]!) << 1)]!;
}
