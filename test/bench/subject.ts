/**
 * The process of a subject: `node subject.ts FILE OPTIONS`. The parent sends the name of a workload; it is run once,
 * timed, and answered with its figures and with the cost of L1 just before and just after.
 */
import { performance } from "node:perf_hooks";
import type { Heap, Live, Subject } from "./heap.ts";
import { l1 } from "./l1.ts";
import { time } from "./time.ts";
import { own_loops, type Loops } from "./own_loops.ts";
import { BATCH, MANY, MANY_SIZE, class_size, free_order, pattern } from "./workloads.ts";

/** How long one timed call should take, and how long a loop runs before it is timed. */
const TIMED_MS = 12;
const WARM_MS = 300;
const L1_MS = 3;
/** W3 and W5b: replaced before timing, so that the heap is as it is after a while; and the most time that may take. */
const CHURN = 20_000;
const CHURN_MS = 50;

export interface Answer {
  /** Nanoseconds per operation of each figure. */
  readonly ns: Record<string, number>;
  /** Nanoseconds of an L1 pair at the same time. */
  readonly l1: number;
  /** Bytes asked for, bytes of their size classes, bytes the subject used for them: W3 and W4. */
  readonly memory?: { asked: number; classes: number; used: number };
}

/** A workload of this process, ready to run. */
interface Prepared {
  run(): Omit<Answer, "l1">;
}

const allocations = { slab: 0 };

/** Runs `fn` with rising counts until it is warm; the count that takes about `ms`. */
function calibrate(fn: (count: number) => void, ms: number, warm_ms: number): number {
  let count = 1;
  for (let spent = 0; ;) {
    const took = time(() => fn(count)) / 1e6;
    spent += took;
    if (took >= ms / 2 && spent >= warm_ms) return Math.max(1, Math.round((count * ms) / took));
    if (took < ms / 2) count *= 2;
  }
}

const l1_count = calibrate(l1, L1_MS, WARM_MS);
const l1_ns = (): number => time(() => l1(l1_count)) / l1_count;

const file = process.argv[2]!;
const { subject } = (await subject_module(file)) as { subject: Subject };

function subject_module(name: string): Promise<unknown> {
  const modules: Record<string, () => Promise<unknown>> = {
    limit: () => import("./subjects/limit.ts"),
    kheap: () => import("./subjects/kheap.ts"),
    thi_ng: () => import("./subjects/thi_ng.ts"),
    dlmalloc: () => import("./subjects/dlmalloc.ts"),
    objects: () => import("./subjects/objects.ts"),
    system: () => import("./subjects/system.ts"),
    vm: () => import("./subjects/vm.ts"),
  };
  return modules[name]!();
}

function count_allocations(key: string, count: number): void {
  if (subject.slab_workload?.(key) ?? true) allocations.slab += count;
}

function one_figure(key: string, fn: (count: number) => void, per_call = 1): Prepared {
  const count = calibrate(fn, TIMED_MS, WARM_MS);
  return { run: () => ({ ns: { [key]: time(() => fn(count)) / (count * per_call) } }) };
}

function prepare_pairs(key: string, loops: Loops): Prepared {
  const size = key === "W5a" ? 4096 : 64;
  return one_figure(key, (count) => {
    loops.pairs(count, size);
    count_allocations(key, count);
  });
}

/** First another heap of the same objects, behind other functions: from then on the loop calls, and inlines nothing. */
function prepare_called_pairs(key: string, loops: Loops, heap: Heap): Prepared {
  const run = (called: Heap, count: number): void => {
    loops.called_pairs(called, count, 64);
    count_allocations(key, count);
  };
  run({ ...heap, alloc: (size) => heap.alloc(size), free: (object, size) => heap.free(object, size) }, 1000);
  return one_figure(key, (count) => run(heap, count));
}

function prepare_batches(key: string, loops: Loops): Prepared {
  const order = free_order(key);
  const slots = new Array<number>(BATCH).fill(0);
  return one_figure(
    key,
    (count) => {
      for (let i = 0; i < count; i++) {
        loops.fill(slots, 64);
        loops.drain_in_order(slots, 64, order);
      }
      count_allocations(key, count * BATCH);
    },
    BATCH,
  );
}

