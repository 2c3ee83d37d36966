/**
 * Runs a program of the machine for the console: starts it as a child of init, lets the machine run until it has ended, and
 * takes what it writes.
 *
 *     standard input    `< FILE`, or a pipe with the given text in it, at first as much as it holds; then its end
 *     standard output   `> FILE`, or a pipe that the console empties as it fills; the answer
 *     standard error    such a pipe; what the program complains of
 *
 * The console's ends of the pipes are open files like any other, but no task has them, so the console never sleeps. Whatever
 * a program writes is taken before anything else runs: its output does not let time pass. Ctrl-C sends SIGINT to the
 * program and all that descends from it.
 */
import type { CpuId } from "../hal/addr.ts";
import { events } from "../hal/events.ts";
import { bytes_of, bytes_to_string, utf8_decode, utf8_encode } from "../kernel/fs/bytes.ts";
import { fput } from "../kernel/fs/file_table.ts";
import { O_RDONLY, type FilePtr } from "../kernel/fs/fs.ts";
import { file_read, file_write } from "../kernel/fs/open.ts";
import { PIPE_BUF, PIPE_DEF_BUFFERS, create_pipe_files, pipe_bytes } from "../kernel/fs/pipe.ts";
import { EAGAIN, is_err, strerror } from "../kernel/lib/errno.ts";
import { find_task_by_pid } from "../kernel/pid.ts";
import { spawn } from "../kernel/program.ts";
import { SIGINT, SIGKILL, do_kill } from "../kernel/signal.ts";
import { TaskStruct, for_each_child, type TaskPtr } from "../kernel/task.ts";
import { CommandError, type Context, type Redirection } from "./commands/registry.ts";
import { open_file, open_for_answer } from "./host_files.ts";

/** Kernel entries between two looks at Ctrl-C. */
const SLICE = 200;
const PIPE_BYTES = PIPE_DEF_BUFFERS * PIPE_BUF;
/** An answer is at most so long; then nobody reads on, and the program ends by SIGPIPE. */
const MOST_OUTPUT = 64 << 20;

export interface Ended {
  /** As wait() tells it: status << 8, or a signal. */
  readonly status: number;
  readonly output: string;
  readonly errors: string;
}

/** What the console holds while a program runs. */
interface Pipes {
  /** Files 0, 1, 2 of the program. */
  readonly theirs: FilePtr[];
  input: FilePtr | undefined;
  output: FilePtr | undefined;
  readonly errors: FilePtr;
}

function make_pipe(): readonly [FilePtr, FilePtr] {
  const ends = create_pipe_files();
  if (typeof ends === "number") throw new CommandError(`console: a pipe: ${strerror(ends)}`);
  return ends;
}

/** Opens everything, or nothing and throws. */
function open_pipes({ from, to }: Redirection): Pipes {
  const opened: FilePtr[] = [];
  const keep = <T extends readonly FilePtr[]>(files: T): T => {
    opened.push(...files);
    return files;
  };
  try {
    const [input, give] = from === undefined ? keep(make_pipe()) : keep([open_file(from, O_RDONLY)]);
    const [take, output] =
      to === undefined ? keep(make_pipe()) : keep([undefined, open_for_answer(to.path, to.append)] as never);
    const [complaints, errors] = keep(make_pipe());
    return { theirs: [input!, output!, errors], input: give, output: take, errors: complaints };
  } catch (error) {
    for (const file of opened) if (file) fput(file);
    throw error;
  }
}

/** Puts more of the text into the pipe; the rest. Closes the pipe when there is none. */
function feed(pipes: Pipes, text: Uint8Array): Uint8Array {
  if (pipes.input === undefined) return text;
  const room = PIPE_BYTES - pipe_bytes(pipes.input);
  const written = text.length > 0 && room > 0 ? file_write(pipes.input, text) : 0;
  const rest = text.subarray(Math.max(written, 0));
  const is_alone = is_err(written) && written !== -EAGAIN;
  if (rest.length > 0 && !is_alone) return rest;
  fput(pipes.input);
  pipes.input = undefined;
  return new Uint8Array();
}

