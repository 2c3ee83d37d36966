/**
 * A script: a list of requests for objects that does not depend on who serves them.
 *
 * `steps` reads one from a recording, as strictly as `replay` does (the first fault is FILE:LINE), or makes one up from a
 * seed. `demand_of` says what a script asks for at most: the bytes of all live objects, which object by object are known
 * before anything runs. The step at which they are most, the peak, is so the same for every allocator.
 */
import type { CpuId, NodeId } from "../../hal/addr.ts";
import type { MachineSpec } from "../../hal/machine.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { Ftrace, is_ftrace } from "../replay/ftrace.ts";
import { Rep } from "../replay/rep.ts";
import { FROM_KMALLOC, Trace, type EventReader, type TraceCache } from "../replay/trace.ts";
import type { Workload } from "./workload.ts";

export interface Step {
  readonly op: "alloc" | "free" | "resize";
  readonly id: number;
  /** What is asked for: the object, or its new size. */
  readonly bytes: number;
  /** FROM_KMALLOC, or the named cache. */
  readonly cache: TraceCache;
  readonly gfp: number;
  readonly node: NodeId;
  /** -1: the one of the step before. */
  readonly cpu: CpuId;
}

/** What a workload asks for. */
export interface Demand {
  /** Allocations, frees and changes of size. */
  readonly operations: number;
  readonly allocs: number;
  /** The allocation (from 1) after which the most bytes are live; a change of size counts as one here. */
  readonly peak_at: number;
  readonly peak_bytes: number;
  readonly peak_objects: number;
  /** Objects that are live at the end. */
  readonly end_objects: number;
}

/**
 * The steps of a workload whose requests are known beforehand; of `copies` of it, in turns, each shifted by one CPU
 * against the one before.
 */
export function* steps(workload: Workload, seed: number, machine: MachineSpec, copies: number): Generator<Step> {
  if (copies === 1) return yield* one_script(workload, seed, machine);
  let cpu = 0;
  for (const { op, id, bytes, cache, gfp, node, cpu: given } of one_script(workload, seed, machine)) {
    if (given >= 0) cpu = given;
    for (let copy = 0; copy < copies; copy++)
      yield { op, id: id * copies + copy, bytes, cache, gfp, node, cpu: (cpu + copy) % machine.cpus };
  }
}

function one_script(workload: Workload, seed: number, machine: MachineSpec): Generator<Step> {
  const { name, bytes, size } = workload;
  if (bytes === undefined) return producer_consumer(size, seed, machine);
  if (is_ftrace(bytes)) return recorded(new Ftrace(name, bytes));
  return looks_like_rep(bytes) ? malloc_lab(new Rep(name, bytes)) : recorded(new Trace(name, bytes));
}

/** A .rep file begins with a number. */
function looks_like_rep(bytes: Uint8Array): boolean {
  return /^\s*\d+\s*[\r\n]/.test(Buffer.from(bytes.slice(0, 64)).toString("latin1"));
}

const base = { cache: FROM_KMALLOC, gfp: GFP_KERNEL, node: -1, cpu: -1, bytes: 0 } as const;

/** The object events of a kernel's recording. */
function* recorded(reader: EventReader): Generator<Step> {
  while (reader.next()) {
    const { op, now, cache, gfp } = reader;
    const { OBJ: id, CPU: cpu, NODE: node } = now as { OBJ: number; CPU: number; NODE: number };
    if (op === "k") yield { op: "alloc", id, bytes: now.BYTES_REQ!, cache: FROM_KMALLOC, gfp, node, cpu };
    else if (op === "c") yield { op: "alloc", id, bytes: cache.object_size, cache, gfp, node, cpu };
    else if ("fdx".includes(op)) yield { op: "free", id, bytes: 0, cache, gfp: GFP_KERNEL, node: -1, cpu };
  }
}

/** A program's mallocs. */
function* malloc_lab(reader: Rep): Generator<Step> {
  const live = new Set<number>();
  while (reader.next()) {
    const { op, id, bytes } = reader;
    if (op === "f" && id === -1) continue; // free(NULL)
    if (op === "a" && live.has(id)) reader.fail(`block ${id} is live already`);
    if (op === "f" && !live.delete(id)) reader.fail(`block ${id} is not live`);
    if (op === "f") yield { ...base, op: "free", id };
    else yield { ...base, op: live.has(id) ? "resize" : "alloc", id, bytes };
    if (op !== "f") live.add(id);
  }
}

