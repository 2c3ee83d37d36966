/**
 * What must hold of a zone's free areas, checked by a bounded walk of RAM: see the invariants of mm/buddy.ts.
 */
import { hex, type Pfn } from "../hal/addr.ts";
import { list_next, list_prev } from "../kernel/lib/list.ts";
import { MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_NAMES, MIGRATE_TYPES } from "./gfp.ts";
import { Page, page_is_buddy, page_to_pfn, pfn_to_page, pfn_valid, type PagePtr } from "./page.ts";
import { migratetype_is_mergeable, pfnblock_migratetype } from "./pageblock.ts";
import {
  FreeArea, MAX_PAGE_ORDER, NR_FREE_PAGES, NR_FREE_PAGES_BLOCKS, NR_PAGE_ORDERS, Zone, page_zone, pageblock_order,
  zone_end_pfn, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** A free block as it stands on its list. */
export interface FreeBlock {
  readonly page: PagePtr;
  readonly pfn: Pfn;
  readonly order: number;
  readonly migratetype: number;
}

/** Every free block of a zone: orders upwards, types in order, each list from its head. Ends on a broken list too. */
export function* free_blocks(zone: ZonePtr): Generator<FreeBlock> {
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    const area = Zone.free_area.at(zone, order);
    for (let migratetype = 0; migratetype < MIGRATE_TYPES; migratetype++) {
      const head = FreeArea.free_list.at(area, migratetype);
      let left = Zone.spanned_pages.get(zone) + 1;
      for (let node = list_next(head); node !== head && left-- > 0; node = list_next(node)) {
        const page = node - Page.lru.offset;
        if (!is_page_struct(page)) break;
        yield { page, pfn: page_to_pfn(page), order, migratetype };
      }
    }
  }
}

/** True if an address is that of a page struct, so that one may look at it. */
export function is_page_struct(page: PagePtr): boolean {
  const pfn = (page - pfn_to_page(0)) / Page.sizeof;
  return Number.isInteger(pfn) && pfn_valid(pfn);
}

/** `check` of the page allocator's record. Cost: one step a free block. */
export function check_free_areas(zone: ZonePtr): string[] {
  const name = `node ${Zone.node.get(zone)} zone ${Zone.name.get(zone)}`;
  const findings: string[] = [];
  const complain = (text: string): void => void findings.push(`${name}: ${text}`);
  const blocks = new Array<number>(NR_PAGE_ORDERS).fill(0);
  let free = 0;
  let highatomic = 0;
  let in_blocks = 0;
  for (const block of free_blocks(zone)) {
    blocks[block.order]++;
    if (block.migratetype !== MIGRATE_ISOLATE) free += 1 << block.order;
    if (block.migratetype === MIGRATE_HIGHATOMIC) highatomic += 1 << block.order;
    if (block.migratetype !== MIGRATE_ISOLATE && block.order >= pageblock_order) in_blocks += 1 << block.order;
    for (const text of check_block(zone, block)) complain(`block 0x${hex(block.pfn)} order ${block.order}: ${text}`);
  }
  const compare = (what: string, counter: number, found: number): void => {
    if (counter !== found) complain(`${what} says ${counter}, the lists have ${found}`);
  };
  for (let order = 0; order < NR_PAGE_ORDERS; order++)
    compare(`nr_free of order ${order}`, FreeArea.nr_free.get(Zone.free_area.at(zone, order)), blocks[order]);
  compare("NR_FREE_PAGES", Zone.vm_stat.get(zone, NR_FREE_PAGES), free);
  compare("NR_FREE_PAGES_BLOCKS", Zone.vm_stat.get(zone, NR_FREE_PAGES_BLOCKS), in_blocks);
  compare("nr_free_highatomic", Zone.nr_free_highatomic.get(zone), highatomic);
  return findings;
}

function* check_block(zone: ZonePtr, { page, pfn, order, migratetype }: FreeBlock): Generator<string> {
  const node = Page.lru.at(page);
  if (list_next(list_prev(node)) !== node || list_prev(list_next(node)) !== node)
    yield "its neighbours do not link to it";
  if (!page_is_buddy(page)) yield "is on a free list and not marked free";
  if (Page.private.get(page) !== order) yield `says order ${Page.private.get(page)}`;
  if (pfn % (1 << order) !== 0) yield "is not aligned";
  if (pfn < Zone.zone_start_pfn.get(zone) || pfn + (1 << order) > zone_end_pfn(zone)) yield "leaves its zone";
  if (page_zone(page) !== zone) yield "belongs to another zone";
  const type = pfnblock_migratetype(zone, pfn);
  if (type !== migratetype)
    yield `is on the ${MIGRATE_NAMES[migratetype]} list, its page block is ${MIGRATE_NAMES[type]}`;
  for (let i = 0; i < 1 << order; i++)
    if (Page.refcount.get(page + i * Page.sizeof) !== 0)
      yield `page ${i} has refcount ${Page.refcount.get(page + i * 64)}`;
  if (order < MAX_PAGE_ORDER && has_free_buddy(zone, pfn, order, type)) yield "its buddy is free too";
}

/** True if two buddies stand free that should be one block. */
function has_free_buddy(zone: ZonePtr, pfn: Pfn, order: number, type: number): boolean {
  const other = pfn ^ (1 << order);
  if (!pfn_valid(other)) return false;
  const page = pfn_to_page(other);
  if (!page_is_buddy(page) || Page.private.get(page) !== order || page_zone(page) !== zone) return false;
  const other_type = pfnblock_migratetype(zone, other);
  return type === other_type || (migratetype_is_mergeable(type) && migratetype_is_mergeable(other_type));
}
