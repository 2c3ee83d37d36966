/**
 * GFP flags: what an allocation may do and which memory it wants. The bits are those of Linux 6.18.
 */

export const __GFP_DMA = 0x1;
export const __GFP_HIGHMEM = 0x2;
export const __GFP_DMA32 = 0x4;
export const __GFP_MOVABLE = 0x8;
export const __GFP_RECLAIMABLE = 0x10;
export const __GFP_HIGH = 0x20;
export const __GFP_IO = 0x40;
export const __GFP_FS = 0x80;
export const __GFP_ZERO = 0x100;
export const __GFP_DIRECT_RECLAIM = 0x400;
export const __GFP_KSWAPD_RECLAIM = 0x800;
export const __GFP_WRITE = 0x1000;
export const __GFP_NOWARN = 0x2000;
export const __GFP_RETRY_MAYFAIL = 0x4000;
export const __GFP_NOFAIL = 0x8000;
export const __GFP_NORETRY = 0x10000;
export const __GFP_MEMALLOC = 0x20000;
export const __GFP_COMP = 0x40000;
export const __GFP_NOMEMALLOC = 0x80000;
export const __GFP_HARDWALL = 0x100000;
export const __GFP_THISNODE = 0x200000;
export const __GFP_ACCOUNT = 0x400000;
export const __GFP_ZEROTAGS = 0x800000;
export const __GFP_NO_OBJ_EXT = 0x1000000;
/** Every bit that has a meaning. */
export const __GFP_BITS_MASK = 0x1ffffff;
export const __GFP_RECLAIM = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM;

export const GFP_ATOMIC = __GFP_HIGH | __GFP_KSWAPD_RECLAIM;
export const GFP_KERNEL = __GFP_RECLAIM | __GFP_IO | __GFP_FS;
export const GFP_KERNEL_ACCOUNT = GFP_KERNEL | __GFP_ACCOUNT;
export const GFP_NOWAIT = __GFP_KSWAPD_RECLAIM | __GFP_NOWARN;
export const GFP_NOIO = __GFP_RECLAIM;
export const GFP_NOFS = __GFP_RECLAIM | __GFP_IO;
export const GFP_USER = GFP_KERNEL | __GFP_HARDWALL;
export const GFP_DMA = __GFP_DMA;
export const GFP_DMA32 = __GFP_DMA32;
export const GFP_HIGHUSER = GFP_USER | __GFP_HIGHMEM;
export const GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | __GFP_MOVABLE;
export const GFP_TRANSHUGE_LIGHT =
  (GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NOWARN) & ~__GFP_RECLAIM;
export const GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM;
/** What the slab layer hands on to the page allocator; the rest of a caller's flags stays with it. */
export const GFP_RECLAIM_MASK =
  __GFP_RECLAIM | __GFP_HIGH | __GFP_IO | __GFP_FS | __GFP_NOWARN | __GFP_RETRY_MAYFAIL | __GFP_NOFAIL |
  __GFP_NORETRY | __GFP_MEMALLOC | __GFP_NOMEMALLOC; // prettier-ignore
/** No preference: the node of the CPU that asks. */
export const NUMA_NO_NODE = -1;

/** Zone numbers; a request may use its zone and those below it. */
export const ZONE_DMA = 0;
export const ZONE_DMA32 = 1;
export const ZONE_NORMAL = 2;
export const ZONE_MOVABLE = 3;
export const ZONE_DEVICE = 4;
export const MAX_NR_ZONES = 5;
export const ZONE_NAMES: readonly string[] = Object.freeze(["DMA", "DMA32", "Normal", "Movable", "Device"]);

export const MIGRATE_UNMOVABLE = 0;
export const MIGRATE_MOVABLE = 1;
export const MIGRATE_RECLAIMABLE = 2;
export const MIGRATE_HIGHATOMIC = 3;
export const MIGRATE_ISOLATE = 4;
export const MIGRATE_PCPTYPES = 3;
export const MIGRATE_TYPES = 5;
export const MIGRATE_NAMES: readonly string[] = Object.freeze([
  "Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate",
]); // prettier-ignore

