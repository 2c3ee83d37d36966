/**
 * The main file of a worker (boot/worker.mjs): for each job that it is sent, boots a machine under one configuration, runs
 * one workload, and answers.
 *
 *     survey    what a program asks for (a script says that by itself)       plain realm, SLUB without merging
 *     measure   memory, and calls counted by the engine                      plain realm
 *     time      cycles, misses, lock waits                                   realm with the timing model
 *
 * Looks at memory are taken before the workload, at its peak (the same request under every configuration), at its end,
 * and at rest, when a script's remaining objects are free too.
 */
import { parentPort } from "node:worker_threads";
import { NSEC_PER_SEC } from "../../hal/clock.ts";
import { console_attach } from "../../hal/console.ts";
import { timing_on, timing_read, timing_since } from "../../hal/timing.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { schedule_until } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { SIGKILL, do_kill } from "../../kernel/signal.ts";
import { PF_KTHREAD, TaskStruct, for_each_process } from "../../kernel/task.ts";
import { validate_mm } from "../../mm/validate.ts";
import { complaints } from "../faults.ts";
import { schedule_for } from "../machine_time.ts";
import { boot } from "../start_kernel.ts";
import { count_calls } from "./calls.ts";
import type { Job, Outcome } from "./job.ts";
import { look, slab_pages } from "./look.ts";
import { start, type Run } from "./runs.ts";
import { Tally } from "./script.ts";

/** What a realm posts: progress, and at last one of the others. `died`: the kernel panicked or is broken. */
export type Message = { readonly done: number } | { readonly outcome: Outcome } | { readonly died: string };

const say = (message: Message): void => parentPort!.postMessage(message);

/** Runs to the end and reports how far it is. */
function run_all(run: Run): void {
  let reported = Date.now();
  while (run.slice()) {
    if (Date.now() - reported < 100) continue;
    reported = Date.now();
    say({ done: run.costs.operations });
  }
}

function survey(job: Job): Outcome {
  const tally = new Tally();
  run_all(start(job, () => {}, tally));
  return { demand: tally.demand() };
}

/** Entries within which killed programs are gone. */
const QUIET_ENTRIES = 20_000;

/** Ends all programs but init. */
function end_programs(): void {
  const others = [...for_each_process()].filter((task) => TaskStruct.pid.get(task) > 1 && !(TaskStruct.flags.get(task) & PF_KTHREAD)); // prettier-ignore
  const pids = others.map((task) => TaskStruct.pid.get(task));
  kernel_entry("host", () => pids.forEach((pid) => do_kill(pid, SIGKILL)));
  schedule_until(() => pids.every((pid) => find_task_by_pid(pid) === 0), QUIET_ENTRIES);
}

function measure(job: Job): Outcome {
  const before = look();
  let most_pages = before.pages;
  let peak = before;
  let at_peak = { objects: 0, slots: 0 };
  const stop = job.calls ? count_calls() : () => ({ list_operations: 0, locks: 0 });
  const run = start(job, (allocs) => {
    most_pages = Math.max(most_pages, slab_pages());
    if (allocs !== job.demand!.peak_at) return;
    peak = look();
    at_peak = run.live();
  });
  run_all(run);
  const calls = stop();
  const end = look();
  const { operations, failed } = run.costs;
  run.release();
  const rest = look();
  if (job.idle > 0) end_programs();
  schedule_for(job.idle * NSEC_PER_SEC);
  const after_idle = look();
  const findings = [...complaints(), ...validate_mm()];
  const at = { before, peak, end, rest, after_idle };
  const peaks = { most_pages, peak_objects: at_peak.objects, peak_slots: at_peak.slots };
  return { measured: { operations, failed, ...at, ...peaks, ...calls, findings } };
}

function time(job: Job): Outcome {
  const from = timing_read();
  const run = start(job, () => {});
  run_all(run);
  const whole = timing_since(from);
  const { costs } = run;
  const { cycles, operations, failed } = costs;
  const times = { total: cycles, mean: cycles / Math.max(operations, 1), p50: costs.percentile(0.5), p99: costs.percentile(0.99), max: costs.percentile(1) }; // prettier-ignore
  run.release();
  if (job.idle > 0) end_programs();
  const idle_from = timing_read();
  schedule_for(job.idle * NSEC_PER_SEC);
  const idle = timing_since(idle_from);
  return { timed: { operations, failed, cycles: times, run: whole, idle } };
}

const TASKS: Readonly<Record<Job["task"], (job: Job) => Outcome>> = { survey, measure, time };

function run_job(job: Job): Message {
  console_attach(() => {});
  try {
    if ((job.task === "time") !== timing_on) throw new Error("this realm was made for something else");
    const { machine, seed } = job;
    boot({ machine, seed, append: `${job.append} ${job.config.append}`.trim(), loglevel: 0 });
    return { outcome: TASKS[job.task](job) };
  } catch (error) {
    return { died: error instanceof Error ? error.message : String(error) };
  }
}

parentPort!.on("message", (job: Job) => say(run_job(job)));
