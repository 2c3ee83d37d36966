/**
 * Inodes: one for each file in use, and some that are kept in case they are used again.
 *
 * The cache has a once-constructor, `inode_init_once`: it runs when a slab is made, not when an inode is allocated. It
 * makes the list heads, locks and the empty page cache; whoever frees an inode leaves them like that. What differs from
 * file to file is set by `inode_init_always`.
 *
 *     new_inode / iget_locked -> i_count 1 -> … iput -> 0: no name left, or on no hash chain: evict
 *                                                         else onto the superblock's LRU list, for iget_locked to find
 *
 * An inode with pages in its page cache is kept off the LRU list: dropping it would lose them.
 * Locks: inode_hash.lock, super_block.s_inode_list_lock.
 * Unlike Linux: every file system here takes its inodes from this cache (Linux's have caches of their own), and inodes
 * of sysfs are kept on the LRU list, where Linux's kernfs drops them with their last dentry.
 */
import { NULL, px, type NodeId, type Obj, type Ptr } from "../../hal/addr.ts";
import { atomic_add, atomic_add_return } from "../../hal/atomic.ts";
import { local_clock } from "../../hal/clock.ts";
import { events, has_listener } from "../../hal/events.ts";
import { static_data } from "../../hal/image.ts";
import { ram_zero } from "../../hal/ram.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL } from "../../mm/gfp.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_ACCOUNT, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { BUG, BUG_ON } from "../lib/bug.ts";
import { hlist_add_head, hlist_del_init, hlist_for_each, hlist_unhashed } from "../lib/hlist.ts";
import { ksym } from "../lib/ksym.ts";
import { init_list_head, list_add, list_del_init, list_empty, list_next, type ListPtr } from "../lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../lib/spinlock.ts";
import { I_FREEING, I_REFERENCED, Inode, SB_ACTIVE, SuperBlock, is_dir, sb_type, type InodePtr, type SbPtr } from "./fs.ts"; // prettier-ignore
import { truncate_inode_pages } from "./filemap.ts";
import { alloc_large_system_hash, hash_chain } from "./hashtable.ts";
import { LRU_REMOVED, LRU_ROTATE, list_lru_add_obj, list_lru_del_obj, list_lru_walk_node } from "./list_lru.ts";

const inode_hash = static_data("inode_hash", {
  lock: SpinLock,
  cache: "*kmem_cache",
  hashtable: "*hlist_head",
  shift: "u32",
  nr_inodes: "u32", // all there are
  nr_unused: "u32", // on LRU lists
  nr_constructed: "u32", // how often the constructor ran
});

/** What every inode is whenever it lies free in a slab. Runs once an object, when the slab is made. */
export function inode_init_once(object: Obj): void {
  const inode: InodePtr = object;
  ram_zero(inode, Inode.sizeof);
  init_list_head(Inode.i_lru.at(inode));
  init_list_head(Inode.i_sb_list.at(inode));
  AddressSpace.host.set(Inode.i_data.at(inode), inode);
  Inode.i_mapping.set(inode, Inode.i_data.at(inode));
  inode_hash.nr_constructed = inode_hash.nr_constructed + 1;
}
ksym("inode_init_once", inode_init_once);

/** Boot: makes the cache and the hash table. */
export function inode_init(): void {
  const flags = SLAB_RECLAIM_ACCOUNT | SLAB_PANIC | SLAB_ACCOUNT;
  inode_hash.cache = kmem_cache_create("inode_cache", Inode.sizeof, 0, flags, inode_init_once);
  const { table, shift } = alloc_large_system_hash("Inode-cache", 14);
  inode_hash.hashtable = table;
  inode_hash.shift = shift;
}

/** The figures of /proc/sys/fs/inode-state, and how often the constructor ran. */
export function inode_stat(): { nr_inodes: number; nr_unused: number; nr_constructed: number } {
  const { nr_inodes, nr_unused, nr_constructed } = inode_hash;
  return { nr_inodes, nr_unused, nr_constructed };
}

