/** usertests: files, names and open files. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SEEK_END, SEEK_SET } from "../fs/fs.ts";
import type { Stat } from "../fs/open.ts";
import {
  EBADF, EEXIST, EFAULT, EINVAL, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV,
} from "../lib/errno.ts"; // prettier-ignore
import { u } from "../user_memory.ts";
import type { Sys } from "../syscall.ts";
import type { Steps } from "./lib.ts";
import { all_give, in_child, type UserTest } from "./usertests_lib.ts";

const CREATE = O_CREAT | O_RDWR;

/** Makes a file of that text. */
function* make(sys: Sys, path: string, text = ""): Steps<void> {
  const fd: number = yield sys.open(path, CREATE | O_TRUNC);
  yield sys.write(fd, text);
  yield sys.close(fd);
}

/** What a file says, or -errno. */
function* text_of(sys: Sys, path: string): Steps<string | number> {
  const fd: number = yield sys.open(path);
  if (fd < 0) return fd;
  const text: string | number = yield sys.read(fd, 4096);
  yield sys.close(fd);
  return text;
}

/** "4 name" for each entry: its type and name. */
function dirents(memory: Uint8Array): string[] {
  const found: string[] = [];
  for (let at = 0; at < memory.length; at += memory[at + 16]! + memory[at + 17]! * 256) {
    const name = memory.subarray(at + 19, memory.indexOf(0, at + 19));
    found.push(`${memory[at + 18]} ${String.fromCharCode(...name)}`);
  }
  return found;
}

