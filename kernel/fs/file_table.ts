/**
 * Open files, and the tables through which tasks name them by number.
 *
 *     files_struct.fd[n] -> file        counted once for each table entry that points to it
 *
 * A table starts inside the files_struct with 64 entries; a larger one is a kmalloc object of twice the size, and so on
 * up to RLIMIT_NOFILE. Locks: files_struct.file_lock protects fd, max_fds and next_fd.
 *
 * Unlike Linux: no close-on-exec, no RCU: a table and a file are freed at once.
 */
import { NULL } from "../../hal/addr.ts";
import { atomic_add, atomic_add_return } from "../../hal/atomic.ts";
import { static_data } from "../../hal/image.ts";
import { ram_copy, ram_zero } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { GFP_KERNEL, GFP_KERNEL_ACCOUNT } from "../../mm/gfp.ts";
import { kcalloc, kfree } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, kmem_cache_zalloc } from "../../mm/slab_common.ts";
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { node_state } from "../../mm/zone.ts";
import { EBADF, EMFILE, ENFILE, ENOMEM } from "../lib/errno.ts";
import { pr_info } from "../lib/printk.ts";
import { spin_lock, spin_unlock } from "../lib/spinlock.ts";
import { dput } from "./dcache.ts";
import { File, FilesStruct, NR_OPEN_DEFAULT, file_ops, type FilePtr, type FilesPtr } from "./fs.ts";

/** Most open files of a task. */
export const RLIMIT_NOFILE = 1024;
const FdEntry = struct("fd_entry", { file: "*file" }, { sizeof: 8 });

const file_table = static_data("file_table", {
  filp_cache: "*kmem_cache",
  files_cache: "*kmem_cache",
  nr_files: "u32", // open files of the machine
  max_files: "u32",
});

/** Boot: the caches; a tenth of memory may go into open files. */
export function files_init(): void {
  const flags = SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT;
  const filp_args = { freeptr_offset: File.f_rest.offset };
  file_table.filp_cache = kmem_cache_create("filp", File.sizeof, filp_args, flags | SLAB_TYPESAFE_BY_RCU);
  file_table.files_cache = kmem_cache_create("files_cache", FilesStruct.sizeof, 0, flags);
  file_table.max_files = Math.max(Math.floor((node_state.totalram_pages * 4) / 10), 8192);
}

/** The figures of /proc/sys/fs/file-nr. */
export function files_stat(): { nr_files: number; max_files: number } {
  return { nr_files: file_table.nr_files, max_files: file_table.max_files };
}

/** Makes an open file that is not yet of anything, with one user. -ENFILE or -ENOMEM. */
export function alloc_empty_file(flags: number): FilePtr {
  if (file_table.nr_files >= file_table.max_files) {
    pr_info(`VFS: file-max limit ${file_table.max_files} reached`);
    return -ENFILE;
  }
  const file: FilePtr = kmem_cache_zalloc(file_table.filp_cache, GFP_KERNEL);
  if (file === NULL) return -ENOMEM;
  File.f_flags.set(file, flags);
  File.f_count.set(file, 1);
  file_table.nr_files = file_table.nr_files + 1;
  return file;
}

/** One user more. */
export function get_file(file: FilePtr): FilePtr {
  atomic_add(File.f_count.at(file), 1);
  return file;
}

/** Ends a use; the last one closes the file. */
export function fput(file: FilePtr): void {
  if (atomic_add_return(File.f_count.at(file), -1) > 0) return;
  const dentry = File.f_path_dentry.get(file);
  if (dentry !== NULL) file_ops(file).release?.(file);
  kmem_cache_free(file_table.filp_cache, file);
  file_table.nr_files = file_table.nr_files - 1;
  dput(dentry);
}

const entry_at = (files: FilesPtr, fd: number): number => FilesStruct.fd.get(files) + fd * FdEntry.sizeof;

/** The file of that number, without a use of it; NULL if it is not open. */
export function files_lookup_fd(files: FilesPtr, fd: number): FilePtr {
  if (!(fd >= 0 && fd < FilesStruct.max_fds.get(files))) return NULL;
  return FdEntry.file.get(entry_at(files, fd));
}

/** The open file numbers, ascending. */
export function* open_fds(files: FilesPtr): Generator<number> {
  for (let fd = 0; fd < FilesStruct.max_fds.get(files); fd++) if (files_lookup_fd(files, fd) !== NULL) yield fd;
}

