/**
 * What a module may import: the headers of kernel/include/linux, by the names under which modules know them. They are
 * this realm's own, so a module always gets the kernel that runs.
 */
import * as bug from "../../kernel/include/linux/bug.ts";
import * as errno from "../../kernel/include/linux/errno.ts";
import * as fs from "../../kernel/include/linux/fs.ts";
import * as gfp from "../../kernel/include/linux/gfp.ts";
import * as jiffies from "../../kernel/include/linux/jiffies.ts";
import * as kernel from "../../kernel/include/linux/kernel.ts";
import * as kthread from "../../kernel/include/linux/kthread.ts";
import * as kunit from "../../kernel/include/linux/kunit.ts";
import * as list from "../../kernel/include/linux/list.ts";
import * as mempool from "../../kernel/include/linux/mempool.ts";
import * as mm from "../../kernel/include/linux/mm.ts";
import * as module from "../../kernel/include/linux/module.ts";
import * as notifier from "../../kernel/include/linux/notifier.ts";
import * as percpu from "../../kernel/include/linux/percpu.ts";
import * as proc_fs from "../../kernel/include/linux/proc_fs.ts";
import * as random from "../../kernel/include/linux/random.ts";
import * as rbtree from "../../kernel/include/linux/rbtree.ts";
import * as rcupdate from "../../kernel/include/linux/rcupdate.ts";
import * as sched from "../../kernel/include/linux/sched.ts";
import * as shrinker from "../../kernel/include/linux/shrinker.ts";
import * as slab from "../../kernel/include/linux/slab.ts";
import * as spinlock from "../../kernel/include/linux/spinlock.ts";
import * as string from "../../kernel/include/linux/string.ts";
import * as sysfs from "../../kernel/include/linux/sysfs.ts";
import * as timer from "../../kernel/include/linux/timer.ts";
import * as types from "../../kernel/include/linux/types.ts";
import * as vmalloc from "../../kernel/include/linux/vmalloc.ts";
import * as wait from "../../kernel/include/linux/wait.ts";
import * as workqueue from "../../kernel/include/linux/workqueue.ts";

const HEADERS = Object.freeze({
  bug, errno, fs, gfp, jiffies, kernel, kthread, kunit, list, mempool, mm, module, notifier, percpu, proc_fs, random, rbtree,
  rcupdate, sched, shrinker, slab, spinlock, string, sysfs, timer, types, vmalloc, wait, workqueue,
}) as Readonly<Record<string, Readonly<Record<string, unknown>>>>; // prettier-ignore

export const header_names = (): string[] => Object.keys(HEADERS).map((name) => `kheap/linux/${name}`);

/** A header by its full name; undefined if there is none. */
export function header(name: string): Readonly<Record<string, unknown>> | undefined {
  return name.startsWith("kheap/linux/") ? HEADERS[name.slice("kheap/linux/".length)] : undefined;
}
