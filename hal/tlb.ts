/**
 * The TLB of each CPU: a small direct-mapped table of translations, as they were when they were last walked.
 *
 *     entry, 16 bytes    page    address of the page, a double (it has 47 bits and a sign)
 *                        word    page frame | usable D X U W       the rights of privilege.ts
 *                        leaf    PCID, level, global, valid        what invalidation asks for
 *
 * A lookup is one index, one comparison and one shift. `usable` is set in entries of the CPU's present PCID and in global
 * ones: a CR3 load goes through the table, so that a hit need not ask. Rights are cached, so an entry stays good for what
 * it allows until something invalidates it, whatever the page tables say by now: to show that is what a TLB is for. What
 * an entry does not allow, a first write to a clean page included, is walked again before it is refused, as processors
 * do. A large page has an entry for each 4 KiB of it that was touched; `invlpg` on any address in it drops them all.
 *
 * The TLB lies in RAM, in the CPU's area. It could be lost at any moment without harm to a kernel, but not without a
 * trace: which accesses set A and D depends on it, so a run that was handed to another realm would differ from one that
 * was not. What instruments count as memory accesses leaves it out: it is read past them.
 *
 * Hits are not counted, which keeps them cheap; misses and walks are.
 * Unlike a PC: one level for data and code; no paging-structure caches, so upper levels are never stale.
 * See: Intel SDM volume 3, 4.10.
 */
import { is_canonical, type CpuId, type Ptr, type Virt } from "./addr.ts";
import { CPU_MASKS, CPU_OFFSET, cpu_register, cpu_regs, cpu_state } from "./cpu.ts";
import { per_cpu_data, per_cpu_ptr } from "./image.ts";
import { RIGHT_USABLE, X86_CR4_PCIDE } from "./privilege.ts";
import { ram } from "./ram.ts";
import { array, struct } from "./struct.ts";
import { general_protection, require_ring_0 } from "./trap.ts";

const TlbEntry = struct("tlb_entry", { page: "u64", word: "u32", leaf: "u32" }, { sizeof: 16 });
const TLB_ENTRIES = 128;
const tlb = per_cpu_data("tlb", {
  pcid: "u32", // of CR3; 0 without CR4.PCIDE
  has_large: "u32", // entries of large pages may be there
  // What it did so far.
  misses: "u32", // accesses to a page of which nothing was known
  walks: "u32", // … and those that walked to set D, or before they failed
  invlpg: "u32", // single pages invalidated
  flushes: "u32", // all, or all of one PCID, invalidated
  cr3_loads: "u32",
  entries: array(TlbEntry, TLB_ENTRIES),
});

const words = new Int32Array(ram.buffer);
const pages = new Float64Array(ram.buffer);
const r = cpu_regs;
const R_CPU_OFFSET = CPU_OFFSET;
const R_CPU_MASKS = CPU_MASKS;
const ENTRIES = tlb.ptr + tlb.entries.offset;
const WORD = TlbEntry.word.offset;
const LEAF = TlbEntry.leaf.offset;
/** An address shifted right by this is the offset of its entry, but for the bits that the mask takes away. */
const INDEX_SHIFT = 12 - 4;
const INDEX_MASK = (TLB_ENTRIES - 1) << 4;
const TLB_BYTES = TLB_ENTRIES * TlbEntry.sizeof;
const PCIDS = 4096;
const LEAF_PCID = PCIDS - 1;
const LEAF_LEVEL_SHIFT = 12;
const LEAF_GLOBAL = 1 << 16;
const LEAF_VALID = 1 << 17;

/** Where `va` is in RAM, if the TLB knows and allows the access; else -1. Hot path. */
export function tlb_hit(va: Virt, access: number): Ptr {
  const low = va | 0;
  const offset = low & 0xfff;
  const entry = ENTRIES + r[R_CPU_OFFSET]! + ((low >>> INDEX_SHIFT) & INDEX_MASK);
  const word = words[(entry + WORD) >> 2]!;
  if (pages[entry >> 3] !== va - offset || ((r[R_CPU_MASKS + access]! >>> word) & 1) === 0) return -1;
  return (word & ~0xfff) | offset;
}

/** True if an entry answers lookups in this PCID. */
function answers(entry: Ptr, pcid: number): boolean {
  const leaf = words[(entry + LEAF) >> 2]!;
  return (leaf & LEAF_VALID) !== 0 && ((leaf & LEAF_GLOBAL) !== 0 || (leaf & LEAF_PCID) === pcid);
}

/** Where `va` is cached if it is. */
function entry_of(va: Virt): Ptr {
  return ENTRIES + r[CPU_OFFSET]! + (((va | 0) >>> INDEX_SHIFT) & INDEX_MASK);
}

/** Counts a walk, and a miss if nothing is known of the page. */
export function tlb_miss(va: Virt): void {
  const entry = entry_of(va);
  count(tlb.walks.offset);
  if (pages[entry >> 3] !== va - (va & 0xfff) || !answers(entry, get(tlb.pcid.offset))) count(tlb.misses.offset);
}

/** Puts in the result of a walk; `level` is that of the leaf. */
export function tlb_fill(va: Virt, frame: Ptr, rights: number, level: number, is_global: boolean): void {
  const entry = entry_of(va);
  const kind = LEAF_VALID | (is_global ? LEAF_GLOBAL : 0);
  pages[entry >> 3] = va - (va & 0xfff);
  words[(entry + WORD) >> 2] = frame | rights | RIGHT_USABLE;
  words[(entry + LEAF) >> 2] = get(tlb.pcid.offset) | (level << LEAF_LEVEL_SHIFT) | kind;
  if (level > 1) set(tlb.has_large.offset, 1);
}

