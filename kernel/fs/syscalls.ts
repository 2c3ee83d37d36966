/**
 * The system calls on files: open, close, dup, dup2, pipe, lseek, ftruncate; mkdir, rmdir, unlink, link, symlink, readlink,
 * rename, chdir, getcwd; stat, lstat, fstat, readdir, getdents. read and write are in read_write.ts.
 *
 * Each works on the current task's table and directory. Texts are strings of bytes. Where a call has something to tell it
 * returns it; with an address behind its arguments it writes it there instead, in Linux's layout, and returns 0 or, if the
 * program may not write there, -EFAULT:
 *
 *     yield sys.pipe()            [3, 4]
 *     yield sys.pipe(va)          0, and two words at va
 */
import { NULL, type Virt } from "../../hal/addr.ts";
import { copy_bytes_to_user } from "../../mm/uaccess.ts";
import { EBADF, EFAULT, EINVAL, ERANGE, is_err } from "../lib/errno.ts";
import { register_syscall, type Result } from "../syscall.ts";
import { bytes_of } from "./bytes.ts";
import { close_fd, fd_install, files_lookup_fd, fput, get_file, get_unused_fd, replace_fd } from "./file_table.ts";
import { File, O_DIRECTORY, O_NONBLOCK, O_RDONLY, type Dirent } from "./fs.ts";
import { with_fd, with_files } from "./fs_struct.ts";
import {
  do_chdir, do_getcwd, do_link, do_mkdirat, do_readlink, do_rename, do_rmdir, do_symlink, do_unlinkat,
} from "./namei.ts"; // prettier-ignore
import { do_filp_open, file_llseek, file_stat, file_truncate, iterate_dir, vfs_stat, type Stat } from "./open.ts";
import { create_pipe_files } from "./pipe.ts";
import "./read_write.ts";

function sys_open(path: string, flags = O_RDONLY, mode = 0o644): Result {
  return with_files((files) => {
    const fd = get_unused_fd(files);
    if (fd < 0) return fd;
    const file = do_filp_open(path, flags, mode);
    if (is_err(file)) return file;
    fd_install(files, fd, file);
    return fd;
  });
}

function sys_dup(fd: number): Result {
  return with_files((files) => {
    const file = files_lookup_fd(files, fd);
    if (file === NULL) return -EBADF;
    const copy = get_unused_fd(files);
    if (copy >= 0) fd_install(files, copy, get_file(file));
    return copy;
  });
}

function sys_dup2(from: number, to: number): Result {
  return with_files((files) => {
    const file = files_lookup_fd(files, from);
    if (file === NULL) return -EBADF;
    return from === to ? to : replace_fd(files, to, get_file(file));
  });
}

/** Without `va` returns the two numbers, to read from and to write to. */
function sys_pipe(va?: Virt, flags = 0): Result {
  if (flags & ~O_NONBLOCK) return -EINVAL;
  return with_files((files) => {
    const ends = create_pipe_files(flags);
    if (typeof ends === "number") return ends;
    const fds: number[] = [];
    for (const file of ends) {
      const fd = get_unused_fd(files);
      if (fd < 0) {
        for (const taken of fds) close_fd(files, taken);
        for (const rest of ends.slice(fds.length)) fput(rest);
        return fd;
      }
      fd_install(files, fd, file);
      fds.push(fd);
    }
    if (!va) return fds;
    if (copy_bytes_to_user(va, new Uint8Array(new Uint32Array(fds).buffer)) === 0) return 0;
    for (const fd of fds) close_fd(files, fd);
    return -EFAULT;
  });
}

/** `struct stat` of x86-64. */
function stat_bytes(stat: Stat): Uint8Array {
  const view = new DataView(new ArrayBuffer(144));
  const put = (at: number, value: number): void => {
    view.setUint32(at, value % 2 ** 32, true);
    view.setUint32(at + 4, value / 2 ** 32, true);
  };
  put(0, stat.dev);
  put(8, stat.ino);
  put(16, stat.nlink);
  view.setUint32(24, stat.mode, true);
  put(48, stat.size);
  put(56, 4096);
  put(64, stat.blocks);
  put(88, Math.floor(stat.mtime / 1e9));
  put(96, stat.mtime % 1e9);
  return new Uint8Array(view.buffer);
}

