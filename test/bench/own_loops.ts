/** Loads the loops of a workload: a copy of loops.ts that belongs to one heap. */
import type { AnyHeap } from "./heap.ts";
import { hand_heap } from "./heap_of_copy.ts";

export type Loops = typeof import("./loops.ts");

export async function own_loops(key: string, heap: AnyHeap): Promise<Loops> {
  hand_heap(key, heap);
  return (await import(`./loops.ts?for=${encodeURIComponent(key)}`)) as Loops;
}
