/**
 * Nodes: which memory and which CPUs belong together, from the firmware's SRAT and SLIT.
 *
 *     SRAT memory entries -> blocks -> joined where no other node lies between -> node ids in memblock
 *     SRAT CPU entries    -> cpu_state.node                   SLIT -> node_state.distance
 *     each node           -> its control block (pglist_data), on the node itself if it has room
 *
 * A table that cannot be right (nodes overlap, RAM on no node) is dropped as a whole, and the machine runs as one node.
 * Proximity domains of the firmware get node numbers in order of first appearance.
 *
 * Locks: none; boot only.
 */
import { L1_CACHE_BYTES, NULL, PAGE_SIZE, align_up, hex, type NodeId, type Phys, type Ptr } from "../hal/addr.ts";
import { cpu_state, cpu_switch, cpu_to_node, nr_cpu_ids, smp_processor_id } from "../hal/cpu.ts";
import { per_cpu_ptr } from "../hal/image.ts";
import { ram_zero } from "../hal/ram.ts";
import { panic } from "../kernel/lib/bug.ts";
import { cmdline_param } from "../kernel/lib/cmdline.ts";
import { pr_info, pr_warn } from "../kernel/lib/printk.ts";
import { acpi_get_table, acpi_subtables, read_le } from "./acpi.ts";
import { e820_end_of_ram_pfn } from "./e820.ts";
import { NUMA_NO_NODE } from "./gfp.ts";
import {
  MemblockType,
  for_each_mem_region,
  memblock_memory,
  memblock_phys_alloc_try_nid,
  memblock_reserved,
  memblock_set_node,
} from "./memblock.ts";
import { MAX_NUMNODES, PgData, node_state } from "./zone.ts";

const LOCAL_DISTANCE = 10;
const REMOTE_DISTANCE = 20;
const MIB = 1024 * 1024;
const SRAT_CPU = 0;
const SRAT_MEMORY = 1;
const ENABLED = 1;
const HOTPLUGGABLE = 2;
const NON_VOLATILE = 4;

/** Memory of a node, [start, end). */
interface MemBlock {
  readonly start: Phys;
  readonly end: Phys;
  readonly nid: NodeId;
}
/** What SRAT says; host memory, gone when boot has stored it. */
interface Topology {
  /** Proximity domain by node number. */
  domains: number[];
  blocks: MemBlock[];
  /** By CPU number. */
  cpu_nodes: (NodeId | undefined)[];
}

function mem_range({ start, end }: { start: Phys; end: Phys }, width = 8): string {
  return `[mem 0x${hex(start, width)}-0x${hex(end - 1, width)}]`;
}

/** Finds the nodes and stores them. */
export function initmem_init(): void {
  const topology = read_topology() ?? one_node();
  for (const { start, end, nid } of topology.blocks) memblock_set_node(start, end - start, memblock_memory, nid);
  set_reserved_nodes(topology.blocks);
  alloc_nodes(topology);
  set_cpu_nodes(topology.cpu_nodes);
}

function read_topology(): Topology | undefined {
  if (cmdline_param("numa") === "off") {
    pr_info("NUMA turned off");
    return undefined;
  }
  const topology = parse_srat(acpi_get_table("SRAT"));
  if (accept_blocks(topology)) {
    set_distances(acpi_get_table("SLIT"), topology.domains);
    return topology;
  }
  pr_info("No NUMA configuration found");
  return undefined;
}

function one_node(): Topology {
  const block = { start: 0, end: e820_end_of_ram_pfn() * PAGE_SIZE, nid: 0 };
  pr_info(`Faking a node at ${mem_range(block, 16)}`);
  set_distances(NULL, []);
  return { domains: [0], blocks: [block], cpu_nodes: [] };
}

/** Reads SRAT; a topology without blocks if there is none. */
function parse_srat(srat: Ptr): Topology {
  const topology: Topology = { domains: [], blocks: [], cpu_nodes: [] };
  for (const { type, ptr } of acpi_subtables(srat, 12)) {
    if (type === SRAT_CPU) parse_cpu(topology, ptr);
    if (type === SRAT_MEMORY) parse_memory(topology, ptr);
  }
  return topology;
}

function pxm_to_node({ domains }: Topology, pxm: number): NodeId {
  if (!domains.includes(pxm)) domains.push(pxm);
  return domains.indexOf(pxm);
}

