/**
 * SLAB: what a cache consists of, and its slabs: pages, index arrays, colours, constructors.
 *
 *     kmem_cache ── cpu_cache ──> slab_cpu (one a CPU)     | counters | array_cache: avail limit batchcount touched | entry …
 *        │ node[]
 *        └──> slab_node (one a node)   slabs_partial, slabs_full, slabs_free ──> slabs
 *                                      shared ──> array_cache of all CPUs of the node
 *                                      alien[n] ─> array_cache for objects of node n that were freed here
 *
 *     slab    | colour | 0 | 1 | 2 | 3 | 4 |       freelist  | 3 | 1 | 4 | 0 | 2 |     active 2: 3 and 1 are taken,
 *             s_mem ───^                             index array      ^ active         next is 4, then 0, then 2
 *
 * An object is taken by `active++` and put back by writing its index in front: nothing is ever written into a free
 * object, but for the one that holds the index array itself (mm/slab_geometry.ts). That one is always the last to go,
 * and the first that comes back to a full slab takes over.
 *
 * Invariants, checked by mm/slab_check.ts:
 *     active of a slab       = its objects in callers' hands + those in array caches
 *     node: free_objects     = sum of num - active over its slabs;   total_slabs, free_slabs = what its lists hold
 *     slabs_full: active = num;   slabs_free: active = 0;   slabs_partial: neither
 *
 * Locks: list_lock of the node for its slabs, lists, counts and shared array; an alien array has a lock of its own, taken
 * before the list_lock of the node that its objects come from. A CPU's array is that CPU's alone.
 * Unlike Linux: a CPU's counters are always kept (Linux: with CONFIG_DEBUG_SLAB), in words in front of its array.
 */
