/**
 * A cache of SLAB, drawn from RAM: the arrays of its CPUs, what each node has, and each slab as a row of its objects.
 *
 *     array_cache   avail  top            slab_node partial full   free  shared  alien
 *       cpu 0      15/120  A14,A13,A12+12   node 0  B       A      -     60/480  0/12
 *
 *       A  full     node 0  ffff888002f40000+0   #***************  16/16
 *       B  partial  node 0  ffff888002f41000+64  ########12345678   8/16
 *
 * An object that is not live is free in one of two ways: it is named by its slab's index array, from `active` on, or it
 * lies in an array: of a CPU, shared, or alien. Behind a slab's address stands its colour: where its objects start.
 *
 * It is read without a lock and without trust: what a word names is checked before it is followed, and each walk is
 * bounded, so that a figure of a broken cache ends too, and says in `broken` what it met.
 */
import { NULL, PAGE_SIZE, px, type NodeId, type Obj, type Ptr } from "../../hal/addr.ts";
import { CPU_OFFSET, cpu_regs } from "../../hal/cpu.ts";
import { array_objects, cache_arrays, counter, list_slabs } from "../../mm/slab_check.ts";
import { KmemCache, cache_exists, oo_objects, oo_order, type CachePtr } from "../../mm/slab_common.ts";
import { IN_OBJECT, OFF_SLAB } from "../../mm/slab_geometry.ts";
import { format_slab_flags } from "../../mm/slab_layout.ts";
import {
  ALLOC_HIT, ALLOC_MISS, ALLOC_PAST, ArrayCache, FREE_HIT, FREE_MISS, NODE_FREES, SlabCache, SlabCpu, SlabNode,
  SlabPage, cache_nodes, slab_address, slab_index, slab_nid, slab_num, type ArrayPtr, type NodePtr, type SlabPtr,
} from "../../mm/slab_page.ts"; // prettier-ignore
import { node_state } from "../../mm/zone.ts";
import { in_ram, letters, plural } from "./names.ts";
import { cpu_lines, draw_rows, fit, side_by_side, title_lines, type SlabRow } from "./slab_rows.ts";
import { by_birth, is_slab_of, type InSlab, type SlabView } from "./view.ts";

type Slab = Ptr<"slab">;
const page_of = (slab: Slab): SlabPtr => slab as Ptr;

export interface ArrayRow {
  readonly avail: number;
  readonly limit: number;
  readonly touched: boolean;
  /** The objects in it by name, the next to go first. */
  readonly objects: string[];
}
export interface NodeRow {
  readonly node: number;
  readonly partial: string[];
  readonly full: string[];
  readonly free: string[];
  readonly free_objects: number;
  readonly free_limit: number;
  readonly shared: ArrayRow | null;
  readonly alien: (ArrayRow & { readonly of_node: number })[];
}
/** What `slab NAME --json` prints. */
export interface SlabFigure {
  readonly name: string;
  readonly object_size: number;
  readonly slab_size: number;
  readonly objs_per_slab: number;
  readonly order: number;
  readonly flags: string;
  readonly limit: number;
  readonly batchcount: number;
  readonly shared: number;
  /** Starts that slabs may have, colour_off bytes apart. */
  readonly colour: number;
  readonly colour_off: number;
  readonly index_arrays: "in an object" | "off the slab" | "on the slab";
  readonly cpu: (ArrayRow & { readonly cpu: number })[];
  readonly node: NodeRow[];
  readonly slabs: (SlabRow & { readonly colour: number; readonly cached: number[] })[];
  /** What is wrong with lists and arrays; absent if nothing is. */
  readonly broken?: string[];
}

const LISTS = { partial: "slabs_partial", full: "slabs_full", free: "slabs_free" } as const;
type On = keyof typeof LISTS;

