/** Page tables: what boot maps, mapping and unmapping by hand, and that every table is given back. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, px, virt_px, type Ptr, type Virt } from "../../hal/addr.ts";
import { read_cr4, write_cr3 } from "../../hal/control_regs.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { DATA_BASE, TEXT_BASE, image_end, static_data } from "../../hal/image.ts";
import { machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { mmu_fetch, mmu_load32, mmu_load8, mmu_store32 } from "../../hal/mmu.ts";
import { _PAGE_PSE, _PAGE_RW, _PAGE_USER, mmu_probe } from "../../hal/page_walk.ts";
import { X86_CR4_SMAP, X86_CR4_SMEP, set_cpl } from "../../hal/privilege.ts";
import { ram8 } from "../../hal/ram.ts";
import { Trap, X86_PF_INSTR, X86_PF_PROT, X86_PF_USER, X86_PF_WRITE } from "../../hal/trap.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { direct_map_kib, image_to_virt, ptr_to_virt, swapper_pg_dir, virt_to_ptr } from "../../mm/kernel_map.ts";
import { page_type, PGTY_table, virt_to_page } from "../../mm/page.ts";
import {
  PAGE_READONLY, PAGE_READONLY_EXEC, PAGE_SHARED, PAGE_SHARED_EXEC, PgTables, TASK_SIZE_MAX, for_each_leaf,
  free_pgtables, pagetable_free_chain, pg_level_size, pgd_alloc, pgd_free, pte_alloc, pte_clear, pte_flags, pte_none,
  pte_offset, pte_phys, ptep_clear_flags, ptep_set_flags, set_pte,
} from "../../mm/pgtable.ts"; // prettier-ignore
import { vfree, vmalloc } from "../../mm/vmalloc.ts";
import { NR_PAGETABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { walk_image } from "../lib/image_walker.ts";
import { with_machine } from "../lib/machine.ts";

const mm = static_data("pgtable_test", { tables: PgTables }).tables;
const RAM = (): Uint8Array => ram8.subarray(0, 40 << 20);

function error_code(access: () => unknown): number {
  try {
    access();
  } catch (error) {
    if (error instanceof Trap) return error.error_code;
    throw error;
  }
  return -1;
}

/** Our probe as the second walker answers. */
function ours(cr3: number, va: Virt): object {
  const { pa, r, w, x, user } = mmu_probe(cr3, va);
  return { pa: pa === null ? null : BigInt(pa), r: Number(r), w: Number(w), x: Number(x), user: Number(user) };
}
const theirs = (cr3: number, va: Virt): object => walk_image(RAM(), BigInt(cr3), BigInt.asUintN(64, BigInt(va)));

