import { describe, expect, test } from "vitest";
import { clock_advance, NSEC_PER_SEC } from "../../hal/clock.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { ram8, ram_fill } from "../../hal/ram.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { MIB, type MachineSpec } from "../../hal/machine.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";
import { nr_free, take, zone_of } from "../lib/pages.ts";
import {
  GFP_ATOMIC, GFP_DMA, GFP_DMA32, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT, MIGRATE_HIGHATOMIC, NUMA_NO_NODE, ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, __GFP_COMP, __GFP_HIGH, __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC, __GFP_NOFAIL, __GFP_NOMEMALLOC, __GFP_NOWARN, __GFP_RECLAIMABLE, __GFP_THISNODE, __GFP_ZERO,
} from "../../mm/gfp.ts"; // prettier-ignore
import {
  __free_pages, __get_free_pages, alloc_pages, alloc_pages_node, free_pages, get_page, get_zeroed_page, nr_free_pages,
  put_page, split_page,
} from "../../mm/page_alloc.ts"; // prettier-ignore
import { alloc_pages_bulk, alloc_pages_exact, free_pages_exact } from "../../mm/page_bulk.ts";
import {
  PG_dirty, Page, compound_head, compound_order, page_address, page_to_nid, page_to_pfn, page_zonenum, set_page_flag,
  virt_to_page, type PagePtr,
} from "../../mm/page.ts"; // prettier-ignore
import { get_pageblock_migratetype } from "../../mm/pageblock.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { zone_marks_changed } from "../../mm/plenty.ts";
import { show_mem_lines } from "../../mm/show_mem.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { PGALLOC, PGFREE, global_vm_event, sum_zone_numa_event_state } from "../../mm/vmstat.ts";
import {
  ALLOC_HIGHATOMIC, ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK, ALLOC_OOM, ALLOC_WMARK_MIN, __zone_watermark_ok,
  boost_watermark, set_watermark_boost_factor, watermark_min, wmark_pages, zone_free_pages, zone_watermark_fast,
} from "../../mm/watermark.ts"; // prettier-ignore
import {
  NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER, WMARK_HIGH, WMARK_MIN,
  ZONE_BELOW_HIGH, Zone, for_each_populated_zone, page_zone, pageblock_nr_pages,
} from "../../mm/zone.ts"; // prettier-ignore

/** 256 MiB on one node, so that 1 % of Normal is more than a page block. */
const BIG: MachineSpec = {
  ...TEST_MACHINE,
  memory: [
    { start: 0, size: 0x9fc00, type: 1 },
    { start: 0x9fc00, size: 0x100000 - 0x9fc00, type: 2 },
    { start: MIB, size: 255 * MIB, type: 1 },
  ],
  nodes: [{ ranges: [{ start: 0, size: 256 * MIB }], cpus: [0, 1] }],
  distance: [[10]],
};

/** Takes single pages until there are no more. */
function exhaust(gfp: number): PagePtr[] {
  const pages: PagePtr[] = [];
  for (let page = alloc_pages(gfp, 0); page !== 0; page = alloc_pages(gfp, 0)) pages.push(page);
  return pages;
}

function free_all(pages: readonly PagePtr[], order = 0): void {
  for (const page of pages) __free_pages(page, order);
}

/** Free pages of the machine, none of them on a CPU's list. */
function really_free(): number {
  drain_all_pages();
  return nr_free_pages();
}

