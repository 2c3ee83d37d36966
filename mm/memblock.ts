/**
 * memblock: memory management before there is an allocator. Two sorted arrays of address ranges, and that is all:
 *
 *     memory    |######|  |###############|      what is RAM (with its node)
 *     reserved     |##|      |####|     |#|      what of it is taken
 *     free      |##|  ||  |##|    |#####|        memory less reserved: never stored, computed while walking
 *
 * To allocate is to find a hole in `reserved` over `memory` and to reserve it: from the top of memory downwards, or, if
 * set so, upwards. When all structures stand, `memblock_free_all` (mm/mm_init.ts) hands what is free to the buddy
 * allocator; from then on this is only a record.
 *
 * Ranges of one array never overlap; two that touch are one, unless their node or flags differ. An empty array has
 * `cnt` 0 and one dummy region of size 0. Each array starts with 128 slots in the kernel's data and doubles into memory
 * that it takes from itself.
 *
 * Addresses are `Phys`: they may lie beyond RAM, up to 2^52. Only what lies in RAM is zeroed on allocation.
 *
 * Locks: none; one CPU runs while memblock is in use.
 * Unlike Linux: no mirrored memory, no movable_node, no kexec hand-over, no array from the slab, and no hand-over of late
 * calls to it: once memory is up an allocation warns and returns 0.
 * See: Linux Documentation/core-api/boot-time-mm.rst.
 */
import {
  L1_CACHE_BYTES,
  NULL,
  PAGE_SIZE,
  align_down,
  align_up,
  hex,
  type NodeId,
  type Phys,
  type Ptr,
} from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ram_copy, ram_fill, ram_limit } from "../hal/ram.ts";
import { array, struct } from "../hal/struct.ts";
import { WARN_ON, panic } from "../kernel/lib/bug.ts";
import { cmdline_param } from "../kernel/lib/cmdline.ts";
import { pr_info } from "../kernel/lib/printk.ts";
import { NUMA_NO_NODE } from "./gfp.ts";
import { MAX_NUMNODES } from "./zone.ts";

/** Region flags; Linux also has MIRROR 0x2, RSRV_NOINIT 0x10 and KHO_SCRATCH 0x40. */
export const MEMBLOCK_NONE = 0;
export const MEMBLOCK_HOTPLUG = 0x1;
export const MEMBLOCK_NOMAP = 0x4; // in RAM, not in the direct map: never handed out
const MEMBLOCK_DRIVER_MANAGED = 0x8;
export const MEMBLOCK_RSRV_KERN = 0x20; // reserved by an allocation of the kernel

/** One past the last physical address there can be. */
export const PHYS_ADDR_MAX: Phys = 2 ** 52;
/** An upper limit: up to `current_limit`, what the kernel can reach. */
export const MEMBLOCK_ALLOC_ACCESSIBLE = 0;
export const MEMBLOCK_LOW_LIMIT = 0;
export const INIT_MEMBLOCK_REGIONS = 128;

export const MemblockRegion = struct("memblock_region", { base: "u64", size: "u64", nid: "s32", flags: "u32" });
export const MemblockType = struct("memblock_type", {
  cnt: "u32",
  max: "u32",
  total_size: "u64",
  regions: "*memblock_region",
  name: "char[16]",
});
export type TypePtr = Ptr<"memblock_type">;
type RegionPtr = Ptr<"memblock_region">;

const memblock = static_data("memblock", {
  memory: MemblockType,
  reserved: MemblockType,
  current_limit: "u64",
  bottom_up: "u32",
  debug: "u32",
  closed: "u32", // the buddy allocator has taken over
  memory_regions: array(MemblockRegion, INIT_MEMBLOCK_REGIONS),
  reserved_regions: array(MemblockRegion, INIT_MEMBLOCK_REGIONS),
});
export const memblock_memory: TypePtr = memblock.memory;
export const memblock_reserved: TypePtr = memblock.reserved;

