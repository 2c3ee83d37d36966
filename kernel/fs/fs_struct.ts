/**
 * What a task has of the file layer: its table of open files, and where it is in the tree.
 *
 * A program's child gets a copy of both at fork; both go when the task ends. Unlike Linux: nothing moves a task's root
 * from "/", and kernel threads have neither table nor place.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { struct } from "../../hal/struct.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { KMEM_CACHE, kmem_cache_free, kmem_cache_zalloc } from "../../mm/slab_common.ts";
import { SLAB_ACCOUNT, SLAB_HWCACHE_ALIGN, SLAB_PANIC } from "../../mm/slab_layout.ts";
import { set_task_hooks } from "../exit.ts";
import { EBADF, ENOMEM } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { SpinLock } from "../lib/spinlock.ts";
import { TaskStruct, current_task, type TaskPtr } from "../task.ts";
import { dget, dput } from "./dcache.ts";
import { alloc_files_struct, dup_fd, files_lookup_fd, put_files_struct } from "./file_table.ts";
import type { FilePtr, FilesPtr } from "./fs.ts";
import { root_path, type Path } from "./namespace.ts";

const FsStruct = struct(
  "fs_struct",
  {
    users: "u32",
    umask: "u32",
    lock: SpinLock,
    seq: "u64",
    root_mnt: "*mount",
    root_dentry: "*dentry",
    pwd_mnt: "*mount",
    pwd_dentry: "*dentry",
  },
  { sizeof: 56 },
);
type FsPtr = Ptr<"fs_struct">;

const fs_struct = static_data("fs_struct_cache", { cache: "*kmem_cache" });

/** Boot: the cache, and what fork and exit are to do. */
export function fs_struct_init(): void {
  fs_struct.cache = KMEM_CACHE("fs_cache", FsStruct, SLAB_HWCACHE_ALIGN | SLAB_PANIC | SLAB_ACCOUNT);
  set_task_hooks(copy_task_files, exit_task_files);
}

/** A copy of a task's place; of one without, the root of the tree. NULL without memory. */
function copy_fs_struct(from: FsPtr): FsPtr {
  const fs: FsPtr = kmem_cache_zalloc(fs_struct.cache, GFP_KERNEL);
  if (fs === NULL) return NULL;
  const { mnt, dentry } = root_path();
  FsStruct.users.set(fs, 1);
  FsStruct.umask.set(fs, 0o022);
  FsStruct.root_mnt.set(fs, mnt);
  FsStruct.root_dentry.set(fs, dget(dentry));
  const pwd = from === NULL ? { mnt, dentry } : pwd_of(from);
  FsStruct.pwd_mnt.set(fs, pwd.mnt);
  FsStruct.pwd_dentry.set(fs, dget(pwd.dentry));
  return fs;
}

const pwd_of = (fs: FsPtr): Path => ({ mnt: FsStruct.pwd_mnt.get(fs), dentry: FsStruct.pwd_dentry.get(fs) });

const current_fs = (): FsPtr => (current_task() === NULL ? NULL : TaskStruct.fs.get(current_task()));

/** Where paths without "/" start: the current task's directory; the root where there is none. No use of it is taken. */
export function current_path(): Path {
  const fs = current_fs();
  return fs === NULL ? root_path() : pwd_of(fs);
}

/** Moves the current task's directory. */
export function set_fs_pwd({ mnt, dentry }: Path): void {
  const fs = current_fs();
  const before = FsStruct.pwd_dentry.get(fs);
  FsStruct.pwd_mnt.set(fs, mnt);
  FsStruct.pwd_dentry.set(fs, dget(dentry));
  dput(before);
}

function free_fs_struct(fs: FsPtr): void {
  dput(FsStruct.pwd_dentry.get(fs));
  dput(FsStruct.root_dentry.get(fs));
  kmem_cache_free(fs_struct.cache, fs);
}

/** Runs `fn` with the current task's table; a kernel thread has none. */
export function with_files<T>(fn: (files: FilesPtr) => T): T | number {
  const files = TaskStruct.files.get(current_task());
  return files === NULL ? -EBADF : fn(files);
}

/** Runs `fn` with the current task's file of that number. */
export function with_fd<T>(fd: number, fn: (file: FilePtr) => T): T | number {
  return with_files((files) => {
    const file = files_lookup_fd(files, fd);
    return file === NULL ? -EBADF : fn(file);
  });
}

/** fork: gives `child` what `parent` has, or its first. 0 or -ENOMEM, and then nothing is left over. */
export function copy_task_files(child: TaskPtr, parent: TaskPtr): number {
  const from = TaskStruct.files.get(parent);
  const files = from === NULL ? alloc_files_struct() : dup_fd(from);
  const fs = files === NULL ? NULL : copy_fs_struct(TaskStruct.fs.get(parent));
  if (fs === NULL) {
    if (files !== NULL) put_files_struct(files);
    return -ENOMEM;
  }
  TaskStruct.files.set(child, files);
  TaskStruct.fs.set(child, fs);
  return 0;
}

/** exit: lets go of both. */
export function exit_task_files(task: TaskPtr): void {
  const files = TaskStruct.files.get(task);
  const fs = TaskStruct.fs.get(task);
  if (files !== NULL) put_files_struct(files);
  if (fs !== NULL) free_fs_struct(fs);
  TaskStruct.files.set(task, NULL);
  TaskStruct.fs.set(task, NULL);
}
ksym("copy_task_files", copy_task_files);
ksym("exit_task_files", exit_task_files);
