/**
 * Address spaces from birth to end, and the calls that change them: mmap, munmap, brk, and the growing stack; mprotect.ts
 * has those that change what is mapped.
 *
 *     mm_alloc  ->  setup_stack  ->  do_mmap, do_munmap, do_brk, do_mprotect  ->  mmput
 *                                \-> dup_mm (fork): areas copied, pages shared
 *
 * Only areas are made here; pages come with the first touch (memory.ts). Where a call cannot have memory for an area it
 * returns -ENOMEM and has changed nothing that a program could notice. A request of more pages than the machine has is
 * refused at once (vm.overcommit_memory 0).
 *
 * Unmapping, in this order: areas cut and taken out; entries cleared; TLBs flushed; pages and tables freed; areas freed,
 * since with the last of them a file may go.
 *
 * Locks: see mm_types.ts.
 */
import { NULL, PAGE_SIZE, align_up, type Ptr, type Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { BUG_ON } from "../kernel/lib/bug.ts";
import { EACCES, EEXIST, EINVAL, ENOMEM } from "../kernel/lib/errno.ts";
import type { MappingPtr } from "./address_space.ts";
import { anon_vma_fork } from "./anon_vma.ts";
import { GFP_KERNEL } from "./gfp.ts";
import { copy_page_range } from "./memory.ts";
import {
  MAX_MAP_COUNT, MMAP_BASE, MMAP_MIN_ADDR, MmStruct, STACK_GUARD_GAP, STACK_LIMIT, STACK_TOP, START_BRK,
  VM_GROWSDOWN, VM_MAYALL, VM_MAYSHARE, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE, VmArea, get_mm_rss, mm_caches, vm_ops,
  type MmPtr, type VmaPtr,
} from "./mm_types.ts"; // prettier-ignore
import { TASK_SIZE_MAX, free_pgtables, pagetable_free_chain, pgd_alloc, pgd_free } from "./pgtable.ts";
import { kmem_cache_free, kmem_cache_zalloc } from "./slab_common.ts";
import { detach_mm, flush_tlb_mm_range } from "./tlbflush.ts";
import {
  find_vma, find_vma_intersection, for_each_vma, highest_gap, split_vma, vm_area_alloc, vm_area_dup, vm_area_free,
  vma_last, vma_link, vma_merge, vma_prev, vma_release, vma_resize, vma_unlink,
} from "./vma.ts"; // prettier-ignore
import { free_page_chain, zap_page_range } from "./unmap.ts";
import { node_state } from "./zone.ts";

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_GROWSDOWN = 0x100;
export const MAP_FIXED_NOREPLACE = 0x100000;
const MAP_TYPE = MAP_SHARED | MAP_PRIVATE;
const MAP_KNOWN = MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE;
export const PROT_KNOWN = PROT_READ | PROT_WRITE | PROT_EXEC;
/** Pages of a stack at the start: Linux's 132 KiB. */
const STACK_START_BYTES = 33 * PAGE_SIZE;

const contexts = static_data("mm_contexts", { last_ctx_id: "u64" });

/* Birth and end */

/** An address space without areas, with one user; NULL without memory. */
export function mm_alloc(): MmPtr {
  const mm: MmPtr = kmem_cache_zalloc(mm_caches.mm_struct, GFP_KERNEL);
  if (mm === NULL) return NULL;
  if (pgd_alloc(MmStruct.tables.at(mm)) === NULL) {
    kmem_cache_free(mm_caches.mm_struct, mm);
    return NULL;
  }
  contexts.last_ctx_id = contexts.last_ctx_id + 1;
  MmStruct.ctx_id.set(mm, contexts.last_ctx_id);
  MmStruct.mm_users.set(mm, 1);
  MmStruct.start_brk.set(mm, START_BRK);
  MmStruct.brk.set(mm, START_BRK);
  MmStruct.start_stack.set(mm, STACK_TOP);
  MmStruct.mmap_base.set(mm, MMAP_BASE);
  return mm;
}

/** The address space of a program that starts: a stack. NULL without memory. */
export function mm_for_exec(): MmPtr {
  const mm = mm_alloc();
  if (mm === NULL) return NULL;
  const flags = VM_READ | VM_WRITE | VM_MAYALL | VM_GROWSDOWN;
  const stack = vm_area_alloc(mm, STACK_TOP - STACK_START_BYTES, STACK_TOP, flags);
  if (stack !== NULL) {
    vma_link(stack);
    account(mm, VmArea.vm_flags.get(stack), STACK_START_BYTES);
    return mm;
  }
  mmput(mm);
  return NULL;
}

/** Ends a user of an address space; with the last one all of it is freed. Context: that task runs in it no more. */
export function mmput(mm: MmPtr): void {
  const users = MmStruct.mm_users.get(mm) - 1;
  MmStruct.mm_users.set(mm, users);
  if (users === 0) exit_mmap(mm);
}

function exit_mmap(mm: MmPtr): void {
  const tables = MmStruct.tables.at(mm);
  const pages = zap_page_range(mm, 0, TASK_SIZE_MAX);
  const table_chain = free_pgtables(tables, 0, 2 ** 47);
  detach_mm(mm);
  free_page_chain(pages);
  pagetable_free_chain(table_chain);
  for (const vma of for_each_vma(mm)) {
    vma_unlink(vma);
    vma_release(vma);
  }
  BUG_ON(get_mm_rss(mm) !== 0, `Bad rss-counter state mm:${mm} MM_FILEPAGES:${MmStruct.rss_file.get(mm)} MM_ANONPAGES:${MmStruct.rss_anon.get(mm)} MM_SHMEMPAGES:${MmStruct.rss_shmem.get(mm)}`); // prettier-ignore
  pgd_free(tables);
  kmem_cache_free(mm_caches.mm_struct, mm);
}

/** A copy of an address space for a child: areas copied, pages shared until one writes. NULL without memory. */
export function dup_mm(from: MmPtr): MmPtr {
  const mm = mm_alloc();
  if (mm === NULL) return NULL;
  for (const field of [MmStruct.start_brk, MmStruct.brk, MmStruct.start_stack, MmStruct.mmap_base])
    field.set(mm, field.get(from));
  const copied = dup_mmap(mm, from);
  flush_tlb_mm_range(from, 0, 0); // entries lost RW, in a copy that failed too
  if (copied) return mm;
  mmput(mm);
  return NULL;
}

function dup_mmap(mm: MmPtr, from: MmPtr): boolean {
  for (const vma of for_each_vma(from)) {
    const copy = vm_area_dup(vma, mm);
    if (copy === NULL) return false;
    if (!anon_vma_fork(copy, vma)) {
      vm_area_free(copy);
      return false;
    }
    vma_link(copy);
    account(mm, VmArea.vm_flags.get(copy), VmArea.vm_end.get(copy) - VmArea.vm_start.get(copy));
    if (!copy_page_range(mm, vma)) return false;
  }
  return true;
}

/** Counts an area's size in (bytes > 0) or out. */
export function account(mm: MmPtr, flags: number, bytes: number): void {
  const pages = bytes / PAGE_SIZE;
  const total = MmStruct.total_vm.get(mm) + pages;
  MmStruct.total_vm.set(mm, total);
  MmStruct.hiwater_vm.set(mm, Math.max(total, MmStruct.hiwater_vm.get(mm)));
  if (flags & VM_GROWSDOWN) MmStruct.stack_vm.set(mm, MmStruct.stack_vm.get(mm) + pages);
  else if ((flags & (VM_WRITE | VM_SHARED)) === VM_WRITE) MmStruct.data_vm.set(mm, MmStruct.data_vm.get(mm) + pages);
}

/* Calls */

export const is_page_aligned = (value: number): boolean => value % PAGE_SIZE === 0;

/** False for what is more than the machine has: RAM, as there is no swap. */
function enough_memory(bytes: number): boolean {
  return bytes / PAGE_SIZE <= node_state.totalram_pages;
}

/**
 * Where an area of `bytes` bytes may go: at `address` with MAP_FIXED, or if it is free there; else as high as there is
 * room below mmap_base, else anywhere. A negative errno if nowhere.
 */
function get_unmapped_area(mm: MmPtr, address: Virt, bytes: number, flags: number): Virt {
  if (bytes > TASK_SIZE_MAX) return -ENOMEM;
  if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
    if (!is_page_aligned(address)) return -EINVAL;
    if (address < 0 || address > TASK_SIZE_MAX - bytes) return -ENOMEM;
    return address < MMAP_MIN_ADDR ? -EINVAL : address;
  }
  const hint = address - (address % PAGE_SIZE);
  if (hint >= MMAP_MIN_ADDR && highest_gap(mm, bytes, hint, hint + bytes) === hint && hint + bytes <= TASK_SIZE_MAX)
    return hint;
  const below_base = highest_gap(mm, bytes, MMAP_MIN_ADDR, MmStruct.mmap_base.get(mm));
  if (below_base >= 0) return below_base;
  const anywhere = highest_gap(mm, bytes, MMAP_MIN_ADDR, TASK_SIZE_MAX);
  return anywhere >= 0 ? anywhere : -ENOMEM;
}

