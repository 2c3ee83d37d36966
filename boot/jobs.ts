/**
 * Background jobs of the console (`CMD &`): commands that go on between the lines that follow.
 *
 * A job runs from one `ctx.pause()` to the next, a step, and only when the session grants it steps; how many is a fixed
 * number a turn and never a matter of time, so a run with jobs is as repeatable as one without.
 */
import type { Job } from "./commands/registry.ts";

interface Running extends Job {
  steps: number;
  granted: number;
  cancelled: boolean;
  done: boolean;
  /** Ends the wait in `pause`. */
  go?: (() => void) | undefined;
  /** Ends the wait in `advance`: the job used up its grant, or ended. */
  parked?: (() => void) | undefined;
}

/** What a command sees of the job it runs as. */
export interface JobHandle {
  readonly id: number;
  readonly cancelled: boolean;
  /** The end of a step: goes on once steps are granted. */
  pause(): Promise<void>;
}

export interface Jobs {
  /** Starts a job; its body runs when steps are granted. */
  start(command: string, body: (handle: JobHandle) => Promise<void>): number;
  list(): Job[];
  /** Grants every job `steps` steps, one job after the other. */
  advance(steps: number): Promise<void>;
  /** Runs a job, or all, to the end. */
  finish(id?: number): Promise<void>;
  /** Asks a job to end, and runs it until it has. False if there is none of this number. */
  kill(id: number): Promise<boolean>;
}

/** Makes an empty list of jobs. */
export function create_jobs(): Jobs {
  const running: Running[] = [];
  let last = 0;

  async function pause(job: Running): Promise<void> {
    job.steps++;
    if (job.granted-- > 0) return;
    job.parked?.();
    await new Promise<void>((go) => (job.go = go));
  }

  async function advance_job(job: Running, steps: number): Promise<void> {
    const parked = new Promise<void>((resolve) => (job.parked = resolve));
    job.granted = steps - 1;
    job.go!();
    await parked;
    if (job.done) running.splice(running.indexOf(job), 1);
  }

  function start(command: string, body: (handle: JobHandle) => Promise<void>): number {
    const job: Running = { id: ++last, command, steps: 0, granted: 0, cancelled: false, done: false };
    running.push(job);
    const handle: JobHandle = {
      id: job.id,
      get cancelled() {
        return job.cancelled;
      },
      pause: () => pause(job),
    };
    const end = (): void => {
      job.done = true;
      job.parked?.();
    };
    void new Promise<void>((go) => (job.go = go)).then(() => body(handle)).finally(end);
    return job.id;
  }

  async function finish(id?: number): Promise<void> {
    for (const job of [...running])
      while (!job.done && (id === undefined || job.id === id)) await advance_job(job, 1024);
  }

  return {
    start,
    list: () => running.map(({ id, command, steps }) => ({ id, command, steps })),
    async advance(steps) {
      for (const job of [...running]) await advance_job(job, steps);
    },
    finish,
    async kill(id) {
      const job = running.find((candidate) => candidate.id === id);
      if (!job) return false;
      job.cancelled = true;
      await finish(id);
      return true;
    },
  };
}
