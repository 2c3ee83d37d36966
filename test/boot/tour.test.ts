/** The tour: nine steps whose numbers are true, on every preset, and nothing left behind. */
import { describe, expect, it } from "vitest";
import type { SlabFigure } from "../../boot/figures/slub.ts";
import { PRESETS } from "../../hal/machine.ts";
import { with_console } from "../lib/heap_console.ts";

interface Shown {
  step: number;
  commands: string[];
  said: string;
}

describe("tour", () => {
  it("shows in nine steps where 300 bytes come from", async () => {
    await with_console({}, async ({ text }) => {
      const tour = await text("tour --all");
      const unused = ["3796 of 4096 bytes unused (92.7 %)", "212 of 512 (41.4 %)", "392 of 8192 (4.8 %)"];
      for (const number of unused) expect(tour).toContain(number);
      expect(tour.match(/^--- \d of 9 ---$/gm)!.length).toBe(9);
      for (const line of tour.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
      const commands = [...tour.matchAll(/^kheap# (.*)$/gm)].map(([, command]) =>
        command!.replace(/ffff[0-9a-f]{12}/, "ADDR"),
      );
      expect(commands).toEqual([
        "alloc_pages 0", "explain ADDR", "kmalloc 300", "explain ADDR",
        "kmem create my_object_cache 300 flags=SLAB_PANIC cpu_partial=off",
        "kmem alloc my_object_cache 3", "slab my_object_cache", "kmem alloc my_object_cache 23", "slab my_object_cache",
        "kmem alloc my_object_cache", "slab my_object_cache", "kmem free my_object_cache A0", "slab my_object_cache",
        "kmem alloc my_object_cache 26", "slab my_object_cache", "fork 40", "slab task_struct",
        expect.stringMatching(/^explain task_struct:[A-Z]+\d+$/), "kmem free my_object_cache all",
        "kmem shrink my_object_cache",
      ]); // prettier-ignore
      expect(tour).toContain("the very address that was freed");
    });
  });

  it("shows what an ordinary command shows", async () => {
    await with_console({}, async ({ text }) => {
      const tour = await text("tour --all");
      await text("kmem create my_object_cache 300 flags=SLAB_PANIC cpu_partial=off; kmem alloc my_object_cache 3");
      const by_hand = (await text("slab my_object_cache")).replaceAll(/ffff[0-9a-f]{12}/g, "ADDR");
      expect(tour.replaceAll(/ffff[0-9a-f]{12}/g, "ADDR")).toContain(by_hand);
    });
  });

  it.each(["textbook", "laptop", "server", "embedded"])(
    "runs on %s, says at most two sentences a step, leaves nothing",
    async (preset) => {
      await with_console({ machine: PRESETS[preset]! }, async ({ text, json }) => {
        const tasks = async (): Promise<number> =>
          (await json<SlabFigure>("slab task_struct")).slabs.reduce((sum, { inuse }) => sum + inuse, 0);
        const before = await tasks();
        const { steps } = await json<{ steps: Shown[] }>("tour");
        expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for (const { said } of steps) expect(said.match(/[.:](?= [A-Z]|$)/g)!.length, said).toBeLessThanOrEqual(2);
        expect(steps[7]!.said).toContain("the very address that was freed. There are still 2 slabs");
        expect(await tasks()).toBe(before);
        expect(await text("validate")).toContain("all is well");
      });
    },
  );

  it("goes on with Enter and leaves with q, having given everything back", async () => {
    await with_console({ answers: ["", "", "", "", "q", ""] }, async ({ text }) => {
      const tour = await text("tour");
      expect(tour.match(/^--- \d of 9 ---$/gm)!.length).toBe(5);
      expect(await text("tour --all")).toContain("--- 9 of 9 ---"); // the cache's name is free again
    });
  });

  it("takes another name where somebody has a cache of that name", async () => {
    await with_console({}, async ({ text }) => {
      await text("kmem create my_object_cache 10");
      expect(await text("tour --all")).toContain("kmem create my_object_cache_tour 300");
    });
  });
});
