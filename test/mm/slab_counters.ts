/** Reads a cache's counters for tests. */
import { KmemCacheCpu, STAT_NAMES } from "../../mm/slub_slab.ts";
import { cache_cpus } from "../../mm/slub_cache.ts";
import type { CachePtr } from "../../mm/slab_common.ts";

/** The counters that are not 0, summed over all CPUs. */
export function counters(cache: CachePtr): Record<string, number> {
  const sums = STAT_NAMES.map((name, item) => {
    let sum = 0;
    for (const [, c] of cache_cpus(cache)) sum += KmemCacheCpu.stat.get(c, item);
    return [name, sum] as const;
  });
  return Object.fromEntries(sums.filter(([, sum]) => sum !== 0));
}
