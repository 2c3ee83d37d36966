/**
 * Reads a trace from the host: whole, plain or gzip, before the first event is replayed. So a damaged file is refused
 * with nothing done, and the pace of the disk cannot change a run.
 */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { CommandError } from "../commands/registry.ts";

/** The bytes of `file`, unpacked; a CommandError that names the file if it cannot be had. */
export function read_trace_file(file: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new CommandError(`${file}: ${code === "ENOENT" ? "no such file" : `cannot be read (${code})`}`);
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return gunzipSync(bytes);
  } catch {
    throw new CommandError(`${file}: damaged gzip data`);
  }
}
