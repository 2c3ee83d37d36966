/**
 * /proc/sys: the knobs of memory management that this kernel has, and how many files, dentries and inodes there are.
 *
 *     vm/min_free_kbytes                  all marks are worked out anew
 *     vm/watermark_boost_factor           0: mixing page types raises no mark
 *     vm/watermark_scale_factor           how far apart marks lie, 1 to 3000 ten-thousandths of a zone
 *     vm/lowmem_reserve_ratio             what part of the memory above it each zone keeps for itself: 1 / ratio; 0: none
 *     vm/zone_reclaim_mode                1, 2, 4: memory of this node is had back before a request goes to another; what counts
 *     vm/min_unmapped_ratio, vm/min_slab_ratio    as enough: percent of a node
 *     vm/numa_stat                        0: no NUMA counters; 1: again, from 0
 *     vm/percpu_pagelist_high_fraction    0, or at least 8
 *     vm/vfs_cache_pressure               percent of unused dentries and inodes that shrinkers count
 *     vm/oom_dump_tasks                   0: the report of the OOM killer does not list the tasks
 *     vm/oom_kill_allocating_task         not 0: the OOM killer takes the task that asks
 *     vm/panic_on_oom                     1: panic instead, but not where only some nodes are short; 2: always
 *     vm/compact_memory, vm/drop_caches, vm/stat_refresh     do something when written
 *
 * Unlike Linux: a knob without effect here (dirty_ratio, swappiness, …) is not there.
 */
import { compact_node } from "../../mm/compaction.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { setup_per_zone_lowmem_reserve, setup_per_zone_wmarks } from "../../mm/mm_init.ts";
import { node_reclaim_knob, set_node_reclaim_knob, type NodeReclaimKnob } from "../../mm/node_reclaim.ts";
import { oom_knob, set_oom_knob, type OomKnob } from "../../mm/oom_kill.ts";
import { percpu_pagelist_high_fraction, set_percpu_pagelist_high_fraction } from "../../mm/pagesets.ts";
import { numa_stat_enabled, set_numa_stat } from "../../mm/vmstat.ts";
import {
  lowmem_reserve_ratio, set_lowmem_reserve_ratio, set_watermark_boost_factor, set_watermark_scale_factor,
  watermark_boost_factor, watermark_scale_factor,
} from "../../mm/watermark.ts"; // prettier-ignore
import { for_each_online_node, node_state } from "../../mm/zone.ts";
import { EINVAL } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { dentry_stat } from "./dcache.ts";
import { drop_caches } from "./drop_caches.ts";
import { files_stat } from "./file_table.ts";
import { inode_stat } from "./inode.ts";
import type { Store } from "./kernfs.ts";
import { proc_create, proc_symbol } from "./procfs.ts";
import { set_vfs_cache_pressure, vfs_cache_pressure } from "./super.ts";

const INT_MAX = 2 ** 31 - 1;

interface Knob {
  readonly path: string;
  readonly mode: number;
  readonly show?: () => string;
  readonly store?: Store;
}

/** A number that can be read and written; `set` answers false if it will not have this one. */
function number_knob(path: string, get: () => number, set: (value: number) => boolean | void): Knob {
  const store: Store = (_instance, text) => {
    if (!/^\s*\d{1,10}\s*$/.test(text) || Number(text) > INT_MAX) return -EINVAL;
    return set(Number(text)) === false ? -EINVAL : 0;
  };
  return { path, mode: 0o644, show: () => `${get()}\n`, store };
}

function set_min_free_kbytes(kbytes: number): void {
  node_state.min_free_kbytes = kbytes;
  setup_per_zone_wmarks();
}

/** At most 3000: three tenths of a zone between two marks. */
function set_scale_factor(factor: number): boolean {
  if (factor < 1 || factor > 3000) return false;
  set_watermark_scale_factor(factor);
  setup_per_zone_wmarks();
  return true;
}

/** Up to five numbers, lowest zone first; the others stay. What is below 1 is 0. */
const lowmem_reserve_ratio_store: Store = (_instance, text) => {
  const ratios = text.trim().split(/\s+/).map((word) => (/^-?\d{1,10}$/.test(word) ? Number(word) : NaN)); // prettier-ignore
  if (ratios.length > lowmem_reserve_ratio().length || !ratios.every((ratio) => ratio <= INT_MAX)) return -EINVAL;
  set_lowmem_reserve_ratio(ratios.map((ratio) => Math.max(ratio, 0)));
  setup_per_zone_lowmem_reserve();
  return 0;
};

