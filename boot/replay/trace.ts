/**
 * Reads a `#kheap-trace 1` file line by line, strictly: every field, every number's range, and that the story makes
 * sense (ids count up, what is freed is live, names were declared). The first fault ends it with `FILE:LINE: what`.
 * The format is in test/data/README.md.
 */
import { PAGE_SIZE, align_up } from "../../hal/addr.ts";
import { parse_gfp } from "../../mm/gfp.ts";
import { MAX_PAGE_ORDER } from "../../mm/zone.ts";
import { CommandError } from "../commands/registry.ts";

/** The fields behind the word that begins a line. */
const FIELDS: Readonly<Record<string, string>> = {
  k: "CPU DT WHO OBJ BYTES_REQ BYTES_ALLOC GFP NODE SITE",
  c: "CPU DT WHO OBJ CACHE GFP NODE SITE",
  f: "CPU DT WHO OBJ SITE",
  d: "CPU DT WHO OBJ SITE",
  x: "OBJ",
  p: "CPU DT WHO BLOCK ORDER MIGRATETYPE GFP",
  q: "CPU DT WHO BLOCK OFFSET PAGES",
  y: "BLOCK OFFSET PAGES",
  "#cache": "ID NAME BYTES_REQ BYTES_ALLOC",
  "#gfp": "ID FLAGS",
  "#site": "ID SYMBOL",
  "#cpus": "COUNT",
  "#nodes": "COUNT",
  "#events": "COUNT",
  "#page_size": "BYTES",
  "#time_unit": "UNIT",
};
const NAMES = new Map(Object.entries(FIELDS).map(([key, names]) => [key, names.split(" ")]));
/** Fields that are no numbers. */
const TEXTS: Readonly<Record<string, RegExp>> = { WHO: /^\d+[nsh]$/, NAME: /./, FLAGS: /./, SYMBOL: /./, UNIT: /^us$/ };
export const OPS = "kcfdxpqy";
const U31: readonly [min: number, max: number] = [0, 0x7fffffff];
const LONGEST = 512;
const SPACE = 0x20;
const NEWLINE = 0x0a;

/** A named cache, as the recorded kernel had it, and what gives it slots of that size. */
export interface TraceCache {
  readonly name: string;
  readonly object_size: number;
  readonly slab_size: number;
  readonly align: number;
  readonly has_ctor: boolean;
}
/** The cache of objects that came from kmalloc. */
export const FROM_KMALLOC: TraceCache = { name: "", object_size: 0, slab_size: 0, align: 0, has_ctor: false };

/**
 * Alignments that Linux 6.18 asks for. A trace has sizes only, and where an object fills its slot they do not tell
 * 8 from 64; which it is changes no figure but `align` itself.
 */
const KNOWN_ALIGN: Readonly<Record<string, number>> = {
  names_cache: 64, filp: 64, mm_struct: 64, vm_area_struct: 64, pid: 64, task_struct: 64, files_cache: 64,
  sighand_cache: 64, signal_cache: 64, key_jar: 64, iommu_iova_magazine: 64, sock_inode_cache: 64, "bio-184": 64,
  skbuff_head_cache: 64, skbuff_small_head: 64, pidfs_attr_cache: 32, maple_node: 256, pool_workqueue: 256,
}; // prettier-ignore

/** The alignment, and the word behind the object that a constructor needs, that give the wanted slot; or undefined. */
export function fit_slot(name: string, object: number, slot: number): { align: number; has_ctor: boolean } | undefined {
  const tries = [KNOWN_ALIGN[name] ?? 8, 8].flatMap((align) => [
    { align, has_ctor: false },
    { align, has_ctor: true },
  ]);
  for (const has_ctor of [false, true])
    for (let align = 16; align <= PAGE_SIZE; align *= 2) tries.push({ align, has_ctor });
  return tries.find(({ align, has_ctor }) => align_up(align_up(object, 8) + (has_ctor ? 8 : 0), align) === slot);
}

