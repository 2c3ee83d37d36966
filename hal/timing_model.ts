/**
 * The timing model: what each access to RAM costs, in cycles of the CPU that makes it.
 *
 *     load or store ── TLB ── L1 ── L2 ──┬── another CPU's cache    transfer * distance / 10
 *                                        └── memory of some node    memory * distance / 10
 *
 *     TLB     per CPU, two levels. Found in the first: nothing; in the second: its penalty; in neither: a walk.
 *     L1 L2   per CPU, write-back, neither includes the other. The level that has the line decides the cost.
 *     line    owned by one CPU that may write it, or shared by several that read it (MESI, with E and M as one, because
 *             a directory cannot tell them apart). A line that other CPUs hold comes from the nearest of them. A store
 *             takes it from all others and waits for the farthest. Either is one transfer.
 *     atomic  an access that makes its CPU the owner of the line, and a fixed charge
 *     lock    an atomic operation on the lock's word; a lock wait if another CPU's cache had the line. In lockstep
 *             nobody spins: a wait is counted where the lock, or what lies beside it, was last another CPU's.
 *
 * The arrays here are the hardware's own state (tags, directory, counters), which no program can read; they are made at
 * power-on from the machine spec. All figures are whole numbers that follow from the spec and the order of accesses.
 * Nothing here accesses RAM, and nothing that does is imported: whatever accesses RAM calls this first.
 *
 * Unlike real CPUs: instructions cost nothing, nothing overlaps, there is no prefetcher, no store buffer and no third
 * level; a write-back is free; a walk costs the same wherever the page tables lie.
 */
import type { CpuId, Ptr } from "./addr.ts";
import { drop, has, make_sets, put, touch, type Sets } from "./cache_model.ts";
import type { MachineSpec } from "./machine.ts";

const LINE_SHIFT = 6;
const LINE_BYTES = 1 << LINE_SHIFT;
/** Lines of a page frame, the unit in which memory belongs to nodes. */
const FRAME_SHIFT = 12 - LINE_SHIFT;
const FRAME_BYTES = 4096;

/** What is counted. */
export const COUNTERS = [
  "cycles", "functions", "loads", "stores", "l1_misses", "l2_misses", "local_memory", "remote_memory", "transfers",
  "tlb_misses", "atomics", "locks", "lock_waits",
] as const; // prettier-ignore
export const CYCLES = 0;
const FUNCTIONS = 1;
const LOADS = 2; // and stores behind it
const L1_MISSES = 4;
const L2_MISSES = 5;
const LOCAL_MEMORY = 6;
const REMOTE_MEMORY = 7;
const TRANSFERS = 8;
const TLB_MISSES = 9;
const ATOMICS = 10;
const LOCKS = 11;
const LOCK_WAITS = 12;

export const counters = new Float64Array(COUNTERS.length);

/** The hardware that was powered on. */
interface Hardware {
  readonly regs: Int32Array;
  readonly cpus: number;
  readonly l1: Sets;
  readonly l2: Sets;
  readonly dtlb: Sets;
  readonly stlb: Sets;
  readonly page_shift: number;
  readonly l1_latency: number;
  readonly l2_latency: number;
  readonly stlb_penalty: number;
  readonly walk: number;
  readonly call: number;
  readonly atomic: number;
  /** Cycles by [CPU * nodes + node of the memory], and by [CPU * cpus + other CPU]. */
  readonly memory_cost: Int32Array;
  readonly transfer_cost: Int32Array;
  readonly nodes: number;
  readonly node_of_cpu: Uint8Array;
  /** By page frame. */
  readonly node_of_frame: Uint8Array;
  /** By line: 1 + the CPU that owns it, 0 if none does. */
  readonly owner: Uint8Array;
  /** By line, in `words` words: a bit for each CPU that has it in a cache. */
  readonly holders: Int32Array;
  readonly words: number;
}
// eslint-disable-next-line kheap/no-module-state -- the instrument, made at power-on; see the head
let hardware: Hardware | undefined;

/** Distance 10 is the figure itself. */
const scaled = (cycles: number, distance: number): number => Math.floor((cycles * distance) / 10);

