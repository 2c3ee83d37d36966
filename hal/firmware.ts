/**
 * Firmware: what a PC's BIOS leaves in RAM for the kernel to read, and nothing else of the machine spec reaches it.
 *
 *     0xe0000   boot_params   the "zero page": number and list of e820 entries, address of the RSDP, zone limits
 *     0xf0000   RSDP -> XSDT -> MADT (APIC)   every CPU
 *                            -> SRAT          which node a CPU and a range of memory belong to
 *                            -> SLIT          distances between nodes
 *
 * The layouts are those of the ACPI specification 6.5, chapter 5 (RSDP 5.2.5, XSDT 5.2.8, MADT 5.2.12, SRAT 5.2.16,
 * SLIT 5.2.17), checksums included; boot_params follows the x86 boot protocol. A machine of one node has no SRAT and no
 * SLIT, as most PCs. All of it lies in the BIOS area, which the memory map never calls usable.
 *
 * Unlike a PC: boot_params lies in the BIOS area too, and its unused bytes at 0xcd0 carry where DMA and DMA32 end.
 */
import { ram_write_bytes, ram_zero } from "./ram.ts";
import { BIOS_END, BIOS_START, type MachineSpec, type Range } from "./machine.ts";
import type { Ptr } from "./addr.ts";

export const BOOT_PARAMS = BIOS_START;
/** Offsets in boot_params. */
export const BP_RSDP = 0x070; // u64
export const BP_E820_ENTRIES = 0x1e8; // u8
export const BP_E820_TABLE = 0x2d0; // 128 x { u64 start, u64 size, u32 type }
export const BP_DMA_LIMIT = 0xcd0; // u64, ours
export const BP_DMA32_LIMIT = 0xcd8; // u64, ours
export const E820_ENTRY_BYTES = 20;

const RSDP = 0xf0000;
const XSDT = 0xf0040;
const FIRST_TABLE = 0xf0100;
const HEADER_BYTES = 36;
const ENABLED = 1;
/** Where low memory ends for SRAT: the 384 KiB up to 1 MiB belong to no node. */
const LOW_END = 0xa0000;

/** Little-endian bytes, put together field by field. */
function bytes_of(...fields: readonly (readonly [value: number | string, size: number])[]): number[] {
  const bytes: number[] = [];
  for (const [value, size] of fields) {
    for (let i = 0; i < size; i++)
      bytes.push(typeof value === "string" ? value.charCodeAt(i) || 0 : Math.floor(value / 2 ** (8 * i)) % 256);
  }
  return bytes;
}

/** Sets the byte at `at` so that the first `length` bytes add up to 0 modulo 256. */
function checksum(bytes: number[], at: number, length: number): void {
  bytes[at] = 0;
  bytes[at] = -bytes.slice(0, length).reduce((sum, byte) => sum + byte, 0) & 0xff;
}

/** An ACPI table: header and body. */
function acpi_table(signature: string, revision: number, body: readonly number[]): number[] {
  const header = bytes_of(
    [signature, 4], [HEADER_BYTES + body.length, 4], [revision, 1], [0, 1],
    ["KHEAP", 6], ["KHEAP", 8], [1, 4], ["KHP", 4], [1, 4],
  ); // prettier-ignore
  const table = [...header, ...body];
  checksum(table, 9, table.length);
  return table;
}

function madt(spec: MachineSpec): number[] {
  const body = bytes_of([0xfee00000, 4], [1, 4]); // the local APIC's address; there are 8259s too
  for (let cpu = 0; cpu < spec.cpus; cpu++) body.push(...bytes_of([0, 1], [8, 1], [cpu, 1], [cpu, 1], [ENABLED, 4]));
  return acpi_table("APIC", 4, body);
}

function srat(spec: MachineSpec): number[] {
  const body = bytes_of([1, 4], [0, 8]);
  for (const [pxm, node] of spec.nodes.entries()) {
    for (const cpu of node.cpus)
      body.push(...bytes_of([0, 1], [16, 1], [pxm, 1], [cpu, 1], [ENABLED, 4], [0, 1], [0, 3], [0, 4]));
    for (const { start, size } of node.ranges.flatMap(without_bios))
      body.push(...bytes_of([1, 1], [40, 1], [pxm, 4], [0, 2], [start, 8], [size, 8], [0, 4], [ENABLED, 4], [0, 8]));
  }
  return acpi_table("SRAT", 3, body);
}

/** A range less 640 KiB .. 1 MiB, in one or two pieces. */
function without_bios(range: Range): Range[] {
  const end = range.start + range.size;
  const pieces = [
    { start: range.start, size: Math.min(end, LOW_END) - range.start },
    { start: Math.max(range.start, BIOS_END), size: end - Math.max(range.start, BIOS_END) },
  ];
  return pieces.filter((piece) => piece.size > 0);
}

function slit(spec: MachineSpec): number[] {
  return acpi_table("SLIT", 1, [...bytes_of([spec.nodes.length, 8]), ...spec.distance.flat()]);
}

function boot_params(spec: MachineSpec): number[] {
  const page: number[] = Array.from({ length: BP_DMA32_LIMIT + 8 }, () => 0);
  const put = (at: number, bytes: readonly number[]): void => void page.splice(at, bytes.length, ...bytes);
  put(BP_RSDP, bytes_of([RSDP, 8]));
  put(BP_E820_ENTRIES, [spec.memory.length]);
  const entries = spec.memory.flatMap(({ start, size, type }) => bytes_of([start, 8], [size, 8], [type, 4]));
  put(BP_E820_TABLE, entries);
  put(BP_DMA_LIMIT, bytes_of([spec.dma_limit, 8], [spec.dma32_limit, 8]));
  return page;
}

function rsdp(): number[] {
  const bytes = bytes_of(["RSD PTR ", 8], [0, 1], ["KHEAP", 6], [2, 1], [0, 4], [HEADER_BYTES, 4], [XSDT, 8], [0, 4]);
  checksum(bytes, 8, 20);
  checksum(bytes, 32, bytes.length);
  return bytes;
}

/** Runs the firmware: writes its tables into the BIOS area. RAM elsewhere is not touched. */
export function firmware_power_on(spec: MachineSpec): void {
  ram_zero(BIOS_START, BIOS_END - BIOS_START);
  const write = (ptr: Ptr, bytes: readonly number[]): void => ram_write_bytes(ptr, Uint8Array.from(bytes));
  const tables = spec.nodes.length > 1 ? [madt(spec), srat(spec), slit(spec)] : [madt(spec)];
  const pointers: number[] = [];
  let ptr: Ptr = FIRST_TABLE;
  for (const table of tables) {
    write(ptr, table);
    pointers.push(...bytes_of([ptr, 8]));
    ptr = (ptr + table.length + 15) & ~15;
  }
  write(RSDP, rsdp());
  write(XSDT, acpi_table("XSDT", 1, pointers));
  write(BOOT_PARAMS, boot_params(spec));
}
