/**
 * `address_space`: the contents of a file in memory, as the page cache (kernel/fs/filemap.ts) and the areas that map it
 * (mm/rmap.ts) share them.
 *
 *     i_pages   xarray of pages          page.mapping -> address_space, page.index: which page of the file
 *     i_mmap    areas that map any of it, by their offset in the file: how all mappings of a page are found
 */
import type { Ptr } from "../hal/addr.ts";
import { struct } from "../hal/struct.ts";
import { RbRoot } from "../kernel/lib/rbtree.ts";
import { SpinLock } from "../kernel/lib/spinlock.ts";

export const AddressSpace = struct("address_space", {
  host: "*inode",
  xa_lock: SpinLock, // i_pages.xa_lock: the tree and nrpages
  xa_head: "*xa_node", // i_pages.xa_head: NULL, a page, or a node's address | 2
  nrpages: "u64",
  gfp_mask: "u32", // for its pages
  flags: "u32", // AS_*
  i_mmap: RbRoot, // vm_area_struct.shared; changes like the address spaces that the areas are in
});
/** `flags`: shared memory without a name: to reclaim its pages are anonymous. */
export const AS_SHMEM = 1;
export type MappingPtr = Ptr<"address_space">;
