/**
 * kfree_rcu: gives an object back after a grace period, without a callback of one's own.
 *
 *     kfree_rcu(object, my_struct.rcu.offset)      `rcu` is an RcuHead in the object; its bytes are RCU's from now on
 *
 * An allocator that batches takes the object itself (sheaves: mm/sheaf_cache.ts); else the object waits alone, linked by
 * the RcuHead in it. The callback knows only where that head lies: the object is the slot around it.
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { call_rcu, rcu_barrier, type RcuHeadPtr } from "../kernel/lib/rcu.ts";
import { ZERO_SIZE_PTR, kfree, nearest_obj, virt_to_cache } from "./kmalloc.ts";
import { for_each_cache, slab_ops } from "./slab_common.ts";

/** Frees `object`, of kmalloc or of any cache, after a grace period. `head_offset`: of an RcuHead in it. */
export function kfree_rcu(object: Obj, head_offset: number): void {
  if (object >>> 0 <= ZERO_SIZE_PTR) return;
  const cache = virt_to_cache(object);
  if (cache !== NULL && slab_ops().free_rcu?.(cache, object)) return;
  call_rcu((object + head_offset) as Ptr as RcuHeadPtr, kfree_rcu_callback);
}

const kfree_rcu_callback = ksym("kfree_rcu_callback", (head: RcuHeadPtr): void => kfree(nearest_obj(head as Ptr)));

/** Waits until every object given to kfree_rcu so far is free. Context: may sleep. */
export function kvfree_rcu_barrier(): void {
  for (const cache of for_each_cache()) slab_ops().flush_rcu?.(cache);
  rcu_barrier();
}
