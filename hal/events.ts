/**
 * Events for the host: one typed emitter. They come from slow paths only, and a payload is made only if someone
 * listens (`if (has_listener("slab:new")) emit("slab:new", { … })`), so a run is byte for byte the same without.
 * The kernel never depends on a listener: what one throws is not caught here and counts as the kernel's own failure.
 */
import { EventEmitter } from "eventemitter3";
import type { CpuId, NodeId, Pfn, Ptr } from "./addr.ts";

/** Events of the kernel, by name, with what each tells. */
export interface KernelEvents {
  "cpu:online": (event: { cpu: CpuId; node: NodeId }) => void;
  "cpu:offline": (event: { cpu: CpuId }) => void;
  irq: (event: { cpu: CpuId; vector: string }) => void;
  ipi: (event: { from: CpuId; to: CpuId; what: string }) => void;
  fault: (event: { cpu: CpuId; address: number; error_code: number }) => void;
  /** A free block of `order` was cut in two; `pfn` is the upper half, which stays free. */
  "page:split": (event: { zone: string; node: NodeId; pfn: Pfn; order: number }) => void;
  /** Two free buddies became one block of `order` at `pfn`. */
  "page:merge": (event: { zone: string; node: NodeId; pfn: Pfn; order: number }) => void;
  "slab:new": (event: SlabEvent) => void;
  /** A slab without a free object left its CPU. */
  "slab:full": (event: SlabEvent) => void;
  "slab:partial": (event: SlabEvent & { node: NodeId }) => void;
  /** A slab became a CPU's own, or went onto that CPU's partial list. */
  "slab:cpu": (event: SlabEvent & { cpu: CpuId; list: "page" | "partial" }) => void;
  /** SLAB: the last object of a slab came back, and its node keeps it. */
  "slab:free": (event: SlabEvent) => void;
  "slab:discard": (event: SlabEvent) => void;
  "task:fork": (event: { pid: number; parent: number; comm: string }) => void;
  "task:exit": (event: { pid: number; comm: string; code: number }) => void;
  "inode:new": (event: { ino: number; fs: string }) => void;
  "inode:free": (event: { ino: number; fs: string }) => void;
  /** Fault injection makes an allocation fail. */
  "fault:injected": (event: { name: string; gfp: number }) => void;
  oom: (event: { pid: number; comm: string; pages: number }) => void;
  panic: (event: { text: string }) => void;
}
export interface SlabEvent {
  /** Name of the cache. */
  cache: string;
  /** Address of the slab's first byte. */
  slab: Ptr;
  inuse: number;
  /** The statistics counter that the move added to; SLAB, which has none, names the function. */
  counter: string;
}

/** `events.on("slab:new", (event) => …)`. */
export const events = new EventEmitter<KernelEvents>();

/** The emitter's own count of names that have a listener: one load where nobody listens. */
const heard = events as unknown as Readonly<Record<"_eventsCount", number>>;

/** True if a payload for `name` is worth making. */
export function has_listener(name: keyof KernelEvents): boolean {
  return heard._eventsCount !== 0 && events.listenerCount(name) > 0;
}
