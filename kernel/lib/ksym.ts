/**
 * Functions that the kernel keeps a pointer to: constructors, shrinkers, thread steps, file operations.
 *
 * A function cannot lie in RAM, so `ksym("name", fn)` gives it an address in the text section (hal/image.ts), which can;
 * `ksym_call` looks the function up in this realm's table. Every realm that loads the same file has the same name at the
 * same address. A bare closure is registered as `anon:N`: works in lockstep, and no other realm can attach to it.
 */
import { hex, type Ptr } from "../../hal/addr.ts";
import { TEXT_BASE, image_define, image_symbol } from "../../hal/image.ts";

export type FnPtr = Ptr<"fn">;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a table of functions of every shape
export type AnyFn = (...args: any[]) => any;

const FN_SHIFT = 4;
/** Functions by text slot. Code, not state. */
// eslint-disable-next-line kheap/no-module-state -- code, not state
const functions: AnyFn[] = [];
// eslint-disable-next-line kheap/no-module-state -- code, not state
const addresses = new WeakMap<AnyFn, FnPtr>();

/** Gives `fn` a name and an address. Call it at module level. Returns the address. */
export function ksym(name: string, fn: AnyFn): FnPtr {
  const address = image_define(name, "text", 0, 1 << FN_SHIFT, 1 << FN_SHIFT);
  functions[(address - TEXT_BASE) >> FN_SHIFT] = fn;
  addresses.set(fn, address);
  return address;
}

/** The address of `fn`; a function that never got a name gets `anon:N` now. 0 for null and undefined. */
export function ksym_address(fn: AnyFn | null | undefined): FnPtr {
  if (!fn) return 0;
  return addresses.get(fn) ?? ksym(`anon:${functions.length}`, fn);
}

/** The function at a text address. */
export function ksym_fn(address: FnPtr): AnyFn {
  const fn = functions[(address - TEXT_BASE) >> FN_SHIFT];
  if (!fn) throw new Error(`no function at text address ${hex(address)}`);
  return fn;
}

/** `%px` of a text address: ffffffff81000010. */
export function text_px(address: FnPtr): string {
  return "ffffffff" + hex(0x81000000 + (address - TEXT_BASE));
}

/** `%pS`: name+0xoffset/0xsize. */
export function sprint_symbol(address: Ptr): string {
  const symbol = image_symbol(address);
  return symbol ? `${symbol.name}+0x${hex(symbol.offset)}/0x${hex(symbol.size)}` : `0x${hex(address)}`;
}

/**
 * `%pS` of a return address: the first function on the stack outside of `file`, and where it made the call:
 * `my_exit+0x0/0x10 [examples/my_module.ts:12]`. Slow: for reports.
 */
export function caller_symbol(file: string): string {
  const frames = (new Error().stack ?? "").split("\n").slice(2);
  const frame = frames.find((line) => !line.includes(`/${file}`)) ?? "";
  const name = /at (?:async )?(?:\w+\.)*([\w$]+) /.exec(frame)?.[1] ?? "anonymous";
  const place = /((?:hal|mm|kernel|boot|examples|test)\/[^\s:?]*)(?:\?[^:]*)?:(\d+):\d+\)?$/.exec(
    frame.replaceAll("\\", "/"),
  );
  return `${name}+0x0/0x10${place ? ` [${place[1]}:${place[2]}]` : ""}`;
}
