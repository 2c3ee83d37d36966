/**
 * Every command of the console, every file operation, tasks from fork to exit, and boot: each with its allocations
 * failing in turn. With `npm run test:long` 50 runs of each and the first and last 20, with `npm run nightly` all.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, vi } from "vitest";
import { NULL } from "../../hal/addr.ts";
import { PRESETS } from "../../hal/machine.ts";
import { CommandError, all_commands, line, register } from "../../boot/commands/registry.ts";
import { NEVER } from "../../boot/faults.ts";
import { boot_with_strike } from "../../boot/faultsweep_boot.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, type FilePtr } from "../../kernel/fs/fs.ts";
import { bytes_of } from "../../kernel/fs/bytes.ts";
import { file_llseek, file_read, file_truncate, file_write, do_filp_open } from "../../kernel/fs/open.ts";
import { errno_name } from "../../kernel/lib/errno.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { program, spawn } from "../../kernel/program.ts";
import { TaskStruct } from "../../kernel/task.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { console_run } from "./run.ts";

const nightly = process.env.KHEAP_RUN === "nightly";
const SAMPLE = nightly ? "" : "--sample 50 ";
if (nightly) vi.setConfig({ testTimeout: 3_600_000 });
const data = fileURLToPath(new URL("../data", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "kheap-"));
afterAll(() => rmSync(folder, { recursive: true }));

/* What the sweeps run besides the console's own commands ------------------------------------------------------------- */

function check(what: string, result: number | Uint8Array): void {
  if (typeof result === "number" && result < 0) throw new CommandError(`${what}: ${errno_name(result)}`);
}

/** Opens a file, does something to it and closes it, whatever comes of that. */
function on_file(path: string, flags: number, act: (file: FilePtr) => number | Uint8Array): void {
  const file = do_filp_open(path, flags, 0o644);
  check("open", file);
  const result = act(file);
  fput(file);
  check("file", result);
}

const test_command = (name: string, act: () => void): void =>
  register({
    name,
    group: "files",
    usage: name,
    summary: "of a test",
    man: "",
    run() {
      act();
      return line("");
    },
  });
test_command("t_open_excl", () => on_file("/tmp/x", O_RDWR | O_CREAT | O_EXCL, () => 0));
test_command("t_write_pages", () => on_file("/tmp/x", O_RDWR | O_CREAT, (file) => file_write(file, new Uint8Array(20_000).fill(65)))); // prettier-ignore
test_command("t_append", () => on_file("/tmp/x", O_RDWR | O_CREAT | O_APPEND, (file) => file_write(file, bytes_of("more")))); // prettier-ignore
test_command("t_read", () => on_file("/tmp/x", O_RDONLY, (file) => file_read(file, 1 << 16)));
test_command("t_truncate_up", () => on_file("/tmp/x", O_RDWR | O_CREAT, (file) => file_truncate(file, 100_000)));
test_command("t_truncate_down", () => on_file("/tmp/x", O_RDWR, (file) => file_truncate(file, 5000)));
test_command("t_write_far", () =>
  on_file("/tmp/x", O_RDWR | O_CREAT, (file) => {
    file_llseek(file, 4096 * 300, 0);
    return file_write(file, bytes_of("far"));
  }),
);

/** A program that makes every system call about files, and goes on whatever they answer. */
program("t_all_calls", function* (sys) {
  yield sys.mkdir("/tmp/d");
  const fd: number = yield sys.open("/tmp/d/f", O_RDWR | O_CREAT);
  yield sys.write(fd, "some words of no meaning".repeat(300));
  const second: number = yield sys.dup(fd);
  yield sys.lseek(fd, 10);
  yield sys.read(second, 100);
  const va: number = yield sys.sbrk(8192);
  if (va > 0) yield sys.read(second, va, 8192);
  if (va > 0) yield sys.write(fd, va, 5000);
  yield sys.ftruncate(fd, 9000);
  yield sys.link("/tmp/d/f", "/tmp/d/g");
  yield sys.rename("/tmp/d/g", "/tmp/d/a_name_of_more_than_forty_bytes_that_needs_memory");
  yield sys.unlink("/tmp/d/a_name_of_more_than_forty_bytes_that_needs_memory");
  yield sys.symlink("/more/than/sixteen/bytes", "/tmp/d/l");
  yield sys.unlink("/tmp/d/l");
  const ends: [number, number] | number = yield sys.pipe();
  if (typeof ends === "object") {
    yield sys.write(ends[1], "through a pipe");
    yield sys.read(ends[0], 100);
    for (const end of ends) yield sys.close(end);
  }
  yield sys.stat("/tmp/d/f");
  yield sys.readdir("/tmp/d");
  if ((yield sys.fork()) === 0) {
    yield sys.exec("t_child");
    return 1;
  }
  yield sys.wait();
  yield sys.close(second);
  yield sys.close(fd);
  yield sys.unlink("/tmp/d/f");
  yield sys.rmdir("/tmp/d");
  return 0;
});
program("t_child", function* (sys) {
  yield sys.read(yield sys.open("/proc/self/status"), 4096);
  return 0;
});

