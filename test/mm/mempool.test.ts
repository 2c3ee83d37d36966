/** mempools: a reserve that is there when memory is not. */
import { expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { ERESTARTSYS, ENOMEM } from "../../kernel/lib/errno.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, __GFP_DIRECT_RECLAIM, __GFP_IO, __GFP_NOMEMALLOC, __GFP_NORETRY, __GFP_NOWARN, __GFP_ZERO } from "../../mm/gfp.ts"; // prettier-ignore
import { ksize } from "../../mm/kmalloc.ts";
import {
  Mempool, mempool_alloc, mempool_create, mempool_create_kmalloc_pool, mempool_create_page_pool,
  mempool_create_slab_pool, mempool_destroy, mempool_free, mempool_kfree, mempool_resize, mempool_set_wake,
} from "../../mm/mempool.ts"; // prettier-ignore
import { get_slabinfo, kmem_cache_create, kmem_cache_destroy } from "../../mm/slab_common.ts";
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { nr_free_pages } from "../../mm/page_alloc.ts";
import { kmalloc } from "../../mm/kmalloc.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";

// An allocator that says yes or no as the test wants, and notes how it was asked.
const below = { dry: false, asked: [] as number[], woken: 0 };
const alloc = ksym("test_mempool_alloc", (gfp: number, size: number) => {
  below.asked.push(gfp);
  return below.dry ? NULL : kmalloc(size, gfp);
});
const wake = ksym("test_mempool_wake", () => void below.woken++);
const pool_of = (min_nr: number): number => {
  Object.assign(below, { dry: false, asked: [], woken: 0 });
  return mempool_create(min_nr, alloc, mempool_kfree, 100);
};

it("keeps its reserve for the time when the allocator has nothing", () => {
  with_machine({}, () => {
    const pool = pool_of(3);
    expect(Mempool.curr_nr.get(pool)).toBe(3);
    const normal = mempool_alloc(pool, GFP_KERNEL);
    expect(Mempool.curr_nr.get(pool)).toBe(3);
    below.dry = true;
    const reserved = [1, 2, 3].map(() => mempool_alloc(pool, GFP_KERNEL));
    expect(new Set([normal, ...reserved]).size).toBe(4);
    expect(mempool_alloc(pool, GFP_ATOMIC)).toBe(NULL);
    expect(mempool_alloc(pool, GFP_KERNEL)).toBe(-ERESTARTSYS);
    expect(Mempool.nr_waits.get(pool)).toBe(1);
    mempool_set_wake(pool, wake);
    mempool_free(reserved[0]!, pool);
    expect(below.woken).toBe(1);
    expect(mempool_alloc(pool, GFP_KERNEL)).toBe(reserved[0]); // a stack
    for (const element of [...reserved, normal, NULL]) mempool_free(element, pool);
    expect([Mempool.curr_nr.get(pool), below.woken]).toEqual([3, 4]);
    mempool_destroy(pool);
  });
});

it("asks first without reclaim and IO, then with the caller's rights, and never warns", () => {
  with_machine({}, () => {
    const pool = pool_of(1);
    below.dry = true;
    below.asked = [];
    const reserved = mempool_alloc(pool, GFP_KERNEL);
    const always = __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
    expect(below.asked).toEqual([(GFP_KERNEL | always) & ~(__GFP_DIRECT_RECLAIM | __GFP_IO)]);
    below.asked = [];
    expect(mempool_alloc(pool, GFP_KERNEL)).toBe(-ERESTARTSYS);
    expect(below.asked).toEqual([(GFP_KERNEL | always) & ~(__GFP_DIRECT_RECLAIM | __GFP_IO), GFP_KERNEL | always]);
    below.asked = [];
    expect(mempool_alloc(pool, GFP_NOWAIT)).toBe(NULL);
    expect(below.asked).toEqual([GFP_NOWAIT | always]);
    mempool_free(reserved, pool);
    below.dry = false;
    mempool_free(mempool_alloc(pool, GFP_KERNEL | __GFP_ZERO), pool);
    expect([...printk_records()].at(-1)!.text).toBe("WARNING: mempool_alloc: __GFP_ZERO is not supported");
    mempool_destroy(pool);
  });
});

it("grows and shrinks its reserve", () => {
  with_machine({}, () => {
    const pool = pool_of(2);
    expect(mempool_resize(pool, 10)).toBe(0);
    expect(Mempool.curr_nr.get(pool)).toBe(10);
    expect(mempool_resize(pool, 4)).toBe(0);
    expect(Mempool.curr_nr.get(pool)).toBe(4);
    below.dry = true;
    expect(mempool_resize(pool, 6)).toBe(0); // stays short, silently
    expect([Mempool.min_nr.get(pool), Mempool.curr_nr.get(pool)]).toEqual([6, 4]);
    set_fail_nth(1);
    expect(mempool_resize(pool, 20)).toBe(-ENOMEM);
    set_fail_nth(0);
    expect(Mempool.min_nr.get(pool)).toBe(6);
    mempool_destroy(pool);
    const none = pool_of(0);
    expect(Mempool.curr_nr.get(none)).toBe(1); // even so
    mempool_destroy(none);
    mempool_destroy(NULL);
  });
});

it("stands on a cache, on kmalloc and on pages", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("pooled", 300, 0, SLAB_NO_MERGE, null);
    const slab_pool = mempool_create_slab_pool(5, cache);
    expect(get_slabinfo(cache).live_objs).toBe(5);
    const kmalloc_pool = mempool_create_kmalloc_pool(5, 1000);
    const free = nr_free_pages();
    const page_pool = mempool_create_page_pool(4, 3);
    expect(free - nr_free_pages()).toBeGreaterThanOrEqual(32);
    const taken: [Obj, number][] = [slab_pool, kmalloc_pool, page_pool].map((pool) => [mempool_alloc(pool, GFP_KERNEL), pool]); // prettier-ignore
    expect(ksize(taken[1]![0])).toBe(1024);
    for (const [element, pool] of taken) mempool_free(element, pool);
    [slab_pool, kmalloc_pool, page_pool].forEach(mempool_destroy);
    kmem_cache_destroy(cache);
  });
});

it("a pool whose reserve cannot be filled is not made, and leaves nothing", () => {
  with_machine({}, () => {
    let refused = 0;
    // A page that fails is no failure of the slab that wants it: it asks once more.
    for (let nth = 1; nth <= 10; nth++) {
      set_fail_nth(nth);
      const pool = mempool_create_kmalloc_pool(4, 2000);
      set_fail_nth(0);
      expect(validate_mm()).toEqual([]);
      if (pool === NULL) refused++;
      else mempool_destroy(pool);
    }
    expect(refused).toBeGreaterThan(4); // the pool, its table, four elements, less those that were healed
  });
});
