/**
 * The buddy allocator: the free pages of a zone, in blocks of 2^order pages.
 *
 *     free_area[order]   Unmovable, Movable, Reclaimable, HighAtomic, Isolate: a list of free blocks each; nr_free
 *
 *     pfn  0   1   2   3   4   5   6   7        A block of order n starts at a multiple of 2^n. It and its buddy
 *         [0  ][1  ][2      ][4             ]   differ in one bit: buddy = pfn ^ 2^order, and the block that both
 *           \___/ buddies     \                 make starts at pfn & buddy. 0 and 1 are buddies, so are 01 and 2;
 *            \________/ buddies \               1 and 2 are not.
 *
 * Taking a block (`rmqueue`), each step only if the one before found nothing:
 *   1 smallest   the smallest block that fits on the request's own lists; the low half is kept, the upper halves go back
 *   2 claim      from the largest order down: a page block of another type, mostly free or alike, is retagged
 *   3 steal      from the smallest order up: one block of another type; the page block keeps its type
 * Giving one back (`free_one_page`): merge with the buddy while that is free, of the same order and zone, and of a type
 * that may be joined; then put it at the head of its list, or at the tail if it is likely to be merged soon.
 *
 * Locks: zone->lock for everything here.
 * Invariants: a free block's head page has type PGTY_buddy and private = order; all its pages have refcount 0
 *   nr_free(order) = blocks on the lists of that order        NR_FREE_PAGES = sum of 2^order over blocks not isolated
 *   a block's buddy is not a free block of the same order, unless order = 10, or it is in another zone, or at order 9 of
 *   a type that does not mix (HighAtomic, Isolate)
 * mem_map describes every frame of an aligned run of 2^10 of which any belongs to a zone: so a buddy can be looked at.
 *
 * Unlike Linux: no CMA, no guard pages, no shuffling, no page reporting, no capture by compaction.
 * See: Knowlton, "A fast storage allocator", CACM 1965; Gorman, "Understanding the Linux Virtual Memory Manager", ch. 6.
 */
