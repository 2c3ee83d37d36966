/** slabinfo, vmstat, numastat: the layout of the real tools, and figures of /proc and /sys. */
import { describe, expect, it } from "vitest";
import { answer, console_run } from "./run.ts";

const CACHES = "kmem create first 300 flags=SLAB_NO_MERGE; kmem alloc first 30 > /a; kmem create twin_a 1000; kmem create twin_b 1000; kmem alloc twin_a 3 > /a; kmem create lone 776; echo @@@"; // prettier-ignore
const lines = (text: string): string[] => text.replace(/\n$/, "").split("\n");
/** What commands print, one after the other, once the caches are there. */
const after = async (...commands: string[]): Promise<string[]> => {
  const { out, err } = await console_run([CACHES, ...commands.map((command) => `${command}; echo @@@`)]);
  expect(err).toBe("");
  return out.split("@@@\n").slice(1);
};

describe("slabinfo", () => {
  it("a line a cache, by name; several names as what they are; one cache is a report", async () => {
    const [list, report] = (await after("slabinfo", "slabinfo first")) as [string, string];
    const rows = lines(list);
    expect(rows[0]).toBe("Name                   Objects Objsize           Space Slabs/Part/Cpu  O/S O %Fr %Ef Flg");
    expect(rows[1]).toBe(":0001000                    16    1000           16.3K          0/0/1   16 2   0  97 *");
    const first = rows.find((row) => row.startsWith("first "))!;
    expect(first).toBe("first                       39     300           12.2K          2/0/1   13 0   0  95 ");
    const names = rows.slice(1).map((row) => row.split(" ")[0]!.toLowerCase());
    expect(names).toEqual([...names].sort());
    expect(names.some((name) => name === "dma-kmalloc-8k")).toBe(false); // empty
    expect(lines(report)).toEqual([
      "",
      "Slabcache: first            Aliases:  0 Order :  0 Objects: 39",
      "",
      "Sizes (bytes)     Slabs              Debug                Memory",
      "------------------------------------------------------------------------",
      "Object :     300  Total  :       3   Sanity Checks : Off  Total:   12288",
      "SlabObj:     304  Full   :       2   Redzoning     : Off  Used :   11700",
      "SlabSiz:    4096  Partial:       0   Poisoning     : Off  Loss :     588",
      "Loss   :       4  CpuSlab:       1   Tracking      : Off  Lalig:     156",
      "Align  :       8  Objects:      13   Tracing       : Off  Lpadd:     432",
      "",
      "NUMA nodes           :    0",
      "---------------------------",
      "All slabs                 3",
      "Partial slabs             0",
    ]);
  });

  it("sorts, limits, inverts, and shows empty ones where it is told to", async () => {
    const { out } = await console_run([
      "slabinfo -S -N 3 -B --json; slabinfo -iS -N 1 --json; slabinfo -e kmalloc --json; slabinfo -z kmalloc --json; slabinfo -U dentry -z --json",
    ]);
    type Row = { name: string; space: number; slabs: number };
    const [big, small, empty, all, unreclaimable] = lines(out).map((line) => JSON.parse(line) as Row[]) as [Row[], Row[], Row[], Row[], Row[]]; // prettier-ignore
    expect(big.length).toBe(3);
    expect(big.map(({ space }) => space)).toEqual(big.map(({ space }) => space).sort((a, b) => b - a));
    expect(small[0]!.space).toBeLessThanOrEqual(big[2]!.space);
    expect(empty.every(({ slabs }) => slabs === 0)).toBe(true);
    expect(all.length).toBeGreaterThan(empty.length);
    expect(unreclaimable).toEqual([]); // dentries can be reclaimed
  });

  it("aliases, nodes, activity, totals, tracking", async () => {
    const printed = await after(
      "slabinfo -a 'twin|lone'", "slabinfo -ai 'twin|lone'", "slabinfo -a1 'twin|lone'", "slabinfo -1ai lone", "slabinfo -n 'first|twin'", "slabinfo -D 'first|task_struct'",
      "slabinfo -T", "slabinfo -X", "slabinfo -t first", "slabinfo -f twin",
    ); // prettier-ignore
    const [aliases, inverted, with_single, single, numa, activity, totals, extended, tracking, alias] = printed.map(lines) as [string[], string[], string[], string[], string[], string[], string[], string[], string[], string[]]; // prettier-ignore
    expect(aliases).toEqual(["", ":0001000     <- twin_a twin_b"]);
    expect(inverted).toEqual(["twin_a          -> :0001000", "twin_b          -> :0001000"]);
    expect(with_single).toEqual(["", ":0001000     <- twin_a twin_b", ":0000776     <- lone"]);
    expect(single).toEqual(["lone            -> :0000776"]);
    expect(numa).toEqual(["", "Slab                 :    0", "---------------------------", ":0001000                  1", "first                     3"]); // prettier-ignore
    expect(activity[0]).toBe("Name                   Objects      Alloc       Free   %Fast Fallb O CmpX   UL");
    expect(activity[1]).toBe("first                       39         30          0  90   0     0 0    0    0");
    expect(totals[0]).toBe("Slabcache Totals");
    expect(extended).toContain("Slabs sorted by number of partial slabs");
    expect(tracking[1]).toBe("first: Kernel object allocation");
    expect(alias[1]).toMatch(/^Slabcache: twin_a /);
  });

  it("-T: the tool's own table, to the column; -X the same in plain bytes", async () => {
    const [totals, extended] = (await after("slabinfo -T 'first|twin'", "slabinfo -X -N 1 'first|twin'")).map(lines) as [string[], string[]]; // prettier-ignore
    expect(totals).toEqual([
      "Slabcache Totals",
      "----------------",
      "Slabcaches :               2   Aliases  :           2->1    Active:      2",
      "Memory used:           28.6K   # Loss   :             972   MRatio:     3%",
      "# Objects  :              55   # PartObj:               0   ORatio:     0%",
      "",
      "Per Cache         Average              Min              Max            Total",
      "----------------------------------------------------------------------------",
      "#Objects               27               16               39               55",
      "#Slabs                  2                1                3                4",
      "#PartSlab               0                0                0                0",
      "%PartSlab              0%               0%               0%               0%",
      "PartObjs                0                0                0                0",
      "% PartObj              0%               0%               0%               0%",
      "Memory              14.3K            12.2K            16.3K            28.6K",
      "Used                13.8K            11.7K            16.0K            27.7K",
      "Loss                  486              384              588              972",
      "",
      "Per Object        Average              Min              Max",
      "-----------------------------------------------------------",
      "Memory                506              304             1000",
      "User                  503              300             1000",
      "Loss                    2                0                4",
    ]);
    expect(extended[3]).toBe("Memory used:           28672   # Loss   :             972   MRatio:     3%");
    expect(extended.slice(-16)).toEqual([
      "",
      "Slabs sorted by size",
      "--------------------",
      "Name                   Objects Objsize           Space Slabs/Part/Cpu  O/S O %Fr %Ef Flg",
      ":0001000                    16    1000           16384          0/0/1   16 2   0  97 *",
      "",
      "Slabs sorted by loss",
      "--------------------",
      "Name                   Objects Objsize            Loss Slabs/Part/Cpu  O/S O %Fr %Ef Flg",
      "first                       39     300             588          2/0/1   13 0   0  95 ",
      "",
      "Slabs sorted by number of partial slabs",
      "---------------------------------------",
      "Name                   Objects Objsize           Space Slabs/Part/Cpu  O/S O %Fr %Ef Flg",
      ":0001000                    16    1000           16384          0/0/1   16 2   0  97 *",
      "",
    ]);
  });

  it("-s shrinks; -v is for caches with slab_debug", async () => {
    const { out, err } = await console_run([
      "kmem create mine 1000 flags=SLAB_NO_MERGE; kmem alloc mine 40 > /a; kmem free mine all > /a; slabinfo -s mine; slabinfo mine --json; slabinfo -v mine",
    ]); // prettier-ignore
    expect(out).toMatch(/"name":"mine".*"slabs":0/);
    expect(err).toBe("slabinfo: /sys/kernel/slab/mine/validate: Invalid argument\n");
  });

  it("-l is the list, -o has nothing to say of any cache, -h is the usage", async () => {
    expect(await answer("slabinfo -l")).toBe(await answer("slabinfo"));
    expect(await answer("slabinfo -o dentry")).toBe("\ndentry has no kmem_cache operations\n");
    expect(await answer("slabinfo -h")).toMatch(/^usage: slabinfo \[-aABDefhilLnoPrsStTUvXz1\]/);
  });

  it("says what it does not take", async () => {
    const { err } = await console_run(["slabinfo -q; slabinfo --nope; slabinfo -N; slabinfo -N x; slabinfo -N 0; slabinfo a b; slabinfo '('; slabinfo nope"]); // prettier-ignore
    expect(err.trimEnd().split("\n").map((line) => line.replace(/; usage: .*/, ""))).toEqual([
      "slabinfo: no option -q", "slabinfo: no option --nope", "slabinfo: -N : a number of lines is wanted",
      "slabinfo: -N x: a number of lines is wanted", "slabinfo: -N 0: a number of lines is wanted", "slabinfo: one pattern is allowed", "slabinfo: (: not a regular expression",
      "slabinfo: no cache matches nope",
    ]); // prettier-ignore
  });
});

