/**
 * The console on a terminal: line editing, history, completion (node:readline), Ctrl-C and Ctrl-D.
 *
 * While a command runs, what is typed is kept and not shown, and appears at the next prompt. Ctrl-C asks the command to
 * end; at the prompt it clears the line, and twice on an empty one it powers off, as Ctrl-D does. `q` ends a `--watch`.
 */
import { createInterface, type Interface } from "node:readline";
import { Writable } from "node:stream";
import { complete_line } from "./complete.ts";
import type { Host, Session } from "./session.ts";

const PROMPT = "kheap# ";

interface Terminal {
  readonly host: Host;
  /** The next line; undefined once there are no more. */
  next_line(prompt: string): Promise<string | undefined>;
  start(session: Session): Interface;
}

/** The host's side of a session at this process's terminal. */
export function terminal_host(json: boolean): Terminal {
  const waiting: string[] = [];
  let [muted, watching, closed, warned] = [true, false, false, false];
  let deliver: ((line: string | undefined) => void) | undefined;
  let editor: Interface | undefined;

  /** What readline draws; a command's own output does not pass here. */
  const output = Object.assign(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        if (!muted) process.stdout.write(chunk);
        done();
      },
    }),
    { columns: process.stdout.columns },
  );
  process.stdout.on("resize", () => {
    output.columns = process.stdout.columns;
    output.emit("resize");
  });

  function give(line: string | undefined): void {
    const to = deliver;
    deliver = undefined;
    warned = false;
    muted = true;
    if (to) to(line);
    else if (line !== undefined) waiting.push(line);
  }

  async function next_line(prompt: string): Promise<string | undefined> {
    if (waiting.length > 0 || closed) return waiting.shift();
    muted = false;
    editor!.setPrompt(prompt);
    editor!.prompt();
    return new Promise((resolve) => (deliver = resolve));
  }

  function clear_line(): void {
    editor!.write(null, { ctrl: true, name: "e" });
    editor!.write(null, { ctrl: true, name: "u" });
  }

  function interrupt(session: Session): void {
    if (session.cancel()) {
      clear_line();
      if (deliver) process.stdout.write("\n");
      give(undefined);
    } else if (editor!.line !== "" || !warned) {
      warned = editor!.line === "";
      process.stdout.write(warned ? "^C (again, Ctrl-D or poweroff: power off)\n" : "^C\n");
      clear_line();
      editor!.prompt();
    } else editor!.close();
  }

  function start(session: Session): Interface {
    const completer = (line: string): [string[], string] => complete_line(session, line);
    editor = createInterface({ input: process.stdin, output, terminal: true, completer, historySize: 500 });
    editor.on("line", give).on("SIGINT", () => interrupt(session));
    editor.on("close", () => {
      closed = true;
      if (deliver) process.stdout.write("\n");
      session.cancel();
      give(undefined);
    });
    process.stdin.on("keypress", (_text, key: { name?: string } | undefined) => {
      if (!watching || key?.name !== "q") return;
      session.cancel();
      clear_line();
    });
    return editor;
  }

  const host: Host = {
    terminal: true,
    json,
    width: () => process.stdout.columns || 80,
    height: () => process.stdout.rows || 24,
    write: (text) => void process.stdout.write(text),
    write_error: (text) => void process.stderr.write(text),
    write_status: (text) => void process.stdout.write(text),
    ask: next_line,
    watching: (on) => void (watching = on),
  };
  return { host, next_line, start };
}

/** Reads and runs lines until power-off or the end of the input. */
export async function run_terminal(terminal: Terminal, session: Session): Promise<void> {
  const editor = terminal.start(session);
  while (!session.ended()) {
    const line = await terminal.next_line(PROMPT);
    if (line === undefined) break;
    await session.run(line);
  }
  editor.close();
}
