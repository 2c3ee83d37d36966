/**
 * The kernel image: where functions, static data and per-CPU data have their addresses in RAM.
 *
 *     0x100000   text      64 KiB   16 bytes a function that the kernel keeps a pointer to
 *     0x110000   symbols   64 KiB   the name table: 64 bytes an entry
 *     0x120000   data     256 KiB   static_data: zero when the kernel starts
 *     0x160000   per-CPU   64 KiB a CPU: unit n is CPU n's copy of everything declared with per_cpu_data
 *
 * Addresses are given when a file loads, in load order, by the realm that boots. Any other realm (one that attaches to
 * RAM it was handed) finds each name in the table and takes the address that stands there; a name that is missing, or
 * that has another layout, is refused. So what is written in RAM means the same to both.
 *
 * Names may come and go with a module: its functions get free text slots, its data lies in memory of its own.
 *
 * A per-CPU pointer is the address of CPU 0's copy. CPU n's copy lies n units further, for every per-CPU chunk there
 * is, so `ptr + (cpu << PERCPU_UNIT_SHIFT)` finds it without a look-up.
 */
import { align_up, type CpuId, type Ptr } from "./addr.ts";
import { realm } from "./host.ts";
import { ram_copy, ram_zero } from "./ram.ts";
import { struct, type ArrayField, type FieldInfo, type Specs, type StringField, type Struct } from "./struct.ts";

export const IMAGE_BASE = 0x100000;
export const TEXT_BASE: Ptr = IMAGE_BASE;
export const TEXT_BYTES = 0x10000;
const SYMBOL_BASE = TEXT_BASE + TEXT_BYTES;
const SYMBOL_BYTES = 0x10000;
export const DATA_BASE = SYMBOL_BASE + SYMBOL_BYTES;
export const DATA_BYTES = 0x40000;
export const PERCPU_BASE = DATA_BASE + DATA_BYTES;
export const PERCPU_UNIT_SHIFT = 16;
export const PERCPU_UNIT_BYTES = 1 << PERCPU_UNIT_SHIFT;
const MAGIC = 0x6b686561; // "kheap", cut

type Kind = "text" | "data" | "percpu";
const KINDS: readonly Kind[] = Object.freeze(["text", "data", "percpu"] as const);
interface Section {
  readonly base: Ptr;
  readonly bytes: number;
  used: number;
}
/** Where the next name of each kind goes. Code, not state: a realm that loads the same files computes the same. */
const sections: Readonly<Record<Kind, Section>> = Object.freeze({
  text: { base: TEXT_BASE, bytes: TEXT_BYTES, used: 16 }, // address 0 of the text is never a function
  data: { base: DATA_BASE, bytes: DATA_BYTES, used: 0 },
  percpu: { base: PERCPU_BASE, bytes: PERCPU_UNIT_BYTES, used: 0 },
});

const Symbol_ = struct(
  "image_symbol",
  { name: "char[44]", layout_hash: "u32", address: "u32", size: "u32", kind: "u32", pad: "u32" },
  { sizeof: 64 },
);
const Header = struct(
  "image_header",
  { magic: "u32", nr_symbols: "u32", nr_cpus: "u32", pad: "u32[13]" },
  { sizeof: 64 },
);
const MAX_SYMBOLS = SYMBOL_BYTES / Symbol_.sizeof - 1;

interface Definition {
  readonly name: string;
  readonly kind: Kind;
  readonly hash: number;
  readonly size: number;
  readonly address: Ptr;
}
/** What this realm's files define, by name: the symbol table of the loaded code. */
// eslint-disable-next-line kheap/no-module-state -- code, not state: it grows only when a file loads
const definitions = new Map<string, Definition>();
/** Text slots that a module left. */
// eslint-disable-next-line kheap/no-module-state -- code, not state: it follows from what was loaded and unloaded
const free_text: Ptr[] = [];
const attached = realm.memory !== undefined && Header.magic.get(SYMBOL_BASE) === MAGIC;

/**
 * Gives `name` an address: the one that the table in RAM has, in a realm that attaches; else what `place` gives for so many
 * bytes, or the next free one. Names of modules (`… [MODULE]`) may be new to that table, all others stand in it.
 */
export function image_define(
  name: string,
  kind: Kind,
  hash: number,
  size: number,
  align: number,
  place?: (bytes: number) => Ptr,
): Ptr {
  if (definitions.has(name)) throw new Error(`${kind} "${name}" is defined twice`);
  const known = attached ? find_address(name, kind, hash) : undefined;
  const address = known ?? place?.(size) ?? next_address(name, kind, size, align);
  const definition = { name, kind, hash, size, address };
  definitions.set(name, definition);
  const section = sections[kind];
  if (!place) section.used = Math.max(section.used, address + size - section.base);
  if (known === undefined && Header.magic.get(SYMBOL_BASE) === MAGIC) write_symbol(definition);
  return address;
}

