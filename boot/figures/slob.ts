/**
 * SLOB's pages, drawn from RAM: `slab small`, `slab medium`, `slab large`, and `slab NAME` of a cache, whose objects lie
 * among all others of their size.
 *
 *     small   blocks below 256 bytes   2 pages have room; 1 page, of any list, is full
 *       C  node 0  ffff888002f42000  1958 of 2048 units free   108+12 192+3904
 *          ##+............................................................
 *
 * Pages are in the order in which they are searched: the one that served last is the first (next fit). Behind each its
 * free blocks by address, as first byte + bytes; below it the page, 64 bytes a character. Pages have letters in order of
 * birth, over all three lists.
 *
 * Of a block in use SLOB knows nothing. What this says of one, it has from the console's own record of what that holds.
 */
import { NULL, PAGE_SIZE, align_up, px, type Obj, type Ptr } from "../../hal/addr.ts";
import { ksize } from "../../mm/kmalloc.ts";
import { page_address, page_is_slab, page_to_nid, virt_to_head_page, type SlabPtr } from "../../mm/page.ts";
import { KmemCache, find_cache, for_each_cache, oo_order, type CachePtr } from "../../mm/slab_common.ts";
import { format_slab_flags } from "../../mm/slab_layout.ts";
import { PAGE_UNITS, SlobPage, slob_data, slob_list, type SlobPagePtr } from "../../mm/slob.ts";
import { KMALLOC_MINALIGN } from "../../mm/slob_cache.ts";
import { SLOB_LISTS, SlobCache, check_slob, free_blocks, slob_list_pages, slob_pages, type SlobList } from "../../mm/slob_check.ts"; // prettier-ignore
import { NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import type { Held, Holding } from "../commands/registry.ts";
import { letters, plural } from "./names.ts";
import { WIDTH } from "./slab_rows.ts";
import type { BlockPlace, CacheFigure, InSlab, SlabPlace, SlabView, Usage } from "./view.ts";

export interface SlobRow extends SlabPlace {
  /** Address of the page's first byte. */
  readonly page: string;
  readonly node: number;
  /** Free ones. */
  readonly units: number;
  /** Free blocks by address: first byte in the page, bytes. */
  readonly free: readonly (readonly [at: number, bytes: number])[];
}
/** What `slab small --json` and `slab NAME --json` print. */
export interface SlobFigure extends CacheFigure {
  readonly list: SlobList;
  /** Of a cache: its objects. */
  readonly objects?: { readonly size: number; readonly align: number; readonly flags: string; readonly live: number };
  /** Pages of the list, in the order in which they are searched. */
  readonly order: readonly string[];
  /** Pages of the list, and full ones, which are on none. */
  readonly slabs: readonly SlobRow[];
}

const SIZES: Readonly<Record<SlobList, string>> = {
  small: "blocks below 256 bytes",
  medium: "blocks of 256 to 1023 bytes",
  large: "blocks of 1024 bytes and more",
};
const SCREEN = 20;
const COLUMN_BYTES = 64;

/** Every page with its letters, oldest first. */
function page_names(): Map<SlobPagePtr, string> {
  const pages = [...slob_pages()].sort((a, b) => SlobPage.birth.get(a) - SlobPage.birth.get(b));
  return new Map(pages.map((page, i) => [page, letters(i)]));
}

function list_of(page: SlobPagePtr): SlobList | undefined {
  return SLOB_LISTS.find((name) => [...slob_list_pages(name)].includes(page));
}

function page_row(page: SlobPagePtr, id: string, on: string): SlobRow {
  const free = [...free_blocks(page)].map(([at, units]) => [2 * at, 2 * units] as const);
  const [start, node] = [px(page_address(page as number)), page_to_nid(page as number)];
  return { id, on, page: start, node, units: SlobPage.units.get(page), free };
}

function pages_figure(name: string, list: SlobList, objects?: SlobFigure["objects"]): SlobFigure {
  const names = page_names();
  const pages = [...slob_list_pages(list)];
  const slabs = [...names].flatMap(([page, id]) =>
    SlobPage.units.get(page) === 0 ? page_row(page, id, "full") : pages.includes(page) ? page_row(page, id, list) : [],
  );
  const broken: string[] = [];
  check_slob(broken);
  const order = pages.map((page) => names.get(page)!);
  return { name, list, ...(objects && { objects }), order, slabs, ...(broken.length > 0 && { broken }) };
}

function cache_figure(cache: CachePtr): SlobFigure {
  const size = KmemCache.size.get(cache);
  const list = SLOB_LISTS.find((name) => slob_data[`free_slob_${name}`] === slob_list(size))!;
  const flags = format_slab_flags(KmemCache.flags.get(cache));
  const live = SlobCache.allocs.get(cache) - SlobCache.frees.get(cache);
  const objects = { size, align: KmemCache.align.get(cache), flags, live };
  const figure = pages_figure(KmemCache.name.get(cache), list, objects);
  return size < PAGE_SIZE ? figure : { ...figure, order: [], slabs: [] };
}

function list_figure(name: string): SlobFigure | undefined {
  const list = SLOB_LISTS.find((known) => known === name);
  return list && pages_figure(list, list);
}

function heading({ name, list, objects, order, slabs }: SlobFigure): string[] {
  const full = plural(slabs.length - order.length, "page");
  const pages = `${SIZES[list]}: ${plural(order.length, "page")} with room, ${full} without (of any list)`;
  if (!objects) return [`${name}   ${pages}`];
  const { size, align, flags, live } = objects;
  const title = `${name}   ${plural(live, "object")} of ${size} bytes, aligned to ${align}${flags && `   ${flags}`}`;
  return size < PAGE_SIZE
    ? [title, `  no slabs: they lie with all others of the list ${list},`, `  ${pages}`]
    : [title, "  no slabs: each lies in pages of its own"];
}

/** The page, 64 bytes a character: # in use, . free, + both. */
function page_map({ free }: SlobRow): string {
  const free_in = Array.from({ length: PAGE_SIZE / COLUMN_BYTES }, (_, column) => {
    const [start, end] = [column * COLUMN_BYTES, (column + 1) * COLUMN_BYTES];
    return free.reduce((sum, [at, bytes]) => sum + Math.max(0, Math.min(end, at + bytes) - Math.max(start, at)), 0);
  });
  return free_in.map((bytes) => (bytes === 0 ? "#" : bytes === COLUMN_BYTES ? "." : "+")).join("");
}

function row_lines(row: SlobRow, id_width: number): string[] {
  const units = `${String(row.units).padStart(4)} of ${PAGE_UNITS} units free`;
  let line = `  ${row.id.padEnd(id_width)}  node ${row.node}  ${row.page}  ${units}  `;
  for (const [i, [at, bytes]] of row.free.entries()) {
    const rest = row.free.length - i - 1;
    const text = ` ${at}+${bytes}`;
    if (line.length + text.length + (rest > 0 ? 6 : 0) > WIDTH) {
      line += ` …${rest + 1}`;
      break;
    }
    line += text;
  }
  return [line, `  ${" ".repeat(id_width)}  ${page_map(row)}`];
}

function draw(figure: CacheFigure, all: boolean): string {
  const { order, slabs, name, broken = [] } = figure as SlobFigure;
  const lines = heading(figure as SlobFigure);
  const rows = order.map((id) => slabs.find((row) => row.id === id)!);
  const shown = rows.slice(0, all ? Infinity : Math.floor((SCREEN - lines.length) / 2));
  const width = Math.max(0, ...shown.map(({ id }) => id.length));
  for (const row of shown) lines.push(...row_lines(row, width));
  if (shown.length < rows.length) lines.push(`  and ${plural(rows.length - shown.length, "more page")}   (all: slab ${name} --all)`); // prettier-ignore
  if (shown.length > 0)
    lines.push("searched from the top; A+N: N free bytes from A on, …N: N more; # used . free + both");
  return [...lines, ...broken.map((finding) => `BROKEN: ${finding}`)].join("\n");
}

/** Bytes that a holding of the console takes in front of and behind its address; none if it is no block. */
function holding_bytes({ kind, name, address }: Holding): number {
  if (kind === "block") return ksize(address);
  return kind === "object" ? KmemCache.size.get(find_cache(name)) : 0;
}

/** What `explain` says of an address in a page of blocks. */
function locate(ptr: Ptr, head: SlabPtr, held?: Held): InSlab {
  const page = head as number as SlobPagePtr;
  const on = list_of(page) ?? "full";
  const place = { cache: "?", slab: page_names().get(page) ?? "?", on };
  const start = page_address(head as number);
  for (const [at, units] of free_blocks(page)) {
    const offset = ptr - start - 2 * at;
    if (offset < 0 || offset >= 2 * units) continue;
    return { ...place, offset, slot: 2 * units, free: true, what: `a free block of ${2 * units} bytes` };
  }
  const holding = held?.list().find((one) => ptr >= one.address && ptr < one.address + holding_bytes(one));
  if (!holding)
    return { ...place, free: false, what: "a block in use; SLOB keeps no note of whose, or where it begins" };
  const { kind, name, address } = holding;
  const what = kind === "block" ? `a block of kmalloc of ${ksize(address)} bytes` : `an object of ${name}`;
  const [cache, slot] = [kind === "block" ? "kmalloc" : name, holding_bytes(holding)];
  return { ...place, cache, offset: ptr - address, slot, free: false, what, owner: "console" };
}

function find_block(object: Obj, cache: CachePtr): BlockPlace | undefined {
  const head = virt_to_head_page(object);
  if (cache === NULL && !page_is_slab(head)) return undefined;
  const order = cache === NULL ? 0 : oo_order(KmemCache.oo.get(cache));
  const size = cache === NULL ? align_up(ksize(object) + KMALLOC_MINALIGN, 2) : KmemCache.size.get(cache);
  const slot = size < PAGE_SIZE ? align_up(size, 2) : PAGE_SIZE << order;
  const usable = cache === NULL ? ksize(object) : KmemCache.object_size.get(cache);
  const [first, end] = [object & (PAGE_SIZE - 1), (object & (PAGE_SIZE - 1)) + usable];
  const in_use = [...free_blocks(head as number)].every(([at, units]) => end <= 2 * at || first >= 2 * (at + units));
  return { head, pages: 1 << order, slot, usable, in_use: size >= PAGE_SIZE || in_use };
}

/** All pages of blocks, and what is in them. */
function usage(): Usage {
  let [free, live] = [0, 0];
  for (const page of slob_pages()) free += 2 * SlobPage.units.get(page);
  for (const cache of for_each_cache()) {
    if (KmemCache.size.get(cache) >= PAGE_SIZE) continue;
    live += (SlobCache.allocs.get(cache) - SlobCache.frees.get(cache)) * KmemCache.object_size.get(cache);
  }
  live += 2 * slob_data.kmalloc_units - KMALLOC_MINALIGN * (slob_data.kmalloc_allocs - slob_data.kmalloc_frees);
  const bytes = slob_data.nr_pages * PAGE_SIZE;
  return { bytes, live, padding: bytes - live - free, free, tails: 0 };
}

/** Of kmalloc, where `cache` is NULL. */
function counted(cache: CachePtr, what: "allocs" | "frees"): number {
  return cache === NULL ? slob_data[`kmalloc_${what}`] : SlobCache[what].get(cache);
}

export const slob_view: SlabView = {
  slabs_of: () => [],
  nr_objects: () => 0,
  object_at: () => NULL,
  figure: cache_figure,
  list_figure,
  draw,
  locate,
  find_block,
  usage,
  pages_held: () => global_node_page_state(NR_SLAB_UNRECLAIMABLE),
  nr_slabs: () => 0,
  counted_allocs: (cache) => counted(cache, "allocs"),
  counted_frees: (cache) => counted(cache, "frees"),
  served: (cache) => counted(cache, "allocs"),
};