describe("slabtop", () => {
  /** C's %.Nf: a tie goes to the even digit, so 128 bytes are 0.12K. */
  const c_fixed = (value: number, digits: number): string => {
    const scaled = value * 10 ** digits;
    return ((scaled % 1 === 0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled)) / 10 ** digits).toFixed(digits);
  };
  interface Row {
    name: string;
    figures: [active: number, objs: number, size: number, per_slab: number, pages: number, active_slabs: number, slabs: number]; // prettier-ignore
  }
  const parse = (text: string): Row[] =>
    lines(text).slice(2).map((row) => {
      const [name, active, objs, size, per_slab, pages, ...rest] = row.split(/[ :]+/) as [string, ...string[]];
      const slabs = rest.slice(-3, -1);
      return { name, figures: [active, objs, size, per_slab, pages, ...slabs].map(Number) as Row["figures"] };
    }); // prettier-ignore

  it("prints /proc/slabinfo as procps does: five sums, the heading, a row a cache, by any key", async () => {
    const keys = "abclvnopsu";
    const looks = [...keys].map((key) => `slabtop -s ${key}`);
    const [, slabinfo, ...tables] = await after("cat /proc/slabinfo", "cat /proc/slabinfo", ...looks);
    const rows = parse(slabinfo!);
    const sum = (value: (...figures: Row["figures"]) => number): number => rows.reduce((all, row) => all + value(...row.figures), 0); // prettier-ignore
    const [active, objs] = [sum((a) => a), sum((_a, n) => n)];
    const slabs = sum((_a, _n, _s, _p, _g, _as, count) => count);
    const [used, size] = [sum((a, _n, s) => a * s), sum((_a, n, s) => n * s)];
    const sizes = rows.map(({ figures }) => figures[2]);
    const share = (part: number, whole: number): string => `(${c_fixed((100 * part) / whole, 1)}%)`;
    const k = (bytes: number): string => `${c_fixed(bytes / 1024, 2)}K`;
    const caches = rows.filter(({ figures }) => figures[1] > 0).length;
    const head = [
      ` Active / Total Objects (% used)    : ${active} / ${objs} ${share(active, objs)}`,
      ` Active / Total Slabs (% used)      : ${slabs} / ${slabs} ${share(slabs, slabs)}`,
      ` Active / Total Caches (% used)     : ${caches} / ${rows.length} ${share(caches, rows.length)}`,
      ` Active / Total Size (% used)       : ${k(used)} / ${k(size)} ${share(used, size)}`,
      ` Minimum / Average / Maximum Object : ${k(Math.min(...sizes))} / ${k(Math.floor(size / objs))} / ${k(Math.max(...sizes))}`,
      "",
      "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME                   ",
    ];
    const use = ([a, n]: Row["figures"]): number => (n === 0 ? 0 : Math.floor((100 * a) / n));
    const cells = ({ name, figures }: Row): string => {
      const [a, n, s, per_slab, pages, , count] = figures;
      const pad = (value: number | string, width: number): string => String(value).padStart(width);
      return `${pad(n, 6)} ${pad(a, 6)} ${pad(use(figures), 3)}% ${pad(c_fixed(s / 1024, 2), 7)}K ${pad(count, 6)} ${pad(per_slab, 8)} ${pad(count * pages * 4, 9)}K ${name.padEnd(23)}`;
    };
    const by: Record<string, (f: Row["figures"]) => number> = {
      a: (f) => f[0], b: (f) => f[3], c: (f) => f[6] * f[4], l: (f) => f[6], v: (f) => f[5], o: (f) => f[1], p: (f) => f[4], s: (f) => f[2], u: use,
    }; // prettier-ignore
    const wanted = rows.map(cells).sort();
    const of_name = new Map(rows.map((row) => [row.name, row.figures]));
    for (const [i, table] of tables.slice(0, keys.length).entries()) {
      const shown = lines(table);
      expect(shown.slice(0, 7)).toEqual(head);
      expect(shown.slice(7).sort()).toEqual(wanted);
      const names = lines(table).slice(7).map((row) => row.trim().split(" ").at(-1)!); // prettier-ignore
      const key = keys[i]!;
      if (key === "n") expect(names).toEqual([...names].sort());
      else {
        const order = names.map((name) => by[key]!(of_name.get(name)!));
        expect(order).toEqual([...order].sort((x, y) => y - x));
      }
    }
  });
});

