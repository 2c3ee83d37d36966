/**
 * vmstat and numastat as procps and numactl's package print them; numactl and slabinfo are in files of their own. They
 * read what the files of /proc and /sys say without opening them, so looking changes nothing.
 */
import { proc_text } from "../../kernel/fs/procfs.ts";
import { sysfs_text } from "../../kernel/fs/sysfs.ts";
import { need_slabinfo } from "./memory.ts";
import { NODE_FILES, fields, online_nodes } from "./node_files.ts";
import { register, usage_error, type Result } from "./registry.ts";

const MEMORY_HEAD = [
  "procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----",
  " r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st",
];
const WIDTHS = Object.freeze({
  r: 2, b: 2, swpd: 6, free: 6, buff: 6, cache: 6, si: 4, so: 4, bi: 5, bo: 5, in: 4, cs: 4, us: 2, sy: 2, id: 2, wa: 2, st: 2,
}); // prettier-ignore

/** Averages since power-on: events a second, and where the CPUs' time went in percent. */
function vmstat_summary(): Result {
  const memory = fields(proc_text("meminfo"));
  const vm = fields(proc_text("vmstat"));
  const stat = proc_text("stat");
  const of = (from: Map<string, number>, name: string): number => from.get(name) ?? 0;
  const stat_of = (name: string): number => Number(new RegExp(`^${name} (\\d+)`, "m").exec(stat)?.[1] ?? 0);
  const ticks = /^cpu +(.*)$/m.exec(stat)![1]!.split(" ").map(Number);
  const [user, nice, system, idle, wait, irq, softirq, steal] = ticks as [number, number, number, number, number, number, number, number]; // prettier-ignore
  const [us, sy] = [user + nice, system + irq + softirq];
  const all = us + sy + idle + wait + steal || 1;
  const rate = (count: number): number => Math.floor((count * 100 + Math.floor(all / 2)) / all);
  const json: Record<keyof typeof WIDTHS, number> = {
    r: stat_of("procs_running"),
    b: stat_of("procs_blocked"),
    swpd: of(memory, "SwapTotal") - of(memory, "SwapFree"),
    free: of(memory, "MemFree"),
    buff: of(memory, "Buffers"),
    cache: of(memory, "Cached") + of(memory, "SReclaimable"),
    si: rate(of(vm, "pswpin") * 4),
    so: rate(of(vm, "pswpout") * 4),
    bi: rate(of(vm, "pgpgin")),
    bo: rate(of(vm, "pgpgout")),
    in: rate(stat_of("intr")),
    cs: rate(stat_of("ctxt")),
    us: rate(us),
    sy: rate(sy),
    id: rate(idle),
    wa: rate(wait),
    st: rate(steal),
  };
  const row = Object.entries(json).map(([name, value]) => String(value).padStart(WIDTHS[name as keyof typeof WIDTHS]));
  return { text: [...MEMORY_HEAD, row.join(" ")].join("\n"), json };
}

/** The caches by name, from /proc/slabinfo. */
function vmstat_slabs(): Result {
  need_slabinfo("vmstat -m");
  const rows = proc_text("slabinfo").trimEnd().split("\n").slice(2).map((text) => {
    const [cache, num, total, size, per_slab] = text.split(/ +/);
    return { cache: cache!, num: Number(num), total: Number(total), size: Number(size), pages: Number(per_slab) };
  }); // prettier-ignore
  rows.sort((a, b) => (a.cache < b.cache ? -1 : Number(a.cache > b.cache)));
  const cells = (name: string, ...numbers: (number | string)[]): string =>
    `${name.slice(0, 24).padEnd(24)} ${numbers.map((n) => String(n).padStart(6)).join(" ")}`;
  const lines = rows.map(({ cache, num, total, size, pages }) => cells(cache, num, total, size, pages));
  return { text: [cells("Cache", "Num", "Total", "Size", "Pages"), ...lines].join("\n"), json: rows };
}

register({
  name: "vmstat",
  group: "look",
  usage: "vmstat [-m]",
  summary: "memory, events and time, as procps prints them; -m: slab caches",
  man: `One line of averages since power-on: r tasks that can run, b that wait; memory in
KiB, cache = Cached + SReclaimable; si so bi bo KiB a second, in and cs
interrupts and context switches a second; us sy id wa st percent of the CPUs'
time.

With -m the caches of /proc/slabinfo by name: Num live objects, Total slots,
Size of a slot, and under the heading Pages, as procps has it, slots a slab.`,
  reads: true,
  run(_ctx, args) {
    if (args.length > 1 || (args.length === 1 && args[0] !== "-m")) throw usage_error(this);
    return args.length === 1 ? vmstat_slabs() : vmstat_summary();
  },
});

function numastat(): Result {
  const all = online_nodes().map((node) => ({
    node,
    counts: fields(sysfs_text(`${NODE_FILES}/node${node}/numastat`)),
  }));
  const row = (name: string, cells: readonly (string | number)[]): string =>
    name.padEnd(16) + cells.map((cell) => String(cell).padStart(16)).join("");
  const names = [...all[0]!.counts.keys()];
  const lines = names.map((name) => row(name, all.map(({ counts }) => counts.get(name)!))); // prettier-ignore
  const json = all.map(({ node, counts }) => ({ node, ...Object.fromEntries(counts) }));
  return { text: [row("", all.map(({ node }) => `node${node}`)), ...lines].join("\n"), json }; // prettier-ignore
}

register({
  name: "numastat",
  group: "look",
  usage: "numastat",
  summary: "where pages came from, node by node, as numastat prints it",
  man: `Pages allocated: numa_hit on the node that was wanted, numa_miss here though
another was wanted, numa_foreign elsewhere though this one was wanted;
local_node by a CPU of this node, other_node by a CPU of another.`,
  reads: true,
  run(_ctx, args) {
    if (args.length > 0) throw usage_error(this);
    return numastat();
  },
});
