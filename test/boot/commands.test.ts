/** Every command that is the console's own: what it answers, how it fails, what it leaves behind (nothing). */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { all_commands } from "../../boot/commands/registry.ts";
import { answer, console_run, kheap } from "./run.ts";

describe("help", () => {
  it("lists every command and fits 24 lines of 80", async () => {
    const text = await answer("help");
    const lines = text.trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(23);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    const words = new Set(text.split(/\s+/));
    for (const { name } of all_commands()) expect(words, name).toContain(name);
  });

  it("has a manual for each, of at most 80 columns", async () => {
    const text = await answer(
      all_commands()
        .map(({ name }) => `man ${name}`)
        .join("; "),
    );
    expect(text.match(/^usage: /gm)!.length).toBe(all_commands().length);
    for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
  });

  it("names the nearest where a word is unknown", async () => {
    const { err, failed } = await console_run(["salb task_struct", "man slbtop", "xyzzyxyzzy"]);
    expect(err.split("\n")).toEqual([
      `no command "salb"; did you mean "slab"? help lists all`,
      `no command "slbtop"; did you mean "slabtop"?`,
      `no command "xyzzyxyzzy"; help lists all`,
      "",
    ]);
    expect(failed).toBe(true);
  });
});

describe("files", () => {
  it("are made, written, read, listed, copied and removed", async () => {
    const { out, err } = await console_run([
      "mkdir -p /tmp/a/b; touch /tmp/a/empty; echo one two > /tmp/a/f; echo three >> /tmp/a/f; cat /tmp/a/f",
      "ls /tmp/a; cat /tmp/a/f > /tmp/a/b/f; cat /tmp/a/b/f; stat /tmp/a/f; rm /tmp/a/b/f; rmdir /tmp/a/b; ls /tmp/a",
      "rm -r /tmp/a; ls /tmp/a",
    ]);
    const lines = out.split("\n");
    expect(lines.slice(0, 7)).toEqual(["one two", "three", "b", "empty", "f", "one two", "three"]);
    expect(lines.slice(7, 9)).toEqual(["  File: /tmp/a/f", expect.stringMatching(/ {2}Size: 14 +Blocks: 8/)]);
    expect(lines.slice(-3)).toEqual(["empty", "f", ""]);
    expect(err).toBe("ls: /tmp/a: No such file or directory\n");
  });

  it("take an answer by redirection, UTF-8 included", async () => {
    expect(await answer("echo grüße > /tmp/x; help > /tmp/y; cat /tmp/x; rm /tmp/x /tmp/y")).toBe("grüße\n");
  });

  it("fail in one line that names the file, and the rest of the line runs", async () => {
    const { out, err, failed } = await console_run([
      "cat /nowhere; cat /proc; mkdir /proc; rm /tmp; rmdir /proc; echo x > /no/such; ls -q; rm; echo on",
    ]);
    expect(out).toBe("on\n");
    expect(failed).toBe(true);
    expect(err.trimEnd().split("\n")).toEqual([
      "cat: /nowhere: No such file or directory",
      "cat: /proc: Is a directory",
      "mkdir: /proc: File exists",
      "rm: /tmp: Is a directory",
      expect.stringMatching(/^rmdir: \/proc: /),
      "console: /no/such: No such file or directory",
      expect.stringMatching(/^ls: no option -q; usage: /),
      "usage: rm [-r] FILE…",
    ]);
  });

  it("show what the kernel knows: /proc", async () => {
    expect(await answer("cat /proc/slabinfo")).toMatch(/^slabinfo - version: 2\.1\n# name/);
    expect(await answer("cat /proc/buddyinfo")).toMatch(/^Node 0, zone +DMA /);
    expect(await answer("cat /proc/cmdline", { append: "quiet x=1" })).toMatch(/quiet x=1\n$/);
  });
});

describe("tasks", () => {
  it("are forked, listed and killed, and are gone then", async () => {
    const { out } = await console_run(["fork 3", "ps", "kill sleep", "ps"]);
    const [first, ...rest] = out.split("\n");
    const [, from, to] = /^3 tasks, pids (\d+) to (\d+)$/.exec(first!)!;
    expect(Number(to) - Number(from)).toBe(2);
    const sleepers = rest.filter((line) => line.endsWith(" sleep"));
    expect(sleepers.length).toBe(3); // in the first ps; none in the second
    expect(sleepers.every((line) => /^ +\d+ +1 S /.test(line))).toBe(true);
  });

  it("fork says how far it came when the limit is reached", async () => {
    const { err } = await console_run(["fork 100000"]);
    expect(err).toMatch(/^fork: \d+ of 100000 made, then: Resource temporarily unavailable\n$/);
  });

  it("kill refuses what is no task, signal or job", async () => {
    const { err } = await console_run(["kill 31000; kill nobody; kill -NOPE 1; kill; kill %9"]);
    expect(err.trimEnd().split("\n")).toEqual([
      "kill 31000: no task has this pid",
      "kill nobody: no task has this name",
      expect.stringMatching(/^kill -NOPE: allowed: /),
      "usage: kill [-SIGNAL] PID|NAME…",
      "kill %9: no such job",
    ]);
  });

  it("time passes by sleep and by console lines only", async () => {
    const { out } = await console_run(["uptime --json", "uptime --json", "sleep 3", "uptime --json"]);
    const times = out
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { seconds: number }).seconds);
    expect(times[1]! - times[0]!).toBeCloseTo(0.01, 3);
    expect(times[2]! - times[1]!).toBeCloseTo(3.02, 2);
  });
});

