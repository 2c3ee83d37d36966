/**
 * What the sweeps of failing allocations share (boot/commands/faultsweep.ts, boot/faultsweep_boot.ts): where a failure
 * struck, and what the kernel's log says of it.
 */
import { NULL } from "../hal/addr.ts";
import { events } from "../hal/events.ts";
import { kernel_frames } from "../kernel/lib/dump_stack.ts";
import { printk_records } from "../kernel/lib/printk.ts";
import { MAX_NR_ZONES } from "../mm/gfp.ts";
import { for_each_cache, slab_ops, type CachePtr } from "../mm/slab_common.ts";
import { PGALLOC, all_vm_events } from "../mm/vmstat.ts";
import { slab_view } from "./figures/views.ts";
import { get_fail_nth, set_fail_nth } from "../mm/fault_inject.ts";

/** Frames above the sweep itself: they are in every stack. */
const OUTER = /\[boot\/(session|jobs|faults|faultsweep_\w+|commands\/faultsweep)\.[tj]s:/;
/** Frames of the allocators' own doors: they are in every stack too. */
const DOORS =
  /\[(hal\/|mm\/(fault_inject|slub|slub_slab|slab|slab_node|slab_page|sheaf|page_alloc|zonelist|page_fast|page_bulk)\.)|^(kmem_cache_z?alloc|k[mz]alloc)\w* \[mm\//;
const FOLDERS = /^(hal|mm|kernel|boot|test|examples|labs)\//;
const DEEP = 60;

/** One made failure, or none. */
export interface Strike {
  /** An allocation failed: there was an Nth one. */
  readonly touched: boolean;
  /** Who asked for it, innermost first: `kzalloc [mm/kmalloc.ts:60]`. */
  readonly at: readonly string[];
  /** Allocations that asked whether they may, up to that one. */
  readonly asked: number;
}

/** More allocations than there ever are: a failure that never comes, for counting. */
export const NEVER = 0x7fffffff;

/** Who asked for the allocation that fails just now. */
function stack_here(): string[] {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = DEEP;
  const frames = kernel_frames(new Error(), FOLDERS);
  Error.stackTraceLimit = limit;
  const outer = frames.findIndex((frame, i) => i > 1 && OUTER.test(frame));
  const inner = frames.slice(0, outer < 0 ? undefined : outer).filter((frame) => !OUTER.test(frame));
  const first = inner.findIndex((frame) => !DOORS.test(frame));
  return inner.slice(Math.max(first, 0));
}

/** Remembers where the next made failure strikes. The function that is returned ends that, and the failure if it is still to come. */
export function watch_strike(): () => Strike {
  let at: string[] = [];
  let touched = false;
  const listen = (): void => {
    touched = true;
    at = stack_here();
  };
  events.on("fault:injected", listen);
  return () => {
    events.off("fault:injected", listen);
    const left = get_fail_nth();
    set_fail_nth(0);
    return { touched, at, asked: NEVER - left };
  };
}

/** Makes the nth allocation from now on fail. Context: a kernel entry; so is what it returns. */
export function arm_strike(n: number): () => Strike {
  const disarm = watch_strike();
  set_fail_nth(n);
  return disarm;
}

/** What was ever handed out, by the allocators' counters: objects by cache, and pages. */
export interface Counts {
  readonly objects: ReadonlyMap<CachePtr, number>;
  readonly pages: number;
}

export function allocation_counts(): Counts {
  const objects = new Map([...for_each_cache()].map((cache) => [cache, slab_view().served(cache)]));
  if (slab_ops().kmalloc) objects.set(NULL, slab_view().served(NULL)); // kmalloc without caches
  const pages = all_vm_events().slice(PGALLOC, PGALLOC + MAX_NR_ZONES);
  return { objects, pages: sum(pages) };
}

/** Objects and pages handed out between two moments. What a cache served that has gone since is not known any more. */
export function counts_between(from: Counts, to: Counts): { objects: number; pages: number } {
  const served = [...to.objects].map(([cache, count]) => {
    const before = from.objects.get(cache) ?? 0;
    return count < before ? count : count - before; // another cache at the same place
  });
  return { objects: sum(served), pages: to.pages - from.pages };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

/** Lines of the log behind the last one that is `mark` (all, without one) by which the kernel says that it is broken. */
export function complaints(mark?: string): string[] {
  let found: string[] = [];
  for (const { text } of printk_records())
    if (text === mark) found = [];
    else if (/\b(BUG|WARNING|Oops)\b/.test(text)) found.push(text);
  return found;
}
