/**
 * The memory of a task: the caches its structs come from, and its kernel stack.
 *
 * `alloc_task` gives all or nothing; `free_task_stack` and `free_task` are its two halves backwards, since a task that
 * ended needs no stack while its parent still wants its exit code.
 */
import { NULL } from "../hal/addr.ts";
import { local_clock } from "../hal/clock.ts";
import { static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { GFP_KERNEL, GFP_KERNEL_ACCOUNT, NUMA_NO_NODE, __GFP_ZERO } from "../mm/gfp.ts";
import { __free_pages, alloc_pages_node } from "../mm/page_alloc.ts";
import { TaskMempolicy, mpol_put_task_policy } from "../mm/mempolicy.ts";
import { page_address, page_to_nid, virt_to_page } from "../mm/page.ts";
import {
  KMEM_CACHE, kmem_cache_alloc, kmem_cache_create, kmem_cache_free, kmem_cache_zalloc,
} from "../mm/slab_common.ts"; // prettier-ignore
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from "../mm/slab_layout.ts";
import { NR_KERNEL_STACK_KB, mod_node_page_state } from "../mm/vmstat.ts";
import { NODE_DATA } from "../mm/zone.ts";
import { journal_init } from "./journal.ts";
import { BUG_ON } from "./lib/bug.ts";
import { ksym } from "./lib/ksym.ts";
import { init_list_head, list_empty } from "./lib/list.ts";
import { SpinLock } from "./lib/spinlock.ts";
import { wake_up_process } from "./sched.ts";
import {
  Cred, SighandStruct, SignalStruct, THREAD_SIZE, THREAD_SIZE_ORDER, TaskStruct, task_name, type TaskPtr,
} from "./task.ts"; // prettier-ignore
import { timer_setup } from "./timer.ts";
import { init_waitqueue_head } from "./wait.ts";

const caches = static_data("task_caches", {
  task_struct: "*kmem_cache",
  signal: "*kmem_cache",
  sighand: "*kmem_cache",
  cred: "*kmem_cache",
});
/** In the lowest word of every stack; a stack that grew too far would overwrite it. */
const STACK_END_MAGIC = 0x57ac6e9d | 0;

const process_timeout = ksym("process_timeout", (task: TaskPtr) => void wake_up_process(task));

/** Constructor of task_struct: what is the same in every task that lies unused in a slab. */
function init_task_once(task: TaskPtr): void {
  for (const list of [
    TaskStruct.run_list,
    TaskStruct.wait_entry,
    TaskStruct.tasks,
    TaskStruct.children,
    TaskStruct.sibling,
  ])
    init_list_head(list.at(task));
  timer_setup(TaskStruct.timer.at(task), process_timeout, task);
  journal_init(TaskStruct.journal.at(task));
  for (const field of [
    TaskStruct.on_rq,
    TaskStruct.wait_queue,
    TaskStruct.files,
    TaskStruct.fs,
    TaskStruct.mm,
    TaskStruct.stack,
  ])
    field.set(task, NULL);
}
ksym("init_task_once", init_task_once);

/** Constructor of sighand_struct. */
function sighand_ctor(sighand: number): void {
  SpinLock.owner.set(SighandStruct.siglock.at(sighand), 0);
  init_waitqueue_head(SighandStruct.signalfd_wqh.at(sighand));
}
ksym("sighand_ctor", sighand_ctor);

/** Boot: the caches. */
export function task_caches_init(): void {
  const flags = SLAB_PANIC | SLAB_ACCOUNT;
  caches.task_struct = kmem_cache_create("task_struct", TaskStruct.sizeof, 64, flags, init_task_once);
  const sighand_flags = flags | SLAB_HWCACHE_ALIGN | SLAB_TYPESAFE_BY_RCU;
  caches.sighand = kmem_cache_create("sighand_cache", SighandStruct.sizeof, 0, sighand_flags, sighand_ctor);
  caches.signal = KMEM_CACHE("signal_cache", SignalStruct, flags | SLAB_HWCACHE_ALIGN);
  caches.cred = KMEM_CACHE("cred_jar", Cred, flags | SLAB_HWCACHE_ALIGN);
}

/** Counts a kernel stack in or out. */
function account_kernel_stack(stack: number, kib: number): void {
  mod_node_page_state(NODE_DATA(page_to_nid(virt_to_page(stack))), NR_KERNEL_STACK_KB, kib);
}

function alloc_stack(): number {
  const page = alloc_pages_node(NUMA_NO_NODE, GFP_KERNEL_ACCOUNT | __GFP_ZERO, THREAD_SIZE_ORDER);
  if (page === NULL) return NULL;
  const stack = page_address(page);
  ram32[stack >> 2] = STACK_END_MAGIC;
  account_kernel_stack(stack, THREAD_SIZE / 1024);
  return stack;
}

/** A task with all that it owns, of nobody's family and without a number; NULL if memory is short. */
export function alloc_task(): TaskPtr {
  const task: TaskPtr = kmem_cache_alloc(caches.task_struct, GFP_KERNEL);
  if (task === NULL) return NULL;
  for (const field of [TaskStruct.flags, TaskStruct.exit_code, TaskStruct.entry, TaskStruct.program, TaskStruct.arg,
    TaskStruct.progress, TaskStruct.nr_switches, TaskStruct.utime, TaskStruct.sig_pending, TaskStruct.should_stop,
    TaskStruct.parent]) field.set(task, 0); // prettier-ignore
  TaskMempolicy.policy.set(TaskStruct.mempolicy.at(task), NULL);
  TaskStruct.start_time.set(task, local_clock());
  TaskStruct.stack.set(task, alloc_stack());
  TaskStruct.signal.set(task, kmem_cache_zalloc(caches.signal, GFP_KERNEL));
  TaskStruct.sighand.set(task, kmem_cache_alloc(caches.sighand, GFP_KERNEL));
  TaskStruct.cred.set(task, kmem_cache_zalloc(caches.cred, GFP_KERNEL));
  const parts = [TaskStruct.stack, TaskStruct.signal, TaskStruct.sighand, TaskStruct.cred];
  if (parts.some((part) => part.get(task) === NULL)) {
    free_task(task);
    return NULL;
  }
  init_waitqueue_head(SignalStruct.wait_chldexit.at(TaskStruct.signal.get(task)));
  SighandStruct.count.set(TaskStruct.sighand.get(task), 1);
  Cred.usage.set(TaskStruct.cred.get(task), 1);
  return task;
}

/** Frees the kernel stack of a task that will not run again. */
export function free_task_stack(task: TaskPtr): void {
  const stack = TaskStruct.stack.get(task);
  if (stack === NULL) return;
  BUG_ON(ram32[stack >> 2] !== STACK_END_MAGIC, `corrupted stack end of ${task_name(task)}`);
  account_kernel_stack(stack, -THREAD_SIZE / 1024);
  TaskStruct.stack.set(task, NULL);
  __free_pages(virt_to_page(stack), THREAD_SIZE_ORDER);
}

/** Frees a task: whole, or as far as it was made. Its lists are empty, its files and journal are gone. */
export function free_task(task: TaskPtr): void {
  free_task_stack(task);
  BUG_ON(!list_empty(TaskStruct.children.at(task)) || TaskStruct.on_rq.get(task) !== 0, `${task_name(task)} is in use`);
  free_part(caches.signal, TaskStruct.signal.get(task));
  free_part(caches.sighand, TaskStruct.sighand.get(task));
  free_part(caches.cred, TaskStruct.cred.get(task));
  mpol_put_task_policy(TaskStruct.mempolicy.at(task));
  kmem_cache_free(caches.task_struct, task);
}

function free_part(cache: number, part: number): void {
  if (part !== NULL) kmem_cache_free(cache, part);
}
