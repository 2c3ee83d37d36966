/** Names: making, finding and removing files and directories, and what wrong input gets. */
import { describe, expect, it } from "vitest";
import { bytes_of, bytes_to_string, utf8_decode, utf8_encode } from "../../../kernel/fs/bytes.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import {
  Dentry, File, Inode, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, SEEK_CUR, SEEK_END,
  SEEK_SET, S_IFDIR, S_IFLNK, S_IFMT,
} from "../../../kernel/fs/fs.ts"; // prettier-ignore
import { do_link, do_mkdirat, do_readlink, do_rename, do_rmdir, do_symlink, do_unlinkat } from "../../../kernel/fs/namei.ts"; // prettier-ignore
import { do_filp_open, file_llseek, file_read, file_truncate, file_write, iterate_dir, vfs_stat, type Stat } from "../../../kernel/fs/open.ts"; // prettier-ignore
import {
  EACCES, EBADF, EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, ENOTEMPTY, EPERM,
} from "../../../kernel/lib/errno.ts"; // prettier-ignore
import { kernfs_remove } from "../../../kernel/fs/kernfs.ts";
import { sysfs_create } from "../../../kernel/fs/sysfs.ts";
import { ksym_address } from "../../../kernel/lib/ksym.ts";
import {
  cat,
  echo,
  expect_same,
  figures,
  ls,
  settle,
  text_of,
  with_each_failure,
  with_file,
  with_files,
} from "./files.ts";

const mkdir = (path: string): number => do_mkdirat(path, 0o755);
const stat = (path: string): Stat => vfs_stat(path, true) as Stat;
/** What boot makes in /. */
const ROOT = ["bin", "dev", "proc", "sys", "tmp", "usr"];

