/**
 * The realm: what the host decides before any kernel code is loaded.
 *
 * One kernel runs in one JavaScript realm (a process, a worker, a browser page). What the realm is (its RAM, plain or
 * instrumented; how CPUs run) is settled before `hal/ram.ts` loads and never changes, because hot modules keep a view
 * of RAM in a constant of their own. The host puts its wishes into `globalThis[Symbol.for("kheap.realm")]`, or hands
 * them to a worker as `workerData.kheap_realm`; absent means a plain realm in lockstep with RAM of its own.
 *
 * This is the only file of hal/, mm/ and kernel/ that may look at the host. A browser replaces it.
 */
import { workerData } from "node:worker_threads";

export interface RealmOptions {
  /** `plain`: RAM is typed arrays. `timing` and `kasan`: every access passes an instrument (not yet there). */
  readonly kind: "plain" | "timing" | "kasan";
  /** `lockstep`: all CPUs in this realm, interleaved by a seed. `threads`: one worker a CPU (not yet there). */
  readonly smp: "lockstep" | "threads";
  /** RAM that another realm made, to attach to. */
  readonly memory?: WebAssembly.Memory;
}

const REALM = Symbol.for("kheap.realm");

function read_realm(): RealmOptions {
  const given = ((globalThis as Record<symbol, unknown>)[REALM] ??
    (workerData as { kheap_realm?: RealmOptions } | null)?.kheap_realm ??
    {}) as Partial<RealmOptions>;
  return { kind: given.kind ?? "plain", smp: given.smp ?? "lockstep", ...(given.memory && { memory: given.memory }) };
}

export const realm: RealmOptions = read_realm();
