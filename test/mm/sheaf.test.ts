/** Sheaves: every allocator's promises with them on, and each path of their own by its counters. */
import { expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ram32, ram8 } from "../../hal/ram.ts";
import { rcu_barrier, rcu_pending, rcu_read_lock, rcu_read_unlock } from "../../kernel/lib/rcu.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_KERNEL, GFP_NOWAIT, __GFP_THISNODE, __GFP_ZERO } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { kfree_rcu, kvfree_rcu_barrier } from "../../mm/kfree_rcu.ts";
import { page_to_nid, virt_to_page } from "../../mm/page.ts";
import { NodeBarn, PerCpuSheaves, SlabSheaf, node_barn, this_cpu_sheaves } from "../../mm/sheaf.ts";
import { cache_sheaves } from "../../mm/sheaf_cache.ts";
import {
  kmem_cache_alloc_from_sheaf,
  kmem_cache_prefill_sheaf,
  kmem_cache_return_sheaf,
} from "../../mm/sheaf_prefill.ts";
import {
  KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node,
  kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_KMALLOC, SLAB_RED_ZONE } from "../../mm/slab_layout.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { describe_slab } from "./slab_contract.ts";
import { counters } from "./slab_counters.ts";

describe_slab("sheaves of 8", {}, { sheaf_capacity: 8 });
const RANDOM = "slab_freelist_random=on slab_freelist_hardened=on slab_full=off";
describe_slab("sheaves of 5 and kmalloc's of 12, random and hardened lists", { page_slack: 3, append: `kmalloc_sheaf=12 ${RANDOM}` }, { sheaf_capacity: 5 }); // prettier-ignore

const CAPACITY = 4;
const make = (size = 512): CachePtr => kmem_cache_create("sheafy", size, { sheaf_capacity: CAPACITY }, 0);
const take = (cache: CachePtr, count: number): Obj[] =>
  Array.from({ length: count }, () => kmem_cache_alloc(cache, GFP_KERNEL));
const give = (cache: CachePtr, objects: Obj[]): void => objects.forEach((object) => kmem_cache_free(cache, object));
const barn = (cache: CachePtr, node = 0): number[] => {
  const at = node_barn(cache, node);
  return [NodeBarn.nr_full.get(at), NodeBarn.nr_empty.get(at)];
};

it("the first allocation fills a sheaf from slabs, the next ones come out of it, last in first out", () => {
  with_machine({}, () => {
    const cache = make();
    const objects = take(cache, CAPACITY);
    expect(new Set(objects).size).toBe(CAPACITY);
    expect(counters(cache)).toMatchObject({ sheaf_refill: CAPACITY, alloc_cpu_sheaf: CAPACITY, barn_get_fail: 1 });
    expect(get_slabinfo(cache)).toMatchObject({ live_objs: CAPACITY, active_objs: 16 });
    give(cache, objects);
    expect(get_slabinfo(cache)).toMatchObject({ live_objs: 0, active_objs: 16 }); // in use, as Linux counts them
    expect(take(cache, CAPACITY)).toEqual([...objects].reverse());
    expect(counters(cache)).toMatchObject({ alloc_cpu_sheaf: 2 * CAPACITY, free_cpu_sheaf: CAPACITY });
    give(cache, objects);
    kmem_cache_destroy(cache);
  });
});

it("frees fill main, then the spare, then the barn up to ten, then slabs", () => {
  with_machine({}, () => {
    const cache = make();
    const objects = take(cache, 14 * CAPACITY);
    kmem_cache_shrink(cache); // all sheaves but the main ones go
    const step = (sheaves: number): void => give(cache, objects.splice(0, sheaves * CAPACITY));
    step(2);
    expect(barn(cache)).toEqual([0, 0]); // main and spare are full
    step(3);
    expect(barn(cache)).toEqual([3, 0]);
    step(7);
    expect(barn(cache)).toEqual([10, 0]);
    expect(counters(cache)).toMatchObject({ barn_put: 10 });
    const flushed = counters(cache)["sheaf_flush"] ?? 0;
    step(1);
    expect(barn(cache)).toEqual([10, 0]);
    expect(counters(cache)).toMatchObject({ barn_put: 10, barn_put_fail: 1, sheaf_flush: flushed + CAPACITY });
    expect(validate_mm()).toEqual([]);
    give(cache, objects);
    const again = take(cache, 12 * CAPACITY); // main, the spare, and ten sheaves of the barn
    expect(barn(cache)).toEqual([0, 10]);
    expect(counters(cache)).toMatchObject({ barn_get: 10 });
    const dropped = counters(cache)["sheaf_free"] ?? 0;
    again.push(...take(cache, 1)); // the spare is filled; what was main would be the eleventh empty one
    expect([barn(cache), counters(cache)["sheaf_free"]]).toEqual([[0, 10], dropped + 1]);
    expect(validate_mm()).toEqual([]);
    give(cache, again);
    kmem_cache_destroy(cache);
  });
});

