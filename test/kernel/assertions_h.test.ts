/**
 * What programs must not get away with, and what every one of them gives back: after each the machine has as many live
 * objects of every cache, page tables, mapped pages and free pages as before it.
 *
 * A115, page tables against other MMUs, is in test/hal/mmu.test.ts, test/mm/pgtable.test.ts and test/boot/mmu_moments.test.ts.
 * Five-level page tables are left out.
 */
import { describe, expect, it } from "vitest";
import { compare_figures, take_figures } from "../../boot/start_kernel.ts";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { events } from "../../hal/events.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { EAGAIN, ECHILD, EFAULT, ENOMEM, is_err } from "../../kernel/lib/errno.ts";
import { schedule_until } from "../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { program, spawn, type ProgramFn } from "../../kernel/program.ts";
import { SIGSEGV } from "../../kernel/signal.ts";
import { register_syscall, type Sys, type SystemCall } from "../../kernel/syscall.ts";
import { Journal, TaskStruct, current_task } from "../../kernel/task.ts";
import { u } from "../../kernel/user_memory.ts";
import { PAGE_OFFSET } from "../../mm/kernel_map.ts";
import { MmStruct, STACK_GUARD_GAP, STACK_LIMIT, STACK_TOP } from "../../mm/mm_types.ts";
import { MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE } from "../../mm/mmap.ts";
import { Page } from "../../mm/page.ts";
import { PG_LEVEL_4K, pte_offset, pte_page } from "../../mm/pgtable.ts";
import { NR_ANON_MAPPED, NR_PAGETABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { log, test_init, with_tasks } from "./tasks.ts";

const ENTRIES = 500_000;
const FLAGS = MAP_PRIVATE | MAP_ANONYMOUS;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what `yield` gives
type Steps = Generator<SystemCall, number | void, any>;

/** References and mappings (page_type + 1) of the page at an address of the caller's. */
register_syscall("t_page_counts", "n", (va: number) => {
  const tables = MmStruct.tables.at(TaskStruct.mm.get(current_task()));
  const page = pte_page(pte_offset(tables, va, PG_LEVEL_4K));
  return [Page.refcount.get(page), Page.page_type.get(page) + 1];
});

/** A child that does `body`: the status that it ends with. */
function* child(sys: Sys, body: () => Steps): Generator<SystemCall, number, unknown> {
  const pid = (yield sys.fork()) as number;
  if (pid === 0) yield sys.exit(((yield* body()) as number | undefined) ?? 0);
  return ((yield sys.wait(pid)) as { status: number }).status;
}

const quiet = test_init("t_h_quiet", function* () {});

/** Runs a program as a child of init, on a machine of its own. Its status; fails if anything is not given back. */
function status_of(name: string): number {
  return with_tasks(quiet, () => {
    const init = find_task_by_pid(1);
    const state = (): number[] => [NR_PAGETABLE, NR_ANON_MAPPED].map((item) => global_node_page_state(item));
    const journal_pages = (): number => Journal.nr_pages.get(TaskStruct.journal.at(init));
    let [pid, status] = [0, -1];
    const note = (exit: { pid: number; code: number }): void => void (exit.pid === pid && (status = exit.code));
    const [before, pages, journal] = [take_figures(), state(), journal_pages()];
    events.on("task:exit", note);
    kernel_entry("host", () => {
      const task = spawn(init, name, []);
      if (!is_err(task)) pid = TaskStruct.pid.get(task);
    });
    expect(schedule_until(() => status >= 0 && find_task_by_pid(pid) === 0, ENTRIES)).toBe(true);
    events.off("task:exit", note);
    const left = compare_figures(before, take_figures());
    expect(state()).toEqual(pages);
    expect({ ...left, pages: left.pages - (journal_pages() - journal) }).toEqual({ pages: 0, objects: 0, locks: 0, details: [] }); // prettier-ignore
    return status;
  });
}

/** A test: the program ends with 0, and finds nothing wrong. */
function h(number: string, what: string, body: ProgramFn, also?: () => void): void {
  const name = `t_${number.toLowerCase()}`;
  program(name, body);
  it(`${number}: ${what}`, () => {
    const ended = status_of(name);
    expect([ended, log().filter((line) => line.startsWith(`${name}[`) && line.includes("wrong"))]).toEqual([0, []]);
    also?.();
  });
}
const faults = (code: number): number => log().filter((line) => line.includes(` error ${code} `)).length;

describe("user memory", () => {
  h(
    "A117",
    "a store to a read-only page, or to user text, kills with present, write and user set",
    function* (sys): Steps {
      const page: number = yield sys.mmap(PAGE_SIZE);
      u.store32(page, 1);
      yield sys.mprotect(page, PAGE_SIZE, PROT_READ);
      const text: number = yield sys.mmap(PAGE_SIZE, PROT_READ | PROT_EXEC, FLAGS);
      u.exec(text);
      let survived = 0;
      for (const va of [page, text]) {
        const status = yield* child(sys, function* (): Steps {
          u.load32(va); // it is present
          u.store32(va, 2);
        });
        if (status !== SIGSEGV) survived++;
      }
      return survived + (u.load32(page) === 1 ? 0 : 1);
    },
    () => expect(faults(7)).toBe(2),
  );

  h(
    "A119",
    "a load of a kernel page, at 40 addresses 50,000 bytes apart, kills each time, and the rest lives on",
    function* (sys): Steps {
      let survived = 0;
      for (let i = 0; i < 40; i++) {
        const status = yield* child(sys, function* (): Steps {
          u.load8(PAGE_OFFSET + i * 50_000);
        });
        if (status !== SIGSEGV) survived++;
      }
      return survived;
    },
    () => expect(faults(5)).toBe(40),
  );

  h("A121", "below the stack, and below what it may grow to above an area, nothing is mapped", function* (sys): Steps {
    const area = STACK_TOP - STACK_LIMIT / 2;
    const dies = function* (va: number, map: boolean): Steps {
      if (map) yield sys.mmap(PAGE_SIZE, PROT_READ | PROT_WRITE, FLAGS | MAP_FIXED, area - PAGE_SIZE);
      const lowest = map ? area + STACK_GUARD_GAP : STACK_TOP - STACK_LIMIT;
      u.store8(lowest, 1);
      if (u.load8(lowest) !== 1) yield sys.syslog("wrong: the stack does not hold");
      yield sys.getpid();
      u.store8(va, 1);
    };
    const deepest = yield* child(sys, () => dies(STACK_TOP - STACK_LIMIT - 1, false));
    const above_area = yield* child(sys, () => dies(area + STACK_GUARD_GAP - 1, true));
    return deepest === SIGSEGV && above_area === SIGSEGV ? 0 : 1;
  });

  h("A123", "the heap grows byte by byte 5000 times: each returns the old end and is writable", function* (sys): Steps {
    const start: number = yield sys.brk();
    for (let i = 0; i < 5000; i++) {
      if ((yield sys.sbrk(1)) !== start + i) return 1;
      u.store8(start + i, i);
    }
    for (let i = 0; i < 5000; i++) if (u.load8(start + i) !== (i & 0xff)) return 2;
  });

  h("A125", "the heap shrinks to zero, to inside its first page, by less than a page", function* (sys): Steps {
    const start: number = yield sys.brk();
    for (const left of [0, 100, 10 * PAGE_SIZE - 100]) {
      yield sys.sbrk(10 * PAGE_SIZE);
      u.memset(start, 1, 10 * PAGE_SIZE);
      if ((yield sys.brk(start + left)) !== start + left) return 1;
      const behind = start + Math.ceil(left / PAGE_SIZE) * PAGE_SIZE;
      const status = yield* child(sys, function* (): Steps {
        u.load8(behind);
      });
      if (status !== SIGSEGV) return 2;
      yield sys.brk(start);
    }
  });

  h(
    "A127",
    "a string that runs over the end of memory, or a pointer that is none, is an error",
    function* (sys): Steps {
      const va: number = yield sys.mmap(2 * PAGE_SIZE);
      u.memset(va, 0x61, 2 * PAGE_SIZE);
      yield sys.munmap(va + PAGE_SIZE, PAGE_SIZE);
      for (const bad of [va + PAGE_SIZE - 1, va + 1, 0xeaeb0b5b00002f5e, 0, PAGE_OFFSET, 2 ** 47 - PAGE_SIZE])
        for (const call of [sys.open(bad), sys.unlink(bad), sys.mkdir(bad), sys.exec(bad)])
          if ((yield call) !== -EFAULT) return 1;
      u.store_string(va + PAGE_SIZE - 5, "/abc");
      return (yield sys.mkdir(va + PAGE_SIZE - 5)) === 0 && (yield sys.rmdir("/abc")) === 0 ? 0 : 2;
    },
  );

  h("A129", "growth by more than memory is an error, and a single page can be had right after", function* (sys): Steps {
    const start: number = yield sys.brk();
    for (const more of [2 ** 46, 2 ** 40, 2 ** 32, 100 * 2 ** 20]) if ((yield sys.sbrk(more)) !== -ENOMEM) return 1;
    if ((yield sys.brk()) !== start || (yield sys.mmap(2 ** 40)) !== -ENOMEM) return 2;
    u.store8(yield sys.sbrk(PAGE_SIZE), 1);
    u.store8(yield sys.mmap(PAGE_SIZE), 1);
  });

  h("A131", "fork until it fails: fewer than 1000, each reaped once, one wait more fails", function* (sys): Steps {
    u.store8(yield sys.mmap(PAGE_SIZE), 1);
    const pids = new Set<number>();
    for (let pid = 1; pid > 0;) {
      pid = yield sys.fork();
      if (pid === 0) return 0;
      if (pid > 0) pids.add(pid);
      else if (pid !== -EAGAIN && pid !== -ENOMEM) return 1;
    }
    const made = pids.size;
    for (let i = 0; i < made; i++) if (!pids.delete((yield sys.wait()).pid)) return 2;
    return made > 0 && made < 1000 && (yield sys.wait()) === -ECHILD ? 0 : 3;
  });

  h("A133", "exec with an invalid pointer 50,000 times", function* (sys): Steps {
    const [children, times] = [10, 5000]; // a journal has no room for 50,000 answers
    u.store8(yield sys.mmap(PAGE_SIZE), 1);
    for (let i = 0; i < children; i++) {
      const status = yield* child(sys, function* (): Steps {
        for (let n = 0; n < times; n++) if ((yield sys.exec(0xeaeb0b5b00002f5e)) !== -EFAULT) return 1;
      });
      if (status !== 0) return 1;
    }
  });

  h(
    "A135",
    "a write in the child copies: the parent's page is unchanged, and its counts are 1 again",
    function* (sys): Steps {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.store32(va, 1);
      const counts = (): SystemCall => ({ call: "t_page_counts", args: [va] });
      const expect_counts = function* (n: number): Steps {
        const found: number[] = yield counts();
        if (found.join() !== `${n},${n}`) yield sys.syslog(`wrong: ${found.join()}, not ${n}`);
      };
      yield* expect_counts(1);
      const pid: number = yield sys.fork();
      if (pid === 0) {
        yield* expect_counts(2);
        u.store32(va, 2);
        yield* expect_counts(1);
        return u.load32(va) === 2 ? 0 : 1;
      }
      const { status }: { status: number } = yield sys.wait(pid);
      yield* expect_counts(1);
      return status === 0 && u.load32(va) === 1 ? 0 : 1;
    },
  );
});
