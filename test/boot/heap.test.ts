/** The heap by hand: what each command answers, and that bad input is one line and nothing else. */
import { describe, expect, it } from "vitest";
import type { SlabFigure } from "../../boot/figures/slub.ts";
import { PRESETS } from "../../hal/machine.ts";
import { with_console } from "../lib/heap_console.ts";
import { TEST_MACHINE } from "../lib/machine.ts";

describe("kmem", () => {
  it("makes a cache, takes objects, frees them in the order given or oldest first, shrinks, destroys", async () => {
    await with_console({}, async ({ text, json }) => {
      expect(await text("kmem create c 300 flags=SLAB_PANIC")).toBe(
        "c: slots of 304 bytes, 26 in 2 pages, unused 392 of 8192 (4.8 %)",
      );
      const objects = await json<string[]>("kmem alloc c 30");
      expect(new Set(objects).size).toBe(30);
      for (const address of objects) expect(address).toMatch(/^ffff8880[0-9a-f]{8}$/);
      expect(await text(`kmem free c ${objects[5]} A2 ${objects[29]}`)).toBe("3 objects freed");
      expect(await text("kmem alloc c")).toBe(objects[29]); // last freed, first taken
      expect(await json("kmem free c all")).toEqual({ freed: 28 });
      expect(await json("kmem shrink c")).toEqual({ freed: 2, left: 0 });
      expect(await text("kmem destroy c")).toBe("c destroyed");
    });
  });

  it("frees all oldest first", async () => {
    await with_console({}, async ({ text, json }) => {
      await text("kmem create c 64 cpu_partial=off; kmem alloc c 5; kmem free c all");
      expect((await json<SlabFigure>("slab c")).slabs[0]!.free.slice(0, 6)).toEqual([4, 3, 2, 1, 0, 5]);
    });
  });

  it("says with which cache a new one was merged, and gives only its own objects back", async () => {
    await with_console({}, async ({ text, json, refused }) => {
      await text("kmem create first 1000");
      expect(await text("kmem create second 1000")).toMatch(/\nmerged with first$/);
      expect(await json("kmem create third 996")).toMatchObject({ merged_with: "first", slab_size: 1000 });
      await text("kmem alloc first 2; kmem alloc second 3");
      expect(await refused("kmem destroy second")).toBe("kmem destroy second: 3 objects in use");
      expect(await json("kmem free second all")).toEqual({ freed: 3 });
      expect(await text("kmem destroy second; kmem destroy third")).toBe("second destroyed\nthird destroyed");
      expect(await refused("kmem destroy first")).toBe("kmem destroy first: 2 objects in use");
      expect(await json("kmem free first all")).toEqual({ freed: 2 });
      const kernel_cache = await json<{ slab_size: number }>("slab kernfs_node_cache");
      expect(await text(`kmem create mine ${kernel_cache.slab_size}`)).toContain("merged with kernfs_node_cache");
      expect(await text("kmem alloc mine 2; kmem free mine all; kmem destroy mine")).toMatch(/mine destroyed$/);
      expect(await text(`kmem create mine ${kernel_cache.slab_size}`)).toContain("merged with");
    });
  });

  it("runs a constructor once an object, and honours align, node, zeroing and other CPUs", async () => {
    await with_console({}, async ({ text, json }) => {
      await text("kmem create made 100 ctor align=64");
      const [object] = await json<string[]>("kmem alloc made");
      expect(await json(`peek ${object} 4`)).toMatchObject({ hex: "41414141" });
      await text(`poke ${object} 00; kmem free made all; kmem alloc made`);
      expect(await json(`peek ${object} 4`)).toMatchObject({ hex: "00414141" });
      expect(await json("slab made")).toMatchObject({ slab_size: 128 });
      await text("kmem create plain 100");
      const [far] = await json<string[]>("kmem alloc plain 1 node=1");
      expect(await json(`explain ${far}`)).toMatchObject({ node: 1, cache: "plain", on: "cpu 0" });
      const [other] = await json<string[]>("on 3 kmem alloc plain");
      expect(await json(`explain ${other}`)).toMatchObject({ node: 1, on: "cpu 3" });
      const [zero] = await json<string[]>("kmem alloc plain 1 gfp=GFP_KERNEL|__GFP_ZERO");
      expect(await json(`peek ${zero} 100`)).toMatchObject({ hex: "00".repeat(100) });
    });
  });
});

