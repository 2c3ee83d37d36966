/**
 * Pipes: what one process writes another reads, in order, through a ring of pages.
 *
 *     pipe_inode_info [ tail .. head ]        bufs[i % 16] -> pipe_buffer [ page | offset | len ]
 *
 *       write   fills up the last page if all that is to be written fits behind its bytes, then takes new pages at `head`
 *       read    takes bytes at `tail` and frees each page as it is read empty
 *
 * A write of at most PIPE_BUF bytes goes in whole or not at all. What cannot go on says -EAGAIN: the system call then sleeps
 * by `wait`, unless the file is O_NONBLOCK. Reading ends (no bytes) once nobody has it open for writing; writing is -EPIPE
 * and SIGPIPE once nobody has it open for reading. The host's end of a pipe is a plain file that never sleeps.
 *
 * Locks: none; an entry has the pipe to itself, and a sleeper comes back by a new entry.
 * Unlike Linux: a pipe's inode belongs to the root file system, under no name, where Linux has pipefs; no splice, no FIFOs
 * with names, and the ring keeps its 16 pages.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../../hal/addr.ts";
import { ram_read_bytes, ram_write_bytes } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { GFP_HIGHUSER, GFP_KERNEL_ACCOUNT, __GFP_ACCOUNT } from "../../mm/gfp.ts";
import { kcalloc, kfree, kzalloc } from "../../mm/kmalloc.ts";
import { page_address, type PagePtr } from "../../mm/page.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { EAGAIN, ENOMEM, EPIPE, is_err } from "../lib/errno.ts";
import { SIGPIPE, send_signal } from "../signal.ts";
import { WaitQueueHead, current_task } from "../task.ts";
import { init_waitqueue_head, wait_on, wake_up } from "../wait.ts";
import { d_make_root, dget, dput } from "./dcache.ts";
import {
  Dentry, FMODE_READ, FMODE_WRITE, File, Inode, Mount, O_RDONLY, O_WRONLY, S_IFIFO, SuperBlock, ops_symbol,
  type DentryPtr, type FileOps, type FilePtr,
} from "./fs.ts"; // prettier-ignore
import { alloc_empty_file, fput } from "./file_table.ts";
import { new_inode } from "./inode.ts";
import { root_path } from "./namespace.ts";

/** Writes of so many bytes are not mixed with those of others. */
export const PIPE_BUF = PAGE_SIZE;
/** Pages of a pipe. */
export const PIPE_DEF_BUFFERS = 16;

const PipeBuffer = struct(
  "pipe_buffer",
  { page: "*page", offset: "u32", len: "u32", ops: "*fn", flags: "u32", private: "u64" },
  { sizeof: 40 },
);
const PipeInodeInfo = struct("pipe_inode_info", {
  rd_wait: WaitQueueHead, // readers, until there is something
  wr_wait: WaitQueueHead, // writers, until there is room
  head: "u32", // buffers ever filled
  tail: "u32", // of them, buffers read
  readers: "u32", // open files, by mode
  writers: "u32",
  bufs: "*pipe_buffer",
});
type PipePtr = Ptr<"pipe_inode_info">;

const pipe_of = (file: FilePtr): PipePtr => File.private_data.get(file) as Ptr;
const buffer_at = (pipe: PipePtr, i: number): Ptr =>
  PipeInodeInfo.bufs.get(pipe) + (i % PIPE_DEF_BUFFERS) * PipeBuffer.sizeof;
const occupancy = (pipe: PipePtr): number => PipeInodeInfo.head.get(pipe) - PipeInodeInfo.tail.get(pipe);

/** NULL without memory. */
function alloc_pipe_info(): PipePtr {
  const pipe: PipePtr = kzalloc(PipeInodeInfo.sizeof, GFP_KERNEL_ACCOUNT);
  if (pipe === NULL) return NULL;
  const bufs = kcalloc(PIPE_DEF_BUFFERS, PipeBuffer.sizeof, GFP_KERNEL_ACCOUNT);
  if (bufs === NULL) {
    kfree(pipe);
    return NULL;
  }
  PipeInodeInfo.bufs.set(pipe, bufs);
  init_waitqueue_head(PipeInodeInfo.rd_wait.at(pipe));
  init_waitqueue_head(PipeInodeInfo.wr_wait.at(pipe));
  return pipe;
}

