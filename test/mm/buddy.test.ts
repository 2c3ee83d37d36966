import { describe, expect, test } from "vitest";
import { events } from "../../hal/events.ts";
import { with_machine } from "../lib/machine.ts";
import { give, nr_free, take, with_two_blocks, zone_of, type TwoBlocks } from "../lib/pages.ts";
import { init_list_head, list_add, list_next } from "../../kernel/lib/list.ts";
import { FPI_TO_TAIL, buddy, free_list } from "../../mm/buddy.ts";
import {
  GFP_KERNEL, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, ZONE_DMA, ZONE_NORMAL,
} from "../../mm/gfp.ts"; // prettier-ignore
import { PGTY_buddy, PG_lru, Page, clear_page_flag, pfn_to_page, set_page_flag, type PagePtr } from "../../mm/page.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { register_page_allocator, type PageAllocator } from "../../mm/page_allocator.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { get_pageblock_migratetype, set_pageblock_migratetype } from "../../mm/pageblock.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { zone_lock, zone_unlock } from "../../mm/plenty.ts";
import { ALLOC_HIGHATOMIC, ALLOC_NOFRAGMENT, ALLOC_NON_BLOCK } from "../../mm/watermark.ts";
import { FreeArea, NR_FREE_PAGES, NR_FREE_PAGES_BLOCKS, Zone, type ZonePtr } from "../../mm/zone.ts";

/** Takes order-0 pages and says which. */
function take_pages({ zone, nth }: TwoBlocks, count: number, migratetype = MIGRATE_MOVABLE): number[] {
  return Array.from({ length: count }, () => nth(take(zone, 0, migratetype)));
}

function give_pages({ zone, page }: TwoBlocks, numbers: readonly number[], order = 0): void {
  for (const n of numbers) give(zone, page(n), order);
}

