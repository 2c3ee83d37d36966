/**
 * Sheaves (mm/sheaf.ts) over the life of a cache: made, flushed, shrunk, released, checked; and what kfree_rcu collects.
 *
 *     kfree_rcu(object)  ->  this CPU's rcu_free sheaf  -- full -->  call_rcu  -- grace period -->  barn, a full sheaf
 *                                                       -- flush_rcu -->  call_rcu  ------------->  slabs
 *
 * Invariants, checked by `check_sheaves`: no sheaf holds more than its capacity; a barn's counts are its lists' lengths,
 * at most ten each, its full sheaves full and its empty ones empty; each object is one of the cache's and stands once.
 */
import { NULL, px, type Obj, type Ptr } from "../hal/addr.ts";
import { nr_cpu_ids, numa_node_id } from "../hal/cpu.ts";
import { per_cpu_ptr } from "../hal/image.ts";
import { ENOMEM } from "../kernel/lib/errno.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { init_list_head, list_count, list_next } from "../kernel/lib/list.ts";
import { call_rcu, type RcuHeadPtr } from "../kernel/lib/rcu.ts";
import { GFP_KERNEL, GFP_NOWAIT, __GFP_ZERO } from "./gfp.ts";
import { kfree, kmalloc } from "./kmalloc.ts";
import { Slab, page_address, page_is_slab, page_to_nid, virt_to_head_page } from "./page.ts";
import { alloc_percpu, free_percpu } from "./percpu.ts";
import {
  MAX_EMPTY_SHEAVES, MAX_FULL_SHEAVES, NodeBarn, PerCpuSheaves, SlabSheaf, alloc_empty_sheaf, barn_take, flush_sheaf,
  free_empty_sheaf, node_barn, put_full, sheaf_objects, sheaf_push, this_cpu_sheaves, type BarnPtr, type SheafPtr,
} from "./sheaf.ts"; // prettier-ignore
import { KmemCache, type CachePtr } from "./slab_common.ts";
import { SLAB_DEBUG_FLAGS } from "./slab_layout.ts";
import { set_fast_path, slabs } from "./slub.ts";
import { FREE_RCU_SHEAF, FREE_RCU_SHEAF_FAIL, stat } from "./slub_slab.ts";
import { local_memory_node, node_state } from "./zone.ts";

const { main, spare, rcu_free } = PerCpuSheaves;

/** True if the cache has sheaves. */
export function has_sheaves(cache: CachePtr): boolean {
  return KmemCache.cpu_sheaves.get(cache) !== NULL;
}

/** Gives a cache sheaves of `capacity` objects; a debugged cache gets none. 0 or -ENOMEM. */
export function init_sheaves(cache: CachePtr, capacity: number): number {
  if (capacity === 0 || KmemCache.flags.get(cache) & SLAB_DEBUG_FLAGS) return 0;
  const nodes = node_state.nr_node_ids;
  const barns = kmalloc(nodes * NodeBarn.sizeof, GFP_KERNEL | __GFP_ZERO);
  const sheaves = barns === NULL ? NULL : alloc_percpu(PerCpuSheaves.sizeof, 64);
  if (sheaves === NULL) {
    kfree(barns);
    return -ENOMEM;
  }
  KmemCache.sheaf_capacity.set(cache, capacity);
  KmemCache.barns.set(cache, barns);
  for (let node = 0; node < nodes; node++) {
    init_list_head(NodeBarn.full.at(node_barn(cache, node)));
    init_list_head(NodeBarn.empty.at(node_barn(cache, node)));
  }
  let error = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const sheaf = error ? NULL : alloc_empty_sheaf(cache, GFP_KERNEL);
    main.set(per_cpu_ptr(sheaves, cpu), sheaf);
    if (sheaf === NULL) error = -ENOMEM;
  }
  KmemCache.cpu_sheaves.set(cache, sheaves);
  if (error) release_sheaves(cache);
  set_fast_path(cache);
  return error;
}

