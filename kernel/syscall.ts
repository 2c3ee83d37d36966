/**
 * System calls: the table that the subsystems fill, and the library through which a program asks for one.
 *
 *     program                    kernel
 *     yield sys.open("/a", 0)    { call: "open", args: ["/a", 0] }  ->  system_call("open", args)  ->  fs/…
 *
 * A file that implements calls registers each at module level, with the types of its parameters, one letter each: `n` a
 * whole number; `s` a string, or the address of one in the program's memory; `p` an address, whatever number that is; `t` a
 * text or an address; those after a `?` may be left out, `*` stands for any more. The kernel checks them before the call,
 * so an implementation never sees an argument of another type:
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
    if (type === "p" || type === "t") {
      if (typeof arg !== "number" && (type === "p" || !is_string)) return -EINVAL;
    } else if (type === "n" ? !Number.isSafeInteger(arg) : !is_string && !Number.isSafeInteger(arg)) return -EINVAL;
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
  /** Memory: its address. Of zeroes, private to the program; else say what it may be used for (PROT_*), how (MAP_*), where, and what file, from which byte on. */
  mmap: (bytes: number, ...rest: number[]) => call("mmap", bytes, ...rest),
  munmap: (va: number, bytes: number) => call("munmap", va, bytes),
  mprotect: (va: number, bytes: number, prot: number) => call("mprotect", va, bytes, prot),
  /** With MADV_DONTNEED, 4: what lies there may go, and is as if it had just been mapped. */
  madvise: (va: number, bytes: number, advice: number) => call("madvise", va, bytes, advice),
  msync: (va: number, bytes: number, flags: number) => call("msync", va, bytes, flags),
  /** Moves the end of the heap; returns where it is then. */
  brk: (end = 0) => call("brk", end),
  /** Moves the end of the heap by so many bytes; returns where it was, or -ENOMEM. */
  sbrk: (bytes: number) => call("sbrk", bytes),
  /** Where pages come from: of this task, and of a range of its memory. Modes MPOL_*; a bit a node. */
  set_mempolicy: (mode: number, nodes = 0) => call("set_mempolicy", mode, nodes),
  /** `{ policy, nodes }`; see mm/mempolicy.ts for MPOL_F_*. */
  get_mempolicy: (flags = 0, va = 0) => call("get_mempolicy", flags, va),
  mbind: (va: number, bytes: number, mode: number, nodes = 0, flags = 0) =>
    call("mbind", va, bytes, mode, nodes, flags),
  set_mempolicy_home_node: (va: number, bytes: number, node: number) =>
    call("set_mempolicy_home_node", va, bytes, node, 0),
  /** Ticks since power-on. */
  clock: () => call("clock"),
  /** Writes a line to the kernel's log. */
  syslog: (text: string) => call("syslog", text),
  open: (path: Argument, flags = 0, mode = 0o644) => call("open", path, flags, mode),
  close: (fd: number) => call("close", fd),
  /** `(fd, bytes)`: the bytes, as a string. `(fd, va, bytes)`: into memory; how many. Nothing at the end of the file. */
  read: (fd: number, ...rest: number[]) => call("read", fd, ...rest),
  /** `(fd, text)`, or `(fd, va, bytes)` from memory. How many bytes. */
  write: (fd: number, from: Argument, ...bytes: number[]) => call("write", fd, from, ...bytes),
  lseek: (fd: number, offset: number, whence = 0) => call("lseek", fd, offset, whence),
  ftruncate: (fd: number, size: number) => call("ftruncate", fd, size),
  dup: (fd: number) => call("dup", fd),
  dup2: (from: number, to: number) => call("dup2", from, to),
  /** `[to read from, to write to]`; with an address 0, and the two words there. */
  pipe: (...rest: number[]) => call("pipe", ...rest),
  mkdir: (path: Argument, mode = 0o755) => call("mkdir", path, mode),
  rmdir: (path: Argument) => call("rmdir", path),
  unlink: (path: Argument) => call("unlink", path),
  link: (path: Argument, name: Argument) => call("link", path, name),
  symlink: (text: Argument, name: Argument) => call("symlink", text, name),
  readlink: (path: Argument) => call("readlink", path),
  rename: (path: Argument, to: Argument) => call("rename", path, to),
  chdir: (path: Argument) => call("chdir", path),
  /** The path of the directory; with an address and a size its length, and the path there. */
  getcwd: (...rest: number[]) => call("getcwd", ...rest),
  /** What an inode says, as an object; with an address 0, and `struct stat` there. */
  stat: (path: Argument, ...va: number[]) => call("stat", path, ...va),
  lstat: (path: Argument, ...va: number[]) => call("lstat", path, ...va),
  fstat: (fd: number, ...va: number[]) => call("fstat", fd, ...va),
  readdir: (path: Argument) => call("readdir", path),
  /** Entries of an open directory, as `struct linux_dirent64`; how many bytes, 0 at the end. */
  getdents: (fd: number, va: number, bytes: number) => call("getdents", fd, va, bytes),
});
export type Sys = typeof sys;
