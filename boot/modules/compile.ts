/**
 * From the text of a module's file to a function that is its top level.
 *
 *     types taken out           in place: every line and column stays where it was
 *     imports                   import { kmalloc as k } from "kheap/linux/slab"   ->   const {kmalloc:k} = $import("…");
 *     calls                     f(a, b)   ->   f(a, $at(12, b))      what the call takes is booked to line 12
 *
 * What a module may not do is refused with its line: state outside of RAM, imports from anywhere but the headers. The
 * function is compiled under the URL of the file, so that stacks and debuggers
 * show the source.
 */
import { compileFunction } from "node:vm";
import { transformSync } from "@swc/wasm-typescript";
import { parse, type AnyNode, type CallExpression, type Declaration, type ImportDeclaration, type NewExpression, type Program, type VariableDeclaration } from "acorn"; // prettier-ignore
import { simple } from "acorn-walk";
import MagicString from "magic-string";
import { MODULE_QUERY } from "../../kernel/lib/dump_stack.ts";

/** What a file that cannot be a module says: `ring.ts:12: …`. */
export class CompileError extends Error {
  override name = "CompileError";
}

export interface Compiled {
  /** The module's top level. `$import` gives a header, `$at` notes a line and gives its second argument back. */
  readonly run: (
    $import: (header: string, line: number, names: readonly string[]) => object,
    $at: (line: number, value: unknown) => unknown,
  ) => void;
  /** Symbols that it asks for by a literal, with their lines. */
  readonly wanted: readonly { readonly name: string; readonly line: number }[];
  /** Symbols that it exports. */
  readonly exported: readonly string[];
}

/** Compiles the text of a file; `url` is where it lies, `module` its name. Throws CompileError. */
export function compile_module(text: string, file: string, url: string, module: string): Compiled {
  const code = strip_types(text, file);
  const program = parse_program(code, file);
  const source: Source = { file, code, out: new MagicString(code), wanted: [], exported: [] };
  for (const node of program.body) check_statement(source, node);
  note_calls(source, program);
  const { out, wanted, exported } = source;
  out.prepend('"use strict";');
  const run = compileFunction(out.toString(), ["$import", "$at"], { filename: url + MODULE_QUERY + module });
  return { run: run as Compiled["run"], wanted, exported };
}

interface Source {
  readonly file: string;
  readonly code: string;
  readonly out: MagicString;
  readonly wanted: { name: string; line: number }[];
  readonly exported: string[];
}

const line_of = (source: Source, node: { start: number }): number =>
  source.code.slice(0, node.start).split("\n").length;

function refuse(source: Source, node: { start: number }, what: string): never {
  throw new CompileError(`${source.file}:${line_of(source, node)}: ${what}`);
}

/** What the type stripper says of what it cannot strip or read. */
interface SwcError {
  readonly code?: string;
  readonly message?: string;
  readonly startLine?: number;
}

function strip_types(text: string, file: string): string {
  try {
    return transformSync(text, { mode: "strip-only", filename: file }).code;
  } catch (error) {
    const { message = String(error), startLine } = error as SwcError;
    throw new CompileError(`${file}:${startLine ?? 1}: ${message}`);
  }
}

function parse_program(code: string, file: string): Program {
  try {
    return parse(code, { ecmaVersion: "latest", sourceType: "module", locations: false });
  } catch (error) {
    const { message, loc } = error as SyntaxError & { loc?: { line: number } };
    throw new CompileError(`${file}:${loc?.line ?? 1}: ${message.replace(/ \(\d+:\d+\)$/, "")}`);
  }
}

/* What may stand at the top level ----------------------------------------------------------------------------------- */

function check_statement(source: Source, node: Program["body"][number] | Declaration): void {
  switch (node.type) {
    case "ImportDeclaration":
      return rewrite_import(source, node);
    case "ExportNamedDeclaration":
      if (node.source) refuse(source, node, "a module exports nothing of others");
      // The word is for the types of other modules; what the kernel knows of is EXPORT_SYMBOL.
      source.out.remove(node.start, node.declaration?.start ?? node.end);
      return node.declaration ? check_statement(source, node.declaration) : undefined;
    case "ExportDefaultDeclaration":
    case "ExportAllDeclaration":
      return refuse(source, node, "a module has no default export: EXPORT_SYMBOL(f) offers f, and symbol_get takes it");
    case "VariableDeclaration":
      return check_variables(source, node);
    case "ClassDeclaration": {
      const field = node.body.body.find((part) => part.type === "PropertyDefinition" && part.static);
      if (field) refuse(source, field, "a static field is state outside of RAM: keep it in static_data(…)");
    }
  }
}

