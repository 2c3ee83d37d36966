/** Prints what `npm start` shows first at a terminal, from a process of its own: nothing but the kernel is loaded. */
import { first_screen, watch_boot } from "../../boot/first_screen.ts";
import { parse_options } from "../../boot/options.ts";
import { boot } from "../../boot/start_kernel.ts";
import "../../boot/session.ts";
import { console_attach } from "../../hal/console.ts";
import { PRESETS } from "../../hal/machine.ts";

const write = (text: string): void => void process.stdout.write(text);
const screen = first_screen(parse_options([])!, PRESETS.textbook!, write);
const witness = watch_boot();
write(screen.title());
console_attach(screen.log_line);
boot({ machine: PRESETS.textbook! });
write(screen.summary(witness()));
