/**
 * Kernel threads: a step function over state that lies in RAM.
 *
 *     const step = ksym("kswapd", (node) => (work left ? RUN : SLEEP));
 *     const task = kthread_run(step, node, "kswapd0");
 *
 * Each entry of the thread calls `step(arg)` once. RUN: call me again when it is my turn; SLEEP: when somebody wakes me
 * (`wake_up_process`, a wait queue, a timer); EXIT: I have ended. Nothing needs to be restored when a realm attaches.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { CLAIM_THREAD, claiming } from "../mm/claims.ts";
import { do_exit, finish_task } from "./exit.ts";
import { copy_process } from "./fork.ts";
import { ENOMEM, is_err } from "./lib/errno.ts";
import { ksym, ksym_address, ksym_fn, type AnyFn, type FnPtr } from "./lib/ksym.ts";
import { find_task_by_pid } from "./pid.ts";
import { sleep_on_rq, wake_up_process } from "./sched.ts";
import {
  PF_KTHREAD,
  TASK_INTERRUPTIBLE,
  TASK_RUNNING,
  TaskStruct,
  current_task,
  idle_task,
  set_current_task,
  task_is_dead,
  type TaskPtr,
} from "./task.ts";

export const RUN = 0;
export const SLEEP = 1;
export const EXIT = 2;
/** One step of a kernel thread: RUN, SLEEP or EXIT. */
export type Step = (arg: Ptr) => number;

const kthread_step = (task: TaskPtr): number => {
  const verdict = (ksym_fn(TaskStruct.program.get(task)) as Step)(TaskStruct.arg.get(task));
  if (verdict === EXIT) do_exit(task, 0);
  // A step that put itself on a wait queue is asleep already.
  else if (verdict === SLEEP && TaskStruct.state.get(task) === TASK_RUNNING) sleep_on_rq(task, TASK_INTERRUPTIBLE);
  return verdict;
};
const kthread_entry = ksym("kthread_entry", (task: TaskPtr): void => void kthread_step(task));

/** Makes a kernel thread that does not run yet; its parent is kthreadd. The task, or -EAGAIN or -ENOMEM. */
export function kthread_create(step: AnyFn | FnPtr, arg: Ptr, name: string): TaskPtr {
  const program = ksym_address(step);
  const kthreadd = find_task_by_pid(2);
  const parent = kthreadd === NULL ? idle_task(0) : kthreadd;
  const wanted = { parent, comm: name, entry: kthread_entry, program, arg, flags: PF_KTHREAD };
  return claiming(CLAIM_THREAD, () => copy_process(wanted), -ENOMEM);
}

/** Makes a kernel thread and starts it. */
export function kthread_run(step: AnyFn | FnPtr, arg: Ptr, name: string): TaskPtr {
  const task = kthread_create(step, arg, name);
  if (!is_err(task)) wake_up_process(task);
  return task;
}

/** Steps that a thread which is asked to end gets before nobody waits for it any longer. */
const STOP_STEPS = 1000;

/**
 * Asks a kernel thread to end, its step finds `kthread_should_stop()` true, and waits for that: its last steps run here.
 * One that does not say EXIT goes on.
 */
export function kthread_stop(task: TaskPtr): void {
  TaskStruct.should_stop.set(task, 1);
  wake_up_process(task);
  const caller = current_task();
  if (caller === task) return;
  set_current_task(task);
  for (let i = 0; i < STOP_STEPS && !task_is_dead(task); i++) if (kthread_step(task) === SLEEP) break;
  set_current_task(caller);
  if (task_is_dead(task)) finish_task(task);
}

/** Ends a kernel thread and frees it. Context: not from an entry of its own. */
export function kthread_end(task: TaskPtr): void {
  if (!task_is_dead(task)) do_exit(task, 0);
  finish_task(task);
}

/** True in the step of a thread that was asked to end. */
export function kthread_should_stop(): boolean {
  return TaskStruct.should_stop.get(current_task()) !== 0;
}

/** The step of kthreadd, the parent of all kernel threads: it has nothing to do but be there. */
export const kthreadd = ksym("kthreadd", () => SLEEP);
