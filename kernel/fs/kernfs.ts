/**
 * The tree behind /proc and /sys: what names there are, and who produces the contents.
 *
 *     kernfs_node   a directory, a file or a link; or one that stands for many: `names` lists them, `find` gives the
 *                   number of one of them, its instance (a pid, a cache's address)
 *       /proc  [ meminfo | … | many: PID -> [ status | comm | stat ] ]
 *
 * Inodes and dentries are made when a name is looked up, and go when memory is short, like those of any file system;
 * everything below an instance has the instance's number. A file's text comes from its producer, a function
 * `(instance) => text` named by ksym, called anew by each read: it sees one moment and writes into host memory.
 *
 * Unlike Linux: procfs uses these nodes too. sysfs inodes stay on the LRU list (see inode.ts); procfs has its own way
 * of not remembering names that do not exist.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { struct } from "../../hal/struct.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kmem_cache_create, kmem_cache_free, kmem_cache_zalloc } from "../../mm/slab_common.ts";
import { SLAB_PANIC } from "../../mm/slab_layout.ts";
import { BUG_ON } from "../lib/bug.ts";
import { EACCES, EEXIST, EIO, ENOENT, ENOMEM } from "../lib/errno.ts";
import { ksym_fn, type FnPtr } from "../lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "../lib/list.ts";
import { bytes_of, bytes_to_string } from "./bytes.ts";
import { d_add, d_is_negative, d_make_root, d_name } from "./dcache.ts";
import {
  Dentry, File, Inode, O_ACCMODE, O_RDONLY, O_WRONLY, SB_NONEGATIVE, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT,
  S_IFREG, SuperBlock, ops_symbol, type DentryOps, type DentryPtr, type Dirent, type FileOps, type FilePtr,
  type InodeOps, type InodePtr, type SbPtr,
} from "./fs.ts"; // prettier-ignore
import { iget_locked } from "./inode.ts";

const NODE_NAME_BYTES = 32;
export const KernfsNode = struct("kernfs_node", {
  parent: "*kernfs_node",
  sibling: ListHead, // the parent's children, oldest first
  children: ListHead,
  mode: "u32",
  id: "u32",
  show: "*fn", // (instance) => text; of a link: where it leads; of a device: its file operations
  store: "*fn", // (instance, text) => 0 or -errno
  names: "*fn", // (instance of the parent) => names[]; NULL: a node that stands for itself
  find: "*fn", // (instance of the parent, name) => instance or -errno
  name: "char[32]",
});
export type KernfsPtr = Ptr<"kernfs_node">;
/** Produces a file's text; a negative number is an error. */
export type Show = (instance: number) => string | number;
/** Takes what was written; 0 or -errno. */
export type Store = (instance: number, text: string) => number;

const kernfs = static_data("kernfs", { cache: "*kmem_cache", last_id: "u32" });

/** Boot. */
export function kernfs_init(): void {
  kernfs.cache = kmem_cache_create("kernfs_node_cache", KernfsNode.sizeof, 0, SLAB_PANIC);
}

export interface NodeSpec {
  /** Type and permissions, as in an inode. */
  readonly mode: number;
  readonly show?: FnPtr;
  readonly store?: FnPtr;
  /** The node stands for many: see kernfs_node. */
  readonly names?: FnPtr;
  readonly find?: FnPtr;
}

/** Makes a node; `parent` NULL: a root. NULL without memory. */
export function kernfs_new_node(parent: KernfsPtr, name: string, spec: NodeSpec): KernfsPtr {
  BUG_ON(name.length >= NODE_NAME_BYTES, `kernfs name too long: ${name}`);
  const node: KernfsPtr = kmem_cache_zalloc(kernfs.cache, GFP_KERNEL);
  if (node === NULL) return NULL;
  KernfsNode.name.set(node, name);
  KernfsNode.mode.set(node, spec.mode);
  KernfsNode.show.set(node, spec.show ?? 0);
  KernfsNode.store.set(node, spec.store ?? 0);
  KernfsNode.names.set(node, spec.names ?? 0);
  KernfsNode.find.set(node, spec.find ?? 0);
  KernfsNode.id.set(node, ++kernfs.last_id);
  KernfsNode.parent.set(node, parent);
  init_list_head(KernfsNode.children.at(node));
  init_list_head(KernfsNode.sibling.at(node));
  if (parent !== NULL) list_add_tail(KernfsNode.sibling.at(node), KernfsNode.children.at(parent));
  return node;
}

