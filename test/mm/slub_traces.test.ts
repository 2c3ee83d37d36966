/** Step traces read off a real 6.18 kernel: every column at every step. */
import { expect, it } from "vitest";
import { NULL, type Obj } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { Slab } from "../../mm/page.ts";
import { KmemCache, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_shrink, type CachePtr } from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { cache_cpus, cache_nodes } from "../../mm/slub_cache.ts";
import { partial_next, partial_slabs } from "../../mm/slub.ts";
import {
  KmemCacheCpu,
  KmemCacheNode,
  STAT_NAMES,
  for_each_slab,
  on_node_partial,
  slab_inuse,
} from "../../mm/slub_slab.ts";
import { list_next } from "../../kernel/lib/list.ts";
import { with_machine } from "../lib/machine.ts";

function machine(cpus: number): MachineSpec {
  const made = machine_from_options({ mem: "40M", nodes: "1", cpus: String(cpus) });
  if (typeof made === "string") throw new Error(made);
  return { ...made, append: PRESETS.textbook!.append };
}

/** What sysfs shows of a cache. */
function sysfs(cache: CachePtr): Record<string, number> {
  const [[, n]] = [...cache_nodes(cache)] as [[number, number]];
  let objects_partial = 0;
  let free_partial = 0;
  for (const slab of for_each_slab(n))
    if (on_node_partial(slab)) {
      objects_partial += slab_inuse(slab);
      free_partial += Slab.objects.get(slab) - slab_inuse(slab);
    }
  let cpu_slabs = 0;
  for (const [, c] of cache_cpus(cache)) if (KmemCacheCpu.page.get(c) !== NULL) cpu_slabs += 1 + cpu_partial(c);
  const total = KmemCacheNode.total_objects.get(n);
  return {
    slabs: KmemCacheNode.nr_slabs.get(n), total, objects: total - free_partial,
    partial: KmemCacheNode.nr_partial.get(n), objects_partial, cpu_slabs,
  }; // prettier-ignore
}

function cpu_partial(c: number): number {
  const list = KmemCacheCpu.partial.get(c);
  return list === NULL ? 0 : partial_slabs(list);
}

function counters(cache: CachePtr): Record<string, number> {
  const sums = STAT_NAMES.map((name, item) => {
    let sum = 0;
    for (const [, c] of cache_cpus(cache)) sum += KmemCacheCpu.stat.get(c, item);
    return [name, sum] as const;
  });
  return Object.fromEntries(sums.filter(([, sum]) => sum !== 0));
}

for (const random of ["off", "on"])
  for (const full of ["on", "off"])
    it(`trace A: 160 objects come and go on CPU 0 (random ${random}, full ${full})`, () => {
      with_machine({ machine: machine(2), append: `slab_freelist_random=${random} slab_full=${full}` }, () => {
        const cache = kmem_cache_create("trace_a", 1024, 0, SLAB_NO_MERGE, null);
        const slab_of = new Map<number, number>(); // slab address -> number in order of birth
        const [[, n]] = [...cache_nodes(cache)] as [[number, number]];
        const name_slabs = (): void => {
          for (const slab of for_each_slab(n)) if (!slab_of.has(slab)) slab_of.set(slab, slab_of.size);
        };
        const per = 16;
        const live: Obj[] = [];
        const alloc = (count: number): Obj[] =>
          Array.from({ length: count }, () => kmem_cache_alloc(cache, GFP_KERNEL));
        live.push(...alloc(10 * per));
        name_slabs();
        expect(sysfs(cache)).toEqual({ slabs: 10, total: 10 * per, objects: 10 * per, partial: 0, objects_partial: 0, cpu_slabs: 1 }); // prettier-ignore
        for (let slab = 0; slab < 9; slab++) kmem_cache_free(cache, live[slab * per]!);
        expect(KmemCache.cpu_partial_slabs.get(cache)).toBe(3);
        const cpu_list = (): number[] => {
          const list: number[] = [];
          for (const [, c] of cache_cpus(cache))
            for (let s = KmemCacheCpu.partial.get(c); s !== NULL; s = partial_next(s)) list.push(slab_of.get(s)!);
          return list;
        };
        const node_list = (): string[] => {
          const list: string[] = [];
          const head = KmemCacheNode.partial.at(n);
          for (let node = list_next(head); node !== head; node = list_next(node)) {
            const slab = node - Slab.slab_list.offset;
            list.push(`${slab_of.get(slab)}:${slab_inuse(slab)}`);
          }
          return list;
        };
        expect(cpu_list()).toEqual([8, 7, 6]);
        expect(node_list()).toEqual(["2:15", "1:15", "0:15", "5:15", "4:15", "3:15"]);
        expect(sysfs(cache)).toEqual({ slabs: 10, total: 160, objects: 154, partial: 6, objects_partial: 90, cpu_slabs: 4 }); // prettier-ignore
        for (let slab = 0; slab < 9; slab++)
          for (let i = 1; i < per; i++) kmem_cache_free(cache, live[slab * per + i]!);
        expect(node_list()).toEqual(["2:0", "5:0", "4:0", "3:0"]);
        expect(sysfs(cache)).toEqual({ slabs: 8, total: 128, objects: 64, partial: 4, objects_partial: 0, cpu_slabs: 4 }); // prettier-ignore
        for (let i = 0; i < per; i++) kmem_cache_free(cache, live[9 * per + i]!);
        expect(sysfs(cache)).toMatchObject({ slabs: 8, objects: 64, partial: 4, cpu_slabs: 4 });
        const twenty = alloc(20);
        expect(twenty.slice(0, 16)).toEqual(live.slice(9 * 16, 10 * 16).reverse());
        expect(cpu_list()).toEqual([7, 6]);
        expect(sysfs(cache)).toMatchObject({ slabs: 8, objects: 64, partial: 4, cpu_slabs: 3 });
        kmem_cache_shrink(cache);
        expect(node_list()).toEqual(["8:4"]);
        expect(sysfs(cache)).toEqual({ slabs: 2, total: 32, objects: 20, partial: 1, objects_partial: 4, cpu_slabs: 0 }); // prettier-ignore
        for (const object of twenty) kmem_cache_free(cache, object);
        expect(cpu_list()).toEqual([9]);
        expect(node_list()).toEqual(["8:0"]);
        expect(sysfs(cache)).toEqual({ slabs: 2, total: 32, objects: 16, partial: 1, objects_partial: 0, cpu_slabs: 0 }); // prettier-ignore
        expect(counters(cache)).toEqual({
          alloc_fastpath: 169, alloc_slowpath: 11, alloc_slab: 10, deactivate_bypass: 10, free_fastpath: 16,
          free_slowpath: 164, cpu_partial_free: 10, cpu_partial_drain: 2, free_add_partial: 6, free_remove_partial: 2,
          free_slab: 4, cpu_partial_alloc: 1, cpuslab_flush: 1, deactivate_to_head: 1, deactivate_empty: 2,
        }); // prettier-ignore
        expect(kmem_cache_shrink(cache)).toBe(0);
        expect(sysfs(cache)).toEqual({ slabs: 0, total: 0, objects: 0, partial: 0, objects_partial: 0, cpu_slabs: 0 });
        kmem_cache_destroy(cache);
      });
    });

