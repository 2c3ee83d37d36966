/** The OOM killer: whom it takes, what it says, what becomes of who asked; and a machine that lives through it. */
import { describe, expect, it } from "vitest";
import { MIB, PRESETS, type MachineSpec } from "../../hal/machine.ts";
import { events } from "../../hal/events.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { drop_caches } from "../../kernel/fs/drop_caches.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { O_CREAT, O_WRONLY } from "../../kernel/fs/fs.ts";
import { KernelPanic } from "../../kernel/lib/bug.ts";
import { spin_lock, spin_unlock } from "../../kernel/lib/spinlock.ts";
import { schedule_until } from "../../kernel/lockstep.ts";
import { describe_task } from "../../kernel/oom.ts";
import { program, spawn } from "../../kernel/program.ts";
import type { Result } from "../../kernel/syscall.ts";
import { Journal, SignalStruct, TaskStruct, for_each_process, task_state_char, tasklist } from "../../kernel/task.ts";
import { GFP_KERNEL, GFP_NOFS, __GFP_NOWARN, __GFP_RETRY_MAYFAIL, __GFP_THISNODE } from "../../mm/gfp.ts";
import { oom_badness, out_of_memory, set_oom_knob, type OomTask } from "../../mm/oom_kill.ts";
import { __free_pages, alloc_pages, nr_free_pages } from "../../mm/page_alloc.ts";
import type { PagePtr } from "../../mm/page.ts";
import { KmemCache, for_each_cache, get_slabinfo, slab_data } from "../../mm/slab_common.ts";
import { SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { validate_mm } from "../../mm/validate.ts";
import { OOM_KILL, PGSTEAL_KSWAPD, SLABS_SCANNED, all_vm_events, global_vm_event } from "../../mm/vmstat.ts";
import { node_state } from "../../mm/zone.ts";
import { echo, text_of } from "../kernel/fs/files.ts";
import { log, reports, task_named, test_init, with_tasks } from "../kernel/tasks.ts";

const SMALL: MachineSpec = { ...PRESETS.embedded!, dma_limit: 16 * MIB, dma32_limit: 16 * MIB };

// Holds some memory: what it reads is in its journal, 4 KB a piece. Then sleeps, or ends.
program("t_hog", function* (sys, pieces: number, sleeps: number) {
  const fd: number = yield sys.open("/usr/media/film0");
  for (let i = 0; i < pieces; i++) yield sys.read(fd, 4000);
  if (sleeps) yield sys.sleep(1_000_000);
  return 0;
});
const with_hogs = (...sizes: number[]) =>
  test_init(`t_hogs_${sizes.join("_")}`, function* (sys) {
    for (const pieces of sizes) if ((yield sys.fork()) === 0) yield sys.exec("t_hog", pieces, 1);
    yield sys.sleep(100);
  });
const hogs = with_hogs(20, 60, 40);
const larger_hogs = with_hogs(80, 60, 40);
const equal_hogs = with_hogs(30, 30, 30);
const dozen = with_hogs(...Array.from({ length: 12 }, () => 1));
const task = (of: Partial<OomTask>): OomTask => ({
  task: 64, pid: 9, tgid: 9, uid: 0, comm: "t", total_vm: 0, rss_anon: 0, rss_file: 0, rss_shmem: 0, pgtables_bytes: 0,
  swapents: 0, oom_score_adj: 0, unkillable: false, dying: false, ...of,
}); // prettier-ignore
const ooms = (): number => global_vm_event(OOM_KILL);
const hog_tasks = (): number[] => [...for_each_process()].filter((each) => TaskStruct.comm.get(each) === "t_hog");
const adjust = (nth: number, adj: number): void =>
  SignalStruct.oom_score_adj.set(TaskStruct.signal.get(hog_tasks()[nth]!), adj);
/** The console runs out of memory. */
const kill_one = (gfp = GFP_KERNEL): boolean => kernel_entry("host", () => out_of_memory(gfp, 0, 0))!;

describe("points", () => {
  it("are what a task holds, and its adjustment in thousandths of all memory", () => {
    const held = task({ rss_anon: 100, rss_file: 20, rss_shmem: 3, swapents: 4, pgtables_bytes: 8192 });
    expect(oom_badness(held, 10_500)).toBe(129);
    expect(oom_badness(task({ rss_anon: 50, oom_score_adj: -10 }), 10_500)).toBe(50 - 10 * 10);
    expect(oom_badness(task({ rss_anon: 50, oom_score_adj: 1000 }), 10_500)).toBe(10_050);
    for (const never of [{ unkillable: true }, { oom_score_adj: -1000 }])
      expect(oom_badness(task({ rss_anon: 50, ...never }), 10_500)).toBe(-Infinity);
  });
});

describe("the victim", () => {
  // Which of three tasks with 20, 60 and 40 pieces goes, as one thing changes at a time.
  it.each<[string, (n: number) => void, number]>([
    ["is the one that holds most", () => {}, 1],
    ["changes with the adjustment of another", (most) => adjust(0, most), 0],
    ["does not change with an adjustment that does not suffice", () => adjust(0, 1), 1],
    ["changes with its own adjustment", () => adjust(1, -1000), 2],
    ["does not change with an adjustment of all", (most) => [0, 1, 2].forEach((i) => adjust(i, most)), 1],
  ])("%s", (_what, change, expected) => {
    with_tasks(hogs, () => {
      const before = hog_tasks();
      const rss = before.map((each) => describe_task(each).rss_anon);
      rss.forEach((pages, i) =>
        expect(pages).toBeGreaterThanOrEqual(Journal.nr_pages.get(TaskStruct.journal.at(before[i]!))),
      );
      expect(rss[1]).toBeGreaterThan(rss[2]!);
      expect(rss[2]).toBeGreaterThan(rss[0]!);
      change(100);
      const pids = before.map((each) => TaskStruct.pid.get(each));
      expect(kill_one()).toBe(true);
      expect(log().filter((line) => line.startsWith("Out of memory: Killed process")).map((line) => Number(/process (\d+)/.exec(line)![1]))).toEqual([pids[expected]]); // prettier-ignore
      expect([ooms(), task_state_char(before[expected]!)]).toEqual([1, "Z"]);
    });
  });

  it("changes when one task holds more, and of equals is the youngest", () => {
    for (const [init, expected] of [[larger_hogs, 0], [equal_hogs, 2]] as const)
      with_tasks(init, () => {
        const victim = hog_tasks()[expected]!;
        kill_one();
        expect(task_state_char(victim)).toBe("Z");
      }); // prettier-ignore
  });

  it("is never init, a kernel thread or one with -1000; the console then gets no memory, and a task a panic", () => {
    with_tasks(hogs, () => {
      hog_tasks().forEach((_hog, i) => adjust(i, -1000));
      expect([kill_one(), ooms()]).toEqual([false, 0]);
      expect(log().at(-1)).toBe("Out of memory and no killable processes...");
      set_oom_knob("panic_on_oom", 1);
      expect(() => kill_one()).toThrow("Out of memory: system-wide panic_on_oom is enabled");
      set_oom_knob("panic_on_oom", 2);
      expect(() => kill_one()).toThrow("Out of memory: compulsory panic_on_oom is enabled");
      set_oom_knob("panic_on_oom", 0);
    });
  });

  it("gives back its pages at once, and its parent learns of it", () => {
    with_tasks(hogs, () => {
      const heard: { pid: number; comm: string; pages: number }[] = [];
      const listen = (event: (typeof heard)[number]): void => void heard.push(event);
      events.on("oom", listen);
      const victim = hog_tasks()[1]!;
      const { pid, rss_anon } = describe_task(victim);
      kill_one();
      events.off("oom", listen);
      expect(heard).toEqual([{ pid, comm: "t_hog", pages: rss_anon }]);
      expect([Journal.nr_pages.get(TaskStruct.journal.at(victim)), TaskStruct.stack.get(victim)]).toEqual([0, 0]);
      schedule_until(() => !hog_tasks().includes(victim), 1000);
      expect(hog_tasks()).not.toContain(victim);
    });
  });
});

describe("the report", () => {
  it("is Linux's, line by line", () => {
    with_tasks(hogs, () => {
      const [victim] = [hog_tasks()[1]!];
      const { pid, total_vm, rss_anon, pgtables_bytes } = describe_task(victim);
      const rows = hog_tasks().map(describe_task);
      kernel_entry("host", () => drop_caches(1)); // now slabs hold more than LRU lists
      const start = log().length;
      kill_one();
      const lines = log().slice(start);
      expect(lines[0]).toBe("swapper/0 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0");
      expect(lines).toContain("Mem-Info:");
      expect(lines).toContain("Unreclaimable slab info:");
      const at = lines.indexOf("Tasks state (memory values in pages):");
      const cell = (n: number, width: number): string => String(n).padStart(width);
      expect(lines.slice(at + 1, at + 2 + rows.length)).toEqual([
        "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
        ...rows.map((t) => `[${cell(t.pid, 7)}]     0 ${cell(t.pid, 5)} ${cell(t.total_vm, 8)} ${cell(t.rss_anon, 8)} ${cell(t.rss_anon, 8)}        0         0 ${cell(t.pgtables_bytes, 8)}        0             0 t_hog`), // prettier-ignore
      ]);
      expect(lines.slice(-3)).toEqual([
        `oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0-1,global_oom,task_memcg=/,task=t_hog,pid=${pid},uid=0`,
        `Out of memory: Killed process ${pid} (t_hog) total-vm:${total_vm * 4}kB, anon-rss:${rss_anon * 4}kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:${pgtables_bytes >> 10}kB oom_score_adj:0`,
        `oom_reaper: reaped process ${pid} (t_hog), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB`,
      ]);
    });
  });

  it("lists the caches that nothing shrinks, newest first, in KB; not while somebody makes or destroys one", () => {
    with_tasks(hogs, () => {
      const said = (fn: () => unknown): string[] => {
        const start = log().length;
        kernel_entry("host", fn);
        return log().slice(start);
      };
      drop_caches(1);
      const busy = [...for_each_cache()].filter((cache) => !(KmemCache.flags.get(cache) & SLAB_RECLAIM_ACCOUNT) && get_slabinfo(cache).num_objs > 0); // prettier-ignore
      const kb = (count: number, cache: number): string => `${Math.floor((count * KmemCache.size.get(cache)) / 1024)}KB`.padStart(12); // prettier-ignore
      const rows = busy.map((cache) => {
        const { active_objs, num_objs } = get_slabinfo(cache);
        return `${KmemCache.name.get(cache).padEnd(17)} ${kb(active_objs, cache)} ${kb(num_objs, cache)}`;
      });
      const lines = said(() => out_of_memory(GFP_KERNEL, 0, 0));
      const at = lines.indexOf("Unreclaimable slab info:");
      expect(lines.slice(at + 1, at + 2 + rows.length)).toEqual([
        "Name                      Used          Total",
        ...rows,
      ]);
      expect(rows.length).toBeGreaterThan(5);
      const locked = said(() => {
        spin_lock(slab_data.mutex);
        out_of_memory(GFP_KERNEL, 0, 0);
        spin_unlock(slab_data.mutex);
      });
      expect(locked).toContain("excessive unreclaimable slab but cannot dump stats");
      expect(locked).not.toContain("Unreclaimable slab info:");
    });
  });

  it("is made ten times in five seconds at most; each kill has its line", () => {
    with_tasks(dozen, () => {
      for (let i = 0; i < 12; i++) kill_one();
      const count = (text: string): number => log().filter((line) => line.includes(text)).length;
      expect([count("invoked oom-killer"), count("Killed process"), ooms()]).toEqual([10, 12, 12]);
    });
  });

  it("names the nodes that a bound request could not go beyond", () => {
    with_tasks(hogs, () => {
      kernel_entry("host", () => out_of_memory(GFP_KERNEL, 0, 0b10));
      expect(log().some((line) => line.startsWith("oom-kill:constraint=CONSTRAINT_MEMORY_POLICY,nodemask=1,cpuset=/"))).toBe(true); // prettier-ignore
    });
  });
});

describe("/proc", () => {
  it("shows and sets the adjustment on both scales, and the score; a child inherits it", () => {
    with_tasks(hogs, () => {
      const hog = hog_tasks()[0]!;
      const { pid, rss_anon, pgtables_bytes } = describe_task(hog);
      const held = rss_anon + Math.floor(pgtables_bytes / 4096);
      const file = (name: string): string => `/proc/${pid}/${name}`;
      const total = node_state.totalram_pages;
      expect(text_of(file("oom_score"))).toBe(`${Math.trunc(((1000 + Math.trunc((held * 1000) / total)) * 2) / 3)}\n`);
      expect(echo("500", file("oom_score_adj"))).toBe(3);
      expect([text_of(file("oom_score_adj")), text_of(file("oom_adj"))]).toEqual(["500\n", "8\n"]);
      expect(echo("-17", file("oom_adj"))).toBe(3);
      expect([text_of(file("oom_score_adj")), text_of(file("oom_score"))]).toEqual(["-1000\n", "0\n"]);
      const child = kernel_entry("host", () => spawn(hog, "t_hog", [1, 1]))!;
      expect(describe_task(child).oom_score_adj).toBe(-1000);
      expect(log()).toContain(`swapper/0 (0): ${file("oom_adj")} is deprecated, please use ${file("oom_score_adj")} instead.`); // prettier-ignore
      for (const wrong of ["1001", "-1001", "x", ""]) expect(echo(wrong, file("oom_score_adj"))).toBeLessThanOrEqual(0);
      expect(echo("1", "/proc/sys/vm/panic_on_oom")).toBe(1);
      expect(echo("3", "/proc/sys/vm/panic_on_oom")).toBe(-22);
      expect(text_of("/proc/sys/vm/panic_on_oom")).toBe("1\n");
      set_oom_knob("panic_on_oom", 0);
    });
  });
});

describe("a request that finds no memory", () => {
  /** Takes pages until there are no more, gives them back, and says how many tasks that killed. */
  function exhaust(gfp: number, order = 0): number {
    const pages: PagePtr[] = [];
    const before = ooms();
    kernel_entry("host", () => {
      for (let page = alloc_pages(gfp | __GFP_NOWARN, order); page !== 0; page = alloc_pages(gfp | __GFP_NOWARN, order)) pages.push(page); // prettier-ignore
      pages.forEach((page) => __free_pages(page, order));
    });
    return ooms() - before;
  }

  it("kills only if it may have memory of any zone and node, is small, and may enter file systems", () => {
    with_tasks(
      hogs,
      () => {
        for (const gfp of [GFP_KERNEL | __GFP_RETRY_MAYFAIL, GFP_KERNEL | __GFP_THISNODE, GFP_NOFS, GFP_KERNEL | 1]) expect(exhaust(gfp)).toBe(0); // prettier-ignore
        expect(exhaust(GFP_KERNEL, 4)).toBe(0);
        expect([exhaust(GFP_KERNEL), hog_tasks().filter((each) => task_state_char(each) !== "Z")]).toEqual([3, []]);
      },
      { machine: SMALL },
    );
  });
});

/** Writes into the RAM file system for as long as it lives. */
program("t_filler", function* (sys) {
  const fd: number = yield sys.open("/tmp/big", O_CREAT | O_WRONLY);
  const text = "x".repeat(65536);
  for (;;) yield sys.write(fd, text);
});
const one_filler = test_init("t_one_filler", function* (sys) {
  const file: number = yield sys.open("/proc/sys/vm/oom_kill_allocating_task", O_WRONLY);
  yield sys.write(file, "1");
  const pid: number = yield sys.fork();
  if (pid === 0) yield sys.exec("t_filler");
  yield sys.syslog(JSON.stringify(yield sys.wait(pid)));
});
const lonely = test_init("t_lonely", function* (sys) {
  const fd: number = yield sys.open("/tmp/big", O_CREAT | O_WRONLY);
  for (;;) yield sys.write(fd, "x".repeat(65536));
});

describe("a task that asks", () => {
  it("and is the victim itself gets reserves, and ends at its next entry", () => {
    with_tasks(
      one_filler,
      () => {
        expect(reports()).toEqual([expect.stringMatching(/^\{"pid":\d+,"status":9\}$/)]);
        expect(log().filter((line) => /Killed process/.test(line))).toEqual([expect.stringMatching(/^Out of memory \(oom_kill_allocating_task\): Killed process \d+ \(t_filler\)/)]); // prettier-ignore
        kernel_entry("host", () => do_unlinkat("/tmp/big"));
      },
      { machine: SMALL },
    );
  });

  it("and is init, with nobody left to kill, ends the machine", () => {
    expect(() => with_tasks(lonely, () => {}, { machine: SMALL })).toThrow(KernelPanic);
    expect(log().at(-1)).toBe("Kernel panic - not syncing: System is deadlocked on memory");
  });
});

// Twenty-five programs that together want more than the machine has.
const crowd = test_init("t_crowd", function* (sys) {
  for (let i = 0; i < 25; i++) if ((yield sys.fork()) === 0) yield sys.exec("t_hog", 200, 0);
  const ended = { ok: 0, killed: 0 };
  for (let i = 0; i < 25; i++) {
    const result: Result = yield sys.wait();
    if ((result as { status: number }).status === 0) ended.ok++;
    else ended.killed++;
  }
  yield sys.syslog(JSON.stringify(ended));
});

// A child looks at files and ends; its parent has ten of them.
program("t_child", function* (sys, nr: number) {
  const folder = `/usr/src/${String(nr % 256).padStart(3, "0")}`;
  for (let i = 0; i < 3; i++) yield sys.stat(`${folder}/${String((nr + i) % 256).padStart(3, "0")}.c`);
  const fd: number = yield sys.open(`${folder}/000.c`);
  yield sys.read(fd, 100);
  return 0;
});
program("t_parent", function* (sys, nr: number) {
  for (let i = 0; i < 10; i++) if ((yield sys.fork()) === 0) yield sys.exec("t_child", nr * 10 + i);
  for (let i = 0; i < 10; i++) yield sys.wait();
});
const idle = test_init("t_oom_idle", function* () {});

describe("a machine under pressure", () => {
  it("lives on: of twenty-five programs that want more than there is, some are killed and all others end well", () => {
    with_tasks(
      crowd,
      () => {
        const { ok, killed } = JSON.parse(reports()[0]!) as { ok: number; killed: number };
        expect(ok + killed).toBe(25);
        expect(killed).toBe(ooms());
        expect(ok).toBeGreaterThan(10);
        expect(killed).toBeGreaterThan(0);
        expect(validate_mm()).toEqual([]);
        expect(task_named("t_crowd")).toBeDefined();
      },
      { machine: SMALL },
    );
  });

  it("lives on: a thousand processes fork, read and end where almost nothing is free; no page is lost", () => {
    with_tasks(
      idle,
      () => {
        // What the console holds cannot be reclaimed: 300 pages are left for all.
        const held: PagePtr[] = [];
        kernel_entry("host", () => {
          while (nr_free_pages() > 300) {
            held.push(alloc_pages(GFP_KERNEL, 0));
            if (held.at(-1) === 0) throw new Error("300 pages are more than any mark");
          }
        });
        const before = tasklist.total_forks;
        const parents = (): number => [...for_each_process()].filter((each) => TaskStruct.comm.get(each) === "t_parent").length; // prettier-ignore
        for (let nr = 0; nr < 100; nr++) {
          kernel_entry("host", () => spawn(task_named("t_oom_idle")!, "t_parent", [nr]));
          schedule_until(() => parents() < 2, 5000);
          if (nr % 20 === 0) expect(validate_mm()).toEqual([]);
        }
        schedule_until(() => parents() === 0, 20_000);
        expect(tasklist.total_forks - before).toBeGreaterThan(1000);
        const events = all_vm_events();
        expect(events[PGSTEAL_KSWAPD]! + events[PGSTEAL_KSWAPD + 1]!).toBeGreaterThan(50);
        expect(events[SLABS_SCANNED]).toBeGreaterThan(100);
        kernel_entry("host", () => held.forEach((page) => __free_pages(page, 0)));
      },
      { machine: SMALL },
    );
  });
});
