/**
 * Finds the firmware's ACPI tables in RAM: RSDP -> XSDT -> tables by signature. A table counts only if its bytes add up
 * to 0 modulo 256. hal/firmware.ts draws the layouts; the fields lie at odd offsets, so they are read byte by byte.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { BIOS_END, BIOS_START } from "../hal/machine.ts";
import { ram8, ram_read_bytes } from "../hal/ram.ts";

const m8 = ram8;
const RSDP_BYTES = 36;
const HEADER_BYTES = 36;
const LETTER_R = 0x52;

/** A little-endian number of `size` bytes at any address. */
export function read_le(ptr: Ptr, size: number): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + m8[ptr + i];
  return value;
}

function text_at(ptr: Ptr, length: number): string {
  return String.fromCharCode(...ram_read_bytes(ptr, length));
}

function checksum_ok(ptr: Ptr, length: number): boolean {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += m8[ptr + i];
  return sum % 256 === 0;
}

/** The root pointer: on a 16-byte border of the BIOS area. NULL if there is none. */
function find_rsdp(): Ptr {
  for (let ptr = BIOS_START; ptr < BIOS_END; ptr += 16)
    if (m8[ptr] === LETTER_R && text_at(ptr, 8) === "RSD PTR " && checksum_ok(ptr, RSDP_BYTES)) return ptr;
  return NULL;
}

/** The table with this signature (`SRAT`, `SLIT`, `APIC`); NULL if there is none, or its checksum is wrong. */
export function acpi_get_table(signature: string): Ptr {
  const rsdp = find_rsdp();
  if (rsdp === NULL) return NULL;
  const xsdt = read_le(rsdp + 24, 8);
  const end = xsdt + read_le(xsdt + 4, 4);
  for (let entry = xsdt + HEADER_BYTES; entry < end; entry += 8) {
    const table = read_le(entry, 8);
    if (text_at(table, 4) === signature && checksum_ok(table, read_le(table + 4, 4))) return table;
  }
  return NULL;
}

/** The entries of a table that start `first` bytes behind its header: each begins with a type and a length byte. */
export function* acpi_subtables(table: Ptr, first: number): Generator<{ type: number; ptr: Ptr }> {
  if (table === NULL) return;
  const end = table + read_le(table + 4, 4);
  for (let ptr = table + HEADER_BYTES + first; ptr + 2 <= end && m8[ptr + 1] > 0; ptr += m8[ptr + 1])
    yield { type: m8[ptr], ptr };
}
