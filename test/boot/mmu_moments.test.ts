/** At odd moments of a busy machine, in the address spaces of its programs: mmu_moments.ts says who compares what. */
import { describe, it } from "vitest";
import { agree_at_moments, tlbs_forget_in_time } from "./mmu_moments.ts";

describe("the page tables of a busy machine", () => {
  it("translate, allow and refuse as an MMU written from the manual does, at any moment, ring 0 and 3 (A115)", () =>
    agree_at_moments(1, 6));

  it("are what each CPU's TLB remembers and may use, after every entry", () => tlbs_forget_in_time(2, 2000));
});
