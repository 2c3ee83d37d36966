/**
 * The console's grammar: `CMD ARG…` parted by `;`, `&`, `&&` or `||`, quotes, `> FILE`, `>> FILE`, `< FILE`, and `#` comments.
 *
 *     kmem alloc dentry 3; echo "two words" >> /tmp/note; replay FILE &     # the rest is a comment
 *     slab dentry | head && ls / | wc                                        pipelines are for sh (kernel/programs/sh.ts)
 *
 * A `|` in a word is part of it: gfp=GFP_KERNEL|__GFP_DMA; one with a blank on either side is a pipe. Inside "…" and '…' everything stands for itself; a backslash takes the next character as it is.
 */
import { CommandError } from "./commands/registry.ts";

export interface Parsed {
  /** The command as it was typed. */
  readonly text: string;
  readonly words: string[];
  /** Where the answer goes instead of the terminal. */
  readonly to?: { readonly path: string; readonly append: boolean };
  readonly from?: string;
  /** Of a pipeline: the commands in it, and what stands behind the first `|`. */
  readonly pipe?: { readonly names: readonly string[]; readonly rest: string };
  /** Runs only if the command before it succeeded (&&) or failed (||). */
  readonly when?: "&&" | "||";
  /** Ended by `&`. */
  readonly background: boolean;
}

const TOKEN = /\s+|#.*|(;|&&|&|\|\||\||>>|>|<|2>&1|2>)|((?:"[^"]*"|'[^']*'|\\.|[^\s;&|<>"'\\]|(?<=\S)\|(?![\s|]))+)/y;
const ENDS: readonly string[] = [";", "&", "&&", "||"];
/** Only sh knows these. */
const OF_SHELL: readonly string[] = ["|", "2>", "2>&1"];

/** A word without its quotes and backslashes. */
function unquote(word: string): string {
  return word.replace(/"([^"]*)"|'([^']*)'|\\(.)/g, (_, double, single, plain) => double ?? single ?? plain);
}

interface Token {
  readonly at: number;
  readonly end: number;
  readonly operator: string | undefined;
  readonly word: string | undefined;
}

function* tokens(line: string): Generator<Token> {
  for (TOKEN.lastIndex = 0; TOKEN.lastIndex < line.length;) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(line);
    if (!match) throw new CommandError(`${line.slice(at).trim()}: a quote is not closed`);
    if (match[1] !== undefined || match[2] !== undefined)
      yield { at, end: at + match[0].length, operator: match[1], word: match[2] };
  }
}

/** The commands of a line, in order. */
export function parse_line(line: string): Parsed[] {
  const commands: Parsed[] = [];
  let part: Token[] = [];
  let when: "&&" | "||" | undefined;
  const finish = (operator: string): void => {
    const condition = when;
    const joins = operator === "&&" || operator === "||";
    if (part.length === 0 && (operator !== ";" || condition)) throw new CommandError(`${condition ?? operator} stands ${condition ? "before" : "behind"} nothing`); // prettier-ignore
    if (condition && operator === "&")
      throw new CommandError(`${condition} and & do not go together; sh -c '…' & does`);
    if (part.length > 0) commands.push({ ...parse_command(line, part, operator === "&"), ...(condition && { when: condition }) }); // prettier-ignore
    part = [];
    when = joins ? operator : undefined;
  };
  for (const token of tokens(line)) {
    if (ENDS.includes(token.operator ?? "")) finish(token.operator!);
    else part.push(token);
  }
  finish(";");
  return commands;
}

function parse_command(line: string, part: Token[], background: boolean): Parsed {
  const text = line.slice(part[0]!.at, part.at(-1)!.end);
  const at = part.findIndex((token) => token.operator !== undefined);
  const words = part.slice(0, at < 0 ? undefined : at).map((token) => unquote(token.word!));
  if (words.length === 0) throw new CommandError(`${text}: a command is missing`);
  if (part.some(({ operator }) => OF_SHELL.includes(operator ?? "")))
    return { text, words, background, pipe: pipe_of(line, part) };
  const files: { to?: Parsed["to"] & object; from?: string } = {};
  for (let i = at; i >= 0 && i < part.length; i += 2) {
    const [sign, file] = [part[i]!.operator, part[i + 1]?.word];
    if (sign === undefined || file === undefined || (sign === "<" ? files.from : files.to) !== undefined)
      throw new CommandError(`${text}: one file name stands behind ${part[at]!.operator!}`);
    if (sign === "<") files.from = unquote(file);
    else files.to = { path: unquote(file), append: sign === ">>" };
  }
  return { text, words, background, ...files };
}

/** The commands of a pipeline, by their names. */
function pipe_of(line: string, part: Token[]): Parsed["pipe"] & object {
  const bars = part.flatMap(({ operator }, i) => (operator === "|" ? [i] : []));
  const names = [-1, ...bars].map((bar) => unquote(part[bar + 1]?.word ?? ""));
  const first = bars[0] === undefined ? part.length : bars[0] + 1;
  return { names, rest: first < part.length ? line.slice(part[first]!.at, part.at(-1)!.end) : "" };
}
