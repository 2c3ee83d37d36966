/** `insmod`, `rmmod`, `modprobe`, `lsmod`, `modinfo`: code that joins the running kernel, and leaves it. */
import { readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { Module, find_module, for_each_module } from "../../kernel/module.ts";
import { KernelParam, module_params, param_text } from "../../kernel/module_param.ts";
import { module_users } from "../../kernel/module_symbol.ts";
import { module_name, type ModulePtr } from "../../kernel/lib/owner.ts";
import {
  delete_module,
  drop_module,
  held_line,
  insert_module,
  module_path,
  read_module,
  type Source,
} from "../modules/load.ts";
import { CommandError, line, register, usage_error, type Context, type Result } from "./registry.ts";

/** Notes that the module is to be removed at power-off. */
function hold(ctx: Context, module: ModulePtr, name: string): void {
  ctx.held.add({ kind: "module", name, address: module, release: () => drop_module(name) });
}

function insert(ctx: Context, command: string, source: Source, args: readonly string[]): void {
  const module = insert_module(command, source, args, ctx.entry);
  hold(ctx, module, source.name);
}

/** What rmmod says: nothing, or what the module left, and then it has failed. */
function remove(ctx: Context, name: string): Result {
  const module = find_module(name);
  const { file, held } = delete_module("rmmod", name, ctx.entry);
  ctx.held.remove(module);
  if (held.length === 0) return line("", { name, held });
  const lines = held.map((one) => held_line(file, one));
  const note = `rmmod: ${name} left this behind; kheap took it back, in Linux it is lost until the next boot`;
  return { text: [...lines, note].join("\n"), json: { name, held }, failed: true };
}

/** Several answers as one. */
function joined(results: readonly Result[]): Result {
  const lines = results.map(({ text }) => text).filter((text) => text !== "");
  const failed = results.some((result) => result.failed === true);
  return { text: lines.join("\n"), json: results.map(({ json }) => json), failed };
}

register({
  name: "insmod",
  group: "system",
  usage: "insmod [-w] FILE [PARAM=VALUE …]",
  summary: "loads a module, a TypeScript file on the host, into the kernel",
  man: `FILE is a module as examples/ has them, and "Your first module" (docs/) explains. Its
module_init runs; if that returns an error, throws, or the file is wrong in some way,
one line says where, and nothing is left of it.

  -w   loads it again whenever the file is saved, until Ctrl-C: rmmod's report, then
       the new version with the same parameters

  insmod ./examples/ring.ts size=64; lsmod; rmmod ring`,
  async run(ctx, args) {
    const watch = args[0] === "-w";
    const [path, ...params] = watch ? args.slice(1) : args;
    if (path === undefined || path.startsWith("-")) throw usage_error(this);
    await Promise.resolve(); // each step is a kernel entry of its own
    const source = read_module("insmod", path);
    insert(ctx, "insmod", source, params);
    if (watch) await keep_loading(ctx, path, source.name, params);
    return line("", { name: source.name });
  },
});

/** Reloads a module whenever its file is saved. */
async function keep_loading(ctx: Context, path: string, name: string, params: readonly string[]): Promise<void> {
  let saved = statSync(path).mtimeMs;
  ctx.print(`${name}: loaded; waiting for ${path} to be saved (Ctrl-C ends)`);
  while (!ctx.cancelled) {
    await new Promise((wake) => setTimeout(wake, 100));
    await ctx.pause();
    const now = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? saved;
    if (now === saved) continue;
    saved = now;
    ctx.print(reload(ctx, path, name, params));
  }
}

/** One round of `insmod -w`: what there is to say. */
function reload(ctx: Context, path: string, name: string, params: readonly string[]): string {
  const said: string[] = [];
  try {
    const source = read_module("insmod", path); // one that does not compile leaves the old one in place
    if (ctx.entry(() => find_module(name)) !== 0) said.push(remove(ctx, name).text);
    insert(ctx, "insmod", source, params);
    said.push(`${name}: loaded again`);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    said.push(error.message);
  }
  return said.filter((text) => text !== "").join("\n");
}

register({
  name: "rmmod",
  group: "system",
  usage: "rmmod NAME …",
  summary: "removes a module, and names what it did not give back",
  man: `Runs the module's module_exit and takes it out of the kernel. Whatever it took and still
holds (objects, pages, caches, vmalloc areas, per-CPU objects, files of /proc and /sys,
timers, works, threads, shrinkers, notifiers) is named with the line that took it, and
the command fails with status 1. A module that is in use stays.`,
  complete: () => [...for_each_module()].map(module_name),
  async run(ctx, args) {
    if (args.length === 0 || args.some((arg) => arg.startsWith("-"))) throw usage_error(this);
    await Promise.resolve();
    return joined(args.map((name) => remove(ctx, name.replaceAll("-", "_"))));
  },
});

register({
  name: "lsmod",
  group: "system",
  usage: "lsmod",
  summary: "the modules that are loaded, newest first",
  man: "Module, the bytes of its data, how many times it is in use, and by which modules; from /proc/modules.",
  reads: true,
  run(_ctx, args) {
    if (args.length > 0) throw usage_error(this);
    const rows = [...for_each_module()].reverse().map((module) => ({
      module: module_name(module),
      size: Module.core_bytes.get(module),
      used: Module.refcnt.get(module),
      by: module_users(module),
    }));
    const text = rows.map(({ module, size, used, by }) => `${module.padEnd(19)} ${String(size).padStart(8)}  ${used}${by.length > 0 ? ` ${by.join(",")}` : ""}`); // prettier-ignore
    return { text: ["Module                  Size  Used by", ...text].join("\n"), json: rows };
  },
});

register({
  name: "modinfo",
  group: "system",
  usage: "modinfo NAME",
  summary: "what a loaded module says of itself, and its parameters",
  man: "The fields that MODULE_LICENSE, MODULE_DESCRIPTION and so on set, and each parameter with its type, its bounds and its value now.", // prettier-ignore
  reads: true,
  complete: () => [...for_each_module()].map(module_name),
  run(_ctx, [name, ...more]) {
    if (name === undefined || more.length > 0) throw usage_error(this);
    const module = find_module(name);
    if (module === 0) throw new CommandError(`modinfo: module ${name} is not loaded; insmod FILE loads one`);
    const fields: [string, string][] = [["filename", module_path(module_name(module)) ?? Module.file.get(module)]];
    for (const key of ["version", "license", "description", "author"] as const)
      if (Module[key].get(module) !== "") fields.push([key, Module[key].get(module)]);
    fields.push(["name", module_name(module)]);
    for (const param of module_params(module))
      fields.push(["parm", `${KernelParam.name.get(param)}: ${param_text(param)}${bounds_of(param)}`]);
    const text = fields.map(([key, value]) => `${`${key}:`.padEnd(16)}${value}`).join("\n");
    return { text, json: fields };
  },
});

function bounds_of(param: number): string {
  const [min, max] = [KernelParam.min.get(param), KernelParam.max.get(param)];
  return min === max ? "" : ` (${min} to ${max})`;
}

/** Where modprobe looks. */
const FOLDERS = Object.freeze([".", "modules", "examples"]);

/** Files that may be modules, by name; those in folders named first win. */
function find_files(folders: readonly string[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const folder of folders) {
    let names: string[] = [];
    try {
      names = readdirSync(folder);
    } catch {
      continue; // a folder that is not there has no modules
    }
    for (const name of names.filter((one) => one.endsWith(".ts") && !/\.(test|d)\.ts$/.test(one)).sort()) {
      const module = name.slice(0, -3).replaceAll("-", "_");
      if (!files.has(module)) files.set(module, resolve(join(folder, name)));
    }
  }
  return files;
}

/** The module and those that it needs, in the order in which they are to be loaded. */
function resolve_order(name: string, folders: readonly string[]): Source[] {
  const files = find_files(folders);
  const order: Source[] = [];
  const sources = new Map<string, Source | undefined>();
  const source_of = (one: string): Source | undefined => {
    if (!sources.has(one)) sources.set(one, readable("modprobe", files.get(one)!));
    return sources.get(one);
  };
  const visit = (one: string, chain: readonly string[]): void => {
    if (chain.includes(one))
      throw new CommandError(`modprobe: modules need each other in a circle: ${[...chain, one].join(" -> ")}`);
    if (find_module(one) !== 0 || order.some((source) => source.name === one)) return;
    const path = files.get(one);
    if (path === undefined) throw new CommandError(`modprobe: no module ${one} in ${folders.join(", ")}`);
    const source = chain.length === 0 ? read_module("modprobe", path) : source_of(one)!;
    for (const { name: symbol, line: at } of source.code.wanted) {
      const loaded = [...files.keys()].find(
        (other) => other !== one && source_of(other)?.code.exported.includes(symbol),
      );
      if (loaded === undefined) throw new CommandError(`modprobe: ${source.file}:${at}: Unknown symbol ${symbol}: no module in ${folders.join(", ")} exports it`); // prettier-ignore
      visit(loaded, [...chain, one]);
    }
    order.push(source);
  };
  visit(name, []);
  return order;
}

/** A file as a module; undefined if it is none. */
function readable(command: string, path: string): Source | undefined {
  try {
    return read_module(command, path);
  } catch {
    return undefined; // what is no module exports nothing
  }
}

register({
  name: "modprobe",
  group: "system",
  usage: "modprobe [-d DIR] NAME [PARAM=VALUE …]\nmodprobe -r NAME",
  summary: "loads a module by its name, after those that it needs",
  man: `Looks for NAME.ts in the current folder, modules/ and examples/ (or DIR), loads the modules
whose symbols it asks for with symbol_get, then the module itself. -r removes it, and
then those that it needed and that nobody needs any more.`,
  async run(ctx, args) {
    await Promise.resolve();
    if (args[0] === "-r" && args.length === 2) return remove_with_needs(ctx, args[1]!.replaceAll("-", "_"));
    const folders = args[0] === "-d" && args[1] !== undefined ? [args[1]] : FOLDERS;
    const [given, ...params] = args[0] === "-d" ? args.slice(2) : args;
    if (given === undefined || given.startsWith("-")) throw usage_error(this);
    const name = given.replaceAll("-", "_");
    const order = ctx.entry(() => resolve_order(name, folders));
    for (const source of order) insert(ctx, "modprobe", source, source.name === name ? params : []);
    return line("", { loaded: order.map((source) => source.name) });
  },
});

/** Removes a module, and what only it needed. */
function remove_with_needs(ctx: Context, name: string): Result {
  const needed = ctx.entry(() => [...for_each_module()].filter((module) => module_users(module).includes(name)).map(module_name)); // prettier-ignore
  const results = [remove(ctx, name)];
  for (const other of needed.reverse())
    if (ctx.entry(() => Module.refcnt.get(find_module(other))) === 0) results.push(remove(ctx, other));
  return joined(results);
}
