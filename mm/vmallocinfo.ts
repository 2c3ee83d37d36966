/**
 * /proc/vmallocinfo: every area in use, a line each, then every range that is only lazily free.
 *
 *     0xffffc90000000000-0xffffc90000005000   20480 fn+0x0/0x10 pages=4 vmalloc N0=3 N1=1
 *     0xffffc90000008000-0xffffc9000000a000    8192 unpurged vm_area
 *
 * vmap node by vmap node, by address within one. Addresses are shown as they are: who reads this file may see them.
 * It takes no memory, and reads page tables without a trace in them.
 */
import { NULL, PAGE_SIZE, virt_px, type Virt } from "../hal/addr.ts";
import { sprint_symbol } from "../kernel/lib/ksym.ts";
import { MAX_NODES } from "../hal/machine.ts";
import { page_to_nid } from "./page.ts";
import { for_each_leaf, init_mm, pte_page } from "./pgtable.ts";
import { VM_ALLOC, VM_MAP, VmStruct, is_vmalloc_addr, type VmStructPtr } from "./vmalloc.ts";
import { VmapArea, for_each_vmap_area, va_size } from "./vmap_area.ts";

const range = (start: Virt, size: number): string =>
  `0x${virt_px(start)}-0x${virt_px(start + size)} ${String(size).padStart(7)}`;

/** ` N0=3 N1=1`: pages by node. */
function numa_info(vm: VmStructPtr): string {
  const counts = new Array<number>(MAX_NODES).fill(0);
  const start = VmStruct.addr.get(vm);
  for_each_leaf(init_mm.tables, start, start + VmStruct.nr_pages.get(vm) * PAGE_SIZE, (entry) => {
    counts[page_to_nid(pte_page(entry))]!++;
  });
  return counts.map((count, node) => (count > 0 ? ` N${node}=${count}` : "")).join("");
}

function area_line(vm: VmStructPtr): string {
  const flags = VmStruct.flags.get(vm);
  const caller = VmStruct.caller.get(vm);
  const nr_pages = VmStruct.nr_pages.get(vm);
  let line = range(VmStruct.addr.get(vm), VmStruct.size.get(vm));
  if (caller !== NULL) line += ` ${sprint_symbol(caller)}`;
  if (nr_pages > 0) line += ` pages=${nr_pages}`;
  if (flags & VM_ALLOC) line += " vmalloc";
  if (flags & VM_MAP) line += " vmap";
  if (is_vmalloc_addr(VmStruct.pages.get(vm))) line += " vpages";
  return line + numa_info(vm);
}

/** The whole file. */
export function vmallocinfo_text(): string {
  let text = "";
  for (const area of for_each_vmap_area("busy")) text += `${area_line(VmapArea.vm.get(area))}\n`;
  for (const area of for_each_vmap_area("lazy"))
    text += `${range(VmapArea.va_start.get(area), va_size(area))} unpurged vm_area\n`;
  return text;
}
