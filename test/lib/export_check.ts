/** Does everything in an export add up? It reads texts alone, as any program outside would. */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { ExportFile } from "../../boot/export.ts";

/** What `export` wrote into a folder. */
export function read_export(folder: string): Map<string, ExportFile> {
  const files = new Map<string, ExportFile>();
  const walk = (path: string): void => {
    for (const entry of readdirSync(join(folder, path), { withFileTypes: true })) {
      const inner = `${path}/${entry.name}`;
      if (entry.isDirectory()) walk(inner);
      else if (entry.isSymbolicLink()) files.set(inner, { text: readlinkSync(join(folder, inner)), is_link: true });
      else files.set(inner, { text: readFileSync(join(folder, inner), "latin1"), is_link: false });
    }
  };
  for (const root of ["proc", "sys"]) walk(root);
  return files;
}

const NODES = "sys/devices/system/node";
const SLABS = "sys/kernel/slab";
const sum = (values: Iterable<number>): number => [...values].reduce((all, value) => all + value, 0);

/** `name value`, `name: value kB` lines as numbers by name, in order. */
function pairs(text: string): Map<string, number> {
  const lines = text.matchAll(/^ *(?:Node \d+ )?(\S+?):? +(\d+)(?: kB)?$/gm);
  return new Map([...lines].map(([, name, value]) => [name!, Number(value)]));
}

/** "12 N0=10 N1=2" as [12, {0: 10, 1: 2}]. */
function node_list(text: string): [number, Map<number, number>] {
  const parts = [...text.matchAll(/ N(\d+)=(\d+)/g)].map(([, node, count]) => [Number(node), Number(count)] as const);
  return [Number.parseInt(text, 10), new Map(parts)];
}

/** One line for each thing in an export that contradicts another; none: all of it is of one moment. */
export function check_export(files: ReadonlyMap<string, ExportFile>): string[] {
  const faults: string[] = [];
  const read = (path: string): string => {
    const file = files.get(path);
    if (!file) faults.push(`${path} is missing`);
    return file?.text ?? "";
  };
  const same = (what: string, one: unknown, other: unknown): void => {
    const [a, b] = [JSON.stringify(one), JSON.stringify(other)];
    if (a !== b) faults.push(`${what}: ${a} and ${b}`);
  };
  const nodes = [...files.keys()]
    .map((path) => /^sys\/devices\/system\/node\/node(\d+)\/meminfo$/.exec(path)?.[1])
    .filter((node) => node !== undefined);
  check_zones(read, same);
  check_nodes(read, same, nodes);
  check_cpus(read, same, nodes);
  check_slabs(files, read, same, nodes);
  return faults;
}

type Read = (path: string) => string;
type Same = (what: string, one: unknown, other: unknown) => void;

/** The zones of zoneinfo: name and numbers by label. */
function zones_of(text: string): { name: string; node: string; of: Map<string, number> }[] {
  return text.split(/^(?=Node )/m).map((block) => {
    const [, node, zone] = /^Node (\d+), zone +(\S+)/.exec(block)!;
    return { name: `${node} ${zone}`, node: node!, of: pairs(block.replaceAll("pages free", "free")) };
  });
}

