/** The memory files of /proc and the nodes': every line has the form of a real kernel's, every figure is the counters'. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { nr_cpu_ids } from "../../../hal/cpu.ts";
import { PRESETS, machine_from_options, type MachineSpec } from "../../../hal/machine.ts";
import { O_CREAT, O_RDWR } from "../../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../../kernel/fs/namei.ts";
import { file_write } from "../../../kernel/fs/open.ts";
import { si_mem_available } from "../../../mm/show_mem.ts";
import { GFP_KERNEL, MIGRATE_HIGHATOMIC, MIGRATE_NAMES } from "../../../mm/gfp.ts";
import { kfree, kmalloc } from "../../../mm/kmalloc.ts";
import { KmemCache, find_cache, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free } from "../../../mm/slab_common.ts"; // prettier-ignore
import { ListHead } from "../../../kernel/lib/list.ts";
import { get_pageblock_migratetype, set_pageblock_migratetype } from "../../../mm/pageblock.ts";
import { pfn_to_page } from "../../../mm/page.ts";
import { PGALLOC, global_vm_event, vmstat_lines } from "../../../mm/vmstat.ts";
import {
  FreeArea,
  Zone,
  for_each_populated_zone,
  for_each_zone,
  node_state,
  pageblock_nr_pages,
} from "../../../mm/zone.ts";
import { ls, text_of, with_file, with_files } from "./files.ts";

const real = (name: string): string[] =>
  readFileSync(`test/data/real-proc/${name}`, "latin1").replace(/\n$/, "").split("\n");
const lines_of = (path: string): string[] => {
  const text = text_of(path);
  expect(text.endsWith("\n")).toBe(true);
  return text.slice(0, -1).split("\n");
};
/** A line with its numbers left out, but not the blanks before them. */
const shape = (line: string): string => line.replace(/\d+/g, "#");
/** A line with its numbers and the blanks before them left out. */
const words = (line: string): string => line.replace(/ +\d+/g, " #");
/** `name value` lines as a record. */
const pairs = (lines: string[]): Record<string, number> =>
  Object.fromEntries(lines.map((line) => [line.split(/:? +/)[0]!, Number(/(\d+)(?: kB)?$/.exec(line)![1])]));