/** Gives back all that is empty; the cache has no sheaves then. Context: flushed and shrunk, or never used. */
export function release_sheaves(cache: CachePtr): void {
  if (!has_sheaves(cache)) return;
  const sheaves = KmemCache.cpu_sheaves.get(cache);
  KmemCache.cpu_sheaves.set(cache, NULL);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const sheaf = main.get(per_cpu_ptr(sheaves, cpu));
    if (sheaf !== NULL) free_empty_sheaf(cache, sheaf, slabs);
  }
  free_percpu(sheaves);
  kfree(KmemCache.barns.get(cache));
}

/** Gives the objects of this CPU's sheaves back to their slabs; main alone stays, empty. */
export function flush_cpu_sheaves(cache: CachePtr): void {
  if (!has_sheaves(cache)) return;
  const pcs = this_cpu_sheaves(cache);
  const second = spare.get(pcs);
  spare.set(pcs, NULL);
  if (second !== NULL) drop_sheaf(cache, second);
  flush_sheaf(cache, main.get(pcs), slabs);
  flush_rcu_sheaf(cache);
}

/** Empties and frees every sheaf of the cache's barns. */
export function shrink_barns(cache: CachePtr): void {
  if (!has_sheaves(cache)) return;
  for (let node = 0; node < node_state.nr_node_ids; node++)
    for (const kind of ["full", "empty"] as const) {
      const barn = node_barn(cache, node);
      for (let sheaf = barn_take(barn, kind); sheaf !== NULL; sheaf = barn_take(barn, kind)) drop_sheaf(cache, sheaf);
    }
}

/** Empties a sheaf into slabs and frees it. */
export function drop_sheaf(cache: CachePtr, sheaf: SheafPtr): void {
  flush_sheaf(cache, sheaf, slabs);
  free_empty_sheaf(cache, sheaf, slabs);
}

/** Puts an object into this CPU's rcu_free sheaf; false if it has to wait for its grace period alone. */
export function free_rcu_sheaf(cache: CachePtr, object: Obj): boolean {
  const node = local_memory_node(numa_node_id());
  if (!has_sheaves(cache) || page_to_nid(virt_to_head_page(object)) !== node) return false;
  const pcs = this_cpu_sheaves(cache);
  const sheaf = rcu_free.get(pcs) || empty_sheaf(cache, pcs, node);
  if (sheaf === NULL) {
    stat(cache, FREE_RCU_SHEAF_FAIL);
    return false;
  }
  sheaf_push(sheaf, object);
  const full = SlabSheaf.size.get(sheaf) >= KmemCache.sheaf_capacity.get(cache);
  rcu_free.set(pcs, full ? NULL : sheaf);
  if (full) call_rcu(sheaf as Ptr as RcuHeadPtr, rcu_full_sheaf);
  stat(cache, FREE_RCU_SHEAF);
  return true;
}

function empty_sheaf(cache: CachePtr, pcs: Ptr<"slub_percpu_sheaves">, node: number): SheafPtr {
  const second = spare.get(pcs);
  if (second === NULL || SlabSheaf.size.get(second) > 0)
    return barn_take(node_barn(cache, node), "empty") || alloc_empty_sheaf(cache, GFP_NOWAIT);
  spare.set(pcs, NULL);
  return second;
}

/** Hands this CPU's rcu_free sheaf to RCU as it is; its objects go to slabs, not to a barn. */
export function flush_rcu_sheaf(cache: CachePtr): void {
  if (!has_sheaves(cache)) return;
  const pcs = this_cpu_sheaves(cache);
  const sheaf = rcu_free.get(pcs);
  rcu_free.set(pcs, NULL);
  if (sheaf !== NULL) call_rcu(sheaf as Ptr as RcuHeadPtr, rcu_part_of_sheaf);
}