describe("memory", () => {
  it("free adds up to /proc/meminfo, in procps' columns", async () => {
    const [head, mem, swap] = (await answer("free")).split("\n");
    expect(head).toBe("               total        used        free      shared  buff/cache   available");
    expect(mem).toMatch(/^Mem: {8}[ \d]{8}(?: {4}[ \d]{8}){5}$/);
    expect(swap).toBe("Swap:              0           0           0");
    const { out } = await console_run(["free --json", "cat /proc/meminfo"]);
    const [json, ...meminfo] = out.split("\n");
    const { total, free } = JSON.parse(json!) as { total: number; free: number };
    expect(meminfo[0]).toBe(`MemTotal:       ${String(total).padStart(8)} kB`);
    expect(free).toBeLessThan(total);
  });

  it("slabtop prints procps' head and adds up its rows", async () => {
    const lines = (await answer("slabtop")).trimEnd().split("\n");
    const [, active, objs] = /^ Active \/ Total Objects \(% used\) {4}: (\d+) \/ (\d+) \(\d+\.\d%\)$/.exec(lines[0]!)!;
    expect(lines[6]).toBe("  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME".padEnd(78));
    const rows = lines.slice(7).map((line) => line.trim().split(/\s+/));
    const sum = (column: number): number => rows.reduce((total, row) => total + Number(row[column]), 0);
    expect([sum(1), sum(0)]).toEqual([Number(active), Number(objs)]);
    const counts = rows.map((row) => Number(row[0]));
    expect(counts).toEqual([...counts].sort((a, b) => b - a));
    expect((await answer("slabtop -s n -n 2")).trimEnd().split("\n").length).toBe(9);
  });

  it("slabtop refuses unknown keys and options", async () => {
    const { err } = await console_run(["slabtop -s q", "slabtop -x", "slabtop -n 0"]);
    expect(err.trimEnd().split("\n")).toEqual([
      "slabtop -s q: allowed: a b c l v n o p s u",
      "slabtop: no option -x; there are -o, -s KEY, -n LINES",
      `slabtop -n: "0" given, 1 to 10000 allowed`,
    ]);
  });
});

describe("the log", () => {
  it("is printed whole, or some levels of it", async () => {
    const { out } = await console_run(["dmesg --json", "dmesg -l notice --json", "dmesg -l notice+ --json"]);
    const [all, notice, urgent] = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { level: string }[]);
    expect(all!.length).toBeGreaterThan(notice!.length);
    expect(new Set(notice!.map(({ level }) => level))).toEqual(new Set(["notice"]));
    expect(urgent!.length).toBeGreaterThanOrEqual(notice!.length);
    expect((await console_run(["dmesg -l loud"])).err).toMatch(/^dmesg -l loud: allowed: emerg, /);
  });
});

