/**
 * limit: one raw LIFO list a size class, heads and links in an Int32Array over RAM. No slabs, no counters, nothing is
 * given back, and a free is told the size: the least work that a workload can be done with in JavaScript.
 */
import { ram, ram32 } from "../../../hal/ram.ts";
import type { Heap, Subject } from "../heap.ts";

const m = ram32;
const HEADS = 64; // word index of the first list's head
const CLASSES = 32; // by size up to 8192; then by order of pages
const TOP = 16; // word that holds the end of what was handed out
const END = ram.buffer.byteLength;
const PAGE_LIST = HEADS + CLASSES;

/** Size classes as those of kmalloc: 8 16 32 64 96 128 192 256 512 1k 2k 4k 8k. */
const CLASS_SIZES = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
const class_of = new Uint8Array(1025);
const sizes = Int32Array.from(CLASS_SIZES);
for (let words = 1; words < class_of.length; words++)
  class_of[words] = CLASS_SIZES.findIndex((size) => size >= words * 8);

m[TOP] = 0x10000;

/** First use of that many bytes. */
function carve(bytes: number): number {
  const at = m[TOP]!;
  if (at + bytes > END) throw new Error("limit: RAM is used up");
  m[TOP] = at + bytes;
  return at;
}

function pop(head: number, bytes: number): number {
  const object = m[head]!;
  if (object === 0) return carve(bytes);
  m[head] = m[object >> 2]!;
  return object;
}

function push(head: number, object: number): void {
  m[object >> 2] = m[head]!;
  m[head] = object;
}

function touch(object: number, value: number): number {
  m[object >> 2] = value;
  m[(object >> 2) + 1] = value;
  return object;
}

const by_size: Heap = {
  alloc(size) {
    const index = class_of[(size + 7) >> 3]!;
    return pop(HEADS + index, sizes[index]!);
  },
  free(object, size) {
    push(HEADS + class_of[(size + 7) >> 3]!, object);
  },
  touch,
};

const of_64: Heap = { alloc: () => pop(HEADS + 3, 64), free: (object) => push(HEADS + 3, object), touch };
const of_192: Heap = { alloc: () => pop(HEADS + 6, 192), free: (object) => push(HEADS + 6, object), touch };
const page: Heap = { alloc: () => pop(PAGE_LIST, 4096), free: (object) => push(PAGE_LIST, object), touch };
/** Here a size is an order. */
const pages: Heap = {
  alloc: (order) => pop(PAGE_LIST + order, 4096 << order),
  free: (object, order) => push(PAGE_LIST + order, object),
  touch,
};

const heaps: Readonly<Record<string, Heap>> = {
  W1: of_64, W1k: of_64, W1n: of_64, "W2 LIFO": of_64, "W2 FIFO": of_64, "W2 random": of_64,
  W3u: by_size, W3l: by_size, W4: of_192, W5a: page, W5b: pages,
}; // prettier-ignore

export const subject: Subject = { heap: (workload) => heaps[workload] };
