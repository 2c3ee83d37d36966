/** A realm with a console: a worker that boots or attaches as its job says, runs lines, and answers what they print. */
import { parentPort, workerData } from "node:worker_threads";
import { console_attach } from "../../hal/console.ts";
import { attach } from "../../boot/attach.ts";
import { create_session } from "../../boot/session.ts";
import { boot } from "../../boot/start_kernel.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";

export interface ConsoleJob {
  readonly boots: boolean;
  readonly lines: readonly string[];
  /** Powers off afterwards. */
  readonly ends: boolean;
}

async function run({ boots, lines, ends }: ConsoleJob): Promise<string> {
  let out = "";
  const write = (text: string): void => void (out += text);
  console_attach(() => {});
  if (boots) boot({ machine: TEST_MACHINE, garbage: garbage(1), loglevel: 0 });
  else attach(TEST_MACHINE);
  const session = create_session({
    terminal: false,
    json: false,
    width: () => 80,
    height: () => 24,
    write,
    write_error: write,
    write_status: () => {},
    ask: () => Promise.resolve(undefined),
    watching: () => {},
  });
  for (const line of lines) await session.run(line);
  if (ends) await session.leave();
  return out;
}

void run((workerData as { job: ConsoleJob }).job).then((out) => parentPort!.postMessage(out));
