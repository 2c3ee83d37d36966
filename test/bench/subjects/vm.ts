/**
 * V1 to V5: virtual memory, on a machine of 1 GiB: accesses through the MMU, faults, forks of processes of three sizes,
 * areas among few and many others, vmalloc.
 */
import { boot } from "../../../boot/start_kernel.ts";
import { PAGE_SIZE, type Virt } from "../../../hal/addr.ts";
import { machine_from_options } from "../../../hal/machine.ts";
import { mmu_load32, mmu_store32 } from "../../../hal/mmu.ts";
import { ram32 } from "../../../hal/ram.ts";
import { kernel_entry, user_mode } from "../../../kernel/entry.ts";
import { do_exit, release_task } from "../../../kernel/exit.ts";
import { copy_process } from "../../../kernel/fork.ts";
import { is_err } from "../../../kernel/lib/errno.ts";
import { schedule_until } from "../../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../../kernel/pid.ts";
import { program, spawn } from "../../../kernel/program.ts";
import { TASK_INTERRUPTIBLE, TaskStruct, idle_task, set_current_task, type TaskPtr } from "../../../kernel/task.ts";
import { u } from "../../../kernel/user_memory.ts";
import { GFP_KERNEL } from "../../../mm/gfp.ts";
import type { MmPtr } from "../../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, do_mmap, do_munmap, dup_mm, mm_alloc, mmput,
} from "../../../mm/mmap.ts"; // prettier-ignore
import { page_address } from "../../../mm/page.ts";
import { alloc_pages } from "../../../mm/page_alloc.ts";
import { validate_mm } from "../../../mm/validate.ts";
import { vfree, vmalloc } from "../../../mm/vmalloc.ts";
import type { OwnWorkload, Subject } from "../heap.ts";
import { random_numbers } from "../workloads.ts";

const m = ram32;
const load = mmu_load32;
const ENTRIES = 100_000;
/** Loads go round in so many bytes, 17 words on each time: 16 pages, which a TLB holds; or another of 256 each time. */
const NEAR_ORDER = 4;
const NEAR = PAGE_SIZE << NEAR_ORDER;
const STRIDE = 68;
const FAR = 256 * PAGE_SIZE;
const FAULTS = 256;
const BASE: Virt = 0x10000000;
const RW = PROT_READ | PROT_WRITE;
const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

const machine = machine_from_options({ mem: "1G" });
if (typeof machine === "string") throw new Error(machine);
boot({ machine, loglevel: 0 });

/** Has so many pages of its own, and sleeps. */
program("bench_holds", function* (sys, pages: number) {
  u.memset(yield sys.mmap(pages * PAGE_SIZE), 1, pages * PAGE_SIZE);
  for (;;) yield sys.sleep(1_000_000);
});

function in_kernel(fn: (count: number) => void): (count: number) => void {
  return (count) => void kernel_entry("host", () => fn(count));
}

/* V1: accesses */

const sums = { total: 0 }; // keeps the loads from being left out

function plain_loads(): OwnWorkload {
  const base = page_address(alloc_pages(GFP_KERNEL, NEAR_ORDER));
  const run = (count: number): void => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum = (sum + m[(base + (Math.imul(i, STRIDE) & (NEAR - 4))) >> 2]!) | 0;
    sums.total = sum;
  };
  return { run };
}

function mmu_loads(bytes: number, stride: number): OwnWorkload {
  const base = vmalloc(bytes);
  const run = (count: number): void => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum = (sum + load(base + (Math.imul(i, stride) & (bytes - 4)))) | 0;
    sums.total = sum;
  };
  return { run: in_kernel(run) };
}

/* V2: faults */

/** The host's entries run in this address space, or in none. */
function run_in(mm: MmPtr): void {
  TaskStruct.mm.set(idle_task(0), mm);
  set_current_task(idle_task(0));
}

function new_space(pages: number): MmPtr {
  const mm = mm_alloc();
  do_mmap(mm, BASE, pages * PAGE_SIZE, RW, FIXED);
  return mm;
}

