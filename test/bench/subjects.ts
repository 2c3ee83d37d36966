/** Who is measured: one process each. */

/** How the machine of a kheap subject is booted. */
export interface KheapOptions {
  readonly append?: string;
  /** RAM; 1G if absent, so that every workload finds room. */
  readonly mem?: string;
  readonly cpus?: string;
  /** Objects of 64 bytes that stay live throughout. */
  readonly live?: number;
  /** Caches there are at least. */
  readonly caches?: number;
}

export interface SubjectInfo {
  readonly name: string;
  /** File in test/bench/subjects/, or the C program. */
  readonly file: "limit" | "kheap" | "thi_ng" | "dlmalloc" | "objects" | "system" | "vm" | "glibc.c";
  readonly kheap?: KheapOptions;
  readonly what: string;
}

export const LIMIT = "limit";
export const KHEAP = "kheap slub";

export const SUBJECTS: readonly SubjectInfo[] = [
  { name: LIMIT, file: "limit", what: "one raw LIFO list a size class" },
  { name: KHEAP, file: "kheap", what: "the default machine (slab_full=on)" },
  { name: "kheap slub, slab_full=off", file: "kheap", kheap: { append: "slab_full=off" }, what: "as Linux keeps them" },
  {
    name: "kheap slub, cpu_partial=off",
    file: "kheap",
    kheap: { append: "slub_cpu_partial=off" },
    what: "as in books",
  },
  {
    name: "kheap slub, random",
    file: "kheap",
    kheap: { append: "slab_freelist_random=on" },
    what: "free lists shuffled",
  },
  {
    name: "kheap slub, hardened",
    file: "kheap",
    kheap: { append: "slab_freelist_hardened=on" },
    what: "links scrambled",
  },
  { name: "kheap slub, sheaves", file: "kheap", kheap: { append: "kmalloc_sheaf=60" }, what: "kmalloc_sheaf=60" },
  { name: "kheap slab", file: "kheap", kheap: { append: "slab=slab" }, what: "Bonwick's allocator" },
  { name: "kheap slob", file: "kheap", kheap: { append: "slab=slob" }, what: "first fit, no slabs" },
  { name: "@thi.ng/malloc", file: "thi_ng", what: "a heap in an ArrayBuffer" },
  { name: "wasm dlmalloc", file: "dlmalloc", what: "wasi-libc's malloc, compiled to WebAssembly" },
  { name: "plain objects", file: "objects", what: "the JavaScript heap and its garbage collector" },
  { name: "native glibc", file: "glibc.c", what: "malloc of this host's C library" },
];

/** W6 to W9: what the kernel above the heap does with it. */
export const SYSTEM: SubjectInfo = { name: "kheap system", file: "system", what: "tasks, files, boot, replay" };

/** V1 to V5: virtual memory. */
export const VM: SubjectInfo = { name: "kheap vm", file: "vm", what: "the MMU, faults, fork, areas, vmalloc" };

/** A point of a growth curve: W1 on a machine with more of something. */
export interface GrowthPoint extends SubjectInfo {
  readonly curve: "live objects" | "RAM" | "caches" | "CPUs";
  readonly value: string;
}

const point = (curve: GrowthPoint["curve"], value: string, kheap: KheapOptions): GrowthPoint => ({
  name: `${curve} ${value}`, file: "kheap", kheap, what: "growth", curve, value,
}); // prettier-ignore

/** The first point of each curve is what the others are compared with. */
export const GROWTH: readonly GrowthPoint[] = [
  point("live objects", "10^4", { live: 10_000 }),
  point("live objects", "10^5", { live: 100_000 }),
  point("live objects", "10^6", { live: 1_000_000 }),
  point("RAM", "64M", { live: 10_000, mem: "64M" }),
  point("RAM", "256M", { live: 10_000, mem: "256M" }),
  point("RAM", "2G", { live: 10_000, mem: "2G" }),
  point("caches", "60", { live: 10_000, caches: 60 }),
  point("caches", "300", { live: 10_000, caches: 300 }),
  point("caches", "1000", { live: 10_000, caches: 1000 }),
  point("CPUs", "1", { live: 10_000, cpus: "1" }),
  point("CPUs", "8", { live: 10_000, cpus: "8" }),
  point("CPUs", "64", { live: 10_000, cpus: "64" }),
];
