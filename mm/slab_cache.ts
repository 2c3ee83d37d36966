/**
 * SLAB: making, shrinking and destroying a cache, and the record that the rest of the kernel calls.
 *
 * The first caches are made in this order; until all of boot's are there, an array has one entry and no node a shared or
 * an alien array:
 *   1 "kmem_cache", in a static descriptor that it keeps, with static nodes
 *   2 the kmalloc cache that nodes come from, with static nodes too
 *   3 the nodes of both move into that cache; then the other kmalloc caches
 *   4 each cache gets its tunables                                                       late_init
 *
 * Boot options: slab_max_order=N (1; 0 with 32 MiB and less), noaliencache, slab_colour=off, slab_stats=on.
 * Unlike Linux: no CONFIG_DEBUG_SLAB. As without it, flags that ask for checks, red zones or poison are dropped.
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { ram_copy } from "../hal/ram.ts";
import { fls } from "../kernel/lib/bitops.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_bool, cmdline_number, cmdline_param } from "../kernel/lib/cmdline.ts";
import { EBUSY } from "../kernel/lib/errno.ts";
import { init_list_head, list_empty, list_splice_init } from "../kernel/lib/list.ts";
import { pr_notice } from "../kernel/lib/printk.ts";
import { GFP_DMA, GFP_DMA32, GFP_KERNEL, __GFP_COMP, __GFP_RECLAIMABLE } from "./gfp.ts";
import { kfree, kmalloc_node, virt_to_cache } from "./kmalloc.ts";
import { free_percpu } from "./percpu.ts";
import { numa_mem_id, set_fast_path, slab_alloc, slab_free } from "./slab.ts";
import { inspect, slabinfo_stats } from "./slab_check.ts";
import { KMALLOC_NORMAL, kmalloc_slab } from "./kmalloc_class.ts";
import {
  KmemCache, SLAB_PARTIAL, for_each_cache, oo_make, slab_data, type CachePtr, type SlabOps,
} from "./slab_common.ts"; // prettier-ignore
import { OFF_SLAB, calculate_slab } from "./slab_geometry.ts";
import { create_boot_cache, create_kmalloc_cache, descriptor_bytes, list_boot_cache } from "./slab_init.ts";
import {
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_DEBUG_FLAGS,
  SLAB_HWCACHE_ALIGN,
  SLAB_RECLAIM_ACCOUNT,
} from "./slab_layout.ts";
import { drain_alien, drain_array, drain_freelist } from "./slab_node.ts";
import { ArrayCache, SlabCache, SlabNode, SlabPage, cache_nodes, cpu_cache_get, get_node } from "./slab_page.ts";
import { free_cache_random_seq, init_cache_random_seq } from "./slab_random.ts";
import { cache_reap } from "./slab_reap.ts";
import { boot_cpucache, enable_cpucache, free_alien_caches, list_heads, memory_nodes, reset_tunables, slab_tunables, slabinfo_write } from "./slab_tune.ts"; // prettier-ignore
import { MAX_PAGE_ORDER, node_state } from "./zone.ts";

/** Boot options. */
const state = static_data("slab_state", {
  full: "u32", // every cache has its tunables
  max_order: "u32",
  colour: "u32",
});
const SMALL_MEMORY_PAGES = 8192; // 32 MiB

function create(cache: CachePtr): number {
  const error = lay_out(cache);
  if (error !== 0) return error;
  const made = state.full ? init_cache_random_seq(cache) || enable_cpucache(cache) : boot_cpucache(cache);
  if (made !== 0) release(cache);
  return made;
}

function lay_out(cache: CachePtr): number {
  const flags = KmemCache.flags.get(cache) & ~SLAB_DEBUG_FLAGS;
  const object_size = KmemCache.object_size.get(cache);
  const has_ctor = KmemCache.ctor.get(cache) !== NULL;
  const geometry = calculate_slab(object_size, KmemCache.align.get(cache), flags, {
    max_order: state.max_order,
    has_ctor,
    index_slot,
  });
  if (typeof geometry === "number") return geometry;
  const { size, num, order, mode, colour, colour_off } = geometry;
  KmemCache.flags.set(cache, flags);
  KmemCache.size.set(cache, size);
  KmemCache.inuse.set(cache, object_size);
  KmemCache.offset.set(cache, 0);
  KmemCache.sheaf_capacity.set(cache, 0);
  KmemCache.oo.set(cache, oo_make(order, num));
  KmemCache.allocflags.set(
    cache,
    __GFP_COMP |
      (flags & SLAB_CACHE_DMA ? GFP_DMA : 0) |
      (flags & SLAB_CACHE_DMA32 ? GFP_DMA32 : 0) |
      (flags & SLAB_RECLAIM_ACCOUNT ? __GFP_RECLAIMABLE : 0),
  );
  SlabCache.mode.set(cache, mode);
  SlabCache.colour.set(cache, state.colour ? colour : 0);
  SlabCache.colour_off.set(cache, colour_off);
  SlabCache.freelist_cache.set(cache, mode === OFF_SLAB ? kmalloc_slab(num, 0) : NULL);
  set_fast_path(cache);
  return 0;
}

