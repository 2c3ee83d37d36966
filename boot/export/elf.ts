/**
 * vmcore and vmlinux: RAM and symbols as ELF64 files, for readelf, gdb and whatever else reads core dumps.
 *
 *     vmcore   [ ELF header | program headers | notes | to the next 4 KiB ] [ RAM from physical 0, sparse ]
 *              a PT_LOAD for each piece of the address space; several may have the same bytes of RAM, as they do in RAM
 *              notes: NT_PRSTATUS of each CPU (there are no general registers: zero), VMCOREINFO
 *     vmlinux  no code, only addresses: sections without bytes, .symtab and .strtab
 *
 *     gdb DIR/vmlinux DIR/vmcore -ex 'x/2gx &init_mm'
 */
import { px, type CpuId, type Virt } from "../../hal/addr.ts";
import { cpu_is_online, nr_cpu_ids } from "../../hal/cpu.ts";
import { DATA_BASE, DATA_BYTES, IMAGE_BASE, PERCPU_BASE, TEXT_BYTES, image_end } from "../../hal/image.ts";
import { VERSION } from "../../kernel/version.ts";
import { KERNEL_IMAGE_BASE, ptr_to_virt, swapper_pg_dir } from "../../mm/kernel_map.ts";
import { Page, mem_map_state } from "../../mm/page.ts";
import type { Mapping } from "./mmu.ts";

const EHDR = 64;
const PHDR = 56;
const SHDR = 64;
const SYM = 24;
const ET_EXEC = 2;
const ET_CORE = 4;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PAGE = 4096;
/** Mappings beyond this number are left out: more program headers would need a form that few tools read. */
const MAX_PHDRS = 0xfffd;

