/**
 * Reads what Linux prints of its own kmem events, and tells the same story as a `#kheap-trace 1` file would.
 *
 *     bash-1234    [001] ...1.  5123.456789: kmalloc: call_site=… ptr=… bytes_req=… …      /sys/kernel/tracing/trace
 *     bash-1234    [001]  5123.456789: kmalloc:         (f+0x4f) call_site=… ptr=… …        trace-cmd report
 *     bash  1234 [001]  5123.456789: kmem:kmalloc: call_site=… ptr=… bytes_req=… …         perf script
 *
 * Fields of all kernels since 2.6.31: with and without name=, node=, accounted=; call sites as symbols or numbers; pfn
 * in hex or decimal; the events of a node and of pages by their older names.
 *
 * Objects are told apart by `ptr`, whatever it is (hashed pointers too), pages by `pfn`. A recording begins in the
 * middle of a kernel's life and may have lost events, so it is read leniently where #kheap-trace is strict:
 *
 *   a free of what was allocated before the recording, and an allocation that failed: counted and left out
 *   an allocation where something lives: that was freed unseen (an x or y event stands before it)
 *   the second report of one large kmalloc (Linux 6.18 makes two): left out
 *   events of other kinds: counted and left out;  a line that is none of these: FILE:LINE
 *
 * A named cache is made for the first object of its name, with the sizes on that line. kmalloc classes of other kernels
 * may differ from this one's: there the sizes given are not compared.
 */
import { __GFP_NOFAIL, parse_gfp } from "../../mm/gfp.ts";
import { kmalloc_size_roundup } from "../../mm/kmalloc.ts";
import { MAX_PAGE_ORDER } from "../../mm/zone.ts";
import { CommandError } from "../commands/registry.ts";
import { FROM_KMALLOC, OPS, fit_slot, type EventReader, type TraceCache } from "./trace.ts";

/** What stands before an event's fields: [cpu, name of the event, fields]. TASK-PID, perhaps (TGID), [CPU], flags, time. */
const FTRACE = /^\s*\S.*?-\d+ +(?:\([ \d-]+\) +)?\[(\d+)\] +(?:\S+ +)?[\d.]+: +(?:\w+:)?(\w+): *(.*)$/;
/** The same head before something that is no event: `<stack trace>`, or a call that a function tracer saw. */
const FTRACE_OTHER = /^\s*\S.*?-\d+ +(?:\([ \d-]+\) +)?\[\d+\] +(?:\S+ +)?[\d.]+: /;
/** COMM PID[/TID] [CPU] time, perhaps a period. */
const PERF = /^\s*\S.*? +\d+(?:\/\d+)? +\[(\d+)\] +[\d.]+: +(?:\d+ +)?(?:\w+:)?(\w+): *(.*)$/;
/** Lines without an event: comments, lost events, call chains of perf and of ftrace, trace-cmd's head, blank ones. */
const SILENT =
  /^(#.*|CPU:\d+ \[LOST (?:\d+ )?EVENTS\]|\s+[0-9a-f]+ .*| *=> .*|version = .*|cpus=\d+|CPU \d+ is empty|\s*)$/;
const LARGEST_CLASS = 8192;
/** Bytes at the start of a file that must show what it is. */
const LOOK_BYTES = 1 << 16;
const NEWLINE = 0x0a;
const PAGE_MAX = 1 << MAX_PAGE_ORDER;

interface LiveObject {
  readonly number: number;
  readonly cache: TraceCache;
  readonly bytes_req: number;
}
interface Event {
  readonly op: string;
  readonly fields: Record<string, number>;
  readonly cache?: TraceCache;
  readonly gfp?: number;
}

const match_line = (text: string): RegExpExecArray | null => FTRACE.exec(text) ?? PERF.exec(text);

/** True if a file is a recording of ftrace or perf: its first line that is an event or ftrace's head says so. */
export function is_ftrace(bytes: Uint8Array): boolean {
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, LOOK_BYTES))
    .toString("latin1")
    .split(/\r?\n/);
  const first = lines.find((text) => text.startsWith("# tracer:") || !SILENT.test(text));
  return first !== undefined && (first.startsWith("# tracer:") || match_line(first) !== null);
}

