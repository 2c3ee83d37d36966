/** A console that stays open between lines, for tests that look at RAM in between; it must close without a leak. */
import { expect } from "vitest";
import type { MemoryMap } from "../../boot/figures/map.ts";
import { find_command, type Result } from "../../boot/commands/registry.ts";
import { boot, type BootOptions } from "../../boot/start_kernel.ts";
import { create_session } from "../../boot/session.ts";
import { console_attach } from "../../hal/console.ts";
import { PRESETS } from "../../hal/machine.ts";
import { validate_mm } from "../../mm/validate.ts";

export interface HeapConsole {
  /** Runs one line that must succeed; its text without the last newline. */
  text(line: string): Promise<string>;
  /** Runs one command with --json; its value, errors as { error }. */
  json<T>(command: string): Promise<T>;
  /** The answer of a command that reads, while the machine stands still. */
  still(command: string): Result;
  /** Runs a line that must fail in one line, do nothing and leave everything valid; that line. */
  refused(line: string): Promise<string>;
}

/** Boots (the `textbook` machine by default), runs `use` on its console, powers off; nothing may be left over. */
export async function with_console(
  options: Partial<BootOptions> & { answers?: string[] },
  use: (console: HeapConsole) => Promise<void>,
): Promise<void> {
  let [out, err] = ["", ""];
  const session_out = (): string => {
    const text = out;
    out = "";
    return text;
  };
  const attached = console_attach(() => {});
  boot({ machine: PRESETS.textbook!, loglevel: 0, ...options });
  const session = create_session({
    terminal: options.answers !== undefined,
    json: false,
    width: () => 80,
    height: () => 24,
    write: (text) => void (out += text),
    write_error: (text) => void (err += text),
    ask: () => Promise.resolve(options.answers?.shift()),
    watching: () => {},
  });
  const run = async (line: string): Promise<string> => {
    err = "";
    session_out();
    await session.run(line);
    return session_out().replace(/\n$/, "");
  };
  try {
    await use({
      async text(line) {
        const text = await run(line);
        expect(err, line).toBe("");
        return text;
      },
      still(line) {
        const [name, ...args] = line.split(" ");
        const ctx = { cpu: 0, json: false, held: { list: () => [], find: () => undefined } };
        return session.entry(() => find_command(name!)!.run(ctx as never, args)) as Result;
      },
      json: async (command) => JSON.parse(await run(`${command} --json`)),
      async refused(line) {
        // Pages that move between the buddy allocator and a CPU are the machine's own doing: time goes on.
        const state = async (): Promise<string> => {
          const { pages } = JSON.parse(await run("map --json")) as MemoryMap;
          return `${pages.buddy! + pages.pcp!} pages free; ${await run("slabtop --json")}`;
        };
        const before = await state();
        expect(await run(line), line).toBe("");
        expect(err, line).toMatch(/^[^\n]+\n$/);
        const message = err.trimEnd();
        expect(await state(), line).toBe(before);
        expect(session.entry(validate_mm), line).toEqual([]);
        return message;
      },
    });
    expect(session.entry(validate_mm)).toEqual([]);
  } finally {
    await session.leave();
    console_attach(attached);
  }
  expect(session_out()).toMatch(/power off: 0 pages, 0 objects, 0 locks left over\n$/);
}
