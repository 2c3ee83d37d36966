/** SLUB: the promises of every allocator, and what is its own. */
import { expect, it } from "vitest";
import { NULL } from "../../hal/addr.ts";
import { events } from "../../hal/events.ts";
import { ram32 } from "../../hal/ram.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_shrink } from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { describe_slab } from "./slab_contract.ts";

describe_slab("slub", {});
describe_slab("slub, random and hardened lists", { append: "slab_freelist_random=on slab_freelist_hardened=on slab_full=off" }); // prettier-ignore

it("the kmalloc caches are made in Linux's order, the boot caches first", () => {
  with_machine({}, () => {
    const names = [...for_each_cache()].map((cache) => KmemCache.name.get(cache)).reverse();
    expect(names.slice(0, 17)).toEqual([
      "kmem_cache", "kmem_cache_node", "kmalloc-96", "kmalloc-192", "kmalloc-8", "kmalloc-16", "kmalloc-32",
      "kmalloc-64", "kmalloc-128", "kmalloc-256", "kmalloc-512", "kmalloc-1k", "kmalloc-2k", "kmalloc-4k", "kmalloc-8k",
      "kmalloc-rcl-96", "kmalloc-rcl-192",
    ]); // prettier-ignore
    expect(KmemCache.size.get(find_cache("kmem_cache_node"))).toBe(128);
  });
});

it("a cache whose objects are live is reported and unlinked, and its slabs stay", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("busy", 64, 0, SLAB_NO_MERGE, null);
    const object = kmem_cache_alloc(cache, GFP_KERNEL);
    kmem_cache_destroy(cache);
    expect(find_cache("busy")).toBe(NULL);
    // Undo the leak by hand: the descriptor is still an object of kmem_cache.
    kmem_cache_free(cache, object);
    expect(kmem_cache_shrink(cache)).toBe(0);
    expect(validate_mm()).toEqual([]);
    KmemCache.name.set(cache, "busy");
    release_by_hand(cache);
  });
});

/** Links a destroyed cache again so that it can be destroyed properly. */
function release_by_hand(cache: number): void {
  relist(cache);
  KmemCache.refcount.set(cache, 1);
  kmem_cache_destroy(cache);
}
import { list_add } from "../../kernel/lib/list.ts";
import { slab_data } from "../../mm/slab_common.ts";
function relist(cache: number): void {
  list_add(KmemCache.list.at(cache), slab_data.caches);
  slab_data.nr_caches = slab_data.nr_caches + 1;
}

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
