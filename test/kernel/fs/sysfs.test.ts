/** /sys/kernel/slab and the small files of /proc: names, links, figures, and what may be written. */
import { describe, expect, it } from "vitest";
import { on_cpu } from "../../../hal/cpu.ts";
import { O_WRONLY } from "../../../kernel/fs/fs.ts";
import { EACCES, EINVAL, ENODEV, ENOENT, ERANGE, ESRCH } from "../../../kernel/lib/errno.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import { bytes_to_string } from "../../../kernel/fs/bytes.ts";
import { do_filp_open, file_read, vfs_stat, type Stat } from "../../../kernel/fs/open.ts";
import { find_task_by_pid } from "../../../kernel/pid.ts";
import { schedule_entries, schedule_until } from "../../../kernel/lockstep.ts";
import { do_kill } from "../../../kernel/signal.ts";
import { task_state_char } from "../../../kernel/task.ts";
import { GFP_KERNEL } from "../../../mm/gfp.ts";
import { KmemCache, for_each_alias, for_each_cache, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, slab_mergeable } from "../../../mm/slab_common.ts"; // prettier-ignore
import { SLAB_ACCOUNT, SLAB_CACHE_DMA, SLAB_NO_MERGE, SLAB_RECLAIM_ACCOUNT } from "../../../mm/slab_layout.ts";
import { set_and_flush_cpu_partial } from "../../../mm/slub_cache.ts";
import { STAT_NAMES } from "../../../mm/slub_slab.ts";
import { test_init, with_tasks } from "../tasks.ts";
import { cat, echo, ls, text_of, with_files } from "./files.ts";

const attribute = (cache: string, name: string): string => text_of(`/sys/kernel/slab/${cache}/${name}`).trimEnd();
const write = (cache: string, name: string, text: string): number => echo(text, `/sys/kernel/slab/${cache}/${name}`, 0);
/** "12 N0=10 N1=2" as [12, 10, 2]. */
const figures_of = (text: string): number[] => text.split(" ").map((part) => Number(part.replace(/^N\d=/, "")));
const ATTRIBUTES =
  "slab_size object_size objs_per_slab order sheaf_capacity min_partial cpu_partial objects_partial partial cpu_slabs " +
  "ctor aliases align hwcache_align reclaim_account destroy_by_rcu shrink slabs_cpu_partial total_objects objects slabs " +
  "sanity_checks trace red_zone poison store_user validate cache_dma remote_node_defrag_ratio failslab usersize skip_kfence";

