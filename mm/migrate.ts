/**
 * Migration: what a page holds goes to another page, and all that refers to it with it.
 *
 *     isolate_movable_page    off its LRU list, with a use of the caller's
 *     migrate_pages           each: 1 is every use of it known?      mappings + page cache + the caller's = refcount
 *                                   2 entries cleared, TLBs flushed  (mm/rmap.ts finds them)
 *                                   3 contents, flags, place in its file or under its anon_vma copied
 *                                   4 entries written again, for the new page; the old one is free
 *     putback_movable_pages   those that stay: back to their lists
 *
 * Pages of programs and of files can be moved, whoever has them mapped; a page that somebody looks at meanwhile cannot.
 *
 * Locks: as mm_types.ts.
 * Unlike Linux: no migration entries, since nobody looks at an entry between steps 2 and 4. Pages of ramfs move too; Linux
 * could move dirty ones only by writing them out, and they cannot be.
 */
import { NULL, PAGE_SIZE } from "../hal/addr.ts";
import { ram_copy } from "../hal/ram.ts";
import { VmArea } from "./mm_types.ts";
import {
  PGTY_none, PG_active, PG_dirty, PG_owner_2, PG_referenced, PG_swapbacked, PG_unevictable, PG_uptodate, Page,
  clear_page_flag, page_address, page_flag, page_is_anon, page_to_nid, set_page_flag, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { get_page, put_page } from "./page_alloc.ts";
import { pte_clear, pte_flags, set_pte } from "./pgtable.ts";
import { call_reclaim_slot } from "./reclaim_state.ts";
import { count_mapped, page_mapcount, rmap_walk } from "./rmap.ts";
import { lru_add, lru_del } from "./swap.ts";
import { flush_tlb_page } from "./tlbflush.ts";
import {
  NR_ISOLATED_ANON, NR_ISOLATED_FILE, PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, count_vm_event, mod_node_page_state,
} from "./vmstat.ts"; // prettier-ignore
import { NODE_DATA } from "./zone.ts";

/** What a page's flags say of what it holds, and of how it is used. */
const MOVED_FLAGS = [
  PG_referenced,
  PG_uptodate,
  PG_dirty,
  PG_active,
  PG_owner_2,
  PG_swapbacked,
  PG_unevictable,
] as const;

function count_isolated(page: PagePtr, by: number): void {
  const item = page_flag(page, PG_swapbacked) ? NR_ISOLATED_ANON : NR_ISOLATED_FILE;
  mod_node_page_state(NODE_DATA(page_to_nid(page)), item, by);
}

/** Takes a page off its list, to be moved. False if it is on none. */
export function isolate_movable_page(page: PagePtr): boolean {
  if (!lru_del(page)) return false;
  get_page(page);
  count_isolated(page, 1);
  return true;
}

/** Ends the isolation of pages that were not moved. */
export function putback_movable_pages(pages: readonly PagePtr[]): void {
  for (const page of pages) {
    count_isolated(page, -1);
    lru_add(page);
    put_page(page);
  }
}

/**
 * Moves isolated pages, each to what `new_page` has for it: a page with one reference, or NULL, which ends it. Returns the
 * pages that stay, isolated still. Context: no lock held; asks for no memory but by `new_page`.
 */
export function migrate_pages(pages: readonly PagePtr[], new_page: (page: PagePtr) => PagePtr): PagePtr[] {
  const stay: PagePtr[] = [];
  for (const [i, page] of pages.entries()) {
    if (!can_move(page)) {
      count_vm_event(PGMIGRATE_FAIL);
      stay.push(page);
      continue;
    }
    const to = new_page(page);
    if (to === NULL) return [...stay, ...pages.slice(i)];
    count_isolated(page, -1);
    move_page(page, to);
    lru_add(to);
    put_page(to);
    put_page(page);
    count_vm_event(PGMIGRATE_SUCCESS);
  }
  return stay;
}

/** True if all uses of an isolated page are known. */
function can_move(page: PagePtr): boolean {
  const cache_uses = page_is_anon(page) ? 0 : 1;
  const is_anybodys = Page.mapping.get(page) !== NULL;
  return is_anybodys && Page.refcount.get(page) === 1 + page_mapcount(page) + cache_uses;
}

/** Gives `to` all that `page` holds and all uses of it but the caller's. */
function move_page(page: PagePtr, to: PagePtr): void {
  const mappings = [...rmap_walk(page)].map((mapping) => ({ ...mapping, flags: pte_flags(mapping.entry) }));
  for (const { vma, va, entry } of mappings) {
    pte_clear(entry);
    flush_tlb_page(VmArea.vm_mm.get(vma), va);
  }
  ram_copy(page_address(to), page_address(page), PAGE_SIZE);
  for (const flag of MOVED_FLAGS) if (page_flag(page, flag)) set_page_flag(to, flag);
  Page.mapping.set(to, Page.mapping.get(page));
  Page.index.set(to, Page.index.get(page));
  Page.refcount.set(to, Page.refcount.get(page));
  if (mappings.length > 0) count_mapped(page, -1);
  Page.page_type.set(to, Page.page_type.get(page));
  if (mappings.length > 0) count_mapped(to, 1);
  if (!page_is_anon(page)) call_reclaim_slot("replace_page", page, to);
  for (const { entry, flags } of mappings) set_pte(entry, page_address(to), flags);
  for (const flag of MOVED_FLAGS) clear_page_flag(page, flag);
  Page.mapping.set(page, NULL);
  Page.page_type.set(page, PGTY_none);
  Page.refcount.set(page, 1);
}
