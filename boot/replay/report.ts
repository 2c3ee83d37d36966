/** What a replay says at its end: the figures as one object, and as text. */
import { basename } from "node:path";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { num_online_cpus } from "../../hal/cpu.ts";
import { KmemCache, oo_objects, oo_order, slab_ops } from "../../mm/slab_common.ts";
import { for_each_online_node } from "../../mm/zone.ts";
import { Ftrace } from "./ftrace.ts";
import { Heap, type Account } from "./heap.ts";
import type { Mode } from "./modes.ts";
import { Pages } from "./pages.ts";
import { Rep } from "./rep.ts";
import { OPS } from "./trace.ts";

function geometry({ cache, pages }: Account) {
  const bytes = pages * PAGE_SIZE;
  const large = { object_size: bytes, slab_size: bytes, objs_per_slab: 1, order: Math.log2(pages), align: PAGE_SIZE };
  if (pages === 0) return { object_size: 0, slab_size: 0, objs_per_slab: 0, order: 0, align: 8 }; // blocks of all sizes
  if (cache === 0) return large;
  const oo = KmemCache.oo.get(cache);
  const sizes = { object_size: KmemCache.object_size.get(cache), slab_size: KmemCache.size.get(cache) };
  return { ...sizes, objs_per_slab: oo_objects(oo), order: oo_order(oo), align: KmemCache.align.get(cache) };
}

function cache_figures(account: Account) {
  const { allocs, frees, implied_frees, live, peak_live, sum_bytes_req, sum_bytes_alloc, peak_slabs } = account;
  const sums = { allocs, frees, implied_frees, end_live: live, peak_live, sum_bytes_req, sum_bytes_alloc };
  return { ...sums, peak_live_bytes_req: account.peak_live_bytes_req, peak_slabs, geometry: geometry(account) };
}

export type Figures = ReturnType<typeof replay_figures>;

/** The figures of a replay, in the form that programs read. `ns` is what the events took in all. */
export function replay_figures({ name, reader, books }: Mode, ns: number) {
  const heap = books instanceof Heap ? books : undefined;
  const pages = books instanceof Pages ? books : undefined;
  const peak = heap?.peak;
  const accounts = [...(heap?.accounts.values() ?? [])].filter((account) => account.allocs > 0);
  const overhead = peak?.live_bytes_req ? (peak.slab_pages * PAGE_SIZE) / peak.live_bytes_req : 0;
  return {
    trace: basename(reader.file),
    mode: name,
    allocator: slab_ops().name,
    events: reader.events,
    ns_per_event: Math.round(ns / Math.max(reader.events, 1)),
    ops: { ...Object.fromEntries([...OPS].map((op) => [op, 0])), ...reader.ops },
    failed: books.failed,
    peak_live_objects: peak?.live_objects ?? 0,
    end_live_objects: heap?.now.live_objects ?? 0,
    peak_live_bytes_req: peak?.live_bytes_req ?? 0,
    peak_live_bytes_alloc: peak?.live_bytes_alloc ?? 0,
    end_live_bytes_alloc: heap?.now.live_bytes_alloc ?? 0,
    peak_live_pages: pages?.peak_live_pages ?? 0,
    end_live_pages: pages?.live_pages ?? 0,
    peak_slab_pages: peak?.slab_pages ?? 0,
    overhead: Math.round(overhead * 1e4) / 1e4,
    per_cache: Object.fromEntries(accounts.map((account) => [account.name, cache_figures(account)])),
    ...(reader instanceof Ftrace && { skipped: reader.skipped }),
  };
}

/** The same for people. `ended` is false if the replay was stopped before the end of the file. */
export function replay_text({ reader, books }: Mode, f: Figures, ended: boolean): string {
  const ops = Object.entries(f.ops).filter(([, count]) => count > 0);
  const lines = [`${f.trace}: ${f.events} event lines, ${f.mode}, ${f.allocator.toUpperCase()}`];
  lines.push(`  ${ops.map(([op, count]) => `${op} ${count}`).join("  ")}`);
  if (f.failed > 0) lines.push(`  ${f.failed} allocations failed for want of memory`);
  if (books instanceof Pages) lines.push(`  live pages    peak ${f.peak_live_pages}   end ${f.end_live_pages}`);
  else {
    lines.push(`  live objects  peak ${f.peak_live_objects}   end ${f.end_live_objects}`);
    lines.push(`  bytes asked   peak ${f.peak_live_bytes_req}`);
    lines.push(`  bytes given   peak ${f.peak_live_bytes_alloc}   end ${f.end_live_bytes_alloc}`);
    lines.push(`  slab pages    peak ${f.peak_slab_pages}: ${f.overhead} bytes for each byte asked`, "");
    lines.push(table_line("cache", "allocs", "frees", "x", "end", "peak", "slabs", "slot", "objs", "pages"));
    for (const [name, { geometry, ...c }] of Object.entries(f.per_cache)) {
      const { slab_size, objs_per_slab, order } = geometry;
      const counts = [c.allocs, c.frees, c.implied_frees, c.end_live, c.peak_live, c.peak_slabs];
      lines.push(table_line(name, ...counts, slab_size, objs_per_slab, 1 << order));
    }
  }
  if (!ended) lines.push(`  stopped at ${reader.file}:${reader.line}; replay --end frees what lives`);
  return [...lines, ...notes(reader, ended)].join("\n");
}

function table_line(name: string, ...columns: readonly (string | number)[]): string {
  return `  ${name.padEnd(20)}${columns.map((column) => String(column).padStart(6)).join("")}`;
}

/** What differs from the recorded machine, and from the header: a line each. */
function notes(reader: Mode["reader"], ended: boolean): string[] {
  if (reader instanceof Rep) return [];
  const { "#cpus": cpus, "#nodes": nodes, "#events": lines = reader.events } = reader.header;
  const here = [num_online_cpus(), [...for_each_online_node()].length];
  const found: string[] = [];
  if ((cpus ?? here[0]) !== here[0] || (nodes ?? here[1]) !== here[1])
    found.push(
      nodes === undefined
        ? `note: recorded on ${cpus} CPUs, not ${here[0]}: slabs may differ`
        : `note: recorded on ${cpus} CPUs and ${nodes} nodes, not ${here.join(" and ")}: slabs may differ`,
    );
  if (ended && lines !== reader.events) found.push(`note: the header announces ${lines} event lines`);
  if (reader instanceof Ftrace) found.push(...reader.notes());
  return found;
}
