/** Replays of recorded heaps on a real machine: against the truth beside them, and with a kernel that is broken. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { NULL, PAGE_SIZE, px, parse_px, type Obj } from "../../hal/addr.ts";
import { MIB, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ram32 } from "../../hal/ram.ts";
import { ZERO_SIZE_PTR, kmalloc } from "../../mm/kmalloc.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { Slab, page_address, page_is_slab, virt_to_head_page, type PagePtr } from "../../mm/page.ts";
import {
  KmemCache,
  for_each_cache,
  get_slabinfo,
  kmem_cache_alloc_node,
  kmem_cache_free,
} from "../../mm/slab_common.ts";
import { PGFREE, count_vm_events } from "../../mm/vmstat.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { Heap } from "../../boot/replay/heap.ts";
import { page_counters } from "../../boot/replay/measure.ts";
import { list_live, open_mode, run_slice, type Mode } from "../../boot/replay/modes.ts";
import { kernel_ops, type ReplayOps } from "../../boot/replay/ops.ts";
import { replay_figures, replay_text, type Figures } from "../../boot/replay/report.ts";
import { with_machine } from "../lib/machine.ts";

function machine(options: { mem: string; nodes: string; cpus: string }): MachineSpec {
  const spec = machine_from_options(options);
  if (typeof spec === "string") throw new Error(spec);
  return spec;
}
/** As the recorded one. */
const RECORDED = machine({ mem: "64M", nodes: "1", cpus: "2" });

interface CacheTruth {
  allocs: number;
  frees: number;
  implied_frees: number;
  end_live: number;
  peak_live: number;
  sum_bytes_req: number;
  sum_bytes_alloc: number;
  peak_live_bytes_req: number;
  geometry: { object_size: number; slab_size: number; objs_per_slab: number; order: number; align: number };
}
interface Truth {
  lines: number;
  ops: Record<string, number>;
  totals: Record<string, number>;
  pages: { peak_live_pages: number; end_live_pages: number };
  per_cache: Record<string, CacheTruth>;
}
const TRACES = ["fork-shell", "fs-walk"] as const;
const path_of = (name: string): string => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
function truth_of(name: string): Truth {
  const truth = JSON.parse(readFileSync(path_of(`traces/${name}.truth.json`), "utf8")) as Truth;
  const { peak_live_pages, end_live_pages } = truth.pages;
  return { ...truth, pages: { peak_live_pages, end_live_pages } };
}

function open(mode: Mode["name"], name: string, ops: ReplayOps = kernel_ops): Mode {
  return open_mode(mode, name, read_trace_file(path_of(name)), ops);
}

function open_text(mode: Mode["name"], text: string, ops: ReplayOps = kernel_ops): Mode {
  return open_mode(mode, "t", Buffer.from(text), ops);
}

function heap_of({ books }: Mode): Heap {
  if (books instanceof Heap) return books;
  throw new Error("no heap is replayed");
}

/** Runs to the end (or to an event line), checks what lives, takes the figures, frees everything. */
function play(mode: Mode, stop = Infinity): Figures {
  try {
    while (run_slice(mode, 4096, stop));
    mode.books.finish();
    return replay_figures(mode, 0);
  } finally {
    mode.books.release();
  }
}

/** The part of our figures that a truth file has. */
function known_part(figures: Figures) {
  const { ops, failed, per_cache } = figures;
  const caches = Object.entries(per_cache).map(([name, { peak_slabs: _, ...rest }]) => [name, rest]);
  return { ops, failed, per_cache: Object.fromEntries(caches) as Record<string, CacheTruth> };
}

function known_truth({ ops, per_cache }: Truth) {
  const caches = Object.entries(per_cache).map(([name, cache]) => {
    const { distinct_slabs: _a, peak_slabs_with_live: _b, ...rest } = cache as CacheTruth & Record<string, number>;
    return [name, rest];
  });
  return { ops, failed: 0, per_cache: Object.fromEntries(caches) as Record<string, CacheTruth> };
}

