/**
 * A second reader of the heap: it knows how the kernel's structs are laid out (the table below, in C's terms) and sees
 * RAM only through what `peek` prints. From that it rebuilds what `slab`, `map` and `explain` answer. It shares no code
 * with the kernel or with the figures, so where the two agree the figures show what really lies in RAM.
 */

/** Runs `peek ADDRESS LENGTH` and returns the printed text. */
export type Peek = (address: string, length: number) => string;

/** `struct NAME: TYPE FIELD, …`: `ptr` is 8 bytes, a struct's name embeds it, [n] is an array. */
const LAYOUTS = `
list_head: ptr next, ptr prev
spinlock: u32 owner, u32 pad
image_header: u32 magic, u32 nr_symbols, u32 nr_cpus
image_symbol: char[44] name, u32 layout_hash, u32 address, u32 size, u32 kind, u32 pad
mem_map: ptr mem_map, u32 max_pfn
memblock_type: u32 cnt, u32 max, u64 total_size, ptr regions, char[16] name
memblock_region: u64 base, u64 size, s32 nid, u32 flags
page: u32 flags, u32 zone_node, list_head lru, ptr mapping, u64 index, u32 private, u32 private_hi, s32 page_type, s32 refcount, u64 memcg_data
slab: u32 flags, u32 zone_node, ptr slab_cache, list_head slab_list, u32 counters, u32 objects, ptr slabs_next, s32 page_type, s32 refcount, u32 slabs_prev, u32 birth
free_area: list_head[5] free_list, u32 nr_free
per_cpu_pages@64: spinlock lock, s32 count, s32 high, s32 high_min, s32 high_max, s32 batch, u32 flags, s32 alloc_factor, s32 expire, s32 free_count, s32 limit, s32 free_max, u32 allocs, u32 zone_node, s32 blocks, list_head[14] lists
zone@64: u32[4] watermark, u32 watermark_boost, u32 nr_reserved_highatomic, u32 nr_free_highatomic, u32 flags, u32 plenty, u32[5] lowmem_reserve, u32 zone_idx, u32 node, ptr zone_pgdat, ptr per_cpu_pageset, s32 pageset_batch, s32 pageset_high_min, s32 pageset_high_max, s32 stat_threshold, u32 zone_start_pfn, u32 spanned_pages, u32 present_pages, u32 managed_pages, ptr pageblock_flags, char[8] name, spinlock lock, free_area[11] free_area, s32[10] vm_stat, u32[6] numa_event
node_data: ptr[16] node_data, u32 nr_node_ids
slab_common: spinlock mutex, u32 state, u32 freelist_random, u32 freelist_hardened, u32 cpu_partial, u32 track_full, u32 nomerge, u32 min_order, u32 max_order, u32 min_objects, u32 fast_paths_closed, u32 nr_caches, list_head caches
kmem_cache: ptr cpu_slab, s32 fast_offset, u32 min, u32 cpu_partial, u32 cpu_partial_slabs, u32 min_partial, u32 remote_node_defrag_ratio, u32 random, ptr cpu_sheaves, ptr barns, u32 offset, u32 object_size, u32 size, u32 flags, u32 oo, u32 allocflags, u32 inuse, u32 align, u32 red_left_pad, s32 refcount, u32 useroffset, u32 usersize, u32 sheaf_capacity, ptr random_seq, ptr ctor, list_head list, char[64] name, ptr[16] node
slab_cache: ptr cpu_cache, u32 closed, u32 limit, u32 batchcount, u32 shared, u32 colour, u32 colour_off, u32 mode, s32 num_active, ptr freelist_cache, s32 high_mark, u32 max_freeable
array_cache: u32 avail, u32 limit, u32 batchcount, u32 touched
slab_cpu: s32 home, u32[11] stat, array_cache array
slab_node: spinlock list_lock, list_head slabs_partial, list_head slabs_full, list_head slabs_free, u32 total_slabs, u32 free_slabs, u32 free_objects, u32 free_limit, u32 colour_next, u32 free_touched, ptr shared, ptr alien, u64 next_reap, u32 node
alien_cache: spinlock lock, array_cache array
slab_page: u32 flags, u32 zone_node, ptr slab_cache, list_head slab_list, u32 active, u32 s_mem, ptr freelist, s32 page_type, s32 refcount, u32 pad, u32 birth
kmem_cache_cpu: ptr freelist, ptr page, ptr partial
slab_sheaf: list_head list, ptr cache, u32 size, u32 capacity
slub_percpu_sheaves: ptr main, ptr spare, ptr rcu_free
node_barn: spinlock lock, u32 nr_full, u32 nr_empty, list_head full, list_head empty
kmem_cache_node: spinlock list_lock, u32 nr_partial, u32 nr_slabs, list_head partial, list_head full, u32 total_objects, u32 node, ptr slabs_first, ptr slabs_last
`;

