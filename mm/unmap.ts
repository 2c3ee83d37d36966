/**
 * Pages of programs taken back, or given other rights: munmap, the end of an address space, mprotect, a file that is cut.
 *
 *     zap_page_range           entries cleared, pages that nobody else wants chained  ->  TLBs flushed  ->  free_page_chain
 *     unmap_mapping_range      the same for a part of a file, in all address spaces that map it
 *
 * What a program wrote to a page of a file, or looked at, shows in the entry until it is cleared; then the page gets it.
 *
 * Locks: see mm_types.ts.
 */
import { NULL, PAGE_SIZE, type Virt } from "../hal/addr.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_RW } from "../hal/page_walk.ts";
import { BUG_ON } from "../kernel/lib/bug.ts";
import { AddressSpace, type MappingPtr } from "./address_space.ts";
import { vma_interval_tree } from "./interval_tree.ts";
import { MmStruct, VM_WRITE, VmArea, type MmPtr, type VmaPtr } from "./mm_types.ts";
import {
  PG_active, PG_dirty, PG_owner_2, PG_referenced, PG_swapbacked, PG_uptodate, Page, clear_page_flag, page_is_anon,
  set_page_flag, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages } from "./page_alloc.ts";
import { _PAGE_SPECIAL, for_each_leaf, pte_clear, pte_flags, pte_page, pte_phys, set_pte, type Pgprot } from "./pgtable.ts"; // prettier-ignore
import { page_mapcount, page_remove_rmap } from "./rmap.ts";
import { lru_del, mark_page_accessed } from "./swap.ts";
import { flush_tlb_mm_range } from "./tlbflush.ts";

/** Gives the mapped pages of an area the rights `prot`. Those of its own that may be written to now fault once to get RW. */
export function change_protection(vma: VmaPtr, prot: Pgprot): void {
  const keeps_rw = (VmArea.vm_flags.get(vma) & VM_WRITE) !== 0;
  const tables = MmStruct.tables.at(VmArea.vm_mm.get(vma));
  for_each_leaf(tables, VmArea.vm_start.get(vma), VmArea.vm_end.get(vma), (entry) => {
    const flags = pte_flags(entry);
    const kept = _PAGE_DIRTY | _PAGE_SPECIAL | (keeps_rw ? _PAGE_RW : 0);
    set_pte(entry, pte_phys(entry), prot | (flags & kept));
  });
}

/**
 * Unmaps all pages of [start, end). Returns those that are nobody's any more, chained in front of `chain`: for
 * free_page_chain, once no TLB knows them.
 */
export function zap_page_range(mm: MmPtr, start: Virt, end: Virt, chain: PagePtr = NULL): PagePtr {
  let pages = chain;
  for_each_leaf(MmStruct.tables.at(mm), start, end, (entry) => {
    const flags = pte_flags(entry);
    const page = flags & _PAGE_SPECIAL ? NULL : pte_page(entry);
    pte_clear(entry);
    if (page === NULL) return;
    if (!page_is_anon(page)) {
      if (flags & _PAGE_DIRTY) set_page_flag(page, PG_dirty);
      if (flags & _PAGE_ACCESSED) mark_page_accessed(page);
    }
    page_remove_rmap(page, mm);
    pages = release_page(page, pages);
  });
  return pages;
}

/** Ends a use of a page; the last one puts it in front of the chain. */
export function release_page(page: PagePtr, chain: PagePtr): PagePtr {
  if (Page.refcount.get(page) > 1) {
    __free_pages(page, 0);
    return chain;
  }
  Page.private.set(page, chain);
  return page;
}

/** Frees what zap_page_range returned. */
export function free_page_chain(chain: PagePtr): void {
  for (let page = chain; page !== NULL;) {
    const next = Page.private.get(page);
    Page.private.set(page, 0);
    BUG_ON(page_mapcount(page) !== 0, `a page with ${page_mapcount(page)} mappings is freed`);
    lru_del(page);
    for (const flag of [PG_swapbacked, PG_uptodate, PG_owner_2, PG_active, PG_referenced]) clear_page_flag(page, flag);
    Page.mapping.set(page, NULL);
    __free_pages(page, 0);
    page = next;
  }
}

/**
 * Unmaps the pages of a file from index `first` on, and the copies that programs have of them, everywhere.
 * Context: the file is getting that short; its page cache still has the pages.
 */
export function unmap_mapping_range(mapping: MappingPtr, first: number): void {
  for (const vma of vma_interval_tree(AddressSpace.i_mmap.at(mapping), first, Infinity)) {
    const pages_before = Math.max(first - VmArea.vm_pgoff.get(vma), 0);
    const [mm, start, end] = [VmArea.vm_mm.get(vma), VmArea.vm_start.get(vma) + pages_before * PAGE_SIZE, VmArea.vm_end.get(vma)]; // prettier-ignore
    const pages = zap_page_range(mm, start, end);
    flush_tlb_mm_range(mm, start, end);
    free_page_chain(pages);
  }
}