/** An open file that is to be mapped: from page `pgoff` of it on. */
export interface FileToMap {
  readonly file: Ptr<"file">;
  readonly mapping: MappingPtr;
  readonly pgoff: number;
  /** It is open for writing. */
  readonly may_write: boolean;
  /** Makes an area one of this file: sets its `vm_ops`. 0 or -errno. */
  mmap(vma: VmaPtr): number;
}

/**
 * Maps `length` bytes: of a file, or of zeroes, private to the program. Returns their address, -EINVAL, -EEXIST, -ENOMEM,
 * or -EACCES: writing to a file that is open for reading alone.
 * Context: the task whose address space it is.
 */
export function do_mmap(mm: MmPtr, address: Virt, length: number, prot: number, flags: number, file?: FileToMap): Virt {
  const type = flags & MAP_TYPE;
  const is_shared = type === MAP_SHARED;
  if (length <= 0 || (type !== MAP_PRIVATE && !is_shared) || flags & ~MAP_KNOWN || prot & ~PROT_KNOWN) return -EINVAL;
  if (file === undefined && (is_shared || (flags & MAP_ANONYMOUS) === 0)) return -EINVAL;
  if (file !== undefined && flags & MAP_GROWSDOWN) return -EINVAL;
  if (is_shared && prot & PROT_WRITE && !file?.may_write) return -EACCES;
  const bytes = align_up(length, PAGE_SIZE);
  const start = get_unmapped_area(mm, address, bytes, flags);
  if (start < 0) return start;
  if (flags & MAP_FIXED_NOREPLACE && find_vma_intersection(mm, start, start + bytes) !== NULL) return -EEXIST;
  const grows = flags & MAP_GROWSDOWN ? VM_GROWSDOWN : 0;
  const shares = !is_shared ? VM_MAYALL : file?.may_write ? VM_MAYALL | VM_MAYSHARE | VM_SHARED : (VM_MAYALL & ~VM_MAYWRITE) | VM_MAYSHARE; // prettier-ignore
  const error = map_region(mm, start, bytes, prot | grows | shares, file);
  return error < 0 ? error : start;
}

