/** Commands about tasks: ps, fork, kill, and letting the machine run. */
import { px } from "../../hal/addr.ts";
import { is_err, strerror } from "../../kernel/lib/errno.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { spawn } from "../../kernel/program.ts";
import { do_kill } from "../../kernel/signal.ts";
import {
  PF_KTHREAD,
  TaskStruct,
  for_each_process,
  task_ppid,
  task_state_char,
  type TaskPtr,
} from "../../kernel/task.ts";
import { CommandError, line, parse_count, register, usage_error } from "./registry.ts";

function task_row(task: TaskPtr) {
  const comm = TaskStruct.comm.get(task);
  return {
    pid: TaskStruct.pid.get(task),
    ppid: task_ppid(task),
    state: task_state_char(task),
    cpu: TaskStruct.cpu.get(task),
    entries: TaskStruct.utime.get(task),
    task_struct: px(task),
    command: TaskStruct.flags.get(task) & PF_KTHREAD ? `[${comm}]` : comm,
  };
}

register({
  name: "ps",
  group: "tasks",
  usage: "ps",
  summary: "tasks, with the addresses of their task_struct",
  man:
    "PID, parent, state (R runs or wants to, S and D sleep, Z ended), CPU, kernel entries run, the address of the\n" +
    "task_struct (for explain and peek), command; kernel threads in brackets.",
  reads: true,
  run(_ctx, args) {
    if (args.length > 0) throw usage_error(this);
    const rows = [...for_each_process()].map(task_row);
    const text = rows.map(
      (row) =>
        `${String(row.pid).padStart(5)} ${String(row.ppid).padStart(5)} ${row.state} ${String(row.cpu).padStart(3)} ` +
        `${String(row.entries).padStart(8)} ${row.task_struct} ${row.command}`,
    );
    return { text: ["  PID  PPID S CPU  ENTRIES TASK_STRUCT      COMMAND", ...text].join("\n"), json: rows };
  },
});

register({
  name: "fork",
  group: "tasks",
  usage: "fork [N]",
  summary: "makes N tasks that sleep",
  man:
    "Starts N tasks (1 by default) of a small program that holds its memory and sleeps: each has a task_struct, a\n" +
    "kernel stack of 4 pages, a pid, files, a journal. See ps and slab task_struct; kill all NAME or kill PID ends them.",
  run(_ctx, args) {
    if (args.length > 1) throw usage_error(this);
    const count = args.length === 0 ? 1 : parse_count("fork", args[0], 1, 100000);
    const init = find_task_by_pid(1);
    if (!init) throw new CommandError("fork: there is no init to be the parent");
    const pids: number[] = [];
    while (pids.length < count) {
      const task = spawn(init, "sleep", []);
      if (is_err(task)) throw new CommandError(`fork: ${pids.length} of ${count} made, then: ${strerror(task)}`);
      pids.push(TaskStruct.pid.get(task));
    }
    const range = count === 1 ? `pid ${pids[0]}` : `${count} tasks, pids ${pids[0]} to ${pids.at(-1)}`;
    return line(range, pids);
  },
});

const SIGNALS: Readonly<Record<string, number>> = { HUP: 1, INT: 2, QUIT: 3, ABRT: 6, KILL: 9, SEGV: 11, TERM: 15 };

function parse_signal(text: string): number {
  const name = text.slice(1).replace(/^SIG/, "");
  const signal = /^\d+$/.test(name) ? Number(name) : SIGNALS[name];
  if (signal === undefined || signal > 31)
    throw new CommandError(`kill ${text}: allowed: ${Object.keys(SIGNALS).map((known) => `-${known}`).join(" ")}, -0 to -31`); // prettier-ignore
  return signal;
}

/** The pids that an argument of kill names: a number, or all tasks of a program. */
function pids_of(arg: string): number[] {
  if (/^\d+$/.test(arg)) {
    if (find_task_by_pid(Number(arg))) return [Number(arg)];
    throw new CommandError(`kill ${arg}: no task has this pid`);
  }
  const pids = [...for_each_process()]
    .filter((task) => TaskStruct.comm.get(task) === arg)
    .map((task) => TaskStruct.pid.get(task));
  if (pids.length === 0) throw new CommandError(`kill ${arg}: no task has this name`);
  return pids;
}

register({
  name: "kill",
  group: "tasks",
  usage: "kill [-SIGNAL] PID|NAME…\nkill %JOB",
  summary: "sends tasks a signal, which ends them",
  man:
    "Sends SIGTERM, or another signal (-KILL, -9), to tasks by pid or to all tasks of a name. A task ends at the start\n" +
    "of its next kernel entry. init and kernel threads ignore signals. kill %1 ends background job 1 early.",
  complete: () => [...for_each_process()].map((task) => String(TaskStruct.pid.get(task))),
  async run(ctx, args) {
    const has_signal = args[0]?.startsWith("-") ?? false;
    const signal = has_signal ? parse_signal(args[0]!) : 15;
    const targets = args.slice(has_signal ? 1 : 0);
    if (targets.length === 0) throw usage_error(this);
    const jobs = targets.filter((target) => target.startsWith("%"));
    const pids = targets.filter((target) => !target.startsWith("%")).flatMap(pids_of);
    for (const pid of pids) {
      const error = do_kill(pid, signal);
      if (error !== 0) throw new CommandError(`kill -${signal} ${pid}: ${strerror(error)}`);
    }
    for (const job of jobs)
      if (!(await ctx.control.kill_job(Number(job.slice(1))))) throw new CommandError(`kill ${job}: no such job`);
    return line("", pids);
  },
});

register({
  name: "sleep",
  group: "tasks",
  usage: "sleep SECONDS",
  summary: "lets the machine's time pass",
  man: "Lets the machine run until so many seconds of its own time are over; the host does not wait.",
  async run(ctx, args) {
    const seconds = Number(args[0]);
    if (args.length !== 1 || !(seconds > 0 && seconds <= 86400))
      throw usage_error(this, "sleep: 0.001 to 86400 seconds");
    await ctx.control.run_for(seconds);
    return line("", null);
  },
});

register({
  name: "run",
  group: "tasks",
  usage: "run N",
  summary: "lets the scheduler run N kernel entries",
  man:
    "Each entry is one step of a task, on the CPU that the seed picks; when all CPUs are idle, time goes on to the next\n" +
    "timer. Prints how many were run: fewer if nothing is left that will ever want to run.",
  async run(ctx, args) {
    const count = parse_count("run", args[0], 1, 1e9);
    const done = await ctx.control.run_entries(count);
    return line(`${done} entries`, done);
  },
});
