/** The command `replay` at the console: its options, its answers, what it keeps and what it says when it cannot. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { Figures } from "../../boot/replay/report.ts";
import { console_run } from "./run.ts";

const data = fileURLToPath(new URL("../data", import.meta.url));
const FORK = `${data}/traces/fork-shell.trace.gz`;
const truth = JSON.parse(readFileSync(`${data}/traces/fork-shell.truth.json`, "utf8")) as {
  lines: number;
  totals: Record<string, number>;
};

async function json(lines: string[]): Promise<Record<string, unknown>[]> {
  const { out } = await console_run(lines, { json: true });
  return out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("replay", () => {
  it("answers with one object in the form that programs read", async () => {
    const [figures] = (await json([`replay ${FORK}`])) as unknown as [Figures];
    expect(Object.keys(figures).join()).toBe(
      "trace,mode,allocator,events,ns_per_event,ops,failed,peak_live_objects,end_live_objects,peak_live_bytes_req," +
        "peak_live_bytes_alloc,end_live_bytes_alloc,peak_live_pages,end_live_pages,peak_slab_pages,overhead,per_cache",
    );
    expect(Object.keys(figures.per_cache["filp"]!).join()).toBe(
      "allocs,frees,implied_frees,end_live,peak_live,sum_bytes_req,sum_bytes_alloc,peak_live_bytes_req,peak_slabs,geometry",
    );
    expect(figures).toMatchObject({ ...truth.totals, allocator: "slub", events: truth.lines });
    expect(figures.ns_per_event).toBeGreaterThan(0);
  });

  it("keeps what lives after --stop, lists it, lets nothing else in, and frees it", async () => {
    const lines = [`replay ${FORK} --stop 2000 --list`, "validate", `replay ${FORK}`, "replay --end", "replay --end"];
    const { out, err } = await console_run(lines);
    const listed = out.split("\n").filter((line) => /^\d+ ffff8880[0-9a-f]{8} [\w-]+$/.test(line));
    expect(listed.length).toBeGreaterThan(100);
    expect(out).toMatch(/all is well\nfork-shell\.trace\.gz: freed\n$/);
    expect(err).toMatch(
      /fork-shell\.trace\.gz is still held; replay --end frees it\n.*no stopped replay holds anything\n/,
    );
  });

  it("stops before the event line that it is told, and names it", async () => {
    const { out } = await console_run([`replay ${FORK} --stop 3`, "replay --end"]);
    expect(out).toContain("fork-shell.trace.gz: 2 event lines, objects, SLUB\n  c 1  d 1\n");
    expect(out).toContain(`stopped at ${FORK}:124; replay --end frees what lives`);
  });

  it("gives back at power-off what it still holds", async () => {
    const { err, failed } = await console_run([`replay ${FORK} --pages --stop 50000`]);
    expect({ err, failed }).toEqual({ err: "", failed: false });
  });

  it("runs in the background, and is not fooled by what others allocate meanwhile", async () => {
    const others = Array.from({ length: 12 }, (_, i) => [`fork ${2 + i}`, `touch /tmp/f${i}`, `kmalloc ${20 + 9 * i}`]);
    const { out, err } = await console_run([`replay ${FORK} &`, ...others.flat(), "wait"]);
    expect(err).toBe("");
    expect(out).toContain("  live objects  peak 2747   end 1268\n");
  });

  it("lists the same addresses for the same seed", async () => {
    const lines = [`replay ${FORK} --stop 20000 --list`, "replay --end"];
    const random = { append: "slab_freelist_random=on" };
    const first = await console_run(lines, { seed: 5, ...random });
    expect(await console_run(lines, { seed: 5, ...random })).toEqual(first);
    expect((await console_run(lines, { seed: 6, ...random })).out).not.toBe(first.out);
  });

  it("fails with one line", async () => {
    const folder = mkdtempSync(join(tmpdir(), "kheap-"));
    try {
      const bad = join(folder, "bad.trace");
      writeFileSync(bad, "#kheap-trace 1\n#gfp 0 GFP_KERNEL\n#site 0 s\nk 0 0 0n 0 60 64 0 -1 0\nf 0 0 0n 1 0\n");
      const faults: [line: string, says: string][] = [
        [`replay ${bad}`, `${bad}:5: object 1 was never allocated`],
        [`replay ${bad} --malloc`, `${bad}:1: header line 1 of 4 is no number`],
        [`replay ${folder}/none`, `${folder}/none: no such file`],
        [`replay ${data}/malloclab/lsr.rep.gz`, `${data}/malloclab/lsr.rep.gz:1: the first line is not "#kheap-trace 1"`],
        ["replay", "usage: replay FILE"],
        [`replay ${bad} ${bad}`, "usage: replay FILE"],
        [`replay ${bad} --pages --malloc`, "usage: replay FILE"],
        [`replay ${bad} --end`, "usage: replay FILE"],
        [`replay ${bad} --fast`, "replay: no option --fast; usage: replay FILE"],
        [`replay ${bad} --stop`, 'replay: --stop: '],
        [`replay ${bad} --stop 0`, 'replay: --stop: "0" given, 1 to '],
        [`replay ${bad} --stop many`, 'replay: --stop: "many" given, 1 to '],
      ]; // prettier-ignore
      const { out, err, failed } = await console_run([...faults.map(([line]) => line), "validate"]);
      const said = err.trimEnd().split("\n");
      expect(said).toHaveLength(faults.length);
      for (const [i, [, says]] of faults.entries()) expect(said[i]).toContain(says);
      expect(out).toMatch(/^\d+ pages .*all is well\n$/);
      expect(failed).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