// The rcu_head lies over `list`, at the start of a sheaf. The callbacks run on the CPU that filled it.
const rcu_full_sheaf = ksym("rcu_free_sheaf", (sheaf: SheafPtr): void => {
  const cache = SlabSheaf.cache.get(sheaf);
  put_full(cache, node_barn(cache, local_memory_node(numa_node_id())), sheaf, slabs);
});
const rcu_part_of_sheaf = ksym("rcu_free_sheaf_nobarn", (sheaf: SheafPtr): void =>
  drop_sheaf(SlabSheaf.cache.get(sheaf), sheaf),
);

/** Every sheaf with free objects for the next caller, and where it is: `cpu 0 main`, `node 1 full`. */
export function* cache_sheaves(cache: CachePtr): Generator<[where: string, sheaf: SheafPtr]> {
  if (!has_sheaves(cache)) return;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const pcs = per_cpu_ptr(KmemCache.cpu_sheaves.get(cache), cpu);
    yield [`cpu ${cpu} main`, main.get(pcs)];
    if (spare.get(pcs) !== NULL) yield [`cpu ${cpu} spare`, spare.get(pcs)];
  }
  for (let node = 0; node < node_state.nr_node_ids; node++)
    for (const kind of ["full", "empty"] as const)
      for (const sheaf of barn_sheaves(node_barn(cache, node), kind)) yield [`node ${node} ${kind}`, sheaf];
}

/** The sheaves of one list of a barn; the walk ends even if the list is broken. */
function* barn_sheaves(barn: BarnPtr, kind: "full" | "empty"): Generator<SheafPtr> {
  const head = NodeBarn[kind].at(barn);
  let bound = MAX_FULL_SHEAVES;
  for (let node = list_next(head); node !== head && bound-- > 0; node = list_next(node))
    yield node - SlabSheaf.list.offset;
}

/** Checks a cache's sheaves and returns how many objects wait in them; those on the way through RCU are not counted. */
export function check_sheaves(cache: CachePtr, findings: string[]): number {
  const name = KmemCache.name.get(cache);
  const seen = new Set<Obj>();
  for (const [where, sheaf] of cache_sheaves(cache)) {
    const size = SlabSheaf.size.get(sheaf);
    const capacity = SlabSheaf.capacity.get(sheaf);
    const wrong = where.endsWith("full") ? size !== capacity : where.endsWith("empty") ? size !== 0 : size > capacity;
    if (wrong) findings.push(`${name}: ${where}: a sheaf holds ${size} objects of ${capacity}`);
    if (SlabSheaf.cache.get(sheaf) !== cache) findings.push(`${name}: ${where}: a sheaf of another cache`);
    for (const object of size > capacity ? [] : sheaf_objects(sheaf)) {
      const slab = virt_to_head_page(object);
      const at = object - page_address(slab) - KmemCache.red_left_pad.get(cache);
      const foreign =
        !page_is_slab(slab) || Slab.slab_cache.get(slab) !== cache || at % KmemCache.size.get(cache) !== 0;
      if (foreign) findings.push(`${name}: ${where}: ${px(object)} is no object of the cache`);
      if (seen.has(object)) findings.push(`${name}: ${where}: ${px(object)} stands in two places`);
      seen.add(object);
    }
  }
  if (has_sheaves(cache)) for (let node = 0; node < node_state.nr_node_ids; node++) check_barn(cache, node, findings);
  return seen.size;
}

function check_barn(cache: CachePtr, node: number, findings: string[]): void {
  const barn = node_barn(cache, node);
  for (const [kind, count, max] of [
    ["full", NodeBarn.nr_full.get(barn), MAX_FULL_SHEAVES],
    ["empty", NodeBarn.nr_empty.get(barn), MAX_EMPTY_SHEAVES],
  ] as const) {
    const found = list_count(NodeBarn[kind].at(barn), max + 1);
    if (found !== count || count > max)
      findings.push(`${KmemCache.name.get(cache)}: node ${node}: ${count} ${kind} sheaves counted, ${found} found`);
  }
}
