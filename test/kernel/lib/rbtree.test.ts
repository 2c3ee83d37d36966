/** Red-black trees: order, balance and what augmented nodes say, after every step of random sequences. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { MIB } from "../../../hal/machine.ts";
import { ram_clear } from "../../../hal/ram.ts";
import { struct } from "../../../hal/struct.ts";
import {
  RbNode,
  RbRoot,
  rb_add,
  rb_erase,
  rb_first,
  rb_last,
  rb_next,
  rb_prev,
  type RbPtr,
} from "../../../kernel/lib/rbtree.ts";

const Item = struct("rb_test_item", { pad: "u32", key: "u32", node: RbNode, max: "u32", is_in: "u32" });
const ROOT = 2 * MIB;
const item = (i: number): number => ROOT + 64 + i * Item.sizeof;
const of = (node: RbPtr): number => node - Item.node.offset;
const key = (node: RbPtr): number => Item.key.get(of(node));
const max_of = (node: RbPtr): number => (node === 0 ? 0 : Item.max.get(of(node)));
const by_key = (a: RbPtr, b: RbPtr): boolean => key(a) < key(b);
const largest_key = (node: RbPtr): void =>
  Item.max.set(of(node), Math.max(key(node), max_of(RbNode.left.get(node)), max_of(RbNode.right.get(node))));

/** Checks the subtree at `node`; returns how many black nodes each way down passes. */
function black_height(node: RbPtr, parent: RbPtr, red_parent: boolean): number {
  if (node === 0) return 1;
  const word = RbNode.parent_color.get(node);
  expect(word & ~1).toBe(parent);
  const red = (word & 1) === 1;
  expect(red && red_parent).toBe(false);
  const left = black_height(RbNode.left.get(node), node, red);
  expect(black_height(RbNode.right.get(node), node, red)).toBe(left);
  const keys = [key(node), max_of(RbNode.left.get(node)), max_of(RbNode.right.get(node))];
  expect(max_of(node)).toBe(Math.max(...keys));
  return left + (red ? 0 : 1);
}

function keys_in_order(): number[] {
  const keys: number[] = [];
  for (let node = rb_first(ROOT); node !== 0; node = rb_next(node)) keys.push(key(node));
  const back: number[] = [];
  for (let node = rb_last(ROOT); node !== 0; node = rb_prev(node)) back.push(key(node));
  expect(back.reverse()).toEqual(keys);
  return keys;
}

it("keeps order, balance and augmented values through any insertions and removals", () => {
  const step = fc.record({ i: fc.nat(40), key: fc.nat(30) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      ram_clear(4 * MIB);
      const model = new Map<number, number>();
      for (const { i, key: value } of steps) {
        const node = Item.node.at(item(i));
        if (model.delete(i)) rb_erase(ROOT, node, largest_key);
        else {
          model.set(i, value + 1);
          Item.key.set(item(i), value + 1);
          rb_add(ROOT, node, by_key, largest_key);
        }
        const root = RbRoot.node.get(ROOT);
        if (root !== 0) expect(RbNode.parent_color.get(root)).toBe(0); // black, no parent
        black_height(root, 0, false);
      }
      expect(keys_in_order()).toEqual([...model.values()].sort((a, b) => a - b));
    }),
    { seed: 5, numRuns: 150 },
  );
});

it("is not deeper than twice what it must be", () => {
  ram_clear(4 * MIB);
  for (let i = 0; i < 4095; i++) {
    Item.key.set(item(i), i);
    rb_add(ROOT, Item.node.at(item(i)), by_key);
  }
  const depth = (node: RbPtr): number =>
    node === 0 ? 0 : 1 + Math.max(depth(RbNode.left.get(node)), depth(RbNode.right.get(node)));
  expect(depth(RbRoot.node.get(ROOT))).toBeLessThanOrEqual(24);
  expect(keys_in_order()).toEqual(Array.from({ length: 4095 }, (_, i) => i));
});

it("has equal keys in the order in which they came", () => {
  ram_clear(4 * MIB);
  for (let i = 0; i < 9; i++) {
    Item.key.set(item(i), 7);
    rb_add(ROOT, Item.node.at(item(i)), by_key);
  }
  let i = 0;
  for (let node = rb_first(ROOT); node !== 0; node = rb_next(node)) expect(of(node)).toBe(item(i++));
});
