/**
 * `faultsweep`: runs a console command with its 1st, 2nd, 3rd … allocation failing, until it passes untouched.
 *
 *     figures ─ arm fail-nth ─ the command ─ disarm ─ undo ─ figures ─ compare
 *
 * Undo, with no allocation failing: what the console holds since then is given back, tasks that are new are killed and
 * reaped, files that are new are removed. What is then more than before is a leak. Pages are counted outside of slabs
 * (objects are counted one by one) and of the journals of programs, which grow as programs run.
 */
import { NULL } from "../../hal/addr.ts";
import { console_attach } from "../../hal/console.ts";
import { KernelPanic } from "../../kernel/lib/bug.ts";
import { pr_debug } from "../../kernel/lib/printk.ts";
import { utf8_encode } from "../../kernel/fs/bytes.ts";
import { do_rmdir, do_unlinkat } from "../../kernel/fs/namei.ts";
import { vfs_stat } from "../../kernel/fs/open.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { SIGKILL, do_kill } from "../../kernel/signal.ts";
import { Journal, TaskStruct, for_each_process } from "../../kernel/task.ts";
import { validate_mm } from "../../mm/validate.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { plural } from "../figures/names.ts";
import { list_directory } from "../host_files.ts";
import { NEVER, allocation_counts, arm_strike, complaints, counts_between, type Strike } from "../faults.ts";
import type { BootStrike } from "../faultsweep_boot.ts";
import { parse_line, type Parsed } from "../parse_line.ts";
import { new_realm } from "../new_realm.ts";
import { boot_options, take_figures, type Figures } from "../start_kernel.ts";
import { quote } from "./figures.ts";
import {
  CommandError, find_command, parse_count, register, usage_error, type Context, type Holding, type Result,
} from "./registry.ts"; // prettier-ignore

const USAGE = "faultsweep [--only N | --max N | --sample N] CMD…\nfaultsweep [--only N | --max N | --sample N] boot";
/** Runs at either end of a sample. */
const SAMPLE_ENDS = 20;
/** Kernel entries within which a killed task is gone. */
const REAP_ENTRIES = 20_000;
const SHOWN_FRAMES = 4;
const SHOWN_FINDINGS = 20;

interface Request {
  readonly only?: number;
  readonly max: number;
  readonly sample?: number;
  /** What to run, as a console line; undefined: boot. */
  readonly line?: string;
}

/** What was found wrong at one N. */
interface Finding {
  readonly n: number;
  readonly what: string;
  readonly at: readonly string[];
}

/** One run, with or without a failure. */
interface Outcome {
  readonly strike: Strike;
  /** What the command said instead of an answer, or the panic that ended a boot. */
  readonly error: string | undefined;
  readonly findings: readonly string[];
}

function parse_request(command: { usage: string }, args: readonly string[]): Request {
  const numbers: Record<string, number> = {};
  let at = 0;
  for (; args[at]?.startsWith("--"); at += 2) {
    const option = args[at]!;
    if (!["--only", "--max", "--sample"].includes(option))
      throw usage_error(command, `faultsweep: no option ${option}`);
    numbers[option.slice(2)] = parse_count(`faultsweep: ${option}`, args[at + 1], 1, NEVER - 1);
  }
  const words = args.slice(at);
  if (words.length === 0 || Object.keys(numbers).length > 1) throw usage_error(command);
  const { max = Infinity, ...others } = numbers;
  if (words.length === 1 && words[0] === "boot") return { max, ...others };
  return { max, ...others, line: words.length === 1 ? words[0]! : words.map(quote).join(" ") };
}

/** The commands of a line; a CommandError if one of them cannot be swept. */
function commands_of(line: string): Parsed[] {
  const parts = parse_line(line);
  if (parts.length === 0) throw new CommandError("faultsweep: the command is empty");
  for (const { words, background } of parts) {
    const inner = words[0] === "on" ? words[2] : words[0];
    const name = find_command(inner ?? "")?.name ?? "";
    if (background) throw new CommandError("faultsweep: a command with & has no end to compare at");
    if (["faultsweep", "poweroff", "wait", "tour"].includes(name))
      throw new CommandError(`faultsweep: ${name} cannot be swept`);
  }
  return parts;
}

