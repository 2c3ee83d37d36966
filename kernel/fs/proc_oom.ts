/**
 * /proc/PID/oom_score_adj, oom_score and oom_adj: how the OOM killer (mm/oom_kill.ts) ranks a task, and how to change it.
 *
 *     oom_score_adj   -1000 (never) to 1000, thousandths of all memory on top of what the task holds; children inherit it
 *     oom_score       0 to about 1333; 666 for a task that holds nothing and has no adjustment
 *     oom_adj         the old scale, -17 to 15
 */
import { OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN, oom_badness } from "../../mm/oom_kill.ts";
import { node_state } from "../../mm/zone.ts";
import { EINVAL, ESRCH } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { pr_warn } from "../lib/printk.ts";
import { describe_task } from "../oom.ts";
import { find_task_by_pid } from "../pid.ts";
import { SignalStruct, TaskStruct, current_task, task_is_dead, type TaskPtr } from "../task.ts";
import { file_mode, kernfs_new_node, type KernfsPtr, type Store } from "./kernfs.ts";

/** The old scale: -17 is never, 15 is most. */
const OOM_DISABLE = -17;
const OOM_ADJUST_MAX = 15;

const adj_of = (task: TaskPtr): number => SignalStruct.oom_score_adj.get(TaskStruct.signal.get(task));
const set_adj = (task: TaskPtr, adj: number): void => SignalStruct.oom_score_adj.set(TaskStruct.signal.get(task), adj);

function oom_score(task: TaskPtr): number {
  const total = node_state.totalram_pages;
  const badness = task_is_dead(task) ? -Infinity : oom_badness(describe_task(task), total);
  return badness === -Infinity ? 0 : Math.trunc(((1000 + Math.trunc((badness * 1000) / total)) * 2) / 3);
}

function old_adj(task: TaskPtr): number {
  const adj = adj_of(task);
  return adj === OOM_SCORE_ADJ_MAX ? OOM_ADJUST_MAX : Math.trunc((adj * -OOM_DISABLE) / OOM_SCORE_ADJ_MAX);
}

/** Writing a number from `least` to `most`. */
const number_store =
  (least: number, most: number, set: (task: TaskPtr, value: number) => void): Store =>
  (pid, text) => {
    const value = /^\s*[+-]?\d{1,5}\s*$/.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= most)) return -EINVAL;
    const task = find_task_by_pid(pid);
    if (task === 0) return -ESRCH;
    set(task, value);
    return 0;
  };

function set_old_adj(task: TaskPtr, value: number): void {
  const [comm, pid] = [TaskStruct.comm.get(current_task()), TaskStruct.pid.get(current_task())];
  const file = `/proc/${TaskStruct.pid.get(task)}/oom`;
  pr_warn(`${comm} (${pid}): ${file}_adj is deprecated, please use ${file}_score_adj instead.`);
  set_adj(task, value === OOM_ADJUST_MAX ? OOM_SCORE_ADJ_MAX : Math.trunc((value * OOM_SCORE_ADJ_MAX) / -OOM_DISABLE));
}

const of_task =
  (value: (task: TaskPtr) => number) =>
  (pid: number): string | number => {
    const task = find_task_by_pid(pid);
    return task === 0 ? -ESRCH : `${value(task)}\n`;
  };

const FILES = Object.freeze([
  { name: "oom_adj", mode: 0o644, show: ksym("proc_pid_oom_adj", of_task(old_adj)),
    store: ksym("proc_pid_oom_adj_store", number_store(OOM_DISABLE, OOM_ADJUST_MAX, set_old_adj)) },
  { name: "oom_score", mode: 0o444, show: ksym("proc_pid_oom_score", of_task(oom_score)) },
  { name: "oom_score_adj", mode: 0o644, show: ksym("proc_pid_oom_score_adj", of_task(adj_of)),
    store: ksym("proc_pid_oom_score_adj_store", number_store(OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX, set_adj)) },
] as const); // prettier-ignore

/** Boot: the files below the directory that stands for all pids. */
export function proc_oom_init(pid_directory: KernfsPtr): void {
  for (const { name, mode, ...file } of FILES) kernfs_new_node(pid_directory, name, { mode: file_mode(mode), ...file });
}
