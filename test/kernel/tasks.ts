/**
 * What the tests of tasks share: a machine whose init is a program of the test, and what that program reported.
 *
 *     const twice = test_init("fork_twice", function* (sys) { …; yield sys.syslog("text"); });
 *     with_tasks(twice, () => expect(reports()).toEqual(["text"]));
 *
 * The body runs while the machine boots. Then init says that boot is complete, and reaps children from then on.
 */
import { printk_records } from "../../kernel/lib/printk.ts";
import { program, type ProgramFn } from "../../kernel/program.ts";
import { for_each_process, TaskStruct, type TaskPtr } from "../../kernel/task.ts";
import { with_machine, type TestMachine } from "../lib/machine.ts";

/** Registers a program to be run as pid 1. Call it at module level. */
export function test_init(name: string, body: ProgramFn): string {
  program(name, function* (sys, ...args) {
    const status = yield* body(sys, ...args);
    if ((yield sys.getpid()) !== 1) return status; // a child that came out of the body
    yield { call: "boot_complete", args: [0] };
    for (;;) if (typeof (yield sys.wait()) === "number") yield sys.sleep(1000);
  });
  return name;
}

/** Boots a machine with `init`, runs `fn`, powers off; fails if anything is left over. */
export function with_tasks<T>(init: string, fn: () => T, options: TestMachine = {}): T {
  return with_machine({ ...options, until: "init", append: `init=${init} ${options.append ?? ""}` }, fn);
}

/** The kernel's log. */
export function log(): string[] {
  return [...printk_records()].map((record) => record.text);
}

/** What the init program wrote with syslog. */
export function reports(): string[] {
  return log().flatMap((line) => /^[^[]*\[1\]: (.*)/.exec(line)?.[1] ?? []);
}

/** The first task of a name. */
export function task_named(comm: string): TaskPtr | undefined {
  return [...for_each_process()].find((task) => TaskStruct.comm.get(task) === comm);
}