interface Field {
  readonly type: string;
  readonly offset: number;
  readonly size: number;
}
interface Layout {
  readonly size: number;
  readonly align: number;
  readonly fields: Map<string, Field>;
}

const SCALARS: Record<string, number> = { u32: 4, s32: 4, u64: 8, ptr: 8, char: 1 };
const up = (value: number, align: number): number => Math.ceil(value / align) * align;

/** Offsets by C's rules. */
export function lay_out(): Map<string, Layout> {
  const layouts = new Map<string, Layout>();
  for (const text of LAYOUTS.trim().split("\n")) {
    const [, name, aligned, body] = /^(\w+)(?:@(\d+))?: (.*)$/.exec(text)!;
    const fields = new Map<string, Field>();
    let end = 0;
    let align = Number(aligned ?? 1);
    for (const declaration of body!.split(", ")) {
      const [, type, count, field] = /^(\w+)(?:\[(\d+)\])? (\w+)$/.exec(declaration)!;
      const inner = layouts.get(type!);
      const size = inner?.size ?? SCALARS[type!]!;
      const field_align = inner?.align ?? size;
      const offset = up(end, field_align);
      fields.set(field!, { type: type!, offset, size });
      end = offset + size * Number(count ?? 1);
      align = Math.max(align, field_align);
    }
    layouts.set(name!, { size: up(end, align), align, fields });
  }
  return layouts;
}

const PAGE = 4096;
const SYMBOLS = 0x110000;
export const CPU_SHIFT = 16;
const TYPES = ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"];
export const FLAGS: readonly [string, number][] = [
  ["SLAB_CONSISTENCY_CHECKS", 0x100], ["SLAB_RED_ZONE", 0x400], ["SLAB_POISON", 0x800], ["SLAB_KMALLOC", 0x1000],
  ["SLAB_HWCACHE_ALIGN", 0x2000], ["SLAB_CACHE_DMA", 0x4000], ["SLAB_CACHE_DMA32", 0x8000], ["SLAB_STORE_USER", 0x10000],
  ["SLAB_RECLAIM_ACCOUNT", 0x20000], ["SLAB_PANIC", 0x40000], ["SLAB_TYPESAFE_BY_RCU", 0x80000], ["SLAB_TRACE", 0x200000],
  ["SLAB_DEBUG_OBJECTS", 0x400000], ["SLAB_NOLEAKTRACE", 0x800000], ["SLAB_NO_MERGE", 0x1000000],
  ["SLAB_ACCOUNT", 0x4000000], ["SLAB_NO_USER_FLAGS", 0x10000000],
]; // prettier-ignore

export const px = (ptr: number): string => "ffff8880" + ptr.toString(16).padStart(8, "0");

/** A, B, … Z, AA, AB, … */
export function letter(n: number): string {
  return (n >= 26 ? letter(Math.floor(n / 26) - 1) : "") + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[n % 26];
}

