/**
 * Path walk: from a path to a dentry, and the operations on names.
 *
 * The path is copied into an object of `names_cache` first (a page; so no path has more than 4095 bytes) and given back
 * when the operation ends. A walk goes name by name; at each step it holds one use of the dentry it stands on:
 *   1 the dentry cache   d_lookup; what a file system says no longer holds is dropped
 *   2 the file system    a new dentry, filled in by inode_operations.lookup
 *   3 symbolic links     replaced by their text, at most 40 in one walk
 *   4 mounts             the root of whatever is mounted there
 *
 * A path without "/" starts at the current task's directory. Unlike Linux: no permission is checked.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { ram_read_string, ram_write_string } from "../../hal/ram.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_HWCACHE_ALIGN, SLAB_PANIC } from "../../mm/slab_layout.ts";
import {
  EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, ENOTEMPTY, EPERM, EXDEV,
  is_err,
} from "../lib/errno.ts"; // prettier-ignore
import { d_alloc, d_invalidate, d_is_negative, d_lookup, d_move, d_unhashed, dget, dput } from "./dcache.ts";
import {
  DCACHE_MOUNTED, Dentry, Inode, Mount, NAME_MAX, PATH_MAX, S_IFLNK, inode_ops, inode_type, is_dir, ops_at, type DentryOps,
  type DentryPtr, type InodeOps, type InodePtr, type MountPtr,
} from "./fs.ts"; // prettier-ignore
import { current_path, set_fs_pwd } from "./fs_struct.ts";
import { d_path, lookup_mnt, root_path } from "./namespace.ts";

const MAXSYMLINKS = 40;
const names = static_data("names", { cache: "*kmem_cache" });

/** Boot. */
export function names_init(): void {
  const args = { useroffset: 0, usersize: PATH_MAX };
  names.cache = kmem_cache_create("names_cache", PATH_MAX, args, SLAB_HWCACHE_ALIGN | SLAB_PANIC);
}

/** Copies a path into the kernel: an object of names_cache, or -ENOMEM, -ENAMETOOLONG, -ENOENT (empty). */
function getname(path: string): Ptr<"filename"> {
  const name = kmem_cache_alloc(names.cache, GFP_KERNEL);
  if (name === NULL) return -ENOMEM;
  ram_write_string(name, path, PATH_MAX);
  const error = path.length >= PATH_MAX ? -ENAMETOOLONG : path.length === 0 ? -ENOENT : 0;
  if (error === 0) return name;
  kmem_cache_free(names.cache, name);
  return error;
}

/** Runs `fn` with the path in the kernel. */
export function with_name<T>(path: string, fn: (path: string) => T | number): T | number {
  const name = getname(path);
  if (is_err(name)) return name;
  const result = fn(ram_read_string(name, PATH_MAX));
  kmem_cache_free(names.cache, name);
  return result;
}

/** Where a walk stands; holds a use of `dentry`. */
export interface Nameidata {
  mnt: MountPtr;
  dentry: DentryPtr;
  links: number;
}

function nd_start(): Nameidata {
  const { mnt, dentry } = current_path();
  return { mnt, dentry: dget(dentry), links: 0 };
}

/** Steps to a place whose use the caller has taken. */
function nd_step(nd: Nameidata, mnt: MountPtr, dentry: DentryPtr): void {
  dput(nd.dentry);
  nd.mnt = mnt;
  nd.dentry = dentry;
}

export const nd_inode = (nd: Nameidata): InodePtr => Dentry.d_inode.get(nd.dentry);

