/**
 * The page cache: the contents of files, page by page.
 *
 *     address_space.xa_head -> xarray -> page of index n: bytes n * 4096 … of the file      page.mapping, page.index
 *
 * A page that is not there is made when it is read or written. Where the file system can read a page again (`read_folio`:
 * discfs) it goes onto the inactive list, and reclaim may take it. On ramfs the page is the only copy: it is unevictable,
 * and once written it is dirty and stays until the file is truncated or gone; one that was only read is zeroes, and
 * `invalidate_mapping_pages` (drop_caches 1) takes it like all clean pages that no program has mapped. Shared memory
 * without a name (shmem.ts) counts as anonymous to reclaim, which leaves that alone for want of swap.
 *
 * References: the cache has one, each mapping has one (mm/rmap.ts); who takes a page off its LRU list to look at it has
 * another.
 * Counters: NR_FILE_PAGES = pages in all page caches, NR_SHMEM = those among them that are shmem's.
 * Locks: address_space.xa_lock. A page is inserted without it, since that may allocate: the entry has the file to itself.
 * Unlike Linux: no folios above one page, no readahead, no write-back: nothing that is dirty could be written anywhere.
 */
import { NULL, PAGE_SHIFT, PAGE_SIZE } from "../../hal/addr.ts";
import { local_clock } from "../../hal/clock.ts";
import { ram_fill, ram_read_bytes, ram_write_bytes } from "../../hal/ram.ts";
import { AS_SHMEM, AddressSpace, type MappingPtr } from "../../mm/address_space.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { PG_dirty, PG_swapbacked, PG_unevictable, PG_uptodate, Page, clear_page_flag, page_address, page_flag, page_to_nid, set_page_flag, type PagePtr } from "../../mm/page.ts"; // prettier-ignore
import { page_mapcount } from "../../mm/rmap.ts";
import { lru_add, lru_del, mark_page_accessed } from "../../mm/swap.ts";
import { unmap_mapping_range } from "../../mm/unmap.ts";
import { NR_FILE_PAGES, NR_SHMEM, mod_node_page_state } from "../../mm/vmstat.ts";
import { NODE_DATA } from "../../mm/zone.ts";
import { EFBIG, ENOMEM } from "../lib/errno.ts";
import { spin_lock, spin_unlock } from "../lib/spinlock.ts";
import { File, Inode, sb_type, type FilePtr, type InodePtr } from "./fs.ts";
import { XA_MAX_INDEX, xa_erase, xa_for_each, xa_insert, xa_load, xa_replace } from "./xarray.ts";

const I_PAGES = AddressSpace.xa_head;
/** A file's size is at most this. */
export const MAX_LFS_FILESIZE = XA_MAX_INDEX * PAGE_SIZE;

/** Counts a page that comes into a page cache, or (-1) leaves it. */
function count_page(mapping: MappingPtr, page: PagePtr, by: number): void {
  AddressSpace.nrpages.set(mapping, AddressSpace.nrpages.get(mapping) + by);
  const node = NODE_DATA(page_to_nid(page));
  mod_node_page_state(node, NR_FILE_PAGES, by);
  if (page_flag(page, PG_swapbacked)) mod_node_page_state(node, NR_SHMEM, by);
}

/** The page of that index if it is in memory, else NULL. */
export function filemap_find_page(mapping: MappingPtr, index: number): PagePtr {
  return xa_load(I_PAGES, mapping, index);
}

/** The page of that index, made if it is not there. NULL without memory. */
export function filemap_get_page(mapping: MappingPtr, index: number): PagePtr {
  const found = xa_load(I_PAGES, mapping, index);
  if (found !== NULL) return found;
  const page = alloc_pages(AddressSpace.gfp_mask.get(mapping) | __GFP_ZERO, 0);
  if (page === NULL) return NULL;
  if (xa_insert(I_PAGES, mapping, index, page, GFP_KERNEL) !== 0) {
    __free_pages(page, 0);
    return NULL;
  }
  const is_shmem = (AddressSpace.flags.get(mapping) & AS_SHMEM) !== 0;
  if (is_shmem) set_page_flag(page, PG_swapbacked);
  spin_lock(AddressSpace.xa_lock.at(mapping));
  Page.mapping.set(page, mapping);
  Page.index.set(page, index);
  count_page(mapping, page, 1);
  spin_unlock(AddressSpace.xa_lock.at(mapping));
  const host = AddressSpace.host.get(mapping);
  const type = sb_type(Inode.i_sb.get(host));
  if (type.read_folio) type.read_folio(host, page);
  else if (!is_shmem) set_page_flag(page, PG_unevictable);
  set_page_flag(page, PG_uptodate);
  lru_add(page);
  return page;
}

