/**
 * What the kernel does when something is impossible: BUG, WARN, panic.
 *
 * `BUG_ON` throws a KernelBug with the values in its message; the one `try/catch` below boot/ (kernel/entry.ts) makes an
 * oops of it. `panic` throws a KernelPanic, which ends the machine. `WARN_ON` prints and goes on.
 */
import { pr_emerg, pr_warn } from "./printk.ts";

/** A broken invariant. */
export class KernelBug extends Error {
  override name = "KernelBug";
}
/** The machine has stopped. */
export class KernelPanic extends Error {
  override name = "KernelPanic";
}

/** What must not be has happened: ends the kernel entry with an oops. */
export function BUG(message: string): never {
  throw new KernelBug(message);
}

/** Throws if `condition` is true. Build the message only after the test where the path is hot. */
export function BUG_ON(condition: boolean, message: string): void {
  if (condition) BUG(message);
}

/** Prints a warning if `condition` is true; returns the condition. */
export function WARN_ON(condition: boolean, message: string): boolean {
  if (condition) pr_warn(`WARNING: ${message}`);
  return condition;
}

/** Stops the machine. */
export function panic(message: string): never {
  pr_emerg(`Kernel panic - not syncing: ${message}`);
  throw new KernelPanic(message);
}
