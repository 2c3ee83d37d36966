/**
 * What the article behind this project says of the allocators, and whether it holds here: `compare --claims`.
 *
 *     small and large    every workload on the machines embedded and server, under each allocator
 *     growing            every workload, once for each CPU, on a machine of 1 CPU, of 4 on 2 nodes, of 8 on 4
 *
 * A case is a workload on a machine. A claim holds if it holds in every case; where it does not, in how many it does.
 * Where an allocator has no figures because it ran out of memory and the others did not, that decides the case.
 */
import { basename } from "node:path";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { CommandError, type Context } from "../commands/registry.ts";
import { compare_all, type Column, type Comparison, type Request } from "./compare.ts";
import { parse_config } from "./config.ts";
import { aligned, grouped } from "./table.ts";
import { BUILT_IN_NAMES, parse_workload, type Workload } from "./workload.ts";

const RECORDINGS: readonly string[] = [
  "traces/fork-shell.trace.gz", "traces/fs-walk.trace.gz", "malloclab/lsr.rep.gz", "malloclab/perl.rep.gz",
  "malloclab/sqlite.rep.gz", "malloclab/tarx.rep.gz",
]; // prettier-ignore
const MACHINES: readonly string[] = ["embedded", "server"];
const SIZES: readonly (readonly [cpus: number, nodes: number])[] = [[1, 1], [4, 2], [8, 4]]; // prettier-ignore
const IDLE_SECONDS = 60;

/** What one case shows. */
interface Case {
  readonly workload: string;
  readonly machine: string;
  /** Null: nothing can be said. */
  readonly holds: boolean | null;
  readonly numbers: Numbers;
}
export interface Claim {
  readonly allocator: string;
  /** What the article says. */
  readonly says: string;
  /** What is measured, and what would make it true. */
  readonly means: string;
  readonly holds: boolean;
  readonly in: number;
  readonly of: number;
  readonly cases: readonly Case[];
  /** Shows one case. */
  readonly command: string;
}

/** All nine workloads; a CommandError that names a recording that is not there. */
export function all_workloads(folder: string): Workload[] {
  try {
    return [...RECORDINGS.map((name) => `${folder}/${name}`), ...BUILT_IN_NAMES].map(parse_workload);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new CommandError(`${error.message}; the recordings are in the source tree: compare --claims FOLDER`);
  }
}

function sized(cpus: number, nodes: number): MachineSpec {
  const machine = machine_from_options({ preset: "server", cpus, nodes });
  if (typeof machine === "string") throw new CommandError(`compare: ${machine}`);
  return machine;
}

/** A figure of a column; undefined if it has none. */
type Figure = (column: Column) => number | undefined;
const internal: Figure = ({ memory }) => memory?.internal;
const free_after_boot: Figure = ({ memory }) => memory?.before.free;
const metadata: Figure = ({ memory }) => memory?.peak.metadata;
const kept: Figure = ({ memory }) => memory?.rest.cached;
const cycles: Figure = ({ timing }) => timing?.cycles.mean;
const l1_misses: Figure = ({ timing }) => timing?.run.l1_misses;
const l2_misses: Figure = ({ timing }) => timing?.run.l2_misses;
const idle_cycles: Figure = ({ timing }) => timing?.idle.cycles;
const lock_waits: Figure = ({ timing }) => timing && (1000 * timing.run.lock_waits) / timing.operations;

type Numbers = Readonly<Record<string, number | null>>;

/** A figure of the configurations named, by name; null where one ran out of memory. */
function numbers({ columns }: Comparison, figure: Figure, names: readonly string[]): Numbers {
  const value = (name: string): number | null => {
    const column = columns.find(({ config }) => config === name);
    if (!column || column.died !== undefined || (column.memory ?? column.timing)!.failed > 0) return null;
    return figure(column) ?? null;
  };
  return Object.fromEntries(names.map((name) => [name, value(name)]));
}

/** True if `of` is above (`sign` 1) or below (-1) all the others; an allocator that ran out of memory is beyond all. */
function is_beyond(values: Numbers, of: string, sign: 1 | -1): boolean | null {
  const own = values[of]!;
  const others = Object.entries(values).filter(([name]) => name !== of).map(([, value]) => value); // prettier-ignore
  if (others.includes(null)) return null;
  return own === null ? sign === 1 : others.every((other) => sign * (own - other!) > 0);
}

function judge(allocator: string, says: string, means: string, command: string, cases: readonly Case[]): Claim {
  const decided = cases.filter(({ holds }) => holds !== null);
  const holding = decided.filter(({ holds }) => holds).length;
  const holds = holding === decided.length && holding > 0;
  return { allocator, says, means, holds, in: holding, of: decided.length, cases, command };
}

const case_of = (found: Comparison, values: Numbers, holds: boolean | null): Case => ({
  workload: basename(found.workload),
  machine: found.machine,
  holds,
  numbers: values,
});

const ALL: readonly string[] = ["slub", "slab", "slob"];

