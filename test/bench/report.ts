/** Tables for people, one JSON object for programs, and a summary against the goals. */
import { cpus } from "node:os";
import type { BootFigures } from "./boot.ts";
import { GOALS, GROWTH_GOAL, MEMORY_GOALS, RSS_GOAL_BYTES, met } from "./goals.ts";
import type { Results, Spread } from "./results.ts";
import { GROWTH, KHEAP, LIMIT, SUBJECTS, SYSTEM, VM, type GrowthPoint } from "./subjects.ts";
import { SYSTEM_WORKLOADS, VM_WORKLOADS, WORKLOADS } from "./workloads.ts";

const MIB = 1024 * 1024;
const NAME_WIDTH = 28;

/** Three digits, as short as they go. */
export function digits(value: number): string {
  if (value >= 100) return String(Math.round(value));
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function range(value: Spread | undefined): string {
  if (!value) return "–".padStart(7).padEnd(23);
  return `${digits(value.median).padStart(7)} ${`(${digits(value.min)}–${digits(value.max)})`.padEnd(15)}`;
}

function time_text(ns: number): string {
  if (ns >= 1e7) return `${digits(ns / 1e6)} ms`;
  return ns >= 1e4 ? `${digits(ns / 1e3)} µs` : `${digits(ns)} ns`;
}

export function machine_name(): string {
  const all = cpus();
  return `${all[0]?.model.trim() ?? "unknown"}, ${all.length} CPUs, ${process.platform} ${process.arch}`;
}

const what_of = (figure: string): string =>
  [...WORKLOADS, ...SYSTEM_WORKLOADS, ...VM_WORKLOADS].find(({ figures }) => figures.includes(figure))?.what ?? "";

/** A block a figure, a line a subject. */
export function workloads_text(results: Results): string {
  const figures = results.figures();
  if (figures.length === 0) return "";
  const head = `${machine_name()}, Node ${process.version}. Median (least–greatest) of the rounds; × L1 by the L1 of the same moment.`;
  return [head, ...figures.map((figure) => figure_text(results, figure))].join("\n\n");
}

/** Figures of kheap alone: what others have nothing to set beside. */
function has_no_peer(results: Results, figure: string): boolean {
  return results.subjects(figure).some((name) => name === SYSTEM.name || name === VM.name);
}

function figure_text(results: Results, figure: string): string {
  const is_system = has_no_peer(results, figure);
  const columns = `${"".padEnd(NAME_WIDTH)}${"time".padStart(10)}  ${"× L1".padStart(7).padEnd(23)}${is_system ? "" : "× limit".padStart(9)}`;
  const rows = results.subjects(figure).map((name) => {
    const time = time_text(results.ns(figure, name)!.median).padStart(10);
    const limit = is_system ? "" : range(results.vs_limit(figure, name));
    return `  ${name.padEnd(NAME_WIDTH - 2)}${time}  ${range(results.vs_l1(figure, name))}${limit}`.trimEnd();
  });
  return [`${figure}: ${what_of(figure)}`, columns, ...rows, ...memory_rows(results, figure)].join("\n");
}

function memory_rows(results: Results, figure: string): string[] {
  const workload = figure.replace(/ .*/, "");
  if (figure === "W4 free") return [];
  return results.subjects(figure).flatMap((name) => {
    const memory = results.memory(workload, name);
    if (!memory) return [];
    const { asked, classes, used } = memory;
    const of_classes = name.startsWith("kheap") ? `, ${digits(classes / used)} of what the size classes allow` : "";
    return [
      `  bytes used, ${name}: ${(used / MIB).toFixed(1)} MiB; asked for is ${digits(asked / used)} of it${of_classes}`,
    ];
  });
}

/** A point against the first of its curve, both in their own L1. */
function growth_of(growth: Results, point: GrowthPoint): Spread | undefined {
  const first = GROWTH.find(({ curve }) => curve === point.curve)!;
  return growth.versus("W1", point.name, first.name);
}

export function growth_text(growth: Results): string {
  if (growth.figures().length === 0) return "";
  const lines = GROWTH.filter(({ name }) => growth.subjects("W1").includes(name)).map((point) => {
    const label = `  ${point.curve.padEnd(14)}${point.value.padStart(6)}`;
    return `${label}  ${range(growth.vs_l1("W1", point.name))}${range(growth_of(growth, point))}`.trimEnd();
  });
  const head = `${"".padEnd(24)}${"× L1".padStart(7).padEnd(23)}${"× first".padStart(7)}`;
  return ["Growth: a pair of W1 (10^4 objects live, where not said otherwise)", head, ...lines].join("\n");
}

export function boot_text(boots: readonly BootFigures[]): string {
  if (boots.length === 0) return "";
  const lines = boots.map(
    ({ mem, start, boot, rss, rss_loaded }) =>
      `  ${mem.padStart(6)}  boot ${range({ median: boot.median / 1e6, min: boot.min / 1e6, max: boot.max / 1e6 })} ms` +
      `  whole process ${digits(start.median / 1e6)} ms  resident ${(rss / MIB).toFixed(0)} MiB` +
      ` (${(rss_loaded / MIB).toFixed(0)} before boot)`,
  );
  return ["Boot, init's programs included, and resident memory, by RAM size", ...lines].join("\n");
}

const SIGN = { met: "  ", near: "~ ", missed: "! " } as const;

function goal_line(name: string, value: number, limit: number, unit: string, at_least = false): string {
  const verdict = met(value, limit, at_least);
  const words = { met: "met", near: "missed by at most a quarter", missed: "missed" };
  return `${SIGN[verdict]}${name.padEnd(26)}${digits(value).padStart(8)}  goal ${at_least ? "≥" : "≤"} ${limit} ${unit}  ${words[verdict]}`;
}

/** kheap's default machine against the goals, and the rows in which somebody else is faster. */
export function summary_text(results: Results, growth: Results, boots: readonly BootFigures[]): string {
  const lines: string[] = [];
  for (const { figure, limit, unit } of GOALS) {
    const value = unit === "× L1" ? results.vs_l1(figure, KHEAP) : results.vs_limit(figure, KHEAP);
    if (value) lines.push(goal_line(figure, value.median, limit, unit));
  }
  for (const { workload, least } of MEMORY_GOALS) {
    const memory = results.memory(workload, KHEAP);
    if (memory) lines.push(goal_line(`${workload} bytes`, memory.classes / memory.used, least, "of the classes", true));
  }
  for (const point of GROWTH) {
    const value = growth_of(growth, point);
    if (value) lines.push(goal_line(point.name, value.median, GROWTH_GOAL, "× the first point"));
  }
  const [base, most] = [boots.find(({ mem }) => mem === "256M"), boots.find(({ mem }) => mem === "2G")];
  if (base && most) {
    const more = (most.rss - base.rss) / MIB;
    lines.push(goal_line("resident, 2G - 256M", Math.max(0, more), RSS_GOAL_BYTES / MIB, "MiB"));
  }
  if (lines.length === 0) return "";
  return [`Against the goals (${KHEAP}):`, ...lines, ...ahead_of_kheap(results)].join("\n");
}

/** Rows in which a peer is faster than kheap's default machine. */
function ahead_of_kheap(results: Results): string[] {
  const peers = SUBJECTS.filter(({ name }) => name !== LIMIT && !name.startsWith("kheap"));
  const rows = results.figures().flatMap((figure) =>
    peers.flatMap(({ name }) => {
      const ratio = results.versus(figure, name, KHEAP);
      return ratio && ratio.median < 1 ? [`  ${figure}: ${name}, ${digits(ratio.median)} of kheap's time`] : [];
    }),
  );
  return rows.length > 0 ? ["Ahead of kheap:", ...rows] : [];
}

const cells = (list: readonly string[]): string => `| ${list.join(" | ")} |`;

/** The medians × L1 as a table for a README; `goal` is kheap's default machine against its goal. */
export function markdown_text(results: Results): string {
  const figures = results.figures().filter((figure) => !has_no_peer(results, figure));
  const line = (name: string): string[] => {
    const values = figures.map((figure) => results.vs_l1(figure, name));
    return values.some(Boolean) ? [cells([name, ...values.map((value) => (value ? digits(value.median) : "–"))])] : [];
  };
  const goals = figures.map((figure) => {
    const goal = GOALS.find((one) => one.figure === figure);
    if (!goal) return "";
    const value = goal.unit === "× L1" ? results.vs_l1(figure, KHEAP) : results.vs_limit(figure, KHEAP);
    return value ? `${digits(value.median)} of ${goal.limit} ${goal.unit}` : "";
  });
  return [
    cells(["× L1", ...figures]),
    cells(["---", ...figures.map(() => "--:")]),
    ...SUBJECTS.flatMap(({ name }) => line(name)),
    cells(["goal of kheap slub", ...goals]),
  ].join("\n");
}

interface Row {
  readonly workload: string;
  readonly subject: string;
  readonly ns: number;
  readonly min: number;
  readonly max: number;
  readonly vs_limit: number | null;
}

const row = (workload: string, subject: string, ns: Spread, vs_limit: number | null): Row => ({
  workload, subject, ns: ns.median, min: ns.min, max: ns.max, vs_limit,
}); // prettier-ignore

export function json_text(results: Results, growth: Results, boots: readonly BootFigures[]): string {
  const rows_of = (from: Results): Row[] =>
    from
      .figures()
      .flatMap((figure) =>
        from
          .subjects(figure)
          .map((name) => row(figure, name, from.ns(figure, name)!, from.vs_limit(figure, name)?.median ?? null)),
      );
  const l1 = results.l1();
  const rows = [
    ...(l1 ? [row("L1", "L1", l1, null)] : []),
    ...rows_of(results),
    ...rows_of(growth).map((growing) => ({ ...growing, workload: "growth" })),
    ...boots.map(({ mem, boot }) => row("boot", `kheap slub, ${mem}`, boot, null)),
  ];
  return JSON.stringify({ machine: machine_name(), node: process.version, rows });
}
