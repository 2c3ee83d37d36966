/**
 * What the console, the replay and the fault sweeps read of a slab allocator that only this allocator's own structs say:
 * one record an allocator, in slub.ts and its like; boot/figures/views.ts knows which one is booted.
 *
 * Readers take no lock and trust nothing: each pointer is checked before it is followed, each walk is bounded.
 */
import type { NodeId, Obj, Ptr } from "../../hal/addr.ts";
import { Page, Slab, mem_map_state, page_is_slab, type PagePtr, type SlabPtr } from "../../mm/page.ts";
import { KmemCache, type CachePtr } from "../../mm/slab_common.ts";
import { for_each_online_node } from "../../mm/zone.ts";
import type { Held } from "../commands/registry.ts";

/** Where a slab is: its letters, and the list (or the CPU) that has it. */
export interface SlabPlace {
  readonly id: string;
  readonly on: string;
}
/** What every `slab NAME --json` has; each allocator adds its own tables. */
export interface CacheFigure {
  readonly name: string;
  /** In order of birth. */
  readonly slabs: readonly SlabPlace[];
  /** What is wrong with the lists; absent if nothing is. */
  readonly broken?: string[];
}

/** What lies at an address inside a slab page: the slab's part of what `explain --json` prints. */
export interface InSlab {
  readonly cache: string;
  readonly slab?: string;
  /** Where the slab is: "cpu 0", "partial", … */
  readonly on?: string;
  /** Index in the slab; absent in the bytes that belong to no slot. */
  readonly object?: number;
  /** Bytes from the object's first byte; negative in front of it. */
  readonly offset?: number;
  /** Bytes from one object to the next. */
  readonly slot?: number;
  readonly free?: boolean;
  /** Free: in which list, and where in it. */
  readonly where?: string;
  /** What bytes that belong to no slot are, if not what is left over behind the last. */
  readonly part?: string;
  /** SLOB: the block, in words; there are no slots. */
  readonly what?: string;
  readonly owner?: string;
}

/** Where an object lies that lies in no slab. */
export interface BlockPlace {
  /** The page, or the first of those that it has for itself. */
  readonly head: PagePtr;
  readonly pages: number;
  /** Bytes that it takes there. */
  readonly slot: number;
  /** Bytes of them that may be written. */
  readonly usable: number;
  /** No free block of the page overlaps it. */
  readonly in_use: boolean;
}

/** All pages of an allocator: bytes, and where they are. */
export interface Usage {
  readonly bytes: number;
  /** Live objects: what was asked for each, and what a slot is larger. */
  readonly live: number;
  readonly padding: number;
  /** Slots that are free, and the ends of slabs that make no slot. */
  readonly free: number;
  readonly tails: number;
}

export interface SlabView {
  /** Every slab of a cache in order of birth; what is wrong with the lists is added to `broken`. */
  slabs_of(cache: CachePtr, broken?: string[]): SlabPtr[];
  /** Objects of a slab, at most what can be counted. */
  nr_objects(cache: CachePtr, slab: SlabPtr): number;
  /** First byte of object `index`. */
  object_at(cache: CachePtr, slab: SlabPtr, index: number): Obj;
  /** Reads a cache from RAM. */
  figure(cache: CachePtr): CacheFigure;
  /** The figure as text, at most 80 columns; one screen, unless `all` slabs are wanted. */
  draw(figure: CacheFigure, all: boolean): string;
  /** Reads what an address inside a slab is. `head`: the page that heads it. */
  locate(ptr: Ptr, head: SlabPtr, held?: Held): InSlab;

  // For an allocator whose objects lie in no slabs.
  /** The figure of one of its lists of pages; undefined for any other name. */
  list_figure?(name: string): CacheFigure | undefined;
  /** Where an object is, of kmalloc if `cache` is NULL; undefined if it has pages of its own from there. */
  find_block?(object: Obj, cache: CachePtr): BlockPlace | undefined;
  usage?(): Usage;
  /** Pages it has from the page allocator. */
  pages_held?(): number;

  // Counters; they cost no walk.
  /** Slabs of a cache on all nodes. */
  nr_slabs(cache: CachePtr): number;
  /** A count that moves by one with each object that this CPU takes from a cache (NULL: by kmalloc, in no slab). */
  counted_allocs(cache: CachePtr): number;
  /** The same of objects that it gives back. */
  counted_frees(cache: CachePtr): number;
  /** Objects that were ever handed out, by all CPUs. */
  served(cache: CachePtr): number;
}

/** The parts of a cache that are there, by node. */
export function cache_nodes(cache: CachePtr): (readonly [node: NodeId, part: Ptr])[] {
  return [...for_each_online_node()]
    .map((node) => [node, KmemCache.node.get(cache, node)] as const)
    .filter(([, part]) => part !== 0);
}

/** True if `slab` is the head of a slab of this cache: what every walk asks before it follows a pointer. */
export function is_slab_of(cache: CachePtr, slab: SlabPtr): boolean {
  const offset = slab - mem_map_state.mem_map;
  if (offset < 0 || offset >= mem_map_state.max_pfn * Page.sizeof || offset % Page.sizeof !== 0) return false;
  return page_is_slab(slab as Ptr) && Slab.slab_cache.get(slab) === cache;
}

/** Oldest first. */
export function by_birth(slabs: SlabPtr[]): SlabPtr[] {
  return slabs.sort((a, b) => Slab.birth.get(a) - Slab.birth.get(b));
}
