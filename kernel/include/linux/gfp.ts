/** Pages, and what may be done to get them. */
export {
  GFP_ATOMIC, GFP_DMA, GFP_DMA32, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOFS, GFP_NOIO, GFP_NOWAIT, GFP_USER,
  __GFP_COMP, __GFP_DIRECT_RECLAIM, __GFP_HIGH, __GFP_KSWAPD_RECLAIM, __GFP_NOFAIL, __GFP_NORETRY, __GFP_NOWARN,
  __GFP_RETRY_MAYFAIL, __GFP_THISNODE, __GFP_ZERO,
} from "../../../mm/gfp.ts"; // prettier-ignore
export { alloc_pages_bulk, alloc_pages_exact, free_pages_exact } from "../../../mm/page_bulk.ts";
export {
  __free_pages, __get_free_pages, alloc_pages, alloc_pages_node, free_pages, get_zeroed_page,
} from "../../../mm/page_alloc.ts"; // prettier-ignore