import { NULL, PAGE_SIZE, type Obj, type Ptr } from "../hal/addr.ts";
import { CPU_OFFSET, cpu_regs } from "../hal/cpu.ts";
import { events, has_listener, type KernelEvents } from "../hal/events.ts";
import { ram32, ram8 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { ksym, ksym_fn } from "../kernel/lib/ksym.ts";
import { ListHead } from "../kernel/lib/list.ts";
import { RANDOM_SLAB, get_random_u32_below } from "../kernel/lib/random.ts";
import { call_rcu, type RcuHeadPtr } from "../kernel/lib/rcu.ts";
import { SpinLock } from "../kernel/lib/spinlock.ts";
import { GFP_RECLAIM_MASK, NUMA_NO_NODE, __GFP_COMP, __GFP_HARDWALL, __GFP_THISNODE, __GFP_ZERO } from "./gfp.ts";
import { PGTY_none, PGTY_slab, Page, page_address, page_to_nid, set_page_type, virt_to_head_page, type PagePtr } from "./page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, alloc_pages_node } from "./page_alloc.ts";
import { kmalloc_fix_flags } from "./kmalloc_class.ts";
import {
  KmemCache, kmem_cache_alloc_node, kmem_cache_free, oo_objects, oo_order, slab_data, type CachePtr,
} from "./slab_common.ts"; // prettier-ignore
import { IN_OBJECT, OFF_SLAB } from "./slab_geometry.ts";
import { SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";
import { RandomSeq } from "./slab_random.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA, node_state } from "./zone.ts";

const m = ram32;
const r = cpu_regs;

/** SLAB's own words at the start of a cache's descriptor (KmemCache has the rest). */
export const SlabCache = struct(
  "slab_cache",
  {
    cpu_cache: "*slab_cpu", // per-CPU pointer
    closed: "u32", // the fast path: somebody wants to see every allocation, or frees are checked
    limit: "u32", // of a CPU's array; slab_mutex, as the next two
    batchcount: "u32",
    shared: "u32", // a node's shared array holds so many batches
    colour: "u32", // starts that slabs may have, colour_off bytes apart
    colour_off: "u32",
    mode: "u32", // where index arrays lie: IN_OBJECT, OFF_SLAB, ON_SLAB
    num_active: "s32", // objects off the slabs: statistics, as the next two
    freelist_cache: "*kmem_cache", // of index arrays; OFF_SLAB
    high_mark: "s32",
    max_freeable: "u32",
  },
  { sizeof: 56 },
);

/** A stack of free objects; its entries of 8 bytes each follow. */
export const ArrayCache = struct(
  "array_cache",
  { avail: "u32", limit: "u32", batchcount: "u32", touched: "u32" },
  { sizeof: 16 },
);
export type ArrayPtr = Ptr<"array_cache">;
/** Bytes of an array cache. */
export const array_bytes = (limit: number): number => ArrayCache.sizeof + 8 * limit;
const ENTRY = ArrayCache.sizeof;

// What a CPU counts. The first four are words of the fast paths; all of them make cpustat and globalstat of /proc/slabinfo.
export const ALLOC_HIT = 0; // objects taken from the array as it was
export const ALLOC_MISS = 1; // after a refill, or from elsewhere
export const FREE_HIT = 2; // objects put into the array as it was
export const FREE_MISS = 3; // after a flush
export const ALLOC_PAST = 4; // taken past the array: another node's were wanted
export const ALLOCATED = 5; // objects that left slabs
export const GROWN = 6;
export const REAPED = 7;
export const NODE_ALLOCS = 8;
export const NODE_FREES = 9; // objects of another node
export const OVERFLOWS = 10; // of alien arrays

/** A CPU's part of a cache: only that CPU touches it. The array's entries start on a cache line. */
export const SlabCpu = struct(
  "slab_cpu",
  {
    home: "s32", // the node whose objects are kept here; -1: of any, since there is but one
    stat: "u32[11]",
    array: ArrayCache,
  },
  { sizeof: 64 },
);
export type CpuPtr = Ptr<"slab_cpu">;

/** A node's part of a cache. */
export const SlabNode = struct("slab_node", {
  list_lock: SpinLock, // protects all of it but the entries of alien
  slabs_partial: ListHead,
  slabs_full: ListHead,
  slabs_free: ListHead,
  total_slabs: "u32",
  free_slabs: "u32",
  free_objects: "u32", // on slabs; those in arrays count as active
  free_limit: "u32", // more of them, and free slabs are given back
  colour_next: "u32",
  free_touched: "u32", // an object was taken from slabs_free since the last reaping
  shared: "*array_cache",
  alien: "*alien_table", // by node; NULL: objects of other nodes go straight to their slabs
  next_reap: "u64", // jiffies
  node: "u32",
});
export type NodePtr = Ptr<"slab_node">;

/** Objects of another node, freed by CPUs of this one. */
export const AlienCache = struct("alien_cache", { lock: SpinLock, array: ArrayCache });
export type AlienPtr = Ptr<"alien_cache">;
/** A node's alien caches, by the node that their objects are from; as many as the machine has nodes. */
export const AlienTable = struct("alien_table", { at: "*alien_cache[16]" });

/** The page struct that heads a slab: SLAB's view of what mm/page.ts calls Slab. */
export const SlabPage = struct(
  "slab_page",
  {
    flags: "u32",
    zone_node: "u32",
    slab_cache: "*kmem_cache",
    slab_list: ListHead, // one of the node's three lists
    active: "u32", // objects off the slab: list_lock, as all of it
    s_mem: "u32", // the first object
    freelist: "*freelist", // the index array; NULL: a full slab that has none
    page_type: "s32",
    refcount: "s32",
    pad: "u32",
    birth: "u32", // the how-manieth slab of the machine it is
  },
  { sizeof: 64 },
);
export type SlabPtr = Ptr<"slab_page">;

const CPU_CACHE = SlabCache.cpu_cache.offset;
const STAT = SlabCpu.stat.offset;
const ARRAY = SlabCpu.array.offset;
const ACTIVE = SlabPage.active.offset;
const S_MEM = SlabPage.s_mem.offset;
const FREELIST = SlabPage.freelist.offset;
const SIZE = KmemCache.size.offset;

/** This CPU's array. */
export function cpu_cache_get(cache: CachePtr): ArrayPtr {
  return m[(cache + CPU_CACHE) >> 2]! + r[CPU_OFFSET]! + ARRAY;
}

/** Adds to a counter of this CPU. */
export function stat_add(cache: CachePtr, item: number, count: number): void {
  const w = (m[(cache + CPU_CACHE) >> 2]! + r[CPU_OFFSET]! + STAT + (item << 2)) >> 2;
  m[w] = m[w]! + count;
}

/** A cache's part on `node`; NULL if the node has no memory. */
export function get_node(cache: CachePtr, node: number): NodePtr {
  return KmemCache.node.get(cache, node) as Ptr as NodePtr;
}

/** Every node's part of a cache. */
export function* cache_nodes(cache: CachePtr): Generator<[node: number, part: NodePtr]> {
  for (let node = 0; node < node_state.nr_node_ids; node++) {
    const n = get_node(cache, node);
    if (n !== NULL) yield [node, n];
  }
}

/** Where entry `index` of an array lies, counted from the oldest. */
export function entries_at(ac: ArrayPtr, index: number): Ptr {
  return ac + ENTRY + (index << 3);
}

/** That entry. */
export function ac_entry(ac: ArrayPtr, index: number): Obj {
  return m[(ac + ENTRY + (index << 3)) >> 2]!;
}

/** Puts an object on top of an array that has room. */
export function ac_push(ac: ArrayPtr, object: Obj): void {
  const avail = ArrayCache.avail.get(ac);
  m[(ac + ENTRY + (avail << 3)) >> 2] = object;
  ArrayCache.avail.set(ac, avail + 1);
}

/** Takes the top object of an array that has one. */
export function ac_pop(ac: ArrayPtr): Obj {
  const avail = ArrayCache.avail.get(ac) - 1;
  ArrayCache.avail.set(ac, avail);
  return m[(ac + ENTRY + (avail << 3)) >> 2]!;
}

/** The array of an alien cache. */
export function alien_array(alien: AlienPtr): ArrayPtr {
  return AlienCache.array.at(alien);
}

/** The alien cache of `n` for objects of `node`; NULL if there is none. */
export function alien_of(n: NodePtr, node: number): AlienPtr {
  const table = SlabNode.alien.get(n);
  return table === NULL ? NULL : AlienTable.at.get(table, node);
}

/** The slab in which an object lies; anything else gives whatever page heads that address. */
export function virt_to_slab(object: Obj): SlabPtr {
  return virt_to_head_page(object) as Ptr as SlabPtr;
}

/** First byte of a slab. */
export function slab_address(slab: SlabPtr): Obj {
  return page_address(slab as Ptr as PagePtr);
}

export function slab_nid(slab: SlabPtr): number {
  return page_to_nid(slab as Ptr as PagePtr);
}

/** Objects of each slab of a cache. */
export function slab_num(cache: CachePtr): number {
  return oo_objects(KmemCache.oo.get(cache));
}

/** The index at place `i` of a slab's index array. */
export function slab_index(slab: SlabPtr, i: number): number {
  return ram8[m[(slab + FREELIST) >> 2]! + i]!;
}

/** Takes the next free object of a slab that has one. Context: list_lock. */
export function slab_get_obj(cache: CachePtr, slab: SlabPtr): Obj {
  const active = m[(slab + ACTIVE) >> 2]!;
  m[(slab + ACTIVE) >> 2] = active + 1;
  return m[(slab + S_MEM) >> 2]! + slab_index(slab, active) * m[(cache + SIZE) >> 2]!;
}

/** Puts an object back; where the slab has no index array, it becomes one. Context: list_lock. */
export function slab_put_obj(cache: CachePtr, slab: SlabPtr, object: Obj): void {
  const index = ((object - m[(slab + S_MEM) >> 2]!) / m[(cache + SIZE) >> 2]!) | 0;
  const active = m[(slab + ACTIVE) >> 2]! - 1;
  m[(slab + ACTIVE) >> 2] = active;
  if (m[(slab + FREELIST) >> 2] === NULL) m[(slab + FREELIST) >> 2] = object;
  ram8[m[(slab + FREELIST) >> 2]! + active] = index;
}

/** Tells listeners that a slab moved, and in which function. */
export function notify(
  name: "slab:new" | "slab:full" | "slab:partial" | "slab:free" | "slab:discard",
  cache: CachePtr,
  slab: SlabPtr,
  counter: string,
): void {
  if (!has_listener(name)) return;
  const inuse = SlabPage.active.get(slab);
  const event = { cache: KmemCache.name.get(cache), slab: slab_address(slab), inuse, counter, node: slab_nid(slab) };
  events.emit(name as keyof KernelEvents, event as never);
}

function account_slab(cache: CachePtr, slab: SlabPtr, pages: number): void {
  const item = KmemCache.flags.get(cache) & SLAB_RECLAIM_ACCOUNT ? NR_SLAB_RECLAIMABLE : NR_SLAB_UNRECLAIMABLE;
  mod_node_page_state(NODE_DATA(slab_nid(slab)), item, pages);
}

/**
 * Makes a slab: pages, colour, index array, constructors. NULL without memory; there is no smaller order to fall back on.
 * It is on no list and counted nowhere yet. Context: no lock held; may sleep if gfp allows it.
 */
export function cache_grow_begin(cache: CachePtr, gfp: number, node: number): SlabPtr {
  if (gfp & __GFP_ZERO && KmemCache.ctor.get(cache) !== NULL && slab_data.warned_ctor_zero === 0) {
    slab_data.warned_ctor_zero = 1;
    WARN_ON(true, `${KmemCache.name.get(cache)}: __GFP_ZERO and a constructor`);
  }
  const allowed = kmalloc_fix_flags(gfp) & (GFP_RECLAIM_MASK | __GFP_HARDWALL | __GFP_THISNODE);
  const order = oo_order(KmemCache.oo.get(cache));
  const flags = allowed | KmemCache.allocflags.get(cache) | __GFP_COMP;
  const page = node === NUMA_NO_NODE ? alloc_pages(flags, order) : alloc_pages_node(node, flags, order);
  if (page === NULL) return NULL;
  const slab = page as Ptr as SlabPtr;
  const start = slab_address(slab) + next_colour(cache, get_node(cache, slab_nid(slab)));
  const index_array = alloc_index_array(cache, slab, allowed & ~(__GFP_HARDWALL | __GFP_THISNODE));
  if (index_array < 0) {
    __free_pages(page, order);
    return NULL;
  }
  set_page_type(page, PGTY_slab);
  account_slab(cache, slab, 1 << order);
  SlabPage.slab_cache.set(slab, cache);
  SlabPage.s_mem.set(slab, start);
  SlabPage.freelist.set(slab, index_array);
  SlabPage.active.set(slab, 0);
  SlabPage.birth.set(slab, ++slab_data.births);
  init_objects(cache, slab);
  return slab;
}

/** Bytes by which the next slab's objects start further on; the node's colour moves on first. */
function next_colour(cache: CachePtr, n: NodePtr): number {
  const colour = SlabNode.colour_next.get(n) + 1;
  SlabNode.colour_next.set(n, colour >= SlabCache.colour.get(cache) ? 0 : colour);
  return SlabNode.colour_next.get(n) * SlabCache.colour_off.get(cache);
}

/** Where a new slab's index array lies; NULL: in an object, which is chosen later; -1: no memory. */
function alloc_index_array(cache: CachePtr, slab: SlabPtr, gfp: number): Ptr {
  const mode = SlabCache.mode.get(cache);
  if (mode === IN_OBJECT) return NULL;
  if (mode === OFF_SLAB) return kmem_cache_alloc_node(SlabCache.freelist_cache.get(cache), gfp, slab_nid(slab)) || -1;
  return slab_address(slab) + (PAGE_SIZE << oo_order(KmemCache.oo.get(cache))) - slab_num(cache);
}

/** Fills the index array, ascending or with a rotation of the cache's random sequence, and constructs the objects. */
function init_objects(cache: CachePtr, slab: SlabPtr): void {
  const num = slab_num(cache);
  const seq = num < 2 ? NULL : KmemCache.random_seq.get(cache);
  const from = seq === NULL ? 0 : get_random_u32_below(RANDOM_SLAB, num);
  const in_object = SlabCache.mode.get(cache) === IN_OBJECT;
  // The object that holds the array stands last in it. Of a random sequence Linux takes the first for that.
  const turn = in_object && seq !== NULL ? from + 1 : from;
  if (in_object) {
    const holder = index_at(seq, turn + num - 1, num);
    SlabPage.freelist.set(slab, SlabPage.s_mem.get(slab) + holder * KmemCache.size.get(cache));
  }
  const index_array = SlabPage.freelist.get(slab);
  for (let i = 0; i < num; i++) ram8[index_array + i] = index_at(seq, turn + i, num);
  if (KmemCache.ctor.get(cache) !== NULL) construct(cache, slab);
}

/** The index at a place of the sequence, which goes round; without one, the place itself. */
function index_at(seq: Ptr<"random_seq">, place: number, num: number): number {
  const i = place >= num ? (place - num) % num : place;
  return seq === NULL ? i : RandomSeq.at.get(seq, i);
}

function construct(cache: CachePtr, slab: SlabPtr): void {
  const ctor = ksym_fn(KmemCache.ctor.get(cache)) as (object: Obj) => void;
  const size = KmemCache.size.get(cache);
  const end = SlabPage.s_mem.get(slab) + slab_num(cache) * size;
  for (let object = SlabPage.s_mem.get(slab); object < end; object += size) ctor(object);
}

/**
 * A slab dies: its pages go back to the page allocator, of a SLAB_TYPESAFE_BY_RCU cache after a grace period; its index
 * array goes at once. Context: no lock held; it is on no list.
 */
export function slab_destroy(cache: CachePtr, slab: SlabPtr): void {
  notify("slab:discard", cache, slab, "slab_destroy");
  const index_array = SlabPage.freelist.get(slab);
  if (KmemCache.flags.get(cache) & SLAB_TYPESAFE_BY_RCU)
    call_rcu(SlabPage.slab_list.at(slab) as Ptr as RcuHeadPtr, slab_rcu_free);
  else kmem_freepages(cache, slab);
  if (SlabCache.mode.get(cache) === OFF_SLAB) kmem_cache_free(SlabCache.freelist_cache.get(cache), index_array);
}

const slab_rcu_free = ksym("slab_rcu_free", (head: RcuHeadPtr): void => {
  const slab: SlabPtr = head - SlabPage.slab_list.offset;
  kmem_freepages(SlabPage.slab_cache.get(slab), slab);
});

function kmem_freepages(cache: CachePtr, slab: SlabPtr): void {
  const page = slab as Ptr as PagePtr;
  const order = oo_order(KmemCache.oo.get(cache));
  set_page_type(page, PGTY_none);
  Page.mapping.set(page, NULL);
  Page.private.set(page, 0);
  Page.memcg_data.set(page, 0);
  account_slab(cache, slab, -(1 << order));
  __free_pages(page, order);
}
