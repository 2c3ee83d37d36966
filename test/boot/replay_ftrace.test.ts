/** `replay` of what Linux prints of its own kmem events: ftrace's `trace`, and `perf script`. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { read_trace_file } from "../../boot/replay/file.ts";
import { Ftrace } from "../../boot/replay/ftrace.ts";
import { open_mode, run_slice } from "../../boot/replay/modes.ts";
import { kernel_ops } from "../../boot/replay/ops.ts";
import { replay_figures, replay_text, type Figures } from "../../boot/replay/report.ts";
import { FROM_KMALLOC, Trace } from "../../boot/replay/trace.ts";
import { format_gfp } from "../../mm/gfp.ts";
import { with_machine } from "../lib/machine.ts";
import { console_run } from "./run.ts";

const path_of = (name: string): string => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
const [TRACE, PERF, OLD] = ["trace", "perf", "old"].map((name) => path_of(`ftrace/${name}.txt`));
const bytes_of = (text: string): Uint8Array => Buffer.from(text, "latin1");

/** Replays text as a file of that name; its figures, and what people read. */
function replay(mode: "objects" | "pages", name: string, bytes: Uint8Array): { figures: Figures; text: string } {
  return with_machine({}, () => {
    const opened = open_mode(mode, name, bytes, kernel_ops);
    run_slice(opened, Infinity, Infinity);
    opened.books.finish();
    const figures = replay_figures(opened, 0);
    const text = replay_text(opened, figures, true);
    opened.books.release();
    return { figures, text };
  });
}

/** The events of a file, one a line. */
const events_of = (text: string): string[] => with_machine({}, () => read_events(text));

function read_events(text: string): string[] {
  const reader = new Ftrace("t", bytes_of(text));
  const told: string[] = [];
  while (reader.next()) {
    const { op, now, cache, gfp } = reader;
    const where = cache === FROM_KMALLOC ? "" : ` ${cache.name}`;
    const flags = "kcp".includes(op) ? ` ${format_gfp(gfp)}` : "";
    told.push(`${op}${where} ${Object.values(now).join(" ")}${flags}`);
  }
  return told;
}

const event = (text: string): string => `  sh-1  [000] .....  1.000001: ${text}\n`;
const page = (verb: "alloc" | "free", pfn: number, order: number): string =>
  event(
    `mm_page_${verb}: page=00000000aabbccdd pfn=0x${pfn.toString(16)} order=${order}` +
      (verb === "alloc" ? " migratetype=0 gfp_flags=GFP_KERNEL" : ""),
  );

