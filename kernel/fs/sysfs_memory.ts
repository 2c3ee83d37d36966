/**
 * /sys/devices/system/memory: RAM in blocks of 128 MiB, the unit in which memory could be added and taken away; memoryN
 * for each block that has RAM in it.
 *
 *     valid_zones   the zone that the block lies in; "none" where it lies in several
 *
 * Unlike Linux: all of it stays online, so nothing can be written, and there are no links between blocks and nodes. Linux
 * makes the blocks larger on machines of 64 GiB and more.
 */
import { PAGE_SIZE, type Pfn } from "../../hal/addr.ts";
import { SECTION_NR_PAGES, mem_map_state, pfn_valid } from "../../mm/page.ts";
import { Zone, for_each_populated_zone, zone_end_pfn } from "../../mm/zone.ts";
import { ENOENT } from "../lib/errno.ts";
import { ksym } from "../lib/ksym.ts";
import { pr_info } from "../lib/printk.ts";
import { S_IFDIR } from "./fs.ts";
import { file_mode, kernfs_new_node } from "./kernfs.ts";
import { sysfs_create } from "./sysfs.ts";

const BLOCK_BYTES = 128 << 20;
const BLOCK_PAGES = BLOCK_BYTES / PAGE_SIZE;

function has_ram(block: number): boolean {
  const first: Pfn = block * BLOCK_PAGES;
  for (let pfn = first; pfn < first + BLOCK_PAGES; pfn += SECTION_NR_PAGES) if (pfn_valid(pfn)) return true;
  return false;
}

/** Numbers of the blocks that have RAM. */
function blocks(): number[] {
  const all = Array.from({ length: Math.ceil(mem_map_state.max_pfn / BLOCK_PAGES) }, (_, block) => block);
  return all.filter(has_ram);
}

function valid_zones(block: number): string {
  const [start, end] = [block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES];
  const zones = [...for_each_populated_zone()].filter(
    (zone) => Zone.zone_start_pfn.get(zone) < end && zone_end_pfn(zone) > start,
  );
  return zones.length === 1 ? Zone.name.get(zones[0]!) : "none";
}

const BLOCK_FILES: Readonly<Record<string, (block: number) => string>> = Object.freeze({
  online: () => "1",
  phys_device: () => "0",
  phys_index: (block) => block.toString(16).padStart(8, "0"),
  removable: () => "0",
  state: () => "online",
  valid_zones,
});
const files = Object.freeze(
  Object.entries(BLOCK_FILES).map(
    ([name, text]) => [name, ksym(`sysfs_memory_${name}`, (block: number) => `${text(block)}\n`)] as const,
  ),
);
const all_blocks = {
  mode: S_IFDIR | 0o755,
  names: ksym("sysfs_memory_names", () => blocks().map((block) => `memory${block}`)),
  find: ksym("sysfs_memory_find", (_parent: number, name: string) => blocks().find((block) => name === `memory${block}`) ?? -ENOENT), // prettier-ignore
} as const;
const block_size = ksym("sysfs_memory_block_size", () => `${BLOCK_BYTES.toString(16)}\n`);

/** Boot: makes the directory. */
export function memory_dev_init(): void {
  pr_info(`x86/mm: Memory block size: ${BLOCK_BYTES >> 20}MB`);
  sysfs_create("devices/system/memory/block_size_bytes", { mode: file_mode(0o444), show: block_size });
  const memory = sysfs_create("devices/system/memory/MEMORY", all_blocks);
  if (memory <= 0) return;
  for (const [name, show] of files) kernfs_new_node(memory, name, { mode: file_mode(0o444), show });
}
