/** Memory in whole pages that need not lie side by side. Its addresses go through the MMU: mmu_load32, mmu_store32. */
export { vfree, vmalloc, vzalloc } from "../../../mm/vmalloc.ts";
export { mmu_load32, mmu_load8, mmu_store32, mmu_store8 } from "../../../hal/mmu.ts";
