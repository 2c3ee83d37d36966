/**
 * Page faults at user addresses: what makes memory of a program, and what ends it.
 *
 *     1  no address space: not resolved         2  the area at the address, or a stack that may grow so far
 *     3  does the area allow the access?        4  handle_mm_fault (mm/memory.ts): true, the access is made again
 *
 * Where that fails the access fails. A program's own access ends it: SIGSEGV with Linux's line in the log, SIGBUS behind
 * the end of a file that is mapped, or SIGKILL without memory. One that the kernel made for it ends in what the copy function returns: -EFAULT.
 *
 *     memhog[12]: segfault at deadbeef ip 0000000000000000 sp 00007ffffffff000 error 4 likely on CPU 0 (core 0, socket 0)
 *
 * Unlike Linux: `ip` is 0, since a program's code runs on the host; `sp` is the top of its stack. No SIGSEGV handlers.
 */
import { NULL, hex, virt_px, type Virt } from "../hal/addr.ts";
import { smp_processor_id } from "../hal/cpu.ts";
import {
  Trap, X86_PF_INSTR, X86_PF_PROT, X86_PF_RSVD, X86_PF_USER, X86_PF_WRITE, X86_TRAP_GP, X86_TRAP_PF,
} from "../hal/trap.ts"; // prettier-ignore
import { VM_FAULT_OOM, VM_FAULT_SIGBUS, handle_mm_fault } from "../mm/memory.ts";
import { MmStruct, STACK_TOP, VM_ACCESS_FLAGS, VM_WRITE, VmArea, type VmaPtr } from "../mm/mm_types.ts";
import { expand_stack } from "../mm/mmap.ts";
import { find_vma } from "../mm/vma.ts";
import { set_user_fault_handler } from "./fault.ts";
import { ksym } from "./lib/ksym.ts";
import { pr_info } from "./lib/printk.ts";
import { SIGBUS, SIGKILL, SIGSEGV } from "./signal.ts";
import { TaskStruct, current_task, task_name, type TaskPtr } from "./task.ts";

/** Boot: from here on programs have memory. */
export function user_fault_init(): void {
  set_user_fault_handler(handler);
}

const handler = ksym("do_user_addr_fault", (error_code: number, address: Virt): boolean => {
  const task = current_task();
  const mm = task === NULL ? NULL : TaskStruct.mm.get(task);
  if (mm === NULL || (error_code & X86_PF_RSVD) !== 0) return false;
  const vma = find_vma(mm, address);
  if (vma === NULL) return false;
  if (VmArea.vm_start.get(vma) > address && !expand_stack(vma, address)) return false;
  if (access_error(error_code, vma)) return false;
  const fault = handle_mm_fault(vma, address, (error_code & X86_PF_WRITE) !== 0);
  if (fault === 0) return true;
  if (error_code & X86_PF_USER) MmStruct.fault.set(mm, fault);
  return false;
});

/** True if the area does not allow the access. A page that is there and may not be read or run never may. */
function access_error(error_code: number, vma: VmaPtr): boolean {
  const flags = VmArea.vm_flags.get(vma);
  if (error_code & X86_PF_WRITE) return (flags & VM_WRITE) === 0;
  return (error_code & X86_PF_PROT) !== 0 || (flags & VM_ACCESS_FLAGS) === 0;
}

/** Says in the log why a program's own access failed. Returns the signal that ends it. */
export function report_user_trap(task: TaskPtr, trap: Trap): number {
  const mm = TaskStruct.mm.get(task);
  const fault = mm === NULL ? 0 : MmStruct.fault.get(mm);
  if (fault === VM_FAULT_OOM) return SIGKILL;
  if (fault === VM_FAULT_SIGBUS) return SIGBUS;
  const [sp, code] = [virt_px(STACK_TOP), hex(trap.error_code)];
  const ip = virt_px(trap.error_code & X86_PF_INSTR ? trap.address : 0);
  if (trap.vector === X86_TRAP_PF) {
    const [at, cpu] = [virt_px(trap.address).replace(/^0+(?=.)/, ""), smp_processor_id()];
    pr_info(`${task_name(task)}: segfault at ${at} ip ${ip} sp ${sp} error ${code} likely on CPU ${cpu} (core ${cpu}, socket 0)`); // prettier-ignore
    return SIGSEGV;
  }
  const what = trap.vector === X86_TRAP_GP ? "general protection fault" : "machine check";
  pr_info(`traps: ${task_name(task)} ${what} ip:0 sp:${sp} error:${code}`);
  return trap.vector === X86_TRAP_GP ? SIGSEGV : SIGBUS;
}
