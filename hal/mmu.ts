/**
 * Memory by virtual address: loads, stores, fetches and block copies, as this CPU makes them at this moment.
 *
 * An access, in order of service:
 *     1  the TLB knows the page and allows the access (tlb.ts)          a few loads and a shift
 *     2  not canonical: #GP.  Paging is off: the address is physical
 *     3  a walk of the page tables (page_walk.ts); the TLB keeps the result
 *     4  a trap: the kernel's handler puts it right and the access starts over, or the access fails (trap.ts)
 *
 * How an access fails: loads, stores and fetches throw a `Trap`; `mmu_translate` returns -1, and block operations the
 * number of bytes they did not do. What they did up to there stays done.
 *
 * An access may have any alignment. One that crosses into another page has both translated before a byte is touched, and
 * starts over after a trap at either: handling the second may have taken the first away.
 *
 * See: hal/README.md; Intel SDM volume 3, chapter 4.
 */
import { PAGE_SIZE, is_canonical, type Phys, type Ptr, type Virt } from "./addr.ts";
import { read_cr0 } from "./control_regs.ts";
import {
  WALK_FRAME, WALK_GLOBAL, WALK_LEVEL, WALK_NO_RAM, WALK_OK, WALK_RIGHTS, page_walk, phys_is_backed, walk_regs,
} from "./page_walk.ts"; // prettier-ignore
import { MMU_FETCH, MMU_READ, MMU_WRITE, X86_CR0_PG } from "./privilege.ts";
import { ram16, ram32, ram8, ram_copy, ram_fill } from "./ram.ts";
import { tlb_drop, tlb_fill, tlb_hit, tlb_miss } from "./tlb.ts";
import { Trap, X86_TRAP_GP, X86_TRAP_MC, X86_TRAP_PF, deliver } from "./trap.ts";

const m8 = ram8;
const m16 = ram16;
const m32 = ram32;
const hit_of = tlb_hit;
const READ = MMU_READ;
const WRITE = MMU_WRITE;
const FETCH = MMU_FETCH;
/** Bits of what tlb_hit returns that send an access the slow way: the sign (no hit), and those of a bad alignment. */
const SLOW_16 = 0x80000001 | 0;
const SLOW_32 = 0x80000003 | 0;
const SLOW_64 = 0x80000007 | 0;
const TWO_32 = 0x100000000;
/** A handler that says "resolved" so often for one access is broken; a PC would hang. */
const MAX_TRIES = 100;

/** The trap that the last failed translation met: vector, error code, address. Registers, read before anything else runs. */
const trap_regs = new Float64Array(new ArrayBuffer(24));
/** Where an access of several bytes lies: first byte, first byte in the second page, bytes before that. Registers. */
const span = new Int32Array(new ArrayBuffer(12));

function set_trap(vector: number, error_code: number, address: Virt): -1 {
  trap_regs[0] = vector;
  trap_regs[1] = error_code;
  trap_regs[2] = address;
  return -1;
}

/** One try to translate: where `va` is in RAM, or -1 with the trap in `trap_regs`. */
function translate_once(va: Virt, access: number): Ptr {
  const hit = tlb_hit(va, access);
  if (hit >= 0) return hit;
  if (!is_canonical(va)) return set_trap(X86_TRAP_GP, 0, va);
  if (read_cr0() < X86_CR0_PG)
    return phys_is_backed(va | 0, Math.floor(va / TWO_32)) ? va : set_trap(X86_TRAP_MC, 0, va);
  tlb_miss(va);
  const code = page_walk(va, access);
  if (code === WALK_OK) {
    const frame = walk_regs[WALK_FRAME]!;
    tlb_fill(va, frame, walk_regs[WALK_RIGHTS]!, walk_regs[WALK_LEVEL]!, walk_regs[WALK_GLOBAL] !== 0);
    return frame | (va & 0xfff);
  }
  tlb_drop(va);
  return code === WALK_NO_RAM ? set_trap(X86_TRAP_MC, 0, va) : set_trap(X86_TRAP_PF, code, va);
}

/** Hands the trap to the kernel. True if the access is to be tried again; if not, `trap_regs` still tells why. */
function resolved(tries: number): boolean {
  const vector = trap_regs[0]!;
  const error_code = trap_regs[1]!;
  const address = trap_regs[2]!;
  if (tries >= MAX_TRIES)
    throw new Error(`${new Trap(vector, error_code, address).message}: resolved, but still there`);
  if (deliver(vector, error_code, address)) return true;
  set_trap(vector, error_code, address); // the handler's own accesses may have met others
  return false;
}

/**
 * Where `va` is in RAM for an access of this kind, good to the end of its 4 KiB page; -1 if the kernel says that it may
 * not be. Sets A, and D for a write.
 */
export function mmu_translate(va: Virt, access: number): Phys {
  for (let tries = 0; ; tries++) {
    const at = translate_once(va, access);
    if (at >= 0 || !resolved(tries)) return at;
  }
}

