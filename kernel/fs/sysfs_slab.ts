/**
 * /sys/kernel/slab/CACHE/: what each slab cache is and holds, a file an attribute.
 *
 * A cache that could be merged with others has a directory `:LETTERS-SIZE` and a link to it for each of its names; one
 * that could not has a directory of its own name. The instance of a directory is its cache's address.
 */
import type { Ptr } from "../../hal/addr.ts";
import { cpu_is_online } from "../../hal/cpu.ts";
import { Slab, page_to_nid, type SlabPtr } from "../../mm/page.ts";
import {
  KmemCache, SlabAlias, cache_exists, for_each_alias, kmem_cache_shrink, oo_objects, oo_order,
  slab_mergeable, slab_ops, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_CACHE_DMA32, SLAB_CONSISTENCY_CHECKS, SLAB_FAILSLAB, SLAB_HWCACHE_ALIGN,
  SLAB_POISON, SLAB_RECLAIM_ACCOUNT, SLAB_RED_ZONE, SLAB_SKIP_KFENCE, SLAB_STORE_USER, SLAB_TRACE,
  SLAB_TYPESAFE_BY_RCU,
} from "../../mm/slab_layout.ts"; // prettier-ignore
import { count_free, partial_slabs } from "../../mm/slub.ts";
import { cache_cpus, cache_nodes, set_and_flush_cpu_partial } from "../../mm/slub_cache.ts";
import { KmemCacheCpu, KmemCacheNode, STAT_NAMES, slab_inuse, type NodePtr } from "../../mm/slub_slab.ts";
import { EINVAL, ENODEV, ENOENT, ERANGE } from "../lib/errno.ts";
import { ksym, sprint_symbol } from "../lib/ksym.ts";
import { list_next } from "../lib/list.ts";
import { S_IFDIR, S_IFLNK } from "./fs.ts";
import { file_mode, kernfs_new_node } from "./kernfs.ts";
import { slab_names } from "./slab_names.ts";
import { kstrtou } from "./seq_file.ts";
import { sysfs_create } from "./sysfs.ts";

type Reader = (cache: CachePtr) => string | number;
type Writer = (cache: CachePtr, text: string) => number;
interface Attribute {
  readonly name: string;
  readonly show: Reader;
  readonly store?: Writer;
}

/** Total, then ` N0=…` for each node that has some. */
function node_list(by_node: ReadonlyMap<number, number>): string {
  const nodes = [...by_node].filter(([, count]) => count > 0).sort(([a], [b]) => a - b);
  const total = nodes.reduce((sum, [, count]) => sum + count, 0);
  return `${total}${nodes.map(([node, count]) => ` N${node}=${count}`).join("")}`;
}

/** A figure of each node's part, as a node list. */
const per_node = (figure: (n: NodePtr) => number): Reader => (cache) => {
  const counts = new Map<number, number>();
  for (const [node, n] of cache_nodes(cache)) counts.set(node, figure(n));
  return node_list(counts);
}; // prettier-ignore

function inuse_on_partial(n: NodePtr): number {
  const head = KmemCacheNode.partial.at(n);
  let inuse = 0;
  for (let node = list_next(head); node !== head; node = list_next(node))
    inuse += slab_inuse(node - Slab.slab_list.offset);
  return inuse;
}

/** CPU slabs, and the CPU partial lists of those CPUs, each list on its first slab's node. */
function cpu_slabs(cache: CachePtr): string {
  const counts = new Map<number, number>();
  const add = (slab: SlabPtr, by: number): void => {
    const nid = page_to_nid(slab as Ptr);
    counts.set(nid, (counts.get(nid) ?? 0) + by);
  };
  for (const [, c] of cache_cpus(cache)) {
    if (KmemCacheCpu.page.get(c) === 0) continue;
    add(KmemCacheCpu.page.get(c), 1);
    const partial = KmemCacheCpu.partial.get(c);
    if (partial !== 0) add(partial, partial_slabs(partial));
  }
  return node_list(counts);
}

/** Slabs on CPU partial lists, and an estimate of the objects on them: half full. */
function slabs_cpu_partial(cache: CachePtr): string {
  const objects = (slabs: number): number => Math.floor((slabs * oo_objects(KmemCache.oo.get(cache))) / 2);
  let total = 0;
  let text = "";
  for (const [cpu, c] of cache_cpus(cache)) {
    const partial = KmemCacheCpu.partial.get(c);
    const slabs = partial === 0 || !cpu_is_online(cpu) ? 0 : partial_slabs(partial);
    if (slabs > 0) text += ` C${cpu}=${objects(slabs)}(${slabs})`;
    total += slabs;
  }
  return `${objects(total)}(${total})${text}`;
}

