/**
 * Doubly linked intrusive lists in RAM, Linux's `struct list_head`.
 *
 *     head:  [ next | prev ]  ->  node in some struct  ->  node …  ->  back to head
 *
 * A node is a field of the struct that is on the list; the struct is at `node - offset of the field`. An empty list
 * points to itself. To walk: `for (let n = list_next(head); n !== head; n = list_next(n))`; take `list_next` first if
 * the body removes n. Whoever uses a list says which lock protects it.
 */
import { ram32 } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { NULL, type Ptr } from "../../hal/addr.ts";

const m = ram32;
const NEXT = 0;
const PREV = 2; // word index of the second 8-byte pointer

/** A link of a list, or its head. */
export const ListHead = struct("list_head", { next: "*list_head", prev: "*list_head" }, { sizeof: 16 });
export type ListPtr = Ptr<"list_head">;
/** What a removed node points to, so that a second removal or a walk through it is noticed. */
const LIST_POISON1 = 0x100;
const LIST_POISON2 = 0x122;

/** Makes `head` an empty list. */
export function init_list_head(head: ListPtr): void {
  const h = head >> 2;
  m[h + NEXT] = head;
  m[h + PREV] = head;
  m[h + 1] = NULL;
  m[h + 3] = NULL;
}

function insert(node: ListPtr, prev: ListPtr, next: ListPtr): void {
  const n = node >> 2;
  m[(next >> 2) + PREV] = node;
  m[n + NEXT] = next;
  m[n + 1] = 0;
  m[n + PREV] = prev;
  m[n + 3] = 0;
  m[(prev >> 2) + NEXT] = node;
}

/** Puts `node` first. */
export function list_add(node: ListPtr, head: ListPtr): void {
  insert(node, head, m[(head >> 2) + NEXT]!);
}

/** Puts `node` last. */
export function list_add_tail(node: ListPtr, head: ListPtr): void {
  insert(node, m[(head >> 2) + PREV]!, head);
}

/** Takes `node` off its list. */
export function list_del(node: ListPtr): void {
  const n = node >> 2;
  const next = m[n + NEXT]!;
  const prev = m[n + PREV]!;
  m[(next >> 2) + PREV] = prev;
  m[(prev >> 2) + NEXT] = next;
  m[n + NEXT] = LIST_POISON1;
  m[n + PREV] = LIST_POISON2;
}

/** Takes `node` off its list and makes it an empty list of its own. */
export function list_del_init(node: ListPtr): void {
  list_del(node);
  init_list_head(node);
}

/** True if nothing is on the list. */
export function list_empty(head: ListPtr): boolean {
  return m[(head >> 2) + NEXT] === head;
}

/** The first node, or `head` itself if the list is empty. */
export function list_next(node: ListPtr): ListPtr {
  return m[(node >> 2) + NEXT]!;
}

/** The link before one. */
export function list_prev(node: ListPtr): ListPtr {
  return m[(node >> 2) + PREV]!;
}

/** Moves `node` to the front of `head`. */
export function list_move(node: ListPtr, head: ListPtr): void {
  list_del(node);
  list_add(node, head);
}

/** Moves `node` to the end of `head`. */
export function list_move_tail(node: ListPtr, head: ListPtr): void {
  list_del(node);
  list_add_tail(node, head);
}

/** Puts all of `list` in front of `head`'s nodes and leaves `list` empty. */
export function list_splice_init(list: ListPtr, head: ListPtr): void {
  if (list_empty(list)) return;
  const first = list_next(list);
  const last = list_prev(list);
  const at = list_next(head);
  m[(first >> 2) + PREV] = head;
  m[(head >> 2) + NEXT] = first;
  m[(last >> 2) + NEXT] = at;
  m[(at >> 2) + PREV] = last;
  init_list_head(list);
}

/** Number of nodes, at most `bound`: a walk over a broken list ends too. */
export function list_count(head: ListPtr, bound = 1 << 24): number {
  let count = 0;
  for (let n = list_next(head); n !== head && count < bound; n = list_next(n)) count++;
  return count;
}
