/**
 * A plain model of the page allocator: which frames are live, and nothing else. Random operations run on the real one and
 * on this; what must hold between them is checked as they go.
 */
import { expect } from "vitest";
import fc from "fast-check";
import { on_cpu } from "../../hal/cpu.ts";
import { ram32 } from "../../hal/ram.ts";
import {
  GFP_ATOMIC, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, __GFP_COMP, __GFP_NOWARN, __GFP_RECLAIMABLE, __GFP_THISNODE,
  gfp_zone,
} from "../../mm/gfp.ts"; // prettier-ignore
import { __free_pages, alloc_pages_node, split_page } from "../../mm/page_alloc.ts";
import { alloc_pages_bulk, alloc_pages_exact } from "../../mm/page_bulk.ts";
import {
  page_address,
  page_to_nid,
  page_to_pfn,
  page_zonenum,
  pfn_to_page,
  virt_to_page,
  type PagePtr,
} from "../../mm/page.ts";
import { vmstat_update } from "../../mm/pagesets.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { free_pcp } from "../../mm/show_mem.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { zone_free_pages } from "../../mm/watermark.ts";
import { for_each_populated_zone } from "../../mm/zone.ts";

const KINDS = [
  GFP_KERNEL, GFP_KERNEL | __GFP_COMP, GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_DMA,
  GFP_KERNEL | __GFP_THISNODE,
].map((gfp) => gfp | __GFP_NOWARN); // prettier-ignore

export interface PageOp {
  /** 0..59 allocate, 60..92 free, 93 split, 94 exact, 95 bulk, 96 drain, 97 a second passes, 98..99 free many. */
  readonly what: number;
  readonly cpu: number;
  readonly order: number;
  readonly kind: number;
  readonly node: number;
  readonly pick: number;
}

/** Any operation; small orders are as frequent as in a kernel. */
export const page_op: fc.Arbitrary<PageOp> = fc.record({
  what: fc.integer({ min: 0, max: 99 }),
  cpu: fc.integer({ min: 0, max: 1 }),
  order: fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 3 }) },
    { weight: 1, arbitrary: fc.integer({ min: 4, max: 10 }) },
  ),
  kind: fc.integer({ min: 0, max: KINDS.length - 1 }),
  node: fc.integer({ min: -1, max: 1 }),
  pick: fc.nat({ max: 0xffff }),
});

/** Live blocks: what was handed out and not given back. */
interface Model {
  readonly live: { page: PagePtr; order: number; tag: number }[];
  /** Frame by frame, so that an overlap is seen at once. */
  readonly frames: Set<number>;
  tag: number;
}

function add(model: Model, page: PagePtr, order: number): void {
  const pfn = page_to_pfn(page);
  if (pfn % (1 << order) !== 0) expect.fail(`block of order ${order} at frame ${pfn}`);
  for (let i = pfn; i < pfn + (1 << order); i++) {
    if (model.frames.has(i)) expect.fail(`frame ${i} was handed out twice`);
    model.frames.add(i);
  }
  const tag = ++model.tag;
  ram32[page_address(page) >> 2] = tag;
  ram32[(page_address(page) + (4096 << order) - 4) >> 2] = tag;
  model.live.push({ page, order, tag });
}

function remove(model: Model, index: number): void {
  const { page, order, tag } = model.live[index];
  model.live[index] = model.live.at(-1)!;
  model.live.pop();
  const first = page_address(page) >> 2;
  if (ram32[first] !== tag || ram32[first + ((1024 << order) - 1)] !== tag)
    expect.fail(`somebody wrote into frame ${page_to_pfn(page)}`);
  for (let i = page_to_pfn(page); i < page_to_pfn(page) + (1 << order); i++) model.frames.delete(i);
  __free_pages(page, order);
}

