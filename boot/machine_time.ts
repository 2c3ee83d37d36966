/**
 * Lets the machine's own time pass: what the console does between two lines.
 */
import { TICK_NSEC, clock_advance, jiffies, local_clock } from "../hal/clock.ts";
import { schedule_until } from "../kernel/lockstep.ts";
import { account_ticks, nr_running } from "../kernel/sched.ts";
import { run_slab_reap } from "../kernel/slab_reap.ts";
import { next_timer_expiry } from "../kernel/timer.ts";

/** Runs kernel entries until `nsec` nanoseconds have passed; a machine with nothing to do just lets them pass. */
export function schedule_for(nsec: number): void {
  const end = local_clock() + nsec;
  const idle = (): boolean => nr_running() === 0 && (next_timer_expiry() ?? Infinity) * TICK_NSEC > end;
  schedule_until(() => local_clock() >= end || idle(), Infinity);
  const before = jiffies();
  clock_advance(Math.max(end - local_clock(), 0));
  account_ticks(jiffies() - before);
  if (jiffies() !== before) run_slab_reap();
}
