/**
 * What real machines printed, against our arithmetic. None of these machines fits our RAM: everything here is a pure
 * function of numbers, the same that boot and /proc apply.
 *
 *     R   24 GiB, 1 node, 2 CPUs, Linux 6.18    a kernel that initialises page structs lazily: Normal has 131072 managed
 *                                               pages of 5505024 at the moment of these figures
 *     Q   64 GiB, 2 nodes                       A   16 GiB, 1 node, 2 CPUs        C   8 GB, arm64, marks boosted
 */
import { describe, expect, test } from "vitest";
import { MIGRATE_TYPES, ZONE_DMA, ZONE_DMA32, ZONE_MOVABLE, ZONE_NORMAL } from "../../mm/gfp.ts";
import { zone_batchsize, zone_highsize } from "../../mm/pagesets.ts";
import { Page } from "../../mm/page.ts";
import { available_pages, vm_commit_limit } from "../../mm/show_mem.ts";
import { calculate_normal_threshold } from "../../mm/vmstat.ts";
import { WMARK_HIGH, WMARK_LOW, WMARK_MIN, Zone } from "../../mm/zone.ts";
import { high_wmark_pages, wmark_pages } from "../../mm/watermark.ts";
import {
  computed_min_free_kbytes, fallback_orders, hash_table_size, lowmem_reserves, mobility_grouping_disabled,
  possible_zones, present_sections, reserve_pages, thp_min_free_kbytes, zone_movable_pfns, zone_sizes, zone_watermarks,
  type NodeRange,
} from "../../mm/zone_sizing.ts"; // prettier-ignore
import { with_machine } from "../lib/machine.ts";
import { zone_of } from "../lib/pages.ts";

const K = (pages: number): number => pages * 4;
const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0);
const frames = (start: number, end: number, nid: number): NodeRange => ({ start: Math.ceil(start / 4096), end: Math.floor((end + 1) / 4096), nid }); // prettier-ignore
const DMA_END = 0x1000;
const DMA32_END = 0x100000;
const zones_of = (ranges: readonly NodeRange[]) => possible_zones(DMA_END, DMA32_END, ranges[0]!.start, ranges.at(-1)!.end); // prettier-ignore

describe("R", () => {
  const RAM = [frames(0x1000, 0x9fbff, 0), frames(0x100000, 0xbfffffff, 0), frames(0x100000000, 0x63fffffff, 0)];
  const SIZES = zone_sizes(RAM, 0, zones_of(RAM));
  const MANAGED = [3840, 772917, 131072, 0, 0];
  const LOWMEM = sum(MANAGED);
  const MARKS = zone_watermarks(MANAGED.map((managed, zone) => ({ zone, managed })), 67584); // prettier-ignore
  const RESERVES = lowmem_reserves(MANAGED);

  test.each([
    ["Total pages", sum(SIZES.map((zone) => zone.present)), 6291358],
    ["right-hand K of the Memory line", K(sum(SIZES.map((zone) => zone.present))), 25165432],
    ["MemTotal: that, less what is reserved, with what init gave back", 25165432 - 496444 + 7360 + 3728 + 2008 + 2008, 24684092],
    ["entries of the dentry hash", hash_table_size(6171023, 8, 13).entries, 4194304],
    ["its order", hash_table_size(6171023, 8, 13).order, 13],
    ["its bytes", hash_table_size(6171023, 8, 13).bytes, 33554432],
    ["sections of 128 MiB", present_sections(RAM, 32768).length, 192],
    ["nr_memmap_boot_pages", (present_sections(RAM, 1024).length * 1024 * Page.sizeof) / 4096, 98304],
    ["CommitLimit, in pages", vm_commit_limit(6171023), 3085511],
    ["CommitLimit, kB", K(vm_commit_limit(6171023)), 12342044],
    ["VmallocTotal, kB", Math.floor((2 ** 45 - 1) / 1024), 34359738367],
    ["min_free_kbytes by the square root", computed_min_free_kbytes(LOWMEM), 7622],
    ["with huge pages", thp_min_free_kbytes(7622, 3, LOWMEM), 67584],
    ["MemAvailable, kB", K(available_pages(
        24471412 / 4 - sum(MANAGED.map((managed, zone) => reserve_pages(RESERVES[zone]!, MARKS[zone]!.high, managed))),
        (23216 + 89224) / 4, 12800 / 4, sum(MARKS.map((marks) => marks.low)),
      )), 24416504],
  ])("%s", (_what, ours, observed) => expect(ours).toBe(observed)); // prettier-ignore

  test("grouping by mobility is on", () => expect(mobility_grouping_disabled(6291358, MIGRATE_TYPES)).toBe(false));

  test.each([
    ["DMA", ZONE_DMA, [1, 4095, 3998], [71, 88, 105, 122], [0, 3019, 3531, 3531, 3531]],
    ["DMA32", ZONE_DMA32, [4096, 1044480, 782336], undefined, undefined],
    ["Normal", ZONE_NORMAL, [1048576, 5505024, 5505024], [2439, 3048, 3657, 4266], [0, 0, 0, 0, 0]],
    ["Movable", ZONE_MOVABLE, [0, 0, 0], [32, 32, 32, 32], [0, 0, 0, 0, 0]],
    ["Device", 4, [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0]],
  ])("zone %s", (_name, zone, place, marks, protection) => {
    const { start, spanned, present } = SIZES[zone]!;
    expect([start, spanned, present]).toEqual(place);
    const { min, low, high, promo } = MARKS[zone]!;
    if (marks) expect([min, low, high, promo]).toEqual(marks);
    if (protection) expect(RESERVES[zone]).toEqual(protection);
  }); // prettier-ignore

  test.each([
    ["DMA", 3840, 88, [1, 44, 240, 4]],
    ["Normal", 131072, 3048, [31, 1524, 8192, 16]],
  ])("per-CPU lists of %s: batch, high_min, high_max; vm stats threshold", (_name, managed, low, expected) => {
    const limits = zone_highsize(managed, low, 2, 0);
    expect([zone_batchsize(managed), ...limits, calculate_normal_threshold(2, managed)]).toEqual(expected);
  });

  test("movablecore=4G", () => {
    expect(zone_movable_pfns(RAM, zones_of(RAM), 0, 2 ** 20)).toEqual([0x540000000 / 4096]);
  });
});

