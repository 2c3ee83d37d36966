/**
 * kswapd: a kernel thread for each node with memory, that reclaims in the background so that requests need not.
 *
 *     requests below the low mark ─ wakeup_kswapd ─┐
 *                                                  v                       balanced (some zone above its high mark)
 *       SLEEP  ── woken ──────────────────────>  RUN: balance_pgdat  ─────────────────────> NAP, 0.1 s
 *         ^                                        ^                                          │  │
 *         │                                        └── woken early, or no longer balanced ────┘  │
 *         └──────────────────────── still balanced when the time is up ──────────────────────────┘
 *
 * A nap that ends early counts kswapd_low_wmark_hit_quickly, one after which the node is out of balance again
 * kswapd_high_wmark_hit_quickly. Each run is one kernel entry (mm/vmscan.ts), pageoutrun counts them. What a run was asked
 * for is in the node: `kswapd_order`, `kswapd_highest_zoneidx`. After 16 runs in a row without a page the node is hopeless,
 * and its kswapd sleeps until somebody else frees one.
 *
 * Locks: none; a node's entries here are its own thread's. Unlike Linux: no kcompactd to hand over to.
 */
import { NULL, type NodeId } from "../hal/addr.ts";
import { HZ, jiffies } from "../hal/clock.ts";
import { cpu_to_node, nr_cpu_ids } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { MAX_NR_ZONES } from "../mm/gfp.ts";
import { PF_KSWAPD, PF_MEMALLOC, set_reclaim_slot } from "../mm/reclaim_state.ts";
import { balance_pgdat, prepare_kswapd_sleep, set_kswapd_awake } from "../mm/vmscan.ts";
import { KSWAPD_HIGH_WMARK_HIT_QUICKLY, KSWAPD_LOW_WMARK_HIT_QUICKLY, count_vm_event } from "../mm/vmstat.ts";
import { NODE_DATA, PgData, for_each_online_node } from "../mm/zone.ts";
import { EXIT, RUN, SLEEP, kthread_create, kthread_should_stop } from "./kthread.ts";
import { is_err } from "./lib/errno.ts";
import { ksym } from "./lib/ksym.ts";
import { pr_err } from "./lib/printk.ts";
import { set_task_cpu, wake_up_process } from "./sched.ts";
import { TaskStruct, current_task } from "./task.ts";
import { mod_timer, timer_delete } from "./timer.ts";

const NAP_TICKS = HZ / 10;
/** Stages; 0 is the first entry, which goes to sleep. */
const RUNNING = 1;
const NAPPING = 2;
const SLEEPING = 3;
/** What each node's thread is about. `order`: what it reclaims for; `asked`: what it was asked for. */
const kswapd = static_data("kswapd", { stage: "u32[16]", order: "u32[16]", asked: "u32[16]", highest: "u32[16]" });

/** The highest zone that anybody asked for since the last run, or else that of the last run. */
function highest_zoneidx(nid: NodeId): number {
  const asked = PgData.kswapd_highest_zoneidx.get(NODE_DATA(nid));
  return asked === MAX_NR_ZONES ? kswapd.highest.get(nid) : asked;
}

/** The end of a run: the beginning of a nap, unless there is more to do. */
function try_to_sleep(nid: NodeId): number {
  if (!prepare_kswapd_sleep(NODE_DATA(nid), kswapd.order.get(nid), kswapd.highest.get(nid))) {
    count_vm_event(KSWAPD_HIGH_WMARK_HIT_QUICKLY);
    kswapd.stage.set(nid, RUNNING);
    return RUN;
  }
  kswapd.stage.set(nid, NAPPING);
  set_kswapd_awake(NODE_DATA(nid), false);
  mod_timer(TaskStruct.timer.at(current_task()), jiffies() + NAP_TICKS);
  return SLEEP;
}

/** The end of a nap. */
function nap_is_over(nid: NodeId): number {
  const pgdat = NODE_DATA(nid);
  const woken_early = timer_delete(TaskStruct.timer.at(current_task()));
  if (woken_early) {
    PgData.kswapd_highest_zoneidx.set(pgdat, highest_zoneidx(nid));
    PgData.kswapd_order.set(pgdat, Math.max(PgData.kswapd_order.get(pgdat), kswapd.order.get(nid)));
  } else if (prepare_kswapd_sleep(pgdat, kswapd.order.get(nid), kswapd.highest.get(nid))) {
    kswapd.stage.set(nid, SLEEPING);
    return SLEEP;
  }
  count_vm_event(woken_early ? KSWAPD_LOW_WMARK_HIT_QUICKLY : KSWAPD_HIGH_WMARK_HIT_QUICKLY);
  set_kswapd_awake(pgdat, true);
  return run(nid);
}

/** One run, for what was asked since the last. */
function run(nid: NodeId): number {
  const pgdat = NODE_DATA(nid);
  const asked = PgData.kswapd_order.get(pgdat);
  kswapd.highest.set(nid, highest_zoneidx(nid));
  PgData.kswapd_order.set(pgdat, 0);
  PgData.kswapd_highest_zoneidx.set(pgdat, MAX_NR_ZONES);
  const order = balance_pgdat(pgdat, asked, kswapd.highest.get(nid));
  // A large block is not to be had by reclaim: balanced for small ones is enough.
  if (order < asked) kswapd.order.set(nid, order);
  else {
    kswapd.order.set(nid, PgData.kswapd_order.get(pgdat));
    kswapd.highest.set(nid, highest_zoneidx(nid));
  }
  return try_to_sleep(nid);
}

const step = ksym("kswapd_step", (nid: NodeId): number => {
  if (kthread_should_stop()) return EXIT;
  const stage = kswapd.stage.get(nid);
  if (stage === NAPPING) return nap_is_over(nid);
  return stage === RUNNING || stage === SLEEPING ? run(nid) : try_to_sleep(nid);
});

function wake(nid: NodeId): void {
  wake_up_process(PgData.kswapd.get(NODE_DATA(nid)));
}
ksym("kswapd_runs", wake);

/** Boot: starts a thread on each node that has memory, on a CPU of that node if there is one. */
export function kswapd_init(): void {
  for (const nid of for_each_online_node()) {
    if (PgData.node_present_pages.get(NODE_DATA(nid)) === 0) continue;
    const task = kthread_create(step, nid, `kswapd${nid}`);
    if (is_err(task)) {
      pr_err(`Failed to start kswapd on node ${nid}, error ${task}`);
      continue;
    }
    for (let cpu = nr_cpu_ids() - 1; cpu >= 0; cpu--) if (cpu_to_node(cpu) === nid) set_task_cpu(task, cpu);
    TaskStruct.flags.set(task, TaskStruct.flags.get(task) | PF_MEMALLOC | PF_KSWAPD);
    kswapd.highest.set(nid, MAX_NR_ZONES - 1);
    PgData.kswapd.set(NODE_DATA(nid), task);
    set_kswapd_awake(NODE_DATA(nid), true);
    wake_up_process(task);
  }
  set_reclaim_slot("kswapd_runs", wake);
}

/** Power-off: nobody wakes the threads any more; they end with all tasks. */
export function kswapd_stop(): void {
  set_reclaim_slot("kswapd_runs", null);
  for (const nid of for_each_online_node()) {
    PgData.kswapd.set(NODE_DATA(nid), NULL);
    set_kswapd_awake(NODE_DATA(nid), false);
  }
}
