/**
 * kmalloc: memory by size, without a cache of one's own.
 *
 *     0               ZERO_SIZE_PTR, an address that nobody may touch
 *     1 … 8192        the smallest size class that holds it: 8 16 32 64 96 128 192 256 512 1k 2k 4k 8k
 *     above 8192      whole pages, a power of two of them, from the page allocator ("large kmalloc")
 *
 * Four kinds of each class: plain, reclaimable (kmalloc-rcl-), DMA (dma-kmalloc-), accounted (kmalloc-cg-), by the flags
 * of the request. A power of two is aligned to itself, 96 to 32 and 192 to 64, large requests to a page.
 *
 * Freeing a pointer twice or one that kmalloc never gave is undefined in a plain kernel, as in Linux.
 */
import { PAGE_SIZE, type NodeId, type Obj } from "../hal/addr.ts";
import { is_kernel_rodata } from "../hal/image.ts";
import { ram32, ram_copy, ram_read_string, ram_write_string, ram_zero } from "../hal/ram.ts";
import { get_order } from "../kernel/lib/bitops.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { locks_held } from "../kernel/lib/spinlock.ts";
import {
  NUMA_NO_NODE, __GFP_ACCOUNT, __GFP_COMP, __GFP_DIRECT_RECLAIM, __GFP_NOFAIL, __GFP_NOMEMALLOC, __GFP_NOWARN,
  __GFP_NO_OBJ_EXT, __GFP_RETRY_MAYFAIL, __GFP_ZERO,
} from "./gfp.ts"; // prettier-ignore
import {
  PGTY_large_kmalloc, PGTY_none, PGTY_slab, Page, Slab, compound_order, page_address, page_to_nid, page_type,
  set_page_type, virt_to_head_page, virt_to_page, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { dump_page } from "./bad_page.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "./page_alloc.ts";
import { KMALLOC_MAX_CACHE_SIZE, kmalloc_fix_flags, kmalloc_slab } from "./kmalloc_class.ts";
import {
  KmemCache, kmem_cache_alloc, kmem_cache_alloc_node, kmem_cache_free, slab_ops, type CachePtr,
} from "./slab_common.ts"; // prettier-ignore
import { SLAB_POISON, SLAB_RED_ZONE, SLAB_STORE_USER, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { NR_SLAB_UNRECLAIMABLE, mod_node_page_state } from "./vmstat.ts";
import { MAX_PAGE_ORDER, NODE_DATA } from "./zone.ts";

const m = ram32;

/** What kmalloc(0) gives: not NULL, and no memory. */
export const ZERO_SIZE_PTR = 16;
/** The largest block of kmalloc, in bytes. */
export const KMALLOC_MAX_SIZE = PAGE_SIZE << MAX_PAGE_ORDER;

const PAGE_TYPE = Page.page_type.offset;
const SLAB_CACHE = Slab.slab_cache.offset;
const SLAB_TYPE = PGTY_slab;
const ZERO_PTR = ZERO_SIZE_PTR;

/**
 * Takes `size` bytes. Hot path.
 *
 * Context: may sleep if `gfp` allows it. Returns NULL without memory, ZERO_SIZE_PTR for size 0.
 */
export function kmalloc(size: number, gfp: number): Obj {
  const cache = kmalloc_slab(size, gfp);
  return cache === 0 ? kmalloc_rest(size, gfp, -1) | 0 : kmem_cache_alloc(cache, gfp);
}

/** As kmalloc, from node `node` if it has memory. */
export function kmalloc_node(size: number, gfp: number, node: NodeId): Obj {
  const cache = kmalloc_slab(size, gfp);
  return cache === 0 ? kmalloc_rest(size, gfp, node) : kmem_cache_alloc_node(cache, gfp, node);
}

const NOLOCK_FLAGS = __GFP_ACCOUNT | __GFP_ZERO | __GFP_NO_OBJ_EXT;

/** As kmalloc, in any context, even in the middle of the allocator: no lock is waited for, nothing is reclaimed. */
export function kmalloc_nolock(size: number, gfp: number, node: NodeId): Obj {
  if (size > KMALLOC_MAX_CACHE_SIZE || WARN_ON((gfp & ~NOLOCK_FLAGS) !== 0, "kmalloc_nolock: flags")) return 0;
  if (locks_held() !== 0) return 0; // one of them may be what a slow path would take
  return kmalloc_node(size, gfp | __GFP_NOWARN | __GFP_NOMEMALLOC, node);
}

/** What no cache serves: nothing, a block of whole pages, or all sizes of an allocator without size classes. */
function kmalloc_rest(size: number, gfp: number, node: NodeId): Obj {
  if (size === 0) return ZERO_SIZE_PTR;
  const { kmalloc } = slab_ops();
  if (kmalloc && size <= kmalloc.max_size) return kmalloc.alloc(size, gfp, node);
  const order = get_order(size);
  const flags = kmalloc_fix_flags(gfp) | __GFP_COMP;
  const page = node === NUMA_NO_NODE ? alloc_pages(flags, order) : alloc_pages_node(node, flags, order);
  if (page === 0) return 0;
  set_page_type(page, PGTY_large_kmalloc);
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_SLAB_UNRECLAIMABLE, 1 << order);
  return page_address(page);
}

/** Takes zeroed memory. */
export function kzalloc(size: number, gfp: number): Obj {
  return kmalloc(size, gfp | __GFP_ZERO);
}

/** Takes an array of `n` elements; NULL if n * size overflows 64 bits. */
export function kmalloc_array(n: number, size: number, gfp: number): Obj {
  return n * size >= 2 ** 64 ? 0 : kmalloc(n * size, gfp);
}

/** Takes a zeroed array. */
export function kcalloc(n: number, size: number, gfp: number): Obj {
  return kmalloc_array(n, size, gfp | __GFP_ZERO);
}

/** Gives memory back; NULL and ZERO_SIZE_PTR are ignored. Hot path. */
export function kfree(object: Obj): void {
  if (object >>> 0 <= ZERO_PTR) return;
  let page = virt_to_page(object);
  let cache = m[(page + SLAB_CACHE) >> 2]!;
  if (cache & 1) {
    page = cache - 1;
    cache = m[(page + SLAB_CACHE) >> 2]!;
  }
  if (m[(page + PAGE_TYPE) >> 2]! >>> 24 === SLAB_TYPE) kmem_cache_free(cache, object);
  else free_large_kmalloc(page, object);
}

function free_large_kmalloc(page: PagePtr, object: Obj): void {
  if (WARN_ON(page_type(page) !== PGTY_large_kmalloc, `kfree of 0x${object.toString(16)}: Not a kmalloc allocation`))
    return dump_page(page, "Not a kmalloc allocation");
  const order = compound_order(page);
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_SLAB_UNRECLAIMABLE, -(1 << order));
  set_page_type(page, PGTY_none);
  __free_pages(page, order);
}