/** Translates an access of a few bytes into `span`; throws a Trap if it cannot be. */
function reach(va: Virt, bytes: number, access: number): void {
  const first_bytes = Math.min(bytes, PAGE_SIZE - (va & 0xfff));
  for (let tries = 0; ; tries++) {
    const first = translate_once(va, access);
    const second = first >= 0 && first_bytes < bytes ? translate_once(va + first_bytes, access) : first;
    if (second >= 0) {
      span[0] = first;
      span[1] = second;
      span[2] = first_bytes;
      return;
    }
    if (!resolved(tries)) throw new Trap(trap_regs[0]!, trap_regs[1]!, trap_regs[2]!);
  }
}

function byte_at(i: number): Ptr {
  return i < span[2]! ? span[0]! + i : span[1]! + i - span[2]!;
}

/** Bytes `from` … of what `span` reaches, at most 4, as a little-endian number. */
function gather(from: number, bytes: number): number {
  let value = 0;
  for (let i = bytes - 1; i >= 0; i--) value = (value << 8) | m8[byte_at(from + i)]!;
  return value;
}

function scatter(from: number, value: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) m8[byte_at(from + i)] = value >>> (8 * i);
}

function load_slow(va: Virt, bytes: number): number {
  reach(va, bytes, READ);
  return gather(0, bytes);
}

function store_slow(va: Virt, value: number, bytes: number): void {
  reach(va, bytes, WRITE);
  scatter(0, value, bytes);
}

/** Loads a byte, 0 .. 255. Hot path. */
export function mmu_load8(va: Virt): number {
  const at = hit_of(va, READ);
  return at >= 0 ? m8[at]! : load_slow(va, 1);
}

/** Loads 16 bits, 0 .. 65535. Hot path. */
export function mmu_load16(va: Virt): number {
  const at = hit_of(va, READ);
  return (at & SLOW_16) === 0 ? m16[at >> 1]! : load_slow(va, 2);
}

/** Loads a word, signed. Hot path. */
export function mmu_load32(va: Virt): number {
  const at = hit_of(va, READ);
  return (at & SLOW_32) === 0 ? m32[at >> 2]! : load_slow(va, 4);
}

/** Loads 64 bits as a signed number: exact for addresses and whatever else stays within 2^53. Hot path. */
export function mmu_load64(va: Virt): number {
  const at = hit_of(va, READ);
  return (at & SLOW_64) === 0 ? m32[(at >> 2) + 1]! * TWO_32 + (m32[at >> 2]! >>> 0) : load64_slow(va);
}

function load64_slow(va: Virt): number {
  reach(va, 8, READ);
  return gather(4, 4) * TWO_32 + (gather(0, 4) >>> 0);
}

/** Stores a byte. Hot path. */
export function mmu_store8(va: Virt, value: number): void {
  const at = hit_of(va, WRITE);
  if (at >= 0) m8[at] = value;
  else store_slow(va, value, 1);
}

/** Stores 16 bits. Hot path. */
export function mmu_store16(va: Virt, value: number): void {
  const at = hit_of(va, WRITE);
  if ((at & SLOW_16) === 0) m16[at >> 1] = value;
  else store_slow(va, value, 2);
}

/** Stores a word. Hot path. */
export function mmu_store32(va: Virt, value: number): void {
  const at = hit_of(va, WRITE);
  if ((at & SLOW_32) === 0) m32[at >> 2] = value;
  else store_slow(va, value, 4);
}

/** Stores 64 bits of a whole number, negative ones in two's complement. Hot path. */
export function mmu_store64(va: Virt, value: number): void {
  const at = hit_of(va, WRITE);
  if ((at & SLOW_64) === 0) {
    m32[at >> 2] = value;
    m32[(at >> 2) + 1] = Math.floor(value / TWO_32);
  } else store64_slow(va, value);
}

function store64_slow(va: Virt, value: number): void {
  reach(va, 8, WRITE);
  scatter(0, value, 4);
  scatter(4, Math.floor(value / TWO_32), 4);
}

/** Fetches a byte of an instruction. */
export function mmu_fetch(va: Virt): number {
  reach(va, 1, FETCH);
  return m8[span[0]!]!;
}

/** Does `act` for each piece of a range that lies in one page, as far as translation goes. Returns bytes not done. */
function for_each_piece(
  va: Virt,
  bytes: number,
  access: number,
  act: (at: Ptr, done: number, piece: number) => void,
): number {
  for (let done = 0; done < bytes;) {
    const at = mmu_translate(va + done, access);
    if (at < 0) return bytes - done;
    const piece = Math.min(bytes - done, PAGE_SIZE - (at & 0xfff));
    act(at, done, piece);
    done += piece;
  }
  return 0;
}

/** Copies from virtual memory to the direct map. Returns how many bytes it could not copy. */
export function mmu_copy_from(to: Ptr, va: Virt, bytes: number): number {
  return for_each_piece(va, bytes, READ, (at, done, piece) => ram_copy(to + done, at, piece));
}

/** Copies from the direct map to virtual memory. Returns how many bytes it could not copy. */
export function mmu_copy_to(va: Virt, from: Ptr, bytes: number): number {
  return for_each_piece(va, bytes, WRITE, (at, done, piece) => ram_copy(at, from + done, piece));
}

/** Fills virtual memory with one byte value. Returns how many bytes it could not fill. */
export function mmu_fill(va: Virt, value: number, bytes: number): number {
  return for_each_piece(va, bytes, WRITE, (at, _done, piece) => ram_fill(at, value, piece));
}