describe("which zone serves a request", () => {
  test("A77 a request for DMA memory never gets a page above the limit, whatever else is free", () => {
    with_machine({}, () => {
      const pages = exhaust(GFP_DMA | __GFP_NOWARN | __GFP_HIGH | __GFP_KSWAPD_RECLAIM);
      expect(pages.length).toBeGreaterThan(500);
      expect(pages.every((page) => page_zonenum(page) === ZONE_DMA && page_to_pfn(page) < 0x400)).toBe(true);
      free_all(pages);
    });
  });

  test("A77 with Linux's limit that is 16 MiB", () => {
    with_machine({ machine: { ...TEST_MACHINE, dma_limit: 16 * MIB, dma32_limit: 24 * MIB } }, () => {
      const pages = exhaust(GFP_DMA | __GFP_NOWARN | __GFP_HIGH | __GFP_KSWAPD_RECLAIM);
      expect(pages.length).toBeGreaterThan(3000); // of 4096 there
      expect(Math.max(...pages.map(page_to_pfn))).toBeLessThan((16 * MIB) / PAGE_SIZE);
      expect(nr_free_pages()).toBeGreaterThan((20 * MIB) / PAGE_SIZE); // all the rest is left
      free_all(pages);
    });
  });

  test("A77 an ordinary request prefers the highest zone of its node and falls downwards, then to other nodes", () => {
    with_machine({}, () => {
      const pages = exhaust(GFP_KERNEL | __GFP_NOWARN);
      const order: string[] = [];
      for (const page of pages) {
        const where = `${page_to_nid(page)}:${page_zonenum(page)}`;
        if (!order.includes(where)) order.push(where);
      }
      expect(order).toEqual(["0:2", "0:1", "0:0", "1:2"]);
      free_all(pages);
      const dma32 = exhaust(GFP_DMA32 | __GFP_NOWARN);
      expect(dma32.every((page) => page_zonenum(page) <= ZONE_DMA32)).toBe(true);
      free_all(dma32);
    });
  });

  test("low zones keep their reserve from requests that could have had higher memory", () => {
    with_machine({}, () => {
      const dma = zone_of(0, ZONE_DMA);
      const pages = exhaust(GFP_KERNEL | __GFP_NOWARN);
      const floor = wmark_pages(dma, WMARK_MIN) + Zone.lowmem_reserve.get(dma, ZONE_NORMAL);
      expect(Zone.lowmem_reserve.get(dma, ZONE_NORMAL)).toBeGreaterThan(0);
      expect(zone_free_pages(dma)).toBeGreaterThan(floor - 32); // the last refill may have taken 32 pages at once
      const more = exhaust(GFP_DMA | __GFP_NOWARN);
      expect(more.length).toBeGreaterThan(0);
      free_all([...pages, ...more]);
    });
  });

  test("A109 a request by node number comes from there and counts a hit there", () => {
    with_machine({}, () => {
      const before = sum_zone_numa_event_state(1, NUMA_HIT);
      const other = sum_zone_numa_event_state(1, NUMA_OTHER);
      const page = alloc_pages_node(1, GFP_KERNEL, 0);
      expect(page_to_nid(page)).toBe(1);
      expect(sum_zone_numa_event_state(1, NUMA_HIT)).toBe(before + 1);
      expect(sum_zone_numa_event_state(1, NUMA_OTHER)).toBe(other + 1); // CPU 0 is on node 0
      __free_pages(page, 0);
      const local = alloc_pages_node(NUMA_NO_NODE, GFP_KERNEL, 0);
      expect(page_to_nid(local)).toBe(0);
      __free_pages(local, 0);
    });
  });

  test("A111 this node only: NULL when it is full, and no counter of another node moves", () => {
    with_machine({}, () => {
      const gfp = GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN;
      const pages: PagePtr[] = [];
      const counters = (): number[] =>
        [NUMA_HIT, NUMA_MISS, NUMA_FOREIGN, NUMA_LOCAL, NUMA_OTHER].map((i) => sum_zone_numa_event_state(0, i));
      const before = counters();
      for (let page = alloc_pages_node(1, gfp, 0); page !== 0; page = alloc_pages_node(1, gfp, 0)) pages.push(page);
      expect(pages.every((page) => page_to_nid(page) === 1)).toBe(true);
      expect(alloc_pages_node(1, gfp, 0)).toBe(0);
      expect(counters()).toEqual(before);
      // Without that flag it falls back: a miss where it came from, foreign where it was wanted.
      const [miss, foreign] = [sum_zone_numa_event_state(0, NUMA_MISS), sum_zone_numa_event_state(1, NUMA_FOREIGN)];
      const page = alloc_pages_node(1, GFP_KERNEL, 2);
      expect(page_to_nid(page)).toBe(0);
      expect(sum_zone_numa_event_state(0, NUMA_MISS)).toBe(miss + 1);
      expect(sum_zone_numa_event_state(1, NUMA_FOREIGN)).toBe(foreign + 1);
      __free_pages(page, 2);
      free_all(pages);
    });
  });

  test("NUMA counters count calls, page counters pages, and CPUs take from their own node", () => {
    with_machine({}, () => {
      const hit = sum_zone_numa_event_state(1, NUMA_HIT);
      const local = sum_zone_numa_event_state(1, NUMA_LOCAL);
      const allocated = global_vm_event(PGALLOC + ZONE_NORMAL);
      const freed = global_vm_event(PGFREE);
      on_cpu(1, () => {
        for (const order of [0, 2, 5, 0]) {
          const page = alloc_pages(GFP_KERNEL, order);
          expect(page_to_nid(page)).toBe(1);
          __free_pages(page, order);
        }
      });
      expect(sum_zone_numa_event_state(1, NUMA_HIT)).toBe(hit + 4);
      expect(sum_zone_numa_event_state(1, NUMA_LOCAL)).toBe(local + 4);
      expect(global_vm_event(PGALLOC + ZONE_NORMAL)).toBe(allocated + 1 + 4 + 32 + 1);
      expect(global_vm_event(PGFREE)).toBe(freed + 38);
    });
  });

  test("the type of a request decides the page block", () => {
    with_machine({}, () => {
      for (const [gfp, type] of [[GFP_KERNEL, 0], [GFP_HIGHUSER_MOVABLE, 1], [GFP_KERNEL | __GFP_RECLAIMABLE, 2]]) {
        const page = alloc_pages(gfp, 0);
        expect(get_pageblock_migratetype(page)).toBe(type);
        __free_pages(page, 0);
      } // prettier-ignore
    });
  });
});

