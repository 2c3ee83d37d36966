/** What /proc/PID says of a program's memory: maps, statm, and its lines of status. All empty for a kernel thread. */
import { NULL, PAGE_SIZE, hex } from "../../hal/addr.ts";
import {
  MmStruct, VM_EXEC, VM_READ, VM_WRITE, VmArea, type MmPtr, type VmaPtr,
} from "../../mm/mm_types.ts"; // prettier-ignore
import { PgTables } from "../../mm/pgtable.ts";
import { for_each_vma } from "../../mm/vma.ts";
import { ESRCH } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { find_task_by_pid } from "../pid.ts";
import { TaskStruct, type TaskPtr } from "../task.ts";
import { file_mode, kernfs_new_node, type KernfsPtr } from "./kernfs.ts";

/** Where the name of an area starts in its line. */
const NAME_COLUMN = 73;

/** `7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]` */
function maps_line(vma: VmaPtr): string {
  const [start, end, flags] = [VmArea.vm_start.get(vma), VmArea.vm_end.get(vma), VmArea.vm_flags.get(vma)];
  const may = (flag: number, letter: string): string => (flags & flag ? letter : "-");
  const rights = may(VM_READ, "r") + may(VM_WRITE, "w") + may(VM_EXEC, "x") + "p";
  const line = `${hex(start, 8)}-${hex(end, 8)} ${rights} 00000000 00:00 0 `;
  const name = area_name(VmArea.vm_mm.get(vma), start, end);
  return name === "" ? line : line.padEnd(NAME_COLUMN) + name;
}

function area_name(mm: MmPtr, start: number, end: number): string {
  if (start < MmStruct.brk.get(mm) && end > MmStruct.start_brk.get(mm)) return "[heap]";
  return start < MmStruct.start_stack.get(mm) && end >= MmStruct.start_stack.get(mm) ? "[stack]" : "";
}

const maps = (mm: MmPtr): string => [...for_each_vma(mm)].map((vma) => maps_line(vma) + "\n").join("");

function statm(mm: MmPtr): string {
  const data = MmStruct.data_vm.get(mm) + MmStruct.stack_vm.get(mm);
  return `${MmStruct.total_vm.get(mm)} ${MmStruct.rss_anon.get(mm)} 0 0 0 ${data} 0\n`;
}

/** Lines of /proc/PID/status: name and value. */
export function status_vm_fields(task: TaskPtr): readonly (readonly [string, string])[] {
  const mm = TaskStruct.mm.get(task);
  if (mm === NULL) return [];
  const pages = (field: { get(mm: MmPtr): number }): number => field.get(mm) * (PAGE_SIZE / 1024);
  const values: Record<string, number> = {
    VmPeak: pages(MmStruct.hiwater_vm), VmSize: pages(MmStruct.total_vm), VmLck: 0, VmPin: 0,
    VmHWM: pages(MmStruct.hiwater_rss), VmRSS: pages(MmStruct.rss_anon), RssAnon: pages(MmStruct.rss_anon), RssFile: 0,
    RssShmem: 0, VmData: pages(MmStruct.data_vm), VmStk: pages(MmStruct.stack_vm), VmExe: 0, VmLib: 0,
    VmPTE: PgTables.pgtables_bytes.get(MmStruct.tables.at(mm)) / 1024, VmSwap: 0,
  }; // prettier-ignore
  return Object.entries(values).map(([name, kib]) => [name, `${String(kib).padStart(8)} kB`]);
}

const of_mm =
  (show: (mm: MmPtr) => string, without: string) =>
  (pid: number): string | number => {
    const task = find_task_by_pid(pid);
    if (task === NULL) return -ESRCH;
    const mm = TaskStruct.mm.get(task);
    return mm === NULL ? without : show(mm);
  };

const symbols = {
  maps: ksym("proc_pid_maps", of_mm(maps, "")),
  statm: ksym("proc_pid_statm", of_mm(statm, "0 0 0 0 0 0 0\n")),
} as const;

/** Boot: adds the files to the directory that stands for all pids. */
export function proc_maps_init(pid: KernfsPtr): void {
  for (const name of ["maps", "statm"] as const)
    kernfs_new_node(pid, name, { mode: file_mode(0o444), show: symbols[name] });
}