function answer_stat(stat: Stat | number, va?: Virt): Result {
  if (typeof stat === "number" || va === undefined) return stat as Result;
  return copy_bytes_to_user(va, stat_bytes(stat)) === 0 ? 0 : -EFAULT;
}

function sys_getcwd(va?: Virt, size = 0): Result {
  const path = do_getcwd();
  if (typeof path === "number" || va === undefined) return path;
  if (path.length >= size) return -ERANGE;
  return copy_bytes_to_user(va, bytes_of(`${path}\0`)) === 0 ? path.length + 1 : -EFAULT;
}

function sys_readdir(path: string): Result {
  const file = do_filp_open(path, O_RDONLY | O_DIRECTORY, 0);
  if (is_err(file)) return file;
  const entries = iterate_dir(file);
  fput(file);
  return typeof entries === "number" ? entries : entries.map(({ name }) => name);
}

/** `struct linux_dirent64`: inode, where the next one is, length, type, name. */
function dirent_bytes({ name, ino, type }: Dirent, next: number): Uint8Array {
  const bytes = new Uint8Array((19 + name.length + 1 + 7) & ~7);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ino % 2 ** 32, true);
  view.setUint32(4, ino / 2 ** 32, true);
  view.setUint32(8, next, true);
  view.setUint16(16, bytes.length, true);
  view.setUint8(18, type >> 12);
  bytes.set(bytes_of(name), 19);
  return bytes;
}

/** As many entries, from the file's position on, as have room; how many bytes that were. 0 at the end. */
function sys_getdents(fd: number, va: Virt, room: number): Result {
  return with_fd(fd, (file) => {
    const all = iterate_dir(file);
    if (typeof all === "number") return all;
    let done = 0;
    for (let pos = File.f_pos.get(file); pos < all.length; pos++) {
      const bytes = dirent_bytes(all[pos]!, pos + 1);
      if (done + bytes.length > room) return done > 0 ? done : -EINVAL;
      if (copy_bytes_to_user(va + done, bytes) !== 0) return done > 0 ? done : -EFAULT;
      done += bytes.length;
      File.f_pos.set(file, pos + 1);
    }
    return done;
  });
}

register_syscall("open", "s?nn", sys_open);
register_syscall("close", "n", (fd: number) => with_files((files) => close_fd(files, fd)));
register_syscall("dup", "n", sys_dup);
register_syscall("dup2", "nn", sys_dup2);
register_syscall("pipe", "?pn", sys_pipe);
register_syscall("lseek", "nnn", (fd: number, offset: number, whence: number) =>
  with_fd(fd, (file) => file_llseek(file, offset, whence)),
);
register_syscall("ftruncate", "nn", (fd: number, size: number) => with_fd(fd, (file) => file_truncate(file, size)));
register_syscall("mkdir", "s?n", (path: string, mode = 0o755) => do_mkdirat(path, mode));
register_syscall("rmdir", "s", do_rmdir);
register_syscall("unlink", "s", do_unlinkat);
register_syscall("link", "ss", do_link);
register_syscall("symlink", "ss", do_symlink);
register_syscall("readlink", "s", do_readlink);
register_syscall("rename", "ss", do_rename);
register_syscall("chdir", "s", do_chdir);
register_syscall("getcwd", "?pn", sys_getcwd);
register_syscall("stat", "s?p", (path: string, va?: Virt) => answer_stat(vfs_stat(path, true), va));
register_syscall("lstat", "s?p", (path: string, va?: Virt) => answer_stat(vfs_stat(path, false), va));
register_syscall("fstat", "n?p", (fd: number, va?: Virt) => {
  const stat = with_fd(fd, file_stat);
  return answer_stat(stat, va);
});
register_syscall("readdir", "s", sys_readdir);
register_syscall("getdents", "npn", sys_getdents);