/** Every slab of a cache by list; a list that leads to what is no slab of it ends there. */
function* listed(cache: CachePtr, broken: string[]): Generator<[slab: SlabPtr, on: On, node: NodeId]> {
  const seen = new Set<SlabPtr>();
  for (const [node, n] of cache_nodes(cache)) {
    const before = seen.size;
    for (const on of Object.keys(LISTS) as On[])
      for (const slab of list_slabs(n, LISTS[on])) {
        if (!is_slab_of(cache, slab as Ptr) || seen.has(slab)) {
          broken.push(`node ${node}: slabs_${on} leads to what is no slab of the cache, or to one twice`);
          break;
        }
        seen.add(slab);
        yield [slab, on, node];
      }
    const total = SlabNode.total_slabs.get(n);
    if (seen.size - before !== total)
      broken.push(`node ${node}: ${plural(total, "slab")} counted, ${seen.size - before} on its lists`);
  }
}

function slabs_of(cache: CachePtr, broken: string[] = []): Slab[] {
  return by_birth([...listed(cache, broken)].map(([slab]) => slab as Ptr as Slab));
}

function object_at(cache: CachePtr, slab: Slab, index: number): Obj {
  return SlabPage.s_mem.get(page_of(slab)) + index * KmemCache.size.get(cache);
}

/** Index of the object that an address lies in; -1: before the first, or behind the last. */
function index_at(cache: CachePtr, slab: SlabPtr, ptr: Ptr): number {
  const index = Math.floor((ptr - SlabPage.s_mem.get(slab)) / KmemCache.size.get(cache));
  return index >= 0 && index < slab_num(cache) ? index : -1;
}

/** Indices that a slab's index array names as free, next first. */
function free_indices(cache: CachePtr, slab: SlabPtr): number[] {
  const free: number[] = [];
  if (!in_ram(SlabPage.freelist.get(slab))) return free;
  for (let i = SlabPage.active.get(slab); i < slab_num(cache); i++) free.push(slab_index(slab, i));
  return free;
}

/** The figure while it is put together. */
interface Drawing {
  readonly cache: CachePtr;
  readonly slabs: SlabPtr[];
  readonly on: Map<SlabPtr, On>;
  readonly by_frame: Map<number, SlabPtr>;
  readonly ids: Map<SlabPtr, string>;
  /** Free objects that lie in arrays. */
  readonly cached: Map<Obj, string>;
  readonly broken: string[];
}

function start_drawing(cache: CachePtr): Drawing {
  const broken: string[] = [];
  const on = new Map([...listed(cache, broken)].map(([slab, list]) => [slab, list]));
  const slabs = by_birth([...on.keys()] as Ptr[]) as Ptr[] as SlabPtr[];
  const by_frame = new Map<number, SlabPtr>();
  for (const slab of slabs)
    for (let page = 0; page < 1 << oo_order(KmemCache.oo.get(cache)); page++)
      by_frame.set((slab_address(slab) >>> 12) + page, slab);
  const ids = new Map(slabs.map((slab, i) => [slab, letters(i)]));
  const d: Drawing = { cache, slabs, on, by_frame, ids, cached: new Map(), broken };
  for (const [where, , ac] of cache_arrays(cache)) if (sound(d, where, ac)) note_array(d, where, ac);
  return d;
}

function sound(d: Drawing, where: string, ac: ArrayPtr): boolean {
  const [avail, limit] = [ArrayCache.avail.get(ac), ArrayCache.limit.get(ac)];
  if (in_ram(ac) && avail <= limit && limit < PAGE_SIZE) return true;
  d.broken.push(`${where}: ${avail} objects in an array of ${limit}`);
  return false;
}

function note_array(d: Drawing, where: string, ac: ArrayPtr): void {
  for (const object of array_objects(ac)) {
    if (object_name(d, object) === undefined) d.broken.push(`${where}: ${px(object)} is no object of the cache`);
    else if (d.cached.has(object))
      d.broken.push(`${where}: ${object_name(d, object)} is in ${d.cached.get(object)} too`);
    else d.cached.set(object, where);
  }
}

function object_name(d: Drawing, object: Obj): string | undefined {
  const slab = d.by_frame.get(object >>> 12);
  const index = slab === undefined ? -1 : index_at(d.cache, slab, object);
  return index >= 0 && object_at(d.cache, slab as Ptr, index) === object ? `${d.ids.get(slab!)}${index}` : undefined;
}

