/**
 * The heap by hand: `kmem`, `kmalloc` and its kin, `alloc_pages`, `free_pages`.
 *
 * What a command takes is recorded in `ctx.held` and may be given back by hand until power-off, which does the rest. A
 * plain cache believes any address it is handed, as Linux's does, so every address is looked up before the kernel is
 * called: what is not a live object of this console is one line, and nothing is done.
 */
import { NULL, PAGE_SHIFT, PAGE_SIZE, px, type Obj, type Ptr } from "../../hal/addr.ts";
import { ram_fill } from "../../hal/ram.ts";
import { ENOMEM, strerror } from "../../kernel/lib/errno.ts";
import { list_del } from "../../kernel/lib/list.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { GFP_KERNEL, NUMA_NO_NODE, parse_gfp } from "../../mm/gfp.ts";
import {
  KMALLOC_MAX_SIZE,
  ZERO_SIZE_PTR,
  kfree,
  kmalloc,
  kmalloc_node,
  krealloc,
  ksize,
  virt_to_cache,
} from "../../mm/kmalloc.ts";
import { page_address, page_is_slab, pfn_to_page, virt_to_head_page } from "../../mm/page.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import {
  KmemCache, SlabAlias, __kmem_cache_create_args, find_cache, for_each_alias, get_slabinfo, kmem_cache_alloc,
  kmem_cache_alloc_node, kmem_cache_check, kmem_cache_destroy, kmem_cache_free, kmem_cache_shrink, oo_objects, oo_order,
  slab_ops, type CachePtr, type KmemCacheArgs,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_FLAG_NAMES } from "../../mm/slab_layout.ts";
import { MAX_PAGE_ORDER, NODE_DATA, node_state } from "../../mm/zone.ts";
import { cache_named, parse_address } from "../figures/address.ts";
import { held_order, locate, type Place } from "../figures/explain.ts";
import { address_text, plural, share } from "../figures/names.ts";
import { slab_view } from "../figures/views.ts";
import {
  CommandError, line, parse_args, parse_count, register, usage_error, type Context, type Holding, type Result,
} from "./registry.ts"; // prettier-ignore

/** `gfp=` and `node=` of a command that takes memory. */
function memory_args(named: Map<string, string>): { gfp: number; node: number } {
  const gfp_text = named.get("gfp");
  const gfp = gfp_text === undefined ? GFP_KERNEL : parse_gfp(gfp_text);
  if (Number.isNaN(gfp))
    throw new CommandError(`gfp=${gfp_text}: give names such as GFP_KERNEL|__GFP_ZERO, joined by |`);
  const node_text = named.get("node");
  if (node_text === undefined) return { gfp, node: NUMA_NO_NODE };
  const node = parse_count("node", node_text, 0, node_state.nr_node_ids - 1);
  if (NODE_DATA(node) === NULL) throw new CommandError(`node: there is no node ${node}`);
  return { gfp, node };
}

/** Refuses what a command does not take: further words, names and flags. */
function only(
  command: { usage: string },
  args: ReturnType<typeof parse_args>,
  plain: number,
  ...names: string[]
): void {
  const extra = [
    ...args.plain.slice(plain),
    ...[...args.named.keys()].filter((name) => !names.includes(name)).map((name) => `${name}=`),
    ...args.flags,
  ];
  if (/^-\d/.test(extra[0] ?? "")) throw new CommandError(`${extra[0]}: a number here is 0 or more`);
  if (extra.length > 0) throw usage_error(command, `"${extra[0]}" is not expected`);
}

/** One line that says what an address is instead of a live object or block of this console. */
function what_it_is(text: string, ptr: Ptr, place: Place): string {
  if (ptr === NULL) return `${text} is no object`;
  if (place.use === "hole") return `${text}: no RAM at this address`;
  if (place.use === "buddy" || place.use === "pcp") return `${text} lies in a free page`;
  if (place.use === "reserved") return `${text} lies in memory that was reserved at boot`;
  if (place.use === "slab") return what_slab_part(text, place);
  const kind = { kmalloc: "a large kmalloc block", cache: "the page cache", pages: "a page block" }[place.use];
  if (place.owner !== "console") return `${text} lies in ${kind}`;
  const { pfn, order } = place.block!;
  const start = pfn << PAGE_SHIFT;
  return ptr === start
    ? `${text} is ${kind} of order ${order}`
    : `${text} lies in ${kind} of order ${order} at ${px(start)}`;
}

