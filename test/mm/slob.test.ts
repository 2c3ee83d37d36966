/** SLOB: the promises of every allocator, and what is its own, step by step. */
import { describe, expect, it } from "vitest";
import { NULL, PAGE_SIZE, type Obj, type Ptr } from "../../hal/addr.ts";
import { ram16, ram32, ram8, ram_fill } from "../../hal/ram.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { rcu_barrier, rcu_read_lock, rcu_read_unlock } from "../../kernel/lib/rcu.ts";
import { kmem_dump_obj } from "../../mm/dump_obj.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_KERNEL, NUMA_NO_NODE, __GFP_ZERO } from "../../mm/gfp.ts";
import { kfree_rcu } from "../../mm/kfree_rcu.ts";
import { kfree, kmalloc, kmalloc_node, kmalloc_size_roundup, krealloc, ksize } from "../../mm/kmalloc.ts";
import { page_to_nid, virt_to_page } from "../../mm/page.ts";
import { KmemCache, kmem_cache_alloc, kmem_cache_alloc_bulk, kmem_cache_alloc_node, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink, kmem_cache_zalloc, find_cache, get_slabinfo, slab_data } from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_HWCACHE_ALIGN, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { SlobPage, slob_alloc, slob_data, slob_free, type SlobPagePtr } from "../../mm/slob.ts";
import { SLOB_LISTS, free_blocks, slob_list_pages, type SlobList } from "../../mm/slob_check.ts";
import { validate_mm } from "../../mm/validate.ts";
import { NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { describe_slab } from "./slab_contract.ts";
import { with_fresh_slob } from "./slob_fresh.ts";

const slob = { append: "slab=slob" };
/** Pages that booting left, into which nothing fits. */
let old: ReadonlySet<SlobPagePtr> = new Set();
const run = (test: () => void): void =>
  with_fresh_slob((pages) => {
    old = pages;
    test();
  });
const nr_pages = (): number => slob_data.nr_pages - old.size;
const no_claims = { size_classes: false, slabs: false, merging: false };

describe_slab("slob", slob, {}, no_claims);

const page_of = (ptr: Obj): Ptr<"slob_page"> => virt_to_page(ptr) as number;
const start_of = (ptr: Obj): Obj => ptr & -PAGE_SIZE;
/** Free blocks of the page that `ptr` lies in: bytes from its start, [first, behind the last]. */
const holes = (ptr: Obj): number[][] => [...free_blocks(page_of(ptr))].map(([at, n]) => [2 * at, 2 * (at + n)]);
const units_left = (ptr: Obj): number => SlobPage.units.get(page_of(ptr));
/** First bytes of the pages on a list, from its head. */
const on_list = (name: SlobList): Obj[] =>
  [...slob_list_pages(name)].filter((page) => !old.has(page)).map((page) => (page - page_of(0)) << 6);
const lists = (): Record<string, number> =>
  Object.fromEntries(SLOB_LISTS.map((name) => [name, on_list(name).length]).filter(([, pages]) => pages !== 0));

describe("slob: blocks of a page", () => {
  it("known answers: 100, 64 and 4 bytes from a fresh page, and the 100 back", () => {
    run(() => {
      // 0      8                    108                                                              4096
      // | 100 |                    |...............................................................|
      const a = kmalloc(100, GFP_KERNEL);
      const P = start_of(a);
      expect(a).toBe(P + 8);
      expect(ram32[P >> 2]).toBe(100);
      expect(units_left(P)).toBe(1994);
      expect(holes(P)).toEqual([[108, 4096]]);
      // 64 is a power of two: what the caller gets is a multiple of 64, and 12 bytes stay free in front.
      // 0      8                    108   120   128              192                                 4096
      // | 100 |                    |.....| 64  |                |...................................|
      const b = kmalloc(64, GFP_KERNEL);
      expect(b).toBe(P + 128);
      expect(ram32[(P + 120) >> 2]).toBe(64);
      expect(units_left(P)).toBe(1958);
      expect(holes(P)).toEqual([[108, 120], [192, 4096]]); // prettier-ignore
      // The hole has the 12 bytes that 4 need, but aligned to 8 they would start at 112 and end at 124.
      const c = kmalloc(4, GFP_KERNEL);
      expect(c).toBe(P + 200);
      expect(units_left(P)).toBe(1952);
      // Freed, the 100 join the hole behind them.
      // 0                                 120   128              192   200   204                     4096
      // |................................| 64  |                | 4   |     |.......................|
      kfree(a);
      expect(units_left(P)).toBe(2006);
      expect(holes(P)).toEqual([[0, 120], [204, 4096]]); // prettier-ignore
      // Between two holes: one block again.
      kfree(b);
      expect(holes(P)).toEqual([[0, 192], [204, 4096]]); // prettier-ignore
      kfree(c);
      expect(nr_pages()).toBe(0);
    });
  });

  it("headers: one unit keeps the place of the next block negated, two keep length and place", () => {
    run(() => {
      const cache = kmem_cache_create("odd", 30, 2, 0, null);
      const [a, b] = [kmem_cache_alloc(cache, GFP_KERNEL), kmem_cache_alloc(cache, GFP_KERNEL)];
      const P = start_of(a);
      expect([a, b]).toEqual([P + 208, P + 240]); // behind the cache's own descriptor
      expect(holes(P)).toEqual([[238, 240], [270, 4096]]); // prettier-ignore
      expect(ram16[(P + 238) >> 1]).toBe(0x10000 - 135);
      expect([ram16[(P + 270) >> 1], ram16[(P + 272) >> 1]]).toEqual([1913, 2048]);
      kmem_cache_free(cache, a);
      expect([ram16[(P + 208) >> 1], ram16[(P + 210) >> 1]]).toEqual([16, 135]);
      kmem_cache_free(cache, b);
      kmem_cache_destroy(cache);
    });
  });

  it("A141 two freed neighbours make room for their sum at that very place", () => {
    run(() => {
      const keep = kmalloc(40, GFP_KERNEL);
      const [a, b] = [kmalloc(92, GFP_KERNEL), kmalloc(92, GFP_KERNEL)];
      const last = kmalloc(40, GFP_KERNEL);
      expect(b).toBe(a + 104); // 92 + 8, and 4 that alignment skips
      for (const order of [
        [a, b],
        [b, a],
      ]) {
        order.forEach(kfree); // prettier-ignore
        expect(kmalloc(196, GFP_KERNEL)).toBe(a);
        kfree(a);
        expect([kmalloc(92, GFP_KERNEL), kmalloc(92, GFP_KERNEL)]).toEqual([a, b]);
      }
      [keep, a, b, last].forEach(kfree);
    });
  });

  it("the block before the first free one, between two and behind the last join their neighbours or not", () => {
    run(() => {
      const blocks = Array.from({ length: 8 }, () => kmalloc(24, GFP_KERNEL)); // 32 bytes each
      const P = start_of(blocks[0]!);
      const free = (i: number): number[][] => {
        kfree(blocks[i]!);
        expect(validate_mm()).toEqual([]);
        return holes(P);
      };
      expect(free(2)).toEqual([[64, 96], [256, 4096]]); // prettier-ignore
      expect(free(0)).toEqual([[0, 32], [64, 96], [256, 4096]]); // prettier-ignore
      expect(free(5)).toEqual([[0, 32], [64, 96], [160, 192], [256, 4096]]); // prettier-ignore
      expect(free(6)).toEqual([[0, 32], [64, 96], [160, 224], [256, 4096]]); // prettier-ignore
      expect(free(4)).toEqual([[0, 32], [64, 96], [128, 224], [256, 4096]]); // prettier-ignore
      expect(free(1)).toEqual([[0, 96], [128, 224], [256, 4096]]); // prettier-ignore
      expect(free(7)).toEqual([[0, 96], [128, 4096]]); // prettier-ignore
      kfree(blocks[3]!);
      expect(nr_pages()).toBe(0);
    });
  });

  it("first fit: the first hole that is large enough, not the best", () => {
    run(() => {
      const [a, b, c, d] = [200, 24, 104, 24].map((size) => kmalloc(size, GFP_KERNEL)) as [Obj, Obj, Obj, Obj];
      kfree(a);
      kfree(c);
      expect(kmalloc(104, GFP_KERNEL)).toBe(a);
      [a, b, d].forEach(kfree);
    });
  });
});

describe("slob: pages and lists", () => {
  it("the list goes by size + 8: 247 small, 248 to 1015 medium, 1016 to 4087 large, 4088 a page", () => {
    run(() => {
      const story = [247, 248, 1015, 1016, 4087, 4088].map((size) => {
        const pages = global_node_page_state(NR_SLAB_UNRECLAIMABLE);
        const object = kmalloc(size, GFP_KERNEL);
        const said = [size, lists(), object % PAGE_SIZE, ksize(object), global_node_page_state(NR_SLAB_UNRECLAIMABLE) - pages]; // prettier-ignore
        kfree(object);
        return said;
      });
      expect(story).toEqual([
        [247, { small: 1 }, 8, 248, 1],
        [248, { medium: 1 }, 8, 248, 1],
        [1015, { medium: 1 }, 8, 1016, 1],
        [1016, { large: 1 }, 8, 1016, 1],
        [4087, {}, 8, 4088, 1], // 2048 units: the page is full, and on no list
        [4088, {}, 0, 4096, 1],
      ]);
      expect(nr_pages()).toBe(0);
    });
  });

  it("a full page leaves its list, and joins that of the block that is freed first", () => {
    run(() => {
      const blocks = [0, 1, 2, 3].map(() => slob_alloc(1024, GFP_KERNEL, 8, NUMA_NO_NODE, 0));
      const P = blocks[0]!;
      expect(blocks).toEqual([P, P + 1024, P + 2048, P + 3072]);
      expect([lists(), units_left(P), nr_pages()]).toEqual([{}, 0, 1]);
      // Nothing in RAM says that the block has 1024 bytes. Who gives it back in two parts:
      slob_free(P + 1024, 200);
      expect([lists(), holes(P)]).toEqual([{ small: 1 }, [[1024, 1224]]]);
      slob_free(P + 1224, 824);
      expect([lists(), holes(P)]).toEqual([{ small: 1 }, [[1024, 2048]]]);
      slob_free(P, 1024);
      slob_free(P + 2048, 2048);
      expect([lists(), nr_pages()]).toEqual([{}, 0]);
    });
  });

  it("next fit: the list turns to the page that served, and a new page goes to its head", () => {
    run(() => {
      // Two blocks of 1500 fill most of a page: A, B, C in order of birth, each with room for 1000 more.
      const pairs = [0, 1, 2].map(() => [kmalloc(1500, GFP_KERNEL), kmalloc(1500, GFP_KERNEL)] as const);
      const [A, B, C] = pairs.map(([first]) => start_of(first)) as [Obj, Obj, Obj];
      expect(on_list("large")).toEqual([C, B, A]);
      kfree(pairs[1]![1]); // only B has room for 2000 now: the list turns, it is not sorted
      const two = kmalloc(2000, GFP_KERNEL);
      expect(start_of(two)).toBe(B);
      expect(on_list("large")).toEqual([B, A, C]);
      kfree(pairs[0]![0]);
      const one = kmalloc(1200, GFP_KERNEL); // B is asked first, and has not room enough
      expect(start_of(one)).toBe(A);
      expect(on_list("large")).toEqual([A, C, B]);
      [pairs[0]![1], pairs[1]![0], pairs[2]![0], pairs[2]![1], one, two].forEach(kfree);
      expect(nr_pages()).toBe(0);
    });
  });

  it("a page that fills by the very block that it serves does not turn the list", () => {
    run(() => {
      const [a, b, c] = [kmalloc(3000, GFP_KERNEL), kmalloc(3000, GFP_KERNEL), kmalloc(3000, GFP_KERNEL)];
      const [A, B, C] = [a, b, c].map(start_of) as [Obj, Obj, Obj];
      kfree(b);
      const d = kmalloc(3000, GFP_KERNEL);
      expect(start_of(d)).toBe(B);
      expect(on_list("large")).toEqual([B, C, A]);
      const rest = kmalloc(4096 - 3008 - 8, GFP_KERNEL); // what B has left, to the byte
      expect(start_of(rest)).toBe(B);
      expect(on_list("large")).toEqual([C, A]);
      [a, c, d, rest].forEach(kfree);
    });
  });

  it("takes blocks of the node that is asked for, and passes over pages of others", () => {
    run(() => {
      const objects = [1, 0, 1].map((node) => kmalloc_node(100, GFP_KERNEL, node));
      expect(objects.map((object) => page_to_nid(virt_to_page(object)))).toEqual([1, 0, 1]);
      expect(start_of(objects[2]!)).toBe(start_of(objects[0]!));
      const cache = kmem_cache_create("near", 100, 0, 0, null);
      const near = kmem_cache_alloc_node(cache, GFP_KERNEL, 0);
      expect(start_of(near)).toBe(start_of(objects[1]!));
      kmem_cache_free(cache, near);
      objects.forEach(kfree);
      kmem_cache_destroy(cache);
    });
  });
});

describe("slob: kmalloc", () => {
  it("keeps the size in front, gives no more than a byte beyond it, and rounds up to 8 where asked", () => {
    run(() => {
      for (const size of [1, 2, 7, 8, 99, 100, 123, 1000, 4087]) {
        const object = kmalloc(size, GFP_KERNEL);
        expect([ram32[(object - 8) >> 2], ksize(object), kmalloc_size_roundup(size)]).toEqual([size, size + (size & 1), (size + 7) & ~7]); // prettier-ignore
        kfree(object);
      }
      expect([4087, 4088, 8192, 8193].map(kmalloc_size_roundup)).toEqual([4088, 4088, 8192, 8200]);
    });
  });

  it("A7 all of ksize may be written", () => {
    run(() => {
      const [object, neighbour] = [kmalloc(123, GFP_KERNEL), kmalloc(123, GFP_KERNEL)];
      ram_fill(neighbour, 0x55, 124);
      ram_fill(object, 0xaa, ksize(object));
      expect([ksize(object), ram8[neighbour], ksize(neighbour)]).toEqual([124, 0x55, 124]);
      [object, neighbour].forEach(kfree);
    });
  });

  it("A11 krealloc stays in place up to ksize, zeroing what is behind if asked, and moves beyond", () => {
    run(() => {
      const object = kmalloc(55, GFP_KERNEL);
      ram_fill(object, 0xff, 56);
      expect(krealloc(object, 40, GFP_KERNEL | __GFP_ZERO)).toBe(object);
      expect(ram8[object + 39]).toBe(0xff);
      expect(ram8.subarray(object + 40, object + 56).every((byte) => byte === 0)).toBe(true);
      const moved = krealloc(object, 57, GFP_KERNEL);
      expect([moved === object, ram8[moved + 39]]).toEqual([false, 0xff]);
      kfree(moved);
    });
  });

  it("mem_dump_obj says that it lies in SLOB's pages, and no more", () => {
    run(() => {
      const [small, large] = [kmalloc(100, GFP_KERNEL), kmalloc(5000, GFP_KERNEL)];
      expect([small, small + 50, large].map(kmem_dump_obj)).toEqual([" slab", " slab", ""]);
      [small, large].forEach(kfree);
    });
  });

  it("bulk frees blocks of all sizes at once, whole pages too", () => {
    run(() => {
      const cache = kmem_cache_create("bulk", 200, 0, 0, null);
      const objects: Obj[] = [];
      expect(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 100, objects)).toBe(100);
      expect([new Set(objects).size, get_slabinfo(cache).live_objs]).toEqual([100, 100]);
      kmem_cache_free_bulk(cache, 100, objects);
      const mixed = [10, 5000, 300, 2000, 40000, 1].map((size) => kmalloc(size, GFP_KERNEL));
      kmem_cache_free_bulk(NULL, mixed.length, mixed);
      kmem_cache_destroy(cache);
    });
  });

  it("fails where it is told to, and kfree_rcu finds the block around the head", () => {
    run(() => {
      set_fail_nth(1);
      expect(kmalloc(100, GFP_KERNEL)).toBe(NULL);
      set_fail_nth(2); // the second is the page
      expect(kmalloc(100, GFP_KERNEL)).toBe(NULL);
      const object = kmalloc(100, GFP_KERNEL);
      kfree_rcu(object, 64);
      expect(units_left(object)).toBe(1994);
      rcu_barrier();
      expect(nr_pages()).toBe(0);
    });
  });
});

