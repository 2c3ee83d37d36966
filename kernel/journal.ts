/**
 * The journal of a program: everything it was ever told, in pages of its own.
 *
 *     task.journal.pages -> [ next | 4088 bytes ] -> [ next | 4088 bytes ] -> …
 *
 *       0              argv     [ hash of the program's name | length | JSON of its arguments | padding to 4 ]
 *                      result 1 [ hash of the request        | length | JSON of the result    ]
 *                      loads    [ hash of "loads"            | length | JSON of what the step loaded from memory ]
 *       last           result n
 *       bytes          the call in progress, in the same form, `pending` bytes of it; its result will overwrite it
 *
 * A generator cannot be copied and does not lie in RAM, but a program is a function of its arguments and its journal: run
 * again and fed the same results it is where it was. So fork copies the journal, exec empties it, and a realm that is
 * handed nothing but RAM goes on with every program (kernel/program.ts).
 *
 * Each record carries a hash of the request that it answers, and the journal a hash of all its records: by the first a
 * program that does not ask the same again is found out, by the second a generator that is at hand is known to be the
 * one that belongs to the task.
 *
 * Limits: 1 MiB; more is SIGXCPU. Locks: none, only the task's own entries and
 * fork write it.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../hal/addr.ts";
import { ram_copy, ram_read_bytes, ram_write_bytes } from "../hal/ram.ts";
import { hash_text, struct } from "../hal/struct.ts";
import { GFP_KERNEL_ACCOUNT } from "../mm/gfp.ts";
import { __get_free_pages, free_pages } from "../mm/page_alloc.ts";
import { EFBIG, ENOMEM } from "./lib/errno.ts";
import { Journal, type JournalPtr } from "./task.ts";

const JournalPage = struct("journal_page", { next: "*journal_page" });
const PAYLOAD = PAGE_SIZE - JournalPage.sizeof;
const RECORD_HEAD = 8;
export const JOURNAL_LIMIT_PAGES = 256;

export interface JournalRecord {
  /** Of the request that the value answers. */
  readonly request_hash: number;
  readonly value: unknown;
}

