/**
 * From power-on to the first program, and back to power-off.
 *
 *     power on    RAM cleared (or full of garbage, for tests), firmware tables written, kernel image loaded
 *     mm          firmware map -> memblock -> nodes, zones, page structs -> buddy -> slab -> kmalloc
 *     kernel      tasks, files, /proc and /sys, the other CPUs
 *     init        the first program runs, until it has nothing more to do
 *
 * `boot` replaces whatever machine this realm had before. `power_off` ends everything and counts what is left over.
 */
import { clock_advance } from "../hal/clock.ts";
import { cpu_regs, cpu_state, cpu_switch, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { events, has_listener } from "../hal/events.ts";
import { firmware_power_on } from "../hal/firmware.ts";
import { image_load, per_cpu_ptr, static_data } from "../hal/image.ts";
import { machine_end, type MachineSpec } from "../hal/machine.ts";
import { ram_clear, ram_fill_garbage } from "../hal/ram.ts";
import { timing_on, timing_power_on } from "../hal/timing.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_number, cmdline_param, saved_command_line, setup_command_line } from "../kernel/lib/cmdline.ts";
import { ksym_remove } from "../kernel/lib/ksym.ts";
import { locks_held } from "../kernel/lib/spinlock.ts";
import { KERN_NOTICE, pr_info, pr_notice, pr_warn, set_console_loglevel } from "../kernel/lib/printk.ts";
import { random_init } from "../kernel/lib/random.ts";
import { rcu_barrier } from "../kernel/lib/rcu.ts";
import { trap_init } from "../kernel/fault.ts";
import { fork_init } from "../kernel/fork.ts";
import { sched_init } from "../kernel/sched.ts";
import { kernel_shutdown, rest_init } from "../kernel/init.ts";
import { kunit_init } from "../kernel/kunit.ts";
import { modules_init } from "../kernel/module.ts";
import { module_symbols_init } from "../kernel/module_symbol.ts";
import { workqueue_init } from "../kernel/workqueue.ts";
import { drop_caches } from "../kernel/fs/drop_caches.ts";
import { disc_init, fs_shutdown, mnt_init, proc_root_init, sysfs_init, vfs_caches_init } from "../kernel/fs/init.ts";
import { fault_inject_init } from "../mm/fault_inject.ts";
import {
  build_all_zonelists, free_area_init, init_per_zone_wmark_min, mem_init, mem_init_print_info, setup_arch_memory,
} from "../mm/mm_init.ts"; // prettier-ignore
import { cpu_init_paging, init_mem_mapping, preallocate_vmalloc_pages } from "../mm/kernel_map.ts";
import { numa_boot_policy, numa_default_policy, numa_policy_init } from "../mm/mempolicy.ts";
import { nr_free_pages, page_alloc_init, page_alloc_init_late } from "../mm/page_alloc.ts";
import { page_alloc_cpu_online, setup_zone_pagesets } from "../mm/pagesets.ts";
import { drain_all_pages } from "../mm/pcp.ts";
import { kvfree_rcu_barrier } from "../mm/kfree_rcu.ts";
import { setup_per_cpu_areas } from "../mm/percpu.ts";
import { KmemCache, for_each_cache, get_slabinfo, kmem_cache_shrink, slab_ops } from "../mm/slab_common.ts";
import { kmem_cache_init } from "../mm/slab_init.ts";
import { chosen_slab } from "./slab_allocators.ts";
import { numa_cpu_nodes } from "../mm/numa.ts";
import { vm_unmap_aliases } from "../mm/vmalloc.ts";
import { vmalloc_init } from "../mm/vmap_area.ts";
import { memdup_user_init } from "../mm/memdup_user.ts";
import { compaction_init } from "../mm/compaction.ts";
import { vmscan_init } from "../mm/vmscan.ts";
import { for_each_online_node } from "../mm/zone.ts";
import { VERSION } from "../kernel/version.ts";

/** Nanoseconds that each step of booting takes. */
const STEP_NS = 137_000;

export interface BootOptions {
  readonly machine: MachineSpec;
  readonly seed?: number;
  /** Kernel parameters, behind the machine's own. */
  readonly append?: string;
  /** Messages below this level go to the console device as they happen; `loglevel=` overrides. Default: notice and up. */
  readonly loglevel?: number;
  /** RAM contents at power-on, repeated all over: test machines. Default: zero. */
  readonly garbage?: Uint8Array;
  /** How far to go: memory only, all but the programs, everything. */
  readonly until?: "mm" | "kernel" | "init";
}

/** What is in use at one moment: for the comparison of two. */
export interface Figures {
  /** Pages that objects of all caches share count as free: what is left over in them are objects. */
  readonly free_pages: number;
  /** Live objects by cache, in listing order. */
  readonly objects: ReadonlyMap<string, number>;
  readonly locks: number;
}

/** What was in use before there were files and programs, for power-off; 0 pages while there are none. */
const before_files = static_data("before_files", { free_pages: "u32", live_objects: "u32" });
// Host side: the same by cache, so that a leak can be named by the realm that booted.
let baseline: Figures | undefined;
const DROP_OBJECTS = 2;
const DROP_ALL = 3;

// Host side: what this realm's machine was booted with.
let booted: BootOptions | undefined;

/** What the machine in this realm was booted with. */
export function boot_options(): BootOptions {
  if (!booted) throw new Error("no machine was booted in this realm");
  return booted;
}

/** Boots a machine in this realm. Throws KernelPanic if it cannot run. */
export function boot(options: BootOptions): void {
  booted = options;
  baseline = undefined;
  power_on(options);
  const until = options.until ?? "init";
  start_mm();
  if (until === "mm") return;
  start_subsystems();
  baseline = take_figures();
  before_files.live_objects = live_objects(baseline);
  before_files.free_pages = baseline.free_pages;
  start_files();
  if (until === "init") rest_init();
}

// Host side: where the machine before this one ended. RAM of a fresh realm is zero.
let dirty_bytes = 0;

function power_on({ machine, seed = 1, append = "", loglevel = KERN_NOTICE + 1, garbage }: BootOptions): void {
  ksym_remove("]"); // the modules of the machine before
  ram_clear(dirty_bytes);
  dirty_bytes = machine_end(machine);
  timing_power_on(machine, dirty_bytes, cpu_regs);
  if (garbage) ram_fill_garbage(dirty_bytes, garbage);
  firmware_power_on(machine);
  image_load(machine.cpus);
  cpu_switch(0);
  random_init(seed);
  setup_command_line(`${machine.append} ${append}`.trim());
  set_console_loglevel(cmdline_number(loglevel, "loglevel"));
  trap_init();
  if (cmdline_param("timing") === "on" && !timing_on)
    pr_warn("timing=on: this realm was loaded without the instrument; give it on the command line, --append timing=on");
}

function step(run: () => void): void {
  run();
  clock_advance(STEP_NS);
}

function start_mm(): void {
  pr_info(`kheap version ${VERSION}`);
  pr_info(`Command line: ${saved_command_line()}`);
  step(setup_arch_memory);
  step(init_mem_mapping);
  step(free_area_init);
  step(build_all_zonelists);
  step(setup_per_cpu_areas);
  step(page_alloc_init);
  step(mem_init);
  step(preallocate_vmalloc_pages);
  step(fault_inject_init);
  step(() => kmem_cache_init(chosen_slab()));
  step(vmalloc_init);
  step(setup_zone_pagesets);
  step(init_per_zone_wmark_min);
  step(smp_init);
  step(mem_init_print_info);
  vmscan_init();
  compaction_init();
  step(page_alloc_init_late);
}

/** Brings the CPUs online, each on the node that the firmware names. */
function smp_init(): void {
  const nodes = numa_cpu_nodes();
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const state = per_cpu_ptr(cpu_state.ptr, cpu);
    cpu_state.node.set(state, nodes[cpu]!);
    cpu_state.online.set(state, 1);
    if (cpu > 0) on_cpu(cpu, cpu_init_paging);
    page_alloc_cpu_online(cpu);
    if (has_listener("cpu:online")) events.emit("cpu:online", { cpu, node: nodes[cpu]! });
  }
  cpu_switch(0);
  const node_count = [...for_each_online_node()].length;
  const cpus = nr_cpu_ids();
  pr_notice(`smp: Brought up ${node_count} node${node_count > 1 ? "s" : ""}, ${cpus} CPU${cpus > 1 ? "s" : ""}`);
}