/** The dentry of a name in a directory, negative or not, with one more user; or -errno. */
export function lookup_one(dir: DentryPtr, name: string): DentryPtr {
  if (name.length > NAME_MAX) return -ENAMETOOLONG;
  const cached = d_lookup(dir, name);
  if (cached !== NULL) {
    const ops = Dentry.d_op.get(cached);
    if (ops === NULL || ops_at<DentryOps>(ops).d_revalidate(cached)) return cached;
    d_invalidate(cached);
    dput(cached);
  }
  const dir_inode = Dentry.d_inode.get(dir);
  if (Inode.i_nlink.get(dir_inode) === 0) return -ENOENT; // it was removed
  const { lookup } = inode_ops(dir_inode);
  if (!lookup) return -ENOTDIR;
  const dentry = d_alloc(dir, name);
  if (dentry === NULL) return -ENOMEM;
  const error = lookup(dir_inode, dentry);
  if (error === 0) return dentry;
  dput(dentry);
  return error;
}

function follow_dotdot(nd: Nameidata): void {
  let { mnt, dentry } = nd;
  while (dentry === Mount.mnt_root.get(mnt) && Mount.mnt_parent.get(mnt) !== mnt) {
    dentry = Mount.mnt_mountpoint.get(mnt);
    mnt = Mount.mnt_parent.get(mnt);
  }
  nd_step(nd, mnt, dget(Dentry.d_parent.get(dentry)));
}

/** Goes one name further. 0 or -errno; then `nd` stands where it stood. */
function walk_component(nd: Nameidata, name: string, follow: boolean): number {
  if (!is_dir(nd_inode(nd))) return -ENOTDIR;
  if (name === ".") return 0;
  if (name === "..") {
    follow_dotdot(nd);
    return 0;
  }
  let child = lookup_one(nd.dentry, name);
  if (is_err(child)) return child;
  const inode = Dentry.d_inode.get(child);
  if (inode === NULL || (follow && inode_type(inode) === S_IFLNK)) {
    const text = inode === NULL ? -ENOENT : (inode_ops(inode).get_link?.(inode) ?? -EINVAL);
    dput(child);
    if (typeof text === "number") return text;
    return ++nd.links > MAXSYMLINKS ? -ELOOP : path_walk(nd, text, true);
  }
  let mnt = nd.mnt;
  for (let over = lookup_mnt(child); over !== NULL; over = lookup_mnt(child)) {
    dput(child);
    child = dget(Mount.mnt_root.get(over));
    mnt = over;
  }
  nd_step(nd, mnt, child);
  return 0;
}

/** Walks a path from where `nd` stands; a link at its end is followed if `follow` or if a slash comes after it. */
export function path_walk(nd: Nameidata, path: string, follow: boolean): number {
  if (path.startsWith("/")) {
    const { mnt, dentry } = root_path();
    nd_step(nd, mnt, dget(dentry));
  }
  const components = path.split("/").filter((name) => name !== "");
  const must_be_dir = path.endsWith("/");
  for (const [i, name] of components.entries()) {
    const error = walk_component(nd, name, follow || must_be_dir || i < components.length - 1);
    if (error) return error;
  }
  return must_be_dir && !is_dir(nd_inode(nd)) ? -ENOTDIR : 0;
}

/** Runs `fn` where a walk of `path` ends, or returns the walk's error. */
export function at_path<T>(path: string, follow: boolean, fn: (nd: Nameidata) => T | number): T | number {
  const nd = nd_start();
  const error = path_walk(nd, path, follow);
  const result = error === 0 ? fn(nd) : error;
  dput(nd.dentry);
  return result;
}

/** Runs `fn` in the directory of a path's last name; `last` is "" for the root; `slash`: something follows the name. */
export function with_parent<T>(
  path: string,
  fn: (nd: Nameidata, last: string, slash: boolean) => T | number,
): T | number {
  const text = path.replace(/\/+$/, "");
  const cut = text.lastIndexOf("/") + 1;
  const nd = nd_start();
  const error = path_walk(nd, text.slice(0, cut), true) || (is_dir(nd_inode(nd)) ? 0 : -ENOTDIR);
  const result = error === 0 ? fn(nd, text.slice(cut), text !== path) : error;
  dput(nd.dentry);
  return result;
}

