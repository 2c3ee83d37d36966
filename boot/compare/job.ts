/** What a realm is asked for and what it answers: what passes between the console and the workers of a comparison. */
import type { MachineSpec } from "../../hal/machine.ts";
import type { TimingFigures } from "../../hal/timing.ts";
import type { Config } from "./config.ts";
import type { Look } from "./look.ts";
import type { Demand } from "./script.ts";
import type { Workload } from "./workload.ts";

export interface Job {
  readonly task: "survey" | "measure" | "time";
  readonly workload: Workload;
  readonly config: Config;
  readonly machine: MachineSpec;
  readonly seed: number;
  /** How many run it at once. */
  readonly copies: number;
  /** Kernel parameters in front of the configuration's. */
  readonly append: string;
  /** Not for a survey. */
  readonly demand?: Demand;
  /** Counts list operations and locks, which makes it slow. */
  readonly calls: boolean;
  /** Seconds of the machine's time that pass at the end, with nothing to do. */
  readonly idle: number;
}

/** What a plain realm found out. */
export interface Measured {
  readonly operations: number;
  readonly failed: number;
  readonly before: Look;
  readonly peak: Look;
  readonly end: Look;
  readonly rest: Look;
  readonly after_idle: Look;
  /** The most pages there ever were. */
  readonly most_pages: number;
  /** Live objects of the workload at the peak, and bytes of their slots. */
  readonly peak_objects: number;
  readonly peak_slots: number;
  readonly list_operations: number;
  readonly locks: number;
  /** What the kernel complained of, and what is wrong with memory at the end: nothing. */
  readonly findings: readonly string[];
}
/** What a realm with the timing model found out. */
export interface Timed {
  readonly operations: number;
  readonly failed: number;
  readonly cycles: { readonly total: number; readonly mean: number; readonly p50: number; readonly p99: number; readonly max: number }; // prettier-ignore
  /** Everything from the first step to the last. */
  readonly run: TimingFigures;
  readonly idle: TimingFigures;
}
export type Outcome = { readonly demand?: Demand; readonly measured?: Measured; readonly timed?: Timed };
