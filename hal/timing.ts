/**
 * A realm of kind `timing`: what its code calls at each access to RAM, and what may be read of the cycles it took.
 *
 * Where the files of hal, mm and kernel are loaded into such a realm, boot/instrument/ writes calls to the functions
 * below into them, so that no line of theirs knows of it and a plain realm pays nothing:
 *
 *     m[i]                 m[ld32(i)]             ram8, ram16 and ram32, whatever a file calls them
 *     m[i] = v             st32(m, i, v)
 *     function f(…) {…}    const before = enter(n); try {…} finally { leave(before); }      mm/; kernel/: enter_kernel
 *     ram_zero(p, n) {…}   on_ram_zero(p, n); …   what hal/ram.ts, hal/atomic.ts and spinlocks do is one operation
 *
 * An instrument of another kind is another file with these exports.
 *
 * Only what the kernel does is counted: accesses while a function of mm/ or kernel/ is under way, not those of the host
 * that looks at a structure. Cycles are booked to the innermost function of mm/; what kernel/lib and hal do is their
 * caller's, and so is the body of a generator, Linux's for_each macro.
 *
 * The two halves of an 8-byte word, accessed one after the other, are one access, as on a 64-bit CPU. Block operations
 * are one access a line. The model looks on: it changes nothing in RAM, and the kernel's clock never reads it.
 */
import type { Ptr } from "./addr.ts";
import { realm } from "./host.ts";
import type { MachineSpec } from "./machine.ts";
import { ram8 } from "./ram.ts";
import {
  COUNTERS, CYCLES, charge, charge_atomic, charge_call, charge_lock, counters, model_power_on,
} from "./timing_model.ts"; // prettier-ignore

/** True if this realm counts. Where it does not, nothing below does anything, and all figures are 0. */
export const timing_on: boolean = realm.kind === "timing";

const LINE_BYTES = 64;
const MAX_FUNCTIONS = 8192;
/** Who is under way: the host, the kernel outside of mm/, or a function of mm/ by its number. */
const HOST = 0;
const KERNEL = 1;
// eslint-disable-next-line kheap/no-module-state -- code, not state: names of functions, by number; grows as files load
const functions: string[] = ["(host)", "(kernel)"];

/** CURRENT: who is under way. LAST: the last access, if it was to a word: its address, and 1 for a store. */
const CURRENT = 0;
const LAST = 1;
// eslint-disable-next-line kheap/no-module-state -- the instrument's registers, which the machine cannot read
const registers = new Int32Array(2);
/** By function; and in `booked` all cycles that are in one of them. */
// eslint-disable-next-line kheap/no-module-state -- the instrument's counters, as above
const own_cycles = new Float64Array(MAX_FUNCTIONS), calls = new Float64Array(MAX_FUNCTIONS), booked = new Float64Array(1); // prettier-ignore

/** Powers on: cold caches, all figures 0. `regs` are the CPU's registers (hal/cpu.ts), CPU_ID first. */
export function timing_power_on(spec: MachineSpec, ram_bytes: number, regs: Int32Array): void {
  if (!timing_on) return;
  model_power_on(spec, ram_bytes, regs);
  for (const array of [registers, own_cycles, calls, booked]) array.fill(0);
}

export type TimingFigures = Readonly<Record<(typeof COUNTERS)[number], number>>;

/** Cycles since power-on: read it before and after an operation. */
export function timing_cycles(): number {
  return counters[CYCLES]!;
}

/** All counters since power-on. */
export function timing_read(): TimingFigures {
  return Object.fromEntries(COUNTERS.map((name, i) => [name, counters[i]!])) as TimingFigures;
}

/** What was counted since `before` was read. */
export function timing_since(before: TimingFigures): TimingFigures {
  return Object.fromEntries(COUNTERS.map((name, i) => [name, counters[i]! - before[name]])) as TimingFigures;
}

export interface FunctionFigures {
  /** `mm/slub.ts:kmem_cache_alloc`, or `(kernel)` for what no function of mm/ did. */
  readonly name: string;
  readonly calls: number;
  /** Without those of the functions of mm/ that it called. */
  readonly cycles: number;
}

