/**
 * LRU lists: the pages in use that could be had back, each node's by how lately they were used. Linux keeps them in a
 * file of this name, though what it is about is not swapping alone.
 *
 *     pgdat->lruvec.lists     head (newest)  ->  page.lru  ->  page.lru  …  ->  tail (oldest: reclaim starts here)
 *       inactive_file         used once, or not for long
 *       active_file           used again while on the inactive list; reclaim only moves its tail back there
 *       inactive_anon, active_anon      memory of programs, by the same rules
 *       unevictable           the only copy of something: ramfs
 *
 *     new page   -> head of inactive         used, not referenced -> PG_referenced
 *     used       -> and referenced: head of active, PG_referenced cleared
 *
 * Which list a page is on follows from its flags (PG_unevictable, else PG_swapbacked for anonymous ones, PG_active); PG_lru
 * says that it is on one. A page that reclaim has taken off to look at has no PG_lru and is counted as isolated.
 *
 * Locks: lruvec.lru_lock, a leaf.
 * Invariant: a node's, and a zone's, counter of each list = the pages on it.
 * Unlike Linux: pages go onto lists at once, not by way of batches of 31 a CPU; since one CPU at a time runs, there is no
 * contention that these would spare, and all counters are exact. Unevictable pages are linked, not only counted. No swap.
 */
import type { Ptr } from "../hal/addr.ts";
import { init_list_head, list_add, list_del, list_next, type ListPtr } from "../kernel/lib/list.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import {
  PG_active, PG_lru, PG_referenced, PG_swapbacked, PG_unevictable, Page, clear_page_flag, page_flag, page_to_nid,
  set_page_flag, type PagePtr,
} from "./page.ts"; // prettier-ignore
import {
  NR_INACTIVE_ANON, PGACTIVATE, UNEVICTABLE_PGCULLED, count_vm_event, mod_node_page_state, mod_zone_page_state, zone_page_state,
} from "./vmstat.ts"; // prettier-ignore
import {
  LRU_ACTIVE_ANON, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, LRU_UNEVICTABLE, Lruvec, NODE_DATA, NR_LRU_LISTS,
  NR_ZONE_ACTIVE_FILE, NR_ZONE_INACTIVE_ANON, NR_ZONE_INACTIVE_FILE, PgData, for_each_online_node, page_zone,
  type PgDataPtr, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** Boot: no page is on any list. */
export function lruvec_init(): void {
  for (const nid of for_each_online_node())
    for (let lru = 0; lru < NR_LRU_LISTS; lru++) init_list_head(lru_list(NODE_DATA(nid), lru));
}

/** Head of a node's list. */
export function lru_list(pgdat: PgDataPtr, lru: number): ListPtr {
  return Lruvec.lists.at(PgData.lruvec.at(pgdat), lru);
}

function lru_lock(pgdat: PgDataPtr): Ptr<"spinlock"> {
  return Lruvec.lru_lock.at(PgData.lruvec.at(pgdat));
}

/** The list that a page belongs on, by its flags. */
export function page_lru(page: PagePtr): number {
  if (page_flag(page, PG_unevictable)) return LRU_UNEVICTABLE;
  const base = page_flag(page, PG_swapbacked) ? LRU_INACTIVE_ANON : LRU_INACTIVE_FILE;
  return page_flag(page, PG_active) ? base + LRU_ACTIVE_ANON : base;
}

function count_lru(page: PagePtr, lru: number, by: number): void {
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_INACTIVE_ANON + lru, by);
  mod_zone_page_state(page_zone(page), NR_ZONE_INACTIVE_ANON + lru, by);
}

/** Puts a page that is on no list onto the head of the one that its flags name. */
export function lru_add(page: PagePtr): void {
  const lru = page_lru(page);
  const pgdat = NODE_DATA(page_to_nid(page));
  spin_lock(lru_lock(pgdat));
  set_page_flag(page, PG_lru);
  list_add(Page.lru.at(page), lru_list(pgdat, lru));
  spin_unlock(lru_lock(pgdat));
  count_lru(page, lru, 1);
  if (lru === LRU_UNEVICTABLE) count_vm_event(UNEVICTABLE_PGCULLED);
}

/** Takes a page off its list; false if it is on none. */
export function lru_del(page: PagePtr): boolean {
  if (!page_flag(page, PG_lru)) return false;
  const lock = lru_lock(NODE_DATA(page_to_nid(page)));
  spin_lock(lock);
  clear_page_flag(page, PG_lru);
  list_del(Page.lru.at(page));
  spin_unlock(lock);
  count_lru(page, page_lru(page), -1);
  return true;
}

/** Moves a page to the head of the active list. */
function activate_page(page: PagePtr): void {
  if (!lru_del(page)) return;
  set_page_flag(page, PG_active);
  lru_add(page);
  count_vm_event(PGACTIVATE);
}

/** A page was used: the first time is noted, the second makes it active. Nothing moves an unevictable one. */
export function mark_page_accessed(page: PagePtr): void {
  if (!page_flag(page, PG_referenced)) set_page_flag(page, PG_referenced);
  else if (!page_flag(page, PG_unevictable) && !page_flag(page, PG_active)) {
    activate_page(page);
    clear_page_flag(page, PG_referenced);
  }
}

/** Pages of a zone that reclaim could free: those of files. */
export function zone_reclaimable_pages(zone: ZonePtr): number {
  return zone_page_state(zone, NR_ZONE_INACTIVE_FILE) + zone_page_state(zone, NR_ZONE_ACTIVE_FILE);
}

/** The pages of a node's list from its head on, `bound` at most. */
export function* lru_pages(pgdat: PgDataPtr, lru: number, bound: number): Generator<PagePtr> {
  const head = lru_list(pgdat, lru);
  for (let node = list_next(head), left = bound; node !== head && left > 0; node = list_next(node), left--)
    yield node - Page.lru.offset;
}
