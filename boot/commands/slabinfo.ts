/**
 * `slabinfo`: the slab caches from /sys/kernel/slab, with the options and tables of the kernel's own tool.
 *
 *     read     a directory a cache; a link is an alias        patterns choose names, `:…` directories take their link's
 *     choose   empty ones are left out (-z, -e), those that can be reclaimed with -U
 *     print    a line a cache, or one report if there is one cache, or -a -n -r -t -T -X; -s -v write instead
 *
 * Unlike the tool: the report ends before its event counters, and -d changes nothing, as the files cannot be written.
 */
import { parseArgs } from "node:util";
import { S_IFLNK, S_IFMT } from "../../kernel/fs/fs.ts";
import { sysfs_walk } from "../../kernel/fs/sysfs.ts";
import { slab_ops } from "../../mm/slab_common.ts";
import { write_file } from "../host_files.ts";
import { need_slabinfo } from "./memory.ts";
import { CommandError, line, register, usage_error, type Result } from "./registry.ts";

const PAGE = 4096;

/** A cache as its directory shows it. */
interface Slab {
  /** The directory. */
  readonly id: string;
  readonly name: string;
  readonly links: readonly string[];
  /** The first number of each file. */
  readonly of: (file: string) => number;
  /** Slabs by node, and those with free objects. */
  readonly numa: ReadonlyMap<number, number>;
  readonly numa_partial: ReadonlyMap<number, number>;
}

function by_node(text: string | undefined): Map<number, number> {
  return new Map([...(text ?? "").matchAll(/ N(\d+)=(\d+)/g)].map(([, node, count]) => [Number(node), Number(count)]));
}

/** Caches whose name, or one of whose links, matches; a `:…` directory goes by its only link. */
function read_slabs(pattern: RegExp, first_alias: boolean): Slab[] {
  const directories = new Map<string, Map<string, string>>();
  const links = new Map<string, string[]>();
  for (const { path, mode, text } of sysfs_walk("kernel/slab")) {
    const [id, file] = path.split("/") as [string, string?];
    if (file !== undefined) directories.get(id)?.set(file, text ?? "");
    else if ((mode & S_IFMT) !== S_IFLNK) directories.set(id, new Map());
    else if (pattern.test(id)) links.set(text!, [...(links.get(text!) ?? []), id]);
  }
  const slabs: Slab[] = [];
  for (const [id, files] of directories) {
    const own = links.get(id) ?? [];
    if (id.startsWith(":") ? own.length === 0 : !pattern.test(id)) continue;
    const longest = [...own].sort((a, b) => b.length - a.length)[0];
    const name = id.startsWith(":") && (own.length === 1 || first_alias) ? longest! : id;
    const of = (file: string): number => Number.parseInt(files.get(file) ?? "0", 10) || 0;
    slabs.push({ id, name, links: own, of, numa: by_node(files.get("slabs")), numa_partial: by_node(files.get("partial")) }); // prettier-ignore
  }
  return slabs;
}

const slab_bytes = (s: Slab): number => PAGE * 2 ** s.of("order");
const space = (s: Slab): number => s.of("slabs") * slab_bytes(s);
const used = (s: Slab): number => s.of("objects") * s.of("object_size");
const loss = (s: Slab): number => space(s) - used(s);
const percent = (part: number, whole: number, none: number): number => (whole === 0 ? none : Math.trunc((part * 100) / whole)); // prettier-ignore
const allocs = (s: Slab): number => s.of("alloc_fastpath") + s.of("alloc_slowpath");
const frees = (s: Slab): number => s.of("free_fastpath") + s.of("free_slowpath");

const FLAGS: readonly (readonly [string, string])[] = [
  ["aliases", "*"], ["cache_dma", "d"], ["hwcache_align", "A"], ["poison", "P"], ["reclaim_account", "a"],
  ["red_zone", "Z"], ["sanity_checks", "F"], ["store_user", "U"], ["trace", "T"],
]; // prettier-ignore
const flags_of = (s: Slab): string => FLAGS.map(([file, letter]) => (s.of(file) > 0 ? letter : "")).join("");

