/**
 * Interrupts from CPU to CPU, and the TLB shootdown that they are for.
 *
 * An IPI runs the handler of its vector (trap.ts) on the other CPU. In lockstep all other CPUs stand between two entries,
 * where interrupts are on, so it runs at once and the sender goes on when it has ended. What to do lies in RAM: an
 * interrupt carries nothing but its vector.
 *
 *     shootdown:  page tables changed -> own TLB (invlpg) -> flush_tlb_others(CPUs that may hold it) -> page given back
 *
 * Threads will need: a word of pending vectors a CPU, set by atomic or, taken where interrupts are taken; a count of
 * acknowledgements that the sender waits for, with interrupts on, or two CPUs that shoot at each other wait forever.
 */
import { hex, type CpuId, type Ptr } from "./addr.ts";
import { cpu_is_online, nr_cpu_ids, on_cpu, smp_processor_id } from "./cpu.ts";
import { events, has_listener } from "./events.ts";
import { per_cpu_data, per_cpu_ptr } from "./image.ts";
import { ram32 } from "./ram.ts";
import { deliver } from "./trap.ts";

/** Shootdown. Linux had this vector until 3.6, and sends a function-call interrupt since. */
export const INVALIDATE_TLB_VECTOR = 0xf0;

const ipi = per_cpu_data("ipi", {
  sent: "u32", // only this CPU writes it
  received: "u32",
});

/** Interrupts `cpu` with a vector; returns when its handler has ended. False if that CPU is offline. */
export function send_ipi(cpu: CpuId, vector: number): boolean {
  if (!cpu_is_online(cpu)) return false;
  const from = smp_processor_id();
  if (has_listener("ipi"))
    events.emit("ipi", { from, to: cpu, what: vector === INVALIDATE_TLB_VECTOR ? "tlb" : `0x${hex(vector)}` });
  count(ipi.sent, from);
  count(ipi.received, cpu);
  on_cpu(cpu, () => deliver(vector, 0, 0));
  return true;
}

function count(field: typeof ipi.sent, cpu: CpuId): void {
  const of = per_cpu_ptr(ipi.ptr, cpu);
  field.set(of, field.get(of) + 1);
}

/**
 * Interrupts the online CPUs of a mask, but this one, with INVALIDATE_TLB_VECTOR. `cpumask` is 64 bits in RAM.
 *
 * Returns how many there were, when all have done what the kernel's handler does. Context: interrupts on.
 */
export function flush_tlb_others(cpumask: Ptr): number {
  let reached = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const wanted = ((ram32[(cpumask >> 2) + (cpu >> 5)]! >>> cpu) & 1) !== 0 && cpu !== smp_processor_id();
    if (wanted && send_ipi(cpu, INVALIDATE_TLB_VECTOR)) reached++;
  }
  return reached;
}

/** Interrupts that a CPU sent to others and got from them, since power-on. */
export function ipi_counters(cpu: CpuId): { sent: number; received: number } {
  const of = per_cpu_ptr(ipi.ptr, cpu);
  return { sent: ipi.sent.get(of), received: ipi.received.get(of) };
}
