/**
 * What the CPU may do at the moment: its ring and the control bits that say what a ring may do, folded into three masks.
 *
 * The rights of a mapping are a number of 4 bits: is it writable, for user mode, executable, and already marked dirty?
 * A fifth bit tells a TLB entry in use from others. For each kind of access one mask has bit n set where a mapping with
 * rights n may be accessed so, by this CPU in its present state. One shift answers the question, for a TLB hit as for a
 * page walk, and the rules of the manual stand in one place, `update_masks`.
 *
 *     rights   1 W   2 U   4 X   8 D   16 usable        mask >>> rights & 1        rights below 16: never allowed
 *
 * Masks follow from CR0.WP, CR4.SMEP, CR4.SMAP, EFER.NXE, EFLAGS.AC and the ring; whoever changes one of these says so.
 * Ring and registers lie in the CPU's area in RAM: a CPU that runs on after others, or in another realm, finds them.
 *
 * Unlike a PC: rings 0 and 3 only; no protection keys, no shadow stacks.
 * See: Intel SDM volume 3, 4.6 (access rights).
 */
import { CPU_MASKS, cpu_register, cpu_regs, cpu_state, set_cpu_register } from "./cpu.ts";

export const X86_CR0_PE = 1;
export const X86_CR0_WP = 0x10000;
export const X86_CR0_PG = 0x80000000;
export const X86_CR4_PAE = 0x20;
export const X86_CR4_PGE = 0x80;
export const X86_CR4_PCIDE = 0x20000;
export const X86_CR4_SMEP = 0x100000;
export const X86_CR4_SMAP = 0x200000;
export const EFER_LME = 0x100;
export const EFER_LMA = 0x400;
export const EFER_NX = 0x800;

/** Kinds of access: numbers of the masks. */
export const MMU_READ = 0;
export const MMU_WRITE = 1;
export const MMU_FETCH = 2;

/** Bits of a mapping's rights. */
export const RIGHT_W = 1;
export const RIGHT_U = 2;
export const RIGHT_X = 4;
export const RIGHT_D = 8;
export const RIGHT_USABLE = 16;
/** All rights, and those with a bit set. */
const ANY = 0xffff0000 | 0;
const WITH_W = 0xaaaa0000 | 0;
const WITH_U = 0xcccc0000 | 0;
const WITH_X = 0xf0f00000 | 0;
const WITH_D = 0xff000000 | 0;

const r = cpu_regs;
const MASKS = cpu_state.masks.offset;
const CR0 = cpu_state.cr0.offset;
const CR4 = cpu_state.cr4.offset;
const EFER = cpu_state.efer.offset;
const CPL = cpu_state.cpl.offset;
const AC = cpu_state.ac.offset;

/** Computes the masks anew. Context: after a change of ring, AC, or a control register. */
export function update_masks(): void {
  const cr0 = cpu_register(CR0);
  const cr4 = cpu_register(CR4);
  const executable = (cpu_register(EFER) & EFER_NX) !== 0 ? WITH_X : ANY;
  let read = WITH_U;
  let write = WITH_U & WITH_W;
  let fetch = WITH_U & executable;
  if (cpl() === 0) {
    read = (cr4 & X86_CR4_SMAP) !== 0 && cpu_register(AC) === 0 ? ANY & ~WITH_U : ANY;
    write = read & ((cr0 & X86_CR0_WP) !== 0 ? WITH_W : ANY);
    fetch = executable & ((cr4 & X86_CR4_SMEP) !== 0 ? ~WITH_U : ANY);
  }
  const paging = cr0 < 0 ? ANY : 0; // PG is the sign bit; without paging the TLB answers nothing
  set_mask(MMU_READ, read & paging);
  set_mask(MMU_WRITE, write & WITH_D & paging); // the first write to a page has to walk, to set D
  set_mask(MMU_FETCH, fetch & paging);
}

function set_mask(access: number, mask: number): void {
  set_cpu_register(MASKS + 4 * access, mask);
  r[CPU_MASKS + access] = mask;
}

/** True if this CPU may access a mapping with these rights now; whether it is dirty yet does not matter. */
export function access_allowed(rights: number, access: number): boolean {
  return ((r[CPU_MASKS + access]! >>> (rights | RIGHT_D | RIGHT_USABLE)) & 1) !== 0;
}

/** The ring: 0 or 3. */
export function cpl(): number {
  return cpu_register(CPL);
}

/** Goes to ring 3 (as iret does) or back to ring 0. */
export function set_cpl(ring: 0 | 3): void {
  set_cpu_register(CPL, ring);
  update_masks();
}

/** Sets EFLAGS.AC: with SMAP, the kernel may touch user pages until `clac`. */
export function stac(): void {
  set_cpu_register(AC, 1);
  update_masks();
}

export function clac(): void {
  set_cpu_register(AC, 0);
  update_masks();
}
