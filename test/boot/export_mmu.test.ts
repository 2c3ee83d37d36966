/** mmu.json, vmcore and vmlinux: read back by parsers of their own, at odd moments of a run. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Ptr } from "../../hal/addr.ts";
import { write_cr3 } from "../../hal/control_regs.ts";
import { static_data } from "../../hal/image.ts";
import { _PAGE_PSE } from "../../hal/page_walk.ts";
import { ram_read_bytes } from "../../hal/ram.ts";
import { mmu_json } from "../../boot/export/mmu.ts";
import { swapper_pg_dir } from "../../mm/kernel_map.ts";
import {
  PAGE_NONE, PAGE_READONLY, PAGE_READONLY_EXEC, PAGE_SHARED, PAGE_SHARED_EXEC, PgTables, TASK_SIZE_MAX, for_each_leaf,
  free_pgtables, pagetable_free_chain, pgd_alloc, pgd_free, pte_alloc, pte_clear, set_pte,
} from "../../mm/pgtable.ts"; // prettier-ignore
import { with_machine } from "../lib/machine.ts";
import { walk_image } from "../lib/image_walker.ts";
import { console_run } from "./run.ts";

const mm = static_data("export_mmu_test", { tables: PgTables }).tables;
const root = mkdtempSync(join(tmpdir(), "kheap-mmu-"));
afterAll(() => rmSync(root, { recursive: true, force: true }), 300_000);
const folder = join(root, "moment");
const WORKLOAD =
  "vmalloc 10000; vmalloc 3000000 node=1; vfree ffffc90000000000; replay test/data/traces/fs-walk.trace.gz --stop 20000 > /r";

interface Probe { va: string; pa: string | null; r: number; w: number; x: number; user: number } // prettier-ignore
interface MmuJson { ram: string; cr3: string; levels: number; complete: boolean; mappings: { start: string; end: string; pa: string; flags: string }[]; probes: Probe[] } // prettier-ignore
let mmu: MmuJson;
let ram: Buffer;
let symbols: Record<string, { va: string; u64: string[] }>;
const json = <T>(path: string): T => JSON.parse(readFileSync(path, "utf8")) as T;

beforeAll(async () => {
  await console_run([`${WORKLOAD}; export ${folder}`], { seed: 3 });
  mmu = json(join(folder, "mmu.json"));
  ram = readFileSync(join(folder, mmu.ram));
  symbols = json(join(folder, "symbols.json"));
}, 60_000);

/** Where the second walker and a probe differ: undefined if nowhere. */
function differs(probe: Probe): object | undefined {
  const walk = walk_image(ram, BigInt(mmu.cr3), BigInt(probe.va));
  const theirs = { ...walk, pa: walk.pa === null ? null : `0x${walk.pa.toString(16)}` };
  const { va, ...ours } = probe;
  return JSON.stringify({ pa: theirs.pa, r: theirs.r, w: theirs.w, x: theirs.x, user: theirs.user }) === JSON.stringify(ours) ? undefined : { va, ours, theirs }; // prettier-ignore
}

