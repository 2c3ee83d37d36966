/**
 * An MMU for tests, written a second time: straight from the tables of the Intel manual (volume 3, chapter 4), one level
 * after another, in 64-bit integers, with a rule a line. It shares nothing with hal/ but the RAM it reads.
 *
 * What it would write (A and D) goes into `writes`, so that a test can look what the real one wrote.
 */
import { cpu_switch } from "../../hal/cpu.ts";
import { read_cr0, read_cr3, read_cr4, read_efer, write_cr0, write_cr3, write_cr4, write_efer } from "../../hal/control_regs.ts"; // prettier-ignore
import { firmware_power_on } from "../../hal/firmware.ts";
import { image_load } from "../../hal/image.ts";
import { machine_end } from "../../hal/machine.ts";
import { EFER_LME, EFER_NX, X86_CR0_PE, X86_CR0_PG, X86_CR0_WP, X86_CR4_PAE, cpl } from "../../hal/privilege.ts";
import { ram32, ram_fill_garbage, ram_zero } from "../../hal/ram.ts";
import { X86_TRAP_GP, X86_TRAP_MC, X86_TRAP_PF, set_trap_gate } from "../../hal/trap.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";

export const RAM_END = machine_end(TEST_MACHINE);
/** Where tests put page tables: 16 pages, zeroed. */
export const TABLES = 0x1000000;
export const TABLES_BYTES = 16 * 4096;

/** Power-on, garbage everywhere but in the tables' pages; no kernel. All CPUs with paging on and `TABLES` in CR3. */
export function power_on_with_paging(): void {
  power_on_bare();
  for (const cpu of [1, 0]) {
    cpu_switch(cpu);
    write_cr4(X86_CR4_PAE);
    write_efer(EFER_LME | EFER_NX);
    write_cr3(TABLES);
    write_cr0(X86_CR0_PE | X86_CR0_WP | X86_CR0_PG);
  }
}

/** The same without paging. No trap has a handler. */
export function power_on_bare(): void {
  ram_fill_garbage(RAM_END, garbage(1));
  ram_zero(TABLES, TABLES_BYTES);
  firmware_power_on(TEST_MACHINE);
  image_load(TEST_MACHINE.cpus);
  cpu_switch(0);
  for (const vector of [X86_TRAP_GP, X86_TRAP_PF, X86_TRAP_MC]) set_trap_gate(vector, () => false);
}

export function set_entry(at: number, value: bigint): void {
  ram32[at >> 2] = Number(BigInt.asIntN(32, value));
  ram32[(at + 4) >> 2] = Number(BigInt.asIntN(32, value >> 32n));
}

export function get_entry(at: number): bigint {
  return (BigInt(ram32[(at + 4) >> 2]! >>> 0) << 32n) | BigInt(ram32[at >> 2]! >>> 0);
}

/** What decides an access besides the page tables. */
export interface CpuModel {
  cr3: bigint;
  wp: boolean;
  smep: boolean;
  smap: boolean;
  nxe: boolean;
  user: boolean;
  ac: boolean;
}

/** The same from the registers of the CPU that runs; `ac` is not readable. */
export function cpu_model(ac: boolean): CpuModel {
  const on = (register: number, bit: number): boolean => (register & bit) !== 0;
  return {
    cr3: BigInt(read_cr3()),
    wp: on(read_cr0(), 1 << 16),
    smep: on(read_cr4(), 1 << 20),
    smap: on(read_cr4(), 1 << 21),
    nxe: on(read_efer(), 1 << 11),
    user: cpl() === 3,
    ac,
  };
}

export type Kind = "read" | "write" | "fetch";
export const KINDS = ["read", "write", "fetch"] as const;

/** The rights of a translation: the AND of U/S and of R/W of all levels, the OR of XD; D of the last. */
export interface Rights {
  us: boolean;
  rw: boolean;
  xd: boolean;
}

/** 4.6.1, determination of access rights, sentence by sentence. */
export function may_access(cpu: CpuModel, kind: Kind, { us, rw, xd }: Rights): boolean {
  if (!cpu.user) {
    if (kind === "read") {
      if (!us) return true;
      return cpu.smap ? cpu.ac : true;
    }
    if (kind === "write") {
      if (!us) return cpu.wp ? rw : true;
      if (!cpu.wp) return cpu.smap ? cpu.ac : true;
      return cpu.smap ? rw && cpu.ac : rw;
    }
    if (!us) return cpu.nxe ? !xd : true;
    if (cpu.smep) return false;
    return cpu.nxe ? !xd : true;
  }
  if (!us) return false;
  if (kind === "read") return true;
  if (kind === "write") return rw;
  return cpu.nxe ? !xd : true;
}