describe("watermarks", () => {
  /* Known answers: mark -> what is left of it. */
  test.each([
    [71, ALLOC_MIN_RESERVE, 36], [12000, ALLOC_MIN_RESERVE, 6000], [1001, ALLOC_MIN_RESERVE, 501],
    [71, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, 27], [12000, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, 4500],
    [1001, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, 376], [71, ALLOC_NON_BLOCK, 71], [71, ALLOC_OOM, 36],
  ])("of %d, flags %d leave %d", (mark, flags, left) => expect(watermark_min(mark, flags)).toBe(left)); // prettier-ignore

  test("strictly more than mark and reserve must be left, after the block itself", () => {
    with_machine({}, () => {
      const dma32 = zone_of(0, ZONE_DMA32);
      const reserve = Zone.lowmem_reserve.get(dma32, ZONE_NORMAL);
      const ok = (order: number, free: number, flags = 0, j = ZONE_NORMAL): boolean =>
        __zone_watermark_ok(dma32, order, 100, j, flags, free);
      expect([ok(0, 100 + reserve), ok(0, 101 + reserve)]).toEqual([false, true]);
      expect([ok(0, 100, 0, ZONE_DMA32), ok(0, 101, 0, ZONE_DMA32)]).toEqual([false, true]);
      expect([ok(3, 107 + reserve), ok(3, 108 + reserve)]).toEqual([false, true]);
    });
  });

  test("reserved pages count as free only for those who may use them", () => {
    with_machine({}, () => {
      const zone = zone_of(0, ZONE_NORMAL);
      Zone.nr_free_highatomic.set(zone, 50);
      const ok = (flags: number): boolean => __zone_watermark_ok(zone, 0, 100, ZONE_NORMAL, flags, 140);
      expect(ok(0)).toBe(false);
      for (const flags of [ALLOC_NON_BLOCK, ALLOC_MIN_RESERVE, ALLOC_HIGHATOMIC, ALLOC_OOM])
        expect(ok(flags)).toBe(true);
      Zone.nr_free_highatomic.set(zone, 0);
    });
  });

  test("a larger order also needs a block, of a type that may be used", () => {
    with_machine({}, () => {
      drain_all_pages();
      const zone = zone_of(1, ZONE_NORMAL);
      const held: { page: PagePtr; order: number }[] = [];
      for (let order = 10; order > 0; order--)
        for (let page = take(zone, order); page !== 0; page = take(zone, order)) held.push({ page, order });
      expect(
        nr_free(zone)
          .slice(1)
          .every((blocks) => blocks === 0),
      ).toBe(true);
      expect(__zone_watermark_ok(zone, 1, 0, ZONE_NORMAL, 0, 100_000)).toBe(false);
      expect(__zone_watermark_ok(zone, 0, 0, ZONE_NORMAL, 0, 100_000)).toBe(true);
      for (const { page, order } of held) {
        Page.refcount.set(page, 1);
        __free_pages(page, order);
      }
    });
  });

  test("a boost raises every mark, but not for an order-0 request with reserves at the min mark", () => {
    with_machine({}, () => {
      const zone = zone_of(0, ZONE_NORMAL);
      const free = zone_free_pages(zone);
      const mark = wmark_pages(zone, WMARK_MIN);
      Zone.watermark_boost.set(zone, 3 * free);
      zone_marks_changed(zone);
      expect(wmark_pages(zone, WMARK_MIN)).toBe(mark + 3 * free);
      const fast = (order: number, flags: number): boolean =>
        zone_watermark_fast(zone, order, wmark_pages(zone, WMARK_MIN), ZONE_NORMAL, flags);
      expect(fast(0, ALLOC_WMARK_MIN)).toBe(false);
      expect(fast(0, ALLOC_WMARK_MIN | ALLOC_MIN_RESERVE)).toBe(true);
      expect(fast(0, 1 | ALLOC_MIN_RESERVE)).toBe(false); // not at the min mark
      Zone.watermark_boost.set(zone, 0);
      zone_marks_changed(zone);
    });
  });

  test("boosting adds 512 pages up to 150 % of the high mark, in zones of at least 2048 pages", () => {
    with_machine({}, () => {
      const zone = zone_of(0, ZONE_NORMAL);
      expect(Zone.managed_pages.get(zone)).toBeGreaterThanOrEqual(2048);
      const limit = Math.max(Math.floor((Zone.watermark.get(zone, WMARK_HIGH) * 15000) / 10000), pageblock_nr_pages);
      for (let i = 0; i < 20; i++) expect(boost_watermark(zone)).toBe(true);
      expect(Zone.watermark_boost.get(zone)).toBe(limit);
      Zone.watermark_boost.set(zone, 0);
      expect(boost_watermark(zone_of(0, ZONE_DMA))).toBe(false);
      set_watermark_boost_factor(0);
      expect(boost_watermark(zone)).toBe(false);
      zone_marks_changed(zone);
    });
  });

  test("below the high mark a zone says so, and stops when CPUs give pages back", () => {
    with_machine({}, () => {
      const zone = zone_of(0, ZONE_NORMAL);
      const pages: PagePtr[] = [];
      while (Zone.flags.get(zone) === 0) pages.push(alloc_pages(GFP_KERNEL, 0));
      expect(Zone.flags.get(zone)).toBe(1 << ZONE_BELOW_HIGH);
      expect(zone_free_pages(zone)).toBeLessThanOrEqual(wmark_pages(zone, WMARK_HIGH));
      free_all(pages);
      expect(Zone.flags.get(zone) & (1 << ZONE_BELOW_HIGH)).toBe(0);
    });
  });
});

