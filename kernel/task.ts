/**
 * Tasks: the structs, what they are made from, and how to walk them.
 *
 *     task_struct   what runs: a program (from its journal) or a kernel thread (a step function)
 *       thread_pid -> pid            its number, in the pid hash                    kernel/pid.ts
 *       signal     -> signal_struct  what waits for its children                    kernel/exit.ts
 *       sighand    -> sighand_struct       cred -> cred                             kernel/fork.ts
 *       stack      -> 4 pages        kernel stack                                   kernel/fork.ts
 *       journal    -> pages          all that the program was ever told             kernel/journal.ts
 *       mm         -> mm_struct      address space                                  mm/mm_types.ts
 *       files, fs                    open files and folder; kernel/fs owns them
 *
 * Each of the structs comes from a slab cache of its own, as on Linux. task_struct and sighand_struct have constructors:
 * their list heads are empty and their locks free in every object that lies in a slab, and whoever frees one leaves it
 * so; so fork sets only what differs between tasks.
 *
 * A task that sleeps is bytes and nothing else. Its state letter, as ps shows it: R runs or wants to, S and D sleep,
 * Z ended and its parent has not asked, X is being taken apart.
 *
 * Locks: tasklist_lock protects the list of tasks and the family fields; runqueue.lock the fields of the scheduler; all
 * other fields are touched by the task itself, in its own entries.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { smp_processor_id, this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { TaskMempolicy, switch_mempolicy } from "../mm/mempolicy.ts";
import { switch_mm } from "../mm/tlbflush.ts";
import { ListHead, list_next } from "./lib/list.ts";
import { SpinLock } from "./lib/spinlock.ts";
import { TimerList } from "./timer.ts";

export const THREAD_SIZE_ORDER = 2;
export const THREAD_SIZE = 4096 << THREAD_SIZE_ORDER;

/** `state` of a task. */
export const TASK_RUNNING = 0;
export const TASK_INTERRUPTIBLE = 1;
export const TASK_UNINTERRUPTIBLE = 2;
export const EXIT_DEAD = 0x10;
export const EXIT_ZOMBIE = 0x20;
export const TASK_NEW = 0x800;
/** Bits of `flags`. */
export const PF_IDLE = 0x2;
export const PF_EXITING = 0x4;
export const PF_KTHREAD = 0x200000;

/** Tasks that wait for something. */
export const WaitQueueHead = struct("wait_queue_head", { lock: SpinLock, head: ListHead });
export type WaitQueuePtr = Ptr<"wait_queue_head">;

/** What a program has been told, in a chain of pages; see kernel/journal.ts. */
export const Journal = struct("journal", {
  pages: "*journal_page", // the chain
  nr_pages: "u32",
  bytes: "u32", // of whole records
  pending: "u32", // bytes of the call in progress, right behind them; 0: none
  records: "u32",
  last: "u32", // where the last record starts
  digest: "u32", // hash of all records
  prev_digest: "u32", // of all but the last
});
export type JournalPtr = Ptr<"journal">;

export const SignalStruct = struct("signal_struct", {
  wait_chldexit: WaitQueueHead, // a parent in wait()
  nr_children: "u32", // children ever made
  oom_score_adj: "s32", // -1000 .. 1000: how gladly the OOM killer takes the task
  cutime: "u64", // entries run by children that were reaped
  oom_victim: "u32", // chosen by the OOM killer, and still running
});
export const SighandStruct = struct("sighand_struct", { count: "u32", siglock: SpinLock, signalfd_wqh: WaitQueueHead });
export const Cred = struct("cred", { usage: "u32", uid: "u32", gid: "u32", euid: "u32", egid: "u32" });

