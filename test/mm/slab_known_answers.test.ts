/**
 * What a real Linux 6.18 machine (2 CPUs, 1 node) says of its caches, and what ours do: the figures, and the slabs
 * themselves, filled and measured by address.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { fail_page_alloc, set_fault_attr } from "../../mm/fault_inject.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import {
  compound_head,
  page_address,
  page_to_pfn,
  pfn_to_page,
  virt_to_head_page,
  virt_to_page,
} from "../../mm/page.ts";
import {
  KmemCache, find_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free,
  oo_objects, oo_order, type CachePtr, type KmemCacheArgs,
} from "../../mm/slab_common.ts"; // prettier-ignore
import {
  SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_HWCACHE_ALIGN, SLAB_NO_MERGE, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU,
} from "../../mm/slab_layout.ts"; // prettier-ignore
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../../mm/vmstat.ts";
import { ls, text_of, with_files } from "../kernel/fs/files.ts";
import { with_machine } from "../lib/machine.ts";
import { counters } from "./slab_counters.ts";

/** The machine that the answers were read off, in small. */
function machine_of(cpus: number): MachineSpec {
  const made = machine_from_options({ mem: "40M", nodes: "1", cpus: String(cpus) });
  if (typeof made === "string") throw new Error(made);
  return { ...made, append: PRESETS.textbook!.append };
}

const ctor = (): void => {};
ksym("known_answers_ctor", ctor);

/** What a creator asked for, and what came of it. */
interface Row {
  readonly name: string;
  readonly size: number;
  readonly args: KmemCacheArgs;
  readonly flags: number;
  readonly answer: {
    size: number;
    align: number;
    order: number;
    objects: number;
    min_partial: number;
    cpu_partial: number;
  };
}

const figures_of = (cache: CachePtr): Row["answer"] => ({
  size: KmemCache.size.get(cache),
  align: KmemCache.align.get(cache),
  order: oo_order(KmemCache.oo.get(cache)),
  objects: oo_objects(KmemCache.oo.get(cache)),
  min_partial: KmemCache.min_partial.get(cache),
  cpu_partial: KmemCache.cpu_partial.get(cache),
});

/** Every row of slab-geometry.tsv. */
function geometry(): Row[] {
  const text = readFileSync(new URL("../data/slab-geometry.tsv", import.meta.url), "utf8").trim();
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  const names = lines[0]!.split("\t");
  return lines.slice(1).map((line) => {
    const values = Object.fromEntries(line.split("\t").map((value, i) => [names[i]!, value]));
    const n = (name: string): number => Number(values[name]);
    const rcu = n("destroy_by_rcu") === 1;
    // A cache with RCU whose slot is no larger than its object asked for a place of the free pointer in the object.
    const inside = rcu && n("slab_size") === n("object_size");
    return {
      name: values["names"]!.slice(0, 40).replace(/[ ,].*/, ""),
      size: n("object_size"),
      args: {
        align: n("align"),
        usersize: n("usersize"),
        sheaf_capacity: n("sheaf_capacity"),
        ...(inside ? { freeptr_offset: 0 } : {}),
        ctor: n("has_ctor") ? ctor : null,
      },
      flags:
        (n("hwcache_align") && SLAB_HWCACHE_ALIGN) |
        (n("reclaim_account") && SLAB_RECLAIM_ACCOUNT) |
        (rcu ? SLAB_TYPESAFE_BY_RCU : 0) |
        (n("cache_dma") && SLAB_CACHE_DMA),
      answer: {
        size: n("slab_size"),
        align: n("align"),
        order: n("order"),
        objects: n("objs_per_slab"),
        min_partial: n("min_partial"),
        cpu_partial: n("cpu_partial"),
      },
    };
  });
}

/** What filling slabs shows, by address alone: the step between neighbours, objects and pages of a full slab. */
function measure(objects: Obj[]): { stride: number | undefined; objects: number; pages: number } {
  const by_slab = new Map<number, Obj[]>();
  for (const object of objects) {
    const slab = virt_to_head_page(object);
    by_slab.set(slab, [...(by_slab.get(slab) ?? []), object]);
  }
  const [slab, full] = [...by_slab].reduce((a, b) => (b[1].length > a[1].length ? b : a));
  const sorted = full.sort((a, b) => a - b);
  const steps = new Set(sorted.slice(1).map((object, i) => object - sorted[i]!));
  expect(steps.size).toBeLessThanOrEqual(1);
  let pages = 1;
  while (compound_head(pfn_to_page(page_to_pfn(slab) + pages)) === slab) pages++;
  for (const object of sorted) expect(compound_head(virt_to_page(object))).toBe(slab);
  expect(sorted[0]! - page_address(slab)).toBeGreaterThanOrEqual(0);
  return { stride: [...steps][0], objects: sorted.length, pages };
}

const slab_pages = (): number =>
  global_node_page_state(NR_SLAB_RECLAIMABLE) + global_node_page_state(NR_SLAB_UNRECLAIMABLE);

