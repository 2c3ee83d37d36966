/**
 * Address space for vmalloc: which ranges are free, in use, or waiting to be free again.
 *
 *      free tree     all free ranges of [VMALLOC_START, VMALLOC_END), each with the largest size below it
 *        |    ^
 *        |    '--- purge: merged with its neighbours; tables that map nothing any more are given back
 *        v    '--- pool of the node, by size up to 256 pages: handed out again to a CPU of that node, last in, first out
 *      busy  -->  lazy (unmapped, but TLBs may remember)  -->  purge: one TLB flush for all
 *
 * An allocation is served by:
 *     1  the pool of this CPU's vmap node, if it has a range of exactly this size, aligned
 *     2  the free tree: the lowest address that fits
 *     3  a purge, then the free tree again
 *
 * A vmap node has a part of the addresses (64 KiB in turn) for its busy and lazy trees, and a pool that is filled by what
 * its CPUs took. There are as many as CPUs, up to 128; a machine with one CPU has no pools, so its rule is strictly the
 * lowest address. What is freed stays lazy until more than fls(CPUs) * 32 MiB wait: an address is not used again at once.
 *
 *     busy + lazy + pools + free = the whole range, without overlap        (validate_vmap)
 *
 * Locks: node->lock (its trees and pools), free_lock (the free tree). Neither is held while memory is asked for, nor over
 * a flush.
 * Unlike Linux: the purge runs in the entry that went over the limit, not in a worker; it gives empty tables back.
 * See: Linux mm/vmalloc.c; U. Rezki, "Mitigate a vmap lock contention", LWN 2024.
 */
import { NULL, PAGE_SIZE, virt_px, type Ptr, type Virt } from "../hal/addr.ts";
import { nr_cpu_ids, num_online_cpus, smp_processor_id } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { array, struct } from "../hal/struct.ts";
import { fls } from "../kernel/lib/bitops.ts";
import { pr_warn } from "../kernel/lib/printk.ts";
import {
  RbNode, RbRoot, rb_add, rb_erase, rb_first, rb_last, rb_next, rb_prev, type RbPtr, type RbRootPtr,
} from "../kernel/lib/rbtree.ts"; // prettier-ignore
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { GFP_KERNEL, GFP_NOWAIT, __GFP_NOWARN } from "./gfp.ts";
import { VMALLOC_END, VMALLOC_START } from "./kernel_map.ts";
import { kcalloc } from "./kmalloc.ts";
import { PG_LEVEL_1G, free_pgtables, init_mm, pagetable_free_chain, pg_level_base, pg_level_size } from "./pgtable.ts";
import type { PagePtr } from "./page.ts";
import { KMEM_CACHE, kmem_cache_alloc, kmem_cache_free } from "./slab_common.ts";
import { SLAB_PANIC } from "./slab_layout.ts";
import { flush_tlb_kernel_range } from "./tlbflush.ts";

export const VmapArea = struct("vmap_area", {
  va_start: "s64", // written while in no tree
  va_end: "s64",
  rb_node: RbNode, // busy, lazy or free tree: the lock of that tree
  next: "*vmap_area", // pool, or what a purge collects
  subtree_max_size: "u64", // free tree: the largest size at or below this node
  vm: "*vm_struct", // while busy
  vn_id: "u32", // 1 + the vmap node of the CPU that took it; 0: its pool is nobody's
  pad: "u32",
});
export type VmapAreaPtr = Ptr<"vmap_area">;

/** Sizes in pages that have a pool, and addresses that belong to one node in a row. */
const MAX_VA_SIZE_PAGES = 256;
const VMAP_ZONE_SIZE = 16 * PAGE_SIZE;
const MAX_VMAP_NODES = 128;
/** Ranges may wait up to this many pages, times fls(online CPUs). */
const LAZY_PAGES = (32 << 20) / PAGE_SIZE;

/** `first`: address of a vmap_area, the others follow by `next`. There are 256 pools a node, so they are kept small. */
const VmapPool = struct("vmap_pool", { first: "u32", len: "u32" });
export const VmapNode = struct("vmap_node", {
  lock: SpinLock,
  busy: RbRoot,
  lazy: RbRoot,
  pool: array(VmapPool, MAX_VA_SIZE_PAGES), // by size in pages, less 1
});
type VmapNodePtr = Ptr<"vmap_node">;

