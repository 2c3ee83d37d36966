/**
 * The arithmetic of a slab cache: pure functions of numbers, Linux 6.18's formulas.
 *
 *     | left red zone | object (object_size) | to a word | [free pointer] | [tracks] | padding to align |
 *                     ^ what the caller gets                                  slot = `size` bytes in all
 *
 * A free object's link to the next lies in its middle, where an overflow of a neighbour is least likely to hit it, or
 * behind the object if what is in it must survive being free (a constructor, RCU, poison).
 */
import { PAGE_SIZE, align_down, align_up } from "../hal/addr.ts";
import { clamp, div_round_up, fls, get_order, ilog2 } from "../kernel/lib/bitops.ts";
import { MAX_PAGE_ORDER } from "./zone.ts";

export const SLAB_CONSISTENCY_CHECKS = 0x100;
export const SLAB_RED_ZONE = 0x400;
export const SLAB_POISON = 0x800;
export const SLAB_KMALLOC = 0x1000;
export const SLAB_HWCACHE_ALIGN = 0x2000;
export const SLAB_CACHE_DMA = 0x4000;
export const SLAB_CACHE_DMA32 = 0x8000;
export const SLAB_STORE_USER = 0x10000;
export const SLAB_RECLAIM_ACCOUNT = 0x20000;
export const SLAB_PANIC = 0x40000;
export const SLAB_TYPESAFE_BY_RCU = 0x80000;
export const SLAB_TRACE = 0x200000;
export const SLAB_DEBUG_OBJECTS = 0x400000;
export const SLAB_NOLEAKTRACE = 0x800000;
export const SLAB_NO_MERGE = 0x1000000;
export const SLAB_FAILSLAB = 0x2000000;
export const SLAB_ACCOUNT = 0x4000000;
export const SLAB_NO_USER_FLAGS = 0x10000000;
export const SLAB_SKIP_KFENCE = 0x20000000;
/** A cache with one of these keeps no CPU slab; mm/slab_debug.ts works on it in the slow path. */
export const SLAB_DEBUG_FLAGS = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE;

/** Names of the flags that a creator may give, for the console and for messages. */
export const SLAB_FLAG_NAMES: Readonly<Record<string, number>> = Object.freeze({
  SLAB_CONSISTENCY_CHECKS, SLAB_RED_ZONE, SLAB_POISON, SLAB_KMALLOC, SLAB_HWCACHE_ALIGN, SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32, SLAB_STORE_USER, SLAB_RECLAIM_ACCOUNT, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU, SLAB_TRACE,
  SLAB_DEBUG_OBJECTS, SLAB_NOLEAKTRACE, SLAB_NO_MERGE, SLAB_ACCOUNT, SLAB_NO_USER_FLAGS,
}); // prettier-ignore
/** What kmem_cache_create takes. */
export const SLAB_FLAGS_PERMITTED: number = Object.values(SLAB_FLAG_NAMES).reduce((all, flag) => all | flag, 0);

/** `SLAB_HWCACHE_ALIGN|SLAB_PANIC`; empty for 0. */
export function format_slab_flags(flags: number): string {
  return Object.entries(SLAB_FLAG_NAMES)
    .filter(([, flag]) => flags & flag)
    .map(([name]) => name)
    .join("|");
}

/** Bytes of one alloc or free track (SLAB_STORE_USER). */
export const TRACK_BYTES = 32;
/** A slab's object count has 15 bits. */
export const MAX_OBJS_PER_PAGE = 32767;

/** Alignment of a cache's objects: asked, at least a word, and with HWCACHE_ALIGN a cache line or a fraction of one. */
export function calculate_alignment(flags: number, align: number, size: number): number {
  let wanted = align;
  if (flags & SLAB_HWCACHE_ALIGN) {
    let line = 64;
    while (size <= line / 2) line /= 2;
    wanted = Math.max(wanted, line);
  }
  return align_up(Math.max(wanted, 8), 8);
}