describe("mmu.json", () => {
  it("says of every probe what an independent walk of ram.img finds (A115)", () => {
    expect([mmu.levels, mmu.complete]).toEqual([4, true]);
    expect(mmu.probes.length).toBeGreaterThan(2500);
    expect(mmu.probes.map(differs).filter((difference) => difference !== undefined)).toEqual([]);
    const hits = mmu.probes.filter(({ pa }) => pa !== null);
    expect(hits.length).toBeGreaterThan(1500);
    expect(mmu.probes.length - hits.length).toBeGreaterThan(500);
  });

  it("has mappings that cover exactly what is mapped", () => {
    const inside = (va: bigint): (typeof mmu.mappings)[0] | undefined => mmu.mappings.find(({ start, end }) => va >= BigInt(start) && va < BigInt(end)); // prettier-ignore
    for (const { va, pa, w, x } of mmu.probes) {
      const mapping = inside(BigInt(va));
      expect([va, mapping !== undefined]).toEqual([va, pa !== null]);
      if (!mapping) continue;
      expect(BigInt(mapping.pa) + BigInt(va) - BigInt(mapping.start)).toBe(BigInt(pa!));
      expect(mapping.flags).toBe(`r${w ? "w" : "-"}${x ? "x" : "-"}`);
    }
  });

  it("answers the addresses that the caller brings", async () => {
    const file = join(root, "probes");
    writeFileSync(file, "ffff888000000123\n\n0xffffffff81000000\n400000\n");
    const there = join(root, "probed");
    await console_run([`export ${there} --probe ${file}`]);
    expect(json<MmuJson>(join(there, "mmu.json")).probes).toEqual([
      { va: "0xffff888000000123", pa: "0x123", r: 1, w: 1, x: 0, user: 0 },
      { va: "0xffffffff81000000", pa: "0x100000", r: 1, w: 0, x: 1, user: 0 },
      { va: "0x0000000000400000", pa: null, r: 0, w: 0, x: 0, user: 0 },
    ]);
    writeFileSync(file, "1\n800000000000\n");
    const { err } = await console_run([`export ${there} --probe ${file}`]);
    expect(err).toContain(`export: ${file}:2: "800000000000" is no canonical address in hex`);
  });

  const qemu = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
  const qemu_says = (moment: string): string =>
    execFileSync(process.execPath, ["test/tools/mmu.mjs", moment], { encoding: "utf8" });
  const AGREES = /^mmu: \d+ probes, \d{4,} accesses \(\d{4,} allowed\) in qemu: 0 differ\n$/;

  it.runIf(qemu)("is what qemu's MMU does in an address space with user pages of every size and right", () => {
    const there = mkdtempSync(join(root, "user-"));
    with_machine({}, () => {
      const pgd: Ptr = pgd_alloc(mm);
      const prots = [PAGE_READONLY, PAGE_READONLY_EXEC, PAGE_SHARED, PAGE_SHARED_EXEC, PAGE_NONE];
      for (const [i, prot] of prots.entries()) {
        set_pte(pte_alloc(mm, 0x400000 + i * 0x2000, 1), (0x1000 + i) * 4096, prot);
        set_pte(pte_alloc(mm, 0x40000000 + i * 2 ** 22, 2), i * 2 ** 21, prot | _PAGE_PSE);
      }
      set_pte(pte_alloc(mm, 0x4000000000, 3), 0, PAGE_SHARED_EXEC | _PAGE_PSE);
      write_cr3(pgd);
      writeFileSync(join(there, "mmu.json"), mmu_json(pgd));
      writeFileSync(join(there, "ram.img"), ram_read_bytes(0, 40 << 20));
      write_cr3(swapper_pg_dir());
      for_each_leaf(mm, 0, TASK_SIZE_MAX, pte_clear);
      pagetable_free_chain(free_pgtables(mm, 0, TASK_SIZE_MAX));
      pgd_free(mm);
    });
    const users = json<MmuJson>(join(there, "mmu.json")).probes.filter(({ user }) => user === 1);
    expect(new Set(users.map(({ w, x }) => `${w}${x}`)).size).toBe(4);
    expect(qemu_says(there)).toMatch(AGREES);
  });

  it.runIf(qemu)("is what qemu's MMU does, access by access, at ring 0 and 3", () => {
    expect(qemu_says(folder)).toMatch(AGREES);
  });
});