/** Which runs to make: all, or some of `count`, in order. */
function* numbers({ only, max, sample }: Request, count: number): Generator<number> {
  if (only !== undefined) yield only;
  else if (sample === undefined) for (let n = 1; n <= max; n++) yield n;
  else {
    const step = Math.max(1, (count - 2 * SAMPLE_ENDS) / sample);
    const chosen = new Set<number>();
    for (let n = 1; n <= Math.min(SAMPLE_ENDS, count); n++) chosen.add(n);
    for (let at = SAMPLE_ENDS + step / 2; at < count; at += step) chosen.add(Math.ceil(at));
    for (let n = Math.max(1, count - SAMPLE_ENDS + 1); n <= count + 1; n++) chosen.add(n);
    yield* chosen;
    for (let n = count + 2; ; n++) yield n; // where time passes, no two runs are quite alike
  }
}

/* What there is at one moment ---------------------------------------------------------------------------------------- */

interface Moment {
  readonly figures: Figures;
  /** Free pages, and those of slabs and journals, which are counted otherwise. */
  readonly pages: number;
  readonly held: ReadonlySet<Holding>;
  readonly pids: ReadonlySet<number>;
  /** Each file and folder outside of /proc, /sys and the read-only /usr: its inode, and its bytes if it has any of its own. */
  readonly files: ReadonlyMap<string, string>;
}

function walk_files(folder: string, found: Map<string, string>): Map<string, string> {
  for (const { name, is_directory } of list_directory(folder === "" ? "/" : folder, "faultsweep")) {
    const path = `${folder}/${name}`;
    if (["/proc", "/sys", "/usr"].includes(path)) continue; // not in files, or read-only
    const stat = vfs_stat(utf8_encode(path), false);
    if (typeof stat === "number") continue; // gone
    found.set(path, `${stat.ino}${is_directory ? "" : `, ${plural(stat.size, "byte")}`}`);
    if (is_directory) walk_files(path, found);
  }
  return found;
}

function pages_apart(): number {
  let pages = global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);
  for (const task of for_each_process()) pages += Journal.nr_pages.get(TaskStruct.journal.at(task));
  return pages;
}

const pids_now = (): number[] => [...for_each_process()].map((task) => TaskStruct.pid.get(task));

function take_moment(ctx: Context): Moment {
  return ctx.entry(() => {
    const files = walk_files("", new Map());
    const figures = take_figures();
    const pages = figures.free_pages + pages_apart();
    return { figures, pages, held: new Set(ctx.held.list()), pids: new Set(pids_now()), files };
  });
}

/* One run ------------------------------------------------------------------------------------------------------------ */

/** Runs the commands one after the other, as the console does; what the last one that failed said. */
async function run_commands(
  ctx: Context,
  parts: readonly Parsed[],
  each = (): void => {},
): Promise<string | undefined> {
  let said: string | undefined;
  for (const { text } of parts) {
    try {
      await ctx.run_line(text, { cpu: ctx.cpu });
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      said = error.message;
    }
    each();
  }
  return said;
}

/** Takes back what the commands did, as far as it can be taken back; what cannot be. */
async function undo(ctx: Context, before: Moment): Promise<string[]> {
  const stuck: string[] = [];
  ctx.entry(() => {
    for (const holding of ctx.held.list().reverse())
      if (!before.held.has(holding)) {
        ctx.held.remove(holding.address);
        holding.release();
      }
    for (const pid of pids_now()) if (!before.pids.has(pid)) do_kill(pid, SIGKILL);
  });
  const fresh = pids_now().filter((pid) => !before.pids.has(pid));
  const alive = (): number[] => fresh.filter((pid) => find_task_by_pid(pid) !== NULL);
  for (let i = 0; i < REAP_ENTRIES && alive().length > 0; i++) await ctx.control.run_entries(1);
  if (alive().length > 0) stuck.push(`${plural(alive().length, "task")} cannot be ended`);
  ctx.entry(() => {
    const files = [...walk_files("", new Map()).keys()].filter((path) => !before.files.has(path));
    for (const path of files.reverse()) {
      const name = utf8_encode(path);
      if (do_unlinkat(name) !== 0 && do_rmdir(name) !== 0) stuck.push(`${path} cannot be removed`);
    }
  });
  return stuck;
}

/** What is more or less than before, a line each. */
function differences(before: Moment, after: Moment): string[] {
  const objects = new Map(after.figures.objects);
  for (const [cache, count] of before.figures.objects) objects.set(cache, (objects.get(cache) ?? 0) - count);
  const say = (count: number, what: string): string[] =>
    count === 0 ? [] : [`${plural(Math.abs(count), what)} ${count > 0 ? "left over" : "too few"}`];
  return [
    ...[...objects].flatMap(([cache, more]) => say(more, "object").map((text) => `${cache}: ${text}`)),
    ...say(before.pages - after.pages, "page"),
    ...say(after.figures.locks - before.figures.locks, "lock"),
  ];
}