describe.each(TRACES)("the recording %s", (name) => {
  const truth = truth_of(name);
  const file = `traces/${name}.trace.gz`;

  it("replayed by objects gives every figure of the truth, geometry included", () => {
    with_machine({ machine: RECORDED }, () => {
      const figures = play(open("objects", file));
      expect(known_part(figures)).toEqual(known_truth(truth));
      expect(figures).toMatchObject({
        ...truth.totals,
        events: truth.lines,
        trace: `${name}.trace.gz`,
        mode: "objects",
      });
      const given = figures.peak_live_bytes_alloc;
      expect(figures.peak_slab_pages * 4096).toBeGreaterThanOrEqual(given);
      expect(figures.overhead).toBeCloseTo((figures.peak_slab_pages * 4096) / figures.peak_live_bytes_req, 4);
    });
  });

  it("under SLAB counts and bytes asked are the same; its smallest class is 32, and slots are its own", () => {
    with_machine({ machine: RECORDED, append: "slab=slab" }, () => {
      const figures = play(open("objects", file));
      const counts = ({ allocs, frees, implied_frees, end_live, sum_bytes_req }: CacheTruth): number[] =>
        [allocs, frees, implied_frees, end_live, sum_bytes_req]; // prettier-ignore
      const wanted = new Map<string, number[]>();
      for (const [cache, truth_of_cache] of Object.entries(truth.per_cache)) {
        const served_by = /^kmalloc-(8|16)$/.test(cache) ? "kmalloc-32" : cache;
        const before = wanted.get(served_by);
        wanted.set(served_by, counts(truth_of_cache).map((count, i) => count + (before?.[i] ?? 0))); // prettier-ignore
      }
      const found = Object.entries(figures.per_cache).map(([cache, books]) => [cache, counts(books)]);
      expect(Object.fromEntries(found)).toEqual(Object.fromEntries(wanted));
      const totals = Object.entries(truth.totals).filter(([name]) => !name.includes("bytes_alloc"));
      expect(figures).toMatchObject({
        ...Object.fromEntries(totals),
        events: truth.lines,
        failed: 0,
        allocator: "slab",
      });
      for (const { geometry, allocs, sum_bytes_alloc } of Object.values(figures.per_cache))
        expect(sum_bytes_alloc).toBe(allocs * geometry.slab_size);
      expect(play(open("pages", file))).toMatchObject(truth.pages);
    });
  });

  it("replayed by pages gives every figure of the truth", () => {
    with_machine({ machine: RECORDED }, () => {
      const figures = play(open("pages", file));
      expect(figures).toMatchObject({ ...truth.pages, ops: truth.ops, failed: 0, mode: "pages" });
    });
  });

  it("gives the same counts and bytes on another machine and with random, hardened free lists", () => {
    const bare = (caches: Record<string, CacheTruth>) =>
      Object.fromEntries(Object.entries(caches).map(([cache, { geometry: _, ...rest }]) => [cache, rest]));
    const append = "slab_freelist_random=on slab_freelist_hardened=on slab_full=off";
    with_machine({ machine: machine({ mem: "128M", nodes: "2", cpus: "4" }), append }, () => {
      const figures = play(open("objects", file));
      expect(bare(known_part(figures).per_cache)).toEqual(bare(known_truth(truth).per_cache));
      expect(figures).toMatchObject(truth.totals);
      expect(play(open("pages", file))).toMatchObject(truth.pages);
    });
  });
});

/** 20 event lines, seeded, in rising order. */
function moments(lines: number): number[] {
  let x = 20260;
  const found = Array.from({ length: 20 }, () => 1 + ((x = (Math.imul(x, 1103515245) + 12345) >>> 0) % lines));
  return found.sort((a, b) => a - b);
}

function slab_pages_by_cache(): Map<number, number> {
  const pages = new Map<number, number>();
  for (const cache of for_each_cache()) {
    const { num_slabs, cache_order } = get_slabinfo(cache);
    pages.set(cache, num_slabs << cache_order);
  }
  return pages;
}

function expect_apart(ranges: [start: number, end: number][]): void {
  ranges.sort(([a], [b]) => a - b);
  for (let i = 1; i < ranges.length; i++)
    if (ranges[i]![0] < ranges[i - 1]![1]) throw new Error(`${px(ranges[i]![0])} overlaps its neighbour`);
}

