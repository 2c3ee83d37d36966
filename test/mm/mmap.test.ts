/** Areas of an address space: cut, joined, moved, against a model that knows each page's rights and nothing else. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { EEXIST, EINVAL, ENOMEM } from "../../kernel/lib/errno.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { handle_mm_fault } from "../../mm/memory.ts";
import {
  MMAP_BASE, MmStruct, STACK_GUARD_GAP, STACK_LIMIT, STACK_TOP, START_BRK, VM_ACCESS_FLAGS, VM_GROWSDOWN, VmArea, type MmPtr,
} from "../../mm/mm_types.ts"; // prettier-ignore
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE,
  do_brk, do_mmap, do_munmap, dup_mm, expand_stack, mm_alloc, mm_for_exec, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { do_mprotect } from "../../mm/mprotect.ts";
import { PgTables } from "../../mm/pgtable.ts";
import { find_vma, for_each_vma, highest_gap } from "../../mm/vma.ts";
import { KmemCache, find_cache, oo_objects, oo_order } from "../../mm/slab_common.ts";
import { node_state } from "../../mm/zone.ts";
import { with_machine } from "../lib/machine.ts";

const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const FIXED = ANON | MAP_FIXED;
const RW = PROT_READ | PROT_WRITE;
const BASE = 0x200000;
const PAGES = 24;

/** Areas as [first page, pages, rights], counted from BASE. */
function areas(mm: MmPtr): number[][] {
  return [...for_each_vma(mm)].map((vma) => {
    const [start, end] = [VmArea.vm_start.get(vma), VmArea.vm_end.get(vma)];
    return [(start - BASE) / PAGE_SIZE, (end - start) / PAGE_SIZE, VmArea.vm_flags.get(vma) & VM_ACCESS_FLAGS];
  });
}

/** Runs of equal pages: what areas the model would have. */
function runs(model: readonly (number | undefined)[]): number[][] {
  const found: number[][] = [];
  for (const [i, rights] of model.entries()) {
    const last = found.at(-1);
    if (rights === undefined) continue;
    if (last && last[0]! + last[1]! === i && last[2] === rights) last[1]!++;
    else found.push([i, 1, rights]);
  }
  return found;
}

/** Runs `fn` with an address space, on a machine without programs. */
function with_mm(fn: (mm: MmPtr) => void, make = mm_alloc): void {
  with_machine({ until: "kernel" }, () => {
    const mm = make();
    fn(mm);
    mmput(mm);
  });
}

const at = (page: number): number => BASE + page * PAGE_SIZE;

describe("the structs", () => {
  it("fill slabs as Linux 6.18's do on a machine of two CPUs", () => {
    with_machine({ until: "kernel" }, () => {
      const slabs = (name: string): number[] => {
        const cache = find_cache(name);
        const oo = KmemCache.oo.get(cache);
        return [KmemCache.object_size.get(cache), KmemCache.size.get(cache), oo_objects(oo), 1 << oo_order(oo)];
      };
      expect(slabs("mm_struct")).toEqual([1568, 1600, 20, 8]);
      expect(slabs("vm_area_struct")).toEqual([192, 192, 21, 1]);
      expect(slabs("anon_vma_chain")).toEqual([64, 64, 64, 1]);
    });
  });
});

