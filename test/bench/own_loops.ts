/** Loads the loops of a workload: a copy of loops.ts that belongs to one heap. */
import type { AnyHeap } from "./heap.ts";

export type Loops = typeof import("./loops.ts");

const heaps = new Map<string, AnyHeap>();

/** The heap that the copy of loops.ts at `url` is loaded for. */
export function heap_of_copy(url: string): AnyHeap {
  return heaps.get(new URL(url).searchParams.get("for")!)!;
}

export async function own_loops(key: string, heap: AnyHeap): Promise<Loops> {
  heaps.set(key, heap);
  return (await import(`./loops.ts?for=${encodeURIComponent(key)}`)) as Loops;
}
