/** What every slab allocator promises, whichever is booted. Each allocator's own test calls `describe_slab`. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NULL, PAGE_SIZE, type Obj } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ram32, ram8, ram_fill } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { KernelPanic } from "../../kernel/lib/bug.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_ATOMIC, GFP_KERNEL, NUMA_NO_NODE, __GFP_NOWARN, __GFP_THISNODE, __GFP_ZERO } from "../../mm/gfp.ts";
import { ptr_to_virt, virt_to_ptr } from "../../mm/kernel_map.ts";
import {
  ZERO_SIZE_PTR, kcalloc, kfree, kfree_sensitive, kmalloc, kmalloc_array, kmalloc_size_roundup, kmemdup, krealloc,
  krealloc_array, ksize, kstrdup, kstrdup_text, kzalloc, virt_to_cache,
} from "../../mm/kmalloc.ts"; // prettier-ignore
import { PG_reserved, page_address, page_flag, page_to_nid, virt_to_page } from "../../mm/page.ts";
import { nr_free_pages } from "../../mm/page_alloc.ts";
import {
  KMEM_CACHE, KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node,
  kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink, kmem_cache_zalloc,
  type CachePtr, type KmemCacheArgs,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { validate_mm } from "../../mm/validate.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { with_machine, type TestMachine } from "../lib/machine.ts";

const my_struct = struct("my_struct", { id: "u32", name: "char[288]", next: "*my_struct" });

const slab_pages = (): number =>
  global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);

type Make = (size: number, align?: number, flags?: number) => CachePtr;
/** Makes caches; `args` are what the caches of this run have beside their size. */
const maker = (args: KmemCacheArgs): Make => (size, align = 0, flags = SLAB_NO_MERGE) =>
  kmem_cache_create("test_cache", size, { ...args, align }, flags); // prettier-ignore

/** What not every allocator promises. */
export interface SlabClaims {
  /** kmalloc has Linux's size classes, each a cache. */
  readonly size_classes: boolean;
  /** A cache has slabs, and an object's page says which cache it is of. */
  readonly slabs: boolean;
  /** Equal caches are merged. */
  readonly merging: boolean;
  /** The smallest size class. */
  readonly smallest_class: number;
  /** A freed object serves the next request, whatever its node and the CPU's. */
  readonly at_once: boolean;
}
const ALL_CLAIMS: SlabClaims = { size_classes: true, slabs: true, merging: true, smallest_class: 8, at_once: true };

