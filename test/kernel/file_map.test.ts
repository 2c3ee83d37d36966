/** Programs and files in their memory: the calls, what /proc says, what a fork shares, what a bad access ends in. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { O_CREAT, O_RDONLY, O_RDWR } from "../../kernel/fs/fs.ts";
import { EACCES, EBADF, EINVAL, ENODEV, ENOMEM } from "../../kernel/lib/errno.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { forget_programs } from "../../kernel/program.ts";
import { SIGBUS } from "../../kernel/signal.ts";
import { u } from "../../kernel/user_memory.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE } from "../../mm/mmap.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

const RW = PROT_READ | PROT_WRITE;
const FILM = "/usr/media/film2";
const MADV_DONTNEED = 4;
const MS_SYNC = 4;

const calls = test_init("t_map_calls", function* (sys) {
  const film: number = yield sys.open(FILM, O_RDONLY);
  const dir: number = yield sys.open("/usr/media", O_RDONLY);
  const results: number[] = [
    yield sys.mmap(PAGE_SIZE, PROT_READ, MAP_PRIVATE, 0, 99, 0),
    yield sys.mmap(PAGE_SIZE, RW, MAP_SHARED, 0, film, 0),
    yield sys.mmap(PAGE_SIZE, PROT_READ, MAP_PRIVATE, 0, film, 100),
    yield sys.mmap(PAGE_SIZE, PROT_READ, MAP_PRIVATE, 0, dir, 0),
    yield sys.mmap(0, PROT_READ, MAP_PRIVATE, 0, film, 0),
  ];
  yield sys.syslog(results.join(" "));
  const va: number = yield sys.mmap(4 * PAGE_SIZE, RW, MAP_PRIVATE, 0, film, 2 * PAGE_SIZE);
  u.store32(va, 7);
  const made: number[] = [u.load32(va), yield sys.madvise(va, PAGE_SIZE, MADV_DONTNEED), u.load32(va)];
  yield sys.syslog(made.join(" "));
  yield sys.munmap(va + PAGE_SIZE, PAGE_SIZE);
  const rest: number[] = [
    yield sys.madvise(va, 4 * PAGE_SIZE, MADV_DONTNEED),
    yield sys.madvise(va + 1, PAGE_SIZE, MADV_DONTNEED),
    yield sys.madvise(va, PAGE_SIZE, 77),
    yield sys.msync(va, PAGE_SIZE, MS_SYNC),
    yield sys.msync(va, 2 * PAGE_SIZE, MS_SYNC),
    yield sys.msync(va, PAGE_SIZE, MS_SYNC | 1),
  ];
  yield sys.syslog(rest.join(" "));
  const shared: number = yield sys.mmap(PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS);
  u.store32(shared, 1);
  u.load8(va + 2 * PAGE_SIZE);
  for (const file of ["maps", "statm", "status"]) {
    const fd: number = yield sys.open(`/proc/1/${file}`);
    const text: string = yield sys.read(fd, 4096);
    for (const line of text.split("\n")) if (file !== "status" || /^Rss/.test(line)) yield sys.syslog(line);
    yield sys.close(fd);
  }
});

// A counter in a file that parent and children map, and one in memory without a file.
const counts = test_init("t_map_counts", function* (sys) {
  const fd: number = yield sys.open("/tmp/counter", O_RDWR | O_CREAT);
  yield sys.write(fd, "\0".repeat(8));
  const file: number = yield sys.mmap(PAGE_SIZE, RW, MAP_SHARED, 0, fd, 0);
  const memory: number = yield sys.mmap(PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS);
  const own: number = yield sys.mmap(PAGE_SIZE, RW);
  for (let i = 0; i < 4; i++)
    if ((yield sys.fork()) === 0) {
      for (let turn = 0; turn < 10; turn++) {
        for (const va of [file, memory, own]) u.store32(va, u.load32(va) + 1);
        yield sys.sched_yield();
      }
      return u.load32(own) === 10 ? 0 : 1;
    }
  let wrong = 0;
  for (;;) {
    const ended: { status: number } | number = yield sys.wait();
    if (typeof ended === "number") break;
    if (ended.status !== 0) wrong++;
  }
  yield sys.syslog(`${u.load32(file)} ${u.load32(memory)} ${u.load32(own)} ${wrong}`);
  yield sys.close(fd);
  yield sys.unlink("/tmp/counter");
});

const behind = test_init("t_map_behind", function* (sys) {
  if ((yield sys.fork()) === 0) {
    const fd: number = yield sys.open("/usr/src/000/000.c", O_RDONLY); // 1000 bytes
    const va: number = yield sys.mmap(2 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, 0, fd, 0);
    yield sys.syslog(`${u.load8(va + 999)} ${u.load8(va + 1000)}`); // zeroes behind the end
    u.load8(va + PAGE_SIZE);
    return 1;
  }
  const { status }: { status: number } = yield sys.wait();
  yield sys.syslog(`${status}`);
});

describe("a program that maps files", () => {
  it("gets what it asks for, or Linux's error, and sees it in /proc", () => {
    with_tasks(calls, () => {
      const lines = reports();
      const inod = Buffer.from("inod").readInt32LE();
      expect(lines[0]).toBe([-EBADF, -EACCES, -EINVAL, -ENODEV, -EINVAL].join(" "));
      expect(lines[1]).toBe(`7 0 ${inod}`);
      expect(lines[2]).toBe([-ENOMEM, -EINVAL, -EINVAL, 0, -ENOMEM, -EINVAL].join(" "));
      const maps = lines.slice(3, 7);
      expect(maps[0]).toMatch(/^[0-9a-f]{12}-[0-9a-f]{12} rw-p 00002000 00:0\d 18 +\/usr\/media\/film2$/);
      expect(maps[1]).toMatch(/^[0-9a-f]{12}-[0-9a-f]{12} rw-s 00000000 00:01 \d+ +\/dev\/zero \(deleted\)$/);
      expect(maps[2]).toMatch(/^[0-9a-f]{12}-[0-9a-f]{12} rw-p 00004000 00:0\d 18 +\/usr\/media\/film2$/);
      expect(maps[0]!.indexOf("/usr")).toBe(73);
      expect(maps[3]).toMatch(/\[stack\]$/);
      expect(lines[8]).toMatch(/^37 (\d+) \1 0 0 36 0$/); // shmem, film: all of the rss is shared
      expect(lines).toContain("RssAnon:\t       0 kB");
      expect(lines).toContain("RssShmem:\t       4 kB");
    });
  });

  it("shares what it maps so with its children, whenever the generators are lost", () => {
    for (const keep of [true, false])
      with_tasks(counts, () => {
        while (reports().length === 0 && schedule_entries(1) === 1) if (!keep) forget_programs();
        expect(reports()).toEqual(["40 40 0 0"]);
      });
  });

  it("ends with SIGBUS behind a file's last page; the rest of that page is zeroes", () => {
    with_tasks(behind, () => {
      expect(reports()).toEqual([`${SIGBUS}`]);
      expect(log().some((line) => /^t_map_behind\[\d+\]: 32 0$/.test(line))).toBe(true);
      expect(log().some((line) => /segfault/.test(line))).toBe(false);
    });
  });
});