function statistic(item: number): Reader {
  return (cache) => {
    let total = 0;
    let text = "";
    for (const [cpu, c] of cache_cpus(cache)) {
      const count = KmemCacheCpu.stat.get(c, item);
      total += count;
      if (count > 0 && cpu_is_online(cpu)) text += ` C${cpu}=${count}`;
    }
    return total + text;
  };
}

function clear_statistic(item: number): Writer {
  return (cache, text) => {
    if (!text.startsWith("0")) return -EINVAL;
    for (const [, c] of cache_cpus(cache)) KmemCacheCpu.stat.set(c, item, 0);
    return 0;
  };
}

function store_cpu_partial(cache: CachePtr, text: string): number {
  const objects = kstrtou(text);
  return objects < 0 ? objects : set_and_flush_cpu_partial(cache, objects);
}

function store_min_partial(cache: CachePtr, text: string): number {
  const slabs = kstrtou(text);
  if (slabs < 0) return slabs;
  KmemCache.min_partial.set(cache, slabs);
  return 0;
}

function store_defrag_ratio(cache: CachePtr, text: string): number {
  const ratio = kstrtou(text);
  if (ratio < 0 || ratio > 100) return ratio < 0 ? ratio : -ERANGE;
  KmemCache.remote_node_defrag_ratio.set(cache, ratio * 10);
  return 0;
}

function store_shrink(cache: CachePtr, text: string): number {
  if (!text.startsWith("1")) return -EINVAL;
  kmem_cache_shrink(cache);
  return 0;
}

/** SLUB validates a cache with slab_debug on it; this kernel has no such caches. */
const store_validate: Writer = () => -EINVAL;

function store_flag(cache: CachePtr, bit: number, on: boolean): number {
  const others = KmemCache.flags.get(cache) & ~bit;
  KmemCache.flags.set(cache, on ? others | bit : others);
  return 0;
}

/** Whether `failslab` with `cache-filter` may strike here. */
function store_failslab(cache: CachePtr, text: string): number {
  if (KmemCache.refcount.get(cache) > 1) return -EINVAL;
  return store_flag(cache, SLAB_FAILSLAB, text.startsWith("1"));
}

function store_skip_kfence(cache: CachePtr, text: string): number {
  return /^[01]/.test(text) ? store_flag(cache, SLAB_SKIP_KFENCE, text.startsWith("1")) : -EINVAL;
}

const flag = (bit: number): Reader => (cache) => Number((KmemCache.flags.get(cache) & bit) !== 0); // prettier-ignore

/** In the order in which Linux makes them. */
const ATTRIBUTES: readonly Attribute[] = Object.freeze([
  { name: "slab_size", show: (c) => KmemCache.size.get(c) },
  { name: "object_size", show: (c) => KmemCache.object_size.get(c) },
  { name: "objs_per_slab", show: (c) => oo_objects(KmemCache.oo.get(c)) },
  { name: "order", show: (c) => oo_order(KmemCache.oo.get(c)) },
  { name: "sheaf_capacity", show: (c) => KmemCache.sheaf_capacity.get(c) },
  { name: "min_partial", show: (c) => KmemCache.min_partial.get(c), store: store_min_partial },
  { name: "cpu_partial", show: (c) => KmemCache.cpu_partial.get(c), store: store_cpu_partial },
  { name: "objects_partial", show: per_node(inuse_on_partial) },
  { name: "partial", show: per_node(KmemCacheNode.nr_partial.get) },
  { name: "cpu_slabs", show: cpu_slabs },
  { name: "ctor", show: (c) => (KmemCache.ctor.get(c) === 0 ? "" : sprint_symbol(KmemCache.ctor.get(c))) },
  { name: "aliases", show: (c) => Math.max(KmemCache.refcount.get(c) - 1, 0) },
  { name: "align", show: (c) => KmemCache.align.get(c) },
  { name: "hwcache_align", show: flag(SLAB_HWCACHE_ALIGN) },
  { name: "reclaim_account", show: flag(SLAB_RECLAIM_ACCOUNT) },
  { name: "destroy_by_rcu", show: flag(SLAB_TYPESAFE_BY_RCU) },
  { name: "shrink", show: () => "", store: store_shrink },
  { name: "slabs_cpu_partial", show: slabs_cpu_partial },
  { name: "total_objects", show: per_node(KmemCacheNode.total_objects.get) },
  { name: "objects", show: per_node((n) => KmemCacheNode.total_objects.get(n) - count_free(n)) },
  { name: "slabs", show: per_node(KmemCacheNode.nr_slabs.get) },
  { name: "sanity_checks", show: flag(SLAB_CONSISTENCY_CHECKS) },
  { name: "trace", show: flag(SLAB_TRACE) },
  { name: "red_zone", show: flag(SLAB_RED_ZONE) },
  { name: "poison", show: flag(SLAB_POISON) },
  { name: "store_user", show: flag(SLAB_STORE_USER) },
  { name: "validate", show: () => "", store: store_validate },
  { name: "cache_dma", show: flag(SLAB_CACHE_DMA) },
  { name: "remote_node_defrag_ratio", show: (c) => Math.floor(KmemCache.remote_node_defrag_ratio.get(c) / 10), store: store_defrag_ratio },
  ...STAT_NAMES.map((name, item) => ({ name, show: statistic(item), store: clear_statistic(item) })),
  { name: "failslab", show: flag(SLAB_FAILSLAB), store: store_failslab },
  { name: "usersize", show: (c) => KmemCache.usersize.get(c) },
  { name: "skip_kfence", show: flag(SLAB_SKIP_KFENCE), store: store_skip_kfence },
] as const satisfies readonly Attribute[]); // prettier-ignore

