/**
 * Pages of programs: given on the first touch, shared over a fork, copied on a write, taken back.
 *
 *     read of a page never written    the zero page, read-only, no accounting
 *     first write                     a zeroed page: writable, dirty, marked exclusive
 *     fork                            both may read it, neither is its only owner
 *     write to a page without RW      exclusive, or nobody else refers to it: set RW         "reuse"
 *                                     else a copy of its own; the old one loses a user       "copy"
 *
 * A page's references are one a mapping, and whoever looks at it meanwhile. Its mapcount (page_type + 1, as in Linux)
 * counts the mappings alone.
 *
 *     rss_anon of all address spaces = sum of the mapcounts          NR_ANON_MAPPED = pages with a mapcount
 *
 * Giving back: entries cleared, pages that nobody else wants chained  ->  TLBs flushed  ->  chain freed.
 *
 * Locks: see mm_types.ts.
 * Unlike Linux: no anon_vma. With no swap, nobody but the mapping address space ever has to find an anonymous page's
 * mappings. PG_anon_exclusive is PG_owner_2, as in Linux.
 */
import { NULL, PAGE_SIZE, type Ptr, type Virt } from "../hal/addr.ts";
import { atomic_add, atomic_add_return } from "../hal/atomic.ts";
import { static_data } from "../hal/image.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_RW } from "../hal/page_walk.ts";
import { ram_copy } from "../hal/ram.ts";
import { BUG_ON, panic } from "../kernel/lib/bug.ts";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, __GFP_ZERO } from "./gfp.ts";
import { MmStruct, VM_ACCESS_FLAGS, VM_EXEC, VM_WRITE, VmArea, type MmPtr, type VmaPtr } from "./mm_types.ts";
import {
  PG_active, PG_owner_2, PG_referenced, PG_swapbacked, PG_uptodate, Page, clear_page_flag, page_address, page_flag,
  page_to_nid, set_page_flag, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, get_page, get_zeroed_page } from "./page_alloc.ts";
import {
  PAGE_NONE, PAGE_READONLY, PAGE_READONLY_EXEC, PG_LEVEL_4K, _PAGE_SPECIAL, for_each_leaf, pte_alloc, pte_clear,
  pte_flags, pte_none, pte_page, pte_phys, ptep_clear_flags, ptep_set_flags, set_pte, type Pgprot, type PtePtr,
} from "./pgtable.ts"; // prettier-ignore
import { lru_add, lru_del } from "./swap.ts";
import { flush_tlb_page } from "./tlbflush.ts";
import { NR_ANON_MAPPED, PGFAULT, PGREUSE, count_vm_event, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA } from "./zone.ts";

/** What handle_mm_fault can come to: 0 is resolved. */
export const VM_FAULT_OOM = 1;
const PG_anon_exclusive = PG_owner_2;

const zero = static_data("empty_zero_page", { address: "*u8" });

/** Boot: the page that every page reads as until it is written to. */
export function zero_page_init(): void {
  zero.address = get_zeroed_page(GFP_KERNEL);
  if (zero.address === NULL) panic("No memory for the zero page");
}

/** Physical address of the zero page. */
export function empty_zero_page(): Ptr {
  return zero.address;
}

/** How the pages of an area are mapped until they are written to. */
export function vm_get_page_prot(flags: number): Pgprot {
  if ((flags & VM_ACCESS_FLAGS) === 0) return PAGE_NONE;
  return flags & VM_EXEC ? PAGE_READONLY_EXEC : PAGE_READONLY;
}

function prot_of(vma: VmaPtr): Pgprot {
  return vm_get_page_prot(VmArea.vm_flags.get(vma));
}

/** Mappings of a page. */
export function page_mapcount(page: PagePtr): number {
  return Page.page_type.get(page) + 1;
}

function add_rss(mm: MmPtr, pages: number): void {
  const rss = MmStruct.rss_anon.get(mm) + pages;
  MmStruct.rss_anon.set(mm, rss);
  if (rss > MmStruct.hiwater_rss.get(mm)) MmStruct.hiwater_rss.set(mm, rss);
}

function count_anon_mapped(page: PagePtr, by: number): void {
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_ANON_MAPPED, by);
}

/* Faults */

/**
 * Resolves a fault that the area allows. 0 or VM_FAULT_OOM.
 *
 * Context: a trap or a call of the task whose address space it is; may ask for pages as GFP_KERNEL does.
 */
export function handle_mm_fault(vma: VmaPtr, address: Virt, write: boolean): number {
  count_vm_event(PGFAULT);
  const va = address - (address % PAGE_SIZE);
  const entry = pte_alloc(MmStruct.tables.at(VmArea.vm_mm.get(vma)), va, PG_LEVEL_4K);
  if (entry === NULL) return VM_FAULT_OOM;
  if (pte_none(entry)) return write ? map_new_page(vma, va, entry) : map_zero_page(vma, entry);
  return write && !(pte_flags(entry) & _PAGE_RW) ? do_wp_page(vma, va, entry) : 0;
}

