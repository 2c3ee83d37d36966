/**
 * The slab side of a replay: takes and gives objects one at a time, and keeps the books.
 *
 * Every call is checked against the kernel on the spot: the cache's counters must have moved by one, the object must lie
 * in a slab of that cache at a whole multiple of the slot size, and on its way out it must carry the pattern of its
 * number. The figures are sums of what the counters moved by and of the slots found at the addresses. For the caches
 * that the replay made, a walk of all their slabs counts the live objects at the top of each rise and at the end.
 */
import { PAGE_SIZE, type NodeId, type Obj } from "../../hal/addr.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../../mm/gfp.ts";
import { ZERO_SIZE_PTR } from "../../mm/kmalloc.ts";
import type { PagePtr } from "../../mm/page.ts";
import { kmalloc_slab } from "../../mm/kmalloc_class.ts";
import {
  KmemCache, get_slabinfo, kmem_cache_check, kmem_cache_create, kmem_cache_destroy, oo_order, slab_ops, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { slab_view } from "../figures/views.ts";
import { counted_allocs, counted_frees, find_place, is_debugged, type Place } from "./measure.ts";
import type { ReplayOps } from "./ops.ts";
import { pattern_fault, pattern_write } from "./pattern.ts";
import type { TraceCache } from "./trace.ts";

/** Leaves objects as they are: that a cache has a constructor is what moves its free pointer behind the object. */
const replay_ctor = (_object: Obj): void => {};
ksym("replay_ctor", replay_ctor);

/** The books of one cache, or of all kmalloc caches of one size. */
export interface Account {
  readonly name: string;
  /** Whose geometry it has; NULL for large kmalloc. */
  readonly cache: CachePtr;
  /** The replay made the cache, so that all that is in it is the replay's. */
  readonly own: boolean;
  /** Pages of one slab. */
  readonly pages: number;
  allocs: number;
  frees: number;
  implied_frees: number;
  live: number;
  peak_live: number;
  sum_bytes_req: number;
  sum_bytes_alloc: number;
  live_bytes_req: number;
  peak_live_bytes_req: number;
  /** Own cache: all it has. Else those in which an object of the replay lives. */
  slabs: number;
  peak_slabs: number;
  /** The peak is new: no walk has confirmed it yet. */
  rising: boolean;
}

/** A live object. */
interface Block {
  readonly number: number;
  ptr: Obj;
  req: number;
  /** Undefined: kmalloc(0), which lies nowhere. */
  account?: Account | undefined;
  place?: Place;
}

export class Heap {
  readonly accounts = new Map<string, Account>();
  /** By number, oldest first. */
  readonly blocks = new Map<number, Block>();
  failed = 0;
  readonly now = { live_objects: 0, live_bytes_req: 0, live_bytes_alloc: 0, slab_pages: 0 };
  readonly peak = { ...this.now };
  /** Live objects of the replay in each slab that it shares with others. */
  private readonly shared = new Map<PagePtr, number>();
  /** Of an allocator without slabs, where pages are everybody's: what it had at the start. */
  private readonly pages_before = slab_view().pages_held?.();
  private readonly ops: ReplayOps;
  private readonly fail: (what: string) => never;

  constructor(ops: ReplayOps, fail: (what: string) => never) {
    this.ops = ops;
    this.fail = fail;
  }

  private open(name: string, cache: CachePtr, pages: number, own: boolean): Account {
    const sums = {
      allocs: 0,
      frees: 0,
      implied_frees: 0,
      live: 0,
      sum_bytes_req: 0,
      sum_bytes_alloc: 0,
      live_bytes_req: 0,
    };
    const peaks = { peak_live: 0, peak_live_bytes_req: 0, slabs: 0, peak_slabs: 0, rising: false };
    const account = { name, cache, own, pages, ...sums, ...peaks };
    this.accounts.set(name, account);
    return account;
  }

  /** The account of a named cache of the trace; the cache is made the first time. */
  private named(wanted: TraceCache): Account {
    const { name, object_size, align, has_ctor } = wanted;
    const known = this.accounts.get(name);
    if (known) return known;
    const args = { align, ctor: has_ctor ? replay_ctor : null };
    const wrong = kmem_cache_check(name, object_size, args, SLAB_NO_MERGE);
    if (wrong) this.fail(wrong);
    const cache = kmem_cache_create(name, object_size, args, SLAB_NO_MERGE);
    if (cache === 0) this.fail(`no memory for the cache ${name}`);
    return this.open(name, cache, 1 << oo_order(KmemCache.oo.get(cache)), true);
  }

  /** Takes object `number` of a named cache. `given` is the slot size that the trace has. */
  alloc(number: number, wanted: TraceCache, gfp: number, node: NodeId, given: number): void {
    const account = this.named(wanted);
    const { cache } = account;
    const before = counted_allocs(cache, 0);
    // Objects that have a state of their own must not be asked for zeroed.
    const ptr = this.ops.kmem_cache_alloc_node(cache, wanted.has_ctor ? gfp & ~__GFP_ZERO : gfp, node);
    this.take({ number, ptr, req: wanted.object_size, account }, cache, before, given);
  }

  /** Takes object `number` from kmalloc. False if the kernel had no memory. */
  kmalloc(number: number, req: number, gfp: number, node: NodeId, given = 0): boolean {
    const cache = req === 0 ? 0 : kmalloc_slab(req, gfp);
    const before = counted_allocs(cache, 0);
    return this.take({ number, ptr: this.ops.kmalloc_node(req, gfp, node), req }, cache, before, given);
  }

  private take(block: Block, cache: CachePtr, before: number, given: number): boolean {
    if (block.ptr === 0) {
      this.failed++;
      return false;
    }
    this.blocks.set(block.number, block);
    this.now.live_bytes_req += block.req;
    if (block.ptr !== ZERO_SIZE_PTR) this.enter(block, cache, before, given);
    this.see_peaks();
    return true;
  }

  /** Books an object that has just got its place, and marks it. `before` is what the cache had counted. */
  private enter(block: Block, cache: CachePtr, before: number, given: number): void {
    const { number, ptr, req } = block;
    const place = find_place(ptr, cache);
    const in_no_slab = cache === 0 && place.slot < PAGE_SIZE;
    const size = place.cache === 0 ? place.slot : KmemCache.object_size.get(place.cache);
    const name = in_no_slab ? "kmalloc" : `kmalloc-${size}`;
    const pages = in_no_slab ? 0 : place.pages;
    const account = (block.account ??= this.accounts.get(name) ?? this.open(name, place.cache, pages, false));
    block.place = place;
    if (place.cache !== cache) this.fail(`object ${number} is not in a slab of ${account.name}`);
    if (!place.on_stride) this.fail(`object ${number} is at no whole multiple of ${place.slot} bytes in its slab`);
    if (given && given !== place.slot && slab_ops().name === "slub" && !(cache !== 0 && is_debugged(cache)))
      this.fail(`object ${number} of ${account.name} was given ${place.slot} bytes, ${given} in the trace`);
    const allocs = counted_allocs(cache, place.head) - before;
    if (allocs !== 1) this.fail(`${account.name} counted ${allocs} allocations for one, of object ${number}`);
    account.allocs += allocs;
    account.sum_bytes_req += req;
    account.sum_bytes_alloc += place.slot;
    this.book(account, place, req, 1);
    pattern_write(ptr, place.usable || req, number);
  }

  /** Takes an object out of the books. `before` is what its cache had counted. */
  private leave(block: Block, account: Account, place: Place, before: number, implied: boolean): void {
    const frees = counted_frees(place.cache, place.head) - before;
    if (frees !== 1) this.fail(`${account.name} counted ${frees} frees for one, of object ${block.number}`);
    account[implied ? "implied_frees" : "frees"] += frees;
    this.book(account, place, block.req, -1);
  }

  private book(account: Account, place: Place, req: number, sign: 1 | -1): void {
    account.live = account.allocs - account.frees - account.implied_frees;
    account.live_bytes_req += sign * req;
    this.now.live_bytes_alloc += sign * place.slot;
    account.rising ||= account.live > account.peak_live;
    account.peak_live = Math.max(account.peak_live, account.live);
    account.peak_live_bytes_req = Math.max(account.peak_live_bytes_req, account.live_bytes_req);
    if (this.pages_before !== undefined) {
      this.now.slab_pages = slab_view().pages_held!() - this.pages_before;
      return;
    }
    const slabs = account.own ? slab_view().nr_slabs(account.cache) : account.slabs + this.share(place.head, sign);
    this.now.slab_pages += (slabs - account.slabs) * account.pages;
    account.slabs = slabs;
    account.peak_slabs = Math.max(account.peak_slabs, slabs);
  }

  /** An object comes into a shared slab or leaves it: 1 if it is the first there, -1 if it was the last. */
  private share(head: PagePtr, sign: 1 | -1): number {
    const live = (this.shared.get(head) ?? 0) + sign;
    if (live === 0) this.shared.delete(head);
    else this.shared.set(head, live);
    return live === 0 || (live === 1 && sign === 1) ? sign : 0;
  }

  private see_peaks(): void {
    const { now, peak } = this;
    now.live_objects = this.blocks.size;
    for (const key of Object.keys(peak) as (keyof typeof peak)[]) peak[key] = Math.max(peak[key], now[key]);
  }

  private check({ number, ptr, place, req }: Block, bytes = place ? place.usable || req : 0): void {
    const wrong = pattern_fault(ptr, bytes, number);
    if (wrong !== 0) this.fail(`object ${number} was written over by another, at byte ${wrong - ptr}`);
  }

  /** Gives object `number` back, by kfree or to its cache; nothing if it could not be had. `implied`: an x line. */
  free(number: number, by_kfree: boolean, implied: boolean): void {
    const block = this.blocks.get(number);
    if (!block) return;
    const { account, place, ptr, req } = block;
    this.check(block);
    if (account?.own && account.rising) this.confirm(account);
    const before = place ? counted_frees(place.cache, place.head) : 0;
    // kfree of a cache's object: where kmalloc has no caches it could not tell how long that is.
    if (by_kfree && !(account?.own && slab_ops().kmalloc)) this.ops.kfree(ptr);
    else this.ops.kmem_cache_free(account!.cache, ptr);
    if (account && place) this.leave(block, account, place, before, implied);
    this.blocks.delete(number);
    this.now.live_bytes_req -= req;
    this.see_peaks();
  }

  /** Changes an object's size by krealloc; what is in it up to the smaller size must still be there. */
  resize(block: Block, req: number): void {
    this.check(block);
    const { account, place, ptr, number } = block;
    const cache = req === 0 ? 0 : kmalloc_slab(req, GFP_KERNEL);
    const allocs = counted_allocs(cache, 0);
    const frees = place ? counted_frees(place.cache, place.head) : 0;
    const now_at = this.ops.krealloc(ptr, req, GFP_KERNEL);
    if (now_at === 0) {
      this.failed++;
      return;
    }
    this.now.live_bytes_req += req - block.req;
    if (now_at !== ptr) {
      if (account && place) this.leave(block, account, place, frees, false);
      const moved: Block = { number, ptr: now_at, req };
      this.blocks.set(number, moved);
      this.check(moved, Math.min(block.req, req));
      if (now_at !== ZERO_SIZE_PTR) this.enter(moved, cache, allocs, 0);
    } else if (account) {
      account.live_bytes_req += req - block.req;
      account.peak_live_bytes_req = Math.max(account.peak_live_bytes_req, account.live_bytes_req);
      block.req = req;
    }
    this.see_peaks();
  }

  /** Counts a cache's live objects by a walk of its slabs. */
  private confirm(account: Account): void {
    const { live_objs } = get_slabinfo(account.cache);
    account.rising = false;
    if (live_objs !== account.live)
      this.fail(`${account.name}: ${account.live} objects live by the trace, ${live_objs} by a walk of its slabs`);
  }

  /** The end of the trace: every pattern, and every cache by a walk. */
  finish(): void {
    for (const block of this.blocks.values()) this.check(block);
    for (const account of this.accounts.values()) if (account.own) this.confirm(account);
  }

  /** Frees what still lives, oldest first, and the caches. */
  release(): void {
    for (const { ptr, account } of this.blocks.values())
      if (account?.own) this.ops.kmem_cache_free(account.cache, ptr);
      else this.ops.kfree(ptr);
    this.blocks.clear();
    for (const account of this.accounts.values()) if (account.own) kmem_cache_destroy(account.cache);
    this.accounts.clear();
  }
}
