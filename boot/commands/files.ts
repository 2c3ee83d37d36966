/**
 * Files: ls, cat, echo, touch, mkdir, rmdir, rm, stat. Paths start at the root, as the console has no folder.
 *
 * The console is outside the kernel, so it opens files as the kernel itself would (kernel/fs/vfs.ts), without a table of
 * descriptors. The functions at the top are also what redirection (`> FILE`) and completion use.
 */
import { is_err, strerror } from "../../kernel/lib/errno.ts";
import { bytes_of, bytes_to_string, utf8_decode, utf8_encode } from "../../kernel/fs/bytes.ts";
import {
  O_APPEND, O_CREAT, O_DIRECTORY, O_RDONLY, O_TRUNC, O_WRONLY, S_IFDIR, S_IFLNK, S_IFMT, type Dirent, type FilePtr,
} from "../../kernel/fs/fs.ts"; // prettier-ignore
import { fput } from "../../kernel/fs/file_table.ts";
import { do_mkdirat, do_rmdir, do_unlinkat } from "../../kernel/fs/namei.ts";
import { do_filp_open, file_read, file_write, iterate_dir, vfs_stat, type Stat } from "../../kernel/fs/open.ts";
import { CommandError, line, parse_args, register, usage_error, type Context, type Result } from "./registry.ts";

const CHUNK = 65536;
const FILE_MODE = 0o644;
const DIR_MODE = 0o755;

/** Throws what a path operation answered, unless that is no error. */
function check<T>(command: string, path: string, result: T | number): T {
  if (typeof result === "number" && is_err(result)) throw new CommandError(`${command}: ${path}: ${strerror(result)}`);
  return result as T;
}

/** Runs `fn` with an open file. */
function with_file<T>(command: string, path: string, flags: number, fn: (file: FilePtr) => T): T {
  const file = check(command, path, do_filp_open(utf8_encode(path), flags, FILE_MODE));
  try {
    return fn(file);
  } finally {
    fput(file);
  }
}

function read_bytes(command: string, path: string): string {
  return with_file(command, path, O_RDONLY, (file) => {
    let text = "";
    for (;;) {
      const bytes = check(command, path, file_read(file, CHUNK)) as Uint8Array;
      if (bytes.length === 0) return text;
      text += bytes_to_string(bytes);
    }
  });
}

/** The contents of a file as text. Context: a kernel entry. */
export function read_file(path: string, command = "cat"): string {
  return utf8_decode(read_bytes(command, path));
}

/** Writes a file anew, or behind what it has. Context: a kernel entry. */
export function write_file(path: string, text: string, append: boolean, command = "console"): void {
  const flags = O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC);
  const bytes = bytes_of(utf8_encode(text));
  with_file(command, path, flags, (file) => {
    for (let done = 0; done < bytes.length;) {
      const written = check(command, path, file_write(file, bytes.subarray(done)));
      if (written === 0) throw new CommandError(`${command}: ${path}: nothing more could be written`);
      done += written;
    }
  });
}

/** The entries of a folder, by name. Context: a kernel entry. */
export function list_directory(path: string, command = "ls"): { name: string; is_directory: boolean }[] {
  const entries = with_file(command, path, O_RDONLY | O_DIRECTORY, (file) => check(command, path, iterate_dir(file)));
  return (entries as Dirent[])
    .map(({ name, type }) => ({ name: utf8_decode(name), is_directory: type === S_IFDIR }))
    .sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}

function stat_of(command: string, path: string): Stat {
  return check(command, path, vfs_stat(utf8_encode(path), false)) as Stat;
}

const join_path = (folder: string, name: string): string => `${folder.replace(/\/+$/, "")}/${name}`;

/** `drwxr-xr-x`. */
function mode_text(mode: number): string {
  const type = { [S_IFDIR]: "d", [S_IFLNK]: "l" }[mode & S_IFMT] ?? "-";
  const bits = Array.from("rwxrwxrwx", (letter, i) => (mode & (0o400 >> i) ? letter : "-"));
  return type + bits.join("");
}

const seconds = (ns: number): string => (ns / 1e9).toFixed(3);

