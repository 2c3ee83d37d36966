/**
 * Reclaim looks at pages: what becomes of those at the tail of a list. Who asks for it, and for how many: mm/vmscan.ts.
 *
 * An inactive page, oldest first, by how many mappings used it since it was last looked at (their accessed bits, cleared):
 *
 *     two, or one that may be run, or one and PG_referenced       active
 *     one                                                         back to the head, PG_referenced: a second chance
 *     none                                                        unmapped everywhere, out of its file, free;
 *                                                                 dirty or in use by somebody: back to the head
 *
 * PG_referenced alone, a read() of it, saves no clean page. An active page goes to the inactive list while that is small
 * (inactive * ratio < active), but for one that was used as code; whatever reclaim finds there was not used since.
 *
 * Only lists of files are looked at: without swap, anonymous pages have nowhere to go.
 *
 * Locks: lru_lock, only to take pages off and put them back. A page that is looked at is off its list, with a use more, and
 * counted as isolated.
 */
import { int_sqrt } from "../kernel/lib/bitops.ts";
import { list_prev } from "../kernel/lib/list.ts";
import { PG_active, PG_referenced, Page, clear_page_flag, page_flag, page_zonenum, set_page_flag, type PagePtr } from "./page.ts"; // prettier-ignore
import { get_page, put_page } from "./page_alloc.ts";
import { call_reclaim_slot } from "./reclaim_state.ts";
import { folio_referenced, page_mapcount, try_to_unmap } from "./rmap.ts";
import { lru_add, lru_del, lru_list } from "./swap.ts";
import {
  NR_ISOLATED_FILE, PGACTIVATE, PGDEACTIVATE, PGREFILL, PGSCAN_ANON, PGSCAN_KSWAPD, PGSKIP, PGSTEAL_ANON, PGSTEAL_KSWAPD,
  count_vm_event, count_vm_events, mod_node_page_state,
} from "./vmstat.ts"; // prettier-ignore
import type { PgDataPtr } from "./zone.ts";

const PAGES_PER_GIB_SHIFT = 18;

/** One attempt of reclaim. */
export interface ScanControl {
  readonly gfp: number;
  order: number;
  /** The highest zone that will do. */
  readonly reclaim_idx: number;
  readonly is_kswapd: boolean;
  nr_to_reclaim: number;
  priority: number;
  nr_scanned: number;
  nr_reclaimed: number;
  /** Take from active lists although inactive ones are large enough. */
  force_deactivate: boolean;
  skipped_deactivate: boolean;
}

/** True if the inactive list of files is too small beside the active one. */
export function inactive_is_low(inactive: number, active: number): boolean {
  const gib = (inactive + active) >> PAGES_PER_GIB_SHIFT;
  const ratio = gib > 0 ? int_sqrt(10 * gib) : 1;
  return inactive * ratio < active;
}

/**
 * Takes up to `nr` pages off the tail of a list; those of zones above `reclaim_idx` are passed over and go to its head.
 * Each page that is returned has a use of its own. Oldest first.
 */
function isolate_lru_pages(
  pgdat: PgDataPtr,
  lru: number,
  nr: number,
  sc: ScanControl,
): { pages: PagePtr[]; scanned: number } {
  const head = lru_list(pgdat, lru);
  const pages: PagePtr[] = [];
  const skipped: PagePtr[] = [];
  for (let node = list_prev(head); node !== head && pages.length < nr; node = list_prev(head)) {
    const page: PagePtr = node - Page.lru.offset;
    lru_del(page);
    if (page_zonenum(page) > sc.reclaim_idx) skipped.push(page);
    else {
      get_page(page);
      pages.push(page);
    }
  }
  for (const page of skipped) {
    count_vm_event(PGSKIP + page_zonenum(page));
    lru_add(page);
  }
  mod_node_page_state(pgdat, NR_ISOLATED_FILE, pages.length);
  return { pages, scanned: pages.length + skipped.length };
}

/** Ends the isolation of pages: back to the head of the list that their flags name, oldest first. */
function putback_lru_pages(pages: readonly PagePtr[]): void {
  for (const page of pages) {
    lru_add(page);
    put_page(page);
  }
}

/** Looks at `nr` inactive pages, and frees those that it can. Returns how many. */
export function shrink_inactive_list(pgdat: PgDataPtr, lru: number, nr: number, sc: ScanControl): number {
  const { pages, scanned } = isolate_lru_pages(pgdat, lru, nr, sc);
  const by = sc.is_kswapd ? 0 : 1;
  const of_file = 1;
  count_vm_events(PGSCAN_KSWAPD + by, scanned);
  count_vm_events(PGSCAN_ANON + of_file, scanned);
  const kept: PagePtr[] = [];
  for (const page of pages) {
    sc.nr_scanned++;
    if (folio_check_references(page) && reclaim_page(page)) put_page(page);
    else kept.push(page);
  }
  mod_node_page_state(pgdat, NR_ISOLATED_FILE, -pages.length);
  putback_lru_pages(kept);
  const reclaimed = pages.length - kept.length;
  count_vm_events(PGSTEAL_KSWAPD + by, reclaimed);
  count_vm_events(PGSTEAL_ANON + of_file, reclaimed);
  return reclaimed;
}

/** True if an inactive page was not used lately; one that was is marked for the list it goes to. */
function folio_check_references(page: PagePtr): boolean {
  const { referenced, executable } = folio_referenced(page);
  const was_marked = page_flag(page, PG_referenced);
  clear_page_flag(page, PG_referenced);
  if (referenced === 0) return true;
  set_page_flag(page, PG_referenced);
  if (was_marked || referenced > 1 || executable) {
    set_page_flag(page, PG_active);
    count_vm_event(PGACTIVATE);
  }
  return false;
}

/** Unmaps a page and takes it out of its file, if it is clean and nobody else has it; the caller's use is the last then. */
function reclaim_page(page: PagePtr): boolean {
  if (page_mapcount(page) > 0) try_to_unmap(page);
  return call_reclaim_slot("remove_mapping", page) === true;
}

/** Moves `nr` pages from the tail of the active list to the head of the inactive one; code that was run stays. */
export function shrink_active_list(pgdat: PgDataPtr, lru: number, nr: number, sc: ScanControl): void {
  const { pages, scanned } = isolate_lru_pages(pgdat, lru, nr, sc);
  count_vm_events(PGREFILL, scanned);
  for (const page of pages) {
    const { referenced, executable } = folio_referenced(page);
    if (referenced > 0 && executable) continue;
    clear_page_flag(page, PG_active);
    count_vm_event(PGDEACTIVATE);
  }
  mod_node_page_state(pgdat, NR_ISOLATED_FILE, -pages.length);
  putback_lru_pages(pages);
}