describe("when memory runs out", () => {
  test("A81 order-0 requests end with NULL; one freed page makes exactly one succeed", () => {
    with_machine({}, () => {
      const gfp = GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOWARN;
      const pages = exhaust(gfp);
      drain_all_pages();
      pages.push(...exhaust(gfp));
      expect(nr_free_pages()).toBe(0);
      expect(validate_pages()).toEqual([]);
      __free_pages(pages.pop()!, 0);
      drain_all_pages();
      const page = alloc_pages(gfp, 0);
      expect(page).not.toBe(0);
      expect(alloc_pages(gfp, 0)).toBe(0);
      free_all([...pages, page]);
    });
  });

  test("each kind of caller may go a little deeper: ordinary, high, atomic, memalloc", () => {
    with_machine({}, () => {
      const left: number[] = [];
      const pages: PagePtr[] = [];
      for (const gfp of [GFP_NOWAIT, GFP_KERNEL | __GFP_HIGH, GFP_ATOMIC, GFP_KERNEL | __GFP_MEMALLOC]) {
        pages.push(...exhaust(gfp | __GFP_NOWARN));
        drain_all_pages();
        pages.push(...exhaust(gfp | __GFP_NOWARN));
        left.push(nr_free_pages());
      }
      expect(left).toEqual([...left].sort((a, b) => b - a));
      expect(new Set(left).size).toBe(4);
      expect(left[3]).toBe(0);
      expect(alloc_pages(GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOMEMALLOC | __GFP_NOWARN, 0)).toBe(0);
      free_all(pages);
    });
  });

  test("a failed request is reported once in 10 seconds, in Linux's words", () => {
    with_machine({}, () => {
      const pages = exhaust(GFP_KERNEL | __GFP_NOWARN);
      const reports = (): number =>
        [...printk_records()].filter(({ text }) => text.includes("page allocation failure")).length;
      expect(alloc_pages(GFP_KERNEL | __GFP_COMP, 3)).toBe(0);
      expect(alloc_pages(GFP_KERNEL, 3)).toBe(0);
      expect(reports()).toBe(1);
      clock_advance(10 * NSEC_PER_SEC);
      expect(alloc_pages(GFP_KERNEL, 3)).toBe(0);
      expect(reports()).toBe(2);
      const texts = [...printk_records()].map(({ text }) => text);
      const at = texts.findIndex((text) => text.includes("page allocation failure"));
      expect(texts[at]).toMatch(
        /^\S+: page allocation failure: order:3, mode:0x40cc0\(GFP_KERNEL\|__GFP_COMP\), nodemask=\(null\),cpuset=\/,mems_allowed=0-1$/,
      );
      expect(texts.slice(at + 1, at + 4)).toEqual(["CPU: 0 UID: 0 PID: 0 Comm: swapper/0", "Call Trace:", " <TASK>"]);
      const end = texts.indexOf(" </TASK>", at);
      expect(texts[end - 1]).toMatch(/^ \w+ \[mm\/\w+\.ts:\d+\]$/);
      expect(texts[end + 1]).toBe("Mem-Info:");
      free_all(pages);
    });
  });

  test("the report lists each zone's free blocks by order, with the letters of their types", () => {
    with_machine({}, () => {
      drain_all_pages();
      const lines = show_mem_lines(ZONE_NORMAL);
      for (const zone of for_each_populated_zone()) {
        const start = `Node ${Zone.node.get(zone)} ${Zone.name.get(zone)}: `;
        const line = lines.find((text) => text.startsWith(start))!;
        const items = [...line.matchAll(/(\d+)\*(\d+)kB (?:\(([UMEHI]+)\) )?/g)];
        expect(items.map(([, count]) => Number(count))).toEqual(nr_free(zone));
        for (const [, count, , letters] of items) expect(letters !== undefined).toBe(Number(count) > 0);
        expect(line.endsWith(`= ${zone_free_pages(zone) * 4}kB`)).toBe(true);
      }
      expect(show_mem_lines(ZONE_DMA).some((text) => text.startsWith("Node 0 Normal free:"))).toBe(false);
    });
  });

  test("NOFAIL that cannot be served ends the machine with Linux's words", () => {
    with_machine({}, () => {
      const pages = exhaust(GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOWARN);
      drain_all_pages();
      pages.push(...exhaust(GFP_KERNEL | __GFP_MEMALLOC | __GFP_NOWARN));
      expect(() => alloc_pages(GFP_KERNEL | __GFP_NOFAIL | __GFP_NOWARN, 0)).toThrow("System is deadlocked on memory");
      free_all(pages);
    });
  });

  test("an order above 10 is NULL and warned about once", () => {
    with_machine({}, () => {
      const warnings = (): number =>
        [...printk_records()].filter(({ text }) => /^WARNING: .*order 11/.test(text)).length;
      expect(alloc_pages(GFP_KERNEL | __GFP_NOWARN, 11)).toBe(0);
      expect(warnings()).toBe(0);
      expect(alloc_pages(GFP_KERNEL, 11)).toBe(0);
      expect(alloc_pages(GFP_KERNEL, 11)).toBe(0);
      expect(warnings()).toBe(1);
      expect(alloc_pages(GFP_KERNEL, -1)).toBe(0);
      expect(alloc_pages_node(7, GFP_KERNEL, 0)).toBe(0);
    });
  });
});

