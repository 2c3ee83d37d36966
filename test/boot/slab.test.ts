/** The machine booted with SLAB, from the console: figures, files, faults, power-off. */
import { expect, describe, it } from "vitest";
import type { Place } from "../../boot/figures/explain.ts";
import type { SlabFigure } from "../../boot/figures/slab.ts";
import { PRESETS } from "../../hal/machine.ts";
import { ram32 } from "../../hal/ram.ts";
import { find_cache } from "../../mm/slab_common.ts";
import { SlabCache, SlabCpu, SlabNode, get_node } from "../../mm/slab_page.ts";
import { with_console } from "../lib/heap_console.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { SecondReader } from "../lib/second_reader.ts";
import { read_slab } from "../lib/second_reader_slab.ts";
import { answer, console_run } from "./run.ts";

const SLAB = { append: "slab=slab" };

describe("boot", () => {
  it.each(Object.keys(PRESETS))("of %s: programs run, all is well, nothing is left over", async (name) => {
    const options = { ...SLAB, machine: PRESETS[name]!, garbage: garbage(3) };
    expect(await answer("fork 20; validate", options)).toMatch(/all is well\n$/);
  });
});

describe("slab", () => {
  it("draws arrays, nodes and every slab", async () => {
    await with_console(SLAB, async ({ text }) => {
      await text("kmem create my_object_cache 300 flags=SLAB_PANIC; kmem alloc my_object_cache 27");
      await text("kmem alloc my_object_cache 2 node=1; kmem free my_object_cache B3 B4 D1");
      expect(
        (await text("slab my_object_cache")).replaceAll(/ffff8880[0-9a-f]{8}/g, "ffff888002f40000").split("\n"),
      ).toEqual([
        "my_object_cache   300 bytes in a slot of 304, 13 a slab, 1 page a slab",
        "  SLAB_PANIC",
        "  limit 54 batch 27 shared 8; 2 colours of 64 bytes; index array in an object",
        "array_cache   avail  top         slab_node partial full   free  shared  alien",
        "  cpu 0      14/54  B4,B3,C11+11   node 0  -       C,B,A  -     0/216   1/12",
        "  cpu 1-3     0/54  -              node 1  D       -      -     0/216   0/12",
        "",
        "  A  full     node 0  ffff888002f40000+64  #############  13/13",
        "  B  full     node 0  ffff888002f40000+0   ###**########  13/13",
        "  C  full     node 0  ffff888002f40000+64  ************#  13/13",
        "  D  partial  node 1  ffff888002f40000+64  #*123456789ab   2/13",
        "# live   * free, in an array   1-9a-z free, in the index array   . further on",
      ]);
    });
  });

  it("has at most 80 columns and one screen for every cache of a busy machine", async () => {
    await with_console({ ...SLAB, machine: PRESETS.server! }, async ({ text, json }) => {
      await text("fork 60; kmem create tiny 8; kmem alloc tiny 700; on 5 kmem alloc tiny 700; kmem free tiny all");
      for (const { name } of await json<{ name: string }[]>("slabtop")) {
        const lines = (await text(`slab ${name}`)).split("\n");
        expect(lines.length, name).toBeLessThanOrEqual(23);
        for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
      }
    });
  });

  it("--watch tells each move from list to list, and who made it", async () => {
    await with_console(SLAB, async ({ text }) => {
      await text("kmem create my_object_cache 2000");
      expect((await text("slab my_object_cache --watch kmem alloc my_object_cache")).split("\n")).toEqual([
        "A   buddy         -> full          fixup_slab_list",
      ]);
      await text("kmem free my_object_cache all");
      expect((await text("slab my_object_cache --watch kmem shrink my_object_cache")).split("\n")).toEqual([
        "A   full          -> partial       free_block",
        "A   partial       -> free          free_block",
        "A   free          -> buddy         slab_destroy",
      ]);
    });
  });

  it("survives broken arrays and lists, and says so", async () => {
    await with_console({ ...SLAB, machine: TEST_MACHINE }, async ({ text }) => {
      await text("kmem create broken 300; kmem alloc broken 20; kmem free broken A1 A2");
      const cache = find_cache("broken");
      const entries = SlabCache.cpu_cache.get(cache) + SlabCpu.sizeof;
      const list = SlabNode.slabs_full.at(get_node(cache, 0));
      const damage = async (at: number, value: number, says: RegExp): Promise<void> => {
        const before = ram32[at >> 2]!;
        ram32[at >> 2] = value;
        const drawn = await text("slab broken");
        await text("explain ffff888002000000");
        ram32[at >> 2] = before;
        expect(drawn).toMatch(says);
      };
      await damage(entries, 12, /^BROKEN: cpu 0: ffff88800000000c is no object of the cache$/m);
      await damage(entries, ram32[(entries + 8) >> 2]!, /^BROKEN: cpu 0: B\d+ is in cpu 0 too$/m);
      await damage(entries - 16, 9999, /^BROKEN: cpu 0: 9999 objects in an array of 54$/m);
      await damage(list, 0x7ffffff0, /^BROKEN: node 0: 2 slabs counted, [01] on its lists$/m);
    });
  });
});

