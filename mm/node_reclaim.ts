/**
 * Node reclaim: before a request goes to another node, memory of this one is had back. Off unless vm.zone_reclaim_mode is
 * set: where nodes are far apart, a page here may be worth more than what is cached in it.
 *
 *     a zone fails the mark of a request  ->  near?  ->  enough to reclaim?  ->  priority 4, 3, … 0 until 2^order, or 32, pages
 *                                                                               are free; then the request looks again
 *     near      the zone's node is at most 30 from the preferred one, and the CPU's own if it has CPUs
 *     enough    more pages of files, or more of reclaimable slabs, than min_unmapped_ratio or min_slab_ratio percent of the node
 *
 * Context: the caller may reclaim and holds no lock.
 */
import { type NodeId } from "../hal/addr.ts";
import { cpu_to_node, nr_cpu_ids, numa_node_id } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { __GFP_DIRECT_RECLAIM } from "./gfp.ts";
import { PF_MEMALLOC, call_reclaim_slot, reclaim_flags } from "./reclaim_state.ts";
import {
  NR_ACTIVE_FILE, NR_FILE_DIRTY, NR_FILE_MAPPED, NR_FILE_PAGES, NR_INACTIVE_FILE, NR_SLAB_RECLAIMABLE, ZONE_RECLAIM_FAILED,
  ZONE_RECLAIM_SUCCESS, count_vm_event, node_page_state,
} from "./vmstat.ts"; // prettier-ignore
import { PgData, Zone, node_distance, type PgDataPtr, type ZonePtr } from "./zone.ts";

/** Bits of vm.zone_reclaim_mode: any of them switches it on; dirty pages, and mapped ones, count as reclaimable too. */
const RECLAIM_ZONE = 1;
const RECLAIM_WRITE = 2;
const RECLAIM_UNMAP = 4;
const RECLAIM_DISTANCE = 30;

const sysctl = static_data("node_reclaim", {
  zone_reclaim_mode: "u32",
  min_unmapped_ratio: "u32",
  min_slab_ratio: "u32",
});
export type NodeReclaimKnob = "zone_reclaim_mode" | "min_unmapped_ratio" | "min_slab_ratio";

/** Boot: what Linux boots with. */
export function node_reclaim_init(): void {
  sysctl.zone_reclaim_mode = 0;
  sysctl.min_unmapped_ratio = 1;
  sysctl.min_slab_ratio = 5;
}

export function node_reclaim_knob(knob: NodeReclaimKnob): number {
  return sysctl[knob];
}

/** Ratios are percent. */
export function set_node_reclaim_knob(knob: NodeReclaimKnob, value: number): void {
  sysctl[knob] = value;
}

function node_has_cpus(nid: NodeId): boolean {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (cpu_to_node(cpu) === nid) return true;
  return false;
}

/** Pages of files that could be had back without more ado than the mode allows. */
function reclaimable_file_pages(pgdat: PgDataPtr): number {
  const state = (item: number): number => node_page_state(pgdat, item);
  const unmapped = Math.max(state(NR_ACTIVE_FILE) + state(NR_INACTIVE_FILE) - state(NR_FILE_MAPPED), 0);
  const pages = (sysctl.zone_reclaim_mode & RECLAIM_UNMAP) !== 0 ? state(NR_FILE_PAGES) : unmapped;
  return (sysctl.zone_reclaim_mode & RECLAIM_WRITE) !== 0 ? pages : Math.max(pages - state(NR_FILE_DIRTY), 0);
}

function is_worth_while(pgdat: PgDataPtr): boolean {
  const percent = (ratio: number): number => {
    let pages = 0;
    for (let i = 0; i < PgData.node_zones.length; i++)
      pages += Math.floor((Zone.managed_pages.get(PgData.node_zones.at(pgdat, i)) * ratio) / 100);
    return pages;
  };
  return (
    reclaimable_file_pages(pgdat) > percent(sysctl.min_unmapped_ratio) ||
    node_page_state(pgdat, NR_SLAB_RECLAIMABLE) > percent(sysctl.min_slab_ratio)
  );
}

/** Reclaims for a request that found too little in `zone`; false if it did not even try, and the request goes on. */
export function node_reclaim(preferred: ZonePtr, zone: ZonePtr, gfp: number, order: number): boolean {
  if ((sysctl.zone_reclaim_mode & (RECLAIM_ZONE | RECLAIM_WRITE | RECLAIM_UNMAP)) === 0) return false;
  const nid = Zone.node.get(zone);
  if (node_distance(Zone.node.get(preferred), nid) > RECLAIM_DISTANCE) return false;
  if (!is_worth_while(Zone.zone_pgdat.get(zone))) return false;
  if ((gfp & __GFP_DIRECT_RECLAIM) === 0 || (reclaim_flags() & PF_MEMALLOC) !== 0) return false;
  if (nid !== numa_node_id() && node_has_cpus(nid)) return false;
  const done = call_reclaim_slot("shrink_one_node", nid, order, gfp) === true;
  count_vm_event(done ? ZONE_RECLAIM_SUCCESS : ZONE_RECLAIM_FAILED);
  return true;
}
