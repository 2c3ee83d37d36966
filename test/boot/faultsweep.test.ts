/** The command `faultsweep`: what it finds, what it says, what it refuses. The sweeps themselves are in faultsweep.long.ts. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { NULL, type Obj, type Ptr } from "../../hal/addr.ts";
import { BUG_ON } from "../../kernel/lib/bug.ts";
import { spin_lock, spin_unlock } from "../../kernel/lib/spinlock.ts";
import { static_data } from "../../hal/image.ts";
import { SpinLock } from "../../kernel/lib/spinlock.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { __get_free_pages, free_pages } from "../../mm/page_alloc.ts";
import { CommandError, line, register, type Command } from "../../boot/commands/registry.ts";
import { console_run } from "./run.ts";

const here = fileURLToPath(import.meta.url);
/** Number of the only line of this file with that comment. */
const line_of = (mark: string): number =>
  readFileSync(here, "utf8").split("\n").findIndex((text) => text.endsWith(`// ${mark}`)) + 1; // prettier-ignore

/** What the test commands lost, so that the test can give it back. */
const lost: { objects: Obj[]; pages: Ptr[] } = { objects: [], pages: [] };
const lock = static_data("t_faultsweep", { lock: SpinLock });

function test_command(name: string, run: Command["run"]): void {
  register({ name, group: "heap", usage: name, summary: "of a test", man: "", run });
}

// On the second error path the first block is forgotten.
test_command("t_leaks", () => {
  const first = kmalloc(300, GFP_KERNEL);
  if (first === NULL) throw new CommandError("t_leaks: out of memory");
  const second = kmalloc(3000, GFP_KERNEL); // second
  if (second === NULL) {
    lost.objects.push(first);
    throw new CommandError("t_leaks: out of memory");
  }
  kfree(second);
  kfree(first);
  return line("");
});
test_command("t_leaks_pages", () => {
  const pages = __get_free_pages(GFP_KERNEL, 2);
  const block = kmalloc(64, GFP_KERNEL); // block
  kfree(block);
  if (block === NULL) lost.pages.push(pages);
  else free_pages(pages, 2);
  return line("");
});
test_command("t_breaks", () => {
  BUG_ON(kmalloc(0, GFP_KERNEL) === NULL, "never");
  const block = kmalloc(64, GFP_KERNEL);
  BUG_ON(block === NULL, "no block");
  kfree(block);
  return line("");
});
test_command("t_locks", () => {
  spin_lock(lock.lock);
  const block = kmalloc(64, GFP_KERNEL); // under lock
  if (block === NULL) return line("");
  kfree(block);
  spin_unlock(lock.lock);
  return line("");
});
test_command("t_throws", () => {
  const block = kmalloc(64, GFP_KERNEL);
  if (block === NULL) throw new TypeError("no such thing");
  kfree(block);
  return line("");
});
test_command("t_mends", () => {
  for (const object of lost.objects.splice(0)) kfree(object);
  for (const pages of lost.pages.splice(0)) free_pages(pages, 2);
  return line("");
});

interface Answer {
  readonly command: string;
  readonly asked: number;
  readonly objects: number;
  readonly pages: number;
  readonly runs: number;
  readonly survived: number;
  readonly errors: Record<string, number>;
  readonly untouched: number | null;
  readonly findings: readonly { n: number; what: string; at: string[] }[];
}

/** What one sweep answers as JSON; the machine is mended afterwards. */
async function sweep(words: string): Promise<Answer & { failed: boolean }> {
  const { out, err, failed } = await console_run([`faultsweep ${words}`, "t_mends"], { json: true });
  expect(err).toMatch(/^power off.*\n$/);
  return { ...(JSON.parse(out.split("\n")[0]!) as Answer), failed };
}