/** The text that stands for a value in RAM: JSON, a byte a character. */
export function encode(value: unknown): string {
  return JSON.stringify(value).replace(/[^\x20-\xff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** A record as it lies in RAM, padded to whole words. */
function record_bytes(request_hash: number, text: string): Uint8Array {
  const bytes = new Uint8Array(record_size(text));
  new Uint32Array(bytes.buffer, 0, 2).set([request_hash, text.length]);
  for (let i = 0; i < text.length; i++) bytes[RECORD_HEAD + i] = text.charCodeAt(i);
  return bytes;
}

const record_size = (text: string): number => RECORD_HEAD + ((text.length + 3) & ~3);

/** Makes room for `bytes` bytes. 0, -EFBIG beyond the limit, or -ENOMEM; what was there stays. */
function journal_grow(journal: JournalPtr, bytes: number): number {
  const wanted = Math.ceil(bytes / PAYLOAD);
  if (wanted > JOURNAL_LIMIT_PAGES) return -EFBIG;
  while (Journal.nr_pages.get(journal) < wanted) {
    const page = __get_free_pages(GFP_KERNEL_ACCOUNT, 0);
    if (page === NULL) return -ENOMEM;
    let link = Journal.pages.at(journal);
    for (let i = 0; i < Journal.nr_pages.get(journal); i++) link = JournalPage.next.get(link);
    JournalPage.next.set(page, NULL);
    JournalPage.next.set(link, page);
    Journal.nr_pages.set(journal, Journal.nr_pages.get(journal) + 1);
  }
  return 0;
}

/** Calls `fn` for each piece of the bytes from..to that lies in one page: its address, length, and where it starts. */
function for_each_piece(
  journal: JournalPtr,
  from: number,
  to: number,
  fn: (ptr: Ptr, bytes: number, at: number) => void,
): void {
  let page = Journal.pages.get(journal);
  for (let skip = Math.floor(from / PAYLOAD); skip > 0; skip--) page = JournalPage.next.get(page);
  for (let at = from; at < to; page = JournalPage.next.get(page)) {
    const offset = at % PAYLOAD;
    const bytes = Math.min(PAYLOAD - offset, to - at);
    fn(page + JournalPage.sizeof + offset, bytes, at - from);
    at += bytes;
  }
}

function journal_write(journal: JournalPtr, at: number, bytes: Uint8Array): number {
  const error = journal_grow(journal, at + bytes.length);
  if (error) return error;
  for_each_piece(journal, at, at + bytes.length, (ptr, length, i) =>
    ram_write_bytes(ptr, bytes.subarray(i, i + length)),
  );
  return 0;
}

/** The records that lie at from..to. */
function journal_read(journal: JournalPtr, from: number, to: number): JournalRecord[] {
  const bytes = new Uint8Array(to - from);
  for_each_piece(journal, from, to, (ptr, length, i) => bytes.set(ram_read_bytes(ptr, length), i));
  const words = new Uint32Array(bytes.buffer);
  const records: JournalRecord[] = [];
  for (let at = 0; at < bytes.length;) {
    const [request_hash, length] = [words[at >> 2], words[(at >> 2) + 1]];
    let text = "";
    for (let i = at + RECORD_HEAD; i < at + RECORD_HEAD + length; i++) text += String.fromCharCode(bytes[i]);
    records.push({ request_hash, value: JSON.parse(text) as unknown });
    at += record_size(text);
  }
  return records;
}

/**
 * Ends the call in progress: its result becomes the last record. 0, -EFBIG or -ENOMEM.
 *
 * `request_hash` is that of the request, as `journal_pending_call` returned it.
 */
export function journal_append(journal: JournalPtr, request_hash: number, value: unknown): number {
  const text = encode(value);
  const at = Journal.bytes.get(journal);
  const error = journal_write(journal, at, record_bytes(request_hash, text));
  if (error) return error;
  Journal.pending.set(journal, 0);
  Journal.last.set(journal, at);
  Journal.bytes.set(journal, at + record_size(text));
  Journal.records.set(journal, Journal.records.get(journal) + 1);
  Journal.prev_digest.set(journal, Journal.digest.get(journal));
  Journal.digest.set(journal, Math.imul(Journal.digest.get(journal) ^ request_hash, 0x01000193) ^ hash_text(text));
  return 0;
}

/** Starts the journal of a program that begins: its arguments are all it holds. 0, or an error and nothing is changed. */
export function journal_start(journal: JournalPtr, program: string, args: readonly unknown[]): number {
  const error = journal_grow(journal, record_size(encode(args)));
  if (error) return error;
  for (const field of [Journal.bytes, Journal.pending, Journal.records, Journal.digest]) field.set(journal, 0);
  return journal_append(journal, hash_text(program), args);
}

/** Writes down the call that the program asks for. 0, -EFBIG or -ENOMEM. */
export function journal_begin_call(journal: JournalPtr, request: string): number {
  const bytes = record_bytes(hash_text(request), request);
  const error = journal_write(journal, Journal.bytes.get(journal), bytes);
  if (!error) Journal.pending.set(journal, bytes.length);
  return error;
}

/** The call in progress. */
export function journal_pending_call(journal: JournalPtr): JournalRecord {
  const at = Journal.bytes.get(journal);
  return journal_read(journal, at, at + Journal.pending.get(journal))[0];
}

/** What the program was told last. */
export function journal_last(journal: JournalPtr): JournalRecord {
  return journal_read(journal, Journal.last.get(journal), Journal.bytes.get(journal))[0];
}

/** All records, oldest first. */
export function journal_records(journal: JournalPtr): JournalRecord[] {
  return journal_read(journal, 0, Journal.bytes.get(journal));
}

/** Gives `to`, which is empty, a copy of all that `from` holds. 0 or -ENOMEM. */
export function journal_copy(to: JournalPtr, from: JournalPtr): number {
  const bytes = Journal.bytes.get(from) + Journal.pending.get(from);
  if (bytes === 0) return 0;
  const error = journal_grow(to, bytes);
  if (error) {
    journal_free(to);
    return error;
  }
  let source = Journal.pages.get(from);
  for (let page = Journal.pages.get(to); page !== NULL; page = JournalPage.next.get(page)) {
    ram_copy(page + JournalPage.sizeof, source + JournalPage.sizeof, PAYLOAD);
    source = JournalPage.next.get(source);
  }
  for (const field of [
    Journal.bytes,
    Journal.pending,
    Journal.records,
    Journal.last,
    Journal.digest,
    Journal.prev_digest,
  ])
    field.set(to, field.get(from));
  return 0;
}

/** Frees the pages. */
export function journal_free(journal: JournalPtr): void {
  for (let page = Journal.pages.get(journal); page !== NULL;) {
    const next = JournalPage.next.get(page);
    free_pages(page, 0);
    page = next;
  }
  journal_init(journal);
}

/** Makes an empty journal without pages. Suits a constructor. */
export function journal_init(journal: JournalPtr): void {
  Journal.pages.set(journal, NULL);
  for (const field of [
    Journal.nr_pages,
    Journal.bytes,
    Journal.pending,
    Journal.records,
    Journal.last,
    Journal.digest,
    Journal.prev_digest,
  ])
    field.set(journal, 0);
}
