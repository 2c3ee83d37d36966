/**
 * The figure of every SLUB text, drawn from RAM: both tables of a cache, and each slab as a row of its objects.
 *
 *     kmem_cache_cpu   freelist  page  partial      kmem_cache_node  partial  full
 *       cpu 0          B1        B     -              node 0         -        A
 *
 *       A  full   node 0  ffff888002f40000  ##########################  26/26
 *       B  cpu 0  node 0  ffff888002f42000  #123456789abcdefghijklmnop   1/26
 *
 * It is read without a lock and without trust: each pointer is checked before it is followed and each walk is bounded
 * by what the slab can hold, so that a figure of a broken cache ends too, and says in `broken` what it met.
 *
 * An object is free if it is on its slab's own list or on the list of the CPU whose `page` the slab is; the CPU's comes
 * first, since that is the order in which they are handed out. Full slabs that are on no list (slab_full=off) are those
 * with every object in use and no CPU as owner.
 */
import { NULL, px, type NodeId, type Obj, type Ptr } from "../../hal/addr.ts";
import { CPU_OFFSET, cpu_regs, nr_cpu_ids } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { list_next, type ListPtr } from "../../kernel/lib/list.ts";
import { Slab, page_to_nid, type SlabPtr } from "../../mm/page.ts";
import {
  MAX_FULL_SHEAVES,
  NodeBarn,
  PerCpuSheaves,
  SlabSheaf,
  node_barn,
  sheaf_objects,
  type SheafPtr,
} from "../../mm/sheaf.ts";
import { KmemCache, cache_exists, oo_objects, oo_order, slab_data, type CachePtr } from "../../mm/slab_common.ts";
import { MAX_OBJS_PER_PAGE, format_slab_flags } from "../../mm/slab_layout.ts";
import {
  ALLOC_CPU_SHEAF, ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH, KmemCacheCpu, KmemCacheNode,
  SHEAF_REFILL, get_freepointer, slab_address, slab_freelist, type CpuPtr, type NodePtr,
} from "../../mm/slub_slab.ts"; // prettier-ignore
import { for_each_online_node, node_state } from "../../mm/zone.ts";
import { in_ram, letters, plural } from "./names.ts";
import { cpu_lines, draw_rows, fit, side_by_side, title_lines, type SlabRow } from "./slab_rows.ts";
import { by_birth, cache_nodes, is_slab_of, type InSlab, type SlabPlace, type SlabView } from "./view.ts";

export interface CpuRow {
  readonly cpu: number;
  /** The next free object, by name; null where the CPU has none. */
  readonly freelist: string | null;
  readonly page: string | null;
  readonly partial: string[];
}
export interface NodeRow {
  readonly node: number;
  readonly partial: string[];
  readonly full: string[];
}
/** What `slab NAME --json` prints. */
export interface SlabFigure {
  readonly name: string;
  readonly object_size: number;
  readonly slab_size: number;
  readonly objs_per_slab: number;
  readonly order: number;
  readonly flags: string;
  readonly cpu: CpuRow[];
  readonly node: NodeRow[];
  readonly slabs: SlabRow[];
  /** What is wrong with the lists; absent if nothing is. */
  readonly broken?: string[];
}

/** Every slab of a cache in order of birth; what is wrong with the lists is added to `broken`. */
function slabs_of(cache: CachePtr, broken: string[] = []): SlabPtr[] {
  const all: SlabPtr[] = [];
  for (const [node, n] of cache_nodes(cache)) {
    const expected = KmemCacheNode.nr_slabs.get(n);
    let found = 0;
    let slab = KmemCacheNode.slabs_first.get(n);
    for (; slab !== NULL && found < expected && is_slab_of(cache, slab); slab = Slab.slabs_next.get(slab), found++)
      all.push(slab);
    if (slab !== NULL || found !== expected)
      broken.push(`node ${node}: ${plural(expected, "slab")} counted, list of slabs is broken behind ${found}`);
  }
  return by_birth(all);
}

/** What CPU `cpu` keeps of a cache. */
function cpu_part(cache: CachePtr, cpu: number): CpuPtr {
  return per_cpu_ptr(KmemCache.cpu_slab.get(cache), cpu);
}

/** Objects of a slab, at most what the word that counts them can say. */
function objects_of(slab: SlabPtr): number {
  return Math.min(Slab.objects.get(slab), MAX_OBJS_PER_PAGE);
}