/** Takes every name that ends with `suffix` out of the image; returns their addresses. */
export function image_remove(suffix: string): Ptr[] {
  const gone = [...definitions.values()].filter(({ name }) => name.endsWith(suffix));
  for (const { name, kind, address } of gone) {
    definitions.delete(name);
    if (kind === "text") free_text.push(address);
    for (let i = Header.nr_symbols.get(SYMBOL_BASE) - 1; i >= 0; i--)
      if (Symbol_.name.get(symbol_at(i)) === name.slice(0, 43)) erase_symbol(i);
  }
  return gone.map(({ address }) => address);
}

function next_address(name: string, kind: Kind, size: number, align: number): Ptr {
  if (kind === "text" && free_text.length > 0) return free_text.pop()!;
  const section = sections[kind];
  const start = align_up(section.used, align);
  if (start + size > section.bytes)
    throw new Error(`no room for ${kind} "${name}": ${size} bytes, ${section.bytes - start} left`);
  return section.base + start;
}

function symbol_at(index: number): Ptr {
  return SYMBOL_BASE + Header.sizeof + index * Symbol_.sizeof;
}

function find_address(name: string, kind: Kind, hash: number): Ptr | undefined {
  for (let i = 0; i < Header.nr_symbols.get(SYMBOL_BASE); i++) {
    const symbol = symbol_at(i);
    if (Symbol_.name.get(symbol) !== name.slice(0, 43)) continue;
    if (Symbol_.layout_hash.get(symbol) !== hash || Symbol_.kind.get(symbol) !== KINDS.indexOf(kind))
      throw new Error(`this RAM was written by another kernel: "${name}" has another layout`);
    return Symbol_.address.get(symbol);
  }
  if (name.endsWith("]")) return undefined;
  throw new Error(`this RAM was written by another kernel: it has no ${kind} "${name}"`);
}

function write_symbol(definition: Definition): void {
  const index = Header.nr_symbols.get(SYMBOL_BASE);
  if (index >= MAX_SYMBOLS) throw new Error(`more than ${MAX_SYMBOLS} names in the kernel image`);
  const symbol = symbol_at(index);
  ram_zero(symbol, Symbol_.sizeof);
  Symbol_.name.set(symbol, definition.name);
  Symbol_.layout_hash.set(symbol, definition.hash);
  Symbol_.address.set(symbol, definition.address);
  Symbol_.size.set(symbol, definition.size);
  Symbol_.kind.set(symbol, KINDS.indexOf(definition.kind));
  Header.nr_symbols.set(SYMBOL_BASE, index + 1);
}

/** Fills the place of a symbol with the last one. */
function erase_symbol(index: number): void {
  const last = Header.nr_symbols.get(SYMBOL_BASE) - 1;
  if (index !== last) ram_copy(symbol_at(index), symbol_at(last), Symbol_.sizeof);
  Header.nr_symbols.set(SYMBOL_BASE, last);
}

/** The boot loader: zeroes the image and writes its symbol table. Later definitions are added as files load. */
export function image_load(nr_cpus: number): void {
  ram_zero(IMAGE_BASE, image_end(nr_cpus) - IMAGE_BASE);
  Header.magic.set(SYMBOL_BASE, MAGIC);
  Header.nr_cpus.set(SYMBOL_BASE, nr_cpus);
  for (const definition of definitions.values()) write_symbol(definition);
}

/** First byte behind the image of a machine with `nr_cpus` CPUs. */
export function image_end(nr_cpus: number): Ptr {
  return PERCPU_BASE + nr_cpus * PERCPU_UNIT_BYTES;
}

/** True if this realm was handed RAM in which a kernel stands. */
export function image_is_attached(): boolean {
  return attached;
}

/** Names in RAM's symbol table that no file loaded here defines. */
export function image_foreign_names(): string[] {
  const known = new Set([...definitions.keys()].map((name) => name.slice(0, 43)));
  const names: string[] = [];
  for (let i = 0; i < Header.nr_symbols.get(SYMBOL_BASE); i++) {
    const name = Symbol_.name.get(symbol_at(i));
    if (!known.has(name)) names.push(name);
  }
  return names;
}

/** Bytes in use of each part. */
export function image_sizes(): Readonly<Record<Kind, number>> {
  return { text: sections.text.used, data: sections.data.used, percpu: sections.percpu.used };
}

/** The name and the offset of what lies at `address`, for `%pS`; undefined outside. */
export function image_symbol(address: Ptr): { name: string; offset: number; size: number } | undefined {
  for (const d of definitions.values())
    if (address >= d.address && address < d.address + d.size)
      return { name: d.name, offset: address - d.address, size: d.size };
  return undefined;
}

