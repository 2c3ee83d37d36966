/**
 * What the slab allocators share: the cache descriptor, the list of caches, creation, merging, destruction.
 *
 *     kmem_cache_create ─ merge with an equal cache? ─ else a descriptor from the cache "kmem_cache" ─ ops.create
 *     kmem_cache_alloc  ─ ops.alloc        kmem_cache_free ─ ops.free
 *
 * Which allocator stands behind is a record of six functions, `SlabOps`, chosen once when the machine boots. Everything
 * that differs between caches is data in their descriptors in RAM.
 *
 * How the first caches come about, when a descriptor is itself an object of a cache: mm/slab_init.ts.
 *
 * Locks: slab_mutex protects the list of caches, creation and destruction.
 * Unlike Linux: names are stored in the descriptor (at most 63 characters); there is no memory cgroup, and so neither
 * kmem_cache_alloc_lru nor kmem_cache_charge.
 */
import { NULL, type NodeId, type Obj, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct, type StructInfo } from "../hal/struct.ts";
import { is_power_of_2 } from "../kernel/lib/bitops.ts";
import { WARN_ON, panic } from "../kernel/lib/bug.ts";
import { dump_stack } from "../kernel/lib/dump_stack.ts";
import { EINVAL, ENOMEM } from "../kernel/lib/errno.ts";
import { caller_symbol, ksym_address } from "../kernel/lib/ksym.ts";
import { ListHead, list_add, list_del, list_next, list_prev } from "../kernel/lib/list.ts";
import { running_module, type ModulePtr } from "../kernel/lib/owner.ts";
import { KERN_WARNING, pr_warn } from "../kernel/lib/printk.ts";
import { RANDOM_SLAB, get_random_u32 } from "../kernel/lib/random.ts";
import { rcu_barrier, rcu_pending } from "../kernel/lib/rcu.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { CLAIM_CACHE, claiming, unclaim } from "./claims.ts";
import { GFP_KERNEL, NUMA_NO_NODE, __GFP_ZERO } from "./gfp.ts";
import { kmalloc_slab } from "./kmalloc_class.ts";
import { Slab, page_is_slab, virt_to_head_page } from "./page.ts";
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_CACHE_DMA32, SLAB_DEBUG_FLAGS, SLAB_FAILSLAB, SLAB_FLAGS_PERMITTED,
  SLAB_NOLEAKTRACE, SLAB_NO_MERGE, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU,
  SLAB_CONSISTENCY_CHECKS, calculate_alignment,
} from "./slab_layout.ts"; // prettier-ignore
import { MAX_PAGE_ORDER } from "./zone.ts";

export const CACHE_NAME_BYTES = 64;
/** A sheaf is one block of kmalloc. */
export const MAX_SHEAF_CAPACITY = 1000;

export const KmemCache = struct("kmem_cache", {
  // SLUB's own. SLAB and SLOB lay what is theirs over these 56 bytes.
  cpu_slab: "*kmem_cache_cpu", // per-CPU pointer
  fast_offset: "s32", // of the free pointer, or -1: the fast path is closed (sheaves, hardened lists, fault injection)
  min: "u32", // as `oo`, for the smallest order that holds one object
  cpu_partial: "u32", // objects that a CPU's partial list may hold
  cpu_partial_slabs: "u32", // the same in slabs
  min_partial: "u32", // empty slabs a node keeps
  remote_node_defrag_ratio: "u32",
  random: "u32", // scrambles free pointers of a hardened cache
  cpu_sheaves: "*slub_percpu_sheaves", // per-CPU pointer; NULL: no sheaves
  barns: "*node_barn", // an array, one a node
  // Everybody's; written when the cache is made.
  offset: "u32", // of the free pointer in an object
  object_size: "u32", // bytes the creator asked for; the largest of all aliases
  size: "u32", // bytes of a slot
  flags: "u32", // SLAB_*
  oo: "u32", // order << 16 | objects of a slab
  allocflags: "u32", // added to each request for pages
  inuse: "u32", // bytes of a slot before what the allocator keeps behind the object
  align: "u32",
  red_left_pad: "u32",
  refcount: "s32", // 1 + aliases; -1 for the boot caches (slab_mutex)
  useroffset: "u32",
  usersize: "u32",
  sheaf_capacity: "u32", // objects of a sheaf; 0: the cache has none
  random_seq: "*random_seq", // order in which a new slab's objects are linked; NULL: ascending
  ctor: "*fn",
  list: ListHead, // slab_caches (slab_mutex)
  name: "char[64]",
  node: "*kmem_cache_node[16]", // the descriptor ends behind the last node the machine has
});
export type CachePtr = Ptr<"kmem_cache">;