describe("vmstat", () => {
  it("averages since power-on in procps's columns", async () => {
    const [head, names, row] = lines(await answer("vmstat"));
    expect(head).toBe("procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----");
    expect(names).toBe(" r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st");
    expect(row).toMatch(/^ \d {2}\d {6}0 {2}\d{5} {6}0 {4}\d{3} {4}0 {4}0 {5}0 {5}0 {4}0 [ \d]{3}\d {2}0 [ \d]{2} [ \d]{2}\d? {2}0 {2}0$/); // prettier-ignore
    const [json, meminfo] = (await after("cat /proc/meminfo", "vmstat --json", "cat /proc/meminfo")).slice(1) as [string, string]; // prettier-ignore
    const { free, us, sy, id } = JSON.parse(json) as Record<string, number>;
    expect(us! + sy! + id!).toBeGreaterThanOrEqual(99);
    // cat is a program: while it reads, it has a stack, tables and a buffer of its own.
    expect(Math.abs(free! - Number(/MemFree: +(\d+)/.exec(meminfo)![1]))).toBeLessThan(512);
  });

  it("-m: the caches by name", async () => {
    const [, slabinfo, text] = (await after("cat /proc/slabinfo", "cat /proc/slabinfo", "vmstat -m")) as [string, string, string]; // prettier-ignore
    const rows = lines(text);
    const expected = lines(slabinfo).slice(2).map((row) => {
      const [name, ...numbers] = row.split(/ +/) as [string, ...string[]];
      return `${name.slice(0, 24).padEnd(24)} ${numbers.slice(0, 4).map((number) => number.padStart(6)).join(" ")}`;
    }); // prettier-ignore
    expect([...rows].slice(1).sort()).toEqual(expected.sort());
    expect(rows[0]).toBe("Cache                       Num  Total   Size  Pages");
    expect(rows).toContain("first                        39     39    304     13");
    const names = rows.slice(1).map((row) => row.split(" ")[0]!);
    expect(names).toEqual([...names].sort());
    expect((await console_run(["vmstat -q; vmstat -m -m"])).err).toBe("usage: vmstat [-m]\nusage: vmstat [-m]\n");
  });
});

describe("numastat", () => {
  it("a row a counter, as /sys has them", async () => {
    const { out } = await console_run(["alloc_pages 3 node=1 > /a; numastat; numastat --json; cat /sys/devices/system/node/node1/numastat; numastat -x"]); // prettier-ignore
    const rows = lines(out);
    expect(rows[0]).toBe("                           node0           node1");
    expect(rows.slice(1, 7).map((row) => row.split(/ +/)[0])).toEqual(["numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node"]); // prettier-ignore
    expect(rows[1]).toMatch(/^numa_hit {12} *\d+ {12} *\d+$/);
    const json = JSON.parse(rows[7]!) as Record<string, number>[];
    expect(json[1]!.other_node).toBe(Number(rows[6]!.split(/ +/)[2]));
  });
});
