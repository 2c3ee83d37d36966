/**
 * Memory comes up: from the firmware's tables, over garbage, to zones, page structs, zonelists and the free lists of the
 * buddy allocator. The machines are booted as far as this part goes; everything is read back from RAM.
 */
import { beforeAll, describe, expect, test } from "vitest";
import { cpu_switch, cpu_to_node, numa_node_id } from "../../hal/cpu.ts";
import { BOOT_PARAMS, firmware_power_on } from "../../hal/firmware.ts";
import { IMAGE_BASE, image_end, image_load } from "../../hal/image.ts";
import {
  MIB,
  PRESETS,
  machine_end,
  machine_from_options,
  type MachineOptions,
  type MachineSpec,
} from "../../hal/machine.ts";
import { read_machine } from "../../hal/machine_file.ts";
import { ram8, ram_clear, ram_fill_garbage } from "../../hal/ram.ts";
import { list_next } from "../../kernel/lib/list.ts";
import { setup_command_line } from "../../kernel/lib/cmdline.ts";
import { KERN_NOTICE, printk_records, set_console_loglevel } from "../../kernel/lib/printk.ts";
import { random_init } from "../../kernel/lib/random.ts";
import { acpi_get_table } from "../../mm/acpi.ts";
import { iomem_resources } from "../../mm/e820.ts";
import {
  MIGRATE_MOVABLE,
  MIGRATE_UNMOVABLE,
  NUMA_NO_NODE,
  ZONE_DMA,
  ZONE_MOVABLE,
  ZONE_NAMES,
  ZONE_NORMAL,
} from "../../mm/gfp.ts";
import { for_each_free_mem_range, memblock_is_memory, memblock_is_reserved } from "../../mm/memblock.ts";
import {
  build_all_zonelists,
  free_area_init,
  init_per_zone_wmark_min,
  mem_init,
  mem_init_print_info,
  setup_arch_memory,
} from "../../mm/mm_init.ts";
import {
  PG_reserved,
  Page,
  mem_map_state,
  page_flag,
  page_to_nid,
  page_zonenum,
  pfn_to_page,
  pfn_valid,
} from "../../mm/page.ts";
import { page_alloc_init } from "../../mm/page_alloc.ts";
import { page_group_by_mobility, pfnblock_migratetype } from "../../mm/pageblock.ts";
import { setup_zone_pagesets } from "../../mm/pagesets.ts";
import { setup_per_cpu_areas } from "../../mm/percpu.ts";
import { global_zone_page_state } from "../../mm/vmstat.ts";
import {
  FreeArea,
  NODE_DATA,
  NR_FREE_PAGES,
  NR_PAGE_ORDERS,
  PgData,
  ZONELIST_FALLBACK,
  ZONELIST_NOFALLBACK,
  Zone,
  ZoneList,
  ZoneRef,
  for_each_online_node,
  for_each_populated_zone,
  for_each_zone,
  local_memory_node,
  node_distance,
  node_state,
  node_zonelist,
  zone_end_pfn,
} from "../../mm/zone.ts";
import { free_blocks, lowmem_reserves, zone_watermarks } from "../../mm/zone_sizing.ts";
import { with_machine } from "../lib/machine.ts";

const GARBAGE = Uint8Array.from({ length: 65536 }, (_, i) => (i * 167 + 13) & 0xff);

interface Boot {
  readonly append?: string;
  /** Changes the firmware's tables before the kernel reads them. */
  readonly tamper?: () => void;
  readonly clear?: boolean;
}

