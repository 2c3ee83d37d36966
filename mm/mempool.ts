/**
 * mempool: a reserve of elements, for who must get memory to free memory.
 *
 *     mempool_alloc   1 the allocator below, without pressing    2 the reserve, last in first out
 *                     3 the allocator again, as hard as the caller allows, and the reserve again
 *                     4 a caller that may not sleep: NULL; else it waits for a free
 *     mempool_free    the reserve, while it is not full, and one waiter is woken; else the allocator below
 *
 * The allocator below is a pair of functions (ksyms): alloc(gfp, data) and free(element, data); ready-made for a slab
 * cache, kmalloc and pages. The reserve is filled when the pool is made: max(1, min_nr) elements, all or no pool.
 *
 * Waiting is the caller's part, as nothing here sleeps in the middle of a call: -ERESTARTSYS says "sleep, then call
 * again". Who sleeps on a pool gives it a function that wakes one sleeper (`mempool_set_wake`). Linux's waiters look
 * again after 5 seconds, for memory that came back past the pool; here the sleeper sets its own timer.
 *
 * Locks: pool->lock for the reserve; elements are asked for and given back without it.
 * Unlike Linux: reserved elements are not poisoned (that is slab_debug's).
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { ram32, ram_copy } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { BUG_ON, WARN_ON } from "../kernel/lib/bug.ts";
import { ENOMEM, ERESTARTSYS } from "../kernel/lib/errno.ts";
import { ksym, ksym_fn, type FnPtr } from "../kernel/lib/ksym.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import {
  GFP_KERNEL, __GFP_DIRECT_RECLAIM, __GFP_IO, __GFP_NOMEMALLOC, __GFP_NORETRY, __GFP_NOWARN, __GFP_ZERO,
  gfpflags_allow_blocking,
} from "./gfp.ts"; // prettier-ignore
import { kfree, kmalloc, kmalloc_array, kzalloc } from "./kmalloc.ts";
import { __free_pages, alloc_pages } from "./page_alloc.ts";
import { kmem_cache_alloc, kmem_cache_free, type CachePtr } from "./slab_common.ts";

const m = ram32;

export const Mempool = struct("mempool", {
  lock: SpinLock, // protects the reserve and its size
  min_nr: "u32", // elements the reserve is meant to have
  curr_nr: "u32", // and has
  elements: "*void", // an array of pointers; the last one in use goes out first
  pool_data: "*void", // for the two functions: a cache, a size, an order
  alloc: "*fn",
  free: "*fn",
  wake: "*fn", // wakes one who waits; NULL: nobody does
  nr_waits: "u32", // calls that were told to wait
});
export type MempoolPtr = Ptr<"mempool">;

const slot = (pool: MempoolPtr, index: number): number => (Mempool.elements.get(pool) >> 2) + 2 * index;
const reserve_size = (pool: MempoolPtr): number => Math.max(1, Mempool.min_nr.get(pool));

function add_element(pool: MempoolPtr, element: Obj): void {
  const nr = Mempool.curr_nr.get(pool);
  m[slot(pool, nr)] = element;
  Mempool.curr_nr.set(pool, nr + 1);
}

function remove_element(pool: MempoolPtr): Obj {
  const nr = Mempool.curr_nr.get(pool) - 1;
  Mempool.curr_nr.set(pool, nr);
  return m[slot(pool, nr)]!;
}

const below_alloc = (pool: MempoolPtr, gfp: number): Obj =>
  ksym_fn(Mempool.alloc.get(pool))(gfp, Mempool.pool_data.get(pool)) as Obj;
const below_free = (pool: MempoolPtr, element: Obj): void =>
  void ksym_fn(Mempool.free.get(pool))(element, Mempool.pool_data.get(pool));

/** Makes a pool with its reserve full; NULL without memory. Context: may sleep. */
export function mempool_create(min_nr: number, alloc: FnPtr, free: FnPtr, data: number): MempoolPtr {
  const pool = kzalloc(Mempool.sizeof, GFP_KERNEL);
  if (pool === NULL) return NULL;
  Mempool.min_nr.set(pool, min_nr);
  Mempool.pool_data.set(pool, data);
  Mempool.alloc.set(pool, alloc);
  Mempool.free.set(pool, free);
  Mempool.elements.set(pool, kmalloc_array(reserve_size(pool), 8, GFP_KERNEL));
  if (Mempool.elements.get(pool) === NULL || !fill(pool)) {
    mempool_destroy(pool);
    return NULL;
  }
  return pool;
}

/** Fills the reserve; false if memory runs out before. */
function fill(pool: MempoolPtr): boolean {
  while (Mempool.curr_nr.get(pool) < reserve_size(pool)) {
    const element = below_alloc(pool, GFP_KERNEL);
    if (element === NULL) return false;
    add_element(pool, element);
  }
  return true;
}