/** Order and objects of `oo` and `min`. */
export const oo_order = (oo: number): number => oo >>> 16;
export const oo_objects = (oo: number): number => oo & 0xffff;
export const oo_make = (order: number, objects: number): number => (order << 16) | objects;

/** A further name of a merged cache; it stays until the cache goes, or the module that gave it. */
export const SlabAlias = struct("slab_alias", {
  list: ListHead,
  cache: "*kmem_cache",
  name: "char[64]",
  module: "*module",
});

/** What an allocator is. Not hot code calls it through here; `alloc` and `free` are. */
export interface SlabOps {
  readonly name: "slub" | "slab" | "slob" | "buddy";
  /** Computes the layout and makes the per-CPU and per-node parts. 0 or -errno. */
  create(cache: CachePtr): number;
  /** NULL when out of memory. Context: sleeps if gfp allows it. */
  alloc(cache: CachePtr, gfp: number, node: NodeId): Obj;
  /** `cache` NULL: what `kmalloc.alloc` gave. */
  free(cache: CachePtr, object: Obj): void;
  /** Frees empty slabs; 1 if slabs are left. */
  shrink(cache: CachePtr): number;
  /** Frees everything the cache holds; -EBUSY if objects are live. */
  destroy(cache: CachePtr): number;
  /** Counts what the cache holds by a bounded walk; with `findings`, checks all of it and adds a line for each fault. */
  inspect(cache: CachePtr, findings?: string[]): SlabInfo;

  /** Boot: makes the first caches, "kmem_cache" above all. `boot_caches` are two zeroed static descriptors. */
  bootstrap(boot_caches: readonly [CachePtr, CachePtr]): void;
  /** The smallest class of kmalloc; default 8. */
  readonly kmalloc_min?: number;
  /** Flags that kmalloc's caches are made with, beside those of their kind. */
  readonly kmalloc_flags?: number;
  /** Keeps no figures of a cache but the live objects: there is no /proc/slabinfo. */
  readonly no_slabinfo?: true;
  /** Serves kmalloc up to `max_size` bytes without caches. */
  readonly kmalloc?: {
    readonly max_size: number;
    alloc(size: number, gfp: number, node: NodeId): Obj;
    ksize(object: Obj): number;
    size_roundup(size: number): number;
    /** Objects that it has handed out, for the leak check. */
    live_objects?(): number;
  };
  /** As many objects as asked for in `objects`, or none: n or 0. Absent: one at a time. */
  alloc_bulk?(cache: CachePtr, gfp: number, nr: number, objects: Obj[]): number;
  /** Frees objects of any mix of slabs, from the end of the array; `cache` NULL: each one's own. */
  free_bulk?(cache: CachePtr, nr: number, objects: Obj[]): void;
  /** Frees an object after a grace period, together with others; false if it has to go alone. */
  free_rcu?(cache: CachePtr, object: Obj): boolean;
  /** Hands to RCU what still waits for more of its kind. */
  flush_rcu?(cache: CachePtr): void;
  /** Somebody wants to see every allocation (`fast_paths_closed`), or no longer. */
  set_fast_path?(cache: CachePtr): void;
  /** Called once kmalloc works, with boot's caches all made. */
  late_init?(): void;
  /** First byte of the first object of a slab; default: the slab's, behind a red zone. */
  first_object?(slab: Ptr): Obj;
  /** Bytes of an object that its owner may use; default: its slot, where nothing of the allocator's lies in it. */
  ksize?(cache: CachePtr): number;
  /** A further name is given only to a cache that is at least as strictly aligned. */
  readonly merge_by_align?: boolean;
  /** Takes what is written to /proc/slabinfo: 0 or -errno. Absent: the file cannot be written. */
  slabinfo_write?(text: string): number;
  /** What /proc/slabinfo says behind its columns; absent or "": nothing. */
  slabinfo_stats?(cache: CachePtr): string;
  /** Pages in which objects of all caches lie together; how many it takes for the same objects is a matter of chance. */
  shared_pages?(): number;
  /** Power-off: undoes what was tuned, so that what is in use compares with what was before. */
  shutdown?(): void;
  /** To be called on each CPU every two seconds: gives back what was not used since. */
  reap?(): void;
}