describe("areas", () => {
  //          0  1  2  3  4  5
  //  mmap    rw rw rw rw rw rw          one area
  //  protect rw rw r- r- rw rw          three
  //  munmap  rw .. r- r- rw rw
  //  protect rw .. rw rw rw rw          two: joined on both sides
  it("are cut where rights change and joined where they are equal again", () => {
    with_mm((mm) => {
      expect(do_mmap(mm, at(0), 6 * PAGE_SIZE, RW, FIXED)).toBe(at(0));
      expect(do_mprotect(mm, at(2), 2 * PAGE_SIZE, PROT_READ)).toBe(0);
      expect(areas(mm)).toEqual([[0, 2, RW], [2, 2, PROT_READ], [4, 2, RW]]); // prettier-ignore
      expect(do_munmap(mm, at(1), 1)).toBe(0);
      expect(do_mprotect(mm, at(2), 2 * PAGE_SIZE, RW)).toBe(0);
      expect(areas(mm)).toEqual([[0, 1, RW], [2, 4, RW]]); // prettier-ignore
      expect([MmStruct.total_vm.get(mm), MmStruct.map_count.get(mm)]).toEqual([5, 2]);
    });
  });

  it("go as high below mmap_base as there is room, each below the one before; a wish is granted if it can be", () => {
    with_mm((mm) => {
      const first = do_mmap(mm, 0, 3 * PAGE_SIZE, RW, ANON);
      expect(first).toBe(MMAP_BASE - 3 * PAGE_SIZE);
      expect(do_mmap(mm, 0, 1, PROT_READ, ANON)).toBe(first - PAGE_SIZE);
      expect(do_munmap(mm, first, PAGE_SIZE)).toBe(0);
      expect(do_mmap(mm, 0, 2 * PAGE_SIZE, PROT_EXEC, ANON)).toBe(first - 3 * PAGE_SIZE); // the hole is too small
      expect(do_mmap(mm, 0, PAGE_SIZE, PROT_EXEC, ANON)).toBe(first);
      expect(do_mmap(mm, BASE + 5, 1, RW, ANON)).toBe(BASE);
      expect(do_mmap(mm, BASE, 1, RW, ANON)).toBe(first - 4 * PAGE_SIZE); // taken: anywhere
    });
  });

  it("refuse what cannot be", () => {
    with_mm((mm) => {
      expect(do_mmap(mm, 0, 0, RW, ANON)).toBe(-EINVAL);
      expect(do_mmap(mm, 0, 1, RW, MAP_ANONYMOUS)).toBe(-EINVAL);
      expect(do_mmap(mm, 0, 1, 8, ANON)).toBe(-EINVAL);
      expect(do_mmap(mm, BASE + 1, 1, RW, FIXED)).toBe(-EINVAL);
      expect(do_mmap(mm, -PAGE_SIZE, 1, RW, FIXED)).toBe(-ENOMEM);
      expect(do_mmap(mm, STACK_TOP, 1, RW, FIXED)).toBe(-ENOMEM);
      expect(do_mmap(mm, 0, 1, RW, FIXED)).toBe(-EINVAL); // page 0: vm.mmap_min_addr
      expect(do_mmap(mm, 0, 2 ** 50, PROT_READ, ANON)).toBe(-ENOMEM);
      expect(do_mmap(mm, 0, (node_state.totalram_pages + 1) * PAGE_SIZE, RW, ANON)).toBe(-ENOMEM);
      expect(do_munmap(mm, BASE + 1, 1)).toBe(-EINVAL);
      expect(do_munmap(mm, BASE, 0)).toBe(-EINVAL);
      expect(do_munmap(mm, BASE, 2 ** 47)).toBe(-EINVAL);
      expect(do_munmap(mm, BASE, PAGE_SIZE)).toBe(0); // nothing there
      expect(do_mprotect(mm, BASE, 1, RW)).toBe(-ENOMEM);
      expect(do_mmap(mm, BASE, 1, RW, ANON | MAP_FIXED_NOREPLACE)).toBe(BASE);
      expect(do_mmap(mm, BASE, 1, RW, ANON | MAP_FIXED_NOREPLACE)).toBe(-EEXIST);
      expect(areas(mm)).toEqual([[0, 1, RW]]);
    });
  });

  const place = fc.integer({ min: 0, max: PAGES - 1 });
  const length = fc.integer({ min: 1, max: 8 });
  const rights = fc.constantFrom(0, PROT_READ, RW, PROT_READ | PROT_EXEC);
  const operation = fc.record({ kind: fc.constantFrom("map", "unmap", "protect"), place, length, rights });

  it("are what a list of pages with their rights says, whatever is mapped, unmapped and protected", () => {
    with_machine({ until: "kernel" }, () => {
      const property = fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        const mm = mm_alloc();
        const model = new Array<number | undefined>(PAGES + 8).fill(undefined);
        for (const { kind, place, length, rights } of operations) {
          const [start, bytes] = [at(place), length * PAGE_SIZE];
          if (kind === "map") expect(do_mmap(mm, start, bytes, rights, FIXED)).toBe(start);
          if (kind === "map" && rights & PROT_WRITE) handle_mm_fault(find_vma(mm, start), start, true);
          if (kind === "unmap") expect(do_munmap(mm, start, bytes)).toBe(0);
          const whole = model.slice(place, place + length).every((page) => page !== undefined);
          if (kind === "protect") expect(do_mprotect(mm, start, bytes, rights)).toBe(whole ? 0 : -ENOMEM);
          if (kind !== "protect" || whole) model.fill(kind === "unmap" ? undefined : rights, place, place + length);
          expect(areas(mm)).toEqual(runs(model));
          for (const pages of [1, 3, 7]) expect(hole_of(mm, pages)).toBe(highest_hole(model, pages));
        }
        const mapped = model.filter((page) => page !== undefined).length;
        expect([MmStruct.total_vm.get(mm), MmStruct.map_count.get(mm)]).toEqual([mapped, runs(model).length]);
        mmput(mm);
      });
      fc.assert(property, { seed: 5, numRuns: 60 });
    });
  });

  const hole_of = (mm: MmPtr, pages: number): number => {
    const found = highest_gap(mm, pages * PAGE_SIZE, BASE, at(PAGES));
    return found < 0 ? -1 : (found - BASE) / PAGE_SIZE;
  };
  const highest_hole = (model: readonly (number | undefined)[], pages: number): number => {
    for (let i = PAGES - pages; i >= 0; i--)
      if (model.slice(i, i + pages).every((page) => page === undefined)) return i;
    return -1;
  };
});

