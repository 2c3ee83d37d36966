/**
 * The scheduler's loop: one kernel entry after another, on the CPU that the seed picks.
 *
 *     entry, entry, entry …      each of the next task of a CPU that has one; which CPU: the stream RANDOM_SCHED
 *       between two entries      the clock goes on by ENTRY_NSEC; ticks are counted; timers that are due run; a grace
 *                                period of RCU ends
 *       all CPUs idle            the clock goes on to the next timer at once
 *
 * Nothing else lets time pass, and nothing runs in the middle of an entry: the order in which things happen follows from
 * the seed, however the host cuts the run into slices.
 */
import { NULL, type CpuId } from "../hal/addr.ts";
import { HZ, TICK_NSEC, clock_advance, jiffies, local_clock } from "../hal/clock.ts";
import { cpu_is_online, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { vmstat_update } from "../mm/pagesets.ts";
import { kernel_entry } from "./entry.ts";
import { finish_task } from "./exit.ts";
import { ksym_fn } from "./lib/ksym.ts";
import { rcu_do_batch, rcu_has_readers, rcu_pending } from "./lib/rcu.ts";
import { RANDOM_SCHED, get_random_u32_below } from "./lib/random.ts";
import { run_slab_reap } from "./slab_reap.ts";
import { account_entry, account_ticks, cpu_nr_running, pick_next_task } from "./sched.ts";
import { TaskStruct, idle_task, set_current_task, task_is_dead, type TaskPtr } from "./task.ts";
import { call_timer_fn, next_timer_expiry, take_expired_timer, timer_cpu } from "./timer.ts";

/** How long an entry takes, whatever it does. */
export const ENTRY_NSEC = 10_000;

/** Runs up to `n` entries; fewer if every task sleeps and no timer is armed. Returns how many. Context: the host. */
export function schedule_entries(n: number): number {
  let done = 0;
  while (done < n && schedule_entry()) done++;
  return done;
}

/** Runs entries until `condition` holds, at most `limit`; true if it does. */
export function schedule_until(condition: () => boolean, limit: number): boolean {
  for (let i = 0; i < limit && !condition(); i++) if (!schedule_entry()) break;
  return condition();
}

function schedule_entry(): boolean {
  if (rcu_pending() !== 0) run_rcu_callbacks();
  const cpu = pick_cpu();
  if (cpu >= 0) {
    on_cpu(cpu, () => run_task(pick_next_task(cpu), cpu));
    advance_clock(ENTRY_NSEC);
    return true;
  }
  const expiry = next_timer_expiry();
  if (expiry === undefined) return false;
  advance_clock(Math.max(expiry * TICK_NSEC - local_clock(), 0));
  return true;
}

/** No CPU runs: a grace period is over, unless a read section was left open. */
function run_rcu_callbacks(): void {
  if (rcu_has_readers()) return;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => kernel_entry("irq", rcu_do_batch));
}

/** One of the CPUs that have something to run; -1 if none has. */
function pick_cpu(): CpuId {
  const ready: CpuId[] = [];
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (cpu_is_online(cpu) && cpu_nr_running(cpu) > 0) ready.push(cpu);
  return ready.length === 0 ? -1 : ready[get_random_u32_below(RANDOM_SCHED, ready.length)];
}

function run_task(task: TaskPtr, cpu: CpuId): void {
  set_current_task(task);
  kernel_entry("task", () => void ksym_fn(TaskStruct.entry.get(task))(task));
  set_current_task(idle_task(cpu));
  account_entry(task);
  if (task_is_dead(task)) kernel_entry("task", () => finish_task(task));
}

/** Lets time pass, counts the ticks in it and runs the timers that are due then. */
function advance_clock(ns: number): void {
  const before = jiffies();
  clock_advance(ns);
  const now = jiffies();
  if (now === before) return;
  account_ticks(now - before);
  if (Math.floor(now / HZ) !== Math.floor(before / HZ))
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, vmstat_update);
  run_slab_reap();
  for (let timer = take_expired_timer(now); timer !== NULL; timer = take_expired_timer(now)) {
    const due = timer;
    on_cpu(timer_cpu(due), () => kernel_entry("irq", () => call_timer_fn(due)));
  }
}
