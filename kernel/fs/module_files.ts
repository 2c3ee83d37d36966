/** What /proc and /sys say of modules: /proc/modules, /sys/module/NAME/{coresize,initstate,refcnt,version,parameters,holders}. */
import { px } from "../../hal/addr.ts";
import { EINVAL, ENOENT } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { module_name, type ModulePtr } from "../lib/owner.ts";
import { pr_err } from "../lib/printk.ts";
import {
  MODULE_STATE_COMING, MODULE_STATE_GOING, MODULE_STATE_LIVE, Module, find_module, for_each_module,
} from "../module.ts"; // prettier-ignore
import { KernelParam, module_params, param_text, set_param } from "../module_param.ts";
import { module_users } from "../module_symbol.ts";
import { S_IFDIR, S_IFLNK } from "./fs.ts";
import { file_mode } from "./kernfs.ts";
import { sysfs_create } from "./sysfs.ts";

const STATES: Readonly<Record<number, readonly [proc: string, sys: string]>> = Object.freeze({
  [MODULE_STATE_LIVE]: ["Live", "live"],
  [MODULE_STATE_COMING]: ["Loading", "coming"],
  [MODULE_STATE_GOING]: ["Unloading", "going"],
});
const state_of = (module: ModulePtr): readonly [string, string] =>
  STATES[Module.state.get(module)] ?? ["Loading", "coming"];

/** /proc/modules: newest first. */
export function modules_text(): string {
  const lines: string[] = [];
  for (const module of for_each_module()) {
    const users = module_users(module);
    const used_by = users.length === 0 ? "-" : `${users.join(",")},`;
    const [size, refs] = [Module.core_bytes.get(module), Module.refcnt.get(module)];
    lines.unshift(`${module_name(module)} ${size} ${refs} ${used_by} ${state_of(module)[0]} 0x${px(module)} (O)\n`);
  }
  return lines.join("");
}

const names = ksym("module_names", () => [...for_each_module()].map(module_name));
const find = ksym("module_find", (_parent: number, name: string) => find_module(name) || -ENOENT);
const file = (name: string, show: (module: ModulePtr) => string | number) =>
  [name, ksym(`module_${name}_show`, show)] as const;
const FILES = Object.freeze([
  file("coresize", (module) => `${Module.core_bytes.get(module)}\n`),
  file("initstate", (module) => `${state_of(module)[1]}\n`),
  file("refcnt", (module) => `${Module.refcnt.get(module)}\n`),
  file("taint", () => "O\n"),
  file("version", (module) => `${Module.version.get(module)}\n`),
]);

const param_names = ksym("module_param_names", (module: ModulePtr) =>
  [...module_params(module)]
    .filter((param) => KernelParam.perm.get(param) !== 0)
    .map((param) => KernelParam.name.get(param)),
);
const param_find = ksym("module_param_find", (module: ModulePtr, name: string) => {
  for (const param of module_params(module)) if (KernelParam.name.get(param) === name) return param;
  return -ENOENT;
});
const param_show = ksym("module_param_show", (param: number) => `${param_text(param)}\n`);
const param_store = ksym("module_param_store", (param: number, text: string): number => {
  if (!(KernelParam.perm.get(param) & 0o222)) return -EINVAL;
  const wrong = set_param(param, text.replace(/\n$/, ""));
  if (wrong !== undefined) pr_err(`${module_name(KernelParam.module.get(param))}: ${wrong}`);
  return wrong === undefined ? 0 : -EINVAL;
});
const holder_find = ksym("module_holder_find", (module: ModulePtr, name: string) =>
  module_users(module).includes(name) ? find_module(name) : -ENOENT,
);
const holder_names = ksym("module_holder_names", module_users);
const holder_link = ksym("module_holder_link", (holder: ModulePtr) => `../../${module_name(holder)}`);

/** Boot: /sys/module. */
export function module_files_init(): void {
  const mode = S_IFDIR | 0o755;
  sysfs_create("module/NAME", { mode, names, find });
  for (const [name, show] of FILES) sysfs_create(`module/NAME/${name}`, { mode: file_mode(0o444), show });
  const param = { names: param_names, find: param_find, show: param_show, store: param_store };
  sysfs_create("module/NAME/parameters/PARAM", { mode: file_mode(0o644), ...param });
  const holder = { names: holder_names, find: holder_find, show: holder_link };
  sysfs_create("module/NAME/holders/HOLDER", { mode: S_IFLNK | 0o777, ...holder });
}
