/** Programs and their memory: faults, what is journalled, what fork shares. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { O_APPEND, O_CREAT, O_RDWR } from "../../kernel/fs/fs.ts";
import { EFAULT } from "../../kernel/lib/errno.ts";
import { register_syscall, system_call } from "../../kernel/syscall.ts";
import { PROT_EXEC, PROT_READ } from "../../mm/mmap.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { forget_programs, program } from "../../kernel/program.ts";
import { SIGABRT, SIGKILL, SIGSEGV, SIGXCPU } from "../../kernel/signal.ts";
import { u } from "../../kernel/user_memory.ts";
import { NR_ANON_MAPPED, PGFAULT, all_vm_events, global_node_page_state } from "../../mm/vmstat.ts";
import { cat } from "./fs/files.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

/** Starts `name` as a child, with /tmp/out for its output, and reports its status. */
const runs = (name: string, ...args: string[]) =>
  test_init(`t_runs_${name}`, function* (sys) {
    if ((yield sys.fork()) === 0) {
      for (let fd = 0; fd < 3; fd++) yield sys.open("/tmp/out", O_CREAT | O_RDWR | O_APPEND);
      yield sys.exec(name, ...args);
      return 1;
    }
    const { status }: { status: number } = yield sys.wait();
    yield sys.syslog(`${status}`);
  });
const cowtest = runs("cowtest");
const hog = runs("memhog");

register_syscall("t_bad_exec", "n", (times: number) => {
  let refused = 0;
  for (let i = 0; i < times; i++) if (system_call("exec", [0xeaeb0b5b00002f5e]) === -EFAULT) refused++;
  return refused;
});
const bad_exec = test_init("t_bad_exec", function* (sys) {
  const va: number = yield sys.mmap(PAGE_SIZE);
  u.memset(va, 0x61, PAGE_SIZE); // "aaa…" up to the end of memory
  yield sys.syslog(`${yield { call: "t_bad_exec", args: [50_000] }} ${yield sys.exec(va + 1)}`);
});

// Holds 3 pages of heap and says what /proc says of it.
const shows = test_init("t_shows", function* (sys) {
  const heap: number = yield sys.sbrk(5 * PAGE_SIZE);
  u.memset(heap, 1, 3 * PAGE_SIZE);
  u.load8(heap + 4 * PAGE_SIZE); // the zero page: no rss
  yield sys.mmap(PAGE_SIZE, PROT_READ | PROT_EXEC);
  for (const file of ["maps", "statm", "status"]) {
    const fd: number = yield sys.open(`/proc/1/${file}`);
    const text: string = yield sys.read(fd, 4096);
    for (const line of text.split("\n")) if (file !== "status" || /^(Vm|Rss)/.test(line)) yield sys.syslog(line);
    yield sys.close(fd);
  }
});

// Ten forks deep; each has a page of its own before and after, and a local.
program("t_deep", function* (sys) {
  const va: number = yield sys.mmap(2 * PAGE_SIZE);
  let depth = 0;
  u.store32(va, depth);
  u.store32(va + PAGE_SIZE, 77);
  while (depth < 10) {
    const pid: number = yield sys.fork();
    if (pid !== 0) {
      u.store32(va, 100 + depth);
      yield sys.sleep(5);
      const { status }: { status: number } = yield sys.wait(pid);
      yield sys.syslog(`${depth} ${u.load32(va)} ${u.load32(va + PAGE_SIZE)} ${status}`);
      return u.load32(va) === 100 + depth ? 0 : 1;
    }
    depth++;
    if (u.load32(va) !== depth - 1) return 2;
    u.store32(va, depth);
  }
  yield sys.sleep(20);
  yield sys.syslog(`${depth} ${u.load32(va)} ${u.load32(va + PAGE_SIZE)} 0`);
  return 0;
});
const deep = test_init("t_starts_deep", function* (sys) {
  if ((yield sys.fork()) === 0) yield sys.exec("t_deep");
});

