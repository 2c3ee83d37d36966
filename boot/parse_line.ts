/**
 * The console's grammar: `CMD ARG…` parted by `;` or `&`, quotes, `> FILE`, `>> FILE`, and `#` comments.
 *
 *     kmem alloc dentry 3; echo "two words" >> /tmp/note; replay FILE &     # the rest is a comment
 *
 * Inside "…" and '…' everything stands for itself; a backslash takes the next character as it is.
 */
import { CommandError } from "./commands/registry.ts";

export interface Parsed {
  /** The command as it was typed. */
  readonly text: string;
  readonly words: string[];
  /** Where the answer goes instead of the terminal. */
  readonly to?: { readonly path: string; readonly append: boolean };
  /** Ended by `&`. */
  readonly background: boolean;
}

const TOKEN = /\s+|#.*|(;|&|>>|>)|((?:"[^"]*"|'[^']*'|\\.|[^\s;&>"'\\])+)/y;

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
  const finish = (background: boolean): void => {
    if (part.length > 0) commands.push(parse_command(line, part, background));
    else if (background) throw new CommandError("& stands behind nothing");
    part = [];
  };
  for (const token of tokens(line)) {
    if (token.operator === ";" || token.operator === "&") finish(token.operator === "&");
    else part.push(token);
  }
  finish(false);
  return commands;
}

function parse_command(line: string, part: Token[], background: boolean): Parsed {
  const text = line.slice(part[0]!.at, part.at(-1)!.end);
  const at = part.findIndex((token) => token.operator !== undefined);
  const words = part.slice(0, at < 0 ? undefined : at).map((token) => unquote(token.word!));
  if (words.length === 0) throw new CommandError(`${text}: a command is missing`);
  if (at < 0) return { text, words, background };
  const [sign, path, ...rest] = part.slice(at);
  if (!path?.word || rest.length > 0) throw new CommandError(`${text}: one file name stands behind ${sign!.operator}`);
  return { text, words, background, to: { path: unquote(path.word), append: sign!.operator === ">>" } };
}
