/**
 * Addresses and quantities: the tagged types that keep a page number from being used as an address.
 *
 * A kernel pointer is a byte address in the direct map with PAGE_OFFSET left off, so it is also the physical address:
 * an int32 below 2 GiB. 0 is NULL, -1..-4095 are error pointers. People see the canonical form, ffff888000123400.
 *
 *     Ptr<"page">  0x00123400            what the kernel computes with
 *     %px          ffff888000123400      what is printed, and typed on the console
 *     Pfn          0x123                 Ptr >>> PAGE_SHIFT
 *     Virt         -0x370000000000       ffffc90000000000: vmalloc and user addresses, for the MMU (hal/mmu.ts)
 *
 * `Phys` and `Pfn` of machines that are only computed with (not emulated) may lie above 2^31: they are plain
 * non-negative numbers and never meet a bit operator; use the helpers here.
 */

declare const tag: unique symbol;

/** RAM address of a T; 0 is NULL. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- an untagged Ptr goes either way, as void * does
export type Ptr<T extends string = any> = number & { readonly [tag]?: T };
/** An object handed out by an allocator: bytes that mean what their owner says, so it goes for any Ptr. */
export type Obj = Ptr;
/** A physical address, 0 .. 2^52 - 1. */
export type Phys = number & { readonly [tag]?: "phys" };
/** A page frame number. */
export type Pfn = number & { readonly [tag]?: "pfn" };
/** A canonical 48-bit virtual address as a signed number: user addresses from 0 up, the kernel's below 0. */
export type Virt = number & { readonly [tag]?: "virt" };
/** The number of a CPU, from 0. */
export type CpuId = number & { readonly [tag]?: "cpu" };
/** The number of a NUMA node, from 0. */
export type NodeId = number & { readonly [tag]?: "node" };

/** No address: 0. */
export const NULL = 0;
/** log2 of a page's bytes. */
export const PAGE_SHIFT = 12;
/** Bytes of a page. */
export const PAGE_SIZE = 4096;
/** A cache line: the unit of sharing between CPUs. */
export const L1_CACHE_BYTES = 64;

/** A pointer as printk's `%px` shows it: 16 hex digits, PAGE_OFFSET included. */
export function px(ptr: Ptr): string {
  return "ffff8880" + (ptr >>> 0).toString(16).padStart(8, "0");
}

/** Reads `%px` form (with or without 0x); NaN where the text is no direct-map address below 2 GiB. */
export function parse_px(text: string): Ptr {
  const match = /^(?:0x)?ffff8880([0-7][0-9a-f]{7})$/i.exec(text);
  return match ? parseInt(match[1]!, 16) : NaN;
}

const TWO_32 = 0x100000000;
/** Bits 63..47 of an address are equal: each half of the address space ends here. */
const VIRT_END = 2 ** 47;

/** The address whose low and high words these are; exact for any canonical one. */
export function virt_of(lo: number, hi: number): Virt {
  return (hi | 0) * TWO_32 + (lo >>> 0);
}

/** The high word; the low one is `va | 0`. */
export function virt_hi(va: Virt): number {
  return Math.floor(va / TWO_32) | 0;
}

/** False for whatever else a program may put for an address: beyond 47 bits, a fraction, NaN. */
export function is_canonical(va: Virt): boolean {
  return va >= -VIRT_END && va < VIRT_END && Number.isInteger(va);
}

/** A virtual address as `%px` shows it: 16 hex digits. */
export function virt_px(va: Virt): string {
  return hex(virt_hi(va) >>> 0, 8) + hex((va | 0) >>> 0, 8);
}

/** Reads hex digits, with or without 0x; NaN where the text is no canonical address. */
export function parse_virt(text: string): Virt {
  const digits = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(text)?.[1]?.padStart(16, "0");
  if (digits === undefined) return NaN;
  const va = virt_of(parseInt(digits.slice(8), 16), parseInt(digits.slice(0, 8), 16));
  return is_canonical(va) ? va : NaN;
}

/** A number as C's `%0Nlx` prints it; exact up to 2^53. */
export function hex(value: number, width = 0): string {
  return value.toString(16).padStart(width, "0");
}

/** Rounds down to a multiple of `align` (any positive number; above 2^31 too). */
export function align_down(value: number, align: number): number {
  return value - (value % align);
}

/** Rounds up to a multiple of `align`. */
export function align_up(value: number, align: number): number {
  return align_down(value + align - 1, align);
}
