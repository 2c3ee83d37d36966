/**
 * Modules: code that joins the running kernel, and leaves it again.
 *
 *     module_begin     a name, a struct module                            MODULE_STATE_UNFORMED
 *     evaluate         the file's top level runs as the module: it names its init and exit, its data and parameters,
 *                      what it exports                                    (boot/modules/load.ts does it)
 *     module_args      NAME=VALUE … into the parameters                   MODULE_STATE_COMING
 *     do_init_module   its init, in a kernel entry of its own             MODULE_STATE_LIVE
 *     do_exit_module   its exit, if nobody uses it                        MODULE_STATE_GOING
 *     module_free      its data, names and books go                       (kernel/module_held.ts says what it left)
 *
 *     struct module ─ params ─ kernel_param …      ─ core: blocks of pages for what static_data declares
 *     exported symbols, all modules' ─ module_symbol [ name | function | module ]
 *     uses ─ module_use [ user | used ] …          a module that is used cannot be removed
 *
 * Functions of a module have names that end in " [NAME]", and run as the module (kernel/lib/owner.ts).
 *
 * Locks: none; each of these steps is one kernel entry. Unlike Linux: a module is TypeScript and is not relocated; its
 * symbols are taken by symbol_get, which the loader checks beforehand as Linux does undefined symbols; no signatures.
 */
import { NULL, PAGE_SIZE, align_up, type Ptr } from "../hal/addr.ts";
import {
  image_define,
  image_is_attached,
  static_data,
  static_data_at,
  type PerCpu,
  type Static,
} from "../hal/image.ts";
import { struct, type Specs } from "../hal/struct.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../mm/gfp.ts";
import { kfree, kzalloc } from "../mm/kmalloc.ts";
import { alloc_pages_exact, free_pages_exact } from "../mm/page_bulk.ts";
import { alloc_percpu, free_percpu } from "../mm/percpu.ts";
import { claims_get, claims_put } from "../mm/slab_claims.ts";
import { drop_aliases } from "../mm/slab_common.ts";
import { EBUSY, EEXIST, EINVAL, ENOMEM } from "./lib/errno.ts";
import { ksym_address, ksym_fn, ksym_remove, module_suffix, type AnyFn } from "./lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_empty, list_next } from "./lib/list.ts";
import { workqueue_shutdown } from "./workqueue.ts";
import {
  MODULE_NAME_BYTES,
  as_kernel_own,
  module_name,
  running_module,
  set_running,
  type ModulePtr,
} from "./lib/owner.ts";

export const MODULE_STATE_LIVE = 0;
export const MODULE_STATE_COMING = 1;
export const MODULE_STATE_GOING = 2;
export const MODULE_STATE_UNFORMED = 3;

export const Module = struct("module", {
  name: "char[56]",
  list: ListHead, // modules, oldest first
  state: "u32", // MODULE_STATE_*
  refcnt: "s32", // who says that it is in use: symbol_get, open devices, try_module_get
  init: "*fn",
  exit: "*fn",
  core: ListHead, // blocks of memory for its data
  core_bytes: "u32",
  core_free: "u32", // bytes left in the newest block
  params: ListHead,
  file: "char[64]", // of its source, for people
  license: "char[32]",
  author: "char[64]",
  description: "char[128]",
  version: "char[24]",
});

const CoreBlock = struct("module_core", { list: ListHead, bytes: "u32", used: "u32", percpu: "*void" });

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
  line: "u32", // where it is declared
  perm: "u32",
  value: "s64",
  min: "s64",
  max: "s64",
  text: "char[64]", // of a charp
});
export type ParamPtr = Ptr<"kernel_param">;

const ModuleSymbol = struct("module_symbol", { list: ListHead, module: "*module", fn: "*fn", name: "char[48]" });
const ModuleUse = struct("module_use", { list: ListHead, user: "*module", used: "*module", linked: "u32" });

const state = static_data("modules", { list: ListHead, symbols: ListHead, uses: ListHead, ready: "u32" });

/** Something about a module that its author has to mend: said with the file and the line that ran. */
export class ModuleError extends Error {
  override name = "ModuleError";
}

function lists(): typeof state {
  if (state.ready === 0) {
    for (const head of [state.list, state.symbols, state.uses]) init_list_head(head);
    state.ready = 1;
  }
  return state;
}

