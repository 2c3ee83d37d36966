/**
 * SLOB against a model written without looking at it: a page is an array of units that are in use or not, and a free
 * block is whatever run of free ones there is. The model says where each block will be; only which page the page
 * allocator hands out next, it has to be told.
 */
import fc from "fast-check";
import { expect, it } from "vitest";
import { PAGE_SIZE, type Obj } from "../../hal/addr.ts";
import { GFP_KERNEL, NUMA_NO_NODE } from "../../mm/gfp.ts";
import { kfree, kmalloc_node } from "../../mm/kmalloc.ts";
import { page_address, page_to_nid, virt_to_page } from "../../mm/page.ts";
import { KmemCache, kmem_cache_alloc_node, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, slab_data, type CachePtr } from "../../mm/slab_common.ts"; // prettier-ignore
import type { SlobPagePtr } from "../../mm/slob.ts";
import { SLOB_LISTS, free_blocks, slob_list_pages, type SlobList } from "../../mm/slob_check.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_fresh_slob } from "./slob_fresh.ts";

interface ModelPage {
  readonly start: Obj;
  readonly used: boolean[]; // by unit of 2 bytes
}

class Model {
  /** Pages with free units, in the order in which they are searched. */
  readonly lists: ModelPage[][] = [[], [], []];
  readonly pages = new Map<Obj, ModelPage>();

  private list_of(size: number): ModelPage[] {
    return this.lists[size < 256 ? 0 : size < 1024 ? 1 : 2]!;
  }

  /** The first unit at which `units` free ones start with the right alignment, as the first run of free ones has it. */
  private place(page: ModelPage, units: number, align: number, offset: number): number {
    for (let at = 0; at < page.used.length; at++) {
      if (page.used[at]) continue;
      let end = at;
      while (end < page.used.length && !page.used[end]) end++;
      let first = at;
      while ((page.start + 2 * first + offset) % align !== 0) first++;
      if (first + units <= end) return first;
      at = end;
    }
    return -1;
  }

  private take(page: ModelPage, at: number, units: number): Obj {
    page.used.fill(true, at, at + units);
    return page.start + 2 * at;
  }

  /** Where a block will be. `given` is where it is, believed only as to which page is new. */
  alloc(size: number, align: number, offset: number, node: number, given: Obj): Obj {
    const list = this.list_of(size);
    const units = Math.ceil(size / 2);
    for (const [i, page] of list.entries()) {
      if (node !== NUMA_NO_NODE && page_to_nid(virt_to_page(page.start)) !== node) continue;
      const at = this.place(page, units, align, offset);
      if (at < 0) continue;
      const block = this.take(page, at, units);
      // A page that fills leaves the list as it is; else the list is turned, so that this page is first.
      if (!page.used.includes(false)) list.splice(i, 1);
      else list.push(...list.splice(0, i));
      return block;
    }
    const page = { start: given & -PAGE_SIZE, used: Array.from({ length: 2048 }, () => false) };
    if (this.pages.has(page.start)) return -1;
    this.pages.set(page.start, page);
    const block = this.take(page, this.place(page, units, align, offset), units);
    if (page.used.includes(false)) list.unshift(page);
    return block;
  }

  free(block: Obj, size: number): void {
    const page = this.pages.get(block & -PAGE_SIZE)!;
    const was_full = !page.used.includes(false);
    const at = (block - page.start) / 2;
    page.used.fill(false, at, at + Math.ceil(size / 2));
    const empty = !page.used.includes(true);
    if (was_full && !empty) this.list_of(size).unshift(page);
    if (!empty) return;
    this.pages.delete(page.start);
    for (const list of this.lists) if (list.includes(page)) list.splice(list.indexOf(page), 1);
  }

  /** Each list as its pages with their free blocks, in bytes. */
  figure(): unknown {
    return this.lists.map((list) => list.map((page) => [page.start, runs(page.used)]));
  }
}

function runs(used: boolean[]): [number, number][] {
  const found: [number, number][] = [];
  for (let at = 0; at < used.length; at++) {
    if (used[at]) continue;
    const start = at;
    while (at < used.length && !used[at]) at++;
    found.push([start, at - start]);
  }
  return found;
}

