/**
 * How tasks are made.
 *
 * copy_process, in this order; if a step fails, those before it are undone backwards and nothing is lost:
 *   1 task_struct, stack, signal_struct, sighand_struct, cred     kernel/task_alloc.ts
 *   2 the running task's memory policy; open files and folder     mm/mempolicy.ts, the hook of kernel/fs
 *   3 address space: areas copied, pages shared until written to      mm/mmap.ts
 *   4 journal: a copy of the parent's, call in progress included
 *   5 a number                                                    kernel/pid.ts
 *   6 lists and family: from here on it can be seen, and nothing fails
 *
 * Limits: max_threads in all (an eighth of RAM in kernel stacks), and RLIMIT_NPROC, half of that, of programs.
 * Unlike Linux: no clone flags; a program's task never shares anything with its parent's.
 */
import { NULL, PAGE_SIZE } from "../hal/addr.ts";
import { events, has_listener } from "../hal/events.ts";
import { static_data } from "../hal/image.ts";
import { anon_vma_init } from "../mm/anon_vma.ts";
import { zero_page_init } from "../mm/memory.ts";
import { mpol_dup } from "../mm/mempolicy.ts";
import { proc_caches_init } from "../mm/mm_types.ts";
import { dup_mm } from "../mm/mmap.ts";
import { node_state } from "../mm/zone.ts";
import { exit_files, exit_mm, task_hooks } from "./exit.ts";
import { journal_copy, journal_free } from "./journal.ts";
import { clamp } from "./lib/bitops.ts";
import { EAGAIN, ENOMEM, is_err } from "./lib/errno.ts";
import { ksym_fn, type FnPtr } from "./lib/ksym.ts";
import { list_add_tail } from "./lib/list.ts";
import { spin_lock, spin_unlock } from "./lib/spinlock.ts";
import { PID_MAX, Pid, alloc_pid, pid_init } from "./pid.ts";
import { sched_fork } from "./sched.ts";
import {
  Cred, PF_KTHREAD, SignalStruct, THREAD_SIZE, TaskStruct, tasklist, type TaskPtr,
} from "./task.ts"; // prettier-ignore
import { alloc_task, free_task, task_caches_init } from "./task_alloc.ts";
import { user_fault_init } from "./user_fault.ts";

const limits = static_data("fork_limits", { max_threads: "u32" });

/** Boot: caches, numbers, limits. */
export function fork_init(): void {
  task_caches_init();
  proc_caches_init();
  anon_vma_init();
  zero_page_init();
  user_fault_init();
  pid_init();
  limits.max_threads = clamp(Math.floor((node_state.totalram_pages * PAGE_SIZE) / (8 * THREAD_SIZE)), 20, PID_MAX - 1);
}

/** Tasks there may be at once. */
export function max_threads(): number {
  return limits.max_threads;
}

/** Programs there may be at once (RLIMIT_NPROC). */
export function rlimit_nproc(): number {
  return limits.max_threads >> 1;
}

export interface NewTask {
  readonly parent: TaskPtr;
  readonly comm: string;
  /** One kernel entry of the task: (task) => void. */
  readonly entry: FnPtr;
  readonly program: FnPtr;
  readonly arg?: number;
  readonly flags?: number;
}

/**
 * Makes a task; `wake_up_process` starts it. Returns it, or -EAGAIN (a limit), -ENOMEM, or what the files hook returns.
 *
 * Context: may sleep; the allocations are those of this CPU.
 */
export function copy_process(wanted: NewTask): TaskPtr {
  const { parent, flags = 0 } = wanted;
  const is_kthread = (flags & PF_KTHREAD) !== 0;
  if (tasklist.nr_threads >= limits.max_threads) return -EAGAIN;
  if (!is_kthread && tasklist.nr_processes >= rlimit_nproc()) return -EAGAIN;
  const task = alloc_task();
  if (task === NULL) return -ENOMEM;
  TaskStruct.comm.set(task, wanted.comm);
  TaskStruct.entry.set(task, wanted.entry);
  TaskStruct.program.set(task, wanted.program);
  TaskStruct.arg.set(task, wanted.arg ?? 0);
  TaskStruct.flags.set(task, flags);
  const error = copy_resources(task, parent, is_kthread);
  if (error !== 0) {
    free_task(task);
    return error;
  }
  link_task(task, parent);
  return task;
}

function copy_resources(task: TaskPtr, parent: TaskPtr, is_kthread: boolean): number {
  copy_creds(task, parent);
  const policy = mpol_dup(TaskStruct.mempolicy.at(task));
  if (policy !== 0) return policy;
  const files = is_kthread || task_hooks.fork === NULL ? 0 : (ksym_fn(task_hooks.fork)(task, parent) as number);
  if (files !== 0) return files;
  const journal = TaskStruct.journal.at(task);
  const copied = is_kthread ? 0 : copy_mm(task, parent) || journal_copy(journal, TaskStruct.journal.at(parent));
  const pid = copied !== 0 ? copied : alloc_pid(task);
  if (is_err(pid)) {
    journal_free(journal);
    exit_mm(task);
    if (!is_kthread) exit_files(task);
    return pid;
  }
  TaskStruct.thread_pid.set(task, pid);
  TaskStruct.pid.set(task, Pid.nr.get(pid));
  TaskStruct.tgid.set(task, Pid.nr.get(pid));
  return 0;
}

/** 0 or -ENOMEM. What an idle task starts has no address space until it becomes a program. */
function copy_mm(task: TaskPtr, parent: TaskPtr): number {
  const from = TaskStruct.mm.get(parent);
  if (from === NULL) return 0;
  const mm = dup_mm(from);
  TaskStruct.mm.set(task, mm);
  return mm === NULL ? -ENOMEM : 0;
}

/** A child has its parent's user; init, whose parent is an idle task, is root. */
function copy_creds(task: TaskPtr, parent: TaskPtr): void {
  const [cred, from] = [TaskStruct.cred.get(task), TaskStruct.cred.get(parent)];
  if (from === NULL) return;
  for (const field of [Cred.uid, Cred.gid, Cred.euid, Cred.egid]) field.set(cred, field.get(from));
}

function inherit_oom_score_adj(task: TaskPtr, parent: TaskPtr): void {
  const from = TaskStruct.signal.get(parent);
  if (from !== NULL) SignalStruct.oom_score_adj.set(TaskStruct.signal.get(task), SignalStruct.oom_score_adj.get(from));
}

function link_task(task: TaskPtr, parent: TaskPtr): void {
  const is_kthread = (TaskStruct.flags.get(task) & PF_KTHREAD) !== 0;
  inherit_oom_score_adj(task, parent);
  sched_fork(task);
  spin_lock(tasklist.lock);
  list_add_tail(TaskStruct.tasks.at(task), tasklist.head);
  if (TaskStruct.pid.get(parent) !== 0) {
    TaskStruct.parent.set(task, parent);
    list_add_tail(TaskStruct.sibling.at(task), TaskStruct.children.at(parent));
  }
  tasklist.nr_threads = tasklist.nr_threads + 1;
  if (!is_kthread) tasklist.nr_processes = tasklist.nr_processes + 1;
  tasklist.total_forks = tasklist.total_forks + 1;
  spin_unlock(tasklist.lock);
  const signal = TaskStruct.signal.get(parent);
  if (signal !== NULL) SignalStruct.nr_children.set(signal, SignalStruct.nr_children.get(signal) + 1);
  if (has_listener("task:fork"))
    events.emit("task:fork", {
      pid: TaskStruct.pid.get(task),
      parent: TaskStruct.pid.get(parent),
      comm: TaskStruct.comm.get(task),
    });
}
