/** hal/ram.ts with Proxies for views: what a realm with Proxies has in its place. */
import * as ram from "../../hal/ram.ts";
import { ld16, ld32, ld8, st16, st32, st8 } from "../../hal/timing.ts";

type View = Uint8Array | Uint16Array | Int32Array;

function proxy<T extends View>(
  view: T,
  load: (i: number) => number,
  store: (view: T, i: number, value: number) => number,
): T {
  return new Proxy(view, {
    get: (_, key) => view[load(Number(key))],
    set: (_, key, value: number) => (store(view, Number(key), value), true),
  });
}

export const ram8 = proxy(ram.ram8, ld8, st8);
export const ram16 = proxy(ram.ram16, ld16, st16);
export const ram32 = proxy(ram.ram32, ld32, st32);
// eslint-disable-next-line no-restricted-syntax -- everything but the views is as it was
export * from "../../hal/ram.ts";