describe("the forms that recordings of all ages and tools have", () => {
  const K = "k 0 0 384 -1 512";
  const forms: [string, string, string[]][] = [
    ["2.6.3x, perf trace", "            perf-2204  [000]   147.376774: kmalloc: call_site=c0529d2d ptr=de515a00 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL", [`${K} GFP_KERNEL`]],
    ["2.6.3x, four flags, names without underscores", "             cat-382   [000] ...1  2935.586706: kmalloc: call_site=c0554644 ptr=de515a00 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_ATOMIC|GFP_NOWARN|GFP_NOMEMALLOC", [`${K} GFP_ATOMIC|__GFP_NOWARN|__GFP_NOMEMALLOC`]],
    ["3.x, need-resched as a letter", "            init-1     [000] .N..     0.170000: kmalloc: call_site=c104deff ptr=c147dd20 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL", [`${K} GFP_KERNEL`]],
    ["6.1 and later, node and accounted", "     make-a-pipe-4812  [000] .....   913.204117: kmalloc: call_site=alloc_pipe_info+0x6c/0x220 ptr=000000009c3a1e77 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL_ACCOUNT|__GFP_ZERO node=-1 accounted=true", [`${K} GFP_KERNEL_ACCOUNT|__GFP_ZERO`]],
    ["tgid column", "            bash-1234    (   1234) [000] .....  5123.456701: kmalloc: call_site=f+0x1/0x2 ptr=1 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL node=-1 accounted=false", [`${K} GFP_KERNEL`]],
    ["a clock that counts", "            bash-1234    [000] ..... 128711: kmalloc: call_site=f+0x1/0x2 ptr=1 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL node=-1", [`${K} GFP_KERNEL`]],
    ["trace-cmd report", "            bash-1234  [000]  5123.456701: kmalloc:              (f+0x4f) call_site=ffffffff8785c74f ptr=0xffff9234810d5000 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL", [`${K} GFP_KERNEL`]],
    ["trace-cmd report with systems", "            bash-1234  [000] 5123.456701: kmem:kmalloc: call_site=f+0x4f ptr=0x1 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL node=-1 accounted=false", [`${K} GFP_KERNEL`]],
    ["perf script with the place in front", "fio 264249 [020] 3116264.020748: kmem:kmem_cache_alloc: (getname_flags+0x4f) call_site=ffffffff8785c74f ptr=0xffff9234810d5000 bytes_req=4096 bytes_alloc=4096 gfp_flags=GFP_KERNEL", ["c cache-4096-4096 20 0 4096 -1 GFP_KERNEL"]],
    ["perf script, pages with pfn in decimal", "perf  6429 [000]    22.498450:             kmem:mm_page_alloc: page=0x176a17 pfn=1534487 order=0 migratetype=0 gfp_flags=GFP_KERNEL", ["p 0 0 0 GFP_KERNEL"]],
    ["nanoseconds", "bash  1234 [000]  5123.456701123: kmem:kmalloc: call_site=f+0x1 ptr=0x1 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL node=-1 accounted=false", [`${K} GFP_KERNEL`]],
    ["flags without a name are left out", "bash  1234 [000]  5123.4: kmem:kmalloc: call_site=f ptr=0x1 bytes_req=384 bytes_alloc=512 gfp_flags=GFP_KERNEL|0x8000000 node=-1 accounted=false", [`${K} GFP_KERNEL`]],
    ["a failed page allocation, whatever its pfn", "  cat-382   [000] ...1  2935.5: mm_page_alloc: page=          (null) pfn=18446719884453740544 order=0 migratetype=0 gfp_flags=GFP_ATOMIC", []],
  ]; // prettier-ignore
  it.each(forms)("%s", (_, line, told) => {
    expect(events_of(`${line}\n`)).toEqual(told);
  });

  it("pages freed by the names of before Linux 3.3; a batch stands beside its frees", () => {
    const text = page("alloc", 0x100, 1) + page("alloc", 0x200, 0);
    const frees = [
      event("mm_page_free_direct: page=aabbccdd pfn=256 order=1"),
      event("mm_page_free_batched: page=aabbccdd pfn=0x200 order=0"),
      event("mm_pagevec_free: page=aabbccee pfn=512 order=0 cold=0"),
    ];
    expect(events_of(text + frees.join("")).slice(2)).toEqual(["q 0 0 0 2", "q 0 1 0 1"]);
  });

  it("lines between the events: stack traces, calls that a tracer saw, losses, heads of tools", () => {
    const text = [
      "version = 7", "cpus=4", "CPU 1 is empty", "##### CPU 2 buffer started ####",
      "            bash-1234    [001] .....  5123.456701: mm_page_free: page=0000000061b2fc33 pfn=1844202 order=0",
      "           <...>-3094982 [004] ...1 77212.233934: <stack trace>", " => trace_event_raw_event_mm_page_free", "=> free_pcp_prepare",
      "            bash-1234    [001] .....  5123.456702: mutex_unlock <-rb_simple_write",
      "     kworker/10:1-440     [010] .....   355.369899: iomap_finish_ioend: 1090: bio 00000000bc8445c7 index 192",
      "CPU:3 [LOST EVENTS]", "CPU:3 [LOST 5 EVENTS]",
    ].join("\n"); // prettier-ignore
    with_machine({}, () => {
      const reader = new Ftrace("t", bytes_of(text));
      expect(reader.next()).toBe(false);
      expect(reader.skipped).toMatchObject({ frees_of_older: 1, other_events: 3, lost_events: 5 });
      expect(reader.header["#cpus"]).toBe(4);
    });
  });
});

