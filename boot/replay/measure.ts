/**
 * What the replay reads off the kernel: counters in RAM, and where an address lies. Everything that knows how SLUB and
 * the page allocator count is here.
 */
import { PAGE_SIZE, type Obj } from "../../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, nr_cpu_ids } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { ram32 } from "../../hal/ram.ts";
import { MAX_NR_ZONES } from "../../mm/gfp.ts";
import { virt_to_cache } from "../../mm/kmalloc.ts";
import {
  PGTY_large_kmalloc, compound_order, page_address, page_type, virt_to_head_page, type PagePtr,
} from "../../mm/page.ts"; // prettier-ignore
import { KmemCache, type CachePtr } from "../../mm/slab_common.ts";
import { SLAB_DEBUG_FLAGS } from "../../mm/slab_layout.ts";
import {
  ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH, KmemCacheCpu, KmemCacheNode,
} from "../../mm/slub_slab.ts"; // prettier-ignore
import { PGALLOC, PGFREE, all_vm_events } from "../../mm/vmstat.ts";
import { NR_FREE_PAGES, PerCpuPages, Zone, for_each_populated_zone, node_state } from "../../mm/zone.ts";

const m = ram32;

/** Where an object lies, found from its address alone. */
export interface Place {
  /** NULL: large kmalloc, pages of its own. */
  readonly cache: CachePtr;
  /** The page that heads its slab or block. */
  readonly head: PagePtr;
  /** Pages of that. */
  readonly pages: number;
  /** Bytes that were given for it. */
  readonly slot: number;
  /** Bytes of them that may be written; 0: only what was asked for, since the cache is debugged. */
  readonly usable: number;
  /** At a whole multiple of the slot size in its slab. */
  readonly on_stride: boolean;
}

export function find_place(object: Obj): Place {
  const cache = virt_to_cache(object);
  const head = virt_to_head_page(object);
  const pages = 1 << compound_order(head);
  const offset = object - page_address(head);
  if (cache === 0) {
    const bytes = pages * PAGE_SIZE;
    return { cache, head, pages, slot: bytes, usable: bytes, on_stride: offset === 0 && is_large_kmalloc(head) };
  }
  const slot = KmemCache.size.get(cache);
  const usable = is_debugged(cache) ? 0 : KmemCache.object_size.get(cache);
  return { cache, head, pages, slot, usable, on_stride: (offset - KmemCache.red_left_pad.get(cache)) % slot === 0 };
}

/** Debugged caches have larger slots, and look at every byte behind what was asked for. */
export function is_debugged(cache: CachePtr): boolean {
  return (KmemCache.flags.get(cache) & SLAB_DEBUG_FLAGS) !== 0;
}

function is_large_kmalloc(head: PagePtr): boolean {
  return page_type(head) === PGTY_large_kmalloc;
}

/** Counts of one CPU that move by one with each call of its allocators. */
function counted(cache: CachePtr, fast: number, slow: number): number {
  const w = (KmemCache.cpu_slab.get(cache) + cpu_regs[CPU_OFFSET] + KmemCacheCpu.stat.offset) >> 2;
  return m[w + fast] + m[w + slow];
}

/** Allocations that this CPU has counted in a cache. No cache counts large kmalloc: there the pages say it is there. */
export function counted_allocs(cache: CachePtr, large: PagePtr): number {
  return cache === 0 ? Number(large !== 0 && is_large_kmalloc(large)) : counted(cache, ALLOC_FASTPATH, ALLOC_SLOWPATH);
}

/** The same of frees: large kmalloc has gone. */
export function counted_frees(cache: CachePtr, large: PagePtr): number {
  return cache === 0 ? Number(!is_large_kmalloc(large)) : counted(cache, FREE_FASTPATH, FREE_SLOWPATH);
}

/** Slabs of a cache on all nodes. */
export function nr_slabs(cache: CachePtr): number {
  let slabs = 0;
  for (let node = 0; node < node_state.nr_node_ids; node++) {
    const part = KmemCache.node.get(cache, node);
    if (part !== 0) slabs += KmemCacheNode.nr_slabs.get(part);
  }
  return slabs;
}

/** Pages that were ever handed out and taken back, and those that are free, with what CPUs keep ready. */
export function page_counters(): { allocs: number; frees: number; free: number } {
  const events = all_vm_events();
  const allocs = events.slice(PGALLOC, PGALLOC + MAX_NR_ZONES).reduce((sum, count) => sum + count, 0);
  const frees = events[PGFREE]!;
  let free = 0;
  for (const zone of for_each_populated_zone()) {
    free += Zone.vm_stat.get(zone, NR_FREE_PAGES);
    const pcp = Zone.per_cpu_pageset.get(zone);
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) free += PerCpuPages.count.get(per_cpu_ptr(pcp, cpu));
  }
  return { allocs, frees, free };
}