/** Takes a page, which is mapped nowhere, out of the cache and ends the cache's use of it. */
export function delete_from_page_cache(page: PagePtr): void {
  const mapping = Page.mapping.get(page);
  lru_del(page);
  spin_lock(AddressSpace.xa_lock.at(mapping));
  xa_erase(I_PAGES, mapping, Page.index.get(page));
  count_page(mapping, page, -1);
  spin_unlock(AddressSpace.xa_lock.at(mapping));
  Page.mapping.set(page, NULL);
  for (const flag of [PG_uptodate, PG_unevictable, PG_swapbacked, PG_dirty]) clear_page_flag(page, flag);
  __free_pages(page, 0);
}

/** Puts another page, with the same flags, in a page's place; the cache's use goes over. */
export function replace_page_cache_page(page: PagePtr, by: PagePtr): void {
  const mapping = Page.mapping.get(page);
  spin_lock(AddressSpace.xa_lock.at(mapping));
  xa_replace(I_PAGES, mapping, Page.index.get(page), by);
  count_page(mapping, page, -1);
  count_page(mapping, by, 1);
  spin_unlock(AddressSpace.xa_lock.at(mapping));
}

/** Drops all pages from index `first` on. */
export function truncate_inode_pages(mapping: MappingPtr, first: number): void {
  if (AddressSpace.nrpages.get(mapping) === 0) return;
  for (const { entry } of xa_for_each(I_PAGES, mapping, first)) delete_from_page_cache(entry);
}

/** Drops the clean pages that are mapped nowhere. Returns how many. */
export function invalidate_mapping_pages(mapping: MappingPtr): number {
  let dropped = 0;
  for (const { entry } of xa_for_each(I_PAGES, mapping)) {
    if (page_flag(entry, PG_dirty) || page_mapcount(entry) > 0) continue;
    delete_from_page_cache(entry);
    dropped++;
  }
  return dropped;
}

/** Sets a file's size: unmaps and drops what is behind, zeroes the rest of the last page. 0 or -EFBIG. */
export function truncate_setsize(inode: InodePtr, size: number): number {
  if (size > MAX_LFS_FILESIZE) return -EFBIG;
  const mapping = Inode.i_data.at(inode);
  const rest = size % PAGE_SIZE;
  Inode.i_size.set(inode, size); // first: nobody maps again what is unmapped now
  unmap_mapping_range(mapping, Math.ceil(size / PAGE_SIZE));
  truncate_inode_pages(mapping, Math.ceil(size / PAGE_SIZE));
  const last = rest === 0 ? NULL : xa_load(I_PAGES, mapping, Math.floor(size / PAGE_SIZE));
  if (last !== NULL) ram_fill(page_address(last) + rest, 0, PAGE_SIZE - rest);
  Inode.i_mtime.set(inode, local_clock());
  return 0;
}

/** The pieces of pages that `count` bytes from `pos` on lie in: index, offset in the page, bytes. */
function* pieces(
  pos: number,
  count: number,
): Generator<{ index: number; offset: number; bytes: number; done: number }> {
  for (let done = 0; done < count;) {
    const at = pos + done;
    const offset = at % PAGE_SIZE;
    const bytes = Math.min(PAGE_SIZE - offset, count - done);
    yield { index: Math.floor(at / 2 ** PAGE_SHIFT), offset, bytes, done };
    done += bytes;
  }
}

/** Reads up to the file's end; what could be read before memory ran out, or -ENOMEM if that is nothing. */
export function generic_file_read(file: FilePtr, pos: number, count: number): Uint8Array | number {
  const inode = File.f_inode.get(file);
  const result = new Uint8Array(Math.max(Math.min(count, Inode.i_size.get(inode) - pos), 0));
  for (const { index, offset, bytes, done } of pieces(pos, result.length)) {
    const page = filemap_get_page(Inode.i_data.at(inode), index);
    if (page === NULL) return done > 0 ? result.subarray(0, done) : -ENOMEM;
    // Reading on where the last read ended is no further use of that page.
    if (done > 0 || index !== Math.floor((File.f_prev_end.get(file) - 1) / PAGE_SIZE)) mark_page_accessed(page);
    result.set(ram_read_bytes(page_address(page) + offset, bytes), done);
    File.f_prev_end.set(file, pos + done + bytes);
  }
  return result;
}

/** Writes at `pos`; returns what could be written before memory ran out, or -ENOMEM if that is nothing. */
export function generic_file_write(file: FilePtr, pos: number, from: Uint8Array): number {
  const inode = File.f_inode.get(file);
  if (pos + from.length > MAX_LFS_FILESIZE) return -EFBIG;
  let written = 0;
  for (const { index, offset, bytes, done } of pieces(pos, from.length)) {
    const page = filemap_get_page(Inode.i_data.at(inode), index);
    if (page === NULL) break;
    ram_write_bytes(page_address(page) + offset, from.subarray(done, done + bytes));
    set_page_flag(page, PG_dirty);
    written = done + bytes;
  }
  if (written === 0 && from.length > 0) return -ENOMEM;
  Inode.i_size.set(inode, Math.max(Inode.i_size.get(inode), pos + written));
  Inode.i_mtime.set(inode, local_clock());
  return written;
}
