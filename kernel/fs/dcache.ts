/**
 * The directory cache: a dentry for each name that was looked up.
 *
 *     hash table:  (parent, name) -> dentry          dentry -> d_inode (positive)  or NULL (negative: known not to exist)
 *     tree:        parent.d_children -> children     a child counts as a user of its parent
 *
 * Life of a dentry that a file system lets go of:
 *   1 in use        d_count > 0, may still be on the LRU list from before
 *   2 unused        the last dput puts it on the tail of its superblock's LRU list, if it is hashed
 *   3 found again   by the next lookup: d_count 1; stays on the list. A further last dput sets DCACHE_REFERENCED.
 *   4 shrunk        from the head: in use, off the list; referenced, to the tail once more; else freed, and with it
 *                   every ancestor that nobody else uses
 *
 * A name of up to 39 bytes lies in the dentry itself; a longer one in an object of its own (kmalloc-rcl-*).
 * Locks: dcache.lock protects hash chains, children lists and alias lists.
 * Unlike Linux: a dentry is freed at once, not after an RCU grace period.
 */
import { NULL, px, type NodeId, type Ptr } from "../../hal/addr.ts";
import { atomic_add, atomic_add_return } from "../../hal/atomic.ts";
import { static_data } from "../../hal/image.ts";
import { ram8, ram_copy, ram_read_bytes, ram_read_string, ram_write_bytes, ram_zero } from "../../hal/ram.ts";
import { GFP_KERNEL, GFP_KERNEL_ACCOUNT, __GFP_RECLAIMABLE } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_ACCOUNT, SLAB_PANIC, SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { BUG, BUG_ON } from "../lib/bug.ts";
import { hlist_add_head, hlist_del_init, hlist_for_each, hlist_unhashed } from "../lib/hlist.ts";
import { init_list_head, type ListPtr } from "../lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../lib/spinlock.ts";
import {
  DCACHE_DONTCACHE, DCACHE_LRU_LIST, DCACHE_REFERENCED, DNAME_INLINE_LEN, Dentry, Inode, SuperBlock,
  type DentryPtr, type InodePtr, type SbPtr,
} from "./fs.ts"; // prettier-ignore
import { alloc_large_system_hash, hash_chain } from "./hashtable.ts";
import { iput } from "./inode.ts";
import { LRU_REMOVED, LRU_ROTATE, list_lru_add_obj, list_lru_del_obj, list_lru_walk_node } from "./list_lru.ts";

const m8 = ram8;
/** What Linux keeps before the text of a long name: a count and an RCU head. */
const EXTERNAL_NAME_HEADER = 24;

const dcache = static_data("dcache", {
  lock: SpinLock,
  cache: "*kmem_cache",
  hashtable: "*hlist_head",
  shift: "u32",
  nr_dentry: "u32", // all there are
  nr_unused: "u32", // on LRU lists
  nr_negative: "u32", // those of them that are negative
});

/** Boot: makes the cache and the hash table. */
export function dcache_init(): void {
  const flags = SLAB_RECLAIM_ACCOUNT | SLAB_PANIC | SLAB_ACCOUNT;
  const args = { align: 8, useroffset: Dentry.d_shortname.offset, usersize: DNAME_INLINE_LEN };
  dcache.cache = kmem_cache_create("dentry", Dentry.sizeof, args, flags);
  const { table, shift } = alloc_large_system_hash("Dentry cache", 13);
  dcache.hashtable = table;
  dcache.shift = shift;
}

/** The figures of /proc/sys/fs/dentry-state. */
export function dentry_stat(): { nr_dentry: number; nr_unused: number; nr_negative: number } {
  return { nr_dentry: dcache.nr_dentry, nr_unused: dcache.nr_unused, nr_negative: dcache.nr_negative };
}

