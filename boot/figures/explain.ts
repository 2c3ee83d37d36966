/**
 * What an address is: `locate` reads it off RAM, page struct by page struct, list by list, and `explain` prints it.
 * The heap commands ask it before they free anything, so that a wrong address is one line and never a broken list.
 *
 *     hole       no RAM there                         reserved   taken at boot, never the page allocator's
 *     buddy      part of a free block                 pcp        free, kept ready by a CPU
 *     slab       a slab of some cache                 kmalloc    a block above the largest size class
 *     cache      holds a page of a file               pages      taken from the page allocator
 */
import { PAGE_SHIFT, PAGE_SIZE, hex, px, type Obj, type Pfn, type Ptr } from "../../hal/addr.ts";
import { nr_cpu_ids } from "../../hal/cpu.ts";
import { PERCPU_BASE, image_end, image_nr_cpus, image_symbol, per_cpu_ptr } from "../../hal/image.ts";
import { ram_read_string } from "../../hal/ram.ts";
import { list_next } from "../../kernel/lib/list.ts";
import { Dentry, Inode } from "../../kernel/fs/fs.ts";
import { THREAD_SIZE, TaskStruct, tasklist } from "../../kernel/task.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { free_blocks, is_page_struct } from "../../mm/buddy_check.ts";
import { MIGRATE_NAMES } from "../../mm/gfp.ts";
import { for_each_mem_region, memblock_memory } from "../../mm/memblock.ts";
import {
  PGTY_large_kmalloc, PG_reserved, Page, compound_head, compound_order, mem_map_state, page_flag, page_is_anon,
  page_is_buddy, page_is_slab, page_to_nid, page_to_pfn, page_type, pfn_to_page, type PagePtr, type SlabPtr,
} from "../../mm/page.ts"; // prettier-ignore
import { pfnblock_migratetype } from "../../mm/pageblock.ts";
import {
  FreeArea, MAX_PAGE_ORDER, NR_PCP_LISTS, PerCpuPages, Zone, for_each_populated_zone, page_zone,
} from "../../mm/zone.ts"; // prettier-ignore
import type { Held } from "../commands/registry.ts";
import { plural } from "./names.ts";
import type { InSlab } from "./view.ts";
import { slab_view } from "./views.ts";

export type PageUse = "hole" | "reserved" | "buddy" | "pcp" | "slab" | "kmalloc" | "cache" | "pages";

/** Frames that hold RAM, as [first, one past the last], ascending: what the firmware said. */
export function ram_ranges(): [Pfn, Pfn][] {
  return [...for_each_mem_region(memblock_memory)].map(({ base, size }): [Pfn, Pfn] => [
    Math.ceil(base / PAGE_SIZE),
    Math.floor((base + size) / PAGE_SIZE),
  ]);
}

/** A free block that a CPU keeps ready. */
export interface PcpBlock {
  readonly pfn: Pfn;
  readonly order: number;
  readonly cpu: number;
  readonly migratetype: number;
  /** Place in its list, from 1. */
  readonly place: number;
}

/** Every block on the CPUs' own lists. A list that leaves the page structs ends there; `validate` says so. */
export function* pcp_blocks(): Generator<PcpBlock> {
  for (const zone of for_each_populated_zone())
    for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
      const pcp = per_cpu_ptr(Zone.per_cpu_pageset.get(zone), cpu);
      for (let list = 0; list < NR_PCP_LISTS; list++) {
        const order = list < 12 ? Math.floor(list / 3) : 9;
        const migratetype = list < 12 ? list % 3 : list - 12;
        const head = PerCpuPages.lists.at(pcp, list);
        let place = 1;
        for (
          let node = list_next(head);
          node !== head && place <= Zone.managed_pages.get(zone);
          node = list_next(node)
        ) {
          const page = node - Page.lru.offset;
          if (!is_page_struct(page)) break;
          yield { pfn: page_to_pfn(page), order, cpu, migratetype, place: place++ };
        }
      }
    }
}

/** First frame and order of the free block that a frame lies in; undefined if it is not free. */
export function buddy_block(pfn: Pfn): { pfn: Pfn; order: number } | undefined {
  for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
    const head = pfn - (pfn % (1 << order));
    const page = pfn_to_page(head);
    if (page_is_buddy(page) && Page.private.get(page) >= order && Page.private.get(page) <= MAX_PAGE_ORDER)
      return { pfn: head, order: Page.private.get(page) };
  }
  return undefined;
}

