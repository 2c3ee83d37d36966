/**
 * Time: a counter of nanoseconds in RAM, advanced by whoever runs kernel entries. No host clock is ever read, so the
 * same run shows the same time.
 */
import { static_data } from "./image.ts";

/** Timer interrupts a second. */
export const HZ = 250;
export const NSEC_PER_SEC = 1_000_000_000;
export const TICK_NSEC = NSEC_PER_SEC / HZ;

const clock = static_data("clocksource", { ns: "u64" });

/** Nanoseconds since power-on. */
export function local_clock(): number {
  return clock.ns;
}

/** Ticks since power-on. */
export function jiffies(): number {
  return Math.floor(clock.ns / TICK_NSEC);
}

/** Lets `ns` nanoseconds pass. */
export function clock_advance(ns: number): void {
  clock.ns = clock.ns + ns;
}
