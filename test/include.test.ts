/** The headers of modules and the package: whatever they export says what it is. */
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { expect, it } from "vitest";
import { header_names } from "../boot/modules/headers.ts";

const folder = fileURLToPath(new URL("../kernel/include/linux/", import.meta.url));
const index = fileURLToPath(new URL("../boot/index.ts", import.meta.url));
const files = readdirSync(folder).filter((file) => file.endsWith(".ts"));

/** Names that speak for themselves: codes, flags and levels that Linux has under the same name. */
const PLAIN = /^(E[A-Z0-9]+|(__)?GFP_\w+|SLAB_\w+|KERN_\w+|O_\w+|FMODE_\w+|NOTIFY_\w+|(RUN|SLEEP|EXIT)|\w+Ptr)$/;

it("every header is one that modules find", () => {
  expect(files.map((file) => `kheap/linux/${file.slice(0, -3)}`).sort()).toEqual(header_names().sort());
});

it("every export has a docstring", { timeout: 120_000 }, () => {
  const program = ts.createProgram([...files.map((file) => folder + file), index], {
    allowImportingTsExtensions: true, module: ts.ModuleKind.NodeNext, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, types: ["node"],
  }); // prettier-ignore
  const checker = program.getTypeChecker();
  const bare: string[] = [];
  for (const file of [...files.map((name) => folder + name), index]) {
    const source = checker.getSymbolAtLocation(program.getSourceFile(file)!);
    for (const symbol of checker.getExportsOfModule(source!)) {
      const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
      const text = ts.displayPartsToString(target.getDocumentationComment(checker));
      if (text === "" && !PLAIN.test(symbol.name)) bare.push(`${file.replace(/^.*\//, "")}: ${symbol.name}`);
    }
  }
  expect(bare).toEqual([]);
});