/** Each run fills anew, lets it age, times, and gives all back. */
function prepare_replace(key: string, loops: Loops, heap: Heap): Prepared {
  const { live: nr_live, picks, sizes: next_sizes } = pattern(key);
  const slots = new Array<number>(nr_live).fill(0);
  const sizes = new Int32Array(nr_live);
  const live: Live = { slots, sizes, picks, next_sizes, at: 0 };
  const replace = (count: number): void => {
    loops.replace(live, count);
    count_allocations(key, count);
  };
  const fill = (): void => {
    for (let i = 0; i < nr_live; i++) {
      sizes[i] = next_sizes[i]!;
      slots[i] = heap.alloc(sizes[i]!);
    }
    count_allocations(key, nr_live);
    const until = performance.now() + CHURN_MS;
    for (let done = 0; done < CHURN && performance.now() < until; done += 16) replace(16);
  };
  const empty = (): void => {
    if (heap.reset) heap.reset();
    else for (let i = 0; i < nr_live; i++) heap.free(slots[i]!, sizes[i]!);
  };
  subject.compact?.();
  const before = subject.bytes_used?.();
  fill();
  const after = subject.bytes_used?.();
  const known = key !== "W5b" && before !== undefined && after !== undefined;
  const asked = sizes.reduce((sum, size) => sum + size, 0);
  const classes = sizes.reduce((sum, size) => sum + class_size(size), 0);
  const memory = known ? { memory: { asked, classes, used: after - before } } : {};
  const count = calibrate(replace, TIMED_MS, WARM_MS);
  empty();
  return {
    run() {
      fill();
      const ns = { [key]: time(() => replace(count)) / count };
      empty();
      return { ns, ...memory };
    },
  };
}

function prepare_many(key: string, loops: Loops, heap: Heap): Prepared {
  const slots = new Array<number>(MANY).fill(0);
  const grow = (): number => {
    count_allocations(key, MANY);
    return time(() => loops.fill(slots, MANY_SIZE)) / MANY;
  };
  const free = (): number =>
    time(() => {
      loops.drain(slots, MANY_SIZE);
      if (!subject.settle) return;
      slots.fill(0);
      subject.settle();
    }) / MANY;
  /** One by one, unless that would take minutes: then there is no figure. */
  const run = (): Omit<Answer, "l1"> => {
    const grown = grow();
    if (!heap.reset) return { ns: { "W4 grow": grown, "W4 free": free() } };
    heap.reset();
    return { ns: { "W4 grow": grown } };
  };
  run();
  subject.compact?.();
  const before = subject.bytes_used?.();
  grow();
  const after = subject.bytes_used?.();
  if (heap.reset) heap.reset();
  else free();
  const asked = MANY * MANY_SIZE;
  const known = before !== undefined && after !== undefined;
  const memory = known ? { memory: { asked, classes: asked, used: after - before } } : {};
  return { run: () => ({ ...run(), ...memory }) };
}

async function prepare(key: string): Promise<Prepared | undefined> {
  const own = subject.own?.(key);
  if (own) return one_figure(key, own.run, own.per_call);
  const heap = subject.heap(key);
  if (!heap) return undefined;
  const loops = await own_loops(key, heap);
  if (key.startsWith("W2")) return prepare_batches(key, loops);
  if (key.startsWith("W3") || key === "W5b") return prepare_replace(key, loops, heap);
  if (key === "W4") return prepare_many(key, loops, heap);
  return key === "W1n" ? prepare_called_pairs(key, loops, heap) : prepare_pairs(key, loops);
}

const prepared = new Map<string, Prepared | undefined>();

/** Runs a workload once. Undefined: this subject has none of that name. */
async function measure(key: string): Promise<Answer | undefined> {
  if (!prepared.has(key)) prepared.set(key, await prepare(key));
  const ready = prepared.get(key);
  if (!ready) return undefined;
  const before = l1_ns();
  const answer = ready.run();
  return { ...answer, l1: (before + l1_ns()) / 2 };
}

process.on("message", (request: { run?: string; end?: true }) => {
  if (request.end) process.send!({ findings: subject.check?.(allocations.slab) ?? [] }, () => process.exit());
  else void measure(request.run!).then((answer) => process.send!(answer ?? {}));
});
process.send!({ ready: true });
