/** What becomes of a bad memory access in the kernel: Linux's oops, the task dies, the rest goes on. */
import { describe, expect, it } from "vitest";
import { read_cr3 } from "../../hal/control_regs.ts";
import { mmu_fetch, mmu_load32, mmu_store32 } from "../../hal/mmu.ts";
import { clac, stac } from "../../hal/privilege.ts";
import { ram32 } from "../../hal/ram.ts";
import { Trap } from "../../hal/trap.ts";
import { set_user_fault_handler, trap_lines } from "../../kernel/fault.ts";
import { SIGKILL, SIGSEGV } from "../../kernel/signal.ts";
import { events } from "../../hal/events.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { CRASH_POINTS, lkdtm } from "../../kernel/lkdtm.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { tasklist } from "../../kernel/task.ts";
import { u } from "../../kernel/user_memory.ts";
import { PAGE_KERNEL, PAGE_KERNEL_RO, _PAGE_NX, pte_offset, init_mm, ptep_set_flags } from "../../mm/pgtable.ts";
import { ptr_to_virt } from "../../mm/kernel_map.ts";
import { page_address } from "../../mm/page.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE } from "../../mm/mmap.ts";
import { flush_tlb_kernel_range } from "../../mm/tlbflush.ts";
import { vfree, vmalloc, vmap, vunmap } from "../../mm/vmalloc.ts";
import { with_machine } from "../lib/machine.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

const quiet = test_init("t_quiet", function* () {});
const handled = { calls: 0 };
const user_handler = ksym("t_user_fault", () => {
  handled.calls++;
  return false;
});

function thrown(fn: () => unknown): Trap {
  try {
    fn();
  } catch (error) {
    if (error instanceof Trap) return error;
  }
  throw new Error("no trap");
}

/** What a careless system call does with a pointer of its caller's, by number. */
const CARELESS: readonly ((va: number) => unknown)[] = [mmu_load32, (va) => mmu_store32(va, 1), mmu_fetch];
register_syscall("t_careless", "nn", (what: number, va: number) => Number(CARELESS[what]!(va)));

// One child a call: each reads, writes or runs its own page, then address 16, through the kernel.
const careless = test_init("t_careless", function* (sys) {
  const all = PROT_READ | PROT_WRITE | PROT_EXEC;
  const va: number = yield sys.mmap(4096, all, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0x40000000);
  u.store32(va, 1);
  for (const address of [va, 16])
    for (const what of CARELESS.keys()) {
      if ((yield sys.fork()) === 0) yield { call: "t_careless", args: [what, address] };
      else yield sys.syslog(`${((yield sys.wait()) as { status: number }).status} ${u.load32(va)}`);
      if ((yield sys.getpid()) !== 1) return 1;
    }
});

/** The oops that a crash point leads to, line by line, figures of this run taken out. */
function oops_of(name: string): string[] {
  let lines: string[] = [];
  with_tasks(quiet, () => {
    const before = log().length;
    const threads = tasklist.nr_threads;
    let code: number | undefined;
    const listener = (exit: { code: number }): void => void (code = exit.code);
    events.on("task:exit", listener);
    expect(lkdtm(name)).toBe(0);
    schedule_entries(50);
    events.off("task:exit", listener);
    expect(tasklist.nr_threads).toBe(threads); // the thread is gone, all others are there
    expect(code! & 0x7f).toBe(name.includes("CANONICAL") || name === "BUG" ? SIGSEGV : SIGKILL);
    lines = log().slice(before);
  });
  return lines.map((line) =>
    line
      .replace(/PID: \d+/, "PID: N")
      .replace(/^CPU: \d/, "CPU: C")
      .replace(/\.ts:\d+/g, ".ts:L")
      .replace(/(CR3: )[0-9a-f]{16}/, "$1TABLE")
      .replace(/\b[0-9a-f]+063\b/g, "T063"),
  );
}

