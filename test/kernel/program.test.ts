/** Programs and their journals. */
import { describe, expect, it } from "vitest";
import { hash_text } from "../../hal/struct.ts";
import { JOURNAL_LIMIT_PAGES, encode, journal_last, journal_records } from "../../kernel/journal.ts";
import { schedule_entries, schedule_until } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { forget_programs, program } from "../../kernel/program.ts";
import { SIGABRT, SIGXCPU } from "../../kernel/signal.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { Journal, TaskStruct, for_each_child, task_state_char } from "../../kernel/task.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

/** Starts `name` as a child and reports its status. */
const runs = (name: string) =>
  test_init(`t_runs_${name}`, function* (sys) {
    if ((yield sys.fork()) === 0) {
      yield sys.exec(name);
      return 1;
    }
    const { status }: { status: number } = yield sys.wait();
    yield sys.syslog(`${status}`);
  });

const outside = { calls: 0 };
program("t_captures", function* (sys) {
  yield sys.getpid();
  outside.calls++;
  yield sys.syslog(`call ${outside.calls}`);
  yield sys.fork();
});
const captures = runs("t_captures");

program("t_ends_early", function* (sys) {
  if (outside.calls++ % 2 === 0) yield sys.getpid();
  yield sys.fork();
});
const ends_early = runs("t_ends_early");

program("t_talks", function* (sys) {
  yield sys.syslog("x".repeat(1 << 20));
});
const talks = runs("t_talks");
register_syscall("t_text", "", () => "x".repeat(10_000));
program("t_listens", function* () {
  for (;;) yield { call: "t_text", args: [] };
});
const listens = runs("t_listens");
program("t_throws", function* (sys) {
  yield sys.getpid();
  throw new TypeError("a mistake");
});
const throws = runs("t_throws");
program("t_no_json", function* () {
  yield { call: "sleep", args: [10n as never] };
});
const no_json = runs("t_no_json");
program("t_no_status", function* () {
  return Symbol("x") as never;
});
const no_status = runs("t_no_status");

program("t_long", function* (sys) {
  let sum = 0;
  for (let i = 0; i < 2000; i++) sum = (sum * 31 + (yield sys.getrandom())) % 1_000_003;
  yield sys.syslog(`sum ${sum}`);
  yield sys.sleep(100_000);
  yield sys.syslog(`then ${sum}`);
});
const long = test_init("t_starts_long", function* (sys) {
  if ((yield sys.fork()) === 0) yield sys.exec("t_long");
  yield sys.sleep(50);
});

const waits = test_init("t_waits", function* (sys) {
  if ((yield sys.fork()) === 0) yield sys.sleep(5000);
});

describe("programs", () => {
  it("a program that asks something else when it is run again is killed, with the step", () => {
    for (const [init, name] of [
      [captures, "t_captures"],
      [ends_early, "t_ends_early"],
    ])
      with_tasks(init!, () => {
        expect(log().some((line) => line.startsWith(`program ${name} is not deterministic at step `))).toBe(true);
        expect(reports()).toEqual(["0"]); // the one that was not copied goes on
      });
  });

  it("a journal that would outgrow its limit ends the program with SIGXCPU, by what it asks or by what it is told", () => {
    for (const init of [talks, listens]) with_tasks(init, () => expect(reports()).toEqual([`${SIGXCPU}`]));
    expect(JOURNAL_LIMIT_PAGES * 4096).toBe(1 << 20);
  });

  it("what a program throws, and what it yields that is no request, ends it and nothing else", () => {
    for (const init of [throws, no_json, no_status])
      with_tasks(init, () => {
        expect(reports()).toEqual([`${SIGABRT}`]);
        expect(
          log().filter((line) => /^t_(throws|no_json|no_status)\[\d+\]: uncaught TypeError: /.test(line)),
        ).toHaveLength(1);
      });
  });

  it("the generators can be lost at any moment", () => {
    const run = (lose: boolean) =>
      with_tasks(long, () => {
        for (let i = 0; i < 40; i++) {
          schedule_entries(50);
          if (lose) forget_programs();
        }
        schedule_entries(10_000);
        return log();
      });
    const lines = run(true);
    expect(lines.filter((line) => /sum|then/.test(line))).toHaveLength(2);
    expect(lines).toEqual(run(false));
  });

  it("a journal holds the arguments, each result, and the call in progress of a program that waits", () => {
    with_tasks(waits, () => {
      const [child] = [...for_each_child(find_task_by_pid(1))];
      expect(schedule_until(() => task_state_char(child!) === "S", 100)).toBe(true);
      const journal = TaskStruct.journal.at(child!);
      const records = journal_records(journal);
      expect(records).toEqual([
        { request_hash: hash_text("t_waits"), value: [] },
        { request_hash: hash_text(encode(["fork"])), value: 0 },
      ]);
      expect(journal_last(journal)).toEqual(records[1]);
      expect(Journal.pending.get(journal)).toBe(8 + 16); // ["sleep",5000]
      expect(Journal.nr_pages.get(journal)).toBe(1);
    });
  });
});
