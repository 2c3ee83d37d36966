/**
 * The areas of an address space: finding them, finding room for one, cutting and joining them.
 *
 *     mm.mm_rb   by address, without overlap; each node knows where its subtree begins and ends and its largest hole:
 *                the highest hole of a size is found on one way down the tree
 *
 *     split      [ area )            ->  [ new )[ area )         the new one is the part below
 *     merge      [ prev )[ range )[ next )   two or three become one if flags, file and policy are equal, offsets follow on,
 *                                            and pages of their own may be under one anon_vma
 *
 * An area leaves in three steps: out of its address space (`vma_unlink`), its pages unmapped (memory.ts), then it and what
 * says where they are mapped (`vma_release`).
 *
 * An area that grows down keeps STACK_GUARD_GAP free below: to the search for room it starts that much lower.
 *
 * Locks: see mm_types.ts.
 * See: Linux mm/vma.c; the holes as in M. Lespinasse, "mm: augment vma rbtree with rb_subtree_gap", 2012.
 */
import { NULL, PAGE_SIZE, type Virt } from "../hal/addr.ts";
import { ram_copy } from "../hal/ram.ts";
import { init_list_head } from "../kernel/lib/list.ts";
import {
  RbNode,
  RbRoot,
  rb_add,
  rb_erase,
  rb_first,
  rb_last,
  rb_next,
  rb_prev,
  type RbPtr,
} from "../kernel/lib/rbtree.ts";
import {
  anon_vma_clone, anon_vma_is_singular, anon_vma_prepare, link_file_vma, rmap_trees_insert, rmap_trees_remove,
  unlink_anon_vmas, unlink_file_vma, type AnonVmaPtr,
} from "./anon_vma.ts"; // prettier-ignore
import { GFP_KERNEL } from "./gfp.ts";
import { mpol_equal, mpol_get, mpol_put } from "./mempolicy.ts";
import {
  MmStruct, STACK_GUARD_GAP, VM_ACCESS_FLAGS, VM_GROWSDOWN, VmArea, mm_caches, vm_ops, type MmPtr, type VmaPtr,
} from "./mm_types.ts"; // prettier-ignore
import { kmem_cache_alloc, kmem_cache_free } from "./slab_common.ts";

const OFFSET = VmArea.vm_rb.offset;
const vma_of = (node: RbPtr): VmaPtr => (node === NULL ? NULL : node - OFFSET);
const by_address = (a: RbPtr, b: RbPtr): boolean => VmArea.vm_start.get(a - OFFSET) < VmArea.vm_start.get(b - OFFSET);

/** Where an area starts for whoever looks for room. */
function start_gap(vma: VmaPtr): Virt {
  const start = VmArea.vm_start.get(vma);
  return VmArea.vm_flags.get(vma) & VM_GROWSDOWN ? Math.max(start - STACK_GUARD_GAP, 0) : start;
}

function augment(node: RbPtr): void {
  const vma = vma_of(node);
  const [left, right] = [vma_of(RbNode.left.get(node)), vma_of(RbNode.right.get(node))];
  let [start, end, gap] = [start_gap(vma), VmArea.vm_end.get(vma), 0];
  if (left !== NULL) {
    gap = Math.max(VmArea.subtree_gap.get(left), start - VmArea.subtree_end.get(left));
    start = VmArea.subtree_start.get(left);
  }
  if (right !== NULL) {
    gap = Math.max(gap, VmArea.subtree_gap.get(right), VmArea.subtree_start.get(right) - end);
    end = VmArea.subtree_end.get(right);
  }
  VmArea.subtree_start.set(vma, start);
  VmArea.subtree_end.set(vma, end);
  VmArea.subtree_gap.set(vma, gap);
}

/** A new area, in no tree; NULL without memory. */
export function vm_area_alloc(mm: MmPtr, start: Virt, end: Virt, flags: number): VmaPtr {
  const vma: VmaPtr = kmem_cache_alloc(mm_caches.vm_area_struct, GFP_KERNEL);
  if (vma === NULL) return NULL;
  VmArea.vm_mm.set(vma, mm);
  VmArea.vm_start.set(vma, start);
  VmArea.vm_end.set(vma, end);
  VmArea.vm_pgoff.set(vma, start / PAGE_SIZE);
  VmArea.vm_flags.set(vma, flags);
  for (const field of [VmArea.anon_vma, VmArea.vm_ops, VmArea.vm_file, VmArea.vm_mapping, VmArea.vm_policy]) field.set(vma, NULL); // prettier-ignore
  init_list_head(VmArea.anon_vma_chain.at(vma));
  return vma;
}

