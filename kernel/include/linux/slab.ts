/** Caches of objects, and memory by size. */
export { GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_NOIO, GFP_NOWAIT, __GFP_NOFAIL, __GFP_NOWARN, __GFP_ZERO } from "../../../mm/gfp.ts"; // prettier-ignore
export { kfree_rcu } from "../../../mm/kfree_rcu.ts";
export {
  KMALLOC_MAX_SIZE, ZERO_SIZE_PTR, kcalloc, kfree, kfree_sensitive, kmalloc, kmalloc_array, kmalloc_node,
  kmalloc_size_roundup, krealloc, ksize, kzalloc,
} from "../../../mm/kmalloc.ts"; // prettier-ignore
export {
  KMEM_CACHE, KMEM_CACHE_USERCOPY, kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node, kmem_cache_create,
  kmem_cache_create_usercopy, kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink,
  kmem_cache_size, kmem_cache_zalloc, type KmemCacheArgs,
} from "../../../mm/slab_common.ts"; // prettier-ignore
export {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
} from "../../../mm/slab_layout.ts"; // prettier-ignore
export { kvfree, kvmalloc, kvzalloc } from "../../../mm/kvmalloc.ts";
