/**
 * The OOM killer: when reclaim frees nothing more, the task that gives most is ended.
 *
 *     out_of_memory      1 the current task is dying: it gets reserves, and goes on to its end
 *                        2 vm.panic_on_oom        3 vm.oom_kill_allocating_task: the one that asks
 *                        4 the task with the most points; of equals the youngest
 *
 *     points = rss + swap entries + page table bytes / 4096 + oom_score_adj * (total pages / 1000)         in pages
 *
 * Never: init, kernel threads, oom_score_adj -1000. The report and the lines of the kill are Linux's.
 *
 * What tasks there are, and how one ends, the layer of tasks says (kernel/oom.ts, through `set_oom_hooks`). A victim that is
 * not running is ended and gives all its memory back inside the request that had it chosen. The current task cannot end in
 * the middle of its call: it is marked, may use half of the min mark, and ends at its next entry.
 *
 * Unlike Linux: where another than this entry would have to free memory before it could go on (no __GFP_FS), the request
 * fails. So does one of the console, which is no task, when nobody is left to kill; a task's request panics the machine.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { NSEC_PER_SEC, local_clock } from "../hal/clock.ts";
import { events, has_listener } from "../hal/events.ts";
import { static_data } from "../hal/image.ts";
import { format_list } from "../kernel/lib/bitops.ts";
import { panic } from "../kernel/lib/bug.ts";
import { dump_stack } from "../kernel/lib/dump_stack.ts";
import { ksym, ksym_address, ksym_fn, type AnyFn } from "../kernel/lib/ksym.ts";
import { KERN_WARNING, pr_err, pr_info, pr_warn } from "../kernel/lib/printk.ts";
import { spin_trylock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { __GFP_FS, format_gfp, gfp_zone } from "./gfp.ts";
import { set_reclaim_slot } from "./reclaim_state.ts";
import { show_mem_lines } from "./show_mem.ts";
import { KmemCache, for_each_cache, get_slabinfo, slab_data } from "./slab_common.ts";
import { SLAB_RECLAIM_ACCOUNT } from "./slab_layout.ts";
import {
  NR_INACTIVE_ANON, NR_SLAB_UNRECLAIMABLE, OOM_KILL, count_vm_event, global_node_page_state,
} from "./vmstat.ts"; // prettier-ignore
import { NODE_DATA, NR_LRU_LISTS, PgData, for_each_online_node, node_state, type NodeMask } from "./zone.ts";

/** A task as the OOM killer sees it. Sizes in pages. */
export interface OomTask {
  readonly task: Ptr<"task_struct">;
  readonly pid: number;
  readonly tgid: number;
  readonly uid: number;
  readonly comm: string;
  readonly total_vm: number;
  readonly rss_anon: number;
  readonly rss_file: number;
  readonly rss_shmem: number;
  readonly pgtables_bytes: number;
  readonly swapents: number;
  readonly oom_score_adj: number;
  /** init or a kernel thread. */
  readonly unkillable: boolean;
  /** On its way out, by whatever signal. */
  readonly dying: boolean;
}
export const OOM_SCORE_ADJ_MIN = -1000;
export const OOM_SCORE_ADJ_MAX = 1000;

const oom = static_data("oom", {
  panic_on_oom: "u32",
  kill_allocating_task: "u32",
  dump_tasks: "u32",
  tasks: "*fn", // () => OomTask[], oldest first, without zombies
  current: "*fn", // () => OomTask | undefined
  kill: "*fn", // (task): chooses it; ends it at once unless it is the current one
  notify: "*fn", // () => pages that who was asked has given back
  window_start_ns: "u64", // of the limit of reports: 10 in 5 seconds
  reports: "u32",
});
export type OomKnob = "panic_on_oom" | "kill_allocating_task" | "dump_tasks";
const REPORT_WINDOW_NS = 5 * NSEC_PER_SEC;
const REPORT_BURST = 10;

/** Arms the OOM killer; null disarms it, and requests fail instead. */
export function set_oom_hooks(
  hooks: Record<"tasks" | "current" | "kill" | "notify" | "is_victim", AnyFn> | null,
): void {
  for (const name of ["tasks", "current", "kill", "notify"] as const)
    oom[name] = hooks === null ? NULL : ksym_address(hooks[name]);
  set_reclaim_slot("out_of_memory", hooks === null ? null : out_of_memory);
  set_reclaim_slot("is_oom_victim", hooks === null ? null : hooks.is_victim);
  if (hooks !== null) oom.dump_tasks = 1;
}

