/** vmalloc: pages behind a guard page, addresses by Linux's rules, nothing left over; what /proc says of it. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, virt_px, type Virt } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ipi_counters } from "../../hal/ipi.ts";
import { mmu_fetch, mmu_fill, mmu_load32, mmu_load8, mmu_store32, mmu_store8 } from "../../hal/mmu.ts";
import { mmu_probe } from "../../hal/page_walk.ts";
import { ram32 } from "../../hal/ram.ts";
import { tlb_counters } from "../../hal/tlb.ts";
import { Trap, X86_PF_INSTR, X86_PF_PROT, X86_PF_WRITE } from "../../hal/trap.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { get_fail_nth, set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_ATOMIC, GFP_KERNEL, __GFP_NORETRY, __GFP_NOWARN } from "../../mm/gfp.ts";
import { VMALLOC_END, VMALLOC_START, ptr_to_virt, swapper_pg_dir, virt_to_ptr } from "../../mm/kernel_map.ts";
import { kvfree, kvmalloc, kvzalloc } from "../../mm/kvmalloc.ts";
import { kmalloc, ksize } from "../../mm/kmalloc.ts";
import { page_address, page_to_nid } from "../../mm/page.ts";
import { __free_pages, alloc_pages, nr_free_pages } from "../../mm/page_alloc.ts";
import { PAGE_KERNEL, PAGE_KERNEL_RO } from "../../mm/pgtable.ts";
import {
  VmStruct, __vmalloc_node, find_vm_area, is_vmalloc_addr, vfree, vm_unmap_aliases, vmalloc, vmalloc_node, vmalloc_nr_pages,
  vmalloc_to_page, vmap, vunmap, vzalloc,
} from "../../mm/vmalloc.ts"; // prettier-ignore
import {
  alloc_vmap_area,
  free_vmap_area,
  purge_vmap_areas,
  unlink_vmap_area,
  validate_vmap,
} from "../../mm/vmap_area.ts";
import { vmallocinfo_text } from "../../mm/vmallocinfo.ts";
import { NR_PAGETABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";

const ONE_CPU = {
  ...TEST_MACHINE,
  cpus: 1,
  nodes: [{ ranges: [{ start: 0, size: 40 << 20 }], cpus: [0] }],
  distance: [[10]],
};
const NO_NODE = -1;
const caller = ksym("vmalloc_test", () => 0);

function fault(access: () => unknown): { vector: number; code: number; address: Virt } {
  try {
    access();
  } catch (error) {
    if (error instanceof Trap) return { vector: error.vector, code: error.error_code, address: error.address };
    throw error;
  }
  throw new Error("no fault");
}
const said = (): string[] => [...printk_records()].map(({ text }) => text);
const findings = (): string[] => {
  const list: string[] = [];
  validate_vmap(list);
  return list;
};

describe("memory", () => {
  it("may be written to its last byte; the page behind is a fault (A65)", () => {
    with_machine({}, () => {
      const addr = vmalloc(2027);
      mmu_store8(addr, 1);
      mmu_store8(addr + 2026, 2);
      expect([mmu_load8(addr), mmu_load8(addr + 2026)]).toEqual([1, 2]);
      const behind = addr + PAGE_SIZE;
      expect(fault(() => mmu_load8(behind))).toEqual({ vector: 14, code: 0, address: behind });
      expect(fault(() => mmu_store32(behind - 2, 1))).toEqual({ vector: 14, code: X86_PF_WRITE, address: behind });
      expect(fault(() => mmu_fetch(addr))).toEqual({ vector: 14, code: X86_PF_PROT | X86_PF_INSTR, address: addr });
      vfree(addr);
      vm_unmap_aliases();
      expect(fault(() => mmu_load8(addr)).code).toBe(0);
    });
  });

  it("is zero where it was asked to be, for sizes up to 1 MiB (A35)", () => {
    with_machine({}, () => {
      for (let size = 1; size <= 1 << 20; size *= 4) {
        const dirty = vmalloc(size);
        expect(mmu_fill(dirty, 0xa5, size)).toBe(0);
        vfree(dirty);
        const clean = vzalloc(size);
        let sum = 0;
        for (let at = 0; at + 4 <= size; at += 4) sum |= mmu_load32(clean + at);
        expect(sum).toBe(0);
        vfree(clean);
      }
    });
  });

  it("is made of single pages, of the wanted node", () => {
    with_machine({}, () => {
      for (const node of [0, 1]) {
        const addr = vmalloc_node(5 * PAGE_SIZE, node);
        for (let i = 0; i < 5; i++) {
          const page = vmalloc_to_page(addr + i * PAGE_SIZE);
          expect(page_to_nid(page)).toBe(node);
          expect(mmu_probe(swapper_pg_dir(), addr + i * PAGE_SIZE + 7).pa).toBe(page_address(page) + 7);
        }
        expect(vmalloc_to_page(addr + 5 * PAGE_SIZE)).toBe(0);
        expect(vmalloc_nr_pages()).toBe(5);
        vfree(addr);
      }
      expect(vmalloc_nr_pages()).toBe(0);
    });
  });

  it("above 2 MiB keeps its page array in vmalloc memory", () => {
    with_machine({}, () => {
      const addr = vmalloc(513 * PAGE_SIZE, caller);
      const pages = VmStruct.pages.get(find_vm_area(addr));
      expect(is_vmalloc_addr(pages)).toBe(true);
      expect(mmu_load32(pages + 8 * 512)).toBe(vmalloc_to_page(addr + 512 * PAGE_SIZE));
      expect(vmalloc_nr_pages()).toBe(513 + 2);
      expect(vmallocinfo_text()).toMatch(/ 2105344 vmalloc_test\+0x0\/0x10 pages=513 vmalloc vpages N0=513\n/);
      vfree(addr);
    });
  });

  it("mapped by vmap is the same pages, with the rights asked for", () => {
    with_machine({}, () => {
      const pages = [alloc_pages(GFP_KERNEL, 0), alloc_pages(GFP_KERNEL, 0)];
      const [rw, ro] = [vmap(pages, PAGE_KERNEL), vmap([...pages].reverse(), PAGE_KERNEL_RO)];
      mmu_store32(rw + PAGE_SIZE + 8, 77);
      expect([mmu_load32(ro + 8), ram32[(page_address(pages[1]!) + 8) >> 2]]).toEqual([77, 77]);
      expect(fault(() => mmu_store32(ro, 1)).code).toBe(X86_PF_PROT | X86_PF_WRITE);
      expect(vmallocinfo_text()).toMatch(/ vmap\n/);
      vunmap(rw);
      vunmap(ro);
      for (const page of pages) __free_pages(page, 0);
      expect(vmap([], PAGE_KERNEL)).toBe(0);
    });
  });
});

describe("addresses", () => {
  it("with one CPU are the lowest that are free, once purged", () => {
    with_machine({ machine: ONE_CPU }, () => {
      const [a, b, c] = [vmalloc(1), vmalloc(PAGE_SIZE + 1), vmalloc(1)];
      expect([a, b, c].map(virt_px)).toEqual(["ffffc90000000000", "ffffc90000002000", "ffffc90000005000"]);
      vfree(b);
      const d = vmalloc(1);
      expect(d).toBe(c + 2 * PAGE_SIZE); // b is only lazily free
      expect(vmallocinfo_text()).toContain("0xffffc90000002000-0xffffc90000005000   12288 unpurged vm_area\n");
      purge_vmap_areas(0.25);
      expect(vmallocinfo_text()).not.toContain("unpurged");
      expect([vmalloc(1), vmalloc(1)]).toEqual([b, d + 2 * PAGE_SIZE]); // 8 KiB fit in the 12 KiB gap, once
      for (const addr of [a, b, c, d, d + 2 * PAGE_SIZE]) vfree(addr);
    });
  });

  it("with several CPUs come from the pool of the CPU's node first, the highest last freed first", () => {
    with_machine({}, () => {
      const taken = [vmalloc(1), vmalloc(1), vmalloc(1)];
      for (const addr of taken) vfree(addr);
      purge_vmap_areas(0.25);
      expect(on_cpu(1, () => vmalloc(1))).toBe(taken[2]! + 2 * PAGE_SIZE); // another node's pool is empty
      expect([vmalloc(1), vmalloc(2 * PAGE_SIZE), vmalloc(1), vmalloc(1)]).toEqual([
        taken[2],
        taken[2]! + 4 * PAGE_SIZE, // no range of this size in the pool
        taken[1],
        taken[0],
      ]);
      for (const addr of [...taken, taken[2]! + 2 * PAGE_SIZE, taken[2]! + 4 * PAGE_SIZE]) vfree(addr);
      expect(findings()).toEqual([]);
    });
  });

  it("wait for a purge, which comes with 32 MiB times fls(CPUs)", () => {
    with_machine({}, () => {
      const limit = 2 * 8192; // fls(2) = 2
      const pages = Array.from({ length: 255 }, () => alloc_pages(GFP_KERNEL, 0));
      let waiting = 0;
      let purged = false;
      while (!purged) {
        const addr = vmap(pages, PAGE_KERNEL);
        vunmap(addr);
        purged = !vmallocinfo_text().includes("unpurged");
        if (!purged) waiting += 256;
        expect(waiting).toBeLessThanOrEqual(limit);
      }
      expect(waiting).toBe(limit);
      for (const page of pages) __free_pages(page, 0);
    });
  });

  it("that run out are reported", () => {
    with_machine({}, () => {
      const half = alloc_vmap_area(2 ** 44, PAGE_SIZE, GFP_KERNEL, 0);
      const aligned = alloc_vmap_area(2 ** 30, 2 ** 30, GFP_KERNEL, 0);
      expect(findings()).toEqual([]);
      expect(alloc_vmap_area(2 ** 45, PAGE_SIZE, GFP_KERNEL | __GFP_NOWARN, 0)).toBe(0);
      expect(alloc_vmap_area(2 ** 44, PAGE_SIZE, GFP_KERNEL, 0)).toBe(0);
      expect(said().at(-1)).toBe(
        "vmalloc_node_range for size 17592186044416 failed: Address range restricted to 0xffffc90000000000 - 0xffffe8ffffffffff",
      );
      for (const va of [VMALLOC_START, VMALLOC_START + 2 ** 44]) free_vmap_area(unlink_vmap_area(va));
      expect([half, aligned].includes(0)).toBe(false);
      expect(VMALLOC_END - VMALLOC_START).toBe(2 ** 45);
    });
  });
});

describe("TLBs", () => {
  it("of all CPUs forget a freed range at the purge, by the page up to 33 pages", () => {
    with_machine({}, () => {
      const freed = (pages: number): { flushes: number; invlpg: number; ipis: number } => {
        const addr = vmalloc((pages - 1) * PAGE_SIZE);
        on_cpu(1, () => mmu_load8(addr));
        const [tlb, ipi] = [tlb_counters(1), ipi_counters(1)];
        vfree(addr);
        expect(ipi_counters(1)).toEqual(ipi);
        expect(on_cpu(1, () => mmu_load8(addr))).toBeTypeOf("number"); // stale, as on a real machine
        purge_vmap_areas(0.25);
        expect(on_cpu(1, () => fault(() => mmu_load8(addr))).code).toBe(0);
        const after = tlb_counters(1);
        return {
          flushes: after.flushes - tlb.flushes,
          invlpg: after.invlpg - tlb.invlpg,
          ipis: ipi_counters(1).received - ipi.received,
        };
      };
      expect(freed(33)).toEqual({ flushes: 0, invlpg: 33, ipis: 1 });
      expect(freed(34)).toEqual({ flushes: 1, invlpg: 0, ipis: 1 });
    });
  });
});

describe("failure", () => {
  it("leaves nothing behind at whatever page it happens, and is reported", () => {
    with_machine({}, () => {
      let failures = 0;
      for (let n = 1; ; n++) {
        const free = nr_free_pages();
        set_fail_nth(n);
        const addr = __vmalloc_node(600 * PAGE_SIZE, GFP_KERNEL, NO_NODE);
        const struck = get_fail_nth() === 0;
        set_fail_nth(0);
        vfree(addr);
        vm_unmap_aliases();
        if (!struck) break;
        if (addr !== 0) continue; // a slab asks for its page once more
        failures++;
        expect([vmalloc_nr_pages(), findings()]).toEqual([0, []]);
        expect(Math.abs(nr_free_pages() - free)).toBeLessThan(40); // slabs and lists aside
      }
      expect(failures).toBeGreaterThan(5);
      expect(
        said()
          .filter((line) => line.includes("vmalloc error"))
          .map((line) => line.replace(/, nodemask.*/, "")),
      ).toEqual(["swapper/0: vmalloc error: size 2457600, vm_struct allocation failed, mode:0xcc0(GFP_KERNEL)"]); // one report in ten seconds
    });
  });

  it("for want of pages gives the first ones back", () => {
    with_machine({}, () => {
      const size = nr_free_pages() * PAGE_SIZE;
      expect(__vmalloc_node(size, GFP_KERNEL | __GFP_NORETRY, NO_NODE)).toBe(0);
      expect(
        said().some((line) => line.includes(`: vmalloc error: size ${size}, failed to allocate pages, mode:0x10cc0(`)),
      ).toBe(true);
      expect(vmalloc_nr_pages()).toBe(0);
    });
  });

  it("has Linux's words for what cannot be", () => {
    with_machine({}, () => {
      expect([vmalloc(2 ** 31), vmalloc(-4096)]).toEqual([0, 0]);
      expect(said().some((line) => line.includes(": vmalloc error: size 2147483648, exceeds total pages, mode:0xcc0(GFP_KERNEL), nodemask=(null)"))).toBe(true); // prettier-ignore
      expect(vmalloc(0)).toBe(0);
      expect(said().at(-1)).toBe("WARNING: vmalloc of 0 bytes");
      vfree(0);
      vfree(VMALLOC_START + 2 ** 30);
      expect(said().at(-1)).toBe("WARNING: Trying to vfree() nonexistent vm area (ffffc90040000000)");
      vunmap(VMALLOC_START + 8);
      expect(said().at(-1)).toBe("WARNING: Trying to vunmap() bad address (ffffc90000000008)");
    });
  });
});

