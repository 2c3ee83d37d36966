/** kswapd: when it is woken, when it stops, when it sleeps; on a machine of one zone, where the marks are plain. */
import { describe, expect, it } from "vitest";
import { HZ, TICK_NSEC, clock_advance } from "../../hal/clock.ts";
import { MIB, PRESETS, type MachineSpec } from "../../hal/machine.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { O_RDONLY, SEEK_SET } from "../../kernel/fs/fs.ts";
import { file_llseek, file_read } from "../../kernel/fs/open.ts";
import { proc_text } from "../../kernel/fs/procfs.ts";
import { schedule_entries, schedule_until } from "../../kernel/lockstep.ts";
import { TaskStruct, task_state_char } from "../../kernel/task.ts";
import { timer_pending } from "../../kernel/timer.ts";
import { GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, __GFP_NOWARN } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { page_to_nid, type PagePtr } from "../../mm/page.ts";
import { zone_marks_changed } from "../../mm/plenty.ts";
import { node_is_hopeless } from "../../mm/reclaim_state.ts";
import { validate_mm } from "../../mm/validate.ts";
import { balance_pgdat, pgdat_balanced, set_kswapd_awake } from "../../mm/vmscan.ts";
import {
  ALLOCSTALL, KSWAPD_HIGH_WMARK_HIT_QUICKLY, KSWAPD_LOW_WMARK_HIT_QUICKLY, NR_INACTIVE_FILE, PAGEOUTRUN, PGSCAN_KSWAPD,
  PGSTEAL_KSWAPD, all_vm_events, global_node_page_state, global_vm_event, node_page_state,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { high_wmark_pages, set_watermark_boost_factor, wmark_pages, zone_free_pages } from "../../mm/watermark.ts";
import { NODE_DATA, PgData, WMARK_LOW, Zone, for_each_populated_zone, type ZonePtr } from "../../mm/zone.ts";
import { with_file } from "./fs/files.ts";
import { task_named, test_init, with_tasks } from "./tasks.ts";

const idle = test_init("t_kswapd_idle", function* () {});
const PAGE = 4096;
const ONE_ZONE: MachineSpec = { ...PRESETS.embedded!, dma_limit: 16 * MIB, dma32_limit: 16 * MIB };

function read_film(pages: number): void {
  with_file("/usr/media/film1", O_RDONLY, (file) => {
    for (let at = 0; at < pages; at += 64) {
      file_llseek(file, at * PAGE, SEEK_SET);
      file_read(file, Math.min(64, pages - at) * PAGE);
    }
  });
}
const kswapd = (): number => task_named("kswapd0")!;
const awake = (): boolean => PgData.kswapd_awake.get(NODE_DATA(0)) !== 0;
const napping = (): boolean => timer_pending(TaskStruct.timer.at(kswapd()));
const counters = (): number[] => {
  const events = all_vm_events();
  return [PAGEOUTRUN, KSWAPD_LOW_WMARK_HIT_QUICKLY, KSWAPD_HIGH_WMARK_HIT_QUICKLY].map((item) => events[item]!);
};

/** Lets every kswapd go to sleep. */
function settle(): void {
  schedule_until(() => false, 1000);
}

/** A machine of one zone, kswapd asleep, with as many pages of a file as asked. */
function with_one_zone(pages: number, fn: (zone: ZonePtr) => void): void {
  const run = (): void => {
    const zone = [...for_each_populated_zone()][0]!;
    set_watermark_boost_factor(0); // boosts have a test of their own
    settle();
    kernel_entry("host", () => read_film(pages));
    fn(zone);
  };
  with_tasks(idle, run, { machine: ONE_ZONE });
}

const taken: PagePtr[] = [];
/** Takes a page in an entry of its own; false if there is none. */
function take(gfp = GFP_NOWAIT): boolean {
  const page = kernel_entry("host", () => alloc_pages(gfp, 0))!;
  if (page !== 0) taken.push(page);
  return page !== 0;
}
function give_back(): void {
  kernel_entry("host", () => taken.splice(0).forEach((page) => __free_pages(page, 0)));
}
function take_until_awake(): void {
  while (!awake() && take());
}

function set_boost(zone: ZonePtr, pages: number): void {
  Zone.watermark_boost.set(zone, pages);
  zone_marks_changed(zone);
}

describe("kswapd", () => {
  it("is there for each node with memory, a child of kthreadd, on a CPU of its node, and sleeps", () => {
    with_tasks(idle, () => {
      settle();
      for (const node of [0, 1]) {
        const task = task_named(`kswapd${node}`)!;
        expect([TaskStruct.cpu.get(task), task_state_char(task)]).toEqual([node, "S"]);
        expect(TaskStruct.flags.get(task)).toBe(0x220800); // PF_KTHREAD, PF_KSWAPD, PF_MEMALLOC
        expect(PgData.kswapd.get(NODE_DATA(node))).toBe(task);
      }
      expect(global_vm_event(PAGEOUTRUN)).toBe(0);
    });
  });

  it("while it runs has requests look at other nodes first, unless all are at work", () => {
    with_tasks(idle, () => {
      settle();
      const node_of_a_page = (): number => {
        take();
        const node = page_to_nid(taken[0]!);
        give_back();
        return node;
      };
      const at_work = (...nodes: boolean[]): void => nodes.forEach((on, nid) => set_kswapd_awake(NODE_DATA(nid), on));
      const seen = [[false, false], [true, false], [true, true], [false, true]].map((nodes) => {
        at_work(...nodes);
        return node_of_a_page();
      }); // prettier-ignore
      at_work(false, false);
      expect(seen).toEqual([0, 1, 0, 0]);
    });
  });

  it("is woken by the request that finds the zone at its low mark, and by none before", () => {
    with_one_zone(500, (zone) => {
      const low = wmark_pages(zone, WMARK_LOW);
      for (let free = zone_free_pages(zone); !awake(); free = zone_free_pages(zone)) {
        expect(take()).toBe(true);
        expect(awake()).toBe(free <= low);
      }
      expect(task_state_char(kswapd())).toBe("R");
      give_back();
    });
  });

  it("reclaims until the zone is above its high mark, naps a tenth of a second, then sleeps", () => {
    with_one_zone(500, (zone) => {
      take_until_awake();
      const before = all_vm_events();
      expect(pgdat_balanced(NODE_DATA(0), 0, 2)).toBe(false);
      schedule_until(() => !awake(), 10);
      expect(zone_free_pages(zone)).toBeGreaterThan(high_wmark_pages(zone));
      const after = all_vm_events();
      // 500 >> 8 = 1, 499 >> 7 = 3, 496 >> 6 = 7, 489 >> 5 = 15 pages; by then the CPU, which may keep no more than four
      // pages of the zone while that is being reclaimed, has given back enough of what it kept.
      for (const item of [PGSCAN_KSWAPD, PGSTEAL_KSWAPD]) expect(after[item]! - before[item]!).toBe(26);
      expect(global_node_page_state(NR_INACTIVE_FILE)).toBe(500 - 26);
      expect(after.slice(ALLOCSTALL, ALLOCSTALL + 5)).toEqual(before.slice(ALLOCSTALL, ALLOCSTALL + 5));
      expect([napping(), counters()]).toEqual([true, [1, 0, 0]]);
      clock_advance((HZ / 10) * TICK_NSEC);
      schedule_until(() => !napping() && task_state_char(kswapd()) === "S", 100);
      expect([awake(), counters()]).toEqual([false, [1, 0, 0]]);
      give_back();
    });
  });

  it("counts a nap that a request cuts short, and one after which the node is out of balance again", () => {
    with_one_zone(1500, (zone) => {
      take_until_awake();
      schedule_until(() => !awake(), 10);
      expect(napping()).toBe(true);
      take_until_awake(); // in its nap
      schedule_until(() => !awake(), 10);
      expect(counters()).toEqual([2, 1, 0]);
      // Below the high mark, not at the low one: nobody wakes it, but it finds that out itself when the nap is over.
      while (zone_free_pages(zone) > high_wmark_pages(zone)) take();
      expect([awake(), napping()]).toEqual([false, true]);
      schedule_until(() => counters()[0] === 3, 1000);
      expect(counters()).toEqual([3, 1, 1]);
      give_back();
    });
  });

  /*
   * 5000 inactive pages, marks boosted by 512, the node balanced: priority 12 frees 5000 >> 12 = 1 page, 11 frees 2; 10 frees
   * 4 a round, and for a boost it does not go lower: 1 + 2 + 128 * 4 = 515 pages, the first sum of at least 512.
   */
  it("for a boost of the marks reclaims as many pages, though the node is balanced, and takes the boost back", () => {
    with_tasks(idle, () => {
      settle();
      const zone = [...for_each_populated_zone()][2]!;
      kernel_entry("host", () => read_film(5000));
      expect(node_page_state(NODE_DATA(0), NR_INACTIVE_FILE)).toBe(5000);
      kernel_entry("host", () => set_boost(zone, 512));
      expect(pgdat_balanced(NODE_DATA(0), 0, 2)).toBe(true);
      const before = global_vm_event(PGSTEAL_KSWAPD);
      kernel_entry("host", () => balance_pgdat(NODE_DATA(0), 0, 2));
      expect([Zone.watermark_boost.get(zone), global_vm_event(PGSTEAL_KSWAPD) - before]).toEqual([0, 515]);
      expect(validate_mm()).toEqual([]);
    });
  });

  it("gives up after 16 runs without a page, says so, and is not woken until somebody frees one", () => {
    with_one_zone(0, () => {
      expect(proc_text("zoneinfo")).toContain("node_unreclaimable:  0");
      while (take(GFP_ATOMIC | __GFP_NOWARN)) schedule_entries(1);
      schedule_until(() => node_is_hopeless(NODE_DATA(0)) && !awake(), 2000);
      expect(PgData.kswapd_failures.get(NODE_DATA(0))).toBe(16);
      expect(proc_text("zoneinfo")).toContain("node_unreclaimable:  1");
      const runs = global_vm_event(PAGEOUTRUN);
      expect(take(GFP_NOWAIT)).toBe(false);
      schedule_entries(50);
      expect([awake(), global_vm_event(PAGEOUTRUN)]).toEqual([false, runs]);
      give_back();
      kernel_entry("host", () => read_film(50));
      while (global_node_page_state(NR_INACTIVE_FILE) >= 50 && take(GFP_KERNEL));
      expect(PgData.kswapd_failures.get(NODE_DATA(0))).toBe(0);
      give_back();
    });
  });
});
