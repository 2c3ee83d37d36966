/**
 * Allocation from memblock, without a machine: the numbered assertions A97 to A107 and the cases of Linux's memblock
 * simulator, each top-down and bottom-up.
 */
import { beforeEach, describe, expect, test } from "vitest";
import { ram8, ram_fill } from "../../hal/ram.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { NUMA_NO_NODE } from "../../mm/gfp.ts";
import {
  MEMBLOCK_NONE,
  for_each_mem_region,
  memblock_add,
  memblock_add_node,
  memblock_alloc,
  memblock_alloc_exact_nid_raw,
  memblock_alloc_from,
  memblock_alloc_try_nid,
  memblock_alloc_try_nid_raw,
  memblock_bottom_up,
  memblock_close,
  memblock_free,
  memblock_memory,
  memblock_phys_alloc_range,
  memblock_reserve,
  memblock_reserve_kern,
  memblock_reserved,
  memblock_reserved_size,
  memblock_set_bottom_up,
  memblock_set_current_limit,
} from "../../mm/memblock.ts";
import { K, M, C, D, E, type Pair, reset, regions, count, expect_regions, dram, is_zero } from "../lib/memblock.ts";

beforeEach(() => reset());

describe.each([
  ["A97 to A107, top-down", false],
  ["A103 the same mirrored: A97 to A107, bottom-up", true],
] as const)("%s", (_direction, up) => {
  beforeEach(() => {
    memblock_set_bottom_up(up);
    expect(memblock_bottom_up()).toBe(up);
  });

  describe("alloc", () => {
    beforeEach(dram);

    test("takes the end (top-down) or the start (bottom-up) of memory, aligned and zeroed", () => {
      const ptr = memblock_alloc(2 * C, C);
      expect(ptr).toBe(up ? D : E - 2 * C);
      expect(is_zero(ptr, 2 * C)).toBe(true);
      expect_regions(memblock_reserved, [[ptr, 2 * C]]);
    });

    test("A97 beside a misaligned reservation, at the next aligned place", () => {
      const r1: Pair = up ? [D, 2] : [E - 2, 2];
      memblock_reserve_kern(...r1);
      const ptr = memblock_alloc(16, 128);
      expect(ptr).toBe(up ? D + 128 : E - 128);
      expect(count(memblock_reserved)).toBe(2);
      expect(memblock_reserved_size()).toBe(18);
    });

    test("before a reservation: joins it", () => {
      // top-down: [ … | new | r1 ]     bottom-up: [ new | r1 | … ]
      const r1: Pair = up ? [D + 256, 512] : [E - 512, 512];
      memblock_reserve_kern(...r1);
      const ptr = memblock_alloc(256, C);
      expect(ptr).toBe(up ? D : E - 768);
      expect_regions(memblock_reserved, [[ptr, 768]]);
    });

    test("after a reservation: joins it", () => {
      // top-down: [ … | r1 | new ]     bottom-up: [ r1 | new | … ]
      const r1: Pair = up ? [D, 512] : [E - 768, 512];
      memblock_reserve_kern(...r1);
      memblock_alloc(256, C);
      expect_regions(memblock_reserved, up ? [[D, 768]] : [[E - 768, 768]]);
    });

    test("second fit: a gap too small is passed over", () => {
      // top-down: [ … | new | r2 |gap| r1 ]      bottom-up: [ r1 |gap| r2 | new | … ]
      const [r1, r2]: Pair[] = up
        ? [
            [D, 512],
            [D + 576, 512],
          ]
        : [
            [E - 512, 512],
            [E - 1088, 512],
          ];
      memblock_reserve_kern(...r1);
      memblock_reserve_kern(...r2);
      const ptr = memblock_alloc(256, C);
      expect(ptr).toBe(up ? D + 1088 : E - 1088 - 256);
      expect(count(memblock_reserved)).toBe(2);
      expect(memblock_reserved_size()).toBe(1024 + 256);
    });

    test("A99 a gap of 256 beside the reservations stays, 1K joins the inner one", () => {
      const [r1, r2]: Pair[] = up
        ? [
            [D, K],
            [D + K + 256, K],
          ]
        : [
            [E - K, K],
            [E - 2 * K - 256, K],
          ];
      memblock_reserve_kern(...r1);
      memblock_reserve_kern(...r2);
      memblock_alloc(K, C);
      expect(regions(memblock_reserved)).toEqual(up ? [r1, [r2[0], 2 * K]] : [[r2[0] - K, 2 * K], r1]);
    });

    test("in between: fills a gap exactly, and all become one", () => {
      const [r1, r2]: Pair[] = up
        ? [
            [D, 512],
            [D + 1024, 512],
          ]
        : [
            [E - 512, 512],
            [E - 1536, 512],
          ];
      memblock_reserve_kern(...r1);
      memblock_reserve_kern(...r2);
      memblock_alloc(512, C);
      expect_regions(memblock_reserved, [[up ? D : E - 1536, 1536]]);
    });

    test("A101 gaps of 256 only: NULL, nothing changes", () => {
      for (let at = D; at < E; at += K + 256) memblock_reserve_kern(at, Math.min(K, E - at));
      const before = regions(memblock_reserved);
      expect(memblock_alloc(K, C)).toBe(0);
      expect_regions(memblock_reserved, before);
    });

    test("A101 everything reserved: NULL", () => {
      memblock_reserve(D, 32 * K);
      expect(memblock_alloc(256, C)).toBe(0);
      expect_regions(memblock_reserved, [[D, 32 * K]]);
    });

    test("A101 not enough left: NULL", () => {
      memblock_reserve(up ? D : D + 256, 32 * K - 256);
      expect(memblock_alloc(512, C)).toBe(0);
      expect(memblock_reserved_size()).toBe(32 * K - 256);
    });

    test("an exact fit takes all that is left, and joins", () => {
      memblock_reserve_kern(up ? D + 256 : D, 32 * K - 256);
      expect(memblock_alloc(256, C)).toBe(up ? D : E - 256);
      expect_regions(memblock_reserved, [[D, 32 * K]]);
    });

    test("A101 more than there is: NULL", () => {
      expect(memblock_alloc(64 * K, C)).toBe(0);
      expect_regions(memblock_reserved, []);
    });

    test("alignment 0 is a warning and a cache line", () => {
      expect(memblock_alloc(16, 0)).toBe(up ? D : E - C);
    });
  });

  test("A101 no memory at all: NULL", () => {
    expect(memblock_alloc(K, C)).toBe(0);
    expect_regions(memblock_memory, []);
    expect_regions(memblock_reserved, []);
  });

  test("page 0 is never handed out", () => {
    memblock_add(0, 8 * K);
    expect(memblock_alloc(4 * K, C)).toBe(4 * K);
    expect(memblock_alloc(C, C)).toBe(0);
  });

  test("nothing above the current limit is handed out", () => {
    dram();
    memblock_set_current_limit(D + 4 * K);
    expect(memblock_alloc(K, C)).toBe(up ? D : D + 3 * K);
    expect(memblock_alloc(4 * K, C)).toBe(0);
  });

  test("memory beyond RAM is handed out, not zeroed", () => {
    memblock_add(2 ** 40, M);
    expect(memblock_alloc(K, C)).toBe(up ? 2 ** 40 : 2 ** 40 + M - K);
  });

  test("freed memory is handed out again; free of NULL is nothing", () => {
    dram();
    const ptr = memblock_alloc(K, C);
    memblock_free(0, K);
    memblock_free(ptr, K);
    expect(memblock_alloc(K, C)).toBe(ptr);
  });

  describe("alloc_from", () => {
    beforeEach(dram);

    test("at the lower bound if it is the only place", () => {
      const ptr = memblock_alloc_from(16, C, E - C);
      expect(ptr).toBe(E - C);
      expect(is_zero(ptr, 16)).toBe(true);
    });

    test("a misaligned bound: the first aligned address at or above it", () => {
      const min = E - (C * 2 - 2);
      expect(memblock_alloc_from(32, C, min)).toBe(E - C);
    });

    test("A105 no room above the bound: it is dropped", () => {
      expect(memblock_alloc_from(256, C, E - 128)).toBe(up ? D : E - 256);
    });

    test("no room above it, beside a reservation", () => {
      memblock_reserve_kern(E - 1024, 1024);
      const ptr = memblock_alloc_from(256, C, E - 512);
      expect(ptr).toBe(up ? D : E - 1024 - 256);
      expect(count(memblock_reserved)).toBe(up ? 2 : 1);
    });

    test("a bound below memory is the start of memory", () => {
      memblock_reserve_kern(D + 64, 32 * K - 64);
      expect(memblock_alloc_from(64, C, D - 4 * K)).toBe(D);
      expect_regions(memblock_reserved, [[D, 32 * K]]);
    });
  });

  /** Window [min, max), node of no matter. */
  describe("alloc_try_nid within [min, max)", () => {
    beforeEach(dram);
    const alloc = (size: number, min: number, max: number) => memblock_alloc_try_nid(size, C, min, max, NUMA_NO_NODE);

    test("A105 ends at max, or starts at min", () => {
      const [min, max] = [D + 2 * C, D + 2 * C + 512];
      const ptr = alloc(128, min, max);
      expect(ptr).toBe(up ? min : max - 128);
      expect(is_zero(ptr, 128)).toBe(true);
    });

    test("A105 a misaligned end", () => {
      const [min, max] = [D + 2 * C, D + 2 * C + 512 + 2];
      expect(alloc(128, min, max)).toBe(up ? min : max - 128 - 2);
    });

    test("A105 a misaligned start", () => {
      const [min, max] = [D + 2, D + 2 + 512];
      // top-down: max is as crooked as min; the last aligned place below it
      expect(alloc(128, min, max)).toBe(up ? min + C - 2 : D + 512 - 128);
    });

    test("A105 a window exactly as large as the request", () => {
      expect(alloc(1024, D + C, D + C + 1024)).toBe(D + C);
    });

    test("a window too narrow: the lower bound is dropped", () => {
      const [min, max] = [D + 512, D + 512 + C];
      expect(alloc(256, min, max)).toBe(up ? D : max - 256);
    });

    test("an upper bound too low: NULL", () => {
      expect(alloc(1024, D, D + C)).toBe(0);
      expect_regions(memblock_reserved, []);
    });

    test("exactly the free 64 bytes above min, or 128 below max", () => {
      memblock_reserve_kern(E - 128, 128);
      expect(alloc(64, E - 192, E)).toBe(E - 192);
      expect_regions(memblock_reserved, [[E - 192, 192]]);
      reset();
      memblock_set_bottom_up(up);
      dram();
      memblock_reserve_kern(E - 128, 128);
      expect(alloc(128, E - 256, E - 128)).toBe(E - 256);
      expect_regions(memblock_reserved, [[E - 256, 256]]);
    });

    /**  | … | r2 | gap | r1 |  with r1 at the end of memory and a window from r2's end to r1's start */
    function two_reservations(gap: number): { r1: Pair; r2: Pair; min: number; max: number } {
      const r1: Pair = [E - 2 * C, 2 * C];
      const r2: Pair = [r1[0] - gap - 128, 128];
      memblock_reserve_kern(...r1);
      memblock_reserve_kern(...r2);
      return { r1, r2, min: r2[0] + 128, max: r1[0] };
    }

    test("a gap with room to spare: joins the upper or the lower", () => {
      const { r1, r2, min, max } = two_reservations(64 + C);
      alloc(64, min, max);
      expect(regions(memblock_reserved)).toEqual(up ? [[r2[0], 192], r1] : [r2, [r1[0] - 64, 2 * C + 64]]);
    });

    test("a gap exactly filled: all become one", () => {
      const { r2, min, max } = two_reservations(64);
      alloc(64, min, max);
      expect_regions(memblock_reserved, [[r2[0], 128 + 64 + 2 * C]]);
    });

    test("a gap too small: below the lower, or at the start of memory", () => {
      const { r1, r2, min, max } = two_reservations(64);
      const ptr = alloc(256, min, max);
      expect(ptr).toBe(up ? D : r2[0] - 256);
      expect(regions(memblock_reserved)).toEqual(up ? [[D, 256], r2, r1] : [[r2[0] - 256, 384], r1]);
    });

    test("everything else reserved: NULL", () => {
      const { r2, min, max } = two_reservations(64);
      memblock_reserve_kern(D, r2[0] - D);
      expect(alloc(256, min, max)).toBe(0);
    });

    test("bounds beyond memory are cut to it", () => {
      expect(alloc(256, D + K, E + 256)).toBe(up ? D + K : E - 256);
      reset();
      memblock_set_bottom_up(up);
      dram();
      expect(alloc(1024, D - 256, E)).toBe(up ? D : E - 1024);
    });
  });

  test("phys_alloc_range keeps to its window", () => {
    dram();
    expect(memblock_phys_alloc_range(K, C, D + K, D + 4 * K)).toBe(up ? D + K : D + 3 * K);
    expect(memblock_phys_alloc_range(4 * K, C, D + K, D + 4 * K)).toBe(0);
  });
});

