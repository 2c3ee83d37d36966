/**
 * Opening files, and reading and writing them once they are open.
 *
 * Every function here takes an open file (`struct file`), wherever it is known from: a task's table (syscalls.ts), or
 * the console (vfs.ts). Contents are bytes.
 */
import { AddressSpace } from "../../mm/address_space.ts";
import { EBADF, EEXIST, EFBIG, EINVAL, EISDIR, ENOTDIR, ESPIPE, is_err } from "../lib/errno.ts";
import { d_is_negative, dget, dput } from "./dcache.ts";
import {
  FMODE_READ, FMODE_WRITE, File, Inode, O_ACCMODE, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_TRUNC, SEEK_CUR,
  SEEK_END, SEEK_SET, S_IFIFO, SuperBlock, file_ops, inode_type, is_dir, type Dirent, type FilePtr, type InodePtr,
} from "./fs.ts"; // prettier-ignore
import { alloc_empty_file, fput } from "./file_table.ts";
import { MAX_LFS_FILESIZE, truncate_setsize } from "./filemap.ts";
import {
  at_path,
  create_in,
  lookup_one,
  nd_inode,
  path_walk,
  with_name,
  with_parent,
  type Nameidata,
} from "./namei.ts";

/** Opens a path. Returns the file with one user, or -errno. */
export function do_filp_open(path: string, flags: number, mode: number): FilePtr {
  if ((flags & O_ACCMODE) === O_ACCMODE) return -EINVAL;
  return with_name(path, (text) => {
    const file = alloc_empty_file(flags);
    if (is_err(file)) return file;
    const opened = (nd: Nameidata): number => do_open(nd, file);
    const error = flags & O_CREAT ? open_or_create(text, flags, mode, opened) : at_path(text, true, opened);
    if (error === 0) return file;
    fput(file);
    return error;
  });
}

/** Opens what has that name; makes it first if there is nothing. */
function open_or_create(path: string, flags: number, mode: number, opened: (nd: Nameidata) => number): number {
  return with_parent(path, (nd, last, slash) => {
    if (slash || last === "" || last === "." || last === "..") return -EISDIR;
    const dentry = lookup_one(nd.dentry, last);
    if (is_err(dentry)) return dentry;
    if (d_is_negative(dentry)) {
      const error = create_in(nd, dentry, mode) || opened({ ...nd, dentry });
      dput(dentry);
      return error;
    }
    dput(dentry);
    if (flags & O_EXCL) return -EEXIST;
    return path_walk(nd, last, true) || opened(nd); // a link, or something mounted there, is followed
  });
}

/** Makes `file` one of the place where `nd` stands. 0 or -errno. */
function do_open(nd: Nameidata, file: FilePtr): number {
  const flags = File.f_flags.get(file);
  const inode = nd_inode(nd);
  if (is_dir(inode)) {
    if (flags & (O_CREAT | O_ACCMODE | O_TRUNC)) return -EISDIR;
  } else if (flags & O_DIRECTORY) return -ENOTDIR;
  File.f_mode.set(file, (flags & O_ACCMODE) + 1); // O_RDONLY 0, O_WRONLY 1, O_RDWR 2: FMODE_READ 1, WRITE 2, both 3
  File.f_op.set(file, Inode.i_fop.get(inode));
  File.f_inode.set(file, inode);
  File.f_mapping.set(file, Inode.i_mapping.get(inode));
  const error = file_ops(file).open?.(inode, file) ?? 0;
  if (error !== 0) return error;
  if (flags & O_TRUNC) truncate_setsize(inode, 0);
  File.f_path_mnt.set(file, nd.mnt);
  File.f_path_dentry.set(file, dget(nd.dentry));
  return 0;
}

/** Reads at most `count` bytes at the file's position and moves it. Empty at the end of the file; or -errno. */
export function file_read(file: FilePtr, count: number): Uint8Array | number {
  if (!(File.f_mode.get(file) & FMODE_READ)) return -EBADF;
  if (count < 0) return -EINVAL;
  if (is_dir(File.f_inode.get(file))) return -EISDIR;
  const pos = File.f_pos.get(file);
  const result = count === 0 ? new Uint8Array() : (file_ops(file).read?.(file, pos, count) ?? -EINVAL);
  if (typeof result !== "number" && is_seekable(file)) File.f_pos.set(file, pos + result.length);
  return result;
}

/** Writes at the file's position (O_APPEND: its end) and moves it. Bytes written, or -errno. */
export function file_write(file: FilePtr, bytes: Uint8Array): number {
  if (!(File.f_mode.get(file) & FMODE_WRITE)) return -EBADF;
  const append = (File.f_flags.get(file) & O_APPEND) !== 0;
  const pos = append ? Inode.i_size.get(File.f_inode.get(file)) : File.f_pos.get(file);
  const written = file_ops(file).write?.(file, pos, bytes) ?? -EINVAL;
  if (written > 0 && is_seekable(file)) File.f_pos.set(file, pos + written);
  return written;
}

const is_seekable = (file: FilePtr): boolean => inode_type(File.f_inode.get(file)) !== S_IFIFO;

/** Moves a file's position. The new one, or -errno. */
export function file_llseek(file: FilePtr, offset: number, whence: number): number {
  if (!is_seekable(file)) return -ESPIPE;
  if (whence !== SEEK_SET && whence !== SEEK_CUR && whence !== SEEK_END) return -EINVAL;
  const size = Inode.i_size.get(File.f_inode.get(file));
  const from = whence === SEEK_SET ? 0 : whence === SEEK_CUR ? File.f_pos.get(file) : size;
  const pos = from + offset;
  if (pos < 0 || pos > MAX_LFS_FILESIZE) return -EINVAL;
  File.f_pos.set(file, pos);
  return pos;
}

/** Sets the size of a file that is open for writing. 0 or -errno. */
export function file_truncate(file: FilePtr, size: number): number {
  if (!(File.f_mode.get(file) & FMODE_WRITE) || size < 0 || !is_seekable(file)) return -EINVAL;
  return size > MAX_LFS_FILESIZE ? -EFBIG : truncate_setsize(File.f_inode.get(file), size);
}

/** All entries of an open directory but "." and "..", or -ENOTDIR. */
export function iterate_dir(file: FilePtr): Dirent[] | number {
  return file_ops(file).iterate?.(file) ?? -ENOTDIR;
}

/** What stat shows. */
export interface Stat {
  readonly dev: number;
  readonly ino: number;
  readonly mode: number;
  readonly nlink: number;
  readonly size: number;
  /** 512-byte blocks: 8 for each page of the page cache. */
  readonly blocks: number;
  /** Nanoseconds since power-on. */
  readonly mtime: number;
}

/** What stat shows of a path; a link at its end is shown itself unless `follow`. -errno if there is nothing. */
export function vfs_stat(path: string, follow: boolean): Stat | number {
  return with_name(path, (text) => at_path<Stat>(text, follow, (nd) => inode_stat_of(nd_inode(nd))));
}

/** What stat shows of an open file. */
export function file_stat(file: FilePtr): Stat {
  return inode_stat_of(File.f_inode.get(file));
}

function inode_stat_of(inode: InodePtr): Stat {
  return {
    dev: SuperBlock.s_dev.get(Inode.i_sb.get(inode)),
    ino: Inode.i_ino.get(inode),
    mode: Inode.i_mode.get(inode),
    nlink: Inode.i_nlink.get(inode),
    size: Inode.i_size.get(inode),
    blocks: AddressSpace.nrpages.get(Inode.i_data.at(inode)) * 8,
    mtime: Inode.i_mtime.get(inode),
  };
}
