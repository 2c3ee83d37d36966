/**
 * Requests for pages that are no block of 2^order: any number of bytes in one piece, and many single pages at once.
 */
import { NULL, PAGE_SIZE, type NodeId, type Ptr } from "../hal/addr.ts";
import { numa_node_id } from "../hal/cpu.ts";
import { get_order } from "../kernel/lib/bitops.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { spin_trylock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { FPI_TO_TAIL } from "./buddy.ts";
import { should_fail_alloc_page } from "./fault_inject.ts";
import {
  NUMA_NO_NODE, __GFP_ACCOUNT, __GFP_COMP, __GFP_HIGHMEM, __GFP_THISNODE, format_gfp, gfp_zone,
} from "./gfp.ts"; // prettier-ignore
import { task_policy } from "./mempolicy.ts";
import { bulk_shares, type BulkShare } from "./mempolicy_alloc.ts";
import { __free_pages, __get_free_pages, free_to_buddy, split_page } from "./page_alloc.ts";
import { Page, virt_to_page, type PagePtr } from "./page.ts";
import { request_migratetype } from "./pageblock.ts";
import { pcp_pop, this_pcp } from "./pcp.ts";
import { PGALLOC, count_vm_events } from "./vmstat.ts";
import { ALLOC_WMARK_LOW, wmark_pages, zone_watermark_fast } from "./watermark.ts";
import { __alloc_pages, allowed_gfp, first_zoneref, prep_new_page, zone_statistics } from "./zonelist.ts";
import {
  WMARK_LOW, Zone, ZoneRef, local_memory_node, node_allowed, page_zone, type NodeMask, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** Address of `size` bytes in whole pages, each with a reference of its own; what the block has more goes back at once. */
export function alloc_pages_exact(size: number, gfp: number): Ptr {
  const unfit = gfp & (__GFP_COMP | __GFP_HIGHMEM);
  if (unfit !== 0) WARN_ON(true, `alloc_pages_exact: ${format_gfp(unfit)} is of no use here`);
  const order = get_order(size);
  const ptr = __get_free_pages(gfp & ~unfit, order);
  if (ptr === NULL) return NULL;
  const page = virt_to_page(ptr);
  split_page(page, order);
  for (let i = Math.ceil(size / PAGE_SIZE); i < 1 << order; i++) {
    const surplus = page + i * Page.sizeof;
    Page.refcount.set(surplus, 0);
    free_to_buddy(page_zone(surplus), surplus, 0, FPI_TO_TAIL);
  }
  return ptr;
}

/** Frees what alloc_pages_exact gave. */
export function free_pages_exact(ptr: Ptr, size: number): void {
  for (let at = ptr; at < ptr + size; at += PAGE_SIZE) __free_pages(virt_to_page(at), 0);
}

/**
 * Fills the NULL entries among the first `nr_pages` of `pages`, each with one page; returns how many leading entries are
 * filled then. It may stop early: with a few pages, but with one at least unless memory is really short.
 *
 * The pages come from this CPU's list of one zone of the wanted node; if none has that many to spare, one page is asked
 * for in the ordinary way. No memory policy is asked.
 */
export function alloc_pages_bulk(gfp: number, nr_pages: number, pages: PagePtr[], nid: NodeId = NUMA_NO_NODE): number {
  const node = nid === NUMA_NO_NODE ? local_memory_node(numa_node_id()) : nid;
  return fill(pages, 0, { node, count: nr_pages, gfp, nodemask: 0 });
}

/** The same by the running task's memory policy. Interleaving gives each node its share in one go. */
export function alloc_pages_bulk_mempolicy(gfp: number, nr_pages: number, pages: PagePtr[]): number {
  const policy = (gfp & __GFP_THISNODE) !== 0 ? NULL : task_policy();
  if (policy === NULL) return alloc_pages_bulk(gfp, nr_pages, pages);
  let filled = 0;
  for (const share of bulk_shares(policy, gfp, nr_pages))
    filled += fill(pages, filled, { ...share, count: Math.min(share.count, nr_pages - filled) });
  return filled;
}

/** Fills `count` entries from entry `from` on; returns how many of these are filled without a gap. */
function fill(pages: PagePtr[], from: number, { node, count, gfp, nodemask }: BulkShare): number {
  let filled = 0;
  while (filled < count && pages[from + filled]) filled++;
  if (filled >= count) return filled;
  if (count - filled > 1 && (gfp & __GFP_ACCOUNT) === 0) {
    if (should_fail_alloc_page(allowed_gfp(gfp), 0)) return filled;
    const reached = fill_from_pcp(allowed_gfp(gfp), count, pages, from, node, nodemask);
    if (reached > filled) return reached;
  }
  const page = __alloc_pages(gfp, 0, node, nodemask);
  if (page === NULL) return filled;
  pages[from + filled] = page;
  return filled + 1;
}

function fill_from_pcp(
  gfp: number,
  count: number,
  pages: PagePtr[],
  from: number,
  node: NodeId,
  nodemask: NodeMask,
): number {
  const preferred = first_zoneref(node, gfp, gfp_zone(gfp), nodemask);
  if (ZoneRef.zone.get(preferred) === NULL) return 0;
  const zone = zone_for_bulk(preferred, gfp, count, nodemask);
  if (zone === NULL) return 0;
  const pcp = this_pcp(zone);
  if (!spin_trylock(pcp)) return 0;
  const migratetype = request_migratetype(gfp);
  let taken = 0;
  let at = 0;
  for (; at < count; at++) {
    if (pages[from + at]) continue;
    const page = pcp_pop(zone, pcp, 0, migratetype, ALLOC_WMARK_LOW);
    if (page === NULL) break;
    prep_new_page(page, 0, gfp);
    pages[from + at] = page;
    taken++;
  }
  spin_unlock(pcp);
  if (taken === 0) return 0;
  count_vm_events(PGALLOC + Zone.zone_idx.get(zone), taken);
  zone_statistics(ZoneRef.zone.get(preferred), zone, taken);
  return at;
}

/** The first zone of the preferred zone's node that can spare `nr_pages` above its low mark. */
function zone_for_bulk(preferred: Ptr<"zoneref">, gfp: number, nr_pages: number, nodemask: NodeMask): ZonePtr {
  const node = Zone.node.get(ZoneRef.zone.get(preferred));
  const index = ZoneRef.zone_idx.get(preferred);
  for (let ref = preferred; ZoneRef.zone.get(ref) !== NULL; ref += ZoneRef.sizeof) {
    const zone = ZoneRef.zone.get(ref);
    if (ZoneRef.zone_idx.get(ref) > gfp_zone(gfp) || !node_allowed(zone, nodemask)) continue;
    if (Zone.node.get(zone) !== node) return NULL;
    if (zone_watermark_fast(zone, 0, wmark_pages(zone, WMARK_LOW) + nr_pages, index, ALLOC_WMARK_LOW)) return zone;
  }
  return NULL;
}
