/** Making tasks while memory is short: each allocation fails in turn, the caller gets an error, nothing is lost. */
import { describe, expect, it } from "vitest";
import { take_figures } from "../../boot/start_kernel.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { max_threads } from "../../kernel/fork.ts";
import { kthread_create, kthread_stop, SLEEP } from "../../kernel/kthread.ts";
import { EAGAIN, ENOMEM } from "../../kernel/lib/errno.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { program, spawn } from "../../kernel/program.ts";
import { SIGKILL, do_kill } from "../../kernel/signal.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { TaskStruct, tasklist } from "../../kernel/task.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

register_syscall("t_fail_nth", "n", (n: number) => {
  set_fail_nth(n);
  return 0;
});

const idle = test_init("t_idle", function* (sys) {
  yield sys.getpid();
});
const forks = test_init("t_forks_short", function* (sys) {
  let failed = 0;
  for (let n = 1; ; n++) {
    yield { call: "t_fail_nth", args: [n] };
    const pid: number = yield sys.fork();
    if (pid === 0) return 3;
    yield { call: "t_fail_nth", args: [0] };
    if (pid > 0) break;
    if (pid === -ENOMEM) failed++;
  }
  const { status }: { status: number } = yield sys.wait();
  yield sys.syslog(`${failed} ${status >> 8}`);
});
const grows = test_init("t_grows", function* (sys) {
  if ((yield sys.fork()) === 0) {
    for (let i = 0; i < 200; i++) yield sys.getpid();
    yield { call: "t_fail_nth", args: [1] };
    for (;;) yield sys.getpid();
  }
  const { status }: { status: number } = yield sys.wait();
  yield sys.syslog(`${status}`);
});
program("t_sleeper", function* (sys) {
  yield sys.sleep(1_000_000);
});
const sleeps = ksym("t_sleeps", () => SLEEP);

describe("making tasks without memory", () => {
  it("each allocation of a spawn fails in turn: -ENOMEM and nothing is left over", () => {
    with_tasks(idle, () => {
      const before = take_figures();
      const [threads, children] = [tasklist.nr_threads, tasklist.nr_processes];
      let failed = 0;
      for (let n = 1; ; n++) {
        set_fail_nth(n);
        const task = kernel_entry("host", () => spawn(find_task_by_pid(1), "t_sleeper", []))!;
        set_fail_nth(0);
        if (task > 0) {
          do_kill(TaskStruct.pid.get(task), SIGKILL);
          break;
        }
        expect(task).toBe(-ENOMEM);
        failed++;
        expect([tasklist.nr_threads, tasklist.nr_processes]).toEqual([threads, children]);
        expect(take_figures()).toEqual(before);
      }
      // task_struct, stack, signal, sighand, cred, journal, pid at least; more where a slab or a page had to be made
      expect(failed).toBeGreaterThanOrEqual(7);
      schedule_entries(100);
      expect(tasklist.nr_threads).toBe(threads);
    });
  });

  it("fork tells the program -ENOMEM, and it goes on", () => {
    with_tasks(forks, () => {
      const [failed, status] = reports()[0]!.split(" ").map(Number);
      expect(failed).toBeGreaterThanOrEqual(6);
      expect(status).toBe(3);
    });
  });

  it("a program whose journal cannot grow is killed and says so", () => {
    with_tasks(grows, () => {
      expect(reports()).toEqual([`${SIGKILL}`]);
      expect(log().some((line) => /^Out of memory: Killed process \d+ \(t_grows\)/.test(line))).toBe(true);
    });
  });

  it("there are max_threads tasks at most", () => {
    with_tasks(idle, () => {
      const tasks = [];
      let task = 0;
      while ((task = kthread_create(sleeps, 0, "t")) > 0) tasks.push(task);
      expect([task, tasklist.nr_threads]).toEqual([-EAGAIN, max_threads()]);
      expect(spawn(find_task_by_pid(1), "t_sleeper", [])).toBe(-EAGAIN);
      expect(tasks.length).toBe(max_threads() - 4);
      for (const each of tasks) kthread_stop(each);
    });
  });
});