describe("the HighAtomic reserve", () => {
  /** Takes pages past the per-CPU lists, whose refills would take many at once. */
  function down_to_min(zone: number): PagePtr[] {
    drain_all_pages();
    const pages: PagePtr[] = [];
    while (zone_free_pages(zone) > wmark_pages(zone, WMARK_MIN)) {
      pages.push(take(zone, 0));
      Page.refcount.set(pages.at(-1)!, 1);
    }
    return pages;
  }

  const HIGHATOMIC = GFP_ATOMIC | __GFP_NOWARN;

  test("an atomic request of higher order in need reserves its page block, and gets it back when all are in need", () => {
    with_machine({ machine: BIG }, () => {
      const zone = zone_of(0, ZONE_NORMAL);
      expect(Zone.managed_pages.get(zone) / 100).toBeGreaterThan(512);
      const pages = [...for_each_populated_zone()].flatMap(down_to_min);
      const block = alloc_pages(HIGHATOMIC, 2);
      expect(page_zone(block)).toBe(zone);
      expect(Zone.nr_reserved_highatomic.get(zone)).toBe(512);
      expect(get_pageblock_migratetype(block)).toBe(MIGRATE_HIGHATOMIC);
      expect(validate_pages()).toEqual([]);
      pages.push(...exhaust(GFP_KERNEL | __GFP_NOWARN));
      __free_pages(block, 2);
      drain_all_pages();
      pages.push(...exhaust(GFP_KERNEL | __GFP_NOWARN)); // forced: the reserve goes before anybody fails
      expect(Zone.nr_reserved_highatomic.get(zone)).toBe(0);
      expect(validate_pages()).toEqual([]);
      free_all(pages);
    });
  });
});

