/**
 * One moment of the whole kernel as files on the host.
 *
 *     proc/… sys/…    what /proc and /sys say, from the same producers as `cat`; links are links
 *     ram.img         physical RAM from address 0, sparse
 *     symbols.json    name -> virtual address, and its words: statics, per-CPU variables (NAME.cpuN), functions
 *
 * Context: between two kernel entries. The producers write into host memory and take nothing from the kernel, so all
 * files agree to the page and to the object, and exporting changes nothing.
 *
 * On Windows `:` in a name is `%3A`, and a link is a text file that holds its target.
 * Not there yet, as they need page tables: mmu.json, vmcore.
 */
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readdirSync, rmSync, symlinkSync, writeFileSync, writeSync } from "node:fs"; // prettier-ignore
import { dirname, join } from "node:path";
import { PAGE_SIZE, hex, px, type Ptr } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { image_symbols, per_cpu_ptr } from "../hal/image.ts";
import { ram32, ram_read_bytes } from "../hal/ram.ts";
import { bytes_of } from "../kernel/fs/bytes.ts";
import { S_IFLNK, S_IFMT } from "../kernel/fs/fs.ts";
import { proc_walk } from "../kernel/fs/procfs.ts";
import { sysfs_walk } from "../kernel/fs/sysfs.ts";
import { text_px } from "../kernel/lib/ksym.ts";
import { e820_end_of_ram_pfn } from "../mm/e820.ts";

const PAGE_WORDS = PAGE_SIZE / 4;
/** Pages that are written at once. */
const RUN_PAGES = 256;
const NAMES = ["proc", "sys", "ram.img", "symbols.json"];

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

/** Writes the export, in place of an earlier one. Throws what the host's file system does. */
export function export_to(folder: string): ExportFigures {
  for (const name of NAMES) rmSync(join(folder, name), { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const texts = export_texts();
  for (const [path, file] of texts) write_file(join(folder, host_path(path)), file);
  writeFileSync(join(folder, "symbols.json"), symbols_json());
  const links = [...texts.values()].filter(({ is_link }) => is_link).length;
  return { files: texts.size - links, links, ...write_ram(join(folder, "ram.img")) };
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

/** Writes RAM, leaving holes where pages are zero. */
function write_ram(path: string): { ram_bytes: number; ram_bytes_written: number } {
  const pages = e820_end_of_ram_pfn();
  const file = openSync(path, "w");
  let written = 0;
  try {
    ftruncateSync(file, pages * PAGE_SIZE);
    for (let first = 0; first < pages; first++) {
      let end = first;
      while (end < pages && end - first < RUN_PAGES && !page_is_zero(end)) end++;
      if (end === first) continue;
      writeSync(file, ram_read_bytes(first * PAGE_SIZE, (end - first) * PAGE_SIZE), 0, undefined, first * PAGE_SIZE);
      written += end - first;
      first = end - 1;
    }
  } finally {
    closeSync(file);
  }
  return { ram_bytes: pages * PAGE_SIZE, ram_bytes_written: written * PAGE_SIZE };
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

/** A line a symbol. */
function symbols_json(): string {
  const lines: string[] = [];
  const add = (name: string, va: string, address: Ptr, size: number): void =>
    void lines.push(`${JSON.stringify(name)}: ${JSON.stringify({ va: `0x${va}`, u64: words_of(address, size) })}`);
  for (const { name, address, size } of image_symbols("text")) add(name, text_px(address), address, size);
  for (const { name, address, size } of image_symbols("data")) add(name, px(address), address, size);
  for (const { name, address, size } of image_symbols("percpu"))
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
      const copy = per_cpu_ptr(address, cpu);
      add(`${name}.cpu${cpu}`, px(copy), copy, size);
    }
  return `{\n${lines.join(",\n")}\n}\n`;
}