function parse_cpu(topology: Topology, entry: Ptr): void {
  if (!(read_le(entry + 4, 4) & ENABLED)) return;
  const pxm = read_le(entry + 2, 1) + read_le(entry + 9, 3) * 256;
  topology.cpu_nodes[read_le(entry + 3, 1)] = pxm_to_node(topology, pxm);
}

function parse_memory(topology: Topology, entry: Ptr): void {
  const flags = read_le(entry + 28, 4);
  if (!(flags & ENABLED)) return;
  const pxm = read_le(entry + 2, 4);
  const start = read_le(entry + 8, 8);
  const block = { start, end: start + read_le(entry + 16, 8), nid: pxm_to_node(topology, pxm) };
  const suffix = (flags & HOTPLUGGABLE ? " hotplug" : "") + (flags & NON_VOLATILE ? " non-volatile" : "");
  pr_info(`ACPI: SRAT: Node ${block.nid} PXM ${pxm} ${mem_range(block)}${suffix}`);
  topology.blocks.push(block);
}

/** Tidies the blocks of a topology; false if they cannot be right. */
function accept_blocks(topology: Topology): boolean {
  if (topology.blocks.length === 0) return false;
  const conflict = find_conflict(topology.blocks);
  if (conflict) {
    const [a, b] = conflict;
    pr_warn(`NUMA: Error: node ${a.nid} ${mem_range(a)} overlaps with node ${b.nid} ${mem_range(b)}`);
    return false;
  }
  topology.blocks = join_blocks(topology.blocks, e820_end_of_ram_pfn() * PAGE_SIZE);
  const total = [...for_each_mem_region(memblock_memory)].reduce((sum, region) => sum + region.size, 0);
  const covered = covered_bytes(topology.blocks);
  if (total - covered > MIB) {
    const lost = Math.floor((total - covered) / MIB);
    pr_warn(`NUMA: no nodes coverage for ${lost}MB of ${Math.floor(total / MIB)}MB RAM`);
    return false;
  }
  return true;
}

/** Two blocks of different nodes that share an address. A block that overlaps its own node's only warns. */
function find_conflict(blocks: readonly MemBlock[]): [MemBlock, MemBlock] | undefined {
  for (const [i, a] of blocks.entries())
    for (const b of blocks.slice(i + 1)) {
      if (a.start >= b.end || b.start >= a.end) continue;
      if (a.nid !== b.nid) return [a, b];
      pr_warn(`Warning: node ${a.nid} ${mem_range(a)} overlaps with itself ${mem_range(b)}`);
    }
  return undefined;
}

/** True if there is any RAM in a block. */
function has_ram({ start, end }: MemBlock): boolean {
  for (const { base, size } of for_each_mem_region(memblock_memory)) if (base < end && base + size > start) return true;
  return false;
}

/** Clips blocks to RAM, drops those without, and joins those of one node between which no other node's lies. */
function join_blocks(given: readonly MemBlock[], ram_end: Phys): MemBlock[] {
  const blocks = given
    .map((block) => ({ ...block, end: Math.min(block.end, ram_end) }))
    .filter((block) => block.start < block.end && has_ram(block));
  for (let i = 0; i < blocks.length; i++)
    for (let j = i + 1; j < blocks.length; j++) {
      const [a, b] = [blocks[i], blocks[j]];
      if (a.nid !== b.nid) continue;
      const whole = { start: Math.min(a.start, b.start), end: Math.max(a.end, b.end), nid: a.nid };
      if (blocks.some((c) => c.nid !== a.nid && c.start < whole.end && whole.start < c.end)) continue;
      pr_info(`NUMA: Node ${a.nid} ${mem_range(a)} + ${mem_range(b)} -> ${mem_range(whole)}`);
      blocks[i] = whole;
      blocks.splice(j--, 1);
    }
  return blocks;
}

function covered_bytes(blocks: readonly MemBlock[]): number {
  let bytes = 0;
  for (const { base, size } of for_each_mem_region(memblock_memory))
    for (const { start, end } of blocks) bytes += Math.max(0, Math.min(end, base + size) - Math.max(start, base));
  return bytes;
}