function* each(head: Ptr): Generator<Ptr> {
  for (let node = list_next(head), next = 0; node !== head; node = next) {
    next = list_next(node);
    yield node;
  }
}

/** All modules, oldest first. */
export function* for_each_module(): Generator<ModulePtr> {
  for (const node of each(lists().list)) yield (node - Module.list.offset) as ModulePtr;
}

/** A module by its name (- and _ are the same); NULL if there is none. */
export function find_module(name: string): ModulePtr {
  const wanted = name.replaceAll("-", "_");
  for (const module of for_each_module()) if (module_name(module) === wanted) return module;
  return NULL;
}

/* From file to module ----------------------------------------------------------------------------------------------- */

/** A module that has nothing but a name. It, or -EEXIST, -ENOMEM. Context: may sleep. */
export function module_begin(name: string, file: string): ModulePtr {
  if (find_module(name) !== NULL) return -EEXIST;
  const module: ModulePtr = kzalloc(Module.sizeof, GFP_KERNEL);
  if (module === NULL) return -ENOMEM;
  if (!claims_get(module)) {
    kfree(module);
    return -ENOMEM;
  }
  Module.name.set(module, name.slice(0, MODULE_NAME_BYTES - 1));
  Module.file.set(module, file);
  Module.state.set(module, MODULE_STATE_UNFORMED);
  for (const head of [Module.core, Module.params]) init_list_head(head.at(module));
  list_add_tail(Module.list.at(module), lists().list);
  return module;
}

/** Runs a part of the module's code, as the module. */
export function as_module<T>(module: ModulePtr, fn: () => T): T {
  const before = set_running(module);
  const result = fn();
  set_running(before);
  return result;
}

/** The module whose top level runs. */
function declaring(what: string): ModulePtr {
  const module = running_module();
  if (module === NULL || Module.state.get(module) !== MODULE_STATE_UNFORMED)
    throw new ModuleError(`${what} belongs to the top level of a module's file`);
  return module;
}

/** Says which function starts the module; it returns 0, or -errno and then the module is not loaded. */
export function module_init(fn: () => number): void {
  const module = declaring("module_init");
  if (Module.init.get(module) !== NULL) throw new ModuleError("module_init is called twice");
  Module.init.set(module, ksym_address(fn));
}

/** Says which function ends the module. Without one it cannot be removed. */
export function module_exit(fn: () => void): void {
  const module = declaring("module_exit");
  if (Module.exit.get(module) !== NULL) throw new ModuleError("module_exit is called twice");
  Module.exit.set(module, ksym_address(fn));
}

/** Says under which license the module is: modinfo shows it. */
export const MODULE_LICENSE = (text: string): void => Module.license.set(declaring("MODULE_LICENSE"), text);
/** Says whose the module is. */
export const MODULE_AUTHOR = (text: string): void => Module.author.set(declaring("MODULE_AUTHOR"), text);
/** Says what the module does, in half a line. */
export const MODULE_DESCRIPTION = (text: string): void => Module.description.set(declaring("MODULE_DESCRIPTION"), text);
/** Says which version the module has. */
export const MODULE_VERSION = (text: string): void => Module.version.set(declaring("MODULE_VERSION"), text);

/* Its data ---------------------------------------------------------------------------------------------------------- */

/** So many bytes of the module's own, zeroed. */
function core_alloc(module: ModulePtr, bytes: number): Ptr {
  const head = Module.core.at(module);
  const newest = list_empty(head) ? NULL : list_next(head);
  const size = align_up(bytes, 8);
  if (newest !== NULL && CoreBlock.used.get(newest) + size <= CoreBlock.bytes.get(newest)) {
    const used = CoreBlock.used.get(newest);
    CoreBlock.used.set(newest, used + size);
    return newest + used;
  }
  const header = align_up(CoreBlock.sizeof, 8);
  const total = align_up(header + size, PAGE_SIZE);
  const block = alloc_pages_exact(total, GFP_KERNEL | __GFP_ZERO);
  if (block === NULL) throw new ModuleError(`no memory for ${total} bytes of data`);
  CoreBlock.bytes.set(block, total);
  CoreBlock.used.set(block, header + size);
  Module.core_bytes.set(module, Module.core_bytes.get(module) + total);
  const first = list_next(head);
  list_add_tail(CoreBlock.list.at(block), first === head ? head : first); // newest first
  return block + header;
}

