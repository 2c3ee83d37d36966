/** Programs about processes: sleep, kill, true, false, forkbomb. */
import { HZ } from "../../hal/clock.ts";
import { EINVAL, strerror } from "../lib/errno.ts";
import { program } from "../program.ts";
import { SIGTERM } from "../signal.ts";
import { complain_of, puts, usage } from "./lib.ts";

/** Without a number it sleeps for good: what the console starts to have some tasks. */
const ROUNDS = 50;

program("sleep", function* (sys, seconds?: string) {
  if (seconds !== undefined) {
    const ticks = Math.round(Number(seconds) * HZ);
    if (!(ticks >= 0)) return yield* usage(sys, "sleep");
    yield sys.sleep(ticks);
    return 0;
  }
  for (let i = 0; i < ROUNDS; i++) yield sys.sleep(3600 * HZ);
  yield sys.exec("sleep"); // its journal is empty again
  return 1;
});

const SIGNALS: Readonly<Record<string, number>> = Object.freeze({
  HUP: 1, INT: 2, QUIT: 3, ABRT: 6, KILL: 9, SEGV: 11, PIPE: 13, TERM: 15,
}); // prettier-ignore

program("kill", function* (sys, ...args: string[]) {
  const option = args[0]?.startsWith("-") ? args.shift()!.slice(1) : undefined;
  const signal = option === undefined ? SIGTERM : (SIGNALS[option.replace(/^SIG/, "")] ?? Number(option));
  if (args.length === 0) return yield* usage(sys, "kill");
  let status = 0;
  for (const pid of args) {
    const error: number = /^\d+$/.test(pid) && signal >= 0 ? yield sys.kill(Number(pid), signal) : -EINVAL;
    if (error < 0) status = yield* complain_of(sys, "kill", pid, error);
  }
  return status;
});

program("true", function* () {});
program("false", function* () {
  return 1;
});

// Every process forks until it no longer can, holds on for a second, and ends.
program("forkbomb", function* (sys) {
  const first: number = yield sys.getpid();
  let made = 0;
  let error = 0;
  while (error === 0) {
    const pid: number = yield sys.fork();
    if (pid < 0) error = pid;
    else if (pid > 0) made++;
    else made = 0;
  }
  yield sys.sleep(HZ);
  if ((yield sys.getpid()) !== first) return 0;
  yield* puts(sys, `${made} children of the first process, then: ${strerror(error)}\n`);
  while (typeof (yield sys.wait()) === "object");
  return 0;
});