describe("a second reader that knows only the layouts", () => {
  it("rebuilds slab NAME from peek, after a random load", async () => {
    await with_console({ ...SLAB, machine: TEST_MACHINE, garbage: garbage(5) }, async (c) => {
      for (const text of ["odd 40", "coloured 608 ctor", "plain 300", "big 5824 align=64"]) await c.text(`kmem create ${text}`); // prettier-ignore
      let x = 12345;
      const draw = (n: number): number => ((x = (Math.imul(x, 1664525) + 1013904223) | 0) >>> 8) % n;
      const names = ["odd", "coloured", "plain", "big"];
      for (let i = 0; i < 60; i++) {
        const name = names[draw(4)]!;
        const taken = (await c.text(`on ${draw(2)} kmem alloc ${name} ${1 + draw(90)}`)).split("\n");
        const back = taken.filter(() => draw(3) > 0);
        if (back.length > 0) await c.text(`on ${draw(2)} kmem free ${name} ${back.join(" ")}`);
      }
      const reader = SecondReader.open((address, length) => c.still(`peek ${address} ${length}`).text);
      for (const name of [...names, "dentry", "kmalloc-32", "kmalloc-128", "task_struct", "kmem_cache"])
        expect(read_slab(reader, name), name).toEqual(c.still(`slab ${name}`).json);
    });
  });
});

describe("explain", () => {
  it("knows every place an object can be in", async () => {
    await with_console({ ...SLAB, machine: TEST_MACHINE }, async ({ text, json }) => {
      await text("kmem create t_x 608 ctor; kmem alloc t_x 3; kmem alloc t_x 2 node=1; kmem free t_x A5 B1");
      const place = async (what: string): Promise<Place> => json<Place>(`explain ${what}`);
      expect(await place("t_x:A4")).toMatchObject({ cache: "t_x", slab: "A", object: 4, free: false, owner: "console", slot: 608 }); // prettier-ignore
      expect(await place("t_x:A5")).toMatchObject({ free: true, where: "array of cpu 0" });
      expect(await place("t_x:B1")).toMatchObject({ free: true, where: "array of node 0 for objects of node 1" });
      expect(await place("t_x:B2")).toMatchObject({ free: true, where: "index array of slab B, place 1" });
      const { slabs } = await json<SlabFigure>("slab t_x");
      const start = parseInt(slabs[0]!.page.slice(8), 16);
      expect(slabs[0]!.colour).toBeGreaterThan(0);
      const at = (offset: number): string => `ffff8880${(start + offset).toString(16).padStart(8, "0")}`;
      expect(await text(`explain ${at(8)}`)).toContain(
        "object   none: the bytes of its colour, in front of the first slot",
      );
      expect(await text(`explain ${at(4095)}`)).toContain("object   none: the slab's index array");
    });
  });
});

describe("files and commands", () => {
  it("/proc/slabinfo has real tunables, and takes new ones", async () => {
    const { out, err } = await console_run(
      [
        "kmem create t_x 256; kmem alloc t_x 20",
        "echo t_x 50 20 3 > /proc/slabinfo",
        "cat /proc/slabinfo",
        "ls -l /proc/slabinfo",
        "echo t_x 0 20 3 > /proc/slabinfo",
        "echo nobody 50 20 3 > /proc/slabinfo",
        "echo t_x 50 20 > /proc/slabinfo",
        "echo t_x 9999 20 3 > /proc/slabinfo",
      ],
      SLAB,
    );
    const lines = out.split("\n");
    expect(lines).toContain("slabinfo - version: 2.1");
    expect(lines).toContain("t_x                   20     32    256   16    1 : tunables   50   20    3 : slabdata      2      2      0"); // prettier-ignore
    expect(out).toMatch(/^-rw------- .* \/proc\/slabinfo$/m);
    expect(err.split("\n").slice(0, 3)).toEqual([
      "echo: write error: Invalid argument",
      "echo: write error: Invalid argument",
      "echo: write error: Cannot allocate memory",
    ]); // prettier-ignore
  });

  it("slab_stats=on adds the statistics", async () => {
    const text = await answer("cat /proc/slabinfo", { append: "slab=slab slab_stats=on" });
    expect(text).toMatch(/^slabinfo - version: 2\.1 \(statistics\)\n# name .*<alienoverflow> : cpustat <allochit> <allocmiss> <freehit> <freemiss>\n/); // prettier-ignore
    for (const line of text.trimEnd().split("\n").slice(2))
      expect(line).toMatch(/ : globalstat( +\d+){9} : cpustat( +\d+){4}$/);
  });

  it("what tells of SLUB alone says so in one line", async () => {
    const { err, failed } = await console_run(["slabinfo", "tour --all"], SLAB);
    expect(failed).toBe(true);
    expect(err).toContain("slabinfo: SLAB has no /sys/kernel/slab; cat /proc/slabinfo, or slabtop\n");
    expect(err).toContain("tour: it tells of SLUB, and SLAB is booted; leave --slab out\n");
  });

  it("idle caches are reaped as time passes, without anybody's doing", async () => {
    await with_console({ ...SLAB, machine: TEST_MACHINE }, async ({ text, json }) => {
      await text("kmem create t_x 256; kmem alloc t_x 500; kmem free t_x all");
      const held = async (): Promise<number> => (await json<SlabFigure>("slab t_x")).slabs.length;
      const before = await held();
      await text("sleep 60");
      expect(before).toBeGreaterThan(10);
      expect(await held()).toBe(0);
    });
  });
});
