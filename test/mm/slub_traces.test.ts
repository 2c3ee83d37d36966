/** Step traces read off a real 6.18 kernel: every column at every step, as /sys/kernel/slab shows it. */
import { expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { list_next } from "../../kernel/lib/list.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { Slab } from "../../mm/page.ts";
import {
  KmemCache, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_shrink, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { cache_cpus, cache_nodes } from "../../mm/slub_cache.ts";
import { partial_next, partial_slabs } from "../../mm/slub.ts";
import { KmemCacheCpu, KmemCacheNode, for_each_slab, slab_inuse } from "../../mm/slub_slab.ts";
import { text_of, with_files } from "../kernel/fs/files.ts";
import { counters } from "./slab_counters.ts";

function machine(cpus: number): MachineSpec {
  const made = machine_from_options({ mem: "40M", nodes: "1", cpus: String(cpus) });
  if (typeof made === "string") throw new Error(made);
  return { ...made, append: PRESETS.textbook!.append };
}

const COLUMNS = ["slabs", "total_objects", "objects", "partial", "objects_partial", "cpu_slabs"];
/** The columns of both tables, from the files of a cache on a machine of one node. */
function columns(name: string): string {
  const cells = COLUMNS.map((file) => {
    const text = text_of(`/sys/kernel/slab/${name}/${file}`);
    const [, total, on_node] = /^(\d+)(?: N0=(\d+))?\n$/.exec(text)!;
    expect(on_node ?? "0").toBe(total);
    return total;
  });
  return cells.join(" ");
}

/** A cache's slabs by number, in order of birth, on its lists: `8,7,6 | 2:15 1:15`. */
function slab_lists(cache: CachePtr, names: Map<number, number>): string {
  const [[, n]] = [...cache_nodes(cache)] as [[number, number]];
  for (const slab of for_each_slab(n)) if (!names.has(slab)) names.set(slab, names.size);
  const on_cpus: number[] = [];
  for (const [, c] of cache_cpus(cache))
    for (let slab = KmemCacheCpu.partial.get(c); slab !== NULL; slab = partial_next(slab))
      on_cpus.push(names.get(slab)!);
  const on_node: string[] = [];
  const head = KmemCacheNode.partial.at(n);
  for (let node = list_next(head); node !== head; node = list_next(node)) {
    const slab = node - Slab.slab_list.offset;
    on_node.push(`${names.get(slab)}:${slab_inuse(slab)}`);
  }
  return `${on_cpus.join(",") || "-"} | ${on_node.join(" ") || "-"}`;
}

// step | slabs total objects partial objects_partial cpu_slabs | CPU partial | node partial (slab:inuse), head first
const TRACE_A = `
allocate 160          | 10 160 160 0 0 1  | -     | -
first of each         | 10 160 154 6 90 4 | 8,7,6 | 2:15 1:15 0:15 5:15 4:15 3:15
the rest              | 8 128 64 4 0 4    | 8,7,6 | 2:0 5:0 4:0 3:0
the CPU slab          | 8 128 64 4 0 4    | 8,7,6 | 2:0 5:0 4:0 3:0
allocate 20           | 8 128 64 4 0 3    | 7,6   | 2:0 5:0 4:0 3:0
instead free the 20   | 8 128 64 4 0 4    | 9,7,6 | 2:0 5:0 4:0 3:0
shrink                | 2 32 20 1 4 0     | -     | 8:4
free the 20           | 2 32 16 1 0 0     | 9     | 8:0
shrink again          | 0 0 0 0 0 0       | -     | -`;

/** The steps up to the 20 objects, then `ending`: a row after each. */
function trace_a(cache: CachePtr, ending: "shrink" | "free", before_last: () => void): string[] {
  const names = new Map<number, number>();
  const rows: string[] = [];
  const row = (step: string): void => void rows.push(`${step} | ${columns("trace_a")} | ${slab_lists(cache, names)}`);
  const take = (count: number): Obj[] => Array.from({ length: count }, () => kmem_cache_alloc(cache, GFP_KERNEL));
  const give = (objects: readonly Obj[]): void => objects.forEach((object) => kmem_cache_free(cache, object));
  const live = take(160);
  row("allocate 160");
  const others = live.slice(0, 144);
  give(others.filter((_, i) => i % 16 === 0));
  row("first of each");
  give(others.filter((_, i) => i % 16 !== 0));
  row("the rest");
  give(live.slice(144));
  row("the CPU slab");
  const twenty = take(20);
  expect(twenty.slice(0, 16)).toEqual(live.slice(144).reverse());
  row("allocate 20");
  if (ending === "shrink") {
    kmem_cache_shrink(cache);
    row("shrink");
  }
  give(twenty);
  row(ending === "shrink" ? "free the 20" : "instead free the 20");
  if (ending === "free") return rows;
  before_last();
  expect(kmem_cache_shrink(cache)).toBe(0);
  row("shrink again");
  return rows;
}

const OPTIONS = [
  "",
  "slab_freelist_random=on",
  "slab_full=off",
  "slab_freelist_hardened=on",
  "slab_freelist_random=on slab_freelist_hardened=on slab_full=off",
];

for (const append of OPTIONS)
  it(`trace A: 160 objects come and go on CPU 0 (${append || "defaults"})`, () => {
    with_files(
      () => {
        const wanted = TRACE_A.trim()
          .split("\n")
          .map((line) => line.replace(/ +/g, " ").trim());
        const without = (steps: RegExp): string[] => wanted.filter((line) => !steps.test(line));
        const cache = kmem_cache_create("trace_a", 1024, 0, SLAB_NO_MERGE, null);
        expect([KmemCache.min_partial.get(cache), KmemCache.cpu_partial_slabs.get(cache)]).toEqual([5, 3]);
        const rows = trace_a(cache, "shrink", () =>
          expect(counters(cache)).toEqual({
            alloc_fastpath: 169, alloc_slowpath: 11, alloc_slab: 10, deactivate_bypass: 10, free_fastpath: 16,
            free_slowpath: 164, cpu_partial_free: 10, cpu_partial_drain: 2, free_add_partial: 6, free_remove_partial: 2,
            free_slab: 4, cpu_partial_alloc: 1, cpuslab_flush: 1, deactivate_to_head: 1, deactivate_empty: 2,
          }),
        ); // prettier-ignore
        expect(rows).toEqual(without(/^instead/));
        expect(trace_a(cache, "free", () => {})).toEqual(without(/^shrink|^free/));
        kmem_cache_destroy(cache);
      },
      { machine: machine(2), append },
    );
  });

// t live slabs total_objects objects partial objects_partial cpu_slabs, slabs on CPU 0's and CPU 1's partial lists
const TRACE_B = `
256 96 7 112 112 0 0 3 1 0
512 62 7 112 112 0 0 7 3 2
768 222 15 240 240 0 0 5 1 2
1024 130 16 256 230 2 6 14 7 5
1280 234 17 272 272 0 0 10 3 5
1536 210 17 272 217 7 57 5 1 2
1792 362 24 384 384 0 0 6 3 1
2048 254 24 384 317 9 77 13 4 7
2304 358 24 384 384 0 0 6 3 1
2560 316 25 400 343 13 151 8 5 1
2816 480 31 496 496 0 0 5 0 3
3072 360 31 496 369 23 241 7 3 2
3328 456 31 496 496 0 0 8 1 5
3584 388 31 496 423 15 167 10 5 3
3840 546 35 560 560 0 0 5 0 3
4096 402 35 560 435 23 243 11 2 7`;

for (const append of OPTIONS)
  it(`trace B: 4096 random operations on two CPUs (${append || "defaults"})`, () => {
    with_files(
      () => {
        const cache = kmem_cache_create("trace_b", 512, 0, SLAB_NO_MERGE, null);
        let x = 1;
        const draw = (): number => {
          x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
          return x >>> 16;
        };
        let cpu = 0;
        const live: Obj[] = [];
        const rows: string[] = [];
        for (let t = 1; t <= 4096; t++) {
          if (draw() < 6554) cpu = draw() & 1;
          const b = draw();
          const p = [45875, 26214, 52429, 19661][Math.floor((t - 1) / 256) % 4]!;
          if (live.length === 0 || (b < p && live.length < 900))
            live.push(on_cpu(cpu, () => kmem_cache_alloc(cache, GFP_KERNEL)));
          else {
            const i = draw() % live.length;
            on_cpu(cpu, () => kmem_cache_free(cache, live[i]!));
            live[i] = live[live.length - 1]!;
            live.pop();
          }
          if (t % 256) continue;
          const lists = [...cache_cpus(cache)].map(([, c]) => {
            const list = KmemCacheCpu.partial.get(c);
            return list === NULL ? 0 : partial_slabs(list);
          });
          rows.push([t, live.length, columns("trace_b"), ...lists].join(" "));
        }
        expect(rows.join("\n")).toBe(TRACE_B.trim());
        expect(counters(cache)).toEqual({
          alloc_fastpath: 1593, alloc_slowpath: 656, alloc_slab: 35, alloc_refill: 53, deactivate_bypass: 601,
          alloc_from_partial: 31, cpu_partial_alloc: 537, cpu_partial_node: 114, cpu_partial_free: 600,
          cpu_partial_drain: 24, free_fastpath: 123, free_slowpath: 1724, free_frozen: 109, free_add_partial: 168,
        }); // prettier-ignore
        for (const object of live) kmem_cache_free(cache, object);
        kmem_cache_destroy(cache);
      },
      { machine: machine(2), append },
    );
  });