/** Every function's figures since power-on, by number; what the one under way has not finished is not all in. */
export function timing_functions(): FunctionFigures[] {
  return functions.map((name, i) => ({ name, calls: calls[i]!, cycles: own_cycles[i]! })).slice(KERNEL);
}

/** Numbers the functions of a file of mm/, as it loads; returns the first number. */
export function define_functions(file: string, names: readonly string[]): number {
  const first = functions.length;
  for (const name of names) functions.push(`${file}:${name}`);
  if (functions.length > MAX_FUNCTIONS) throw new Error(`timing: more than ${MAX_FUNCTIONS} functions`);
  return first;
}

/** Enters a function of mm/; hand what it returns to `leave`. */
export function enter(id: number): number {
  const before = switch_to(id);
  calls[id]! += 1;
  charge_call();
  return before;
}

/** Enters a function of kernel/. */
export function enter_kernel(): number {
  return switch_to(KERNEL);
}

export function leave(before: number): void {
  switch_to(before);
}

function switch_to(id: number): number {
  const before = registers[CURRENT]!;
  const cycles = counters[CYCLES]!;
  own_cycles[before]! += cycles - booked[0]!;
  booked[0] = cycles;
  registers[CURRENT] = id;
  return before;
}

/** A load or store of a word: free if it is the second half of an 8-byte word whose first half was the last access. */
function word(ptr: Ptr, store: 0 | 1): void {
  if (registers[CURRENT] === HOST) return;
  const last = registers[LAST];
  registers[LAST] = ptr | store;
  if ((ptr & 4) === 0 || last !== ((ptr - 4) | store)) charge(ptr, store);
}

/** A load or store of a byte or two. */
function part(ptr: Ptr, store: 0 | 1): void {
  if (registers[CURRENT] === HOST) return;
  registers[LAST] = -1;
  charge(ptr, store);
}

/** A load or store of each line of a block. */
function block(ptr: Ptr, size_bytes: number, store: 0 | 1): void {
  for (let at = ptr & -LINE_BYTES; at < ptr + size_bytes; at += LINE_BYTES) part(at, store);
}

export function ld8(i: number): number {
  part(i, 0);
  return i;
}

export function ld16(i: number): number {
  part(i << 1, 0);
  return i;
}

export function ld32(i: number): number {
  word(i << 2, 0);
  return i;
}

export function st8(view: Uint8Array, i: number, value: number): number {
  part(i, 1);
  return (view[i] = value);
}

export function st16(view: Uint16Array, i: number, value: number): number {
  part(i << 1, 1);
  return (view[i] = value);
}

export function st32(view: Int32Array, i: number, value: number): number {
  word(i << 2, 1);
  return (view[i] = value);
}

export function on_ram_zero(ptr: Ptr, size_bytes: number): void {
  block(ptr, size_bytes, 1);
}

export function on_ram_fill(ptr: Ptr, _value: number, size_bytes: number): void {
  block(ptr, size_bytes, 1);
}

export function on_ram_copy(to: Ptr, from: Ptr, size_bytes: number): void {
  block(from, size_bytes, 0);
  block(to, size_bytes, 1);
}

export function on_ram_read_string(ptr: Ptr, max_bytes: number): void {
  let length = 0;
  while (length < max_bytes && ram8[ptr + length] !== 0) length++;
  block(ptr, Math.min(length + 1, max_bytes), 0);
}

export function on_ram_write_string(ptr: Ptr, _text: string, max_bytes: number): void {
  block(ptr, max_bytes, 1);
}

export function on_ram_write_bytes(ptr: Ptr, bytes: Uint8Array): void {
  block(ptr, bytes.length, 1);
}

export function on_ram_read_bytes(ptr: Ptr, size_bytes: number): void {
  block(ptr, size_bytes, 0);
}

function atomic(ptr: Ptr): void {
  if (registers[CURRENT] === HOST) return;
  registers[LAST] = -1;
  charge_atomic(ptr);
}
export { atomic as on_atomic_add, atomic as on_atomic_add_return, atomic as on_cmpxchg };

export function on_spin_lock(lock: Ptr): void {
  if (registers[CURRENT] === HOST) return;
  registers[LAST] = -1;
  charge_lock(lock);
}

/** On x86 a plain store. */
export function on_spin_unlock(lock: Ptr): void {
  part(lock, 1);
}
