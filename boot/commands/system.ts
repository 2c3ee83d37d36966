/** Commands about the console and the machine as a whole: help, man, dmesg, uptime, jobs, poweroff. */
import { local_clock } from "../../hal/clock.ts";
import { num_online_cpus } from "../../hal/cpu.ts";
import { printk_records, type LogLine } from "../../kernel/lib/printk.ts";
import { get_avenrun } from "../../kernel/sched.ts";
import {
  CommandError, all_commands, command_names, find_command, line, nearest, parse_count, register, usage_error,
  type Command, type Group, type Result,
} from "./registry.ts"; // prettier-ignore

const GROUPS: Readonly<Record<Group, string>> = {
  look: "look at the heap",
  heap: "the heap by hand",
  tasks: "tasks",
  files: "files",
  system: "the machine",
};
const NOTES = `  CMD --json         one JSON value          CMD > FILE, >> FILE   into a file
  CMD --watch [s]    again and again         CMD &                 as a job
  CMD; CMD           one after the other     on CPU CMD            on that CPU
  CMD | CMD          a pipe (man sh)         CMD && CMD, ||        and, or else
man CMD explains a command, help GROUP lists a group; Tab completes; try: tour`;

/** Words as paragraphs of at most `width` columns, later lines indented. */
function wrap(words: readonly string[], width: number, indent: string): string {
  const lines = [""];
  for (const word of words) {
    const last = lines.at(-1)!;
    if (last !== "" && indent.length + last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return lines.join(`\n${indent}`);
}

function help_all(): string {
  const label = (group: string): string => `  ${group}`.padEnd(10);
  const groups = Object.keys(GROUPS).map((group) => {
    const names = all_commands().filter((command) => command.group === group);
    return `${label(group)}${wrap(names.map(({ name }) => name), 80, " ".repeat(10))}`; // prettier-ignore
  });
  return [...groups, "", NOTES].join("\n");
}

function help_group(group: string): string {
  const listed = all_commands().filter((command) => command.group === group);
  const width = Math.max(...listed.map(({ name }) => name.length)) + 2;
  return listed.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`).join("\n");
}

/** Folds one line, what follows its first indented as it is and a little more. */
function fold(text: string, width: number): string {
  if (text.length <= width) return text;
  const indent = /^ */.exec(text)![0];
  return indent + wrap(text.trim().split(/ +/), width, indent === "" ? "" : `${indent}  `);
}

/** Text as paragraphs of the terminal's width; lines that begin with a blank, and empty ones, are their own. */
function fill(text: string, width: number): string {
  const paragraphs: string[] = [];
  let open = false;
  for (const part of text.split("\n")) {
    const stays = part === "" || part.startsWith(" ");
    if (open && !stays) paragraphs.push(`${paragraphs.pop()!} ${part}`);
    else paragraphs.push(part);
    open = !stays;
  }
  return paragraphs.map((part) => fold(part, width)).join("\n");
}

function man_text({ name, aliases = [], summary, usage, man, reads }: Command, width: number): string {
  const forms = usage.split("\n").map((form) => wrap(form.split(" "), width, " ".repeat(9)));
  const extras = [
    ...aliases.map((alias) => `also called ${alias}`),
    ...(reads ? ["takes --watch [s], --count n"] : []),
  ];
  const parts = [fill(`${name}: ${summary}`, width), `usage: ${forms.join("\n       ")}`, fill(man, width)];
  if (extras.length > 0) parts.push(extras.join("; "));
  return parts.join("\n\n");
}

function man_of(name: string, width: number): Result {
  const command = find_command(name);
  if (command) {
    const { aliases = [], summary, usage, man } = command;
    return {
      text: man_text(command, Math.min(width, 100)),
      json: { name: command.name, aliases, summary, usage, man },
    };
  }
  const near = nearest(name, command_names());
  throw new CommandError(`no command "${name}"${near ? `; did you mean "${near}"?` : "; help lists all"}`);
}

register({
  name: "help",
  aliases: ["?"],
  group: "system",
  usage: "help [GROUP|COMMAND]",
  summary: "all commands, or those of a group",
  man: `Lists the commands by group: ${Object.entries(GROUPS).map(([name, what]) => `${name} (${what})`).join(", ")}.`, // prettier-ignore
  complete: () => [...Object.keys(GROUPS), ...command_names()],
  run(ctx, args) {
    if (args.length > 1) throw usage_error(this);
    const [what] = args;
    const json = all_commands().map(({ name, group, usage, summary }) => ({ name, group, usage, summary }));
    if (what === undefined) return { text: help_all(), json };
    if (!Object.hasOwn(GROUPS, what)) return man_of(what, ctx.width);
    return { text: help_group(what), json: json.filter(({ group }) => group === what) };
  },
});

register({
  name: "man",
  group: "system",
  usage: "man COMMAND",
  summary: "what a command does and what its numbers mean",
  man: "Prints the manual of a command.",
  complete: "command",
  run(ctx, args) {
    if (args.length !== 1) throw usage_error(this);
    return man_of(args[0]!, ctx.width);
  },
});

const LEVELS = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/** Levels of a list as dmesg takes it: `warn,err`, `notice+` (and more urgent), `5`. */
function parse_levels(text: string): Set<number> {
  const levels = new Set<number>();
  for (const item of text.split(",")) {
    const name = item.replace(/\+$/, "");
    const level = /^[0-7]$/.test(name) ? Number(name) : LEVELS.indexOf(name);
    if (level < 0) throw new CommandError(`dmesg -l ${item}: allowed: ${LEVELS.join(", ")}, and a + behind one`);
    for (let n = item.endsWith("+") ? 0 : level; n <= level; n++) levels.add(n);
  }
  return levels;
}

register({
  name: "dmesg",
  group: "system",
  usage: "dmesg [-l LEVEL[,LEVEL]…]",
  summary: "the kernel's log",
  man:
    "Prints the log that lies in the kernel's ring buffer, oldest line first, time in seconds since power-on.\n" +
    "-l keeps some levels: dmesg -l err,warn; dmesg -l notice+ (notice and more urgent).",
  reads: true,
  run(_ctx, args) {
    if (args.length > 0 && !(args[0] === "-l" && args.length === 2)) throw usage_error(this);
    const levels = args.length === 2 ? parse_levels(args[1]!) : undefined;
    const kept = [...printk_records()].filter(({ level }: LogLine) => levels?.has(level) ?? true);
    const json = kept.map(({ level, ts_nsec, text }) => ({ level: LEVELS[level], ts_nsec, text }));
    return { text: kept.map((record) => record.line).join("\n"), json };
  },
});

register({
  name: "uptime",
  group: "system",
  usage: "uptime",
  summary: "time since power-on, and the load",
  man:
    "The machine's own time: it passes by kernel entries, 10 ms a console line, and in sleep; never by itself.\n" +
    "The load is the average number of tasks that want to run, over 1, 5 and 15 minutes.",
  reads: true,
  run(_ctx, args) {
    if (args.length > 0) throw usage_error(this);
    const seconds = local_clock() / 1e9;
    const load = get_avenrun();
    return {
      text: ` up ${seconds.toFixed(3)} s,  ${num_online_cpus()} CPUs,  load average: ${load.map((value) => value.toFixed(2)).join(", ")}`,
      json: { seconds, cpus: num_online_cpus(), load },
    };
  },
});

register({
  name: "nproc",
  group: "system",
  usage: "nproc",
  summary: "CPUs online",
  man: "Prints the number of CPUs that are online.",
  reads: true,
  run: () => line(String(num_online_cpus()), num_online_cpus()),
});

register({
  name: "jobs",
  group: "system",
  usage: "jobs",
  summary: "commands that run in the background",
  man:
    "Lists the commands that were started with & and go on between the lines that follow: number, steps done,\n" +
    "command. kill %N ends one early, wait runs them to their end.",
  reads: true,
  run(ctx) {
    const jobs = ctx.control.jobs();
    return { text: jobs.map(({ id, steps, command }) => `[${id}] step ${steps}  ${command}`).join("\n"), json: jobs };
  },
});

register({
  name: "wait",
  group: "system",
  usage: "wait [N]",
  summary: "runs background jobs to their end",
  man: "Waits for job N, or for all.",
  async run(ctx, args) {
    const id = args.length > 0 ? parse_count("wait", args[0], 1, 1e9) : undefined;
    if (id !== undefined && !ctx.control.jobs().some((job) => job.id === id))
      throw new CommandError(`wait: no job ${id}`);
    await ctx.control.wait_jobs(id);
    return line("", null);
  },
});

register({
  name: "poweroff",
  aliases: ["exit", "quit", "halt"],
  group: "system",
  usage: "poweroff",
  summary: "ends everything and counts what is left over",
  man:
    "Gives back what the console's own commands hold (and names it), ends all tasks, takes the file systems down, and\n" +
    "counts free pages, live objects and held locks against the figures from before the first program: all 0, unless\n" +
    "something leaks. Ctrl-D does the same.",
  run: (ctx) => ctx.control.power_off(),
});
