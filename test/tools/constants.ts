/**
 * `npm run constants`: every number of /proc and /sys either changes or has a reason not to.
 *
 *     boot machines of many kinds; on each run loads, and take what /proc and /sys say before, between and after
 *     each time everything has to add up (test/lib/export_check.ts)
 *     a number that had one value all the time and everywhere is constant; all of them are listed
 *     kernel/fs/README.md has the table "constant, because …"; a constant that is not in it, or a row of it that
 *     covers nothing or something that changes, fails the check
 *
 * A number is known by its file, the words of its line, and its place there: `proc/meminfo SwapTotal`. Nodes, CPUs,
 * caches, pids and zones are `*` in that name: it is enough that one of them is seen to change.
 */
import { readFileSync } from "node:fs";
import { export_texts } from "../../boot/export.ts";
import { create_session, type Host } from "../../boot/session.ts";
import { boot } from "../../boot/start_kernel.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { O_RDONLY } from "../../kernel/fs/fs.ts";
import { do_filp_open } from "../../kernel/fs/open.ts";
import { check_export } from "../lib/export_check.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../hal/machine.ts";

const TABLE = "kernel/fs/README.md";
/** Files of words, or of names and sets of CPUs and nodes: no figures. */
const NO_FIGURES =
  /^proc\/(cmdline|version|iomem|mounts|filesystems|cpuinfo)$|list$|node\/(online|possible|has_\w+)$|cpu\/(online|possible|present|offline|isolated)$/;
/** Files whose columns are all alike: blocks by order, distances, counts by node or CPU. */
const ALIKE = /^proc\/(buddyinfo|pagetypeinfo)$|\/distance$|^sys\/kernel\/(slab|debug\/extfrag)\//;
const NUMBER = /(?<![\w.:~-])\d+(?:\.\d+)?(?![\w~]*[A-Za-z_~])/g;