describe("page tables", () => {
  it("are counted, and given back when nothing is mapped there any more", () => {
    with_machine({}, () => {
      vm_unmap_aliases();
      const before = global_node_page_state(NR_PAGETABLE);
      const addr = vmalloc(1);
      expect(global_node_page_state(NR_PAGETABLE)).toBe(before + 2); // PMD and PTE; the PUD is there from boot
      vfree(addr);
      expect(global_node_page_state(NR_PAGETABLE)).toBe(before + 2);
      vm_unmap_aliases();
      expect(global_node_page_state(NR_PAGETABLE)).toBe(before);
      expect(before).toBe(64);
    });
  });
});

describe("kvmalloc", () => {
  it("is kmalloc where that has a block, else vmalloc; both are reached through the MMU", () => {
    with_machine({}, () => {
      const small = kvmalloc(100, GFP_KERNEL);
      expect(ksize(virt_to_ptr(small))).toBe(128);
      const huge = kvzalloc(8 << 20, GFP_KERNEL); // larger than any block
      expect(is_vmalloc_addr(huge)).toBe(true);
      for (const addr of [small, huge, huge + (8 << 20) - 4]) {
        mmu_store32(addr, 5);
        expect(mmu_load32(addr)).toBe(5);
      }
      expect(kvmalloc(8 << 20, GFP_ATOMIC)).toBe(0);
      expect(kvmalloc(2 ** 31, GFP_KERNEL | __GFP_NOWARN)).toBe(0);
      kvfree(small);
      kvfree(huge);
      kvfree(0);
      const block = kmalloc(40, GFP_KERNEL);
      kvfree(ptr_to_virt(block));
    });
  });
});

