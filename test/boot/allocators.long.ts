/** SLAB and SLOB at length: the larger recording on every preset, and what asks for memory with its allocations failing. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { PRESETS } from "../../hal/machine.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { open_mode, run_slice } from "../../boot/replay/modes.ts";
import { kernel_ops } from "../../boot/replay/ops.ts";
import { replay_figures } from "../../boot/replay/report.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { console_run } from "./run.ts";

const data = fileURLToPath(new URL("../data", import.meta.url));

/** Lines of the console that make the heap work; each is one sweep. */
const LINES = [
  "kmem create t_x 300 flags=SLAB_HWCACHE_ALIGN ctor; kmem alloc t_x 60; kmem free t_x all; kmem shrink t_x; kmem destroy t_x",
  "kmem create t_y 40; kmem alloc t_y 3 node=1",
  "kmem create t_z 700; kmem alloc t_z 90; on 1 kmem free t_z all",
  "kmalloc 300",
  "kmalloc 300 node=1",
  "kmalloc 5000",
  "kmalloc 100000",
  "kmalloc 64 gfp=GFP_ATOMIC",
  "vmalloc 20000",
  "fork 3",
  "fork 2; kill sleep; run 4",
  "stat /",
  "mkdir -p /tmp/d/e/f; touch /tmp/d/e/f/g; rm -r /tmp/d",
  "echo hello > /tmp/x; echo more >> /tmp/x; cat /tmp/x; rm /tmp/x",
  "cat /proc/1/status /proc/meminfo /proc/vmstat",
  "numactl -i all mkdir /tmp/d",
  "memhog 2",
  `replay ${data}/traces/fork-shell.trace.gz --stop 400`,
  `replay ${data}/malloclab/lsr.rep.gz --malloc --stop 200; replay --end`,
  "boot",
];

describe.each(["slab", "slob"])("%s", (slab) => {
  const append = `slab=${slab}`;

  it.each(Object.values(PRESETS))("fs-walk on $name: the counts are the recording's", (machine) => {
    const path = `${data}/traces/fs-walk.trace.gz`;
    const { totals } = JSON.parse(readFileSync(path.replace(".trace.gz", ".truth.json"), "utf8")) as { totals: object };
    const { peak_live_objects, end_live_objects } = totals as Record<string, number>;
    with_machine({ append, machine }, () => {
      const run = open_mode("objects", path, read_trace_file(path), kernel_ops);
      while (run_slice(run, 20_000, Infinity)) expect(validate_mm()).toEqual([]);
      run.books.finish();
      expect(replay_figures(run, 0)).toMatchObject({ failed: 0, peak_live_objects, end_live_objects });
      run.books.release();
    });
  });

  it.each(LINES)("faultsweep %s", async (line) => {
    const sample = line === "boot" ? "--sample 3" : "--sample 50";
    const sweep = ["kill crond syslogd getty", "run 20", `faultsweep ${sample} '${line}'`];
    const { out, err, failed } = await console_run(sweep, { append });
    expect({ err, failed }).toEqual({ err: "", failed: false });
    expect(out).toContain(" 0 findings\n");
  });
});
