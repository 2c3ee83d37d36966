/** `slab`, `map`, `explain`, `frag`, `peek`, `pahole`: what they show is what lies in RAM, and how they look. */
import { describe, expect, it } from "vitest";
import type { Place } from "../../boot/figures/explain.ts";
import type { FragFigure } from "../../boot/figures/frag.ts";
import type { MemoryMap } from "../../boot/figures/map.ts";
import type { SlabFigure } from "../../boot/figures/slub.ts";
import { MIB, PRESETS, type MachineSpec } from "../../hal/machine.ts";
import { struct_layouts } from "../../hal/struct.ts";
import { with_console, type HeapConsole } from "../lib/heap_console.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { SecondReader, lay_out, px } from "../lib/second_reader.ts";

/** A seeded stream of whole numbers below n. */
function draws(seed: number): (n: number) => number {
  let x = seed | 1;
  return (n) => {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    return (x >>> 8) % n;
  };
}

/** 16 MiB, a hole of as much, 16 MiB of another node. */
const WITH_HOLE: MachineSpec = {
  ...TEST_MACHINE,
  memory: [{ start: MIB, size: 15 * MIB, type: 1 }, { start: 32 * MIB, size: 16 * MIB, type: 1 }],
  nodes: [{ ranges: [{ start: 0, size: 16 * MIB }], cpus: [0] }, { ranges: [{ start: 32 * MIB, size: 16 * MIB }], cpus: [1] }],
}; // prettier-ignore

/** Sizes and cache options of a random load. */
const CACHES = [
  "odd 40",
  "plain 300 cpu_partial=off",
  "big 1500 flags=SLAB_HWCACHE_ALIGN",
  "made 96 ctor",
  "red 120 flags=SLAB_RED_ZONE",
  "sheafed 200 sheaf_capacity=8",
];

/** Takes and frees objects, blocks and pages on all CPUs, and forks. */
async function random_load(c: HeapConsole, draw: (n: number) => number, cpus: number, steps: number): Promise<void> {
  const held: string[] = [];
  for (let i = 0; i < steps; i++) {
    const on = `on ${draw(cpus)}`;
    const name = CACHES[draw(CACHES.length)]!.split(" ")[0];
    const kind = draw(9);
    if (kind < 4)
      for (const at of (await c.text(`${on} kmem alloc ${name} ${1 + draw(60)}`)).split("\n"))
        held.push(`kmem free ${name} ${at}`);
    else if (kind === 4) held.push(`kfree ${await c.text(`${on} kmalloc ${1 + draw(20000)}`)}`);
    else if (kind === 5) {
      const order = draw(6);
      held.push(
        `free_pages ${await c.text(`${on} alloc_pages ${order}${draw(2) ? " gfp=GFP_KERNEL|__GFP_COMP" : ""}`)} ${order}`,
      );
    } else if (kind === 6) await c.text(`echo ${"x".repeat(draw(9000))} > /tmp/f${draw(5)}`);
    else
      for (let n = draw(80); n > 0 && held.length > 0; n--)
        await c.text(`on ${draw(cpus)} ${held.splice(draw(held.length), 1)[0]}`);
  }
}

const without_owner = ({ owner: _owner, ...place }: Place): Omit<Place, "owner"> => place;

async function compare_with_reader(c: HeapConsole, draw: (n: number) => number): Promise<void> {
  const reader = SecondReader.open((address, length) => c.still(`peek ${address} ${length}`).text);
  for (const by of ["owner", "order", "node"] as const) expect(reader.map(by)).toEqual(c.still(`map ${by}`).json);
  const caches = [
    "task_struct",
    "kmalloc-32",
    "kmem_cache_node",
    "kmem_cache",
    "dentry",
    ...CACHES.map((text) => text.split(" ")[0]!),
  ];
  const slabs: string[] = [];
  for (const name of caches) {
    const figure = c.still(`slab ${name}`).json as SlabFigure;
    expect(reader.slab(name), name).toEqual(figure);
    slabs.push(...figure.slabs.map(({ page }) => page));
  }
  for (let i = 0; i < 100; i++) {
    const slab = parseInt(slabs[draw(slabs.length)]!.slice(8), 16) + draw(8192);
    const ptr = i % 2 ? slab : draw(reader.max_pfn) * 4096 + draw(4096);
    expect(reader.explain(ptr)).toEqual(without_owner(c.still(`explain ${px(ptr)}`).json as Place));
  }
}