/** What /proc/slabinfo says of a cache, and how many objects are really handed out. */
export interface SlabInfo {
  active_objs: number;
  num_objs: number;
  active_slabs: number;
  num_slabs: number;
  shared_avail: number;
  limit: number;
  batchcount: number;
  shared: number;
  objects_per_slab: number;
  cache_order: number;
  /** Objects in callers' hands: those idle on CPUs are not among them, as they are in active_objs. */
  live_objs: number;
}

/** States of the slab layer. */
export const SLAB_DOWN = 0;
export const SLAB_PARTIAL = 1;
export const SLAB_UP = 2;

export const slab_data = static_data("slab_common", {
  mutex: SpinLock, // slab_mutex: in this kernel no entry sleeps, so a spinlock serves
  state: "u32",
  freelist_random: "u32", // boot options, read once
  freelist_hardened: "u32",
  cpu_partial: "u32",
  track_full: "u32",
  nomerge: "u32",
  min_order: "u32",
  max_order: "u32",
  min_objects: "u32",
  fast_paths_closed: "u32", // somebody wants to see every allocation (fault injection)
  nr_caches: "u32",
  warned_ctor_zero: "u32", // __GFP_ZERO and a constructor together: said once
  caches: ListHead, // newest first
  aliases: ListHead,
  kmem_cache: "*kmem_cache",
  kmem_cache_node: "*kmem_cache",
  births: "u32", // slabs ever made
});

// eslint-disable-next-line kheap/no-module-state -- code, not state: the allocator this realm runs, chosen at boot
let ops: SlabOps;

/** Chooses the allocator. Boot (and attach) does it once, before the first cache is made. */
export function set_slab_ops(chosen: SlabOps): void {
  ops = chosen;
}

export function slab_ops(): SlabOps {
  return ops;
}

/**
 * Takes an object. Hot path.
 *
 * Context: may sleep if `gfp` allows direct reclaim. Returns NULL when there is no memory.
 */
export function kmem_cache_alloc(cache: CachePtr, gfp: number): Obj {
  return ops.alloc(cache, gfp, -1);
}

/** Takes an object, of node `node` if that has one. */
export function kmem_cache_alloc_node(cache: CachePtr, gfp: number, node: NodeId): Obj {
  return ops.alloc(cache, gfp, node);
}

/** Takes an object whose `object_size` bytes are zero. */
export function kmem_cache_zalloc(cache: CachePtr, gfp: number): Obj {
  return ops.alloc(cache, gfp | __GFP_ZERO, NUMA_NO_NODE);
}

/** Gives an object back to the cache it came from; it must be in constructed state. Hot path. */
export function kmem_cache_free(cache: CachePtr, object: Obj): void {
  ops.free(cache, object);
}

/**
 * The cache that an object really came from, for who does not believe the caller's `cache`: a difference is reported, and
 * so is an object of no cache (NULL). Context: frees of hardened and of checked caches.
 */
export function cache_from_obj(cache: CachePtr, object: Obj): CachePtr {
  const page = virt_to_head_page(object);
  if (WARN_ON(!page_is_slab(page), "virt_to_cache: Object is not a Slab page!")) return NULL;
  const owner = Slab.slab_cache.get(page);
  if (owner !== cache)
    WARN_ON(
      true,
      `cache_from_obj: Wrong slab cache. ${KmemCache.name.get(cache)} but object is from ${KmemCache.name.get(owner)}`,
    );
  return owner;
}

/** Takes `nr` objects into `objects`: all or none. Returns nr or 0. Context: as kmem_cache_alloc. */
export function kmem_cache_alloc_bulk(cache: CachePtr, gfp: number, nr: number, objects: Obj[]): number {
  return (ops.alloc_bulk ?? alloc_one_by_one)(cache, gfp, nr, objects);
}

