/**
 * ramfs: a file system that is nothing but dentries, inodes and page caches.
 *
 * There is no disk behind it, so the caches are the only copy: every dentry that has an inode is pinned by one more
 * use (DCACHE_PERSISTENT), and pages that were written stay dirty. Unlinking ends the pin; the last user (an open file)
 * then frees the inode with all its pages. A name that does not exist is not remembered: a negative dentry would save
 * no work here.
 *
 * A short symbolic link lies in the inode itself, in the 16 bytes of `i_private` and `i_fsdata`; a longer one in the first
 * page, as a file would. Unlike Linux: regular files, directories and symbolic links only.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../../hal/addr.ts";
import { local_clock } from "../../hal/clock.ts";
import { ram_read_string, ram_write_string } from "../../hal/ram.ts";
import { PG_dirty, page_address, set_page_flag } from "../../mm/page.ts";
import { ENOMEM, ENOTEMPTY } from "../lib/errno.ts";
import { d_add, d_children, d_delete, d_instantiate, d_is_negative, d_make_root, d_name, d_unhashed, dget, dput } from "./dcache.ts"; // prettier-ignore
import {
  DCACHE_DONTCACHE, DCACHE_PERSISTENT, Dentry, File, Inode, S_IFDIR, S_IFLNK, S_IFREG, SuperBlock, inode_type, is_dir,
  ops_symbol, type DentryPtr, type Dirent, type FileOps, type FilePtr, type FileSystemType, type InodeOps,
  type InodePtr, type SbPtr,
} from "./fs.ts"; // prettier-ignore
import { generic_file_mmap } from "./file_mmap.ts";
import { filemap_get_page, generic_file_read, generic_file_write } from "./filemap.ts";
import { ihold, iput, new_inode } from "./inode.ts";

/** Remembers nothing: the dentry goes with the lookup that made it. */
function simple_lookup(_dir: InodePtr, dentry: DentryPtr): number {
  Dentry.d_flags.set(dentry, Dentry.d_flags.get(dentry) | DCACHE_DONTCACHE);
  d_add(dentry, NULL);
  return 0;
}

function ramfs_get_inode(sb: SbPtr, mode: number): InodePtr {
  const ino = SuperBlock.s_next_ino.get(sb);
  const inode = new_inode(sb, ino, mode);
  if (inode === NULL) return NULL;
  SuperBlock.s_next_ino.set(sb, ino + 1);
  if (is_dir(inode)) {
    Inode.i_op.set(inode, dir_inode_ops);
    Inode.i_fop.set(inode, simple_dir_ops);
  } else if (inode_type(inode) === S_IFLNK) Inode.i_op.set(inode, link_inode_ops);
  else Inode.i_fop.set(inode, file_ops);
  return inode;
}

/** Makes a file of any type. */
function ramfs_mknod(dir: InodePtr, dentry: DentryPtr, mode: number): number {
  const inode = ramfs_get_inode(Inode.i_sb.get(dir), mode);
  if (inode === NULL) return -ENOMEM;
  pin(dir, dentry, inode);
  return 0;
}

/** Gives a name in a directory its file, and keeps it. */
function pin(dir: InodePtr, dentry: DentryPtr, inode: InodePtr): void {
  d_instantiate(dentry, inode);
  dget(dentry);
  Dentry.d_flags.set(dentry, Dentry.d_flags.get(dentry) | DCACHE_PERSISTENT);
  Inode.i_mtime.set(dir, local_clock());
}

function ramfs_create(dir: InodePtr, dentry: DentryPtr, mode: number): number {
  return ramfs_mknod(dir, dentry, (mode & 0o7777) | S_IFREG);
}

/** Gives a file one more name. */
function simple_link(inode: InodePtr, dir: InodePtr, dentry: DentryPtr): number {
  ihold(inode);
  add_links(inode, 1);
  pin(dir, dentry, inode);
  return 0;
}

function ramfs_symlink(dir: InodePtr, dentry: DentryPtr, text: string): number {
  const inode = ramfs_get_inode(Inode.i_sb.get(dir), S_IFLNK | 0o777);
  if (inode === NULL) return -ENOMEM;
  Inode.i_size.set(inode, text.length);
  const place = link_text(inode);
  if (place === NULL) {
    iput(inode);
    return -ENOMEM;
  }
  ram_write_string(place, text, text.length + 1);
  pin(dir, dentry, inode);
  return 0;
}

const SHORT_LINK = 16;

/** Where a link's text lies; NULL without memory. */
function link_text(inode: InodePtr): Ptr {
  if (Inode.i_size.get(inode) < SHORT_LINK) return Inode.i_private.at(inode);
  const page = filemap_get_page(Inode.i_data.at(inode), 0);
  if (page === NULL) return NULL;
  set_page_flag(page, PG_dirty);
  return page_address(page);
}

