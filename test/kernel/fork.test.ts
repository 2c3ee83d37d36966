/** The memory of tasks, their numbers, events, and the programs that init starts. */
import { describe, expect, it } from "vitest";
import { events } from "../../hal/events.ts";
import { PRESETS } from "../../hal/machine.ts";
import { start_up_report } from "../../kernel/init.ts";
import { EXIT, SLEEP, kthread_create, kthread_run, kthread_stop } from "../../kernel/kthread.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { list_empty } from "../../kernel/lib/list.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { PID_MAX, find_task_by_pid, set_last_pid } from "../../kernel/pid.ts";
import { Journal, TaskStruct, for_each_process, task_ppid, task_state_char, tasklist } from "../../kernel/task.ts";
import { TimerList } from "../../kernel/timer.ts";
import { find_cache, get_slabinfo } from "../../mm/slab_common.ts";
import { with_machine } from "../lib/machine.ts";
import { log, test_init, with_tasks } from "./tasks.ts";

const ends = ksym("t_thread_ends", () => EXIT);
const sleeps = ksym("t_thread_sleeps", () => SLEEP);
const family = test_init("t_family", function* (sys) {
  if ((yield sys.fork()) === 0) return 2;
  yield sys.wait();
});
const live = (name: string): number => get_slabinfo(find_cache(name)!).live_objs;

describe("task_struct", () => {
  it("is constructed once; an object that comes back is as its constructor left it", () => {
    with_machine({ until: "kernel" }, () => {
      const make = (): number => kthread_create(ends, 0, "t");
      const first = make();
      const marker = TimerList.cpu.at(TaskStruct.timer.at(first));
      TimerList.cpu.set(TaskStruct.timer.at(first), 77); // only the constructor and mod_timer write it
      kthread_stop(first);
      schedule_entries(10);
      const again = make();
      expect(again).toBe(first);
      expect(TimerList.cpu.get(TaskStruct.timer.at(again))).toBe(77);
      expect(marker).toBeGreaterThan(again);
      expect(TimerList.data.get(TaskStruct.timer.at(again))).toBe(again);
      for (const list of [TaskStruct.wait_entry, TaskStruct.children, TaskStruct.sibling, TaskStruct.run_list])
        expect(list_empty(list.at(again))).toBe(true);
      expect(Journal.nr_pages.get(TaskStruct.journal.at(again))).toBe(0);
      kthread_stop(again);
      schedule_entries(10);
    });
  });

  it("comes with signal, sighand, cred and pid, each from its cache", () => {
    with_machine({ until: "kernel" }, () => {
      const caches = ["task_struct", "sighand_cache", "signal_cache", "cred_jar", "pid"];
      expect(find_cache("cred_jar")).toBe(find_cache("pid")); // both of 64 bytes, so merged: each task has two objects
      const before = caches.map(live);
      const tasks = Array.from({ length: 5 }, (_, i) => kthread_create(sleeps, i, "t"));
      expect(caches.map((name, i) => live(name) - before[i]!)).toEqual([5, 5, 5, 10, 10]);
      for (const task of tasks) TaskStruct.program.set(task, ends);
      for (const task of tasks) kthread_stop(task);
      schedule_entries(20);
      expect(caches.map(live)).toEqual(before);
    });
  });
});

describe("numbers", () => {
  it("are given in turn and found by hash; after the last the search goes on at 300", () => {
    with_machine({ until: "kernel" }, () => {
      const stays = kthread_create(sleeps, 0, "stays");
      expect([TaskStruct.pid.get(stays), find_task_by_pid(1)]).toEqual([1, stays]);
      const next = (): number => {
        const pid = TaskStruct.pid.get(kthread_run(ends, 0, "t"));
        schedule_entries(1);
        return pid;
      };
      expect([next(), next()]).toEqual([2, 3]); // 2 is free again, but not taken again
      set_last_pid(PID_MAX - 2);
      expect([next(), next(), next()]).toEqual([PID_MAX - 1, 300, 301]);
      set_last_pid(0);
      expect(next()).toBe(2); // 1 is taken
      expect([find_task_by_pid(0), find_task_by_pid(-1), find_task_by_pid(PID_MAX), find_task_by_pid(NaN)]).toEqual([
        0, 0, 0, 0,
      ]);
      TaskStruct.program.set(stays, ends);
      kthread_stop(stays);
      schedule_entries(5);
    });
  });
});

describe("events", () => {
  it("tell of each fork and exit, and change nothing", () => {
    const heard: string[] = [];
    const on_fork = (e: { pid: number; parent: number; comm: string }): void =>
      void heard.push(`+${e.pid} ${e.parent} ${e.comm}`);
    const on_exit = (e: { pid: number; comm: string; code: number }): void =>
      void heard.push(`-${e.pid} ${e.comm} ${e.code}`);
    const silent = with_tasks(family, log);
    events.on("task:fork", on_fork).on("task:exit", on_exit);
    const heard_log = with_tasks(family, log);
    events.off("task:fork", on_fork).off("task:exit", on_exit);
    const threads = ["+2 0 kthreadd", "+3 2 kswapd0", "+4 2 kswapd1"];
    expect(heard.slice(0, 6)).toEqual(["+1 0 t_family", ...threads, "+5 1 t_family", "-5 t_family 512"]);
    expect(heard_log).toEqual(silent);
  });
});

describe("init", () => {
  it("starts six programs, of which three daemons sleep on; dozens of tasks came and went", () => {
    for (const preset of ["textbook", "embedded"])
      with_machine({ until: "init", machine: PRESETS[preset]! }, () => {
        const { programs, forks } = start_up_report();
        const nodes = PRESETS[preset]!.nodes.length;
        const kswapds = Array.from({ length: nodes }, (_, node) => `kswapd${node}`);
        expect([programs, forks]).toEqual([6, 37 + nodes]);
        const tasks = [...for_each_process()];
        expect(tasks.map((task) => TaskStruct.comm.get(task))).toEqual([
          "init",
          "kthreadd",
          ...kswapds,
          "syslogd",
          "crond",
          "getty",
        ]);
        expect(tasks.map(task_ppid)).toEqual([0, 0, ...kswapds.map(() => 2), 1, 1, 1]);
        schedule_entries(1);
        expect(tasks.map(task_state_char)).toContain("S");
        expect(live("task_struct")).toBe(tasklist.nr_threads);
        expect(live("inode_cache")).toBeGreaterThan(30);
        expect(live("dentry")).toBeGreaterThan(30);
      });
  });

  it("and its daemons go on for as long as the machine runs: their journals do not grow without end", () => {
    with_machine({ until: "init" }, () => {
      const pages: number[] = [];
      for (let i = 0; i < 40; i++) {
        schedule_entries(500);
        pages.push(
          Math.max(...[...for_each_process()].map((task) => Journal.nr_pages.get(TaskStruct.journal.at(task)))),
        );
      }
      expect(tasklist.total_forks).toBeGreaterThan(200);
      expect([...for_each_process()].length).toBeLessThan(8);
      expect(Math.max(...pages)).toBeLessThan(8);
    });
  });

  it("with the same seed the whole boot is the same, with another it is not", () => {
    const boot_log = (seed: number): string[] =>
      with_machine({ until: "init", seed }, () => {
        schedule_entries(300);
        return [...log(), ...[...for_each_process()].map((task) => `${task} ${TaskStruct.utime.get(task)}`)];
      });
    const [one, two] = [boot_log(1), boot_log(2)];
    expect(boot_log(1)).toEqual(one);
    expect(two).not.toEqual(one);
  });
});
