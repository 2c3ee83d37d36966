/**
 * Run queues: which task a CPU runs next.
 *
 *     runqueue (one a CPU)   queue  ->  task.run_list  ->  task.run_list …      all tasks that want to run, in turn
 *
 * Round robin: the first of the queue runs up to TIME_SLICE entries, then goes to the end. A new task belongs to the
 * CPU with the fewest runnable tasks (then the fewest tasks, then the lowest number) and stays there, so that load, and
 * with it allocation, is spread over CPUs and nodes. Which CPU gets the next kernel entry is another matter:
 * kernel/lockstep.ts.
 *
 * Locks: runqueue.lock. Unlike Linux: one class, no priorities, no migration.
 */
import { NULL, type CpuId, type Ptr } from "../hal/addr.ts";
import { HZ, jiffies } from "../hal/clock.ts";
import { cpu_is_online, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../hal/image.ts";
import { ram_zero } from "../hal/ram.ts";
import { set_report_current } from "./lib/dump_stack.ts";
import { ksym } from "./lib/ksym.ts";
import {
  ListHead,
  init_list_head,
  list_add_tail,
  list_del_init,
  list_empty,
  list_move_tail,
  list_next,
} from "./lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "./lib/spinlock.ts";
import {
  PF_IDLE, TASK_INTERRUPTIBLE, TASK_NEW, TASK_RUNNING, TASK_UNINTERRUPTIBLE, TaskStruct, current_task, idle_task,
  set_current_task, tasklist, type TaskPtr,
} from "./task.ts"; // prettier-ignore
import { timers_init } from "./timer.ts";

/** Entries that a task runs before it is another's turn. */
export const TIME_SLICE = 4;

export const runqueue = per_cpu_data("runqueue", {
  lock: SpinLock,
  nr_running: "u32", // tasks on `queue`
  nr_tasks: "u32", // tasks that belong to this CPU, sleeping ones too
  last: "*task_struct", // ran the last entry; NULL: none, or it ended
  queue: ListHead,
  nr_switches: "u64",
  entries: "u64", // entries run
  busy_ticks: "u32", // ticks that found the CPU with work
  idle_ticks: "u32",
});

const loadavg = static_data("loadavg", {
  next: "u64", // jiffies of the next sample
  avenrun: "u32[3]", // over 1, 5, 15 minutes; 11 bits of fraction
});
const LOAD_FREQ = 5 * HZ + 1;
const FSHIFT = 11;
const EXP: readonly number[] = Object.freeze([1884, 2014, 2037]);

const rq_of = (cpu: CpuId): Ptr => per_cpu_ptr(runqueue.ptr, cpu);

/** Who runs, for reports. */
const report_current = ksym("report_current", () => ({
  comm: TaskStruct.comm.get(current_task()),
  pid: TaskStruct.pid.get(current_task()),
}));

/** Boot: empty run queues, and CPU n's idle task as its current one. */
export function sched_init(): void {
  timers_init();
  set_report_current(report_current);
  init_list_head(tasklist.head);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    init_list_head(runqueue.queue.at(rq_of(cpu)));
    const idle = idle_task(cpu);
    ram_zero(idle, TaskStruct.sizeof);
    init_list_head(TaskStruct.children.at(idle));
    TaskStruct.comm.set(idle, `swapper/${cpu}`);
    TaskStruct.flags.set(idle, PF_IDLE);
    TaskStruct.cpu.set(idle, cpu);
    on_cpu(cpu, () => set_current_task(idle));
  }
  loadavg.next = LOAD_FREQ;
}

function enqueue(task: TaskPtr): void {
  const rq = rq_of(TaskStruct.cpu.get(task));
  spin_lock(runqueue.lock.at(rq));
  TaskStruct.on_rq.set(task, 1);
  TaskStruct.time_slice.set(task, TIME_SLICE);
  list_add_tail(TaskStruct.run_list.at(task), runqueue.queue.at(rq));
  runqueue.nr_running.set(rq, runqueue.nr_running.get(rq) + 1);
  spin_unlock(runqueue.lock.at(rq));
}

function dequeue(task: TaskPtr): void {
  if (!TaskStruct.on_rq.get(task)) return;
  const rq = rq_of(TaskStruct.cpu.get(task));
  spin_lock(runqueue.lock.at(rq));
  TaskStruct.on_rq.set(task, 0);
  list_del_init(TaskStruct.run_list.at(task));
  runqueue.nr_running.set(rq, runqueue.nr_running.get(rq) - 1);
  spin_unlock(runqueue.lock.at(rq));
}

function select_cpu(): CpuId {
  let best = 0;
  const load = (cpu: CpuId): number => runqueue.nr_running.get(rq_of(cpu)) * 65536 + runqueue.nr_tasks.get(rq_of(cpu));
  for (let cpu = 1; cpu < nr_cpu_ids(); cpu++) if (cpu_is_online(cpu) && load(cpu) < load(best)) best = cpu;
  return best;
}

