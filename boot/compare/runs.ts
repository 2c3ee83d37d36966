/**
 * Workloads under way: a script, a step at a time, or programs, a kernel entry at a time. Both in slices, which change
 * nothing: between two of them the realm may say how far it is.
 */
import type { Obj } from "../../hal/addr.ts";
import { cpu_switch, smp_processor_id } from "../../hal/cpu.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { rlimit_nproc } from "../../kernel/fork.ts";
import { EFAULT, is_err, strerror } from "../../kernel/lib/errno.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { spawn } from "../../kernel/program.ts";
import { TaskStruct } from "../../kernel/task.ts";
import { KmemCache, set_slab_ops, slab_ops, type CachePtr } from "../../mm/slab_common.ts";
import { complaints } from "../faults.ts";
import { Driver } from "./drive.ts";
import type { Job } from "./job.ts";
import { Costs, metered } from "./meter.ts";
import { slot_bytes } from "./parts.ts";
import "./programs.ts";
import { steps, type Tally } from "./script.ts";
import { is_script, type Workload } from "./workload.ts";

const SLICE_STEPS = 2048;
const SLICE_ENTRIES = 512;
const ENTRIES_MAX = 20_000_000;

/** What runs, whoever drives it. */
export interface Run {
  readonly costs: Costs;
  /** Runs some of it; false at the end. */
  slice(): boolean;
  live(): { objects: number; slots: number };
  release(): void;
}

/** A script, step by step. `each`: after each allocation, with how many there were. */
function run_script({ workload, seed, machine, config, copies }: Job, each: (allocs: number) => void): Run {
  const driver = new Driver(config.sheaf);
  const script = steps(workload, seed, machine, copies);
  const home = smp_processor_id();
  let [allocs, cpu] = [0, home];
  const some = (): boolean => {
    cpu_switch(cpu); // what runs between two slices may be on another
    let [left, more] = [SLICE_STEPS, true];
    for (; left > 0 && more; left--) {
      const { value, done } = script.next();
      more = !done;
      if (done) break;
      driver.step(value);
      if (value.op !== "free") each(++allocs);
    }
    cpu = smp_processor_id();
    cpu_switch(home);
    return more;
  };
  const entry = <T>(fn: () => T): T => {
    const result = kernel_entry("host", fn);
    if (result === undefined) throw new Error(complaints()[0] ?? "the kernel oopsed");
    return result;
  };
  return {
    costs: driver.costs,
    slice: () => entry(some),
    live: () => ({ objects: driver.live.size, slots: driver.slots() }),
    release: () => void entry(() => [driver.release()]),
  };
}

/** Children of fork-storm at once: what a machine lets all programs have leaves room for others. */
const CHILDREN_MAX = 128;

/** Programs, until all have ended. */
function run_program({ workload, copies }: Job, each: (allocs: number) => void, tally?: Tally): Run {
  const costs = new Costs();
  const live = new Map<Obj, CachePtr>();
  let allocs = 0;
  const witness = {
    took(object: Obj, cache: CachePtr, bytes?: number): void {
      live.set(object, cache);
      tally?.take(object, bytes ?? KmemCache.object_size.get(cache));
      each(++allocs);
    },
    gave(object: Obj): void {
      live.delete(object);
      tally?.give(object);
    },
  };
  const ops = slab_ops();
  set_slab_ops(metered(ops, costs, witness));
  const pids = Array.from({ length: copies }, (_, copy) => start_program(workload, copy, copies));
  const running = (): boolean => pids.some((pid) => find_task_by_pid(pid) !== 0);
  let entries = 0;
  return {
    costs,
    slice() {
      for (let i = 0; i < SLICE_ENTRIES && running(); i++) entries += schedule_entries(1);
      if (entries > ENTRIES_MAX) throw new Error(`${workload.name} does not end`);
      if (running()) return true;
      set_slab_ops(ops);
      return false;
    },
    live() {
      let slots = 0;
      for (const [object, cache] of live) slots += slot_bytes(object, cache);
      return { objects: live.size, slots };
    },
    release() {},
  };
}

/** Starts the program of a workload, as a child of init. Its pid. */
function start_program({ name, kind, size }: Workload, copy: number, copies: number): number {
  const at_once = Math.min(CHILDREN_MAX, Math.floor(rlimit_nproc() / (2 * copies)));
  const [program, args] = kind === "fork-storm" ? ["fork_storm", [size, at_once]] : ["file_walk", [size, copy]];
  const task = kernel_entry("host", () => spawn(find_task_by_pid(1), program, args)) ?? -EFAULT;
  if (is_err(task)) throw new Error(`${name} cannot be started: ${strerror(task)}`);
  return TaskStruct.pid.get(task);
}

/** Sets a workload going. `each`: after each allocation, with how many there were; `tally`: counts what is asked for. */
export function start(job: Job, each: (allocs: number) => void, tally?: Tally): Run {
  return is_script(job.workload) ? run_script(job, each) : run_program(job, each, tally);
}
