/** Page structs that were written to while nobody owned them: what is said, and that such a page is never seen again. */
import { describe, expect, test } from "vitest";
import { clock_advance, NSEC_PER_SEC } from "../../hal/clock.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { dump_page, format_page_flags } from "../../mm/bad_page.ts";
import { GFP_KERNEL, __GFP_COMP, __GFP_NOWARN } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import {
  PG_dirty, PG_hwpoison, PG_locked, PG_active, Page, page_address, page_to_pfn, set_page_flag, clear_page_flag, virt_to_page,
  type PagePtr,
} from "../../mm/page.ts"; // prettier-ignore
import { drain_all_pages } from "../../mm/pcp.ts";
import { with_machine } from "../lib/machine.ts";

const CHECKED = { append: "debug_pagealloc=on" };
const texts = (): string[] => [...printk_records()].map(({ text }) => text);
const reasons = (): string[] => texts().filter((text) => text.startsWith("page dumped because")).map((text) => text.slice(21)); // prettier-ignore

/** On a machine that checks: `pages` of them are leaked. */
function leaking(pages: number, fn: () => void): void {
  with_machine({ ...CHECKED, page_slack: pages }, fn);
}

/** Takes every page there is, looks that `bad` is not among them, gives them back. */
function never_seen_again(bad: PagePtr): void {
  drain_all_pages();
  const pages: PagePtr[] = [];
  for (let page = alloc_pages(GFP_KERNEL | __GFP_NOWARN, 0); page !== 0; page = alloc_pages(GFP_KERNEL | __GFP_NOWARN, 0)) pages.push(page); // prettier-ignore
  expect(pages.length).toBeGreaterThan(5000);
  expect(pages.includes(bad)).toBe(false);
  for (const page of pages) __free_pages(page, 0);
}

describe("a page that comes back in no state to be freed", () => {
  test("is reported in Linux's words, and leaked", () => {
    leaking(1, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      const pfn = page_to_pfn(page);
      set_page_flag(page, PG_locked);
      set_page_flag(page, PG_active);
      Page.index.set(page, 0x1234);
      const before = texts().length;
      __free_pages(page, 0);
      const report = texts().slice(before);
      const hex = pfn.toString(16);
      expect(report.slice(0, 3)).toEqual([
        `BUG: Bad page state in process swapper/0  pfn:${hex.padStart(5, "0")}`,
        `page: refcount:0 mapcount:0 mapping:0000000000000000 index:0x1234 pfn:0x${hex}`,
        "flags: 0x10000000000101(locked|active|node=0|zone=2)",
      ]);
      expect(report[3]).toMatch(/^raw: 0000000200000101( [0-9a-f]{16}){2} 0000000000000000$/);
      expect(report[4]).toBe("raw: 0000000000001234 0000000000000000 00000000ffffffff 0000000000000000");
      expect(report.slice(5, 10)).toEqual([
        "page dumped because: PAGE_FLAGS_CHECK_AT_FREE flag(s) set",
        "Modules linked in:",
        "CPU: 0 UID: 0 PID: 0 Comm: swapper/0",
        "Call Trace:",
        " <TASK>",
      ]);
      expect(report.find((line) => line.includes("__free_pages"))).toMatch(
        /^ __free_pages \[mm\/page_alloc\.ts:\d+\]$/,
      );
      expect(Page.flags.get(page)).toBe((1 << PG_locked) | (1 << PG_active)); // left for whoever looks for the culprit
      never_seen_again(page);
    });
  });

  test("the last of several reasons is told", () => {
    const spoil: [string, (page: PagePtr) => void][] = [
      ["PAGE_FLAGS_CHECK_AT_FREE flag(s) set", (page) => set_page_flag(page, PG_locked)],
      ["page still charged to cgroup", (page) => Page.memcg_data.set(page, 1)],
      ["non-NULL mapping", (page) => Page.mapping.set(page, page_address(page))],
    ];
    leaking(spoil.length + 1, () => {
      const said = [...spoil, ["page still charged to cgroup", (page) => spoil.forEach(([, fn]) => fn(page))] as (typeof spoil)[0]]; // prettier-ignore
      for (const [, fn] of said) {
        const page = alloc_pages(GFP_KERNEL, 0);
        fn(page);
        __free_pages(page, 0);
      }
      expect(reasons()).toEqual(said.map(([reason]) => reason));
    });
  });

  test("bits that may stay behind are cleared without a word", () => {
    with_machine(CHECKED, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      set_page_flag(page, PG_dirty);
      __free_pages(page, 0);
      expect(Page.flags.get(page)).toBe(0);
      expect(reasons()).toEqual([]);
    });
  });

  test("tails that do not belong to the head condemn the whole block", () => {
    const spoil: [string, (head: PagePtr) => void][] = [
      ["PageTail not set", (head) => set_word(head + 128 + Page.lru.offset, 0)],
      ["compound_head not consistent", (head) => set_word(head + 128 + Page.lru.offset, head + 64 + 1)],
      ["corrupted mapping in tail page", (head) => Page.mapping.set(head + 128, page_address(head))],
    ]; // prettier-ignore
    leaking(12, () => {
      for (const [reason, fn] of spoil) {
        const head = alloc_pages(GFP_KERNEL | __GFP_COMP, 2);
        fn(head);
        __free_pages(head, 2);
        expect(reasons().at(-1)).toBe(reason);
        set_word(head + 128 + Page.lru.offset, head + 1); // so that validate finds nothing else
      }
      expect(texts()).toContain("head: order:2 mapcount:0 entire_mapcount:0 nr_pages_mapped:0 pincount:0");
    });
  });
});

