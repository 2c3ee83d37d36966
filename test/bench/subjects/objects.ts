/**
 * Plain JavaScript objects of 64 and 192 bytes (a header of 24 and 5 or 21 fields). Nobody frees them: what is dropped
 * is found by the garbage collector, whose runs fall into the figures where they happen; after W4 one is asked for.
 */
import type { Heap, Subject } from "../heap.ts";

interface Small { a: number; b: number; c: number; d: number; e: number } // prettier-ignore
interface Large extends Small {
  f: number; g: number; h: number; i: number; j: number; k: number; l: number; m: number;
  n: number; o: number; p: number; q: number; r: number; s: number; t: number; u: number;
} // prettier-ignore

/** Keeps the objects from being optimised away: the last one taken, and the last one dropped. */
const held: { taken: Small | undefined; dropped: Small | undefined } = { taken: undefined, dropped: undefined };

function touch(object: Small, value: number): number {
  object.a = value;
  object.b = value;
  return object.c;
}

const free = (): void => {
  held.dropped = held.taken;
};

const small: Heap<Small> = {
  alloc: () => (held.taken = { a: 0, b: 0, c: 1, d: 0, e: 0 }),
  free,
  touch,
};
const large: Heap<Small> = {
  alloc(): Large {
    return {
      a: 0, b: 0, c: 1, d: 0, e: 0, f: 0, g: 0, h: 0, i: 0, j: 0, k: 0, l: 0, m: 0,
      n: 0, o: 0, p: 0, q: 0, r: 0, s: 0, t: 0, u: 0,
    }; // prettier-ignore
  },
  free,
  touch,
};

export const subject: Subject = {
  heap(workload) {
    if (workload === "W4") return large;
    return /^W[12]/.test(workload) ? small : undefined;
  },
  settle: () => (globalThis as { gc?: () => void }).gc!(),
};
