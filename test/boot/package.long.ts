/**
 * The package as people get it: packed, installed into an empty folder without its source or its tools near, and used
 * as the guide says.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "kheap-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs a command in the folder; its output, or it throws with it. */
function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}
const kheap = (...args: readonly string[]): string => run("npx", "--no-install", "kheap", "--quiet", ...args);

it("installs, boots, makes a module, loads it, and tests it", () => {
  execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: root });
  const [tarball] = readdirSync(folder);
  run("npm", "init", "-y");
  run("npm", "install", "--omit=dev", "--no-audit", "--no-fund", `./${tarball!}`);
  expect(existsSync(join(folder, "node_modules/vitest"))).toBe(false);
  expect(existsSync(join(folder, "node_modules/kheap/mm/slub.ts"))).toBe(false);

  expect(run("npx", "--no-install", "kheap", "new", "module", "pebbles")).toContain("node --test pebbles.test.mjs");
  const out = kheap(
    "--exec",
    "insmod ./pebbles.ts count=2; lsmod; slabtop -o; cat /proc/slabinfo; cat /proc/pebbles; rmmod pebbles; lsmod",
  );
  expect(out).toMatch(/^Module {18}Size {2}Used by\npebbles +4096 {2}0\n/);
  expect(out).toMatch(/\npebbles_item +\d+ +\d+ +16 /);
  expect(out).toMatch(/\n1\n0\nModule {18}Size {2}Used by\npower off: 0 pages, 0 objects, 0 locks left over\n$/);
  expect(run("node", "--test", "pebbles.test.mjs")).toMatch(/# pass 1\n/);

  expect(() => run("npx", "--no-install", "kheap", "new", "module", "pebbles")).toThrow(/pebbles\.ts is there already/);
  expect(readFileSync(join(folder, "node_modules/kheap/package.json"), "utf8")).toContain('"./linux/*"');
});
