/**
 * The e820 map: what the firmware says of physical memory, made tidy, and handed to memblock.
 *
 *     boot_params  ->  e820 table: sorted, no overlaps, neighbours of one type joined  ->  memblock.memory
 *
 * Where entries of the firmware overlap, the numerically highest type wins, so that nothing is called usable that
 * anybody reserved. Two edits follow, as on every PC: page 0 is kept, and 640 KiB .. 1 MiB is no RAM whatever they say.
 *
 * Locks: none; written by boot only.
 * Unlike Linux: one table instead of three (firmware, kexec, kernel).
 */
import { PAGE_SIZE, align_up, hex, type Phys } from "../hal/addr.ts";
import { BOOT_PARAMS, BP_E820_ENTRIES, BP_E820_TABLE, E820_ENTRY_BYTES } from "../hal/firmware.ts";
import { DATA_BASE, IMAGE_BASE, TEXT_BYTES, image_end, image_nr_cpus, static_data } from "../hal/image.ts";
import { BIOS_END, E820_TYPE_RAM, E820_TYPE_RESERVED, MAX_MEMORY_ENTRIES } from "../hal/machine.ts";
import { array, struct } from "../hal/struct.ts";
import { pr_info } from "../kernel/lib/printk.ts";
import { read_le } from "./acpi.ts";
import { memblock_add, memblock_reserve, memblock_trim_memory } from "./memblock.ts";

const E820_TYPE_ACPI = 3;
const E820_TYPE_NVS = 4;
const E820_TYPE_UNUSABLE = 5;
const E820_TYPE_PMEM = 7;
const E820_TYPE_PRAM = 12;
const E820_TYPE_SOFT_RESERVED = 0xefffffff;
/** Entries that fit the tidy table: overlaps can cut the firmware's into more. */
const MAX_ENTRIES = MAX_MEMORY_ENTRIES * 2;
/** One past the highest frame number of 46-bit physical addresses. */
const MAX_ARCH_PFN = 0x400000000;
const FOUR_GIB = 2 ** 32;

const E820Entry = struct("e820_entry", { addr: "u64", size: "u64", type: "u32" });
const table = static_data("e820_table", { nr_entries: "u32", entries: array(E820Entry, MAX_ENTRIES) });

export interface E820Range {
  readonly start: Phys;
  /** One past the last byte. */
  readonly end: Phys;
  readonly type: number;
}

/** What the log calls a type. */
export function e820_type_name(type: number): string {
  switch (type) {
    case E820_TYPE_RAM: return "usable";
    case E820_TYPE_RESERVED: return "reserved";
    case E820_TYPE_ACPI: return "ACPI data";
    case E820_TYPE_NVS: return "ACPI NVS";
    case E820_TYPE_UNUSABLE: return "unusable";
    case E820_TYPE_PMEM:
    case E820_TYPE_PRAM: return `persistent (type ${type})`;
    case E820_TYPE_SOFT_RESERVED: return "soft reserved";
    default: return `type ${type}`;
  }
} // prettier-ignore

/** Sorts ranges, cuts overlaps (the highest type wins), joins neighbours of one type, drops empty ones. */
export function sanitize_e820(ranges: readonly E820Range[]): E820Range[] {
  const borders = [...new Set(ranges.flatMap((range) => [range.start, range.end]))].sort((a, b) => a - b);
  const tidy: E820Range[] = [];
  for (const [i, start] of borders.slice(0, -1).entries()) {
    const covering = ranges.filter((range) => range.start <= start && range.end > start);
    if (covering.length === 0) continue;
    const type = Math.max(...covering.map((range) => range.type));
    const end = borders[i + 1];
    const last = tidy.at(-1);
    if (last && last.end === start && last.type === type) tidy[tidy.length - 1] = { ...last, end };
    else tidy.push({ start, end, type });
  }
  return tidy;
}

/** Gives the parts of [start, end) that have type `from` another type; `to` undefined removes them. */
export function retype_e820(
  ranges: readonly E820Range[],
  start: Phys,
  end: Phys,
  from: number,
  to: number | undefined,
): E820Range[] {
  const changed = ranges.flatMap((range): E820Range[] => {
    if (range.type !== from || range.end <= start || range.start >= end) return [range];
    const inside = { start: Math.max(range.start, start), end: Math.min(range.end, end) };
    return [
      { start: range.start, end: inside.start, type: from },
      ...(to === undefined ? [] : [{ ...inside, type: to }]),
      { start: inside.end, end: range.end, type: from },
    ];
  });
  return sanitize_e820(changed.filter((range) => range.end > range.start));
}

/**
 * The largest gap below 4 GiB, at least 4 MiB, looked for from the top downwards; of equally large ones the lowest.
 * Undefined if there is none.
 */
export function e820_search_gap(ranges: readonly E820Range[]): { start: Phys; end: Phys } | undefined {
  let best: { start: Phys; end: Phys } | undefined;
  let size = 0x400000;
  let top = FOUR_GIB;
  for (const { start, end } of [...ranges].reverse()) {
    if (top - end >= size) {
      best = { start: end, end: top };
      size = top - end;
    }
    top = Math.min(top, start);
  }
  return best;
}

function mem_range(start: Phys, end: Phys, width: number): string {
  return `[mem 0x${hex(start, width - 2)}-0x${hex(end - 1, width - 2)}]`;
}

