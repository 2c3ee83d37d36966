/** Page blocks from which nothing is handed out; ranges of frames taken out of them. */
import { describe, expect, test } from "vitest";
import type { Pfn } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ram8 } from "../../hal/ram.ts";
import { EBUSY, EINVAL } from "../../kernel/lib/errno.ts";
import { GFP_KERNEL, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_UNMOVABLE, __GFP_NOWARN, __GFP_ZERO } from "../../mm/gfp.ts"; // prettier-ignore
import { free_blocks } from "../../mm/buddy_check.ts";
import { __free_pages, alloc_pages, nr_free_pages } from "../../mm/page_alloc.ts";
import {
  PG_lru,
  Page,
  clear_page_flag,
  page_address,
  page_to_pfn,
  pfn_to_page,
  set_page_flag,
  type PagePtr,
} from "../../mm/page.ts";
import { get_pageblock_migratetype } from "../../mm/pageblock.ts";
import {
  alloc_contig_range, free_contig_range, start_isolate_page_range, test_pages_isolated, undo_isolate_page_range,
} from "../../mm/page_isolation.ts"; // prettier-ignore
import { drain_all_pages } from "../../mm/pcp.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { NR_FREE_PAGES_BLOCKS, Zone, page_zone } from "../../mm/zone.ts";
import { with_machine } from "../lib/machine.ts";

/** A free order-10 block of Normal on node 0, both of whose page blocks are Movable: frames 0x1800 to 0x1c00. */
const START = 0x1800;
const HALF = START + 512;
const type = (pfn: Pfn): number => get_pageblock_migratetype(pfn_to_page(pfn));
const zone = (): number => page_zone(pfn_to_page(START));
/** "1a00+512 I": the free blocks that lie in a range. */
const blocks = (start: Pfn, end: Pfn): string[] =>
  [...free_blocks(zone())]
    .filter(({ pfn }) => pfn >= start && pfn < end)
    .sort((a, b) => a.pfn - b.pfn)
    .map(({ pfn, order, migratetype }) => `${pfn.toString(16)}+${1 << order} ${"UMEHI"[migratetype]!}`);

function isolated(start: Pfn, end: Pfn, fn: () => void): void {
  with_machine({}, () => {
    drain_all_pages();
    expect(blocks(START, START + 1024)).toEqual(["1800+1024 M"]);
    expect(start_isolate_page_range(start, end)).toBe(0);
    fn();
    expect(validate_pages()).toEqual([]);
    undo_isolate_page_range(start, end);
    expect([type(start), validate_pages()]).toEqual([MIGRATE_MOVABLE, []]);
  });
}

