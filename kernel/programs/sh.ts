/**
 * sh: a shell for lines of programs.
 *
 *     list      andor ; andor & andor            pipeline   command | command
 *     andor     pipeline && pipeline || …        command    WORD… < FILE > FILE >> FILE 2> FILE 2>&1
 *
 * Quotes: "…" and '…' hold everything as it is, a backslash takes the next character; # begins a comment. A program is looked
 * for in /bin unless its name has a slash. What the shell does itself: cd, exit, wait, and `:`.
 *
 * Each command of a pipeline is a child with pipes for its standard input and output; its status is that of the last one. A
 * program that a signal ended has status 128 + signal. 127: no such program, 126: it cannot be run.
 *
 * Unlike a real shell: no variables, patterns, loops, functions or job control; no more than one line at a time is looked at.
 */
import { O_APPEND, O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY } from "../fs/fs.ts";
import { ENOENT, strerror } from "../lib/errno.ts";
import { program } from "../program.ts";
import type { Result, Sys } from "../syscall.ts";
import { complain, complain_of, puts, usage, type Steps } from "./lib.ts";

interface Redirect {
  readonly fd: number;
  /** Undefined: where standard output goes. */
  readonly path?: string;
  readonly flags: number;
}
interface Command {
  readonly words: string[];
  readonly redirects: Redirect[];
}
type Pipeline = readonly Command[];
/** Pipelines, and what stands before each but the first. */
interface AndOr {
  readonly pipelines: { readonly when: "&&" | "||" | undefined; readonly pipeline: Pipeline }[];
  readonly background: boolean;
}

/* The grammar -------------------------------------------------------------------------------------------------------- */

const TOKEN = /\s+|#.*|(2>&1|2>|&&|\|\||>>|[;&|<>])|((?:"[^"]*"|'[^']*'|\\.|[^\s;&|<>"'\\])+)/y;

interface Token {
  readonly operator?: string | undefined;
  readonly word?: string | undefined;
}

/** A word without its quotes and backslashes. */
const unquote = (word: string): string =>
  word.replace(/"([^"]*)"|'([^']*)'|\\(.)/g, (_, double, single, plain) => double ?? single ?? plain);

/** The tokens of a line, or what is wrong with it. */
function tokens_of(line: string): Token[] | string {
  const tokens: Token[] = [];
  const pattern = new RegExp(TOKEN);
  while (pattern.lastIndex < line.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(line);
    if (!match) return `${line.slice(at)}: a quote is not closed`;
    if (match[1] !== undefined) tokens.push({ operator: match[1] });
    else if (match[2] !== undefined) tokens.push({ word: unquote(match[2]) });
  }
  return tokens;
}

const FLAGS: Readonly<Record<string, readonly [fd: number, flags: number]>> = Object.freeze({
  "<": [0, O_RDONLY],
  ">": [1, O_WRONLY | O_CREAT | O_TRUNC],
  ">>": [1, O_WRONLY | O_CREAT | O_APPEND],
  "2>": [2, O_WRONLY | O_CREAT | O_TRUNC],
});

/** Takes a command off the front of the tokens. Undefined if there is none; or what is wrong. */
function take_command(tokens: Token[]): Command | string {
  const command: Command = { words: [], redirects: [] };
  for (;;) {
    const [next] = tokens;
    const file = next?.operator === undefined ? undefined : FLAGS[next.operator];
    if (next?.word !== undefined) command.words.push(next.word);
    else if (next?.operator === "2>&1") command.redirects.push({ fd: 2, flags: 0 });
    else if (file) {
      tokens.shift();
      const path = tokens[0]?.word;
      if (path === undefined) return `a file name is missing behind ${next!.operator!}`;
      command.redirects.push({ fd: file[0], path, flags: file[1] });
    } else break;
    tokens.shift();
  }
  if (command.words.length > 0) return command;
  return tokens.length > 0 ? `"${tokens[0]!.operator!}" stands behind nothing` : "a command is missing at the end";
}

/** All of a line, or what is wrong with it. */
function parse(line: string): AndOr[] | string {
  const tokens = tokens_of(line);
  if (typeof tokens === "string") return tokens;
  const list: AndOr[] = [];
  while (tokens.length > 0) {
    const pipelines: AndOr["pipelines"] = [];
    let when: "&&" | "||" | undefined;
    for (;;) {
      const pipeline: Command[] = [];
      for (;;) {
        const command = take_command(tokens);
        if (typeof command === "string") return command;
        pipeline.push(command);
        if (tokens[0]?.operator !== "|") break;
        tokens.shift();
      }
      pipelines.push({ when, pipeline });
      const operator = tokens[0]?.operator;
      if (operator !== "&&" && operator !== "||") break;
      when = operator;
      tokens.shift();
    }
    list.push({ pipelines, background: tokens.shift()?.operator === "&" });
  }
  return list;
}

/* Running ------------------------------------------------------------------------------------------------------------ */

/** Opens what a command's redirections name, in their order. 0, or 1 after a complaint. */
function* redirect(sys: Sys, redirects: readonly Redirect[]): Steps<number> {
  for (const { fd, path, flags } of redirects) {
    const from: number = path === undefined ? 1 : yield sys.open(path, flags);
    if (from < 0) return yield* complain_of(sys, "sh", path!, from);
    if (from !== fd) yield sys.dup2(from, fd);
    if (path !== undefined && from !== fd) yield sys.close(from);
  }
  return 0;
}

