/** The amnesia test at 200 moments, over four seeds. */
import { describe, it } from "vitest";
import { amnesia } from "./chain.ts";

describe("the amnesia test", () => {
  for (const seed of [1, 2, 3, 4])
    it(`a realm that ends at any moment loses nothing: 50 moments, seed ${seed}`, () => amnesia(seed, 50, 4000));
});
