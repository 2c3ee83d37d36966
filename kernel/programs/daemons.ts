/**
 * Programs that go on for as long as the machine runs. Each becomes itself again after some rounds: a program's journal
 * keeps all that it is told, and exec empties it.
 */
import { HZ } from "../../hal/clock.ts";
import { O_APPEND, O_CREAT, O_WRONLY } from "../fs/fs.ts";
import { program } from "../program.ts";

const ROUNDS = 50;

// Notes the time twice a second, and starts the file anew when it has grown.
program("syslogd", function* (sys) {
  const fd: number = yield sys.open("/var/log/messages", O_CREAT | O_WRONLY | O_APPEND);
  for (let i = 0; i < ROUNDS; i++) {
    yield sys.write(fd, `${yield sys.clock()} -- MARK --\n`);
    yield sys.sleep(HZ / 2);
  }
  yield sys.close(fd);
  yield sys.unlink("/var/log/messages");
  yield sys.exec("syslogd");
});

// Starts a job every two seconds.
program("crond", function* (sys) {
  for (let i = 0; i < ROUNDS; i++) {
    const pid: number = yield sys.fork();
    if (pid === 0) {
      yield sys.exec("sort", i % 8);
      yield sys.exit(127);
    }
    yield sys.wait();
    yield sys.sleep(2 * HZ);
  }
  yield sys.exec("crond");
});

// Waits for somebody to log in; nobody will.
program("getty", function* (sys) {
  const fd: number = yield sys.open("/home");
  for (let i = 0; i < ROUNDS; i++) yield sys.sleep(60 * HZ);
  if (fd >= 0) yield sys.close(fd);
  yield sys.exec("getty");
});
