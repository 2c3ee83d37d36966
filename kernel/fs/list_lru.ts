/**
 * LRU lists of objects nobody uses at the moment: one list a node, so that reclaiming a node finds what lies on it.
 *
 *     lru -> [ list_lru_node of node 0 | of node 1 | … ]        oldest at the head, new ones at the tail
 *
 * An object is on the list of the node whose memory it lies in. Its list head is empty while it is on none.
 * Locks: list_lru_node.lock, a leaf.
 */
import { L1_CACHE_BYTES, NULL, type NodeId, type Ptr } from "../../hal/addr.ts";
import { struct } from "../../hal/struct.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kcalloc } from "../../mm/kmalloc.ts";
import { page_to_nid, virt_to_page } from "../../mm/page.ts";
import { node_state } from "../../mm/zone.ts";
import {
  ListHead, init_list_head, list_add_tail, list_del_init, list_empty, list_move_tail, list_next, type ListPtr,
} from "../lib/list.ts"; // prettier-ignore
import { SpinLock, spin_lock, spin_unlock } from "../lib/spinlock.ts";

const ListLruNode = struct(
  "list_lru_node",
  { lock: SpinLock, list: ListHead, nr_items: "u32" },
  { align: L1_CACHE_BYTES },
);
/** The first of an array with an element a node. */
export type LruPtr = Ptr<"list_lru_node">;

const of_node = (lru: LruPtr, nid: NodeId): LruPtr => lru + nid * ListLruNode.sizeof;
const of_item = (lru: LruPtr, item: ListPtr): LruPtr => of_node(lru, page_to_nid(virt_to_page(item)));

/** Makes an empty LRU; kfree it when it is empty again. NULL without memory. */
export function list_lru_alloc(): LruPtr {
  const lru: LruPtr = kcalloc(node_state.nr_node_ids, ListLruNode.sizeof, GFP_KERNEL);
  if (lru === NULL) return NULL;
  for (let nid = 0; nid < node_state.nr_node_ids; nid++) init_list_head(ListLruNode.list.at(of_node(lru, nid)));
  return lru;
}

function adjust(node: LruPtr, by: number): void {
  ListLruNode.nr_items.set(node, ListLruNode.nr_items.get(node) + by);
}

/** Puts an object on the tail; false if it was on the list already. */
export function list_lru_add_obj(lru: LruPtr, item: ListPtr): boolean {
  if (!list_empty(item)) return false;
  const node = of_item(lru, item);
  spin_lock(ListLruNode.lock.at(node));
  list_add_tail(item, ListLruNode.list.at(node));
  adjust(node, 1);
  spin_unlock(ListLruNode.lock.at(node));
  return true;
}

/** Takes an object off; false if it was on no list. */
export function list_lru_del_obj(lru: LruPtr, item: ListPtr): boolean {
  if (list_empty(item)) return false;
  const node = of_item(lru, item);
  spin_lock(ListLruNode.lock.at(node));
  list_del_init(item);
  adjust(node, -1);
  spin_unlock(ListLruNode.lock.at(node));
  return true;
}

export function list_lru_count_node(lru: LruPtr, nid: NodeId): number {
  return ListLruNode.nr_items.get(of_node(lru, nid));
}

/** Objects on the lists of all nodes. */
export function list_lru_count(lru: LruPtr): number {
  let sum = 0;
  for (let nid = 0; nid < node_state.nr_node_ids; nid++) sum += list_lru_count_node(lru, nid);
  return sum;
}

/** What becomes of an object that a walk meets. */
export const LRU_REMOVED = 0; // off the list
export const LRU_ROTATE = 1; // to the tail: a second chance

/**
 * Walks a node's list from its oldest object on, looking at up to `nr_to_walk`, and asks `isolate` about each. An object
 * that went to the tail may be met again. Returns how many were taken off. `isolate` must not change the list.
 */
export function list_lru_walk_node(
  lru: LruPtr,
  nid: NodeId,
  nr_to_walk: number,
  isolate: (item: ListPtr) => number,
): number {
  const node = of_node(lru, nid);
  const head = ListLruNode.list.at(node);
  let isolated = 0;
  spin_lock(ListLruNode.lock.at(node));
  let item = list_next(head);
  for (let left = nr_to_walk; left > 0 && item !== head; left--) {
    const current = item;
    item = list_next(item);
    if (isolate(current) === LRU_REMOVED) {
      list_del_init(current);
      adjust(node, -1);
      isolated++;
    } else list_move_tail(current, head);
  }
  spin_unlock(ListLruNode.lock.at(node));
  return isolated;
}
