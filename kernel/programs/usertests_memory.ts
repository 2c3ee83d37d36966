/** usertests: memory, and addresses that are none. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { PAGE_OFFSET } from "../../mm/kernel_map.ts";
import { STACK_LIMIT, STACK_TOP } from "../../mm/mm_types.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ } from "../../mm/mmap.ts";
import { O_CREAT, O_RDWR } from "../fs/fs.ts";
import { EFAULT, ENOMEM, ERANGE } from "../lib/errno.ts";
import { SIGSEGV } from "../signal.ts";
import { u } from "../user_memory.ts";
import type { Steps } from "./lib.ts";
import { in_child, status_of, type UserTest } from "./usertests_lib.ts";

/** Addresses at which a program has nothing. */
const BAD: readonly number[] = Object.freeze([
  0,
  0xdeadbeef,
  PAGE_OFFSET,
  0xeaeb0b5b00002f5e,
  -1,
  2 ** 47,
  2 ** 60,
  1.5,
]);

export const MEMORY_TESTS: readonly UserTest[] = Object.freeze([
  {
    name: "a page made read-only cannot be written to",
    status: SIGSEGV,
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.store32(va, 1);
      yield sys.mprotect(va, PAGE_SIZE, PROT_READ);
      u.store32(va, 2);
      return 1;
    },
  },
  {
    name: "kernel memory cannot be read, at 40 addresses",
    *body(sys): Steps<number> {
      let lived = 0;
      for (let i = 0; i < 40; i++) {
        const status = yield* in_child(sys, function* (): Steps<number> {
          return u.load8(PAGE_OFFSET + i * 50_000);
        });
        if (status !== SIGSEGV) lived++;
      }
      return lived;
    },
  },
  {
    name: "a stack does not grow without end",
    status: SIGSEGV,
    *body(sys): Steps<number> {
      u.store8(STACK_TOP - STACK_LIMIT, 1);
      yield sys.getpid();
      u.store8(STACK_TOP - STACK_LIMIT - 1, 1);
      return 1;
    },
  },
  {
    name: "the heap grows byte by byte",
    *body(sys): Steps<number> {
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
    *body(sys): Steps<number> {
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
    *body(sys): Steps<number> {
      const start: number = yield sys.sbrk(PAGE_SIZE);
      u.store8(start, 1);
      yield sys.brk(start);
      return u.load8(start);
    },
  },
  {
    name: "a string that runs over the end of memory, or starts nowhere, is an error",
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.memset(va, 0x78, PAGE_SIZE);
      yield sys.munmap(va + PAGE_SIZE, PAGE_SIZE);
      for (const bad of [va + PAGE_SIZE - 10, ...BAD])
        for (const call of [
          sys.open(bad),
          sys.unlink(bad),
          sys.mkdir(bad),
          sys.rmdir(bad),
          sys.exec(bad),
          sys.chdir(bad),
          sys.stat(bad),
          sys.lstat(bad),
          sys.readdir(bad),
          sys.readlink(bad),
          sys.link(bad, "x"),
          sys.link("x", bad),
          sys.symlink(bad, "x"),
          sys.rename(bad, "x"),
        ])
          // prettier-ignore
          if ((yield call) !== -EFAULT) return 1;
      u.store_string(va, "/tmp/named_in_memory");
      return (yield sys.mkdir(va)) === 0 && (yield sys.rmdir("/tmp/named_in_memory")) === 0 ? 0 : 2;
    },
  },
  {
    name: "more memory than there is cannot be had, and a page can be had after that",
    *body(sys): Steps<number> {
      if ((yield sys.sbrk(2 ** 40)) !== -ENOMEM || (yield sys.mmap(2 ** 40)) !== -ENOMEM) return 1;
      const va: number = yield sys.sbrk(PAGE_SIZE);
      u.store8(va, 1);
      return 0;
    },
  },
  {
    name: "after a fork each has its own memory",
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.store32(va, 1);
      const status = yield* in_child(sys, function* (): Steps<number> {
        u.store32(va, 2);
        return u.load32(va) === 2 ? 0 : 1;
      });
      return status === 0 && u.load32(va) === 1 ? 0 : 1;
    },
  },
  {
    name: "data cannot be run",
    status: SIGSEGV,
    *body(sys): Steps<number> {
      const flags = MAP_PRIVATE | MAP_ANONYMOUS;
      u.exec(yield sys.mmap(PAGE_SIZE, PROT_READ | PROT_EXEC, flags));
      u.exec(yield sys.mmap(PAGE_SIZE, PROT_READ, flags));
      return 1;
    },
  },
  {
    name: "bad addresses in read, write, pipe, stat, getcwd are errors, and lose nothing",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      const fd: number = yield sys.open("f", O_CREAT | O_RDWR);
      yield sys.write(fd, "0123456789");
      yield sys.write(to, "kept");
      for (const bad of BAD) {
        yield sys.lseek(fd, 0);
        for (const call of [
          sys.read(fd, bad, 10),
          sys.read(from, bad, 4),
          sys.write(fd, bad, 10),
          sys.write(to, bad, 4),
          sys.stat("f", bad),
          sys.fstat(fd, bad),
          sys.getcwd(bad, 100),
          sys.read(fd, bad, 2 ** 50),
        ])
          // prettier-ignore
          if ((yield call) !== -EFAULT) return 1;
        if (bad !== 0 && (yield sys.pipe(bad)) !== -EFAULT) return 2;
      }
      if ((yield sys.getcwd(yield sys.sbrk(100), 3)) !== -ERANGE) return 3;
      if ((yield sys.read(fd, 100)) !== "0123456789" || (yield sys.read(from, 100)) !== "kept") return 4;
      return yield sys.unlink("f");
    },
  },
  {
    name: "a buffer that ends in nothing is filled and read as far as it goes",
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(2 * PAGE_SIZE);
      yield sys.munmap(va + PAGE_SIZE, PAGE_SIZE);
      const [from, to]: [number, number] = yield sys.pipe();
      u.memset(va, 0x61, PAGE_SIZE);
      if ((yield sys.write(to, va + PAGE_SIZE - 6, 100)) !== 6) return 1;
      yield sys.write(to, "bcdefg");
      if ((yield sys.read(from, va + PAGE_SIZE - 10, 100)) !== 10) return 2;
      if ((yield sys.read(from, 100)) !== "fg") return 3;
      return u.look(va + PAGE_SIZE - 10, 10, (bytes) => String.fromCharCode(...bytes)) === "aaaaaabcde" ? 0 : 4;
    },
  },
  {
    name: "the kernel's writes copy shared pages too, and never touch read-only ones",
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(PAGE_SIZE);
      u.memset(va, 1, PAGE_SIZE);
      const [from, to]: [number, number] = yield sys.pipe();
      yield sys.write(to, "two words");
      const pid: number = yield sys.fork();
      if (pid === 0) return (yield sys.read(from, va, 3)) === 3 && u.load8(va) === 0x74 ? 0 : 1;
      if ((yield* status_of(sys, pid)) !== 0 || u.load8(va) !== 1) return 1;
      yield sys.mprotect(va, PAGE_SIZE, PROT_READ);
      if ((yield sys.read(from, va, 3)) !== -EFAULT || u.load8(va) !== 1) return 2;
      return (yield sys.write(to, va, 3)) === 3 ? 0 : 3;
    },
  },
]);
