/**
 * `compare`: how its words are read, what each of its figures is on examples that were worked out by hand, that they are
 * those of a replay of the same trace, that two runs agree to the unit, and that what makes no sense is one line.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import type { Context } from "../../boot/commands/registry.ts";
import { compare_all, type Comparison } from "../../boot/compare/compare.ts";
import { count_calls } from "../../boot/compare/calls.ts";
import { default_configs, parse_config } from "../../boot/compare/config.ts";
import { look, type Look } from "../../boot/compare/look.ts";
import { Costs } from "../../boot/compare/meter.ts";
import { demand_of, steps, times } from "../../boot/compare/script.ts";
import { parse_workload } from "../../boot/compare/workload.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { init_list_head, list_add, list_add_tail, list_del, list_move } from "../../kernel/lib/list.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";
import { stopped_replay } from "./compare_replay.ts";
import { console_run } from "./run.ts";

const folder = mkdtempSync(join(tmpdir(), "kheap-compare-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

/** A box is an object of 200 bytes. 300, 500, 9500 bytes are live, then 9200, then 9400. */
const HAND_MADE = file(
  "hand.trace",
  [
    "#kheap-trace 1", "#cache 0 box 200 200", "#gfp 0 GFP_KERNEL", "#site 0 f",
    "k 0 1 1n 0 300 512 0 -1 0", "c 0 1 1n 1 0 0 -1 0", "k 0 1 1n 2 9000 16384 0 -1 0", "f 0 1 1n 0 0",
    "c 0 1 1n 3 0 0 -1 0",
  ].join("\n") + "\n",
); // prettier-ignore
const LSR = fileURLToPath(new URL("../data/malloclab/lsr.rep.gz", import.meta.url));

describe("CONFIG", () => {
  it("is kernel parameters", () => {
    expect(parse_config("slub:cpu_partial=off,sheaf=32")).toEqual({
      name: "slub:cpu_partial=off,sheaf=32",
      allocator: "slub",
      append: "slab=slub slub_cpu_partial=off kmalloc_sheaf=32",
      sheaf: 32,
    });
    expect(parse_config("slab:colour=off,alien=off").append).toBe("slab=slab slab_colour=off noaliencache");
    expect(default_configs().map(({ name }) => name)).toEqual(["slub", "slab", "slob", "buddy"]);
  });

  it.each([
    ["slib", /no allocator "slib", there are slub, slab, slob, buddy; did you mean slub\?$/],
    ["slab:cpu_partial=off", /slab has no option "cpu_partial"; it has colour=on\|off, alien=on\|off, /],
    ["slob:merge=on", /slob has no option "merge"; it has none$/],
    ["slub:cpu_partial=perhaps", /cpu_partial takes on\|off, not "perhaps"$/],
    ["slub:sheaf=1001", /sheaf takes 1\.\.1000, not "1001"$/],
    ["slub:sheaf=3x", /sheaf takes 1\.\.1000, not "3x"$/],
    ["slub:", /slub has no option ""; it has /],
    ["slub:merge=on,merge=off", /merge is given twice$/],
  ])("%s is refused in one line that says what is allowed", (text, says) => {
    expect(() => parse_config(text)).toThrow(says);
  });
});