function power_on(spec: MachineSpec, { append = "", tamper, clear }: Boot): void {
  if (clear) ram_clear(machine_end(spec));
  else ram_fill_garbage(machine_end(spec), GARBAGE);
  firmware_power_on(spec);
  image_load(spec.cpus);
  cpu_switch(0);
  random_init(1);
  setup_command_line(append);
  set_console_loglevel(0);
  tamper?.();
}
/** Boots up to and with mem_init: all free memory is in the buddy allocator, nothing was allocated. */
function boot_memory(spec: MachineSpec, options: Boot = {}): void {
  power_on(spec, options);
  for (const step of [
    setup_arch_memory,
    free_area_init,
    build_all_zonelists,
    setup_per_cpu_areas,
    page_alloc_init,
    mem_init,
  ])
    step();
}
function finish_boot(): void {
  for (const step of [setup_zone_pagesets, init_per_zone_wmark_min, mem_init_print_info]) step();
}
function boot_all(spec: MachineSpec, options: Boot = {}): void {
  boot_memory(spec, options);
  finish_boot();
}
function machine(options: MachineOptions): MachineSpec {
  return machine_from_options(options) as MachineSpec;
}
function custom(json: object): MachineSpec {
  const spec = read_machine(JSON.stringify(json));
  if (typeof spec === "string") throw new Error(spec);
  return spec;
}
const log = (): string[] => [...printk_records()].map(({ text }) => text);
const zone_of = (nid: number, zone: number): number => PgData.node_zones.at(NODE_DATA(nid), zone);

/** 64 MiB of which the 128 pages below 16 MiB, where DMA32 ends, are missing. */
const SMALL_HOLE = custom({
  memory: [
    { start: 0, size: 0x9fc00 },
    { start: "1M", size: 15 * MIB - 128 * 4096 },
    { start: "16M", size: "48M" },
  ],
  nodes: [{ ranges: [{ start: 0, size: "64M" }], cpus: [0] }],
  dma_limit: "4M",
  dma32_limit: "16M",
});
const NO_MEMORY_ON_NODE_2: MachineSpec = {
  ...machine({ nodes: 3, cpus: 3, distance: "10,20,30/20,10,15/30,15,10" }),
  memory: PRESETS.textbook.memory,
  nodes: [
    { ranges: [{ start: 0, size: 128 * MIB }], cpus: [1] },
    { ranges: [{ start: 128 * MIB, size: 128 * MIB }], cpus: [2] },
    { ranges: [], cpus: [0] },
  ],
};
const MACHINES: readonly (readonly [string, MachineSpec])[] = [
  ...Object.entries(PRESETS),
  ["8 MiB", machine({ mem: "8M", nodes: 1, cpus: 1 })],
  ["100 MiB over three nodes", machine({ mem: "100M", nodes: 3, cpus: 2 })],
  ["16 nodes, 64 CPUs", machine({ mem: "256M", nodes: 16, cpus: 64 })],
  ["a small hole", SMALL_HOLE],
  ["a node without memory", NO_MEMORY_ON_NODE_2],
];