const vmap = static_data("vmap", {
  free_lock: SpinLock,
  free: RbRoot, // free_lock
  nodes: "*vmap_node", // written at boot, as the next two
  nr_nodes: "u32",
  pad: "u32",
  cache: "*kmem_cache",
  single: VmapNode, // the one node where there is no memory for more, or one CPU
  lazy_pages: "u32", // atomic in Linux: pages that wait to be purged
});

const OFFSET = VmapArea.rb_node.offset;
const area_of = (node: RbPtr): VmapAreaPtr => (node === NULL ? NULL : node - OFFSET);
const node_of = (area: VmapAreaPtr): RbPtr => area + OFFSET;
const by_address = (a: RbPtr, b: RbPtr): boolean => VmapArea.va_start.get(area_of(a)) < VmapArea.va_start.get(area_of(b)); // prettier-ignore
const max_size = (node: RbPtr): number => (node === NULL ? 0 : VmapArea.subtree_max_size.get(area_of(node)));

export function va_size(area: VmapAreaPtr): number {
  return VmapArea.va_end.get(area) - VmapArea.va_start.get(area);
}

function largest(node: RbPtr): number {
  return Math.max(va_size(area_of(node)), max_size(RbNode.left.get(node)), max_size(RbNode.right.get(node)));
}

function augment(node: RbPtr): void {
  VmapArea.subtree_max_size.set(area_of(node), largest(node));
}

/** Boot: all of the range is free. Context: slab is up. */
export function vmalloc_init(): void {
  vmap.cache = KMEM_CACHE(VmapArea, SLAB_PANIC);
  const wanted = Math.min(nr_cpu_ids(), MAX_VMAP_NODES);
  vmap.nodes = wanted > 1 ? kcalloc(wanted, VmapNode.sizeof, GFP_NOWAIT) : NULL;
  vmap.nr_nodes = vmap.nodes === NULL ? 1 : wanted;
  if (vmap.nodes === NULL) vmap.nodes = vmap.single;
  set_free(new_area(0, 0, GFP_KERNEL), VMALLOC_START, VMALLOC_END);
}

function new_area(start: Virt, end: Virt, gfp: number): VmapAreaPtr {
  const area: VmapAreaPtr = kmem_cache_alloc(vmap.cache, gfp);
  if (area === NULL) return NULL;
  VmapArea.va_start.set(area, start);
  VmapArea.va_end.set(area, end);
  VmapArea.next.set(area, NULL);
  VmapArea.vm.set(area, NULL);
  VmapArea.vn_id.set(area, 0);
  return area;
}

function nth_node(id: number): VmapNodePtr {
  return vmap.nodes + id * VmapNode.sizeof;
}

/** The node that an address belongs to; addresses count as unsigned. */
function node_id_of(va: Virt): number {
  return (Math.floor(va / VMAP_ZONE_SIZE) + 2 ** 48) % vmap.nr_nodes;
}

/* The free tree */

/** The lowest free range at or below `node` in which `size` bytes fit, aligned; NULL if there is none. */
function lowest_fit(node: RbPtr, size: number, align: number): VmapAreaPtr {
  if (max_size(node) < size) return NULL;
  const left = lowest_fit(RbNode.left.get(node), size, align);
  if (left !== NULL) return left;
  const area = area_of(node);
  if (aligned_start(area, align) + size <= VmapArea.va_end.get(area)) return area;
  return lowest_fit(RbNode.right.get(node), size, align);
}

function aligned_start(area: VmapAreaPtr, align: number): Virt {
  return Math.ceil(VmapArea.va_start.get(area) / align) * align;
}

/** Gives `area` the lowest range that fits. `spare` is used if the range comes out of the middle of a free one. */
function take_lowest(area: VmapAreaPtr, spare: VmapAreaPtr, size: number, align: number): boolean {
  spin_lock(vmap.free_lock);
  const from = lowest_fit(RbRoot.node.get(vmap.free), size, align);
  if (from !== NULL) {
    const start = aligned_start(from, align);
    const end = VmapArea.va_end.get(from);
    VmapArea.va_start.set(area, start);
    VmapArea.va_end.set(area, start + size);
    rb_erase(vmap.free, node_of(from), augment);
    const is_split = start > VmapArea.va_start.get(from);
    if (is_split) set_free(from, VmapArea.va_start.get(from), start);
    if (start + size < end) set_free(is_split ? spare : from, start + size, end);
    else if (!is_split) kmem_cache_free(vmap.cache, from);
  }
  spin_unlock(vmap.free_lock);
  return from !== NULL;
}

