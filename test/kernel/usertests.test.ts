/** The programs that try the whole system: usertests, forkbomb, memhog; what they say, and that nothing is left of them. */
import { describe, expect, it } from "vitest";
import { compare_figures, take_figures, type Figures } from "../../boot/start_kernel.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { O_APPEND, O_CREAT, O_RDWR } from "../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { do_filp_open } from "../../kernel/fs/open.ts";
import { rlimit_nproc } from "../../kernel/fork.ts";
import { schedule_until } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { spawn } from "../../kernel/program.ts";
import { SIGKILL } from "../../kernel/signal.ts";
import { Journal, TaskStruct, tasklist } from "../../kernel/task.ts";
import { events } from "../../hal/events.ts";
import { text_of } from "./fs/files.ts";
import { log, test_init, with_tasks } from "./tasks.ts";

const quiet = test_init("t_quiet_users", function* () {});

/** Runs a program to its end, and until all that it forked is gone; its status and what it wrote. */
function run(name: string, ...args: string[]): { status: number; output: string } {
  const codes = new Map<number, number>();
  const note = ({ pid, code }: { pid: number; code: number }): void => void codes.set(pid, code);
  events.on("task:exit", note);
  const tasks = tasklist.nr_threads;
  const pid = kernel_entry("host", () => {
    const out = do_filp_open("/tmp/out", O_CREAT | O_RDWR | O_APPEND, 0o644);
    const task = spawn(find_task_by_pid(1), `/bin/${name}`, args, { files: [out, out, out] });
    fput(out);
    return TaskStruct.pid.get(task);
  })!;
  expect(schedule_until(() => codes.has(pid) && tasklist.nr_threads === tasks, 1_000_000)).toBe(true);
  events.off("task:exit", note);
  const output = text_of("/tmp/out");
  do_unlinkat("/tmp/out");
  return { status: codes.get(pid)!, output };
}

/** What is in use, but for the journal of init, which tells of every child that it reaped. */
function figures(): Figures {
  const taken = take_figures();
  const journal = Journal.nr_pages.get(TaskStruct.journal.at(find_task_by_pid(1)));
  return { ...taken, free_pages: taken.free_pages + journal };
}

function expect_same(before: Figures): void {
  expect(compare_figures(before, figures())).toEqual({ pages: 0, objects: 0, locks: 0, details: [] });
}

describe("programs that try the whole system", () => {
  it("usertests pass (A117, A119, A121, A123, A125, A127, A129, A131, A135), and nothing is left of them", () => {
    with_tasks(quiet, () => {
      const before = figures();
      const { status, output } = run("usertests");
      const lines = output.trimEnd().split("\n");
      expect(lines.filter((line) => !line.startsWith("ok: "))).toEqual([`ALL ${lines.length - 1} TESTS PASSED`]);
      expect([status, lines.length - 1 >= 45]).toEqual([0, true]);
      const segfaults = log().filter((line) => /: segfault at /.test(line));
      expect(segfaults.filter((line) => / at ffff8880[0-9a-f]{8} .* error 5 /.test(line))).toHaveLength(40);
      expect(segfaults.filter((line) => / error 7 /.test(line))).toHaveLength(1); // A117: present, write, user
      expect_same(before);
    });
  });

  it("a fork bomb ends at the limit of processes, and the rest lives on", () => {
    with_tasks(quiet, () => {
      const before = figures();
      const forks = tasklist.total_forks;
      const { status, output } = run("forkbomb");
      expect(output).toMatch(/^\d+ children of the first process, then: Resource temporarily unavailable\n$/);
      expect([status, tasklist.total_forks - forks >= rlimit_nproc() - 1]).toEqual([0, true]);
      expect(run("echo", "still", "here")).toEqual({ status: 0, output: "still here\n" });
      expect_same(before);
    });
  });

  it("a hog of memory ends in the OOM killer, in a pipe too, and what waits for it goes on", () => {
    with_tasks(quiet, () => {
      const before = figures();
      expect(run("memhog")).toEqual({ status: SIGKILL, output: "" });
      expect(run("sh", "-c", "memhog | cat; echo $ && memhog 2")).toEqual({ status: 0, output: "$\n2 MiB filled\n" });
      expect(log().filter((line) => /^Out of memory: Killed process \d+ \(memhog\)/.test(line))).toHaveLength(2);
      expect_same(before);
    });
  });

  it("a fork bomb and a hog at once: each ends, and the shell that started them goes on", () => {
    with_tasks(quiet, () => {
      const before = figures();
      const { status, output } = run("sh", "-c", "forkbomb & memhog; wait; echo still here");
      expect([status, output.endsWith("still here\n")]).toEqual([0, true]);
      expect(log().some((line) => /^Out of memory: Killed process \d+ \(memhog\)/.test(line))).toBe(true);
      expect_same(before);
    });
  });
});