/** Words of the pattern at an address; -1 at the first that is another's. */
function pattern_words(address: Obj, bytes: number, number: number): number {
  let words = 0;
  for (let at = address; at + 8 <= address + bytes; at += 8, words++)
    if (ram32[at >> 2] !== number + 1 || ram32[(at >> 2) + 1] !== 0) return -1;
  return words;
}

describe.each(TRACES)("%s, stopped at 20 moments", (name) => {
  const truth = truth_of(name);
  const file = `traces/${name}.trace.gz`;

  it("has every listed object in a slab of its cache, on its stride, apart and with its pattern", () => {
    with_machine({ machine: RECORDED }, () => {
      const before = { free: page_counters().free, slabs: slab_pages_by_cache() };
      const mode = open("objects", file);
      for (const stop of moments(truth.lines)) {
        while (run_slice(mode, 4096, stop));
        expect(mode.reader.events).toBe(stop - 1);
        const listed = list_live(mode);
        expect(listed.length).toBe(heap_of(mode).blocks.size);
        const ranges: [number, number][] = [];
        for (const [number, address, where] of listed) {
          const ptr = parse_px(address);
          const { slab_size, object_size } = truth.per_cache[where]!.geometry;
          const head = virt_to_head_page(ptr);
          const cache = Slab.slab_cache.get(head as Obj);
          const wrong = [
            page_is_slab(head) ? "" : "in no slab",
            KmemCache.name.get(cache).replace(/^.*kmalloc-(cg-|rcl-)?|k$/g, "") ? "" : "in no cache",
            (ptr - page_address(head)) % slab_size === 0 ? "" : "off its stride",
            KmemCache.size.get(cache) === slab_size ? "" : "in another slot",
            pattern_words(ptr, object_size, number) === object_size >> 3 ? "" : "without its pattern",
          ].join("");
          if (wrong) throw new Error(`object ${number} of ${where} at ${address}: ${wrong}`);
          ranges.push([ptr, ptr + slab_size]);
        }
        expect_apart(ranges);
        let rise = 0;
        for (const [cache, pages] of slab_pages_by_cache()) rise += pages - (before.slabs.get(cache) ?? 0);
        expect(before.free - page_counters().free).toBe(rise);
      }
      mode.books.finish();
      mode.books.release();
    });
  });

  it("has every listed block in RAM, aligned, apart and with its pattern in each page", () => {
    with_machine({ machine: RECORDED }, () => {
      const free = page_counters().free;
      const mode = open("pages", file);
      for (const stop of moments(truth.lines)) {
        while (run_slice(mode, 4096, stop));
        const ranges: [number, number][] = [];
        let pages = 0;
        for (const [number, address, where] of list_live(mode)) {
          const bytes = 4096 << Number(where);
          const ptr = parse_px(address);
          for (let at = ptr; at < ptr + bytes; at += 4096)
            if (pattern_words(at, 8, number) !== 1 || ptr % bytes !== 0)
              throw new Error(`block ${number} at ${address}`);
          ranges.push([ptr, ptr + bytes]);
          pages += 1 << Number(where);
        }
        expect_apart(ranges);
        expect(free - page_counters().free).toBe(pages);
      }
      mode.books.release();
    });
  });
});