/** What a page in use is used for; `page` heads its block. Free pages are told apart before. */
export function use_in_use(page: PagePtr): PageUse {
  if (page_flag(page, PG_reserved)) return "reserved";
  if (page_is_slab(page)) return "slab";
  if (page_type(page) === PGTY_large_kmalloc) return "kmalloc";
  return Page.mapping.get(page) !== 0 && !page_is_anon(page) ? "cache" : "pages";
}

/** What `explain --json` prints; what does not apply is absent. */
export interface Place extends Partial<InSlab> {
  readonly address: string;
  readonly pfn: Pfn;
  readonly use: PageUse;
  readonly node?: number;
  readonly zone?: string;
  /** The block it lies in: a free one, a compound page, a slab, or a block that this console holds. */
  readonly block?: { readonly pfn: Pfn; readonly order: number };
  /** Of its page block of 512 pages. */
  readonly migratetype?: string;
}

/** Reads what lies at an address off RAM. */
export function locate(ptr: Ptr, held?: Held): Place {
  const pfn = ptr >>> PAGE_SHIFT;
  const at = { address: px(ptr), pfn };
  if (!ram_ranges().some(([start, end]) => pfn >= start && pfn < end)) return { ...at, use: "hole" };
  const page = pfn_to_page(pfn);
  const zone = page_zone(page);
  const migratetype = MIGRATE_NAMES[pfnblock_migratetype(zone, pfn)];
  const here = { ...at, node: page_to_nid(page), zone: Zone.name.get(zone), migratetype };
  const block = buddy_block(pfn);
  if (block) return { ...here, use: "buddy", block, free: true, where: buddy_where(block.pfn) };
  for (const { pfn: first, order, cpu, migratetype: type, place } of pcp_blocks())
    if (pfn >= first && pfn < first + (1 << order)) {
      const where = `cpu ${cpu}'s list of order ${order}, ${MIGRATE_NAMES[type]}, place ${place}`;
      return { ...here, use: "pcp", block: { pfn: first, order }, free: true, where };
    }
  return { ...here, ...locate_in_use(ptr, compound_head(page), held) };
}

function buddy_where(pfn: Pfn): string {
  let list = "";
  let place = 0;
  for (const block of free_blocks(page_zone(pfn_to_page(pfn)))) {
    const name = `free_area[${block.order}] ${MIGRATE_NAMES[block.migratetype]}`;
    place = name === list ? place + 1 : 1;
    list = name;
    if (block.pfn !== pfn) continue;
    return `${name}, place ${place} of ${FreeArea.nr_free.get(Zone.free_area.at(page_zone(block.page), block.order))}`;
  }
  return "on no list";
}

type InUse = Partial<InSlab> & Pick<Place, "use" | "block">;

function locate_in_use(ptr: Ptr, head: PagePtr, held: Held | undefined): InUse {
  const use = use_in_use(head);
  const block = { pfn: page_to_pfn(head), order: compound_order(head) };
  if (use === "slab") return { use, block, ...locate_object(ptr, head as Ptr, held) };
  const holding = held
    ?.list("pages")
    .find((h) => ptr >= h.address && ptr < h.address + (PAGE_SIZE << held_order(h.name)));
  if (holding)
    return { use, block: { pfn: holding.address >>> PAGE_SHIFT, order: held_order(holding.name) }, owner: "console" };
  const owner = held?.find(px_start(block.pfn)) ? "console" : use === "cache" ? file_of(head) : owner_of(ptr);
  return { use, block, ...(owner !== undefined && { owner }) };
}

/** The order in the name of a holding of pages: "order 3". */
export function held_order(name: string): number {
  return Number(name.slice("order ".length));
}

function px_start(pfn: Pfn): Obj {
  return pfn << PAGE_SHIFT;
}

function locate_object(ptr: Ptr, slab: SlabPtr, held: Held | undefined): InSlab {
  const place = slab_view().locate(ptr, slab, held);
  if (place.free !== false || place.what !== undefined) return place;
  const start = ptr - place.offset!;
  const owner = held?.find(start) ? "console" : object_owner(place.cache, start);
  return { ...place, ...(owner !== undefined && { owner }) };
}