const CONTAINERS = /^(Map|Set|WeakMap|WeakSet|Array|Object|(Int|Uint|BigInt|BigUint|Float)\d+(Clamped)?Array)$/;

/** A module's state lies in RAM, or rmmod, a second CPU and a snapshot would not see it. */
function check_variables(source: Source, { kind, declarations }: VariableDeclaration): void {
  const instead = 'keep it in RAM, e.g. const my = static_data("my", { count: "u32" }); … my.count = my.count + 1';
  for (const { id, init } of declarations) {
    const name = id.type === "Identifier" ? id.name : "…";
    if (kind !== "const") refuse(source, id, `module-level "${kind} ${name}" is state outside of RAM: ${instead}`);
    const what = container(init);
    if (what !== undefined)
      refuse(source, id, `module-level ${what} "${name}" is state outside of RAM: ${instead}; a constant table is Object.freeze(…)`); // prettier-ignore
  }
}

/** What changeable thing an expression makes, in words. */
function container(init: AnyNode | null | undefined): string | undefined {
  if (init?.type === "ArrayExpression") return "array";
  if (init?.type === "ObjectExpression") return init.properties.some(is_function) ? undefined : "object";
  const is_new = init?.type === "NewExpression" && init.callee.type === "Identifier";
  return is_new && CONTAINERS.test((init.callee as { name: string }).name) ? (init.callee as { name: string }).name : undefined; // prettier-ignore
}

/** A record of functions (file operations) is code. */
function is_function(property: AnyNode): boolean {
  if (property.type !== "Property") return false;
  return (
    property.shorthand || property.value.type === "Identifier" || property.value.type.endsWith("FunctionExpression")
  );
}

function rewrite_import(source: Source, node: ImportDeclaration): void {
  const from = String(node.source.value);
  if (!from.startsWith("kheap/"))
    refuse(source, node, `a module imports from "kheap/linux/…" only, not from "${from}"; what another module exports is symbol_get<typeof f>("f")`); // prettier-ignore
  const names: string[] = [];
  let whole: string | undefined;
  for (const part of node.specifiers) {
    if (part.type === "ImportDefaultSpecifier")
      refuse(source, part, `"${from}" has no default export: import { … } from it`);
    if (part.type === "ImportNamespaceSpecifier") whole = part.local.name;
    else {
      const imported = part.imported.type === "Identifier" ? part.imported.name : JSON.stringify(part.imported.value);
      names.push(imported === part.local.name ? imported : `${imported}:${part.local.name}`);
    }
  }
  const line = line_of(source, node);
  const lines = source.code.slice(node.start, node.end).split("\n").length - 1;
  const call = `$import(${JSON.stringify(from)},${line},${JSON.stringify(names.map((name) => name.split(":")[0]))})`;
  const text = names.length > 0 ? `const {${names.join()}}=${call};` : whole ? `const ${whole}=${call};` : "";
  source.out.overwrite(node.start, node.end, text + "\n".repeat(lines));
}

/* Calls --------------------------------------------------------------------------------------------------------------- */

function note_calls(source: Source, program: Program): void {
  const note = (node: CallExpression | NewExpression): void => {
    const line = line_of(source, node);
    const last = node.arguments.at(-1);
    note_symbols(source, node, line);
    if (last) {
      const inner = last.type === "SpreadElement" ? last.argument : last;
      source.out.prependRight(inner.start, `$at(${line},`);
      source.out.appendLeft(inner.end, ")");
    } else if (node.type === "CallExpression" && node.callee.type === "Identifier") {
      source.out.prependRight(node.callee.start, `($at(${line}),`);
      source.out.appendLeft(node.callee.end, ")");
    }
  };
  simple(program, {
    CallExpression: note,
    NewExpression: note,
    ImportExpression: (node) => refuse(source, node, "a module imports at its top, nothing later"),
  });
}

function note_symbols(source: Source, node: CallExpression | NewExpression, line: number): void {
  const [first, second] = node.arguments;
  if (node.callee.type !== "Identifier") return;
  const literal = (arg: typeof first): string | undefined =>
    arg?.type === "Literal" && typeof arg.value === "string" ? arg.value : undefined;
  const name = literal(first);
  if (node.callee.name === "symbol_get" && name !== undefined) source.wanted.push({ name, line });
  const exported = literal(second) ?? (first?.type === "Identifier" ? first.name : undefined);
  if (node.callee.name === "EXPORT_SYMBOL" && exported !== undefined) source.exported.push(exported);
}