/** Node reclaim: a mode, or percent of a node. */
function node_reclaim_number_knob(name: NodeReclaimKnob): Knob {
  const most = name === "zone_reclaim_mode" ? INT_MAX : 100;
  return number_knob(`vm/${name}`, () => node_reclaim_knob(name), (value) => value <= most && (set_node_reclaim_knob(name, value), true)); // prettier-ignore
}

function oom_number_knob(name: "oom_dump_tasks" | "oom_kill_allocating_task" | "panic_on_oom"): Knob {
  const knob = name.replace(/^oom_/, "") as OomKnob;
  const most = name === "panic_on_oom" ? 2 : INT_MAX;
  return number_knob(`vm/${name}`, () => oom_knob(knob), (value) => value <= most && (set_oom_knob(knob, value), true)); // prettier-ignore
}

function dentry_state(): string {
  const { nr_dentry, nr_unused, nr_negative } = dentry_stat();
  return `${nr_dentry}\t${nr_unused}\t45\t0\t${nr_negative}\t0\n`;
}

function inode_state(): string {
  const { nr_inodes, nr_unused } = inode_stat();
  return `${nr_inodes}\t${nr_unused}\t0\t0\t0\t0\t0\n`;
}

const file_nr = (): string => `${files_stat().nr_files}\t0\t${files_stat().max_files}\n`;

/** Takes "3", with or without a newline. */
const drop_caches_store: Store = (_instance, text) => (/^\s*\d+\s*$/.test(text) ? drop_caches(Number(text)) : -EINVAL); // prettier-ignore

/** "1": all zones of all nodes are compacted. */
const compact_memory_store: Store = (_instance, text) => {
  if (!/^\s*1\s*$/.test(text)) return -EINVAL;
  for (const nid of for_each_online_node()) compact_node(nid, GFP_KERNEL);
  return 0;
};

const KNOBS: readonly Knob[] = Object.freeze([
  { path: "vm/compact_memory", mode: 0o200, store: compact_memory_store },
  { path: "vm/drop_caches", mode: 0o200, store: drop_caches_store },
  {
    path: "vm/lowmem_reserve_ratio",
    mode: 0o644,
    show: () => `${lowmem_reserve_ratio().join("\t")}\n`,
    store: lowmem_reserve_ratio_store,
  },
  number_knob("vm/min_free_kbytes", () => node_state.min_free_kbytes, set_min_free_kbytes),
  ...(["oom_dump_tasks", "oom_kill_allocating_task", "panic_on_oom"] as const).map(oom_number_knob),
  number_knob("vm/numa_stat", numa_stat_enabled, (on) => on <= 1 && (set_numa_stat(on), true)),
  number_knob("vm/percpu_pagelist_high_fraction", percpu_pagelist_high_fraction, set_percpu_pagelist_high_fraction),
  // Counters are exact here: nothing has to be gathered from the CPUs.
  { path: "vm/stat_refresh", mode: 0o600, show: () => "", store: () => 0 },
  ...(["min_slab_ratio", "min_unmapped_ratio", "zone_reclaim_mode"] as const).map(node_reclaim_number_knob),
  number_knob("vm/vfs_cache_pressure", vfs_cache_pressure, set_vfs_cache_pressure),
  number_knob("vm/watermark_boost_factor", watermark_boost_factor, set_watermark_boost_factor),
  number_knob("vm/watermark_scale_factor", watermark_scale_factor, set_scale_factor),
  { path: "fs/dentry-state", mode: 0o444, show: dentry_state },
  { path: "fs/file-nr", mode: 0o444, show: file_nr },
  { path: "fs/inode-state", mode: 0o444, show: inode_state },
]);

const FILES = Object.freeze(
  KNOBS.map(({ path, mode, show, store }) => ({
    path: `sys/${path}`,
    mode,
    show: show && proc_symbol(`sys/${path}`, show),
    store: store && ksym(`sysctl_${path.replaceAll("/", "_")}`, store),
  })),
);

/** Boot: makes the files. */
export function proc_sys_init(): void {
  for (const { path, ...file } of FILES) proc_create(path, file);
}
