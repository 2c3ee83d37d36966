/**
 * memblock's two arrays on bare address ranges: no machine is booted. Cases follow the numbered assertions A83 to A95 and
 * the cases of Linux's memblock simulator.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { printk_records } from "../../kernel/lib/printk.ts";
import { NUMA_NO_NODE } from "../../mm/gfp.ts";
import {
  INIT_MEMBLOCK_REGIONS,
  MEMBLOCK_HOTPLUG,
  MEMBLOCK_NONE,
  MEMBLOCK_RSRV_KERN,
  MemblockType,
  for_each_free_mem_range,
  for_each_mem_pfn_range,
  for_each_mem_region,
  memblock_add,
  memblock_add_node,
  memblock_alloc,
  memblock_alloc_try_nid,
  memblock_bottom_up,
  memblock_clear_nomap,
  memblock_dump_all,
  memblock_get_current_limit,
  memblock_is_memory,
  memblock_is_reserved,
  memblock_mark_nomap,
  memblock_memory,
  memblock_overlaps_region,
  memblock_phys_free,
  memblock_phys_mem_size,
  memblock_remove,
  memblock_reserve,
  memblock_reserve_kern,
  memblock_reserved,
  memblock_reserved_size,
  memblock_set_node,
  memblock_trim_memory,
} from "../../mm/memblock.ts";
import { MAX_NUMNODES } from "../../mm/zone.ts";
import { K, M, G, MAX, C, D, E, type Pair, reset, regions, count, total, expect_regions } from "../lib/memblock.ts";

beforeEach(() => reset());

test("starts with two empty arrays of 128 slots, allocating downwards without a limit", () => {
  for (const [type, name] of [
    [memblock_memory, "memory"],
    [memblock_reserved, "reserved"],
  ] as const) {
    expect(MemblockType.name.get(type)).toBe(name);
    expect(MemblockType.max.get(type)).toBe(INIT_MEMBLOCK_REGIONS);
    expect_regions(type, []);
  }
  expect(memblock_bottom_up()).toBe(false);
  expect(memblock_get_current_limit()).toBe(MAX);
});

/** The same shapes hold for `memory` and for `reserved`: add = reserve, remove = free. */
describe.each([
  ["memory", memblock_memory, memblock_add, memblock_remove],
  ["reserved", memblock_reserved, memblock_reserve, memblock_phys_free],
] as const)("%s", (_name, type, add, remove) => {
  test.each<[string, Pair[], Pair[]]>([
    ["A83 one range", [[G, 4 * M]], [[G, 4 * M]]],
    ["A85 two apart", [[G, 8 * K], [G + 16 * K, 8 * K]], [[G, 8 * K], [G + 16 * K, 8 * K]]],
    ["A85 a third that fills the gap", [[G, 8 * K], [G + 16 * K, 8 * K], [G + 8 * K, 8 * K]], [[G, 24 * K]]],
    ["A87 the second overlaps the end", [[128 * M, 512 * M], [256 * M, G]], [[128 * M, 1152 * M]]],
    ["the second overlaps the start", [[512 * M, G], [256 * M, 512 * M]], [[256 * M, 1280 * M]]],
    ["the second overlaps the start (reserve)", [[G, G], [128 * M, G]], [[128 * M, 2 * G - 128 * M]]],
    ["the second overlaps the end (reserve)", [[2 * K, 128 * K], [128 * K, 128 * K]], [[2 * K, 254 * K]]],
    ["the second lies within", [[8 * M, 32 * M], [16 * M, M]], [[8 * M, 32 * M]]],
    ["the same twice", [[16 * K, 2 * M], [16 * K, 2 * M]], [[16 * K, 2 * M]]],
    ["A89 one that runs past the top of physical space", [[MAX - M, 2 * M]], [[MAX - M, M]]],
    ["nothing", [[G, 0]], []],
    ["a large one over many small", [[4 * M, M], [8 * M, M], [12 * M, M], [2 * M, 20 * M]], [[2 * M, 20 * M]]],
  ])("adding %s", (_case, given, expected) => {
    for (const [base, size] of given) add(base, size);
    expect_regions(type, expected);
  }); // prettier-ignore

  test.each<[string, Pair[], Pair, Pair[]]>([
    ["the first of two", [[2 * K, 4 * K], [128 * K, 4 * M]], [2 * K, 4 * K], [[128 * K, 4 * M]]],
    ["A95 what is not there", [[512 * K, 4 * M]], [64 * M, G], [[512 * K, 4 * M]]],
    ["A91 the start", [[32 * M, 32 * M]], [16 * M, 32 * M], [[48 * M, 16 * M]]],
    ["the end", [[2 * M, 64 * M]], [32 * M, 256 * M], [[2 * M, 30 * M]]],
    ["A93 the middle", [[M, 32 * M]], [16 * M, M], [[M, 15 * M], [17 * M, 16 * M]]],
    ["A95 the only range", [[2 * K, 4 * K]], [2 * K, 4 * K], []],
    ["the top of physical space", [[MAX - 2 * M, 2 * M]], [MAX - M, 2 * M], [[MAX - 2 * M, M]]],
    ["parts of two", [[16 * M, 32 * M], [64 * M, 64 * M]], [32 * M, 64 * M], [[16 * M, 16 * M], [96 * M, 32 * M]]],
    ["the first of two (free)", [[4 * M, M], [8 * M, M]], [4 * M, M], [[8 * M, M]]],
    ["what is not there (free)", [[2 * M, 8 * K]], [16 * M, 128 * M], [[2 * M, 8 * K]]],
    ["the start (free)", [[8 * M, 32 * M]], [M, 8 * M], [[9 * M, 31 * M]]],
    ["the end (free)", [[8 * M, 32 * M]], [32 * M, 32 * M], [[8 * M, 24 * M]]],
    ["the middle (free)", [[M, 8 * M]], [4 * M, M], [[M, 3 * M], [5 * M, 4 * M]]],
  ])("removing %s", (_case, given, [base, size], expected) => {
    for (const pair of given) add(...pair);
    remove(base, size);
    expect_regions(type, expected);
  }); // prettier-ignore

  test("an emptied array shows its dummy: base 0, size 0, no node", () => {
    add(2 * K, 4 * K);
    remove(2 * K, 4 * K);
    expect(count(type)).toBe(0);
    expect(memblock_overlaps_region(type, 0, MAX)).toBe(false);
    add(4 * K, 4 * K);
    expect_regions(type, [[4 * K, 4 * K]]);
  });

  test("is, after any sequence of additions and removals, what a set of pages says", () => {
    const step = fc.record({ add: fc.boolean(), base: fc.nat(200), size: fc.integer({ min: 0, max: 60 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        reset();
        const model = new Set<number>();
        for (const { add: adding, base, size } of steps) {
          (adding ? add : remove)(base * K, size * K);
          for (let i = base; i < base + size; i++) if (adding) model.add(i); else model.delete(i);
        }
        const expected: [number, number][] = [];
        for (const i of [...model].sort((a, b) => a - b)) {
          const last = expected.at(-1);
          if (last && last[0] + last[1] === i * K) last[1] += K;
          else expected.push([i * K, K]);
        }
        expect_regions(type, expected);
      }),
      { seed: 13, numRuns: 150 },
    ); // prettier-ignore
  });
});

describe("nodes and flags", () => {
  test("a range keeps its node and flag", () => {
    memblock_add_node(M, 16 * M, 1, MEMBLOCK_HOTPLUG);
    expect([...for_each_mem_region(memblock_memory)]).toEqual([
      { base: M, size: 16 * M, nid: 1, flags: MEMBLOCK_HOTPLUG },
    ]);
  });

  test("where ranges overlap, the one that was there keeps its node; touching ranges of two nodes stay apart", () => {
    memblock_add_node(8 * M, 8 * M, 1, MEMBLOCK_NONE);
    memblock_add_node(4 * M, 16 * M, 2, MEMBLOCK_NONE);
    expect([...for_each_mem_region(memblock_memory)].map(({ base, size, nid }) => [base, size, nid])).toEqual([
      [4 * M, 4 * M, 2], [8 * M, 8 * M, 1], [16 * M, 4 * M, 2],
    ]); // prettier-ignore
  });

  test("plain ranges have no node, reservations have none, allocations say what was asked", () => {
    memblock_add(M, 16 * M);
    memblock_reserve(M, K);
    memblock_alloc_try_nid(K, C, 0, 0, NUMA_NO_NODE);
    expect([...for_each_mem_region(memblock_memory)][0].nid).toBe(MAX_NUMNODES);
    expect([...for_each_mem_region(memblock_reserved)].map(({ nid, flags }) => [nid, flags])).toEqual([
      [NUMA_NO_NODE, MEMBLOCK_NONE],
      [NUMA_NO_NODE, MEMBLOCK_RSRV_KERN],
    ]);
  });

  test("an allocation joins a neighbour reserved by the kernel, not one reserved by hand", () => {
    memblock_add(D, 32 * K);
    memblock_reserve(E - 128, 128);
    memblock_alloc(128, C);
    expect(count(memblock_reserved)).toBe(2);
    memblock_reserve_kern(E - 512, 128);
    memblock_alloc(128, C); // between the two
    expect(regions(memblock_reserved)).toEqual([
      [E - 512, 384],
      [E - 128, 128],
    ]);
  });

  test("setting nodes splits a reservation across the border, and the grown array gets a node too", () => {
    //  node 0                     |  node 1
    //  r1 r2 r3 …             [ r126 ]
    const half = 16 * M;
    memblock_add(0, 2 * half);
    for (let i = 0; i < 125; i++) memblock_reserve(i * 16 * K + 8 * K, 8 * K);
    memblock_reserve(half - 4 * K, 8 * K);
    expect(count(memblock_reserved)).toBe(126);
    for (let max = 0; max !== MemblockType.max.get(memblock_reserved);) {
      max = MemblockType.max.get(memblock_reserved);
      for (const [nid, base] of [
        [0, 0],
        [1, half],
      ])
        memblock_set_node(base, half, memblock_reserved, nid);
    }
    expect(MemblockType.max.get(memblock_reserved)).toBe(256);
    const nids = [...for_each_mem_region(memblock_reserved)].map(({ base, nid }) => [base >= half ? 1 : 0, nid]);
    expect(nids.every(([expected, nid]) => nid === expected)).toBe(true);
    expect(nids.filter(([, nid]) => nid === 1).length).toBeGreaterThanOrEqual(1);
  });

  test("memory not mapped is known, and never handed out", () => {
    memblock_add(D, 32 * K);
    memblock_mark_nomap(D + 16 * K, 16 * K);
    expect(memblock_is_memory(E - 1)).toBe(true);
    expect([...for_each_free_mem_range(NUMA_NO_NODE)]).toEqual([{ start: D, end: D + 16 * K }]);
    memblock_clear_nomap(D + 16 * K, 16 * K);
    expect_regions(memblock_memory, [[D, 32 * K]]);
  });
});

describe("growth", () => {
  test("the 129th range of memory doubles the array; nothing is lost, the new array is reserved", () => {
    memblock_add(64 * M, 16 * M); // where the array can go
    for (let i = 0; i < 128; i++) memblock_add(G + i * 64 * K, 32 * K);
    expect(MemblockType.max.get(memblock_memory)).toBe(256);
    expect(count(memblock_memory)).toBe(129);
    expect(total(regions(memblock_memory))).toBe(16 * M + 128 * 32 * K);
    const array: number = MemblockType.regions.get(memblock_memory);
    expect(memblock_is_reserved(array) && memblock_is_reserved(array + 8 * K - 1)).toBe(true);
    expect(regions(memblock_memory)[128]).toEqual([G + 127 * 64 * K, 32 * K]);
  });

  const ARRAY = 8 * K; // 256 regions of 24 bytes, in whole pages

  test.each([0, 1, 63, 64, 127, 128])("the 129th reservation, inserted at place %i, doubles the array", (place) => {
    memblock_add(64 * M, 16 * M);
    for (let i = 0; i <= 128; i++) if (i !== place) memblock_reserve(G + i * 64 * K, 32 * K);
    expect(MemblockType.max.get(memblock_reserved)).toBe(128);
    memblock_reserve(G + place * 64 * K, 32 * K);
    expect(MemblockType.max.get(memblock_reserved)).toBe(256);
    expect(count(memblock_reserved)).toBe(130);
    expect(memblock_reserved_size()).toBe(129 * 32 * K + ARRAY);
    memblock_reserve(16 * K, 16 * K);
    expect(regions(memblock_reserved)[0]).toEqual([16 * K, 16 * K]);
    expect(count(memblock_reserved)).toBe(131);
  });

  test("all 129 places", () => {
    for (let place = 0; place <= 128; place++) {
      reset();
      memblock_add(64 * M, 16 * M);
      for (let i = 0; i <= 128; i++) if (i !== place) memblock_reserve(G + i * 64 * K, 32 * K);
      memblock_reserve(G + place * 64 * K, 32 * K);
      const expected = Array.from({ length: 129 }, (_, i): Pair => [G + i * 64 * K, 32 * K]);
      expect(regions(memblock_reserved).slice(1)).toEqual(expected);
    }
  });

  test("the array never goes onto the range that is being reserved", () => {
    // Free memory:  [ being reserved 32K | 8K ]: only the end is left for the array.
    memblock_add(64 * M, 32 * K + ARRAY);
    for (let i = 0; i < 128; i++) memblock_reserve(G + i * 64 * K, 32 * K);
    memblock_reserve(64 * M, 32 * K);
    expect(MemblockType.regions.get(memblock_reserved)).toBe(64 * M + 32 * K);
    expect(count(memblock_reserved)).toBe(130);
  });

  test("a second doubling gives the first grown array back", () => {
    memblock_add(64 * M, 16 * M);
    for (let i = 0; i < 300; i++) memblock_reserve(G + i * 64 * K, 32 * K);
    expect(MemblockType.max.get(memblock_reserved)).toBe(512);
    expect(memblock_reserved_size()).toBe(300 * 32 * K + 12 * K);
  });
});

describe("trimming to multiples of a", () => {
  const a = M;
  test.each<[string, Pair[], Pair[]]>([
    ["an aligned range stays", [[a, 4 * a]], [[a, 4 * a]]],
    ["one that holds no whole multiple goes", [[a, 2 * a], [4 * a, a - 2]], [[a, 2 * a]]],
    ["a misaligned start moves up", [[a, 2 * a], [4 * a + 64, 2 * a - 64]], [[a, 2 * a], [5 * a, a]]],
    ["a misaligned end moves down", [[a, 2 * a], [4 * a, 2 * a - 64]], [[a, 2 * a], [4 * a, a]]],
  ])("%s", (_case, given, expected) => {
    for (const pair of given) memblock_add(...pair);
    memblock_trim_memory(a);
    expect_regions(memblock_memory, expected);
  }); // prettier-ignore
});

describe("asking", () => {
  test.each<[Pair, boolean]>([
    [[M, M], false], [[2 * G, M], false], [[G - M, M], false], [[G + 4 * M, M], false],
    [[G - M, 2 * M], true], [[G + 2 * M, 2 * M], true], [[G, 4 * M], true], [[G - 2 * M, 8 * M], true],
    [[G + M, M], true],
  ])("a region 1G,4M overlaps %o: %s", ([base, size], expected) => {
    memblock_add(G, 4 * M);
    expect(memblock_overlaps_region(memblock_memory, base, size)).toBe(expected);
  }); // prettier-ignore

  test("sizes, and whose an address is", () => {
    memblock_add(M, M);
    memblock_add(4 * M, M);
    memblock_reserve(M, K);
    expect(memblock_phys_mem_size()).toBe(2 * M);
    expect([M - 1, M, 2 * M - 1, 2 * M].map(memblock_is_memory)).toEqual([false, true, true, false]);
    expect([M, M + K].map(memblock_is_reserved)).toEqual([true, false]);
  });

  test("free ranges are memory less reserved, node by node", () => {
    memblock_add_node(0, M, 0, MEMBLOCK_NONE);
    memblock_add_node(M, M, 1, MEMBLOCK_NONE);
    memblock_reserve(M - K, 2 * K);
    memblock_reserve(0, K);
    const free = (nid: number) => [...for_each_free_mem_range(nid)].map(({ start, end }) => [start, end]);
    expect(free(NUMA_NO_NODE)).toEqual([
      [K, M - K],
      [M + K, 2 * M],
    ]);
    expect(free(0)).toEqual([[K, M - K]]);
    expect(free(1)).toEqual([[M + K, 2 * M]]);
  });

  test("page ranges leave partial pages out", () => {
    memblock_add_node(K, 16 * K, 3, MEMBLOCK_NONE);
    memblock_add_node(32 * K, K, 3, MEMBLOCK_NONE);
    expect([...for_each_mem_pfn_range(NUMA_NO_NODE)]).toEqual([{ start: 1, end: 4, nid: 3 }]);
  });
});

describe("memblock=debug", () => {
  const lines = (): string[] => [...printk_records()].map(({ text }) => text);

  test("says nothing without it", () => {
    memblock_add(M, M);
    memblock_dump_all();
    expect(lines()).toEqual([]);
  });

  test("logs every call with its caller, and both arrays", () => {
    reset("memblock=debug");
    memblock_add(M, M);
    memblock_reserve(M, K);
    memblock_add_node(4 * M, M, 1, MEMBLOCK_HOTPLUG);
    memblock_remove(M + K, K);
    memblock_phys_free(M, 512);
    const log = lines();
    const caller = "[\\w]+\\+0x0/0x10";
    for (const [i, expected] of [
      `memblock_add: [0x0000000000100000-0x00000000001fffff] ${caller}`,
      `__memblock_reserve: [0x0000000000100000-0x00000000001003ff] nid=-1 flags=0 ${caller}`,
      `memblock_add_node: [0x0000000000400000-0x00000000004fffff] nid=1 flags=1 ${caller}`,
      `memblock_remove: [0x0000000000100400-0x00000000001007ff] ${caller}`,
      `memblock_phys_free: [0x0000000000100000-0x00000000001001ff] ${caller}`,
    ].entries())
      expect(log[i]).toMatch(new RegExp(`^${expected.replace(/\[0x/g, "\\[0x").replace(/ff\]/g, "ff\\]")}$`));
    memblock_dump_all();
    expect(lines().slice(log.length)).toEqual([
      "MEMBLOCK configuration:",
      " memory size = 0x00000000001ffc00 reserved size = 0x0000000000000200",
      " memory.cnt  = 0x3",
      " memory[0]\t[0x0000000000100000-0x00000000001003ff], 0x0000000000000400 bytes flags: 0",
      " memory[0x1]\t[0x0000000000100800-0x00000000001fffff], 0x00000000000ff800 bytes flags: 0",
      " memory[0x2]\t[0x0000000000400000-0x00000000004fffff], 0x0000000000100000 bytes on node 1 flags: 0x1",
      " reserved.cnt  = 0x1",
      " reserved[0]\t[0x0000000000100200-0x00000000001003ff], 0x0000000000000200 bytes flags: 0",
    ]);
  });

  test("logs allocations and growth", () => {
    reset("memblock=debug");
    memblock_add(64 * M, 16 * M);
    memblock_alloc_try_nid(K, C, 0, 0, 2);
    expect(lines()[1]).toMatch(
      /^memblock_alloc_try_nid: 1024 bytes align=0x40 nid=2 from=0x0000000000000000 max_addr=0x0000000000000000 \w+\+0x0\/0x10$/,
    );
    for (let i = 0; i < 128; i++) memblock_reserve(G + i * 64 * K, K);
    expect(lines()).toContain("memblock: reserved is doubled to 256 at [0x0000000004ffd000-0x0000000004ffefff]");
  });
});
