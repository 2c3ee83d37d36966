/**
 * Loads a module's file into the running kernel, and takes it out again.
 *
 *     read, compile            the host's part: boot/modules/compile.ts
 *     entry 1                  symbols it wants are there; module_begin; its top level runs; parameters
 *     entry 2                  its init
 *     any failure              what it took is taken back, and one line says what is wrong and where
 *
 * Context of all of it: between kernel entries; each step is one (`entry`).
 */
import { readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { NULL, px } from "../../hal/addr.ts";
import { image_symbol } from "../../hal/image.ts";
import { restore_struct_layout, struct_layouts, type StructInfo } from "../../hal/struct.ts";
import { kernel_frames } from "../../kernel/lib/dump_stack.ts";
import { EINVAL, ENOMEM, is_err, strerror } from "../../kernel/lib/errno.ts";
import { at_line, module_name, running_line, set_running, type ModulePtr } from "../../kernel/lib/owner.ts";
import { drop_locks, last_lock_taken, locks_held } from "../../kernel/lib/spinlock.ts";
import {
  Module, ModuleError, as_module, do_exit_module, do_init_module, find_module, module_begin, module_free, module_going,
} from "../../kernel/module.ts"; // prettier-ignore
import { held_by, take_back, type Held } from "../../kernel/module_held.ts";
import { module_args } from "../../kernel/module_param.ts";
import { module_link, module_unlink, module_users, symbol_owner } from "../../kernel/module_symbol.ts";
import { CommandError } from "../commands/registry.ts";
import { CompileError, compile_module, type Compiled } from "./compile.ts";
import { header, header_names } from "./headers.ts";

/** What this realm keeps of a loaded file: code, not state. */
interface Code {
  readonly path: string;
  /** Struct tags that it declared. */
  readonly tags: readonly string[];
}
const loaded = new Map<string, Code>();

/** Runs a step as a kernel entry. */
export type Enter = <T>(fn: () => T) => T;

/** The file that a loaded module came from; undefined where another realm loaded it. */
export const module_path = (name: string): string | undefined => loaded.get(name)?.path;

export interface Source {
  readonly name: string;
  /** For people: the last part of the path. */
  readonly file: string;
  readonly path: string;
  readonly code: Compiled;
}

/** Reads and compiles a module's file. Throws CommandError. */
export function read_module(command: string, given: string): Source {
  const path = resolve(given);
  const file = basename(path);
  const name = file.replace(/\.[cm]?[jt]s$/, "").replaceAll("-", "_");
  if (!/^[a-z_]\w{0,54}$/i.test(name))
    throw new CommandError(`${command}: ${given}: a module's file is named after it, as ring.ts`);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const by_name = /[./]/.test(given) ? "" : `; modprobe ${given} looks for a module of that name`;
    const why =
      code === "ENOENT" ? `there is no such file${by_name}` : code === "EISDIR" ? "it is a folder" : String(code);
    throw new CommandError(`${command}: ${given}: ${why}`);
  }
  try {
    return { name, file, path, code: compile_module(text, file, pathToFileURL(path).href, name) };
  } catch (error) {
    if (!(error instanceof CompileError)) throw error;
    throw new CommandError(`${command}: ${error.message}`);
  }
}

/** Loads a module and runs its init. The module. Throws CommandError, and then nothing has changed. */
export function insert_module(command: string, source: Source, args: readonly string[], enter: Enter): ModulePtr {
  const module = enter(() => form_module(command, source, args));
  let thrown: unknown;
  let result: number | undefined;
  try {
    result = enter(() => {
      try {
        const [status, lock] = watching_locks(source.file, () => do_init_module(module));
        if (lock) thrown = lock;
        return lock ? -EINVAL : status;
      } catch (error) {
        thrown = error;
        throw error;
      }
    });
  } catch (error) {
    if (thrown === undefined) throw error;
  }
  if (result === 0) return module;
  set_running(NULL); // a panic left it
  const line = enter(() => running_line());
  const why = thrown === undefined ? `init failed: ${strerror(result ?? 0)}` : `init ${said(thrown)}`;
  const place = thrown === undefined ? `${source.file}:${line}` : place_of(thrown, source, line);
  const left = enter(() => remove_module(module));
  const also = left.map((held) => `\n${held_line(source.file, held)}`).join("");
  throw new CommandError(`${command}: ${place}: ${why}; the module is not loaded${also}`);
}

/** Runs a part of a module. A lock that it takes and keeps is let go, and is the error beside the result. */
function watching_locks<T>(file: string, fn: () => T): [T, ModuleError | undefined] {
  const before = locks_held();
  const result = fn();
  if (locks_held() <= before) return [result, undefined];
  const name = image_symbol(last_lock_taken())?.name ?? px(last_lock_taken());
  drop_locks(before);
  return [
    result,
    new ModuleError(`returned with a lock held: ${name}; its last call was at ${file}:${running_line()}`),
  ];
}

const said = (thrown: unknown): string =>
  thrown instanceof ModuleError ? thrown.message : `threw ${thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown)}`; // prettier-ignore

/** FILE:LINE of the module's innermost frame, or of its last call. */
function place_of(thrown: unknown, { file }: Source, line: number): string {
  const frame = kernel_frames(thrown).find((text) => text.includes(`[${file}:`));
  return /\[(.*)\]$/.exec(frame ?? "")?.[1] ?? `${file}:${line}`;
}

