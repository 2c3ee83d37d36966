/**
 * SLUB: making, shrinking, destroying and checking a cache, and the record that the rest of the kernel calls.
 *
 * Invariants, checked by `inspect`:
 *     objects of a slab   = in use + on the slab's own list
 *     live objects        = in use - on the freelist of the CPU that owns the slab - in sheaves
 *     nr_partial          = slabs on the node's partial list = slabs marked PG_workingset
 *     nr_slabs, total_objects = what a walk of node->slabs finds
 *     full tracked: a slab with all objects in use that is no CPU's own is on node->full, and no other is
 */
import { NULL, PAGE_SIZE, hex, px, type NodeId, type Obj } from "../hal/addr.ts";
import { on_cpu, nr_cpu_ids } from "../hal/cpu.ts";
import { per_cpu_ptr } from "../hal/image.ts";
import { ram_zero } from "../hal/ram.ts";
import { EBUSY, EINVAL, ENOMEM } from "../kernel/lib/errno.ts";
import { init_list_head, list_count, list_move, list_next } from "../kernel/lib/list.ts";
import { get_order } from "../kernel/lib/bitops.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_number } from "../kernel/lib/cmdline.ts";
import { pr_err, pr_notice } from "../kernel/lib/printk.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { GFP_DMA, GFP_DMA32, GFP_KERNEL, GFP_NOWAIT, __GFP_COMP, __GFP_RECLAIMABLE } from "./gfp.ts";
import {
  PG_head, PG_workingset, Slab, page_flag, page_is_slab, page_to_nid, page_zonenum, type PagePtr, type SlabPtr,
} from "./page.ts"; // prettier-ignore
import { kmem_buckets_init } from "./kmem_buckets.ts";
import { alloc_percpu, free_percpu } from "./percpu.ts";
import {
  check_sheaves, flush_cpu_sheaves, flush_rcu_sheaf, free_rcu_sheaf, has_sheaves, init_sheaves, release_sheaves,
  shrink_barns,
} from "./sheaf_cache.ts"; // prettier-ignore
import {
  KmemCache, MAX_SHEAF_CAPACITY, NO_FREEPTR, SLAB_DOWN, SLAB_PARTIAL, cache_random, for_each_cache,
  kmem_cache_alloc_node, kmem_cache_free, oo_make, oo_objects, oo_order, slab_data, type CachePtr, type SlabInfo,
  type SlabOps,
} from "./slab_common.ts"; // prettier-ignore
import {
  SLAB_CACHE_DMA, SLAB_CACHE_DMA32, SLAB_KMALLOC, SLAB_RECLAIM_ACCOUNT, calculate_cpu_partial, calculate_min_partial,
  calculate_order, calculate_sizes, cpu_partial_slabs, order_objects,
} from "./slab_layout.ts"; // prettier-ignore
import { free_cache_random_seq, init_cache_random_seq } from "./slab_random.ts";
import {
  count_free_approx, flush_this_cpu, has_cpu_partial, partial_next, partial_slabs, set_fast_path, slub_alloc, slub_alloc_bulk, slub_free,
  slub_free_bulk,
} from "./slub.ts"; // prettier-ignore
import {
  KmemCacheCpu, KmemCacheNode, add_partial_locked, discard_slab, for_each_slab, get_freepointer, inc_slabs_node,
  new_slab, node_of, on_node_partial, remove_partial_locked, slab_address, slab_freelist, slab_frozen, slab_inuse, slab_order,
  slab_take, slab_thaw, slab_push, type CpuPtr, type NodePtr,
} from "./slub_slab.ts"; // prettier-ignore
import { create_boot_cache, descriptor_bytes, make_permanent } from "./slab_init.ts";
import { MAX_PAGE_ORDER, PgData, NODE_DATA, for_each_online_node, node_state } from "./zone.ts";

