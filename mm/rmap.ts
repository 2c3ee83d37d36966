/**
 * Reverse mapping: from a page to all entries of page tables that map it, and what is done there.
 *
 *     page of a file        page.mapping.i_mmap  -> areas that have page.index of it  \
 *     anonymous page        anon_vma.rb_root     -> areas that may have page.index     > vm_start + (index - vm_pgoff) pages
 *                                                                                        -> entry: is it this page?
 *
 * A page's mapcount (page_type + 1, as in Linux) counts the entries, and each has a reference of its own:
 *
 *     refcount = mapcount + 1 for the page cache + whoever looks at it meanwhile
 *     rss of all address spaces, by kind = sum of the mapcounts      NR_ANON_MAPPED, NR_FILE_MAPPED = pages with a mapcount
 *
 * Invariant: the entries found for a page are as many as its mapcount says (mm/rmap_check.ts).
 * Locks: as mm_types.ts. Unlike Linux: no large folios, so a page is mapped whole or not at all.
 */
import { NULL, PAGE_SIZE, type Virt } from "../hal/addr.ts";
import { atomic_add_return } from "../hal/atomic.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY } from "../hal/page_walk.ts";
import { BUG_ON } from "../kernel/lib/bug.ts";
import { AddressSpace } from "./address_space.ts";
import { AnonVma } from "./anon_vma.ts";
import { anon_vma_interval_tree, vma_interval_tree } from "./interval_tree.ts";
import { MmStruct, VM_EXEC, VmArea, get_mm_rss, type MmPtr, type VmaPtr } from "./mm_types.ts";
import {
  PAGE_MAPPING_ANON, PG_dirty, PG_swapbacked, Page, page_flag, page_is_anon, page_to_nid, page_to_pfn, set_page_flag,
  type PagePtr,
} from "./page.ts"; // prettier-ignore
import { put_page } from "./page_alloc.ts";
import { PG_LEVEL_4K, ptep_clear_flags, pte_clear, pte_flags, pte_none, pte_offset, pte_pfn, type PtePtr } from "./pgtable.ts"; // prettier-ignore
import { flush_tlb_page } from "./tlbflush.ts";
import { NR_ANON_MAPPED, NR_FILE_MAPPED, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA } from "./zone.ts";

/* Counting */

/** Mappings of a page. */
export function page_mapcount(page: PagePtr): number {
  return Page.page_type.get(page) + 1;
}

/** The counter of an address space that a page is in. */
function mm_counter(page: PagePtr): typeof MmStruct.rss_anon {
  if (page_is_anon(page)) return MmStruct.rss_anon;
  return page_flag(page, PG_swapbacked) ? MmStruct.rss_shmem : MmStruct.rss_file;
}

function count_rss(mm: MmPtr, page: PagePtr, by: number): void {
  const counter = mm_counter(page);
  counter.set(mm, counter.get(mm) + by);
  const rss = get_mm_rss(mm);
  if (rss > MmStruct.hiwater_rss.get(mm)) MmStruct.hiwater_rss.set(mm, rss);
}

/** Counts a page that is mapped somewhere now, or (-1) nowhere any more. */
export function count_mapped(page: PagePtr, by: number): void {
  mod_node_page_state(NODE_DATA(page_to_nid(page)), page_is_anon(page) ? NR_ANON_MAPPED : NR_FILE_MAPPED, by);
}

/** One mapping more; the reference that goes with it is the caller's to take. */
export function page_add_rmap(page: PagePtr, mm: MmPtr): void {
  if (atomic_add_return(Page.page_type.at(page), 1) === 0) count_mapped(page, 1);
  count_rss(mm, page, 1);
}

/** One mapping less; the reference that goes with it is the caller's to drop. */
export function page_remove_rmap(page: PagePtr, mm: MmPtr): void {
  const left = atomic_add_return(Page.page_type.at(page), -1);
  BUG_ON(left < -1, `page ${page_to_pfn(page)} is unmapped more often than mapped`);
  if (left === -1) count_mapped(page, -1);
  count_rss(mm, page, -1);
}

/** A page that an area alone has, new or inherited, is looked for under the area's own anon_vma from now on. */
export function page_set_anon_rmap(page: PagePtr, vma: VmaPtr, va: Virt): void {
  Page.mapping.set(page, VmArea.anon_vma.get(vma) | PAGE_MAPPING_ANON);
  Page.index.set(page, linear_page_index(vma, va));
}

/** Which page of its file, or of what its anon_vma stands for, an area has at an address. */
export function linear_page_index(vma: VmaPtr, va: Virt): number {
  return VmArea.vm_pgoff.get(vma) + Math.floor((va - VmArea.vm_start.get(vma)) / PAGE_SIZE);
}

/* Walking */

/** An entry that maps a page. */
export interface Mapping {
  readonly vma: VmaPtr;
  readonly va: Virt;
  readonly entry: PtePtr;
}

/** The areas in which a page may be mapped. */
function areas_of(page: PagePtr): Generator<VmaPtr> {
  const [mapping, index] = [Page.mapping.get(page), Page.index.get(page)];
  return page_is_anon(page)
    ? anon_vma_interval_tree(AnonVma.rb_root.at(mapping & ~PAGE_MAPPING_ANON), index, index)
    : vma_interval_tree(AddressSpace.i_mmap.at(mapping), index, index);
}

/** Every entry that maps a page. The body may clear the one it is given. */
export function* rmap_walk(page: PagePtr): Generator<Mapping> {
  if (Page.mapping.get(page) === NULL) return;
  const pfn = page_to_pfn(page);
  for (const vma of areas_of(page)) {
    const va = VmArea.vm_start.get(vma) + (Page.index.get(page) - VmArea.vm_pgoff.get(vma)) * PAGE_SIZE;
    const entry = pte_offset(MmStruct.tables.at(VmArea.vm_mm.get(vma)), va, PG_LEVEL_4K);
    if (entry !== NULL && !pte_none(entry) && pte_pfn(entry) === pfn) yield { vma, va, entry };
  }
}

/**
 * By how many mappings a page was used since this was last asked, and whether any of those may be run: clears the accessed
 * bits. TLBs are not flushed, as on x86: a CPU that remembers the entry does not set the bit again until it has forgotten it.
 */
export function folio_referenced(page: PagePtr): { referenced: number; executable: boolean } {
  let [referenced, executable] = [0, false];
  if (page_mapcount(page) === 0) return { referenced, executable };
  for (const { vma, entry } of rmap_walk(page)) {
    if (!(pte_flags(entry) & _PAGE_ACCESSED)) continue;
    ptep_clear_flags(entry, _PAGE_ACCESSED);
    referenced++;
    if (VmArea.vm_flags.get(vma) & VM_EXEC) executable = true;
  }
  return { referenced, executable };
}

/**
 * Unmaps a page of a file everywhere; what programs wrote to it there makes it dirty. The next access of theirs is a fault
 * that finds it in the page cache. Context: the caller has a use of the page.
 */
export function try_to_unmap(page: PagePtr): void {
  for (const { vma, va, entry } of rmap_walk(page)) {
    const mm = VmArea.vm_mm.get(vma);
    if (pte_flags(entry) & _PAGE_DIRTY) set_page_flag(page, PG_dirty);
    pte_clear(entry);
    flush_tlb_page(mm, va);
    page_remove_rmap(page, mm);
    put_page(page);
  }
}
