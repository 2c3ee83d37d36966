/**
 * Whether the code that runs may sleep: not in an interrupt, and not with a spinlock held.
 *
 * An interrupt here is a kernel entry of its own (a timer's function, kernel/entry.ts says so); since entries are not
 * interrupted, one word a CPU is enough.
 */
import { this_cpu_ptr } from "../../hal/cpu.ts";
import { per_cpu_data } from "../../hal/image.ts";
import { locks_held } from "./spinlock.ts";

const preempt = per_cpu_data("preempt", { hardirq: "u32" });

/** Says that what runs on this CPU from here on is an interrupt, or no longer. */
export function set_in_interrupt(yes: boolean): void {
  preempt.hardirq.set(this_cpu_ptr(preempt.ptr), yes ? 1 : 0);
}

export function in_interrupt(): boolean {
  return preempt.hardirq.get(this_cpu_ptr(preempt.ptr)) !== 0;
}

/** True where nothing may sleep. */
export function in_atomic(): boolean {
  return in_interrupt() || locks_held() > 0;
}
