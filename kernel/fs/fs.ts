/**
 * The structs of the file layer, and how they hang together.
 *
 *     task ─ files_struct ─ file ─┬─ f_path.dentry ─ dentry ─┬─ d_parent, d_children   the tree of names
 *            (fd table)           │                          ├─ d_inode                NULL: a negative dentry
 *                                 └─ f_op, f_pos             └─ d_sb ─ super_block     one mounted file system
 *     inode ─ i_data: address_space ─ i_pages ─ xarray of radix_tree_node ─ page       the file's contents
 *
 * What a kind of file can do is a record of functions. Records cannot lie in RAM, so a struct keeps the text address of
 * a function that returns the record: `ops_symbol` gives it, `ops_at` follows it.
 *
 * Names and contents are bytes: a JavaScript string that stands for one has a character a byte (kernel/fs/bytes.ts).
 *
 * Locks: short spinlocks, none of which is held over an allocation: dcache.lock (hash chains, children lists, aliases),
 * inode_hash.lock, super_block.s_inode_list_lock, address_space.xa_lock, files_struct.file_lock, mounts.lock, sb_lock,
 * list_lru_node.lock. None nests in another. Use counts are atomic. What keeps a whole operation on a directory or a
 * file to itself is that it runs in one kernel entry, and one CPU at a time runs entries.
 *
 * Unlike Linux: no i_rwsem, no RCU walk, no owners and permissions (everybody is root), no write-back; so `inode` is
 * about half as large as Linux's. dentry, file, files_struct and xa_node have Linux's sizes.
 */
import type { Ptr } from "../../hal/addr.ts";
import { struct } from "../../hal/struct.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import type { VmaPtr } from "../../mm/mm_types.ts";
import type { PagePtr } from "../../mm/page.ts";
import { HlistHead, HlistNode } from "../lib/hlist.ts";
import { ksym, ksym_fn, record_of_running, type FnPtr } from "../lib/ksym.ts";
import { ListHead } from "../lib/list.ts";
import { SpinLock } from "../lib/spinlock.ts";

export const PATH_MAX = 4096;
export const NAME_MAX = 255;
/** Longer names lie in a kmalloc object of their own. */
export const DNAME_INLINE_LEN = 40;

export const S_IFMT = 0o170000;
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const O_RDONLY = 0;
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_ACCMODE = 0o3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_DIRECTORY = 0o200000;
export const FMODE_READ = 1;
export const FMODE_WRITE = 2;
export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_END = 2;

/** Bits of `d_flags`. */
export const DCACHE_DONTCACHE = 0x80; // is not kept once nobody uses it
export const DCACHE_REFERENCED = 0x40; // used since it came onto the LRU list: gets a second chance
export const DCACHE_MOUNTED = 0x10000; // something is mounted here
export const DCACHE_LRU_LIST = 0x80000;
export const DCACHE_PERSISTENT = 0x1000; // one use is the file system's own
/** Bits of `i_state`. */
export const I_FREEING = 0x20;
export const I_REFERENCED = 0x100;

/** A file of a file system, whatever its names. */
export const Inode = struct("inode", {
  i_mode: "u16",
  i_opflags: "u16",
  i_state: "u32", // I_*
  i_op: "*fn", // inode_operations
  i_fop: "*fn", // file_operations
  i_sb: "*super_block",
  i_mapping: "*address_space", // &i_data
  i_private: "*kernfs_node", // the file system's own
  i_fsdata: "u64", // kernfs: which instance of a node that stands for many
  i_ino: "u64",
  i_size: "u64",
  i_mtime: "u64", // ns since power-on
  i_nlink: "u32",
  i_count: "s32", // users: dentries and whoever called ihold
  i_hash: HlistNode, // inode_hash.lock
  i_lru: ListHead, // list_lru_node.lock; empty while in use
  i_sb_list: ListHead, // s_inode_list_lock
  i_dentry: HlistHead, // its names (d_alias); dcache.lock
  i_data: AddressSpace,
});
export type InodePtr = Ptr<"inode">;