/** Messages that may be under way at once. */
const RING = 256;
const BURST = 64;
const PAYLOAD = [16, 2048] as const;
const MESSAGE: TraceCache = { name: "ring_message", object_size: 120, slab_size: 0, align: 8, has_ctor: false };

/** A stream of whole numbers below a bound, the same for the same seed. */
function dice(seed: number): (below: number) => number {
  let x = (Math.imul(seed, 0x9e3779b1) ^ 0x2545f491) | 0 || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return Math.floor(((x >>> 0) / 0x100000000) * below);
  };
}

/** The CPU that makes messages and the one that takes them: of two nodes, else two, else the only one. */
function both_ends({ nodes, cpus }: MachineSpec): [CpuId, CpuId] {
  const [first = 0, second = Math.min(1, cpus - 1)] = nodes.flatMap((node) => node.cpus.slice(0, 1));
  return [first, second];
}

/**
 * Each message is an object of a cache and a payload from kmalloc, both made at one end and freed at the other, in
 * bursts, in order. What is in the ring at the end is taken out of it.
 */
function* producer_consumer(messages: number, seed: number, machine: MachineSpec): Generator<Step> {
  const below = dice(seed);
  const [producer, consumer] = both_ends(machine);
  const [least, most] = PAYLOAD;
  let [made, taken] = [0, 0];
  while (taken < messages) {
    const room = Math.min(RING - (made - taken), messages - made);
    for (const end = made + Math.min(1 + below(BURST), room); made < end; made++) {
      const to = { ...base, op: "alloc", cpu: producer } as const;
      yield { ...to, id: 2 * made, cache: MESSAGE, bytes: MESSAGE.object_size };
      yield { ...to, id: 2 * made + 1, bytes: least + below(most - least + 1) };
    }
    const last = made === messages ? RING : 1 + below(BURST);
    for (const end = taken + Math.min(last, made - taken); taken < end; taken++) {
      yield { ...base, op: "free", id: 2 * taken + 1, cpu: consumer };
      yield { ...base, op: "free", id: 2 * taken, cpu: consumer, cache: MESSAGE };
    }
  }
}

/** Keeps count of what is asked for; a script and a running kernel are counted alike. */
export class Tally {
  operations = 0;
  allocs = 0;
  live_bytes = 0;
  private peak_at = 0;
  private peak_bytes = 0;
  private peak_objects = 0;
  private readonly live = new Map<number, number>();

  /** An allocation, or a change of size of what is live. */
  take(id: number, bytes: number): void {
    this.operations++;
    this.allocs++;
    this.live_bytes += bytes - (this.live.get(id) ?? 0);
    this.live.set(id, bytes);
    if (this.live_bytes <= this.peak_bytes) return;
    this.peak_at = this.allocs;
    this.peak_bytes = this.live_bytes;
    this.peak_objects = this.live.size;
  }

  give(id: number): void {
    this.operations++;
    this.live_bytes -= this.live.get(id) ?? 0;
    this.live.delete(id);
  }

  demand(): Demand {
    const { operations, allocs, peak_at, peak_bytes, peak_objects } = this;
    return { operations, allocs, peak_at, peak_bytes, peak_objects, end_objects: this.live.size };
  }
}

/** What a script asks for: reads all of it, so that a fault in it is found before anything runs. */
export function demand_of(script: Iterable<Step>): Demand {
  const tally = new Tally();
  for (const { op, id, bytes } of script)
    if (op === "free") tally.give(id);
    else tally.take(id, bytes);
  return tally.demand();
}

/** What copies of a script in turns ask for: all grow together, so the peak is where that of one is, in the last copy. */
export function times(demand: Demand, copies: number): Demand {
  const all = Object.entries(demand).map(([name, value]) => [name, (value as number) * copies]);
  return Object.fromEntries(all) as unknown as Demand;
}
