/**
 * Sheaves: arrays of free objects in front of SLUB's slabs, for caches made with `sheaf_capacity` (Linux 6.18).
 *
 *     slub_percpu_sheaves (a CPU)             node_barn (a node)
 *       main   objects come and go here         full    at most 10 sheaves, full
 *       spare  a second one, or none            empty   at most 10 sheaves, empty
 *       rcu_free  what kfree_rcu collects
 *
 * An allocation takes the last object of main. If main is empty:
 *   1 swap with a spare that has some      2 exchange it for a full sheaf of the barn         BARN_GET
 *   3 fill a sheaf from slabs, if the caller may sleep   SHEAF_REFILL      4 else the slabs serve this one object
 * A free puts the object last in main. If main is full:
 *   1 no spare: main becomes it, an empty sheaf main      2 swap with a spare that has room
 *   3 main goes to the barn for an empty one  BARN_PUT    4 the barn has ten: one is emptied into slabs    SHEAF_FLUSH
 * A request for another node, and an object of another node, go past the sheaves. So does everything in caches without
 * them: `cpu_sheaves` is NULL there, and only the closed fast path looks at it.
 *
 * An object in a sheaf counts as in use in its slab, as in Linux. A sheaf is memory of kmalloc; where kmalloc's own
 * caches have sheaves (`kmalloc_sheaf=N`), one made for them carries __GFP_NO_OBJ_EXT and so never asks for another. As
 * that can change main and spare meanwhile, both are looked at again afterwards.
 *
 * Locks: barn->lock for a barn's lists and counts; nothing for what only its CPU touches. Neither memory nor objects are
 * asked for or given back under it.
 */
import { NULL, type NodeId, type Obj, type Ptr } from "../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, numa_node_id } from "../hal/cpu.ts";
import { ram32 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { ListHead, list_add, list_del, list_empty, list_next } from "../kernel/lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import {
  GFP_NOWAIT, NUMA_NO_NODE, __GFP_ACCOUNT, __GFP_DMA, __GFP_NOFAIL, __GFP_NOMEMALLOC, __GFP_NOWARN, __GFP_NO_OBJ_EXT,
  __GFP_RECLAIMABLE, __GFP_ZERO, gfpflags_allow_blocking,
} from "./gfp.ts"; // prettier-ignore
import { kfree, kmalloc, virt_to_cache } from "./kmalloc.ts";
import { page_to_nid, virt_to_page } from "./page.ts";
import { KmemCache, type CachePtr } from "./slab_common.ts";
import { SLAB_KMALLOC } from "./slab_layout.ts";
import {
  ALLOC_CPU_SHEAF, BARN_GET, BARN_GET_FAIL, BARN_PUT, BARN_PUT_FAIL, FREE_CPU_SHEAF, SHEAF_ALLOC, SHEAF_FLUSH,
  SHEAF_FREE, SHEAF_REFILL, stat, stat_add,
} from "./slub_slab.ts"; // prettier-ignore
import { local_memory_node } from "./zone.ts";

const m = ram32;
const r = cpu_regs;

export const SlabSheaf = struct(
  "slab_sheaf",
  {
    list: ListHead, // in a barn; or the rcu_head while it waits for a grace period
    cache: "*kmem_cache",
    size: "u32", // objects in it
    capacity: "u32", // of this sheaf; a prefilled one may be larger than the cache's
  }, // the objects follow, 8 bytes each
  { sizeof: 32 },
);
export type SheafPtr = Ptr<"slab_sheaf">;

export const PerCpuSheaves = struct("slub_percpu_sheaves", {
  main: "*slab_sheaf", // always there
  spare: "*slab_sheaf", // empty, full, or NULL
  rcu_free: "*slab_sheaf",
});
type PcsPtr = Ptr<"slub_percpu_sheaves">;

