/**
 * The timing model by hand: a machine with caches of a few lines, on which every figure can be worked out.
 *
 *     L1   2 sets of 2 ways      line & 1 is the set      4 cycles
 *     L2   4 sets of 2 ways      line & 3 is the set      12
 *     TLB  1 set of 2 ways, then 2 sets of 2 ways (page & 1), 9 more; walk 26; pages of 4 KiB
 *     memory 200, from another CPU 70; nodes 0 (CPUs 0 and 2) and 1 (CPU 1), 1 MiB each, distance 21: 420 and 147
 */
import { beforeEach, describe, expect, test } from "vitest";
import { COUNTERS, charge, charge_atomic, charge_call, charge_lock, counters, model_power_on } from "../../hal/timing_model.ts"; // prettier-ignore
import { MIB, PRESETS, check_machine, type MachineSpec } from "../../hal/machine.ts";
import { check_timing, type TimingSpec } from "../../hal/machine_timing.ts";
import { read_machine } from "../../hal/machine_file.ts";

const TIMING: TimingSpec = {
  l1d: { size: 256, ways: 2, latency: 4 },
  l2: { size: 512, ways: 2, latency: 12 },
  page_size: 4096,
  dtlb: { entries: 2, ways: 2 },
  stlb: { entries: 4, ways: 2, penalty: 9 },
  walk: 26,
  memory: 200,
  transfer: 70,
  atomic: 14,
  call: 10,
};
const MACHINE: MachineSpec = {
  ...PRESETS.textbook!,
  nodes: [
    { ranges: [{ start: 0, size: MIB }], cpus: [0, 2] },
    { ranges: [{ start: MIB, size: MIB }], cpus: [1] },
  ],
  cpus: 3,
  distance: [[10, 21], [21, 10]],
  timing: TIMING,
}; // prettier-ignore

const registers = new Int32Array(4);
const LOAD = 0;
const STORE = 1;

/** Cycles of an access. */
function cost(cpu: number, line: number, store: 0 | 1 = LOAD): number {
  const before = counters[0]!;
  registers[0] = cpu;
  charge(line * 64, store);
  return counters[0]! - before;
}
const loads = (cpu: number, ...lines: number[]): number[] => lines.map((line) => cost(cpu, line));
const figures = (): Record<string, number> =>
  Object.fromEntries(COUNTERS.map((name, i) => [name, counters[i]!]).filter(([, value]) => value !== 0));

/** Page 0 is in the TLB of every CPU, and line 31, which no test uses, in its caches. */
beforeEach(() => {
  model_power_on(MACHINE, 2 * MIB, registers);
  for (const cpu of [0, 1, 2]) cost(cpu, 31);
  counters.fill(0);
});

describe("one CPU", () => {
  test("a line costs memory once, then L1; every word of it", () => {
    expect(loads(0, 0, 0, 0)).toEqual([200, 4, 4]);
    expect(cost(0, 0, STORE)).toBe(4);
    expect(cost(0, 1, STORE)).toBe(200); // a store that misses fetches the line too
    expect(figures()).toEqual({ cycles: 412, loads: 3, stores: 2, l1_misses: 2, l2_misses: 2, local_memory: 2 });
  });

  test("the least recently used of a set leaves it, for L2", () => {
    // Set 0 of L1 holds two of lines 0, 2, 4; they share no set of L2 but for 0 and 4.
    expect(loads(0, 0, 2, 0, 4)).toEqual([200, 200, 4, 200]); // 4 puts out 2
    expect(loads(0, 0, 2)).toEqual([4, 12]); //                  2 is in L2 still, and puts out 4
    expect(loads(0, 0, 4)).toEqual([4, 12]);
  });

  test("a line that neither level has costs memory again", () => {
    expect(loads(0, 0, 4, 8)).toEqual([200, 200, 200]); // set 0 of both levels: 0 is in neither
    expect(loads(0, 8, 4, 0)).toEqual([4, 4, 200]);
  });

  test("a line that has left L2 stays in L1: neither level includes the other", () => {
    // 0, 2: L1 set 0. Then 4, 0, 8, 0, 12: L2 set 0 sees 0, 4, 8, 12 and holds the last two; L1 sees 0 all along.
    expect(loads(0, 0, 4, 0, 8, 0, 12)).toEqual([200, 200, 4, 200, 4, 200]);
    expect(loads(0, 0)).toEqual([4]);
    expect(cost(2, 0)).toBe(70); // and another CPU gets it from there
  });

  test("memory of another node costs by distance", () => {
    const far = MIB / 64;
    expect(loads(1, far)).toEqual([226]); // page 256 is walked for
    expect(loads(1, 0, 1)).toEqual([420, 420]);
    expect(loads(0, far + 1)).toEqual([446]);
    expect(figures()).toMatchObject({ local_memory: 1, remote_memory: 3, tlb_misses: 2 });
  });

  test("what is no RAM is in no cache", () => {
    const beyond = (2 * MIB) / 64;
    expect(loads(0, beyond, beyond)).toEqual([38, 12]); // walk and 12, then 12
    expect(cost(0, beyond, STORE)).toBe(12);
  });
});

