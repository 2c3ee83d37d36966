/** The amnesia test at 304 moments: over four seeds, under each of the other two allocators, and with programs that fork. */
import { describe, it } from "vitest";
import { amnesia } from "./chain.ts";

describe("the amnesia test", () => {
  for (const seed of [1, 2, 3, 4])
    it(`a realm that ends at any moment loses nothing: 50 moments, seed ${seed}`, () => amnesia(seed, 50, 4000));

  for (const append of ["slab=slab", "slab=slob"])
    it(`nor under ${append}: 12 moments`, { timeout: 600_000 }, () => amnesia(5, 12, 4000, append));

  for (const seed of [6, 7])
    it(`nor do programs ten forks deep: 40 moments, seed ${seed}`, () =>
      amnesia(seed, 40, 1500, "", "t_amnesia_memory"));
});
