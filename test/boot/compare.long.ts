/**
 * `compare` on the recordings, with cycles, and the verdicts on the article's claims (the whole set only with
 * `npm run nightly`: it takes minutes).
 */
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { Context } from "../../boot/commands/registry.ts";
import { claims, claims_text } from "../../boot/compare/claims.ts";
import { compare, compare_all } from "../../boot/compare/compare.ts";
import { parse_config } from "../../boot/compare/config.ts";
import { parse_workload } from "../../boot/compare/workload.ts";
import { PRESETS } from "../../hal/machine.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { stopped_replay } from "./compare_replay.ts";

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

  it.runIf(process.env["KHEAP_RUN"] === "nightly")("judges every claim on every workload", { timeout: 3_600_000 }, async () => {
    const all = await claims(ctx, data, 1);
    expect(all.map(({ allocator, of, cases }) => [allocator, of, cases.length])).toEqual([
      ["buddy", 18, 18], ["slob", 1, 1], ["slob", 18, 18], ["slab", 18, 18], ["slab", 18, 18], ["slab", 18, 18], ["slab", 18, 18],
      ["slub", 9, 9], ["slub", 9, 9],
    ]); // prettier-ignore
    for (const { holds, in: yes, of, cases } of all) {
      expect(cases.filter((one) => one.holds).length).toBe(yes);
      expect(holds).toBe(yes === of);
    }
    expect(claims_text(all).split("\n").slice(0, 9).every((line) => /holds|does not/.test(line))).toBe(true);
  }); // prettier-ignore
});