export interface Region {
  readonly base: Phys;
  readonly size: number;
  readonly nid: number;
  readonly flags: number;
}
export interface PhysRange {
  readonly start: Phys;
  readonly end: Phys;
}

/** Empties both arrays. Boot does it first of all. */
export function memblock_init(): void {
  init_type(memblock_memory, "memory", memblock.memory_regions.at(0));
  init_type(memblock_reserved, "reserved", memblock.reserved_regions.at(0));
  memblock.current_limit = PHYS_ADDR_MAX;
  memblock.bottom_up = 0;
  memblock.closed = 0;
  memblock.debug = cmdline_param("memblock") === "debug" ? 1 : 0;
}

function init_type(type: TypePtr, name: string, regions: RegionPtr): void {
  MemblockType.cnt.set(type, 0);
  MemblockType.max.set(type, INIT_MEMBLOCK_REGIONS);
  MemblockType.total_size.set(type, 0);
  MemblockType.regions.set(type, regions);
  MemblockType.name.set(type, name);
  set_region(regions, 0, 0, MAX_NUMNODES, 0);
}

function region_at(type: TypePtr, index: number): RegionPtr {
  return MemblockType.regions.get(type) + index * MemblockRegion.sizeof;
}

function region_end(region: RegionPtr): Phys {
  return MemblockRegion.base.get(region) + MemblockRegion.size.get(region);
}

function set_region(region: RegionPtr, base: Phys, size: number, nid: number, flags: number): void {
  MemblockRegion.base.set(region, base);
  MemblockRegion.size.set(region, size);
  MemblockRegion.nid.set(region, nid);
  MemblockRegion.flags.set(region, flags);
}

/** The regions of an array, lowest first. The array must not change meanwhile. */
export function* for_each_mem_region(type: TypePtr): Generator<Region> {
  for (let i = 0; i < MemblockType.cnt.get(type); i++) {
    const region = region_at(type, i);
    yield {
      base: MemblockRegion.base.get(region),
      size: MemblockRegion.size.get(region),
      nid: MemblockRegion.nid.get(region),
      flags: MemblockRegion.flags.get(region),
    };
  }
}

export function memblock_phys_mem_size(): number {
  return MemblockType.total_size.get(memblock_memory);
}

export function memblock_reserved_size(): number {
  return MemblockType.total_size.get(memblock_reserved);
}

/** Allocates from the bottom of memory (`true`) or from its top. */
export function memblock_set_bottom_up(enable: boolean): void {
  memblock.bottom_up = enable ? 1 : 0;
}

export function memblock_bottom_up(): boolean {
  return memblock.bottom_up !== 0;
}

/** Nothing above `limit` is handed out to who asks for "accessible" memory. */
export function memblock_set_current_limit(limit: Phys): void {
  memblock.current_limit = limit;
}

export function memblock_get_current_limit(): Phys {
  return memblock.current_limit;
}

/* Changing an array */

function cap_size(base: Phys, size: number): number {
  return Math.max(0, Math.min(size, PHYS_ADDR_MAX - base));
}

function insert_region(type: TypePtr, index: number, base: Phys, size: number, nid: number, flags: number): void {
  const cnt = MemblockType.cnt.get(type);
  const region = region_at(type, index);
  ram_copy(region + MemblockRegion.sizeof, region, (cnt - index) * MemblockRegion.sizeof);
  set_region(region, base, size, nid, flags);
  MemblockType.cnt.set(type, cnt + 1);
  MemblockType.total_size.set(type, MemblockType.total_size.get(type) + size);
}

function remove_region(type: TypePtr, index: number): void {
  const cnt = MemblockType.cnt.get(type) - 1;
  const region = region_at(type, index);
  MemblockType.total_size.set(type, MemblockType.total_size.get(type) - MemblockRegion.size.get(region));
  ram_copy(region, region + MemblockRegion.sizeof, (cnt - index) * MemblockRegion.sizeof);
  MemblockType.cnt.set(type, cnt);
  if (cnt === 0) set_region(region_at(type, 0), 0, 0, MAX_NUMNODES, 0);
}