function what_slab_part(text: string, { cache, slab, object, offset, free, owner, what }: Place): string {
  if (what !== undefined) return `${text} ${offset ? `points ${offset} bytes into` : "is"} ${what}`;
  if (object === undefined) return `${text} lies in slab ${slab} of ${cache}, behind its last object`;
  if (offset !== 0) return `${text} points ${offset} bytes into ${slab}${object} of ${cache}`;
  if (free) return `${text}, object ${slab}${object} of ${cache}, is free already`;
  return owner === "console"
    ? `${text} is object ${slab}${object} of ${cache}`
    : `${text} is a live object of ${cache} that this console did not take`;
}

/** The holding at an address if `wanted` says so; else a CommandError that says what is there. */
function held_at(ctx: Context, what: string, text: string, ptr: Ptr, wanted: (h: Holding) => boolean): Holding {
  const holding = ctx.held.find(ptr);
  if (holding && wanted(holding)) return holding;
  throw new CommandError(`${what}: ${what_it_is(text, ptr, locate(ptr, ctx.held))}`);
}

/** Addresses that are typed once each. */
function parse_addresses(what: string, texts: readonly string[], cache?: string): Map<Ptr, string> {
  const addresses = new Map<Ptr, string>();
  for (const text of texts) {
    const ptr = parse_address(text, cache);
    if (addresses.has(ptr) && ptr !== ZERO_SIZE_PTR) throw new CommandError(`${what}: ${text} is given twice`);
    addresses.set(ptr, text);
  }
  return addresses;
}

const is_slot = (holding: Holding): boolean => holding.kind === "object" || holding.kind === "block";
/** What kfree and ksize take: all of these, but where kmalloc has no caches only its own blocks. */
const is_kmallocs = ({ kind }: Holding): boolean => kind === "block" || (kind === "object" && !slab_ops().kmalloc);

const CTOR_BYTES = 4;
/** The constructor of `kmem create … ctor`: the first four bytes of each object read AAAA. */
function console_ctor(object: Obj): void {
  const cache = virt_to_cache(object);
  ram_fill(object, 0x41, cache === NULL ? CTOR_BYTES : Math.min(CTOR_BYTES, KmemCache.object_size.get(cache)));
}
ksym("console_ctor", console_ctor);

const kmem = {
  name: "kmem",
  group: "heap",
  usage: [
    "kmem create NAME SIZE [align=N] [flags=SLAB_…|…] [ctor] [cpu_partial=off] [useroffset=N usersize=N] [sheaf_capacity=N]",
    "kmem alloc NAME [N] [gfp=GFP_…] [node=N]",
    "kmem free NAME ADDR…|all",
    "kmem shrink|destroy NAME",
  ].join("\n"),
  summary: "makes a slab cache, takes objects from it, gives them back",
  man: `kmem create calls kmem_cache_create. It says \`merged with OTHER\` if an equal cache serves the new name too; with
ctor the first four bytes of each object are 0x41 (once, when its slab is made). cpu_partial=off: slabs go straight
between CPU and node, as textbooks draw it. kmem alloc prints the addresses of N objects (1), or fails and takes none.
kmem free takes addresses, or objects as \`slab NAME\` shows them (A3), in the order given; \`all\` frees what this console
holds of the cache, oldest first. kmem shrink gives empty slabs back; kmem destroy refuses a cache in use.

    kmem create my_object_cache 300 flags=SLAB_PANIC cpu_partial=off
    kmem alloc my_object_cache 3; slab my_object_cache; kmem free my_object_cache A1`,
  complete: complete_kmem,
  run(ctx: Context, args: string[]): Result {
    const [verb, ...rest] = args;
    const run = { create, alloc, free, shrink, destroy }[verb ?? ""];
    if (!run) throw usage_error(this, verb === undefined ? undefined : `kmem has no "${verb}"`);
    return run(ctx, parse_args(rest));
  },
} as const;

type Args = ReturnType<typeof parse_args>;

function complete_kmem(args: readonly string[]): string[] {
  return args.length < 2 ? ["create", "alloc", "free", "shrink", "destroy"] : [];
}

function parse_flags(text: string): number {
  let flags = 0;
  for (const name of text.split("|")) {
    const flag = SLAB_FLAG_NAMES[name];
    if (flag === undefined && name !== "0")
      throw new CommandError(`flags: "${name}" is none of ${Object.keys(SLAB_FLAG_NAMES).join(" ")}`);
    flags |= flag ?? 0;
  }
  return flags;
}

/** A number as it is typed, for a check that names what is allowed; what is no number is refused here. */
function parse_number(what: string, text: string | undefined): number {
  if (text === undefined || !/^-?\d+$/.test(text))
    throw new CommandError(`${what}: "${text ?? ""}" is no whole number`);
  return Number(text);
}

