/**
 * Hash chains in RAM, Linux's `struct hlist_head`: a head of one pointer, so that a large table stays small.
 *
 *     head [ first ] -> node [ next | pprev ] -> node … -> NULL        pprev: address of the pointer that points here
 *
 * A node whose pprev is NULL is on no chain. Whoever uses a chain says which lock protects it.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { struct } from "../../hal/struct.ts";

export const HlistHead = struct("hlist_head", { first: "*hlist_node" }, { sizeof: 8 });
export const HlistNode = struct("hlist_node", { next: "*hlist_node", pprev: "*hlist_head" }, { sizeof: 16 });
export type HlistHeadPtr = Ptr<"hlist_head">;
export type HlistNodePtr = Ptr<"hlist_node">;

/** Makes `node` a node on no chain. */
export function init_hlist_node(node: HlistNodePtr): void {
  HlistNode.next.set(node, NULL);
  HlistNode.pprev.set(node, NULL);
}

/** True if `node` is on no chain. */
export function hlist_unhashed(node: HlistNodePtr): boolean {
  return HlistNode.pprev.get(node) === NULL;
}

/** Puts `node` first. */
export function hlist_add_head(node: HlistNodePtr, head: HlistHeadPtr): void {
  const first = HlistHead.first.get(head);
  HlistNode.next.set(node, first);
  HlistNode.pprev.set(node, head);
  if (first !== NULL) HlistNode.pprev.set(first, node as Ptr); // its `next` is what points to `first` now
  HlistHead.first.set(head, node);
}

/** Takes `node` off its chain, if it is on one. */
export function hlist_del_init(node: HlistNodePtr): void {
  if (hlist_unhashed(node)) return;
  const next = HlistNode.next.get(node);
  const pprev = HlistNode.pprev.get(node);
  HlistHead.first.set(pprev, next); // `next` is the first field of a node, as `first` is of a head
  if (next !== NULL) HlistNode.pprev.set(next, pprev);
  init_hlist_node(node);
}

/** The nodes of a chain; the body may take the node it is given off the chain. */
export function* hlist_for_each(head: HlistHeadPtr): Generator<HlistNodePtr> {
  for (let node = HlistHead.first.get(head); node !== NULL;) {
    const next = HlistNode.next.get(node);
    yield node;
    node = next;
  }
}
