/**
 * Functions that the kernel keeps a pointer to: constructors, shrinkers, thread steps, file operations.
 *
 * A function cannot lie in RAM, so `ksym("name", fn)` gives it an address in the text section (hal/image.ts), which can;
 * `ksym_call` looks the function up in this realm's table. Every realm that loads the same file has the same name at the
 * same address. A bare closure is registered as `anon:N`: works in lockstep, and no other realm can attach to it.
 *
 * A function of a module goes by `NAME [MODULE]`, and enters and leaves the module with each call (owner.ts).
 */
import { NULL, hex, type Ptr } from "../../hal/addr.ts";
import { TEXT_BASE, TEXT_BYTES, image_define, image_remove, image_symbol, image_symbols } from "../../hal/image.ts";
import { module_name, running_module, set_running, type ModulePtr } from "./owner.ts";

export type FnPtr = Ptr<"fn">;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a table of functions of every shape
export type AnyFn = (...args: any[]) => any;

const FN_SHIFT = 4;
/** Functions by text slot. Code, not state. */
// eslint-disable-next-line kheap/no-module-state -- code, not state
const functions: (AnyFn | undefined)[] = [];
// eslint-disable-next-line kheap/no-module-state -- code, not state
const addresses = new WeakMap<AnyFn, FnPtr>();

/** Gives `fn` a name and an address. Call it at module level. Returns the address. */
export function ksym(name: string, fn: AnyFn): FnPtr {
  const module = running_module();
  const full_name = module === NULL ? name : free_name(name, module_suffix(module));
  const address = image_define(full_name, "text", 0, 1 << FN_SHIFT, 1 << FN_SHIFT);
  functions[(address - TEXT_BASE) >> FN_SHIFT] = module === NULL ? fn : entering(module, fn);
  addresses.set(fn, address);
  return address;
}

/** The address of `fn` (or that address); a function that never got a name gets `anon:N` now. 0 for null and undefined. */
export function ksym_address(fn: AnyFn | FnPtr | null | undefined): FnPtr {
  if (!fn) return 0;
  if (typeof fn === "number") return fn;
  const address = addresses.get(fn);
  if (address !== undefined) return address;
  return ksym(running_module() === NULL ? free_name(`anon:${functions.length}`, "") : fn.name || "anon", fn);
}

/** How the names of a module's functions and data end. */
export const module_suffix = (module: ModulePtr): string => ` [${module_name(module)}]`;

/** A name that no function has yet: `wanted`, or with a number behind it. */
function free_name(wanted: string, suffix: string): string {
  const taken = new Set([...image_symbols("text")].map(({ name }) => name));
  let name = wanted + suffix;
  for (let i = 2; taken.has(name); i++) name = `${wanted}.${i}${suffix}`;
  return name;
}

/** A module's function as the kernel calls it: what it takes is the module's. */
function entering(module: ModulePtr, fn: AnyFn): AnyFn {
  return (...args: unknown[]): unknown => {
    const before = set_running(module);
    const result: unknown = fn(...args);
    set_running(before);
    return result;
  };
}

/** Forgets the functions and data whose names end with `suffix`: their module is gone. */
export function ksym_remove(suffix: string): void {
  for (const address of image_remove(suffix))
    if (address < TEXT_BASE + TEXT_BYTES) functions[(address - TEXT_BASE) >> FN_SHIFT] = undefined;
}

/** A record of functions as the kernel calls them: those of a module enter and leave it. */
export function record_of_running<T extends object>(record: T): T {
  const module = running_module();
  if (module === NULL) return record;
  const enter = (value: unknown): unknown => {
    if (typeof value === "function") return entering(module, value as AnyFn);
    const is_record = typeof value === "object" && value !== null && !Array.isArray(value);
    return is_record ? record_of_running(value) : value;
  };
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, enter(value)])) as T;
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
