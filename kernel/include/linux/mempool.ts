/** Reserves of elements, for who must not fail. */
export {
  mempool_alloc, mempool_create_kmalloc_pool, mempool_create_page_pool, mempool_create_slab_pool, mempool_destroy,
  mempool_free, mempool_resize, type MempoolPtr,
} from "../../../mm/mempool.ts"; // prettier-ignore
