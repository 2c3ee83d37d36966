/** The system calls about a program's memory. Addresses that come from programs are checked in mm/mmap.ts. */
import { NULL, type Virt } from "../hal/addr.ts";
import { MmStruct, type MmPtr } from "../mm/mm_types.ts";
import {
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
  do_brk,
  do_mmap,
  do_mprotect,
  do_munmap,
} from "../mm/mmap.ts";
import { BUG_ON } from "./lib/bug.ts";
import { ENOMEM } from "./lib/errno.ts";
import { register_syscall } from "./syscall.ts";
import { TaskStruct, current_task, task_name } from "./task.ts";

function current_mm(): MmPtr {
  const mm = TaskStruct.mm.get(current_task());
  BUG_ON(mm === NULL, `${task_name(current_task())} has no address space`);
  return mm;
}

register_syscall(
  "mmap",
  "n?nnn",
  (bytes: number, prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS, address: Virt = 0) =>
    do_mmap(current_mm(), address, bytes, prot, flags),
);
register_syscall("munmap", "nn", (va: Virt, bytes: number) => do_munmap(current_mm(), va, bytes));
register_syscall("mprotect", "nnn", (va: Virt, bytes: number, prot: number) =>
  do_mprotect(current_mm(), va, bytes, prot),
);
register_syscall("brk", "?n", (end: Virt = 0) => do_brk(current_mm(), end));
register_syscall("sbrk", "n", (bytes: number) => {
  const old = MmStruct.brk.get(current_mm());
  return do_brk(current_mm(), old + bytes) === old + bytes ? old : -ENOMEM;
});
