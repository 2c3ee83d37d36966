/**
 * Plenty: when a request need not ask whether a zone has enough.
 *
 * A zone has plenty while no flag is set on it and it could give a block of order 9 to any request and still be above its
 * high mark. A CPU whose nearest zone has plenty finds that zone's lists in a word of its own, `page_fast.pcp`, and may
 * pop and push there without looking at zonelists, watermarks or flags: this is what makes the hot path short. The word
 * is NULL as soon as anything is to be looked at, so the long way, which looks at everything, is always right.
 *
 *     zone->plenty = 1   =>   flags = 0  and  free - highatomic - 511 > high + boost + lowmem_reserve
 *                             and a free block of order >= 9 that is neither isolated nor reserved
 *     page_fast.pcp(cpu) = the cpu's lists of the first zone of its node's zonelist, if that has plenty, no gate is
 *                          closed and the cpu's task has no memory policy; else NULL
 *
 * Everything that changes one of these says so here: `zone_unlock` after the free areas were changed, `zone_set_flag`,
 * `zone_marks_changed`, `alloc_gate_set`, `set_cpu_mempolicy`. validate_pages() checks both lines.
 *
 * Unlike Linux: there is no such word; the fast path looks at zonelist and watermark every time. No answer differs.
 */
import { NULL, type CpuId, type Ptr } from "../hal/addr.ts";
import { cpu_to_node, nr_cpu_ids, smp_processor_id, this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { ZONE_MOVABLE, ZONE_NORMAL } from "./gfp.ts";
import {
  NODE_DATA, NR_FREE_PAGES, NR_FREE_PAGES_BLOCKS, WMARK_HIGH, ZONELIST_FALLBACK, Zone, ZoneList, ZoneRef, node_zonelist,
  pageblock_nr_pages, type ZonePtr,
} from "./zone.ts"; // prettier-ignore

const m = ram32;
const LOCK = Zone.lock.offset;
const PLENTY = Zone.plenty.offset >> 2;
const FLAGS = Zone.flags.offset >> 2;
const FREE = (Zone.vm_stat.offset >> 2) + NR_FREE_PAGES;
const IN_BLOCKS = (Zone.vm_stat.offset >> 2) + NR_FREE_PAGES_BLOCKS;
const HIGHATOMIC = Zone.nr_free_highatomic.offset >> 2;
const HIGH = (Zone.watermark.offset >> 2) + WMARK_HIGH;
const BOOST = Zone.watermark_boost.offset >> 2;
const RESERVE = (Zone.lowmem_reserve.offset >> 2) + ZONE_MOVABLE; // the largest of those that matter
const MARGIN = pageblock_nr_pages - 1;

/** Closed until the kernel is up: nobody may reclaim yet. */
export const GATE_EARLY = 1;
/** Page blocks are not told apart: every request is for unmovable pages. */
export const GATE_UNGROUPED = 2;
/** fail_page_alloc or fail-nth is armed. */
export const GATE_FAULT = 4;
/** Page structs are checked at each allocation and free (mm/bad_page.ts). */
export const GATE_CHECK = 8;
/** Modules are loaded: whose a block of pages is, is written down (mm/claims.ts). */
export const GATE_CLAIMS = 16;
/** Somebody is in a scope where no page may be movable (mm/gfp_scope.ts). */
export const GATE_PIN = 32;
/** Gates that are closed. */
export const alloc_gate = static_data("alloc_gate", { bits: "u32" });
/** A CPU's lists of its nearest zone, or NULL; the memory policy of the task it runs, or NULL (mm/mempolicy.ts). */
export const page_fast = per_cpu_data("page_fast", { pcp: "*per_cpu_pages", policy: "*mempolicy" });

export function alloc_gate_set(bit: number, closed: boolean): void {
  alloc_gate.bits = closed ? alloc_gate.bits | bit : alloc_gate.bits & ~bit;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) update_cpu(cpu);
}

/** Says which policy this CPU's requests follow; NULL: none. */
export function set_cpu_mempolicy(policy: Ptr<"mempolicy">): void {
  const fast = this_cpu_ptr(page_fast.ptr);
  if (page_fast.policy.get(fast) === policy) return;
  page_fast.policy.set(fast, policy);
  update_cpu(smp_processor_id());
}

export function zone_lock(zone: ZonePtr): void {
  spin_lock(zone + LOCK);
}

/** Ends a change of the free areas. */
export function zone_unlock(zone: ZonePtr): void {
  spin_unlock(zone + LOCK);
  if ((zone_has_plenty(zone) ? 1 : 0) !== m[(zone >> 2) + PLENTY]) zone_marks_changed(zone);
}

/** True if `zone` has plenty now. */
export function zone_has_plenty(zone: ZonePtr): boolean {
  const z = zone >> 2;
  const free = m[z + FREE] - m[z + HIGHATOMIC] - MARGIN;
  if (m[z + FLAGS] !== 0 || free <= m[z + HIGH] + m[z + BOOST] + m[z + RESERVE]) return false;
  return m[z + IN_BLOCKS] > m[z + HIGHATOMIC];
}

/** To be called whenever a zone's marks, boost, reserves or lists were given other values. */
export function zone_marks_changed(zone: ZonePtr): void {
  m[(zone >> 2) + PLENTY] = zone_has_plenty(zone) ? 1 : 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (nearest_zone(cpu) === zone) update_cpu(cpu);
}

export function zone_set_flag(zone: ZonePtr, bit: number): void {
  Zone.flags.set(zone, Zone.flags.get(zone) | (1 << bit));
  zone_marks_changed(zone);
}

export function zone_clear_flag(zone: ZonePtr, bit: number): void {
  Zone.flags.set(zone, Zone.flags.get(zone) & ~(1 << bit));
  zone_marks_changed(zone);
}

/** The zone in which a CPU looks first; NULL where that is no zone for ordinary requests, or there is none yet. */
function nearest_zone(cpu: CpuId): ZonePtr {
  const node = cpu_to_node(cpu);
  if (NODE_DATA(node) === NULL) return NULL;
  const ref = ZoneList.refs.at(node_zonelist(node, ZONELIST_FALLBACK), 0);
  return ZoneRef.zone_idx.get(ref) > ZONE_NORMAL ? NULL : ZoneRef.zone.get(ref);
}

/** What a CPU's word must hold. */
export function page_fast_expected(cpu: CpuId): number {
  const zone = nearest_zone(cpu);
  if (alloc_gate.bits !== 0 || zone === NULL || Zone.plenty.get(zone) === 0) return NULL;
  if (page_fast.policy.get(per_cpu_ptr(page_fast.ptr, cpu)) !== NULL) return NULL;
  return per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu);
}

function update_cpu(cpu: CpuId): void {
  page_fast.pcp.set(per_cpu_ptr(page_fast.ptr, cpu), page_fast_expected(cpu));
}
