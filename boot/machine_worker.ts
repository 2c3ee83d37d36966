/**
 * A machine in a worker thread, as the package's users have it: each call is a message there and an answer back.
 *
 *     { id, call: "run", args: ["slabtop"] }    ->    { id, value } or { id, error }
 *     { listen: "slab:new" }                    ->    { event: "slab:new", payload } …
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { KernelEvents } from "../hal/events.ts";
import { KheapError, type BootOptions, type Leftover, type Machine } from "./api.ts";
import { new_realm } from "./new_realm.ts";

type Call = "boot" | "run" | "json" | "power_off";
type Request = { id: number; call: Call; args: readonly unknown[] } | { listen: keyof KernelEvents };
type Reply =
  | { id: number; value: unknown }
  | { id: number; error: string }
  | { log: string }
  | { event: keyof KernelEvents; payload: unknown };

/** Boots a machine in a worker. */
export async function start_worker({ log, worker: _, ...options }: BootOptions): Promise<Machine> {
  const worker = new_realm("machine_worker", options.timing ? "timing" : "plain", { serve: true });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  const listeners = new Map<string, Set<(payload: unknown) => void>>();
  let last_id = 0;
  let gone: Error | undefined;
  const fail_all = (error: Error): void => {
    gone = error;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  worker.on("error", fail_all);
  worker.on("exit", () => fail_all(new KheapError("the machine is off")));
  worker.on("message", (reply: Reply) => {
    if ("log" in reply) return log?.(reply.log);
    if ("event" in reply) return listeners.get(reply.event)?.forEach((listener) => listener(reply.payload));
    const { resolve, reject } = waiting.get(reply.id)!;
    waiting.delete(reply.id);
    if ("error" in reply) reject(new KheapError(reply.error));
    else resolve(reply.value);
  });
  const ask = (call: Call, ...args: readonly unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      if (gone) return reject(gone);
      waiting.set(++last_id, { resolve, reject });
      worker.postMessage({ id: last_id, call, args } satisfies Request);
    });
  try {
    await ask("boot", options);
  } catch (error) {
    await worker.terminate();
    throw error;
  }
  return {
    run: (line) => ask("run", line) as Promise<string>,
    json: (line) => ask("json", line),
    on(name, listener) {
      const all = listeners.get(name) ?? new Set();
      if (!listeners.has(name)) worker.postMessage({ listen: name } satisfies Request);
      listeners.set(name, all.add(listener as (payload: unknown) => void));
      return () => void all.delete(listener as (payload: unknown) => void);
    },
    async power_off() {
      const left = (await ask("power_off")) as Leftover;
      await worker.terminate();
      return left;
    },
  };
}

/** The worker's side. */
async function serve(): Promise<void> {
  const port = parentPort!;
  const answer = (reply: Reply): void => port.postMessage(reply);
  const { start_machine } = await import("./machine.ts");
  let machine: Machine;
  port.on("message", (request: Request) => {
    if ("listen" in request) {
      machine.on(request.listen, ((payload: unknown) => answer({ event: request.listen, payload })) as never);
      return;
    }
    const { id, call, args } = request;
    const run = async (): Promise<unknown> => {
      if (call !== "boot") return (machine[call] as (...given: readonly unknown[]) => Promise<unknown>)(...args);
      machine = start_machine({ ...(args[0] as BootOptions), log: (log) => answer({ log }) });
      return null;
    };
    void run().then(
      (value) => answer({ id, value }),
      (error: unknown) => answer({ id, error: error instanceof Error ? error.message : String(error) }),
    );
  });
}

if (!isMainThread && (workerData as { serve?: boolean } | null)?.serve) await serve();
