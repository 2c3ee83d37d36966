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
      256: "0:16 0:16 0:16 1:32 1:32 1:32 1:32 2:64",
      312: "0:13 0:13 1:26 1:26 1:26 2:52 2:52 2:52",
      416: "1:19 1:19 1:19 2:39 2:39 2:39 2:39 3:78",
      632: "2:25 2:25 2:25 2:25 2:25 3:51 3:51 3:51",
      704: "1:11 2:23 2:23 2:23 3:46 3:46 3:46 3:46",
      1144: "2:14 2:14 3:28 3:28 3:28 3:28 3:28 3:28",
      2048: "2:8 3:16 3:16 3:16 3:16 3:16 3:16 3:16",
      5824: "3:5 3:5 3:5 3:5 3:5 3:5 3:5 3:5",
      51472: "4:1 4:1 4:1 4:1 4:1 4:1 4:1 4:1",
    };
    for (const [size, row] of Object.entries(table)) {
      const found = [1, 2, 4, 8, 16, 32, 64, 256].map((cpus) => {
        const order = calculate_order(Number(size), cpus, limits);
        return `${order}:${order_objects(order, Number(size))}`;
      });
      expect(found.join(" ")).toBe(row);
    }
  });

  it("A27 min_partial is half the binary logarithm of the slot, between 5 and 10", () => {
    expect([8, 4095, 4096, 16384, 65536, 2 ** 22].map(calculate_min_partial)).toEqual([5, 5, 6, 7, 8, 10]);
  });

  it("cache lines are halved while the object fits", () => {
    const aligns = [1, 8, 9, 16, 17, 32, 33, 64, 200].map((size) => calculate_alignment(SLAB_HWCACHE_ALIGN, 0, size));
    expect(aligns).toEqual([8, 8, 16, 16, 32, 32, 64, 64, 64]);
    expect(calculate_alignment(0, 128, 8)).toBe(128);
  });

  it("debug metadata has Linux's sizes", () => {
    const slots = (size: number, align: number, extra = 0): number[] =>
      [Z, P, Z | P, F | Z | P | U].map((flags) => calculate_sizes(size, align, flags | extra, false).size);
    expect(slots(24, 8)).toEqual([48, 32, 56, 120]);
    expect(slots(64, 8)).toEqual([88, 72, 96, 160]);
    expect(slots(64, 64)).toEqual([192, 128, 192, 256]);
    expect(slots(104, 8)).toEqual([128, 112, 136, 200]);
    expect(slots(1016, 64)).toEqual([1152, 1024, 1152, 1216]);
    expect(slots(8, 8, SLAB_KMALLOC)).toEqual([32, 16, 40, 112]);
    expect(slots(96, 32, SLAB_KMALLOC)).toEqual([160, 128, 160, 224]);
    expect(slots(1024, 1024, SLAB_KMALLOC)).toEqual([3072, 2048, 3072, 3072]);
    expect(calculate_sizes(64, 64, F | Z | P | U, false)).toEqual({
      size: 256,
      inuse: 72,
      offset: 72,
      red_left_pad: 64,
    });
  });

  it("the CPU partial limit counts slabs half full", () => {
    expect(cpu_partial_slabs(52, 16)).toBe(7);
    expect(cpu_partial_slabs(24, 16)).toBe(3);
    expect(cpu_partial_slabs(120, 64)).toBe(4);
  });
});