/** Every definition of a kind, in load order. */
export function* image_symbols(kind: Kind): Generator<{ name: string; address: Ptr; size: number }> {
  for (const d of definitions.values()) if (d.kind === kind) yield d;
}

type StaticValue<F> = F extends StringField
  ? string
  : F extends { get(ptr: Ptr): infer V }
    ? V
    : F extends ArrayField<infer V>
      ? { get(index: number): V; set(index: number, value: V): void; at(index: number): Ptr }
      : F extends { length: number; at(ptr: Ptr, index: number): infer P }
        ? { at(index: number): P }
        : F extends { at(ptr: Ptr): infer P }
          ? P
          : never;
/** A struct at a fixed address: scalars and strings are properties, an embedded struct is its address. */
export type Static<F extends Specs> = { -readonly [K in keyof F]: StaticValue<Struct<string, F>[K]> } & {
  /** The address of the whole, or of one of its fields. */
  readonly $at: (field?: keyof F & string) => Ptr;
};

/**
 * A static variable of the kernel: `const ring = static_data("ring", { head: "*page", count: "u32" })`, then
 * `ring.count = ring.count + 1`. Zero when the kernel starts. Call it at module level only.
 */
export function static_data<const F extends Specs>(name: string, fields: F): Static<F> {
  const layout = struct(name, fields);
  const address = image_define(name, "data", layout.hash, layout.sizeof, Math.max(layout.alignof, 8));
  return bind(layout, address) as Static<F>;
}

/** As static_data, at a place of the caller's: `place` gives so many zeroed bytes. */
export function static_data_at<const F extends Specs>(
  name: string,
  fields: F,
  place: (bytes: number) => Ptr,
): Static<F> {
  const layout = struct(name, fields);
  const address = image_define(name, "data", layout.hash, layout.sizeof, 8, place);
  return bind(layout, address) as Static<F>;
}

interface AnyField {
  get(ptr: Ptr, index?: number): unknown;
  set(ptr: Ptr, ...rest: unknown[]): void;
  at(ptr: Ptr, index?: number): Ptr;
  readonly length?: number;
}

function bind(layout: Struct<string, Specs>, address: Ptr): unknown {
  const target: Record<string, unknown> = {};
  const offsets = Object.fromEntries(layout.layout.map((info: FieldInfo) => [info.name, info.offset]));
  Object.defineProperty(target, "$at", {
    value: (field?: string) => address + (field === undefined ? 0 : offsets[field]!),
  });
  for (const { name } of layout.layout) {
    const field = layout[name] as unknown as AnyField;
    const readable = Object.hasOwn(field, "get");
    if (field.length !== undefined) {
      const items = {
        get: (i: number) => field.get(address, i),
        set: (i: number, v: unknown) => field.set(address, i, v),
      };
      target[name] = { at: (i: number) => field.at(address, i), ...(readable && items) };
    } else if (readable) {
      const get = (): unknown => field.get(address);
      Object.defineProperty(target, name, {
        enumerable: true,
        get,
        set: (value: unknown) => field.set(address, value),
      });
    } else target[name] = field.at(address);
  }
  return target;
}

/** A struct of which every CPU has its own copy. */
export type PerCpu<F extends Specs> = Struct<string, F> & {
  /** CPU 0's copy: what `this_cpu_ptr` and `per_cpu_ptr` take. */
  readonly ptr: Ptr;
};

/**
 * A per-CPU variable: `const rq = per_cpu_data("runqueue", { nr: "u32" })`, then `rq.nr.get(this_cpu_ptr(rq.ptr))`.
 * Each copy starts on a cache line of its own. Call it at module level only.
 */
export function per_cpu_data<const F extends Specs>(name: string, fields: F): PerCpu<F> {
  const layout = struct(name, fields);
  const ptr = image_define(name, "percpu", layout.hash, layout.sizeof, 64);
  return { ...layout, ptr };
}

/** CPU `cpu`'s copy of a per-CPU object. */
export function per_cpu_ptr<T extends string>(ptr: Ptr<T>, cpu: CpuId): Ptr<T> {
  return ptr + (cpu << PERCPU_UNIT_SHIFT);
}

/** True for an address in the image that never changes once the kernel runs: text and the names in its symbol table. */
export function is_kernel_rodata(ptr: Ptr): boolean {
  return ptr >= TEXT_BASE && ptr < SYMBOL_BASE + SYMBOL_BYTES;
}

/** The number of CPUs that the image in RAM was loaded for. */
export function image_nr_cpus(): number {
  return Header.nr_cpus.get(SYMBOL_BASE);
}
