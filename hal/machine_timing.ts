/**
 * The part of a machine spec that the timing model charges by: caches, TLBs, latencies. Numbers of three real CPUs.
 */
const KIB = 1024;

export interface CacheSpec {
  readonly size: number;
  readonly ways: number;
  /** Load-to-use, in cycles. */
  readonly latency: number;
}
export interface TlbSpec {
  readonly entries: number;
  readonly ways: number;
}
/** What hal/timing_model.ts charges. Sizes in bytes, times in cycles; lines have 64 bytes. */
export interface TimingSpec {
  readonly l1d: CacheSpec;
  readonly l2: CacheSpec;
  /** The size of the pages with which all of RAM is mapped. */
  readonly page_size: number;
  readonly dtlb: TlbSpec;
  /** The second level; `penalty` is added to an access that finds its translation here. */
  readonly stlb: TlbSpec & { readonly penalty: number };
  /** Added to an access that finds its translation in neither. */
  readonly walk: number;
  /** A load from memory of the CPU's own node; a remote one takes distance / 10 times as long. */
  readonly memory: number;
  /** A line out of the cache of another CPU of the same node, likewise. */
  readonly transfer: number;
  /** Added to an access that is an atomic operation. */
  readonly atomic: number;
  /** A call of a function of mm/. */
  readonly call: number;
}

/** Call, return, and what is saved in between: not measured, but the same for all, so that a layer of calls has a price. */
const CALL = 10;

/**
 * Intel Skylake, client, 4 GHz.
 *
 * Sizes, ways, latencies of L1 and L2: Intel 64 and IA-32 Architectures Optimization Reference Manual, tables "Cache
 * Parameters of the Skylake Client Microarchitecture" and "TLB Parameters" (the rows for 2 MiB pages, with which Linux
 * maps RAM). Second TLB 9, memory 42 cycles + 51 ns: 7-cpu.com/cpu/Skylake.html; walk: within the 23 to 28 cycles that
 * 7-cpu.com/cpu/Westmere.html has for a miss on large pages. A line that another core has modified, 75: D. Levinthal,
 * Performance Analysis Guide for Intel Core i7 and Xeon 5500 (2009), data source latencies. LOCK CMPXCHG takes 18, of which
 * 4 are its access: A. Fog, Instruction tables, and uops.info.
 */
export const SKYLAKE_CLIENT: TimingSpec = Object.freeze({
  l1d: { size: 32 * KIB, ways: 8, latency: 4 },
  l2: { size: 256 * KIB, ways: 4, latency: 12 },
  page_size: 2048 * KIB,
  dtlb: { entries: 32, ways: 4 },
  stlb: { entries: 1536, ways: 12, penalty: 9 },
  walk: 26,
  memory: 246,
  transfer: 75,
  atomic: 14,
  call: CALL,
});

/** Intel Skylake, server: as the client but for L2 (ibid., "Cache Parameters of the Skylake Server Microarchitecture"). */
export const SKYLAKE_SERVER: TimingSpec = Object.freeze({
  ...SKYLAKE_CLIENT,
  l2: { size: 1024 * KIB, ways: 16, latency: 14 },
});

/**
 * Intel Atom N270 (Bonnell), 1.6 GHz: 7-cpu.com/cpu/Atom.html, with its 4 KiB pages. First TLB 16 entries, a miss 7 cycles;
 * second 64, a miss 16 more; memory 15 cycles + 115 ns. CMPXCHG 14, of which 3 are its access: LLVM, X86ScheduleAtom.td.
 * One core: a line from another CPU would come over the bus, as from memory.
 */
export const ATOM: TimingSpec = Object.freeze({
  l1d: { size: 24 * KIB, ways: 6, latency: 3 },
  l2: { size: 512 * KIB, ways: 8, latency: 15 },
  page_size: 4 * KIB,
  dtlb: { entries: 16, ways: 16 },
  stlb: { entries: 64, ways: 4, penalty: 7 },
  walk: 23,
  memory: 199,
  transfer: 199,
  atomic: 11,
  call: CALL,
});

const LINE_BYTES = 64;
const MAX_WAYS = 64;
const MAX_CACHE_BYTES = 64 * 1024 * KIB;
const MAX_CYCLES = 100_000;

const is_power_of_two = (value: number): boolean => value >= 1 && Number.isInteger(Math.log2(value));

/** Why a machine cannot be timed so, in one line; undefined if it can. */
export function check_timing(timing: TimingSpec): string | undefined {
  const { l1d, l2, page_size, dtlb, stlb, ...times } = timing;
  const cycles = { "l1d.latency": l1d.latency, "l2.latency": l2.latency, "stlb.penalty": stlb.penalty, ...times };
  for (const [name, value] of Object.entries(cycles))
    if (!Number.isInteger(value) || value < 0 || value > MAX_CYCLES)
      return `timing.${name} ${value}: give a whole number of cycles from 0 to ${MAX_CYCLES}`;
  if (!is_power_of_two(page_size) || page_size < 4 * KIB || page_size > 1024 * 1024 * KIB)
    return `timing.page_size ${page_size}: give a power of two from 4K to 1G`;
  return (
    check_sets("l1d", "size", l1d.size, LINE_BYTES, l1d.ways) ??
    check_sets("l2", "size", l2.size, LINE_BYTES, l2.ways) ??
    check_sets("dtlb", "entries", dtlb.entries, 1, dtlb.ways) ??
    check_sets("stlb", "entries", stlb.entries, 1, stlb.ways)
  );
}

/** A cache or TLB has to divide into a power of two of sets. */
function check_sets(part: string, what: string, size: number, unit: number, ways: number): string | undefined {
  if (!Number.isInteger(ways) || ways < 1 || ways > MAX_WAYS)
    return `timing.${part}.ways ${ways}: give a whole number from 1 to ${MAX_WAYS}`;
  if (size > MAX_CACHE_BYTES) return `timing.${part}.${what} ${size}: give at most ${MAX_CACHE_BYTES}`;
  if (is_power_of_two(size / unit / ways)) return undefined;
  const sets = unit === 1 ? `${what} / ways` : `${what} / ${unit} / ways`;
  const near = unit * ways * 2 ** Math.max(Math.round(Math.log2(size / unit / ways)), 0);
  return `timing.${part}.${what} ${size}: ${sets}, the number of sets, has to be a power of two; with ${ways} ways give ${near}`;
}