/** The table, lowest range first. */
export function* e820_ranges(): Generator<E820Range> {
  for (let i = 0; i < table.nr_entries; i++) {
    const entry = table.entries.at(i);
    const start = E820Entry.addr.get(entry);
    yield { start, end: start + E820Entry.size.get(entry), type: E820Entry.type.get(entry) };
  }
}

function store(ranges: readonly E820Range[]): void {
  table.nr_entries = ranges.length;
  for (const [i, { start, end, type }] of ranges.entries()) {
    const entry = table.entries.at(i);
    E820Entry.addr.set(entry, start);
    E820Entry.size.set(entry, end - start);
    E820Entry.type.set(entry, type);
  }
}

function read_firmware_map(): E820Range[] {
  return Array.from({ length: read_le(BOOT_PARAMS + BP_E820_ENTRIES, 1) }, (_, i) => {
    const entry = BOOT_PARAMS + BP_E820_TABLE + i * E820_ENTRY_BYTES;
    const start = read_le(entry, 8);
    return { start, end: start + read_le(entry + 8, 8), type: read_le(entry + 16, 4) };
  });
}

/** Reads the firmware's map, tidies and prints it, and makes the two edits that every PC needs. */
export function e820_memory_setup(): void {
  const ranges = sanitize_e820(read_firmware_map());
  pr_info("BIOS-provided physical RAM map:");
  for (const { start, end, type } of ranges) pr_info(`BIOS-e820: ${mem_range(start, end, 18)} ${e820_type_name(type)}`);
  const kept = retype_e820(ranges, 0, PAGE_SIZE, E820_TYPE_RAM, E820_TYPE_RESERVED);
  pr_info(`e820: update ${mem_range(0, PAGE_SIZE, 10)} usable ==> reserved`);
  pr_info(`e820: remove ${mem_range(0xa0000, BIOS_END, 10)} usable`);
  store(retype_e820(kept, 0xa0000, BIOS_END, E820_TYPE_RAM, undefined));
  print_ends();
}

function print_ends(): void {
  const last_pfn = e820_end_of_ram_pfn();
  const text = (pfn: number): string => `last_pfn = 0x${hex(pfn)} max_arch_pfn = 0x${hex(MAX_ARCH_PFN)}`;
  pr_info(text(last_pfn));
  if (last_pfn > FOUR_GIB / PAGE_SIZE) pr_info(text(e820_end_of_ram_pfn(FOUR_GIB / PAGE_SIZE)));
}

/** Says where devices could lie. Linux does so once the zones stand. */
export function e820_setup_gap(): void {
  const gap = e820_search_gap([...e820_ranges()]);
  if (gap) pr_info(`${mem_range(gap.start, gap.end, 10)} available for PCI devices`);
}

/** One past the highest usable page frame below `limit`. */
export function e820_end_of_ram_pfn(limit = MAX_ARCH_PFN): number {
  let last = 0;
  for (const { start, end, type } of e820_ranges())
    if (type === E820_TYPE_RAM && start < limit * PAGE_SIZE)
      last = Math.max(last, Math.min(limit, Math.floor(end / PAGE_SIZE)));
  return last;
}

/** Tells memblock what is RAM, in whole pages, and what of it is taken: the first MiB and the kernel image. */
export function e820_memblock_setup(): void {
  for (const { start, end, type } of e820_ranges()) {
    if (type === E820_TYPE_SOFT_RESERVED) memblock_reserve(start, end - start);
    if (type === E820_TYPE_RAM) memblock_add(start, end - start);
  }
  memblock_trim_memory(PAGE_SIZE);
  memblock_reserve(0, BIOS_END);
  memblock_reserve(IMAGE_BASE, align_up(image_end(image_nr_cpus()), PAGE_SIZE) - IMAGE_BASE);
}

export interface Resource {
  readonly start: Phys;
  /** Last byte. */
  readonly end: Phys;
  readonly name: string;
  /** 0 at the top; 1 inside the one before it. */
  readonly depth: number;
}

/** What /proc/iomem lists: the e820 ranges, and inside its range the parts of the kernel image. */
export function* iomem_resources(): Generator<Resource> {
  const data_end = image_end(image_nr_cpus()) - 1;
  const parts: readonly (readonly [Phys, Phys, string])[] = [
    [IMAGE_BASE, IMAGE_BASE + TEXT_BYTES - 1, "Kernel code"],
    [IMAGE_BASE + TEXT_BYTES, DATA_BASE - 1, "Kernel rodata"],
    [DATA_BASE, data_end, "Kernel data"],
  ];
  for (const range of e820_ranges()) {
    yield { start: range.start, end: range.end - 1, name: resource_name(range.type), depth: 0 };
    if (IMAGE_BASE < range.start || IMAGE_BASE >= range.end) continue;
    for (const [start, end, name] of parts) yield { start, end, name, depth: 1 };
  }
}

function resource_name(type: number): string {
  switch (type) {
    case E820_TYPE_RAM: return "System RAM";
    case E820_TYPE_ACPI: return "ACPI Tables";
    case E820_TYPE_NVS: return "ACPI Non-volatile Storage";
    case E820_TYPE_UNUSABLE: return "Unusable memory";
    case E820_TYPE_PRAM: return "Persistent Memory (legacy)";
    case E820_TYPE_PMEM: return "Persistent Memory";
    case E820_TYPE_SOFT_RESERVED: return "Soft Reserved";
    case E820_TYPE_RESERVED: return "Reserved";
    default: return "Unknown E820 type";
  }
} // prettier-ignore
