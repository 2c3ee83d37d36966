/** Starts a worker thread that is a realm of its own (boot/worker.mjs). */
import { Worker } from "node:worker_threads";
import type { RealmOptions } from "../hal/host.ts";

/** `main`: its main file, from boot/ on and without the extension; `data` is what that finds in workerData besides. */
export function new_realm(main: string, kind: RealmOptions["kind"], data: object = {}): Worker {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const entry = new URL(`./${main}.${extension}`, import.meta.url).href;
  const kheap_realm: RealmOptions = { kind, smp: "lockstep" };
  return new Worker(new URL("./worker.mjs", import.meta.url), {
    execArgv: [],
    workerData: { ...data, entry, kheap_realm },
  });
}
