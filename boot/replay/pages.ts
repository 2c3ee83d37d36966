/**
 * The page side of a replay: takes blocks, gives them back whole or in parts, and keeps the books.
 *
 * Every call is checked on the spot: the counters of pages handed out and taken back must have moved by the pages of
 * the line, and the free pages (those that CPUs keep ready among them) by what the counters say. While it lives the
 * first word of each page carries the pattern of its block. Blocks are asked for without __GFP_COMP, since a compound
 * page cannot come back in parts; the recorded kernel took such pages apart first.
 */
import { PAGE_SIZE, type Obj } from "../../hal/addr.ts";
import { __GFP_COMP } from "../../mm/gfp.ts";
import { Page, page_address, type PagePtr } from "../../mm/page.ts";
import { page_counters } from "./measure.ts";
import type { ReplayOps } from "./ops.ts";
import { pattern_fault, pattern_write } from "./pattern.ts";

interface PageBlock {
  readonly page: PagePtr;
  readonly order: number;
  /** 1 for each page that is live. */
  readonly live: Uint8Array;
}

export class Pages {
  readonly blocks = new Map<number, PageBlock>();
  failed = 0;
  live_pages = 0;
  peak_live_pages = 0;
  private readonly ops: ReplayOps;
  private readonly fail: (what: string) => never;

  constructor(ops: ReplayOps, fail: (what: string) => never) {
    this.ops = ops;
    this.fail = fail;
  }

  /** Takes block `number`. */
  alloc(number: number, order: number, gfp: number): void {
    const before = page_counters();
    const page = this.ops.alloc_pages(gfp & ~__GFP_COMP, order);
    if (page === 0) {
      this.failed++;
      return;
    }
    const block = { page, order, live: new Uint8Array(1 << order).fill(1) };
    this.blocks.set(number, block);
    this.live_pages += this.moved("allocs", before, 1 << order, number);
    this.peak_live_pages = Math.max(this.peak_live_pages, this.live_pages);
    block.live.forEach((_, i) => pattern_write(address_of(block, i), 8, number));
  }

  /** Gives back `pages` pages of a block from page `offset` on; nothing if the block could not be had. */
  free(number: number, offset: number, pages: number): void {
    const block = this.blocks.get(number);
    if (!block) return;
    this.check(number, block, offset, pages);
    const before = page_counters();
    if (pages === block.live.length) this.ops.__free_pages(block.page, block.order);
    else {
      if (!block.live.includes(0)) this.ops.split_page(block.page, block.order);
      for (let i = offset; i < offset + pages; i++) this.ops.__free_pages(block.page + i * Page.sizeof, 0);
    }
    this.live_pages -= this.moved("frees", before, pages, number);
    block.live.fill(0, offset, offset + pages);
    if (!block.live.includes(1)) this.blocks.delete(number);
  }

  /** What a counter did since `before`: `pages`, or the replay fails. */
  private moved(
    counter: "allocs" | "frees",
    before: ReturnType<typeof page_counters>,
    pages: number,
    number: number,
  ): number {
    const after = page_counters();
    const counted = after[counter] - before[counter];
    const free = after.free - before.free;
    if (counted !== pages) this.fail(`${counted} pages in the counter of ${counter} for ${pages} of block ${number}`);
    if (free !== after.frees - before.frees - (after.allocs - before.allocs))
      this.fail(`the counter of ${counter} moved by ${pages} for block ${number}, the free pages by ${free}`);
    return counted;
  }

  private check(number: number, block: PageBlock, offset: number, pages: number): void {
    for (let i = offset; i < offset + pages; i++)
      if (block.live[i] && pattern_fault(address_of(block, i), 8, number) !== 0)
        this.fail(`page ${i} of block ${number} was written over by another`);
  }

  finish(): void {
    for (const [number, block] of this.blocks) this.check(number, block, 0, block.live.length);
  }

  /** What is live of each block, as aligned pieces of a power of two of pages: all of it, or what is left. */
  *pieces(): Generator<{ number: number; address: Obj; order: number }> {
    for (const [number, block] of this.blocks) {
      const { live } = block;
      for (let i = 0, order = 0; i < live.length; i += 1 << order) {
        order = 0;
        if (!live[i]) continue;
        const whole = (n: number): boolean =>
          i % n === 0 && i + n <= live.length && !live.subarray(i, i + n).includes(0);
        while (whole(2 << order)) order++;
        yield { number, address: address_of(block, i), order };
      }
    }
  }

  /** Frees what still lives, oldest first. */
  release(): void {
    for (const { page, order, live } of this.blocks.values())
      if (!live.includes(0)) this.ops.__free_pages(page, order);
      else live.forEach((is_live, i) => is_live && this.ops.__free_pages(page + i * Page.sizeof, 0));
    this.blocks.clear();
  }
}

function address_of({ page }: PageBlock, index: number): Obj {
  return page_address(page) + index * PAGE_SIZE;
}
