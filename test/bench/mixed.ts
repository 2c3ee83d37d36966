/**
 * A kernel's daily work for the heap, before anything is measured: every entry point of the slab and page allocators,
 * caches of many sizes and kinds, all CPUs. Everything is given back at the end; the caches stay.
 */
import { nr_cpu_ids, on_cpu } from "../../hal/cpu.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import {
  GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOWAIT, GFP_USER, __GFP_RECLAIMABLE, __GFP_ZERO,
} from "../../mm/gfp.ts"; // prettier-ignore
import { kcalloc, kfree, kmalloc, kmalloc_node, krealloc, kzalloc } from "../../mm/kmalloc.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import {
  kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node, kmem_cache_create, kmem_cache_free,
  kmem_cache_free_bulk, kmem_cache_zalloc, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE, SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";

const FLAGS = [SLAB_NO_MERGE, SLAB_NO_MERGE | SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE | SLAB_RECLAIM_ACCOUNT];
const GFP = [GFP_KERNEL, GFP_KERNEL, GFP_ATOMIC, GFP_NOWAIT, GFP_KERNEL_ACCOUNT, GFP_USER];
const KINDS = [0, 0, 0, __GFP_RECLAIMABLE, GFP_DMA, __GFP_ZERO];
const LIVE = 4000;
const BULK = 16;

const nothing = (): void => {};
ksym("bench_ctor", nothing);

/** Gives one object back, whatever it is. */
type Undo = () => void;

export function mixed_operations(count: number, nr_caches: number): void {
  let seed = 12345;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return (seed >>> 8) % below;
  };
  const caches: CachePtr[] = [];
  for (let i = 0; i < nr_caches; i++) {
    const ctor = i % 5 === 0 ? nothing : null;
    caches.push(kmem_cache_create(`bench_mix_${i}`, 16 + ((i * 88) % 3000), 0, FLAGS[i % FLAGS.length]!, ctor));
  }
  const live: Undo[] = [];
  for (let i = 0; i < count; i++) {
    const cpu = random(nr_cpu_ids());
    if (live.length > 0 && random(LIVE) < live.length) {
      const at = random(live.length);
      const undo = live[at]!;
      live[at] = live[live.length - 1]!;
      live.pop();
      on_cpu(cpu, undo);
    } else on_cpu(cpu, () => live.push(one_allocation(caches[random(caches.length)]!, random)));
  }
  for (const undo of live) undo();
}

function one_allocation(cache: CachePtr, random: (below: number) => number): Undo {
  const gfp = GFP[random(GFP.length)]!;
  const kind = KINDS[random(KINDS.length)]!;
  const size = 1 << random(13);
  const order = random(16) === 0 ? random(5) : 0;
  switch (random(10)) {
    case 0:
      return objects(cache, kmem_cache_alloc_node(cache, gfp, random(2)));
    case 1:
      return objects(cache, kmem_cache_zalloc(cache, gfp));
    case 2:
      return bulk(cache, gfp);
    case 3:
      return memory(kmalloc(size + random(size), gfp | kind));
    case 4:
      return memory(random(2) ? kzalloc(size, gfp) : kcalloc(1 + random(4), size, gfp));
    case 5:
      return memory(random(2) ? kmalloc_node(size, gfp, random(2)) : krealloc(kmalloc(size, gfp), 2 * size, gfp));
    case 6:
      return blocks(alloc_pages(gfp | (kind & __GFP_ZERO), order), order);
    case 7:
      return blocks(alloc_pages_node(random(2), gfp, order), order);
    default:
      return objects(cache, kmem_cache_alloc(cache, gfp));
  }
}

const objects =
  (cache: CachePtr, object: number): Undo =>
  () => {
    if (object !== 0) kmem_cache_free(cache, object);
  };

const memory =
  (object: number): Undo =>
  () =>
    kfree(object);

const blocks =
  (page: number, order: number): Undo =>
  () => {
    if (page !== 0) __free_pages(page, order);
  };

function bulk(cache: CachePtr, gfp: number): Undo {
  const many: number[] = [];
  const taken = kmem_cache_alloc_bulk(cache, gfp, BULK, many);
  return () => kmem_cache_free_bulk(cache, taken, many);
}