/** What a replay reads events from: this file's form, or Linux's own (boot/replay/ftrace.ts). */
export type EventReader = Pick<
  Trace,
  "file" | "line" | "events" | "ops" | "op" | "now" | "cache" | "gfp" | "header" | "fail" | "next"
>;

export class Trace {
  /** Number of the line read last, from 1. */
  line = 0;
  /** Event lines read. */
  events = 0;
  readonly ops: Record<string, number> = Object.fromEntries([...OPS].map((op) => [op, 0]));
  /** The event read last: its letter and its fields, all kinds in one record. */
  op = "";
  readonly now: Record<string, number> = {};
  /** Where its object came from, and its flags. */
  cache = FROM_KMALLOC;
  gfp = 0;
  /** `#cpus`, `#nodes` and `#events`. */
  readonly header: Record<string, number> = {};

  readonly file: string;
  private readonly bytes: Uint8Array;
  /** Where the line read last is read on, and where it ends. */
  private at = 0;
  private end = -1;
  /** The field read last that is no number. */
  private word = "";
  private readonly limits: Record<string, readonly [min: number, max: number]> = {
    DT: [0, Number.MAX_SAFE_INTEGER], CPU: [0, 4095], NODE: [0, 15], BYTES_REQ: [1, 0x7fffffff],
    ORDER: [0, MAX_PAGE_ORDER], MIGRATETYPE: [0, 2], PAGES: [1, 1 << MAX_PAGE_ORDER], BYTES: [PAGE_SIZE, PAGE_SIZE],
  }; // prettier-ignore
  private readonly caches = new Map<number, TraceCache>();
  private readonly gfps = new Map<number, number>();
  private readonly sites = new Map<number, string>();
  /** By OBJ: where a live object came from; null once it is free. */
  private readonly objects: (TraceCache | null)[] = [];
  /** By BLOCK: a 1 for each page that is live. */
  private readonly blocks: Uint8Array[] = [];

  constructor(file: string, bytes: Uint8Array) {
    this.file = file;
    this.bytes = bytes;
    if (!this.next_line() || this.text(this.end) !== "#kheap-trace 1")
      this.fail('the first line is not "#kheap-trace 1" (a malloc-lab .rep file is replayed with --malloc)');
  }

  fail(what: string): never {
    throw new CommandError(`${this.file}:${Math.max(this.line, 1)}: ${what}`);
  }

  /** Reads on to the next event; false at the end of the file. */
  next(): boolean {
    while (this.next_line()) {
      const key = this.take_word();
      if (key === "#workload") continue;
      this.read_fields(key, NAMES.get(key) ?? this.fail(`"${key}" begins no line of a trace`));
      if (key.startsWith("#")) this.declare(key);
      else {
        this.follow(key);
        this.events++;
        this.ops[key]++;
        return true;
      }
    }
    return false;
  }

  private next_line(): boolean {
    this.at = this.end + 1;
    if (this.at >= this.bytes.length) return false;
    const newline = this.bytes.indexOf(NEWLINE, this.at);
    this.end = newline < 0 ? this.bytes.length : newline;
    this.line++;
    return true;
  }

  /** Takes the text up to `end` off the line; of what is longer than any field, the beginning. */
  private text(end: number): string {
    let word = "";
    for (let at = this.at; at < end && at < this.at + LONGEST; at++) word += String.fromCharCode(this.bytes[at]);
    this.at = end;
    return word;
  }

  private read_fields(key: string, names: readonly string[]): void {
    for (const name of names) {
      if (this.at === this.end) this.fail(`${key} ends before ${name}`);
      this.at++;
      this.now[name] = this.read_number(name) ?? this.read_word(name);
    }
    if (this.at !== this.end) this.fail(`${key} has more fields than ${FIELDS[key]}`);
  }

  /** Reads a number up to the next space; undefined, and nothing read, if there is none that is allowed. */
  private read_number(name: string): number | undefined {
    const { bytes, end } = this;
    let [at, value] = [this.at, 0];
    for (; at < end && bytes[at] !== SPACE; at++) {
      if (bytes[at] < 0x30 || bytes[at] > 0x39) return undefined;
      value = value * 10 + bytes[at] - 0x30;
    }
    const [min, max] = this.limits[name] ?? U31;
    if (at === this.at || value < min || value > max) return undefined;
    this.at = at;
    return value;
  }