function set_word(ptr: number, value: number): void {
  Page.flags.set(ptr - Page.flags.offset, value);
}

describe("a page that was written to while it was free", () => {
  test("is not handed out: another one is", () => {
    leaking(1, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      __free_pages(page, 0);
      set_page_flag(page, PG_dirty);
      const other = alloc_pages(GFP_KERNEL, 0);
      expect(other).not.toBe(page);
      expect(reasons()).toEqual(["PAGE_FLAGS_CHECK_AT_PREP flag(s) set"]);
      __free_pages(other, 0);
      never_seen_again(page);
    });
  });

  test("a block of the free areas goes as a whole", () => {
    leaking(1 << 5, () => {
      const page = alloc_pages(GFP_KERNEL, 5);
      __free_pages(page, 5);
      Page.memcg_data.set(page + 64 * 3, 1);
      const other = alloc_pages(GFP_KERNEL, 5);
      expect(reasons()).toEqual(["page still charged to cgroup"]);
      __free_pages(other, 5);
      never_seen_again(page + 64 * 3);
    });
  });

  test("a double free shows when the page is next handed out", () => {
    leaking(1, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      __free_pages(page, 0);
      __free_pages(page, 0); // the refcount goes from 0 to -1
      expect(reasons()).toEqual([]);
      const other = alloc_pages(GFP_KERNEL, 0);
      expect(reasons()).toEqual(["nonzero _refcount"]);
      expect(texts().find((text) => text.startsWith("page: "))).toContain("refcount:-1 ");
      __free_pages(other, 0);
      Page.refcount.set(page, 0); // so that validate finds nothing else
    });
  });

  test("a frame that the hardware lost is dropped without a word", () => {
    leaking(1, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      __free_pages(page, 0);
      set_page_flag(page, PG_hwpoison);
      set_page_flag(page, PG_dirty);
      const other = alloc_pages(GFP_KERNEL, 0);
      expect(other).not.toBe(page);
      expect(reasons()).toEqual([]);
      __free_pages(other, 0);
    });
  });
});

test("60 reports a minute, then one line says how many were not made", () => {
  leaking(70, () => {
    const free_bad = (): void => {
      const page = alloc_pages(GFP_KERNEL, 0);
      set_page_flag(page, PG_locked);
      __free_pages(page, 0);
    };
    for (let i = 0; i < 65; i++) free_bad();
    expect(reasons().length).toBe(60);
    clock_advance(60 * NSEC_PER_SEC);
    free_bad();
    const lines = texts();
    const at = lines.indexOf("BUG: Bad page state: 5 messages suppressed");
    expect(lines[at + 1]).toMatch(/^BUG: Bad page state in process swapper\/0 {2}pfn:/);
  });
});

test("a machine that was not told to does not look", () => {
  with_machine({}, () => {
    const page = alloc_pages(GFP_KERNEL, 0);
    set_page_flag(page, PG_locked);
    Page.mapping.set(page, 4096);
    __free_pages(page, 0);
    expect([Page.flags.get(page), Page.mapping.get(page), reasons()]).toEqual([0, 0, []]);
  });
});

test("the dump names a typed page's type; kfree of a page that kmalloc did not give is refused with one", () => {
  with_machine({}, () => {
    const block = kmalloc(20000, GFP_KERNEL);
    const page = alloc_pages(GFP_KERNEL, 0);
    kfree(page_address(page));
    expect(reasons()).toEqual(["Not a kmalloc allocation"]);
    const large = texts().length;
    dump_page(virt_to_page(block), "shown");
    expect(texts().slice(large)).toContain("page_type: f8(large_kmalloc)");
    set_page_flag(page, PG_dirty);
    expect(format_page_flags(page)).toBe("0x10000000000010(dirty|node=0|zone=2)");
    clear_page_flag(page, PG_dirty);
    // A page of a program, mapped twice: the word of the type counts mappings.
    Page.mapping.set(page, page + 1);
    Page.page_type.set(page, 1);
    const mapped = texts().length;
    dump_page(page, "shown");
    expect(texts()[mapped]).toMatch(/^page: refcount:1 mapcount:2 mapping:ffff8880\w+ index:0x0 pfn:0x\w+$/);
    expect(texts()[mapped + 1]).toMatch(/^anon flags: 0x10000000000000\(node=0\|zone=2\)$/);
    expect(texts()[mapped + 2]).toMatch(/^raw: /);
    Page.page_type.set(page, -1);
    expect(format_page_flags(page)).toBe("0x10000000000000(node=0|zone=2)");
    __free_pages(page, 0);
    kfree(block);
  });
});
