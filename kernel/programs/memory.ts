/** Programs that use memory: cowtest and memhog [MIB]. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { program } from "../program.ts";
import { u } from "../user_memory.ts";
import { complain, puts, usage } from "./lib.ts";

const MIB = 1 << 20;
const COW_PAGES = 16;
const MOST_MIB = 2048;

// Parent and child write to the same page after a fork, and each reads what it wrote.
program("cowtest", function* (sys, ...args: string[]) {
  if (args.length > 0) return yield* usage(sys, "cowtest");
  const va: number = yield sys.mmap(COW_PAGES * PAGE_SIZE);
  for (let i = 0; i < COW_PAGES; i++) u.store32(va + i * PAGE_SIZE, i);
  const pid: number = yield sys.fork();
  const mine = pid === 0 ? 1000 : 2000;
  for (let i = 0; i < COW_PAGES; i += 2) u.store32(va + i * PAGE_SIZE, mine + i);
  let wrong = 0;
  for (let i = 0; i < COW_PAGES; i++) if (u.load32(va + i * PAGE_SIZE) !== (i % 2 === 0 ? mine + i : i)) wrong++;
  if (pid === 0) return wrong;
  const { status }: { status: number } = yield sys.wait(pid);
  if (wrong + status !== 0) return yield* complain(sys, "cowtest: a process read the other's page");
  yield* puts(sys, `${COW_PAGES} pages, each process read its own\n`);
  return 0;
});

// Takes memory, a MiB at a time, and keeps it: so much, or all there is.
program("memhog", function* (sys, ...args: string[]) {
  const [text] = args;
  const mib = text === undefined ? Infinity : /^\d+$/.test(text) ? Number(text) : NaN;
  if (args.length > 1) return yield* usage(sys, "memhog");
  if (!(mib >= 1 && (text === undefined || mib <= MOST_MIB)))
    return yield* complain(sys, `memhog: "${text}" given, 1 to ${MOST_MIB} allowed`);
  for (let taken = 0; taken < mib; taken++) {
    const va: number = yield sys.mmap(MIB);
    if (va < 0) return 1;
    u.memset(va, 0x55, MIB);
  }
  yield* puts(sys, `${mib} MiB filled\n`);
  return 0;
});
