/**
 * The slab allocators that a machine can be booted with: `--slab NAME`, or `slab=NAME` on the kernel's command line,
 * which lies in RAM, so that whoever attaches chooses the same.
 */
import { cmdline_param } from "../kernel/lib/cmdline.ts";
import { pr_warn } from "../kernel/lib/printk.ts";
import type { SlabOps } from "../mm/slab_common.ts";
import { slob } from "../mm/slob_cache.ts";
import { slab } from "../mm/slab_cache.ts";
import { slub } from "../mm/slub_cache.ts";
import { buddy } from "./compare/buddy.ts";
import { SLAB_ALLOCATORS } from "./slab_names.ts";

const ALLOCATORS: Readonly<Record<(typeof SLAB_ALLOCATORS)[number] | "buddy", SlabOps>> = { slub, slab, slob, buddy };

/** The allocator that the command line names; SLUB where it names none, or one that is not there. */
export function chosen_slab(): SlabOps {
  const name = cmdline_param("slab") ?? "slub";
  const known = ([...SLAB_ALLOCATORS, "buddy"] as const).find((allocator) => allocator === name);
  if (!known) pr_warn(`slab=${name}: no such slab allocator (${SLAB_ALLOCATORS.join(", ")}), slub it is`);
  return ALLOCATORS[known ?? "slub"];
}