/** Eight nodes share [D, E): 8, 2, 4, 4, 2, 2, 8 and 2 KiB. */
const NODE_KIB = [8, 2, 4, 4, 2, 2, 8, 2] as const;
const NODES = NODE_KIB.map((kib, nid) => {
  const base = D + K * NODE_KIB.slice(0, nid).reduce((sum: number, size) => sum + size, 0);
  return { base, size: kib * K, end: base + kib * K };
});
function numa_dram(): void {
  for (const [nid, { base, size }] of NODES.entries()) memblock_add_node(base, size, nid, MEMBLOCK_NONE);
  ram_fill(D, 0x5a, 32 * K);
}

describe.each([
  ["top-down", false],
  ["bottom-up", true],
] as const)("A107 eight nodes, %s", (_direction, up) => {
  beforeEach(() => {
    memblock_set_bottom_up(up);
    numa_dram();
  });
  const place = (node: { base: number; end: number }, size: number): number => (up ? node.base : node.end - size);
  const S = 2 * K;

  /** Each case: the node and size asked, the window, what is reserved first; where the plain and the exact call land. */
  interface Case {
    readonly name: string;
    readonly nid: number;
    readonly size: number;
    readonly min?: number;
    readonly max?: number;
    readonly reserve?: Pair[];
    readonly lands: () => number;
    readonly exact: () => number;
  }
  const [n0, n2, n3, n6, n7] = [NODES[0], NODES[2], NODES[3], NODES[6], NODES[7]];
  const cases: Case[] = [
    { name: "room enough: in the node", nid: 3, size: 2 * K, lands: () => place(n3, 2 * K), exact: () => place(n3, 2 * K) },
    {
      name: "a node too small: the last, or the first, that has room",
      nid: 1, size: 4 * K, lands: () => place(up ? n0 : n6, 4 * K), exact: () => 0,
    },
    {
      name: "a node fully reserved", nid: 2, size: 2 * K, reserve: [[n2.base, n2.size]],
      lands: () => place(up ? n0 : n7, 2 * K), exact: () => 0,
    },
    {
      name: "a node with room beside a reservation", nid: 6, size: 2 * K, reserve: [[n6.base + 2 * K, 2 * K]],
      lands: () => place(n6, 2 * K), exact: () => place(n6, 2 * K),
    },
    {
      name: "a node with no run long enough", nid: 6, size: 6 * K, reserve: [[n6.base + 3 * K, 2 * K]],
      lands: () => (up ? n0.base : n0.end - 6 * K), exact: () => 0,
    },
    {
      name: "a window over the end of the node: lower bound dropped if need be",
      nid: 2, size: 2 * K, min: n2.end - 256, max: n2.end + 256, lands: () => place(n2, 2 * K), exact: () => place(n2, 2 * K),
    },
    {
      name: "a window over the start of the node: elsewhere, below the upper bound",
      nid: 3, size: 2 * K, min: n3.base - 256, max: n3.base + 256,
      lands: () => (up ? n0.base : n2.end - 2 * K), exact: () => 0,
    },
    {
      name: "a window in another node above: lower bound dropped, in the node",
      nid: 2, size: S, min: NODES[5].end - 256, max: n6.base + 256, lands: () => place(n2, S), exact: () => place(n2, S),
    },
    {
      name: "a node below the whole window: the window's last or first node",
      nid: 0, size: 256, min: n2.base, max: NODES[5].end,
      lands: () => (up ? n2.base : NODES[5].end - 256), exact: () => place(n0, 256),
    },
    {
      name: "a node above the whole window",
      nid: 7, size: 256, min: n2.base, max: NODES[5].end,
      lands: () => (up ? n2.base : NODES[5].end - 256), exact: () => 0,
    },
    { name: "more than any node has", nid: 3, size: 16 * K, lands: () => 0, exact: () => 0 },
    {
      name: "a window whose nodes are full", nid: 6, size: S, min: D, max: E,
      reserve: NODES.map(({ base, size }): Pair => [base, size]), lands: () => 0, exact: () => 0,
    },
  ]; // prettier-ignore

  test.each(cases)("$name", ({ nid, size, min = D, max = E, reserve = [], lands, exact }) => {
    for (const [call, expected] of [
      [memblock_alloc_try_nid, lands],
      [memblock_alloc_try_nid_raw, lands],
      [memblock_alloc_exact_nid_raw, exact],
    ] as const) {
      reset();
      memblock_set_bottom_up(up);
      numa_dram();
      for (const pair of reserve) memblock_reserve_kern(...pair);
      const before = regions(memblock_reserved);
      const ptr = call(size, C, min, max, nid);
      expect(ptr).toBe(expected());
      if (ptr === 0) expect(regions(memblock_reserved)).toEqual(before);
      else if (call === memblock_alloc_try_nid) expect(is_zero(ptr, size)).toBe(true);
      else expect(ram8.subarray(ptr, ptr + size).every((byte) => byte === 0x5a)).toBe(true);
    }
  });

  test("the reservation carries the node that was asked", () => {
    memblock_alloc_try_nid(K, C, D, E, 3);
    expect([...for_each_mem_region(memblock_reserved)][0].nid).toBe(3);
  });
});

test("after memory is up an allocation warns and gives nothing", () => {
  dram();
  memblock_close();
  expect(memblock_alloc(K, C)).toBe(0);
  expect([...printk_records()].at(-1)!.text).toBe("WARNING: memblock allocation of 1024 bytes after memory is up");
});