describe("kmalloc and pages", () => {
  it("answer addresses and sizes", async () => {
    await with_console({}, async ({ text, json }) => {
      const block = await text("kmalloc 300");
      expect(await json(`ksize ${block}`)).toBe(512);
      expect(await text(`krealloc ${block} 500`)).toBe(block);
      const grown = await text(`krealloc ${block} 600`);
      expect(grown).not.toBe(block);
      expect(await text(`ksize ${grown}`)).toBe("1024");
      expect(await text(`kfree ${grown}`)).toBe("1 block freed");
      const zero = await text("kmalloc 0");
      expect(zero).toBe("0000000000000010");
      expect(await text(`ksize ${zero}; kfree ${zero} NULL; krealloc NULL 0`)).toBe(`0\n0 blocks freed\n${zero}`);
      const big = await text("kmalloc 10000 node=1");
      expect(await json(`ksize ${big}`)).toBe(16384);
      expect(await text(`krealloc ${big} 0`)).toBe(zero);
      const pages = await text("alloc_pages 4 gfp=GFP_KERNEL|__GFP_DMA");
      expect(await json(`explain ${pages}`)).toMatchObject({ zone: "DMA", block: { order: 4 } });
      expect(parseInt(pages.slice(8), 16) % 65536).toBe(0);
      expect(await text(`free_pages ${pages} 4`)).toBe("16 pages freed");
      const object = await text("kmem create c 40; kmem alloc c");
      expect(await text(`kfree ${object.split("\n")[1]}`)).toBe("1 block freed"); // as in Linux since 6.4
    });
  });

  it("what is still held at power-off is named and given back", async () => {
    // with_console checks that nothing is left over.
    await with_console({}, async ({ text }) => {
      await text(
        "kmem create c 300; kmem alloc c 3; kmalloc 9000; kmalloc 9; alloc_pages 3; alloc_pages 10; kmem create d 304",
      );
    });
  });
});

