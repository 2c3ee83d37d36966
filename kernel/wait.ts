/**
 * Wait queues: where tasks sleep until something happens.
 *
 *     wait_queue_head [ lock | head ]  ->  task.wait_entry  ->  task.wait_entry  ->  back
 *
 * Nothing in the kernel sleeps in the middle of a call. A call that cannot go on does
 *
 *     return wait_on(queue);                      // the task is asleep on the queue; the call ends with -ERESTARTSYS
 *
 * and is entered again from its start once `wake_up(queue)` has made the task runnable. So it checks its condition
 * each time, as a loop around Linux's wait_event does. A task waits on one queue at most.
 *
 * Locks: wait_queue_head.lock protects the list and each waiter's `wait_queue`; then runqueue.lock.
 */
import { NULL } from "../hal/addr.ts";
import { ERESTARTSYS } from "./lib/errno.ts";
import { init_list_head, list_add_tail, list_del_init, list_empty, list_next } from "./lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "./lib/spinlock.ts";
import { sleep_on_rq, wake_up_process } from "./sched.ts";
import {
  TASK_INTERRUPTIBLE, TaskStruct, WaitQueueHead, current_task, type TaskPtr, type WaitQueuePtr,
} from "./task.ts"; // prettier-ignore

/** Makes an empty queue. Suits a constructor. */
export function init_waitqueue_head(queue: WaitQueuePtr): void {
  SpinLock.owner.set(WaitQueueHead.lock.at(queue), 0);
  init_list_head(WaitQueueHead.head.at(queue));
}

/** True if somebody waits. */
export function waitqueue_active(queue: WaitQueuePtr): boolean {
  return !list_empty(WaitQueueHead.head.at(queue));
}

/** Puts the current task to sleep on a queue, as its last waiter. Returns -ERESTARTSYS for the call to return. */
export function wait_on(queue: WaitQueuePtr, state: number = TASK_INTERRUPTIBLE): number {
  const task = current_task();
  finish_wait(task);
  spin_lock(WaitQueueHead.lock.at(queue));
  list_add_tail(TaskStruct.wait_entry.at(task), WaitQueueHead.head.at(queue));
  TaskStruct.wait_queue.set(task, queue);
  spin_unlock(WaitQueueHead.lock.at(queue));
  sleep_on_rq(task, state);
  return -ERESTARTSYS;
}

/** Takes a task off the queue it waits on, if it does. */
export function finish_wait(task: TaskPtr): void {
  const queue = TaskStruct.wait_queue.get(task);
  if (queue === NULL) return;
  spin_lock(WaitQueueHead.lock.at(queue));
  list_del_init(TaskStruct.wait_entry.at(task));
  TaskStruct.wait_queue.set(task, NULL);
  spin_unlock(WaitQueueHead.lock.at(queue));
}

/** Wakes `nr` waiters, longest first; all of them by default. Returns how many. Context: any. */
export function wake_up(queue: WaitQueuePtr, nr = 0x7fffffff): number {
  let woken = 0;
  for (; woken < nr && waitqueue_active(queue); woken++) {
    const task: TaskPtr = list_next(WaitQueueHead.head.at(queue)) - TaskStruct.wait_entry.offset;
    finish_wait(task);
    wake_up_process(task);
  }
  return woken;
}