describe("boot", () => {
  it("maps all RAM at ffff888000000000 and the image at ffffffff81000000, read-only where nothing is written", () => {
    with_machine({}, () => {
      for (let ptr = 0; ptr < 40 << 20; ptr += PAGE_SIZE) {
        const { pa, w, x, user } = mmu_probe(swapper_pg_dir(), ptr_to_virt(ptr) + 5);
        const rodata = ptr >= TEXT_BASE && ptr < DATA_BASE;
        expect({ at: px(ptr), pa, w, x, user }).toEqual({
          at: px(ptr),
          pa: ptr + 5,
          w: !rodata,
          x: false,
          user: false,
        });
      }
      expect(mmu_probe(swapper_pg_dir(), ptr_to_virt(40 << 20)).pa).toBe(null);
      const rights = (ptr: number): string => {
        const { pa, w, x } = mmu_probe(swapper_pg_dir(), image_to_virt(ptr));
        return `${pa === ptr ? "r" : "?"}${w ? "w" : "-"}${x ? "x" : "-"}`;
      };
      expect([TEXT_BASE, DATA_BASE - 1, DATA_BASE, image_end(2) - 1].map(rights)).toEqual(["r-x", "r--", "rw-", "rw-"]);
      expect(mmu_probe(swapper_pg_dir(), image_to_virt(image_end(2))).pa).toBe(null);
      expect([virt_px(ptr_to_virt(0)), virt_px(image_to_virt(TEXT_BASE))]).toEqual([
        "ffff888000000000",
        "ffffffff81000000",
      ]);
      expect([virt_to_ptr(ptr_to_virt(77)), virt_to_ptr(image_to_virt(DATA_BASE)), virt_to_ptr(0)]).toEqual([
        77,
        DATA_BASE,
        NaN,
      ]);
    });
  });

  it("takes the largest pages that fit", () => {
    const kib = (options: object): object => {
      let found = {};
      with_machine(
        { machine: machine_from_options(options) as MachineSpec, garbage: undefined },
        () => (found = direct_map_kib()),
      );
      return found;
    };
    expect(kib({ mem: "40M", nodes: 1, cpus: 1 })).toEqual({
      DirectMap4k: 2048,
      DirectMap2M: 38 * 1024,
      DirectMap1G: 0,
    });
    expect(kib({ mem: "2G", nodes: 1, cpus: 1 })).toEqual({
      DirectMap4k: 2048,
      DirectMap2M: 1022 * 1024,
      DirectMap1G: 1048576,
    });
  });

  it("runs every CPU with SMEP and SMAP on", () => {
    with_machine({}, () => {
      for (const cpu of [0, 1])
        expect(on_cpu(cpu, read_cr4) & (X86_CR4_SMEP | X86_CR4_SMAP)).toBe(X86_CR4_SMEP | X86_CR4_SMAP);
    });
  });

  it("a store to kernel text is a fault: present + write; from ring 3 + user, wherever it is mapped (A117, A119)", () => {
    with_machine({}, () => {
      for (const text of [image_to_virt(TEXT_BASE) + 32, ptr_to_virt(TEXT_BASE) + 32]) {
        expect(error_code(() => mmu_store32(text, 1))).toBe(X86_PF_PROT | X86_PF_WRITE);
        set_cpl(3);
        const codes = [() => mmu_store32(text, 1), () => mmu_load8(text), () => mmu_fetch(text)].map(error_code);
        set_cpl(0);
        const user = X86_PF_PROT | X86_PF_USER;
        expect(codes).toEqual([user | X86_PF_WRITE, user, user | X86_PF_INSTR]);
      }
      expect(error_code(() => mmu_fetch(image_to_virt(TEXT_BASE)))).toBe(-1);
      expect(error_code(() => mmu_fetch(ptr_to_virt(TEXT_BASE)))).toBe(X86_PF_PROT | X86_PF_INSTR);
    });
  });
});

