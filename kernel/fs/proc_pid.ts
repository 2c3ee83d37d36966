/** What /proc/PID says of a task: status, stat, comm; memory: proc_maps.ts. A pid that is gone reads as -ESRCH. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { NSEC_PER_SEC } from "../../hal/clock.ts";
import { MmStruct, get_mm_rss } from "../../mm/mm_types.ts";
import { format_list } from "../lib/bitops.ts";
import { ENOENT, ESRCH } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { ENTRY_NSEC } from "../lockstep.ts";
import { find_task_by_pid } from "../pid.ts";
import { PF_KTHREAD, TaskStruct, for_each_process, task_ppid, task_state_char, type TaskPtr } from "../task.ts";
import { FilesStruct } from "./fs.ts";
import { file_mode, kernfs_new_node } from "./kernfs.ts";
import { proc_maps_init, status_vm_fields } from "./proc_maps.ts";
import { proc_numa_maps_init } from "./proc_numa_maps.ts";
import { proc_oom_init } from "./proc_oom.ts";
import { proc_create_many } from "./procfs.ts";
import { format_mask } from "./seq_file.ts";

const STATE_NAMES: Readonly<Record<string, string>> = Object.freeze({
  R: "running", S: "sleeping", D: "disk sleep", Z: "zombie", X: "dead",
}); // prettier-ignore

function status(task: TaskPtr): string {
  const pid = TaskStruct.pid.get(task);
  const state = task_state_char(task);
  const files = TaskStruct.files.get(task);
  const cpu = TaskStruct.cpu.get(task);
  const fields: readonly (readonly [string, string | number])[] = [
    ["Name", TaskStruct.comm.get(task)], ["Umask", "0022"], ["State", `${state} (${STATE_NAMES[state]})`],
    ["Tgid", TaskStruct.tgid.get(task)], ["Ngid", 0], ["Pid", pid], ["PPid", task_ppid(task)], ["TracerPid", 0],
    ["Uid", "0\t0\t0\t0"], ["Gid", "0\t0\t0\t0"], ["FDSize", files === 0 ? 0 : FilesStruct.max_fds.get(files)],
    ["Groups", ""], ["Kthread", TaskStruct.flags.get(task) & PF_KTHREAD ? 1 : 0], ...status_vm_fields(task), ["Threads", 1],
    ["SigPnd", TaskStruct.sig_pending.get(task).toString(16).padStart(16, "0")],
    ["Cpus_allowed", format_mask([cpu], cpu + 1)], ["Cpus_allowed_list", format_list([cpu])],
    ["voluntary_ctxt_switches", TaskStruct.nr_switches.get(task)], ["nonvoluntary_ctxt_switches", 0],
  ]; // prettier-ignore
  return fields.map(([name, value]) => `${name}:\t${value}\n`).join("");
}

const ticks = (ns: number): number => Math.floor(ns / (NSEC_PER_SEC / 100));

/** The 52 fields; what a task here has not is 0. */
function stat(task: TaskPtr): string {
  const fields = new Array<number | string>(52).fill(0);
  const set = (first: number, ...values: (number | string)[]): void =>
    values.forEach((v, i) => (fields[first - 1 + i] = v));
  set(1, TaskStruct.pid.get(task), `(${TaskStruct.comm.get(task)})`, task_state_char(task), task_ppid(task));
  set(5, TaskStruct.pid.get(task), TaskStruct.pid.get(task), 0, -1, TaskStruct.flags.get(task));
  set(15, ticks(TaskStruct.utime.get(task) * ENTRY_NSEC)); // stime: a program's entries are all spent in the kernel
  set(18, 20, 0, 1, 0, ticks(TaskStruct.start_time.get(task)));
  const mm = TaskStruct.mm.get(task);
  if (mm !== 0) set(23, MmStruct.total_vm.get(mm) * PAGE_SIZE, get_mm_rss(mm));
  set(39, TaskStruct.cpu.get(task));
  return fields.join(" ") + "\n";
}

const of_task =
  (show: (task: TaskPtr) => string) =>
  (pid: number): string | number => {
    const task = find_task_by_pid(pid);
    return task === 0 ? -ESRCH : show(task);
  };

const symbols = {
  status: ksym("proc_pid_status", of_task(status)),
  stat: ksym("proc_pid_stat", of_task(stat)),
  comm: ksym(
    "proc_pid_comm",
    of_task((task) => `${TaskStruct.comm.get(task)}\n`),
  ),
  names: ksym("proc_pid_names", () => [...for_each_process()].map((task) => `${TaskStruct.pid.get(task)}`)),
  find: ksym("proc_pid_find", (_parent: number, name: string) =>
    /^[1-9]\d{0,8}$/.test(name) && find_task_by_pid(Number(name)) !== 0 ? Number(name) : -ENOENT,
  ),
} as const;

/** Boot: makes the directory that stands for all pids. */
export function proc_pid_init(): void {
  const pid = proc_create_many("PID", symbols.names, symbols.find);
  if (pid <= 0) return;
  for (const name of ["status", "comm", "stat"] as const)
    kernfs_new_node(pid, name, { mode: file_mode(0o444), show: symbols[name] });
  proc_oom_init(pid);
  proc_maps_init(pid);
  proc_numa_maps_init(pid);
}