describe("a replay of a small trace", () => {
  const HEADER = [
    "#kheap-trace 1", "#cpus 2", "#nodes 1", "#cache 0 filp 184 192", "#cache 1 dentry 192 192",
    "#gfp 0 GFP_KERNEL", "#gfp 1 GFP_KERNEL_ACCOUNT", "#gfp 2 GFP_KERNEL|GFP_DMA", "#gfp 3 GFP_KERNEL|__GFP_RECLAIMABLE",
    "#gfp 4 GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP", "#site 0 somewhere",
  ]; // prettier-ignore
  const text = (...lines: string[]): string => [...HEADER, ...lines, ""].join("\n");

  it("counts the kinds of kmalloc of one size together", () => {
    with_machine({}, () => {
      const lines = [0, 1, 2, 3].map((gfp) => `k 0 0 0n ${gfp} 60 64 ${gfp} -1 0`);
      const figures = play(open_text("objects", text(...lines, "f 1 0 0n 2 0", "x 3")));
      expect(Object.keys(figures.per_cache)).toEqual(["kmalloc-64"]);
      expect(figures.per_cache["kmalloc-64"]).toMatchObject({
        allocs: 4, frees: 1, implied_frees: 1, end_live: 2, peak_live: 4, sum_bytes_req: 240, sum_bytes_alloc: 256,
        peak_live_bytes_req: 240, peak_slabs: 4,
      }); // prettier-ignore
    });
  });

  it("serves more than 8192 bytes from pages, and takes a cache's object through kfree", () => {
    with_machine({}, () => {
      const lines = ["k 0 0 0n 0 9000 12288 0 -1 0", "c 1 0 0n 1 0 0 -1 0", "f 1 0 0n 1 0"];
      expect(() => play(open_text("objects", text(...lines)))).toThrow(
        /^t:12: object 0 of kmalloc-16384 was given 16384/,
      );
      const figures = play(open_text("objects", text(lines[0]!.replace("12288", "16384"), ...lines.slice(1))));
      expect(figures.per_cache["kmalloc-16384"]).toMatchObject({ allocs: 1, peak_slabs: 1, geometry: { order: 2 } });
      expect(figures.per_cache["filp"]).toMatchObject({ allocs: 1, frees: 1, end_live: 0, peak_live: 1 });
      expect(figures).toMatchObject({ peak_live_bytes_req: 9184, peak_live_bytes_alloc: 16576 });
    });
  });

  it("takes blocks back in parts, and lists the pieces that are left", () => {
    with_machine({}, () => {
      const mode = open_text("pages", text("p 0 0 0n 0 3 1 4", "q 1 0 0n 0 5 1", "y 0 0 2", "p 0 0 0n 1 0 1 4"));
      while (run_slice(mode, 4096, Infinity));
      mode.books.finish();
      const start = parse_px(list_live(mode)[0]![1]) - 2 * 4096;
      const shown = list_live(mode).map(([number, address, where]) => [
        number,
        (parse_px(address) - start) >> 12,
        where,
      ]);
      expect(shown.slice(0, 3)).toEqual([[0, 2, 1], [0, 4, 0], [0, 6, 1]]); // prettier-ignore
      expect(shown[3]![0]).toBe(1);
      expect(replay_figures(mode, 0)).toMatchObject({ peak_live_pages: 8, end_live_pages: 6 });
      mode.books.release();
    });
  });

  it("runs each event on its CPU and node, and on CPUs and nodes that are not there on the command's", () => {
    with_machine({}, () => {
      const mode = open_text(
        "objects",
        text("c 1 0 0n 0 0 0 -1 0", "c 0 0 0n 1 0 0 -1 0").replace("#nodes 1", "#nodes 9"),
      );
      while (run_slice(mode, 4096, Infinity));
      const nodes = list_live(mode).map(([, address]) => (parse_px(address) >= 32 << 20 ? 1 : 0));
      expect(nodes).toEqual([1, 0]); // each CPU's own node
      mode.books.release();
      const far = text("c 7 0 0n 0 0 0 8 0", "d 7 0 0n 0 0")
        .replace("#cpus 2", "#cpus 8")
        .replace("#nodes 1", "#nodes 9");
      expect(play(open_text("objects", far)).per_cache["filp"]).toMatchObject({ allocs: 1, frees: 1 });
    });
  });

  it("says how many allocations failed, and goes on", () => {
    const small = machine({ mem: "8M", nodes: "1", cpus: "1" });
    with_machine({ machine: small }, () => {
      const pages = play(open("pages", "traces/fs-walk.trace.gz"));
      expect(pages.failed).toBeGreaterThan(100);
      expect(pages.peak_live_pages).toBeLessThan(2048);
      const objects = play(open("objects", "traces/fs-walk.trace.gz"));
      expect(objects.failed).toBeGreaterThan(100);
      const { allocs, frees, implied_frees, end_live } = objects.per_cache["ext4_inode_cache"]!;
      expect(allocs).toBeLessThan(6050);
      expect(allocs - frees - implied_frees).toBe(end_live);
    });
    with_machine({ append: "failslab=100,50,0,-1", machine: RECORDED }, () => {
      const objects = play(open("objects", "traces/fork-shell.trace.gz"));
      expect(objects.failed).toBeGreaterThan(10);
      const { allocs, frees, end_live } = objects.per_cache["vm_area_struct"]!;
      expect(allocs - frees).toBe(end_live);
    });
  });

  it("frees what it held after a malformed line, in every mode", () => {
    with_machine({}, () => {
      const lines = [
        "k 0 0 0n 0 60 64 0 -1 0",
        "c 1 0 0n 1 1 0 -1 0",
        "p 0 0 0n 0 3 1 4",
        "q 0 0 0n 0 2 2",
        "d 0 0 0n 9 0",
      ];
      for (const mode of ["objects", "pages"] as const)
        expect(() => play(open_text(mode, text(...lines)))).toThrow("t:16: object 9 was never allocated");
      expect(() => play(open_text("malloc", "1\n1\n1\n1\na 0 99999\na 1 0\na 2 20\nf 5\n"))).toThrow(
        "t:8: block 5 is not live",
      );
    });
  });

  it("fits its table into 80 columns", () => {
    with_machine({}, () => {
      const mode = open("objects", "traces/fs-walk.trace.gz");
      while (run_slice(mode, 4096, Infinity));
      const shown = replay_text(mode, replay_figures(mode, 0), true).split("\n");
      expect(shown.filter((line) => line.length > 80)).toEqual([]);
      expect(shown).toHaveLength(6 + 2 + 42 + 1); // with a note: two CPUs, but two nodes
      mode.books.release();
    });
  });
});