/** Slot of the kmalloc cache for an index array of so many bytes; 0 if there is none, or its own arrays lie outside too. */
function index_slot(bytes: number): number {
  const store = kmalloc_slab(bytes, 0);
  return store === NULL || SlabCache.mode.get(store) === OFF_SLAB ? 0 : KmemCache.size.get(store);
}

/** Makes the first caches. */
function bootstrap([cache_cache]: readonly [CachePtr, CachePtr]): void {
  state.full = 0;
  const order = cmdline_number(node_state.totalram_pages > SMALL_MEMORY_PAGES ? 1 : 0, "slab_max_order");
  state.max_order = Math.min(Math.max(order, 0), MAX_PAGE_ORDER);
  state.colour = Number(cmdline_bool(true, "slab_colour"));
  slab_tunables.use_alien_caches = Number(node_state.nr_node_ids > 1 && cmdline_param("noaliencache") === undefined);
  slab_data.kmem_cache = cache_cache;
  create_boot_cache(cache_cache, "kmem_cache", descriptor_bytes());
  list_boot_cache(cache_cache);
  slab_data.state = SLAB_PARTIAL;
  const node_cache = create_kmalloc_cache(KMALLOC_NORMAL, NODE_CACHE_BYTES, fls(NODE_CACHE_BYTES - 1));
  for (const cache of [cache_cache, node_cache]) move_nodes(cache);
}
const NODE_CACHE_BYTES = 128;

/** Moves a cache's nodes from static memory to kmalloc's. */
function move_nodes(cache: CachePtr): void {
  for (const [node, from] of cache_nodes(cache)) {
    const n = kmalloc_node(SlabNode.sizeof, GFP_KERNEL, node);
    if (n === NULL) panic(`no memory for node ${node} of ${KmemCache.name.get(cache)}`);
    ram_copy(n, from, SlabNode.sizeof);
    const [new_heads, old_heads] = [list_heads(n), list_heads(from)];
    for (const [i, head] of new_heads.entries()) {
      init_list_head(head);
      list_splice_init(old_heads[i]!, head);
    }
    KmemCache.node.set(cache, node, n);
  }
}

/** Boot's caches are all there: each gets its tunables. */
function late_init(): void {
  state.full = 1;
  for (const cache of for_each_cache())
    if (enable_cpucache(cache) !== 0) panic(`enable_cpucache failed for ${KmemCache.name.get(cache)}`);
  const alien = slab_tunables.use_alien_caches ? "on" : "off";
  pr_notice(
    `SLAB: colours 64 bytes apart, Order=0-${state.max_order}, alien caches ${alien}, ` +
      `CPUs=${nr_cpu_ids()}, Nodes=${node_state.nr_node_ids}`,
  );
}

/** Gives back what a cache without slabs consists of. */
function release(cache: CachePtr): void {
  free_cache_random_seq(cache);
  free_percpu(SlabCache.cpu_cache.get(cache));
  SlabCache.cpu_cache.set(cache, NULL);
  for (const [node, n] of cache_nodes(cache)) {
    KmemCache.node.set(cache, node, NULL);
    kfree(SlabNode.shared.get(n));
    free_alien_caches(SlabNode.alien.get(n));
    kfree(n);
  }
}

/** Puts all that lies in arrays back into slabs. */
function drain_cpu_caches(cache: CachePtr): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    on_cpu(cpu, () => {
      const ac = cpu_cache_get(cache);
      drain_array(cache, get_node(cache, numa_mem_id()), ac, ArrayCache.avail.get(ac));
    });
  for (const [, n] of cache_nodes(cache)) for (const node of memory_nodes()) drain_alien(cache, n, node);
  for (const [, n] of cache_nodes(cache)) {
    const shared = SlabNode.shared.get(n);
    if (shared !== NULL) drain_array(cache, n, shared, ArrayCache.avail.get(shared));
  }
}

function shrink(cache: CachePtr): number {
  drain_cpu_caches(cache);
  let left = 0;
  for (const [, n] of cache_nodes(cache)) {
    drain_freelist(cache, n, Infinity);
    if (!list_empty(SlabNode.slabs_full.at(n)) || !list_empty(SlabNode.slabs_partial.at(n))) left = 1;
  }
  return left;
}

function destroy(cache: CachePtr): number {
  if (shrink(cache) !== 0) return -EBUSY;
  release(cache);
  return 0;
}

/** Gives objects of any mix of caches back, in the order given. */
function slab_free_bulk(cache: CachePtr, nr: number, objects: Obj[]): void {
  for (let i = 0; i < nr; i++) slab_free(cache || virt_to_cache(objects[i]!), objects[i]!);
}

export const slab: SlabOps = {
  name: "slab",
  create,
  alloc: slab_alloc,
  free: slab_free,
  shrink,
  destroy,
  inspect,
  free_bulk: slab_free_bulk,
  set_fast_path,
  bootstrap,
  late_init,
  kmalloc_min: 32,
  kmalloc_flags: SLAB_HWCACHE_ALIGN,
  merge_by_align: true,
  first_object: (page: Ptr) => SlabPage.s_mem.get(page),
  ksize: (cache) => KmemCache.object_size.get(cache),
  slabinfo_write,
  slabinfo_stats,
  shutdown: reset_tunables,
  reap: cache_reap,
};
