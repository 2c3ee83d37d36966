/** The parts of the console that need no machine: its grammar, watching, background jobs, the nearest word. */
import { describe, expect, it } from "vitest";
import { nearest } from "../../boot/commands/registry.ts";
import { create_jobs } from "../../boot/jobs.ts";
import { parse_line } from "../../boot/parse_line.ts";
import { run_watch, take_watch, type WatchHost } from "../../boot/watch.ts";

describe("the grammar", () => {
  it("parts commands, unquotes words, drops comments", () => {
    expect(parse_line(`echo "a b" 'c;d' e\\ f; ls & # and so on`)).toEqual([
      { text: `echo "a b" 'c;d' e\\ f`, words: ["echo", "a b", "c;d", "e f"], background: false },
      { text: "ls", words: ["ls"], background: true },
    ]);
    expect(parse_line(`  # nothing`)).toEqual([]);
    expect(parse_line(`echo a#b ""`)[0]!.words).toEqual(["echo", "a#b", ""]);
  });

  it("knows where an answer goes", () => {
    expect(parse_line("echo 3 > /proc/sys/vm/drop_caches")[0]!.to).toEqual({
      path: "/proc/sys/vm/drop_caches",
      append: false,
    });
    expect(parse_line("ls>>/tmp/x")[0]!.to).toEqual({ path: "/tmp/x", append: true });
  });

  it("refuses what it does not understand in one line", () => {
    expect(() => parse_line(`echo "abc`)).toThrow(/a quote is not closed/);
    expect(() => parse_line("echo >")).toThrow(/one file name/);
    expect(() => parse_line("echo > a b")).toThrow(/one file name/);
    expect(() => parse_line("> a")).toThrow(/a command is missing/);
    expect(() => parse_line("&")).toThrow(/behind nothing/);
  });
});

describe("the nearest word", () => {
  const words = ["slab", "slabtop", "kmalloc", "kmem", "free", "free_pages"];
  it("is found through swapped, missing, wrong letters and cut words", () => {
    expect(nearest("salb", words)).toBe("slab");
    expect(nearest("kmaloc", words)).toBe("kmalloc");
    expect(nearest("slabt", words)).toBe("slabtop");
    expect(nearest("fere", words)).toBe("free");
  });
  it("is none if nothing is near", () => expect(nearest("xyzzyxyzzy", words)).toBeUndefined());
});

describe("background jobs", () => {
  it("run step by step, as many as are granted, and end", async () => {
    const jobs = create_jobs();
    const seen: string[] = [];
    for (const name of ["a", "b"])
      jobs.start(name, async (job) => {
        for (let i = 0; i < 5; i++) {
          seen.push(`${name}${i}`);
          await job.pause();
        }
      });
    expect(seen).toEqual([]);
    await jobs.advance(2);
    expect(seen).toEqual(["a0", "a1", "b0", "b1"]);
    expect(jobs.list()).toEqual([
      { id: 1, command: "a", steps: 2 },
      { id: 2, command: "b", steps: 2 },
    ]);
    await jobs.advance(10);
    expect(seen.length).toBe(10);
    expect(jobs.list()).toEqual([]);
  });

  it("end early when they are killed", async () => {
    const jobs = create_jobs();
    let done = "";
    const id = jobs.start("long", async (job) => {
      while (!job.cancelled) await job.pause();
      done = "cleaned up";
    });
    await jobs.advance(3);
    expect(await jobs.kill(id)).toBe(true);
    expect(done).toBe("cleaned up");
    expect(await jobs.kill(id)).toBe(false);
  });
});

describe("--watch", () => {
  it("is taken out of the arguments, with its seconds and the count", () => {
    expect(take_watch(["dentry"])).toEqual({ args: ["dentry"], watch: undefined });
    expect(take_watch(["dentry", "--watch"]).watch).toEqual({ seconds: 2, count: undefined });
    expect(take_watch(["--watch", "0.5", "dentry", "--count", "7"])).toEqual({
      args: ["dentry"],
      watch: { seconds: 0.5, count: 7 },
    });
    expect(take_watch(["dentry", "--watch", "kmem", "alloc", "x"]).watch).toBeUndefined();
    expect(() => take_watch(["--watch", "0"])).toThrow(/0\.1 to 3600/);
    expect(() => take_watch(["--watch", "1", "--count", "x"])).toThrow(/--count/);
  });

  it("prints three answers off a terminal, the machine running in between and nobody waiting", async () => {
    let [out, turns, reads] = ["", 0, 0];
    const host: WatchHost = {
      terminal: false,
      json: false,
      height: () => 24,
      write: (text) => void (out += text),
      cancelled: () => false,
      sleep: () => Promise.reject(new Error("slept")),
      turn: async (seconds) => void (turns += seconds),
    };
    const read = async () => ({ text: `answer ${++reads}`, json: reads });
    await run_watch(host, "x", { seconds: 5, count: undefined }, read);
    expect(out).toBe("answer 1\n\nanswer 2\n\nanswer 3\n");
    expect(turns).toBe(10);
  });
});
