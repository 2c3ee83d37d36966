/**
 * Looking at the heap: `slab`, `map`, `explain`, `frag`, `peek`, `pahole`, `validate`; and `poke` and `on`, which change
 * what there is to look at. The drawing is done in boot/figures/.
 */
import { PAGE_SHIFT, PAGE_SIZE, px, virt_px, type Ptr } from "../../hal/addr.ts";
import { nr_cpu_ids } from "../../hal/cpu.ts";
import { events, type KernelEvents, type SlabEvent } from "../../hal/events.ts";
import { ram_read_bytes, ram_write_bytes } from "../../hal/ram.ts";
import { struct_layouts, type FieldInfo, type StructInfo } from "../../hal/struct.ts";
import { ptr_to_virt } from "../../mm/kernel_map.ts";
import { mem_map_state, page_address } from "../../mm/page.ts";
import { KmemCache, for_each_cache, get_slabinfo, type CachePtr } from "../../mm/slab_common.ts";
import { validate_mm } from "../../mm/validate.ts";
import { Zone, for_each_populated_zone } from "../../mm/zone.ts";
import { cache_named, parse_address } from "../figures/address.ts";
import { draw_place, locate } from "../figures/explain.ts";
import { FRAG_MAX, FRAG_SIZES, draw_frag, frag_figure } from "../figures/frag.ts";
import { draw_map, memory_map, type MapBy } from "../figures/map.ts";
import { letters, plural } from "../figures/names.ts";
import { slab_view } from "../figures/views.ts";
import { parse_mapped, peek_mapped, poke_mapped } from "./vmalloc.ts";
import {
  CommandError, nearest, parse_count, register, usage_error, type Context, type Result,
} from "./registry.ts"; // prettier-ignore

register({
  name: "slab",
  group: "look",
  usage: "slab NAME [--all] [--watch COMMAND]",
  summary: "draws a slab cache: its two tables, and every slab object by object",
  man: `Draws kmem_cache_cpu of each CPU (freelist: the next free object; page: the active slab; partial: slabs it keeps)
and kmem_cache_node of each node (partial and full slabs), then each slab as a row of its objects: # live, 1-9a-z free,
numbered in the order in which they will be handed out. Slabs have letters in order of birth, node by node; A3 is
object 3 of slab A, and may be typed wherever an object's address may. Without --all text stays on one screen.

Under SLAB: each CPU's array_cache (objects in it of its limit, those that go next) and each node's lists, shared and
alien array; behind a slab's address its colour. * is free in an array, 1-9a-z free on the slab, by its index array.

Under SLOB, which has no slabs, NAME is one of its lists of pages, small, medium or large, or a cache.

With --watch COMMAND it runs that command and prints a line for each move of a slab of this cache: slab, from, to, and
the counter that the move added to.

    slab my_object_cache --watch kmem alloc my_object_cache 27`,
  reads: true,
  complete: "cache",
  run(ctx, args) {
    const at = args.indexOf("--watch");
    const words = args.slice(0, at < 0 ? undefined : at).filter((word) => word !== "--all");
    if (words.length > 1) throw usage_error(this, `"${words[1]}" is not expected`);
    const view = slab_view();
    if (at >= 0 && view.list_figure)
      throw new CommandError(
        "slab --watch: no slab moves, for there are none; slab small|medium|large shows the pages",
      );
    if (at >= 0) return watch_moves(ctx, cache_named(words[0]), args.slice(at + 1));
    const figure = view.list_figure?.(words[0] ?? "") ?? view.figure(cache_named(words[0]));
    return { text: view.draw(figure, args.includes("--all")), json: figure };
  },
});

interface Move {
  readonly slab: string;
  readonly from: string;
  readonly to: string;
  readonly counter: string;
}

/** Where an event says that a slab went; a new slab is on its way from the page allocator. */
function destination(name: keyof KernelEvents, event: SlabEvent & { cpu?: number; list?: string }): string {
  if (name === "slab:cpu") return `cpu ${event.cpu}${event.list === "partial" ? " partial" : ""}`;
  return (
    { "slab:full": "full", "slab:partial": "partial", "slab:free": "free", "slab:discard": "buddy" }[name as string] ??
    "new"
  );
}

