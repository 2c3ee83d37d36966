/**
 * Programs with memory for the amnesia test: one that forks ten deep, and some that map, write, fork and unmap at random.
 * Each knows from its own variables what its memory ought to hold, and looks; what it finds goes to the kernel's log.
 */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { program } from "../../kernel/program.ts";
import { u } from "../../kernel/user_memory.ts";
import { STACK_TOP } from "../../mm/mm_types.ts";

const DEPTH = 10;
const ON_STACK = STACK_TOP - 64;
const next = (x: number): number => (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;

// Eleven processes, each the child of the one before. All change the same variable, page and word of the stack by turns.
program("t_forks_deep", function* (sys) {
  const va: number = yield sys.mmap(2 * PAGE_SIZE);
  u.memset(va, 7, 2 * PAGE_SIZE);
  let [depth, mine] = [0, 1];
  for (; depth < DEPTH && (yield sys.fork()) === 0; depth++) {
    mine = next(mine);
    u.store32(va, mine);
  }
  for (let round = 0; round < 8; round++) {
    mine = next(mine ^ depth);
    u.store32(va, mine);
    u.store32(ON_STACK, mine + 1);
    yield sys.sleep(1 + ((mine >> 5) % 3));
    const found = [u.load32(va), u.load32(ON_STACK) - 1, u.load8(va + PAGE_SIZE)];
    if (found.join() !== [mine, mine, 7].join()) yield sys.syslog(`wrong: depth ${depth} finds ${found.join()}`);
  }
  const ended: { status: number } | number = yield sys.wait();
  yield sys.syslog(`depth ${depth}: ${mine} ${u.load32(va)}, ${typeof ended === "number" ? "no child" : ended.status}`);
  return 0;
});

// Eight pages, each absent or filled with a value; forks twice on the way.
program("t_random_memory", function* (sys, seed: number) {
  const base: number = yield sys.mmap(8 * PAGE_SIZE);
  const values: (number | undefined)[] = Array.from({ length: 8 }, () => 0);
  let [x, forks, sum] = [seed, 0, 0];
  for (let turn = 0; turn < 24; turn++) {
    x = next(x);
    const [page, kind] = [(x >> 8) % 8, (x >> 12) % 5];
    const va = base + page * PAGE_SIZE;
    if (kind === 0) {
      yield sys.munmap(va, PAGE_SIZE);
      values[page] = undefined;
    } else if (values[page] === undefined) {
      if ((yield sys.mmap(PAGE_SIZE, 3, 0x32, va)) !== va) yield sys.syslog("wrong: no page");
      values[page] = 0;
    } else if (kind === 1 && forks < 2) {
      forks++;
      if ((yield sys.fork()) === 0) x ^= 0x5555;
    } else u.memset(va, (values[page] = x & 0xff), PAGE_SIZE);
    for (const [i, value] of values.entries())
      if (value !== undefined) {
        const found = u.load8(base + i * PAGE_SIZE + (x % PAGE_SIZE));
        if (found !== value) yield sys.syslog(`wrong: page ${i} has ${found}, not ${value}`);
        sum = (sum * 31 + found) % 1_000_003;
      }
    if (turn % 4 === 0) yield sys.sleep(1);
  }
  while (typeof (yield sys.wait()) === "object");
  yield sys.syslog(`memory ${seed}: ${x} ${sum}`);
});

program("t_amnesia_memory", function* (sys) {
  yield { call: "boot_complete", args: [0] };
  const work: [string, number][] = [["t_forks_deep", 0], ["t_random_memory", 1], ["t_random_memory", 2]]; // prettier-ignore
  for (const [name, arg] of work)
    if ((yield sys.fork()) === 0) {
      yield sys.exec(name, arg);
      return 1;
    }
  while (typeof (yield sys.wait()) === "object");
  yield sys.syslog("all done");
  for (;;) yield sys.sleep(10_000);
});
