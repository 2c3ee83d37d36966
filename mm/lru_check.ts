/**
 * What validate_mm() asks of the LRU lists (mm/swap.ts): a page is on the list that its flags name, once, and PG_lru says
 * so; counters of nodes and zones are what a walk finds; nothing is isolated between two kernel entries.
 */
import { hex } from "../hal/addr.ts";
import { list_next, list_prev } from "../kernel/lib/list.ts";
import { is_page_struct } from "./buddy_check.ts";
import { PG_lru, Page, page_flag, page_to_nid, page_to_pfn, pfn_to_page, pfn_valid, type PagePtr } from "./page.ts";
import { lru_pages, page_lru } from "./swap.ts";
import {
  NR_INACTIVE_ANON, NR_ISOLATED_ANON, NR_ISOLATED_FILE, ZONE_STAT_NAMES, node_page_state, zone_page_state,
} from "./vmstat.ts"; // prettier-ignore
import {
  NODE_DATA, NR_LRU_LISTS, NR_ZONE_INACTIVE_ANON, PgData, Zone, for_each_online_node, for_each_populated_zone,
  page_zone, zone_end_pfn, type PgDataPtr, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

/** Adds what is wrong to `findings`, a line each. The walk is bounded and ends on any RAM. */
export function check_lru(findings: string[]): void {
  const found = new Map<ZonePtr, number[]>();
  for (const zone of for_each_populated_zone()) found.set(zone, new Array<number>(NR_LRU_LISTS).fill(0));
  for (const nid of for_each_online_node()) {
    const pgdat = NODE_DATA(nid);
    for (let lru = 0; lru < NR_LRU_LISTS; lru++) check_list(pgdat, lru, found, findings);
    const isolated = node_page_state(pgdat, NR_ISOLATED_ANON) + node_page_state(pgdat, NR_ISOLATED_FILE);
    if (isolated !== 0) findings.push(`node ${nid}: ${isolated} pages are isolated`);
  }
  for (const [zone, counts] of found) check_zone(zone, counts, findings);
}

function check_list(pgdat: PgDataPtr, lru: number, found: Map<ZonePtr, number[]>, findings: string[]): void {
  const node = PgData.node_id.get(pgdat);
  const name = `node ${node} list ${ZONE_STAT_NAMES[NR_ZONE_INACTIVE_ANON + lru].replace("nr_zone_", "")}`;
  const bound = PgData.node_present_pages.get(pgdat) + 1;
  let pages = 0;
  for (const page of lru_pages(pgdat, lru, bound)) {
    const wrong = is_page_struct(page) ? wrong_with(page, node, lru) : "is no page struct";
    if (wrong)
      findings.push(`${name}: ${is_page_struct(page) ? `page 0x${hex(page_to_pfn(page))}` : hex(page)} ${wrong}`);
    if (!is_page_struct(page)) return;
    const counts = found.get(page_zone(page));
    if (counts) counts[lru]++;
    pages++;
  }
  const counter = node_page_state(pgdat, NR_INACTIVE_ANON + lru);
  if (counter !== pages) findings.push(`${name}: the counter says ${counter}, the list has ${pages}`);
}

function wrong_with(page: PagePtr, node: number, lru: number): string | undefined {
  const entry = Page.lru.at(page);
  if (!page_flag(page, PG_lru)) return "has no PG_lru";
  if (page_lru(page) !== lru) return "has flags of another list";
  if (page_to_nid(page) !== node) return "is of another node";
  if (Page.refcount.get(page) < 1) return `has refcount ${Page.refcount.get(page)}`;
  return list_next(list_prev(entry)) === entry ? undefined : "is not what its neighbours link to";
}

/** The zone's counters, and pages that say they are on a list. */
function check_zone(zone: ZonePtr, counts: readonly number[], findings: string[]): void {
  const name = `node ${Zone.node.get(zone)} zone ${Zone.name.get(zone)}`;
  for (const [lru, pages] of counts.entries()) {
    const item = NR_ZONE_INACTIVE_ANON + lru;
    const counter = zone_page_state(zone, item);
    if (counter !== pages) findings.push(`${name}: ${ZONE_STAT_NAMES[item]} says ${counter}, the lists have ${pages}`);
  }
  let marked = 0;
  for (let pfn = Zone.zone_start_pfn.get(zone); pfn < zone_end_pfn(zone); pfn++)
    if (pfn_valid(pfn) && page_zone(pfn_to_page(pfn)) === zone && page_flag(pfn_to_page(pfn), PG_lru)) marked++;
  const listed = counts.reduce((sum, pages) => sum + pages, 0);
  if (marked !== listed) findings.push(`${name}: ${marked} pages have PG_lru, ${listed} are on LRU lists`);
}
