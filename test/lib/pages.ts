/**
 * Helpers of the page tests: free lists as text, a zone with exactly two free blocks of order 10, and page numbers
 * relative to the first of them.
 */
import { TEST_MACHINE, with_machine, type TestMachine } from "./machine.ts";
import { MIB } from "../../hal/machine.ts";
import { buddy } from "../../mm/buddy.ts";
import { free_blocks } from "../../mm/buddy_check.ts";
import { MIGRATE_MOVABLE, ZONE_NORMAL } from "../../mm/gfp.ts";
import { page_to_pfn, pfn_to_page, type PagePtr } from "../../mm/page.ts";
import { change_pageblock_range } from "../../mm/pageblock.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { zone_lock, zone_unlock } from "../../mm/plenty.ts";
import { FreeArea, MAX_PAGE_ORDER, NODE_DATA, NR_PAGE_ORDERS, PgData, Zone, type ZonePtr } from "../../mm/zone.ts";

/** A zone of a node. */
export function zone_of(node: number, zone_idx: number): ZonePtr {
  return PgData.node_zones.at(NODE_DATA(node), zone_idx);
}

/** Takes a block straight from the free areas; 0 if there is none. */
export function take(zone: ZonePtr, order: number, migratetype = MIGRATE_MOVABLE, flags = 0): PagePtr {
  zone_lock(zone);
  const page = buddy.alloc(zone, order, migratetype, flags);
  zone_unlock(zone);
  return page;
}

/** Gives a block straight back to the free areas. */
export function give(zone: ZonePtr, page: PagePtr, order: number, flags = 0): void {
  zone_lock(zone);
  buddy.free(zone, page, order, flags);
  zone_unlock(zone);
}

/** Free blocks by order, as in /proc/buddyinfo. */
export function nr_free(zone: ZonePtr): number[] {
  return Array.from({ length: NR_PAGE_ORDERS }, (_, order) => FreeArea.nr_free.get(Zone.free_area.at(zone, order)));
}

/** Two free blocks of order 10, `a` before `b`, in a zone in which nothing else is free. */
export interface TwoBlocks {
  readonly zone: ZonePtr;
  readonly a: number;
  readonly b: number;
  /** Page by its number within the first block. */
  page(n: number): PagePtr;
  /** Number of a page within the first block; 0x400.. for the second. */
  nth(page: PagePtr): number;
  /** The list of an order and type from its head, as such numbers. */
  list(order: number, migratetype?: number): number[];
}

/** Node 1 has 20 MiB: five blocks, of which boot touches one or two. */
const FIVE_BLOCKS: TestMachine = {
  machine: {
    ...TEST_MACHINE,
    memory: [
      { start: 0, size: 0x9fc00, type: 1 },
      { start: 0x9fc00, size: 0x100000 - 0x9fc00, type: 2 },
      { start: MIB, size: 51 * MIB, type: 1 },
    ],
    nodes: [
      { ranges: [{ start: 0, size: 32 * MIB }], cpus: [0] },
      { ranges: [{ start: 32 * MIB, size: 20 * MIB }], cpus: [1] },
    ],
  },
};

/** Runs `fn` on a zone in which two blocks of order 10 are free, both movable, and nothing else. */
export function with_two_blocks(fn: (blocks: TwoBlocks) => void): void {
  with_machine(FIVE_BLOCKS, () => {
    drain_all_pages();
    const zone = zone_of(1, ZONE_NORMAL);
    const whole = [...free_blocks(zone)].filter((block) => block.order === MAX_PAGE_ORDER);
    const [a, b] = whole.map((block) => block.pfn).sort((x, y) => x - y);
    const held: { page: PagePtr; order: number }[] = [];
    for (let order = MAX_PAGE_ORDER; order >= 0; order--)
      for (let page = take(zone, order); page !== 0; page = take(zone, order)) held.push({ page, order });
    for (const pfn of [b, a]) {
      change_pageblock_range(pfn_to_page(pfn), MAX_PAGE_ORDER, MIGRATE_MOVABLE);
      give(zone, pfn_to_page(pfn), MAX_PAGE_ORDER);
    }
    const nth = (page: PagePtr): number => {
      const pfn = page_to_pfn(page);
      return pfn < b ? pfn - a : pfn - b + 0x400;
    };
    fn({
      zone, a, b, nth,
      page: (n) => pfn_to_page(n < 0x400 ? a + n : b + n - 0x400),
      list: (order, migratetype = MIGRATE_MOVABLE) => list_of(zone, order, migratetype).map(nth),
    }); // prettier-ignore
    for (const { page, order } of held) if (page_to_pfn(page) !== a && page_to_pfn(page) !== b) give(zone, page, order);
  });
}

/** Heads of the blocks on one list, from its head. */
export function list_of(zone: ZonePtr, order: number, migratetype: number): PagePtr[] {
  return [...free_blocks(zone)].filter((x) => x.order === order && x.migratetype === migratetype).map((x) => x.page);
}