/** The first thing that was there before and is not as it was: such a command cannot be run again and again. */
function spoiled(before: Moment, after: Moment): string | undefined {
  for (const [path, was] of before.files) if (after.files.get(path) !== was) return path;
  for (const holding of before.held) if (!after.held.has(holding)) return `what the console holds (${holding.name})`;
  return undefined;
}

/** Runs the commands with the nth allocation failing, and says what came of it. */
async function run_once(
  ctx: Context,
  parts: readonly Parsed[],
  line: string,
  n: number,
  before: Moment,
): Promise<Outcome> {
  const mark = `faultsweep: N ${n} of ${line}`;
  const disarm = ctx.entry(() => {
    pr_debug(mark);
    return arm_strike(n);
  });
  let strike: Strike | undefined;
  try {
    const error = await run_commands(ctx, parts);
    strike = ctx.entry(disarm);
    const findings = await undo(ctx, before);
    const after = take_moment(ctx);
    findings.push(...differences(before, after), ...ctx.entry(validate_mm), ...complaints(mark));
    if (error !== undefined && /internal error|oopsed/.test(error)) findings.push(error);
    const changed = spoiled(before, after);
    if (changed !== undefined) findings.push(`${changed} is not as before`);
    return { strike, error, findings };
  } catch (error) {
    const { at } = strike ?? disarm();
    const says = `${(error as Error).message} (faultsweep: N ${n} of ${line}, asked for by ${at[0] ?? "nobody"})`;
    throw error instanceof KernelPanic ? new KernelPanic(says) : new CommandError(says);
  }
}

/* The sweep ---------------------------------------------------------------------------------------------------------- */

/** What a sweep runs again and again: the commands at this console, or a boot. */
interface Subject {
  readonly name: string;
  /** How often an allocation asks whether it may, without a failure; and what the counters say of that run. */
  count(): Promise<{ asked: number; objects: number; pages: number }>;
  run(n: number): Promise<Outcome>;
  end(): void;
}

function command_subject(ctx: Context, line: string): Subject {
  const parts = commands_of(line);
  return {
    name: line,
    async count() {
      const before = take_moment(ctx);
      const counted = { objects: 0, pages: 0 };
      let from = ctx.entry(allocation_counts);
      const count = (): void => {
        const to = ctx.entry(allocation_counts);
        const { objects, pages } = counts_between(from, to);
        counted.objects += objects;
        counted.pages += pages;
        from = to;
      };
      const disarm = ctx.entry(() => arm_strike(NEVER));
      const error = await run_commands(ctx, parts, count).catch((thrown: unknown) => {
        disarm();
        throw thrown;
      });
      const { asked } = ctx.entry(disarm);
      await undo(ctx, before);
      const changed = spoiled(before, take_moment(ctx));
      if (error !== undefined) throw new CommandError(`faultsweep: it fails by itself: ${error}`);
      if (changed !== undefined)
        throw new CommandError(
          `faultsweep: ${line} changes ${changed}, so it cannot be run again; let it make what it changes`,
        );
      return { asked, ...counted };
    },
    async run(n) {
      return run_once(ctx, parts, line, n, take_moment(ctx));
    },
    end() {},
  };
}

function boot_subject(): Subject {
  const { machine, seed, append } = boot_options();
  const worker = new_realm("faultsweep_boot", "plain", { faultsweep: { machine, seed, append } });
  const boot_once = (n: number): Promise<BootStrike> =>
    new Promise((resolve, reject) => {
      worker.removeAllListeners().once("message", resolve).once("error", reject).postMessage(n);
    });
  return {
    name: "boot",
    async count() {
      const { asked, counts, panic, findings } = await boot_once(NEVER);
      if (!counts) throw new CommandError(`faultsweep: it fails by itself: ${panic ?? findings[0]}`);
      return { asked, ...counts };
    },
    async run(n) {
      const strike = await boot_once(n);
      return { strike, error: strike.panic, findings: strike.findings };
    },
    end: () => void worker.terminate(),
  };
}

interface Tally {
  /** Runs in which an allocation failed; those of them that went on without it; what the others said, and how often. */
  runs: number;
  survived: number;
  readonly errors: Map<string, number>;
  readonly findings: Finding[];
  /** The run that passed untouched. */
  untouched?: number;
  last: number;
}

