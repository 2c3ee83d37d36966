/** `export`: everything in it is of one moment and adds up, and taking it changes nothing. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { export_texts, type ExportFile } from "../../boot/export.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { GFP_ATOMIC, GFP_KERNEL, __GFP_RECLAIMABLE } from "../../mm/gfp.ts";
import { alloc_pages, __free_pages } from "../../mm/page_alloc.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { echo, with_files } from "../kernel/fs/files.ts";
import { check_export, read_export } from "../lib/export_check.ts";
import { answer, console_run } from "./run.ts";

const root = mkdtempSync(join(tmpdir(), "kheap-export-"));
afterAll(() => rmSync(root, { recursive: true, force: true }), 300_000); // some ten thousand files
let folders = 0;
const new_folder = (): string => join(root, `e${folders++}`);
const shared = new_folder();
const TRACE = "test/data/traces/fs-walk.trace.gz";

/** 31-bit numbers from a seed. */
function random(seed: number): (below: number) => number {
  let x = seed;
  return (below) => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return (x >>> 8) % below;
  };
}

describe("export", () => {
  it("adds up in the middle of a replay (A145)", async () => {
    const folder = new_folder();
    const { out, err } = await console_run([`replay ${TRACE} --stop 60000 > /r; export ${folder}`], { seed: 3 });
    expect(err).toBe("");
    expect(out).toMatch(/: \d{4} files, \d links, 40\.0 MiB of RAM, \d+\.\d MiB of it not zero\n$/);
    const files = read_export(folder);
    expect(check_export(files)).toEqual([]);
    expect(files.get("proc/slabinfo")!.text).toMatch(/^dentry +[1-9].*\n(.*\n)*dentry~2 /m); // the trace's, the kernel's
  });

  it.each(["movablecore=8M", "slab_full=off slab_freelist_random=on slab_freelist_hardened=on"])("adds up at any point of a random load (%s)", (append) => {
    const next = random(5);
    let checked = 0;
    with_files(
      () => {
        const caches = [72, 300, 1000].map((size, i) => kmem_cache_create(`load-${i}`, size, 0, i === 0 ? SLAB_RECLAIM_ACCOUNT : 0, null));
        const held: (() => void)[] = [];
        const take = (): (() => void) | undefined => {
          const cache = caches[next(3)]!;
          const gfp = [GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | __GFP_RECLAIMABLE][next(3)]!;
          switch (next(4)) {
            case 0: { const at = kmalloc(1 + next(next(8) === 0 ? 60_000 : 4000), gfp); return at ? () => kfree(at) : undefined; }
            case 1: { const order = next(4); const page = alloc_pages(gfp, order); return page ? () => __free_pages(page, order) : undefined; }
            case 2: { const name = `/tmp/f${held.length}`; return echo("x".repeat(next(9000)), name) >= 0 ? () => void do_unlinkat(name) : undefined; }
            default: { const at = kmem_cache_alloc(cache, GFP_KERNEL); return at ? () => kmem_cache_free(cache, at) : undefined; }
          }
        }; // prettier-ignore
        for (let i = 0; i < 3000; i++)
          on_cpu(next(2), () => {
            if (held.length > 0 && next(100) < 45) held.splice(next(held.length), 1)[0]!();
            else {
              const release = take();
              if (release) held.push(release);
            }
            if (i % 500 === 499 && ++checked) expect(check_export(export_texts()), `step ${i}`).toEqual([]);
          });
        for (const release of held) release();
        for (const cache of caches) kmem_cache_destroy(cache);
      },
      { append },
    );
    expect(checked).toBe(6);
  }); // prettier-ignore

  it("sees a wrong figure", () => {
    with_files(() => {
      const wrong = (path: string, from: RegExp, to: string): string[] => {
        const files = new Map(export_texts());
        const { text } = files.get(path)!;
        expect(text).toMatch(from);
        return check_export(files.set(path, { text: text.replace(from, to), is_link: false }));
      };
      expect(wrong("proc/meminfo", /MemFree: +\d+/, "MemFree: 4")).not.toEqual([]);
      expect(wrong("proc/slabinfo", /(dentry +)\d+ +\d+/, "$17 7")).not.toEqual([]);
      expect(wrong("sys/devices/system/node/node1/numastat", /numa_hit \d+/, "numa_hit 1")).not.toEqual([]);
      expect(wrong("proc/pagetypeinfo", /(Unmovable +)\d+/, "$199999")).not.toEqual([]);
    });
  });

  it("changes nothing: the next one is the same to the byte", () => {
    with_files(() => {
      const [one, two] = [export_texts(), export_texts()];
      expect(two).toEqual(one);
    });
  });

  it("has every file that the format names, and links for merged caches", async () => {
    await answer(
      `kmem create one 1000; kmem create two 1000; kmem create alone 1000 flags=SLAB_NO_MERGE; export ${shared}`,
      { garbage: undefined },
    );
    const files: ReadonlyMap<string, ExportFile> = read_export(shared);
    for (const name of "slabinfo meminfo vmstat stat buddyinfo pagetypeinfo zoneinfo cpuinfo iomem modules vmallocinfo".split(
      " ",
    ))
      // prettier-ignore
      expect(files.has(`proc/${name}`), name).toBe(true);
    for (const name of "online possible has_memory has_normal_memory has_cpu".split(" "))
      expect(files.has(`sys/devices/system/node/${name}`), name).toBe(true);
    for (const name of "meminfo numastat distance cpulist cpumap vmstat".split(" "))
      expect(files.has(`sys/devices/system/node/node1/${name}`), name).toBe(true);
    for (const name of ["online", "possible", "present", "cpu1/online", "cpu1/topology/physical_package_id"])
      expect(files.has(`sys/devices/system/cpu/${name}`), name).toBe(true);
    for (const name of ["one", "two"])
      expect(files.get(`sys/kernel/slab/${name}`)).toEqual({ text: ":0001000", is_link: true });
    expect(files.get("sys/kernel/slab/:0001000/aliases")!.text).toBe("1\n");
    expect(files.get("sys/kernel/slab/alone/order")!.text).toBe("2\n");
    expect(check_export(files)).toEqual([]);
  });

  it("ram.img is RAM, sparse, and has the words that symbols.json names", () => {
    const ram = readFileSync(join(shared, "ram.img"));
    const { size, blocks } = statSync(join(shared, "ram.img"));
    expect(size).toBe(40 * 1024 * 1024);
    if (process.platform !== "win32") expect(blocks * 512).toBeLessThan(size / 2);
    const symbols = JSON.parse(readFileSync(join(shared, "symbols.json"), "utf8")) as Record<string, { va: string; u64: string[] }>; // prettier-ignore
    const wrong: string[] = [];
    let words = 0;
    for (const [name, { va, u64 }] of Object.entries(symbols)) {
      const match = /^0x(ffff8880|ffffffff8)([0-9a-f]+)$/.exec(va);
      expect(match, `${name} ${va}`).not.toBeNull();
      if (match![1] !== "ffff8880") continue;
      const at = parseInt(match![2]!, 16);
      for (const [i, word] of u64.entries()) if (BigInt(word) !== ram.readBigUInt64LE(at + 8 * i)) wrong.push(name);
      words += u64.length;
    }
    expect(wrong).toEqual([]);
    expect(words).toBeGreaterThan(1000);
    // totalram_pages stands behind the table of nodes, their number and the distances.
    const total = Number(BigInt(symbols.node_data!.u64[(16 * 8 + 8 + 256) / 8 - 1]!) >> 32n);
    expect(total * 4).toBe(Number(/MemTotal: +(\d+)/.exec(readFileSync(join(shared, "proc/meminfo"), "utf8"))![1]));
  });

  it("replaces an earlier export, and touches nothing else", async () => {
    await answer(`kmem create ... 1000 flags=SLAB_NO_MERGE; export ${shared}`);
    expect(existsSync(join(shared, "sys/kernel/slab/alone"))).toBe(false);
    expect(readdirSync(join(shared, "sys/kernel"))).toEqual(["debug", "mm", "slab"]);
    expect(existsSync(join(shared, "sys/kernel/slab/.../order"))).toBe(true);
    const [other, file] = [join(root, "other"), join(root, "file")];
    mkdirSync(other);
    writeFileSync(join(other, "letter.txt"), "");
    writeFileSync(file, "");
    const { err } = await console_run([`export ${other}; export ${file}; export; export a b; export --prove x; export ${file}/x`]); // prettier-ignore
    expect(err.replaceAll(root, "").trimEnd().split("\n")).toEqual([
      "export: /other: it holds letter.txt, which is no part of an export",
      "export: /file: it is no folder",
      "usage: export DIR [--pid PID|kernel] [--probe FILE]",
      "usage: export DIR [--pid PID|kernel] [--probe FILE]",
      "export: no option --prove; usage: export DIR [--pid PID|kernel] [--probe FILE]",
      "export: /file/x: ENOTDIR",
    ]);
    expect(readdirSync(other)).toEqual(["letter.txt"]);
  });
});