describe("files and directories", () => {
  it("a file says what was written to it, from anywhere to anywhere", () => {
    with_files(() => {
      expect(echo("hello", "/a")).toBe(5);
      expect(cat("/a")).toBe("hello");
      expect(echo(", world", "/a", O_APPEND)).toBe(7);
      expect(cat("/a")).toBe("hello, world");
      expect(echo("x", "/a", 0)).toBe(1);
      expect(cat("/a")).toBe("xello, world");
      expect(echo("", "/a")).toBe(0);
      expect(cat("/a")).toBe("");
      expect(do_unlinkat("/a")).toBe(0);
      expect(cat("/a")).toBe(-ENOENT);
    });
  });

  it("one open file reads and writes at a position that it keeps and that lseek moves", () => {
    with_files(() => {
      with_file("/a", O_RDWR | O_CREAT, (file) => {
        expect(file_write(file, bytes_of("0123456789"))).toBe(10);
        expect(file_llseek(file, 3, SEEK_SET)).toBe(3);
        expect(bytes_to_string(file_read(file, 4) as Uint8Array)).toBe("3456");
        expect(file_llseek(file, -2, SEEK_CUR)).toBe(5);
        expect(file_write(file, bytes_of("AB"))).toBe(2);
        expect(bytes_to_string(file_read(file, 100) as Uint8Array)).toBe("789");
        expect((file_read(file, 100) as Uint8Array).length).toBe(0);
        expect(file_llseek(file, 0, SEEK_END)).toBe(10);
        expect(file_llseek(file, -11, SEEK_END)).toBe(-EINVAL);
        expect(file_llseek(file, 0, 7)).toBe(-EINVAL);
        expect(file_read(file, -1)).toBe(-EINVAL);
        expect(file_truncate(file, 4)).toBe(0);
        expect(cat("/a")).toBe("0123");
        expect(file_truncate(file, -1)).toBe(-EINVAL);
      });
      do_unlinkat("/a");
    });
  });

  it("a directory lists what is in it, newest first, and counts its subdirectories", () => {
    with_files(() => {
      expect(mkdir("/d")).toBe(0);
      expect(mkdir("/d/x/")).toBe(0);
      echo("", "/d/y");
      with_file("/d", O_DIRECTORY, (file) => {
        expect((iterate_dir(file) as { name: string }[]).map(({ name }) => name)).toEqual(["y", "x"]);
      });
      expect(stat("/d").nlink).toBe(3);
      expect(stat("/d").mode & S_IFMT).toBe(S_IFDIR);
      expect(stat("/d/x").mode & 0o777).toBe(0o755);
      expect(do_rmdir("/d/x")).toBe(0);
      expect(stat("/d").nlink).toBe(2);
      expect(ls("/d")).toEqual(["y"]);
      do_unlinkat("/d/y");
      do_rmdir("/d/");
      expect(ls("/d")).toBe(-ENOENT);
      expect(ls("/")).toEqual(ROOT);
    });
  });

  it("paths go through . and .., over mounts in both directions, and stop at the root", () => {
    with_files(() => {
      mkdir("/d");
      echo("1", "/d/a");
      for (const path of [
        "d/a",
        "//d///a",
        "/./d/./a",
        "/d/../d/a",
        "/../../d/a",
        "/proc/../d/a",
        "/proc/sys/../../d/a",
      ])
        expect(cat(path)).toBe("1");
      expect(stat("/proc/..").ino).toBe(stat("/").ino);
      expect(stat("/proc").dev).not.toBe(stat("/").dev);
      do_unlinkat("/d/a");
      do_rmdir("/d");
    });
  });

  it("names may have any bytes and up to 255 of them; long ones lie outside the dentry", () => {
    with_files(() => {
      const names = ["grün 東京 ☃", "a".repeat(39), "b".repeat(40), "c".repeat(255)];
      for (const name of names) expect(echo(name, `/tmp/${utf8_encode(name)}`.slice(0, 300))).toBe(name.length);
      expect((ls("/tmp") as string[]).map(utf8_decode).sort()).toEqual([...names].sort());
      expect(text_of(`/tmp/${"c".repeat(255)}`)).toBe("c".repeat(255));
      for (const name of names) expect(do_unlinkat(`/tmp/${utf8_encode(name)}`)).toBe(0);
    });
  });

  it("an open file outlives its name, and its contents go with its last user", () => {
    with_files(() => {
      const file = do_filp_open("/a", O_RDWR | O_CREAT, 0o644);
      file_write(file, bytes_of("still here"));
      expect(do_unlinkat("/a")).toBe(0);
      expect(cat("/a")).toBe(-ENOENT);
      expect(Inode.i_nlink.get(File.f_inode.get(file))).toBe(0);
      echo("another", "/a");
      file_llseek(file, 0, SEEK_SET);
      expect(bytes_to_string(file_read(file, 100) as Uint8Array)).toBe("still here");
      expect(cat("/a")).toBe("another");
      fput(file);
      do_unlinkat("/a");
    });
  });

  it("an open directory that was removed is empty", () => {
    with_files(() => {
      mkdir("/d");
      const dir = do_filp_open("/d", O_RDONLY, 0);
      expect(do_rmdir("/d")).toBe(0);
      expect(iterate_dir(dir)).toEqual([]);
      fput(dir);
    });
  });
});

