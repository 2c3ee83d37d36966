/**
 * Programs that read bytes and write bytes: cat, head, wc, grep, echo, yes. What they copy goes through their memory and
 * never into their journals, so a file of any size will do.
 */
import { program } from "../program.ts";
import { u } from "../user_memory.ts";
import { BUFFER, buffer, complain_of, for_each_file, options, puts, usage, write_out, type Steps } from "./lib.ts";

const NEWLINE = 10;

program("cat", function* (sys, ...paths: string[]) {
  const va = yield* buffer(sys, "cat");
  if (va === 0) return 1;
  return yield* for_each_file(sys, "cat", paths, function* (fd): Steps<number> {
    for (;;) {
      const bytes: number = yield sys.read(fd, va, BUFFER);
      if (bytes <= 0) return bytes;
      const error = yield* write_out(sys, va, bytes);
      if (error < 0) return error;
    }
  });
});

program("echo", function* (sys, ...words: string[]) {
  const error = yield* puts(sys, words.join(" ") + "\n");
  return error < 0 ? yield* complain_of(sys, "echo", "write error", error) : 0;
});

program("yes", function* (sys, ...words: string[]) {
  const line = `${words.join(" ") || "y"}\n`;
  const text = line.repeat(Math.ceil(4096 / line.length)).slice(0, 4096);
  for (;;) if ((yield sys.write(1, text)) < 0) return 1;
});

program("head", function* (sys, ...args: string[]) {
  const at = args.indexOf("-n");
  const count = at < 0 ? 10 : Number(args[at + 1]);
  const paths = at < 0 ? args : args.toSpliced(at, 2);
  if (!(count >= 0) || options(paths).flags.size > 0) return yield* usage(sys, "head");
  const va = yield* buffer(sys, "head");
  if (va === 0) return 1;
  return yield* for_each_file(sys, "head", paths, function* (fd): Steps<number> {
    for (let left = count; left > 0;) {
      const bytes: number = yield sys.read(fd, va, BUFFER);
      if (bytes <= 0) return bytes;
      const [end, lines] = u.look(va, bytes, (memory) => first_lines(memory, left));
      const error = yield* write_out(sys, va, end);
      if (error < 0) return error;
      left -= lines;
    }
    return 0;
  });
});

/** Where the first `count` lines end, and how many there are. */
function first_lines(memory: Uint8Array, count: number): [number, number] {
  let [end, lines] = [0, 0];
  while (lines < count) {
    const at = memory.indexOf(NEWLINE, end);
    if (at < 0) return [memory.length, lines];
    end = at + 1;
    lines++;
  }
  return [end, lines];
}

/** Lines, words and bytes; whether the last byte was in a word. */
type Counts = [lines: number, words: number, bytes: number, in_word: boolean];

function count_bytes(memory: Uint8Array, in_word_before: boolean): Counts {
  let [lines, words, in_word] = [0, 0, in_word_before];
  for (const byte of memory) {
    const space = byte === 32 || (byte >= 9 && byte <= 13);
    if (byte === NEWLINE) lines++;
    if (!space && !in_word) words++;
    in_word = !space;
  }
  return [lines, words, memory.length, in_word];
}

program("wc", function* (sys, ...args: string[]) {
  const { plain, flags } = options(args);
  const json = flags.delete("--json");
  if (flags.size > 0) return yield* usage(sys, "wc", `no option ${[...flags][0]}`);
  const va = yield* buffer(sys, "wc");
  if (va === 0) return 1;
  const rows: { path: string; counts: number[] }[] = [];
  const status = yield* for_each_file(sys, "wc", plain, function* (fd, path): Steps<number> {
    const total: Counts = [0, 0, 0, false];
    for (;;) {
      const bytes: number = yield sys.read(fd, va, BUFFER);
      if (bytes < 0) return bytes;
      if (bytes === 0) break;
      const [lines, words, length, in_word] = u.look(va, bytes, (memory) => count_bytes(memory, total[3]));
      total[0] += lines;
      total[1] += words;
      total[2] += length;
      total[3] = in_word;
    }
    const counts = total.slice(0, 3) as number[];
    rows.push({ path, counts });
    if (!json)
      yield* puts(sys, `${counts.map((n) => String(n).padStart(8)).join(" ")}${path === "-" ? "" : ` ${path}`}\n`);
    return 0;
  });
  if (json) yield* puts(sys, `${JSON.stringify(rows)}\n`);
  return status;
});

/** Pieces of a text that begin and end with a line, and where the last whole line ends. */
interface Found {
  readonly pieces: [from: number, to: number][];
  readonly lines: number;
  readonly end: number;
}

/** The lines that have `text` in them, or have not; the last one only if it is whole or `last`. `apart`: a piece a line. */
function find_lines(memory: Uint8Array, text: string, wanted: boolean, last: boolean, apart: boolean): Found {
  const pieces: [number, number][] = [];
  let [lines, at] = [0, 0];
  while (at < memory.length) {
    const newline = memory.indexOf(NEWLINE, at);
    if (newline < 0 && !last) break;
    const end = newline < 0 ? memory.length : newline + 1;
    if (has_text(memory.subarray(at, end), text) === wanted) {
      lines++;
      if (!apart && pieces.at(-1)?.[1] === at) pieces.at(-1)![1] = end;
      else pieces.push([at, end]);
    }
    at = end;
  }
  return { pieces, lines, end: at };
}

function has_text(line: Uint8Array, text: string): boolean {
  if (text === "") return true;
  const first = text.charCodeAt(0);
  for (let at = line.indexOf(first); at >= 0; at = line.indexOf(first, at + 1)) {
    let i = 1;
    while (i < text.length && line[at + i] === text.charCodeAt(i)) i++;
    if (i === text.length) return true;
  }
  return false;
}

// Looks for a text, not a pattern. A line longer than the buffer counts as several.
program("grep", function* (sys, ...args: string[]) {
  const { plain, flags } = options(args);
  const [count_only, inverted] = [flags.delete("-c"), flags.delete("-v")];
  const [text, ...paths] = plain;
  if (flags.size > 0 || text === undefined) return yield* usage(sys, "grep");
  const va = yield* buffer(sys, "grep");
  if (va === 0) return 2;
  let found_any = false;
  const status = yield* for_each_file(sys, "grep", paths, function* (fd, path): Steps<number> {
    const prefix = paths.length > 1 ? `${path}:` : "";
    let [kept, lines] = [0, 0];
    for (;;) {
      const bytes: number = yield sys.read(fd, va + kept, BUFFER - kept);
      if (bytes < 0) return bytes;
      const have = kept + bytes;
      const is_last = bytes === 0 || have === BUFFER;
      const found = u.look(va, have, (memory) => find_lines(memory, text, !inverted, is_last, paths.length > 1));
      lines += found.lines;
      for (const [from, to] of count_only ? [] : found.pieces) {
        if (prefix !== "") yield* puts(sys, prefix);
        const error = yield* write_out(sys, va + from, to - from);
        if (error < 0) return error;
      }
      if (bytes === 0) break;
      kept = have - found.end;
      u.memmove(va, va + found.end, kept);
    }
    found_any ||= lines > 0;
    if (count_only) yield* puts(sys, `${prefix}${lines}\n`);
    return 0;
  });
  return status !== 0 ? 2 : found_any ? 0 : 1;
});
