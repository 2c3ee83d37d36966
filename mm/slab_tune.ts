/**
 * SLAB: the arrays of a cache and its tunables.
 *
 *     limit       entries of a CPU's array: 120, 54, 24, 8 or 1, the larger the objects the fewer
 *     batchcount  objects moved at once: half of that
 *     shared      batches that a node's shared array holds: 8, or none on one CPU and for objects above a page
 *     alien       12 entries for each other node; none with `noaliencache`
 *     free_limit  free objects that a node may keep: (1 + its CPUs) * batchcount + one slab
 *
 * A change first makes all new arrays, so that one that fails changes nothing (in Linux it may stop half-way); then the
 * old ones give back what they hold, each CPU's before each node's.
 * `echo NAME LIMIT BATCHCOUNT SHARED > /proc/slabinfo` changes them while the machine runs.
 *
 * Locks: slab_mutex is held by whoever makes or tunes a cache.
 */
import { NULL, PAGE_SIZE, type NodeId, type Ptr } from "../hal/addr.ts";
import { jiffies } from "../hal/clock.ts";
import { cpu_to_node, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { PERCPU_UNIT_BYTES, per_cpu_ptr, static_data } from "../hal/image.ts";
import { ram_copy, ram_zero } from "../hal/ram.ts";
import { array } from "../hal/struct.ts";
import { EINVAL, ENOMEM } from "../kernel/lib/errno.ts";
import { init_list_head } from "../kernel/lib/list.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { GFP_KERNEL, __GFP_NOWARN, __GFP_ZERO } from "./gfp.ts";
import { kfree, kmalloc_node } from "./kmalloc.ts";
import { alloc_percpu, free_percpu } from "./percpu.ts";
import { numa_mem_id } from "./slab.ts";
import { kmalloc_slab } from "./kmalloc_class.ts";
import { KmemCache, for_each_cache, slab_data, type CachePtr } from "./slab_common.ts";
import { default_limit } from "./slab_geometry.ts";
import { drain_array, free_block, slabs_destroy } from "./slab_node.ts";
import {
  AlienCache, AlienTable, ArrayCache, SlabCache, SlabCpu, SlabNode, alien_array, array_bytes, get_node, slab_num,
  type AlienPtr, type ArrayPtr, type CpuPtr, type NodePtr,
} from "./slab_page.ts"; // prettier-ignore
import { REAPTIMEOUT_NODE } from "./slab_reap.ts";
import { MAX_NUMNODES, NODE_DATA, PgData, for_each_online_node, local_memory_node, node_state } from "./zone.ts";

/** Whether nodes have alien caches; and the nodes of the first two caches. */
export const slab_tunables = static_data("slab_tunables", {
  use_alien_caches: "u32",
  boot_nodes: array(SlabNode, 2 * MAX_NUMNODES),
});
/** Entries of an array while booting. */
const BOOT_CPUCACHE_ENTRIES = 1;
const ALIEN_ENTRIES = 12;
const SHARED_BATCHES = 8;
/** What nobody reads: only a CPU's array is refilled by batches. */
const NO_BATCHCOUNT = 0xbaadf00d;

/** Nodes that have memory, and so a part of every cache. */
export function* memory_nodes(): Generator<NodeId> {
  for (const node of for_each_online_node()) if (PgData.node_present_pages.get(NODE_DATA(node)) > 0) yield node;
}

/** Before `late_init`: arrays of one entry, nodes that keep nothing. 0 or -ENOMEM. */
export function boot_cpucache(cache: CachePtr): number {
  const cpu_cache = alloc_cpu_cache(BOOT_CPUCACHE_ENTRIES, BOOT_CPUCACHE_ENTRIES);
  if (cpu_cache === NULL) return -ENOMEM;
  set_cpu_cache(cache, cpu_cache, BOOT_CPUCACHE_ENTRIES, BOOT_CPUCACHE_ENTRIES);
  for (const node of memory_nodes()) if (!init_cache_node(cache, node)) return -ENOMEM;
  return 0;
}

/** The tunables that suit the size of a cache's objects. */
function default_tunables(cache: CachePtr): readonly [limit: number, batchcount: number, shared: number] {
  const size = KmemCache.size.get(cache);
  const limit = default_limit(size);
  return [limit, (limit + 1) >> 1, size <= PAGE_SIZE && nr_cpu_ids() > 1 ? SHARED_BATCHES : 0];
}

/** Gives a cache its arrays, for the first time as large as they should be. 0 or -ENOMEM. */
export function enable_cpucache(cache: CachePtr): number {
  return do_tune_cpucache(cache, ...default_tunables(cache));
}

/** Gives back to each cache the tunables it had at first. */
export function reset_tunables(): void {
  for (const cache of for_each_cache()) {
    const now = [SlabCache.limit.get(cache), SlabCache.batchcount.get(cache), SlabCache.shared.get(cache)];
    if (now.join() !== default_tunables(cache).join()) enable_cpucache(cache);
  }
}

/**
 * Sets limit, batchcount and shared factor of a cache: new arrays replace the old. 0, or -ENOMEM, and then nothing has
 * changed. Context: slab_mutex.
 */
function do_tune_cpucache(cache: CachePtr, limit: number, batchcount: number, shared: number): number {
  const before = SlabCache.cpu_cache.get(cache);
  const cpu_cache = alloc_cpu_cache(limit, batchcount);
  if (cpu_cache === NULL) return -ENOMEM;
  const arrays = alloc_node_arrays(cache, shared * batchcount, limit);
  if (arrays === undefined) {
    free_percpu(cpu_cache);
    return -ENOMEM;
  }
  set_cpu_cache(cache, cpu_cache, limit, batchcount);
  SlabCache.shared.set(cache, shared);
  if (before !== NULL) retire_cpu_cache(cache, before);
  for (const [node, array] of arrays) set_node_array(cache, node, array);
  return 0;
}

/** An array for each CPU; NULL without memory, or if an array is larger than a CPU's memory. */
function alloc_cpu_cache(limit: number, batchcount: number): CpuPtr {
  const bytes = SlabCpu.sizeof + 8 * limit;
  const cpu_cache: CpuPtr = bytes > PERCPU_UNIT_BYTES ? NULL : alloc_percpu(bytes, 64);
  if (cpu_cache === NULL) return NULL;
  const one_node = [...memory_nodes()].length === 1;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const c = per_cpu_ptr(cpu_cache, cpu);
    SlabCpu.home.set(c, one_node ? -1 : local_memory_node(cpu_to_node(cpu)));
    init_array(SlabCpu.array.at(c), limit, batchcount);
  }
  return cpu_cache;
}

