/**
 * vmalloc: memory that is one piece only by its addresses, made of single pages.
 *
 *     ffffc90000000000  [ page | page | page | guard ]      mapped rw-, not executable; the guard page never
 *                          |      |      |
 *                       any frames of RAM                   order 0, up to 100 at a time
 *
 *     vmap_area    the range of addresses (vmap_area.ts)
 *     vm_struct    whose it is: size with the guard page, flags, its pages
 *     pages        8 bytes a page: kmalloc, or, for more than 512 pages, vmalloc itself ("vpages")
 *
 * The kernel reaches vmalloc memory by `Virt` through hal/mmu.ts; a read behind its end is a page fault, not somebody
 * else's data. Freeing unmaps and gives the pages back at once. TLBs are told later (vmap_area.ts), so until then a CPU
 * that looked there before may still see, wrongly, what became of the page: as on a real machine.
 *
 * Locks: none of its own. Context: may sleep as its gfp flags say; not in interrupts.
 * Unlike Linux: no huge pages, ioremap, VM_FLUSH_RESET_PERMS or vm_map_ram; nobody looks for the caller on the stack: who wants
 * to be named in /proc/vmallocinfo hands over a ksym.
 */
import { NULL, PAGE_SIZE, align_up, virt_px, type NodeId, type Ptr, type Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { mmu_load32, mmu_store64 } from "../hal/mmu.ts";
import { struct } from "../hal/struct.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import type { FnPtr } from "../kernel/lib/ksym.ts";
import { CLAIM_VMALLOC, claiming, unclaim } from "./claims.ts";
import {
  GFP_KERNEL, GFP_RECLAIM_MASK, NUMA_NO_NODE, __GFP_DMA, __GFP_DMA32, __GFP_HIGHMEM, __GFP_NOFAIL, __GFP_NOWARN, __GFP_ZERO,
} from "./gfp.ts"; // prettier-ignore
import { VMALLOC_END, VMALLOC_START, ptr_to_virt, virt_to_ptr } from "./kernel_map.ts";
import { kfree, kmalloc_node } from "./kmalloc.ts";
import { page_address, pfn_to_page, type PagePtr } from "./page.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "./page_alloc.ts";
import { alloc_pages_bulk, alloc_pages_bulk_mempolicy } from "./page_bulk.ts";
import {
  PAGE_KERNEL, PG_LEVEL_4K, for_each_leaf, init_mm, pte_alloc, pte_clear, pte_none, pte_offset, pte_pfn, pte_present,
  set_pte, type Pgprot,
} from "./pgtable.ts"; // prettier-ignore
import { warn_alloc_text } from "./show_mem.ts";
import { VmapArea, alloc_vmap_area, find_vmap_area, free_vmap_area, purge_vmap_areas, unlink_vmap_area } from "./vmap_area.ts"; // prettier-ignore
import { node_state } from "./zone.ts";

/** Flags of a vm_struct; numbers as in Linux. */
export const VM_ALLOC = 2;
export const VM_MAP = 4;

export const VmStruct = struct("vm_struct", {
  addr: "s64",
  size: "u64", // the guard page counted in
  flags: "u32", // VM_*
  nr_pages: "u32",
  pages: "s64", // VM_ALLOC: address of the array of its pages, 8 bytes each; 0: none
  caller: "*fn", // whom /proc/vmallocinfo names
  requested_size: "u64",
});
export type VmStructPtr = Ptr<"vm_struct">;

/** Pages that all areas have, for /proc/meminfo. */
const vmalloc_state = static_data("vmalloc", { nr_pages: "u32" });
/** Pages asked for at once. */
const BULK_PAGES = 100;
const POINTER_BYTES = 8;

/** Takes `size` bytes, whole pages; 0 without memory. */
export function vmalloc(size: number, caller: FnPtr = NULL): Virt {
  return __vmalloc_node(size, GFP_KERNEL, NUMA_NO_NODE, caller);
}

/** Takes zeroed memory. */
export function vzalloc(size: number, caller: FnPtr = NULL): Virt {
  return __vmalloc_node(size, GFP_KERNEL | __GFP_ZERO, NUMA_NO_NODE, caller);
}

/** As vmalloc, with pages of node `node` if it has some. */
export function vmalloc_node(size: number, node: NodeId, caller: FnPtr = NULL): Virt {
  return __vmalloc_node(size, GFP_KERNEL, node, caller);
}

/** As vmalloc, with the caller's own flags and node. */
export function __vmalloc_node(size: number, gfp: number, node: NodeId, caller: FnPtr = NULL): Virt {
  return claiming(CLAIM_VMALLOC, () => vmalloc_area(size, gfp, node, caller));
}

function vmalloc_area(size: number, gfp: number, node: NodeId, caller: FnPtr): Virt {
  if (WARN_ON(size === 0, "vmalloc of 0 bytes")) return 0;
  const is_too_large = size < 0 || Math.floor(size / PAGE_SIZE) > node_state.totalram_pages; // size_t has no sign
  if (is_too_large) return failed(gfp, size, "exceeds total pages");
  const area = get_vm_area(size, VM_ALLOC, gfp, node, caller);
  if (area === NULL) return failed(gfp, size, "vm_struct allocation failed");
  return fill_area(area, gfp, node);
}

/** The report of a failure; returns what vmalloc then returns. */
function failed(gfp: number, size: number, why: string): 0 {
  warn_alloc_text(gfp, 0, `vmalloc error: size ${size}, ${why}`);
  return 0;
}

/** A range of addresses with the struct that says whose it is; nothing mapped. NULL without memory. */
function get_vm_area(size: number, flags: number, gfp: number, node: NodeId, caller: FnPtr): VmStructPtr {
  const vm: VmStructPtr = kmalloc_node(VmStruct.sizeof, (gfp & GFP_RECLAIM_MASK) | __GFP_ZERO, node);
  if (vm === NULL) return NULL;
  const bytes = align_up(size, PAGE_SIZE) + PAGE_SIZE; // the guard page
  const area = alloc_vmap_area(bytes, PAGE_SIZE, gfp & GFP_RECLAIM_MASK, vm);
  if (area === NULL) {
    kfree(vm);
    return NULL;
  }
  VmStruct.addr.set(vm, VmapArea.va_start.get(area));
  VmStruct.size.set(vm, bytes);
  VmStruct.flags.set(vm, flags);
  VmStruct.caller.set(vm, caller);
  VmStruct.requested_size.set(vm, size);
  return vm;
}

/** Gives an area its pages and maps them; on failure the area is gone. */
function fill_area(vm: VmStructPtr, gfp: number, node: NodeId): Virt {
  const addr = VmStruct.addr.get(vm);
  const size = VmStruct.requested_size.get(vm);
  const nr_pages = VmStruct.size.get(vm) / PAGE_SIZE - 1;
  const array_bytes = nr_pages * POINTER_BYTES;
  const pages = alloc_page_array(array_bytes, (gfp & GFP_RECLAIM_MASK) | __GFP_ZERO, node, VmStruct.caller.get(vm));
  if (pages === 0) {
    failed(gfp, size, `failed to allocated page array size ${array_bytes}`);
    vfree(addr);
    return 0;
  }
  VmStruct.pages.set(vm, pages);
  const taken = take_pages(nr_pages, gfp & (__GFP_DMA | __GFP_DMA32) ? gfp : gfp | __GFP_HIGHMEM, node);
  VmStruct.nr_pages.set(vm, taken.length);
  vmalloc_state.nr_pages = vmalloc_state.nr_pages + taken.length;
  for (const [i, page] of taken.entries()) mmu_store64(pages + i * POINTER_BYTES, page);
  const why = taken.length < nr_pages ? "failed to allocate pages" : map_pages(addr, taken, PAGE_KERNEL) ? "" : "failed to map pages"; // prettier-ignore
  if (why === "") return addr;
  failed(gfp, size, why);
  vfree(addr);
  return 0;
}

function alloc_page_array(bytes: number, gfp: number, node: NodeId, caller: FnPtr): Virt {
  if (bytes > PAGE_SIZE) return __vmalloc_node(bytes, gfp, node, caller);
  const ptr = kmalloc_node(bytes, gfp, node);
  return ptr === NULL ? 0 : ptr_to_virt(ptr);
}

/** Up to `nr` pages, fewer if there is no more memory. */
function take_pages(nr: number, gfp: number, node: NodeId): PagePtr[] {
  const taken: PagePtr[] = [];
  while (taken.length < nr) {
    const request = Math.min(BULK_PAGES, nr - taken.length);
    const pages: PagePtr[] = [];
    const light = (gfp & ~__GFP_NOFAIL) | __GFP_NOWARN;
    const got =
      node === NUMA_NO_NODE
        ? alloc_pages_bulk_mempolicy(light, request, pages)
        : alloc_pages_bulk(light, request, pages, node);
    taken.push(...pages.slice(0, got));
    if (got < request) break;
  }
  while (taken.length < nr) {
    const page =
      node === NUMA_NO_NODE ? alloc_pages(gfp | __GFP_NOWARN, 0) : alloc_pages_node(node, gfp | __GFP_NOWARN, 0);
    if (page === NULL) break;
    taken.push(page);
  }
  return taken;
}

/** Maps pages one behind the other; false without memory for a table, and then the first ones may be mapped. */
function map_pages(addr: Virt, pages: readonly PagePtr[], prot: Pgprot): boolean {
  for (const [i, page] of pages.entries()) {
    const entry = pte_alloc(init_mm.tables, addr + i * PAGE_SIZE, PG_LEVEL_4K);
    if (entry === NULL) return false;
    if (!pte_none(entry)) return !WARN_ON(true, `vmap: ${virt_px(addr + i * PAGE_SIZE)} is mapped already`);
    set_pte(entry, page_address(page), prot);
  }
  return true;
}

/** Gives memory back; 0 is ignored. Any page of an area will do for its address, as in Linux. */
export function vfree(addr: Virt): void {
  if (addr === 0) return;
  unclaim(CLAIM_VMALLOC, addr);
  const vm = remove_vm_area(addr, "vfree");
  if (vm === NULL) return;
  const pages = VmStruct.pages.get(vm);
  const nr_pages = VmStruct.nr_pages.get(vm);
  for (let i = 0; i < nr_pages; i++) __free_pages(mmu_load32(pages + i * POINTER_BYTES), 0);
  vmalloc_state.nr_pages = vmalloc_state.nr_pages - nr_pages;
  if (is_vmalloc_addr(pages)) vfree(pages);
  else if (pages !== 0) kfree(virt_to_ptr(pages));
  kfree(vm);
}

/** Unmaps an area and lets its addresses go. Returns its struct, the caller's now; NULL, and a warning, if there is none. */
function remove_vm_area(addr: Virt, who: string): VmStructPtr {
  if (WARN_ON(addr % PAGE_SIZE !== 0, `Trying to ${who}() bad address (${virt_px(addr)})`)) return NULL;
  const area = unlink_vmap_area(addr);
  if (WARN_ON(area === NULL, `Trying to ${who}() nonexistent vm area (${virt_px(addr)})`)) return NULL;
  const vm = VmapArea.vm.get(area);
  for_each_leaf(init_mm.tables, VmapArea.va_start.get(area), VmapArea.va_end.get(area), pte_clear);
  free_vmap_area(area);
  return vm;
}

/** Maps pages of the caller's at one range of addresses; 0 without memory. End it with vunmap; the pages stay the caller's. */
export function vmap(pages: readonly PagePtr[], prot: Pgprot, caller: FnPtr = NULL): Virt {
  if (pages.length === 0 || pages.length > node_state.totalram_pages) return 0;
  return claiming(CLAIM_VMALLOC, () => {
    const vm = get_vm_area(pages.length * PAGE_SIZE, VM_MAP, GFP_KERNEL, NUMA_NO_NODE, caller);
    if (vm === NULL) return 0;
    const addr = VmStruct.addr.get(vm);
    if (map_pages(addr, pages, prot)) return addr;
    vunmap(addr);
    return 0;
  });
}

/** Ends a mapping of vmap. */
export function vunmap(addr: Virt): void {
  if (addr === 0) return;
  unclaim(CLAIM_VMALLOC, addr);
  kfree(remove_vm_area(addr, "vunmap"));
}

export function is_vmalloc_addr(addr: Virt): boolean {
  return addr >= VMALLOC_START && addr < VMALLOC_END;
}

/** The page mapped at a vmalloc address; NULL if there is none. */
export function vmalloc_to_page(addr: Virt): PagePtr {
  const entry = pte_offset(init_mm.tables, addr, PG_LEVEL_4K);
  return entry === NULL || !pte_present(entry) ? NULL : pfn_to_page(pte_pfn(entry));
}

/** The area around an address; NULL if there is none. */
export function find_vm_area(addr: Virt): VmStructPtr {
  const area = find_vmap_area(addr);
  return area === NULL ? NULL : VmapArea.vm.get(area);
}

/** Pages in all areas. */
export function vmalloc_nr_pages(): number {
  return vmalloc_state.nr_pages;
}

/** Ends what is kept of freed areas: after it no address is stale in a TLB, and no table, pool or struct is left over. */
export function vm_unmap_aliases(): void {
  purge_vmap_areas(1);
}
