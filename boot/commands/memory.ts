/** `free` and `slabtop`, as procps prints them. */
import { KmemCache, get_slabinfo, oo_objects, oo_order, slab_ops } from "../../mm/slab_common.ts";
import { slab_names } from "../../kernel/fs/slab_names.ts";
import { proc_text } from "../../kernel/fs/procfs.ts";
import { CommandError, parse_count, register, usage_error, type Result } from "./registry.ts";

const FREE_UNITS: Readonly<Record<string, number>> = { "-b": 1 / 1024, "-k": 1, "-m": 1024, "-g": 1048576 };

/** The values of /proc/meminfo in KiB, by label. */
function meminfo(): Map<string, number> {
  const lines = proc_text("meminfo").matchAll(/^(\S+):\s+(\d+)/gm);
  return new Map([...lines].map(([, label, value]) => [label!, Number(value)]));
}

function free_row(label: string, cells: readonly number[], divisor: number): string {
  return label.padEnd(8) + cells.map((kib) => String(Math.trunc(kib / divisor)).padStart(12)).join("");
}

register({
  name: "free",
  group: "look",
  usage: "free [-b|-k|-m|-g]",
  summary: "memory used and free, as procps prints it",
  man:
    "From /proc/meminfo, in KiB (or bytes, MiB, GiB): used = total - available; buff/cache = Buffers + Cached +\n" +
    "SReclaimable; available = what programs could still get, reclaimable caches included.",
  reads: true,
  run(_ctx, args) {
    const [unit = "-k"] = args;
    if (args.length > 1 || !Object.hasOwn(FREE_UNITS, unit)) throw usage_error(this);
    const info = meminfo();
    const kib = (label: string): number => info.get(label) ?? 0;
    const [total, free, available] = [kib("MemTotal"), kib("MemFree"), kib("MemAvailable")];
    const cache = kib("Buffers") + kib("Cached") + kib("SReclaimable");
    const swap = kib("SwapTotal");
    const json = { total, used: total - available, free, shared: kib("Shmem"), "buff/cache": cache, available };
    const rows = [
      `${" ".repeat(9)}${["total", "used", "free", "shared", "buff/cache", "available"].map((name, i) => name.padStart(i ? 12 : 11)).join("")}`,
      free_row("Mem:", Object.values(json), FREE_UNITS[unit]!),
      free_row("Swap:", [swap, swap - kib("SwapFree"), kib("SwapFree")], FREE_UNITS[unit]!),
    ];
    return { text: rows.join("\n"), json };
  },
});

/** Refuses what reads /proc/slabinfo where there is none. */
export function need_slabinfo(command: string): void {
  if (slab_ops().no_slabinfo)
    throw new CommandError(`${command}: SLOB keeps no /proc/slabinfo; slab small|medium|large shows its pages`);
}

interface SlabRow {
  readonly name: string;
  readonly objs: number;
  readonly active: number;
  readonly use: number;
  readonly obj_size: number;
  readonly slabs: number;
  readonly active_slabs: number;
  readonly obj_per_slab: number;
  readonly pages_per_slab: number;
  readonly cache_kib: number;
}

function slab_rows(): SlabRow[] {
  return [...slab_names()].map(([cache, name]) => {
    const info = get_slabinfo(cache);
    const pages_per_slab = 1 << oo_order(KmemCache.oo.get(cache));
    return {
      name,
      objs: info.num_objs,
      active: info.active_objs,
      use: info.num_objs === 0 ? 0 : Math.trunc((100 * info.active_objs) / info.num_objs),
      obj_size: KmemCache.size.get(cache),
      slabs: info.num_slabs,
      active_slabs: info.active_slabs,
      obj_per_slab: oo_objects(KmemCache.oo.get(cache)),
      pages_per_slab,
      cache_kib: info.num_slabs * pages_per_slab * 4,
    };
  });
}

type Order = (a: SlabRow, b: SlabRow) => number;
const descending =
  (field: Exclude<keyof SlabRow, "name">): Order =>
  (a, b) =>
    b[field] - a[field];
/** Sort keys of slabtop; by the number of objects if none is given. */
const ORDERS: Readonly<Record<string, Order>> = {
  a: descending("active"),
  b: descending("obj_per_slab"),
  c: descending("cache_kib"),
  l: descending("slabs"),
  v: descending("active_slabs"),
  n: (a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)),
  o: descending("objs"),
  p: descending("pages_per_slab"),
  s: descending("obj_size"),
  u: descending("use"),
};

