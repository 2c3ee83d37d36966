/**
 * A slab as a row of its objects, one character each: what the figures of all allocators that have slabs share.
 *
 *       A  full   node 0  ffff888002f40000  ##########################  26/26
 *       B  cpu 0  node 0  ffff888002f42000  #123456789abcdefghijklmnop   1/26
 */
import { plural } from "./names.ts";

export interface SlabRow {
  readonly id: string;
  /** Address of the slab's first byte. */
  readonly page: string;
  readonly node: number;
  /** SLUB: `cpu N`, `cpu N partial`; `partial`, `full`, SLAB: `free`; `none`: on no list, though it has free objects. */
  readonly on: string;
  /** Objects that are handed out, or in a sheaf or an array cache: that is in use too, as Linux counts. */
  readonly inuse: number;
  /** Indices of the free ones, in the order in which they will be handed out. */
  readonly free: number[];
  readonly objects: number;
  /** Indices of those in sheaves; absent in a cache that has none. */
  readonly sheaved?: number[];
  /** SLAB: indices of those in arrays. */
  readonly cached?: number[];
  /** SLAB: bytes in front of the first object. */
  readonly colour?: number;
}

export const WIDTH = 80;
/** Lines that text fills if not asked for all slabs: a screen of 24 less the prompt and what stands below the slabs. */
const SCREEN = 20;
/** Objects of a slab that fit behind its name on one line, and on a line of their own. */
const ONE_LINE = 32;
const ONE_LINE_COLOURED = 26;
const COLUMNS = 64;
const PLACES = "123456789abcdefghijklmnopqrstuvwxyz";

/** Names joined by commas, as many as fit into `width`; `+N` stands for the rest. */
export function fit(names: readonly string[], width: number): string {
  if (names.length === 0) return "-";
  for (let shown = names.length; shown > 0; shown--) {
    const text = names.slice(0, shown).join(",") + (shown < names.length ? `+${names.length - shown}` : "");
    if (text.length <= width) return text;
  }
  return String(names.length);
}

/** Rows of a table of CPUs, their names `width` wide; neighbours that say the same are one row. */
export function cpu_lines(rows: readonly { readonly cpu: number; readonly cells: string }[], width: number): string[] {
  const groups: { first: number; last: number; cells: string }[] = [];
  for (const { cpu, cells } of rows) {
    const before = groups.at(-1);
    if (before?.cells === cells) before.last = cpu;
    else groups.push({ first: cpu, last: cpu, cells });
  }
  return groups.map(({ first, last, cells }) =>
    `  cpu ${first === last ? first : `${first}-${last}`}`.padEnd(width) + cells,
  ); // prettier-ignore
}

/** Two tables side by side, the right one from column `at` on. */
export function side_by_side(left: readonly string[], right: readonly string[], at: number): string[] {
  const height = Math.max(left.length, right.length);
  return Array.from({ length: height }, (_, i) => `${(left[i] ?? "").padEnd(at)}${right[i] ?? ""}`.trimEnd());
}

/** The first lines of a cache's figure: its name, its sizes, and its flags, on one line if they fit. */
export function title_lines(cache: {
  readonly name: string;
  readonly object_size: number;
  readonly slab_size: number;
  readonly objs_per_slab: number;
  readonly order: number;
  readonly flags: string;
}): string[] {
  const { name, object_size, slab_size, objs_per_slab, order, flags } = cache;
  const sizes = `${object_size} bytes in a slot of ${slab_size}, ${objs_per_slab} a slab, ${plural(1 << order, "page")} a slab`;
  const title = `${name}   ${sizes}${flags && `   ${flags}`}`;
  return title.length <= WIDTH ? [title] : [`${name}   ${sizes}`, `  ${flags}`];
}

/** One character an object: `#` live, its place in the free list, `.` free and further down. */
export function object_row(row: SlabRow): string {
  const cells: string[] = Array.from({ length: row.objects }, () => "#");
  for (const index of row.sheaved ?? row.cached ?? []) cells[index] = "*";
  for (const [place, index] of row.free.entries()) cells[index] = PLACES[place] ?? ".";
  return cells.join("");
}

/** The rows that text shows: slabs that something happens to first, then the rest; in order of birth. */
function shown_rows(rows: readonly SlabRow[], lines: number): readonly SlabRow[] {
  let room = lines;
  const by_interest = [...rows.filter((row) => row.on !== "full"), ...rows.filter((row) => row.on === "full")];
  const chosen = new Set(by_interest.filter((row, i) => (room -= lines_of(row)) >= 0 || i === 0));
  return rows.filter((row) => chosen.has(row));
}

/** Lines that a slab takes: one, or with many objects one and a line for each 64 of them. */
function lines_of({ objects, colour }: SlabRow): number {
  return objects <= (colour === undefined ? ONE_LINE : ONE_LINE_COLOURED) ? 1 : 1 + Math.ceil(objects / COLUMNS);
}

const page_text = ({ page, colour }: SlabRow): string => (colour === undefined ? page : `${page}+${colour}`);

function slab_lines(row: SlabRow, widths: { id: number; on: number; node: number; page: number }): string[] {
  const on = row.on.replace(" partial", "+");
  const head = `  ${row.id.padEnd(widths.id)}  ${on.padEnd(widths.on)}  ${`node ${row.node}`.padEnd(widths.node)}  ${page_text(row).padEnd(widths.page)}`;
  const count = `${String(row.inuse).padStart(String(row.objects).length)}/${row.objects}`;
  const cells = object_row(row);
  if (lines_of(row) === 1) return [`${head}  ${cells}  ${count}`];
  return [`${head}  ${count}`, ...cells.match(/.{1,64}/g)!.map((part) => `      ${part}`)];
}

/** Adds the slabs to `lines`, all or as many as the screen still has room for; returns those that are shown. */
export function draw_rows(lines: string[], slabs: readonly SlabRow[], name: string, all: boolean): readonly SlabRow[] {
  const shown = shown_rows(slabs, all ? Infinity : Math.max(SCREEN - lines.length, 6));
  const width = (text: (row: SlabRow) => string): number => Math.max(0, ...shown.map((row) => text(row).length));
  const widths = {
    id: width((row) => row.id),
    on: width((row) => row.on.replace(" partial", "+")),
    node: width((row) => `node ${row.node}`),
    page: width(page_text),
  };
  for (const row of shown) lines.push(...slab_lines(row, widths));
  if (shown.length < slabs.length) lines.push(rest_line(slabs, shown, name));
  return shown;
}

function rest_line(slabs: readonly SlabRow[], shown: readonly SlabRow[], name: string): string {
  const rest = slabs.filter((row) => !shown.includes(row));
  const full = rest.filter((row) => row.on === "full").length;
  return `  and ${plural(rest.length, "more slab")}, ${full} of them full   (all: slab ${name} --all)`;
}