/** Runs a command and records every move of the cache's slabs. */
async function watch_moves(ctx: Context, cache: CachePtr, words: readonly string[]): Promise<Result> {
  if (words.length === 0) throw new CommandError("slab --watch: a command is missing");
  const name = KmemCache.name.get(cache);
  const { slabs_of, figure } = slab_view();
  const slabs = slabs_of(cache).map((slab) => page_address(slab as Ptr));
  const places = new Map(figure(cache).slabs.map((row, i) => [slabs[i]!, { id: row.id, on: row.on }]));
  const moves: Move[] = [];
  let born = slabs.length;
  const listener = (event_name: keyof KernelEvents) => (event: SlabEvent) => {
    if (event.cache !== name) return;
    if (event_name === "slab:new") places.set(event.slab, { id: letters(born++), on: "buddy" });
    const place = places.get(event.slab);
    if (!place || event_name === "slab:new") return;
    const to = destination(event_name, event);
    if (to === place.on) return; // only its place in the list is another
    moves.push({ slab: place.id, from: place.on, to, counter: event.counter });
    place.on = to;
  };
  const listeners = (["slab:new", "slab:cpu", "slab:partial", "slab:full", "slab:free", "slab:discard"] as const).map(
    (event_name) => [event_name, listener(event_name)] as const,
  );
  for (const [event_name, listen] of listeners) events.on(event_name, listen as never);
  try {
    const answer = await ctx.run_line(words.length === 1 ? words[0]! : words.map(quote).join(" "), { cpu: ctx.cpu });
    const lines = moves.map((m) => `${m.slab.padEnd(3)} ${m.from.padEnd(13)} -> ${m.to.padEnd(13)} ${m.counter}`);
    return { text: lines.join("\n") || "no slab moved", json: { moves, answer: answer.json } };
  } finally {
    for (const [event_name, listen] of listeners) events.off(event_name, listen as never);
  }
}

/** A word so that the console reads it as it is. */
export function quote(word: string): string {
  return /^[^\s;&>"'\\#]+$/.test(word) ? word : `"${word.replaceAll('"', "'")}"`;
}

register({
  name: "map",
  group: "look",
  usage: "map [owner|order|node]",
  summary: "all of memory on one screen: free, slabs, kernel, page cache, holes, zones",
  man: `A grid of cells, each a power of two of pages, from address 0 on.
  owner  what the pages are used for (a cell with any page in use shows the commonest use)
  order  the order of the largest free block that reaches into the cell: how far free memory is in pieces
  node   the NUMA node`,
  reads: true,
  complete: (args) => (args.length === 1 ? ["owner", "order", "node"] : []),
  run(_ctx, [by = "owner", ...more]) {
    if (!["owner", "order", "node"].includes(by) || more.length > 0) throw usage_error(this);
    const map = memory_map(by as MapBy);
    return { text: draw_map(map), json: map };
  },
});

/** A frame number, decimal or 0x…, as an address; undefined if the text is none. */
function parse_pfn(text: string): Ptr | undefined {
  if (!/^(\d{1,8}|0x[0-9a-f]{1,8})$/i.test(text)) return undefined;
  const pfn = Number(text);
  if (pfn < mem_map_state.max_pfn) return pfn << PAGE_SHIFT;
  throw new CommandError(`explain: pfn ${text} is beyond the last, ${mem_map_state.max_pfn - 1}`);
}

register({
  name: "explain",
  group: "look",
  usage: "explain ADDR|PFN",
  summary: "what an address is: zone, block, cache, slab, object, free or live, owner",
  man: `Takes an address (ffff888002f40000), an object (A3, NAME:A3) or a page frame number (decimal or 0x…).`,
  reads: true,
  run(ctx, [text, ...more]) {
    if (text === undefined || more.length > 0) throw usage_error(this);
    const place = locate(parse_pfn(text) ?? parse_address(text), ctx.held);
    return { text: draw_place(place), json: place };
  },
});

register({
  name: "frag",
  group: "look",
  usage: "frag [SIZE…]",
  summary: "bytes asked, given and lost: the buddy allocator alone, and kmalloc",
  man: `Takes one block of each size from the page allocator and one from kmalloc, reads off the counters what each cost,
and gives them back. The last lines say what all slabs of all caches are made of at this moment.`,
  reads: true,
  run(_ctx, args) {
    const figure = frag_figure(
      args.length > 0 ? args.map((text) => parse_count("size", text, 1, FRAG_MAX)) : FRAG_SIZES,
    );
    return { text: draw_frag(figure), json: figure };
  },
});

/** An address range that is RAM, or a CommandError. */
function check_range(what: string, ptr: Ptr, bytes: number): void {
  if (ptr + bytes > mem_map_state.max_pfn * PAGE_SIZE)
    throw new CommandError(
      `${what}: ${px(ptr)} and ${plural(bytes, "byte")} are not inside RAM, which ends at ${px(mem_map_state.max_pfn * PAGE_SIZE - 1)}`,
    );
}

/** 16 bytes a line, in pairs, and what of it is text. */
function hex_dump(address: (at: number) => string, bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  const chars = Buffer.from(bytes)
    .toString("latin1")
    .replace(/[^ -~]/g, ".");
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const pairs = hex.slice(2 * at, 2 * at + 32).match(/.{1,4}/g)!;
    lines.push(`${address(at)}: ${pairs.join(" ").padEnd(39)}  ${chars.slice(at, at + 16)}`);
  }
  return lines.join("\n");
}

