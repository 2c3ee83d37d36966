/** SLAB: the contract of every allocator, and what is its own, by the numbers of Linux 6.1. */
import { describe, expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { NSEC_PER_SEC, clock_advance } from "../../hal/clock.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { per_cpu_ptr } from "../../hal/image.ts";
import { machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ram32, ram8, ram_fill } from "../../hal/ram.ts";
import { EINVAL, ENOMEM } from "../../kernel/lib/errno.ts";
import { rcu_barrier } from "../../kernel/lib/rcu.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_ATOMIC, GFP_KERNEL, __GFP_NOWARN } from "../../mm/gfp.ts";
import { kfree_rcu, kvfree_rcu_barrier } from "../../mm/kfree_rcu.ts";
import { page_to_nid, virt_to_page } from "../../mm/page.ts";
import {
  KmemCache, find_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_alloc_node, kmem_cache_create, kmem_cache_destroy,
  kmem_cache_free, kmem_cache_shrink, oo_objects, oo_order, slab_ops, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_LISTS, list_slabs, slabinfo_stats } from "../../mm/slab_check.ts";
import { IN_OBJECT, OFF_SLAB, ON_SLAB } from "../../mm/slab_geometry.ts";
import {
  SLAB_HWCACHE_ALIGN,
  SLAB_NO_MERGE,
  SLAB_POISON,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TYPESAFE_BY_RCU,
} from "../../mm/slab_layout.ts";
import {
  ArrayCache, SlabCache, SlabCpu, SlabNode, SlabPage, alien_array, alien_of, get_node, slab_address, virt_to_slab,
} from "../../mm/slab_page.ts"; // prettier-ignore
import { slabinfo_write } from "../../mm/slab_tune.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine, type TestMachine } from "../lib/machine.ts";
import { describe_slab } from "./slab_contract.ts";

const CLAIMS = { smallest_class: 32, at_once: false };
describe_slab("slab", { append: "slab=slab" }, {}, CLAIMS);
describe_slab("slab, random and hardened lists", { append: "slab=slab slab_freelist_random=on slab_freelist_hardened=on" }, {}, CLAIMS); // prettier-ignore
describe_slab("slab, noaliencache, one colour", { append: "slab=slab noaliencache slab_colour=off" }, {}, { ...CLAIMS, at_once: true }); // prettier-ignore

const HW = SLAB_HWCACHE_ALIGN;
const RA = SLAB_RECLAIM_ACCOUNT;

function one_node(cpus: number): MachineSpec {
  const made = machine_from_options({ mem: "40M", nodes: "1", cpus: String(cpus) });
  if (typeof made === "string") throw new Error(made);
  return made;
}

/** Under SLAB, on two nodes with a CPU each unless `machine` says otherwise. */
function run<T>(fn: () => T, options: TestMachine = {}): T {
  return with_machine({ ...options, append: `slab=slab ${options.append ?? ""}` }, fn);
}

const make = (size: number, flags = 0, align = 0, ctor: ((object: Obj) => void) | null = null): CachePtr =>
  kmem_cache_create("test_cache", size, align, flags | SLAB_NO_MERGE, ctor);
const take = (cache: CachePtr, nr: number): Obj[] => Array.from({ length: nr }, () => kmem_cache_alloc(cache, GFP_KERNEL)); // prettier-ignore
const give = (cache: CachePtr, objects: readonly Obj[]): void => objects.forEach((object) => kmem_cache_free(cache, object)); // prettier-ignore
const avail = (cache: CachePtr, cpu: number): number => ArrayCache.avail.get(SlabCpu.array.at(per_cpu_ptr(SlabCache.cpu_cache.get(cache), cpu))); // prettier-ignore
const node_of = (cache: CachePtr, node: number) => {
  const n = get_node(cache, node);
  const shared = SlabNode.shared.get(n);
  const alien = alien_of(n, 1 - node);
  return {
    shared: shared === NULL ? 0 : ArrayCache.avail.get(shared),
    alien: alien === NULL ? 0 : ArrayCache.avail.get(alien_array(alien)),
    free: SlabNode.free_objects.get(n),
    slabs: SlabNode.total_slabs.get(n),
  };
};
const colour_of = (object: Obj): number => {
  const slab = virt_to_slab(object);
  return SlabPage.s_mem.get(slab) - slab_address(slab);
};

describe("geometry: order, objects, mode, colours, tunables", () => {
  // object_size, flags, align, ctor | slab size, num, order, mode, colour | limit, batchcount, shared
  const rows = `
    16            16 240 0 on-slab   0   120 60 8
    24            24 163 0 on-slab   0   120 60 8
    32 HW         32 124 0 on-slab   0   120 60 8
    40            40  99 0 on-slab   0   120 60 8
    56            56  71 0 on-slab   0   120 60 8
    64 HW         64  64 0 in-object 0   120 60 8
    72            72  56 0 in-object 1   120 60 8
    96 HW        128  32 0 in-object 0   120 60 8
    104 RA       104  39 0 in-object 0   120 60 8
    128 HW       128  32 0 in-object 0   120 60 8
    192 RA       192  21 0 in-object 1   120 60 8
    256 HW       256  16 0 in-object 0   120 60 8
    512 HW       512   8 0 in-object 0    54 27 8
    576 RA ctor  576   7 0 on-slab   0    54 27 8
    608 RA ctor  608   6 0 on-slab   6    54 27 8
    960 HW RA ctor 960 4 0 on-slab   3    54 27 8
    1024 HW     1024   4 0 in-object 0    54 27 8
    2048 HW     2048   2 0 in-object 0    24 12 8
    4096 HW     4096   1 0 in-object 0    24 12 8
    8192 HW     8192   1 1 in-object 0     8  4 0
    5824 align=64 5824 1 1 in-object 37    8  4 0
    512 ctor     512   8 0 off-slab  0    54 27 8
    8             16 240 0 on-slab   0   120 60 8
    1 align=64    64  63 0 on-slab   0   120 60 8
    140000    140000   1 6 in-object 1908  1  1 0`;
  const MODES: Record<number, string> = { [IN_OBJECT]: "in-object", [OFF_SLAB]: "off-slab", [ON_SLAB]: "on-slab" };

  it("of each row of the table", () =>
    run(
      () => {
        for (const row of rows.trim().split("\n")) {
          const words = row.trim().split(/\s+/);
          const [size, ...rest] = words;
          const flags = (rest.includes("HW") ? HW : 0) | (rest.includes("RA") ? RA : 0);
          const align = Number(/align=(\d+)/.exec(row)?.[1] ?? 0);
          const cache = make(Number(size), flags, align, rest.includes("ctor") ? () => {} : null);
          const { limit, batchcount, shared } = get_slabinfo(cache);
          const oo = KmemCache.oo.get(cache);
          const mode = MODES[SlabCache.mode.get(cache)];
          const found = [KmemCache.size.get(cache), oo_objects(oo), oo_order(oo), mode, SlabCache.colour.get(cache), limit, batchcount, shared]; // prettier-ignore
          expect(found.join(" "), row).toBe(words.slice(-8).join(" "));
          kmem_cache_destroy(cache);
        }
      },
      { machine: one_node(2) },
    ));

  it("one CPU has no shared arrays; slab_max_order=0 keeps 5824 bytes, slab_max_order=3 packs 700 better", () => {
    run(() => expect(get_slabinfo(find_cache("kmalloc-64"))).toMatchObject({ limit: 120, shared: 0 }), { machine: one_node(1) }); // prettier-ignore
    const objects = (append: string): string =>
      run(
        () => {
          const cache = make(1500);
          const oo = KmemCache.oo.get(cache);
          kmem_cache_destroy(cache);
          return `${oo_objects(oo)} in order ${oo_order(oo)}`;
        },
        { append },
      );
    expect(["slab_max_order=0", "", "slab_max_order=3"].map(objects)).toEqual(["2 in order 0", "5 in order 1", "5 in order 1"]); // prettier-ignore
  });

  it("kmalloc starts at 32 bytes, and 96 bytes take a slot of 128", () =>
    run(() => {
      expect(find_cache("kmalloc-16")).toBe(NULL);
      expect(KmemCache.size.get(find_cache("kmalloc-96"))).toBe(128);
    }));
});

describe("one CPU's objects through array, shared array and slabs", () => {
  //   256 bytes, 16 a slab, limit 120, batch 60, shared array of 480, free_limit 196; everything on CPU 0
  //                          active  num  active  slabs  shared  CPU 0's
  //                            objs objs   slabs         avail   array
  const SEQUENCE = `
    1 allocation                16   16       1      1       0      15
    1000 allocations          1008 1008      63     63       0       8
    freeing 121 in order      1008 1008      63     63      60      69
    freeing 600               948  1008      60     63     480      68
    freeing 780               768   960      49     60     480      68
    freeing all 1000          588   784      38     49     480     108`;

  it("each column at each step", () =>
    run(
      () => {
        const cache = make(256);
        const figures = (): string => {
          const { active_objs, num_objs, active_slabs, num_slabs, shared_avail } = get_slabinfo(cache);
          expect(validate_mm()).toEqual([]);
          return [active_objs, num_objs, active_slabs, num_slabs, shared_avail, avail(cache, 0)].join(" ");
        };
        const seen: string[] = [];
        const objects = take(cache, 1);
        seen.push(figures());
        objects.push(...take(cache, 999));
        seen.push(figures());
        let freed = 0;
        for (const upto of [121, 600, 780, 1000]) {
          give(cache, objects.slice(freed, upto));
          freed = upto;
          seen.push(figures());
        }
        const wanted = SEQUENCE.trim().split("\n").map((line) => line.trim().split(/\s+/).slice(-6).join(" ")); // prettier-ignore
        expect(seen).toEqual(wanted);
        expect(SlabNode.free_limit.get(get_node(cache, 0))).toBe(196);
        expect(kmem_cache_shrink(cache)).toBe(0);
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("a fresh slab's last object comes first, a freed one next; what was written stays", () =>
    run(() => {
      const cache = make(256);
      const [first, second, third] = take(cache, 3) as [Obj, Obj, Obj];
      const start = slab_address(virt_to_slab(first));
      expect([first, second, third].map((object) => (object - start) / 256)).toEqual([15, 14, 13]);
      ram_fill(second, 0x5a, 256);
      give(cache, [second]);
      expect(take(cache, 1)).toEqual([second]);
      expect(ram8.subarray(second, second + 256).every((byte) => byte === 0x5a)).toBe(true);
      give(cache, [first, second, third]);
      kmem_cache_destroy(cache);
    }));

  it("an array that was idle is filled with 16, one in use with a batch, from one new slab at most", () =>
    run(
      () => {
        const cache = make(128, HW); // 32 a slab
        const objects: Obj[] = [];
        const left = [1, 16, 16, 32].map((nr) => {
          objects.push(...take(cache, nr));
          return avail(cache, 0);
        });
        //  16 of A, the rest of A, all of B, all of C
        expect(left).toEqual([15, 15, 31, 31]);
        give(cache, objects);
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("slabs: of two that empty the later one is at the front of free, and serves again first", () =>
    run(
      () => {
        const cache = make(256);
        expect(slabinfo_write("test_cache 10 10 0")).toBe(0); // free_limit 3 * 10 + 16
        const objects = take(cache, 48);
        const free = (): Obj[] => [...list_slabs(get_node(cache, 0), "slabs_free")].map(slab_address);
        give(cache, objects.slice(0, 42));
        const [a, b] = [0, 16].map((i) => slab_address(virt_to_slab(objects[i]!)));
        expect(free()).toEqual([b, a]);
        give(cache, objects.slice(42));
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("slabs: what comes back goes to the end of partial; the end of free dies first", () =>
    run(
      () => {
        const cache = make(256);
        expect(slabinfo_write("test_cache 1 1 0")).toBe(0); // free_limit 3 * 1 + 16
        const objects = take(cache, 48);
        const slabs = [0, 16, 32].map((i) => virt_to_slab(objects[i]!));
        const name = (slab: number): string => "ABC"[slabs.indexOf(slab)]!;
        const lists = (): string =>
          SLAB_LISTS.map((list) => [...list_slabs(get_node(cache, 0), list)].map(name).join("")).join("|");
        //  partial|full|free; an array of one: each free pushes the one before it out
        const seen = [lists()];
        const step = (act: () => void): void => {
          act();
          seen.push(lists());
        };
        step(() => give(cache, [objects[0]!, objects[16]!])); // A's comes back
        step(() => give(cache, [objects[32]!])); // B's
        step(() => give(cache, [objects[1]!])); // C's
        step(() => give(cache, [objects[2]!])); // A's again
        step(() => give(cache, take(cache, 2))); // the one in the array, then B's: B is full
        step(() => give(cache, [...objects.slice(3, 16), objects[33]!])); // A empties
        step(() => give(cache, [...objects.slice(17, 32), objects[34]!])); // B too: too much is free, so A goes
        expect(seen).toEqual(["|CBA|", "A|CB|", "AB|C|", "ABC||", "BCA||", "CA|B|", "CB||A", "C||B"]);
        give(cache, objects.slice(35));
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("constructors run once an object, in address order", () =>
    run(() => {
      const built: Obj[] = [];
      const cache = make(512, 0, 0, (object) => void built.push(object));
      const objects = take(cache, 8);
      give(cache, objects);
      take(cache, 8);
      expect(built).toEqual([...objects].sort((a, b) => a - b));
      give(cache, objects);
      kmem_cache_destroy(cache);
    }));
});

describe("colours", () => {
  it("run 1, 2, … c-1, 0, 1, … from slab to slab; with one colour all start at 0", () =>
    run(() => {
      const cache = make(608, RA, 0, () => {});
      const objects = take(cache, 8 * 6);
      const starts = new Map(objects.map((object) => [virt_to_slab(object), colour_of(object)]));
      expect([...starts.values()]).toEqual([64, 128, 192, 256, 320, 0, 64, 128]);
      give(cache, objects);
      kmem_cache_destroy(cache);
      const plain = make(192, RA);
      const others = take(plain, 3 * 21);
      expect(others.every((object) => colour_of(object) === 0)).toBe(true);
      give(plain, others);
      kmem_cache_destroy(plain);
    }));

  it("slab_colour=off turns them off", () =>
    run(
      () => {
        const cache = make(608, RA, 0, () => {});
        const objects = take(cache, 18);
        expect(objects.every((object) => colour_of(object) === 0)).toBe(true);
        give(cache, objects);
        kmem_cache_destroy(cache);
      },
      { append: "slab_colour=off" },
    ));

  it("kfree_rcu finds the object in a coloured slab", () =>
    run(() => {
      const cache = make(608, RA);
      const objects = take(cache, 12);
      expect(objects.some((object) => colour_of(object) > 0)).toBe(true);
      for (const object of objects) kfree_rcu(object, 16);
      kvfree_rcu_barrier();
      expect(get_slabinfo(cache).live_objs).toBe(0);
      kmem_cache_destroy(cache);
    }));
});

describe("index arrays", () => {
  it("of a slab that was full, the object freed first holds the array, and is the last to go again", () =>
    run(
      () => {
        const cache = make(2048); // 2 a slab
        const [a, b] = take(cache, 2) as [Obj, Obj];
        const slab = virt_to_slab(a);
        expect(SlabPage.freelist.get(slab)).toBe(NULL);
        give(cache, [b, a]);
        kmem_cache_shrink(cache);
        const again = take(cache, 1)[0]!;
        expect(get_slabinfo(cache)).toMatchObject({ num_slabs: 1, live_objs: 1 });
        give(cache, [again]);
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("off the slab are blocks of kmalloc", () =>
    run(() => {
      const arrays = (): number => get_slabinfo(find_cache("kmalloc-32")).live_objs;
      const at_first = arrays();
      const cache = make(512, 0, 0, () => {});
      const before = arrays();
      const objects = take(cache, 20);
      expect(arrays()).toBe(before + get_slabinfo(cache).num_slabs);
      give(cache, objects);
      kmem_cache_destroy(cache);
      expect(arrays()).toBe(at_first);
    }));

  it("slab_freelist_random gives each slab another order of the same permutation", () =>
    run(
      () => {
        const cache = make(128, HW);
        const objects = take(cache, 128);
        const orders = [0, 1, 2, 3].map((slab) =>
          objects.slice(slab * 32, slab * 32 + 32).map((object) => (object - slab_address(virt_to_slab(object))) >> 7),
        );
        for (const order of orders) expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 32 }, (_, i) => i)); // prettier-ignore
        expect(new Set(orders.map(String)).size).toBeGreaterThan(1);
        give(cache, objects);
        kmem_cache_destroy(cache);
      },
      { append: "slab_freelist_random=on", machine: one_node(2) },
    ));
});

describe("two nodes", () => {
  it("an object of another node waits in the alien array, of 12; the 13th sends them to the shared array there", () =>
    run(() => {
      const cache = make(256);
      const objects = Array.from({ length: 30 }, () => kmem_cache_alloc_node(cache, GFP_KERNEL, 1));
      expect(objects.every((object) => page_to_nid(virt_to_page(object)) === 1)).toBe(true);
      expect([avail(cache, 0), avail(cache, 1)]).toEqual([0, 0]); // past the arrays
      give(cache, objects.slice(0, 12));
      expect([node_of(cache, 0).alien, node_of(cache, 1)]).toEqual([12, { shared: 0, alien: 0, free: 2, slabs: 2 }]);
      give(cache, objects.slice(12, 13));
      expect([node_of(cache, 0).alien, node_of(cache, 1)]).toEqual([1, { shared: 12, alien: 0, free: 2, slabs: 2 }]);
      const other = on_cpu(1, () => take(cache, 1)); // CPU 1 finds them
      expect(other[0]).toBe(objects[11]);
      expect(node_of(cache, 1).shared).toBe(0);
      give(cache, [...objects.slice(13), ...other]);
      expect(get_slabinfo(cache).live_objs).toBe(0);
      kmem_cache_destroy(cache);
    }));

  it("what the shared array there has no room for goes to the slabs", () =>
    run(() => {
      const cache = make(256);
      const name = KmemCache.name.get(cache);
      expect(slabinfo_write(`${name} 120 60 0`)).toBe(0);
      const objects = Array.from({ length: 13 }, () => kmem_cache_alloc_node(cache, GFP_KERNEL, 1));
      give(cache, objects);
      expect([node_of(cache, 0).alien, node_of(cache, 1).free]).toEqual([1, 15]);
      kmem_cache_destroy(cache);
    }));

  it("with noaliencache it goes to its slab at once", () =>
    run(
      () => {
        const cache = make(256);
        give(cache, [kmem_cache_alloc_node(cache, GFP_KERNEL, 1)]);
        expect([node_of(cache, 0).alien, node_of(cache, 1)]).toEqual([0, { shared: 0, alien: 0, free: 16, slabs: 1 }]);
        expect(avail(cache, 0)).toBe(0);
        kmem_cache_destroy(cache);
      },
      { append: "noaliencache" },
    ));

  it("A81 out of memory, an object in an alien array helps nobody until it is reaped", () =>
    run(() => {
      const cache = make(4096, HW, 4096);
      const objects: Obj[] = [];
      for (let object; (object = kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)) !== NULL;) objects.push(object);
      const last = objects.pop()!;
      expect(page_to_nid(virt_to_page(last))).toBe(1);
      kmem_cache_free(cache, last);
      expect(node_of(cache, 0).alien).toBe(1);
      expect(kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)).toBe(NULL);
      slab_ops().reap!(); // CPU 0: to the shared array of node 1
      expect(on_cpu(1, () => kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN))).toBe(last);
      give(cache, [...objects, last]);
      kmem_cache_destroy(cache);
    }));
});

describe("reaping", () => {
  it("a touched array is spared once, then loses a fifth of its limit a round, half of what is less", () =>
    run(
      () => {
        const cache = make(256);
        give(cache, take(cache, 119)); // 9 were left in the array; the 112th freed sent 60 to the shared array
        const rounds = Array.from({ length: 8 }, () => {
          slab_ops().reap!();
          return avail(cache, 0);
        });
        expect(rounds).toEqual([68, 44, 20, 10, 5, 2, 1, 0]);
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));

  it("every four seconds free slabs go, some at a time, unless one was used since", () =>
    run(
      () => {
        const cache = make(1024, HW); // 4 a slab, limit 54, batch 27: free_limit 3 * 27 + 4 = 85
        const objects = take(cache, 400);
        give(cache, objects);
        kmem_cache_free(cache, take(cache, 1)[0]!);
        const slabs: number[] = [];
        for (let second = 0; second < 60; second += 2) {
          clock_advance(2 * NSEC_PER_SEC);
          slab_ops().reap!();
          slabs.push(get_slabinfo(cache).num_slabs);
        }
        expect(slabs[0]).toBe(get_slabinfo(cache).num_slabs + slabs[0]! - slabs.at(-1)!);
        for (const [i, now] of slabs.entries()) if (i > 0) expect(slabs[i - 1]! - now).toBeLessThanOrEqual(27);
        expect([slabs.at(-1), avail(cache, 0), node_of(cache, 0).shared]).toEqual([0, 0, 0]);
        kmem_cache_destroy(cache);
      },
      { machine: one_node(2) },
    ));
});

describe("tunables", () => {
  it("take limit, batchcount and shared factor; the arrays are emptied and made anew", () =>
    run(() => {
      const cache = make(256);
      const objects = take(cache, 40);
      give(cache, objects.slice(0, 20));
      expect(slabinfo_write("test_cache 4 2 1\n")).toBe(0);
      expect(get_slabinfo(cache)).toMatchObject({ limit: 4, batchcount: 2, shared: 1, live_objs: 20 });
      expect([avail(cache, 0), node_of(cache, 0).shared]).toEqual([0, 0]);
      give(cache, objects.slice(20));
      expect([avail(cache, 0), node_of(cache, 0).shared]).toEqual([4, 2]);
      kmem_cache_destroy(cache);
    }));

  it("refuse what is no line of four, an unknown name, and arrays that no CPU has room for; the senseless does nothing", () =>
    run(() => {
      const cache = make(256);
      const before = get_slabinfo(cache);
      for (const text of [
        "",
        "test_cache",
        "test_cache 4 2",
        "test_cache 4 2 x",
        "no_cache 4 2 1",
        `test_cache 4 2 1${" ".repeat(128)}`,
      ])
        // prettier-ignore
        expect(slabinfo_write(text), text).toBe(-EINVAL);
      for (const text of ["test_cache 0 1 1", "test_cache 4 0 1", "test_cache 4 5 1", "test_cache 4 2 -1"])
        expect(slabinfo_write(text), text).toBe(0);
      for (const text of ["test_cache 9000 1 1", "test_cache 999999999999 1 0", "test_cache 100 100 1000000000"])
        expect(slabinfo_write(text), text).toBe(-ENOMEM);
      expect(get_slabinfo(cache)).toEqual(before);
      kmem_cache_destroy(cache);
    }));

  it("a change that lacks memory for any of its arrays changes nothing", () =>
    run(() => {
      const cache = make(256);
      const objects = take(cache, 40);
      let failed = 0;
      for (const nth of [1, 2, 3, 1, 2, 3]) {
        const before = get_slabinfo(cache);
        set_fail_nth(nth);
        const error = slabinfo_write("test_cache 50 20 4");
        set_fail_nth(0);
        expect(validate_mm()).toEqual([]);
        expect(get_slabinfo(cache)).toMatchObject(error === 0 ? { limit: 50, live_objs: 40 } : before);
        if (error !== 0) failed++;
        expect(slabinfo_write("test_cache 120 60 8")).toBe(0);
      }
      expect(failed).toBeGreaterThanOrEqual(2); // where a page fails, another node's takes its place
      give(cache, objects);
      kmem_cache_destroy(cache);
    }));

  it("statistics count allocations, high mark, growth, other nodes, hits and misses", () =>
    run(
      () => {
        const cache = make(256);
        give(cache, take(cache, 20));
        give(cache, [kmem_cache_alloc_node(cache, GFP_KERNEL, 1)]);
        expect(slabinfo_stats(cache)).toMatch(/^ : globalstat {6}33 {5}33 {5}3 {4}0 {4}0 {4}0 {4}0 {4}1 {4}0 : cpustat {5}18 {6}2 {5}20 {6}0$/); // prettier-ignore
        kmem_cache_destroy(cache);
      },
      { append: "slab_stats=on" },
    ));
});

describe("the rest", () => {
  it("has no checks: flags that ask for them are dropped, and change no size", () =>
    run(() => {
      const cache = make(256, SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER);
      expect([KmemCache.size.get(cache), KmemCache.flags.get(cache) & 0xffff]).toEqual([256, 0]);
      kmem_cache_destroy(cache);
    }));

  it("a further name is given only to a cache that is aligned as strictly", () =>
    run(() => {
      const one = kmem_cache_create("loose", 128, 0, 0, null);
      expect(kmem_cache_create("strict", 128, 128, 0, null)).not.toBe(one);
      expect(kmem_cache_create("loose_too", 128, 8, 0, null)).toBe(one);
      kmem_cache_destroy(find_cache("strict"));
      kmem_cache_destroy(one);
      kmem_cache_destroy(one);
    }));

  it("pages of a SLAB_TYPESAFE_BY_RCU cache go after a grace period", () =>
    run(() => {
      const cache = make(256, SLAB_TYPESAFE_BY_RCU);
      const [object] = take(cache, 1) as [Obj];
      ram32[object >> 2] = 77;
      give(cache, [object]);
      kmem_cache_shrink(cache);
      expect(get_slabinfo(cache).num_slabs).toBe(0);
      expect(SlabPage.slab_cache.get(virt_to_slab(object))).toBe(cache);
      expect(ram32[object >> 2]).toBe(77);
      rcu_barrier();
      kmem_cache_destroy(cache);
    }));

  it("validate finds each kind of damage", () =>
    run(() => {
      const cache = make(256);
      const objects = take(cache, 20);
      give(cache, objects.slice(5, 9));
      const n = get_node(cache, 0);
      const c = SlabCache.cpu_cache.get(cache);
      const ac = SlabCpu.array.at(c);
      const slab = virt_to_slab(objects[19]!);
      const damage = (at: number, value: number, what: RegExp): void => {
        const before = ram32[at >> 2]!;
        ram32[at >> 2] = value;
        expect(validate_mm().join("\n")).toMatch(what);
        ram32[at >> 2] = before;
        expect(validate_mm()).toEqual([]);
      };
      damage(SlabNode.free_objects.at(n), 1, /1 free objects counted/);
      damage(SlabNode.total_slabs.at(n), 9, /9 slabs counted, 2 found/);
      damage(ArrayCache.avail.at(ac), 200, /200 objects, 120 allowed/);
      damage(SlabCpu.sizeof + c, objects[0]! + 8, /is no object/);
      damage(SlabCpu.sizeof + c, ram32[(SlabCpu.sizeof + c + 8) >> 2]!, /is in test_cache: cpu 0 too/);
      damage(SlabPage.active.at(slab), 0, /free objects counted|active is on/);
      give(cache, [...objects.slice(0, 5), ...objects.slice(9)]);
      kmem_cache_destroy(cache);
    }));
});
