/** The system calls about tasks and time. What a program may give them: kernel/syscall.ts. */
import { jiffies } from "../hal/clock.ts";
import { do_exit, do_wait } from "./exit.ts";
import { EINVAL, ERESTARTSYS } from "./lib/errno.ts";
import { pr_info } from "./lib/printk.ts";
import { RANDOM_USER, get_random_u32 } from "./lib/random.ts";
import { do_exec, do_fork } from "./program.ts";
import { sleep_on_rq, yield_task } from "./sched.ts";
import { do_kill } from "./signal.ts";
import { register_syscall } from "./syscall.ts";
import { TASK_INTERRUPTIBLE, TaskStruct, current_task, task_name, task_ppid } from "./task.ts";
import { mod_timer } from "./timer.ts";

/** Sleeps until tick `progress - 1`. */
function sys_sleep(ticks: number): number {
  const task = current_task();
  if (ticks < 0) return -EINVAL;
  if (TaskStruct.progress.get(task) === 0) TaskStruct.progress.set(task, jiffies() + ticks + 1);
  const wake_at = TaskStruct.progress.get(task) - 1;
  if (jiffies() >= wake_at) return 0;
  mod_timer(TaskStruct.timer.at(task), wake_at);
  sleep_on_rq(task, TASK_INTERRUPTIBLE);
  return -ERESTARTSYS;
}

register_syscall("fork", "", () => do_fork(current_task()));
register_syscall("exec", "s*", (name: string, ...args: unknown[]) => do_exec(current_task(), name, args));
register_syscall("exit", "?n", (status = 0) => {
  do_exit(current_task(), (status & 0xff) << 8);
  return 0;
});
register_syscall("wait", "?nn", (pid = -1, options = 0) => do_wait(pid, options));
register_syscall("getpid", "", () => TaskStruct.tgid.get(current_task()));
register_syscall("getppid", "", () => task_ppid(current_task()));
register_syscall("sched_yield", "", () => {
  yield_task(current_task());
  return 0;
});
register_syscall("sleep", "n", sys_sleep);
register_syscall("kill", "nn", do_kill);
register_syscall("getrandom", "", () => get_random_u32(RANDOM_USER));
register_syscall("clock", "", jiffies);
register_syscall("syslog", "s", (text: string) => {
  pr_info(`${task_name(current_task())}: ${text}`);
  return text.length;
});
