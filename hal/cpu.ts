/**
 * The CPU that this realm is at the moment: a few registers, the only machine state outside RAM.
 *
 * In lockstep one realm plays all CPUs, one after another; between two kernel entries `cpu_switch` loads the registers
 * of the CPU that runs next. All of them follow from the CPU's number, so nothing is lost when a realm ends: what a CPU
 * knows (its current task, its run queue, whether it takes interrupts) lies in its per-CPU area in RAM.
 *
 * Hot modules bind the registers (`const r = cpu_regs`) and read `r[CPU_OFFSET]`: a per-CPU object of this CPU is at
 * `ptr + r[CPU_OFFSET]`.
 */
import { PERCPU_UNIT_SHIFT, image_nr_cpus, per_cpu_data } from "./image.ts";
import { ram } from "./ram.ts";
import type { CpuId, NodeId, Ptr } from "./addr.ts";

/** Register numbers in `cpu_regs`. */
export const CPU_ID = 0;
export const CPU_OFFSET = 1;
export const CPU_NODE = 2;
/** Three: what loads, stores and fetches may touch (privilege.ts); copies of those in the CPU's area. */
export const CPU_MASKS = 3;
/** The registers; all of them follow from CPU_ID. In a buffer of their own, whose address is a constant to V8. */
export const cpu_regs = new Int32Array(new ArrayBuffer(24));
const r = cpu_regs;

/** What the hardware keeps for each CPU. */
export const cpu_state = per_cpu_data("cpu_state", {
  node: "u32", // set once by smp bring-up
  online: "u32",
  interrupts_off: "u32", // depth; only this CPU writes it
  cycles: "u64", // entries run on this CPU; only this CPU writes it
  // What the MMU obeys; only this CPU writes it, through privilege.ts, control_regs.ts and trap.ts.
  cr0: "u32",
  cr4: "u32",
  efer: "u32",
  cpl: "u32", // the ring: 0 kernel, 3 user
  ac: "u32", // EFLAGS.AC
  cr2: "u64", // address of the last page fault
  cr3: "u64", // top page table and PCID
  masks: "u32[3]", // follow from the others: privilege.ts
});
const STATE = cpu_state.ptr;
const MASKS = cpu_state.masks.offset;
const words = new Int32Array(ram.buffer);

/** A word of this CPU's `cpu_state`, as the MMU reads it: a register is no memory, so no instrument sees the access. */
export function cpu_register(offset: number): number {
  return words[(STATE + r[CPU_OFFSET]! + offset) >> 2]!;
}

export function set_cpu_register(offset: number, value: number): void {
  words[(STATE + r[CPU_OFFSET]! + offset) >> 2] = value;
}

/** Makes this realm CPU `cpu`. Context: between two kernel entries, or inside `on_cpu`. */
export function cpu_switch(cpu: CpuId): void {
  r[CPU_ID] = cpu;
  r[CPU_OFFSET] = cpu << PERCPU_UNIT_SHIFT;
  r[CPU_NODE] = cpu_state.node.get(cpu_state.ptr + r[CPU_OFFSET]!);
  for (let i = 0; i < 3; i++) r[CPU_MASKS + i] = cpu_register(MASKS + 4 * i);
}

/** The number of the CPU that runs this. */
export function smp_processor_id(): CpuId {
  return r[CPU_ID]!;
}

/** The node of this CPU, whether or not it has memory. */
export function numa_node_id(): NodeId {
  return r[CPU_NODE]!;
}

/** The node of any CPU. */
export function cpu_to_node(cpu: CpuId): NodeId {
  return cpu_state.node.get(cpu_state.ptr + (cpu << PERCPU_UNIT_SHIFT));
}

/** This CPU's copy of a per-CPU object. */
export function this_cpu_ptr<T extends string>(ptr: Ptr<T>): Ptr<T> {
  return ptr + r[CPU_OFFSET]!;
}

/** CPUs that can ever be there; numbered from 0. All possible CPUs are present. */
export function nr_cpu_ids(): number {
  return image_nr_cpus();
}

export function cpu_is_online(cpu: CpuId): boolean {
  return cpu_state.online.get(cpu_state.ptr + (cpu << PERCPU_UNIT_SHIFT)) !== 0;
}

export function num_online_cpus(): number {
  let online = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) if (cpu_is_online(cpu)) online++;
  return online;
}

/** Runs `fn` as CPU `cpu` and comes back: the call to another CPU in lockstep. */
export function on_cpu<T>(cpu: CpuId, fn: () => T): T {
  const from = smp_processor_id();
  cpu_switch(cpu);
  try {
    return fn();
  } finally {
    cpu_switch(from);
  }
}
