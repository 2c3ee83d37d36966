/**
 * The xarray: a sparse array of pointers, the tree behind every page cache.
 *
 *     head -> NULL                       empty
 *     head -> entry                      only index 0 is there
 *     head -> node | 2                   shift 0: 64 entries; shift 6: 64 nodes of 64; …
 *
 * A node covers 64^(shift / 6 + 1) indices; its slot of an index is (index >> shift) & 63. The tree is as high as its
 * highest index needs when that is stored, and a node is freed with its last entry. Nodes come from the cache
 * `radix_tree_node`, whose constructor zeroes them once: a node is empty again when it is freed.
 *
 * Locks: the owner's (address_space.xa_lock). Unlike Linux: no marks, no multi-index entries, no value entries; a tree
 * that lost its high indices stays high until it is empty.
 */
import { NULL, type Obj, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { ram_zero } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_PANIC, SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { ENOMEM } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { ListHead, init_list_head } from "../lib/list.ts";

const XA_CHUNK_SHIFT = 6;
const XA_CHUNK_SIZE = 64;
/** Indices are below 2^30: files of up to 4 TiB. */
export const XA_MAX_INDEX = 2 ** 30 - 1;

export const XaNode = struct(
  "xa_node",
  {
    shift: "u8", // bits of the index below this node's slots
    offset: "u8", // slot in the parent
    count: "u8", // slots in use
    nr_values: "u8",
    parent: "*xa_node", // NULL at the top
    array: "*void",
    private_list: ListHead,
    slots: "*void[64]",
    marks: "u64[3]",
  },
  { sizeof: 576 },
);
type NodePtr = Ptr<"xa_node">;

const radix_tree = static_data("radix_tree", { node_cachep: "*kmem_cache" });

/** What a free node is. Runs once an object, when the slab is made. */
function radix_tree_node_ctor(node: Obj): void {
  ram_zero(node, XaNode.sizeof);
  init_list_head(XaNode.private_list.at(node));
}
ksym("radix_tree_node_ctor", radix_tree_node_ctor);

/** Boot. */
export function radix_tree_init(): void {
  const flags = SLAB_PANIC | SLAB_RECLAIM_ACCOUNT;
  radix_tree.node_cachep = kmem_cache_create("radix_tree_node", XaNode.sizeof, 0, flags, radix_tree_node_ctor);
}

/** A head: a field of a struct at this address. */
export interface Xarray {
  get(owner: Ptr): Ptr;
  set(owner: Ptr, head: Ptr): void;
}

const is_node = (entry: Ptr): boolean => (entry & 3) === 2;
const to_node = (entry: Ptr): NodePtr => entry & ~3;
const slot_of = (node: NodePtr, index: number): number => (index >>> XaNode.shift.get(node)) & (XA_CHUNK_SIZE - 1);
/** The highest index below a head. */
const max_index = (entry: Ptr): number =>
  is_node(entry) ? XA_CHUNK_SIZE * 2 ** XaNode.shift.get(to_node(entry)) - 1 : 0;

/** The entry at an index; NULL if there is none. */
export function xa_load(xa: Xarray, owner: Ptr, index: number): Ptr {
  let entry = xa.get(owner);
  if (index > max_index(entry)) return NULL;
  while (is_node(entry)) entry = XaNode.slots.get(to_node(entry), slot_of(to_node(entry), index));
  return entry;
}

/** Makes `node`, which is fresh, one below `parent` (NULL: to be the top). */
function xas_link(node: NodePtr, parent: NodePtr, shift: number, offset: number): void {
  XaNode.shift.set(node, shift);
  XaNode.offset.set(node, offset);
  XaNode.parent.set(node, parent);
  if (parent !== NULL) set_slot(parent, offset, node | 2);
}

function set_slot(node: NodePtr, slot: number, entry: Ptr): void {
  const before = XaNode.slots.get(node, slot);
  XaNode.slots.set(node, slot, entry);
  XaNode.count.set(node, XaNode.count.get(node) + Number(entry !== NULL) - Number(before !== NULL));
}

/** The shift of the lowest node below which all indices up to `index` are. */
function top_shift(index: number): number {
  let shift = 0;
  while (index >= XA_CHUNK_SIZE * 2 ** shift) shift += XA_CHUNK_SHIFT;
  return shift;
}

/** How many nodes an insertion at `index` would have to make. */
function nodes_missing(head: Ptr, index: number): number {
  const levels = (shift: number): number => shift / XA_CHUNK_SHIFT;
  const top = top_shift(index);
  if (head === NULL) return index === 0 ? 0 : levels(top) + 1;
  const height = is_node(head) ? XaNode.shift.get(to_node(head)) : -XA_CHUNK_SHIFT;
  // A higher tree has the old one in its slot 0, and the new index in another: all nodes on the way to it are missing.
  if (top > height) return levels(top - height) + levels(top);
  for (let node = to_node(head); XaNode.shift.get(node) > 0;) {
    const below = XaNode.slots.get(node, slot_of(node, index));
    if (below === NULL) return levels(XaNode.shift.get(node));
    node = to_node(below);
  }
  return 0;
}

/** Makes the tree so high that `index` is below its head. */
function xas_expand(xa: Xarray, owner: Ptr, index: number, spare: NodePtr[]): void {
  let head = xa.get(owner);
  let shift = is_node(head) ? XaNode.shift.get(to_node(head)) + XA_CHUNK_SHIFT : 0;
  if (head === NULL) shift = top_shift(index);
  for (; head === NULL || index > max_index(head); shift += XA_CHUNK_SHIFT) {
    const node = spare.shift()!;
    xas_link(node, NULL, shift, 0);
    if (head !== NULL) set_slot(node, 0, head);
    if (is_node(head)) XaNode.parent.set(to_node(head), node);
    head = node | 2;
    xa.set(owner, head);
  }
}

/** Frees `node` and its ancestors as far as they are empty. */
function xas_delete_empty(xa: Xarray, owner: Ptr, node: NodePtr): void {
  while (node !== NULL && XaNode.count.get(node) === 0) {
    const parent = XaNode.parent.get(node);
    if (parent === NULL) xa.set(owner, NULL);
    else set_slot(parent, XaNode.offset.get(node), NULL);
    XaNode.parent.set(node, NULL); // back to what the constructor made
    XaNode.shift.set(node, 0);
    XaNode.offset.set(node, 0);
    kmem_cache_free(radix_tree.node_cachep, node);
    node = parent;
  }
}

/**
 * Stores a pointer (a multiple of 4, not NULL) at an index that is free. 0 or -ENOMEM, with nothing changed.
 *
 * All nodes are allocated before the tree is touched: an allocation may reclaim, and that may take other entries of this
 * very tree, and nodes with them.
 */
export function xa_insert(xa: Xarray, owner: Ptr, index: number, entry: Ptr, gfp: number): number {
  const spare: NodePtr[] = [];
  while (spare.length < nodes_missing(xa.get(owner), index)) {
    const node: NodePtr = kmem_cache_alloc(radix_tree.node_cachep, gfp);
    if (node === NULL) {
      free_nodes(spare);
      return -ENOMEM;
    }
    spare.push(node);
  }
  if (index === 0 && xa.get(owner) === NULL) xa.set(owner, entry);
  else store(xa, owner, index, entry, spare);
  free_nodes(spare);
  return 0;
}

function free_nodes(nodes: readonly NodePtr[]): void {
  for (const node of nodes) kmem_cache_free(radix_tree.node_cachep, node);
}

/** Stores an entry with the nodes of `spare`, which suffice. */
function store(xa: Xarray, owner: Ptr, index: number, entry: Ptr, spare: NodePtr[]): void {
  xas_expand(xa, owner, index, spare);
  let node = to_node(xa.get(owner));
  for (let shift = XaNode.shift.get(node); shift > 0; shift -= XA_CHUNK_SHIFT) {
    const slot = slot_of(node, index);
    if (XaNode.slots.get(node, slot) === NULL) xas_link(spare.shift()!, node, shift - XA_CHUNK_SHIFT, slot);
    node = to_node(XaNode.slots.get(node, slot));
  }
  set_slot(node, slot_of(node, index), entry);
}

/** Puts another entry in the place of one that is there. */
export function xa_replace(xa: Xarray, owner: Ptr, index: number, entry: Ptr): void {
  if (!is_node(xa.get(owner))) return xa.set(owner, entry);
  let node = to_node(xa.get(owner));
  while (XaNode.shift.get(node) > 0) node = to_node(XaNode.slots.get(node, slot_of(node, index)));
  XaNode.slots.set(node, slot_of(node, index), entry);
}

/** Takes an entry out, if it is there, and frees the nodes that are empty now. */
export function xa_erase(xa: Xarray, owner: Ptr, index: number): void {
  const head = xa.get(owner);
  if (index > max_index(head)) return;
  if (!is_node(head)) return xa.set(owner, NULL);
  let node = to_node(head);
  while (XaNode.shift.get(node) > 0) {
    const below = XaNode.slots.get(node, slot_of(node, index));
    if (below === NULL) return;
    node = to_node(below);
  }
  set_slot(node, slot_of(node, index), NULL);
  xas_delete_empty(xa, owner, node);
}

/** Entries from `first` on, in order of their indices. The body may erase the entry it is given, and no other. */
export function* xa_for_each(xa: Xarray, owner: Ptr, first = 0): Generator<{ index: number; entry: Ptr }> {
  for (let at = first; at <= XA_MAX_INDEX;) {
    const found = xa_find(xa.get(owner), at);
    if (!found) return;
    at = found.index + 1;
    yield found;
  }
}

/** The first entry at or after `first` below a head or a node's slot. */
function xa_find(head: Ptr, first: number): { index: number; entry: Ptr } | undefined {
  if (head === NULL || first > max_index(head)) return undefined;
  if (!is_node(head)) return { index: 0, entry: head };
  const node = to_node(head);
  const shift = XaNode.shift.get(node);
  for (let slot = slot_of(node, first); slot < XA_CHUNK_SIZE; slot++) {
    const below = XaNode.slots.get(node, slot);
    if (below === NULL) continue;
    const base = slot * 2 ** shift;
    if (shift === 0) return { index: base, entry: below };
    const found = xa_find(below, Math.max(first - base, 0));
    if (found) return { index: base + found.index, entry: found.entry };
  }
  return undefined;
}
