/**
 * Page tables as the kernel handles them: entries, protections, and the pages that tables are made of.
 *
 *     level   4 PGD   3 PUD   2 PMD   1 PTE        Linux's P4D is folded into the PGD
 *     leaf            1 GiB   2 MiB   4 KiB        hal/page_walk.ts has the form of an entry and the walk
 *
 *     protection   one int32: the low and the top 12 bits of an entry, at their places in its two words
 *                  PAGE_KERNEL  NX| G D A RW P  =  0x80000163        the entry: 0x80000000'xxxxx163
 *     entry        frame in bits 31..12 of the low word; bits 51..32 are 0, as RAM ends below 2 GiB
 *
 * Two words are enough for every entry this machine can have, and every protection is one number, so nothing here needs
 * 64-bit arithmetic. An entry is always handled by its address (`PtePtr`), whatever its level.
 *
 * A table is one zeroed page of type PGTY_table, counted in nr_page_table_pages and in its address space's
 * pgtables_bytes; the PGD is counted in the first only. Before there are page structs, tables come from memblock and
 * are not counted, as in Linux.
 *
 * Giving tables back is three steps, and the order is what keeps another CPU from walking a page that is somebody
 * else's by then:   entries cleared (`free_pgtables`)  ->  TLBs flushed  ->  pages freed (`pagetable_free_chain`)
 *
 * Locks: page_table_lock of an address space, for putting a table in; entries belong to who owns the range.
 * Unlike Linux: one lock for all tables; no soft-dirty, protection keys, PTI or swap entries.
 */
import { NULL, PAGE_SIZE, type Pfn, type Ptr, type Virt } from "../hal/addr.ts";
import { cmpxchg } from "../hal/atomic.ts";
import { static_data } from "../hal/image.ts";
import {
  _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_GLOBAL, _PAGE_PRESENT, _PAGE_PSE, _PAGE_RW, _PAGE_USER, table_index,
} from "../hal/page_walk.ts"; // prettier-ignore
import { ram32, ram_copy } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { BUG, BUG_ON } from "../kernel/lib/bug.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { GFP_KERNEL, __GFP_ACCOUNT, __GFP_ZERO } from "./gfp.ts";
import { memblock_alloc } from "./memblock.ts";
import {
  PGTY_none, PGTY_table, Page, mem_map_state, page_address, page_to_nid, pfn_to_page, set_page_type, virt_to_page,
  type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages, alloc_pages } from "./page_alloc.ts";
import { NR_PAGETABLE, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA } from "./zone.ts";

const m = ram32;

/** Where an entry lies, of any level. */
export type PtePtr = Ptr<"pte">;
/** A protection: the low and top 12 bits of an entry. */
export type Pgprot = number;

export const _PAGE_NX: Pgprot = 0x80000000 | 0;
/** Bit 9: a frame whose page struct is not to be touched (the zero page in user memory). */
export const _PAGE_SPECIAL: Pgprot = 0x200;

const KERNEL = _PAGE_PRESENT | _PAGE_ACCESSED | _PAGE_GLOBAL;
export const PAGE_KERNEL: Pgprot = KERNEL | _PAGE_RW | _PAGE_DIRTY | _PAGE_NX;
export const PAGE_KERNEL_RO: Pgprot = KERNEL | _PAGE_NX;
export const PAGE_KERNEL_ROX: Pgprot = KERNEL;

const USER = _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED;
export const PAGE_READONLY: Pgprot = USER | _PAGE_NX;
export const PAGE_READONLY_EXEC: Pgprot = USER;
export const PAGE_SHARED: Pgprot = USER | _PAGE_RW | _PAGE_NX;
export const PAGE_SHARED_EXEC: Pgprot = USER | _PAGE_RW;
/** Mapped, and nobody may touch it: P is clear, G says that it is not empty. */
export const PAGE_NONE: Pgprot = _PAGE_ACCESSED | _PAGE_GLOBAL;

/** Entries that point to a table. */
const _KERNPG_TABLE: Pgprot = _PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY;
const _PAGE_TABLE: Pgprot = _KERNPG_TABLE | _PAGE_USER;

export const GFP_PGTABLE_KERNEL = GFP_KERNEL | __GFP_ZERO;
export const GFP_PGTABLE_USER = GFP_PGTABLE_KERNEL | __GFP_ACCOUNT;

/** Levels of an entry. */
export const PG_LEVEL_4K = 1;
export const PG_LEVEL_2M = 2;
export const PG_LEVEL_1G = 3;
const PG_LEVEL_512G = 4;
/** Where the two halves of the address space end: 2^47, and 0 for the kernel's. */
export const TASK_SIZE_MAX: Virt = 2 ** 47 - PAGE_SIZE;
const KERNEL_HALF = PAGE_SIZE / 2;

