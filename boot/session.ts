/**
 * One session of the console with the machine that was booted: runs lines, prints answers, lets the machine run.
 *
 *     line ─ parse ─ each command: run in a kernel entry ─ print ─ turn ─ next
 *
 * A turn is 10 ms of the machine's own time and a fixed number of steps of each background job, whatever the host's
 * clock says; while the console waits for a line the machine stands still. So the same lines give the same run.
 */
import { NULL, type CpuId } from "../hal/addr.ts";
import { NSEC_PER_SEC, local_clock } from "../hal/clock.ts";
import { cpu_switch, nr_cpu_ids, smp_processor_id } from "../hal/cpu.ts";
import { kernel_entry } from "../kernel/entry.ts";
import { utf8_encode } from "../kernel/fs/bytes.ts";
import { vfs_stat } from "../kernel/fs/open.ts";
import { BIN } from "../kernel/programs/bin.ts";
import { KernelPanic } from "../kernel/lib/bug.ts";
import { schedule_entries } from "../kernel/lockstep.ts";
import { exchange_mempolicy, type TaskMempolicyPtr } from "../mm/mempolicy.ts";
import { schedule_for } from "./machine_time.ts";
import {
  CommandError, command_names, find_command, nearest, type Command, type Context, type Control, type Redirection, type Result,
} from "./commands/registry.ts"; // prettier-ignore
import { run_as_command } from "./commands/files.ts";
import "./commands/tour.ts";
import "./commands/figures.ts";
import "./commands/memory.ts";
import "./commands/heap.ts";
import "./commands/replay.ts";
import "./commands/compare.ts";
import "./commands/faultsweep.ts";
import "./commands/tasks.ts";
import "./commands/system.ts";
import "./commands/export.ts";
import "./commands/lkdtm.ts";
import "./commands/kunit.ts";
import "./commands/modules.ts";
import "./commands/pt.ts";
import "./commands/vmalloc.ts";
import "./commands/slabinfo.ts";
import "./commands/tools.ts";
import "./commands/numactl.ts";
import "./commands/perf.ts";
import { create_held, describe_held, release_held } from "./held.ts";
import { write_file } from "./host_files.ts";
import { create_jobs, type JobHandle } from "./jobs.ts";
import { parse_line, type Parsed } from "./parse_line.ts";
import { power_off } from "./start_kernel.ts";
import { run_watch, take_watch, type WatchHost } from "./watch.ts";

/** Nanoseconds of the machine's time, and steps of each job, between two commands. */
const TURN_NSEC = 10_000_000;
const TURN_STEPS = 2;
/** Steps of each job between two answers of `--watch`. */
const WATCH_STEPS = 8;
/** The machine's time, and kernel entries, that pass without a look at the host. */
const SLICE_NSEC = NSEC_PER_SEC;
const SLICE_ENTRIES = 1024;
/** Host milliseconds after which a long command lets the event loop turn. */
const SLICE_MS = 20;
/** Host milliseconds after which a command may show its progress, and between two such lines. */
const PROGRESS_AFTER_MS = 2000;
const PROGRESS_EVERY_MS = 200;

/** The host's side: where text goes, and who is there to read it. */
export interface Host {
  readonly terminal: boolean;
  readonly json: boolean;
  width(): number;
  height(): number;
  write(text: string): void;
  write_error(text: string): void;
  /** Writes how far a command is, which will be written over; absent where nobody looks. */
  write_status?(text: string): void;
  ask(prompt: string): Promise<string | undefined>;
  /** A `--watch` begins or ends: q is a key then. */
  watching(on: boolean): void;
}

export interface Session {
  /** Runs all commands of a line and prints what they answer; false if one failed. Throws KernelPanic only. */
  run(line: string): Promise<boolean>;
  /** Gives everything back, powers off and prints what is left over, unless that was done. */
  leave(): Promise<void>;
  /** Ctrl-C: asks the command under way to end; false if there is none. */
  cancel(): boolean;
  /** Runs `fn` as a kernel entry on CPU 0. */
  entry<T>(fn: () => T): T;
  /** True once a command failed. */
  failed(): boolean;
  /** True after power-off. */
  ended(): boolean;
}

/** What one command has while it runs. */
interface Run {
  readonly cpu: CpuId;
  /** What entries of the command run under: see exchange_mempolicy. NULL: nothing. */
  readonly mempolicy: TaskMempolicyPtr;
  readonly json: boolean;
  readonly job: JobHandle | undefined;
  readonly started: number;
}

