/** The documents: what they show is what happens. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { console_run } from "./boot/run.ts";

const folder = mkdtempSync(join(tmpdir(), "kheap-"));
afterAll(() => rmSync(folder, { recursive: true }));

const text = readFileSync(fileURLToPath(new URL("../docs/first-module.md", import.meta.url)), "utf8");
const block = (language: string, n = 0): string =>
  [...text.matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, "g"))][n]![1]!;

/** Writes counter.ts, with some text of it replaced. */
function counter(from = "", to = ""): string {
  const file = join(folder, "counter.ts");
  expect(block("ts")).toContain(from);
  writeFileSync(file, block("ts").replace(from, to));
  return file;
}

describe("Your first module", () => {
  it("fits on a screen and a half, with at most six commands", () => {
    expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(60);
    expect(text.match(/^kheap# /gm)!.length).toBeLessThanOrEqual(6);
  });

  it("shows what the console prints", async () => {
    const file = counter();
    const session = block("kheap").split(/^kheap# /m).slice(1); // prettier-ignore
    const lines = session.map((part) => part.split("\n")[0]!.replace("./counter.ts", file));
    const { out } = await console_run(lines);
    expect(out).toBe(session.map((part) => part.replace(/^.*\n/, "")).join(""));
  });

  it("mends the module as it says", async () => {
    const file = counter("  kmem_cache_destroy(my.cache);\n", `${block("ts", 1)}  kmem_cache_destroy(my.cache);\n`);
    expect(await console_run([`insmod ${file}`, "rmmod counter"])).toEqual({ out: "", err: "", failed: false });
  });

  it("shows what the commonest slips are answered with", async () => {
    const slips: [from: string, to: string, args: string][] = [
      ["const count", "let total = 0;\nconst count", ""],
      ["", "", "cuont=3"],
      ["kmem_cache_alloc, ", "kmem_cache_aloc, ", ""],
    ];
    const said: string[] = [];
    for (const [from, to, args] of slips) said.push((await console_run([`insmod ${counter(from, to)} ${args}`])).err);
    expect(said.join("")).toBe(block("text"));
  });
});
