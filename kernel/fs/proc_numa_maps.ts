/**
 * /proc/PID/numa_maps: for each area of a program's memory the policy by which its pages are asked for, and where they lie.
 *
 *     7ffff7ff7000 bind:1 anon=3 dirty=3 active=0 N1=3 kernelpagesize_kB=4
 *
 * Pages that are only read, and so are the zero page, are not counted.
 */
import { NULL, hex, type NodeId } from "../../hal/addr.ts";
import { _PAGE_DIRTY } from "../../hal/page_walk.ts";
import { TaskMempolicy, describe_policy, mpol_to_str } from "../../mm/mempolicy.ts";
import { MmStruct, VmArea, type VmaPtr } from "../../mm/mm_types.ts";
import {
  PG_active, PG_dirty, PG_unevictable, Page, page_flag, page_is_anon, page_to_nid, type PagePtr,
} from "../../mm/page.ts"; // prettier-ignore
import { _PAGE_SPECIAL, for_each_leaf, pte_flags, pte_page } from "../../mm/pgtable.ts";
import { for_each_vma } from "../../mm/vma.ts";
import { ESRCH } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { find_task_by_pid } from "../pid.ts";
import { TaskStruct } from "../task.ts";
import { file_mode, kernfs_new_node, type KernfsPtr } from "./kernfs.ts";
import { vma_name } from "./proc_maps.ts";

/** What ` N0=3` and the like say of the pages that are mapped in an area. */
function pages_text(vma: VmaPtr): string {
  let [pages, anon, dirty, active, mapmax] = [0, 0, 0, 0, 0];
  const nodes = new Map<NodeId, number>();
  const count = (page: PagePtr, is_dirty: boolean): void => {
    pages++;
    if (page_is_anon(page)) anon++;
    if (is_dirty || page_flag(page, PG_dirty)) dirty++;
    if (page_flag(page, PG_active) || page_flag(page, PG_unevictable)) active++;
    mapmax = Math.max(mapmax, Page.page_type.get(page) + 1);
    nodes.set(page_to_nid(page), (nodes.get(page_to_nid(page)) ?? 0) + 1);
  };
  const tables = MmStruct.tables.at(VmArea.vm_mm.get(vma));
  for_each_leaf(tables, VmArea.vm_start.get(vma), VmArea.vm_end.get(vma), (entry) => {
    const flags = pte_flags(entry);
    if ((flags & _PAGE_SPECIAL) === 0) count(pte_page(entry), (flags & _PAGE_DIRTY) !== 0);
  });
  if (pages === 0) return "";
  const parts: readonly (readonly [string, number, boolean])[] = [
    ["anon", anon, anon > 0], ["dirty", dirty, dirty > 0], ["mapped", pages, pages !== anon && pages !== dirty],
    ["mapmax", mapmax, mapmax > 1], ["active", active, active < pages],
    ...[...nodes].sort(([a], [b]) => a - b).map(([node, n]) => [`N${node}`, n, true] as const),
    ["kernelpagesize_kB", 4, true],
  ]; // prettier-ignore
  return parts.filter(([, , shown]) => shown).map(([name, value]) => ` ${name}=${value}`).join(""); // prettier-ignore
}

/** ` stack`, ` heap`, ` file=/path`, or nothing. */
function kind(vma: VmaPtr): string {
  const name = vma_name(vma);
  if (VmArea.vm_file.get(vma) !== NULL) return ` file=${name.replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`)}`; // prettier-ignore
  return name === "" ? "" : ` ${name.slice(1, -1)}`;
}

function numa_maps(pid: number): string | number {
  const task = find_task_by_pid(pid);
  if (task === NULL) return -ESRCH;
  const mm = TaskStruct.mm.get(task);
  if (mm === NULL) return "";
  const of_task = TaskMempolicy.policy.get(TaskStruct.mempolicy.at(task));
  let text = "";
  for (const vma of for_each_vma(mm)) {
    const own = VmArea.vm_policy.get(vma);
    const { policy, nodes } = describe_policy(own !== NULL ? own : of_task);
    text += `${hex(VmArea.vm_start.get(vma), 8)} ${mpol_to_str(policy, nodes)}${kind(vma)}${pages_text(vma)}\n`;
  }
  return text;
}
const NUMA_MAPS = ksym("proc_pid_numa_maps", numa_maps);

/** Boot: adds the file to the directory that stands for all pids. */
export function proc_numa_maps_init(pid: KernfsPtr): void {
  kernfs_new_node(pid, "numa_maps", { mode: file_mode(0o444), show: NUMA_MAPS });
}
