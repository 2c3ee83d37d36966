/**
 * Runs jobs in realms of their own (workers), as many at once as there are processors. What a job answers follows from
 * the job alone, so how many run at once, which ends first, and whether a realm was used before change nothing.
 */
import { availableParallelism } from "node:os";
import type { Worker } from "node:worker_threads";
import type { RealmOptions } from "../../hal/host.ts";
import { CommandError, type Context } from "../commands/registry.ts";
import { new_realm } from "../new_realm.ts";
import type { Job, Outcome } from "./job.ts";
import type { Message } from "./realm.ts";

/** Realms at once: each touches the RAM of a machine. */
const LANES_MAX = 4;
/** Milliseconds between two looks at Ctrl-C. */
const LOOK_MS = 50;

/** What came of a job; `died` says why there are no figures. */
export type Answer = Outcome & { readonly died?: string };

const kind_of = ({ task }: Job): RealmOptions["kind"] => (task === "time" ? "timing" : "plain");

function ask(worker: Worker, job: Job, progress: (done: number) => void): Promise<Answer> {
  return new Promise((resolve, reject) => {
    worker
      .removeAllListeners()
      .on("message", (message: Message) => {
        if ("done" in message) progress(message.done);
        else resolve("died" in message ? message : message.outcome);
      })
      .on("error", reject)
      .on("exit", () => reject(new CommandError("compare: ended early")))
      .postMessage(job);
  });
}

/** How far a job is, for people. */
function describe({ workload, config, machine, task, demand }: Job, done: number): string {
  const share = demand ? `, ${Math.min(100, Math.floor((100 * done) / demand.operations))} %` : "";
  return `${workload.name} on ${machine.name}, ${config.name}${task === "time" ? ", timed" : ""}${share}`;
}

/**
 * Runs all jobs; answers in their order. Each has a realm that nobody used before, unless `reuse`. Ctrl-C ends it with a
 * CommandError and leaves no worker behind.
 */
export async function run_jobs(ctx: Context, jobs: readonly Job[], reuse: boolean): Promise<Answer[]> {
  const answers: Answer[] = [];
  const workers = new Set<Worker>();
  let [next, ended] = [0, 0];
  const drop = async (worker: Worker): Promise<void> => {
    workers.delete(worker);
    await worker.removeAllListeners().terminate();
  };

  async function lane(): Promise<void> {
    const mine = new Map<string, Worker>();
    for (let at = next++; at < jobs.length; at = next++) {
      const job = jobs[at]!;
      const kind = kind_of(job);
      const worker = mine.get(kind) ?? new_realm("compare/realm", kind);
      workers.add(worker);
      const progress = (done: number): void => ctx.progress(`compare: ${ended} of ${jobs.length}; ${describe(job, done)}`); // prettier-ignore
      progress(0);
      answers[at] = await ask(worker, job, progress);
      ended++;
      if (reuse) mine.set(kind, worker);
      else await drop(worker);
    }
  }

  const watch = setInterval(() => {
    if (ctx.cancelled) for (const worker of workers) void worker.terminate();
  }, LOOK_MS);
  try {
    const lanes = Math.min(LANES_MAX, availableParallelism(), jobs.length);
    await Promise.all(Array.from({ length: lanes }, lane));
    return answers;
  } catch (error) {
    next = jobs.length;
    if (ctx.cancelled) throw new CommandError("compare: cancelled");
    throw error;
  } finally {
    clearInterval(watch);
    await Promise.all([...workers].map(drop));
  }
}
