/** A machine whose slab allocator is SLOB: it boots everywhere, replays recordings, and its console tells of pages and blocks. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { PRESETS } from "../../hal/machine.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { open_mode, run_slice } from "../../boot/replay/modes.ts";
import { kernel_ops, type ReplayOps } from "../../boot/replay/ops.ts";
import { replay_figures } from "../../boot/replay/report.ts";
import { boot, power_off } from "../../boot/start_kernel.ts";
import { slab_ops } from "../../mm/slab_common.ts";
import { slob_data } from "../../mm/slob.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { answer, console_run } from "./run.ts";

const slob = { append: "slab=slob" };

it.each(Object.values(PRESETS))("boots $name and powers it off with nothing left over", (machine) => {
  boot({ machine, append: "slab=slob", loglevel: 0 });
  expect([slab_ops().name, validate_mm()]).toEqual(["slob", []]);
  expect(power_off()).toEqual({ pages: 0, objects: 0, locks: 0, details: [] });
});

describe("the console", () => {
  it("slab small draws pages in the order in which they are searched, block by block", async () => {
    const lines = ["kmalloc 3000", "kmalloc 3000", "kmalloc 900", "slab large", "kmalloc 1000", "slab large"];
    const { out, err } = await console_run(lines, slob);
    expect(err).toBe("");
    const figures = out.split(/^large .*$/m).slice(1);
    const rows = figures.map((text) => [...text.matchAll(/^ {2}([A-Z]+) +node \d +(\w+) +(\d+) of 2048 units free +(.*)\n +([#.+]{64})$/gm)].map((row) => row.slice(1))); // prettier-ignore
    const [first, second] = rows as [string[][], string[][]];
    const newest = first[0]!;
    expect(newest.slice(2)).toEqual([
      "544",
      "3008+1088",
      "###############################################" + ".................",
    ]);
    // 1000 bytes are of the medium list, 1008 with the header; so the large pages are as they were.
    expect(second).toEqual(first);
  });

  it("slab NAME says where the objects of a cache lie, and as JSON", async () => {
    const { out } = await console_run(["slab dentry", "slab task_struct"], { ...slob, json: true });
    const [dentry, task] = out
      .split("\n")
      .map((text) => (text === "" ? {} : (JSON.parse(text) as Record<string, unknown>)));
    expect(dentry).toMatchObject({ name: "dentry", list: "small", objects: { size: 192, align: 8 } });
    const { order, slabs } = dentry as {
      order: string[];
      slabs: { id: string; on: string; units: number; free: number[][] }[];
    };
    expect([...order].sort()).toEqual(slabs.filter(({ on }) => on === "small").map(({ id }) => id).sort()); // prettier-ignore
    for (const { units, free } of slabs) expect(free.reduce((sum, [, bytes]) => sum + bytes!, 0)).toBe(2 * units);
    expect(task).toMatchObject({ name: "task_struct", list: "medium" });
  });

  it("what SLOB does not keep is one clear line", async () => {
    const lines = ["slabtop", "vmstat -m", "slabinfo", "slab dentry --watch ls /", "tour", "cat /proc/slabinfo", "ls /sys/kernel/slab", "slab tiny"]; // prettier-ignore
    const { out, err } = await console_run(lines, slob);
    expect(out).toBe("");
    expect(err.trimEnd().split("\n")).toHaveLength(lines.length);
    expect(err).toContain("slabtop: SLOB keeps no /proc/slabinfo; slab small|medium|large shows its pages\n");
    expect(err).toContain("cat: /proc/slabinfo: No such file or directory\n");
  });

  it("explain knows a block that the console holds, a free one, and that SLOB knows no more", async () => {
    const { out } = await console_run(["kmalloc 100", "kmem create mine 40", "kmem alloc mine"], slob);
    const [block, , object] = out.split("\n") as [string, string, string];
    const inside = (address: string, by: number): string => `ffff8880${(parseInt(address.slice(8), 16) + by).toString(16).padStart(8, "0")}`; // prettier-ignore
    const lines = [
      "kmalloc 100", "kmem create mine 40", "kmem alloc mine", `explain ${block}`, `explain ${inside(object, 39)}`, `explain ${inside(block, -8)}`,
      `ksize ${block}`, `ksize ${object}`, `kfree ${object}`, `kfree ${inside(block, 2)}`, `kfree ${block}`, `kfree ${block}`, `kmem free mine ${object}`,
    ]; // prettier-ignore
    const { out: said, err } = await console_run(lines, slob);
    expect(said.match(/^block    (?!order).*$/gm)).toEqual([
      "block    a block of kmalloc of 100 bytes: its first byte",
      "block    an object of mine: byte 39",
      "block    a block in use; SLOB keeps no note of whose, or where it begins",
    ]);
    expect(err.split("\n").slice(0, 4)).toEqual([
      `ksize: ${object} is an object of mine`,
      `kfree: ${object} is an object of mine`,
      `kfree: ${inside(block, 2)} points 2 bytes into a block of kmalloc of 100 bytes`,
      expect.stringMatching(`^kfree: ${block} points \\d+ bytes into a free block of \\d+ bytes$`),
    ]);
  });

  it("nothing is left over where objects lie in other pages than at first", async () => {
    const { err, failed } = await console_run(["kill crond syslogd getty", "run 20", "vmalloc 20000"], slob);
    expect({ err, failed }).toEqual({ err: "", failed: false });
  });

  it("frag measures blocks, and what all pages hold adds up", async () => {
    const text = await answer("frag 100", slob);
    expect(text).toMatch(/^ +100 +4096 +3996 +97\.6 % +108 +8 +7\.4 % +a block$/m);
    const shares = [...text.matchAll(/([\d.]+) %/g)].slice(2).map(([, share]) => Number(share));
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(100, 0);
  });
});

describe("replays", () => {
  const path_of = (name: string): string => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
  const replay = (name: string, mode: "objects" | "malloc", ops: ReplayOps = kernel_ops) => {
    const file = path_of(name);
    const run = open_mode(mode, file, read_trace_file(file), ops);
    while (run_slice(run, 40_000, Infinity)) expect(validate_mm()).toEqual([]);
    run.books.finish();
    const figures = replay_figures(run, 0);
    run.books.release();
    return figures;
  };

  it.each(["fork-shell"])("%s: every object has its place, and the counts are the recording's", (name) => {
    with_machine({ ...slob, machine: PRESETS.textbook! }, () => {
      const figures = replay(`traces/${name}.trace.gz`, "objects");
      const { totals } = JSON.parse(readFileSync(path_of(`traces/${name}.truth.json`), "utf8")) as {
        totals: Record<string, number>;
      };
      const { peak_live_objects, end_live_objects, peak_live_bytes_req } = totals;
      expect(figures).toMatchObject({
        allocator: "slob",
        failed: 0,
        peak_live_objects,
        end_live_objects,
        peak_live_bytes_req,
      });
      expect(figures.overhead).toBeLessThan(1.3);
    });
  });

  it.each(["sqlite", "perl", "tarx", "lsr"])(
    "A137 A139 %s: aligned to 8, never overlapping, and all pages back",
    (name) => {
      with_machine({ ...slob, machine: PRESETS.textbook! }, () => {
        const pages = slob_data.nr_pages;
        const aligned = (object: number): number => {
          expect(object % 8).toBe(0);
          return object;
        };
        const figures = replay(`malloclab/${name}.rep.gz`, "malloc", {
          ...kernel_ops,
          kmalloc_node: (size, gfp, node) => aligned(kernel_ops.kmalloc_node(size, gfp, node)),
          krealloc: (object, size, gfp) => aligned(kernel_ops.krealloc(object, size, gfp)),
        });
        expect(figures).toMatchObject({ failed: 0 });
        expect(slob_data.nr_pages).toBe(pages);
      });
    },
  );
});