function long_row(path: string, name: string) {
  const { mode, nlink, size, ino, mtime } = stat_of("ls", path);
  return { name, mode: mode_text(mode), nlink, size, ino, mtime: Number(seconds(mtime)) };
}

/** Names side by side, as wide as the terminal allows. */
function columns(names: readonly string[], width: number): string {
  const cell = Math.max(0, ...names.map((name) => name.length)) + 2;
  const across = Math.max(1, Math.floor(width / cell));
  const rows = Math.ceil(names.length / across);
  const row = (r: number): string => names.filter((_, i) => i % rows === r).map((name) => name.padEnd(cell)).join("").trimEnd(); // prettier-ignore
  return Array.from({ length: rows }, (_, r) => row(r)).join("\n");
}

function list_path(ctx: Context, path: string, long: boolean): { text: string; json: unknown } {
  const is_directory = (stat_of("ls", path).mode & S_IFMT) === S_IFDIR;
  const names = is_directory ? list_directory(path).map(({ name }) => name) : [path];
  if (!long) return { text: ctx.terminal ? columns(names, ctx.width) : names.join("\n"), json: names };
  const rows = names.map((name) => long_row(is_directory ? join_path(path, name) : path, name));
  const size_width = Math.max(1, ...rows.map(({ size }) => String(size).length));
  const text = rows.map(
    ({ name, mode, nlink, size, mtime }) =>
      `${mode} ${String(nlink).padStart(2)} ${String(size).padStart(size_width)} ${mtime.toFixed(3).padStart(9)} ${name}`,
  );
  return { text: text.join("\n"), json: rows };
}

register({
  name: "ls",
  group: "files",
  usage: "ls [-l] [PATH…]",
  summary: "names in a folder",
  man: "With -l: mode, links, bytes, seconds since power-on of the last change, name.",
  reads: true,
  complete: "path",
  run(ctx, args) {
    const { plain, flags } = parse_args(args);
    flags.delete("-a");
    const long = flags.delete("-l");
    if (flags.size > 0) throw usage_error(this, `ls: no option ${[...flags][0]}`);
    if (plain.length < 2) return list_path(ctx, plain[0] ?? "/", long);
    const lists = plain.map((path) => ({ path, ...list_path(ctx, path, long) }));
    return {
      text: lists.map(({ path, text }) => `${path}:\n${text}`).join("\n\n"),
      json: Object.fromEntries(lists.map(({ path, json }) => [path, json])),
    };
  },
});

register({
  name: "cat",
  group: "files",
  usage: "cat FILE…",
  summary: "what is in a file; /proc and /sys too",
  man: "Prints files one after the other, for example /proc/slabinfo, /proc/buddyinfo, /proc/meminfo, /proc/1/status.",
  reads: true,
  complete: "path",
  run(_ctx, args) {
    if (args.length === 0) throw usage_error(this);
    const text = args.map((path) => read_file(path)).join("");
    return { text: text.replace(/\n$/, ""), json: text };
  },
});

/** Lines, words and bytes of a file, read in pieces that are not kept. */
function count_file(path: string): [number, number, number] {
  return with_file("wc", path, O_RDONLY, (file) => {
    let [lines, words, bytes, in_word] = [0, 0, 0, false];
    for (;;) {
      const piece = check("wc", path, file_read(file, CHUNK)) as Uint8Array;
      if (piece.length === 0) return [lines, words, bytes];
      for (const byte of piece) {
        const space = byte === 32 || (byte >= 9 && byte <= 13);
        if (byte === 10) lines++;
        if (!space && !in_word) words++;
        in_word = !space;
      }
      bytes += piece.length;
    }
  });
}

register({
  name: "wc",
  group: "files",
  usage: "wc FILE…",
  summary: "lines, words and bytes of files",
  man:
    "Reads the files to their ends and so fills the page cache with them: /usr/media/film0 to film7, 32 MiB each on a\n" +
    "read-only disc, are more than memory holds, so reclaim goes to work (vmstat, cat /proc/vmstat, /proc/meminfo).",
  reads: true,
  complete: "path",
  run(_ctx, args) {
    if (args.length === 0) throw usage_error(this);
    const rows = args.map((path) => ({ path, counts: count_file(path) }));
    const text = rows.map(({ path, counts }) => `${counts.map((n) => String(n).padStart(8)).join(" ")} ${path}`);
    return { text: text.join("\n"), json: rows };
  },
});