describe("taking and merging", () => {
  /*
   *   0    1    2         4                 8        …       0x200            0x400
   *   [page][ 1 ][ 2     ][ 4              ][ 8      …      ][ 0x200         ][ 0x400: untouched     ]
   *    taken  o0   o1       o2                o3               o9               o10
   */
  test("a block is cut down to the request: the low half is handed out, each upper half goes on its list", () => {
    with_two_blocks((blocks) => {
      expect(take_pages(blocks, 1)).toEqual([0]);
      for (let order = 0; order < 10; order++) expect(blocks.list(order)).toEqual([1 << order]);
      expect(blocks.list(10)).toEqual([0x400]);
      expect(take_pages(blocks, 2)).toEqual([1, 2]);
      expect(blocks.list(0)).toEqual([3]);
      expect(blocks.list(1)).toEqual([]);
      give_pages(blocks, [1]);
      expect(blocks.list(0)).toEqual([1, 3]); // a freed page is the next to be handed out
      give_pages(blocks, [0]);
      expect(blocks.list(1)).toEqual([0]);
      expect(blocks.list(0)).toEqual([3]);
      give_pages(blocks, [2]);
      expect(nr_free(blocks.zone)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
      expect(blocks.list(10)).toEqual([0, 0x400]);
    });
  });

  /*
   *   0  1  2  3  4  5  6  7     4 and 5 are free as one block of order 1. When 7 comes back its buddy 6 is in use, but
   *   .  x  x  x [ 4  ]  x  7    the block that 6 and 7 would make has a free buddy: so 7 goes to the tail and is
   *                              kept for that merge.
   */
  test("a block whose buddy would complete a larger one goes to the tail", () => {
    with_two_blocks((blocks) => {
      expect(take_pages(blocks, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      give_pages(blocks, [4, 5]);
      expect(blocks.list(1)).toEqual([4]);
      give_pages(blocks, [0, 7]);
      expect(blocks.list(0)).toEqual([0, 7]);
      expect(take_pages(blocks, 3)).toEqual([0, 7, 4]);
      give_pages(blocks, [0, 1, 2, 3, 4, 6, 7]);
      expect(blocks.list(0)).toEqual([]); // 5 had gone with 4: all is one block again
      expect(nr_free(blocks.zone)[10]).toBe(2);
    });
  });

  test("blocks of order 9 and 10 go to the head, and to the tail only if asked", () => {
    with_two_blocks(({ zone, page, list, nth }) => {
      expect(nth(take(zone, 10))).toBe(0);
      expect(list(10)).toEqual([0x400]);
      give(zone, page(0), 10);
      expect(list(10)).toEqual([0, 0x400]);
      take(zone, 10);
      give(zone, page(0), 10, FPI_TO_TAIL);
      expect(list(10)).toEqual([0x400, 0]);
    });
  });

  test("A69 a block of order n starts at a multiple of 2^n pages", () => {
    with_two_blocks(({ zone, a, page, nth }) => {
      for (let order = 0; order <= 10; order++) {
        const block = take(zone, order);
        expect((a + nth(block)) % (1 << order)).toBe(0);
        give(zone, block, order);
      }
      expect(page(0)).toBe(pfn_to_page(a));
    });
  });

  test("A71 four siblings freed in any of their 24 orders merge back to the top", () => {
    const orders: number[][] = [[]];
    for (const n of [0, 1, 2, 3])
      orders.splice(
        0,
        orders.length,
        ...orders.flatMap((o) => [...Array(o.length + 1).keys()].map((i) => o.toSpliced(i, 0, n))),
      );
    expect(orders.length).toBe(24);
    with_two_blocks((blocks) => {
      for (const order of orders) {
        expect(take_pages(blocks, 4)).toEqual([0, 1, 2, 3]);
        give_pages(blocks, order);
        expect(nr_free(blocks.zone)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
      }
    });
  });

  test("an order-10 block is freed page block by page block, each to its own type", () => {
    with_two_blocks(({ zone, page, list }) => {
      take(zone, 10);
      set_pageblock_migratetype(page(0x200), MIGRATE_HIGHATOMIC);
      give(zone, page(0), 10);
      expect(list(9)).toEqual([0]);
      expect(list(9, MIGRATE_HIGHATOMIC)).toEqual([0x200]);
      expect(Zone.nr_free_highatomic.get(zone)).toBe(512);
      expect(take(zone, 9, MIGRATE_MOVABLE, ALLOC_HIGHATOMIC)).toBe(page(0x200));
      set_pageblock_migratetype(page(0x200), MIGRATE_MOVABLE);
      give(zone, page(0x200), 9);
      expect(list(10)).toEqual([0, 0x400]);
    });
  });

  test("when halves of different types merge, the one freed last gives the whole its type", () => {
    with_two_blocks(({ zone, page, list }) => {
      take(zone, 10);
      set_pageblock_migratetype(page(0x200), MIGRATE_UNMOVABLE);
      give(zone, page(0), 9);
      expect(list(9)).toEqual([0]);
      give(zone, page(0x200), 9);
      expect(list(10, MIGRATE_UNMOVABLE)).toEqual([0]);
      expect(get_pageblock_migratetype(page(0))).toBe(MIGRATE_UNMOVABLE);
    });
  });

  test("the type of a page block when a page is freed decides its list, not what it was asked as", () => {
    with_two_blocks((blocks) => {
      const [n] = take_pages(blocks, 1);
      zone_lock(blocks.zone);
      buddy.move_block(blocks.zone, blocks.page(n), MIGRATE_MOVABLE, MIGRATE_RECLAIMABLE);
      zone_unlock(blocks.zone);
      give_pages(blocks, [n]);
      expect(blocks.list(9, MIGRATE_RECLAIMABLE)).toEqual([]); // both halves mergeable: one block of order 10
      expect(blocks.list(10, MIGRATE_RECLAIMABLE)).toEqual([0]);
    });
  });

  test("isolated blocks stand on their list and count neither as free nor as large blocks", () => {
    with_two_blocks(({ zone, page, list }) => {
      const free = Zone.vm_stat.get(zone, NR_FREE_PAGES);
      take(zone, 10);
      set_pageblock_migratetype(page(0), MIGRATE_ISOLATE);
      give(zone, page(0), 9);
      expect(list(9, MIGRATE_ISOLATE)).toEqual([0]);
      expect(Zone.vm_stat.get(zone, NR_FREE_PAGES)).toBe(free - 1024);
      expect(Zone.vm_stat.get(zone, NR_FREE_PAGES_BLOCKS)).toBe(free - 1024);
      zone_lock(zone);
      set_pageblock_migratetype(page(0), MIGRATE_MOVABLE);
      set_pageblock_migratetype(page(0), MIGRATE_ISOLATE);
      buddy.move_block(zone, page(0), MIGRATE_ISOLATE, MIGRATE_MOVABLE);
      zone_unlock(zone);
      give(zone, page(0x200), 9);
      expect(list(10)).toEqual([0, 0x400]);
    });
  });

  test("each split and each merge is told to a listener, and only to one", () => {
    with_two_blocks((blocks) => {
      const seen: string[] = [];
      events.on("page:split", ({ pfn, order }) => seen.push(`split ${order} at ${pfn - blocks.a}`));
      events.on("page:merge", ({ pfn, order }) => seen.push(`merge ${order} at ${pfn - blocks.a}`));
      const page = take(blocks.zone, 8);
      give(blocks.zone, page, 8);
      events.removeAllListeners();
      take(blocks.zone, 8);
      give(blocks.zone, page, 8);
      expect(seen).toEqual(["split 10 at 512", "split 9 at 256", "merge 9 at 0", "merge 10 at 0"]);
    });
  });
});

describe("claiming and stealing", () => {
  test("the first unmovable request takes over both page blocks of an order-10 block", () => {
    with_two_blocks((blocks) => {
      expect(take_pages(blocks, 1, MIGRATE_UNMOVABLE)).toEqual([0]);
      expect(get_pageblock_migratetype(blocks.page(0))).toBe(MIGRATE_UNMOVABLE);
      expect(get_pageblock_migratetype(blocks.page(0x200))).toBe(MIGRATE_UNMOVABLE);
      expect(get_pageblock_migratetype(blocks.page(0x400))).toBe(MIGRATE_MOVABLE);
      expect(blocks.list(9, MIGRATE_UNMOVABLE)).toEqual([0x200]);
      give_pages(blocks, [0]);
    });
  });

  /*
   * One movable page block whose first n pages are in use, all the rest of the zone taken:
   *   on the LRU: 512 - n free;  256 are needed, so up to n = 256 the block is claimed, and from 257 on a page is stolen
   *   not on it:  unmovable pages are alike to an unmovable request, so the block is claimed however many there are
   */
  test.each([
    { used: 255, lru: true, gets: 0xff, becomes: MIGRATE_UNMOVABLE },
    { used: 256, lru: true, gets: 0x100, becomes: MIGRATE_UNMOVABLE },
    { used: 257, lru: true, gets: 0x101, becomes: MIGRATE_MOVABLE },
    { used: 400, lru: false, gets: 0x190, becomes: MIGRATE_UNMOVABLE },
  ])("with $used pages in use (on the LRU: $lru) the block becomes type $becomes", ({ used, lru, gets, becomes }) => {
    with_two_blocks((blocks) => {
      const { zone, page } = blocks;
      const second = take(zone, 10); // the head is block 0: take both, give the first page block back
      const other = take(zone, 10);
      give(zone, page(0), 9);
      expect(take_pages(blocks, used)).toEqual([...Array(used).keys()]);
      if (lru) for (let n = 0; n < used; n++) set_page_flag(page(n), PG_lru);
      expect(take_pages(blocks, 1, MIGRATE_UNMOVABLE)).toEqual([gets]);
      expect(get_pageblock_migratetype(page(0))).toBe(becomes);
      for (let n = 0; n < used; n++) clear_page_flag(page(n), PG_lru);
      give_pages(blocks, [gets, ...Array(used).keys()]);
      give(zone, page(0x200), 9);
      give(zone, second === page(0) ? other : second, 10);
    });
  });

  test("claimed free blocks are appended to the new type's lists in ascending order", () => {
    with_two_blocks((blocks) => {
      const { zone, page, list } = blocks;
      take(zone, 10);
      take(zone, 10);
      give(zone, page(0), 9);
      take_pages(blocks, 4);
      give_pages(blocks, [2]); // free: 2 (order 0), 4 (order 2), 8 …
      expect(take_pages(blocks, 1, MIGRATE_RECLAIMABLE)).toEqual([2]); // claimed, then the smallest that fits
      expect(get_pageblock_migratetype(page(0))).toBe(MIGRATE_RECLAIMABLE);
      for (let order = 2; order < 9; order++) expect(list(order, MIGRATE_RECLAIMABLE)).toEqual([1 << order]);
      give_pages(blocks, [0, 1, 2, 3]);
      give(zone, page(0x200), 9);
      give(zone, page(0x400), 10);
    });
  });

  test("a movable request of order below 4 claims nothing, and steals from the smallest block", () => {
    with_two_blocks((blocks) => {
      const { zone, page, list } = blocks;
      take(zone, 10);
      take(zone, 10);
      set_pageblock_migratetype(page(0), MIGRATE_UNMOVABLE);
      give(zone, page(0), 3); // pages 0..7 of an unmovable block
      give(zone, page(0x10), 0);
      expect(take_pages(blocks, 2)).toEqual([0x10, 0]);
      expect(get_pageblock_migratetype(page(0))).toBe(MIGRATE_UNMOVABLE);
      expect(list(2, MIGRATE_UNMOVABLE)).toEqual([4]); // the rest stays on the list it came from
      for (const [n, order] of [[0, 0], [0x10, 0], [8, 3], [0x11, 0], [0x12, 1], [0x14, 2], [0x18, 3], [0x20, 5], [0x40, 6],
        [0x80, 7], [0x100, 8], [0x200, 9]] as const) give(zone, page(n), order); // prettier-ignore
      give(zone, page(0x400), 10);
    });
  });

  test("fallback types are tried in their order: reclaimable before movable for unmovable requests", () => {
    with_two_blocks((blocks) => {
      const { zone, page } = blocks;
      take(zone, 10);
      take(zone, 10);
      set_pageblock_migratetype(page(0x200), MIGRATE_RECLAIMABLE);
      give(zone, page(0), 9);
      give(zone, page(0x400), 10);
      take(zone, 10); // only the two page blocks are free; they merged, and the last one freed set the type
      give(zone, page(0x200), 9);
      expect(get_pageblock_migratetype(page(0))).toBe(MIGRATE_RECLAIMABLE);
      give(zone, page(0x400), 10);
      expect(take_pages(blocks, 1, MIGRATE_UNMOVABLE)).toEqual([0]);
      expect(get_pageblock_migratetype(page(0x400))).toBe(MIGRATE_MOVABLE);
      give_pages(blocks, [0]);
    });
  });

  test("NOFRAGMENT takes over whole page blocks only, and steals nothing", () => {
    with_two_blocks((blocks) => {
      const { zone, page } = blocks;
      take(zone, 10);
      take(zone, 10);
      give(zone, page(0), 8);
      expect(take(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NOFRAGMENT)).toBe(0);
      give(zone, page(0x200), 9);
      expect(take(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NOFRAGMENT)).toBe(page(0x200));
      give(zone, page(0x200), 0);
      give(zone, page(0x100), 8);
      give(zone, page(0x400), 10);
    });
  });

  test("a bulk request takes what there is, in the order of single ones, and appends it to the list", () => {
    with_two_blocks((blocks) => {
      const { zone, page, nth } = blocks;
      take(zone, 10);
      take(zone, 10);
      set_pageblock_migratetype(page(0), MIGRATE_UNMOVABLE);
      give(zone, page(0), 1);
      give(zone, page(0x10), 2);
      const list = Page.lru.at(page(0x400)); // of a page that is ours
      init_list_head(list);
      zone_lock(zone);
      const taken = buddy.alloc_bulk(zone, 0, MIGRATE_MOVABLE, 0, 5, list);
      zone_unlock(zone);
      const pages: number[] = [];
      for (let node = list_next(list); node !== list; node = list_next(node)) pages.push(nth(node - Page.lru.offset));
      expect(pages).toEqual([0, 1, 0x10, 0x11, 0x12]); // all stolen, smallest block first
      expect(taken).toBe(5);
      expect(blocks.list(0, MIGRATE_UNMOVABLE)).toEqual([0x13]);
      for (const [n, order] of [[0, 4], [0x10, 1], [0x12, 0], [0x14, 2], [0x18, 3], [0x20, 5], [0x40, 6], [0x80, 7],
        [0x100, 8], [0x200, 9]]) give(zone, page(n), order); // prettier-ignore
      give(zone, page(0x400), 10);
    });
  });

  test("pages of the HighAtomic reserve are for those whom the flags admit", () => {
    with_two_blocks((blocks) => {
      const { zone, page } = blocks;
      take(zone, 10);
      take(zone, 10);
      set_pageblock_migratetype(page(0), MIGRATE_HIGHATOMIC);
      give(zone, page(0), 9);
      expect(take(zone, 0)).toBe(0);
      expect(take(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NON_BLOCK)).toBe(page(0));
      give(zone, page(0), 0);
      expect(take(zone, 3, MIGRATE_UNMOVABLE, ALLOC_HIGHATOMIC)).toBe(page(0));
      give(zone, page(0), 3);
      expect(take(zone, 9, MIGRATE_MOVABLE, ALLOC_HIGHATOMIC)).toBe(page(0));
      set_pageblock_migratetype(page(0), MIGRATE_MOVABLE);
      give(zone, page(0), 9);
      give(zone, page(0x200), 9);
      give(zone, page(0x400), 10);
    });
  });
});

test("boot frees each range in ascending order to the tails, so the lowest block is first", () => {
  with_machine({}, () => {
    drain_all_pages();
    const dma = zone_of(0, ZONE_DMA);
    const pages = nr_free(dma).reduce((sum, blocks, order) => sum + blocks * 2 ** order, 0);
    expect(pages).toBe(Zone.vm_stat.get(dma, NR_FREE_PAGES)); // A75
    expect(pages).toBe(Zone.managed_pages.get(dma));
    const normal = zone_of(1, ZONE_NORMAL);
    expect(nr_free(normal).reduce((sum, blocks, order) => sum + blocks * 2 ** order, 0)).toBe(
      Zone.vm_stat.get(normal, NR_FREE_PAGES),
    );
  });
});

describe("the seam", () => {
  test("another page allocator can be booted, and serves all requests", () => {
    const calls = { alloc: 0, free: 0 };
    const counting: PageAllocator = {
      ...buddy,
      name: "counting",
      alloc: (...args) => (calls.alloc++, buddy.alloc(...args)),
      free: (...args) => (calls.free++, buddy.free(...args)),
    };
    register_page_allocator(counting);
    with_machine({ append: "page_allocator=counting" }, () => {
      const { alloc, free } = calls;
      __free_pages(alloc_pages(GFP_KERNEL, 5), 5);
      expect(calls).toEqual({ alloc: alloc + 1, free: free + 1 });
    });
    const { alloc } = calls;
    with_machine({}, () => __free_pages(alloc_pages(GFP_KERNEL, 5), 5));
    expect(calls.alloc).toBe(alloc); // the next machine has the default again
  });

  test("one that does not merge is found by validate_pages", () => {
    register_page_allocator({
      ...buddy,
      name: "unmerged",
      free: (zone, page, order, flags) => unmerged(zone, page, order, flags),
    });
    let findings: string[] = [];
    const run = (): void => {
      const pages = Array.from({ length: 8 }, () => alloc_pages(GFP_KERNEL, 0));
      for (const page of pages) __free_pages(page, 0);
      drain_all_pages();
      findings = validate_pages();
    };
    expect(() => with_machine({ append: "page_allocator=unmerged" }, run)).toThrow();
    expect(findings.some((line) => line.includes("its buddy is free too"))).toBe(true);
    with_machine({}, () => expect(validate_pages()).toEqual([]));
  });

  test("an unknown name stops the machine with the names there are", () => {
    expect(() => with_machine({ append: "page_allocator=bitmap" }, () => {})).toThrow(
      /page_allocator=bitmap: there is buddy/,
    );
    with_machine({}, () => {});
  });

  /** Puts order-0 pages on their list without looking at their buddies. */
  function unmerged(zone: ZonePtr, page: PagePtr, order: number, flags: number): void {
    if (order !== 0) return buddy.free(zone, page, order, flags);
    Page.page_type.set(page, PGTY_buddy << 24);
    Page.private.set(page, 0);
    list_add(Page.lru.at(page), free_list(zone, 0, get_pageblock_migratetype(page)));
    const area = Zone.free_area.at(zone, 0);
    FreeArea.nr_free.set(area, FreeArea.nr_free.get(area) + 1);
    Zone.vm_stat.set(zone, NR_FREE_PAGES, Zone.vm_stat.get(zone, NR_FREE_PAGES) + 1);
  }
});
