import { describe, expect, test } from "vitest";
import { cpu_to_node, on_cpu } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { with_machine } from "../lib/machine.ts";
import { give, take, zone_of } from "../lib/pages.ts";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, MIGRATE_HIGHATOMIC, ZONE_NORMAL, __GFP_RECLAIMABLE } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import { page_to_pfn, type PagePtr } from "../../mm/page.ts";
import { set_pageblock_migratetype } from "../../mm/pageblock.ts";
import {
  set_percpu_pagelist_high_fraction, vmstat_update, zone_batchsize, zone_highsize, zone_pcp_disable, zone_pcp_update,
} from "../../mm/pagesets.ts"; // prettier-ignore
import {
  drain_all_pages, drain_local_pages, nr_pcp_alloc, pcp_allowed_order, pcp_blocks, pindex_to_order, set_pcp_limit,
  this_pcp, zone_pcp,
} from "../../mm/pcp.ts"; // prettier-ignore
import { page_fast, zone_clear_flag, zone_set_flag } from "../../mm/plenty.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { zone_free_pages } from "../../mm/watermark.ts";
import { PerCpuPages as P, ZONE_BELOW_HIGH, Zone, for_each_populated_zone, type ZonePtr } from "../../mm/zone.ts";

const normal = (): ZonePtr => zone_of(0, ZONE_NORMAL);

/** Sets this CPU's limits of a zone as a larger machine would have them. */
function set_limits(zone: ZonePtr, batch: number, high_min: number, high_max: number): number {
  const pcp = this_pcp(zone);
  P.batch.set(pcp, batch);
  P.high_min.set(pcp, high_min);
  P.high_max.set(pcp, high_max);
  P.alloc_factor.set(pcp, 0);
  P.free_count.set(pcp, 0);
  P.high.set(pcp, 0);
  set_pcp_limit(pcp);
  return pcp;
}

function held(zone: ZonePtr, cpu = 0): number[] {
  return [...pcp_blocks(zone, cpu)].map(({ page }) => page_to_pfn(page));
}

describe("limits", () => {
  test.each([
    [3840, 1], [12287, 1], [12288, 3], [24575, 3], [24576, 7], [45055, 7], [45056, 15], [90111, 15], [90112, 31],
    [131072, 31], [176127, 31], [176128, 63], [772917, 63], [5505024, 63],
  ])("a zone of %d pages has batches of %d", (managed, batch) => expect(zone_batchsize(managed)).toBe(batch)); // prettier-ignore

  test("a high fraction fixes both limits, at least four batches", () => {
    expect(zone_highsize(131072, 3048, 2, 8)).toEqual([8192, 8192]);
    expect(zone_highsize(131072, 3048, 2, 100_000)).toEqual([124, 124]);
    with_machine({}, () => {
      expect(set_percpu_pagelist_high_fraction(7)).toBe(false);
      expect(set_percpu_pagelist_high_fraction(8)).toBe(true);
      const pcp = this_pcp(normal());
      expect(P.high_min.get(pcp)).toBe(P.high_max.get(pcp));
      set_percpu_pagelist_high_fraction(0);
      expect(P.high_max.get(pcp)).toBeGreaterThan(P.high_min.get(pcp));
    });
  });

  test("after boot each CPU's limits follow from its zone and the CPUs that share it", () => {
    with_machine({}, () => {
      for (const zone of for_each_populated_zone())
        for (const cpu of [0, 1]) {
          const managed = Zone.managed_pages.get(zone);
          const [high_min, high_max] = zone_highsize(managed, Zone.watermark.get(zone, 1), 1, 0); // a CPU a node
          const pcp = zone_pcp(zone, cpu);
          expect([P.batch.get(pcp), P.high_min.get(pcp), P.high_max.get(pcp)]).toEqual([
            zone_batchsize(managed), high_min, high_max,
          ]); // prettier-ignore
        }
    });
  });
});

