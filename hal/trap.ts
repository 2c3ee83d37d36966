/**
 * Exceptions: what the CPU does when an instruction cannot complete, and how interrupts reach the kernel.
 *
 *     access -> trap -> gate[vector](error_code, address)  at ring 0, AC clear (as kernels do first thing)
 *                          true:   whatever was wrong is put right; the access is made again from its start
 *                          false:  it cannot be; the access fails
 *
 * How an access fails depends on the access, not on the handler. A single load, store or fetch throws `Trap`: that
 * unwinds a user program (a generator cannot be left otherwise) up to whoever runs it, and in the kernel it is the oops
 * of an instruction without an exception-table entry. Block copies and `mmu_translate` return instead: they are the
 * instructions that have such an entry, and what they return becomes -EFAULT. So a handler decides what is wrong, and
 * never needs to know who asked.
 *
 *     #GP 13   error code 0: an address that is not canonical; a privileged instruction at ring 3; an impossible value
 *              for a control register. CR2 stays as it was
 *     #PF 14   error code as X86_PF_* say; CR2 holds the address
 *     #MC 18   a physical address at which the machine has nothing. A PC would read all ones there
 *     0xfb ..  interrupts from other CPUs (ipi.ts)
 *
 * Unlike a PC: handlers are called, not jumped to, so there is no frame in RAM and no double fault; #GP serves for #SS.
 * See: Intel SDM volume 3, 4.7 (page-fault exceptions), 6.15.
 */
import { virt_hi, virt_px, type Virt } from "./addr.ts";
import { cpu_register, cpu_state, set_cpu_register, smp_processor_id, this_cpu_ptr } from "./cpu.ts";
import { per_cpu_data } from "./image.ts";
import { events, has_listener } from "./events.ts";
import { clac, cpl, set_cpl, stac } from "./privilege.ts";

export const X86_TRAP_GP = 13;
export const X86_TRAP_PF = 14;
export const X86_TRAP_MC = 18;

/** Bits of a page fault's error code: the page is present; the access was a write, from user mode; … */
export const X86_PF_PROT = 1;
export const X86_PF_WRITE = 2;
export const X86_PF_USER = 4;
export const X86_PF_RSVD = 8;
export const X86_PF_INSTR = 0x10;

/** Returns true if the access is worth another try. `address` is the one accessed (0 where there is none). */
export type TrapHandler = (error_code: number, address: Virt) => boolean;

/** An access that failed: thrown out of the program or the kernel function that made it. */
export class Trap extends Error {
  override name = "Trap";
  readonly vector: number;
  readonly error_code: number;
  readonly address: Virt;
  constructor(vector: number, error_code: number, address: Virt) {
    super(`trap ${vector}, error code ${error_code}, address ${virt_px(address)}`);
    this.vector = vector;
    this.error_code = error_code;
    this.address = address;
  }
}

/** Handlers by vector: the interrupt descriptor table. */
// eslint-disable-next-line kheap/no-module-state -- code, not state
const gates: TrapHandler[] = [];

/** Sets what a vector does. Context: the kernel's start, in every realm. */
export function set_trap_gate(vector: number, handler: TrapHandler): void {
  gates[vector] = handler;
}

/** What the CPU would have pushed for the handler: EFLAGS.AC at the access. */
const frame = per_cpu_data("trap_frame", { ac: "u32" });

/** EFLAGS.AC of what was interrupted. Context: a handler. */
export function interrupted_ac(): boolean {
  return frame.ac.get(this_cpu_ptr(frame.ptr)) !== 0;
}

/** Runs the handler of a vector on this CPU and goes back to the ring it came from. Returns its verdict. */
export function deliver(vector: number, error_code: number, address: Virt): boolean {
  if (vector === X86_TRAP_PF) {
    set_cpu_register(cpu_state.cr2.offset, address | 0);
    set_cpu_register(cpu_state.cr2.offset + 4, virt_hi(address));
    if (has_listener("fault")) events.emit("fault", { cpu: smp_processor_id(), address, error_code });
  }
  const handler = gates[vector];
  if (!handler) return false;
  const ring = cpl();
  const ac = cpu_register(cpu_state.ac.offset);
  const outer = frame.ac.get(this_cpu_ptr(frame.ptr)); // the handler may be interrupted in its turn
  frame.ac.set(this_cpu_ptr(frame.ptr), ac);
  set_cpl(0);
  clac();
  const resolved = handler(error_code, address);
  frame.ac.set(this_cpu_ptr(frame.ptr), outer);
  set_cpl(ring === 0 ? 0 : 3);
  if (ac !== 0) stac();
  return resolved;
}

/** #GP(0): an instruction that cannot be. */
export function general_protection(): never {
  deliver(X86_TRAP_GP, 0, 0);
  throw new Trap(X86_TRAP_GP, 0, 0);
}

/** The check of privileged instructions. */
export function require_ring_0(): void {
  if (cpl() !== 0) general_protection();
}