const TRACE_B = `
256 96 7 112 112 0 0 3 1 0
512 62 7 112 112 0 0 7 3 2
768 222 15 240 240 0 0 5 1 2
1024 130 16 256 230 2 6 14 7 5
1280 234 17 272 272 0 0 10 3 5
1536 210 17 272 217 7 57 5 1 2
1792 362 24 384 384 0 0 6 3 1
2048 254 24 384 317 9 77 13 4 7
2304 358 24 384 384 0 0 6 3 1
2560 316 25 400 343 13 151 8 5 1
2816 480 31 496 496 0 0 5 0 3
3072 360 31 496 369 23 241 7 3 2
3328 456 31 496 496 0 0 8 1 5
3584 388 31 496 423 15 167 10 5 3
3840 546 35 560 560 0 0 5 0 3
4096 402 35 560 435 23 243 11 2 7`;

for (const options of ["", "slab_freelist_random=on", "slab_freelist_hardened=on", "slab_full=off"])
  it(`trace B: 4096 random operations on two CPUs (${options || "defaults"})`, () => {
    with_machine({ machine: machine(2), append: options }, () => {
      const cache = kmem_cache_create("trace_b", 512, 0, SLAB_NO_MERGE, null);
      let x = 1;
      const draw = (): number => {
        x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
        return x >>> 16;
      };
      let cpu = 0;
      const live: Obj[] = [];
      const rows: string[] = [];
      for (let t = 1; t <= 4096; t++) {
        if (draw() < 6554) cpu = draw() & 1;
        const b = draw();
        const p = [45875, 26214, 52429, 19661][Math.floor((t - 1) / 256) % 4]!;
        if (live.length === 0 || (b < p && live.length < 900))
          live.push(on_cpu(cpu, () => kmem_cache_alloc(cache, GFP_KERNEL)));
        else {
          const i = draw() % live.length;
          on_cpu(cpu, () => kmem_cache_free(cache, live[i]!));
          live[i] = live[live.length - 1]!;
          live.pop();
        }
        if (t % 256) continue;
        const { slabs, total, objects, partial, objects_partial, cpu_slabs } = sysfs(cache);
        const lists = [...cache_cpus(cache)].map(([, c]) => cpu_partial(c));
        rows.push([t, live.length, slabs, total, objects, partial, objects_partial, cpu_slabs, ...lists].join(" "));
      }
      expect(rows.join("\n")).toBe(TRACE_B.trim());
      expect(counters(cache)).toEqual({
        alloc_fastpath: 1593, alloc_slowpath: 656, alloc_slab: 35, alloc_refill: 53, deactivate_bypass: 601,
        alloc_from_partial: 31, cpu_partial_alloc: 537, cpu_partial_node: 114, cpu_partial_free: 600,
        cpu_partial_drain: 24, free_fastpath: 123, free_slowpath: 1724, free_frozen: 109, free_add_partial: 168,
      }); // prettier-ignore
      for (const object of live) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });
