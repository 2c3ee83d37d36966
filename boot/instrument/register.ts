/**
 * Makes this thread's loader put an instrument into the kernel's files (boot/instrument/hooks.ts).
 */
import { register } from "node:module";
import type { RealmOptions } from "../../hal/host.ts";
import type { HookData } from "./hooks.ts";

/** The instrument of each kind of realm. */
const INSTRUMENTS = { timing: "hal/timing" } as const;

/** Context: nothing of hal, mm or kernel is loaded yet. Does nothing for a plain realm. */
export function instrument(kind: RealmOptions["kind"]): void {
  if (kind === "plain") return;
  if (kind !== "timing") throw new Error(`there is no instrument of kind ${kind} yet`);
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const root = new URL("../../", import.meta.url).href;
  const data: HookData = { root, instrument: `${root}${INSTRUMENTS[kind]}.${extension}` };
  register<HookData>(`./hooks.${extension}`, import.meta.url, { data });
}
