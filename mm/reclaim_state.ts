/**
 * What the page allocator must know of reclaim, and the slots through which it asks for it.
 *
 * Reclaim stands above the page allocator: it runs shrinkers, which are slab objects, and ends tasks. So mm/zonelist.ts
 * calls it by these slots; each is NULL, and the answer is no, until its owner has filled it: mm/vmscan.ts at boot,
 * kernel/kswapd.ts and kernel/oom.ts once there are tasks, which empty theirs at power-off.
 *
 * While a CPU reclaims, its requests for memory may use all reserves and do not reclaim again: PF_MEMALLOC. Since a kernel
 * entry runs to its end on its CPU, the flag is the CPU's where it is the task's in Linux.
 */
import { NULL, type NodeId } from "../hal/addr.ts";
import { this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data, static_data } from "../hal/image.ts";
import { ksym_address, ksym_fn, type AnyFn } from "../kernel/lib/ksym.ts";
import { PgData, type PgDataPtr } from "./zone.ts";

export const PF_MEMALLOC = 0x800;
export const PF_KSWAPD = 0x20000;
/** What compaction came to, in a zone or in the best of several. */
export const COMPACT_SKIPPED = 1; // it would not help
export const COMPACT_DEFERRED = 2; // it was in vain a short while ago
export const COMPACT_CONTINUE = 4;
export const COMPACT_COMPLETE = 5; // the whole zone, in vain
export const COMPACT_SUCCESS = 8;
/** How hard it tries; the lower the harder. */
export const COMPACT_PRIO_SYNC_FULL = 0;
export const COMPACT_PRIO_SYNC_LIGHT = 1;
export const COMPACT_PRIO_ASYNC = 2;
/** Rounds of reclaim without a page after which a request, and a node's kswapd, give up. */
export const MAX_RECLAIM_RETRIES = 16;

/** True if a node's kswapd has run 16 times in a row without freeing a page. */
export function node_is_hopeless(pgdat: PgDataPtr): boolean {
  return PgData.kswapd_failures.get(pgdat) >= MAX_RECLAIM_RETRIES;
}

const cpu_state = per_cpu_data("reclaim_state", { flags: "u32" });

/** PF_MEMALLOC while this CPU reclaims, else 0. */
export function reclaim_flags(): number {
  return cpu_state.flags.get(this_cpu_ptr(cpu_state.ptr));
}

/** Says what this CPU does from now on; returns what it was, to be put back. */
export function set_reclaim_flags(flags: number): number {
  const before = reclaim_flags();
  cpu_state.flags.set(this_cpu_ptr(cpu_state.ptr), flags);
  return before;
}

const slots = static_data("reclaim_slots", {
  try_to_free_pages: "*fn",
  wakeup_kswapd: "*fn",
  out_of_memory: "*fn",
  is_oom_victim: "*fn",
  kswapd_runs: "*fn",
  remove_mapping: "*fn",
  replace_page: "*fn",
  try_to_compact_pages: "*fn",
  compaction_would_help: "*fn",
  compaction_served: "*fn",
  shrink_one_node: "*fn",
});
export type ReclaimSlot =
  | "try_to_free_pages" // (zoneref, order, gfp, nodemask) => pages freed
  | "wakeup_kswapd" // (zone, gfp, order, highest_zoneidx)
  | "out_of_memory" // (gfp, order, nodemask) => true if that may have helped
  | "is_oom_victim" // () => true if the current task was chosen by the OOM killer
  | "kswapd_runs" // (node): lets its kswapd run
  | "shrink_one_node" // (node, order, gfp) => true if it freed 2^order pages, or 32
  | "replace_page" // (page, by): puts another page in its place in its file
  | "try_to_compact_pages" // (zoneref, order, gfp, nodemask, alloc flags, COMPACT_PRIO_*) => COMPACT_*
  | "compaction_served" // (page, order): the request got it
  | "compaction_would_help" // (zoneref, order, gfp, nodemask) => true if it would, once reclaim has freed what it can
  | "remove_mapping"; // (page) => true if it was taken out of its file; the caller has a use of it

/** Fills a slot with a ksym; null empties it. */
export function set_reclaim_slot(slot: ReclaimSlot, fn: AnyFn | null): void {
  slots[slot] = fn === null ? NULL : ksym_address(fn);
}

/** Calls what is in a slot; undefined if it is empty. */
export function call_reclaim_slot(
  slot: ReclaimSlot,
  ...args: readonly (number | NodeId)[]
): number | boolean | undefined {
  return slots[slot] === NULL ? undefined : (ksym_fn(slots[slot])(...args) as number | boolean | undefined);
}
