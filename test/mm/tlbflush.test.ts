/** TLBs of programs: six address spaces a CPU by PCID, generations, lazy CPUs, and what a change sends to whom. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, type Virt } from "../../hal/addr.ts";
import { read_cr3 } from "../../hal/control_regs.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ipi_counters } from "../../hal/ipi.ts";
import { mmu_load32, mmu_store32 } from "../../hal/mmu.ts";
import { tlb_counters } from "../../hal/tlb.ts";
import { user_mode } from "../../kernel/entry.ts";
import { TaskStruct, idle_task, set_current_task } from "../../kernel/task.ts";
import { swapper_pg_dir } from "../../mm/kernel_map.ts";
import type { MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, do_mmap, do_munmap, dup_mm, mm_alloc, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { do_mprotect } from "../../mm/mprotect.ts";
import { mm_cpumask_has } from "../../mm/tlbflush.ts";
import { with_machine } from "../lib/machine.ts";

const RW = PROT_READ | PROT_WRITE;
const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const BASE: Virt = 0x400000;
const PAGES = 64;
const page = (n: number): Virt => BASE + n * PAGE_SIZE;

function run_in(cpu: number, mm: MmPtr): void {
  on_cpu(cpu, () => {
    TaskStruct.mm.set(idle_task(cpu), mm);
    set_current_task(idle_task(cpu));
  });
}

function on<T>(cpu: number, fn: () => T): T {
  const result = on_cpu(cpu, () => user_mode(fn));
  if ("thrown" in result) throw result.thrown;
  return result.value;
}
const store = (cpu: number, n: number): void => on(cpu, () => mmu_store32(page(n), n));
const load = (cpu: number, n: number): number => on(cpu, () => mmu_load32(page(n)));
const pcid_of = (cpu: number): number => on_cpu(cpu, read_cr3) % PAGE_SIZE;

/** What the CPUs' TLBs and interrupts did meanwhile. */
function did(
  cpu: number,
  fn: () => void,
): { flushes: number; invlpg: number; walks: number; cr3_loads: number; ipis: number } {
  const now = () => ({ ...tlb_counters(cpu), ipis: ipi_counters(cpu).received });
  const before = now();
  fn();
  const after = now();
  const since = (key: keyof typeof after): number => after[key] - before[key];
  return { flushes: since("flushes"), invlpg: since("invlpg"), walks: since("walks"), cr3_loads: since("cr3_loads"), ipis: since("ipis") }; // prettier-ignore
}
const QUIET = { flushes: 0, invlpg: 0, walks: 0, cr3_loads: 0, ipis: 0 };

/** With so many address spaces of 64 pages each. */
function with_spaces(nr: number, fn: (mms: MmPtr[]) => void): void {
  with_machine({ until: "kernel" }, () => {
    const mms = Array.from({ length: nr }, () => mm_alloc());
    for (const mm of mms) do_mmap(mm, BASE, PAGES * PAGE_SIZE, RW, FIXED);
    fn(mms);
    for (const cpu of [0, 1]) run_in(cpu, 0);
    mms.forEach(mmput);
  });
}