/** Whose a live object is, where that can be told. */
function object_owner(cache: string, object: Obj): string | undefined {
  if (cache === "task_struct") return `pid ${TaskStruct.pid.get(object)} (${TaskStruct.comm.get(object)})`;
  if (cache === "inode_cache") return `inode ${Inode.i_ino.get(object)}`;
  if (cache !== "dentry") return undefined;
  return `dentry "${ram_read_string(Dentry.d_name.get(object), Dentry.d_name_len.get(object))}"`;
}

/** The file that a page of the page cache belongs to. */
function file_of(page: PagePtr): string {
  return `inode ${Inode.i_ino.get(AddressSpace.host.get(Page.mapping.get(page)))}`;
}

/** Whose a page outside of slabs is: a kernel variable, the memory map, a task's stack. */
function owner_of(ptr: Ptr): string | undefined {
  const symbol = image_symbol(ptr);
  if (symbol) return `kernel variable ${symbol.name}`;
  if (ptr >= PERCPU_BASE && ptr < image_end(image_nr_cpus())) return "per-CPU area of the kernel image";
  const { mem_map, max_pfn } = mem_map_state;
  if (ptr >= mem_map && ptr < mem_map + max_pfn * Page.sizeof) return "mem_map, the array of page structs";
  let bound = tasklist.nr_threads;
  for (let node = list_next(tasklist.head); node !== tasklist.head && bound-- > 0; node = list_next(node)) {
    const task = node - TaskStruct.tasks.offset;
    const stack = TaskStruct.stack.get(task);
    if (stack !== 0 && ptr >= stack && ptr < stack + THREAD_SIZE)
      return `kernel stack of pid ${TaskStruct.pid.get(task)} (${TaskStruct.comm.get(task)})`;
  }
  return undefined;
}

/** "cpu 0 partial" in words. */
function slab_place_text(on: string, node: number | undefined): string {
  const cpu = /^cpu (\d+)( partial)?$/.exec(on);
  if (cpu) return cpu[2] ? `on CPU ${cpu[1]}'s partial list` : `the page of CPU ${cpu[1]}`;
  return on === "none" ? "on no list" : `on node ${node}'s ${on} list`;
}

const USES: Readonly<Record<PageUse, string>> = {
  hole: "no RAM at this address",
  reserved: "reserved at boot, never the page allocator's",
  buddy: "free, in the buddy allocator",
  pcp: "free, kept ready by a CPU",
  slab: "a slab page",
  kmalloc: "a large kmalloc block",
  cache: "a page of the page cache",
  pages: "taken from the page allocator",
};

/** The lines of `explain`. */
export function draw_place(place: Place): string {
  const {
    address,
    pfn,
    use,
    node,
    zone,
    block,
    migratetype,
    cache,
    slab,
    on,
    object,
    offset,
    slot,
    free,
    where,
    part = "the bytes behind the last slot",
    what,
    owner,
  } = place;
  const lines: string[] = [`${address}   pfn ${pfn} (0x${hex(pfn)})`, `page     ${USES[use]}`];
  if (zone !== undefined) lines.push(`zone     ${zone}, node ${node}; page block ${pfn >> 9} is ${migratetype}`);
  if (block) {
    const last = block.pfn + (1 << block.order) - 1;
    const range = block.order === 0 ? `pfn ${block.pfn}` : `pfn ${block.pfn}-${last}`;
    lines.push(`block    order ${block.order}, ${plural(1 << block.order, "page")}, ${range}`);
  }
  if (what !== undefined) {
    const inside = offset === undefined ? "" : offset === 0 ? ": its first byte" : `: byte ${offset}`;
    lines.push(
      `slob     page ${slab}, ${on === "full" ? "full, on no list" : `on the list ${on}`}`,
      `block    ${what}${inside}`,
    );
  } else if (slab !== undefined) lines.push(`slab     ${slab} of ${cache}, ${slab_place_text(on!, node)}`);
  else if (cache !== undefined) lines.push(`slab     of ${cache}`);
  if (object !== undefined) {
    const inside = offset === 0 ? "its first byte" : `byte ${offset}`;
    lines.push(`object   ${slab}${object}, ${inside}, in a slot of ${slot}: ${free ? "free" : "live"}`);
  } else if (slab !== undefined && what === undefined) lines.push(`object   none: ${part}`);
  if (where !== undefined) lines.push(`free     ${where}`);
  if (owner !== undefined) lines.push(`owner    ${owner}`);
  return lines.join("\n");
}
