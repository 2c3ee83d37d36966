/** The page allocator against its model: 10^6 operations. */
import { expect, test } from "vitest";
import { with_machine } from "../lib/machine.ts";
import { nr_free } from "../lib/pages.ts";
import { endless_page_ops, run_page_ops } from "../lib/page_model.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { for_each_populated_zone } from "../../mm/zone.ts";

test.each([1, 2, 3, 4])("250,000 operations of seed %d", (seed) => {
  with_machine({ seed }, () => {
    drain_all_pages();
    const before = [...for_each_populated_zone()].map(nr_free);
    run_page_ops(endless_page_ops(seed * 7919, 250_000), 10_000);
    expect([...for_each_populated_zone()].map(nr_free)).toEqual(before);
  });
});
