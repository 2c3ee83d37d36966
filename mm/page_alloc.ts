/**
 * The page allocator as its callers see it: blocks of 2^order pages, taken and given back, and who refers to them.
 *
 *     alloc_pages(gfp, order)
 *     1 this CPU's list of the nearest zone       one page, while that zone has plenty (mm/plenty.ts): a pop, no lock
 *       the running task's memory policy          mm/mempolicy.ts: another node first, or some nodes only
 *     2 each zone of the node's zonelist          mm/zonelist.ts: watermarks, other orders, lower zones, other nodes
 *     3 reserves, reclaim, a report               mm/zonelist.ts, for those in need
 *     __free_pages(page, order)
 *     1 drop a reference; who drops the last one frees the block
 *     2 this CPU's list of the page's zone        a push; too many there go on to
 *     3 the zone's free areas                     mm/buddy.ts: merge with free neighbours
 *
 * References: a block is handed out with refcount 1 on its first page, 0 on the others; only the first page's counts.
 * With __GFP_COMP the block is a compound page, and its order is known from the page. split_page makes 2^order pages
 * of a block, each with a reference of its own.
 *
 * Locks: pcp->lock, then zone->lock; see mm/pcp.ts and mm/buddy.ts. The hot path takes none: a pop or a push runs to its
 * end on its own CPU, and refills and drains leave the lists whole wherever they call out.
 * Budget of the hot path: 6 times a pop and a push of a plain list, with every counter that Linux keeps.
 * Invariant: managed = free + on per-CPU lists + in use, for every zone at every moment.
 *
 * Unlike Linux: the flags of tail pages are cleared only if the block is compound. A double free is undefined, as there:
 * the second drop of a page takes its refcount from 0 to -1 and frees nothing; of a block that is not compound it frees
 * the upper parts again.
 */