/** True if `part` is `whole` with some lines left out. */
const expect_subsequence = (part: readonly string[], whole: readonly string[]): string[] => {
  const left_out: string[] = [];
  let at = 0;
  for (const line of part) {
    while (at < whole.length && whole[at] !== line) left_out.push(whole[at++]!);
    expect(whole[at++], `${line} is not there, or stands elsewhere`).toBe(line);
  }
  return [...left_out, ...whole.slice(at)];
};
/** Puts the machine to some use, so that there is something to count. */
function with_load(fn: () => void): void {
  with_files(() => {
    const cache = kmem_cache_create("a_cache_with_a_long_name", 300, 0, 0, null);
    const objects = Array.from({ length: 100 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    const large = kmalloc(100_000, GFP_KERNEL);
    for (let i = 0; i < 40; i += 2) kmem_cache_free(cache, objects[i]!);
    with_file("/tmp/a", O_CREAT | O_RDWR, (file) => file_write(file, new Uint8Array(50_000)));
    // What is looked up later is cached from now on, so that reading takes no pages.
    for (const name of "slabinfo buddyinfo meminfo vmstat zoneinfo pagetypeinfo".split(" ")) text_of(`/proc/${name}`);
    for (const node of [0, 1]) for (const name of ["meminfo", "numastat"]) text_of(`/sys/devices/system/node/node${node}/${name}`); // prettier-ignore
    fn();
    kfree(large);
    objects.forEach((object, i) => (i < 40 && i % 2 === 0 ? undefined : kmem_cache_free(cache, object)));
    kmem_cache_destroy(cache);
    do_unlinkat("/tmp/a");
  });
}

describe("/proc/slabinfo", () => {
  const number = (width: number): string => `(?: {0,${width - 1}}\\d{1,${width}}|\\d{${width + 1},})`;
  const line_form = new RegExp(
    `^(\\S+) *(?<=^.{17,}) ${number(6)} ${number(6)} ${number(6)} ${number(4)} ${number(4)}` +
      ` : tunables ${number(4)} ${number(4)} ${number(4)} : slabdata ${number(6)} ${number(6)} ${number(6)}$`,
  );

  it("has a real kernel's two header lines, and lines of its form", () => {
    with_load(() => {
      const [ours, theirs] = [lines_of("/proc/slabinfo"), real("slabinfo")];
      expect(ours.slice(0, 2)).toEqual(theirs.slice(0, 2));
      for (const line of [...theirs, ...ours].filter((text) => !/^slabinfo|^#/.test(text)))
        expect(line).toMatch(line_form);
      expect(ours[2]).toMatch(/^a_cache_with_a_long_name {4}104 {4}104 {4}304 /);
    });
  });

  it("lists the caches, newest first, with their slabs' real figures", () => {
    with_load(() => {
      const ours = lines_of("/proc/slabinfo").slice(2);
      const caches = [...for_each_cache()];
      expect(ours.length).toBe(caches.length);
      for (const [i, cache] of caches.entries()) {
        const info = get_slabinfo(cache);
        const fields = ours[i]!.split(/[\s:]+/).filter((word) => !/^(tunables|slabdata)$/.test(word));
        expect(fields[0]).toBe(KmemCache.name.get(cache));
        expect(fields.slice(1).map(Number)).toEqual([
          info.active_objs, info.num_objs, KmemCache.size.get(cache), info.objects_per_slab, 2 ** info.cache_order,
          0, 0, 0, info.num_slabs, info.num_slabs, 0,
        ]); // prettier-ignore
      }
    });
  });
});

describe("/proc/buddyinfo and /proc/pagetypeinfo", () => {
  const form = /^Node \d+, zone [ \w]{7}\w (?:[ \d]{5}\d ){11}$/;

  it("buddyinfo has a real kernel's form and counts all free blocks of each populated zone", () => {
    with_load(() => {
      const ours = lines_of("/proc/buddyinfo");
      for (const line of [...real("buddyinfo"), ...ours]) expect(line).toMatch(form);
      const zones = [...for_each_populated_zone()];
      expect(ours.map((line) => line.slice(0, 21))).toEqual(
        zones.map((zone) => `Node ${Zone.node.get(zone)}, zone ${Zone.name.get(zone).padStart(8)}`),
      );
      for (const [i, zone] of zones.entries()) {
        const counts = ours[i]!.slice(22).trim().split(/ +/).map(Number);
        const pages = counts.reduce((sum, count, order) => sum + count * 2 ** order, 0);
        expect(pages).toBe(Zone.vm_stat.get(zone, 0)); // A75
      }
    });
  });

  it("pagetypeinfo has the words of a real kernel, and its counts add up to buddyinfo's", () => {
    with_load(() => {
      const ours = lines_of("/proc/pagetypeinfo");
      const theirs = real("pagetypeinfo");
      expect(ours.slice(0, theirs.length).map(words)).toEqual(theirs.map(words)); // node 0 has the same three zones
      expect(ours[theirs.length]).toBe("Page block order: 9");
      expect(ours[3]).toBe(theirs[3]);
      for (const line of [...theirs, ...ours].filter((text) => /, type/.test(text)))
        expect(line).toMatch(/^Node {4}\d, zone [ \w]{8}, type [ \w]{12} (?:[ \d]{5}\d ){11}$/);
      const buddy = lines_of("/proc/buddyinfo");
      for (const line of buddy) {
        const zone = line.slice(4, 21).replace(/^ (\d)/, "    $1");
        const rows = ours.filter((text) => text.startsWith(`Node${zone}, type`)).map((text) => text.slice(44));
        const sums = Array.from({ length: 11 }, (_, order) => rows.reduce((sum, row) => sum + Number(row.slice(order * 7, order * 7 + 6)), 0)); // prettier-ignore
        expect(rows.length).toBe(MIGRATE_NAMES.length);
        expect(sums).toEqual(line.slice(22).trim().split(/ +/).map(Number));
      }
    });
  });

  it("a list of 100000 blocks and more is not counted to its end", () => {
    with_files(() => {
      const zone = [...for_each_populated_zone()][2]!;
      const head = FreeArea.free_list.at(Zone.free_area.at(zone, 4), MIGRATE_HIGHATOMIC);
      const row = (): string => lines_of("/proc/pagetypeinfo").filter((line) => line.includes("HighAtomic"))[2]!;
      const before = row();
      text_of("/proc/pagetypeinfo");
      const endless = kmalloc(ListHead.sizeof, GFP_KERNEL);
      ListHead.next.set(endless, endless);
      ListHead.next.set(head, endless); // a list without an end
      const while_so = row();
      ListHead.next.set(head, head);
      kfree(endless);
      expect(while_so).toBe(before.slice(0, 72) + ">100000" + before.slice(78));
    });
  });

  it("extfrag tells how much of what is free is in pieces too small, and whether a block would fail by that", () => {
    with_load(() => {
      const debug = (name: string): string[] => lines_of(`/sys/kernel/debug/extfrag/${name}`);
      const buddy = lines_of("/proc/buddyinfo");
      const [unusable, extfrag] = [debug("unusable_index"), debug("extfrag_index")];
      for (const line of unusable) expect(line).toMatch(/^Node \d, zone [ \w]{7}\w ([01]\.\d{3} ){11}$/);
      for (const line of extfrag)
        expect(line).toMatch(/^Node \d, zone [ \w]{7}\w ((-1\.000| 0\.(\d{3}|-\d\d+)) ){11}$/);
      for (const [i, line] of buddy.entries()) {
        const blocks = line.slice(22).trim().split(/ +/).map(Number);
        const pages = blocks.map((count, order) => count * 2 ** order);
        const free = pages.reduce((sum, n) => sum + n, 0);
        const of = (text: string): number[] => text.slice(22).trim().split(/ +/).map((cell) => Number(cell.replace("0.-", "-0."))); // prettier-ignore
        for (const [order, index] of of(unusable[i]!).entries()) {
          const small = pages.slice(0, order).reduce((sum, n) => sum + n, 0);
          expect(Math.round(index * 1000)).toBe(Math.floor((small * 1000) / free));
        }
        for (const [order, index] of of(extfrag[i]!).entries()) {
          const all = blocks.reduce((sum, n) => sum + n, 0);
          const fails = 1000 - Math.floor((1000 + Math.floor((free * 1000) / 2 ** order)) / all);
          expect(Math.round(index * 1000)).toBe(blocks.slice(order).some((n) => n > 0) ? -1000 : fails);
        }
      }
    });
  });

  it("page blocks are counted from the zone's first frame on, those that lie in the zone", () => {
    with_files(() => {
      const count = (): number[][] =>
        lines_of("/proc/pagetypeinfo").filter((line) => /^Node \d, zone/.test(line)).map((line) => line.slice(22).trim().split(/ +/).map(Number)); // prettier-ignore
      const before = count();
      const zones = [...for_each_populated_zone()];
      for (const [i, zone] of zones.entries())
        expect(before[i]!.reduce((sum, n) => sum + n, 0)).toBe(Math.ceil(Zone.spanned_pages.get(zone) / pageblock_nr_pages)); // prettier-ignore
      const page = pfn_to_page(Zone.zone_start_pfn.get(zones[2]!) + pageblock_nr_pages);
      const type = get_pageblock_migratetype(page);
      set_pageblock_migratetype(page, MIGRATE_HIGHATOMIC);
      expect(count()[2]![MIGRATE_HIGHATOMIC]).toBe(1);
      set_pageblock_migratetype(page, type);
    });
  });
});

describe("/proc/zoneinfo", () => {
  /** The lines of each zone. */
  const zones_of = (lines: string[]): string[][] => {
    const zones: string[][] = [];
    for (const line of lines) (line.startsWith("Node ") ? zones[zones.push([]) - 1]! : zones.at(-1)!).push(line);
    return zones;
  };
  const without_zspages = (zone: string[]): string[] => zone.filter((line) => !line.includes("nr_zspages"));

  it("has a real kernel's lines: of a node's first zone, of its others, of empty ones", () => {
    with_load(() => {
      const [ours, theirs] = [zones_of(lines_of("/proc/zoneinfo")), zones_of(real("zoneinfo")).map(without_zspages)];
      expect(ours.length).toBe([...for_each_zone()].length);
      for (let i = 0; i < 5; i++) expect(ours[i]!.map(shape)).toEqual(theirs[i]!.map(shape)); // node 0: all five
      expect(ours[5]!.map(shape)).toEqual(theirs[3]!.map((line) => shape(line).replace("Movable", "    DMA"))); // empty
      expect(ours[7]!.map(shape)).toEqual(theirs[0]!.map((line) => shape(line).replace("   DMA", "Normal"))); // node 1's first
    });
  });

  it("says what the zones' own counters say", () => {
    with_load(() => {
      const ours = zones_of(lines_of("/proc/zoneinfo"));
      for (const [i, zone] of [...for_each_zone()].entries()) {
        const value = (label: string): number => Number(ours[i]!.find((line) => line.trim().startsWith(`${label} `))!.trim().split(/ +/).at(-1)); // prettier-ignore
        expect(value("pages free")).toBe(Zone.vm_stat.get(zone, 0));
        expect(value("managed")).toBe(Zone.managed_pages.get(zone));
        expect(value("spanned")).toBe(Zone.spanned_pages.get(zone));
        expect(value("min")).toBe(Zone.watermark.get(zone, 0));
        if (Zone.present_pages.get(zone) === 0) continue;
        expect(value("nr_free_pages")).toBe(Zone.vm_stat.get(zone, 0));
        expect(value("start_pfn:")).toBe(Zone.zone_start_pfn.get(zone));
        expect(ours[i]!.filter((line) => /^ {4}cpu: \d$/.test(line)).length).toBe(nr_cpu_ids());
      }
    });
  });
});

describe("/proc/meminfo", () => {
  it("has a real kernel's lines in its order; what is left out depends on the configuration there too", () => {
    with_load(() => {
      const [ours, theirs] = [lines_of("/proc/meminfo"), real("meminfo")];
      const left_out = expect_subsequence(ours.map(words), theirs.map(words));
      expect(left_out).toEqual(["Zswap: # kB", "Zswapped: # kB"]);
      for (const line of [...theirs, ...ours]) {
        if (line.startsWith("VmallocTotal")) expect(line).toBe("VmallocTotal:   34359738367 kB");
        else expect(line).toMatch(/^(?=.{24}(?: kB)?$)\S+: +\d+(?: kB)?$/);
      }
    });
  });

  it("adds up: with the counters, with buddyinfo, with the nodes", () => {
    with_load(() => {
      const ours = pairs(lines_of("/proc/meminfo"));
      const vmstat = pairs(lines_of("/proc/vmstat"));
      expect(ours.MemTotal).toBe(node_state.totalram_pages * 4);
      expect(ours.MemFree).toBe(vmstat.nr_free_pages! * 4);
      expect(ours.MemAvailable).toBe(si_mem_available() * 4);
      expect(ours.Slab).toBe(ours.SReclaimable! + ours.SUnreclaim!);
      expect(ours.SReclaimable).toBe(vmstat.nr_slab_reclaimable! * 4);
      expect(ours.Cached).toBe(13 * 4); // 50,000 bytes
      expect(ours.Unevictable).toBe(ours.Cached);
      const slab_pages = [...for_each_cache()].reduce((sum, cache) => {
        const { num_slabs, cache_order } = get_slabinfo(cache);
        return sum + num_slabs * 2 ** cache_order;
      }, 0);
      expect(ours.Slab).toBe((slab_pages + 32) * 4); // and 100,000 bytes of kmalloc in 32 pages
      const nodes = [0, 1].map((node) => pairs(lines_of(`/sys/devices/system/node/node${node}/meminfo`).map((line) => line.slice(7)))); // prettier-ignore
      for (const label of ["MemTotal", "MemFree", "Slab", "SReclaimable", "Unevictable", "KernelStack"])
        expect(nodes[0]![label]! + nodes[1]![label]!, label).toBe(pairs(lines_of("/proc/meminfo"))[label]);
      for (const node of nodes) expect(node.MemUsed).toBe(node.MemTotal! - node.MemFree!);
    });
  });
});

describe("/proc/vmstat", () => {
  it("has a real kernel's names in its order, and the counters' values", () => {
    with_load(() => {
      const [ours, theirs] = [lines_of("/proc/vmstat"), real("vmstat")];
      const names = (lines: string[]): string[] => lines.map((line) => line.split(" ")[0]!);
      const left_out = expect_subsequence(names(ours), names(theirs));
      // zsmalloc, KSM and zswap are left out, as in a kernel that is configured so.
      expect(left_out).toEqual(["nr_zspages", "ksm_swpin_copy", "cow_ksm", "zswpin", "zswpout", "zswpwb"]);
      expect(ours.at(-1)).toBe("nr_unstable 0");
      const values = pairs(lines_of("/proc/vmstat"));
      for (const { name, value } of vmstat_lines()) expect(values[name], name).toBe(value);
      expect(values.pgalloc_normal).toBe(global_vm_event(PGALLOC + 2));
      expect(values.unevictable_pgs_culled).toBeGreaterThanOrEqual(values.nr_unevictable!); // pages of ramfs
    });
  });

  it("its dirty thresholds are 20 and 10 percent of what can be had", () => {
    with_files(() => {
      const values = pairs(lines_of("/proc/vmstat"));
      const base = values.nr_free_pages! - node_state.totalreserve_pages + 1;
      expect(values.nr_dirty_threshold).toBe(Math.floor((base * 819) / 4096));
      expect(values.nr_dirty_background_threshold).toBe(Math.floor((base * 409) / 4096));
    });
  });
});

describe("a node's files in /sys", () => {
  it("have a real kernel's lines", () => {
    with_load(() => {
      const node = (name: string): string[] => lines_of(`/sys/devices/system/node/node0/${name}`);
      expect(node("meminfo").map(words)).toEqual(real("node0.meminfo").map(words));
      for (const line of [...node("meminfo"), ...real("node0.meminfo")])
        expect(line).toMatch(/^Node 0 \S+: +\d+( kB)?$/);
      expect(node("meminfo").map((line) => line.length)).toEqual(real("node0.meminfo").map((line) => line.length));
      expect(node("numastat").map(words)).toEqual(real("node0.numastat").map(words));
      const names = (lines: string[]): string[] => lines.map((line) => line.split(" ")[0]!);
      expect(names(node("vmstat"))).toEqual(names(real("node0.vmstat")).filter((name) => name !== "nr_zspages"));
      expect([node("cpulist"), node("cpumap"), node("distance")]).toEqual([["0"], ["1"], ["10 20"]]);
    });
  });

  it("numastat of all nodes adds up to vmstat", () => {
    with_load(() => {
      const nodes = [0, 1].map((n) => pairs(lines_of(`/sys/devices/system/node/node${n}/numastat`)));
      const all = pairs(lines_of("/proc/vmstat"));
      expect(nodes[0]!.numa_hit! + nodes[1]!.numa_hit!).toBe(all.numa_hit);
      expect(nodes[0]!.local_node! + nodes[1]!.local_node!).toBe(all.numa_local);
      expect(nodes[0]!.other_node! + nodes[1]!.other_node!).toBe(all.numa_other);
    });
  });

  it("show RAM in blocks of 128 MiB: those that have some, and the zone that holds each", () => {
    with_files(
      () => {
        const at = "/sys/devices/system/memory";
        expect(text_of(`${at}/block_size_bytes`)).toBe("8000000\n");
        const blocks = ls(at) as string[];
        expect(blocks.slice(1)).toEqual([...Array(9).keys()].map((block) => `memory${block}`));
        const zones = blocks.slice(1).map((name) => text_of(`${at}/${name}/valid_zones`).trim());
        // Block 0 has three zones, and nodes 2 and 3 meet in the middle of block 6.
        expect(zones).toEqual([..."none Normal Normal Normal Normal Normal none Normal Normal".split(" ")]);
        const last = blocks.at(-1)!;
        const values = ["online", "phys_device", "phys_index", "removable", "state"].map((file) => text_of(`${at}/${last}/${file}`)); // prettier-ignore
        expect(values).toEqual([
          "1\n",
          "0\n",
          `${Number(last.slice(6)).toString(16).padStart(8, "0")}\n`,
          "0\n",
          "online\n",
        ]);
      },
      { machine: PRESETS.server! },
    );
  });

  it("name the nodes and CPUs of a machine of four nodes and eight CPUs", () => {
    with_files(
      () => {
        const sys = (path: string): string => text_of(`/sys/devices/system/${path}`).trim();
        expect(["online", "possible", "has_cpu", "has_memory", "has_normal_memory"].map((name) => sys(`node/${name}`))).toEqual(Array(5).fill("0-3")); // prettier-ignore
        expect(["online", "possible", "present"].map((name) => sys(`cpu/${name}`))).toEqual(["0-7", "0-7", "0-7"]);
        expect(sys("node/node0/cpulist")).not.toBe("");
        expect(sys("node/node3/distance").split(" ").length).toBe(4);
        expect(sys("cpu/cpu7/topology/physical_package_id")).toBe("3");
        expect(sys("cpu/cpu7/topology/thread_siblings")).toBe("80");
        expect(sys("cpu/cpu7/topology/core_siblings_list")).toBe(sys("node/node3/cpulist"));
        expect(sys("cpu/cpu0/online")).toBe("1");
      },
      { machine: machine_from_options({ mem: "64M", nodes: "4", cpus: "8" }) as MachineSpec },
    );
  });
});

it("a large cache appears under its own name in the first line of slabinfo, and is gone when it is destroyed", () => {
  with_files(() => {
    const cache = kmem_cache_create("a_new_cache", 5000, 0, 0, null);
    expect(lines_of("/proc/slabinfo")[2]).toMatch(/^a_new_cache {12}0 {6}0 {3}5000 {4}6 {4}8 : /);
    kmem_cache_destroy(cache);
    expect(find_cache("a_new_cache")).toBe(0);
    expect(text_of("/proc/slabinfo")).not.toContain("a_new_cache");
  });
});