/** The cache that an object of kmalloc or of a cache came from; NULL for pages. */
export function virt_to_cache(object: Obj): CachePtr {
  const page = virt_to_head_page(object);
  return page_type(page) === PGTY_slab ? Slab.slab_cache.get(page as Obj) : 0;
}

/** The object whose slot an address lies in; the block's start, if it is a large one. */
export function nearest_obj(address: Obj): Obj {
  const page = virt_to_head_page(address);
  const cache = virt_to_cache(address);
  if (!cache) return page_address(page);
  const first = slab_ops().first_object?.(page as Obj) ?? page_address(page) + KmemCache.red_left_pad.get(cache);
  const size = KmemCache.size.get(cache);
  return first + Math.floor((address - first) / size) * size;
}

/** Bytes that the caller may use: all of the slot, where nothing of the allocator's lies in it. */
export function slab_ksize(cache: CachePtr): number {
  const { ksize } = slab_ops();
  if (ksize) return ksize(cache);
  const flags = KmemCache.flags.get(cache);
  if (flags & (SLAB_RED_ZONE | SLAB_POISON)) return KmemCache.object_size.get(cache);
  if (flags & (SLAB_TYPESAFE_BY_RCU | SLAB_STORE_USER)) return KmemCache.inuse.get(cache);
  return KmemCache.size.get(cache);
}

