/** Page structs. */
export { page_address, page_to_pfn, pfn_to_page, virt_to_page, type PagePtr } from "../../../mm/page.ts";
export { get_page, put_page, split_page } from "../../../mm/page_alloc.ts";
export { kvfree, kvmalloc, kvzalloc } from "../../../mm/kvmalloc.ts";
export { PAGE_SHIFT, PAGE_SIZE } from "../../../hal/addr.ts";
