/** usertests: pipes, and signals that meet them. */
import { PAGE_SIZE } from "../../hal/addr.ts";
import { O_NONBLOCK } from "../fs/fs.ts";
import { EAGAIN, EBADF, EINVAL, ESPIPE } from "../lib/errno.ts";
import { SIGKILL, SIGPIPE, SIGTERM } from "../signal.ts";
import { u } from "../user_memory.ts";
import { BUFFER, type Steps } from "./lib.ts";
import { all_give, in_child, status_of, type UserTest } from "./usertests_lib.ts";

export const PIPE_TESTS: readonly UserTest[] = Object.freeze([
  {
    name: "a pipe hands on bytes in order, and ends with its last writer",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      const pid: number = yield sys.fork();
      if (pid === 0) {
        yield sys.close(from);
        for (let i = 0; i < 50; i++) yield sys.write(to, `${i},`);
        return 0;
      }
      yield sys.close(to);
      let text = "";
      for (;;) {
        const piece: string = yield sys.read(from, 7);
        if (piece === "") break;
        text += piece;
      }
      if (text !== Array.from({ length: 50 }, (_, i) => `${i},`).join("")) return 1;
      return yield* status_of(sys, pid);
    },
  },
  {
    name: "a pipe holds 16 pages; a writer of more waits, and all of it arrives",
    *body(sys): Steps<number> {
      const total = 3 * BUFFER;
      const va: number = yield sys.sbrk(total);
      const [from, to]: [number, number] = yield sys.pipe();
      const pid: number = yield sys.fork();
      if (pid === 0) {
        for (let i = 0; i < total; i += PAGE_SIZE) u.memset(va + i, i / PAGE_SIZE, PAGE_SIZE);
        return (yield sys.write(to, va, total)) === total ? 0 : 1;
      }
      yield sys.close(to);
      let got = 0;
      for (;;) {
        const bytes: number = yield sys.read(from, va + got, 10_000);
        if (bytes <= 0) break;
        got += bytes;
      }
      if (got !== total) return 2;
      for (let i = 0; i < total; i += PAGE_SIZE)
        if (!u.look(va + i, PAGE_SIZE, (bytes) => bytes.every((byte) => byte === i / PAGE_SIZE))) return 3;
      return yield* status_of(sys, pid);
    },
  },
  {
    name: "writes of up to a page are not mixed",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(PAGE_SIZE);
      const [from, to]: [number, number] = yield sys.pipe();
      for (let writer = 1; writer <= 3; writer++)
        if ((yield sys.fork()) === 0) {
          u.memset(va, writer, 3000);
          for (let i = 0; i < 10; i++) if ((yield sys.write(to, va, 3000)) !== 3000) return 1;
          return 0;
        }
      yield sys.close(to);
      for (let i = 0; i < 30; i++) {
        for (let got = 0; got < 3000;) {
          const bytes: number = yield sys.read(from, va + got, 3000 - got);
          if (bytes <= 0) return 2;
          got += bytes;
        }
        if (!u.look(va, 3000, (bytes) => bytes.every((byte) => byte === bytes[0]))) return 3;
      }
      for (let i = 0; i < 3; i++) if ((yield* status_of(sys, -1)) !== 0) return 4;
      return (yield sys.read(from, 1)) === "" ? 0 : 5;
    },
  },
  {
    name: "writing with nobody left to read is SIGPIPE",
    status: SIGPIPE,
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      yield sys.close(from);
      yield sys.write(to, "x");
      return 1;
    },
  },
  {
    name: "a writer that waits for room learns that the reader is gone",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      const va: number = yield sys.sbrk(2 * BUFFER);
      const pid: number = yield sys.fork();
      if (pid === 0) {
        yield sys.close(from);
        yield sys.write(to, va, 2 * BUFFER);
        return 1;
      }
      yield sys.sleep(2);
      yield sys.close(to);
      yield sys.close(from);
      // Half of it went through, so the write says so; the next one is the end.
      return (yield* status_of(sys, pid)) === SIGPIPE ? 0 : 1;
    },
  },
  {
    name: "with O_NONBLOCK a full or empty pipe is EAGAIN",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(2 * BUFFER);
      if ((yield sys.pipe(va, O_NONBLOCK)) !== 0) return 1;
      const [from, to] = [u.load32(va), u.load32(va + 4)];
      if ((yield sys.read(from, va, 10)) !== -EAGAIN) return 2;
      if ((yield sys.write(to, va, 2 * BUFFER)) !== BUFFER || (yield sys.write(to, va, 1)) !== -EAGAIN) return 3;
      yield sys.read(from, va, 100);
      if ((yield sys.write(to, va, PAGE_SIZE)) !== -EAGAIN) return 4; // a page's worth goes in whole or not at all
      yield sys.read(from, va, PAGE_SIZE);
      return (yield sys.write(to, va, PAGE_SIZE)) === PAGE_SIZE ? 0 : 5;
    },
  },
  {
    name: "a child that waits in a pipe can be killed, reading or writing",
    *body(sys): Steps<number> {
      const va: number = yield sys.sbrk(2 * BUFFER);
      for (const [signal, writes] of [
        [SIGKILL, false],
        [SIGTERM, true],
      ] as const) {
        // prettier-ignore
        const [from, to]: [number, number] = yield sys.pipe();
        const pid: number = yield sys.fork();
        if (pid === 0) {
          yield writes ? sys.write(to, va, 2 * BUFFER) : sys.read(from, va, 1);
          return 1;
        }
        yield sys.sleep(2);
        yield sys.kill(pid, signal);
        if ((yield* status_of(sys, pid)) !== signal) return 1;
        yield sys.close(from);
        yield sys.close(to);
      }
      return 0;
    },
  },
  {
    name: "what a pipe is not: a place to seek in, cut, read at its other end",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      return yield* all_give(sys, [
        [sys.lseek(from, 0), -ESPIPE],
        [sys.ftruncate(to, 0), -EINVAL],
        [sys.read(to, 1), -EBADF],
        [sys.write(from, "x"), -EBADF],
        [sys.write(to, ""), 0],
        [sys.pipe(0, 1), -EINVAL],
      ]);
    },
  },
  {
    name: "a hundred pipes one after the other, and twenty at once",
    *body(sys): Steps<number> {
      for (let i = 0; i < 100; i++) {
        const [from, to]: [number, number] = yield sys.pipe();
        yield sys.write(to, "left in the pipe");
        yield sys.close(from);
        yield sys.close(to);
      }
      let input = -1;
      for (let i = 0; i < 20; i++) {
        const [from, to]: [number, number] = yield sys.pipe();
        if (input < 0) yield sys.write(to, "through them all");
        else {
          const text: string = yield sys.read(input, 100);
          yield sys.write(to, text);
        }
        input = from;
      }
      return (yield sys.read(input, 100)) === "through them all" ? 0 : 1; // exit closes them
    },
  },
  {
    name: "exec keeps open files: a program writes into the pipe that was its parent's",
    *body(sys): Steps<number> {
      const [from, to]: [number, number] = yield sys.pipe();
      const status = yield* in_child(sys, function* (): Steps<number> {
        yield sys.dup2(to, 1);
        yield sys.exec("/bin/echo", "by", "exec");
        return 1;
      });
      return status === 0 && (yield sys.read(from, 100)) === "by exec\n" ? 0 : 1;
    },
  },
]);
