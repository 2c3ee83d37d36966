/**
 * kvmalloc: memory by size, in one piece if there is one, else of single pages.
 *
 *     1  kmalloc            up to a page it presses for memory as asked; above, it does not reclaim for a large block
 *     2  vmalloc            for more than a page, if the caller may wait
 *
 * Either may be what is returned, so the address is a `Virt` in both cases, of the direct map or of the vmalloc range, and
 * is reached through hal/mmu.ts. Linux has one kind of pointer for both; the part of it that is cheap here, `Ptr`, cannot
 * name vmalloc memory. Who wants a Ptr wants kmalloc.
 */
import { NULL, PAGE_SIZE, type NodeId, type Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { NUMA_NO_NODE, __GFP_DIRECT_RECLAIM, __GFP_NOFAIL, __GFP_NOWARN, __GFP_RETRY_MAYFAIL, __GFP_ZERO, gfpflags_allow_blocking } from "./gfp.ts"; // prettier-ignore
import { ptr_to_virt, virt_to_ptr } from "./kernel_map.ts";
import { kfree, kmalloc_node } from "./kmalloc.ts";
import { __vmalloc_node, is_vmalloc_addr, vfree } from "./vmalloc.ts";

const INT_MAX = 0x7fffffff;
const warned = static_data("kvmalloc", { once: "u32" });

/** Takes `size` bytes from node `node` if it has some; 0 without memory. */
export function kvmalloc_node(size: number, gfp: number, node: NodeId): Virt {
  const press = gfp & __GFP_RETRY_MAYFAIL ? 0 : __GFP_DIRECT_RECLAIM;
  const flags = size > PAGE_SIZE ? (gfp | __GFP_NOWARN) & ~(press | __GFP_NOFAIL) : gfp;
  const ptr = kmalloc_node(size, flags, node);
  if (ptr !== NULL) return ptr_to_virt(ptr);
  if (size <= PAGE_SIZE || !gfpflags_allow_blocking(gfp)) return 0;
  if (size > INT_MAX) {
    if (warned.once === 0 && WARN_ON((gfp & __GFP_NOWARN) === 0, `kvmalloc of ${size} bytes`)) warned.once = 1;
    return 0;
  }
  return __vmalloc_node(size, gfp, node);
}

/** Takes `size` bytes. */
export function kvmalloc(size: number, gfp: number): Virt {
  return kvmalloc_node(size, gfp, NUMA_NO_NODE);
}

/** Takes zeroed memory. */
export function kvzalloc(size: number, gfp: number): Virt {
  return kvmalloc(size, gfp | __GFP_ZERO);
}

/** Gives back what kvmalloc gave; 0 is ignored. Context: not in interrupts. */
export function kvfree(addr: Virt): void {
  if (is_vmalloc_addr(addr)) vfree(addr);
  else if (addr !== 0) kfree(virt_to_ptr(addr));
}