/** Powers on: cold caches, counters at 0. `regs` are the CPU's registers (hal/cpu.ts), of which CPU_ID is the first. */
export function model_power_on(spec: MachineSpec, ram_bytes: number, regs: Int32Array): void {
  hardware = make_hardware(spec, ram_bytes, regs);
  counters.fill(0);
}

/** A machine's caches, cold. */
function make_hardware(spec: MachineSpec, ram_bytes: number, regs: Int32Array): Hardware {
  const { cpus, timing, distance } = spec;
  const lines = Math.ceil(ram_bytes / LINE_BYTES);
  const words = cpus > 32 ? 2 : 1;
  const node_of_cpu = Uint8Array.from({ length: cpus }, (_, cpu) => spec.nodes.findIndex((n) => n.cpus.includes(cpu)));
  const node_of_frame = new Uint8Array((lines >> FRAME_SHIFT) + 1);
  for (const [nid, node] of spec.nodes.entries())
    for (const { start, size } of node.ranges)
      node_of_frame.fill(nid, start / FRAME_BYTES, (start + size) / FRAME_BYTES);
  const memory_cost = [...node_of_cpu].flatMap((from) => distance[from]!.map((d) => scaled(timing.memory, d)));
  const transfer_cost = [...node_of_cpu].flatMap((from) =>
    [...node_of_cpu].map((to) => scaled(timing.transfer, distance[from]![to]!)),
  );
  const cache = ({ size, ways }: { size: number; ways: number }): Sets =>
    make_sets(cpus, size / LINE_BYTES / ways, ways);
  const tlb = ({ entries, ways }: { entries: number; ways: number }): Sets => make_sets(cpus, entries / ways, ways);
  return {
    regs,
    cpus,
    l1: cache(timing.l1d),
    l2: cache(timing.l2),
    dtlb: tlb(timing.dtlb),
    stlb: tlb(timing.stlb),
    page_shift: Math.log2(timing.page_size),
    l1_latency: timing.l1d.latency,
    l2_latency: timing.l2.latency,
    stlb_penalty: timing.stlb.penalty,
    walk: timing.walk,
    call: timing.call,
    atomic: timing.atomic,
    memory_cost: Int32Array.from(memory_cost),
    transfer_cost: Int32Array.from(transfer_cost),
    nodes: spec.nodes.length,
    node_of_cpu,
    node_of_frame,
    owner: new Uint8Array(lines),
    holders: new Int32Array(lines * words),
    words,
  };
}

/** A load or store within one line, by the CPU that runs. */
export function charge(ptr: Ptr, store: 0 | 1): void {
  const hw = hardware;
  if (!hw) return; // a file that loads
  const cpu = hw.regs[0]!;
  const line = ptr >>> LINE_SHIFT;
  counters[LOADS + store]! += 1;
  let cost = translate(hw, cpu, ptr >>> hw.page_shift);
  if (touch(hw.l1, cpu, line)) cost += hw.l1_latency;
  else cost += l1_miss(hw, cpu, line, store);
  if (store === 1 && hw.owner[line] !== cpu + 1) cost += take(hw, cpu, line);
  counters[CYCLES]! += cost;
}

/** Cycles of a translation. */
function translate(hw: Hardware, cpu: CpuId, page: number): number {
  if (touch(hw.dtlb, cpu, page)) return 0;
  put(hw.dtlb, cpu, page);
  if (touch(hw.stlb, cpu, page)) return hw.stlb_penalty;
  put(hw.stlb, cpu, page);
  counters[TLB_MISSES]! += 1;
  return hw.walk;
}

/** Cycles of an access that L1 cannot serve; the line is in L1 then. What is no RAM is in no cache. */
function l1_miss(hw: Hardware, cpu: CpuId, line: number, store: 0 | 1): number {
  if (line >= hw.owner.length) return hw.l2_latency;
  counters[L1_MISSES]! += 1;
  let cost = hw.l2_latency;
  if (!touch(hw.l2, cpu, line)) {
    counters[L2_MISSES]! += 1;
    cost = fetch_line(hw, cpu, line, store);
    const displaced = put(hw.l2, cpu, line);
    if (displaced >= 0 && !has(hw.l1, cpu, displaced)) give_up(hw, cpu, displaced);
  }
  const displaced = put(hw.l1, cpu, line);
  if (displaced >= 0 && !has(hw.l2, cpu, displaced)) give_up(hw, cpu, displaced);
  return cost;
}

