/** Random operations on objects under the options that change the path; see the long run beside it. */
import { it } from "vitest";
import { with_machine } from "../lib/machine.ts";
import { random_objects } from "../mm/slab_contract.ts";

it("100,000 operations on objects without CPU partial lists agree with a plain model", () => {
  with_machine({ append: "slub_cpu_partial=off" }, () => random_objects(100_000));
});

it("100,000 operations on objects under SLAB agree with a plain model", () => {
  with_machine({ append: "slab=slab" }, () => random_objects(100_000));
});
