/**
 * SLOB, the simple list of blocks: the smallest of the three allocators, as of Linux 6.1.
 *
 *     a page     #### 60|124 ........ ###### 8|2048 ........          # handed out   . free
 *                     ^ freelist             ^ the last one points behind the page
 *
 * There are no slabs. A page holds blocks of any size, of whatever caches, counted in units of 2 bytes, and nothing is
 * kept of a block that is handed out: who frees it says how long it is. A free block holds its own length and place:
 *
 *     two units or more   word 0: units            word 1: unit in the page where the next free block starts
 *     one unit            word 0: that place, negated
 *
 * Free blocks of a page are in order of address and never touch. Pages with free units are on one of three lists: those
 * of blocks below 256 bytes, below 1024, and the rest. A page serves the list that it is on, so all its blocks are of one.
 *
 * A block of `size` bytes is found so:
 *   1 in the list for its size, the first page with as many free units as it needs, from the head of the list
 *   2 in that page the first free block that holds it; what alignment skips at its front, and what is left at its end,
 *     stay free. If no block fits: the next page
 *   3 the list is turned so that the search starts at this page next time (next fit)
 *   4 no page fits: a new one, put at the head of the list
 * A page without a free unit leaves its list. Freed, a block joins the free blocks before and behind it; the first one
 * freed from a full page puts the page at the head of the list for that block's size; the last one frees the page.
 *
 * Cost: a walk over the pages of a list and the free blocks of those with units enough; a free walks one page's blocks.
 * Locks: slob_lock, one for everything. The page allocator is never called with it.
 * Invariant: a page is on a list if and only if 0 < units < 2048; Linux's page flag for that (PG_slob_free) is left out.
 */
import { NULL, PAGE_SIZE, type NodeId, type Obj, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ram16, ram_fill } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { BUG } from "../kernel/lib/bug.ts";
import { ListHead, init_list_head, list_add, list_del, list_move_tail, list_next, type ListPtr } from "../kernel/lib/list.ts"; // prettier-ignore
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { NUMA_NO_NODE, __GFP_COMP, __GFP_ZERO } from "./gfp.ts";
import {
  PGTY_large_kmalloc, PGTY_none, PGTY_slab, Page, page_address, page_to_nid, set_page_type, virt_to_page, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, alloc_pages_node } from "./page_alloc.ts";
import { slab_data } from "./slab_common.ts";
import { NR_SLAB_UNRECLAIMABLE, mod_node_page_state } from "./vmstat.ts";
import { NODE_DATA } from "./zone.ts";

const m16 = ram16;

const UNIT_SHIFT = 1;
export const PAGE_UNITS = PAGE_SIZE >> UNIT_SHIFT;
const SLOB_BREAK1 = 256;
const SLOB_BREAK2 = 1024;

/** The page struct of a page of blocks. Protected by slob_lock. */
export const SlobPage = struct(
  "slob_page",
  {
    flags: "u32",
    zone_node: "u32",
    slab_cache: "*kmem_cache", // NULL: what tells kfree that the page is no cache's
    slab_list: ListHead, // free_slob_small, _medium or _large, while units > 0
    freelist: "*object", // the first free block
    units: "u32", // free
    pad: "u32",
    page_type: "s32",
    refcount: "s32",
    pad2: "u32",
    birth: "u32", // the how-manieth page of blocks of the machine it is
  },
  { sizeof: 64 },
);
export type SlobPagePtr = Ptr<"slob_page">;
const SLAB_LIST = SlobPage.slab_list.offset;

export const slob_data = static_data("slob", {
  lock: SpinLock, // slob_lock
  free_slob_small: ListHead,
  free_slob_medium: ListHead,
  free_slob_large: ListHead,
  nr_pages: "u32", // pages of blocks, full ones too
  // Linux keeps none of these: they are what free units are checked against.
  kmalloc_allocs: "u32", // blocks that kmalloc ever took
  kmalloc_frees: "u32", // and gave back
  kmalloc_units: "u32", // units of those in use
  rcu_units: "u32", // units of objects that wait for a grace period
  lost_units: "u32", // units of objects whose cache was destroyed
});