describe("a switch of address spaces", () => {
  it("flushes nothing for one of the last six, each with a PCID of its own; the seventh takes the oldest's slot", () => {
    with_spaces(7, (mms) => {
      const pcids = mms.slice(0, 6).map((mm, i) => {
        run_in(0, mm);
        store(0, i); // a page of its own, so that no other takes its place in the TLB
        return pcid_of(0);
      });
      expect([...pcids].sort()).toEqual([1, 2, 3, 4, 5, 6]);
      for (const [i, mm] of mms.slice(0, 6).entries())
        expect(did(0, () => (run_in(0, mm), load(0, i)))).toEqual({ ...QUIET, cr3_loads: 1 });
      const seventh = did(0, () => run_in(0, mms[6]!));
      expect([seventh, pcid_of(0)]).toEqual([{ ...QUIET, cr3_loads: 1, flushes: 1 }, pcids[0]]);
      expect(did(0, () => (run_in(0, mms[5]!), load(0, 5)))).toEqual({ ...QUIET, cr3_loads: 1 });
      expect(did(0, () => (run_in(0, mms[0]!), load(0, 0)))).toEqual({ ...QUIET, cr3_loads: 1, flushes: 1, walks: 1 });
    });
  });

  it("to the one that is loaded does nothing", () => {
    with_spaces(1, ([mm]) => {
      run_in(0, mm!);
      store(0, 0);
      expect(did(0, () => (run_in(0, mm!), load(0, 0)))).toEqual(QUIET);
    });
  });

  it("back to one that has changed meanwhile flushes its PCID", () => {
    with_spaces(2, ([mm, other]) => {
      run_in(0, mm!);
      store(0, 0);
      run_in(0, other!);
      run_in(1, mm!);
      do_mprotect(mm!, BASE, PAGE_SIZE, PROT_READ); // by this CPU, which runs the other
      expect(did(0, () => (run_in(0, mm!), load(0, 0)))).toEqual({ ...QUIET, cr3_loads: 1, flushes: 1, walks: 1 });
      expect(() => store(0, 0)).toThrow("trap 14, error code 7");
    });
  });
});

describe("a change of an address space", () => {
  it("is told page by page up to 33 pages, and all at once beyond; to the CPUs that run in it", () => {
    with_spaces(1, ([mm]) => {
      run_in(1, mm!);
      for (const pages of [1, 33, 34]) {
        for (let i = 0; i < pages; i++) store(1, i);
        const expected = { ...QUIET, ipis: 1, ...(pages > 33 ? { flushes: 1 } : { invlpg: pages }) };
        expect(did(1, () => do_mprotect(mm!, BASE, pages * PAGE_SIZE, PROT_READ))).toEqual(expected);
        expect(() => store(1, pages - 1)).toThrow("error code 7");
        do_mprotect(mm!, BASE, pages * PAGE_SIZE, RW);
      }
    });
  });

  it("is not told where an entry becomes present, and to this CPU alone where a page is copied", () => {
    with_spaces(1, ([mm]) => {
      run_in(0, mm!);
      expect(did(0, () => store(0, 0))).toMatchObject({ flushes: 0, invlpg: 0, ipis: 0 });
      expect(did(1, () => store(0, 1))).toEqual(QUIET);
      const child = dup_mm(mm!);
      expect(did(0, () => store(0, 0))).toMatchObject({ flushes: 0, invlpg: 1, ipis: 0 });
      mmput(child);
    });
  });

  it("reaches a CPU that runs another by now once: it takes itself off the mask", () => {
    with_spaces(2, ([mm, other]) => {
      run_in(1, mm!);
      store(1, 0);
      run_in(1, other!);
      expect(mm_cpumask_has(mm!, 1)).toBe(true);
      const change = (): unknown => do_mprotect(mm!, BASE, PAGE_SIZE, PROT_READ);
      expect(did(1, change)).toEqual({ ...QUIET, ipis: 1 });
      expect(mm_cpumask_has(mm!, 1)).toBe(false);
      expect(did(1, change)).toEqual(QUIET);
    });
  });

  it("leaves a lazy CPU in peace, which looks when it comes back; unless tables are freed: then it leaves them", () => {
    with_spaces(1, ([mm]) => {
      run_in(1, mm!);
      store(1, 0);
      run_in(1, 0); // a kernel thread
      expect(on_cpu(1, read_cr3) - pcid_of(1)).not.toBe(swapper_pg_dir());
      expect(did(1, () => do_mprotect(mm!, BASE, PAGE_SIZE, PROT_READ))).toEqual(QUIET);
      expect(did(1, () => run_in(1, mm!))).toEqual({ ...QUIET, cr3_loads: 1, flushes: 1 });
      expect(() => store(1, 0)).toThrow("error code 7");
      run_in(1, 0);
      expect(did(1, () => do_munmap(mm!, BASE, PAGES * PAGE_SIZE))).toEqual({ ...QUIET, ipis: 1, cr3_loads: 1 });
      expect(on_cpu(1, read_cr3)).toBe(swapper_pg_dir());
      expect(mm_cpumask_has(mm!, 1)).toBe(false);
    });
  });
});