register({
  name: "t_program",
  group: "tasks",
  usage: "t_program",
  summary: "of a test",
  man: "",
  async run(ctx) {
    const task = spawn(find_task_by_pid(1), "t_all_calls", []);
    if (task < 0) throw new CommandError(`t_program: ${errno_name(task)}`);
    const pid = TaskStruct.pid.get(task);
    for (let i = 0; i < 500 && find_task_by_pid(pid) !== NULL; i++) await ctx.control.run_entries(1);
    return line("");
  },
});

/* The sweeps --------------------------------------------------------------------------------------------------------- */

interface Answer {
  readonly runs: number;
  readonly untouched: number | null;
  readonly findings: readonly unknown[];
}

/** What all sweeps of this run came to, for the README. */
const total = { lines: 0, runs: 0 };
afterAll(() => console.info(`${total.lines} lines swept, in ${total.runs} runs in which an allocation failed`));

/** Sweeps each line on one machine, on which nothing goes on by itself; `before` is what there is besides. */
async function sweep(
  lines: readonly string[],
  before: readonly string[] = [],
  append = "",
): Promise<Record<string, unknown>> {
  const quiet = ["kill crond syslogd getty", "run 20", ...before];
  const sweeps = lines.map((text) => `faultsweep ${SAMPLE}'${text}'`);
  const { out } = await console_run([...quiet, ...sweeps], { json: true, append });
  const answers = out.trimEnd().split("\n").slice(quiet.length).map((text) => JSON.parse(text) as Answer | { error: string }); // prettier-ignore
  return Object.fromEntries(
    answers.map((answer, i) => {
      if ("error" in answer) return [lines[i]!, answer.error];
      total.lines++;
      total.runs += answer.runs;
      return [lines[i]!, answer.untouched === null ? "never untouched" : answer.findings];
    }),
  );
}

async function expect_survival(lines: readonly string[], before: readonly string[] = [], append = ""): Promise<void> {
  expect(await sweep(lines, before, append)).toEqual(Object.fromEntries(lines.map((text) => [text, []])));
}

/** The address that a command prints as a sweep will see it, which runs it after all that is kept in reserve was given back. */
async function address_of(text: string, append: string): Promise<string> {
  const lines = ["kill crond syslogd getty", "run 20", "faultsweep nproc", text];
  const { out } = await console_run(lines, { json: true, append });
  return JSON.parse(out.trimEnd().split("\n").at(-1)!) as string;
}

