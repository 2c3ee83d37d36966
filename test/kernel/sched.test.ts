/** Run queues, time, timers, wait queues, kernel threads. */
import { describe, expect, it } from "vitest";
import { TICK_NSEC, clock_advance, jiffies, local_clock } from "../../hal/clock.ts";
import { on_cpu, smp_processor_id } from "../../hal/cpu.ts";
import { static_data } from "../../hal/image.ts";
import {
  EXIT,
  RUN,
  SLEEP,
  kthread_create,
  kthread_run,
  kthread_should_stop,
  kthread_stop,
} from "../../kernel/kthread.ts";
import { ENTRY_NSEC, schedule_entries } from "../../kernel/lockstep.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import {
  TIME_SLICE, cpu_ticks, get_avenrun, nr_context_switches, nr_running, wake_up_process,
} from "../../kernel/sched.ts"; // prettier-ignore
import { program } from "../../kernel/program.ts";
import {
  TaskStruct, WaitQueueHead, current_task, for_each_process, idle_task, task_state_char, tasklist, type TaskPtr,
} from "../../kernel/task.ts"; // prettier-ignore
import { TimerList, mod_timer, next_timer_expiry, timer_delete, timer_setup } from "../../kernel/timer.ts";
import { init_waitqueue_head, wait_on, wake_up, waitqueue_active } from "../../kernel/wait.ts";
import { page_to_nid, virt_to_page } from "../../mm/page.ts";
import { PRESETS } from "../../hal/machine.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";
import { log, test_init, with_tasks } from "./tasks.ts";

const [big, small] = TEST_MACHINE.nodes;
const FOUR_CPUS = {
  ...TEST_MACHINE,
  cpus: 4,
  nodes: [
    { ...big!, cpus: [0, 1] },
    { ...small!, cpus: [2, 3] },
  ],
};

const order = static_data("t_order", { n: "u32", ids: "u32[64]", limit: "u32" });
const note = (id: number): void => {
  order.ids.set(order.n, id);
  order.n = order.n + 1;
};
const noted = (): number[] => Array.from({ length: order.n }, (_, i) => order.ids.get(i));

const queue = static_data("t_queue", { head: WaitQueueHead, ready: "u32" });
const timers = static_data("t_timers", { a: TimerList, b: TimerList, c: TimerList });

const counts = ksym("t_counts", (id: number) => {
  note(id);
  return order.n < order.limit ? RUN : EXIT;
});
const until_stopped = ksym("t_until_stopped", (id: number) => {
  note(id);
  return kthread_should_stop() ? EXIT : SLEEP;
});
const waiter = ksym("t_waiter", (id: number) => {
  if (!queue.ready) {
    wait_on(queue.head);
    return SLEEP;
  }
  note(id);
  return EXIT;
});
const rings = ksym("t_rings", (id: number) => {
  note(id);
  note(smp_processor_id());
  note(jiffies());
});

program("t_counter", function* (sys, id: number) {
  for (let i = 0; i < 20; i++) yield sys.syslog(`${id}.${i}`);
});
const counters = test_init("t_counters", function* (sys) {
  for (let id = 0; id < 4; id++)
    if ((yield sys.fork()) === 0) {
      yield sys.exec("t_counter", id);
      return 1;
    }
  for (let i = 0; i < 4; i++) yield sys.wait();
});
const sleepers = test_init("t_sleepers", function* (sys) {
  for (const ticks of [30, 10, 20, 0])
    if ((yield sys.fork()) === 0) {
      const begin: number = yield sys.clock();
      yield sys.sleep(ticks);
      yield sys.syslog(`slept ${ticks} ${(yield sys.clock()) - begin}`);
      return 0;
    }
  for (let i = 0; i < 4; i++) yield sys.wait();
});

describe("run queues", () => {
  it("new tasks go to the CPU with the least to do, and allocate on its node", () => {
    with_machine({ until: "kernel", machine: FOUR_CPUS }, () => {
      const tasks = Array.from({ length: 4 }, (_, i) => on_cpu(i, () => kthread_create(until_stopped, i, `t/${i}`)));
      expect(tasks.map((task) => TaskStruct.cpu.get(task))).toEqual([0, 1, 2, 3]);
      const nodes = tasks.map((task) => page_to_nid(virt_to_page(TaskStruct.stack.get(task))));
      expect(nodes).toEqual([0, 0, 1, 1]);
      for (const task of tasks) kthread_stop(task);
      schedule_entries(100);
      expect(tasklist.nr_threads).toBe(0);
    });
  });

  it("tasks of one CPU run in turn, TIME_SLICE entries each", () => {
    with_machine({ until: "kernel", machine: PRESETS["embedded"]!, append: "loglevel=0" }, () => {
      order.limit = 3 * TIME_SLICE * 2;
      for (const id of [1, 2, 3]) kthread_run(counts, id, `t/${id}`);
      schedule_entries(100);
      const turn = (id: number): number[] => Array<number>(TIME_SLICE).fill(id);
      expect(noted().slice(0, 24)).toEqual([...turn(1), ...turn(2), ...turn(3), ...turn(1), ...turn(2), ...turn(3)]);
      expect(nr_context_switches()).toBeGreaterThanOrEqual(6);
    });
  });

  it("the same seed gives the same interleaving, another seed another", () => {
    const run = (seed: number) =>
      with_tasks(counters, () => log().filter((line) => line.startsWith("t_counter[")), { seed });
    const lines = run(1);
    expect(lines).toHaveLength(80);
    expect(run(1)).toEqual(lines);
    expect(run(2)).not.toEqual(lines);
    expect(run(2).sort()).toEqual(lines.sort()); // each still counts in order
  });

  it("how the host slices a run changes nothing", () => {
    const run = (slice: number) =>
      with_tasks(counters, () => {
        for (let done = 0; done < 600; done += slice) schedule_entries(slice);
        return [local_clock(), nr_context_switches(), ...log()];
      });
    expect(run(1)).toEqual(run(600));
  });
});