import { NULL, type NodeId, type Ptr } from "../hal/addr.ts";
import { atomic_add, atomic_add_return } from "../hal/atomic.ts";
import { CPU_NODE, CPU_OFFSET, cpu_regs, numa_node_id } from "../hal/cpu.ts";
import { ram32, ram8 } from "../hal/ram.ts";
import { BUG } from "../kernel/lib/bug.ts";
import { check_pages_init, free_page_is_bad, free_tail_page_is_bad, is_check_pages_enabled } from "./bad_page.ts";
import { FPI_TO_TAIL } from "./buddy.ts";
import {
  MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, NUMA_NO_NODE, __GFP_DMA, __GFP_DMA32,
  __GFP_HIGHMEM, __GFP_MOVABLE, __GFP_RECLAIMABLE, __GFP_THISNODE, __GFP_ZERO,
} from "./gfp.ts"; // prettier-ignore
import {
  PGTY_none, PG_head, PG_reserved, Page, clear_page_flag, compound_head, compound_order, mem_map_state, page_address,
  page_flag, page_is_anon, page_to_pfn, page_type, set_page_type, virt_to_page, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { alloc_pages_mpol } from "./mempolicy_alloc.ts";
import { choose_page_allocator, page_allocator } from "./page_allocator.ts";
import { page_group_by_mobility, pfnblock_migratetype } from "./pageblock.ts";
import { boot_pagesets_init, free_to_pcp, pcp_allowed_order } from "./pcp.ts";
import { GATE_EARLY, GATE_UNGROUPED, alloc_gate_set, page_fast, zone_lock, zone_unlock } from "./plenty.ts";
import { PGFREE, count_vm_events, global_zone_page_state, vm_event_states } from "./vmstat.ts";
import { watermark_init } from "./watermark.ts";
import {
  NR_FREE_PAGES, PerCpuPages, Zone, for_each_zone, local_memory_node, page_zone, pageblock_order, type ZonePtr,
} from "./zone.ts"; // prettier-ignore
import { __alloc_pages } from "./zonelist.ts";

// What the hot path reads, as constants of this module. Words:
const m = ram32;
const m8 = ram8;
const r = cpu_regs;
const NODE = CPU_NODE;
const AREA = CPU_OFFSET;
const FAST = (page_fast.ptr + page_fast.pcp.offset) >> 2;
const POLICY = (page_fast.ptr + page_fast.policy.offset) >> 2;
const FREED = ((vm_event_states.ptr + vm_event_states.event.offset) >> 2) + PGFREE;
const MEM_MAP = mem_map_state.$at("mem_map") >> 2;
const COUNT = PerCpuPages.count.offset >> 2;
const LIMIT = PerCpuPages.limit.offset >> 2;
const FREE_COUNT = PerCpuPages.free_count.offset >> 2;
const FREE_MAX = PerCpuPages.free_max.offset >> 2;
const ALLOCS = PerCpuPages.allocs.offset >> 2;
const PCP_ZONE_NODE = PerCpuPages.zone_node.offset >> 2;
const BLOCKS = PerCpuPages.blocks.offset >> 2;
const LISTS = PerCpuPages.lists.offset >> 2;
const PREV = 2;
const LRU = Page.lru.offset >> 2;
const LRU_PREV = LRU + PREV;
const REFCOUNT = Page.refcount.offset >> 2;
const PRIVATE_OF_LRU = (Page.private.offset - Page.lru.offset) >> 2;
const REFCOUNT_OF_LRU = (Page.refcount.offset - Page.lru.offset) >> 2;
const FLAGS = Page.flags.offset >> 2;
const ZONE_NODE = Page.zone_node.offset >> 2;
const MAPPING = Page.mapping.offset >> 2;
const TYPE = Page.page_type.offset >> 2;
// Bytes, bits and numbers:
const LRU_BYTES = Page.lru.offset;
const BLOCK_SHIFT = pageblock_order + 6;
const LONG_WAY = __GFP_DMA | __GFP_DMA32 | __GFP_THISNODE | __GFP_ZERO;
const TYPE_BITS = __GFP_MOVABLE | __GFP_RECLAIMABLE;
const TYPES = MIGRATE_PCPTYPES;
const HEAD = PG_head;
const MOVABLE = MIGRATE_MOVABLE;
const RESERVED = MIGRATE_HIGHATOMIC;
const ISOLATE = MIGRATE_ISOLATE;
/** In the flags of the first tail of a compound page. */
const ORDER_BYTE = 0xff;

/**
 * Hands out 2^order pages, or NULL. The node is that of this CPU, or what the running task's memory policy says; if it
 * is short of memory others are tried.
 *
 * Context: any; what may be waited for is in `gfp`. The caller ends with __free_pages(page, order).
 * Hot path.
 */
export function alloc_pages(gfp: number, order: number): PagePtr {
  const area = r[AREA] >> 2;
  const p = m[FAST + area] >> 2;
  const type_bits = gfp & TYPE_BITS;
  if (p !== 0 && order === 0 && (gfp & LONG_WAY) === 0 && type_bits !== TYPE_BITS) {
    const head = p + LISTS + (type_bits >> 1); // four words a list
    const node = m[head];
    const n = node >> 2;
    if (n !== head) {
      const next = m[n];
      m[head] = next;
      m[(next >> 2) + PREV] = head << 2;
      m[p + COUNT] = m[p + COUNT] - 1;
      m[p + FREE_COUNT] = m[p + FREE_COUNT] >> 1;
      m[p + ALLOCS] = m[p + ALLOCS] + 1;
      m[n + PRIVATE_OF_LRU] = 0;
      m[n + REFCOUNT_OF_LRU] = 1;
      return node - LRU_BYTES;
    }
  }
  const policy = m[POLICY + area];
  return policy === 0 ? __alloc_pages(gfp, order, r[NODE]) : alloc_pages_mpol(policy, gfp, order);
}

/**
 * Drops the caller's reference of a block; the last one frees it.
 *
 * If somebody else still refers to the first page of a block that is not compound, only that page stays behind: the rest
 * is freed here, for no reference of theirs tells whose it is.
 *
 * Context: any; may take zone->lock. Hot path.
 */
export function __free_pages(page: PagePtr, order: number): void {
  const area = r[AREA] >> 2;
  const p = m[FAST + area] >> 2;
  const w = page >> 2;
  if (p !== 0 && order === 0 && m[w + REFCOUNT] === 1 && m[w + ZONE_NODE] === m[p + PCP_ZONE_NODE]) {
    const type = m8[m[p + BLOCKS] + ((page - m[MEM_MAP]) >> BLOCK_SHIFT)];
    const count = m[p + COUNT] + 1;
    if (count < m[p + LIMIT] && type < TYPES) {
      m[w + REFCOUNT] = 0;
      m[w + FLAGS] = 0;
      m[w + MAPPING] = 0;
      m[w + TYPE] = -1;
      const head = p + LISTS + (type << 2);
      const first = m[head];
      const node = page + LRU_BYTES;
      m[head] = node;
      m[w + LRU] = first;
      m[w + LRU_PREV] = head << 2;
      m[(first >> 2) + PREV] = node;
      m[p + COUNT] = count;
      const free_count = m[p + FREE_COUNT];
      if (free_count < m[p + FREE_MAX]) m[p + FREE_COUNT] = free_count + 1;
      m[FREED + area] = m[FREED + area] + 1;
      return;
    }
  }
  free_pages_slow(page, order);
}

/** As alloc_pages, from `nid` first, whatever the task's memory policy; NUMA_NO_NODE is this CPU's node. */
export function alloc_pages_node(nid: NodeId, gfp: number, order: number): PagePtr {
  const node = nid === NUMA_NO_NODE ? local_memory_node(numa_node_id()) : nid;
  const near = node === r[NODE] && m[POLICY + (r[AREA] >> 2)] === 0;
  return near ? alloc_pages(gfp, order) : __alloc_pages(gfp, order, node);
}

/** Address of 2^order pages, or 0. */
export function __get_free_pages(gfp: number, order: number): Ptr {
  const page = alloc_pages(gfp & ~__GFP_HIGHMEM, order);
  return page === NULL ? NULL : page_address(page);
}

/** Address of a page of zeroes, or 0. */
export function get_zeroed_page(gfp: number): Ptr {
  return __get_free_pages(gfp | __GFP_ZERO, 0);
}

/** Takes a further reference of a block. */
export function get_page(page: PagePtr): void {
  const head = compound_head(page);
  if (Page.refcount.get(head) <= 0) BUG(`get_page of a free page, pfn ${page_to_pfn(page)}`);
  atomic_add(Page.refcount.at(head), 1);
}

/** Drops a reference of the head; the last frees the compound page, or else one page: of other blocks it leaks the rest. */
export function put_page(page: PagePtr): void {
  const head = compound_head(page);
  if (atomic_add_return(Page.refcount.at(head), -1) === 0) free_frozen_pages(head, compound_order(head));
}

function free_pages_slow(page: PagePtr, order: number): void {
  const compound = page_flag(page, HEAD);
  if (atomic_add_return(Page.refcount.at(page), -1) === 0) free_frozen_pages(page, order);
  else if (!compound) for (let part = order - 1; part >= 0; part--) free_frozen_pages(page + (64 << part), part);
}

/** Frees the block at an address; 0 is nothing. */
export function free_pages(ptr: Ptr, order: number): void {
  if (ptr !== NULL) __free_pages(virt_to_page(ptr), order);
}

/** Frees a block to which nobody refers: to this CPU's list where it keeps such blocks, else to the free areas. */
function free_frozen_pages(page: PagePtr, order: number): void {
  const zone = page_zone(page);
  if (!free_pages_prepare(page, order)) return;
  if (pcp_allowed_order(order)) {
    const type = pfnblock_migratetype(zone, page_to_pfn(page));
    const kept_as = type === RESERVED ? MOVABLE : type;
    if (type !== ISOLATE && free_to_pcp(zone, page, order, kept_as)) return;
  }
  free_to_buddy(zone, page, order, 0);
}

/** Clears what the last user left in the page structs; false if the block is in no state to be freed and is leaked. */
function free_pages_prepare(page: PagePtr, order: number): boolean {
  if (is_check_pages_enabled() && !pages_may_be_freed(page, order)) return false;
  const pages = page_flag(page, HEAD) ? 1 << order : 1;
  for (let at = page, end = page + (pages << 6); at < end; at += 64) {
    m[(at >> 2) + FLAGS] = 0;
    if (at !== page) m[(at >> 2) + LRU] = 0; // no tail any more
  }
  m[(page >> 2) + MAPPING] = 0;
  m[(page >> 2) + TYPE] = -1;
  return true;
}

/** Looks at each page of a block, once what its owner may leave behind is gone: a type, and what that type's owner wrote. */
function pages_may_be_freed(page: PagePtr, order: number): boolean {
  const compound = page_flag(page, HEAD);
  const was_typed = page_type(page) !== PGTY_none;
  if (page_is_anon(page)) Page.mapping.set(page, 0);
  let ok = true;
  for (let at = page; at < page + (64 << order); at += 64) {
    if (was_typed) for (const field of [Page.mapping, Page.memcg_data]) field.set(at, 0);
    if (at === page) set_page_type(at, PGTY_none);
    else if (compound && free_tail_page_is_bad(page, at)) ok = false;
    else if (free_page_is_bad(at, compound && at === page + 64 ? ORDER_BYTE : 0)) ok = false;
  }
  return !free_page_is_bad(page) && ok;
}

/** Frees a block past the per-CPU lists; `flags` are FPI_*. */
export function free_to_buddy(zone: ZonePtr, page: PagePtr, order: number, flags: number): void {
  zone_lock(zone);
  page_allocator().free(zone, page, order, flags);
  zone_unlock(zone);
  count_vm_events(PGFREE, 1 << order);
}

/** Makes 2^order pages, each with a reference of its own, of a block that is not compound. */
export function split_page(page: PagePtr, order: number): void {
  if (page_flag(page, PG_head)) BUG(`split_page of a compound page, pfn ${page_to_pfn(page)}`);
  if (Page.refcount.get(page) <= 0) BUG(`split_page of a free page, pfn ${page_to_pfn(page)}`);
  for (let i = 1; i < 1 << order; i++) Page.refcount.set(page + i * Page.sizeof, 1);
}

/** Boot hands a block to the free areas, at the tail of its list: so the lowest block ends up first. */
export function __free_pages_core(page: PagePtr, order: number): void {
  for (let i = 0; i < 1 << order; i++) {
    clear_page_flag(page + i * Page.sizeof, PG_reserved);
    Page.refcount.set(page + i * Page.sizeof, 0);
  }
  const zone = page_zone(page);
  Zone.managed_pages.set(zone, Zone.managed_pages.get(zone) + (1 << order));
  if (free_pages_prepare(page, order)) free_to_buddy(zone, page, order, FPI_TO_TAIL);
}

/** Sets the page allocator up over zones that have been sized: empty free areas, no page on any CPU's list. */
export function page_alloc_init(): void {
  choose_page_allocator();
  for (const zone of for_each_zone()) page_allocator().init(zone);
  boot_pagesets_init();
  watermark_init();
  alloc_gate_set(GATE_EARLY, true);
  check_pages_init();
  alloc_gate_set(GATE_UNGROUPED, page_group_by_mobility.disabled !== 0);
}

/** The kernel is up: requests may reclaim from now on. */
export function page_alloc_init_late(): void {
  alloc_gate_set(GATE_EARLY, false);
}

/** Free pages of the machine, without those on per-CPU lists. */
export function nr_free_pages(): number {
  return global_zone_page_state(NR_FREE_PAGES);
}