/** How to call the commands that need arguments. `PAGE`, `BLOCK`, `AREA`: what alloc_pages 2, kmalloc 20000, vmalloc 20000 give. */
const LINES: Readonly<Record<string, readonly string[]>> = {
  slab: ["slab dentry", "slab kmalloc-64 --all"],
  explain: ["explain ffff888001000000"],
  frag: ["frag", "frag 300 5000"],
  peek: ["peek ffff888001000000 64"],
  pahole: ["pahole page"],
  poke: ["alloc_pages 2; poke PAGE 41 42"],
  on: ["on 1 touch /tmp/x", "on 1 kmalloc 300"],
  kmem: [
    "kmem create t_x 300 flags=SLAB_HWCACHE_ALIGN ctor; kmem alloc t_x 60; kmem free t_x all; kmem shrink t_x; kmem destroy t_x",
    "kmem create t_x 40; kmem create t_y 40; kmem alloc t_y 3 node=1",
    "kmem alloc dentry 100",
  ],
  kmalloc: ["kmalloc 0", "kmalloc 300", "kmalloc 300 node=1", "kmalloc 100000", "kmalloc 64 gfp=GFP_ATOMIC"],
  krealloc: ["kmalloc 20000; krealloc BLOCK 40000", "kmalloc 20000; krealloc BLOCK 50"],
  ksize: ["kmalloc 20000; ksize BLOCK"],
  kfree: ["kmalloc 20000; kfree BLOCK"],
  alloc_pages: ["alloc_pages 0", "alloc_pages 4", "alloc_pages 2 node=1 gfp=GFP_ATOMIC"],
  free_pages: ["alloc_pages 2; free_pages PAGE 2"],
  replay: [
    `replay ${data}/ftrace/trace.txt`,
    `replay ${data}/traces/fork-shell.trace.gz --stop 400`,
    `replay ${data}/traces/fork-shell.trace.gz --pages --stop 2000`,
    `replay ${data}/malloclab/lsr.rep.gz --malloc --stop 200; replay --end`,
  ],
  fork: ["fork", "fork 3", "fork 2; kill sleep; run 4", "fork 4; run 8; kill -9 sleep; run 20"],
  kill: ["kill -0 init"],
  sleep: ["sleep 0.1", "fork 1; sleep 0.1"],
  run: ["run 20", "fork 2; run 6"],
  ls: ["ls -l / /tmp /proc /sys", "ls -l /proc/1"],
  cat: ["cat /proc/1/status /proc/meminfo", "cat /proc/slabinfo /proc/zoneinfo /proc/vmstat"],
  echo: ["echo hello > /tmp/x; echo more >> /tmp/x; cat /tmp/x; rm /tmp/x", "echo 3 > /proc/sys/vm/drop_caches"],
  touch: ["touch /tmp/x", "touch /tmp/x /tmp/y; rm /tmp/y"],
  mkdir: ["mkdir /tmp/d", "mkdir -p /tmp/d/e/f; touch /tmp/d/e/f/g"],
  rmdir: ["mkdir /tmp/d; rmdir /tmp/d"],
  rm: ["mkdir -p /tmp/d/e; touch /tmp/d/e/f; rm -r /tmp/d"],
  stat: ["stat /proc /tmp /sys/kernel/slab"],
  wc: ["echo hello > /tmp/x; wc /tmp/x", "wc /usr/src/000/000.c"],
  grep: ["grep 1 /usr/src/000/000.c /proc/meminfo"],
  head: ["head -n 3 /proc/meminfo", "slab dentry | head -n 2"],
  mv: ["touch /tmp/x; mv /tmp/x /tmp/a_name_of_more_than_forty_bytes_that_needs_memory"],
  ln: ["touch /tmp/x; ln /tmp/x /tmp/y", "ln -s /a/longer/path/than/the/inode/holds /tmp/l; ls -l /tmp/l"],
  sh: ['sh -c "ls /proc | grep meminfo > /tmp/x && cat < /tmp/x | wc || echo no; sleep 0.1 & wait"', "ls / | wc"],
  usertests: ["usertests hard links", "usertests a pipe holds 16 pages"],
  man: ["man fork"],
  insmod: ["insmod ./examples/ring.ts", "insmod ./examples/scullc.ts"],
  rmmod: ["insmod ./examples/leaky.ts; rmmod leaky"],
  modprobe: ["modprobe ring_kunit"],
  modinfo: ["insmod ./examples/ring.ts; modinfo ring"],
  kunit: ["modprobe ring_kunit; kunit; modprobe -r ring_kunit"],
  numactl: ["numactl -H", "numactl --membind=1 fork 2", "numactl -i all mkdir /tmp/d", "numactl -p 1 kmalloc 20000"],
  export: [`export ${folder}`],
  memhog: ["memhog 2"],
  pt: ["pt kernel ffff888001000000", "pt 1 400000"],
  vmalloc: ["vmalloc 20000", "vmalloc 20000 node=1"],
  vfree: ["vmalloc 20000; vfree AREA"],
  compare: ["compare fork-storm:3 slub"],
};
/** They never end, end everything, would sweep themselves, break the kernel on purpose, or need a realm that counts cycles. */
const NOT_SWEPT = ["tour", "wait", "poweroff", "faultsweep", "lkdtm", "perf"];

const commands = all_commands().filter(({ name }) => !NOT_SWEPT.includes(name) && !name.startsWith("t_"));

/** Lines about what this allocator has not. */
const NOT_THERE: Readonly<Record<string, RegExp>> = {
  "slab=slub": /^$/,
  "slab=slab": /\/sys\/kernel\/slab|^slabinfo/,
  "slab=slob": /\/sys\/kernel\/slab|slabinfo|^slabtop|kmalloc-64/,
};

// Under SLAB and SLOB what makes the heap work is swept in allocators.long.ts, and with `npm run nightly` everything here.
describe.each(["slab=slub", ...(nightly ? ["slab=slab", "slab=slob"] : [])])(
  "every command of the console, %s",
  (append) => {
    it.each(commands.map(({ name }) => name))("%s", async (name) => {
      const [page, block] = [await address_of("alloc_pages 2", append), await address_of("kmalloc 20000", append)];
      const area = name === "vfree" ? await address_of("vmalloc 20000", append) : "";
      const lines = (LINES[name] ?? [name])
        .filter((text) => !NOT_THERE[append]!.test(text))
        .map((text) => text.replace("PAGE", page).replace("BLOCK", block).replace("AREA", area));
      await expect_survival(lines, [], append);
    });
  },
);