/** Nodes that have memory, and so a part of every cache. */
export function* nodes_with_memory(): Generator<NodeId> {
  for (const node of for_each_online_node()) if (PgData.node_present_pages.get(NODE_DATA(node)) > 0) yield node;
}

/** The parts of a cache that are there, by node. */
export function* cache_nodes(cache: CachePtr): Generator<[NodeId, NodePtr]> {
  for (const node of nodes_with_memory()) {
    const n = KmemCache.node.get(cache, node);
    if (n !== NULL) yield [node, n];
  }
}

/** Every CPU's part of a cache. */
export function* cache_cpus(cache: CachePtr): Generator<[number, CpuPtr]> {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) yield [cpu, per_cpu_ptr(KmemCache.cpu_slab.get(cache), cpu)];
}

function create(cache: CachePtr): number {
  const error = lay_out(cache);
  if (error !== 0) return error;
  set_cpu_partial(cache, calculate_cpu_partial(KmemCache.size.get(cache), KmemCache.flags.get(cache)));
  KmemCache.min_partial.set(cache, calculate_min_partial(KmemCache.size.get(cache)));
  KmemCache.remote_node_defrag_ratio.set(cache, 1000);
  const cpu_slab = alloc_percpu(KmemCacheCpu.sizeof, 64);
  if (cpu_slab === NULL) return -ENOMEM;
  KmemCache.cpu_slab.set(cache, cpu_slab);
  for (const [, c] of cache_cpus(cache)) ram_zero(c, KmemCacheCpu.sizeof);
  const capacity = KmemCache.sheaf_capacity.get(cache);
  KmemCache.sheaf_capacity.set(cache, 0); // until there are sheaves
  const made = init_nodes(cache) || init_cache_random_seq(cache) || init_sheaves(cache, capacity);
  if (made !== 0) release(cache);
  return made;
}

/**
 * Makes "kmem_cache_node", whose own first nodes are carved out by hand, then "kmem_cache"; copies both into real
 * descriptors and hands their slabs over.
 */
function bootstrap([node_cache, cache_cache]: readonly [CachePtr, CachePtr]): void {
  slab_data.kmem_cache_node = node_cache;
  create_boot_cache(node_cache, "kmem_cache_node", KmemCacheNode.sizeof);
  slab_data.state = SLAB_PARTIAL;
  slab_data.kmem_cache = cache_cache;
  create_boot_cache(cache_cache, "kmem_cache", descriptor_bytes());
  slab_data.kmem_cache = make_permanent(cache_cache);
  slab_data.kmem_cache_node = make_permanent(node_cache);
}

/** Now that kmalloc works: the cache of bucket sets; `kmalloc_sheaf=N` gives kmalloc's own caches sheaves of N objects. */
function late_init(): void {
  const { min_order, max_order, min_objects } = slab_data;
  pr_notice(
    `SLUB: HWalign=64, Order=${min_order}-${max_order}, MinObjects=${min_objects}, ` +
      `CPUs=${nr_cpu_ids()}, Nodes=${node_state.nr_node_ids}`,
  );
  kmem_buckets_init();
  const capacity = cmdline_number(0, "kmalloc_sheaf");
  if (capacity < 0 || capacity > MAX_SHEAF_CAPACITY) return;
  for (const cache of for_each_cache())
    if (KmemCache.flags.get(cache) & SLAB_KMALLOC && init_sheaves(cache, capacity) !== 0)
      panic(`no memory for the sheaves of ${KmemCache.name.get(cache)}`);
}

