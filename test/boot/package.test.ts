/** The package's factory: machines as values, in this realm and in one of their own. */
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { KheapError, boot } from "../../boot/index.ts";

const ring = fileURLToPath(new URL("../../examples/ring.ts", import.meta.url));
const NOTHING = { pages: 0, objects: 0, locks: 0 };

describe("boot", () => {
  it.each([false, true])(
    "gives a machine that runs commands, loads modules and tells of events (worker: %s)",
    async (worker) => {
      const logged: string[] = [];
      const machine = await boot({ mem: "64M", nodes: 1, cpus: 1, worker, log: (text) => void logged.push(text) });
      expect(logged.join("")).toContain("Run /init as init process");
      const forks: string[] = [];
      const stop = machine.on("task:fork", ({ comm }) => void forks.push(comm));
      await machine.run("fork 2");
      stop();
      expect(forks.length).toBeGreaterThan(0);
      expect(await machine.run(`insmod ${ring} size=4; cat /proc/ring`)).toBe("number 1\nnumber 2\nnumber 3");
      expect(await machine.json("lsmod")).toEqual([{ module: "ring", size: 4096, used: 0, by: [] }]);
      await expect(machine.run("rmmod nothing")).rejects.toThrow(new KheapError("rmmod: module nothing is not loaded"));
      expect(await machine.run("rmmod ring")).toBe("");
      expect(await machine.power_off()).toEqual(NOTHING);
      await expect(machine.run("lsmod")).rejects.toThrow("the machine is off");
    },
  );

  it("runs several side by side, each in a realm of its own, and the same seed gives the same", async () => {
    const machines = await Promise.all([1, 1, 2].map((seed) => boot({ mem: "64M", seed, worker: true })));
    const dmesgs = await Promise.all(machines.map((machine) => machine.run("fork 5; ps; cat /proc/slabinfo")));
    expect(dmesgs[0]).toBe(dmesgs[1]);
    expect(dmesgs[0]).not.toBe(dmesgs[2]);
    expect(await Promise.all(machines.map((machine) => machine.power_off()))).toEqual([NOTHING, NOTHING, NOTHING]);
  });

  it("says in one line what cannot be", async () => {
    await expect(boot({ mem: "much" })).rejects.toThrow(/^mem much: /);
    await expect(boot({ timing: true })).rejects.toThrow(
      "timing: true: this realm is plain already; give worker: true",
    );
    const machine = await boot({ mem: "64M" });
    await expect(boot()).rejects.toThrow("a machine runs in this realm: power it off first, or give worker: true");
    await machine.power_off();
    const counting = await boot({ mem: "64M", timing: true, worker: true });
    expect(await counting.run("perf stat true")).toContain("cycles");
    await counting.power_off();
  });
});
