/**
 * Calls about what is mapped already: mprotect gives it other rights, madvise(MADV_DONTNEED) takes the pages and leaves the
 * areas, msync has nothing to write and says whether there is something.
 *
 * Locks: see mm_types.ts.
 * Unlike Linux: mprotect of a range that has a hole, or a part that may not have such rights, changes nothing, where Linux
 * changes what lies before that.
 */
import { NULL, PAGE_SIZE, align_up, type Virt } from "../hal/addr.ts";
import { EACCES, EINVAL, ENOMEM } from "../kernel/lib/errno.ts";
import { vm_get_page_prot } from "./memory.ts";
import { VM_ACCESS_FLAGS, VmArea, type MmPtr } from "./mm_types.ts";
import { PROT_KNOWN, account, is_page_aligned, split_at_ends } from "./mmap.ts";
import { TASK_SIZE_MAX } from "./pgtable.ts";
import { flush_tlb_mm_range } from "./tlbflush.ts";
import { change_protection, free_page_chain, zap_page_range } from "./unmap.ts";
import { find_vma, vma_merge, vma_next } from "./vma.ts";

/** Where a range that a call names ends; -EINVAL if it is none. */
function range_end(start: Virt, length: number): Virt {
  if (!is_page_aligned(start) || start < 0 || length < 0 || start > TASK_SIZE_MAX) return -EINVAL;
  return length > TASK_SIZE_MAX - start ? -EINVAL : start + align_up(length, PAGE_SIZE);
}

/** Changes the rights of a range. 0, -EINVAL, -EACCES, or -ENOMEM: a hole in the range, or no memory. */
export function do_mprotect(mm: MmPtr, start: Virt, length: number, prot: number): number {
  if (!is_page_aligned(start) || prot & ~PROT_KNOWN) return -EINVAL;
  const end = range_end(start, length);
  if (end === start) return 0;
  const refused = end < 0 ? -ENOMEM : may_have(mm, start, end, prot);
  if (refused < 0) return refused;
  if (!split_at_ends(mm, start, end)) return -ENOMEM;
  for (let at = start; at < end;) {
    const vma = find_vma(mm, at); // ends at `end` or below, unless it has these rights already
    const [flags, bytes] = [VmArea.vm_flags.get(vma), VmArea.vm_end.get(vma) - VmArea.vm_start.get(vma)];
    at = VmArea.vm_end.get(vma);
    account(mm, flags, -bytes);
    VmArea.vm_flags.set(vma, (flags & ~VM_ACCESS_FLAGS) | prot);
    account(mm, VmArea.vm_flags.get(vma), bytes);
    change_protection(vma, vm_get_page_prot(VmArea.vm_flags.get(vma)));
    vma_merge(vma);
  }
  flush_tlb_mm_range(mm, start, end);
  return 0;
}

/** -ENOMEM if areas do not cover a range without a hole, -EACCES if one of them may not have such rights; else 0. */
function may_have(mm: MmPtr, start: Virt, end: Virt, prot: number): number {
  let at = start;
  for (let vma = find_vma(mm, start); vma !== NULL && at < end && VmArea.vm_start.get(vma) <= at; vma = vma_next(vma)) {
    if (prot & ~(VmArea.vm_flags.get(vma) >> 4)) return -EACCES; // VM_MAYREAD is VM_READ << 4, and so on
    at = VmArea.vm_end.get(vma);
  }
  return at >= end ? 0 : -ENOMEM;
}

/**
 * Takes the pages of a range away, and leaves the areas: memory of its own reads as zeroes, or as the file says, again.
 * 0, -EINVAL, or -ENOMEM: the range has holes, and what lies between them was done.
 */
export function madvise_dontneed(mm: MmPtr, start: Virt, length: number): number {
  const end = range_end(start, length);
  if (end < 0) return end;
  const pages = zap_page_range(mm, start, end);
  flush_tlb_mm_range(mm, start, end);
  free_page_chain(pages);
  return end === start ? 0 : may_have(mm, start, end, 0);
}

/** 0 if a range is mapped without a hole: what a program wrote to a file is in the page cache, where else. */
export function do_msync(mm: MmPtr, start: Virt, length: number): number {
  const end = range_end(start, length);
  return end <= start ? Math.min(end, 0) : may_have(mm, start, end, 0);
}
