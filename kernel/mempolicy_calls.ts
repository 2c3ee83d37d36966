/** The system calls about where a program's memory comes from. Policies: mm/mempolicy.ts, those of areas: mm/vma_policy.ts. */
import { NULL, PAGE_SIZE, type NodeId, type Virt } from "../hal/addr.ts";
import { handle_mm_fault } from "../mm/memory.ts";
import {
  MPOL_F_ADDR, MPOL_F_NODE, describe_policy, do_get_mempolicy, do_set_mempolicy, type PolicyInfo,
} from "../mm/mempolicy.ts"; // prettier-ignore
import { MmStruct, VM_READ, VmArea, type VmaPtr } from "../mm/mm_types.ts";
import { page_to_nid } from "../mm/page.ts";
import { PG_LEVEL_4K, pte_offset, pte_page } from "../mm/pgtable.ts";
import { find_vma_intersection } from "../mm/vma.ts";
import { do_mbind, do_set_home_node } from "../mm/vma_policy.ts";
import type { NodeMask } from "../mm/zone.ts";
import { EFAULT } from "./lib/errno.ts";
import { current_mm } from "./mm_calls.ts";
import { register_syscall, type Result } from "./syscall.ts";

/** With MPOL_F_ADDR: the policy of the area at an address, with MPOL_F_NODE too the node of the page there. */
function sys_get_mempolicy(flags = 0, va: Virt = 0): Result {
  if ((flags & ~MPOL_F_NODE) !== MPOL_F_ADDR) return as_result(do_get_mempolicy(flags, va));
  const vma = find_vma_intersection(current_mm(), va, va + 1);
  if (vma === NULL) return -EFAULT;
  const info = describe_policy(VmArea.vm_policy.get(vma));
  if (flags === MPOL_F_ADDR) return as_result(info);
  const node = node_of_page(vma, va);
  return node < 0 ? node : as_result({ ...info, policy: node });
}

const as_result = (info: PolicyInfo | number): Result => (typeof info === "number" ? info : { ...info });

/** Node of the page that a read of `va` finds; -EFAULT if there is none to read. */
function node_of_page(vma: VmaPtr, va: Virt): NodeId {
  if ((VmArea.vm_flags.get(vma) & VM_READ) === 0 || handle_mm_fault(vma, va, false) !== 0) return -EFAULT;
  const entry = pte_offset(MmStruct.tables.at(VmArea.vm_mm.get(vma)), va - (va % PAGE_SIZE), PG_LEVEL_4K);
  return page_to_nid(pte_page(entry));
}

register_syscall("get_mempolicy", "?nn", sys_get_mempolicy);
register_syscall("set_mempolicy", "n?n", (mode: number, nodes: NodeMask = 0) => do_set_mempolicy(mode, nodes));
register_syscall("mbind", "nnn?nn", (va: Virt, bytes: number, mode: number, nodes: NodeMask = 0, flags = 0) =>
  do_mbind(current_mm(), va, bytes, mode, nodes, flags),
);
register_syscall("set_mempolicy_home_node", "nnn?n", (va: Virt, bytes: number, node: NodeId, flags = 0) =>
  do_set_home_node(current_mm(), va, bytes, node, flags),
);