function array_row(d: Drawing, ac: ArrayPtr): ArrayRow {
  const objects = in_ram(ac) ? [...array_objects(ac)].reverse() : [];
  return {
    avail: ArrayCache.avail.get(ac),
    limit: ArrayCache.limit.get(ac),
    touched: ArrayCache.touched.get(ac) !== 0,
    objects: objects.slice(0, PAGE_SIZE).map((object) => object_name(d, object) ?? px(object)),
  };
}

function slab_row(d: Drawing, slab: SlabPtr): SlabFigure["slabs"][number] {
  const { cache } = d;
  const num = slab_num(cache);
  const free = free_indices(cache, slab);
  const id = d.ids.get(slab)!;
  if (new Set(free).size !== free.length || free.some((index) => index >= num) || SlabPage.active.get(slab) > num)
    d.broken.push(`slab ${id}: its index array names what is no free object`);
  const cached = [...d.cached.keys()].filter((object) => d.by_frame.get(object >>> 12) === slab);
  const start = SlabPage.s_mem.get(slab);
  return {
    id, page: px(slab_address(slab)), node: slab_nid(slab), on: d.on.get(slab)!, inuse: num - free.length, free,
    objects: num, colour: start - slab_address(slab),
    cached: cached.map((object) => index_at(cache, slab, object)).sort((a, b) => a - b),
  }; // prettier-ignore
}

function node_row(
  d: Drawing,
  arrays: readonly (readonly [string, NodeId, ArrayPtr])[],
  node: NodeId,
  n: NodePtr,
): NodeRow {
  // prettier-ignore
  const on = (list: On): string[] => [...list_slabs(n, LISTS[list])].map((slab) => d.ids.get(slab) ?? "?");
  const mine = arrays.filter(([where]) => where.startsWith(`node ${node} `));
  const shared = mine.find(([where]) => where.endsWith(" shared"));
  const alien = mine.filter((array) => array !== shared);
  return {
    node,
    partial: on("partial"),
    full: on("full"),
    free: on("free"),
    free_objects: SlabNode.free_objects.get(n),
    free_limit: SlabNode.free_limit.get(n),
    shared: shared === undefined ? null : array_row(d, shared[2]),
    alien: alien.map(([, of_node, ac]) => ({ of_node, ...array_row(d, ac) })),
  };
}

function slab_figure(cache: CachePtr): SlabFigure {
  const d = start_drawing(cache);
  const arrays = [...cache_arrays(cache)];
  const cpus = arrays.filter(([where]) => where.startsWith("cpu "));
  const oo = KmemCache.oo.get(cache);
  const mode = SlabCache.mode.get(cache);
  const slabs = d.slabs.map((slab) => slab_row(d, slab));
  return {
    name: KmemCache.name.get(cache),
    object_size: KmemCache.object_size.get(cache),
    slab_size: KmemCache.size.get(cache),
    objs_per_slab: oo_objects(oo),
    order: oo_order(oo),
    flags: format_slab_flags(KmemCache.flags.get(cache)),
    limit: SlabCache.limit.get(cache),
    batchcount: SlabCache.batchcount.get(cache),
    shared: SlabCache.shared.get(cache),
    colour: SlabCache.colour.get(cache),
    colour_off: SlabCache.colour_off.get(cache),
    index_arrays: mode === IN_OBJECT ? "in an object" : mode === OFF_SLAB ? "off the slab" : "on the slab",
    cpu: cpus.map(([, , ac], cpu) => ({ cpu, ...array_row(d, ac) })),
    node: [...cache_nodes(cache)].map(([node, n]) => node_row(d, arrays, node, n)),
    slabs,
    ...(d.broken.length > 0 && { broken: d.broken }),
  };
}

function node_line({ node, partial, full, free, shared, alien }: NodeRow): string {
  const lists = fit(partial, 7).padEnd(8) + fit(full, 6).padEnd(7) + fit(free, 5).padEnd(6);
  const sum = (field: "avail" | "limit"): number => alien.reduce((total, array) => total + array[field], 0);
  const waiting = alien.length === 0 ? "-" : `${sum("avail")}/${sum("limit")}`;
  return `  node ${node}`.padEnd(10) + lists + (shared ? `${shared.avail}/${shared.limit}` : "-").padEnd(8) + waiting;
}

