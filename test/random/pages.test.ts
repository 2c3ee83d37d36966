/** The page allocator against a plain model of which frames are live. Seeds are fixed; a failure prints the operations. */
import { expect, test } from "vitest";
import fc from "fast-check";
import { with_machine } from "../lib/machine.ts";
import { nr_free } from "../lib/pages.ts";
import { endless_page_ops, page_op, run_page_ops } from "../lib/page_model.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { for_each_populated_zone } from "../../mm/zone.ts";

test("random operations never overlap, lose or misplace a page, and everything merges again", () => {
  const property = fc.property(fc.array(page_op, { maxLength: 1000, size: "max" }), (ops) => {
    with_machine({}, () => run_page_ops(ops, 100));
  });
  fc.assert(property, { numRuns: 20, seed: 20260 });
});

test("after 80,000 operations each zone has the same free blocks as before", () => {
  with_machine({}, () => {
    drain_all_pages();
    const before = [...for_each_populated_zone()].map(nr_free);
    run_page_ops(endless_page_ops(4711, 80_000), 4000);
    expect([...for_each_populated_zone()].map(nr_free)).toEqual(before);
  });
});

test("the same operations give the same pages", () => {
  const states = [1, 2].map(() =>
    with_machine({}, () => {
      const seen: string[] = [];
      run_page_ops(endless_page_ops(99, 3000), 1000);
      for (const zone of for_each_populated_zone()) seen.push(nr_free(zone).join());
      return seen;
    }),
  );
  expect(states[0]).toEqual(states[1]);
});
