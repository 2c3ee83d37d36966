/**
 * Loader hooks for a realm with Proxies: only functions and operations are written into the code; wherever that would
 * have its accesses rewritten, hal/ram.ts is test/lib/timing_proxy_ram.ts instead.
 */
import type { LoadHook, ResolveHook } from "node:module";
import { is_instrumented, transform } from "../../boot/instrument/transform.ts";

const ROOT = new URL("../../", import.meta.url).href;
const path_of = (url = ""): string => (url.startsWith(ROOT) ? url.slice(ROOT.length).split("?")[0]! : "");
const WITH_RAW_VIEWS = ["hal/ram.ts", "hal/atomic.ts", "kernel/lib/spinlock.ts"];

export const resolve: ResolveHook = async (specifier, context, next) => {
  const resolved = await next(specifier, context);
  const parent = path_of(context.parentURL);
  if (path_of(resolved.url) !== "hal/ram.ts" || !is_instrumented(parent) || WITH_RAW_VIEWS.includes(parent))
    return resolved;
  return { ...resolved, url: `${ROOT}test/lib/timing_proxy_ram.ts` };
};

export const load: LoadHook = async (url, context, next) => {
  const loaded = await next(url, context);
  const path = path_of(url);
  if (!is_instrumented(path)) return loaded;
  const source = transform(String(loaded.source), path, `${ROOT}hal/timing.ts`, false).toString();
  return { ...loaded, source };
};