/** What the runs on the small and the large machine show. */
function claims_of_machines(found: readonly Comparison[]): Claim[] {
  const each = (figure: Figure, names: readonly string[], of: string, sign: 1 | -1): Case[] =>
    found.map((one) => {
      const values = numbers(one, figure, names);
      return case_of(one, values, is_beyond(values, of, sign));
    });
  const colours = ["slab", "slab:colour=off"];
  const coloured = found.map((one) => {
    const [l1, l2] = [numbers(one, l1_misses, colours), numbers(one, l2_misses, colours)];
    const values = { "L1": l1["slab"]!, "L1, off": l1["slab:colour=off"]!, "L2": l2["slab"]!, "L2, off": l2["slab:colour=off"]! }; // prettier-ignore
    return case_of(one, values, is_beyond(l1, "slab", -1));
  });
  const [small] = found.filter(({ machine }) => machine === "embedded");
  const free = numbers(small!, free_after_boot, ALL);
  return [
    judge("buddy", "a request for 300 bytes takes a page", internal_means, ONE, each(internal, ["buddy", ...ALL], "buddy", 1)),
    judge("slob", "very compact", "free pages after boot on embedded: the most", "compare WORKLOAD --machine embedded", [
      { workload: "boot", machine: "embedded", numbers: free, holds: is_beyond(free, "slob", 1) },
    ]),
    judge("slob", "not performant", "cycles an operation, mean: the most", `${ONE} --timing`, each(cycles, ALL, "slob", 1)),
    judge("slab", "cache efficient", "L1 misses: fewer with colouring than without", `${COLOURS} --timing`, coloured),
    judge("slab", "wastes lot of memory", `${kept_means}: the most`, ONE, each(kept, ALL, "slab", 1)),
    judge("slab", "wastes lot of memory", metadata_means, ONE, each(metadata, ALL, "slab", 1)),
    judge("slab", "wastes the CPU cycles", idle_means, `${ONE} --timing --idle ${IDLE_SECONDS}`, each(idle_cycles, ALL, "slab", 1)),
  ]; // prettier-ignore
}
const ONE = "compare WORKLOAD slub slab slob buddy --machine MACHINE";
const COLOURS = "compare WORKLOAD slab slab:colour=off --machine MACHINE";
const internal_means = "bytes lost to rounding at the peak: more than under each slab allocator";
const kept_means = "bytes of free slots kept on CPUs and in arrays, at rest";
const metadata_means = "bytes of arrays, index arrays, descriptors and the like, at the peak: the most";
const idle_means = `cycles of all timers in ${IDLE_SECONDS} idle seconds (under SLUB and SLOB nothing is reaped): the most`;

/** What the runs on the growing machine show; a workload's runs come one after the other. */
function claims_of_growth(found: readonly Comparison[]): Claim[] {
  const both = ["slub", "slab"];
  const grown = (figure: Figure): Case[] =>
    Array.from({ length: found.length / SIZES.length }, (_, i) => {
      const sizes = found.slice(i * SIZES.length, (i + 1) * SIZES.length).map((one) => numbers(one, figure, both));
      const values = both.flatMap((name) => sizes.map((one, at) => [`${name} ${SIZES[at]!.join("/")}`, one[name]!] as const)); // prettier-ignore
      return case_of(found[i * SIZES.length]!, Object.fromEntries(values), is_beyond(sizes.at(-1)!, "slub", -1));
    });
  const [says, command] = ["useful for large system", 'kheap --machine server --cpus 8 --nodes 4 --exec "compare WORKLOAD slub slab --each-cpu --timing"']; // prettier-ignore
  return [
    judge("slub", says, `${kept_means}, by CPUs/nodes: at 8/4 fewer than SLAB`, command, grown(kept)),
    judge("slub", says, "lock waits in 1000 operations, by CPUs/nodes: at 8/4 fewer than SLAB", command, grown(lock_waits)),
  ]; // prettier-ignore
}

/** Runs the workloads and judges. */
export async function claims(ctx: Context, workloads: readonly Workload[], seed: number): Promise<Claim[]> {
  const base = { seed, append: "", timing: true };
  const configs = ["slub", "slab", "slob", "buddy", "slab:colour=off"].map(parse_config);
  const only = { buddy: "measure", "slab:colour=off": "time" } as const; // the only figures of these that a claim is about
  const small_and_large = workloads.flatMap((workload) =>
    MACHINES.map((name): Request => ({ ...base, workload, configs, only, machine: PRESETS[name]!, copies: 1, idle: IDLE_SECONDS })),
  ); // prettier-ignore
  const growing = workloads.flatMap((workload) =>
    SIZES.map(([cpus, nodes]): Request => ({ ...base, workload, configs: configs.slice(0, 2), machine: sized(cpus, nodes), copies: cpus, idle: 0 })),
  ); // prettier-ignore
  const found = await compare_all(ctx, [...small_and_large, ...growing]);
  const [machines, growth] = [found.slice(0, small_and_large.length), found.slice(small_and_large.length)];
  return [...claims_of_machines(machines), ...claims_of_growth(growth)];
}

const verdict = ({ holds, in: yes, of }: Claim): string => `${holds ? "holds" : "does not"} (${yes} of ${of})`;

function shown(value: number | null): string {
  if (value === null) return "no memory";
  return Number.isInteger(value) ? grouped(value) : value.toFixed(value < 10 ? 3 : 1);
}

/** The verdicts, then each claim's cases. */
export function claims_text(all: readonly Claim[]): string {
  const rows = all.map((one) => [one.allocator.toUpperCase(), `"${one.says}"`, verdict(one), one.means]);
  const widths = [0, 1, 2].map((i) => Math.max(...rows.map((row) => row[i]!.length)));
  const summary = rows.map((row) => row.map((cell, i) => (i < 3 ? cell.padEnd(widths[i]!) : cell)).join("  "));
  const details = all.map((one) => {
    const names = Object.keys(one.cases[0]!.numbers);
    const table = one.cases.map(({ workload, machine, holds, numbers: values }) => [
      `${workload} on ${machine}`, ...names.map((name) => shown(values[name]!)), holds === null ? "-" : holds ? "yes" : "no",
    ]); // prettier-ignore
    const title = `${one.allocator.toUpperCase()}, "${one.says}": ${verdict(one)}\n  ${one.means}`;
    return [title, ...aligned([["", ...names, ""], ...table], 30, 8).map((text) => `  ${text}`), `  again: ${one.command}`].join("\n"); // prettier-ignore
  });
  return [summary.join("\n"), ...details].join("\n\n");
}
