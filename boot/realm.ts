/**
 * Settles what this realm is, before anything of the kernel is loaded: hal/host.ts reads it once.
 */
import type { RealmOptions } from "../hal/host.ts";
import { instrument } from "./instrument/register.ts";
import { UsageError, type Options } from "./options.ts";

/** Sets the realm's options. Context: no file of hal, mm or kernel is loaded yet. */
export function set_realm({ smp, append }: Pick<Options, "smp" | "append">): void {
  const realm: RealmOptions = { kind: kind_of(append), smp };
  (globalThis as Record<symbol, unknown>)[Symbol.for("kheap.realm")] = realm;
  instrument(realm.kind);
}

/** What the kernel parameters ask for; the last of a name counts. */
function kind_of(append: string): RealmOptions["kind"] {
  const timing = / timing=(\S*)(?!.* timing=)/.exec(` ${append}`)?.[1] ?? "off";
  if (timing !== "on" && timing !== "off") throw new UsageError(`--append timing=${timing}: give on or off`);
  return timing === "on" ? "timing" : "plain";
}