function check_zones(read: Read, same: Same): void {
  const zones = zones_of(read("proc/zoneinfo"));
  const meminfo = pairs(read("proc/meminfo"));
  const vmstat = pairs(read("proc/vmstat"));
  const total = (label: string): number => sum(zones.map(({ of }) => of.get(label) ?? 0));
  const buddy = new Map<string, number[]>();
  for (const [, node, zone, counts] of read("proc/buddyinfo").matchAll(/^Node (\d+), zone +(\S+) (.*) $/gm))
    buddy.set(`${node} ${zone}`, counts!.trim().split(/ +/).map(Number)); // prettier-ignore
  for (const { name, of } of zones) {
    const blocks = buddy.get(name);
    if (of.get("present") === 0) continue;
    same(`zone ${name}: free in zoneinfo, in buddyinfo`, of.get("free"), blocks && sum(blocks.map((n, order) => n * 2 ** order))); // prettier-ignore
    same(`zone ${name}: free, nr_free_pages`, of.get("free"), of.get("nr_free_pages"));
  }
  for (const [name, blocks] of buddy) {
    const [node, zone] = name.split(" ") as [string, string];
    const rows = [...read("proc/pagetypeinfo").matchAll(new RegExp(`^Node +${node}, zone +${zone}, type +\\S+ (.*) $`, "gm"))]; // prettier-ignore
    const counts = rows.map(([, row]) => row!.trim().split(/ +/).map(Number)); // prettier-ignore
    same(`zone ${name}: pagetypeinfo, buddyinfo`, blocks.map((_, order) => sum(counts.map((row) => row[order]!))), blocks); // prettier-ignore
  }
  same("free pages of zones, MemFree", total("free") * 4, meminfo.get("MemFree"));
  same("managed pages of zones, MemTotal", total("managed") * 4, meminfo.get("MemTotal"));
  same("SReclaimable + SUnreclaim, Slab", meminfo.get("SReclaimable")! + meminfo.get("SUnreclaim")!, meminfo.get("Slab")); // prettier-ignore
  same("Slab, vmstat", meminfo.get("Slab"), (vmstat.get("nr_slab_reclaimable")! + vmstat.get("nr_slab_unreclaimable")!) * 4); // prettier-ignore
  same("KernelStack, vmstat", meminfo.get("KernelStack"), vmstat.get("nr_kernel_stack"));
  const areas = [...read("proc/vmallocinfo").matchAll(/ pages=(\d+) vmalloc.*?((?: N\d+=\d+)*)$/gm)];
  same("pages of vmallocinfo, VmallocUsed", sum(areas.map(([, pages]) => Number(pages))) * 4, meminfo.get("VmallocUsed")); // prettier-ignore
  for (const [line, pages, by_node] of areas)
    same(`${line}: the nodes add up`, sum([...by_node!.matchAll(/=(\d+)/g)].map(([, n]) => Number(n))), Number(pages)); // prettier-ignore
  // Every counter of zoneinfo is one of vmstat; those of huge pages are shown in huge pages by both.
  for (const label of vmstat.keys())
    if (zones.some(({ of }) => of.has(label))) same(`zoneinfo, vmstat: ${label}`, total(label), vmstat.get(label));
}

function check_nodes(read: Read, same: Same, nodes: readonly string[]): void {
  const vmstat = pairs(read("proc/vmstat"));
  const meminfo = pairs(read("proc/meminfo"));
  const of_nodes = (file: string) => nodes.map((node) => pairs(read(`${NODES}/node${node}/${file}`)));
  const [memory, counters, numa] = [of_nodes("meminfo"), of_nodes("vmstat"), of_nodes("numastat")];
  const add = (maps: Map<string, number>[], label: string): number => sum(maps.map((map) => map.get(label)!));
  for (const label of memory[0]!.keys())
    if (meminfo.has(label)) same(`nodes, meminfo: ${label}`, add(memory, label), meminfo.get(label));
  for (const of of memory) same("MemUsed", of.get("MemUsed"), of.get("MemTotal")! - of.get("MemFree")!);
  for (const label of counters[0]!.keys()) same(`nodes, vmstat: ${label}`, add(counters, label), vmstat.get(label));
  const NAMES = { interleave_hit: "numa_interleave", local_node: "numa_local", other_node: "numa_other" };
  for (const label of numa[0]!.keys())
    same(`numastat, vmstat: ${label}`, add(numa, label), vmstat.get((NAMES as Record<string, string>)[label] ?? label));
  for (const [i, node] of nodes.entries())
    same(`node ${node}: pages, hits + misses`, numa[i]!.get("local_node")! + numa[i]!.get("other_node")!, numa[i]!.get("numa_hit")! + numa[i]!.get("numa_miss")!); // prettier-ignore
}

/** "0-2,5" as [0, 1, 2, 5]. */
function parse_list(text: string): number[] {
  const parts = text.trim().split(",").filter((part) => part !== ""); // prettier-ignore
  return parts.flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number) as [number, number?];
    return Array.from({ length: last! - first + 1 }, (_, i) => first + i);
  });
}