/** Joins neighbours that touch and agree in node and flags. */
function merge_regions(type: TypePtr): void {
  for (let i = 0; i < MemblockType.cnt.get(type) - 1;) {
    const here = region_at(type, i);
    const next = region_at(type, i + 1);
    const same =
      region_end(here) === MemblockRegion.base.get(next) &&
      MemblockRegion.nid.get(here) === MemblockRegion.nid.get(next) &&
      MemblockRegion.flags.get(here) === MemblockRegion.flags.get(next);
    if (!same) {
      i++;
      continue;
    }
    const size = MemblockRegion.size.get(next);
    remove_region(type, i + 1);
    MemblockRegion.size.set(here, MemblockRegion.size.get(here) + size);
    MemblockType.total_size.set(type, MemblockType.total_size.get(type) + size);
  }
}

/** The parts of [base, end) that no region covers, each with the index at which a region of it belongs. */
function* uncovered(type: TypePtr, base: Phys, end: Phys): Generator<PhysRange & { index: number }> {
  let start = base;
  let index = 0;
  // The consumer may insert the part it gets at `index`; the walk then meets it as a region that ends at `start`.
  for (; index < MemblockType.cnt.get(type); index++) {
    const region = region_at(type, index);
    const region_base = MemblockRegion.base.get(region);
    if (region_base >= end) break;
    if (region_end(region) <= start) continue;
    if (region_base > start) {
      yield { start, end: region_base, index };
      start = region_base;
      index--; // look at the same region again, one slot higher if the part was inserted
    } else start = Math.min(region_end(region), end);
  }
  if (start < end) yield { start, end, index };
}

/**
 * Adds [base, base + size) to an array. Where a region covers it already, that region stays as it is; the uncovered
 * parts become regions with `nid` and `flags`, and neighbours are joined.
 */
function add_range(type: TypePtr, base: Phys, size: number, nid: number, flags: number): void {
  const end = base + cap_size(base, size);
  if (end <= base) return;
  // At most one part before each region and one behind the last: no need to count if so many slots are free.
  if (MemblockType.cnt.get(type) * 2 + 1 > MemblockType.max.get(type)) {
    let parts = 0;
    for (const _ of uncovered(type, base, end)) parts++;
    while (parts > 0 && MemblockType.cnt.get(type) + parts > MemblockType.max.get(type))
      double_array(type, base, end - base);
  }
  for (const part of uncovered(type, base, end))
    insert_region(type, part.index, part.start, part.end - part.start, nid, flags);
  merge_regions(type);
}

/**
 * Doubles an array into free memory, page-aligned, which it reserves. Keeps off [base, base + size): that range is
 * about to be reserved itself. Prefers memory above it.
 */
function double_array(type: TypePtr, base: Phys, size: number): void {
  const old_bytes = MemblockType.max.get(type) * MemblockRegion.sizeof;
  const bytes = align_up(old_bytes * 2, PAGE_SIZE);
  const limit = Math.min(memblock.current_limit, ram_limit); // the array itself has to lie in RAM
  const avoid = type === memblock_reserved ? { start: base, end: base + size } : { start: 0, end: 0 };
  const addr =
    find_in_range(bytes, PAGE_SIZE, Math.max(avoid.end, PAGE_SIZE), limit, NUMA_NO_NODE) ||
    find_in_range(bytes, PAGE_SIZE, PAGE_SIZE, Math.min(avoid.start, limit), NUMA_NO_NODE);
  const name = MemblockType.name.get(type);
  const max = MemblockType.max.get(type) * 2;
  if (addr === 0) panic(`memblock: failed to double ${name} array from ${max / 2} to ${max} entries`);
  if (memblock.debug) pr_info(`memblock: ${name} is doubled to ${max} at [${pa(addr)}-${pa(addr + bytes - 1)}]`);
  const old = MemblockType.regions.get(type);
  ram_copy(addr, old, old_bytes);
  MemblockType.regions.set(type, addr as number);
  MemblockType.max.set(type, max);
  const first = type === memblock_memory ? memblock.memory_regions.at(0) : memblock.reserved_regions.at(0);
  if (old !== first) memblock_phys_free(old as number, align_up(old_bytes, PAGE_SIZE));
  memblock_reserve_kern(addr, bytes);
}

