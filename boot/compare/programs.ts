/**
 * The programs of the workloads fork-storm and file-walk. Each becomes itself again every now and then, since exec empties
 * the journal.
 */
import { O_CREAT, O_WRONLY } from "../../kernel/fs/fs.ts";
import { program } from "../../kernel/program.ts";

const FILES_A_FOLDER = 16;
const READ_BYTES = 4096;

// Forks `left` children that yield a few times and exit, `at_once` at a time.
program("fork_storm", function* (sys, left: number, at_once: number) {
  const wave = Math.min(left, at_once);
  let children = 0;
  for (let i = 0; i < wave; i++) {
    const pid: number = yield sys.fork();
    if (pid === 0) {
      const draw: number = yield sys.getrandom();
      for (let turns = draw % 4; turns > 0; turns--) yield sys.sched_yield();
      yield sys.exit();
    }
    if (pid > 0) children++;
  }
  for (; children > 0; children--) yield sys.wait();
  if (left > wave) yield sys.exec("fork_storm", left - wave, at_once);
});

// Makes files in folders of 16; then lists, stats and reads all of them; then removes them.
program("file_walk", function* (sys, files: number, copy: number, phase = 0, folder = 0) {
  const count = Math.min(FILES_A_FOLDER, files - folder * FILES_A_FOLDER);
  const top = `/walk${copy}`;
  const path = `${top}/${folder}`;
  if (phase === 0) {
    if (folder === 0) yield sys.mkdir(top);
    yield sys.mkdir(path);
    for (let i = 0; i < count; i++) {
      const fd: number = yield sys.open(`${path}/${i}`, O_CREAT | O_WRONLY);
      yield sys.write(fd, `file ${i} of folder ${folder}\n`.repeat(10 * (1 + (i % 8))));
      yield sys.close(fd);
    }
  } else if (phase === 1) {
    yield sys.readdir(path);
    for (let i = 0; i < count; i++) {
      yield sys.stat(`${path}/${i}`);
      const fd: number = yield sys.open(`${path}/${i}`);
      yield sys.read(fd, READ_BYTES);
      yield sys.close(fd);
    }
  } else {
    for (let i = 0; i < count; i++) yield sys.unlink(`${path}/${i}`);
    yield sys.rmdir(path);
  }
  const last = (folder + 1) * FILES_A_FOLDER >= files;
  if (!last) yield sys.exec("file_walk", files, copy, phase, folder + 1);
  if (phase < 2) yield sys.exec("file_walk", files, copy, phase + 1, 0);
  yield sys.rmdir(top);
});