/** As kmem_cache_alloc_bulk, for who cannot take many at once. */
export function alloc_one_by_one(cache: CachePtr, gfp: number, nr: number, objects: Obj[]): number {
  for (let i = 0; i < nr; i++) {
    objects[i] = ops.alloc(cache, gfp, NUMA_NO_NODE);
    if (objects[i] !== NULL) continue;
    kmem_cache_free_bulk(cache, i, objects);
    return 0;
  }
  return nr;
}

/** Gives `nr` objects back; with NULL for the cache, objects of any caches. The array may be permuted. */
export function kmem_cache_free_bulk(cache: CachePtr, nr: number, objects: Obj[]): void {
  if (ops.free_bulk) return ops.free_bulk(cache, nr, objects);
  for (let i = nr - 1; i >= 0; i--) ops.free(cache || Slab.slab_cache.get(virt_to_head_page(objects[i]!)), objects[i]!);
}

/** The figures of /proc/slabinfo. */
export function get_slabinfo(cache: CachePtr): SlabInfo {
  return ops.inspect(cache);
}

/**
 * Bytes a creator asked for.
 * @public
 */
export function kmem_cache_size(cache: CachePtr): number {
  return KmemCache.object_size.get(cache);
}

/** Frees the slabs that hold no object; 1 if slabs are left. Context: may sleep. */
export function kmem_cache_shrink(cache: CachePtr): number {
  return ops.shrink(cache);
}

/** A bare constructor: called once for each object of a new slab. */
export type Ctor = (object: Obj) => void;
/** What a cache may be made with. */
export interface KmemCacheArgs {
  align?: number;
  useroffset?: number;
  usersize?: number;
  /** Place of the free pointer inside an object of a SLAB_TYPESAFE_BY_RCU cache. */
  freeptr_offset?: number;
  sheaf_capacity?: number;
  ctor?: Ctor | null;
  /** `off`: this cache has no CPU partial lists, as with Linux's CONFIG_SLUB_CPU_PARTIAL=n. */
  cpu_partial?: "off";
}

/**
 * Makes a cache of objects of `size` bytes, or returns an equal one with a further name.
 *
 *     kmem_cache_create("my_object_cache", my_struct.sizeof, 0, SLAB_PANIC, NULL)
 *     kmem_cache_create("my_object_cache", 300, { align: 64, ctor: my_ctor }, SLAB_HWCACHE_ALIGN)
 *
 * Context: may sleep. Returns NULL after a warning if that fails; panics instead with SLAB_PANIC.
 */
export function kmem_cache_create(
  name: string,
  size: number,
  align: number | KmemCacheArgs | null,
  flags: number,
  ctor: Ctor | null | 0 = null,
): CachePtr {
  const args: KmemCacheArgs = typeof align === "number" ? { align, ctor: ctor || null } : (align ?? {});
  const cache = __kmem_cache_create_args(name, size, args, flags);
  if (cache > 0) return cache;
  if (flags & SLAB_PANIC) panic(`__kmem_cache_create_args: Failed to create slab '${name}'. Error ${cache}`);
  pr_warn(`__kmem_cache_create_args(${name}) failed with error ${cache}`);
  dump_stack(KERN_WARNING);
  return NULL;
}

/**
 * Makes a cache from a struct layout: size and alignment are the struct's.
 *
 *     KMEM_CACHE(my_struct, SLAB_PANIC)                      named after the struct's tag
 *     KMEM_CACHE("my_object_cache", my_struct, SLAB_PANIC)   named
 */
export function KMEM_CACHE(layout: StructInfo<string>, flags: number): CachePtr;
export function KMEM_CACHE(name: string, layout: StructInfo<string>, flags: number): CachePtr;
export function KMEM_CACHE(...given: [StructInfo<string>, number] | [string, StructInfo<string>, number]): CachePtr {
  const [name, layout, flags] = given.length === 3 ? given : [given[0].tag, ...given];
  return kmem_cache_create(name, layout.sizeof, layout.alignof, flags, null);
}