/** `vm.panic_on_oom`, `vm.oom_kill_allocating_task`, `vm.oom_dump_tasks`. */
export function oom_knob(knob: OomKnob): number {
  return oom[knob];
}

export function set_oom_knob(knob: OomKnob, value: number): void {
  oom[knob] = value;
}

/** Points of a task among `totalpages`; -Infinity: not to be killed. */
export function oom_badness(task: OomTask, totalpages: number): number {
  if (task.unkillable || task.oom_score_adj === OOM_SCORE_ADJ_MIN) return -Infinity;
  const rss = task.rss_anon + task.rss_file + task.rss_shmem;
  const held = rss + task.swapents + Math.floor(task.pgtables_bytes / 4096);
  return held + task.oom_score_adj * Math.floor(totalpages / 1000);
}

/** A request that failed. */
interface OomControl {
  readonly gfp: number;
  readonly order: number;
  readonly nodemask: NodeMask;
  readonly totalpages: number;
  readonly constraint: string;
}

/** What there is to share: all RAM, or that of the nodes that the request is bound to. */
function constrained_alloc(gfp: number, order: number, nodemask: NodeMask): OomControl {
  const nodes = [...for_each_online_node()].filter((node) => PgData.node_present_pages.get(NODE_DATA(node)) > 0);
  const allowed = nodes.filter((node) => (nodemask >> node) & 1);
  if (nodemask === 0 || allowed.length === nodes.length)
    return { gfp, order, nodemask: 0, totalpages: node_state.totalram_pages, constraint: "CONSTRAINT_NONE" };
  const totalpages = allowed.reduce((sum, node) => sum + PgData.node_present_pages.get(NODE_DATA(node)), 0);
  return { gfp, order, nodemask, totalpages, constraint: "CONSTRAINT_MEMORY_POLICY" };
}

const tasks = (): OomTask[] => ksym_fn(oom.tasks)() as OomTask[];
const current = (): OomTask | undefined => ksym_fn(oom.current)() as OomTask | undefined;

/** The task with the most points, the youngest of equals; undefined if none may be killed. */
function select_bad_process(oc: OomControl): OomTask | undefined {
  let chosen: OomTask | undefined;
  let most = -Infinity;
  for (const task of tasks()) {
    const points = oom_badness(task, oc.totalpages);
    if (points === -Infinity || points < most) continue;
    most = points;
    chosen = task;
  }
  return chosen;
}

/** Memory is out for a request. True if something was done about it and it should be tried again. Context: no lock held. */
export function out_of_memory(gfp: number, order: number, nodemask: NodeMask): boolean {
  if ((ksym_fn(oom.notify)() as number) > 0) return true; // got some memory back
  const asks = current();
  if (asks?.dying) {
    ksym_fn(oom.kill)(asks.task);
    return true;
  }
  if (!(gfp & __GFP_FS)) return false;
  const oc = constrained_alloc(gfp, order, nodemask);
  // 1: not if only some nodes are short; 2: always.
  if (oom.panic_on_oom === 2 || (oom.panic_on_oom === 1 && oc.constraint === "CONSTRAINT_NONE")) {
    dump_header(oc, asks);
    panic(`Out of memory: ${oom.panic_on_oom === 2 ? "compulsory" : "system-wide"} panic_on_oom is enabled`);
  }
  if (oom.kill_allocating_task !== 0 && asks && oom_badness(asks, oc.totalpages) !== -Infinity) {
    oom_kill_process(oc, asks, asks, "Out of memory (oom_kill_allocating_task)");
    return true;
  }
  const victim = select_bad_process(oc);
  if (victim) {
    oom_kill_process(oc, victim, asks, "Out of memory");
    return true;
  }
  if (asks || report_ratelimit()) {
    dump_header(oc, asks);
    pr_warn("Out of memory and no killable processes...");
  }
  return asks ? panic("System is deadlocked on memory") : false;
}
ksym("out_of_memory", out_of_memory);

/** True if a report may be made: 10 in 5 seconds. */
function report_ratelimit(): boolean {
  const now = local_clock();
  if (oom.reports === 0 || now >= oom.window_start_ns + REPORT_WINDOW_NS) {
    oom.window_start_ns = now;
    oom.reports = 0;
  }
  if (oom.reports >= REPORT_BURST) return false;
  oom.reports = oom.reports + 1;
  return true;
}

