/** usertests: fork, exec, exit, wait, kill. */
import { HZ } from "../../hal/clock.ts";
import { WNOHANG } from "../exit.ts";
import { O_CREAT, O_RDWR } from "../fs/fs.ts";
import { EACCES, ECHILD, EINVAL, ELOOP, ENOENT, ENOEXEC, ESRCH } from "../lib/errno.ts";
import { SIGINT, SIGKILL, SIGSEGV, SIGTERM } from "../signal.ts";
import type { Sys } from "../syscall.ts";
import { u } from "../user_memory.ts";
import type { Steps } from "./lib.ts";
import { all_give, in_child, status_of, type UserTest } from "./usertests_lib.ts";

/** Makes a file that exec may look at. */
function* script(sys: Sys, path: string, text: string): Steps<void> {
  const fd: number = yield sys.open(path, O_CREAT | O_RDWR, 0o755);
  yield sys.write(fd, text);
  yield sys.close(fd);
}

export const PROCESS_TESTS: readonly UserTest[] = Object.freeze([
  {
    name: "a child's status is what it exits with, its low byte",
    *body(sys): Steps<number> {
      for (const status of [0, 1, 77, 255, 256 + 5])
        if ((yield* in_child(sys, function* (): Steps<number> { yield sys.exit(status); return 0; })) !== (status & 0xff) << 8) return 1; // prettier-ignore
      return 0;
    },
  },
  {
    name: "fork until it fails: each child is reaped once",
    *body(sys): Steps<number> {
      let [forked, reaped] = [0, 0];
      for (; forked < 5000; forked++) {
        const pid: number = yield sys.fork();
        if (pid === 0) return 0;
        if (pid < 0) break;
      }
      while (typeof (yield sys.wait()) === "object") reaped++;
      return forked > 0 && forked < 5000 && reaped === forked ? 0 : 1;
    },
  },
  {
    name: "wait: for any child, for one, for none, and not at all",
    *body(sys): Steps<number> {
      const pids: number[] = [];
      for (let i = 0; i < 3; i++) {
        const pid: number = yield sys.fork();
        if (pid === 0) {
          yield sys.sleep(2 + i);
          return i;
        }
        pids.push(pid);
      }
      if ((yield sys.wait(-1, WNOHANG)) !== 0) return 1;
      if ((yield* status_of(sys, pids[2]!)) !== 2 << 8) return 2;
      if ((yield* status_of(sys, -1)) + (yield* status_of(sys, -1)) !== 1 << 8) return 3;
      return yield* all_give(sys, [
        [sys.wait(), -ECHILD],
        [sys.wait(pids[0]), -ECHILD],
        [sys.wait(-1, 64), -EINVAL],
      ]);
    },
  },
  {
    name: "signals end a child, whatever it does; who is no task cannot be reached",
    *body(sys): Steps<number> {
      for (const signal of [SIGKILL, SIGTERM, SIGINT]) {
        const pid: number = yield sys.fork();
        if (pid === 0) for (;;) yield signal === SIGTERM ? sys.sleep(HZ) : sys.getpid();
        yield sys.sleep(1);
        if ((yield sys.kill(pid, 0)) !== 0 || (yield sys.kill(pid, signal)) !== 0) return 1;
        if ((yield* status_of(sys, pid)) !== signal) return 2;
        if ((yield sys.kill(pid, signal)) !== -ESRCH) return 3;
      }
      return (yield sys.kill(1, 99)) === -EINVAL ? 0 : 4;
    },
  },
  {
    name: "orphans are reaped by init",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      yield* in_child(sys, function* (): Steps<number> {
        for (let i = 0; i < 5; i++)
          if ((yield sys.fork()) === 0) {
            yield sys.sleep(3);
            yield sys.write(to, (yield sys.getppid()) === 1 ? "i" : "x");
            yield sys.exit();
          }
        return 0;
      });
      yield sys.close(to);
      let text = "";
      for (let piece = " "; piece !== ""; text += piece) piece = yield sys.read(from, 10);
      return text === "iiiii" ? 0 : 1;
    },
  },
  {
    name: "exec runs what a file names, with its arguments",
    *body(sys): Steps<number> {
      yield* script(sys, "run", "#!program sh\n");
      yield* script(sys, "again", `#!/bin/sh\nexit 5\n`);
      const statuses: number[] = [];
      for (const call of [
        sys.exec("./run", "-c", "exit 3"),
        sys.exec("again"),
        sys.exec("./again"),
        sys.exec("/bin/sh", "-c", "exit 4"),
      ])
        // prettier-ignore
        statuses.push(
          yield* in_child(sys, function* (): Steps<number> {
            yield call;
            return 1;
          }),
        );
      for (const path of ["run", "again"]) yield sys.unlink(path);
      return statuses.map((status) => status >> 8).join() === "3,1,5,4" ? 0 : 1;
    },
  },
  {
    name: "exec of what cannot be run is an error, and the program goes on",
    *body(sys): Steps<number> {
      yield* script(sys, "text", "just words\n");
      yield* script(sys, "empty", "");
      yield* script(sys, "none", "#!program no_such_program\n");
      yield* script(sys, "round", "#!./round\n");
      const status = yield* all_give(sys, [
        [sys.exec("./text"), -ENOEXEC],
        [sys.exec("./empty"), -ENOEXEC],
        [sys.exec("./none"), -ENOENT],
        [sys.exec("./nowhere"), -ENOENT],
        [sys.exec("/bin"), -EACCES],
        [sys.exec("./round"), -ELOOP],
      ]);
      for (const path of ["text", "empty", "none", "round"]) yield sys.unlink(path);
      return status;
    },
  },
  {
    name: "exec gives up all memory",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(1 << 20);
      u.memset(va, 1, 1 << 20);
      yield sys.exec("/bin/true");
      return 1;
    },
  },
  {
    name: "exit with open files, pipes, memory and children leaves nothing",
    *body(sys): Steps<number> {
      return yield* in_child(sys, function* (): Steps<number> {
        const fd: number = yield sys.open("f", O_CREAT | O_RDWR);
        yield sys.write(fd, "x".repeat(5000));
        yield sys.unlink("f");
        yield sys.pipe();
        const va: number = yield sys.mmap(1 << 20);
        u.memset(va, 1, 1 << 18);
        if ((yield sys.fork()) === 0) yield sys.sleep(2);
        return 0;
      });
    },
  },
  {
    name: "a shell runs pipes, lists and redirections",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      const status = yield* in_child(sys, function* (): Steps<number> {
        yield sys.dup2(to, 1);
        yield sys.exec(
          "/bin/sh",
          "-c",
          "echo a b > f; cat < f | grep a | wc && false || echo 'it; is' >> f; cat f; rm f",
        );
        return 1;
      });
      const text: string = yield sys.read(from, 1000);
      return status === 0 && text === "       1        2        4\na b\nit; is\n" ? 0 : 1;
    },
  },
  {
    name: "a program that faults ends with SIGSEGV, and its parent reads on",
    *body(sys): Steps<number> {
      const va: number = yield sys.mmap(4096);
      u.store32(va, 7);
      const status = yield* in_child(sys, function* (): Steps<number> {
        u.store32(0, 1);
        return 0;
      });
      return status === SIGSEGV && u.load32(va) === 7 ? 0 : 1;
    },
  },
]);