describe("answers", () => {
  it("are one JSON value a line with --json, an error too", async () => {
    const { out, err } = await console_run(["nproc; nothing; ls /proc/nothing", "echo --json", `echo "`], {
      json: true,
    });
    expect(err).not.toContain("nothing");
    expect(
      out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      2,
      { error: `no command "nothing"; help lists all` },
      { error: "ls: /proc/nothing: No such file or directory" },
      "--json",
      { error: `": a quote is not closed` },
    ]);
  });

  it("of a command in the background come when it is done", async () => {
    const { out } = await console_run(["nproc &; echo now; jobs; wait; echo later"]);
    expect(out.split("\n").slice(0, 2)).toEqual(["[1] nproc", "[1] done: nproc"]);
  });

  it("of commands that wait for jobs never come from a job", async () => {
    const { err } = await console_run(["poweroff &", "wait &", "sleep 9 &", "kill %3 &"]);
    const line = "this command waits for jobs, so it cannot be one";
    expect(err.trimEnd().split("\n")).toEqual([`[1] ${line}`, `[2] ${line}`, `[4] ${line}`]);
  });

  it("of --watch come three times off a terminal", async () => {
    const { out } = await console_run(["nproc --watch", "uptime --watch 1 --count 2 --json"]);
    const lines = out.trimEnd().split("\n");
    expect(lines.slice(0, 5)).toEqual(["2", "", "2", "", "2"]);
    const [first, second] = lines.slice(5).map((line) => (JSON.parse(line) as { seconds: number }).seconds);
    expect(second! - first!).toBeCloseTo(1, 3);
    expect((await console_run(["fork --watch"])).err).toBe("fork: --watch is for commands that only read\n");
  });
});

describe("power-off", () => {
  it("gives back what the console holds and names it first", async () => {
    const { out } = await console_run([
      "kmem create x 300",
      "kmem alloc x 3",
      "kmalloc 100",
      "alloc_pages 2",
      "poweroff",
      "echo no",
    ]);
    expect(out).toContain(
      "given back first, held by the console: cache x, object x x 3, block kmalloc-128, pages order 2\n",
    );
    expect(out).not.toContain("no\n");
  });

  it("ends jobs early", async () => {
    const { out } = await console_run(["sleep 80000 &", "poweroff"]);
    expect(out).toContain("[1] sleep 80000");
  });
});

describe("the process", () => {
  const folder = mkdtempSync(join(tmpdir(), "kheap-"));

  it("exits with 0, 1, 2 as the commands went, and the rest of a line runs after a failure", () => {
    expect(kheap(["--exec", "echo"]).status).toBe(0);
    const failed = kheap(["--quiet", "--exec", "nothing; echo still here"]);
    expect(failed.status).toBe(1);
    expect(failed.out).toMatch(/^still here\n/);
    const usage = kheap(["--mem", "1"]);
    expect([usage.status, usage.out]).toEqual([2, ""]);
    expect(usage.err).toMatch(/^kheap: --mem 1: .*\n$/);
    expect(kheap(["--help"])).toMatchObject({ status: 0, err: "" });
    expect(kheap(["--version"]).out).toBe("0.1.0\n");
  });

  it("exits with 3 when the kernel panics, and the panic goes to standard error", () => {
    const { status, out, err } = kheap(["--quiet", "--append", "init=/nothing", "--exec", "echo"]);
    expect([status, out]).toEqual([3, ""]);
    expect(err).toMatch(/^Kernel panic - not syncing: Requested init \/nothing failed/);
  });

  it("runs a script, comments and empty lines left out", () => {
    const path = join(folder, "script");
    writeFileSync(path, "# a comment\n\necho one # more\necho two; echo three\n");
    expect(kheap(["--quiet", "--script", path]).out).toMatch(/^one\ntwo\nthree\npower off: /);
    const missing = kheap(["--script", join(folder, "none")]);
    expect(missing.status).toBe(2);
    expect(missing.err).toMatch(/^kheap: --script .*none: ENOENT\n$/);
  });

  it("reads a machine from a file, and says what is wrong with one", () => {
    const path = join(folder, "machine.json");
    writeFileSync(path, "{ not json");
    const { status, err } = kheap(["--machine", path]);
    expect(status).toBe(2);
    expect(err.split("\n").length).toBe(2);
    expect(err).toContain(path);
  });

  it("keeps standard output to one JSON value a command with --json", () => {
    const { out, status } = kheap(["--json", "--exec", "nproc; echo a"]);
    expect(out).toBe(`4\n"a"\n`);
    expect(status).toBe(0);
  });
});