function clear(entry: Ptr): void {
  words[(entry + WORD) >> 2] = 0;
  words[(entry + LEAF) >> 2] = 0;
}

/** Forgets what is known of the page at `va`: in this PCID, and globally. */
export function tlb_drop(va: Virt): void {
  drop(va, get(tlb.pcid.offset), 0);
}

/** Forgets a page of a PCID and global ones there, but none of the `spared` kind (LEAF_GLOBAL, or 0). */
function drop(va: Virt, pcid: number, spared: number): void {
  drop_entry(entry_of(va), va, pcid, spared);
  if (get(tlb.has_large.offset) === 0) return;
  for (let entry = first_entry(), end = entry + TLB_BYTES; entry < end; entry += TlbEntry.sizeof)
    drop_entry(entry, va, pcid, spared);
}

function drop_entry(entry: Ptr, va: Virt, pcid: number, spared: number): void {
  const leaf = words[(entry + LEAF) >> 2]!;
  const page_bytes = 1 << (3 + 9 * ((leaf >> LEAF_LEVEL_SHIFT) & 7));
  const same_page = Math.floor(pages[entry >> 3]! / page_bytes) === Math.floor(va / page_bytes);
  if (same_page && answers(entry, pcid) && (leaf & spared) === 0) clear(entry);
}

/** Forgets all entries of a PCID (or of any: -1) but those of the `spared` kind. */
function flush(pcid: number, spared: number): void {
  count(tlb.flushes.offset);
  for (let entry = first_entry(), end = entry + TLB_BYTES; entry < end; entry += TlbEntry.sizeof) {
    const leaf = words[(entry + LEAF) >> 2]!;
    if ((leaf & spared) === 0 && (pcid < 0 || (leaf & LEAF_PCID) === pcid)) clear(entry);
  }
}

/** Invalidates all entries. */
export function tlb_flush_all(): void {
  flush(-1, 0);
  set(tlb.has_large.offset, 0);
}

/** Invalidates all entries of a PCID but global ones. */
export function tlb_flush_pcid(pcid: number): void {
  flush(pcid, LEAF_GLOBAL);
}

/** Has lookups use the entries of this PCID from now on. */
export function set_tlb_pcid(pcid: number): void {
  set(tlb.pcid.offset, pcid);
  for (let entry = first_entry(), end = entry + TLB_BYTES; entry < end; entry += TlbEntry.sizeof) {
    const at = (entry + WORD) >> 2;
    words[at] = answers(entry, pcid) ? words[at]! | RIGHT_USABLE : words[at]! & ~RIGHT_USABLE;
  }
}

/** INVLPG: invalidates the page at `va`, of this PCID or global, whatever its size. Ring 0. */
export function invlpg(va: Virt): void {
  require_ring_0();
  count(tlb.invlpg.offset);
  if (is_canonical(va)) tlb_drop(va);
}

/** INVPCID type 0: the page at `va` in one PCID; a global one stays. Ring 0. */
export function invpcid_flush_one(pcid: number, va: Virt): void {
  check_pcid(pcid);
  if (!is_canonical(va)) general_protection();
  count(tlb.invlpg.offset);
  drop(va, pcid, LEAF_GLOBAL);
}

/** INVPCID type 1: all of one PCID but global pages. Ring 0. */
export function invpcid_flush_single_context(pcid: number): void {
  check_pcid(pcid);
  tlb_flush_pcid(pcid);
}

/** INVPCID type 2: everything. Ring 0. */
export function invpcid_flush_all(): void {
  require_ring_0();
  tlb_flush_all();
}

/** INVPCID type 3: everything but global pages. Ring 0. */
export function invpcid_flush_all_nonglobals(): void {
  require_ring_0();
  flush(-1, LEAF_GLOBAL);
}

function check_pcid(pcid: number): void {
  require_ring_0();
  const limit = cpu_register(cpu_state.cr4.offset) & X86_CR4_PCIDE ? PCIDS : 1;
  if (!(pcid >= 0 && pcid < limit && Number.isInteger(pcid))) general_protection();
}

export function tlb_count_cr3_load(): void {
  count(tlb.cr3_loads.offset);
}

function first_entry(): Ptr {
  return ENTRIES + r[CPU_OFFSET]!;
}

function get(offset: number): number {
  return words[(tlb.ptr + r[CPU_OFFSET]! + offset) >> 2]!;
}

function set(offset: number, value: number): void {
  words[(tlb.ptr + r[CPU_OFFSET]! + offset) >> 2] = value;
}

function count(offset: number): void {
  set(offset, get(offset) + 1);
}

export interface TlbCounters {
  readonly misses: number;
  readonly walks: number;
  readonly invlpg: number;
  readonly flushes: number;
  readonly cr3_loads: number;
}

/** What the TLB of a CPU did since power-on, modulo 2^32. */
export function tlb_counters(cpu: CpuId): TlbCounters {
  const of = per_cpu_ptr(tlb.ptr, cpu);
  return {
    misses: tlb.misses.get(of),
    walks: tlb.walks.get(of),
    invlpg: tlb.invlpg.get(of),
    flushes: tlb.flushes.get(of),
    cr3_loads: tlb.cr3_loads.get(of),
  };
}
