/** Tables of open files, as fork, exit and the system calls use them. */
import { describe, expect, it } from "vitest";
import { RLIMIT_NOFILE, alloc_files_struct, close_fd, dup_fd, fd_install, files_lookup_fd, files_stat, get_unused_fd, open_fds, put_files_struct } from "../../../kernel/fs/file_table.ts"; // prettier-ignore
import { File, FilesStruct, O_CREAT, O_RDWR, SEEK_SET, type FilesPtr } from "../../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../../kernel/fs/namei.ts";
import { do_filp_open } from "../../../kernel/fs/open.ts";
import { EBADF, EMFILE, ENFILE, ENOENT, ENOMEM, ENOTDIR } from "../../../kernel/lib/errno.ts";
import { register_syscall } from "../../../kernel/syscall.ts";
import { get_fail_nth, set_fail_nth } from "../../../mm/fault_inject.ts";
import { image_symbols } from "../../../hal/image.ts";
import { ram32 } from "../../../hal/ram.ts";
import { reports, test_init, with_tasks } from "../tasks.ts";
import { cat, expect_same, figures, settle, with_each_failure, with_files } from "./files.ts";

function open_in(files: FilesPtr, path: string): number {
  const fd = get_unused_fd(files);
  if (fd < 0) return fd;
  const file = do_filp_open(path, O_RDWR | O_CREAT, 0o644);
  if (file > 0) fd_install(files, fd, file);
  return file > 0 ? fd : file;
}

describe("a table of open files", () => {
  it("gives out the lowest free number, in a table that grows to 1024 and no further", () => {
    with_files(() => {
      const files = alloc_files_struct();
      for (let fd = 0; fd < RLIMIT_NOFILE; fd++) expect(open_in(files, "/tmp/a")).toBe(fd);
      expect(FilesStruct.max_fds.get(files)).toBe(RLIMIT_NOFILE);
      expect(get_unused_fd(files)).toBe(-EMFILE);
      for (const fd of [900, 70, 3]) expect(close_fd(files, fd)).toBe(0);
      expect([open_in(files, "/tmp/a"), open_in(files, "/tmp/a"), open_in(files, "/tmp/a")]).toEqual([3, 70, 900]);
      expect([close_fd(files, 1024), close_fd(files, -1), close_fd(files, 3), close_fd(files, 3)]).toEqual([-EBADF, -EBADF, 0, -EBADF]); // prettier-ignore
      put_files_struct(files);
      expect(files_stat().nr_files).toBe(0);
      do_unlinkat("/tmp/a");
    });
  });

  it("a copy has the same files under the same numbers, and each goes with its last entry", () => {
    with_files(() => {
      const files = alloc_files_struct();
      for (let i = 0; i < 70; i++) open_in(files, "/tmp/a");
      close_fd(files, 5);
      const copy = dup_fd(files);
      expect([...open_fds(copy)]).toEqual([...open_fds(files)]);
      expect(files_lookup_fd(copy, 69)).toBe(files_lookup_fd(files, 69));
      expect(File.f_count.get(files_lookup_fd(copy, 69))).toBe(2);
      put_files_struct(files);
      expect(files_stat().nr_files).toBe(69);
      expect(get_unused_fd(copy)).toBe(5);
      put_files_struct(copy);
      expect(files_stat().nr_files).toBe(0);
      do_unlinkat("/tmp/a");
    });
  });

  it("opening, growing and copying without memory leaves nothing behind", () => {
    with_files(() => {
      const files = alloc_files_struct();
      for (let i = 0; i < 64; i++) open_in(files, "/tmp/a");
      const opened = with_each_failure(
        () => open_in(files, "/tmp/a"),
        (fd, failed) => {
          expect(failed ? [64, -ENOMEM] : [64]).toContain(fd);
          expect([...open_fds(files)].length).toBe(fd < 0 ? 64 : 65);
          if (fd > 0) close_fd(files, fd);
        },
      );
      expect(opened).toBeGreaterThanOrEqual(2); // the table, which stays when it was had; the name
      const before = figures();
      const copied = with_each_failure(
        () => dup_fd(files),
        (copy, failed) => {
          if (!failed) expect([...open_fds(copy)].length).toBe(64);
          if (copy !== 0) put_files_struct(copy);
          expect_same(before);
        },
      );
      expect(copied).toBeGreaterThanOrEqual(1);
      put_files_struct(files);
      do_unlinkat("/tmp/a");
    });
  });

  it("the machine has a limit of open files", () => {
    with_files(() => {
      const state = [...image_symbols("data")].find(({ name }) => name === "file_table")!;
      const word = (state.address >> 2) + 5; // max_files, behind two pointers and nr_files
      expect(ram32[word]).toBe(files_stat().max_files);
      ram32[word] = 0;
      expect(cat("/proc/meminfo")).toBe(-ENFILE);
      ram32[word] = 8192;
    });
  });
});

