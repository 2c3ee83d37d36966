/**
 * SLAB's clockwork: `reap` of the allocator on each CPU, every two seconds, a second after the start for the first time.
 *
 * The work is deferrable: it lets no idle CPU wake up, so it is no timer that the scheduler's loop waits for, but is
 * looked at whenever time has passed; what fell due in a long sleep is then made up for. Due times are rounded to whole
 * seconds, as Linux does, and staggered by three ticks a CPU. With an allocator that has nothing to reap, nothing happens.
 */
import type { CpuId } from "../hal/addr.ts";
import { HZ, jiffies } from "../hal/clock.ts";
import { cpu_is_online, nr_cpu_ids, on_cpu } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr } from "../hal/image.ts";
import { slab_ops } from "../mm/slab_common.ts";
import { kernel_entry } from "./entry.ts";

const REAPTIMEOUT_AC = 2 * HZ;
const STAGGER = 3;

const reap_work = per_cpu_data("slab_reap_work", { expires: "u64" }); // jiffies; 0 until the CPU is first seen

/** Runs what is due on every CPU. Context: no CPU runs an entry; time has passed. */
export function run_slab_reap(): void {
  const { reap } = slab_ops();
  if (!reap) return;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    if (!cpu_is_online(cpu)) continue;
    const work = per_cpu_ptr(reap_work.ptr, cpu);
    const { expires } = reap_work;
    if (expires.get(work) === 0) expires.set(work, round_jiffies(jiffies() + HZ, cpu));
    while (expires.get(work) <= jiffies()) {
      on_cpu(cpu, () => kernel_entry("irq", reap));
      expires.set(work, round_jiffies(expires.get(work) + REAPTIMEOUT_AC, cpu));
    }
  }
}

/** The whole second nearest to a tick, up from a quarter on, and the CPU's own ticks. */
function round_jiffies(ticks: number, cpu: CpuId): number {
  const skewed = ticks + STAGGER * cpu;
  const rest = skewed % HZ;
  return (rest < HZ / 4 ? skewed - rest : skewed - rest + HZ) - STAGGER * cpu;
}