/** Gives a pool up, with its reserve. No element may be out. */
export function mempool_destroy(pool: MempoolPtr): void {
  if (pool === NULL) return;
  while (Mempool.curr_nr.get(pool) > 0) below_free(pool, remove_element(pool));
  kfree(Mempool.elements.get(pool));
  kfree(pool);
}

/** An element; NULL for who may not sleep; -ERESTARTSYS: sleep until one is freed, then call again. */
export function mempool_alloc(pool: MempoolPtr, gfp: number): Obj {
  WARN_ON((gfp & __GFP_ZERO) !== 0, "mempool_alloc: __GFP_ZERO is not supported");
  const hard = (gfp & ~__GFP_ZERO) | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
  const soft = hard & ~(__GFP_DIRECT_RECLAIM | __GFP_IO);
  for (const flags of hard === soft ? [soft] : [soft, hard]) {
    const element = below_alloc(pool, flags) || take_reserved(pool);
    if (element !== NULL) return element;
  }
  if (!gfpflags_allow_blocking(gfp)) return NULL;
  Mempool.nr_waits.set(pool, Mempool.nr_waits.get(pool) + 1);
  return -ERESTARTSYS;
}

function take_reserved(pool: MempoolPtr): Obj {
  spin_lock(Mempool.lock.at(pool));
  const element = Mempool.curr_nr.get(pool) > 0 ? remove_element(pool) : NULL;
  spin_unlock(Mempool.lock.at(pool));
  return element;
}

/** Gives an element back; NULL is ignored. Context: any. */
export function mempool_free(element: Obj, pool: MempoolPtr): void {
  if (element === NULL) return;
  spin_lock(Mempool.lock.at(pool));
  const kept = Mempool.curr_nr.get(pool) < reserve_size(pool);
  if (kept) add_element(pool, element);
  spin_unlock(Mempool.lock.at(pool));
  if (!kept) below_free(pool, element);
  else if (Mempool.wake.get(pool) !== NULL) ksym_fn(Mempool.wake.get(pool))(pool);
}

/** Says how one who waits for the pool is woken: `wake(pool)`, after each free that fills the reserve. */
export function mempool_set_wake(pool: MempoolPtr, wake: FnPtr): void {
  Mempool.wake.set(pool, wake);
}

/** Changes the size of the reserve. A larger one may stay short of elements, silently; -ENOMEM if its table fails. */
export function mempool_resize(pool: MempoolPtr, min_nr: number): number {
  BUG_ON(min_nr <= 0, `mempool_resize to ${min_nr}`);
  if (min_nr > Mempool.min_nr.get(pool)) {
    const elements = kmalloc_array(min_nr, 8, GFP_KERNEL);
    if (elements === NULL) return -ENOMEM;
    const old = Mempool.elements.get(pool);
    ram_copy(elements, old, Mempool.curr_nr.get(pool) * 8);
    Mempool.elements.set(pool, elements);
    kfree(old);
  }
  Mempool.min_nr.set(pool, min_nr);
  while (Mempool.curr_nr.get(pool) > min_nr) below_free(pool, remove_element(pool));
  fill(pool);
  return 0;
}

// Ready-made pairs; `data` is the cache, the size, the order.
export const mempool_alloc_slab = ksym("mempool_alloc_slab", (gfp: number, cache: CachePtr) => kmem_cache_alloc(cache, gfp)); // prettier-ignore
export const mempool_free_slab = ksym("mempool_free_slab", (e: Obj, cache: CachePtr) => kmem_cache_free(cache, e));
export const mempool_kmalloc = ksym("mempool_kmalloc", (gfp: number, size: number) => kmalloc(size, gfp));
export const mempool_kfree = ksym("mempool_kfree", (element: Obj) => kfree(element));
export const mempool_alloc_pages = ksym("mempool_alloc_pages", (gfp: number, order: number) => alloc_pages(gfp, order));
export const mempool_free_pages = ksym("mempool_free_pages", (page: Obj, order: number) => __free_pages(page, order));

/** A reserve of objects of a cache; NULL without memory. */
export const mempool_create_slab_pool = (min_nr: number, cache: CachePtr): MempoolPtr =>
  mempool_create(min_nr, mempool_alloc_slab, mempool_free_slab, cache);
/** A reserve of blocks of kmalloc; NULL without memory. */
export const mempool_create_kmalloc_pool = (min_nr: number, size: number): MempoolPtr =>
  mempool_create(min_nr, mempool_kmalloc, mempool_kfree, size);
/** A reserve of blocks of pages; NULL without memory. */
export const mempool_create_page_pool = (min_nr: number, order: number): MempoolPtr =>
  mempool_create(min_nr, mempool_alloc_pages, mempool_free_pages, order);
