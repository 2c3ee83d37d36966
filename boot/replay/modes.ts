/** The three ways to replay a file, behind one interface: a step is one event line. */
import { px, type CpuId, type NodeId } from "../../hal/addr.ts";
import { cpu_is_online, cpu_switch, nr_cpu_ids, smp_processor_id } from "../../hal/cpu.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { NODE_DATA, node_state } from "../../mm/zone.ts";
import { Ftrace, is_ftrace } from "./ftrace.ts";
import { Heap } from "./heap.ts";
import type { ReplayOps } from "./ops.ts";
import { Pages } from "./pages.ts";
import { Rep } from "./rep.ts";
import { FROM_KMALLOC, Trace, type EventReader } from "./trace.ts";

/** A live object or block: its number, its address, and its cache or the order of a block of pages. */
export type Listed = [number: number, address: string, where: string | number];

export interface Mode {
  readonly name: "objects" | "pages" | "malloc";
  readonly reader: EventReader | Rep;
  readonly books: Heap | Pages;
  /** Replays one event line; false at the end of the file. */
  step(): boolean;
}

/** Opens a file for replay; fails with its first line if it is none of that kind. */
export function open_mode(name: Mode["name"], file: string, bytes: Uint8Array, ops: ReplayOps): Mode {
  if (name === "malloc") return malloc_mode(new Rep(file, bytes), ops);
  const trace = is_ftrace(bytes) ? new Ftrace(file, bytes) : new Trace(file, bytes);
  return name === "pages" ? pages_mode(trace, ops) : objects_mode(trace, ops);
}

/** Replays up to `count` event lines, but none from number `stop` on. Returns true if there is more to do. */
export function run_slice({ reader, step }: Mode, count: number, stop: number): boolean {
  const home = smp_processor_id();
  const last = Math.min(reader.events + count, stop - 1);
  try {
    while (reader.events < last) if (!step()) return false;
    return reader.events < stop - 1;
  } finally {
    cpu_switch(home);
  }
}

/** What lives, oldest first. */
export function list_live({ books }: Mode): Listed[] {
  if (books instanceof Pages)
    return [...books.pieces()].map(({ number, address, order }) => [number, px(address), order]);
  return [...books.blocks.values()].map(({ number, ptr, account }) => [number, px(ptr), account?.name ?? "kmalloc-0"]);
}

/** Becomes the CPU of an event (or of the one before, if it names none), where this machine has it. */
function follow_cpu(cpu: CpuId): void {
  if (cpu !== smp_processor_id() && cpu < nr_cpu_ids() && cpu_is_online(cpu)) cpu_switch(cpu);
}

/** The node of an event, where this machine has it; else any. */
function known_node(node: NodeId): NodeId {
  return node >= 0 && node < node_state.nr_node_ids && NODE_DATA(node) !== 0 ? node : -1;
}

function objects_mode(reader: EventReader, ops: ReplayOps): Mode {
  const heap = new Heap(ops, (what) => reader.fail(what));
  const step = (): boolean => {
    if (!reader.next()) return false;
    const { op, now, cache, gfp } = reader;
    follow_cpu(now.CPU);
    if (op === "k") heap.kmalloc(now.OBJ, now.BYTES_REQ, gfp, known_node(now.NODE), now.BYTES_ALLOC);
    else if (op === "c") heap.alloc(now.OBJ, cache, gfp, known_node(now.NODE), cache.slab_size);
    else if ("fdx".includes(op)) heap.free(now.OBJ, op === "f" || cache === FROM_KMALLOC, op === "x");
    return true;
  };
  return { name: "objects", reader, books: heap, step };
}

function pages_mode(reader: EventReader, ops: ReplayOps): Mode {
  const pages = new Pages(ops, (what) => reader.fail(what));
  const step = (): boolean => {
    if (!reader.next()) return false;
    const { op, now, gfp } = reader;
    follow_cpu(now.CPU);
    if (op === "p") pages.alloc(now.BLOCK, now.ORDER, gfp);
    else if ("qy".includes(op)) pages.free(now.BLOCK, now.OFFSET, now.PAGES);
    return true;
  };
  return { name: "pages", reader, books: pages, step };
}

function malloc_mode(reader: Rep, ops: ReplayOps): Mode {
  const heap = new Heap(ops, (what) => reader.fail(what));
  const refused = new Set<number>();
  const step = (): boolean => {
    if (!reader.next()) return false;
    const { op, id, bytes } = reader;
    const block = heap.blocks.get(id);
    if (op === "a" && block) reader.fail(`block ${id} is live already`);
    if (op === "f" && id === -1) ops.kfree(0);
    else if (op === "f" && !block && !refused.delete(id)) reader.fail(`block ${id} is not live`);
    else if (op === "f") heap.free(id, true, false);
    else if (block) heap.resize(block, bytes);
    else if (heap.kmalloc(id, bytes, GFP_KERNEL, -1)) refused.delete(id);
    else refused.add(id);
    return true;
  };
  return { name: "malloc", reader, books: heap, step };
}
