/**
 * WORKLOAD of `compare`: what is run under each configuration.
 *
 *     FILE                   a recording: #kheap-trace, ftrace or perf script (its object events), or a malloc-lab .rep
 *     producer-consumer[:N]  N messages, made on a CPU of node 0, freed on one of node 1, through a ring
 *     fork-storm[:N]         N tasks that a program forks, that do a little and exit
 *     file-walk[:N]          N files that a program makes, lists, reads and removes
 *
 * The first two are scripts: the whole list of requests is known beforehand (boot/compare/script.ts). The last two are
 * programs: what is asked for is up to the kernel's own fork and files (boot/compare/programs.ts).
 */
import { existsSync } from "node:fs";
import { CommandError, nearest } from "../commands/registry.ts";
import { read_trace_file } from "../replay/file.ts";

export interface Workload {
  /** As it was given. */
  readonly name: string;
  readonly kind: "file" | "producer-consumer" | "fork-storm" | "file-walk";
  /** How many of what it is about; 0 for a file. */
  readonly size: number;
  /** A file's bytes, unpacked, shared with the realms that run it. */
  readonly bytes?: Uint8Array;
}

const MAX_SIZE = 100_000;
/** Built-in workloads: the size where none is given, and what it counts. */
const BUILT_IN: Readonly<Record<Exclude<Workload["kind"], "file">, readonly [size: number, what: string]>> = {
  "fork-storm": [500, "tasks"],
  "file-walk": [200, "files"],
  "producer-consumer": [5000, "messages"],
};
export const BUILT_IN_NAMES: readonly string[] = Object.keys(BUILT_IN);

/** True if the requests of a workload are known beforehand. */
export function is_script({ kind }: Workload): boolean {
  return kind === "file" || kind === "producer-consumer";
}

/** Reads one WORKLOAD, and its file; a CommandError that says what there is. */
export function parse_workload(text: string): Workload {
  const [, name = "", size] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (Object.hasOwn(BUILT_IN, name)) return built_in(text, name as keyof typeof BUILT_IN, size);
  if (!existsSync(text)) {
    const near = nearest(name, BUILT_IN_NAMES);
    const hint = near === undefined ? "" : `; did you mean ${near}?`;
    throw new CommandError(`compare: ${text}: no such file, nor one of ${BUILT_IN_NAMES.join(", ")}${hint}`);
  }
  const bytes = read_trace_file(text);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  return { name: text, kind: "file", size: 0, bytes: shared };
}

function built_in(text: string, kind: keyof typeof BUILT_IN, given: string | undefined): Workload {
  const [size, what] = BUILT_IN[kind];
  if (given === undefined) return { name: text, kind, size };
  const wanted = /^\d{1,9}$/.test(given) ? Number(given) : NaN;
  if (wanted >= 1 && wanted <= MAX_SIZE) return { name: text, kind, size: wanted };
  throw new CommandError(`compare: ${text}: ${kind} takes 1 to ${MAX_SIZE} ${what}, not "${given}"`);
}
