/** @thi.ng/malloc: a heap in an ArrayBuffer, first fit over lists of used and of free blocks. */
import type { Heap, Subject } from "../heap.ts";
import { load_peer } from "../peers.ts";

interface MemPool {
  malloc(size: number): number;
  free(address: number): boolean;
  // eslint-disable-next-line @typescript-eslint/naming-convention -- the package's own name
  freeAll(): void;
  stats(): { top: number };
}
type Module = { MemPool: new (options: { buf: ArrayBuffer; size: number }) => MemPool };

const BYTES = 0x20000000;
const { MemPool } = await load_peer<Module>("@thi.ng/malloc");
const buffer = new ArrayBuffer(BYTES);
const m = new Int32Array(buffer);
const pool = new MemPool({ buf: buffer, size: BYTES });

function touch(object: number, value: number): number {
  m[object >> 2] = value;
  m[(object >> 2) + 1] = value;
  return object;
}

const by_size: Heap = {
  alloc: (size) => pool.malloc(size),
  free: (object) => void pool.free(object),
  touch,
  reset: () => pool.freeAll(),
};
const by_order: Heap = { ...by_size, alloc: (order) => pool.malloc(4096 << order) };

export const subject: Subject = {
  heap: (workload) => (workload === "W5b" ? by_order : by_size),
  bytes_used: () => pool.stats().top,
};
