/**
 * Counts and times the requests that a running kernel makes of its slab allocator: a record of the allocator's functions
 * that looks on and hands every call through. Requests that the allocator makes of itself meanwhile are its own affair.
 */
import type { Obj } from "../../hal/addr.ts";
import { timing_cycles } from "../../hal/timing.ts";
import type { CachePtr, SlabOps } from "../../mm/slab_common.ts";

/** What operations cost, each by itself. */
export class Costs {
  failed = 0;
  operations = 0;
  cycles = 0;
  private readonly times = new Map<number, number>();

  add(cycles: number): void {
    this.operations++;
    this.cycles += cycles;
    this.times.set(cycles, (this.times.get(cycles) ?? 0) + 1);
  }

  /** The least number of cycles within which that share of the operations was done. */
  percentile(share: number): number {
    let left = Math.ceil(this.operations * share);
    for (const [cycles, count] of [...this.times].sort(([a], [b]) => a - b)) if ((left -= count) <= 0) return cycles;
    return 0;
  }
}

/** Is told of each request once it was served. */
export interface Witness {
  /** `bytes`: of a request by size; else the cache says it. */
  took(object: Obj, cache: CachePtr, bytes?: number): void;
  gave(object: Obj): void;
}

/** The allocator `ops`, watched. */
export function metered(ops: SlabOps, costs: Costs, witness: Witness): SlabOps {
  let inside = false;
  /** Runs a call; outside of another one it is an operation. */
  function run<T>(call: () => T, done: (result: T) => void): T {
    if (inside) return call();
    inside = true;
    try {
      const from = timing_cycles();
      const result = call();
      costs.add(timing_cycles() - from);
      done(result);
      return result;
    } finally {
      inside = false;
    }
  }
  const took = (object: Obj, cache: CachePtr, bytes?: number): void => {
    if (object === 0) costs.failed++;
    else witness.took(object, cache, bytes);
  };
  const { kmalloc, alloc_bulk, free_bulk, free_rcu } = ops;
  return {
    ...ops,
    alloc: (cache, gfp, node) =>
      run(() => ops.alloc(cache, gfp, node), (object) => took(object, cache)), // prettier-ignore
    free: (cache, object) => run(() => ops.free(cache, object), () => witness.gave(object)), // prettier-ignore
    ...(kmalloc && {
      kmalloc: {
        ...kmalloc,
        alloc: (size, gfp, node) => run(() => kmalloc.alloc(size, gfp, node), (object) => took(object, 0, size)), // prettier-ignore
      },
    }),
    ...(alloc_bulk && {
      alloc_bulk: (cache, gfp, nr, objects) =>
        run(() => alloc_bulk(cache, gfp, nr, objects), (got) => {
          if (got === 0) costs.failed++;
          for (const object of objects.slice(0, got)) took(object, cache);
        }), // prettier-ignore
    }),
    ...(free_bulk && {
      free_bulk: (cache, nr, objects) => {
        const given = objects.slice(0, nr);
        run(() => free_bulk(cache, nr, objects), () => given.forEach((object) => witness.gave(object))); // prettier-ignore
      },
    }),
    ...(free_rcu && {
      free_rcu: (cache, object) => run(() => free_rcu(cache, object), (taken) => taken && witness.gave(object)), // prettier-ignore
    }),
  };
}