/** What page tables need of an address space: mm_struct embeds it. */
export const PgTables = struct("pgtables", {
  pgd: "*pgd", // the top table; set once
  pgtables_bytes: "u64", // in tables below the top one; page_table_lock
  page_table_lock: SpinLock,
});
export type PgTablesPtr = Ptr<"pgtables">;

/** The kernel's own address space, to which every other one's upper half refers. */
export const init_mm = static_data("init_mm", { tables: PgTables });

/* Entries */

/** Address bits of a frame, and what a protection takes of each word. */
const FRAME = ~0xfff;
const PROT_LO = 0xfff;
const PROT_HI = 0xfff00000 | 0;

/** True for an entry that holds nothing. */
export function pte_none(entry: PtePtr): boolean {
  return m[entry >> 2] === 0 && m[(entry + 4) >> 2] === 0;
}

/** True if a page or table is mapped, be it PROT_NONE. */
export function pte_present(entry: PtePtr): boolean {
  return (m[entry >> 2]! & (_PAGE_PRESENT | _PAGE_GLOBAL)) !== 0;
}

/** True if the CPU finds a page here, not a table. `level` is the entry's. */
export function pte_leaf(entry: PtePtr, level: number): boolean {
  return level === PG_LEVEL_4K || (m[entry >> 2]! & _PAGE_PSE) !== 0;
}

/** The entry's flags as a protection. */
export function pte_flags(entry: PtePtr): Pgprot {
  return (m[entry >> 2]! & PROT_LO) | (m[(entry + 4) >> 2]! & PROT_HI);
}

/** What the entry points to: a table, or the first byte of a page of any size. */
export function pte_phys(entry: PtePtr): Ptr {
  return m[entry >> 2]! & FRAME;
}

export function pte_pfn(entry: PtePtr): Pfn {
  return m[entry >> 2]! >>> 12;
}

export function pte_page(entry: PtePtr): PagePtr {
  return pfn_to_page(pte_pfn(entry));
}

/** Writes an entry, the high word first: a CPU that walks meanwhile finds it empty or whole. */
export function set_pte(entry: PtePtr, phys: Ptr, prot: Pgprot): void {
  m[(entry + 4) >> 2] = prot & PROT_HI;
  m[entry >> 2] = phys | (prot & PROT_LO);
}

/** Empties an entry. The caller flushes the TLB before the page is anybody else's. */
export function pte_clear(entry: PtePtr): void {
  m[entry >> 2] = 0;
  m[(entry + 4) >> 2] = 0;
}

/** Sets flags of the low word (RW, D, A …) while CPUs may be setting A and D. */
export function ptep_set_flags(entry: PtePtr, flags: number): void {
  for (;;) {
    const lo = m[entry >> 2]!;
    if (cmpxchg(entry, lo, lo | flags)) return;
  }
}

/** Clears flags of the low word, likewise. Narrowed rights want a TLB flush. */
export function ptep_clear_flags(entry: PtePtr, flags: number): void {
  for (;;) {
    const lo = m[entry >> 2]!;
    if (cmpxchg(entry, lo, lo & ~flags)) return;
  }
}

/** Bytes that an entry of `level` maps. */
export function pg_level_size(level: number): number {
  return 2 ** (3 + 9 * level);
}

/** First address that the same entry of `level` maps. */
export function pg_level_base(va: Virt, level: number): Virt {
  const size = pg_level_size(level);
  return Math.floor(va / size) * size;
}

/* Tables */

function new_table(tables: PgTablesPtr): Ptr {
  if (mem_map_state.mem_map === NULL) return memblock_alloc(PAGE_SIZE, PAGE_SIZE);
  const page = alloc_pages(tables === init_mm.tables ? GFP_PGTABLE_KERNEL : GFP_PGTABLE_USER, 0);
  if (page === NULL) return NULL;
  set_page_type(page, PGTY_table);
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_PAGETABLE, 1);
  return page_address(page);
}

function pagetable_free(page: PagePtr): void {
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_PAGETABLE, -1);
  set_page_type(page, PGTY_none);
  __free_pages(page, 0);
}

/** The top table of a new address space, the kernel's half in it; NULL without memory. End it with pgd_free. */
export function pgd_alloc(tables: PgTablesPtr): Ptr<"pgd"> {
  const pgd = new_table(tables);
  if (pgd !== NULL && tables !== init_mm.tables)
    ram_copy(pgd + KERNEL_HALF, PgTables.pgd.get(init_mm.tables) + KERNEL_HALF, KERNEL_HALF);
  PgTables.pgd.set(tables, pgd);
  return pgd;
}

/** Gives the top table back: no CPU uses it any more, and nothing is mapped in its lower half. */
export function pgd_free(tables: PgTablesPtr): void {
  const bytes = PgTables.pgtables_bytes.get(tables);
  BUG_ON(bytes !== 0, `pgd_free: ${bytes} bytes of page tables are left`);
  pagetable_free(virt_to_page(PgTables.pgd.get(tables)));
  PgTables.pgd.set(tables, NULL);
}