export const Dentry = struct(
  "dentry",
  {
    d_flags: "u32", // DCACHE_*
    d_seq: "u32",
    d_hash: HlistNode, // dcache.lock
    d_parent: "*dentry", // itself at the root
    d_name_hash: "u32", // d_name: a qstr
    d_name_len: "u32",
    d_name: "*char", // &d_shortname, or an external_name's text
    d_inode: "*inode", // NULL: there is no such file
    d_shortname: `char[40]`,
    d_op: "*fn", // dentry_operations, or NULL
    d_sb: "*super_block",
    d_time: "u64",
    d_fsdata: "*void",
    d_lock: "u32",
    d_count: "s32", // users and children
    d_lru: ListHead, // list_lru_node.lock
    d_sib: HlistNode, // the parent's d_children; dcache.lock
    d_children: HlistHead, // newest first; dcache.lock
    d_alias: HlistNode, // the inode's i_dentry; dcache.lock
  },
  { sizeof: 192 },
);
export type DentryPtr = Ptr<"dentry">;

/** An open file: who opened it, how, and where it stands. */
export const File = struct(
  "file",
  {
    f_lock: SpinLock,
    f_mode: "u32", // FMODE_*
    f_flags: "u32", // O_*
    f_op: "*fn", // file_operations
    f_mapping: "*address_space",
    private_data: "*void",
    f_inode: "*inode",
    f_cred: "*cred",
    f_path_mnt: "*mount",
    f_path_dentry: "*dentry",
    f_pos: "u64",
    f_rest: "u64[11]", // Linux: owner, error sequences, readahead state, f_pos_lock. Free pointer in the first word.
    f_prev_end: "u64", // f_ra.prev_pos: right behind the last byte that was read
    f_count: "u64",
  },
  { sizeof: 184 },
);
export type FilePtr = Ptr<"file">;

export const NR_OPEN_DEFAULT = 64;
export const FilesStruct = struct(
  "files_struct",
  {
    count: "u32", // tasks that share it
    max_fds: "u32", // entries of `fd`
    fd: "*void", // &fd_array, or a larger table of pointers to file; file_lock
    file_lock: SpinLock,
    next_fd: "u32", // no smaller number is free; file_lock
    pad: "u32",
    rest: "u64[19]", // Linux: resize_wait, the embedded fdtable and its bitmaps
    fd_array: `*file[64]`,
  },
  { sizeof: 704, align: 64 },
);
export type FilesPtr = Ptr<"files_struct">;

export const SuperBlock = struct("super_block", {
  s_list: ListHead, // super_blocks, oldest first; sb_lock
  s_type: "*fn", // file_system_type
  s_d_op: "*fn", // dentry_operations, or NULL
  s_root: "*dentry",
  s_shrink: "*shrinker",
  s_fs_info: "*kernfs_node", // the file system's own: its root
  s_dev: "u32",
  s_flags: "u32", // SB_*
  s_next_ino: "u64",
  s_inode_list_lock: SpinLock,
  s_inodes: ListHead, // s_inode_list_lock
  s_dentry_lru: "*list_lru_node", // one a node
  s_inode_lru: "*list_lru_node",
});
export type SbPtr = Ptr<"super_block">;
/** `s_flags`: unused inodes may stay. */
export const SB_ACTIVE = 0x40000000;
/** `s_flags`: a name that is looked up in vain is not remembered. */
export const SB_NONEGATIVE = 1;

export const Mount = struct("mount", {
  mnt_list: ListHead, // mounts, oldest first; mount_lock
  mnt_parent: "*mount", // itself at the root
  mnt_mountpoint: "*dentry",
  mnt_root: "*dentry",
  mnt_sb: "*super_block",
});
export type MountPtr = Ptr<"mount">;

