/** Programs that use memory: cowtest, memhog [MB], and usertests, which tries what programs should not get away with. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { PAGE_OFFSET } from "../../mm/kernel_map.ts";
import { STACK_LIMIT, STACK_TOP } from "../../mm/mm_types.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ } from "../../mm/mmap.ts";
import { EFAULT, ENOMEM } from "../lib/errno.ts";
import { program } from "../program.ts";
import { SIGSEGV } from "../signal.ts";
import type { Sys, SystemCall } from "../syscall.ts";
import { u } from "../user_memory.ts";

const MIB = 1 << 20;

// Parent and child write to the same page after a fork, and each reads what it wrote.
program("cowtest", function* (sys, pages = 16) {
  const va: number = yield sys.mmap(pages * PAGE_SIZE);
  for (let i = 0; i < pages; i++) u.store32(va + i * PAGE_SIZE, i);
  const pid: number = yield sys.fork();
  const mine = pid === 0 ? 1000 : 2000;
  for (let i = 0; i < pages; i += 2) u.store32(va + i * PAGE_SIZE, mine + i);
  let wrong = 0;
  for (let i = 0; i < pages; i++) if (u.load32(va + i * PAGE_SIZE) !== (i % 2 === 0 ? mine + i : i)) wrong++;
  if (pid === 0) return wrong;
  const { status }: { status: number } = yield sys.wait(pid);
  yield sys.syslog(
    wrong + status === 0 ? `${pages} pages, each process read its own` : "a process read the other's page",
  );
  return wrong + status === 0 ? 0 : 1;
});

// Takes memory, a MiB at a time, and keeps it: so much, or all there is.
program("memhog", function* (sys, mib?: number) {
  for (let taken = 0; mib === undefined || taken < mib; taken++) {
    const va: number = yield sys.mmap(MIB);
    if (va < 0) return 1;
    u.memset(va, 0x55, MIB);
  }
  yield sys.syslog(`${mib} MiB filled`);
  return 0;
});

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what `yield` gives
type Steps = Generator<SystemCall, number | void, any>;
interface UserTest {
  readonly name: string;
  /** Runs in a child; ends with 0 if all is well. */
  readonly body: (sys: Sys) => Steps;
  /** What the child is to end with. */
  readonly status?: number;
}

/** Runs `body` in a child and returns its status. */
function* in_child(sys: Sys, body: (sys: Sys) => Steps): Generator<SystemCall, number, unknown> {
  const pid = (yield sys.fork()) as number;
  if (pid < 0) return pid;
  if (pid === 0) yield sys.exit(((yield* body(sys)) as number | undefined) ?? 0);
  return ((yield sys.wait(pid)) as { status: number }).status;
}

