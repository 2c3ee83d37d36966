/**
 * SLAB: counts what a cache holds and, if asked for findings, checks every slab, list, array and counter of it. Walks are
 * bounded by what the counters say, so a broken list ends too.
 */
import { NULL, px, type NodeId, type Obj, type Ptr } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { per_cpu_ptr } from "../hal/image.ts";
import { cmdline_bool } from "../kernel/lib/cmdline.ts";
import { list_next, type ListPtr } from "../kernel/lib/list.ts";
import { mem_map_state, page_is_slab, pfn_valid, type PagePtr } from "./page.ts";
import { KmemCache, oo_order, type CachePtr, type SlabInfo } from "./slab_common.ts";
import { slab_at } from "./slab_node.ts";
import {
  ALLOCATED, ALLOC_HIT, ALLOC_MISS, ArrayCache, FREE_HIT, FREE_MISS, GROWN, NODE_ALLOCS, NODE_FREES, OVERFLOWS, REAPED,
  SlabCache, SlabCpu, SlabNode, SlabPage, ac_entry, alien_array, alien_of, cache_nodes, slab_index, slab_nid, slab_num,
  virt_to_slab, type ArrayPtr, type NodePtr, type SlabPtr,
} from "./slab_page.ts"; // prettier-ignore
import { node_state } from "./zone.ts";

type ListName = "slabs_partial" | "slabs_full" | "slabs_free";
export const SLAB_LISTS: readonly ListName[] = Object.freeze(["slabs_partial", "slabs_full", "slabs_free"]);

/** The slabs of one of a node's lists, from the front. */
export function* list_slabs(n: NodePtr, list: ListName): Generator<SlabPtr> {
  const head = SlabNode[list].at(n);
  let bound = SlabNode.total_slabs.get(n) + 1;
  for (let at: ListPtr = list_next(head); at !== head && bound-- > 0 && in_mem_map(at); at = list_next(at))
    yield slab_at(at);
}

function in_mem_map(ptr: ListPtr): boolean {
  return pfn_valid((ptr - mem_map_state.mem_map) >> 6);
}

/** Every array of a cache, and where it is: "cpu 0", "node 0 shared", "node 0 alien 1". */
export function* cache_arrays(cache: CachePtr): Generator<[where: string, node: NodeId, ac: ArrayPtr]> {
  const cpu_cache = SlabCache.cpu_cache.get(cache);
  for (let cpu = 0; cpu < nr_cpu_ids() && cpu_cache !== NULL; cpu++) {
    const c = per_cpu_ptr(cpu_cache, cpu);
    yield [`cpu ${cpu}`, SlabCpu.home.get(c), SlabCpu.array.at(c)];
  }
  for (const [node, n] of cache_nodes(cache)) {
    if (SlabNode.shared.get(n) !== NULL) yield [`node ${node} shared`, node, SlabNode.shared.get(n)];
    for (let other = 0; other < node_state.nr_node_ids; other++) {
      const alien = alien_of(n, other);
      if (alien !== NULL) yield [`node ${node} alien ${other}`, other, alien_array(alien)];
    }
  }
}

/** The objects in an array, oldest first. */
export function* array_objects(ac: ArrayPtr): Generator<Obj> {
  const avail = Math.min(ArrayCache.avail.get(ac), ArrayCache.limit.get(ac));
  for (let i = 0; i < avail; i++) yield ac_entry(ac, i);
}

/** Counts; with `findings`, checks all. */
export function inspect(cache: CachePtr, findings?: string[]): SlabInfo {
  const num = slab_num(cache);
  const info: SlabInfo = {
    active_objs: 0, num_objs: 0, active_slabs: 0, num_slabs: 0, shared_avail: 0, live_objs: 0,
    limit: SlabCache.limit.get(cache), batchcount: SlabCache.batchcount.get(cache), shared: SlabCache.shared.get(cache),
    objects_per_slab: num, cache_order: oo_order(KmemCache.oo.get(cache)),
  }; // prettier-ignore
  for (const [, n] of cache_nodes(cache)) {
    info.num_slabs += SlabNode.total_slabs.get(n);
    info.active_slabs += SlabNode.total_slabs.get(n) - SlabNode.free_slabs.get(n);
    info.active_objs -= SlabNode.free_objects.get(n);
    const shared = SlabNode.shared.get(n);
    if (shared !== NULL) info.shared_avail += ArrayCache.avail.get(shared);
  }
  info.num_objs = info.num_slabs * num;
  info.active_objs += info.num_objs;
  info.live_objs = info.active_objs;
  for (const [, , ac] of cache_arrays(cache)) info.live_objs -= ArrayCache.avail.get(ac);
  if (findings) check_cache(cache, findings);
  return info;
}

function check_cache(cache: CachePtr, findings: string[]): void {
  const name = KmemCache.name.get(cache);
  for (const [node, n] of cache_nodes(cache)) check_node(cache, `${name}: node ${node}`, n, findings);
  const idle = new Map<Obj, string>();
  for (const [where, node, ac] of cache_arrays(cache))
    check_array(cache, `${name}: ${where}`, node, ac, idle, findings);
}