describe("an address space", () => {
  it("maps, finds and unmaps pages of 4 KiB, 2 MiB and 1 GiB as a second walker does, and gives all tables back (A115)", () => {
    const page = fc.record({
      level: fc.integer({ min: 1, max: 3 }),
      slot: fc.nat(5),
      frame: fc.nat(7),
      prot: fc.constantFrom(PAGE_READONLY, PAGE_READONLY_EXEC, PAGE_SHARED, PAGE_SHARED_EXEC),
    });
    with_machine({}, () => {
      const tables_before = global_node_page_state(NR_PAGETABLE);
      fc.assert(
        fc.property(fc.array(page, { maxLength: 12 }), fc.nat(), (pages, pick) => {
          const pgd = pgd_alloc(mm);
          const mapped = new Map<Virt, { level: number; prot: number; phys: number }>();
          const va_of = (level: number, slot: number): Virt => level * 2 ** 42 + slot * pg_level_size(level) * (slot > 3 ? 300 : 1); // prettier-ignore
          const check = (): void => {
            for (const [va, { level }] of mapped)
              for (const at of [va - 1, va, va + pg_level_size(level) - 1, va + pg_level_size(level), -1 - va])
                expect(ours(pgd, at)).toEqual(theirs(pgd, at));
          };
          for (const { level, slot, frame, prot } of pages) {
            const va = va_of(level, slot);
            const phys = level === 3 ? 0 : frame * pg_level_size(level);
            set_pte(pte_alloc(mm, va, level), phys, level > 1 ? prot | _PAGE_PSE : prot);
            mapped.set(va, { level, prot: level > 1 ? prot | _PAGE_PSE : prot, phys });
          }
          check();
          const seen: Virt[] = [];
          for_each_leaf(mm, 0, TASK_SIZE_MAX, (entry, va, level) => {
            seen.push(va);
            expect({ level, prot: pte_flags(entry), phys: pte_phys(entry) }).toEqual(mapped.get(va));
            expect(pte_offset(mm, va, level)).toBe(entry);
          });
          expect(seen).toEqual([...mapped.keys()].sort((a, b) => a - b));
          const gone = seen[pick % Math.max(seen.length, 1)];
          if (gone !== undefined) pte_clear(pte_offset(mm, gone, mapped.get(gone)!.level));
          check();
          for_each_leaf(mm, 0, TASK_SIZE_MAX, pte_clear);
          pagetable_free_chain(free_pgtables(mm, 0, TASK_SIZE_MAX));
          expect(PgTables.pgtables_bytes.get(mm)).toBe(0);
          pgd_free(mm);
          expect(global_node_page_state(NR_PAGETABLE)).toBe(tables_before);
        }),
        { seed: 3, numRuns: 60 },
      );
    });
  });

  it("keeps the tables that its neighbours' areas need", () => {
    with_machine({}, () => {
      pgd_alloc(mm);
      const [low, high] = [0x400000, 0x400000 + 4 * 2 ** 21];
      for (let va = low; va < high; va += PAGE_SIZE * 100) pte_alloc(mm, va, 1);
      expect(PgTables.pgtables_bytes.get(mm)).toBe(6 * PAGE_SIZE); // PUD, PMD, four PTE tables
      expect(page_type(virt_to_page(pte_offset(mm, low, 1)))).toBe(PGTY_table);
      const chain = free_pgtables(mm, low + PAGE_SIZE, high - PAGE_SIZE);
      pagetable_free_chain(chain);
      expect(PgTables.pgtables_bytes.get(mm)).toBe(4 * PAGE_SIZE);
      expect([pte_offset(mm, low, 1), pte_offset(mm, low + 2 ** 21, 1)].map((entry) => entry !== 0)).toEqual([
        true,
        false,
      ]);
      pagetable_free_chain(free_pgtables(mm, 0, TASK_SIZE_MAX));
      pgd_free(mm);
    });
  });

  it("sees kernel mappings that are made later", () => {
    with_machine({}, () => {
      const pgd: Ptr = pgd_alloc(mm);
      const addr = vmalloc(1);
      mmu_store32(addr, 99);
      write_cr3(pgd);
      expect(mmu_load32(addr)).toBe(99);
      write_cr3(swapper_pg_dir());
      vfree(addr);
      pgd_free(mm);
    });
  });

  it("without memory for a table has no entry, and nothing is lost", () => {
    with_machine({}, () => {
      pgd_alloc(mm);
      const tables = global_node_page_state(NR_PAGETABLE);
      for (let n = 1; n <= 3; n++) {
        set_fail_nth(n);
        expect(pte_alloc(mm, 0x400000, 1)).toBe(0);
        set_fail_nth(0);
        pagetable_free_chain(free_pgtables(mm, 0, TASK_SIZE_MAX));
      }
      expect(global_node_page_state(NR_PAGETABLE)).toBe(tables);
      pgd_free(mm);
    });
  });
});

it("flags are set and cleared one by one", () => {
  with_machine({}, () => {
    pgd_alloc(mm);
    const entry = pte_alloc(mm, 0x400000, 1);
    expect(pte_none(entry)).toBe(true);
    set_pte(entry, 0x300000, PAGE_SHARED);
    ptep_clear_flags(entry, _PAGE_RW | _PAGE_USER);
    ptep_set_flags(entry, _PAGE_USER);
    expect([pte_flags(entry), pte_phys(entry)]).toEqual([PAGE_READONLY, 0x300000]);
    pte_clear(entry);
    pagetable_free_chain(free_pgtables(mm, 0, TASK_SIZE_MAX));
    pgd_free(mm);
  });
});