export interface Dirent {
  readonly name: string;
  readonly ino: number;
  /** S_IFDIR, S_IFREG or S_IFLNK. */
  readonly type: number;
}
/** What can be done in a directory. Absent: -EACCES for create, -EPERM for the others. */
export interface InodeOps {
  /** Fills in a fresh dentry; 0 (with or without inode) or -errno. */
  lookup?(dir: InodePtr, dentry: DentryPtr): number;
  create?(dir: InodePtr, dentry: DentryPtr, mode: number): number;
  mkdir?(dir: InodePtr, dentry: DentryPtr, mode: number): number;
  unlink?(dir: InodePtr, dentry: DentryPtr): number;
  rmdir?(dir: InodePtr, dentry: DentryPtr): number;
  /** Gives a file one more name; `dentry` is negative. */
  link?(inode: InodePtr, dir: InodePtr, dentry: DentryPtr): number;
  /** Makes a link with that text. */
  symlink?(dir: InodePtr, dentry: DentryPtr, text: string): number;
  /** Removes what has the new name, if anything has; the caller moves the dentry afterwards. */
  rename?(from_dir: InodePtr, from: DentryPtr, to_dir: InodePtr, to: DentryPtr): number;
  /** Text of a symbolic link, or -errno. */
  get_link?(inode: InodePtr): string | number;
}
/** What can be done with an open file. */
export interface FileOps {
  open?(inode: InodePtr, file: FilePtr): number;
  /** The last user has closed it. */
  release?(file: FilePtr): void;
  /**
   * Puts the current task to sleep until what was answered with -EAGAIN may go on: FMODE_READ or FMODE_WRITE. Returns
   * -ERESTARTSYS.
   */
  wait?(file: FilePtr, mode: number): number;
  /** At most `count` bytes from `pos` on, or -errno. */
  read?(file: FilePtr, pos: number, count: number): Uint8Array | number;
  /** Bytes written, or -errno. */
  write?(file: FilePtr, pos: number, bytes: Uint8Array): number;
  /** All entries but "." and "..", or -errno. */
  iterate?(file: FilePtr): Dirent[] | number;
  /** Makes an area, whose offset and `vm_file` are set, one of this file: 0 or -errno. Absent: it cannot be mapped. */
  mmap?(file: FilePtr, vma: VmaPtr): number;
}
export interface DentryOps {
  /** False: what the dentry says no longer holds. */
  d_revalidate(dentry: DentryPtr): boolean;
}
export interface FileSystemType {
  readonly name: string;
  /** Linux marks those without a disk in /proc/filesystems. */
  readonly nodev: boolean;
  /** Makes the root inode of a new superblock and sets what else it needs; 0 or -errno. */
  fill_super(sb: SbPtr): number;
  /** Before all inodes are evicted: lets go of what keeps dentries in use. */
  kill_sb?(sb: SbPtr): void;
  /**
   * Fills a page with what a file holds from `page.index` on, zeroes behind its end. A file system without it has no other
   * copy than the page cache: what was never written is zeroes, and its pages cannot be reclaimed.
   */
  read_folio?(inode: InodePtr, page: PagePtr): void;
  /** Which inodes are dropped with their last user although they still have a name. */
  drop_inode?(inode: InodePtr): boolean;
}

/** Gives a record of functions an address that structs in RAM can keep. Call it at module level. */
export function ops_symbol<T extends object>(name: string, ops: T): FnPtr {
  const record = record_of_running(ops);
  return ksym(name, () => record);
}

/** The record at such an address; an empty one for NULL. */
export function ops_at<T extends object>(address: FnPtr): T {
  return address === 0 ? ({} as T) : (ksym_fn(address)() as T);
}

export const inode_ops = (inode: InodePtr): InodeOps => ops_at<InodeOps>(Inode.i_op.get(inode));
export const file_ops = (file: FilePtr): FileOps => ops_at<FileOps>(File.f_op.get(file));
export const sb_type = (sb: SbPtr): FileSystemType => ops_at<FileSystemType>(SuperBlock.s_type.get(sb));

/** S_IFDIR, S_IFREG or S_IFLNK. */
export const inode_type = (inode: InodePtr): number => Inode.i_mode.get(inode) & S_IFMT;
export const is_dir = (inode: InodePtr): boolean => inode_type(inode) === S_IFDIR;