/** Splits regions at both ends of a range, so that it is covered by whole regions; their indices [first, last). */
function isolate_range(type: TypePtr, base: Phys, size: number): { first: number; last: number } {
  const end = base + cap_size(base, size);
  if (end <= base) return { first: 0, last: 0 };
  while (MemblockType.cnt.get(type) + 2 > MemblockType.max.get(type)) double_array(type, base, end - base);
  split_at(type, base);
  split_at(type, end);
  let first = 0;
  while (first < MemblockType.cnt.get(type) && region_end(region_at(type, first)) <= base) first++;
  let last = first;
  while (last < MemblockType.cnt.get(type) && region_end(region_at(type, last)) <= end) last++;
  return { first, last };
}

/** Cuts the region that has `addr` inside, if there is one, in two. */
function split_at(type: TypePtr, addr: Phys): void {
  for (let i = 0; i < MemblockType.cnt.get(type); i++) {
    const region = region_at(type, i);
    const base = MemblockRegion.base.get(region);
    const end = region_end(region);
    if (base >= addr || end <= addr) continue;
    const nid = MemblockRegion.nid.get(region);
    const flags = MemblockRegion.flags.get(region);
    MemblockRegion.size.set(region, addr - base);
    MemblockType.total_size.set(type, MemblockType.total_size.get(type) - (end - addr));
    insert_region(type, i + 1, addr, end - addr, nid, flags);
    return;
  }
}

function remove_range(type: TypePtr, base: Phys, size: number): void {
  const { first, last } = isolate_range(type, base, size);
  for (let i = last - 1; i >= first; i--) remove_region(type, i);
}

/** Adds RAM. */
export function memblock_add(base: Phys, size: number): void {
  debug_range("memblock_add", base, size);
  add_range(memblock_memory, base, size, MAX_NUMNODES, MEMBLOCK_NONE);
}

/** Adds RAM of a node. */
export function memblock_add_node(base: Phys, size: number, nid: NodeId, flags: number): void {
  debug_range("memblock_add_node", base, size, ` nid=${nid} flags=${hex(flags)}`);
  add_range(memblock_memory, base, size, nid, flags);
}

export function memblock_remove(base: Phys, size: number): void {
  debug_range("memblock_remove", base, size);
  remove_range(memblock_memory, base, size);
}

/** Keeps a range from being handed out; it need not be RAM. */
export function memblock_reserve(base: Phys, size: number): void {
  __memblock_reserve(base, size, NUMA_NO_NODE, MEMBLOCK_NONE);
}

/** Reserves a range for the kernel's own data, as allocations are. */
export function memblock_reserve_kern(base: Phys, size: number): void {
  __memblock_reserve(base, size, NUMA_NO_NODE, MEMBLOCK_RSRV_KERN);
}

function __memblock_reserve(base: Phys, size: number, nid: number, flags: number): void {
  debug_range("__memblock_reserve", base, size, ` nid=${nid} flags=${hex(flags)}`);
  add_range(memblock_reserved, base, size, nid, flags);
}

/** Gives back what was reserved or allocated. */
export function memblock_phys_free(base: Phys, size: number): void {
  debug_range("memblock_phys_free", base, size);
  remove_range(memblock_reserved, base, size);
}