describe("time", () => {
  it("an entry takes ENTRY_NSEC; when all CPUs idle the clock goes on to the next timer", () => {
    with_machine({ until: "kernel" }, () => {
      expect(schedule_entries(5)).toBe(0); // nothing to run, no timer
      order.limit = 10;
      kthread_run(counts, 1, "t");
      const before = local_clock();
      expect(schedule_entries(3)).toBe(3);
      expect(local_clock() - before).toBe(3 * ENTRY_NSEC);
      schedule_entries(100);
      timer_setup(timers.a, rings, 7);
      mod_timer(timers.a, jiffies() + 1000);
      const expiry = next_timer_expiry()!;
      expect(schedule_entries(1)).toBe(1);
      expect(local_clock()).toBe(expiry * TICK_NSEC);
      expect(noted().slice(-3)).toEqual([7, 0, expiry]);
      expect([0, 1].map((cpu) => cpu_ticks(cpu).idle)).toEqual([
        expiry - cpu_ticks(0).busy,
        expiry - cpu_ticks(1).busy,
      ]);
    });
  });

  it("timers run in order of expiry, on the CPU that armed them; one that is deleted does not", () => {
    with_machine({ until: "kernel" }, () => {
      for (const [i, timer] of [timers.a, timers.b, timers.c].entries()) timer_setup(timer, rings, i);
      const now = jiffies();
      mod_timer(timers.a, now + 20);
      on_cpu(1, () => mod_timer(timers.b, now + 10));
      mod_timer(timers.c, now + 5);
      expect([timer_delete(timers.c), timer_delete(timers.c)]).toEqual([true, false]);
      schedule_entries(5);
      expect(noted()).toEqual([1, 1, now + 10, 0, 0, now + 20]);
    });
  });

  it("sleepers wake when they asked to", () => {
    with_tasks(sleepers, () => {
      const slept = log().flatMap((line) => /slept (\d+) (\d+)/.exec(line)?.slice(1).map(Number) ?? []);
      expect(slept).toEqual([0, 0, 10, 10, 20, 20, 30, 30]);
    });
  });

  it("load averages go up with tasks that run, and down without", () => {
    with_machine({ until: "kernel" }, () => {
      const tasks = [1, 2, 3].map((id) =>
        kthread_run(
          ksym(`t_busy${id}`, () => (kthread_should_stop() ? EXIT : RUN)),
          id,
          "t",
        ),
      );
      clock_advance(6e9);
      schedule_entries(500); // at least one tick
      const [one, five, fifteen] = get_avenrun();
      expect(one).toBeGreaterThan(five!);
      expect(five).toBeGreaterThan(fifteen!);
      expect(fifteen).toBeGreaterThan(0);
      expect(nr_running()).toBe(3);
      for (const task of tasks) kthread_stop(task);
      schedule_entries(10);
      expect(nr_running()).toBe(0);
    });
  });
});

describe("wait queues", () => {
  it("wake the longest waiter first, as many as asked for", () => {
    with_machine({ until: "kernel" }, () => {
      init_waitqueue_head(queue.head);
      const tasks = [1, 2, 3].map((id) => {
        const task = kthread_run(waiter, id, "t");
        schedule_entries(1);
        return task;
      });
      const states = (): string => tasks.map(task_state_char).join("");
      expect([states(), waitqueue_active(queue.head)]).toEqual(["SSS", true]);
      queue.ready = 1;
      expect(wake_up(queue.head, 1)).toBe(1);
      expect(states()).toBe("RSS");
      expect(wake_up(queue.head)).toBe(2);
      expect([states(), waitqueue_active(queue.head)]).toEqual(["RRR", false]);
      schedule_entries(10);
      expect(noted().sort()).toEqual([1, 2, 3]);
    });
  });
});

describe("kernel threads", () => {
  it("a step is called once an entry until it says EXIT, sleeps until woken, and is told to stop", () => {
    with_machine({ until: "kernel" }, () => {
      const task: TaskPtr = kthread_create(until_stopped, 9, "t");
      schedule_entries(5);
      expect(noted()).toEqual([]);
      wake_up_process(task);
      expect(wake_up_process(task)).toBe(false);
      schedule_entries(5);
      expect([noted(), task_state_char(task)]).toEqual([[9], "S"]);
      kthread_stop(task);
      schedule_entries(5);
      expect([noted(), tasklist.nr_threads]).toEqual([[9, 9], 0]);
    });
  });

  it("are children of kthreadd, and each CPU's current task is its idle task between entries", () => {
    with_tasks(counters, () => {
      const task = kernel_entry("host", () => kthread_create(until_stopped, 0, "t"))!;
      expect(TaskStruct.parent.get(task)).toBe(find_task_by_pid(2));
      const names = [...for_each_process()].map((each) => TaskStruct.comm.get(each));
      expect(names).toEqual(["t_counters", "kthreadd", "kswapd0", "kswapd1", "t"]);
      expect([0, 1].map((cpu) => on_cpu(cpu, current_task))).toEqual([idle_task(0), idle_task(1)]);
    });
  });
});
