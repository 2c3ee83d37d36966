/**
 * Bootstrap of the slab layer. A descriptor is itself an object of a cache, so the first are made in static ones:
 *
 *   1 DOWN     the allocator makes its first caches in static descriptors               ops.bootstrap
 *   2 PARTIAL  once "kmem_cache" is there, descriptors come from it; then the kmalloc caches
 *   3 UP       everybody's
 *
 * Context: boot, one CPU, after the page allocator is up.
 */
import { NULL } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ram_copy } from "../hal/ram.ts";
import { array } from "../hal/struct.ts";
import { fls } from "../kernel/lib/bitops.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_bool, cmdline_params } from "../kernel/lib/cmdline.ts";
import { init_list_head, list_add } from "../kernel/lib/list.ts";
import { GFP_NOWAIT, __GFP_ZERO } from "./gfp.ts";
import { Slab, mem_map_state, page_is_slab, pfn_to_page } from "./page.ts";
import {
  KMALLOC_CGROUP,
  KMALLOC_DMA,
  KMALLOC_NORMAL,
  KMALLOC_RECLAIM,
  kmalloc_caches,
  kmalloc_slot,
} from "./kmalloc_class.ts";
import {
  KmemCache, SLAB_DOWN, SLAB_UP, for_each_cache, init_descriptor, kmem_cache_alloc, kmem_cache_create, set_slab_ops, slab_data, slab_ops, type CachePtr, type SlabOps,
} from "./slab_common.ts"; // prettier-ignore
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_HWCACHE_ALIGN, SLAB_KMALLOC, SLAB_NO_MERGE, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT,
} from "./slab_layout.ts"; // prettier-ignore
import { init_cache_random_seq } from "./slab_random.ts";
import { MAX_PAGE_ORDER, node_state } from "./zone.ts";

const boot_caches = static_data("boot_kmem_caches", { at: array(KmemCache, 2) });

function read_boot_options(): void {
  slab_data.freelist_random = Number(cmdline_bool(false, "slab_freelist_random"));
  slab_data.freelist_hardened = Number(cmdline_bool(false, "slab_freelist_hardened"));
  slab_data.cpu_partial = Number(cmdline_bool(true, "slub_cpu_partial", "slab_cpu_partial"));
  slab_data.track_full = Number(cmdline_bool(true, "slab_full"));
  slab_data.nomerge = 0;
  slab_data.min_order = 0;
  slab_data.max_order = 3;
  slab_data.min_objects = 0;
  for (const { name, value } of cmdline_params()) read_slab_option(name.replace(/^slub_/, "slab_"), value ?? "");
}

/** Each in the order given: a later one may move what an earlier one has set. What is no number is ignored. */
function read_slab_option(name: string, value: string): void {
  if (name === "slab_nomerge") slab_data.nomerge = 1;
  if (name === "slab_merge") slab_data.nomerge = 0;
  if (!/^\d+$/.test(value)) return;
  const order = Math.min(Number(value), MAX_PAGE_ORDER);
  if (name === "slab_min_objects") slab_data.min_objects = Number(value);
  if (name === "slab_min_order") {
    slab_data.min_order = order;
    slab_data.max_order = Math.max(slab_data.max_order, order);
  }
  if (name === "slab_max_order") {
    slab_data.max_order = order;
    slab_data.min_order = Math.min(slab_data.min_order, order);
  }
}

/** Bytes of a descriptor on this machine. */
export function descriptor_bytes(): number {
  return KmemCache.node.offset + 8 * node_state.nr_node_ids;
}

/** Makes one of the first caches in a static descriptor. */
export function create_boot_cache(cache: CachePtr, name: string, size: number): void {
  init_descriptor(cache, name, size, {}, SLAB_HWCACHE_ALIGN);
  const error = slab_ops().create(cache);
  if (error !== 0) panic(`Creation of kmalloc slab ${name} size=${size} failed. Reason ${error}`);
  KmemCache.refcount.set(cache, -1);
}

