/**
 * Moments of a machine whose memory is busy: where page tables are compared with an MMU that is not ours.
 *
 * Init keeps seven kinds of work going: a storm of forks whose children write to what they share, cowtest, a hog, programs
 * that map, protect and unmap pages of all rights at random, a file and shared memory that two processes have mapped,
 * compaction, which moves pages, and vmalloc areas that come and go. The seed decides how many kernel entries pass until the
 * next moment; there the address spaces of all programs, and the kernel's, can be looked at.
 */
import { PAGE_SIZE, type Phys } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { O_RDONLY, O_WRONLY } from "../../kernel/fs/fs.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { program } from "../../kernel/program.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { TaskStruct, for_each_process } from "../../kernel/task.ts";
import { u } from "../../kernel/user_memory.ts";
import { swapper_pg_dir } from "../../mm/kernel_map.ts";
import { MmStruct } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE,
} from "../../mm/mmap.ts"; // prettier-ignore
import { PgTables } from "../../mm/pgtable.ts";
import { vfree, vmalloc } from "../../mm/vmalloc.ts";
import { with_machine } from "./machine.ts";

const MADV_DONTNEED = 4;
const AREAS = 8;
const churn = static_data("t_vmalloc_churn", { areas: `s64[${AREAS}]` });
const next = (x: number): number => (Math.imul(x, 1664525) + 1013904223) >>> 0;

register_syscall("t_vmalloc_churn", "nn", (slot: number, bytes: number) => {
  vfree(churn.areas.get(slot));
  churn.areas.set(slot, bytes === 0 ? 0 : vmalloc(bytes));
  return 0;
});

// Areas of the kernel's come and go; at the end all go.
program("t_vmallocs", function* (sys, seed: number) {
  for (let i = 0, x = seed; i < 60; i++, x = next(x))
    yield { call: "t_vmalloc_churn", args: [x % AREAS, i < 52 ? 1 + ((x >>> 8) % 200_000) : 0] };
  for (let slot = 0; slot < AREAS; slot++) yield { call: "t_vmalloc_churn", args: [slot, 0] };
  yield sys.getpid();
});

// A window of pages in which anything happens: all rights, holes, pages written, only read, or never touched.
program("t_protects", function* (sys, seed: number) {
  const [base, pages] = [0x40000000 - 8 * PAGE_SIZE, 16]; // across two tables of three levels
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  for (let i = 0, x = seed; i < 60; i++, x = next(x)) {
    const [page, length] = [(x >>> 4) % pages, 1 + ((x >>> 9) % 6)];
    const [va, bytes, prot] = [base + page * PAGE_SIZE, length * PAGE_SIZE, (x >>> 13) & 7];
    const kind = (x >>> 17) % 4;
    if (kind === 0) yield sys.munmap(va, bytes);
    else if (kind === 1) yield sys.mprotect(va, bytes, prot);
    else {
      yield sys.mmap(bytes, PROT_READ | PROT_WRITE, flags, va);
      if (kind === 3) u.memset(va, i, bytes / 2);
      else u.load8(va);
      if (x & 0x100000) yield sys.mprotect(va, PAGE_SIZE, PROT_EXEC | (prot & PROT_READ));
    }
  }
});

// Each child writes to every other page that it shares, forks again, and ends.
program("t_storm", function* (sys, seed: number) {
  const pages = 12;
  const va: number = yield sys.mmap(pages * PAGE_SIZE);
  u.memset(va, seed, pages * PAGE_SIZE);
  for (let depth = 0, x = seed; depth < 4; depth++, x = next(x)) {
    const pid: number = yield sys.fork();
    for (let page = pid === 0 ? 0 : 1; page < pages; page += 2) u.store32(va + page * PAGE_SIZE, x);
    yield sys.sleep(1 + ((x >>> 7) % 4));
    if (pid !== 0 && depth % 2 === 1) yield sys.wait(pid);
  }
  while (typeof (yield sys.wait()) === "object");
});

// Two processes with pages of a file, private and only read, and with memory that they share; parts of it go now and then.
program("t_maps_file", function* (sys, seed: number) {
  const [pages, bytes] = [16, 16 * PAGE_SIZE];
  const fd: number = yield sys.open("/usr/media/film2", O_RDONLY);
  const film: number = yield sys.mmap(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, fd, 0);
  const text: number = yield sys.mmap(bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, fd, bytes);
  const shared: number = yield sys.mmap(bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  const pid: number = yield sys.fork();
  for (let i = 0, x = pid === 0 ? next(seed) : seed; i < 30; i++, x = next(x)) {
    const at = ((x >>> 8) % pages) * PAGE_SIZE;
    u.store32(shared + at, x);
    u.load8(text + at);
    if (x & 0x100000) u.store32(film + at, x);
    else u.load32(film + at);
    if ((x & 0xe00000) === 0) yield sys.madvise((x & 1 ? film : shared) + at, PAGE_SIZE, MADV_DONTNEED);
    if (i % 3 === 0) yield sys.sleep(1);
  }
  if (pid !== 0) yield sys.wait(pid);
});

program("t_compacts", function* (sys) {
  const fd: number = yield sys.open("/proc/sys/vm/compact_memory", O_WRONLY);
  yield sys.write(fd, "1");
  yield sys.sleep(3);
});

const WORK = ["t_storm", "cowtest", "memhog", "t_protects", "t_maps_file", "t_compacts", "t_vmallocs"] as const;
program("t_moments", function* (sys) {
  yield { call: "boot_complete", args: [0] };
  const running: number[] = [];
  for (let x = 1; ; x = next(x)) {
    for (const [i, name] of WORK.entries()) {
      if (running[i] !== undefined) continue;
      const pid: number = yield sys.fork();
      if (pid === 0) {
        yield sys.exec(name, name === "cowtest" ? 64 : name === "memhog" ? 4 : x);
        return 1;
      }
      running[i] = pid;
    }
    const ended: { pid: number } = yield sys.wait();
    delete running[running.indexOf(ended.pid)];
  }
});

/** An address space at a moment. */
export interface Space {
  readonly name: string;
  readonly cr3: Phys;
}

/** One of each program that runs, and the kernel's. */
function spaces(): Space[] {
  const of_programs = [...for_each_process()].flatMap((task) => {
    const mm = TaskStruct.mm.get(task);
    return mm === 0 ? [] : [{ name: TaskStruct.comm.get(task), cr3: PgTables.pgd.get(MmStruct.tables.at(mm)) }];
  });
  const by_name = new Map(of_programs.map((space) => [space.name, space]));
  return [...by_name.values(), { name: "kernel", cr3: swapper_pg_dir() }];
}

/** Boots a machine that is busy while `fn` lets it run. */
export function with_busy_machine(seed: number, fn: () => void): void {
  with_machine({ until: "init", append: "init=t_moments", seed }, () => {
    fn();
    for (let slot = 0; slot < AREAS; slot++) vfree(churn.areas.get(slot));
  });
}

/** Calls `look` with what is there at `count` moments of a busy machine, chosen by the seed. */
export function at_moments(
  seed: number,
  count: number,
  look: (spaces: readonly Space[], random: number) => void,
): void {
  with_busy_machine(seed, () => {
    for (let i = 0, x = next(seed); i < count; i++, x = next(x)) {
      schedule_entries(20 + ((x >>> 8) % 300));
      look(spaces(), next(x));
    }
  });
}