describe("faultsweep finds", () => {
  it("a missing free on an error path: what, which N, and the line of the allocation that failed", async () => {
    const { asked, findings, runs, untouched, failed } = await sweep("t_leaks");
    expect(findings.map(({ what }) => what)).toEqual(["kmalloc-512: 1 object left over"]);
    expect(findings[0]!.at[0]).toMatch(new RegExp(`\\[test/boot/faultsweep\\.test\\.ts:${line_of("second")}\\]$`));
    expect({ runs: runs - 1, untouched, failed }).toEqual({
      runs: findings[0]!.n - 1,
      untouched: runs + 1,
      failed: true,
    });
    expect(asked).toBeGreaterThan(runs); // here a slab for the second object, too
  });

  it("and the command that does it again does it again", async () => {
    const { out, failed } = await console_run(["faultsweep t_leaks", "t_mends"]);
    expect(failed).toBe(true);
    const [found, n, again] = / {2}N (\d): kmalloc-512: 1 object left over\n {4}failed: .*\n {4}again: {2}(.*)\n/.exec(
      out,
    )!;
    expect(again).toBe(`faultsweep --only ${n} t_leaks`);
    expect((await console_run([again!, "t_mends"])).out).toContain(found);
    expect((await console_run(["faultsweep --only 1 t_leaks"])).failed).toBe(false);
  });

  it("pages that are left over", async () => {
    const { findings } = await sweep("t_leaks_pages");
    expect(findings.map(({ n, what }) => [n, what])).toEqual([[2, "4 pages left over"]]); // 1: the pages themselves
    expect(findings[0]!.at[0]).toContain(`faultsweep.test.ts:${line_of("block")}]`);
  });

  it("an oops, an exception of the host's own", async () => {
    const { findings } = await sweep("t_breaks");
    expect(findings.map(({ n }) => n)).toEqual(findings.map(() => 1));
    expect(findings.some(({ what }) => /kernel BUG at .*: no block/.test(what))).toBe(true);
    // A console command runs inside a kernel entry, so that its exceptions are the kernel's.
    const thrown = (await sweep("t_throws")).findings.map(({ what }) => what);
    expect(thrown).toContain("BUG: unhandled TypeError: no such thing");
  });

  it("a panic, which ends the run and names N", async () => {
    const says = `Fatal exception: a lock is held \\(faultsweep: N 1 of t_locks, asked for by .*${line_of("under lock")}\\]\\)`;
    await expect(console_run(["faultsweep t_locks"])).rejects.toThrow(new RegExp(says));
  });
});