/** As kmem_cache_create, with the part of an object that may be copied to and from programs. */
export function kmem_cache_create_usercopy(
  name: string,
  size: number,
  align: number,
  flags: number,
  useroffset: number,
  usersize: number,
  ctor: Ctor | null = null,
): CachePtr {
  return kmem_cache_create(name, size, { align, useroffset, usersize, ctor }, flags);
}

/** As KMEM_CACHE(layout, flags), with one field that may be copied to and from programs. */
export function KMEM_CACHE_USERCOPY(layout: StructInfo<string>, flags: number, field: string): CachePtr {
  const { offset, size } = layout.layout.find(({ name }) => name === field) ?? { offset: 0, size: 0 };
  return kmem_cache_create_usercopy(layout.tag, layout.sizeof, layout.alignof, flags, offset, size);
}

/** Says why `kmem_cache_create` would refuse, in one line; undefined if it would not. */
export function kmem_cache_check(name: string, size: number, args: KmemCacheArgs, flags: number): string | undefined {
  const align = args.align ?? 0;
  const max = 4096 << MAX_PAGE_ORDER;
  if (!/^[\x21-\x7e]+$/.test(name) || name.length >= CACHE_NAME_BYTES || name.includes("/"))
    return `a cache name has 1 to ${CACHE_NAME_BYTES - 1} printable characters without blanks or "/", not "${name}"`;
  if (/^\.\.?$/.test(name)) return `"${name}" names a folder, so it cannot name a cache in sysfs`;
  if (!Number.isInteger(size) || size < 1 || size > max) return `an object has 1 to ${max} bytes, not ${size}`;
  if (align !== 0 && (!is_power_of_2(align) || align > max)) return `an alignment is 0 or a power of two, not ${align}`;
  const unknown = flags & ~SLAB_FLAGS_PERMITTED;
  if (unknown) return `flags 0x${(unknown >>> 0).toString(16)} may not be given to a cache`;
  const sheaf = args.sheaf_capacity ?? 0;
  if (!Number.isInteger(sheaf) || sheaf < 0 || sheaf > MAX_SHEAF_CAPACITY)
    return `a sheaf has 0 to ${MAX_SHEAF_CAPACITY} objects, not ${sheaf}`;
  const freeptr = args.freeptr_offset;
  if (freeptr !== undefined && (!(flags & SLAB_TYPESAFE_BY_RCU) || freeptr % 8 || freeptr >= size))
    return `a place for the free pointer is a multiple of 8 inside an object of a SLAB_TYPESAFE_BY_RCU cache`;
  return undefined;
}

/** As kmem_cache_create, without the warning: the cache or -errno. */
export function __kmem_cache_create_args(name: string, size: number, args: KmemCacheArgs, flags: number): CachePtr {
  if (kmem_cache_check(name, size, args, flags)) return -EINVAL;
  ksym_address(args.ctor); // it gets its address while its module, if it has one, is known
  const cache = claiming(CLAIM_CACHE, () => find_or_create(name, size, args, flags), -ENOMEM);
  const module = running_module();
  if (module !== NULL)
    for (const alias of for_each_alias()) if (SlabAlias.name.get(alias) === name) SlabAlias.module.set(alias, module);
  return cache;
}

/** An equal cache, or a new one; or -errno. */
function find_or_create(name: string, size: number, args: KmemCacheArgs, flags: number): CachePtr {
  let { useroffset = 0, usersize = 0 } = args;
  if (
    WARN_ON(
      (usersize === 0 && useroffset !== 0) || size < usersize || size - usersize < useroffset,
      `usercopy of ${name}`,
    )
  )
    useroffset = usersize = 0;
  spin_lock(slab_data.mutex);
  try {
    const mergeable = usersize === 0 && !args.sheaf_capacity && !args.ctor && !args.cpu_partial;
    const alias = mergeable ? kmem_cache_alias(name, size, args.align ?? 0, flags) : NULL;
    if (alias !== NULL) return alias;
    return create_cache(name, size, { ...args, useroffset, usersize }, flags);
  } finally {
    spin_unlock(slab_data.mutex);
  }
}

