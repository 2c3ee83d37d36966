/** The same seed gives the same output, byte for byte, wherever and however it runs; another seed another run. */
import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { kheap } from "./run.ts";

const SESSION = [
  "dmesg", "ps", "fork 20", "kmem create my_object_cache 300", "kmem alloc my_object_cache 40", "slab my_object_cache",
  "kmalloc 1000", "alloc_pages 3", "run 500", "sleep 5", "ps", "slabtop", "free", "cat /proc/buddyinfo", "cat /proc/vmstat",
  "map", "uptime --watch 1 --count 3", "sleep 1 &", "jobs", "wait", "ls -l /", "dmesg -l info",
].join("; "); // prettier-ignore

describe("determinism", () => {
  const exec = kheap(["--seed", "7", "--exec", SESSION]);

  it("does not depend on time zone, language, folder or umask", () => {
    expect(exec).toMatchObject({ err: "", status: 0 });
    const before = process.umask(0o077);
    const env = { TZ: "Asia/Kathmandu", LANG: "tr_TR.UTF-8", LC_ALL: "tr_TR.UTF-8", COLUMNS: "33", TERM: "dumb" };
    const elsewhere = kheap(["--seed=7", "--exec", SESSION], { env, cwd: tmpdir() });
    process.umask(before);
    expect(elsewhere).toEqual(exec);
  });

  it("is the same from a pipe as with --exec", () => {
    expect(kheap(["--seed", "7"], { input: SESSION.replaceAll("; ", "\n") })).toEqual(exec);
  });

  it("gives way to another seed: addresses from shuffled free lists and the order of entries differ", () => {
    const lines = ["1", "2"].map((seed) => {
      const line = "kmem create x 300; kmem alloc x 8; run 300; ps";
      return kheap(["--quiet", "--seed", seed, "--append", "slab_freelist_random=on", "--exec", line]).out.split("\n");
    });
    const addresses = lines.map((out) => out.filter((line) => /^ffff\w{12}$/.test(line)));
    expect(addresses[0]!.length).toBe(8);
    expect(addresses[0]).not.toEqual(addresses[1]);
    const tasks = lines.map((out) => out.slice(10, -2).map((row) => row.replace(/ffff\w{12}/, "")));
    expect(tasks[0]!.length).toBeGreaterThan(4);
    expect(tasks[0]).not.toEqual(tasks[1]);
  });
});