/** Boot: no pages yet. */
export function slob_init(): void {
  for (const list of [slob_data.free_slob_small, slob_data.free_slob_medium, slob_data.free_slob_large])
    init_list_head(list);
}

/** Units that `size` bytes take. */
export function slob_units(size: number): number {
  return (size + 1) >> UNIT_SHIFT;
}

/** The list that pages are searched in, and put on, for a block of `size` bytes. */
export function slob_list(size: number): ListPtr {
  if (size < SLOB_BREAK1) return slob_data.free_slob_small;
  return size < SLOB_BREAK2 ? slob_data.free_slob_medium : slob_data.free_slob_large;
}

// Blocks are told by their first unit in the page; `base` is the page's first unit in RAM.

/** Units of a free block. */
export function block_units(base: number, at: number): number {
  const word = m16[base + at]!;
  return word < 0x8000 ? word : 1;
}

/** The free block behind a free block; PAGE_UNITS if it is the last. */
export function block_next(base: number, at: number): number {
  const word = m16[base + at]!;
  return word < 0x8000 ? m16[base + at + 1]! : 0x10000 - word;
}

function set_block(base: number, at: number, units: number, next: number): void {
  if (units > 1) {
    m16[base + at] = units;
    m16[base + at + 1] = next;
  } else m16[base + at] = -next;
}

/** The first unit of a page in RAM. */
export function page_base(page: SlobPagePtr): number {
  return page_address(page as Ptr) >> UNIT_SHIFT;
}

/**
 * Takes a block of `size` bytes so that its address + `align_offset` is a multiple of `align`, of node `node` if that is
 * not NUMA_NO_NODE. `align` is a power of two from 2 on such that the block fits into an empty page.
 *
 * Context: may sleep if `gfp` allows it. Returns NULL when there is no memory.
 */
export function slob_alloc(size: number, gfp: number, align: number, node: NodeId, align_offset: number): Obj {
  const list = slob_list(size);
  const units = slob_units(size);
  spin_lock(slob_data.lock);
  let block = find_block(list, units, align, node, align_offset);
  spin_unlock(slob_data.lock);
  if (block === NULL) {
    const page = new_page(gfp & ~__GFP_ZERO, node);
    if (page === NULL) return NULL;
    spin_lock(slob_data.lock);
    slob_data.nr_pages = slob_data.nr_pages + 1;
    list_add(SlobPage.slab_list.at(page), list);
    block = take_from_page(page, units, align, align_offset);
    if (block === NULL) BUG(`SLOB: ${size} bytes aligned to ${align} do not fit into a page`);
    spin_unlock(slob_data.lock);
  }
  if (gfp & __GFP_ZERO) ram_fill(block, 0, size);
  return block;
}

/** Steps 1 to 3 of the order of service; NULL if no page of the list has room. */
function find_block(list: ListPtr, units: number, align: number, node: NodeId, align_offset: number): Obj {
  for (let link = list_next(list); link !== list; link = list_next(link)) {
    const page: SlobPagePtr = link - SLAB_LIST;
    if (node !== NUMA_NO_NODE && page_to_nid(page as Ptr) !== node) continue;
    if (SlobPage.units.get(page) < units) continue;
    const block = take_from_page(page, units, align, align_offset);
    if (block === NULL) continue;
    // Turning the list: its head moves to just before this page.
    if (SlobPage.units.get(page) > 0 && list_next(list) !== link) list_move_tail(list, link);
    return block;
  }
  return NULL;
}

