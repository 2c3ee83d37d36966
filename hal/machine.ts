/**
 * Machines: what is plugged in, before power-on.
 *
 *     memory    what the firmware says of each range of physical addresses (e820); what no entry names is a hole
 *     nodes     which ranges and which CPUs belong together; distances between nodes, 10 = local
 *     zones     below which address DMA and DMA32 memory ends; a part of the spec, so that a small machine has them all
 *     timing    caches, TLBs and latencies, for the timing model to charge (hal/machine_timing.ts)
 *     append    kernel parameters that come with the machine, before the user's own
 *
 * A spec is plain data, made from a preset, from options (`machine_from_options`) or from JSON (`read_machine`, in
 * hal/machine_file.ts), and never changed afterwards. `check_machine` says in one line why a machine could not run.
 */
import { PAGE_SIZE, align_down, align_up, hex } from "./addr.ts";
import { IMAGE_BASE, image_end } from "./image.ts";
import { ATOM, SKYLAKE_CLIENT, SKYLAKE_SERVER, check_timing, type TimingSpec } from "./machine_timing.ts";
import { ram_limit } from "./ram.ts";

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const MAX_NODES = 16;
export const MAX_CPUS = 64;
/** Entries that fit the memory map of a PC's boot parameters. */
export const MAX_MEMORY_ENTRIES = 128;
/** A page block, the unit that carries one migrate type: nodes made from options start at multiples of it. */
const PAGE_BLOCK = 2 * MIB;
/** The largest block of the buddy allocator: zones end at multiples of it, so that no block lies in two. */
const MAX_BLOCK = 4 * MIB;
/** Least RAM that boots one CPU on one node: the first MiB, the image, page structs, and a system to look at. */
const MIN_RAM_BYTES = 8 * MIB;
/** Least RAM a node: its control block and page structs, and two blocks of the buddy allocator. */
const MIN_NODE_BYTES = 4 * MIB;
/** 640 KiB less 1 KiB (the extended BIOS data area), where a PC's low memory ends. */
const LOW_RAM_END = 0x9fc00;
/** The firmware's own: tables are found here (hal/firmware.ts). */
export const BIOS_START = 0xe0000;
export const BIOS_END = 0x100000;

export const E820_TYPE_RAM = 1;
export const E820_TYPE_RESERVED = 2;

export interface Range {
  readonly start: number;
  readonly size: number;
}
export interface MemoryEntry extends Range {
  /** An e820 type: 1 usable, 2 reserved, 3 ACPI data, 4 ACPI NVS, 5 unusable, … */
  readonly type: number;
}
export interface NodeSpec {
  readonly ranges: readonly Range[];
  readonly cpus: readonly number[];
}
export interface MachineSpec {
  readonly name: string;
  readonly memory: readonly MemoryEntry[];
  /** By node number. A node may lack CPUs, or memory, not both. */
  readonly nodes: readonly NodeSpec[];
  /** CPUs are numbered 0 .. cpus - 1. */
  readonly cpus: number;
  /** distance[from][to], one byte each. */
  readonly distance: readonly (readonly number[])[];
  /** DMA memory lies below this address, DMA32 memory between it and the next, the rest is Normal. */
  readonly dma_limit: number;
  readonly dma32_limit: number;
  readonly timing: TimingSpec;
  readonly append: string;
}

/** A PC's map: low memory, the BIOS area, and RAM from 1 MiB up to `end` but for `holes`. */
function pc_memory(end: number, holes: readonly Range[] = []): MemoryEntry[] {
  const entries = [
    { start: 0, size: LOW_RAM_END, type: E820_TYPE_RAM },
    { start: LOW_RAM_END, size: BIOS_END - LOW_RAM_END, type: E820_TYPE_RESERVED },
  ];
  let start = BIOS_END;
  for (const hole of holes) {
    entries.push({ start, size: hole.start - start, type: E820_TYPE_RAM });
    start = hole.start + hole.size;
  }
  return [...entries, { start, size: end - start, type: E820_TYPE_RAM }];
}