function set_cpu_cache(cache: CachePtr, cpu_cache: CpuPtr, limit: number, batchcount: number): void {
  SlabCache.cpu_cache.set(cache, cpu_cache);
  SlabCache.limit.set(cache, limit);
  SlabCache.batchcount.set(cache, batchcount);
}

/** Makes an array empty. */
function init_array(ac: ArrayPtr, limit: number, batchcount: number): void {
  ArrayCache.avail.set(ac, 0);
  ArrayCache.limit.set(ac, limit);
  ArrayCache.batchcount.set(ac, batchcount);
  ArrayCache.touched.set(ac, 0);
}

/** Empties arrays that were replaced, and gives them back. The counts go on in the new ones. */
function retire_cpu_cache(cache: CachePtr, before: CpuPtr): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const old = per_cpu_ptr(before, cpu);
    const c = per_cpu_ptr(SlabCache.cpu_cache.get(cache), cpu);
    ram_copy(SlabCpu.stat.at(c, 0), SlabCpu.stat.at(old, 0), 4 * SlabCpu.stat.length);
    const ac = SlabCpu.array.at(old);
    on_cpu(cpu, () => drain_array(cache, get_node(cache, numa_mem_id()), ac, ArrayCache.avail.get(ac)));
  }
  free_percpu(before);
}

/** Makes a node's part, if it is not there yet; false without memory. */
function init_cache_node(cache: CachePtr, node: NodeId): boolean {
  if (get_node(cache, node) !== NULL) return true;
  const n = node_memory(cache, node);
  if (n === NULL) return false;
  ram_zero(n, SlabNode.sizeof);
  for (const head of list_heads(n)) init_list_head(head);
  SlabNode.node.set(n, node);
  SlabNode.next_reap.set(n, jiffies() + REAPTIMEOUT_NODE + (cache % REAPTIMEOUT_NODE));
  KmemCache.node.set(cache, node, n as Ptr);
  return true;
}

/** A node's three lists. */
export const list_heads = (n: NodePtr): Ptr<"list_head">[] => [
  SlabNode.slabs_partial.at(n), SlabNode.slabs_full.at(n), SlabNode.slabs_free.at(n),
]; // prettier-ignore

/** From kmalloc; for the first two caches, while it has no class for it, from a static array. */
function node_memory(cache: CachePtr, node: NodeId): NodePtr {
  if (kmalloc_slab(SlabNode.sizeof, GFP_KERNEL) !== NULL) return kmalloc_node(SlabNode.sizeof, GFP_KERNEL, node);
  return slab_tunables.boot_nodes.at((cache === slab_data.kmem_cache ? 0 : MAX_NUMNODES) + node);
}

