/** SLOB at length: the larger recording on every preset, and sweeps of failing allocations. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { PRESETS } from "../../hal/machine.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { open_mode, run_slice } from "../../boot/replay/modes.ts";
import { kernel_ops } from "../../boot/replay/ops.ts";
import { replay_figures } from "../../boot/replay/report.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { answer } from "./run.ts";

const slob = { append: "slab=slob" };

it.each(Object.values(PRESETS))("fs-walk on $name: the counts are the recording's", (machine) => {
  const path = fileURLToPath(new URL("../data/traces/fs-walk.trace.gz", import.meta.url));
  const { totals } = JSON.parse(readFileSync(path.replace(".trace.gz", ".truth.json"), "utf8")) as { totals: object };
  const { peak_live_objects, end_live_objects } = totals as Record<string, number>;
  with_machine({ ...slob, machine }, () => {
    const run = open_mode("objects", path, read_trace_file(path), kernel_ops);
    while (run_slice(run, 20_000, Infinity)) expect(validate_mm()).toEqual([]);
    run.books.finish();
    expect(replay_figures(run, 0)).toMatchObject({ failed: 0, peak_live_objects, end_live_objects });
    run.books.release();
  });
});

it.each(["stat /", "mkdir /new", "boot"])("faultsweep %s finds nothing", async (command) => {
  expect(await answer(`faultsweep --sample 3 ${command}`, slob)).toContain(" 0 findings");
});
