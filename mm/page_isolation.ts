/**
 * Isolation: page blocks from which nothing is handed out, so that all their pages come free.
 *
 *     start_isolate_page_range   the blocks' free pages go to the Isolate lists and out of NR_FREE_PAGES; what is freed
 *                                there goes to the same lists, past the CPUs' own
 *     test_pages_isolated        is every page of the range free by now?
 *     undo_isolate_page_range    back to the types that the blocks had
 *
 *     alloc_contig_range         isolate, move pages of programs and files out, drain the CPUs' lists, look, take the
 *                                range, undo
 *
 * A block with a page that can never come free (reserved, or in use and not on an LRU list) is refused: -EBUSY.
 *
 * Locks: zone->lock.
 * Unlike Linux: there is no memory hotplug and no CMA, which are the other callers. A block is asked whether it can be isolated without the lock.
 */
import { type Pfn } from "../hal/addr.ts";
import { EBUSY, EINVAL } from "../kernel/lib/errno.ts";
import { take_free_block } from "./buddy.ts";
import { GFP_USER, MIGRATE_ISOLATE, ZONE_MOVABLE, __GFP_MOVABLE, __GFP_RETRY_MAYFAIL } from "./gfp.ts";
import { __free_pages, alloc_pages, split_page } from "./page_alloc.ts";
import { isolate_movable_page, migrate_pages, putback_movable_pages } from "./migrate.ts";
import {
  PG_lru, PG_reserved, Page, compound_head, page_flag, page_is_buddy, pfn_to_page, pfn_valid, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { page_allocator } from "./page_allocator.ts";
import { pageblock_start_pfn, pageblock_type_beneath, pfnblock_migratetype } from "./pageblock.ts";
import { drain_all_pages } from "./pcp.ts";
import { zone_lock, zone_unlock } from "./plenty.ts";
import { NR_PAGE_ORDERS, Zone, page_zone, pageblock_nr_pages, zone_end_pfn, type ZonePtr } from "./zone.ts";
import { prep_new_page } from "./zonelist.ts";

/** True if a range lies in one zone and all its frames have page structs. */
function range_in_zone(zone: ZonePtr, start: Pfn, end: Pfn): boolean {
  if (start < Zone.zone_start_pfn.get(zone) || end > zone_end_pfn(zone)) return false;
  for (let pfn = start; pfn < end; pfn++) if (!pfn_valid(pfn) || page_zone(pfn_to_page(pfn)) !== zone) return false;
  return true;
}

/** True if a page of the range is in use for good. Pages on a CPU's list are not in use. */
function has_unmovable_pages(zone: ZonePtr, start: Pfn, end: Pfn): boolean {
  for (let pfn = start; pfn < end;) {
    const page = pfn_to_page(pfn);
    if (page_flag(page, PG_reserved)) return true;
    const head = compound_head(page);
    const in_use = !page_is_buddy(page) && Page.refcount.get(head) !== 0;
    if (in_use && !page_flag(head, PG_lru) && Zone.zone_idx.get(zone) !== ZONE_MOVABLE) return true;
    pfn += page_is_buddy(page) ? 1 << Page.private.get(page) : 1;
  }
  return false;
}

/**
 * Isolates the page block that starts at `block`, for the sake of the frames from `start` to `end`. 0, or -EBUSY: it is
 * isolated already, is not whole, or one of these frames stays in use.
 */
function set_migratetype_isolate(block: Pfn, start: Pfn, end: Pfn): number {
  if (!pfn_valid(block)) return -EBUSY;
  const page = pfn_to_page(block);
  const zone = page_zone(page);
  const type = pfnblock_migratetype(zone, block);
  if (type === MIGRATE_ISOLATE || !range_in_zone(zone, block, block + pageblock_nr_pages)) return -EBUSY;
  if (has_unmovable_pages(zone, Math.max(start, block), Math.min(end, block + pageblock_nr_pages))) return -EBUSY;
  zone_lock(zone);
  page_allocator().move_block(zone, page, type, MIGRATE_ISOLATE);
  zone_unlock(zone);
  return 0;
}

/** Ends the isolation of a page block, if it is isolated: its free pages are for everybody again. */
function unset_migratetype_isolate(block: Pfn): void {
  const page = pfn_to_page(block);
  const zone = page_zone(page);
  if (pfnblock_migratetype(zone, block) !== MIGRATE_ISOLATE) return;
  zone_lock(zone);
  page_allocator().move_block(zone, page, MIGRATE_ISOLATE, pageblock_type_beneath(zone, block));
  zone_unlock(zone);
}

/** Isolates all page blocks that the frames from `start` to `end` lie in: 0, or -EBUSY and none is. */
export function start_isolate_page_range(start: Pfn, end: Pfn): number {
  for (let block = pageblock_start_pfn(start); block < end; block += pageblock_nr_pages) {
    const error = set_migratetype_isolate(block, start, end);
    if (error === 0) continue;
    undo_isolate_page_range(start, block);
    return error;
  }
  return 0;
}

/** Ends the isolation of all page blocks that the frames from `start` to `end` lie in. */
export function undo_isolate_page_range(start: Pfn, end: Pfn): void {
  for (let block = pageblock_start_pfn(start); block < end; block += pageblock_nr_pages)
    unset_migratetype_isolate(block);
}

/** 0 if all frames from `start` to `end` are free and isolated, else -EBUSY. Pages on CPUs' lists are not free. */
export function test_pages_isolated(start: Pfn, end: Pfn): number {
  for (let block = pageblock_start_pfn(start); block < end; block += pageblock_nr_pages)
    if (pfnblock_migratetype(page_zone(pfn_to_page(block)), block) !== MIGRATE_ISOLATE) return -EBUSY;
  for (let pfn = free_block_of(start); pfn < end;) {
    const page = pfn_to_page(pfn);
    if (!page_is_buddy(page)) return -EBUSY;
    pfn += 1 << Page.private.get(page);
  }
  return 0;
}

/** Start of the free block that a frame lies in; the frame itself if it is not free. */
function free_block_of(pfn: Pfn): Pfn {
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    const start = pfn & -(1 << order);
    const page = pfn_to_page(start);
    if (page_is_buddy(page) && start + (1 << Page.private.get(page)) > pfn) return start;
  }
  return pfn;
}

