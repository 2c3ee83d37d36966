/** `perf stat`: what a command cost on the modelled hardware (hal/timing.ts), in the look of Linux's perf. */
import { timing_functions, timing_on, timing_read, timing_since, type FunctionFigures, type TimingFigures } from "../../hal/timing.ts"; // prettier-ignore
import { quote } from "./figures.ts";
import { CommandError, register, usage_error, type Context, type Result } from "./registry.ts";

const number = (value: number): string => value.toLocaleString("en-US");
const percent = (part: number, whole: number): string => `${((100 * part) / (whole || 1)).toFixed(2)}%`;

/** A counter's line: the figure, its name, and what it is a part of. */
function counter_line(value: number, name: string, note = ""): string {
  return `${number(value).padStart(18)}      ${note === "" ? name : `${name.padEnd(22)} # ${note}`}`;
}

function stat_lines(stat: TimingFigures): string[] {
  const accesses = stat.loads + stat.stores;
  return [
    counter_line(stat.cycles, "cycles", `${(stat.cycles / (accesses || 1)).toFixed(2)} per access`),
    counter_line(stat.functions, "calls", "of functions of mm/"),
    counter_line(stat.loads, "L1-dcache-loads"),
    counter_line(stat.stores, "L1-dcache-stores"),
    counter_line(stat.l1_misses, "L1-dcache-misses", `${percent(stat.l1_misses, accesses)} of all accesses`),
    counter_line(stat.l2_misses, "L2-misses", `${percent(stat.l2_misses, stat.l1_misses)} of L1-dcache-misses`),
    counter_line(stat.local_memory, "node-loads-local"),
    counter_line(stat.remote_memory, "node-loads-remote"),
    counter_line(stat.transfers, "line-transfers", "from or taken from another CPU's cache"),
    counter_line(stat.tlb_misses, "dTLB-misses", `${percent(stat.tlb_misses, accesses)} of all accesses`),
    counter_line(stat.atomics, "atomics", "locks included"),
    counter_line(stat.locks, "locks"),
    counter_line(stat.lock_waits, "lock-waits", `${percent(stat.lock_waits, stat.locks)} of locks`),
  ];
}

/** What each function did between two readings, most cycles first; those that did nothing are left out. */
function functions_since(before: readonly FunctionFigures[]): FunctionFigures[] {
  return timing_functions()
    .map(({ name, calls, cycles }, i) => ({
      name,
      calls: calls - (before[i]?.calls ?? 0),
      cycles: cycles - (before[i]?.cycles ?? 0),
    }))
    .filter(({ calls, cycles }) => calls > 0 || cycles > 0)
    .sort((a, b) => b.cycles - a.cycles || b.calls - a.calls || (a.name < b.name ? -1 : 1));
}

function function_lines(rows: readonly FunctionFigures[], all: number): string[] {
  const line = (cycles: string, part: string, calls: string, each: string, name: string): string =>
    `${cycles.padStart(18)} ${part.padStart(7)} ${calls.padStart(12)} ${each.padStart(12)}  ${name}`;
  return [
    line("cycles", "", "calls", "cycles/call", "function"),
    ...rows.map(({ name, calls, cycles }) => {
      const each = calls === 0 ? "" : number(Math.round(cycles / calls));
      return line(number(cycles), percent(cycles, all), calls === 0 ? "" : number(calls), each, name);
    }),
  ];
}

async function stat(ctx: Context, words: readonly string[], by_function: boolean): Promise<Result> {
  const command = words.map(quote).join(" ");
  const functions = timing_functions();
  const before = timing_read();
  const answer = await ctx.run_line(command, { cpu: ctx.cpu });
  const figures = timing_since(before);
  const rows = by_function ? functions_since(functions) : [];
  const lines = [
    ...(answer.text === "" ? [] : [answer.text, ""]),
    ` Performance counter stats for '${command}':`,
    "",
    ...stat_lines(figures),
    ...(by_function ? ["", ...function_lines(rows, figures.cycles)] : []),
  ];
  const json = { command, answer: answer.json, ...figures, ...(by_function && { functions: rows }) };
  return { text: lines.join("\n"), json, ...(answer.failed && { failed: true }) };
}

register({
  name: "perf",
  group: "look",
  usage: "perf stat [--functions] COMMAND",
  summary: "runs a command and counts its cycles, misses and lock waits",
  man: `Runs a command on a machine whose accesses to RAM are timed (boot with
--timing, or --append timing=on), and prints what they came to:

  cycles          each access by the level that served it, 10 for a call of a
                  function of mm/, a fixed charge for an atomic operation
  L1-dcache-...   accesses, and those that L1 could not serve; a block operation
                  is one for each line of 64 bytes
  L2-misses       those that L2 could not serve either; they come from memory of
                  the CPU's own node, of another, or from another CPU's cache
  line-transfers  lines that came from another CPU's cache, or were taken away
                  from it to be written
  dTLB-misses     translations that had to be walked for
  lock-waits      locks taken whose line was in another CPU's cache: in lockstep
                  nobody spins, so this is where it would at least have waited

--functions adds the functions of mm/ with their own cycles: those of what they
called in mm/ are not in them, those of kernel/lib are. (kernel) is the rest of
the kernel. Instructions are not simulated. Printing touches no RAM, but kernel
functions that a command calls to look something up count too; so does what
other jobs do meanwhile.

    perf stat --functions kmem alloc dentry 100`,
  complete: (args) => (args.length === 1 ? ["stat"] : []),
  run(ctx, [what, ...words]) {
    const by_function = words[0] === "--functions";
    const command = by_function ? words.slice(1) : words;
    if (what !== "stat" || command.length === 0) throw usage_error(this);
    if (!timing_on) throw new CommandError("perf stat: this machine counts no cycles; boot it with --timing");
    return stat(ctx, command, by_function);
  },
});