function free_pipe_info(pipe: PipePtr): void {
  while (occupancy(pipe) > 0) pop_buffer(pipe);
  kfree(PipeInodeInfo.bufs.get(pipe));
  kfree(pipe);
}

/** Frees the page that is next to be read. */
function pop_buffer(pipe: PipePtr): void {
  __free_pages(PipeBuffer.page.get(buffer_at(pipe, PipeInodeInfo.tail.get(pipe))), 0);
  PipeInodeInfo.tail.set(pipe, PipeInodeInfo.tail.get(pipe) + 1);
}

/** Bytes that lie in the pipe of an open file. */
export function pipe_bytes(file: FilePtr): number {
  const pipe = pipe_of(file);
  let sum = 0;
  for (let i = PipeInodeInfo.tail.get(pipe); i < PipeInodeInfo.head.get(pipe); i++)
    sum += PipeBuffer.len.get(buffer_at(pipe, i));
  return sum;
}

function pipe_read(file: FilePtr, _pos: number, count: number): Uint8Array | number {
  const pipe = pipe_of(file);
  if (occupancy(pipe) === 0 && count > 0 && PipeInodeInfo.writers.get(pipe) > 0) return -EAGAIN;
  const pieces: Uint8Array[] = [];
  let left = count;
  while (left > 0 && occupancy(pipe) > 0) {
    const buffer = buffer_at(pipe, PipeInodeInfo.tail.get(pipe));
    const [offset, len] = [PipeBuffer.offset.get(buffer), PipeBuffer.len.get(buffer)];
    const taken = Math.min(left, len);
    pieces.push(ram_read_bytes(page_address(PipeBuffer.page.get(buffer)) + offset, taken));
    PipeBuffer.offset.set(buffer, offset + taken);
    PipeBuffer.len.set(buffer, len - taken);
    if (taken === len) pop_buffer(pipe);
    left -= taken;
  }
  const bytes = new Uint8Array(count - left);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  if (bytes.length > 0) wake_up(PipeInodeInfo.wr_wait.at(pipe));
  return bytes;
}

/** Bytes written, at least one; -EAGAIN if there is no room, -EPIPE, -ENOMEM. */
function pipe_write(file: FilePtr, _pos: number, bytes: Uint8Array): number {
  const pipe = pipe_of(file);
  if (PipeInodeInfo.readers.get(pipe) === 0) {
    send_signal(current_task(), SIGPIPE);
    return -EPIPE;
  }
  if (bytes.length === 0) return 0;
  // As Linux does: the odd bytes go behind those of the last page, if they fit; the rest takes whole pages.
  let done = append_to_last(pipe, bytes.subarray(0, bytes.length % PAGE_SIZE));
  let error = -EAGAIN;
  while (done < bytes.length && occupancy(pipe) < PIPE_DEF_BUFFERS) {
    const page = alloc_pages(GFP_HIGHUSER | __GFP_ACCOUNT, 0);
    if (page === NULL) {
      error = -ENOMEM;
      break;
    }
    const piece = bytes.subarray(done, done + PAGE_SIZE);
    ram_write_bytes(page_address(page), piece);
    push_buffer(pipe, page, piece.length);
    done += piece.length;
  }
  if (done === 0) return error;
  wake_up(PipeInodeInfo.rd_wait.at(pipe));
  return done;
}

function push_buffer(pipe: PipePtr, page: PagePtr, len: number): void {
  const buffer = buffer_at(pipe, PipeInodeInfo.head.get(pipe));
  PipeBuffer.page.set(buffer, page);
  PipeBuffer.offset.set(buffer, 0);
  PipeBuffer.len.set(buffer, len);
  PipeInodeInfo.head.set(pipe, PipeInodeInfo.head.get(pipe) + 1);
}

