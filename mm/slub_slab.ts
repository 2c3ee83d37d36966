/**
 * SLUB's slabs: the word that describes one, the links through its free objects, and the lists it can be on.
 *
 *     slab->counters   31        16 15           1   0
 *                     | first free | objects in use | frozen |      one word, changed in one go
 *
 * The first free object is its offset in 8-byte granules (its index in slabs above 512 KiB), 0xffff for none; from there
 * each free object holds the address of the next. "In use" counts the objects that are not on this list. A frozen slab
 * is some CPU's own: that CPU has taken the whole list, so in use = objects and the list holds what others freed since.
 *
 * Where a slab can be:
 *     a CPU's `page`           frozen
 *     a CPU's partial list     linked by slab_list.next; slab_list.prev counts the slabs from here to the end
 *     node->partial            PG_workingset set
 *     node->full               only if full slabs are tracked (slab_full=on); every object in use and no CPU's own
 * and always on node->slabs, from birth to death, oldest first.
 *
 * Only whole lists are taken from the word and only single objects or runs pushed, so that a compare-and-swap cannot be
 * fooled by a value that went away and came back. Freeing an object twice, or one that is not the cache's, is undefined
 * here, as in Linux without debugging; a hardened cache notices when the head of a list is freed again.
 */
import { NULL, PAGE_SIZE, px, type Obj, type Ptr } from "../hal/addr.ts";
import { cmpxchg } from "../hal/atomic.ts";
import { has_listener, events, type KernelEvents } from "../hal/events.ts";
import { cpu_regs, CPU_OFFSET } from "../hal/cpu.ts";
import { ram32 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { swab32 } from "../kernel/lib/bitops.ts";
import { BUG, WARN_ON } from "../kernel/lib/bug.ts";
import { ksym, ksym_fn } from "../kernel/lib/ksym.ts";
import { ListHead, list_add, list_add_tail, list_del } from "../kernel/lib/list.ts";
import { RANDOM_SLAB, get_random_u32_below } from "../kernel/lib/random.ts";
import { call_rcu, type RcuHeadPtr } from "../kernel/lib/rcu.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import {
  GFP_RECLAIM_MASK, NUMA_NO_NODE, __GFP_COMP, __GFP_DIRECT_RECLAIM, __GFP_HARDWALL, __GFP_NOFAIL, __GFP_NOMEMALLOC,
  __GFP_NORETRY, __GFP_NOWARN, __GFP_RECLAIM, __GFP_THISNODE, __GFP_ZERO,
} from "./gfp.ts"; // prettier-ignore
import {
  PG_workingset, PGTY_none, PGTY_slab, Page, Slab, clear_page_flag, compound_order, page_address, page_flag, page_to_nid,
  mem_map_state, set_page_flag, set_page_type, virt_to_head_page, type PagePtr, type SlabPtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, alloc_pages_node } from "./page_alloc.ts";