export function describe_slab(
  name: string,
  machine: TestMachine,
  args: KmemCacheArgs = {},
  given: Partial<SlabClaims> = {},
): void {
  const claims = { ...ALL_CLAIMS, ...given };
  const make = maker(args);
  const it_if = (claimed: boolean): ((title: string, test: () => void) => void) => (claimed ? it : () => {});
  const it_with_classes = it_if(claims.size_classes);
  const it_with_slabs = it_if(claims.slabs);
  const run = (fn: () => void): void => with_machine(machine, fn);

  describe(`${name}: kmalloc`, () => {
    it_with_classes("A1 rounds a request up to its size class", () => {
      run(() => {
        const asked = [1, 8, 9, 16, 17, 32, 33, 64, 65, 96, 97, 128, 129, 192, 193, 256];
        const classes = [8, 8, 16, 16, 32, 32, 64, 64, 96, 96, 128, 128, 192, 192, 256, 256];
        const given = classes.map((size) => Math.max(size, claims.smallest_class));
        expect(asked.map(kmalloc_size_roundup)).toEqual(given);
        for (const [i, size] of asked.entries()) {
          const object = kmalloc(size, GFP_KERNEL);
          expect(ksize(object)).toBe(given[i]);
          kfree(object);
        }
      });
    });

    it_with_classes("A3 gives whole pages above 8192 bytes", () => {
      run(() => {
        const cache = find_cache("kmalloc-8k");
        const live = get_slabinfo(cache).live_objs;
        const object = kmalloc(8192, GFP_KERNEL);
        expect(get_slabinfo(cache).live_objs).toBe(live + 1);
        const all = (): number[] => [...for_each_cache()].map((other) => get_slabinfo(other).live_objs);
        const [objects, pages] = [all(), nr_free_pages()];
        const large = kmalloc(8193, GFP_KERNEL);
        expect(pages - nr_free_pages()).toBe(4);
        expect(ksize(large)).toBe(16384);
        expect(large % PAGE_SIZE).toBe(0);
        expect([virt_to_cache(object), virt_to_cache(large)]).toEqual([cache, NULL]);
        expect(all()).toEqual(objects); // in no cache
        kfree(object);
        kfree(large);
        expect(all()).toEqual(objects.map((count, i) => count - Number([...for_each_cache()][i] === cache)));
      });
    });

    it("A5 gives a marker for 0 bytes, in a page that is nobody's, and kfree of it is nothing", () => {
      run(() => {
        const state = (): number[] => [nr_free_pages(), [...printk_records()].length, ...[...for_each_cache()].map((cache) => get_slabinfo(cache).live_objs)]; // prettier-ignore
        const before = state();
        expect(kmalloc(0, GFP_KERNEL)).toBe(ZERO_SIZE_PTR);
        expect([kzalloc(0, GFP_KERNEL), kcalloc(0, 8, GFP_KERNEL)]).toEqual([ZERO_SIZE_PTR, ZERO_SIZE_PTR]);
        expect(ksize(ZERO_SIZE_PTR)).toBe(0);
        expect(page_flag(virt_to_page(ZERO_SIZE_PTR), PG_reserved)).toBe(true);
        kfree(ZERO_SIZE_PTR);
        kfree(NULL);
        kfree_sensitive(ZERO_SIZE_PTR);
        expect(krealloc(ZERO_SIZE_PTR, 0, GFP_KERNEL)).toBe(ZERO_SIZE_PTR);
        expect(state()).toEqual(before);
      });
    });

    it_with_classes("A7 lets the caller use all of ksize, and no more of it is anybody's", () => {
      run(() => {
        const objects = Array.from({ length: 64 }, () => kmalloc(123, GFP_KERNEL)); // two slabs
        for (const object of objects) expect(ksize(object)).toBe(128);
        for (const [i, object] of objects.entries()) ram_fill(object, i, 128);
        for (const [i, object] of objects.entries())
          expect(ram8.subarray(object, object + 128).every((byte) => byte === i)).toBe(true);
        expect(objects.some((object) => objects.includes(object + 128))).toBe(true); // neighbours, to the byte
        expect(validate_mm()).toEqual([]);
        objects.forEach(kfree);
      });
    });

    it("A9 aligns a power of two to itself, a class of 96 to 32 and of 192 to 64", () => {
      run(() => {
        const objects: Obj[] = [];
        const powers = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192].map((size) => [size, size] as const);
        for (const [size, align] of claims.size_classes ? [...powers, [96, 32] as const, [192, 64] as const] : powers)
          for (let i = 0; i < 20; i++) {
            const object = kmalloc(size, GFP_KERNEL);
            expect(object % align).toBe(0);
            objects.push(object);
          }
        objects.forEach(kfree);
      });
    });

    it_with_classes("A11 krealloc in place zeroes what is behind, if asked", () => {
      run(() => {
        const object = kmalloc(48, GFP_KERNEL);
        ram_fill(object, 0xff, 64);
        expect(krealloc(object, 40, GFP_KERNEL | __GFP_ZERO)).toBe(object);
        expect([...ram8.subarray(object + 40, object + 64)].every((byte) => byte === 0)).toBe(true); // to the slot's end
        expect(krealloc(object, 56, GFP_KERNEL | __GFP_ZERO)).toBe(object);
        expect([...ram8.subarray(object, object + 40)].every((byte) => byte === 0xff)).toBe(true);
        expect([...ram8.subarray(object + 40, object + 56)].every((byte) => byte === 0)).toBe(true);
        kfree(object);
      });
    });

    for (const base of [0, 8192])
      it(`${base ? "A15" : "A13"} krealloc from ${base + 201} to ${base + 235} keeps the bytes`, () => {
        run(() => {
          const object = kmalloc(base + 201, GFP_KERNEL);
          const usable = base === 0 ? 256 : 16384; // a class, or pages
          if (base || claims.size_classes) expect(ksize(object)).toBe(usable);
          for (let i = 0; i < base + 201; i++) ram8[object + i] = i * 7;
          const grown = krealloc(object, base + 235, GFP_KERNEL);
          if (base || claims.size_classes) expect([grown, ksize(grown)]).toEqual([object, usable]);
          for (let i = 0; i < base + 201; i++) expect(ram8[grown + i]).toBe((i * 7) & 0xff);
          ram_fill(grown, 0xee, base + 235);
          expect(validate_mm()).toEqual([]);
          const larger = krealloc(grown, base + 40000, GFP_KERNEL);
          expect(larger).not.toBe(grown);
          expect(ram8[larger + base + 234]).toBe(0xee);
          kfree(larger);
        });
      });

    it("A17 frees an address computed from its page and offset, or from its virtual address", () => {
      run(() => {
        const said = [...printk_records()].length;
        const ways = [
          (object: Obj): Obj => page_address(virt_to_page(object)) + (object % PAGE_SIZE),
          (object: Obj): Obj => virt_to_ptr(ptr_to_virt(object)),
        ];
        for (const way of ways)
          for (const size of [100, 3000, 8000, 20_000]) {
            // Several, so that they lie in other pages of a slab than its first, too.
            const objects = Array.from({ length: 5 }, () => kmalloc(size, GFP_KERNEL));
            const last = objects.at(-1)!;
            expect(way(last)).toBe(last);
            kfree(way(last));
            expect(kmalloc(size, GFP_KERNEL)).toBe(last);
            objects.forEach((object) => kfree(way(object)));
          }
        expect([...printk_records()].length).toBe(said);
        expect(validate_mm()).toEqual([]);
      });
    });

    it("zeroes, copies and refuses what overflows", () => {
      run(() => {
        const dirty = kmalloc(256, GFP_KERNEL);
        ram_fill(dirty, 0xff, 256);
        kfree(dirty);
        const zeroed = kzalloc(200, GFP_KERNEL);
        expect(ram8.subarray(zeroed, zeroed + 200).every((byte) => byte === 0)).toBe(true);
        const table = kcalloc(10, 20, GFP_KERNEL);
        expect(ram8.subarray(table, table + 200).every((byte) => byte === 0)).toBe(true);
        expect(kmalloc_array(2 ** 40, 2 ** 30, GFP_KERNEL)).toBe(NULL);
        expect(krealloc_array(table, 2 ** 40, 2 ** 30, GFP_KERNEL)).toBe(NULL);
        expect(kmalloc(2 ** 23, GFP_KERNEL | __GFP_NOWARN)).toBe(NULL);
        const text = kstrdup_text("a name", GFP_KERNEL);
        const copy = kstrdup(text, GFP_KERNEL);
        const bytes = kmemdup(text, 7, GFP_KERNEL);
        expect(ram8.subarray(bytes, bytes + 7)).toEqual(ram8.subarray(copy, copy + 7));
        for (const object of [zeroed, table, text, copy]) kfree(object);
        kfree_sensitive(bytes);
      });
    });
  });

  describe(`${name}: caches`, () => {
    it("both forms of the article make caches of equal geometry", () => {
      run(() => {
        const one = KMEM_CACHE("my_object_cache", my_struct, SLAB_PANIC | SLAB_NO_MERGE);
        const two = kmem_cache_create("my_object_cache", my_struct.sizeof, 0, SLAB_PANIC | SLAB_NO_MERGE, NULL);
        const tag = KMEM_CACHE(my_struct, SLAB_PANIC | SLAB_NO_MERGE);
        for (const field of [KmemCache.size, KmemCache.object_size, KmemCache.oo, KmemCache.align, KmemCache.offset])
          expect([field.get(two), field.get(tag)]).toEqual([field.get(one), field.get(one)]);
        expect(KmemCache.name.get(tag)).toBe("my_struct");
        [one, two, tag].forEach(kmem_cache_destroy);
      });
    });

    it_with_slabs("A31 has no slab until the first allocation, which takes one from the page allocator", () => {
      run(() => {
        const cache = make(256);
        expect(get_slabinfo(cache)).toMatchObject({ num_slabs: 0, num_objs: 0, live_objs: 0 });
        const pages = slab_pages();
        const object = kmem_cache_alloc(cache, GFP_KERNEL);
        const info = get_slabinfo(cache);
        expect(info).toMatchObject({ num_slabs: 1, live_objs: 1, num_objs: info.objects_per_slab });
        if (!args.sheaf_capacity) expect(slab_pages() - pages).toBe(1 << info.cache_order); // sheaves take some too
        kmem_cache_free(cache, object);
        kmem_cache_destroy(cache);
      });
    });

    it_if(claims.merging)("A29 equal caches share slabs, those with a constructor do not", () => {
      run(() => {
        const one = kmem_cache_create("merge_one", 920, 0, 0, null);
        const two = kmem_cache_create("merge_two", 920, 0, 0, null);
        expect(two).toBe(one);
        expect(find_cache("merge_two")).toBe(one);
        const before = KmemCache.refcount.get(one);
        const with_ctor = kmem_cache_create("merge_ctor", 920, 0, 0, (object) => void (ram32[object >> 2] = 1));
        expect(with_ctor).not.toBe(one);
        expect(KmemCache.refcount.get(one)).toBe(before);
        kmem_cache_destroy(two);
        expect(KmemCache.refcount.get(one)).toBe(before - 1);
        kmem_cache_destroy(one);
        kmem_cache_destroy(with_ctor);
      });
    });

    it("A37 constructed state is there at each allocation, whatever was written behind it", () => {
      run(() => {
        for (const size of [8, 16, 24, 32, 64, 100, 128, 256, 512, 1024, 2048, 4096]) {
          const cache = kmem_cache_create("ctor_cache", size, 0, 0, (object) => void (ram32[object >> 2] = 0x41414141));
          for (let round = 0; round < 10; round++) {
            const objects = Array.from({ length: round % 2 ? 1 : 10 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
            for (const object of objects) {
              expect(ram32[object >> 2]).toBe(0x41414141);
              ram_fill(object + 4, 0xdd, size - 4);
            }
            for (const object of objects) kmem_cache_free(cache, object);
          }
          kmem_cache_destroy(cache);
        }
      });
    });

    it("zeroes object_size bytes and not more", () => {
      run(() => {
        const cache = make(40);
        const objects = Array.from({ length: 50 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
        for (const object of objects) ram_fill(object, 0xff, 40);
        for (const object of objects) kmem_cache_free(cache, object);
        for (let i = 0; i < 50; i++) {
          objects[i] = kmem_cache_zalloc(cache, GFP_KERNEL);
          expect(ram8.subarray(objects[i]!, objects[i]! + 40).every((byte) => byte === 0)).toBe(true);
        }
        for (const object of objects) kmem_cache_free(cache, object);
        kmem_cache_destroy(cache);
      });
    });

    it_with_slabs("bulk takes all or none, and frees any mix", () => {
      run(() => {
        const cache = make(200);
        const other = make(64);
        const objects: Obj[] = [];
        expect(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 0, objects)).toBe(0);
        expect(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 100, objects)).toBe(100);
        expect(new Set(objects).size).toBe(100);
        expect(get_slabinfo(cache).live_objs).toBe(100);
        const mixed = [
          ...objects.splice(0, 50),
          ...Array.from({ length: 30 }, () => kmem_cache_alloc(other, GFP_KERNEL)),
        ];
        mixed.sort((a, b) => ((a * 7919) % 1009) - ((b * 7919) % 1009));
        kmem_cache_free_bulk(NULL, mixed.length, mixed);
        expect(get_slabinfo(cache).live_objs).toBe(50);
        expect(get_slabinfo(other).live_objs).toBe(0);
        kmem_cache_free_bulk(cache, objects.length, objects);
        kmem_cache_destroy(cache);
        kmem_cache_destroy(other);
      });
    });

    it("gives objects of the node that is asked for", () => {
      run(() => {
        const cache = make(512);
        const objects = [1, 0, 1, 1, 0].map((node) => {
          const object = kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_THISNODE, node);
          expect(page_to_nid(virt_to_page(object))).toBe(node);
          return object;
        });
        for (const object of objects) kmem_cache_free(cache, object);
        expect(kmem_cache_shrink(cache)).toBe(0);
        kmem_cache_destroy(cache);
      });
    });

    it("refuses bad arguments with -EINVAL's warning, and panics with SLAB_PANIC", () => {
      run(() => {
        expect(kmem_cache_create("zero", 0, 0, 0, null)).toBe(NULL);
        expect(kmem_cache_create("huge", 8 << 20, 0, 0, null)).toBe(NULL);
        expect(kmem_cache_create("skew", 64, 48, 0, null)).toBe(NULL);
        expect(kmem_cache_create("", 64, 0, 0, null)).toBe(NULL);
        expect(kmem_cache_create("two words", 64, 0, 0, null)).toBe(NULL);
        expect(kmem_cache_create("flags", 64, 0, 0x2, null)).toBe(NULL);
        for (const [freeptr_offset, flags] of [[64, SLAB_TYPESAFE_BY_RCU], [4, SLAB_TYPESAFE_BY_RCU], [8, 0]] as const) expect(kmem_cache_create("pointer", 64, { freeptr_offset }, flags)).toBe(NULL); // prettier-ignore
        const fatal = (): number => kmem_cache_create("fatal", 0, 0, SLAB_PANIC, null);
        expect(fatal).toThrow(KernelPanic);
        expect(fatal).toThrow("__kmem_cache_create_args: Failed to create slab 'fatal'. Error -22");
        expect(find_cache("zero")).toBe(NULL);
        kmem_cache_destroy(NULL);
      });
    });

    it("creation survives the failure of each of its allocations", () => {
      run(() => {
        for (let nth = 1; ; nth++) {
          set_fail_nth(nth);
          const cache = make(1000);
          set_fail_nth(0);
          if (cache !== NULL) {
            kmem_cache_destroy(cache);
            if (claims.slabs) expect(nth).toBeGreaterThan(1); // else a descriptor may fit into a page that is there
            return;
          }
          expect(validate_mm()).toEqual([]);
        }
      });
    });

    it_if(claims.at_once)("A81 memory runs out with NULL, and one freed object makes room for one", () => {
      run(() => {
        const size = claims.slabs ? 4096 : 1024; // no page by itself: a CPU would keep that, out of reach below the watermark
        const cache = make(size, size, SLAB_NO_MERGE | SLAB_HWCACHE_ALIGN);
        const objects: Obj[] = [];
        for (let object; (object = kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)) !== NULL;) objects.push(object);
        expect(objects.length).toBeGreaterThan(1000);
        const last = objects.pop()!;
        kmem_cache_free(cache, last);
        expect(kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)).toBe(last);
        expect(kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)).toBe(NULL);
        for (const object of [...objects, last]) kmem_cache_free(cache, object);
        kmem_cache_destroy(cache);
      });
    });
  });

  it(`${name}: random operations agree with a plain model`, () => {
    run(() => random_objects(Number(process.env["KHEAP_OPERATIONS"] ?? 20_000), args));
  });
}