describe("every file operation", () => {
  it.each(["t_open_excl", "t_write_pages", "t_append", "t_truncate_up", "t_write_far", "t_write_pages; t_read; t_truncate_down; t_append"])(
    "%s",
    async (text) => {
      await expect_survival([text, `${text}; rm /tmp/x`]);
    },
  ); // prettier-ignore

  it("reading every file of /proc and /sys", async () => {
    const list = async (path: string): Promise<string[]> => {
      const { out } = await console_run([`ls -l ${path}`], { json: true });
      const rows = JSON.parse(out) as { name: string; mode: string }[];
      const found: string[] = [];
      for (const { name, mode } of rows)
        if (mode.startsWith("d")) found.push(...(await list(`${path}/${name}`)));
        else if (mode.startsWith("-r")) found.push(`${path}/${name}`);
      return found;
    };
    const is_new = /\/proc\/\d+\/|\/sys\/kernel\/slab\/(?!dentry\/)/; // one cache has what all have
    const files = [
      ...(await list("/proc")),
      ...(await list("/sys/kernel/slab/dentry")),
      ...(await list("/sys/devices")),
    ];
    const known = files.filter((file) => !is_new.test(file));
    const at_once = nightly ? 1 : 12;
    const lines = Array.from({ length: Math.ceil(known.length / at_once) }, (_, i) => known.slice(i * at_once, (i + 1) * at_once)); // prettier-ignore
    await expect_survival(lines.map((group) => `cat ${group.join(" ")}`));
  });

  it("what a program asks for, by system calls", () => expect_survival(["t_program", "t_program; t_program"]));
});

describe("with shuffled and hardened free lists, and under SLAB and SLOB", () => {
  const lines = ["fork 3", "mkdir /tmp/d; echo hello > /tmp/d/f; rm -r /tmp/d", "t_program"];
  it.each(["slab_freelist_random=on slab_freelist_hardened=on slab_full=off", "slab=slab", "slab=slob"])(
    "%s",
    async (append) => {
      const sweeps = lines.map((text) => `faultsweep ${SAMPLE}'${text}'`);
      const { out, err, failed } = await console_run(["kill crond syslogd getty", "run 20", ...sweeps], { append });
      expect({ err, failed }).toEqual({ err: "", failed: false });
      expect(out.match(/ {2}0 findings\n/g)).toHaveLength(lines.length);
    },
  );
});

/** Where Linux's own boot ends in a panic: caches made with SLAB_PANIC, hash tables, file systems, the first program. */
const MAY_PANIC = [
  /^no memory for the first (cache descriptors|slab of kmem_cache_node on node \d)$/,
  /^Creation of kmalloc slab kmem_cache(_node)? size=\d+ failed\. Reason -12$/,
  /^__kmem_cache_create_args: Failed to create slab '[\w-]+'\. Error -12$/,
  /^Failed to allocate [\w-]+ hash table$/,
  /^No memory for the zero page$/,
  /^Failed to (make|mount) [\w/ ]+: error -12$/,
  /^Requested init \S+ failed \(error -12\)\.$/,
  /^Attempted to kill init! exitcode=0x0000000[9f]$/,
];

describe("boot", () => {
  const machines = [TEST_MACHINE, PRESETS.embedded!, ...(nightly ? [PRESETS.textbook!, PRESETS.server!] : [])];
  it.each(machines)("of $name: it goes on, or says what it could not have", (machine) => {
    const options = { machine, garbage: garbage(3) };
    const { asked, counts, findings } = boot_with_strike(options, NEVER);
    expect(findings).toEqual([]);
    expect(counts!.objects).toBeGreaterThan(500);
    const wrong: unknown[] = [];
    const step = nightly ? 1 : Math.ceil((asked - 40) / 50);
    for (let n = 1; n <= asked + 1; n += n > 20 && n < asked - 20 ? Math.min(step, asked - 20 - n) || 1 : 1) {
      const { touched, panic, findings: found, at } = boot_with_strike(options, n);
      const is_allowed = panic === undefined || MAY_PANIC.some((text) => text.test(panic));
      if (found.length > 0 || !is_allowed || touched !== n <= asked) wrong.push({ n, panic, found, touched, at });
    }
    expect(wrong).toEqual([]);
  });
});
