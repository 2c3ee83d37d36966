/**
 * The numbers that boot derives from a machine: their rules. What real machines print: known_answers.test.ts. R is the
 * map of a 24 GiB machine of one node.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ZONE_DMA, ZONE_MOVABLE, ZONE_NORMAL } from "../../mm/gfp.ts";
import { zone_batchsize } from "../../mm/pagesets.ts";
import {
  computed_min_free_kbytes,
  core_pages,
  fallback_orders,
  free_blocks,
  hash_table_size,
  lowmem_reserves,
  mobility_grouping_disabled,
  node_span,
  possible_zones,
  reserve_pages,
  thp_min_free_kbytes,
  zone_movable_pfns,
  zone_sizes,
  zone_watermarks,
  type NodeRange,
} from "../../mm/zone_sizing.ts";

const GIB_PAGES = 0x40000;
const DMA_END = 0x1000;
const DMA32_END = 0x100000;

const R: NodeRange[] = [
  { start: 0x1, end: 0x9f, nid: 0 },
  { start: 0x100, end: 0xc0000, nid: 0 },
  { start: 0x100000, end: 0x640000, nid: 0 },
];
const possible = (ranges: NodeRange[]) => possible_zones(DMA_END, DMA32_END, ranges[0].start, ranges.at(-1)!.end);

describe("zones", () => {
  test("that lie above all RAM are empty, and take nothing from the others", () => {
    const ranges = [{ start: 1, end: 0x1000, nid: 0 }];
    expect(possible(ranges).slice(0, 3)).toEqual([
      { start: 1, end: 0x1000 },
      { start: 0x1000, end: 0x1000 },
      { start: 0x1000, end: 0x1000 },
    ]);
    expect(zone_sizes(ranges, 0, possible(ranges)).map((zone) => zone.present)).toEqual([4095, 0, 0, 0, 0]);
  });

  test("of a node without memory are empty", () => {
    expect(node_span(R, 1)).toEqual({ start: 0, end: 0 });
    expect(zone_sizes(R, 1, possible(R)).every((zone) => zone.spanned === 0 && zone.start === 0)).toBe(true);
  });

  test("present pages add up to RAM, and zones do not overlap, for any map of ranges", () => {
    const cut = fc.uniqueArray(fc.integer({ min: 1, max: 1 << 20 }), { minLength: 2, maxLength: 16 });
    fc.assert(
      fc.property(cut, fc.integer({ min: 0, max: 1 << 20 }), fc.integer({ min: 0, max: 1 << 20 }), (cuts, a, b) => {
        const sorted = [...cuts].sort((x, y) => x - y);
        const ranges: NodeRange[] = [];
        for (let i = 0; i + 1 < sorted.length; i += 2)
          ranges.push({ start: sorted[i], end: sorted[i + 1], nid: i % 3 });
        const bounds = possible_zones(Math.min(a, b), Math.max(a, b), ranges[0].start, ranges.at(-1)!.end);
        const total = ranges.reduce((sum, range) => sum + range.end - range.start, 0);
        const zones = [0, 1, 2].flatMap((nid) => zone_sizes(ranges, nid, bounds));
        expect(zones.reduce((sum, zone) => sum + zone.present, 0)).toBe(total);
        for (const zone of zones) expect(zone.present).toBeLessThanOrEqual(zone.spanned);
      }),
      { seed: 11, numRuns: 300 },
    );
  });
});

describe("Movable memory", () => {
  test("is absent without a wish, and where the kernel takes all", () => {
    expect(zone_movable_pfns(R, possible(R), 0, 0)).toEqual([0]);
    expect(zone_movable_pfns(R, possible(R), 32 * GIB_PAGES, 0)).toEqual([0]);
  });

  test("the larger of kernelcore and movablecore's rest wins", () => {
    const both = zone_movable_pfns(R, possible(R), 22 * GIB_PAGES, 4 * GIB_PAGES);
    expect(both).toEqual(zone_movable_pfns(R, possible(R), 22 * GIB_PAGES, 0));
  });

  test("a node too small for its share leaves the rest to the others", () => {
    const small: NodeRange[] = [
      { start: 1024, end: 2048, nid: 0 },
      { start: 2048, end: 32768, nid: 1 },
    ];
    const zones = possible_zones(0, 0, 1024, 32768);
    // 8192 pages of kernel memory: node 0 has 1024, so node 1 has 7168 to give.
    expect(zone_movable_pfns(small, zones, 8192, 0)).toEqual([0, 2048 + 7168]);
  });

  test("percentages are of all RAM, bytes become pages, nonsense is NaN", () => {
    expect(core_pages("30%", 1000)).toBe(300);
    expect(core_pages("1G", 1000)).toBe(GIB_PAGES);
    expect(core_pages("mirror", 1000)).toBeNaN();
  });
});

describe("watermarks", () => {
  test("huge pages never lower it, and take at most a twentieth of memory", () => {
    expect(thp_min_free_kbytes(99999, 3, 907829)).toBe(99999);
    expect(thp_min_free_kbytes(128, 3, 2000)).toBe(400);
    expect(thp_min_free_kbytes(7622, 2, 907829)).toBe(45056);
  });

  test("min_free_kbytes has bounds", () => {
    expect(computed_min_free_kbytes(0)).toBe(128);
    expect(computed_min_free_kbytes(2 ** 40)).toBe(262144);
  });

  test("an ordinary zone without pages has none", () => {
    const marks = zone_watermarks(
      [
        { zone: ZONE_DMA, managed: 0 },
        { zone: ZONE_NORMAL, managed: 1000 },
      ],
      128,
    );
    expect(marks[0]).toEqual({ min: 0, low: 0, high: 0, promo: 0 });
  });

  test("of Movable memory are a thousandth of it, 32 to 128 pages", () => {
    const movable = [
      { zone: ZONE_NORMAL, managed: 1e6 },
      { zone: ZONE_MOVABLE, managed: 2 ** 17 + 500 },
    ];
    expect(zone_watermarks(movable, 67584)[1].min).toBe(128);
    expect(zone_watermarks([movable[0], { zone: ZONE_MOVABLE, managed: 2 ** 16 }], 67584)[1].min).toBe(64);
  });
});

describe("lowmem_reserve", () => {
  test("an empty zone keeps nothing", () => {
    expect(lowmem_reserves([0, 100000, 100000, 0, 0])[0]).toEqual([0, 0, 0, 0, 0]);
  });

  test("what a zone adds to totalreserve is its largest reserve and its high mark, at most all it has", () => {
    expect(reserve_pages([0, 3019, 3531, 3531, 3531], 105, 3840)).toBe(3636);
    expect(reserve_pages([0, 3019, 3800, 3800, 3800], 105, 3840)).toBe(3840);
  });
});

describe("per-CPU lists", () => {
  test.each([
    [1, 1], [12287, 1], [12288, 3], [24575, 3], [24576, 7], [45055, 7], [45056, 15], [90111, 15], [90112, 31],
    [176127, 31], [176128, 63], [10 ** 7, 63],
  ])("%i managed pages: batch %i", (managed, batch) => expect(zone_batchsize(managed)).toBe(batch)); // prettier-ignore
});

describe("fallback order", () => {
  const flat = (from: number, to: number): number => (from === to ? 10 : 20);
  const pairs = (from: number, to: number): number => (from === to ? 10 : from >> 1 === to >> 1 ? 12 : 32);
  const four = [0, 1, 2, 3];

  test("of four equally distant nodes spreads the load", () => {
    expect(fallback_orders(flat, four, four)).toEqual([
      [0, 1, 2, 3],
      [1, 2, 3, 0],
      [2, 3, 0, 1],
      [3, 0, 1, 2],
    ]);
  });

  test("of two pairs stays in the pair first", () => {
    expect(fallback_orders(pairs, four, four)).toEqual([
      [0, 1, 2, 3],
      [1, 0, 3, 2],
      [2, 3, 0, 1],
      [3, 2, 1, 0],
    ]);
  });

  test("of a node without memory starts with the nearest that has some", () => {
    expect(fallback_orders(pairs, [0, 1, 2], four)[3]).toEqual([2, 1, 0]); // 0 was chosen by more
  });
});

describe("boot's free blocks", () => {
  const counts = (start: number, end: number): number[] => {
    const by_order = Array.from({ length: 11 }, () => 0);
    for (const { order } of free_blocks(start, end)) by_order[order]++;
    return by_order;
  };

  test("of DMA memory on a PC", () => expect(counts(0x100, 0x1000)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3]));

  test("of a range with odd ends", () => {
    expect(counts(0x12345, 0x23456)).toEqual([1, 2, 1, 1, 2, 1, 1, 1, 0, 0, 68]);
    expect([...free_blocks(0x12345, 0x23456)].find(({ order }) => order === 10)!.pfn).toBe(0x12400);
  });

  test("cover any range once, aligned", () => {
    fc.assert(
      fc.property(fc.nat(1 << 19), fc.integer({ min: 1, max: 5000 }), (start, length) => {
        let at = start;
        for (const { pfn, order } of free_blocks(start, start + length)) {
          expect(pfn).toBe(at);
          expect(pfn % 2 ** order).toBe(0);
          at += 2 ** order;
        }
        expect(at).toBe(start + length);
      }),
      { seed: 12, numRuns: 200 },
    );
  });

  test("blocks are not grouped by mobility on a machine of less than five", () => {
    expect(mobility_grouping_disabled(2559, 5)).toBe(true);
    expect(mobility_grouping_disabled(2560, 5)).toBe(false);
  });
});

describe("hash tables", () => {
  test("at most a sixteenth of memory", () => {
    expect(hash_table_size(256, 4096, 13).bytes).toBe(65536);
  });

  test("fewer entries a byte above 64 GiB", () => {
    const pages = (gib: number): number => gib * GIB_PAGES;
    expect(hash_table_size(pages(64), 8, 13).entries).toBe(2 ** 23);
    expect(hash_table_size(pages(128), 8, 13).entries).toBe(2 ** 23);
  });
});
