/** The first screen, as at a terminal, made in this realm. */
import { expect } from "vitest";
import { TEST_MACHINE } from "../lib/machine.ts";
import { first_screen, watch_boot } from "../../boot/first_screen.ts";
import { parse_options } from "../../boot/options.ts";
import { boot, power_off } from "../../boot/start_kernel.ts";
import { console_attach } from "../../hal/console.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { find_cache, get_slabinfo } from "../../mm/slab_common.ts";

/** Boots as at a terminal; the screen's lines, and dmesg's. */
export function screen_of(argv: string[], machine = TEST_MACHINE): { screen: string[]; log: string[]; live: number[] } {
  const options = parse_options(argv)!;
  let out = "";
  const screen = first_screen(options, machine, (text) => void (out += text));
  const witness = watch_boot();
  out += screen.title();
  const before = console_attach(screen.log_line);
  boot({ machine, seed: options.seed, append: options.append, loglevel: options.verbose ? 7 : 6 });
  out += screen.summary(witness());
  console_attach(before);
  const log = [...printk_records()].map(({ line }) => line);
  const live = ["dentry", "inode_cache", "task_struct"].map((name) => get_slabinfo(find_cache(name)).live_objs);
  expect(power_off().details).toEqual([]);
  return { screen: out.split("\n"), log, live };
}
