/** `pt`, `export --pid`, `vmalloc`, `vfree` and `lkdtm` on the console: what they say, and what they say to wrong input. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { u } from "../../kernel/user_memory.ts";
import { MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../mm/mmap.ts";
import { test_init } from "../kernel/tasks.ts";
import { console_run } from "./run.ts";

const root = mkdtempSync(join(tmpdir(), "kheap-vm-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

// Four pages at 40000000: written, only read, never touched, and out of reach.
const holds = test_init("t_pt_holds", function* (sys) {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  const va: number = yield sys.mmap(4 * PAGE_SIZE, PROT_READ | PROT_WRITE, flags, 0x40000000);
  u.store32(va, 0x1234);
  u.load32(va + PAGE_SIZE);
  u.store32(va + 3 * PAGE_SIZE, 1);
  yield sys.mprotect(va + 3 * PAGE_SIZE, PAGE_SIZE, 0);
});
const options = { append: `init=${holds}` };

interface Walk { pa: string | null; r: boolean; w: boolean; x: boolean; user: boolean; cr3: string; steps: { table: string; index: number; bits: string; to: string }[] } // prettier-ignore

describe("pt", () => {
  it("shows a walk of a process's tables, level by level, each in the table that the one before leads to", async () => {
    const { out } = await console_run(["pt 1 40000123", "pt 1 40001000", "pt 1 40002000", "pt 1 40003000"], { ...options, json: true }); // prettier-ignore
    const [written, read, untouched, none] = out.trimEnd().split("\n").map((line) => JSON.parse(line) as Walk); // prettier-ignore
    for (const { steps, cr3 } of [written!, read!, untouched!, none!]) {
      expect(steps.map(({ index }) => index)).toEqual([0, 1, 0, expect.any(Number)]);
      expect(steps[0]!.table).toBe(cr3);
      steps.slice(1).forEach(({ table }, i) => expect(steps[i]!.to.endsWith(` table at ${table}`)).toBe(true));
    }
    expect(written).toMatchObject({ r: true, w: true, x: false, user: true });
    expect(written!.steps[3]!.bits).toBe("P RW US A D NX");
    expect(written!.pa!.endsWith("123")).toBe(true);
    expect(read).toMatchObject({ r: true, w: false, x: false, user: true });
    expect([untouched!.pa, untouched!.steps[3]!.to]).toEqual([null, "not present"]);
    expect([none!.pa, none!.steps[3]!.to]).toEqual([null, "not present"]); // G tells it from an empty entry
    expect(none!.steps[3]!.bits).toMatch(/^A( D)? G/);
  });

  it("shows the kernel's with large pages, where the last line is what a load would reach", async () => {
    const { out } = await console_run(["pt kernel ffff888000400abc"]);
    const lines = out.trimEnd().split("\n");
    expect(lines.map((line) => line.split(/ +/)[0])).toEqual(["level", "PGD", "PUD", "PMD", "ffff888000400abc"]);
    expect(lines[3]).toMatch(/^PMD +[0-9a-f]+ +2 {2}80000000004001e3 {2}P RW A D PS G NX +2 MiB page at 400000$/);
    expect(lines[4]).toBe("ffff888000400abc -> 400abc (ffff888000400abc), rw-, kernel only");
  });

  it("says what is wrong with its input", async () => {
    const { err } = await console_run(["pt", "pt 1", "pt 1 2 3", "pt x 0", "pt 99 0", "pt 1 zz", "pt 1 800000000000", "pt 1 -1"]); // prettier-ignore
    expect(err.trimEnd().split("\n")).toEqual([
      ...Array<string>(3).fill("usage: pt PID|kernel VA"),
      'pt: "x" is neither a pid nor "kernel"',
      "pt: no task has pid 99",
      'pt: "zz" is no canonical address: one is ffffc90000000000',
      'pt: "800000000000" is no canonical address: one is ffffc90000000000',
      'pt: "-1" is no canonical address: one is ffffc90000000000',
    ]);
  });
});

describe("export --pid", () => {
  it("writes mmu.json and vmcore of a process's address space", async () => {
    const folder = join(root, "moment");
    const { out } = await console_run([`export --pid 1 ${folder}`, "pt 1 40000000"], { ...options, json: true });
    const walk = JSON.parse(out.trimEnd().split("\n").at(-1)!) as Walk;
    const mmu = JSON.parse(readFileSync(join(folder, "mmu.json"), "utf8")) as { cr3: string; mappings: { start: string; flags: string }[] }; // prettier-ignore
    expect(mmu.cr3).toBe(`0x${walk.cr3}`);
    const user = mmu.mappings.filter(({ flags }) => flags.endsWith("u"));
    expect(user.map(({ start, flags }) => `${start} ${flags}`)).toEqual(["0x0000000040000000 rw-u", "0x0000000040001000 r--u"]); // prettier-ignore
    const ram = readFileSync(join(folder, "ram.img"));
    expect(ram.readUInt32LE(parseInt(walk.pa!, 16))).toBe(0x1234);
    const core = readFileSync(join(folder, "vmcore")); // program headers by address: user memory is behind the note
    expect(core.readBigUInt64LE(64 + 56 + 16)).toBe(0x40000000n);
    expect(core.readUInt32LE(Number(core.readBigUInt64LE(64 + 56 + 8)))).toBe(0x1234);
  });

  it("says what is wrong with its input", async () => {
    const lines = ["export a --pid", "export --pid 99 a", "export --pid x a", "export --pid --probe a"];
    const { err } = await console_run(lines);
    const usage = "usage: export DIR [--pid PID|kernel] [--probe FILE]";
    expect(err.trimEnd().split("\n")).toEqual([usage, "export: no task has pid 99", 'export: "x" is neither a pid nor "kernel"', usage]); // prettier-ignore
  });
});

describe("vmalloc and vfree", () => {
  it("take and give back areas with a guard page between, and refuse what is none of them", async () => {
    const { out, err } = await console_run([
      "vmalloc 10000; vmalloc 1 node=1; cat /proc/vmallocinfo; vfree ffffc90000000000 ffffc90000004000",
      "vmalloc 0; vmalloc x; vmalloc 100 node=7; vfree; vfree zz; vfree ffffc90000000000; vfree 4000",
    ]);
    expect(out).toMatch(/^ffffc90000000000\nffffc90000004000\n/);
    expect(out).toMatch(/^0xffffc90000000000-0xffffc90000004000 {3}16384 console_vmalloc\+0x0\/0x10 pages=3 vmalloc N0=3$/m); // prettier-ignore
    expect(out).toMatch(/^0xffffc90000004000-0xffffc90000006000 {4}8192 console_vmalloc\+0x0\/0x10 pages=1 vmalloc N1=1$/m); // prettier-ignore
    expect(out).toContain("2 areas freed");
    expect(err.trimEnd().split("\n")).toEqual([
      expect.stringMatching(/^vmalloc: "0" given, 1 to \d+ allowed$/),
      expect.stringMatching(/^vmalloc: "x" given, 1 to \d+ allowed$/),
      'node: "7" given, 0 to 1 allowed',
      "usage: vfree ADDR…",
      'vfree: "zz" is no address: they look like ffffc90000000000',
      "vfree: no area that this console took starts at ffffc90000000000",
      "vfree: no area that this console took starts at 0000000000004000",
    ]);
  });
});

describe("lkdtm", () => {
  it("lets a thread die of an oops, and the console goes on", async () => {
    const { out, err } = await console_run(["lkdtm EXEC_NULL; wait; dmesg; uptime; lkdtm; lkdtm EXEC_NUL; lkdtm x"]);
    expect(out).toContain("BUG: kernel NULL pointer dereference, address: 0000000000000000");
    expect(err.trimEnd().split("\n")).toEqual([
      "usage: lkdtm CRASHPOINT",
      "lkdtm: there is no crash point EXEC_NUL; do you mean EXEC_NULL?",
      "lkdtm: there is no crash point x; man lkdtm lists them",
    ]);
  });
});
