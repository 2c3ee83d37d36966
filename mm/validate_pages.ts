/**
 * Every invariant of the page layer, by a bounded walk of RAM. It changes nothing and ends on any RAM.
 *
 * Each frame of a zone is one of: reserved or a hole; on a free list; on a CPU's list; in use. Each page struct gets a
 * mark for each list it is found on, so a page that is on two lists, or on one and in use, is found.
 *
 *     managed = free blocks + per-CPU lists + in use          NR_FREE_PAGES = free blocks that are not isolated
 *     present = managed + reserved                            pcp->count = pages on its lists
 */
import { hex, type Pfn } from "../hal/addr.ts";
import { cpu_is_online, nr_cpu_ids } from "../hal/cpu.ts";
import { per_cpu_ptr } from "../hal/image.ts";
import { list_next, list_prev } from "../kernel/lib/list.ts";
import { free_blocks, is_page_struct } from "./buddy_check.ts";
import { MIGRATE_HIGHATOMIC } from "./gfp.ts";
import {
  PG_head, PG_reserved, Page, compound_head, compound_order, page_flag, page_is_buddy, page_to_pfn, pfn_to_page,
  pfn_valid, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { page_allocator } from "./page_allocator.ts";
import { pageblock_start_pfn, pfnblock_migratetype } from "./pageblock.ts";
import { pcp_blocks, zone_pcp } from "./pcp.ts";
import { page_fast, page_fast_expected, zone_has_plenty } from "./plenty.ts";
import {
  MAX_PAGE_ORDER, PerCpuPages, Zone, for_each_populated_zone, node_state, page_zone, pageblock_nr_pages, zone_end_pfn,
  type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** What is wrong with zones, free areas, per-CPU lists and page structs, a line each; empty if all holds. */
export function validate_pages(): string[] {
  const findings: string[] = [];
  let managed = 0;
  for (const zone of for_each_populated_zone()) {
    for (const line of page_allocator().check(zone)) findings.push(line);
    findings.push(...check_zone(zone));
    managed += Zone.managed_pages.get(zone);
  }
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    if (page_fast.pcp.get(per_cpu_ptr(page_fast.ptr, cpu)) !== page_fast_expected(cpu))
      findings.push(`cpu ${cpu}: its word for the hot path is not what the nearest zone's state says`);
  if (managed !== node_state.totalram_pages)
    findings.push(`totalram_pages says ${node_state.totalram_pages}, the zones manage ${managed}`);
  return findings;
}

/** What the walk knows of each frame of a zone: 0 nothing yet, else 1 + the list it is on. */
const ON_FREE_LIST = 1;
const ON_PCP_LIST = 2;

function check_zone(zone: ZonePtr): string[] {
  const findings: string[] = [];
  const name = `node ${Zone.node.get(zone)} zone ${Zone.name.get(zone)}`;
  const complain = (text: string): void => void findings.push(`${name}: ${text}`);
  const start = Zone.zone_start_pfn.get(zone);
  const found = new Uint8Array(Zone.spanned_pages.get(zone));
  const mark = (pfn: Pfn, order: number, as: number): number => {
    for (let i = pfn - start; i < pfn - start + (1 << order); i++) {
      if (found[i] !== 0) complain(`page 0x${hex(start + i)} is on two lists`);
      found[i] = as;
    }
    return 1 << order;
  };
  let free = 0;
  for (const block of free_blocks(zone)) free += mark(block.pfn, block.order, ON_FREE_LIST);
  let on_pcp = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_pcp += check_pcp(zone, cpu, mark, complain);
  const { in_use, reserved } = count_frames(zone, found, complain);
  const managed = Zone.managed_pages.get(zone);
  if (managed !== free + on_pcp + in_use)
    complain(`managed says ${managed}, found ${free} free + ${on_pcp} on per-CPU lists + ${in_use} in use`);
  const present = Zone.present_pages.get(zone);
  if (present > managed + reserved)
    complain(`present says ${present}, found ${managed} managed + ${reserved} reserved`);
  if (Zone.plenty.get(zone) !== (zone_has_plenty(zone) ? 1 : 0)) complain(`plenty says ${Zone.plenty.get(zone)}`);
  check_highatomic(zone, complain);
  return findings;
}

/** One CPU's lists of a zone; returns the pages on them. */
function check_pcp(
  zone: ZonePtr,
  cpu: number,
  mark: (pfn: Pfn, order: number, as: number) => number,
  complain: (text: string) => void,
): number {
  let pages = 0;
  for (const { page, order } of pcp_blocks(zone, cpu)) {
    const what = `cpu ${cpu}: page 0x${hex(page_to_pfn(page))} on a per-CPU list`;
    if (!is_page_struct(page)) {
      complain(`cpu ${cpu}: a per-CPU list leads to 0x${hex(page)}, which is no page`);
      break;
    }
    const node = Page.lru.at(page);
    if (list_next(list_prev(node)) !== node) complain(`${what}: its neighbours do not link to it`);
    if (page_zone(page) !== zone) complain(`${what} belongs to another zone`);
    else pages += mark(page_to_pfn(page), order, ON_PCP_LIST);
    if (page_to_pfn(page) % (1 << order) !== 0) complain(`${what} is not aligned to order ${order}`);
    if (page_is_buddy(page)) complain(`${what} is marked as a free block`);
    if (Page.refcount.get(page) !== 0) complain(`${what} has refcount ${Page.refcount.get(page)}`);
  }
  const pcp = zone_pcp(zone, cpu);
  const count = PerCpuPages.count.get(pcp);
  if (count !== pages) complain(`cpu ${cpu}: pcp->count says ${count}, the lists have ${pages}`);
  if (!cpu_is_online(cpu) && pages > 0) complain(`cpu ${cpu} is offline and keeps ${pages} pages`);
  return pages;
}

/** Counts the frames on no list, and looks at what their page structs say. */
function count_frames(
  zone: ZonePtr,
  found: Uint8Array,
  complain: (text: string) => void,
): { in_use: number; reserved: number } {
  let in_use = 0;
  let reserved = 0;
  for (let pfn = Zone.zone_start_pfn.get(zone), i = 0; pfn < zone_end_pfn(zone); pfn++, i++) {
    if (!pfn_valid(pfn)) continue;
    const page = pfn_to_page(pfn);
    if (page_zone(page) !== zone) continue; // nodes may interleave
    if (found[i] === 0 && page_flag(page, PG_reserved)) reserved++;
    else if (found[i] === 0) {
      in_use++;
      if (Page.refcount.get(page) < 0) complain(`page 0x${hex(pfn)} in use has refcount ${Page.refcount.get(page)}`);
      if (page_is_buddy(page)) complain(`page 0x${hex(pfn)} is marked as a free block and on no list`);
      if (page_flag(page, PG_head)) check_compound(page, complain);
    }
  }
  return { in_use, reserved };
}

function check_compound(head: PagePtr, complain: (text: string) => void): void {
  const order = compound_order(head);
  const what = `compound page 0x${hex(page_to_pfn(head))} of order ${order}`;
  if (order < 1 || order > MAX_PAGE_ORDER || page_to_pfn(head) % (1 << order) !== 0) complain(`${what} cannot be`);
  else
    for (let i = 1; i < 1 << order; i++)
      if (compound_head(head + i * Page.sizeof) !== head) complain(`${what}: tail ${i} does not name its head`);
}

/** Whole page blocks are reserved, unless a reserved block of order 10 makes two at once. */
function check_highatomic(zone: ZonePtr, complain: (text: string) => void): void {
  let pages = 0;
  for (
    let pfn = pageblock_start_pfn(Zone.zone_start_pfn.get(zone));
    pfn < zone_end_pfn(zone);
    pfn += pageblock_nr_pages
  )
    if (pfnblock_migratetype(zone, pfn) === MIGRATE_HIGHATOMIC) pages += pageblock_nr_pages;
  const reserved = Zone.nr_reserved_highatomic.get(zone);
  if (pages !== reserved) complain(`nr_reserved_highatomic says ${reserved}, the page blocks make ${pages}`);
}
