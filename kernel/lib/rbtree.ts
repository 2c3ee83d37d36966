/**
 * Red-black trees in RAM: ordered by what the user says, any depth at most twice the least.
 *
 *     RbRoot [ node ] -> RbNode [ parent | colour,  left,  right ]     24 bytes, a field of the struct that is in the tree
 *
 *     1  the root is black          2  a red node has no red child
 *     3  every way down from a node to where nothing is passes as many black nodes as any other
 *
 * The tree knows nothing of keys. To insert, `rb_add` is told which of two nodes comes first; to search, the caller goes
 * down by `RbNode.left` and `RbNode.right`. The struct is at `node - offset of the field`.
 *
 * Augmented: a node may carry something about all the nodes below it (the largest gap, the last end). `augment(node)`
 * works that out from the node and its two children; it is called bottom-up for every node whose subtree changed. Hand
 * the same function to every rb_add and rb_erase of a tree.
 *
 * Locks: the user's.
 * See: Cormen, Leiserson, Rivest, Stein: Introduction to Algorithms, chapter 13; Linux's rbtree.h.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { ram32 } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";

const m = ram32;

/** A node of a red-black tree, a field of what is in the tree. */
export const RbNode = struct("rb_node", { parent_color: "*rb_node", left: "*rb_node", right: "*rb_node" });
/** The root of a red-black tree; NULL: it is empty. */
export const RbRoot = struct("rb_root", { node: "*rb_node" });
export type RbPtr = Ptr<"rb_node">;
export type RbRootPtr = Ptr<"rb_root">;
/** Works out what a node says of its subtree. */
export type Augment = (node: RbPtr) => void;

type Side = 0 | 1;
const LEFT = 0;
const RIGHT = 1;
const RED = 1; // bit 0 of the parent word
const CHILD = RbNode.left.offset;

const other = (side: Side): Side => (side === LEFT ? RIGHT : LEFT);

function child(node: RbPtr, side: Side): RbPtr {
  return m[(node + CHILD + 8 * side) >> 2]!;
}

function parent_of(node: RbPtr): RbPtr {
  return m[node >> 2]! & ~RED;
}

/** Which child of its parent a node is. */
function side_of(node: RbPtr): Side {
  return child(parent_of(node), RIGHT) === node ? RIGHT : LEFT;
}

function is_red(node: RbPtr): boolean {
  return node !== NULL && (m[node >> 2]! & RED) !== 0;
}

function set_red(node: RbPtr, red: boolean): void {
  m[node >> 2] = parent_of(node) | (red ? RED : 0);
}

function set_parent(node: RbPtr, parent: RbPtr): void {
  if (node !== NULL) m[node >> 2] = parent | (m[node >> 2]! & RED);
}

function set_child(node: RbPtr, side: Side, to: RbPtr): void {
  m[(node + CHILD + 8 * side) >> 2] = to;
  set_parent(to, node);
}

/** Puts `to` (or nothing) where `node` hangs. */
function replace(root: RbRootPtr, node: RbPtr, to: RbPtr): void {
  const parent = parent_of(node);
  if (parent !== NULL) return set_child(parent, side_of(node), to);
  RbRoot.node.set(root, to);
  set_parent(to, NULL);
}

/** Moves a node down to `side`; its other child takes its place. */
function rotate(root: RbRootPtr, node: RbPtr, side: Side, augment?: Augment): void {
  const up = child(node, other(side));
  replace(root, node, up);
  set_child(node, other(side), child(up, side));
  set_child(up, side, node);
  augment?.(node);
  augment?.(up);
}

function augment_upwards(from: RbPtr, augment?: Augment): void {
  if (augment) for (let node = from; node !== NULL; node = parent_of(node)) augment(node);
}

/** Inserts a node behind all that do not come after it; `less(a, b)` is true if a comes before b. */
export function rb_add(root: RbRootPtr, node: RbPtr, less: (a: RbPtr, b: RbPtr) => boolean, augment?: Augment): void {
  let parent: RbPtr = NULL;
  let side: Side = LEFT;
  for (let at = RbRoot.node.get(root); at !== NULL; at = child(parent, side)) {
    parent = at;
    side = less(node, at) ? LEFT : RIGHT;
  }
  RbNode.parent_color.set(node, parent | RED);
  RbNode.left.set(node, NULL);
  RbNode.right.set(node, NULL);
  if (parent === NULL) RbRoot.node.set(root, node);
  else set_child(parent, side, node);
  augment_upwards(node, augment);
  repair_red(root, node, augment);
}

