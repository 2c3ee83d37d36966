/**
 * Per-CPU memory made at run time: alloc_percpu gives every CPU its own copy of an object.
 *
 *     chunk   [ unit 0: CPU 0 ][ unit 1: CPU 1 ][ … ]     64 KiB a unit, side by side
 *                  ^ ptr            ^ ptr + 64 KiB        a pointer is that of CPU 0's copy
 *
 * The first chunk is the image's per-CPU section: statics (per_cpu_data) first, then room for files that load later,
 * then what is handed out here. Further chunks are page blocks. What is in use is the same in all units, so one map does
 * for all, and it lies at the start of the chunk's dynamic part, in unit 0:
 *
 *     unit 0  | statics | reserved | chunk header and map | objects …          map: a byte for each 16 bytes,
 *     unit 1  | statics | reserved | (unused)             | objects …          0 free, 1 first, 2 further
 *
 * First fit by address. An empty chunk other than the first is given back.
 *
 * Locks: pcpu_lock for maps and the list of chunks; not held while pages are asked for.
 * Unlike Linux: no reserved chunk for modules, no sub-page population, no memcg charge; smallest piece 16 bytes, not 4.
 */
import { NULL, PAGE_SHIFT, align_up, type Ptr } from "../hal/addr.ts";
import { nr_cpu_ids } from "../hal/cpu.ts";
import { PERCPU_BASE, PERCPU_UNIT_BYTES, PERCPU_UNIT_SHIFT, image_sizes, static_data } from "../hal/image.ts";
import { ram8, ram_fill, ram_zero } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { WARN_ON } from "../kernel/lib/bug.ts";
import { get_order, is_power_of_2 } from "../kernel/lib/bitops.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "../kernel/lib/list.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { CLAIM_PERCPU, claiming, unclaim } from "./claims.ts";
import { GFP_KERNEL } from "./gfp.ts";
import { __free_pages, alloc_pages } from "./page_alloc.ts";
import { page_address, virt_to_page } from "./page.ts";

const GRAIN_SHIFT = 4;
const GRAINS = PERCPU_UNIT_BYTES >> GRAIN_SHIFT;
/** Statics of files that load while the machine runs come out of this. */
const LATE_STATICS_BYTES = 4096;
const FREE = 0;
const FIRST = 1;
const FURTHER = 2;

const PcpuChunk = struct("pcpu_chunk", {
  list: ListHead, // pcpu_lock, as everything here
  base: "u32", // first byte of unit 0
  nr_alloc: "u32",
  order: "u32", // of the page block; the first chunk has none
  free_bytes: "u32", // of a unit
  map: "u8[4096]", // GRAINS
});
const HEADER_GRAINS = align_up(PcpuChunk.sizeof, 64) >> GRAIN_SHIFT;

const pcpu = static_data("pcpu", { lock: SpinLock, chunks: ListHead, first: "*pcpu_chunk", nr_pages: "u32" });

/** Makes the first chunk. Context: boot, before anything asks for per-CPU memory; needs no page. */
export function setup_per_cpu_areas(): void {
  init_list_head(pcpu.chunks);
  const statics = align_up(image_sizes().percpu, 64) + LATE_STATICS_BYTES;
  pcpu.first = make_chunk(PERCPU_BASE, statics, 0);
  pcpu.nr_pages = (nr_cpu_ids() * PERCPU_UNIT_BYTES) >> PAGE_SHIFT;
}

/** Writes the header of a chunk whose units are in use up to `used` bytes. */
function make_chunk(base: Ptr, used: number, order: number): Ptr {
  const chunk = base + used;
  ram_zero(chunk, align_up(PcpuChunk.sizeof, 8));
  PcpuChunk.base.set(chunk, base);
  PcpuChunk.order.set(chunk, order);
  const taken = (used >> GRAIN_SHIFT) + HEADER_GRAINS;
  ram_fill(PcpuChunk.map.at(chunk, 0), FURTHER, taken);
  PcpuChunk.free_bytes.set(chunk, (GRAINS - taken) << GRAIN_SHIFT);
  list_add_tail(PcpuChunk.list.at(chunk), pcpu.chunks);
  return chunk;
}

/**
 * Gives every CPU `size` zeroed bytes, aligned; returns CPU 0's copy (this_cpu_ptr and per_cpu_ptr find the others), or 0.
 *
 * Context: may ask for pages as GFP_KERNEL does.
 */
export function alloc_percpu(size: number, align = 8): Ptr {
  const bad = !(size > 0 && size <= PERCPU_UNIT_BYTES && align <= PERCPU_UNIT_BYTES) || !is_power_of_2(align);
  if (WARN_ON(bad, `illegal size (${size}) or align (${align}) for percpu allocation`)) return NULL;
  return claiming(CLAIM_PERCPU, () => {
    const ptr = alloc_from_chunks(size, align);
    return ptr !== NULL || !add_chunk() ? ptr : alloc_from_chunks(size, align);
  });
}