function drain(file: FilePtr | undefined): string {
  const bytes = file === undefined || pipe_bytes(file) === 0 ? 0 : file_read(file, PIPE_BYTES);
  return typeof bytes === "number" ? "" : bytes_to_string(bytes);
}

/** A task and all that descends from it, by pid. */
function tree_of(task: TaskPtr): number[] {
  return [TaskStruct.pid.get(task), ...[...for_each_child(task)].flatMap(tree_of)];
}

/** Starts `path` with arguments and waits for its end. Throws CommandError if it cannot be started. Not in an entry. */
export async function run_program(
  ctx: Context,
  path: string,
  args: readonly string[],
  redirection: Redirection = {},
): Promise<Ended> {
  await Promise.resolve(); // a step of its own: the command's entry has ended
  const exits = new Map<number, number>();
  const on_exit = ({ pid, code }: { pid: number; code: number }): void => void exits.set(pid, code);
  const pipes = ctx.entry(() => open_pipes(redirection));
  events.on("task:exit", on_exit);
  let text = bytes_of(utf8_encode(redirection.input ?? ""));
  try {
    const pid = ctx.entry(() => start(path, args, pipes, ctx.cpu));
    let [output, errors] = ["", ""];
    let waits_for = [pid];
    const has_ended = (): boolean => waits_for.every((each) => exits.has(each));
    const wants_attention = (): boolean =>
      has_ended() || pipe_bytes(pipes.errors) > 0 || (pipes.output !== undefined && pipe_bytes(pipes.output) > 0);
    for (let interrupted = false; ;) {
      ctx.entry(() => {
        text = feed(pipes, text);
        output += drain(pipes.output);
        errors += drain(pipes.errors);
        if (output.length > MOST_OUTPUT) {
          fput(pipes.output!);
          pipes.output = undefined;
          output = "";
          errors += `more than ${MOST_OUTPUT >> 20} MiB of output; > FILE or | head\n`;
        }
        if (!ctx.cancelled || interrupted || exits.has(pid)) return;
        interrupted = true;
        waits_for = tree_of(find_task_by_pid(pid)).filter((each) => do_kill(each, SIGINT) === 0 && !exits.has(each));
      });
      if (has_ended()) break;
      if ((await ctx.control.run_until(wants_attention, SLICE)) > 0 || wants_attention()) continue;
      if (ctx.cancelled && !interrupted) continue;
      ctx.entry(() => do_kill(pid, SIGKILL));
      errors += "it waits for something that never comes\n";
    }
    return { status: exits.get(pid)!, output: utf8_decode(output), errors: utf8_decode(errors) };
  } finally {
    events.off("task:exit", on_exit);
    ctx.entry(() => close_pipes(pipes));
  }
}

function start(path: string, args: readonly string[], pipes: Pipes, cpu: CpuId): number {
  const bytes = args.map(utf8_encode);
  const task = spawn(find_task_by_pid(1), utf8_encode(path), bytes, { files: pipes.theirs, cpu });
  if (is_err(task)) throw new CommandError(`${path.replace(/^\/bin\//, "")}: ${strerror(task)}`);
  for (const file of pipes.theirs.splice(0)) fput(file);
  return TaskStruct.pid.get(task);
}

function close_pipes({ theirs, input, output, errors }: Pipes): void {
  for (const file of [...theirs, input, output, errors]) if (file !== undefined) fput(file);
}

/** What a program's end means for the console: its output, or a CommandError with what it complained of. */
export function answer_of(ctx: Context, name: string, { status, output, errors }: Ended): string {
  const complaint = errors.replace(/\n$/, "");
  if (status === 0) {
    if (complaint !== "") ctx.warn(complaint);
    return output;
  }
  if (output !== "") ctx.print(output.replace(/\n$/, ""));
  const ending = status & 0x7f ? `${name}: ended by signal ${status & 0x7f}` : `${name}: status ${status >> 8}`;
  throw new CommandError(
    complaint === "" || status & 0x7f ? [complaint, ending].filter(Boolean).join("\n") : complaint,
  );
}