/** Index of the object that starts at `object`; -1 if none of the slab's objects does. */
function object_index(cache: CachePtr, slab: SlabPtr, object: Obj): number {
  const offset = object - slab_address(slab) - KmemCache.red_left_pad.get(cache);
  const index = offset / KmemCache.size.get(cache);
  return Number.isInteger(index) && index >= 0 && index < objects_of(slab) ? index : -1;
}

/** Adds the indices of a list of free objects to `free`; false if the list leaves the slab or meets an object twice. */
function walk_free(cache: CachePtr, slab: SlabPtr, head: Obj, free: Set<number>): boolean {
  for (let object = head; object !== NULL; object = get_freepointer(cache, object)) {
    const index = object_index(cache, slab, object);
    if (index < 0 || free.has(index)) return false;
    free.add(index);
  }
  return true;
}

/** Free objects of a slab in the order in which they will be handed out, and what was wrong with the lists. */
function free_objects(cache: CachePtr, slab: SlabPtr): { free: number[]; broken: boolean } {
  const free = new Set<number>();
  let broken = false;
  if (KmemCache.cpu_slab.get(cache) !== NULL)
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
      const c = cpu_part(cache, cpu);
      if (KmemCacheCpu.page.get(c) !== slab) continue;
      if (!walk_free(cache, slab, KmemCacheCpu.freelist.get(c), free)) broken = true;
    }
  if (!walk_free(cache, slab, slab_freelist(cache, slab), free)) broken = true;
  return { free: [...free], broken };
}

/** The objects in a sheaf; none where its words are broken. */
function in_sheaf(sheaf: SheafPtr): Obj[] {
  if (!in_ram(sheaf)) return [];
  const sound = SlabSheaf.size.get(sheaf) <= SlabSheaf.capacity.get(sheaf) && SlabSheaf.capacity.get(sheaf) <= 0xffff;
  return sound ? sheaf_objects(sheaf) : [];
}

/** Free objects that lie in sheaves instead of on a list of their slab, and where. */
function sheaved_objects(cache: CachePtr): Map<Obj, string> {
  const found = new Map<Obj, string>();
  if (KmemCache.cpu_sheaves.get(cache) === NULL) return found;
  const add = (sheaf: SheafPtr, where: string): void => in_sheaf(sheaf).forEach((object) => found.set(object, where));
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const pcs = per_cpu_ptr(KmemCache.cpu_sheaves.get(cache), cpu);
    for (const which of ["main", "spare", "rcu_free"] as const)
      add(PerCpuSheaves[which].get(pcs), `cpu ${cpu}'s ${which} sheaf`);
  }
  for (const node of for_each_online_node()) {
    const head = NodeBarn.full.at(node_barn(cache, node));
    let bound = MAX_FULL_SHEAVES;
    for (let at = list_next(head); at !== head && in_ram(at) && bound-- > 0; at = list_next(at))
      add(at - SlabSheaf.list.offset, `a sheaf in node ${node}'s barn`);
  }
  return found;
}

/** The figure while it is put together. */
interface Drawing {
  readonly cache: CachePtr;
  readonly ids: Map<SlabPtr, string>;
  readonly sheaved: Map<Obj, string>;
  readonly on: Map<SlabPtr, string>;
  readonly broken: string[];
}

/** Names of the slabs on a list that `next` walks; notes for each where it is. Stops at what is no slab of the cache. */
function walk_slabs(d: Drawing, where: string, first: SlabPtr, next: (slab: SlabPtr) => SlabPtr): string[] {
  const found: string[] = [];
  for (let slab = first; slab !== NULL; slab = next(slab)) {
    const id = d.ids.get(slab);
    if (id === undefined || d.on.has(slab)) {
      const what =
        id === undefined ? "leads to what is no slab of the cache" : `meets ${id}, which is on ${d.on.get(slab)}`;
      d.broken.push(`list "${where}" ${what}`);
      break;
    }
    d.on.set(slab, where);
    found.push(id);
  }
  return found;
}

/** The same for a list with a head; `prev` links are left to `validate`. */
function walk_list(d: Drawing, where: string, head: ListPtr): string[] {
  const slab_at = (node: ListPtr): SlabPtr => (node === head ? NULL : node - Slab.slab_list.offset);
  const next = (slab: SlabPtr): SlabPtr => slab_at(list_next(Slab.slab_list.at(slab)));
  return walk_slabs(d, where, slab_at(list_next(head)), next);
}

