/**
 * Control registers: reading and writing CR0, CR2, CR3, CR4 and EFER, with what each write does to the TLB.
 *
 *     CR0   PE WP PG        PG needs PE, CR4.PAE and EFER.LME, sets EFER.LMA, and stays: paging is never left
 *     CR3   page table | PCID     drops the entries of that PCID that are not global, or none (bit 63)
 *     CR4   PAE PGE PCIDE SMEP SMAP       a change of PGE, PCIDE off and SMEP on drop everything; PCIDE needs PCID 0
 *     EFER  LME LMA NX
 *
 * A value that the manual forbids, an unknown bit of CR4 or EFER, and any use at ring 3 is #GP. All zero at power-on.
 * A kernel's order: PAE; LME and NX; CR3; PE, WP and PG; then the rest of CR4.
 * See: Intel SDM volume 3, 2.5 (control registers), 4.10.4.1 (what invalidates the TLB).
 */
import { PAGE_SIZE, virt_of, type Phys, type Virt } from "./addr.ts";
import { cpu_register, cpu_state, set_cpu_register } from "./cpu.ts";
import {
  EFER_LMA, EFER_LME, EFER_NX, X86_CR0_PE, X86_CR0_PG, X86_CR4_PAE, X86_CR4_PCIDE, X86_CR4_PGE, X86_CR4_SMAP,
  X86_CR4_SMEP, update_masks,
} from "./privilege.ts"; // prettier-ignore
import { set_tlb_pcid, tlb_count_cr3_load, tlb_flush_all, tlb_flush_pcid } from "./tlb.ts";
import { general_protection, require_ring_0 } from "./trap.ts";

const CR0 = cpu_state.cr0.offset;
const CR2 = cpu_state.cr2.offset;
const CR3 = cpu_state.cr3.offset;
const CR4 = cpu_state.cr4.offset;
const EFER = cpu_state.efer.offset;
const CR4_KNOWN = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP;
/** Bits of a physical address (MAXPHYADDR): 1 TiB. What lies above is reserved in CR3 and in entries. */
export const PHYS_BITS = 40;
const PCID_MASK = 0xfff;
const TWO_32 = 0x100000000;

export function read_cr0(): number {
  return cpu_register(CR0) >>> 0;
}

export function read_cr4(): number {
  return cpu_register(CR4);
}

export function read_efer(): number {
  return cpu_register(EFER);
}

/** Address of this CPU's last page fault. */
export function read_cr2(): Virt {
  return virt_of(cpu_register(CR2), cpu_register(CR2 + 4));
}

/** Page table and PCID in one number. */
export function read_cr3(): Phys {
  return (cpu_register(CR3) >>> 0) + cpu_register(CR3 + 4) * TWO_32;
}

export function write_cr0(value: number): void {
  require_ring_0();
  const was_on = cpu_register(CR0) < 0;
  const on = value >>> 0 >= X86_CR0_PG;
  const ready = value & X86_CR0_PE && cpu_register(CR4) & X86_CR4_PAE && cpu_register(EFER) & EFER_LME;
  if (on ? !ready : was_on) general_protection();
  set_cpu_register(CR0, value);
  if (on) set_cpu_register(EFER, cpu_register(EFER) | EFER_LMA);
  update_masks();
}

export function write_cr4(value: number): void {
  require_ring_0();
  const old = cpu_register(CR4);
  const turned_on = value & ~old;
  const turned_off = old & ~value;
  const paging = cpu_register(CR0) < 0;
  const bad =
    (value & ~CR4_KNOWN) !== 0 ||
    (paging && (turned_off & X86_CR4_PAE) !== 0) ||
    ((turned_on & X86_CR4_PCIDE) !== 0 && (!paging || (cpu_register(CR3) & PCID_MASK) !== 0));
  if (bad) general_protection();
  set_cpu_register(CR4, value);
  if ((turned_on | turned_off) & X86_CR4_PGE || turned_off & X86_CR4_PCIDE || turned_on & X86_CR4_SMEP) tlb_flush_all();
  use_pcid();
  update_masks();
}

export function write_efer(value: number): void {
  require_ring_0();
  const old = cpu_register(EFER);
  const paging = cpu_register(CR0) < 0;
  if (value & ~(EFER_LME | EFER_LMA | EFER_NX) || (paging && (value ^ old) & EFER_LME)) general_protection();
  set_cpu_register(EFER, (value & ~EFER_LMA) | (old & EFER_LMA));
  update_masks();
}

/** Changes the address space and forgets what the TLB holds of `pcid`, but for global pages. */
export function write_cr3(pgd: Phys, pcid = 0): void {
  write_cr3_noflush(pgd, pcid);
  tlb_flush_pcid(cpu_register(CR4) & X86_CR4_PCIDE ? pcid : 0);
}

/** Changes the address space and goes on with what the TLB holds of `pcid`: bit 63 of the value, for CR4.PCIDE. */
export function write_cr3_noflush(pgd: Phys, pcid: number): void {
  require_ring_0();
  const fits = pgd >= 0 && pgd < 2 ** PHYS_BITS && pgd % PAGE_SIZE === 0;
  if (!fits || !(pcid >= 0 && pcid <= PCID_MASK && Number.isInteger(pcid))) general_protection();
  set_cpu_register(CR3, pgd | pcid);
  set_cpu_register(CR3 + 4, Math.floor(pgd / TWO_32));
  tlb_count_cr3_load();
  use_pcid();
}

function use_pcid(): void {
  set_tlb_pcid(cpu_register(CR4) & X86_CR4_PCIDE ? cpu_register(CR3) & PCID_MASK : 0);
}