function allocate(model: Model, { order, kind, node }: PageOp): void {
  const gfp = KINDS[kind];
  const page = alloc_pages_node(node, gfp, order);
  if (page === 0) return;
  if (page_zonenum(page) > gfp_zone(gfp)) expect.fail(`zone ${page_zonenum(page)} for gfp 0x${gfp.toString(16)}`);
  if (gfp & __GFP_THISNODE && node >= 0 && page_to_nid(page) !== node)
    expect.fail(`a page of another node than ${node}`);
  add(model, page, order);
}

function split(model: Model, index: number): void {
  const { page, order } = model.live[index];
  if (order === 0 || order > 4 || page_is_compound(page)) return;
  const { tag } = model.live[index];
  ram32[(page_address(page) + 4092) >> 2] = tag;
  split_page(page, order);
  model.live.splice(index, 1);
  for (let i = 0; i < 1 << order; i++) {
    model.frames.delete(page_to_pfn(page) + i);
    add(model, page + i * 64, 0);
  }
}

function page_is_compound(page: PagePtr): boolean {
  return (ram32[page >> 2] & (1 << 6)) !== 0;
}

function exact(model: Model, op: PageOp): void {
  const nr_pages = 1 + (op.pick % 20);
  const ptr = alloc_pages_exact(nr_pages * 4096, GFP_KERNEL | __GFP_NOWARN);
  for (let i = 0; i < nr_pages && ptr !== 0; i++) add(model, virt_to_page(ptr + i * 4096), 0);
}

function bulk(model: Model, op: PageOp): void {
  const pages = new Array<PagePtr>(1 + (op.pick % 40)).fill(0);
  alloc_pages_bulk(GFP_KERNEL | __GFP_NOWARN, pages.length, pages, op.node);
  for (const page of pages) if (page !== 0) add(model, page, 0);
}

function step(model: Model, op: PageOp): void {
  const { live } = model;
  if (op.what < 60) allocate(model, op);
  else if (op.what === 94) exact(model, op);
  else if (op.what === 95) bulk(model, op);
  else if (op.what === 96) drain_all_pages();
  else if (op.what === 97) vmstat_update();
  else if (live.length === 0) return;
  else if (op.what === 93) split(model, op.pick % live.length);
  else if (op.what < 93) remove(model, op.pick % live.length);
  else for (let i = 0; i < 10 && live.length > 0; i++) remove(model, (op.pick * (i + 1)) % live.length);
}

/** Every zone's pages, free or kept by a CPU. */
function idle_pages(): number {
  let pages = 0;
  for (const zone of for_each_populated_zone()) pages += zone_free_pages(zone) + free_pcp(zone);
  return pages;
}

/**
 * Runs operations on the machine that is booted, and ends with everything freed: full blocks again, conserved at every
 * step, no overlap, aligned, validate_pages() clean each `every` operations.
 */
export function run_page_ops(ops: Iterable<PageOp>, every: number): void {
  const model: Model = { live: [], frames: new Set(), tag: 0 };
  drain_all_pages();
  const idle = idle_pages();
  let done = 0;
  for (const op of ops) {
    on_cpu(op.cpu, () => step(model, op));
    if (idle_pages() + model.frames.size !== idle) expect.fail(`pages are lost after ${JSON.stringify(op)}`);
    if (++done % every === 0) {
      const findings = validate_pages();
      if (findings.length > 0) expect.fail(findings.join("\n"));
    }
  }
  while (model.live.length > 0) remove(model, model.live.length - 1);
  drain_all_pages();
  expect(idle_pages()).toBe(idle);
  expect(validate_pages()).toEqual([]);
  expect(pfn_to_page(0)).not.toBe(0);
}

/** Reproducible operations without end, for long runs: a xorshift stream of `seed`. */
export function* endless_page_ops(seed: number, count: number): Generator<PageOp> {
  let x = seed | 1;
  const random = (below: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  for (let i = 0; i < count; i++) {
    const size = random(10);
    const order = size < 6 ? 0 : size < 9 ? 1 + random(3) : 4 + random(7);
    const [what, cpu, kind] = [random(100), random(2), random(KINDS.length)];
    yield { what, cpu, order, kind, node: random(3) - 1, pick: random(65536) };
  }
}