/** Makes an area of a file; 0 or -errno. */
function map_file(vma: VmaPtr, file: FileToMap): number {
  VmArea.vm_pgoff.set(vma, file.pgoff);
  VmArea.vm_file.set(vma, file.file);
  VmArea.vm_mapping.set(vma, file.mapping);
  const error = file.mmap(vma);
  if (error === 0) vm_ops(vma)!.open(vma);
  return error;
}

/** Makes an area; what was there is unmapped. 0, -ENOMEM or what the file says. */
function map_region(mm: MmPtr, start: Virt, bytes: number, flags: number, file?: FileToMap): number {
  const is_promised = (flags & (VM_WRITE | VM_SHARED)) === VM_WRITE;
  if ((is_promised && !enough_memory(bytes)) || MmStruct.map_count.get(mm) >= MAX_MAP_COUNT) return -ENOMEM;
  const vma = vm_area_alloc(mm, start, start + bytes, flags);
  if (vma === NULL) return -ENOMEM;
  let error = file === undefined ? 0 : map_file(vma, file);
  if (error === 0 && find_vma_intersection(mm, start, start + bytes) !== NULL) error = do_munmap(mm, start, bytes);
  if (error < 0) {
    vm_area_free(vma);
    return error;
  }
  vma_link(vma);
  account(mm, flags, bytes);
  vma_merge(vma);
  return 0;
}

