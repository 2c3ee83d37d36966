/** The project's own ESLint rules, each with code that it accepts and code that it refuses. */
import { RuleTester } from "eslint";
import tseslint from "typescript-eslint";
import { describe, it } from "vitest";
import { kheap_rules } from "./eslint-rules/index.mjs";

RuleTester.describe = describe;
RuleTester.it = it;
const tester = new RuleTester({ languageOptions: { parser: tseslint.parser as never } });
const imports = `import { ram32, Page, slow_path, type PagePtr } from "./x.ts";\n`;
const hot = (body: string) => `${imports}const m = ram32;\n/** Hot path. */\nexport function f(p: PagePtr) { ${body} }`;

tester.run("no-module-state", kheap_rules["no-module-state"], {
  valid: [
    "const x = 1; function f() { let y = 0; const z = []; y++; return z; }",
    "const sizes = [8, 16] as const; const names: readonly string[] = ['a'];",
    "const table: ReadonlyMap<number, string> = new Map([[1, 'a']]); const limits = Object.freeze({ a: 1 });",
    "export const slub: SlabOps = { name: 'slub', create, alloc: () => 0 };",
    "const m = new Int32Array(ram.buffer); class Stop extends Error { static readonly code = 1; }",
  ],
  invalid: [
    { code: "let count = 0;", errors: [{ messageId: "variable" }] },
    { code: "export var count = 0;", errors: [{ messageId: "variable" }] },
    { code: "const caches = new Map<string, number>();", errors: [{ messageId: "container" }] },
    { code: "export const list: number[] = [];", errors: [{ messageId: "container" }] },
    { code: "const state = {} as State, stats = { hits: 0 };", errors: 2 },
    { code: "const a = new Array(4), b = Array.from(c), d = new Int32Array(8);", errors: 3 },
    { code: "class Zone { static count = 0; }", errors: [{ messageId: "static" }] },
  ],
});

tester.run("hot-path-binds-imports", kheap_rules["hot-path-binds-imports"], {
  valid: [
    hot("return m[p >> 2] + slow_path(p);"),
    hot("const q: PagePtr = p; let v: typeof Page; return q;"),
    `${imports}/** A slow path. */\nfunction f() { return ram32[Page.next.word]; }`,
    `${imports}/** Hot path. */\nconst f = (ram32: number) => ram32;`,
  ],
  invalid: [
    { code: hot("return ram32[p >> 2];"), errors: [{ messageId: "bind", data: { name: "ram32" } }] },
    { code: hot("if (p) { const n = Page.next; return slow_path(Page); }"), errors: 2 },
    { code: `${imports}/**\n * Returns it.\n * Hot path.\n */\nconst f = () => ram32[0];`, errors: 1 },
    { code: `import * as x from "./x.ts";\n/** Hot path. */\nfunction f() { return x.g(); }`, errors: 1 },
  ],
});

tester.run("hot-path-no-garbage", kheap_rules["hot-path-no-garbage"], {
  valid: [
    hot("for (let i = 0; i < 4; i++) m[i] = 0; return p;"),
    "/** Builds a table. */\nfunction f() { return [1].map((x) => ({ x })); }",
    "/** Hot path. */\nfunction f() {}\nfunction g() { return [new Map(), `x`]; }",
  ],
  invalid: [
    { code: hot("return [p];"), errors: [{ messageId: "garbage", data: { what: "an array literal" } }] },
    { code: hot("return { p };"), errors: 1 },
    { code: hot("return () => p;"), errors: 1 },
    { code: hot("try { return `${p}`; } catch { return new Error(); }"), errors: 3 },
    { code: hot("const [a] = m; for (const x of m) slow_path(...x); return m.subarray(a);"), errors: 4 },
    { code: "const ops = {\n  /** Hot path. */\n  f(...all) { function g() {} },\n};", errors: 2 },
  ],
});

tester.run("disable-needs-reason", kheap_rules["disable-needs-reason"], {
  valid: ["// eslint-disable-next-line no-var -- set before the kernel loads\nvar x;"],
  invalid: [{ code: "// eslint-disable-next-line no-var\nvar x;", errors: [{ messageId: "reason" }] }],
});