/** Frees a node and all below it. */
export function kernfs_remove(node: KernfsPtr): void {
  for (const child of [...children(node)]) kernfs_remove(child);
  list_del(KernfsNode.sibling.at(node));
  kmem_cache_free(kernfs.cache, node);
}

function* children(node: KernfsPtr): Generator<KernfsPtr> {
  const head = KernfsNode.children.at(node);
  for (let at = list_next(head); at !== head; at = list_next(at)) yield at - KernfsNode.sibling.offset;
}

/** A name below a node, as `kernfs_walk` finds it. */
export interface KernfsEntry {
  /** Names from the root on, joined by "/". */
  readonly path: string;
  readonly mode: number;
  /** A file's text, or where a link leads; undefined for a directory and for what cannot be read. */
  readonly text: string | undefined;
}

/** Everything below a node, contents included, straight from the producers: it takes no memory of the kernel. */
export function* kernfs_walk(node: KernfsPtr, instance = 0, path = ""): Generator<KernfsEntry> {
  for (const child of children(node)) {
    const [names, find] = [KernfsNode.names.get(child), KernfsNode.find.get(child)];
    const members = names === NULL ? [KernfsNode.name.get(child)] : (ksym_fn(names)(instance) as string[]);
    for (const name of members) {
      const number = find === NULL ? instance : (ksym_fn(find)(instance, name) as number);
      if (number < 0) continue;
      const entry = { path: `${path}${name}`, mode: KernfsNode.mode.get(child), text: text_of(child, number) };
      yield entry;
      yield* kernfs_walk(child, number, `${entry.path}/`);
    }
  }
}

/** The text of one file below a root, straight from its producer; undefined if there is none. */
export function kernfs_text(root: KernfsPtr, path: string): string | undefined {
  let at: { node: KernfsPtr; instance: number } | undefined = { node: root, instance: 0 };
  for (const name of path.split("/")) at &&= find_child(at.node, at.instance, name);
  return at && text_of(at.node, at.instance);
}

function text_of(node: KernfsPtr, instance: number): string | undefined {
  const [show, mode] = [KernfsNode.show.get(node), KernfsNode.mode.get(node)];
  if (show === NULL || !(mode & 0o444)) return undefined;
  const text = (ksym_fn(show) as Show)(instance);
  return typeof text === "number" ? undefined : text;
}

const node_of = (inode: InodePtr): KernfsPtr => Inode.i_private.get(inode);
const instance_of = (inode: InodePtr): number => Inode.i_fsdata.get(inode);

/** The node of a name below `parent`, with its instance; undefined if there is none. */
function find_child(
  parent: KernfsPtr,
  instance: number,
  name: string,
): { node: KernfsPtr; instance: number } | undefined {
  for (const node of children(parent)) {
    const find = KernfsNode.find.get(node);
    if (find === NULL) {
      if (KernfsNode.name.get(node) === name) return { node, instance };
      continue;
    }
    const found = ksym_fn(find)(instance, name) as number;
    if (found >= 0) return { node, instance: found };
  }
  return undefined;
}

/** The node of a path of names below `root`; NULL if there is none. Nodes that stand for many go by their own name. */
export function kernfs_find(root: KernfsPtr, path: string): KernfsPtr {
  let node = root;
  for (const name of path.split("/").filter((part) => part !== ""))
    node = [...children(node)].find((child) => KernfsNode.name.get(child) === name) ?? NULL;
  return node;
}

/** Makes the nodes of a path below `root` that are not there, directories but for the last. It, or -errno. */
export function kernfs_create(root: KernfsPtr, path: string, spec: NodeSpec): KernfsPtr {
  const names = path.split("/");
  let node = root;
  for (const [i, name] of names.entries()) {
    const is_last = i === names.length - 1;
    const found = kernfs_find(node, name);
    if (found !== NULL && is_last) return -EEXIST;
    node = found || kernfs_new_node(node, name, is_last ? spec : { mode: S_IFDIR | 0o555 });
    if (node === NULL) return -ENOMEM;
  }
  return node;
}

/** The inode of a node's instance. NULL without memory. */
function kernfs_get_inode(sb: SbPtr, node: KernfsPtr, instance: number): InodePtr {
  const mode = KernfsNode.mode.get(node);
  // A machine has few thousand nodes, and an instance is below 2^31: the two make a number of their own.
  const { inode, is_new } = iget_locked(sb, instance * 4096 + KernfsNode.id.get(node), mode);
  if (inode === NULL || !is_new) return inode;
  Inode.i_private.set(inode, node);
  Inode.i_fsdata.set(inode, instance);
  Inode.i_op.set(inode, (mode & S_IFMT) === S_IFDIR ? dir_iops : (mode & S_IFMT) === S_IFLNK ? link_iops : NULL);
  const is_device = (mode & S_IFMT) === S_IFCHR;
  Inode.i_fop.set(inode, (mode & S_IFMT) === S_IFDIR ? dir_fops : is_device ? KernfsNode.show.get(node) : file_fops);
  return inode;
}

