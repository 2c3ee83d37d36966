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
 * loads cost some ten bytes of the journal's 1 MiB each. `u.look` is for the rest: a value made of many bytes.
 *
 * An access that fails throws a Trap, which ends the program, even one that catches it: nothing it asks for after that
 * is heard. So does the access too many, 10^7 without a system call.
 */
import { PAGE_SIZE, type Phys, type Virt } from "../hal/addr.ts";
import {
  mmu_fetch, mmu_fill, mmu_load16, mmu_load32, mmu_load64, mmu_load8, mmu_store16, mmu_store32, mmu_store64, mmu_store8,
  mmu_translate,
} from "../hal/mmu.ts"; // prettier-ignore
import { MMU_READ, MMU_WRITE } from "../hal/privilege.ts";
import { ram_read_bytes, ram_write_bytes } from "../hal/ram.ts";
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
  loads: [] as unknown[], // a value, how often it was loaded, the next value …
  next: 0, // replay: the run that the next load is of
  taken: 0, // replay: loads taken from that run
  accesses: 0,
  failing: false, // between the start of an access and its end, and for good where it failed
};

function begin(weight: number): void {
  step.accesses += weight > 1 ? weight : 1; // a length may be any number
  if (step.failing || step.accesses > ACCESS_LIMIT) {
    step.failing = true;
    throw new AccessLimit(`more than ${ACCESS_LIMIT} accesses without a system call`);
  }
  step.failing = true;
}

function load(access: (va: Virt) => number, va: Virt): number {
  if (step.replaying) return replayed_load() as number;
  begin(1);
  const value = access(va);
  step.failing = false;
  const last = step.loads.length - 2;
  if (last >= 0 && step.loads[last] === value) step.loads[last + 1] = Number(step.loads[last + 1]) + 1;
  else step.loads.push(value, 1);
  return value;
}

/** The next value of the journal; one too many is found out at the end of the step. */
function replayed_load(): unknown {
  const value = step.loads[step.next] ?? 0;
  if (++step.taken < Number(step.loads[step.next + 1] ?? Infinity)) return value;
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

/** Calls `act` for each piece of memory that lies in one page: where in RAM, and which bytes. Throws a Trap where one may not be. */
function for_each_piece(
  va: Virt,
  bytes: number,
  access: number,
  act: (at: Phys, done: number, piece: number) => void,
): void {
  for (let done = 0; done < bytes;) {
    const at = mmu_translate(va + done, access);
    if (at < 0) {
      // Throws what it met; if it meets nothing now, memory was had after all.
      if (access === MMU_READ) mmu_load8(va + done);
      else mmu_store8(va + done, 0);
      continue;
    }
    const piece = Math.min(bytes - done, PAGE_SIZE - (at % PAGE_SIZE));
    act(at, done, piece);
    done += piece;
  }
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
    for (let left = mmu_fill(va, value, bytes); left > 0; left = mmu_fill(va + bytes - left, value, left))
      mmu_store8(va + bytes - left, value); // throws what it met
    step.failing = false;
  },
  /**
   * What `fn` makes of so many bytes of memory; only that goes into the journal. It is told the bytes and nothing else,
   * and what it returns is a value of JSON. So a program looks through a page for the price of one load.
   */
  look<T>(va: Virt, bytes: number, fn: (memory: Uint8Array) => T): T {
    if (step.replaying) return replayed_load() as T;
    begin(Math.ceil(bytes / FILL_UNIT));
    const memory = new Uint8Array(bytes);
    for_each_piece(va, bytes, MMU_READ, (at, done, piece) => memory.set(ram_read_bytes(at, piece), done));
    const value = fn(memory);
    step.failing = false;
    step.loads.push(value, 1);
    return value;
  },
  /** Copies memory to where it may overlap. */
  memmove(to: Virt, from: Virt, bytes: number): void {
    if (step.replaying) return;
    begin(Math.ceil(bytes / FILL_UNIT));
    const memory = new Uint8Array(bytes);
    for_each_piece(from, bytes, MMU_READ, (at, done, piece) => memory.set(ram_read_bytes(at, piece), done));
    for_each_piece(to, bytes, MMU_WRITE, (at, done, piece) => ram_write_bytes(at, memory.subarray(done, done + piece)));
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
  readonly loads: readonly unknown[];
  readonly stray: boolean;
};

/** Runs one step of a program at ring 3; with `loads`, again, as the journal says that it went. */
export function user_step<T>(fn: () => T, loads?: readonly unknown[]): StepResult<T> {
  Object.assign(step, { replaying: loads !== undefined, loads: [...(loads ?? [])], next: 0, taken: 0, accesses: 0, failing: false }); // prettier-ignore
  const result = user_mode(fn);
  const stray = step.replaying ? step.next !== step.loads.length || step.taken !== 0 : step.failing;
  return { ...result, loads: step.loads, stray };
}
