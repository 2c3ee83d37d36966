/**
 * The pattern that a replayed object carries while it lives: each of its whole 8-byte words is its number plus 1,
 * little-endian. No two objects have the same, so two that overlap are found when the first of them is checked.
 */
import type { Ptr } from "../../hal/addr.ts";
import { ram32 } from "../../hal/ram.ts";

const m = ram32;

export function pattern_write(ptr: Ptr, bytes: number, number: number): void {
  const word = (number + 1) | 0;
  for (let w = ptr >> 2, end = (ptr + (bytes & ~7)) >> 2; w < end; w += 2) {
    m[w] = word;
    m[w + 1] = 0;
  }
}

/** The address of the first word that is not the pattern's; 0 if all are. */
export function pattern_fault(ptr: Ptr, bytes: number, number: number): Ptr {
  const word = (number + 1) | 0;
  for (let w = ptr >> 2, end = (ptr + (bytes & ~7)) >> 2; w < end; w += 2)
    if (m[w] !== word || m[w + 1] !== 0) return w << 2;
  return 0;
}
