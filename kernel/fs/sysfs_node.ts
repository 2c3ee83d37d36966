/** /sys/devices/system/{node,cpu}: which nodes and CPUs there are, what each node holds; its weight in interleaving. */
import type { NodeId } from "../../hal/addr.ts";
import { cpu_is_online, cpu_to_node, nr_cpu_ids } from "../../hal/cpu.ts";
import { MAX_NR_ZONES, ZONE_NORMAL } from "../../mm/gfp.ts";
import { node_weight, set_node_weight } from "../../mm/mempolicy.ts";
import { node_page_state, sum_zone_node_page_state, sum_zone_numa_event_state } from "../../mm/vmstat.ts";
import { NODE_DATA, NR_FREE_PAGES, NR_MLOCK, PgData, Zone, for_each_online_node, node_distance, node_state, type ZonePtr } from "../../mm/zone.ts"; // prettier-ignore
import { format_list } from "../lib/bitops.ts";
import { EINVAL, ENOENT } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { S_IFDIR } from "./fs.ts";
import { file_mode, kernfs_new_node } from "./kernfs.ts";
import { K, meminfo_counters, node_vmstat } from "./proc_mm.ts";
import { format_mask, kstrtou, lpad, rpad } from "./seq_file.ts";
import { sysfs_create } from "./sysfs.ts";

const nodes = (): NodeId[] => [...for_each_online_node()];
const possible_cpus = (): number[] => Array.from({ length: nr_cpu_ids() }, (_, cpu) => cpu);
const cpus_of = (node: NodeId): number[] => possible_cpus().filter((cpu) => cpu_to_node(cpu) === node);
const zones_of = (node: NodeId): ZonePtr[] =>
  Array.from({ length: MAX_NR_ZONES }, (_, i) => PgData.node_zones.at(NODE_DATA(node), i));
const managed = (node: NodeId): number => zones_of(node).reduce((sum, zone) => sum + Zone.managed_pages.get(zone), 0);
const line = (text: string | number): string => `${text}\n`;

const NODE_MEMINFO_LABELS =
  "MemTotal MemFree MemUsed SwapCached Active Inactive Active(anon) Inactive(anon) Active(file) Inactive(file) " +
  "Unevictable Mlocked Dirty Writeback FilePages Mapped AnonPages Shmem KernelStack PageTables SecPageTables " +
  "NFS_Unstable Bounce WritebackTmp KReclaimable Slab SReclaimable SUnreclaim AnonHugePages ShmemHugePages " +
  "ShmemPmdMapped FileHugePages FilePmdMapped HugePages_Total HugePages_Free HugePages_Surp";

function node_meminfo(node: NodeId): string {
  const total = managed(node);
  const free = sum_zone_node_page_state(node, NR_FREE_PAGES);
  const values: Record<string, number> = {
    ...meminfo_counters((item) => node_page_state(NODE_DATA(node), item)),
    MemTotal: K(total),
    MemFree: K(free),
    MemUsed: K(total - free),
    Mlocked: K(sum_zone_node_page_state(node, NR_MLOCK)),
  };
  const one = (label: string): string =>
    label.startsWith("HugePages_")
      ? `Node ${node} ${rpad(`${label}:`, 16)} ${lpad(0, 5)}\n`
      : `Node ${node} ${rpad(`${label}:`, 15)} ${lpad(values[label] ?? 0, 8)} kB\n`;
  return NODE_MEMINFO_LABELS.split(" ").map(one).join("");
}

const NUMASTAT = Object.freeze(["numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node"]);

function numastat(node: NodeId): string {
  return NUMASTAT.map((name, item) => line(`${name} ${sum_zone_numa_event_state(node, item)}`)).join("");
}

/** Position of a CPU among those of its node. */
const core_id = (cpu: number): number => cpus_of(cpu_to_node(cpu)).indexOf(cpu);
const online_list = (): string => line(format_list(possible_cpus().filter((cpu) => cpu_is_online(cpu))));
const with_memory = (): string => line(format_list(nodes().filter((node) => managed(node) > 0)));
const has_normal = (node: NodeId): boolean => zones_of(node).slice(0, ZONE_NORMAL + 1).some((zone) => Zone.present_pages.get(zone) > 0); // prettier-ignore

