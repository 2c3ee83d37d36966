/** Shrinkers: how much each is asked for, by the known answers of a real kernel's arithmetic. */
import { describe, expect, it } from "vitest";
import { static_data } from "../../hal/image.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import {
  SHRINKER_NUMA_AWARE, SHRINK_EMPTY, SHRINK_STOP, Shrinker, shrink_slab, shrinker_alloc, shrinker_deferred,
  shrinker_free, shrinker_register, type ShrinkControl, type ShrinkerPtr,
} from "../../mm/shrinker.ts"; // prettier-ignore
import { SLABS_SCANNED, global_vm_event } from "../../mm/vmstat.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import { with_machine } from "../lib/machine.ts";

/** What the shrinker of the test says, and what it was asked. */
const script = static_data("t_shrinker", {
  freeable: "s32",
  stop_after: "u32",
  calls: "u32",
  scanned: "u32",
  order: "u32",
});

const count = ksym("t_shrinker_count", () => script.freeable);
const scan = ksym("t_shrinker_scan", (_shrinker: ShrinkerPtr, sc: ShrinkControl) => {
  if (script.calls === script.stop_after) return SHRINK_STOP;
  script.calls = script.calls + 1;
  script.scanned = script.scanned + sc.nr_to_scan;
  return 1;
});
const count_second = ksym("t_shrinker_count_second", (shrinker: ShrinkerPtr) => {
  script.order = script.order * 10 + Shrinker.private_data.get(shrinker);
  return 0;
});

function with_shrinker(flags: number, fn: (shrinker: ShrinkerPtr) => void): void {
  with_machine({}, () => {
    const shrinker = shrinker_alloc(flags);
    shrinker_register(shrinker, count, scan, 0);
    script.stop_after = 0xffff;
    fn(shrinker);
    shrinker_free(shrinker);
  });
}

describe("a shrinker", () => {
  // freeable, deferred before, priority, seeks, batch -> calls, scanned, deferred after
  it.each([
    [1_000_000, 0, 12, 2, 128, 3, 384, 104],
    [10_000, 0, 0, 2, 128, 156, 19_968, 32],
    [100, 0, 0, 2, 128, 1, 128, 72],
    [5000, 300, 2, 2, 1024, 2, 2048, 752],
    [10_000, 0, 12, 2, 128, 0, 0, 4],
  ])(
    "%i freeable, %i deferred, priority %i, seeks %i, batch %i",
    (freeable, before, priority, seeks, batch, calls, scanned, after) => {
      with_shrinker(SHRINKER_NUMA_AWARE, (shrinker) => {
        Shrinker.seeks.set(shrinker, seeks);
        Shrinker.batch.set(shrinker, 1);
        if (before > 0) defer(shrinker, before);
        Shrinker.batch.set(shrinker, batch);
        Object.assign(script, { freeable, calls: 0, scanned: 0 });
        const counted = global_vm_event(SLABS_SCANNED);
        expect(shrink_slab(GFP_KERNEL, 0, priority)).toBe(calls);
        expect([script.calls, script.scanned, shrinker_deferred(shrinker, 0)]).toEqual([calls, scanned, after]);
        expect(global_vm_event(SLABS_SCANNED) - counted).toBe(scanned);
      });
    },
  );

  /** Makes the shrinker put off exactly `nr`: asked for that many, it stops at once. */
  function defer(shrinker: ShrinkerPtr, nr: number): void {
    Object.assign(script, { freeable: nr, stop_after: 0, calls: 0 });
    Shrinker.seeks.set(shrinker, 4);
    shrink_slab(GFP_KERNEL, 0, 0);
    Shrinker.seeks.set(shrinker, 2);
    script.stop_after = 0xffff;
    expect(shrinker_deferred(shrinker, 0)).toBe(nr);
  }

  it("without seeks is asked for half of what it has, whatever the priority", () => {
    with_shrinker(0, (shrinker) => {
      Shrinker.seeks.set(shrinker, 0);
      Object.assign(script, { freeable: 1000, calls: 0, scanned: 0 });
      shrink_slab(GFP_KERNEL, 0, 12);
      expect([script.scanned, shrinker_deferred(shrinker, 0)]).toEqual([384, 116]);
    });
  });

  it("that has nothing is not asked, and what it put off stays", () => {
    with_shrinker(SHRINKER_NUMA_AWARE, (shrinker) => {
      defer(shrinker, 50);
      for (const freeable of [0, SHRINK_EMPTY]) {
        Object.assign(script, { freeable, calls: 0 });
        expect(shrink_slab(GFP_KERNEL, 0, 0)).toBe(0);
        expect([script.calls, shrinker_deferred(shrinker, 0)]).toEqual([0, 50]);
      }
    });
  });

  it("keeps what it put off by node if nodes matter to it, else all together", () => {
    for (const [flags, expected] of [
      [SHRINKER_NUMA_AWARE, [4, 4]],
      [0, [8, 8]],
    ] as const)
      // prettier-ignore
      with_shrinker(flags, (shrinker) => {
        script.freeable = 10_000;
        for (const nid of [0, 1]) shrink_slab(GFP_KERNEL, nid, 12);
        expect([0, flags ? 1 : 0].map((nid) => shrinker_deferred(shrinker, nid))).toEqual(expected);
      });
  });

  it("is asked in the order of registration", () => {
    with_machine({}, () => {
      const shrinkers = [1, 2, 3].map((n) => {
        const shrinker = shrinker_alloc(0);
        shrinker_register(shrinker, count_second, scan, n);
        return shrinker;
      });
      script.order = 0;
      shrink_slab(GFP_KERNEL, 0, 0);
      expect(script.order).toBe(123);
      shrinkers.forEach(shrinker_free);
    });
  });

  it("is made whole or not at all", () => {
    with_machine({}, () => {
      for (const n of [1, 2]) {
        set_fail_nth(n);
        const shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE);
        if (shrinker !== 0) shrinker_free(shrinker);
        else expect(shrinker).toBe(0);
      }
      set_fail_nth(0);
      shrinker_free(0);
    });
  });
});