function check_cpus(read: Read, same: Same, nodes: readonly string[]): void {
  const online = parse_list(read("sys/devices/system/cpu/online"));
  const by_node = nodes.map((node) => parse_list(read(`${NODES}/node${node}/cpulist`)));
  same("CPUs of the nodes, online", by_node.flat().sort((a, b) => a - b), online); // prettier-ignore
  same("CPUs of cpuinfo, online", [...read("proc/cpuinfo").matchAll(/^processor\t: (\d+)$/gm)].map(([, cpu]) => Number(cpu)), online); // prettier-ignore
  for (const [i, node] of nodes.entries()) {
    const mask = Number.parseInt(read(`${NODES}/node${node}/cpumap`), 16);
    same(`node ${node}: cpumap, cpulist`, mask, sum(by_node[i]!.map((cpu) => 2 ** cpu)));
    for (const cpu of by_node[i]!)
      same(`cpu ${cpu}: package, node`, parse_list(read(`sys/devices/system/cpu/cpu${cpu}/topology/package_cpus_list`)), by_node[i]); // prettier-ignore
  }
  const [all, ...each] = [...read("proc/stat").matchAll(/^cpu\S* +(.*)$/gm)].map(([, row]) => row!.split(" ").map(Number)); // prettier-ignore
  // The sum is taken of ticks, each line of hundredths of a second: one may be lost a CPU.
  for (const [i, ticks] of all!.entries()) {
    const parts = sum(each.map((row) => row[i]!));
    if (ticks < parts || ticks > parts + each.length) same(`stat: cpu, sum of the CPUs, column ${i}`, ticks, parts);
  }
}

function check_slabs(files: ReadonlyMap<string, ExportFile>, read: Read, same: Same, nodes: readonly string[]): void {
  const rows = read("proc/slabinfo").trimEnd().split("\n").slice(2).map((line) => line.split(/[ :]+/)); // prettier-ignore
  const directories = new Set([...files.keys()].map((path) => /^sys\/kernel\/slab\/([^/]+)\/slabs$/.exec(path)?.[1]));
  directories.delete(undefined);
  const reached = new Set<string>();
  const pages = new Map(["all", ...nodes].map((node) => [node, { slab: 0, reclaimable: 0 }]));
  let fallbacks = 0;
  for (const [name, ...words] of rows as [string, ...string[]][]) {
    const numbers = words.filter((word) => /^\d+$/.test(word)).map(Number);
    const [active, num, objsize, per_slab, pages_per_slab, , , , active_slabs, num_slabs] = numbers as [number, number, number, number, number, number, number, number, number, number]; // prettier-ignore
    const link = files.get(`${SLABS}/${name}`);
    const directory = link?.is_link ? link.text : name;
    reached.add(directory);
    const attribute = (file: string): string => read(`${SLABS}/${directory}/${file}`).trimEnd();
    const number = (file: string): number => node_list(attribute(file))[0];
    same(`${name}: slabinfo, sysfs`, [active, num, objsize, per_slab, pages_per_slab, num_slabs], [
      number("objects"), number("total_objects"), number("slab_size"), number("objs_per_slab"), 2 ** number("order"), number("slabs"),
    ]); // prettier-ignore
    same(`${name}: all slabs are active`, active_slabs, num_slabs);
    for (const file of ["objects", "total_objects", "slabs", "partial", "objects_partial", "cpu_slabs"]) {
      const [total, by_node] = node_list(attribute(file));
      same(`${name}/${file}: the nodes add up`, sum(by_node.values()), total);
    }
    // A145
    same(`${name}: active <= num`, active <= num, true);
    same(`${name}: objects fit their slab`, per_slab * objsize <= pages_per_slab * 4096, true);
    if (number("order_fallback") > 0) fallbacks++;
    else {
      same(`${name}: num = slabs x per slab`, num, num_slabs * per_slab);
      same(`${name}: objects`, active, num - (number("partial") * per_slab - number("objects_partial")));
    }
    for (const [node, slabs] of [
      ["all", num_slabs] as const,
      ...[...node_list(attribute("slabs"))[1]].map(([n, count]) => [String(n), count] as const),
    ]) {
      // prettier-ignore
      const at = pages.get(node)!;
      at.slab += slabs * pages_per_slab;
      if (number("reclaim_account") === 1) at.reclaimable += slabs * pages_per_slab;
    }
  }
  same("names of slabinfo are different", new Set(rows.map(([name]) => name)).size, rows.length);
  same("caches of sysfs, of slabinfo", [...directories].sort(), [...reached].sort());
  for (const [path, { text, is_link }] of files)
    if (is_link) same(`${path} leads to a cache`, directories.has(text), true);
  if (fallbacks > 0) return;
  for (const [node, { slab, reclaimable }] of pages) {
    const meminfo = pairs(read(node === "all" ? "proc/meminfo" : `${NODES}/node${node}/meminfo`));
    same(`pages of reclaimable caches, SReclaimable (node ${node})`, reclaimable * 4, meminfo.get("SReclaimable"));
    // Large kmalloc blocks count as slab memory too.
    same(`pages of caches <= Slab (node ${node})`, slab * 4 <= meminfo.get("Slab")!, true);
  }
}
