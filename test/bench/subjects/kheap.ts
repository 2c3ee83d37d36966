/**
 * kheap: the kernel's own heap, on a machine that is up. Before anything is timed, init's programs have run, and 10^5
 * mixed operations over 60 caches, all kinds of kmalloc and all CPUs: so the fast paths have seen what they see in a
 * kernel that has been at work for a while. The kernel is called as a module calls it, through its imports.
 */
import { boot } from "../../../boot/start_kernel.ts";
import { nr_cpu_ids } from "../../../hal/cpu.ts";
import { per_cpu_ptr } from "../../../hal/image.ts";
import { machine_from_options } from "../../../hal/machine.ts";
import { ram32 } from "../../../hal/ram.ts";
import { schedule_entries } from "../../../kernel/lockstep.ts";
import { GFP_KERNEL } from "../../../mm/gfp.ts";
import { kfree, kmalloc } from "../../../mm/kmalloc.ts";
import { page_address } from "../../../mm/page.ts";
import { __free_pages, alloc_pages } from "../../../mm/page_alloc.ts";
import {
  KmemCache, for_each_cache, kmem_cache_alloc, kmem_cache_create, kmem_cache_free, kmem_cache_shrink, slab_ops,
} from "../../../mm/slab_common.ts"; // prettier-ignore
import {
  ALLOC_FASTPATH, ALLOC_SLOWPATH, FREE_FASTPATH, FREE_SLOWPATH, KmemCacheCpu,
} from "../../../mm/slub_slab.ts"; // prettier-ignore
import { validate_mm } from "../../../mm/validate.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../../mm/vmstat.ts";
import type { Heap, Subject } from "../heap.ts";
import { mixed_operations } from "../mixed.ts";
import type { KheapOptions } from "../subjects.ts";

const m = ram32;
const MIXED_OPERATIONS = 100_000;
const ENTRIES = 20_000;
const PAGE_SIZE = 4096;

const options = JSON.parse(process.argv[3] ?? "{}") as KheapOptions;
const machine = machine_from_options({ mem: options.mem ?? "1G", cpus: options.cpus });
if (typeof machine === "string") throw new Error(machine);
boot({ machine, append: options.append ?? "", loglevel: 0 });
schedule_entries(ENTRIES);
mixed_operations(MIXED_OPERATIONS, Math.max(60, options.caches ?? 0));

const cache_64 = kmem_cache_create("bench_64", 64, 0, 0);
const cache_192 = kmem_cache_create("bench_192", 192, 0, 0);
for (let i = 0; i < (options.live ?? 0); i++)
  if (kmem_cache_alloc(cache_64, GFP_KERNEL) === 0) throw new Error("no RAM");

function touch(object: number, value: number): number {
  m[object >> 2] = value;
  m[(object >> 2) + 1] = value;
  return object;
}

const of_64: Heap = {
  alloc: () => kmem_cache_alloc(cache_64, GFP_KERNEL),
  free: (object) => kmem_cache_free(cache_64, object),
  touch,
};
const of_192: Heap = {
  alloc: () => kmem_cache_alloc(cache_192, GFP_KERNEL),
  free: (object) => kmem_cache_free(cache_192, object),
  touch,
};
const kmalloc_64: Heap = { alloc: () => kmalloc(64, GFP_KERNEL), free: (object) => kfree(object), touch };
const by_size: Heap = { alloc: (size) => kmalloc(size, GFP_KERNEL), free: (object) => kfree(object), touch };

const touch_page = (page: number, value: number): number => touch(page_address(page), value);
const page: Heap = {
  alloc: () => alloc_pages(GFP_KERNEL, 0),
  free: (object) => __free_pages(object, 0),
  touch: touch_page,
};
/** Here a size is an order. */
const pages: Heap = {
  alloc: (order) => alloc_pages(GFP_KERNEL, order),
  free: (object, order) => __free_pages(object, order),
  touch: touch_page,
};

const heaps: Readonly<Record<string, Heap>> = {
  W1: of_64, W1k: kmalloc_64, W1n: of_64, "W2 LIFO": of_64, "W2 FIFO": of_64, "W2 random": of_64,
  W3u: by_size, W3l: by_size, W4: of_192, W5a: page, W5b: pages,
}; // prettier-ignore

/** Whether the counters of SLUB are there, and count what is asked for: sheaves move objects to and from slabs too. */
const counts = slab_ops().name === "slub" && !options.append?.includes("sheaf");

/** The sum of some of SLUB's counters over all caches and CPUs. */
function sum_of(items: readonly number[]): number {
  let sum = 0;
  if (!counts) return sum;
  for (const cache of for_each_cache())
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
      for (const item of items) sum += KmemCacheCpu.stat.get(per_cpu_ptr(KmemCache.cpu_slab.get(cache), cpu), item);
  return sum;
}

const allocations_before = sum_of([ALLOC_FASTPATH, ALLOC_SLOWPATH]);
const frees_before = sum_of([FREE_FASTPATH, FREE_SLOWPATH]);

/** Every allocation is in the counters, every object is back, and every invariant of memory management holds. */
function check(allocations: number): string[] {
  if (!counts) return validate_mm();
  const counted = sum_of([ALLOC_FASTPATH, ALLOC_SLOWPATH]) - allocations_before;
  const freed = sum_of([FREE_FASTPATH, FREE_SLOWPATH]) - frees_before;
  const findings = validate_mm();
  if (counted !== allocations) findings.push(`${allocations} objects allocated, the caches counted ${counted}`);
  if (freed !== allocations) findings.push(`${allocations} objects freed, the caches counted ${freed}`);
  return findings;
}

/** Bytes of all slabs; under SLOB, of pages of blocks. */
function bytes_used(): number {
  const pages = global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);
  return pages * PAGE_SIZE;
}

export const subject: Subject = {
  heap: (workload) => heaps[workload],
  slab_workload: (workload) => !workload.startsWith("W5"),
  check,
  compact() {
    for (const cache of for_each_cache()) kmem_cache_shrink(cache);
  },
  bytes_used,
};
