/**
 * A round of compaction: pages are moved from the low end of a zone into free pages at its high end.
 *
 *     zone   [ migrate scanner ->                                 <- free scanner ]
 *              takes pages off LRU lists,                takes free pages of movable
 *              32 at a time                              page blocks, as many as that
 *                       \_____________ migrate_pages ____________/           until they meet, or there is a block
 *
 * Whether there is a block is asked at the end of each page block. Free pages that were taken in vain go back.
 *
 * Locks: zone->lock for taking free blocks.
 * Unlike Linux: both scanners start at the ends of the zone each time (no cached positions, no skip bits), no fast search
 * in the free lists, no capture of the block for its request.
 */
import { NULL, type Pfn } from "../hal/addr.ts";
import { list_empty } from "../kernel/lib/list.ts";
import { free_list, take_free_block } from "./buddy.ts";
import { MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, __GFP_FS } from "./gfp.ts";
import { isolate_movable_page, migrate_pages, putback_movable_pages } from "./migrate.ts";
import {
  PG_lru, Page, compound_head, compound_order, page_flag, page_is_anon, page_is_buddy, pfn_to_page, pfn_valid,
  type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages } from "./page_alloc.ts";
import {
  change_pageblock_range, get_pageblock_migratetype, migratetype_is_mergeable, pageblock_start_pfn, request_migratetype,
} from "./pageblock.ts"; // prettier-ignore
import { drain_zone_pages } from "./pcp.ts";
import { zone_lock, zone_unlock } from "./plenty.ts";
import {
  COMPACT_COMPLETE, COMPACT_CONTINUE, COMPACT_PRIO_ASYNC, COMPACT_PRIO_SYNC_FULL, COMPACT_SUCCESS,
} from "./reclaim_state.ts"; // prettier-ignore
import { COMPACTFREE_SCANNED, COMPACTISOLATED, COMPACTMIGRATE_SCANNED, count_vm_events } from "./vmstat.ts";
import { wmark_pages, zone_watermark_ok } from "./watermark.ts";
import {
  MAX_PAGE_ORDER, PAGE_ALLOC_COSTLY_ORDER, WMARK_MIN, Zone, page_zone, pageblock_nr_pages, pageblock_order,
  zone_end_pfn, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** Pages that are moved at a time. */
const COMPACT_CLUSTER_MAX = 32;
/** `order` of a round that has no block in mind. */
export const WHOLE = -1;

/** One round over a zone. */
interface CompactControl {
  readonly zone: ZonePtr;
  readonly order: number;
  readonly migratetype: number;
  readonly gfp: number;
  /** Moves pages only out of blocks of the request's type. */
  readonly is_async: boolean;
  /** Moves them also into blocks that are not movable. */
  readonly ignore_block_suitable: boolean;
  /** The frame that each scanner looks at next. */
  migrate_pfn: Pfn;
  free_pfn: Pfn;
  /** Free pages in hand, one reference each. */
  readonly free_pages: PagePtr[];
}

/* The two scanners */

/** Takes pages to be moved out of the next page block; empty if there is none in it, or it is not to be touched. */
function isolate_migratepages(cc: CompactControl): PagePtr[] {
  const block_end = pageblock_start_pfn(cc.migrate_pfn) + pageblock_nr_pages;
  const pages: PagePtr[] = [];
  const is_source = pfn_valid(cc.migrate_pfn) && is_source_block(cc, pfn_to_page(cc.migrate_pfn));
  let scanned = 0;
  let pfn = is_source ? cc.migrate_pfn : block_end;
  while (pfn < block_end && pages.length < COMPACT_CLUSTER_MAX) {
    const page = pfn_to_page(pfn); // what one frame of a page block has, all have: a page struct
    const step = frames_of(page);
    if (step === 1 && take_movable(cc, page)) pages.push(page);
    scanned += step;
    pfn += step;
  }
  cc.migrate_pfn = Math.min(pfn, block_end);
  count_vm_events(COMPACTMIGRATE_SCANNED, scanned);
  count_vm_events(COMPACTISOLATED, pages.length);
  return pages;
}

/** True for a page block that pages may be moved out of. */
function is_source_block(cc: CompactControl, page: PagePtr): boolean {
  return !cc.is_async || get_pageblock_migratetype(page) === cc.migratetype;
}

/** Frames that a free block or a compound page takes: neither can be moved. */
function frames_of(page: PagePtr): number {
  return 1 << (page_is_buddy(page) ? Page.private.get(page) : compound_order(compound_head(page)));
}

function take_movable(cc: CompactControl, page: PagePtr): boolean {
  if (!page_flag(page, PG_lru) || page_zone(page) !== cc.zone) return false;
  // What a file system is in the middle of is not to be touched.
  if (!(cc.gfp & __GFP_FS) && !page_is_anon(page)) return false;
  return isolate_movable_page(page);
}

/** Takes free pages, `wanted` if there are so many, going down block by block; not out of the block that pages come from. */
function isolate_freepages(cc: CompactControl, wanted: number): void {
  const lowest = pageblock_start_pfn(cc.migrate_pfn) + pageblock_nr_pages;
  let [scanned, isolated] = [0, 0];
  for (let block = pageblock_start_pfn(cc.free_pfn); block >= lowest && cc.free_pages.length < wanted;) {
    const end = Math.min(block + pageblock_nr_pages, zone_end_pfn(cc.zone));
    let pfn = is_target(cc, block) ? Math.max(cc.free_pfn, block) : end;
    for (; pfn < end && cc.free_pages.length < wanted; pfn++, scanned++) {
      const page = pfn_to_page(pfn);
      if (!page_is_buddy(page) || page_zone(page) !== cc.zone) continue;
      const taken = isolate_free_block(cc, page);
      if (taken === 0) {
        wanted = 0; // the zone is down to its mark
        break;
      }
      isolated += taken;
      pfn += taken - 1;
    }
    if (pfn >= end) block -= pageblock_nr_pages;
    cc.free_pfn = pfn >= end ? block : pfn;
  }
  count_vm_events(COMPACTFREE_SCANNED, scanned);
  count_vm_events(COMPACTISOLATED, isolated);
}

/** True for a page block that pages may be moved into: movable, and not free as a whole. */
function is_target(cc: CompactControl, block: Pfn): boolean {
  if (!pfn_valid(block)) return false;
  const page = pfn_to_page(block);
  const large = cc.order > 0 ? cc.order : pageblock_order;
  if (page_is_buddy(page) && Page.private.get(page) >= large) return false;
  return cc.ignore_block_suitable || get_pageblock_migratetype(page) === MIGRATE_MOVABLE;
}

/** Takes a free block, as pages with a reference each. Returns how many; 0 if the zone has to keep it. */
function isolate_free_block({ zone, free_pages }: CompactControl, page: PagePtr): number {
  const order = Page.private.get(page);
  const type = get_pageblock_migratetype(page);
  if (type === MIGRATE_ISOLATE || !zone_watermark_ok(zone, 0, wmark_pages(zone, WMARK_MIN) + (1 << order), 0, 0))
    return 0;
  zone_lock(zone);
  take_free_block(zone, page);
  zone_unlock(zone);
  if (order >= pageblock_order && migratetype_is_mergeable(type)) change_pageblock_range(page, order, MIGRATE_MOVABLE);
  for (let i = 0; i < 1 << order; i++) {
    Page.refcount.set(page + i * Page.sizeof, 1);
    free_pages.push(page + i * Page.sizeof);
  }
  return 1 << order;
}

/* The round */

/** What a round has come to so far. */
function compact_finished(cc: CompactControl): number {
  if (pageblock_start_pfn(cc.free_pfn) <= pageblock_start_pfn(cc.migrate_pfn)) return COMPACT_COMPLETE;
  if (cc.order === WHOLE || cc.migrate_pfn % pageblock_nr_pages !== 0) return COMPACT_CONTINUE;
  const steals = cc.order > PAGE_ALLOC_COSTLY_ORDER || cc.migratetype !== MIGRATE_MOVABLE;
  for (let order = cc.order; order <= MAX_PAGE_ORDER; order++)
    for (let type = 0; type < MIGRATE_PCPTYPES; type++)
      if ((type === cc.migratetype || steals) && !list_empty(free_list(cc.zone, order, type))) return COMPACT_SUCCESS;
  return COMPACT_CONTINUE;
}

/** Compacts a zone. Returns COMPACT_SUCCESS or COMPACT_COMPLETE. */
export function compact_zone(cc: CompactControl): number {
  let result = compact_finished(cc);
  for (; result === COMPACT_CONTINUE; result = compact_finished(cc)) {
    const pages = isolate_migratepages(cc);
    const left = migrate_pages(pages, () => {
      if (cc.free_pages.length === 0) isolate_freepages(cc, pages.length);
      return cc.free_pages.shift() ?? NULL;
    });
    putback_movable_pages(left);
    // What was moved away lies on this CPU's lists: it has to come together.
    if (cc.migrate_pfn % (1 << Math.max(cc.order, 0)) === 0) drain_zone_pages(cc.zone);
  }
  for (const page of cc.free_pages) __free_pages(page, 0);
  drain_zone_pages(cc.zone);
  return result;
}

/** A round for a request, or (WHOLE) for none. */
export function compact_control(zone: ZonePtr, order: number, gfp: number, prio: number): CompactControl {
  return {
    zone, order, gfp, migratetype: request_migratetype(gfp), is_async: prio === COMPACT_PRIO_ASYNC,
    ignore_block_suitable: prio === COMPACT_PRIO_SYNC_FULL, migrate_pfn: Zone.zone_start_pfn.get(zone),
    free_pfn: pageblock_start_pfn(zone_end_pfn(zone) - 1), free_pages: [],
  }; // prettier-ignore
}
