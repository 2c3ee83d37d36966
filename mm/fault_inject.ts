/**
 * Fault injection: failslab, fail_page_alloc, and fail-nth.
 *
 * Order of decision, for one call (`should_fail`):
 *   1 fail-nth: the counter is set; this is the nth call: fail, else go on counting and fail nothing
 *   2 probability 0, or times used up: no          3 space: the call's weight is taken off it; no until it is used up
 *   4 interval: only every nth call that came here  5 a random number below `probability` percent
 *
 * Boot parameters `failslab=` and `fail_page_alloc=`, each `<interval>,<probability>,<space>,<times>`; and, unlike
 * Linux, `fail_nth=N`: the Nth allocation from kmem_cache_init on fails.
 *
 * Unlike Linux: fail-nth is one counter of the machine, not of a task; there are no task and stack filters.
 */
import { NULL } from "../hal/addr.ts";
import { events, has_listener } from "../hal/events.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { cmdline_number, cmdline_param } from "../kernel/lib/cmdline.ts";
import { dump_stack } from "../kernel/lib/dump_stack.ts";
import { KERN_NOTICE, pr_notice, pr_warn } from "../kernel/lib/printk.ts";
import { RANDOM_FAULT, get_random_u32_below } from "../kernel/lib/random.ts";
import { GATE_FAULT, alloc_gate_set } from "./plenty.ts";
import { __GFP_DIRECT_RECLAIM, __GFP_HIGHMEM, __GFP_NOFAIL, __GFP_NOWARN } from "./gfp.ts";
import { KmemCache, close_fast_paths, type CachePtr } from "./slab_common.ts";
import { SLAB_FAILSLAB } from "./slab_layout.ts";

/** The knobs of one kind of failure; names as in debugfs. */
export const FaultAttr = struct("fault_attr", {
  probability: "u32", // percent
  interval: "u32", // consider only each interval-th call
  times: "s32", // failures left; -1 without end
  space: "s32", // weight that passes before anything fails
  verbose: "u32", // 0 says nothing, 1 that it fails, 2 on what way too
  count: "u32", // calls considered
  ignore_gfp_wait: "u32", // spare callers that may reclaim
  ignore_gfp_highmem: "u32", // fail_page_alloc: spare user memory
  min_order: "u32", // fail_page_alloc: smallest order that fails
  cache_filter: "u32", // failslab: only caches with SLAB_FAILSLAB
});
type FaultAttrPtr = number;

const faults = static_data("fault_injection", { failslab: FaultAttr, fail_page_alloc: FaultAttr, fail_nth: "u32" });
export const failslab: FaultAttrPtr = faults.failslab;
export const fail_page_alloc: FaultAttrPtr = faults.fail_page_alloc;

export type FaultSettings = Partial<Record<(typeof FAULT_KNOBS)[number], number>>;
const FAULT_KNOBS = Object.freeze([
  "probability", "interval", "times", "space", "verbose", "ignore_gfp_wait", "ignore_gfp_highmem", "min_order",
  "cache_filter",
] as const); // prettier-ignore

/** Sets some knobs of one kind, as writes to its debugfs files would. */
export function set_fault_attr(attr: FaultAttrPtr, settings: FaultSettings): void {
  for (const knob of FAULT_KNOBS) if (settings[knob] !== undefined) FaultAttr[knob].set(attr, settings[knob]);
  update_gate();
}

/** Makes the nth allocation from now (1 is the next), of slab objects and pages alike, fail; 0 switches that off. */
export function set_fail_nth(n: number): void {
  faults.fail_nth = n;
  update_gate();
}

/** Calls left until the one that fails; 0 if none is marked. */
export function get_fail_nth(): number {
  return faults.fail_nth;
}

function update_gate(): void {
  alloc_gate_set(GATE_FAULT, faults.fail_nth > 0 || FaultAttr.probability.get(fail_page_alloc) > 0);
  close_fast_paths(failslab_is_armed());
}

/** True if slab allocations have to ask `should_failslab`; the fast paths of all caches are closed then. */
function failslab_is_armed(): boolean {
  return faults.fail_nth > 0 || FaultAttr.probability.get(failslab) > 0;
}