/** The same of SLOB, without the pages from before. */
function slob_figure(old: ReadonlySet<SlobPagePtr>): unknown {
  const pages = (name: SlobList): SlobPagePtr[] => [...slob_list_pages(name)].filter((page) => !old.has(page));
  return SLOB_LISTS.map((name) => pages(name).map((page) => [page_address(page as number), [...free_blocks(page)]]));
}

/** [size, align] of caches: odd, tiny, aligned to lines, nearly a page. */
const CACHES = [[1, 0], [6, 2], [30, 0], [40, 64], [72, 8], [208, 0], [255, 16], [256, 256], [600, 128], [1023, 0], [1024, 0], [1500, 512], [4095, 0]] as const; // prettier-ignore
const size = fc.oneof(
  { arbitrary: fc.integer({ min: 1, max: 100 }), weight: 4 },
  { arbitrary: fc.integer({ min: 1, max: 1100 }), weight: 2 },
  { arbitrary: fc.integer({ min: 1, max: 4087 }), weight: 1 },
  { arbitrary: fc.constantFrom(8, 16, 32, 64, 128, 256, 512, 1024, 2048), weight: 2 },
);
const step = fc.record({
  take: fc.nat(99),
  size,
  cache: fc.option(fc.nat(CACHES.length - 1)),
  node: fc.constantFrom(NUMA_NO_NODE, NUMA_NO_NODE, NUMA_NO_NODE, 0, 1),
  pick: fc.nat(),
});

for (const seed of [1, 2, 3])
  it(`SLOB puts each of 6000 random blocks where the model says (seed ${seed})`, () => {
    with_fresh_slob((old) => {
      const model = new Model();
      const descriptor = slab_data.kmem_cache;
      const caches = CACHES.map(([bytes, align]): CachePtr => {
        const cache = kmem_cache_create(`model_${bytes}`, bytes, align, 0, null);
        expect(model.alloc(KmemCache.size.get(descriptor), 8, 0, NUMA_NO_NODE, cache)).toBe(cache);
        return cache;
      });
      const live: { object: Obj; cache: CachePtr; size: number }[] = [];
      const release = ({ object, cache, size: bytes }: (typeof live)[0]): void => {
        if (cache === 0) kfree(object);
        else kmem_cache_free(cache, object);
        model.free(cache === 0 ? object - 8 : object, cache === 0 ? bytes + 8 : bytes);
      };
      for (const [i, { take, size: asked, cache: nth, node, pick }] of fc
        .sample(step, { seed, numRuns: 6000 })
        .entries()) {
        const growing = i % 2000 < 1200 ? 70 : 30; // hills of live blocks, so that pages fill and go
        if (take >= growing) {
          if (live.length > 0) release(live.splice(pick % live.length, 1)[0]!);
        } else if (nth === null) {
          const object = kmalloc_node(asked, GFP_KERNEL, node);
          const align = (asked & (asked - 1)) === 0 ? Math.max(asked, 8) : 8;
          expect(model.alloc(asked + 8, align, 8, node, object - 8), `step ${i}: kmalloc(${asked})`).toBe(object - 8);
          live.push({ object, cache: 0, size: asked });
        } else {
          const cache = caches[nth]!;
          const [bytes] = CACHES[nth]!;
          const object = kmem_cache_alloc_node(cache, GFP_KERNEL, node);
          expect(model.alloc(bytes, KmemCache.align.get(cache), 0, node, object), `step ${i}: ${bytes} bytes`).toBe(object); // prettier-ignore
          live.push({ object, cache, size: bytes });
        }
        if (i % 500 === 0) expect([slob_figure(old), validate_mm()]).toEqual([model.figure(), []]);
      }
      live.forEach(release);
      for (const cache of caches) {
        kmem_cache_destroy(cache);
        model.free(cache, KmemCache.size.get(descriptor));
      }
      expect([slob_figure(old), model.pages.size]).toEqual([[[], [], []], 0]);
    });
  });
