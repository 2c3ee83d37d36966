/**
 * `compare` on the recordings, with cycles, and the verdicts on the article's claims: those that boot/compare/README.md
 * has (the whole set only with `npm run nightly`: it takes minutes).
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { Context } from "../../boot/commands/registry.ts";
import { all_workloads, claims, claims_text } from "../../boot/compare/claims.ts";
import { compare, compare_all, type Column, type Comparison } from "../../boot/compare/compare.ts";
import { parse_config } from "../../boot/compare/config.ts";
import { parse_workload } from "../../boot/compare/workload.ts";
import { PRESETS } from "../../hal/machine.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { stopped_replay } from "./compare_replay.ts";
import { console_run } from "./run.ts";

const data = fileURLToPath(new URL("../data", import.meta.url));
const ctx = { cancelled: false, progress() {} } as unknown as Context;

function request(workload: string, configs: string, machine = TEST_MACHINE) {
  const base = { machine, seed: 1, append: "", copies: 1, timing: false, idle: 0 };
  return { ...base, workload: parse_workload(workload), configs: configs.split(" ").map(parse_config) };
}

describe("compare", () => {
  it("gives the same to the unit, in realms of its own and in one that is used again", async () => {
    const wanted = { ...request("producer-consumer:1000", "slub slub slab slab"), timing: true, idle: 5 };
    const found = await compare(ctx, wanted);
    const [first, second, third, fourth] = found.columns;
    expect([second, fourth]).toEqual([first, third]);
    expect(first!.memory).not.toEqual(third!.memory);
    for (const { timing } of [first!, third!]) {
      const { operations, cycles, run } = timing!;
      expect(operations).toBe(4000);
      expect([cycles.mean, cycles.p50 <= cycles.p99, cycles.p99 <= cycles.max]).toEqual([cycles.total / 4000, true, true]); // prettier-ignore
      expect(run.cycles).toBeGreaterThan(cycles.total); // the owners' use of their objects is not in an operation
    }
    const [again] = await compare_all(ctx, [wanted]);
    const uncounted = found.columns.map((column) => ({ ...column, memory: { ...column.memory!, list_operations: 0, locks: 0 } })); // prettier-ignore
    expect(again!.columns).toEqual(uncounted);
  });

  it("counts fewer remote accesses and lock waits where all is on one node, and none where there is one CPU", async () => {
    const on = async (machine: string) =>
      (await compare(ctx, { ...request("producer-consumer:500", "slab", PRESETS[machine]), timing: true })).columns[0]!
        .timing!.run;
    const [server, laptop, embedded] = [await on("server"), await on("laptop"), await on("embedded")];
    expect(server.remote_memory).toBeGreaterThan(0);
    expect([laptop.remote_memory, embedded.remote_memory]).toEqual([0, 0]);
    expect([embedded.lock_waits, embedded.transfers]).toEqual([0, 0]);
  });

  it("of sheaves: the same objects, more beside them, other times", async () => {
    const wanted = { ...request("producer-consumer:500", "slub slub:sheaf=32"), timing: true };
    const [plain, sheaves] = (await compare(ctx, wanted)).columns as [Column, Column];
    const { internal, peak } = plain.memory!;
    expect(sheaves.memory).toMatchObject({ internal, failed: 0, findings: [] });
    expect(sheaves.memory!.peak.metadata).toBeGreaterThan(peak.metadata);
    expect(sheaves.timing!.cycles).not.toEqual(plain.timing!.cycles);
  });

  it.each(["fork-shell", "fs-walk"])("agrees with stopped replays of %s", async (name) => {
    const file = `${data}/traces/${name}.trace.gz`;
    stopped_replay("objects", file, (await compare_all(ctx, [request(file, "slub slab slob slub:cpu_partial=off slab:colour=off")]))[0]!); // prettier-ignore
  });

  it("says who ran out of memory", async () => {
    const perl = request(`${data}/malloclab/perl.rep.gz`, "slub buddy", PRESETS["embedded"]);
    const [{ columns }] = (await compare_all(ctx, [perl])) as [Awaited<ReturnType<typeof compare>>];
    expect(columns[0]!.memory).toMatchObject({ failed: 0, findings: [] });
    expect(columns[1]!.memory!.failed).toBeGreaterThan(1000);
    expect(columns[1]!.memory!.findings).toEqual([]);
  });
});

/** A case as it is printed: its numbers, and whether the claim holds there. */
interface Row {
  readonly numbers: readonly string[];
  readonly holds: string;
}