it("a full barn's sheaf serves the other CPUs of its node", () => {
  with_machine({ machine: undefined }, () => {
    const cache = make();
    const objects = take(cache, 4 * CAPACITY);
    give(cache, objects);
    expect(barn(cache)[0]).toBeGreaterThan(0);
    on_cpu(1, () => {
      // CPU 1 is on node 1: its own barn has nothing, so it fills a sheaf of its own.
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      expect(page_to_nid(virt_to_page(object))).toBe(1);
      kmem_cache_free(cache, object);
      expect(SlabSheaf.size.get(PerCpuSheaves.main.get(this_cpu_sheaves(cache)))).toBe(CAPACITY);
    });
    kmem_cache_destroy(cache);
  });
});

it("requests for another node and objects of another node go past the sheaves", () => {
  with_machine({}, () => {
    const cache = make();
    const far = kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE, 1);
    expect(page_to_nid(virt_to_page(far))).toBe(1);
    kmem_cache_free(cache, far);
    expect(counters(cache)).not.toHaveProperty("alloc_cpu_sheaf");
    expect(counters(cache)).not.toHaveProperty("free_cpu_sheaf");
    const near = kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE, 0);
    expect(page_to_nid(virt_to_page(near))).toBe(0);
    kmem_cache_free(cache, near);
    kmem_cache_destroy(cache);
  });
});

it("who may not sleep gets no sheaf filled, but an object", () => {
  with_machine({}, () => {
    const cache = make();
    const object = kmem_cache_alloc(cache, GFP_NOWAIT);
    expect(object).not.toBe(NULL);
    expect(counters(cache)).toMatchObject({ barn_get_fail: 1, alloc_slowpath: 1 });
    expect(counters(cache)).not.toHaveProperty("sheaf_refill");
    kmem_cache_free(cache, object);
    kmem_cache_destroy(cache);
  });
});

it("bulk goes through the sheaves, and shrink empties them", () => {
  with_machine({}, () => {
    const cache = make();
    const objects: Obj[] = [];
    expect(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 50, objects)).toBe(50);
    expect(new Set(objects).size).toBe(50);
    kmem_cache_free_bulk(cache, 50, objects);
    expect(counters(cache)).toMatchObject({ alloc_cpu_sheaf: 50, free_cpu_sheaf: 50 });
    expect(kmem_cache_shrink(cache)).toBe(0);
    expect([...cache_sheaves(cache)].map(([where, sheaf]) => [where, SlabSheaf.size.get(sheaf)])).toEqual([["cpu 0 main", 0], ["cpu 1 main", 0]]); // prettier-ignore
    kmem_cache_destroy(cache);
  });
});

it("without memory for a sheaf the slabs serve, and nothing is lost", () => {
  with_machine({}, () => {
    for (let nth = 1; nth < 40; nth++) {
      set_fail_nth(nth);
      const cache = make();
      const objects = cache === NULL ? [] : take(cache, 12).filter((object) => object !== NULL);
      if (cache !== NULL) give(cache, objects);
      set_fail_nth(0);
      expect(validate_mm()).toEqual([]);
      kmem_cache_destroy(cache);
    }
  });
});

it("a cache with sheaves never merges, a debugged one has none", () => {
  with_machine({}, () => {
    const plain = kmem_cache_create("plain", 512, 0, 0, null);
    const one = make();
    const two = make();
    expect(new Set([plain, one, two]).size).toBe(3);
    expect(KmemCache.sheaf_capacity.get(one)).toBe(CAPACITY);
    const debugged = kmem_cache_create("debugged", 512, { sheaf_capacity: CAPACITY }, SLAB_RED_ZONE);
    expect([KmemCache.sheaf_capacity.get(debugged), KmemCache.cpu_sheaves.get(debugged)]).toEqual([0, NULL]);
    [plain, one, two, debugged].forEach(kmem_cache_destroy);
  });
});

it("kmalloc_sheaf=N gives every kmalloc cache sheaves, and no other", () => {
  with_machine({ append: "kmalloc_sheaf=12" }, () => {
    for (const cache of for_each_cache())
      expect(KmemCache.sheaf_capacity.get(cache)).toBe(KmemCache.flags.get(cache) & SLAB_KMALLOC ? 12 : 0);
    const object = kmalloc(100, GFP_KERNEL);
    kfree(object);
    expect(kmalloc(100, GFP_KERNEL)).toBe(object);
    expect(counters(find_cache("kmalloc-128"))).toMatchObject({ alloc_cpu_sheaf: 2, free_cpu_sheaf: 1 });
    kfree(object);
  });
});

