/**
 * The TLB: stale entries are stale until something invalidates them, and nothing else is ever used.
 *
 * The model is a TLB without end: it keeps every translation that any access made, until an invalidation that covers it.
 * What an access finds must be what a fresh walk finds, or one of the kept translations that match its PCID and allow it.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { write_cr0, write_cr3, write_cr3_noflush, write_cr4 } from "../../hal/control_regs.ts";
import { cpu_state, on_cpu } from "../../hal/cpu.ts";
import { events } from "../../hal/events.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { INVALIDATE_TLB_VECTOR, flush_tlb_others, ipi_counters, send_ipi } from "../../hal/ipi.ts";
import { mmu_load8, mmu_store8, mmu_translate } from "../../hal/mmu.ts";
import {
  MMU_READ, MMU_WRITE, X86_CR0_PE, X86_CR0_PG, X86_CR4_PAE, X86_CR4_PCIDE, X86_CR4_PGE, X86_CR4_SMAP, X86_CR4_SMEP, cpl, set_cpl,
} from "../../hal/privilege.ts"; // prettier-ignore
import { ram32 } from "../../hal/ram.ts";
import { invlpg, invpcid_flush_all, invpcid_flush_all_nonglobals, invpcid_flush_one, invpcid_flush_single_context, tlb_counters } from "../../hal/tlb.ts"; // prettier-ignore
import { set_trap_gate } from "../../hal/trap.ts";
import { KINDS, TABLES, cpu_model, get_entry, manual_access, may_access, power_on_with_paging, set_entry, type Outcome } from "./mmu_model.ts"; // prettier-ignore

const CR4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE;
const FRAME = 0x1800000;
const RW = 3n;
const URW = 7n;
const G = 0x100n;
const A = 0x20n;
const D = 0x40n;
/** Two address spaces of one shape: PGD, PUD, PMD, PTE table. */
const SPACES = [TABLES, TABLES + 0x8000];
const LARGE = 0x200000;

function pmd_at(space: number, n: number): number {
  return space + 0x2000 + 8 * n;
}
function pte_at(space: number, n: number): number {
  return space + 0x3000 + 8 * n;
}

beforeEach(() => {
  power_on_with_paging();
  for (const space of SPACES)
    for (const level of [0, 1, 2]) set_entry(space + level * 4096, BigInt(space + (level + 1) * 4096) | URW);
  write_cr4(CR4);
});

/** Address of page `n` of the last table, as in both spaces. */
function page(n: number): number {
  return n * 4096;
}

describe("an entry is used until it is invalidated", () => {
  it("after the page table has changed", () => {
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    expect(mmu_translate(0, MMU_READ)).toBe(FRAME);
    set_entry(pte_at(TABLES, 0), 0n);
    expect(mmu_translate(0, MMU_READ)).toBe(FRAME);
    invlpg(0xfff);
    expect(mmu_translate(0, MMU_READ)).toBe(-1);
  });

  it("for what it allows: a page made read-only is written until then, one made writable at once", () => {
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    mmu_store8(0, 1);
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | 1n);
    mmu_store8(0, 2);
    invlpg(0);
    expect(() => mmu_store8(0, 3)).toThrow("error code 3");
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    mmu_store8(0, 4);
    expect(mmu_load8(0)).toBe(4);
  });

  it("so A and D that software clears stay clear, but the first write through a clean entry walks and sets D", () => {
    const marks = (): bigint => get_entry(pte_at(TABLES, 0)) & (A | D);
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    mmu_load8(0);
    expect(marks()).toBe(A);
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    mmu_load8(0);
    expect(marks()).toBe(0n);
    mmu_store8(0, 1);
    expect(marks()).toBe(A | D);
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    mmu_store8(0, 1);
    expect(marks()).toBe(0n);
  });

  it("a fault drops the entry it met", () => {
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | 1n);
    mmu_load8(0);
    set_entry(pte_at(TABLES, 0), 0n);
    expect(() => mmu_store8(0, 1)).toThrow("error code 2");
    expect(() => mmu_load8(0)).toThrow("error code 0");
  });

  it("invlpg drops all of a large page, whichever address in it is named", () => {
    set_entry(pmd_at(TABLES, 1), BigInt(FRAME) | RW | 0x80n);
    const touched = [0, 1, 77, 511].map((n) => LARGE + n * 4096);
    for (const va of touched) expect(mmu_translate(va, MMU_READ)).toBe(FRAME + va - LARGE);
    set_entry(pmd_at(TABLES, 1), 0n);
    for (const va of touched) expect(mmu_translate(va, MMU_READ)).toBe(FRAME + va - LARGE);
    invlpg(LARGE + 0x12345);
    for (const va of touched) expect(mmu_translate(va, MMU_READ)).toBe(-1);
  });
});

