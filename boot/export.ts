/**
 * One moment of the whole kernel as files on the host.
 *
 *     proc/… sys/…    what /proc and /sys say, from the same producers as `cat`; links are links
 *     ram.img         physical RAM from address 0, sparse
 *     mmu.json        the page table, what it maps, and what a walk must find            (boot/export/mmu.ts)
 *     symbols.json    name -> virtual address, and its words: statics, per-CPU variables (NAME.cpuN), functions
 *     vmcore vmlinux  RAM by virtual address and the same symbols, for readelf and gdb      (boot/export/elf.ts)
 *
 * Context: between two kernel entries. The producers write into host memory and take nothing from the kernel, so all
 * files agree to the page and to the object, and exporting changes nothing.
 *
 * On Windows `:` in a name is `%3A`, and a link is a text file that holds its target.
 */
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync, writeSync } from "node:fs"; // prettier-ignore
import { dirname, join } from "node:path";
import { PAGE_SIZE, hex, virt_px, type Ptr, type Virt } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { image_symbols, per_cpu_ptr } from "../hal/image.ts";
import { ram32, ram_read_bytes } from "../hal/ram.ts";
import { bytes_of } from "../kernel/fs/bytes.ts";
import { S_IFLNK, S_IFMT } from "../kernel/fs/fs.ts";
import { proc_walk } from "../kernel/fs/procfs.ts";
import { sysfs_walk } from "../kernel/fs/sysfs.ts";
import { e820_end_of_ram_pfn } from "../mm/e820.ts";
import { image_to_virt, ptr_to_virt } from "../mm/kernel_map.ts";
import { vmcore_head, vmlinux, type ElfSymbol } from "./export/elf.ts";
import { export_cr3, mappings_of, mmu_json } from "./export/mmu.ts";

const PAGE_WORDS = PAGE_SIZE / 4;
/** Pages that are written at once. */
const RUN_PAGES = 256;
const NAMES = ["proc", "sys", "ram.img", "mmu.json", "symbols.json", "vmcore", "vmlinux"];

/** A file of the export, or a link. */
export interface ExportFile {
  readonly text: string;
  readonly is_link: boolean;
}

/** Contents of everything that can be read in /proc and /sys at this moment, by path: `proc/meminfo`. */
export function export_texts(): Map<string, ExportFile> {
  const files = new Map<string, ExportFile>();
  for (const [root, walk] of [
    ["proc", proc_walk()],
    ["sys", sysfs_walk()],
  ] as const)
    // prettier-ignore
    for (const { path, mode, text } of walk)
      if (text !== undefined) files.set(`${root}/${path}`, { text, is_link: (mode & S_IFMT) === S_IFLNK });
  return files;
}

export interface ExportFigures {
  readonly files: number;
  readonly links: number;
  readonly ram_bytes: number;
  /** Bytes of ram.img that are no hole. */
  readonly ram_bytes_written: number;
}

/** Why nothing may be exported into this folder, in half a line; undefined if it may: new, empty, or an export. */
export function export_obstacle(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOTDIR" ? "it is no folder" : "it cannot be read";
  }
  const foreign = names.find((name) => !NAMES.includes(name));
  return foreign === undefined ? undefined : `it holds ${foreign}, which is no part of an export`;
}

/**
 * Writes the export, in place of an earlier one; mmu.json and vmcore are of the page table `cr3`, and `probes` are the
 * addresses to look up. Throws what the host's file system does.
 */
export function export_to(folder: string, cr3 = export_cr3(), probes?: readonly Virt[]): ExportFigures {
  for (const name of NAMES) rmSync(join(folder, name), { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const texts = export_texts();
  for (const [path, file] of texts) write_file(join(folder, host_path(path)), file);
  const symbols = [...kernel_symbols()];
  writeFileSync(join(folder, "symbols.json"), symbols_json(symbols));
  writeFileSync(join(folder, "vmlinux"), vmlinux(symbols));
  writeFileSync(join(folder, "mmu.json"), mmu_json(cr3, probes));
  const ram_bytes = e820_end_of_ram_pfn() * PAGE_SIZE;
  write_ram(join(folder, "vmcore"), vmcore_head(mappings_of(cr3), ram_bytes));
  const links = [...texts.values()].filter(({ is_link }) => is_link).length;
  return { files: texts.size - links, links, ram_bytes, ram_bytes_written: write_ram(join(folder, "ram.img")) };
}

const is_windows = process.platform === "win32";
/** A path as the host can have it: a cache may be called `..`. */
function host_path(path: string): string {
  const safe = path.replace(/(?<=^|\/)\.\.?(?=\/|$)/g, (dots) => dots.replaceAll(".", "%2E"));
  return is_windows ? safe.replaceAll(":", "%3A") : safe;
}

function write_file(path: string, { text, is_link }: ExportFile): void {
  mkdirSync(dirname(path), { recursive: true });
  if (is_link && !is_windows) symlinkSync(text, path);
  else writeFileSync(path, is_link ? host_path(text) : bytes_of(text));
}

/** Writes RAM behind `head`, leaving holes where pages are zero. Returns the bytes that are no hole. */
function write_ram(path: string, head: Uint8Array = new Uint8Array()): number {
  const pages = e820_end_of_ram_pfn();
  const file = openSync(path, "w");
  let written = 0;
  try {
    writeSync(file, head);
    ftruncateSync(file, head.length + pages * PAGE_SIZE);
    for (let first = 0; first < pages; first++) {
      let end = first;
      while (end < pages && end - first < RUN_PAGES && !page_is_zero(end)) end++;
      if (end === first) continue;
      writeSync(file, ram_read_bytes(first * PAGE_SIZE, (end - first) * PAGE_SIZE), 0, undefined, head.length + first * PAGE_SIZE); // prettier-ignore
      written += end - first;
      first = end - 1;
    }
  } finally {
    closeSync(file);
  }
  return written * PAGE_SIZE;
}

function page_is_zero(pfn: number): boolean {
  const first = pfn * PAGE_WORDS;
  for (let i = first; i < first + PAGE_WORDS; i++) if (ram32[i] !== 0) return false;
  return true;
}

/** The 8-byte words of a variable. */
function words_of(address: Ptr, size: number): string[] {
  const words: string[] = [];
  for (let at = address; at < address + size; at += 8)
    words.push(`0x${hex(ram32[(at >> 2) + 1]! >>> 0, 8)}${hex(ram32[at >> 2]! >>> 0, 8)}`);
  return words;
}

/** A symbol, and where it lies in RAM. */
interface PlacedSymbol extends ElfSymbol {
  readonly address: Ptr;
}

/** Functions, variables, and each CPU's copy of the per-CPU ones. */
function* kernel_symbols(): Generator<PlacedSymbol> {
  for (const { name, address, size } of image_symbols("text"))
    yield { name, va: image_to_virt(address), address, size, kind: "text" };
  for (const { name, address, size } of image_symbols("data"))
    yield { name, va: ptr_to_virt(address), address, size, kind: "data" };
  for (const { name, address, size } of image_symbols("percpu"))
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
      const copy = per_cpu_ptr(address, cpu);
      yield { name: `${name}.cpu${cpu}`, va: ptr_to_virt(copy), address: copy, size, kind: "percpu" };
    }
}

/** A line a symbol. */
function symbols_json(symbols: readonly PlacedSymbol[]): string {
  const line = ({ name, va, address, size }: PlacedSymbol): string =>
    `${JSON.stringify(name)}: ${JSON.stringify({ va: `0x${virt_px(va)}`, u64: words_of(address, size) })}`;
  return `{\n${symbols.map(line).join(",\n")}\n}\n`;
}
