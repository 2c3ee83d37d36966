/** What the memblock tests share: a fresh memblock without a machine, and the memory of Linux's memblock simulator. */
import { expect } from "vitest";
import { image_load } from "../../hal/image.ts";
import { ram8, ram_fill } from "../../hal/ram.ts";
import { setup_command_line } from "../../kernel/lib/cmdline.ts";
import {
  MemblockType,
  PHYS_ADDR_MAX,
  for_each_mem_region,
  memblock_add,
  memblock_init,
  type TypePtr,
} from "../../mm/memblock.ts";

export const K = 1024;
export const M = 1024 * K;
export const G = 1024 * M;
export const MAX = PHYS_ADDR_MAX;
/** A cache line, the simulator's alignment. */
export const C = 64;
/** The simulator's memory: [D, E), 32 KiB. It lies in RAM, so that zeroing can be seen. */
export const D = 16 * M;
export const E = D + 32 * K;

export type Pair = readonly [base: number, size: number];

/** A fresh memblock, as at power-on. */
export function reset(command_line = ""): void {
  image_load(1);
  setup_command_line(command_line);
  memblock_init();
}
export function regions(type: TypePtr): Pair[] {
  return [...for_each_mem_region(type)].map(({ base, size }) => [base, size] as const);
}
export function count(type: TypePtr): number {
  return MemblockType.cnt.get(type);
}
export function total(pairs: readonly Pair[]): number {
  return pairs.reduce((sum, [, size]) => sum + size, 0);
}
export function expect_regions(type: TypePtr, expected: readonly Pair[]): void {
  expect(regions(type)).toEqual(expected);
  expect(count(type)).toBe(expected.length);
  expect(MemblockType.total_size.get(type)).toBe(total(expected));
}

/** A garbage-filled DRAM of 32 KiB. */
export function dram(): void {
  memblock_add(D, 32 * K);
  ram_fill(D, 0x5a, 32 * K);
}
export function is_zero(ptr: number, size: number): boolean {
  return ram8.subarray(ptr, ptr + size).every((byte) => byte === 0);
}
