/**
 * A realm whose accesses to RAM are counted, in a worker: by the calls that boot/instrument/ writes into the code, by
 * Proxies in the place of the views (test/lib/timing_proxy_hooks.ts), or not at all. Runs the workload twice and answers.
 */
import { register } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import type { MachineSpec } from "../../hal/machine.ts";
import { instrument } from "../../boot/instrument/register.ts";

export interface Job {
  readonly how: "plain" | "calls" | "proxies";
  readonly machine: MachineSpec;
  readonly garbage: Uint8Array;
}

const { how, machine, garbage } = workerData.job as Job;
const realm = { kind: how === "plain" ? "plain" : "timing", smp: "lockstep" };
(globalThis as Record<symbol, unknown>)[Symbol.for("kheap.realm")] = realm;
if (how === "calls") instrument("timing");
if (how === "proxies") register("./timing_proxy_hooks.ts", import.meta.url);
const { run } = await import("./timing_workload.ts");
parentPort!.postMessage([run(machine, garbage), run(machine, garbage)]);