it("a whole machine boots, runs its programs and ends with kmalloc's sheaves on", () => {
  for (const capacity of [1, 3, 32, 200])
    with_machine({ until: "init", append: `kmalloc_sheaf=${capacity} ${RANDOM}`, page_slack: 8 }, () => {
      expect(counters(find_cache("kmalloc-96"))["alloc_cpu_sheaf"]).toBeGreaterThan(0);
      expect(validate_mm()).toEqual([]);
    });
});

it("kfree_rcu collects a sheaf, which goes to the barn full after a grace period", () => {
  with_machine({}, () => {
    const cache = make();
    const objects = take(cache, 2 * CAPACITY + 1);
    kmem_cache_shrink(cache);
    rcu_read_lock();
    objects.slice(0, CAPACITY).forEach((object) => (ram32[object >> 2] = object));
    for (const object of objects) kfree_rcu(object, 16);
    expect(counters(cache)).toMatchObject({ free_rcu_sheaf: 2 * CAPACITY + 1 });
    expect(rcu_pending()).toBe(2);
    expect(get_slabinfo(cache).live_objs).toBe(2 * CAPACITY + 1); // until the readers are done
    for (const object of objects.slice(0, CAPACITY)) expect(ram32[object >> 2]).toBe(object);
    rcu_read_unlock();
    rcu_barrier();
    expect(barn(cache)[0]).toBe(2);
    expect(get_slabinfo(cache).live_objs).toBe(1);
    kvfree_rcu_barrier(); // the sheaf that is not full yet: its object goes to its slab
    expect([get_slabinfo(cache).live_objs, barn(cache)[0]]).toEqual([0, 2]);
    expect(validate_mm()).toEqual([]);
    kmem_cache_destroy(cache);
  });
});

it("a prefilled sheaf has objects for a place that must not fail, and becomes the spare afterwards", () => {
  with_machine({}, () => {
    const cache = make();
    const sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 3);
    expect(SlabSheaf.size.get(sheaf)).toBe(CAPACITY);
    expect(get_slabinfo(cache).live_objs).toBe(CAPACITY); // the caller's
    const objects = Array.from({ length: 3 }, () => kmem_cache_alloc_from_sheaf(cache, GFP_NOWAIT | __GFP_ZERO, sheaf));
    for (const object of objects) expect(ram8.subarray(object, object + 512).every((byte) => byte === 0)).toBe(true);
    kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
    expect(PerCpuSheaves.spare.get(this_cpu_sheaves(cache))).toBe(sheaf);
    const again = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, CAPACITY);
    expect(again).toBe(sheaf);
    const second = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 1);
    const large = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 50);
    expect(SlabSheaf.size.get(large)).toBe(50);
    for (const one of [again, second, large]) kmem_cache_return_sheaf(cache, GFP_KERNEL, one);
    expect(barn(cache)).toEqual([1, 0]);
    expect(counters(cache)).toMatchObject({
      sheaf_prefill_fast: 1, sheaf_prefill_slow: 2, sheaf_prefill_oversize: 1, sheaf_return_fast: 2, sheaf_return_slow: 1,
    }); // prettier-ignore
    const third = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 1); // the spare
    for (let object; (object = kmem_cache_alloc_from_sheaf(cache, 0, third)) !== NULL;) objects.push(object);
    expect(objects.length).toBe(3 + CAPACITY);
    kmem_cache_return_sheaf(cache, GFP_KERNEL, third);
    set_fail_nth(1);
    expect(kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 50)).toBe(NULL);
    set_fail_nth(0);
    give(cache, objects);
    expect(get_slabinfo(cache).live_objs).toBe(0);
    kmem_cache_destroy(cache);
  });
});

it("validate finds an object that stands in a sheaf twice, a foreign one, and a wrong count", () => {
  with_machine({}, () => {
    const cache = make();
    give(cache, take(cache, 2));
    const sheaf = PerCpuSheaves.main.get(this_cpu_sheaves(cache));
    const first = (sheaf + SlabSheaf.sizeof) >> 2;
    const good = ram32[first]!;
    ram32[first] = ram32[first + 2]!;
    expect(validate_mm().join()).toContain("stands in two places");
    ram32[first] = good + 8;
    expect(validate_mm().join()).toContain("is no object of the cache");
    ram32[first] = good;
    SlabSheaf.size.set(sheaf, 99);
    expect(validate_mm().join()).toContain("holds 99 objects of 4");
    SlabSheaf.size.set(sheaf, CAPACITY);
    NodeBarn.nr_full.set(node_barn(cache, 0), 1);
    expect(validate_mm().join()).toContain("1 full sheaves counted, 0 found");
    NodeBarn.nr_full.set(node_barn(cache, 0), 0);
    kmem_cache_destroy(cache);
  });
});