describe("a kernel that is broken fails the replay, with file and line:", () => {
  const file = "traces/fork-shell.trace.gz";
  const text = gunzipSync(readFileSync(path_of(file))).toString("latin1").split("\n"); // prettier-ignore

  it("kmem_cache_free loses one object in 1,000", () => {
    with_machine({ machine: RECORDED }, () => {
      let calls = 0;
      const ops: ReplayOps = {
        ...kernel_ops,
        kmem_cache_free: (cache, object) => {
          if (++calls % 1000 !== 0) kmem_cache_free(cache, object);
        },
      };
      const mode = open("objects", file, ops);
      expect(() => play(mode)).toThrow(/trace\.gz:\d+: \w+ counted 0 frees for one, of object \d+$/);
      expect(text[mode.reader.line - 1]).toMatch(/^[dx] /); // the very line of the thousandth free
      expect(calls).toBeGreaterThanOrEqual(1000);
    });
  });

  it("kmem_cache_free counts, but loses one object in 1,000: found by the next walk", () => {
    with_machine({ machine: RECORDED }, () => {
      let calls = 0;
      let ended = false;
      const lost: [number, Obj][] = [];
      const ops: ReplayOps = {
        ...kernel_ops,
        kmem_cache_free: (cache, object) => {
          kmem_cache_free(cache, object);
          if (++calls % 1000 === 0 && !ended) lost.push([cache, kmem_cache_alloc_node(cache, GFP_KERNEL, -1)]);
        },
      };
      const mode = open("objects", file, ops);
      expect(() => {
        while (run_slice(mode, 4096, Infinity));
        mode.books.finish();
      }).toThrow(/trace\.gz:\d+: \w+: \d+ objects live by the trace, \d+ by a walk of its slabs$/);
      ended = true;
      for (const [cache, object] of lost) kmem_cache_free(cache, object);
      mode.books.release();
    });
  });

  it("kmem_cache_alloc hands out an object that is live", () => {
    with_machine({ machine: RECORDED }, () => {
      const last = new Map<number, Obj>();
      let calls = 0;
      const spare: [number, Obj][] = [];
      const ops: ReplayOps = {
        ...kernel_ops,
        kmem_cache_alloc_node: (cache, gfp, node) => {
          const object = kmem_cache_alloc_node(cache, gfp, node);
          const other = last.get(cache);
          last.set(cache, object);
          if (++calls !== 500 || other === undefined) return object;
          spare.push([cache, object]);
          return other;
        },
      };
      const mode = open("objects", file, ops);
      expect(() => {
        while (run_slice(mode, 4096, Infinity));
        mode.books.finish();
      }).toThrow(/object \d+ was written over by another, at byte 0$/);
      // One object stands twice in the books: it is freed once, the spare one in its place.
      const seen = new Set<Obj>();
      for (const [number, { ptr }] of [...heap_of(mode).blocks]) {
        if (seen.has(ptr)) heap_of(mode).blocks.delete(number);
        seen.add(ptr);
      }
      for (const [cache, object] of spare) kmem_cache_free(cache, object);
      mode.books.release();
    });
  });

  it("kmalloc hands out an object of a larger class", () => {
    with_machine({ machine: RECORDED }, () => {
      const ops: ReplayOps = { ...kernel_ops, kmalloc_node: (size, gfp) => kmalloc(size * 2, gfp) };
      expect(() => play(open("objects", file, ops))).toThrow(/:\d+: object \d+ is not in a slab of kmalloc-\d+$/);
    });
  });

  it("__free_pages forgets a page, uncounted or counted", () => {
    with_machine({ machine: RECORDED }, () => {
      const forget = (instead: () => void): ReplayOps => {
        let calls = 0;
        const free = (page: PagePtr, order: number): void =>
          ++calls === 100 ? instead() : kernel_ops.__free_pages(page, order);
        return { ...kernel_ops, __free_pages: free };
      };
      const uncounted = /:\d+: 0 pages in the counter of frees for 1 of block \d+$/;
      expect(() => play(open("pages", file, forget(() => {})))).toThrow(uncounted); // prettier-ignore
      const counted = /:\d+: the counter of frees moved by 1 for block \d+, the free pages by 0$/;
      expect(() => play(open("pages", file, forget(() => count_vm_events(PGFREE, 1))))).toThrow(counted); // prettier-ignore
    });
  });
});

