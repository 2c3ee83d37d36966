/**
 * Millions of hot operations, and the garbage collections that happened meanwhile: `node child.ts [PARAMETERS]`, those on
 * the kernel's command line, prints one line of JSON. The young generation is 1 MiB, so that half a byte an operation would be seen.
 */
import { PerformanceObserver, performance } from "node:perf_hooks";
import { setTimeout } from "node:timers/promises";
import { boot } from "../../boot/start_kernel.ts";
import { PRESETS } from "../../hal/machine.ts";
import { mmu_load32, mmu_store32 } from "../../hal/mmu.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { validate_mm } from "../../mm/validate.ts";
import { vmalloc } from "../../mm/vmalloc.ts";

export interface HotAnswer {
  name: string;
  operations: number;
  collections: number;
}

const OPERATIONS = 2_000_000;
const LIVE = 2000;

boot({ machine: PRESETS.textbook!, loglevel: 0, append: process.argv[2] ?? "" });
const cache = kmem_cache_create("hot", 192, 0, 0);
const slots = new Int32Array(LIVE);
const area = vmalloc(65536);
const load = mmu_load32;
const store = mmu_store32;

const workloads: Readonly<Record<string, (count: number) => void>> = {
  "a pair through a cache"(count) {
    for (let i = 0; i < count; i++) kmem_cache_free(cache, kmem_cache_alloc(cache, GFP_KERNEL));
  },
  "a pair through kmalloc"(count) {
    for (let i = 0; i < count; i++) kfree(kmalloc(64, GFP_KERNEL));
  },
  "a pair of pages"(count) {
    for (let i = 0; i < count; i++) __free_pages(alloc_pages(GFP_KERNEL, 0), 0);
  },
  "2,000 objects of a cache, taken and given back"(count) {
    for (let i = 0; i < count; i += LIVE) {
      for (let k = 0; k < LIVE; k++) slots[k] = kmem_cache_alloc(cache, GFP_KERNEL);
      for (let k = 0; k < LIVE; k++) kmem_cache_free(cache, slots[k]!);
    }
    slots.fill(0);
  },
  "2,000 blocks of kmalloc of all sizes, replaced in turn"(count) {
    for (let i = 0; i < count; i++) {
      const k = i % LIVE;
      if (slots[k] !== 0) kfree(slots[k]!);
      slots[k] = kmalloc(8 + (Math.imul(i, 2654435761) >>> 20), GFP_KERNEL);
    }
    for (let k = 0; k < LIVE; k++) {
      kfree(slots[k]!);
      slots[k] = 0;
    }
  },
  "2,000 pages, taken and given back"(count) {
    for (let i = 0; i < count; i += LIVE) {
      for (let k = 0; k < LIVE; k++) slots[k] = alloc_pages(GFP_KERNEL, 0);
      for (let k = 0; k < LIVE; k++) __free_pages(slots[k]!, 0);
    }
    slots.fill(0);
  },
  "words stored and loaded through the MMU, their pages in the TLB"(count) {
    for (let i = 0; i < count; i++) store(area + ((i * 68) & 0xfffc), load(area + ((i * 4) & 0xfffc)) ^ i);
  },
};

/** When collections began, in milliseconds of this process. */
const collections: number[] = [];
const observer = new PerformanceObserver((list) => {
  for (const { startTime } of list.getEntries()) collections.push(startTime);
});
observer.observe({ entryTypes: ["gc"] });

const answers: HotAnswer[] = [];
const bounds: [number, number][] = [];
for (const [name, run] of Object.entries(workloads)) {
  for (let i = 0; i < 10; i++) run(OPERATIONS / 20); // until all code is compiled
  (globalThis as { gc?: () => void }).gc!();
  await setTimeout(10); // compilations that were under way have ended
  const begin = performance.now();
  run(OPERATIONS);
  bounds.push([begin, performance.now()]);
  answers.push({ name, operations: OPERATIONS, collections: 0 });
}
await setTimeout(10); // the observer is told
for (const [i, answer] of answers.entries()) {
  const [begin, end] = bounds[i]!;
  answer.collections = collections.filter((at) => at >= begin && at <= end).length;
}
process.stdout.write(JSON.stringify({ answers, seen: collections.length, findings: validate_mm() }));