describe("a script", () => {
  const demand = (text: string, machine: MachineSpec = TEST_MACHINE, copies = 1, seed = 1) =>
    demand_of(steps(parse_workload(text), seed, machine, copies));

  it("asks for what its lines say", () => {
    const one = { operations: 5, allocs: 4, peak_at: 3, peak_bytes: 9500, peak_objects: 3, end_objects: 3 };
    expect(demand(HAND_MADE)).toEqual(one);
    // Two copies in turns: the third objects are allocations 5 and 6.
    const two = { operations: 10, allocs: 8, peak_at: 6, peak_bytes: 19000, peak_objects: 6, end_objects: 6 };
    expect(demand(HAND_MADE, TEST_MACHINE, 2)).toEqual(two);
    expect(times(one, 2)).toEqual(two);
  });

  it("may be a malloc-lab file, where a size may change", () => {
    const rep = file("hand.rep", "9\n2\n5\n1\na 0 100\na 1 50\nr 0 400\nf -1\nf 1\nr 0 0\n");
    const want = { operations: 5, allocs: 4, peak_at: 3, peak_bytes: 450, peak_objects: 2, end_objects: 1 };
    expect(demand(rep)).toEqual(want);
  });

  it("of messages frees all of them on the other node, whatever the seed", () => {
    for (const seed of [1, 2, 99]) {
      const script = [...steps(parse_workload("producer-consumer:300"), seed, PRESETS["server"]!, 1)];
      const of = (op: string): number[] => [...new Set(script.filter((s) => s.op === op).map(({ cpu }) => cpu))];
      expect([of("alloc"), of("free")]).toEqual([[0], [2]]);
      expect(demand_of(script)).toMatchObject({ operations: 1200, allocs: 600, end_objects: 0 });
    }
    expect(demand("producer-consumer:300", TEST_MACHINE, 1, 1)).not.toEqual(
      demand("producer-consumer:300", TEST_MACHINE, 1, 2),
    );
  });

  it.each([
    [file("a.trace", "#kheap-trace 1\n#cpus 2\nz 1\n"), /a\.trace:3: "z" begins no line/],
    [file("b.rep", "1\n1\n1\n1\na 0 10\nf 0\nf 0\n"), /b\.rep:7: block 0 is not live/],
    [file("c.rep", "1\n1\n1\n1\na 0 10\na 0 10\n"), /c\.rep:6: block 0 is live already/],
    ["/no/such/file", /\/no\/such\/file: no such file, nor one of fork-storm, file-walk, producer-consumer$/],
    ["fork-strom", /did you mean fork-storm\?$/],
    ["fork-storm:0", /fork-storm takes 1 to 100000 tasks, not "0"/],
    ["file-walk:many", /file-walk takes 1 to 100000 files, not "many"/],
  ])("%s is refused with its place", (text, says) => {
    expect(() => demand(text)).toThrow(says);
  });
});

/** What changes between two looks. */
function change(from: Look, to: Look): Record<string, number> {
  return Object.fromEntries(Object.keys(from).map((key) => [key, to[key as keyof Look] - from[key as keyof Look]]));
}

const one_node = machine_from_options({ mem: "64M", nodes: 1, cpus: 2 }) as MachineSpec;

/** Looks around before, between and after, with a cache of 256-byte objects under one allocator. */
function with_cache(slab: string, run: (cache: number, changed: () => Record<string, number>) => void): void {
  with_machine({ append: `slab=${slab}`, machine: one_node }, () => {
    const cache = kmem_cache_create("look", 256, 0, SLAB_NO_MERGE);
    let last = look();
    run(cache, () => {
      const now = look();
      const changed = change(last, now);
      last = now;
      return changed;
    });
    kmem_cache_destroy(cache);
  });
}

