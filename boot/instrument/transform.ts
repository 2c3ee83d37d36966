/**
 * Writes an instrument's calls into a file of the kernel as it is loaded: JavaScript in, JavaScript out.
 *
 *     const m = ram32;                      as it was
 *     m[a] = m[b];                          $st32(m, a, m[$ld32(b)]);
 *     m[a] += n;                            $st32(m, $t = a, m[$ld32($t)] + (n));
 *     function f(x) { … }                   function f(x) { const $f = $enter($n + 7); try { … } finally { $leave($f); } }
 *
 * The accesses are those a Proxy in the place of the views would see, in the same order. A file that lets a view out of
 * sight (hands it on, calls its methods, hides its name behind another) is refused with its line. What hal/ram.ts,
 * hal/atomic.ts and kernel/lib/spinlock.ts do is told as a whole, with a call of `on_NAME` and the arguments.
 *
 * Everything is written in place and no line is added, so a stack shows the lines of the source.
 */
import {
  parse, type AnyNode, type AssignmentExpression, type ExportNamedDeclaration, type Function as FunctionNode, type Identifier, type Literal,
  type MemberExpression, type Program, type UpdateExpression,
} from "acorn"; // prettier-ignore
import { ancestor, simple, type AncestorVisitors } from "acorn-walk";
import MagicString from "magic-string";

/** Bits of an element of each view of hal/ram.ts. */
const VIEWS: Readonly<Record<string, number>> = { ram8: 8, ram16: 16, ram32: 32 };

/** Files whose functions are told as a whole, and which. */
const OPERATIONS: Readonly<Record<string, readonly string[]>> = {
  "hal/ram.ts": [
    "ram_zero", "ram_fill", "ram_copy", "ram_read_string", "ram_write_string", "ram_write_bytes", "ram_read_bytes",
  ],
  "hal/atomic.ts": ["atomic_add_return", "atomic_add", "cmpxchg"],
  "kernel/lib/spinlock.ts": ["spin_lock", "spin_unlock"],
}; // prettier-ignore

/** Files that are never touched: the instruments themselves, what they import, and the way in from the host. */
const EXEMPT = /^(hal\/(host|addr|timing|timing_model|cache_model)|kernel\/entry)\.ts$/;

/** What a file of `path` (from the root, .ts) needs: nothing if it is none of the kernel's. */
export function is_instrumented(path: string): boolean {
  return /^(hal|kernel|mm)\/.*\.ts$/.test(path) && !path.endsWith(".d.ts") && !EXEMPT.test(path);
}

interface File {
  readonly path: string;
  readonly code: string;
  readonly out: MagicString;
  /** Exports of the instrument that the file calls, as $NAME. */
  readonly used: Set<string>;
  /** True if it needs a place to keep an index in. */
  keeps_index: boolean;
}

/**
 * Rewrites the code of `path`; `instrument` is the specifier under which it finds the instrument (hal/timing.ts). Without
 * `accesses` only functions and operations are told, for a realm that has other views of RAM.
 */
export function transform(code: string, path: string, instrument: string, accesses = true): MagicString {
  const program = parse(code, {
    ecmaVersion: "latest",
    sourceType: "module",
    preserveParens: true,
    allowHashBang: true,
  });
  const out = new MagicString(code);
  const file: File = { path, code, out, used: new Set(), keeps_index: false };
  let names: string[] = [];
  const operations = OPERATIONS[path];
  if (operations) tell_operations(file, program, operations);
  else {
    if (accesses) rewrite_accesses(file, program);
    if (/^(mm|kernel\/(?!lib\/))/.test(path)) names = enter_functions(file, program);
  }
  if (file.used.size === 0) return out;
  const numbered = names.length > 0 ? `const $n=${call(file, "define_functions", JSON.stringify(path), JSON.stringify(names))};` : ""; // prettier-ignore
  const imports = [...file.used].map((name) => `${name} as $${name}`).join();
  return out.prepend(`import{${imports}}from"${instrument}";${numbered}${file.keeps_index ? "let $t;" : ""}`);
}

/** A call of the instrument. */
function call(file: File, name: string, ...args: readonly string[]): string {
  file.used.add(name);
  return `$${name}(${args.join()})`;
}

