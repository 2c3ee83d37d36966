/** Struct layouts follow C's rules, and accessors read and write the bytes that C would. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { ram8, ram_zero } from "../../hal/ram.ts";
import { array, struct } from "../../hal/struct.ts";
import { ListHead } from "../../kernel/lib/list.ts";

const AT = 0x200000;

it("lays fields out as C does, and checks a declared size", () => {
  const Inner = struct("inner", { a: "u8", b: "u16" });
  const S = struct("s", { a: "u8", b: "*s", name: "char[5]", words: "u32[3]", list: ListHead, inner: array(Inner, 3), q: "u64" }); // prettier-ignore
  expect(S.layout.map(({ name, offset, size }) => [name, offset, size])).toEqual([
    ["a", 0, 1], ["b", 8, 8], ["name", 16, 5], ["words", 24, 12], ["list", 40, 16], ["inner", 56, 12], ["q", 72, 8],
  ]); // prettier-ignore
  expect([S.sizeof, S.alignof, Inner.sizeof]).toEqual([80, 8, 4]);
  expect(() => struct("wrong", { a: "u32" }, { sizeof: 8 })).toThrow("struct wrong: 4 bytes, declared as 8");
  expect(() => struct("wrong", { a: "u128" as "u64" })).toThrow("no such field type: u128");
});

it("reads back what was written, and writes nothing else", () => {
  const S = struct("s", { a: "u8", b: "u16", c: "u32", d: "s32", e: "u64", p: "*s", name: "char[6]", v: "u16[3]" });
  fc.assert(
    fc.property(
      fc.record({
        a: fc.nat(255),
        b: fc.nat(65535),
        c: fc.nat(0xffffffff),
        d: fc.integer(),
        e: fc.maxSafeNat(),
        p: fc.nat(),
      }),
      fc.string({ maxLength: 5, unit: fc.constantFrom(..."abcXYZ09") }),
      (values, name) => {
        ram_zero(AT - 8, S.sizeof + 16);
        for (const [field, value] of Object.entries(values)) S[field as keyof typeof values].set(AT, value);
        S.name.set(AT, name);
        S.v.set(AT, 1, 7);
        for (const [field, value] of Object.entries(values))
          expect(S[field as keyof typeof values].get(AT)).toBe(value);
        expect(S.name.get(AT)).toBe(name);
        expect([0, 1, 2].map((i) => S.v.get(AT, i))).toEqual([0, 7, 0]);
        expect([...ram8.subarray(AT - 8, AT), ...ram8.subarray(AT + S.sizeof, AT + S.sizeof + 8)]).toEqual(
          Array(16).fill(0),
        );
      },
    ),
    { seed: 7, numRuns: 200 },
  );
});

it("cuts a string to its field and ends it with NUL", () => {
  const S = struct("s", { name: "char[4]", after: "u8" });
  S.after.set(AT, 9);
  S.name.set(AT, "longer");
  expect(S.name.get(AT)).toBe("lon");
  expect(S.after.get(AT)).toBe(9);
});

it("gives structs that differ another hash", () => {
  const one = struct("s", { a: "u32", b: "u32" });
  expect(struct("s", { a: "u32", b: "u32" }).hash).toBe(one.hash);
  expect(struct("s", { b: "u32", a: "u32" }).hash).not.toBe(one.hash);
});
