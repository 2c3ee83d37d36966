/**
 * The loops of the workloads. Each is timed as a whole; every object gets two words written, what `touch` returns is
 * folded into a number.
 *
 * A copy of this file is loaded for each workload of a process (`./loops.ts?W1`), and is handed its heap by own_loops.ts
 * when it loads: so the heap's functions are constants of the loops, as they are in a module that calls its own, and no
 * loop sees two heaps.
 */
import type { Heap, Live } from "./heap.ts";
import { heap_of_copy } from "./heap_of_copy.ts";

const { alloc, free, touch } = heap_of_copy(import.meta.url);

/** W1, W1k, W5a: one object, allocated and freed at once. */
export function pairs(count: number, size: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const object = alloc(size);
    sum ^= touch(object, i);
    free(object, size);
  }
  return sum;
}

/** W1n: the same, through functions that are no constants. Once it has seen several, V8 inlines none of them. */
export function called_pairs(heap: Heap, count: number, size: number): number {
  const { alloc: called_alloc, free: called_free } = heap;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const object = called_alloc(size);
    sum ^= touch(object, i);
    called_free(object, size);
  }
  return sum;
}

/** W2 and W4: fills `slots` from the start. */
export function fill(slots: number[], size: number): number {
  let sum = 0;
  for (let i = 0; i < slots.length; i++) {
    const object = alloc(size);
    sum ^= touch(object, i);
    slots[i] = object;
  }
  return sum;
}

/** Frees all of `slots` in the order in which they were taken. */
export function drain(slots: number[], size: number): void {
  for (let i = 0; i < slots.length; i++) free(slots[i]!, size);
}

/** Frees all of `slots` in an order given by their indices. */
export function drain_in_order(slots: number[], size: number, order: Int32Array): void {
  for (let i = 0; i < order.length; i++) free(slots[order[i]!]!, size);
}

/** W3, W5b: `slots` are live; frees one of them at random and takes another in its place. */
export function replace(live: Live, count: number): number {
  const { slots, sizes, picks, next_sizes } = live;
  const mask = picks.length - 1;
  let sum = 0;
  let k = live.at;
  for (let i = 0; i < count; i++) {
    const slot = picks[k & mask]!;
    free(slots[slot]!, sizes[slot]!);
    const size = next_sizes[k & mask]!;
    const object = alloc(size);
    sum ^= touch(object, i);
    slots[slot] = object;
    sizes[slot] = size;
    k++;
  }
  live.at = k;
  return sum;
}