  /** Takes the text up to the next space off the line. */
  private take_word(): string {
    const space = this.bytes.indexOf(SPACE, this.at);
    return this.text(space < 0 ? this.end : Math.min(space, this.end));
  }

  private read_word(name: string): number {
    const word = this.take_word();
    if (name === "NODE" && word === "-1") return -1;
    if (!TEXTS[name]?.test(word)) this.fail(`${name} is "${word}"`);
    this.word = word;
    return 0;
  }

  private declare(key: string): void {
    const { word } = this;
    const { ID, COUNT, BYTES_REQ, BYTES_ALLOC } = this.now;
    if (this.events > 0) this.fail(`${key} after the first event`);
    if (key === "#cache") {
      const fit = fit_slot(word, BYTES_REQ, BYTES_ALLOC);
      if (!fit) this.fail(`no cache has slots of ${BYTES_ALLOC} bytes for objects of ${BYTES_REQ}`);
      for (const [id, { name }] of this.caches)
        if (id === ID || name === word) this.fail(`${name} is declared already`);
      this.caches.set(ID, { name: word, object_size: BYTES_REQ, slab_size: BYTES_ALLOC, ...fit });
    } else if (key === "#gfp") {
      this.gfps.set(ID, parse_gfp(word));
      if (Number.isNaN(this.gfps.get(ID))) this.fail(`unknown flags: ${word}`);
    } else if (key === "#site") this.sites.set(ID, word);
    else this.header[key] = COUNT;
    if (key === "#cpus") this.limits["CPU"] = [0, COUNT - 1];
    if (key === "#nodes") this.limits["NODE"] = [0, COUNT - 1];
  }

  /** Checks that an event can happen, and lets it. */
  private follow(op: string): void {
    const { now } = this;
    this.op = op;
    if (op === "k" || op === "c" || op === "p") this.gfp = this.declared(this.gfps, "GFP");
    if (op === "k" || op === "c" || op === "f" || op === "d") this.declared(this.sites, "SITE");
    if (op === "k" || op === "c") {
      this.cache = op === "k" ? FROM_KMALLOC : this.declared(this.caches, "CACHE");
      if (op === "k" && now.BYTES_ALLOC < now.BYTES_REQ)
        this.fail(`BYTES_ALLOC is ${now.BYTES_ALLOC} for ${now.BYTES_REQ}`);
      if (this.objects.push(this.cache) !== now.OBJ + 1) this.fail(`OBJ is ${now.OBJ}, not ${this.objects.length - 1}`);
    } else if (op === "p") {
      if (this.blocks.push(new Uint8Array(1 << now.ORDER).fill(1)) !== now.BLOCK + 1)
        this.fail(`BLOCK is ${now.BLOCK}, not ${this.blocks.length - 1}`);
    } else if (op === "q" || op === "y") {
      const block = this.blocks[now.BLOCK] ?? this.fail(`block ${now.BLOCK} was never allocated`);
      const part = block.subarray(now.OFFSET, now.OFFSET + now.PAGES);
      if (part.length < now.PAGES) this.fail(`block ${now.BLOCK} has ${block.length} pages`);
      if (part.includes(0)) this.fail(`page ${now.OFFSET + part.indexOf(0)} of block ${now.BLOCK} is free already`);
      part.fill(0);
    } else {
      const cache = this.objects[now.OBJ];
      if (!cache) this.fail(`object ${now.OBJ} ${cache === null ? "is free already" : "was never allocated"}`);
      if (op === "d" && cache === FROM_KMALLOC) this.fail(`object ${now.OBJ} is kmalloc's, not a cache's`);
      this.cache = cache;
      this.objects[now.OBJ] = null;
    }
  }

  private declared<T>(table: Map<number, T>, name: string): T {
    return table.get(this.now[name]) ?? this.fail(`${name} ${this.now[name]} is not declared`);
  }
}