describe.each([
  ["ascending lists", ""],
  ["random and hardened lists", "slab_freelist_random=on slab_freelist_hardened=on slab_full=off"],
])("A19 %s", (_name, append) => {
  it("every row of slab-geometry.tsv has the real figures, and its slabs have them by address", () => {
    with_machine({ machine: machine_of(2), append }, () => {
      const rows = geometry();
      expect(rows.length).toBe(118);
      for (const { name, size, args, flags, answer } of rows) {
        const cache = kmem_cache_create(`row_${name}`.slice(0, 60), size, args, flags | SLAB_NO_MERGE);
        expect({ name, ...figures_of(cache) }).toEqual({ name, ...answer });
        const pages = slab_pages();
        const count = 3 * answer.objects + 2 * (args.sheaf_capacity ?? 0);
        const objects = Array.from({ length: count }, () => kmem_cache_alloc(cache, GFP_KERNEL));
        const found = measure(objects);
        expect({ name, ...found }).toEqual({
          name,
          stride: answer.objects > 1 ? answer.size : undefined,
          objects: answer.objects,
          pages: 1 << answer.order,
        });
        if (!args.sheaf_capacity) expect(slab_pages() - pages).toBe(3 << answer.order); // sheaves take pages of their own
        for (const object of objects) {
          expect((object - page_address(virt_to_head_page(object))) % answer.size).toBe(0);
          expect(object % KmemCache.align.get(cache)).toBe(0);
          kmem_cache_free(cache, object);
        }
        kmem_cache_destroy(cache);
      }
    });
  });
});

// cache | sysfs | object_size slab_size align order objects min_partial cpu_partial hwcache reclaim | inputs:
// r TYPESAFE_BY_RCU, c constructor, u usersize, d DMA, s sheaf, f a place for the free pointer, e explicit align
const KNOWN = `
AF_VSOCK|:A-0001280|1240 1280 64 2 12 5 24 1 0|
MPTCP|same|1936 1984 64 3 16 5 24 1 0|r
RAWv6|same|1344 1344 64 2 12 5 24 1 0|u
TCPv6|same|2432 2496 64 3 13 5 24 1 0|r
UDPv6|:A-0001472|1472 1472 64 3 22 5 24 1 0|
anon_vma_chain|:A-0000064|64 64 8 0 64 5 120 0 0|
bfilp|same|208 256 64 0 16 5 52 1 0|r
bio-120|same|120 128 64 0 32 5 120 1 0|r
bio-312|same|312 320 64 0 12 5 52 1 0|r
bio-392|same|392 448 64 1 18 5 52 1 0|r
bio_post_read_ctx|:a-0000048|48 48 8 0 85 5 120 0 1|
biovec-max|:0004096|4096 4096 64 3 8 6 6 1 0|
btrfs_delayed_node|:0000312|312 312 8 0 13 5 52 0 0|
btrfs_free_space|:0000104|104 104 8 0 39 5 120 0 0|
btrfs_ordered_extent|:0000416|416 416 8 1 19 5 52 0 0|
dax_cache|same|760 768 64 2 21 5 52 1 1|c
dentry|same|192 192 8 0 21 5 120 0 1|u
dma-kmalloc-16|same|16 16 16 0 256 5 120 0 0|ud
dma-kmalloc-8k|same|8192 8192 8192 3 4 6 6 0 0|ud
dquot|:a-0000256|208 256 64 0 16 5 52 1 1|
erofs_inode|same|688 696 8 2 23 5 52 0 1|c
erofs_pcluster-128|:a-0002168|2168 2168 8 3 15 5 24 0 1|
erofs_pcluster-257|:a-0004232|4232 4232 8 3 7 6 6 0 1|
erofs_pcluster-64|:a-0001144|1144 1144 8 2 14 5 24 0 1|
extent_status|:a-0000040|40 40 8 0 102 5 120 0 1|
file_lease_cache|:0000160|160 160 8 0 25 5 120 0 0|
files_cache|:A-0000704|704 704 64 2 23 5 52 1 0|
fuse_inode|same|848 896 64 2 18 5 52 1 1|c
hugetlbfs_inode_cache|same|624 632 8 2 25 5 52 0 0|c
ip4-frags|:0000200|200 200 8 0 20 5 120 0 0|
kioctx|:0000576|576 576 64 1 14 5 52 1 0|
kmalloc-1k|same|1024 1024 1024 2 16 5 24 0 0|u
kmalloc-64|same|64 64 64 0 64 5 120 0 0|u
kmalloc-cg-8|same|8 8 8 0 512 5 120 0 0|u
kmalloc-cg-96|same|96 96 32 0 42 5 120 0 0|u
kmem_cache_node|same|72 128 64 0 32 5 120 1 0|
kvm_vcpu|same|51472 51472 16 4 1 7 6 0 0|ue
mm_struct|same|1568 1600 64 3 20 5 24 1 0|u
mqueue_inode_cache|same|936 960 64 2 17 5 52 1 0|c
perf_event|:0001352|1352 1352 8 2 12 5 24 0 0|
pidfs_xattr_cache|:aA-0000016|16 16 16 0 256 5 120 1 1|
radix_tree_node|same|576 584 8 1 14 5 52 0 1|c
request_sock_TCP|same|312 320 8 0 12 5 52 0 0|r
sock_inode_cache|same|768 832 64 2 19 5 52 1 1|c
task_struct|same|5824 5824 64 3 5 6 6 0 0|ue
vm_area_struct|same|192 192 64 0 21 5 120 1 0|rsf
x86_emulator|same|2672 2672 16 3 12 5 24 0 0|ue
xfs_buf_item|:0000272|272 272 8 0 15 5 52 0 0|`;

