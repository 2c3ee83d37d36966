/**
 * User programs: generators, registered by name, that ask the kernel for everything by `yield`.
 *
 *     program("cat", function* (sys, path: string) {
 *       const fd: number = yield sys.open(path);
 *       …
 *       return 0;                                      // the exit status
 *     });
 *
 * A file in /bin names one: `#!program cat`. So exec goes through the page cache, as with any other system.
 *
 * One entry of a program's task:
 *   1 a signal ends it
 *   2 the program runs up to its next system call, which is written into the journal as the call in progress
 *     (a call that had to wait is in progress already: then only step 3)
 *   3 the kernel carries the call out; what it returns takes its place in the journal
 *
 * The generator object is a cache: it belongs to a task if the digest of what it was fed is that of the task's journal. Where
 * there is none (a child of fork, a realm that attached) the program is run again and fed its journal. So a program is a
 * function of its arguments and its journal: no variables outside it, no clock, no randomness but by system call. One that
 * asks something else the second time is killed, as is one whose journal outgrows its limit.
 */
import { NULL, type CpuId } from "../hal/addr.ts";
import { image_symbols } from "../hal/image.ts";
import { hash_text } from "../hal/struct.ts";
import { Trap } from "../hal/trap.ts";
import type { MmPtr } from "../mm/mm_types.ts";
import { mm_for_exec, mmput } from "../mm/mmap.ts";
import { switch_mm } from "../mm/tlbflush.ts";
import { user_mode } from "./entry.ts";
import { kernel_frames } from "./lib/dump_stack.ts";
import { do_exit, exit_mm, release_task } from "./exit.ts";
import { copy_process } from "./fork.ts";
import {
  encode, journal_append, journal_begin_call, journal_last, journal_pending_call, journal_records, journal_start,
} from "./journal.ts"; // prettier-ignore
import { bytes_to_string } from "./fs/bytes.ts";
import { fput, get_file, replace_fd } from "./fs/file_table.ts";
import { O_RDONLY, type FilePtr } from "./fs/fs.ts";
import { do_filp_open, file_read } from "./fs/open.ts";
import { EACCES, EFBIG, EISDIR, ELOOP, ENOENT, ENOEXEC, ENOMEM, ERESTARTSYS, is_err } from "./lib/errno.ts";
import { ksym, ksym_fn, type FnPtr } from "./lib/ksym.ts";
import { pr_err, pr_info } from "./lib/printk.ts";
import { set_task_cpu, wake_up_process } from "./sched.ts";
import { SIGABRT, SIGKILL, SIGXCPU, exit_on_signal } from "./signal.ts";
import { sys, system_call, type Argument, type Sys, type SystemCall } from "./syscall.ts";
import { Journal, TaskStruct, current_task, task_is_dead, task_name, type TaskPtr } from "./task.ts";
import { report_user_trap } from "./user_fault.ts";
import { AccessLimit, user_step } from "./user_memory.ts";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the caller of `yield` knows what its call returns
type Execution = Generator<SystemCall, number | void, any>;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- programs differ in their arguments
export type ProgramFn = (sys: Sys, ...args: any[]) => Execution;

/** Stands for the request in a record of what a step loaded from memory: no request has this text. */
const LOADS = hash_text("loads");

/** Gives a program its name. Call it at module level. Returns its text address. */
export function program(name: string, fn: ProgramFn): FnPtr {
  return ksym(`program:${name}`, fn);
}

/** The program that was registered under a name; -ENOENT if there is none. */
function find_program(name: string): FnPtr {
  const wanted = `program:${name}`;
  for (const symbol of image_symbols("text")) if (symbol.name === wanted) return symbol.address;
  return -ENOENT;
}

const basename = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

/** Bytes of a file that exec looks at. */
const BINPRM_BUF_SIZE = 256;
/** Files that may name one another as the program to run them. */
const MAX_INTERPRETERS = 4;

/** What is to be run: a program, and what it is told. */
interface Image {
  readonly program: FnPtr;
  readonly args: readonly unknown[];
}

/**
 * What a name says is to be run, or -errno. A name without a slash is a program that is part of the kernel, as init's are.
 * A path is of a file that begins with `#!program NAME`, or with `#!/path`: the program of that file is handed the path.
 * Unlike Linux: whether the file's mode allows it is not asked.
 */
function load_image(name: string, args: readonly unknown[], depth = 0): Image | number {
  if (!name.includes("/")) {
    const program = find_program(name);
    return is_err(program) ? program : { program, args };
  }
  const head = read_head(name);
  if (typeof head === "number") return head;
  const [, kind, path] = /^#!(program )?([\w./-]+)\n/.exec(head) ?? [];
  if (path === undefined) return -ENOEXEC;
  if (kind !== undefined) return path.includes("/") ? -ENOEXEC : load_image(path, args);
  return depth >= MAX_INTERPRETERS
    ? -ELOOP
    : load_image(path.includes("/") ? path : `./${path}`, [name, ...args], depth + 1);
}

