/**
 * Struct layouts: declared once, laid out as x86-64 C does, read and written in RAM through typed accessors.
 *
 *     export const Page = struct("page", {
 *       flags: "u32",               // offset 0
 *       next: "*page",              // a pointer: 8 bytes, 8-aligned; the low word is the Ptr, the high word stays 0
 *       name: "char[16]",           // a NUL-terminated string
 *       count: "u32[4]",            // an array of scalars
 *       lru: ListHead,              // another struct, embedded
 *       pcp: array(PerCpuPages, 4)  // an array of structs
 *     }, { sizeof: 64 });           // an assertion, checked when the file loads
 *
 *     Page.next.get(page); Page.next.set(page, head); Page.lru.at(page); Page.count.get(page, 2); Page.sizeof
 *
 * An accessor of a word is two closures over a constant offset and costs what raw indexing does. A hot path that wants
 * to index itself takes `Page.next.offset`. Types are nominal: `Ptr<"page">` is not a `Ptr<"kmem_cache">`.
 */
import { ram16, ram32, ram8, ram_read_string, ram_write_string } from "./ram.ts";
import { align_up, virt_of, type Ptr } from "./addr.ts";

const m8 = ram8;
const m16 = ram16;
const m32 = ram32;
const TWO_32 = 0x100000000;

/** What pahole prints of a field, and what a layout hash is made of. */
export interface FieldInfo {
  readonly name: string;
  readonly type: string;
  readonly offset: number;
  readonly size: number;
}
interface FieldBase {
  readonly offset: number;
  /** The field's address in the struct at `ptr`. */
  at(ptr: Ptr): Ptr;
}
export interface ScalarField<V extends number> extends FieldBase {
  get(ptr: Ptr): V;
  set(ptr: Ptr, value: V): void;
}
/** 64 bits: `get` is exact to 2^53, below 0 too where they are signed (addresses: Virt); `lo` and `hi` are the words. */
export interface U64Field extends ScalarField<number> {
  lo(ptr: Ptr): number;
  hi(ptr: Ptr): number;
}
export interface StringField extends FieldBase {
  get(ptr: Ptr): string;
  set(ptr: Ptr, value: string): void;
}
export interface ArrayField<V extends number> {
  readonly offset: number;
  readonly length: number;
  at(ptr: Ptr, index: number): Ptr;
  get(ptr: Ptr, index: number): V;
  set(ptr: Ptr, index: number, value: V): void;
}
export interface StructArrayField<T extends string> {
  readonly offset: number;
  readonly length: number;
  at(ptr: Ptr, index: number): Ptr<T>;
}
export interface EmbeddedField<T extends string> {
  readonly offset: number;
  at(ptr: Ptr): Ptr<T>;
}

type Scalar = "u8" | "u16" | "u32" | "s32" | "u64" | "s64";
type AnyStruct = StructInfo<string>;
export interface StructArray<T extends string = string> {
  readonly element: StructInfo<T>;
  readonly length: number;
}
type Spec =
  | Scalar
  | `*${string}`
  | `char[${number}]`
  | `${Scalar}[${number}]`
  | `*${string}[${number}]`
  | AnyStruct
  | StructArray;
export type Specs = Readonly<Record<string, Spec>>;

type FieldOf<S> = S extends `char[${number}]`
  ? StringField
  : S extends `*${infer T}[${number}]`
    ? ArrayField<Ptr<T>>
    : S extends `${Scalar}[${number}]`
      ? ArrayField<number>
      : S extends `*${infer T}`
        ? ScalarField<Ptr<T>>
        : S extends "u64" | "s64"
          ? U64Field
          : S extends Scalar
            ? ScalarField<number>
            : S extends StructInfo<infer T>
              ? EmbeddedField<T>
              : S extends StructArray<infer T>
                ? StructArrayField<T>
                : never;

export interface StructInfo<T extends string> {
  /** The C tag: "page" of `struct page`. */
  readonly tag: T;
  readonly sizeof: number;
  readonly alignof: number;
  readonly layout: readonly FieldInfo[];
  /** Two realms agree on a struct if they agree on this. */
  readonly hash: number;
}
export type Struct<T extends string, F extends Specs> = StructInfo<T> & { readonly [K in keyof F]: FieldOf<F[K]> };

/** `length` structs one after another. */
export function array<T extends string>(element: StructInfo<T>, length: number): StructArray<T> {
  return { element, length };
}

/** Names that a struct has for itself. */
const RESERVED: readonly string[] = Object.freeze(["tag", "sizeof", "alignof", "layout", "hash"]);

/** Lays out a struct. `options.sizeof` is checked, `options.align` raises the alignment. */
export function struct<const T extends string, const F extends Specs>(
  tag: T,
  fields: F,
  options: { sizeof?: number; align?: number } = {},
): Struct<T, F> {
  const layout: FieldInfo[] = [];
  const accessors: Record<string, unknown> = {};
  let end = 0;
  let alignof = options.align ?? 1;
  for (const [name, spec] of Object.entries(fields)) {
    if (RESERVED.includes(name)) throw new Error(`struct ${tag}: a field cannot be called ${name}`);
    const { type, size, align, length } = measure(spec);
    const offset = align_up(end, align);
    layout.push({ name, type, offset, size: size * length });
    accessors[name] = accessor(spec, type, offset, size, length);
    end = offset + size * length;
    alignof = Math.max(alignof, align);
  }
  const sizeof = align_up(end, alignof);
  if (options.sizeof !== undefined && options.sizeof !== sizeof)
    throw new Error(`struct ${tag}: ${sizeof} bytes, declared as ${options.sizeof}`);
  const hash = hash_text(tag + layout.map((f) => `${f.name}:${f.type}@${f.offset}`).join());
  const made = { tag, sizeof, alignof, layout, hash, ...accessors } as unknown as Struct<T, F>;
  layouts.set(tag, made);
  return made;
}

