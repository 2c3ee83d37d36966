/** Red-black trees. */
export { RbNode, RbRoot, rb_add, rb_erase, rb_first, rb_last, rb_next, rb_prev, type RbPtr, type RbRootPtr } from "../../lib/rbtree.ts"; // prettier-ignore
