/**
 * ESLint (flat config). What it checks beyond types: names, file size, no state and no host in
 * hal, mm and kernel (section 2 and 3), hot paths (section 6). Own rules are in eslint-rules/; layers are checked by
 * dependency-cruiser, form by prettier. Only boot/ and test/ pay for a type-aware rule (a forgotten await).
 *
 * Lists of `no-restricted-*` do not merge between blocks: the last block that matches a file states all of them.
 */
import { fileURLToPath } from "node:url";
import tseslint from "typescript-eslint";
import { kheap_rules } from "./eslint-rules/index.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const kernel_side = ["hal/**/*.ts", "mm/**/*.ts", "kernel/**/*.ts"];
const host_side = ["hal/host.ts", "boot/**", "test/**", "labs/**", "examples/**"];
const atomics_at_home = ["hal/atomic.ts", "kernel/lib/spinlock.ts"];

// Names: anything but camelCase. Upper case and Pascal case are Linux's macros (BUG_ON, PageSlab), constants and struct
// layouts; PG_locked and its like are Linux's too.
const any_const = ["snake_case", "UPPER_CASE", "PascalCase"];
const underscores = { leadingUnderscore: "allowSingleOrDouble", trailingUnderscore: "allow" };
const linux_mixed = { regex: "^_*[A-Z][A-Z0-9]*(_[A-Za-z0-9]+)+$", match: true };
const foreign_methods = {
  regex:
    "^(to(String|JSON)|valueOf|ownKeys|(get|set)PrototypeOf|isExtensible|preventExtensions|(define|delete)Property|getOwnPropertyDescriptor)$",
  match: true,
};
const names = [
  { selector: "default", format: ["snake_case"], ...underscores },
  { selector: "import", format: null },
  { selector: ["variable", "function", "objectLiteralProperty", "enumMember"], format: null, filter: linux_mixed },
  { selector: ["variable", "function"], modifiers: ["destructured"], format: null },
  { selector: "variable", format: ["snake_case"], ...underscores },
  { selector: "variable", modifiers: ["const"], format: any_const, ...underscores },
  { selector: "function", format: any_const, ...underscores },
  { selector: "parameter", format: ["snake_case", "PascalCase"], ...underscores },
  { selector: "property", format: any_const, ...underscores },
  { selector: ["property", "method", "accessor"], modifiers: ["requiresQuotes"], format: null },
  { selector: ["property", "method", "accessor"], format: null, filter: foreign_methods },
  { selector: "typeLike", format: ["PascalCase"], ...underscores },
];
const foreign_shapes = { selector: ["objectLiteralProperty", "typeProperty", "objectLiteralMethod"], format: null };

const host_globals = [
  ..."process console Date performance global Buffer navigator fetch crypto queueMicrotask".split(" "),
  ..."setTimeout setInterval setImmediate clearTimeout clearInterval clearImmediate structuredClone".split(" "),
].map((name) => ({ name, message: "The host is reached through hal/host.ts only." }));
const bigints = ["BigInt", "BigInt64Array", "BigUint64Array"].map((name) => ({
  name,
  message: "No BigInt: read 64-bit values as lo and hi.",
}));
const atomics = { name: "Atomics", message: "Atomics are used in hal/atomic.ts and kernel/lib/spinlock.ts only." };

const js_paths = { regex: "^\\.{1,2}/.*(?<!\\.(ts|mjs|cjs|json))$", message: 'Name the file: import … from "./y.ts".' };
const node_modules = { regex: "^node:", message: "node:* only in hal/host.ts, boot/ and test/." };

const re_export = (selector) => ({ selector, message: "No barrels: import from the file that defines it." });
const barrels = [re_export("ExportAllDeclaration"), re_export("ExportNamedDeclaration[source]")];
const bigint_literal = { selector: "Literal[bigint]", message: "No BigInt: read 64-bit values as lo and hi." };

export default tseslint.config(
  { ignores: ["**/node_modules/**", "dist/**", "coverage/**"] },
  {
    files: ["**/*.{ts,mjs,cjs}"],
    linterOptions: { reportUnusedDisableDirectives: "error" },
    plugins: { kheap: { rules: kheap_rules } },
    rules: {
      "kheap/disable-needs-reason": "error",
      "max-lines": ["error", { max: 600, skipBlankLines: true, skipComments: true }],
      eqeqeq: "error",
      "no-debugger": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommended],
    rules: {
      "@typescript-eslint/naming-convention": ["error", ...names],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-restricted-imports": ["error", { patterns: [js_paths] }],
      "no-restricted-syntax": ["error", ...barrels],
    },
  },
  {
    files: host_side,
    ignores: ["**/*.mjs", "**/*.cjs"],
    rules: { "@typescript-eslint/naming-convention": ["error", ...names, foreign_shapes] },
  },
  { files: ["boot/**/*.ts"], rules: { "no-restricted-globals": ["error", atomics] } },
  {
    files: ["boot/**/*.ts", "test/**/*.ts"],
    ignores: ["**/*.d.ts"],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: root } },
    rules: { "@typescript-eslint/no-floating-promises": "error" },
  },
  {
    files: kernel_side,
    rules: {
      "kheap/no-module-state": "error",
      "kheap/hot-path-binds-imports": "error",
      "kheap/hot-path-no-garbage": "error",
      "no-restricted-globals": ["error", ...host_globals, ...bigints, atomics],
      "no-restricted-imports": ["error", { patterns: [js_paths, node_modules] }],
      "no-restricted-properties": ["error", { object: "Math", property: "random", message: "Use the seeded PRNG." }],
      "no-restricted-syntax": ["error", ...barrels, bigint_literal],
    },
  },
  { files: atomics_at_home, rules: { "no-restricted-globals": ["error", ...host_globals, ...bigints] } },
  {
    files: ["hal/host.ts"],
    rules: {
      "no-restricted-globals": ["error", ...bigints, atomics],
      "no-restricted-imports": ["error", { patterns: [js_paths] }],
      "no-restricted-properties": "off",
    },
  },
  // What others import: the headers of modules, and the package.
  { files: ["kernel/include/**/*.ts", "boot/index.ts"], rules: { "no-restricted-syntax": ["error", bigint_literal] } },
);