// Reads more than a journal holds, each value another.
program("t_reads", function* (sys) {
  const va: number = yield sys.mmap(PAGE_SIZE);
  for (let i = 0; ; i++) {
    u.store32(va, i);
    u.load32(va);
    if (i % 10_000 === 0) yield sys.getpid();
  }
});
program("t_reads_the_same", function* (sys) {
  const va: number = yield sys.mmap(PAGE_SIZE);
  for (let i = 0; i < 300_000; i++) u.load32(va);
  yield sys.getpid();
  return u.load32(va);
});
program("t_runs_on", function* (sys) {
  const va: number = yield sys.mmap(PAGE_SIZE);
  for (;;) u.store32(va, 1);
});
program("t_catches", function* (sys) {
  try {
    u.load8(0);
  } catch {
    yield sys.syslog("still here");
  }
  return 0;
});
program("t_wild", function* () {
  u.store8(2 ** 60, 1);
});
const ends: readonly (readonly [string, number, RegExp?])[] = [
  [runs("t_reads"), SIGXCPU, /journal limit exceeded/],
  [runs("t_reads_the_same"), 0],
  [runs("t_runs_on"), SIGXCPU, /more than 10000000 accesses/],
  [runs("t_catches"), SIGABRT, /went on after a trap/],
  [runs("t_wild"), SIGSEGV, /traps: t_wild\[\d+\] general protection fault/],
];

describe("programs with memory", () => {
  it("cowtest: parent and child each read their own", () => {
    with_tasks(cowtest, () => {
      expect(reports()).toEqual(["0"]);
      expect(cat("/tmp/out")).toBe("16 pages, each process read its own\n");
      expect(all_vm_events()[PGFAULT]).toBeGreaterThan(16);
    });
  });

  it("a program may read what its journal holds and make 10^7 accesses a step, and a trap cannot be caught", () => {
    for (const [init, status, line] of ends)
      with_tasks(init, () => {
        expect(reports(), init).toEqual([`${status}`]);
        if (line) expect(log().some((text) => line.test(text))).toBe(true);
      });
  });

  it("ten forks deep each sees its own memory, whenever the generators are lost", () => {
    const run = (keep: boolean): string[] =>
      with_tasks(deep, () => {
        while (schedule_entries(1) === 1 && log().filter((line) => line.includes("t_deep[")).length < 11)
          if (!keep) forget_programs();
        return log().flatMap((line) => /^t_deep\[\d+\]: (.*)/.exec(line)?.[1] ?? []);
      });
    const whole = run(true);
    const own = (depth: number): string => `${depth} ${depth === 10 ? 10 : 100 + depth} 77 0`;
    expect(whole).toEqual(Array.from({ length: 11 }, (_, i) => own(10 - i)));
    expect(run(false)).toEqual(whole);
  });

  it("A133: exec with a pointer that is none, 50,000 times, loses nothing", () => {
    with_tasks(bad_exec, () => expect(reports()).toEqual([`50000 ${-EFAULT}`]));
  });

  it("/proc/PID/maps, statm and status show areas, rss and tables", () => {
    with_tasks(shows, () => {
      const lines = reports().filter((line) => line !== "");
      expect(lines.slice(0, 4)).toEqual([
        "555555560000-555555565000 rw-p 00000000 00:00 0                          [heap]",
        "7ffff7ffe000-7ffff7fff000 r-xp 00000000 00:00 0 ",
        "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]",
        "39 3 0 0 0 38 0",
      ]);
      for (const line of [
        "VmSize:\t     156 kB",
        "VmRSS:\t      12 kB",
        "VmData:\t      20 kB",
        "VmStk:\t     132 kB",
        "VmPTE:\t      12 kB",
      ])
        expect(lines).toContain(line);
    });
  });

  it("a hog that takes all memory is killed for it, and the rest lives on", () => {
    with_tasks(hog, () => {
      expect(reports()).toEqual([`${SIGKILL}`]);
      const kill = log().find((line) => /^Out of memory: Killed process \d+ \(memhog\)/.test(line));
      expect(Number(/anon-rss:(\d+)kB/.exec(kill ?? "")?.[1])).toBeGreaterThan(20 * 1024);
      expect(global_node_page_state(NR_ANON_MAPPED)).toBe(0);
    });
  });
});