/** Ends the load with the place and what is wrong there. */
function refuse(file: File, node: { start: number }, what: string): never {
  const line = file.code.slice(0, node.start).split("\n").length;
  throw new Error(`${file.path}:${line}: ${what}`);
}

/** Writes `on_NAME(arguments)` at the beginning of functions. */
function tell_operations(file: File, program: Program, operations: readonly string[]): void {
  simple(program, {
    FunctionDeclaration(node) {
      if (!operations.includes(node.id!.name)) return;
      const args = node.params.map((param) => (param as Identifier).name);
      file.out.appendLeft(node.body.start + 1, `${call(file, `on_${node.id!.name}`, ...args)};`);
    },
  });
}

// ---- accesses

/** Writes the calls at every element of a view that is read or written. */
function rewrite_accesses(file: File, program: Program): void {
  const { views, aliases } = find_views(file, program);
  if (views.size === 0) return;
  ancestor(program, {
    Identifier(node: Identifier, _state: unknown, path: AnyNode[]) {
      const bits = views.get(node.name);
      const parent = path.at(-2)!;
      if (bits === undefined || aliases.has(parent)) return;
      if (parent.type !== "MemberExpression" || parent.object !== node || !parent.computed || parent.optional)
        refuse(
          file,
          node,
          `${node.name} is a view of RAM, of which only elements may be used here; hal/ram.ts has the rest`,
        );
      rewrite_access(file, parent, path.at(-3)!, bits);
    },
    VariablePattern(node: Identifier, _state: unknown, path: AnyNode[]) {
      if (views.has(node.name) && !aliases.has(path.at(-2)!))
        refuse(file, node, `${node.name} is a view of RAM in this file; call this something else`);
    },
    ExportNamedDeclaration({ specifiers }: ExportNamedDeclaration) {
      for (const { local } of specifiers)
        if (local.type === "Identifier" && views.has(local.name)) refuse(file, local, "a view of RAM is exported");
    },
  } as AncestorVisitors<unknown>);
}

/** The views that a file knows by name, with the bits of an element: imported ones, and constants made of them. */
function find_views(file: File, program: Program): { views: Map<string, number>; aliases: Set<AnyNode> } {
  const views = new Map<string, number>();
  const aliases = new Set<AnyNode>();
  for (const node of program.body) {
    if (node.type === "ImportDeclaration" && /(^|\/)ram\.[tj]s$/.test(String(node.source.value)))
      for (const part of node.specifiers) {
        if (part.type !== "ImportSpecifier") refuse(file, part, "import what you use of hal/ram.ts by name");
        const bits = VIEWS[(part.imported as Identifier).name];
        if (bits !== undefined) views.set(part.local.name, bits);
      }
    if (node.type === "VariableDeclaration" && node.kind === "const")
      for (const declarator of node.declarations) {
        const { id, init } = declarator;
        const bits = init?.type === "Identifier" ? views.get(init.name) : undefined;
        if (bits === undefined || id.type !== "Identifier") continue;
        views.set(id.name, bits);
        aliases.add(declarator);
      }
  }
  return { views, aliases };
}

const COMPOUND = /^(\+|-|\*|\*\*|\/|%|<<|>>|>>>|&|\||\^)=$/;

