/**
 * A realm that counts cycles is the machine it looks at: the kernel does the same to the byte, and what is counted is
 * what a Proxy in the place of RAM's views sees.
 */
import { Worker } from "node:worker_threads";
import { beforeAll, describe, expect, test } from "vitest";
import type { MachineSpec } from "../../hal/machine.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import type { Job } from "../lib/timing_realm.ts";
import { parse_options } from "../../boot/options.ts";
import { set_realm } from "../../boot/realm.ts";
import { console_run } from "./run.ts";
import type { Answer } from "../lib/timing_workload.ts";

async function in_realm(how: Job["how"], machine: MachineSpec = TEST_MACHINE): Promise<[Answer, Answer]> {
  const job: Job = { how, machine, garbage: garbage(3) };
  const worker = new Worker(new URL("../../boot/worker.mjs", import.meta.url), {
    execArgv: [],
    workerData: { entry: new URL("../lib/timing_realm.ts", import.meta.url).href, job },
  });
  try {
    return await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  } finally {
    await worker.terminate();
  }
}

describe("one workload in realms of three makes", () => {
  let plain: [Answer, Answer], calls: [Answer, Answer], proxies: [Answer, Answer];
  beforeAll(async () => {
    [plain, calls] = await Promise.all([in_realm("plain"), in_realm("calls")]);
    proxies = await in_realm("proxies");
  }, 180_000);

  test("the kernel behaves the same, to the byte of RAM and the line of an oops", () => {
    expect(calls[0].log).toEqual(plain[0].log);
    expect(calls[0].log.some((line) => /mempool_resize \[mm\/mempool\.ts:\d+\]/.test(line))).toBe(true);
    expect(calls[0].ram).toBe(plain[0].ram);
  });

  test("two runs of one seed take the same cycles, to the unit", () => {
    expect(calls[1]).toEqual(calls[0]);
    expect(calls[0].figures.cycles).toBeGreaterThan(1_000_000);
  });

  test("the calls written into the code count what Proxies count: accesses, misses, cycles, by function", () => {
    expect(calls[0].figures).toEqual(proxies[0].figures);
    expect(calls[0].functions).toEqual(proxies[0].functions);
  });

  test("every cycle is some function's", () => {
    const { figures, functions } = calls[0];
    expect(functions.reduce((sum, { cycles }) => sum + cycles, 0)).toBe(figures.cycles);
    expect(functions.reduce((sum, { calls: count }) => sum + count, 0)).toBe(figures.functions);
  });

  test("nothing is counted in a plain realm", () => {
    expect(new Set(Object.values(plain[0].figures))).toEqual(new Set([0]));
  });

  test("another cache, other cycles; the same kernel", async () => {
    const { timing } = TEST_MACHINE;
    const [usual] = calls;
    const [other] = await in_realm("calls", { ...TEST_MACHINE, timing: { ...timing, l2: { ...timing.l2, size: timing.l2.size / 8 } } }); // prettier-ignore
    expect(other.ram).toBe(usual.ram);
    expect(other.figures.l2_misses).toBeGreaterThan(usual.figures.l2_misses);
    expect(other.figures.cycles).toBeGreaterThan(usual.figures.cycles);
    const unchanged = ["functions", "loads", "stores", "atomics", "locks"] as const;
    expect(unchanged.map((name) => other.figures[name])).toEqual(unchanged.map((name) => usual.figures[name]));
  });
});

describe("a realm that was loaded without the instrument", () => {
  test("says so where it is asked for cycles: one line each", async () => {
    const { out, err } = await console_run(["perf stat kmalloc 300", "dmesg"], { append: "timing=on" });
    expect(err).toBe("perf stat: this machine counts no cycles; boot it with --timing\n");
    expect(out.match(/.*timing=on: .*/g)).toEqual([
      expect.stringMatching(
        /timing=on: this realm was loaded without the instrument; give it on the command line, --append timing=on$/,
      ),
    ]);
  });

  test("timing= is on or off", () => {
    for (const append of ["timing=maybe", "quiet timing=", "timing=on timing=of"])
      expect(() => set_realm({ smp: "lockstep", append })).toThrow(/^--append timing=(maybe|of)?: give on or off$/);
  });

  test("--timing is timing=on", () =>
    expect(parse_options(["--timing", "--append", "x=1"])!.append).toBe("x=1 timing=on"));
});