export const NodeBarn = struct("node_barn", {
  lock: SpinLock, // protects all of it
  nr_full: "u32",
  nr_empty: "u32",
  full: ListHead,
  empty: ListHead,
});
export type BarnPtr = Ptr<"node_barn">;
export const MAX_FULL_SHEAVES = 10;
export const MAX_EMPTY_SHEAVES = 10;

/** What lies below the sheaves. slub.ts, which calls this file, hands it in. */
export interface SlabSide {
  /** One object, past the sheaves; NULL without memory. */
  take(cache: CachePtr, gfp: number): Obj;
  /** Gives objects back to their slabs. */
  give(cache: CachePtr, nr: number, objects: Obj[]): void;
}

const { main, spare } = PerCpuSheaves;
const SIZE = SlabSheaf.size;
const OBJECTS = SlabSheaf.sizeof;

/** Where the object of a sheaf at `index` stands. */
const slot = (sheaf: SheafPtr, index: number): number => (sheaf + OBJECTS + (index << 3)) >> 2;

/** The objects in a sheaf, first in first. */
export function sheaf_objects(sheaf: SheafPtr): Obj[] {
  return Array.from({ length: SIZE.get(sheaf) }, (_, i) => m[slot(sheaf, i)]!);
}

/** Puts an object last in a sheaf that has room. */
export function sheaf_push(sheaf: SheafPtr, object: Obj): void {
  const size = SIZE.get(sheaf);
  m[slot(sheaf, size)] = object;
  SIZE.set(sheaf, size + 1);
}

/** Takes the last object of a sheaf that has some. */
export function sheaf_pop(sheaf: SheafPtr): Obj {
  SIZE.set(sheaf, SIZE.get(sheaf) - 1);
  return m[slot(sheaf, SIZE.get(sheaf))]!;
}

export function this_cpu_sheaves(cache: CachePtr): PcsPtr {
  return KmemCache.cpu_sheaves.get(cache) + r[CPU_OFFSET]!;
}

export function node_barn(cache: CachePtr, node: NodeId): BarnPtr {
  return KmemCache.barns.get(cache) + node * NodeBarn.sizeof;
}

/** The node whose objects this CPU's sheaves hold. */
const local_node = (): NodeId => local_memory_node(numa_node_id());

/** The last object of this CPU's main sheaf; NULL if the slabs have to serve the request. */
export function sheaf_alloc(cache: CachePtr, gfp: number, node: NodeId, below: SlabSide): Obj {
  if (node !== NUMA_NO_NODE && node !== local_node()) return NULL;
  const pcs = this_cpu_sheaves(cache);
  if (SIZE.get(main.get(pcs)) === 0 && !replace_empty_main(cache, pcs, gfp, below)) return NULL;
  const sheaf = main.get(pcs);
  const object = m[slot(sheaf, SIZE.get(sheaf) - 1)]!;
  // A slab of another node may have filled the sheaf, when that node was asked for before.
  if (node !== NUMA_NO_NODE && page_to_nid(virt_to_page(object)) !== node) return NULL;
  SIZE.set(sheaf, SIZE.get(sheaf) - 1);
  stat(cache, ALLOC_CPU_SHEAF);
  return object;
}

/** Puts an object into this CPU's main sheaf; false if it has to go to its slab. */
export function sheaf_free(cache: CachePtr, object: Obj, below: SlabSide): boolean {
  if (page_to_nid(virt_to_page(object)) !== local_node()) return false;
  const pcs = this_cpu_sheaves(cache);
  if (SIZE.get(main.get(pcs)) >= KmemCache.sheaf_capacity.get(cache)) replace_full_main(cache, pcs, below);
  sheaf_push(main.get(pcs), object);
  stat(cache, FREE_CPU_SHEAF);
  return true;
}

function swap_main(pcs: PcsPtr): void {
  const sheaf = main.get(pcs);
  main.set(pcs, spare.get(pcs));
  spare.set(pcs, sheaf);
}

