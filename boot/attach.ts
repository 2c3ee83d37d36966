/**
 * Goes on with a machine that another realm booted, from nothing but its RAM.
 *
 * All that the kernel knows lies in RAM. What a realm keeps beside it is code (the functions that RAM refers to by
 * address), and a few registers and choices that follow from RAM:
 *
 *     names        every static, per-CPU variable and function has the address that RAM's symbol table gives it;
 *                  a name that one side lacks, or that has another layout, is refused       hal/image.ts
 *     registers    CPU 0's; each entry loads those of its CPU
 *     seams        which slab and page allocator the machine was booted with
 *     programs     made anew from their journals when they run next                          kernel/program.ts
 *
 * The realm is handed RAM as `memory` of its options (hal/host.ts) before it loads this file. It loads the same files as
 * the realm that booted; a program or module that lies elsewhere is loaded first.
 */
import { cpu_regs, cpu_switch, nr_cpu_ids } from "../hal/cpu.ts";
import { image_foreign_names, image_is_attached } from "../hal/image.ts";
import { machine_end, type MachineSpec } from "../hal/machine.ts";
import { timing_power_on } from "../hal/timing.ts";
import { trap_init } from "../kernel/fault.ts";
import { forget_programs } from "../kernel/program.ts";
import { mem_map_state } from "../mm/page.ts";
import { choose_page_allocator } from "../mm/page_allocator.ts";
import { set_slab_ops } from "../mm/slab_common.ts";
import { chosen_slab } from "./slab_allocators.ts";
import "./start_kernel.ts";

/** Attaches this realm to the machine in its RAM. Throws an Error of one line if that is not the machine of `spec`. */
export function attach(spec: MachineSpec): void {
  if (!image_is_attached()) throw new Error("attach: this realm was handed no RAM in which a kernel stands");
  const [foreign] = image_foreign_names();
  if (foreign !== undefined)
    throw new Error(
      foreign.startsWith("anon:")
        ? `attach: the kernel in RAM refers to a function without a name (${foreign}); give it one with ksym`
        : `attach: the kernel in RAM knows "${foreign}", which was not loaded here`,
    );
  if (nr_cpu_ids() !== spec.cpus || mem_map_state.max_pfn * 4096 > machine_end(spec))
    throw new Error(`attach: the kernel in RAM was not booted on a machine like "${spec.name}"`);
  timing_power_on(spec, machine_end(spec), cpu_regs);
  cpu_switch(0);
  set_slab_ops(chosen_slab());
  choose_page_allocator();
  trap_init();
  forget_programs();
}
