/** Runs the console for a test: in this realm on a small machine, or as a process of its own as a user starts it. */
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect } from "vitest";
import { console_attach } from "../../hal/console.ts";
import { create_session, type Host } from "../../boot/session.ts";
import { boot, type BootOptions } from "../../boot/start_kernel.ts";
import { validate_mm } from "../../mm/validate.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";

export interface Ran {
  /** What went to standard output; without the boot log and, unless a line powered off, without power-off's words. */
  readonly out: string;
  readonly err: string;
  readonly failed: boolean;
}

/** Boots a small machine full of garbage, runs lines, powers off; nothing may be left over. */
export async function console_run(
  lines: readonly string[],
  options: Partial<BootOptions> & { json?: boolean } = {},
): Promise<Ran> {
  let [out, err] = ["", ""];
  const host: Host = {
    terminal: false,
    json: options.json ?? false,
    width: () => 80,
    height: () => 24,
    write: (text) => void (out += text),
    write_error: (text) => void (err += text),
    ask: () => Promise.resolve(undefined),
    watching: () => {},
  };
  const before = console_attach(() => {});
  boot({ machine: TEST_MACHINE, garbage: garbage(7), loglevel: 0, ...options });
  const session = create_session(host);
  for (const line of lines) await session.run(line);
  if (!session.ended()) expect(session.entry(validate_mm)).toEqual([]);
  const ended_before = session.ended();
  await session.leave();
  console_attach(before);
  expect(ended_before || options.json ? out + err : out).toMatch(
    /"pages":0,"objects":0,"locks":0|power off: 0 pages, 0 objects, 0 locks left over\n$/,
  );
  if (!ended_before) out = out.replace(/(.*held by the console.*\n)?power off: .*\n$/, "");
  return { out, err, failed: session.failed() };
}

/** Runs one line that must succeed, and returns what it prints. */
export async function answer(line: string, options: Partial<BootOptions> = {}): Promise<string> {
  const { out, err } = await console_run([line], options);
  expect(err).toBe("");
  return out;
}

const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const main = fileURLToPath(new URL("../../boot/main.ts", import.meta.url));

export interface Process {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** `kheap ARGS…` as a process. */
export function kheap(
  args: readonly string[],
  options: { input?: string; env?: Record<string, string>; cwd?: string } = {},
): Process {
  const env = { ...process.env, ...options.env };
  const child = spawnSync(process.execPath, ["--import", tsx, main, ...args], {
    input: options.input ?? "",
    encoding: "utf8",
    cwd: options.cwd,
    env,
  });
  return { status: child.status, out: child.stdout, err: child.stderr };
}