const is_special = (name: string): boolean => name === "" || name === "." || name === "..";

/** Makes a file of that name, which a lookup left negative. 0 or -errno. */
export function create_in(nd: Nameidata, dentry: DentryPtr, mode: number): number {
  return inode_ops(nd_inode(nd)).create?.(nd_inode(nd), dentry, mode) ?? -EACCES;
}

/** 0 or -errno. */
export function do_mkdirat(path: string, mode: number): number {
  return with_name(path, (text) =>
    with_parent(text, (nd, last) => {
      if (is_special(last)) return -EEXIST;
      const dentry = lookup_one(nd.dentry, last);
      if (is_err(dentry)) return dentry;
      const dir = nd_inode(nd);
      const error = d_is_negative(dentry) ? (inode_ops(dir).mkdir?.(dir, dentry, mode) ?? -EPERM) : -EEXIST;
      dput(dentry);
      return error;
    }),
  );
}

type Remover = NonNullable<InodeOps["unlink"]>;

/** Looks a name up, checks that it may go, and lets the file system remove it. */
function remove(nd: Nameidata, last: string, check: (victim: InodePtr) => number, op: Remover | undefined): number {
  const dentry = lookup_one(nd.dentry, last);
  if (is_err(dentry)) return dentry;
  const victim = Dentry.d_inode.get(dentry);
  let error = victim === NULL ? -ENOENT : check(victim);
  if (error === 0 && Dentry.d_flags.get(dentry) & DCACHE_MOUNTED) error = -EBUSY;
  if (error === 0) error = op ? op(nd_inode(nd), dentry) : -EPERM;
  dput(dentry);
  return error;
}

/** 0 or -errno. */
export function do_unlinkat(path: string): number {
  return with_name(path, (text) =>
    with_parent(text, (nd, last, slash) => {
      if (is_special(last)) return -EISDIR;
      const check = (victim: InodePtr): number => (is_dir(victim) ? -EISDIR : slash ? -ENOTDIR : 0);
      return remove(nd, last, check, inode_ops(nd_inode(nd)).unlink);
    }),
  );
}

/** 0 or -errno. */
export function do_rmdir(path: string): number {
  return with_name(path, (text) =>
    with_parent(text, (nd, last) => {
      if (is_special(last)) return last === "" ? -EBUSY : last === "." ? -EINVAL : -ENOTEMPTY;
      const check = (victim: InodePtr): number => (is_dir(victim) ? 0 : -ENOTDIR);
      return remove(nd, last, check, inode_ops(nd_inode(nd)).rmdir);
    }),
  );
}

/** Text of a symbolic link, or -errno. */
export function do_readlink(path: string): string | number {
  return with_name(path, (text) =>
    at_path<string>(text, false, (nd) => inode_ops(nd_inode(nd)).get_link?.(nd_inode(nd)) ?? -EINVAL),
  );
}

/** Makes a symbolic link of that text. 0 or -errno. */
export function do_symlink(target: string, path: string): number {
  if (target === "" || target.length >= PATH_MAX) return target === "" ? -ENOENT : -ENAMETOOLONG;
  return with_name(path, (name) => in_new_place(name, (nd, dentry) => inode_ops(nd_inode(nd)).symlink?.(nd_inode(nd), dentry, target) ?? -EPERM)); // prettier-ignore
}

/** Runs `fn` with the negative dentry of a path that nothing has; -EEXIST if something has. */
function in_new_place(path: string, fn: (nd: Nameidata, dentry: DentryPtr) => number): number {
  return with_parent(path, (nd, last, slash) => {
    if (is_special(last)) return -EEXIST;
    const dentry = lookup_one(nd.dentry, last);
    if (is_err(dentry)) return dentry;
    const error = d_is_negative(dentry) ? (slash ? -ENOENT : fn(nd, dentry)) : -EEXIST;
    dput(dentry);
    return error;
  });
}