test("translations: two in the first level, then the second, then a walk", () => {
  const page = (number: number): number => cost(0, number * 64 + 1) - 200; // a line of its own, never seen
  expect(page(1)).toBe(26);
  expect(cost(0, 64 + 1)).toBe(4);
  // First level: 1, 0. Pages 2 and 4 put out both; the second level has 0, 2, 4 in its set 0: 2 and 4 are left there.
  expect([page(2), page(4)]).toEqual([26, 26]);
  expect(cost(0, 64 + 2) - 200).toBe(9); // page 1: second level, set 1
  expect(cost(0, 64 + 3) - 200).toBe(0);
  expect(cost(0, 5) - 200).toBe(26); // page 0: neither
  expect(figures()).toMatchObject({ tlb_misses: 4 });
});

describe("several CPUs", () => {
  test("a line that another CPU has comes from it, and a store takes it away from all", () => {
    expect(cost(0, 0, STORE)).toBe(200);
    expect(cost(2, 0)).toBe(70); //        from CPU 0, of the same node; both may read it now
    expect(loads(0, 0)).toEqual([4]);
    expect(cost(1, 0)).toBe(147); //       from either, both are 21 away
    expect(cost(2, 0, STORE)).toBe(151); // it has the line: L1, and waits for CPU 1 to lose it
    expect(cost(2, 0, STORE)).toBe(4); //  it owns it
    expect(cost(0, 0)).toBe(70);
    expect(figures()).toMatchObject({ transfers: 4, local_memory: 1, l2_misses: 4 });
  });

  test("a line that only one CPU reads is its own: writing it costs no transfer", () => {
    expect(loads(0, 0)).toEqual([200]);
    expect(cost(0, 0, STORE)).toBe(4);
    expect(cost(1, 0)).toBe(147);
    expect(cost(0, 0, STORE)).toBe(4 + 147);
  });

  test("a line that its owner has put out comes from memory", () => {
    cost(0, 0, STORE);
    loads(0, 4, 8);
    expect(cost(2, 0)).toBe(200);
  });

  test("two CPUs that write one line pass it to and fro", () => {
    const costs = Array.from({ length: 6 }, (_, i) => cost(i % 2 === 0 ? 0 : 2, 0, STORE));
    expect(costs).toEqual([200, 70, 70, 70, 70, 70]);
  });
});

test("atomic operations, locks and calls", () => {
  const on = (cpu: number, what: () => void): number => {
    const before = counters[0]!;
    registers[0] = cpu;
    what();
    return counters[0]! - before;
  };
  expect(on(0, () => charge_atomic(0))).toBe(214);
  expect(on(0, () => charge_lock(0))).toBe(18); //        this CPU had it last: no wait
  expect(on(2, () => charge_lock(0))).toBe(84); //        the line comes from CPU 0
  expect(on(2, () => charge_lock(64))).toBe(214); //      nobody had it
  expect(on(0, charge_call)).toBe(10);
  expect(figures()).toMatchObject({ atomics: 4, locks: 3, lock_waits: 1, transfers: 1, functions: 1, stores: 4 });
});

describe("a machine that cannot be timed", () => {
  test("every preset can", () => {
    for (const { timing } of Object.values(PRESETS)) expect(check_timing(timing)).toBeUndefined();
  });

  test.each<[object, string]>([
    [{ l1d: { ways: 0 } }, "timing.l1d.ways 0: give a whole number from 1 to 64"],
    [{ l1d: { size: "48K" } }, "timing.l1d.size 49152: size / 64 / ways, the number of sets, has to be a power of two; with 8 ways give 65536"],
    [{ l2: { size: 0 } }, "timing.l2.size 0: size / 64 / ways, the number of sets, has to be a power of two; with 4 ways give 256"],
    [{ l2: { size: "1G" } }, "timing.l2.size 1073741824: give at most 67108864"],
    [{ dtlb: { entries: 24 } }, "timing.dtlb.entries 24: entries / ways, the number of sets, has to be a power of two; with 4 ways give 32"],
    [{ stlb: { ways: 1.5 } }, "timing.stlb.ways 1.5: give a whole number from 1 to 64"],
    [{ page_size: 5000 }, "timing.page_size 5000: give a power of two from 4K to 1G"],
    [{ memory: -1 }, "timing.memory -1: give a whole number of cycles from 0 to 100000"],
    [{ l1d: { latency: 0.5 } }, "timing.l1d.latency 0.5: give a whole number of cycles from 0 to 100000"],
    [{ l3: {} }, 'timing: no such field "l3"; there are l1d, l2, page_size, dtlb, stlb, walk, memory, transfer, atomic, call'],
  ])("%j is refused in one line", (change, line) => {
    const json = { ...PRESETS.textbook!, timing: change };
    expect(read_machine(JSON.stringify(json))).toBe(line);
  }); // prettier-ignore

  test("so is a spec that was made by hand", () => {
    const timing = { ...TIMING, walk: NaN };
    expect(check_machine({ ...PRESETS.textbook!, timing })).toMatch(/^timing\.walk NaN: /);
  });
});