describe("a CR3 load", () => {
  beforeEach(() => {
    set_entry(pte_at(SPACES[0]!, 0), BigInt(FRAME) | RW);
    set_entry(pte_at(SPACES[0]!, 1), BigInt(FRAME) | RW | G);
    set_entry(pte_at(SPACES[1]!, 0), BigInt(FRAME + 4096) | RW);
    write_cr3(SPACES[0]!, 1);
    for (const n of [0, 1]) mmu_load8(page(n));
    for (const n of [0, 1]) set_entry(pte_at(SPACES[0]!, n), 0n);
  });
  const found = (n: number): number => mmu_translate(page(n), MMU_READ);

  it("drops what is cached of its PCID, and keeps global pages", () => {
    write_cr3(SPACES[0]!, 1);
    expect([found(0), found(1)]).toEqual([-1, FRAME]);
  });

  it("without a flush keeps every PCID's own", () => {
    write_cr3_noflush(SPACES[1]!, 2);
    expect([found(1), found(2)]).toEqual([FRAME, -1]);
    write_cr3_noflush(SPACES[0]!, 1);
    expect([found(0), found(1)]).toEqual([FRAME, FRAME]);
  });

  it("never shows one PCID what another has cached", () => {
    write_cr3_noflush(SPACES[1]!, 2);
    expect(found(0)).toBe(FRAME + 4096);
    write_cr3_noflush(SPACES[1]!, 1);
    expect(found(0)).toBe(FRAME + 4096);
  });

  it.each<[string, () => void, [number, number]]>([
    ["invpcid 0, another PCID", () => invpcid_flush_one(2, 0), [FRAME, FRAME]],
    ["invpcid 0", () => [0, 1].forEach((n) => invpcid_flush_one(1, page(n))), [-1, FRAME]],
    ["invpcid 1, another PCID", () => invpcid_flush_single_context(2), [FRAME, FRAME]],
    ["invpcid 1", () => invpcid_flush_single_context(1), [-1, FRAME]],
    ["invpcid 2", () => invpcid_flush_all(), [-1, -1]],
    ["invpcid 3", () => invpcid_flush_all_nonglobals(), [-1, FRAME]],
    ["invlpg", () => [0, 1].forEach((n) => invlpg(page(n))), [-1, -1]],
    ["CR4.PGE off", () => write_cr4(CR4 & ~X86_CR4_PGE), [-1, -1]],
    ["CR4.PCIDE off", () => write_cr4(CR4 & ~X86_CR4_PCIDE), [-1, -1]],
    ["CR4.SMEP on", () => write_cr4(CR4 | X86_CR4_SMEP), [-1, -1]],
    ["CR4.SMAP on", () => write_cr4(CR4 | X86_CR4_SMAP), [FRAME, FRAME]],
    ["CR0.WP off", () => write_cr0(X86_CR0_PE | X86_CR0_PG), [FRAME, FRAME]],
  ])("%s drops what the manual says", (_name, act, left) => {
    act();
    expect([found(0), found(1)]).toEqual(left);
  });

  it("invlpg of an address that is none does nothing", () => {
    invlpg(2 ** 47);
    expect([found(0), found(1)]).toEqual([FRAME, FRAME]);
  });

  it("each is refused at ring 3, and with a PCID that is none", () => {
    const acts = [
      () => invpcid_flush_one(4096, 0),
      () => invpcid_flush_one(1, 2 ** 47),
      () => invpcid_flush_single_context(-1),
    ];
    for (const act of acts) expect(act).toThrow("trap 13");
    set_cpl(3);
    for (const act of [invpcid_flush_all, invpcid_flush_all_nonglobals, () => invpcid_flush_single_context(1)]) expect(act).toThrow("trap 13"); // prettier-ignore
    set_cpl(0);
    write_cr4(CR4 & ~X86_CR4_PCIDE);
    expect(() => invpcid_flush_single_context(1)).toThrow("trap 13");
  });
});