describe("Q", () => {
  const RAM = [
    frames(0x1000, 0x9fbff, 0), frames(0x100000, 0xbff7ffff, 0), frames(0x100000000, 0x83fffffff, 0),
    frames(0x840000000, 0x103fffffff, 1),
  ]; // prettier-ignore
  const SIZES = [0, 1].map((nid) => zone_sizes(RAM, nid, zones_of(RAM)));

  test.each([
    [0, ZONE_DMA, 4095, 3998], [0, ZONE_DMA32, 1044480, 782208], [0, ZONE_NORMAL, 7602176, 7602176],
    [1, ZONE_DMA, 0, 0], [1, ZONE_DMA32, 0, 0], [1, ZONE_NORMAL, 8388608, 8388608],
  ])("node %i, zone %i: spans %i, has %i", (nid, zone, spanned, present) => {
    expect(SIZES[nid]![zone]).toMatchObject({ spanned, present });
  }); // prettier-ignore

  test("Total pages, the Memory line's right-hand number, the page structs of a node", () => {
    const present = sum(SIZES.flat().map((zone) => zone.present));
    expect([present, K(present)]).toEqual([16776990, 67107960]);
    expect(SIZES[1]![ZONE_NORMAL]!.present * Page.sizeof).toBe(536870912);
  });

  test("the 128 pages that the third GiB is short of have page structs, the hole behind has none", () => {
    const sections = present_sections(RAM, 1024);
    expect([0xbfc00, 0xc0000, 0xffc00, 0x100000].map((pfn) => sections.includes(pfn))).toEqual([true, false, false, true]); // prettier-ignore
  });

  test("fallback orders, and kernelcore=8G", () => {
    const distance = (from: number, to: number): number => (from === to ? 10 : 20);
    expect(fallback_orders(distance, [0, 1], [0, 1])).toEqual([[0, 1], [1, 0]]); // prettier-ignore
    expect(zone_movable_pfns(RAM, zones_of(RAM), 2 ** 21, 0)).toEqual([0x140400000 / 4096, 0x940000000 / 4096]);
  });
});

describe("A", () => {
  const managed = (dma32: number): number[] => [15360 / 4, dma32, 11007884 / 4];
  const marks_in_kb = (sizes: number[]): number[][] => {
    const kbytes = computed_min_free_kbytes(sum(sizes));
    const marks = zone_watermarks(sizes.map((pages, zone) => ({ zone, managed: pages })), kbytes); // prettier-ignore
    return marks.map(({ min, low, high }) => [min, low, high].map(K));
  };

  test("lowmem_reserve follows what is managed now", () => {
    const reserves = lowmem_reserves([...managed(3063680 / 4), 0]);
    expect(reserves[ZONE_DMA]).toEqual([0, 2991, 13741, 13741]);
    expect(reserves[ZONE_DMA32]).toEqual([0, 0, 10749, 10749]);
  });

  test("marks are those of boot, when init's memory was not yet free", () => {
    const printed = [[16, 28, 40], [3224, 6244, 9264], [11744, 22748, 33752]]; // prettier-ignore
    expect([755248, 755600, 755999].map((dma32) => marks_in_kb(managed(dma32)))).toEqual([printed, printed, printed]);
    expect(marks_in_kb(managed(3063680 / 4)).slice(1)).toEqual([[3264, 6324, 9384], [11728, 22732, 33736]]); // prettier-ignore
  });
});

test("C: a boost of 12288 kB is added to all marks", () => {
  with_machine({}, () => {
    const zone = zone_of(0, ZONE_NORMAL);
    const { min, low, high } = zone_watermarks([{ zone: ZONE_NORMAL, managed: 400_000 }], 19692 - 12288)[0]!;
    expect(K(low - min)).toBe(1848);
    const before = [WMARK_MIN, WMARK_LOW, WMARK_HIGH].map((mark) => Zone.watermark.get(zone, mark));
    for (const [mark, pages] of [min, low, high].entries()) Zone.watermark.set(zone, mark, pages);
    Zone.watermark_boost.set(zone, 12288 / 4);
    expect([wmark_pages(zone, WMARK_MIN), wmark_pages(zone, WMARK_LOW), high_wmark_pages(zone)].map(K)).toEqual([19692, 21540, 23388]); // prettier-ignore
    Zone.watermark_boost.set(zone, 0);
    for (const [mark, pages] of before.entries()) Zone.watermark.set(zone, mark, pages);
  });
});
