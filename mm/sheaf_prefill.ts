/**
 * Prefilled sheaves: objects set aside before a place where an allocation must not fail.
 *
 *     const sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 10);     may fail: nothing has been done yet
 *     … kmem_cache_alloc_from_sheaf(cache, gfp, sheaf) …                 ten times at least; cannot fail
 *     kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);                 what is left becomes the CPU's spare
 *
 * More objects than the cache's sheaves hold get a sheaf of their own size. The objects are the caller's: they count as
 * live. See: mm/sheaf.ts.
 */
import { NULL, type Obj } from "../hal/addr.ts";
import { numa_node_id } from "../hal/cpu.ts";
import { ram_zero } from "../hal/ram.ts";
import { __GFP_NOMEMALLOC, __GFP_ZERO } from "./gfp.ts";
import {
  MAX_FULL_SHEAVES, NodeBarn, PerCpuSheaves, SlabSheaf, alloc_empty_sheaf, barn_take, node_barn, put_full, refill_sheaf,
  sheaf_pop, this_cpu_sheaves, type SheafPtr,
} from "./sheaf.ts"; // prettier-ignore
import { drop_sheaf } from "./sheaf_cache.ts";
import { KmemCache, type CachePtr } from "./slab_common.ts";
import { slabs } from "./slub.ts";
import {
  BARN_GET, BARN_GET_FAIL, SHEAF_PREFILL_FAST, SHEAF_PREFILL_OVERSIZE, SHEAF_PREFILL_SLOW, SHEAF_RETURN_FAST,
  SHEAF_RETURN_SLOW, stat,
} from "./slub_slab.ts"; // prettier-ignore
import { local_memory_node } from "./zone.ts";

const { spare } = PerCpuSheaves;
const local_barn = (cache: CachePtr): number => node_barn(cache, local_memory_node(numa_node_id()));

/** A sheaf with at least `size` objects; NULL without memory. Context: sleeps if gfp allows it. */
export function kmem_cache_prefill_sheaf(cache: CachePtr, gfp: number, size: number): SheafPtr {
  const oversize = size > KmemCache.sheaf_capacity.get(cache);
  if (oversize) stat(cache, SHEAF_PREFILL_OVERSIZE);
  const sheaf = oversize ? alloc_empty_sheaf(cache, gfp, size) : any_sheaf(cache) || alloc_empty_sheaf(cache, gfp);
  if (sheaf === NULL || SlabSheaf.size.get(sheaf) >= size) return sheaf;
  if (refill_sheaf(cache, sheaf, gfp | __GFP_NOMEMALLOC, slabs)) return sheaf;
  drop_sheaf(cache, sheaf);
  return NULL;
}

/** This CPU's spare, else a sheaf of the barn, a full one if there is one. */
function any_sheaf(cache: CachePtr): SheafPtr {
  const pcs = this_cpu_sheaves(cache);
  const second = spare.get(pcs);
  stat(cache, second !== NULL ? SHEAF_PREFILL_FAST : SHEAF_PREFILL_SLOW);
  spare.set(pcs, NULL);
  if (second !== NULL) return second;
  const full = barn_take(local_barn(cache), "full");
  stat(cache, full !== NULL ? BARN_GET : BARN_GET_FAIL);
  return full || barn_take(local_barn(cache), "empty");
}

/** An object of a prefilled sheaf; NULL once it is used up. Context: any. */
export function kmem_cache_alloc_from_sheaf(cache: CachePtr, gfp: number, sheaf: SheafPtr): Obj {
  if (SlabSheaf.size.get(sheaf) === 0) return NULL;
  const object = sheaf_pop(sheaf);
  if (gfp & __GFP_ZERO) ram_zero(object, (KmemCache.object_size.get(cache) + 7) & ~7);
  return object;
}

/** Gives a prefilled sheaf back. It is kept full; where there is no place or no memory for that, it goes to slabs. */
export function kmem_cache_return_sheaf(cache: CachePtr, gfp: number, sheaf: SheafPtr): void {
  if (SlabSheaf.capacity.get(sheaf) !== KmemCache.sheaf_capacity.get(cache)) return drop_sheaf(cache, sheaf);
  const pcs = this_cpu_sheaves(cache);
  if (spare.get(pcs) === NULL) {
    spare.set(pcs, sheaf);
    return stat(cache, SHEAF_RETURN_FAST);
  }
  stat(cache, SHEAF_RETURN_SLOW);
  const room = NodeBarn.nr_full.get(local_barn(cache)) < MAX_FULL_SHEAVES;
  if (room && refill_sheaf(cache, sheaf, gfp | __GFP_NOMEMALLOC, slabs))
    put_full(cache, local_barn(cache), sheaf, slabs);
  else drop_sheaf(cache, sheaf);
}