export class Ftrace implements EventReader {
  line = 0;
  events = 0;
  readonly ops: Record<string, number> = Object.fromEntries([...OPS].map((op) => [op, 0]));
  op = "";
  now: Record<string, number> = {};
  cache = FROM_KMALLOC;
  gfp = 0;
  readonly header: Record<string, number> = {};
  /** Lines that became no event, by reason. */
  readonly skipped = {
    frees_of_older: 0,
    failed_allocs: 0,
    second_reports: 0,
    lost_events: 0,
    other_events: 0,
    too_large: 0,
  };
  /** kmalloc lines whose slot has another size in this kernel. */
  other_sizes = 0;
  /** Flags that this kernel does not know. */
  readonly unknown_flags = new Set<string>();

  readonly file: string;
  private readonly bytes: Buffer;
  private at = 0;
  /** Made of the line read last and not yet told. */
  private readonly queue: Event[] = [];
  private objects = 0;
  private blocks = 0;
  private readonly live = new Map<string, LiveObject>();
  /** By pfn: the block that the page belongs to, and its place in it. */
  private readonly pages = new Map<number, { block: number; offset: number }>();
  private readonly caches = new Map<string, TraceCache>();
  private readonly gfps = new Map<string, number>();

  constructor(file: string, bytes: Uint8Array) {
    this.file = file;
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  fail(what: string): never {
    throw new CommandError(`${this.file}:${Math.max(this.line, 1)}: ${what}`);
  }

  /** Reads on to the next event; false at the end of the file. */
  next(): boolean {
    while (this.queue.length === 0) {
      if (this.at >= this.bytes.length) return false;
      this.read_line();
    }
    const { op, fields, cache = FROM_KMALLOC, gfp = 0 } = this.queue.shift()!;
    Object.assign(this, { op, now: fields, cache, gfp });
    this.events++;
    this.ops[op]!++;
    return true;
  }

  /** What was left out, a line each, for people. */
  notes(): string[] {
    const words = {
      frees_of_older: "frees of what was allocated before the recording",
      failed_allocs: "allocations that failed there",
      second_reports: "second reports of a large kmalloc",
      lost_events: "events lost while recording",
      other_events: "events of other kinds",
      too_large: "blocks larger than this kernel has",
    };
    const notes = Object.entries(this.skipped)
      .filter(([, count]) => count > 0)
      .map(([reason, count]) => `note: left out: ${words[reason as keyof typeof words]}: ${count}`);
    if (this.other_sizes > 0) notes.push(`note: kmalloc lines that were given another size there: ${this.other_sizes}`);
    if (this.unknown_flags.size > 0) notes.push(`note: flags unknown here: ${[...this.unknown_flags].join(" ")}`);
    return notes;
  }

  private read_line(): void {
    const newline = this.bytes.indexOf(NEWLINE, this.at);
    const end = newline < 0 ? this.bytes.length : newline;
    const text = this.bytes.toString("latin1", this.at, end).replace(/\r$/, "");
    this.at = end + 1;
    this.line++;
    const event = match_line(text);
    if (event) this.read_event(Number(event[1]), event[2]!, event[3]!);
    else if (SILENT.test(text)) this.read_comment(text);
    else if (FTRACE_OTHER.test(text)) this.skipped.other_events++;
    else this.fail(`"${text.slice(0, 40)}" is no line of ftrace or perf script`);
  }

  private read_comment(text: string): void {
    const cpus = /#P:(\d+)|^cpus=(\d+)$/.exec(text);
    if (cpus) this.header["#cpus"] = Number(cpus[1] ?? cpus[2]);
    this.skipped.lost_events += Number(/\[LOST (\d+) EVENTS\]/.exec(text)?.[1] ?? 0);
  }

  private read_event(cpu: number, name: string, text: string): void {
    switch (name) {
      case "kmalloc":
      case "kmalloc_node":
        return this.alloc(cpu, text, undefined);
      case "kmem_cache_alloc":
      case "kmem_cache_alloc_node":
        return this.alloc(cpu, text, /\bname=(.*?)(?= bytes_req=|$)/.exec(text)?.[1] ?? "");
      case "kfree":
        return this.free(cpu, this.pointer(text), "f");
      case "kmem_cache_free":
        return this.free(cpu, this.pointer(text), "d");
      case "mm_page_alloc":
        return this.alloc_pages(cpu, text);
      case "mm_page_free":
      case "mm_page_free_direct": // both until Linux 3.2; mm_page_free_batched stands beside an mm_page_free
      case "mm_pagevec_free":
        return this.free_pages(cpu, this.number(text, "pfn"), this.number(text, "order"));
      default:
        this.skipped.other_events++;
    }
  }

  private field(text: string, name: string): string {
    const at = text.startsWith(`${name}=`) ? 0 : text.indexOf(` ${name}=`) + 1;
    if (at === 0 && !text.startsWith(`${name}=`)) this.fail(`${name}= is missing`);
    const from = at + name.length + 1;
    const space = text.indexOf(" ", from);
    return text.slice(from, space < 0 ? undefined : space);
  }

  private number(text: string, name: string): number {
    const word = this.field(text, name);
    const value = /^(-?\d+|0x[0-9a-f]+)$/.test(word) ? Number(word) : NaN;
    if (!Number.isSafeInteger(value) || value < -1) this.fail(`${name} is "${word}"`);
    return value;
  }

  /** What `%p` printed, shortened; "" for NULL. */
  private pointer(text: string): string {
    const word = this.field(text, "ptr");
    if (word === "(null)" || word === "(nil)" || word === "") return ""; // older kernels pad it with blanks
    if (!/^(0x)?[0-9a-f]{1,16}$/.test(word)) this.fail(`ptr is "${word}"`);
    return word.replace(/^(0x)?0*/, "");
  }

  /** Flags by name, without those that this kernel does not know. What may not fail there may fail here. */
  private flags(text: string): number {
    const word = this.field(text, "gfp_flags");
    const known = this.gfps.get(word);
    if (known !== undefined) return known;
    if (!/^(\w+)(\|\w+)*$/.test(word)) this.fail(`gfp_flags is "${word}"`);
    let gfp = 0;
    for (const name of word.split("|")) {
      // GFP_ZERO: as perf had it once. Numbers are bits that the kernel that wrote them had no name for.
      const bits = name.startsWith("0x") ? undefined : [name, `__${name}`].map(parse_gfp).find((value) => !Number.isNaN(value)); // prettier-ignore
      if (bits === undefined) this.unknown_flags.add(name);
      gfp |= bits ?? 0;
    }
    this.gfps.set(word, gfp & ~__GFP_NOFAIL);
    return gfp & ~__GFP_NOFAIL;
  }

  private tell(op: string, fields: Record<string, number>, cache?: TraceCache, gfp?: number): void {
    this.queue.push({ op, fields, ...(cache && { cache }), ...(gfp !== undefined && { gfp }) });
  }

  /** An object: of a named cache, or of kmalloc without a name. */
  private alloc(cpu: number, text: string, name: string | undefined): void {
    const ptr = this.pointer(text);
    const [BYTES_REQ, BYTES_ALLOC] = [this.number(text, "bytes_req"), this.number(text, "bytes_alloc")];
    const gfp = this.flags(text);
    const NODE = / node=/.test(text) ? this.number(text, "node") : -1;
    if (BYTES_REQ < 1 || BYTES_ALLOC < BYTES_REQ) this.fail(`bytes_alloc is ${BYTES_ALLOC} for ${BYTES_REQ}`);
    if (ptr === "") return void this.skipped.failed_allocs++;
    if (BYTES_REQ > 0x7fffffff) return void this.skipped.too_large++;
    const lives = this.live.get(ptr);
    if (
      lives &&
      name === undefined &&
      BYTES_ALLOC > LARGEST_CLASS &&
      lives.cache === FROM_KMALLOC &&
      lives.bytes_req === BYTES_REQ
    )
      return void this.skipped.second_reports++;
    if (lives) this.tell("x", { OBJ: lives.number }, lives.cache);
    const cache = name === undefined ? FROM_KMALLOC : this.named(name, BYTES_REQ, BYTES_ALLOC);
    const number = this.objects++;
    this.live.set(ptr, { number, cache, bytes_req: BYTES_REQ });
    const fields = { CPU: cpu, OBJ: number, BYTES_REQ, NODE };
    if (name !== undefined) return this.tell("c", fields, cache, gfp);
    const same = kmalloc_size_roundup(BYTES_REQ) === BYTES_ALLOC;
    if (!same) this.other_sizes++;
    this.tell("k", { ...fields, BYTES_ALLOC: same ? BYTES_ALLOC : 0 }, cache, gfp);
  }

  /** The cache of a name. Before Linux 6.7 kmem_cache_alloc has no name; then the sizes tell caches apart. */
  private named(given: string, object_size: number, slab_size: number): TraceCache {
    const key = `${given} ${object_size} ${slab_size}`;
    const known = this.caches.get(key);
    if (known) return known;
    const taken = [...this.caches.values()].some((cache) => cache.name === given);
    const name = given === "" || taken ? `${given || "cache"}-${object_size}-${slab_size}` : given;
    // A slot that no alignment explains (a debugged cache): a cache of the object size alone, whose slot is not compared.
    const fit = fit_slot(name, object_size, slab_size);
    const cache = { name, object_size, slab_size: fit ? slab_size : 0, ...(fit ?? { align: 8, has_ctor: false }) };
    this.caches.set(key, cache);
    return cache;
  }

  private free(cpu: number, ptr: string, op: "f" | "d"): void {
    const object = this.live.get(ptr);
    if (!object) return void this.skipped.frees_of_older++;
    this.live.delete(ptr);
    this.tell(object.cache === FROM_KMALLOC ? "f" : op, { CPU: cpu, OBJ: object.number }, object.cache);
  }

  private alloc_pages(cpu: number, text: string): void {
    const ORDER = this.number(text, "order");
    const gfp = this.flags(text);
    if (/\bpage= *\(n(ul|i)l\)/.test(text)) return void this.skipped.failed_allocs++;
    const pfn = this.number(text, "pfn");
    if (pfn <= 0) return void this.skipped.failed_allocs++;
    if (ORDER < 0 || ORDER > MAX_PAGE_ORDER) return void this.skipped.too_large++;
    this.take_pages(pfn, 1 << ORDER, "y", {});
    const block = this.blocks++;
    for (let i = 0; i < 1 << ORDER; i++) this.pages.set(pfn + i, { block, offset: i });
    this.tell("p", { CPU: cpu, BLOCK: block, ORDER }, undefined, gfp);
  }

  private free_pages(cpu: number, pfn: number, order: number): void {
    if (order < 0 || order > MAX_PAGE_ORDER) return void this.skipped.too_large++;
    if (!this.take_pages(pfn, 1 << order, "q", { CPU: cpu })) this.skipped.frees_of_older++;
  }

  /** Frees what is live of some pages: an event for each run of pages of one block. False if nothing was. */
  private take_pages(pfn: number, count: number, op: "q" | "y", fields: Record<string, number>): boolean {
    let run: { BLOCK: number; OFFSET: number; PAGES: number } | undefined;
    for (let i = pfn; i < pfn + Math.min(count, PAGE_MAX); i++) {
      const page = this.pages.get(i);
      this.pages.delete(i);
      if (!page) continue;
      if (run?.BLOCK === page.block && run.OFFSET + run.PAGES === page.offset) run.PAGES++;
      else this.tell(op, (run = { ...fields, BLOCK: page.block, OFFSET: page.offset, PAGES: 1 }));
    }
    return run !== undefined;
  }
}
