#!/usr/bin/env node
/**
 * `npm start -- [options]`, and the command `kheap`: reads the options, settles the realm, loads the kernel, runs.
 */
import { UsageError, parse_options } from "./options.ts";
import { set_realm } from "./realm.ts";

// A reader that went away (`| head`) is no error.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(process.exitCode ?? 0);
  });

try {
  const options = parse_options(process.argv.slice(2));
  if (options) {
    set_realm(options);
    const { run_console } = await import("./console.ts");
    process.exitCode = await run_console(options);
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`kheap: ${error.message}\n`);
  process.exitCode = 2;
}
