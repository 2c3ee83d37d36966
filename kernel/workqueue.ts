/**
 * Work queues: "do this soon, where one may sleep".
 *
 *     INIT_WORK(work, fn);  schedule_work(work);            fn(work) runs once, in a kernel thread
 *     schedule_delayed_work(dwork, ticks);                  … after a timer
 *
 *     workqueue_struct ─ worklist ─ work_struct …           ─ worker: a kernel thread that takes one an entry
 *
 * A work is on one queue at most; queueing it again while it waits does nothing. The queue of schedule_work ("events")
 * and its thread are made when somebody first asks for them.
 *
 * Locks: workqueue_struct.lock protects its list. Unlike Linux: one thread a queue, no pools. Nothing can wait in the
 * middle of a kernel entry, so flush_work and flush_workqueue run at once what still waits.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { jiffies } from "../hal/clock.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { CLAIM_WORK, CLAIM_WORKQUEUE, claim, claiming, unclaim } from "../mm/claims.ts";
import { GFP_KERNEL } from "../mm/gfp.ts";
import { kfree, kzalloc } from "../mm/kmalloc.ts";
import { is_err } from "./lib/errno.ts";
import { ksym, ksym_address, ksym_fn, type FnPtr } from "./lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_del_init, list_empty, list_next } from "./lib/list.ts";
import { as_kernel_own } from "./lib/owner.ts";
import { SpinLock, spin_lock, spin_unlock } from "./lib/spinlock.ts";
import { RUN, SLEEP, kthread_end, kthread_run } from "./kthread.ts";
import { wake_up_process } from "./sched.ts";
import { TimerList, mod_timer, timer_delete, timer_setup, type TimerPtr } from "./timer.ts";
import type { TaskPtr } from "./task.ts";

/** Something to be done by a kernel thread. */
export const WorkStruct = struct("work_struct", {
  entry: ListHead, // workqueue_struct.worklist; empty while it does not wait
  func: "*fn", // called with the work
  wq: "*workqueue_struct", // on which it waits
});
export type WorkPtr = Ptr<"work_struct">;

/** A work that is queued once its time has come. */
export const DelayedWork = struct("delayed_work", { work: WorkStruct, timer: TimerList, wq: "*workqueue_struct" });
export type DelayedWorkPtr = Ptr<"delayed_work">;

const Workqueue = struct("workqueue_struct", {
  list: ListHead, // workqueues
  lock: SpinLock,
  worklist: ListHead,
  worker: "*task_struct",
  done: "u32", // works that ran
  name: "char[24]",
});
export type WorkqueuePtr = Ptr<"workqueue_struct">;

const state = static_data("workqueues", { system: "*workqueue_struct", list: ListHead });

/** One entry of a queue's thread. */
const worker_step = ksym("worker_thread", (wq: WorkqueuePtr): number => {
  return run_first(wq) ? RUN : SLEEP;
});

/** Takes the work that waits longest and does it; false if none waits. */
function run_first(wq: WorkqueuePtr): boolean {
  const head = Workqueue.worklist.at(wq);
  if (list_empty(head)) return false;
  const work: WorkPtr = list_next(head) - WorkStruct.entry.offset;
  take_off(work);
  Workqueue.done.set(wq, Workqueue.done.get(wq) + 1);
  ksym_fn(WorkStruct.func.get(work))(work);
  return true;
}

function take_off(work: WorkPtr): void {
  const wq = WorkStruct.wq.get(work);
  unclaim(CLAIM_WORK, work);
  spin_lock(Workqueue.lock.at(wq));
  list_del_init(WorkStruct.entry.at(work));
  spin_unlock(Workqueue.lock.at(wq));
}

/** Makes a queue with a thread of its own. NULL without memory. Context: may sleep. */
export function alloc_workqueue(name: string): WorkqueuePtr {
  return claiming(CLAIM_WORKQUEUE, () => new_workqueue(name));
}

function new_workqueue(name: string): WorkqueuePtr {
  const wq: WorkqueuePtr = kzalloc(Workqueue.sizeof, GFP_KERNEL);
  if (wq === NULL) return NULL;
  Workqueue.name.set(wq, name);
  init_list_head(Workqueue.worklist.at(wq));
  const worker = kthread_run(worker_step, wq, `kworker/${name}`.slice(0, 15));
  if (is_err(worker)) {
    kfree(wq);
    return NULL;
  }
  Workqueue.worker.set(wq, worker as TaskPtr);
  list_add_tail(Workqueue.list.at(wq), state.list);
  return wq;
}

/** Boot: there are no queues. */
export function workqueue_init(): void {
  init_list_head(state.list);
}

/** Every work that waits on a queue. The body may cancel the one it is given. */
export function* for_each_work(): Generator<WorkPtr> {
  for (let wq = list_next(state.list); wq !== state.list; wq = list_next(wq)) {
    const works = Workqueue.worklist.at(wq - Workqueue.list.offset);
    for (let node = list_next(works), next = 0; node !== works; node = next) {
      next = list_next(node);
      yield (node - WorkStruct.entry.offset) as WorkPtr;
    }
  }
}

