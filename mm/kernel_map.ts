/**
 * The kernel's own address space: what is mapped at boot, and how a CPU is switched to it.
 *
 *     ffff888000000000   direct map: all RAM                  rw-   the largest pages that fit: 1 GiB, 2 MiB, 4 KiB
 *     ffffc90000000000   vmalloc range, 32 TiB                       64 entries of the PGD, each with its table from boot
 *     ffffffff81000000   kernel image, from physical 1 MiB    r-x   text
 *                                                             r--   names of functions and variables
 *                                                             rw-   data, per-CPU areas
 *
 * Where the image is read-only its place in the direct map is, too: there is no second way to write to it.
 *
 * The kernel's code is not run by this CPU but by the host, and reaches RAM by `Ptr` (hal/addr.ts), which is the direct
 * map with its first address left off. So the tables decide about nothing the kernel does by itself; they decide about
 * whatever goes through hal/mmu.ts: user programs, vmalloc addresses, a module's wild pointer.
 *
 * Order: after memblock, from which the tables come; before page structs, zones and nodes' memory.
 * Unlike Linux: no vmemmap (page structs are one array in the direct map), no KASLR, PTI, espfix or fixmap; no CPU entry area.
 */
import { PAGE_SIZE, type Ptr, type Virt } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { DATA_BASE, IMAGE_BASE, TEXT_BASE, TEXT_BYTES, image_end, static_data } from "../hal/image.ts";
import { read_cr0, read_cr4, read_efer, write_cr0, write_cr3, write_cr4, write_efer } from "../hal/control_regs.ts";
import { _PAGE_PSE } from "../hal/page_walk.ts";
import {
  EFER_LME, EFER_NX, X86_CR0_PE, X86_CR0_PG, X86_CR0_WP, X86_CR4_PAE, X86_CR4_PCIDE, X86_CR4_PGE, X86_CR4_SMAP,
  X86_CR4_SMEP,
} from "../hal/privilege.ts"; // prettier-ignore
import { panic } from "../kernel/lib/bug.ts";
import { pr_info } from "../kernel/lib/printk.ts";
import { for_each_mem_pfn_range } from "./memblock.ts";
import { NUMA_NO_NODE } from "./gfp.ts";
import {
  PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_KERNEL_ROX, PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K, PgTables, init_mm,
  pg_level_size, pgd_alloc, pte_alloc, set_pte, type Pgprot,
} from "./pgtable.ts"; // prettier-ignore

/** First address of the direct map: ffff888000000000. */
export const PAGE_OFFSET: Virt = -0x778000000000;
/** ffffc90000000000 and, one past its last byte, ffffe90000000000. */
export const VMALLOC_START: Virt = -0x370000000000;
export const VMALLOC_END: Virt = VMALLOC_START + 2 ** 45;
/** Where the image starts: ffffffff81000000. */
export const KERNEL_IMAGE_BASE: Virt = -0x7f000000;

/** Linux maps all of the first MiB, holes and firmware included. */
const ISA_END_ADDRESS = 0x100000;

/** Pages of the direct map by size. */
const direct_pages = static_data("direct_pages_count", { nr_4k: "u32", nr_2m: "u32", nr_1g: "u32" });

/** The kernel's top page table. */
export function swapper_pg_dir(): Ptr {
  return PgTables.pgd.get(init_mm.tables);
}

/** The direct-map address of a byte of RAM. */
export function ptr_to_virt(ptr: Ptr): Virt {
  return PAGE_OFFSET + ptr;
}

/** The kernel-image address of a byte of text or static data. */
export function image_to_virt(ptr: Ptr): Virt {
  return KERNEL_IMAGE_BASE + (ptr - IMAGE_BASE);
}

