/** The calls by which a replay drives the kernel: a record, so that a test can put a broken one in their place. */
import { __free_pages, alloc_pages, split_page } from "../../mm/page_alloc.ts";
import { kfree, kmalloc_node, krealloc } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc_node, kmem_cache_free } from "../../mm/slab_common.ts";

export const kernel_ops = {
  kmem_cache_alloc_node, kmem_cache_free, kmalloc_node, krealloc, kfree, alloc_pages, split_page, __free_pages,
}; // prettier-ignore
export type ReplayOps = typeof kernel_ops;
