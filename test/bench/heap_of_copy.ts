/** What own_loops.ts hands to each copy of loops.ts: its heap. */
import type { AnyHeap } from "./heap.ts";

const heaps = new Map<string, AnyHeap>();

export function hand_heap(key: string, heap: AnyHeap): void {
  heaps.set(key, heap);
}

/** The heap of the copy of loops.ts that has this URL. */
export function heap_of_copy(url: string): AnyHeap {
  return heaps.get(new URL(url).searchParams.get("for")!)!;
}