/** Makes an empty table. NULL without memory. */
export function alloc_files_struct(): FilesPtr {
  const files: FilesPtr = kmem_cache_alloc(file_table.files_cache, GFP_KERNEL);
  if (files === NULL) return NULL;
  ram_zero(files, FilesStruct.sizeof);
  FilesStruct.count.set(files, 1);
  FilesStruct.max_fds.set(files, NR_OPEN_DEFAULT);
  FilesStruct.fd.set(files, FilesStruct.fd_array.at(files, 0));
  return files;
}

/** Doubles a table until `fd` fits. 0, -EMFILE or -ENOMEM. */
function expand_files(files: FilesPtr, fd: number): number {
  if (fd >= RLIMIT_NOFILE) return -EMFILE;
  const before = FilesStruct.max_fds.get(files);
  if (fd < before) return 0;
  let size = before;
  while (size <= fd) size *= 2;
  const table = kcalloc(size, FdEntry.sizeof, GFP_KERNEL_ACCOUNT);
  if (table === NULL) return -ENOMEM;
  spin_lock(FilesStruct.file_lock.at(files));
  ram_copy(table, FilesStruct.fd.get(files), before * FdEntry.sizeof);
  const old = FilesStruct.fd.get(files);
  FilesStruct.fd.set(files, table);
  FilesStruct.max_fds.set(files, size);
  spin_unlock(FilesStruct.file_lock.at(files));
  free_fd_table(files, old);
  return 0;
}

function free_fd_table(files: FilesPtr, table: number): void {
  if (table !== FilesStruct.fd_array.at(files, 0)) kfree(table);
}

/** The lowest number that is free, with room for it in the table; -EMFILE or -ENOMEM. It is taken by fd_install. */
export function get_unused_fd(files: FilesPtr): number {
  let fd = FilesStruct.next_fd.get(files);
  while (files_lookup_fd(files, fd) !== NULL) fd++;
  const error = expand_files(files, fd);
  return error === 0 ? fd : error;
}

/** Enters a file under a free number, taking over the caller's use of it. */
export function fd_install(files: FilesPtr, fd: number, file: FilePtr): void {
  spin_lock(FilesStruct.file_lock.at(files));
  FdEntry.file.set(entry_at(files, fd), file);
  FilesStruct.next_fd.set(files, fd + 1);
  spin_unlock(FilesStruct.file_lock.at(files));
}

/** Enters a file under that number, in place of what has it, taking over the caller's use. The number, or -errno. */
export function replace_fd(files: FilesPtr, fd: number, file: FilePtr): number {
  const error = fd < 0 ? -EBADF : expand_files(files, fd);
  if (error !== 0) {
    fput(file);
    return error === -EMFILE ? -EBADF : error;
  }
  close_fd(files, fd);
  FdEntry.file.set(entry_at(files, fd), file);
  return fd;
}

/** Takes a number back and ends its use of the file. 0 or -EBADF. */
export function close_fd(files: FilesPtr, fd: number): number {
  const file = files_lookup_fd(files, fd);
  if (file === NULL) return -EBADF;
  spin_lock(FilesStruct.file_lock.at(files));
  FdEntry.file.set(entry_at(files, fd), NULL);
  FilesStruct.next_fd.set(files, Math.min(FilesStruct.next_fd.get(files), fd));
  spin_unlock(FilesStruct.file_lock.at(files));
  fput(file);
  return 0;
}

/** A copy of a table, for the child of a fork: the same files under the same numbers. NULL without memory. */
export function dup_fd(from: FilesPtr): FilesPtr {
  const files = alloc_files_struct();
  if (files === NULL) return NULL;
  for (const fd of open_fds(from)) {
    if (expand_files(files, fd) !== 0) {
      put_files_struct(files);
      return NULL;
    }
    fd_install(files, fd, get_file(files_lookup_fd(from, fd)));
  }
  FilesStruct.next_fd.set(files, FilesStruct.next_fd.get(from));
  return files;
}

/** Ends a task's use of a table; the last one closes all its files. */
export function put_files_struct(files: FilesPtr): void {
  if (atomic_add_return(FilesStruct.count.at(files), -1) > 0) return;
  for (const fd of open_fds(files)) close_fd(files, fd);
  free_fd_table(files, FilesStruct.fd.get(files));
  kmem_cache_free(file_table.files_cache, files);
}