/** Memory of vmcore by virtual address, found by its program headers. */
function core_reader(core: Buffer): (va: bigint, length: number) => Buffer {
  expect([core.toString("latin1", 1, 4), core.readUInt16LE(16), core.readUInt16LE(18)]).toEqual(["ELF", 4, 62]);
  const headers = Array.from({ length: core.readUInt16LE(56) }, (_, i) => {
    const at = Number(core.readBigUInt64LE(32)) + i * core.readUInt16LE(54);
    const u64 = (field: number): bigint => core.readBigUInt64LE(at + field);
    return { type: core.readUInt32LE(at), flags: core.readUInt32LE(at + 4), offset: u64(8), va: u64(16), pa: u64(24), size: u64(32), memory: u64(40) }; // prettier-ignore
  });
  const loads = headers.filter(({ type }) => type === 1);
  expect(loads.length).toBe(mmu.mappings.length);
  loads.forEach((load, i) => {
    const { start, end, pa, flags } = mmu.mappings[i]!;
    expect([load.va, load.memory, load.pa]).toEqual([BigInt(start), BigInt(end) - BigInt(start), BigInt(pa)]);
    expect(load.flags).toBe(4 + (flags[1] === "w" ? 2 : 0) + (flags[2] === "x" ? 1 : 0));
    expect(load.offset % 4096n).toBe(0n);
  });
  return (va, length) => {
    const load = loads.find(({ va: start, size }) => va >= start && va + BigInt(length) <= start + size)!;
    const at = Number(load.offset + va - load.va);
    return core.subarray(at, at + length);
  };
}

describe("vmcore", () => {
  it("has every symbol's words where symbols.json says, and vmlinux names them", () => {
    const read = core_reader(readFileSync(join(folder, "vmcore")));
    const elf = readFileSync(join(folder, "vmlinux"));
    const section = (i: number): number => Number(elf.readBigUInt64LE(40)) + i * 64;
    const [symtab, strtab] = [4, 5].map((i) => elf.subarray(Number(elf.readBigUInt64LE(section(i) + 24)), Number(elf.readBigUInt64LE(section(i) + 24) + elf.readBigUInt64LE(section(i) + 32)))); // prettier-ignore
    const named = new Map<string, bigint>();
    for (let at = 24; at < symtab!.length; at += 24) {
      const name = symtab!.readUInt32LE(at);
      named.set(strtab!.toString("latin1", name, strtab!.indexOf(0, name)), symtab!.readBigUInt64LE(at + 8));
    }
    expect(named.size).toBe(Object.keys(symbols).length);
    for (const [name, { va, u64 }] of Object.entries(symbols)) {
      expect([name, named.get(name)]).toEqual([name, BigInt(va)]);
      const words = u64.slice(0, 64).map((_, i) => `0x${read(BigInt(va) + 8n * BigInt(i), 8).readBigUInt64LE().toString(16).padStart(16, "0")}`); // prettier-ignore
      expect([name, words]).toEqual([name, u64.slice(0, 64)]);
    }
  });

  const binutils = spawnSync("readelf", ["--version"]).status === 0;
  it.runIf(binutils)("is read by readelf without a word of complaint", () => {
    const elf = spawnSync("readelf", ["-W", "-l", "-n", join(folder, "vmcore")], { encoding: "utf8" });
    expect(elf.stderr).toBe("");
    expect(elf.stdout).toMatch(/LOAD +0x\w+ 0xffff888000000000 0x0000000000000000 0x0*100000 0x0*100000 RW +0x1000/);
    expect(elf.stdout).toMatch(/LOAD +0x\w+ 0xffffffff81000000 0x0000000000100000 0x0*10000 0x0*10000 R E +0x1000/);
    expect(elf.stdout).toContain("NT_PRSTATUS");
    const lines = spawnSync("readelf", ["-W", "-s", join(folder, "vmlinux")], { encoding: "utf8" });
    expect([lines.stderr, / FUNC +GLOBAL DEFAULT +1 kthreadd$/m.test(lines.stdout)]).toEqual(["", true]);
  });

  const gdb = spawnSync("gdb", ["--version"]).status === 0;
  it.runIf(gdb)("is read by gdb, which finds symbols and their words", () => {
    const { va, u64 } = symbols.init_mm!;
    const said = spawnSync("gdb", ["-batch", "-nx", join(folder, "vmlinux"), join(folder, "vmcore"), "-ex", "x/2gx &init_mm"], { encoding: "utf8" }).stdout; // prettier-ignore
    expect(said).toContain(`${va} <init_mm>:\t${u64[0]}\t${u64[1]}`);
  });
});
