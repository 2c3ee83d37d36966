/**
 * Process numbers: which are taken (a bitmap), and which task has a number (a hash of `struct pid`).
 *
 * Numbers are given out in turn, not lowest first, so that one is not used again at once; after pid_max the search
 * goes on at RESERVED_PIDS. Locks: pid_state.lock.
 *
 * Unlike Linux: no namespaces, no IDR; `struct pid` belongs to one task and is freed with it.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { array, struct } from "../hal/struct.ts";
import { GFP_KERNEL } from "../mm/gfp.ts";
import { KMEM_CACHE, kmem_cache_alloc, kmem_cache_free, type CachePtr } from "../mm/slab_common.ts";
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_PANIC } from "../mm/slab_layout.ts";
import { EAGAIN, ENOMEM } from "./lib/errno.ts";
import { ListHead, init_list_head, list_add, list_del, list_next } from "./lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "./lib/spinlock.ts";
import type { TaskPtr } from "./task.ts";

/** One more than the highest number. */
export const PID_MAX = 32768;
/** Numbers below are not used a second time. */
const RESERVED_PIDS = 300;
const HASH_SIZE = 64;

export const Pid = struct("pid", {
  count: "u32",
  nr: "u32",
  task: "*task_struct",
  chain: ListHead, // its bucket; pid_state.lock
});
export type PidPtr = Ptr<"pid">;

const pid_state = static_data("pid_state", {
  lock: SpinLock,
  cache: "*kmem_cache",
  last: "u32", // the number given out last
  nr_free: "u32",
  buckets: array(ListHead, HASH_SIZE),
  bitmap: "u32[1024]", // bit n: number n is taken
});

/** Boot: all numbers but 0, the idle tasks', are free. */
export function pid_init(): void {
  for (let i = 0; i < HASH_SIZE; i++) init_list_head(pid_state.buckets.at(i));
  pid_state.nr_free = PID_MAX - 1;
  pid_state.cache = KMEM_CACHE(Pid, SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT) as CachePtr;
}

function is_taken(nr: number): boolean {
  return ((pid_state.bitmap.get(nr >> 5) >>> (nr & 31)) & 1) !== 0;
}

function flip(nr: number): void {
  pid_state.bitmap.set(nr >> 5, pid_state.bitmap.get(nr >> 5) ^ (1 << (nr & 31)));
}

function next_free_number(): number {
  let nr = pid_state.last;
  do nr = nr + 1 < PID_MAX ? nr + 1 : RESERVED_PIDS;
  while (is_taken(nr));
  return nr;
}

/** Gives a task a number. Returns the `struct pid`, or -ENOMEM, or -EAGAIN when all numbers are taken. */
export function alloc_pid(task: TaskPtr): PidPtr {
  const pid: PidPtr = kmem_cache_alloc(pid_state.cache, GFP_KERNEL);
  if (pid === NULL) return -ENOMEM;
  spin_lock(pid_state.lock);
  // Below RESERVED_PIDS no number is looked for again, so at that many free ones the search might not end.
  if (pid_state.nr_free <= RESERVED_PIDS) {
    spin_unlock(pid_state.lock);
    kmem_cache_free(pid_state.cache, pid);
    return -EAGAIN;
  }
  const nr = next_free_number();
  flip(nr);
  pid_state.last = nr;
  pid_state.nr_free = pid_state.nr_free - 1;
  Pid.count.set(pid, 1);
  Pid.nr.set(pid, nr);
  Pid.task.set(pid, task);
  list_add(Pid.chain.at(pid), pid_state.buckets.at(nr % HASH_SIZE));
  spin_unlock(pid_state.lock);
  return pid;
}

/** Lets the search go on behind `nr`, as a write to Linux's /proc/sys/kernel/ns_last_pid does. */
export function set_last_pid(nr: number): void {
  pid_state.last = nr;
}

/** Gives a number back. */
export function free_pid(pid: PidPtr): void {
  spin_lock(pid_state.lock);
  flip(Pid.nr.get(pid));
  pid_state.nr_free = pid_state.nr_free + 1;
  list_del(Pid.chain.at(pid));
  spin_unlock(pid_state.lock);
  kmem_cache_free(pid_state.cache, pid);
}

/** The task with this number; NULL if there is none. Zombies have one. */
export function find_task_by_pid(nr: number): TaskPtr {
  if (!(nr > 0 && nr < PID_MAX)) return NULL;
  const head = pid_state.buckets.at(nr % HASH_SIZE);
  for (let node = list_next(head); node !== head; node = list_next(node)) {
    const pid: PidPtr = node - Pid.chain.offset;
    if (Pid.nr.get(pid) === nr) return Pid.task.get(pid);
  }
  return NULL;
}