/** Deals CPUs to nodes in runs: 4 CPUs on 2 nodes are 0,1 and 2,3. */
function cpus_of_node(node: number, nodes: number, cpus: number): number[] {
  const all = Array.from({ length: cpus }, (_, cpu) => cpu);
  return all.filter((cpu) => Math.floor((cpu * nodes) / cpus) === node);
}

/** Nodes of equal size, one after another from address 0; the last takes what is left. */
function even_nodes(bytes: number, nodes: number, cpus: number): NodeSpec[] {
  const share = align_down(bytes / nodes, PAGE_BLOCK);
  return Array.from({ length: nodes }, (_, node) => {
    const start = node * share;
    const size = node === nodes - 1 ? bytes - start : share;
    return { ranges: [{ start, size }], cpus: cpus_of_node(node, nodes, cpus) };
  });
}

/** 10 to itself, 20 to every other: what holds where a machine has no distance table. */
export function default_distance(nodes: number): number[][] {
  return Array.from({ length: nodes }, (_, i) => Array.from({ length: nodes }, (_2, j) => (i === j ? 10 : 20)));
}

const BIG_APPEND = "slab_freelist_random=on slab_freelist_hardened=on slab_full=off";
const HOLE: Range = Object.freeze({ start: 512 * MIB, size: 64 * MIB });

/** 2 nodes of 128 MiB, two CPUs each; all three zones on node 0. The default. */
const textbook: MachineSpec = Object.freeze({
  name: "textbook",
  memory: pc_memory(256 * MIB),
  nodes: even_nodes(256 * MIB, 2, 4),
  cpus: 4,
  distance: default_distance(2),
  dma_limit: 16 * MIB,
  dma32_limit: 64 * MIB,
  timing: SKYLAKE_CLIENT,
  append: "slab_freelist_random=off slab_freelist_hardened=off slab_full=on",
});

/** One node, four CPUs, an allocator set up as distributions do. */
const laptop: MachineSpec = Object.freeze({
  ...textbook,
  name: "laptop",
  memory: pc_memory(512 * MIB),
  nodes: even_nodes(512 * MIB, 1, 4),
  distance: default_distance(1),
  dma32_limit: 256 * MIB,
  append: BIG_APPEND,
});

/** Two sockets of two nodes each, 256 MiB and two CPUs a node; a hole between the sockets' memory. */
const server: MachineSpec = Object.freeze({
  ...textbook,
  name: "server",
  memory: pc_memory(GIB + HOLE.size, [HOLE]),
  nodes: [0, 256 * MIB, HOLE.start + HOLE.size, 832 * MIB].map((start, node) => ({
    ranges: [{ start, size: 256 * MIB }],
    cpus: cpus_of_node(node, 4, 8),
  })),
  cpus: 8,
  distance: [[10, 12, 32, 32], [12, 10, 32, 32], [32, 32, 10, 12], [32, 32, 12, 10]], // prettier-ignore
  dma32_limit: 128 * MIB,
  timing: SKYLAKE_SERVER,
  append: BIG_APPEND,
});

/** 16 MiB, one CPU, no DMA32 memory. */
const embedded: MachineSpec = Object.freeze({
  ...textbook,
  name: "embedded",
  memory: pc_memory(16 * MIB),
  nodes: even_nodes(16 * MIB, 1, 1),
  cpus: 1,
  distance: default_distance(1),
  dma_limit: 4 * MIB,
  dma32_limit: 4 * MIB,
  timing: ATOM,
});

export const PRESETS: Readonly<Record<string, MachineSpec>> = Object.freeze({ textbook, laptop, server, embedded });

/** One past the last byte of usable RAM: what power-on has to clear. */
export function machine_end(spec: MachineSpec): number {
  return Math.max(0, ...usable(spec).map((entry) => entry.start + entry.size));
}

/** Bytes of usable RAM. */
export function machine_ram_bytes(spec: MachineSpec): number {
  return usable(spec).reduce((sum, entry) => sum + entry.size, 0);
}

/** RAM as people name it: in whole MiB, what the BIOS area takes counted in. */
export function machine_mib(spec: MachineSpec): number {
  return Math.round(machine_ram_bytes(spec) / MIB);
}

function usable(spec: MachineSpec): MemoryEntry[] {
  return spec.memory.filter((entry) => entry.type === E820_TYPE_RAM);
}