/** The function of the work that a timer is armed for; NULL: it is no delayed work's. */
export function delayed_work_fn(timer: TimerPtr): FnPtr {
  if (TimerList.function.get(timer) !== delayed_work_timer) return NULL;
  return WorkStruct.func.get(DelayedWork.work.at(TimerList.data.get(timer) as DelayedWorkPtr));
}

/** Does what waits, ends the queue's thread and frees the queue. */
export function destroy_workqueue(wq: WorkqueuePtr): void {
  if (wq === NULL) return;
  flush_workqueue(wq);
  unclaim(CLAIM_WORKQUEUE, wq);
  list_del(Workqueue.list.at(wq));
  kthread_end(Workqueue.worker.get(wq));
  kfree(wq);
}

/** Power-off: the queue of schedule_work goes. */
export function workqueue_shutdown(): void {
  if (state.system !== NULL) destroy_workqueue(state.system);
  state.system = NULL;
}

/** The queue that schedule_work uses; NULL without memory to make it. */
function system_wq(): WorkqueuePtr {
  if (state.system === NULL) state.system = as_kernel_own(() => new_workqueue("events"));
  return state.system;
}

/** Makes a work of an object whose bytes mean nothing yet. */
export function INIT_WORK(work: WorkPtr, fn: (work: WorkPtr) => void): void {
  init_list_head(WorkStruct.entry.at(work));
  WorkStruct.func.set(work, ksym_address(fn));
  WorkStruct.wq.set(work, NULL);
}

/** True while a work waits. */
export function work_pending(work: WorkPtr): boolean {
  return !list_empty(WorkStruct.entry.at(work));
}

/** Puts a work at the end of a queue; false if it waits already. Context: any. */
export function queue_work(wq: WorkqueuePtr, work: WorkPtr): boolean {
  if (wq === NULL || work_pending(work)) return false;
  claim(CLAIM_WORK, work);
  WorkStruct.wq.set(work, wq);
  spin_lock(Workqueue.lock.at(wq));
  list_add_tail(WorkStruct.entry.at(work), Workqueue.worklist.at(wq));
  spin_unlock(Workqueue.lock.at(wq));
  wake_up_process(Workqueue.worker.get(wq));
  return true;
}

/** Has the kernel's own thread do a work. */
export function schedule_work(work: WorkPtr): boolean {
  return queue_work(system_wq(), work);
}

/** Takes a work back; true if it was waiting. It does not run after this. */
export function cancel_work_sync(work: WorkPtr): boolean {
  const pending = work_pending(work);
  if (pending) take_off(work);
  return pending;
}

/** Does a work now if it waits; true if it did. */
export function flush_work(work: WorkPtr): boolean {
  const pending = cancel_work_sync(work);
  if (pending) ksym_fn(WorkStruct.func.get(work))(work);
  return pending;
}

/** Does everything that waits on a queue. */
export function flush_workqueue(wq: WorkqueuePtr): void {
  while (run_first(wq));
}

const delayed_work_timer = ksym("delayed_work_timer_fn", (dwork: DelayedWorkPtr): void => {
  queue_work(DelayedWork.wq.get(dwork), DelayedWork.work.at(dwork));
});

/** As INIT_WORK; `fn` gets the delayed work's own `work`. */
export function INIT_DELAYED_WORK(dwork: DelayedWorkPtr, fn: (work: WorkPtr) => void): void {
  INIT_WORK(DelayedWork.work.at(dwork), fn);
  timer_setup(DelayedWork.timer.at(dwork), delayed_work_timer, dwork);
}

/** Queues a work once `delay` ticks have passed; false if it waits already. */
export function queue_delayed_work(wq: WorkqueuePtr, dwork: DelayedWorkPtr, delay: number): boolean {
  const timer = DelayedWork.timer.at(dwork);
  if (wq === NULL || work_pending(DelayedWork.work.at(dwork)) || !list_empty(TimerList.entry.at(timer))) return false;
  if (delay === 0) return queue_work(wq, DelayedWork.work.at(dwork));
  DelayedWork.wq.set(dwork, wq);
  mod_timer(timer, jiffies() + delay);
  return true;
}

/** Has the kernel's own thread do a work once `delay` ticks have passed; false if it waits already. */
export function schedule_delayed_work(dwork: DelayedWorkPtr, delay: number): boolean {
  return queue_delayed_work(system_wq(), dwork, delay);
}

/** Takes a delayed work back, whether its time has come or not. */
export function cancel_delayed_work_sync(dwork: DelayedWorkPtr): boolean {
  const armed = timer_delete(DelayedWork.timer.at(dwork));
  return cancel_work_sync(DelayedWork.work.at(dwork)) || armed;
}
