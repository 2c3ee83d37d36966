/** What the tests of the file layer share: a machine with /, /proc and /sys, and paths in one call. */
import { expect } from "vitest";
import { compare_figures, take_figures, type Figures } from "../../../boot/start_kernel.ts";
import { drop_caches } from "../../../kernel/fs/drop_caches.ts";
import { bytes_of, bytes_to_string } from "../../../kernel/fs/bytes.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import { O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY, type FilePtr } from "../../../kernel/fs/fs.ts";
import { do_filp_open, file_read, file_write, iterate_dir } from "../../../kernel/fs/open.ts";
import { errno_name } from "../../../kernel/lib/errno.ts";
import { set_fail_nth, get_fail_nth } from "../../../mm/fault_inject.ts";
import { with_machine, type TestMachine } from "../../lib/machine.ts";

/** Boots a machine with file systems, and gives back what is only cached before the leak check. */
export function with_files<T>(fn: () => T, options: TestMachine = {}): T {
  return with_machine({ until: "kernel", ...options }, () => {
    const result = fn();
    settle();
    return result;
  });
}

/** Drops all caches, second chances included. */
export function settle(): void {
  drop_caches(3);
  drop_caches(2);
}

/** What is in use, after everything that is only cached has been given back. */
export function figures(): Figures {
  settle();
  return take_figures();
}

/** Fails if more or less is in use than before. */
export function expect_same(before: Figures): void {
  expect(compare_figures(before, figures())).toEqual({ pages: 0, objects: 0, locks: 0, details: [] });
}

/** Runs `fn` with an open file; a failure to open is its result. */
export function with_file<T>(path: string, flags: number, fn: (file: FilePtr) => T): T | number {
  const file = do_filp_open(path, flags, 0o644);
  if (file < 0) return file;
  const result = fn(file);
  fput(file);
  return result;
}

/** Contents of a file, or -errno. */
export function cat(path: string): string | number {
  return with_file(path, O_RDONLY, (file) => {
    const bytes = file_read(file, 2 ** 31);
    return typeof bytes === "number" ? bytes : bytes_to_string(bytes);
  });
}

/** Contents of a file that can be read. */
export function text_of(path: string): string {
  const text = cat(path);
  if (typeof text === "number") throw new Error(`${path}: ${errno_name(text)}`);
  return text;
}

/** Writes a file anew; bytes or -errno. */
export function echo(text: string, path: string, flags = O_TRUNC): number {
  return with_file(path, O_WRONLY | O_CREAT | flags, (file) => file_write(file, bytes_of(text)));
}

/** Names in a directory, sorted, or -errno. */
export function ls(path: string): string[] | number {
  return with_file(path, O_RDONLY, (file) => {
    const entries = iterate_dir(file);
    return typeof entries === "number" ? entries : entries.map(({ name }) => name).sort();
  });
}

/**
 * Runs `fn` again and again, each time with another allocation failing, until one run is through without a failure.
 * `after` looks at each run's result. Returns how many runs met a failure.
 */
export function with_each_failure<T>(fn: () => T, after: (result: T, failed: boolean) => void): number {
  for (let n = 1; ; n++) {
    set_fail_nth(n);
    const result = fn();
    const failed = get_fail_nth() === 0;
    set_fail_nth(0);
    after(result, failed);
    if (!failed) return n - 1;
  }
}
