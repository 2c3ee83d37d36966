/**
 * Parameters of modules: declared at a module's top level, given behind `insmod FILE`, shown and set in /sys/module.
 *
 *     const size = module_param("size", "uint", 8, { min: 1, max: 1024 });      insmod ./ring.ts size=64      size.value
 *
 *     struct module ─ params ─ kernel_param [ name | type | bounds | value ] …        in the module's own memory
 */
import type { Ptr } from "../hal/addr.ts";
import { NULL } from "../hal/addr.ts";
import { struct } from "../hal/struct.ts";
import { ListHead, list_add_tail } from "./lib/list.ts";
import { as_kernel_own, type ModulePtr } from "./lib/owner.ts";
import { MODULE_STATE_COMING, Module, ModuleError, core_alloc, declaring, each_link } from "./module.ts";

/** Types of parameters, and their bounds. */
const PARAM_TYPES = Object.freeze({
  int: [-0x80000000, 0x7fffffff],
  uint: [0, 0xffffffff],
  long: [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ulong: [0, Number.MAX_SAFE_INTEGER],
  bool: [0, 1],
  charp: [0, 0],
} as const);
export type ParamType = keyof typeof PARAM_TYPES;
const TYPE_NAMES = Object.freeze(Object.keys(PARAM_TYPES) as ParamType[]);
const CHARP_BYTES = 64;

export const KernelParam = struct("kernel_param", {
  list: ListHead,
  module: "*module",
  name: "char[32]",
  type: "u32", // of PARAM_TYPES
  required: "u32", // has no default
  given: "u32",
  perm: "u32",
  value: "s64",
  min: "s64",
  max: "s64",
  text: "char[64]", // of a charp
});
export type ParamPtr = Ptr<"kernel_param">;

export interface ParamOptions {
  readonly min?: number;
  readonly max?: number;
  /** Permissions of its file in /sys/module/NAME/parameters; 0: it has none. */
  readonly perm?: number;
}
export interface Param<V> {
  /** As it is now: what was given at insmod, or written to sysfs since. */
  value: V;
}
type ValueOf<T extends ParamType> = T extends "charp" ? string : T extends "bool" ? boolean : number;

/**
 * A parameter of the module: `insmod ./ring.ts size=64`. Without a default it must be given.
 *
 *     const size = module_param("size", "uint", 8, { min: 1, max: 1024 });    …    size.value
 */
export function module_param<T extends ParamType>(
  name: string,
  type: T,
  fallback?: ValueOf<T>,
  { min, max, perm = 0o444 }: ParamOptions = {},
): Param<ValueOf<T>> {
  const module = declaring("module_param");
  const bounds: readonly [number, number] | undefined = PARAM_TYPES[type];
  if (!/^[a-z]\w{0,30}$/i.test(name)) throw new ModuleError(`module_param: "${name}" is no name for a parameter`);
  if (!bounds) throw new ModuleError(`module_param ${name}: there is no type ${type}, only ${TYPE_NAMES.join(", ")}`);
  if (find_param(module, name) !== NULL) throw new ModuleError(`module_param ${name}: declared twice`);
  const param: ParamPtr = as_kernel_own(() => core_alloc(module, KernelParam.sizeof));
  KernelParam.module.set(param, module);
  KernelParam.name.set(param, name);
  KernelParam.type.set(param, TYPE_NAMES.indexOf(type));
  KernelParam.perm.set(param, perm);
  KernelParam.min.set(param, Math.max(min ?? -Infinity, bounds[0]));
  KernelParam.max.set(param, Math.min(max ?? Infinity, bounds[1]));
  list_add_tail(KernelParam.list.at(param), Module.params.at(module));
  if (fallback === undefined) KernelParam.required.set(param, 1);
  else {
    const wrong = set_param(param, typeof fallback === "boolean" ? (fallback ? "1" : "0") : String(fallback));
    if (wrong !== undefined) throw new ModuleError(`module_param: its default: ${wrong}`);
  }
  return {
    get value() {
      return param_value(param) as ValueOf<T>;
    },
    set value(value) {
      if (type === "charp") KernelParam.text.set(param, String(value));
      else KernelParam.value.set(param, Number(value));
    },
  };
}

function param_value(param: ParamPtr): number | string | boolean {
  const type = TYPE_NAMES[KernelParam.type.get(param)]!;
  if (type === "charp") return KernelParam.text.get(param);
  return type === "bool" ? KernelParam.value.get(param) !== 0 : KernelParam.value.get(param);
}

/** As its file in sysfs shows it, without the newline. */
export function param_text(param: ParamPtr): string {
  const value = param_value(param);
  return typeof value === "boolean" ? (value ? "Y" : "N") : String(value);
}

/** Sets a parameter from text; what is wrong with the text, if it is not taken. */
export function set_param(param: ParamPtr, text: string): string | undefined {
  const name = KernelParam.name.get(param);
  const type = TYPE_NAMES[KernelParam.type.get(param)]!;
  if (type === "charp") {
    if (text.length >= CHARP_BYTES) return `${name}: a string of at most ${CHARP_BYTES - 1} characters is allowed`;
    KernelParam.text.set(param, text);
    return undefined;
  }
  const value = type === "bool" ? { y: 1, Y: 1, "1": 1, n: 0, N: 0, "0": 0 }[text] : whole_number(text);
  const [min, max] = [KernelParam.min.get(param), KernelParam.max.get(param)];
  if (value === undefined || value < min || value > max)
    return `${name}: "${text}" given, ${type === "bool" ? "y or n" : `${type} from ${min} to ${max}`} allowed`;
  KernelParam.value.set(param, value);
  return undefined;
}

function whole_number(text: string): number | undefined {
  return /^-?(0x[0-9a-f]+|\d+)$/i.test(text)
    ? text.startsWith("-")
      ? -Number(text.slice(1))
      : Number(text)
    : undefined;
}

/** The parameters of a module, as declared. */
export function* module_params(module: ModulePtr): Generator<ParamPtr> {
  for (const node of each_link(Module.params.at(module))) yield (node - KernelParam.list.offset) as ParamPtr;
}

function find_param(module: ModulePtr, name: string): ParamPtr {
  for (const param of module_params(module)) if (KernelParam.name.get(param) === name) return param;
  return NULL;
}

/** Gives the parameters what stands behind `insmod FILE`; what is wrong with that, if something is. */
export function module_args(module: ModulePtr, args: readonly string[]): string | undefined {
  for (const arg of args) {
    const [, name, text] = /^(\w+)(?:=(.*))?$/s.exec(arg) ?? [];
    const param = name === undefined ? NULL : find_param(module, name);
    const all = [...module_params(module)].map((one) => KernelParam.name.get(one)).join(", ") || "none";
    if (param === NULL) return `it has no parameter ${name ?? arg}; its parameters: ${all}`;
    const wrong = set_param(param, text ?? "1");
    if (wrong !== undefined) return wrong;
    KernelParam.given.set(param, 1);
  }
  for (const param of module_params(module))
    if (KernelParam.required.get(param) !== 0 && KernelParam.given.get(param) === 0)
      return `parameter ${KernelParam.name.get(param)} has no default: give ${KernelParam.name.get(param)}=VALUE`;
  Module.state.set(module, MODULE_STATE_COMING);
  return undefined;
}
