/**
 * Pages of programs, against a model that copies all memory on a fork.
 *
 * The model also knows which pages ought to be one frame: shared by a fork until one side writes. So every wrong, missing
 * or needless copy is found, and, since accesses go through the MMU of one CPU or another, every missed TLB flush.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ipi_counters } from "../../hal/ipi.ts";
import { mmu_fetch, mmu_load32, mmu_load64, mmu_load8, mmu_store32, mmu_store64, mmu_store8 } from "../../hal/mmu.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_RW } from "../../hal/page_walk.ts";
import { tlb_counters } from "../../hal/tlb.ts";
import { Trap, X86_PF_PROT, X86_PF_USER, X86_PF_WRITE } from "../../hal/trap.ts";
import { user_mode } from "../../kernel/entry.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { KERNEL_IMAGE_BASE, PAGE_OFFSET } from "../../mm/kernel_map.ts";
import { VM_FAULT_OOM, empty_zero_page, handle_mm_fault } from "../../mm/memory.ts";
import { MmStruct, type MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, do_mmap, do_munmap, dup_mm, mm_alloc, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { do_mprotect } from "../../mm/mprotect.ts";
import { PG_swapbacked, Page, page_flag } from "../../mm/page.ts";
import { PG_LEVEL_4K, pte_flags, pte_offset, pte_page, pte_phys, type PtePtr } from "../../mm/pgtable.ts";
import { page_mapcount } from "../../mm/rmap.ts";
import { NR_ANON_MAPPED, NR_INACTIVE_ANON, NR_PAGETABLE, PGFAULT, PGREUSE, all_vm_events, global_node_page_state } from "../../mm/vmstat.ts"; // prettier-ignore
import { validate_mm } from "../../mm/validate.ts";
import { find_vma } from "../../mm/vma.ts";
import { with_machine } from "../lib/machine.ts";
import { SEGV, access, load32, run_in, run_in_none, store32 } from "../lib/user.ts";

const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const RW = PROT_READ | PROT_WRITE;
const BASE = 0x400000;
const PAGES = 12;
const va_of = (page: number): number => BASE + page * PAGE_SIZE;
const pte_of = (mm: MmPtr, page: number): PtePtr => pte_offset(MmStruct.tables.at(mm), va_of(page), PG_LEVEL_4K);

const store = (cpu: number, page: number, value: number) => store32(cpu, va_of(page), value);
const load = (cpu: number, page: number) => load32(cpu, va_of(page));

/** With an address space of `PAGES` pages in which CPU 0 runs. */
function with_memory(fn: (mm: MmPtr) => void): void {
  with_machine({ until: "kernel" }, () => {
    const mm = mm_alloc();
    do_mmap(mm, BASE, PAGES * PAGE_SIZE, RW, FIXED);
    run_in(0, mm);
    fn(mm);
    run_in_none();
    mmput(mm);
  });
}

describe("demand zero", () => {
  it("a read maps the zero page, a write a page of its own, on the inactive list; each is a fault", () => {
    with_memory((mm) => {
      const [faults, anon, lru] = [all_vm_events()[PGFAULT]!, global_node_page_state(NR_ANON_MAPPED), global_node_page_state(NR_INACTIVE_ANON)]; // prettier-ignore
      expect(load(0, 0)).toBe(0);
      expect([pte_phys(pte_of(mm, 0)), MmStruct.rss_anon.get(mm)]).toEqual([empty_zero_page(), 0]);
      expect(store(0, 0, 7)).toBeUndefined();
      expect(store(0, 1, 8)).toBeUndefined();
      expect([load(0, 0), load(0, 1)]).toEqual([7, 8]);
      const page = pte_page(pte_of(mm, 0));
      expect([Page.refcount.get(page), page_mapcount(page), page_flag(page, PG_swapbacked)]).toEqual([1, 1, true]);
      expect(pte_flags(pte_of(mm, 0)) & (_PAGE_RW | _PAGE_DIRTY)).toBe(_PAGE_RW | _PAGE_DIRTY);
      expect(all_vm_events()[PGFAULT]! - faults).toBe(3);
      expect(global_node_page_state(NR_ANON_MAPPED) - anon).toBe(2);
      expect(global_node_page_state(NR_INACTIVE_ANON) - lru).toBe(2);
    });
  });

  it("A117: a store to a read-only page is a fault with present and write set, from ring 3 user too", () => {
    with_memory((mm) => {
      store(0, 0, 1);
      expect(do_mprotect(mm, BASE, PAGE_SIZE, PROT_READ)).toBe(0);
      const result = on_cpu(0, () => user_mode(() => mmu_store32(BASE, 2))) as { thrown: Trap };
      expect(result.thrown.error_code).toBe(X86_PF_PROT | X86_PF_WRITE | X86_PF_USER);
      expect(load(0, 0)).toBe(1);
      expect(do_mprotect(mm, BASE, PAGE_SIZE, 0)).toBe(0);
      expect(load(0, 0)).toBe(SEGV);
      expect(do_mprotect(mm, BASE, PAGE_SIZE, RW)).toBe(0);
      expect(load(0, 0)).toBe(1);
    });
  });
});

