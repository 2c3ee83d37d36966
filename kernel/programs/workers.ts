/** Programs that do some work and end: what init runs while the machine starts. */
import { O_CREAT, O_RDWR, O_TRUNC, O_WRONLY } from "../fs/fs.ts";
import { program } from "../program.ts";
import type { Result } from "../syscall.ts";

const UNITS: readonly string[] = Object.freeze(["main", "list", "heap", "page", "slab", "task", "inode", "dentry"]);
const FILES_A_UNIT = 6;
const COMMANDS = 20;

// Compiles: a child a unit, each of which writes objects; then links them and throws half of them away.
program("make", function* (sys) {
  for (const unit of UNITS) {
    const pid: number = yield sys.fork();
    if (pid !== 0) continue;
    yield sys.mkdir(`/build/${unit}`);
    yield sys.exec("cc", `/build/${unit}`);
    yield sys.exit(127);
  }
  for (const _unit of UNITS) yield sys.wait();
  for (const unit of UNITS) for (let i = 0; i < FILES_A_UNIT; i += 2) yield sys.unlink(`/build/${unit}/${i}.o`);
  const fd: number = yield sys.open("/build/a.out", O_CREAT | O_WRONLY);
  yield sys.write(fd, "\x7fELF".padEnd(6000, "kheap"));
});

program("cc", function* (sys, folder: string) {
  for (let i = 0; i < FILES_A_UNIT; i++) {
    const fd: number = yield sys.open(`${folder}/${i}.o`, O_CREAT | O_WRONLY | O_TRUNC);
    yield sys.write(fd, `${folder} object ${i}\n`.repeat(10 + 20 * i));
    yield sys.close(fd);
  }
});

// A shell script: one command after the other, each with a temporary file.
program("rc", function* (sys) {
  let failed = 0;
  for (let i = 0; i < COMMANDS; i++) {
    const pid: number = yield sys.fork();
    if (pid === 0) {
      yield sys.exec("sort", i % 8);
      yield sys.exit(127);
    }
    const result: Result = yield sys.wait(pid);
    if (typeof result !== "object" || (result as { status: number }).status !== 0) failed++;
  }
  return failed;
});

program("sort", function* (sys, seed: number) {
  const path = `/tmp/sort.${yield sys.getpid()}`;
  const fd: number = yield sys.open(path, O_CREAT | O_RDWR);
  const words: number[] = [];
  for (let i = 0; i < 4 + seed; i++) words.push(yield sys.getrandom());
  yield sys.write(fd, words.sort((a, b) => a - b).join("\n"));
  yield sys.close(fd);
  yield sys.unlink(path);
});

/** Other file systems. */
const MOUNTS: readonly string[] = Object.freeze(["/proc", "/sys", "/usr"]);

// Looks at every file of the root file system.
program("find", function* (sys) {
  const folders = ["/"];
  let files = 0;
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const names: Result = yield sys.readdir(folder);
    if (!Array.isArray(names)) continue;
    for (const name of names as string[]) {
      if (name === "." || name === ".." || MOUNTS.includes(folder)) continue;
      const path = `${folder === "/" ? "" : folder}/${name}`;
      const stat: Result = yield sys.stat(path);
      files++;
      if (typeof stat === "object" && ((stat as { mode: number }).mode & 0o170000) === 0o040000) folders.push(path);
    }
  }
  yield sys.syslog(`${files} files`);
});