/** Opens a session with the machine that was booted in this realm. */
export function create_session(host: Host): Session {
  const held = create_held();
  const jobs = create_jobs();
  const state = { in_entry: false, busy: false, cancelled: false, failed: false, ended: false };
  const shown = { progress: false, at: 0, watching: false };
  const kept_back: string[] = [];
  let last_breath = 0;
  let panic: KernelPanic | undefined;

  function entry<T>(cpu: CpuId, fn: () => T, mempolicy: TaskMempolicyPtr = NULL): T {
    if (state.in_entry) return fn();
    const before = smp_processor_id();
    let outcome: { value: T } | { refused: CommandError } | undefined;
    state.in_entry = true;
    cpu_switch(cpu);
    try {
      kernel_entry("host", () => {
        if (mempolicy !== NULL) exchange_mempolicy(mempolicy);
        try {
          outcome = { value: fn() };
        } catch (error) {
          if (!(error instanceof CommandError)) throw error;
          outcome = { refused: error };
        } finally {
          if (mempolicy !== NULL) exchange_mempolicy(mempolicy);
        }
      });
    } finally {
      state.in_entry = false;
      cpu_switch(before);
    }
    if (!outcome) throw new CommandError("the kernel oopsed in this command; dmesg has the report");
    if ("refused" in outcome) throw outcome.refused;
    return outcome.value;
  }

  function write(text: string): void {
    if (shown.progress) host.write_status!("\r\x1b[K");
    shown.progress = false;
    host.write(text);
  }

  /** What a job says while a figure is redrawn in place comes after it. */
  function write_for(job: JobHandle | undefined, text: string): void {
    if (job && shown.watching) kept_back.push(text);
    else write(text);
  }

  function set_watching(on: boolean): void {
    shown.watching = on && host.terminal;
    host.watching(on);
    if (!on) for (const text of kept_back.splice(0)) write(text);
  }

  /** Lets the event loop turn if a slice is over: signals and keys arrive there. */
  async function breathe(): Promise<void> {
    if (Date.now() - last_breath < SLICE_MS) return;
    await new Promise((resolve) => setImmediate(resolve));
    last_breath = Date.now();
  }

  async function turn(nsec = TURN_NSEC, steps = TURN_STEPS): Promise<void> {
    if (state.ended) return;
    await let_pass(nsec);
    await jobs.advance(steps);
    if (panic) throw panic;
    await breathe();
  }

  async function let_pass(nsec: number): Promise<void> {
    for (let left = nsec; left > 0 && !state.cancelled; left -= SLICE_NSEC) {
      schedule_for(Math.min(left, SLICE_NSEC));
      await breathe();
    }
  }

  const cancelled = (run: Run): boolean => run.job?.cancelled ?? state.cancelled;
  const pause = (run: Run): Promise<void> => run.job?.pause() ?? breathe();

  const control_of = (run: Run): Control => ({
    jobs: jobs.list,
    async kill_job(id) {
      refuse_job(run);
      return jobs.kill(id);
    },
    async wait_jobs(id) {
      refuse_job(run);
      const waits = (): boolean => jobs.list().some((job) => id === undefined || job.id === id);
      while (waits() && !state.cancelled) await turn();
    },
    async run_entries(count) {
      await Promise.resolve(); // a step of its own: the command's entry has ended
      let done = 0;
      for (let more = true; more && done < count && !cancelled(run); await pause(run)) {
        const slice = Math.min(count - done, SLICE_ENTRIES);
        const ran = schedule_entries(slice);
        done += ran;
        more = ran === slice;
      }
      return done;
    },
    async run_until(done, limit) {
      await Promise.resolve();
      let ran = 0;
      while (ran < limit && !done() && schedule_entries(1) === 1) ran++;
      await pause(run);
      return ran;
    },
    async run_for(seconds) {
      await Promise.resolve();
      const end = local_clock() + seconds * NSEC_PER_SEC;
      if (!run.job) return let_pass(end - local_clock());
      while (local_clock() < end && !run.job.cancelled) await run.job.pause();
    },
    async power_off() {
      refuse_job(run);
      return shut_down();
    },
  });

  function context(run: Run, redirection: Redirection = {}): Context {
    return {
      control: control_of(run),
      redirection,
      held,
      cpu: run.cpu,
      json: run.json,
      terminal: host.terminal && run.job === undefined,
      get width() {
        return host.width();
      },
      get cancelled() {
        return cancelled(run);
      },
      async run_line(line, options = {}) {
        await Promise.resolve(); // a step of its own: the outer command's entry has ended
        const parsed = parse_line(line);
        if (parsed.length !== 1 || parsed[0]!.background)
          throw new CommandError(`${line}: one command is allowed here`);
        const cpu = options.cpu ?? run.cpu;
        if (cpu >= nr_cpu_ids()) throw new CommandError(`no CPU ${cpu}; there are 0 to ${nr_cpu_ids() - 1}`);
        return execute(parsed[0]!, { ...run, cpu, mempolicy: options.mempolicy ?? run.mempolicy });
      },
      entry: (fn) => entry(run.cpu, fn, run.mempolicy),
      pause: () => pause(run),
      progress(text) {
        const now = Date.now();
        if (!host.write_status || run.job || run.json || now - run.started < PROGRESS_AFTER_MS) return;
        if (now - shown.at < PROGRESS_EVERY_MS) return;
        shown.at = now;
        host.write_status(`\r${text.slice(0, host.width() - 1)}\x1b[K`);
        shown.progress = true;
      },
      print: (text) => void (run.json || write_for(run.job, `${text}\n`)),
      warn: (text) => {
        write("");
        host.write_error(`${text}\n`);
      },
      ask: (prompt) => (run.job ? Promise.resolve(undefined) : host.ask(prompt)),
    };
  }

  /** A command, or a program: a path, or a name in /bin. */
  function lookup(name: string): Command {
    const command = find_command(name) ?? program_command(name);
    if (command) return command;
    const near = nearest(name, command_names());
    if (/[^|]\|[^|]/.test(name)) throw new CommandError(`no command "${name}"; a pipe is a | with a blank beside it`);
    throw new CommandError(`no command "${name}"; ${near ? `did you mean "${near}"? ` : ""}help lists all`);
  }

  function program_command(name: string): Command | undefined {
    const path = name.includes("/") ? name : `/bin/${name}`;
    if (typeof entry(0, () => vfs_stat(utf8_encode(path), true)) === "number") return undefined;
    const run: Command["run"] = (ctx, args) => run_as_command(ctx, path, args, "line");
    return { name, group: "tasks", usage: name, summary: "", man: "", program: true, reads: true, raw: true, run };
  }

  /** Runs one command and returns its answer, or the last of a watch, which has printed the others. */
  async function execute(parsed: Parsed, given: Run): Promise<Result> {
    const [name, ...words] = parsed.words;
    if (parsed.pipe) return run_pipeline(parsed, parsed.pipe, given);
    const command = lookup(name!);
    const asked = !command.raw && words.includes("--json");
    const run = { ...given, json: given.json || asked };
    const plain = command.raw ? words : words.filter((word) => word !== "--json");
    const { args, watch } = command.raw ? { args: plain, watch: undefined } : take_watch(plain);
    if (watch && !command.reads) throw new CommandError(`${command.name}: --watch is for commands that only read`);
    if (parsed.from !== undefined && !command.program)
      throw new CommandError(`${command.name} is the console's own and reads no file; < is for programs`);
    const redirection = command.program ? { from: parsed.from, to: parsed.to } : {};
    const ctx = context({ ...run, json: parsed.to ? asked : run.json }, redirection);
    const read = async (): Promise<Result> => entry(run.cpu, () => command.run(ctx, args), run.mempolicy);
    try {
      if (watch) {
        if (!run.job) set_watching(true);
        await run_watch(watch_host(run), parsed.text, watch, read).finally(() => run.job ?? set_watching(false));
        return NOTHING;
      }
      const result = await read();
      if (!parsed.to || command.program) return result;
      const body = asked ? JSON.stringify(result.json) : result.text;
      entry(0, () => write_file(parsed.to!.path, body === "" ? "" : `${body}\n`, parsed.to!.append));
      return { text: "", json: null, failed: result.failed ?? false };
    } catch (error) {
      if (error instanceof CommandError || error instanceof KernelPanic) throw error;
      throw new CommandError(
        `${command.name}: internal error: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }

  /** Lets sh run a pipeline; of the console's own commands one may stand first, and its answer is what sh reads. */
  async function run_pipeline(parsed: Parsed, { names, rest }: Parsed["pipe"] & object, run: Run): Promise<Result> {
    const own = names.map((name) => !Object.hasOwn(BIN, name) && !lookup(name).program);
    if (own.lastIndexOf(true) > 0 || (own[0] && rest === ""))
      throw new CommandError(
        `${names[own.lastIndexOf(true)]!} is the console's own and can only stand before the first |`,
      );
    if (!own[0]) return run_as_command(context(run), "/bin/sh", ["-c", parsed.text], "line");
    const [first, ...others] = parse_line(parsed.text.slice(0, parsed.text.length - rest.length).replace(/\|\s*$/, ""));
    if (others.length > 0 || first!.to || first!.from) throw new CommandError(`${parsed.text}: > stands behind the last command`); // prettier-ignore
    const { text, json } = await execute(first!, { ...run, json: false });
    const is_json = first!.words.includes("--json") && !find_command(names[0]!)?.raw;
    const input = is_json ? JSON.stringify(json) : text;
    return run_as_command(context(run, { input: input === "" ? "" : `${input}\n` }), "/bin/sh", ["-c", rest], "line");
  }

  function watch_host(run: Run): WatchHost {
    return {
      terminal: host.terminal && run.job === undefined,
      json: run.json,
      height: host.height,
      write,
      cancelled: () => cancelled(run),
      async sleep(seconds) {
        for (const end = Date.now() + seconds * 1000; Date.now() < end && !cancelled(run);)
          await new Promise((resolve) => setTimeout(resolve, 50));
      },
      turn: (seconds) => (run.job ? run.job.pause() : turn(seconds * NSEC_PER_SEC, WATCH_STEPS)),
    };
  }

  /** Runs a command and prints its answer or its failure. False if it failed. */
  async function run_command(parsed: Parsed, job?: JobHandle): Promise<boolean> {
    const asked = !parsed.pipe && parsed.words.slice(1).includes("--json") && !find_command(parsed.words[0]!)?.raw;
    const json = host.json || asked;
    const run: Run = { cpu: 0, mempolicy: NULL, json, job, started: Date.now() };
    try {
      const result = await execute(parsed, run);
      if (result === NOTHING) return true;
      state.failed ||= result.failed ?? false;
      if (parsed.to) {
        if (host.json) write("null\n");
      } else if (json) write_for(job, `${JSON.stringify(job ? { job: job.id, result: result.json } : result.json)}\n`);
      else {
        const text = result.text === "" ? "" : `${result.text}\n`;
        write_for(job, job ? `[${job.id}] done: ${parsed.text}\n${text}` : text);
      }
      return !result.failed;
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      fail(job ? `[${job.id}] ${error.message}` : error.message, json);
      return false;
    }
  }

  function fail(message: string, json: boolean): void {
    state.failed = true;
    if (json) write(`${JSON.stringify({ error: message })}\n`);
    else {
      write("");
      host.write_error(`${message}\n`);
    }
  }

  function start_job(parsed: Parsed): void {
    const id = jobs.start(parsed.text, async (job) => {
      try {
        await run_command(parsed, job);
      } catch (error) {
        panic = error as KernelPanic;
      }
    });
    write(host.json ? `${JSON.stringify({ job: id, command: parsed.text })}\n` : `[${id}] ${parsed.text}\n`);
  }

  async function run(line: string): Promise<boolean> {
    state.cancelled = false;
    state.busy = true;
    let all = true;
    try {
      let succeeded = true;
      for (const parsed of parse_line(line)) {
        if (state.ended || state.cancelled) break;
        if (parsed.when && (parsed.when === "&&") !== succeeded) continue;
        if (parsed.background) start_job(parsed);
        else all = (succeeded = await run_command(parsed)) && all;
        await turn();
      }
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      fail(error.message, host.json);
      all = false;
    } finally {
      state.busy = false;
    }
    return all;
  }

  async function shut_down(): Promise<Result> {
    await Promise.resolve(); // a step of its own: the command's entry has ended
    const lines: string[] = [];
    for (const job of jobs.list()) {
      await jobs.kill(job.id);
      lines.push(`ended early: ${job.command}`);
    }
    if (panic) throw panic;
    if (held.list().length > 0) lines.push(`given back first, held by the console: ${describe_held(held)}`);
    entry(0, () => release_held(held));
    state.ended = true;
    const { pages, objects, locks, details } = power_off();
    lines.push(...details.map((detail) => `  ${detail}`));
    lines.push(`power off: ${pages} pages, ${objects} objects, ${locks} locks left over`);
    if (details.length > 0 || pages !== 0 || locks !== 0) state.failed = true;
    return { text: lines.join("\n"), json: { pages, objects, locks } };
  }

  return {
    run,
    entry: (fn) => entry(0, fn),
    async leave() {
      if (state.ended) return;
      const { text } = await shut_down();
      if (host.json) host.write_error(`${text}\n`);
      else write(`${text}\n`);
    },
    cancel() {
      const busy = state.busy;
      state.cancelled ||= busy;
      return busy;
    },
    failed: () => state.failed,
    ended: () => state.ended,
  };
}

/** A job that waited for itself would never end. */
function refuse_job({ job }: Run): void {
  if (job) throw new CommandError("this command waits for jobs, so it cannot be one");
}

/** The answer of a command that has printed everything itself. */
const NOTHING: Result = { text: "", json: null };
