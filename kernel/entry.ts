/**
 * The way into the kernel, and what happens when the kernel itself fails.
 *
 * Everything the kernel does is an entry: a system call, a step of a kernel thread, a timer, a command of the console.
 * An entry runs from its start to its end. A broken invariant (`BUG_ON`) and any other exception that comes out of one is
 * an oops: printed as Linux prints it, the current task is killed, the rest goes on. It is a panic where there is nothing
 * to kill or the damage may have spread: while booting, in an interrupt, in init, with `oops=panic`, or if the entry held
 * a lock. These are the only `try` and `catch` of the kernel.
 *
 * Stack lines come from the text of `error.stack`: those of hal, mm and kernel, from the project's root, without the
 * host's and those of this file.
 */
import { NULL, px } from "../hal/addr.ts";
import { smp_processor_id } from "../hal/cpu.ts";
import { events, has_listener } from "../hal/events.ts";
import { image_symbol, static_data } from "../hal/image.ts";
import { do_exit } from "./exit.ts";
import { BUG_ON, KernelBug, KernelPanic, panic } from "./lib/bug.ts";
import { cmdline_param } from "./lib/cmdline.ts";
import { sprint_symbol } from "./lib/ksym.ts";
import { pr_emerg } from "./lib/printk.ts";
import { last_lock_taken, locks_held } from "./lib/spinlock.ts";
import { SIGSEGV } from "./signal.ts";
import { PF_IDLE, SYSTEM_BOOTING, TaskStruct, current_task, system_status, task_name } from "./task.ts";

/** What enters: a task's own entry, an interrupt, or the host (boot, a command) with no task of its own. */
export type EntryKind = "task" | "irq" | "host";

const oops_state = static_data("oops", { count: "u32" });

/** Runs one kernel entry. Returns what `fn` returns; undefined after an oops. Throws KernelPanic when the machine stops. */
export function kernel_entry<T>(kind: EntryKind, fn: () => T): T | undefined {
  try {
    const result = fn();
    BUG_ON(locks_held() !== 0, "a kernel entry ends with a lock held");
    return result;
  } catch (error) {
    if (!(error instanceof KernelPanic)) return survive(kind, error);
    if (has_listener("panic")) events.emit("panic", { text: error.message });
    throw error;
  }
}

/** Runs code of a program; what it throws is handed back. */
export function user_mode<T>(fn: () => T): { value: T } | { thrown: unknown } {
  try {
    return { value: fn() };
  } catch (thrown) {
    return { thrown };
  }
}

function survive(kind: EntryKind, error: unknown): undefined {
  try {
    oops(kind, error);
  } catch (second) {
    const text = second instanceof KernelPanic ? second.message : `Fatal exception in an oops: ${String(second)}`;
    if (has_listener("panic")) events.emit("panic", { text });
    throw second instanceof KernelPanic ? second : new KernelPanic(text);
  }
}

function oops(kind: EntryKind, error: unknown): void {
  print_oops(error);
  const task = current_task();
  const idle = task === NULL || (TaskStruct.flags.get(task) & PF_IDLE) !== 0;
  if (kind === "irq") panic("Fatal exception in interrupt");
  if (system_status.state === SYSTEM_BOOTING) panic("Fatal exception");
  if (locks_held() !== 0) panic("Fatal exception: a lock is held");
  if (cmdline_param("oops") === "panic") panic("Fatal exception: oops=panic");
  if (!idle) do_exit(task, SIGSEGV);
}

function print_oops(error: unknown): void {
  const frames = kernel_frames(error);
  const at = frames[0] ?? "an unknown place";
  const text = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : "exception";
  oops_state.count = oops_state.count + 1;
  pr_emerg("------------[ cut here ]------------");
  if (error instanceof KernelBug) pr_emerg(`kernel BUG at ${/\[(.*)\]/.exec(at)?.[1] ?? at}: ${text}`);
  else pr_emerg(`BUG: unhandled ${name}: ${text}`);
  pr_emerg(`Oops: ${error instanceof KernelBug ? "invalid opcode: 0000" : "0000"} [#${oops_state.count}]`);
  const task = current_task();
  const pid = task === NULL ? 0 : TaskStruct.pid.get(task);
  pr_emerg(`CPU: ${smp_processor_id()} UID: 0 PID: ${pid} Comm: ${task_name(task).replace(/\[\d+\]$/, "")}`);
  pr_emerg(`RIP: 0010:${at}`);
  pr_emerg("Call Trace:");
  for (const frame of frames) pr_emerg(` ${frame}`);
  if (locks_held() !== 0) pr_emerg(`${locks_held()} lock(s) held, the last taken is ${lock_name()}`);
  pr_emerg("---[ end trace 0000000000000000 ]---");
}

function lock_name(): string {
  const lock = last_lock_taken();
  return image_symbol(lock) ? sprint_symbol(lock) : px(lock);
}

/** `file:///` and the like taken off, so that a path can be compared. */
const plain_path = (url: string): string => url.replace(/^file:\/\/(\/(?=[A-Za-z]:))?/, "").replaceAll("\\", "/");
const ROOT = plain_path(new URL("..", import.meta.url).href);

/** The kernel's frames of an exception, innermost first: `function [kernel/exit.ts:120]`; or those of other folders. */
export function kernel_frames(error: unknown, folders = /^(hal|mm|kernel)\//): string[] {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  const frames: string[] = [];
  for (const line of stack.split("\n")) {
    const match = /^\s*at (?:(?:new |async )?(\S+) (?:\[as \S+\] )?\()?(.*?)(?:\?[^:]*)?:(\d+):\d+\)?$/.exec(line);
    const path = plain_path(match?.[2] ?? "");
    if (!match || !path.startsWith(ROOT)) continue;
    const file = path.slice(ROOT.length);
    if (folders.test(file) && !/^kernel\/(entry|lib\/bug)\.[tj]s$/.test(file))
      frames.push(`${match[1]?.replace(/^.*\./, "") ?? "anonymous"} [${file}:${match[3]}]`);
  }
  return frames;
}