/** Sets the knobs to their defaults and reads the boot parameters. Context: boot, before the first allocation. */
export function fault_inject_init(): void {
  const defaults = { probability: 0, interval: 1, times: 1, space: 0, verbose: 2, ignore_gfp_wait: 1, min_order: 1 };
  set_fault_attr(failslab, { ...defaults, cache_filter: 0 });
  set_fault_attr(fail_page_alloc, { ...defaults, ignore_gfp_highmem: 1 });
  setup_fault_attr(failslab, cmdline_param("failslab"));
  setup_fault_attr(fail_page_alloc, cmdline_param("fail_page_alloc"));
  set_fail_nth(cmdline_number(0, "fail_nth"));
}

/** Reads `<interval>,<probability>,<space>,<times>`; false if it is malformed. */
export function setup_fault_attr(attr: FaultAttrPtr, text: string | undefined): boolean {
  if (text === undefined) return true;
  const match = /^(\d+),(\d+),(-?\d+),(-?\d+)$/.exec(text);
  if (!match) {
    pr_warn("FAULT_INJECTION: failed to parse arguments");
    return false;
  }
  const [interval, probability, space, times] = match.slice(1).map(Number);
  set_fault_attr(attr, { interval, probability, space, times });
  return true;
}

/**
 * True if a slab allocation is to fail. `cache` NULL: `size` bytes of kmalloc, where that has no caches. Context: the
 * start of every one that does not take the fast path.
 */
export function should_failslab(cache: CachePtr, gfp: number, size = KmemCache.object_size.get(cache)): boolean {
  if (!failslab_is_armed()) return false;
  if ((gfp & __GFP_NOFAIL) !== 0 || (cache !== NULL && KmemCache.name.get(cache) === "kmem_cache")) return false;
  if (spares(failslab, gfp) && faults.fail_nth === 0) return false;
  const marked = cache !== NULL && (KmemCache.flags.get(cache) & SLAB_FAILSLAB) !== 0;
  if (FaultAttr.cache_filter.get(failslab) !== 0 && !marked) return false;
  return should_fail(failslab, "failslab", size, gfp);
}

/** True if a page allocation is to fail. */
export function should_fail_alloc_page(gfp: number, order: number): boolean {
  if ((gfp & __GFP_NOFAIL) !== 0) return false;
  if (faults.fail_nth === 0) {
    if (order < FaultAttr.min_order.get(fail_page_alloc) || spares(fail_page_alloc, gfp)) return false;
    if (FaultAttr.ignore_gfp_highmem.get(fail_page_alloc) !== 0 && (gfp & __GFP_HIGHMEM) !== 0) return false;
  }
  return should_fail(fail_page_alloc, "fail_page_alloc", 1 << order, gfp);
}

function spares(attr: FaultAttrPtr, gfp: number): boolean {
  return FaultAttr.ignore_gfp_wait.get(attr) !== 0 && (gfp & __GFP_DIRECT_RECLAIM) !== 0;
}

function should_fail(attr: FaultAttrPtr, name: string, weight: number, gfp: number): boolean {
  const { probability, interval, times, space, count } = FaultAttr;
  if (faults.fail_nth > 0) {
    faults.fail_nth = faults.fail_nth - 1;
    if (faults.fail_nth > 0) return false;
    update_gate();
    if (has_listener("fault:injected")) events.emit("fault:injected", { name, gfp });
    report(attr, name, gfp);
    return true;
  }
  if (probability.get(attr) === 0 || times.get(attr) === 0) return false;
  if (space.get(attr) > weight) {
    space.set(attr, space.get(attr) - weight);
    return false;
  }
  if (interval.get(attr) > 1) {
    count.set(attr, count.get(attr) + 1);
    if (count.get(attr) % interval.get(attr) !== 0) return false;
  }
  if (get_random_u32_below(RANDOM_FAULT, 100) >= probability.get(attr)) return false;
  report(attr, name, gfp);
  if (times.get(attr) !== -1) times.set(attr, times.get(attr) - 1);
  return true;
}

function report(attr: FaultAttrPtr, name: string, gfp: number): void {
  if ((gfp & __GFP_NOWARN) !== 0 || FaultAttr.verbose.get(attr) === 0) return;
  const { interval, probability, space, times } = FaultAttr;
  pr_notice("FAULT_INJECTION: forcing a failure.");
  const knobs = `interval ${interval.get(attr)}, probability ${probability.get(attr)}, space ${space.get(attr)}`;
  pr_notice(`name ${name}, ${knobs}, times ${times.get(attr)}`);
  if (FaultAttr.verbose.get(attr) > 1) dump_stack(KERN_NOTICE);
}
