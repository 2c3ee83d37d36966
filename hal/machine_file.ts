/**
 * A machine as JSON, for `--machine FILE`:
 *
 *     { "memory": [{ "start": 0, "size": "640K" }, { "start": "1M", "size": "63M", "type": "usable" }],
 *       "nodes":  [{ "ranges": [{ "start": 0, "size": "64M" }], "cpus": [0, 1] }],
 *       "distance": [[10]], "dma_limit": "4M", "dma32_limit": "16M", "append": "slab_full=on" }
 *
 * Addresses and sizes are numbers or texts (`64M`, `0x100000`). `type` is `usable` (the default), `reserved`, `ACPI data`,
 * `ACPI NVS`, `unusable`, or an e820 number. Absent `distance` is 10 and 20, absent limits and timing are the textbook
 * machine's, absent `cpus` are as many as the nodes name.
 */
import {
  PRESETS,
  check_machine,
  default_distance,
  parse_size,
  type MachineSpec,
  type MemoryEntry,
  type NodeSpec,
  type Range,
} from "./machine.ts";
import type { TimingSpec } from "./machine_timing.ts";

const TYPES: Readonly<Record<string, number>> = Object.freeze({
  usable: 1, reserved: 2, "ACPI data": 3, "ACPI NVS": 4, unusable: 5,
}); // prettier-ignore
const KEYS = "name memory nodes cpus distance dma_limit dma32_limit timing append".split(" ");
type Json = Readonly<Record<string, unknown>>;

/** Thrown inside this file only, and turned into the one line that `read_machine` returns. */
class Malformed extends Error {}

function fail(where: string, given: unknown, wanted: string): never {
  throw new Malformed(`${where}: ${given === undefined ? "is missing" : JSON.stringify(given)}; give ${wanted}`);
}

/** Reads a machine. What is wrong with it comes back as one line. */
export function read_machine(text: string): MachineSpec | string {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return `not JSON: ${(error as Error).message.split("\n")[0]}`;
  }
  try {
    const spec = build(json);
    return check_machine(spec) ?? spec;
  } catch (error) {
    if (error instanceof Malformed) return error.message;
    throw error;
  }
}

function build(given: unknown): MachineSpec {
  const json = object("machine", given, KEYS);
  const preset = PRESETS.textbook;
  const nodes = list("nodes", json.nodes).map(read_node);
  const cpus = json.cpus === undefined ? nodes.flatMap((node) => node.cpus).length : number("cpus", json.cpus);
  return {
    name: text_or("name", json.name, "custom"),
    memory: list("memory", json.memory).map(read_entry),
    nodes,
    cpus,
    distance: json.distance === undefined ? default_distance(nodes.length) : read_distance(json.distance),
    dma_limit: json.dma_limit === undefined ? preset.dma_limit : size("dma_limit", json.dma_limit),
    dma32_limit: json.dma32_limit === undefined ? preset.dma32_limit : size("dma32_limit", json.dma32_limit),
    timing: json.timing === undefined ? preset.timing : read_timing(json.timing, preset.timing),
    append: text_or("append", json.append, ""),
  };
}

function read_entry(given: unknown, i: number): MemoryEntry {
  const where = `memory[${i}]`;
  const json = object(where, given, ["start", "size", "type"]);
  return { ...read_range(where, json), type: read_type(`${where}.type`, json.type ?? "usable") };
}

function read_type(where: string, given: unknown): number {
  if (typeof given === "number") return given;
  if (typeof given === "string" && Object.hasOwn(TYPES, given)) return TYPES[given];
  return fail(where, given, `a number or one of ${Object.keys(TYPES).join(", ")}`);
}

function read_range(where: string, json: Json): Range {
  return { start: size(`${where}.start`, json.start), size: size(`${where}.size`, json.size) };
}

function read_node(given: unknown, i: number): NodeSpec {
  const where = `nodes[${i}]`;
  const json = object(where, given, ["ranges", "cpus"]);
  const ranges = list(`${where}.ranges`, json.ranges ?? []);
  return {
    ranges: ranges.map((range, j) => {
      const at = `${where}.ranges[${j}]`;
      return read_range(at, object(at, range, ["start", "size"]));
    }),
    cpus: list(`${where}.cpus`, json.cpus ?? []).map((cpu, j) => number(`${where}.cpus[${j}]`, cpu)),
  };
}

function read_distance(given: unknown): number[][] {
  return list("distance", given).map((row, i) =>
    list(`distance[${i}]`, row).map((value, j) => number(`distance[${i}][${j}]`, value)),
  );
}

/** Numbers of a preset's timing, one level or two deep, each of which the file may replace. */
function read_timing(given: unknown, preset: TimingSpec): TimingSpec {
  return merge_numbers("timing", given, preset as unknown as Json) as unknown as TimingSpec;
}

function merge_numbers(where: string, given: unknown, preset: Json): Json {
  const json = object(where, given, Object.keys(preset));
  const merged = Object.entries(preset).map(([key, value]) => {
    const at = `${where}.${key}`;
    if (json[key] === undefined) return [key, value];
    if (typeof value === "object") return [key, merge_numbers(at, json[key], value as Json)];
    return [key, size(at, json[key])];
  });
  return Object.fromEntries(merged) as Json;
}

function object(where: string, given: unknown, keys: readonly string[]): Json {
  if (typeof given !== "object" || given === null || Array.isArray(given))
    return fail(where, given, `an object with ${keys.join(", ")}`);
  const unknown = Object.keys(given).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw new Malformed(`${where}: no such field "${unknown}"; there are ${keys.join(", ")}`);
  return given as Json;
}

function list(where: string, given: unknown): readonly unknown[] {
  return Array.isArray(given) ? given : fail(where, given, "a list");
}

function number(where: string, given: unknown): number {
  return typeof given === "number" ? given : fail(where, given, "a number");
}

function size(where: string, given: unknown): number {
  const value = typeof given === "string" ? parse_size(given) : given;
  return typeof value === "number" && !Number.isNaN(value)
    ? value
    : fail(where, given, "a number, or a size as 64M, 1G or 0x100000");
}

function text_or(where: string, given: unknown, fallback: string): string {
  if (given === undefined) return fallback;
  return typeof given === "string" ? given : fail(where, given, "a text");
}
