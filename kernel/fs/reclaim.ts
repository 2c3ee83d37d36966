/**
 * What reclaim (mm/vmscan.ts) and migration (mm/migrate.ts) ask of the file layer: to take a page out of its file, or to put
 * another in its place.
 *
 * Locks: address_space.xa_lock.
 */
import { NULL } from "../../hal/addr.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { PG_dirty, Page, page_flag, type PagePtr } from "../../mm/page.ts";
import { set_reclaim_slot } from "../../mm/reclaim_state.ts";
import { ksym } from "../lib/ksym.ts";
import { delete_from_page_cache, replace_page_cache_page } from "./filemap.ts";
import { inode_add_lru } from "./inode.ts";

/** The cache's use of a page, and that of the caller, who isolated it. */
const EXPECTED_USES = 2;

/**
 * Takes a page out of its file, if it is clean and nobody else uses it; then the caller's use is the last. A file that has
 * lost its last page and is not in use can be reclaimed itself from now on.
 */
function remove_mapping(page: PagePtr): boolean {
  const mapping = Page.mapping.get(page);
  if (mapping === NULL || Page.refcount.get(page) !== EXPECTED_USES || page_flag(page, PG_dirty)) return false;
  delete_from_page_cache(page);
  if (AddressSpace.nrpages.get(mapping) === 0) inode_add_lru(AddressSpace.host.get(mapping));
  return true;
}
ksym("remove_mapping", remove_mapping);

ksym("replace_page", replace_page_cache_page);

/** Boot. */
export function page_reclaim_init(): void {
  set_reclaim_slot("remove_mapping", remove_mapping);
  set_reclaim_slot("replace_page", replace_page_cache_page);
}
