/**
 * vitest set-up file of the realms of kind "plain": no instrument, CPUs in lockstep.
 *
 * hal/host.ts reads these options once, when it loads; so this file must run before anything imports the kernel,
 * and must itself import nothing.
 */
const key = Symbol.for("kheap.realm");
(globalThis as Record<symbol, unknown>)[key] = { kind: "plain", smp: "lockstep" };
