/**
 * A look at the memory of the machine in this realm: what the slab layer holds, and what of it is lent.
 *
 *     pages       NR_SLAB_RECLAIMABLE + NR_SLAB_UNRECLAIMABLE: slabs, SLOB's pages, and large blocks of kmalloc
 *     lent        bytes of these pages that are in callers' hands: the slots of live objects (SLOB: blocks with their
 *                 headers), the allocator's own objects among them, and large blocks whole
 *     unlent      4096 * pages - lent: free slots, ends of slabs, colour, index arrays in slabs: external fragmentation
 *     cached      bytes of free slots that no slab has on its list because a CPU (its active slab, its partial list, its
 *                 array, its sheaf) or an array of a node keeps them: (active - live objects) * slot, over all caches
 *     metadata    boot/compare/parts.ts
 *     free        pages that are free, in the buddy allocator and on the CPUs' lists
 *
 * All of the machine's caches are in it, since an allocator cannot be had for some of them only. It reads and changes
 * nothing.
 */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { PGTY_large_kmalloc, compound_order, mem_map_state, page_type, pfn_to_page, pfn_valid } from "../../mm/page.ts";
import { KmemCache, for_each_cache, get_slabinfo } from "../../mm/slab_common.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { free_pages_counted } from "../figures/frag.ts";
import { allocator_parts } from "./parts.ts";

export interface Look {
  readonly pages: number;
  readonly lent: number;
  readonly unlent: number;
  readonly cached: number;
  readonly metadata: number;
  readonly free: number;
}

/** Pages that the slab layer holds. */
export function slab_pages(): number {
  return global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);
}

/** Bytes of blocks that kmalloc took from the page allocator. */
function large_blocks(): number {
  let bytes = 0;
  for (let pfn = 0; pfn < mem_map_state.max_pfn; pfn++) {
    const page = pfn_to_page(pfn);
    if (pfn_valid(pfn) && page_type(page) === PGTY_large_kmalloc) bytes += PAGE_SIZE << compound_order(page);
  }
  return bytes;
}

/** Looks around. */
export function look(): Look {
  const parts = allocator_parts();
  const pages = slab_pages();
  const lent = parts.lent() + large_blocks();
  let cached = 0;
  for (const cache of for_each_cache()) {
    const { active_objs, live_objs } = get_slabinfo(cache);
    cached += (active_objs - live_objs) * KmemCache.size.get(cache);
  }
  const unlent = pages * PAGE_SIZE - lent;
  return { pages, lent, unlent, cached, metadata: parts.metadata(), free: free_pages_counted() };
}