function object_name(d: Drawing, object: Obj): string | null {
  if (object === NULL) return null;
  for (const [slab, id] of d.ids) {
    const index = object_index(d.cache, slab, object);
    if (index >= 0) return `${id}${index}`;
  }
  return in_ram(object) ? px(object) : `0x${(object >>> 0).toString(16)}`;
}

function cpu_row(d: Drawing, cpu: number): CpuRow {
  if (KmemCache.cpu_slab.get(d.cache) === NULL) return { cpu, freelist: null, page: null, partial: [] };
  const c = cpu_part(d.cache, cpu);
  const page = walk_slabs(d, `cpu ${cpu}`, KmemCacheCpu.page.get(c), () => NULL);
  const next = (slab: SlabPtr): SlabPtr => list_next(Slab.slab_list.at(slab)) as number;
  const partial = walk_slabs(d, `cpu ${cpu} partial`, KmemCacheCpu.partial.get(c), next);
  return { cpu, freelist: object_name(d, KmemCacheCpu.freelist.get(c)), page: page[0] ?? null, partial };
}

function slab_row(d: Drawing, slab: SlabPtr): SlabRow {
  const { free, broken } = free_objects(d.cache, slab);
  const id = d.ids.get(slab)!;
  const objects = objects_of(slab);
  if (broken) d.broken.push(`slab ${id}: a free list leaves the slab or meets an object twice, behind ${free.length}`);
  const place = d.on.get(slab) ?? (free.length === 0 && !broken ? "full" : "none");
  const inuse = objects - free.length;
  const indices = [...d.sheaved.keys()].map((object) => object_index(d.cache, slab, object)).filter((i) => i >= 0);
  const row = { id, page: px(slab_address(slab)), node: page_to_nid(slab as never), on: place, inuse, free, objects };
  return KmemCache.cpu_sheaves.get(d.cache) === NULL ? row : { ...row, sheaved: indices.sort((a, b) => a - b) };
}

/** Reads a cache from RAM. */
function slab_figure(cache: CachePtr): SlabFigure {
  const broken: string[] = [];
  const slabs = slabs_of(cache, broken);
  const d: Drawing = {
    cache,
    ids: new Map(slabs.map((slab, i) => [slab, letters(i)])),
    on: new Map(),
    broken,
    sheaved: sheaved_objects(cache),
  };
  const cpu = Array.from({ length: nr_cpu_ids() }, (_, i) => cpu_row(d, i));
  const tracked = slab_data.track_full !== 0;
  const lists = (node: NodeId, n: NodePtr): NodeRow => ({
    node,
    partial: walk_list(d, "partial", KmemCacheNode.partial.at(n)),
    full: tracked ? walk_list(d, "full", KmemCacheNode.full.at(n)) : [],
  });
  const node = cache_nodes(cache).map(([id, n]) => lists(id, n));
  const rows = slabs.map((slab) => slab_row(d, slab));
  if (!tracked)
    for (const row of rows) if (row.on === "full") node.find((part) => part.node === row.node)!.full.push(row.id);
  const oo = KmemCache.oo.get(cache);
  return {
    name: KmemCache.name.get(cache),
    object_size: KmemCache.object_size.get(cache),
    slab_size: KmemCache.size.get(cache),
    objs_per_slab: oo_objects(oo),
    order: oo_order(oo),
    flags: format_slab_flags(KmemCache.flags.get(cache)),
    cpu,
    node,
    slabs: rows,
    ...(broken.length > 0 && { broken }),
  };
}

/** Where a slab of the cache is: "cpu 0", "partial", … */
function slab_place(cache: CachePtr, slab: SlabPtr): SlabPlace {
  const page = px(slab_address(slab));
  return slab_figure(cache).slabs.find((row) => row.page === page) ?? { id: "?", on: "none" };
}

function node_line(row: NodeRow): string {
  return `  node ${row.node}`.padEnd(17) + fit(row.partial, 8).padEnd(9) + fit(row.full, 8);
}

