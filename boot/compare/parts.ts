/**
 * What each allocator takes for an object, has lent, and keeps beside objects: the part of `compare`'s figures that only
 * the allocator's own structs say.
 *
 *     metadata   SLUB   descriptors, kmem_cache_node, kmem_cache_cpu of every CPU, shuffled orders, sheaves and barns
 *                SLAB   descriptors, kmem_cache_node, array caches (CPU, shared, alien), index arrays
 *                SLOB   descriptors, the 8 bytes in front of each block of kmalloc
 *                buddy  descriptors
 *
 * Each part counts with the slot that it lies in. Page structs are left out: the machine has one for every page, whoever
 * uses it.
 */
import { PAGE_SIZE, align_up, type Obj } from "../../hal/addr.ts";
import { nr_cpu_ids } from "../../hal/cpu.ts";
import { get_order } from "../../kernel/lib/bitops.ts";
import { ksize, virt_to_cache } from "../../mm/kmalloc.ts";
import { KmemCache, for_each_cache, get_slabinfo, oo_objects, slab_data, slab_ops, type CachePtr, type SlabOps } from "../../mm/slab_common.ts"; // prettier-ignore
import { OFF_SLAB, ON_SLAB } from "../../mm/slab_geometry.ts";
import { ArrayCache, SlabCache, SlabCpu, SlabNode, alien_of, array_bytes, cache_nodes as slab_nodes, type NodePtr } from "../../mm/slab_page.ts"; // prettier-ignore
import { SlobPage, slob_data } from "../../mm/slob.ts";
import { slob_pages } from "../../mm/slob_check.ts";
import { NodeBarn, PerCpuSheaves } from "../../mm/sheaf.ts";
import { cache_sheaves, has_sheaves } from "../../mm/sheaf_cache.ts";
import { KmemCacheCpu } from "../../mm/slub_slab.ts";
import { node_state } from "../../mm/zone.ts";
import { cache_nodes } from "../figures/view.ts";

interface Parts {
  /** Bytes of slab pages that an object of a cache takes. */
  slot(cache: CachePtr): number;
  /** Bytes of slab pages (or pages of blocks) that are in callers' hands. */
  lent(): number;
  /** Bytes kept beside objects. */
  metadata(): number;
}

/** Sums a figure over all caches. */
function over_caches(figure: (cache: CachePtr) => number): number {
  let sum = 0;
  for (const cache of for_each_cache()) sum += figure(cache);
  return sum;
}

const slot_of = (cache: CachePtr): number => KmemCache.size.get(cache);
const descriptors = (): number => over_caches(() => slot_of(slab_data.kmem_cache));
const lent_slots = (): number => over_caches((cache) => get_slabinfo(cache).live_objs * slot_of(cache));

/** Bytes of a per-CPU allocation are whole pieces of 16. */
const percpu_bytes = (size: number): number => align_up(size, 16) * nr_cpu_ids();

/** What an object that lies in a slab takes; 0 for NULL. */
const kept = (object: Obj): number => (object === 0 ? 0 : slot_of(virt_to_cache(object)));

/** Sheaves, the CPUs' pointers to them, and barns. */
function sheaf_bytes(cache: CachePtr): number {
  if (!has_sheaves(cache)) return 0;
  const sheaves = [...cache_sheaves(cache)].reduce((sum, [, sheaf]) => sum + kept(sheaf), 0);
  return sheaves + percpu_bytes(PerCpuSheaves.sizeof) + NodeBarn.sizeof * node_state.nr_node_ids;
}

const slub: Parts = {
  slot: slot_of,
  lent: lent_slots,
  metadata: () =>
    descriptors() +
    over_caches((cache) => {
      const nodes = cache_nodes(cache).length * slot_of(slab_data.kmem_cache_node);
      return nodes + percpu_bytes(KmemCacheCpu.sizeof) + kept(KmemCache.random_seq.get(cache)) + sheaf_bytes(cache);
    }),
};

/** Where an index array lies, and what it takes of a slab. */
function index_bytes(cache: CachePtr): number {
  const mode = SlabCache.mode.get(cache);
  if (mode === OFF_SLAB) return slot_of(SlabCache.freelist_cache.get(cache));
  return mode === ON_SLAB ? oo_objects(KmemCache.oo.get(cache)) : 0; // or in an object that is free
}

/** What a node's part of a cache consists of. */
function slab_node_bytes(cache: CachePtr, n: NodePtr): number {
  const table = SlabNode.alien.get(n);
  const aliens = Array.from({ length: node_state.nr_node_ids }, (_, node) => kept(alien_of(n, node)));
  const alien = kept(table) + aliens.reduce((sum, bytes) => sum + bytes, 0);
  return kept(n) + kept(SlabNode.shared.get(n)) + alien + SlabNode.total_slabs.get(n) * index_bytes(cache);
}

const slab: Parts = {
  slot: slot_of,
  lent: lent_slots,
  metadata: () =>
    descriptors() +
    over_caches((cache) => {
      const nodes = [...slab_nodes(cache)].reduce((sum, [, n]) => sum + slab_node_bytes(cache, n), 0);
      return nodes + percpu_bytes(SlabCpu.sizeof - ArrayCache.sizeof + array_bytes(SlabCache.limit.get(cache)));
    }),
};

/** Bytes that kmalloc puts in front of each of its blocks. */
const SLOB_HEADER = 8;

const slob: Parts = {
  slot(cache) {
    const size = slot_of(cache);
    return size < PAGE_SIZE ? align_up(size, 2) : PAGE_SIZE << get_order(size);
  },
  lent() {
    let bytes = slob_data.nr_pages * PAGE_SIZE;
    for (const page of slob_pages()) bytes -= 2 * SlobPage.units.get(page);
    return bytes;
  },
  metadata: () => descriptors() + (slob_data.kmalloc_allocs - slob_data.kmalloc_frees) * SLOB_HEADER,
};

const buddy: Parts = { slot: slot_of, lent: lent_slots, metadata: descriptors };

const PARTS: Readonly<Partial<Record<SlabOps["name"], Parts>>> = { slub, slab, slob, buddy };

/** How to read the allocator that is booted. */
export function allocator_parts(): Parts {
  return PARTS[slab_ops().name]!;
}

/** Bytes that an object takes; `cache` is NULL for kmalloc's, which may lie in a cache, a block of SLOB's, or pages. */
export function slot_bytes(object: Obj, cache: CachePtr): number {
  const owner = cache || virt_to_cache(object);
  return owner === 0 ? ksize(object) : allocator_parts().slot(owner);
}