/** Reads `64M`, `1G`, `512K`, `4096`, `0x1000000`; NaN where the text is no size. */
export function parse_size(text: string): number {
  const match = /^(0x[0-9a-f]+|\d+)([kmg]?)$/i.exec(text.trim());
  return match ? Number(match[1]) * { "": 1, k: KIB, m: MIB, g: GIB }[match[2]!.toLowerCase()]! : NaN;
}

/** A size for people: `256M`, `1G`, `640K`, or bytes. */
export function format_size(bytes: number): string {
  if (bytes >= GIB && bytes % GIB === 0) return `${bytes / GIB}G`;
  if (bytes >= MIB && bytes % MIB === 0) return `${bytes / MIB}M`;
  if (bytes >= KIB && bytes % KIB === 0) return `${bytes / KIB}K`;
  return String(bytes);
}

export interface MachineOptions {
  /** Name of the preset to start from; `textbook` if absent. */
  readonly preset?: string | undefined;
  readonly mem?: string | undefined;
  readonly nodes?: string | number | undefined;
  readonly cpus?: string | number | undefined;
  readonly distance?: string | undefined;
}

/**
 * The machine that the command line asks for: a preset, with RAM, nodes or CPUs of the user's choice.
 *
 * RAM is shared evenly, nodes start at page-block borders. On small nodes DMA and DMA32 shrink with node 0, to an
 * eighth and a half of it, so that it keeps all three zones. Returns the error as one line where an option is wrong.
 */
export function machine_from_options(options: MachineOptions = {}): MachineSpec | string {
  const name = options.preset ?? "textbook";
  const preset = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (!preset) return `no machine "${name}"; there are: ${Object.keys(PRESETS).join(", ")}`;
  const spec = resize(preset, options);
  if (typeof spec === "string") return spec;
  const distance = options.distance === undefined ? spec.distance : parse_distance(options.distance, spec.nodes.length);
  if (typeof distance === "string") return distance;
  const machine = { ...spec, distance };
  return check_machine(machine) ?? machine;
}

function resize(preset: MachineSpec, options: MachineOptions): MachineSpec | string {
  const { mem, nodes: nodes_text, cpus: cpus_text } = options;
  if (mem === undefined && nodes_text === undefined && cpus_text === undefined) return preset;
  const nodes = parse_count("--nodes", nodes_text, preset.nodes.length, MAX_NODES);
  if (typeof nodes === "string") return nodes;
  const cpus = parse_count("--cpus", cpus_text, preset.cpus, MAX_CPUS);
  if (typeof cpus === "string") return cpus;
  const bytes = mem === undefined ? align_up(machine_ram_bytes(preset), MIB) : parse_mem(mem, nodes, cpus);
  return typeof bytes === "string" ? bytes : even_machine(preset, bytes, nodes, cpus);
}

function even_machine(preset: MachineSpec, bytes: number, nr_nodes: number, cpus: number): MachineSpec {
  const nodes = even_nodes(bytes, nr_nodes, cpus);
  const node_bytes = nodes[0]!.ranges[0]!.size;
  const dma_limit = align_down(Math.min(preset.dma_limit, Math.max(node_bytes / 8, MAX_BLOCK)), MAX_BLOCK);
  const dma32_limit = align_down(Math.min(preset.dma32_limit, Math.max(node_bytes / 2, dma_limit)), MAX_BLOCK);
  const distance = nr_nodes === preset.nodes.length ? preset.distance : default_distance(nr_nodes);
  return { ...preset, memory: pc_memory(bytes), nodes, cpus, distance, dma_limit, dma32_limit };
}

function parse_count(
  option: string,
  given: string | number | undefined,
  fallback: number,
  max: number,
): number | string {
  if (given === undefined) return fallback;
  const value = /^\d+$/.test(String(given).trim()) ? Number(given) : NaN;
  if (value >= 1 && value <= max) return value;
  return `${option} ${given}: give a whole number from 1 to ${max}`;
}

/** Least RAM that boots so many nodes and CPUs, in whole MiB. */
function least_ram(nodes: number, cpus: number): number {
  return Math.max(align_up(MIN_RAM_BYTES + image_end(cpus) - image_end(1), MIB), nodes * MIN_NODE_BYTES);
}

