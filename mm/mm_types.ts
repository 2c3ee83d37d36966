/**
 * Address spaces: the structs, and the caches that they come from.
 *
 *     mm_struct  mm_rb -> vm_area_struct [vm_start, vm_end) …    what a program may touch, and how
 *                tables -> PGD -> … -> pages                     what it has touched so far
 *
 *     7ffffffff000   end of user memory
 *     7fffff7ff000 … stack, grows down, 8 MiB at most
 *     7ffff7fff000   mmap_base: areas without a wish for a place, each below the one before
 *         …
 *     555555560000   start_brk: the heap, up to brk
 *
 * `mm_users` counts tasks that run in an address space; with the last one all of it goes.
 *
 * Locks: mmap_lock is not needed: whoever changes an address space is the one task that runs in it, fork, or the end of
 * that task. Page tables: mm/pgtable.ts.
 * Unlike Linux: areas are private and anonymous. No shared memory, mapped files, huge pages, mlock, user threads.
 */
import type { Ptr, Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { RbNode, RbRoot } from "../kernel/lib/rbtree.ts";
import { PgTables, TASK_SIZE_MAX } from "./pgtable.ts";
import { KMEM_CACHE } from "./slab_common.ts";
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_PANIC } from "./slab_layout.ts";

/** `vm_flags`. */
export const VM_READ = 1;
export const VM_WRITE = 2;
export const VM_EXEC = 4;
export const VM_GROWSDOWN = 0x100;
export const VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC;

export const VmArea = struct("vm_area_struct", {
  vm_start: "s64", // [vm_start, vm_end), whole pages
  vm_end: "s64",
  vm_mm: "*mm_struct",
  vm_pgoff: "u64", // vm_start in pages, when it was mapped: neighbours merge if theirs follow on
  vm_flags: "u32", // VM_*
  has_anon: "u32", // has had a page of its own (Linux: anon_vma != NULL): fork copies its tables
  vm_rb: RbNode,
  // Of the areas at and below this node of the tree: the first address, the last, and the largest hole between.
  subtree_start: "s64",
  subtree_end: "s64",
  subtree_gap: "u64",
});
export type VmaPtr = Ptr<"vm_area_struct">;

export const MmStruct = struct("mm_struct", {
  mm_rb: RbRoot,
  tables: PgTables,
  mm_users: "u32",
  map_count: "u32", // areas
  // Sizes in pages.
  total_vm: "u32",
  data_vm: "u32", // private and writable
  stack_vm: "u32",
  rss_anon: "u32", // pages mapped now, the zero page left out
  hiwater_rss: "u32",
  hiwater_vm: "u32",
  no_memory: "u32", // a fault found no memory: the program is to be killed
  start_brk: "s64",
  brk: "s64",
  start_stack: "s64",
  mmap_base: "s64",
  // TLBs: mm/tlbflush.ts.
  ctx_id: "u64", // never used twice
  tlb_gen: "u64", // goes up with every change that a TLB may not miss
  cpumask: "u32[2]", // CPUs that may hold translations of it
});
export type MmPtr = Ptr<"mm_struct">;

/** One past the last user address that can be mapped. */
export const STACK_TOP: Virt = TASK_SIZE_MAX;
export const START_BRK: Virt = 0x555555560000;
/** RLIMIT_STACK, and what stays free below a stack. */
export const STACK_LIMIT = 8 << 20;
export const STACK_GUARD_GAP = 256 << 12;
/** mmap_base lies this far below the stack's top: 128 MiB, the least that Linux leaves. */
export const MMAP_BASE: Virt = STACK_TOP - (128 << 20);
/** Lowest address that can be mapped (vm.mmap_min_addr). */
export const MMAP_MIN_ADDR: Virt = 0x10000;
/** Areas there may be in an address space (vm.max_map_count). */
export const MAX_MAP_COUNT = 65530;

export const mm_caches = static_data("mm_caches", { mm_struct: "*kmem_cache", vm_area_struct: "*kmem_cache" });

/** Boot: the caches. Context: slab is up. */
export function proc_caches_init(): void {
  mm_caches.mm_struct = KMEM_CACHE(MmStruct, SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT);
  mm_caches.vm_area_struct = KMEM_CACHE(VmArea, SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT);
}