/** The two tables side by side. */
function table_lines(figure: SlabFigure): string[] {
  const rows = figure.cpu.map(({ cpu, avail, limit, objects }) => {
    return { cpu, cells: `${`${avail}/${limit}`.padStart(7)}  ${fit(objects, 12)}` };
  });
  const left = ["array_cache   avail  top", ...cpu_lines(rows, 11)];
  return side_by_side(left, ["slab_node partial full   free  shared  alien", ...figure.node.map(node_line)], 33);
}

function draw_slab(figure: SlabFigure, all: boolean): string {
  const { name, slabs } = figure;
  const { limit, batchcount, shared, colour, colour_off, index_arrays } = figure;
  const lines = title_lines(figure);
  const colours = colour > 1 ? `${colour} colours of ${colour_off} bytes` : "one colour";
  lines.push(`  limit ${limit} batch ${batchcount} shared ${shared}; ${colours}; index array ${index_arrays}`);
  lines.push(...table_lines(figure), "");
  draw_rows(lines, slabs, name, all);
  const signs = "# live   * free, in an array   1-9a-z free, in the index array   . further on";
  lines.push(slabs.length === 0 ? "  no slab" : signs);
  for (const finding of figure.broken ?? []) lines.push(`BROKEN: ${finding}`);
  return lines.join("\n");
}

function locate(ptr: Ptr, head: Slab): InSlab {
  const slab = page_of(head);
  const cache: CachePtr = SlabPage.slab_cache.get(slab);
  if (!cache_exists(cache)) return { cache: "?", owner: "a cache that was destroyed while it had objects" };
  const d = start_drawing(cache);
  const id = d.ids.get(slab) ?? "?";
  const in_slab = { cache: KmemCache.name.get(cache), slab: id, on: d.on.get(slab) ?? "none" };
  const object = index_at(cache, slab, ptr);
  if (object < 0) return { ...in_slab, ...part_of(slab, ptr) };
  const start = object_at(cache, head, object);
  const part = { ...in_slab, object, offset: ptr - start, slot: KmemCache.size.get(cache) };
  const place = free_indices(cache, slab).indexOf(object);
  if (place >= 0) return { ...part, free: true, where: `index array of slab ${id}, place ${place + 1}` };
  const array = d.cached.get(start);
  return array === undefined ? { ...part, free: false } : { ...part, free: true, where: array_text(array) };
}

/** What of a slab lies outside of its objects. */
function part_of(slab: SlabPtr, ptr: Ptr): { part?: string } {
  if (ptr < SlabPage.s_mem.get(slab)) return { part: "the bytes of its colour, in front of the first slot" };
  const index_array = SlabPage.freelist.get(slab);
  return index_array > slab_address(slab) && ptr >= index_array ? { part: "the slab's index array" } : {};
}

/** "node 0 alien 1" in words. */
function array_text(where: string): string {
  const [, node, what] = /^node (\d+) (.*)$/.exec(where) ?? [];
  if (node === undefined) return `array of ${where}`;
  return what === "shared"
    ? `shared array of node ${node}`
    : `array of node ${node} for objects of node ${what!.slice(6)}`;
}

/** Sums counts of this CPU. */
function counted(cache: CachePtr, items: readonly number[]): number {
  const c = SlabCache.cpu_cache.get(cache) + cpu_regs[CPU_OFFSET];
  let sum = 0;
  for (const item of items) sum += SlabCpu.stat.get(c, item);
  return sum;
}
const ALLOCS = [ALLOC_HIT, ALLOC_MISS, ALLOC_PAST];
const FREES = [FREE_HIT, FREE_MISS, NODE_FREES];

export const bonwick_view: SlabView = {
  slabs_of,
  nr_objects: slab_num,
  object_at,
  figure: slab_figure,
  draw: draw_slab,
  locate,
  nr_slabs(cache) {
    let slabs = 0;
    for (let node = 0; node < node_state.nr_node_ids; node++) {
      const n: NodePtr = KmemCache.node.get(cache, node) as Ptr;
      if (n !== NULL) slabs += SlabNode.total_slabs.get(n);
    }
    return slabs;
  },
  counted_allocs: (cache) => counted(cache, ALLOCS),
  counted_frees: (cache) => counted(cache, FREES),
  served: (cache) => ALLOCS.reduce((sum, item) => sum + counter(cache, item), 0),
};
