/**
 * Makes mem_map: one `struct page` for every page frame, and a type for every page block.
 *
 *     pfn     0        160  256                131072         147456            212992
 *     RAM     |########|    |##################|              |#################|
 *     page    |ppppppppprrrrppppppppppppppppppp|  no structs  |ppppppppppppppppp|       p RAM, r a hole's
 *
 * The array is flat, so it has a slot for every frame up to the last; the slots of sections (4 MiB, 1024 frames) in which
 * there is no RAM at all are given back to memblock before they are ever touched, and `pfn_valid` is false there. A
 * smaller unit would not do: the buddy allocator looks at the page of a buddy within the same 4 MiB without asking.
 *
 * Pages of smaller holes are reserved for ever and belong to the zone of the RAM above them, as in Linux. All RAM starts
 * reserved too; memblock_free_all releases what is free.
 *
 * Locks: none; boot only.
 */
import { PAGE_SIZE, align_down, align_up, type NodeId, type Pfn } from "../hal/addr.ts";
import { ram32, ram_zero } from "../hal/ram.ts";
import { panic } from "../kernel/lib/bug.ts";
import { pr_info } from "../kernel/lib/printk.ts";
import { MAX_NR_ZONES, MIGRATE_MOVABLE, ZONE_NAMES } from "./gfp.ts";
import { MEMBLOCK_ALLOC_ACCESSIBLE, memblock_alloc_try_nid_raw, memblock_free } from "./memblock.ts";
import {
  PGTY_none,
  PG_reserved,
  Page,
  SECTION_NR_PAGES,
  mem_map_state,
  pfn_to_page,
  pfn_valid,
  set_section_valid,
} from "./page.ts";
import { set_pageblock_migratetype } from "./pageblock.ts";
import { NODE_DATA, PgData, Zone, pageblock_nr_pages, zone_end_pfn, type ZonePtr } from "./zone.ts";
import { present_sections, type NodeRange } from "./zone_sizing.ts";

const m = ram32;
const PAGE_WORDS = Page.sizeof / 4;

/** Allocates the array from the memory of the first range's node, and gives back what describes empty sections. */
export function alloc_mem_map(ranges: readonly NodeRange[]): void {
  const max_pfn = align_up(ranges.at(-1)!.end, SECTION_NR_PAGES);
  const size = max_pfn * Page.sizeof;
  const map = memblock_alloc_try_nid_raw(size, PAGE_SIZE, 0, MEMBLOCK_ALLOC_ACCESSIBLE, ranges[0].nid);
  if (map === 0) panic(`Failed to allocate ${size} bytes for the page structs of ${max_pfn} pages`);
  mem_map_state.mem_map = map;
  mem_map_state.max_pfn = max_pfn;
  const present = new Set(present_sections(ranges, SECTION_NR_PAGES));
  for (let pfn = 0; pfn < max_pfn; pfn += SECTION_NR_PAGES) {
    const used = present.has(pfn);
    set_section_valid(pfn, used);
    if (!used) memblock_free(pfn_to_page(pfn), SECTION_NR_PAGES * Page.sizeof);
  }
}

/** Pages that hold the page structs of RAM. */
export function nr_memmap_boot_pages(): number {
  let sections = 0;
  for (let pfn = 0; pfn < mem_map_state.max_pfn; pfn += SECTION_NR_PAGES) if (pfn_valid(pfn)) sections++;
  return (sections * SECTION_NR_PAGES * Page.sizeof) / PAGE_SIZE;
}

/** Initialises every page struct. The zones stand; `ranges` ascend. */
export function memmap_init(ranges: readonly NodeRange[]): void {
  let hole = 0; // everything below is initialised
  let last: ZonePtr = 0;
  for (const { start, end, nid } of ranges)
    for (let i = 0; i < MAX_NR_ZONES; i++) {
      const zone = PgData.node_zones.at(NODE_DATA(nid), i);
      const from = Math.max(start, Zone.zone_start_pfn.get(zone));
      const to = Math.min(end, zone_end_pfn(zone));
      if (from >= to) continue;
      init_range(from, to, i, nid);
      set_block_types(from, to);
      init_hole(hole, from, zone);
      hole = to;
      last = zone;
    }
  init_hole(hole, mem_map_state.max_pfn, last);
}

/** Writes the page structs of [start, end): reserved, one reference, no type. RAM holds garbage before. */
function init_range(start: Pfn, end: Pfn, zone: number, nid: NodeId): void {
  const first = pfn_to_page(start);
  const bytes = (end - start) * Page.sizeof;
  ram_zero(first, bytes);
  const next = Page.lru.offset >> 2;
  for (let page = first, w = page >> 2; page < first + bytes; page += Page.sizeof, w += PAGE_WORDS) {
    m[w + (Page.flags.offset >> 2)] = 1 << PG_reserved;
    m[w + (Page.zone_node.offset >> 2)] = (nid << 4) | zone;
    m[w + next] = page + Page.lru.offset; // an empty list
    m[w + next + 2] = page + Page.lru.offset;
    m[w + (Page.page_type.offset >> 2)] = PGTY_none;
    m[w + (Page.refcount.offset >> 2)] = 1;
  }
}

/** A block that starts in RAM is for movable pages; one that does not stays as it is zeroed: unmovable. */
function set_block_types(start: Pfn, end: Pfn): void {
  for (let pfn = align_up(start, pageblock_nr_pages); pfn < end; pfn += pageblock_nr_pages)
    set_pageblock_migratetype(pfn_to_page(pfn), MIGRATE_MOVABLE);
}

/** The page structs of a hole, as far as there are some. */
function init_hole(start: Pfn, end: Pfn, zone: ZonePtr): void {
  let pages = 0;
  for (let pfn = start; pfn < end;) {
    const stop = Math.min(end, align_down(pfn, SECTION_NR_PAGES) + SECTION_NR_PAGES);
    if (pfn_valid(pfn)) {
      init_range(pfn, stop, Zone.zone_idx.get(zone), Zone.node.get(zone));
      pages += stop - pfn;
    }
    pfn = stop;
  }
  if (pages === 0) return;
  const name = ZONE_NAMES[Zone.zone_idx.get(zone)];
  pr_info(`On node ${Zone.node.get(zone)}, zone ${name}: ${pages} pages in unavailable ranges`);
}