/** The same for a pointer; NULL is nothing. */
export function memblock_free(ptr: Ptr, size: number): void {
  if (ptr !== NULL) memblock_phys_free(ptr, size);
}

/** Shrinks each region of RAM to whole multiples of `align`; what vanishes is removed. */
export function memblock_trim_memory(align: number): void {
  for (let i = 0; i < MemblockType.cnt.get(memblock_memory); i++) {
    const region = region_at(memblock_memory, i);
    const size = MemblockRegion.size.get(region);
    const start = align_up(MemblockRegion.base.get(region), align);
    const end = align_down(region_end(region), align);
    if (start >= end) {
      remove_region(memblock_memory, i--);
      continue;
    }
    MemblockRegion.base.set(region, start);
    MemblockRegion.size.set(region, end - start);
    MemblockType.total_size.set(memblock_memory, memblock_phys_mem_size() - size + (end - start));
  }
}

/** Says to which node a range of an array belongs. */
export function memblock_set_node(base: Phys, size: number, type: TypePtr, nid: NodeId): void {
  const { first, last } = isolate_range(type, base, size);
  for (let i = first; i < last; i++) MemblockRegion.nid.set(region_at(type, i), nid);
  merge_regions(type);
}

function set_flag(base: Phys, size: number, set: number, clear: number): void {
  const { first, last } = isolate_range(memblock_memory, base, size);
  for (let i = first; i < last; i++) {
    const region = region_at(memblock_memory, i);
    MemblockRegion.flags.set(region, (MemblockRegion.flags.get(region) & ~clear) | set);
  }
  merge_regions(memblock_memory);
}

/** Keeps RAM out of the direct map: it stays known, and is never handed out. */
export function memblock_mark_nomap(base: Phys, size: number): void {
  set_flag(base, size, MEMBLOCK_NOMAP, 0);
}

export function memblock_clear_nomap(base: Phys, size: number): void {
  set_flag(base, size, 0, MEMBLOCK_NOMAP);
}

/* Asking */

/** True if a region of the array has an address in common with [base, base + size). */
export function memblock_overlaps_region(type: TypePtr, base: Phys, size: number): boolean {
  const end = base + cap_size(base, size);
  for (const region of for_each_mem_region(type))
    if (region.base < end && base < region.base + region.size) return true;
  return false;
}

function find_region(type: TypePtr, addr: Phys): Region | undefined {
  for (const region of for_each_mem_region(type))
    if (addr >= region.base && addr < region.base + region.size) return region;
  return undefined;
}

export function memblock_is_memory(addr: Phys): boolean {
  return find_region(memblock_memory, addr) !== undefined;
}

export function memblock_is_reserved(addr: Phys): boolean {
  return find_region(memblock_reserved, addr) !== undefined;
}

function may_hand_out(region: Region, nid: number): boolean {
  if (nid !== NUMA_NO_NODE && region.nid !== nid) return false;
  return (region.flags & (MEMBLOCK_NOMAP | MEMBLOCK_DRIVER_MANAGED)) === 0;
}

/** Free ranges of a node (or of all, NUMA_NO_NODE), lowest first: memory less reserved. Nothing may change meanwhile. */
export function* for_each_free_mem_range(nid: number): Generator<PhysRange> {
  const nr_reserved = MemblockType.cnt.get(memblock_reserved);
  let at = 0; // no reserved region below this index reaches into what follows
  for (const region of for_each_mem_region(memblock_memory)) {
    if (!may_hand_out(region, nid)) continue;
    const end = region.base + region.size;
    let start = region.base;
    while (at < nr_reserved && region_end(region_at(memblock_reserved, at)) <= start) at++;
    for (let i = at; i < nr_reserved && start < end; i++) {
      const reserved = region_at(memblock_reserved, i);
      const base = MemblockRegion.base.get(reserved);
      if (base >= end) break;
      if (base > start) yield { start, end: base };
      start = Math.max(start, region_end(reserved));
    }
    if (start < end) yield { start, end };
  }
}

