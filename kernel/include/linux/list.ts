/** Doubly linked lists. */
export {
  ListHead, init_list_head as INIT_LIST_HEAD, list_add, list_add_tail, list_count, list_del, list_del_init, list_empty, list_move,
  list_move_tail, list_next, list_prev, list_splice_init, type ListPtr,
} from "../../lib/list.ts"; // prettier-ignore
