/**
 * Node's module loader in an instrumented realm: every file of the kernel passes through transform.ts on its way in.
 * Runs in the loader's own thread; boot/instrument/register.ts installs it. It works behind tsx, on what that makes of
 * TypeScript, and on the built package.
 */
import type { InitializeHook, LoadHook } from "node:module";
import remapping from "@jridgewell/remapping";
import { is_instrumented, transform } from "./transform.ts";

/** What register.ts sends. */
export interface HookData {
  /** URL of the folder that hal/, mm/ and kernel/ are in. */
  readonly root: string;
  /** URL of the instrument. */
  readonly instrument: string;
}

let data: HookData;

export const initialize: InitializeHook<HookData> = (given) => {
  data = given;
};

export const load: LoadHook = async (url, context, next_load) => {
  const loaded = await next_load(url, context);
  const [file] = url.split("?");
  const path = file!.startsWith(data.root) ? file!.slice(data.root.length).replace(/\.js$/, ".ts") : "";
  if (!is_instrumented(path) || loaded.source === undefined || loaded.source === null) return loaded;
  const code = typeof loaded.source === "string" ? loaded.source : Buffer.from(loaded.source as Uint8Array).toString();
  return { ...loaded, source: with_map(code, path) };
};

const INLINE_MAP = /\n\/\/# sourceMappingURL=data:application\/json;base64,(\S+)\s*$/;

/** The transformed code, with the source map that was in it, if there was one, brought up to date. */
function with_map(code: string, path: string): string {
  const [comment, encoded] = INLINE_MAP.exec(code) ?? [""];
  const out = transform(code.slice(0, code.length - comment.length), path, data.instrument);
  if (encoded === undefined) return out.toString();
  const own = out.generateMap({ source: path, hires: "boundary" });
  const original = JSON.parse(Buffer.from(encoded, "base64").toString());
  const map = remapping([own as never, original], () => null);
  return `${out}\n//# sourceMappingURL=data:application/json;base64,${Buffer.from(map.toString()).toString("base64")}`;
}