describe("the log", () => {
  test("of the textbook machine, line by line", () => {
    boot_all(PRESETS.textbook);
    expect(log().slice(0, -1)).toEqual([
      "BIOS-provided physical RAM map:",
      "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
      "BIOS-e820: [mem 0x000000000009fc00-0x00000000000fffff] reserved",
      "BIOS-e820: [mem 0x0000000000100000-0x000000000fffffff] usable",
      "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved",
      "e820: remove [mem 0x000a0000-0x000fffff] usable",
      "last_pfn = 0x10000 max_arch_pfn = 0x400000000",
      "ACPI: SRAT: Node 0 PXM 0 [mem 0x00000000-0x0009ffff]",
      "ACPI: SRAT: Node 0 PXM 0 [mem 0x00100000-0x07ffffff]",
      "ACPI: SRAT: Node 1 PXM 1 [mem 0x08000000-0x0fffffff]",
      "NUMA: Node 0 [mem 0x00000000-0x0009ffff] + [mem 0x00100000-0x07ffffff] -> [mem 0x00000000-0x07ffffff]",
      `NODE_DATA(0) allocated [mem 0x${(0x8000000 - PgData.sizeof).toString(16).padStart(8, "0")}-0x07ffffff]`,
      `NODE_DATA(1) allocated [mem 0x${(0x10000000 - PgData.sizeof).toString(16).padStart(8, "0")}-0x0fffffff]`,
      "CPU topo: Allowing 4 present CPUs plus 0 hotplug CPUs",
      "Zone ranges:",
      "  DMA      [mem 0x0000000000001000-0x0000000000ffffff]",
      "  DMA32    [mem 0x0000000001000000-0x0000000003ffffff]",
      "  Normal   [mem 0x0000000004000000-0x000000000fffffff]",
      "  Device   empty",
      "Movable zone start for each node",
      "Early memory node ranges",
      "  node   0: [mem 0x0000000000001000-0x000000000009efff]",
      "  node   0: [mem 0x0000000000100000-0x0000000007ffffff]",
      "  node   1: [mem 0x0000000008000000-0x000000000fffffff]",
      "Initmem setup node 0 [mem 0x0000000000001000-0x0000000007ffffff]",
      "Initmem setup node 1 [mem 0x0000000008000000-0x000000000fffffff]",
      "On node 0, zone DMA: 1 pages in unavailable ranges",
      "On node 0, zone DMA: 97 pages in unavailable ranges",
      "[mem 0x10000000-0xffffffff] available for PCI devices",
      "Fallback order for Node 0: 0 1 ",
      "Fallback order for Node 1: 1 0 ",
      "Built 2 zonelists, mobility grouping on.  Total pages: 65438",
      "Policy zone: Normal",
      "mem auto-init: stack:off, heap alloc:off, heap free:off",
    ]);
    expect(log().at(-1)).toMatch(
      /^Memory: \d+K\/261752K available \(\d+K kernel code, \d+K rwdata, 64K rodata, 0K init, 0K bss, \d+K reserved, 0K cma-reserved\)$/,
    );
  });

  test("five lines of it are notices: three zones, Built, Memory", () => {
    boot_all(PRESETS.textbook);
    const notices = [...printk_records()].filter(({ level }) => level <= KERN_NOTICE).map(({ text }) => text);
    expect(notices.map((text) => text.trim().split(/[ :]/)[0])).toEqual(["DMA", "DMA32", "Normal", "Built", "Memory"]);
  });

  test("the Memory line: free + what is in use = present - reserved", () => {
    boot_all(PRESETS.textbook);
    const [free, present, reserved] = /(\d+)K\/(\d+)K.* (\d+)K reserved/.exec(log().at(-1)!)!.slice(1).map(Number);
    expect(free).toBe(global_zone_page_state(NR_FREE_PAGES) * 4);
    expect(present - reserved).toBe(node_state.totalram_pages * 4);
    expect(present).toBe(65438 * 4);
  });

  test("of a machine without nodes in its tables", () => {
    boot_memory(PRESETS.embedded);
    expect(log()).toContain("No NUMA configuration found");
    expect(log()).toContain("Faking a node at [mem 0x0000000000000000-0x0000000000ffffff]");
    expect(log()).toContain("  DMA32    empty");
  });

  test("of a node without memory", () => {
    boot_memory(NO_MEMORY_ON_NODE_2);
    expect(log()).toContain("Initmem setup node 2 as memoryless");
    expect(log()).toContain("    NODE_DATA(2) on node 1");
  });

  test("a hole belongs to the zone above it", () => {
    boot_memory(SMALL_HOLE);
    expect(log()).toContain("On node 0, zone Normal: 128 pages in unavailable ranges");
    const page = pfn_to_page(0xfff);
    expect([page_zonenum(page), page_flag(page, PG_reserved)]).toEqual([ZONE_NORMAL, true]);
  });
});

