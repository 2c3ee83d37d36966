/** Copies between kernel and program: what is left over, what may be copied, and what the CPU refuses. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { mmu_load8, mmu_store8 } from "../../hal/mmu.ts";
import { ram8, ram_read_string } from "../../hal/ram.ts";
import { Trap } from "../../hal/trap.ts";
import { EFAULT } from "../../kernel/lib/errno.ts";
import { KernelBug } from "../../kernel/lib/bug.ts";
import { user_mode } from "../../kernel/entry.ts";
import { TaskStruct, idle_task, set_current_task } from "../../kernel/task.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { PAGE_OFFSET } from "../../mm/kernel_map.ts";
import { VmArea } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
  do_mmap,
  mm_alloc,
  mmput,
} from "../../mm/mmap.ts";
import {
  kmem_cache_alloc, kmem_cache_create_usercopy, kmem_cache_destroy, kmem_cache_free,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { clear_user, copy_from_user, copy_to_user, strncpy_from_user } from "../../mm/uaccess.ts";
import { find_vma } from "../../mm/vma.ts";
import { log } from "../kernel/tasks.ts";
import { with_machine } from "../lib/machine.ts";

const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const BASE = 0x400000;
const END = BASE + 2 * PAGE_SIZE;

/** With a program of two pages at BASE, the second read-only, and a kernel buffer of 4096 bytes. */
function with_program(fn: (buffer: number) => void): void {
  with_machine({ until: "kernel" }, () => {
    const mm = mm_alloc();
    do_mmap(mm, BASE, PAGE_SIZE, PROT_READ | PROT_WRITE, FIXED);
    do_mmap(mm, BASE + PAGE_SIZE, PAGE_SIZE, PROT_READ, FIXED);
    TaskStruct.mm.set(idle_task(0), mm);
    set_current_task(idle_task(0));
    const buffer = kmalloc(PAGE_SIZE, GFP_KERNEL);
    fn(buffer);
    kfree(buffer);
    TaskStruct.mm.set(idle_task(0), 0);
    set_current_task(idle_task(0));
    mmput(mm);
  });
}

const as_user = (fn: () => number | void): unknown => (user_mode(fn) as { value?: unknown }).value;

describe("copies to and from programs", () => {
  it("fault pages in, and stop where the program has no right; what is left is the result", () => {
    with_program((buffer) => {
      ram8.fill(7, buffer, buffer + PAGE_SIZE);
      expect(copy_to_user(BASE + 100, buffer, 200)).toBe(0);
      expect(as_user(() => mmu_load8(BASE + 299))).toBe(7);
      expect(copy_to_user(BASE + PAGE_SIZE - 50, buffer, 200)).toBe(150); // the second page is read-only
      expect(copy_from_user(buffer, BASE + PAGE_SIZE - 1, 2)).toBe(0);
      expect([ram8[buffer], ram8[buffer + 1], ram8[buffer + 2]]).toEqual([7, 0, 7]);
      expect(copy_from_user(buffer, END - 5, 100)).toBe(95);
      expect(ram8.subarray(buffer, buffer + 100).every((byte) => byte === 0)).toBe(true);
      expect(clear_user(BASE, 300)).toBe(0);
      expect(as_user(() => mmu_load8(BASE + 299))).toBe(0);
    });
  });

  it("leave everything undone for an address that is no program's", () => {
    with_program((buffer) => {
      for (const bad of [0, END, -1, PAGE_OFFSET, 2 ** 47, 2 ** 47 - PAGE_SIZE, 0xeaeb0b5b00002f5e, NaN, 1.5]) {
        expect(copy_to_user(bad, buffer, 8)).toBe(8);
        expect(copy_from_user(buffer, bad, 8)).toBe(8);
        expect(clear_user(bad, 8)).toBe(8);
        expect(strncpy_from_user(buffer, bad, 8)).toBe(-EFAULT);
      }
    });
  });

  it("A127: a string ends with its NUL, after `count` bytes, or with -EFAULT where memory ends", () => {
    with_program((buffer) => {
      for (const [i, c] of [..."abc"].entries())
        as_user(() => mmu_store8(BASE + PAGE_SIZE - 2 + i - 1, c.charCodeAt(0)));
      expect(strncpy_from_user(buffer, BASE + PAGE_SIZE - 3, 100)).toBe(3); // its NUL lies in the next page
      expect(ram_read_string(buffer, 10)).toBe("abc");
      expect(strncpy_from_user(buffer, BASE + PAGE_SIZE - 3, 2)).toBe(2);
      as_user(() => mmu_store8(BASE + 1, 0));
      do_mmap(TaskStruct.mm.get(idle_task(0)), BASE + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE, FIXED);
      as_user(() => {
        for (let va = END - 10; va < END; va++) mmu_store8(va, 0x78);
      });
      expect(strncpy_from_user(buffer, END - 10, 100)).toBe(-EFAULT);
      expect(strncpy_from_user(buffer, END - 10, 10)).toBe(10);
    });
  });

  it("the kernel may not touch user memory without saying so (SMAP)", () => {
    with_program(() => {
      as_user(() => mmu_store8(BASE, 1));
      expect(() => mmu_load8(BASE)).toThrow(Trap);
    });
  });
});

describe("usercopy", () => {
  it("lets a program have the window of an object and nothing else of it", () => {
    with_program((buffer) => {
      const cache = kmem_cache_create_usercopy("windowed", 64, 8, 0, 16, 32);
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      expect(copy_to_user(BASE, object + 16, 32)).toBe(0);
      expect(copy_from_user(object + 40, BASE, 8)).toBe(0);
      for (const [offset, bytes] of [
        [0, 8],
        [16, 33],
        [47, 2],
        [15, 1],
      ] as const)
        // prettier-ignore
        expect(() => copy_to_user(BASE, object + offset, bytes)).toThrow(KernelBug);
      expect(log().at(-1)).toBe("usercopy: Kernel memory exposure attempt detected from SLUB object 'windowed' (offset 15, size 1)!"); // prettier-ignore
      expect(() => copy_from_user(object + 8, BASE, 8)).toThrow(KernelBug);
      expect(log().at(-1)).toMatch(/overwrite attempt detected to SLUB object 'windowed' \(offset 8, size 8\)!$/);
      kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
      const vma = find_vma(TaskStruct.mm.get(idle_task(0)), BASE);
      expect(() => copy_to_user(BASE, vma, VmArea.sizeof)).toThrow(KernelBug);
      expect(copy_to_user(BASE, buffer, PAGE_SIZE)).toBe(0); // kmalloc: all of it
      expect(() => copy_to_user(BASE, buffer + 8, PAGE_SIZE)).toThrow(/programs must not have/);
    });
  });
});
