/**
 * anon_vma: where pages that are of no file may be mapped. A page says which anon_vma it came to be under, and that knows
 * all areas that can have got it since: by a fork, or by being cut off.
 *
 *     page.mapping = anon_vma + 1     page.index = vm_pgoff + pages from vm_start: the same in every area that has it
 *
 *     parent  vma ── avc ── A         first write in an area: an anon_vma of its own, or the neighbour's, so that both
 *              \                      can be joined later
 *     child   vma ── avc ── A         fork: the child's area is tied to all anon_vmas of the parent's, where pages are that
 *               └─── avc ── B         both have, and to a new one of its own, for its copies
 *
 * So a page that only a child has is not looked for in the parent. An anon_vma is kept while an area is tied to it or
 * another is below it. One that no area takes pages from any more, with one child at most, is used again by the next fork:
 * else a chain of forks, each of whose parents ends, would get longer for ever.
 *
 * num_children: anon_vmas whose parent it is, itself if it is a root; num_active_vmas: areas whose anon_vma it is.
 * Locks: as mm_types.ts. See: Linux mm/rmap.c; R. van Riel, "rmap 37" and "mm: change anon_vma linking", 2010.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { init_list_head, list_add, list_del, list_empty, list_next, list_prev } from "../kernel/lib/list.ts";
import { RbRoot } from "../kernel/lib/rbtree.ts";
import { AddressSpace } from "./address_space.ts";
import { GFP_KERNEL } from "./gfp.ts";
import {
  AnonVmaChain, anon_vma_interval_tree_insert, anon_vma_interval_tree_remove, vma_interval_tree_insert,
  vma_interval_tree_remove, type AvcPtr,
} from "./interval_tree.ts"; // prettier-ignore
import { VmArea, type VmaPtr } from "./mm_types.ts";
import { KMEM_CACHE, kmem_cache_alloc, kmem_cache_free } from "./slab_common.ts";
import { SLAB_ACCOUNT, SLAB_PANIC } from "./slab_layout.ts";

export const AnonVma = struct("anon_vma", {
  root: "*anon_vma", // the oldest ancestor
  parent: "*anon_vma", // itself at the root
  refcount: "u32", // its first area's side, and one for each anon_vma whose root it is
  num_children: "u32",
  num_active_vmas: "u32",
  rb_root: RbRoot, // anon_vma_chain.rb
});
export type AnonVmaPtr = Ptr<"anon_vma">;

const caches = static_data("anon_vma_caches", { anon_vma: "*kmem_cache", anon_vma_chain: "*kmem_cache" });

/** Boot: the caches. */
export function anon_vma_init(): void {
  caches.anon_vma = KMEM_CACHE(AnonVma, SLAB_PANIC | SLAB_ACCOUNT);
  caches.anon_vma_chain = KMEM_CACHE(AnonVmaChain, SLAB_PANIC | SLAB_ACCOUNT);
}

function add_children(anon_vma: AnonVmaPtr, by: number): void {
  AnonVma.num_children.set(anon_vma, AnonVma.num_children.get(anon_vma) + by);
}

function add_active_vmas(anon_vma: AnonVmaPtr, by: number): void {
  AnonVma.num_active_vmas.set(anon_vma, AnonVma.num_active_vmas.get(anon_vma) + by);
}

/** A new one, below `parent` or (NULL) a root; NULL without memory. */
function anon_vma_alloc(parent: AnonVmaPtr): AnonVmaPtr {
  const anon_vma: AnonVmaPtr = kmem_cache_alloc(caches.anon_vma, GFP_KERNEL);
  if (anon_vma === NULL) return NULL;
  const root = parent === NULL ? anon_vma : AnonVma.root.get(parent);
  AnonVma.root.set(anon_vma, root);
  AnonVma.parent.set(anon_vma, parent === NULL ? anon_vma : parent);
  AnonVma.refcount.set(anon_vma, 1);
  AnonVma.num_children.set(anon_vma, 0);
  AnonVma.num_active_vmas.set(anon_vma, 0);
  RbRoot.node.set(AnonVma.rb_root.at(anon_vma), NULL);
  if (parent !== NULL) AnonVma.refcount.set(root, AnonVma.refcount.get(root) + 1);
  add_children(AnonVma.parent.get(anon_vma), 1);
  return anon_vma;
}

/** Ends a use; the last one frees it, and then its root loses one. */
function put_anon_vma(anon_vma: AnonVmaPtr): void {
  const refs = AnonVma.refcount.get(anon_vma) - 1;
  AnonVma.refcount.set(anon_vma, refs);
  if (refs > 0) return;
  const root = AnonVma.root.get(anon_vma);
  kmem_cache_free(caches.anon_vma, anon_vma);
  if (root !== anon_vma) put_anon_vma(root);
}

/** Ties an area to an anon_vma; false without memory. */
function chain_link(vma: VmaPtr, anon_vma: AnonVmaPtr): boolean {
  const avc: AvcPtr = kmem_cache_alloc(caches.anon_vma_chain, GFP_KERNEL);
  if (avc === NULL) return false;
  AnonVmaChain.vma.set(avc, vma);
  AnonVmaChain.anon_vma.set(avc, anon_vma);
  list_add(AnonVmaChain.same_vma.at(avc), VmArea.anon_vma_chain.at(vma));
  anon_vma_interval_tree_insert(AnonVma.rb_root.at(anon_vma), avc);
  return true;
}

