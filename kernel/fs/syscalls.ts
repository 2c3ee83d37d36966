/**
 * The system calls on files: open, close, read, write, lseek, ftruncate, dup, mkdir, rmdir, unlink, stat, readdir.
 * Each works on the current task's table. Texts are strings of bytes.
 */
import { NULL } from "../../hal/addr.ts";
import { EBADF, is_err } from "../lib/errno.ts";
import { register_syscall, type Result } from "../syscall.ts";
import { TaskStruct, current_task } from "../task.ts";
import { bytes_of, bytes_to_string } from "./bytes.ts";
import { close_fd, fd_install, files_lookup_fd, fput, get_file, get_unused_fd } from "./file_table.ts";
import { O_DIRECTORY, O_RDONLY, type FilePtr, type FilesPtr } from "./fs.ts";
import { do_mkdirat, do_rmdir, do_unlinkat } from "./namei.ts";
import { do_filp_open, file_llseek, file_read, file_truncate, file_write, iterate_dir, vfs_stat } from "./open.ts";

const current_files = (): FilesPtr => TaskStruct.files.get(current_task());

/** Runs `fn` with a table to work on; a kernel thread has none. */
function with_files(fn: (files: FilesPtr) => number): number {
  const files = current_files();
  return files === NULL ? -EBADF : fn(files);
}

/** Runs `fn` with the file of that number. */
function with_fd(fd: number, fn: (file: FilePtr) => Result): Result {
  const files = current_files();
  const file = files === NULL ? NULL : files_lookup_fd(files, fd);
  return file === NULL ? -EBADF : fn(file);
}

function sys_open(path: string, flags = O_RDONLY, mode = 0o644): number {
  return with_files((files) => {
    const fd = get_unused_fd(files);
    if (fd < 0) return fd;
    const file = do_filp_open(path, flags, mode);
    if (is_err(file)) return file;
    fd_install(files, fd, file);
    return fd;
  });
}

function sys_dup(fd: number): number {
  return with_files((files) => {
    const file = files_lookup_fd(files, fd);
    if (file === NULL) return -EBADF;
    const copy = get_unused_fd(files);
    if (copy >= 0) fd_install(files, copy, get_file(file));
    return copy;
  });
}

function sys_read(fd: number, count: number): Result {
  return with_fd(fd, (file) => {
    const result = file_read(file, count);
    return typeof result === "number" ? result : bytes_to_string(result);
  });
}

function sys_readdir(path: string): Result {
  const file = do_filp_open(path, O_RDONLY | O_DIRECTORY, 0);
  if (is_err(file)) return file;
  const entries = iterate_dir(file);
  fput(file);
  return typeof entries === "number" ? entries : entries.map(({ name }) => name);
}

register_syscall("open", "s?nn", sys_open);
register_syscall("close", "n", (fd: number) => with_files((files) => close_fd(files, fd)));
register_syscall("read", "nn", sys_read);
register_syscall("write", "ns", (fd: number, text: string) => with_fd(fd, (file) => file_write(file, bytes_of(text))));
register_syscall("lseek", "nnn", (fd: number, offset: number, whence: number) =>
  with_fd(fd, (file) => file_llseek(file, offset, whence)),
);
register_syscall("ftruncate", "nn", (fd: number, size: number) => with_fd(fd, (file) => file_truncate(file, size)));
register_syscall("dup", "n", sys_dup);
register_syscall("mkdir", "s?n", (path: string, mode = 0o755) => do_mkdirat(path, mode));
register_syscall("rmdir", "s", do_rmdir);
register_syscall("unlink", "s", do_unlinkat);
register_syscall("stat", "s", (path: string) => vfs_stat(path, true) as Result);
register_syscall("readdir", "s", sys_readdir);