/** Stores to each page as a program does. */
function touch(pages: number): void {
  const result = user_mode(() => {
    for (let i = 0; i < pages; i++) mmu_store32(BASE + i * PAGE_SIZE, i);
  });
  if ("thrown" in result) throw result.thrown;
}

function zero_faults(): OwnWorkload {
  const mm = new_space(0);
  const run = (count: number): void => {
    run_in(mm);
    for (let i = 0; i < count; i++) {
      do_mmap(mm, BASE, FAULTS * PAGE_SIZE, RW, FIXED);
      touch(FAULTS);
      do_munmap(mm, BASE, FAULTS * PAGE_SIZE);
    }
    run_in(0);
  };
  return { run: in_kernel(run), per_call: FAULTS };
}

function copy_faults(): OwnWorkload {
  const mm = new_space(FAULTS);
  kernel_entry("host", () => {
    run_in(mm);
    touch(FAULTS);
    run_in(0);
  });
  const run = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const child = dup_mm(mm);
      run_in(child);
      touch(FAULTS);
      run_in(0);
      mmput(child);
    }
  };
  return { run: in_kernel(run), per_call: FAULTS };
}

/* V3: fork */

/** A program that has so many pages and sleeps. */
function holder(pages: number): TaskPtr {
  let task: TaskPtr = 0;
  kernel_entry("host", () => {
    task = spawn(find_task_by_pid(1), "bench_holds", [pages]);
    if (is_err(task)) throw new Error(`spawn: ${task}`);
  });
  if (!schedule_until(() => TaskStruct.state.get(task) === TASK_INTERRUPTIBLE, ENTRIES)) throw new Error("no sleep");
  return task;
}

/** fork, then the end of the child, which has not run. */
function forks(pages: number): OwnWorkload {
  const parent = holder(pages);
  const wanted = {
    parent,
    comm: "bench_child",
    entry: TaskStruct.entry.get(parent),
    program: TaskStruct.program.get(parent),
  };
  const run = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const child = copy_process(wanted);
      if (is_err(child)) throw new Error(`fork: ${child}`);
      do_exit(child, 0);
      release_task(child);
    }
  };
  return { run: in_kernel(run) };
}

/* V4: areas */

/** One of so many areas is unmapped and mapped again; neighbours differ in rights, so none merge. */
function areas(nr: number): OwnWorkload {
  const mm = mm_alloc();
  const prot_of = (i: number): number => (i % 2 === 0 ? RW : PROT_READ);
  const place = (i: number): Virt => BASE + i * PAGE_SIZE;
  for (let i = 0; i < nr; i++) do_mmap(mm, place(i), PAGE_SIZE, prot_of(i), FIXED);
  const random = random_numbers(4);
  const run = (count: number): void => {
    for (let k = 0; k < count; k++) {
      const i = random(nr);
      do_munmap(mm, place(i), PAGE_SIZE);
      do_mmap(mm, place(i), PAGE_SIZE, prot_of(i), FIXED);
    }
  };
  return { run: in_kernel(run) };
}

/* V5: vmalloc */

function vmallocs(pages: number): OwnWorkload {
  const run = (count: number): void => {
    for (let i = 0; i < count; i++) vfree(vmalloc(pages * PAGE_SIZE));
  };
  return { run: in_kernel(run) };
}

const workloads: Readonly<Record<string, () => OwnWorkload>> = {
  "V1 RAM": plain_loads,
  "V1 hit": () => mmu_loads(NEAR, STRIDE),
  "V1 walk": () => mmu_loads(FAR, PAGE_SIZE),
  "V2 zero": zero_faults,
  "V2 copy": copy_faults,
  "V3 10": () => forks(10),
  "V3 1000": () => forks(1000),
  "V3 100000": () => forks(100_000),
  "V4 100": () => areas(100),
  "V4 1000": () => areas(1000),
  "V4 10000": () => areas(10_000),
  "V5 4": () => vmallocs(4),
  "V5 256": () => vmallocs(256),
};

export const subject: Subject = {
  heap: () => undefined,
  own: (workload) => workloads[workload]?.(),
  check: () => validate_mm(),
};