function alloc_from_chunks(size: number, align: number): Ptr {
  let ptr = NULL;
  spin_lock(pcpu.lock);
  for (let node = list_next(pcpu.chunks); node !== pcpu.chunks && ptr === NULL; node = list_next(node))
    ptr = alloc_from_chunk(node - PcpuChunk.list.offset, size, align);
  spin_unlock(pcpu.lock);
  for (let cpu = 0; cpu < nr_cpu_ids() && ptr !== NULL; cpu++)
    ram_zero(ptr + (cpu << PERCPU_UNIT_SHIFT), align_up(size, 8));
  return ptr;
}

/** The first place in a chunk where `size` bytes are free; 0 if there is none. */
function alloc_from_chunk(chunk: Ptr, size: number, align: number): Ptr {
  if (PcpuChunk.free_bytes.get(chunk) < size) return NULL;
  const grains = align_up(size, 1 << GRAIN_SHIFT) >> GRAIN_SHIFT;
  const step = Math.max(align, 1 << GRAIN_SHIFT) >> GRAIN_SHIFT;
  const map = PcpuChunk.map.at(chunk, 0);
  for (let at = 0; at + grains <= GRAINS; at += step) {
    let run = 0;
    while (run < grains && ram8[map + at + run] === FREE) run++;
    if (run === grains) return take(chunk, at, grains);
    at = Math.floor((at + run) / step) * step; // the next try starts behind what is in use
  }
  return NULL;
}

function take(chunk: Ptr, at: number, grains: number): Ptr {
  ram_fill(PcpuChunk.map.at(chunk, at), FURTHER, grains);
  PcpuChunk.map.set(chunk, at, FIRST);
  PcpuChunk.nr_alloc.set(chunk, PcpuChunk.nr_alloc.get(chunk) + 1);
  PcpuChunk.free_bytes.set(chunk, PcpuChunk.free_bytes.get(chunk) - (grains << GRAIN_SHIFT));
  return PcpuChunk.base.get(chunk) + (at << GRAIN_SHIFT);
}

/** Pages for one more chunk; false if there are none. */
function add_chunk(): boolean {
  const order = get_order(nr_cpu_ids() * PERCPU_UNIT_BYTES);
  const page = alloc_pages(GFP_KERNEL, order);
  if (page === NULL) return false;
  spin_lock(pcpu.lock);
  make_chunk(page_address(page), 0, order);
  pcpu.nr_pages = pcpu.nr_pages + (1 << order);
  spin_unlock(pcpu.lock);
  return true;
}

/** Takes back what alloc_percpu gave. 0 is nothing; a pointer that is none of ours is reported and left alone. */
export function free_percpu(ptr: Ptr): void {
  if (ptr === NULL) return;
  unclaim(CLAIM_PERCPU, ptr);
  spin_lock(pcpu.lock);
  const chunk = chunk_of(ptr);
  const at = chunk === NULL ? 0 : (ptr - PcpuChunk.base.get(chunk)) >> GRAIN_SHIFT;
  const known = chunk !== NULL && PcpuChunk.map.get(chunk, at) === FIRST;
  const empty = known && release(chunk, at);
  if (empty) {
    list_del(PcpuChunk.list.at(chunk));
    pcpu.nr_pages = pcpu.nr_pages - (1 << PcpuChunk.order.get(chunk));
  }
  spin_unlock(pcpu.lock);
  WARN_ON(!known, `free_percpu of 0x${ptr.toString(16)}, which is no per-CPU object`);
  if (empty) __free_pages(virt_to_page(chunk), PcpuChunk.order.get(chunk));
}

function chunk_of(ptr: Ptr): Ptr {
  for (let node = list_next(pcpu.chunks); node !== pcpu.chunks; node = list_next(node)) {
    const offset = ptr - PcpuChunk.base.get(node - PcpuChunk.list.offset);
    if (offset >= 0 && offset < PERCPU_UNIT_BYTES && offset % (1 << GRAIN_SHIFT) === 0)
      return node - PcpuChunk.list.offset;
  }
  return NULL;
}

/** Marks an object free; true if its chunk can go. */
function release(chunk: Ptr, at: number): boolean {
  const map = PcpuChunk.map;
  let grains = 1;
  while (at + grains < GRAINS && map.get(chunk, at + grains) === FURTHER) grains++;
  ram_fill(map.at(chunk, at), FREE, grains);
  PcpuChunk.free_bytes.set(chunk, PcpuChunk.free_bytes.get(chunk) + (grains << GRAIN_SHIFT));
  PcpuChunk.nr_alloc.set(chunk, PcpuChunk.nr_alloc.get(chunk) - 1);
  return PcpuChunk.nr_alloc.get(chunk) === 0 && chunk !== pcpu.first;
}

/** Pages that hold per-CPU memory: `Percpu:` of /proc/meminfo. */
export function pcpu_nr_pages(): number {
  return pcpu.nr_pages;
}

/** Chunks in order: first byte, objects in them, bytes of a unit that are free. */
export function* pcpu_chunks(): Generator<{ base: Ptr; nr_alloc: number; free_bytes: number }> {
  for (let node = list_next(pcpu.chunks); node !== pcpu.chunks; node = list_next(node)) {
    const chunk = node - PcpuChunk.list.offset;
    const [base, nr_alloc] = [PcpuChunk.base.get(chunk), PcpuChunk.nr_alloc.get(chunk)];
    yield { base, nr_alloc, free_bytes: PcpuChunk.free_bytes.get(chunk) };
  }
}