/** Makes an inode of a superblock, on no hash chain, with one user. NULL without memory. */
export function new_inode(sb: SbPtr, ino: number, mode: number): InodePtr {
  const inode: InodePtr = kmem_cache_alloc(inode_hash.cache, GFP_KERNEL);
  if (inode === NULL) return NULL;
  inode_init_always(inode, sb, ino, mode);
  spin_lock(SuperBlock.s_inode_list_lock.at(sb));
  list_add(Inode.i_sb_list.at(inode), SuperBlock.s_inodes.at(sb));
  spin_unlock(SuperBlock.s_inode_list_lock.at(sb));
  inode_hash.nr_inodes = inode_hash.nr_inodes + 1;
  if (has_listener("inode:new")) events.emit("inode:new", { ino, fs: sb_type(sb).name });
  return inode;
}

function inode_init_always(inode: InodePtr, sb: SbPtr, ino: number, mode: number): void {
  Inode.i_sb.set(inode, sb);
  Inode.i_ino.set(inode, ino);
  Inode.i_mode.set(inode, mode);
  Inode.i_nlink.set(inode, is_dir(inode) ? 2 : 1);
  Inode.i_count.set(inode, 1);
  Inode.i_state.set(inode, 0);
  Inode.i_size.set(inode, 0);
  Inode.i_mtime.set(inode, local_clock());
  Inode.i_op.set(inode, NULL);
  Inode.i_fop.set(inode, NULL);
  Inode.i_private.set(inode, NULL);
  Inode.i_fsdata.set(inode, 0);
  AddressSpace.gfp_mask.set(Inode.i_data.at(inode), GFP_HIGHUSER_MOVABLE);
  AddressSpace.flags.set(Inode.i_data.at(inode), 0);
}

const chain_of = (sb: SbPtr, ino: number): Ptr<"hlist_head"> =>
  hash_chain(inode_hash.hashtable, inode_hash.shift, (sb ^ ino ^ Math.floor(ino / 0x100000000)) | 0);

/** The inode of that number: the one in the hash table, or a new one (`is_new`) that is now there. NULL without memory. */
export function iget_locked(sb: SbPtr, ino: number, mode: number): { inode: InodePtr; is_new: boolean } {
  const found = find_inode(sb, ino);
  if (found !== NULL) return { inode: found, is_new: false };
  const inode = new_inode(sb, ino, mode);
  if (inode !== NULL) {
    spin_lock(inode_hash.lock);
    hlist_add_head(Inode.i_hash.at(inode), chain_of(sb, ino));
    spin_unlock(inode_hash.lock);
  }
  return { inode, is_new: true };
}

/** The inode of that number in the hash table, with one more user; NULL if it is not there. */
function find_inode(sb: SbPtr, ino: number): InodePtr {
  let found: InodePtr = NULL;
  spin_lock(inode_hash.lock);
  for (const node of hlist_for_each(chain_of(sb, ino))) {
    const inode: InodePtr = node - Inode.i_hash.offset;
    if (Inode.i_ino.get(inode) !== ino || Inode.i_sb.get(inode) !== sb) continue;
    ihold((found = inode));
    break;
  }
  spin_unlock(inode_hash.lock);
  return found;
}

/** One user more. */
export function ihold(inode: InodePtr): void {
  atomic_add(Inode.i_count.at(inode), 1);
}

/** Ends a use. The last one frees the inode or puts it onto the LRU list. NULL is ignored. */
export function iput(inode: InodePtr): void {
  if (inode === NULL) return;
  const count = atomic_add_return(Inode.i_count.at(inode), -1);
  if (count < 0) BUG(`inode ${px(inode)} (${Inode.i_ino.get(inode)}) is put more often than taken`);
  if (count > 0) return;
  const sb = Inode.i_sb.get(inode);
  const drop =
    Inode.i_nlink.get(inode) === 0 || hlist_unhashed(Inode.i_hash.at(inode)) || sb_type(sb).drop_inode?.(inode);
  if (!drop && SuperBlock.s_flags.get(sb) & SB_ACTIVE) inode_add_lru(inode);
  else evict(inode);
}