/** A path with `*` for what there are many of. */
function masked_path(path: string): string {
  return path
    .replace(/^proc\/\d+\//, "proc/*/")
    .replace(/^(sys\/kernel\/slab)\/[^/]+/, "$1/*")
    .replace(/\/(node|cpu|memory)\d+(?=\/|$)/g, "/$1*");
}

/** The words that name the numbers of a line; of a table's row its place alone does. */
function label_of(path: string, words: string): string {
  if (/^proc\/(slabinfo|buddyinfo|pagetypeinfo)$/.test(path)) return "";
  return words.split("#")[0]!.replace(/^cpu\d*/, "cpu").replace(/^pages free/, "free").replace(/[:(\s]+$/, ""); // prettier-ignore
}

/** Every number of a file, by its own name, and that name's masked form. */
function* numbers_of(path: string, text: string): Generator<{ own: string; masked: string; value: string }> {
  const seen = new Map<string, number>();
  let context = "";
  for (const raw of text.split("\n")) {
    if (/^\S/.test(raw)) context = raw;
    // Node 0, zone DMA and cpu: 0 are names.
    const line = raw.replace(/^Node +\d+,? /, "").replace(/^ +cpu: \d+$/, "").replace(/\s+/g, " ").replace(/^(0x)?[0-9a-f]{8,16}-(0x)?[0-9a-f]{8,16}/, "range").trim(); // prettier-ignore
    const words = ALIKE.test(path) ? "" : line.replace(NUMBER, "#");
    const place = `${raw.startsWith("  ") || raw.startsWith("Node") ? context.replace(/ \d.*/, "") : ""}|${words}`;
    const nth = seen.get(place) ?? 0;
    seen.set(place, nth + 1);
    const all = [...line.matchAll(NUMBER)];
    for (const [i, [value]] of all.entries()) {
      const column = all.length === 1 || ALIKE.test(path) ? "" : String(i + 1);
      const masked = [masked_path(path), label_of(path, words), column].filter((part) => part !== "").join(" ");
      yield { own: `${path}|${place}|${nth}|${i}`, masked, value };
    }
  }
}

/** What was seen: the first value of each number; the names of those that had another later. */
const first = new Map<string, string>();
const names = new Map<string, string>();
const changing = new Set<string>();

const faults: string[] = [];

function take(when: string): void {
  const texts = export_texts();
  faults.push(...check_export(texts).map((fault) => `${when}: ${fault}`));
  for (const [path, { text, is_link }] of texts) {
    if (is_link || NO_FIGURES.test(path)) continue;
    for (const { own, masked, value } of numbers_of(path, text)) {
      const before = first.get(own);
      if (before === undefined) first.set(own, value);
      else if (before !== value) changing.add(masked);
      if (!names.has(masked)) names.set(masked, value);
    }
  }
}

async function run(machine: MachineSpec, append: string, loads: readonly string[]): Promise<void> {
  const nothing = (): void => {};
  const host: Host = {
    terminal: false, json: false, width: () => 80, height: () => 24, write: nothing, write_error: nothing,
    ask: () => Promise.resolve(undefined), watching: nothing,
  }; // prettier-ignore
  boot({ machine, append, loglevel: 0 });
  const session = create_session(host);
  take(machine.name);
  for (const load of loads) {
    await session.run(load);
    take(`${machine.name}, after ${load.slice(0, 60)}`);
  }
  const file = session.entry(() => do_filp_open("/proc/version", O_RDONLY, 0));
  take(machine.name);
  session.entry(() => fput(file));
  await session.leave();
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

const TRACES = "test/data/traces";
const SLAB = "/sys/kernel/slab";
const VM = "/proc/sys/vm";
const repeat = (command: string, times: number): string => Array<string>(times).fill(command).join("; ");
const write = (folder: string, value: number, names: string): string =>
  names.split(" ").map((name) => `echo ${value} > ${folder}/${name}`).join("; "); // prettier-ignore
/** A command that a machine cannot carry out fails there, and the rest goes on. */
const LOADS = [
  "fork 30; mkdir /d; echo some text > /d/a; touch /d/b; ls -l /d; kmalloc 100000; kmalloc 300 node=0; vmalloc 3000000",
  `replay ${TRACES}/fs-walk.trace.gz --stop 30000`,
  "replay --end; rm -r /d; kill sleep; vfree ffffc90000000000; vmalloc 5000000; sleep 60",
  "cowtest; memhog 2",
  `replay ${TRACES}/fork-shell.trace.gz --pages --stop 60000`,
  `replay --end; echo 3 > ${VM}/drop_caches; sleep 1`,
  // A cache of every kind; one name for two caches, two names for one cache.
  "kmem create c 2000 flags=SLAB_NO_MERGE ctor; kmem alloc c 200; on 1 kmem alloc c 50; kmem free c all; kmem create v 100 flags=SLAB_NO_MERGE; kmem create d 2000", // prettier-ignore
  "kmem destroy v; kmem create v 300 align=64 flags=SLAB_CACHE_DMA|SLAB_HWCACHE_ALIGN|SLAB_RECLAIM_ACCOUNT|SLAB_TYPESAFE_BY_RCU|SLAB_NO_MERGE; kmem create e 2000", // prettier-ignore
  "kmem create s 200 sheaf_capacity=16; kmem alloc s 300; on 1 kmem alloc s 40; on 1 kmem free s all; kmem alloc s 300; slabinfo -s s",
  "kmem free s all; kmem destroy s; kmem create s 200 sheaf_capacity=32",
  // Objects that another CPU frees.
  "kmem create p 300 cpu_partial=off; kmem alloc p 20; on 1 kmem free p all; kmem alloc p 400; on 1 kmem free p all; kmem alloc p 5; on 1 kmem free p all; slabinfo -s p", // prettier-ignore
  `${write(`${SLAB}/c`, 1, "min_partial cpu_partial failslab skip_kfence remote_node_defrag_ratio")}; slabinfo -s c`,
  "numactl --interleave=all fork 4; echo 3 > /sys/kernel/mm/mempolicy/weighted_interleave/node0",
  // More of a disc than memory holds, read twice; then large blocks of low zones.
  `wc ${range(0, 7)
    .map((film) => `/usr/media/film${film}`)
    .join(" ")}; sleep 2; ${repeat("wc /usr/media/film7", 2)}; sleep 2`,
  `${repeat("alloc_pages 8 gfp=GFP_KERNEL|GFP_DMA", 20)}; ${repeat("alloc_pages 8 gfp=GFP_KERNEL|GFP_DMA32", 60)}; ${repeat("alloc_pages 8", 60)}`,
  // All memory for movable pages; then the kernel's own have to go among them.
  `${repeat("alloc_pages 8 gfp=GFP_HIGHUSER_MOVABLE", 300)}; ${repeat("alloc_pages 0", 600)}`,
  `echo 64 64 16 8 8 > ${VM}/lowmem_reserve_ratio; ${write(VM, 3, "min_slab_ratio min_unmapped_ratio zone_reclaim_mode")}; ${write(VM, 3000, "min_free_kbytes watermark_boost_factor watermark_scale_factor")}; ${write(VM, 50, "vfs_cache_pressure percpu_pagelist_high_fraction")}`,
  // Small files that are used twice; then pages until the OOM killer has nobody left, on the smallest machine.
  `${repeat(
    `wc ${range(10, 99)
      .map((nr) => `/usr/src/000/0${nr}.c`)
      .join(" ")}`,
    2,
  )}; ${repeat("alloc_pages 3", 500)}; sleep 3`,
  `${write("/proc/36", 500, "oom_score_adj")}; ${write(VM, 1, "panic_on_oom oom_kill_allocating_task")}; ${write(VM, 0, "oom_dump_tasks")}`,
  write(VM, 0, "panic_on_oom oom_kill_allocating_task"),
  `${repeat("alloc_pages 3 gfp=GFP_ATOMIC", 20)}; ${repeat("alloc_pages 10 node=1", 40)}; ${repeat("kmalloc 100 gfp=GFP_DMA", 30)}; echo 0 > ${VM}/numa_stat`,
];

/** The rows of the table: `*` is anything, {2-5} one of these numbers. What each covers, and why. */
function read_table(): { pattern: string; covers: RegExp; because: string }[] {
  const text = readFileSync(TABLE, "utf8");
  const part = text.slice(text.indexOf("## Constant, because"));
  const rows = [...part.matchAll(/^\| `([^|]+)` \| ([^|]+) \|$/gm)];
  return rows.flatMap(([, patterns, because]) =>
    patterns!.split("`, `").map((pattern) => {
      const escaped = pattern.replace(/[.+?^$()|[\]\\]/g, "\\$&").replaceAll("*", ".*");
      const source = escaped.replace(/\{(\d+)-(\d+)\}/g, (_, from: string, to: string) => `(${range(+from, +to).join("|")})`); // prettier-ignore
      return { pattern, covers: new RegExp(`^${source}$`), because: because! };
    }),
  );
}

const machines: readonly (readonly [MachineSpec, string])[] = [
  [PRESETS.textbook!, ""],
  [PRESETS.server!, ""],
  [PRESETS.embedded!, ""],
  [PRESETS.laptop!, "fail_page_alloc=1,100,0,-1"],
  [machine_from_options({ mem: "96M", nodes: "3", cpus: "3" }) as MachineSpec, "slab_full=off slub_min_objects=32"],
  [machine_from_options({ mem: "64M", nodes: "1", cpus: "2" }) as MachineSpec, "movablecore=24M"],
];
for (const [machine, append] of machines) await run(machine, append, LOADS);

const constants = [...names.keys()].filter((name) => !changing.has(name)).sort();
const table = read_table();
for (const name of constants) {
  const row = table.find(({ covers }) => covers.test(name));
  if (!row) faults.push(`${name} is ${names.get(name)} all the time, and ${TABLE} gives no reason`);
  console.log(`${name} = ${names.get(name)}${row ? `   ${row.because}` : ""}`);
}
for (const { pattern, covers } of table) {
  if (!constants.some((name) => covers.test(name))) faults.push(`${TABLE}: \`${pattern}\` covers no constant`);
  const moving = [...changing].find((name) => covers.test(name));
  if (moving !== undefined) faults.push(`${TABLE}: \`${pattern}\` covers ${moving}, which changes`);
}
for (const fault of faults) console.log(`FAULT ${fault}`);
console.log(`${names.size} numbers, ${changing.size} of them change, ${constants.length} are constant; ${faults.length} faults`); // prettier-ignore
process.exitCode = faults.length > 0 ? 1 : 0;
