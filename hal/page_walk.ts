/**
 * Page tables: the form of an entry, and the walk from CR3 to the page.
 *
 *     63  62..52  51..40    39..12     11..9   8  7   6  5   4   3  2  1  0       an entry: lo and hi word in RAM
 *     NX    -    reserved   address      -     G  PS  D  A  PCD PWT US RW P       (-: ignored, the kernel's own)
 *
 *     level   4 PGD   3 PUD   2 PMD   1 PTE       each table: one page, 512 entries
 *     index   47..39  38..30  29..21  20..12      of the address; bits 11..0 are the place in the page
 *     leaf            1 GiB   2 MiB   4 KiB       PS set at level 3 or 2; at level 1 every entry is one (bit 7 is PAT)
 *
 * The walk, at each level:
 *     1  not present                                            -> #PF, P clear
 *     2  a reserved bit: 51..40, NX without EFER.NXE, PS in a PGD entry, address bits below a large page's size -> #PF, RSVD
 *     3  rights so far: writable and user if every level says so, executable if no level says NX
 *     4  leaf: refused by the rights (privilege.ts) -> #PF, P set; else A, and D for a write, are set
 *     5  table: A is set, whatever comes below; on to the next level
 *
 * A physical address at which the firmware's map has nothing is a machine check, of a table as of a page.
 *
 * Locks: none; A and D are set by compare-and-swap, and a walk that loses the race starts again. Under threads, whoever
 * makes an entry present writes its high word first.
 * Unlike a PC: always 4 levels; PWT, PCD and PAT change nothing. 1 GiB pages are there, protection keys are not.
 * See: Intel SDM volume 3, 4.5 (4-level paging), 4.7, 4.8 (accessed and dirty flags).
 */
import { virt_hi, type Phys, type Virt } from "./addr.ts";
import { cmpxchg } from "./atomic.ts";
import { PHYS_BITS } from "./control_regs.ts";
import { cpu_register, cpu_state } from "./cpu.ts";
import { BOOT_PARAMS, BP_E820_ENTRIES, BP_E820_TABLE, E820_ENTRY_BYTES } from "./firmware.ts";
import {
  EFER_NX, MMU_FETCH, MMU_WRITE, RIGHT_D, RIGHT_U, RIGHT_W, RIGHT_X, X86_CR4_PGE, X86_CR4_SMEP, access_allowed, cpl,
} from "./privilege.ts"; // prettier-ignore
import { ram, ram32 } from "./ram.ts";
import { X86_PF_INSTR, X86_PF_PROT, X86_PF_RSVD, X86_PF_USER, X86_PF_WRITE } from "./trap.ts";

/** Bits of an entry's low word. */
export const _PAGE_PRESENT = 1;
export const _PAGE_RW = 2;
export const _PAGE_USER = 4;
export const _PAGE_PWT = 8;
export const _PAGE_PCD = 0x10;
export const _PAGE_ACCESSED = 0x20;
export const _PAGE_DIRTY = 0x40;
export const _PAGE_PSE = 0x80;
export const _PAGE_GLOBAL = 0x100;
/** Bit 63, in the high word. */
export const _PAGE_NX_HI = 0x80000000 | 0;
/** Reserved bits of the high word. */
const RESERVED_HI = (0x100000 - 2 ** (PHYS_BITS - 32)) | 0;
/** Address bits of the high word. */
const ADDRESS_HI = 2 ** (PHYS_BITS - 32) - 1;
const PGD_LEVEL = 4;
const TWO_32 = 0x100000000;

const m = ram32;
const words = new Int32Array(ram.buffer);
const CR3 = cpu_state.cr3.offset;
const CR4 = cpu_state.cr4.offset;
const EFER = cpu_state.efer.offset;

/** What a walk found. Registers: read at once by whoever called it. */
export const walk_regs = new Int32Array(new ArrayBuffer(16));
export const WALK_FRAME = 0; // of the 4 KiB page
export const WALK_RIGHTS = 1; // RIGHT_*
export const WALK_LEVEL = 2; // of the leaf
export const WALK_GLOBAL = 3; // 1 if the leaf is global

/** What a walk returns instead of a page fault's error code. */
export const WALK_OK = -1;
export const WALK_NO_RAM = -2;

/** Which entry of a table of `level` (4 the top, 1 the last) translates `va`. */
export function table_index(va: Virt, level: number): number {
  const lo = va | 0;
  if (level === 1) return (lo >>> 12) & 511;
  if (level === 2) return (lo >>> 21) & 511;
  const hi = virt_hi(va);
  return level === 3 ? ((hi & 0x7f) << 2) | (lo >>> 30) : (hi >>> 7) & 511;
}

/** Bytes that a leaf of `level` maps, less 1: 4 KiB, 2 MiB, 1 GiB. */
function leaf_mask(level: number): number {
  return (1 << (3 + 9 * level)) - 1;
}

function is_leaf(lo: number, level: number): boolean {
  return level === 1 || (level < PGD_LEVEL && (lo & _PAGE_PSE) !== 0);
}

function has_reserved_bits(lo: number, hi: number, level: number): boolean {
  if ((hi & RESERVED_HI) !== 0) return true;
  if (hi < 0 && (cpu_register(EFER) & EFER_NX) === 0) return true;
  if (level === PGD_LEVEL) return (lo & _PAGE_PSE) !== 0;
  return level > 1 && (lo & _PAGE_PSE) !== 0 && (lo & leaf_mask(level) & ~0x1fff) !== 0; // bit 12 is PAT
}