/** A number as the tool prints it: decimal units, one digit behind the point. */
function size_text(value: number, plain: boolean): string {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "K"]] as const; // prettier-ignore
  const unit = plain ? undefined : units.find(([size]) => value > size);
  if (!unit) return String(value);
  const tenths = String(Math.trunc(value / (unit[0] / 10)));
  return `${tenths.slice(0, -1)}.${tenths.slice(-1)}${unit[1]}`;
}

const right = (value: string | number, width: number): string => String(value).padStart(width);
const left = (value: string | number, width: number): string => String(value).padEnd(width);

function json_of(s: Slab) {
  const names = ["objects", "object_size", "slab_size", "slabs", "partial", "cpu_slabs", "objs_per_slab", "order"];
  const figures = Object.fromEntries(names.map((name) => [name, s.of(name)]));
  return { name: s.name, aliases: s.links, ...figures, space: space(s), loss: loss(s), flags: flags_of(s) };
}

function list_text(slabs: readonly Slab[], options: Options): string {
  const { L: by_loss, D: activity, B: plain } = options.set;
  const size_row = (s: Slab): string => {
    const place = `${s.of("slabs") - s.of("cpu_slabs")}/${s.of("partial")}/${s.of("cpu_slabs")}`;
    const room = size_text(by_loss ? loss(s) : space(s), plain);
    const free = percent(s.of("partial"), s.of("slabs"), 100);
    const efficiency = percent(used(s), space(s), 100);
    return (
      `${left(s.name, 21)} ${right(s.of("objects"), 8)} ${right(s.of("object_size"), 7)} ${right(room, 15)} ` +
      `${right(place, 14)} ${right(s.of("objs_per_slab"), 4)} ${s.of("order")} ${right(free, 3)} ${right(efficiency, 3)} ${flags_of(s)}`
    );
  };
  const activity_row = (s: Slab): string =>
    `${left(s.name, 21)} ${right(s.of("objects"), 8)} ${right(allocs(s), 10)} ${right(frees(s), 10)} ` +
    `${right(percent(s.of("alloc_fastpath"), allocs(s), 0), 3)} ${right(percent(s.of("free_fastpath"), frees(s), 0), 3)} ` +
    `${right(s.of("order_fallback"), 5)} ${s.of("order")} ${right(s.of("cmpxchg_double_fail"), 4)} ${right(s.of("cmpxchg_double_cpu_fail"), 4)}`;
  const head = activity
    ? "Name                   Objects      Alloc       Free   %Fast Fallb O CmpX   UL"
    : `Name                   Objects Objsize           ${by_loss ? " Loss" : "Space"} Slabs/Part/Cpu  O/S O %Fr %Ef Flg`;
  return [head, ...slabs.map(activity ? activity_row : size_row)].join("\n");
}

const NOTES: readonly (readonly [string, string])[] = [
  ["hwcache_align", "** Hardware cacheline aligned"],
  ["cache_dma", "** Memory is allocated in a special DMA zone"],
  ["destroy_by_rcu", "** Slabs are destroyed via RCU"],
  ["reclaim_account", "** Reclaim accounting active"],
];

function report_text(s: Slab): string {
  const on = (file: string): string => (s.of(file) > 0 ? "On " : "Off");
  const [slabs, objects, per_slab] = [s.of("slabs"), s.of("objects"), s.of("objs_per_slab")];
  const [partial, cpu_slabs, size] = [s.of("partial"), s.of("cpu_slabs"), s.of("slab_size")];
  const n = (value: number): string => right(value, 7);
  const gap = size - s.of("object_size");
  return [
    "",
    `Slabcache: ${left(s.name, 15)}  Aliases: ${right(s.of("aliases"), 2)} Order : ${right(s.of("order"), 2)} Objects: ${objects}`,
    ...NOTES.filter(([file]) => s.of(file) > 0).map(([, note]) => note),
    "",
    "Sizes (bytes)     Slabs              Debug                Memory",
    "-".repeat(72),
    `Object : ${n(s.of("object_size"))}  Total  : ${n(slabs)}   Sanity Checks : ${on("sanity_checks")}  Total: ${n(space(s))}`,
    `SlabObj: ${n(size)}  Full   : ${n(slabs - partial - cpu_slabs)}   Redzoning     : ${on("red_zone")}  Used : ${n(used(s))}`,
    `SlabSiz: ${n(slab_bytes(s))}  Partial: ${n(partial)}   Poisoning     : ${on("poison")}  Loss : ${n(loss(s))}`,
    `Loss   : ${n(gap)}  CpuSlab: ${n(cpu_slabs)}   Tracking      : ${on("store_user")}  Lalig: ${n(gap * objects)}`,
    `Align  : ${n(s.of("align"))}  Objects: ${n(per_slab)}   Tracing       : ${on("trace")}  Lpadd: ${n((slab_bytes(s) - per_slab * size) * slabs)}`,
    numa_text([s], true),
  ].join("\n");
}

