/**
 * The seam behind which the free areas of a zone lie: a record of six functions over RAM, chosen when the machine boots
 * (`page_allocator=NAME`, default `buddy`). Who replaces it keeps the format of `zone->free_area` and `struct page`
 * (mm/zone.ts, mm/page.ts): a free block is on the list of its order and type, its head page says PGTY_buddy and the
 * order, NR_FREE_PAGES counts it. Everything above (per-CPU lists, watermarks, the console's map) reads these.
 */
import { type Ptr } from "../hal/addr.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_param } from "../kernel/lib/cmdline.ts";
import { buddy } from "./buddy.ts";
import type { PagePtr } from "./page.ts";
import type { ZonePtr } from "./zone.ts";

/** `alloc`, `alloc_bulk`, `free` and `move_block` are called with zone->lock held. */
export interface PageAllocator {
  readonly name: string;
  /** Empties the free areas of a zone. */
  init(zone: ZonePtr): void;
  /** Takes a block of 2^order pages; 0 if there is none. `flags` are ALLOC_*. */
  alloc(zone: ZonePtr, order: number, migratetype: number, flags: number): PagePtr;
  /** Takes up to `count` blocks and appends them to `list` by page->lru; returns how many. */
  alloc_bulk(zone: ZonePtr, order: number, migratetype: number, flags: number, count: number, list: Ptr): number;
  /** Takes back 2^order pages that nobody refers to; `flags` are FPI_*. */
  free(zone: ZonePtr, page: PagePtr, order: number, flags: number): void;
  /**
   * Moves the free pages of a page block from one type's lists to another's and retags it; -1 if it leaves the zone.
   * To and from MIGRATE_ISOLATE it moves that page block alone, though it be half of a free block.
   */
  move_block(zone: ZonePtr, page: PagePtr, from: number, to: number): number;
  /** What is wrong with the free areas of a zone, a line each. */
  check(zone: ZonePtr): string[];
}

const implementations: Record<string, PageAllocator> = { buddy };
// eslint-disable-next-line kheap/no-module-state -- code, not state: follows from the command line in RAM
let current: PageAllocator = buddy;

/** Makes another implementation known, before boot. */
export function register_page_allocator(ops: PageAllocator): void {
  implementations[ops.name] = ops;
}

/** Chooses by the command line. Context: boot, and a realm that attaches. */
export function choose_page_allocator(): void {
  const name = cmdline_param("page_allocator") ?? "buddy";
  current =
    implementations[name] ?? panic(`page_allocator=${name}: there is ${Object.keys(implementations).join(", ")}`);
}

/** The implementation that this machine was booted with. */
export function page_allocator(): PageAllocator {
  return current;
}
