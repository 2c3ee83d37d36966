/** Programs about names and inodes: ls, stat, touch, mkdir, rmdir, rm, mv, ln, pwd. */
import { O_CREAT, O_WRONLY, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT } from "../fs/fs.ts";
import type { Stat } from "../fs/open.ts";
import { EEXIST } from "../lib/errno.ts";
import { program } from "../program.ts";
import type { Sys } from "../syscall.ts";
import { complain_of, options, puts, usage, type Steps } from "./lib.ts";

const is_folder = (stat: Stat | number): boolean => typeof stat !== "number" && (stat.mode & S_IFMT) === S_IFDIR;

const join_path = (folder: string, name: string): string => `${folder.replace(/\/+$/, "")}/${name}`;

/** `drwxr-xr-x`. */
function mode_text(mode: number): string {
  const type = { [S_IFDIR]: "d", [S_IFLNK]: "l", [S_IFIFO]: "p" }[mode & S_IFMT] ?? "-";
  const bits = Array.from("rwxrwxrwx", (letter, i) => (mode & (0o400 >> i) ? letter : "-"));
  return type + bits.join("");
}

const seconds = (ns: number): string => (ns / 1e9).toFixed(3);

/* ls ----------------------------------------------------------------------------------------------------------------- */

/** Names side by side, as wide as the terminal allows. */
function columns(names: readonly string[], width: number): string[] {
  const cell = Math.max(0, ...names.map((name) => name.length)) + 2;
  const across = Math.max(1, Math.floor(width / cell));
  const rows = Math.ceil(names.length / across);
  const row = (r: number): string => names.filter((_, i) => i % rows === r).map((name) => name.padEnd(cell)).join("").trimEnd(); // prettier-ignore
  return Array.from({ length: rows }, (_, r) => row(r));
}

interface Row {
  readonly name: string;
  readonly mode: string;
  readonly nlink: number;
  readonly size: number;
  readonly ino: number;
  readonly mtime: number;
  /** What a symbolic link says. */
  readonly target?: string;
}

function long_lines(rows: readonly Row[]): string[] {
  const size_width = Math.max(1, ...rows.map(({ size }) => String(size).length));
  return rows.map(
    ({ name, mode, nlink, size, mtime, target }) =>
      `${mode} ${String(nlink).padStart(2)} ${String(size).padStart(size_width)} ${mtime.toFixed(3).padStart(9)} ${name}` +
      (target === undefined ? "" : ` -> ${target}`),
  );
}

/** The rows of names; or -errno, and which of them. */
function* long_rows(sys: Sys, names: readonly string[], folder?: string): Steps<Row[] | [number, string]> {
  const rows: Row[] = [];
  for (const name of names) {
    const path = folder === undefined ? name : join_path(folder, name);
    const stat: Stat | number = yield sys.lstat(path);
    if (typeof stat === "number") return [stat, path];
    const { mode, nlink, size, ino, mtime } = stat;
    const target: string | number = (mode & S_IFMT) === S_IFLNK ? yield sys.readlink(path) : 0;
    const row = { name, mode: mode_text(mode), nlink, size, ino, mtime: Number(seconds(mtime)) };
    rows.push(typeof target === "string" ? { ...row, target } : row);
  }
  return rows;
}

/** What there is to say of a path: its lines, and the same for --json. Undefined after a complaint. */
function* list_path(
  sys: Sys,
  path: string,
  long: boolean,
  width: number,
): Steps<{ lines: string[]; json: unknown } | undefined> {
  // prettier-ignore
  const stat: Stat | number = yield sys.lstat(path);
  const is_link = typeof stat !== "number" && (stat.mode & S_IFMT) === S_IFLNK;
  const folder = is_folder(stat) || (is_link && !long && is_folder(yield sys.stat(path)));
  const names: string[] | number = typeof stat === "number" ? stat : folder ? yield sys.readdir(path) : [path];
  if (typeof names === "number") {
    yield* complain_of(sys, "ls", path, names);
    return undefined;
  }
  names.sort();
  if (!long) return { lines: width > 0 ? columns(names, width) : names, json: names };
  const rows = yield* long_rows(sys, names, folder ? path : undefined);
  if (typeof rows[0] !== "number") return { lines: long_lines(rows as Row[]), json: rows };
  yield* complain_of(sys, "ls", rows[1] as string, rows[0]);
  return undefined;
}

// -w COLUMNS: names side by side, on a terminal as wide as that.
program("ls", function* (sys, ...args: string[]) {
  const at = args.indexOf("-w");
  const width = at < 0 ? 0 : Number(args[at + 1]);
  const { plain, flags } = options(at < 0 ? args : args.toSpliced(at, 2));
  flags.delete("-a");
  const [long, json] = [flags.delete("-l"), flags.delete("--json")];
  if (flags.size > 0) return yield* usage(sys, "ls", `no option ${[...flags][0]}`);
  const lists: { path: string; lines: string[]; json: unknown }[] = [];
  let status = 0;
  for (const path of plain.length === 0 ? ["."] : plain) {
    const list = yield* list_path(sys, path, long, width);
    if (list) lists.push({ path, ...list });
    else status = 1;
  }
  const alone = plain.length < 2;
  if (json) {
    const value = alone ? lists[0]?.json : Object.fromEntries(lists.map((list) => [list.path, list.json]));
    yield* puts(sys, `${JSON.stringify(value)}\n`);
  } else {
    const text = lists.map(({ path, lines }) => (alone ? lines : [`${path}:`, ...lines]).map((line) => `${line}\n`).join("")); // prettier-ignore
    yield* puts(sys, text.join("\n"));
  }
  return status;
});

