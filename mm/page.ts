/**
 * `struct page`: 64 bytes for every page frame, in one array, `mem_map`.
 *
 *     page of a frame   mem_map + 64 * pfn          frame of a page   (page - mem_map) / 64
 *
 * The array is flat (Linux's FLATMEM) so that both ways are a subtraction and a shift; the parts of it that would
 * describe large holes of the memory map are given back to the allocator at boot (mm/mm_init.ts).
 *
 * What a page is used for decides what its words mean; `page_type` says which: -1 none (or mapped), else the top byte.
 * A block of 2^n pages handed out with __GFP_COMP is one compound page: the head carries PG_head, each tail's second
 * word is the head's address + 1, and the order lies in the first tail.
 */
import { PAGE_SHIFT, type Obj, type Pfn, type Ptr } from "../hal/addr.ts";
import { ram32 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { static_data } from "../hal/image.ts";
import { ListHead } from "../kernel/lib/list.ts";

const m = ram32;

export const Page = struct(
  "page",
  {
    flags: "u32", // PG_* bits; whoever owns the page
    zone_node: "u32", // node << 4 | zone; written once at boot
    lru: ListHead, // LRU list, free list (zone->lock) or per-CPU list; in a tail page the first word is head + 1
    mapping: "*address_space", // page cache: whose page this is; anonymous memory: its anon_vma + 1
    index: "u64", // page cache: offset in the file; anonymous memory: address when it was mapped; in pages
    private: "u32", // order, while the page heads a free block (zone->lock)
    private_hi: "u32",
    page_type: "s32", // -1, or PGTY_* << 24; of a page of a program: its mappings - 1
    refcount: "s32", // atomic; 0 while free
    memcg_data: "u64",
  },
  { sizeof: 64 },
);
export type PagePtr = Ptr<"page">;
export const PAGE_STRUCT_SHIFT = 6;

/**
 * The same 64 bytes while the page heads a slab. Protected by the node's list_lock, except `counters` (changed by
 * compare-and-swap) and the CPU's own slab, which only that CPU touches.
 */
export const Slab = struct(
  "slab",
  {
    flags: "u32",
    zone_node: "u32",
    slab_cache: "*kmem_cache",
    slab_list: ListHead, // node->partial or node->full; on a CPU partial list `next` links and `prev` counts the slabs
    counters: "u32", // first free object, in 8-byte granules:16 | in use:15 | frozen:1
    objects: "u32", // objects this slab holds
    slabs_next: "*slab", // node->slabs: every slab from birth to death
    page_type: "s32",
    refcount: "s32",
    slabs_prev: "u32", // the slab before it on node->slabs
    birth: "u32", // the how-manieth slab of the machine it is: the order of birth across nodes
  },
  { sizeof: 64 },
);
export type SlabPtr = Ptr<"slab">;

export const PG_locked = 0;
export const PG_writeback = 1;
export const PG_referenced = 2;
export const PG_uptodate = 3;
export const PG_dirty = 4;
export const PG_lru = 5;
export const PG_head = 6;
export const PG_waiters = 7;
export const PG_active = 8;
export const PG_workingset = 9;
export const PG_owner_priv_1 = 10;
export const PG_owner_2 = 11;
export const PG_arch_1 = 12;
export const PG_reserved = 13;
export const PG_private = 14;
export const PG_private_2 = 15;
export const PG_reclaim = 16;
export const PG_swapbacked = 17;
export const PG_unevictable = 18;
export const PG_dropbehind = 19;
export const PG_mlocked = 20;
export const PG_hwpoison = 21;

/** Set in `mapping` of an anonymous page. */
export const PAGE_MAPPING_ANON = 1;

export const PGTY_none = -1;
export const PGTY_buddy = 0xf0;
export const PGTY_offline = 0xf1;
export const PGTY_table = 0xf2;
export const PGTY_guard = 0xf3;
export const PGTY_slab = 0xf5;
export const PGTY_large_kmalloc = 0xf8;
/** Types as reports name them. */
export const PGTY_NAMES: Readonly<Record<number, string>> = Object.freeze({
  [PGTY_buddy]: "buddy", [PGTY_offline]: "offline", [PGTY_table]: "table", [PGTY_guard]: "guard", [PGTY_slab]: "slab",
  [PGTY_large_kmalloc]: "large_kmalloc",
}); // prettier-ignore

/** Frames of one section: 4 MiB, the largest block of the buddy allocator. A section without RAM has no page structs. */
export const SECTION_NR_PAGES = 1024;
/** Where the array of page structs lies, how many frames it describes, and a bit for each section that has structs. */
export const mem_map_state = static_data("mem_map", { mem_map: "*page", max_pfn: "u32", sections: "u32[16]" });
const SHIFT = PAGE_SHIFT;
const MEM_MAP = mem_map_state.$at("mem_map") >> 2;

/** Hot path. */
export function pfn_to_page(pfn: Pfn): PagePtr {
  return m[MEM_MAP]! + (pfn << 6);
}

/** Hot path. */
export function page_to_pfn(page: PagePtr): Pfn {
  return (page - m[MEM_MAP]!) >> 6;
}

/** The page that a direct-map address lies in. Hot path. */
export function virt_to_page(ptr: Ptr): PagePtr {
  return m[MEM_MAP]! + ((ptr >>> SHIFT) << 6);
}

/** First byte of a page. */
export function page_address(page: PagePtr): Obj {
  return page_to_pfn(page) << PAGE_SHIFT;
}

/** True if a frame has a page struct. */
export function pfn_valid(pfn: Pfn): boolean {
  if (pfn < 0 || pfn >= mem_map_state.max_pfn) return false;
  const section = Math.floor(pfn / SECTION_NR_PAGES);
  return ((mem_map_state.sections.get(section >> 5) >>> (section & 31)) & 1) !== 0;
}

/** Says whether the section that starts at `pfn` has page structs. Boot does it. */
export function set_section_valid(pfn: Pfn, valid: boolean): void {
  const section = Math.floor(pfn / SECTION_NR_PAGES);
  const bit = 1 << (section & 31);
  const word = mem_map_state.sections.get(section >> 5);
  mem_map_state.sections.set(section >> 5, valid ? word | bit : word & ~bit);
}

const COMPOUND_HEAD = Page.lru.offset;

/** The head of a compound page; any other page itself. */
export function compound_head(page: PagePtr): PagePtr {
  const word = m[(page + COMPOUND_HEAD) >> 2]!;
  return word & 1 ? word - 1 : page;
}

/** The page that heads the block in which `ptr` lies. */
export function virt_to_head_page(ptr: Ptr): PagePtr {
  return compound_head(virt_to_page(ptr));
}

export function page_is_tail(page: PagePtr): boolean {
  return (m[(page + COMPOUND_HEAD) >> 2]! & 1) !== 0;
}

/** Order of the compound page headed by `page`; 0 if it is none. */
export function compound_order(page: PagePtr): number {
  return page_flag(page, PG_head) ? m[(page + Page.sizeof + Page.flags.offset) >> 2]! & 0xff : 0;
}

/** Makes 2^order pages one compound page. */
export function prep_compound_page(page: PagePtr, order: number): void {
  set_page_flag(page, PG_head);
  for (let i = 1; i < 1 << order; i++) m[(page + i * Page.sizeof + COMPOUND_HEAD) >> 2] = page + 1;
  m[(page + Page.sizeof + Page.flags.offset) >> 2] = order;
}

export function page_flag(page: PagePtr, bit: number): boolean {
  return ((m[(page + Page.flags.offset) >> 2]! >>> bit) & 1) !== 0;
}

export function set_page_flag(page: PagePtr, bit: number): void {
  m[(page + Page.flags.offset) >> 2] = m[(page + Page.flags.offset) >> 2]! | (1 << bit);
}

export function clear_page_flag(page: PagePtr, bit: number): void {
  m[(page + Page.flags.offset) >> 2] = m[(page + Page.flags.offset) >> 2]! & ~(1 << bit);
}

/** Type of a page as PGTY_*, or PGTY_none. */
export function page_type(page: PagePtr): number {
  const type = m[(page + Page.page_type.offset) >> 2]!;
  return type === PGTY_none ? PGTY_none : type >>> 24;
}

export function set_page_type(page: PagePtr, type: number): void {
  m[(page + Page.page_type.offset) >> 2] = type === PGTY_none ? PGTY_none : type << 24;
}

/** True for memory of programs that is of no file: `mapping` is an anon_vma's address + 1. */
export function page_is_anon(page: PagePtr): boolean {
  return (m[(page + Page.mapping.offset) >> 2]! & PAGE_MAPPING_ANON) !== 0;
}

export function page_is_buddy(page: PagePtr): boolean {
  return page_type(page) === PGTY_buddy;
}

export function page_is_slab(page: PagePtr): boolean {
  return page_type(page) === PGTY_slab;
}

export function page_zonenum(page: PagePtr): number {
  return m[(page + Page.zone_node.offset) >> 2]! & 15;
}

export function page_to_nid(page: PagePtr): number {
  return m[(page + Page.zone_node.offset) >> 2]! >>> 4;
}
