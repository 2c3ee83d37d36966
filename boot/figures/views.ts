/** Which allocator's structs the figures read. */
import { slab_ops, type SlabOps } from "../../mm/slab_common.ts";
import { bonwick_view } from "./slab.ts";
import { slob_view } from "./slob.ts";
import { slub_view } from "./slub.ts";
import type { SlabView } from "./view.ts";

const VIEWS: Readonly<Partial<Record<SlabOps["name"], SlabView>>> = {
  slub: slub_view,
  slob: slob_view,
  slab: bonwick_view,
};

/** How to read the allocator that is booted. */
export function slab_view(): SlabView {
  return VIEWS[slab_ops().name]!;
}
