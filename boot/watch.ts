/**
 * `--watch [s]` and `--count n`, which every command that reads takes: the answer again and again, `s` seconds (default
 * 2) of the machine's own time apart.
 *
 * On a terminal the answer is redrawn in place, the host waits as long too, and q or Ctrl-C ends it, or the nth answer.
 * Elsewhere nobody looks at a clock: n answers (default 3) follow one another without waiting, parted by an empty line.
 */
import { CommandError, parse_count, type Result } from "./commands/registry.ts";

export interface Watch {
  readonly seconds: number;
  /** Answers in all; undefined: until a key is pressed. */
  readonly count: number | undefined;
}

const DEFAULT_SECONDS = 2;
const DEFAULT_COUNT = 3;

/** Takes `--watch [s]` and `--count n` out of arguments; a `--watch` before another word is the command's own. */
export function take_watch(args: readonly string[]): { args: string[]; watch: Watch | undefined } {
  const at = args.indexOf("--watch");
  const next = args[at + 1];
  const is_number = next !== undefined && /^[\d.]+$/.test(next);
  if (at < 0 || !(next === undefined || is_number || next.startsWith("--")))
    return { args: [...args], watch: undefined };
  const rest = [...args];
  rest.splice(at, is_number ? 2 : 1);
  const seconds = is_number ? Number(next) : DEFAULT_SECONDS;
  if (!(seconds >= 0.1 && seconds <= 3600))
    throw new CommandError(`--watch ${next}: give a number of seconds from 0.1 to 3600`);
  const count_at = rest.indexOf("--count");
  if (count_at < 0) return { args: rest, watch: { seconds, count: undefined } };
  const count = parse_count("--count", rest[count_at + 1], 1, 100000);
  rest.splice(count_at, 2);
  return { args: rest, watch: { seconds, count } };
}

export interface WatchHost {
  readonly terminal: boolean;
  readonly json: boolean;
  height(): number;
  write(text: string): void;
  cancelled(): boolean;
  sleep(seconds: number): Promise<void>;
  /** Lets so much of the machine's time pass. */
  turn(seconds: number): Promise<void>;
}

/** One frame over the one before: from the top left corner, each line cut off from what stood there. */
function frame(title: string, text: string, height: number): string {
  const lines = [title, "", ...text.split("\n")].slice(0, height - 1);
  return `\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`;
}

/** Draws until the count is reached or somebody cancels. */
export async function run_watch(
  host: WatchHost,
  title: string,
  watch: Watch,
  read: () => Promise<Result>,
): Promise<void> {
  const in_place = host.terminal && !host.json;
  const count = watch.count ?? (host.terminal ? Infinity : DEFAULT_COUNT);
  if (in_place) host.write("\x1b[2J");
  for (let n = 1; ; n++) {
    const { text, json } = await read();
    if (host.json) host.write(`${JSON.stringify(json)}\n`);
    else if (in_place) host.write(frame(`every ${watch.seconds} s: ${title}   (q ends)`, text, host.height()));
    else host.write(`${n > 1 ? "\n" : ""}${text}\n`);
    if (n >= count) return;
    if (host.terminal) await host.sleep(watch.seconds);
    if (host.cancelled()) return;
    await host.turn(watch.seconds);
  }
}
