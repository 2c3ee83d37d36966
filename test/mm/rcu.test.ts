/** RCU: callbacks after a grace period, and the caches and frees that rest on it. */
import { expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { ram32, ram8, ram_fill } from "../../hal/ram.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { KernelBug } from "../../kernel/lib/bug.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { RcuHead, call_rcu, rcu_barrier, rcu_has_readers, rcu_pending, rcu_read_lock, rcu_read_unlock, synchronize_rcu } from "../../kernel/lib/rcu.ts"; // prettier-ignore
import { GFP_KERNEL, __GFP_ZERO } from "../../mm/gfp.ts";
import { kfree_rcu } from "../../mm/kfree_rcu.ts";
import { kmalloc } from "../../mm/kmalloc.ts";
import { nr_free_pages } from "../../mm/page_alloc.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import {
  get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_shrink, find_cache,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { with_machine } from "../lib/machine.ts";

const heard: Obj[] = [];
const hear = ksym("test_rcu_hear", (head: Obj) => void heard.push(head));

it("callbacks run in the order queued, after the last read section of any CPU", () => {
  with_machine({ until: "kernel" }, () => {
    heard.length = 0;
    const block = kmalloc(3 * RcuHead.sizeof, GFP_KERNEL);
    const heads = [0, 16, 32].map((offset) => block + offset);
    on_cpu(1, rcu_read_lock);
    rcu_read_lock();
    rcu_read_lock();
    for (const head of heads) call_rcu(head, hear);
    rcu_read_unlock();
    rcu_read_unlock();
    expect([rcu_pending(), rcu_has_readers()]).toEqual([3, true]);
    schedule_entries(10); // nobody runs, and no grace period ends while CPU 1 reads
    expect(heard).toEqual([]);
    expect(rcu_barrier).toThrow(KernelBug);
    expect(synchronize_rcu).toThrow(KernelBug);
    on_cpu(1, rcu_read_unlock);
    schedule_entries(10);
    expect(heard).toEqual(heads);
    expect(rcu_pending()).toBe(0);
    expect(rcu_read_unlock).toThrow(KernelBug);
    call_rcu(heads[0]!, hear);
    rcu_barrier();
    expect(heard.length).toBe(4);
    kfree_rcu(block, 8);
  });
});

it("callbacks run between entries of tasks", () => {
  with_machine({ until: "init" }, () => {
    heard.length = 0;
    const block = kmalloc(RcuHead.sizeof, GFP_KERNEL);
    call_rcu(block, hear);
    schedule_entries(3);
    expect(heard).toEqual([block]);
    kfree_rcu(block, 0);
    schedule_entries(3);
    expect(rcu_pending()).toBe(0);
  });
});

it("A39 an object of a SLAB_TYPESAFE_BY_RCU cache that is freed in a read section keeps its bytes until the section ends", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("typesafe", 1000, 0, SLAB_TYPESAFE_BY_RCU, null);
    const objects = Array.from({ length: 40 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    for (const object of objects) ram_fill(object, 0x5b, 1000);
    const slab_pages = global_node_page_state(NR_SLAB_UNRECLAIMABLE);
    rcu_read_lock();
    for (const object of objects) kmem_cache_free(cache, object);
    expect(kmem_cache_shrink(cache)).toBe(0); // every slab is given up, and its pages wait
    expect(get_slabinfo(cache)).toMatchObject({ num_slabs: 0, live_objs: 0 });
    expect(rcu_pending()).toBe(3);
    expect(global_node_page_state(NR_SLAB_UNRECLAIMABLE)).toBe(slab_pages);
    // Whoever asks for memory meanwhile gets other pages.
    const others = Array.from({ length: 40 }, () => kmalloc(4096, GFP_KERNEL));
    for (const other of others) ram_fill(other, 0xee, 4096);
    for (const object of objects)
      expect(ram8.subarray(object, object + 1000).every((byte) => byte === 0x5b)).toBe(true);
    rcu_read_unlock();
    for (const other of others) kfree_rcu(other, 0);
    rcu_barrier();
    drain_all_pages();
    expect(global_node_page_state(NR_SLAB_UNRECLAIMABLE)).toBeLessThan(slab_pages + 40);
    expect(rcu_pending()).toBe(0);
    kmem_cache_destroy(cache);
  });
});

it("A41 an object of such a cache reads as zero if zero is asked for", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("typesafe", 200, 0, SLAB_TYPESAFE_BY_RCU, null);
    const first = kmem_cache_alloc(cache, GFP_KERNEL);
    ram_fill(first, 0xff, 200);
    rcu_read_lock();
    kmem_cache_free(cache, first);
    // The object itself is reusable at once, inside the read section too.
    const again = kmem_cache_alloc(cache, GFP_KERNEL | __GFP_ZERO);
    expect(again).toBe(first);
    expect(ram8.subarray(again, again + 200).every((byte) => byte === 0)).toBe(true);
    rcu_read_unlock();
    kmem_cache_free(cache, again);
    kmem_cache_destroy(cache);
  });
});

it("destroying such a cache waits for its pages", () => {
  with_machine({}, () => {
    drain_all_pages();
    const before = nr_free_pages();
    const cache = kmem_cache_create("typesafe", 4096, 0, SLAB_TYPESAFE_BY_RCU, null);
    const objects = Array.from({ length: 64 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    for (const object of objects) kmem_cache_free(cache, object);
    kmem_cache_destroy(cache);
    drain_all_pages();
    expect([rcu_pending(), nr_free_pages()]).toEqual([0, before]);
  });
});

it("kfree_rcu frees objects of kmalloc, of caches, and large blocks, and ignores NULL", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("plain", 72, 0, SLAB_NO_MERGE, null);
    const small = find_cache("kmalloc-64");
    const live = (): number[] => [get_slabinfo(cache).live_objs, get_slabinfo(small).live_objs];
    const [own, kmallocs] = live() as [number, number];
    kfree_rcu(NULL, 0);
    const objects = [kmem_cache_alloc(cache, GFP_KERNEL), kmalloc(60, GFP_KERNEL), kmalloc(20_000, GFP_KERNEL)];
    for (const object of objects) ram32[(object + 4) >> 2] = object;
    for (const object of objects) kfree_rcu(object, 48);
    expect(live()).toEqual([own + 1, kmallocs + 1]); // still somebody's
    for (const object of objects) expect(ram32[(object + 4) >> 2]).toBe(object);
    rcu_barrier();
    expect(live()).toEqual([own, kmallocs]);
    kmem_cache_destroy(cache);
  });
});

it("a cache is not destroyed before what kfree_rcu holds of it is free", () => {
  with_machine({}, () => {
    const cache = kmem_cache_create("plain", 96, { ctor: null }, 0);
    kfree_rcu(kmem_cache_alloc(cache, GFP_KERNEL), 0);
    kmem_cache_destroy(cache);
    expect(find_cache("plain")).toBe(NULL);
  });
});
