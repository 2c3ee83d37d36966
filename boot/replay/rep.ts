/**
 * Reads a malloc-lab `.rep` file, leniently, since such files are found in many places: any line ends, blank lines, a
 * header that does not match the requests. What makes no sense at all ends it with `FILE:LINE: what`.
 */
import { CommandError } from "../commands/registry.ts";

const REQUEST = /^(?:([ar])\s+(\d+)\s+(\d+)|(f)\s+(-1|\d+))$/;

export class Rep {
  line = 0;
  events = 0;
  readonly ops: Record<string, number> = { a: 0, r: 0, f: 0 };
  // The request read last.
  op = "";
  id = 0;
  bytes = 0;

  readonly file: string;
  private readonly lines: string[];

  constructor(file: string, bytes: Uint8Array) {
    this.file = file;
    this.lines = Buffer.from(bytes).toString("latin1").split(/\r\n|\n|\r/); // prettier-ignore
    for (let i = 1; i <= 4; i++)
      if (!/^\d+$/.test(this.next_line() ?? "")) this.fail(`header line ${i} of 4 is no number`);
  }

  fail(what: string): never {
    throw new CommandError(`${this.file}:${this.line}: ${what}`);
  }

  /** The next line that is not blank. */
  private next_line(): string | undefined {
    while (this.line < this.lines.length) {
      const text = this.lines[this.line++].trim();
      if (text) return text;
    }
    return undefined;
  }

  /** Reads the next request; false at the end of the file. */
  next(): boolean {
    const text = this.next_line();
    if (text === undefined) return false;
    const [, op = "f", id, bytes = "0", , freed] =
      REQUEST.exec(text) ?? this.fail(`"${text.slice(0, 40)}" is no request`);
    this.op = op;
    this.id = Number(id ?? freed);
    this.bytes = Number(bytes);
    if (this.id > 0x7ffffffe || this.bytes > 0x7fffffff) this.fail(`"${text.slice(0, 40)}" is out of range`);
    this.events++;
    this.ops[op]++;
    return true;
  }
}