/** Ranges of whole pages that are RAM of a node (or of all), in page frames. */
export function* for_each_mem_pfn_range(nid: number): Generator<{ start: number; end: number; nid: number }> {
  for (const region of for_each_mem_region(memblock_memory)) {
    if (nid !== NUMA_NO_NODE && region.nid !== nid) continue;
    const start = align_up(region.base, PAGE_SIZE) / PAGE_SIZE;
    const end = align_down(region.base + region.size, PAGE_SIZE) / PAGE_SIZE;
    if (start < end) yield { start, end, nid: region.nid };
  }
}

/* Allocating */

/** Finds `size` bytes free within [start, end); 0 if there is no such place. Reserves nothing. */
function find_in_range(size: number, align: number, start: Phys, end: Phys, nid: number): Phys {
  const top = end === MEMBLOCK_ALLOC_ACCESSIBLE ? memblock.current_limit : end;
  const low = Math.max(start, PAGE_SIZE); // page 0 is never handed out
  const high = Math.max(low, top);
  let found = 0;
  for (const free of for_each_free_mem_range(nid)) {
    const from = Math.min(Math.max(free.start, low), high);
    const to = Math.min(Math.max(free.end, low), high);
    if (to - from < size) continue;
    const candidate = memblock.bottom_up ? align_up(from, align) : align_down(to - size, align);
    if (candidate < from || candidate + size > to) continue;
    found = candidate;
    if (memblock.bottom_up) break; // top-down: the last range that fits is the highest
  }
  return found;
}

/** Finds, reserves, and returns the address; 0 if there is no room. Tries other nodes unless `exact`. */
function alloc_range(size: number, align: number, start: Phys, end: Phys, nid: number, exact: boolean): Phys {
  if (WARN_ON(memblock.closed !== 0, `memblock allocation of ${size} bytes after memory is up`)) return 0;
  const unit = WARN_ON(align === 0, `memblock allocation of ${size} bytes without alignment`) ? L1_CACHE_BYTES : align;
  let found = find_in_range(size, unit, start, end, nid);
  if (found === 0 && nid !== NUMA_NO_NODE && !exact) found = find_in_range(size, unit, start, end, NUMA_NO_NODE);
  if (found !== 0) __memblock_reserve(found, size, nid, MEMBLOCK_RSRV_KERN);
  return found;
}

/** Allocates within [start, end) as a physical address, not zeroed; 0 if there is no room. */
export function memblock_phys_alloc_range(size: number, align: number, start: Phys, end: Phys): Phys {
  const text = ` bytes align=0x${hex(align)} from=${pa(start)} max_addr=${pa(end)} `;
  if (memblock.debug) pr_info(`memblock_phys_alloc_range: ${size}${text}${caller()}`);
  return alloc_range(size, align, start, end, NUMA_NO_NODE, false);
}

/** Allocates on a node if it has room, else anywhere. */
export function memblock_phys_alloc_try_nid(size: number, align: number, nid: NodeId): Phys {
  return alloc_range(size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid, false);
}

/** What the wrappers share: the lower bound is a wish, dropped if it cannot be met. */
function alloc_internal(size: number, align: number, min: Phys, max: Phys, nid: number, exact: boolean): Ptr {
  const end = Math.min(max, memblock.current_limit);
  return alloc_range(size, align, min, end, nid, exact) || (min > 0 ? alloc_range(size, align, 0, end, nid, exact) : 0);
}

function debug_alloc(name: string, size: number, align: number, min: Phys, max: Phys, nid: number): void {
  if (!memblock.debug) return;
  const where = `nid=${nid} from=${pa(min)} max_addr=${pa(max)}`;
  pr_info(`${name}: ${size} bytes align=0x${hex(align)} ${where} ${caller()}`);
}

