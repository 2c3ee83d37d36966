/** SLOB with nothing to start from: for tests that say where each block will be. */
import { GFP_KERNEL, NUMA_NO_NODE } from "../../mm/gfp.ts";
import { slob_alloc, slob_data, slob_free, slob_units, type SlobPagePtr } from "../../mm/slob.ts";
import { free_blocks, slob_list_pages, slob_pages } from "../../mm/slob_check.ts";
import { with_machine } from "../lib/machine.ts";

/** The smallest block of each list. */
const SMALLEST = { small: 2, medium: 256, large: 1024 } as const;

/**
 * Boots a machine under SLOB, fills the pages that booting left until no block of their list fits any more, and runs
 * `test`: so its first block of each list lies in a page of its own. `old` are the pages from before.
 */
export function with_fresh_slob(test: (old: ReadonlySet<SlobPagePtr>) => void): void {
  with_machine({ append: "slab=slob" }, () => {
    const filled: (readonly [block: number, bytes: number])[] = [];
    for (const name of ["small", "medium", "large"] as const) {
      const bytes = SMALLEST[name];
      const has_room = (page: SlobPagePtr): boolean =>
        [...free_blocks(page)].some(([, units]) => units >= slob_units(bytes));
      while ([...slob_list_pages(name)].some(has_room))
        filled.push([slob_alloc(bytes, GFP_KERNEL, 2, NUMA_NO_NODE, 0), bytes]);
    }
    const units = filled.reduce((sum, [, bytes]) => sum + slob_units(bytes), 0);
    slob_data.lost_units = slob_data.lost_units + units; // or validate would miss them
    test(new Set(slob_pages()));
    for (const [block, bytes] of filled.reverse()) slob_free(block, bytes);
    slob_data.lost_units = slob_data.lost_units - units;
  });
}