function create_cache(name: string, size: number, args: KmemCacheArgs, flags: number): CachePtr {
  const cache = kmem_cache_zalloc(slab_data.kmem_cache, GFP_KERNEL);
  if (cache === NULL) return -ENOMEM;
  init_descriptor(cache, name, size, args, flags);
  const error = ops.create(cache);
  if (error !== 0) {
    kmem_cache_free(slab_data.kmem_cache, cache);
    return error;
  }
  KmemCache.refcount.set(cache, 1);
  list_add(KmemCache.list.at(cache), slab_data.caches);
  slab_data.nr_caches = slab_data.nr_caches + 1;
  return cache;
}

/** Fills a zeroed descriptor with what its creator asked for. */
export function init_descriptor(cache: CachePtr, name: string, size: number, args: KmemCacheArgs, flags: number): void {
  KmemCache.name.set(cache, name);
  KmemCache.object_size.set(cache, size);
  KmemCache.align.set(cache, calculate_alignment(flags, args.align ?? 0, size));
  KmemCache.flags.set(cache, flags);
  KmemCache.useroffset.set(cache, args.useroffset ?? 0);
  KmemCache.usersize.set(cache, args.usersize ?? 0);
  KmemCache.sheaf_capacity.set(cache, args.sheaf_capacity ?? 0);
  KmemCache.ctor.set(cache, ksym_address(args.ctor));
  KmemCache.offset.set(cache, args.freeptr_offset ?? NO_FREEPTR);
  if (args.cpu_partial === "off" || !slab_data.cpu_partial) KmemCache.flags.set(cache, flags | CACHE_NO_CPU_PARTIAL);
}
/** Internal flag: the cache has no CPU partial lists. */
export const CACHE_NO_CPU_PARTIAL = 0x40000000;
/** In `offset` until ops.create has placed the free pointer: the creator asked for no place. */
export const NO_FREEPTR = 0xffffffff;

const NEVER_MERGE = SLAB_DEBUG_FLAGS & ~SLAB_CONSISTENCY_CHECKS | SLAB_TYPESAFE_BY_RCU | SLAB_NOLEAKTRACE | SLAB_FAILSLAB | SLAB_NO_MERGE; // prettier-ignore
const MERGE_SAME = SLAB_RECLAIM_ACCOUNT | SLAB_CACHE_DMA | SLAB_CACHE_DMA32 | SLAB_ACCOUNT;

/** True if the cache can get a further name. */
export function slab_mergeable(cache: CachePtr): boolean {
  return (
    !slab_data.nomerge && !(KmemCache.flags.get(cache) & NEVER_MERGE) && KmemCache.ctor.get(cache) === NULL &&
    KmemCache.usersize.get(cache) === 0 && KmemCache.sheaf_capacity.get(cache) === 0 && KmemCache.refcount.get(cache) > 0
  ); // prettier-ignore
}

/** The oldest cache that could serve such objects without waste; NULL if there is none. */
function find_mergeable(object_size: number, asked_align: number, flags: number): CachePtr {
  if (slab_data.nomerge || flags & NEVER_MERGE) return NULL;
  let size = (object_size + 7) & ~7;
  const align = calculate_alignment(flags, asked_align, size);
  size = Math.ceil(size / align) * align;
  const head = slab_data.caches;
  for (let node = list_prev(head); node !== head; node = list_prev(node)) {
    const cache = node - KmemCache.list.offset;
    const slot = KmemCache.size.get(cache);
    if (!slab_mergeable(cache) || size > slot || slot - size >= 8 || slot % align !== 0) continue;
    if ((flags ^ KmemCache.flags.get(cache)) & MERGE_SAME) continue;
    if (ops.merge_by_align && KmemCache.align.get(cache) % align !== 0) continue;
    return cache;
  }
  return NULL;
}

function kmem_cache_alias(name: string, size: number, align: number, flags: number): CachePtr {
  const cache = find_mergeable(size, align, flags);
  if (cache === NULL) return NULL;
  const alias = kmem_cache_alloc(kmalloc_slab(SlabAlias.sizeof, GFP_KERNEL), GFP_KERNEL);
  if (alias === NULL) return -ENOMEM;
  SlabAlias.cache.set(alias, cache);
  SlabAlias.name.set(alias, name);
  SlabAlias.module.set(alias, NULL);
  list_add(SlabAlias.list.at(alias), slab_data.aliases);
  KmemCache.refcount.set(cache, KmemCache.refcount.get(cache) + 1);
  KmemCache.object_size.set(cache, Math.max(KmemCache.object_size.get(cache), size));
  KmemCache.inuse.set(cache, Math.max(KmemCache.inuse.get(cache), (size + 7) & ~7));
  return cache;
}

