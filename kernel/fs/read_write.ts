/**
 * The system calls read and write.
 *
 *     yield sys.read(fd, va, bytes)      into the program's memory; how many bytes
 *     yield sys.read(fd, bytes)          the bytes themselves, as a string: they go into the journal
 *     yield sys.write(fd, va, bytes)     yield sys.write(fd, "text")
 *
 * With an address nothing of what is read or written ever goes into the journal, so `cat` can copy any file. As on Linux a
 * call does as much as it can: what the program may not touch behind the first byte cuts it short, -EFAULT is for the first.
 *
 * A file that has nothing (or no room) right now sleeps, unless it is O_NONBLOCK. A write that got a part through before it
 * slept keeps that number in TaskStruct.progress and goes on behind it.
 */
import { PAGE_SIZE, type Virt } from "../../hal/addr.ts";
import { copy_bytes_from_user, copy_bytes_to_user, fault_in_writeable } from "../../mm/uaccess.ts";
import { EAGAIN, EFAULT, EINVAL, ERESTARTSYS } from "../lib/errno.ts";
import { register_syscall, type Result } from "../syscall.ts";
import { TaskStruct, current_task } from "../task.ts";
import { bytes_of, bytes_to_string } from "./bytes.ts";
import { FMODE_READ, FMODE_WRITE, File, O_NONBLOCK, file_ops, type FilePtr } from "./fs.ts";
import { with_fd } from "./fs_struct.ts";
import { file_read, file_write } from "./open.ts";

/** Most bytes of a call; more are for the next. Linux: 2 GiB less a page. */
const MAX_RW_COUNT = 1 << 20;

/** Sleeps where a file says that it cannot go on yet. */
function sleep_on(file: FilePtr, mode: number): number {
  if (File.f_flags.get(file) & O_NONBLOCK) return -EAGAIN;
  return file_ops(file).wait?.(file, mode) ?? -EAGAIN;
}

function read_text(file: FilePtr, count: number): Result {
  const result = file_read(file, Math.min(count, MAX_RW_COUNT));
  if (typeof result !== "number") return bytes_to_string(result);
  return result === -EAGAIN ? sleep_on(file, FMODE_READ) : result;
}

function read_into(file: FilePtr, va: Virt, count: number): number {
  if (count < 0) return -EINVAL;
  const wanted = Math.min(count, MAX_RW_COUNT);
  if (file_ops(file).wait) return read_by_page(file, va, wanted);
  const result = file_read(file, wanted);
  if (typeof result === "number") return result;
  const left = copy_bytes_to_user(va, result);
  if (left > 0) File.f_pos.set(file, File.f_pos.get(file) - left);
  return left > 0 && left === result.length ? -EFAULT : result.length - left;
}

/** Reads what cannot be read again: asks for each page first whether it may be written to. */
function read_by_page(file: FilePtr, va: Virt, wanted: number): number {
  let done = 0;
  while (done < wanted) {
    const at = va + done;
    const room = fault_in_writeable(at, Math.min(wanted - done, PAGE_SIZE - (at % PAGE_SIZE)));
    const result = room === 0 ? -EFAULT : file_read(file, room);
    if (typeof result === "number" && done > 0) break;
    if (typeof result === "number") return result === -EAGAIN ? sleep_on(file, FMODE_READ) : result;
    copy_bytes_to_user(at, result);
    done += result.length;
    if (result.length < room) break;
  }
  return done;
}

/** Writes `count` bytes; `take` hands over those behind the first `done`, or as many of them as there are. */
function write_all(file: FilePtr, count: number, take: (done: number) => Uint8Array): number {
  const task = current_task();
  const done = TaskStruct.progress.get(task);
  const bytes = take(done);
  if (bytes.length === 0 && done < count) return done > 0 ? done : -EFAULT;
  const result = file_write(file, bytes);
  const now = done + Math.max(result, 0);
  const is_cut_short = done + bytes.length < count;
  if (result < 0 && result !== -EAGAIN) return done > 0 ? done : result;
  // A regular file that takes no more has no memory for it; only what can be waited for is worth another try.
  if (now === count || (result >= 0 && (is_cut_short || !file_ops(file).wait))) return now;
  const slept = sleep_on(file, FMODE_WRITE);
  if (slept !== -ERESTARTSYS) return now > 0 ? now : slept;
  TaskStruct.progress.set(task, now);
  return slept;
}

register_syscall("read", "np?n", (fd: number, at: number, count?: number) =>
  with_fd<Result>(fd, (file) => (count === undefined ? read_text(file, at) : read_into(file, at, count))),
);
register_syscall("write", "nt?n", (fd: number, from: number | string, count?: number) =>
  with_fd<Result>(fd, (file) => {
    if (typeof from === "string") {
      const bytes = bytes_of(from);
      return count === undefined ? write_all(file, bytes.length, (done) => bytes.subarray(done)) : -EINVAL;
    }
    if (count === undefined || count < 0) return -EINVAL;
    const wanted = Math.min(count, MAX_RW_COUNT);
    return write_all(file, wanted, (done) => copy_bytes_from_user(from + done, wanted - done));
  }),
);
