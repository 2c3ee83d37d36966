import { expect, test } from "vitest";
import { on_cpu } from "../../hal/cpu.ts";
import { with_machine } from "../lib/machine.ts";
import { zone_of } from "../lib/pages.ts";
import { GFP_KERNEL, ZONE_NORMAL } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { vmstat_update } from "../../mm/pagesets.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { show_mem_lines, si_meminfo } from "../../mm/show_mem.ts";
import {
  NR_SLAB_RECLAIMABLE, PGALLOC, PGFREE, VM_EVENT_NAMES, calculate_normal_threshold, count_vm_events, global_node_page_state,
  global_vm_event, global_zone_page_state, mod_node_page_state, node_page_state, vm_event_ptr, vmstat_lines,
  zone_numa_event_state,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { ram32 } from "../../hal/ram.ts";
import { NODE_DATA, NR_FREE_PAGES, NUMA_HIT, NUMA_LOCAL, Zone, node_state } from "../../mm/zone.ts";

test("the lines of /proc/vmstat stand in Linux's order", () => {
  with_machine({}, () => {
    const names = vmstat_lines().map(({ name }) => name);
    expect(names.slice(0, 11)).toEqual([
      "nr_free_pages", "nr_free_pages_blocks", "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file",
      "nr_zone_active_file", "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock", "nr_free_cma", "numa_hit",
    ]); // prettier-ignore
    expect(names.slice(15, 18)).toEqual(["numa_other", "nr_inactive_anon", "nr_active_anon"]);
    expect(names.indexOf("pgalloc_dma")).toBe(names.indexOf("pswpout") + 1);
    expect(names.indexOf("pgfree")).toBe(names.indexOf("pgskip_device") + 1);
    expect(new Set(names).size).toBe(names.length);
    expect(VM_EVENT_NAMES[PGALLOC + ZONE_NORMAL]).toBe("pgalloc_normal");
    expect(VM_EVENT_NAMES[PGFREE]).toBe("pgfree");
    expect(vmstat_lines(1).map(({ name }) => name)).toEqual(names.slice(0, names.indexOf("pgpgin")));
  });
});

test("events are counted on the CPU where they happen, and summed by the reader", () => {
  with_machine({}, () => {
    const before = global_vm_event(PGFREE);
    on_cpu(1, () => count_vm_events(PGFREE, 5));
    count_vm_events(PGFREE, 2);
    expect(global_vm_event(PGFREE)).toBe(before + 7);
    on_cpu(1, vmstat_update); // carries the 32-bit counts into totals
    expect(ram32[vm_event_ptr(PGFREE, 1) >> 2]).toBe(0);
    expect(global_vm_event(PGFREE)).toBe(before + 7);
  });
});

test("the hot path's NUMA counts are in the sums before and after they are folded", () => {
  with_machine({}, () => {
    const zone = zone_of(0, ZONE_NORMAL);
    const hits = (): number[] => [zone_numa_event_state(zone, NUMA_HIT), zone_numa_event_state(zone, NUMA_LOCAL)];
    const [hit, local] = hits();
    for (let i = 0; i < 100; i++) __free_pages(alloc_pages(GFP_KERNEL, 0), 0);
    expect(hits()).toEqual([hit + 100, local + 100]);
    vmstat_update();
    expect(hits()).toEqual([hit + 100, local + 100]);
    expect(Zone.numa_event.get(zone, NUMA_HIT)).toBe(hit + 100);
  });
});

test("node counters count where they are told and sum over nodes", () => {
  with_machine({}, () => {
    const before = global_node_page_state(NR_SLAB_RECLAIMABLE);
    mod_node_page_state(NODE_DATA(1), NR_SLAB_RECLAIMABLE, 3);
    expect(global_node_page_state(NR_SLAB_RECLAIMABLE)).toBe(before + 3);
    mod_node_page_state(NODE_DATA(1), NR_SLAB_RECLAIMABLE, -3);
    expect(node_page_state(NODE_DATA(1), NR_SLAB_RECLAIMABLE)).toBeGreaterThanOrEqual(0);
  });
});

test.each([
  [2, 3840, 4],
  [2, 131072, 16],
  [8, 1 << 20, 56],
  [256, 1 << 24, 125],
])("with %d CPUs a zone of %d pages has the threshold %d", (cpus, managed, threshold) => {
  expect(calculate_normal_threshold(cpus, managed)).toBe(threshold);
});

test("totals: managed, free, and about what could be had", () => {
  with_machine({}, () => {
    drain_all_pages();
    const totals = si_meminfo();
    expect(totals.total).toBe(node_state.totalram_pages);
    expect(totals.free).toBe(global_zone_page_state(NR_FREE_PAGES));
    expect(totals.available).toBeLessThan(totals.free + 1000);
    expect(totals.available).toBeGreaterThan(totals.free / 2);
    const text = show_mem_lines().join("\n");
    expect(text).toContain(` free:${totals.free} free_pcp:0 free_cma:0`);
  });
});