/** One element: `node` is `m[i]`, `parent` what it stands in. */
function rewrite_access(file: File, node: MemberExpression, parent: AnyNode, bits: number): void {
  const { out, code } = file;
  const { object, property: index } = node;
  const load = (argument: string): string => call(file, `ld${bits}`, argument);
  if (is_target(node, parent)) refuse(file, node, "an element of RAM as the target of a pattern; write assignments");
  if (!is_stored(node, parent)) {
    out.prependRight(index.start, load("").slice(0, -1));
    out.appendLeft(index.end, ")");
    return;
  }
  const store = call(file, `st${bits}`).slice(0, -1);
  const simple_store = parent.type === "AssignmentExpression" && parent.operator === "=";
  file.keeps_index ||= !simple_store;
  const loaded = simple_store ? "" : `${code.slice(object.start, object.end)}[${load("$t")}]`;
  if (parent.type === "UpdateExpression") {
    const sign = parent.operator[0]!;
    if (parent.prefix) out.remove(parent.start, object.start);
    out.prependRight(object.start, parent.prefix ? store : `(${store}`);
    replace(file, object.end, index.start, ",$t=");
    replace(file, index.end, parent.end, `,${loaded}${sign}1)${parent.prefix ? "" : `${sign === "+" ? "-" : "+"}1)`}`);
    return;
  }
  const { operator, right } = parent;
  if (!simple_store && !COMPOUND.test(operator)) refuse(file, parent, `${operator} on an element of RAM; write an if`);
  out.prependRight(object.start, store);
  replace(file, object.end, index.start, simple_store ? "," : ",$t=");
  replace(file, index.end, right.start, simple_store ? "," : `,${loaded}${operator.slice(0, -1)}(`);
  out.appendLeft(parent.end, simple_store ? ")" : "))");
}

/** Puts `text` in the place of punctuation, and keeps its line ends. */
function replace({ out, code }: File, start: number, end: number, text: string): void {
  out.update(start, end, text + code.slice(start, end).replace(/[^\n]/g, ""));
}

/** True if an element is written by an assignment or an update. */
function is_stored(node: AnyNode, parent: AnyNode): parent is AssignmentExpression | UpdateExpression {
  return parent.type === "UpdateExpression" || (parent.type === "AssignmentExpression" && parent.left === node);
}

/** True if an element is written, or deleted, in another way. */
function is_target(node: AnyNode, parent: AnyNode): boolean {
  if (parent.type === "UnaryExpression") return parent.operator === "delete";
  if (/^(AssignmentPattern|For(Of|In)Statement)$/.test(parent.type))
    return (parent as { left?: AnyNode }).left === node;
  return /^(ArrayPattern|ObjectPattern|RestElement)$/.test(parent.type);
}

// ---- functions

/**
 * Makes every function enter and leave; returns the names of those of mm/, by number. Generators are left out: what they
 * do, between two steps of whoever walks them, is his.
 */
function enter_functions(file: File, program: Program): string[] {
  const names: string[] = [];
  const in_mm = file.path.startsWith("mm/");
  ancestor(program, {
    Function(node, _state, path) {
      const name = name_of(path);
      if (node.generator || node.async || name === KEEP_NAMES) return;
      const enter = in_mm ? call(file, "enter", `$n+${names.push(name) - 1}`) : call(file, "enter_kernel");
      const [first, last] = [`const $f=${enter};try{`, `}finally{${call(file, "leave", "$f")}}`];
      const { body } = node;
      if (body.type !== "BlockStatement") {
        file.out.prependRight(body.start, `{${first}return `);
        file.out.appendLeft(body.end, `${last}}`);
      } else if (body.body.length === 0) file.out.appendLeft(body.start + 1, `${first}${last}`);
      else {
        file.out.prependRight(body.start + 1, first);
        file.out.appendLeft(body.end - 1, last);
      }
    },
  });
  return names;
}

/** What esbuild calls its helper that gives functions their names back: `__name(() => {…}, "f")`. */
const KEEP_NAMES = "__name";

/** The name of the function that `path` ends with: its own, that of what it is assigned to, or its place in another. */
function name_of(path: readonly AnyNode[]): string {
  const node = path.at(-1) as FunctionNode;
  if (node.id) return node.id.name;
  const above = path.slice(0, -1);
  while (above.at(-1)?.type === "ParenthesizedExpression") above.pop();
  const parent = above.at(-1);
  if (parent?.type === "CallExpression" && (parent.callee as Identifier).name === KEEP_NAMES)
    return String((parent.arguments[1] as Literal).value);
  if (parent?.type === "VariableDeclarator" && parent.id.type === "Identifier") return parent.id.name;
  if (parent?.type === "Property" || parent?.type === "MethodDefinition")
    return parent.key.type === "Identifier" ? parent.key.name : String((parent.key as Literal).value);
  const outer = above.findLastIndex((other) => /Function/.test(other.type));
  return outer < 0 ? "<anonymous>" : `${name_of(above.slice(0, outer + 1))}.<anonymous>`;
}