/** Hash of a name in a directory. */
function full_name_hash(parent: DentryPtr, name: string): number {
  let hash = parent | 0;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

const chain_of = (hash: number): Ptr<"hlist_head"> => hash_chain(dcache.hashtable, dcache.shift, hash);

export function d_name(dentry: DentryPtr): string {
  return ram_read_string(Dentry.d_name.get(dentry), Dentry.d_name_len.get(dentry));
}

export function d_unhashed(dentry: DentryPtr): boolean {
  return hlist_unhashed(Dentry.d_hash.at(dentry));
}

export const d_is_negative = (dentry: DentryPtr): boolean => Dentry.d_inode.get(dentry) === NULL;

const has_flag = (dentry: DentryPtr, flag: number): boolean => (Dentry.d_flags.get(dentry) & flag) !== 0;
const set_flag = (dentry: DentryPtr, flag: number): void =>
  Dentry.d_flags.set(dentry, Dentry.d_flags.get(dentry) | flag);
const clear_flag = (dentry: DentryPtr, flag: number): void =>
  Dentry.d_flags.set(dentry, Dentry.d_flags.get(dentry) & ~flag);

function store_name(dentry: DentryPtr, name: string): boolean {
  let text: Ptr = Dentry.d_shortname.at(dentry);
  if (name.length >= DNAME_INLINE_LEN) {
    const external = kmalloc(EXTERNAL_NAME_HEADER + name.length + 1, GFP_KERNEL_ACCOUNT | __GFP_RECLAIMABLE);
    if (external === NULL) return false;
    text = external + EXTERNAL_NAME_HEADER;
  }
  for (let i = 0; i < name.length; i++) m8[text + i] = name.charCodeAt(i);
  m8[text + name.length] = 0;
  Dentry.d_name.set(dentry, text);
  Dentry.d_name_len.set(dentry, name.length);
  return true;
}

/** A dentry that belongs to no directory, with one user. NULL without memory. */
function __d_alloc(sb: SbPtr, name: string): DentryPtr {
  const dentry: DentryPtr = kmem_cache_alloc(dcache.cache, GFP_KERNEL);
  if (dentry === NULL) return NULL;
  ram_zero(dentry, Dentry.sizeof);
  if (!store_name(dentry, name)) {
    kmem_cache_free(dcache.cache, dentry);
    return NULL;
  }
  Dentry.d_count.set(dentry, 1);
  Dentry.d_parent.set(dentry, dentry);
  Dentry.d_op.set(dentry, SuperBlock.s_d_op.get(sb));
  Dentry.d_sb.set(dentry, sb);
  init_list_head(Dentry.d_lru.at(dentry));
  dcache.nr_dentry = dcache.nr_dentry + 1;
  return dentry;
}

/** Makes a negative dentry that no lookup finds yet, with one user. NULL without memory. */
export function d_alloc(parent: DentryPtr, name: string): DentryPtr {
  const dentry = __d_alloc(Dentry.d_sb.get(parent), name);
  if (dentry === NULL) return NULL;
  Dentry.d_name_hash.set(dentry, full_name_hash(parent, name));
  Dentry.d_parent.set(dentry, dget(parent));
  spin_lock(dcache.lock);
  hlist_add_head(Dentry.d_sib.at(dentry), Dentry.d_children.at(parent));
  spin_unlock(dcache.lock);
  return dentry;
}

/** Makes the root of a file system, taking over the caller's use of `inode`, also when it fails. NULL without memory. */
export function d_make_root(inode: InodePtr): DentryPtr {
  const root = __d_alloc(Inode.i_sb.get(inode), "/");
  if (root === NULL) iput(inode);
  else d_instantiate(root, inode);
  return root;
}

/** Gives a negative dentry its inode, taking over the caller's use of it. */
export function d_instantiate(dentry: DentryPtr, inode: InodePtr): void {
  if (has_flag(dentry, DCACHE_LRU_LIST)) dcache.nr_negative = dcache.nr_negative - 1;
  spin_lock(dcache.lock);
  Dentry.d_inode.set(dentry, inode);
  hlist_add_head(Dentry.d_alias.at(dentry), Inode.i_dentry.at(inode));
  spin_unlock(dcache.lock);
}

/** Lets lookups find a dentry, with `inode` or, if that is NULL, as a negative one. */
export function d_add(dentry: DentryPtr, inode: InodePtr): void {
  if (inode !== NULL) d_instantiate(dentry, inode);
  if (!d_unhashed(dentry)) return;
  spin_lock(dcache.lock);
  hlist_add_head(Dentry.d_hash.at(dentry), chain_of(Dentry.d_name_hash.get(dentry)));
  spin_unlock(dcache.lock);
}

/** Hides a dentry from lookups; its last user frees it. */
export function d_drop(dentry: DentryPtr): void {
  spin_lock(dcache.lock);
  hlist_del_init(Dentry.d_hash.at(dentry));
  spin_unlock(dcache.lock);
}

/** The dentry of a name, with one more user; NULL if the name is not cached. */
export function d_lookup(parent: DentryPtr, name: string): DentryPtr {
  const hash = full_name_hash(parent, name);
  let found: DentryPtr = NULL;
  spin_lock(dcache.lock);
  for (const node of hlist_for_each(chain_of(hash))) {
    const dentry: DentryPtr = node - Dentry.d_hash.offset;
    if (Dentry.d_name_hash.get(dentry) !== hash || Dentry.d_parent.get(dentry) !== parent) continue;
    if (d_name(dentry) !== name) continue;
    found = dget(dentry);
    break;
  }
  spin_unlock(dcache.lock);
  return found;
}

/** One user more. */
export function dget(dentry: DentryPtr): DentryPtr {
  atomic_add(Dentry.d_count.at(dentry), 1);
  return dentry;
}

/** One user less; returns how many are left. */
function put_count(dentry: DentryPtr): number {
  const count = atomic_add_return(Dentry.d_count.at(dentry), -1);
  if (count < 0) BUG(`dentry ${px(dentry)} "${d_name(dentry)}" is put more often than taken`);
  return count;
}

/** Ends a use. What nobody uses any more goes onto the LRU list, or is freed if it is not to be kept. NULL is ignored. */
export function dput(dentry: DentryPtr): void {
  let victim = dentry;
  while (victim !== NULL && put_count(victim) === 0) {
    if (!d_unhashed(victim) && !has_flag(victim, DCACHE_DONTCACHE)) {
      if (!has_flag(victim, DCACHE_LRU_LIST)) d_lru_add(victim);
      else set_flag(victim, DCACHE_REFERENCED);
      return;
    }
    victim = dentry_kill(victim);
  }
}

function count_lru(dentry: DentryPtr, by: number): void {
  dcache.nr_unused = dcache.nr_unused + by;
  if (d_is_negative(dentry)) dcache.nr_negative = dcache.nr_negative + by;
}

function d_lru_add(dentry: DentryPtr): void {
  set_flag(dentry, DCACHE_LRU_LIST);
  list_lru_add_obj(SuperBlock.s_dentry_lru.get(Dentry.d_sb.get(dentry)), Dentry.d_lru.at(dentry));
  count_lru(dentry, 1);
}

/** What is left to do when a dentry has been taken off the LRU list. */
function d_lru_removed(dentry: DentryPtr): void {
  clear_flag(dentry, DCACHE_LRU_LIST | DCACHE_REFERENCED);
  count_lru(dentry, -1);
}

/** Makes a positive dentry negative. */
function dentry_unlink_inode(dentry: DentryPtr): void {
  const inode = Dentry.d_inode.get(dentry);
  spin_lock(dcache.lock);
  hlist_del_init(Dentry.d_alias.at(dentry));
  Dentry.d_inode.set(dentry, NULL);
  spin_unlock(dcache.lock);
  if (has_flag(dentry, DCACHE_LRU_LIST)) dcache.nr_negative = dcache.nr_negative + 1;
  iput(inode);
}

/** Frees a dentry that nobody uses. Returns its parent, whose use has yet to be ended; NULL at a root. */
function dentry_kill(dentry: DentryPtr): DentryPtr {
  const parent = Dentry.d_parent.get(dentry);
  if (list_lru_del_obj(SuperBlock.s_dentry_lru.get(Dentry.d_sb.get(dentry)), Dentry.d_lru.at(dentry)))
    d_lru_removed(dentry);
  spin_lock(dcache.lock);
  hlist_del_init(Dentry.d_hash.at(dentry));
  hlist_del_init(Dentry.d_sib.at(dentry));
  spin_unlock(dcache.lock);
  if (!d_is_negative(dentry)) dentry_unlink_inode(dentry);
  const name = Dentry.d_name.get(dentry);
  if (name !== Dentry.d_shortname.at(dentry)) kfree(name - EXTERNAL_NAME_HEADER);
  kmem_cache_free(dcache.cache, dentry);
  dcache.nr_dentry = dcache.nr_dentry - 1;
  return parent === dentry ? NULL : parent;
}

/** After a file's name was removed: makes its dentry negative, or hides it if there are other users. */
export function d_delete(dentry: DentryPtr): void {
  if (Dentry.d_count.get(dentry) === 1) dentry_unlink_inode(dentry);
  else d_drop(dentry);
}

/**
 * Gives a dentry the name and the place of another, negative one, which lookups no longer find then. Their uses of the
 * two parents change hands with the places.
 */
export function d_move(dentry: DentryPtr, target: DentryPtr): void {
  spin_lock(dcache.lock);
  for (const each of [dentry, target]) {
    hlist_del_init(Dentry.d_hash.at(each));
    hlist_del_init(Dentry.d_sib.at(each));
  }
  swap_names(dentry, target);
  for (const field of [Dentry.d_parent, Dentry.d_name_hash]) {
    const mine = field.get(dentry);
    field.set(dentry, field.get(target));
    field.set(target, mine);
  }
  for (const each of [dentry, target])
    hlist_add_head(Dentry.d_sib.at(each), Dentry.d_children.at(Dentry.d_parent.get(each)));
  hlist_add_head(Dentry.d_hash.at(dentry), chain_of(Dentry.d_name_hash.get(dentry)));
  spin_unlock(dcache.lock);
}

/** Exchanges two names; a long one is only pointed to. */
function swap_names(a: DentryPtr, b: DentryPtr): void {
  const own = [a, b].map((dentry) => Dentry.d_name.get(dentry) === Dentry.d_shortname.at(dentry));
  const [name, length] = [Dentry.d_name.get(a), Dentry.d_name_len.get(a)];
  const text = ram_read_bytes(Dentry.d_shortname.at(a), DNAME_INLINE_LEN);
  ram_copy(Dentry.d_shortname.at(a), Dentry.d_shortname.at(b), DNAME_INLINE_LEN);
  ram_write_bytes(Dentry.d_shortname.at(b), text);
  Dentry.d_name.set(a, own[1] ? Dentry.d_shortname.at(a) : Dentry.d_name.get(b));
  Dentry.d_name_len.set(a, Dentry.d_name_len.get(b));
  Dentry.d_name.set(b, own[0] ? Dentry.d_shortname.at(b) : name);
  Dentry.d_name_len.set(b, length);
}

/** Frees all unused descendants of a dentry. */
export function shrink_dcache_parent(parent: DentryPtr): void {
  for (const child of d_children(parent)) {
    shrink_dcache_parent(child);
    if (Dentry.d_count.get(child) !== 0) continue;
    dentry_kill(child);
    put_count(parent);
  }
}

/** Makes sure that no lookup finds a dentry or what is below it. */
export function d_invalidate(dentry: DentryPtr): void {
  shrink_dcache_parent(dentry);
  d_drop(dentry);
}

/** Children of a dentry, newest first; the body may free the one it is given. */
export function* d_children(parent: DentryPtr): Generator<DentryPtr> {
  for (const node of hlist_for_each(Dentry.d_children.at(parent))) yield node - Dentry.d_sib.offset;
}

/** Frees the tree of a file system that is going away. */
export function shrink_dcache_for_umount(root: DentryPtr): void {
  shrink_dcache_parent(root);
  const users = Dentry.d_count.get(root);
  BUG_ON(users !== 1, `Dentry still in use (${users - 1}) [unmount of a file system]`);
  d_drop(root);
  dput(root);
}

/**
 * Shrinks a superblock's LRU list on one node: looks at up to `nr` dentries, oldest first. Returns how many it took off
 * the list; ancestors that nobody uses any more go with them.
 */
export function prune_dcache_sb(sb: SbPtr, nid: NodeId, nr: number): number {
  const dispose: DentryPtr[] = [];
  const isolate = (item: ListPtr): number => {
    const dentry: DentryPtr = item - Dentry.d_lru.offset;
    const in_use = Dentry.d_count.get(dentry) > 0;
    if (!in_use && has_flag(dentry, DCACHE_REFERENCED)) {
      clear_flag(dentry, DCACHE_REFERENCED);
      return LRU_ROTATE;
    }
    d_lru_removed(dentry);
    if (!in_use) dispose.push(dentry);
    return LRU_REMOVED;
  };
  const freed = list_lru_walk_node(SuperBlock.s_dentry_lru.get(sb), nid, nr, isolate);
  for (const victim of dispose) {
    let dentry = dentry_kill(victim);
    while (dentry !== NULL && put_count(dentry) === 0) dentry = dentry_kill(dentry);
  }
  return freed;
}