const BAD: readonly (readonly [line: string, message: RegExp])[] = [
  ["kmem alloc nope", /^no cache is named "nope"/],
  ["kmem alloc kmaloc-64", /do you mean kmalloc-64\?$/],
  ["kmem", /^usage: kmem create NAME SIZE/],
  ["kmem frobnicate x", /^kmem has no "frobnicate"; usage: /],
  ["kmem create", /give a name and a size/],
  ["kmem create a/b 8", /a cache name has 1 to 63 printable characters/],
  ["kmem create . 8", /"\." names a folder/],
  ["kmem create .. 8", /"\.\." names a folder/],
  [`kmem create ${"n".repeat(64)} 8`, /a cache name has 1 to 63/],
  ['kmem create "" 8', /a cache name has 1 to 63/],
  ["kmem create dentry 8", /a cache named dentry exists already/],
  ["kmem create x 0", /an object has 1 to 4194304 bytes, not 0/],
  ["kmem create x -5", /^-5: a number here is 0 or more$/],
  ["kmem create x 4194305", /an object has 1 to/],
  ["kmem create x 4194304 ctor flags=SLAB_PANIC", /no slab can hold such objects/],
  ["kmem create x many", /size: "many" is no whole number/],
  ["kmem create x 8 align=3", /an alignment is 0 or a power of two, not 3/],
  ["kmem create x 8 flags=SLAB_FAILSLAB", /flags: "SLAB_FAILSLAB" is none of SLAB_/],
  ["kmem create x 8 useroffset=4 usersize=8", /bytes 4 to 12 are no part of 8 bytes/],
  ["kmem create x 8 sheaf_capacity=0", /sheaf_capacity: "0" given, 1 to 4096 allowed/],
  ["kmem create x 8 cpu_partial=7", /only "off"/],
  ["kmem create x 8 colour=red", /"colour=" is not expected/],
  ["kmem create x 8 y", /"y" is not expected/],
  ["kmem alloc c 0", /"0" given, 1 to 1000000 allowed/],
  ["kmem alloc c 1 gfp=GFP_NONSENSE", /gfp=GFP_NONSENSE: give names/],
  ["kmem alloc c 1 node=2", /node: "2" given, 0 to 1 allowed/],
  ["kmem free c", /give addresses, or all/],
  ["kmem free c NULL", /NULL is no object/],
  ["kmem free c 1234", /"1234" is no kernel address/],
  ["kmem free c ffff88807fff0000", /no RAM at this address/],
  ["kmem free c ffff888000000000", /ffff888000000000/],
  ["kmem free c ffff888000120000", /reserved at boot/],
  ["kmem free c ffff888001800000", /lies in a free page/],
  ["kmem free c Z1", /Z1: c has slabs A to A/],
  ["kmem free c A999", /A999: slab A has objects 0 to/],
  ["kmem free c A9", /A9, object A9 of c, is free already/],
  ["kmem free c A1 A1", /A1 is given twice/],
  ["kmem free c A1 A9", /is free already/],
  ["kmem free kmalloc-64 c:A1", /is object A1 of c/],
  ["kmem destroy c", /kmem destroy c: 3 objects in use/],
  ["kmem destroy dentry", /the cache is the kernel's/],
  ["kmem shrink", /give the name of a cache/],
  ["kmalloc", /nothing given/],
  ["kmalloc -1", /^-1: a number here is 0 or more$/],
  ["kmalloc 4194305", /0 to 4194304 allowed/],
  ["kmalloc 8 8", /"8" is not expected/],
  ["krealloc c:A9 8", /is free already/],
  ["ksize", /give an address/],
  ["ksize c:A9", /is free already/],
  ["kfree", /^usage: kfree/],
  ["kfree task_struct:A0", /is a live object of task_struct that this console did not take/],
  ["alloc_pages 11", /"11" given, 0 to 10 allowed/],
  ["alloc_pages", /order: nothing given/],
  ["alloc_pages 0 --fast", /"--fast" is not expected/],
  ["free_pages c:A1 0", /is object A1 of c/],
  ["peek nowhere", /"nowhere" is no kernel address/],
  ["peek ffff88807ffffff0 32", /are not inside RAM/],
  ["peek ffff888000001000 0", /"0" given/],
  ["poke c:A1 100", /"100" is no byte/],
  ["poke c:A1", /^usage: poke/],
  ["on 9 validate", /CPU: "9" given, 0 to 1 allowed/],
  ["on 1", /^usage: on CPU COMMAND/],
  ["slab", /give the name of a cache/],
  ["slab c d", /"d" is not expected/],
  ["map sideways", /^usage: map/],
  ["explain", /^usage: explain/],
  ["explain 99999999", /beyond the last/],
  ["frag 0", /size: "0" given/],
  ["frag 5000000", /size: "5000000" given, 1 to 4194304 allowed/],
  ["pahole paeg", /there is no struct paeg; do you mean page\?/],
  ["validate now", /usage: validate/],
  ["tour fast", /^usage: tour/],
];

describe("bad input is one clear line, nothing is done, and validate stays clean", () => {
  it("on every command", async () => {
    await with_console({ machine: TEST_MACHINE }, async ({ text, refused }) => {
      await text("kill crond syslogd getty; run 50; kmem create c 300; kmem alloc c 3"); // nothing goes on by itself
      for (const [line, message] of BAD) expect(await refused(line), line).toMatch(message);
    });
  });

  it("addresses that are nearly right", async () => {
    await with_console({}, async ({ text, refused }) => {
      const plus = (address: string, n: number): string =>
        address.slice(0, 8) + (parseInt(address.slice(8), 16) + n).toString(16).padStart(8, "0");
      await text("kmem create c 300; kmem create d 300 ctor");
      const object = await text("kmem alloc c");
      expect(await refused(`kmem free c ${plus(object, 8)}`)).toMatch(/points 8 bytes into A0 of c$/);
      expect(await refused(`kmem free c ${plus(object, 1)}`)).toMatch(/points 1 bytes? into A0 of c$/);
      expect(await refused(`kfree ${plus(object, 26 * 304)}`)).toMatch(/lies in slab A of c, behind its last object$/);
      expect(await refused(`kmem free d ${object}`)).toMatch(/is object A0 of c$/);
      await text(`kmem free c ${object}`);
      expect(await refused(`kmem free c ${object}`)).toMatch(/A0 of c, is free already$/);

      const block = await text("kmalloc 100");
      expect(await refused(`kfree ${plus(block, 64)}`)).toMatch(/points 64 bytes into/);
      await text(`kfree ${block}`);
      expect(await refused(`kfree ${block}`)).toMatch(/is free already$/);
      expect(await refused(`krealloc ${block} 200`)).toMatch(/is free already$/);

      const pages = await text("alloc_pages 2");
      expect(await refused(`kfree ${pages}`)).toMatch(/is a page block of order 2$/);
      expect(await refused(`kmem free c ${pages}`)).toMatch(/is a page block of order 2$/);
      expect(await refused(`free_pages ${pages} 1`)).toMatch(/is a block of order 2, not 1$/);
      expect(await refused(`free_pages ${pages} 3`)).toMatch(/is a block of order 2, not 3$/);
      expect(await refused(`free_pages ${plus(pages, 4096)} 1`)).toMatch(/lies in a page block of order 2 at /);
      await text(`free_pages ${pages} 2`);
      expect(await refused(`free_pages ${pages} 2`)).toMatch(/lies in a free page$/);

      const large = await text("kmalloc 20000");
      expect(await refused(`free_pages ${large} 3`)).toMatch(/is a large kmalloc block of order 3$/);
      expect(await refused(`kfree ${plus(large, 4096)}`)).toMatch(/lies in a large kmalloc block/);
    });
  });

  it("out of memory takes nothing", async () => {
    await with_console({ machine: PRESETS.embedded! }, async ({ text, json }) => {
      await text("kmem create huge 1000000 flags=SLAB_NO_MERGE");
      const { error } = await json<{ error: string }>("kmem alloc huge 40");
      expect(error).toMatch(/^kmem alloc huge: out of memory after \d+ objects; all given back$/);
      expect((await json<SlabFigure>("slab huge")).slabs.every(({ inuse }) => inuse === 0)).toBe(true);
      // The empty slabs that the cache keeps are memory again when it is shrunk.
      await text("kmem shrink huge");
      await text("alloc_pages 9");
    });
  });
});