const uses_files = test_init("t_uses_files", function* (sys) {
  const call = (name: string, ...args: (number | string)[]) => ({ call: name, args });
  const fd: number = yield sys.open("/tmp/a", O_RDWR | O_CREAT);
  yield sys.write(fd, "hello");
  const copy: number = yield call("dup", fd);
  yield call("lseek", fd, 1, SEEK_SET);
  const child: number = yield sys.fork();
  if (child === 0) {
    const text: string = yield sys.read(copy, 2); // moves the position that all of them share
    return text === "el" ? 42 : 1;
  }
  const { status }: { status: number } = yield sys.wait();
  const rest: string = yield sys.read(fd, 100);
  yield sys.syslog(`${status >> 8} ${fd} ${copy} ${rest}`);
});

const wrong_files = test_init("t_wrong_files", function* (sys) {
  const results: unknown[] = [];
  const fd: number = yield sys.open("/tmp/a", O_RDWR | O_CREAT);
  yield sys.write(fd, "hello");
  results.push(yield { call: "ftruncate", args: [fd, 2] }, ((yield sys.stat("/tmp/a")) as { size: number }).size);
  results.push(yield sys.close(fd), yield sys.close(fd), yield sys.read(99, 1), yield { call: "dup", args: [99] });
  results.push(yield sys.mkdir("/tmp/d"), yield sys.readdir("/tmp"), yield sys.readdir("/tmp/a"));
  results.push(yield sys.rmdir("/tmp/d"), yield sys.unlink("/tmp/a"), yield sys.open("/tmp/a", 0));
  const comm: number = yield sys.open("/proc/1/comm");
  results.push(yield sys.read(comm, 100));
  yield sys.syslog(JSON.stringify(results));
});

const with_short_memory = test_init("t_short_memory", function* (sys) {
  const seen = new Set<number>();
  for (let n = 1; ; n++) {
    yield { call: "t_files_fail_nth", args: [n] };
    const fd: number = yield sys.open("/tmp/a", O_RDWR | O_CREAT);
    const left: number = yield { call: "t_files_fail_nth", args: [0] };
    if (fd >= 0) yield sys.close(fd);
    seen.add(fd);
    if (left > 0) break;
  }
  yield sys.syslog([...seen].join(" "));
});
register_syscall("t_files_fail_nth", "n", (n: number) => {
  const left = get_fail_nth();
  set_fail_nth(n);
  return left;
});

describe("system calls", () => {
  it("a file's position is shared by its copies, over a fork too", () => {
    with_tasks(uses_files, () => {
      expect(reports()).toEqual(["42 0 1 lo"]);
      settle();
    });
  });

  it("answer as Linux's do, and all is closed when the task ends", () => {
    with_tasks(wrong_files, () => {
      const listing = ["d", "a"];
      const expected = [0, 2, 0, -EBADF, -EBADF, -EBADF, 0, listing, -ENOTDIR, 0, 0, -ENOENT, "t_wrong_files\n"];
      expect(JSON.parse(reports()[0]!)).toEqual(expected);
    });
  });

  it("open without memory is -ENOMEM, or works", () => {
    with_tasks(with_short_memory, () => expect(reports()).toEqual([`${-ENOMEM} 0`]));
  });
});
