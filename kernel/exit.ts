/**
 * How a task ends, and how its parent learns of it.
 *
 *     do_exit       memory given back, files closed, journal freed, children given to init, parent woken    -> zombie
 *     finish_task   after its last entry: the kernel stack
 *     do_wait       the parent asks: { pid, status }; then release_task frees the rest
 *
 * Nobody waits for a kernel thread: it is released after its last entry. A parent that waits sleeps on its
 * signal->wait_chldexit.
 *
 * Locks: tasklist_lock for the list of tasks and the family.
 */
import { NULL, hex } from "../hal/addr.ts";
import { events, has_listener } from "../hal/events.ts";
import { static_data } from "../hal/image.ts";
import { CLAIM_THREAD, unclaim } from "../mm/claims.ts";
import { mmput } from "../mm/mmap.ts";
import { journal_free } from "./journal.ts";
import { BUG_ON, panic } from "./lib/bug.ts";
import { ECHILD, EINVAL } from "./lib/errno.ts";
import { ksym_address, ksym_fn, type AnyFn } from "./lib/ksym.ts";
import { list_add_tail, list_del_init } from "./lib/list.ts";
import { spin_lock, spin_unlock } from "./lib/spinlock.ts";
import { find_task_by_pid, free_pid } from "./pid.ts";
import { sched_exit } from "./sched.ts";
import type { Result } from "./syscall.ts";
import {
  EXIT_DEAD, EXIT_ZOMBIE, PF_EXITING, PF_KTHREAD, SYSTEM_HALT, SignalStruct, TaskStruct, current_task, for_each_child,
  is_global_init, system_status, task_is_dead, task_name, tasklist, type TaskPtr,
} from "./task.ts"; // prettier-ignore
import { free_task, free_task_stack } from "./task_alloc.ts";
import { timer_delete } from "./timer.ts";
import { finish_wait, wait_on, wake_up } from "./wait.ts";

/** do_wait returns 0 at once where it would sleep. */
export const WNOHANG = 1;

/** What other subsystems do for a task. Slots, since they lie above. */
export const task_hooks = static_data("task_hooks", { fork: "*fn", exit: "*fn" });

/**
 * Says what happens to a task's open files and folder: `fork(child, parent)` gives the child its own, 0 or -errno and
 * then nothing is left over; `exit(task)` lets go of them and sets `files` and `fs` to NULL. Both functions are ksyms.
 */
export function set_task_hooks(fork: AnyFn, exit: AnyFn): void {
  task_hooks.fork = ksym_address(fork);
  task_hooks.exit = ksym_address(exit);
}

/** Calls the exit hook. */
export function exit_files(task: TaskPtr): void {
  if (task_hooks.exit !== NULL) ksym_fn(task_hooks.exit)(task);
}

/** Ends a task's use of its address space. */
export function exit_mm(task: TaskPtr): void {
  const mm = TaskStruct.mm.get(task);
  if (mm === NULL) return;
  TaskStruct.mm.set(task, NULL);
  mmput(mm);
}

/** The children of a task that ends become init's; zombies among them are init's to reap. */
function forget_original_parent(task: TaskPtr): void {
  const init = find_task_by_pid(1);
  const reaper = init === task ? NULL : init;
  spin_lock(tasklist.lock);
  for (const child of [...for_each_child(task)]) {
    list_del_init(TaskStruct.sibling.at(child));
    TaskStruct.parent.set(child, reaper);
    if (reaper !== NULL) list_add_tail(TaskStruct.sibling.at(child), TaskStruct.children.at(reaper));
  }
  spin_unlock(tasklist.lock);
  if (reaper !== NULL) wake_parent(reaper);
}

function wake_parent(parent: TaskPtr): void {
  wake_up(SignalStruct.wait_chldexit.at(TaskStruct.signal.get(parent)));
}

/**
 * Ends a task with an exit code (status << 8 | signal). It runs no further entry.
 *
 * Context: an entry of the task itself, or of anybody while the task is in no entry.
 */
export function do_exit(task: TaskPtr, code: number): void {
  BUG_ON(task_is_dead(task), `${task_name(task)} ends twice`);
  if (is_global_init(task) && system_status.state !== SYSTEM_HALT)
    panic(`Attempted to kill init! exitcode=0x${hex(code, 8)}`);
  TaskStruct.flags.set(task, TaskStruct.flags.get(task) | PF_EXITING);
  TaskStruct.exit_code.set(task, code);
  timer_delete(TaskStruct.timer.at(task));
  finish_wait(task);
  exit_mm(task);
  exit_files(task);
  journal_free(TaskStruct.journal.at(task));
  forget_original_parent(task);
  const is_kthread = (TaskStruct.flags.get(task) & PF_KTHREAD) !== 0;
  sched_exit(task, is_kthread ? EXIT_DEAD : EXIT_ZOMBIE);
  if (has_listener("task:exit"))
    events.emit("task:exit", { pid: TaskStruct.pid.get(task), comm: TaskStruct.comm.get(task), code });
  const parent = TaskStruct.parent.get(task);
  if (parent !== NULL && !is_kthread) wake_parent(parent);
}

/** Frees what a task that ended needs no more, once its last entry is over. */
export function finish_task(task: TaskPtr): void {
  free_task_stack(task);
  if (TaskStruct.state.get(task) & EXIT_DEAD) release_task(task);
}

/** Takes a task that ended off all lists and frees it. */
export function release_task(task: TaskPtr): void {
  unclaim(CLAIM_THREAD, task);
  TaskStruct.state.set(task, EXIT_DEAD);
  spin_lock(tasklist.lock);
  list_del_init(TaskStruct.tasks.at(task));
  list_del_init(TaskStruct.sibling.at(task));
  tasklist.nr_threads = tasklist.nr_threads - 1;
  if (!(TaskStruct.flags.get(task) & PF_KTHREAD)) tasklist.nr_processes = tasklist.nr_processes - 1;
  spin_unlock(tasklist.lock);
  free_pid(TaskStruct.thread_pid.get(task));
  free_task(task);
}

/**
 * Waits for a child: number `pid`, or any with -1. Returns `{ pid, status }` of one that ended and frees it; -ECHILD if
 * there is no such child. Context: system call; sleeps, or returns 0 instead with WNOHANG.
 */
export function do_wait(pid: number, options: number): Result {
  if (options & ~WNOHANG) return -EINVAL;
  const parent = current_task();
  const children = [...for_each_child(parent)].filter((child) => pid === -1 || TaskStruct.pid.get(child) === pid);
  const zombie = children.find((child) => TaskStruct.state.get(child) & EXIT_ZOMBIE);
  if (zombie !== undefined) return reap(parent, zombie);
  if (children.length === 0) return -ECHILD;
  return options & WNOHANG ? 0 : wait_on(SignalStruct.wait_chldexit.at(TaskStruct.signal.get(parent)));
}

function reap(parent: TaskPtr, child: TaskPtr): Result {
  const result = { pid: TaskStruct.pid.get(child), status: TaskStruct.exit_code.get(child) };
  const [signal, childs] = [TaskStruct.signal.get(parent), TaskStruct.signal.get(child)];
  const time = TaskStruct.utime.get(child) + SignalStruct.cutime.get(childs);
  SignalStruct.cutime.set(signal, SignalStruct.cutime.get(signal) + time);
  release_task(child);
  return result;
}
