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
 * An area is of zeroes (`vm_ops` NULL) or of a file, from page `vm_pgoff` of it on. What a file does for an area is a record
 * of functions, `VmOps`, kept as a text address. MAP_PRIVATE or not is VM_SHARED: the program's writes are the file's.
 *
 *     vma -> anon_vma_chain … -> anon_vma     where pages of its own may be mapped besides here    mm/anon_vma.ts
 *     vma.shared in vm_mapping.i_mmap         that it maps a part of this file                     mm/interval_tree.ts
 *
 * Locks: mmap_lock is not needed: whoever changes an address space is the one task that runs in it, fork, or the end of
 * that task; reclaim, migration and truncation only take entries of page tables out, and run to their end. Page tables:
 * mm/pgtable.ts.
 * Unlike Linux: areas in a red-black tree, not in a maple tree. No huge pages, mlock, user threads. Structs have the sizes
 * of Linux's; what there is nothing of here is `…_rest`. No sheaves for areas: what they hold back would hide leaks.
 */
import type { Ptr, Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { ksym_fn } from "../kernel/lib/ksym.ts";
import { ListHead } from "../kernel/lib/list.ts";
import { RbNode, RbRoot } from "../kernel/lib/rbtree.ts";
import type { PagePtr } from "./page.ts";
import { PgTables, TASK_SIZE_MAX } from "./pgtable.ts";
import { KMEM_CACHE_USERCOPY, kmem_cache_create } from "./slab_common.ts";
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from "./slab_layout.ts";

/** `vm_flags`. */
export const VM_READ = 1;
export const VM_WRITE = 2;
export const VM_EXEC = 4;
/** Writes are the file's. Not set, though MAP_SHARED, where the file is not open for writing. */
export const VM_SHARED = 8;
/** What mprotect may make of it. */
export const VM_MAYREAD = 0x10;
export const VM_MAYWRITE = 0x20;
export const VM_MAYEXEC = 0x40;
/** Mapped with MAP_SHARED. */
export const VM_MAYSHARE = 0x80;
export const VM_GROWSDOWN = 0x100;
export const VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC;
/** What the area of a program that may do anything has. */
export const VM_MAYALL = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;

export const VmArea = struct(
  "vm_area_struct",
  {
    vm_start: "s64", // [vm_start, vm_end), whole pages; the free pointer of a free one lies here
    vm_end: "s64",
    vm_mm: "*mm_struct",
    vm_flags: "u64", // VM_*
    anon_vma_chain: ListHead, // anon_vma_chain.same_vma
    anon_vma: "*anon_vma", // of the pages that it gets from now on; NULL: it has had none of its own, fork copies nothing
    vm_ops: "*fn", // VmOps of its file; NULL: zeroes
    // Offset of vm_start in the file, in pages; without a file, vm_start in pages when it was mapped. Neighbours merge if
    // theirs follow on.
    vm_pgoff: "u64",
    vm_file: "*file", // NULL: zeroes
    vm_mapping: "*address_space", // of vm_file
    shared: RbNode, // in vm_mapping.i_mmap
    shared_last: "u64", // the last page of the file that an area at or below this node of that tree maps
    vm_rb: RbNode, // in vm_mm.mm_rb
    // Of the areas at and below this node of that tree: the first address, the last, and the largest hole between.
    subtree_start: "s64",
    subtree_end: "s64",
    subtree_gap: "u64",
    vm_policy: "*mempolicy", // NULL: the task's. mm/vma_policy.ts
    vm_rest: "u64[2]", // Linux: lock, userfaultfd
  },
  { sizeof: 192 },
);
export type VmaPtr = Ptr<"vm_area_struct">;

/** What a file does for the areas that map it. */
export interface VmOps {
  /** One user of `vm_file` more, or one less. */
  open(vma: VmaPtr): void;
  close(vma: VmaPtr): void;
  /** The page at `pgoff` of the file, read or made; or a negative VM_FAULT_* code. */
  fault(vma: VmaPtr, pgoff: number): PagePtr;
  /** The same page if it is in memory and within the file, else NULL. */
  cached(vma: VmaPtr, pgoff: number): PagePtr;
}

/** The record of an area that is of a file; undefined for others. */
export function vm_ops(vma: VmaPtr): VmOps | undefined {
  const address = VmArea.vm_ops.get(vma);
  return address === 0 ? undefined : (ksym_fn(address)() as VmOps);
}

export const MmStruct = struct(
  "mm_struct",
  {
    mm_rb: RbRoot,
    tables: PgTables,
    mm_users: "u32",
    map_count: "u32", // areas
    // Sizes in pages.
    total_vm: "u32",
    data_vm: "u32", // private and writable
    stack_vm: "u32",
    rss_file: "u32", // pages mapped now, by kind; the zero page left out
    rss_anon: "u32",
    rss_shmem: "u32",
    hiwater_rss: "u32",
    hiwater_vm: "u32",
    fault: "u32", // the VM_FAULT_* code that a fault of the program ended in
    start_brk: "s64",
    brk: "s64",
    start_stack: "s64",
    mmap_base: "s64",
    // TLBs: mm/tlbflush.ts.
    ctx_id: "u64", // never used twice
    tlb_gen: "u64", // goes up with every change that a TLB may not miss
    cpumask: "u32[2]", // CPUs that may hold translations of it
    saved_auxv: "u64[52]", // Linux: what a program is told when it starts. The one part that it may have copied
    mm_rest: "u64[127]", // Linux: locks, places of code and arguments, timers, notifiers
  },
  { sizeof: 1568 },
);
export type MmPtr = Ptr<"mm_struct">;

/** Pages of an address space that are mapped now. */
export function get_mm_rss(mm: MmPtr): number {
  return MmStruct.rss_file.get(mm) + MmStruct.rss_anon.get(mm) + MmStruct.rss_shmem.get(mm);
}

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
  const flags = SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT;
  mm_caches.mm_struct = KMEM_CACHE_USERCOPY(MmStruct, flags, "saved_auxv");
  const vma_flags = flags | SLAB_NO_MERGE | SLAB_TYPESAFE_BY_RCU;
  const vma_args = { freeptr_offset: VmArea.vm_start.offset };
  mm_caches.vm_area_struct = kmem_cache_create("vm_area_struct", VmArea.sizeof, vma_args, vma_flags);
}