/** Cycles to get a line that no cache of this CPU has. A line that nobody else has is this CPU's own from here on. */
function fetch_line(hw: Hardware, cpu: CpuId, line: number, store: 0 | 1): number {
  const shared = held_elsewhere(hw, cpu, line);
  let cost: number;
  if (shared) {
    cost = store === 1 ? take(hw, cpu, line) : share(hw, cpu, line);
  } else {
    const node = hw.node_of_frame[line >>> FRAME_SHIFT]!;
    counters[node === hw.node_of_cpu[cpu] ? LOCAL_MEMORY : REMOTE_MEMORY]! += 1;
    hw.owner[line] = cpu + 1;
    cost = hw.memory_cost[cpu * hw.nodes + node]!;
  }
  hw.holders[line * hw.words + (cpu >> 5)]! |= 1 << (cpu & 31);
  return cost;
}

function holds(hw: Hardware, cpu: CpuId, line: number): boolean {
  return (hw.holders[line * hw.words + (cpu >> 5)]! & (1 << (cpu & 31))) !== 0;
}

/** True if a CPU other than this has the line. */
function held_elsewhere(hw: Hardware, cpu: CpuId, line: number): boolean {
  for (let word = 0; word < hw.words; word++) {
    const own = word === cpu >> 5 ? 1 << (cpu & 31) : 0;
    if ((hw.holders[line * hw.words + word]! & ~own) !== 0) return true;
  }
  return false;
}

/** The nearest CPU that has the line sends it; nobody owns it then. Returns the cycles. */
function share(hw: Hardware, cpu: CpuId, line: number): number {
  let nearest = Infinity;
  for (let other = 0; other < hw.cpus; other++)
    if (other !== cpu && holds(hw, other, line)) nearest = Math.min(nearest, hw.transfer_cost[cpu * hw.cpus + other]!);
  hw.owner[line] = 0;
  counters[TRANSFERS]! += 1;
  return nearest;
}

/** Makes this CPU the owner: all others lose the line, and it waits for the farthest of them. Returns the cycles. */
function take(hw: Hardware, cpu: CpuId, line: number): number {
  if (line >= hw.owner.length) return 0;
  hw.owner[line] = cpu + 1;
  if (!held_elsewhere(hw, cpu, line)) return 0;
  let farthest = 0;
  for (let other = 0; other < hw.cpus; other++) {
    if (other === cpu || !holds(hw, other, line)) continue;
    farthest = Math.max(farthest, hw.transfer_cost[cpu * hw.cpus + other]!);
    drop(hw.l1, other, line);
    drop(hw.l2, other, line);
    hw.holders[line * hw.words + (other >> 5)]! &= ~(1 << (other & 31));
  }
  counters[TRANSFERS]! += 1;
  return farthest;
}

/** A line that is in no cache of its CPU any more: written back, if it has to be. */
function give_up(hw: Hardware, cpu: CpuId, line: number): void {
  if (hw.owner[line] === cpu + 1) hw.owner[line] = 0;
  hw.holders[line * hw.words + (cpu >> 5)]! &= ~(1 << (cpu & 31));
}

/** An atomic operation on a word. */
export function charge_atomic(ptr: Ptr): void {
  charge(ptr, 1);
  counters[ATOMICS]! += 1;
  counters[CYCLES]! += hardware?.atomic ?? 0;
}

/** An atomic operation that takes a lock. */
export function charge_lock(lock: Ptr): void {
  const transfers = counters[TRANSFERS];
  charge_atomic(lock);
  counters[LOCKS]! += 1;
  if (counters[TRANSFERS] !== transfers) counters[LOCK_WAITS]! += 1;
}

/** The call of a function. */
export function charge_call(): void {
  counters[FUNCTIONS]! += 1;
  counters[CYCLES]! += hardware?.call ?? 0;
}