function kernfs_lookup(dir: InodePtr, dentry: DentryPtr): number {
  const found = find_child(node_of(dir), instance_of(dir), d_name(dentry));
  const sb = Inode.i_sb.get(dir);
  if (!found && SuperBlock.s_flags.get(sb) & SB_NONEGATIVE) return -ENOENT;
  const inode = found ? kernfs_get_inode(sb, found.node, found.instance) : NULL;
  if (found && inode === NULL) return -ENOMEM;
  d_add(dentry, inode);
  return 0;
}

/** True if the name still means what it meant when it was looked up. */
function kernfs_revalidate(dentry: DentryPtr): boolean {
  const parent = Dentry.d_parent.get(dentry);
  if (parent === dentry) return true;
  const dir = Dentry.d_inode.get(parent);
  const found = find_child(node_of(dir), instance_of(dir), d_name(dentry));
  if (d_is_negative(dentry)) return !found;
  const inode = Dentry.d_inode.get(dentry);
  return found?.node === node_of(inode) && found.instance === instance_of(inode);
}

function kernfs_readdir(file: FilePtr): Dirent[] {
  const dir = File.f_inode.get(file);
  const entries: Dirent[] = [];
  for (const node of children(node_of(dir))) {
    const names = KernfsNode.names.get(node);
    const type = KernfsNode.mode.get(node) & S_IFMT;
    const list = names === NULL ? [KernfsNode.name.get(node)] : (ksym_fn(names)(instance_of(dir)) as string[]);
    for (const name of list) entries.push({ name, ino: KernfsNode.id.get(node), type });
  }
  return entries;
}

function get_link(inode: InodePtr): string | number {
  return (ksym_fn(KernfsNode.show.get(node_of(inode))) as Show)(instance_of(inode));
}

/** Refuses what nobody could answer. */
function kernfs_open(inode: InodePtr, file: FilePtr): number {
  const access = File.f_flags.get(file) & O_ACCMODE;
  const mode = KernfsNode.mode.get(node_of(inode));
  if (access !== O_WRONLY && !(mode & 0o444)) return -EACCES;
  return access !== O_RDONLY && !(mode & 0o222) ? -EACCES : 0;
}

function kernfs_read(file: FilePtr, pos: number, count: number): Uint8Array | number {
  const inode = File.f_inode.get(file);
  const show = KernfsNode.show.get(node_of(inode));
  const text = show === NULL ? "" : (ksym_fn(show) as Show)(instance_of(inode));
  if (typeof text === "number") return text;
  // What it said first is as long as it is for this file, however long it is by the next read.
  if (pos === 0) File.f_prev_end.set(file, text.length);
  return bytes_of(text.slice(pos, Math.min(pos + count, File.f_prev_end.get(file))));
}

function kernfs_write(file: FilePtr, _pos: number, bytes: Uint8Array): number {
  const inode = File.f_inode.get(file);
  const store = KernfsNode.store.get(node_of(inode));
  if (store === NULL) return -EIO;
  return (ksym_fn(store) as Store)(instance_of(inode), bytes_to_string(bytes)) || bytes.length;
}

const dir_iops = ops_symbol<InodeOps>("kernfs_dir_iops", { lookup: kernfs_lookup });
const link_iops = ops_symbol<InodeOps>("kernfs_symlink_iops", { get_link });
const dir_fops = ops_symbol<FileOps>("kernfs_dir_fops", { iterate: kernfs_readdir });
const file_fops = ops_symbol<FileOps>("kernfs_file_fops", {
  open: kernfs_open,
  read: kernfs_read,
  write: kernfs_write,
});
const dops = ops_symbol<DentryOps>("kernfs_dops", { d_revalidate: kernfs_revalidate });

/** Makes the root of a superblock whose `s_fs_info` is the root node. */
export function kernfs_fill_super(sb: SbPtr): number {
  SuperBlock.s_d_op.set(sb, dops);
  const inode = kernfs_get_inode(sb, SuperBlock.s_fs_info.get(sb), 0);
  const root = inode === NULL ? NULL : d_make_root(inode);
  SuperBlock.s_root.set(sb, root);
  return root === NULL ? -ENOMEM : 0;
}

/** Mode of a plain file with these permissions. */
export const file_mode = (permissions: number): number => S_IFREG | permissions;
