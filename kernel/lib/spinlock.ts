/**
 * Spinlocks. In lockstep a lock is never contended: one CPU runs at a time and no entry stops in the middle, so taking
 * it is a plain store, and finding it taken is a deadlock. Held locks are counted, so that one that is still held when a
 * test or a command ends is found.
 */
import { static_data } from "../../hal/image.ts";
import { ram32 } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { cpu_regs } from "../../hal/cpu.ts";
import type { Ptr } from "../../hal/addr.ts";
import { BUG } from "./bug.ts";

const m = ram32;
const r = cpu_regs;
/** 0 free, else 1 + the number of the CPU that holds it. */
export const SpinLock = struct("spinlock", { owner: "u32", pad: "u32" }, { sizeof: 8 });
export type SpinLockPtr = Ptr<"spinlock">;

const held = static_data("locks_held", { count: "u32", last: "*spinlock" });
const HELD = held.$at("count") >> 2;
const LAST = held.$at("last") >> 2;

/** Takes a lock. Context: any; the caller holds no lock that comes later in the order. */
export function spin_lock(lock: SpinLockPtr): void {
  const w = lock >> 2;
  if (m[w] !== 0) deadlock(lock);
  m[w] = 1 + r[0]!;
  m[HELD] = m[HELD]! + 1;
  m[LAST] = lock;
}

/** Gives a lock back. */
export function spin_unlock(lock: SpinLockPtr): void {
  const w = lock >> 2;
  if (m[w] === 0) not_held(lock);
  m[w] = 0;
  m[HELD] = m[HELD]! - 1;
}

/** Takes a lock if it is free; true if it did. */
export function spin_trylock(lock: SpinLockPtr): boolean {
  if (m[lock >> 2] !== 0) return false;
  spin_lock(lock);
  return true;
}

/** Locks held on all CPUs together: 0 between two kernel entries. */
export function locks_held(): number {
  return held.count;
}

/** Lets go of what code that is taken out of the kernel still holds, down to `count` locks. */
export function drop_locks(count: number): void {
  if (held.count > count && m[held.last >> 2] !== 0) spin_unlock(held.last);
  held.count = count;
}

/** The address of the lock that was taken last, for the report of one left over. */
export function last_lock_taken(): SpinLockPtr {
  return held.last;
}

function deadlock(lock: SpinLockPtr): never {
  BUG(`deadlock: spinlock at 0x${lock.toString(16)} is already held by CPU ${m[lock >> 2]! - 1}`);
}

function not_held(lock: SpinLockPtr): never {
  BUG(`spin_unlock of a free lock at 0x${lock.toString(16)}`);
}
