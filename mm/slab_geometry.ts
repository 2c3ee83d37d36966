/**
 * SLAB: the arithmetic of a cache, in pure functions of numbers, by Linux 6.1's formulas.
 *
 * A slab's free objects are an array of indices of one byte each, so a slab has at most 255 objects, and objects at least
 * 16 bytes. Where that array lies is tried in this order:
 *
 *   in-object   | colour | object 0 | object 1 | … | last object: the array |     while it is free; a full slab has none
 *   off-slab    | colour | object 0 | object 1 | … | last object |                the array is a block of kmalloc
 *   on-slab     | colour | object 0 | object 1 | … | last object | … | array |    behind the objects
 *
 * What is left over in a slab is used for colours: each new slab starts its objects `colour_off` bytes further on than
 * the one before, so that objects of the same index lie in different cache lines.
 */
import { L1_CACHE_BYTES, PAGE_SIZE, align_up } from "../hal/addr.ts";
import { E2BIG } from "../kernel/lib/errno.ts";
import { SLAB_NOLEAKTRACE, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { MAX_PAGE_ORDER } from "./zone.ts";

export const IN_OBJECT = 0;
export const OFF_SLAB = 1;
export const ON_SLAB = 2;

const SLAB_OBJ_MAX_NUM = 255;
const SLAB_OBJ_MIN_SIZE = 16;

export interface SlabGeometry {
  /** Bytes from one object to the next. */
  readonly size: number;
  /** Objects of a slab. */
  readonly num: number;
  readonly order: number;
  readonly mode: number;
  /** Starts that a slab's objects may have, `colour_off` bytes apart; 0 and 1: always the same. */
  readonly colour: number;
  readonly colour_off: number;
}

export interface SlabRules {
  readonly max_order: number;
  readonly has_ctor: boolean;
  /** Slot size of the kmalloc cache that an index array of so many bytes would come from; 0 where there is none. */
  readonly index_slot: (bytes: number) => number;
}

type Fit = Pick<SlabGeometry, "num" | "order"> & { left: number };

/** Objects in 2^order pages, and the bytes that are left over. */
function fit(order: number, size: number, mode: number): Fit {
  const room = PAGE_SIZE << order;
  const each = mode === ON_SLAB ? size + 1 : size;
  return { num: Math.floor(room / each), order, left: room % each };
}

/** The lowest order that wastes at most an eighth, or the highest allowed; undefined if none fits. */
function calculate_slab_order(
  size: number,
  object_size: number,
  flags: number,
  mode: number,
  rules: SlabRules,
): Fit | undefined {
  // prettier-ignore
  let best: Fit | undefined;
  for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
    const now = fit(order, size, mode);
    if (now.num === 0) continue;
    if (now.num > SLAB_OBJ_MAX_NUM) break;
    if (mode === OFF_SLAB) {
      const slot = rules.index_slot(now.num);
      if (slot === 0 || slot > Math.floor(object_size / 2)) continue;
    }
    best = now;
    if (flags & SLAB_RECLAIM_ACCOUNT || order >= rules.max_order || now.left * 8 <= PAGE_SIZE << order) break;
  }
  return best;
}

/** Lays a cache out; -E2BIG if no slab holds one object. */
export function calculate_slab(
  object_size: number,
  align: number,
  flags: number,
  rules: SlabRules,
): SlabGeometry | number {
  let size = align_up(align_up(object_size, 8), align);
  if (size < SLAB_OBJ_MIN_SIZE) size = align_up(SLAB_OBJ_MIN_SIZE, align);
  const colour_off = Math.max(L1_CACHE_BYTES, align);
  const calc = (mode: number): Fit | undefined => calculate_slab_order(size, object_size, flags, mode, rules);
  const done = ({ num, order, left }: Fit, mode: number): SlabGeometry => {
    return { size, num, order, mode, colour: Math.floor(left / colour_off), colour_off };
  };
  // A free object may hold the array unless what is in it must survive being free.
  const in_object = rules.has_ctor || flags & SLAB_TYPESAFE_BY_RCU ? undefined : calc(IN_OBJECT);
  if (in_object && in_object.num <= object_size) return done(in_object, IN_OBJECT);
  // An array of its own block is worth it only where there is no room for it in the slab.
  const off_slab = flags & SLAB_NOLEAKTRACE ? undefined : calc(OFF_SLAB);
  if (off_slab && off_slab.left < off_slab.num) return done(off_slab, OFF_SLAB);
  const on_slab = calc(ON_SLAB);
  return on_slab ? done(on_slab, ON_SLAB) : -E2BIG;
}

/** Entries of a CPU's array cache, by the size of an object. */
export function default_limit(size: number): number {
  if (size > 131072) return 1;
  if (size > PAGE_SIZE) return 8;
  if (size > 1024) return 24;
  return size > 256 ? 54 : 120;
}
