/**
 * mem_dump_obj: what an address is, in the words of Linux's reports. Slow; for messages.
 *
 *     ` slab NAME start ADDRESS[ data offset N] pointer offset N size N`      an address in a slab
 *     ` slab`                                                                 in a page of SLOB, which knows no more
 *     ` NULL pointer`, ` zero-size pointer`, ` non-slab memory`, …            anything else
 *
 * Unlike Linux: the text goes behind the caller's in one record, as a line cannot be continued here. Where it was
 * allocated is not said: that comes with SLAB_STORE_USER.
 */
import { NULL, px, type Obj } from "../hal/addr.ts";
import { pr_info } from "../kernel/lib/printk.ts";
import { ZERO_SIZE_PTR, nearest_obj, virt_to_cache } from "./kmalloc.ts";
import { page_is_slab, pfn_valid, virt_to_head_page } from "./page.ts";
import { KmemCache } from "./slab_common.ts";

/** What kmem_dump_obj says of an address in a slab; empty for any other. Starts with a blank: it continues a line. */
export function kmem_dump_obj(address: Obj): string {
  if (!pfn_valid(address >>> 12)) return "";
  const cache = virt_to_cache(address);
  if (cache === NULL) return page_is_slab(virt_to_head_page(address)) ? " slab" : "";
  const left = KmemCache.red_left_pad.get(cache);
  const object = nearest_obj(address);
  const offset = left === 0 ? "" : ` data offset ${left}`;
  const where = `start ${px(object - left)}${offset} pointer offset ${address - object}`;
  return ` slab ${KmemCache.name.get(cache)} ${where} size ${KmemCache.object_size.get(cache)}`;
}

/** Prints `text` and what the address is. Context: any. */
export function mem_dump_obj(text: string, address: Obj): void {
  pr_info(text + (kmem_dump_obj(address) || other_memory(address)));
}

function other_memory(address: Obj): string {
  if (address === NULL) return " NULL pointer";
  if (address === ZERO_SIZE_PTR) return " zero-size pointer";
  return pfn_valid(address >>> 12) ? " non-slab/vmalloc memory" : " non-paged memory";
}