describe("/sys/kernel/slab", () => {
  it("each cache has all attributes, one line each, in Linux's order", () => {
    with_files(() => {
      const listed = ls("/sys/kernel/slab/dentry") as string[];
      expect(listed).toEqual([...ATTRIBUTES.split(" "), ...STAT_NAMES].sort());
      for (const name of listed) {
        const text = text_of(`/sys/kernel/slab/dentry/${name}`);
        if (/^(ctor|shrink|validate)$/.test(name)) expect(text).toBe("");
        else expect(text).toMatch(/^\d[^\n]*\n$/);
        const { mode } = vfs_stat(`/sys/kernel/slab/dentry/${name}`, true) as Stat;
        const writable = /^(min_partial|cpu_partial|shrink|validate|remote_node_defrag_ratio|failslab|skip_kfence)$/.test(name) || STAT_NAMES.includes(name as never); // prettier-ignore
        expect(mode & 0o777, name).toBe(writable ? 0o600 : 0o400);
      }
      expect((vfs_stat("/proc/slabinfo", true) as Stat).mode & 0o777).toBe(0o400);
    });
  });

  it("agrees with slabinfo and with itself for every cache", () => {
    with_files(() => {
      for (const cache of for_each_cache()) {
        const name = KmemCache.name.get(cache);
        // Each file is opened once before, so that looking it up takes nothing while the figures are compared.
        for (const file of "objects total_objects slabs partial objects_partial objs_per_slab".split(" "))
          attribute(name, file);
        const info = get_slabinfo(cache);
        const total = (file: string): number => figures_of(attribute(name, file))[0]!;
        expect([total("objects"), total("total_objects"), total("slabs")], name).toEqual([info.active_objs, info.num_objs, info.num_slabs]); // prettier-ignore
        expect(total("total_objects") - (total("partial") * total("objs_per_slab") - total("objects_partial"))).toBe(total("objects")); // prettier-ignore
        for (const file of ["objects", "total_objects", "slabs", "partial", "cpu_slabs"]) {
          const [sum, ...parts] = figures_of(attribute(name, file));
          expect(
            parts.reduce((a, b) => a + b, 0),
            `${name} ${file}`,
          ).toBe(sum);
        }
      }
    });
  });

  it("a cache that could be merged has a directory named after what it is, and a link for each name", () => {
    with_files(() => {
      const flags = [0, SLAB_RECLAIM_ACCOUNT, SLAB_ACCOUNT, SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, SLAB_CACHE_DMA];
      const caches = flags.map((flag, i) => kmem_cache_create(`c${i}`, 1000, 0, flag, null));
      const again = kmem_cache_create("another", 1000, 0, SLAB_ACCOUNT, null);
      const alone = kmem_cache_create("alone", 1000, 0, SLAB_NO_MERGE, null);
      expect(again).toBe(caches[2]);
      const names = ls("/sys/kernel/slab") as string[];
      for (const name of [
        ":0001000",
        ":a-0001000",
        ":A-0001000",
        ":aA-0001000",
        ":d-0001000",
        "c0",
        "another",
        "alone",
      ])
        expect(names).toContain(name);
      for (const name of [":A-0001000", "c2", "another"]) expect(attribute(name, "aliases")).toBe("1");
      expect((vfs_stat("/sys/kernel/slab/another", true) as Stat).ino).toBe((vfs_stat("/sys/kernel/slab/:A-0001000", false) as Stat).ino); // prettier-ignore
      kmem_cache_destroy(again);
      expect(attribute("another", "aliases")).toBe("0"); // the link stays, as the name does
      for (const cache of [...caches, alone]) kmem_cache_destroy(cache);
      expect(cat("/sys/kernel/slab/another/order")).toBe(-ENOENT);
      expect(cat("/sys/kernel/slab/:A-0001000/order")).toBe(-ENOENT);
    });
  });

  it("failslab refuses a cache of several names", () => {
    with_files(() => {
      const [one, two] = [kmem_cache_create("one", 1000, 0, 0, null), kmem_cache_create("two", 1000, 0, 0, null)];
      expect(write("one", "failslab", "1")).toBe(-EINVAL);
      for (const cache of [one, two]) kmem_cache_destroy(cache);
      const marked = kmem_cache_create("marked", 1000, 0, 0, null);
      expect(write("marked", "failslab", "1")).toBe(1);
      const other = kmem_cache_create("other", 1000, 0, 0, null);
      expect(other).not.toBe(marked); // none is merged with a cache that is meant to fail
      for (const cache of [marked, other]) kmem_cache_destroy(cache);
    });
  });

  it("two caches of one name have a directory each: the newer one the name, the older one a number", () => {
    with_files(() => {
      const sizes = [1000, 2000, 3000];
      const caches = sizes.map((size) => kmem_cache_create("twin", size, 0, SLAB_NO_MERGE, null));
      expect(["twin", "twin~2", "twin~3"].map((name) => attribute(name, "object_size"))).toEqual(["3000", "2000", "1000"]);
      const shown = text_of("/proc/slabinfo").match(/^twin\S* +0 +0 +\d+/gm);
      expect(shown?.map((row) => row.replace(/ +/g, " "))).toEqual(["twin 0 0 3000", "twin~2 0 0 2000", "twin~3 0 0 1000"]);
      kmem_cache_destroy(caches[2]!);
      expect(["twin", "twin~2"].map((name) => attribute(name, "object_size"))).toEqual(["2000", "1000"]);
      for (const cache of caches.slice(0, 2)) kmem_cache_destroy(cache);
    }); // prettier-ignore
  });

  it("lists a directory for each cache and a link for each name", () => {
    with_files(() => {
      const names = ls("/sys/kernel/slab") as string[];
      const caches = [...for_each_cache()];
      const links = caches.filter(slab_mergeable).length + [...for_each_alias()].length;
      expect(names.length).toBe(caches.length + links);
      expect(["kmem_cache", "kmem_cache_node", "dentry"].map((name) => attribute(name, "aliases"))).toEqual([
        "0",
        "0",
        "0",
      ]);
    });
  });

  it("shrink, min_partial, cpu_partial and remote_node_defrag_ratio take what they can, and refuse the rest", () => {
    with_files(() => {
      const cache = kmem_cache_create("my_cache", 1000, 0, SLAB_NO_MERGE, null);
      const objects = Array.from({ length: 64 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      objects.forEach((object) => kmem_cache_free(cache, object));
      expect(Number(attribute("my_cache", "slabs").split(" ")[0])).toBe(4);
      expect([write("my_cache", "shrink", "0"), write("my_cache", "shrink", "")]).toEqual([-EINVAL, -EINVAL]);
      expect(write("my_cache", "shrink", "1\n")).toBe(2);
      expect(attribute("my_cache", "slabs")).toBe("0");
      expect(attribute("my_cache", "cpu_partial")).toBe("52");
      expect(write("my_cache", "cpu_partial", "30\n")).toBe(3);
      expect(attribute("my_cache", "cpu_partial")).toBe("30");
      expect(KmemCache.cpu_partial_slabs.get(cache)).toBe(4); // 30 objects half full: 60 / 16 slabs
      expect(write("my_cache", "min_partial", "7")).toBe(1);
      expect(attribute("my_cache", "min_partial")).toBe("7");
      expect(attribute("my_cache", "remote_node_defrag_ratio")).toBe("100");
      expect(write("my_cache", "remote_node_defrag_ratio", "50")).toBe(2);
      expect(KmemCache.remote_node_defrag_ratio.get(cache)).toBe(500);
      expect(write("my_cache", "remote_node_defrag_ratio", "101")).toBe(-ERANGE);
      for (const file of ["min_partial", "cpu_partial", "remote_node_defrag_ratio"]) {
        for (const text of ["", "x", "-1", "1 2"]) expect(write("my_cache", file, text), text).toBe(-EINVAL);
        expect(write("my_cache", file, "4294967296")).toBe(-ERANGE);
      }
      for (const file of ["slab_size", "order", "objects", "aliases", "ctor", "trace", "usersize", "slabs_cpu_partial"])
        expect(write("my_cache", file, "1"), file).toBe(-EACCES);
      expect(attribute("my_cache", "min_partial")).toBe("7");
      expect([write("my_cache", "validate", "1"), write("my_cache", "validate", "x")]).toEqual([-EINVAL, -EINVAL]);
      for (const [text, on] of [
        ["1\n", "1"],
        ["x", "0"],
        ["1", "1"],
        ["0", "0"],
      ] as const) {
        expect(write("my_cache", "failslab", text)).toBe(text.length);
        expect(attribute("my_cache", "failslab")).toBe(on);
      }
      expect([write("my_cache", "skip_kfence", "1"), write("my_cache", "skip_kfence", "y")]).toEqual([1, -EINVAL]);
      expect(attribute("my_cache", "skip_kfence")).toBe("1");
      expect(write("my_cache", "skip_kfence", "0")).toBe(1);
      kmem_cache_destroy(cache);
      const plain = kmem_cache_create("plain", 1000, { cpu_partial: "off" }, SLAB_NO_MERGE);
      expect([write("plain", "cpu_partial", "1"), write("plain", "cpu_partial", "0")]).toEqual([-EINVAL, 1]);
      kmem_cache_destroy(plain);
    });
  });

  it("counts what each CPU did, and forgets it when it is told to", () => {
    with_files(() => {
      const cache = kmem_cache_create("my_cache", 1000, 0, SLAB_NO_MERGE, null);
      const object = kmem_cache_alloc(cache, GFP_KERNEL);
      kmem_cache_free(cache, object);
      expect(attribute("my_cache", "alloc_slab")).toBe("1 C0=1");
      expect(attribute("my_cache", "free_slowpath")).toBe("0");
      expect(write("my_cache", "alloc_slab", "1")).toBe(-EINVAL);
      expect(write("my_cache", "alloc_slab", "0")).toBe(1);
      expect(attribute("my_cache", "alloc_slab")).toBe("0");
      expect(attribute("my_cache", "cpu_slabs")).toBe("1 N0=1");
      kmem_cache_destroy(cache);
    });
  });

  it("CPU partial lists are shown as slabs, and as objects half full", () => {
    with_files(() => {
      const cache = kmem_cache_create("my_cache", 1000, 0, SLAB_NO_MERGE, null);
      const objects = Array.from({ length: 65 }, () => kmem_cache_alloc(cache, GFP_KERNEL)); // four full slabs, and one
      for (const i of [0, 16, 32]) kmem_cache_free(cache, objects[i]!);
      expect(attribute("my_cache", "slabs_cpu_partial")).toBe("24(3) C0=24(3)");
      expect(attribute("my_cache", "cpu_slabs")).toBe("4 N0=4");
      expect(attribute("my_cache", "objects")).toBe("80 N0=80");
      objects.forEach((object, i) => ([0, 16, 32].includes(i) ? undefined : kmem_cache_free(cache, object)));
      kmem_cache_destroy(cache);
    });
  });

  it("figures of two nodes and two CPUs stand one behind the other, those that are 0 left out", () => {
    with_files(() => {
      const cache = kmem_cache_create("my_cache", 1000, 0, SLAB_NO_MERGE, null); // CPU n is on node n
      const objects = [0, 1].map((cpu) => on_cpu(cpu, () => Array.from({ length: 49 }, () => kmem_cache_alloc(cache, GFP_KERNEL)))); // prettier-ignore
      const give = (cpu: number, indices: number[]): void => on_cpu(cpu, () => indices.forEach((i) => kmem_cache_free(cache, objects[cpu]![i]!))); // prettier-ignore
      give(0, [0, 16]);
      give(1, [0, 16, 32]);
      const files = "slabs total_objects objects cpu_slabs slabs_cpu_partial partial alloc_slab cpu_partial_free free_fastpath"; // prettier-ignore
      expect(files.split(" ").map((file) => attribute("my_cache", file))).toEqual([
        "8 N0=4 N1=4", "128 N0=64 N1=64", "128 N0=64 N1=64", "7 N0=3 N1=4", "40(5) C0=16(2) C1=24(3)", "0", "8 C0=4 C1=4",
        "5 C0=2 C1=3", "0",
      ]); // prettier-ignore
      set_and_flush_cpu_partial(cache, 52);
      expect(["partial", "objects_partial", "objects", "cpu_slabs", "slabs_cpu_partial"].map((file) => attribute("my_cache", file))).toEqual([
        "7 N0=3 N1=4", "77 N0=31 N1=46", "93 N0=47 N1=46", "0", "0(0)",
      ]); // prettier-ignore
      for (const [cpu, freed] of [[0, 16], [0, 16, 32]].entries()) give(cpu, [...objects[cpu]!.keys()].filter((i) => !freed.includes(i))); // prettier-ignore
      kmem_cache_destroy(cache);
    });
  });

  it("a file of a cache that is gone has nothing more to say, though it is still open", () => {
    with_files(() => {
      const cache = kmem_cache_create("my_cache", 1000, 0, SLAB_NO_MERGE, null);
      const file = do_filp_open("/sys/kernel/slab/my_cache/order", 0, 0);
      kmem_cache_destroy(cache);
      expect(file_read(file, 100)).toBe(-ENODEV);
      fput(file);
    });
  });

  it("a constructor is shown by name", () => {
    with_files(() => {
      expect(attribute("inode_cache", "ctor")).toMatch(/^inode_init_once\+0x0\/0x[0-9a-f]+$/);
      expect(attribute("radix_tree_node", "ctor")).toMatch(/^radix_tree_node_ctor\+0x0\//);
    });
  });
});

const sleeper = test_init("t_sleeper_files", function* (sys) {
  if ((yield sys.fork()) === 0) for (;;) yield sys.sleep(1000);
});

describe("/proc", () => {
  it("has a directory for each task, as long as there is one", () => {
    with_tasks(sleeper, () => {
      const pids = (ls("/proc") as string[]).filter((name) => /^\d+$/.test(name));
      expect(pids).toContain("1");
      const pid = Math.max(...pids.map(Number));
      schedule_until(() => task_state_char(find_task_by_pid(pid)) === "S", 100);
      const status = text_of(`/proc/${pid}/status`);
      expect(status).toMatch(/^Name:\tt_sleeper_files\n/);
      expect(status).toMatch(/\nState:\tS \(sleeping\)\n/);
      expect(status).toMatch(new RegExp(`\\nPid:\\t${pid}\\nPPid:\\t1\\n`));
      expect(text_of(`/proc/${pid}/comm`)).toBe("t_sleeper_files\n");
      const stat = text_of(`/proc/${pid}/stat`);
      expect(stat).toMatch(new RegExp(`^${pid} \\(t_sleeper_files\\) S 1 ${pid} `));
      expect(stat.split(" ").length).toBe(52);
      const file = do_filp_open(`/proc/${pid}/comm`, 0, 0);
      do_kill(pid, 9);
      schedule_entries(50);
      expect(cat(`/proc/${pid}/comm`)).toBe(-ENOENT);
      expect(file_read(file, 100)).toBe(-ESRCH);
      fput(file);
    });
  });

  it("says what machine it is", () => {
    with_files(
      () => {
        expect(text_of("/proc/cmdline")).toMatch(/ some=thing\n$/);
        expect(text_of("/proc/version")).toMatch(/^kheap version \d+\.\d+\.\d+ /);
        expect(text_of("/proc/uptime")).toMatch(/^\d+\.\d\d \d+\.\d\d\n$/);
        expect(text_of("/proc/loadavg")).toMatch(/^\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+\/\d+ \d+\n$/);
        expect(text_of("/proc/stat")).toMatch(/^cpu {2}0 0 \d+ \d+ 0 0 0 0 0 0\ncpu0 .*\ncpu1 .*\nintr 0\nctxt \d+\nbtime 0\nprocesses \d+\n/); // prettier-ignore
        expect(text_of("/proc/cpuinfo").match(/^processor\t: \d$/gm)).toEqual(["processor\t: 0", "processor\t: 1"]);
        // Words stand in the order of the CPU's feature bits; an empty line has no blank behind its colon.
        expect(text_of("/proc/cpuinfo")).toMatch(
          /^flags\t\t: fpu pse tsc msr pae pge nx pdpe1gb lm pcid smep smap\nbugs\t\t:\nbogomips\t: 2000.00\n/m,
        );
        expect(text_of("/proc/cpuinfo")).toMatch(/\npower management:\n\n$/);
        expect(text_of("/proc/iomem").split("\n").slice(0, 2)).toEqual(["00000000-00000fff : Reserved", "00001000-0009fbff : System RAM"]); // prettier-ignore
        expect(text_of("/proc/iomem")).toMatch(/^ {2}00100000-[0-9a-f]{8} : Kernel code$/m);
        expect(text_of("/proc/mounts")).toBe(
          "none / ramfs rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\ndevtmpfs /dev devtmpfs rw 0 0\ndiscfs /usr discfs ro 0 0\n",
        );
        expect(text_of("/proc/filesystems")).toBe(
          "nodev\tsysfs\nnodev\tramfs\nnodev\tproc\nnodev\tdevtmpfs\n\tdiscfs\n",
        );
        expect(text_of("/proc/sys/vm/min_free_kbytes")).toMatch(/^\d+\n$/);
        expect(text_of("/proc/sys/fs/file-nr")).toBe("1\t0\t8192\n");
        expect(text_of("/proc/sys/fs/dentry-state")).toMatch(/^\d+\t\d+\t45\t0\t0\t0\n$/);
        expect(text_of("/proc/sys/fs/inode-state")).toMatch(/^\d+\t0\t0\t0\t0\t0\t0\n$/);
        expect([text_of("/proc/modules"), text_of("/proc/vmallocinfo")]).toEqual(["", ""]);
      },
      { append: "some=thing" },
    );
  });

  it("a long file is read in pieces, and a position behind its end reads nothing", () => {
    with_files(() => {
      const whole = text_of("/proc/cmdline");
      const file = do_filp_open("/proc/cmdline", 0, 0);
      let text = "";
      for (;;) {
        const piece = bytes_to_string(file_read(file, 7) as Uint8Array);
        if (piece === "") break;
        text += piece;
      }
      expect(text).toBe(whole);
      fput(file);
      expect(do_filp_open("/proc/cmdline", O_WRONLY, 0)).toBe(-13);
    });
  });
});
