/**
 * The package: `import { boot } from "kheap"`.
 *
 *     const machine = await boot({ mem: "64M", nodes: 2 });
 *     console.log(await machine.run("slabtop"));
 *     machine.on("slab:new", ({ cache }) => console.log(cache));
 *     await machine.run("insmod ./ring.ts size=64");
 *     await machine.power_off();                                  // { pages: 0, objects: 0, locks: 0 }
 *
 * Importing this file loads nothing of the kernel and touches no RAM: `boot` does, once it knows what the realm is to be.
 * A realm has one kind (plain, or counting cycles with `timing`) and one machine at a time; `worker: true` gives a
 * machine a realm of its own, so that several run side by side.
 */
import type { RealmOptions } from "../hal/host.ts";
import { KheapError, type BootOptions, type Machine } from "./api.ts";

export type { KernelEvents } from "../hal/events.ts";
export { KheapError, type BootOptions, type Leftover, type Machine } from "./api.ts";

const REALM = Symbol.for("kheap.realm");
const RAM = Symbol.for("kheap.ram");
const realm_of = globalThis as unknown as Record<symbol, RealmOptions | undefined>;

/** Boots a machine. Rejects with a KheapError where the options make none, or this realm cannot run it. */
export async function boot(options: BootOptions = {}): Promise<Machine> {
  if (options.worker) {
    const { start_worker } = await import("./machine_worker.ts");
    return start_worker(options);
  }
  const kind = options.timing ? "timing" : "plain";
  const there = realm_of[RAM] === undefined ? undefined : (realm_of[REALM]?.kind ?? "plain");
  if (there !== undefined && there !== kind)
    throw new KheapError(`timing: ${kind === "timing"}: this realm is ${there} already; give worker: true`);
  if (there === undefined) {
    realm_of[REALM] = { ...realm_of[REALM], kind, smp: "lockstep" };
    const { instrument } = await import("./instrument/register.ts");
    instrument(kind);
  }
  const { start_machine } = await import("./machine.ts");
  return start_machine(options);
}
