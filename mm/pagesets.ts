/**
 * How much a CPU keeps of each zone: the limits of the per-CPU page lists (mm/pcp.ts), and what time does to them.
 *
 *     batch      pages a refill or a drain moves        from the zone's size, 1 .. 63
 *     high_min   `high` never falls below this          the low mark, shared by the node's CPUs
 *     high_max   nor rises above this                   an eighth of the zone, shared by the node's CPUs
 *
 * They are worked out anew whenever marks, sizes or CPUs change.
 */
import { NULL } from "../hal/addr.ts";
import { cpu_is_online, cpu_to_node, nr_cpu_ids, num_online_cpus, on_cpu, smp_processor_id } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { rounddown_pow_of_two } from "../kernel/lib/bitops.ts";
import { panic } from "../kernel/lib/bug.ts";
import { alloc_percpu } from "./percpu.ts";
import { drain_pcp, drain_zone_pages, per_cpu_pages_init, set_pcp_limit, this_pcp, zone_pcp } from "./pcp.ts";
import { zone_marks_changed } from "./plenty.ts";
import { fold_pcp_allocs, fold_vm_events, refresh_zone_stat_thresholds } from "./vmstat.ts";
import { wmark_pages } from "./watermark.ts";
import { PerCpuPages, WMARK_LOW, Zone, for_each_populated_zone, type ZonePtr } from "./zone.ts";

/** `vm.percpu_pagelist_high_fraction`: 0, or the share of a zone that all CPUs together may keep. */
const sysctl = static_data("percpu_pagelist", { high_fraction: "u32" });

/** Pages a refill or a drain moves: about a thousandth of the zone, at most 256 KiB, one less than a power of two. */
export function zone_batchsize(managed_pages: number): number {
  const batch = Math.max(1, Math.floor(Math.min(managed_pages >> 10, 256) / 4));
  return Math.max(1, rounddown_pow_of_two(batch + (batch >> 1)) - 1);
}

/** CPUs that share a zone: the online ones of its node, and one that is coming up; of a node without CPUs all. */
function sharing_cpus(zone: ZonePtr, cpus_coming: number): number {
  let cpus = cpus_coming;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    if (cpu_is_online(cpu) && cpu_to_node(cpu) === Zone.node.get(zone)) cpus++;
  return cpus || Math.max(1, num_online_cpus());
}

/** Limits of a zone of `managed` pages with the low mark `low` that `cpus` CPUs share; fraction as the sysctl says. */
export function zone_highsize(managed: number, low: number, cpus: number, fraction: number): [number, number] {
  const least = 4 * zone_batchsize(managed);
  if (fraction > 0) {
    const high = Math.max(Math.floor(Math.floor(managed / fraction) / cpus), least);
    return [high, high];
  }
  return [Math.max(Math.floor(low / cpus), least), Math.max(Math.floor(Math.floor(managed / 8) / cpus), least)];
}

/** Works out a zone's limits and tells every CPU. `cpus_coming`: 1 while a CPU is brought up that is not online yet. */
export function zone_pcp_update(zone: ZonePtr, cpus_coming = 0): void {
  const managed = Zone.managed_pages.get(zone);
  const cpus = sharing_cpus(zone, cpus_coming);
  const [high_min, high_max] = zone_highsize(managed, wmark_pages(zone, WMARK_LOW), cpus, sysctl.high_fraction);
  const batch = zone_batchsize(managed);
  Zone.pageset_batch.set(zone, batch);
  Zone.pageset_high_min.set(zone, high_min);
  Zone.pageset_high_max.set(zone, high_max);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) set_limits(zone_pcp(zone, cpu), batch, high_min, high_max);
  zone_marks_changed(zone);
}

function set_limits(pcp: number, batch: number, high_min: number, high_max: number): void {
  PerCpuPages.batch.set(pcp, batch);
  PerCpuPages.high_min.set(pcp, high_min);
  PerCpuPages.high_max.set(pcp, high_max);
  set_pcp_limit(pcp); // a value out of bounds is put right by the next refill or free
}

/** Gives every zone lists of its own. Context: boot, once per-CPU memory and the free areas work. */
export function setup_zone_pagesets(): void {
  sysctl.high_fraction = 0;
  for (const zone of for_each_populated_zone()) {
    const pageset = alloc_percpu(PerCpuPages.sizeof, PerCpuPages.alignof);
    if (pageset === NULL) panic("setup_zone_pagesets: no per-CPU memory");
    Zone.per_cpu_pageset.set(zone, pageset);
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) per_cpu_pages_init(zone_pcp(zone, cpu), zone);
    zone_pcp_update(zone);
  }
  refresh_zone_stat_thresholds();
}

/** After a CPU came: its share of every zone. */
export function page_alloc_cpu_online(cpu: number): void {
  for (const zone of for_each_populated_zone()) zone_pcp_update(zone, cpu_is_online(cpu) ? 0 : 1);
  refresh_zone_stat_thresholds();
}

/** Sets `vm.percpu_pagelist_high_fraction`: 0 or at least 8; false if it is neither. */
export function set_percpu_pagelist_high_fraction(fraction: number): boolean {
  if (fraction !== 0 && !(fraction >= 8)) return false;
  sysctl.high_fraction = fraction;
  for (const zone of for_each_populated_zone()) zone_pcp_update(zone);
  return true;
}

export function percpu_pagelist_high_fraction(): number {
  return sysctl.high_fraction;
}

/** Makes CPUs keep nothing of a zone, and empties the lists of all of them; undone by zone_pcp_update. */
export function zone_pcp_disable(zone: ZonePtr): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) set_limits(zone_pcp(zone, cpu), 1, 0, 0);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, () => drain_zone_pages(zone));
}

/** Seconds of quiet after which what a CPU keeps of another node's zone goes back. */
const REMOTE_EXPIRE = 3;

/** Once a second on each CPU: lets `high` decay, drains what other nodes would rather have, folds the event counts. */
export function vmstat_update(): void {
  const cpu = smp_processor_id();
  for (const zone of for_each_populated_zone()) {
    decay_pcp_high(zone);
    fold_pcp_allocs(zone, cpu);
    if (Zone.node.get(zone) !== cpu_to_node(cpu)) expire_remote(zone);
  }
  fold_vm_events(cpu);
}

function decay_pcp_high(zone: ZonePtr): void {
  const pcp = this_pcp(zone);
  const { high, high_min, batch, count } = PerCpuPages;
  const now = high.get(pcp);
  if (now > high_min.get(pcp))
    high.set(pcp, Math.max(count.get(pcp) - (batch.get(pcp) << 5), now - (now >> 3), high_min.get(pcp)));
  set_pcp_limit(pcp);
  drain_pcp(zone, count.get(pcp) - high.get(pcp));
}

/** pcp->expire counts down while the lists stand still; free_count != 0 is activity. */
function expire_remote(zone: ZonePtr): void {
  const pcp = this_pcp(zone);
  const { expire, count, batch } = PerCpuPages;
  if (count.get(pcp) === 0) return;
  if (expire.get(pcp) === 0) expire.set(pcp, REMOTE_EXPIRE);
  expire.set(pcp, expire.get(pcp) - 1);
  if (expire.get(pcp) === 0) drain_pcp(zone, Math.min(count.get(pcp), batch.get(pcp)));
}