function lay_out(cache: CachePtr): number {
  const flags = KmemCache.flags.get(cache);
  const custom = KmemCache.offset.get(cache);
  const freeptr = custom === NO_FREEPTR ? undefined : custom;
  const has_ctor = KmemCache.ctor.get(cache) !== NULL;
  const layout = calculate_sizes(
    KmemCache.object_size.get(cache),
    KmemCache.align.get(cache),
    flags,
    has_ctor,
    freeptr,
  );
  const { min_order, max_order, min_objects } = slab_data;
  const order = calculate_order(layout.size, nr_cpu_ids(), { min_order, max_order, min_objects });
  if (order > MAX_PAGE_ORDER) return -EINVAL;
  const min = get_order(layout.size);
  KmemCache.size.set(cache, layout.size);
  KmemCache.inuse.set(cache, layout.inuse);
  KmemCache.offset.set(cache, layout.offset);
  KmemCache.red_left_pad.set(cache, layout.red_left_pad);
  KmemCache.oo.set(cache, oo_make(order, order_objects(order, layout.size)));
  KmemCache.min.set(cache, oo_make(min, order_objects(min, layout.size)));
  KmemCache.random.set(cache, slab_data.freelist_hardened ? cache_random() || 1 : 0);
  KmemCache.allocflags.set(
    cache,
    __GFP_COMP |
      (flags & SLAB_CACHE_DMA ? GFP_DMA : 0) |
      (flags & SLAB_CACHE_DMA32 ? GFP_DMA32 : 0) |
      (flags & SLAB_RECLAIM_ACCOUNT ? __GFP_RECLAIMABLE : 0),
  );
  set_fast_path(cache);
  return 0;
}

/** Sets how many objects a CPU's partial list may hold. */
function set_cpu_partial(cache: CachePtr, objects: number): void {
  const count = has_cpu_partial(cache) ? objects : 0;
  KmemCache.cpu_partial.set(cache, count);
  KmemCache.cpu_partial_slabs.set(cache, cpu_partial_slabs(count, oo_objects(KmemCache.oo.get(cache))));
}

function init_nodes(cache: CachePtr): number {
  for (const node of nodes_with_memory()) {
    if (slab_data.state === SLAB_DOWN) {
      early_node_alloc(cache, node);
      continue;
    }
    const n = kmem_cache_alloc_node(slab_data.kmem_cache_node, GFP_KERNEL, node);
    if (n === NULL) return -ENOMEM;
    init_node(cache, n, node);
  }
  return 0;
}

function init_node(cache: CachePtr, n: NodePtr, node: NodeId): void {
  ram_zero(n, KmemCacheNode.sizeof);
  init_list_head(KmemCacheNode.partial.at(n));
  init_list_head(KmemCacheNode.full.at(n));
  KmemCacheNode.node.set(n, node);
  KmemCache.node.set(cache, node, n);
}

/**
 * The very first nodes: there is no cache to take them from, so they are carved out of the cache's own first slabs. A node
 * without a page to spare has its slab on another, which may have to get its part first.
 */
function early_node_alloc(cache: CachePtr, node: NodeId): void {
  if (KmemCache.node.get(cache, node) !== NULL) return;
  const slab = new_slab(cache, GFP_NOWAIT, node);
  if (slab === NULL) panic(`no memory for the first slab of ${KmemCache.name.get(cache)} on node ${node}`);
  let rest = slab_take(cache, slab);
  slab_thaw(slab);
  for (const nid of [page_to_nid(slab as PagePtr), node]) {
    if (KmemCache.node.get(cache, nid) !== NULL) continue;
    const n = rest;
    rest = get_freepointer(cache, n);
    init_node(cache, n, nid);
  }
  let tail = rest;
  let count = 1;
  for (let next = get_freepointer(cache, tail); next !== NULL; count++) next = get_freepointer(cache, (tail = next));
  slab_push(cache, slab, rest, tail, count);
  inc_slabs_node(node_of(cache, slab), slab);
  add_partial_locked(node_of(cache, slab), slab, false);
}

/** Takes a write to the file cpu_partial and flushes what the CPUs keep; -EINVAL for a cache without such lists. */
export function set_and_flush_cpu_partial(cache: CachePtr, objects: number): number {
  if (objects > 0 && !has_cpu_partial(cache)) return -EINVAL;
  set_cpu_partial(cache, objects);
  flush_all(cache);
  return 0;
}