it("the layouts that the second reader was told are the kernel's", () => {
  for (const [tag, { size, fields }] of lay_out()) {
    const layout = struct_layouts().get(tag)!;
    const offsets = Object.fromEntries(layout.layout.map(({ name, offset }) => [name, offset]));
    for (const [field, { offset }] of fields) expect(offsets[field], `${tag}.${field}`).toBe(offset);
    if (["page", "slab", "zone", "memblock_region"].includes(tag)) expect(layout.sizeof, tag).toBe(size);
  }
});

describe("a second reader that knows only the layouts rebuilds slab, map and explain from peek", () => {
  it.each([
    ["garbage at power-on, full tracked", { machine: TEST_MACHINE, garbage: garbage(5) }, 2],
    [
      "free lists shuffled and scrambled",
      { machine: TEST_MACHINE, append: "slab_freelist_random=on slab_freelist_hardened=on slab_full=off" },
      2,
    ],
    ["one small node", { machine: PRESETS.embedded! }, 1],
    ["a hole between two nodes", { machine: WITH_HOLE }, 2],
  ] as const)("after random loads: %s", async (_name, options, cpus) => {
    const draw = draws(cpus * 31 + options.machine.nodes.length);
    await with_console(options, async (c) => {
      for (const text of CACHES) await c.text(`kmem create ${text}`);
      for (let round = 0; round < 2; round++) {
        await random_load(c, draw, cpus, 40);
        await compare_with_reader(c, draw);
      }
    });
  });
});