interface Known extends Row {
  readonly directory: string;
  readonly hwcache: number;
  readonly reclaim: number;
}

const known: Known[] = KNOWN.trim()
  .split("\n")
  .map((line) => {
    const [name, directory, figures, inputs] = line.split("|") as [string, string, string, string];
    const [object, size, align, order, objects, min_partial, cpu_partial, hwcache, reclaim] = figures.split(" ").map(Number) as [number, number, number, number, number, number, number, number, number]; // prettier-ignore
    const has = (letter: string): boolean => inputs.includes(letter);
    return {
      name,
      directory: directory === "same" ? name : directory,
      size: object,
      args: {
        align: has("e") ? align : 0,
        usersize: has("u") ? object : 0,
        sheaf_capacity: has("s") ? 32 : 0,
        ...(has("f") ? { freeptr_offset: 0 } : {}),
        ctor: has("c") ? ctor : null,
      },
      flags:
        (hwcache ? SLAB_HWCACHE_ALIGN : 0) |
        (reclaim ? SLAB_RECLAIM_ACCOUNT : 0) |
        (has("r") ? SLAB_TYPESAFE_BY_RCU : 0) |
        (has("d") ? SLAB_CACHE_DMA : 0) |
        (directory.includes("A") ? SLAB_ACCOUNT : 0),
      answer: { size, align, order, objects, min_partial, cpu_partial },
      hwcache,
      reclaim,
    };
  });

it("the known answers of a real machine, row by row", () => {
  with_machine({ machine: machine_of(2) }, () => {
    expect(known.length).toBe(48);
    for (const { name, size, args, flags, answer } of known) {
      const boots_own = find_cache(name); // kmem_cache_node, kmalloc-64 and so on are there already
      const cache = boots_own || kmem_cache_create(name, size, args, flags | SLAB_NO_MERGE);
      expect({ name, object: KmemCache.object_size.get(cache), ...figures_of(cache) }).toEqual({ name, object: size, ...answer }); // prettier-ignore
      if (boots_own === NULL) kmem_cache_destroy(cache);
    }
  });
});

it("the same caches in /sys/kernel/slab: directory names and files", () => {
  with_files(
    () => {
      let checked = 0;
      for (const { name, directory, size, args, flags, answer, hwcache, reclaim } of known) {
        // Ours of that name, or one that it would merge with, has its own figures.
        if (find_cache(name) !== NULL || (ls("/sys/kernel/slab") as string[]).includes(directory)) continue;
        checked++;
        const cache = kmem_cache_create(name, size, args, flags);
        expect(ls("/sys/kernel/slab"), name).toContain(directory);
        expect(ls("/sys/kernel/slab"), name).toContain(name);
        const read = (file: string): number => Number(text_of(`/sys/kernel/slab/${name}/${file}`));
        const files = [
          read("slab_size"),
          read("order"),
          read("objs_per_slab"),
          read("min_partial"),
          read("cpu_partial"),
        ];
        expect([name, ...files]).toEqual([name, answer.size, answer.order, answer.objects, answer.min_partial, answer.cpu_partial]); // prettier-ignore
        expect([read("object_size"), read("align"), read("hwcache_align"), read("reclaim_account")]).toEqual([size, answer.align, hwcache, reclaim]); // prettier-ignore
        kmem_cache_destroy(cache);
      }
      expect(checked).toBeGreaterThan(30);
    },
    { machine: machine_of(2) },
  );
});

it.each(["", "slab_freelist_random=on"])(
  "a slab of the fallback order holds fewer objects, and total_objects says so (%s)",
  (append) => {
    with_machine({ machine: machine_of(2), append }, () => {
      const cache = kmem_cache_create("fallback", 1000, 0, SLAB_NO_MERGE, null);
      set_fault_attr(fail_page_alloc, { probability: 100, times: 1, min_order: 2, ignore_gfp_wait: 0, verbose: 0 });
      const objects = Array.from({ length: 5 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      set_fault_attr(fail_page_alloc, { probability: 0 });
      const offsets = objects.slice(0, 4).map((object) => object % 4096);
      expect(offsets.sort((a, b) => a - b)).toEqual([0, 1000, 2000, 3000]); // whatever the order of larger slabs
      expect(counters(cache)).toMatchObject({ order_fallback: 1, alloc_slab: 2 });
      expect(get_slabinfo(cache)).toMatchObject({
        num_slabs: 2,
        num_objs: 4 + 16,
        objects_per_slab: 16,
        cache_order: 2,
      });
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  },
);
