import { expect, test } from "vitest";
import { per_cpu_ptr } from "../../hal/image.ts";
import { ram32, ram8, ram_fill } from "../../hal/ram.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { with_machine } from "../lib/machine.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { alloc_percpu, free_percpu, pcpu_chunks, pcpu_nr_pages } from "../../mm/percpu.ts";

test("every CPU has a zeroed copy of its own, aligned as asked", () => {
  with_machine({}, () => {
    for (const [size, align] of [[4, 4], [64, 64], [100, 8], [300, 256], [40, 64]]) {
      const ptr = alloc_percpu(size, align);
      expect(ptr % align).toBe(0);
      for (const cpu of [0, 1]) {
        const copy = per_cpu_ptr(ptr, cpu);
        expect(ram8.subarray(copy, copy + size).every((byte) => byte === 0)).toBe(true);
        ram32[copy >> 2] = 100 + cpu;
      }
      expect([0, 1].map((cpu) => ram32[per_cpu_ptr(ptr, cpu) >> 2])).toEqual([100, 101]);
      free_percpu(ptr);
    } // prettier-ignore
  });
});

test("no two live objects overlap, and freed room is used again, lowest first", () => {
  with_machine({}, () => {
    const before = [...pcpu_chunks()];
    const ptrs = Array.from({ length: 100 }, (_, i) => alloc_percpu(16 + (i % 5) * 40));
    const sorted = [...ptrs].sort((a, b) => a - b);
    for (const [i, ptr] of sorted.slice(1).entries()) {
      const size = 16 + (ptrs.indexOf(sorted[i]) % 5) * 40;
      expect(ptr - sorted[i]).toBeGreaterThanOrEqual(size);
    }
    free_percpu(ptrs[10]);
    expect(alloc_percpu(16)).toBe(ptrs[10]);
    for (const ptr of ptrs) free_percpu(ptr);
    expect([...pcpu_chunks()]).toEqual(before);
  });
});

/*
 *   chunk 0  [ statics | room for more | objects, full ]      when the first chunk is full, a page block of one unit a
 *   chunk 1  [ objects                 |               ]      CPU is asked for; when that is empty it goes back
 */
test("a full chunk makes a further one of page blocks, which goes back when it is empty", () => {
  with_machine({}, () => {
    const pages = pcpu_nr_pages();
    expect(pages).toBe(32); // two CPUs, 64 KiB each
    const ptrs: number[] = [];
    while ([...pcpu_chunks()].length === 1) ptrs.push(alloc_percpu(4096, 4096));
    expect(pcpu_nr_pages()).toBe(64);
    const copy = per_cpu_ptr(ptrs.at(-1)!, 1);
    ram_fill(copy, 0xaa, 4096);
    for (const ptr of ptrs) free_percpu(ptr);
    expect([...pcpu_chunks()].length).toBe(1);
    expect(pcpu_nr_pages()).toBe(pages);
  });
});

test("without pages for a further chunk it is NULL, and nothing is lost", () => {
  with_machine({}, () => {
    const ptrs: number[] = [];
    for (;;) {
      set_fail_nth(1);
      const ptr = alloc_percpu(2048);
      set_fail_nth(0);
      if (ptr === 0) break;
      ptrs.push(ptr);
    }
    expect(ptrs.length).toBeGreaterThan(2);
    expect([...pcpu_chunks()].length).toBe(1);
    const ptr = alloc_percpu(2048);
    expect(ptr).not.toBe(0);
    for (const p of [...ptrs, ptr]) free_percpu(p);
  });
});

test("impossible sizes, and pointers that are none, are refused with one line", () => {
  with_machine({}, () => {
    const warnings = (): number => [...printk_records()].filter(({ text }) => text.startsWith("WARNING")).length;
    for (const [size, align] of [
      [0, 8],
      [-1, 8],
      [70_000, 8],
      [8, 3],
      [8, 131072],
      [NaN, 8],
    ])
      expect(alloc_percpu(size, align)).toBe(0);
    expect(warnings()).toBe(6);
    const ptr = alloc_percpu(64);
    free_percpu(ptr + 16);
    free_percpu(0x2000);
    free_percpu(0);
    expect(warnings()).toBe(8);
    free_percpu(ptr);
    free_percpu(ptr);
    expect(warnings()).toBe(9);
  });
});