describe("slob: caches", () => {
  it("objects of all caches and of kmalloc share a page, without headers and slots", () => {
    run(() => {
      const small = kmem_cache_create("small", 20, 0, 0, null);
      const lines = kmem_cache_create("lines", 40, 0, SLAB_HWCACHE_ALIGN, null);
      const a = kmem_cache_alloc(small, GFP_KERNEL);
      const P = start_of(a); // both descriptors lie there too: 208 bytes each
      expect(a).toBe(P + 416);
      expect(kmem_cache_alloc(lines, GFP_KERNEL)).toBe(P + 448); // aligned to 64
      expect(kmalloc(16, GFP_KERNEL)).toBe(P + 496); // in front of it there are 12 bytes free, from 436 on
      kfree(P + 496);
      kmem_cache_free(lines, P + 448);
      kmem_cache_free(small, a);
      [small, lines].forEach(kmem_cache_destroy);
    });
  });

  it("A31 a fresh cache has no object and no page; where none has room, the first takes one of the page allocator's", () => {
    run(() => {
      const cache = kmem_cache_create("fresh", 2000, 0, 0, null);
      const taken = (): number[] => [get_slabinfo(cache).live_objs, nr_pages(), lists()["large"] ?? 0, global_node_page_state(NR_SLAB_UNRECLAIMABLE) - before]; // prettier-ignore
      const before = global_node_page_state(NR_SLAB_UNRECLAIMABLE);
      expect(taken()).toEqual([0, 1, 0, 0]); // the descriptor's page
      const objects = [kmem_cache_alloc(cache, GFP_KERNEL), kmem_cache_alloc(cache, GFP_KERNEL)];
      expect(taken()).toEqual([2, 2, 1, 1]);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });

  it("objects of a page and more are whole pages", () => {
    run(() => {
      const caches = [4095, 4096, 5000, 20000].map((size) => kmem_cache_create(`s${size}`, size, 0, 0, null));
      const pages = (): number => global_node_page_state(NR_SLAB_UNRECLAIMABLE);
      const before = pages();
      const objects = caches.map((cache) => kmem_cache_zalloc(cache, GFP_KERNEL));
      expect([pages() - before, nr_pages()]).toEqual([1 + 1 + 2 + 8, 2]); // the descriptors' page, and 4095
      expect(objects.map((object) => object % PAGE_SIZE)).toEqual([0, 0, 0, 0]);
      expect(ram8.subarray(objects[3]!, objects[3]! + 20000).every((byte) => byte === 0)).toBe(true);
      for (const [i, cache] of caches.entries()) kmem_cache_free(cache, objects[i]!);
      expect(pages()).toBe(before);
      caches.forEach(kmem_cache_destroy);
    });
  });

  it("A37 a constructor runs at every allocation, after zeroing, which is warned of once", () => {
    run(() => {
      let calls = 0;
      const ctor = (object: Obj): void => {
        calls++;
        ram32[object >> 2] = 0x41414141;
      };
      for (const size of [8, 100, 1000, 4096]) {
        const cache = kmem_cache_create("ctor", size, 0, 0, ctor);
        calls = 0;
        for (let round = 1; round <= 10; round++) {
          const object = kmem_cache_alloc(cache, GFP_KERNEL);
          expect([calls, ram32[object >> 2]]).toEqual([round, 0x41414141]);
          ram_fill(object, 0xdd, size);
          kmem_cache_free(cache, object);
        }
        kmem_cache_free(cache, kmem_cache_zalloc(cache, GFP_KERNEL));
        kmem_cache_destroy(cache);
      }
      const said = [...printk_records()].filter(({ text }) => text.includes("a constructor"));
      expect(said.map(({ text }) => text)).toEqual(["WARNING: ctor: __GFP_ZERO and a constructor"]);
    });
  });

  it("A39 an object of a SLAB_TYPESAFE_BY_RCU cache keeps its bytes and its place until readers are gone", () => {
    run(() => {
      for (const [size, block] of [
        [100, 128],
        [40, 64],
        [5000, 5024],
      ] as const) {
        // prettier-ignore
        const cache = kmem_cache_create("rcu", size, 0, SLAB_TYPESAFE_BY_RCU, null);
        expect(KmemCache.size.get(cache)).toBe(block); // rounded up to 8, and a footer of 24
        const object = kmem_cache_alloc(cache, GFP_KERNEL);
        ram_fill(object, 0x5a, size);
        rcu_read_lock();
        kmem_cache_free(cache, object);
        expect(get_slabinfo(cache).live_objs).toBe(0);
        const other = kmem_cache_alloc(cache, GFP_KERNEL);
        expect(other).not.toBe(object);
        kmem_cache_free(cache, other);
        expect(ram8.subarray(object, object + size).every((byte) => byte === 0x5a)).toBe(true);
        expect(validate_mm()).toEqual([]);
        rcu_read_unlock();
        rcu_barrier();
        const again = kmem_cache_zalloc(cache, GFP_KERNEL);
        expect([again, ram8[again]]).toEqual([size < PAGE_SIZE ? object : other, 0]);
        kmem_cache_free(cache, again);
        kmem_cache_destroy(cache);
      }
    });
  });

  it("nothing is shrunk, merged or missed: a cache goes silently, and what it had is lost", () => {
    run(() => {
      const cache = kmem_cache_create("gone", 72, 0, 0, null);
      const other = kmem_cache_create("other", 72, 0, 0, null);
      expect(other).not.toBe(cache);
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      expect(get_slabinfo(cache)).toMatchObject({ live_objs: 1, num_slabs: 0 });
      expect(kmem_cache_shrink(cache)).toBe(0);
      const lost = slob_data.lost_units;
      const records = [...printk_records()].length;
      kmem_cache_destroy(cache);
      expect([[...printk_records()].length - records, find_cache("gone")]).toEqual([0, NULL]);
      expect([validate_mm(), slob_data.lost_units - lost]).toEqual([[], 36]);
      slob_free(object, 72);
      slob_data.lost_units = lost;
      kmem_cache_destroy(other);
    });
  });

  it("refuses an alignment that its pages cannot have", () => {
    run(() => {
      expect(kmem_cache_create("skew", 100, 8192, 0, null)).toBe(NULL);
      const cache = kmem_cache_create("page", 100, 4096, 0, null);
      const objects = [kmem_cache_alloc(cache, GFP_KERNEL), kmem_cache_alloc(cache, GFP_KERNEL)];
      expect(objects.map((object) => object % PAGE_SIZE)).toEqual([0, 0]);
      expect(nr_pages()).toBe(3);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });
});

describe("slob: validate", () => {
  /** What `validate` says while a word of RAM is something else. */
  const broken = (word: number, value: number): string => {
    const was = ram32[word >> 2]!;
    ram32[word >> 2] = value;
    const findings = validate_mm();
    ram32[word >> 2] = was;
    return findings.join("\n");
  };

  it("finds wrong counts, chains that do not ascend, blocks that touch, and pages on the wrong lists", () => {
    run(() => {
      const objects = [96, 96, 96, 96, 1500].map((size) => kmalloc(size, GFP_KERNEL)) as [Obj, Obj, Obj, Obj, Obj];
      const P = start_of(objects[0]);
      const page = page_of(P);
      kfree(objects[1]);
      expect(holes(P)).toEqual([[104, 208], [416, 4096]]); // prettier-ignore
      const block = (units: number, next: number): number => (next << 16) | units;
      expect(broken(P + 104, block(52, 50))).toContain("says 1892 units are free, its blocks make 52");
      expect(broken(P + 104, block(156, 208))).toContain("has a free block at unit 208 that touches the one before");
      expect(broken(P + 416, block(1900, 2048))).toContain("has a free block that ends at unit 2108");
      expect(broken(SlobPage.units.at(page), 0)).toContain("has 0 units free and is on small list");
      expect(broken(SlobPage.units.at(page), 2048)).toContain("has 2048 units free and was not given back");
      expect(broken(SlobPage.slab_cache.at(page), slab_data.kmem_cache)).toContain("belongs to a cache");
      expect(broken(SlobPage.slab_list.at(page), SlobPage.slab_list.at(page_of(objects[4])))).toContain(
        "list small does not",
      );
      expect(broken(slob_data.free_slob_medium, SlobPage.slab_list.at(page))).toContain(
        "is on the lists small and medium",
      );
      expect(broken(slob_data.free_slob_small, slob_data.free_slob_small)).toContain("is on no list");
      expect(broken(slob_data.$at("nr_pages"), 0)).toContain(`0 pages counted, ${old.size + 2} found`);
      expect(broken(P, 0)).toBe(""); // a header in use is its owner's business
      expect(broken(slob_data.$at("kmalloc_units"), 3)).toContain("units are in use, ");
      objects.forEach((object, i) => i !== 1 && kfree(object));
    });
  });
});
