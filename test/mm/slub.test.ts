/** SLUB: the promises of every allocator, and what is its own. */
import { describe, expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { clock_advance, local_clock } from "../../hal/clock.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { events } from "../../hal/events.ts";
import { machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ram32 } from "../../hal/ram.ts";
import { list_next } from "../../kernel/lib/list.ts";
import {
  GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, ZONE_DMA, ZONE_DMA32, ZONE_NORMAL,
  __GFP_ACCOUNT, __GFP_DMA, __GFP_MEMALLOC, __GFP_NOWARN, __GFP_RECLAIMABLE, __GFP_THISNODE,
} from "../../mm/gfp.ts"; // prettier-ignore
import { fail_page_alloc, set_fault_attr } from "../../mm/fault_inject.ts";
import { kfree, kmalloc, kmalloc_node, virt_to_cache } from "../../mm/kmalloc.ts";
import { Slab, page_to_nid, page_zonenum, virt_to_head_page, virt_to_page, type PagePtr, type SlabPtr } from "../../mm/page.ts"; // prettier-ignore
import { __free_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import { get_pageblock_migratetype } from "../../mm/pageblock.ts";
import {
  KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node, kmem_cache_create,
  kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_CACHE_DMA32, SLAB_FAILSLAB, SLAB_FLAGS_PERMITTED, SLAB_KMALLOC, SLAB_NO_MERGE,
  SLAB_PANIC, SLAB_RECLAIM_ACCOUNT, SLAB_SKIP_KFENCE,
} from "../../mm/slab_layout.ts"; // prettier-ignore
import { count_free, this_cpu_slab } from "../../mm/slub.ts";
import { cache_nodes, free_objects, set_and_flush_cpu_partial } from "../../mm/slub_cache.ts";
import {
  KmemCacheCpu,
  KmemCacheNode,
  get_freepointer,
  slab_freelist,
  slab_inuse,
  virt_to_slab,
} from "../../mm/slub_slab.ts";
import { validate_mm } from "../../mm/validate.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { with_machine } from "../lib/machine.ts";
import { describe_slab } from "./slab_contract.ts";
import { counters } from "./slab_counters.ts";

describe_slab("slub", {});
describe_slab("slub, random and hardened lists", { append: "slab_freelist_random=on slab_freelist_hardened=on slab_full=off" }); // prettier-ignore

it("boot's caches are made in Linux's order, the first two never to be merged", () => {
  with_machine({}, () => {
    const sizes = ["96", "192", "8", "16", "32", "64", "128", "256", "512", "1k", "2k", "4k", "8k"];
    const kinds = ["kmalloc-", "kmalloc-rcl-", "dma-kmalloc-", "kmalloc-cg-"];
    const names = [...for_each_cache()].map((cache) => KmemCache.name.get(cache)).reverse();
    expect(names.slice(0, 54)).toEqual(["kmem_cache", "kmem_cache_node", ...kinds.flatMap((kind) => sizes.map((size) => kind + size))]); // prettier-ignore
    expect(KmemCache.size.get(find_cache("kmem_cache_node"))).toBe(128);
    expect(["kmem_cache", "kmem_cache_node"].map((name) => KmemCache.refcount.get(find_cache(name)))).toEqual([-1, -1]);
    for (const size of sizes.map((text) => Number.parseInt(text) * (text.endsWith("k") ? 1024 : 1))) {
      const kind_flags = [SLAB_NO_MERGE, SLAB_RECLAIM_ACCOUNT, SLAB_CACHE_DMA, SLAB_ACCOUNT];
      for (const [i, kind] of kinds.entries()) {
        const cache = find_cache(kind + (size < 1024 ? size : `${size / 1024}k`));
        expect(KmemCache.flags.get(cache)).toBe(SLAB_KMALLOC | SLAB_PANIC | kind_flags[i]!);
        expect([KmemCache.align.get(cache), KmemCache.useroffset.get(cache), KmemCache.usersize.get(cache)]).toEqual([size & -size, 0, size]); // prettier-ignore
      }
    }
  });
});

it("the request's flags choose the kind of kmalloc cache: DMA, then reclaimable, then accounted", () => {
  with_machine({}, () => {
    const given: Record<string, number> = {
      "kmalloc-128": 0,
      "kmalloc-rcl-128": __GFP_RECLAIMABLE | __GFP_ACCOUNT,
      "dma-kmalloc-128": __GFP_DMA | __GFP_RECLAIMABLE | __GFP_ACCOUNT,
      "kmalloc-cg-128": __GFP_ACCOUNT,
    };
    for (const [name, flags] of Object.entries(given)) {
      const object = kmalloc(100, GFP_KERNEL | flags);
      expect(virt_to_cache(object)).toBe(find_cache(name));
      kfree(object);
    }
  });
});

it("a cache's flags choose its pages: zone, kind of page block, and the counter that has them", () => {
  with_machine({}, () => {
    const made = (flags: number): [zone: number, type: number, reclaimable: number, unreclaimable: number] => {
      const cache = kmem_cache_create("flagged", 1000, 0, flags | SLAB_NO_MERGE, null);
      const counts = (): number[] => [NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE].map(global_node_page_state);
      const before = counts();
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      const page = virt_to_head_page(object);
      const [reclaimable, unreclaimable] = counts().map((count, i) => count - before[i]!) as [number, number];
      const where = [page_zonenum(page), get_pageblock_migratetype(page)] as const;
      kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
      return [...where, reclaimable, unreclaimable];
    };
    expect(made(0)).toEqual([ZONE_NORMAL, MIGRATE_UNMOVABLE, 0, 4]);
    expect(made(SLAB_ACCOUNT)).toEqual([ZONE_NORMAL, MIGRATE_UNMOVABLE, 0, 4]);
    expect(made(SLAB_RECLAIM_ACCOUNT)).toEqual([ZONE_NORMAL, MIGRATE_RECLAIMABLE, 4, 0]);
    expect(made(SLAB_CACHE_DMA)[0]).toBe(ZONE_DMA);
    expect(made(SLAB_CACHE_DMA32)[0]).toBe(ZONE_DMA32);
  });
});

it("flags that are not the creator's to give are refused", () => {
  with_machine({}, () => {
    for (let bit = 1; bit < 2 ** 31; bit *= 2) {
      const allowed = (SLAB_FLAGS_PERMITTED & bit) !== 0;
      const cache = kmem_cache_create("asked", 64, 0, bit, null);
      expect([bit, cache !== NULL]).toEqual([bit, allowed]);
      kmem_cache_destroy(cache);
    }
    expect(SLAB_FLAGS_PERMITTED & (SLAB_FAILSLAB | SLAB_SKIP_KFENCE)).toBe(0); // those are sysfs's
  });
});

it("slab_freelist_random: one permutation a cache, as long as a slab, which each slab starts elsewhere", () => {
  with_machine({ append: "slab_freelist_random=on slab_min_order=4" }, () => {
    const cache = kmem_cache_create("shuffled", 8, 0, SLAB_NO_MERGE, null);
    const nr = get_slabinfo(cache).objects_per_slab;
    expect(nr).toBe(8192);
    const slabs = [0, 1].map(() => Array.from({ length: nr }, () => kmem_cache_alloc(cache, GFP_KERNEL)));
    const indices = (objects: Obj[]): number[] => {
      const first = Math.min(...objects);
      return objects.map((object) => (object - first) / 8);
    };
    const orders = slabs.map(indices);
    const ascending = [...Array(nr).keys()];
    for (const order of orders) {
      expect([...order].sort((a, b) => a - b)).toEqual(ascending);
      expect(order).not.toEqual(ascending);
    }
    const start = orders[1]!.indexOf(orders[0]![0]!);
    expect(start).not.toBe(0);
    expect([...orders[1]!.slice(start), ...orders[1]!.slice(0, start)]).toEqual(orders[0]);
    const other = kmem_cache_create("other", 8, 0, SLAB_NO_MERGE, null);
    const objects = Array.from({ length: nr }, () => kmem_cache_alloc(other, GFP_KERNEL));
    expect(indices(objects)).not.toEqual(orders[0]);
    kmem_cache_free_bulk(NULL, nr, objects);
    for (const each of slabs) kmem_cache_free_bulk(cache, nr, each);
    [cache, other].forEach(kmem_cache_destroy);
  });
});

it("a slab of the preferred order is asked for without reclaim, if there is a smaller one to fall back to", () => {
  with_machine({}, () => {
    const fallbacks = (size: number): number => {
      const cache = kmem_cache_create("asks", size, 0, SLAB_NO_MERGE, null);
      // Fails whoever may not press for memory.
      set_fault_attr(fail_page_alloc, { probability: 100, times: -1, min_order: 0, ignore_gfp_wait: 1, verbose: 0 });
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      const none = kmem_cache_alloc(make_again(cache), GFP_NOWAIT | __GFP_NOWARN);
      set_fault_attr(fail_page_alloc, { probability: 0 });
      expect([object === NULL, none]).toEqual([false, NULL]);
      const count = counters(cache)["order_fallback"] ?? 0;
      kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
      kmem_cache_destroy(find_cache("again"));
      return count;
    };
    const make_again = (cache: CachePtr): CachePtr => kmem_cache_create("again", KmemCache.size.get(cache), 0, SLAB_NO_MERGE, null); // prettier-ignore
    expect([fallbacks(1000), fallbacks(100)]).toEqual([1, 0]); // order 2 or 0; order 0 at best and at least
  });
});

describe("nodes", () => {
  const nid = (object: Obj): number => page_to_nid(virt_to_page(object));
  /** A cache with `nr` partial slabs on node 1, all with one free object; CPU 0, on node 0, keeps nothing of it. */
  function with_partial_slabs(nr: number, fn: (cache: CachePtr, counted: (name: string) => number) => void): void {
    with_machine({}, () => {
      const cache = kmem_cache_create("remote", 4096, 0, SLAB_NO_MERGE, null);
      const objects = Array.from({ length: nr * 8 }, () => kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE, 1)); // prettier-ignore
      for (let slab = 0; slab < nr; slab++) kmem_cache_free(cache, objects[slab * 8]!);
      set_and_flush_cpu_partial(cache, 6);
      const before = counters(cache);
      fn(cache, (name) => (counters(cache)[name] ?? 0) - (before[name] ?? 0));
      objects.forEach((object, i) => (i % 8 === 0 ? undefined : kmem_cache_free(cache, object)));
      kmem_cache_destroy(cache);
    });
  }

  it("another node's partial slabs serve before a new slab, if it has more than it is meant to keep", () => {
    for (const [slabs, ratio, taken] of [
      [7, 1000, true],
      [6, 1000, false], // min_partial
      [7, 0, false],
    ] as const)
      with_partial_slabs(slabs, (cache, counted) => {
        KmemCache.remote_node_defrag_ratio.set(cache, ratio);
        while (local_clock() % 1024 > 1000) clock_advance(1); // else it would not look, this once
        const object = kmem_cache_alloc(cache, GFP_KERNEL);
        const moved = [nid(object), counted("alloc_from_partial"), counted("alloc_slab")];
        expect(moved).toEqual(taken ? [1, 1, 0] : [0, 0, 1]);
        kmem_cache_free(cache, object);
      });
  });

  it("looks there in 1001 of 1024 cycles, and not at all for who wants one node only", () => {
    with_partial_slabs(7, (cache, counted) => {
      while (local_clock() % 1024 !== 1001) clock_advance(1);
      const late = kmem_cache_alloc(cache, GFP_KERNEL);
      expect([nid(late), counted("alloc_slab")]).toEqual([0, 1]);
      kmem_cache_free(cache, late);
      kmem_cache_shrink(cache);
      clock_advance(23);
      const only = kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE, 0);
      expect([nid(only), counted("alloc_from_partial")]).toEqual([0, 0]);
      kmem_cache_free(cache, only);
    });
  });

  it("a wish for a node gives up the CPU's slab of another, and its partial ones one by one", () => {
    with_machine({}, () => {
      const cache = kmem_cache_create("moves", 4096, 0, SLAB_NO_MERGE, null);
      const near = Array.from({ length: 3 * 8 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      for (const i of [0, 8]) kmem_cache_free(cache, near[i]!); // two slabs on CPU 0's list
      const far = kmem_cache_alloc_node(cache, GFP_KERNEL, 1);
      expect(nid(far)).toBe(1);
      expect(counters(cache)).toMatchObject({ alloc_node_mismatch: 1, deactivate_full: 1, free_add_partial: 2 });
      expect(counters(cache)).not.toHaveProperty("cpu_partial_alloc");
      const again = kmem_cache_alloc(cache, GFP_KERNEL); // no wish: the active slab, whatever its node
      expect(nid(again)).toBe(1);
      const last = kmem_cache_alloc_node(cache, GFP_KERNEL, 0);
      expect([nid(last), counters(cache)["alloc_from_partial"]]).toEqual([0, 1]);
      [...near.filter((_, i) => i % 8 || i === 16), far, again, last].forEach((object) =>
        kmem_cache_free(cache, object),
      );
      kmem_cache_destroy(cache);
    });
  });

  it("a wish is given up where the node has no memory left, but not with __GFP_THISNODE", () => {
    with_machine({}, () => {
      const cache = kmem_cache_create("wishes", 4096, 0, SLAB_NO_MERGE, null);
      const pages: PagePtr[] = [];
      const gfp = GFP_ATOMIC | __GFP_MEMALLOC | __GFP_THISNODE | __GFP_NOWARN;
      for (let page; (page = alloc_pages_node(1, gfp, 0)) !== NULL;) pages.push(page);
      expect(kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN, 1)).toBe(NULL);
      const object = kmem_cache_alloc_node(cache, GFP_KERNEL, 1);
      expect(nid(object)).toBe(0);
      kmem_cache_free(cache, object);
      for (const page of pages) __free_pages(page, 0);
      kmem_cache_destroy(cache);
      const [small, large] = [kmalloc_node(100, GFP_KERNEL, 1), kmalloc_node(20_000, GFP_KERNEL, 1)];
      expect([nid(small), nid(large)]).toEqual([1, 1]);
      [small, large].forEach(kfree);
    });
  });
});

/** The partial list of a cache's only node with slabs: each slab's free objects, head first. */
function partial_list(cache: CachePtr): { slab: SlabPtr; free: number }[] {
  const [, n] = [...cache_nodes(cache)].find(([, part]) => KmemCacheNode.nr_slabs.get(part) > 0)!;
  const head = KmemCacheNode.partial.at(n);
  const slabs: { slab: SlabPtr; free: number }[] = [];
  for (let node = list_next(head); node !== head; node = list_next(node)) {
    const slab = node - Slab.slab_list.offset;
    slabs.push({ slab, free: Slab.objects.get(slab) - slab_inuse(slab) });
  }
  return slabs;
}

it("shrink puts the fullest slabs first, those with more than 32 free objects behind them as they were", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("shrunk", 64, 0, SLAB_NO_MERGE, null);
    KmemCache.min_partial.set(cache, 100); // empty slabs stay, for shrink to find
    const objects = Array.from({ length: 13 * 64 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    // Free objects of each slab; 64: all of them.
    for (const [slab, free] of [3, 40, 1, 3, 64, 50, 2, 32, 33, 3, 64, 40].entries())
      for (let i = 0; i < free; i++) {
        kmem_cache_free(cache, objects[slab * 64 + i]!);
        objects[slab * 64 + i] = NULL;
      }
    set_and_flush_cpu_partial(cache, 120); // everything on the node's list, in the order in which it got there
    const before = partial_list(cache);
    expect(before.map(({ free }) => free)).toContain(64);
    expect(kmem_cache_shrink(cache)).toBe(1);
    const after = partial_list(cache);
    expect(after.map(({ free }) => free).slice(0, 6)).toEqual([1, 2, 3, 3, 3, 32]);
    const slabs_of = (list: typeof before, test: (free: number) => boolean): SlabPtr[] => list.filter(({ free }) => test(free)).map(({ slab }) => slab); // prettier-ignore
    const many = (free: number): boolean => free > 32 && free < 64;
    expect(after.slice(6).map(({ slab }) => slab)).toEqual(slabs_of(before, many));
    const three = (free: number): boolean => free === 3;
    expect(slabs_of(after, three)).toEqual(slabs_of(before, three).reverse());
    for (const object of objects) if (object !== NULL) kmem_cache_free(cache, object);
    expect(kmem_cache_shrink(cache)).toBe(0);
    kmem_cache_destroy(cache);
  });
});

