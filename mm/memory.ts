/**
 * Pages of programs: given on the first touch, shared over a fork, copied on a write. Taking them back: mm/unmap.ts.
 *
 *     of zeroes   read      the zero page, read-only, no accounting
 *                 write     a zeroed page: writable, dirty, marked exclusive
 *     of a file   read      pages of the page cache, up to 16 around the address that are in memory: "fault-around"
 *                 write     private: a copy of its own, as if it had been zeroes    shared: the file's page, dirty
 *     fork                  pages of their own both may read, neither is their only owner; what a fault would map again
 *                           is left to a fault
 *     write to a page       its own, exclusive or nobody else refers to it: set RW      "reuse"
 *       without RW          else a copy of its own; the old one loses a user            "copy"
 *
 * A shared page that is read first is mapped writable at once where the area may be written to: what the program does then
 * shows in the entry's dirty bit, and the page gets that when it is unmapped.
 *
 * Any request for memory may reclaim or move pages, also one that the fault is about: entries are looked at again after it,
 * and between the page cache's answer and its entry there is none.
 *
 * Counts and reverse mapping: mm/rmap.ts. Locks: see mm_types.ts.
 * Unlike Linux: a store through a shared mapping leaves the file's mtime alone. PG_anon_exclusive is PG_owner_2, as in Linux.
 */
import { NULL, PAGE_SIZE, type Ptr, type Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_RW } from "../hal/page_walk.ts";
import { ram_copy } from "../hal/ram.ts";
import { panic } from "../kernel/lib/bug.ts";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, __GFP_ZERO } from "./gfp.ts";
import {
  MmStruct, VM_ACCESS_FLAGS, VM_EXEC, VM_SHARED, VM_WRITE, VmArea, vm_ops, type MmPtr, type VmOps, type VmaPtr,
} from "./mm_types.ts"; // prettier-ignore
import {
  PG_dirty, PG_owner_2, PG_swapbacked, PG_uptodate, Page, clear_page_flag, page_address, page_flag, page_is_anon,
  set_page_flag, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages, get_page, get_zeroed_page } from "./page_alloc.ts";
import {
  PAGE_NONE, PAGE_READONLY, PAGE_READONLY_EXEC, PAGE_SHARED, PAGE_SHARED_EXEC, PG_LEVEL_4K, _PAGE_SPECIAL,
  for_each_leaf, pte_alloc, pte_clear, pte_flags, pte_none, pte_page, pte_phys, ptep_clear_flags, ptep_set_flags,
  set_pte, type Pgprot, type PtePtr,
} from "./pgtable.ts"; // prettier-ignore
import { linear_page_index, page_add_rmap, page_remove_rmap, page_set_anon_rmap } from "./rmap.ts";
import { lru_add } from "./swap.ts";
import { flush_tlb_page } from "./tlbflush.ts";
import { free_page_chain, release_page } from "./unmap.ts";
import { vma_prepare_anon } from "./vma.ts";
import { vma_alloc_page } from "./vma_policy.ts";
import { PGFAULT, PGREUSE, count_vm_event } from "./vmstat.ts";

/** What handle_mm_fault can come to: 0 is resolved. */
export const VM_FAULT_OOM = 1;
/** Behind the end of the file. */
export const VM_FAULT_SIGBUS = 2;
const PG_anon_exclusive = PG_owner_2;
/** fault_around_bytes, 64 KiB. */
const FAULT_AROUND_PAGES = 16;

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

/** How the pages of an area are mapped: those of its own without RW until they are written to. */
export function vm_get_page_prot(flags: number): Pgprot {
  if ((flags & VM_ACCESS_FLAGS) === 0) return PAGE_NONE;
  if ((flags & VM_SHARED) !== 0 && (flags & VM_WRITE) !== 0) return flags & VM_EXEC ? PAGE_SHARED_EXEC : PAGE_SHARED;
  return flags & VM_EXEC ? PAGE_READONLY_EXEC : PAGE_READONLY;
}

function prot_of(vma: VmaPtr): Pgprot {
  return vm_get_page_prot(VmArea.vm_flags.get(vma));
}

/* Faults */

/**
 * Resolves a fault that the area allows. 0, VM_FAULT_OOM or VM_FAULT_SIGBUS.
 *
 * Context: a trap or a call of the task whose address space it is; may ask for pages as GFP_KERNEL does.
 */
export function handle_mm_fault(vma: VmaPtr, address: Virt, write: boolean): number {
  count_vm_event(PGFAULT);
  const va = address - (address % PAGE_SIZE);
  const entry = pte_alloc(MmStruct.tables.at(VmArea.vm_mm.get(vma)), va, PG_LEVEL_4K);
  if (entry === NULL) return VM_FAULT_OOM;
  if (!pte_none(entry)) return write && !(pte_flags(entry) & _PAGE_RW) ? do_wp_page(vma, va, entry) : 0;
  const ops = vm_ops(vma);
  if (ops === undefined) return write ? do_anonymous_page(vma, va, entry) : map_zero_page(vma, entry);
  if (!write) return do_read_fault(ops, vma, va, entry);
  return VmArea.vm_flags.get(vma) & VM_SHARED
    ? do_shared_fault(ops, vma, va, entry)
    : do_cow_fault(ops, vma, va, entry);
}

function map_zero_page(vma: VmaPtr, entry: PtePtr): number {
  set_pte(entry, zero.address, prot_of(vma) | _PAGE_SPECIAL);
  return 0;
}

/** A page for an area to have for its own: of zeroes, or for a copy. NULL without memory. */
function alloc_anon_page(vma: VmaPtr, va: Virt, zeroed: number): PagePtr {
  return vma_prepare_anon(vma) ? vma_alloc_page(GFP_HIGHUSER_MOVABLE | zeroed, vma, va) : NULL;
}

