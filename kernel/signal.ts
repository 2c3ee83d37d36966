/**
 * Signals, as far as a kernel without handlers has them: each ends the task, or does nothing.
 *
 * A signal is a bit in the task. It takes effect at the start of the task's next entry; a task that sleeps is woken for
 * it (in state D only once what it waits for has come).
 *
 * Unlike Linux: no handlers, no masks, no stopping and continuing, no SIGCHLD.
 */
import { NULL } from "../hal/addr.ts";
import { do_exit } from "./exit.ts";
import { __ffs } from "./lib/bitops.ts";
import { EINVAL, ESRCH } from "./lib/errno.ts";
import { find_task_by_pid } from "./pid.ts";
import { wake_up_process } from "./sched.ts";
import {
  PF_IDLE,
  PF_KTHREAD,
  TASK_INTERRUPTIBLE,
  TaskStruct,
  is_global_init,
  task_is_dead,
  type TaskPtr,
} from "./task.ts";
import { timer_delete } from "./timer.ts";
import { finish_wait } from "./wait.ts";

export const SIGINT = 2;
export const SIGABRT = 6;
export const SIGBUS = 7;
export const SIGKILL = 9;
export const SIGSEGV = 11;
export const SIGPIPE = 13;
export const SIGTERM = 15;
export const SIGXCPU = 24;
const NSIG = 32;
/** By default ignored: CHLD, CONT, URG, WINCH. */
const IGNORED: readonly number[] = Object.freeze([17, 18, 23, 28]);
/** Would stop a task: STOP, TSTP, TTIN, TTOU. */
const STOPS: readonly number[] = Object.freeze([19, 20, 21, 22]);

/**
 * Sends a signal to a task; 0 only asks whether there is such a task. 0, -ESRCH or -EINVAL.
 *
 * init and kernel threads ignore all signals, as on Linux. Context: any.
 */
export function do_kill(pid: number, signal: number): number {
  if (!(signal >= 0 && signal < NSIG) || STOPS.includes(signal)) return -EINVAL;
  const task = find_task_by_pid(pid);
  if (task === NULL) return -ESRCH;
  if (signal !== 0 && !IGNORED.includes(signal)) send_signal(task, signal);
  return 0;
}

/** Sends a signal to a task; init, kernel threads and idle tasks (the host's entries) ignore it. Context: any. */
export function send_signal(task: TaskPtr, signal: number): void {
  const unkillable = is_global_init(task) || (TaskStruct.flags.get(task) & (PF_KTHREAD | PF_IDLE)) !== 0;
  if (unkillable || task_is_dead(task)) return;
  TaskStruct.sig_pending.set(task, TaskStruct.sig_pending.get(task) | (1 << (signal - 1)));
  if (TaskStruct.state.get(task) !== TASK_INTERRUPTIBLE) return;
  finish_wait(task);
  timer_delete(TaskStruct.timer.at(task));
  wake_up_process(task);
}

/** Ends a task that got a signal; true if it did. Context: the start of the task's entry. */
export function exit_on_signal(task: TaskPtr): boolean {
  const pending = TaskStruct.sig_pending.get(task);
  if (pending === 0) return false;
  do_exit(task, __ffs(pending) + 1);
  return true;
}
