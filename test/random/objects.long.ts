/** The random object test of every allocator, a million operations. */
import { it } from "vitest";
import { with_machine } from "../lib/machine.ts";
import { random_objects } from "../mm/slab_contract.ts";

for (const append of [
  "",
  "slab_freelist_random=on slab_freelist_hardened=on slab_full=off",
  "slub_cpu_partial=off",
  "slab=slab",
  "slab=slab slab_freelist_random=on noaliencache",
  "slab=slob",
])
  it(`a million operations on objects agree with a plain model (${append || "defaults"})`, () => {
    with_machine({ append }, () => random_objects(1_000_000));
  });