/** Moves a static descriptor into a real one: copies it and hands its slabs over. */
export function make_permanent(from: CachePtr): CachePtr {
  const cache = kmem_cache_alloc(slab_data.kmem_cache, GFP_NOWAIT | __GFP_ZERO);
  if (cache === NULL) panic("no memory for the first cache descriptors");
  slab_ops().shrink(from); // so that no CPU holds a slab of the old descriptor
  ram_copy(cache, from, descriptor_bytes());
  for (let pfn = 0; pfn < mem_map_state.max_pfn; pfn++) {
    const slab = pfn_to_page(pfn);
    if (page_is_slab(slab) && Slab.slab_cache.get(slab) === from) Slab.slab_cache.set(slab, cache);
  }
  list_boot_cache(cache);
  return cache;
}

/** Puts one of the first caches on the list of all. */
export function list_boot_cache(cache: CachePtr): void {
  list_add(KmemCache.list.at(cache), slab_data.caches);
  slab_data.nr_caches = slab_data.nr_caches + 1;
}

/** Brings the slab layer up under the allocator `ops`. */
export function kmem_cache_init(ops: SlabOps): void {
  set_slab_ops(ops);
  read_boot_options();
  init_list_head(slab_data.caches);
  init_list_head(slab_data.aliases);
  slab_data.state = SLAB_DOWN;
  ops.bootstrap([boot_caches.at.at(0), boot_caches.at.at(1)]);
  if (!ops.kmalloc) create_kmalloc_caches();
  slab_data.state = SLAB_UP;
  for (const cache of for_each_cache()) init_cache_random_seq(cache);
  ops.late_init?.();
}

/** Size classes in the order in which they are made, and the place of each in the table. */
const CLASSES: readonly (readonly [size: number, index: number])[] = Object.freeze([
  [96, 1], [192, 2], [8, 3], [16, 4], [32, 5], [64, 6], [128, 7], [256, 8], [512, 9], [1024, 10], [2048, 11],
  [4096, 12], [8192, 13],
]); // prettier-ignore
const KINDS: readonly (readonly [type: number, prefix: string, flags: number])[] = Object.freeze([
  [KMALLOC_NORMAL, "kmalloc-", SLAB_NO_MERGE],
  [KMALLOC_RECLAIM, "kmalloc-rcl-", SLAB_RECLAIM_ACCOUNT],
  [KMALLOC_DMA, "dma-kmalloc-", SLAB_CACHE_DMA],
  [KMALLOC_CGROUP, "kmalloc-cg-", SLAB_ACCOUNT],
]);

/** Makes kmalloc's caches, but for those that the allocator needed earlier. Its smallest serves all that is smaller. */
function create_kmalloc_caches(): void {
  const { kmalloc_min = 8 } = slab_ops();
  for (const [type] of KINDS) {
    for (const [size, index] of CLASSES) if (size >= kmalloc_min) create_kmalloc_cache(type, size, index);
    const smallest = kmalloc_caches.get(kmalloc_slot(type, fls(kmalloc_min - 1)));
    for (const [size, index] of CLASSES)
      if (size < kmalloc_min) kmalloc_caches.set(kmalloc_slot(type, index), smallest);
  }
}

/** The kmalloc cache of one kind and class; made, if it is not there yet. */
export function create_kmalloc_cache(type: number, size: number, index: number): CachePtr {
  const slot = kmalloc_slot(type, index);
  const there = kmalloc_caches.get(slot);
  if (there !== NULL) return there;
  const [, prefix, kind] = KINDS[type]!;
  const name = prefix + (size < 1024 ? `${size}` : `${size / 1024}k`);
  const args = { align: Math.max(size & -size, 8), usersize: size };
  const flags = SLAB_KMALLOC | SLAB_PANIC | kind | (slab_ops().kmalloc_flags ?? 0);
  const cache = kmem_cache_create(name, size, args, flags);
  kmalloc_caches.set(slot, cache);
  return cache;
}