/** Cuts areas so that none crosses `start` or `end`. False without memory. */
export function split_at_ends(mm: MmPtr, start: Virt, end: Virt): boolean {
  for (const address of [start, end]) {
    const vma = find_vma(mm, address);
    if (vma !== NULL && VmArea.vm_start.get(vma) < address && !split_vma(vma, address)) {
      if (address === end) vma_merge(find_vma(mm, start)); // undoes the cut there
      return false;
    }
  }
  return true;
}

/** Unmaps whatever lies in a range. 0, -EINVAL or -ENOMEM. Context: as do_mmap. */
export function do_munmap(mm: MmPtr, start: Virt, length: number): number {
  if (!is_page_aligned(start) || start < 0 || start > TASK_SIZE_MAX || length > TASK_SIZE_MAX - start) return -EINVAL;
  const end = start + align_up(length, PAGE_SIZE);
  if (end <= start) return -EINVAL;
  const first = find_vma_intersection(mm, start, end);
  if (first === NULL) return 0;
  const cuts_a_hole = VmArea.vm_start.get(first) < start && VmArea.vm_end.get(first) > end;
  if (cuts_a_hole && MmStruct.map_count.get(mm) >= MAX_MAP_COUNT) return -ENOMEM;
  if (!split_at_ends(mm, start, end)) return -ENOMEM;
  const areas: VmaPtr[] = [];
  for (let vma = find_vma_intersection(mm, start, end); vma !== NULL; vma = find_vma_intersection(mm, start, end)) {
    account(mm, VmArea.vm_flags.get(vma), VmArea.vm_start.get(vma) - VmArea.vm_end.get(vma));
    vma_unlink(vma);
    areas.push(vma);
  }
  unmap_region(mm, start, end);
  areas.forEach(vma_release);
  return 0;
}

/** Takes pages and tables of a range away where there are no areas any more. */
function unmap_region(mm: MmPtr, start: Virt, end: Virt): void {
  const above = find_vma(mm, end);
  const below = above === NULL ? vma_last(mm) : vma_prev(above);
  const floor = below === NULL ? 0 : VmArea.vm_end.get(below);
  const ceiling = above === NULL ? 2 ** 47 : VmArea.vm_start.get(above);
  const pages = zap_page_range(mm, start, end);
  const tables = free_pgtables(MmStruct.tables.at(mm), floor, ceiling);
  flush_tlb_mm_range(mm, start, end, tables === NULL ? 0 : 1);
  free_page_chain(pages);
  pagetable_free_chain(tables);
}

/** Moves the end of the heap. Returns where it is then: where it was, if that cannot be. */
export function do_brk(mm: MmPtr, wanted: Virt): Virt {
  const old = MmStruct.brk.get(mm);
  if (wanted < MmStruct.start_brk.get(mm) || wanted > TASK_SIZE_MAX) return old;
  const [from, to] = [align_up(old, PAGE_SIZE), align_up(wanted, PAGE_SIZE)];
  if (to < from && do_munmap(mm, to, from - to) < 0) return old;
  if (to > from) {
    // The page behind is to stay free, and below a stack its gap.
    if (highest_gap(mm, to - from + PAGE_SIZE, from, to + PAGE_SIZE) < 0) return old;
    if (map_region(mm, from, to - from, VM_READ | VM_WRITE | VM_MAYALL) < 0) return old;
  }
  MmStruct.brk.set(mm, wanted);
  return wanted;
}

/** Lets an area that grows down reach an address below it. False if it may not, or not so far. */
export function expand_stack(vma: VmaPtr, address: Virt): boolean {
  if (!(VmArea.vm_flags.get(vma) & VM_GROWSDOWN)) return false;
  const start = address - (address % PAGE_SIZE);
  const end = VmArea.vm_end.get(vma);
  const below = vma_prev(vma);
  const too_near = below !== NULL && start - VmArea.vm_end.get(below) < STACK_GUARD_GAP;
  if (end - start > STACK_LIMIT || start < MMAP_MIN_ADDR || too_near) return false;
  account(VmArea.vm_mm.get(vma), VmArea.vm_flags.get(vma), VmArea.vm_start.get(vma) - start);
  vma_resize(vma, start, end);
  return true;
}