/** static_data of a module: in memory of its own that goes with it. Outside of modules: the kernel's. */
export function module_static_data<const F extends Specs>(name: string, fields: F): Static<F> {
  if (running_module() === NULL) return static_data(name, fields);
  const module = declaring("static_data");
  const place = (bytes: number): Ptr => as_kernel_own(() => core_alloc(module, bytes));
  return static_data_at(name + module_suffix(module), fields, image_is_attached() ? undefined : place);
}

/** per_cpu_data of a module, as DEFINE_PER_CPU in a module: from the per-CPU allocator. */
export function module_per_cpu_data<const F extends Specs>(name: string, fields: F): PerCpu<F> {
  const module = declaring("per_cpu_data");
  const layout = struct(name, fields);
  const at = image_is_attached() ? undefined : as_kernel_own(() => percpu_for(module, layout.sizeof));
  const ptr = image_define(name + module_suffix(module), "percpu", layout.hash, layout.sizeof, 64, at);
  return { ...layout, ptr };
}

/** A per-CPU object, noted in a block of its own so that it is given back with the others. */
function percpu_for(module: ModulePtr, bytes: number): Ptr {
  const ptr = alloc_percpu(bytes, 64);
  if (ptr === NULL) throw new ModuleError(`no memory for ${bytes} bytes a CPU`);
  const block: Ptr = kzalloc(CoreBlock.sizeof, GFP_KERNEL);
  if (block === NULL) {
    free_percpu(ptr);
    throw new ModuleError("no memory for per-CPU data");
  }
  CoreBlock.percpu.set(block, ptr);
  list_add_tail(CoreBlock.list.at(block), Module.core.at(module));
  return ptr;
}

function core_free(module: ModulePtr): void {
  for (const block of each(Module.core.at(module))) {
    const percpu = CoreBlock.percpu.get(block);
    list_del(block);
    if (percpu === NULL) free_pages_exact(block, CoreBlock.bytes.get(block));
    else {
      free_percpu(percpu);
      kfree(block);
    }
  }
}

/* Parameters -------------------------------------------------------------------------------------------------------- */

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
  for (const node of each(Module.params.at(module))) yield (node - KernelParam.list.offset) as ParamPtr;
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

/* Symbols ----------------------------------------------------------------------------------------------------------- */

/** Lets other modules take a function by its name. */
export function EXPORT_SYMBOL(fn: AnyFn, name = fn.name): void {
  const module = declaring("EXPORT_SYMBOL");
  if (find_symbol(name) !== NULL)
    throw new ModuleError(`EXPORT_SYMBOL: ${name} is exported by ${module_name(ModuleSymbol.module.get(find_symbol(name)))} already`); // prettier-ignore
  const symbol = as_kernel_own(() => core_alloc(module, ModuleSymbol.sizeof));
  ModuleSymbol.module.set(symbol, module);
  ModuleSymbol.name.set(symbol, name);
  ModuleSymbol.fn.set(symbol, ksym_address(fn));
  list_add_tail(ModuleSymbol.list.at(symbol), lists().symbols);
}

function find_symbol(name: string): Ptr<"module_symbol"> {
  for (const node of each(lists().symbols)) {
    const symbol = node - ModuleSymbol.list.offset;
    const live = Module.state.get(ModuleSymbol.module.get(symbol)) !== MODULE_STATE_GOING;
    if (live && ModuleSymbol.name.get(symbol) === name) return symbol;
  }
  return NULL;
}

/** The module that exports a symbol; NULL: none does. */
export function symbol_owner(name: string): ModulePtr {
  const symbol = find_symbol(name);
  return symbol === NULL ? NULL : ModuleSymbol.module.get(symbol);
}

/**
 * A function that another module exports, or NULL; that module stays until symbol_put, or until this one goes.
 *
 *     const push = symbol_get<typeof ring_push>("ring_push");
 */
export function symbol_get<F extends AnyFn>(name: string): F | null {
  const symbol = find_symbol(name);
  if (symbol === NULL) return null;
  const used = ModuleSymbol.module.get(symbol);
  const user = running_module();
  if (user !== NULL && !as_kernel_own(() => add_use(user, used))) return null;
  return ksym_fn(ModuleSymbol.fn.get(symbol)) as F;
}