function start_subsystems(): void {
  step(sched_init);
  step(numa_policy_init);
  step(fork_init);
  step(vfs_caches_init);
  memdup_user_init();
  modules_init();
  module_symbols_init();
  workqueue_init();
  kunit_init();
}

function start_files(): void {
  step(numa_boot_policy);
  step(mnt_init);
  step(proc_root_init);
  step(sysfs_init);
  step(disc_init);
  numa_default_policy();
}

/** Counts what is in use, after everything that is only kept in reserve has been given back. */
export function take_figures(): Figures {
  if (before_files.free_pages > 0) {
    drop_caches(DROP_ALL);
    drop_caches(DROP_OBJECTS); // what the first round made droppable
  }
  kvfree_rcu_barrier();
  vm_unmap_aliases();
  for (const cache of for_each_cache()) kmem_cache_shrink(cache);
  for (const cache of for_each_cache()) kmem_cache_shrink(cache); // sheaves that the first round freed are objects too
  rcu_barrier(); // slabs of SLAB_TYPESAFE_BY_RCU caches
  drain_all_pages();
  const objects = new Map<string, number>([["kmalloc", slab_ops().kmalloc?.live_objects?.() ?? 0]]);
  for (const cache of for_each_cache()) {
    const name = KmemCache.name.get(cache);
    objects.set(name, (objects.get(name) ?? 0) + get_slabinfo(cache).live_objs);
  }
  const free_pages = nr_free_pages() + (slab_ops().shared_pages?.() ?? 0);
  return { free_pages, objects, locks: locks_held() };
}

export interface Leftover {
  readonly pages: number;
  readonly objects: number;
  readonly locks: number;
  /** One line a cache that has more live objects than before. */
  readonly details: readonly string[];
}

/** What `after` holds that `before` did not. */
export function compare_figures(before: Figures, after: Figures): Leftover {
  const details: string[] = [];
  let objects = 0;
  for (const name of new Set([...before.objects.keys(), ...after.objects.keys()])) {
    const more = (after.objects.get(name) ?? 0) - (before.objects.get(name) ?? 0);
    if (more !== 0) details.push(`${name}: ${more} objects`);
    objects += more;
  }
  return { pages: before.free_pages - after.free_pages, objects, locks: after.locks - before.locks, details };
}

function live_objects(figures: Figures): number {
  let sum = 0;
  for (const live of figures.objects.values()) sum += live;
  return sum;
}

/** Ends all programs, takes the file systems down, and says what is left over: nothing, if nothing leaks. */
export function power_off(): Leftover {
  const pages = before_files.free_pages;
  if (pages === 0) panic("power_off of a machine without programs");
  kernel_shutdown();
  fs_shutdown();
  slab_ops().shutdown?.();
  before_files.free_pages = 0;
  const after = take_figures();
  const details = baseline ? compare_figures(baseline, after).details : [];
  const objects = live_objects(after) - before_files.live_objects;
  return { pages: pages - after.free_pages, objects, locks: after.locks, details };
}
