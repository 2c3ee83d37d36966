/**
 * A program's own memory: what it calls to load, store and jump, each through the MMU at ring 3.
 *
 *     const va: number = yield sys.mmap(8192);
 *     u.store32(va, 42);                                 no `yield`: an access is no system call
 *     if (u.load32(va) !== 42) yield sys.exit(1);        the value loaded goes into the journal
 *
 * A program is run again from its journal where its generator is not at hand (kernel/program.ts). Memory has moved on by
 * then, so in a replay nothing is touched: loads take their values from the journal, stores and jumps do nothing. A step's
 * loads are written as runs, [value, how often, …], so that looking through a cleared page costs a few bytes; other
 * loads cost some ten bytes of the journal's 1 MiB each.
 *
 * An access that fails throws a Trap, which ends the program, even one that catches it: nothing it asks for after that
 * is heard. So does the access too many, 10^7 without a system call.
 */
import type { Virt } from "../hal/addr.ts";
import {
  mmu_fetch, mmu_fill, mmu_load16, mmu_load32, mmu_load64, mmu_load8, mmu_store16, mmu_store32, mmu_store64, mmu_store8,
} from "../hal/mmu.ts"; // prettier-ignore
import { user_mode } from "./entry.ts";

/** Accesses between two system calls. */
const ACCESS_LIMIT = 10_000_000;
/** Bytes that count as one access where many are filled at once. */
const FILL_UNIT = 64;

export class AccessLimit extends Error {
  override name = "AccessLimit";
}

/** The step that runs: what it loaded, or is to be told that it loaded. */
// eslint-disable-next-line kheap/no-module-state -- registers of a program's step, which never outlasts a kernel entry
const step = {
  replaying: false,
  loads: [] as number[],
  next: 0, // replay: the run that the next load is of
  taken: 0, // replay: loads taken from that run
  accesses: 0,
  failing: false, // between the start of an access and its end, and for good where it failed
};

function begin(weight: number): void {
  step.accesses += weight;
  if (step.failing || step.accesses > ACCESS_LIMIT) {
    step.failing = true;
    throw new AccessLimit(`more than ${ACCESS_LIMIT} accesses without a system call`);
  }
  step.failing = true;
}

function load(access: (va: Virt) => number, va: Virt): number {
  if (step.replaying) return replayed_load();
  begin(1);
  const value = access(va);
  step.failing = false;
  const last = step.loads.length - 2;
  if (last >= 0 && step.loads[last] === value) step.loads[last + 1]!++;
  else step.loads.push(value, 1);
  return value;
}

/** The next value of the journal; one too many is found out at the end of the step. */
function replayed_load(): number {
  const value = step.loads[step.next] ?? 0;
  if (++step.taken < (step.loads[step.next + 1] ?? Infinity)) return value;
  step.next += 2;
  step.taken = 0;
  return value;
}

function store(access: (va: Virt, value: number) => void, va: Virt, value: number): void {
  if (step.replaying) return;
  begin(1);
  access(va, value);
  step.failing = false;
}

/** Memory as programs use it. An address is a number; any may be tried. */
export const u = Object.freeze({
  load8: (va: Virt): number => load(mmu_load8, va),
  load16: (va: Virt): number => load(mmu_load16, va),
  /** Signed. */
  load32: (va: Virt): number => load(mmu_load32, va),
  /** Signed; exact to 2^53. */
  load64: (va: Virt): number => load(mmu_load64, va),
  store8: (va: Virt, value: number): void => store(mmu_store8, va, value),
  store16: (va: Virt, value: number): void => store(mmu_store16, va, value),
  store32: (va: Virt, value: number): void => store(mmu_store32, va, value),
  store64: (va: Virt, value: number): void => store(mmu_store64, va, value),
  memset(va: Virt, value: number, bytes: number): void {
    if (step.replaying) return;
    begin(Math.ceil(bytes / FILL_UNIT));
    const left = mmu_fill(va, value, bytes);
    if (left > 0) mmu_store8(va + bytes - left, value);
    step.failing = false;
  },
  /** Writes a string and a NUL behind it, a byte a character. */
  store_string(va: Virt, text: string): void {
    for (let i = 0; i < text.length; i++) store(mmu_store8, va + i, text.charCodeAt(i));
    store(mmu_store8, va + text.length, 0);
  },
  /** Jumps to an address: whether code may be run there is all that it finds out. */
  exec(va: Virt): void {
    if (step.replaying) return;
    begin(1);
    mmu_fetch(va);
    step.failing = false;
  },
});

/** What a step came to, and what it loaded. `stray`: it loaded more or less than the journal says, or went on after a trap. */
export type StepResult<T> = ({ value: T } | { thrown: unknown }) & {
  readonly loads: readonly number[];
  readonly stray: boolean;
};

/** Runs one step of a program at ring 3; with `loads`, again, as the journal says that it went. */
export function user_step<T>(fn: () => T, loads?: readonly number[]): StepResult<T> {
  Object.assign(step, { replaying: loads !== undefined, loads: [...(loads ?? [])], next: 0, taken: 0, accesses: 0, failing: false }); // prettier-ignore
  const result = user_mode(fn);
  const stray = step.replaying ? step.next !== step.loads.length || step.taken !== 0 : step.failing;
  return { ...result, loads: step.loads, stray };
}