/** The highest zone that a request may use: by the low four bits; combinations that Linux calls invalid give Normal. */
export function gfp_zone(gfp: number): number {
  const bits = gfp & 0xf;
  if (bits === 0 || bits === __GFP_MOVABLE) return ZONE_NORMAL;
  if (bits === (__GFP_HIGHMEM | __GFP_MOVABLE)) return ZONE_MOVABLE;
  if (bits === __GFP_DMA || bits === (__GFP_DMA | __GFP_MOVABLE)) return ZONE_DMA;
  if (bits === __GFP_DMA32 || bits === (__GFP_DMA32 | __GFP_MOVABLE)) return ZONE_DMA32;
  return ZONE_NORMAL;
}

/** The list that a request is served from, and the type its page block gets if it is claimed. */
export function gfp_migratetype(gfp: number): number {
  return (gfp & (__GFP_MOVABLE | __GFP_RECLAIMABLE)) >> 3;
}

export function gfpflags_allow_blocking(gfp: number): boolean {
  return (gfp & __GFP_DIRECT_RECLAIM) !== 0;
}

/** Names in the order in which `%pGg` tries them. */
const COMPOSITES: readonly (readonly [string, number])[] = Object.freeze([
  ["GFP_TRANSHUGE", GFP_TRANSHUGE], ["GFP_TRANSHUGE_LIGHT", GFP_TRANSHUGE_LIGHT],
  ["GFP_HIGHUSER_MOVABLE", GFP_HIGHUSER_MOVABLE], ["GFP_HIGHUSER", GFP_HIGHUSER], ["GFP_USER", GFP_USER],
  ["GFP_KERNEL_ACCOUNT", GFP_KERNEL_ACCOUNT], ["GFP_KERNEL", GFP_KERNEL], ["GFP_NOFS", GFP_NOFS],
  ["GFP_ATOMIC", GFP_ATOMIC], ["GFP_NOIO", GFP_NOIO], ["GFP_NOWAIT", GFP_NOWAIT], ["GFP_DMA", GFP_DMA],
  ["GFP_DMA32", GFP_DMA32], ["__GFP_RECLAIM", __GFP_RECLAIM],
]); // prettier-ignore
const SINGLES: readonly (readonly [string, number])[] = Object.freeze([
  ["__GFP_DMA", 0x1], ["__GFP_HIGHMEM", 0x2], ["__GFP_DMA32", 0x4], ["__GFP_MOVABLE", 0x8],
  ["__GFP_RECLAIMABLE", 0x10], ["__GFP_HIGH", 0x20], ["__GFP_IO", 0x40], ["__GFP_FS", 0x80], ["__GFP_ZERO", 0x100],
  ["__GFP_DIRECT_RECLAIM", 0x400], ["__GFP_KSWAPD_RECLAIM", 0x800], ["__GFP_WRITE", 0x1000],
  ["__GFP_NOWARN", 0x2000], ["__GFP_RETRY_MAYFAIL", 0x4000], ["__GFP_NOFAIL", 0x8000], ["__GFP_NORETRY", 0x10000],
  ["__GFP_MEMALLOC", 0x20000], ["__GFP_COMP", 0x40000], ["__GFP_NOMEMALLOC", 0x80000], ["__GFP_HARDWALL", 0x100000],
  ["__GFP_THISNODE", 0x200000], ["__GFP_ACCOUNT", 0x400000], ["__GFP_ZEROTAGS", 0x800000],
  ["__GFP_NO_OBJ_EXT", 0x1000000],
]); // prettier-ignore

/** `%pGg`: `GFP_KERNEL|__GFP_ZERO`; empty for 0. */
export function format_gfp(gfp: number): string {
  const names: string[] = [];
  let rest = gfp;
  for (const [name, mask] of [...COMPOSITES, ...SINGLES]) {
    if ((rest & mask) !== mask) continue;
    names.push(name);
    rest &= ~mask;
  }
  if (rest !== 0) names.push(`0x${(rest >>> 0).toString(16)}`);
  return names.join("|");
}

/** Reads names joined by `|`, hex numbers, or `none`; NaN where a name is unknown. */
export function parse_gfp(text: string): number {
  let gfp = 0;
  for (const name of text.split("|")) {
    const known = [...COMPOSITES, ...SINGLES].find(([candidate]) => candidate === name);
    if (known) gfp |= known[1];
    else if (/^0x[0-9a-f]+$/i.test(name)) gfp |= parseInt(name, 16);
    else if (name !== "none" && name !== "0") return NaN;
  }
  return gfp;
}
