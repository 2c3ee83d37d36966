/** dlmalloc compiled to WebAssembly: what C and C++ programs in a browser have. Called from JavaScript, as there. */
import type { Heap, Subject } from "../heap.ts";
import { build_dlmalloc } from "../peers.ts";

interface Exports {
  readonly memory: WebAssembly.Memory;
  malloc(size: number): number;
  free(object: number): void;
}

/** The part of WebAssembly that is used here; TypeScript has the rest of it in lib.dom only. */
const { instantiate } = WebAssembly as unknown as {
  instantiate(bytes: Uint8Array): Promise<{ instance: { exports: unknown } }>;
};
const { instance } = await instantiate(await build_dlmalloc());
const { memory, malloc, free } = instance.exports as Exports;
const m = new Int32Array(memory.buffer);

function touch(object: number, value: number): number {
  m[object >> 2] = value;
  m[(object >> 2) + 1] = value;
  return object;
}

const by_size: Heap = { alloc: (size) => malloc(size), free: (object) => free(object), touch };
const by_order: Heap = { ...by_size, alloc: (order) => malloc(4096 << order) };

export const subject: Subject = { heap: (workload) => (workload === "W5b" ? by_order : by_size) };
