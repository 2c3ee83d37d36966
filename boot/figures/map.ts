/**
 * All of memory on one screen: a grid of cells, each a power of two of page frames, read from the page structs.
 *
 *     owner   what the pages of the cell are used for; a cell with any page in use shows the commonest use
 *     order   the order of the largest free block that reaches into the cell
 *     node    the node it belongs to
 */
import { PAGE_SIZE, hex, type Pfn } from "../../hal/addr.ts";
import {
  compound_head, compound_order, mem_map_state, page_to_nid, page_to_pfn, pfn_to_page,
} from "../../mm/page.ts"; // prettier-ignore
import { NR_FREE_PAGES, Zone, for_each_populated_zone, zone_end_pfn } from "../../mm/zone.ts";
import { buddy_block, pcp_blocks, ram_ranges, use_in_use, type PageUse } from "./explain.ts";

export type MapBy = "owner" | "order" | "node";
const COLUMNS = 64;
const ROWS = 16;

/** A character a use, in the order of the legend. */
const USES: readonly (readonly [PageUse, string, string])[] = [
  ["buddy", ".", "free"], ["pcp", ":", "free, a CPU's"], ["slab", "s", "slab"], ["kmalloc", "m", "large kmalloc"],
  ["cache", "c", "page cache"], ["pages", "p", "other pages"], ["reserved", "K", "kernel, reserved"], ["hole", " ", "hole"],
]; // prettier-ignore
const HOLE = 7;

interface ZoneRow {
  readonly node: number;
  readonly zone: string;
  readonly start_pfn: Pfn;
  /** One past the last. */
  readonly end_pfn: Pfn;
  readonly present: number;
  readonly managed: number;
  readonly free: number;
}
/** What `map --json` prints. */
export interface MemoryMap {
  readonly by: MapBy;
  readonly pages_per_cell: number;
  /** A character a cell, from frame 0 on. */
  readonly cells: string;
  /** Pages of each use, in all of memory. */
  readonly pages: Record<string, number>;
  readonly zones: ZoneRow[];
  readonly holes: { readonly start_pfn: Pfn; readonly end_pfn: Pfn }[];
}

/** Use (index into USES) and, of free ones, order + 1 of every frame. */
function classify(max_pfn: Pfn): { use: Uint8Array; order: Uint8Array } {
  const use = new Uint8Array(max_pfn).fill(HOLE);
  const order = new Uint8Array(max_pfn);
  const index = new Map(USES.map(([name], i) => [name, i]));
  for (const [start, end] of ram_ranges())
    for (let pfn = start; pfn < end;) {
      const free = buddy_block(pfn);
      const head = compound_head(pfn_to_page(pfn));
      const block = free ?? { pfn: page_to_pfn(head), order: compound_order(head) };
      const next = Math.min(Math.max(block.pfn + (1 << block.order), pfn + 1), end);
      use.fill(index.get(free ? "buddy" : use_in_use(head))!, pfn, next);
      if (free) order.fill(free.order + 1, pfn, next);
      pfn = next;
    }
  for (const block of pcp_blocks()) {
    use.fill(index.get("pcp")!, block.pfn, block.pfn + (1 << block.order));
    order.fill(block.order + 1, block.pfn, block.pfn + (1 << block.order));
  }
  return { use, order };
}

/** Reads all of memory. */
export function memory_map(by: MapBy): MemoryMap {
  const max_pfn = mem_map_state.max_pfn;
  let per_cell = 1;
  while (max_pfn > per_cell * COLUMNS * ROWS) per_cell *= 2;
  const { use, order } = classify(max_pfn);
  let cells = "";
  for (let start = 0; start < max_pfn; start += per_cell) {
    const end = Math.min(start + per_cell, max_pfn);
    const uses = use.subarray(start, end);
    if (uses.every((code) => code === HOLE)) cells += " ";
    else if (by === "owner") cells += owner_cell(uses);
    else if (by === "order") cells += order_cell(order.subarray(start, end));
    else cells += page_to_nid(pfn_to_page(start + uses.findIndex((code) => code !== HOLE))).toString(16);
  }
  const pages = Object.fromEntries(USES.map(([name], code) => [name, count(use, code)]));
  return { by, pages_per_cell: per_cell, cells, pages, zones: zone_rows(), holes: holes(max_pfn) };
}

function count(codes: Uint8Array, wanted: number): number {
  let found = 0;
  for (const code of codes) if (code === wanted) found++;
  return found;
}