import { kmalloc_fix_flags } from "./kmalloc_class.ts";
import { KmemCache, oo_objects, oo_order, slab_data, type CachePtr } from "./slab_common.ts";
import { SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { RandomSeq } from "./slab_random.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA } from "./zone.ts";

const m = ram32;
const r = cpu_regs;

/** Counters of a cache, one set a CPU, in the order of Linux's statistics files. */
export const STAT_NAMES = Object.freeze([
  "alloc_fastpath", "alloc_slowpath", "free_fastpath", "free_slowpath", "free_frozen", "free_add_partial",
  "free_remove_partial", "alloc_from_partial", "alloc_slab", "alloc_refill", "alloc_node_mismatch", "free_slab",
  "cpuslab_flush", "deactivate_full", "deactivate_empty", "deactivate_to_head", "deactivate_to_tail",
  "deactivate_remote_frees", "deactivate_bypass", "order_fallback", "cmpxchg_double_fail", "cmpxchg_double_cpu_fail",
  "cpu_partial_alloc", "cpu_partial_free", "cpu_partial_node", "cpu_partial_drain", "alloc_cpu_sheaf", "free_cpu_sheaf",
  "free_rcu_sheaf", "free_rcu_sheaf_fail", "sheaf_flush", "sheaf_refill", "sheaf_alloc", "sheaf_free", "barn_get",
  "barn_get_fail", "barn_put", "barn_put_fail", "sheaf_prefill_fast", "sheaf_prefill_slow", "sheaf_prefill_oversize",
  "sheaf_return_fast", "sheaf_return_slow",
] as const); // prettier-ignore
export const ALLOC_FASTPATH = 0;
export const ALLOC_SLOWPATH = 1;
export const FREE_FASTPATH = 2;
export const FREE_SLOWPATH = 3;
export const FREE_FROZEN = 4;
export const FREE_ADD_PARTIAL = 5;
export const FREE_REMOVE_PARTIAL = 6;
export const ALLOC_FROM_PARTIAL = 7;
export const ALLOC_SLAB = 8;
export const ALLOC_REFILL = 9;
export const ALLOC_NODE_MISMATCH = 10;
export const FREE_SLAB = 11;
export const CPUSLAB_FLUSH = 12;
export const DEACTIVATE_FULL = 13;
export const DEACTIVATE_EMPTY = 14;
export const DEACTIVATE_TO_HEAD = 15;
export const DEACTIVATE_TO_TAIL = 16;
export const DEACTIVATE_REMOTE_FREES = 17;
export const DEACTIVATE_BYPASS = 18;
export const ORDER_FALLBACK = 19;
export const CPU_PARTIAL_ALLOC = 22;
export const CPU_PARTIAL_FREE = 23;
export const CPU_PARTIAL_NODE = 24;
export const CPU_PARTIAL_DRAIN = 25;
export const ALLOC_CPU_SHEAF = 26;
export const FREE_CPU_SHEAF = 27;
export const FREE_RCU_SHEAF = 28;
export const FREE_RCU_SHEAF_FAIL = 29;
export const SHEAF_FLUSH = 30;
export const SHEAF_REFILL = 31;
export const SHEAF_ALLOC = 32;
export const SHEAF_FREE = 33;
export const BARN_GET = 34;
export const BARN_GET_FAIL = 35;
export const BARN_PUT = 36;
export const BARN_PUT_FAIL = 37;
export const SHEAF_PREFILL_FAST = 38;
export const SHEAF_PREFILL_SLOW = 39;
export const SHEAF_PREFILL_OVERSIZE = 40;
export const SHEAF_RETURN_FAST = 41;
export const SHEAF_RETURN_SLOW = 42;

/** What a CPU keeps of a cache. Only that CPU touches it. */
export const KmemCacheCpu = struct("kmem_cache_cpu", {
  freelist: "*object", // next free object of the active slab; NULL when all are handed out
  page: "*slab", // the active slab
  partial: "*slab", // slabs with free objects, kept by this CPU
  base: "u32", // the active slab's bytes, so that a free need not look its page up
  bytes: "u32",
  stat: "u32[43]",
});
export type CpuPtr = Ptr<"kmem_cache_cpu">;

/** What a node keeps of a cache. */
export const KmemCacheNode = struct("kmem_cache_node", {
  list_lock: SpinLock, // protects all of it
  nr_partial: "u32",
  nr_slabs: "u32",
  partial: ListHead, // slabs with free objects that no CPU keeps
  full: ListHead, // slabs without, if those are tracked
  total_objects: "u32",
  node: "u32",
  slabs_first: "*slab", // every slab, oldest first
  slabs_last: "*slab",
});
export type NodePtr = Ptr<"kmem_cache_node">;

const STAT = KmemCacheCpu.stat.offset;
const CPU_SLAB = KmemCache.cpu_slab.offset;

/** Adds one to a counter of this CPU. */
export function stat(cache: CachePtr, item: number): void {
  const w = (m[(cache + CPU_SLAB) >> 2]! + r[1]! + STAT + (item << 2)) >> 2;
  m[w] = m[w]! + 1;
}

/** Adds `count` to a counter of this CPU. */
export function stat_add(cache: CachePtr, item: number, count: number): void {
  const w = (m[(cache + CPU_SLAB) >> 2]! + r[1]! + STAT + (item << 2)) >> 2;
  m[w] = m[w]! + count;
}

/** Tells listeners that a slab moved. */
export function notify(
  name: "slab:new" | "slab:full" | "slab:partial" | "slab:cpu" | "slab:discard",
  cache: CachePtr,
  slab: SlabPtr,
  item: number,
  list: "page" | "partial" = "page",
): void {
  if (!has_listener(name)) return;
  events.emit(
    name as keyof KernelEvents,
    {
      cache: KmemCache.name.get(cache),
      slab: slab_address(slab),
      inuse: slab_inuse(slab),
      counter: STAT_NAMES[item]!,
      node: page_to_nid(slab as PagePtr),
      cpu: r[CPU_OFFSET]! >> 15,
      list,
    } as never,
  );
}

/** First byte of a slab. */
export function slab_address(slab: SlabPtr): Obj {
  return page_address(slab as PagePtr);
}

/** The slab in which an object lies; anything else gives whatever page heads that address. */
export function virt_to_slab(object: Obj): SlabPtr {
  return virt_to_head_page(object) as Ptr as SlabPtr;
}

export function slab_order(slab: SlabPtr): number {
  return compound_order(slab as PagePtr);
}

const COUNTERS = Slab.counters.offset;
const NO_OBJECT = 0xffff;
/** `oo` of a cache whose slabs are above 512 KiB: their words hold an index instead of granules. */
const OO_BIG = 8 << 16;
const OO = KmemCache.oo.offset;
const SIZE = KmemCache.size.offset;
const OFFSET = KmemCache.offset.offset;
const RANDOM = KmemCache.random.offset;
const MEM_MAP = mem_map_state.$at("mem_map") >> 2;

/** Objects that are not on the slab's own free list. */
export function slab_inuse(slab: SlabPtr): number {
  return (m[(slab + COUNTERS) >> 2]! >>> 1) & 0x7fff;
}

export function slab_frozen(slab: SlabPtr): boolean {
  return (m[(slab + COUNTERS) >> 2]! & 1) !== 0;
}

/** The object that a slab's word names; NULL for none. `base` is the slab's first byte. */
function word_object(cache: CachePtr, base: Ptr, first: number): Obj {
  if (first === NO_OBJECT) return NULL;
  return m[(cache + OO) >> 2]! < OO_BIG ? base + (first << 3) : base + first * m[(cache + SIZE) >> 2]!;
}

/** What a slab's word says of an object. */
function object_word(cache: CachePtr, base: Ptr, object: Obj): number {
  if (object === NULL) return NO_OBJECT;
  const big = m[(cache + OO) >> 2]! >= OO_BIG;
  return big ? ((object - base) / m[(cache + SIZE) >> 2]!) | 0 : (object - base) >> 3;
}

/** First object of the slab's own free list; NULL if it is empty. */
export function slab_freelist(cache: CachePtr, slab: SlabPtr): Obj {
  return word_object(cache, slab_address(slab), m[(slab + COUNTERS) >> 2]! >>> 16);
}

/** Puts a run of free objects, linked from `head` to `tail`, in front of the slab's list. Returns the old word. */
export function slab_push(cache: CachePtr, slab: SlabPtr, head: Obj, tail: Obj, count: number): number {
  const base = (slab - m[MEM_MAP]!) << 6; // slab_address
  for (;;) {
    const old = m[(slab + COUNTERS) >> 2]!;
    set_freepointer(cache, tail, word_object(cache, base, old >>> 16));
    const counters = (object_word(cache, base, head) << 16) | ((old & 0xffff) - (count << 1));
    if (cmpxchg(slab + COUNTERS, old, counters)) return old;
  }
}

/** True if a word taken from `slab_push` says that the list was empty. */
export function was_full(counters: number): boolean {
  return counters >>> 16 === NO_OBJECT;
}

/** Takes the slab's whole list for a CPU and freezes it; NULL if there is none: then the slab is thawed. */
export function slab_take(cache: CachePtr, slab: SlabPtr): Obj {
  const all = (NO_OBJECT << 16) | (m[(slab + OBJECTS) >> 2]! << 1);
  for (;;) {
    const old = m[(slab + COUNTERS) >> 2]!;
    const first = word_object(cache, slab_address(slab), old >>> 16);
    if (cmpxchg(slab + COUNTERS, old, first === NULL ? all : all | 1)) return first;
  }
}
const OBJECTS = Slab.objects.offset;

/** Makes a frozen slab nobody's own. */
export function slab_thaw(slab: SlabPtr): void {
  for (;;) {
    const old = m[(slab + COUNTERS) >> 2]!;
    if (cmpxchg(slab + COUNTERS, old, old & ~1)) return;
  }
}

/**
 * The free object after `object`. A hardened cache scrambles the link with a number of its own and the link's address;
 * the link takes the low word of its 8 bytes, the high word is left as it was.
 */
export function get_freepointer(cache: CachePtr, object: Obj): Obj {
  const at = object + m[(cache + OFFSET) >> 2]!;
  const random = m[(cache + RANDOM) >> 2]!;
  return random === 0 ? m[at >> 2]! : m[at >> 2]! ^ random ^ swab32(at);
}

export function set_freepointer(cache: CachePtr, object: Obj, next: Obj): void {
  const at = object + m[(cache + OFFSET) >> 2]!;
  const random = m[(cache + RANDOM) >> 2]!;
  if (random !== 0 && next === object) BUG(`double free of ${px(object)}: it heads its free list already`);
  m[at >> 2] = random === 0 ? next : next ^ random ^ swab32(at);
}

/** The node part of a cache that a slab belongs to. */
export function node_of(cache: CachePtr, slab: SlabPtr): NodePtr {
  return KmemCache.node.get(cache, page_to_nid(slab as PagePtr));
}

/** Puts a slab on its node's partial list. Context: list_lock held. */
export function add_partial_locked(n: NodePtr, slab: SlabPtr, tail: boolean): void {
  KmemCacheNode.nr_partial.set(n, KmemCacheNode.nr_partial.get(n) + 1);
  if (tail) list_add_tail(Slab.slab_list.at(slab), KmemCacheNode.partial.at(n));
  else list_add(Slab.slab_list.at(slab), KmemCacheNode.partial.at(n));
  set_page_flag(slab as PagePtr, PG_workingset);
}

/** Takes a slab off its node's partial list. Context: list_lock held. */
export function remove_partial_locked(n: NodePtr, slab: SlabPtr): void {
  list_del(Slab.slab_list.at(slab));
  clear_page_flag(slab as PagePtr, PG_workingset);
  KmemCacheNode.nr_partial.set(n, KmemCacheNode.nr_partial.get(n) - 1);
}

export function on_node_partial(slab: SlabPtr): boolean {
  return page_flag(slab as PagePtr, PG_workingset);
}

/** A slab without a free object leaves its CPU: bookkeeping beside Linux's algorithm, if full slabs are tracked. */
export function add_full(cache: CachePtr, slab: SlabPtr, item: number): void {
  if (slab_data.track_full) {
    const n = node_of(cache, slab);
    spin_lock(KmemCacheNode.list_lock.at(n));
    list_add(Slab.slab_list.at(slab), KmemCacheNode.full.at(n));
    spin_unlock(KmemCacheNode.list_lock.at(n));
  }
  notify("slab:full", cache, slab, item);
}

/** The first object of a full slab is freed. */
export function remove_full(cache: CachePtr, slab: SlabPtr): void {
  if (!slab_data.track_full) return;
  const n = node_of(cache, slab);
  spin_lock(KmemCacheNode.list_lock.at(n));
  list_del(Slab.slab_list.at(slab));
  spin_unlock(KmemCacheNode.list_lock.at(n));
}

/** A slab is born: counts it and puts it last on node->slabs. Context: list_lock not held. */
export function inc_slabs_node(n: NodePtr, slab: SlabPtr): void {
  spin_lock(KmemCacheNode.list_lock.at(n));
  KmemCacheNode.nr_slabs.set(n, KmemCacheNode.nr_slabs.get(n) + 1);
  KmemCacheNode.total_objects.set(n, KmemCacheNode.total_objects.get(n) + Slab.objects.get(slab));
  const last = KmemCacheNode.slabs_last.get(n);
  Slab.slabs_prev.set(slab, last);
  Slab.birth.set(slab, ++slab_data.births);
  Slab.slabs_next.set(slab, NULL);
  if (last === NULL) KmemCacheNode.slabs_first.set(n, slab);
  else Slab.slabs_next.set(last, slab);
  KmemCacheNode.slabs_last.set(n, slab);
  spin_unlock(KmemCacheNode.list_lock.at(n));
}

function dec_slabs_node(n: NodePtr, slab: SlabPtr): void {
  spin_lock(KmemCacheNode.list_lock.at(n));
  KmemCacheNode.nr_slabs.set(n, KmemCacheNode.nr_slabs.get(n) - 1);
  KmemCacheNode.total_objects.set(n, KmemCacheNode.total_objects.get(n) - Slab.objects.get(slab));
  const prev = Slab.slabs_prev.get(slab);
  const next = Slab.slabs_next.get(slab);
  if (prev === NULL) KmemCacheNode.slabs_first.set(n, next);
  else Slab.slabs_next.set(prev, next);
  if (next === NULL) KmemCacheNode.slabs_last.set(n, prev);
  else Slab.slabs_prev.set(next, prev);
  spin_unlock(KmemCacheNode.list_lock.at(n));
}

/** Every slab of a node, oldest first; the walk ends even if the list is broken. */
export function* for_each_slab(n: NodePtr): Generator<SlabPtr> {
  let bound = KmemCacheNode.nr_slabs.get(n) + 1;
  for (let slab = KmemCacheNode.slabs_first.get(n); slab !== NULL && bound-- > 0;) {
    const next = Slab.slabs_next.get(slab);
    yield slab;
    slab = next;
  }
}

function account_slab(cache: CachePtr, slab: SlabPtr, pages: number): void {
  const item = KmemCache.flags.get(cache) & SLAB_RECLAIM_ACCOUNT ? NR_SLAB_RECLAIMABLE : NR_SLAB_UNRECLAIMABLE;
  mod_node_page_state(NODE_DATA(page_to_nid(slab as PagePtr)), item, pages);
}

function alloc_slab_page(cache: CachePtr, gfp: number, node: number, order: number): PagePtr {
  const flags = gfp | KmemCache.allocflags.get(cache) | __GFP_COMP;
  return node === NUMA_NO_NODE ? alloc_pages(flags, order) : alloc_pages_node(node, flags, order);
}

/** Pages for a slab: of the preferred order without effort, else of the smallest order that holds one object. */
function allocate_slab(cache: CachePtr, gfp: number, node: number): PagePtr {
  const order = oo_order(KmemCache.oo.get(cache));
  const min = oo_order(KmemCache.min.get(cache));
  let light = (gfp | __GFP_NOWARN | __GFP_NORETRY) & ~__GFP_NOFAIL;
  if (light & __GFP_DIRECT_RECLAIM && order > min) light = (light | __GFP_NOMEMALLOC) & ~__GFP_RECLAIM;
  const page = alloc_slab_page(cache, light, node, order);
  if (page !== NULL) return page;
  const small = alloc_slab_page(cache, gfp, node, min); // with all that the caller may do, also if it is the same order
  if (small !== NULL) stat(cache, ORDER_FALLBACK);
  return small;
}

/** Makes a slab: pages, free list, constructors. NULL without memory. It is on no list and counted nowhere yet. */
export function new_slab(cache: CachePtr, gfp: number, node: number): SlabPtr {
  const has_ctor = KmemCache.ctor.get(cache) !== NULL;
  if (gfp & __GFP_ZERO && has_ctor && slab_data.warned_ctor_zero === 0) {
    slab_data.warned_ctor_zero = 1;
    WARN_ON(true, `${KmemCache.name.get(cache)}: __GFP_ZERO and a constructor`);
  }
  const allowed = kmalloc_fix_flags(gfp) & (GFP_RECLAIM_MASK | __GFP_HARDWALL | __GFP_THISNODE);
  const page = allocate_slab(cache, allowed, node);
  if (page === NULL) return NULL;
  const slab = page as Ptr as SlabPtr;
  const order = compound_order(page);
  set_page_type(page, PGTY_slab);
  Slab.slab_cache.set(slab, cache);
  Slab.objects.set(slab, Math.floor((PAGE_SIZE << order) / KmemCache.size.get(cache)));
  Slab.slabs_next.set(slab, NULL);
  Slab.slabs_prev.set(slab, NULL);
  account_slab(cache, slab, 1 << order);
  m[(slab + COUNTERS) >> 2] = object_word(cache, slab_address(slab), link_objects(cache, slab)) << 16;
  return slab;
}

/** Links all objects of a new slab, in ascending or in the cache's random order; returns the first. */
function link_objects(cache: CachePtr, slab: SlabPtr): Obj {
  const size = KmemCache.size.get(cache);
  const objects = Slab.objects.get(slab);
  const start = slab_address(slab) + KmemCache.red_left_pad.get(cache);
  const ctor = KmemCache.ctor.get(cache);
  const construct = ctor === NULL ? null : (ksym_fn(ctor) as (object: Obj) => void);
  const seq = objects < 2 ? NULL : KmemCache.random_seq.get(cache);
  const count = seq === NULL ? objects : oo_objects(KmemCache.oo.get(cache));
  let at = seq === NULL ? 0 : get_random_u32_below(RANDOM_SLAB, count);
  let first = NULL;
  let last = NULL;
  for (let i = 0; i < count; i++, at = at + 1 === count ? 0 : at + 1) {
    const index = seq === NULL ? at : RandomSeq.at.get(seq, at);
    if (index >= objects) continue; // a slab of the smaller order
    const object = start + index * size;
    if (construct) construct(object);
    if (last === NULL) first = object;
    else set_freepointer(cache, last, object);
    last = object;
  }
  set_freepointer(cache, last, NULL);
  return first;
}

/**
 * A slab dies: its pages go back to the page allocator, of a SLAB_TYPESAFE_BY_RCU cache after a grace period.
 * Context: list_lock not held, the slab is on no list.
 */
export function discard_slab(cache: CachePtr, slab: SlabPtr): void {
  notify("slab:discard", cache, slab, FREE_SLAB);
  dec_slabs_node(node_of(cache, slab), slab);
  if (KmemCache.flags.get(cache) & SLAB_TYPESAFE_BY_RCU)
    call_rcu(Slab.slab_list.at(slab) as Ptr as RcuHeadPtr, rcu_free_slab);
  else free_slab(cache, slab);
}

const rcu_free_slab = ksym("rcu_free_slab", (head: RcuHeadPtr): void => {
  const slab: SlabPtr = head - Slab.slab_list.offset;
  free_slab(Slab.slab_cache.get(slab), slab);
});

function free_slab(cache: CachePtr, slab: SlabPtr): void {
  const page = slab as PagePtr;
  const order = compound_order(page);
  set_page_type(page, PGTY_none);
  Page.mapping.set(page, NULL);
  Page.private.set(page, 0);
  Page.memcg_data.set(page, 0);
  account_slab(cache, slab, -(1 << order));
  __free_pages(page, order);
}
