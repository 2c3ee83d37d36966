/** `perf stat` in a realm that counts cycles. */
import { describe, expect, test } from "vitest";
import { timing_on } from "../../hal/timing.ts";
import { spin_lock } from "../../kernel/lib/spinlock.ts";
import { kmalloc } from "../../mm/kmalloc.ts";
import { console_run } from "./run.ts";

/** A line of the figures by the name behind it. */
function figure(text: string, name: string): number {
  const match = new RegExp(`^ *([0-9,]+) +${name}( |$)`, "m").exec(text);
  expect(match, name).not.toBeNull();
  return Number(match![1]!.replaceAll(",", ""));
}

test("this realm counts: calls are written into its functions, as they are not elsewhere (instrument.test.ts)", () => {
  expect(timing_on).toBe(true);
  expect(String(kmalloc)).toMatch(/\benter\b.*\$n/);
  expect(String(spin_lock)).toMatch(/\bon_spin_lock\b/);
});

describe("perf stat", () => {
  test("prints the command's answer, then its figures in the look of Linux's perf", async () => {
    const { out, err } = await console_run(["kmem create things 64", "perf stat kmem alloc things 8"]);
    expect(err).toBe("");
    const [answer, rest] = out.slice(out.indexOf("ffff8880")).split("\n\n Performance counter stats for ");
    expect(answer!.split("\n")).toHaveLength(8);
    expect(rest!.split("\n")[0]).toBe("'kmem alloc things 8':");
    const [cycles, calls, l1, l2] = ["cycles", "calls", "L1-dcache-misses", "L2-misses"].map((name) => figure(rest!, name)) as [number, number, number, number]; // prettier-ignore
    const accesses = figure(rest!, "L1-dcache-loads") + figure(rest!, "L1-dcache-stores");
    expect(cycles).toBeGreaterThan(4 * accesses + 10 * calls - 1);
    expect(accesses).toBeGreaterThan(l1);
    expect(l1).toBeGreaterThanOrEqual(l2);
    const sources = ["node-loads-local", "node-loads-remote"].map((name) => figure(rest!, name));
    expect(sources[0]! + sources[1]!).toBeLessThanOrEqual(l2);
  });

  test("a second run of the same command finds the caches warm", async () => {
    const stat = "perf stat --json kmalloc 300";
    const { out } = await console_run([stat, stat, stat], { json: true });
    const [, second, third] = out
      .trim()
      .split("\n")
      .map((row) => JSON.parse(row)) as Record<string, number>[];
    expect(second!.command).toBe("kmalloc 300");
    expect(third!.l2_misses).toBeLessThanOrEqual(second!.l2_misses!);
    expect(third!.cycles).toBeLessThanOrEqual(second!.cycles!);
  });

  test("--functions: every cycle is somebody's, most first", async () => {
    const { out } = await console_run(["perf stat --functions --json kmem create many 64", "perf stat --functions kmalloc 300"]); // prettier-ignore
    const [json, ...text] = out.split("\n");
    const { cycles, functions, calls } = { calls: 0, ...JSON.parse(json!) } as { cycles: number; calls: number; functions: { name: string; calls: number; cycles: number }[] }; // prettier-ignore
    expect(calls).toBe(0);
    expect(functions.reduce((sum, row) => sum + row.cycles, 0)).toBe(cycles);
    expect(functions.map((row) => row.cycles)).toEqual(functions.map((row) => row.cycles).sort((a, b) => b - a));
    const create = functions.find((row) => row.name.endsWith(":__kmem_cache_create_args"))!;
    expect(create.calls).toBe(1);
    const head = text.findIndex((row) => / cycles +calls +cycles\/call +function$/.test(row));
    expect(
      text.slice(head + 1).some((row) => /^ +[0-9,]+ +[0-9.]+% +1 +[0-9,]+ {2}mm\/kmalloc\.ts:kmalloc$/.test(row)),
    ).toBe(true);
  });

  test("another CPU's cache has the line: a transfer, and a lock wait where it is a lock's", async () => {
    const lines = [
      "kmem create both 256 cpu_partial=off",
      "on 0 kmem alloc both 40 > /a",
      "on 1 kmem alloc both 40 > /a",
    ];
    const { out } = await console_run([...lines, "perf stat --json on 0 kmem alloc both 40"]);
    const figures = JSON.parse(out.trim().split("\n").at(-1)!) as Record<string, number>;
    expect(figures.transfers).toBeGreaterThan(0);
    expect(figures.lock_waits).toBeGreaterThan(0);
    expect(figures.lock_waits).toBeLessThanOrEqual(figures.locks!);
  });

  test("what is wrong is said in one line", async () => {
    const { err } = await console_run(["perf", "perf stat", "perf top", "perf stat --functions", "perf stat nonsense"]);
    const usage = "usage: perf stat [--functions] COMMAND";
    expect(err.split("\n")).toEqual([usage, usage, usage, usage, 'no command "nonsense"; help lists all', ""]);
  });
});
