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
 *     modules ─ struct module ─ core: blocks of pages for what static_data declares
 *                             ─ params               (kernel/module_param.ts)      what it exports: kernel/module_symbol.ts
 *
 * Functions of a module have names that end in " [NAME]", and run as the module (kernel/lib/owner.ts).
 *
 * Locks: none; each of these steps is one kernel entry. Unlike Linux: a module is TypeScript and is not relocated; its
 * symbols are taken by symbol_get, which the loader checks beforehand as Linux does undefined symbols; no signatures.
 */
import { NULL, PAGE_SIZE, align_up, type Ptr } from "../hal/addr.ts";
import { image_define, static_data, static_data_at, type PerCpu, type Static } from "../hal/image.ts";
import { struct, type Specs } from "../hal/struct.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../mm/gfp.ts";
import { kfree, kzalloc } from "../mm/kmalloc.ts";
import { alloc_pages_exact, free_pages_exact } from "../mm/page_bulk.ts";
import { alloc_percpu, free_percpu } from "../mm/percpu.ts";
import { claims_get, claims_put } from "../mm/slab_claims.ts";
import { drop_aliases } from "../mm/slab_common.ts";
import { EBUSY, EEXIST, EINVAL, ENOMEM } from "./lib/errno.ts";
import { ksym_address, ksym_fn, ksym_remove, module_suffix } from "./lib/ksym.ts";
import { ListHead, init_list_head, list_add, list_add_tail, list_del, list_empty, list_next } from "./lib/list.ts";
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
  core: ListHead, // blocks of memory for its data, newest first
  core_bytes: "u32",
  params: ListHead,
  file: "char[64]", // of its source, for people
  license: "char[32]",
  author: "char[64]",
  description: "char[128]",
  version: "char[24]",
});

const CoreBlock = struct("module_core", { list: ListHead, bytes: "u32", used: "u32", percpu: "*void" });

const state = static_data("modules", { list: ListHead });

/** Something about a module that its author has to mend: said with the file and the line that ran. */
export class ModuleError extends Error {
  override name = "ModuleError";
}

/** Boot: there are none. */
export function modules_init(): void {
  init_list_head(state.list);
}

/** Links of a list; the body may take off the one it is given. */
export function* each_link(head: Ptr): Generator<Ptr> {
  for (let node = list_next(head), next = 0; node !== head; node = next) {
    next = list_next(node);
    yield node;
  }
}

/** All modules, oldest first. */
export function* for_each_module(): Generator<ModulePtr> {
  for (const node of each_link(state.list)) yield (node - Module.list.offset) as ModulePtr;
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
  list_add_tail(Module.list.at(module), state.list);
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
export function declaring(what: string): ModulePtr {
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
export function core_alloc(module: ModulePtr, bytes: number): Ptr {
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
  list_add(CoreBlock.list.at(block), head);
  return block + header;
}

/** static_data of a module: in memory of its own that goes with it. Outside of modules: the kernel's. */
export function module_static_data<const F extends Specs>(name: string, fields: F): Static<F> {
  if (running_module() === NULL) return static_data(name, fields);
  const module = declaring("static_data");
  const place = (bytes: number): Ptr => as_kernel_own(() => core_alloc(module, bytes));
  return static_data_at(name + module_suffix(module), fields, place);
}

/** per_cpu_data of a module, as DEFINE_PER_CPU in a module: from the per-CPU allocator. */
export function module_per_cpu_data<const F extends Specs>(name: string, fields: F): PerCpu<F> {
  const module = declaring("per_cpu_data");
  const layout = struct(name, fields);
  const place = (bytes: number): Ptr => as_kernel_own(() => percpu_for(module, bytes));
  const ptr = image_define(name + module_suffix(module), "percpu", layout.hash, layout.sizeof, 64, place);
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
  for (const block of each_link(Module.core.at(module))) {
    const percpu = CoreBlock.percpu.get(block);
    list_del(block);
    if (percpu === NULL) free_pages_exact(block, CoreBlock.bytes.get(block));
    else {
      free_percpu(percpu);
      kfree(block);
    }
  }
}

/* Start and end ----------------------------------------------------------------------------------------------------- */

/** Counts who needs the module to stay. */
export function module_get(module: ModulePtr, count: number): void {
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

/** Frees a module. Context: it holds nothing any more (kernel/module_held.ts), and nobody knows its symbols. */
export function module_free(module: ModulePtr): void {
  drop_aliases(NULL, module);
  ksym_remove(module_suffix(module));
  core_free(module);
  claims_put(module);
  list_del(Module.list.at(module));
  kfree(module);
  if (list_empty(state.list)) workqueue_shutdown();
}