async function sweep(ctx: Context, request: Request, subject: Subject, asked: number): Promise<Tally> {
  const tally: Tally = { runs: 0, survived: 0, errors: new Map(), findings: [], last: 0 };
  for (const n of numbers(request, asked)) {
    if (ctx.cancelled) break;
    ctx.progress(`faultsweep: N ${n} of about ${asked}, ${plural(tally.findings.length, "finding")}`);
    const { strike, error, findings } = await subject.run(n);
    tally.last = n;
    for (const what of findings) tally.findings.push({ n, what, at: strike.at });
    if (!strike.touched) {
      tally.untouched = n;
      break;
    }
    tally.runs++;
    if (error === undefined) tally.survived++;
    else tally.errors.set(error, (tally.errors.get(error) ?? 0) + 1);
    await ctx.pause();
  }
  return tally;
}

/** What the runs said, alike but for numbers and names in one line. */
function* said_lines(errors: ReadonlyMap<string, number>): Generator<string> {
  const groups = new Map<string, { first: string; kinds: number; count: number }>();
  for (const [error, count] of errors) {
    const key = error.replace(/'[^']*'|"[^"]*"|\d+/g, "#");
    const group = groups.get(key) ?? { first: error, kinds: 0, count: 0 };
    groups.set(key, { ...group, kinds: group.kinds + 1, count: group.count + count });
  }
  for (const { first, kinds, count } of groups.values())
    yield `${String(count).padStart(6)} x ${first}${kinds > 1 ? " … and the like" : ""}`;
}

function describe(
  name: string,
  { asked, objects, pages }: Awaited<ReturnType<Subject["count"]>>,
  tally: Tally,
): string {
  const { runs, survived, untouched, last, findings } = tally;
  const lines = [
    `${name}:`,
    `  ${plural(objects, "object")} and ${plural(pages, "page")} by the counters, in ${plural(asked, "call")} that can fail`,
    `  ${plural(runs, "run")} in which one did: ${runs - survived} ended with an error, ${survived} went on`,
    ...said_lines(tally.errors),
    untouched === undefined ? `  stopped after N ${last}` : `  N ${untouched} passed untouched`,
  ];
  for (const { n, what, at } of findings.slice(0, SHOWN_FINDINGS)) {
    lines.push(`  N ${n}: ${what}`);
    at.slice(0, SHOWN_FRAMES).forEach((frame, i) => lines.push(`    ${i === 0 ? "failed:" : "       "} ${frame}`));
    lines.push(`    again:  faultsweep --only ${n} ${/[;>"]/.test(name) ? `'${name}'` : name}`);
  }
  if (findings.length > SHOWN_FINDINGS) lines.push(`  … and ${findings.length - SHOWN_FINDINGS} more; --json has all`);
  lines.push(`  ${plural(findings.length, "finding")}`);
  return lines.join("\n");
}

async function faultsweep(ctx: Context, request: Request): Promise<Result> {
  await Promise.resolve(); // a step of its own: the command's entry has ended
  const subject = request.line === undefined ? boot_subject() : command_subject(ctx, request.line);
  const sink = request.only === undefined ? console_attach(() => {}) : undefined;
  try {
    const counts = await subject.count();
    const tally = await sweep(ctx, request, subject, counts.asked);
    const { errors, untouched, findings, runs, survived } = tally;
    const command = subject.name;
    return {
      text: describe(command, counts, tally),
      json: {
        command,
        ...counts,
        runs,
        survived,
        errors: Object.fromEntries(errors),
        untouched: untouched ?? null,
        findings,
      },
      failed: findings.length > 0,
    };
  } finally {
    subject.end();
    if (sink) console_attach(sink);
  }
}

register({
  name: "faultsweep",
  group: "heap",
  usage: USAGE,
  summary: "runs a command with each of its allocations failing in turn",
  man: `The 1st allocation of CMD (an object or a block of pages) is made to fail, then the 2nd, and so on until CMD passes
untouched. After each run what CMD made is undone (what the console holds is given back, new tasks are killed, new files
removed), and free pages, live objects, locks and files must be as before, and all of memory valid. A finding names what is
left over, N, who asked for the allocation that failed, and the command that does it again. CMD may be several commands
in quotes. \`boot\` boots fresh machines like this one: one may stop in a panic that says what it could not have (the boot
parameter fail_nth=N boots with that failure).

  --only N     that run alone, with what the kernel says
  --max N      ends after run N
  --sample N   runs 1 to ${SAMPLE_ENDS}, the last ${SAMPLE_ENDS}, and N between

Programs that go on by themselves make files and tasks while time passes: kill crond, syslogd and getty before sweeping
\`sleep\` or \`run\`. Allocations of a cache that CMD destroys are not in the counters.

  faultsweep fork 3
  faultsweep "mkdir /tmp/d; echo hello > /tmp/d/f; rm -r /tmp/d"
  faultsweep --sample 50 boot`,
  complete: "command",
  run(ctx, args) {
    return faultsweep(ctx, parse_request(this, args));
  },
});