/** Forgets the code of modules that ended with their machine. */
function forget_gone(): void {
  for (const [name, { tags }] of loaded)
    if (find_module(name) === NULL) {
      for (const tag of tags) restore_struct_layout(tag, undefined);
      loaded.delete(name);
    }
}

/** The module with its top level run and its parameters set. */
function form_module(command: string, source: Source, args: readonly string[]): ModulePtr {
  const { name, file, path, code } = source;
  const missing = code.wanted.find((symbol) => symbol_owner(symbol.name) === NULL);
  if (missing)
    throw new CommandError(`${command}: ${file}:${missing.line}: Unknown symbol ${missing.name}: no module that is loaded exports it`); // prettier-ignore
  forget_gone();
  const module = module_begin(name, file);
  if (is_err(module)) throw new CommandError(`${command}: ${name}: ${find_module(name) ? "it is loaded already" : strerror(module)}`); // prettier-ignore
  const before = new Map(struct_layouts());
  let wrong: string | undefined;
  try {
    if (
      !module_link(
        module,
        code.wanted.map((symbol) => symbol.name),
      )
    )
      throw new ModuleError(strerror(-ENOMEM));
    as_module(module, () => {
      at_line(1, 0);
      code.run((from, line, names) => import_header(module, from, line, names), at_line as never);
    });
    if (Module.init.get(module) === NULL) wrong = `${file}: it has no module_init(() => …)`;
    const clash = [...struct_layouts()].find(([tag, info]) => before.has(tag) && before.get(tag) !== info);
    if (clash) wrong = `${file}: the kernel has a struct ${clash[0]} already; choose another name`;
    wrong ??= prefixed(`${file}: `, module_args(module, args));
  } catch (error) {
    set_running(NULL);
    wrong = `${place_of(error, source, running_line())}: ${error instanceof ModuleError ? error.message : String(error)}`;
  }
  loaded.set(name, { path, tags: restore_layouts(before, wrong !== undefined) });
  if (wrong === undefined) return module;
  remove_module(module);
  throw new CommandError(`${command}: ${wrong}`);
}

const prefixed = (prefix: string, text: string | undefined): string | undefined => text && prefix + text;

/** The tags that are new since `before`; with `undo`, and where a kernel's tag was taken, all is put back. */
function restore_layouts(before: ReadonlyMap<string, StructInfo<string>>, undo: boolean): string[] {
  const tags: string[] = [];
  for (const [tag, info] of [...struct_layouts()]) {
    if (before.get(tag) === info) continue;
    if (undo || before.has(tag)) restore_struct_layout(tag, before.get(tag));
    else tags.push(tag);
  }
  return tags;
}

function import_header(module: ModulePtr, from: string, line: number, names: readonly string[]): object {
  at_line(line, 0);
  const found = header(from);
  if (!found) throw new ModuleError(`there is no header ${from}; there are ${header_names().join(", ")}`);
  for (const name of names)
    if (!(name in found)) throw new ModuleError(`${from} has no value ${name}; if it is a type, write "type ${name}"`);
  return "THIS_MODULE" in found ? { ...found, THIS_MODULE: module } : found;
}

/** Takes a module out, however far it came. What it still held, which is taken back. */
function remove_module(module: ModulePtr): Held[] {
  const name = module_name(module);
  module_going(module);
  const held = held_by(module);
  take_back(module);
  module_unlink(module);
  module_free(module);
  for (const tag of loaded.get(name)?.tags ?? []) restore_struct_layout(tag, undefined);
  loaded.delete(name);
  return held;
}

/** `ring.ts:21: 3 objects of my_object_cache (48 bytes each) …`. */
export function held_line(file: string, { what, line }: Held): string {
  return `${line === 0 ? file : `${file}:${line}`}: ${what} not given back`;
}

export interface Removed {
  readonly file: string;
  readonly held: readonly Held[];
}

/** Takes a module out at power-off: runs its exit if it has one and may, and says nothing. Context: a kernel entry. */
export function drop_module(name: string): void {
  const module = find_module(name);
  if (module === NULL) return;
  if (Module.refcnt.get(module) === 0 && Module.exit.get(module) !== NULL) do_exit_module(module);
  remove_module(module);
}

/** Runs a module's exit and takes it out. Throws CommandError if it is in use, or has no exit. */
export function delete_module(command: string, name: string, enter: Enter): Removed {
  const module = enter(() => find_module(name));
  if (module === NULL) throw new CommandError(`${command}: module ${name} is not loaded`);
  const [users, file] = enter(() => [module_users(module), Module.file.get(module)] as const);
  if (users.length > 0) throw new CommandError(`${command}: module ${name} is in use by: ${users.join(" ")}`);
  if (enter(() => Module.refcnt.get(module)) > 0) throw new CommandError(`${command}: module ${name} is in use`);
  if (enter(() => Module.exit.get(module)) === NULL)
    throw new CommandError(`${command}: module ${name} has no module_exit, so it stays`);
  let failed: string | undefined;
  try {
    enter(() => {
      try {
        const [, lock] = watching_locks(file, () => do_exit_module(module));
        if (lock) failed = `exit ${lock.message}`;
      } catch (error) {
        failed = `exit ${said(error)}`;
        throw error;
      }
    });
  } catch (error) {
    if (failed === undefined) throw error;
  }
  const held = enter(() => remove_module(module));
  if (failed !== undefined)
    throw new CommandError([`${command}: ${file}: ${failed}; it is taken out all the same`, ...held.map((one) => held_line(file, one))].join("\n")); // prettier-ignore
  return { file, held };
}