it("any sequence on two CPUs: areas do not overlap, contents stay, /proc/vmallocinfo lists exactly what is there", () => {
  const step = fc.record({ cpu: fc.nat(1), pages: fc.integer({ min: 1, max: 40 }), what: fc.nat(9), pick: fc.nat(30) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      with_machine({}, () => {
        const held: { addr: Virt; pages: number; tag: number }[] = [];
        let tag = 1;
        for (const { cpu, pages, what, pick } of steps)
          on_cpu(cpu, () => {
            if (what === 9) purge_vmap_areas(pick % 2 ? 1 : 0.25);
            else if (what < 4 && held.length > 0) {
              const [gone] = held.splice(pick % held.length, 1);
              expect([mmu_load32(gone!.addr), mmu_load32(gone!.addr + gone!.pages * PAGE_SIZE - 4)]).toEqual([
                gone!.tag,
                gone!.tag,
              ]);
              vfree(gone!.addr);
            } else {
              const addr = vmalloc(pages * PAGE_SIZE);
              held.push({ addr, pages, tag });
              mmu_store32(addr, tag);
              mmu_store32(addr + pages * PAGE_SIZE - 4, tag++);
            }
            expect(findings()).toEqual([]);
            const listed = vmallocinfo_text().split("\n").filter((line) => line.includes("pages=")).map((line) => `0x${line.slice(2, 18)} ${/pages=(\d+)/.exec(line)![1]}`).sort(); // prettier-ignore
            expect(listed).toEqual(held.map(({ addr, pages: n }) => `0x${virt_px(addr)} ${n}`).sort());
          });
        for (const { addr } of held) vfree(addr);
      });
    }),
    { seed: 7, numRuns: 12 },
  );
});
