import { describe, expect, test } from "vitest";
import { printk_records } from "../../kernel/lib/printk.ts";
import { with_machine } from "../lib/machine.ts";
import {
  FaultAttr, fail_page_alloc, failslab, get_fail_nth, set_fail_nth, set_fault_attr, setup_fault_attr,
  should_fail_alloc_page, should_failslab, type FaultSettings,
} from "../../mm/fault_inject.ts"; // prettier-ignore
import { GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, __GFP_NOFAIL, __GFP_NOWARN } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { find_cache } from "../../mm/slab_common.ts";

const ALWAYS: FaultSettings = { probability: 100, interval: 1, times: -1, space: 0, verbose: 0, ignore_gfp_wait: 0 };

/** Which of `count` asks fail, as a string of . and F. */
function pattern(count: number, ask: () => boolean): string {
  return Array.from({ length: count }, () => (ask() ? "F" : ".")).join("");
}

function with_faults(settings: FaultSettings, fn: () => void): void {
  with_machine({}, () => {
    set_fault_attr(fail_page_alloc, { ...ALWAYS, min_order: 0, ignore_gfp_highmem: 0, ...settings });
    fn();
    set_fault_attr(fail_page_alloc, { probability: 0 });
  });
}

const ask = (): boolean => should_fail_alloc_page(GFP_KERNEL, 0);

describe("fail_page_alloc", () => {
  test("by default nothing fails, and the defaults are Linux's", () => {
    with_machine({}, () => {
      expect(pattern(20, ask)).toBe("....................");
      const knobs = (attr: number): number[] =>
        [FaultAttr.probability, FaultAttr.interval, FaultAttr.times, FaultAttr.space, FaultAttr.verbose].map((k) =>
          k.get(attr),
        );
      expect(knobs(failslab)).toEqual([0, 1, 1, 0, 2]);
      expect(knobs(fail_page_alloc)).toEqual([0, 1, 1, 0, 2]);
      expect(FaultAttr.min_order.get(fail_page_alloc)).toBe(1);
    });
  });

  test("times: so many failures, then none", () =>
    with_faults({ times: 3 }, () => expect(pattern(6, ask)).toBe("FFF...")));
  test("interval: every third call", () =>
    with_faults({ interval: 3 }, () => expect(pattern(9, ask)).toBe("..F..F..F")));

  test("space: so much weight passes first, 2^order a call", () => {
    with_faults({ space: 10 }, () => {
      const large = (): boolean => should_fail_alloc_page(GFP_KERNEL, 2);
      expect(pattern(4, large)).toBe("..FF"); // 10 > 4, 6 > 4, then 2
    });
  });

  test("probability: about so many of a hundred, the same ones for the same seed", () => {
    let first = "";
    with_faults({ probability: 30 }, () => {
      first = pattern(1000, ask);
    });
    with_faults({ probability: 30 }, () => expect(pattern(1000, ask)).toBe(first));
    const failures = first.split("F").length - 1;
    expect(failures).toBeGreaterThan(250);
    expect(failures).toBeLessThan(350);
  });

  test("spares small orders, callers that may wait, user memory and NOFAIL, as it is told", () => {
    with_faults({ min_order: 2, ignore_gfp_wait: 1, ignore_gfp_highmem: 1 }, () => {
      expect(should_fail_alloc_page(GFP_ATOMIC, 1)).toBe(false);
      expect(should_fail_alloc_page(GFP_ATOMIC, 2)).toBe(true);
      expect(should_fail_alloc_page(GFP_KERNEL, 2)).toBe(false);
      set_fault_attr(fail_page_alloc, { ignore_gfp_wait: 0 });
      expect(should_fail_alloc_page(GFP_KERNEL, 2)).toBe(true);
      expect(should_fail_alloc_page(GFP_HIGHUSER_MOVABLE, 2)).toBe(false);
      expect(should_fail_alloc_page(GFP_KERNEL | __GFP_NOFAIL, 2)).toBe(false);
    });
  });

  test("a request that it fails is NULL, on the hot path too, and takes nothing", () => {
    with_faults({ times: 2 }, () => {
      const pages = Array.from({ length: 4 }, () => alloc_pages(GFP_KERNEL, 0));
      expect(pages.map((page) => page !== 0)).toEqual([false, false, true, true]);
      for (const page of pages) if (page !== 0) __free_pages(page, 0);
    });
  });

  test("says so, unless NOWARN", () => {
    with_faults({ times: 5, verbose: 1 }, () => {
      should_fail_alloc_page(GFP_KERNEL | __GFP_NOWARN, 0);
      ask();
      const texts = [...printk_records()].map(({ text }) => text);
      expect(texts.filter((text) => text === "FAULT_INJECTION: forcing a failure.").length).toBe(1);
      expect(texts.at(-1)).toBe("name fail_page_alloc, interval 1, probability 100, space 0, times 4");
    });
  });
});

describe("boot parameters", () => {
  test("fail_page_alloc=interval,probability,space,times", () => {
    with_machine({ append: "fail_page_alloc=7,0,5,-1 failslab=2,0,9,4" }, () => {
      const knobs = [FaultAttr.interval, FaultAttr.probability, FaultAttr.space, FaultAttr.times];
      expect(knobs.map((k) => k.get(fail_page_alloc))).toEqual([7, 0, 5, -1]);
      expect(knobs.map((k) => k.get(failslab))).toEqual([2, 0, 9, 4]);
    });
  });

  test("all four, or nothing and one line", () => {
    with_machine({ append: "failslab=1,2,3" }, () => {
      expect(FaultAttr.probability.get(failslab)).toBe(0);
      expect([...printk_records()].some(({ text }) => text === "FAULT_INJECTION: failed to parse arguments")).toBe(
        true,
      );
      expect(setup_fault_attr(failslab, "1,x,0,1")).toBe(false);
    });
  });
});

describe("failslab", () => {
  test("weighs by object size, spares kmem_cache, and by its filter all caches without the mark", () => {
    with_machine({}, () => {
      const cache = find_cache("kmalloc-64");
      expect(cache).not.toBe(0);
      expect(should_failslab(cache, GFP_KERNEL)).toBe(false);
      set_fault_attr(failslab, { ...ALWAYS, space: 130 });
      expect(pattern(4, () => should_failslab(cache, GFP_KERNEL))).toBe("..FF");
      expect(should_failslab(find_cache("kmem_cache"), GFP_KERNEL)).toBe(false);
      set_fault_attr(failslab, { cache_filter: 1 });
      expect(should_failslab(cache, GFP_KERNEL)).toBe(false);
      set_fault_attr(failslab, { cache_filter: 0, ignore_gfp_wait: 1 });
      expect(should_failslab(cache, GFP_KERNEL)).toBe(false);
      expect(should_failslab(cache, GFP_ATOMIC)).toBe(true);
      set_fault_attr(failslab, { probability: 0 });
    });
  });
});

describe("fail-nth", () => {
  test("exactly the nth allocation fails, of pages on the hot path and of objects alike", () => {
    with_machine({}, () => {
      set_fail_nth(3);
      const pages = Array.from({ length: 5 }, () => alloc_pages(GFP_KERNEL, 0));
      expect(pages.map((page) => page !== 0)).toEqual([true, true, false, true, true]);
      expect(get_fail_nth()).toBe(0);
      for (const page of pages) if (page !== 0) __free_pages(page, 0);
      set_fail_nth(2);
      const cache = find_cache("kmalloc-64");
      expect([should_failslab(cache, GFP_KERNEL), ask(), ask()]).toEqual([false, true, false]);
    });
  });
});
