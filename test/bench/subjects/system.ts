/** W6 to W9: tasks, files, boot, and recorded heaps, on the default machine. What these cost is more than the heap. */
import { fileURLToPath } from "node:url";
import { kernel_ops } from "../../../boot/replay/ops.ts";
import { open_mode, run_slice } from "../../../boot/replay/modes.ts";
import { read_trace_file } from "../../../boot/replay/file.ts";
import { boot } from "../../../boot/start_kernel.ts";
import { PRESETS } from "../../../hal/machine.ts";
import { kernel_entry } from "../../../kernel/entry.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import { O_CREAT, O_WRONLY } from "../../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../../kernel/fs/namei.ts";
import { do_filp_open } from "../../../kernel/fs/open.ts";
import { is_err } from "../../../kernel/lib/errno.ts";
import { schedule_until } from "../../../kernel/lockstep.ts";
import { find_task_by_pid } from "../../../kernel/pid.ts";
import { program, spawn } from "../../../kernel/program.ts";
import { TaskStruct } from "../../../kernel/task.ts";
import { validate_mm } from "../../../mm/validate.ts";
import type { OwnWorkload, Subject } from "../heap.ts";

const FORKS = 16;
const ENTRIES = 100_000;

program("bench_fork", function* (sys) {
  for (let i = 0; i < FORKS; i++) {
    const pid: number = yield sys.fork();
    if (pid === 0) yield sys.exit(0);
    yield sys.wait(pid);
  }
});

/** One task of init's that makes others, until it is gone. */
function fork_and_exit(): void {
  let pid = 0;
  kernel_entry("host", () => {
    const task = spawn(find_task_by_pid(1), "bench_fork", []);
    if (is_err(task)) throw new Error(`spawn: ${task}`);
    pid = TaskStruct.pid.get(task);
  });
  if (!schedule_until(() => find_task_by_pid(pid) === 0, ENTRIES)) throw new Error("the task does not end");
}

function create_and_unlink(count: number): void {
  kernel_entry("host", () => {
    for (let i = 0; i < count; i++) {
      const file = do_filp_open("/tmp/bench", O_CREAT | O_WRONLY, 0o644);
      if (is_err(file)) throw new Error(`open: ${file}`);
      fput(file);
      do_unlinkat("/tmp/bench");
    }
  });
}

const boot_default = (): void => boot({ machine: PRESETS.textbook!, loglevel: 0 });

function replay(name: string): OwnWorkload {
  const path = fileURLToPath(new URL(`../../data/traces/${name}.trace.gz`, import.meta.url));
  const bytes = read_trace_file(path);
  const play = (): number => {
    const mode = open_mode("objects", name, bytes, kernel_ops);
    while (run_slice(mode, 1 << 20, Infinity));
    mode.books.finish();
    mode.books.release();
    return mode.reader.events;
  };
  let events = 0;
  kernel_entry("host", () => {
    events = play();
  });
  return {
    run: (count) => kernel_entry("host", () => {
      for (let i = 0; i < count; i++) play();
    }),
    per_call: events,
  }; // prettier-ignore
}

function repeat(fn: () => void): (count: number) => void {
  return (count) => {
    for (let i = 0; i < count; i++) fn();
  };
}

const workloads: Readonly<Record<string, () => OwnWorkload>> = {
  W6: () => ({ run: repeat(fork_and_exit), per_call: FORKS + 1 }),
  W7: () => ({ run: create_and_unlink }),
  W8: () => ({ run: repeat(boot_default) }),
  "W9 fork-shell": () => replay("fork-shell"),
  "W9 fs-walk": () => replay("fs-walk"),
};

boot_default();

export const subject: Subject = {
  heap: () => undefined,
  own: (workload) => workloads[workload]?.(),
  check: () => validate_mm(),
};