/** Objects of a sheaf at most: its array is one block of kmalloc, which is not to be large. */
const MAX_SHEAF = 4096;

function create_args(args: Args): KmemCacheArgs {
  const number = (name: string): number => (args.named.has(name) ? parse_number(name, args.named.get(name)) : 0);
  const sheaf = args.named.get("sheaf_capacity");
  const cpu_partial = args.named.get("cpu_partial");
  if (cpu_partial !== undefined && cpu_partial !== "off")
    throw new CommandError(`cpu_partial=${cpu_partial}: only "off" may be asked for`);
  return {
    align: number("align"),
    useroffset: number("useroffset"),
    usersize: number("usersize"),
    sheaf_capacity: sheaf === undefined ? 0 : parse_count("sheaf_capacity", sheaf, 1, MAX_SHEAF),
    ctor: args.plain.includes("ctor") ? console_ctor : null,
    ...(cpu_partial && { cpu_partial }),
  };
}

function create(ctx: Context, args: Args): Result {
  only(
    kmem,
    args,
    args.plain[2] === "ctor" ? 3 : 2,
    "align",
    "flags",
    "cpu_partial",
    "useroffset",
    "usersize",
    "sheaf_capacity",
  );
  const [name, size_text] = args.plain;
  if (name === undefined || size_text === undefined) throw usage_error(kmem, "kmem create: give a name and a size");
  const size = parse_number("size", size_text);
  const given = create_args(args);
  const flags = parse_flags(args.named.get("flags") ?? "0");
  const { useroffset = 0, usersize = 0 } = given;
  const wrong = kmem_cache_check(name, size, given, flags);
  if (wrong !== undefined) throw new CommandError(`kmem create: ${wrong}`);
  if (useroffset < 0 || usersize < 0 || useroffset + usersize > size || (usersize === 0 && useroffset > 0))
    throw new CommandError(`kmem create: bytes ${useroffset} to ${useroffset + usersize} are no part of ${size} bytes`);
  if (given.ctor && size < CTOR_BYTES && slab_ops().kmalloc)
    throw new CommandError(
      `kmem create: the constructor writes ${CTOR_BYTES} bytes; give a size of ${CTOR_BYTES} or more`,
    );
  if (find_cache(name) !== NULL) throw new CommandError(`kmem create: a cache named ${name} exists already`);
  const cache = __kmem_cache_create_args(name, size, given, flags);
  if (cache === -ENOMEM) throw new CommandError(`kmem create ${name}: out of memory`);
  if (cache < 0) throw new CommandError(`kmem create ${name}: ${strerror(cache)}: no slab can hold such objects`);
  const address = alias_address(name) ?? cache;
  ctx.held.add({ kind: "cache", name, address, release: () => give_up_cache(cache, address) });
  return describe_cache(name, cache_named(name));
}

/** Where the alias struct of a merged name lies; undefined if the name is the cache's own. */
function alias_address(name: string): Ptr | undefined {
  for (const alias of for_each_alias()) if (SlabAlias.name.get(alias) === name) return alias;
  return undefined;
}

/** Destroys a cache; where the name was an alias its record goes first, so that nothing of it is left. */
function give_up_cache(cache: CachePtr, address: Ptr): void {
  if (address !== cache) {
    list_del(SlabAlias.list.at(address));
    kfree(address);
  }
  kmem_cache_destroy(cache);
}

function describe_cache(name: string, cache: CachePtr): Result {
  const own_name = KmemCache.name.get(cache);
  const [object_size, slab_size] = [KmemCache.object_size.get(cache), KmemCache.size.get(cache)];
  const [objs_per_slab, order] = [oo_objects(KmemCache.oo.get(cache)), oo_order(KmemCache.oo.get(cache))];
  const slab_bytes = PAGE_SIZE << order;
  const lost = objs_per_slab === 0 ? 0 : slab_bytes - objs_per_slab * object_size;
  const merged_with = own_name === name ? null : own_name;
  const json = {
    name,
    merged_with,
    object_size,
    slab_size,
    align: KmemCache.align.get(cache),
    objs_per_slab,
    order,
    lost,
  };
  const slab = `${objs_per_slab} in ${plural(1 << order, "page")}`;
  const text = slab_view().find_block
    ? `${name}: ${slab_size} bytes each, in no slabs`
    : `${name}: slots of ${slab_size} bytes, ${slab}, unused ${share(lost, slab_bytes)}`;
  return { text: merged_with === null ? text : `${text}\nmerged with ${merged_with}`, json };
}

