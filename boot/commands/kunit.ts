/** `kunit`: runs the kernel's test suites and prints KTAP. */
import { KunitAbort, KunitSuite, for_each_suite, suite_cases, type Kunit, type KunitCase } from "../../kernel/kunit.ts";
import { kernel_frames } from "../../kernel/lib/dump_stack.ts";
import { set_running } from "../../kernel/lib/owner.ts";
import { kfree } from "../../mm/kmalloc.ts";
import { CommandError, register, usage_error, type Context, type Result } from "./registry.ts";

interface Outcome {
  readonly name: string;
  readonly status: "pass" | "fail" | "skip";
  readonly lines: string[];
}

/** Runs one case as a kernel entry; an exception out of it is a failure, not an oops. */
function run_case(ctx: Context, name: string, run: KunitCase): Outcome {
  const test: Kunit = { failures: [], resources: [] };
  ctx.entry(() => {
    try {
      run(test);
    } catch (error) {
      set_running(0);
      if (!(error instanceof KunitAbort)) test.failures.push(thrown(error));
    }
    for (const object of test.resources.reverse()) kfree(object);
  });
  const lines = test.failures.flatMap((text) => `${name}: ${text}`.split("\n")).map((line) => `# ${line}`);
  return { name, status: test.failures.length > 0 ? "fail" : test.skipped === undefined ? "pass" : "skip", lines };
}

function thrown(error: unknown): string {
  const at = kernel_frames(error)[0];
  return `threw ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}${at ? ` in ${at}` : ""}`;
}

const result_line = (ok: boolean, number: number, name: string, skip: boolean): string =>
  `${ok ? "ok" : "not ok"} ${number} ${name}${skip ? " # SKIP" : ""}`;
const indented = (lines: readonly string[]): string[] => lines.map((line) => `    ${line}`);
const count = (outcomes: readonly Outcome[]) => {
  const of = (status: string): number => outcomes.filter((one) => one.status === status).length;
  return { pass: of("pass"), fail: of("fail"), skip: of("skip"), total: outcomes.length };
};

/** A case with its parameters, as lines of KTAP; and what each run of it came to. */
function run_cases(ctx: Context, cases: ReturnType<typeof suite_cases>): { lines: string[]; outcomes: Outcome[] } {
  const names = Object.keys(cases);
  const lines = [`1..${names.length}`];
  const outcomes: Outcome[] = [];
  for (const [i, name] of names.entries()) {
    const one = cases[name]!;
    const runs =
      typeof one === "function"
        ? [run_case(ctx, name, one)]
        : one.params.map((param, n) => run_case(ctx, `${name}.${n}`, (test) => one.run(test, param)));
    if (typeof one === "function") lines.push(...runs[0]!.lines);
    else {
      const inner = runs.flatMap((run, n) => [...run.lines, result_line(run.status !== "fail", n + 1, String(one.params[n]), run.status === "skip")]); // prettier-ignore
      lines.push(...indented(["KTAP version 1", `# Subtest: ${name}`, `1..${runs.length}`, ...inner]));
    }
    outcomes.push(...runs);
    const skipped = runs.length > 0 && runs.every((run) => run.status === "skip");
    lines.push(
      result_line(
        runs.every((run) => run.status !== "fail"),
        i + 1,
        name,
        skipped,
      ),
    );
  }
  return { lines, outcomes };
}

register({
  name: "kunit",
  group: "system",
  usage: "kunit [SUITE]",
  summary: "runs the test suites that modules brought, and prints KTAP",
  man: `A suite is what kunit_test_suite (kheap/linux/kunit) makes known; examples/ring_kunit.ts has one. Each case is a
kernel entry of its own. The command fails if a case does.

  modprobe ring_kunit; kunit`,
  complete: () => [...for_each_suite()].map((suite) => KunitSuite.name.get(suite)),
  async run(ctx, [wanted, ...more]): Promise<Result> {
    if (more.length > 0) throw usage_error(this);
    const suites = [...for_each_suite()].filter(
      (suite) => wanted === undefined || KunitSuite.name.get(suite) === wanted,
    );
    if (suites.length === 0)
      throw new CommandError(wanted === undefined ? "kunit: no suite is loaded; modprobe ring_kunit brings one" : `kunit: there is no suite ${wanted}`); // prettier-ignore
    await Promise.resolve(); // each case is a kernel entry
    const lines = ["KTAP version 1", `1..${suites.length}`];
    const json: unknown[] = [];
    for (const [i, suite] of suites.entries()) {
      const [name, cases] = ctx.entry(() => [KunitSuite.name.get(suite), suite_cases(suite)] as const);
      const { lines: inner, outcomes } = run_cases(ctx, cases);
      const { pass, fail, skip, total } = count(outcomes);
      lines.push(...indented(["KTAP version 1", `# Subtest: ${name}`, ...inner]));
      lines.push(
        `# ${name}: pass:${pass} fail:${fail} skip:${skip} total:${total}`,
        result_line(fail === 0, i + 1, name, false),
      );
      json.push({ suite: name, pass, fail, skip, total, cases: outcomes });
      await ctx.pause();
    }
    return { text: lines.join("\n"), json, failed: lines.some((line) => line.startsWith("not ok")) };
  },
});