describe("counters", () => {
  it("tell misses from walks, and count no hits", () => {
    const before = tlb_counters(0);
    const since = (): Record<string, number> =>
      Object.fromEntries(
        Object.entries(tlb_counters(0)).map(([name, n]) => [name, n - before[name as keyof typeof before]]),
      );
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    for (let i = 0; i < 10; i++) mmu_load8(i);
    expect(since()).toEqual({ misses: 1, walks: 1, invlpg: 0, flushes: 0, cr3_loads: 0 });
    for (let i = 0; i < 10; i++) mmu_store8(i, i); // D
    expect(since()).toMatchObject({ misses: 1, walks: 2 });
    on_cpu(1, () => mmu_load8(0)); // has a TLB of its own
    expect(since()).toMatchObject({ misses: 1, walks: 2 });
    mmu_load8(0); // and this one's is still there
    invlpg(0);
    write_cr3(TABLES);
    write_cr3_noflush(TABLES, 3);
    expect(since()).toEqual({ misses: 1, walks: 2, invlpg: 1, flushes: 1, cr3_loads: 2 });
  });
});

describe("shootdown", () => {
  beforeEach(() => {
    for (const cpu of [0, 1]) cpu_state.online.set(per_cpu_ptr(cpu_state.ptr, cpu), 1);
  });

  it("another CPU goes on with a stale entry until it is told", () => {
    const mask = FRAME + 0x10000;
    set_entry(pte_at(TABLES, 0), BigInt(FRAME) | RW);
    for (const cpu of [0, 1]) on_cpu(cpu, () => mmu_load8(0));
    set_entry(pte_at(TABLES, 0), 0n);
    invlpg(0);
    expect(mmu_translate(0, MMU_READ)).toBe(-1);
    expect(on_cpu(1, () => mmu_translate(0, MMU_READ))).toBe(FRAME);
    const rings: number[] = [];
    set_trap_gate(INVALIDATE_TLB_VECTOR, () => {
      rings.push(cpl());
      invlpg(0);
      return true;
    });
    const heard: unknown[] = [];
    events.on("ipi", (event) => heard.push(event));
    on_cpu(1, () => set_cpl(3));
    [ram32[mask >> 2], ram32[(mask + 4) >> 2]] = [0b111, 0]; // itself, CPU 1, and one that is not there
    expect(flush_tlb_others(mask)).toBe(1);
    events.removeAllListeners("ipi");
    expect(on_cpu(1, () => [cpl(), mmu_translate(0, MMU_READ)])).toEqual([3, -1]);
    expect([rings, heard]).toEqual([[0], [{ from: 0, to: 1, what: "tlb" }]]);
    expect([ipi_counters(0), ipi_counters(1)]).toEqual([
      { sent: 1, received: 0 },
      { sent: 0, received: 1 },
    ]);
  });

  it("does not wait for a CPU that is offline", () => {
    cpu_state.online.set(per_cpu_ptr(cpu_state.ptr, 1), 0);
    expect(send_ipi(1, INVALIDATE_TLB_VECTOR)).toBe(false);
    expect(ipi_counters(0).sent).toBe(0);
  });
});

/** A translation that some access made: what a TLB without end would hold. */
interface Kept {
  readonly found: Extract<Outcome, { trap: "none" }>;
  readonly va: number;
  readonly pcid: number;
  readonly global: boolean;
  /** Bytes of the page. */
  readonly size: number;
  readonly dirty: boolean;
}