function set_free(area: VmapAreaPtr, start: Virt, end: Virt): void {
  VmapArea.va_start.set(area, start);
  VmapArea.va_end.set(area, end);
  rb_add(vmap.free, node_of(area), by_address, augment);
}

/** Puts a range into the free tree, as one with free neighbours. */
function merge_free(area: VmapAreaPtr): void {
  rb_add(vmap.free, node_of(area), by_address, augment);
  let [start, end] = [VmapArea.va_start.get(area), VmapArea.va_end.get(area)];
  for (const other of [area_of(rb_prev(node_of(area))), area_of(rb_next(node_of(area)))]) {
    if (other === NULL || (VmapArea.va_end.get(other) !== start && VmapArea.va_start.get(other) !== end)) continue;
    start = Math.min(start, VmapArea.va_start.get(other));
    end = Math.max(end, VmapArea.va_end.get(other));
    rb_erase(vmap.free, node_of(other), augment);
    kmem_cache_free(vmap.cache, other);
  }
  rb_erase(vmap.free, node_of(area), augment);
  set_free(area, start, end);
}

/** Makes a chain of ranges free, and gives back the tables that map nothing any more. No TLB knows these addresses. */
function give_back(chain: VmapAreaPtr): void {
  let tables: PagePtr = NULL;
  spin_lock(vmap.free_lock);
  for (let area = chain; area !== NULL;) {
    const next = VmapArea.next.get(area);
    // Tables of this range lie within whole GiBs around it; how much of these is free tells the merged range.
    const low = pg_level_base(VmapArea.va_start.get(area), PG_LEVEL_1G);
    const high = pg_level_base(VmapArea.va_end.get(area) - 1, PG_LEVEL_1G) + pg_level_size(PG_LEVEL_1G);
    merge_free(area);
    const [start, end] = [VmapArea.va_start.get(area), VmapArea.va_end.get(area)];
    tables = free_pgtables(init_mm.tables, Math.max(low, start), Math.min(high, end), tables);
    area = next;
  }
  spin_unlock(vmap.free_lock);
  if (tables === NULL) return;
  flush_tlb_kernel_range(VMALLOC_START, VMALLOC_END);
  pagetable_free_chain(tables);
}

/* Busy ranges */

function find_in(root: RbRootPtr, va: Virt): VmapAreaPtr {
  for (let node = RbRoot.node.get(root); node !== NULL;) {
    const area = area_of(node);
    if (va < VmapArea.va_start.get(area)) node = RbNode.left.get(node);
    else if (va < VmapArea.va_end.get(area)) return area;
    else node = RbNode.right.get(node);
  }
  return NULL;
}

/** The node in whose busy tree the range around `va` is, and the range; it may begin where another node's part is. */
function find_busy(va: Virt): { node: VmapNodePtr; area: VmapAreaPtr } {
  for (let i = 0; i < vmap.nr_nodes; i++) {
    const node = nth_node((node_id_of(va) + i) % vmap.nr_nodes);
    const area = find_in(VmapNode.busy.at(node), va);
    if (area !== NULL) return { node, area };
  }
  return { node: NULL, area: NULL };
}

/** The range in use around an address; NULL if there is none. */
export function find_vmap_area(va: Virt): VmapAreaPtr {
  return find_busy(va).area;
}

/** Takes the range around an address out of the busy ones, for free_vmap_area; NULL if there is none. */
export function unlink_vmap_area(va: Virt): VmapAreaPtr {
  const { node, area } = find_busy(va);
  if (area === NULL) return NULL;
  spin_lock(VmapNode.lock.at(node));
  rb_erase(VmapNode.busy.at(node), node_of(area));
  spin_unlock(VmapNode.lock.at(node));
  return area;
}