/** A copy of an area for the same place in another address space, or for half of it; in no tree, tied to no anon_vma. */
export function vm_area_dup(vma: VmaPtr, mm: MmPtr): VmaPtr {
  const copy: VmaPtr = kmem_cache_alloc(mm_caches.vm_area_struct, GFP_KERNEL);
  if (copy === NULL) return NULL;
  ram_copy(copy, vma, VmArea.sizeof);
  VmArea.vm_mm.set(copy, mm);
  init_list_head(VmArea.anon_vma_chain.at(copy));
  vm_ops(copy)?.open(copy);
  mpol_get(VmArea.vm_policy.get(copy));
  return copy;
}

/** Frees an area that is in no tree, and ends its use of its file. */
export function vm_area_free(vma: VmaPtr): void {
  vm_ops(vma)?.close(vma);
  mpol_put(VmArea.vm_policy.get(vma));
  kmem_cache_free(mm_caches.vm_area_struct, vma);
}

/** Frees an area that was unlinked, once nothing is mapped there any more. */
export function vma_release(vma: VmaPtr): void {
  unlink_anon_vmas(vma);
  unlink_file_vma(vma);
  vm_area_free(vma);
}

/** Puts an area into its address space, and among those of its file. */
export function vma_link(vma: VmaPtr): void {
  const mm = VmArea.vm_mm.get(vma);
  rb_add(MmStruct.mm_rb.at(mm), vma + OFFSET, by_address, augment);
  MmStruct.map_count.set(mm, MmStruct.map_count.get(mm) + 1);
  link_file_vma(vma);
}

/** Takes an area out of its address space. Pages that are mapped there are still found. */
export function vma_unlink(vma: VmaPtr): void {
  const mm = VmArea.vm_mm.get(vma);
  rb_erase(MmStruct.mm_rb.at(mm), vma + OFFSET, augment);
  MmStruct.map_count.set(mm, MmStruct.map_count.get(mm) - 1);
}

/** Moves an area's ends, without passing a neighbour. */
export function vma_resize(vma: VmaPtr, start: Virt, end: Virt): void {
  rmap_trees_remove(vma);
  VmArea.vm_pgoff.set(vma, VmArea.vm_pgoff.get(vma) + (start - VmArea.vm_start.get(vma)) / PAGE_SIZE);
  VmArea.vm_start.set(vma, start);
  VmArea.vm_end.set(vma, end);
  for (let node = vma + OFFSET; node !== NULL; node = RbNode.parent_color.get(node) & ~1) augment(node);
  rmap_trees_insert(vma);
}

/** The first area that ends above `address`, which need not lie in it; NULL if there is none. */
export function find_vma(mm: MmPtr, address: Virt): VmaPtr {
  let found: VmaPtr = NULL;
  for (let node = RbRoot.node.get(MmStruct.mm_rb.at(mm)); node !== NULL;) {
    const vma = vma_of(node);
    const above = VmArea.vm_end.get(vma) > address;
    if (above) found = vma;
    node = above ? RbNode.left.get(node) : RbNode.right.get(node);
  }
  return found;
}

/** The first area that has an address of [start, end); NULL if the range is free. */
export function find_vma_intersection(mm: MmPtr, start: Virt, end: Virt): VmaPtr {
  const vma = find_vma(mm, start);
  return vma !== NULL && VmArea.vm_start.get(vma) < end ? vma : NULL;
}

/** The last area; NULL if there is none. */
export function vma_last(mm: MmPtr): VmaPtr {
  return vma_of(rb_last(MmStruct.mm_rb.at(mm)));
}

export function vma_next(vma: VmaPtr): VmaPtr {
  return vma_of(rb_next(vma + OFFSET));
}

export function vma_prev(vma: VmaPtr): VmaPtr {
  return vma_of(rb_prev(vma + OFFSET));
}

/** The areas by address. The body may free the one it is given. */
export function* for_each_vma(mm: MmPtr): Generator<VmaPtr> {
  for (let vma = vma_of(rb_first(MmStruct.mm_rb.at(mm))); vma !== NULL;) {
    const next = vma_next(vma);
    yield vma;
    vma = next;
  }
}

/** Start of the highest free `bytes` bytes of [low, high); -1 if there are none. */
export function highest_gap(mm: MmPtr, bytes: number, low: Virt, high: Virt): Virt {
  return gap_below(RbRoot.node.get(MmStruct.mm_rb.at(mm)), bytes, low, Infinity, high);
}