// eslint-disable-next-line kheap/no-module-state -- code, not state: it grows only when a file loads
const layouts = new Map<string, StructInfo<string>>();

/** Every layout that loaded code has declared, by tag: what pahole knows. */
export function struct_layouts(): ReadonlyMap<string, StructInfo<string>> {
  return layouts;
}

/** Puts a tag back to what it was before a file was loaded: another layout, or none. */
export function restore_struct_layout(tag: string, before: StructInfo<string> | undefined): void {
  if (before) layouts.set(tag, before);
  else layouts.delete(tag);
}

const SCALAR_SIZE: Readonly<Record<string, number>> = Object.freeze({
  u8: 1,
  u16: 2,
  u32: 4,
  s32: 4,
  u64: 8,
  s64: 8,
  char: 1,
});

/** Type name, size and alignment of one element, and how many there are. */
function measure(spec: Spec): { type: string; size: number; align: number; length: number } {
  if (typeof spec === "object") {
    const element = "element" in spec ? spec.element : spec;
    const length = "element" in spec ? spec.length : 1;
    return { type: `struct ${element.tag}`, size: element.sizeof, align: element.alignof, length };
  }
  const match = /^(\*\w+|[us]\d+|char)(?:\[(\d+)\])?$/.exec(spec);
  const type = match?.[1] ?? "";
  const size = type.startsWith("*") ? 8 : SCALAR_SIZE[type];
  if (size === undefined) throw new Error(`no such field type: ${spec}`);
  return { type, size, align: size, length: match?.[2] === undefined ? 1 : Number(match[2]) };
}

function accessor(spec: Spec, type: string, offset: number, size: number, length: number): unknown {
  if (typeof spec === "object" && "element" in spec)
    return { offset, length, at: (ptr: Ptr, index: number): Ptr => ptr + offset + index * size };
  if (typeof spec === "object") return { offset, at: (ptr: Ptr): Ptr => ptr + offset };
  if (type === "char") return string_field(offset, length);
  if (spec.includes("[")) return array_field(type, offset, size, length);
  return scalar_field(type, offset);
}

function scalar_field(type: string, offset: number): ScalarField<number> {
  const at = (ptr: Ptr): Ptr => ptr + offset;
  if (type === "u8")
    return { offset, at, get: (ptr) => m8[ptr + offset]!, set: (ptr, value) => void (m8[ptr + offset] = value) };
  if (type === "u16")
    return {
      offset,
      at,
      get: (ptr) => m16[(ptr + offset) >> 1]!,
      set: (ptr, value) => void (m16[(ptr + offset) >> 1] = value),
    };
  if (type === "u32")
    return {
      offset,
      at,
      get: (ptr) => m32[(ptr + offset) >> 2]! >>> 0,
      set: (ptr, value) => void (m32[(ptr + offset) >> 2] = value),
    };
  if (type === "u64") return u64_field(offset);
  if (type === "s64") return { ...u64_field(offset), get: (ptr) => virt_of(m32[(ptr + offset) >> 2]!, m32[(ptr + offset + 4) >> 2]!) }; // prettier-ignore
  if (type === "s32")
    return {
      offset,
      at,
      get: (ptr) => m32[(ptr + offset) >> 2]!,
      set: (ptr, value) => void (m32[(ptr + offset) >> 2] = value),
    };
  return {
    offset,
    at,
    get: (ptr) => m32[(ptr + offset) >> 2]!,
    set: (ptr, value) => {
      m32[(ptr + offset) >> 2] = value;
      m32[(ptr + offset + 4) >> 2] = 0;
    },
  };
}

function u64_field(offset: number): U64Field {
  return {
    offset,
    at: (ptr) => ptr + offset,
    lo: (ptr) => m32[(ptr + offset) >> 2]! >>> 0,
    hi: (ptr) => m32[(ptr + offset + 4) >> 2]! >>> 0,
    get: (ptr) => (m32[(ptr + offset) >> 2]! >>> 0) + (m32[(ptr + offset + 4) >> 2]! >>> 0) * TWO_32,
    set: (ptr, value) => {
      m32[(ptr + offset) >> 2] = (value % TWO_32) | 0;
      m32[(ptr + offset + 4) >> 2] = Math.floor(value / TWO_32) | 0;
    },
  };
}

function string_field(offset: number, length: number): StringField {
  return {
    offset,
    at: (ptr) => ptr + offset,
    get: (ptr) => ram_read_string(ptr + offset, length),
    set: (ptr, value) => ram_write_string(ptr + offset, value, length),
  };
}

function array_field(type: string, offset: number, size: number, length: number): ArrayField<number> {
  const element = scalar_field(type, offset);
  return {
    offset,
    length,
    at: (ptr, index) => ptr + offset + index * size,
    get: (ptr, index) => element.get(ptr + index * size),
    set: (ptr, index, value) => element.set(ptr + index * size, value),
  };
}

/** FNV-1a: equal texts, equal numbers; used for layout hashes. */
export function hash_text(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