/** Reserved ranges get the node of the memory they lie in; so does the array of them, should it grow meanwhile. */
function set_reserved_nodes(blocks: readonly MemBlock[]): void {
  const max = MemblockType.max.get(memblock_reserved);
  for (const { start, end, nid } of blocks) memblock_set_node(start, end - start, memblock_reserved, nid);
  if (MemblockType.max.get(memblock_reserved) !== max) set_reserved_nodes(blocks);
}

/**
 * Fills the distance table from SLIT, or with the defaults where there is none, or one that cannot be right. SLIT goes by
 * proximity domain; `domains` has that of each node.
 */
function set_distances(slit: Ptr, domains: readonly number[]): void {
  for (let from = 0; from < MAX_NUMNODES; from++)
    for (let to = 0; to < MAX_NUMNODES; to++)
      node_state.distance.set(from * MAX_NUMNODES + to, from === to ? LOCAL_DISTANCE : REMOTE_DISTANCE);
  if (slit === NULL) return;
  const size = read_le(slit + 36, 8);
  const distance = (from: number, to: number): number => read_le(slit + 44 + from * size + to, 1);
  for (let from = 0; from < size; from++)
    for (let to = 0; to < size; to++)
      if (from === to ? distance(from, to) !== LOCAL_DISTANCE : distance(from, to) <= LOCAL_DISTANCE) {
        pr_info("ACPI: SLIT table looks invalid. Not used.");
        return;
      }
  for (const [from, from_pxm] of domains.entries())
    for (const [to, to_pxm] of domains.entries())
      if (Math.max(from_pxm, to_pxm) < size)
        node_state.distance.set(from * MAX_NUMNODES + to, distance(from_pxm, to_pxm));
}

/** Gives every node that has memory or CPUs its control block. */
function alloc_nodes(topology: Topology): void {
  const present = new Set([...topology.blocks.map((block) => block.nid), ...topology.cpu_nodes]);
  for (let nid = 0; nid < MAX_NUMNODES; nid++) node_state.node_data.set(nid, NULL);
  const nids = [...present].filter((nid) => nid !== undefined).sort((a, b) => a - b);
  for (const nid of nids) alloc_node_data(nid);
  node_state.nr_node_ids = nids.at(-1)! + 1;
}

function alloc_node_data(nid: NodeId): void {
  const size = align_up(PgData.sizeof, L1_CACHE_BYTES);
  const at = memblock_phys_alloc_try_nid(size, L1_CACHE_BYTES, nid) as number;
  if (at === 0) panic(`Cannot allocate ${size} bytes for node ${nid} data`);
  pr_info(`NODE_DATA(${nid}) allocated ${mem_range({ start: at, end: at + size })}`);
  const home = node_of_address(at);
  if (home !== nid) pr_info(`    NODE_DATA(${nid}) on node ${home}`);
  ram_zero(at, size);
  PgData.node_id.set(at, nid);
  node_state.node_data.set(nid, at);
}

function node_of_address(addr: Phys): NodeId {
  for (const { base, size, nid } of for_each_mem_region(memblock_memory))
    if (addr >= base && addr < base + size) return nid;
  return NUMA_NO_NODE;
}

/** Stores every CPU's node; CPUs that no table names are dealt to the nodes in turn. */
function set_cpu_nodes(cpu_nodes: readonly (NodeId | undefined)[]): void {
  let next = 0;
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) {
    const node = cpu_nodes[cpu] ?? next_online(next);
    if (cpu_nodes[cpu] === undefined) next = node + 1;
    cpu_state.node.set(per_cpu_ptr(cpu_state.ptr, cpu), node);
  }
  cpu_switch(smp_processor_id()); // the CPU we are holds its node in a register
}

function next_online(from: NodeId): NodeId {
  for (let i = 0; i < MAX_NUMNODES; i++) {
    const node = (from + i) % MAX_NUMNODES;
    if (node_state.node_data.get(node) !== NULL) return node;
  }
  return 0;
}

/** The node of every CPU, by CPU number. */
export function numa_cpu_nodes(): NodeId[] {
  return Array.from({ length: nr_cpu_ids() }, (_, cpu) => cpu_to_node(cpu));
}

/** The number of CPUs that the firmware's MADT lists as enabled. */
export function madt_nr_cpus(): number {
  let cpus = 0;
  for (const { type, ptr } of acpi_subtables(acpi_get_table("APIC"), 8))
    if (type === 0 && read_le(ptr + 4, 4) & ENABLED) cpus++;
  return cpus;
}