/** Usable bytes of what kmalloc gave; 0 for NULL and ZERO_SIZE_PTR. */
export function ksize(object: Obj): number {
  if (object >>> 0 <= ZERO_SIZE_PTR) return 0;
  const cache = virt_to_cache(object);
  if (cache) return slab_ksize(cache);
  const page = virt_to_head_page(object);
  return page_type(page) === PGTY_slab ? slab_ops().kmalloc!.ksize(object) : PAGE_SIZE << compound_order(page);
}

/** Bytes that kmalloc(size) would really give. */
export function kmalloc_size_roundup(size: number): number {
  if (size === 0) return 0;
  const cache = kmalloc_slab(size, 0);
  if (cache !== 0) return KmemCache.object_size.get(cache);
  const { kmalloc } = slab_ops();
  if (kmalloc) return kmalloc.size_roundup(size);
  return size <= KMALLOC_MAX_SIZE ? PAGE_SIZE << get_order(size) : size;
}

/**
 * Changes the size of a block, in place if its slot is large enough. The contents are kept up to the smaller size; with
 * __GFP_ZERO what is behind reads as zero. Size 0 frees. On failure NULL, and the block is as it was.
 */
export function krealloc(object: Obj, size: number, gfp: number): Obj {
  if (size === 0) {
    kfree(object);
    return ZERO_SIZE_PTR;
  }
  if (object >>> 0 <= ZERO_SIZE_PTR) return kmalloc(size, gfp);
  const cache = virt_to_cache(object);
  const had = cache ? KmemCache.object_size.get(cache) : ksize(object);
  if (size <= had) {
    if (gfp & __GFP_ZERO) zero_tail(object, size, had);
    return object;
  }
  const grown = kmalloc(size, gfp);
  if (grown === 0) return 0;
  ram_copy(grown, object, had);
  kfree(object);
  return grown;
}

function zero_tail(object: Obj, from: number, to: number): void {
  const aligned = Math.min((from + 7) & ~7, to);
  for (let i = from; i < aligned; i++) ram_write_string(object + i, "", 1);
  if (to > aligned) ram_zero(object + aligned, to - aligned);
}

/** krealloc of an array; NULL, with the block untouched, if n * size overflows. */
export function krealloc_array(object: Obj, n: number, size: number, gfp: number): Obj {
  return n * size >= 2 ** 64 ? 0 : krealloc(object, n * size, gfp);
}

/** Zeroes all usable bytes, then frees. */
export function kfree_sensitive(object: Obj): void {
  const bytes = ksize(object);
  if (bytes > 0) ram_zero(object, bytes);
  kfree(object);
}

/** Copies a NUL-terminated string that lies in RAM; NULL gives NULL. */
export function kstrdup(string: Obj, gfp: number): Obj {
  if (string === 0) return 0;
  return kstrdup_text(ram_read_string(string, KMALLOC_MAX_SIZE), gfp);
}

/** As kstrdup, but at most `max` characters. */
export function kstrndup(string: Obj, max: number, gfp: number): Obj {
  return string === 0 ? 0 : kstrdup_text(ram_read_string(string, max), gfp);
}

/** A string that nobody changes: itself if it lies in the kernel's read-only data, else a copy. Pair with kfree_const. */
export function kstrdup_const(string: Obj, gfp: number): Obj {
  return is_kernel_rodata(string) ? string : kstrdup(string, gfp);
}

export function kfree_const(string: Obj): void {
  if (!is_kernel_rodata(string)) kfree(string);
}

/** Puts a text into memory of its own, NUL-terminated. */
export function kstrdup_text(text: string, gfp: number): Obj {
  const copy = kmalloc(text.length + 1, gfp);
  if (copy !== 0) ram_write_string(copy, text, text.length + 1);
  return copy;
}

/** Copies `size` bytes into memory of their own. */
export function kmemdup(from: Obj, size: number, gfp: number): Obj {
  const copy = kmalloc(size, gfp);
  if (copy > ZERO_SIZE_PTR) ram_copy(copy, from, size);
  return copy;
}
