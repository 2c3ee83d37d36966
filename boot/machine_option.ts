/**
 * The machine that `--machine`, `--mem`, `--nodes`, `--cpus` and `--distance` ask for.
 */
import { readFileSync } from "node:fs";
import { PRESETS, machine_from_options, type MachineSpec } from "../hal/machine.ts";
import { read_machine } from "../hal/machine_file.ts";
import { UsageError, type Options } from "./options.ts";

/** Reads a machine from a file; the options that shape a preset make no sense beside it. */
function machine_from_file(path: string, options: Options): MachineSpec | string {
  for (const option of ["mem", "nodes", "cpus", "distance"] as const)
    if (options[option] !== undefined) return `--${option} and --machine ${path}: a file describes the whole machine`;
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return `--machine ${path}: no preset (${Object.keys(PRESETS).join(", ")}) and no file that can be read`;
  }
  const spec = read_machine(text);
  return typeof spec === "string" ? `--machine ${path}: ${spec}` : spec;
}

/** The machine's spec. Throws UsageError with the one line that says what is wrong. */
export function machine_of(options: Options): MachineSpec {
  const { machine, mem, nodes, cpus, distance } = options;
  const from_file = machine !== undefined && !Object.hasOwn(PRESETS, machine);
  const spec = from_file
    ? machine_from_file(machine, options)
    : machine_from_options({ preset: machine, mem, nodes, cpus, distance });
  if (typeof spec === "string") throw new UsageError(spec);
  return spec;
}