/** The line of an attribute; a cache that is gone has none, and an attribute without a value is empty. */
const shown = (show: Reader) => (cache: CachePtr): string | number => {
  if (!cache_exists(cache)) return -ENODEV;
  const value = show(cache);
  return value === "" ? "" : `${value}\n`;
}; // prettier-ignore
const stored = (store: Writer): Writer => (cache, text) => (cache_exists(cache) ? store(cache, text) : -ENODEV); // prettier-ignore

const SYMBOLS = Object.freeze(
  ATTRIBUTES.map(({ name, show, store }) => ({
    name,
    mode: file_mode(store ? 0o600 : 0o400),
    show: ksym(`slab_${name}_show`, shown(show)),
    store: store && ksym(`slab_${name}_store`, stored(store)),
  })),
);

const LETTERS = Object.freeze([
  [SLAB_CACHE_DMA, "d"], [SLAB_CACHE_DMA32, "D"], [SLAB_RECLAIM_ACCOUNT, "a"], [SLAB_CONSISTENCY_CHECKS, "F"],
  [SLAB_ACCOUNT, "A"],
] as const); // prettier-ignore

/** The directories, with their caches. */
function slab_directories(): Map<string, CachePtr> {
  const directories = new Map<string, CachePtr>();
  for (const [cache, shown_name] of slab_names()) {
    const name = slab_mergeable(cache) ? unique_id(cache) : shown_name;
    let free = name;
    for (let i = 2; directories.has(free); i++) free = `${name}~${i}`;
    directories.set(free, cache);
  }
  return directories;
}

/** What a cache is, as a name: `:a-0000192`. */
function unique_id(cache: CachePtr): string {
  const letters = LETTERS.map(([bit, letter]) => (KmemCache.flags.get(cache) & bit ? letter : "")).join("");
  return `:${letters}${letters ? "-" : ""}${String(KmemCache.size.get(cache)).padStart(7, "0")}`;
}

/** Names that are links, with their caches. */
function slab_links(): Map<string, CachePtr> {
  const names = slab_names();
  const taken = new Set(names.values());
  const links = new Map<string, CachePtr>();
  for (const [cache, name] of names) if (slab_mergeable(cache)) links.set(name, cache);
  for (const alias of for_each_alias()) {
    const name = SlabAlias.name.get(alias);
    if (!taken.has(name) && !links.has(name)) links.set(name, SlabAlias.cache.get(alias));
  }
  return links;
}

function link_target(cache: CachePtr): string {
  for (const [name, of] of slab_directories()) if (of === cache) return name;
  return unique_id(cache);
}

const symbols = {
  names: ksym("sysfs_slab_names", () => [...slab_directories().keys()]),
  find: ksym("sysfs_slab_find", (_parent: number, name: string) => slab_directories().get(name) ?? -ENOENT),
  link_names: ksym("sysfs_slab_link_names", () => [...slab_links().keys()]),
  link_find: ksym("sysfs_slab_link_find", (_parent: number, name: string) => slab_links().get(name) ?? -ENOENT),
  link: ksym("sysfs_slab_link", link_target),
} as const;

/** Boot: makes the directories. */
export function sysfs_slab_init(): void {
  if (slab_ops().name !== "slub") return;
  const { names, find, link_names, link_find, link } = symbols;
  const directory = sysfs_create("kernel/slab/CACHE", { mode: S_IFDIR | 0o755, names, find });
  sysfs_create("kernel/slab/ALIAS", { mode: S_IFLNK | 0o777, names: link_names, find: link_find, show: link });
  if (directory > 0) for (const { name, ...spec } of SYMBOLS) kernfs_new_node(directory, name, spec);
}
