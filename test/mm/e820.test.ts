/** The e820 map: tidying, the edits of every PC, gaps, and what is printed and listed of it. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { e820_search_gap, e820_type_name, retype_e820, sanitize_e820, type E820Range } from "../../mm/e820.ts";

const M = 0x100000;
type Row = readonly [start: number, end: number, type: number];
const ranges = (rows: readonly Row[]): E820Range[] => rows.map(([start, end, type]) => ({ start, end, type }));
const rows = (list: readonly E820Range[]): Row[] => list.map(({ start, end, type }) => [start, end, type]);

describe("tidying", () => {
  test.each<[string, Row[], Row[]]>([
    ["sorts", [[2 * M, 3 * M, 1], [0, M, 2]], [[0, M, 2], [2 * M, 3 * M, 1]]],
    ["joins neighbours of one type", [[0, M, 1], [M, 2 * M, 1]], [[0, 2 * M, 1]]],
    ["keeps neighbours of two types apart", [[0, M, 1], [M, 2 * M, 2]], [[0, M, 1], [M, 2 * M, 2]]],
    ["drops empty entries", [[M, M, 1], [0, M, 1]], [[0, M, 1]]],
    ["the highest type wins in the middle", [[0, 4 * M, 1], [M, 2 * M, 3]], [[0, M, 1], [M, 2 * M, 3], [2 * M, 4 * M, 1]]],
    ["the highest type wins at an end", [[0, 2 * M, 4], [M, 3 * M, 2]], [[0, 2 * M, 4], [2 * M, 3 * M, 2]]],
    ["a lower type within a higher vanishes", [[0, 4 * M, 5], [M, 2 * M, 1]], [[0, 4 * M, 5]]],
    ["three at once", [[0, 3 * M, 1], [M, 4 * M, 2], [2 * M, 5 * M, 7]], [[0, M, 1], [M, 2 * M, 2], [2 * M, 5 * M, 7]]],
  ])("%s", (_what, given, expected) => expect(rows(sanitize_e820(ranges(given)))).toEqual(expected)); // prettier-ignore

  test("gives every byte the highest type that was said of it", () => {
    const entry = fc.record({ start: fc.nat(40), size: fc.nat(20), type: fc.integer({ min: 1, max: 5 }) });
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 12 }), (entries) => {
        const given = entries.map(({ start, size, type }) => ({ start, end: start + size, type }));
        const tidy = sanitize_e820(given);
        const type_at = (list: readonly E820Range[], at: number): number =>
          Math.max(0, ...list.filter(({ start, end }) => start <= at && at < end).map(({ type }) => type));
        for (let at = 0; at < 64; at++) expect(type_at(tidy, at)).toBe(type_at(given, at));
        for (const [i, range] of tidy.entries()) {
          expect(range.end).toBeGreaterThan(range.start);
          if (i > 0) expect(range.start).toBeGreaterThanOrEqual(tidy[i - 1].end);
        }
      }),
      { seed: 21, numRuns: 300 },
    );
  });
});

describe("edits", () => {
  const map = ranges([
    [0, 0x9fc00, 1],
    [0x9fc00, M, 2],
    [M, 16 * M, 1],
  ]);

  test("page 0 becomes reserved", () => {
    expect(rows(retype_e820(map, 0, 4096, 1, 2)).slice(0, 2)).toEqual([
      [0, 4096, 2],
      [4096, 0x9fc00, 1],
    ]);
  });

  test("removing touches the named type only", () => {
    expect(retype_e820(map, 0xa0000, M, 1, undefined)).toEqual(map);
    expect(rows(retype_e820(map, 8 * M, 9 * M, 1, undefined)).slice(2)).toEqual([
      [M, 8 * M, 1],
      [9 * M, 16 * M, 1],
    ]);
  });
});

describe("the gap for PCI devices", () => {
  const R = ranges([
    [0, 0x9fc00, 1],
    [M, 0xc0000000, 1],
    [0xeec00000, 0xfec00000, 2],
    [0x100000000, 0x640000000, 1],
  ]);

  test("of a 24 GiB machine", () => expect(e820_search_gap(R)).toEqual({ start: 0xc0000000, end: 0xeec00000 }));

  test("of equal gaps the lower", () => {
    const map = ranges([
      [0, 0x40000000, 1],
      [0x80000000, 0xc0000000, 1],
    ]);
    expect(e820_search_gap(map)).toEqual({ start: 0x40000000, end: 0x80000000 });
  });

  test("none of less than 4 MiB", () => expect(e820_search_gap(ranges([[0, 0xffffffff, 1]]))).toBeUndefined());
});

test("names of types", () => {
  expect([1, 2, 3, 4, 5, 7, 12, 0xefffffff, 9].map(e820_type_name)).toEqual([
    "usable", "reserved", "ACPI data", "ACPI NVS", "unusable", "persistent (type 7)", "persistent (type 12)",
    "soft reserved", "type 9",
  ]); // prettier-ignore
});