function insert(node: VmapNodePtr, root: RbRootPtr, area: VmapAreaPtr): void {
  spin_lock(VmapNode.lock.at(node));
  rb_add(root, node_of(area), by_address);
  spin_unlock(VmapNode.lock.at(node));
}

/** A busy range of `size` bytes (whole pages), aligned; NULL without memory for its struct, or without addresses. */
export function alloc_vmap_area(size: number, align: number, gfp: number, vm: Ptr<"vm_struct">): VmapAreaPtr {
  const id = smp_processor_id() % vmap.nr_nodes;
  let area = vmap.nr_nodes === 1 ? NULL : pool_take(nth_node(id), size, align);
  if (area === NULL) area = alloc_lowest(size, align, gfp);
  if (area === NULL) return NULL;
  VmapArea.vn_id.set(area, vmap.nr_nodes === 1 ? 0 : id + 1);
  VmapArea.vm.set(area, vm);
  const owner = nth_node(node_id_of(VmapArea.va_start.get(area)));
  insert(owner, VmapNode.busy.at(owner), area);
  return area;
}

function alloc_lowest(size: number, align: number, gfp: number): VmapAreaPtr {
  const area = new_area(0, 0, gfp);
  const spare = align > PAGE_SIZE ? new_area(0, 0, gfp) : NULL;
  const enough = area !== NULL && (align <= PAGE_SIZE || spare !== NULL);
  let taken = enough && take_lowest(area, spare, size, align);
  if (enough && !taken) {
    purge_vmap_areas(1);
    taken = take_lowest(area, spare, size, align);
    if (!taken && (gfp & __GFP_NOWARN) === 0)
      pr_warn(
        `vmalloc_node_range for size ${size} failed: Address range restricted to ` +
          `0x${virt_px(VMALLOC_START)} - 0x${virt_px(VMALLOC_END - 1)}`,
      );
  }
  if (spare !== NULL && va_size(spare) === 0) kmem_cache_free(vmap.cache, spare);
  if (taken) return area;
  if (area !== NULL) kmem_cache_free(vmap.cache, area);
  return NULL;
}

/* Lazily freed ranges and pools */

function lazy_max_pages(): number {
  return fls(num_online_cpus()) * LAZY_PAGES;
}

/** Lets a range go that is in no tree and unmapped; it is free for others after the next purge. */
export function free_vmap_area(area: VmapAreaPtr): void {
  const id = VmapArea.vn_id.get(area);
  const node = nth_node(id === 0 ? node_id_of(VmapArea.va_start.get(area)) : id - 1);
  VmapArea.vm.set(area, NULL);
  vmap.lazy_pages = vmap.lazy_pages + va_size(area) / PAGE_SIZE;
  insert(node, VmapNode.lazy.at(node), area);
  if (vmap.lazy_pages > lazy_max_pages()) purge_vmap_areas(0.25);
}

/** The pool of a size; NULL if there is none for it. */
function pool_of(node: VmapNodePtr, size: number): Ptr<"vmap_pool"> {
  const pages = size / PAGE_SIZE;
  return pages <= MAX_VA_SIZE_PAGES ? VmapNode.pool.at(node, pages - 1) : NULL;
}

function pool_take(node: VmapNodePtr, size: number, align: number): VmapAreaPtr {
  const pool = pool_of(node, size);
  const area = pool === NULL ? NULL : VmapPool.first.get(pool);
  if (area === NULL || VmapArea.va_start.get(area) % align !== 0) return NULL;
  VmapPool.first.set(pool, VmapArea.next.get(area));
  VmapPool.len.set(pool, VmapPool.len.get(pool) - 1);
  return area;
}

function pool_add(area: VmapAreaPtr): boolean {
  const id = VmapArea.vn_id.get(area);
  const pool = id === 0 ? NULL : pool_of(nth_node(id - 1), va_size(area));
  if (pool === NULL) return false;
  VmapArea.next.set(area, VmapPool.first.get(pool));
  VmapPool.first.set(pool, area);
  VmapPool.len.set(pool, VmapPool.len.get(pool) + 1);
  return true;
}

/**
 * Ends the wait of all lazily freed ranges: after one flush of all TLBs they go to the pools, or are free. Of what the
 * pools have had, `share` is made free; with 1 nothing goes to the pools either, so that nothing is kept.
 */