/** Gives a file one more name. 0 or -errno. */
export function do_link(old_path: string, new_path: string): number {
  return with_name(old_path, (old_text) =>
    with_name(new_path, (new_text) =>
      at_path(old_text, false, (old) =>
        in_new_place(new_text, (nd, dentry) => {
          if (nd.mnt !== old.mnt) return -EXDEV;
          if (is_dir(nd_inode(old))) return -EPERM;
          return inode_ops(nd_inode(nd)).link?.(nd_inode(old), nd_inode(nd), dentry) ?? -EPERM;
        }),
      ),
    ),
  );
}

/** Moves a file or a directory to another name, over what has that name. 0 or -errno. */
export function do_rename(old_path: string, new_path: string): number {
  return with_name(old_path, (old_text) =>
    with_name(new_path, (new_text) =>
      with_parent(old_text, (from, old_last, old_slash) =>
        with_parent(new_text, (to, new_last, new_slash) => {
          if (from.mnt !== to.mnt) return -EXDEV;
          if (is_special(old_last) || is_special(new_last)) return -EBUSY;
          return rename_in(from, old_last, to, new_last, old_slash || new_slash);
        }),
      ),
    ),
  );
}

/** `slash`: one of the paths says that it is of a directory. */
function rename_in(from: Nameidata, old_last: string, to: Nameidata, new_last: string, slash: boolean): number {
  const source = lookup_one(from.dentry, old_last);
  if (is_err(source)) return source;
  const target = lookup_one(to.dentry, new_last);
  if (is_err(target)) {
    dput(source);
    return target;
  }
  const error = may_rename(source, to.dentry, target, slash) || vfs_rename(from, source, to, target);
  dput(target);
  dput(source);
  return error;
}

function may_rename(source: DentryPtr, to: DentryPtr, target: DentryPtr, slash: boolean): number {
  const [inode, over] = [Dentry.d_inode.get(source), Dentry.d_inode.get(target)];
  if (inode === NULL) return -ENOENT;
  if (inode === over) return 0;
  if (slash && !is_dir(inode)) return -ENOTDIR;
  if (is_ancestor(source, to)) return -EINVAL;
  if (over !== NULL && is_ancestor(target, source)) return -ENOTEMPTY;
  if (over !== NULL && is_dir(inode) !== is_dir(over)) return is_dir(over) ? -EISDIR : -ENOTDIR;
  return (Dentry.d_flags.get(source) | Dentry.d_flags.get(target)) & DCACHE_MOUNTED ? -EBUSY : 0;
}

/** True if `dentry` is `above` or lies below it. */
function is_ancestor(above: DentryPtr, dentry: DentryPtr): boolean {
  for (let at = dentry; ; at = Dentry.d_parent.get(at)) {
    if (at === above) return true;
    if (Dentry.d_parent.get(at) === at) return false;
  }
}

function vfs_rename(from: Nameidata, source: DentryPtr, to: Nameidata, target: DentryPtr): number {
  if (Dentry.d_inode.get(source) === Dentry.d_inode.get(target)) return 0; // two names of one file, as in POSIX
  const { rename } = inode_ops(nd_inode(from));
  if (!rename) return -EPERM;
  const error = rename(nd_inode(from), source, nd_inode(to), target);
  if (error === 0) d_move(source, target);
  return error;
}

/** Moves the current task to a directory. 0 or -errno. */
export function do_chdir(path: string): number {
  return with_name(path, (text) =>
    at_path(text, true, (nd) => {
      if (!is_dir(nd_inode(nd))) return -ENOTDIR;
      set_fs_pwd(nd);
      return 0;
    }),
  );
}

/** The current task's directory, or -ENOENT if it was removed. */
export function do_getcwd(): string | number {
  const pwd = current_path();
  return d_unhashed(pwd.dentry) && Dentry.d_parent.get(pwd.dentry) !== pwd.dentry ? -ENOENT : d_path(pwd);
}
