/**
 * Machines for tests: small, full of garbage at power-on, and checked for leaks before they go.
 *
 *     with_machine({}, () => { … });                          40 MiB, 2 nodes, 2 CPUs, memory only
 *     with_machine({ until: "init", append: "…" }, () => …)   programs and files too
 */
import { expect } from "vitest";
import { MIB, PRESETS, check_machine, type MachineSpec } from "../../hal/machine.ts";
import { boot, compare_figures, power_off, take_figures, type BootOptions } from "../../boot/start_kernel.ts";
import { validate_mm } from "../../mm/validate.ts";

/** 40 MiB: node 0 has 32 with all three zones, node 1 has 8. One CPU each. */
export const TEST_MACHINE: MachineSpec = {
  ...PRESETS.textbook!,
  name: "test",
  memory: [
    { start: 0, size: 0x9fc00, type: 1 },
    { start: 0x9fc00, size: 0x100000 - 0x9fc00, type: 2 },
    { start: MIB, size: 39 * MIB, type: 1 },
  ],
  nodes: [
    { ranges: [{ start: 0, size: 32 * MIB }], cpus: [0] },
    { ranges: [{ start: 32 * MIB, size: 8 * MIB }], cpus: [1] },
  ],
  cpus: 2,
  dma_limit: 4 * MIB,
  dma32_limit: 16 * MIB,
};

/** 64 KiB of garbage that depends on the seed alone. */
export function garbage(seed: number): Uint8Array {
  const block = new Uint8Array(65536);
  let x = seed | 1;
  for (let i = 0; i < block.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    block[i] = x;
  }
  return block;
}

export type TestMachine = Partial<BootOptions> & {
  /** Pages that may be left over or too few: where long-lived objects (sheaves of kmalloc) move between slabs. */
  readonly page_slack?: number;
};

/** Boots a machine (memory only, unless `until` says more), runs `fn`, and fails if anything is left or broken. */
export function with_machine<T>(options: TestMachine, fn: () => T): T {
  const spec = options.machine ?? TEST_MACHINE;
  expect(check_machine(spec)).toBeUndefined();
  const until = options.until ?? "mm";
  boot({ garbage: garbage(options.seed ?? 1), loglevel: 0, ...options, machine: spec, until });
  const before = until === "init" ? undefined : take_figures();
  const result = fn();
  expect(validate_mm()).toEqual([]);
  const left = before ? compare_figures(before, take_figures()) : power_off();
  const pages = Math.abs(left.pages) <= (options.page_slack ?? 0) ? 0 : left.pages;
  expect({ ...left, pages }).toEqual({ pages: 0, objects: 0, locks: 0, details: [] });
  expect(validate_mm()).toEqual([]);
  return result;
}