describe("ftrace's trace", () => {
  it("is told as the same events as a #kheap-trace", () => {
    expect(events_of(readFileSync(TRACE, "latin1"))).toEqual([
      "c names_cache 1 0 4096 -1 GFP_KERNEL",
      "c filp 1 1 184 -1 GFP_KERNEL_ACCOUNT|__GFP_ZERO",
      "d names_cache 1 0",
      "k 1 2 728 -1 1024 GFP_KERNEL",
      "k 0 3 40 0 64 GFP_NOFS",
      "p 1 0 2 GFP_KERNEL_ACCOUNT|__GFP_ZERO|__GFP_COMP",
      "k 1 4 12000 -1 16384 GFP_KERNEL_ACCOUNT",
      "k 1 5 12000 -1 16384 GFP_KERNEL",
      "c dentry 1 6 192 -1 GFP_KERNEL_ACCOUNT|__GFP_RECLAIMABLE",
      "x dentry 6", // its place is taken again: freed while events were lost
      "c dentry 0 7 192 -1 GFP_KERNEL_ACCOUNT|__GFP_RECLAIMABLE",
      "c inode_cache 1 8 616 -1 GFP_KERNEL_ACCOUNT|__GFP_RECLAIMABLE",
      "f 1 5",
      "f filp 1 1", // kfree of an object of a named cache
      "q 1 0 0 1",
      "q 1 0 2 2",
      "y 0 1 1",
      "p 1 1 0 GFP_HIGHUSER_MOVABLE|__GFP_COMP",
    ]);
  });

  it("drives the allocator, and what was left out is counted", () => {
    const { figures, text } = replay("objects", TRACE, read_trace_file(TRACE));
    expect(figures).toMatchObject({
      trace: "trace.txt",
      events: 18,
      failed: 0,
      end_live_objects: 5,
      peak_live_objects: 7,
    });
    expect(figures).toMatchObject({ ops: { k: 4, c: 5, f: 2, d: 1, x: 1, p: 2, q: 2, y: 1 } });
    expect(figures).toMatchObject({
      skipped: {
        frees_of_older: 3,
        failed_allocs: 2,
        second_reports: 1,
        lost_events: 37,
        other_events: 1,
        too_large: 0,
      },
    });
    const { filp, dentry, inode_cache, ...others } = figures.per_cache;
    expect(filp.geometry).toMatchObject({ object_size: 184, slab_size: 192, align: 64 });
    expect(dentry).toMatchObject({ allocs: 2, frees: 0, implied_frees: 1, end_live: 1 });
    expect(inode_cache.geometry).toMatchObject({ object_size: 616, slab_size: 624, align: 8 }); // a constructor
    expect(Object.keys(others)).toEqual(["names_cache", "kmalloc-1024", "kmalloc-64", "kmalloc-16384"]);
    expect(text.split("\n").filter((line) => line.startsWith("note:"))).toEqual([
      "note: left out: frees of what was allocated before the recording: 3",
      "note: left out: allocations that failed there: 2",
      "note: left out: second reports of a large kmalloc: 1",
      "note: left out: events lost while recording: 37",
      "note: left out: events of other kinds: 1",
      "note: flags unknown here: __GFP_SKIP_KASAN",
    ]);
  });

  it("replays its pages", () => {
    const { figures } = replay("pages", TRACE, read_trace_file(TRACE));
    expect(figures).toMatchObject({ mode: "pages", peak_live_pages: 4, end_live_pages: 1, failed: 0 });
  });

  it("may come from an old kernel, without flags column, nodes and names", () => {
    expect(events_of(readFileSync(OLD, "latin1"))).toEqual([
      "k 0 0 6 -1 0 GFP_KERNEL", // this kernel gives 8 bytes, not 32: not compared
      "c cache-64-64 0 1 64 -1 GFP_KERNEL|__GFP_ZERO",
      "c cache-40-48 0 2 40 0 GFP_KERNEL",
      "d cache-64-64 0 1",
      "f 0 0",
    ]);
    expect(replay("objects", OLD, read_trace_file(OLD)).text).toContain("another size there: 1");
  });

  it("tells pages apart by pfn: parts of blocks, runs over several blocks, places taken again", () => {
    const text = page("alloc", 16, 2) + page("alloc", 20, 0) + page("alloc", 21, 0) + page("free", 18, 2);
    expect(events_of(`${text}${page("alloc", 16, 1)}`).map((line) => line.replace(/ GFP.*/, ""))).toEqual([
      "p 0 0 2",
      "p 0 1 0",
      "p 0 2 0",
      "q 0 0 2 2",
      "q 0 1 0 1",
      "q 0 2 0 1",
      "y 0 0 2",
      "p 0 3 1",
    ]);
  });

  it("makes a cache of its own for each size that a name has, and for slots that no alignment explains", () => {
    const object = (ptr: number, sizes: string): string =>
      event(
        `kmem_cache_alloc: call_site=f+0x1/0x2 ptr=000000000000000${ptr} name=dentry ${sizes} gfp_flags=GFP_KERNEL node=-1 accounted=false`,
      );
    const text =
      object(1, "bytes_req=192 bytes_alloc=192") +
      object(2, "bytes_req=200 bytes_alloc=208") +
      object(3, "bytes_req=32 bytes_alloc=328");
    const { per_cache } = replay("objects", "t", bytes_of(text)).figures;
    expect(
      Object.entries(per_cache).map(([name, { geometry }]) => [name, geometry.object_size, geometry.slab_size]),
    ).toEqual([
      ["dentry", 192, 192],
      ["dentry-200-208", 200, 208],
      ["dentry-32-328", 32, 32],
    ]);
  });
});