describe.each(MACHINES)("%s", (_name, spec) => {
  beforeAll(() => boot_memory(spec));

  test("present is RAM, managed is what memblock had free, and all of it is in the free lists", () => {
    let free = 0;
    for (const { start, end } of for_each_free_mem_range(NUMA_NO_NODE))
      free += Math.max(0, Math.floor(end / 4096) - Math.ceil(start / 4096));
    const zones = [...for_each_zone()];
    const sum = (of: (zone: number) => number): number => zones.reduce((total, zone) => total + of(zone), 0);
    expect(sum((zone) => Zone.managed_pages.get(zone))).toBe(free);
    expect(sum((zone) => Zone.vm_stat.get(zone, NR_FREE_PAGES))).toBe(free);
    expect(node_state.totalram_pages).toBe(free);
    const ram = spec.memory.filter(({ type }) => type === 1);
    const pages = ram.reduce((total, { start, size }) => total + Math.floor((start + size) / 4096) - start / 4096, 0);
    expect(sum((zone) => Zone.present_pages.get(zone))).toBe(pages - 1); // page 0 is reserved
    for (const zone of zones) {
      expect(Zone.managed_pages.get(zone)).toBeLessThanOrEqual(Zone.present_pages.get(zone));
      expect(Zone.present_pages.get(zone)).toBeLessThanOrEqual(Zone.spanned_pages.get(zone));
    }
  });

  test("every page struct says where its page is, and whether it is free", () => {
    const { max_pfn } = mem_map_state;
    let wrong = 0;
    for (let pfn = 0; pfn < max_pfn; pfn++) {
      if (!pfn_valid(pfn)) {
        if (memblock_is_memory(pfn * 4096)) wrong++;
        continue;
      }
      const page = pfn_to_page(pfn);
      const zone = zone_of(page_to_nid(page), page_zonenum(page));
      const is_ram = pfn >= Zone.zone_start_pfn.get(zone) && pfn < zone_end_pfn(zone);
      const reserved = page_flag(page, PG_reserved);
      const flags = Page.flags.get(page) & ~(1 << PG_reserved);
      if (flags !== 0 || Page.refcount.get(page) !== (reserved ? 1 : 0) || Page.mapping.get(page) !== 0) wrong++;
      if (!reserved && !is_ram) wrong++;
      if (reserved && (Page.page_type.get(page) !== -1 || list_next(Page.lru.at(page)) !== Page.lru.at(page))) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test("pages are reserved exactly where memblock said so", () => {
    const last = mem_map_state.max_pfn;
    for (let pfn = 0; pfn < last; pfn += 37) {
      if (!pfn_valid(pfn)) continue;
      const free =
        memblock_is_memory(pfn * 4096) && !memblock_is_reserved(pfn * 4096) && !memblock_is_reserved(pfn * 4096 + 4095);
      expect([pfn, page_flag(pfn_to_page(pfn), PG_reserved)]).toEqual([pfn, !free]);
    }
  });

  test("a page block that starts in RAM is movable, any other unmovable", () => {
    for (const zone of for_each_populated_zone()) {
      const start = Zone.zone_start_pfn.get(zone);
      for (let pfn = start - (start % 512); pfn < zone_end_pfn(zone); pfn += 512) {
        const in_ram = pfn >= start && pfn > 0 && memblock_is_memory(pfn * 4096);
        expect([pfn, pfnblock_migratetype(zone, pfn)]).toEqual([pfn, in_ram ? MIGRATE_MOVABLE : MIGRATE_UNMOVABLE]);
      }
    }
  });

  test("a zonelist has each populated zone once, its own node's first, highest first", () => {
    const populated = [...for_each_populated_zone()].length;
    for (const nid of for_each_online_node()) {
      const zones = zonelist(nid, ZONELIST_FALLBACK);
      expect(new Set(zones).size).toBe(populated);
      expect(zones.length).toBe(populated);
      const home = local_memory_node(nid);
      if (PgData.node_present_pages.get(NODE_DATA(nid)) > 0) expect(home).toBe(nid);
      const own = zones.filter((zone) => Zone.node.get(zone) === home);
      expect(zones.slice(0, own.length)).toEqual(own);
      for (let i = 1; i < own.length; i++) expect(own[i]).toBeLessThan(own[i - 1]);
      expect(zonelist(nid, ZONELIST_NOFALLBACK)).toEqual(zones.filter((zone) => Zone.node.get(zone) === nid));
    }
  });

  test("every CPU knows its node", () => {
    for (const [nid, { cpus }] of spec.nodes.entries()) for (const cpu of cpus) expect(cpu_to_node(cpu)).toBe(nid);
    expect(numa_node_id()).toBe(cpu_to_node(0));
  });

  // Last: it boots further.
  test("marks and reserves are those of the pure functions", () => {
    finish_boot();
    const zones = [...for_each_zone()];
    const sizes = zones.map((zone) => ({ zone: Zone.zone_idx.get(zone), managed: Zone.managed_pages.get(zone) }));
    const marks = zone_watermarks(sizes, node_state.min_free_kbytes);
    for (const [i, zone] of zones.entries()) {
      const { min, low, high, promo } = marks[i];
      expect([0, 1, 2, 3].map((mark) => Zone.watermark.get(zone, mark))).toEqual([min, low, high, promo]);
    }
    for (const nid of for_each_online_node()) {
      const managed = [0, 1, 2, 3, 4].map((i) => Zone.managed_pages.get(zone_of(nid, i)));
      for (const [i, reserve] of lowmem_reserves(managed).entries())
        expect(reserve.map((_, j) => Zone.lowmem_reserve.get(zone_of(nid, i), j))).toEqual(reserve);
    }
    const nodes = [...for_each_online_node()].map((nid) => PgData.totalreserve_pages.get(NODE_DATA(nid)));
    expect(nodes.reduce((a, b) => a + b, 0)).toBe(node_state.totalreserve_pages);
  });
});

function zonelist(nid: number, which: number): number[] {
  const list = node_zonelist(nid, which);
  const zones: number[] = [];
  for (let i = 0; i < ZoneList.refs.length; i++) {
    const zone = ZoneRef.zone.get(ZoneList.refs.at(list, i));
    if (zone === 0) return zones;
    expect(ZoneRef.zone_idx.get(ZoneList.refs.at(list, i))).toBe(Zone.zone_idx.get(zone));
    zones.push(zone);
  }
  throw new Error("a zonelist without end");
}

/** First frames of the blocks on a free list, head first. */
function free_list(zone: number, order: number, migratetype: number): number[] {
  const head = FreeArea.free_list.at(Zone.free_area.at(zone, order), migratetype);
  const pfns: number[] = [];
  for (let node = list_next(head); node !== head; node = list_next(node))
    pfns.push((node - Page.lru.offset - mem_map_state.mem_map) / Page.sizeof);
  return pfns;
}

test("free lists after boot: the largest aligned blocks, the lowest at the head", () => {
  boot_memory(PRESETS.textbook);
  const dma = zone_of(0, ZONE_DMA);
  const first = image_end(4) / 4096;
  const blocks = [...free_blocks(first, 0x1000)];
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    const expected = blocks.filter((block) => block.order === order).map(({ pfn }) => pfn);
    // Block 0 does not start in RAM and is unmovable; all that is free of it lies below 2 MiB.
    expect(free_list(dma, order, MIGRATE_UNMOVABLE)).toEqual(expected.filter((pfn) => pfn < 512));
    expect(free_list(dma, order, MIGRATE_MOVABLE)).toEqual(expected.filter((pfn) => pfn >= 512));
  }
});

describe("zonelists", () => {
  const names = (nid: number): string[] =>
    zonelist(nid, ZONELIST_FALLBACK).map((zone) => `${Zone.node.get(zone)}:${Zone.name.get(zone)}`);

  test("of the textbook machine", () => {
    boot_memory(PRESETS.textbook);
    expect([names(0), names(1)]).toEqual([
      ["0:Normal", "0:DMA32", "0:DMA", "1:Normal"],
      ["1:Normal", "0:Normal", "0:DMA32", "0:DMA"],
    ]);
  });

  test("of the server follow its distances", () => {
    boot_memory(PRESETS.server);
    expect(
      names(3)
        .map((name) => name[0])
        .join(""),
    ).toBe("321000");
    expect(node_distance(0, 3)).toBe(32);
    expect(log()).toContain("Fallback order for Node 3: 3 2 1 0 ");
  });

  test("of a node without memory start with the nearest that has some", () => {
    boot_memory(NO_MEMORY_ON_NODE_2);
    expect(names(2)[0]).toBe("1:Normal");
    expect(numa_node_id()).toBe(2);
    expect(local_memory_node(2)).toBe(1);
  });
});

describe("holes", () => {
  test("sections without RAM have no page structs, and the memory for these is free", () => {
    boot_memory(PRESETS.server);
    const [hole_start, hole_end] = [(512 * MIB) / 4096, (576 * MIB) / 4096];
    expect(pfn_valid(hole_start - 1) && pfn_valid(hole_end)).toBe(true);
    for (let pfn = hole_start; pfn < hole_end; pfn += 101) expect(pfn_valid(pfn)).toBe(false);
    expect(pfn_valid(-1) || pfn_valid(mem_map_state.max_pfn)).toBe(false);
    const [from, to] = [pfn_to_page(hole_start), pfn_to_page(hole_end)] as number[];
    for (let at = from; at < to; at += 4096) expect(memblock_is_reserved(at)).toBe(false);
    expect(to - from).toBe(MIB);
    expect(memblock_is_reserved(from - 1) && memblock_is_reserved(to)).toBe(true);
  });
});

describe("command line", () => {
  test("movablecore= and kernelcore= make a Movable zone on each node that has room", () => {
    boot_memory(PRESETS.textbook, { append: "movablecore=64M" });
    const starts = [0, 1].map((nid) => Zone.zone_start_pfn.get(zone_of(nid, ZONE_MOVABLE)));
    for (const [nid, start] of starts.entries()) {
      expect(start % 1024).toBe(0);
      expect(zone_end_pfn(zone_of(nid, ZONE_NORMAL))).toBe(start);
      expect(log()).toContain(`  Node ${nid}: 0x${(start * 4096).toString(16).padStart(16, "0")}`);
    }
    const movable = [0, 1].reduce((sum, nid) => sum + Zone.present_pages.get(zone_of(nid, ZONE_MOVABLE)), 0);
    expect(Math.abs(movable - 16384)).toBeLessThan(2048);
    expect(log()).toContain("Policy zone: Normal");
  });

  test("numa=off makes one node of all", () => {
    boot_memory(PRESETS.textbook, { append: "numa=off" });
    expect([...for_each_online_node()]).toEqual([0]);
    expect(log()).toContain("NUMA turned off");
    expect([0, 1, 2, 3].map(cpu_to_node)).toEqual([0, 0, 0, 0]);
  });

  test.each([
    ["", false],
    ["transparent_hugepage=never", false],
    ["transparent_hugepage=madvise", true],
  ])("%s: room for huge pages is kept free: %s", (append, bumped) => {
    boot_all(PRESETS.textbook, { append });
    const lowmem = node_state.totalram_pages;
    const by_root = Math.floor(Math.sqrt(lowmem * 4 * 16));
    const by_thp = 4 * Math.min(512 * 4 * 11, Math.floor(lowmem / 20));
    expect(node_state.min_free_kbytes).toBe(bumped ? by_thp : by_root);
  });

  test("a machine of less than five page blocks does not group by mobility", () => {
    boot_memory(machine({ mem: "8M", nodes: 1, cpus: 1 }));
    expect(page_group_by_mobility.disabled).toBe(1);
    expect(log().some((line) => line.startsWith("Built 1 zonelists, mobility grouping off."))).toBe(true);
  });
});

describe("firmware tables that cannot be right", () => {
  const reseal = (table: number): void => {
    const length = ram8[table + 4] + ram8[table + 5] * 256;
    ram8[table + 9] = 0;
    ram8[table + 9] = -ram8.slice(table, table + length).reduce((a, b) => a + b, 0);
  };
  const one_node = (): void => expect([...for_each_online_node()]).toEqual([0]);
  const FIRST_ENTRY = 48;

  test("a SRAT with a wrong checksum counts for nothing", () => {
    boot_memory(PRESETS.textbook, { tamper: () => void ram8[acpi_get_table("SRAT") + 20]++ });
    one_node();
    expect(log()).toContain("No NUMA configuration found");
  });

  test("nodes that overlap in the SRAT: one node", () => {
    const tamper = (): void => {
      const srat = acpi_get_table("SRAT");
      // entries: 2 CPUs, 2 ranges, 2 CPUs, 1 range; the last range moves down from 128 MiB to 112 MiB
      const range = srat + FIRST_ENTRY + 2 * 16 + 2 * 40 + 2 * 16;
      ram8[range + 11] = 0x07;
      reseal(srat);
    };
    boot_memory(PRESETS.textbook, { tamper });
    one_node();
    expect(log().some((line) => line.startsWith("NUMA: Error: node"))).toBe(true);
  });

  test("RAM on no node: one node", () => {
    const tamper = (): void => {
      const srat = acpi_get_table("SRAT");
      const range = srat + FIRST_ENTRY + 2 * 16 + 2 * 40 + 2 * 16;
      ram8[range + 28] = 0; // not enabled
      reseal(srat);
    };
    boot_memory(PRESETS.textbook, { tamper });
    one_node();
    expect(log()).toContain("NUMA: no nodes coverage for 128MB of 255MB RAM");
    expect(node_state.totalram_pages).toBeGreaterThan(64000);
  });

  test("a block of another node where there is no RAM keeps nothing apart", () => {
    const tamper = (): void => {
      const srat = acpi_get_table("SRAT");
      // entries: 2 CPUs, 2 ranges, 2 CPUs, 1 range
      const [upper, other] = [srat + FIRST_ENTRY + 2 * 16 + 40, srat + FIRST_ENTRY + 4 * 16 + 2 * 40];
      ram8.set([0x00, 0x00, 0xf0, 0x0f], upper + 16); // node 0 has all from 1 MiB to 256 MiB
      ram8.set([0x00, 0x00, 0x0a, 0x00], other + 8); // and node 1 what lies between 640 KiB and 1 MiB
      ram8.set([0x00, 0x00, 0x06, 0x00], other + 16);
      reseal(srat);
    };
    boot_memory(PRESETS.textbook, { tamper });
    expect(log()).toContain(
      "NUMA: Node 0 [mem 0x00000000-0x0009ffff] + [mem 0x00100000-0x0fffffff] -> [mem 0x00000000-0x0fffffff]",
    );
    expect(log()).toContain("Initmem setup node 1 as memoryless");
  });

  test("a SLIT with a wrong diagonal is not used", () => {
    const tamper = (): void => {
      const slit = acpi_get_table("SLIT");
      ram8[slit + 44] = 11;
      reseal(slit);
    };
    boot_memory(
      {
        ...PRESETS.textbook,
        distance: [
          [10, 40],
          [40, 10],
        ],
      },
      { tamper },
    );
    expect(log()).toContain("ACPI: SLIT table looks invalid. Not used.");
    expect(node_distance(0, 1)).toBe(20);
  });

  test("proximity domains get node numbers in order of first appearance, and the SLIT goes by domain", () => {
    const tamper = (): void => {
      const srat = acpi_get_table("SRAT");
      const end = srat + ram8[srat + 4] + ram8[srat + 5] * 256;
      for (let entry = srat + FIRST_ENTRY; entry < end; entry += ram8[entry + 1]) ram8[entry + 2] ^= 1;
      reseal(srat);
    };
    boot_memory(
      {
        ...PRESETS.textbook,
        distance: [
          [10, 30],
          [40, 10],
        ],
      },
      { tamper },
    );
    expect(log()).toContain("ACPI: SRAT: Node 0 PXM 1 [mem 0x00000000-0x0009ffff]");
    expect([node_distance(0, 1), node_distance(1, 0)]).toEqual([40, 30]);
  });

  test("overlapping e820 entries: the higher type wins, and the kernel boots", () => {
    const tamper = (): void => {
      const entry = BOOT_PARAMS + 0x2d0 + 3 * 20;
      ram8.fill(0, entry, entry + 20);
      ram8[entry + 3] = 0x02; // 32 MiB
      ram8[entry + 10] = 0x10; // 1 MiB
      ram8[entry + 16] = 3;
      ram8[BOOT_PARAMS + 0x1e8] = 4;
    };
    boot_memory(PRESETS.textbook, { tamper });
    expect(log()).toContain("BIOS-e820: [mem 0x0000000002000000-0x00000000020fffff] ACPI data");
    expect(memblock_is_memory(0x2080000)).toBe(false);
  });
});

test("nodes keep the numbers of the spec, whichever has CPUs, and in whatever order they lie", () => {
  boot_memory(machine({ nodes: 4, cpus: 2 }));
  expect([0, 1].map(cpu_to_node)).toEqual([0, 2]);
  const swapped: MachineSpec = {
    ...PRESETS.textbook,
    nodes: [
      { ranges: [{ start: 128 * MIB, size: 128 * MIB }], cpus: [2, 3] },
      { ranges: [{ start: 0, size: 128 * MIB }], cpus: [0, 1] },
    ],
  };
  boot_memory(swapped);
  expect(Zone.zone_start_pfn.get(zone_of(0, ZONE_NORMAL))).toBe(0x8000);
  expect([0, 1, 2, 3].map(cpu_to_node)).toEqual([1, 1, 0, 0]);
});

test("/proc/iomem: the e820 ranges, the kernel image inside its own", () => {
  boot_memory(PRESETS.embedded);
  const hex = (value: number): string => value.toString(16).padStart(8, "0");
  const lines = [...iomem_resources()].map(
    ({ start, end, name, depth }) => `${"  ".repeat(depth)}${hex(start)}-${hex(end)} : ${name}`,
  );
  expect(lines).toEqual([
    "00000000-00000fff : Reserved",
    "00001000-0009fbff : System RAM",
    "0009fc00-000fffff : Reserved",
    "00100000-00ffffff : System RAM",
    `  ${hex(IMAGE_BASE)}-0010ffff : Kernel code`,
    "  00110000-0011ffff : Kernel rodata",
    `  00120000-${hex(image_end(1) - 1)} : Kernel data`,
  ]);
});

test("a machine booted after another shows nothing of it, and the same log twice", () => {
  boot_all(PRESETS.server);
  boot_all(PRESETS.textbook);
  const first = log();
  boot_all(PRESETS.embedded);
  boot_all(PRESETS.textbook, { clear: true });
  expect(log()).toEqual(first);
  expect([...for_each_online_node()]).toEqual([0, 1]);
  expect(ZONE_NAMES.length).toBe(5);
});

test.each([
  ["8M", 1, 1],
  ["9M", 2, 4],
  ["12M", 1, 64],
  ["64M", 16, 64],
])("the least machine that is not refused runs programs: %s, %i nodes, %i CPUs", (mem, nodes, cpus) => {
  with_machine({ machine: machine({ mem, nodes, cpus }), until: "init" }, () => {
    expect(node_state.totalram_pages).toBeGreaterThan(1500);
  });
});
