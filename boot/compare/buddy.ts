/**
 * The machine without a slab allocator: every object is a block of whole pages, the smallest power of two of them that
 * holds it. What the article behind this project starts from ("kernel requests 300 bytes … the whole page frame is
 * allocated"), as an allocator that boots everything, so that the loss can be measured instead of told.
 *
 * kmalloc needs nothing of ours: a request that no size class serves takes pages (mm/kmalloc.ts), and here there is no
 * size class. A cache's objects are slabs of one object. As in SLOB a constructor runs at each allocation, since the page
 * goes back with the object.
 */
import { NULL, PAGE_SIZE, type NodeId, type Obj, type Ptr } from "../../hal/addr.ts";
import { ram_zero } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { get_order } from "../../kernel/lib/bitops.ts";
import { EBUSY, EINVAL } from "../../kernel/lib/errno.ts";
import { ksym, ksym_fn } from "../../kernel/lib/ksym.ts";
import { call_rcu, type RcuHeadPtr } from "../../kernel/lib/rcu.ts";
import { should_failslab } from "../../mm/fault_inject.ts";
import {
  GFP_DMA, GFP_DMA32, GFP_RECLAIM_MASK, NUMA_NO_NODE, __GFP_COMP, __GFP_RECLAIMABLE, __GFP_THISNODE, __GFP_ZERO,
} from "../../mm/gfp.ts"; // prettier-ignore
import { PGTY_none, PGTY_slab, Page, Slab, compound_order, page_address, page_to_nid, set_page_type, virt_to_head_page, type PagePtr, type SlabPtr } from "../../mm/page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import { kmalloc_fix_flags } from "../../mm/kmalloc_class.ts";
import {
  KmemCache, oo_make, oo_order, slab_data, type CachePtr, type SlabInfo, type SlabOps,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_CACHE_DMA, SLAB_CACHE_DMA32, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { create_boot_cache, descriptor_bytes, make_permanent } from "../../mm/slab_init.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, mod_node_page_state } from "../../mm/vmstat.ts";
import { MAX_PAGE_ORDER, NODE_DATA } from "../../mm/zone.ts";

/** What this allocator keeps of a cache, over the first bytes of its descriptor. */
const BuddyCache = struct("buddy_cache", { nr_live: "u32" });

function create(cache: CachePtr): number {
  const flags = KmemCache.flags.get(cache);
  const order = get_order(KmemCache.object_size.get(cache));
  if (order > MAX_PAGE_ORDER) return -EINVAL;
  const bytes = PAGE_SIZE << order;
  KmemCache.size.set(cache, bytes);
  KmemCache.inuse.set(cache, bytes);
  KmemCache.offset.set(cache, 0);
  KmemCache.oo.set(cache, oo_make(order, 1));
  const zone = (flags & SLAB_CACHE_DMA ? GFP_DMA : 0) | (flags & SLAB_CACHE_DMA32 ? GFP_DMA32 : 0);
  KmemCache.allocflags.set(cache, __GFP_COMP | zone | (flags & SLAB_RECLAIM_ACCOUNT ? __GFP_RECLAIMABLE : 0));
  return 0;
}

function account(cache: CachePtr, page: PagePtr, sign: 1 | -1): void {
  const item = KmemCache.flags.get(cache) & SLAB_RECLAIM_ACCOUNT ? NR_SLAB_RECLAIMABLE : NR_SLAB_UNRECLAIMABLE;
  mod_node_page_state(NODE_DATA(page_to_nid(page)), item, sign << compound_order(page));
  BuddyCache.nr_live.set(cache, BuddyCache.nr_live.get(cache) + sign);
}

function alloc(cache: CachePtr, gfp: number, node: NodeId): Obj {
  if (should_failslab(cache, gfp)) return NULL;
  const flags = (kmalloc_fix_flags(gfp) & (GFP_RECLAIM_MASK | __GFP_THISNODE)) | KmemCache.allocflags.get(cache);
  const order = oo_order(KmemCache.oo.get(cache));
  const page = node === NUMA_NO_NODE ? alloc_pages(flags, order) : alloc_pages_node(node, flags, order);
  if (page === NULL) return NULL;
  set_page_type(page, PGTY_slab);
  Slab.slab_cache.set(page as Ptr as SlabPtr, cache);
  account(cache, page, 1);
  const object = page_address(page);
  const ctor = KmemCache.ctor.get(cache);
  if (ctor !== NULL) ksym_fn(ctor)(object);
  if (gfp & __GFP_ZERO) ram_zero(object, (KmemCache.object_size.get(cache) + 7) & ~7);
  return object;
}

function free(cache: CachePtr, object: Obj): void {
  const page = virt_to_head_page(object);
  const owner: CachePtr = cache || Slab.slab_cache.get(page as Ptr as SlabPtr);
  if (KmemCache.flags.get(owner) & SLAB_TYPESAFE_BY_RCU)
    call_rcu(Slab.slab_list.at(page as Ptr as SlabPtr) as Ptr as RcuHeadPtr, buddy_rcu_free);
  else free_page(owner, page);
}

const buddy_rcu_free = ksym("buddy_rcu_free", (head: RcuHeadPtr): void => {
  const slab: SlabPtr = head - Slab.slab_list.offset;
  free_page(Slab.slab_cache.get(slab), slab as PagePtr);
});

function free_page(cache: CachePtr, page: PagePtr): void {
  account(cache, page, -1);
  set_page_type(page, PGTY_none);
  Page.mapping.set(page, NULL);
  Page.private.set(page, 0);
  Page.memcg_data.set(page, 0);
  __free_pages(page, compound_order(page));
}

function inspect(cache: CachePtr): SlabInfo {
  const live = BuddyCache.nr_live.get(cache);
  const counts = { active_objs: live, num_objs: live, active_slabs: live, num_slabs: live, live_objs: live };
  const tunables = { shared_avail: 0, limit: 0, batchcount: 0, shared: 0 };
  return { ...counts, ...tunables, objects_per_slab: 1, cache_order: oo_order(KmemCache.oo.get(cache)) };
}

/** "kmem_cache" is the only cache that is needed before others. There is nothing to gain from merging. */
function bootstrap([first]: readonly [CachePtr, CachePtr]): void {
  slab_data.nomerge = 1;
  slab_data.kmem_cache = first;
  create_boot_cache(first, "kmem_cache", descriptor_bytes());
  slab_data.kmem_cache = make_permanent(first);
}

export const buddy: SlabOps = {
  name: "buddy",
  create,
  alloc,
  free,
  shrink: (cache) => Number(BuddyCache.nr_live.get(cache) > 0),
  destroy: (cache) => (BuddyCache.nr_live.get(cache) > 0 ? -EBUSY : 0),
  inspect,
  bootstrap,
  kmalloc: { max_size: 0, alloc: () => NULL, ksize: () => 0, size_roundup: (size) => PAGE_SIZE << get_order(size) },
};
