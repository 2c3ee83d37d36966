/**
 * A machine full of work for the amnesia test: programs that fork, wait, sleep, kill, and work with files, and a kernel
 * thread with a timer. What they compute goes to the kernel's log, so a mistake in any value shows there.
 */
import { jiffies } from "../../hal/clock.ts";
import { static_data } from "../../hal/image.ts";
import { O_APPEND, O_CREAT, O_RDONLY, O_RDWR } from "../../kernel/fs/fs.ts";
import { EXIT, RUN, SLEEP, kthread_run } from "../../kernel/kthread.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { pr_info } from "../../kernel/lib/printk.ts";
import { program } from "../../kernel/program.ts";
import { wake_up_process } from "../../kernel/sched.ts";
import { u } from "../../kernel/user_memory.ts";
import { register_syscall } from "../../kernel/syscall.ts";
import { TimerList, mod_timer, timer_setup } from "../../kernel/timer.ts";

const thread = static_data("t_amnesia_thread", { timer: TimerList, task: "*task_struct", beats: "u32", work: "u32" });
const beat = ksym("t_amnesia_beat", () => void wake_up_process(thread.task));
const step = ksym("t_amnesia_step", () => {
  thread.work = thread.work + 1;
  if (thread.work % 3 !== 0) return RUN;
  thread.beats = thread.beats + 1;
  if (thread.beats % 10 === 0) pr_info(`thread: ${thread.beats} beats, tick ${jiffies()}`);
  if (thread.beats === 60) return EXIT;
  mod_timer(thread.timer, jiffies() + 2);
  return SLEEP;
});
register_syscall("t_start_thread", "", () => {
  thread.task = kthread_run(step, 0, "heart");
  timer_setup(thread.timer, beat, 0);
  return 0;
});

program("t_sums", function* (sys, id: number) {
  let sum = 0;
  for (let i = 0; i < 60; i++) {
    sum = (sum * 31 + (yield sys.getrandom())) % 1_000_003;
    if (i % 5 === id) yield sys.sleep(1 + (sum % 3));
    if (i % 20 === 0) yield sys.syslog(`${id}: ${i} ${sum}`);
  }
  return sum & 0xff;
});

program("t_tree", function* (sys, depth: number) {
  let below = 0;
  for (let i = 0; i < 3 && depth > 0; i++) {
    const child: number = yield sys.fork();
    if (child === 0) {
      yield sys.exec("t_tree", depth - 1);
      return 255;
    }
    if (i === 2) yield sys.sleep(2);
  }
  for (;;) {
    const result: { status: number } | number = yield sys.wait();
    if (typeof result === "number") break;
    below += 1 + (result.status >> 8);
  }
  if (depth === 3) yield sys.syslog(`tree of ${below}`);
  return below;
});

program("t_writes", function* (sys, id: number) {
  const folder = `/w${id}`;
  yield sys.mkdir(folder);
  let checksum = 0;
  for (let i = 0; i < 8; i++) {
    const path = `${folder}/${i}`;
    const out: number = yield sys.open(path, O_CREAT | O_RDWR | O_APPEND);
    for (let k = 0; k < 4; k++) yield sys.write(out, `${id} ${i} ${k} `.repeat(30 * (k + 1)));
    yield sys.close(out);
    const fd: number = yield sys.open(path, O_RDONLY);
    for (let text: string | number = " "; typeof text === "string" && text !== "";) {
      text = yield sys.read(fd, 700);
      if (typeof text === "string") for (const c of text) checksum = (checksum * 33 + c.charCodeAt(0)) % 1_000_003;
    }
    yield sys.close(fd);
    if (i % 2) yield sys.unlink(path);
    yield sys.sleep(1);
  }
  const names: string[] = yield sys.readdir(folder);
  yield sys.syslog(`files ${id}: ${checksum} ${JSON.stringify(names)}`);
});

