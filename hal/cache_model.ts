/**
 * Sets and ways: what a cache and a TLB have in common. Part of the timing model (hal/timing.ts).
 *
 *     key 0x1234 of CPU 1 ──> set = key & mask      [ most recently used | … | least recently used ]   ways words
 *
 * A key (number of a line or of a page) is kept in one set, in order of use. All CPUs' arrays lie in one Int32Array, a
 * CPU's sets side by side; -1 is an empty way, and empty ways come last.
 *
 * Unlike real caches: true LRU, where hardware approximates it from 8 ways up.
 */
import type { CpuId } from "./addr.ts";

export interface Sets {
  readonly tags: Int32Array;
  readonly ways: number;
  /** Sets a CPU, less 1. */
  readonly mask: number;
}

/** Empty arrays for `cpus` CPUs; `sets` is a power of two. */
export function make_sets(cpus: number, sets: number, ways: number): Sets {
  return { tags: new Int32Array(cpus * sets * ways).fill(-1), ways, mask: sets - 1 };
}

/** Index of the first way of the set that `key` belongs to. */
function first_way(sets: Sets, cpu: CpuId, key: number): number {
  return (cpu * (sets.mask + 1) + (key & sets.mask)) * sets.ways;
}

/** True if `key` is there; it is the most recently used then. */
export function touch(sets: Sets, cpu: CpuId, key: number): boolean {
  const { tags } = sets;
  const first = first_way(sets, cpu, key);
  if (tags[first] === key) return true;
  let i = find(sets, first + 1, first + sets.ways, key);
  if (i < 0) return false;
  for (; i > first; i--) tags[i] = tags[i - 1]!;
  tags[first] = key;
  return true;
}

function find({ tags }: Sets, from: number, to: number, key: number): number {
  for (let i = from; i < to; i++) if (tags[i] === key) return i;
  return -1;
}

/** True if `key` is there; its place in the order of use stays. */
export function has(sets: Sets, cpu: CpuId, key: number): boolean {
  const first = first_way(sets, cpu, key);
  return find(sets, first, first + sets.ways, key) >= 0;
}

/** Puts in a key that is not there, as the most recently used; returns the key that it displaces, or -1. */
export function put(sets: Sets, cpu: CpuId, key: number): number {
  const { tags, ways } = sets;
  const first = first_way(sets, cpu, key);
  const displaced = tags[first + ways - 1]!;
  for (let i = first + ways - 1; i > first; i--) tags[i] = tags[i - 1]!;
  tags[first] = key;
  return displaced;
}

/** Takes a key out, if it is there. */
export function drop(sets: Sets, cpu: CpuId, key: number): void {
  const { tags, ways } = sets;
  const first = first_way(sets, cpu, key);
  let i = find(sets, first, first + ways, key);
  if (i < 0) return;
  for (; i < first + ways - 1; i++) tags[i] = tags[i + 1]!;
  tags[i] = -1;
}
