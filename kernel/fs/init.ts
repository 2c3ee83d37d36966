/**
 * Boot and power-off of the file layer.
 *
 *     vfs_caches_init   caches and hash tables; nothing is mounted
 *     mnt_init          / , a ramfs with the directories that others are mounted on, /tmp, and /bin, a link to usr/bin
 *     proc_root_init    /proc
 *     sysfs_init        /sys
 *     disc_init         /usr, the disc
 *     fs_shutdown       all of it backwards: what is left are the caches, empty
 */
import { NULL } from "../../hal/addr.ts";
import { panic } from "../lib/bug.ts";
import { ENOMEM } from "../lib/errno.ts";
import { dcache_init } from "./dcache.ts";
import { discfs_type } from "./discfs.ts";
import { files_init } from "./file_table.ts";
import { fs_struct_init } from "./fs_struct.ts";
import { inode_init } from "./inode.ts";
import { kernfs_init, type KernfsPtr } from "./kernfs.ts";
import { at_path, do_mkdirat, do_symlink, names_init } from "./namei.ts";
import { do_mount, namespace_init, register_filesystem, umount_all } from "./namespace.ts";
import { proc_misc_init } from "./proc_misc.ts";
import { proc_mm_init } from "./proc_mm.ts";
import { proc_pid_init } from "./proc_pid.ts";
import { proc_sys_init } from "./proc_sys.ts";
import { proc_exit, proc_init, proc_type } from "./procfs.ts";
import { ramfs_type } from "./ramfs.ts";
import { super_init } from "./super.ts";
import { sysfs_exit, sysfs_root_init, sysfs_type } from "./sysfs.ts";
import { extfrag_debug_init } from "./debugfs_extfrag.ts";
import { memory_dev_init } from "./sysfs_memory.ts";
import { devtmpfs_exit, devtmpfs_init, devtmpfs_type, proc_devices_init } from "./char_dev.ts";
import { module_files_init } from "./module_files.ts";
import { sysfs_node_init } from "./sysfs_node.ts";
import { sysfs_slab_init } from "./sysfs_slab.ts";
import { page_reclaim_init } from "./reclaim.ts";
import { radix_tree_init } from "./xarray.ts";
import "./syscalls.ts";

/** Makes the caches and hash tables. */
export function vfs_caches_init(): void {
  page_reclaim_init();
  names_init();
  dcache_init();
  inode_init();
  files_init();
  fs_struct_init();
  radix_tree_init();
  kernfs_init();
  super_init();
  namespace_init();
  for (const type of [sysfs_type, ramfs_type, proc_type, devtmpfs_type, discfs_type]) register_filesystem(type);
}

function must(error: number, what: string): void {
  if (error < 0) panic(`${what}: error ${error}`);
}

/** Mounts the root file system. */
export function mnt_init(): void {
  must(do_mount(ramfs_type), "Failed to mount the root file system");
  for (const path of ["/proc", "/sys", "/dev", "/tmp", "/usr"]) must(do_mkdirat(path, 0o755), `Failed to make ${path}`);
  must(do_symlink("usr/bin", "/bin"), "Failed to make /bin");
}

function mount_at(path: string, type: number, info: number): void {
  must(
    at_path(path, true, (nd) => do_mount(type, { mnt: nd.mnt, dentry: nd.dentry }, info)),
    `Failed to mount ${path}`,
  );
}

/** Mounts a file system of the tree below `root`, which is NULL without memory. */
function mount_kernfs(path: string, type: number, root: KernfsPtr): void {
  must(root === NULL ? -ENOMEM : 0, `Failed to mount ${path}`);
  mount_at(path, type, root);
}

/** Mounts /proc and fills it. */
export function proc_root_init(): void {
  mount_kernfs("/proc", proc_type, proc_init());
  proc_mm_init();
  proc_misc_init();
  proc_sys_init();
  proc_pid_init();
  proc_devices_init();
}

/** Mounts /sys and fills it. */
export function sysfs_init(): void {
  mount_kernfs("/sys", sysfs_type, sysfs_root_init());
  sysfs_slab_init();
  sysfs_node_init();
  memory_dev_init();
  extfrag_debug_init();
  module_files_init();
  mount_kernfs("/dev", devtmpfs_type, devtmpfs_init());
}

/** Mounts /usr. */
export function disc_init(): void {
  mount_at("/usr", discfs_type, NULL);
}

/** Takes everything down. No task and no open file is left. */
export function fs_shutdown(): void {
  umount_all();
  devtmpfs_exit();
  sysfs_exit();
  proc_exit();
}
