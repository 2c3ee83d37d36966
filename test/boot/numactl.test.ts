/** numactl: nodes as the real one prints them, and commands under a memory policy. */
import { describe, expect, it } from "vitest";
import { machine_from_options, type MachineSpec } from "../../hal/machine.ts";
import { answer, console_run } from "./run.ts";

const USAGE = "usage: numactl -H\n";
type Node = { node: number; distances: number[] };

describe("numactl -H", () => {
  it("A113 nodes with CPUs, memory and distances: 10 on the diagonal, symmetric, more elsewhere, as sysfs has them", async () => {
    const text = await answer("numactl -H");
    expect(text).toMatch(/^available: 2 nodes \(0-1\)\nnode 0 cpus: 0\nnode 0 size: 29 MB\nnode 0 free: \d+ MB\nnode 1 cpus: 1\nnode 1 size: 7 MB\nnode 1 free: 7 MB\nnode distances:\nnode {3}0 {3}1 \n {2}0: {2}10 {2}20 \n {2}1: {2}20 {2}10 \n$/); // prettier-ignore
    const machine = machine_from_options({ mem: "64M", nodes: "3", cpus: "3", distance: "10,15,30/15,10,22/30,22,10" }) as MachineSpec; // prettier-ignore
    const nodes = JSON.parse(await answer("numactl -H --json", { machine })) as Node[];
    expect(nodes.map(({ distances }) => distances)).toEqual([[10, 15, 30], [15, 10, 22], [30, 22, 10]]); // prettier-ignore
    const files = nodes.map(({ node }) => `cat /sys/devices/system/node/node${node}/distance`).join("; ");
    expect(await answer(files, { machine })).toBe(nodes.map(({ distances }) => `${distances.join(" ")}\n`).join(""));
    const plain = (await answer("numactl -H", { machine })).split("\n");
    expect(plain.slice(-5, -1)).toEqual(["node   0   1   2 ", "  0:  10  15  30 ", "  1:  15  10  22 ", "  2:  30  22  10 "]); // prettier-ignore
  });

  it("one node is `1 nodes`, as numactl says", async () => {
    const machine = machine_from_options({ mem: "32M", nodes: "1", cpus: "2" }) as MachineSpec;
    expect(await answer("numactl -H", { machine })).toMatch(/^available: 1 nodes \(0\)\nnode 0 cpus: 0 1\n/);
    expect((await answer("numastat", { machine })).split("\n")[0]).toBe("                           node0");
  });
});

describe("numactl --show", () => {
  it("no policy; with one, what a command under it would see", async () => {
    const rest = ["physcpubind: 0 1 ", "cpubind: 0 1 ", "nodebind: 0 1 "];
    const shown = async (options: string): Promise<string[]> => (await answer(`numactl ${options}--show`)).split("\n").slice(0, -1); // prettier-ignore
    expect(await shown("")).toEqual(["policy: default", "preferred node: current", ...rest, "membind: 0 1 ", "preferred: "]); // prettier-ignore
    expect(await shown("--preferred=1 numactl ")).toEqual(["policy: preferred", "preferred node: 1", ...rest, "membind: 0 1 ", "preferred: 1 "]); // prettier-ignore
    expect(await shown("-m 1 numactl ")).toEqual(["policy: bind", "preferred node: 1", ...rest, "membind: 1 ", "preferred: 1 "]); // prettier-ignore
    expect(await shown("-i all numactl ")).toEqual(["policy: interleave", "preferred node: 0 (interleave next)", "interleavemask: 0 1 ", "interleavenode: 0", ...rest, "membind: 0 1 ", "preferred: 0 1 "]); // prettier-ignore
    expect((await shown("-P0-1 numactl "))[1]).toBe("preferred node: 0 (preferred-many)");
    expect((await shown("--localalloc numactl "))[0]).toBe("policy: local");
  });
});

describe("commands under a policy", () => {
  const hits = (text: string): Record<string, number>[] => JSON.parse(text) as Record<string, number>[];

  it("numastat follows: hits where pages were interleaved, on the bound node by another's CPU", async () => {
    const { out, err } = await console_run([
      "numastat --json; numactl --interleave=0,1 kmalloc 20000; numastat --json; numactl --membind=1 alloc_pages 2; numastat --json; numactl -p 1 on 1 alloc_pages 2; numastat --json",
    ]);
    expect(err).toBe("");
    const [a, b, c, d] = out.split("\n").filter((line) => line.startsWith("[")).map(hits) as [Record<string, number>[], Record<string, number>[], Record<string, number>[], Record<string, number>[]]; // prettier-ignore
    const more = (from: Record<string, number>[], to: Record<string, number>[], node: number, name: string): number => to[node]![name]! - from[node]![name]!; // prettier-ignore
    expect(more(a, b, 0, "interleave_hit")).toBe(1);
    expect([more(b, c, 1, "numa_hit"), more(b, c, 1, "other_node"), more(b, c, 1, "interleave_hit")]).toEqual([1, 1, 0]); // prettier-ignore
    expect([more(c, d, 1, "numa_hit"), more(c, d, 1, "local_node")]).toEqual([1, 1]);
  });

  it("tasks inherit it: what they allocate later goes where it says", async () => {
    const { out } = await console_run([
      "numastat --json; numactl --membind=1 fork 12; numastat --json; run; run; numastat --json; kill -KILL all sleep",
    ]);
    const [before, , after] = out
      .split("\n")
      .filter((line) => line.startsWith("[{"))
      .map(hits);
    expect(after![1]!.other_node!).toBeGreaterThan(before![1]!.other_node!);
  });

  it("ends with its command, also where that fails, and leaves nothing", async () => {
    const { out, err } = await console_run(["numactl -m 1 kmalloc 99999999; numactl --show", "numactl -m1 numactl -p 0 numactl --show &", "wait"]); // prettier-ignore
    expect(err).toContain("kmalloc");
    expect(out).toContain("policy: default\n");
    expect(out).toContain("policy: preferred\n");
  });

  it("what is refused", async () => {
    const { err } = await console_run(["numactl; numactl -x; numactl -m; numactl -m 1; numactl -l; numactl --localalloc=1 uptime", "numactl -m 2 uptime; numactl -p 0-1 uptime; numactl -i x uptime; numactl -l poweroff"]); // prettier-ignore
    expect(err).toBe(
      `${USAGE.repeat(6)}numactl: <2> is invalid; nodes are 0,1, or all\n` +
        "numactl: one node is wanted, <0-1> was given\nnumactl: <x> is invalid; nodes are 0,1, or all\n" +
        "numactl: poweroff takes no policy\n",
    );
  });
});
