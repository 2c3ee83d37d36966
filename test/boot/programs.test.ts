/** Programs of the machine at the console: how they are found, what they are connected to, how they end. */
import { describe, expect, it } from "vitest";
import { create_session } from "../../boot/session.ts";
import { boot } from "../../boot/start_kernel.ts";
import { console_attach } from "../../hal/console.ts";
import { tasklist } from "../../kernel/task.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { answer, console_run } from "./run.ts";

const BIN = "cat cowtest echo false forkbomb grep head kill ln ls memhog mkdir mv pwd rm rmdir sh sleep stat touch true usertests wc yes"; // prettier-ignore

describe("programs", () => {
  it("are files in /bin, run by name or by path, and so is a file that names one", async () => {
    expect(await answer("ls /bin/ | wc; ls /usr/bin > /tmp/list; ls -l /bin; /bin/echo by path; cat /bin/cat")).toMatch(
      /^ {6}24 {7}24 {6}\d+\nlrwxrwxrwx +1 +7 +\d\.\d{3} \/bin -> usr\/bin\nby path\n#!program cat\n$/,
    );
    expect((await answer("ls /bin/")).trimEnd().split("\n").join(" ")).toBe(BIN);
    expect(await answer("echo '#!program echo' > /tmp/say; /tmp/say hello")).toBe("hello\n");
    const { err } = await console_run(["/bin/nothing; /tmp; echo text > /tmp/t; /tmp/t"]);
    expect(err.trimEnd().split("\n")).toEqual([
      'no command "/bin/nothing"; help lists all',
      "/tmp: Permission denied",
      "/tmp/t: Exec format error",
    ]);
  });

  it("run in the foreground; how they fail is one line", async () => {
    const { out, err, failed } = await console_run(["cowtest; memhog 2; memhog 0; cowtest 1; false", "memhog; free"]);
    expect(out.split("\n").slice(0, 2)).toEqual(["16 pages, each process read its own", "2 MiB filled"]);
    expect(err.split("\n").filter((line) => !line.startsWith("["))).toEqual([
      'memhog: "0" given, 1 to 2048 allowed',
      "usage: cowtest",
      "false: status 1",
      "memhog: ended by signal 9",
      "",
    ]);
    expect(failed).toBe(true);
  });

  it("in pipelines go to sh, and one of the console's own may stand first", async () => {
    const { out, err } = await console_run([
      "echo one > /tmp/f; echo two >> /tmp/f; cat /tmp/f | grep o | wc",
      "yes | head -n 3; cat < /tmp/f; nproc | cat; slab dentry | head -n 1",
      "ls /nowhere 2> /tmp/e | wc; cat /tmp/e",
      "cat /tmp/f | nproc; cat /tmp/f | nothing; ls|wc",
    ]);
    expect(out.split("\n")).toEqual([
      "       2        2        8",
      ...["y", "y", "y", "one", "two", "2"],
      "dentry   192 bytes in a slot of 192, 21 a slab, 1 page a slab",
      "       0        0        0",
      "ls: /nowhere: No such file or directory",
      "",
    ]);
    expect(err.trimEnd().split("\n")).toEqual([
      "nproc is the console's own and can only stand before the first |",
      'no command "nothing"; help lists all',
      'no command "ls|wc"; a pipe is a | with a blank beside it',
    ]);
  });

  it("are told more by a command of the console than a pipe holds", async () => {
    const { out } = await console_run([
      "peek ffff888001000000 16384 > /tmp/p; wc /tmp/p; peek ffff888001000000 16384 | wc",
    ]);
    const [file, pipe] = out.trimEnd().split("\n").map((line) => line.trim().split(/ +/).slice(0, 3)); // prettier-ignore
    expect(pipe).toEqual(file);
    expect(Number(pipe![2])).toBeGreaterThan(65_536);
  });

  it("succeed or fail, and && and || go by that, for the console's own too", async () => {
    const { out } = await console_run([
      "true && echo a; false || echo b; false && echo no || echo c; nproc && echo d; nothing || echo e; true || echo no",
    ]);
    expect(out).toBe("a\nb\nc\n2\nd\ne\n");
    const { err } = await console_run(["echo a &&", "|| echo a", "echo a && echo b &", "nproc < /tmp/x"]);
    expect(err.trimEnd().split("\n")).toEqual([
      "&& stands before nothing",
      "|| stands behind nothing",
      "&& and & do not go together; sh -c '…' & does",
      "nproc is the console's own and reads no file; < is for programs",
    ]);
  });

  it("answer --json by themselves, or their text becomes a string", async () => {
    const { out } = await console_run(
      ["mkdir /tmp/d", "ls /tmp", "echo a b > /tmp/d/f", "cat /tmp/d/f", "wc /tmp/d/f", "ls -l /tmp/d", "stat /tmp/d/f", "ls / | head -n 1", "rm -r /tmp/d"], // prettier-ignore
      { json: true },
    );
    const values = out.trimEnd().split("\n").map((line) => JSON.parse(line) as unknown); // prettier-ignore
    expect(values).toMatchObject([
      ["/tmp/d"],
      ["d"],
      null,
      "a b\n",
      [{ path: "/tmp/d/f", counts: [1, 2, 4] }],
      [{ name: "f", mode: "-rw-r--r--", nlink: 1, size: 4 }],
      { path: "/tmp/d/f", size: 4, blocks: 8 },
      "bin",
      ["/tmp/d"],
    ]);
  });

  it("run on the CPU that `on` names, beside others as jobs, and again and again", async () => {
    const { out } = await console_run([
      "on 1 touch /tmp/x; sh -c 'sleep 0.05; echo late' &; echo now; wait; ls /tmp --watch --count 2",
    ]);
    expect(out).toMatch(/^\[1\] sh -c .*\nnow\n\[1\] done: sh -c .*\nlate\nx\n\nx\n$/);
  });

  it("end by Ctrl-C, with all that they started", async () => {
    const before = console_attach(() => {});
    boot({ machine: TEST_MACHINE, garbage: garbage(7), loglevel: 0 });
    let err = "";
    const session = create_session({
      terminal: false,
      json: false,
      width: () => 80,
      height: () => 24,
      write: () => {},
      write_error: (text) => void (err += text),
      ask: () => Promise.resolve(undefined),
      watching: () => {},
    });
    const tasks = tasklist.nr_threads;
    const ran = session.run("sh -c 'yes | cat | grep n'");
    setTimeout(() => session.cancel(), 50);
    await ran;
    await session.run("run 10"); // init reaps
    expect([err, tasklist.nr_threads]).toEqual(["sh: ended by signal 2\n", tasks]);
    await session.leave();
    console_attach(before);
  });
});