function zeroed(ptr: Phys, size: number): Ptr {
  if (ptr !== 0 && ptr + size <= ram_limit) ram_fill(ptr, 0, size);
  return ptr;
}

/** Allocates zeroed memory in [min, max) on node `nid`, else on another, else below `min`; 0 if there is none. */
export function memblock_alloc_try_nid(size: number, align: number, min: Phys, max: Phys, nid: number): Ptr {
  debug_alloc("memblock_alloc_try_nid", size, align, min, max, nid);
  return zeroed(alloc_internal(size, align, min, max, nid, false), size);
}

/** The same, not zeroed. */
export function memblock_alloc_try_nid_raw(size: number, align: number, min: Phys, max: Phys, nid: number): Ptr {
  debug_alloc("memblock_alloc_try_nid_raw", size, align, min, max, nid);
  return alloc_internal(size, align, min, max, nid, false);
}

/** On that node or not at all; not zeroed. */
export function memblock_alloc_exact_nid_raw(size: number, align: number, min: Phys, max: Phys, nid: number): Ptr {
  debug_alloc("memblock_alloc_exact_nid_raw", size, align, min, max, nid);
  return alloc_internal(size, align, min, max, nid, true);
}

/** Allocates zeroed memory anywhere. */
export function memblock_alloc(size: number, align: number): Ptr {
  return memblock_alloc_try_nid(size, align, MEMBLOCK_LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE);
}

/** Allocates zeroed memory at or above `min` if there is some. */
export function memblock_alloc_from(size: number, align: number, min: Phys): Ptr {
  return memblock_alloc_try_nid(size, align, min, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE);
}

/** Allocates zeroed memory, on node `nid` if it has room. */
export function memblock_alloc_node(size: number, align: number, nid: NodeId): Ptr {
  return memblock_alloc_try_nid(size, align, MEMBLOCK_LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, nid);
}

/** The buddy allocator has all that was free: from now on nothing is handed out here. */
export function memblock_close(): void {
  memblock.closed = 1;
}

/* `memblock=debug` */

/** `%pa`: 0x and 16 hex digits. */
function pa(addr: Phys): string {
  return `0x${hex(addr, 16)}`;
}

/** The first function on the stack outside this file, as `%pS` prints it. Only for the debug lines. */
function caller(): string {
  const frames = (new Error().stack ?? "").split("\n").slice(1);
  const frame = frames.find((line) => !line.includes("memblock.ts")) ?? "";
  return `${/at (?:async )?(?:Module\.|Object\.)?([\w$]+) /.exec(frame)?.[1] ?? "start_kernel"}+0x0/0x10`;
}

function debug_range(what: string, base: Phys, size: number, more = ""): void {
  if (memblock.debug) pr_info(`${what}: [${pa(base)}-${pa(base + size - 1)}]${more} ${caller()}`);
}

/** Prints both arrays, if `memblock=debug` was given. */
export function memblock_dump_all(): void {
  if (!memblock.debug) return;
  const sizes = `memory size = ${pa(memblock_phys_mem_size())} reserved size = ${pa(memblock_reserved_size())}`;
  pr_info(`MEMBLOCK configuration:\n ${sizes}`);
  for (const type of [memblock_memory, memblock_reserved]) {
    const name = MemblockType.name.get(type);
    pr_info(` ${name}.cnt  = 0x${hex(MemblockType.cnt.get(type))}`);
    let i = 0;
    for (const { base, size, nid, flags } of for_each_mem_region(type)) {
      const node = nid >= 0 && nid < MAX_NUMNODES ? ` on node ${nid}` : "";
      const range = `[${pa(base)}-${pa(base + size - 1)}], ${pa(size)} bytes${node}`;
      // C's %#x prints 0 without the prefix.
      pr_info(` ${name}[${i === 0 ? "0" : `0x${hex(i)}`}]\t${range} flags: ${flags === 0 ? "0" : `0x${hex(flags)}`}`);
      i++;
    }
  }
}
