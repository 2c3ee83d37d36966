/** When SLAB's caches are reaped: by the machine's own time, one CPU after the other. */
import { expect, it } from "vitest";
import { HZ, TICK_NSEC, jiffies } from "../../hal/clock.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { schedule_for } from "../../boot/machine_time.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import {
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_destroy,
  kmem_cache_free,
  slab_ops,
} from "../../mm/slab_common.ts";
import { ArrayCache, SlabCache, SlabCpu } from "../../mm/slab_page.ts";
import { with_machine } from "../lib/machine.ts";

it("each CPU's round comes every two seconds, on a whole second less three ticks a CPU", () => {
  with_machine({ until: "init", append: "slab=slab" }, () => {
    const cache = kmem_cache_create("reaped", 256, 0, 0, null);
    const arrays = [0, 1].map((cpu) => {
      on_cpu(cpu, () => kmem_cache_free(cache, kmem_cache_alloc(cache, GFP_KERNEL)));
      return SlabCpu.array.at(per_cpu_ptr(SlabCache.cpu_cache.get(cache), cpu));
    });
    const rounds: number[][] = [[], []];
    for (let tick = 0; tick < 7 * HZ; tick++) {
      for (const array of arrays) ArrayCache.touched.set(array, 1); // a round takes the mark off, and nothing else
      schedule_for(TICK_NSEC);
      for (const [cpu, array] of arrays.entries())
        if (ArrayCache.touched.get(array) === 0) rounds[cpu]!.push(jiffies());
    }
    for (const [cpu, times] of rounds.entries()) {
      expect(times.length).toBeGreaterThanOrEqual(3);
      expect(times.map((at) => (at + 3 * cpu) % HZ)).toEqual(times.map(() => 0));
      for (const [i, at] of times.entries()) if (i > 0) expect(at - times[i - 1]!).toBe(2 * HZ);
    }
    kmem_cache_destroy(cache);
  });
});

it("a long sleep is made up for: thirty rounds in a minute", () => {
  with_machine({ until: "init", append: "slab=slab" }, () => {
    const cache = kmem_cache_create("reaped", 256, 0, 0, null);
    const objects = Array.from({ length: 119 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    for (const object of objects) kmem_cache_free(cache, object);
    const avail = ArrayCache.avail;
    expect(avail.get(SlabCpu.array.at(SlabCache.cpu_cache.get(cache)))).toBeGreaterThan(50);
    schedule_for(60 * HZ * TICK_NSEC);
    expect(avail.get(SlabCpu.array.at(SlabCache.cpu_cache.get(cache)))).toBe(0);
    kmem_cache_destroy(cache);
  });
});

it("with SLUB there is nothing to reap", () => {
  with_machine({ until: "init" }, () => expect(slab_ops().reap).toBeUndefined());
});
