/**
 * How people name memory on the console: caches by their names, slabs by letters, objects as `A3`, addresses as `%px`.
 *
 * A cache's slabs have letters in order of birth: A … Z, AA … . The letters are nowhere stored: they follow from the lists
 * of slabs that each node keeps in RAM, and the birth number of each. So `A` is the oldest slab there is.
 */
import { NULL, parse_px, px, type Ptr } from "../../hal/addr.ts";
import { ZERO_SIZE_PTR } from "../../mm/kmalloc.ts";
import {
  KmemCache,
  SlabAlias,
  find_cache,
  for_each_alias,
  for_each_cache,
  type CachePtr,
} from "../../mm/slab_common.ts";
import { CommandError, nearest } from "../commands/registry.ts";
import { letters } from "./names.ts";
import { slab_view } from "./views.ts";

/** The number of a slab from its letters. */
function letters_index(text: string): number {
  let index = 0;
  for (const letter of text) index = index * 26 + letter.charCodeAt(0) - 64;
  return index - 1;
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
  const { slabs_of, nr_objects, object_at } = slab_view();
  const slabs = slabs_of(cache);
  const slab = slabs[letters_index(slab_name)];
  if (slab === undefined)
    throw new CommandError(
      `${text}: ${cache_name} has ${slabs.length ? `slabs A to ${letters(slabs.length - 1)}` : "no slab"}`,
    );
  const objects = nr_objects(cache, slab);
  if (index >= objects) throw new CommandError(`${text}: slab ${slab_name} has objects 0 to ${objects - 1}`);
  return object_at(cache, slab, index);
}
