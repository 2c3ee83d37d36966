/**
 * What each CPU's TLB may still know, and telling the CPUs when page tables change.
 *
 *     entries cleared or narrowed  ->  flush_tlb_mm_range, flush_tlb_kernel_range  ->  the pages may be somebody else's
 *
 * Kernel mappings are global: any CPU may hold them, whatever address space it is in. Those of a program are tagged with a
 * PCID: a CPU remembers its last six address spaces, each in a slot, PCID = slot + 1, with the generation that its
 * translations are of. Every change of an address space makes it a generation older:
 *
 *     switch_mm      slot of that mm, same generation -> nothing to flush;  older -> that PCID;  none -> next slot in turn
 *     flush request  of generation n: the CPU is at n - 1, nothing newer waits  -> the pages named;  else all of the PCID
 *
 * A CPU that goes on with a kernel thread keeps the tables it has (lazy). It is left in peace by flushes and looks at the
 * generation when it comes back, unless tables were freed: then it leaves them at once, for the kernel's own.
 *
 * Up to 33 pages go one by one; beyond that it is cheaper to forget everything. An entry that becomes present needs no
 * flush. CPUs that run another address space by now take themselves off the mask when they are asked.
 *
 * Context: interrupts on. The requester waits for all CPUs, so nobody uses an old translation when this returns.
 * See: Linux arch/x86/mm/tlb.c.
 */
import { NULL, PAGE_SIZE, type CpuId, type Ptr, type Virt } from "../hal/addr.ts";
import { write_cr3, write_cr3_noflush } from "../hal/control_regs.ts";
import { nr_cpu_ids, smp_processor_id, this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../hal/image.ts";
import { INVALIDATE_TLB_VECTOR, flush_tlb_others } from "../hal/ipi.ts";
import { array, struct } from "../hal/struct.ts";
import { invlpg, invpcid_flush_all, invpcid_flush_single_context } from "../hal/tlb.ts";
import { set_trap_gate } from "../hal/trap.ts";
import { MmStruct, type MmPtr } from "./mm_types.ts";
import { PgTables, init_mm, type PgTablesPtr } from "./pgtable.ts";

/** Pages that are flushed one by one; Linux's default. */
const tlb_single_page_flush_ceiling = 33;
/** What the CPUs are to flush: [start, end), or everything if it is empty. Whoever sends the interrupt writes it. */
const flush_tlb_info = static_data("flush_tlb_info", {
  start: "s64",
  end: "s64",
  mm: "*mm_struct", // NULL: kernel addresses
  new_tlb_gen: "u64", // of the mm
  freed_tables: "u32",
  cpus: "u32[2]",
});

const TLB_NR_DYN_ASIDS = 6;
const TlbContext = struct("tlb_context", { ctx_id: "u64", tlb_gen: "u64" });
/** What a CPU has loaded; only this CPU writes it. */
const cpu_tlbstate = per_cpu_data("cpu_tlbstate", {
  loaded_mm: "*mm_struct", // NULL: the kernel's own tables, PCID 0
  loaded_mm_asid: "u32",
  next_asid: "u32",
  is_lazy: "u32", // a kernel thread runs with the tables that were there
  pad: "u32",
  ctxs: array(TlbContext, TLB_NR_DYN_ASIDS),
});
const kern_pcid = (asid: number): number => asid + 1;
const pgd_of = (tables: PgTablesPtr): Ptr => PgTables.pgd.get(tables);

/* Kernel */

/** Makes every CPU forget what it knows of a range of kernel addresses. */
export function flush_tlb_kernel_range(start: Virt, end: Virt): void {
  set_range(start, end);
  flush_tlb_info.mm = NULL;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    flush_tlb_info.cpus.set(cpu >> 5, flush_tlb_info.cpus.get(cpu >> 5) | (1 << cpu));
  flush_tlb_func();
  flush_tlb_others(flush_tlb_info.$at("cpus"));
}

function set_range(start: Virt, end: Virt): void {
  const everything = (end - start) / PAGE_SIZE > tlb_single_page_flush_ceiling;
  flush_tlb_info.start = everything ? 0 : start;
  flush_tlb_info.end = everything ? 0 : end;
}

/** The interrupt: this CPU's part. */
function flush_tlb_func(): boolean {
  if (flush_tlb_info.mm !== NULL) return flush_user();
  const { start, end } = flush_tlb_info;
  if (start === end) invpcid_flush_all();
  for (let va = start; va < end; va += PAGE_SIZE) invlpg(va);
  return true;
}

/** Lets this realm's CPUs answer the interrupt that asks for a flush. */
export function tlb_flush_init(): void {
  set_trap_gate(INVALIDATE_TLB_VECTOR, flush_tlb_func);
}

/* Programs */

/** Makes every CPU forget what it knows of [start, end) of an address space; `freed_tables`: tables are to be freed too. */
export function flush_tlb_mm_range(mm: MmPtr, start: Virt, end: Virt, freed_tables = 0): void {
  const gen = MmStruct.tlb_gen.get(mm) + 1;
  MmStruct.tlb_gen.set(mm, gen);
  set_range(start, end);
  flush_tlb_info.mm = mm;
  flush_tlb_info.new_tlb_gen = gen;
  flush_tlb_info.freed_tables = freed_tables;
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  if (cpu_tlbstate.loaded_mm.get(state) === mm) flush_tlb_func();
  for (let i = 0; i < 2; i++) flush_tlb_info.cpus.set(i, 0);
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const wanted = mm_cpumask_has(mm, cpu) && (freed_tables !== 0 || !is_lazy(cpu));
    if (wanted) flush_tlb_info.cpus.set(cpu >> 5, flush_tlb_info.cpus.get(cpu >> 5) | (1 << cpu));
  }
  flush_tlb_others(flush_tlb_info.$at("cpus"));
}