/** A new shared array for each node, and whatever else it has none of yet; undefined without memory. */
function alloc_node_arrays(cache: CachePtr, entries: number, limit: number): Map<NodeId, ArrayPtr> | undefined {
  const arrays = new Map<NodeId, ArrayPtr>();
  for (const node of memory_nodes()) {
    const made = init_cache_node(cache, node) && init_alien_caches(get_node(cache, node), limit);
    const array = made && entries > 0 ? alloc_arraycache(node, entries) : NULL;
    if (made && (array !== NULL || entries === 0)) arrays.set(node, array);
    else {
      for (const other of arrays.values()) kfree(other);
      return undefined;
    }
  }
  return arrays;
}

/** Gives a node its new shared array; what the old one held goes back to the slabs. */
function set_node_array(cache: CachePtr, node: NodeId, array: ArrayPtr): void {
  const n = get_node(cache, node);
  const before = SlabNode.shared.get(n);
  SlabNode.free_limit.set(n, (1 + nr_cpus_node(node)) * SlabCache.batchcount.get(cache) + slab_num(cache));
  spin_lock(SlabNode.list_lock.at(n));
  const doomed = before === NULL ? NULL : free_block(cache, n, before, ArrayCache.avail.get(before));
  SlabNode.shared.set(n, array);
  spin_unlock(SlabNode.list_lock.at(n));
  slabs_destroy(cache, doomed);
  kfree(before);
}

/** CPUs whose node is `node`. */
function nr_cpus_node(node: NodeId): number {
  let cpus = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (cpu_to_node(cpu) === node) cpus++;
  return cpus;
}

/** A shared array; its own batchcount is never used, and says so. */
function alloc_arraycache(node: NodeId, entries: number): ArrayPtr {
  const ac: ArrayPtr = kmalloc_node(array_bytes(entries), GFP_KERNEL | __GFP_NOWARN, node);
  if (ac !== NULL) init_array(ac, entries, NO_BATCHCOUNT);
  return ac;
}

/** Gives a node an alien cache for each other node, where it has none yet; false without memory. */
function init_alien_caches(n: NodePtr, limit: number): boolean {
  if (!slab_tunables.use_alien_caches || SlabNode.alien.get(n) !== NULL) return true;
  const node = SlabNode.node.get(n);
  const entries = limit > 1 ? ALIEN_ENTRIES : limit;
  const table = kmalloc_node(8 * node_state.nr_node_ids, GFP_KERNEL | __GFP_ZERO, node);
  if (table === NULL) return false;
  for (const other of memory_nodes()) {
    if (other === node) continue;
    const alien: AlienPtr = kmalloc_node(AlienCache.sizeof + 8 * entries, GFP_KERNEL, node);
    if (alien === NULL) {
      free_alien_caches(table);
      return false;
    }
    ram_zero(alien, AlienCache.sizeof);
    init_array(alien_array(alien), entries, NO_BATCHCOUNT);
    AlienTable.at.set(table, other, alien);
  }
  SlabNode.alien.set(n, table);
  return true;
}

/** Frees a table of empty alien caches; NULL does nothing. */
export function free_alien_caches(table: Ptr<"alien_table">): void {
  if (table === NULL) return;
  for (let node = 0; node < node_state.nr_node_ids; node++) kfree(AlienTable.at.get(table, node));
  kfree(table);
}

/**
 * Takes a line `NAME LIMIT BATCHCOUNT SHARED`, as it is written to /proc/slabinfo. Numbers that make no sense are taken
 * and change nothing, as in Linux; -EINVAL for an unknown name and for fewer than three numbers.
 */
export function slabinfo_write(text: string): number {
  const [, name, ...numbers] = /^(\S+)\s+([-+]?\d+)\s+([-+]?\d+)\s+([-+]?\d+)/.exec(text) ?? [];
  if (name === undefined || text.length > MAX_SLABINFO_WRITE) return -EINVAL;
  const [limit, batchcount, shared] = numbers.map(Number) as [number, number, number];
  const cache = [...for_each_cache()].find((other) => KmemCache.name.get(other) === name);
  if (cache === undefined) return -EINVAL;
  if (limit < 1 || batchcount < 1 || batchcount > limit || shared < 0) return 0;
  spin_lock(slab_data.mutex);
  const error = do_tune_cpucache(cache, limit, batchcount, shared);
  spin_unlock(slab_data.mutex);
  return error;
}
const MAX_SLABINFO_WRITE = 128;
