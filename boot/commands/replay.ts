/** `replay`: drives the booted allocator with a recording of a real kernel's heap, or of a program's mallocs. */
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { read_trace_file } from "../replay/file.ts";
import { list_live, open_mode, run_slice, type Mode } from "../replay/modes.ts";
import { kernel_ops, type ReplayOps } from "../replay/ops.ts";
import { replay_figures, replay_text } from "../replay/report.ts";
import { CommandError, line, parse_count, register, usage_error, type Context, type Result } from "./registry.ts";

/** Event lines between two pauses. */
const SLICE = 4096;
/** The record of what the console holds is kept by address; a replay has none. */
const HELD_AT = -1;
const USAGE = "replay FILE [--objects | --pages | --malloc] [--stop N] [--list]\nreplay --end";

interface Request {
  readonly file: string;
  readonly mode: Mode["name"];
  /** Number of the first event line that is not replayed, from 1; Infinity: none. */
  readonly stop: number;
  readonly list: boolean;
}

function parse_request(args: readonly string[]): Request | "end" {
  const flag = { type: "boolean" } as const;
  const options = {
    objects: flag,
    pages: flag,
    malloc: flag,
    list: flag,
    end: flag,
    stop: { type: "string" },
  } as const;
  const { tokens, values, positionals } = parseArgs({ args: [...args], options, strict: false, tokens: true });
  for (const token of tokens)
    if (token.kind === "option" && !Object.hasOwn(options, token.name))
      throw usage_error({ usage: USAGE }, `replay: no option ${token.rawName}`);
  const modes = (["objects", "pages", "malloc"] as const).filter((mode) => values[mode]);
  if (values.end && args.length === 1) return "end";
  if (values.end || positionals.length !== 1 || modes.length > 1) throw usage_error({ usage: USAGE });
  const { stop } = values;
  const last = stop === undefined ? Infinity : parse_count("replay: --stop", String(stop), 1, Number.MAX_SAFE_INTEGER);
  return { file: positionals[0], mode: modes[0] ?? "objects", stop: last, list: values.list === true };
}

function end_replay(ctx: Context): Result {
  const held = ctx.held.remove(HELD_AT);
  if (!held) throw new CommandError("replay: no stopped replay holds anything");
  held.release();
  return line(`${held.name}: freed`, { freed: held.name });
}

async function replay(ctx: Context, { file, mode: name, stop, list }: Request, ops: ReplayOps): Promise<Result> {
  const held = ctx.held.find(HELD_AT);
  if (held) throw new CommandError(`replay: ${held.name} is still held; replay --end frees it`);
  const mode = open_mode(name, file, read_trace_file(file), ops);
  let ns = 0;
  const slice = (): boolean => {
    const start = performance.now();
    const more = run_slice(mode, SLICE, stop);
    ns += (performance.now() - start) * 1e6;
    if (!more) mode.books.finish();
    return more;
  };
  try {
    while (ctx.entry(slice)) {
      if (ctx.cancelled) mode.reader.fail("cancelled");
      ctx.progress(`${file}: ${mode.reader.events} event lines replayed`);
      await ctx.pause();
    }
  } catch (error) {
    ctx.entry(() => mode.books.release());
    throw error;
  }
  const figures = replay_figures(mode, ns);
  const listed = list ? list_live(mode) : [];
  const text = list ? listed.map((item) => item.join(" ")).join("\n") : replay_text(mode, figures, stop === Infinity);
  const release = (): void => mode.books.release();
  if (stop === Infinity) ctx.entry(release);
  else ctx.held.add({ kind: "replay", name: figures.trace, address: HELD_AT, release });
  return { text, json: list ? { ...figures, list: listed } : figures };
}

/** The command, driving the kernel through `ops`. */
export function replay_command(ops: ReplayOps, ctx: Context, args: readonly string[]): Result | Promise<Result> {
  const request = parse_request(args);
  return request === "end" ? end_replay(ctx) : replay(ctx, request, ops);
}

register({
  name: "replay",
  group: "heap",
  usage: USAGE,
  summary: "drives the allocator with a recorded kernel heap",
  man: `FILE is a #kheap-trace 1 file; or a recording of any Linux kernel's kmem events, the
text of /sys/kernel/tracing/trace or of perf script; or with --malloc a
malloc-lab .rep file; plain or gzip, on the host. This machine's allocator does
what the recorded one did.

  --objects   kmalloc, kfree and named caches, made for the replay (default)
  --pages     blocks of pages
  --malloc    malloc, realloc and free through kmalloc, krealloc and kfree
  --stop N    ends before event line N (the first is 1; header lines do not
              count) and keeps everything live until replay --end
  --list      prints what lives at the end: OBJ ADDR CACHE, or BLOCK ADDR ORDER

Every figure is read off the allocator; where it differs from the lines the
replay fails with FILE:LINE. Each live object carries its number plus 1 in every
8-byte word (pages: in the first word of each). Events run on the recorded CPU
and node where this machine has them.

  replay test/data/traces/fork-shell.trace.gz --stop 60000 --list`,
  run: (ctx, args) => replay_command(kernel_ops, ctx, args),
});