/** Puts an inode that nobody uses onto the LRU list, unless its page cache holds pages. */
export function inode_add_lru(inode: InodePtr): void {
  if (Inode.i_count.get(inode) > 0 || Inode.i_state.get(inode) & I_FREEING || has_pages(inode)) return;
  if (list_lru_add_obj(SuperBlock.s_inode_lru.get(Inode.i_sb.get(inode)), Inode.i_lru.at(inode)))
    inode_hash.nr_unused = inode_hash.nr_unused + 1;
  else Inode.i_state.set(inode, Inode.i_state.get(inode) | I_REFERENCED);
}

const has_pages = (inode: InodePtr): boolean => AddressSpace.nrpages.get(Inode.i_data.at(inode)) > 0;

/** Frees an inode that nobody uses, with all pages of its contents. */
function evict(inode: InodePtr): void {
  const sb = Inode.i_sb.get(inode);
  Inode.i_state.set(inode, I_FREEING);
  if (list_lru_del_obj(SuperBlock.s_inode_lru.get(sb), Inode.i_lru.at(inode)))
    inode_hash.nr_unused = inode_hash.nr_unused - 1;
  truncate_inode_pages(Inode.i_data.at(inode), 0);
  spin_lock(SuperBlock.s_inode_list_lock.at(sb));
  list_del_init(Inode.i_sb_list.at(inode));
  spin_unlock(SuperBlock.s_inode_list_lock.at(sb));
  spin_lock(inode_hash.lock);
  hlist_del_init(Inode.i_hash.at(inode));
  spin_unlock(inode_hash.lock);
  if (has_listener("inode:free")) events.emit("inode:free", { ino: Inode.i_ino.get(inode), fs: sb_type(sb).name });
  kmem_cache_free(inode_hash.cache, inode);
  inode_hash.nr_inodes = inode_hash.nr_inodes - 1;
}

/** All inodes of a superblock, newest first; the body may free the one it is given. */
export function* sb_inodes(sb: SbPtr): Generator<InodePtr> {
  const head = SuperBlock.s_inodes.at(sb);
  for (let node = list_next(head); node !== head;) {
    const next = list_next(node);
    yield node - Inode.i_sb_list.offset;
    node = next;
  }
}

/** Frees all inodes of a file system that is going away; its dentries are gone. */
export function evict_inodes(sb: SbPtr): void {
  for (const inode of sb_inodes(sb)) if (Inode.i_count.get(inode) === 0) evict(inode);
  BUG_ON(!list_empty(SuperBlock.s_inodes.at(sb)), `Busy inodes after unmount of ${sb_type(sb).name}`);
}

/** Shrinks a superblock's LRU list on one node, as prune_dcache_sb does. Returns how many inodes it took off the list. */
export function prune_icache_sb(sb: SbPtr, nid: NodeId, nr: number): number {
  const dispose: InodePtr[] = [];
  const isolate = (item: ListPtr): number => {
    const inode: InodePtr = item - Inode.i_lru.offset;
    const keep = Inode.i_count.get(inode) > 0 || has_pages(inode);
    if (!keep && Inode.i_state.get(inode) & I_REFERENCED) {
      Inode.i_state.set(inode, Inode.i_state.get(inode) & ~I_REFERENCED);
      return LRU_ROTATE;
    }
    inode_hash.nr_unused = inode_hash.nr_unused - 1;
    if (!keep) dispose.push(inode);
    return LRU_REMOVED;
  };
  const freed = list_lru_walk_node(SuperBlock.s_inode_lru.get(sb), nid, nr, isolate);
  dispose.forEach(evict);
  return freed;
}
