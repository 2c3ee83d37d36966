/** Acceptance assertions on caches, on booted machines; those on kmalloc are in slab_contract.ts. */
import { describe, expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { MIB, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ram8, ram_fill } from "../../hal/ram.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { page_address, virt_to_head_page } from "../../mm/page.ts";
import { nr_free_pages } from "../../mm/page_alloc.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import {
  KmemCache, SlabAlias, find_cache, for_each_alias, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy,
  kmem_cache_free, kmem_cache_shrink, oo_objects, oo_order, slab_data, slab_mergeable, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_CONSISTENCY_CHECKS, SLAB_FAILSLAB, SLAB_HWCACHE_ALIGN, SLAB_NOLEAKTRACE, SLAB_NO_MERGE,
  SLAB_POISON, SLAB_RECLAIM_ACCOUNT, SLAB_RED_ZONE, SLAB_STORE_USER, SLAB_TRACE, SLAB_TYPESAFE_BY_RCU,
} from "../../mm/slab_layout.ts"; // prettier-ignore
import { NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { with_machine } from "../lib/machine.ts";

function machine_of(cpus: number, mem = "64M"): MachineSpec {
  const made = machine_from_options({ mem, nodes: "1", cpus: String(cpus) });
  if (typeof made === "string") throw new Error(made);
  return made;
}

/** "size order objects" of a cache that is made and destroyed. */
function geometry(size: number, align = 0, flags = 0): string {
  const cache = kmem_cache_create("measured", size, align, flags | SLAB_NO_MERGE, null);
  const oo = KmemCache.oo.get(cache);
  const text = `${KmemCache.size.get(cache)} ${oo_order(oo)} ${oo_objects(oo)}`;
  kmem_cache_destroy(cache);
  return text;
}

describe("cache geometry", () => {
  it("A21 72 bytes take 128 aligned to a cache line, 32 a slab, and 72 without, 56 a slab", () => {
    with_machine({}, () => {
      expect(geometry(72, 0, SLAB_HWCACHE_ALIGN)).toBe("128 0 32");
      expect(geometry(72, 64)).toBe("128 0 32");
      expect(geometry(72)).toBe("72 0 56");
    });
  });

  it("A23 5824 bytes aligned to 64: order 3, five a slab, six empty slabs kept", () => {
    with_machine({}, () => {
      expect(geometry(5824, 64)).toBe("5824 3 5");
      const cache = kmem_cache_create("big", 5824, 64, SLAB_NO_MERGE, null);
      expect(KmemCache.min_partial.get(cache)).toBe(6);
      const objects = Array.from({ length: 60 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      expect(get_slabinfo(cache).num_slabs).toBe(12);
      for (const object of objects) kmem_cache_free(cache, object);
      // Six on the node's list, and what the CPU keeps: its slab and its partial list.
      expect(get_slabinfo(cache).num_slabs).toBeLessThanOrEqual(6 + 1 + KmemCache.cpu_partial_slabs.get(cache));
      expect(get_slabinfo(cache).num_slabs).toBeGreaterThanOrEqual(6);
      kmem_cache_destroy(cache);
    });
  });

  it("A25 with 16 CPUs a slab holds more objects than with 2, of a higher order, never above 3", () => {
    const sizes = [104, 200, 256, 312, 512, 704, 1024, 1472, 2048, 4096, 5824];
    const orders = (cpus: number): number[] => {
      const found: number[] = [];
      with_machine({ machine: machine_of(cpus) }, () => {
        for (const size of sizes) found.push(Number(geometry(size).split(" ")[1]));
      });
      return found;
    };
    const two = orders(2);
    const sixteen = orders(16);
    expect(two).toEqual([0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3]);
    expect(sixteen).toEqual([0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]);
    for (const [i, order] of sixteen.entries()) {
      expect(order).toBeGreaterThanOrEqual(two[i]!);
      expect(order).toBeLessThanOrEqual(3);
    }
  });

  it("A27 min_partial is half the binary logarithm of the size, between 5 and 10", () => {
    with_machine({ machine: machine_of(2) }, () => {
      for (const size of [8, 64, 1000, 4095, 4096, 10_000, 16_384, 65_536, 2 * MIB, 4 * MIB]) {
        const cache = kmem_cache_create("kept", size, 0, SLAB_NO_MERGE, null);
        const expected = Math.min(Math.max(Math.floor(Math.floor(Math.log2(KmemCache.size.get(cache))) / 2), 5), 10);
        expect([size, KmemCache.min_partial.get(cache)]).toEqual([size, expected]);
        kmem_cache_destroy(cache);
      }
    });
  });
});

describe("A29 merging", () => {
  it("equal size, alignment and flags: one set of slabs, two names, one alias", () => {
    with_machine({}, () => {
      const one = kmem_cache_create("one", 1000, 0, SLAB_HWCACHE_ALIGN, null);
      const two = kmem_cache_create("two", 960 + 8 * 8, 0, 0, null); // 1024 too, and HWCACHE is not compared
      expect(two).toBe(one);
      expect([find_cache("one"), find_cache("two")]).toEqual([one, one]);
      expect(KmemCache.refcount.get(one) - 1).toBe(1);
      expect([...for_each_alias()].map(SlabAlias.name.get)).toContain("two");
      // The slot was large enough; what may be used of it is raised.
      expect([KmemCache.size, KmemCache.object_size, KmemCache.inuse].map((field) => field.get(one))).toEqual([1024, 1024, 1024]); // prettier-ignore
      const objects = [kmem_cache_alloc(one, GFP_KERNEL), kmem_cache_alloc(two, GFP_KERNEL)] as const;
      expect(virt_to_head_page(objects[0])).toBe(virt_to_head_page(objects[1]));
      kmem_cache_destroy(two); // the name stays
      expect(find_cache("two")).toBe(one);
      for (const object of objects) kmem_cache_free(one, object);
      kmem_cache_destroy(one);
      expect([find_cache("one"), find_cache("two")]).toEqual([NULL, NULL]);
    });
  });

  it("never with a constructor, a debug flag, no-merge, RCU, NOLEAKTRACE, a user window, or another kind of pages", () => {
    with_machine({}, () => {
      const plain = kmem_cache_create("plain", 1000, 0, 0, null);
      const flags = [
        SLAB_RED_ZONE, SLAB_POISON, SLAB_STORE_USER, SLAB_TRACE, SLAB_NO_MERGE, SLAB_TYPESAFE_BY_RCU, SLAB_NOLEAKTRACE,
        SLAB_RECLAIM_ACCOUNT, SLAB_CACHE_DMA, SLAB_ACCOUNT,
      ]; // prettier-ignore
      const others = flags.map((flag) => kmem_cache_create("other", 1000, 0, flag, null));
      others.push(kmem_cache_create("other", 1000, { ctor: (object: Obj) => void (ram8[object] = 1) }, 0));
      others.push(kmem_cache_create("other", 1000, { usersize: 8 }, 0));
      others.push(kmem_cache_create("other", 1000, { sheaf_capacity: 8 }, 0));
      others.push(kmem_cache_create("other", 1016, 0, 0, null)); // 16 bytes larger
      others.push(kmem_cache_create("other", 992, 0, 0, null)); // 8 bytes smaller: too much waste
      others.push(kmem_cache_create("other", 1000, 64, 0, null)); // 1000 is no multiple of 64
      expect(new Set([plain, ...others]).size).toBe(others.length + 1);
      for (const cache of others) kmem_cache_destroy(cache);
      expect(KmemCache.refcount.get(plain)).toBe(1);
      kmem_cache_destroy(plain);
    });
  });

  it("checks (F) alone do not prevent it; the oldest fitting cache is taken", () => {
    with_machine({}, () => {
      const oldest = kmem_cache_create("oldest", 1000, 0, 0, null);
      const other = kmem_cache_create("other", 1000, 0, SLAB_NO_MERGE, null);
      expect(kmem_cache_create("checked", 1000, 0, SLAB_CONSISTENCY_CHECKS, null)).toBe(oldest);
      expect(kmem_cache_create("third", 1000, 0, 0, null)).toBe(oldest);
      expect([slab_mergeable(oldest), slab_mergeable(other)]).toEqual([true, false]);
      // Equal caches come about only where one is marked for failslab while the other is made.
      const flags = KmemCache.flags.get(oldest);
      KmemCache.flags.set(oldest, flags | SLAB_FAILSLAB);
      const newer = kmem_cache_create("newer", 1000, 0, 0, null);
      KmemCache.flags.set(oldest, flags);
      expect(newer).not.toBe(oldest);
      expect(kmem_cache_create("fourth", 1000, 0, 0, null)).toBe(oldest);
      for (const cache of [oldest, oldest, oldest, oldest, newer, other]) kmem_cache_destroy(cache);
    });
  });
});

describe("A31 a fresh cache", () => {
  it("has no slab; its first object takes exactly one slab of 2^order pages from the page allocator", () => {
    with_machine({ machine: machine_of(2) }, () => {
      for (const [size, pages] of [
        [100, 1],
        [512, 2],
        [1024, 4],
        [4096, 8],
        [51472, 16],
      ] as const) {
        // prettier-ignore
        const cache = kmem_cache_create("fresh", size, 0, SLAB_NO_MERGE, null);
        expect(get_slabinfo(cache)).toMatchObject({ num_slabs: 0, num_objs: 0, active_objs: 0 });
        drain_all_pages();
        const free = nr_free_pages();
        const slabs = global_node_page_state(NR_SLAB_UNRECLAIMABLE);
        const object = kmem_cache_alloc(cache, GFP_KERNEL);
        drain_all_pages();
        expect([free - nr_free_pages(), global_node_page_state(NR_SLAB_UNRECLAIMABLE) - slabs]).toEqual([pages, pages]);
        expect(page_address(virt_to_head_page(object))).toBe(object);
        kmem_cache_free(cache, object);
        kmem_cache_destroy(cache);
      }
    });
  });
});

describe("A3 A15 above the largest class", () => {
  it("a block of pages counts as slab memory that no cache has, whole to its end", () => {
    with_machine({}, () => {
      const before = global_node_page_state(NR_SLAB_UNRECLAIMABLE);
      const object = kmalloc(8192 + 201, GFP_KERNEL);
      expect(global_node_page_state(NR_SLAB_UNRECLAIMABLE)).toBe(before + 4);
      ram_fill(object, 0x77, 16_384);
      kfree(object);
      expect(global_node_page_state(NR_SLAB_UNRECLAIMABLE)).toBe(before);
    });
  });
});

describe("A37 a constructor", () => {
  it("runs once an object when its slab is made, in list order, and not again", () => {
    for (const append of ["", "slab_freelist_random=on slab_freelist_hardened=on", "kmalloc_sheaf=8"])
      with_machine({ append, page_slack: 3 }, () => {
        const built: Obj[] = [];
        const cache = kmem_cache_create("built", 1000, { ctor: (object: Obj) => void built.push(object) }, 0);
        const objects = Array.from({ length: 16 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
        expect(objects).toEqual(built);
        for (const object of objects) kmem_cache_free(cache, object);
        const again = Array.from({ length: 16 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
        expect(built.length).toBe(16);
        for (const object of again) kmem_cache_free(cache, object);
        kmem_cache_shrink(cache);
        kmem_cache_destroy(cache);
      });
  });
});

describe("boot options", () => {
  const layout = (append: string): string => {
    let text = "";
    with_machine({ machine: machine_of(2), append }, () => {
      const [first] = [...printk_records()].filter(({ text }) => text.startsWith("SLUB: HWalign"));
      text = `${first!.text.slice(18)} | ${geometry(512)} | ${geometry(2048)}`;
    });
    return text;
  };

  it("slab_min_order, slab_max_order and slab_min_objects, in either spelling, in the order given", () => {
    const tail = "CPUs=2, Nodes=1";
    expect(layout("")).toBe(`Order=0-3, MinObjects=0, ${tail} | 512 1 16 | 2048 3 16`);
    expect(layout("slab_min_order=2")).toBe(`Order=2-3, MinObjects=0, ${tail} | 512 2 32 | 2048 3 16`);
    expect(layout("slub_min_order=4")).toBe(`Order=4-4, MinObjects=0, ${tail} | 512 4 128 | 2048 4 32`);
    expect(layout("slub_max_order=0")).toBe(`Order=0-0, MinObjects=0, ${tail} | 512 0 8 | 2048 0 2`);
    expect(layout("slab_min_order=4 slab_max_order=1")).toBe(`Order=1-1, MinObjects=0, ${tail} | 512 1 16 | 2048 1 4`);
    expect(layout("slab_max_order=1 slab_min_order=2")).toBe(`Order=2-2, MinObjects=0, ${tail} | 512 2 32 | 2048 2 8`);
    expect(layout("slab_max_order=99")).toBe(`Order=0-10, MinObjects=0, ${tail} | 512 1 16 | 2048 3 16`);
    expect(layout("slab_min_objects=30 slab_max_order=x")).toBe(`Order=0-3, MinObjects=30, ${tail} | 512 2 32 | 2048 3 16`); // prettier-ignore
  });

  it("slab_nomerge and slab_merge: the last one wins", () => {
    const merges = (append: string): boolean => {
      let same = false;
      with_machine({ append }, () => {
        const pair: CachePtr[] = ["one", "two"].map((name) => kmem_cache_create(name, 1000, 0, 0, null));
        same = pair[0] === pair[1];
        pair.forEach(kmem_cache_destroy);
        expect(slab_data.nomerge).toBe(Number(!same));
      });
      return same;
    };
    const options = ["", "slab_nomerge", "slub_nomerge", "slab_nomerge slab_merge", "slub_merge slab_nomerge"];
    expect(options.map(merges)).toEqual([true, false, false, true, false]);
  });
});