/** First write: a page of zeroes. */
function do_anonymous_page(vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const page = alloc_anon_page(vma, va, __GFP_ZERO);
  return page === NULL ? VM_FAULT_OOM : map_anon_page(vma, va, entry, page);
}

/** Maps a page that is nobody's yet, writable. */
function map_anon_page(vma: VmaPtr, va: Virt, entry: PtePtr, page: PagePtr): number {
  for (const flag of [PG_swapbacked, PG_uptodate, PG_anon_exclusive]) set_page_flag(page, flag);
  page_set_anon_rmap(page, vma, va);
  page_add_rmap(page, VmArea.vm_mm.get(vma));
  lru_add(page);
  set_pte(entry, page_address(page), prot_of(vma) | _PAGE_RW | _PAGE_DIRTY);
  return 0;
}

/** Maps a page of the page cache. */
function map_file_page(vma: VmaPtr, entry: PtePtr, page: PagePtr, dirty: number): void {
  get_page(page);
  page_add_rmap(page, VmArea.vm_mm.get(vma));
  set_pte(entry, page_address(page), prot_of(vma) | dirty);
}

function do_read_fault(ops: VmOps, vma: VmaPtr, va: Virt, entry: PtePtr): number {
  do_fault_around(ops, vma, va, entry);
  if (!pte_none(entry)) return 0;
  const page = ops.fault(vma, linear_page_index(vma, va));
  if (page < 0) return -page;
  map_file_page(vma, entry, page, 0);
  return 0;
}

/** Maps what is in memory of the 16 pages from a multiple of 16 on: all of them of one page table, within the area. */
function do_fault_around(ops: VmOps, vma: VmaPtr, va: Virt, entry: PtePtr): void {
  const window = FAULT_AROUND_PAGES * PAGE_SIZE;
  const base = va - (va % window);
  const from = Math.max(base, VmArea.vm_start.get(vma));
  const to = Math.min(base + window, VmArea.vm_end.get(vma));
  for (let at = from; at < to; at += PAGE_SIZE) {
    const each = entry + ((at - va) / PAGE_SIZE) * 8;
    const page = pte_none(each) ? ops.cached(vma, linear_page_index(vma, at)) : NULL;
    if (page !== NULL) map_file_page(vma, each, page, 0);
  }
}

function do_shared_fault(ops: VmOps, vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const page = ops.fault(vma, linear_page_index(vma, va));
  if (page < 0) return -page;
  set_page_flag(page, PG_dirty);
  map_file_page(vma, entry, page, _PAGE_DIRTY);
  return 0;
}

/** First write to a private page of a file. */
function do_cow_fault(ops: VmOps, vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const page = alloc_anon_page(vma, va, 0);
  if (page === NULL) return VM_FAULT_OOM;
  const from = ops.fault(vma, linear_page_index(vma, va));
  if (from < 0) {
    __free_pages(page, 0);
    return -from;
  }
  ram_copy(page_address(page), page_address(from), PAGE_SIZE);
  return map_anon_page(vma, va, entry, page);
}

/** Write to a page that is mapped without RW: never one that is shared. */
function do_wp_page(vma: VmaPtr, va: Virt, entry: PtePtr): number {
  const is_zero_page = (pte_flags(entry) & _PAGE_SPECIAL) !== 0;
  if (!is_zero_page && wp_can_reuse(pte_page(entry))) {
    const page = pte_page(entry);
    page_set_anon_rmap(page, vma, va);
    set_page_flag(page, PG_anon_exclusive);
    ptep_set_flags(entry, _PAGE_RW | _PAGE_DIRTY | _PAGE_ACCESSED);
    count_vm_event(PGREUSE);
    return 0;
  }
  const page = alloc_anon_page(vma, va, is_zero_page ? __GFP_ZERO : 0);
  if (page === NULL) return VM_FAULT_OOM;
  if (pte_none(entry)) {
    __free_pages(page, 0); // reclaim took the page: the access is tried again
    return 0;
  }
  const old = is_zero_page ? NULL : pte_page(entry);
  if (old !== NULL) ram_copy(page_address(page), page_address(old), PAGE_SIZE);
  pte_clear(entry);
  const mm = VmArea.vm_mm.get(vma);
  flush_tlb_page(mm, va);
  map_anon_page(vma, va, entry, page);
  if (old === NULL) return 0;
  page_remove_rmap(old, mm);
  free_page_chain(release_page(old, NULL));
  return 0;
}

/** True if a page is nobody else's. */
function wp_can_reuse(page: PagePtr): boolean {
  return page_is_anon(page) && (page_flag(page, PG_anon_exclusive) || Page.refcount.get(page) === 1);
}

/* fork */

/** Gives a child the pages of an area, to share until one of the two writes. False without memory. */
export function copy_page_range(to: MmPtr, vma: VmaPtr): boolean {
  if (VmArea.anon_vma.get(vma) === NULL) return true; // nothing there that a fault would not make again
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
  if (pte_none(entry)) return true; // reclaim took it meanwhile
  if (pte_flags(entry) & _PAGE_RW) ptep_clear_flags(entry, _PAGE_RW);
  const flags = pte_flags(entry);
  set_pte(copy, pte_phys(entry), flags & ~_PAGE_ACCESSED);
  if (flags & _PAGE_SPECIAL) return true;
  const page = pte_page(entry);
  if (page_is_anon(page)) clear_page_flag(page, PG_anon_exclusive);
  get_page(page);
  page_add_rmap(page, to);
  return true;
}