const SIZES = [8, 24, 64, 100, 300, 512, 1000, 2048, 5000];

/** Random allocations and frees on all CPUs against a plain record of what is live: no overlap, nothing lost. */
export function random_objects(operations: number, args: KmemCacheArgs = {}): void {
  const make = maker(args);
  const step = fc.record({ what: fc.nat(99), cpu: fc.nat(1), cache: fc.nat(SIZES.length - 1), pick: fc.nat() });
  fc.assert(
    fc.property(fc.array(step, { minLength: operations / 10, maxLength: operations / 10 }), (steps) => {
      const caches = SIZES.map((size) => make(size, 0, SLAB_NO_MERGE));
      const live: { cache: number; object: Obj }[] = [];
      const owner = new Map<number, number>(); // 8-byte granule -> index of its object's birth
      let births = 0;
      for (const { what, cpu, cache, pick } of steps)
        on_cpu(cpu, () => {
          if (what < 55 || live.length === 0) {
            const object = kmem_cache_alloc_node(caches[cache]!, GFP_KERNEL | __GFP_NOWARN, what < 10 ? what & 1 : NUMA_NO_NODE); // prettier-ignore
            if (object === NULL) return;
            births++;
            for (let at = object; at < object + SIZES[cache]!; at += 8) {
              if (owner.has(at >> 3)) throw new Error(`0x${object.toString(16)} overlaps a live object`);
              owner.set(at >> 3, births);
              ram32[at >> 2] = births;
            }
            live.push({ cache, object });
          } else {
            const [{ cache: from, object }] = live.splice(pick % live.length, 1) as [(typeof live)[0]];
            for (let at = object; at < object + SIZES[from]!; at += 8) {
              if (ram32[at >> 2] !== owner.get(at >> 3)) throw new Error(`0x${object.toString(16)} was written to`);
              owner.delete(at >> 3);
            }
            kmem_cache_free(caches[from]!, object);
          }
        });
      expect(validate_mm()).toEqual([]);
      for (const [i, cache] of caches.entries())
        expect(get_slabinfo(cache).live_objs).toBe(live.filter((entry) => entry.cache === i).length);
      for (const { cache, object } of live) kmem_cache_free(caches[cache]!, object);
      caches.forEach((cache) => kmem_cache_shrink(cache));
      expect(caches.map((cache) => get_slabinfo(cache).num_slabs)).toEqual(SIZES.map(() => 0));
      caches.forEach(kmem_cache_destroy);
    }),
    { seed: 20_240_611, numRuns: 10 },
  );
}
