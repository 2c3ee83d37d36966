/**
 * The first program: makes folders, starts the others, says when they are done, and reaps orphans from then on.
 *
 * It becomes itself again every now and then, since exec empties the journal; without memory for that it tries again
 * later, as the first program may not end.
 */
import { HZ } from "../../hal/clock.ts";
import { program } from "../program.ts";
import type { Result, Sys, SystemCall } from "../syscall.ts";

const FOLDERS: readonly string[] = Object.freeze(["/tmp", "/var", "/var/log", "/home", "/build"]);
/** Do their work and end; a group starts when the one before has ended. */
const WORKERS: readonly (readonly string[])[] = Object.freeze([["make", "rc"], ["find"]]);
/** Go on. */
const DAEMONS: readonly string[] = Object.freeze(["syslogd", "crond", "getty"]);
const REAPS_A_JOURNAL = 100;

/** Starts a program in a child. Its pid, or -errno. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what `yield` gives
function* start(sys: Sys, name: string): Generator<SystemCall, number, any> {
  const pid: number = yield sys.fork();
  if (pid !== 0) return pid;
  yield sys.exec(name);
  yield sys.exit(127);
  return 0;
}

/** Becomes itself, with an empty journal. Comes back only when it is killed. */
function* again(sys: Sys): Generator<SystemCall, void> {
  for (;;) {
    yield sys.exec("init", "running");
    yield sys.sleep(HZ);
  }
}

program("init", function* (sys, phase?: string) {
  if (phase !== "running") {
    for (const folder of FOLDERS) yield sys.mkdir(folder);
    let started = 0;
    for (const group of WORKERS) {
      let left = 0;
      for (const name of group) if ((yield* start(sys, name)) > 0) left++;
      started += left;
      for (; left > 0; left--) yield sys.wait();
    }
    for (const name of DAEMONS) if ((yield* start(sys, name)) > 0) started++;
    yield sys.sleep(HZ / 10);
    yield { call: "boot_complete", args: [started] };
    yield* again(sys);
  }
  for (let i = 0; i < REAPS_A_JOURNAL; i++) {
    const result: Result = yield sys.wait();
    if (typeof result === "number") yield sys.sleep(HZ);
  }
  yield* again(sys);
});
