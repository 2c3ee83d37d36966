/**
 * Page faults and other traps of memory accesses: who resolves them, and what the log says of those nobody can.
 *
 *     #PF at an address of the user half      -> the user fault handler (a slot), if the access may go there at all
 *     #PF at an address of the kernel half    -> stale TLB entry, the tables allow it by now: try again
 *     all else                                -> not resolved: the access fails, and how is hal/trap.ts's affair
 *
 * A kernel access that fails comes out of its kernel entry as a `Trap`, and kernel/entry.ts makes an oops of it, letter
 * for letter Linux's:
 *
 *     BUG: unable to handle page fault for address: ffffc90000002000
 *     #PF: supervisor read access in kernel mode
 *     #PF: error_code(0x0000) - not-present page
 *     PGD 27ef067 P4D 27ef067 PUD 27af067 PMD 27ae067 PTE 0
 *     Oops: Oops: 0000 [#1] SMP NOPTI
 *
 * Unlike Linux: the kernel's code runs on the host, so there are no general registers, no stack pointer and no code bytes
 * to show; those lines are left out. Addresses of functions are source lines. Control registers are real.
 */
import { PAGE_SIZE, hex, is_canonical, virt_px, type Virt } from "../hal/addr.ts";
import { read_cr0, read_cr2, read_cr3, read_cr4 } from "../hal/control_regs.ts";
import { static_data } from "../hal/image.ts";
import { _PAGE_NX_HI, _PAGE_PRESENT, _PAGE_PSE, _PAGE_USER, mmu_probe } from "../hal/page_walk.ts";
import { X86_CR4_SMEP } from "../hal/privilege.ts";
import {
  Trap, X86_PF_INSTR, X86_PF_PROT, X86_PF_RSVD, X86_PF_USER, X86_PF_WRITE, X86_TRAP_GP, X86_TRAP_PF, interrupted_ac,
  set_trap_gate,
} from "../hal/trap.ts"; // prettier-ignore
import { tlb_flush_init } from "../mm/tlbflush.ts";
import { ksym_fn, type FnPtr } from "./lib/ksym.ts";

/** `user_fn`: resolves faults at user addresses; filled by the layer that has address spaces. */
const fault_slots = static_data("fault_slots", { user_fn: "*fn" });

/** Sets who resolves faults at user addresses: a ksym of a TrapHandler. */
export function set_user_fault_handler(fn: FnPtr): void {
  fault_slots.user_fn = fn;
}

/** The page fault vector. Returns true if the access is worth another try. */
function exc_page_fault(error_code: number, address: Virt): boolean {
  if (address < 0) return spurious_kernel_fault(error_code, address);
  if (fault_slots.user_fn === 0) return false;
  // A kernel that touches user memory without saying so (SMAP), or runs it, is broken: nothing is resolved for it.
  const in_user_mode = (error_code & X86_PF_USER) !== 0;
  if (!in_user_mode && ((error_code & X86_PF_INSTR) !== 0 || !interrupted_ac())) return false;
  return ksym_fn(fault_slots.user_fn)(error_code, address) as boolean;
}

/** Fills this realm's gates; a gate is code, so each boot and each attach does it. */
export function trap_init(): void {
  set_trap_gate(X86_TRAP_PF, exc_page_fault);
  tlb_flush_init();
}

/** True if the page tables allow the access by now: rights were widened, and this CPU had not heard. */
function spurious_kernel_fault(error_code: number, address: Virt): boolean {
  const { pa, w, x } = mmu_probe(read_cr3(), address);
  if (error_code === (X86_PF_WRITE | X86_PF_PROT)) return pa !== null && w;
  return error_code === (X86_PF_INSTR | X86_PF_PROT) && pa !== null && x;
}

/** The lines of an oops up to and with "Oops:", for the `nr`th one. */
export function trap_lines(trap: Trap, nr: number): string[] {
  const code = hex(trap.error_code, 4);
  const die = (what: string): string => `Oops: ${what}: ${code} [#${nr}] SMP NOPTI`;
  if (trap.vector === X86_TRAP_PF) return [...page_fault_lines(trap), die("Oops")];
  if (trap.vector !== X86_TRAP_GP) return [die(`machine check, no memory behind 0x${lx(trap.address)}`)];
  const place = is_canonical(trap.address) ? "" : `, probably for non-canonical address 0x${lx(trap.address)}`;
  return [die(`general protection fault${place}`)];
}

/** `%lx` of an address. */
function lx(address: Virt): string {
  return virt_px(address).replace(/^0+(?=.)/, "");
}

function page_fault_lines({ error_code, address }: Trap): string[] {
  const has = (bit: number): boolean => (error_code & bit) !== 0;
  const { entries } = mmu_probe(read_cr3(), address);
  const lines: string[] = [];
  const leaf = entries.at(-1)!;
  if (has(X86_PF_INSTR) && (leaf.lo & _PAGE_PRESENT) !== 0) {
    if ((leaf.hi & _PAGE_NX_HI) !== 0)
      lines.push("kernel tried to execute NX-protected page - exploit attempt? (uid: 0)");
    else if ((entries[0]!.lo & _PAGE_USER) !== 0 && (read_cr4() & X86_CR4_SMEP) !== 0)
      lines.push("unable to execute userspace code (SMEP?) (uid: 0)");
  }
  const is_null = address >= 0 && address < PAGE_SIZE;
  const what = is_null ? "kernel NULL pointer dereference, address" : "unable to handle page fault for address";
  const access = has(X86_PF_INSTR) ? "instruction fetch" : has(X86_PF_WRITE) ? "write access" : "read access";
  const why = !has(X86_PF_PROT) ? "not-present page" : has(X86_PF_RSVD) ? "reserved bit violation" : "permissions violation"; // prettier-ignore
  return [
    ...lines,
    `BUG: ${what}: ${virt_px(address)}`,
    `#PF: supervisor ${access} in kernel mode`,
    `#PF: error_code(0x${hex(error_code, 4)}) - ${why}`,
    entry_line(entries),
  ];
}

/** `PGD … P4D … PUD … PMD … PTE …`: each entry while the one before is present and no page. */
function entry_line(entries: readonly { lo: number; hi: number }[]): string {
  const value = ({ lo, hi }: { lo: number; hi: number }): string => (hi === 0 ? hex(lo) : hex(hi) + hex(lo, 8));
  const names = ["PGD", "PUD", "PMD", "PTE"];
  const parts = entries.map((entry, i) => `${names[i]} ${value(entry)}`);
  const [pgd] = entries;
  parts.splice(1, 0, `P4D ${value(pgd!)}`); // the P4D is folded into the PGD: the same entry
  return parts.join(" ") + (entries.length < names.length ? " " : "");
}

/** The control registers as an oops shows them. */
export function control_register_lines(): string[] {
  const cr = (value: number): string => hex(value, 16);
  return [
    `CS:  0010 DS: 0000 ES: 0000 CR0: ${cr(read_cr0())}`,
    `CR2: ${virt_px(read_cr2())} CR3: ${cr(read_cr3())} CR4: ${cr(read_cr4())}`,
  ];
}