describe("refills", () => {
  /** Sizes of refills, and `high` after each, while a CPU only allocates and its list is empty each time. */
  function refills(zone: ZonePtr, count: number): [number[], number[]] {
    const pcp = set_limits(zone, 63, 500, 8192);
    P.count.set(pcp, 0);
    const sizes: number[] = [];
    const highs: number[] = [];
    for (let i = 0; i < count; i++) {
      sizes.push(nr_pcp_alloc(zone, pcp, 0));
      highs.push(P.high.get(pcp));
    }
    return [sizes, highs];
  }

  test("grow from batch to 32 batches while nothing is freed, and high with them", () => {
    with_machine({}, () => {
      drain_all_pages();
      const [sizes, highs] = refills(normal(), 8);
      expect(sizes).toEqual([63, 126, 252, 504, 1008, 2016, 2016, 2016]);
      expect(highs).toEqual([563, 689, 941, 1445, 2453, 4469, 6485, 8192]);
      zone_pcp_update(normal());
    });
  });

  test("are held down by high while the zone is below its high mark", () => {
    with_machine({}, () => {
      drain_all_pages();
      zone_set_flag(normal(), ZONE_BELOW_HIGH);
      const [sizes, highs] = refills(normal(), 6);
      expect(sizes).toEqual([63, 126, 252, 437, 437, 437]);
      expect(highs).toEqual([500, 500, 500, 500, 500, 500]);
      expect(P.alloc_factor.get(this_pcp(normal()))).toBe(3);
      zone_clear_flag(normal(), ZONE_BELOW_HIGH);
      zone_pcp_update(normal());
    });
  });

  test("of larger orders take batch / 2^order blocks, two at least", () => {
    with_machine({}, () => {
      drain_all_pages();
      const pcp = set_limits(normal(), 63, 500, 8192);
      expect([1, 2, 3, 9].map((order) => nr_pcp_alloc(normal(), pcp, order))).toEqual([31, 15, 7, 2]);
      P.batch.set(pcp, 1);
      expect(nr_pcp_alloc(normal(), pcp, 3)).toBe(1);
      zone_pcp_update(normal());
    });
  });

  test("append pages in the order in which the buddy allocator gave them: ascending, from a fresh block", () => {
    with_machine({}, () => {
      drain_all_pages();
      set_limits(normal(), 7, 100, 1000);
      const pages = Array.from({ length: 7 }, () => alloc_pages(GFP_KERNEL, 0));
      const pfns = pages.map(page_to_pfn);
      expect(pfns).toEqual([...pfns].sort((a, b) => a - b));
      for (const page of pages) __free_pages(page, 0);
      const reversed = [...pfns].reverse();
      expect(held(normal()).slice(0, 7)).toEqual(reversed); // freed pages are the next to be handed out
      zone_pcp_update(normal());
    });
  });
});

describe("frees", () => {
  test("orders 0..3 and 9 are kept, others go straight to the buddy allocator", () => {
    expect([...Array(11).keys()].filter(pcp_allowed_order)).toEqual([0, 1, 2, 3, 9]);
    expect([...Array(14).keys()].map(pindex_to_order)).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 9, 9]);
    with_machine({}, () => {
      drain_all_pages();
      const free = zone_free_pages(normal());
      const page = alloc_pages(GFP_KERNEL, 4);
      __free_pages(page, 4);
      expect(zone_free_pages(normal())).toBe(free);
      expect(held(normal())).toEqual([]);
    });
  });

  test("pages go to the list of their page block's type; HighAtomic ones are kept with the movable", () => {
    with_machine({}, () => {
      drain_all_pages();
      set_limits(normal(), 1, 100, 100);
      const list_of = (page: PagePtr): number =>
        [...pcp_blocks(normal(), 0)].find((block) => block.page === page)!.pindex;
      const kinds = [GFP_KERNEL, GFP_HIGHUSER_MOVABLE, GFP_KERNEL | __GFP_RECLAIMABLE];
      const pages = kinds.map((gfp) => alloc_pages(gfp, 0));
      for (const page of pages) __free_pages(page, 0);
      expect(pages.map(list_of)).toEqual([0, 1, 2]);
      const page = alloc_pages(GFP_KERNEL, 0);
      set_pageblock_migratetype(page, MIGRATE_HIGHATOMIC);
      __free_pages(page, 0);
      expect(list_of(page)).toBe(1);
      set_pageblock_migratetype(page, 0);
      zone_pcp_update(normal());
    });
  });

  /* high_min = high_max = 10, batch 4: the tenth page fills the list; then tails go, 4 to 6 at a time. */
  test("at the limit the tails go back: as many as were freed in a row, between batch and limit - batch", () => {
    with_machine({}, () => {
      drain_all_pages();
      const pages = Array.from({ length: 30 }, () => alloc_pages(GFP_KERNEL, 0));
      drain_all_pages();
      const pcp = set_limits(normal(), 4, 10, 10);
      const counts: number[] = [];
      for (const page of pages) {
        __free_pages(page, 0);
        counts.push(P.count.get(pcp));
      }
      expect(counts.slice(0, 10)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 4]); // free_count 10, held to 10 - 4 = 6
      expect(held(normal())[0]).toBe(page_to_pfn(pages[29]));
      expect(Math.max(...counts)).toBe(9);
      zone_pcp_update(normal());
    });
  });

  test("with limits of 0 every free goes straight through", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      on_cpu(1, () => __free_pages(alloc_pages_node(0, GFP_KERNEL, 0), 0));
      expect(held(normal(), 1).length).toBeGreaterThan(0);
      zone_pcp_disable(normal());
      expect(held(normal(), 1)).toEqual([]);
      const free = zone_free_pages(normal());
      __free_pages(page, 0);
      expect(held(normal())).toEqual([]);
      expect(zone_free_pages(normal())).toBe(free + 1);
      const again = alloc_pages(GFP_KERNEL, 0);
      expect(zone_free_pages(normal())).toBe(free); // one is taken, none is kept
      __free_pages(again, 0);
      zone_pcp_update(normal());
    });
  });

  test("a drain starts with the list just freed to, goes on with the next, and may overshoot by a block", () => {
    with_machine({}, () => {
      drain_all_pages();
      const big = Array.from({ length: 3 }, () => alloc_pages(GFP_KERNEL, 3));
      const small = Array.from({ length: 4 }, () => alloc_pages(GFP_KERNEL, 0));
      drain_all_pages();
      const pcp = set_limits(normal(), 5, 26, 26);
      for (const page of big) __free_pages(page, 3); // list 9: 24 pages
      __free_pages(small[0], 0);
      expect(P.count.get(pcp)).toBe(25);
      __free_pages(small[1], 0); // the 26th: free_count 26, held to 26 - 5 = 21: two of list 0, then three blocks
      expect(P.count.get(pcp)).toBe(0);
      for (const page of small.slice(2)) __free_pages(page, 0);
      zone_pcp_update(normal());
    });
  });

  test("blocks of order 1..3 freed one after another are not kept", () => {
    with_machine({}, () => {
      drain_all_pages();
      const pages = Array.from({ length: 60 }, () => alloc_pages(GFP_KERNEL, 1));
      drain_all_pages();
      const pcp = set_limits(normal(), 7, 20, 2000);
      let largest = 0;
      for (const page of pages) {
        __free_pages(page, 1);
        largest = Math.max(largest, P.count.get(pcp));
      }
      // free_count >= batch + high_min / 2 = 17 and the free before was such a one too: then all goes
      expect(largest).toBeLessThanOrEqual(20);
      zone_pcp_update(normal());
    });
  });

  test("pages are conserved: what one CPU frees, another cannot see until it is drained", () => {
    with_machine({}, () => {
      drain_all_pages();
      const page = on_cpu(1, () => alloc_pages(GFP_KERNEL, 0));
      const zone = zone_of(cpu_to_node(1), ZONE_NORMAL);
      __free_pages(page, 0); // on CPU 0
      expect(held(zone, 0)).toContain(page_to_pfn(page));
      expect(held(zone, 1)).not.toContain(page_to_pfn(page));
      expect(validate_pages()).toEqual([]);
      drain_local_pages();
      expect(held(zone, 0)).toEqual([]);
      drain_all_pages();
      expect(held(zone, 1)).toEqual([]);
    });
  });
});