/** A task: a program or a kernel thread. */
export const TaskStruct = struct("task_struct", {
  // The scheduler's. Protected by runqueue.lock.
  state: "u32", // TASK_* or EXIT_*
  cpu: "u32", // whose run queue it belongs to
  on_rq: "u32", // 1 while on that queue
  time_slice: "u32", // entries until the next task's turn
  run_list: ListHead,
  nr_switches: "u64", // times it got the CPU from another
  utime: "u64", // entries run
  // What it runs. Written by the task itself.
  flags: "u32", // PF_*
  exit_code: "u32", // status << 8 | signal, once it ended
  entry: "*fn", // one kernel entry of the task: (task) => void
  program: "*fn", // the program, or the kernel thread's step
  arg: "*void", // of the step
  stack: "*u8", // THREAD_SIZE bytes; NULL once it ended
  journal: Journal,
  progress: "u64", // what the call in progress must remember while it sleeps; 0 at its start
  // Waiting.
  wait_entry: ListHead, // wait_queue.lock
  wait_queue: "*wait_queue_head", // the queue it sleeps on, or NULL
  timer: TimerList, // wakes it from sleep()
  // Signals.
  sig_pending: "u32", // bit n - 1: signal n was sent
  should_stop: "u32", // a kernel thread is asked to end
  signal: "*signal_struct",
  sighand: "*sighand_struct",
  cred: "*cred",
  mempolicy: TaskMempolicy, // which nodes its pages come from
  mm: "*mm_struct", // a program's address space; NULL for kernel threads, and once it ended
  // Open files and folder: kernel/fs.
  files: "*files_struct",
  fs: "*fs_struct",
  // Who it is. Written once.
  pid: "u32",
  tgid: "u32",
  thread_pid: "*pid",
  start_time: "u64", // ns since power-on
  comm: "char[16]",
  // Family. Protected by tasklist_lock.
  tasks: ListHead, // all tasks, oldest first
  parent: "*task_struct",
  children: ListHead, // oldest first
  sibling: ListHead,
});
export type TaskPtr = Ptr<"task_struct">;

export const tasklist = static_data("tasklist", {
  lock: SpinLock,
  head: ListHead,
  nr_threads: "u32", // tasks there are, zombies too
  nr_processes: "u32", // those of them that run programs
  total_forks: "u32", // tasks ever made
});

/** `system_state`: what the machine as a whole is doing. */
export const SYSTEM_BOOTING = 0;
export const SYSTEM_RUNNING = 1;
export const SYSTEM_HALT = 2;
export const system_status = static_data("system_status", { state: "u32" });

/** The task each CPU runs at the moment, and its idle task, which needs no memory of its own. */
const current_of = per_cpu_data("current_task", { task: "*task_struct", idle: TaskStruct });

/** The task that this CPU runs; its idle task between entries; NULL before sched_init. */
export function current_task(): TaskPtr {
  return current_of.task.get(this_cpu_ptr(current_of.ptr));
}

export function set_current_task(task: TaskPtr): void {
  current_of.task.set(this_cpu_ptr(current_of.ptr), task);
  switch_mempolicy(TaskStruct.mempolicy.at(task));
  switch_mm(TaskStruct.mm.get(task));
}

/** The idle task ("swapper") of a CPU: pid 0, on no list. */
export function idle_task(cpu: number): TaskPtr {
  return current_of.idle.at(per_cpu_ptr(current_of.ptr, cpu));
}

/** All tasks but the idle ones, oldest first. The body may not free the task it is given. */
export function* for_each_process(): Generator<TaskPtr> {
  for (let node = list_next(tasklist.head); node !== tasklist.head; node = list_next(node))
    yield node - TaskStruct.tasks.offset;
}

/** Children of a task, oldest first. */
export function* for_each_child(parent: TaskPtr): Generator<TaskPtr> {
  const head = TaskStruct.children.at(parent);
  for (let node = list_next(head); node !== head; node = list_next(node)) yield node - TaskStruct.sibling.offset;
}

/** The pid of a task's parent; 0 for those that boot made. */
export function task_ppid(task: TaskPtr): number {
  const parent = TaskStruct.parent.get(task);
  return parent === NULL ? 0 : TaskStruct.pid.get(parent);
}

/** The letter that ps and /proc/PID/stat show. */
export function task_state_char(task: TaskPtr): string {
  const state = TaskStruct.state.get(task);
  if (state & EXIT_ZOMBIE) return "Z";
  if (state & EXIT_DEAD) return "X";
  return state & TASK_INTERRUPTIBLE ? "S" : state & TASK_UNINTERRUPTIBLE ? "D" : "R";
}

/** True for the program that boot started: its end is the machine's. */
export function is_global_init(task: TaskPtr): boolean {
  return TaskStruct.pid.get(task) === 1 && !(TaskStruct.flags.get(task) & PF_KTHREAD);
}

/** True once a task has ended, zombie or not. */
export function task_is_dead(task: TaskPtr): boolean {
  return (TaskStruct.state.get(task) & (EXIT_ZOMBIE | EXIT_DEAD)) !== 0;
}

/** "worker[12]": how messages name a task. */
export function task_name(task: TaskPtr): string {
  return task === NULL
    ? `swapper/${smp_processor_id()}[0]`
    : `${TaskStruct.comm.get(task)}[${TaskStruct.pid.get(task)}]`;
}