/** The two tables side by side. */
function table_lines(figure: SlabFigure): string[] {
  const rows = figure.cpu.map(({ cpu, freelist, page, partial }) => {
    return {
      cpu,
      cells: `${(freelist ?? "NULL").slice(0, 9).padEnd(10)}${(page ?? "-").padEnd(6)}${fit(partial, 12)}`,
    };
  });
  const left = ["kmem_cache_cpu   freelist  page  partial", ...cpu_lines(rows, 17)];
  return side_by_side(left, ["kmem_cache_node  partial  full", ...figure.node.map(node_line)], 46);
}

/** The figure as text, at most 80 columns. */
function draw_slab(figure: SlabFigure, all: boolean): string {
  const { name, slabs } = figure;
  const lines = title_lines(figure);
  lines.push(...table_lines(figure), "");
  const shown = draw_rows(lines, slabs, name, all);
  lines.push(slabs.length === 0 ? "  no slab" : legend(shown));
  for (const finding of figure.broken ?? []) lines.push(`BROKEN: ${finding}`);
  return lines.join("\n");
}

function legend(shown: readonly SlabRow[]): string {
  const more: string[] = [];
  if (shown.some((row) => row.on.endsWith(" partial"))) more.push("cpu N+: its partial list");
  if (shown.some((row) => row.sheaved?.length)) more.push("* free, in a sheaf");
  const signs = "# live   1-9a-z free, in the order of the free list   . free, further down";
  return more.length > 0 ? `${signs}\n  ${more.join("   ")}` : signs;
}

function object_at(cache: CachePtr, slab: SlabPtr, index: number): Obj {
  return slab_address(slab) + KmemCache.red_left_pad.get(cache) + index * KmemCache.size.get(cache);
}

function locate(ptr: Ptr, slab: SlabPtr): InSlab {
  const cache: CachePtr = Slab.slab_cache.get(slab);
  if (!cache_exists(cache)) return { cache: "?", owner: "a cache that was destroyed while it had objects" };
  const { id, on } = slab_place(cache, slab);
  const size = KmemCache.size.get(cache);
  const object = Math.floor((ptr - slab_address(slab)) / size);
  const in_slab = { cache: KmemCache.name.get(cache), slab: id, on };
  if (object >= Slab.objects.get(slab)) return in_slab;
  const start = object_at(cache, slab, object);
  const place = free_objects(cache, slab).free.indexOf(object);
  const part = { ...in_slab, object, offset: ptr - start, slot: size };
  if (place >= 0) return { ...part, free: true, where: `free list of slab ${id}, place ${place + 1}` };
  const sheaf = sheaved_objects(cache).get(start);
  return sheaf === undefined ? { ...part, free: false } : { ...part, free: true, where: sheaf };
}

/** Counts of this CPU that move by one with each call of its allocator. */
function counted(cache: CachePtr, fast: number, slow: number): number {
  const c = KmemCache.cpu_slab.get(cache) + cpu_regs[CPU_OFFSET]!;
  return KmemCacheCpu.stat.get(c, fast) + KmemCacheCpu.stat.get(c, slow);
}

/** Objects handed out: by slabs, and by sheaves, which took theirs from slabs before. */
const served_by = (c: CpuPtr): number =>
  KmemCacheCpu.stat.get(c, ALLOC_FASTPATH) + KmemCacheCpu.stat.get(c, ALLOC_SLOWPATH) +
  KmemCacheCpu.stat.get(c, ALLOC_CPU_SHEAF) - KmemCacheCpu.stat.get(c, SHEAF_REFILL); // prettier-ignore

export const slub_view: SlabView = {
  slabs_of,
  nr_objects: (_cache, slab) => objects_of(slab),
  object_at,
  figure: slab_figure,
  draw: draw_slab,
  locate,
  nr_slabs(cache) {
    let slabs = 0;
    for (let node = 0; node < node_state.nr_node_ids; node++) {
      const n = KmemCache.node.get(cache, node);
      if (n !== NULL) slabs += KmemCacheNode.nr_slabs.get(n);
    }
    return slabs;
  },
  counted_allocs: (cache) => counted(cache, ALLOC_FASTPATH, ALLOC_SLOWPATH),
  counted_frees: (cache) => counted(cache, FREE_FASTPATH, FREE_SLOWPATH),
  served(cache) {
    let sum = 0;
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) sum += served_by(cpu_part(cache, cpu));
    return sum;
  },
};