describe("malloc traces", () => {
  interface RepTruth {
    file: string;
    ops: number;
    alloc: number;
    realloc: number;
    free: number;
    peak_live_blocks: number;
    peak_live_bytes: number;
    peak_live_bytes_kmalloc_classes: number;
    end_live_blocks: number;
    end_live_bytes: number;
  }
  const { recorded } = JSON.parse(readFileSync(path_of("malloclab/truth.json"), "utf8")) as { recorded: RepTruth[] };

  it.each(recorded)("$file gives the truth", (truth) => {
    with_machine({ machine: RECORDED }, () => {
      const mode = open("malloc", `malloclab/${truth.file}`);
      while (run_slice(mode, 4096, Infinity));
      mode.books.finish();
      expect(replay_figures(mode, 0)).toMatchObject({
        mode: "malloc",
        events: truth.ops,
        ops: { a: truth.alloc, r: truth.realloc, f: truth.free },
        failed: 0,
        peak_live_objects: truth.peak_live_blocks,
        end_live_objects: truth.end_live_blocks,
        peak_live_bytes_req: truth.peak_live_bytes,
        peak_live_bytes_alloc: truth.peak_live_bytes_kmalloc_classes,
      });
      expect(heap_of(mode).now.live_bytes_req).toBe(truth.end_live_bytes);
      mode.books.release();
    });
  });

  it("are read leniently: size 0, NULL, realloc of what is not live, growth over 8192 bytes and back", () => {
    with_machine({}, () => {
      const requests = "a 0 0|r 1 20|r 1 9000|r 1 70000|r 1 30|r 0 24|r 0 0|f 0|f -1|a 0 5000000|f 0|a 0 8|f 0|f 1";
      const figures = play(open_text("malloc", `0\r\n0\r\n0\r\n0\r\n${requests.replaceAll("|", "\r\n")}`));
      expect(figures).toMatchObject({
        ops: { a: 3, r: 6, f: 5 }, failed: 1, peak_live_objects: 2, end_live_objects: 0, peak_live_bytes_req: 70000,
      }); // prettier-ignore
    });
  });

  /** Random mallocs, reallocs and frees whose last lines free everything. */
  function balanced(seed: number, requests: number): string {
    let x = seed;
    const random = (below: number): number => ((x = (Math.imul(x, 1103515245) + 12345) >>> 0) >>> 8) % below;
    const lines = ["0", "0", "0", "0"];
    const live: number[] = [];
    for (let id = 0; lines.length < requests;) {
      const bytes = random(4) === 0 ? random(32768) : random(512);
      const at = random(live.length + 1);
      if (at < live.length && random(3) > 0)
        lines.push(random(2) ? `r ${live[at]} ${bytes}` : `f ${live.splice(at, 1)[0]}`);
      else {
        lines.push(`a ${id} ${bytes}`);
        live.push(id++);
      }
    }
    return [...lines, ...live.map((id) => `f ${id}`)].join("\n");
  }

  /** The shape of the classic pair traces: two sizes, every second block freed, then blocks of the sum of both. */
  function binary(small: number, large: number, pairs: number): string {
    const lines = ["0", "0", "0", "0"];
    for (let i = 0; i < pairs; i++) lines.push(`a ${2 * i} ${small}`, `a ${2 * i + 1} ${large}`);
    for (let i = 0; i < pairs; i++) lines.push(`f ${2 * i + 1}`);
    for (let i = 0; i < pairs; i++) lines.push(`a ${2 * pairs + i} ${small + large}`);
    for (let i = 0; i < pairs; i++) lines.push(`f ${2 * i}`, `f ${2 * pairs + i}`);
    return lines.join("\n");
  }

  it.each(["slub", "slab", "slob"])("A139 under %s balanced ones end with nothing live and every page back", (slab) => {
    const texts = [1, 2, 3].map((seed) => balanced(seed, 5000));
    for (const text of [...texts, binary(64, 448, 2000), binary(16, 112, 4000), binary(4095, 4095, 500)])
      with_machine({ append: `slab=${slab}` }, () => {
        expect(play(open_text("malloc", text))).toMatchObject({
          failed: 0,
          end_live_objects: 0,
          end_live_bytes_alloc: 0,
        });
      });
  });

  /** Every block as it is handed out: in RAM, aligned, apart from all that are live; all gone at the end. */
  function watch_blocks(file: string, align: number): number {
    const live = new Map<Obj, number>(); // start: bytes
    const taken = new Set<number>(); // 8-byte words of live blocks
    let births = 0;
    const born = (ptr: Obj, bytes: number): Obj => {
      if (ptr === NULL || ptr === ZERO_SIZE_PTR) return ptr;
      births++;
      if (ptr % (bytes >= 16 ? align : 8) !== 0 || ptr < PAGE_SIZE || ptr + bytes > 40 * MIB)
        throw new Error(`${bytes} bytes at ${px(ptr)}`);
      for (let at = ptr >> 3; at < (ptr + bytes + 7) >> 3; at++) {
        if (taken.has(at)) throw new Error(`${bytes} bytes at ${px(ptr)} overlap a live block`);
        taken.add(at);
      }
      live.set(ptr, bytes);
      return ptr;
    };
    const gone = (ptr: Obj): void => {
      for (let at = ptr >> 3; at < (ptr + (live.get(ptr) ?? 0) + 7) >> 3; at++) taken.delete(at);
      live.delete(ptr);
    };
    const mode = open("malloc", file, {
      ...kernel_ops,
      kmalloc_node: (size, gfp, node) => born(kernel_ops.kmalloc_node(size, gfp, node), size),
      krealloc(object, size, gfp) {
        const moved = kernel_ops.krealloc(object, size, gfp);
        if (moved === NULL) return NULL;
        gone(object);
        return born(moved, size);
      },
      kfree(object) {
        gone(object);
        kernel_ops.kfree(object);
      },
    });
    while (run_slice(mode, 4096, Infinity));
    mode.books.release();
    expect([live.size, taken.size]).toEqual([0, 0]);
    return births;
  }

  // Linux's SLOB aligns what is no power of two to 8 alone.
  it.each([
    ["slub", 16, recorded],
    ["slab", 16, recorded.slice(0, 2)],
    ["slob", 8, recorded.slice(0, 2)],
  ] as const)("A137 under %s every block is in RAM, aligned to 8, from 16 bytes on to %d, and apart from all others", (slab, align, files) => {
    for (const { file, alloc } of files)
      with_machine({ append: `slab=${slab}` }, () => expect(watch_blocks(`malloclab/${file}`, align)).toBeGreaterThanOrEqual(alloc));
  }); // prettier-ignore
});
