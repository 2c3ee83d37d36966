/** A comparison as text: a row a figure, a column a configuration. */
import { basename } from "node:path";
import { plural } from "../figures/names.ts";
import type { Column, Comparison } from "./compare.ts";

const LABEL = 34;
const LEAST = 9;

/** 1234567 as 1,234,567. */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

interface Row {
  readonly label: string;
  readonly cell: (column: Column) => string | undefined;
}

type Memory = NonNullable<Column["memory"]>;
type Timing = NonNullable<Column["timing"]>;
const memory = (label: string, cell: (m: Memory) => string): Row => ({
  label,
  cell: (c) => c.memory && cell(c.memory),
});
const timing = (label: string, cell: (t: Timing) => string): Row => ({
  label,
  cell: (c) => c.timing && cell(c.timing),
});
/** A count for each operation. */
const each = (count: number, { operations }: { operations: number }): string => (count / Math.max(operations, 1)).toFixed(3); // prettier-ignore

const ROWS: readonly Row[] = [
  memory("free pages        before", (m) => grouped(m.before.free)),
  memory("slab pages        before", (m) => grouped(m.before.pages)),
  memory("                  at the peak", (m) => grouped(m.peak.pages)),
  memory("                  at most", (m) => grouped(m.most_pages)),
  memory("                  at the end", (m) => grouped(m.end.pages)),
  memory("internal, bytes   at the peak", (m) => grouped(m.internal)),
  memory("external, bytes   at the peak", (m) => grouped(m.peak.unlent)),
  memory("                  at the end", (m) => grouped(m.end.unlent)),
  memory("kept, bytes       at rest", (m) => grouped(m.rest.cached)),
  memory("                  after idling", (m) => grouped(m.after_idle.cached)),
  memory("metadata, bytes   at the peak", (m) => grouped(m.peak.metadata)),
  memory("bytes grown for a byte asked", (m) => m.overhead.toFixed(3)),
  memory("list operations", (m) => grouped(m.list_operations)),
  memory("locks taken", (m) => grouped(m.locks)),
  timing("cycles            mean", (t) => t.cycles.mean.toFixed(1)),
  timing("                  99 of 100 within", (t) => grouped(t.cycles.p99)),
  timing("L1 misses         an operation", (t) => each(t.run.l1_misses, t)),
  timing("L2 misses         an operation", (t) => each(t.run.l2_misses, t)),
  timing("remote memory     an operation", (t) => each(t.run.remote_memory, t)),
  timing("lock waits", (t) => grouped(t.run.lock_waits)),
  timing("cycles            while idling", (t) => grouped(t.idle.cycles)),
];

/** Lines of cells, the first to the left, the others to the right. */
export function aligned(rows: readonly (readonly string[])[], label = LABEL, least = LEAST): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(i === 0 ? label : least, ...rows.map((row) => row[i]!.length)));
  return rows.map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[i]!))).join("  ").trimEnd()); // prettier-ignore
}

/** The table of one comparison. */
export function comparison_text(found: Comparison): string {
  const { workload, machine, cpus, nodes, seed, copies, idle, demand, columns } = found;
  const { operations, peak_bytes, peak_objects, peak_at } = demand;
  const what = copies === 1 ? basename(workload) : `${copies} times ${basename(workload)}`;
  const where = `${machine} (${plural(nodes, "node")}, ${plural(cpus, "CPU")})`;
  const title = `${what} on ${where}, seed ${seed}: ${grouped(operations)} operations`;
  const peak = `  the peak: ${grouped(peak_bytes)} bytes asked for by ${grouped(peak_objects)} objects, after allocation ${grouped(peak_at)}`;
  const shown = ROWS.filter(({ label }) => idle > 0 || !label.includes(" idling"));
  const rows = shown
    .map(({ label, cell }) => [label, ...columns.map((column) => cell(column))])
    .filter((row) => row.slice(1).some((cell) => cell !== undefined))
    .map((row) => row.map((cell) => cell ?? "-"));
  const table = aligned([["", ...columns.map(({ config }) => config)], ...rows]).map((line) => `  ${line}`);
  const notes = columns.flatMap(({ config, died, memory: m }) => [
    ...(died === undefined ? [] : [`  ${config}: no figures: ${died}`]),
    ...(m?.findings ?? []).map((finding) => `  ${config}: broken: ${finding}`),
    ...(m && m.failed > 0 ? [`  ${config}: ${grouped(m.failed)} requests failed for want of memory`] : []),
    ...(m && m.failed === 0 && m.peak_objects !== peak_objects
      ? [`  ${config}: ${grouped(m.peak_objects)} objects at the peak`]
      : []),
  ]);
  return [title, peak, "", ...table, ...notes].join("\n");
}