register({
  name: "peek",
  group: "look",
  usage: "peek ADDR [LEN]",
  summary: "raw bytes of RAM, as a hex dump",
  man: `ADDR is of the direct map, or of vmalloc or the kernel image, which are looked up in the page tables.
LEN is 64 bytes if not given. JSON: {"address", "hex"}.`,
  reads: true,
  run(_ctx, [text, length_text, ...more]) {
    if (text === undefined || more.length > 0) throw usage_error(this);
    const length =
      length_text === undefined ? 64 : parse_count("LEN", length_text, 1, mem_map_state.max_pfn * PAGE_SIZE);
    const va = parse_mapped(text);
    const ptr = va === undefined ? parse_address(text) : 0;
    if (va === undefined) check_range("peek", ptr, length);
    const bytes = va === undefined ? ram_read_bytes(ptr, length) : peek_mapped(va, length);
    const address = (at: number): string => virt_px((va ?? ptr_to_virt(ptr)) + at);
    return { text: hex_dump(address, bytes), json: { address: address(0), hex: Buffer.from(bytes).toString("hex") } };
  },
});

register({
  name: "poke",
  group: "heap",
  usage: "poke ADDR BYTE…",
  summary: "writes bytes into RAM",
  man: `Each BYTE is one or two hex digits. Nothing is checked: this is how one breaks a heap to see what breaks. \`validate\` says.`,
  run(_ctx, [text, ...texts]) {
    if (text === undefined || texts.length === 0) throw usage_error(this);
    const va = parse_mapped(text);
    const ptr = va === undefined ? parse_address(text) : 0;
    const bytes = texts.map((byte) => {
      if (!/^(0x)?[0-9a-f]{1,2}$/i.test(byte)) throw new CommandError(`poke: "${byte}" is no byte: give 00 to ff`);
      return parseInt(byte, 16);
    });
    if (va === undefined) {
      check_range("poke", ptr, bytes.length);
      ram_write_bytes(ptr, Uint8Array.from(bytes));
    } else poke_mapped(va, Uint8Array.from(bytes));
    const address = va === undefined ? px(ptr) : virt_px(va);
    return {
      text: `${plural(bytes.length, "byte")} written at ${address}`,
      json: { address, written: bytes.length },
    };
  },
});

register({
  name: "on",
  group: "heap",
  usage: "on CPU COMMAND",
  summary: "runs a command on another CPU",
  man: `The command's kernel calls are made by that CPU: its freelists, its page lists, its node.

    on 2 kmem alloc dentry 3`,
  complete: (args) => (args.length === 1 ? Array.from({ length: nr_cpu_ids() }, (_, cpu) => String(cpu)) : []),
  run(ctx, [cpu_text, ...words]) {
    const cpu = parse_count("CPU", cpu_text, 0, nr_cpu_ids() - 1);
    if (words.length === 0) throw usage_error(this);
    return ctx.run_line(words.map(quote).join(" "), { cpu });
  },
});