describe("wrong input", () => {
  /** Each line: what is done, what it answers. */
  const refused: readonly (readonly [string, () => number | unknown, number])[] = [
    ["open of nothing", () => cat("/nothing"), -ENOENT],
    ["open below nothing", () => echo("", "/nothing/a"), -ENOENT],
    ["open below a file", () => cat("/f/a"), -ENOTDIR],
    ["open of a file with a slash behind it", () => cat("/f/"), -ENOTDIR],
    ["open of a file through a dot", () => cat("/f/."), -ENOTDIR],
    ["open of the empty path", () => cat(""), -ENOENT],
    ["reading a directory", () => cat("/d"), -EISDIR],
    ["writing a directory", () => echo("", "/d"), -EISDIR],
    ["making a file with a slash behind it", () => echo("", "/new/"), -EISDIR],
    ["making the root", () => echo("", "/"), -EISDIR],
    ["O_EXCL of what is there", () => with_file("/f", O_CREAT | O_EXCL | O_WRONLY, () => 0), -EEXIST],
    ["O_DIRECTORY of a file", () => with_file("/f", O_DIRECTORY, () => 0), -ENOTDIR],
    ["access mode 3", () => with_file("/f", 3, () => 0), -EINVAL],
    ["listing a file", () => ls("/f"), -ENOTDIR],
    ["mkdir of what is there", () => mkdir("/d"), -EEXIST],
    ["mkdir of a file's name", () => mkdir("/f"), -EEXIST],
    ["mkdir of the root", () => mkdir("/"), -EEXIST],
    ["mkdir of a dot", () => mkdir("/d/.."), -EEXIST],
    ["mkdir below nothing", () => mkdir("/nothing/d"), -ENOENT],
    ["mkdir below a file", () => mkdir("/f/d"), -ENOTDIR],
    ["rmdir of a directory with something in it", () => do_rmdir("/d"), -ENOTEMPTY],
    ["rmdir of a file", () => do_rmdir("/f"), -ENOTDIR],
    ["rmdir of nothing", () => do_rmdir("/nothing"), -ENOENT],
    ["rmdir of the root", () => do_rmdir("/"), -EBUSY],
    ["rmdir of a mount point", () => do_rmdir("/proc"), -EBUSY],
    ["rmdir of .", () => do_rmdir("/d/."), -EINVAL],
    ["rmdir of ..", () => do_rmdir("/d/e/.."), -ENOTEMPTY],
    ["unlink of a directory", () => do_unlinkat("/d"), -EISDIR],
    ["unlink of nothing", () => do_unlinkat("/nothing"), -ENOENT],
    ["unlink of a file with a slash behind it", () => do_unlinkat("/f/"), -ENOTDIR],
    ["unlink of the root", () => do_unlinkat("/"), -EISDIR],
    ["a name of 256 bytes", () => echo("", `/${"x".repeat(256)}`), -ENAMETOOLONG],
    ["a path of 4096 bytes", () => cat("/f".padStart(4096, "/")), -ENAMETOOLONG],
    ["stat of nothing", () => vfs_stat("/nothing", true), -ENOENT],
    ["making a file in /proc", () => echo("", "/proc/new"), -ENOENT],
    ["making a file in /sys", () => echo("", "/sys/new"), -EACCES],
    ["mkdir in /sys", () => mkdir("/sys/new"), -EPERM],
    ["unlink in /proc", () => do_unlinkat("/proc/meminfo"), -EPERM],
    ["rmdir in /sys", () => do_rmdir("/sys/kernel"), -EPERM],
    ["reading a file that is write only", () => cat("/proc/sys/vm/drop_caches"), -EACCES],
    ["writing a file that is read only", () => echo("1", "/sys/kernel/slab/dentry/order"), -EACCES],
    ["writing a number that is none", () => echo("many", "/proc/sys/vm/drop_caches"), -EINVAL],
    ["writing a number too large", () => echo("5", "/proc/sys/vm/drop_caches"), -EINVAL],
    ["a directory of a pid that is not", () => ls("/proc/4711"), -ENOENT],
    ["a pid with a leading zero", () => ls("/proc/01"), -ENOENT],
  ]; // prettier-ignore

  it("is refused with Linux's error, and nothing changes", () => {
    with_files(() => {
      echo("text", "/f");
      mkdir("/d");
      mkdir("/d/e");
      const before = figures();
      for (const [what, attempt, error] of refused) {
        expect(attempt(), what).toBe(error);
        expect([cat("/f"), ls("/d"), ls("/")], what).toEqual(["text", ["e"], [...ROOT, "d", "f"].sort()]);
      }
      expect_same(before);
      do_rmdir("/d/e");
      do_rmdir("/d");
      do_unlinkat("/f");
    });
  });

  it("the longest path that is allowed works", () => {
    with_files(() => {
      expect(echo("1", "/f")).toBe(1);
      expect(cat("/f".padStart(4095, "/"))).toBe("1");
      do_unlinkat("/f");
    });
  });

  it("a file is read and written only as it was opened", () => {
    with_files(() => {
      with_file("/f", O_CREAT | O_WRONLY, (file) => expect(file_read(file, 1)).toBe(-EBADF));
      with_file("/f", O_RDONLY, (file) => expect(file_write(file, bytes_of("x"))).toBe(-EBADF));
      with_file("/f", O_RDONLY, (file) => expect(file_truncate(file, 0)).toBe(-EINVAL));
      do_unlinkat("/f");
    });
  });

  it("links that lead to themselves end after 40", () => {
    with_files(() => {
      const link = sysfs_create("loop", { mode: S_IFLNK | 0o777, show: ksym_address(() => "../sys/loop") });
      expect(cat("/sys/loop")).toBe(-ELOOP);
      expect(cat("/sys/loop/x")).toBe(-ELOOP);
      expect((vfs_stat("/sys/loop", false) as Stat).mode & S_IFMT).toBe(S_IFLNK);
      settle();
      kernfs_remove(link);
    });
  });

  it("O_TRUNC empties a file when it is opened", () => {
    with_files(() => {
      echo("0123456789", "/f");
      with_file("/f", O_WRONLY | O_TRUNC, (file) => {
        expect(stat("/f").size).toBe(0);
        expect(Dentry.d_count.get(File.f_path_dentry.get(file))).toBe(2);
      });
      do_unlinkat("/f");
    });
  });
});

