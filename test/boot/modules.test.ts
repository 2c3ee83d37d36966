/** Modules as their authors meet them: insmod, rmmod and the others, on good files and bad ones. */
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { console_attach } from "../../hal/console.ts";
import { create_session } from "../../boot/session.ts";
import { boot } from "../../boot/start_kernel.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { answer, console_run } from "./run.ts";

const folder = mkdtempSync(join(tmpdir(), "kheap-"));
afterAll(() => rmSync(folder, { recursive: true }));
const examples = fileURLToPath(new URL("../../examples", import.meta.url));

/** Writes a module and returns its path. `module_init` and what else it uses is imported for it. */
function module_file(name: string, text: string): string {
  const path = join(folder, `${name}.ts`);
  writeFileSync(path, text);
  return path;
}

const HEAD = 'import { module_exit, module_init, module_param, symbol_get, EXPORT_SYMBOL } from "kheap/linux/module";';
const INIT = "module_init(() => 0);";
const EXIT = "module_exit(() => {});";

/** What `lines` say on standard error; they must fail. */
async function complaint(...lines: string[]): Promise<string> {
  const { err, failed } = await console_run([...lines, "lsmod"]);
  expect(failed).toBe(true);
  return err;
}

describe("a module", () => {
  it("is loaded, seen, used and unloaded without a trace", async () => {
    const { out, err, failed } = await console_run([
      `insmod ${examples}/ring.ts size=5`,
      "lsmod",
      "cat /proc/modules",
      "cat /proc/ring",
      "echo 44 > /proc/ring",
      "cat /proc/ring",
      "cat /sys/module/ring/parameters/size",
      "cat /sys/module/ring/initstate",
      "modinfo ring",
      "slabinfo my_object_cache",
      "rmmod ring",
      "lsmod",
      "ls /sys/module",
    ]);
    expect(err).toBe("");
    expect(failed).toBe(false);
    expect(out).toMatch(
      /^Module {18}Size {2}Used by\nring {20}4096 {2}0\nring 4096 0 - Live 0xffff8880[0-9a-f]{8} \(O\)\n/,
    );
    expect(out).toContain("number 1\nnumber 2\nnumber 3\nnumber 1\nnumber 2\nnumber 3\nnumber 44\n5\nlive\nfilename:");
    expect(out).toContain("license:        MIT\n");
    expect(out).toContain("parm:           size: 5 (1 to 1024)\n");
    expect(out).toMatch(/Slabcache: my_object_cache .* Objects: 128\n[^]*Object : +32 /);
    expect(out).toMatch(/Module {18}Size {2}Used by\n$/);
  });

  it("is forgotten with its machine, however that ended", async () => {
    const write = (): void => {};
    const host = {
      terminal: false, json: false, width: () => 80, height: () => 24, write, write_error: write,
      write_status: () => {}, ask: () => Promise.resolve(undefined), watching: () => {},
    }; // prettier-ignore
    const before = console_attach(write);
    boot({ machine: TEST_MACHINE, loglevel: 0 });
    await create_session(host).run(`insmod ${examples}/ring.ts`);
    console_attach(before); // that machine is never powered off
    expect(await answer(`insmod ${examples}/ring.ts; rmmod ring; lsmod`)).toBe(
      "Module                  Size  Used by\n",
    );
  });

  it("may be loaded by its name, with those that it needs, and they stay while it is there", async () => {
    const base = module_file("base_one", `${HEAD}\nexport function base_add(a: number, b: number): number { return a + b; }\nEXPORT_SYMBOL(base_add);\n${INIT} ${EXIT}`); // prettier-ignore
    module_file(
      "user_two",
      `${HEAD}
import type { base_add } from "./base_one.ts";
import { proc_create, proc_remove } from "kheap/linux/proc_fs";
import { static_data } from "kheap/linux/types";
const my = static_data("two", { proc: "*kernfs_node" });
module_init(() => {
  const add = symbol_get<typeof base_add>("base_add");
  my.proc = proc_create("sum", { show: () => String(add?.(2, 3)) + "\\n" });
  return 0;
});
module_exit(() => proc_remove(my.proc));`,
    );
    const { out, err } = await console_run([
      `modprobe -d ${folder} user-two`,
      "lsmod",
      "cat /proc/sum",
      "rmmod base_one",
      "modprobe -r user_two",
      "lsmod",
      `insmod ${base}`,
      "rmmod base_one",
    ]);
    expect(out).toBe(`Module                  Size  Used by
user_two                4096  0
base_one                4096  1 user_two
5
Module                  Size  Used by
`);
    expect(err).toBe("rmmod: module base_one is in use by: user_two\n");
  });

  it("keeps its device's users safe: an open device keeps the module", async () => {
    const { out, err } = await console_run([
      `insmod ${examples}/scull.ts quantum=4`,
      "echo hello world > /dev/scull",
      "cat /dev/scull",
      "cat /proc/devices",
      "rmmod scull",
      "ls /dev",
    ]);
    expect([out, err]).toEqual(["hello world\nCharacter devices:\n254 scull\n\nBlock devices:\n", ""]);
  });
});

