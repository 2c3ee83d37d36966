/**
 * Ways to break the kernel on purpose, to see what it says: Linux's "kernel dump test module", its names included.
 *
 * Each runs in a kernel thread of its own, `lkdtm`, whose first step never comes back: the thread dies of it, the machine
 * goes on.
 */
import { PAGE_SIZE, type Ptr, type Virt } from "../hal/addr.ts";
import { DATA_BASE, TEXT_BASE } from "../hal/image.ts";
import { mmu_fetch, mmu_load32, mmu_store32 } from "../hal/mmu.ts";
import { image_to_virt, ptr_to_virt } from "../mm/kernel_map.ts";
import { vfree, vmalloc } from "../mm/vmalloc.ts";
import { EXIT, kthread_run } from "./kthread.ts";
import { BUG } from "./lib/bug.ts";
import { is_err } from "./lib/errno.ts";
import { ksym } from "./lib/ksym.ts";

const USER: Virt = 0x400000;
const NON_CANONICAL = 2 ** 60;

/** The area is given back however it ends, so that looking at an oops costs nothing. */
function write_behind_vmalloc(): void {
  const addr = vmalloc(PAGE_SIZE);
  try {
    if (addr !== 0) mmu_store32(addr + PAGE_SIZE, 0);
  } finally {
    vfree(addr);
  }
}

/** Crash points by name: what is done, in one line for people, and how. */
export const CRASH_POINTS: Readonly<Record<string, readonly [string, () => void]>> = Object.freeze({
  BUG: ["a broken invariant", () => BUG("lkdtm: as asked for")],
  ACCESS_NULL: ["reads address 16", () => void mmu_load32(16)],
  ACCESS_USERSPACE: ["reads user memory without stac", () => void mmu_load32(USER)],
  ACCESS_NON_CANONICAL: ["reads an address that cannot be one", () => void mmu_load32(NON_CANONICAL)],
  WRITE_RO: ["writes to kernel text by its place in the direct map", () => mmu_store32(ptr_to_virt(TEXT_BASE), 0)],
  WRITE_KERN: ["writes to kernel text", () => mmu_store32(image_to_virt(TEXT_BASE), 0)],
  VMALLOC_LINEAR_OVERFLOW: ["writes to the guard page of a vmalloc area", write_behind_vmalloc],
  EXEC_DATA: ["runs the kernel's data", () => void mmu_fetch(image_to_virt(DATA_BASE))],
  EXEC_NULL: ["jumps to address 0", () => void mmu_fetch(0)],
} as const);

const lkdtm_step = ksym("lkdtm_step", (index: Ptr): number => {
  Object.values(CRASH_POINTS)[index]![1]();
  return EXIT;
});

/** Starts a thread that dies of a crash point; 0 or -errno. */
export function lkdtm(name: string): number {
  const task = kthread_run(lkdtm_step, Object.keys(CRASH_POINTS).indexOf(name), "lkdtm");
  return is_err(task) ? task : 0;
}
