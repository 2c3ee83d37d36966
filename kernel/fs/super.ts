/**
 * Superblocks: one for each file system that is mounted, with its inodes, its two LRU lists and their shrinker.
 *
 * The shrinker counts unused dentries and inodes of a node. Asked to scan n, it shares n between the two by their
 * numbers, one more for each, dentries first: a dentry that goes may be an inode's last user.
 *
 * Locks: sb_lock (super_blocks.lock) protects the list of superblocks.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { GFP_KERNEL, __GFP_FS } from "../../mm/gfp.ts";
import { kfree, kzalloc } from "../../mm/kmalloc.ts";
import { SHRINKER_NUMA_AWARE, SHRINK_EMPTY, SHRINK_STOP, Shrinker, shrinker_alloc, shrinker_free, shrinker_register, type ShrinkControl, type ShrinkerPtr } from "../../mm/shrinker.ts"; // prettier-ignore
import { ENOMEM } from "../lib/errno.ts";
import { ksym, type FnPtr } from "../lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "../lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../lib/spinlock.ts";
import { prune_dcache_sb, shrink_dcache_for_umount } from "./dcache.ts";
import { SB_ACTIVE, SuperBlock, sb_type, type SbPtr } from "./fs.ts";
import { evict_inodes, prune_icache_sb } from "./inode.ts";
import { list_lru_alloc, list_lru_count_node } from "./list_lru.ts";

const super_blocks = static_data("super_blocks", {
  lock: SpinLock,
  list: ListHead,
  next_dev: "u32", // minor numbers of file systems without a device
  vfs_cache_pressure: "u32", // percent
});

/** Boot. */
export function super_init(): void {
  init_list_head(super_blocks.list);
  super_blocks.vfs_cache_pressure = 100;
}

/** `vm.vfs_cache_pressure`: the share of unused dentries and inodes that the shrinker counts, in percent. */
export function vfs_cache_pressure(): number {
  return super_blocks.vfs_cache_pressure;
}

export function set_vfs_cache_pressure(percent: number): void {
  super_blocks.vfs_cache_pressure = percent;
}

/** All superblocks, oldest first. */
export function* for_each_super(): Generator<SbPtr> {
  for (let node = list_next(super_blocks.list); node !== super_blocks.list; node = list_next(node))
    yield node - SuperBlock.s_list.offset;
}

function super_cache_count(shrinker: ShrinkerPtr, sc: ShrinkControl): number {
  const sb: SbPtr = Shrinker.private_data.get(shrinker) as Ptr;
  const dentries = list_lru_count_node(SuperBlock.s_dentry_lru.get(sb), sc.nid);
  const inodes = list_lru_count_node(SuperBlock.s_inode_lru.get(sb), sc.nid);
  if (dentries + inodes === 0) return SHRINK_EMPTY;
  return Math.floor(((dentries + inodes) * super_blocks.vfs_cache_pressure) / 100);
}

function super_cache_scan(shrinker: ShrinkerPtr, sc: ShrinkControl): number {
  // Freeing a file's last name works on the file system, which whoever allocates may be in the middle of.
  if (!(sc.gfp & __GFP_FS)) return SHRINK_STOP;
  const sb: SbPtr = Shrinker.private_data.get(shrinker) as Ptr;
  const dentries = list_lru_count_node(SuperBlock.s_dentry_lru.get(sb), sc.nid);
  const inodes = list_lru_count_node(SuperBlock.s_inode_lru.get(sb), sc.nid);
  const share = (of: number): number => Math.floor((sc.nr_to_scan * of) / (dentries + inodes + 1)) + 1;
  return prune_dcache_sb(sb, sc.nid, share(dentries)) + prune_icache_sb(sb, sc.nid, share(inodes));
}

const count_symbol = ksym("super_cache_count", super_cache_count);
const scan_symbol = ksym("super_cache_scan", super_cache_scan);
const SUPER_BATCH = 1024;

/** Makes a superblock with the root of a file system; `info` is the type's own. Returns it, or -ENOMEM. */
export function mount_fs(type: FnPtr, info = NULL): SbPtr {
  const sb = alloc_super(type, info);
  if (sb === NULL) return -ENOMEM;
  const error = sb_type(sb).fill_super(sb);
  if (error !== 0) {
    free_super(sb);
    return error;
  }
  const shrinker = SuperBlock.s_shrink.get(sb);
  Shrinker.batch.set(shrinker, SUPER_BATCH);
  shrinker_register(shrinker, count_symbol, scan_symbol, sb);
  SuperBlock.s_flags.set(sb, SuperBlock.s_flags.get(sb) | SB_ACTIVE);
  spin_lock(super_blocks.lock);
  list_add_tail(SuperBlock.s_list.at(sb), super_blocks.list);
  spin_unlock(super_blocks.lock);
  return sb;
}

function alloc_super(type: FnPtr, info: number): SbPtr {
  const sb: SbPtr = kzalloc(SuperBlock.sizeof, GFP_KERNEL);
  if (sb === NULL) return NULL;
  SuperBlock.s_type.set(sb, type);
  SuperBlock.s_fs_info.set(sb, info);
  SuperBlock.s_dev.set(sb, ++super_blocks.next_dev);
  SuperBlock.s_next_ino.set(sb, 1);
  init_list_head(SuperBlock.s_inodes.at(sb));
  SuperBlock.s_dentry_lru.set(sb, list_lru_alloc());
  SuperBlock.s_inode_lru.set(sb, list_lru_alloc());
  SuperBlock.s_shrink.set(sb, shrinker_alloc(SHRINKER_NUMA_AWARE));
  const parts = [SuperBlock.s_dentry_lru, SuperBlock.s_inode_lru, SuperBlock.s_shrink];
  if (parts.every((part) => part.get(sb) !== NULL)) return sb;
  free_super(sb);
  return NULL;
}

/** Frees a superblock, whole or as far as it was made. */
function free_super(sb: SbPtr): void {
  shrinker_free(SuperBlock.s_shrink.get(sb));
  kfree(SuperBlock.s_dentry_lru.get(sb));
  kfree(SuperBlock.s_inode_lru.get(sb));
  kfree(sb);
}

/** Takes a file system down. No file of it is open. */
export function generic_shutdown_super(sb: SbPtr): void {
  SuperBlock.s_flags.set(sb, SuperBlock.s_flags.get(sb) & ~SB_ACTIVE);
  sb_type(sb).kill_sb?.(sb);
  shrink_dcache_for_umount(SuperBlock.s_root.get(sb));
  evict_inodes(sb);
  spin_lock(super_blocks.lock);
  list_del(SuperBlock.s_list.at(sb));
  spin_unlock(super_blocks.lock);
  free_super(sb);
}