describe("slab", () => {
  it("draws both tables and every slab, as the figure of every SLUB text", async () => {
    await with_console({}, async ({ text }) => {
      await text("kmem create my_object_cache 300 flags=SLAB_PANIC cpu_partial=off; kmem alloc my_object_cache 27");
      expect(
        (await text("slab my_object_cache")).replaceAll(/ffff8880[0-9a-f]{8}/g, "ffff888002f40000").split("\n"),
      ).toEqual([
        "my_object_cache   300 bytes in a slot of 304, 26 a slab, 2 pages a slab",
        "  SLAB_PANIC",
        "kmem_cache_cpu   freelist  page  partial      kmem_cache_node  partial  full",
        "  cpu 0          B1        B     -              node 0         -        A",
        "  cpu 1-3        NULL      -     -              node 1         -        -",
        "",
        "  A  full   node 0  ffff888002f40000  ##########################  26/26",
        "  B  cpu 0  node 0  ffff888002f40000  #123456789abcdefghijklmnop   1/26",
        "# live   1-9a-z free, in the order of the free list   . free, further down",
      ]);
    });
  });

  it("has at most 80 columns for every cache of a busy machine, and says what it leaves out", async () => {
    await with_console({ machine: PRESETS.server! }, async ({ text, json }) => {
      await text("fork 400; kmem create tiny 8; kmem alloc tiny 3000; on 5 kmem alloc tiny 3000");
      const caches = (await json<{ name: string }[]>("slabtop")).map(({ name }) => name);
      expect(caches.length).toBeGreaterThan(10);
      for (const name of caches) {
        const lines = (await text(`slab ${name}`)).split("\n");
        expect(lines.length, name).toBeLessThanOrEqual(23);
        for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
      }
      expect(await text("slab task_struct")).toMatch(/and \d+ more slabs, \d+ of them full/);
      const all = (await json<SlabFigure>("slab task_struct")).slabs.length;
      expect((await text("slab task_struct --all")).match(/^ {2}[A-Z]+ /gm)!.length).toBe(all);
    });
  });

  it("shows objects that lie in sheaves as neither live nor on a free list", async () => {
    await with_console({}, async ({ text, json, refused }) => {
      await text("kmem create c 256 sheaf_capacity=8; kmem alloc c 3");
      const [row] = (await json<SlabFigure>("slab c")).slabs;
      expect(row!.sheaved!.length).toBe(5);
      expect(await text("slab c")).toContain("* free, in a sheaf");
      const place = await json<Place>(`explain c:A${row!.sheaved![0]}`);
      expect(place).toMatchObject({ free: true, where: "cpu 0's main sheaf" });
      expect(await refused(`kmem free c A${row!.sheaved![0]}`)).toContain("is free already");
      expect(await refused("kmem destroy c")).toBe("kmem destroy c: 3 objects in use");
      expect(await text("kmem free c all; kmem destroy c")).toContain("c destroyed");
    });
  });

  it("with --watch COMMAND prints a line a move: slab, from, to, counter", async () => {
    await with_console({}, async ({ text, json }) => {
      await text("kmem create c 300 cpu_partial=off");
      expect(await text("slab c --watch kmem alloc c 27")).toBe(
        [
          "A   buddy         -> cpu 0         alloc_slab",
          "A   cpu 0         -> full          deactivate_bypass",
          "B   buddy         -> cpu 0         alloc_slab",
        ].join("\n"),
      );
      const { moves } = await json<{ moves: unknown[] }>("slab c --watch kmem free c A0");
      expect(moves).toEqual([{ slab: "A", from: "full", to: "partial", counter: "free_add_partial" }]);
      expect(await text('slab c --watch "ksize A3"')).toBe("no slab moved");
    });
  });

  it.each(["off", "on"])("survives a broken free list and says so (hardened %s)", async (hardened) => {
    await with_console({ append: `slab_freelist_hardened=${hardened}` }, async ({ text, json, refused }) => {
      await text("kmem create c 64 cpu_partial=off; kmem alloc c 3");
      const before = await json<{ hex: string }>("peek c:A5 64");
      const bytes = before.hex.match(/../g)!.join(" ");
      for (const wild of ["00 00 00 7f", "ff ff ff ff", "01 00 00 00", "00 f0 ff 0f"]) {
        await text(`poke c:A5 ${Array.from({ length: 16 }, () => wild).join(" ")}`);
        expect(await text("slab c")).toContain("BROKEN: slab A: a free list leaves the slab or meets an object twice");
        await json("explain c:A5");
        await text("map; frag");
      }
      await text(`poke c:A5 ${bytes}`);
      expect(await text("slab c")).not.toContain("BROKEN");
      expect(await refused("kmem free c A7")).toContain("is free already");
    });
  });

  it("survives a broken list of slabs", async () => {
    await with_console({ machine: TEST_MACHINE }, async ({ text, still }) => {
      await text("kmem create c 1000; kmem alloc c 40");
      const place = JSON.parse(await text("explain A0 --json")) as Place;
      const reader = SecondReader.open((address, length) => still(`peek ${address} ${length}`).text);
      const next = reader.page_struct(place.pfn) + 40; // slab->slabs_next
      const before = JSON.parse(await text(`peek ${px(next)} 8 --json`)) as { address: string; hex: string };
      await text(`poke ${before.address} 00 00 00 10`);
      expect(await text("slab c")).toMatch(/BROKEN: node 0: 3 slabs counted, list of slabs is broken behind 1/);
      await text(`poke ${before.address} ${before.hex.match(/../g)!.join(" ")}`);
      expect(await text("slab c")).not.toContain("BROKEN");
    });
  });
});

describe("map", () => {
  it.each(["textbook", "laptop", "server", "embedded"])(
    "is one screen of 80 x 24 on %s and counts every page once",
    async (preset) => {
      await with_console({ machine: PRESETS[preset]! }, async ({ text, json }) => {
        await text("fork 20; kmalloc 100000");
        for (const by of ["owner", "order", "node"]) {
          const lines = (await text(`map ${by}`)).split("\n");
          expect(lines.length).toBeLessThanOrEqual(23);
          for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
          const map = await json<MemoryMap>(`map ${by}`);
          const sum = Object.values(map.pages).reduce((a, b) => a + b, 0);
          expect(map.cells.length).toBe(Math.ceil(sum / map.pages_per_cell));
          const free = map.zones.reduce((total, zone) => total + zone.free, 0);
          expect(map.pages.buddy).toBe(free);
          expect(map.pages.hole).toBe(map.holes.reduce((total, hole) => total + hole.end_pfn - hole.start_pfn, 0));
        }
      });
    },
  );
});