/** A red node may hang under a red one: recolours upwards, and ends with at most two rotations. */
function repair_red(root: RbRootPtr, added: RbPtr, augment?: Augment): void {
  let node = added;
  while (is_red(parent_of(node))) {
    let parent = parent_of(node);
    const above = parent_of(parent); // black: a red node is not the root
    const side = side_of(parent);
    const uncle = child(above, other(side));
    set_red(above, true);
    if (is_red(uncle)) {
      set_red(parent, false);
      set_red(uncle, false);
      node = above;
      continue;
    }
    if (child(parent, other(side)) === node) {
      rotate(root, parent, side, augment);
      parent = node;
    }
    set_red(parent, false);
    rotate(root, above, other(side), augment);
    break;
  }
  set_red(RbRoot.node.get(root), false);
}

/** Takes a node out. */
export function rb_erase(root: RbRootPtr, node: RbPtr, augment?: Augment): void {
  const [left, right] = [child(node, LEFT), child(node, RIGHT)];
  let lost_red = is_red(node);
  let parent = parent_of(node);
  let side: Side = parent === NULL ? LEFT : side_of(node);
  let moved = left === NULL ? right : left; // what comes to hang at `side` of `parent`
  if (left === NULL || right === NULL) replace(root, node, moved);
  else {
    // The next node in order has no left child: it is taken out there, and takes this one's place and colour.
    let next = right;
    while (child(next, LEFT) !== NULL) next = child(next, LEFT);
    lost_red = is_red(next);
    moved = child(next, RIGHT);
    parent = next === right ? next : parent_of(next);
    side = next === right ? RIGHT : LEFT;
    if (next !== right) {
      set_child(parent, LEFT, moved);
      set_child(next, RIGHT, right);
    }
    set_child(next, LEFT, left);
    replace(root, node, next);
    set_red(next, is_red(node));
  }
  augment_upwards(parent, augment);
  if (!lost_red) repair_black(root, moved, parent, side, augment);
}

/** Ways through `start`, which hangs at `at` of `above`, have a black node too few. */
function repair_black(root: RbRootPtr, start: RbPtr, above: RbPtr, at: Side, augment?: Augment): void {
  let [node, parent, side] = [start, above, at];
  while (parent !== NULL && !is_red(node)) {
    let sibling = child(parent, other(side));
    if (is_red(sibling)) {
      set_red(sibling, false);
      set_red(parent, true);
      rotate(root, parent, side, augment);
      sibling = child(parent, other(side));
    }
    if (!is_red(child(sibling, LEFT)) && !is_red(child(sibling, RIGHT))) {
      set_red(sibling, true); // now its ways have one too few as well: the lack moves up
      node = parent;
      parent = parent_of(node);
      if (parent !== NULL) side = side_of(node);
      continue;
    }
    if (!is_red(child(sibling, other(side)))) {
      set_red(child(sibling, side), false);
      set_red(sibling, true);
      rotate(root, sibling, other(side), augment);
      sibling = child(parent, other(side));
    }
    set_red(sibling, is_red(parent));
    set_red(parent, false);
    set_red(child(sibling, other(side)), false);
    rotate(root, parent, side, augment);
    return;
  }
  if (node !== NULL) set_red(node, false);
}

/** The outermost node of a side below `node`. */
function outermost(node: RbPtr, side: Side): RbPtr {
  let at = node;
  if (at !== NULL) while (child(at, side) !== NULL) at = child(at, side);
  return at;
}

/** The neighbour of a node in order. */
function neighbour(node: RbPtr, side: Side): RbPtr {
  if (child(node, side) !== NULL) return outermost(child(node, side), other(side));
  let at = node;
  while (parent_of(at) !== NULL && side_of(at) === side) at = parent_of(at);
  return parent_of(at);
}

/** The first node in order; NULL if the tree is empty. */
export function rb_first(root: RbRootPtr): RbPtr {
  return outermost(RbRoot.node.get(root), LEFT);
}

/** The last node in order; NULL if the tree is empty. */
export function rb_last(root: RbRootPtr): RbPtr {
  return outermost(RbRoot.node.get(root), RIGHT);
}

/** The node behind a node; NULL if it is the last. */
export function rb_next(node: RbPtr): RbPtr {
  return neighbour(node, RIGHT);
}

/** The node before a node; NULL if it is the first. */
export function rb_prev(node: RbPtr): RbPtr {
  return neighbour(node, LEFT);
}
