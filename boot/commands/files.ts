/**
 * The console's words about files, and about programs of the machine altogether: all are programs in /bin, which the console
 * starts and whose output is the answer (boot/run_program.ts). Here stands what help and man say of them.
 *
 * With --json a program of those that know it prints its answer as JSON; what others print becomes a string.
 */
import { BIN } from "../../kernel/programs/bin.ts";
import { write_file } from "../host_files.ts";
import { answer_of, run_program } from "../run_program.ts";
import { register, type Command, type Context, type Result } from "./registry.ts";

/** How --json is answered: by the program itself, or with its text as it is, or without the last newline. */
type Json = "itself" | "text" | "line";

/** Runs a program and makes its output the answer. */
export async function run_as_command(ctx: Context, path: string, args: readonly string[], json: Json): Promise<Result> {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const asked = ctx.json && json === "itself" ? ["--json"] : [];
  const wide = name === "ls" && ctx.terminal && !ctx.json && !ctx.redirection.to ? ["-w", String(ctx.width)] : [];
  const { to } = ctx.redirection;
  const collects = ctx.json && json !== "itself" && to !== undefined;
  const redirection = { ...ctx.redirection, to: collects ? undefined : to };
  const output = answer_of(ctx, name, await run_program(ctx, path, [...wide, ...asked, ...args], redirection));
  if (collects) ctx.entry(() => write_file(to.path, `${JSON.stringify(output)}\n`, to.append));
  if (to) return { text: "", json: null };
  const line = output.replace(/\n$/, "");
  if (asked.length > 0) return { text: line, json: output === "" ? null : (JSON.parse(output) as unknown) };
  return { text: line, json: json === "text" ? output : line };
}

type Entry = Pick<Command, "summary" | "man"> &
  Partial<Pick<Command, "group" | "reads" | "raw" | "complete">> & { json?: Json };

/** Adds the words for the program of that name. */
function register_program(name: keyof typeof BIN, { json = "itself", ...entry }: Entry): void {
  register({
    name,
    group: "files",
    usage: BIN[name]!,
    complete: "path",
    program: true,
    ...entry,
    run: (ctx, args) => run_as_command(ctx, `/bin/${name}`, args, json),
  });
}

register_program("ls", {
  summary: "names in a folder",
  man: "With -l: mode, links, bytes, seconds since power-on of the last change, name.",
  reads: true,
});
register_program("cat", {
  summary: "what is in a file; /proc and /sys too",
  man: "Prints files one after the other, for example /proc/slabinfo, /proc/buddyinfo, /proc/meminfo, /proc/1/status.",
  reads: true,
  json: "text",
});
register_program("wc", {
  summary: "lines, words and bytes of files",
  man:
    "Reads the files to their ends and so fills the page cache with them: /usr/media/film0 to film7, 32 MiB each on a\n" +
    "read-only disc, are more than memory holds, so reclaim goes to work (vmstat, cat /proc/vmstat, /proc/meminfo).",
  reads: true,
});
register_program("grep", {
  summary: "the lines of files with a text in them",
  man: "-v those without it, -c only how many: cat /proc/slabinfo | grep dentry. It is a text, not a pattern.",
  reads: true,
  json: "line",
});
register_program("head", {
  summary: "the first lines of files",
  man: "Ten, or -n LINES. Behind a command: slabtop | head -n 12.",
  reads: true,
  json: "line",
});
register_program("echo", {
  summary: "prints its arguments, or writes them into a file",
  man: "echo 3 > /proc/sys/vm/drop_caches lets go of the page cache and of all unused dentries and inodes.",
  raw: true,
  json: "line",
});
register_program("touch", { summary: "makes empty files", man: "Makes each file unless it is there: an inode and a dentry." }); // prettier-ignore
register_program("mkdir", { summary: "makes folders", man: "With -p those above too, and it is no error if one is there." }); // prettier-ignore
register_program("rmdir", { summary: "removes empty folders", man: "Removes folders that have nothing in them." });
register_program("rm", { summary: "removes files", man: "With -r folders too, with all that is in them." });
register_program("mv", {
  summary: "gives a file another name",
  man: "Moves a file or a folder: its dentry gets the new name and place, its inode stays.",
  json: "line",
});
register_program("ln", {
  summary: "gives a file one more name",
  man: "Makes a hard link: one more dentry of the inode. With -s a symbolic link: an inode with a path in it.",
  json: "line",
});
register_program("stat", {
  summary: "what an inode says of a file",
  man: "Bytes, blocks of 512 in the page cache, device and inode number, links, mode, time of the last change.",
  reads: true,
});
register_program("sh", {
  group: "tasks",
  summary: "a shell: pipes, && and ||, < and 2>, of programs",
  man:
    "sh -c runs a line, sh FILE the lines of a file. It knows CMD | CMD, &&, ||, ;, &, <, >, >>, 2>, 2>&1, quotes, cd,\n" +
    "exit and wait. A console line with | in it goes to sh: ls -l / | grep proc. What is the console's own can stand\n" +
    "before the first |: slab dentry | head. /bin has all programs: ls /bin.",
  json: "line",
});
register_program("cowtest", {
  group: "tasks",
  summary: "forks, and writes to shared pages on both sides",
  man:
    "A program fills 16 pages and forks. Parent and child then write to half of them, which\n" +
    "copies those, and each reads what it wrote. See AnonPages in meminfo, pgreuse in vmstat.",
  json: "line",
});
register_program("memhog", {
  group: "tasks",
  summary: "a program that fills so much memory, or all there is",
  man:
    "Maps and fills memory, a MiB at a time. Without a number it goes on until the OOM killer\n" +
    "ends it: dmesg has the report.",
  json: "line",
});
register_program("forkbomb", {
  group: "tasks",
  summary: "forks, as do its children, until no more can be had",
  man: "Each process forks until the limit of processes (RLIMIT_NPROC) or memory ends it, holds on for a second, and ends.",
  json: "line",
});
register_program("usertests", {
  group: "tasks",
  summary: "tries what a program must be able to do, and must not get away with",
  man:
    "Runs one child a test, as xv6's does: files, pipes, fork, exec, kill, bad pointers in every system call, kernel\n" +
    "memory, read-only pages, heaps and stacks without end, forks without end. Memory is counted before and after each.\n" +
    "With words: the tests that have them in their names: usertests pipe.",
  json: "line",
});
