/**
 * Page tables at odd moments of a busy machine, by others that read them: mmu.json against the second walker
 * (test/lib/image_walker.ts), and this CPU's own accesses against the MMU written from the manual (test/hal/mmu_model.ts).
 *
 * The accesses are made with nobody behind the page fault vector, under a PCID of their own: what the kernel would put
 * right is a fault here, and the running programs' TLB entries stay as they are.
 *
 * And the other way round: what the TLBs remember and may use is in the tables, so that no flush was left out.
 */
import { expect } from "vitest";
import type { Phys, Ptr, Virt } from "../../hal/addr.ts";
import { read_cr3, write_cr3, write_cr3_noflush } from "../../hal/control_regs.ts";
import { image_symbols, per_cpu_ptr } from "../../hal/image.ts";
import { mmu_translate } from "../../hal/mmu.ts";
import { RIGHT_U, RIGHT_W, RIGHT_X, clac, set_cpl, stac } from "../../hal/privilege.ts";
import { ram8 } from "../../hal/ram.ts";
import { X86_TRAP_PF, set_trap_gate } from "../../hal/trap.ts";
import { mmu_json } from "../../boot/export/mmu.ts";
import { trap_init } from "../../kernel/fault.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { TaskStruct, for_each_process } from "../../kernel/task.ts";
import { VMALLOC_END, VMALLOC_START, swapper_pg_dir } from "../../mm/kernel_map.ts";
import { MmStruct } from "../../mm/mm_types.ts";
import { PgTables } from "../../mm/pgtable.ts";
import { KINDS, RAM_END, cpu_model, manual_access } from "../hal/mmu_model.ts";
import { walk_image } from "../lib/image_walker.ts";
import { at_moments, with_busy_machine, type Space } from "../lib/mmu_moments.ts";

const SPARE_PCID = 0xfff;
/** Of the probes that find no user page each so manieth is walked a second time, and accessed; of the others, all. */
const WALK_STEP = 5;
const ACCESS_STEP = 35;

interface Probe { va: string; pa: string | null; r: number; w: number; x: number; user: number } // prettier-ignore
const counts = { probes: 0, done: 0, faults: 0, user: 0 };

/** Every probe of the space, by the second walker. */
function check_probes(cr3: Phys, probes: readonly Probe[]): void {
  const ram = ram8.subarray(0, RAM_END);
  for (const probe of probes) {
    const { pa, r, w, x, user } = walk_image(ram, BigInt(cr3), BigInt(probe.va));
    const theirs = { va: probe.va, pa: pa === null ? null : `0x${pa.toString(16)}`, r, w, x, user };
    if (JSON.stringify(theirs) !== JSON.stringify(probe)) expect(probe).toEqual(theirs);
    counts.probes++;
    counts.user += user;
  }
}

/** Each kind of access at each ring, by the model. */
function check_accesses(addresses: readonly Virt[]): void {
  const fault = { code: -1 };
  set_trap_gate(X86_TRAP_PF, (code) => {
    fault.code = code;
    return false;
  });
  for (const [ring, ac] of [
    [0, false],
    [0, true],
    [3, false],
  ] as const)
    // prettier-ignore
    for (const va of addresses)
      for (const kind of [0, 1, 2]) {
        set_cpl(ring);
        if (ac) stac();
        const expected = manual_access(cpu_model(ac), BigInt(va), KINDS[kind]!, new Map());
        fault.code = -1;
        const pa = mmu_translate(va, kind);
        set_cpl(0);
        clac();
        const ours = pa >= 0 ? pa : `fault ${fault.code}`;
        const theirs = expected.trap === "none" ? Number(expected.pa) : `fault ${"code" in expected ? expected.code : expected.trap}`; // prettier-ignore
        if (ours !== theirs) expect({ va, ring, ac, kind, is: ours }).toEqual({ va, ring, ac, kind, is: theirs });
        counts[pa >= 0 ? "done" : "faults"]++;
      }
  trap_init();
}

function check_space({ cr3 }: Space): void {
  const { probes } = JSON.parse(mmu_json(cr3)) as { probes: Probe[] };
  const chosen = (step: number): Probe[] => probes.filter(({ user }, i) => user === 1 || i % step === 0);
  check_probes(cr3, chosen(WALK_STEP));
  const old = read_cr3();
  write_cr3(cr3, SPARE_PCID);
  check_accesses(chosen(ACCESS_STEP).map(({ va }) => Number(BigInt.asIntN(64, BigInt(va)))));
  write_cr3_noflush(old - (old % 4096), old % 4096);
}