/** The first bytes of a file; -EACCES if it is none. */
function read_head(path: string): string | number {
  const file = do_filp_open(path, O_RDONLY, 0);
  if (is_err(file)) return file;
  const bytes = file_read(file, BINPRM_BUF_SIZE);
  fput(file);
  if (typeof bytes !== "number") return bytes_to_string(bytes);
  return bytes === -EISDIR ? -EACCES : bytes;
}

interface Running {
  readonly execution: Execution;
  readonly program: FnPtr;
  /** The journal's digest before the answer to the last request, and that request's hash. */
  readonly digest: number;
  readonly request_hash: number;
  readonly records: number;
}
/** Generators at hand, by task. */
// eslint-disable-next-line kheap/no-module-state -- a cache: what is missing or stale is made anew from the journal
const running = new Map<TaskPtr, Running>();

/** Drops all generators: another machine is in RAM now, or there will be. */
export function forget_programs(): void {
  running.clear();
}

/** One entry of a program's task. */
const user_entry = ksym("user_entry", (task: TaskPtr): void => {
  const journal = TaskStruct.journal.at(task);
  if (exit_on_signal(task)) return void running.delete(task);
  if (Journal.pending.get(journal) === 0) {
    if (!resume(task)) return void running.delete(task);
    TaskStruct.progress.set(task, 0);
  }
  const request = journal_pending_call(journal);
  const [call, ...args] = request.value as [string, ...Argument[]];
  const result = system_call(call, args);
  if (task_is_dead(task)) return void running.delete(task);
  // Asleep, or another program by now.
  if (result === -ERESTARTSYS || Journal.pending.get(journal) === 0) return;
  const error = journal_append(journal, request.request_hash, result);
  if (error !== 0) no_room(task, error);
});

/** Runs the program until it asks for something, and writes that down. False if the task has ended instead. */
function resume(task: TaskPtr): boolean {
  const journal = TaskStruct.journal.at(task);
  const execution = at_hand(task) ?? revive(task);
  if (execution === undefined) return false;
  const value = Journal.records.get(journal) > 1 ? journal_last(journal).value : undefined;
  const step = run(task, execution, value);
  if (step === undefined) return false;
  if (step.status !== undefined) {
    do_exit(task, (step.status & 0xff) << 8);
    return false;
  }
  const error =
    (step.loads.length > 0 ? journal_append(journal, LOADS, step.loads) : 0) ||
    journal_begin_call(journal, step.request);
  if (error !== 0) return no_room(task, error);
  running.set(task, {
    execution,
    program: TaskStruct.program.get(task),
    digest: Journal.digest.get(journal),
    records: Journal.records.get(journal),
    request_hash: hash_text(step.request),
  });
  return true;
}

/** The task's generator, if the one at hand has been fed all but the last record of the journal. */
function at_hand(task: TaskPtr): Execution | undefined {
  const found = running.get(task);
  const journal = TaskStruct.journal.at(task);
  if (!found || found.program !== TaskStruct.program.get(task)) return undefined;
  const belongs =
    found.digest === Journal.prev_digest.get(journal) && found.records === Journal.records.get(journal) - 1;
  return belongs && found.request_hash === journal_last(journal).request_hash ? found.execution : undefined;
}

/** Runs the program again on its journal, up to the request that the last record answers. Undefined if it was killed. */
function revive(task: TaskPtr): Execution | undefined {
  const [argv, ...records] = journal_records(TaskStruct.journal.at(task));
  const fn = ksym_fn(TaskStruct.program.get(task)) as ProgramFn;
  const started = user_mode(() => fn(sys, ...(argv.value as Argument[])));
  if ("thrown" in started) return uncaught(task, started.thrown);
  const execution = started.value;
  let [steps, value, loads]: [number, unknown, unknown[]] = [0, undefined, []];
  for (const record of records) {
    if (record.request_hash === LOADS) {
      loads = record.value as unknown[];
      continue;
    }
    const step = run(task, execution, value, loads);
    if (step === undefined) return undefined;
    steps++;
    if (step.stray || step.request === undefined || hash_text(step.request) !== record.request_hash) {
      pr_err(`program ${TaskStruct.comm.get(task)} is not deterministic at step ${steps}`);
      do_exit(task, SIGKILL);
      return undefined;
    }
    [value, loads] = [record.value, []];
  }
  return execution;
}

/** What a program came to: its next request as text, or its end; and what it loaded on the way. */
type Stop = ({ request: string; status?: undefined } | { request?: undefined; status: number }) & {
  loads: readonly unknown[];
  stray: boolean;
};