function check_node(cache: CachePtr, where: string, n: NodePtr, findings: string[]): void {
  const expect = (what: string, counter: number, found: number): void => {
    if (counter !== found) findings.push(`${where}: ${counter} ${what} counted, ${found} found`);
  };
  const num = slab_num(cache);
  let [slabs, free] = [0, 0];
  for (const list of SLAB_LISTS) {
    const before = slabs;
    for (const slab of list_slabs(n, list)) {
      slabs++;
      if (!check_slab(cache, where, slab, SlabNode.node.get(n), findings)) continue;
      const active = SlabPage.active.get(slab);
      free += num - active;
      const belongs = active === num ? "slabs_full" : active === 0 ? "slabs_free" : "slabs_partial";
      if (belongs !== list) findings.push(`${where}: a slab with ${active} of ${num} active is on ${list}`);
    }
    if (list === "slabs_free") expect("free slabs", SlabNode.free_slabs.get(n), slabs - before);
  }
  expect("slabs", SlabNode.total_slabs.get(n), slabs);
  expect("free objects", SlabNode.free_objects.get(n), free);
}

/** False if the slab cannot be looked into. */
function check_slab(cache: CachePtr, where: string, slab: SlabPtr, node: NodeId, findings: string[]): boolean {
  const at = `${where}: slab at page ${px(slab)}`;
  if (!page_is_slab(slab as Ptr as PagePtr) || SlabPage.slab_cache.get(slab) !== cache) {
    findings.push(`${at} is no slab of the cache`);
    return false;
  }
  if (slab_nid(slab) !== node) findings.push(`${at} lies on another node`);
  const active = SlabPage.active.get(slab);
  const num = slab_num(cache);
  const seen = new Set<number>();
  for (let i = active; i < num; i++) seen.add(slab_index(slab, i));
  if (active > num || seen.size !== num - active || [...seen].some((index) => index >= num))
    findings.push(`${at}: the index array does not name ${num - active} free objects`);
  return true;
}

/** Each entry is an object of the cache that is off its slab, of the array's node, and in no other array. */
function check_array(
  cache: CachePtr,
  where: string,
  node: NodeId,
  ac: ArrayPtr,
  idle: Map<Obj, string>,
  findings: string[],
): void {
  // prettier-ignore
  if (ArrayCache.avail.get(ac) > ArrayCache.limit.get(ac))
    findings.push(`${where}: ${ArrayCache.avail.get(ac)} objects, ${ArrayCache.limit.get(ac)} allowed`);
  for (const object of array_objects(ac)) {
    const wrong = entry_fault(cache, node, object) ?? (idle.has(object) ? `is in ${idle.get(object)} too` : undefined);
    if (wrong !== undefined) findings.push(`${where}: ${px(object)} ${wrong}`);
    idle.set(object, where);
  }
}

function entry_fault(cache: CachePtr, node: NodeId, object: Obj): string | undefined {
  const slab = pfn_valid(object >>> 12) ? virt_to_slab(object) : NULL;
  if (slab === NULL || !page_is_slab(slab as Ptr as PagePtr) || SlabPage.slab_cache.get(slab) !== cache)
    return "is in no slab of the cache";
  if (node >= 0 && slab_nid(slab) !== node) return "is of another node";
  const index = (object - SlabPage.s_mem.get(slab)) / KmemCache.size.get(cache);
  if (!Number.isInteger(index) || index < 0 || index >= slab_num(cache)) return "is no object";
  for (let i = SlabPage.active.get(slab); i < slab_num(cache); i++)
    if (slab_index(slab, i) === index) return "is in its slab's index array too";
  return undefined;
}

/** The counters that Linux shows if it is built with CONFIG_DEBUG_SLAB; here with slab_stats=on. */
export function slabinfo_stats(cache: CachePtr): string {
  if (!cmdline_bool(false, "slab_stats")) return "";
  const of = (item: number): number => counter(cache, item);
  const globals = [
    [of(ALLOCATED), 7], [SlabCache.high_mark.get(cache), 6], [of(GROWN), 5], [of(REAPED), 4], [0, 4],
    [SlabCache.max_freeable.get(cache), 4], [of(NODE_ALLOCS), 4], [of(NODE_FREES), 4], [of(OVERFLOWS), 4],
  ] as const; // prettier-ignore
  const cpus = [ALLOC_HIT, ALLOC_MISS, FREE_HIT, FREE_MISS].map((item) => String(of(item)).padStart(6));
  return ` : globalstat ${globals.map(([value, width]) => String(value).padStart(width)).join(" ")} : cpustat ${cpus.join(" ")}`;
}

/** A counter, summed over all CPUs. */
export function counter(cache: CachePtr, item: number): number {
  let sum = 0;
  const cpu_cache = SlabCache.cpu_cache.get(cache);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) sum += SlabCpu.stat.get(per_cpu_ptr(cpu_cache, cpu), item);
  return sum;
}
