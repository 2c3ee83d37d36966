/**
 * Interval trees: which areas have page n, of a file or of what an anon_vma stands for?
 *
 *     address_space.i_mmap      vm_area_struct.shared      [vm_pgoff, vm_pgoff + pages - 1] of the file
 *     anon_vma.rb_root          anon_vma_chain.rb          the same of the chain's area
 *
 * A red-black tree by first page, in which each node knows the last page of any node below it: so a search leaves out
 * whole subtrees that end before what is asked for.
 *
 * Locks: as mm_types.ts. An area's place and size may not change while it is in a tree.
 * See: Cormen et al., chapter 14.3; Linux mm/interval_tree.c.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../hal/addr.ts";
import { struct } from "../hal/struct.ts";
import { ListHead } from "../kernel/lib/list.ts";
import { RbNode, RbRoot, rb_add, rb_erase, type RbPtr, type RbRootPtr } from "../kernel/lib/rbtree.ts";
import { VmArea, type VmaPtr } from "./mm_types.ts";

/** Ties an area to an anon_vma: one for each pair (mm/anon_vma.ts). */
export const AnonVmaChain = struct(
  "anon_vma_chain",
  {
    vma: "*vm_area_struct",
    anon_vma: "*anon_vma",
    same_vma: ListHead, // vma.anon_vma_chain
    rb: RbNode, // in anon_vma.rb_root
    subtree_last: "u64",
  },
  { sizeof: 64 },
);
export type AvcPtr = Ptr<"anon_vma_chain">;

const first_of = (vma: VmaPtr): number => VmArea.vm_pgoff.get(vma);
const last_of = (vma: VmaPtr): number =>
  first_of(vma) + (VmArea.vm_end.get(vma) - VmArea.vm_start.get(vma)) / PAGE_SIZE - 1;

/** A kind of tree: whose area a node stands for, and where it says how far its subtree reaches. */
interface Kind {
  readonly vma_of: (node: RbPtr) => VmaPtr;
  readonly last: { get(node: RbPtr): number; set(node: RbPtr, last: number): void };
}
const SHARED = VmArea.shared.offset;
const CHAIN = AnonVmaChain.rb.offset;
const of_file: Kind = Object.freeze<Kind>({
  vma_of: (node) => node - SHARED,
  last: {
    get: (node) => VmArea.shared_last.get(node - SHARED),
    set: (node, last) => VmArea.shared_last.set(node - SHARED, last),
  },
});
const of_chain: Kind = Object.freeze<Kind>({
  vma_of: (node) => AnonVmaChain.vma.get(node - CHAIN),
  last: {
    get: (node) => AnonVmaChain.subtree_last.get(node - CHAIN),
    set: (node, last) => AnonVmaChain.subtree_last.set(node - CHAIN, last),
  },
});

const by_first =
  ({ vma_of }: Kind) =>
  (a: RbPtr, b: RbPtr): boolean =>
    first_of(vma_of(a)) < first_of(vma_of(b));

const augment =
  ({ vma_of, last }: Kind) =>
  (node: RbPtr): void => {
    let reach = last_of(vma_of(node));
    for (const child of [RbNode.left.get(node), RbNode.right.get(node)])
      if (child !== NULL) reach = Math.max(reach, last.get(child));
    last.set(node, reach);
  };

/** Nodes whose areas have a page of [first, last], by first page. */
function* nodes_in(kind: Kind, node: RbPtr, first: number, last: number): Generator<RbPtr> {
  if (node === NULL || kind.last.get(node) < first) return;
  yield* nodes_in(kind, RbNode.left.get(node), first, last);
  const vma = kind.vma_of(node);
  if (first_of(vma) > last) return;
  if (last_of(vma) >= first) yield node;
  yield* nodes_in(kind, RbNode.right.get(node), first, last);
}

/** Puts an area into the tree of its file. */
export function vma_interval_tree_insert(root: RbRootPtr, vma: VmaPtr): void {
  rb_add(root, VmArea.shared.at(vma), by_first(of_file), augment(of_file));
}

export function vma_interval_tree_remove(root: RbRootPtr, vma: VmaPtr): void {
  rb_erase(root, VmArea.shared.at(vma), augment(of_file));
}

/** The areas that map a page of [first, last] of a file. */
export function* vma_interval_tree(root: RbRootPtr, first: number, last: number): Generator<VmaPtr> {
  for (const node of nodes_in(of_file, RbRoot.node.get(root), first, last)) yield node - SHARED;
}

/** Puts a chain into the tree of its anon_vma. */
export function anon_vma_interval_tree_insert(root: RbRootPtr, avc: AvcPtr): void {
  rb_add(root, AnonVmaChain.rb.at(avc), by_first(of_chain), augment(of_chain));
}

export function anon_vma_interval_tree_remove(root: RbRootPtr, avc: AvcPtr): void {
  rb_erase(root, AnonVmaChain.rb.at(avc), augment(of_chain));
}

/** The areas that may map a page of [first, last] of what an anon_vma stands for. */
export function* anon_vma_interval_tree(root: RbRootPtr, first: number, last: number): Generator<VmaPtr> {
  for (const node of nodes_in(of_chain, RbRoot.node.get(root), first, last)) yield of_chain.vma_of(node);
}
