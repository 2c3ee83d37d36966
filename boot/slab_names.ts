/**
 * The names of the slab allocators that `--slab` offers, apart from both the command line and the kernel: who boots a
 * machine from a program must not load the parser, which costs every hot path of the realm a fifth (npm run bench).
 */
export const SLAB_ALLOCATORS = ["slub", "slab", "slob"] as const;
