/**
 * The console's commands: what one is, what it is handed, and the table of all.
 *
 *     register({
 *       name: "ksize", group: "heap", usage: "ksize ADDR", summary: "bytes of the slot that a kmalloc block lies in",
 *       man: "…", reads: true,
 *       run(ctx, args) {
 *         if (bad) throw new CommandError("ksize: no kmalloc block at …");   // one line; the command fails
 *         return { text: "512", json: 512 };                                // text without the last newline
 *       },
 *     });
 *
 * The session (boot/session.ts) takes `--json` out of the arguments of every command, and `--watch [s]` and
 * `--count n` out of those of a command that `reads` (a `--watch` followed by a word that is no number stays). It
 * prints the text or the JSON value; a command prints nothing itself unless it must (`ctx.print`).
 *
 * Kernel entries. `run` is called inside one kernel entry on `ctx.cpu`, which lasts until it returns or first awaits.
 * After an `await`, wrap each step that calls the kernel in `ctx.entry(() => …)`; steps of a long loop are parted by
 * `await ctx.pause()`, which lets the host breathe in the foreground and the next console line run in the background.
 */
import type { CpuId, Ptr } from "../../hal/addr.ts";

/** What a command answers: `text` for people ("" prints nothing), `json` for programs. */
export interface Result {
  readonly text: string;
  readonly json: unknown;
  /** The command fails, though it has an answer: exit status 1. */
  readonly failed?: boolean;
}

/** The one way for a command to fail: one line, without a full stop. Nothing was done. */
export class CommandError extends Error {
  override name = "CommandError";
}

/** Something that the console's own commands took from the kernel and have not given back. */
export interface Holding {
  /** "object", "block" (kmalloc), "pages", "cache", "replay", … */
  readonly kind: string;
  /** The name of the cache, or what else tells it from others of its kind: "order 3". */
  readonly name: string;
  readonly address: Ptr;
  /** Gives it back to the kernel; called at power-off, newest first, inside a kernel entry. */
  release(): void;
}

/** The record of all holdings, oldest first. It lies with the host: the kernel knows nothing of it. */
export interface Held {
  add(holding: Holding): void;
  /** Forgets a holding (the caller gave it back itself); undefined if none has this address. */
  remove(address: Ptr): Holding | undefined;
  find(address: Ptr): Holding | undefined;
  /** All, or those of a kind and name; oldest first. */
  list(kind?: string, name?: string): Holding[];
}

/** A command that was started with `&`. */
export interface Job {
  readonly id: number;
  readonly command: string;
  readonly steps: number;
}

/** What the commands about the console itself need. */
export interface Control {
  jobs(): Job[];
  /** Runs background jobs, or that one, to their end. */
  wait_jobs(id?: number): Promise<void>;
  /** Ends a job early; false if there is none of this number. */
  kill_job(id: number): Promise<boolean>;
  /** Lets the scheduler run kernel entries until `done`, at most `limit`, whether or not Ctrl-C was pressed; how many. */
  run_until(done: () => boolean, limit: number): Promise<number>;
  /** Lets the scheduler run kernel entries; how many it could. */
  run_entries(count: number): Promise<number>;
  /** Lets so much of the machine's time pass. */
  run_for(seconds: number): Promise<void>;
  /** Powers off; nothing runs after it. */
  power_off(): Promise<Result>;
}

/** Where the program of a command reads from and writes to, if not from nothing and to the console. */
export interface Redirection {
  readonly from?: string | undefined;
  /** What it reads instead of a file. */
  readonly input?: string | undefined;
  readonly to?: { readonly path: string; readonly append: boolean } | undefined;
}