/** The same among the areas of one subtree, of which all lies in [from, to). */
function gap_below(node: RbPtr, bytes: number, from: Virt, to: Virt, high: Virt): Virt {
  const end = Math.min(to, high);
  if (end - from < bytes) return -1;
  if (node === NULL) return end - bytes;
  const vma = vma_of(node);
  const end_gap = end - VmArea.subtree_end.get(vma);
  if (Math.max(VmArea.subtree_start.get(vma) - from, VmArea.subtree_gap.get(vma), end_gap) < bytes) return -1;
  const above = gap_below(RbNode.right.get(node), bytes, Math.max(from, VmArea.vm_end.get(vma)), to, high);
  return above >= 0 ? above : gap_below(RbNode.left.get(node), bytes, from, start_gap(vma), high);
}

/** Cuts an area in two at `address`, which lies inside it. False without memory, and nothing is changed. */
export function split_vma(vma: VmaPtr, address: Virt): boolean {
  const below = vm_area_dup(vma, VmArea.vm_mm.get(vma));
  if (below === NULL) return false;
  VmArea.vm_end.set(below, address);
  if (!anon_vma_clone(below, vma)) {
    vm_area_free(below);
    return false;
  }
  vma_resize(vma, address, VmArea.vm_end.get(vma));
  vma_link(below);
  return true;
}

/** True if `right` goes on where `left` ends: in address, file and offset, and flags but for those of `but`. */
function goes_on(left: VmaPtr, right: VmaPtr, but = 0): boolean {
  const pages = (VmArea.vm_end.get(left) - VmArea.vm_start.get(left)) / PAGE_SIZE;
  return (
    VmArea.vm_end.get(left) === VmArea.vm_start.get(right) &&
    ((VmArea.vm_flags.get(left) ^ VmArea.vm_flags.get(right)) & ~but) === 0 &&
    VmArea.vm_file.get(left) === VmArea.vm_file.get(right) &&
    mpol_equal(VmArea.vm_policy.get(left), VmArea.vm_policy.get(right)) &&
    VmArea.vm_pgoff.get(left) + pages === VmArea.vm_pgoff.get(right)
  );
}

/** True if two areas can be one: what is known of either's own pages must hold for both. */
function can_merge(left: VmaPtr, right: VmaPtr): boolean {
  if (!goes_on(left, right)) return false;
  const [a, b] = [VmArea.anon_vma.get(left), VmArea.anon_vma.get(right)];
  if (a === NULL || b === NULL) return a === b || anon_vma_is_singular(a === NULL ? right : left);
  return a === b;
}

/** The anon_vma of a neighbour with which an area could be joined, but for their rights; NULL if there is none. */
function find_mergeable_anon_vma(vma: VmaPtr): AnonVmaPtr {
  const [next, prev] = [vma_next(vma), vma_prev(vma)];
  for (const [left, right, neighbour] of [
    [vma, next, next],
    [prev, vma, prev],
  ] as const) {
    // prettier-ignore
    if (neighbour === NULL || !goes_on(left, right, VM_ACCESS_FLAGS)) continue;
    if (VmArea.anon_vma.get(neighbour) !== NULL && anon_vma_is_singular(neighbour))
      return VmArea.anon_vma.get(neighbour);
  }
  return NULL;
}

/** Before an area gets its first page of its own. False without memory. */
export function vma_prepare_anon(vma: VmaPtr): boolean {
  return VmArea.anon_vma.get(vma) !== NULL || anon_vma_prepare(vma, find_mergeable_anon_vma(vma));
}

/** Joins two neighbours if they are alike, and if there is memory to do it; the left one stays. Returns the area that now holds the right one's start. */
function merge_pair(left: VmaPtr, right: VmaPtr): VmaPtr {
  if (left === NULL || right === NULL || !can_merge(left, right)) return right;
  if (VmArea.anon_vma.get(left) === NULL && VmArea.anon_vma.get(right) !== NULL) {
    VmArea.anon_vma.set(left, VmArea.anon_vma.get(right));
    if (!anon_vma_clone(left, right)) return right;
  }
  vma_unlink(right);
  vma_resize(left, VmArea.vm_start.get(left), VmArea.vm_end.get(right));
  vma_release(right);
  return left;
}

/** Joins an area with its neighbours as far as they are alike. Returns the area that holds its start. */
export function vma_merge(vma: VmaPtr): VmaPtr {
  const next = vma_next(vma);
  const joined = merge_pair(vma_prev(vma), vma);
  merge_pair(joined, next);
  return joined;
}