/** Compares at `count` moments; at each the kernel's space or a program's, and one more program's. */
export function agree_at_moments(seed: number, count: number): void {
  const seen = new Set<string>();
  for (const key of Object.keys(counts) as (keyof typeof counts)[]) counts[key] = 0;
  at_moments(seed, count, (spaces, random) => {
    for (const space of [spaces[random % spaces.length]!, spaces[(random >>> 8) % spaces.length]!]) {
      seen.add(space.name);
      check_space(space);
    }
  });
  expect(seen.size).toBeGreaterThan(4); // programs of most kinds were met
  expect(counts.probes).toBeGreaterThan(1000 * count);
  expect(counts.user).toBeGreaterThan(50 * count);
  for (const often of [counts.done, counts.faults]) expect(often).toBeGreaterThan(500 * count);
}

/* What CPUs remember: read from their TLBs as bytes, by the formats that hal/tlb.ts and mm/tlbflush.ts state. */

const TLB_ENTRIES = 128;
const LEAF_GLOBAL = 1 << 16;
const LEAF_VALID = 1 << 17;
const STATE_CONTEXTS = 24;
const CONTEXTS = 6;

function per_cpu(name: string, cpu: number): { start: Ptr; end: Ptr } {
  const symbol = [...image_symbols("percpu")].find((one) => one.name === name)!;
  const start = per_cpu_ptr(symbol.address, cpu);
  return { start, end: start + symbol.size };
}

/** The page table that each PCID of a CPU stands for, as far as the CPU has heard of all changes to it; 0: the kernel's. */
function page_tables_by_pcid(cpu: number): Map<number, Phys> {
  const tables = new Map<number, Phys>([[0, swapper_pg_dir()]]);
  const memory = new DataView(ram8.buffer, per_cpu("cpu_tlbstate", cpu).start + STATE_CONTEXTS);
  const mms = [...for_each_process()].map((task) => TaskStruct.mm.get(task)).filter((mm) => mm !== 0);
  for (let slot = 0; slot < CONTEXTS; slot++) {
    const [ctx_id, tlb_gen] = [memory.getUint32(16 * slot, true), memory.getUint32(16 * slot + 8, true)];
    const mm = mms.find((one) => MmStruct.ctx_id.get(one) === ctx_id && MmStruct.tlb_gen.get(one) === tlb_gen);
    if (mm !== undefined) tables.set(slot + 1, PgTables.pgd.get(MmStruct.tables.at(mm)) as Ptr);
  }
  return tables;
}

/** What a CPU remembers, and may use without a further look, is in the page tables. Returns how many entries that are. */
function check_tlb(cpu: number): number {
  const memory = new DataView(ram8.buffer);
  const ram = ram8.subarray(0, RAM_END);
  const tables = page_tables_by_pcid(cpu);
  const { end } = per_cpu("tlb", cpu);
  let looked_at = 0;
  for (let at = end - TLB_ENTRIES * 16; at < end; at += 16) {
    const [va, word, leaf] = [memory.getFloat64(at, true), memory.getUint32(at + 8, true), memory.getUint32(at + 12, true)]; // prettier-ignore
    const cr3 = tables.get(leaf & LEAF_GLOBAL ? 0 : leaf & 0xfff);
    const is_lazily_freed = va >= VMALLOC_START && va < VMALLOC_END;
    if ((leaf & LEAF_VALID) === 0 || cr3 === undefined || is_lazily_freed) continue;
    const { pa, w, x, user } = walk_image(ram, BigInt(cr3), BigInt.asUintN(64, BigInt(va)));
    const allowed = (w ? RIGHT_W : 0) | (x ? RIGHT_X : 0) | (user ? RIGHT_U : 0);
    const rights = word & (RIGHT_W | RIGHT_X | RIGHT_U);
    if (Number(pa) !== (word & ~0xfff) >>> 0 || (rights & ~allowed) !== 0)
      expect({ cpu, va, frame: (word & ~0xfff) >>> 0, rights }).toEqual({ cpu, va, frame: pa, rights: allowed });
    looked_at++;
  }
  return looked_at;
}

/** Runs a busy machine for so many entries, and looks at both TLBs after each. */
export function tlbs_forget_in_time(seed: number, entries: number): void {
  let looked_at = 0;
  with_busy_machine(seed, () => {
    for (let i = 0; i < entries; i++) {
      schedule_entries(1);
      for (const cpu of [0, 1]) looked_at += check_tlb(cpu);
    }
  });
  expect(looked_at).toBeGreaterThan(20 * entries);
}