describe("copy on write", () => {
  it("A135: after a fork a write in the child copies; when both have ended all is given back", () => {
    with_memory((mm) => {
      store(0, 0, 1);
      store(0, 1, 2);
      const tables = global_node_page_state(NR_PAGETABLE);
      const child = dup_mm(mm);
      expect(global_node_page_state(NR_PAGETABLE) - tables).toBe(4); // PGD, PUD, PMD, PTE
      const [page, other] = [pte_page(pte_of(mm, 0)), pte_page(pte_of(mm, 1))];
      for (const each of [page, other]) expect([Page.refcount.get(each), page_mapcount(each)]).toEqual([2, 2]);
      expect(pte_flags(pte_of(mm, 0)) & _PAGE_RW).toBe(0);
      expect(pte_flags(pte_of(child, 0)) & (_PAGE_RW | _PAGE_ACCESSED)).toBe(0);
      run_in(1, child);
      store(1, 0, 3);
      expect([load(0, 0), load(1, 0)]).toEqual([1, 3]);
      expect(pte_page(pte_of(mm, 0))).toBe(page);
      expect([Page.refcount.get(page), Page.refcount.get(other)]).toEqual([1, 2]);
      run_in(1, 0);
      mmput(child);
      expect([Page.refcount.get(other), page_mapcount(other)]).toEqual([1, 1]);
      const reused = all_vm_events()[PGREUSE]!;
      store(0, 1, 9); // nobody else has it any more: no copy
      expect([pte_page(pte_of(mm, 1)), all_vm_events()[PGREUSE]! - reused]).toEqual([other, 1]);
    });
  });

  interface Process {
    readonly mm: MmPtr;
    readonly pages: ({ value: number; frame: number; prot: number } | undefined)[];
  }
  const operation = fc.record({
    kind: fc.constantFrom("store", "store", "store", "load", "fork", "exit", "unmap", "map", "protect"),
    who: fc.nat(7),
    cpu: fc.nat(1),
    page: fc.nat(PAGES - 1),
    length: fc.integer({ min: 1, max: 4 }),
    read_only: fc.boolean(),
    goes: fc.boolean(),
  });

  /** One life of some processes. Returns how often a page was copied and how often it could be kept. */
  function live(operations: readonly (typeof operation extends fc.Arbitrary<infer T> ? T : never)[]): void {
    const first = mm_alloc();
    do_mmap(first, BASE, PAGES * PAGE_SIZE, RW, FIXED);
    const processes: Process[] = [{ mm: first, pages: Array.from({ length: PAGES }, () => ({ value: 0, frame: 0, prot: RW })) }]; // prettier-ignore
    const anon = global_node_page_state(NR_ANON_MAPPED);
    let frames = 0;
    const sharers = (page: number, frame: number): number =>
      processes.filter((each) => each.pages[page]?.frame === frame).length;
    for (const [step, { kind, who, cpu, page, length, read_only, goes }] of operations.entries()) {
      const index = who % processes.length;
      const { mm, pages } = processes[index]!;
      const [cell, bytes, end] = [pages[page], length * PAGE_SIZE, Math.min(page + length, PAGES)];
      const prot = read_only ? PROT_READ : RW;
      run_in(cpu, mm);
      if (kind === "load") expect(load(cpu, page)).toBe(cell ? cell.value : SEGV);
      if (kind === "store") {
        const may = cell !== undefined && cell.prot === RW;
        expect(store(cpu, page, step + 1)).toBe(may ? undefined : SEGV);
        if (may) {
          if (cell.frame === 0 || sharers(page, cell.frame) > 1) cell.frame = ++frames;
          cell.value = step + 1;
        }
      }
      if (kind === "fork" && processes.length < 8)
        processes.push({ mm: dup_mm(mm), pages: pages.map((each) => each && { ...each }) });
      if (kind === "map") {
        expect(do_mmap(mm, va_of(page), (end - page) * PAGE_SIZE, prot, FIXED)).toBe(va_of(page));
        for (let i = page; i < end; i++) pages[i] = { value: 0, frame: 0, prot };
      }
      if (kind === "unmap") {
        expect(do_munmap(mm, va_of(page), bytes)).toBe(0);
        pages.fill(undefined, page, end);
      }
      if (kind === "protect" && do_mprotect(mm, va_of(page), (end - page) * PAGE_SIZE, prot) === 0)
        for (let i = page; i < end; i++) pages[i]!.prot = prot;
      if (goes || kind === "exit") run_in(cpu, 0);
      if (kind === "exit" && processes.length > 1) {
        run_in_none();
        processes.splice(index, 1);
        mmput(mm);
      }
      const distinct = new Set(processes.flatMap((each) => each.pages.flatMap((p) => (p?.frame ? [p.frame] : []))));
      expect(global_node_page_state(NR_ANON_MAPPED) - anon).toBe(distinct.size);
      for (const each of processes)
        expect(MmStruct.rss_anon.get(each.mm)).toBe(each.pages.filter((p) => p !== undefined && p.frame !== 0).length);
    }
    for (const { mm, pages } of processes) {
      run_in(1, mm);
      for (const [page, cell] of pages.entries()) {
        expect(load(1, page)).toBe(cell ? cell.value : SEGV);
        if (cell?.frame) expect(page_mapcount(pte_page(pte_of(mm, page)))).toBe(sharers(page, cell.frame));
      }
    }
    expect(validate_mm()).toEqual([]);
    run_in_none();
    for (const { mm } of processes) mmput(mm);
  }

  it("memory is what copying everything on a fork would give, and frames are shared until one side writes", () => {
    with_machine({ until: "kernel" }, () => {
      const before = [0, 1].map((cpu) => [ipi_counters(cpu).received, tlb_counters(cpu).cr3_loads]);
      fc.assert(fc.property(fc.array(operation, { minLength: 20, maxLength: 80 }), live), { seed: 8, numRuns: 60 });
      for (const cpu of [0, 1]) {
        expect(ipi_counters(cpu).received).toBeGreaterThan(before[cpu]![0]!);
        expect(tlb_counters(cpu).cr3_loads).toBeGreaterThan(before[cpu]![1]!);
      }
    });
  });

  it("a fault without memory fails, at each table and the page in turn, and succeeds later", () => {
    with_memory((mm) => {
      const fault = (): number => handle_mm_fault(find_vma(mm, BASE), BASE, true);
      for (let n = 1; n <= 4; n++) {
        set_fail_nth(1);
        expect([fault(), MmStruct.rss_anon.get(mm)]).toEqual([VM_FAULT_OOM, 0]);
        set_fail_nth(n < 4 ? 2 : 0); // lets one more table be made
        expect(fault()).toBe(n < 4 ? VM_FAULT_OOM : 0);
        set_fail_nth(0);
      }
      const child = dup_mm(mm);
      run_in(1, child);
      set_fail_nth(1);
      expect(store(1, 0, 5)).toBe(SEGV); // the copy
      set_fail_nth(0);
      expect([load(1, 0), store(1, 0, 5), load(0, 0)]).toEqual([0, undefined, 0]);
      run_in(1, 0);
      mmput(child);
    });
  });
});

