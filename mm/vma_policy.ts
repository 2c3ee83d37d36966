/**
 * Memory policies of areas of a program's memory.
 *
 *     vm_area_struct.vm_policy      its own; NULL: that of the task
 *
 *     mbind        [        area        )  ->  [ area )[ its own policy )[ area )     neighbours of one policy are joined
 *     a page       vma_alloc_page: interleaving goes by place, vm_pgoff + (address - vm_start) / 4096, so that it does not
 *                  matter who touches what first
 *     home node    where BIND and PREFERRED_MANY of an area begin to look, instead of the CPU's node
 *
 * Locks: as all areas: mm_types.ts.
 * Unlike Linux: pages that are there stay where they are: MPOL_MF_MOVE moves none, and with MPOL_MF_STRICT says so.
 */
import { NULL, PAGE_SIZE, align_up, type NodeId, type Virt } from "../hal/addr.ts";
import { EFAULT, EINVAL, EIO, ENOENT, ENOMEM, EOPNOTSUPP, is_err } from "../kernel/lib/errno.ts";
import { MAX_MAP_COUNT, MmStruct, VmArea, type MmPtr, type VmaPtr } from "./mm_types.ts";
import {
  MPOL_BIND, MPOL_DEFAULT, MPOL_PREFERRED_MANY, Mempolicy, mpol_copy, mpol_equal, mpol_get, mpol_new, mpol_put,
  task_policy, type PolicyPtr,
} from "./mempolicy.ts"; // prettier-ignore
import { alloc_pages_mpol } from "./mempolicy_alloc.ts";
import { page_to_nid, type PagePtr } from "./page.ts";
import { alloc_pages } from "./page_alloc.ts";
import { _PAGE_SPECIAL, for_each_leaf, pte_flags, pte_page } from "./pgtable.ts";
import { find_vma, find_vma_intersection, split_vma, vma_merge } from "./vma.ts";
import { MAX_NUMNODES, NODE_DATA, type NodeMask } from "./zone.ts";

/** Flags of mbind: fail if pages lie elsewhere; move those of this program alone; move all. */
export const MPOL_MF_STRICT = 1;
export const MPOL_MF_MOVE = 2;
const MPOL_MF_MOVE_ALL = 4;
const MPOL_MF_VALID = MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL;

/** A page for `va` of an area. Context: as alloc_pages; the area is of the running task. */
export function vma_alloc_page(gfp: number, vma: VmaPtr, va: Virt): PagePtr {
  const own = VmArea.vm_policy.get(vma);
  const policy = own !== NULL ? own : task_policy();
  if (policy === NULL) return alloc_pages(gfp, 0);
  const index = VmArea.vm_pgoff.get(vma) + (va - VmArea.vm_start.get(vma)) / PAGE_SIZE;
  return alloc_pages_mpol(policy, gfp, 0, index);
}

/** One past the last byte of a range of whole pages; -EINVAL if it is none. */
function range_end(start: Virt, length: number): Virt {
  return start % PAGE_SIZE === 0 && length >= 0 ? start + align_up(length, PAGE_SIZE) : -EINVAL;
}

/** mbind: the policy of a range. 0, -EINVAL, -ENOMEM, -EFAULT (a hole), -EIO (pages lie elsewhere). */
export function do_mbind(mm: MmPtr, start: Virt, length: number, mode: number, nodes: NodeMask, flags: number): number {
  const end = range_end(start, length);
  if ((flags & ~MPOL_MF_VALID) !== 0 || is_err(end)) return -EINVAL;
  if (end === start) return 0;
  const policy = mpol_new(mode, nodes);
  if (is_err(policy)) return policy;
  let error = -EFAULT;
  if (is_mapped(mm, start, end, policy === NULL)) {
    const strict = (flags & MPOL_MF_STRICT) !== 0 && mode !== MPOL_DEFAULT;
    const misplaced = strict && has_misplaced_pages(mm, start, end, nodes);
    // Without leave to move them that is the end of it; else what is to come lies right at least.
    error = misplaced && flags === MPOL_MF_STRICT ? -EIO : set_policy(mm, start, end, policy);
    if (error === 0 && misplaced) error = -EIO;
  }
  mpol_put(policy);
  return error;
}

