/**
 * One realm of the amnesia test: a worker that boots a machine in the RAM it is handed, or attaches to the one there,
 * runs a number of kernel entries, answers, and is ended from outside.
 */
import { parentPort, workerData } from "node:worker_threads";
import { NULL } from "../../hal/addr.ts";
import type { MachineSpec } from "../../hal/machine.ts";
import { ram32 } from "../../hal/ram.ts";
import { journal_pending_call } from "../../kernel/journal.ts";
import { attach } from "../../boot/attach.ts";
import { boot, power_off, take_figures, type Figures } from "../../boot/start_kernel.ts";
import { ksym_address } from "../../kernel/lib/ksym.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { Journal, TaskStruct, for_each_process, task_is_dead } from "../../kernel/task.ts";
import { validate_mm } from "../../mm/validate.ts";
import "./memory_programs.ts";
import "./programs.ts";

export interface Job {
  readonly machine: MachineSpec;
  /** Boots with this seed first; absent: attaches. */
  readonly boot?: { readonly seed: number; readonly garbage: Uint8Array; readonly append?: string };
  /** Entries to run. */
  readonly entries: number;
  /** Runs them one by one and says how many tasks were under way before each. */
  readonly count?: boolean;
  /** Lets the kernel keep a function that has no name. */
  readonly closure?: boolean;
  /** Powers off afterwards and says what is in use then. */
  readonly end?: boolean;
}
export interface Answer {
  /** Tasks under way: init, kthreadd and zombies not counted. */
  readonly under_way: number;
  readonly counts: number[];
  /** Tasks that sleep in a pipe, at the end. */
  readonly in_pipes: number;
  /** What validate_mm found on arrival and at the end. */
  readonly findings: string[];
  readonly log: string[];
  /** A checksum of all RAM. */
  readonly ram: number;
  /** After power-off. */
  readonly figures?: Figures;
  readonly leftover?: string;
}

function under_way(): number {
  return [...for_each_process()].filter((task) => !task_is_dead(task)).length - 2;
}

/** Tasks that sleep in a pipe. */
function in_pipes(): number {
  const asleep = [...for_each_process()].filter((task) => TaskStruct.wait_queue.get(task) !== NULL);
  const journals = asleep.map((task) => TaskStruct.journal.at(task)).filter((journal) => Journal.pending.get(journal));
  const calls = journals.map((journal) => journal_pending_call(journal).value as string[]);
  return calls.filter(([call]) => call === "read" || call === "write").length;
}

function checksum(): number {
  let hash = 0;
  for (let i = 0; i < ram32.length; i++) hash = Math.imul(hash ^ ram32[i]!, 0x01000193);
  return hash;
}

function run(job: Job): Answer {
  if (job.boot) boot({ ...job.boot, machine: job.machine, loglevel: 0, until: "init" });
  else attach(job.machine);
  if (job.closure) ksym_address(() => 0);
  const findings = validate_mm();
  const counts: number[] = [];
  if (job.count)
    for (let i = 0; i < job.entries; i++) {
      counts.push(under_way());
      schedule_entries(1);
    }
  else schedule_entries(job.entries);
  findings.push(...validate_mm());
  const answer = {
    under_way: under_way(),
    in_pipes: in_pipes(),
    counts,
    findings,
    log: [...printk_records()].map((r) => r.line),
    ram: checksum(),
  };
  return job.end ? { ...answer, ...end() } : answer;
}

/** Powers off: a realm that attached knows from RAM what was in use before the first program ran. */
function end(): Pick<Answer, "figures" | "leftover"> {
  return { leftover: JSON.stringify(power_off()), figures: take_figures() };
}

parentPort!.postMessage(run((workerData as { job: Job }).job));