/** Gives back what a cache without slabs consists of. */
function release(cache: CachePtr): void {
  release_sheaves(cache);
  free_cache_random_seq(cache);
  for (const [node, n] of cache_nodes(cache)) {
    KmemCache.node.set(cache, node, NULL);
    kmem_cache_free(slab_data.kmem_cache_node, n);
  }
  free_percpu(KmemCache.cpu_slab.get(cache));
  KmemCache.cpu_slab.set(cache, NULL);
}

/** Makes every CPU give back what it keeps of a cache: sheaves first, as their objects go to slabs. */
export function flush_all(cache: CachePtr): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => flush_cpu_sheaves(cache));
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => flush_this_cpu(cache));
}

/** Hands to RCU what the CPUs collect for it. */
function flush_rcu(cache: CachePtr): void {
  if (has_sheaves(cache)) for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => flush_rcu_sheaf(cache));
}

/** Slabs with at most this many free objects are sorted, the fullest first. */
const SHRINK_PROMOTE_MAX = 32;

function shrink(cache: CachePtr): number {
  shrink_barns(cache);
  flush_all(cache);
  let left = 0;
  for (const [, n] of cache_nodes(cache)) {
    shrink_node(cache, n);
    if (KmemCacheNode.nr_slabs.get(n) > 0) left = 1;
  }
  return left;
}

function shrink_node(cache: CachePtr, n: NodePtr): void {
  const head = KmemCacheNode.partial.at(n);
  const empty: SlabPtr[] = [];
  const by_free: SlabPtr[][] = Array.from({ length: SHRINK_PROMOTE_MAX + 1 }, () => []);
  spin_lock(KmemCacheNode.list_lock.at(n));
  for (let node = list_next(head); node !== head; node = list_next(node)) {
    const slab: SlabPtr = node - Slab.slab_list.offset;
    const free = Slab.objects.get(slab) - slab_inuse(slab);
    if (free === Slab.objects.get(slab)) empty.push(slab);
    else if (free <= SHRINK_PROMOTE_MAX) by_free[free]!.push(slab);
  }
  for (const slab of empty) remove_partial_locked(n, slab);
  // Moved to the front one by one, so that within equal counts the order turns round, as it does in Linux.
  for (let free = SHRINK_PROMOTE_MAX; free > 0; free--)
    for (const slab of by_free[free]!) list_move(Slab.slab_list.at(slab), head);
  spin_unlock(KmemCacheNode.list_lock.at(n));
  for (const slab of empty) discard_slab(cache, slab);
}

function destroy(cache: CachePtr): number {
  shrink_barns(cache);
  flush_all(cache);
  let left = 0;
  for (const [, n] of cache_nodes(cache)) {
    for (const slab of [...for_each_slab(n)])
      if (slab_inuse(slab) === 0) drop_empty(cache, n, slab);
      else if (on_node_partial(slab)) report_remaining(cache, slab); // nobody lists full slabs
    left += KmemCacheNode.nr_slabs.get(n);
  }
  if (left > 0) return -EBUSY;
  release(cache);
  return 0;
}

function drop_empty(cache: CachePtr, n: NodePtr, slab: SlabPtr): void {
  spin_lock(KmemCacheNode.list_lock.at(n));
  remove_partial_locked(n, slab);
  spin_unlock(KmemCacheNode.list_lock.at(n));
  discard_slab(cache, slab);
}

function report_remaining(cache: CachePtr, slab: SlabPtr): void {
  const name = KmemCache.name.get(cache);
  const start = slab_address(slab);
  pr_err("=".repeat(77));
  pr_err(`BUG ${name} (Not tainted): Objects remaining on __kmem_cache_shutdown()`);
  pr_err("-".repeat(77) + "\n");
  const free = free_objects(cache, slab_freelist(cache, slab), slab, []);
  for (const object of slab_objects(cache, slab))
    if (!free.has(object)) pr_err(`Object 0x${px(object)} @offset=${object - start}`);
  const first = slab_freelist(cache, slab);
  const fp = first === NULL ? "0".repeat(16) : px(first);
  const counts = `objects=${Slab.objects.get(slab)} used=${slab_inuse(slab)}`;
  pr_err(`Slab 0x${px(slab)} ${counts} fp=0x${fp} flags=${format_slab_page_flags(slab)}`);
}