/** Makes main a sheaf with objects; false if there is none to be had. */
function replace_empty_main(cache: CachePtr, pcs: PcsPtr, gfp: number, below: SlabSide): boolean {
  const second = spare.get(pcs);
  if (second !== NULL && SIZE.get(second) > 0) {
    swap_main(pcs);
    return true;
  }
  const barn = node_barn(cache, local_node());
  const from_barn = barn_take(barn, "full");
  if (from_barn !== NULL) {
    stat(cache, BARN_GET);
    put_empty(cache, barn, main.get(pcs), below);
    main.set(pcs, from_barn);
    return true;
  }
  stat(cache, BARN_GET_FAIL);
  if (!gfpflags_allow_blocking(gfp)) return false;
  spare.set(pcs, NULL);
  const sheaf = second || barn_take(barn, "empty") || alloc_empty_sheaf(cache, gfp);
  if (sheaf === NULL) return false;
  if (!refill_sheaf(cache, sheaf, gfp | __GFP_NOMEMALLOC | __GFP_NOWARN, below)) {
    free_empty_sheaf(cache, sheaf, below); // memory is so short that the barn need not have it
    return false;
  }
  if (SIZE.get(main.get(pcs)) === 0) {
    put_empty(cache, barn, main.get(pcs), below);
    main.set(pcs, sheaf);
  } else put_full(cache, barn, sheaf, below);
  return true;
}

/** Makes room in main. */
function replace_full_main(cache: CachePtr, pcs: PcsPtr, below: SlabSide): void {
  const capacity = KmemCache.sheaf_capacity.get(cache);
  const second = spare.get(pcs);
  if (second !== NULL && SIZE.get(second) < capacity) {
    swap_main(pcs);
    return;
  }
  const barn = node_barn(cache, local_node());
  let empty: SheafPtr;
  if (second !== NULL && NodeBarn.nr_full.get(barn) >= MAX_FULL_SHEAVES) {
    stat(cache, BARN_PUT_FAIL);
    spare.set(pcs, NULL);
    flush_sheaf(cache, second, below);
    empty = second;
  } else empty = barn_take(barn, "empty") || alloc_empty_sheaf(cache, GFP_NOWAIT);
  if (empty !== NULL) install_empty(cache, pcs, empty, barn, below);
  else {
    if (second !== NULL) stat(cache, BARN_PUT_FAIL);
    flush_sheaf(cache, main.get(pcs), below);
  }
}

/** Makes an empty sheaf main, if one is still needed. */
function install_empty(cache: CachePtr, pcs: PcsPtr, empty: SheafPtr, barn: BarnPtr, below: SlabSide): void {
  const capacity = KmemCache.sheaf_capacity.get(cache);
  const second = spare.get(pcs);
  if (second === NULL) spare.set(pcs, main.get(pcs));
  else if (SIZE.get(main.get(pcs)) < capacity) return put_empty(cache, barn, empty, below);
  else if (SIZE.get(second) < capacity) {
    swap_main(pcs);
    return put_empty(cache, barn, empty, below);
  } else put_full(cache, barn, main.get(pcs), below);
  main.set(pcs, empty);
}

/** A sheaf of a barn; NULL if it has none of that kind. */
export function barn_take(barn: BarnPtr, kind: "full" | "empty"): SheafPtr {
  const head = NodeBarn[kind].at(barn);
  const count = kind === "full" ? NodeBarn.nr_full : NodeBarn.nr_empty;
  spin_lock(NodeBarn.lock.at(barn));
  const sheaf = list_empty(head) ? NULL : list_next(head) - SlabSheaf.list.offset;
  if (sheaf !== NULL) {
    list_del(SlabSheaf.list.at(sheaf));
    count.set(barn, count.get(barn) - 1);
  }
  spin_unlock(NodeBarn.lock.at(barn));
  return sheaf;
}