/**
 * Gives a cache up, once its objects that wait for a grace period are free. An alias only lowers the count. With live
 * objects the cache is unlinked all the same, after a report; its slabs stay where they are (since Linux 6.12).
 * Context: may sleep.
 */
export function kmem_cache_destroy(cache: CachePtr): void {
  if (cache === NULL) return;
  unclaim(CLAIM_CACHE, cache);
  ops.flush_rcu?.(cache);
  if (rcu_pending() !== 0) rcu_barrier();
  spin_lock(slab_data.mutex);
  const refcount = KmemCache.refcount.get(cache) - 1;
  KmemCache.refcount.set(cache, refcount);
  if (refcount > 0) {
    spin_unlock(slab_data.mutex);
    return;
  }
  const busy = ops.destroy(cache) !== 0;
  list_del(KmemCache.list.at(cache));
  slab_data.nr_caches = slab_data.nr_caches - 1;
  spin_unlock(slab_data.mutex);
  drop_aliases(cache);
  if (rcu_pending() !== 0) rcu_barrier(); // slabs of a SLAB_TYPESAFE_BY_RCU cache need its descriptor until then
  if (busy) {
    const by = caller_symbol("slab_common.ts");
    WARN_ON(
      true,
      `kmem_cache_destroy ${KmemCache.name.get(cache)}: Slab cache still has objects when called from ${by}`,
    );
  } else kmem_cache_free(slab_data.kmem_cache, cache);
}

/** Ends the destruction of a cache that still had objects then, if they have been freed since. */
export function kmem_cache_bury(cache: CachePtr): void {
  if (ops.destroy(cache) === 0) kmem_cache_free(slab_data.kmem_cache, cache);
}

/** Forgets the further names of a cache, or those that a module gave. */
export function drop_aliases(cache: CachePtr, module: ModulePtr = NULL): void {
  for (const alias of [...for_each_alias()]) {
    const is_meant = module === NULL ? SlabAlias.cache.get(alias) === cache : SlabAlias.module.get(alias) === module;
    if (!is_meant) continue;
    list_del(SlabAlias.list.at(alias));
    kmem_cache_free(kmalloc_slab(SlabAlias.sizeof, GFP_KERNEL), alias);
  }
}

/** All caches, newest first (as every listing shows them). */
export function* for_each_cache(): Generator<CachePtr> {
  const head = slab_data.caches;
  for (let node = list_next(head); node !== head; node = list_next(node)) yield node - KmemCache.list.offset;
}

/** Further names of merged caches, newest first. */
export function* for_each_alias(): Generator<Ptr<"slab_alias">> {
  const head = slab_data.aliases;
  for (let node = list_next(head); node !== head; node = list_next(node)) yield node - SlabAlias.list.offset;
}

/** The cache of that name or alias, the newest if there are several; NULL if there is none. */
export function find_cache(name: string): CachePtr {
  for (const cache of for_each_cache()) if (KmemCache.name.get(cache) === name) return cache;
  for (const alias of for_each_alias()) if (SlabAlias.name.get(alias) === name) return SlabAlias.cache.get(alias);
  return NULL;
}

/** True if `cache` is on the list of caches. */
export function cache_exists(cache: CachePtr): boolean {
  for (const other of for_each_cache()) if (other === cache) return true;
  return false;
}

/** Sends every allocation of every cache through the slow path, or lets them go again. */
export function close_fast_paths(closed: boolean): void {
  slab_data.fast_paths_closed = Number(closed);
  if (slab_data.state !== SLAB_DOWN) for (const cache of for_each_cache()) ops.set_fast_path?.(cache);
}

/** A random word for a hardened cache's free pointers. */
export function cache_random(): number {
  return get_random_u32(RANDOM_SLAB) | 0;
}