/** C's %.Nf: a tie goes to the even digit. */
function fixed(value: number, digits: number): string {
  const scaled = value * 10 ** digits;
  const low = Math.floor(scaled);
  return scaled - low === 0.5 ? ((low + (low % 2)) / 10 ** digits).toFixed(digits) : value.toFixed(digits);
}

function totals(rows: readonly SlabRow[]): string[] {
  const sum = (value: (row: SlabRow) => number): number => rows.reduce((total, row) => total + value(row), 0);
  const [active, objs] = [sum((row) => row.active), sum((row) => row.objs)];
  const [active_slabs, slabs] = [sum((row) => row.active_slabs), sum((row) => row.slabs)];
  const caches = sum((row) => Number(row.objs > 0));
  const [active_size, size] = [sum((row) => row.active * row.obj_size), sum((row) => row.objs * row.obj_size)];
  const share = (part: number, whole: number): string => `(${fixed(whole === 0 ? 0 : (100 * part) / whole, 1)}%)`;
  const kib = (bytes: number): string => `${fixed(bytes / 1024, 2)}K`;
  const sizes = rows.map((row) => row.obj_size);
  const average = objs === 0 ? 0 : Math.trunc(size / objs);
  const label = (text: string): string => ` ${text.padEnd(35)}: `;
  return [
    `${label("Active / Total Objects (% used)")}${active} / ${objs} ${share(active, objs)}`,
    `${label("Active / Total Slabs (% used)")}${active_slabs} / ${slabs} ${share(active_slabs, slabs)}`,
    `${label("Active / Total Caches (% used)")}${caches} / ${rows.length} ${share(caches, rows.length)}`,
    `${label("Active / Total Size (% used)")}${kib(active_size)} / ${kib(size)} ${share(active_size, size)}`,
    `${label("Minimum / Average / Maximum Object")}${kib(Math.min(...sizes))} / ${kib(average)} / ${kib(Math.max(...sizes))}`,
  ];
}

function slabtop_text(rows: readonly SlabRow[], lines: number): string {
  const body = rows.slice(0, lines).map((row) => {
    const cells = [
      String(row.objs).padStart(6),
      String(row.active).padStart(6),
      `${String(row.use).padStart(3)}%`,
      `${fixed(row.obj_size / 1024, 2).padStart(7)}K`,
      String(row.slabs).padStart(6),
      String(row.obj_per_slab).padStart(8),
      `${String(row.cache_kib).padStart(9)}K`,
      row.name.padEnd(23),
    ];
    return cells.join(" ");
  });
  const heading = "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME".padEnd(78);
  return [...totals(rows), "", heading, ...body].join("\n");
}

function slabtop(args: readonly string[]): Result {
  let key = "o";
  let lines = Infinity;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    const attached = /^(-s|--sort=)(.)$/.exec(arg);
    if (attached) key = attached[2]!;
    else if (arg === "-s" || arg === "--sort") key = args[++i] ?? "";
    else if (arg === "-n") lines = parse_count("slabtop -n", args[++i], 1, 10000);
    else if (arg !== "-o" && arg !== "--once")
      throw new CommandError(`slabtop: no option ${arg}; there are -o, -s KEY, -n LINES`);
  }
  const order = Object.hasOwn(ORDERS, key) ? ORDERS[key] : undefined;
  if (!order) throw new CommandError(`slabtop -s ${key}: allowed: ${Object.keys(ORDERS).join(" ")}`);
  need_slabinfo("slabtop");
  const rows = slab_rows().sort(order);
  const json = rows.slice(0, lines).map(({ active_slabs: _, ...row }) => row);
  return { text: slabtop_text(rows, lines), json };
}

register({
  name: "slabtop",
  group: "look",
  usage: "slabtop [-o] [-s KEY] [-n LINES]",
  summary: "all slab caches, the busiest first, as procps prints them",
  man:
    "OBJS slots in slabs, ACTIVE of them live (as /proc/slabinfo counts), USE their share, OBJ SIZE the slot, SLABS,\n" +
    "OBJ/SLAB, CACHE SIZE the pages of all slabs. KEY: a active, b objs/slab, c cache size, l slabs, v active slabs,\n" +
    "n name, o objects, p pages/slab, s object size, u use. It prints once (-o is accepted); --watch goes on.",
  reads: true,
  run: (_ctx, args) => slabtop(args),
});
