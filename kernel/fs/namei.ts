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
 * Unlike Linux: there is no current directory (a path without "/" starts at the root), no permission is checked.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { ram_read_string, ram_write_string } from "../../hal/ram.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_HWCACHE_ALIGN, SLAB_PANIC } from "../../mm/slab_layout.ts";
import {
  EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, ENOTEMPTY, EPERM, is_err,
} from "../lib/errno.ts"; // prettier-ignore
import { d_alloc, d_invalidate, d_is_negative, d_lookup, dget, dput } from "./dcache.ts";
import {
  DCACHE_MOUNTED, Dentry, Mount, NAME_MAX, PATH_MAX, S_IFLNK, inode_ops, inode_type, is_dir, ops_at, type DentryOps,
  type DentryPtr, type InodeOps, type InodePtr, type MountPtr,
} from "./fs.ts"; // prettier-ignore
import { lookup_mnt, root_path } from "./namespace.ts";

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
  const { mnt, dentry } = root_path();
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