export interface ObjectLayout {
  /** Bytes from one object to the next. */
  readonly size: number;
  /** Where metadata starts: the object rounded up, right red zone included. */
  readonly inuse: number;
  /** Of the free pointer. */
  readonly offset: number;
  readonly red_left_pad: number;
}

/** Lays out a slot. `freeptr` is a custom place for the free pointer of an RCU cache. */
export function calculate_sizes(
  object_size: number,
  align: number,
  flags: number,
  has_ctor: boolean,
  freeptr?: number,
): ObjectLayout {
  const zone = (flags & SLAB_RED_ZONE) !== 0;
  const user = (flags & SLAB_STORE_USER) !== 0;
  const rcu = (flags & SLAB_TYPESAFE_BY_RCU) !== 0;
  let size = align_up(object_size, 8);
  if (zone && size === object_size) size += 8; // room for the right red zone
  const inuse = size;
  let offset: number;
  if (
    (rcu && freeptr === undefined) ||
    flags & SLAB_POISON ||
    has_ctor ||
    (zone && (object_size < 8 || (user && flags & SLAB_KMALLOC)))
  ) {
    offset = size;
    size += 8;
  } else offset = rcu ? freeptr! : align_down(object_size >> 1, 8);
  if (user) size += 2 * TRACK_BYTES + (flags & SLAB_KMALLOC ? 4 : 0);
  let red_left_pad = 0;
  if (zone) {
    red_left_pad = align_up(8, align);
    size += 8 + red_left_pad;
  }
  return { size: align_up(size, align), inuse, offset, red_left_pad };
}

export interface OrderLimits {
  readonly min_order: number;
  readonly max_order: number;
  /** 0: by the number of CPUs. */
  readonly min_objects: number;
}

/** Objects wanted in a slab: the more CPUs, the more of them share a trip to the page allocator. */
export function slab_min_objects(nr_cpus: number): number {
  return 4 * (fls(nr_cpus) + 1);
}

/** Order of a cache's slabs; above MAX_PAGE_ORDER: none fits. */
export function calculate_order(size: number, nr_cpus: number, limits: OrderLimits): number {
  const max_objects = Math.max(Math.floor((PAGE_SIZE << limits.max_order) / size), 1);
  const min_objects = Math.min(limits.min_objects || slab_min_objects(nr_cpus), max_objects);
  const low = Math.max(limits.min_order, get_order(min_objects * size));
  if (Math.floor((PAGE_SIZE << low) / size) > MAX_OBJS_PER_PAGE) return get_order(size * MAX_OBJS_PER_PAGE) - 1;
  // A sixteenth of the slab may be waste; if no order is that good, an eighth, a quarter, a half.
  for (let fraction = 16; fraction > 1; fraction /= 2)
    for (let order = low; order <= limits.max_order; order++) {
      const bytes = PAGE_SIZE << order;
      if (bytes % size <= Math.floor(bytes / fraction)) return order;
    }
  const order = get_order(size);
  return order <= MAX_PAGE_ORDER ? order : MAX_PAGE_ORDER + 1;
}

/** Objects in 2^order pages. */
export function order_objects(order: number, size: number): number {
  return Math.floor((PAGE_SIZE << order) / size);
}

/** Empty slabs that a node keeps. */
export function calculate_min_partial(size: number): number {
  return clamp(ilog2(size) >> 1, 5, 10);
}

/** Free objects that a CPU's partial list may hold, roughly. */
export function calculate_cpu_partial(size: number, flags: number): number {
  if (flags & SLAB_DEBUG_FLAGS) return 0;
  if (size >= PAGE_SIZE) return 6;
  if (size >= 1024) return 24;
  return size >= 256 ? 52 : 120;
}

/** The same limit in slabs, half full. */
export function cpu_partial_slabs(cpu_partial: number, objects: number): number {
  return div_round_up(cpu_partial * 2, objects);
}
