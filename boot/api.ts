/** What the package's users see of a machine (boot/index.ts). */
import type { KernelEvents } from "../hal/events.ts";

/** What power-off found left over. */
export interface Leftover {
  readonly pages: number;
  readonly objects: number;
  readonly locks: number;
}

/** What a machine is booted with. */
export interface BootOptions {
  /** A preset (textbook, laptop, server, embedded) or a file with a machine as JSON. Default: textbook. */
  readonly machine?: string;
  /** RAM in all: "64M", "1G". */
  readonly mem?: string;
  readonly nodes?: number;
  readonly cpus?: number;
  /** Node distances, rows joined by /: "10,21/21,10". */
  readonly distance?: string;
  readonly slab?: "slub" | "slab" | "slob";
  /** Of everything random; the same seed gives the same run. Default: 1. */
  readonly seed?: number;
  /** The kernel's command line. */
  readonly append?: string;
  /** Counts cycles: `perf stat` then says what a command costs. */
  readonly timing?: boolean;
  /** Gives the machine a realm of its own, a worker thread. */
  readonly worker?: boolean;
  /** Hears the kernel's messages as they happen. Default: nobody; `dmesg` has them. */
  readonly log?: (text: string) => void;
}

/** A machine that runs. */
export interface Machine {
  /** Runs a console line; what it prints. Rejects with a KheapError if a command of it fails. */
  run(line: string): Promise<string>;
  /** As run, but what `--json` prints, as a value; of several commands an array. */
  json(line: string): Promise<unknown>;
  /** Calls `listener` at each event of this name, until the function that it returns is called. */
  on<E extends keyof KernelEvents>(name: E, listener: KernelEvents[E]): () => void;
  /** Ends everything; what is left over: nothing, if nothing leaks. */
  power_off(): Promise<Leftover>;
}

/** What a command that fails says, or why there is no machine: one line, or a report. */
export class KheapError extends Error {
  override name = "KheapError";
}