describe("references", () => {
  test("a block has one reference on its first page; a compound one knows its head and order", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 3);
      expect([...Array(8).keys()].map((i) => Page.refcount.get(page + i * Page.sizeof))).toEqual([
        1, 0, 0, 0, 0, 0, 0, 0,
      ]);
      expect(compound_head(page + 64)).toBe(page + 64);
      __free_pages(page, 3);
      const compound = alloc_pages(GFP_KERNEL | __GFP_COMP, 3);
      expect(compound_order(compound)).toBe(3);
      for (let i = 0; i < 8; i++) expect(compound_head(compound + i * Page.sizeof)).toBe(compound);
      put_page(compound + 5 * Page.sizeof); // a reference of any page is the head's
      expect(compound_head(compound + 64)).toBe(compound + 64);
    });
  });

  test.each([
    ["plain", 0],
    ["compound", __GFP_COMP],
  ] as const)(
    "A73 10,000 times: a %s order-3 block is freed under a second reference, then that is dropped",
    (_, comp) => {
      with_machine({}, () => {
        const free = really_free();
        for (let i = 0; i < 10_000; i++) {
          const page = alloc_pages(GFP_KERNEL | comp, 3);
          get_page(page);
          __free_pages(page, 3);
          expect(Page.refcount.get(page)).toBe(1);
          put_page(page);
        }
        expect(really_free()).toBe(free);
      });
    },
  );

  /*
   *   [ 0 | 1 | 2   3 | 4   5   6   7 ]     freed while somebody refers to page 0: 4..7, 2..3 and 1 go back as blocks
   *     kept  o0   o1       o2              of orders 2, 1, 0
   */
  test("freeing a block that is not compound under a second reference leaves the first page alone", () => {
    with_machine({}, () => {
      const free = really_free();
      const page = alloc_pages(GFP_KERNEL, 3);
      get_page(page);
      __free_pages(page, 3);
      expect(really_free()).toBe(free - 1);
      put_page(page);
      expect(really_free()).toBe(free);
    });
  });

  test("put_page of a block that is not compound frees its first page and leaks the rest", () => {
    with_machine({}, () => {
      const free = really_free();
      const page = alloc_pages(GFP_KERNEL, 2);
      put_page(page);
      expect(really_free()).toBe(free - 3);
      for (const i of [1, 2, 3]) Page.refcount.set(page + i * Page.sizeof, 1);
      for (const i of [1, 2, 3]) __free_pages(page + i * Page.sizeof, 0);
    });
  });

  test("a second free of a page takes its count to -1 and frees nothing", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      __free_pages(page, 0);
      const freed = global_vm_event(PGFREE);
      __free_pages(page, 0);
      expect(Page.refcount.get(page)).toBe(-1);
      expect(global_vm_event(PGFREE)).toBe(freed);
      expect(validate_pages().length).toBeGreaterThan(0);
      Page.refcount.set(page, 0);
    });
  });

  test("split_page makes single pages of a block", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 2);
      split_page(page, 2);
      for (const i of [2, 0, 3, 1]) __free_pages(page + i * Page.sizeof, 0);
      const compound = alloc_pages(GFP_KERNEL | __GFP_COMP, 2);
      expect(() => split_page(compound, 2)).toThrow("split_page of a compound page");
      __free_pages(compound, 2);
    });
  });

  test("a freed page loses flags, type and mapping", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      set_page_flag(page, PG_dirty);
      Page.mapping.set(page, 0x1234);
      __free_pages(page, 0);
      expect([Page.flags.get(page), Page.mapping.get(page), Page.page_type.get(page)]).toEqual([0, 0, -1]);
    });
  });

  test("__GFP_ZERO zeroes all pages of a block; free_pages(0) does nothing", () => {
    with_machine({}, () => {
      for (const order of [0, 1, 4]) {
        const ptr = __get_free_pages(GFP_KERNEL, order);
        ram_fill(ptr, 0x5a, PAGE_SIZE << order);
        free_pages(ptr, order);
        const zeroed = __get_free_pages(GFP_KERNEL | __GFP_ZERO, order);
        expect(ram8.subarray(zeroed, zeroed + (PAGE_SIZE << order)).every((byte) => byte === 0)).toBe(true);
        free_pages(zeroed, order);
      }
      const page = get_zeroed_page(GFP_KERNEL);
      expect(page % PAGE_SIZE).toBe(0);
      free_pages(page, 0);
      free_pages(0, 3);
    });
  });
});

