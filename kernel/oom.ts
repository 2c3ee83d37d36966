/**
 * What the OOM killer (mm/oom_kill.ts) must know of tasks, and how it ends one.
 *
 * What a task holds: the pages of its address space, and those of its journal, which count as anonymous memory too. Kernel objects of a task are no part of rss, as in Linux, though they go with it: open files, kernel stack.
 *
 * Ending a task: SIGKILL, then, if it is not the one that runs, its end at once, in the entry of whoever needs memory. What
 * stays is a zombie without stack until its parent asks for it.
 */
import { NULL } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { MmStruct, type MmPtr } from "../mm/mm_types.ts";
import { PgTables } from "../mm/pgtable.ts";
import { SIGKILL, do_kill } from "./signal.ts";
import { set_oom_hooks, type OomTask } from "../mm/oom_kill.ts";
import { do_exit, finish_task } from "./exit.ts";
import { notifier_call_chain, oom_notify_list } from "./notifier.ts";
import { ksym } from "./lib/ksym.ts";
import {
  Cred, Journal, PF_EXITING, PF_IDLE, PF_KTHREAD, SignalStruct, TaskStruct, current_task, for_each_process,
  is_global_init, task_is_dead, type TaskPtr,
} from "./task.ts"; // prettier-ignore

/** A task in the OOM killer's terms. */
export function describe_task(task: TaskPtr): OomTask {
  const journal = Journal.nr_pages.get(TaskStruct.journal.at(task));
  const mm = TaskStruct.mm.get(task);
  const of_mm = (value: (mm: MmPtr) => number): number => (mm === NULL ? 0 : value(mm));
  const killed = (TaskStruct.sig_pending.get(task) & (1 << (SIGKILL - 1))) !== 0;
  return {
    task, pid: TaskStruct.pid.get(task), tgid: TaskStruct.tgid.get(task), comm: TaskStruct.comm.get(task),
    uid: Cred.uid.get(TaskStruct.cred.get(task)), total_vm: journal + of_mm(MmStruct.total_vm.get),
    rss_anon: journal + of_mm(MmStruct.rss_anon.get), rss_file: of_mm(MmStruct.rss_file.get), rss_shmem: of_mm(MmStruct.rss_shmem.get),
    pgtables_bytes: of_mm((space) => PgTables.pgtables_bytes.get(MmStruct.tables.at(space))), swapents: 0, oom_score_adj: SignalStruct.oom_score_adj.get(TaskStruct.signal.get(task)),
    unkillable: is_global_init(task) || (TaskStruct.flags.get(task) & PF_KTHREAD) !== 0,
    dying: killed || (TaskStruct.flags.get(task) & PF_EXITING) !== 0,
  }; // prettier-ignore
}

const tasks = ksym_of("oom_tasks", (): OomTask[] =>
  [...for_each_process()].filter((task) => !task_is_dead(task)).map(describe_task),
);

/** The task that runs; none between entries, and while the console does something. */
const current = ksym_of("oom_current", (): OomTask | undefined => {
  const task = current_task();
  return TaskStruct.flags.get(task) & PF_IDLE ? undefined : describe_task(task);
});

const kill = ksym_of("oom_kill", (task: TaskPtr): void => {
  do_kill(TaskStruct.pid.get(task), SIGKILL);
  if (task === current_task()) return SignalStruct.oom_victim.set(TaskStruct.signal.get(task), 1);
  do_exit(task, SIGKILL);
  finish_task(task);
});

const is_victim = ksym_of("is_oom_victim", (): boolean => {
  const signal = TaskStruct.signal.get(current_task());
  return signal !== 0 && SignalStruct.oom_victim.get(signal) !== 0;
});

const freed = static_data("oom_freed", { pages: "u32" });

/** Asks those on oom_notify_list to give pages back; how many they did. */
const notify = ksym_of("oom_notify", (): number => {
  freed.pages = 0;
  notifier_call_chain(oom_notify_list, 0, freed.$at("pages"));
  return freed.pages;
});

/** Names a function for the kernel and returns it. */
function ksym_of<T extends (...args: never[]) => unknown>(name: string, fn: T): T {
  ksym(name, fn);
  return fn;
}

/** Once there are tasks: the OOM killer may work. */
export function oom_init(): void {
  set_oom_hooks({ tasks, current, kill, notify, is_victim });
}

/** Power-off: a request that finds no memory fails. */
export function oom_exit(): void {
  set_oom_hooks(null);
}