/** The same for one page. */
export function flush_tlb_page(mm: MmPtr, va: Virt): void {
  flush_tlb_mm_range(mm, va, va + PAGE_SIZE);
}

function is_lazy(cpu: CpuId): boolean {
  return cpu_tlbstate.is_lazy.get(per_cpu_ptr(cpu_tlbstate.ptr, cpu)) !== 0;
}

/** True if a CPU may hold translations of an address space. */
export function mm_cpumask_has(mm: MmPtr, cpu: CpuId): boolean {
  return ((MmStruct.cpumask.get(mm, cpu >> 5) >>> cpu) & 1) !== 0;
}

function set_cpumask(mm: MmPtr, is_set: boolean): void {
  const [word, bit] = [smp_processor_id() >> 5, 1 << smp_processor_id()];
  const mask = MmStruct.cpumask.get(mm, word);
  MmStruct.cpumask.set(mm, word, is_set ? mask | bit : mask & ~bit);
}

function flush_user(): boolean {
  const { mm, start, end, new_tlb_gen } = flush_tlb_info;
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  if (cpu_tlbstate.loaded_mm.get(state) !== mm) set_cpumask(mm, false);
  else if (cpu_tlbstate.is_lazy.get(state)) leave_mm();
  else {
    const ctx = loaded_context();
    const [mine, current] = [TlbContext.tlb_gen.get(ctx), MmStruct.tlb_gen.get(mm)];
    if (mine >= new_tlb_gen) return true; // an older request: what it wants is done
    const in_step = new_tlb_gen === mine + 1 && new_tlb_gen === current;
    if (!in_step || start === end) invpcid_flush_single_context(kern_pcid(cpu_tlbstate.loaded_mm_asid.get(state)));
    else for (let va = start; va < end; va += PAGE_SIZE) invlpg(va);
    TlbContext.tlb_gen.set(ctx, current);
  }
  return true;
}

function loaded_context(): number {
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  return cpu_tlbstate.ctxs.at(state, cpu_tlbstate.loaded_mm_asid.get(state));
}

/** Loads the kernel's own page tables. */
function leave_mm(): void {
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  const mm = cpu_tlbstate.loaded_mm.get(state);
  if (mm === NULL) return;
  cpu_tlbstate.loaded_mm.set(state, NULL);
  cpu_tlbstate.is_lazy.set(state, 0);
  set_cpumask(mm, false);
  write_cr3_noflush(pgd_of(init_mm.tables), 0);
}

/** Gets every CPU off an address space that ends: its tables may be freed. Nobody runs in it. */
export function detach_mm(mm: MmPtr): void {
  if (cpu_tlbstate.loaded_mm.get(this_cpu_ptr(cpu_tlbstate.ptr)) === mm) leave_mm();
  flush_tlb_mm_range(mm, 0, 0, 1);
}

/** This CPU goes on with a task of this address space; NULL: a kernel thread's, that of no program. */
export function switch_mm(next: MmPtr): void {
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  if (next === NULL) return cpu_tlbstate.is_lazy.set(state, cpu_tlbstate.loaded_mm.get(state) === NULL ? 0 : 1);
  const gen = MmStruct.tlb_gen.get(next);
  cpu_tlbstate.is_lazy.set(state, 0);
  if (cpu_tlbstate.loaded_mm.get(state) === next && TlbContext.tlb_gen.get(loaded_context()) === gen) return;
  set_cpumask(next, true);
  const asid = find_asid(MmStruct.ctx_id.get(next));
  const ctx = cpu_tlbstate.ctxs.at(state, asid);
  const up_to_date = TlbContext.ctx_id.get(ctx) === MmStruct.ctx_id.get(next) && TlbContext.tlb_gen.get(ctx) === gen;
  TlbContext.ctx_id.set(ctx, MmStruct.ctx_id.get(next));
  TlbContext.tlb_gen.set(ctx, gen);
  cpu_tlbstate.loaded_mm.set(state, next);
  cpu_tlbstate.loaded_mm_asid.set(state, asid);
  const load = up_to_date ? write_cr3_noflush : write_cr3;
  load(pgd_of(MmStruct.tables.at(next)), kern_pcid(asid));
}

/** The slot in which this CPU knows an address space, or the next to be used for one. */
function find_asid(ctx_id: number): number {
  const state = this_cpu_ptr(cpu_tlbstate.ptr);
  for (let asid = 0; asid < TLB_NR_DYN_ASIDS; asid++)
    if (TlbContext.ctx_id.get(cpu_tlbstate.ctxs.at(state, asid)) === ctx_id) return asid;
  const next = cpu_tlbstate.next_asid.get(state);
  cpu_tlbstate.next_asid.set(state, (next + 1) % TLB_NR_DYN_ASIDS);
  return next;
}