describe("perf script", () => {
  it("is read too, with call chains, names with blanks, and raw pointers", () => {
    expect(events_of(readFileSync(PERF, "latin1"))).toEqual([
      "c names_cache 1 0 4096 -1 GFP_KERNEL",
      "k 0 1 1024 -1 1024 GFP_USER|__GFP_ZERO",
      "d names_cache 1 0",
      "f 1 1",
      "p 1 0 0 GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP",
      "q 1 0 0 1",
    ]);
  });

  it("goes on where lines end as on Windows, and packed", () => {
    const text = readFileSync(PERF, "latin1").replaceAll("\n", "\r\n");
    expect(events_of(text)).toEqual(events_of(readFileSync(PERF, "latin1")));
    const folder = mkdtempSync(join(tmpdir(), "kheap-"));
    try {
      writeFileSync(join(folder, "p.gz"), gzipSync(text));
      expect(replay("objects", "p.gz", read_trace_file(join(folder, "p.gz"))).figures.events).toBe(6);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a line that is none", () => {
  const good = "kmalloc: call_site=f ptr=0000000000000001 bytes_req=8 bytes_alloc=8 gfp_flags=GFP_KERNEL node=-1";
  it.each([
    ["nonsense\n", '"nonsense" is no line of ftrace or perf script'],
    [event(good).slice(0, 60), "bytes_req= is missing"],
    [event(good.replace("ptr=0", "ptr=z")), 'ptr is "z000000000000001"'],
    [event(good.replace("bytes_req=8", "bytes_req=eight")), 'bytes_req is "eight"'],
    [event(good.replace("bytes_req=8", "bytes_req=0")), "bytes_alloc is 8 for 0"],
    [event(good.replace("bytes_alloc=8", "bytes_alloc=4")), "bytes_alloc is 4 for 8"],
    [event(good.replace("GFP_KERNEL", "GFP_KERNEL|")), 'gfp_flags is "GFP_KERNEL|"'],
    [event("mm_page_free: page=1 pfn=0x10 order=x"), 'order is "x"'],
  ])("%j", (bad, says) => {
    expect(() => replay("objects", "mine.txt", bytes_of(event(good) + bad))).toThrow(`mine.txt:2: ${says}`);
  });

  it("ends the command with one line, and nothing is left", async () => {
    const folder = mkdtempSync(join(tmpdir(), "kheap-"));
    try {
      const file = join(folder, "bad.txt");
      writeFileSync(file, `${event(good)}oh\n`);
      const { out, err, failed } = await console_run([`replay ${file}`, `replay ${file} --malloc`, "validate"]);
      expect(err).toBe(
        `${file}:2: "oh" is no line of ftrace or perf script\n${file}:1: header line 1 of 4 is no number\n`,
      );
      expect(out).toMatch(/all is well/);
      expect(failed).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/**
 * A recording as ftrace would have printed it. What was freed unseen is not in it, as its place is taken again; of several
 * such in a row the last one, since there is one place to take: the others are frees.
 */
function as_ftrace(reader: Trace): string {
  const lines = ["# tracer: nop", "#", "# entries-in-buffer/entries-written: 1/1   #P:2", "#"];
  const [pointers, pfns]: [number[], number[]] = [[], []];
  let [next_pointer, next_pfn] = [0x1000, 0x1000];
  let [taken_pointer, taken_pfn]: (number | undefined)[] = [];
  while (reader.next()) {
    const { op, now, cache, gfp } = reader;
    const say = (text: string): void =>
      void lines.push(`      sh-${now.DT}     [00${now.CPU ?? 0}] .....  ${reader.line}.000000: ${text}`);
    const pages = (pfn: number, order: number): string =>
      `page=${"0".repeat(16)} pfn=0x${pfn.toString(16)} order=${order}`;
    const flags = `gfp_flags=${format_gfp(gfp)}`;
    if (op === "x" && taken_pointer !== undefined) say(`kfree: call_site=f+0x1/0x2 ptr=${hashed(taken_pointer)}`);
    if (op === "x") taken_pointer = pointers[now.OBJ];
    if (op === "y" && now.PAGES === 1) taken_pfn = pfns[now.BLOCK] + now.OFFSET;
    if (op === "k" || op === "c") {
      pointers[now.OBJ] = taken_pointer ?? (next_pointer += 16);
      taken_pointer = undefined;
      const [req, given] = op === "k" ? [now.BYTES_REQ, now.BYTES_ALLOC] : [cache.object_size, cache.slab_size];
      const name = op === "c" ? ` name=${cache.name}` : "";
      say(
        `${op === "k" ? "kmalloc" : "kmem_cache_alloc"}: call_site=f+0x1/0x2 ptr=${hashed(pointers[now.OBJ])}${name} ` +
          `bytes_req=${req} bytes_alloc=${given} ${flags} node=${now.NODE} accounted=false`,
      );
    }
    if (op === "f") say(`kfree: call_site=f+0x1/0x2 ptr=${hashed(pointers[now.OBJ])}`);
    if (op === "d") say(`kmem_cache_free: call_site=f+0x1/0x2 ptr=${hashed(pointers[now.OBJ])} name=${cache.name}`);
    if (op === "p") {
      pfns[now.BLOCK] = now.ORDER === 0 && taken_pfn !== undefined ? taken_pfn : (next_pfn += 2048);
      taken_pfn = undefined;
      say(`mm_page_alloc: ${pages(pfns[now.BLOCK], now.ORDER)} migratetype=${now.MIGRATETYPE} ${flags}`);
    }
    if (op === "q" || (op === "y" && now.PAGES > 1))
      for (let i = 0; i < now.PAGES; i++) say(`mm_page_free: ${pages(pfns[now.BLOCK] + now.OFFSET + i, 0)}`);
  }
  return `${lines.join("\n")}\n`;
}

const hashed = (pointer: number): string => pointer.toString(16).padStart(16, "0");

/** Figures without those that tell seen frees from unseen ones, or count lines. */
function comparable({ per_cache, ...figures }: Figures): object {
  const caches = Object.entries(per_cache).map(([name, { frees, implied_frees, ...rest }]) => [
    name,
    { ...rest, all_frees: frees + implied_frees },
  ]);
  return { ...figures, ops: 0, events: 0, skipped: 0, per_cache: Object.fromEntries(caches) };
}

describe("a recording written as ftrace text", () => {
  it.each(["fork-shell", "fs-walk"])("%s gives every figure of the recording itself", (name) => {
    const bytes = read_trace_file(path_of(`traces/${name}.trace.gz`));
    const text = bytes_of(as_ftrace(new Trace(name, bytes)));
    const there = replay("objects", name, text).figures;
    const here = replay("objects", name, bytes).figures;
    const allocs = ({ ops: { k, c } }: Figures): object => ({ k, c });
    const frees = ({ ops: { f, d, x } }: Figures): number => f + d + x;
    expect([allocs(there), frees(there)]).toEqual([allocs(here), frees(here)]);
    expect(there.ops.x).toBeGreaterThan(1000);
    expect(comparable(there)).toEqual(comparable(here));
    const { peak_live_pages, end_live_pages } = replay("pages", name, bytes).figures;
    expect(replay("pages", name, text).figures).toMatchObject({ peak_live_pages, end_live_pages });
  });
});