/** Little-endian fields one after another. */
class Bytes {
  private readonly parts: Buffer[] = [];
  length = 0;
  add(part: Buffer): this {
    this.parts.push(part);
    this.length += part.length;
    return this;
  }
  u8(...values: number[]): this {
    return this.add(Buffer.from(values));
  }
  u16(...values: number[]): this {
    for (const value of values) this.u8(value & 0xff, value >> 8);
    return this;
  }
  u32(...values: number[]): this {
    for (const value of values) this.u16(value & 0xffff, value >>> 16);
    return this;
  }
  /** Whole numbers below 2^53, or addresses, which are signed. */
  u64(...values: number[]): this {
    for (const value of values) this.u32((value % 2 ** 32) | 0, Math.floor(value / 2 ** 32) | 0);
    return this;
  }
  pad_to(length: number): this {
    return this.add(Buffer.alloc(length - this.length));
  }
  done(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function elf_header(type: number, phnum: number, shoff: number, shnum: number): Bytes {
  const file = new Bytes().u8(0x7f, 0x45, 0x4c, 0x46, 2, 1, 1).pad_to(16); // 64 bits, little-endian
  file
    .u16(type, EM_X86_64)
    .u32(1)
    .u64(0, phnum > 0 ? EHDR : 0, shoff)
    .u32(0);
  return file.u16(EHDR, PHDR, phnum, SHDR, shnum, Math.max(shnum - 1, 0));
}

/* vmcore */

/** A note: name and contents, each padded to 4 bytes. */
function note(name: string, type: number, contents: Buffer): Buffer {
  const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
  const owner = Buffer.from(`${name}\0`);
  return Buffer.concat([new Bytes().u32(owner.length, contents.length, type).done(), padded(owner), padded(contents)]);
}

const NT_PRSTATUS = 1;
const PRSTATUS_BYTES = 336;
const PR_PID = 32;
const PR_REG = 112;
/** Numbers of registers in elf_gregset_t. */
const REG_RIP = 16;
const REG_CS = 17;
const REG_SS = 20;

/** A CPU, which gdb shows as thread CPU + 1; without registers it stands at the first byte of the text. */
function prstatus(cpu: CpuId): Buffer {
  const bytes = Buffer.alloc(PRSTATUS_BYTES);
  bytes.writeUInt32LE(cpu + 1, PR_PID);
  new Bytes()
    .u64(KERNEL_IMAGE_BASE)
    .done()
    .copy(bytes, PR_REG + 8 * REG_RIP);
  bytes.writeUInt32LE(0x10, PR_REG + 8 * REG_CS);
  bytes.writeUInt32LE(0x18, PR_REG + 8 * REG_SS);
  return note("CORE", NT_PRSTATUS, bytes);
}

/** What tools want to know of the kernel before they have read anything. */
function vmcoreinfo(): Buffer {
  const text = [
    `OSRELEASE=${VERSION}`, `PAGESIZE=${PAGE}`, `SYMBOL(swapper_pg_dir)=${px(swapper_pg_dir())}`,
    `SYMBOL(mem_map)=${px(mem_map_state.$at("mem_map"))}`, `SIZE(page)=${Page.sizeof}`,
    ...Page.layout.map(({ name, offset }) => `OFFSET(page.${name})=${offset}`),
    `NUMBER(phys_base)=${IMAGE_BASE - 0x1000000}`, "NUMBER(pgtable_l5_enabled)=0",
  ].join("\n"); // prettier-ignore
  return note("VMCOREINFO", 0, Buffer.from(`${text}\n`));
}

function notes(): Buffer {
  const cpus = Array.from({ length: nr_cpu_ids() }, (_, cpu) => cpu).filter(cpu_is_online);
  return Buffer.concat([...cpus.map(prstatus), vmcoreinfo()]);
}

/** What stands before RAM in vmcore; its length is where RAM begins. */
export function vmcore_head(mappings: readonly Mapping[], ram_bytes: number): Buffer {
  const loads = mappings.slice(0, MAX_PHDRS);
  const note_bytes = notes();
  const note_offset = EHDR + (loads.length + 1) * PHDR;
  const ram_offset = Math.ceil((note_offset + note_bytes.length) / PAGE) * PAGE;
  const file = elf_header(ET_CORE, loads.length + 1, 0, 0);
  file.u32(PT_NOTE, 0).u64(note_offset, 0, 0, note_bytes.length, note_bytes.length, 4);
  for (const { start, end, pa, flags } of loads) {
    const bytes = end - start;
    const in_file = Math.max(0, Math.min(bytes, ram_bytes - pa));
    const bits = (flags.includes("r") ? 4 : 0) | (flags.includes("w") ? 2 : 0) | (flags.includes("x") ? 1 : 0);
    file.u32(PT_LOAD, bits).u64(ram_offset + pa, start, pa, in_file, bytes, PAGE);
  }
  return file.add(note_bytes).pad_to(ram_offset).done();
}

/* vmlinux */

/** A symbol of the kernel. */
export interface ElfSymbol {
  readonly name: string;
  readonly va: Virt;
  readonly size: number;
  readonly kind: "text" | "data" | "percpu";
}
const SECTION: Readonly<Record<ElfSymbol["kind"], number>> = Object.freeze({ text: 1, data: 2, percpu: 3 });
const SHT_SYMTAB = 2;
const SHT_STRTAB = 3;
const SHT_NOBITS = 8;
const SHF_WRITE = 1;
const SHF_ALLOC = 2;
const SHF_EXECINSTR = 4;
const STB_GLOBAL = 0x10;
const STT_OBJECT = 1;
const STT_FUNC = 2;

/** Names and where each begins; the first is empty. */
function string_table(names: readonly string[]): { bytes: Buffer; at: number[] } {
  const at: number[] = [];
  let length = 1;
  for (const name of names) {
    at.push(length);
    length += Buffer.byteLength(name) + 1;
  }
  return { bytes: Buffer.from(`\0${names.map((name) => `${name}\0`).join("")}`), at };
}

/** The whole file. */
export function vmlinux(symbols: readonly ElfSymbol[]): Buffer {
  const strings = string_table(symbols.map(({ name }) => name));
  const names = string_table([".text", ".data", ".data..percpu", ".symtab", ".strtab", ".shstrtab"]);
  const table = new Bytes().pad_to(SYM);
  for (const [i, { va, size, kind }] of symbols.entries())
    table
      .u32(strings.at[i]!)
      .u8(STB_GLOBAL | (kind === "text" ? STT_FUNC : STT_OBJECT), 0)
      .u16(SECTION[kind])
      .u64(va, size);
  const symtab = EHDR;
  const strtab = symtab + table.length;
  const shstrtab = strtab + strings.bytes.length;
  const shoff = Math.ceil((shstrtab + names.bytes.length) / 8) * 8;
  const file = elf_header(ET_EXEC, 0, shoff, 7).add(table.done()).add(strings.bytes).add(names.bytes).pad_to(shoff);
  let nth = 0;
  const section = (type: number, flags: number, va: Virt, at: number, size: number, link: number, info: number, align: number, each: number): void =>
    void file.u32(names.at[nth++]!, type).u64(flags, va, at, size).u32(link, info).u64(align, each); // prettier-ignore
  file.pad_to(shoff + SHDR); // section 0 is none
  const percpu = image_end(nr_cpu_ids()) - PERCPU_BASE;
  section(SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, KERNEL_IMAGE_BASE, EHDR, TEXT_BYTES, 0, 0, 16, 0);
  section(SHT_NOBITS, SHF_ALLOC | SHF_WRITE, ptr_to_virt(DATA_BASE), EHDR, DATA_BYTES, 0, 0, 64, 0);
  section(SHT_NOBITS, SHF_ALLOC | SHF_WRITE, ptr_to_virt(PERCPU_BASE), EHDR, percpu, 0, 0, 64, 0);
  section(SHT_SYMTAB, 0, 0, symtab, table.length, 5, 1, 8, SYM);
  section(SHT_STRTAB, 0, 0, strtab, strings.bytes.length, 0, 0, 1, 0);
  section(SHT_STRTAB, 0, 0, shstrtab, names.bytes.length, 0, 0, 1, 0);
  return file.done();
}
