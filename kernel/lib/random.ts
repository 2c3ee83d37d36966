/**
 * The kernel's random numbers: xorshift32 streams whose state lies in RAM, seeded from `seed=`, so that the same seed
 * gives the same run. Separate streams keep the users apart: the interleaving does not change because a cache shuffled.
 */
import { static_data } from "../../hal/image.ts";

/** Streams: what each number is for. */
export const RANDOM_SCHED = 0;
export const RANDOM_SLAB = 1;
export const RANDOM_FAULT = 2;
export const RANDOM_USER = 3;
export const RANDOM_MODULE = 4;

const random = static_data("random_state", { seed: "u32", state: "u32[8]" });

function scramble(x: number): number {
  let z = (x + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}

/** Seeds all streams. Boot does it once. */
export function random_init(seed: number): void {
  random.seed = seed;
  for (let i = 0; i < 8; i++) random.state.set(i, scramble(seed + Math.imul(i, 0x632be5ab)) || 1);
}

/** 32 random bits of a stream. */
export function get_random_u32(stream: number): number {
  let x = random.state.get(stream);
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  random.state.set(stream, x);
  return x >>> 0;
}

/** A random number 0 .. ceil - 1; ceil >= 1. */
export function get_random_u32_below(stream: number, ceil: number): number {
  return Math.floor((get_random_u32(stream) / 0x100000000) * ceil);
}
