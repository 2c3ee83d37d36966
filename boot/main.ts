#!/usr/bin/env node
/**
 * `npm start -- [options]`, and the command `kheap`: reads the options, settles the realm, loads the kernel, runs. And
 * `kheap new module NAME`, which needs no kernel.
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
  const argv = process.argv.slice(2);
  const options = argv[0] === "new" ? undefined : parse_options(argv);
  if (argv[0] === "new") process.exitCode = (await import("./new_module.ts")).new_command(argv.slice(1));
  else if (options) {
    set_realm(options);
    const { run_console } = await import("./console.ts");
    process.exitCode = await run_console(options);
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`kheap: ${error.message}\n`);
  process.exitCode = 2;
}