describe("explain", () => {
  it("tells zone, node, block, cache, slab, object, live or free and owner", async () => {
    await with_console({}, async ({ text, json }) => {
      await text("kmem create c 300 cpu_partial=off; kmem alloc c 3");
      const live = await json<Place>("explain c:A1");
      expect(live).toMatchObject({
        use: "slab",
        node: 0,
        zone: "Normal",
        cache: "c",
        slab: "A",
        on: "cpu 0",
        object: 1,
        offset: 0,
        free: false,
        owner: "console",
      });
      expect(live.block).toEqual({ pfn: live.pfn, order: 1 });
      expect(await json<Place>("explain A4")).toMatchObject({
        object: 4,
        free: true,
        where: "free list of slab A, place 2",
      });
      expect(await text("explain A1")).toMatch(/A1, its first byte, in a slot of 304: live\nowner {4}console$/);

      const pages = await text("alloc_pages 3");
      const place = await json<Place>(`explain ${pages}`);
      expect(place).toMatchObject({ use: "pages", block: { order: 3 }, owner: "console" });
      expect(await json(`explain ${place.pfn + 5}`)).toMatchObject({
        use: "pages",
        block: place.block,
        owner: "console",
      });
      await text(`free_pages ${pages} 3`);
      expect(await json(`explain 0x${place.pfn.toString(16)}`)).toMatchObject({ free: true });

      const big = await text("kmalloc 20000");
      expect(await json(`explain ${big}`)).toMatchObject({ use: "kmalloc", block: { order: 3 }, owner: "console" });
      expect(await json("explain task_struct:A0")).toMatchObject({
        owner: expect.stringMatching(/^pid \d+ \(.+\)$/) as string,
      });
      expect(await json("explain 0")).toMatchObject({ use: "hole" });
      expect(await json("explain 0x120")).toMatchObject({
        use: "reserved",
        owner: expect.stringContaining("kernel variable") as string,
      });
    });
  });
});

describe("frag", () => {
  it("counts what a request costs on the buddy allocator alone and on kmalloc", async () => {
    await with_console({}, async ({ text, json }) => {
      const figure = await json<FragFigure>("frag 1 300 8192 8193 100000");
      expect(figure.sizes).toEqual([
        { size: 1, buddy: { given: 4096, lost: 4095 }, kmalloc: { given: 8, lost: 7, cache: "kmalloc-8" } },
        { size: 300, buddy: { given: 4096, lost: 3796 }, kmalloc: { given: 512, lost: 212, cache: "kmalloc-512" } },
        { size: 8192, buddy: { given: 8192, lost: 0 }, kmalloc: { given: 8192, lost: 0, cache: "kmalloc-8k" } },
        { size: 8193, buddy: { given: 16384, lost: 8191 }, kmalloc: { given: 16384, lost: 8191, cache: null } },
        { size: 100000, buddy: { given: 131072, lost: 31072 }, kmalloc: { given: 131072, lost: 31072, cache: null } },
      ]);
      const { bytes, live, padding, free, tails } = figure.slabs;
      expect(live + padding + free + tails).toBe(bytes);
      for (const line of (await text("frag")).split("\n")) expect(line.length).toBeLessThanOrEqual(80);
      expect(await text("frag 300")).toContain("3796   92.7 %");
    });
  });
});

describe("peek, poke, pahole", () => {
  it("show and change raw bytes", async () => {
    await with_console({}, async ({ text, json }) => {
      const at = await text("kmalloc 64");
      expect(await text(`poke ${at} 6b 0x68 65 61 70 0`)).toBe(`6 bytes written at ${at}`);
      expect(await text(`peek ${at} 6`)).toBe(`${at}: 6b68 6561 7000                           kheap.`);
      expect(await json(`peek ${at} 6`)).toEqual({ address: at, hex: "6b6865617000" });
      expect((await text(`peek ${at}`)).split("\n").length).toBe(4);
    });
  });

  it("pahole prints a struct as C lays it out", async () => {
    await with_console({}, async ({ text, json }) => {
      const page = await text("pahole page");
      expect(page).toContain("struct list_head lru;");
      expect(page).toContain("/* size: 64, cachelines: 1, members: 10, align: 8 */");
      expect(await text("pahole kmem_cache")).toContain("char name[64];");
      expect(await text("pahole zone")).toContain("struct free_area free_area[11];");
      const { fields, sizeof } = await json<{ fields: { name: string; offset: number }[]; sizeof: number }>(
        "pahole page",
      );
      expect(sizeof).toBe(64);
      expect(fields.find(({ name }) => name === "refcount")!.offset).toBe(52);
    });
  });
});