/** Takes a block out of the first free block of the page that holds it; NULL if none does. */
function take_from_page(page: SlobPagePtr, units: number, align: number, align_offset: number): Obj {
  const base = page_base(page);
  const mask = (align >> UNIT_SHIFT) - 1;
  const skip = align_offset >> UNIT_SHIFT;
  let prev = -1;
  for (let at = (SlobPage.freelist.get(page) >> UNIT_SHIFT) - base; at < PAGE_UNITS;) {
    const next = block_next(base, at);
    const start = ((at + skip + mask) & ~mask) - skip;
    const rest = at + block_units(base, at) - start - units;
    if (rest < 0) {
      prev = at;
      at = next;
      continue;
    }
    const follower = rest > 0 ? start + units : next;
    if (rest > 0) set_block(base, follower, rest, next);
    if (start > at) set_block(base, at, start - at, follower);
    else if (prev >= 0) set_block(base, prev, block_units(base, prev), follower);
    else SlobPage.freelist.set(page, (base + follower) << UNIT_SHIFT);
    SlobPage.units.set(page, SlobPage.units.get(page) - units);
    if (SlobPage.units.get(page) === 0) list_del(SlobPage.slab_list.at(page));
    return (base + start) << UNIT_SHIFT;
  }
  return NULL;
}

/** Gives back a block of `size` bytes, as many as it was taken with. Context: any. */
export function slob_free(block: Obj, size: number): void {
  const page = virt_to_page(block) as Ptr as SlobPagePtr;
  const units = slob_units(size);
  spin_lock(slob_data.lock);
  const had = SlobPage.units.get(page);
  const empty = had + units === PAGE_UNITS;
  if (empty) {
    if (had > 0) list_del(SlobPage.slab_list.at(page));
    slob_data.nr_pages = slob_data.nr_pages - 1;
  } else {
    if (had === 0) {
      SlobPage.freelist.set(page, (page_base(page) + PAGE_UNITS) << UNIT_SHIFT);
      list_add(SlobPage.slab_list.at(page), slob_list(size));
    }
    SlobPage.units.set(page, had + units);
    insert_block(page, block, units);
  }
  spin_unlock(slob_data.lock);
  if (empty) free_page(page as Ptr);
}

/** Puts a block among the free ones of its page, and joins it with those that touch it. */
function insert_block(page: SlobPagePtr, block: Obj, units: number): void {
  const base = page_base(page);
  const at = (block >> UNIT_SHIFT) - base;
  let prev = -1;
  let next = (SlobPage.freelist.get(page) >> UNIT_SHIFT) - base;
  while (next < at) {
    prev = next;
    next = block_next(base, next);
  }
  if (at + units === next && next < PAGE_UNITS) {
    units += block_units(base, next);
    next = block_next(base, next);
  }
  if (prev < 0) SlobPage.freelist.set(page, block);
  else {
    const before = block_units(base, prev);
    if (prev + before === at) return set_block(base, prev, before + units, next);
    set_block(base, prev, before, at);
  }
  set_block(base, at, units, next);
}

/** Makes a page that is one free block, on no list yet. */
function new_page(gfp: number, node: NodeId): SlobPagePtr {
  const block = slob_new_pages(gfp, 0, node);
  if (block === NULL) return NULL;
  const page = virt_to_page(block) as Ptr as SlobPagePtr;
  set_page_type(page as Ptr, PGTY_slab);
  SlobPage.slab_cache.set(page, NULL);
  SlobPage.freelist.set(page, block);
  SlobPage.units.set(page, PAGE_UNITS);
  SlobPage.birth.set(page, ++slab_data.births);
  set_block(block >> UNIT_SHIFT, 0, PAGE_UNITS, PAGE_UNITS);
  return page;
}

function free_page(page: PagePtr): void {
  Page.mapping.set(page, NULL);
  Page.private.set(page, 0);
  Page.memcg_data.set(page, 0);
  slob_free_pages(page_address(page), 0);
}

/** Takes 2^order pages that hold one object; NULL without memory. */
export function slob_new_pages(gfp: number, order: number, node: NodeId): Obj {
  const flags = gfp | __GFP_COMP;
  const page = node === NUMA_NO_NODE ? alloc_pages(flags, order) : alloc_pages_node(node, flags, order);
  if (page === NULL) return NULL;
  set_page_type(page, PGTY_large_kmalloc);
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_SLAB_UNRECLAIMABLE, 1 << order);
  return page_address(page);
}

/** Gives back what slob_new_pages gave. */
export function slob_free_pages(object: Obj, order: number): void {
  const page = virt_to_page(object);
  mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_SLAB_UNRECLAIMABLE, -(1 << order));
  set_page_type(page, PGTY_none);
  __free_pages(page, order);
}
