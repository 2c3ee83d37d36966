/**
 * Whose code runs: the kernel's, or that of a module.
 *
 *     module function ──calls──> kernel function ──calls──> allocator          `running` is the module all the way down
 *     timer due       ──calls──> module function                               `running` becomes the module, and is put back
 *
 * A function that a module gives to the kernel (init, exit, a timer's, a file's) is wrapped when it gets its address
 * (ksym.ts), so that each call of it enters the module and leaves it again. What the kernel hands out meanwhile is
 * booked to that module (mm/claims.ts), with the line of the module's source that made the last call.
 *
 * A kernel without modules runs through none of this: there is nothing to wrap, and nobody asks.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { cpu_regs } from "../../hal/cpu.ts";
import { per_cpu_data } from "../../hal/image.ts";
import { ram32, ram_read_string } from "../../hal/ram.ts";

export type ModulePtr = Ptr<"module">;
/** `struct module` begins with its name. */
export const MODULE_NAME_BYTES = 56;

/** Each CPU's own; only that CPU writes it. */
const running = per_cpu_data("running_module", { module: "*module", line: "u32" });
const MODULE = running.ptr + running.module.offset;
const LINE = running.ptr + running.line.offset;
const m = ram32;
const r = cpu_regs;

/** The module whose code runs on this CPU; NULL: none's. */
export function running_module(): ModulePtr {
  return m[(MODULE + r[1]!) >> 2]!;
}

export function module_name(module: ModulePtr): string {
  return ram_read_string(module, MODULE_NAME_BYTES);
}

/** The line of its source from which it made its last call; 0 before the first. */
export function running_line(): number {
  return m[(LINE + r[1]!) >> 2]!;
}

/** From here on another module's code runs, or, with NULL, nobody's. Returns whose ran before, for `set_running`. */
export function set_running(module: ModulePtr): ModulePtr {
  const before = running_module();
  m[(MODULE + r[1]!) >> 2] = module;
  return before;
}

/** Written by a module's own code at each call it makes (boot/modules/compile.ts): gives `value` back. Hot path. */
export function at_line<T>(line: number, value: T): T {
  m[(LINE + r[1]!) >> 2] = line;
  return value;
}

/** Runs a part of the kernel that takes things for itself: nothing it takes is the running module's. */
export function as_kernel_own<T>(fn: () => T): T {
  const module = set_running(NULL);
  const result = fn();
  set_running(module);
  return result;
}
