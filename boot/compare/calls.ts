/**
 * Counts calls of kernel functions without a line in the kernel: the JavaScript engine's own exact count of how often each
 * function was entered ("precise coverage"). Only for a realm of its own: while it counts, all code there runs slower.
 */
import { Session } from "node:inspector";
import { fileURLToPath } from "node:url";

interface Coverage {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly {
      readonly functionName: string;
      readonly ranges: readonly { readonly count: number }[];
    }[];
  }[];
}

const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
const plain = (url: string): string => (url.startsWith("file:") ? fileURLToPath(url) : url);
const file_of = (path: string): string => plain(new URL(`../../${path}.${extension}`, import.meta.url).href);

export interface Calls {
  /** Insertions into and removals from the kernel's doubly linked lists (kernel/lib/list.ts). */
  readonly list_operations: number;
  /** Spinlocks taken. */
  readonly locks: number;
}

/** Starts counting. What it returns ends that, and says what was counted. */
export function count_calls(): () => Calls {
  const session = new Session();
  session.connect();
  session.post("Profiler.enable");
  session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false });
  return () => {
    let coverage: Coverage = { result: [] };
    session.post("Profiler.takePreciseCoverage", (_error, taken) => (coverage = taken));
    session.post("Profiler.stopPreciseCoverage");
    session.disconnect();
    const count = (path: string, name: string): number => {
      const script = coverage.result.find(({ url }) => plain(url) === file_of(path));
      return script?.functions.find((fn) => fn.functionName === name)?.ranges[0]?.count ?? 0;
    };
    const [list, lock] = ["kernel/lib/list", "kernel/lib/spinlock"] as const;
    const splices = count(list, "list_splice_init");
    return {
      list_operations: count(list, "insert") + count(list, "list_del") + splices,
      locks: count(lock, "spin_lock"),
    };
  };
}
