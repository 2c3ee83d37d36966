/** What a replay finds that is stopped at the peak of a comparison: the same, by another way of driving and counting. */
import { expect } from "vitest";
import type { Comparison } from "../../boot/compare/compare.ts";
import { look } from "../../boot/compare/look.ts";
import { read_trace_file } from "../../boot/replay/file.ts";
import { open_mode, run_slice, type Mode } from "../../boot/replay/modes.ts";
import { kernel_ops } from "../../boot/replay/ops.ts";
import { replay_figures } from "../../boot/replay/report.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";

/** The number of the event line that is the peak's allocation. */
function peak_event(name: Mode["name"], file: string, allocation: number): number {
  let allocs = 0;
  let event = 0;
  const count = <T>(call: () => T): T => {
    allocs++;
    return call();
  };
  const { kmalloc_node, kmem_cache_alloc_node, krealloc } = kernel_ops;
  const ops = {
    ...kernel_ops,
    kmalloc_node: (...args: Parameters<typeof kmalloc_node>) => count(() => kmalloc_node(...args)),
    krealloc: (...args: Parameters<typeof krealloc>) => count(() => krealloc(...args)),
    kmem_cache_alloc_node: (...args: Parameters<typeof kmem_cache_alloc_node>) =>
      count(() => kmem_cache_alloc_node(...args)),
  };
  with_machine({ machine: TEST_MACHINE }, () => {
    const mode = open_mode(name, file, read_trace_file(file), ops);
    while (allocs < allocation && run_slice(mode, 1, Infinity));
    event = mode.reader.events;
    mode.books.release();
  });
  return event;
}

/** Checks a comparison on the test machine, seed 1, against replays of its file. */
export function stopped_replay(name: Mode["name"], file: string, { demand, columns }: Comparison): void {
  const event = peak_event(name, file, demand.peak_at);
  for (const { allocator, parameters, memory } of columns.filter((column) => column.allocator !== "buddy"))
    with_machine({ machine: TEST_MACHINE, append: parameters, until: "init" }, () => {
      expect(look(), allocator).toEqual(memory!.before);
      const mode = open_mode(name, file, read_trace_file(file), kernel_ops);
      run_slice(mode, Infinity, event + 1);
      expect(look(), allocator).toEqual(memory!.peak);
      const figures = replay_figures(mode, 0);
      // There the 8 bytes in front of SLOB's blocks count as given.
      const headers = allocator === "slob" ? figures.end_live_bytes_alloc - memory!.peak_slots : 0;
      expect(headers % 8).toBe(0);
      expect(figures, allocator).toMatchObject({
        peak_live_bytes_req: demand.peak_bytes,
        end_live_objects: memory!.peak_objects,
        end_live_bytes_alloc: memory!.peak_slots + headers,
      });
      mode.books.release();
    });
}