/** The byte of RAM behind an address of the direct map or of the kernel image; NaN for any other. */
export function virt_to_ptr(va: Virt): Ptr {
  if (va >= PAGE_OFFSET && va < PAGE_OFFSET + 2 ** 31) return va - PAGE_OFFSET;
  const offset = va - KERNEL_IMAGE_BASE;
  return offset >= 0 && offset < image_end(nr_cpu_ids()) - IMAGE_BASE ? IMAGE_BASE + offset : NaN;
}

/** Builds the kernel's page tables and switches the boot CPU to them. Context: boot, memblock is set up. */
export function init_mem_mapping(): void {
  if (pgd_alloc(init_mm.tables) === 0) no_memory();
  map_direct(0, ISA_END_ADDRESS);
  for (const { start, end } of for_each_mem_pfn_range(NUMA_NO_NODE))
    map_direct(Math.max(start * PAGE_SIZE, ISA_END_ADDRESS), end * PAGE_SIZE);
  if (direct_pages.nr_1g > 0) pr_info("Using GB pages for direct mapping");
  for (let ptr = IMAGE_BASE; ptr < image_end(nr_cpu_ids()); ptr += PAGE_SIZE)
    map(image_to_virt(ptr), ptr, PG_LEVEL_4K, image_protection(ptr));
  cpu_init_paging();
}

function no_memory(): never {
  panic("Failed to allocate page tables for the kernel");
}

function map(va: Virt, phys: Ptr, level: number, prot: Pgprot): void {
  const entry = pte_alloc(init_mm.tables, va, level);
  if (entry === 0) no_memory();
  set_pte(entry, phys, level === PG_LEVEL_4K ? prot : prot | _PAGE_PSE);
}

/** Maps [start, end) of RAM with the largest pages that are aligned and fit. */
function map_direct(start: Ptr, end: Ptr): void {
  for (let ptr = start; ptr < end;) {
    const level = [PG_LEVEL_1G, PG_LEVEL_2M].find((l) => ptr % pg_level_size(l) === 0 && ptr + pg_level_size(l) <= end);
    const is_rodata = ptr >= TEXT_BASE && ptr < DATA_BASE;
    map(ptr_to_virt(ptr), ptr, level ?? PG_LEVEL_4K, is_rodata ? PAGE_KERNEL_RO : PAGE_KERNEL);
    if (level === PG_LEVEL_1G) direct_pages.nr_1g++;
    else if (level === PG_LEVEL_2M) direct_pages.nr_2m++;
    else direct_pages.nr_4k++;
    ptr += pg_level_size(level ?? PG_LEVEL_4K);
  }
}

function image_protection(ptr: Ptr): Pgprot {
  if (ptr < TEXT_BASE + TEXT_BYTES) return PAGE_KERNEL_ROX;
  return ptr < DATA_BASE ? PAGE_KERNEL_RO : PAGE_KERNEL;
}

/** Switches this CPU to the kernel's page tables, with all protection on. Context: bring-up of the CPU. */
export function cpu_init_paging(): void {
  write_cr4(read_cr4() | X86_CR4_PAE);
  write_efer(read_efer() | EFER_LME | EFER_NX);
  write_cr3(swapper_pg_dir());
  write_cr0(read_cr0() | X86_CR0_PE | X86_CR0_WP | X86_CR0_PG);
  write_cr4(read_cr4() | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP);
}

/** Gives every PGD entry of the vmalloc range its table, so that other address spaces never have to learn of one. */
export function preallocate_vmalloc_pages(): void {
  for (let va = VMALLOC_START; va < VMALLOC_END; va += pg_level_size(PG_LEVEL_1G + 1))
    if (pte_alloc(init_mm.tables, va, PG_LEVEL_1G) === 0) no_memory();
}

/** The direct map's share in KiB by page size: lines of /proc/meminfo. */
export function direct_map_kib(): { DirectMap4k: number; DirectMap2M: number; DirectMap1G: number } {
  const { nr_4k, nr_2m, nr_1g } = direct_pages;
  return { DirectMap4k: nr_4k * 4, DirectMap2M: nr_2m * 2048, DirectMap1G: nr_1g * 1048576 };
}