register({
  name: "echo",
  group: "files",
  usage: "echo TEXT… [> FILE | >> FILE]",
  summary: "prints its arguments, or writes them into a file",
  man: "echo 3 > /proc/sys/vm/drop_caches lets go of the page cache and of all unused dentries and inodes.",
  raw: true,
  run: (_ctx, args) => line(args.join(" ")),
});

/** A command that does something to each of its paths and answers nothing. */
function for_each_path(
  name: string,
  usage: string,
  summary: string,
  man: string,
  flag: string,
  act: (path: string, flag: boolean) => void,
): void {
  // prettier-ignore
  register({
    name,
    group: "files",
    usage,
    summary,
    man,
    complete: "path",
    run(_ctx, args): Result {
      const { plain, flags } = parse_args(args);
      const flagged = flags.delete(flag);
      if (flags.size > 0) throw usage_error(this, `${name}: no option ${[...flags][0]}`);
      if (plain.length === 0) throw usage_error(this);
      for (const path of plain) act(path, flagged);
      return line("", plain);
    },
  });
}

function make_directory(path: string, parents: boolean): void {
  const folders = parents ? [...path.matchAll(/[^/]+/g)].map(({ index, 0: name }) => path.slice(0, index + name.length)) : [path]; // prettier-ignore
  for (const [i, folder] of folders.entries()) {
    const error = do_mkdirat(utf8_encode(folder), DIR_MODE);
    const is_there =
      error !== 0 && parents && (i < folders.length - 1 || (stat_of("mkdir", folder).mode & S_IFMT) === S_IFDIR);
    if (!is_there) check("mkdir", folder, error);
  }
}

function remove_path(path: string, recursive: boolean): void {
  if (recursive && (stat_of("rm", path).mode & S_IFMT) === S_IFDIR) {
    for (const { name } of list_directory(path, "rm")) remove_path(join_path(path, name), true);
    check("rm", path, do_rmdir(utf8_encode(path)));
  } else check("rm", path, do_unlinkat(utf8_encode(path)));
}

for_each_path(
  "touch",
  "touch FILE…",
  "makes empty files",
  "Makes each file unless it is there: an inode and a dentry.",
  "",
  (path) => with_file("touch", path, O_WRONLY | O_CREAT, () => {}),
);
for_each_path(
  "mkdir",
  "mkdir [-p] DIR…",
  "makes folders",
  "With -p those above too, and it is no error if one is there.",
  "-p",
  make_directory,
);
for_each_path(
  "rmdir",
  "rmdir DIR…",
  "removes empty folders",
  "Removes folders that have nothing in them.",
  "",
  (path) => void check("rmdir", path, do_rmdir(utf8_encode(path))),
);
for_each_path(
  "rm",
  "rm [-r] FILE…",
  "removes files",
  "With -r folders too, with all that is in them.",
  "-r",
  remove_path,
);

register({
  name: "stat",
  group: "files",
  usage: "stat FILE…",
  summary: "what an inode says of a file",
  man: "Bytes, blocks of 512 in the page cache, device and inode number, links, mode, time of the last change.",
  reads: true,
  complete: "path",
  run(_ctx, args) {
    if (args.length === 0) throw usage_error(this);
    const stats = args.map((path) => ({ path, ...stat_of("stat", path) }));
    const text = stats.map(
      ({ path, size, blocks, dev, ino, nlink, mode, mtime }) =>
        `  File: ${path}\n  Size: ${String(size).padEnd(10)} Blocks: ${blocks}\n` +
        `Device: 0,${String(dev).padEnd(8)} Inode: ${String(ino).padEnd(8)} Links: ${nlink}\n` +
        `Access: (${(mode & 0o7777).toString(8).padStart(4, "0")}/${mode_text(mode)})\nModify: ${seconds(mtime)} s after power-on`,
    );
    return { text: text.join("\n"), json: stats.length === 1 ? stats[0] : stats };
  },
});
