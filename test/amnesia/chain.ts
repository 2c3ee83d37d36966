/**
 * The amnesia test: a machine is handed from realm to realm, each of which ends without a word to the kernel in it.
 *
 * One realm runs the machine undisturbed. Then the same machine is booted again, and at each of a number of moments
 * between two steps of the scheduler its realm is ended; a fresh one (a worker, with code and nothing else) gets RAM and
 * machine spec, attaches, validates, and goes on. At the end log and RAM are those of the undisturbed run, to the byte.
 */
import { Worker } from "node:worker_threads";
import { expect } from "vitest";
import type { MachineSpec } from "../../hal/machine.ts";
import { garbage, TEST_MACHINE } from "../lib/machine.ts";
import type { ConsoleJob } from "./console_realm.ts";
import type { Answer, Job } from "./realm.ts";

const MACHINE_BYTES = 40 << 20;

/** Runs a job in a fresh realm on this RAM, and ends the realm once it has answered. */
export function in_realm(
  memory: WebAssembly.Memory,
  job: Omit<Job, "machine">,
  machine: MachineSpec = TEST_MACHINE,
): Promise<Answer> {
  return ask_realm("realm", memory, { ...job, machine });
}

/** The same with console lines; what they print. */
export function in_console_realm(memory: WebAssembly.Memory, job: ConsoleJob): Promise<string> {
  return ask_realm("console_realm", memory, job);
}

async function ask_realm<T>(file: string, memory: WebAssembly.Memory, job: object): Promise<T> {
  const worker = new Worker(new URL("../../boot/worker.mjs", import.meta.url), {
    execArgv: [],
    workerData: {
      entry: new URL(`./${file}.ts`, import.meta.url).href,
      kheap_realm: { kind: "plain", smp: "lockstep", memory },
      job,
    },
  });
  try {
    return await new Promise<T>((resolve, reject) => worker.once("message", resolve).once("error", reject));
  } finally {
    await worker.terminate();
  }
}

export function new_ram(): WebAssembly.Memory {
  const pages = MACHINE_BYTES >> 16;
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** `count` different moments at which at least five tasks are under way, in order; they follow from the seed. */
function choose_moments(counts: readonly number[], count: number, seed: number): number[] {
  const candidates = counts.flatMap((tasks, entry) => (tasks >= 5 ? [entry] : []));
  const chosen = new Set<number>();
  for (let x = seed; chosen.size < Math.min(count, candidates.length);) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    chosen.add(candidates[x % candidates.length]!);
  }
  return [...chosen].sort((a, b) => a - b);
}

/**
 * Runs the test with one seed; `entries` is how long the machine runs, `append` what stands on its command line, `init` its
 * first program: what there is to do. Returns the log.
 */
export async function amnesia(
  seed: number,
  moments: number,
  entries: number,
  append = "",
  init = "t_amnesia",
): Promise<string[]> {
  const booted = { seed, garbage: garbage(seed), append: `init=${init} ${append}` };
  const whole = await in_realm(new_ram(), { boot: booted, entries, count: true, end: true });
  expect(whole.findings).toEqual([]);
  expect(JSON.parse(whole.leftover!)).toEqual({ pages: 0, objects: 0, locks: 0, details: [] });
  expect(whole.log.some((line) => line.includes("all done"))).toBe(true);

  const chosen = choose_moments(whole.counts, moments, seed);
  expect(chosen).toHaveLength(moments);
  const ram = new_ram();
  let [at, in_pipes] = [0, 0];
  for (const moment of chosen) {
    const job = { entries: moment - at, ...(at === 0 && { boot: booted }) };
    const answer = await in_realm(ram, job);
    at = moment;
    in_pipes += answer.in_pipes;
    expect(answer.findings).toEqual([]);
    expect(answer.under_way).toBe(whole.counts[moment]);
    expect(answer.log).toEqual(whole.log.slice(0, answer.log.length));
  }
  if (init === "t_amnesia" && moments >= 12) expect(in_pipes).toBeGreaterThan(0);
  const last = await in_realm(ram, { entries: entries - at, end: true });
  expect(last.findings).toEqual([]);
  expect(last.log).toEqual(whole.log);
  expect(last.ram).toBe(whole.ram);
  expect(last.leftover).toBe(whole.leftover);
  expect(last.figures).toEqual(whole.figures);
  return last.log;
}
