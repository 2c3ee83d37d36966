/**
 * Page block types: one byte for each 512 pages of a zone, which says what kind of pages the block is kept for.
 *
 *     zone->pageblock_flags   [ 1 | 1 | 0 | 2 | 0x81 | … ]      bit 7 isolated, bits 0-2 the migrate type
 *                               M   M   U   E   isolated, was M
 *
 * Pages that can be moved are kept apart from those that cannot, so that whole blocks come free again. The type of a
 * block decides to which list a freed page goes; the type a page was asked with does not.
 *
 * Locks: zone->lock to change a type; reading needs none (an old value puts one page on the wrong list).
 */
import { type Pfn } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ram32, ram8 } from "../hal/ram.ts";
import { MIGRATE_ISOLATE, MIGRATE_PCPTYPES, MIGRATE_UNMOVABLE, gfp_migratetype } from "./gfp.ts";
import { page_to_pfn, type PagePtr } from "./page.ts";
import { Zone, page_zone, pageblock_nr_pages, pageblock_order, zone_end_pfn, type ZonePtr } from "./zone.ts";

const m = ram32;
const m8 = ram8;
const FLAGS = Zone.pageblock_flags.offset;
const START = Zone.zone_start_pfn.offset;
const ORDER = pageblock_order;
const UNMOVABLE = MIGRATE_UNMOVABLE;
const ISOLATE = MIGRATE_ISOLATE;
const PB_ISOLATED = 0x80;

/** `disabled`: memory is so small that blocks are not told apart; then every page counts as unmovable. */
export const page_group_by_mobility = static_data("page_group_by_mobility", { disabled: "u32" });

/** Address of the byte of the block in which `pfn` lies. */
function pageblock_byte(zone: ZonePtr, pfn: Pfn): number {
  return m[(zone + FLAGS) >> 2] + (pfn >> ORDER) - (m[(zone + START) >> 2] >> ORDER);
}

/** Type of the block in which `pfn` lies; MIGRATE_ISOLATE while it is isolated. */
export function pfnblock_migratetype(zone: ZonePtr, pfn: Pfn): number {
  const byte = m8[pageblock_byte(zone, pfn)];
  return byte < PB_ISOLATED ? byte : ISOLATE;
}

/** Type of a block beneath an isolation: what it was and will be again. */
export function pageblock_type_beneath(zone: ZonePtr, pfn: Pfn): number {
  return m8[pageblock_byte(zone, pfn)] & ~PB_ISOLATED;
}

export function get_pageblock_migratetype(page: PagePtr): number {
  return pfnblock_migratetype(page_zone(page), page_to_pfn(page));
}

/** Gives the block of `page` a type; MIGRATE_ISOLATE sets the bit beside the type that stands there. */
export function set_pageblock_migratetype(page: PagePtr, migratetype: number): void {
  const byte = pageblock_byte(page_zone(page), page_to_pfn(page));
  const grouped = page_group_by_mobility.disabled === 0 || migratetype >= MIGRATE_PCPTYPES;
  m8[byte] = migratetype === ISOLATE ? m8[byte] | PB_ISOLATED : grouped ? migratetype : UNMOVABLE;
}

/** Retags every block of a free or allocated block of order 9 or 10. */
export function change_pageblock_range(page: PagePtr, order: number, migratetype: number): void {
  for (let i = 0; i < 1 << (order - pageblock_order); i++)
    set_pageblock_migratetype(page + i * pageblock_nr_pages * 64, migratetype);
}

/** Types whose blocks may be joined, and between which requests fall back. */
export function migratetype_is_mergeable(migratetype: number): boolean {
  return migratetype < MIGRATE_PCPTYPES;
}

/** The list that serves a request: by its flags, unless blocks are not told apart. Both flags at once are invalid. */
export function request_migratetype(gfp: number): number {
  const migratetype = gfp_migratetype(gfp);
  return page_group_by_mobility.disabled !== 0 || migratetype >= MIGRATE_PCPTYPES ? UNMOVABLE : migratetype;
}

/** First frame of a page block. */
export function pageblock_start_pfn(pfn: Pfn): Pfn {
  return pfn & -pageblock_nr_pages;
}

/** True if the block of `pfn` lies wholly inside the zone. */
export function pageblock_in_zone(zone: ZonePtr, pfn: Pfn): boolean {
  const start = pageblock_start_pfn(pfn);
  return start >= Zone.zone_start_pfn.get(zone) && start + pageblock_nr_pages <= zone_end_pfn(zone);
}