register({
  name: "pahole",
  group: "look",
  usage: "pahole NAME",
  summary: "the layout of a kernel struct: offsets, sizes, holes",
  man: `Prints fields as C would lay them out, with offset and size in bytes, holes, and where cache lines begin.`,
  reads: true,
  complete: (args) => (args.length === 1 ? [...struct_layouts().keys()] : []),
  run(_ctx, [name, ...more]) {
    if (name === undefined || more.length > 0) throw usage_error(this);
    const layout = struct_layouts().get(name);
    if (!layout) {
      const other = nearest(name, [...struct_layouts().keys()]);
      throw new CommandError(
        `pahole: there is no struct ${name}${other === undefined ? "" : `; do you mean ${other}?`}`,
      );
    }
    return draw_layout(layout);
  },
});

/** A field as C declares it. */
function declaration({ name, type, size }: FieldInfo): string {
  const pointer = type.startsWith("*");
  const element = pointer ? 8 : type === "char" ? 1 : type.startsWith("struct ")
    ? (struct_layouts().get(type.slice(7))?.sizeof ?? size)
    : Number(type.slice(1)) / 8; // prettier-ignore
  const count = size / element;
  const base = pointer ? `struct ${type.slice(1)} *` : `${type} `;
  return `${base}${name}${count > 1 || type === "char" ? `[${count}]` : ""};`;
}

function draw_layout({ tag, sizeof, alignof, layout }: StructInfo<string>): Result {
  const lines = [`struct ${tag} {`];
  const holes: { offset: number; size: number }[] = [];
  let end = 0;
  const hole = (offset: number): void => {
    if (offset === end) return;
    holes.push({ offset: end, size: offset - end });
    lines.push(`        /* ${plural(offset - end, "byte")} hole */`);
  };
  for (const field of layout) {
    hole(field.offset);
    if (field.offset > 0 && Math.floor((end - 1) / 64) < Math.floor(field.offset / 64))
      lines.push(`        /* --- cacheline ${Math.floor(field.offset / 64)} --- */`);
    const text = declaration(field).padEnd(42);
    lines.push(`        ${text} /* ${String(field.offset).padStart(5)} ${String(field.size).padStart(5)} */`);
    end = field.offset + field.size;
  }
  hole(sizeof);
  lines.push(
    "",
    `        /* size: ${sizeof}, cachelines: ${Math.ceil(sizeof / 64)}, members: ${layout.length}, align: ${alignof} */`,
    "};",
  );
  return { text: lines.join("\n"), json: { tag, sizeof, alignof, fields: layout, holes } };
}

register({
  name: "validate",
  group: "look",
  usage: "validate",
  summary: "checks every page, list and cache against what must hold",
  man: `Walks all zones, page lists, caches, slabs and free lists in RAM and compares them with every counter. Fails if
anything is wrong, with a line for each finding.`,
  run(ctx, args) {
    if (args.length > 0) throw usage_error(this);
    const findings = validate_mm();
    const caches = [...for_each_cache()];
    const zones = [...for_each_populated_zone()];
    const pages = zones.reduce((sum, zone) => sum + Zone.present_pages.get(zone), 0);
    const infos = caches.map((cache) => get_slabinfo(cache));
    const slabs = infos.reduce((sum, info) => sum + info.num_slabs, 0);
    const objects = infos.reduce((sum, info) => sum + info.num_objs, 0);
    const seen = `${plural(pages, "page")} in ${plural(zones.length, "zone")}, ${plural(caches.length, "cache")}, ${plural(slabs, "slab")}, ${plural(objects, "object")}`;
    if (findings.length > 0) {
      for (const finding of findings) ctx.print(finding);
      throw new CommandError(
        `validate: ${plural(findings.length, "finding")} in ${seen}${ctx.json ? `: ${findings.join("; ")}` : ""}`,
      );
    }
    return {
      text: `${seen}: all is well`,
      json: { pages, zones: zones.length, caches: caches.length, slabs, objects, findings },
    };
  },
});
