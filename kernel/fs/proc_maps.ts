/** What /proc/PID says of a program's memory: maps, statm, and its lines of status. All empty for a kernel thread. */
import { NULL, PAGE_SIZE, hex } from "../../hal/addr.ts";
import { AS_SHMEM, AddressSpace } from "../../mm/address_space.ts";
import {
  MmStruct, VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE, VmArea, get_mm_rss, type MmPtr, type VmaPtr,
} from "../../mm/mm_types.ts"; // prettier-ignore
import { PgTables } from "../../mm/pgtable.ts";
import { for_each_vma } from "../../mm/vma.ts";
import { ESRCH } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { find_task_by_pid } from "../pid.ts";
import { TaskStruct, type TaskPtr } from "../task.ts";
import { d_unhashed } from "./dcache.ts";
import { File, Inode, SuperBlock } from "./fs.ts";
import { file_mode, kernfs_new_node, type KernfsPtr } from "./kernfs.ts";
import { d_path } from "./namespace.ts";

/** Where the name of an area starts in its line. */
const NAME_COLUMN = 73;

/**
 *     7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
 *     7ffff7ff7000-7ffff7fff000 r--s 00002000 00:04 16                         /usr/media/film0
 */
function maps_line(vma: VmaPtr): string {
  const [start, end, flags] = [VmArea.vm_start.get(vma), VmArea.vm_end.get(vma), VmArea.vm_flags.get(vma)];
  const may = (flag: number, letter: string): string => (flags & flag ? letter : "-");
  const rights = may(VM_READ, "r") + may(VM_WRITE, "w") + may(VM_EXEC, "x") + (flags & VM_MAYSHARE ? "s" : "p");
  const line = `${hex(start, 8)}-${hex(end, 8)} ${rights} ${file_place(vma)} `;
  const name = vma_name(vma);
  return name === "" ? line : line.padEnd(NAME_COLUMN) + name;
}

/** Path of an area's file, `[heap]`, `[stack]`, or nothing. */
export function vma_name(vma: VmaPtr): string {
  if (VmArea.vm_file.get(vma) !== NULL) return file_name(vma);
  return area_name(VmArea.vm_mm.get(vma), VmArea.vm_start.get(vma), VmArea.vm_end.get(vma));
}

/** Offset, device and inode. */
function file_place(vma: VmaPtr): string {
  const file = VmArea.vm_file.get(vma);
  if (file === NULL) return "00000000 00:00 0";
  const inode = File.f_inode.get(file);
  const dev = hex(SuperBlock.s_dev.get(Inode.i_sb.get(inode)), 2);
  return `${hex(VmArea.vm_pgoff.get(vma) * PAGE_SIZE, 8)} 00:${dev} ${Inode.i_ino.get(inode)}`;
}

function file_name(vma: VmaPtr): string {
  if (AddressSpace.flags.get(VmArea.vm_mapping.get(vma)) & AS_SHMEM) return "/dev/zero (deleted)";
  const [mnt, dentry] = [File.f_path_mnt.get(VmArea.vm_file.get(vma)), File.f_path_dentry.get(VmArea.vm_file.get(vma))];
  return d_path({ mnt, dentry }) + (d_unhashed(dentry) ? " (deleted)" : "");
}

function area_name(mm: MmPtr, start: number, end: number): string {
  if (start < MmStruct.brk.get(mm) && end > MmStruct.start_brk.get(mm)) return "[heap]";
  return start < MmStruct.start_stack.get(mm) && end >= MmStruct.start_stack.get(mm) ? "[stack]" : "";
}

const maps = (mm: MmPtr): string => [...for_each_vma(mm)].map((vma) => maps_line(vma) + "\n").join("");

function statm(mm: MmPtr): string {
  const data = MmStruct.data_vm.get(mm) + MmStruct.stack_vm.get(mm);
  const shared = MmStruct.rss_file.get(mm) + MmStruct.rss_shmem.get(mm);
  return `${MmStruct.total_vm.get(mm)} ${get_mm_rss(mm)} ${shared} 0 0 ${data} 0\n`;
}

/** Lines of /proc/PID/status: name and value. */
export function status_vm_fields(task: TaskPtr): readonly (readonly [string, string])[] {
  const mm = TaskStruct.mm.get(task);
  if (mm === NULL) return [];
  const pages = (field: { get(mm: MmPtr): number }): number => field.get(mm) * (PAGE_SIZE / 1024);
  const values: Record<string, number> = {
    VmPeak: pages(MmStruct.hiwater_vm), VmSize: pages(MmStruct.total_vm), VmLck: 0, VmPin: 0,
    VmHWM: pages(MmStruct.hiwater_rss), VmRSS: get_mm_rss(mm) * (PAGE_SIZE / 1024),
    RssAnon: pages(MmStruct.rss_anon), RssFile: pages(MmStruct.rss_file), RssShmem: pages(MmStruct.rss_shmem),
    VmData: pages(MmStruct.data_vm), VmStk: pages(MmStruct.stack_vm), VmExe: 0, VmLib: 0,
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
