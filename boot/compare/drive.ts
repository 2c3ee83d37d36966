/**
 * Drives a script in this realm: each step is one call of the kernel, on the step's CPU.
 *
 * While it lives every object carries its number, or, where cycles are counted, is written once by its owner and looked
 * at once before it goes, since memory that nobody uses says nothing about caches. Neither is part of an operation.
 */
import type { Obj } from "../../hal/addr.ts";
import { cpu_is_online, cpu_switch, nr_cpu_ids, smp_processor_id } from "../../hal/cpu.ts";
import { ram_fill, ram_read_string } from "../../hal/ram.ts";
import { enter_kernel, leave, timing_cycles, timing_on } from "../../hal/timing.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../../mm/gfp.ts";
import { ZERO_SIZE_PTR, kfree, kmalloc_node, krealloc } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc_node, kmem_cache_create, kmem_cache_free, type CachePtr } from "../../mm/slab_common.ts";
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { NODE_DATA, node_state } from "../../mm/zone.ts";
import { pattern_fault, pattern_write } from "../replay/pattern.ts";
import type { TraceCache } from "../replay/trace.ts";
import { Costs } from "./meter.ts";
import { slot_bytes } from "./parts.ts";
import type { Step } from "./script.ts";

/** Leaves objects as they are: that there is a constructor is what moves a free pointer behind the object. */
const compare_ctor = (_object: Obj): void => {};
ksym("compare_ctor", compare_ctor);

/** What the owner of an object does with it is the kernel's doing and counted as such. */
function as_kernel(use: () => void): void {
  const before = enter_kernel();
  use();
  leave(before);
}

interface Live {
  readonly ptr: Obj;
  /** NULL: kmalloc's. */
  readonly cache: CachePtr;
  readonly bytes: number;
}

export class Driver {
  readonly costs = new Costs();
  readonly live = new Map<number, Live>();
  private readonly caches = new Map<string, CachePtr>();
  private readonly sheaf: number;

  /** `sheaf`: objects of a sheaf of the caches that the script needs; 0: none. */
  constructor(sheaf: number) {
    this.sheaf = sheaf;
  }

  /** Carries one step out. */
  step({ op, id, bytes, cache, gfp, node, cpu }: Step): void {
    if (cpu >= 0 && cpu !== smp_processor_id() && cpu < nr_cpu_ids() && cpu_is_online(cpu)) cpu_switch(cpu);
    if (op === "free") return this.free(id);
    if (op === "resize" && this.live.has(id)) return this.resize(id, bytes);
    const at = cache.name === "" ? 0 : this.named(cache);
    const wanted = node >= 0 && node < node_state.nr_node_ids && NODE_DATA(node) !== 0 ? node : -1;
    const flags = cache.has_ctor ? gfp & ~__GFP_ZERO : gfp;
    const from = timing_cycles();
    const ptr = at === 0 ? kmalloc_node(bytes, flags, wanted) : kmem_cache_alloc_node(at, flags, wanted);
    this.costs.add(timing_cycles() - from);
    this.took(id, { ptr, cache: at, bytes });
  }

  private took(id: number, object: Live): void {
    if (object.ptr === 0) {
      this.costs.failed++;
      return;
    }
    this.live.set(id, object);
    if (object.ptr === ZERO_SIZE_PTR) return;
    if (timing_on) as_kernel(() => ram_fill(object.ptr, id & 0xff, object.bytes));
    else pattern_write(object.ptr, object.bytes, id);
  }

  /** Before an object goes or moves: it must be as its owner left it. */
  private last_look(id: number, { ptr, bytes }: Live): void {
    if (ptr === ZERO_SIZE_PTR) return;
    if (timing_on) as_kernel(() => ram_read_string(ptr, 1));
    else if (pattern_fault(ptr, bytes, id) !== 0) throw new Error(`object ${id} was written over by another`);
  }

  /** To where it came from, also where the recording has kfree for a cache's object, which is not SLOB's to take. */
  private free(id: number): void {
    const object = this.live.get(id);
    if (!object) return; // could not be had
    this.last_look(id, object);
    this.live.delete(id);
    const { ptr, cache } = object;
    const from = timing_cycles();
    if (cache === 0) kfree(ptr);
    else kmem_cache_free(cache, ptr);
    this.costs.add(timing_cycles() - from);
  }

  private resize(id: number, bytes: number): void {
    const object = this.live.get(id)!;
    this.last_look(id, object);
    const from = timing_cycles();
    const ptr = krealloc(object.ptr, bytes, GFP_KERNEL);
    this.costs.add(timing_cycles() - from);
    if (ptr === 0) this.costs.failed++;
    else this.took(id, { ptr, cache: 0, bytes });
  }

  /** A cache of the script, made the first time. */
  private named({ name, object_size, align, has_ctor }: TraceCache): CachePtr {
    const known = this.caches.get(name);
    if (known !== undefined) return known;
    const sheaf = this.sheaf === 0 ? {} : { sheaf_capacity: this.sheaf };
    const args = { align, ctor: has_ctor ? compare_ctor : null, ...sheaf };
    const cache = kmem_cache_create(name, object_size, args, SLAB_NO_MERGE);
    if (cache === 0) throw new Error(`no memory for the cache ${name}`);
    this.caches.set(name, cache);
    return cache;
  }

  /** Bytes of the slots of all live objects. */
  slots(): number {
    let sum = 0;
    for (const { ptr, cache } of this.live.values()) if (ptr !== ZERO_SIZE_PTR) sum += slot_bytes(ptr, cache);
    return sum;
  }

  /** Frees what lives, oldest first. */
  release(): void {
    for (const id of [...this.live.keys()]) this.free(id);
  }
}