describe("names that move", () => {
  it("rename keeps the inode, long names and short, and everything below a directory", () => {
    with_files(() => {
      const before = figures();
      const links = stat("/").nlink;
      const [short, long] = ["/s", `/${"l".repeat(100)}`];
      echo("text", short);
      const { ino } = stat(short);
      for (const [from, to] of [
        [short, long],
        [long, `${long}er`],
        [`${long}er`, short],
      ]) {
        // prettier-ignore
        expect(do_rename(from!, to!)).toBe(0);
        expect([cat(from!), cat(to!), stat(to!).ino]).toEqual([-ENOENT, "text", ino]);
      }
      mkdir("/d");
      mkdir("/d/e");
      do_rename(short, "/d/e/f");
      expect([do_rename("/d", "/tmp/d"), cat("/tmp/d/e/f"), ls("/tmp")]).toEqual([0, "text", ["d"]]);
      expect([stat("/tmp").nlink, stat("/").nlink]).toEqual([3, links]);
      do_unlinkat("/tmp/d/e/f");
      do_rmdir("/tmp/d/e");
      do_rmdir("/tmp/d");
      expect_same(before);
    });
  });

  it("with any allocation failing a rename, a link or a symbolic link is made or is not", () => {
    with_files(() => {
      echo("a", "/a");
      const path = `/${"n".repeat(60)}`;
      const before = figures();
      const target = "/tmp/of/more/than/sixteen/bytes";
      for (const act of [() => do_rename("/a", path), () => do_link("/a", path), () => do_symlink(target, path)]) {
        const failures = with_each_failure(act, (error) => {
          expect([0, -ENOMEM]).toContain(error);
          const there = vfs_stat(path, false);
          expect(typeof there === "number").toBe(error !== 0);
          expect(cat("/a")).toBe(error === 0 && act() === -ENOENT ? -ENOENT : "a");
          if (error === 0 && cat("/a") === -ENOENT) do_rename(path, "/a");
          else do_unlinkat(path);
          expect_same(before);
        });
        expect(failures).toBeGreaterThanOrEqual(3);
      }
      expect(do_symlink(target, path)).toBe(0);
      expect(do_readlink(path)).toBe(target);
      do_unlinkat(path);
      do_unlinkat("/a");
    });
  });
});