import { NULL, type Pfn, type Ptr } from "../hal/addr.ts";
import { events, has_listener } from "../hal/events.ts";
import { ram32 } from "../hal/ram.ts";
import { init_list_head, list_add, list_add_tail, list_del, list_empty, list_move_tail } from "../kernel/lib/list.ts";
import { check_free_areas } from "./buddy_check.ts";
import {
  MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_TYPES,
  MIGRATE_UNMOVABLE,
} from "./gfp.ts"; // prettier-ignore
import { PGTY_buddy, PG_lru, Page, page_flag, page_is_buddy, page_to_pfn, pfn_to_page, type PagePtr } from "./page.ts";
import type { PageAllocator } from "./page_allocator.ts";
import {
  change_pageblock_range, migratetype_is_mergeable, page_group_by_mobility, pageblock_in_zone, pageblock_start_pfn,
  pfnblock_migratetype, set_pageblock_migratetype,
} from "./pageblock.ts"; // prettier-ignore
import { zone_set_flag } from "./plenty.ts";
import {
  ALLOC_HIGHATOMIC, ALLOC_KSWAPD, ALLOC_NOFRAGMENT, ALLOC_NON_BLOCK, ALLOC_OOM, boost_watermark,
} from "./watermark.ts"; // prettier-ignore
import {
  FreeArea, MAX_PAGE_ORDER, NR_FREE_PAGES, NR_FREE_PAGES_BLOCKS, NR_PAGE_ORDERS, ZONE_BOOSTED_WATERMARK, Zone,
  pageblock_nr_pages, pageblock_order, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

const m = ram32;
const LRU = Page.lru.offset;
const PRIVATE = Page.private.offset;
const TYPE = Page.page_type.offset;
const ZONE_NODE = Page.zone_node.offset;
const BUDDY = PGTY_buddy << 24;
const FREE_AREA = Zone.free_area.offset;
const AREA_BYTES = FreeArea.sizeof;
const NR_FREE = Zone.free_area.offset + FreeArea.nr_free.offset;
const FREE_PAGES = Zone.vm_stat.offset + NR_FREE_PAGES * 4;
const FREE_PAGES_BLOCKS = Zone.vm_stat.offset + NR_FREE_PAGES_BLOCKS * 4;
const FREE_HIGHATOMIC = Zone.nr_free_highatomic.offset;
const MAX_ORDER = MAX_PAGE_ORDER;
const BLOCK_ORDER = pageblock_order;
const HIGHATOMIC = MIGRATE_HIGHATOMIC;
const ISOLATE = MIGRATE_ISOLATE;
const RESERVED = ALLOC_HIGHATOMIC;
const NOFRAGMENT = ALLOC_NOFRAGMENT;
const NEEDY = ALLOC_OOM | ALLOC_NON_BLOCK;
const NR_ORDERS = NR_PAGE_ORDERS;

/** Put the block at the tail whatever its neighbours: boot, isolation and alloc_pages_exact do not want it back soon. */
export const FPI_TO_TAIL = 2;
const TO_TAIL = FPI_TO_TAIL;

/** Types that a request falls back to, in order. */
const FALLBACKS: readonly (readonly number[])[] = Object.freeze([
  [MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE],
  [MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE],
  [MIGRATE_UNMOVABLE, MIGRATE_MOVABLE],
]);

/** Head of the list of free blocks of one order and type. */
export function free_list(zone: ZonePtr, order: number, migratetype: number): Ptr {
  return zone + FREE_AREA + order * AREA_BYTES + (migratetype << 4);
}

/** The first block of a list; 0 if it is empty. */
function first_block(zone: ZonePtr, order: number, migratetype: number): PagePtr {
  const head = free_list(zone, order, migratetype);
  const node = m[head >> 2];
  return node === head ? 0 : node - LRU;
}

/** Counts blocks of an order that came (or, negative, went). */
function account_blocks(zone: ZonePtr, order: number, migratetype: number, blocks: number): void {
  const nr_free = (zone + NR_FREE + order * AREA_BYTES) >> 2;
  m[nr_free] = m[nr_free] + blocks;
  if (order >= BLOCK_ORDER && migratetype !== ISOLATE) {
    const in_blocks = (zone + FREE_PAGES_BLOCKS) >> 2;
    m[in_blocks] = m[in_blocks] + (blocks << order);
  }
}

/** Counts pages that became free (or, negative, no longer are) on a type's lists. */
function account_freepages(zone: ZonePtr, nr_pages: number, migratetype: number): void {
  if (migratetype === ISOLATE) return;
  m[(zone + FREE_PAGES) >> 2] = m[(zone + FREE_PAGES) >> 2] + nr_pages;
  if (migratetype === HIGHATOMIC) m[(zone + FREE_HIGHATOMIC) >> 2] = m[(zone + FREE_HIGHATOMIC) >> 2] + nr_pages;
}

/** Marks a page as the head of a free block and puts that on its list. */
function add_to_free_list(zone: ZonePtr, page: PagePtr, order: number, migratetype: number, to_tail: boolean): void {
  m[(page + PRIVATE) >> 2] = order;
  m[(page + TYPE) >> 2] = BUDDY;
  const head = free_list(zone, order, migratetype);
  if (to_tail) list_add_tail(page + LRU, head);
  else list_add(page + LRU, head);
  account_blocks(zone, order, migratetype, 1);
}

function del_from_free_list(zone: ZonePtr, page: PagePtr, order: number, migratetype: number): void {
  list_del(page + LRU);
  m[(page + PRIVATE) >> 2] = 0;
  m[(page + TYPE) >> 2] = -1;
  account_blocks(zone, order, migratetype, -1);
}

function move_to_free_list(zone: ZonePtr, page: PagePtr, order: number, from: number, to: number): void {
  list_move_tail(page + LRU, free_list(zone, order, to));
  account_blocks(zone, order, from, -1);
  account_blocks(zone, order, to, 1);
  account_freepages(zone, -(1 << order), from);
  account_freepages(zone, 1 << order, to);
}

/** True if `page` heads a free block of `order` in the zone of `of`. */
function is_buddy(page: PagePtr, order: number, of: PagePtr): boolean {
  return (
    m[(page + TYPE) >> 2] === BUDDY &&
    m[(page + PRIVATE) >> 2] === order &&
    m[(page + ZONE_NODE) >> 2] === m[(of + ZONE_NODE) >> 2]
  );
}

/** Address of the page struct at `pfn`, from that of another page: a step within mem_map. */
function page_at(page: PagePtr, pfn: Pfn, to: Pfn): PagePtr {
  return page + ((to - pfn) << 6);
}

/**
 * Gives back one block whose pages all lie in page blocks of `migratetype`, merging it upwards.
 *
 * Below order 9 a buddy is of the same page block, so of the same type. At order 9 the half that is freed last gives
 * the whole its type.
 */
function free_one_page(zone: ZonePtr, page: PagePtr, order: number, migratetype: number, flags: number): void {
  const given = page;
  const given_order = order;
  let pfn = page_to_pfn(page);
  account_freepages(zone, 1 << order, migratetype);
  while (order < MAX_ORDER) {
    const buddy_pfn = pfn ^ (1 << order);
    const other = page_at(page, pfn, buddy_pfn);
    if (!is_buddy(other, order, page)) break;
    let other_type = migratetype;
    if (order >= BLOCK_ORDER) {
      other_type = pfnblock_migratetype(zone, buddy_pfn);
      if (
        other_type !== migratetype &&
        !(migratetype_is_mergeable(migratetype) && migratetype_is_mergeable(other_type))
      )
        break;
    }
    del_from_free_list(zone, other, order, other_type);
    if (other_type !== migratetype) change_pageblock_range(other, order, migratetype);
    page = page_at(page, pfn, pfn & buddy_pfn);
    pfn &= buddy_pfn;
    order++;
  }
  if (order > given_order && has_listener("page:merge")) report_merges(zone, page_to_pfn(given), given_order, order);
  const to_tail = (flags & TO_TAIL) !== 0 || buddy_merge_likely(page, pfn, order);
  add_to_free_list(zone, page, order, migratetype, to_tail);
}

/**
 * True if the block's buddy is the only piece missing to a block two orders up: then it is put at the tail, in the hope
 * that it is still there when the buddy comes.
 */
function buddy_merge_likely(page: PagePtr, pfn: Pfn, order: number): boolean {
  if (order >= MAX_ORDER - 1) return false;
  const higher = pfn & (pfn ^ (1 << order));
  const other = page_at(page, pfn, higher ^ (2 << order));
  return is_buddy(other, order + 1, page);
}

/** Gives back a block; one larger than a page block goes in pieces, since each page block has its own type. */
function free(zone: ZonePtr, page: PagePtr, order: number, flags: number): void {
  const piece = order > BLOCK_ORDER ? BLOCK_ORDER : order;
  for (let i = 0; i < 1 << (order - piece); i++) {
    const part = page + (i << (piece + 6));
    free_one_page(zone, part, piece, pfnblock_migratetype(zone, page_to_pfn(part)), flags);
  }
}

/** Cuts a block of order `high` down to `low`: keeps the low half, puts each upper half at the head of its list. */
function expand(zone: ZonePtr, page: PagePtr, low: number, high: number, migratetype: number): void {
  for (let order = high - 1; order >= low; order--) {
    const upper = page + (64 << order);
    add_to_free_list(zone, upper, order, migratetype, false);
  }
  if (high > low && has_listener("page:split")) report_splits(zone, page_to_pfn(page), low, high);
}

/** Takes a block of order `high` off its list and cuts it to `low`. */
function del_and_expand(zone: ZonePtr, page: PagePtr, low: number, high: number, migratetype: number): PagePtr {
  del_from_free_list(zone, page, high, migratetype);
  expand(zone, page, low, high, migratetype);
  account_freepages(zone, -(1 << low), migratetype);
  return page;
}

/** Step 1: the first block of the smallest order that fits, of one type. */
function rmqueue_smallest(zone: ZonePtr, order: number, migratetype: number): PagePtr {
  for (let high = order; high < NR_ORDERS; high++) {
    const page = first_block(zone, high, migratetype);
    if (page !== 0) return del_and_expand(zone, page, order, high, migratetype);
  }
  return 0;
}

/** The first type that a request of `migratetype` falls back to and that has a block of `order`; -1 if none has. */
function find_fallback(zone: ZonePtr, order: number, migratetype: number): number {
  const fallbacks = FALLBACKS[migratetype];
  if (!list_empty(free_list(zone, order, fallbacks[0]))) return fallbacks[0];
  if (!list_empty(free_list(zone, order, fallbacks[1]))) return fallbacks[1];
  return -1;
}

/** A movable request takes small blocks without claiming: its pages can be moved out of the way later. */
function should_try_claim(order: number, migratetype: number): boolean {
  return order >= BLOCK_ORDER >> 1 || migratetype !== MIGRATE_MOVABLE || page_group_by_mobility.disabled !== 0;
}

/** Step 2: looks for a page block to take over, from the largest free blocks down: the more of it is free, the better. */
function rmqueue_claim(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  const min = order < BLOCK_ORDER && (flags & ALLOC_NOFRAGMENT) !== 0 ? BLOCK_ORDER : order;
  for (let high = MAX_ORDER; high >= min && should_try_claim(high, migratetype); high--) {
    const from = find_fallback(zone, high, migratetype);
    if (from < 0) continue;
    const page = try_to_claim_block(zone, first_block(zone, high, from), order, high, migratetype, from, flags);
    if (page !== NULL) return page;
  }
  return NULL;
}

/** Retags the page block(s) of a free block and serves the request from it; 0 if too little of it is free or alike. */
function try_to_claim_block(
  zone: ZonePtr,
  page: PagePtr,
  order: number,
  high: number,
  migratetype: number,
  from: number,
  flags: number,
): PagePtr {
  if (high >= BLOCK_ORDER) {
    del_from_free_list(zone, page, high, from);
    change_pageblock_range(page, high, migratetype);
    expand(zone, page, order, high, migratetype);
    account_freepages(zone, -(1 << order), migratetype);
    return page;
  }
  // Types are about to mix: reclaim some memory, so that the next request finds a whole block.
  if (boost_watermark(zone) && (flags & ALLOC_KSWAPD) !== 0) zone_set_flag(zone, ZONE_BOOSTED_WATERMARK);
  if (!pageblock_in_zone(zone, page_to_pfn(page))) return NULL;
  if (usable_pages(page, migratetype, from) < pageblock_nr_pages / 2 && page_group_by_mobility.disabled === 0)
    return NULL;
  move_freepages(zone, page, from, migratetype);
  return rmqueue_smallest(zone, order, migratetype);
}

/** Pages of the block of `page` that are free, or used for what the request's type stands for. */
function usable_pages(page: PagePtr, migratetype: number, from: number): number {
  const start = pageblock_start_pfn(page_to_pfn(page));
  let free_pages = 0;
  let movable = 0;
  for (let pfn = start; pfn < start + pageblock_nr_pages;) {
    const at = pfn_to_page(pfn);
    const nr_pages = page_is_buddy(at) ? 1 << Page.private.get(at) : 0;
    if (nr_pages === 0 && page_flag(at, PG_lru)) movable++;
    free_pages += nr_pages;
    pfn += nr_pages || 1;
  }
  if (migratetype === MIGRATE_MOVABLE) return free_pages + movable;
  // In a movable block whatever is neither free nor on the LRU cannot be moved: that is like the request. Between
  // unmovable and reclaimable blocks nobody can tell whose a page is.
  return from === MIGRATE_MOVABLE ? pageblock_nr_pages - movable : free_pages;
}

/** Moves the free blocks of a page block to another type's lists, lowest first, and retags it. Returns the pages moved. */
function move_freepages(zone: ZonePtr, page: PagePtr, from: number, to: number): number {
  const start = pageblock_start_pfn(page_to_pfn(page));
  let moved = 0;
  for (let pfn = start; pfn < start + pageblock_nr_pages;) {
    const at = pfn_to_page(pfn);
    const order = page_is_buddy(at) ? Page.private.get(at) : -1;
    if (order >= 0) move_to_free_list(zone, at, order, from, to);
    if (order >= 0) moved += 1 << order;
    pfn += order >= 0 ? 1 << order : 1;
  }
  set_pageblock_migratetype(pfn_to_page(start), to);
  return moved;
}

/** The free block of order 9 or 10 that covers a page block; NULL if there is none. */
function covering_block(start: PagePtr): PagePtr {
  const pfn = page_to_pfn(start);
  const pair = page_at(start, pfn, pfn & -(1 << MAX_ORDER));
  if (page_is_buddy(pair) && Page.private.get(pair) === MAX_ORDER) return pair;
  return page_is_buddy(start) && Page.private.get(start) === BLOCK_ORDER ? start : NULL;
}

/** Takes a free block off its list: from here on it is the caller's. Context: zone->lock. */
export function take_free_block(zone: ZonePtr, page: PagePtr): void {
  const order = Page.private.get(page);
  const type = pfnblock_migratetype(zone, page_to_pfn(page));
  del_from_free_list(zone, page, order, type);
  account_freepages(zone, -(1 << order), type);
}

/**
 * Isolates one page block, or ends that. A free block that covers it is cut where the two halves are not of one kind,
 * and made where they are again. Unlike Linux, two halves that are both isolated are joined at once, too.
 */
function move_block_isolate(zone: ZonePtr, start: PagePtr, from: number, to: number): number {
  const whole = covering_block(start);
  if (whole === NULL) return move_freepages(zone, start, from, to);
  const order = Page.private.get(whole);
  take_free_block(zone, whole);
  set_pageblock_migratetype(start, to);
  free(zone, whole, order, from === ISOLATE ? TO_TAIL : 0);
  return pageblock_nr_pages;
}

/** `move_block` of the record: the page block of a page, or, where that heads a larger free block, all its blocks. */
function move_block(zone: ZonePtr, page: PagePtr, from: number, to: number): number {
  if (from === ISOLATE || to === ISOLATE) {
    const start = pageblock_start_pfn(page_to_pfn(page));
    return pageblock_in_zone(zone, start) ? move_block_isolate(zone, pfn_to_page(start), from, to) : -1;
  }
  const order = page_is_buddy(page) ? Page.private.get(page) : 0;
  if (order > BLOCK_ORDER) {
    move_to_free_list(zone, page, order, from, to);
    change_pageblock_range(page, order, to);
    return 1 << order;
  }
  return pageblock_in_zone(zone, page_to_pfn(page)) ? move_freepages(zone, page, from, to) : -1;
}

/** Step 3: the smallest block of another type. What is left of it stays on that type's lists. */
function rmqueue_steal(zone: ZonePtr, order: number, migratetype: number): PagePtr {
  for (let high = order; high < NR_ORDERS; high++) {
    const from = find_fallback(zone, high, migratetype);
    if (from >= 0) return del_and_expand(zone, first_block(zone, high, from), order, high, from);
  }
  return NULL;
}

/** Steps 1 and 2. */
function rmqueue_own(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  const page = rmqueue_smallest(zone, order, migratetype);
  return page !== 0 ? page : rmqueue_claim(zone, order, migratetype, flags);
}

/** Takes one block; the HighAtomic reserve is for those whom the flags admit. */
function alloc(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr {
  let page = (flags & RESERVED) !== 0 ? rmqueue_smallest(zone, order, HIGHATOMIC) : 0;
  if (page === 0) page = rmqueue_own(zone, order, migratetype, flags);
  if (page === 0 && (flags & NOFRAGMENT) === 0) page = rmqueue_steal(zone, order, migratetype);
  if (page === 0 && (flags & NEEDY) !== 0) page = rmqueue_smallest(zone, order, HIGHATOMIC);
  return page;
}

/** Takes up to `count` blocks for a per-CPU list. Once one had to be stolen, so must the rest: it tries nothing else. */
function alloc_bulk(
  zone: ZonePtr,
  order: number,
  migratetype: number,
  flags: number,
  count: number,
  list: Ptr,
): number {
  let stealing = false;
  let taken = 0;
  for (; taken < count; taken++) {
    let page = stealing ? 0 : rmqueue_own(zone, order, migratetype, flags);
    if (page === 0 && (flags & NOFRAGMENT) === 0) {
      page = rmqueue_steal(zone, order, migratetype);
      stealing = true;
    }
    if (page === 0) break;
    list_add_tail(page + LRU, list);
  }
  return taken;
}

function init(zone: ZonePtr): void {
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    for (let type = 0; type < MIGRATE_TYPES; type++) init_list_head(free_list(zone, order, type));
    FreeArea.nr_free.set(Zone.free_area.at(zone, order), 0);
  }
}

/** Tells the host of each step: the block at `pfn` grew from order `from` to `to`. */
function report_merges(zone: ZonePtr, pfn: Pfn, from: number, to: number): void {
  const where = { zone: Zone.name.get(zone), node: Zone.node.get(zone) };
  for (let order = from + 1; order <= to; order++)
    events.emit("page:merge", { ...where, pfn: pfn & -(1 << order), order });
}

/** Tells the host of each step: the block at `pfn` was cut from order `high` down to `low`. */
function report_splits(zone: ZonePtr, pfn: Pfn, low: number, high: number): void {
  const where = { zone: Zone.name.get(zone), node: Zone.node.get(zone) };
  for (let order = high; order > low; order--)
    events.emit("page:split", { ...where, pfn: pfn + (1 << (order - 1)), order });
}

export const buddy: PageAllocator = {
  name: "buddy",
  init,
  alloc,
  alloc_bulk,
  free,
  move_block,
  check: check_free_areas,
};