/**
 * Takes the frames from `start` to `end`, wherever page blocks begin: each page with a reference of its own, as
 * split_page leaves them. 0; -EINVAL for no range; -EBUSY where a page is in use. free_contig_range gives them back.
 *
 * Context: may sleep.
 */
export function alloc_contig_range(start: Pfn, end: Pfn, gfp: number): number {
  if (!(start >= 0 && end > start)) return -EINVAL;
  const error = start_isolate_page_range(start, end);
  if (error !== 0) return error;
  migrate_range(start, end);
  drain_all_pages();
  const busy = test_pages_isolated(start, end);
  if (busy === 0) take_range(start, end, gfp);
  undo_isolate_page_range(start, end);
  return busy;
}

/** Moves what can be moved out of a range. */
function migrate_range(start: Pfn, end: Pfn): void {
  const pages: PagePtr[] = [];
  for (let pfn = start; pfn < end; pfn++) {
    const page = pfn_to_page(pfn);
    if (page_flag(page, PG_lru) && isolate_movable_page(page)) pages.push(page);
  }
  putback_movable_pages(migrate_pages(pages, () => alloc_pages(GFP_USER | __GFP_MOVABLE | __GFP_RETRY_MAYFAIL, 0)));
}

/** Takes the free blocks of a range, and gives back what of them lies outside. */
function take_range(start: Pfn, end: Pfn, gfp: number): void {
  const zone = page_zone(pfn_to_page(start));
  const outer_start = free_block_of(start);
  let pfn = outer_start;
  zone_lock(zone);
  while (pfn < end) {
    const page = pfn_to_page(pfn);
    const order = Page.private.get(page);
    take_free_block(zone, page);
    prep_new_page(page, order, gfp);
    split_page(page, order);
    pfn += 1 << order;
  }
  zone_unlock(zone);
  free_contig_range(outer_start, start - outer_start);
  free_contig_range(end, pfn - end);
}

/** Frees frames one by one. */
export function free_contig_range(start: Pfn, nr_pages: number): void {
  for (let pfn = start; pfn < start + nr_pages; pfn++) __free_pages(pfn_to_page(pfn), 0);
}