function alloc(ctx: Context, args: Args): Result {
  only(kmem, args, 2, "gfp", "node");
  const [name, count_text] = args.plain;
  const cache = cache_named(name);
  const count = count_text === undefined ? 1 : parse_count("kmem alloc", count_text, 1, 1_000_000);
  const { gfp, node } = memory_args(args.named);
  const taken: Obj[] = [];
  for (let i = 0; i < count; i++) {
    const object = node < 0 ? kmem_cache_alloc(cache, gfp) : kmem_cache_alloc_node(cache, gfp, node);
    if (object === NULL) {
      for (const other of taken.reverse()) kmem_cache_free(cache, other);
      throw new CommandError(
        `kmem alloc ${name}: out of memory after ${plural(taken.length, "object")}; all given back`,
      );
    }
    taken.push(object);
  }
  for (const address of taken)
    ctx.held.add({ kind: "object", name: name!, address, release: () => kmem_cache_free(cache, address) });
  const texts = taken.map(address_text);
  return { text: texts.join("\n"), json: texts };
}

function free(ctx: Context, args: Args): Result {
  only(kmem, args, Infinity);
  const [name, ...texts] = args.plain;
  const cache = cache_named(name);
  if (texts.length === 0) throw usage_error(kmem, "kmem free: give addresses, or all");
  const is_ours = (holding: Holding): boolean => is_slot(holding) && find_cache(holding.name) === cache;
  const chosen =
    texts.length === 1 && texts[0] === "all"
      ? ctx.held.list(undefined, name).filter(is_slot)
      : [...parse_addresses("kmem free", texts, name)].map(([ptr, text]) =>
          held_at(ctx, `kmem free ${name}`, text, ptr, is_ours),
        );
  for (const { address } of chosen) {
    ctx.held.remove(address);
    kmem_cache_free(cache, address);
  }
  return { text: `${plural(chosen.length, "object")} freed`, json: { freed: chosen.length } };
}

function shrink(_ctx: Context, args: Args): Result {
  only(kmem, args, 1);
  const cache = cache_named(args.plain[0]);
  const before = get_slabinfo(cache).num_slabs;
  kmem_cache_shrink(cache);
  const left = get_slabinfo(cache).num_slabs;
  return { text: `${plural(before - left, "slab")} given back, ${left} left`, json: { freed: before - left, left } };
}

function destroy(ctx: Context, args: Args): Result {
  only(kmem, args, 1);
  const cache = cache_named(args.plain[0]);
  const name = args.plain[0]!;
  const holding = ctx.held.list("cache", name)[0];
  if (!holding) throw new CommandError(`kmem destroy ${name}: the cache is the kernel's, not this console's`);
  const merged = KmemCache.refcount.get(cache) > 1;
  const live = merged ? ctx.held.list("object", name).length : get_slabinfo(cache).live_objs;
  if (live > 0) throw new CommandError(`kmem destroy ${name}: ${plural(live, "object")} in use`);
  ctx.held.remove(holding.address);
  give_up_cache(cache, holding.address);
  return line(`${name} destroyed`, { destroyed: name });
}

/** Records a block of kmalloc under the name of its cache. */
function hold_block(ctx: Context, address: Obj): void {
  if (address === ZERO_SIZE_PTR) return;
  const cache = virt_to_cache(address);
  const small = page_is_slab(virt_to_head_page(address));
  const name = cache !== NULL ? KmemCache.name.get(cache) : small ? "kmalloc" : "large kmalloc";
  ctx.held.add({ kind: "block", name, address, release: () => kfree(address) });
}

function parse_size(what: string, text: string | undefined): number {
  return parse_count(what, text, 0, KMALLOC_MAX_SIZE);
}

register(kmem);

register({
  name: "kmalloc",
  group: "heap",
  usage: "kmalloc SIZE [gfp=GFP_…] [node=N]",
  summary: "takes SIZE bytes from the size class that holds them",
  man: `Prints the address. Up to 8192 bytes come from a cache kmalloc-N, more from the page allocator. 0 gives the address
16, which is no memory. ksize says how many bytes the block really has, explain what it is.`,
  run(ctx, args) {
    const parsed = parse_args(args);
    only(this, parsed, 1, "gfp", "node");
    const size = parse_size("kmalloc", parsed.plain[0]);
    const { gfp, node } = memory_args(parsed.named);
    const object = node < 0 ? kmalloc(size, gfp) : kmalloc_node(size, gfp, node);
    if (object === NULL) throw new CommandError(`kmalloc ${size}: out of memory`);
    hold_block(ctx, object);
    return line(address_text(object));
  },
});

