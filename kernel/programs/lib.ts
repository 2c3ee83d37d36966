/** What programs share: writing, complaining, options, a buffer. Each is a part of a program, called with `yield*`. */
import { utf8_encode } from "../fs/bytes.ts";
import { strerror } from "../lib/errno.ts";
import type { Sys, SystemCall } from "../syscall.ts";
import { BIN } from "./bin.ts";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what `yield` gives
export type Steps<T> = Generator<SystemCall, T, any>;

/** Bytes that cat, wc and their like read at once: what a pipe holds. */
export const BUFFER = 65536;

/** Writes a text, all of it. 0 or -errno. */
export function* puts(sys: Sys, text: string, fd = 1): Steps<number> {
  for (let done = 0; done < text.length;) {
    const written: number = yield sys.write(fd, text.slice(done));
    if (written <= 0) return written;
    done += written;
  }
  return 0;
}

/** Says on standard error what went wrong. Returns 1, the status to end with. */
export function* complain(sys: Sys, text: string): Steps<number> {
  yield* puts(sys, utf8_encode(text) + "\n", 2);
  return 1;
}

/** `cat: /nowhere: No such file or directory`. The texts are bytes already. */
export function* complain_of(sys: Sys, name: string, path: string, error: number): Steps<number> {
  yield* puts(sys, `${name}: ${path}: ${strerror(error)}\n`, 2);
  return 1;
}

/** Says how a program is called, and what is wrong with how it was. */
export function* usage(sys: Sys, name: string, what?: string): Steps<number> {
  return yield* complain(sys, `${what === undefined ? "" : `${name}: ${what}; `}usage: ${BIN[name]!}`);
}

/** Parts arguments into plain ones and one-letter or long options; `--` ends these. */
export function options(args: readonly string[]): { plain: string[]; flags: Set<string> } {
  const end = args.indexOf("--");
  const open = end < 0 ? args : args.slice(0, end);
  const is_flag = (arg: string): boolean => arg.startsWith("-") && arg !== "-";
  return {
    plain: [...open.filter((arg) => !is_flag(arg)), ...(end < 0 ? [] : args.slice(end + 1))],
    flags: new Set(open.filter(is_flag)),
  };
}

/** A buffer at the end of the heap; NULL after a complaint. */
export function* buffer(sys: Sys, name: string, bytes = BUFFER): Steps<number> {
  const va: number = yield sys.sbrk(bytes);
  if (va > 0) return va;
  yield* complain(sys, `${name}: ${strerror(va)}`);
  return 0;
}

/** Runs `each` with every file open, standard input where there is none or for "-". Returns 1 if one of them failed. */
export function* for_each_file(
  sys: Sys,
  name: string,
  paths: readonly string[],
  each: (fd: number, path: string) => Steps<number>,
): Steps<number> {
  let status = 0;
  for (const path of paths.length > 0 ? paths : ["-"]) {
    const fd: number = path === "-" ? 0 : yield sys.open(path);
    const error = fd < 0 ? fd : yield* each(fd, path);
    if (error < 0) status = yield* complain_of(sys, name, path, error);
    if (fd > 0) yield sys.close(fd);
  }
  return status;
}

/** Writes `bytes` bytes that lie in memory. 0 or -errno. */
export function* write_out(sys: Sys, va: number, bytes: number, fd = 1): Steps<number> {
  for (let done = 0; done < bytes;) {
    const written: number = yield sys.write(fd, va + done, bytes - done);
    if (written <= 0) return written;
    done += written;
  }
  return 0;
}