export interface Context {
  readonly control: Control;
  /** The CPU that the command runs on; `on` changes it for the command it runs. */
  readonly cpu: CpuId;
  readonly held: Held;
  /** True if a person looks at the output and can press Enter. */
  readonly terminal: boolean;
  /** True if the answer will be printed as JSON. */
  readonly json: boolean;
  /** Columns of the terminal; 80 without one. */
  readonly width: number;
  /** True once Ctrl-C was pressed (or the job was killed): a long command ends early, having given back what it took. */
  readonly cancelled: boolean;
  /**
   * Runs another console line (no `;`, no `&`) and returns its answer; rejects with CommandError. `mempolicy` is a
   * part as a task has, under which its entries run.
   */
  run_line(line: string, options?: { cpu?: CpuId; mempolicy?: Ptr<"task_mempolicy"> }): Promise<Result>;
  /** Runs `fn` as a kernel entry on `cpu`; plainly if one is under way. */
  entry<T>(fn: () => T): T;
  /** The end of a step of a long command; call it outside of entries, every few hundred kernel calls. */
  pause(): Promise<void>;
  /** One line on a terminal, for work that takes longer than two seconds; nothing elsewhere. */
  progress(text: string): void;
  /** Prints a line at once, before the answer. Nothing with --json. */
  print(text: string): void;
  /** Prints a line where failures go; the command goes on. */
  warn(text: string): void;
  /** Of the command's own program. */
  readonly redirection: Redirection;
  /** Asks the person at the terminal; undefined without one, and at the end of the input. */
  ask(prompt: string): Promise<string | undefined>;
}

export type Group = "look" | "heap" | "files" | "tasks" | "system";

export interface Command {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly group: Group;
  /** One line, or several: every form of the command. */
  readonly usage: string;
  /** Half a line for lists; no capital, no full stop. */
  readonly summary: string;
  /** The manual: what it shows, what the numbers mean, an example. */
  readonly man: string;
  /** Takes `--watch [s]` and `--count n`: it reads and changes nothing. */
  readonly reads?: boolean;
  /** A program in /bin, which the console starts and waits for. */
  readonly program?: boolean;
  /** Takes its arguments as they are, `--json` included. */
  readonly raw?: boolean;
  /** What the argument under the cursor may be; `args` ends with that argument. */
  readonly complete?: "cache" | "path" | "command" | ((args: readonly string[]) => string[]);
  run(ctx: Context, args: string[]): Result | Promise<Result>;
}

const commands = new Map<string, Command>();
const names = new Map<string, string>();

/** Adds a command; two of one name are a mistake of ours. */
export function register(command: Command): void {
  for (const name of [command.name, ...(command.aliases ?? [])]) {
    if (names.has(name)) throw new Error(`two commands are named ${name}`);
    names.set(name, command.name);
  }
  commands.set(command.name, command);
}

/** A command by its name or alias. */
export function find_command(name: string): Command | undefined {
  return commands.get(names.get(name) ?? "");
}

/** All commands, in the order in which they were registered. */
export function all_commands(): Command[] {
  return [...commands.values()];
}

/** All names and aliases. */
export function command_names(): string[] {
  return [...names.keys()];
}

/** A one-line answer. */
export function line(text: string, json: unknown = text): Result {
  return { text, json };
}

/** The usage as an error: what a command says to arguments that make no sense. */
export function usage_error(command: { usage: string }, what?: string): CommandError {
  const usage = `usage: ${command.usage.split("\n")[0]!}`;
  return new CommandError(what === undefined ? usage : `${what}; ${usage}`);
}

/** A whole decimal number within bounds, or a CommandError that names `what`, the text and the bounds. */
export function parse_count(what: string, text: string | undefined, min: number, max: number): number {
  const value = text !== undefined && /^\d+$/.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  throw new CommandError(`${what}: ${text === undefined ? "nothing" : `"${text}"`} given, ${min} to ${max} allowed`);
}

/** Parts arguments into plain ones, `name=value` ones and flags (`-x`, `--name`). `--` ends flags. */
export function parse_args(args: readonly string[]): {
  plain: string[];
  named: Map<string, string>;
  flags: Set<string>;
} {
  const plain: string[] = [];
  const named = new Map<string, string>();
  const flags = new Set<string>();
  let open = true;
  for (const arg of args) {
    const pair = /^([a-z_]+)=(.*)$/.exec(arg);
    if (open && arg === "--") open = false;
    else if (open && arg.startsWith("-") && arg !== "-") flags.add(arg);
    else if (open && pair) named.set(pair[1]!, pair[2]!);
    else plain.push(arg);
  }
  return { plain, named, flags };
}

/** Insertions, deletions, changes and swaps of neighbours that turn one word into the other. */
export function edit_distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(change, rows[i - 1]![j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** The candidate that is nearest to a mistyped word; undefined if none is near. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(word.length / 3)) + 0.5;
  for (const candidate of candidates) {
    const distance = edit_distance(word, candidate) - (candidate.startsWith(word) ? 1.5 : 0);
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}