/** `%pGp` of a slab: the flags in use, then node and zone, which Linux keeps in the top bits of the same word. */
function format_slab_page_flags(slab: SlabPtr): string {
  const node = page_to_nid(slab as PagePtr);
  const zone = page_zonenum(slab as PagePtr);
  const names = [
    [PG_head, "head"],
    [PG_workingset, "workingset"],
  ] as const;
  const set = names.filter(([bit]) => page_flag(slab as PagePtr, bit));
  const low = set.reduce((bits, [bit]) => bits | (1 << bit), 0);
  const high = ((node << 26) | (zone << 24)) >>> 0;
  const word = high === 0 ? hex(low) : hex(high) + hex(low, 8);
  return `0x${word}(${[...set.map(([, name]) => name), `node=${node}`, `zone=${zone}`].join("|")})`;
}

/** The addresses of a slab's objects, in order. */
export function* slab_objects(cache: CachePtr, slab: SlabPtr): Generator<Obj> {
  const start = slab_address(slab) + KmemCache.red_left_pad.get(cache);
  for (let i = 0; i < Slab.objects.get(slab); i++) yield start + i * KmemCache.size.get(cache);
}

/** The free objects from `first` on, in list order; a walk that leaves the slab or comes back ends with a finding. */
export function free_objects(cache: CachePtr, first: Obj, slab: SlabPtr, findings: string[]): Set<Obj> {
  const found = new Set<Obj>();
  const start = slab_address(slab) + KmemCache.red_left_pad.get(cache);
  for (let object = first; object !== NULL; object = get_freepointer(cache, object)) {
    const index = (object - start) / KmemCache.size.get(cache);
    const name = KmemCache.name.get(cache);
    if (!Number.isInteger(index) || index < 0 || index >= Slab.objects.get(slab)) {
      findings.push(`${name}: slab ${px(start)}: the free list leads to ${px(object)}, which is no object of it`);
      break;
    }
    if (found.has(object)) {
      findings.push(`${name}: slab ${px(start)}: the free list comes back to ${px(object)}`);
      break;
    }
    found.add(object);
  }
  return found;
}

function inspect(cache: CachePtr, findings?: string[]): SlabInfo {
  const info: SlabInfo = {
    active_objs: 0, num_objs: 0, active_slabs: 0, num_slabs: 0, shared_avail: 0, limit: 0, batchcount: 0, shared: 0,
    objects_per_slab: oo_objects(KmemCache.oo.get(cache)), cache_order: oo_order(KmemCache.oo.get(cache)), live_objs: 0,
  }; // prettier-ignore
  let in_use = 0;
  let free_on_partial = 0;
  for (const [, n] of cache_nodes(cache)) {
    info.num_slabs += KmemCacheNode.nr_slabs.get(n);
    info.num_objs += KmemCacheNode.total_objects.get(n);
    free_on_partial += count_free_approx(n);
    for (const slab of for_each_slab(n)) in_use += slab_inuse(slab);
    if (findings) check_node(cache, n, findings);
  }
  info.active_slabs = info.num_slabs;
  info.active_objs = info.num_objs - free_on_partial;
  for (const [cpu, c] of cache_cpus(cache)) in_use -= check_cpu(cache, cpu, c, findings ?? []);
  info.live_objs = in_use - check_sheaves(cache, findings ?? []);
  return info;
}

