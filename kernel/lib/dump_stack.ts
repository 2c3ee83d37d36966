/**
 * Who is calling: stack lines for reports, and the name of the task that runs.
 *
 *     CPU: 1 UID: 0 PID: 4 Comm: worker
 *     Call Trace:
 *      <TASK>
 *      __alloc_pages_slowpath [mm/zonelist.ts:247]
 *      alloc_pages [mm/page_alloc.ts:120]
 *      </TASK>
 *
 * Lines come from the text of `error.stack`: those of hal, mm and kernel, from the project's root, without the host's.
 * Slow, so for reports only.
 */
import { NULL } from "../../hal/addr.ts";
import { smp_processor_id } from "../../hal/cpu.ts";
import { static_data } from "../../hal/image.ts";
import { ksym_fn, type FnPtr } from "./ksym.ts";
import { printk } from "./printk.ts";

/** Frames that a report shows at most. */
const DEPTH = 32;

/** `current_fn`: the name and number of the current task; filled by the layer that has tasks. */
const reporter = static_data("dump_stack", { current_fn: "*fn" });

/** Sets where reports learn who runs: a ksym of `() => { comm, pid }`. */
export function set_report_current(fn: FnPtr): void {
  reporter.current_fn = fn;
}

function current_of_report(): { comm: string; pid: number } {
  if (reporter.current_fn === NULL) return { comm: `swapper/${smp_processor_id()}`, pid: 0 };
  return ksym_fn(reporter.current_fn)() as { comm: string; pid: number };
}

/** Name of the task that runs, for the first words of a report. */
export function current_comm(): string {
  return current_of_report().comm;
}

/** Who runs, on which CPU: a line of reports. */
export function current_line(): string {
  const { comm, pid } = current_of_report();
  return `CPU: ${smp_processor_id()} UID: 0 PID: ${pid} Comm: ${comm}`;
}

/** `file:///` and the like taken off, so that a path can be compared. */
const plain_path = (url: string): string => url.replace(/^file:\/\/(\/(?=[A-Za-z]:))?/, "").replaceAll("\\", "/");
const ROOT = plain_path(new URL("../..", import.meta.url).href);
/** What stands behind the URL of a module's file in a stack (boot/modules/load.ts). */
export const MODULE_QUERY = "?module=";
/** Files whose frames say nothing. */
const REPORTERS = /^kernel\/(entry|lib\/(bug|dump_stack|ksym))\.[tj]s$/;

/** The kernel's frames of an exception, innermost first: `function [kernel/exit.ts:120]`; or those of other folders. */
export function kernel_frames(error: unknown, folders = /^(hal|mm|kernel)\//): string[] {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  const frames: string[] = [];
  for (const line of stack.split("\n")) {
    const match = /^\s*at (?:(?:new |async )?(\S+) (?:\[as \S+\] )?\()?(.*?)(\?[^:]*)?:(\d+):\d+\)?$/.exec(line);
    const path = plain_path(match?.[2] ?? "");
    const is_module = match?.[3]?.startsWith(MODULE_QUERY) ?? false;
    if (!match || !(is_module || path.startsWith(ROOT))) continue;
    const file = is_module ? path.replace(/^.*\//, "") : path.slice(ROOT.length);
    if (is_module || (folders.test(file) && !REPORTERS.test(file)))
      frames.push(`${match[1]?.replace(/^.*\./, "") ?? "anonymous"} [${file}:${match[4]}]`);
  }
  return frames;
}

/** The kernel's frames at this place, innermost first. */
function frames_here(): string[] {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = DEPTH;
  const frames = kernel_frames(new Error());
  Error.stackTraceLimit = limit;
  return frames;
}

/** Prints who runs and the way that led here. */
export function dump_stack(level: number): void {
  printk(level, [current_line(), "Call Trace:", " <TASK>", ...frames_here().map((frame) => ` ${frame}`), " </TASK>"].join("\n")); // prettier-ignore
}