/** Becomes the program. Returns only if that fails: the status. */
function* exec_command(sys: Sys, { words, redirects }: Command): Steps<number> {
  if ((yield* redirect(sys, redirects)) !== 0) return 1;
  const [name, ...args] = words as [string, ...string[]];
  const built_in = yield* run_built_in(sys, words);
  if (built_in !== undefined) return built_in;
  const error: number = yield sys.exec(name.includes("/") ? name : `/bin/${name}`, ...args);
  yield* puts(sys, `sh: ${name}: ${error === -ENOENT ? "not found" : strerror(error)}\n`, 2);
  return error === -ENOENT ? 127 : 126;
}

/** Does what the shell does itself. Its status; undefined if it is something else. */
function* run_built_in(sys: Sys, [name, ...args]: readonly string[]): Steps<number | undefined> {
  if (name === ":") return 0;
  if (name === "exit") return yield sys.exit(Number(args[0] ?? 0));
  if (name === "wait") {
    while (typeof (yield sys.wait()) === "object");
    return 0;
  }
  if (name !== "cd") return undefined;
  const error: number = yield sys.chdir(args[0] ?? "/");
  return error < 0 ? yield* complain_of(sys, "cd", args[0] ?? "/", error) : 0;
}

const IN_SHELL: readonly string[] = Object.freeze(["cd", "exit", "wait", ":"]);

/** Runs a pipeline and waits for it. Its status. */
function* run_pipeline(sys: Sys, pipeline: Pipeline): Steps<number> {
  const [first] = pipeline as [Command];
  if (pipeline.length === 1 && first.redirects.length === 0 && IN_SHELL.includes(first.words[0]!))
    return (yield* run_built_in(sys, first.words)) ?? 0;
  const pids: number[] = [];
  let input = -1;
  for (const [i, command] of pipeline.entries()) {
    const is_last = i === pipeline.length - 1;
    const ends: [number, number] | number = is_last ? [-1, -1] : yield sys.pipe();
    const pid: number = typeof ends === "number" ? ends : yield sys.fork();
    const [next, output] = typeof ends === "number" ? [-1, -1] : ends;
    if (pid === 0) {
      if (next >= 0) yield sys.close(next);
      for (const [fd, as] of [
        [input, 0],
        [output, 1],
      ] as const)
        // prettier-ignore
        if (fd >= 0) {
          yield sys.dup2(fd, as);
          yield sys.close(fd);
        }
      yield sys.exit(yield* exec_command(sys, command));
    }
    for (const fd of [input, output]) if (fd >= 0) yield sys.close(fd);
    input = next;
    if (pid > 0) pids.push(pid);
    else {
      yield* complain(sys, `sh: ${command.words[0]!}: ${strerror(pid)}`);
      if (input >= 0) yield sys.close(input);
      yield* wait_for(sys, pids);
      return 2;
    }
  }
  return yield* wait_for(sys, pids);
}

/** Waits for children. The status of the last. */
function* wait_for(sys: Sys, pids: readonly number[]): Steps<number> {
  let status = 0;
  for (const pid of pids) {
    const result: Result = yield sys.wait(pid);
    const code = typeof result === "object" ? (result as { status: number }).status : 0;
    status = code & 0x7f ? 128 + (code & 0x7f) : code >> 8;
  }
  return status;
}

function* run_andor(sys: Sys, { pipelines }: AndOr): Steps<number> {
  let status = 0;
  for (const { when, pipeline } of pipelines)
    if (when === undefined || (when === "&&") === (status === 0)) status = yield* run_pipeline(sys, pipeline);
  return status;
}

/** Runs a line. The status of its last command. */
function* run_line(sys: Sys, line: string): Steps<number> {
  const list = parse(line);
  if (typeof list === "string") {
    yield* puts(sys, `sh: ${list}\n`, 2);
    return 2;
  }
  let status = 0;
  for (const andor of list) {
    if (!andor.background) status = yield* run_andor(sys, andor);
    else {
      const pid: number = yield sys.fork();
      if (pid === 0) yield sys.exit(yield* run_andor(sys, andor));
      status = pid < 0 ? yield* complain(sys, `sh: ${strerror(pid)}`) : 0;
    }
  }
  return status;
}

/** Runs the lines of an open file. The status of the last command. */
function* run_file(sys: Sys, fd: number): Steps<number> {
  let [rest, status] = ["", 0];
  for (;;) {
    const text: string | number = yield sys.read(fd, 4096);
    const at_end = typeof text === "number" || text === "";
    const lines = (rest + (at_end ? "" : text)).split("\n");
    rest = at_end ? "" : lines.pop()!;
    for (const line of lines) if (line.trim() !== "") status = yield* run_line(sys, line);
    if (at_end) return status;
  }
}

program("sh", function* (sys, ...args: string[]) {
  const [first, text] = args;
  if (first === "-c") return text === undefined ? yield* usage(sys, "sh") : yield* run_line(sys, text);
  if (first === undefined) return yield* run_file(sys, 0);
  const fd: number = yield sys.open(first);
  return fd < 0 ? yield* complain_of(sys, "sh", first, fd) : yield* run_file(sys, fd);
});