function oom_kill_process(oc: OomControl, victim: OomTask, asks: OomTask | undefined, message: string): void {
  const kill = (): void => void ksym_fn(oom.kill)(victim.task);
  if (victim.dying) return kill(); // it would have freed its memory anyway
  if (report_ratelimit()) {
    dump_header(oc, asks);
    const mask = oc.nodemask === 0 ? "(null)" : nodes_text(oc.nodemask);
    pr_info(
      `oom-kill:constraint=${oc.constraint},nodemask=${mask},cpuset=/,mems_allowed=${nodes_text(-1)},global_oom,` +
        `task_memcg=/,task=${victim.comm},pid=${victim.pid},uid=${victim.uid}`,
    );
  }
  count_vm_event(OOM_KILL);
  const { pid, comm, total_vm, rss_anon, rss_file, rss_shmem, uid, pgtables_bytes, oom_score_adj } = victim;
  pr_err(
    `${message}: Killed process ${pid} (${comm}) total-vm:${total_vm * 4}kB, anon-rss:${rss_anon * 4}kB, ` +
      `file-rss:${rss_file * 4}kB, shmem-rss:${rss_shmem * 4}kB, UID:${uid} pgtables:${pgtables_bytes >> 10}kB ` +
      `oom_score_adj:${oom_score_adj}`,
  );
  if (has_listener("oom")) events.emit("oom", { pid, comm, pages: rss_anon + rss_file + rss_shmem });
  kill();
  if (victim.task !== asks?.task)
    pr_info(`oom_reaper: reaped process ${pid} (${comm}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB`);
}

function nodes_text(mask: NodeMask): string {
  return format_list([...for_each_online_node()].filter((node) => (mask >> node) & 1));
}

/** Who asked for what, the state of memory, and all tasks. */
function dump_header({ gfp, order, nodemask }: OomControl, asks: OomTask | undefined): void {
  const comm = asks?.comm ?? "swapper/0";
  const adj = asks?.oom_score_adj ?? 0;
  const flags = `gfp_mask=0x${gfp.toString(16)}(${format_gfp(gfp)})`;
  pr_warn(`${comm} invoked oom-killer: ${flags}, order=${order}, oom_score_adj=${adj}`);
  dump_stack(KERN_WARNING);
  for (const line of show_mem_lines(gfp_zone(gfp), nodemask)) pr_warn(line);
  if (should_dump_unreclaim_slab()) for (const line of unreclaimable_slab_lines()) pr_info(line);
  if (oom.dump_tasks !== 0) for (const line of task_lines()) pr_info(line);
}

/** True if slabs that nothing shrinks hold more than all pages that could be reclaimed, or are unevictable. */
function should_dump_unreclaim_slab(): boolean {
  let lru = 0;
  for (let i = 0; i < NR_LRU_LISTS; i++) lru += global_node_page_state(NR_INACTIVE_ANON + i);
  return global_node_page_state(NR_SLAB_UNRECLAIMABLE) > lru;
}

function unreclaimable_slab_lines(): string[] {
  // Who runs out of memory while it makes a cache holds the lock itself.
  if (!spin_trylock(slab_data.mutex)) return ["excessive unreclaimable slab but cannot dump stats"];
  const lines: string[] = [];
  for (const cache of for_each_cache()) {
    if (KmemCache.flags.get(cache) & SLAB_RECLAIM_ACCOUNT) continue;
    const { active_objs, num_objs } = get_slabinfo(cache);
    const kib = (objects: number): string => `${Math.floor((objects * KmemCache.size.get(cache)) / 1024)}KB`;
    if (num_objs > 0) lines.push(`${KmemCache.name.get(cache).padEnd(17)} ${kib(active_objs).padStart(12)} ${kib(num_objs).padStart(12)}`); // prettier-ignore
  }
  spin_unlock(slab_data.mutex);
  return ["Unreclaimable slab info:", "Name                      Used          Total", ...lines];
}

function task_lines(): string[] {
  const cell = (value: number | string, width: number): string => String(value).padStart(width);
  const row = (t: OomTask): string => {
    const rss = t.rss_anon + t.rss_file + t.rss_shmem;
    const sizes = [t.total_vm, rss, t.rss_anon, t.rss_file].map((pages) => cell(pages, 8)).join(" ");
    return (
      `[${cell(t.pid, 7)}] ${cell(t.uid, 5)} ${cell(t.tgid, 5)} ${sizes} ${cell(t.rss_shmem, 9)} ` +
      `${cell(t.pgtables_bytes, 8)} ${cell(t.swapents, 8)}         ${cell(t.oom_score_adj, 5)} ${t.comm}`
    );
  };
  return [
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
    ...tasks()
      .filter((task) => !task.unkillable)
      .map(row),
  ];
}