export const FILE_TESTS: readonly UserTest[] = Object.freeze([
  {
    name: "a file says what was written to it, through memory and as text",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(2 * PAGE_SIZE);
      u.store_string(va, "written from memory");
      const fd: number = yield sys.open("f", CREATE);
      if ((yield sys.write(fd, va, 19)) !== 19 || (yield sys.write(fd, " and as text")) !== 12) return 1;
      yield sys.lseek(fd, 8, SEEK_SET);
      if ((yield sys.read(fd, va + PAGE_SIZE - 3, 11)) !== 11) return 2; // over the end of a page
      if (u.look(va + PAGE_SIZE - 3, 11, (bytes) => String.fromCharCode(...bytes)) !== "from memory") return 3;
      if ((yield sys.read(fd, 100)) !== " and as text" || (yield sys.read(fd, va, 10)) !== 0) return 4;
      yield sys.close(fd);
      return yield sys.unlink("f");
    },
  },
  {
    name: "a large file comes back page for page, and its pages go with it",
    *body(sys): Steps<number> {
      const pages = 100;
      const va: number = yield sys.sbrk(PAGE_SIZE);
      const fd: number = yield sys.open("big", CREATE);
      for (let i = 0; i < pages; i++) {
        u.memset(va, i, PAGE_SIZE);
        if ((yield sys.write(fd, va, PAGE_SIZE)) !== PAGE_SIZE) return 1;
      }
      const { size, blocks }: Stat = yield sys.fstat(fd);
      if (size !== pages * PAGE_SIZE || blocks !== pages * 8) return 2;
      yield sys.lseek(fd, 0, SEEK_SET);
      for (let i = 0; i < pages; i++) {
        if ((yield sys.read(fd, va, PAGE_SIZE)) !== PAGE_SIZE) return 3;
        const same = u.look(va, PAGE_SIZE, (bytes) => bytes.every((byte) => byte === i));
        if (!same) return 4;
      }
      yield sys.ftruncate(fd, 100);
      if (((yield sys.fstat(fd)) as Stat).blocks !== 8) return 5;
      yield sys.close(fd);
      return yield sys.unlink("big");
    },
  },
  {
    name: "opening: create, exclusive, truncate, append; what cannot be opened",
    *body(sys): Steps<number> {
      yield* make(sys, "f", "one");
      let fd: number = yield sys.open("f", O_WRONLY | O_APPEND);
      yield sys.write(fd, "two");
      if ((yield sys.read(fd, 1)) !== -EBADF) return 1;
      yield sys.close(fd);
      if ((yield* text_of(sys, "f")) !== "onetwo") return 2;
      fd = yield sys.open("f", O_RDONLY);
      if ((yield sys.write(fd, "x")) !== -EBADF) return 3;
      yield sys.close(fd);
      yield* make(sys, "f", "new");
      if ((yield* text_of(sys, "f")) !== "new") return 4;
      yield sys.unlink("f");
      return yield* all_give(sys, [
        [sys.open("f"), -ENOENT],
        [sys.open("no/f", CREATE), -ENOENT],
        [sys.open(".", O_RDWR), -EISDIR],
        [sys.open("/proc/version", O_CREAT | O_EXCL), -EEXIST],
        [sys.open("/proc/version/x"), -ENOTDIR],
        [sys.open("f", O_WRONLY | O_RDWR), -EINVAL],
      ]);
    },
  },
  {
    name: "many files: made, listed, removed",
    *body(sys): Steps<number> {
      const count = 60;
      for (let i = 0; i < count; i++) yield* make(sys, `f${i}`, `${i}`);
      const names: string[] = yield sys.readdir(".");
      if (names.length !== count) return 1;
      for (let i = 0; i < count; i++) {
        if ((yield* text_of(sys, `f${i}`)) !== `${i}`) return 2;
        if ((yield sys.unlink(`f${i}`)) !== 0) return 3;
      }
      return ((yield sys.readdir(".")) as string[]).length;
    },
  },
  {
    name: "getdents tells names, types and inodes, in as many calls as the buffer needs",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(PAGE_SIZE);
      for (let i = 0; i < 10; i++) yield* make(sys, `file${i}`);
      yield sys.mkdir("folder");
      const fd: number = yield sys.open(".");
      const found: string[] = [];
      for (;;) {
        const bytes: number = yield sys.getdents(fd, va, 100);
        if (bytes < 0) return 1;
        if (bytes === 0) break;
        found.push(...u.look(va, bytes, dirents));
      }
      const { ino }: Stat = yield sys.stat("file3");
      if (found.length !== 11 || !found.includes("4 folder") || !found.includes("8 file9")) return 2;
      const status = yield* all_give(sys, [
        [sys.lseek(fd, 0), 0],
        [sys.getdents(fd, va, 10), -EINVAL],
        [sys.getdents(fd, 0, 100), -EFAULT],
        [sys.getdents(99, va, 100), -EBADF],
        [sys.getdents(fd, va, PAGE_SIZE), 11 * 32],
        [sys.rmdir("folder"), 0],
      ]);
      if (status !== 0) return 10 + status;
      if (u.look(va, PAGE_SIZE, (memory) => new DataView(memory.buffer).getUint32(7 * 32, true)) !== ino) return 3;
      for (let i = 0; i < 10; i++) yield sys.unlink(`file${i}`);
      return 0;
    },
  },
  {
    name: "names: 255 bytes and no more; . and .. and slashes",
    *body(sys): Steps<number> {
      const long = "n".repeat(255);
      yield* make(sys, long, "long");
      if ((yield* text_of(sys, `./${long}`)) !== "long") return 1;
      yield sys.mkdir("d");
      if ((yield* text_of(sys, `d/..//./${long}`)) !== "long") return 2;
      const status = yield* all_give(sys, [
        [sys.open(`${long}n`, CREATE), -ENAMETOOLONG],
        [sys.mkdir(`${long}n`), -ENAMETOOLONG],
        [sys.open("x".repeat(5000)), -ENAMETOOLONG],
        [sys.open(""), -ENOENT],
        [sys.open(`${long}/`), -ENOTDIR],
        [sys.unlink("."), -EISDIR],
        [sys.rmdir("d/."), -EINVAL],
        [sys.rmdir("d/.."), -ENOTEMPTY],
        [sys.unlink(long), 0],
        [sys.rmdir("d/"), 0],
      ]);
      return status === 0 ? 0 : 10 + status;
    },
  },
  {
    name: "folders: ten deep; one with something in it stays",
    *body(sys): Steps<number> {
      let path = "d";
      for (let i = 0; i < 10; i++, path += "/d") if ((yield sys.mkdir(path)) !== 0) return 1;
      if ((yield sys.mkdir("d")) !== -EEXIST || (yield sys.rmdir("d")) !== -ENOTEMPTY) return 2;
      if ((yield sys.unlink("d")) !== -EISDIR) return 3;
      for (path = path.slice(0, -2); path !== ""; path = path.slice(0, -2)) if ((yield sys.rmdir(path)) !== 0) return 4;
      return 0;
    },
  },
  {
    name: "the current folder: chdir, getcwd, paths from it, and its removal",
    *body(sys): Steps<number> {
      const home: string = yield sys.getcwd();
      yield sys.mkdir("d");
      if ((yield sys.chdir("d")) !== 0 || (yield sys.getcwd()) !== `${home}/d`) return 1;
      yield* make(sys, "f", "here");
      if ((yield* text_of(sys, `${home}/d/f`)) !== "here") return 2;
      const inherited = yield* in_child(sys, function* (): Steps<number> {
        const ok = (yield sys.getcwd()) === `${home}/d`;
        yield sys.chdir("/");
        return ok ? 0 : 1;
      });
      if (inherited !== 0 || (yield sys.getcwd()) !== `${home}/d`) return 3;
      yield sys.unlink("f");
      if ((yield sys.rmdir(`${home}/d`)) !== 0 || (yield sys.getcwd()) !== -ENOENT) return 4;
      if ((yield sys.open("f", CREATE)) !== -ENOENT) return 5; // a folder without a name holds no new files
      return yield* all_give(sys, [[sys.chdir("/proc/version"), -ENOTDIR], [sys.chdir("nowhere"), -ENOENT], [sys.chdir(home), 0]]); // prettier-ignore
    },
  },
  {
    name: "rename: files over files, folders with all in them, and what it refuses",
    *body(sys): Steps<number> {
      yield* make(sys, "a", "A");
      yield* make(sys, "b", "B");
      yield sys.mkdir("d");
      yield* make(sys, "d/f", "F");
      const long = "l".repeat(100);
      const status = yield* all_give(sys, [
        [sys.rename("a", "b"), 0],
        [sys.open("a"), -ENOENT],
        [sys.rename("b", "b"), 0],
        [sys.rename("b", long), 0],
        [sys.rename(long, "d/b"), 0],
        [sys.rename("d", "e"), 0],
        [sys.rename("e", "e/x"), -EINVAL],
        [sys.rename("e/f", "e"), -ENOTEMPTY],
        [sys.rename("nowhere", "x"), -ENOENT],
        [sys.rename("e/b", "/proc/x"), -EXDEV],
        [sys.mkdir("empty"), 0],
        [sys.rename("e/b", "empty"), -EISDIR],
        [sys.rename("empty", "e/b"), -ENOTDIR],
        [sys.rename("e", "empty"), 0],
      ]);
      if (status !== 0) return status;
      if ((yield* text_of(sys, "empty/b")) !== "A" || (yield* text_of(sys, "empty/f")) !== "F") return 20;
      for (const path of ["empty/b", "empty/f"]) yield sys.unlink(path);
      return yield sys.rmdir("empty");
    },
  },
  {
    name: "a file over which another is moved lives on for who has it open",
    *body(sys): Steps<number> {
      yield* make(sys, "a", "new");
      yield* make(sys, "b", "old");
      const fd: number = yield sys.open("b");
      yield sys.rename("a", "b");
      if ((yield sys.read(fd, 10)) !== "old" || (yield* text_of(sys, "b")) !== "new") return 1;
      if (((yield sys.fstat(fd)) as Stat).nlink !== 0) return 2;
      yield sys.close(fd);
      return yield sys.unlink("b");
    },
  },
  {
    name: "hard links: one inode, as many names, gone with the last",
    *body(sys): Steps<number> {
      yield* make(sys, "a", "linked");
      for (const name of ["b", "c"]) if ((yield sys.link("a", name)) !== 0) return 1;
      const [a, c]: [Stat, Stat] = [yield sys.stat("a"), yield sys.stat("c")];
      if (a.nlink !== 3 || a.ino !== c.ino) return 2;
      yield sys.unlink("a");
      if ((yield* text_of(sys, "c")) !== "linked") return 3;
      const status = yield* all_give(sys, [
        [sys.link("b", "c"), -EEXIST],
        [sys.link(".", "d"), -EPERM],
        [sys.link("/proc/version", "v"), -EXDEV],
        [sys.rename("b", "c"), 0], // of one file: nothing is done
        [sys.unlink("b"), 0],
        [sys.unlink("c"), 0],
        [sys.unlink("c"), -ENOENT],
      ]);
      return status === 0 ? 0 : 10 + status;
    },
  },
  {
    name: "symbolic links lead on, in circles only so far",
    *body(sys): Steps<number> {
      yield* make(sys, "f", "found");
      yield sys.mkdir("d");
      yield sys.symlink("../f", "d/l");
      yield sys.symlink("round", "round");
      if ((yield* text_of(sys, "d/l")) !== "found" || (yield sys.readlink("d/l")) !== "../f") return 1;
      const status = yield* all_give(sys, [
        [sys.open("round"), -ELOOP],
        [sys.readlink("f"), -EINVAL],
        [sys.symlink("x", "f"), -EEXIST],
        ...["d/l", "round", "f"].map((path) => [sys.unlink(path), 0] as const),
        [sys.rmdir("d"), 0],
      ]);
      return status === 0 ? 0 : 10 + status;
    },
  },
  {
    name: "a file without a name lives until the last who has it open",
    *body(sys): Steps<number> {
      const fd: number = yield sys.open("f", CREATE);
      yield sys.unlink("f");
      yield sys.write(fd, "still here");
      const status = yield* in_child(sys, function* (): Steps<number> {
        yield sys.lseek(fd, 0, SEEK_SET);
        return (yield sys.read(fd, 100)) === "still here" ? 0 : 1;
      });
      yield sys.close(fd);
      return status;
    },
  },
  {
    name: "dup, dup2 and fork share a position; open does not",
    *body(sys): Steps<number> {
      yield* make(sys, "f", "0123456789");
      const fd: number = yield sys.open("f");
      const [same, other]: [number, number] = [yield sys.dup(fd), yield sys.open("f")];
      yield sys.read(fd, 2);
      if ((yield sys.dup2(fd, 40)) !== 40 || (yield sys.read(40, 2)) !== "23") return 1;
      yield* in_child(sys, function* (): Steps<number> {
        yield sys.read(fd, 2);
        return 0;
      });
      if ((yield sys.read(same, 2)) !== "67" || (yield sys.read(other, 2)) !== "01") return 2;
      const status = yield* all_give(sys, [
        [sys.dup(99), -EBADF],
        [sys.dup2(99, 3), -EBADF],
        [sys.dup2(fd, -1), -EBADF],
        [sys.dup2(fd, 5000), -EBADF],
        [sys.dup2(fd, fd), fd],
        [sys.close(same), 0],
        [sys.close(same), -EBADF],
        [sys.read(fd, 2), "89"],
        [sys.unlink("f"), 0],
      ]);
      return status === 0 ? 0 : 10 + status;
    },
  },
  {
    name: "seeking: behind the end is nothing, or zeroes once more is written there",
    *body(sys): Steps<number> {
      const fd: number = yield sys.open("f", CREATE);
      const va: number = yield sys.sbrk(PAGE_SIZE);
      if ((yield sys.lseek(fd, 10_000, SEEK_SET)) !== 10_000 || (yield sys.read(fd, 10)) !== "") return 1;
      yield sys.write(fd, "end");
      if ((yield sys.lseek(fd, -3, SEEK_END)) !== 10_000 || (yield sys.lseek(fd, 5000, SEEK_SET)) !== 5000) return 2;
      if ((yield sys.read(fd, va, PAGE_SIZE)) !== PAGE_SIZE || u.load32(va) !== 0) return 3;
      if ((yield sys.lseek(fd, -1, SEEK_SET)) !== -EINVAL) return 4;
      yield sys.close(fd);
      return yield sys.unlink("f");
    },
  },
  {
    name: "a table of open files gets full, and has room once one is closed",
    *body(sys): Steps<number> {
      yield* make(sys, "f");
      let last = 0;
      for (;;) {
        const fd: number = yield sys.open("f");
        if (fd < 0) break;
        last = fd;
      }
      if ((yield sys.open("f")) !== -EMFILE || (yield sys.dup(last)) !== -EMFILE || (yield sys.pipe()) !== -EMFILE)
        return 1;
      yield sys.close(last);
      return (yield sys.open("f")) === last ? yield sys.unlink("f") : 2; // exit closes them all
    },
  },
]);
