/** fork, exec, exit, wait, kill: what a program sees of them. */
import { describe, expect, it } from "vitest";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { encode } from "../../kernel/journal.ts";
import { program } from "../../kernel/program.ts";
import { rlimit_nproc } from "../../kernel/fork.ts";
import { ECHILD, EINVAL, ENOENT, ENOSYS, EFAULT, ESRCH, EAGAIN } from "../../kernel/lib/errno.ts";
import { TaskStruct, for_each_process, task_ppid, task_state_char, tasklist } from "../../kernel/task.ts";
import { NR_KERNEL_STACK_KB, global_node_page_state } from "../../mm/vmstat.ts";
import { WNOHANG } from "../../kernel/exit.ts";
import { log, reports, task_named, test_init, with_tasks } from "./tasks.ts";

const fork_wait = test_init("t_fork_wait", function* (sys) {
  let value = 1;
  const child: number = yield sys.fork();
  value += child === 0 ? 10 : 100;
  if (child === 0) {
    yield sys.syslog(`child ${value}`);
    return value;
  }
  const result: { pid: number; status: number } = yield sys.wait();
  yield sys.syslog(`${result.pid === child} ${result.status >> 8} ${value}`);
  yield sys.syslog(`${yield sys.wait()}`);
});

const statuses = test_init("t_statuses", function* (sys) {
  const child: number = yield sys.fork();
  if (child === 0) yield sys.exit(300);
  yield sys.syslog(JSON.stringify(yield sys.wait(child)));
  const sleeper: number = yield sys.fork();
  if (sleeper === 0) yield sys.sleep(1_000_000);
  yield sys.syslog(`${yield sys.wait(sleeper, WNOHANG)} ${yield sys.wait(4711)} ${yield sys.wait(-1, 64)}`);
  yield sys.sleep(1);
  yield sys.syslog(`${yield sys.kill(sleeper, 0)} ${yield sys.kill(sleeper, 15)}`);
  yield sys.syslog(JSON.stringify(yield sys.wait()));
  yield sys.syslog(
    `${yield sys.kill(sleeper, 9)} ${yield sys.kill(1, 9)} ${yield sys.kill(1, 19)} ${yield sys.kill(1, 99)}`,
  );
});

const zombie = test_init("t_zombie", function* (sys) {
  if ((yield sys.fork()) === 0) yield sys.exec("t_ends");
  yield sys.sleep(3);
  yield { call: "boot_complete", args: [0] };
  yield sys.sleep(50);
  yield sys.wait();
  yield sys.sleep(1_000_000);
});
program("t_ends", function* (sys) {
  yield sys.getpid();
});

const orphan = test_init("t_orphan", function* (sys) {
  if ((yield sys.fork()) === 0) {
    if ((yield sys.fork()) === 0) {
      yield sys.sleep(5);
      yield sys.syslog(`parent is ${yield sys.getppid()}`);
      return 7;
    }
    return 3;
  }
  const first: { status: number } = yield sys.wait();
  const second: { status: number } = yield sys.wait();
  yield sys.syslog(`${first.status >> 8} ${second.status >> 8}`);
});

const fork_bomb = test_init("t_fork_bomb", function* (sys) {
  let made = 0;
  let error = 0;
  while (error === 0) {
    const pid: number = yield sys.fork();
    if (pid === 0) {
      yield sys.exec("t_ends");
      return 1;
    }
    if (pid < 0) error = pid;
    else made++;
    if (made % 8 === 0) yield sys.sleep(1); // lets them end, so that the parent's journal is the only long one
  }
  const pids = [];
  for (let i = 0; i < made; i++) pids.push((yield sys.wait()).pid);
  yield sys.syslog(`${made} ${new Set(pids).size} ${error} ${yield sys.wait()}`);
});

const exec = test_init("t_exec", function* (sys) {
  const pid: number = yield sys.fork();
  if (pid === 0) {
    yield sys.syslog(`${yield sys.exec("no-such-program")}`);
    yield sys.syslog(`${yield sys.exec("/bin/t_args")}`);
    yield sys.exec("t_args", 'é€\n"', 12, "");
    return 1;
  }
  yield sys.wait();
});
program("t_args", function* (sys, ...args: unknown[]) {
  yield sys.syslog(encode([...args, (yield sys.getpid()) > 1]));
});