/** The chains of an area, newest first or oldest first. The body may free the one it is given. */
function* chains(vma: VmaPtr, step = list_next): Generator<AvcPtr> {
  const head = VmArea.anon_vma_chain.at(vma);
  for (let node = step(head); node !== head;) {
    const next = step(node);
    yield node - AnonVmaChain.same_vma.offset;
    node = next;
  }
}

/** True if an area is tied to one anon_vma: no pages came to it by a fork. */
export function anon_vma_is_singular(vma: VmaPtr): boolean {
  const head = VmArea.anon_vma_chain.at(vma);
  return !list_empty(head) && list_next(head) === list_prev(head);
}

/** Gives an area that has none an anon_vma: `reusable`, or, if that is NULL, a new one. False without memory. */
export function anon_vma_prepare(vma: VmaPtr, reusable: AnonVmaPtr): boolean {
  const anon_vma = reusable === NULL ? anon_vma_alloc(NULL) : reusable;
  if (anon_vma === NULL) return false;
  if (!chain_link(vma, anon_vma)) {
    if (reusable !== NULL) return false;
    put_anon_vma(anon_vma);
    return false;
  }
  VmArea.anon_vma.set(vma, anon_vma);
  add_active_vmas(anon_vma, 1);
  return true;
}

/**
 * Ties `to`, which is tied to nothing, to whatever `from` is tied to. Its anon_vma, if it has one set, is one of these; if
 * not, one that nobody uses any more may be set. False without memory: then `to` is tied to nothing.
 */
export function anon_vma_clone(to: VmaPtr, from: VmaPtr): boolean {
  for (const avc of chains(from, list_prev)) {
    const anon_vma = AnonVmaChain.anon_vma.get(avc);
    if (!chain_link(to, anon_vma)) {
      VmArea.anon_vma.set(to, NULL);
      unlink_anon_vmas(to);
      return false;
    }
    const is_spare = AnonVma.num_children.get(anon_vma) < 2 && AnonVma.num_active_vmas.get(anon_vma) === 0;
    if (VmArea.anon_vma.get(to) === NULL && VmArea.anon_vma.get(from) !== NULL && is_spare)
      VmArea.anon_vma.set(to, anon_vma);
  }
  if (VmArea.anon_vma.get(to) !== NULL) add_active_vmas(VmArea.anon_vma.get(to), 1);
  return true;
}

/** Fork: ties a child's area to the parent's anon_vmas and to one of its own. False without memory. */
export function anon_vma_fork(vma: VmaPtr, from: VmaPtr): boolean {
  VmArea.anon_vma.set(vma, NULL);
  if (VmArea.anon_vma.get(from) === NULL) return true;
  if (!anon_vma_clone(vma, from)) return false;
  if (VmArea.anon_vma.get(vma) !== NULL) return true;
  const anon_vma = anon_vma_alloc(VmArea.anon_vma.get(from));
  if (anon_vma !== NULL && chain_link(vma, anon_vma)) {
    VmArea.anon_vma.set(vma, anon_vma);
    add_active_vmas(anon_vma, 1);
    return true;
  }
  if (anon_vma !== NULL) {
    add_children(AnonVma.parent.get(anon_vma), -1);
    put_anon_vma(anon_vma);
  }
  unlink_anon_vmas(vma);
  return false;
}

/** Unties an area, in which nothing is mapped any more, from all anon_vmas, and frees those that nobody needs. */
export function unlink_anon_vmas(vma: VmaPtr): void {
  const unused: AnonVmaPtr[] = [];
  for (const avc of chains(vma)) {
    const anon_vma = AnonVmaChain.anon_vma.get(avc);
    anon_vma_interval_tree_remove(AnonVma.rb_root.at(anon_vma), avc);
    list_del(AnonVmaChain.same_vma.at(avc));
    kmem_cache_free(caches.anon_vma_chain, avc);
    if (RbRoot.node.get(AnonVma.rb_root.at(anon_vma)) !== NULL) continue;
    add_children(AnonVma.parent.get(anon_vma), -1);
    unused.push(anon_vma);
  }
  init_list_head(VmArea.anon_vma_chain.at(vma));
  if (VmArea.anon_vma.get(vma) !== NULL) add_active_vmas(VmArea.anon_vma.get(vma), -1);
  VmArea.anon_vma.set(vma, NULL);
  unused.forEach(put_anon_vma); // children before their parents' use of them ends
}

/* Trees: an area is in those of its anon_vmas and of its file under the pages that it has */

/** Takes an area out of all of them, before its ends move. */
export function rmap_trees_remove(vma: VmaPtr): void {
  unlink_file_vma(vma);
  for (const avc of chains(vma)) anon_vma_interval_tree_remove(AnonVma.rb_root.at(AnonVmaChain.anon_vma.get(avc)), avc);
}

/** Puts it in again. */
export function rmap_trees_insert(vma: VmaPtr): void {
  link_file_vma(vma);
  for (const avc of chains(vma)) anon_vma_interval_tree_insert(AnonVma.rb_root.at(AnonVmaChain.anon_vma.get(avc)), avc);
}

/** Makes a file's area known to its file. */
export function link_file_vma(vma: VmaPtr): void {
  const mapping = VmArea.vm_mapping.get(vma);
  if (mapping !== NULL) vma_interval_tree_insert(AddressSpace.i_mmap.at(mapping), vma);
}

export function unlink_file_vma(vma: VmaPtr): void {
  const mapping = VmArea.vm_mapping.get(vma);
  if (mapping !== NULL) vma_interval_tree_remove(AddressSpace.i_mmap.at(mapping), vma);
}