/** Checks a CPU's part and returns the free objects on its freelist. */
function check_cpu(cache: CachePtr, cpu: number, c: CpuPtr, findings: string[]): number {
  const name = KmemCache.name.get(cache);
  const slab = KmemCacheCpu.page.get(c);
  const first = KmemCacheCpu.freelist.get(c);
  if (slab === NULL && first !== NULL) findings.push(`${name}: CPU ${cpu} has a freelist and no slab`);
  const free = slab === NULL ? 0 : free_objects(cache, first, slab, findings).size;
  if (slab !== NULL && !slab_frozen(slab)) findings.push(`${name}: CPU ${cpu}'s slab is not frozen`);
  if (slab !== NULL && KmemCacheCpu.base.get(c) !== slab_address(slab))
    findings.push(`${name}: CPU ${cpu} has another slab's address`);
  let expected = 0;
  const list = KmemCacheCpu.partial.get(c);
  if (list !== NULL) expected = partial_slabs(list);
  let counted = 0;
  for (let s = list; s !== NULL && counted <= expected; s = partial_next(s), counted++)
    if (slab_frozen(s) || on_node_partial(s)) findings.push(`${name}: CPU ${cpu}'s partial slab is somebody else's`);
  if (counted !== expected) findings.push(`${name}: CPU ${cpu} counts ${expected} partial slabs and has ${counted}`);
  return free;
}

function check_node(cache: CachePtr, n: NodePtr, findings: string[]): void {
  const name = KmemCache.name.get(cache);
  const node = KmemCacheNode.node.get(n);
  const where = `${name}: node ${node}`;
  let slabs = 0;
  let objects = 0;
  let partial = 0;
  let full = 0;
  for (const slab of for_each_slab(n)) {
    slabs++;
    objects += Slab.objects.get(slab);
    if (on_node_partial(slab)) partial++;
    check_slab(cache, slab, node, findings);
    if (!slab_frozen(slab) && slab_inuse(slab) === Slab.objects.get(slab)) full++;
  }
  const expect = (what: string, counter: number, found: number): void => {
    if (counter !== found) findings.push(`${where}: ${counter} ${what} counted, ${found} found`);
  };
  expect("slabs", KmemCacheNode.nr_slabs.get(n), slabs);
  expect("objects", KmemCacheNode.total_objects.get(n), objects);
  expect("partial slabs", KmemCacheNode.nr_partial.get(n), partial);
  expect("partial slabs", partial, list_count(KmemCacheNode.partial.at(n), slabs + 1));
  if (slab_data.track_full) expect("full slabs", list_count(KmemCacheNode.full.at(n), slabs + 1), full);
}

function check_slab(cache: CachePtr, slab: SlabPtr, node: NodeId, findings: string[]): void {
  const where = `${KmemCache.name.get(cache)}: slab ${px(slab_address(slab))}`;
  if (!page_is_slab(slab as PagePtr)) findings.push(`${where} is no slab page`);
  if (Slab.slab_cache.get(slab) !== cache) findings.push(`${where} belongs to another cache`);
  if (page_to_nid(slab as PagePtr) !== node) findings.push(`${where} lies on another node`);
  const fits = Math.floor((PAGE_SIZE << slab_order(slab)) / KmemCache.size.get(cache));
  if (Slab.objects.get(slab) !== fits) findings.push(`${where} says ${Slab.objects.get(slab)} objects, ${fits} fit`);
  const free = free_objects(cache, slab_freelist(cache, slab), slab, findings).size;
  if (slab_inuse(slab) + free !== Slab.objects.get(slab))
    findings.push(`${where}: ${slab_inuse(slab)} in use and ${free} free of ${Slab.objects.get(slab)}`);
}

export const slub: SlabOps = {
  name: "slub",
  create,
  alloc: slub_alloc,
  free: slub_free,
  shrink,
  destroy,
  inspect,
  alloc_bulk: slub_alloc_bulk,
  free_bulk: slub_free_bulk,
  free_rcu: free_rcu_sheaf,
  flush_rcu,
  set_fast_path,
  bootstrap,
  late_init,
};