program("stat", function* (sys, ...args: string[]) {
  const { plain, flags } = options(args);
  const json = flags.delete("--json");
  if (plain.length === 0 || flags.size > 0) return yield* usage(sys, "stat");
  const stats: ({ path: string } & Stat)[] = [];
  let status = 0;
  for (const path of plain) {
    const stat: Stat | number = yield sys.lstat(path);
    if (typeof stat === "number") status = yield* complain_of(sys, "stat", path, stat);
    else stats.push({ path, ...stat });
  }
  if (json) yield* puts(sys, `${JSON.stringify(plain.length === 1 ? stats[0] : stats)}\n`);
  else yield* puts(sys, stats.map(stat_text).join(""));
  return status;
});

function stat_text({ path, size, blocks, dev, ino, nlink, mode, mtime }: { path: string } & Stat): string {
  return (
    `  File: ${path}\n  Size: ${String(size).padEnd(10)} Blocks: ${blocks}\n` +
    `Device: 0,${String(dev).padEnd(8)} Inode: ${String(ino).padEnd(8)} Links: ${nlink}\n` +
    `Access: (${(mode & 0o7777).toString(8).padStart(4, "0")}/${mode_text(mode)})\nModify: ${seconds(mtime)} s after power-on\n`
  );
}

/* Programs that do something to each of their paths ------------------------------------------------------------------ */

/** What is done to a path: 0, or -errno and of which path; it may have complained itself and return 1. */
type Act = (sys: Sys, path: string, flag: boolean) => Steps<number>;

/** Adds a program that does `act` to each path, with one option or none; with --json it prints the paths. */
function path_program(name: string, flag: string, act: Act): void {
  program(name, function* (sys, ...args: string[]) {
    const { plain, flags } = options(args);
    const [flagged, json] = [flags.delete(flag), flags.delete("--json")];
    if (flags.size > 0) return yield* usage(sys, name, `no option ${[...flags][0]}`);
    if (plain.length === 0) return yield* usage(sys, name);
    let status = 0;
    for (const path of plain) {
      const error = yield* act(sys, path, flagged);
      if (error !== 0) status = error < 0 ? yield* complain_of(sys, name, path, error) : 1;
    }
    if (json) yield* puts(sys, `${JSON.stringify(plain)}\n`);
    return status;
  });
}

path_program("touch", "", function* (sys, path) {
  const fd: number = yield sys.open(path, O_WRONLY | O_CREAT);
  return fd < 0 ? fd : yield sys.close(fd);
});
path_program("rmdir", "", function* (sys, path) {
  return yield sys.rmdir(path);
});
path_program("mkdir", "-p", function* (sys, path, parents) {
  if (!parents) return yield sys.mkdir(path);
  for (const { index, 0: name } of path.matchAll(/[^/]+/g)) {
    const folder = path.slice(0, index + name.length);
    const error: number = yield sys.mkdir(folder);
    if (error < 0 && !(error === -EEXIST && is_folder(yield sys.stat(folder))))
      return yield* complain_of(sys, "mkdir", folder, error);
  }
  return 0;
});
path_program("rm", "-r", remove_path);

/** Removes a file, or a folder with all that is in it. */
function* remove_path(sys: Sys, path: string, recursive: boolean): Steps<number> {
  if (!recursive || !is_folder(yield sys.lstat(path))) return yield sys.unlink(path);
  const names: string[] | number = yield sys.readdir(path);
  if (typeof names === "number") return names;
  let status = 0;
  for (const name of names) {
    const inner = join_path(path, name);
    const error = yield* remove_path(sys, inner, true);
    if (error !== 0) status = error < 0 ? yield* complain_of(sys, "rm", inner, error) : 1;
  }
  return status === 0 ? yield sys.rmdir(path) : status;
}

/* Programs with two names -------------------------------------------------------------------------------------------- */

/** A name in a folder if `to` is one: `mv /tmp/a /home` makes /home/a. */
function* target_path(sys: Sys, from: string, to: string): Steps<string> {
  return is_folder(yield sys.stat(to)) ? join_path(to, from.replace(/\/+$/, "").replace(/.*\//, "")) : to;
}

program("mv", function* (sys, ...args: string[]) {
  const { plain, flags } = options(args);
  if (plain.length !== 2 || flags.size > 0) return yield* usage(sys, "mv");
  const [from, to] = plain as [string, string];
  const error: number = yield sys.rename(from, yield* target_path(sys, from, to));
  return error < 0 ? yield* complain_of(sys, "mv", from, error) : 0;
});

program("ln", function* (sys, ...args: string[]) {
  const { plain, flags } = options(args);
  const symbolic = flags.delete("-s");
  if (plain.length !== 2 || flags.size > 0) return yield* usage(sys, "ln");
  const [from, to] = plain as [string, string];
  const name = yield* target_path(sys, from, to);
  const error: number = yield symbolic ? sys.symlink(from, name) : sys.link(from, name);
  return error < 0 ? yield* complain_of(sys, "ln", name, error) : 0;
});

program("pwd", function* (sys) {
  const path: string | number = yield sys.getcwd();
  if (typeof path === "number") return yield* complain_of(sys, "pwd", ".", path);
  yield* puts(sys, `${path}\n`);
});
