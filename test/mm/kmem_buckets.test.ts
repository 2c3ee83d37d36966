/** Sets of size classes of their own: a real machine's caches by name and figures, and who allocates from them. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { NULL, PAGE_SIZE } from "../../hal/addr.ts";
import { PRESETS } from "../../hal/machine.ts";
import { ram8, ram_fill, ram_write_string } from "../../hal/ram.ts";
import { EFAULT, ENOMEM } from "../../kernel/lib/errno.ts";
import { TaskStruct, idle_task, set_current_task } from "../../kernel/task.ts";
import { GFP_KERNEL, __GFP_RECLAIMABLE, __GFP_ZERO } from "../../mm/gfp.ts";
import { bucket_caches, kmem_buckets_alloc, kmem_buckets_create, type BucketsPtr } from "../../mm/kmem_buckets.ts";
import { ZERO_SIZE_PTR, kfree, ksize, virt_to_cache } from "../../mm/kmalloc.ts";
import { memdup_user } from "../../mm/memdup_user.ts";
import {
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_PRIVATE,
  PROT_READ,
  PROT_WRITE,
  do_mmap,
  mm_alloc,
  mmput,
} from "../../mm/mmap.ts";
import {
  KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_destroy, kmem_cache_free, oo_objects, oo_order, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_ACCOUNT } from "../../mm/slab_layout.ts";
import { copy_to_user } from "../../mm/uaccess.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_each_failure } from "../kernel/fs/files.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";

const ON = { append: "slab_buckets=on" };
const data = (name: string): string[] => readFileSync(new URL(`../data/${name}`, import.meta.url), "utf8").split("\n");
const name_of = (cache: CachePtr): string => KmemCache.name.get(cache);
const server = (object: number): string => name_of(virt_to_cache(object));
const caches = (): string[] => [...for_each_cache()].map(name_of);

/** Nobody gives a set up in a running kernel; a test has to. */
function drop(set: BucketsPtr): void {
  for (const cache of bucket_caches(set)) kmem_cache_destroy(cache);
  kmem_cache_free(find_cache("kmalloc_buckets"), set);
}