/** Ends a use; one of a symbol that the source names by a literal lasts as long as the module. */
export function symbol_put(name: string): void {
  const symbol = find_symbol(name);
  const use = symbol === NULL ? NULL : find_use(running_module(), ModuleSymbol.module.get(symbol));
  if (use !== NULL && ModuleUse.linked.get(use) === 0) drop_use(use);
}

function find_use(user: ModulePtr, used: ModulePtr): Ptr {
  for (const use of each(lists().uses))
    if (ModuleUse.user.get(use) === user && ModuleUse.used.get(use) === used) return use;
  return NULL;
}

/** Notes that one module uses another, once for any number of symbols; false without memory. */
function add_use(user: ModulePtr, used: ModulePtr, linked = 0): boolean {
  if (user === used || find_use(user, used) !== NULL) return true;
  const use: Ptr = kzalloc(ModuleUse.sizeof, GFP_KERNEL);
  if (use === NULL) return false;
  ModuleUse.user.set(use, user);
  ModuleUse.used.set(use, used);
  ModuleUse.linked.set(use, linked);
  list_add_tail(use, lists().uses);
  module_get(used, 1);
  return true;
}

/** Links a module to those whose symbols it names: they stay while it does. False without memory. */
export function module_link(module: ModulePtr, names: readonly string[]): boolean {
  return names.every((name) => add_use(module, symbol_owner(name), 1));
}

function drop_use(use: Ptr): void {
  module_get(ModuleUse.used.get(use), -1);
  list_del(use);
  kfree(use);
}

/** Names of the modules that use this one, newest first, as lsmod shows them. */
export function module_users(module: ModulePtr): string[] {
  const names: string[] = [];
  for (const use of each(lists().uses))
    if (ModuleUse.used.get(use) === module) names.unshift(module_name(ModuleUse.user.get(use)));
  return names;
}

function module_get(module: ModulePtr, count: number): void {
  Module.refcnt.set(module, Module.refcnt.get(module) + count);
}

/** Keeps a module from being removed, until module_put; false if it is going already. NULL: the kernel's own code stays. */
export function try_module_get(module: ModulePtr): boolean {
  if (module === NULL) return true;
  if (Module.state.get(module) === MODULE_STATE_GOING) return false;
  module_get(module, 1);
  return true;
}

/** Ends a try_module_get. */
export function module_put(module: ModulePtr): void {
  if (module !== NULL) module_get(module, -1);
}

/* Start and end ----------------------------------------------------------------------------------------------------- */

/** Runs the module's init; what that returned. Context: a kernel entry of its own, may sleep. */
export function do_init_module(module: ModulePtr): number {
  const result = Number(ksym_fn(Module.init.get(module))() ?? 0);
  if (result === 0) Module.state.set(module, MODULE_STATE_LIVE);
  return result;
}

/** Runs the module's exit. 0, -EBUSY: it is in use, or has no exit, -EINVAL: it is not live. */
export function do_exit_module(module: ModulePtr): number {
  if (Module.state.get(module) !== MODULE_STATE_LIVE) return -EINVAL;
  if (Module.refcnt.get(module) !== 0 || Module.exit.get(module) === NULL) return -EBUSY;
  Module.state.set(module, MODULE_STATE_GOING);
  ksym_fn(Module.exit.get(module))();
  return 0;
}

/** Says that a module is going, however far it came: nobody finds its symbols any more. */
export function module_going(module: ModulePtr): void {
  Module.state.set(module, MODULE_STATE_GOING);
}

/** Frees a module. Context: it holds nothing any more (kernel/module_held.ts). */
export function module_free(module: ModulePtr): void {
  for (const use of each(lists().uses)) if (ModuleUse.user.get(use) === module) drop_use(use);
  for (const node of each(lists().symbols))
    if (ModuleSymbol.module.get(node - ModuleSymbol.list.offset) === module) list_del(node);
  drop_aliases(NULL, module);
  ksym_remove(module_suffix(module));
  core_free(module);
  claims_put(module);
  list_del(Module.list.at(module));
  kfree(module);
  if (list_empty(state.list)) workqueue_shutdown();
}