describe("other shapes", () => {
  test("alloc_pages_exact gives the surplus back at once", () => {
    with_machine({}, () => {
      const free = really_free();
      const ptr = alloc_pages_exact(5 * PAGE_SIZE - 100, GFP_KERNEL);
      expect(really_free()).toBe(free - 5);
      for (let i = 0; i < 5; i++) expect(Page.refcount.get(virt_to_page(ptr + i * PAGE_SIZE))).toBe(1);
      free_pages_exact(ptr, 5 * PAGE_SIZE - 100);
      expect(really_free()).toBe(free);
      expect(alloc_pages_exact(PAGE_SIZE << 11, GFP_KERNEL | __GFP_NOWARN)).toBe(0);
    });
  });

  test("alloc_pages_bulk fills the empty entries, each with a page of its own", () => {
    with_machine({}, () => {
      const own = alloc_pages(GFP_KERNEL, 0);
      const pages = [own, 0, own, 0, 0, 0, 0, 0];
      expect(alloc_pages_bulk(GFP_KERNEL, 8, pages)).toBe(8);
      expect(new Set(pages).size).toBe(7);
      expect(pages[2]).toBe(own);
      expect(alloc_pages_bulk(GFP_KERNEL, 8, pages)).toBe(8); // nothing to do
      const hit = sum_zone_numa_event_state(1, NUMA_HIT);
      const more = new Array<number>(20).fill(0);
      expect(alloc_pages_bulk(GFP_KERNEL, 20, more, 1)).toBe(20);
      expect(more.every((page) => page_to_nid(page) === 1)).toBe(true);
      expect(sum_zone_numa_event_state(1, NUMA_HIT)).toBe(hit + 20);
      free_all([...new Set(pages), ...more]);
    });
  });

  test("alloc_pages_bulk asks for one page where no zone of the node can spare so many", () => {
    with_machine({}, () => {
      const pages = new Array<number>(100_000).fill(0);
      expect(alloc_pages_bulk(GFP_KERNEL, 100_000, pages)).toBe(1);
      free_all([pages[0]]);
    });
  });

  test("every page handed out is inside its zone, and addresses convert both ways", () => {
    with_machine({}, () => {
      for (const order of [0, 3, 9]) {
        const page = alloc_pages(GFP_KERNEL, order);
        expect(virt_to_page(page_address(page))).toBe(page);
        const zone = page_zone(page);
        expect(page_to_pfn(page)).toBeGreaterThanOrEqual(Zone.zone_start_pfn.get(zone));
        __free_pages(page, order);
      }
    });
  });
});
