/** /proc/sys/vm: what the knobs say, what they take, and what changes by it. */
import { describe, expect, it } from "vitest";
import { EACCES, EINVAL } from "../../../kernel/lib/errno.ts";
import { validate_pages } from "../../../mm/validate_pages.ts";
import { PGALLOC, global_vm_event } from "../../../mm/vmstat.ts";
import { Zone, for_each_populated_zone, node_state } from "../../../mm/zone.ts";
import { cat, echo, ls, text_of, with_files } from "./files.ts";

const read = (knob: string): string => text_of(`/proc/sys/vm/${knob}`);
const write = (knob: string, text: string): number => echo(text, `/proc/sys/vm/${knob}`, 0);
const marks = (): number[] => [...for_each_populated_zone()].map((zone) => Zone.watermark.get(zone, 0));

describe("/proc/sys/vm", () => {
  it("has the knobs of what is there, with Linux's first values", () => {
    with_files(() => {
      expect(ls("/proc/sys/vm")).toEqual([
        "compact_memory", "drop_caches", "lowmem_reserve_ratio", "min_free_kbytes", "min_slab_ratio",
        "min_unmapped_ratio", "numa_stat", "oom_dump_tasks",
        "oom_kill_allocating_task", "panic_on_oom", "percpu_pagelist_high_fraction", "stat_refresh", "vfs_cache_pressure", "watermark_boost_factor", "watermark_scale_factor",
        "zone_reclaim_mode",
      ]); // prettier-ignore
      expect(read("lowmem_reserve_ratio")).toBe("256\t256\t32\t0\t0\n");
      expect(read("min_free_kbytes")).toBe(`${node_state.min_free_kbytes}\n`);
      expect(["percpu_pagelist_high_fraction", "vfs_cache_pressure", "watermark_boost_factor", "watermark_scale_factor"].map(read)).toEqual(["0\n", "100\n", "15000\n", "10\n"]); // prettier-ignore
      expect([read("stat_refresh"), cat("/proc/sys/vm/drop_caches")]).toEqual(["", -EACCES]);
    });
  });

  it("numa_stat: 0 makes all NUMA counters 0, 1 has them begin again; what was allocated stays counted", () => {
    with_files(() => {
      const hits = (): number => Number(/numa_hit (\d+)/.exec(text_of("/sys/devices/system/node/node0/numastat"))![1]);
      const allocs = (): number => global_vm_event(PGALLOC + 2);
      expect(read("numa_stat")).toBe("1\n");
      expect(hits()).toBeGreaterThan(10);
      const before = allocs();
      expect(write("numa_stat", "0")).toBe(1);
      expect([hits(), Number(/numa_hit (\d+)/.exec(text_of("/proc/vmstat"))![1])]).toEqual([0, 0]);
      expect(write("numa_stat", "2")).toBe(-EINVAL);
      expect(write("numa_stat", "1")).toBe(1);
      expect(hits()).toBeLessThan(10);
      expect(allocs()).toBeGreaterThanOrEqual(before);
    });
  });

  it("min_free_kbytes sets all marks anew", () => {
    with_files(() => {
      const [before, kbytes] = [marks(), node_state.min_free_kbytes];
      expect(write("min_free_kbytes", `${kbytes * 2}\n`)).toBeGreaterThan(0);
      expect(read("min_free_kbytes")).toBe(`${kbytes * 2}\n`);
      for (const [i, mark] of marks().entries()) expect(Math.abs(mark - 2 * before[i]!)).toBeLessThanOrEqual(1);
      write("min_free_kbytes", String(kbytes));
      expect(marks()).toEqual(before);
    });
  });

  it("lowmem_reserve_ratio sets what low zones keep for themselves, and with it what user space may count on", () => {
    with_files(() => {
      const protection = (): string[] =>
        text_of("/proc/zoneinfo")
          .match(/protection: .*/g)!
          .slice(0, 3);
      const sizes = text_of("/proc/zoneinfo")
        .match(/managed  \d+/g)!
        .map((text) => Number(text.slice(9)));
      const [before, total] = [protection(), node_state.totalreserve_pages];
      const kept = (zone: number, ratio: number): string => {
        const above = [0, 1, 2, 3, 4].map((high) => sizes.slice(zone + 1, high + 1).reduce((sum, n) => sum + n, 0));
        return `protection: (${above.map((pages, high) => (high <= zone || ratio === 0 ? 0 : Math.floor(pages / ratio))).join(", ")})`;
      };
      expect(before).toEqual([kept(0, 256), kept(1, 256), kept(2, 32)]);
      expect(write("lowmem_reserve_ratio", "64 128\n")).toBe(7);
      expect(read("lowmem_reserve_ratio")).toBe("64\t128\t32\t0\t0\n"); // the others stay
      expect(protection()).toEqual([kept(0, 64), kept(1, 128), kept(2, 32)]);
      expect(node_state.totalreserve_pages).toBeGreaterThan(total);
      expect(validate_pages()).toEqual([]);
      expect(write("lowmem_reserve_ratio", "0 -3")).toBe(4);
      expect(read("lowmem_reserve_ratio")).toBe("0\t0\t32\t0\t0\n");
      expect(protection()).toEqual([kept(0, 0), kept(1, 0), kept(2, 32)]);
      write("lowmem_reserve_ratio", "256 256");
      expect([protection(), node_state.totalreserve_pages]).toEqual([before, total]);
    });
  });

  it("watermark_scale_factor moves the marks apart", () => {
    with_files(() => {
      const low = (): number[] => [...for_each_populated_zone()].map((zone) => Zone.watermark.get(zone, 1));
      const before = low();
      expect(["0", "3001"].map((text) => write("watermark_scale_factor", text))).toEqual([-EINVAL, -EINVAL]);
      expect(write("watermark_scale_factor", "1000")).toBe(4);
      for (const [i, zone] of [...for_each_populated_zone()].entries())
        expect(low()[i]! - Zone.watermark.get(zone, 0)).toBe(Math.floor(Zone.managed_pages.get(zone) / 10));
      write("watermark_scale_factor", "10");
      expect(low()).toEqual(before);
    });
  });

  it("percpu_pagelist_high_fraction is 0 or at least 8, and moves what CPUs may keep", () => {
    with_files(() => {
      const high = (): string[] => text_of("/proc/zoneinfo").match(/high_max: +\d+/g)!;
      const before = high();
      expect(write("percpu_pagelist_high_fraction", "7")).toBe(-EINVAL);
      expect(write("percpu_pagelist_high_fraction", "100")).toBe(3);
      expect(read("percpu_pagelist_high_fraction")).toBe("100\n");
      expect(high()).not.toEqual(before);
      expect(write("percpu_pagelist_high_fraction", "0")).toBe(1);
      expect(high()).toEqual(before);
    });
  });

  it("the others keep what they are given, and all refuse what is no number", () => {
    with_files(() => {
      for (const knob of ["vfs_cache_pressure", "watermark_boost_factor"]) {
        const before = read(knob);
        expect(write(knob, " 50\n")).toBe(4);
        expect(read(knob)).toBe("50\n");
        for (const text of ["", "x", "-1", "1 2", "2147483648"]) expect(write(knob, text), text).toBe(-EINVAL);
        expect(read(knob)).toBe("50\n");
        write(knob, before);
      }
      expect(write("stat_refresh", "1")).toBe(1);
      expect([write("drop_caches", "3"), write("drop_caches", "9")]).toEqual([1, -EINVAL]);
      for (const text of ["", "x", "1 2 3 4 5 6", "1 2147483648"]) expect(write("lowmem_reserve_ratio", text), text).toBe(-EINVAL); // prettier-ignore
    });
  });
});
