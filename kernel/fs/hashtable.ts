/**
 * Large hash tables, made at boot and sized by the machine's memory: an array of chain heads in whole pages.
 *
 * Entries: pages of RAM, rounded up to a MiB; halved `scale - 12` times; up to a power of two; at most 1/16 of memory.
 */
import { NULL, PAGE_SIZE, align_up, type Ptr } from "../../hal/addr.ts";
import { GFP_KERNEL, __GFP_NOWARN, __GFP_ZERO } from "../../mm/gfp.ts";
import { __get_free_pages } from "../../mm/page_alloc.ts";
import { MAX_PAGE_ORDER, node_state } from "../../mm/zone.ts";
import { get_order, ilog2, rounddown_pow_of_two, roundup_pow_of_two } from "../lib/bitops.ts";
import { panic } from "../lib/bug.ts";
import { HlistHead, type HlistHeadPtr } from "../lib/hlist.ts";
import { pr_info } from "../lib/printk.ts";

/** Entries of a table on a machine with `nr_pages` pages of RAM. */
export function hash_entries(nr_pages: number, scale: number): number {
  let wanted = align_up(nr_pages, 256);
  wanted = scale > 12 ? Math.floor(wanted / 2 ** (scale - 12)) : wanted * 2 ** (12 - scale);
  const most = Math.floor((nr_pages * PAGE_SIZE) / 16 / HlistHead.sizeof);
  return roundup_pow_of_two(Math.min(Math.max(wanted, PAGE_SIZE / HlistHead.sizeof), rounddown_pow_of_two(most)));
}

/** Makes an empty table; panics without memory. Returns its address and the logarithm of its entries. */
export function alloc_large_system_hash(name: string, scale: number): { table: Ptr; shift: number } {
  let entries = hash_entries(node_state.totalram_pages, scale);
  let table: Ptr = NULL;
  for (; entries > 1; entries /= 2) {
    const order = get_order(entries * HlistHead.sizeof);
    if (order <= MAX_PAGE_ORDER) table = __get_free_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, order);
    if (table !== NULL) break;
  }
  if (table === NULL) panic(`Failed to allocate ${name} hash table`);
  const size = entries * HlistHead.sizeof;
  pr_info(`${name} hash table entries: ${entries} (order: ${get_order(size)}, ${size} bytes, linear)`);
  return { table, shift: ilog2(entries) };
}

/** The chain of a hash value: its upper bits, which are the best mixed. */
export function hash_chain(table: Ptr, shift: number, hash: number): HlistHeadPtr {
  return table + (Math.imul(hash, 0x61c88647) >>> (32 - shift)) * HlistHead.sizeof;
}