/** Gives a task that fork made a CPU. It does not run yet. */
export function sched_fork(task: TaskPtr): void {
  const cpu = select_cpu();
  TaskStruct.cpu.set(task, cpu);
  TaskStruct.state.set(task, TASK_NEW);
  runqueue.nr_tasks.set(rq_of(cpu), runqueue.nr_tasks.get(rq_of(cpu)) + 1);
}

/** Gives a task that does not run yet another CPU. */
export function set_task_cpu(task: TaskPtr, cpu: CpuId): void {
  for (const [at, by] of [[TaskStruct.cpu.get(task), -1], [cpu, 1]] as const)
    runqueue.nr_tasks.set(rq_of(at), runqueue.nr_tasks.get(rq_of(at)) + by); // prettier-ignore
  TaskStruct.cpu.set(task, cpu);
}

/** Takes a task off its CPU for good and leaves it in `state`. */
export function sched_exit(task: TaskPtr, state: number): void {
  const rq = rq_of(TaskStruct.cpu.get(task));
  dequeue(task);
  TaskStruct.state.set(task, state);
  if (runqueue.last.get(rq) === task) runqueue.last.set(rq, NULL);
  runqueue.nr_tasks.set(rq, runqueue.nr_tasks.get(rq) - 1);
}

/** Takes a task that is about to sleep off its run queue. */
export function sleep_on_rq(task: TaskPtr, state: number): void {
  dequeue(task);
  TaskStruct.state.set(task, state);
}

/** Makes a new or sleeping task runnable; false if it was, or has ended. Context: any. */
export function wake_up_process(task: TaskPtr): boolean {
  if (!(TaskStruct.state.get(task) & (TASK_NEW | TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE))) return false;
  TaskStruct.state.set(task, TASK_RUNNING);
  enqueue(task);
  return true;
}

/** The task whose turn it is on a CPU, marked as the one that has it; NULL if none wants to run. */
export function pick_next_task(cpu: CpuId): TaskPtr {
  const rq = rq_of(cpu);
  const head = runqueue.queue.at(rq);
  if (list_empty(head)) return NULL;
  const task: TaskPtr = list_next(head) - TaskStruct.run_list.offset;
  if (task !== runqueue.last.get(rq)) {
    runqueue.last.set(rq, task);
    runqueue.nr_switches.set(rq, runqueue.nr_switches.get(rq) + 1);
    TaskStruct.nr_switches.set(task, TaskStruct.nr_switches.get(task) + 1);
  }
  return task;
}

/** Charges a task for one entry; one whose slice is used up goes to the end of its queue. */
export function account_entry(task: TaskPtr): void {
  const rq = rq_of(TaskStruct.cpu.get(task));
  runqueue.entries.set(rq, runqueue.entries.get(rq) + 1);
  TaskStruct.utime.set(task, TaskStruct.utime.get(task) + 1);
  if (!TaskStruct.on_rq.get(task)) return;
  const left = TaskStruct.time_slice.get(task) - 1;
  TaskStruct.time_slice.set(task, left > 0 ? left : TIME_SLICE);
  if (left <= 0) list_move_tail(TaskStruct.run_list.at(task), runqueue.queue.at(rq));
}

/** Gives the rest of a task's slice to the next one. */
export function yield_task(task: TaskPtr): void {
  TaskStruct.time_slice.set(task, 1);
}

/** Tasks on a CPU's run queue. */
export function cpu_nr_running(cpu: CpuId): number {
  return runqueue.nr_running.get(rq_of(cpu));
}

/** Tasks that run or want to, on all CPUs. */
export function nr_running(): number {
  let sum = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) sum += cpu_nr_running(cpu);
  return sum;
}

/** Context switches of all CPUs since boot. */
export function nr_context_switches(): number {
  let sum = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) sum += runqueue.nr_switches.get(rq_of(cpu));
  return sum;
}

/** Busy and idle ticks of a CPU. */
export function cpu_ticks(cpu: CpuId): { busy: number; idle: number } {
  return { busy: runqueue.busy_ticks.get(rq_of(cpu)), idle: runqueue.idle_ticks.get(rq_of(cpu)) };
}

/** `ticks` timer interrupts went by, with the CPUs as busy as they are now. */
export function account_ticks(ticks: number): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const field = cpu_nr_running(cpu) > 0 ? runqueue.busy_ticks : runqueue.idle_ticks;
    field.set(rq_of(cpu), field.get(rq_of(cpu)) + ticks);
  }
  for (; loadavg.next <= jiffies(); loadavg.next = loadavg.next + LOAD_FREQ) calc_load();
}

/** Every five seconds: each average goes a little towards the number of runnable tasks. */
function calc_load(): void {
  const active = nr_running() << FSHIFT;
  for (const [i, exp] of EXP.entries()) {
    const load = loadavg.avenrun.get(i);
    const next = load * exp + active * ((1 << FSHIFT) - exp) + (active >= load ? (1 << FSHIFT) - 1 : 0);
    loadavg.avenrun.set(i, Math.floor(next / (1 << FSHIFT)));
  }
}

/** Load averages over 1, 5 and 15 minutes, as /proc/loadavg shows them. */
export function get_avenrun(): number[] {
  return EXP.map((_, i) => loadavg.avenrun.get(i) / (1 << FSHIFT));
}
