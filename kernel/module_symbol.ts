/**
 * Functions that modules take from each other, by name.
 *
 *     symbols ─ module_symbol [ name | function | module ] …          EXPORT_SYMBOL; in the module's own memory
 *     uses ─ module_use [ user | used ] …                             a module that is used cannot be removed
 *
 * The loader checks beforehand that what a module's source names by a literal is there, as Linux checks undefined
 * symbols, and ties the modules; symbol_get then only looks the function up.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { GFP_KERNEL } from "../mm/gfp.ts";
import { kfree, kzalloc } from "../mm/kmalloc.ts";
import { ksym_address, ksym_fn, type AnyFn } from "./lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del } from "./lib/list.ts";
import { as_kernel_own, module_name, running_module, type ModulePtr } from "./lib/owner.ts";
import { MODULE_STATE_GOING, Module, ModuleError, core_alloc, declaring, each_link, module_get } from "./module.ts";

const ModuleSymbol = struct("module_symbol", { list: ListHead, module: "*module", fn: "*fn", name: "char[48]" });
const ModuleUse = struct("module_use", { list: ListHead, user: "*module", used: "*module", linked: "u32" });

const state = static_data("module_symbols", { symbols: ListHead, uses: ListHead });

/** Boot: nothing is exported. */
export function module_symbols_init(): void {
  for (const head of [state.symbols, state.uses]) init_list_head(head);
}

/** Lets other modules take a function by its name. */
export function EXPORT_SYMBOL(fn: AnyFn, name = fn.name): void {
  const module = declaring("EXPORT_SYMBOL");
  if (find_symbol(name) !== NULL)
    throw new ModuleError(`EXPORT_SYMBOL: ${name} is exported by ${module_name(ModuleSymbol.module.get(find_symbol(name)))} already`); // prettier-ignore
  const symbol = as_kernel_own(() => core_alloc(module, ModuleSymbol.sizeof));
  ModuleSymbol.module.set(symbol, module);
  ModuleSymbol.name.set(symbol, name);
  ModuleSymbol.fn.set(symbol, ksym_address(fn));
  list_add_tail(ModuleSymbol.list.at(symbol), state.symbols);
}

function find_symbol(name: string): Ptr<"module_symbol"> {
  for (const node of each_link(state.symbols)) {
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
  for (const use of each_link(state.uses))
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
  list_add_tail(use, state.uses);
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
  for (const use of each_link(state.uses))
    if (ModuleUse.used.get(use) === module) names.unshift(module_name(ModuleUse.user.get(use)));
  return names;
}

/** Takes out what a module exports, and ends its uses of others. */
export function module_unlink(module: ModulePtr): void {
  for (const use of each_link(state.uses)) if (ModuleUse.user.get(use) === module) drop_use(use);
  for (const node of each_link(state.symbols))
    if (ModuleSymbol.module.get(node - ModuleSymbol.list.offset) === module) list_del(node);
}