export function purge_vmap_areas(share: 0.25 | 1): void {
  let lazy: VmapAreaPtr = NULL;
  let free: VmapAreaPtr = NULL;
  let [start, end] = [VMALLOC_END, VMALLOC_START];
  for (let id = vmap.nr_nodes - 1; id >= 0; id--) {
    const node = nth_node(id);
    spin_lock(VmapNode.lock.at(node));
    for (let i = 0; i < MAX_VA_SIZE_PAGES; i++) free = decay_pool(VmapNode.pool.at(node, i), share, free);
    for (let rb = rb_last(VmapNode.lazy.at(node)); rb !== NULL; rb = rb_prev(rb)) {
      const area = area_of(rb);
      start = Math.min(start, VmapArea.va_start.get(area));
      end = Math.max(end, VmapArea.va_end.get(area));
      VmapArea.next.set(area, lazy);
      lazy = area;
    }
    RbRoot.node.set(VmapNode.lazy.at(node), NULL);
    spin_unlock(VmapNode.lock.at(node));
  }
  if (lazy !== NULL) flush_tlb_kernel_range(start, end);
  for (let area = lazy; area !== NULL;) {
    const next = VmapArea.next.get(area);
    vmap.lazy_pages = vmap.lazy_pages - va_size(area) / PAGE_SIZE;
    if (share === 1 || !pool_add(area)) {
      VmapArea.next.set(area, free);
      free = area;
    }
    area = next;
  }
  give_back(free);
}

/** Moves a share of a pool onto a chain; returns the chain. */
function decay_pool(pool: Ptr<"vmap_pool">, share: number, chain: VmapAreaPtr): VmapAreaPtr {
  let all = chain;
  for (let n = Math.floor(VmapPool.len.get(pool) * share); n > 0; n--) {
    const area = VmapPool.first.get(pool);
    VmapPool.first.set(pool, VmapArea.next.get(area));
    VmapPool.len.set(pool, VmapPool.len.get(pool) - 1);
    VmapArea.next.set(area, all);
    all = area;
  }
  return all;
}

/* For files and checks */

function* in_order(root: RbRootPtr): Generator<VmapAreaPtr> {
  for (let node = rb_first(root); node !== NULL; node = rb_next(node)) yield area_of(node);
}

/** Ranges in use or lazily freed: node by node, by address. */
export function* for_each_vmap_area(kind: "busy" | "lazy"): Generator<VmapAreaPtr> {
  for (let id = 0; id < vmap.nr_nodes; id++) yield* in_order(VmapNode[kind].at(nth_node(id)));
}

/** Adds to `findings` where ranges overlap or are lost, or the free tree is not what it says. */
export function validate_vmap(findings: string[]): void {
  if (vmap.nr_nodes === 0) return; // not set up yet
  const ranges = [...in_order(vmap.free), ...for_each_vmap_area("busy"), ...for_each_vmap_area("lazy")];
  for (let id = 0; id < vmap.nr_nodes; id++)
    for (let i = 0; i < MAX_VA_SIZE_PAGES; i++)
      for (
        let area = VmapPool.first.get(VmapNode.pool.at(nth_node(id), i));
        area !== NULL;
        area = VmapArea.next.get(area)
      )
        // prettier-ignore
        ranges.push(area);
  ranges.sort((a, b) => VmapArea.va_start.get(a) - VmapArea.va_start.get(b));
  let end = VMALLOC_START;
  for (const area of ranges) {
    const start = VmapArea.va_start.get(area);
    if (start !== end)
      findings.push(`vmap: a range starts at ${virt_px(start)}, the one before ends at ${virt_px(end)}`);
    end = VmapArea.va_end.get(area);
  }
  if (end !== VMALLOC_END) findings.push(`vmap: the last range ends at ${virt_px(end)}`);
  let last = NaN;
  for (const area of in_order(vmap.free)) {
    if (VmapArea.va_start.get(area) === last) findings.push(`vmap: two free ranges touch at ${virt_px(last)}`);
    last = VmapArea.va_end.get(area);
    if (max_size(node_of(area)) !== largest(node_of(area)))
      findings.push(`vmap: wrong largest size at ${virt_px(last)}`);
  }
}