/** Writes behind what the last page holds, if all of it fits there. Returns how many bytes that were. */
function append_to_last(pipe: PipePtr, bytes: Uint8Array): number {
  if (occupancy(pipe) === 0 || bytes.length === 0) return 0;
  const buffer = buffer_at(pipe, PipeInodeInfo.head.get(pipe) - 1);
  const end = PipeBuffer.offset.get(buffer) + PipeBuffer.len.get(buffer);
  if (end + bytes.length > PAGE_SIZE) return 0;
  ram_write_bytes(page_address(PipeBuffer.page.get(buffer)) + end, bytes);
  PipeBuffer.len.set(buffer, PipeBuffer.len.get(buffer) + bytes.length);
  return bytes.length;
}

function pipe_wait(file: FilePtr, mode: number): number {
  return wait_on((mode === FMODE_READ ? PipeInodeInfo.rd_wait : PipeInodeInfo.wr_wait).at(pipe_of(file)));
}

function pipe_release(file: FilePtr): void {
  const pipe = pipe_of(file);
  const field = File.f_mode.get(file) === FMODE_READ ? PipeInodeInfo.readers : PipeInodeInfo.writers;
  field.set(pipe, field.get(pipe) - 1);
  if (PipeInodeInfo.readers.get(pipe) + PipeInodeInfo.writers.get(pipe) === 0) return free_pipe_info(pipe);
  // The other side has to see that it is alone.
  wake_up(PipeInodeInfo.rd_wait.at(pipe));
  wake_up(PipeInodeInfo.wr_wait.at(pipe));
}

const pipe_fops = ops_symbol<FileOps>("pipefifo_fops", {
  read: pipe_read,
  write: pipe_write,
  wait: pipe_wait,
  release: pipe_release,
});

/** The dentry of an inode that has no name, with one user. NULL without memory. */
function pipe_dentry(): DentryPtr {
  const sb = Mount.mnt_sb.get(root_path().mnt);
  const ino = SuperBlock.s_next_ino.get(sb);
  const inode = new_inode(sb, ino, S_IFIFO | 0o600);
  if (inode === NULL) return NULL;
  SuperBlock.s_next_ino.set(sb, ino + 1);
  Inode.i_fop.set(inode, pipe_fops);
  return d_make_root(inode);
}

/** An open end of a pipe; takes over the caller's use of `dentry`. -errno, and then the use is ended. */
function pipe_end(dentry: DentryPtr, pipe: PipePtr, flags: number): FilePtr {
  const file = alloc_empty_file(flags);
  if (is_err(file)) {
    dput(dentry);
    return file;
  }
  const mode = (flags & O_WRONLY) === O_RDONLY ? FMODE_READ : FMODE_WRITE;
  const field = mode === FMODE_READ ? PipeInodeInfo.readers : PipeInodeInfo.writers;
  field.set(pipe, field.get(pipe) + 1);
  File.f_mode.set(file, mode);
  File.f_op.set(file, pipe_fops);
  File.f_inode.set(file, Dentry.d_inode.get(dentry));
  File.private_data.set(file, pipe as Ptr);
  File.f_path_mnt.set(file, root_path().mnt);
  File.f_path_dentry.set(file, dentry);
  return file;
}

/** Makes a pipe: the end to read from and the end to write to, each with one user. -ENFILE or -ENOMEM. */
export function create_pipe_files(flags = 0): readonly [FilePtr, FilePtr] | number {
  const dentry = pipe_dentry();
  if (dentry === NULL) return -ENOMEM;
  const pipe = alloc_pipe_info();
  if (pipe === NULL) {
    dput(dentry);
    return -ENOMEM;
  }
  const reader = pipe_end(dget(dentry), pipe, O_RDONLY | flags);
  if (is_err(reader)) {
    free_pipe_info(pipe);
    dput(dentry);
    return reader;
  }
  const writer = pipe_end(dentry, pipe, O_WRONLY | flags);
  if (!is_err(writer)) return [reader, writer];
  fput(reader); // and with it the pipe
  return writer;
}