it("a flushed slab goes first on the node's list, or last if others freed into it, behind what its CPU had", () => {
  const machine = machine_from_options({ mem: "40M", nodes: "1", cpus: "2" }) as MachineSpec;
  for (const remote of [false, true])
    with_machine({ machine }, () => {
      const cache = kmem_cache_create("flushed", 1000, 0, SLAB_NO_MERGE, null);
      const objects = Array.from({ length: 40 }, () => kmem_cache_alloc(cache, GFP_KERNEL)); // two and a half slabs
      kmem_cache_free(cache, objects[0]!);
      set_and_flush_cpu_partial(cache, 0); // no CPU partial lists from now on
      const [older, newer] = [virt_to_slab(objects[0]!), virt_to_slab(objects[39]!)];
      const slabs = (): SlabPtr[] => partial_list(cache).map(({ slab }) => slab);
      expect(slabs()).toEqual([newer, older]);
      const taken = kmem_cache_alloc(cache, GFP_KERNEL);
      expect([virt_to_slab(taken), slabs()]).toEqual([newer, [older]]);
      const next = KmemCacheCpu.freelist.get(this_cpu_slab(cache));
      if (remote) on_cpu(1, () => kmem_cache_free(cache, objects[39]!));
      set_and_flush_cpu_partial(cache, 0);
      expect(slabs()).toEqual(remote ? [older, newer] : [newer, older]);
      const list = [...free_objects(cache, slab_freelist(cache, newer), newer, [])];
      expect([list[0], list.length]).toEqual([next, remote ? 8 : 7]);
      if (remote) expect(list.at(-1)).toBe(objects[39]);
      expect(counters(cache)).toMatchObject(remote ? { free_frozen: 1, deactivate_remote_frees: 1, deactivate_to_tail: 1, deactivate_to_head: 1 } : { deactivate_to_head: 2 }); // prettier-ignore
      const rest = objects.filter((_, i) => i !== 0 && (i !== 39 || !remote));
      for (const object of [...rest, taken]) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
});

it("a constructor may allocate from its own cache: the slab that is there by then gives way", () => {
  with_machine({}, () => {
    let cache: CachePtr = NULL;
    let inner: Obj = NULL;
    let first = true;
    const ctor = (): void => {
      if (!first) return;
      first = false;
      inner = kmem_cache_alloc(cache, GFP_KERNEL);
    };
    cache = kmem_cache_create("nested", 1000, { ctor }, 0);
    const outer = kmem_cache_alloc(cache, GFP_KERNEL);
    expect(virt_to_slab(outer)).not.toBe(virt_to_slab(inner));
    expect(counters(cache)).toMatchObject({ alloc_slab: 2, cpuslab_flush: 1, deactivate_to_head: 1 });
    expect(partial_list(cache).map(({ slab }) => slab)).toEqual([virt_to_slab(inner)]);
    expect(validate_mm()).toEqual([]);
    for (const object of [outer, inner]) kmem_cache_free(cache, object);
    kmem_cache_destroy(cache);
  });
});

it("an empty slab that a CPU gives up stays with its node, if that has less than min_partial others", () => {
  for (const [min_partial, kept] of [
    [5, false],
    [6, true],
  ] as const)
    with_machine({}, () => {
      const cache = kmem_cache_create("emptied", 1000, { cpu_partial: "off" }, SLAB_NO_MERGE);
      KmemCache.min_partial.set(cache, min_partial);
      const objects = Array.from({ length: 6 * 16 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      const [others, active] = [objects.slice(0, 80), objects.slice(80)];
      for (let slab = 0; slab < 5; slab++) kmem_cache_free(cache, others[slab * 16]!);
      for (const object of active) kmem_cache_free(cache, object);
      set_and_flush_cpu_partial(cache, 0);
      expect(partial_list(cache).length).toBe(kept ? 6 : 5);
      expect(get_slabinfo(cache).num_slabs).toBe(kept ? 6 : 5);
      expect([counters(cache)["deactivate_empty"] ?? 0, counters(cache)["deactivate_to_head"] ?? 0]).toEqual(kept ? [0, 1] : [1, 0]); // prettier-ignore
      others.forEach((object, i) => (i % 16 === 0 ? undefined : kmem_cache_free(cache, object)));
      kmem_cache_destroy(cache);
    });
});

it("without CPU partial lists a full slab that gets an object back goes last on the node's list, or to the page allocator", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("plain", 1000, { cpu_partial: "off" }, SLAB_NO_MERGE);
    const objects = Array.from({ length: 5 * 16 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    const first = [0, 16, 32].map((i) => objects[i]!);
    for (const object of first) kmem_cache_free(cache, object);
    expect(partial_list(cache).map(({ slab }) => slab)).toEqual(first.map(virt_to_slab));
    expect(counters(cache)).toMatchObject({ free_add_partial: 3, free_slowpath: 3 });
    expect(counters(cache)).not.toHaveProperty("cpu_partial_free");
    for (const object of objects) if (!first.includes(object)) kmem_cache_free(cache, object);
    kmem_cache_destroy(cache);

    // One object a slab: it is empty at once. Seven such slabs are kept, the eighth and ninth are not.
    const large = kmem_cache_create("large", 51472, { cpu_partial: "off" }, SLAB_NO_MERGE);
    expect([get_slabinfo(large).objects_per_slab, KmemCache.min_partial.get(large)]).toEqual([1, 7]);
    const blocks = Array.from({ length: 10 }, () => kmem_cache_alloc(large, GFP_KERNEL));
    for (const block of blocks.slice(0, 9)) kmem_cache_free(large, block);
    expect(partial_list(large).map(({ free }) => free)).toEqual([1, 1, 1, 1, 1, 1, 1]);
    expect(counters(large)).toMatchObject({ free_add_partial: 7, free_slab: 2 });
    kmem_cache_free(large, blocks[9]!); // of the active slab
    expect(counters(large)).toMatchObject({ free_fastpath: 1, free_slab: 2 });
    kmem_cache_destroy(large);
  });
});

it("a bulk free gathers each slab's objects, past two of other slabs, and frees them as one", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("bulk", 1000, 0, SLAB_NO_MERGE, null);
    const objects = Array.from({ length: 6 * 16 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    const [a, b, c, d] = [0, 1, 2, 3].map((slab) => objects.slice(slab * 16, slab * 16 + 16)) as [Obj[], Obj[], Obj[], Obj[]]; // prettier-ignore
    const freed = (batch: Obj[]): { frees: number; left: Obj[] } => {
      const before = counters(cache)["free_slowpath"] ?? 0;
      kmem_cache_free_bulk(cache, batch.length, batch);
      return { frees: counters(cache)["free_slowpath"]! - before, left: batch };
    };
    const head_of = (object: Obj): Obj => slab_freelist(cache, virt_to_slab(object));
    expect(freed([a[0]!, b[0]!, c[0]!, a[1]!]).frees).toBe(3);
    expect(head_of(a[0]!)).toBe(a[0]); // the lowest index of its group
    expect(get_freepointer(cache, a[0]!)).toBe(a[1]);
    expect(freed([a[2]!, b[1]!, c[1]!, d[1]!, a[3]!]).frees).toBe(5); // three others lie between
    expect(freed([b[2]!, b[3]!, b[4]!]).frees).toBe(1);
    expect([head_of(b[2]!), get_freepointer(cache, b[2]!), get_freepointer(cache, b[3]!)]).toEqual([b[2], b[3], b[4]]);
    const gone = [...a.slice(0, 4), ...b.slice(0, 5), ...c.slice(0, 2), d[1]!];
    const rest = objects.filter((object) => !gone.includes(object));
    expect(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 0, [])).toBe(0);
    kmem_cache_free_bulk(NULL, rest.length, rest);
    expect(get_slabinfo(cache).live_objs).toBe(0);
    kmem_cache_destroy(cache);
  });
});

it("/proc/slabinfo estimates the free objects of more than 10,000 partial slabs, from 5,000 at either end", () => {
  const machine = machine_from_options({ mem: "64M", nodes: "1", cpus: "2" }) as MachineSpec;
  with_machine({ machine, append: "slab_max_order=0" }, () => {
    const cache = kmem_cache_create("many", 1024, 0, SLAB_NO_MERGE, null);
    const nr = 10_500;
    const objects = Array.from({ length: nr * 4 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    const free = (index: number): void => {
      kmem_cache_free(cache, objects[index]!);
      objects[index] = NULL;
    };
    for (let slab = 0; slab < nr; slab++) free(slab * 4);
    set_and_flush_cpu_partial(cache, 24);
    const [[, n]] = [...cache_nodes(cache)] as [[number, number]];
    expect(KmemCacheNode.nr_partial.get(n)).toBe(nr);
    // More free objects at the ends than in the middle.
    const list = partial_list(cache).map(({ slab }) => slab);
    const of_slab = new Map(objects.map((object, i) => [object === NULL ? NULL : virt_to_head_page(object), i]));
    for (const [place, slab] of list.entries()) if (place < 1000 || place % 7 === 0) free(of_slab.get(slab)!);
    const frees = partial_list(cache).map((slab) => slab.free);
    const sum = (counts: number[]): number => counts.reduce((all, count) => all + count, 0);
    const estimate = Math.floor((sum([...frees.slice(0, 5000), ...frees.slice(-5000)]) * nr) / 10_000);
    expect(estimate).not.toBe(sum(frees));
    expect(get_slabinfo(cache)).toMatchObject({ num_objs: nr * 4, active_objs: nr * 4 - estimate });
    expect(count_free(n)).toBe(sum(frees)); // sysfs counts them all
    for (const object of objects) if (object !== NULL) kmem_cache_free(cache, object);
    kmem_cache_destroy(cache);
  });
});

it("listeners hear of each move and change nothing", () => {
  const story = (listen: boolean): [string[], number[]] => {
    const heard: string[] = [];
    const addresses: number[] = [];
    with_machine({}, () => {
      if (listen) for (const name of ["slab:new", "slab:full", "slab:cpu", "slab:partial", "slab:discard"] as const)
        events.on(name, (event) => void (event.cache === "heard" && heard.push(`${name} ${event.counter}`))); // prettier-ignore
      const cache = kmem_cache_create("heard", 2048, 0, SLAB_NO_MERGE, null);
      const per = get_slabinfo(cache).objects_per_slab;
      const objects = Array.from({ length: per + 1 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      addresses.push(...objects);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
      events.removeAllListeners();
    });
    return [heard, addresses];
  };
  const [heard, addresses] = story(true);
  expect(heard).toEqual([
    "slab:new alloc_slab", "slab:cpu alloc_slab", "slab:full deactivate_bypass", "slab:new alloc_slab",
    "slab:cpu alloc_slab", "slab:cpu cpu_partial_free", "slab:partial deactivate_to_head", "slab:partial free_add_partial",
    "slab:discard free_slab", "slab:discard free_slab",
  ]); // prettier-ignore
  expect(story(false)).toEqual([[], addresses]);
});

it("validate finds a broken free list, a wrong count and a slab of another cache", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("broken", 128, 0, SLAB_NO_MERGE, null);
    const objects = Array.from({ length: 4 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    for (const object of objects) kmem_cache_free(cache, object);
    const link = (objects[3]! + KmemCache.offset.get(cache)) >> 2;
    const good = ram32[link]!;
    ram32[link] = objects[3]!;
    expect(validate_mm().join()).toContain("comes back to");
    ram32[link] = objects[3]! + 4;
    expect(validate_mm().join()).toContain("which is no object of it");
    ram32[link] = good;
    expect(validate_mm()).toEqual([]);
    kmem_cache_destroy(cache);
  });
});