function swap_bytes(word: number): number {
  return ((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

interface Buddy {
  readonly pfn: number;
  readonly order: number;
}

/** RAM as it is now; everything is read at most once, so make a new one when the machine has run on. */
export class SecondReader {
  private readonly layouts = lay_out();
  private readonly pages = new Map<number, Uint8Array>();
  private readonly symbols = new Map<string, number>();
  private readonly peek: Peek;
  nr_cpus = 0;
  private mem_map = 0;
  max_pfn = 0;

  private constructor(peek: Peek) {
    this.peek = peek;
  }

  static open(peek: Peek): SecondReader {
    const reader = new SecondReader(peek);
    reader.load(SYMBOLS, 65536);
    reader.nr_cpus = reader.get("image_header", "nr_cpus", SYMBOLS);
    for (let i = 0; i < reader.get("image_header", "nr_symbols", SYMBOLS); i++) {
      const at = SYMBOLS + 64 + i * 64;
      reader.symbols.set(reader.text("image_symbol", "name", at, 44), reader.get("image_symbol", "address", at));
    }
    // The kernel's data and per-CPU areas, then all page structs: what every question needs.
    reader.load(SYMBOLS + 65536, 0x40000 + (reader.nr_cpus << CPU_SHIFT));
    reader.mem_map = reader.get("mem_map", "mem_map", reader.symbol("mem_map"));
    reader.max_pfn = reader.get("mem_map", "max_pfn", reader.symbol("mem_map"));
    reader.load(reader.mem_map, reader.max_pfn * 64);
    return reader;
  }

  /** Reads whole pages of a range through peek, at most once each. */
  private load(start: number, length: number): void {
    for (let at = start - (start % PAGE); at < start + length; at += PAGE) {
      if (this.pages.has(at / PAGE)) continue;
      const lines = this.peek(px(at), PAGE).split("\n");
      const hex = lines.map((line) => line.slice(18, 57).replaceAll(" ", "")).join("");
      this.pages.set(at / PAGE, Uint8Array.from(Buffer.from(hex, "hex")));
    }
  }

  byte(ptr: number): number {
    const number = Math.floor(ptr / PAGE);
    if (!this.pages.has(number)) this.load(ptr, 1);
    return this.pages.get(number)![ptr % PAGE]!;
  }

  word(ptr: number): number {
    return this.byte(ptr) | (this.byte(ptr + 1) << 8) | (this.byte(ptr + 2) << 16) | (this.byte(ptr + 3) << 24);
  }

  at(struct: string, field: string, ptr: number, index = 0): number {
    const { offset, size } = this.layouts.get(struct)!.fields.get(field)!;
    return ptr + offset + index * size;
  }

  get(struct: string, field: string, ptr: number, index = 0): number {
    const { type } = this.layouts.get(struct)!.fields.get(field)!;
    const at = this.at(struct, field, ptr, index);
    if (type === "u64") return (this.word(at) >>> 0) + (this.word(at + 4) >>> 0) * 2 ** 32;
    return type === "s32" ? this.word(at) : this.word(at) >>> 0;
  }

  text(struct: string, field: string, ptr: number, length: number): string {
    let text = "";
    for (let at = this.at(struct, field, ptr), i = 0; i < length && this.byte(at + i) !== 0; i++)
      text += String.fromCharCode(this.byte(at + i));
    return text;
  }

  private symbol(name: string): number {
    const address = this.symbols.get(name);
    if (address === undefined) throw new Error(`no symbol ${name} in RAM`);
    return address;
  }

  *list(head: number): Generator<number> {
    for (let node = this.word(head); node !== head; node = this.word(node)) yield node;
  }

  size(struct: string): number {
    return this.layouts.get(struct)!.size;
  }

  *nodes(): Generator<[number, number]> {
    const data = this.symbol("node_data");
    for (let node = 0; node < this.get("node_data", "nr_node_ids", data); node++)
      if (this.get("node_data", "node_data", data, node) !== 0)
        yield [node, this.get("node_data", "node_data", data, node)];
  }

  private *zones(): Generator<number> {
    for (const [, pgdat] of this.nodes())
      for (let i = 0; i < 5; i++) {
        const zone = pgdat + i * this.size("zone");
        if (this.get("zone", "present_pages", zone) > 0) yield zone;
      }
  }

  *caches(): Generator<[string, number]> {
    for (const node of this.list(this.at("slab_common", "caches", this.symbol("slab_common")))) {
      const cache = node - this.at("kmem_cache", "list", 0);
      yield [this.text("kmem_cache", "name", cache, 64), cache];
    }
  }

  // ---- slab NAME

  /** What `slab NAME --json` answers. */
  slab(name: string): unknown {
    return this.slab_now([...this.caches()].find(([other]) => other === name)![1]);
  }

  first_byte(slab: number): number {
    return ((slab - this.mem_map) / 64) * PAGE;
  }

  page_order(page: number): number {
    return (this.get("page", "flags", page) >>> 6) & 1 ? this.get("page", "flags", page + 64) & 0xff : 0;
  }

  /** Indices on a free list. */
  private free_list(cache: number, slab: number, head: number): number[] {
    const found: number[] = [];
    const base = this.first_byte(slab) + this.get("kmem_cache", "red_left_pad", cache);
    const random = this.get("kmem_cache", "random", cache);
    for (let object = head; object !== 0;) {
      found.push((object - base) / this.get("kmem_cache", "size", cache));
      const link = object + this.get("kmem_cache", "offset", cache);
      object = random === 0 ? this.word(link) : this.word(link) ^ random ^ swap_bytes(link);
    }
    return found;
  }

  private free_of(cache: number, slab: number): number[] {
    const free: number[] = [];
    for (let cpu = 0; cpu < this.nr_cpus; cpu++) {
      const c = this.get("kmem_cache", "cpu_slab", cache) + (cpu << CPU_SHIFT);
      if (this.get("kmem_cache_cpu", "page", c) === slab)
        free.push(...this.free_list(cache, slab, this.get("kmem_cache_cpu", "freelist", c)));
    }
    const first = this.get("slab", "counters", slab) >>> 16;
    const granule = this.page_order(slab) > 7 ? this.get("kmem_cache", "size", cache) : 8;
    return first === 0xffff ? free : [...free, ...this.free_list(cache, slab, this.first_byte(slab) + first * granule)];
  }

  /** Addresses of the objects in sheaves, and where those are. */
  private sheaved(cache: number): Map<number, string> {
    const found = new Map<number, string>();
    const sheaves = this.get("kmem_cache", "cpu_sheaves", cache);
    if (sheaves === 0) return found;
    const add = (sheaf: number, where: string): void => {
      for (let i = 0; sheaf !== 0 && i < this.get("slab_sheaf", "size", sheaf); i++)
        found.set(this.word(sheaf + this.size("slab_sheaf") + 8 * i), where);
    };
    for (let cpu = 0; cpu < this.nr_cpus; cpu++)
      for (const which of ["main", "spare", "rcu_free"])
        add(this.get("slub_percpu_sheaves", which, sheaves + (cpu << CPU_SHIFT)), `cpu ${cpu}'s ${which} sheaf`);
    for (const [node] of this.nodes()) {
      const barn = this.get("kmem_cache", "barns", cache) + node * this.size("node_barn");
      for (const at of this.list(this.at("node_barn", "full", barn))) add(at, `a sheaf in node ${node}'s barn`);
    }
    return found;
  }

  private slabs_of(cache: number): number[] {
    const slabs: number[] = [];
    for (const [node] of this.nodes()) {
      const n = this.get("kmem_cache", "node", cache, node);
      if (n === 0) continue;
      for (
        let slab = this.get("kmem_cache_node", "slabs_first", n);
        slab !== 0;
        slab = this.get("slab", "slabs_next", slab)
      )
        slabs.push(slab);
    }
    return slabs.sort((a, b) => this.get("slab", "birth", a) - this.get("slab", "birth", b));
  }

  private slab_now(cache: number) {
    const slabs = this.slabs_of(cache);
    const id = new Map(slabs.map((slab, i) => [slab, letter(i)]));
    const on = new Map<number, string>();
    const put = (slab: number, where: string): string => (on.set(slab, where), id.get(slab)!);
    const size = this.get("kmem_cache", "size", cache);
    const red = this.get("kmem_cache", "red_left_pad", cache);
    const object_name = (object: number): string | null => {
      const slab = slabs.find(
        (s) => object >= this.first_byte(s) && object < this.first_byte(s) + (PAGE << this.page_order(s)),
      );
      return object === 0 ? null : `${id.get(slab!)}${(object - this.first_byte(slab!) - red) / size}`;
    };
    const cpu = Array.from({ length: this.nr_cpus }, (_, number) => {
      const c = this.get("kmem_cache", "cpu_slab", cache) + (number << CPU_SHIFT);
      const page = this.get("kmem_cache_cpu", "page", c);
      const partial: string[] = [];
      const row = {
        cpu: number,
        freelist: object_name(this.get("kmem_cache_cpu", "freelist", c)),
        page: page === 0 ? null : put(page, `cpu ${number}`),
        partial,
      };
      for (let s = this.get("kmem_cache_cpu", "partial", c); s !== 0; s = this.word(this.at("slab", "slab_list", s)))
        partial.push(put(s, `cpu ${number} partial`));
      return row;
    });
    const tracked = this.get("slab_common", "track_full", this.symbol("slab_common")) !== 0;
    const slab_at = (node: number): number => node - this.at("slab", "slab_list", 0);
    const node = [...this.nodes()]
      .map(([number]) => [number, this.get("kmem_cache", "node", cache, number)] as const)
      .filter(([, n]) => n !== 0)
      .map(([number, n]) => ({
        node: number,
        partial: [...this.list(this.at("kmem_cache_node", "partial", n))].map((at) => put(slab_at(at), "partial")),
        full: tracked
          ? [...this.list(this.at("kmem_cache_node", "full", n))].map((at) => put(slab_at(at), "full"))
          : [],
      }));
    const rows = slabs.map((slab) => {
      const free = this.free_of(cache, slab);
      const objects = this.get("slab", "objects", slab);
      const where = on.get(slab) ?? (free.length === 0 ? "full" : "none");
      const number = this.get("slab", "zone_node", slab) >>> 4;
      if (!tracked && where === "full") node.find((part) => part.node === number)!.full.push(id.get(slab)!);
      const first = this.first_byte(slab) + red;
      const inside = [...this.sheaved(cache).keys()].map((object) => (object - first) / size);
      const row = {
        id: id.get(slab)!,
        page: px(this.first_byte(slab)),
        node: number,
        on: where,
        inuse: objects - free.length,
        free,
        objects,
      };
      if (this.get("kmem_cache", "cpu_sheaves", cache) === 0) return row;
      return { ...row, sheaved: inside.filter((i) => i >= 0 && i < objects).sort((a, b) => a - b) };
    });
    const oo = this.get("kmem_cache", "oo", cache);
    const flags = this.get("kmem_cache", "flags", cache);
    return {
      name: this.text("kmem_cache", "name", cache, 64),
      object_size: this.get("kmem_cache", "object_size", cache),
      slab_size: size,
      objs_per_slab: oo & 0xffff,
      order: oo >>> 16,
      flags: FLAGS.filter(([, flag]) => flags & flag).map(([name]) => name).join("|"),
      cpu,
      node,
      slabs: rows,
    }; // prettier-ignore
  }

  // ---- map, explain

  private ram(): [number, number][] {
    const memory = this.symbol("memblock");
    return Array.from({ length: this.get("memblock_type", "cnt", memory) }, (_, i) => {
      const region = this.get("memblock_type", "regions", memory) + i * this.size("memblock_region");
      const base = this.get("memblock_region", "base", region);
      return [Math.ceil(base / PAGE), Math.floor((base + this.get("memblock_region", "size", region)) / PAGE)];
    });
  }

  /** Where the struct of a page frame lies. */
  page_struct(pfn: number): number {
    return this.mem_map + pfn * 64;
  }

  /** Free blocks of a zone as its lists have them. */
  private *buddies(zone: number): Generator<Buddy & { where: string }> {
    for (let order = 0; order < 11; order++)
      for (let type = 0; type < 5; type++) {
        const area = this.at("zone", "free_area", zone, order);
        let place = 0;
        for (const node of this.list(this.at("free_area", "free_list", area, type))) {
          const pfn = (node - this.at("page", "lru", 0) - this.mem_map) / 64;
          const where = `free_area[${order}] ${TYPES[type]}, place ${++place} of ${this.get("free_area", "nr_free", area)}`;
          yield { pfn, order, where };
        }
      }
  }

  private *pcps(): Generator<Buddy & { where: string }> {
    for (const zone of this.zones())
      for (let cpu = 0; cpu < this.nr_cpus; cpu++)
        for (let list = 0; list < 14; list++) {
          const pcp = this.get("zone", "per_cpu_pageset", zone) + (cpu << CPU_SHIFT);
          const order = list < 12 ? Math.floor(list / 3) : 9;
          const type = TYPES[list < 12 ? list % 3 : list - 12];
          let place = 0;
          for (const node of this.list(this.at("per_cpu_pages", "lists", pcp, list))) {
            const pfn = (node - this.at("page", "lru", 0) - this.mem_map) / 64;
            yield { pfn, order, where: `cpu ${cpu}'s list of order ${order}, ${type}, place ${++place}` };
          }
        }
  }

  private head(page: number): number {
    const word = this.word(this.at("page", "lru", page));
    return word & 1 ? word - 1 : page;
  }

  private use(head: number): string {
    const type = this.get("page", "page_type", head);
    if ((this.get("page", "flags", head) >>> 13) & 1) return "reserved";
    if (type !== -1 && type >>> 24 === 0xf5) return "slab";
    if (type !== -1 && type >>> 24 === 0xf8) return "kmalloc";
    return this.get("page", "mapping", head) !== 0 ? "cache" : "pages";
  }

  /** What `map BY --json` answers. */
  map(by: "owner" | "order" | "node"): unknown {
    const use: string[] = Array.from({ length: this.max_pfn }, () => "hole");
    const order: number[] = Array.from({ length: this.max_pfn }, () => -1);
    for (const [start, end] of this.ram())
      for (let pfn = start; pfn < end; pfn++) use[pfn] = this.use(this.head(this.page_struct(pfn)));
    const mark = (block: Buddy, as: string): void => {
      use.fill(as, block.pfn, block.pfn + (1 << block.order));
      order.fill(block.order, block.pfn, block.pfn + (1 << block.order));
    };
    for (const zone of this.zones()) for (const block of this.buddies(zone)) mark(block, "buddy");
    for (const block of this.pcps()) mark(block, "pcp");
    const uses = ["buddy", "pcp", "slab", "kmalloc", "cache", "pages", "reserved", "hole"];
    const pages = Object.fromEntries(uses.map((name) => [name, use.filter((other) => other === name).length]));
    let per_cell = 1;
    while (this.max_pfn / per_cell > 1024) per_cell *= 2;
    let cells = "";
    for (let start = 0; start < this.max_pfn; start += per_cell) {
      const part = use.slice(start, start + per_cell);
      const first = part.findIndex((name) => name !== "hole");
      if (first < 0) cells += " ";
      else if (by === "node")
        cells += (this.get("page", "zone_node", this.page_struct(start + first)) >>> 4).toString(16);
      else if (by === "order") cells += "#0123456789A"[Math.max(...order.slice(start, start + per_cell)) + 1];
      else cells += commonest(part);
    }
    const zones = [...this.zones()].map((zone) => ({
      node: this.get("zone", "node", zone),
      zone: this.text("zone", "name", zone, 8),
      start_pfn: this.get("zone", "zone_start_pfn", zone),
      end_pfn: this.get("zone", "zone_start_pfn", zone) + this.get("zone", "spanned_pages", zone),
      present: this.get("zone", "present_pages", zone),
      managed: this.get("zone", "managed_pages", zone),
      // Counted, not read: the lists must hold what the counter says.
      free: [...this.buddies(zone)].reduce((sum, block) => sum + (1 << block.order), 0),
    }));
    const holes: { start_pfn: number; end_pfn: number }[] = [];
    let before = 0;
    for (const [start, end] of [...this.ram(), [this.max_pfn, this.max_pfn]]) {
      if (start! > before) holes.push({ start_pfn: before, end_pfn: start! });
      before = end!;
    }
    return { by, pages_per_cell: per_cell, cells, pages, zones, holes };
  }

  /** What `explain` answers, but for the owner, of which RAM does not know all. */
  explain(ptr: number): unknown {
    const pfn = Math.floor(ptr / PAGE);
    const at = { address: px(ptr), pfn };
    if (!this.ram().some(([start, end]) => pfn >= start && pfn < end)) return { ...at, use: "hole" };
    const page = this.page_struct(pfn);
    const zone = [...this.zones()].find((z) => {
      const start = this.get("zone", "zone_start_pfn", z);
      return (
        this.get("zone", "node", z) === this.get("page", "zone_node", page) >>> 4 &&
        pfn >= start &&
        pfn < start + this.get("zone", "spanned_pages", z)
      );
    })!;
    const block_index = Math.floor(pfn / 512) - Math.floor(this.get("zone", "zone_start_pfn", zone) / 512);
    const type = this.byte(this.get("zone", "pageblock_flags", zone) + block_index);
    const here = {
      ...at,
      node: this.get("zone", "node", zone),
      zone: this.text("zone", "name", zone, 8),
      migratetype: TYPES[type & 0x80 ? 4 : type],
    };
    const covers = (block: Buddy): boolean => pfn >= block.pfn && pfn < block.pfn + (1 << block.order);
    for (const [use, blocks] of [
      ["buddy", this.buddies(zone)],
      ["pcp", this.pcps()],
    ] as const)
      for (const { where, ...block } of blocks) if (covers(block)) return { ...here, use, block, free: true, where };
    const head = this.head(page);
    const use = this.use(head);
    const block = { pfn: (head - this.mem_map) / 64, order: this.page_order(head) };
    return use === "slab" ? { ...here, use, block, ...this.object_at(ptr, head) } : { ...here, use, block };
  }

  private object_at(ptr: number, slab: number) {
    const cache = this.get("slab", "slab_cache", slab);
    const row = this.slab_now(cache).slabs.find((other) => other.page === px(this.first_byte(slab)))!;
    const slot = this.get("kmem_cache", "size", cache);
    const in_slab = { cache: this.text("kmem_cache", "name", cache, 64), slab: row.id, on: row.on };
    const object = Math.floor((ptr - this.first_byte(slab)) / slot);
    if (object >= row.objects) return in_slab;
    const offset = ptr - this.first_byte(slab) - object * slot - this.get("kmem_cache", "red_left_pad", cache);
    const place = row.free.indexOf(object);
    const sheaf = this.sheaved(cache).get(ptr - offset);
    if (place < 0 && sheaf !== undefined) return { ...in_slab, object, offset, slot, free: true, where: sheaf };
    if (place < 0) return { ...in_slab, object, offset, slot, free: false };
    return { ...in_slab, object, offset, slot, free: true, where: `free list of slab ${row.id}, place ${place + 1}` };
  }
}

/** The sign of a cell by owner: the commonest use of what is in use, else the commoner kind of free. */
function commonest(part: readonly string[]): string {
  const signs: [string, string][] = [["buddy", "."], ["pcp", ":"], ["slab", "s"], ["kmalloc", "m"], ["cache", "c"], ["pages", "p"], ["reserved", "K"]]; // prettier-ignore
  const count = (name: string): number => part.filter((other) => other === name).length;
  const used = signs.slice(2).filter(([name]) => count(name) > 0);
  const from = used.length > 0 ? used : signs.slice(0, 2);
  return from.reduce((best, other) => (count(other[0]) > count(best[0]) ? other : best))[1];
}
