/**
 * /sys/kernel/debug/extfrag: how far free memory is in pieces too small for a block of each order.
 *
 *     unusable_index   what part of the free pages such a block cannot come from: 0 none, 1 all
 *     extfrag_index    why it would fail: near 0 for lack of memory, near 1 for pieces; -1: it would not
 *
 * Unlike Linux: debugfs is no file system of its own here but a directory of sysfs.
 */
import { fragmentation_index } from "../../mm/compaction.ts";
import { FreeArea, NR_PAGE_ORDERS, Zone, for_each_populated_zone, type ZonePtr } from "../../mm/zone.ts";
import { ksym } from "../lib/ksym.ts";
import { file_mode } from "./kernfs.ts";
import { lpad } from "./seq_file.ts";
import { sysfs_create } from "./sysfs.ts";

/** Thousandths of a zone's free pages that lie in blocks below an order; 1000 where nothing is free. */
function unusable_free_index(zone: ZonePtr, order: number): number {
  let [free, suitable] = [0, 0];
  for (let at = 0; at < NR_PAGE_ORDERS; at++) {
    const pages = FreeArea.nr_free.get(Zone.free_area.at(zone, at)) << at;
    free += pages;
    if (at >= order) suitable += pages;
  }
  return free === 0 ? 1000 : Math.floor(((free - suitable) * 1000) / free);
}

/** `%03d` */
const decimals = (n: number): string => (n < 0 ? `-${String(-n).padStart(2, "0")}` : String(n).padStart(3, "0"));

/** A line a zone: the index of each order, with three decimals, as C divides and takes remainders (-500: `0.-500`). */
const table = (width: number, index: (zone: ZonePtr, order: number) => number) => (): string => {
  const cell = (value: number): string => `${lpad(Math.trunc(value / 1000), width)}.${decimals(value % 1000)} `;
  let text = "";
  for (const zone of for_each_populated_zone()) {
    const orders = Array.from({ length: NR_PAGE_ORDERS }, (_, order) => cell(index(zone, order)));
    text += `Node ${Zone.node.get(zone)}, zone ${lpad(Zone.name.get(zone), 8)} ${orders.join("")}\n`;
  }
  return text;
}; // prettier-ignore
const UNUSABLE = ksym("extfrag_unusable_index", table(1, unusable_free_index));
const EXTFRAG = ksym("extfrag_extfrag_index", table(2, fragmentation_index));

/** Boot: makes the files. */
export function extfrag_debug_init(): void {
  sysfs_create("kernel/debug/extfrag/unusable_index", { mode: file_mode(0o444), show: UNUSABLE });
  sysfs_create("kernel/debug/extfrag/extfrag_index", { mode: file_mode(0o444), show: EXTFRAG });
}
