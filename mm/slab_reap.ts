/**
 * SLAB: what was not used is given back, a little at a time.
 *
 * Every two seconds each CPU looks through all caches, newest first, and does for its own node:
 *   1 one alien array, of the next node each time, is emptied
 *   2 this CPU's array: was something taken from it since? Then only the mark is taken off; else a fifth of its limit
 *     goes back to the slabs, the oldest first
 *   3 at most every four seconds: the same for the shared array; then, unless an object was taken from slabs_free in the
 *     meantime, some of those slabs are given back to the page allocator
 *
 * So a cache that nobody uses is empty after some rounds, and one that is in use keeps what it needs.
 * The kernel's timer calls it (kernel/slab_reap.ts).
 */
import { HZ, jiffies } from "../hal/clock.ts";
import { this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data } from "../hal/image.ts";
import { NULL } from "../hal/addr.ts";
import { spin_trylock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { numa_mem_id } from "./slab.ts";
import { for_each_cache, slab_data, type CachePtr } from "./slab_common.ts";
import { drain_alien, drain_array, drain_freelist } from "./slab_node.ts";
import { ArrayCache, REAPED, SlabNode, cpu_cache_get, get_node, slab_num, stat_add, type ArrayPtr, type NodePtr } from "./slab_page.ts"; // prettier-ignore
import { NODE_DATA, node_state } from "./zone.ts";

/** Jiffies between two looks at a node's shared array and free slabs. */
export const REAPTIMEOUT_NODE = 4 * HZ;

/** Whose alien array this CPU looked at last; 1 + the node. */
const reap_node = per_cpu_data("slab_reap_node", { last: "u32" });

/** One round of this CPU. Context: between two entries; gives the round up if caches are just being made. */
export function cache_reap(): void {
  if (!spin_trylock(slab_data.mutex)) return;
  const from = next_reap_node();
  for (const cache of for_each_cache()) {
    const n = get_node(cache, numa_mem_id());
    drain_alien(cache, n, from);
    reap_array(cache, n, cpu_cache_get(cache));
    if (SlabNode.next_reap.get(n) > jiffies()) continue;
    SlabNode.next_reap.set(n, jiffies() + REAPTIMEOUT_NODE);
    reap_array(cache, n, SlabNode.shared.get(n));
    if (SlabNode.free_touched.get(n) !== 0) SlabNode.free_touched.set(n, 0);
    else stat_add(cache, REAPED, drain_freelist(cache, n, slabs_to_reap(cache, n)));
  }
  spin_unlock(slab_data.mutex);
}

/** The node after the one of the last round; the first is the one after this CPU's own. */
function next_reap_node(): number {
  const here = this_cpu_ptr(reap_node.ptr);
  const last = reap_node.last.get(here);
  let node = last === 0 ? numa_mem_id() : last - 1;
  do node = (node + 1) % node_state.nr_node_ids;
  while (NODE_DATA(node) === NULL);
  reap_node.last.set(here, node + 1);
  return node;
}

function reap_array(cache: CachePtr, n: NodePtr, ac: ArrayPtr): void {
  const avail = ac === NULL ? 0 : ArrayCache.avail.get(ac);
  if (avail === 0) return;
  if (ArrayCache.touched.get(ac) !== 0) {
    ArrayCache.touched.set(ac, 0);
    return;
  }
  const fifth = Math.floor((ArrayCache.limit.get(ac) + 4) / 5);
  drain_array(cache, n, ac, fifth > avail ? (avail + 1) >> 1 : fifth);
}

/** A fifth of the slabs that free_limit allows, rounded up. */
function slabs_to_reap(cache: CachePtr, n: NodePtr): number {
  const fifth = 5 * slab_num(cache);
  return Math.floor((SlabNode.free_limit.get(n) + fifth - 1) / fifth);
}
