/**
 * Mounts: which file system's root stands in the place of which directory.
 *
 *     mount  [ mnt_parent | mnt_mountpoint ]  the directory that is covered     [ mnt_root | mnt_sb ]  what is seen there
 *
 * A covered dentry has DCACHE_MOUNTED, so that a path walk asks for a mount only there.
 * Locks: mounts.lock. Unlike Linux: one namespace, a short list instead of a hash, no umount but at power-off.
 */
import { NULL } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { ENOMEM, is_err } from "../lib/errno.ts";
import type { FnPtr } from "../lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_empty, list_next, list_prev } from "../lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../lib/spinlock.ts";
import { d_name, dget, dput } from "./dcache.ts";
import { DCACHE_MOUNTED, Dentry, Mount, SuperBlock, ops_at, type DentryPtr, type FileSystemType, type MountPtr } from "./fs.ts"; // prettier-ignore
import { generic_shutdown_super, mount_fs } from "./super.ts";

/** A place in the tree: a dentry, seen through a mount. */
export interface Path {
  readonly mnt: MountPtr;
  readonly dentry: DentryPtr;
}

const mounts = static_data("mounts", {
  lock: SpinLock,
  list: ListHead,
  file_systems: "*fn[8]", // file_system_type
  nr_file_systems: "u32",
});

/** Boot: nothing is mounted and no file system known. */
export function namespace_init(): void {
  init_list_head(mounts.list);
}

/** Makes a file system known to /proc/filesystems. */
export function register_filesystem(type: FnPtr): void {
  mounts.file_systems.set(mounts.nr_file_systems, type);
  mounts.nr_file_systems = mounts.nr_file_systems + 1;
}

/** All file systems, in the order of registration. */
export function* for_each_filesystem(): Generator<FileSystemType> {
  for (let i = 0; i < mounts.nr_file_systems; i++) yield ops_at<FileSystemType>(mounts.file_systems.get(i));
}

/** All mounts, oldest first. */
export function* for_each_mount(): Generator<MountPtr> {
  for (let node = list_next(mounts.list); node !== mounts.list; node = list_next(node))
    yield node - Mount.mnt_list.offset;
}

/** The root of the tree. The caller takes no use of it. */
export function root_path(): Path {
  const mnt: MountPtr = list_next(mounts.list) - Mount.mnt_list.offset;
  return { mnt, dentry: Mount.mnt_root.get(mnt) };
}

/** The mount that covers a dentry; NULL if there is none. */
export function lookup_mnt(dentry: DentryPtr): MountPtr {
  if (!(Dentry.d_flags.get(dentry) & DCACHE_MOUNTED)) return NULL;
  for (const mnt of for_each_mount())
    if (Mount.mnt_mountpoint.get(mnt) === dentry && Mount.mnt_parent.get(mnt) !== mnt) return mnt;
  return NULL;
}

/** Mounts a file system of that type at `at` (undefined: as the root of everything). 0 or -errno. */
export function do_mount(type: FnPtr, at?: Path, info = NULL): number {
  const mnt: MountPtr = kmalloc(Mount.sizeof, GFP_KERNEL);
  if (mnt === NULL) return -ENOMEM;
  const sb = mount_fs(type, info);
  if (is_err(sb)) {
    kfree(mnt);
    return sb;
  }
  Mount.mnt_sb.set(mnt, sb);
  Mount.mnt_root.set(mnt, dget(SuperBlock.s_root.get(sb)));
  Mount.mnt_parent.set(mnt, at?.mnt ?? mnt);
  Mount.mnt_mountpoint.set(mnt, dget(at?.dentry ?? Mount.mnt_root.get(mnt)));
  if (at) Dentry.d_flags.set(at.dentry, Dentry.d_flags.get(at.dentry) | DCACHE_MOUNTED);
  spin_lock(mounts.lock);
  list_add_tail(Mount.mnt_list.at(mnt), mounts.list);
  spin_unlock(mounts.lock);
  return 0;
}

/** Takes every mount down, the youngest first. No file is open. */
export function umount_all(): void {
  while (!list_empty(mounts.list)) {
    const mnt: MountPtr = list_prev(mounts.list) - Mount.mnt_list.offset;
    spin_lock(mounts.lock);
    list_del(Mount.mnt_list.at(mnt));
    spin_unlock(mounts.lock);
    const covered = Mount.mnt_mountpoint.get(mnt);
    Dentry.d_flags.set(covered, Dentry.d_flags.get(covered) & ~DCACHE_MOUNTED);
    dput(covered);
    dput(Mount.mnt_root.get(mnt));
    generic_shutdown_super(Mount.mnt_sb.get(mnt));
    kfree(mnt);
  }
}

/** The absolute path of a place, as a string of bytes. */
export function d_path({ mnt, dentry }: Path): string {
  let text = "";
  for (let at = { mnt, dentry }; ;) {
    if (at.dentry === Mount.mnt_root.get(at.mnt)) {
      const parent = Mount.mnt_parent.get(at.mnt);
      if (parent === at.mnt) return text || "/";
      at = { mnt: parent, dentry: Mount.mnt_mountpoint.get(at.mnt) };
    } else {
      text = `/${d_name(at.dentry)}${text}`;
      at = { mnt: at.mnt, dentry: Dentry.d_parent.get(at.dentry) };
    }
  }
}
