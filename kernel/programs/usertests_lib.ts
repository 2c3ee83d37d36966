/** What the tests of usertests share. */
import type { Sys } from "../syscall.ts";
import type { Steps } from "./lib.ts";

export interface UserTest {
  readonly name: string;
  /** Runs in a child, in an empty folder; returns 0 if all is well, or which check failed. It leaves the folder empty. */
  readonly body: (sys: Sys) => Steps<number>;
  /** What the child is to end with, as wait() tells it. */
  readonly status?: number;
}

/** Runs `body` in a child and returns its status, as wait() tells it. */
export function* in_child(sys: Sys, body: () => Steps<number>): Steps<number> {
  const pid: number = yield sys.fork();
  if (pid < 0) return pid;
  if (pid === 0) yield sys.exit(yield* body());
  return yield* status_of(sys, pid);
}

/** Waits for a child. Its status; -errno if there is no such child. */
export function* status_of(sys: Sys, pid: number): Steps<number> {
  const result: { status: number } | number = yield sys.wait(pid);
  return typeof result === "number" ? result : result.status;
}

/** Runs the checks one after the other: 0, or the number of the first that does not give what it should. */
export function* all_give(
  sys: Sys,
  checks: readonly (readonly [call: ReturnType<Sys["close"]>, wanted: unknown])[],
): Steps<number> {
  // prettier-ignore
  for (const [i, [call, wanted]] of checks.entries()) if ((yield call) !== wanted) return i + 1;
  return 0;
}
