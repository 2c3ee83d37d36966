/** Names of caches in /proc/slabinfo and /sys/kernel/slab: each its own, even where two caches have one. */
import { KmemCache, for_each_cache, type CachePtr } from "../../mm/slab_common.ts";

/**
 * Every cache with the name it is shown by, newest first. The newest of a name has it, an older one gets a number:
 * `dentry`, `dentry~2`.
 *
 * Unlike Linux, which warns of the second, lists both by one name and gives only one a directory; readers that expect
 * names to differ (the Prometheus exporter) fail on that.
 */
export function slab_names(): Map<CachePtr, string> {
  const taken = new Set<string>();
  const names = new Map<CachePtr, string>();
  for (const cache of for_each_cache()) {
    const name = KmemCache.name.get(cache);
    let free = name;
    for (let i = 2; taken.has(free); i++) free = `${name}~${i}`;
    taken.add(free);
    names.set(cache, free);
  }
  return names;
}