/** Each case in a text of claims_text, by claim, workload and machine. */
function rows_of(text: string): Map<string, Row> {
  const rows = new Map<string, Row>();
  let claim = "";
  const lines = text.split("\n");
  for (const [i, line] of lines.entries()) {
    if (/^[A-Z]+, "/.test(line)) claim = `${line.replace(/:[^"]*$/, "")}: ${lines[i + 1]!.trim()}`;
    const [name = "", ...numbers] = line.trim().split(/ {2,}/);
    const holds = numbers.pop();
    if (claim !== "" && / on \w+$/.test(name) && holds !== undefined) rows.set(`${claim}: ${name}`, { numbers, holds });
  }
  return rows;
}

const number_of = (text: string): number => Number(text.replaceAll(",", ""));

const is_near = (a: string, b: string, share: number): boolean =>
  a === b || Math.abs(number_of(a) - number_of(b)) <= share * Math.max(number_of(a), number_of(b));

/** True if two of the numbers that decide a case (of a growing machine: the largest's) are so near that a small change to the kernel may decide it otherwise. */
function is_close({ numbers }: Row): boolean {
  const deciding = numbers.length === 6 ? [numbers[2]!, numbers[5]!] : numbers;
  return deciding.some((a, i) => deciding.slice(0, i).some((b) => is_near(a, b, 0.02)));
}

/** What boot/compare/README.md has otherwise: another verdict where it is not close, or a number that is off by more than a quarter. */
function differences(found: string): string[] {
  const documented = rows_of(readFileSync(new URL("../../boot/compare/README.md", import.meta.url), "utf8"));
  return [...rows_of(found)].flatMap(([name, row]) => {
    const known = documented.get(name);
    const is_same = known && (known.holds === row.holds || is_close(row)) && row.numbers.every((text, i) => is_near(text, known.numbers[i]!, 0.25)); // prettier-ignore
    return is_same ? [] : [`${name}: ${JSON.stringify(row)}, documented ${JSON.stringify(known)}`];
  });
}

describe("the article's claims", () => {
  it("are documented as they are found: two of the nine workloads", { timeout: 900_000 }, async () => {
    const workloads = all_workloads(data).filter(({ name }) => /lsr|producer/.test(name));
    const found = await claims(ctx, workloads, 1);
    expect(found.map(({ allocator, of, cases }) => [allocator, of, cases.length])).toEqual([
      ["buddy", 4, 4], ["slob", 1, 1], ["slob", 4, 4], ["slab", 4, 4], ["slab", 4, 4], ["slab", 4, 4], ["slab", 4, 4],
      ["slub", 2, 2], ["slub", 2, 2],
    ]); // prettier-ignore
    expect(differences(claims_text(found))).toEqual([]);
    // A case again by the command that is printed below it, in realms of their own.
    const [rounding] = found;
    const { out } = await console_run([`${rounding!.command.replace("WORKLOAD", "producer-consumer").replace("MACHINE", "embedded")} --json`]); // prettier-ignore
    const { columns } = JSON.parse(out) as Comparison;
    const one = rounding!.cases.find((of) => of.workload === "producer-consumer" && of.machine === "embedded")!;
    expect(Object.fromEntries(columns.map(({ config, memory }) => [config, memory!.internal]))).toEqual(one.numbers);
  });

  it.runIf(process.env["KHEAP_RUN"] === "nightly")("every one, on every workload", { timeout: 3_600_000 }, async () => {
    const all = await claims(ctx, all_workloads(data), 1);
    expect(all.map(({ allocator, of, cases }) => [allocator, of, cases.length])).toEqual([
      ["buddy", 18, 18], ["slob", 1, 1], ["slob", 18, 18], ["slab", 18, 18], ["slab", 18, 18], ["slab", 18, 18], ["slab", 18, 18],
      ["slub", 9, 9], ["slub", 9, 9],
    ]); // prettier-ignore
    for (const { holds, in: yes, of, cases } of all) {
      expect(cases.filter((one) => one.holds).length).toBe(yes);
      expect(holds).toBe(yes === of);
    }
    expect(differences(claims_text(all))).toEqual([]);
  });
});
