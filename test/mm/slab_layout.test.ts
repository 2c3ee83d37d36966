/** Known answers for the arithmetic of caches: a real 6.18 kernel's, and Linux's formulas for other CPU counts. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  SLAB_CONSISTENCY_CHECKS as F, SLAB_HWCACHE_ALIGN, SLAB_KMALLOC, SLAB_POISON as P, SLAB_RED_ZONE as Z,
  SLAB_STORE_USER as U, SLAB_TYPESAFE_BY_RCU, calculate_alignment, calculate_cpu_partial, calculate_min_partial,
  calculate_order, calculate_sizes, cpu_partial_slabs, order_objects, slab_min_objects,
} from "../../mm/slab_layout.ts"; // prettier-ignore

const limits = { min_order: 0, max_order: 3, min_objects: 0 };

describe("slab layout", () => {
  it("A19 every cache of a real kernel has the real slot, order, objects and partial limits", () => {
    const rows = readFileSync(new URL("../data/slab-geometry.tsv", import.meta.url), "utf8")
      .trim()
      .split("\n");
    const columns = rows.find((row) => row.startsWith("names"))!.split("\t");
    let checked = 0;
    for (const row of rows.filter((line) => !/^(#|names\t)/.test(line))) {
      const values = Object.fromEntries(row.split("\t").map((value, i) => [columns[i]!, value]));
      const number = (name: string): number => Number(values[name]);
      const flags =
        (number("hwcache_align") && SLAB_HWCACHE_ALIGN) | (number("destroy_by_rcu") && SLAB_TYPESAFE_BY_RCU);
      // Two caches ask for a place of the free pointer inside the object; their slots are as large as the object.
      const custom = number("destroy_by_rcu") && number("slab_size") === number("object_size") ? 0 : undefined;
      const align = calculate_alignment(flags, number("align"), number("object_size"));
      const { size } = calculate_sizes(number("object_size"), align, flags, number("has_ctor") === 1, custom);
      const order = calculate_order(size, 2, limits);
      expect({ names: values["names"], size, order, objects: order_objects(order, size) }).toEqual({
        names: values["names"],
        size: number("slab_size"),
        order: number("order"),
        objects: number("objs_per_slab"),
      });
      expect(calculate_min_partial(size)).toBe(number("min_partial"));
      expect(calculate_cpu_partial(size, 0)).toBe(number("cpu_partial"));
      checked++;
    }
    expect(checked).toBeGreaterThan(100);
  });

  it("A25 more CPUs want more objects a slab, never above order 3", () => {
    expect([1, 2, 4, 8, 16, 32, 64, 128, 256].map(slab_min_objects)).toEqual([8, 12, 16, 20, 24, 28, 32, 36, 40]);
    const table: Record<number, string> = {
      104: "0:39 0:39 0:39 0:39 0:39 0:39 0:39 1:78",
      136: "0:30 0:30 0:30 0:30 0:30 0:30 1:60 1:60",
      160: "0:25 0:25 0:25 0:25 0:25 1:51 1:51 1:51",
      200: "0:20 0:20 0:20 0:20 1:40 1:40 1:40 1:40",
      256: "0:16 0:16 0:16 1:32 1:32 1:32 1:32 2:64",
      288: "0:14 0:14 1:28 1:28 1:28 1:28 2:56 2:56",
      312: "0:13 0:13 1:26 1:26 1:26 2:52 2:52 2:52",
      392: "0:10 1:20 1:20 1:20 2:41 2:41 2:41 2:41",
      416: "1:19 1:19 1:19 2:39 2:39 2:39 2:39 3:78",
      448: "0:9 1:18 1:18 2:36 2:36 2:36 2:36 3:73",
      512: "0:8 1:16 1:16 2:32 2:32 2:32 2:32 3:64",
      576: "1:14 1:14 2:28 2:28 2:28 2:28 3:56 3:56",
      632: "2:25 2:25 2:25 2:25 2:25 3:51 3:51 3:51",
      688: "2:23 2:23 2:23 2:23 3:47 3:47 3:47 3:47",
      704: "1:11 2:23 2:23 2:23 3:46 3:46 3:46 3:46",
      832: "2:19 2:19 2:19 3:39 3:39 3:39 3:39 3:39",
      960: "1:8 2:17 2:17 3:34 3:34 3:34 3:34 3:34",
      1024: "1:8 2:16 2:16 3:32 3:32 3:32 3:32 3:32",
      1144: "2:14 2:14 3:28 3:28 3:28 3:28 3:28 3:28",
      1280: "2:12 2:12 3:25 3:25 3:25 3:25 3:25 3:25",
      1472: "2:11 3:22 3:22 3:22 3:22 3:22 3:22 3:22",
      1600: "2:10 3:20 3:20 3:20 3:20 3:20 3:20 3:20",
      1984: "2:8 3:16 3:16 3:16 3:16 3:16 3:16 3:16",
      2048: "2:8 3:16 3:16 3:16 3:16 3:16 3:16 3:16",
      2168: "3:15 3:15 3:15 3:15 3:15 3:15 3:15 3:15",
      2496: "3:13 3:13 3:13 3:13 3:13 3:13 3:13 3:13",
      4096: "3:8 3:8 3:8 3:8 3:8 3:8 3:8 3:8",
      5824: "3:5 3:5 3:5 3:5 3:5 3:5 3:5 3:5",
      51472: "4:1 4:1 4:1 4:1 4:1 4:1 4:1 4:1",
    };
    expect(Object.keys(table).length).toBe(29);
    for (const [size, row] of Object.entries(table)) {
      const found = [1, 2, 4, 8, 16, 32, 64, 256].map((cpus) => {
        const order = calculate_order(Number(size), cpus, limits);
        return `${order}:${order_objects(order, Number(size))}`;
      });
      expect(found.join(" ")).toBe(row);
    }
    for (let size = 8; size <= 96; size += 8)
      for (const cpus of [1, 2, 4, 8, 16, 32, 64, 256]) expect(calculate_order(size, cpus, limits)).toBe(0);
    // Tiny objects: no slab of more than 32767 of them.
    expect(calculate_order(8, 2, { min_order: 10, max_order: 10, min_objects: 0 })).toBe(5);
    expect(calculate_order(8, 2, { min_order: 0, max_order: 10, min_objects: 40_000 })).toBe(5);
    expect(calculate_order(5 << 20, 2, limits)).toBe(11); // none holds one
  });

  it("A27 min_partial is half the binary logarithm of the slot, between 5 and 10", () => {
    expect([8, 4095, 4096, 16384, 65536, 2 ** 22].map(calculate_min_partial)).toEqual([5, 5, 6, 7, 8, 10]);
  });

  it("cache lines are halved while the object fits", () => {
    const aligns = [1, 8, 9, 16, 17, 32, 33, 64, 200].map((size) => calculate_alignment(SLAB_HWCACHE_ALIGN, 0, size));
    expect(aligns).toEqual([8, 8, 16, 16, 32, 32, 64, 64, 64]);
    expect(calculate_alignment(0, 128, 8)).toBe(128);
  });

  // object (align) | slots with Z, P, ZP, FZPU | with FZPU: inuse, free pointer, left zone, order: objects (2 CPUs)
  const DEBUG_SIZES = `
    24 (8) | 48 32 56 120 | 32 32 8 0: 34
    64 (8) | 88 72 96 160 | 72 72 8 0: 25
    64 (64) | 192 128 192 256 | 72 72 64 0: 16
    104 (8) | 128 112 136 200 | 112 112 8 0: 20
    1016 (64) | 1152 1024 1152 1216 | 1024 1024 64 2: 13
    kmalloc class 8 (8) | 32 16 40 112 | 16 16 8 0: 36
    kmalloc class 32 (32) | 96 64 96 160 | 40 40 32 0: 25
    kmalloc class 64 (64) | 192 128 192 256 | 72 72 64 0: 16
    kmalloc class 96 (32) | 160 128 160 224 | 104 104 32 0: 18
    kmalloc class 1024 (1024) | 3072 2048 3072 3072 | 1032 1032 1024 3: 10
    kmalloc class 4096 (4096) | 12288 8192 12288 12288 | 4104 4104 4096 3: 2
    kmalloc class 8192 (8192) | 24576 16384 24576 24576 | 8200 8200 8192 3: 1`;

  it("debug metadata has Linux's sizes", () => {
    const lines = DEBUG_SIZES.trim().split("\n");
    expect(lines.length).toBe(12);
    for (const line of lines) {
      const [, kmalloc, object, aligned] = /(kmalloc class )?(\d+) \((\d+)\)/.exec(line)!;
      const extra = kmalloc ? SLAB_KMALLOC : 0;
      const layout = (flags: number) => calculate_sizes(Number(object), Number(aligned), flags | extra, false);
      const slots = [Z, P, Z | P, F | Z | P | U].map((flags) => layout(flags).size);
      const { size, inuse, offset, red_left_pad } = layout(F | Z | P | U);
      const order = calculate_order(size, 2, limits);
      const rest = `${inuse} ${offset} ${red_left_pad} ${order}: ${order_objects(order, size)}`;
      expect([slots.join(" "), rest]).toEqual(line.trim().split(" | ").slice(1));
    }
  });

  it("the CPU partial limit counts slabs half full", () => {
    expect(cpu_partial_slabs(52, 16)).toBe(7);
    expect(cpu_partial_slabs(24, 16)).toBe(3);
    expect(cpu_partial_slabs(120, 64)).toBe(4);
  });
});
