/**
 * The first tasks, and the last: from the end of boot to the first program's work, and power-off.
 *
 *     pid 1   init       the program that `init=` names, /init by default; parent of orphans
 *     pid 2   kthreadd   parent of kernel threads
 *     pid 3 … kswapd0 …  one for each node with memory
 *
 * Boot is over when init says so (the call boot_complete): the programs that it starts have done their work, and what
 * goes on, goes on by itself.
 */
import { NULL } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { kernel_entry } from "./entry.ts";
import { do_exit, finish_task, release_task } from "./exit.ts";
import { kswapd_init, kswapd_stop } from "./kswapd.ts";
import { kthread_run, kthreadd } from "./kthread.ts";
import { panic } from "./lib/bug.ts";
import { cmdline_param } from "./lib/cmdline.ts";
import { is_err } from "./lib/errno.ts";
import { pr_notice, pr_warn } from "./lib/printk.ts";
import { schedule_until } from "./lockstep.ts";
import { SYS_POWER_OFF, notifier_call_chain, reboot_notifier_list } from "./notifier.ts";
import { oom_exit, oom_init } from "./oom.ts";
import { find_task_by_pid } from "./pid.ts";
import { forget_programs, spawn } from "./program.ts";
import { SIGKILL } from "./signal.ts";
import { register_syscall } from "./syscall.ts";
import { workqueue_shutdown } from "./workqueue.ts";
import {
  PF_KTHREAD, SYSTEM_HALT, SYSTEM_RUNNING, TaskStruct, current_task, for_each_process, idle_task, system_status,
  task_is_dead, tasklist, type TaskPtr,
} from "./task.ts"; // prettier-ignore
import "./mempolicy_calls.ts";
import "./mm_calls.ts";
import "./process_calls.ts";
import "./programs/daemons.ts";
import "./programs/files.ts";
import "./programs/init.ts";
import "./programs/memory.ts";
import "./programs/processes.ts";
import "./programs/sh.ts";
import "./programs/text.ts";
import "./programs/usertests.ts";
import "./programs/workers.ts";

/** Entries after which boot goes on without init. */
const START_UP_LIMIT = 200_000;

/** What init did until it said that it was done. */
const start_up = static_data("init_start_up", { done: "u32", programs: "u32", forks: "u32" });

/** `programs`: how many of its children are programs of their own. Only init may call it. */
register_syscall("boot_complete", "n", (programs: number) => {
  if (TaskStruct.pid.get(current_task()) !== 1) return -1;
  start_up.programs = programs;
  start_up.forks = tasklist.total_forks;
  start_up.done = 1;
  return 0;
});

/** Programs that init started, and tasks that were made while booting. */
export function start_up_report(): { programs: number; forks: number } {
  return { programs: start_up.programs, forks: start_up.forks };
}

/** Boot: makes the first two tasks and lets the machine run until init has done its work. */
export function rest_init(): void {
  const name = cmdline_param("init") ?? "/init";
  forget_programs();
  kernel_entry("host", () => {
    const init = spawn(idle_task(0), name.replace(/^\/(s?bin\/)?/, ""), []); // it is part of the kernel, as an initramfs is
    if (is_err(init)) panic(`Requested init ${name} failed (error ${init}).`);
    kthread_run(kthreadd, NULL, "kthreadd");
    kswapd_init();
    oom_init();
  });
  system_status.state = SYSTEM_RUNNING;
  pr_notice(`Run ${name} as init process`);
  if (!schedule_until(() => start_up.done !== 0, START_UP_LIMIT)) pr_warn(`${name} has not finished starting up`);
}

/** Ends a task at once and frees all of it. Context: the task is in no entry. */
function end_task(task: TaskPtr): void {
  if (!task_is_dead(task)) do_exit(task, SIGKILL);
  const is_zombie = !(TaskStruct.flags.get(task) & PF_KTHREAD);
  finish_task(task);
  if (is_zombie) release_task(task);
}

/** Power-off: ends all tasks, the youngest first, init and kthreadd last. Context: the host, between entries. */
export function kernel_shutdown(): void {
  kernel_entry("host", () => {
    system_status.state = SYSTEM_HALT;
    notifier_call_chain(reboot_notifier_list, SYS_POWER_OFF, NULL);
    workqueue_shutdown();
    oom_exit();
    kswapd_stop();
    const [init, threads] = [find_task_by_pid(1), find_task_by_pid(2)];
    for (const task of [...for_each_process()].reverse()) if (task !== init && task !== threads) end_task(task);
    for (const task of [init, threads]) if (task !== NULL) end_task(task);
  });
  forget_programs();
}