describe("faultsweep says", () => {
  it("how many allocations there are without a failure, by the counters", async () => {
    expect(await sweep("kmalloc 300")).toMatchObject({ asked: 2, objects: 1, pages: 2, runs: 2, untouched: 3 });
    expect(await sweep("alloc_pages 3")).toMatchObject({ asked: 1, objects: 0, pages: 8, survived: 0 });
    const line = "kmem create t_swept 300 cpu_partial=off; kmem alloc t_swept 52";
    const made = await sweep(`"${line}"`);
    expect(made).toMatchObject({ command: line, pages: 4, findings: [] });
    expect(made.asked).toBe(made.runs);
    expect(made.untouched).toBe(made.runs + 1);
    expect(made.objects).toBeGreaterThanOrEqual(52 + 2); // and the cache, and its part of each node
  });

  it("what the runs ended with, in figures and in words", async () => {
    const { runs, survived, errors, failed } = await sweep("touch /tmp/swept");
    expect(Object.keys(errors)).toEqual(
      ["console: a pipe", "touch", "touch: /tmp/swept"].map((what) => `${what}: Cannot allocate memory`),
    );
    expect(Object.values(errors).reduce((sum, count) => sum + count, survived)).toBe(runs);
    expect(failed).toBe(false);
    const { out } = await console_run(["faultsweep touch /tmp/swept"]);
    expect(out).toMatch(
      /^touch \/tmp\/swept:\n {2}\d+ objects and \d+ pages by the counters, in \d+ calls that can fail\n {2}\d+ runs in which one did: \d+ ended with an error, \d went on\n( +\d+ x [\w :/]+: Cannot allocate memory\n){3} {2}N \d+ passed untouched\n {2}0 findings\n$/,
    );
  });

  it("the same with the machine in use, and leaves it as it was", async () => {
    const lines = ["kmalloc 300", "touch /tmp/mine", "fork 2", "ls /tmp", "ps"];
    const { out } = await console_run([...lines, "faultsweep fork 2", "faultsweep kmalloc 3000", ...lines.slice(3)]);
    const [before, after] = out
      .replaceAll(/^( +1 +0 S +\d) +\d+/gm, "$1")
      .split(/fork 2:\n[^]*? findings\nkmalloc 3000:\n[^]* findings\n/);
    expect(after).toBe(before!.split("\n").slice(2).join("\n"));
  });

  it("nothing of the failures on the console, but in dmesg", async () => {
    const { out } = await console_run(["faultsweep kmalloc 300", "dmesg -l debug"]);
    expect(out.match(/faultsweep: N \d of kmalloc 300/g)).toHaveLength(3);
  });

  it("of a long command as much as it is asked for", async () => {
    expect(await sweep("--max 4 fork 3")).toMatchObject({ runs: 4, untouched: null });
    expect(await sweep("--only 2 fork 3")).toMatchObject({ runs: 1, untouched: null });
    const sampled = await sweep("--sample 6 fork 12");
    expect(sampled.asked).toBeGreaterThan(80);
    expect(sampled).toMatchObject({ runs: 46, untouched: sampled.asked + 1, findings: [] });
  });
});

it("faultsweep boot boots other machines and leaves this one alone; a boot ends only where it says what it lacks", async () => {
  const { out, err } = await console_run(["touch /tmp/here", "faultsweep --only 3 boot", "ls /tmp"]);
  expect(err).toBe("");
  expect(out).toMatch(
    /^boot:\n {2}\d+ objects and \d+ pages by the counters, in \d+ calls that can fail\n {2}1 run in which one did: 1 ended with an error, 0 went on\n +1 x Creation of .*\n {2}stopped after N 3\n {2}0 findings\nhere\n$/,
  );
});

it("faultsweep refuses, with one line, what cannot be swept", async () => {
  const refused: [words: string, says: string][] = [
    ["", "usage: faultsweep [--only N"],
    ["--only", "faultsweep: --only: nothing given, 1 to"],
    ["--only 0 ls", 'faultsweep: --only: "0" given, 1 to'],
    ["--only 2 --max 4 ls", "usage: faultsweep"],
    ["--fast ls", "faultsweep: no option --fast; usage: faultsweep"],
    ["--max 3", "usage: faultsweep"],
    ["nonsense", 'faultsweep: it fails by itself: no command "nonsense"'],
    ["cat /none", "faultsweep: it fails by itself: cat: /none: No such file or directory"],
    ['""', "faultsweep: the command is empty"],
    ['"ls &"', "faultsweep: a command with & has no end"],
    ['"ls > "', "ls >: one file name stands behind >"],
    ["poweroff", "faultsweep: poweroff cannot be swept"],
    ["on 1 quit", "faultsweep: poweroff cannot be swept"],
    ["faultsweep ls", "faultsweep: faultsweep cannot be swept"],
    ["rm -r /home", "faultsweep: rm -r /home changes /home, so it cannot be run again"],
    ['"echo more >> /var/log/messages"', "changes /var/log/messages, so it cannot be run again"],
    ["kfree ffff888001000000", "faultsweep: it fails by itself: kfree"],
  ];
  const { out, err, failed } = await console_run(refused.map(([words]) => `faultsweep ${words}`));
  expect({ out, failed }).toEqual({ out: "", failed: true });
  const said = err.trimEnd().split("\n");
  expect(said).toHaveLength(refused.length);
  for (const [i, [, says]] of refused.entries()) expect(said[i]).toContain(says);
});