/** True if areas cover a range, or, if there may be holes in it, lie in it. */
function is_mapped(mm: MmPtr, start: Virt, end: Virt, holes: boolean): boolean {
  let vma = find_vma_intersection(mm, start, end);
  if (vma === NULL || holes) return vma !== NULL;
  for (let at = start; at < end; at = VmArea.vm_end.get(vma)) {
    vma = find_vma(mm, at);
    if (vma === NULL || VmArea.vm_start.get(vma) > at) return false;
  }
  return true;
}

function has_misplaced_pages(mm: MmPtr, start: Virt, end: Virt, nodes: NodeMask): boolean {
  let found = false;
  for_each_leaf(MmStruct.tables.at(mm), start, end, (entry) => {
    if ((pte_flags(entry) & _PAGE_SPECIAL) === 0 && ((nodes >> page_to_nid(pte_page(entry))) & 1) === 0) found = true;
  });
  return found;
}

/** Gives what is mapped in a range a policy. 0 or -ENOMEM: then a part has it. */
function set_policy(mm: MmPtr, start: Virt, end: Virt, policy: PolicyPtr): number {
  for (let at = start; at < end;) {
    const vma = find_vma_intersection(mm, at, end);
    if (vma === NULL) break;
    const from = Math.max(VmArea.vm_start.get(vma), start);
    at = Math.min(VmArea.vm_end.get(vma), end);
    if (mpol_equal(VmArea.vm_policy.get(vma), policy)) continue;
    const cut = split_at(vma, from) && split_at(vma, at);
    const part = find_vma(mm, from);
    if (cut) {
      mpol_put(VmArea.vm_policy.get(part));
      mpol_get(policy);
      VmArea.vm_policy.set(part, policy);
    }
    vma_merge(part);
    if (!cut) return -ENOMEM;
  }
  return 0;
}

/** Cuts an area at an address, unless it begins or ends there. False without memory. */
function split_at(vma: VmaPtr, address: Virt): boolean {
  if (address <= VmArea.vm_start.get(vma) || address >= VmArea.vm_end.get(vma)) return true;
  return MmStruct.map_count.get(VmArea.vm_mm.get(vma)) < MAX_MAP_COUNT && split_vma(vma, address);
}

/** set_mempolicy_home_node: of all policies in a range. 0, -EINVAL, -ENOMEM, -ENOENT (there is none), -EOPNOTSUPP. */
export function do_set_home_node(mm: MmPtr, start: Virt, length: number, node: NodeId, flags: number): number {
  const end = range_end(start, length);
  if (flags !== 0 || is_err(end)) return -EINVAL;
  if (node < 0 || node >= MAX_NUMNODES || NODE_DATA(node) === NULL) return -EINVAL;
  let error = end === start ? 0 : -ENOENT;
  for (let at = start; at < end;) {
    const vma = find_vma_intersection(mm, at, end);
    if (vma === NULL) break;
    const from = Math.max(VmArea.vm_start.get(vma), at);
    at = Math.min(VmArea.vm_end.get(vma), end);
    const policy = VmArea.vm_policy.get(vma);
    if (policy === NULL) continue;
    if (![MPOL_BIND, MPOL_PREFERRED_MANY].includes(Mempolicy.mode.get(policy))) return -EOPNOTSUPP;
    const copy = mpol_copy(policy);
    if (copy === NULL) return -ENOMEM;
    Mempolicy.home_node.set(copy, node);
    error = set_policy(mm, from, at, copy);
    mpol_put(copy);
    if (error !== 0) break;
  }
  return error;
}
