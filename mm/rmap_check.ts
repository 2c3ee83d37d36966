/**
 * What validate_mm() asks of pages of programs and files (mm/rmap.ts): as many entries map a page as its mapcount says, its
 * references are those of its mappings and of its page cache, and the counters of nodes are what a walk finds.
 */
import { NULL, hex } from "../hal/addr.ts";
import {
  PG_lru, PG_swapbacked, Page, page_flag, page_is_anon, page_to_nid, page_to_pfn, pfn_to_page, pfn_valid, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { page_mapcount, rmap_walk } from "./rmap.ts";
import { NODE_STAT_NAMES, NR_ANON_MAPPED, NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM, node_page_state } from "./vmstat.ts"; // prettier-ignore
import { NODE_DATA, Zone, for_each_online_node, for_each_populated_zone, page_zone, zone_end_pfn } from "./zone.ts";

/** Adds what is wrong to `findings`, a line each. Context: between two kernel entries; mapping pointers are followed. */
export function check_rmap(findings: string[]): void {
  const items = [NR_ANON_MAPPED, NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM];
  const found = new Map<string, number>();
  const count = (page: PagePtr, item: number): void => {
    const key = `${page_to_nid(page)} ${item}`;
    found.set(key, (found.get(key) ?? 0) + 1);
  };
  for (const page of pages_of_programs_and_files()) {
    const is_file = !page_is_anon(page);
    if (page_mapcount(page) > 0) count(page, is_file ? NR_FILE_MAPPED : NR_ANON_MAPPED);
    if (is_file) count(page, NR_FILE_PAGES);
    if (is_file && page_flag(page, PG_swapbacked)) count(page, NR_SHMEM);
    const wrong = wrong_with(page, is_file);
    if (wrong) findings.push(`page 0x${hex(page_to_pfn(page))} ${wrong}`);
  }
  for (const nid of for_each_online_node())
    for (const item of items) {
      const [counter, pages] = [node_page_state(NODE_DATA(nid), item), found.get(`${nid} ${item}`) ?? 0];
      if (counter !== pages) findings.push(`node ${nid}: ${NODE_STAT_NAMES[item]} says ${counter}, there are ${pages}`);
    }
}

/** Pages on LRU lists that say whose they are. */
function* pages_of_programs_and_files(): Generator<PagePtr> {
  for (const zone of for_each_populated_zone())
    for (let pfn = Zone.zone_start_pfn.get(zone); pfn < zone_end_pfn(zone); pfn++) {
      const page = pfn_to_page(pfn);
      if (!pfn_valid(pfn) || !page_flag(page, PG_lru) || Page.mapping.get(page) === NULL) continue;
      if (page_zone(page) === zone) yield page;
    }
}

function wrong_with(page: PagePtr, is_file: boolean): string | undefined {
  const mapcount = page_mapcount(page);
  const entries = mapcount === 0 ? 0 : [...rmap_walk(page)].length;
  if (entries !== mapcount) return `has mapcount ${mapcount}, and ${entries} entries map it`;
  const least = mapcount + (is_file ? 1 : 0);
  return Page.refcount.get(page) >= least
    ? undefined
    : `has refcount ${Page.refcount.get(page)}, it is used ${least} times`;
}