/** Puts a sheaf first in its list of the barn; false if that has ten. */
function barn_put(barn: BarnPtr, sheaf: SheafPtr, kind: "full" | "empty"): boolean {
  const count = kind === "full" ? NodeBarn.nr_full : NodeBarn.nr_empty;
  const max = kind === "full" ? MAX_FULL_SHEAVES : MAX_EMPTY_SHEAVES;
  spin_lock(NodeBarn.lock.at(barn));
  const fits = count.get(barn) < max;
  if (fits) {
    list_add(SlabSheaf.list.at(sheaf), NodeBarn[kind].at(barn));
    count.set(barn, count.get(barn) + 1);
  }
  spin_unlock(NodeBarn.lock.at(barn));
  return fits;
}

/** Hands a full sheaf to a barn; one that has ten makes it empty, and may keep it as such. */
export function put_full(cache: CachePtr, barn: BarnPtr, sheaf: SheafPtr, below: SlabSide): void {
  if (barn_put(barn, sheaf, "full")) return stat(cache, BARN_PUT);
  stat(cache, BARN_PUT_FAIL);
  flush_sheaf(cache, sheaf, below);
  put_empty(cache, barn, sheaf, below);
}

/** Hands an empty sheaf to a barn, or back to kmalloc. */
export function put_empty(cache: CachePtr, barn: BarnPtr, sheaf: SheafPtr, below: SlabSide): void {
  if (!barn_put(barn, sheaf, "empty")) free_empty_sheaf(cache, sheaf, below);
}

/** What a request for a sheaf does not take over from the request that needs it. */
const NOT_FOR_SHEAVES = __GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT | __GFP_NOFAIL;

/** A sheaf with nothing in it, NULL without memory. `capacity`: the cache's, unless the caller wants more. */
export function alloc_empty_sheaf(
  cache: CachePtr,
  gfp: number,
  capacity = KmemCache.sheaf_capacity.get(cache),
): SheafPtr {
  if (gfp & __GFP_NO_OBJ_EXT) return NULL;
  const own = KmemCache.flags.get(cache) & SLAB_KMALLOC ? __GFP_NO_OBJ_EXT : 0;
  const sheaf = kmalloc(SlabSheaf.sizeof + capacity * 8, (gfp & ~NOT_FOR_SHEAVES) | own | __GFP_ZERO);
  if (sheaf === NULL) return NULL;
  SlabSheaf.cache.set(sheaf, cache);
  SlabSheaf.capacity.set(sheaf, capacity);
  stat(cache, SHEAF_ALLOC);
  return sheaf;
}

/** Gives an empty sheaf back to kmalloc; one of kmalloc's own caches past their sheaves, so that shrinking them ends. */
export function free_empty_sheaf(cache: CachePtr, sheaf: SheafPtr, below: SlabSide): void {
  const home = KmemCache.flags.get(cache) & SLAB_KMALLOC ? virt_to_cache(sheaf) : NULL;
  if (home === NULL) kfree(sheaf);
  else below.give(home, 1, [sheaf]);
  stat(cache, SHEAF_FREE);
}

/** Fills a sheaf up to its capacity, from slabs; all or nothing. */
export function refill_sheaf(cache: CachePtr, sheaf: SheafPtr, gfp: number, below: SlabSide): boolean {
  const had = SIZE.get(sheaf);
  while (SIZE.get(sheaf) < SlabSheaf.capacity.get(sheaf)) {
    const object = below.take(cache, gfp & ~__GFP_ZERO);
    if (object === NULL) {
      const taken = sheaf_objects(sheaf).slice(had);
      SIZE.set(sheaf, had);
      below.give(cache, taken.length, taken);
      return false;
    }
    sheaf_push(sheaf, object);
  }
  stat_add(cache, SHEAF_REFILL, SIZE.get(sheaf) - had);
  return true;
}

/** Gives what is in a sheaf back to the slabs. */
export function flush_sheaf(cache: CachePtr, sheaf: SheafPtr, below: SlabSide): void {
  const objects = sheaf_objects(sheaf);
  SIZE.set(sheaf, 0);
  stat_add(cache, SHEAF_FLUSH, objects.length);
  below.give(cache, objects.length, objects);
}