/** The entry of `va` at `level`; NULL if a table on the way is missing, or a larger page maps the address. */
export function pte_offset(tables: PgTablesPtr, va: Virt, level: number): PtePtr {
  let table: Ptr = PgTables.pgd.get(tables);
  for (let at = PG_LEVEL_512G; ; at--) {
    const entry = table + 8 * table_index(va, at);
    if (at === level) return entry;
    if (!pte_present(entry) || pte_leaf(entry, at)) return NULL;
    table = pte_phys(entry);
  }
}

/**
 * The entry of `va` at `level`, with tables made where they are missing; NULL without memory (what was made stays).
 * Context: may ask for pages as GFP_KERNEL does; takes page_table_lock.
 */
export function pte_alloc(tables: PgTablesPtr, va: Virt, level: number): PtePtr {
  let table: Ptr = PgTables.pgd.get(tables);
  for (let at = PG_LEVEL_512G; ; at--) {
    const entry = table + 8 * table_index(va, at);
    if (at === level) return entry;
    if (pte_none(entry) && !fill_entry(tables, entry)) return NULL;
    if (pte_leaf(entry, at)) BUG(`pte_alloc: a page of level ${at} is mapped at ${va}`);
    table = pte_phys(entry);
  }
}

/** Puts a new table into an entry, unless another CPU was faster. */
function fill_entry(tables: PgTablesPtr, entry: PtePtr): boolean {
  const table = new_table(tables);
  if (table === NULL) return false;
  spin_lock(PgTables.page_table_lock.at(tables));
  const is_free = pte_none(entry);
  if (is_free) {
    set_pte(entry, table, tables === init_mm.tables ? _KERNPG_TABLE : _PAGE_TABLE);
    PgTables.pgtables_bytes.set(tables, PgTables.pgtables_bytes.get(tables) + PAGE_SIZE);
  }
  spin_unlock(PgTables.page_table_lock.at(tables));
  if (!is_free) pagetable_free(virt_to_page(table));
  return true;
}

/** What a walk does with an entry that maps a page: its first address, and its level. */
export type LeafVisitor = (entry: PtePtr, va: Virt, level: number) => void;

/** Visits every mapped page of [start, end), a part of one half, by address. The visitor may clear the entry it is given. */
export function for_each_leaf(tables: PgTablesPtr, start: Virt, end: Virt, visit: LeafVisitor): void {
  visit_table(PgTables.pgd.get(tables), PG_LEVEL_512G, start, end, visit);
}

function visit_table(table: Ptr, level: number, start: Virt, end: Virt, visit: LeafVisitor): void {
  const size = pg_level_size(level);
  let va = pg_level_base(start, level);
  for (let entry = table + 8 * table_index(va, level); va < end; va += size, entry += 8) {
    if (!pte_present(entry)) continue;
    if (pte_leaf(entry, level)) visit(entry, va, level);
    else visit_table(pte_phys(entry), level - 1, Math.max(start, va), Math.min(end, va + size), visit);
  }
}

/**
 * Takes out every table that maps nothing but addresses of [floor, ceiling), where no page is mapped any more. The
 * range may reach as far as the neighbours' areas do. Of the kernel's tables those below the PGD stay: other address
 * spaces refer to them.
 *
 * Returns the pages chained in front of `chain`, for pagetable_free_chain, which comes after the TLB flush.
 */
export function free_pgtables(tables: PgTablesPtr, floor: Virt, ceiling: Virt, chain: PagePtr = NULL): PagePtr {
  return take_out(tables, PgTables.pgd.get(tables), PG_LEVEL_512G, floor, ceiling, chain);
}

function take_out(tables: PgTablesPtr, table: Ptr, level: number, start: Virt, end: Virt, list: PagePtr): PagePtr {
  const size = pg_level_size(level);
  let [chain, va] = [list, pg_level_base(start, level)];
  for (let entry = table + 8 * table_index(va, level); va < end; va += size, entry += 8) {
    if (!pte_present(entry) || pte_leaf(entry, level)) continue;
    if (level > PG_LEVEL_2M)
      chain = take_out(tables, pte_phys(entry), level - 1, Math.max(start, va), Math.min(end, va + size), chain);
    const stays = level === PG_LEVEL_512G && tables === init_mm.tables;
    if (va < start || va + size > end || stays) continue;
    const page = pte_page(entry);
    pte_clear(entry);
    PgTables.pgtables_bytes.set(tables, PgTables.pgtables_bytes.get(tables) - PAGE_SIZE);
    Page.private.set(page, chain);
    chain = page;
  }
  return chain;
}

/** Frees what free_pgtables took out. */
export function pagetable_free_chain(chain: PagePtr): void {
  for (let page = chain; page !== NULL;) {
    const next = Page.private.get(page);
    Page.private.set(page, 0);
    pagetable_free(page);
    page = next;
  }
}
