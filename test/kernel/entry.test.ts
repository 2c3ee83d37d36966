/** What happens when the kernel itself fails. */
import { describe, expect, it } from "vitest";
import { jiffies } from "../../hal/clock.ts";
import { events } from "../../hal/events.ts";
import { static_data } from "../../hal/image.ts";
import { boot } from "../../boot/start_kernel.ts";
import { kernel_entry } from "../../kernel/entry.ts";
import { kernel_frames } from "../../kernel/lib/dump_stack.ts";
import { BUG, KernelPanic, panic } from "../../kernel/lib/bug.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { SpinLock, spin_lock, spin_unlock } from "../../kernel/lib/spinlock.ts";
import { schedule_entries } from "../../kernel/lockstep.ts";
import { SIGSEGV } from "../../kernel/signal.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { tasklist } from "../../kernel/task.ts";
import { TimerList, mod_timer, timer_setup } from "../../kernel/timer.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

const data = static_data("t_entry", { lock: SpinLock, timer: TimerList });
const fails = ksym("t_fails", () => BUG("the timer fails"));

register_syscall("t_bug", "", () => BUG("17 is not 4"));
register_syscall("t_throw", "", () => (undefined as unknown as { x: number }).x);
register_syscall("t_lock", "", () => {
  spin_lock(data.lock);
  return 0;
});
register_syscall("t_lock_bug", "", () => {
  spin_lock(data.lock);
  return BUG("and a lock is held");
});

const asks = (call: string) =>
  test_init(`t_asks_${call}`, function* (sys) {
    if ((yield sys.fork()) === 0) {
      yield { call, args: [] };
      yield sys.syslog("still alive");
      return 0;
    }
    const { status }: { status: number } = yield sys.wait();
    yield sys.syslog(`status ${status}`);
  });
const [bug, thrown, lock, lock_bug] = ["t_bug", "t_throw", "t_lock", "t_lock_bug"].map(asks);
const itself = test_init("t_itself", function* () {
  yield { call: "t_bug", args: [] };
});
const ends = test_init("t_init_ends", function* () {});

/** Boots a machine that must not survive it; returns its last words. */
function last_words(init: string, append = "", then: () => void = () => {}): string {
  const heard: string[] = [];
  const listener = ({ text }: { text: string }): void => void heard.push(text);
  events.on("panic", listener);
  try {
    boot({ machine: TEST_MACHINE, loglevel: 0, until: "init", append: `init=${init} ${append}` });
    then();
  } catch (error) {
    expect(error).toBeInstanceOf(KernelPanic);
    const { message } = error as Error;
    expect(heard).toEqual([message]);
    expect(log()).toContain(`Kernel panic - not syncing: ${message}`);
    return message;
  } finally {
    events.off("panic", listener);
    spin_unlock_all();
  }
  throw new Error("the machine goes on");
}
/** The next boot clears RAM, and so the lock. */
function spin_unlock_all(): void {
  if (SpinLock.owner.get(data.lock) !== 0) spin_unlock(data.lock);
}

describe("an oops", () => {
  it("prints what was wrong, where and in whom, kills the task, and the rest goes on", () => {
    with_tasks(bug!, () => {
      const lines = log();
      const at = lines.indexOf("------------[ cut here ]------------");
      expect(lines[at + 1]).toMatch(/^kernel BUG at kernel\/syscall\.ts:\d+: 17 is not 4$/);
      expect(lines[at + 2]).toBe("Oops: invalid opcode: 0000 [#1]");
      expect(lines[at + 3]).toMatch(/^CPU: [01] UID: 0 PID: 5 Comm: t_asks_t_bug$/);
      expect(lines[at + 4]).toMatch(/^RIP: 0010:system_call \[kernel\/syscall\.ts:\d+\]$/);
      expect(lines[at + 5]).toBe("Call Trace:");
      const end = lines.indexOf("---[ end trace 0000000000000000 ]---");
      expect(end).toBeGreaterThan(at);
      for (const line of lines.slice(at + 6, end)) expect(line).toMatch(/^ \S+ \[(hal|mm|kernel)\/[\w/]+\.ts:\d+\]$/);
      expect(reports()).toEqual([`status ${SIGSEGV}`]);
      expect(tasklist.nr_threads).toBe(4);
    });
  });

  it("is what any other exception becomes, too", () => {
    with_tasks(thrown!, () => {
      expect(log().some((line) => line.startsWith("BUG: unhandled TypeError: Cannot read"))).toBe(true);
      expect(reports()).toEqual([`status ${SIGSEGV}`]);
    });
  });

  it("of a command of the host kills nobody", () => {
    with_tasks(bug!, () => {
      const before = tasklist.nr_threads;
      expect(kernel_entry("host", () => BUG("a command"))).toBeUndefined();
      expect(kernel_entry("host", () => 5)).toBe(5);
      expect(tasklist.nr_threads).toBe(before);
    });
  });
});

describe("a panic", () => {
  it("is an oops of init, of an entry that held a lock, in an interrupt, or with oops=panic", () => {
    expect(last_words(itself)).toBe("Attempted to kill init! exitcode=0x0000000b");
    expect(last_words(lock_bug!)).toBe("Fatal exception: a lock is held");
    expect(log().some((line) => line.startsWith("1 lock(s) held, the last taken is t_entry+0x0/0x"))).toBe(true);
    expect(last_words(bug!, "oops=panic")).toBe("Fatal exception: oops=panic");
    const timer = (): void => {
      timer_setup(data.timer, fails, 0);
      mod_timer(data.timer, jiffies() + 1);
      schedule_entries(1000);
    };
    expect(last_words(bug!, "", timer)).toBe("Fatal exception in interrupt");
  });

  it("is an entry that forgets a lock, and the end of init", () => {
    expect(last_words(lock!)).toBe("Fatal exception: a lock is held");
    expect(last_words(ends, "", () => kernel_entry("host", () => panic("by hand")))).toBe("by hand");
    expect(last_words("/no/such/init")).toBe("Requested init /no/such/init failed (error -2).");
  });
});

describe("stack lines", () => {
  it("name function, file from the root, and line; lines of the host are left out", () => {
    const stack = [
      "Error: x",
      `    at do_exit (${new URL("../../kernel/exit.ts", import.meta.url).href}:12:5)`,
      `    at Object.alloc (${new URL("../../mm/slub.ts", import.meta.url).pathname}?gen=1:34:5)`,
      `    at ${new URL("../../hal/cpu.ts", import.meta.url).href}:56:5`,
      `    at new Thing (${new URL("../../boot/console.ts", import.meta.url).href}:1:1)`,
      `    at kernel_entry (${new URL("../../kernel/entry.ts", import.meta.url).href}:1:1)`,
      "    at node:internal/main:1:1",
    ].join("\n");
    expect(kernel_frames(Object.assign(new Error("x"), { stack }))).toEqual([
      "do_exit [kernel/exit.ts:12]",
      "alloc [mm/slub.ts:34]",
      "anonymous [hal/cpu.ts:56]",
    ]);
    expect(kernel_frames("no error")).toEqual([]);
  });
});
