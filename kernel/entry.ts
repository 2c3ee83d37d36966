/**
 * The way into the kernel, and what happens when the kernel itself fails.
 *
 * Everything the kernel does is an entry: a system call, a step of a kernel thread, a timer, a command of the console.
 * An entry runs from its start to its end. A broken invariant (`BUG_ON`) and any other exception that comes out of one is
 * an oops: printed as Linux prints it, the current task is killed, the rest goes on. It is a panic where there is nothing
 * to kill or the damage may have spread: while booting, in an interrupt, in init, with `oops=panic`, or if the entry held
 * a lock. These are the only `try` and `catch` of the kernel.
 */
import { NULL, px, virt_px } from "../hal/addr.ts";
import { read_cr2 } from "../hal/control_regs.ts";
import { events, has_listener } from "../hal/events.ts";
import { image_symbol, static_data } from "../hal/image.ts";
import { cpl, set_cpl } from "../hal/privilege.ts";
import { set_reclaim_flags } from "../mm/reclaim_state.ts";
import { Trap, X86_TRAP_PF } from "../hal/trap.ts";
import { do_exit } from "./exit.ts";
import { control_register_lines, trap_lines } from "./fault.ts";
import { BUG_ON, KernelBug, KernelPanic, panic } from "./lib/bug.ts";
import { cmdline_param } from "./lib/cmdline.ts";
import { current_line, kernel_frames } from "./lib/dump_stack.ts";
import { sprint_symbol } from "./lib/ksym.ts";
import { set_running } from "./lib/owner.ts";
import { set_in_interrupt } from "./lib/preempt.ts";
import { pr_emerg } from "./lib/printk.ts";
import { last_lock_taken, locks_held } from "./lib/spinlock.ts";
import { SIGKILL, SIGSEGV } from "./signal.ts";
import { PF_IDLE, SYSTEM_BOOTING, TaskStruct, current_task, system_status } from "./task.ts";
import { VERSION } from "./version.ts";

/** What enters: a task's own entry, an interrupt, or the host (boot, a command) with no task of its own. */
export type EntryKind = "task" | "irq" | "host";

const oops_state = static_data("oops", { count: "u32" });

/** Runs one kernel entry. Returns what `fn` returns; undefined after an oops. Throws KernelPanic when the machine stops. */
export function kernel_entry<T>(kind: EntryKind, fn: () => T): T | undefined {
  if (kind === "irq") set_in_interrupt(true);
  try {
    const result = fn();
    BUG_ON(locks_held() !== 0, "a kernel entry ends with a lock held");
    return result;
  } catch (error) {
    if (!(error instanceof KernelPanic)) return survive(kind, error);
    if (has_listener("panic")) events.emit("panic", { text: error.message });
    throw error;
  } finally {
    if (kind === "irq") set_in_interrupt(false);
  }
}

/** Runs code of a program, at ring 3; what it throws is handed back. What the kernel throws in a trap of it is not. */
export function user_mode<T>(fn: () => T): { value: T } | { thrown: unknown } {
  set_cpl(3);
  try {
    return { value: fn() };
  } catch (thrown) {
    if (cpl() === 0) throw thrown;
    return { thrown };
  } finally {
    set_cpl(0);
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
  set_reclaim_flags(0); // if it was reclaiming, it does so no more
  set_running(NULL);
  print_oops(error);
  const task = current_task();
  const idle = task === NULL || (TaskStruct.flags.get(task) & PF_IDLE) !== 0;
  if (kind === "irq") panic("Fatal exception in interrupt");
  if (system_status.state === SYSTEM_BOOTING) panic("Fatal exception");
  if (locks_held() !== 0) panic("Fatal exception: a lock is held");
  if (cmdline_param("oops") === "panic") panic("Fatal exception: oops=panic");
  if (!idle) do_exit(task, error instanceof Trap && error.vector === X86_TRAP_PF ? SIGKILL : SIGSEGV);
}

function print_oops(error: unknown): void {
  const frames = kernel_frames(error);
  const at = frames[0] ?? "an unknown place";
  const text = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : "exception";
  oops_state.count = oops_state.count + 1;
  if (error instanceof Trap) return print_trap(error);
  pr_emerg("------------[ cut here ]------------");
  if (error instanceof KernelBug) pr_emerg(`kernel BUG at ${/\[(.*)\]/.exec(at)?.[1] ?? at}: ${text}`);
  else pr_emerg(`BUG: unhandled ${name}: ${text}`);
  pr_emerg(`Oops: ${error instanceof KernelBug ? "invalid opcode: 0000" : "0000"} [#${oops_state.count}]`);
  pr_emerg(current_line());
  pr_emerg(`RIP: 0010:${at}`);
  pr_emerg("Call Trace:");
  for (const frame of frames) pr_emerg(` ${frame}`);
  if (locks_held() !== 0) pr_emerg(`${locks_held()} lock(s) held, the last taken is ${lock_name()}`);
  pr_emerg("---[ end trace 0000000000000000 ]---");
}

/** The oops of a memory access, as Linux prints it (kernel/fault.ts). */
function print_trap(trap: Trap): void {
  const frames = kernel_frames(trap, /^(mm|kernel|boot|examples|test)\//);
  const rip = `RIP: 0010:${frames[0] ?? "an unknown place"}`;
  for (const line of trap_lines(trap, oops_state.count)) pr_emerg(line);
  const taint = oops_state.count > 1 ? "Tainted: G      D            " : "Not tainted"; // D: it has oopsed before
  pr_emerg(`${current_line()} ${taint} ${VERSION} #1`);
  pr_emerg("Hardware name: kheap emulated x86-64");
  for (const line of [rip, ...control_register_lines()]) pr_emerg(line);
  pr_emerg("Call Trace:\n <TASK>");
  for (const frame of frames) pr_emerg(` ${frame}`);
  pr_emerg(` </TASK>\nModules linked in:\nCR2: ${virt_px(read_cr2())}\n---[ end trace 0000000000000000 ]---`);
  for (const line of [rip, ...control_register_lines()]) pr_emerg(line);
}

function lock_name(): string {
  const lock = last_lock_taken();
  return image_symbol(lock) ? sprint_symbol(lock) : px(lock);
}