type Table = Readonly<Record<string, (instance: number) => string>>;
const NODE_TOP: Table = Object.freeze({
  online: () => line(format_list(nodes())),
  possible: () => line(format_list(Array.from({ length: node_state.nr_node_ids }, (_, node) => node))),
  has_cpu: () => line(format_list(nodes().filter((node) => cpus_of(node).length > 0))),
  has_memory: with_memory,
  has_generic_initiator: () => line(""),
  has_normal_memory: () => line(format_list(nodes().filter(has_normal))),
});
const NODE: Table = Object.freeze({
  cpulist: (node) => line(format_list(cpus_of(node))),
  cpumap: (node) => line(format_mask(cpus_of(node), nr_cpu_ids())),
  distance: (node) => line(nodes().map((to) => node_distance(node, to)).join(" ")), // prettier-ignore
  meminfo: node_meminfo,
  numastat,
  vmstat: node_vmstat,
});
const CPU_TOP: Table = Object.freeze({
  online: online_list,
  possible: () => line(format_list(possible_cpus())),
  present: () => line(format_list(possible_cpus())),
  offline: () => line(format_list(possible_cpus().filter((cpu) => !cpu_is_online(cpu)))),
  isolated: () => line(""),
  kernel_max: () => line(nr_cpu_ids() - 1),
});
const CPU: Table = Object.freeze({ online: (cpu) => line(Number(cpu_is_online(cpu))) });
/** A set of CPUs as Linux shows it: NAME as a mask, NAME_list as a list. */
const cpu_set = (name: string, list_name: string, members: (cpu: number) => number[]): Table => ({
  [name]: (cpu) => line(format_mask(members(cpu), nr_cpu_ids())),
  [list_name]: (cpu) => line(format_list(members(cpu))),
});
/** A node is one package of one die; each of its CPUs is a core with one thread and shares no cache. */
const package_of = (cpu: number): number[] => cpus_of(cpu_to_node(cpu));
const alone = (cpu: number): number[] => [cpu];
const TOPOLOGY: Table = Object.freeze({
  physical_package_id: (cpu) => line(cpu_to_node(cpu)),
  die_id: () => line(0),
  cluster_id: (cpu) => line(cpu),
  core_id: (cpu) => line(core_id(cpu)),
  ...cpu_set("thread_siblings", "thread_siblings_list", alone),
  ...cpu_set("core_cpus", "core_cpus_list", alone),
  ...cpu_set("core_siblings", "core_siblings_list", package_of),
  ...cpu_set("cluster_cpus", "cluster_cpus_list", alone),
  ...cpu_set("die_cpus", "die_cpus_list", package_of),
  ...cpu_set("package_cpus", "package_cpus_list", package_of),
});

/** The producers of a table, named. */
const named = (prefix: string, table: Table): readonly (readonly [string, number])[] =>
  Object.entries(table).map(([name, show]) => [name, ksym(`sysfs_${prefix}_${name}`, show)]);
const symbols = {
  node_top: named("nodes", NODE_TOP),
  node: named("node", NODE),
  cpu_top: named("cpus", CPU_TOP),
  cpu: named("cpu", CPU),
  topology: named("topology", TOPOLOGY),
} as const;

/** Names `PREFIX0`, `PREFIX1`, … and the number in such a name. */
function numbered(prefix: string, members: () => readonly number[]) {
  const names = ksym(`sysfs_${prefix}_names`, () => members().map((n) => `${prefix}${n}`));
  const find = ksym(`sysfs_${prefix}_find`, (_parent: number, name: string) => {
    const found = members().find((n) => `${prefix}${n}` === name);
    return found ?? -ENOENT;
  });
  return { mode: S_IFDIR | 0o755, names, find };
}
const all_nodes = numbered("node", nodes);
const all_cpus = numbered("cpu", possible_cpus);

/** kernel/mm/mempolicy/weighted_interleave/nodeN: as one writes `node_weight`. */
const weight = Object.freeze({
  ...all_nodes,
  mode: file_mode(0o644),
  show: ksym("sysfs_node_weight_show", (node: number) => line(node_weight(node))),
  store: ksym("sysfs_node_weight_store", (node: number, text: string) => {
    const value = kstrtou(text);
    if (value < 1 || value > 255) return -EINVAL;
    set_node_weight(node, value);
    return 0;
  }),
});

/** Boot: makes the directories. */
export function sysfs_node_init(): void {
  sysfs_create("kernel/mm/mempolicy/weighted_interleave/NODE", weight);
  for (const [name, show] of symbols.node_top)
    sysfs_create(`devices/system/node/${name}`, { mode: file_mode(0o444), show });
  for (const [name, show] of symbols.cpu_top)
    sysfs_create(`devices/system/cpu/${name}`, { mode: file_mode(0o444), show });
  const node = sysfs_create("devices/system/node/NODE", all_nodes);
  const cpu = sysfs_create("devices/system/cpu/CPU", all_cpus);
  if (node <= 0 || cpu <= 0) return;
  for (const [name, show] of symbols.node) kernfs_new_node(node, name, { mode: file_mode(0o444), show });
  for (const [name, show] of symbols.cpu) kernfs_new_node(cpu, name, { mode: file_mode(0o444), show });
  const topology = kernfs_new_node(cpu, "topology", { mode: S_IFDIR | 0o755 });
  if (topology <= 0) return;
  for (const [name, show] of symbols.topology) kernfs_new_node(topology, name, { mode: file_mode(0o444), show });
}