const bad_calls = test_init("t_bad_calls", function* (sys) {
  const results = [];
  for (const request of [
    { call: "nope", args: [] },
    { call: "kill", args: [1] },
    { call: "kill", args: [1, 2, 3] },
    { call: "kill", args: [1, "x"] },
    { call: "kill", args: [1, NaN] },
    { call: "syslog", args: [7] },
    { call: "sleep", args: [-1] },
    { call: "exec", args: ["sleep", {} as never] },
    undefined as never,
    17 as never,
    { call: "__proto__", args: [] },
  ])
    results.push(yield request);
  yield sys.syslog(results.join(" "));
});

describe("processes", () => {
  it("fork returns twice, each with locals of its own; wait gives the child's status, then -ECHILD", () => {
    with_tasks(fork_wait, () => {
      expect(log().filter((line) => line.includes("child 11"))).toHaveLength(1);
      expect(reports()).toEqual(["true 11 101", `${-ECHILD}`]);
    });
  });

  it("a status is its low byte, and the signal that killed; signals that make no sense are refused", () => {
    with_tasks(statuses, () => {
      const [exited, none, kill, killed, late] = reports();
      expect(JSON.parse(exited!)).toMatchObject({ status: 44 << 8 });
      expect(none).toBe(`0 ${-ECHILD} ${-EINVAL}`);
      expect(kill).toBe("0 0");
      expect(JSON.parse(killed!)).toMatchObject({ status: 15 });
      expect(late).toBe(`${-ESRCH} 0 ${-EINVAL} ${-EINVAL}`);
    });
  });

  it("a task that ended stays a zombie without a stack until its parent asks", () => {
    with_tasks(zombie, () => {
      const task = task_named("t_ends")!;
      expect([task_state_char(task), TaskStruct.stack.get(task), TaskStruct.exit_code.get(task)]).toEqual(["Z", 0, 0]);
      expect(global_node_page_state(NR_KERNEL_STACK_KB)).toBe(16 * (tasklist.nr_threads - 1));
      const pid = TaskStruct.pid.get(task);
      expect(find_task_by_pid(pid)).toBe(task);
      schedule_entries(100);
      expect(find_task_by_pid(pid)).toBe(0);
    });
  });

  it("orphans become children of init, which reaps them", () => {
    with_tasks(orphan, () => {
      expect(log().some((line) => line.endsWith("parent is 1"))).toBe(true);
      expect(reports()).toEqual(["3 7"]);
      expect([...for_each_process()].map(task_ppid)).toEqual([0, 0, 2, 2]); // init, kthreadd, two kswapds
    });
  });

  it("A131: fork until it fails; each child is reaped once, one wait more fails", () => {
    with_tasks(fork_bomb, () => {
      const [made, different, error, more] = reports()[0]!.split(" ").map(Number);
      expect(made).toBe(rlimit_nproc() - 1);
      expect(made).toBeLessThan(1000);
      expect([different, error, more]).toEqual([made, -EAGAIN, -ECHILD]);
      expect(tasklist.nr_threads).toBe(4); // init, kthreadd, two kswapds
    });
  });

  it("exec starts another program with its arguments, or returns an error", () => {
    with_tasks(exec, () => {
      expect(
        log()
          .filter((line) => line.startsWith("t_exec"))
          .map((line) => line.split(": ")[1]),
      ).toEqual([`${-ENOENT}`, `${-ENOENT}`]);
      expect(log().some((line) => line.endsWith(': ["é\\u20ac\\n\\"",12,"",true]'))).toBe(true);
    });
  });

  it("calls that do not exist and arguments of another type get an error", () => {
    with_tasks(bad_calls, () => {
      const expected = [
        -ENOSYS,
        -EINVAL,
        -EINVAL,
        -EINVAL,
        -EINVAL,
        -EFAULT,
        -EINVAL,
        -EINVAL,
        -ENOSYS,
        -ENOSYS,
        -ENOSYS,
      ];
      expect(reports()).toEqual([expected.join(" ")]);
    });
  });
});
