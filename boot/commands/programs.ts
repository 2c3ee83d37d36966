/** Programs that the console starts by their names, in the foreground: those about memory. */
import { events } from "../../hal/events.ts";
import { local_clock } from "../../hal/clock.ts";
import { is_err, strerror } from "../../kernel/lib/errno.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { spawn } from "../../kernel/program.ts";
import { SIGKILL, do_kill } from "../../kernel/signal.ts";
import { TaskStruct } from "../../kernel/task.ts";
import { CommandError, line, parse_count, register, usage_error, type Context, type Result } from "./registry.ts";

/** Kernel entries between two looks at Ctrl-C. */
const SLICE = 200;

/** Starts a program as a child of init and lets the machine run until it has ended. Its answer is what it logged. */
async function run_program(ctx: Context, name: string, args: readonly number[]): Promise<Result> {
  const started = local_clock();
  const exits = new Map<number, number>();
  const on_exit = ({ pid, code }: { pid: number; code: number }): void => void exits.set(pid, code);
  events.on("task:exit", on_exit);
  try {
    const task = ctx.entry(() => spawn(find_task_by_pid(1), name, args));
    if (is_err(task)) throw new CommandError(`${name}: ${strerror(task)}`);
    const pid = TaskStruct.pid.get(task);
    while (!exits.has(pid) && (await ctx.control.run_entries(SLICE)) > 0)
      if (ctx.cancelled) ctx.entry(() => do_kill(pid, SIGKILL));
    const said = `${name}[${pid}]: `;
    const lines = [...printk_records()]
      .filter(({ ts_nsec, text }) => ts_nsec >= started && text.startsWith(said))
      .map(({ text }) => text.slice(said.length));
    const code = exits.get(pid) ?? 0;
    if ((code & 0xff) !== 0) throw new CommandError([...lines, `${name}: ended by signal ${code & 0xff}`].join("\n"));
    if (code !== 0) throw new CommandError([...lines, `${name}: status ${code >> 8}`].join("\n"));
    return line(lines.join("\n"), lines);
  } finally {
    events.off("task:exit", on_exit);
  }
}

/** Adds a program that takes no argument. */
function register_program(name: string, summary: string, man: string): void {
  register({
    name,
    group: "tasks",
    usage: name,
    summary,
    man,
    run(ctx, args) {
      if (args.length > 0) throw usage_error(this);
      return run_program(ctx, name, []);
    },
  });
}

register_program(
  "cowtest",
  "forks, and writes to shared pages on both sides",
  "A program fills 16 pages and forks. Parent and child then write to half of them, which\n" +
    "copies those, and each reads what it wrote. See AnonPages in meminfo, pgreuse in vmstat.",
);
register_program(
  "usertests",
  "tries what a program must not get away with",
  "A program that runs one child a test, as xv6's does: kernel memory, read-only pages, data\n" +
    "that is run, bad pointers in system calls, heaps and stacks without end, forks without end.",
);
register({
  name: "memhog",
  group: "tasks",
  usage: "memhog [MIB]",
  summary: "a program that fills so much memory, or all there is",
  man:
    "Maps and fills memory, a MiB at a time. Without a number it goes on until the OOM killer\n" +
    "ends it: dmesg has the report.",
  run(ctx, args) {
    if (args.length > 1) throw usage_error(this);
    return run_program(ctx, "memhog", args.length === 0 ? [] : [parse_count("memhog", args[0], 1, 2048)]);
  },
});
