/** The firmware's tables, read back byte by byte as the ACPI specification lays them out. */
import { beforeEach, describe, expect, test } from "vitest";
import { BOOT_PARAMS, firmware_power_on } from "../../hal/firmware.ts";
import { BIOS_END, BIOS_START, PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ram8, ram_fill } from "../../hal/ram.ts";

const view = new DataView(ram8.buffer);
const u32 = (at: number): number => view.getUint32(at, true);
const u64 = (at: number): number => u32(at) + u32(at + 4) * 2 ** 32;
const text = (at: number, length: number): string => String.fromCharCode(...ram8.slice(at, at + length));
const sum = (at: number, length: number): number => ram8.slice(at, at + length).reduce((a, b) => a + b, 0) % 256;

function power_on(spec: MachineSpec): void {
  ram_fill(BIOS_START - 4096, 0xa5, BIOS_END - BIOS_START + 8192);
  firmware_power_on(spec);
}
/** Tables by signature, as a kernel finds them. */
function tables(): Map<string, number> {
  const rsdp = u64(BOOT_PARAMS + 0x70);
  const xsdt = u64(rsdp + 24);
  const found = new Map<string, number>();
  for (let at = xsdt + 36; at < xsdt + u32(xsdt + 4); at += 8) found.set(text(u64(at), 4), u64(at));
  return found;
}

describe("a machine of two nodes", () => {
  const spec = PRESETS.textbook;
  beforeEach(() => power_on(spec));

  test("boot_params lists the memory map, and where DMA and DMA32 end", () => {
    expect(ram8[BOOT_PARAMS + 0x1e8]).toBe(3);
    const entries = [0, 1, 2].map((i) => {
      const at = BOOT_PARAMS + 0x2d0 + 20 * i;
      return { start: u64(at), size: u64(at + 8), type: u32(at + 16) };
    });
    expect(entries).toEqual(spec.memory);
    expect([u64(BOOT_PARAMS + 0xcd0), u64(BOOT_PARAMS + 0xcd8)]).toEqual([spec.dma_limit, spec.dma32_limit]);
  });

  test("the RSDP stands on a 16-byte border of the BIOS area, with two right checksums", () => {
    const rsdp = u64(BOOT_PARAMS + 0x70);
    expect(rsdp % 16).toBe(0);
    expect(rsdp >= 0xe0000 && rsdp < 0x100000).toBe(true);
    expect(text(rsdp, 8)).toBe("RSD PTR ");
    expect([sum(rsdp, 20), sum(rsdp, 36)]).toEqual([0, 0]);
    expect([ram8[rsdp + 15], u32(rsdp + 20)]).toEqual([2, 36]);
  });

  test("the XSDT names MADT, SRAT and SLIT, all with right checksums", () => {
    const xsdt = u64(u64(BOOT_PARAMS + 0x70) + 24);
    expect(text(xsdt, 4)).toBe("XSDT");
    expect(sum(xsdt, u32(xsdt + 4))).toBe(0);
    expect([...tables().keys()]).toEqual(["APIC", "SRAT", "SLIT"]);
    for (const at of tables().values()) expect(sum(at, u32(at + 4))).toBe(0);
  });

  test("the MADT has a local APIC of 8 bytes for each CPU, enabled", () => {
    const madt = tables().get("APIC")!;
    expect([u32(madt + 4), u32(madt + 36), u32(madt + 40)]).toEqual([44 + 4 * 8, 0xfee00000, 1]);
    for (let cpu = 0; cpu < 4; cpu++)
      expect([...ram8.slice(madt + 44 + 8 * cpu, madt + 52 + 8 * cpu)]).toEqual([0, 8, cpu, cpu, 1, 0, 0, 0]);
  });

  test("the SRAT says to which node each CPU and each range of memory belongs", () => {
    const srat = tables().get("SRAT")!;
    const cpus: number[][] = [];
    const memory: number[][] = [];
    for (let at = srat + 48; at < srat + u32(srat + 4); at += ram8[at + 1]) {
      if (ram8[at] === 0) cpus.push([ram8[at + 3], ram8[at + 2], u32(at + 4)]);
      else memory.push([view.getUint32(at + 2, true), u64(at + 8), u64(at + 16), u32(at + 28)]);
      expect(ram8[at + 1]).toBe(ram8[at] === 0 ? 16 : 40);
    }
    expect(cpus).toEqual([
      [0, 0, 1],
      [1, 0, 1],
      [2, 1, 1],
      [3, 1, 1],
    ]);
    expect(memory).toEqual([
      [0, 0, 0xa0000, 1],
      [0, 0x100000, 0x7f00000, 1],
      [1, 0x8000000, 0x8000000, 1],
    ]);
  });

  test("the SLIT has a byte for each pair of nodes", () => {
    const slit = tables().get("SLIT")!;
    expect(u64(slit + 36)).toBe(2);
    expect([...ram8.slice(slit + 44, slit + 48)]).toEqual([10, 20, 20, 10]);
  });

  test("RAM outside the BIOS area is not touched", () => {
    expect(ram8.slice(BIOS_START - 4096, BIOS_START).every((byte) => byte === 0xa5)).toBe(true);
    expect(ram8.slice(BIOS_END, BIOS_END + 4096).every((byte) => byte === 0xa5)).toBe(true);
  });
});

test("a machine of one node has neither SRAT nor SLIT", () => {
  power_on(PRESETS.laptop);
  expect([...tables().keys()]).toEqual(["APIC"]);
});

test("the largest machine's tables fit: 16 nodes, 64 CPUs", () => {
  power_on(machine_from_options({ mem: "2G", nodes: 16, cpus: 64 }) as MachineSpec);
  const slit = tables().get("SLIT")!;
  expect(u64(slit + 36)).toBe(16);
  expect(slit + u32(slit + 4)).toBeLessThan(BIOS_END);
  for (const at of tables().values()) expect(sum(at, u32(at + 4))).toBe(0);
});
