/**
 * kfree_rcu: gives an object back after a grace period, without a callback of one's own.
 *
 *     kfree_rcu(object, my_struct.rcu.offset)      `rcu` is an RcuHead in the object; its bytes are RCU's from now on
 *
 * An allocator that batches takes the object itself (sheaves: mm/sheaf_cache.ts); else the object waits alone, linked by
 * the RcuHead in it. The callback is told only where that head lies; how far into the object, is kept in the upper half
 * of the head's function pointer, which no address needs.
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { ram32 } from "../hal/ram.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { RcuHead, call_rcu, rcu_barrier, type RcuHeadPtr } from "../kernel/lib/rcu.ts";
import { ZERO_SIZE_PTR, kfree, virt_to_cache } from "./kmalloc.ts";
import { for_each_cache, slab_ops } from "./slab_common.ts";

const m = ram32;
const HEAD_OFFSET = RcuHead.func.offset + 4;

/** Frees `object`, of kmalloc or of any cache, after a grace period. `head_offset`: of an RcuHead in it. */
export function kfree_rcu(object: Obj, head_offset: number): void {
  if (object >>> 0 <= ZERO_SIZE_PTR) return;
  const cache = virt_to_cache(object);
  if (cache !== NULL && slab_ops().free_rcu?.(cache, object)) return;
  const head = (object + head_offset) as Ptr as RcuHeadPtr;
  call_rcu(head, kfree_rcu_callback);
  m[(head + HEAD_OFFSET) >> 2] = head_offset;
}

const kfree_rcu_callback = ksym("kfree_rcu_callback", (head: RcuHeadPtr): void =>
  kfree((head - m[(head + HEAD_OFFSET) >> 2]!) as Ptr),
);

/** Waits until every object given to kfree_rcu so far is free. Context: may sleep. */
export function kvfree_rcu_barrier(): void {
  for (const cache of for_each_cache()) slab_ops().flush_rcu?.(cache);
  rcu_barrier();
}