const TESTS: readonly UserTest[] = Object.freeze([
  {
    name: "a page made read-only cannot be written to",
    status: SIGSEGV,
    *body(sys): Steps {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.store32(va, 1);
      yield sys.mprotect(va, PAGE_SIZE, PROT_READ);
      u.store32(va, 2);
    },
  },
  {
    name: "kernel memory cannot be read, at 40 addresses",
    *body(sys): Steps {
      let lived = 0;
      for (let i = 0; i < 40; i++) {
        const status = yield* in_child(sys, function* (): Steps {
          u.load8(PAGE_OFFSET + i * 50_000);
        });
        if (status !== SIGSEGV) lived++;
      }
      return lived;
    },
  },
  {
    name: "a stack does not grow without end",
    status: SIGSEGV,
    *body(sys): Steps {
      u.store8(STACK_TOP - STACK_LIMIT, 1);
      yield sys.getpid();
      u.store8(STACK_TOP - STACK_LIMIT - 1, 1);
    },
  },
  {
    name: "the heap grows byte by byte",
    *body(sys): Steps {
      const start: number = yield sys.brk();
      for (let i = 0; i < 5000; i++) {
        if ((yield sys.sbrk(1)) !== start + i) return 1;
        u.store8(start + i, i);
      }
      return 0;
    },
  },
  {
    name: "the heap shrinks to nothing, into its first page, and by less than a page",
    *body(sys): Steps {
      const start: number = yield sys.brk();
      yield sys.sbrk(10 * PAGE_SIZE);
      u.memset(start, 1, 10 * PAGE_SIZE);
      yield sys.sbrk(-100);
      u.store8(start + 10 * PAGE_SIZE - 101, 2);
      yield sys.brk(start + 100);
      u.store8(start + 99, 2);
      yield sys.brk(start);
      return (yield sys.brk()) === start && (yield sys.brk(0)) === start ? 0 : 1;
    },
  },
  {
    name: "what was the heap is not there any more",
    status: SIGSEGV,
    *body(sys): Steps {
      const start: number = yield sys.sbrk(PAGE_SIZE);
      u.store8(start, 1);
      yield sys.brk(start);
      u.load8(start);
    },
  },
  {
    name: "a string that runs over the end of memory, or starts nowhere, is an error",
    *body(sys): Steps {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.memset(va, 0x78, PAGE_SIZE);
      yield sys.munmap(va + PAGE_SIZE, PAGE_SIZE);
      for (const bad of [va + PAGE_SIZE - 10, 0, 0xdeadbeef, PAGE_OFFSET, 0xeaeb0b5b00002f5e, -1, 2 ** 47, 1.5])
        for (const call of [sys.open(bad), sys.unlink(bad), sys.mkdir(bad), sys.exec(bad)])
          if ((yield call) !== -EFAULT) return 1;
      u.store_string(va, "/tmp/named_in_memory");
      return (yield sys.mkdir(va)) === 0 && (yield sys.rmdir("/tmp/named_in_memory")) === 0 ? 0 : 2;
    },
  },
  {
    name: "more memory than there is cannot be had, and a page can be had after that",
    *body(sys): Steps {
      if ((yield sys.sbrk(2 ** 40)) !== -ENOMEM || (yield sys.mmap(2 ** 40)) !== -ENOMEM) return 1;
      const va: number = yield sys.sbrk(PAGE_SIZE);
      u.store8(va, 1);
      return 0;
    },
  },
  {
    name: "fork until it fails: each child is reaped once",
    *body(sys): Steps {
      let [forked, reaped] = [0, 0];
      for (; forked < 1000; forked++) {
        const pid: number = yield sys.fork();
        if (pid === 0) return 0;
        if (pid < 0) break;
      }
      while (typeof (yield sys.wait()) === "object") reaped++;
      return forked > 0 && forked < 1000 && reaped === forked ? 0 : 1;
    },
  },
  {
    name: "after a fork each has its own memory",
    *body(sys): Steps {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.store32(va, 1);
      const status = yield* in_child(sys, function* (): Steps {
        u.store32(va, 2);
        return u.load32(va) === 2 ? 0 : 1;
      });
      return status === 0 && u.load32(va) === 1 ? 0 : 1;
    },
  },
  {
    name: "data cannot be run",
    status: SIGSEGV,
    *body(sys): Steps {
      const flags = MAP_PRIVATE | MAP_ANONYMOUS;
      u.exec(yield sys.mmap(PAGE_SIZE, PROT_READ | PROT_EXEC, flags));
      u.exec(yield sys.mmap(PAGE_SIZE, PROT_READ, flags));
    },
  },
]);

// What xv6's program of this name tries, as far as it is about memory.
program("usertests", function* (sys) {
  let failed = 0;
  for (const { name, body, status = 0 } of TESTS) {
    const ended = yield* in_child(sys, body);
    if (ended !== status) failed++;
    yield sys.syslog(`${ended === status ? "ok" : `FAILED (${ended})`}: ${name}`);
  }
  yield sys.syslog(failed === 0 ? "ALL TESTS PASSED" : `${failed} FAILED`);
  return failed;
});