describe("heap and stack", () => {
  it("brk moves the end of the heap, gives pages back, and stays where it is if that cannot be", () => {
    with_mm((mm) => {
      expect(do_brk(mm, 0)).toBe(START_BRK);
      expect(do_brk(mm, START_BRK + 10)).toBe(START_BRK + 10);
      expect(do_brk(mm, START_BRK + 3 * PAGE_SIZE)).toBe(START_BRK + 3 * PAGE_SIZE);
      handle_mm_fault(find_vma(mm, START_BRK), START_BRK + 2 * PAGE_SIZE, true);
      expect(MmStruct.rss_anon.get(mm)).toBe(1);
      expect(do_brk(mm, START_BRK + 1)).toBe(START_BRK + 1);
      expect([MmStruct.rss_anon.get(mm), MmStruct.total_vm.get(mm)]).toEqual([0, 1]);
      expect(do_mmap(mm, START_BRK + 4 * PAGE_SIZE, 1, RW, FIXED)).toBeGreaterThan(0);
      expect(do_brk(mm, START_BRK + 4 * PAGE_SIZE)).toBe(START_BRK + 1); // would touch the area
      expect(do_brk(mm, START_BRK + 3 * PAGE_SIZE)).toBe(START_BRK + 3 * PAGE_SIZE);
      expect(do_brk(mm, START_BRK)).toBe(START_BRK);
      expect(do_brk(mm, START_BRK - 1)).toBe(START_BRK);
      expect(do_brk(mm, START_BRK + node_state.totalram_pages * 2 * PAGE_SIZE)).toBe(START_BRK);
    });
  });

  it("a stack grows to where it is touched, 8 MiB at most, and keeps a gap to what lies below", () => {
    with_mm((mm) => {
      const stack = find_vma(mm, STACK_TOP - 1);
      expect(expand_stack(stack, STACK_TOP - STACK_LIMIT - 1)).toBe(false);
      expect(expand_stack(stack, STACK_TOP - STACK_LIMIT)).toBe(true);
      expect(MmStruct.stack_vm.get(mm)).toBe(STACK_LIMIT / PAGE_SIZE);
      expect(VmArea.vm_start.get(stack)).toBe(STACK_TOP - STACK_LIMIT);
      const grows = do_mmap(mm, BASE + STACK_GUARD_GAP, PAGE_SIZE, RW, FIXED | MAP_GROWSDOWN);
      expect(do_mmap(mm, BASE, 1, RW, ANON)).toBeGreaterThan(STACK_TOP / 2); // the wish lies within the gap
      expect(do_mmap(mm, BASE - PAGE_SIZE, 1, RW, ANON)).toBe(BASE - PAGE_SIZE);
      expect(expand_stack(find_vma(mm, grows), grows - 1)).toBe(false);
      expect(VmArea.vm_flags.get(find_vma(mm, grows)) & VM_GROWSDOWN).toBe(VM_GROWSDOWN);
    }, mm_for_exec);
  });
});

describe("without memory", () => {
  it("each allocation of mmap, munmap, mprotect and fork fails in turn: -ENOMEM, and nothing has changed", () => {
    with_mm((mm) => {
      do_mmap(mm, at(0), 8 * PAGE_SIZE, RW, FIXED);
      for (let i = 0; i < 8; i++) handle_mm_fault(find_vma(mm, at(i)), at(i), true);
      const state = (): unknown => [areas(mm), MmStruct.total_vm.get(mm), MmStruct.rss_anon.get(mm), PgTables.pgtables_bytes.get(MmStruct.tables.at(mm))]; // prettier-ignore
      const calls: (() => number)[] = [
        () => do_mprotect(mm, at(2), 2 * PAGE_SIZE, PROT_READ),
        () => do_munmap(mm, at(5), PAGE_SIZE),
        () => do_mmap(mm, at(0), 2 * PAGE_SIZE, PROT_EXEC, FIXED),
        () => {
          const child = dup_mm(mm);
          if (child !== 0) mmput(child);
          return child === 0 ? -ENOMEM : 0;
        },
      ];
      let failures = 0;
      for (const call of calls) {
        for (let n = 1; ; n++) {
          const before = state();
          set_fail_nth(n);
          const result = kernel_entry("host", call)!;
          set_fail_nth(0);
          if (result >= 0) break;
          expect([result, state()]).toEqual([-ENOMEM, before]);
          failures++;
        }
      }
      // at least: 2 cuts, 2 cuts, an area; mm, PGD, 4 areas and 3 tables
      expect(failures).toBeGreaterThanOrEqual(14);
    });
  });
});
