/**
 * The system calls about a program's memory: mmap, munmap, mprotect, madvise, msync, brk, sbrk. Addresses that come from
 * programs are checked in mm/mmap.ts, files in fs/file_mmap.ts.
 */
import { NULL, type Virt } from "../hal/addr.ts";
import { MmStruct, type MmPtr } from "../mm/mm_types.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, do_brk, do_munmap } from "../mm/mmap.ts";
import { do_mprotect, do_msync, madvise_dontneed } from "../mm/mprotect.ts";
import { vm_mmap_file, vm_mmap_zeroes } from "./fs/file_mmap.ts";
import { with_fd } from "./fs/fs_struct.ts";
import { BUG_ON } from "./lib/bug.ts";
import { EINVAL, ENOMEM } from "./lib/errno.ts";
import { register_syscall, type Result } from "./syscall.ts";
import { TaskStruct, current_task, task_name } from "./task.ts";

const MADV_NORMAL = 0;
const MADV_WILLNEED = 3;
const MADV_DONTNEED = 4;
const MS_ASYNC = 1;
const MS_INVALIDATE = 2;
const MS_SYNC = 4;

/** The address space of the task that asks. */
export function current_mm(): MmPtr {
  const mm = TaskStruct.mm.get(current_task());
  BUG_ON(mm === NULL, `${task_name(current_task())} has no address space`);
  return mm;
}

/** Without MAP_ANONYMOUS: of the file `fd`, from byte `offset` on. */
function sys_mmap(
  bytes: number,
  prot = PROT_READ | PROT_WRITE,
  flags = MAP_PRIVATE | MAP_ANONYMOUS,
  address: Virt = 0,
  fd = -1,
  offset = 0,
): Result {
  const mm = current_mm();
  if (flags & MAP_ANONYMOUS) return vm_mmap_zeroes(mm, address, bytes, prot, flags);
  return with_fd(fd, (file) => vm_mmap_file(mm, address, bytes, prot, flags, file, offset));
}

/** MADV_DONTNEED; what is advice alone is taken note of and no more. */
function sys_madvise(va: Virt, bytes: number, advice: number): number {
  if (advice === MADV_DONTNEED) return madvise_dontneed(current_mm(), va, bytes);
  return advice >= MADV_NORMAL && advice <= MADV_WILLNEED ? do_msync(current_mm(), va, bytes) : -EINVAL;
}

function sys_msync(va: Virt, bytes: number, flags: number): number {
  const both = MS_ASYNC | MS_SYNC;
  if (flags & ~(both | MS_INVALIDATE) || (flags & both) === both) return -EINVAL;
  return do_msync(current_mm(), va, bytes);
}

register_syscall("mmap", "n?nnnnn", sys_mmap);
register_syscall("munmap", "nn", (va: Virt, bytes: number) => do_munmap(current_mm(), va, bytes));
register_syscall("mprotect", "nnn", (va: Virt, bytes: number, prot: number) =>
  do_mprotect(current_mm(), va, bytes, prot),
);
register_syscall("madvise", "nnn", sys_madvise);
register_syscall("msync", "nnn", sys_msync);
register_syscall("brk", "?n", (end: Virt = 0) => do_brk(current_mm(), end));
register_syscall("sbrk", "n", (bytes: number) => {
  const old = MmStruct.brk.get(current_mm());
  return do_brk(current_mm(), old + bytes) === old + bytes ? old : -ENOMEM;
});
