/**
 * How people name memory on the console: caches by their names, slabs by letters, objects as `A3`, addresses as `%px`.
 *
 * A cache's slabs have letters in order of birth, node by node: A … Z, AA … . The letters are nowhere stored: they
 * follow from the list of all slabs that each node keeps in RAM, oldest first. So `A` is the oldest slab there is.
 */
import { NULL, PAGE_SIZE, parse_px, px, type NodeId, type Ptr } from "../../hal/addr.ts";
import { ZERO_SIZE_PTR } from "../../mm/kmalloc.ts";
import {
  KmemCache,
  SlabAlias,
  find_cache,
  for_each_alias,
  for_each_cache,
  type CachePtr,
} from "../../mm/slab_common.ts";
import { KmemCacheNode, slab_address, type NodePtr } from "../../mm/slub_slab.ts";
import { Page, Slab, mem_map_state, page_is_slab, type SlabPtr } from "../../mm/page.ts";
import { for_each_online_node } from "../../mm/zone.ts";
import { CommandError, nearest } from "../commands/registry.ts";

/** The address as `%px` shows it; NULL and the marker of kmalloc(0) are no direct-map addresses. */
export function address_text(ptr: Ptr): string {
  return ptr <= ZERO_SIZE_PTR ? ptr.toString(16).padStart(16, "0") : px(ptr);
}

/** `1 page`, `3 pages`. */
export function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** `392 of 8192 (4.8 %)`. */
export function share(part: number, whole: number): string {
  return `${part} of ${whole} (${percent(part, whole)} %)`;
}

/** With one digit behind the point; 0.0 of nothing. */
export function percent(part: number, whole: number): string {
  return (whole === 0 ? 0 : (100 * part) / whole).toFixed(1);
}

/** True if `ptr` is an address for which there may be RAM; the walks below read nothing else. */
export function in_ram(ptr: Ptr): boolean {
  return ptr > 0 && ptr < mem_map_state.max_pfn * PAGE_SIZE;
}

/** A, B, … Z, AA, AB, … */
export function letters(index: number): string {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}

/** The number of a slab from its letters. */
function letters_index(text: string): number {
  let index = 0;
  for (const letter of text) index = index * 26 + letter.charCodeAt(0) - 64;
  return index - 1;
}

/** The node part of a cache. */
export function cache_node(cache: CachePtr, node: NodeId): NodePtr {
  return KmemCache.node.get(cache, node);
}

/** True if `slab` is the head of a slab of this cache: what every walk asks before it follows a pointer. */
export function is_slab_of(cache: CachePtr, slab: SlabPtr): boolean {
  const offset = slab - mem_map_state.mem_map;
  if (offset < 0 || offset >= mem_map_state.max_pfn * Page.sizeof || offset % Page.sizeof !== 0) return false;
  return page_is_slab(slab as Ptr) && Slab.slab_cache.get(slab) === cache;
}

/** Every slab of a cache in order of birth; what is wrong with the lists is added to `broken`. */
export function slabs_of(cache: CachePtr, broken: string[] = []): SlabPtr[] {
  const all: SlabPtr[] = [];
  for (const node of for_each_online_node()) {
    const n = cache_node(cache, node);
    if (n === NULL) continue;
    const expected = KmemCacheNode.nr_slabs.get(n);
    let found = 0;
    let slab = KmemCacheNode.slabs_first.get(n);
    for (; slab !== NULL && found < expected && is_slab_of(cache, slab); slab = Slab.slabs_next.get(slab), found++)
      all.push(slab);
    if (slab !== NULL || found !== expected)
      broken.push(`node ${node}: ${plural(expected, "slab")} counted, list of slabs is broken behind ${found}`);
  }
  return all.sort((a, b) => Slab.birth.get(a) - Slab.birth.get(b));
}

/** Names and aliases of all caches. */
export function cache_names(): string[] {
  const names = [...for_each_cache()].map((cache) => KmemCache.name.get(cache));
  return [...names, ...[...for_each_alias()].map((alias) => SlabAlias.name.get(alias))];
}

/** The cache of that name, or a CommandError that names the nearest. */
export function cache_named(name: string | undefined): CachePtr {
  if (name === undefined) throw new CommandError("give the name of a cache; slabtop lists them");
  const cache = find_cache(name);
  if (cache === NULL) {
    const other = nearest(name, cache_names());
    throw new CommandError(`no cache is named "${name}"${other === undefined ? "" : `; do you mean ${other}?`}`);
  }
  current.cache = name;
  return cache;
}

/** The cache that was named last on this console: the one whose slabs a bare `A3` means. */
const current: { cache: string | undefined } = { cache: undefined };

/**
 * An address as people type it: `ffff888002f40000`, NULL, or an object by its name (`A3` of the cache named last,
 * `NAME:A3` of any).
 */
export function parse_address(text: string | undefined, cache_name?: string): Ptr {
  if (text === undefined) throw new CommandError("give an address (ffff888002f40000) or an object (A3)");
  const object = /^(?:([^:]+):)?([A-Z]{1,4})(\d+)$/.exec(text);
  if (object) return object_named(text, object[1] ?? cache_name ?? current.cache, object[2], Number(object[3]));
  if (/^(0x)?0+$|^NULL$/i.test(text)) return NULL;
  if (/^(0x)?0{14}10$/i.test(text)) return ZERO_SIZE_PTR;
  const ptr = parse_px(text);
  if (Number.isNaN(ptr))
    throw new CommandError(`"${text}" is no kernel address: they look like ${px(0x2f40000)}, or A3`);
  return ptr;
}

function object_named(text: string, cache_name: string | undefined, slab_name: string, index: number): Ptr {
  if (cache_name === undefined)
    throw new CommandError(`${text}: of which cache? Type NAME:${text}, or slab NAME first`);
  const cache = cache_named(cache_name);
  const slabs = slabs_of(cache);
  const slab = slabs[letters_index(slab_name)];
  if (slab === undefined)
    throw new CommandError(
      `${text}: ${cache_name} has ${slabs.length ? `slabs A to ${letters(slabs.length - 1)}` : "no slab"}`,
    );
  const objects = Slab.objects.get(slab);
  if (index >= objects) throw new CommandError(`${text}: slab ${slab_name} has objects 0 to ${objects - 1}`);
  return slab_address(slab) + KmemCache.red_left_pad.get(cache) + index * KmemCache.size.get(cache);
}