describe("against a TLB without end", () => {
  // Pages 0, 1, 2 small; 128 shares page 0's entry; the rest lie in a region that is a large page or a table.
  const PAGES = [0, 1, 2, 128, 512, 513, 640];
  const n = fc.constantFrom(...PAGES);
  const pcid = fc.nat(2);
  const entry = fc.tuple(fc.nat(3), fc.nat(0x3f)).map(([frame, bits]) => {
    const flags = (bits & 6 ? 1n : 0n) | BigInt(bits & 6) | (bits & 8 ? G : 0n) | (bits & 0x10 ? D : 0n);
    return BigInt(FRAME + frame * LARGE) | flags | (bits & 0x20 ? 1n << 63n : 0n);
  });
  const op = fc.oneof(
    { weight: 20, arbitrary: fc.tuple(fc.constant("access" as const), n, fc.nat(2), fc.boolean()) },
    { weight: 6, arbitrary: fc.tuple(fc.constant("set" as const), n, entry, fc.nat(1)) },
    { weight: 2, arbitrary: fc.tuple(fc.constant("large" as const), entry, fc.nat(1)) },
    { weight: 1, arbitrary: fc.tuple(fc.constant("invlpg" as const), n) },
    { weight: 2, arbitrary: fc.tuple(fc.constant("cr3" as const), fc.nat(1), pcid, fc.boolean()) },
    { weight: 1, arbitrary: fc.tuple(fc.constant("invpcid" as const), fc.nat(3), pcid, n) },
    { weight: 1, arbitrary: fc.tuple(fc.constant("pge" as const)) },
  );

  it("finds what a walk finds, or what it may still hold; never another PCID's, never what was invalidated", () => {
    const counts = { fresh: 0, stale: 0, faults: 0 };
    fc.assert(
      fc.property(fc.array(op, { minLength: 60, maxLength: 120 }), (ops) => {
        write_cr4(CR4);
        write_cr3_noflush(SPACES[0]!, 0);
        invpcid_flush_all();
        for (const space of SPACES) {
          set_entry(pmd_at(space, 1), BigInt(space + 0x4000) | URW);
          for (const i of PAGES) set_entry(pte_at(space, i), BigInt(FRAME + 4096 * i) | URW);
        }
        let kept: Kept[] = [];
        let now = 0;
        let pge = true;
        const drop = (gone: (k: Kept) => boolean): void => void (kept = kept.filter((k) => !gone(k)));
        const covers = (k: Kept, va: number): boolean => Math.floor(k.va / k.size) === Math.floor(va / k.size);
        for (const o of ops) {
          switch (o[0]) {
            case "set":
              set_entry(pte_at(SPACES[o[3]]!, o[1]), o[2]);
              break;
            case "large":
              set_entry(pmd_at(SPACES[o[2]]!, 1), o[1] & 2n ? o[1] | 0x80n : BigInt(SPACES[o[2]]! + 0x4000) | URW);
              break;
            case "invlpg":
              invlpg(page(o[1]) + 5);
              drop((k) => (k.global || k.pcid === now) && covers(k, page(o[1])));
              break;
            case "cr3":
              if (o[3]) write_cr3(SPACES[o[1]]!, o[2]);
              else write_cr3_noflush(SPACES[o[1]]!, o[2]);
              now = o[2];
              if (o[3]) drop((k) => !k.global && k.pcid === now);
              break;
            case "invpcid":
              [
                () => invpcid_flush_one(o[2], page(o[3])),
                () => invpcid_flush_single_context(o[2]),
                invpcid_flush_all,
                invpcid_flush_all_nonglobals,
              ][o[1]]!();
              drop((k) =>
                o[1] === 2
                  ? true
                  : !k.global && (o[1] === 3 || (k.pcid === o[2] && (o[1] === 1 || covers(k, page(o[3]))))),
              );
              break;
            case "pge":
              pge = !pge;
              write_cr4(pge ? CR4 : CR4 & ~X86_CR4_PGE);
              drop(() => true);
              break;
            case "access":
              access(page(o[1]), o[2], o[3]);
          }
        }

        function access(va: number, kind: number, user: boolean): void {
          set_cpl(user ? 3 : 0);
          const cpu = cpu_model(false);
          const writes = new Map<number, bigint>();
          const fresh = manual_access(cpu, BigInt(va), KINDS[kind]!, writes);
          const usable = kept.filter(
            (k) =>
              (k.global || k.pcid === now) &&
              Math.floor(k.va / 4096) === Math.floor(va / 4096) &&
              may_access(cpu, KINDS[kind]!, k.found.rights) &&
              (kind !== MMU_WRITE || k.dirty),
          );
          const allowed = usable.map((k) => Number(k.found.pa));
          const before = [...writes.keys()].map(get_entry);
          const walks = tlb_counters(0).walks;
          const pa = mmu_translate(va, kind);
          const walked = tlb_counters(0).walks > walks;
          set_cpl(0);
          if (walked) {
            expect(pa).toBe(fresh.trap === "none" ? Number(fresh.pa) : -1);
            for (const [at, value] of writes) expect(get_entry(at)).toBe(value);
            counts[fresh.trap === "none" ? "fresh" : "faults"]++;
          } else {
            expect(allowed).toContain(pa);
            expect([...writes.keys()].map(get_entry)).toEqual(before); // a hit marks nothing
            if (fresh.trap !== "none" || Number(fresh.pa) !== pa) counts.stale++;
          }
          if (!walked || fresh.trap !== "none") return;
          const at = [...writes.keys()].at(-1)!;
          const size = writes.size === 3 ? LARGE : 4096;
          kept.push({
            found: fresh,
            va,
            pcid: now,
            global: pge && fresh.global,
            size,
            dirty: (get_entry(at) & D) !== 0n,
          });
        }
      }),
      { seed: 86, numRuns: 150 },
    );
    expect(Object.entries(counts).filter(([, count]) => count < 100)).toEqual([]);
  });
});