/** A column a node: of one cache all slabs and partial ones, or a line a cache. */
function numa_text(slabs: readonly Slab[], one: boolean): string {
  const count = 1 + Math.max(0, ...slabs.flatMap((s) => [...s.numa.keys()]));
  const nodes = Array.from({ length: count }, (_, node) => node);
  const row = (name: string, counts: ReadonlyMap<number, number>): string =>
    `${left(name, 21)} ${nodes.map((node) => ` ${right(size_text(counts.get(node) ?? 0, false), 4)}`).join("")}`;
  const head = `\n${left(one ? "NUMA nodes" : "Slab", 21)}:${nodes.map((node) => ` ${right(node, 4)}`).join("")}`;
  const body = one
    ? slabs.flatMap((s) => [row("All slabs", s.numa), row("Partial slabs", s.numa_partial)])
    : slabs.map((s) => row(s.name, s.numa));
  return [head, "-".repeat(22) + "-----".repeat(count), ...body].join("\n");
}

/** Aliases of caches with several, or with `single` of all that could have some. */
function alias_text(slabs: readonly Slab[], inverted: boolean, single: boolean): string {
  const named = slabs.filter(({ id, links }) => id.startsWith(":") && (single || links.length > 1));
  if (inverted) return named.flatMap((s) => s.links.map((link) => `${left(link, 15)} -> ${s.id}`)).join("\n");
  return named.map((s) => `\n${left(s.id, 12)} <- ${s.links.join(" ")}`).join("");
}

/** Who allocated and freed: only caches with slab_debug=U know. */
function tracking_text(s: Slab): string {
  const part = (title: string): string => `\n${s.name}: Kernel object ${title}\n${"-".repeat(71)}\nNo Data`;
  return [part("allocation"), part("freeing")].join("\n");
}

/** Sums, averages (rounded down, as all figures of the tool), and extremes over the caches that hold objects. */
function totals_text(slabs: readonly Slab[], plain: boolean): string {
  const some = slabs.filter((s) => s.of("slabs") > 0 && s.of("objects") > 0);
  if (some.length === 0) return "No objects";
  const objects = (s: Slab): number => s.of("objects");
  const in_partial = (s: Slab): number => s.of("objects_partial");
  const sum = (value: (s: Slab) => number): number => some.reduce((all, s) => all + value(s), 0);
  const cell = (value: number): string => right(size_text(Math.trunc(value), plain), 15);
  const share = (part: number, whole: number): number => percent(part, whole, 0);
  /** Least and most. */
  const extremes = (value: (s: Slab) => number): number[] => {
    const values = some.map(value);
    return [Math.min(...values), Math.max(...values)];
  };
  const cache_row = (label: string, value: (s: Slab) => number, average = sum(value) / some.length): string =>
    left(label, 10) + [average, ...extremes(value), sum(value)].map(cell).join("  ");
  const percent_row = (label: string, part: (s: Slab) => number, whole: (s: Slab) => number): string => {
    const value = (s: Slab): number => Math.min(share(part(s), whole(s)), 100);
    const values = [sum(value) / some.length, ...extremes(value), share(sum(part), sum(whole))];
    return left(label, 9) + values.map((value) => `${cell(value)}%`).join(" ");
  };
  const object_row = (label: string, value: (s: Slab) => number): string =>
    left(label, 10) + [sum((s) => value(s) * objects(s)) / sum(objects), ...extremes(value)].map(cell).join("  ");
  const of_space = (s: Slab): number => s.of("slabs");
  const aliases = slabs.reduce((all, s) => all + s.links.length, 0);
  const targets = slabs.filter((s) => s.id.startsWith(":")).length;
  const ratio = (part: number, whole: number): string => right(size_text(share(part, whole), plain), 6);
  return [
    "Slabcache Totals",
    "----------------",
    `Slabcaches : ${right(slabs.length, 15)}   Aliases  : ${right(aliases, 11)}->${left(targets, 3)}  Active:    ${right(some.length, 3)}`,
    `Memory used: ${cell(sum(space))}   # Loss   : ${cell(sum(loss))}   MRatio:${ratio(sum(loss), sum(used))}%`,
    `# Objects  : ${cell(sum(objects))}   # PartObj: ${cell(sum(in_partial))}   ORatio:${ratio(sum(in_partial), sum(objects))}%`,
    "",
    "Per Cache         Average              Min              Max            Total",
    "-".repeat(76),
    cache_row("#Objects", objects),
    cache_row("#Slabs", of_space),
    cache_row("#PartSlab", (s) => s.of("partial")),
    percent_row("%PartSlab", (s) => s.of("partial"), of_space),
    cache_row("PartObjs", in_partial, share(sum(in_partial), sum(objects))), // the tool's average is the share of all
    percent_row("% PartObj", in_partial, objects),
    cache_row("Memory", space),
    cache_row("Used", used),
    cache_row("Loss", loss),
    "",
    "Per Object        Average              Min              Max",
    "-".repeat(59),
    object_row("Memory", (s) => s.of("slab_size")),
    object_row("User", (s) => s.of("object_size")),
    object_row("Loss", (s) => s.of("slab_size") - s.of("object_size")),
  ].join("\n");
}

