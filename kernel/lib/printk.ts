/**
 * The kernel log: levels, time stamps, and a ring buffer in RAM.
 *
 * A record is [ header 16 bytes | text, NUL, padded to 16 ]. The ring is written at `head` and read from `tail`, both
 * byte counts that only grow (u32, taken modulo the ring's size); a record that would cross the end of the ring is
 * preceded by a filler. When the ring is full the oldest records go. Messages more urgent than the console's level are
 * also sent to the console device as they happen.
 *
 * Locks: none; in lockstep a record is written in one go. Unlike Linux, a record is one line, without facility or
 * dictionary.
 */
import { local_clock } from "../../hal/clock.ts";
import { console_write } from "../../hal/console.ts";
import { static_data } from "../../hal/image.ts";
import { ram_read_string, ram_write_string } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";

export const KERN_EMERG = 0;
export const KERN_ALERT = 1;
export const KERN_CRIT = 2;
export const KERN_ERR = 3;
export const KERN_WARNING = 4;
export const KERN_NOTICE = 5;
export const KERN_INFO = 6;
export const KERN_DEBUG = 7;

const LOG_BYTES = 1 << 17;
const MAX_LINE = 1000;
const Record_ = struct("printk_record", { size: "u32", level: "u32", ts_nsec: "u64" }, { sizeof: 16 });
const FILLER = 255;

const log = static_data("printk_ringbuffer", {
  head: "u32", // bytes ever written
  tail: "u32", // bytes ever dropped
  console_loglevel: "u32", // messages below this level go to the console
  dropped: "u32", // records that made room
  text: `char[131072]`,
});

/** Prints what is more urgent than `level` on the console as it happens; `dmesg` has everything. */
export function set_console_loglevel(level: number): void {
  log.console_loglevel = level;
}

function make_room(bytes: number): void {
  while (log.head + bytes - log.tail > LOG_BYTES) {
    log.tail = log.tail + Record_.size.get(log.$at("text") + (log.tail % LOG_BYTES));
    log.dropped = log.dropped + 1;
  }
}

function append(level: number, text: string, size: number): void {
  make_room(size);
  const record = log.$at("text") + (log.head % LOG_BYTES);
  Record_.size.set(record, size);
  Record_.level.set(record, level);
  Record_.ts_nsec.set(record, local_clock());
  if (size > Record_.sizeof) ram_write_string(record + Record_.sizeof, text, size - Record_.sizeof);
  log.head = log.head + size;
}

/** Writes each line of `text` as a record of `level`. Context: any. */
export function printk(level: number, text: string): void {
  for (const line of text.split("\n")) {
    const cut = line.slice(0, MAX_LINE);
    const size = Record_.sizeof + ((cut.length + 16) & ~15); // so that a filler, too, has room for its header
    const to_end = LOG_BYTES - (log.head % LOG_BYTES);
    if (to_end < size) append(FILLER, "", to_end);
    append(level, cut, size);
    if (level < log.console_loglevel) console_write(format_line(local_clock(), cut) + "\n");
  }
}

/** Writes to the log: the system is unusable. */
export const pr_emerg = (text: string): void => printk(KERN_EMERG, text);
/** Writes to the log: something must be done at once. */
export const pr_alert = (text: string): void => printk(KERN_ALERT, text);
/** Writes to the log: an error. */
export const pr_err = (text: string): void => printk(KERN_ERR, text);
/** Writes to the log: a warning. */
export const pr_warn = (text: string): void => printk(KERN_WARNING, text);
/** Writes to the log: worth noticing. */
export const pr_notice = (text: string): void => printk(KERN_NOTICE, text);
/** Writes to the log: information. */
export const pr_info = (text: string): void => printk(KERN_INFO, text);
/** Writes to the log: for who looks for a mistake. */
export const pr_debug = (text: string): void => printk(KERN_DEBUG, text);

function format_line(ns: number, text: string): string {
  const us = Math.floor(ns / 1000);
  return `[${String(Math.floor(us / 1e6)).padStart(5)}.${String(us % 1e6).padStart(6, "0")}] ${text}`;
}

export interface LogLine {
  readonly level: number;
  readonly ts_nsec: number;
  readonly text: string;
  /** As dmesg prints it. */
  readonly line: string;
}

/** The whole log, oldest first. */
export function* printk_records(): Generator<LogLine> {
  for (let at = log.tail; at !== log.head;) {
    const record = log.$at("text") + (at % LOG_BYTES);
    const size = Record_.size.get(record);
    const level = Record_.level.get(record);
    const ts_nsec = Record_.ts_nsec.get(record);
    if (level !== FILLER) {
      const text = ram_read_string(record + Record_.sizeof, size - Record_.sizeof);
      yield { level, ts_nsec, text, line: format_line(ts_nsec, text) };
    }
    at += size;
  }
}
