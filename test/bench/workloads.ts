/** What is measured: names, sizes, and the patterns that all subjects follow. */

/** One timed run. W4 gives two figures. */
export interface Workload {
  readonly key: string;
  readonly figures: readonly string[];
  readonly what: string;
}

export const WORKLOADS: readonly Workload[] = [
  { key: "W1", figures: ["W1"], what: "64 B through a cache, allocated and freed at once" },
  { key: "W1k", figures: ["W1k"], what: "the same through kmalloc and kfree" },
  { key: "W1n", figures: ["W1n"], what: "W1 with both calls kept out of line" },
  { key: "W2 LIFO", figures: ["W2 LIFO"], what: "1,000 allocated, then freed, last first; per object" },
  { key: "W2 FIFO", figures: ["W2 FIFO"], what: "the same, first first" },
  { key: "W2 random", figures: ["W2 random"], what: "the same, in random order" },
  { key: "W3u", figures: ["W3u"], what: "10,000 live, one at random replaced, 8..4096 B uniform" },
  { key: "W3l", figures: ["W3l"], what: "the same, 8..4096 B log-uniform" },
  { key: "W4", figures: ["W4 grow", "W4 free"], what: "1,000,000 live of 192 B, then all freed; per object" },
  { key: "W5a", figures: ["W5a"], what: "a 4 KiB page, allocated and freed at once" },
  { key: "W5b", figures: ["W5b"], what: "200 live blocks of 2^0..2^9 pages, one at random replaced" },
];

export const SYSTEM_WORKLOADS: readonly Workload[] = [
  { key: "W6", figures: ["W6"], what: "fork, exit and wait of a task" },
  { key: "W7", figures: ["W7"], what: "create and unlink of a file" },
  { key: "W8", figures: ["W8"], what: "boot of the default machine, init's programs included" },
  { key: "W9 fork-shell", figures: ["W9 fork-shell"], what: "replay of a recorded kernel heap, per event" },
  { key: "W9 fs-walk", figures: ["W9 fs-walk"], what: "the same" },
];

export const VM_WORKLOADS: readonly Workload[] = [
  { key: "V1 RAM", figures: ["V1 RAM"], what: "a load from RAM by its Ptr" },
  { key: "V1 hit", figures: ["V1 hit"], what: "a load through the MMU, its page in the TLB" },
  { key: "V1 walk", figures: ["V1 walk"], what: "a load through the MMU that walks four levels" },
  { key: "V2 zero", figures: ["V2 zero"], what: "first store to a page, from ring 3; and its end" },
  { key: "V2 copy", figures: ["V2 copy"], what: "store to a page shared by a fork; its share of fork and exit too" },
  { key: "V3 10", figures: ["V3 10"], what: "fork of a process with 10 pages, and the child's end" },
  { key: "V3 1000", figures: ["V3 1000"], what: "the same, 1,000 pages" },
  { key: "V3 100000", figures: ["V3 100000"], what: "the same, 100,000 pages" },
  { key: "V4 100", figures: ["V4 100"], what: "munmap and mmap of one of 100 areas" },
  { key: "V4 1000", figures: ["V4 1000"], what: "the same, 1,000 areas" },
  { key: "V4 10000", figures: ["V4 10000"], what: "the same, 10,000 areas" },
  { key: "V5 4", figures: ["V5 4"], what: "vmalloc and vfree of 4 pages" },
  { key: "V5 256", figures: ["V5 256"], what: "the same, 256 pages" },
];

export const BATCH = 1000;
export const MANY = 1_000_000;
export const MANY_SIZE = 192;
/** Entries of the random tables: a power of two. */
const TABLE = 1 << 16;

/** A seeded generator: the same patterns in every process. */
export function random_numbers(seed: number): (below: number) => number {
  let x = seed | 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** In which order W2 frees what it took. */
export function free_order(key: string): Int32Array {
  const order = Int32Array.from({ length: BATCH }, (_, i) => (key === "W2 LIFO" ? BATCH - 1 - i : i));
  if (key !== "W2 random") return order;
  const random = random_numbers(1);
  for (let i = BATCH - 1; i > 0; i--) {
    const j = random(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** How many are live in W3 and W5b, which one is replaced, and by what size (W5b: order). */
export function pattern(key: string): { live: number; picks: Int32Array; sizes: Int32Array } {
  const random = random_numbers(key === "W3l" ? 3 : 2);
  const live = key === "W5b" ? 200 : 10_000;
  const size = (): number => {
    if (key === "W5b") return random(10);
    if (key === "W3u") return 8 + random(4089);
    return Math.floor(8 * 2 ** (9 * (random(1 << 20) / (1 << 20))));
  };
  const fill = (make: () => number): Int32Array => Int32Array.from({ length: TABLE }, make);
  return { live, picks: fill(() => random(live)), sizes: fill(size) };
}

/** What a size class of kmalloc gives for a request. */
export function class_size(size: number): number {
  if (size > 64 && size <= 96) return 96;
  if (size > 128 && size <= 192) return 192;
  return Math.max(8, 2 ** Math.ceil(Math.log2(size)));
}
