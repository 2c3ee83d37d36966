/**
 * What an allocation of SIZE bytes costs beyond SIZE, on the buddy allocator alone and on kmalloc: each figure is read
 * off the machine by really taking one and giving it back. Below them what all caches lose at this moment.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../../hal/addr.ts";
import { get_order } from "../../kernel/lib/bitops.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc, virt_to_cache } from "../../mm/kmalloc.ts";
import { compound_order, virt_to_head_page } from "../../mm/page.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { KmemCache, for_each_cache, get_slabinfo } from "../../mm/slab_common.ts";
import { NR_FREE_PAGES, Zone, for_each_populated_zone } from "../../mm/zone.ts";
import { CommandError } from "../commands/registry.ts";
import { pcp_blocks } from "./explain.ts";
import { percent } from "./names.ts";
import type { Usage } from "./view.ts";
import { slab_view } from "./views.ts";

export const FRAG_SIZES: readonly number[] = [24, 100, 300, 700, 1500, 3000, 5000, 9000, 70000];
/** The largest block that the page allocator has. */
export const FRAG_MAX = 4 * 1024 * 1024;

interface Cost {
  readonly given: number;
  readonly lost: number;
}
export interface FragRow {
  readonly size: number;
  readonly buddy: Cost;
  /** `cache` is null above the largest size class: there kmalloc takes pages, as the buddy allocator does. */
  readonly kmalloc: Cost & { readonly cache: string | null };
}
/** What `frag --json` prints. */
export interface FragFigure {
  readonly sizes: FragRow[];
  /** All slabs of all caches. */
  readonly slabs: Usage;
}

/** Pages that are free, in the buddy allocator and on the CPUs' lists, by their counters. */
export function free_pages_counted(): number {
  let pages = 0;
  for (const zone of for_each_populated_zone()) pages += Zone.vm_stat.get(zone, NR_FREE_PAGES);
  for (const { order } of pcp_blocks()) pages += 1 << order;
  return pages;
}

function cost(size: number, given: number): Cost {
  return { given, lost: given - size };
}

function out_of_memory(size: number): CommandError {
  return new CommandError(`frag ${size}: out of memory`);
}

/** Bytes that the free pages fall by when the buddy allocator is asked for `size`. */
function buddy_cost(size: number): Cost {
  const before = free_pages_counted();
  const order = get_order(size);
  const page = alloc_pages(GFP_KERNEL, order);
  if (page === NULL) throw out_of_memory(size);
  const given = (before - free_pages_counted()) * PAGE_SIZE;
  __free_pages(page, order);
  return cost(size, given);
}

function kmalloc_cost(size: number): FragRow["kmalloc"] {
  const object = kmalloc(size, GFP_KERNEL);
  if (object === NULL) throw out_of_memory(size);
  const head = virt_to_head_page(object);
  const cache = virt_to_cache(object);
  const block = slab_view().find_block?.(object, NULL);
  const given = block?.slot ?? (cache === NULL ? PAGE_SIZE << compound_order(head) : KmemCache.size.get(cache));
  kfree(object);
  return { ...cost(size, given), cache: block ? "a block" : cache === NULL ? null : KmemCache.name.get(cache) };
}

function slabs_now(): Usage {
  const { usage } = slab_view();
  if (usage) return usage();
  const sum = { bytes: 0, live: 0, padding: 0, free: 0, tails: 0 };
  for (const cache of for_each_cache()) {
    const { num_objs, live_objs } = get_slabinfo(cache);
    const size = KmemCache.size.get(cache);
    const object_size = KmemCache.object_size.get(cache);
    const slabs = slab_view().slabs_of(cache);
    const bytes = slabs.reduce((total, slab) => total + (PAGE_SIZE << compound_order(slab as Ptr)), 0);
    sum.bytes += bytes;
    sum.live += live_objs * object_size;
    sum.padding += live_objs * (size - object_size);
    sum.free += (num_objs - live_objs) * size;
    sum.tails += bytes - num_objs * size;
  }
  return sum;
}

/** Takes and gives back one of each size. Leaves nothing behind, but perhaps an empty slab. */
export function frag_figure(sizes: readonly number[]): FragFigure {
  const rows = sizes.map((size) => ({ size, buddy: buddy_cost(size), kmalloc: kmalloc_cost(size) }));
  return { sizes: rows, slabs: slabs_now() };
}

function cells({ given, lost }: Cost): string {
  return `${String(given).padStart(9)}${String(lost).padStart(9)}${`${percent(lost, given)} %`.padStart(9)}`;
}

export function draw_frag({ sizes, slabs }: FragFigure): string {
  const lines = [
    "            buddy allocator alone        kmalloc",
    "  asked     given     lost               given     lost           from",
    ...sizes.map(
      ({ size, buddy, kmalloc: slot }) =>
        `${String(size).padStart(7)} ${cells(buddy)}  ${cells(slot)}   ${slot.cache ?? "pages"}`,
    ),
  ];
  const part = (bytes: number): string => `${percent(bytes, slabs.bytes)} %`;
  if (slab_view().usage)
    lines.push(
      "",
      `all pages of blocks now: ${slabs.bytes} bytes: live objects ${part(slabs.live)}, headers and footers ${part(slabs.padding)},`,
      `  free blocks ${part(slabs.free)}`,
    );
  else
    lines.push(
      "",
      `all slabs now: ${slabs.bytes} bytes: live objects ${part(slabs.live)}, their slots' padding ${part(slabs.padding)},`,
      `  free slots ${part(slabs.free)}, ends of slabs ${part(slabs.tails)}`,
    );
  return lines.join("\n");
}