/** Letters by long name, as the tool has them. */
const LETTERS: Readonly<Record<string, string>> = {
  aliases: "a", activity: "A", bytes: "B", "display-active": "D", empty: "e", "first-alias": "f", inverted: "i",
  slabs: "l", Loss: "L", numa: "n", lines: "N", ops: "o", partial: "P", report: "r", shrink: "s", Size: "S", tracking: "t", Totals: "T",
  Unreclaim: "U", validate: "v", Xtotals: "X", zero: "z", "1ref": "1",
}; // prettier-ignore
const OPTIONS = Object.fromEntries(
  Object.entries(LETTERS).map(([name, short]) => [
    name,
    { type: short === "N" ? "string" : "boolean", short } as const,
  ]),
);

interface Options {
  readonly set: Readonly<Record<string, boolean>>;
  readonly lines: number;
  readonly pattern: RegExp;
}

/** Options, then one pattern. `-d…` is dropped: it says which checks, and nobody can set any. */
function parse_options(args: readonly string[], refuse: (what: string) => CommandError): Options {
  const kept = args.filter((arg) => !/^(-d|--debug)/.test(arg));
  const { tokens, values, positionals } = parseArgs({ args: kept, options: OPTIONS, strict: false, tokens: true });
  for (const token of tokens)
    if (token.kind === "option" && !Object.hasOwn(OPTIONS, token.name)) throw refuse(`no option ${token.rawName}`);
  const set = Object.fromEntries(Object.entries(LETTERS).map(([name, letter]) => [letter, values[name] !== undefined]));
  const { lines = set.X ? "1" : undefined } = values;
  if (lines !== undefined && !/^[1-9]\d{0,8}$/.test(String(lines)))
    throw refuse(`-N ${lines === true ? "" : String(lines)}: a number of lines is wanted`);
  if (positionals.length > 1) throw refuse("one pattern is allowed");
  try {
    return { set, lines: Number(lines ?? Infinity), pattern: new RegExp(positionals[0] ?? ".*", "i") };
  } catch {
    throw refuse(`${positionals[0]}: not a regular expression`);
  }
}

type Key = (s: Slab) => number;

function sorted(slabs: readonly Slab[], keys: readonly (Key | false)[], inverted: boolean): Slab[] {
  const name = (s: Slab): string => s.name.toLowerCase();
  const order = (a: Slab, b: Slab): number => {
    for (const key of keys) if (key && key(a) !== key(b)) return key(b) - key(a);
    return name(a) < name(b) ? -1 : Number(name(a) > name(b));
  };
  return [...slabs].sort((a, b) => (inverted ? -order(a, b) : order(a, b)));
}