describe("time", () => {
  test("each second high decays towards high_min, and what lies above goes back", () => {
    with_machine({}, () => {
      drain_all_pages();
      const pcp = set_limits(normal(), 1, 8, 400);
      const pages = Array.from({ length: 200 }, () => alloc_pages(GFP_KERNEL, 0));
      P.high.set(pcp, 400);
      set_pcp_limit(pcp);
      P.free_count.set(pcp, 0);
      for (const page of pages) __free_pages(page, 0);
      const count = P.count.get(pcp);
      vmstat_update();
      expect(P.high.get(pcp)).toBe(Math.max(count - 32, 400 - 50));
      for (let i = 0; i < 40; i++) vmstat_update();
      expect(P.high.get(pcp)).toBe(8);
      expect(P.count.get(pcp)).toBeLessThanOrEqual(8);
      zone_pcp_update(normal());
    });
  });

  test("pages of another node's zone go back after three seconds", () => {
    with_machine({}, () => {
      drain_all_pages();
      const zone = zone_of(1, ZONE_NORMAL);
      const page = on_cpu(1, () => alloc_pages(GFP_KERNEL, 0));
      __free_pages(page, 0); // CPU 0 keeps a page of node 1
      for (const left of [1, 1, 0]) {
        vmstat_update();
        expect(P.count.get(zone_pcp(zone, 0))).toBe(left);
      }
    });
  });
});

describe("the hot path's word", () => {
  test("names the nearest zone's lists while that has plenty, and is NULL otherwise", () => {
    with_machine({}, () => {
      const word = (cpu: number): number => on_cpu(cpu, () => page_fast.pcp.get(per_cpu_ptr(page_fast.ptr, cpu)));
      expect(word(0)).toBe(zone_pcp(normal(), 0));
      expect(word(1)).toBe(zone_pcp(zone_of(1, ZONE_NORMAL), 1));
      zone_set_flag(normal(), ZONE_BELOW_HIGH);
      expect([word(0), word(1)]).toEqual([0, zone_pcp(zone_of(1, ZONE_NORMAL), 1)]);
      zone_clear_flag(normal(), ZONE_BELOW_HIGH);
      expect(word(0)).toBe(zone_pcp(normal(), 0));
      const pages: PagePtr[] = [];
      for (let page = take(normal(), 9); page !== 0; page = take(normal(), 9)) pages.push(page);
      expect(word(0)).toBe(0); // no block of order 9 is left
      expect(validate_pages()).toEqual([]);
      for (const page of pages) give(normal(), page, 9);
      expect(word(0)).toBe(zone_pcp(normal(), 0));
    });
  });
});