/** The commonest use of what is not free; of free pages the commoner kind. */
function owner_cell(uses: Uint8Array): string {
  const counts = USES.map((_, code) => count(uses, code));
  const in_use = counts.map((pages, code) => (code < 2 || code === HOLE ? 0 : pages));
  const candidates = in_use.some((pages) => pages > 0) ? in_use : counts.slice(0, 2);
  return USES[candidates.indexOf(Math.max(...candidates))]![1];
}

function order_cell(orders: Uint8Array): string {
  const largest = orders.reduce((a, b) => Math.max(a, b), 0);
  return largest === 0 ? "#" : (largest - 1).toString(11).toUpperCase();
}

function zone_rows(): ZoneRow[] {
  return [...for_each_populated_zone()].map((zone) => ({
    node: Zone.node.get(zone),
    zone: Zone.name.get(zone),
    start_pfn: Zone.zone_start_pfn.get(zone),
    end_pfn: zone_end_pfn(zone),
    present: Zone.present_pages.get(zone),
    managed: Zone.managed_pages.get(zone),
    free: Zone.vm_stat.get(zone, NR_FREE_PAGES),
  }));
}

function holes(max_pfn: Pfn): MemoryMap["holes"] {
  const found: { start_pfn: Pfn; end_pfn: Pfn }[] = [];
  let at = 0;
  for (const [start, end] of [...ram_ranges(), [max_pfn, max_pfn]] as [Pfn, Pfn][]) {
    if (start > at) found.push({ start_pfn: at, end_pfn: start });
    at = Math.max(at, end);
  }
  return found;
}

/** `256K`, `15.9M`, `2G`: of a number of pages. */
function size_text(pages: number): string {
  const kib = (pages * PAGE_SIZE) / 1024;
  if (kib < 1024) return `${kib}K`;
  const [value, unit] = kib < 1024 * 1024 ? [kib / 1024, "M"] : [kib / 1048576, "G"];
  return `${Number.isInteger(value) ? value : value.toFixed(1)}${unit}`;
}

function legend(map: MemoryMap): string {
  if (map.by === "node") return "a digit: the node   blank: no RAM";
  if (map.by === "order") return "0-9 A: order of the largest free block   #: nothing free   blank: no RAM";
  return USES.filter(([use]) => map.pages[use]! > 0)
    .map(([use, sign, name]) => `${use === "hole" ? "blank" : sign} ${name} ${size_text(map.pages[use]!)}`)
    .join("  ");
}

/** Cuts a line of parts, parted by two blanks, into lines of at most 78 columns. */
function wrap(text: string): string[] {
  const lines: string[] = [];
  for (const part of text.split(/ {2,}/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + part.length + 2 <= 78) lines[lines.length - 1] = `${last}  ${part}`;
    else lines.push(part);
  }
  return lines;
}

/** The map as text: at most 80 columns and, up to seven zones, 23 lines. */
export function draw_map(map: MemoryMap): string {
  const per_row = map.pages_per_cell * COLUMNS;
  const total = size_text(Object.values(map.pages).reduce((a, b) => a + b, 0));
  const cell = `a cell is ${map.pages_per_cell === 1 ? "a page" : `${map.pages_per_cell} pages`}, ${size_text(map.pages_per_cell)}`;
  const lines = [`memory by ${map.by}: ${total}, ${cell}`];
  for (let row = 0; row * COLUMNS < map.cells.length; row++) {
    const cells = map.cells.slice(row * COLUMNS, (row + 1) * COLUMNS).padEnd(COLUMNS);
    lines.push(`${size_text(row * per_row).padStart(7)} |${cells}|`);
  }
  lines.push(...wrap(legend(map)));
  const zones = map.zones.map(
    ({ node, zone, start_pfn, end_pfn, free }) =>
      `node ${node} ${zone.padEnd(7)}${size_text(start_pfn)}-${size_text(end_pfn)}  ${size_text(free)} free`,
  );
  for (let i = 0; i < zones.length; i += 2) lines.push(`${zones[i]!.padEnd(41)}${zones[i + 1] ?? ""}`.trimEnd());
  const gaps = map.holes.map(({ start_pfn, end_pfn }) => `0x${hex(start_pfn)}-0x${hex(end_pfn - 1)}`);
  lines.push(...wrap(`holes (pfn):  ${gaps.length ? gaps.join("  ") : "none"}`).slice(0, 1));
  return lines.join("\n");
}
