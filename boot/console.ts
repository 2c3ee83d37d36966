/**
 * The console: boots the machine that the options ask for, then reads commands from a terminal, a pipe, `--exec` or
 * `--script`, and powers off.
 *
 * Exit status: 0 all commands succeeded (at a terminal: always), 1 one of them failed or Ctrl-C ended the run,
 * 3 the kernel panicked. Wrong usage (2) is thrown as UsageError. With --json, standard output carries answers only;
 * what the kernel says goes to standard error.
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { console_attach } from "../hal/console.ts";
import type { MachineSpec } from "../hal/machine.ts";
import { KERN_DEBUG, KERN_NOTICE } from "../kernel/lib/printk.ts";
import { boot } from "./start_kernel.ts";
import { first_screen, watch_boot } from "./first_screen.ts";
import { machine_of } from "./machine_option.ts";
import { UsageError, type Options } from "./options.ts";
import { create_session, type Host, type Session } from "./session.ts";
import { run_terminal, terminal_host } from "./terminal.ts";

/** Boots and runs until power-off. Returns the exit status. */
export async function run_console(options: Options): Promise<number> {
  const machine = machine_of(options);
  const script = options.script === undefined ? undefined : read_script(options.script);
  const lines = options.exec === undefined ? script : [options.exec];
  const at_terminal = lines === undefined && process.stdin.isTTY && process.stdout.isTTY;
  try {
    return at_terminal ? await interactive(options, machine) : await batch(options, machine, lines ?? stdin_lines());
  } catch (error) {
    if (error instanceof UsageError) throw error;
    process.stderr.write(`${panic_text(error)}\n`);
    return 3;
  }
}

function read_script(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n");
  } catch (error) {
    throw new UsageError(`--script ${path}: ${(error as NodeJS.ErrnoException).code ?? "cannot be read"}`);
  }
}

/** The machine has stopped: Linux's last words. What is no panic is a mistake of ours and shows where it was made. */
function panic_text(error: unknown): string {
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  const text = `Kernel panic - not syncing: ${message}\n---[ end Kernel panic - not syncing: ${message} ]---`;
  return name === "KernelPanic" || name === "KernelBug" ? text : `${text}\n${stack ?? ""}`;
}

function stdin_lines(): AsyncIterable<string> {
  return createInterface({ input: process.stdin, crlfDelay: Infinity });
}

function boot_with(options: Options, machine: MachineSpec): void {
  const loglevel = options.verbose ? KERN_DEBUG : KERN_NOTICE + 1;
  boot({ machine, seed: options.seed, append: options.append, loglevel });
}

/** The kernel's own words go to `write`, but for the panic's, which are printed last of all. */
function attach_console(write: (text: string) => void): void {
  console_attach((text) => void (text.includes("Kernel panic - not syncing") || write(text)));
}

async function batch(
  options: Options,
  machine: MachineSpec,
  lines: Iterable<string> | AsyncIterable<string>,
): Promise<number> {
  const host: Host = {
    terminal: false,
    json: options.json,
    width: () => 80,
    height: () => 24,
    write: (text) => void process.stdout.write(text),
    write_error: (text) => void process.stderr.write(text),
    ...(process.stderr.isTTY && { write_status: (text: string) => void process.stderr.write(text) }),
    ask: () => Promise.resolve(undefined),
    watching: () => {},
  };
  const say = options.json ? host.write_error : host.write;
  attach_console(options.quiet ? () => {} : say);
  boot_with(options, machine);
  attach_console(say);
  const session = create_session(host);
  const interrupted = on_interrupt(session);
  for await (const line of lines) {
    await session.run(line);
    if (session.ended() || interrupted.aborted) break;
  }
  await session.leave();
  return session.failed() || interrupted.aborted ? 1 : 0;
}

/** Ctrl-C ends the command under way, and the run. */
function on_interrupt(session: Session): AbortSignal {
  const controller = new AbortController();
  const interrupt = (): void => {
    session.cancel();
    controller.abort();
    process.stdin.destroy();
  };
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  return controller.signal;
}

async function interactive(options: Options, machine: MachineSpec): Promise<number> {
  const write = (text: string): void => void process.stdout.write(text);
  const screen = first_screen(options, machine, write);
  const witness = watch_boot();
  if (!options.quiet) write(screen.title());
  attach_console(options.quiet ? () => {} : screen.log_line);
  try {
    boot_with(options, machine);
  } catch (error) {
    screen.flush();
    throw error;
  }
  const seen = witness();
  if (!options.quiet) write(screen.summary(seen));
  const terminal = terminal_host(options.json);
  attach_console(terminal.host.write);
  const session = create_session(terminal.host);
  await run_terminal(terminal, session);
  await session.leave();
  return 0;
}