/** The caches by space, by loss and by partial slabs, below the totals; plain bytes, for those who plot them. */
function extended_totals(slabs: readonly Slab[], options: Options): string {
  const part = (title: string, key: Key, by_loss = false): string => {
    const rows = sorted(slabs, [key], options.set.i!).slice(0, options.lines);
    const set = { ...options.set, L: by_loss, B: true };
    return `\n${title}\n${"-".repeat(title.length)}\n${list_text(rows, { ...options, set })}`;
  };
  return [
    totals_text(slabs, true),
    part("Slabs sorted by size", space),
    part("Slabs sorted by loss", loss, true),
    part("Slabs sorted by number of partial slabs", (s) => s.of("partial")),
    "",
  ].join("\n");
}

function slabinfo(args: readonly string[], refuse: (what: string) => CommandError): Result {
  const options = parse_options(args, refuse);
  const { set, lines, pattern } = options;
  const all = read_slabs(pattern, set.f!);
  if (all.length === 0) throw new CommandError(`slabinfo: no cache matches ${pattern.source}`);
  const keys = [set.A && ((s: Slab) => allocs(s) + frees(s)), set.S && space, set.L && loss, set.P && ((s: Slab) => s.of("partial"))]; // prettier-ignore
  const matching = sorted(all, keys.map((key) => key ?? false), set.i!).filter((s) => !set.U || s.of("reclaim_account") === 0); // prettier-ignore
  const shown = matching.filter((s) => (set.e ? s.of("slabs") === 0 : set.z || s.of("slabs") > 0)).slice(0, lines);
  const answer = (rows: readonly Slab[], text: string): Result => ({ text, json: rows.map(json_of) });
  const file = set.s ? "shrink" : set.v ? "validate" : undefined;
  if (file !== undefined) {
    for (const s of matching) write_file(`/sys/kernel/slab/${s.id}/${file}`, "1", false, "slabinfo");
    return answer(read_slabs(pattern, set.f!), "");
  }
  if (set.a) return answer(matching, alias_text(matching, set.i!, set["1"]!));
  if (set.T) return answer(matching, totals_text(matching, set.B!));
  if (set.X) return answer(matching, extended_totals(matching, options));
  if (set.n) return answer(shown, numa_text(shown, false));
  if (set.t) return answer(shown, shown.map(tracking_text).join("\n"));
  // Linux took the file `ops` out of sysfs; its tool still looks for it, and says this.
  if (set.o) return answer(shown, shown.map((s) => `\n${s.name} has no kmem_cache operations`).join("\n"));
  if (set.r || all.length === 1) return answer(matching, matching.map(report_text).join("\n"));
  return answer(shown, list_text(shown, options));
}

register({
  name: "slabinfo",
  group: "look",
  usage: "slabinfo [-aABDefhilLnoPrsStTUvXz1] [-N K] [-d…] [PATTERN]",
  summary: "slab caches from /sys/kernel/slab, as the kernel's own tool prints them",
  man: `Space of all slabs, slabs off the CPUs / with free objects / on CPUs, O/S objects
a slab, O order, %Fr slabs with free objects, %Ef of the space holds objects.
Flags: * aliases, d DMA, A cache line aligned, P poison, a reclaimable,
Z red zones, F checks, U tracking, T tracing. One cache: a report.

  -l the list (without options, too)  -o operations (there are none)  -h this
  -a aliases of caches with several (-1: of all)  -D activity  -n by node
  -r reports  -t who allocated  -T totals  -X totals and the foremost
  -s shrink  -v validate (caches with slab_debug)
  -A by activity  -L by loss  -P by partial slabs  -S by space  -i the other way
  -e empty ones only  -z empty ones too  -U unreclaimable ones  -N K lines
  -B plain bytes  -f by the longest alias  -d… changes nothing

  slabinfo -S -N 5; slabinfo task_struct; slabinfo -D kmalloc`,
  complete: "cache",
  run(_ctx, args) {
    need_slabinfo("slabinfo");
    const { name } = slab_ops();
    if (name !== "slub")
      throw new CommandError(`slabinfo: ${name.toUpperCase()} has no /sys/kernel/slab; cat /proc/slabinfo, or slabtop`);
    if (args.some((arg) => arg === "-h" || arg === "--help")) return line(`usage: ${this.usage}\n\n${this.man}`);
    return slabinfo(args, (what) => usage_error(this, `slabinfo: ${what}`));
  },
});