register({
  name: "krealloc",
  group: "heap",
  usage: "krealloc ADDR SIZE [gfp=GFP_…]",
  summary: "changes the size of a kmalloc block",
  man: `Prints the address, which is the same if the slot is large enough. NULL for ADDR takes a new block; size 0 frees.`,
  run(ctx, args) {
    const parsed = parse_args(args);
    only(this, parsed, 2, "gfp");
    const ptr = parse_address(parsed.plain[0]);
    const size = parse_size("krealloc", parsed.plain[1]);
    const { gfp } = memory_args(parsed.named);
    if (ptr > ZERO_SIZE_PTR) held_at(ctx, "krealloc", parsed.plain[0]!, ptr, is_kmallocs);
    const object = krealloc(ptr, size, gfp);
    if (object === NULL) throw new CommandError(`krealloc ${size}: out of memory; the block is as it was`);
    if (object !== ptr) {
      ctx.held.remove(ptr);
      hold_block(ctx, object);
    }
    return line(address_text(object));
  },
});

register({
  name: "ksize",
  group: "heap",
  usage: "ksize ADDR",
  summary: "bytes of the slot that a live object lies in",
  man: `Says how many bytes may really be used at an address that kmalloc gave: the size of the slot, or of the pages.`,
  reads: true,
  run(ctx, [text, ...more]) {
    if (more.length > 0) throw usage_error(this);
    const ptr = parse_address(text);
    if (ptr <= ZERO_SIZE_PTR) return line("0", 0);
    const place = locate(ptr, ctx.held);
    const starts =
      place.use === "kmalloc" ? ptr === place.block!.pfn << PAGE_SHIFT : place.offset === 0 && place.free === false;
    const holding = ctx.held.find(ptr);
    if (!starts || (holding && !is_kmallocs(holding)))
      throw new CommandError(`ksize: ${what_it_is(text!, ptr, place)}`);
    const bytes = ksize(ptr);
    return line(String(bytes), bytes);
  },
});

register({
  name: "kfree",
  group: "heap",
  usage: "kfree ADDR…",
  summary: "gives kmalloc blocks back, in the order given",
  man: `Takes addresses that kmalloc (or kmem alloc) printed on this console; NULL and the address 16 are allowed and do nothing.`,
  run(ctx, args) {
    if (args.length === 0) throw usage_error(this);
    const chosen = [...parse_addresses("kfree", args)].filter(([ptr]) => ptr > ZERO_SIZE_PTR);
    for (const [ptr, text] of chosen) held_at(ctx, "kfree", text, ptr, is_kmallocs);
    for (const [ptr] of chosen) {
      ctx.held.remove(ptr);
      kfree(ptr);
    }
    return { text: `${plural(chosen.length, "block")} freed`, json: { freed: chosen.length } };
  },
});

register({
  name: "alloc_pages",
  group: "heap",
  usage: "alloc_pages ORDER [gfp=GFP_…] [node=N]",
  summary: "takes 2^ORDER pages from the page allocator",
  man: `Prints the address of the block, which is aligned to its size. free_pages ADDR ORDER gives it back.`,
  run(ctx, args) {
    const parsed = parse_args(args);
    only(this, parsed, 1, "gfp", "node");
    const order = parse_count("order", parsed.plain[0], 0, MAX_PAGE_ORDER);
    const { gfp, node } = memory_args(parsed.named);
    const page = node < 0 ? alloc_pages(gfp, order) : alloc_pages_node(node, gfp, order);
    if (page === NULL) throw new CommandError(`alloc_pages ${order}: out of memory`);
    const address = page_address(page);
    ctx.held.add({ kind: "pages", name: `order ${order}`, address, release: () => __free_pages(page, order) });
    return line(address_text(address));
  },
});

register({
  name: "free_pages",
  group: "heap",
  usage: "free_pages ADDR ORDER",
  summary: "gives a page block back",
  man: `Takes an address that alloc_pages printed on this console, and the order it was asked with.`,
  run(ctx, [text, order_text, ...more]) {
    if (text === undefined || more.length > 0) throw usage_error(this);
    const ptr = parse_address(text);
    const order = parse_count("order", order_text, 0, MAX_PAGE_ORDER);
    const holding = held_at(ctx, "free_pages", text, ptr, ({ kind }) => kind === "pages");
    const was = held_order(holding.name);
    if (was !== order) throw new CommandError(`free_pages: ${text} is a block of order ${was}, not ${order}`);
    ctx.held.remove(ptr);
    __free_pages(pfn_to_page(ptr >>> PAGE_SHIFT), order);
    return { text: `${plural(1 << order, "page")} freed`, json: { freed: 1 << order } };
  },
});