describe("isolation", () => {
  test("A75 isolated pages are on the lists and not in nr_free_pages", () => {
    with_machine({}, () => {
      drain_all_pages();
      const free = nr_free_pages();
      const in_blocks = Zone.vm_stat.get(zone(), NR_FREE_PAGES_BLOCKS);
      expect(start_isolate_page_range(START, START + 1024)).toBe(0);
      expect([nr_free_pages(), Zone.vm_stat.get(zone(), NR_FREE_PAGES_BLOCKS)]).toEqual([free - 1024, in_blocks - 1024]); // prettier-ignore
      expect(blocks(START, START + 1024).every((text) => text.endsWith("I"))).toBe(true);
      expect(validate_pages()).toEqual([]);
      undo_isolate_page_range(START, START + 1024);
      expect([nr_free_pages(), Zone.vm_stat.get(zone(), NR_FREE_PAGES_BLOCKS)]).toEqual([free, in_blocks]);
    });
  });

  //   1800              1a00              1c00           1800              1a00              1c00
  //   [        1024 pages, Movable        ]      ->      [ 512 M           ][ 512 I          ]
  test("half of a free block is cut off, and joins the other half again", () => {
    isolated(HALF, HALF + 512, () => expect(blocks(START, START + 1024)).toEqual(["1800+512 M", "1a00+512 I"]));
    isolated(START, START + 512, () => {
      expect(blocks(START, START + 1024)).toEqual(["1800+512 I", "1a00+512 M"]);
      undo_isolate_page_range(START, START + 512);
      expect(blocks(START, START + 1024)).toEqual(["1800+1024 M"]);
    });
  });

  test("nothing comes from there, and what is freed there stays there", () => {
    with_machine({}, () => {
      expect(alloc_contig_range(START, START + 1, GFP_KERNEL)).toBe(0);
      const page = pfn_to_page(START);
      __free_pages(page, 0); // to this CPU's list, which is not in use
      expect(start_isolate_page_range(START, HALF)).toBe(0);
      expect(test_pages_isolated(START, HALF)).toBe(-EBUSY);
      drain_all_pages();
      expect(test_pages_isolated(START, HALF)).toBe(0);
      const pages: PagePtr[] = [];
      for (let p = alloc_pages(GFP_KERNEL | __GFP_NOWARN, 0); p !== 0; p = alloc_pages(GFP_KERNEL | __GFP_NOWARN, 0)) pages.push(p); // prettier-ignore
      expect(pages.some((p) => page_to_pfn(p) >= START && page_to_pfn(p) < HALF)).toBe(false);
      for (const p of pages) __free_pages(p, 0);
      undo_isolate_page_range(START, HALF);
    });
  });

  test("a page in use that could be moved lets its block be isolated, and is then freed past the CPU's list", () => {
    with_machine({}, () => {
      expect(alloc_contig_range(START, START + 1, GFP_KERNEL)).toBe(0);
      const page = pfn_to_page(START);
      expect(start_isolate_page_range(START, HALF)).toBe(-EBUSY);
      expect(type(START)).toBe(MIGRATE_MOVABLE);
      set_page_flag(page, PG_lru);
      expect(start_isolate_page_range(START, HALF)).toBe(0);
      clear_page_flag(page, PG_lru);
      expect(test_pages_isolated(START, HALF)).toBe(-EBUSY);
      __free_pages(page, 0);
      expect(test_pages_isolated(START, HALF)).toBe(0);
      undo_isolate_page_range(START, HALF);
    });
  });

  test("a block is isolated once; a range that fails half-way leaves nothing isolated", () => {
    isolated(HALF, HALF + 512, () => {
      expect(start_isolate_page_range(HALF, HALF + 512)).toBe(-EBUSY);
      expect(start_isolate_page_range(START, START + 1024)).toBe(-EBUSY);
      expect([type(START), type(HALF)]).toEqual([MIGRATE_MOVABLE, MIGRATE_ISOLATE]);
    });
    with_machine({}, () => {
      expect(start_isolate_page_range(0x100, 0x200)).toBe(-EBUSY); // the kernel's image
      expect(start_isolate_page_range(0x90000, 0x90200)).toBe(-EBUSY); // no RAM
    });
  });

  test("the type that a block had comes back, whatever that was", () => {
    with_machine({}, () => {
      drain_all_pages();
      const page = alloc_pages(GFP_KERNEL, 10);
      const block = page_to_pfn(page);
      expect(type(block)).toBe(MIGRATE_UNMOVABLE);
      __free_pages(page, 10);
      expect(start_isolate_page_range(block, block + 512)).toBe(0);
      expect([type(block), type(block + 512)]).toEqual([MIGRATE_ISOLATE, MIGRATE_UNMOVABLE]);
      undo_isolate_page_range(block, block + 512);
      expect(type(block)).toBe(MIGRATE_UNMOVABLE);
    });
  });
});

describe("alloc_contig_range", () => {
  test("takes any range of free frames, each with a reference; the rest of the blocks stays free", () => {
    with_machine({}, () => {
      drain_all_pages();
      const free = nr_free_pages();
      const [start, end] = [START + 100, START + 777];
      ram8.fill(0xaa, start * 4096, end * 4096);
      expect(alloc_contig_range(start, end, GFP_KERNEL | __GFP_ZERO)).toBe(0);
      expect(nr_free_pages()).toBe(free - 677);
      for (let pfn = start; pfn < end; pfn++) expect(Page.refcount.get(pfn_to_page(pfn))).toBe(1);
      expect(Page.refcount.get(pfn_to_page(start - 1))).toBe(0);
      expect(ram8.subarray(start * 4096, end * 4096).every((byte) => byte === 0)).toBe(true);
      expect([type(START), type(HALF), validate_pages()]).toEqual([MIGRATE_MOVABLE, MIGRATE_MOVABLE, []]);
      free_contig_range(start, 677);
      drain_all_pages();
      expect(blocks(START, START + 1024)).toEqual(["1800+1024 M"]);
    });
  });

  test("pages on the CPUs' lists are had too; a page in use makes it -EBUSY, and nothing changes", () => {
    with_machine({}, () => {
      const page = on_cpu(1, () => alloc_pages(GFP_KERNEL, 0));
      const pfn = page_to_pfn(page);
      expect(page_address(page)).toBe(pfn * 4096);
      expect(alloc_contig_range(pfn, pfn + 1, GFP_KERNEL)).toBe(-EBUSY);
      expect(alloc_contig_range(pfn - 3, pfn + 40, GFP_KERNEL)).toBe(-EBUSY);
      on_cpu(1, () => __free_pages(page, 0));
      expect(alloc_contig_range(pfn, pfn + 1, GFP_KERNEL)).toBe(0);
      free_contig_range(pfn, 1);
      expect(alloc_contig_range(pfn, pfn, GFP_KERNEL)).toBe(-EINVAL);
      expect(alloc_contig_range(0x100, 0x110, GFP_KERNEL)).toBe(-EBUSY);
    });
  });
});
