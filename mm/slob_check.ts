/**
 * SLOB read from outside: its pages, lists and free blocks by bounded walks, and what is wrong with them.
 *
 *     free units of a page  = its free blocks                    0 < free < 2048 if and only if it is on one list
 *     nr_pages              = pages of blocks that are found
 *     units not free        = kmalloc's + objects' of all caches + waiting for a grace period + lost with their cache
 *
 * Of a block in use nothing is known: which cache it is of, or where it ends, only its owner can say.
 */
import { NULL, PAGE_SIZE, px } from "../hal/addr.ts";
import { struct } from "../hal/struct.ts";
import { list_next, list_prev, type ListPtr } from "../kernel/lib/list.ts";
import { is_page_struct } from "./buddy_check.ts";
import { mem_map_state, page_address, page_is_slab, pfn_to_page, pfn_valid } from "./page.ts";
import { KmemCache, for_each_cache } from "./slab_common.ts";
import { PAGE_UNITS, SlobPage, block_next, block_units, page_base, slob_data, slob_units, type SlobPagePtr } from "./slob.ts"; // prettier-ignore

/** What SLOB keeps in a cache's descriptor: counts for the checks, objects ever taken and given back. */
export const SlobCache = struct("slob_cache", { allocs: "u32", frees: "u32" });

/** Units that an object takes of pages of blocks. */
export function object_units(size: number): number {
  return size < PAGE_SIZE ? slob_units(size) : 0;
}

export const SLOB_LISTS = Object.freeze(["small", "medium", "large"] as const);
export type SlobList = (typeof SLOB_LISTS)[number];

function list_head(name: SlobList): ListPtr {
  return slob_data[`free_slob_${name}`];
}

/** Every page of blocks by address, full ones too. */
export function* slob_pages(): Generator<SlobPagePtr> {
  for (let pfn = 0; pfn < mem_map_state.max_pfn; pfn++)
    if (pfn_valid(pfn) && page_is_slab(pfn_to_page(pfn))) yield pfn_to_page(pfn) as number;
}

/** Pages on a list, from its head; ends where the list leaves the pages of blocks, or comes back to one. */
export function* slob_list_pages(name: SlobList): Generator<SlobPagePtr> {
  const seen = new Set<ListPtr>();
  for (let link = list_next(list_head(name)); link !== list_head(name); link = list_next(link)) {
    const page: SlobPagePtr = link - SlobPage.slab_list.offset;
    if (seen.has(link) || !is_page_struct(page as number) || !page_is_slab(page as number)) return;
    seen.add(link);
    yield page;
  }
}

/** A page's free blocks as [first unit, units], by address; ends where the chain does not ascend. */
export function* free_blocks(page: SlobPagePtr): Generator<[at: number, units: number]> {
  if (SlobPage.units.get(page) === 0) return;
  const base = page_base(page);
  let last = -1;
  for (let at = (SlobPage.freelist.get(page) >> 1) - base; at > last && at < PAGE_UNITS; at = block_next(base, at)) {
    yield [at, block_units(base, at)];
    last = at;
  }
}

/** Adds a line for each thing that is wrong with lists, pages, blocks and totals. */
export function check_slob(findings: string[]): void {
  const on = new Map<SlobPagePtr, SlobList>();
  for (const name of SLOB_LISTS) check_list(name, on, findings);
  let pages = 0;
  let in_use = 0;
  for (const page of slob_pages()) {
    pages++;
    in_use += PAGE_UNITS - SlobPage.units.get(page);
    check_page(page, on.get(page), findings);
  }
  if (pages !== slob_data.nr_pages) findings.push(`slob: ${slob_data.nr_pages} pages counted, ${pages} found`);
  let known = slob_data.kmalloc_units + slob_data.rcu_units + slob_data.lost_units;
  for (const cache of for_each_cache())
    known += (SlobCache.allocs.get(cache) - SlobCache.frees.get(cache)) * object_units(KmemCache.size.get(cache));
  if (in_use !== known) findings.push(`slob: ${in_use} units are in use, ${known} were handed out`);
}

function check_list(name: SlobList, on: Map<SlobPagePtr, SlobList>, findings: string[]): void {
  const head = list_head(name);
  let last = head;
  for (const page of slob_list_pages(name)) {
    const link = SlobPage.slab_list.at(page);
    if (on.has(page)) findings.push(`slob: page ${page_name(page)} is on the lists ${on.get(page)} and ${name}`);
    if (list_prev(link) !== last) findings.push(`slob: list ${name} does not lead back from page ${page_name(page)}`);
    on.set(page, name);
    last = link;
  }
  if (list_next(last) !== head || list_prev(head) !== last) findings.push(`slob: list ${name} does not end`);
}

function check_page(page: SlobPagePtr, list: SlobList | undefined, findings: string[]): void {
  const complain = (text: string): void => void findings.push(`slob: page ${page_name(page)} ${text}`);
  const units = SlobPage.units.get(page);
  if (SlobPage.slab_cache.get(page) !== NULL) complain("belongs to a cache");
  if (units >= PAGE_UNITS) complain(`has ${units} units free and was not given back`);
  if (units > 0 !== (list !== undefined)) complain(`has ${units} units free and is on ${list ?? "no"} list`);
  let free = 0;
  let end = -1;
  for (const [at, length] of free_blocks(page)) {
    if (at <= end) complain(`has a free block at unit ${at} that touches the one before`);
    free += length;
    end = at + length;
  }
  if (end > PAGE_UNITS) complain(`has a free block that ends at unit ${end}`);
  if (free !== units) complain(`says ${units} units are free, its blocks make ${free}`);
}

function page_name(page: SlobPagePtr): string {
  return px(page_address(page as number));
}
