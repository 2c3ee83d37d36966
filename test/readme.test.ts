/**
 * The README is true: its programs are the files of examples/ and run, and its console blocks come out byte for byte.
 * In a block marked `kheap`, a line `kheap# CMD` is typed and what follows is the answer, on seed 1.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(`${root}README.md`, "utf8");
const blocks = [...readme.matchAll(/^```(\w+)[^\n]*\n([\s\S]*?)^```$/gm)].map(([, kind, text]) => ({
  kind,
  text: text!,
}));
const run = (...args: string[]): string =>
  execFileSync(process.execPath, ["--import", "tsx", ...args], { cwd: root, encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } }); // prettier-ignore

it("has at most 200 lines", () => {
  expect(readme.split("\n").length - 1).toBeLessThanOrEqual(200);
});

it("shows the two calls of every slab text in its first program", () => {
  const first = blocks.find(({ kind }) => kind === "ts")!.text;
  expect(first).toContain('KMEM_CACHE("my_object_cache", my_struct, SLAB_PANIC)');
  expect(first).toContain('kmem_cache_create("my_object_cache", my_struct.sizeof, 0, SLAB_PANIC, NULL)');
});

it("shows the screen that npm start gives", () => {
  const shown = blocks.find(({ kind }) => kind === "screen")!.text;
  expect(run("test/lib/print_screen.ts")).toBe(shown);
});

it("counts the lines of the reading path as npm run loc does", () => {
  const counted = run("test/tools/loc.mjs");
  const rows = [...readme.matchAll(/^\| `(\S+\.ts)` \| (\d+) \|/gm)];
  expect(rows.length).toBe(8);
  for (const [, file, lines] of rows) expect(counted).toMatch(new RegExp(`^  ${file!} +${lines!}$`, "m"));
});

for (const [i, example] of ["two_calls", "listener"].entries())
  it(`its program ${i + 1} is examples/${example}.ts, and runs`, () => {
    const text = blocks.filter(({ kind }) => kind === "ts")[i]!.text;
    expect(text).toBe(readFileSync(`${root}examples/${example}.ts`, "utf8"));
    const output = run(`examples/${example}.ts`);
    if (example === "two_calls") {
      const [one, two, ...rest] = output.trim().split("\n");
      expect([two, rest]).toEqual([one, []]);
      expect(one).toMatch(/^my_object_cache 304 26$/);
    } else {
      expect(output).toMatch(/^task_struct: a new slab at ffff8880[0-9a-f]{8}$/m);
      expect(output).toContain("{ pages: 0, objects: 0, locks: 0, details: [] }");
    }
  });

it("its module's line runs, and the tests in the kernel pass", () => {
  const [, line] = /^npm start -- --quiet --exec "(insmod .*)"$/m.exec(readme)!;
  const output = run("boot/main.ts", "--quiet", "--exec", line!); // throws unless it ends with status 0
  expect(output).toMatch(/^number 2\nnumber 3\nKTAP version 1\n/);
  expect(output).toContain("\nok 1 ring\n");
});

for (const { kind, text } of blocks.filter((block) => block.kind === "kheap")) {
  const commands = [...text.matchAll(/^kheap# (.*)$/gm)].map(([, command]) => command!);
  it(`${kind}# ${commands.join("; ")}`, () => {
    const output = run("boot/main.ts", "--quiet", "--exec", commands.join("; "));
    const answers = text.replace(/^kheap# .*\n/gm, "");
    expect(output.replace(/^(power off: |given back first).*\n/gm, "")).toBe(answers);
  });
}
