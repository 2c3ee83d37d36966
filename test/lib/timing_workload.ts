/** What the realms of test/boot/timing_realm.test.ts all run: boot, heap, tasks, an oops; and what they answer. */
import { on_cpu } from "../../hal/cpu.ts";
import { machine_end, type MachineSpec } from "../../hal/machine.ts";
import { ram32 } from "../../hal/ram.ts";
import { timing_functions, timing_read, type FunctionFigures, type TimingFigures } from "../../hal/timing.ts";
import { schedule_for } from "../../boot/machine_time.ts";
import { boot, power_off } from "../../boot/start_kernel.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { mempool_resize } from "../../mm/mempool.ts";

export interface Answer {
  /** A checksum of the machine's RAM. */
  readonly ram: number;
  readonly log: string[];
  readonly figures: TimingFigures;
  readonly functions: FunctionFigures[];
}

export function run(machine: MachineSpec, garbage: Uint8Array): Answer {
  boot({ machine, garbage, loglevel: 0 });
  const blocks: number[] = [];
  for (let i = 0; i < 500; i++) on_cpu(i % machine.cpus, () => void blocks.push(kmalloc((i * 37) % 9000, GFP_KERNEL)));
  for (const [i, block] of blocks.entries()) on_cpu((i >> 3) % machine.cpus, () => kfree(block));
  kernel_entry("host", () => mempool_resize(0, 0)); // a BUG: its report names lines
  schedule_for(500_000_000);
  const log = [...printk_records()].map(({ text }) => text);
  power_off();
  let ram = 0;
  for (let i = 0, end = machine_end(machine) >> 2; i < end; i++) ram = Math.imul(ram ^ ram32[i]!, 0x01000193);
  return { ram, log, figures: timing_read(), functions: timing_functions() };
}