/** True if the machine has memory at a physical address, as the firmware's map says. */
export function phys_is_backed(lo: number, hi: number): boolean {
  if (hi !== 0 || lo < 0) return false;
  const first = BOOT_PARAMS + BP_E820_TABLE;
  const end = first + (words[(BOOT_PARAMS + BP_E820_ENTRIES) >> 2]! & 0xff) * E820_ENTRY_BYTES;
  for (let entry = first; entry < end; entry += E820_ENTRY_BYTES) {
    const start = words[entry >> 2]! >>> 0;
    const size = words[(entry + 8) >> 2]! >>> 0;
    const above = words[(entry + 4) >> 2]!; // an entry that starts above 4 GiB
    if (above === 0 && lo >= start && (lo - start < size || words[(entry + 12) >> 2]! !== 0)) return true;
  }
  return false;
}

function fault_code(access: number, why: number): number {
  let code = why;
  if (access === MMU_WRITE) code |= X86_PF_WRITE;
  if (cpl() !== 0) code |= X86_PF_USER;
  const tells_fetches = (cpu_register(EFER) & EFER_NX) !== 0 || (cpu_register(CR4) & X86_CR4_SMEP) !== 0;
  if (access === MMU_FETCH && tells_fetches) code |= X86_PF_INSTR;
  return code;
}

/**
 * Walks the page tables of this CPU's CR3 for an access in its present ring; sets A and D. `va` is canonical.
 *
 * Returns WALK_OK with the result in `walk_regs`; or WALK_NO_RAM; or the error code of a page fault.
 */
export function page_walk(va: Virt, access: number): number {
  let table = cpu_register(CR3) & ~0xfff;
  let table_hi = cpu_register(CR3 + 4);
  let rights = RIGHT_W | RIGHT_U | RIGHT_X;
  for (let level = PGD_LEVEL; ; level--) {
    if (!phys_is_backed(table, table_hi)) return WALK_NO_RAM;
    const at = table + 8 * table_index(va, level);
    const lo = m[at >> 2]!;
    const hi = m[(at + 4) >> 2]!;
    if ((lo & _PAGE_PRESENT) === 0) return fault_code(access, 0);
    if (has_reserved_bits(lo, hi, level)) return fault_code(access, X86_PF_PROT | X86_PF_RSVD);
    if ((lo & _PAGE_RW) === 0) rights &= ~RIGHT_W;
    if ((lo & _PAGE_USER) === 0) rights &= ~RIGHT_U;
    if (hi < 0) rights &= ~RIGHT_X;
    const leaf = is_leaf(lo, level);
    if (leaf && !access_allowed(rights, access)) return fault_code(access, X86_PF_PROT);
    const marked = lo | _PAGE_ACCESSED | (leaf && access === MMU_WRITE ? _PAGE_DIRTY : 0);
    if (marked !== lo && !cmpxchg(at, lo, marked)) return page_walk(va, access);
    if (leaf) return found(va, marked, hi, level, rights);
    table = lo & ~0xfff;
    table_hi = hi & ADDRESS_HI;
  }
}

function found(va: Virt, lo: number, hi: number, level: number, rights: number): number {
  const mask = leaf_mask(level);
  const frame = (lo & ~mask) | (va & mask & ~0xfff);
  if (!phys_is_backed(frame, hi & ADDRESS_HI)) return WALK_NO_RAM;
  walk_regs[WALK_FRAME] = frame;
  walk_regs[WALK_RIGHTS] = rights | (lo & _PAGE_DIRTY ? RIGHT_D : 0);
  walk_regs[WALK_LEVEL] = level;
  walk_regs[WALK_GLOBAL] = lo & _PAGE_GLOBAL && cpu_register(CR4) & X86_CR4_PGE ? 1 : 0;
  return WALK_OK;
}

export interface PageProbe {
  /** Where the address leads; null if it does not translate. */
  readonly pa: Phys | null;
  /** What the entries allow, whatever ring and control registers make of it. All false without a translation. */
  readonly r: boolean;
  readonly w: boolean;
  readonly x: boolean;
  readonly user: boolean;
  /** Of the leaf, or of the entry at which the walk ended. */
  readonly level: number;
  /** The entries read, from the top table on. */
  readonly entries: readonly { readonly at: Phys; readonly lo: number; readonly hi: number }[];
}

/** Looks an address up in the page tables at `cr3` without a trace: no A, no D, no TLB, no fault. For people and files. */
export function mmu_probe(cr3: Phys, va: Virt): PageProbe {
  const entries: { at: Phys; lo: number; hi: number }[] = [];
  let table = cr3 - (cr3 % 4096);
  let [w, x, user] = [true, true, true];
  for (let level = PGD_LEVEL; ; level--) {
    const missed = { pa: null, r: false, w: false, x: false, user: false, level, entries };
    if (!phys_is_backed(table | 0, Math.floor(table / TWO_32))) return missed;
    const at = table + 8 * table_index(va, level);
    const lo = words[at >> 2]!;
    const hi = words[(at + 4) >> 2]!;
    entries.push({ at, lo: lo >>> 0, hi: hi >>> 0 });
    if ((lo & _PAGE_PRESENT) === 0 || has_reserved_bits(lo, hi, level)) return missed;
    w &&= (lo & _PAGE_RW) !== 0;
    user &&= (lo & _PAGE_USER) !== 0;
    x &&= hi >= 0;
    const mask = is_leaf(lo, level) ? leaf_mask(level) : 0xfff;
    table = ((lo & ~mask) >>> 0) + (hi & ADDRESS_HI) * TWO_32;
    if (is_leaf(lo, level)) return { pa: table + (va & mask), r: true, w, x, user, level, entries };
  }
}
