/** Address spaces without tasks: a CPU's idle task becomes a program of one, and makes accesses at ring 3. */
import { expect } from "vitest";
import { nr_cpu_ids, on_cpu } from "../../hal/cpu.ts";
import { mmu_load32, mmu_store32 } from "../../hal/mmu.ts";
import { Trap } from "../../hal/trap.ts";
import { user_mode } from "../../kernel/entry.ts";
import { TaskStruct, idle_task, set_current_task } from "../../kernel/task.ts";
import type { MmPtr } from "../../mm/mm_types.ts";

/** What an access that fails comes to. */
export const SEGV = "segv";

/** A CPU's idle task becomes a program of that address space, or, with 0, what it was. */
export function run_in(cpu: number, mm: MmPtr): void {
  on_cpu(cpu, () => {
    TaskStruct.mm.set(idle_task(cpu), mm);
    set_current_task(idle_task(cpu));
  });
}

/** No CPU is in any address space. */
export function run_in_none(): void {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) run_in(cpu, 0);
}

/** Accesses memory as a program on a CPU does. */
export function access(cpu: number, fn: () => number | void): number | void | string {
  const result = on_cpu(cpu, () => user_mode(fn));
  if ("value" in result) return result.value;
  expect(result.thrown).toBeInstanceOf(Trap);
  return SEGV;
}

export const store32 = (cpu: number, va: number, value: number) => access(cpu, () => mmu_store32(va, value));
export const load32 = (cpu: number, va: number) => access(cpu, () => mmu_load32(va));
