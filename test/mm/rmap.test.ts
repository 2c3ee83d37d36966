/** From pages to what maps them: interval trees, anon_vmas over forks, and what validate_mm() makes of it. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { vma_interval_tree, vma_interval_tree_insert, vma_interval_tree_remove } from "../../mm/interval_tree.ts";
import { kfree, kzalloc } from "../../mm/kmalloc.ts";
import { MmStruct, VmArea, type MmPtr, type VmaPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, do_mmap, do_munmap, dup_mm, mm_alloc, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { Page, type PagePtr } from "../../mm/page.ts";
import { PG_LEVEL_4K, pte_offset, pte_page } from "../../mm/pgtable.ts";
import { page_mapcount, rmap_walk } from "../../mm/rmap.ts";
import { find_cache, get_slabinfo } from "../../mm/slab_common.ts";
import { validate_mm } from "../../mm/validate.ts";
import { vm_area_alloc, vm_area_free } from "../../mm/vma.ts";
import { with_machine } from "../lib/machine.ts";
import { load32, run_in, run_in_none, store32 } from "../lib/user.ts";

const RW = PROT_READ | PROT_WRITE;
const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const BASE = 0x400000;
const at = (page: number): number => BASE + page * PAGE_SIZE;
const page_of = (mm: MmPtr, page: number): PagePtr =>
  pte_page(pte_offset(MmStruct.tables.at(mm), at(page), PG_LEVEL_4K));
/** An address space of so many pages, in which CPU 0 runs. */
function program(pages: number): MmPtr {
  const mm = mm_alloc();
  run_in(0, mm);
  do_mmap(mm, BASE, pages * PAGE_SIZE, RW, FIXED);
  return mm;
}
const live = (cache: string): number => get_slabinfo(find_cache(cache)).live_objs;

describe("an interval tree", () => {
  const interval = fc.record({ first: fc.nat(40), pages: fc.integer({ min: 1, max: 12 }), goes: fc.boolean() });
  it("finds the areas that have a page of a range, whatever came and went", () => {
    with_machine({ until: "kernel" }, () => {
      const root = AddressSpace.i_mmap.at(kzalloc(AddressSpace.sizeof, GFP_KERNEL));
      const property = fc.property(fc.array(interval, { maxLength: 60 }), (intervals) => {
        const model = new Map<VmaPtr, readonly [number, number]>();
        for (const { first, pages, goes } of intervals) {
          const [oldest] = model.keys();
          if (goes && oldest !== undefined) {
            vma_interval_tree_remove(root, oldest);
            vm_area_free(oldest);
            model.delete(oldest);
          }
          const vma = vm_area_alloc(0, BASE, BASE + pages * PAGE_SIZE, 0);
          VmArea.vm_pgoff.set(vma, first);
          vma_interval_tree_insert(root, vma);
          model.set(vma, [first, first + pages - 1]);
          for (const [from, to] of [
            [first, first],
            [0, 5],
            [20, 25],
            [0, 100],
          ] as const) {
            // prettier-ignore
            const expected = [...model].filter(([, [a, b]]) => a <= to && b >= from).map(([each]) => each);
            expect([...vma_interval_tree(root, from, to)].sort()).toEqual(expected.sort());
          }
        }
        for (const vma of model.keys()) {
          vma_interval_tree_remove(root, vma);
          vm_area_free(vma);
        }
      });
      fc.assert(property, { seed: 4, numRuns: 40 });
      kfree(root - AddressSpace.i_mmap.offset);
    });
  });
});

describe("anon_vmas", () => {
  it("find a page wherever a fork left it, and a copy only where it was made", () => {
    with_machine({ until: "kernel" }, () => {
      const mm = program(4);
      store32(0, at(1), 1);
      const children = [dup_mm(mm), dup_mm(mm)];
      const grandchild = dup_mm(children[0]!);
      const owners = (page: PagePtr): MmPtr[] => [...rmap_walk(page)].map(({ vma }) => VmArea.vm_mm.get(vma));
      const page = page_of(mm, 1);
      const all = [mm, ...children, grandchild];
      expect(owners(page).sort()).toEqual(all.sort());
      run_in(1, grandchild);
      store32(1, at(1), 2);
      expect(owners(page).includes(grandchild)).toBe(false);
      expect(owners(page_of(grandchild, 1))).toEqual([grandchild]);
      expect(do_munmap(mm, at(0), PAGE_SIZE)).toBe(0); // the area is cut: it is found at its new start
      expect([owners(page).length, page_mapcount(page)]).toEqual([3, 3]);
      run_in_none();
      mmput(mm);
      expect(owners(page).sort()).toEqual([...children].sort());
      expect(validate_mm()).toEqual([]);
      for (const each of [...children, grandchild]) mmput(each);
    });
  });

  it("are as many after a hundred generations, each of whose parents ended, as after three", () => {
    with_machine({ until: "kernel" }, () => {
      let mm = program(2);
      store32(0, at(0), 7);
      const counts: number[][] = [];
      for (let generation = 0; generation < 100; generation++) {
        const child = dup_mm(mm);
        run_in(0, child);
        store32(0, at(1), generation);
        mmput(mm);
        mm = child;
        counts.push([live("anon_vma"), live("anon_vma_chain")]);
      }
      expect(counts.at(-1)).toEqual(counts[3]);
      expect([load32(0, at(0)), load32(0, at(1)), validate_mm()]).toEqual([7, 99, []]);
      run_in_none();
      mmput(mm);
    });
  });

  it("a fork that finds no memory for one leaves none behind", () => {
    with_machine({ until: "kernel" }, () => {
      const mm = program(2);
      store32(0, at(0), 7);
      const before = ["anon_vma", "anon_vma_chain", "vm_area_struct"].map(live);
      let failures = 0;
      for (let n = 1; ; n++) {
        set_fail_nth(n);
        const child = kernel_entry("host", () => dup_mm(mm))!;
        set_fail_nth(0);
        if (child !== 0) mmput(child);
        expect([["anon_vma", "anon_vma_chain", "vm_area_struct"].map(live), validate_mm()]).toEqual([before, []]);
        if (child !== 0) break;
        failures++;
      }
      expect(failures).toBeGreaterThan(4);
      run_in_none();
      mmput(mm);
    });
  });
});

describe("validate_mm()", () => {
  it("finds a page with a wrong mapcount, and one under the wrong anon_vma", () => {
    with_machine({ until: "kernel" }, () => {
      const mm = program(1);
      do_mmap(mm, at(8), PAGE_SIZE, RW, FIXED);
      store32(0, at(0), 1);
      store32(0, at(8), 1);
      const [page, other] = [page_of(mm, 0), page_of(mm, 8)];
      const spoil = (field: typeof Page.page_type | typeof Page.mapping, value: number): string[] => {
        const right = field.get(page);
        field.set(page, value);
        const found = validate_mm();
        field.set(page, right);
        return found;
      };
      expect(spoil(Page.page_type, 1).join()).toMatch(/has mapcount 2, and 1 entries map it/);
      expect(spoil(Page.mapping, Page.mapping.get(other)).join()).toMatch(/has mapcount 1, and 0 entries map it/);
      expect(validate_mm()).toEqual([]);
      run_in_none();
      mmput(mm);
    });
  });
});
