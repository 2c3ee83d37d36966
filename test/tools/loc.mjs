/**
 * `npm run loc`: code lines a folder against its budget, then the student's reading path.
 * A code line is one on which a token stands: blank lines and comments do not count. Fails over budget.
 * With file names as arguments it counts these files only.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

process.chdir(fileURLToPath(new URL("../..", import.meta.url)));

const product = { hal: 2800, "kernel/lib": 1000, mm: 15000, kernel: 12000, boot: 12000 };
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const budget = { ...product, test: sum(Object.values(product)), labs: Infinity, examples: Infinity };
const path_files = ["kmalloc", "slab_common", "slub", "pcp", "page_alloc", "zone", "page"].map((f) => `mm/${f}.ts`);
const reading_path = [...path_files, "hal/ram.ts"];
const reading_path_budget = 2200;

function code_lines(file) {
  const source = ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest);
  const lines = new Set();
  const line_at = (position) => source.getLineAndCharacterOfPosition(position).line;
  const visit = (node) => {
    if (ts.isJSDoc(node)) return;
    const children = node.getChildren(source);
    if (children.length) return children.forEach(visit);
    if (node.getEnd() === node.getStart(source)) return;
    for (let line = line_at(node.getStart(source)); line <= line_at(node.getEnd()); line++) lines.add(line);
  };
  visit(source);
  return lines.size;
}

function source_files(folder) {
  if (!existsSync(folder)) return [];
  const inside = (name) => join(folder, name).replaceAll("\\", "/");
  return readdirSync(folder, { recursive: true })
    .map(inside)
    .filter((file) => /\.(ts|mjs|cjs)$/.test(file) && !/(^|\/)node_modules\//.test(file))
    .filter((file) => folder !== "kernel" || !file.startsWith("kernel/lib/"));
}

let over = false;
function row(name, count, limit) {
  const verdict = count > limit ? "  OVER BUDGET" : "";
  if (verdict) over = true;
  const of = Number.isFinite(limit) ? ` of ${String(limit).padStart(6)}` : "";
  console.log(`  ${name.padEnd(20)} ${String(count).padStart(6)}${of}${verdict}`);
}

const asked = process.argv.slice(2);
if (asked.length) {
  for (const file of asked) row(file, code_lines(file), Infinity);
} else {
  console.log("code lines");
  for (const [folder, limit] of Object.entries(budget)) {
    const files = source_files(folder);
    if (files.length) row(folder, sum(files.map(code_lines)), limit);
  }
  console.log("reading path");
  const counts = reading_path.filter(existsSync).map((file) => [file, code_lines(file)]);
  for (const [file, count] of counts) row(file, count, Infinity);
  row("total", sum(counts.map(([, count]) => count)), reading_path_budget);
}
process.exitCode = over ? 1 : 0;
