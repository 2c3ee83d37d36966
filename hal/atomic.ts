/**
 * Atomic operations on words of RAM, chosen when the realm loads: in lockstep one CPU runs at a time, so each is a
 * plain load and store, as a uniprocessor kernel compiles its lock prefixes away; under threads they are real.
 *
 * Context: any. Hot paths use none of these: per-CPU words are plain (see mm/README.md).
 */
import { realm } from "./host.ts";
import { ram32 } from "./ram.ts";
import type { Ptr } from "./addr.ts";

const m = ram32;
const THREADS = realm.smp === "threads";

/** Adds and returns the new value. */
export function atomic_add_return(ptr: Ptr, value: number): number {
  if (THREADS) return (Atomics.add(m, ptr >> 2, value) + value) | 0;
  return (m[ptr >> 2] = (m[ptr >> 2]! + value) | 0);
}

/** Adds without a result. */
export function atomic_add(ptr: Ptr, value: number): void {
  if (THREADS) Atomics.add(m, ptr >> 2, value);
  else m[ptr >> 2] = m[ptr >> 2]! + value;
}

/** Stores `value` if the word still holds `expected`; true if it did. */
export function cmpxchg(ptr: Ptr, expected: number, value: number): boolean {
  if (THREADS) return Atomics.compareExchange(m, ptr >> 2, expected, value) === expected;
  if (m[ptr >> 2] !== expected) return false;
  m[ptr >> 2] = value;
  return true;
}
