/**
 * Files of the machine as the console itself uses them: where an answer goes (`> FILE`), and what Tab completes.
 *
 * The console is outside the kernel, so it opens files as the kernel itself would (kernel/fs/open.ts), without a table of
 * descriptors. The commands about files are programs in /bin.
 */
import { is_err, strerror } from "../kernel/lib/errno.ts";
import { bytes_of, utf8_decode, utf8_encode } from "../kernel/fs/bytes.ts";
import {
  O_APPEND, O_CREAT, O_DIRECTORY, O_RDONLY, O_TRUNC, O_WRONLY, S_IFDIR, type Dirent, type FilePtr,
} from "../kernel/fs/fs.ts"; // prettier-ignore
import { fput } from "../kernel/fs/file_table.ts";
import { do_filp_open, file_write, iterate_dir } from "../kernel/fs/open.ts";
import { CommandError } from "./commands/registry.ts";

const FILE_MODE = 0o644;

/** Throws what a path operation answered, unless that is no error. */
function check<T>(command: string, path: string, result: T | number): T {
  if (typeof result === "number" && is_err(result)) throw new CommandError(`${command}: ${path}: ${strerror(result)}`);
  return result as T;
}

/** Opens a file; the caller ends its use. Context: a kernel entry. */
export function open_file(path: string, flags: number, command = "console"): FilePtr {
  return check(command, path, do_filp_open(utf8_encode(path), flags, FILE_MODE));
}

/** Opens a file to write an answer into, anew or behind what it has. Context: a kernel entry. */
export function open_for_answer(path: string, append: boolean, command?: string): FilePtr {
  return open_file(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC), command);
}

/** Runs `fn` with an open file. */
function with_file<T>(file: FilePtr, fn: (file: FilePtr) => T): T {
  try {
    return fn(file);
  } finally {
    fput(file);
  }
}

/** Writes a file anew, or behind what it has. Context: a kernel entry. */
export function write_file(path: string, text: string, append: boolean, command = "console"): void {
  const bytes = bytes_of(utf8_encode(text));
  with_file(open_for_answer(path, append, command), (file) => {
    for (let done = 0; done < bytes.length;) {
      const written = check(command, path, file_write(file, bytes.subarray(done)));
      if (written === 0) throw new CommandError(`${command}: ${path}: nothing more could be written`);
      done += written;
    }
  });
}

/** The entries of a folder, by name. Context: a kernel entry. */
export function list_directory(path: string, command = "console"): { name: string; is_directory: boolean }[] {
  const entries = with_file(open_file(path, O_RDONLY | O_DIRECTORY, command), (file) =>
    check(command, path, iterate_dir(file)),
  );
  return (entries as Dirent[])
    .map(({ name, type }) => ({ name: utf8_decode(name), is_directory: type === S_IFDIR }))
    .sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}
