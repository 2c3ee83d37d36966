/**
 * Settles what this realm is, before anything of the kernel is loaded: hal/host.ts reads it once.
 */
import type { RealmOptions } from "../hal/host.ts";
import type { Options } from "./options.ts";

/** Sets the realm's options. Context: no file of hal, mm or kernel is loaded yet. */
export function set_realm(options: Pick<Options, "smp">): void {
  const realm: RealmOptions = { kind: "plain", smp: options.smp };
  (globalThis as Record<symbol, unknown>)[Symbol.for("kheap.realm")] = realm;
}
