import { describe, expect, it } from "vitest";
import { PRESETS } from "../../hal/machine.ts";
import { kheap } from "./run.ts";
import { screen_of } from "./screen.ts";

/** Rows that lines take on a terminal of 80 columns. */
const rows = (lines: readonly string[]): number =>
  lines.reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 80)), 0);

describe("the first screen", () => {
  for (const [name, machine] of Object.entries(PRESETS))
    it(`fits 80 x 24 with the prompt on the machine ${name}`, () => {
      const { screen } = screen_of([], machine);
      expect(screen.at(-1)).toBe(""); // where the prompt comes
      expect(rows(screen)).toBeLessThanOrEqual(24);
      const log = screen.filter((line) => line.startsWith("["));
      for (const line of screen) if (!log.includes(line)) expect(line.length, line).toBeLessThanOrEqual(80);
    });

  it("shows notice lines word for word as dmesg, the last with the number of all lines", () => {
    const { screen, log } = screen_of([]);
    expect(screen[0]).toBe("kheap 0.1.0   40 MiB, 2 nodes, 2 CPUs, SLUB, seed 1");
    const shown = screen.filter((line) => line.startsWith("["));
    expect(shown.length).toBeGreaterThanOrEqual(6);
    for (const line of shown) expect(log).toContain(line.replace(/ +\(all .*/, ""));
    expect(shown.at(-1)).toContain(`Run /init as init process`);
    expect(shown.at(-1)!.endsWith(`(all ${log.length} lines: dmesg)`)).toBe(true);
    for (const part of ["Built", "Memory:", "SLUB: HWalign=64", "Brought up 2 nodes, 2 CPUs", "DMA32", "Normal"])
      expect(shown.join("\n")).toContain(part);
  });

  it("has true numbers: what it says of caches is what a walk finds", () => {
    const { screen, live } = screen_of([]);
    const text = screen.join("\n");
    for (const [i, name] of ["dentry", "inode_cache", "task_struct"].entries())
      expect(Number(new RegExp(`${name} +(\\d+) live of`).exec(text)![1])).toBe(live[i]);
    expect(text).toMatch(
      /init started [1-9]\d* programs: [1-9]\d* tasks forked, [1-9]\d* files made, [1-9]\d* of them gone again\./,
    );
    for (const command of ["tour", "slab task_struct", "map", "help"]) expect(text).toContain(`  ${command}  `);
  });

  it("shows the whole log with --verbose or loglevel=7", () => {
    for (const argv of [["--verbose"], ["--append", "loglevel=7"]]) {
      const { screen, log } = screen_of(argv);
      const shown = screen.filter((line) => line.startsWith("[")).map((line) => line.replace(/ +\(all .*/, ""));
      expect(shown.length).toBeGreaterThan(15);
      expect(log.slice(0, shown.length)).toEqual(shown);
    }
  });
});

describe("off a terminal", () => {
  it("only the notice lines come first, with --quiet none", () => {
    const plain = kheap(["--exec", "echo hello"]);
    const lines = plain.out.split("\n");
    const at = lines.indexOf("hello");
    expect(at).toBeGreaterThanOrEqual(6);
    for (const line of lines.slice(0, at)) expect(line).toMatch(/^\[ +\d+\.\d{6}\] /);
    expect(lines.slice(at)).toEqual(["hello", "power off: 0 pages, 0 objects, 0 locks left over", ""]);
    expect(plain.err).toBe("");
    const quiet = kheap(["--quiet", "--exec", "echo hello"]);
    expect(quiet.out).toBe("hello\npower off: 0 pages, 0 objects, 0 locks left over\n");
  });
});