function map_zero_page(vma: VmaPtr, entry: PtePtr): number {
  set_pte(entry, zero.address, prot_of(vma) | _PAGE_SPECIAL);
  return 0;
}

/** First write: a page of zeroes. */
function map_new_page(vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const page = alloc_pages(GFP_HIGHUSER_MOVABLE | __GFP_ZERO, 0);
  return page === NULL ? VM_FAULT_OOM : map_anon_page(vma, va, entry, page);
}

/** Maps a page that is nobody's yet, writable. */
function map_anon_page(vma: VmaPtr, va: Virt, entry: PtePtr, page: PagePtr): number {
  VmArea.has_anon.set(vma, 1);
  for (const flag of [PG_swapbacked, PG_uptodate, PG_anon_exclusive]) set_page_flag(page, flag);
  Page.index.set(page, va / PAGE_SIZE);
  atomic_add(Page.page_type.at(page), 1);
  count_anon_mapped(page, 1);
  add_rss(VmArea.vm_mm.get(vma), 1);
  lru_add(page);
  set_pte(entry, page_address(page), prot_of(vma) | _PAGE_RW | _PAGE_DIRTY);
  return 0;
}

/** Write to a page that is mapped without RW. */
function do_wp_page(vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const is_zero_page = (pte_flags(entry) & _PAGE_SPECIAL) !== 0;
  const old = is_zero_page ? NULL : pte_page(entry);
  if (old !== NULL && (page_flag(old, PG_anon_exclusive) || Page.refcount.get(old) === 1)) {
    set_page_flag(old, PG_anon_exclusive);
    ptep_set_flags(entry, _PAGE_RW | _PAGE_DIRTY | _PAGE_ACCESSED);
    count_vm_event(PGREUSE);
    return 0;
  }
  const page = alloc_pages(is_zero_page ? GFP_HIGHUSER_MOVABLE | __GFP_ZERO : GFP_HIGHUSER_MOVABLE, 0);
  if (page === NULL) return VM_FAULT_OOM;
  if (old !== NULL) ram_copy(page_address(page), page_address(old), PAGE_SIZE);
  pte_clear(entry);
  const mm = VmArea.vm_mm.get(vma);
  flush_tlb_page(mm, va);
  map_anon_page(vma, va, entry, page);
  if (old !== NULL) free_page_chain(unmap_page(mm, old, NULL));
  return 0;
}

/* fork */

/** Gives a child the pages of an area, to share until one of the two writes. False without memory. */
export function copy_page_range(to: MmPtr, vma: VmaPtr): boolean {
  if (!VmArea.has_anon.get(vma)) return true; // nothing there that a fault would not make again
  let done = true;
  const tables = MmStruct.tables.at(VmArea.vm_mm.get(vma));
  for_each_leaf(tables, VmArea.vm_start.get(vma), VmArea.vm_end.get(vma), (entry, va) => {
    done = done && copy_present_pte(to, entry, va);
  });
  return done;
}

function copy_present_pte(to: MmPtr, entry: PtePtr, va: Virt): boolean {
  const copy = pte_alloc(MmStruct.tables.at(to), va, PG_LEVEL_4K);
  if (copy === NULL) return false;
  if (pte_flags(entry) & _PAGE_RW) ptep_clear_flags(entry, _PAGE_RW);
  const flags = pte_flags(entry);
  set_pte(copy, pte_phys(entry), flags & ~_PAGE_ACCESSED);
  if (flags & _PAGE_SPECIAL) return true;
  const page = pte_page(entry);
  clear_page_flag(page, PG_anon_exclusive);
  get_page(page);
  atomic_add(Page.page_type.at(page), 1);
  add_rss(to, 1);
  return true;
}

/* mprotect, munmap */

/** Gives the mapped pages of an area the area's rights. Those that may be written to now fault once to get RW. */
export function change_protection(vma: VmaPtr): void {
  const prot = prot_of(vma);
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
    const page = pte_flags(entry) & _PAGE_SPECIAL ? NULL : pte_page(entry);
    pte_clear(entry);
    if (page !== NULL) pages = unmap_page(mm, page, pages);
  });
  return pages;
}

/** Ends a mapping's use of a page; the last one puts it in front of the chain. */
function unmap_page(mm: MmPtr, page: PagePtr, chain: PagePtr): PagePtr {
  add_rss(mm, -1);
  if (atomic_add_return(Page.page_type.at(page), -1) === -1) count_anon_mapped(page, -1);
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
    for (const flag of [PG_swapbacked, PG_uptodate, PG_anon_exclusive, PG_active, PG_referenced])
      clear_page_flag(page, flag);
    __free_pages(page, 0);
    page = next;
  }
}