program("t_kills", function* (sys) {
  let killed = 0;
  for (let i = 0; i < 12; i++) {
    const victim: number = yield sys.fork();
    if (victim === 0) {
      yield sys.sleep(1000);
      return 0;
    }
    yield sys.sched_yield();
    if (i % 3 === 0) yield sys.sleep(2);
    yield sys.kill(victim, i % 2 ? 9 : 15);
    const { status }: { status: number } = yield sys.wait(victim);
    killed += status;
  }
  yield sys.syslog(`signals ${killed}`);
});

// Three links of a chain: what one writes into a pipe the next reads, changes and hands on; each also waits for room.
program("t_pipes", function* (sys) {
  const bytes = 5000;
  const va: number = yield sys.sbrk(2 * 65536);
  const [first_out, first_in]: [number, number] = yield sys.pipe();
  if ((yield sys.fork()) === 0) {
    yield sys.close(first_out);
    for (let i = 0; i < 40; i++) {
      u.memset(va, yield sys.getrandom(), bytes);
      for (let done = 0; done < bytes;) done += yield sys.write(first_in, va, bytes);
    }
    return 0;
  }
  yield sys.close(first_in);
  const [second_out, second_in]: [number, number] = yield sys.pipe();
  if ((yield sys.fork()) === 0) {
    yield sys.close(second_out);
    for (;;) {
      const got: number = yield sys.read(first_out, va, 3000);
      if (got <= 0) return 0;
      u.store8(va, u.load8(va) + 1);
      if ((yield sys.getrandom()) % 4 === 0) yield sys.sleep(1);
      yield sys.write(second_in, va, got);
    }
  }
  yield sys.close(second_in);
  yield sys.close(first_out);
  let [sum, total] = [0, 0];
  for (;;) {
    const got: number = yield sys.read(second_out, va, 7000);
    if (got <= 0) break;
    total += got;
    const before = sum;
    sum = u.look(va, got, (memory) => memory.reduce((hash, byte) => (hash * 33 + byte) % 1_000_003, before));
    if (total % 4 === 0) yield sys.sleep(1);
  }
  for (let i = 0; i < 2; i++) yield sys.wait();
  yield sys.syslog(`pipes ${total} ${sum}`);
});

// Holds pages, some of them shared with a child that writes to them now and then.
program("t_holds", function* (sys) {
  const va: number = yield sys.mmap(16 * 4096);
  for (let i = 0; i < 16; i++) u.store32(va + i * 4096, i);
  const child: number = yield sys.fork();
  for (let i = 0; i < 24; i++) {
    const at = va + (i % 16) * 4096;
    if ((i % 3 === 0) === (child === 0)) u.store32(at, u.load32(at) * 7 + i);
    yield sys.sleep(1);
  }
  const sum = u.look(va, 16 * 4096, (memory) => memory.reduce((a, byte) => (a * 31 + byte) % 65_521, 0));
  yield sys.syslog(`memory of the ${child === 0 ? "child" : "parent"} ${sum}`);
  if (child !== 0) yield sys.wait();
});

program("t_amnesia", function* (sys) {
  yield { call: "boot_complete", args: [0] };
  yield { call: "t_start_thread", args: [] };
  const work: [string, number][] = [
    ["t_sums", 0], ["t_sums", 1], ["t_sums", 2], ["t_tree", 3], ["t_writes", 1], ["t_writes", 2], ["t_kills", 0],
    ["t_pipes", 0], ["t_holds", 0],
  ]; // prettier-ignore
  for (const [name, arg] of work)
    if ((yield sys.fork()) === 0) {
      yield sys.exec(name, arg);
      return 1;
    }
  let ended = 0;
  let statuses = 0;
  while (ended < work.length) {
    const { status }: { status: number } = yield sys.wait();
    ended++;
    statuses += status;
  }
  yield sys.sleep(20);
  yield sys.syslog(`all done ${statuses}`);
  for (;;) yield sys.sleep(10_000);
});