function simple_get_link(inode: InodePtr): string | number {
  const place = link_text(inode);
  return place === NULL ? -ENOMEM : ram_read_string(place, PAGE_SIZE);
}

/** Makes room under the new name; the dentry is moved there by the caller. */
function simple_rename(from_dir: InodePtr, from: DentryPtr, to_dir: InodePtr, to: DentryPtr): number {
  const moves_dir = is_dir(Dentry.d_inode.get(from));
  const error = d_is_negative(to) ? 0 : moves_dir ? simple_rmdir(to_dir, to) : simple_unlink(to_dir, to);
  if (error !== 0) return error;
  if (moves_dir && from_dir !== to_dir) {
    add_links(from_dir, -1);
    add_links(to_dir, 1);
  }
  for (const dir of [from_dir, to_dir]) Inode.i_mtime.set(dir, local_clock());
  return 0;
}

function ramfs_mkdir(dir: InodePtr, dentry: DentryPtr, mode: number): number {
  const error = ramfs_mknod(dir, dentry, (mode & 0o7777) | S_IFDIR);
  if (error === 0) add_links(dir, 1);
  return error;
}

function add_links(inode: InodePtr, by: number): void {
  Inode.i_nlink.set(inode, Inode.i_nlink.get(inode) + by);
}

/** Ends the pin of a dentry whose file has lost its name. */
function unpin(dentry: DentryPtr): void {
  Dentry.d_flags.set(dentry, Dentry.d_flags.get(dentry) & ~DCACHE_PERSISTENT);
  dput(dentry);
}

function simple_unlink(dir: InodePtr, dentry: DentryPtr): number {
  add_links(Dentry.d_inode.get(dentry), -1);
  Inode.i_mtime.set(dir, local_clock());
  unpin(dentry);
  d_delete(dentry);
  return 0;
}

function simple_rmdir(dir: InodePtr, dentry: DentryPtr): number {
  for (const child of d_children(dentry)) if (is_visible(child)) return -ENOTEMPTY;
  add_links(Dentry.d_inode.get(dentry), -1);
  add_links(dir, -1);
  return simple_unlink(dir, dentry);
}

const is_visible = (dentry: DentryPtr): boolean => !d_unhashed(dentry) && !d_is_negative(dentry);

/** The tree of dentries is the directory. Newest first. */
function dcache_readdir(file: FilePtr): Dirent[] {
  const entries: Dirent[] = [];
  for (const child of d_children(File.f_path_dentry.get(file))) {
    if (!is_visible(child)) continue;
    const inode = Dentry.d_inode.get(child);
    entries.push({ name: d_name(child), ino: Inode.i_ino.get(inode), type: inode_type(inode) });
  }
  return entries;
}

const dir_inode_ops = ops_symbol<InodeOps>("ramfs_dir_inode_operations", {
  lookup: simple_lookup,
  create: ramfs_create,
  mkdir: ramfs_mkdir,
  unlink: simple_unlink,
  rmdir: simple_rmdir,
  link: simple_link,
  symlink: ramfs_symlink,
  rename: simple_rename,
});
const link_inode_ops = ops_symbol<InodeOps>("ramfs_symlink_inode_operations", { get_link: simple_get_link });
const simple_dir_ops = ops_symbol<FileOps>("simple_dir_operations", { iterate: dcache_readdir });
const file_ops = ops_symbol<FileOps>("ramfs_file_operations", {
  read: generic_file_read,
  write: generic_file_write,
  mmap: generic_file_mmap,
});

function ramfs_fill_super(sb: SbPtr): number {
  const inode = ramfs_get_inode(sb, S_IFDIR | 0o755);
  const root = inode === NULL ? NULL : d_make_root(inode);
  SuperBlock.s_root.set(sb, root);
  return root === NULL ? -ENOMEM : 0;
}

/** Ends all pins, so that the tree can be freed. */
function d_genocide(parent: DentryPtr): void {
  for (const child of d_children(parent)) {
    d_genocide(child);
    if (!(Dentry.d_flags.get(child) & DCACHE_PERSISTENT)) continue;
    Inode.i_nlink.set(Dentry.d_inode.get(child), 0);
    unpin(child);
  }
}

export const ramfs_type = ops_symbol<FileSystemType>("ramfs_fs_type", {
  name: "ramfs",
  nodev: true,
  fill_super: ramfs_fill_super,
  kill_sb: (sb) => d_genocide(SuperBlock.s_root.get(sb)),
});