describe("a look", () => {
  it("under SLUB: an active slab's free objects are kept by its CPU", () => {
    with_cache("slub", (cache, changed) => {
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      expect(changed()).toMatchObject({ pages: 1, lent: 256, unlent: 15 * 256, cached: 15 * 256, metadata: 0 });
      kmem_cache_free(cache, object);
      expect(changed()).toMatchObject({ pages: 0, lent: -256, unlent: 256, cached: 256 });
    });
  });

  it("under SLAB: the worked sequence of 1000 objects", () => {
    with_cache("slab", (cache, changed) => {
      const objects = Array.from({ length: 1000 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      expect(changed()).toMatchObject({ pages: 63, lent: 1000 * 256, unlent: 8 * 256, cached: 8 * 256, metadata: 0 });
      for (const object of objects) kmem_cache_free(cache, object);
      // 480 in the shared array and 108 in the CPU's; 49 slabs are left.
      expect(changed()).toMatchObject({ pages: 49 - 63, lent: -1000 * 256, cached: 580 * 256 });
    });
  });

  it("under SLOB: blocks with their headers are lent, nothing is kept", () => {
    with_cache("slob", (_cache, changed) => {
      const blocks = [100, 64, 4].map((bytes) => kmalloc(bytes, GFP_KERNEL));
      expect(changed()).toMatchObject({ lent: 108 + 72 + 12, cached: 0, metadata: 3 * 8 });
      blocks.forEach(kfree);
      expect(changed()).toMatchObject({ lent: -192, cached: 0, metadata: -24 });
    });
  });

  it("without a slab allocator: 300 bytes take a page, 9000 take four", () => {
    with_cache("buddy", (cache, changed) => {
      const blocks = [300, 9000].map((bytes) => kmalloc(bytes, GFP_KERNEL));
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      expect(changed()).toMatchObject({ pages: 6, lent: 6 * 4096, unlent: 0, cached: 0, metadata: 0, free: -6 });
      blocks.forEach(kfree);
      kmem_cache_free(cache, object);
      expect(changed()).toMatchObject({ pages: -6, lent: -6 * 4096, unlent: 0, free: 6 });
    });
  });

  it("counts what a cache is made of", () => {
    const made = (slab: string): number => {
      let metadata = 0;
      with_machine({ append: `slab=${slab}`, machine: one_node }, () => {
        const from = look();
        const cache = kmem_cache_create("look", 256, 0, SLAB_NO_MERGE);
        metadata = look().metadata - from.metadata;
        kmem_cache_destroy(cache);
        expect(look().metadata).toBe(from.metadata);
      });
      return metadata;
    };
    const descriptor = 256; // in cache lines; one node
    // kmem_cache_node in a slot of 128; on each of two CPUs 43 counters, three pointers and two words, in pieces of 16.
    expect(made("slub")).toBe(descriptor + 128 + 2 * 208);
    // slab_node from kmalloc; its shared array of 480 entries from kmalloc-4k; arrays of 120 with counters on two CPUs.
    expect(made("slab")).toBe(descriptor + 128 + 4096 + 2 * (64 + 8 * 120));
    expect(made("buddy")).toBe(4096);
  });
});

describe("what is counted beside", () => {
  it("list operations and locks, by the engine", () => {
    with_machine({}, () => {
      const block = kmalloc(64, GFP_KERNEL);
      const [head, node] = [block, block + 32];
      const stop = count_calls();
      init_list_head(head);
      list_add(node, head);
      list_move(node, head);
      list_del(node);
      list_add_tail(node, head);
      expect(stop()).toMatchObject({ list_operations: 5, locks: 0 });
      kfree(block);
    });
  });

  it("percentiles: the least cycles within which that share was done", () => {
    const costs = new Costs();
    for (let i = 1; i <= 200; i++) costs.add(i);
    expect([0.5, 0.99, 1].map((share) => costs.percentile(share))).toEqual([100, 198, 200]);
    expect([costs.operations, costs.cycles]).toEqual([200, 20100]);
  });
});

describe("compare", () => {
  it("prints the figures of a hand-made trace", { timeout: 180_000 }, async () => {
    const { out, err } = await console_run([`compare ${HAND_MADE} slub buddy`, `compare ${HAND_MADE} buddy --json`]);
    expect(err).toBe("");
    const [text, json] = out.split(/^(?=\{)/m) as [string, string];
    expect(text).toMatch(/^hand\.trace on test \(2 nodes, 2 CPUs\), seed 1: 5 operations\n  the peak: 9,500 bytes asked for by 3 objects, after allocation 3\n\n/); // prettier-ignore
    expect(text).toMatch(/^ +slub +buddy$/m);
    expect(text).toMatch(/^  internal, bytes   at the peak +7,596 +15,076$/m);
    expect(text).toMatch(/^  bytes grown for a byte asked +\d\.\d{3} +3\.018$/m);
    const found = JSON.parse(json) as Comparison;
    expect(Object.keys(found).join()).toBe("workload,machine,cpus,nodes,seed,copies,idle,demand,columns");
    expect(Object.keys(found.columns[0]!).join()).toBe("config,allocator,parameters,memory");
    expect(Object.keys(found.columns[0]!.memory!).join()).toBe(
      "operations,failed,before,peak,end,rest,after_idle,most_pages,peak_objects,peak_slots,list_operations,locks," +
        "findings,internal,grown,overhead",
    );
  });

  it(
    "gives each figure, for scripts and programs alike, and those of a stopped replay",
    { timeout: 180_000 },
    async () => {
      const ctx = { cancelled: false, progress() {} } as unknown as Context;
      const configs = [...default_configs(), parse_config("slub")];
      const requests = [HAND_MADE, LSR, "fork-storm:40", "file-walk:40"].map((text) => ({
      workload: parse_workload(text), configs, machine: TEST_MACHINE, seed: 1, append: "", copies: 1, timing: false, idle: 0,
    })); // prettier-ignore
      const found = await compare_all(ctx, requests);
      for (const { demand, columns } of found) {
        const { operations, peak_objects } = demand;
        for (const { memory } of columns)
          expect(memory).toMatchObject({ operations, peak_objects, failed: 0, findings: [] });
        // The same again, in a realm that had other machines in between.
        expect(columns[4]).toEqual(columns[0]);
      }
      const [hand, lsr] = found as [Comparison, Comparison];
      // Slots: 512, 200, 16384; SLOB gives what is asked for; the buddy allocator 4096, 4096, 16384.
      expect(hand.columns.map(({ memory }) => memory!.internal)).toEqual([7596, 7596, 7384, 15076, 7596]);
      // 1, 1 and 4 pages, and one for the descriptor of the cache; at the end one box more and one block less.
      const { before, peak, end, rest, overhead } = hand.columns[3]!.memory!;
      expect([peak.pages, end.pages, rest.pages].map((pages) => pages - before.pages)).toEqual([7, 7, 1]);
      expect(overhead).toBeCloseTo((7 * 4096) / 9500, 4);
      stopped_replay("malloc", LSR, lsr);
    },
  );

  it("ends at Ctrl-C and leaves no worker", async () => {
    const said: string[] = [];
    const ctx = {
      cancelled: false,
      progress(text: string) {
        said.push(text);
        ctx.cancelled = said.length > 1;
      },
    };
    const workload = parse_workload("fork-storm:100000");
    const request = { workload, configs: default_configs(), machine: TEST_MACHINE, seed: 1, append: "", copies: 1, timing: false, idle: 0 }; // prettier-ignore
    await expect(compare_all(ctx as unknown as Context, [request])).rejects.toThrow("compare: cancelled");
    expect(said[0]).toBe("compare: 0 of 1; fork-storm:100000 on test, survey");
  });

  it("refuses what makes no sense in one line, and runs nothing", async () => {
    const lines = [
      "compare", "compare nosuch", "compare fork-storm slib", "compare fork-storm --machine moon",
      "compare fork-storm --fast", "compare fork-storm --idle 0", "compare --claims /nowhere", "compare --claims a b",
    ]; // prettier-ignore
    const { out, err, failed } = await console_run(lines);
    expect({ out, failed }).toEqual({ out: "", failed: true });
    expect(err.trim().split("\n")).toEqual([
      expect.stringMatching(/^usage: compare WORKLOAD/),
      expect.stringMatching(/^compare: nosuch: no such file/),
      expect.stringMatching(/^compare: slib: no allocator/),
      "compare: --machine moon: there are textbook, laptop, server, embedded",
      expect.stringMatching(/^compare: no option --fast; usage/),
      'compare: --idle: "0" given, 1 to 3600 allowed',
      expect.stringMatching(
        /^compare: \/nowhere\/traces\/fork-shell\.trace\.gz: no such file.*compare --claims FOLDER$/,
      ),
      "usage: compare --claims [FOLDER]",
    ]);
  });
});
