/**
 * vitest set-up file of the realms of kind "timing": every access of the kernel is charged, CPUs in lockstep. The calls
 * are written into the kernel's files by a plugin (test/config/vitest.config.ts). As in setup_plain.ts, nothing may be
 * imported here.
 */
const key = Symbol.for("kheap.realm");
(globalThis as Record<symbol, unknown>)[key] = { kind: "timing", smp: "lockstep" };
