/** The kernel's state lies in RAM: all of it. See chain.ts. */
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { attach } from "../../boot/attach.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { amnesia, in_console_realm, in_realm, new_ram } from "./chain.ts";

describe("the amnesia test", () => {
  it("a realm that ends at any moment loses nothing: 12 moments", () => amnesia(1, 12, 4000));

  it("nor does one of a machine under SLAB: 3 moments", () => amnesia(3, 3, 4000, "slab=slab"));

  it("nor does one of a machine under SLOB: 3 moments", () => amnesia(2, 3, 4000, "slab=slob"));

  it("programs ten forks deep go on, each with its own variables and memory: 5 moments", async () => {
    const log = await amnesia(5, 5, 1500, "", "t_amnesia_memory");
    expect(log.filter((line) => line.includes("wrong"))).toEqual([]);
    const deep = log.flatMap((line) => {
      const found = /t_forks_deep\[\d+\]: depth (\d+): (\d+) \2, /.exec(line);
      return found ? [{ depth: Number(found[1]), value: found[2] }] : [];
    });
    expect(deep.map(({ depth }) => depth)).toEqual([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    expect(new Set(deep.map(({ value }) => value)).size).toBe(11);
    expect(log.filter((line) => line.includes("t_random_memory["))).toHaveLength(8);
  });
});

describe("attach", () => {
  it("modules come and go in the realm that goes on", async () => {
    const ring = fileURLToPath(new URL("../../examples/ring.ts", import.meta.url));
    const ram = new_ram();
    await in_console_realm(ram, { boots: true, lines: [`insmod ${ring}; rmmod ring`], ends: false });
    const lines = [`insmod ${ring} size=2`, "cat /proc/ring", "rmmod ring", "lsmod"];
    expect(await in_console_realm(ram, { boots: false, lines, ends: true })).toBe(
      "number 2\nnumber 3\nModule                  Size  Used by\npower off: 0 pages, 0 objects, 0 locks left over\n",
    );
  });

  it("is refused where a module is loaded: its code is not here", async () => {
    const ring = fileURLToPath(new URL("../../examples/ring.ts", import.meta.url));
    const ram = new_ram();
    await in_console_realm(ram, { boots: true, lines: [`insmod ${ring}`], ends: false });
    await expect(in_console_realm(ram, { boots: false, lines: [], ends: false })).rejects.toThrow(
      /^attach: the kernel in RAM knows ".* \[ring\]", which was not loaded here$/,
    );
  });

  it("says in one line why it cannot go on", async () => {
    expect(() => attach(TEST_MACHINE)).toThrow("attach: this realm was handed no RAM in which a kernel stands");
    const ram = new_ram();
    await in_realm(ram, { boot: { seed: 1, garbage: garbage(1) }, entries: 10, closure: true });
    await expect(in_realm(ram, { entries: 1 })).rejects.toThrow(
      /^attach: the kernel in RAM refers to a function without a name \(anon:\d+\); give it one with ksym$/,
    );
    const named = new_ram();
    await in_realm(named, { boot: { seed: 1, garbage: garbage(1) }, entries: 10 });
    await expect(in_realm(named, { entries: 1 }, { ...TEST_MACHINE, cpus: 4 })).rejects.toThrow(
      'attach: the kernel in RAM was not booted on a machine like "test"',
    );
  });
});
