/** Where kheap means to be, in lockstep. A row is met, near (missed by at most a quarter), or missed. */

export interface Goal {
  readonly figure: string;
  readonly limit: number;
  readonly unit: "× L1" | "× limit";
}

export const GOALS: readonly Goal[] = [
  { figure: "W1", limit: 3.0, unit: "× L1" },
  { figure: "W1n", limit: 6.5, unit: "× L1" },
  { figure: "W1k", limit: 7.0, unit: "× L1" },
  { figure: "W2 LIFO", limit: 2.6, unit: "× limit" },
  { figure: "W2 FIFO", limit: 2.6, unit: "× limit" },
  { figure: "W2 random", limit: 2.6, unit: "× limit" },
  { figure: "W3u", limit: 5, unit: "× limit" },
  { figure: "W3l", limit: 5, unit: "× limit" },
  { figure: "W4 grow", limit: 1.1, unit: "× limit" },
  { figure: "W4 free", limit: 1.5, unit: "× limit" },
  { figure: "W5a", limit: 6, unit: "× L1" },
  { figure: "W5b", limit: 3, unit: "× limit" },
];

/** Bytes of the size classes over bytes used. */
export const MEMORY_GOALS = [
  { workload: "W3u", least: 0.92 },
  { workload: "W3l", least: 0.88 },
  { workload: "W4", least: 0.96 },
] as const;

/** A pair, against its cost at the first point of a curve. */
export const GROWTH_GOAL = 1.3;
/** A load whose page is in the TLB, against a load from RAM. */
export const TLB_HIT_GOAL = 5;
/** How much more 2 GiB of RAM may take of the host's memory than 256 MiB, after boot. */
export const RSS_GOAL_BYTES = 48 * 1024 * 1024;

const NEAR = 1.25;

export function met(value: number, limit: number, at_least: boolean): "met" | "near" | "missed" {
  const over = at_least ? limit / value : value / limit;
  if (over <= 1) return "met";
  return over <= NEAR ? "near" : "missed";
}
