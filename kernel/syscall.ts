/**
 * System calls: the table that the subsystems fill, and the library through which a program asks for one.
 *
 *     program                    kernel
 *     yield sys.open("/a", 0)    { call: "open", args: ["/a", 0] }  ->  system_call("open", args)  ->  fs/…
 *
 * A file that implements calls registers each at module level, with the types of its parameters, one letter each: `n` a
 * whole number, `s` a string, or the address of one in the program's memory; those after a `?` may be left out, `*` stands for any more. The kernel checks them before the call, so an
 * implementation never sees an argument of another type:
 *
 *     register_syscall("kill", "nn", (pid: number, signal: number) => do_kill(pid, signal));
 *
 * What a call returns is copied to the program and into its journal as JSON text: a number (negative: -errno), a
 * string (a byte a character), or a small object or array of these. A call that cannot go on yet puts the current task
 * on a wait queue and returns -ERESTARTSYS; once woken, the task enters the same call again with the same arguments.
 * What it must remember until then is in `TaskStruct.progress`, 0 when a call is entered for the first time.
 */
import { NULL } from "../hal/addr.ts";
import { ram_read_string } from "../hal/ram.ts";
import { GFP_KERNEL } from "../mm/gfp.ts";
import { kfree, kmalloc } from "../mm/kmalloc.ts";
import { strncpy_from_user } from "../mm/uaccess.ts";
import { EFAULT, EINVAL, ENAMETOOLONG, ENOMEM, ENOSYS } from "./lib/errno.ts";

export type Argument = number | string;
/** What a program yields. */
export interface SystemCall {
  readonly call: string;
  readonly args: readonly Argument[];
}
/** What a call returns; -errno where it failed. */
export type Result = number | string | readonly unknown[] | Readonly<Record<string, unknown>>;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- calls differ in their parameters
type CallFn = (...args: any[]) => Result;

// eslint-disable-next-line kheap/no-module-state -- code, not state: filled when the files load, the same in each realm
const sys_call_table = new Map<string, { required: number; types: string; fn: CallFn }>();

/** Enters a call into the table. Call it at module level. */
export function register_syscall(name: string, params: string, fn: CallFn): void {
  if (sys_call_table.has(name)) throw new Error(`system call ${name} is defined twice`);
  sys_call_table.set(name, { required: params.split(/[?*]/)[0]!.length, types: params.replace("?", ""), fn });
}

/** Runs a call for the current task. */
export function system_call(name: string, args: readonly unknown[]): Result {
  const entry = sys_call_table.get(name);
  if (!entry) return -ENOSYS;
  if (args.length < entry.required || (args.length > entry.types.length && !entry.types.endsWith("*"))) return -EINVAL;
  for (const [i, arg] of args.entries()) {
    const type = entry.types[i] ?? "*";
    const is_string = typeof arg === "string";
    if (type === "s" && !is_string) return call_with_user_string(name, args, i);
    if (type === "n" ? !Number.isSafeInteger(arg) : !is_string && !Number.isSafeInteger(arg)) return -EINVAL;
  }
  return entry.fn(...args);
}

/** Longest string that a program may hand over by address, its NUL included. */
const PATH_MAX = 4096;

/** Makes the call with what lies at the address that is argument `i`; -EFAULT or -ENAMETOOLONG if no string does. */
function call_with_user_string(name: string, args: readonly unknown[], i: number): Result {
  if (typeof args[i] !== "number") return -EFAULT;
  const buffer = kmalloc(PATH_MAX, GFP_KERNEL);
  if (buffer === NULL) return -ENOMEM;
  const length = strncpy_from_user(buffer, args[i], PATH_MAX);
  const text = length >= 0 ? ram_read_string(buffer, PATH_MAX) : "";
  kfree(buffer);
  if (length < 0) return length;
  return length === PATH_MAX ? -ENAMETOOLONG : system_call(name, args.with(i, text));
}

const call = (name: string, ...args: Argument[]): SystemCall => ({ call: name, args });

/** The program's side: `const pid: number = yield sys.fork();`. Each makes the request, nothing more. */
export const sys = Object.freeze({
  /** Returns twice: the child's pid in the parent, 0 in the child. */
  fork: () => call("fork"),
  /** Becomes another program; its journal is emptied. Returns only if that fails. */
  exec: (program: Argument, ...args: Argument[]) => call("exec", program, ...args),
  /** Ends the program with a status 0 .. 255. */
  exit: (status = 0) => call("exit", status),
  /** `{ pid, status }` of a child that ended; of child `pid`, or of any with -1. */
  wait: (pid = -1, options = 0) => call("wait", pid, options),
  getpid: () => call("getpid"),
  getppid: () => call("getppid"),
  sched_yield: () => call("sched_yield"),
  /** Sleeps for a number of ticks. */
  sleep: (ticks: number) => call("sleep", ticks),
  kill: (pid: number, signal: number) => call("kill", pid, signal),
  /** 32 random bits of the kernel. */
  getrandom: () => call("getrandom"),
  /** Memory of zeroes, private to the program: its address. What it may be used for: PROT_*; how: MAP_*. */
  mmap: (bytes: number, ...rest: number[]) => call("mmap", bytes, ...rest),
  munmap: (va: number, bytes: number) => call("munmap", va, bytes),
  mprotect: (va: number, bytes: number, prot: number) => call("mprotect", va, bytes, prot),
  /** Moves the end of the heap; returns where it is then. */
  brk: (end = 0) => call("brk", end),
  /** Moves the end of the heap by so many bytes; returns where it was, or -ENOMEM. */
  sbrk: (bytes: number) => call("sbrk", bytes),
  /** Ticks since power-on. */
  clock: () => call("clock"),
  /** Writes a line to the kernel's log. */
  syslog: (text: string) => call("syslog", text),
  open: (path: Argument, flags = 0, mode = 0o644) => call("open", path, flags, mode),
  close: (fd: number) => call("close", fd),
  read: (fd: number, bytes: number) => call("read", fd, bytes),
  write: (fd: number, text: string) => call("write", fd, text),
  mkdir: (path: Argument, mode = 0o755) => call("mkdir", path, mode),
  rmdir: (path: string) => call("rmdir", path),
  unlink: (path: Argument) => call("unlink", path),
  stat: (path: string) => call("stat", path),
  readdir: (path: string) => call("readdir", path),
});
export type Sys = typeof sys;
