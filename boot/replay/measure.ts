/**
 * What the replay reads off the kernel: counters in RAM, and where an address lies. How the slab
 * allocator counts, its view knows (boot/figures/view.ts); how the page allocator does is here.
 */
import { PAGE_SIZE, type Obj, type Ptr } from "../../hal/addr.ts";
import { nr_cpu_ids } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { MAX_NR_ZONES } from "../../mm/gfp.ts";
import { virt_to_cache } from "../../mm/kmalloc.ts";
import {
  PGTY_large_kmalloc, compound_order, page_address, page_type, virt_to_head_page, type PagePtr,
} from "../../mm/page.ts"; // prettier-ignore
import { KmemCache, type CachePtr } from "../../mm/slab_common.ts";
import { SLAB_DEBUG_FLAGS } from "../../mm/slab_layout.ts";
import { PGALLOC, PGFREE, all_vm_events } from "../../mm/vmstat.ts";
import { slab_view } from "../figures/views.ts";
import { NR_FREE_PAGES, PerCpuPages, Zone, for_each_populated_zone } from "../../mm/zone.ts";

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
  /** At a whole multiple of the slot size in its slab; or in no free block, where there are no slabs. */
  readonly on_stride: boolean;
}

/** Finds an object by its address; `wanted` is believed where an address does not tell the cache. */
export function find_place(object: Obj, wanted: CachePtr): Place {
  const block = slab_view().find_block?.(object, wanted);
  if (block) return { ...block, cache: wanted, on_stride: block.in_use };
  const cache = virt_to_cache(object);
  const head = virt_to_head_page(object);
  const pages = 1 << compound_order(head);
  if (cache === 0) {
    const bytes = pages * PAGE_SIZE;
    const on_stride = object === page_address(head) && is_large_kmalloc(head);
    return { cache, head, pages, slot: bytes, usable: bytes, on_stride };
  }
  const slot = KmemCache.size.get(cache);
  const offset = object - slab_view().object_at(cache, head as Ptr, 0);
  const usable = is_debugged(cache) ? 0 : KmemCache.object_size.get(cache);
  return { cache, head, pages, slot, usable, on_stride: offset % slot === 0 };
}

/** Debugged caches have larger slots, and look at every byte behind what was asked for. */
export function is_debugged(cache: CachePtr): boolean {
  return (KmemCache.flags.get(cache) & SLAB_DEBUG_FLAGS) !== 0;
}

function is_large_kmalloc(head: PagePtr): boolean {
  return page_type(head) === PGTY_large_kmalloc;
}

/** Allocations that this CPU has counted in a cache. No cache counts large kmalloc: there the pages say it is there. */
export function counted_allocs(cache: CachePtr, large: PagePtr): number {
  if (cache !== 0) return slab_view().counted_allocs(cache);
  return Number(large !== 0 && is_large_kmalloc(large)) + uncached("counted_allocs");
}

/** The same of frees: large kmalloc has gone. */
export function counted_frees(cache: CachePtr, large: PagePtr): number {
  return cache === 0 ? Number(!is_large_kmalloc(large)) + uncached("counted_frees") : slab_view().counted_frees(cache);
}

/** What kmalloc counts in no cache, and in no slab. */
function uncached(what: "counted_allocs" | "counted_frees"): number {
  return slab_view().find_block ? slab_view()[what](0) : 0;
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