describe("what is wrong with a module is one line with its place, and nothing is left of it", () => {
  const bad: [what: string, name: string, text: string, args: string, said: RegExp][] = [
    ["does not compile", "syntax", `${HEAD}\nconst x = ;`, "", /^insmod: syntax\.ts:2: Expression expected$/],
    ["is not erasable TypeScript", "enums", `${HEAD}\nenum A { b }`, "", /^insmod: enums\.ts:2: .*enum/],
    ["has no module_init", "lame", HEAD, "", /^insmod: lame\.ts: it has no module_init/],
    ["keeps a let", "lets", `${HEAD}\nlet count = 1;\n${INIT}`, "", /^insmod: lets\.ts:2: module-level "let count" is state outside of RAM: keep it in RAM, e\.g\. const my = static_data/], // prettier-ignore
    [
      "keeps a Map",
      "maps",
      `${HEAD}\nconst all = new Map();\n${INIT}`,
      "",
      /^insmod: maps\.ts:2: module-level Map "all"/,
    ],
    [
      "keeps an array",
      "arrays",
      `${HEAD}\nconst all: number[] = [];\n${INIT}`,
      "",
      /^insmod: arrays\.ts:2: module-level array "all"/,
    ],
    ["imports from Node", "node_fs", `${HEAD}\nimport { readFileSync } from "node:fs";\n${INIT}`, "", /^insmod: node_fs\.ts:2: a module imports from "kheap\/linux\/…" only, not from "node:fs"/], // prettier-ignore
    [
      "imports a value of a module",
      "value",
      `${HEAD}\nimport { f } from "./ring.ts";\n${INIT}`,
      "",
      /^insmod: value\.ts:2: .*symbol_get/,
    ],
    ["imports a header that is not there", "header", `${HEAD}\nimport { x } from "kheap/linux/nope";\n${INIT}`, "", /^insmod: header\.ts:2: there is no header kheap\/linux\/nope; there are kheap\/linux\/bug, /], // prettier-ignore
    ["imports a name that is not there", "missing", `${HEAD}\n\nimport { kmallok } from "kheap/linux/slab";\n${INIT}`, "", /^insmod: missing\.ts:3: kheap\/linux\/slab has no value kmallok/], // prettier-ignore
    ["declares a struct of the kernel's", "structs", `${HEAD}\nimport { struct } from "kheap/linux/types";\nstruct("page", { a: "u32" });\n${INIT}`, "", /^insmod: structs\.ts: the kernel has a struct page already/], // prettier-ignore
    ["gets an unknown parameter", "unknown", `${HEAD}\nmodule_param("size", "uint", 1);\n${INIT}`, "sise=3", /^insmod: unknown\.ts: it has no parameter sise; its parameters: size$/], // prettier-ignore
    ["gets an ill-typed parameter", "typed", `${HEAD}\nmodule_param("size", "uint", 1, { max: 8 });\n${INIT}`, "size=many", /^insmod: typed\.ts: size: "many" given, uint from 0 to 8 allowed$/], // prettier-ignore
    ["gets one out of bounds", "bounds", `${HEAD}\nmodule_param("size", "uint", 1, { max: 8 });\n${INIT}`, "size=9", /^insmod: bounds\.ts: size: "9" given, uint from 0 to 8/], // prettier-ignore
    ["misses a parameter", "needs", `${HEAD}\nmodule_param("path", "charp");\n${INIT}`, "", /^insmod: needs\.ts: parameter path has no default: give path=VALUE$/], // prettier-ignore
    ["has a default out of bounds", "default", `${HEAD}\nmodule_param("n", "int", 9, { max: 8 });\n${INIT}`, "", /^insmod: default\.ts:2: module_param: its default: n: "9" given/], // prettier-ignore
    ["needs a symbol that is not there", "symbols", `${HEAD}\n\nmodule_init(() => {\n  symbol_get("nobody");\n  return 0;\n});`, "", /^insmod: symbols\.ts:4: Unknown symbol nobody/], // prettier-ignore
    ["says that init failed", "failing", `${HEAD}\nmodule_init(() => -12);`, "", /^insmod: failing\.ts:2: init failed: Cannot allocate memory; the module is not loaded$/], // prettier-ignore
    ["throws in init", "throwing", `${HEAD}\nmodule_init(() => {\n  throw new Error("no luck");\n});`, "", /^insmod: throwing\.ts:3: init threw Error: no luck; the module is not loaded$/], // prettier-ignore
    ["panics in init", "panicking", `${HEAD}\nimport { panic } from "kheap/linux/bug";\nmodule_init(() => panic("why"));`, "", /^insmod: panicking\.ts:3: init threw KernelPanic: why; the module is not loaded$/], // prettier-ignore
    [
      "throws at its top level",
      "early",
      `${HEAD}\n(null as never as () => void)();\n${INIT}`,
      "",
      /^insmod: early\.ts:2: TypeError/,
    ],
    ["keeps a lock", "locked", `${HEAD}\nimport { SpinLock, spin_lock } from "kheap/linux/spinlock";\nimport { static_data } from "kheap/linux/types";\nconst my = static_data("my", { lock: SpinLock });\nmodule_init(() => {\n  spin_lock(my.lock);\n  return 0;\n});`, "", /^insmod: locked\.ts:6: init returned with a lock held: my \[locked\]/], // prettier-ignore
  ];
  it.each(bad)("one that %s", async (_what, name, text, args, said) => {
    const err = await complaint(`insmod ${module_file(name, text)} ${args}`);
    expect(err.split("\n")[0]).toMatch(said);
  });

  it("one that is loaded twice, is not there, or is no module", async () => {
    const twice = module_file("twice", `${HEAD}\n${INIT}\n${EXIT}`);
    const err = await complaint(
      `insmod ${twice}`,
      `insmod ${twice}`,
      "insmod nowhere.ts",
      `insmod ${folder}`,
      "rmmod nothing",
    );
    expect(err.replaceAll(folder, "F").split("\n")).toEqual([
      "insmod: twice: it is loaded already",
      "insmod: nowhere.ts: there is no such file",
      expect.stringMatching(/^insmod: F: (it is a folder|a module's file is named after it)/),
      "rmmod: module nothing is not loaded",
      "",
    ]);
  });

  it("modules that need each other in a circle", async () => {
    const of = (mine: string, other: string): string =>
      `${HEAD}\nfunction ${mine}(): void {}\nEXPORT_SYMBOL(${mine});\nmodule_init(() => (symbol_get("${other}"), 0));`;
    module_file("circle_a", of("f_a", "f_b"));
    module_file("circle_b", of("f_b", "f_a"));
    const err = await complaint(`modprobe -d ${folder} circle_a`);
    expect(err).toBe("modprobe: modules need each other in a circle: circle_a -> circle_b -> circle_a\n");
  });
});

const LEAKS = `${HEAD}
import { alloc_pages } from "kheap/linux/gfp";
import { register_chrdev } from "kheap/linux/fs";
import { SLEEP, kthread_run } from "kheap/linux/kthread";
import { NotifierBlock, register_reboot_notifier } from "kheap/linux/notifier";
import { alloc_percpu } from "kheap/linux/percpu";
import { proc_create } from "kheap/linux/proc_fs";
import { shrinker_alloc, shrinker_register } from "kheap/linux/shrinker";
import { GFP_KERNEL, kmalloc, kmem_cache_alloc, kmem_cache_create } from "kheap/linux/slab";
import { sysfs_create_file } from "kheap/linux/sysfs";
import { TimerList, jiffies, mod_timer, timer_setup } from "kheap/linux/timer";
import { static_data } from "kheap/linux/types";
import { vmalloc } from "kheap/linux/vmalloc";
import { INIT_WORK, WorkStruct, alloc_workqueue, schedule_work } from "kheap/linux/workqueue";
const my = static_data("my", { timer: TimerList, work: WorkStruct, block: NotifierBlock });
module_init(() => {
  for (let i = 0; i < 3; i++) kmalloc(100, GFP_KERNEL);
  kmalloc(100_000, GFP_KERNEL);
  const cache = kmem_cache_create("leaked", 48, 0, 0, () => {});
  kmem_cache_alloc(cache, GFP_KERNEL);
  alloc_pages(GFP_KERNEL, 2);
  vmalloc(10_000);
  alloc_percpu(64);
  timer_setup(my.timer, () => {}, 0);
  mod_timer(my.timer, jiffies() + 100_000);
  INIT_WORK(my.work, () => {});
  alloc_workqueue("own");
  kthread_run(() => SLEEP, 0, "leaked");
  shrinker_register(shrinker_alloc(0), () => 0, () => 0, 0);
  proc_create("leaked/file", { show: () => "" });
  sysfs_create_file("kernel/leaked", { show: () => "" });
  register_reboot_notifier(my.block, () => 0);
  register_chrdev(0, "leaked", {});
  return 0;
});
module_exit(() => {
  schedule_work(my.work);
});`;

describe("rmmod", () => {
  it("names everything that a module left, by the line that took it, and fails", async () => {
    const { out, err, failed } = await console_run([
      `insmod ${module_file("leaks", LEAKS)}`,
      "rmmod leaks",
      "lsmod",
      "ls /dev",
    ]);
    expect(failed).toBe(true);
    expect(err).toBe("");
    const lines = out.split("\n").filter((line) => line.startsWith("leaks.ts:"));
    const line_of = (text: string): number => LEAKS.split("\n").findIndex((line) => line.includes(text)) + 1;
    expect(lines.sort()).toEqual(
      [
        ["kthread_run(() =>", "1 kernel thread (leaked)"],
        ["mod_timer(my", "1 armed timer"],
        ["schedule_work(my", "1 queued work"],
        ['alloc_workqueue("own', "1 work queue"],
        ["register_reboot_notifier(my", "1 notifier block"],
        ["shrinker_register(shrinker", "1 shrinker"],
        ["register_chrdev(0", "1 device (/dev/leaked)"],
        ['proc_create("', "1 file (/proc/leaked/file)"],
        ['sysfs_create_file("', "1 file (/sys/kernel/leaked)"],
        ["i < 3", "3 objects of kmalloc-128 (128 bytes each)"],
        ["kmalloc(100_000", "1 kmalloc block (131072 bytes)"],
        ["kmem_cache_alloc(cache", "1 object of leaked (48 bytes)"],
        ["alloc_pages(GFP", "1 block of pages (order 2)"],
        ["vmalloc(10", "1 vmalloc area"],
        ["alloc_percpu(64", "1 per-CPU object"],
        ["kmem_cache_create(", "1 cache (leaked)"],
      ]
        .map(([code, what]) => `leaks.ts:${line_of(code!)}: ${what} not given back`)
        .sort(),
    );
    expect(out).toMatch(/rmmod: leaks left this behind; kheap took it back.*\nModule {18}Size {2}Used by\n$/);
  });

  it("finds what a timer's function took, and reports one that asks for memory as if it might sleep", async () => {
    const { out } = await console_run([`insmod ${examples}/ticker.ts lesson=y`, "run 200", "rmmod ticker", "dmesg"]);
    expect(out).toMatch(
      /BUG: sleeping function called from invalid context at ticker:\d+\n.*in_atomic\(\): 1, irqs_disabled\(\): 1/,
    );
    expect(out).toMatch(/ {2}tick \[ticker\.ts:\d+\]/);
    expect(out).toMatch(/ticker: \d+ notes, 0 lost/);
    const good = await answer(`insmod ${examples}/ticker.ts; run 200; rmmod ticker`);
    expect(good).not.toContain("BUG");
  });

  it("a module may give memory back before the OOM killer picks anybody", async () => {
    const generous = module_file("generous", `${HEAD}
import { NotifierBlock, NOTIFY_OK, register_oom_notifier, unregister_oom_notifier } from "kheap/linux/notifier";
import { GFP_KERNEL, alloc_pages_exact, free_pages_exact } from "kheap/linux/gfp";
import { pr_info } from "kheap/linux/kernel";
import { NULL, static_data, struct } from "kheap/linux/types";
const freed = struct("freed", { pages: "u32" });
const my = static_data("my", { block: NotifierBlock, hoard: "*void" });
function give(): number {
  if (my.hoard === NULL) return 0;
  free_pages_exact(my.hoard, 1 << 20);
  my.hoard = NULL;
  return 256;
}
module_init(() => {
  my.hoard = alloc_pages_exact(1 << 20, GFP_KERNEL);
  return register_oom_notifier(my.block, (_block, _event, data) => {
    const pages = give();
    freed.pages.set(data, freed.pages.get(data) + pages);
    if (pages > 0) pr_info("generous: gave 256 pages");
    return NOTIFY_OK;
  });
});
module_exit(() => {
  unregister_oom_notifier(my.block);
  give();
});`); // prettier-ignore
    const { out, err } = await console_run([`insmod ${generous}`, "memhog", "dmesg", "rmmod generous"]);
    expect(out.match(/generous: gave 256 pages/g)).toHaveLength(1);
    expect(out.indexOf("generous: gave")).toBeLessThan(out.indexOf("invoked oom-killer"));
    expect(err).toBe("memhog: ended by signal 9\n");
  });

  it("disarms a timer of a module that is gone, though there was no memory to book it", async () => {
    const late = module_file("late", `${HEAD}
import { TimerList, jiffies, mod_timer, timer_setup } from "kheap/linux/timer";
import { static_data } from "kheap/linux/types";
const my = static_data("my", { timer: TimerList });
module_init(() => {
  timer_setup(my.timer, () => {}, 0);
  mod_timer(my.timer, jiffies() + 5);
  return 0;
});
module_exit(() => {});`); // prettier-ignore
    const { out, err } = await console_run([`faultsweep insmod ${late}`, "run 3000", "dmesg"]);
    expect(err).toBe("");
    expect(out).toContain("  0 findings\n");
    expect(out).not.toContain("Oops");
  });

  it("a module goes with the machine: what is loaded at power-off leaves nothing", async () => {
    expect((await console_run([`insmod ${examples}/shrinkable.ts fill=100`])).err).toBe("");
  });
});

describe("insmod -w", () => {
  it("loads a module again whenever its file is saved, and keeps the old one where the new is wrong", async () => {
    let out = "";
    const write = (text: string): void => void (out += text);
    const host = {
      terminal: false, json: false, width: () => 80, height: () => 24, write, write_error: write,
      write_status: () => {}, ask: () => Promise.resolve(undefined), watching: () => {},
    }; // prettier-ignore
    const said = async (text: string): Promise<void> => {
      while (!out.includes(text)) await new Promise(setImmediate);
      out = "";
    };
    const version = (n: number): string => `${HEAD}\nimport { pr_err } from "kheap/linux/module";\nmodule_init(() => (pr_err("version ${n}"), 0));\n${EXIT}`; // prettier-ignore
    const before = console_attach(write);
    boot({ machine: TEST_MACHINE, loglevel: 4 });
    const session = create_session(host);
    const path = module_file("saved", version(1));
    const running = session.run(`insmod -w ${path}`);
    await said("saved: loaded; waiting for");
    const save = (text: string, seconds: number): void => {
      writeFileSync(path, text);
      utimesSync(path, seconds, seconds);
    };
    save(version(2), 1000);
    await said("saved: loaded again");
    save("const x = ;", 2000);
    await said("insmod: saved.ts:1: Expression expected");
    save(version(3), 3000);
    await said("saved: loaded again");
    session.cancel();
    await running;
    await session.run("dmesg; rmmod saved");
    expect(out).toMatch(/version 1\n[^]*version 2\n[^]*version 3\n/);
    await session.leave();
    console_attach(before);
    expect(out).toMatch(/power off: 0 pages, 0 objects, 0 locks left over\n$/);
  });
});

describe("every example", () => {
  const modules = readdirSync(examples).filter((file) => file.endsWith(".ts") && !["two_calls.ts", "listener.ts"].includes(file)); // prettier-ignore
  it.each(modules)("%s is loaded and unloaded, and faultsweep finds nothing", async (file) => {
    const name = file.replace(".ts", "");
    const { out, err } = await console_run([`faultsweep --sample 40 modprobe -d ${examples} ${name}`]);
    expect(err).toBe("");
    expect(out).toMatch(/ {2}0 findings\n/);
    const ran = await console_run([`modprobe -d ${examples} ${name}`, "run 100", `rmmod ${name}`]);
    expect(ran.failed).toBe(name === "leaky");
  });
});