/** Lets the program run to its next yield or its end; with `replayed` loads, again. Undefined if it was killed. */
function run(task: TaskPtr, execution: Execution, value: unknown, replayed?: readonly unknown[]): Stop | undefined {
  const stop = user_step(() => {
    const step = execution.next(value);
    return step.done ? { status: Number(step.value ?? 0) } : { request: request_text(step.value) };
  }, replayed);
  if ("thrown" in stop) return uncaught(task, stop.thrown);
  if (stop.stray && replayed === undefined) return uncaught(task, new Error("went on after a trap"));
  return { ...stop.value, loads: stop.loads, stray: stop.stray };
}

/** A request as text: what the journal and its hashes are made of. What is no request asks for no call at all. */
function request_text(request: unknown): string {
  const { call, args } = (request ?? {}) as Partial<SystemCall>;
  return encode([String(call), ...(Array.isArray(args) ? (args as unknown[]) : [])]);
}

function uncaught(task: TaskPtr, thrown: unknown): undefined {
  if (thrown instanceof Trap) {
    do_exit(task, report_user_trap(task, thrown));
    return;
  }
  const at = kernel_frames(thrown)[0];
  pr_info(`${task_name(task)}: uncaught ${String(thrown)}${at ? ` in ${at}` : ""}`);
  do_exit(task, thrown instanceof AccessLimit ? SIGXCPU : SIGABRT);
}

/** Kills a task whose journal cannot grow. */
function no_room(task: TaskPtr, error: number): false {
  if (error === -EFBIG) pr_info(`${task_name(task)}: journal limit exceeded`);
  else pr_err(`Out of memory: Killed process ${TaskStruct.pid.get(task)} (${TaskStruct.comm.get(task)})`);
  do_exit(task, error === -EFBIG ? SIGXCPU : SIGKILL);
  running.delete(task);
  return false;
}

/** Gives a task another address space instead of the one it had. */
function exec_mmap(task: TaskPtr, mm: MmPtr): void {
  exit_mm(task);
  TaskStruct.mm.set(task, mm);
  if (task === current_task()) switch_mm(mm);
}

/** Lets a task become another program. 0, -ENOENT, -ENOMEM or -EFBIG; then it goes on as it was. */
export function do_exec(task: TaskPtr, name: string, args: readonly unknown[]): number {
  const image = load_image(name, args);
  return typeof image === "number" ? image : become(task, basename(name), image);
}

/** Gives a task another program, memory of its own for it, and an empty journal. */
function become(task: TaskPtr, comm: string, image: Image): number {
  const mm = mm_for_exec();
  if (mm === NULL) return -ENOMEM;
  const error = journal_start(TaskStruct.journal.at(task), comm, image.args);
  if (error !== 0) {
    mmput(mm);
    return error;
  }
  exec_mmap(task, mm);
  TaskStruct.program.set(task, image.program);
  TaskStruct.comm.set(task, comm);
  return 0;
}

/** Copies a task that is in the middle of fork(): the child goes on with 0. Its pid, or -errno. */
export function do_fork(parent: TaskPtr): number {
  const child = copy_process({
    parent,
    comm: TaskStruct.comm.get(parent),
    entry: user_entry,
    program: TaskStruct.program.get(parent),
  });
  if (is_err(child)) return child;
  const journal = TaskStruct.journal.at(child);
  // There is room for the 0: it takes the place of the call, which is longer.
  journal_append(journal, journal_pending_call(journal).request_hash, 0);
  wake_up_process(child);
  return TaskStruct.pid.get(child);
}

/** What a program that is started gets besides its arguments. */
export interface SpawnOptions {
  /** Its files 0, 1, 2 …; the caller keeps its own uses. */
  readonly files?: readonly FilePtr[];
  /** Absent: the one with the least to do. */
  readonly cpu?: CpuId;
}

/** Starts a program in a task of its own, as a child of `parent`. The task, or -errno. Context: may sleep. */
export function spawn(parent: TaskPtr, name: string, args: readonly Argument[], options: SpawnOptions = {}): TaskPtr {
  const image = load_image(name, args);
  if (typeof image === "number") return image;
  const task = copy_process({ parent, comm: basename(name), entry: user_entry, program: image.program });
  if (is_err(task)) return task;
  const { files = [], cpu } = options;
  if (cpu !== undefined) set_task_cpu(task, cpu);
  let error = become(task, basename(name), image);
  for (const [fd, file] of files.entries()) {
    if (error !== 0) break;
    error = Math.min(replace_fd(TaskStruct.files.get(task), fd, get_file(file)), 0);
  }
  if (error !== 0) {
    do_exit(task, SIGKILL);
    release_task(task);
    return error;
  }
  wake_up_process(task);
  return task;
}
