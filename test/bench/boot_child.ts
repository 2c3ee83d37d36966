/** One boot, measured: `node boot_child.ts 256M` prints one line of JSON. */
import { performance } from "node:perf_hooks";
import { boot } from "../../boot/start_kernel.ts";
import { machine_from_options } from "../../hal/machine.ts";
import type { BootAnswer } from "./boot.ts";

const machine = machine_from_options({ mem: process.argv[2]! });
if (typeof machine === "string") throw new Error(machine);
const rss_loaded = process.memoryUsage.rss();
const begin = performance.now();
boot({ machine, loglevel: 0 });
const end = performance.now();
const answer: BootAnswer = { start_ms: end, boot_ms: end - begin, rss_loaded, rss: process.memoryUsage.rss() };
process.stdout.write(`${JSON.stringify(answer)}\n`);