describe("a set", () => {
  it("has the caches of a real machine: names, windows for programs, alignment, geometry", () => {
    const rows = data("slab-geometry.tsv").filter((row) => /^(memdup_user|msg_msg)-/.test(row));
    expect(rows.length).toBe(13);
    with_machine(ON, () => {
      const sets = [
        kmem_buckets_create("memdup_user", 0, 0, 0x7fffffff),
        kmem_buckets_create("msg_msg", SLAB_ACCOUNT, 48, PAGE_SIZE - 48), // a message has a head of 48 bytes
      ];
      for (const row of rows) {
        const [name, ...figures] = row.split("\t") as [string, ...string[]];
        const cache = find_cache(name);
        const oo = KmemCache.oo.get(cache);
        const ours = [
          KmemCache.object_size.get(cache), KmemCache.align.get(cache), 0, 0, 0, 0, 0, KmemCache.usersize.get(cache), 0,
          KmemCache.size.get(cache), oo_order(oo), oo_objects(oo), KmemCache.cpu_partial.get(cache), KmemCache.min_partial.get(cache),
        ]; // prettier-ignore
        expect([name, ...ours]).toEqual([name, ...figures.map(Number)]);
      }
      expect(KmemCache.useroffset.get(find_cache("msg_msg-256"))).toBe(48);
      expect([...bucket_caches(sets[1]!)].every((cache) => KmemCache.flags.get(cache) & SLAB_ACCOUNT)).toBe(true);
      const real = data("real-proc/slabinfo").map((row) => row.split(" ")[0]!);
      expect(caches().filter((name) => name.startsWith("memdup_user-"))).toEqual(real.filter((name) => name.startsWith("memdup_user-"))); // prettier-ignore
      const [, , , size, per_slab] = data("real-proc/slabinfo").find((row) => row.startsWith("kmalloc_buckets"))!.split(/ +/).map(Number); // prettier-ignore
      const holder = find_cache("kmalloc_buckets");
      expect(get_slabinfo(holder)).toMatchObject({ live_objs: 2, objects_per_slab: per_slab, cache_order: 0 });
      expect([KmemCache.size.get(holder), per_slab]).toEqual([size, 36]);
      sets.forEach(drop);
    });
  });

  it("serves each size from its class, whatever else is asked; nothing and whole pages are kmalloc's", () => {
    with_machine(ON, () => {
      const set = kmem_buckets_create("mine", 0, 0, 0);
      const live = caches().filter((name) => name.startsWith("kmalloc-")).map((name) => get_slabinfo(find_cache(name)).live_objs); // prettier-ignore
      for (const [size, name] of [
        [1, "mine-8"],
        [9, "mine-16"],
        [96, "mine-96"],
        [97, "mine-128"],
        [129, "mine-192"],
        [193, "mine-256"],
        [1025, "mine-2k"],
        [8192, "mine-8k"],
      ] as const)
        for (const gfp of [GFP_KERNEL, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ZERO]) {
          const block = kmem_buckets_alloc(set, size, gfp);
          expect(server(block)).toBe(name);
          ram_fill(block, 0xee, ksize(block));
          kfree(block);
        }
      const zeroed = kmem_buckets_alloc(set, 100, GFP_KERNEL | __GFP_ZERO);
      expect(ram8.subarray(zeroed, zeroed + 128).every((byte) => byte === 0)).toBe(true);
      expect(kmem_buckets_alloc(set, 0, GFP_KERNEL)).toBe(ZERO_SIZE_PTR);
      const large = kmem_buckets_alloc(set, 8193, GFP_KERNEL);
      expect([virt_to_cache(large), ksize(large)]).toEqual([NULL, 16384]);
      expect(caches().filter((name) => name.startsWith("kmalloc-")).map((name) => get_slabinfo(find_cache(name)).live_objs)).toEqual(live); // prettier-ignore
      const plain = kmem_buckets_alloc(NULL, 100, GFP_KERNEL); // a set that could not be made
      expect(server(plain)).toBe("kmalloc-128");
      [zeroed, large, plain].forEach(kfree);
      drop(set);
    });
  });

  it("is made whole or not at all", () => {
    with_machine(ON, () => {
      const before = caches();
      let refused = 0;
      const runs = with_each_failure(
        () => kmem_buckets_create("mine", 0, 0, 0),
        (set) => {
          if (set !== NULL) drop(set);
          else refused++;
          expect(caches()).toEqual(before);
          expect(validate_mm()).toEqual([]);
        },
      );
      expect(runs).toBeGreaterThan(13 * 2); // the set, two nodes a cache; a descriptor is never refused
      expect(refused).toBeGreaterThanOrEqual(13 * 2);
    });
  });

  it("is kmalloc's own caches where there are to be none: by default where lists are not hardened, and under SLAB", () => {
    const boots = (append: string, preset = PRESETS.textbook!): boolean => {
      let sets = false;
      with_machine({ machine: { ...TEST_MACHINE, append: preset.append }, append }, () => {
        sets = find_cache("kmalloc_buckets") !== NULL;
        const set = kmem_buckets_create("mine", 0, 0, 0);
        const block = kmem_buckets_alloc(set, 100, GFP_KERNEL);
        expect([set === ZERO_SIZE_PTR, server(block)]).toEqual(sets ? [false, "mine-128"] : [true, "kmalloc-128"]);
        kfree(block);
        if (sets) drop(set);
      });
      return sets;
    };
    expect(["", "slab_freelist_hardened=on", "slab_freelist_hardened=on slab_buckets=off", "slab_buckets=on", "slab=slab slab_buckets=on"].map((append) => boots(append))).toEqual([false, true, false, true, false]); // prettier-ignore
    expect([PRESETS.laptop!, PRESETS.server!].map((preset) => boots("", preset))).toEqual([true, true]);
  });
});

describe("memdup_user", () => {
  const BASE = 0x400000;
  /** With a program that has one page at BASE. */
  function with_program(append: string, fn: () => void): void {
    with_machine({ until: "kernel", append }, () => {
      const mm = mm_alloc();
      do_mmap(mm, BASE, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
      TaskStruct.mm.set(idle_task(0), mm);
      set_current_task(idle_task(0));
      fn();
      TaskStruct.mm.set(idle_task(0), 0);
      set_current_task(idle_task(0));
      mmput(mm);
    });
  }

  it.each(["slab_buckets=on", "slab_buckets=off"])("copies a program's bytes into a block (%s)", (append) => {
    with_program(append, () => {
      const from = kmem_buckets_alloc(ZERO_SIZE_PTR, 200, GFP_KERNEL);
      ram_write_string(from, "what the program says", 200);
      expect(copy_to_user(BASE + 100, from, 200)).toBe(0);
      const copy = memdup_user(BASE + 100, 200);
      expect(server(copy)).toBe(append.endsWith("on") ? "memdup_user-256" : "kmalloc-256");
      expect(ram8.subarray(copy, copy + 200)).toEqual(ram8.subarray(from, from + 200));
      expect(copy_to_user(BASE, copy, 256)).toBe(0); // all of it may be given back to a program
      expect(memdup_user(BASE, 0)).toBe(ZERO_SIZE_PTR);
      [from, copy].forEach(kfree);
    });
  });

  it("fails where the program has no memory, or the kernel has none, and keeps nothing", () => {
    with_program("slab_buckets=on", () => {
      for (const [from, size] of [[BASE + PAGE_SIZE - 4, 5], [0, 8], [-4096, 8]] as const) expect(memdup_user(from, size)).toBe(-EFAULT); // prettier-ignore
      expect(memdup_user(BASE, 2 ** 30)).toBe(-ENOMEM);
      expect(get_slabinfo(find_cache("memdup_user-8")).live_objs).toBe(0);
    });
  });
});
