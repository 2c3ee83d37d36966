/**
 * CONFIG of `compare`: an allocator, and what it is booted with.
 *
 *     slub      slub:cpu_partial=off      slab:colour=off,max_order=0      buddy
 *
 * Each option stands for parameters on the kernel's command line. `buddy` is no slab allocator at all: every object is a
 * block of pages (boot/compare/buddy.ts).
 */
import { CommandError, nearest } from "../commands/registry.ts";
import { SLAB_ALLOCATORS } from "../slab_names.ts";

/** How a machine is booted for one column of a comparison. */
export interface Config {
  /** As it was given. */
  readonly name: string;
  readonly allocator: string;
  /** Kernel parameters. */
  readonly append: string;
  /** Objects of a sheaf of the caches that the workload makes; 0: none. */
  readonly sheaf: number;
}

/** What an option takes: a switch, or a number; and the kernel parameter that says it. */
interface Rule {
  readonly min?: number;
  readonly max?: number;
  parameter(value: string): string;
}
const onoff = (name: string): Rule => ({ parameter: (value) => `${name}=${value}` });
const number = (name: string, min: number, max: number): Rule => ({ min, max, parameter: (value) => `${name}=${value}` }); // prettier-ignore

const COMMON: Readonly<Record<string, Rule>> = {
  merge: { parameter: (value) => (value === "on" ? "slab_merge" : "slab_nomerge") },
  freelist_random: onoff("slab_freelist_random"),
  max_order: number("slab_max_order", 0, 10),
};
const RULES: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  slub: {
    cpu_partial: onoff("slub_cpu_partial"),
    sheaf: number("kmalloc_sheaf", 1, 1000),
    slab_full: onoff("slab_full"),
    freelist_hardened: onoff("slab_freelist_hardened"),
    min_order: number("slab_min_order", 0, 10),
    min_objects: number("slab_min_objects", 1, 1000),
    ...COMMON,
  },
  slab: {
    colour: onoff("slab_colour"),
    alien: { parameter: (value) => (value === "on" ? "" : "noaliencache") },
    ...COMMON,
  },
  slob: {},
  buddy: {},
};

/** Every allocator that a machine can be booted with. */
const allocators = (): string[] => [...SLAB_ALLOCATORS, "buddy"];

/** What is compared where nothing is said. */
export function default_configs(): Config[] {
  return allocators().map(parse_config);
}

const takes = ({ min, max }: Rule): string => (min === undefined ? "on|off" : `${min}..${max}`);

const HELP_WIDTH = 76;

/** Every allocator with its options, a line or some each. */
export function config_help(): string {
  const lines: string[] = [];
  for (const name of allocators()) {
    let text = `  ${name.padEnd(6)}`;
    for (const [option, rule] of Object.entries(RULES[name]!)) {
      const word = `  ${option}=${takes(rule)}`;
      if (text.length + word.length > HELP_WIDTH) {
        lines.push(text);
        text = " ".repeat(8);
      }
      text += word;
    }
    lines.push(text.trimEnd());
  }
  return lines.join("\n");
}

/** Reads one CONFIG; a CommandError that says what is allowed. */
export function parse_config(text: string): Config {
  const [, allocator = text, rest] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (!allocators().includes(allocator)) {
    const near = nearest(allocator, allocators());
    const hint = near === undefined ? "" : `; did you mean ${near}?`;
    throw new CommandError(
      `compare: ${text}: no allocator "${allocator}", there are ${allocators().join(", ")}${hint}`,
    );
  }
  const parameters = [`slab=${allocator}`];
  let sheaf = 0;
  const seen = new Set<string>();
  for (const option of rest === undefined ? [] : rest.split(",")) {
    const [name = "", value = ""] = option.split(/=(.*)/s);
    if (seen.has(name)) throw new CommandError(`compare: ${text}: ${name} is given twice`);
    seen.add(name);
    parameters.push(read_option(text, allocator, name, value));
    if (name === "sheaf") sheaf = Number(value);
  }
  return { name: text, allocator, append: parameters.filter((word) => word !== "").join(" "), sheaf };
}

function read_option(text: string, allocator: string, name: string, value: string): string {
  const rules = RULES[allocator]!;
  const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
  if (!rule) {
    const all = Object.entries(rules).map(([option, known]) => `${option}=${takes(known)}`);
    const allowed = all.length === 0 ? "none" : all.join(", ");
    throw new CommandError(`compare: ${text}: ${allocator} has no option "${name}"; it has ${allowed}`);
  }
  const { min, max } = rule;
  const fits =
    min === undefined
      ? value === "on" || value === "off"
      : /^\d{1,9}$/.test(value) && Number(value) >= min && Number(value) <= max!;
  if (!fits) throw new CommandError(`compare: ${text}: ${name} takes ${takes(rule)}, not "${value}"`);
  return rule.parameter(value);
}