describe("what is not the program's", () => {
  it("cannot be loaded, stored to, filled or run, whatever the address", () => {
    with_memory((mm) => {
      store(0, 0, 1);
      expect(do_munmap(mm, va_of(1), PAGE_SIZE)).toBe(0); // freed: the TLB may not remember it
      const kernel = fc.integer({ min: -(2 ** 47), max: -1 });
      const direct_map = fc.integer({ min: 0, max: 40 << 20 }).map((at) => PAGE_OFFSET + at);
      const image = fc.integer({ min: 0, max: 4 << 20 }).map((at) => KERNEL_IMAGE_BASE + at);
      const user = fc.integer({ min: 0, max: 2 ** 47 - 1 }).filter((at) => at < BASE - 8 || at >= va_of(PAGES));
      const freed = fc.integer({ min: va_of(1), max: va_of(2) - 8 });
      const strange = fc.constantFrom(NaN, Infinity, 0.5, 2 ** 47, 2 ** 60, -(2 ** 47) - 1, 0xffff888000000000);
      const kinds = [
        mmu_load8, mmu_load32, mmu_load64, mmu_fetch, (va: number) => mmu_store8(va, 1), (va: number) => mmu_store64(va, 1),
      ]; // prettier-ignore
      const property = fc.property(
        fc.oneof(kernel, direct_map, image, user, freed, strange),
        fc.constantFrom(...kinds),
        (va, kind) => {
          expect(access(0, () => kind(va) as number)).toBe(SEGV);
        },
      );
      fc.assert(property, { seed: 3, numRuns: 3000 });
      expect([load(0, 0), MmStruct.rss_anon.get(mm)]).toEqual([1, 1]);
    });
  });
});
