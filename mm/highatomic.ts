/**
 * The HighAtomic reserve: page blocks, about 1 % of a zone at most, that only requests of higher order which may not wait
 * take pages from. A block joins when such a request succeeds, and goes back when memory is short for everybody.
 *
 * Locks: zone->lock. Invariant: nr_reserved_highatomic <= 1 % of managed, rounded up to a page block (or block of 2^order).
 */
import { NULL, align_up } from "../hal/addr.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { list_empty, list_next } from "../kernel/lib/list.ts";
import { MIGRATE_HIGHATOMIC } from "./gfp.ts";
import { Page, page_to_pfn, type PagePtr } from "./page.ts";
import { page_allocator } from "./page_allocator.ts";
import { zone_lock, zone_unlock } from "./plenty.ts";
import { change_pageblock_range, migratetype_is_mergeable, pfnblock_migratetype } from "./pageblock.ts";
import {
  FreeArea, NR_PAGE_ORDERS, Zone, ZoneRef, node_allowed, pageblock_nr_pages, pageblock_order, type NodeMask, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** After a request with ALLOC_HIGHATOMIC got `page`: reserves its page block for the next such request. */
export function reserve_highatomic_pageblock(zone: ZonePtr, page: PagePtr, order: number): void {
  const share = Math.floor(Zone.managed_pages.get(zone) / 100);
  const reserved = Zone.nr_reserved_highatomic.get(zone);
  if (share < pageblock_nr_pages || reserved >= align_up(share, pageblock_nr_pages)) return;
  zone_lock(zone);
  const type = pfnblock_migratetype(zone, page_to_pfn(page));
  if (migratetype_is_mergeable(type)) {
    if (order >= pageblock_order) {
      change_pageblock_range(page, order, MIGRATE_HIGHATOMIC);
      Zone.nr_reserved_highatomic.set(zone, reserved + (1 << order));
    } else if (page_allocator().move_block(zone, page, type, MIGRATE_HIGHATOMIC) >= 0)
      Zone.nr_reserved_highatomic.set(zone, reserved + pageblock_nr_pages);
  }
  zone_unlock(zone);
}

/**
 * Gives one reserved block back to the lists of `migratetype`, from the first zone of the request's zonelist that has one
 * with free pages. Each zone keeps one block unless `force`d. True if there are pages now that were not there before.
 */
export function unreserve_highatomic_pageblock(
  preferred: number,
  highest_zoneidx: number,
  migratetype: number,
  nodemask: NodeMask,
  force: boolean,
): boolean {
  for (let ref = preferred; ZoneRef.zone.get(ref) !== NULL; ref += ZoneRef.sizeof) {
    const zone = ZoneRef.zone.get(ref);
    if (ZoneRef.zone_idx.get(ref) > highest_zoneidx || !node_allowed(zone, nodemask)) continue;
    if (!force && Zone.nr_reserved_highatomic.get(zone) <= pageblock_nr_pages) continue;
    if (unreserve_in_zone(zone, migratetype) > 0) return true;
  }
  return false;
}

function unreserve_in_zone(zone: ZonePtr, migratetype: number): number {
  zone_lock(zone);
  let moved = 0;
  for (let order = 0; order < NR_PAGE_ORDERS && moved <= 0; order++) {
    const list = FreeArea.free_list.at(Zone.free_area.at(zone, order), MIGRATE_HIGHATOMIC);
    if (list_empty(list)) continue;
    const reserved = Zone.nr_reserved_highatomic.get(zone);
    let size = Math.max(pageblock_nr_pages, 1 << order);
    if (WARN_ON(size > reserved, `${size} HighAtomic pages to give back, ${reserved} reserved`)) size = reserved;
    Zone.nr_reserved_highatomic.set(zone, reserved - size);
    const page = list_next(list) - Page.lru.offset;
    moved = page_allocator().move_block(zone, page, MIGRATE_HIGHATOMIC, migratetype);
  }
  zone_unlock(zone);
  return moved;
}
