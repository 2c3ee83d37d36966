/**
 * usertests: what programs must be able to do, and must not get away with, a child a test, in the spirit of xv6's program
 * of this name.
 *
 * Each test is run in a folder of its own, /tmp/ut.PID.N, and says with its status whether all is well; some are to end by a
 * signal. Before and after, page tables, kernel stacks, pages of programs and files in use are counted: a test that leaves
 * more of them than before has failed, whatever it says.
 */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { program } from "../program.ts";
import type { Sys } from "../syscall.ts";
import { u } from "../user_memory.ts";
import { buffer, complain, puts, type Steps } from "./lib.ts";
import { FILE_TESTS } from "./usertests_files.ts";
import { MEMORY_TESTS } from "./usertests_memory.ts";
import { PIPE_TESTS } from "./usertests_pipes.ts";
import { PROCESS_TESTS } from "./usertests_processes.ts";
import { in_child, type UserTest } from "./usertests_lib.ts";

const TESTS: readonly UserTest[] = Object.freeze([...FILE_TESTS, ...PIPE_TESTS, ...PROCESS_TESTS, ...MEMORY_TESTS]);

const FIGURES: readonly string[] = Object.freeze(["AnonPages", "PageTables", "KernelStack", "Shmem"]);

/** The figures of /proc/meminfo and /proc/sys/fs/file-nr, one behind the other, that a test has to leave as they were. */
function figures_of(bytes: Uint8Array): string {
  const text = String.fromCharCode(...bytes);
  const figures = FIGURES.map((name) => `${name} ${new RegExp(`^${name}: +(\\d+)`, "m").exec(text)?.[1]}`);
  return `${figures.join(", ")}, open files ${/^(\d+)\t/m.exec(text)?.[1]}`;
}

/** What is in use now. */
function* in_use(sys: Sys, va: number): Steps<string> {
  let bytes = 0;
  for (const path of ["/proc/meminfo", "/proc/sys/fs/file-nr"]) {
    const fd: number = yield sys.open(path);
    bytes += yield sys.read(fd, va + bytes, 4096);
    yield sys.close(fd);
  }
  return u.look(va, bytes, figures_of);
}

/** Waits until as much is in use as was, since tasks are reaped when init comes to it; what it is else. */
function* settled(sys: Sys, va: number, before: string): Steps<string> {
  let after = yield* in_use(sys, va);
  for (let tries = 0; after !== before && tries < 20; tries++) {
    yield sys.sleep(1);
    after = yield* in_use(sys, va);
  }
  return after;
}

function* run_test(sys: Sys, va: number, { name, body, status = 0 }: UserTest, folder: string): Steps<boolean> {
  yield sys.mkdir(folder);
  const before = yield* in_use(sys, va);
  const ended = yield* in_child(sys, function* (): Steps<number> {
    yield sys.chdir(folder);
    return yield* body(sys);
  });
  const after = yield* settled(sys, va, before);
  const left: number = yield sys.rmdir(folder);
  const wrong = [
    ...(ended === status ? [] : [`status ${ended & 0x7f ? `signal ${ended & 0x7f}` : ended >> 8}`]),
    ...(after === before ? [] : [`before: ${before}; after: ${after}`]),
    ...(left === 0 ? [] : ["it left files"]),
  ];
  yield* puts(sys, `${wrong.length === 0 ? "ok" : `FAILED (${wrong.join("; ")})`}: ${name}\n`);
  return wrong.length === 0;
}

// With words: the tests that have them in their names.
program("usertests", function* (sys, ...words: string[]) {
  const chosen = TESTS.filter(({ name }) => name.includes(words.join(" ")));
  const folder = `/tmp/ut.${yield sys.getpid()}`;
  const va = yield* buffer(sys, "usertests", 2 * PAGE_SIZE);
  u.memset(va, 0, 2 * PAGE_SIZE); // its pages are there before the first count
  let failed = 0;
  for (const [i, test] of chosen.entries()) if (!(yield* run_test(sys, va, test, `${folder}.${i}`))) failed++;
  if (failed > 0) return yield* complain(sys, `usertests: ${failed} of ${chosen.length} FAILED`);
  yield* puts(sys, `ALL ${chosen.length} TESTS PASSED\n`);
  return 0;
});