function parse_mem(text: string, nodes: number, cpus: number): number | string {
  const bytes = parse_size(text);
  const least = least_ram(nodes, cpus);
  if (Number.isNaN(bytes)) return `--mem ${text}: not a size; give a number with K, M or G behind it, as 64M or 1G`;
  if (bytes > ram_limit) return `--mem ${text}: more than the ${format_size(ram_limit)} that a machine can have`;
  if (bytes < least)
    return `--mem ${text}: too little to boot ${plural(nodes, "node")} and ${plural(cpus, "CPU")}; give ${format_size(least)} or more`;
  if (bytes % PAGE_SIZE !== 0)
    return `--mem ${text}: not a multiple of 4096, the size of a page; try ${format_size(align_up(bytes, MIB))}`;
  return bytes;
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Reads `10,21/21,10`. */
function parse_distance(text: string, nodes: number): number[][] | string {
  const rows = text
    .split("/")
    .map((row) => row.split(",").map((cell) => (/^\s*\d+\s*$/.test(cell) ? Number(cell) : NaN)));
  return distance_error(rows, nodes, `--distance ${text}`) ?? rows;
}

/** Why a distance table is none for `nodes` nodes; undefined if it is one. */
function distance_error(rows: readonly (readonly number[])[], nodes: number, what: string): string | undefined {
  const hint = `as in ${default_distance(Math.min(nodes, 3))
    .map((row) => row.join(","))
    .join("/")}`;
  if (rows.length !== nodes || rows.some((row) => row.length !== nodes))
    return `${what}: ${plural(nodes, "node")} need ${plural(nodes, "row")} of ${plural(nodes, "number")}, ${hint}`;
  for (const [i, row] of rows.entries())
    for (const [j, value] of row.entries()) {
      if (i === j && value !== 10) return `${what}: from node ${i} to itself must be 10, not ${value}`;
      if (i !== j && !(Number.isInteger(value) && value > 10 && value < 256))
        return `${what}: from node ${i} to node ${j} must be a whole number from 11 to 255, not ${value}`;
    }
  return undefined;
}

/** What keeps `spec` from running, in one line that says what is given, what is allowed and what to try. */
export function check_machine(spec: MachineSpec): string | undefined {
  return (
    check_memory(spec) ??
    check_counts(spec) ??
    check_nodes(spec) ??
    check_cpus(spec) ??
    distance_error(spec.distance, spec.nodes.length, "distance table") ??
    check_zones(spec) ??
    check_room(spec) ??
    check_timing(spec.timing)
  );
}

function show(range: Range): string {
  return `0x${hex(range.start)}-0x${hex(range.start + range.size - 1)}`;
}

function overlap(a: Range, b: Range): number {
  return Math.max(0, Math.min(a.start + a.size, b.start + b.size) - Math.max(a.start, b.start));
}

function check_range(range: Range, what: string): string | undefined {
  const { start, size } = range;
  if (!Number.isSafeInteger(start) || start < 0) return `${what}: start ${start} is no address`;
  if (!Number.isSafeInteger(size) || size <= 0) return `${what}: size ${size} at 0x${hex(start)} is no size`;
  return undefined;
}

/** The first two ranges of a list that share an address. */
function find_overlap<T extends Range>(ranges: readonly T[]): [T, T] | undefined {
  const sorted = [...ranges].sort((a, b) => a.start - b.start);
  const at = sorted.findIndex((range, i) => i > 0 && overlap(sorted[i - 1]!, range) > 0);
  return at < 0 ? undefined : [sorted[at - 1]!, sorted[at]!];
}

function check_memory(spec: MachineSpec): string | undefined {
  if (spec.memory.length > MAX_MEMORY_ENTRIES)
    return `memory map: ${spec.memory.length} entries; ${MAX_MEMORY_ENTRIES} are allowed`;
  for (const entry of spec.memory) {
    const error = check_range(entry, "memory map");
    if (error) return error;
    if (!Number.isInteger(entry.type) || entry.type < 1 || entry.type > 0xffffffff)
      return `memory map: type ${entry.type} at ${show(entry)} is no e820 type; 1 is usable, 2 reserved`;
  }
  const twice = find_overlap(spec.memory);
  if (twice) return `memory map: ${show(twice[0])} and ${show(twice[1])} overlap`;
  if (usable(spec).length === 0) return "memory map: no usable RAM; give at least one entry of type usable";
  const end = machine_end(spec);
  if (end > ram_limit)
    return `memory map: RAM ends at 0x${hex(end)}; it has to end by 0x${hex(ram_limit)} (${format_size(ram_limit)})`;
  return undefined;
}

function check_counts(spec: MachineSpec): string | undefined {
  const nodes = spec.nodes.length;
  if (nodes < 1 || nodes > MAX_NODES) return `${nodes} nodes; 1 to ${MAX_NODES} are allowed`;
  if (!Number.isInteger(spec.cpus) || spec.cpus < 1 || spec.cpus > MAX_CPUS)
    return `${spec.cpus} CPUs; 1 to ${MAX_CPUS} are allowed`;
  return undefined;
}

function check_nodes(spec: MachineSpec): string | undefined {
  const owned = spec.nodes.flatMap((node, nid) => node.ranges.map((range) => ({ ...range, nid })));
  for (const range of owned) {
    const error = check_range(range, `node ${range.nid}`);
    if (error) return error;
  }
  const twice = find_overlap(owned);
  if (twice)
    return `nodes overlap: ${show(twice[0])} of node ${twice[0].nid} and ${show(twice[1])} of node ${twice[1].nid}`;
  for (const entry of usable(spec)) {
    const covered = owned.reduce((sum, range) => sum + overlap(entry, range), 0);
    if (covered < entry.size) return `usable RAM ${show(entry)} is not all on a node; extend a node's range over it`;
  }
  const idle = spec.nodes.findIndex((node) => node.ranges.length === 0 && node.cpus.length === 0);
  return idle < 0 ? undefined : `node ${idle} has neither memory nor CPUs; leave it out`;
}

function check_cpus(spec: MachineSpec): string | undefined {
  const home = new Map<number, number>();
  for (const [nid, node] of spec.nodes.entries())
    for (const cpu of node.cpus) {
      if (!Number.isInteger(cpu) || cpu < 0 || cpu >= spec.cpus)
        return `node ${nid}: there is no CPU ${cpu}; this machine has CPUs 0 to ${spec.cpus - 1}`;
      if (home.has(cpu)) return `CPU ${cpu} is on node ${home.get(cpu)} and on node ${nid}; put it on one`;
      home.set(cpu, nid);
    }
  for (let cpu = 0; cpu < spec.cpus; cpu++)
    if (!home.has(cpu)) return `CPU ${cpu} is on no node; add it to the cpus of one`;
  return undefined;
}

function check_zones(spec: MachineSpec): string | undefined {
  for (const name of ["dma_limit", "dma32_limit"] as const)
    if (!Number.isSafeInteger(spec[name]) || spec[name] < 0 || spec[name] % MAX_BLOCK !== 0)
      return `${name} ${spec[name]}: give a multiple of 4M`;
  if (spec.dma_limit > spec.dma32_limit)
    return `dma_limit ${format_size(spec.dma_limit)} is above dma32_limit ${format_size(spec.dma32_limit)}`;
  return undefined;
}

/** The image and the firmware's tables have fixed places, and something must be left to run on. */
function check_room(spec: MachineSpec): string | undefined {
  const bios = { start: BIOS_START, size: BIOS_END - BIOS_START };
  if (usable(spec).some((entry) => overlap(entry, bios) > 0))
    return `memory map: ${show(bios)} is the firmware's; mark it reserved`;
  const image = { start: IMAGE_BASE, size: image_end(spec.cpus) - IMAGE_BASE };
  if (!usable(spec).some((entry) => overlap(entry, image) === image.size))
    return `memory map: the kernel is loaded at ${show(image)}, which is not all usable RAM`;
  const least = least_ram(1, spec.cpus);
  if (machine_ram_bytes(spec) + BIOS_END - LOW_RAM_END < least)
    return `too little RAM to boot: ${format_size(machine_ram_bytes(spec))}; give ${format_size(least)} or more`;
  return undefined;
}