export type Outcome =
  | {
      readonly trap: "none";
      readonly pa: bigint;
      readonly rights: Rights;
      readonly global: boolean;
      readonly page: bigint;
    }
  | { readonly trap: "pf"; readonly code: number }
  | { readonly trap: "gp" | "mc" };

const MAXPHYADDR = 40n;
const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
/** Bits `high`:`low` of `value`, in their place. */
function field(value: bigint, high: bigint, low: bigint): bigint {
  return value & ((1n << (high + 1n)) - (1n << low));
}

/** What an access to `address` (any 64 bits) does, and the entries it would change. */
export function manual_access(cpu: CpuModel, address: bigint, kind: Kind, writes: Map<number, bigint>): Outcome {
  const va = BigInt.asUintN(64, address);
  if (BigInt.asUintN(64, BigInt.asIntN(48, va)) !== va) return { trap: "gp" };
  const in_ram = (pa: bigint): boolean => pa < BigInt(RAM_END);
  const read = (pa: bigint): bigint => writes.get(Number(pa)) ?? get_entry(Number(pa));
  const fault = (present: boolean, reserved: boolean): Outcome => ({
    trap: "pf",
    code:
      (present ? 1 : 0) +
      (kind === "write" ? 2 : 0) +
      (cpu.user ? 4 : 0) +
      (reserved ? 8 : 0) +
      (kind === "fetch" && (cpu.smep || cpu.nxe) ? 16 : 0),
  });
  const reserved = (entry: bigint, ...ranges: readonly (readonly [bigint, bigint])[]): boolean =>
    (!cpu.nxe && bit(entry, 63)) ||
    field(entry, 51n, MAXPHYADDR) !== 0n ||
    ranges.some(([high, low]) => field(entry, high, low) !== 0n);
  const path: bigint[] = [];
  const finish = (at: bigint, entry: bigint, page_bits: bigint): Outcome => {
    path.push(entry);
    const rights = {
      us: path.every((e) => bit(e, 2)),
      rw: path.every((e) => bit(e, 1)),
      xd: path.some((e) => bit(e, 63)),
    };
    if (!may_access(cpu, kind, rights)) return fault(true, false);
    writes.set(Number(at), entry | (1n << 5n) | (kind === "write" ? 1n << 6n : 0n));
    const pa = field(entry, MAXPHYADDR - 1n, page_bits) | field(va, page_bits - 1n, 0n);
    if (!in_ram(pa)) return { trap: "mc" };
    return { trap: "none", pa, rights, global: bit(entry, 8), page: BigInt.asIntN(64, va >> page_bits) };
  };
  const descend = (at: bigint, entry: bigint): bigint => {
    path.push(entry);
    writes.set(Number(at), entry | (1n << 5n));
    return field(entry, MAXPHYADDR - 1n, 12n);
  };

  // Table 4-15: a PML4 entry. Bit 7 is reserved.
  const pml4e_at = field(cpu.cr3, MAXPHYADDR - 1n, 12n) | (field(va, 47n, 39n) >> 36n);
  if (!in_ram(pml4e_at)) return { trap: "mc" };
  const pml4e = read(pml4e_at);
  if (!bit(pml4e, 0)) return fault(false, false);
  if (reserved(pml4e, [7n, 7n])) return fault(true, true);
  // Tables 4-16, 4-17: a page-directory-pointer-table entry. PS maps 1 GiB, bits 29:13 reserved.
  const pdpte_at = descend(pml4e_at, pml4e) | (field(va, 38n, 30n) >> 27n);
  if (!in_ram(pdpte_at)) return { trap: "mc" };
  const pdpte = read(pdpte_at);
  if (!bit(pdpte, 0)) return fault(false, false);
  if (bit(pdpte, 7)) {
    if (reserved(pdpte, [29n, 13n])) return fault(true, true);
    return finish(pdpte_at, pdpte, 30n);
  }
  if (reserved(pdpte)) return fault(true, true);
  // Tables 4-18, 4-19: a page-directory entry. PS maps 2 MiB, bits 20:13 reserved.
  const pde_at = descend(pdpte_at, pdpte) | (field(va, 29n, 21n) >> 18n);
  if (!in_ram(pde_at)) return { trap: "mc" };
  const pde = read(pde_at);
  if (!bit(pde, 0)) return fault(false, false);
  if (bit(pde, 7)) {
    if (reserved(pde, [20n, 13n])) return fault(true, true);
    return finish(pde_at, pde, 21n);
  }
  if (reserved(pde)) return fault(true, true);
  // Table 4-20: a page-table entry. Bit 7 is PAT.
  const pte_at = descend(pde_at, pde) | (field(va, 20n, 12n) >> 9n);
  if (!in_ram(pte_at)) return { trap: "mc" };
  const pte = read(pte_at);
  if (!bit(pte, 0)) return fault(false, false);
  if (reserved(pte)) return fault(true, true);
  return finish(pte_at, pte, 12n);
}
