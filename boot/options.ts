/**
 * The command line: options, what each allows, and `--help`. Touches nothing of the kernel, because what a realm is
 * (boot/realm.ts) has to be known before the kernel is loaded.
 */
import { Command, CommanderError, Option } from "commander";
import { VERSION } from "../kernel/version.ts";
import { SLAB_ALLOCATORS } from "./slab_names.ts";

export interface Options {
  /** A preset's name, or a file with a machine as JSON; undefined: the preset `textbook`, resized. */
  readonly machine?: string;
  readonly mem?: string;
  readonly nodes?: string;
  readonly cpus?: string;
  readonly distance?: string;
  readonly smp: "lockstep";
  readonly slab: (typeof SLAB_ALLOCATORS)[number];
  readonly seed: number;
  readonly append: string;
  readonly exec?: string;
  readonly script?: string;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
}

/** Wrong usage: one line that names the option, what was given, and what is allowed. Exit status 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

const EXAMPLES = `
Examples:
  kheap                                           boot and type: tour, map, slab task_struct, help
  kheap --exec "kmalloc 300; slab kmalloc-512"    run commands and leave
  kheap --mem 1G --nodes 4 --cpus 8               another machine
  kheap --machine laptop --seed 7                 a preset: textbook, laptop, server, embedded
  kheap --append "slub_cpu_partial=off loglevel=7"
  kheap --json --exec slabtop                     one JSON value a command
  echo "cat /proc/buddyinfo" | kheap --quiet      commands from standard input
  kheap new module ring                           writes ring.ts, a module to start from, and its test

Exit status: 0 all commands succeeded, 1 one of them failed, 2 wrong usage, 3 the kernel panicked.`;

/** Collects repeated `--append`s into one kernel command line. */
function joined(value: string, before: string): string {
  return before === "" ? value : `${before} ${value}`;
}

function program(): Command {
  return new Command("kheap")
    .description("A toy operating system whose kernel heap is real: boots it, and offers its console.")
    .version(VERSION, "--version", "print the version")
    .helpOption("--help", "print this")
    .option("--mem <size>", "RAM in all, shared evenly over the nodes: 64M, 1G (default: 256M)")
    .option("--nodes <n>", "NUMA nodes (default: 2)")
    .option("--cpus <n>", "CPUs in all (default: 4)")
    .option("--distance <l>", "node distances, rows joined by /: 10,21/21,10 (default: 10 local, 20 remote)")
    .option("--machine <name|file>", "a preset (textbook, laptop, server, embedded), or a machine as JSON")
    .option("--smp <how>", "lockstep: all CPUs in one thread, deterministic", "lockstep")
    .option("--slab <which>", `the slab allocator that is booted: ${SLAB_ALLOCATORS.join(", ")}`, "slub")
    .option(
      "--timing",
      "count cycles: caches, TLBs, NUMA and lock transfers (perf stat); the same as --append timing=on",
    )
    .option("--seed <n>", "the seed of everything random, 0 to 4294967295", "1")
    .addOption(new Option("--append <str>", "kernel command line").argParser(joined).default("", "empty"))
    .option("--exec <cmds>", "run console commands joined by ; then power off")
    .option("--script <file>", "the same from a file, one a line, # comments")
    .option("--json", "one JSON value a command, on one line, instead of text")
    .option("--quiet", "no boot log on the terminal (dmesg has it)")
    .option("--verbose", "the whole boot log as it happens")
    .addOption(new Option("--use <part=file>", "a part of the kernel from a file").hideHelp())
    .addHelpText("after", EXAMPLES)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
}

/** What the option allows, for values that are not there yet or never will be. */
function check_choice(option: string, given: string, now: readonly string[], later: readonly string[] = []): void {
  if (now.includes(given)) return;
  const what = later.includes(given) ? "is not there yet" : "is none of its values";
  throw new UsageError(`--${option} ${given}: ${what}; allowed: ${now.join(", ")}`);
}

/** One line for what commander found wrong. */
function commander_line(error: CommanderError): string {
  const text = error.message.replace(/^error: /, "").replace(/\s*\n\s*/g, " ");
  return `${text}; kheap --help lists all options`;
}

/** Reads the arguments behind the program's name. Undefined: help or the version was printed. */
export function parse_options(argv: readonly string[]): Options | undefined {
  const command = program();
  try {
    command.parse(argv, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    if (error.code === "commander.excessArguments")
      throw new UsageError(`${argv.join(" ")}: kheap takes options only; a command goes behind --exec`);
    throw new UsageError(commander_line(error));
  }
  const given = command.opts<
    Record<string, string> & Partial<Record<"json" | "quiet" | "verbose" | "timing", boolean>>
  >();
  check_choice("smp", given.smp!, ["lockstep"], ["threads"]);
  check_choice("slab", given.slab!, SLAB_ALLOCATORS);
  if (given.use !== undefined) throw new UsageError(`--use ${given.use}: is not there yet; leave it out`);
  const seed = /^\d+$/.test(given.seed!) ? Number(given.seed) : NaN;
  if (!(seed <= 0xffffffff)) throw new UsageError(`--seed ${given.seed}: give a whole number from 0 to 4294967295`);
  if (given.exec !== undefined && given.script !== undefined)
    throw new UsageError(`--exec and --script: give one of them`);
  const { json = false, quiet = false, verbose = false } = given;
  const chosen = [given.slab === "slub" ? "" : `slab=${given.slab}`, given.timing ? "timing=on" : ""];
  const append = [given.append, ...chosen].filter(Boolean).join(" ");
  return { ...given, append, seed, json, quiet, verbose } as unknown as Options;
}
