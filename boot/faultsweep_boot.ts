/**
 * Boots with one allocation failing: `faultsweep boot`.
 *
 * A boot that cannot go on may end where Linux's does, in a panic that says what could not be had (SLAB_PANIC caches, hash
 * tables, the first program). Anything else that ends it is a finding, and so is what is broken or left over by a
 * boot that went on. As the main file of a worker (boot/worker.mjs) it answers each number with one boot, so that the
 * machine at the console stays as it is.
 */
import { parentPort, workerData } from "node:worker_threads";
import { console_attach } from "../hal/console.ts";
import { KernelPanic } from "../kernel/lib/bug.ts";
import { validate_mm } from "../mm/validate.ts";
import { allocation_counts, complaints, counts_between, watch_strike, type Strike } from "./faults.ts";
import { boot, power_off, type BootOptions } from "./start_kernel.ts";

export interface BootStrike extends Strike {
  /** Why the boot ended, where it did as Linux's would. */
  readonly panic?: string;
  /** What the allocators' counters say at the end of a boot. */
  readonly counts?: { readonly objects: number; readonly pages: number };
  /** What is wrong; empty: nothing. */
  readonly findings: readonly string[];
}

/** Boots a fresh machine in this realm with the nth allocation failing, and powers it off. */
export function boot_with_strike(options: BootOptions, n: number): BootStrike {
  const before = console_attach(() => {});
  const disarm = watch_strike();
  try {
    boot({ ...options, append: `${options.append ?? ""} fail_nth=${n}`, loglevel: 0 });
    const strike = disarm();
    const counts = counts_between({ objects: new Map(), pages: 0 }, allocation_counts());
    const findings = [...complaints(), ...validate_mm()];
    const { pages, details } = power_off();
    findings.push(...details.map((detail) => `${detail} left over`), ...validate_mm());
    if (details.length === 0 && pages !== 0) findings.push(`${pages} pages left over`);
    return { ...strike, counts, findings };
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    const { touched, at } = disarm();
    const says_what = error instanceof KernelPanic && !message.startsWith("Fatal exception");
    const result = { touched, at, asked: n };
    return says_what
      ? { ...result, panic: message, findings: [] }
      : { ...result, findings: [`${name}: ${message}`, ...complaints()] };
  } finally {
    console_attach(before);
  }
}

const { faultsweep } = (workerData ?? {}) as { faultsweep?: BootOptions };
if (faultsweep) parentPort!.on("message", (n: number) => parentPort!.postMessage(boot_with_strike(faultsweep, n)));