describe("an oops", () => {
  it("of a store behind a vmalloc area has Linux's lines", () => {
    const lines = oops_of("VMALLOC_LINEAR_OVERFLOW");
    const [rip, regs] = [lines[7], lines.slice(8, 10)];
    expect(rip).toMatch(/^RIP: 0010:\S+ \[kernel\/lkdtm\.ts:L\]$/);
    expect(lines.slice(0, 12)).toEqual([
      "BUG: unable to handle page fault for address: ffffc90000001000",
      "#PF: supervisor write access in kernel mode",
      "#PF: error_code(0x0002) - not-present page",
      "PGD T063 P4D T063 PUD T063 PMD T063 PTE 0",
      "Oops: Oops: 0002 [#1] SMP NOPTI",
      "CPU: C UID: 0 PID: N Comm: lkdtm Not tainted 0.1.0 #1",
      "Hardware name: kheap emulated x86-64",
      rip,
      "CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080010001",
      "CR2: ffffc90000001000 CR3: TABLE CR4: 00000000003200a0",
      "Call Trace:",
      " <TASK>",
    ]);
    const end = lines.indexOf(" </TASK>");
    expect(lines.slice(end + 1)).toEqual(["Modules linked in:", "CR2: ffffc90000001000", "---[ end trace 0000000000000000 ]---", rip, ...regs]); // prettier-ignore
    expect(lines.slice(12, end).every((line) => /^ \S+ \[(kernel|mm|test)\/\S+\.ts:L\]$/.test(line))).toBe(true);
  });

  it.each([
    ["ACCESS_NULL", ["BUG: kernel NULL pointer dereference, address: 0000000000000010", "#PF: supervisor read access in kernel mode", "#PF: error_code(0x0000) - not-present page", "PGD 0 P4D 0 ", "Oops: Oops: 0000 [#1] SMP NOPTI"]],
    ["EXEC_NULL", ["BUG: kernel NULL pointer dereference, address: 0000000000000000", "#PF: supervisor instruction fetch in kernel mode", "#PF: error_code(0x0010) - not-present page", "PGD 0 P4D 0 ", "Oops: Oops: 0010 [#1] SMP NOPTI"]],
    ["ACCESS_USERSPACE", ["BUG: unable to handle page fault for address: 0000000000400000", "#PF: supervisor read access in kernel mode"]],
    ["WRITE_KERN", ["BUG: unable to handle page fault for address: ffffffff81000000", "#PF: supervisor write access in kernel mode", "#PF: error_code(0x0003) - permissions violation", "PGD T063 P4D T063 PUD T063 PMD T063 PTE 100121", "Oops: Oops: 0003 [#1] SMP NOPTI"]],
    ["EXEC_DATA", ["kernel tried to execute NX-protected page - exploit attempt? (uid: 0)", "BUG: unable to handle page fault for address: ffffffff81020000", "#PF: supervisor instruction fetch in kernel mode", "#PF: error_code(0x0011) - permissions violation"]],
    ["ACCESS_NON_CANONICAL", ["Oops: general protection fault, probably for non-canonical address 0x1000000000000000: 0000 [#1] SMP NOPTI", "CPU: C UID: 0 PID: N Comm: lkdtm Not tainted 0.1.0 #1"]],
  ])("of %s", (name, first) => {
    expect(oops_of(name).slice(0, first.length)).toEqual(first);
  }); // prettier-ignore

  it("in a system call kills its caller, and says why: SMAP, SMEP, NULL", () => {
    with_tasks(careless, () => {
      expect(reports()).toEqual(Array(6).fill(`${SIGKILL} 1`));
      const said = log().filter((line) => /^(BUG|#PF|unable|kernel tried|Oops)/.test(line));
      const oops = (
        address: string,
        access: string,
        code: string,
        why: string,
        nr: number,
        first: string[] = [],
      ): string[] => [
        ...first,
        `BUG: ${address}`,
        `#PF: supervisor ${access} in kernel mode`,
        `#PF: error_code(0x${code}) - ${why}`,
        `Oops: Oops: ${code} [#${nr}] SMP NOPTI`,
      ];
      const page = "unable to handle page fault for address: 0000000040000000";
      const null_page = "kernel NULL pointer dereference, address: 0000000000000010";
      const [denied, absent] = ["permissions violation", "not-present page"];
      expect(said).toEqual([
        ...oops(page, "read access", "0001", denied, 1),
        ...oops(page, "write access", "0003", denied, 2),
        ...oops(page, "instruction fetch", "0011", denied, 3, ["unable to execute userspace code (SMEP?) (uid: 0)"]),
        ...oops(null_page, "read access", "0000", absent, 4),
        ...oops(null_page, "write access", "0002", absent, 5),
        ...oops(null_page, "instruction fetch", "0010", absent, 6),
      ]);
    });
  });

  it("of an entry with a reserved bit says so", () => {
    with_machine({}, () => {
      const addr = vmalloc(4096);
      const high = pte_offset(init_mm.tables, addr, 1) + 4;
      mmu_store32(addr, 1);
      ram32[high >> 2] = ram32[high >> 2]! | (1 << 10); // bit 42
      flush_tlb_kernel_range(addr, addr + 4096);
      const trap = thrown(() => mmu_load32(addr));
      expect(trap_lines(trap, 1).slice(0, 3)).toEqual([
        "BUG: unable to handle page fault for address: ffffc90000000000",
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0009) - reserved bit violation",
      ]);
      ram32[high >> 2] = ram32[high >> 2]! & ~(1 << 10);
      vfree(addr);
    });
  });

  it("comes of every crash point, and nothing is lost by it", () => {
    with_tasks(quiet, () => {
      for (const name of Object.keys(CRASH_POINTS)) expect(lkdtm(name)).toBe(0);
      schedule_entries(200);
      const oopses = log().flatMap((line) => /^Oops: .*\[#(\d+)\]/.exec(line)?.[1] ?? []);
      expect(oopses).toEqual(Object.keys(CRASH_POINTS).map((_, i) => String(i + 1)));
    });
  });
});

describe("a page fault", () => {
  it("of a right that the tables have got meanwhile is no fault", () => {
    with_machine({}, () => {
      const page = alloc_pages(GFP_KERNEL, 0);
      const addr = vmap([page], PAGE_KERNEL_RO);
      expect(mmu_load32(addr)).toBeTypeOf("number");
      ptep_set_flags(pte_offset(init_mm.tables, addr, 1), PAGE_KERNEL & ~_PAGE_NX);
      mmu_store32(addr, 5); // widened, and the TLB was not told
      expect(mmu_load32(ptr_to_virt(page_address(page)))).toBe(5);
      vunmap(addr);
      __free_pages(page, 0);
      expect(read_cr3() % 4096).toBe(0);
    });
  });

  it("at a user address asks who knows of these only if the kernel said that it goes there", () => {
    with_machine({}, () => {
      set_user_fault_handler(user_handler);
      handled.calls = 0;
      expect(() => mmu_load32(0x400000)).toThrow(Trap);
      expect(handled.calls).toBe(0);
      stac();
      expect(() => mmu_load32(0x400000)).toThrow(Trap);
      clac();
      expect(handled.calls).toBe(1);
      expect(() => mmu_load32(-4096)).toThrow(Trap);
      expect(handled.calls).toBe(1);
    });
  });
});
