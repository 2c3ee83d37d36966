/**
 * What one sees first at a terminal, at most 80 x 24: a title, the boot log's lines as they happen, what init did, the
 * busiest caches, four things to type. Every number is counted: tasks and files by the kernel's own events during boot,
 * the rest by a walk of RAM afterwards.
 */
import { events } from "../hal/events.ts";
import { machine_mib, type MachineSpec } from "../hal/machine.ts";
import { printk_records } from "../kernel/lib/printk.ts";
import { start_up_report } from "../kernel/init.ts";
import { nr_free_pages } from "../mm/page_alloc.ts";
import { KmemCache, find_cache, for_each_cache, get_slabinfo, oo_order, slab_ops } from "../mm/slab_common.ts";
import { NR_SLAB_UNRECLAIMABLE, global_node_page_state } from "../mm/vmstat.ts";
import type { Options } from "./options.ts";
import { VERSION } from "../kernel/version.ts";

/** What happened while booting. */
interface Witness {
  readonly files_made: number;
  readonly files_gone: number;
}

/** Starts counting; the function it returns stops and tells. */
export function watch_boot(): () => Witness {
  let [files_made, files_gone] = [0, 0];
  const made = (): void => void files_made++;
  const gone = (): void => void files_gone++;
  events.on("inode:new", made).on("inode:free", gone);
  return () => {
    events.off("inode:new", made).off("inode:free", gone);
    return { files_made, files_gone };
  };
}

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

/** `dentry       123 live of  168  8 slabs`: 38 columns. */
function cache_cell(name: string): string {
  const cache = find_cache(name);
  const { live_objs, num_objs, num_slabs } = cache ? get_slabinfo(cache) : { live_objs: 0, num_objs: 0, num_slabs: 0 };
  if (slab_ops().no_slabinfo) return `${name.padEnd(11)}${String(live_objs).padStart(5)} live`.padEnd(38);
  return `${name.padEnd(11)}${String(live_objs).padStart(5)} live of ${String(num_objs).padStart(4)} ${plural(num_slabs, "slab").padStart(8)}`;
}

function slab_kib(): number {
  if (slab_ops().no_slabinfo) return 4 * global_node_page_state(NR_SLAB_UNRECLAIMABLE);
  let kib = 0;
  for (const cache of for_each_cache()) kib += get_slabinfo(cache).num_slabs * (4 << oo_order(KmemCache.oo.get(cache)));
  return kib;
}

function summary_text({ files_made, files_gone }: Witness): string {
  const { programs, forks } = start_up_report();
  const free_mib = Math.floor((nr_free_pages() * 4) / 1024);
  return `
init started ${plural(programs, "program")}: ${forks} tasks forked, ${files_made} files made, ${files_gone} of them gone again.
  ${cache_cell("dentry")}  ${cache_cell("inode_cache")}
  ${cache_cell("task_struct")}
  in slabs ${slab_kib()} KiB, in the buddy allocator ${free_mib} MiB free

${first_steps()}
  map                all of memory on one screen          help    the rest
`;
}

/** Two things to type; the tour tells of SLUB. */
function first_steps(): string {
  if (slab_ops().name === "slub")
    return `  tour               where 300 bytes come from, in nine steps (five minutes)
  slab task_struct   a cache as every SLUB text draws it, live`;
  const all = slab_ops().no_slabinfo
    ? "  slab small         pages and blocks of up to 255 bytes, as they lie in RAM"
    : "  slabtop            all caches, the busiest first";
  return `${all}
  slab task_struct   what ${slab_ops().name.toUpperCase()} has of a cache, live`;
}

export interface FirstScreen {
  title(): string;
  /** Takes a line of the log; keeps it back until the next, so that the last can say where all of them are. */
  log_line(text: string): void;
  /** Prints what was kept back: boot failed. */
  flush(): void;
  summary(witness: Witness): string;
}

/** The parts of the screen, in order. */
export function first_screen(options: Options, machine: MachineSpec, write: (text: string) => void): FirstScreen {
  let kept = "";
  const [nodes, cpus] = [plural(machine.nodes.length, "node"), plural(machine.cpus, "CPU")];
  return {
    title: () =>
      `kheap ${VERSION}   ${machine_mib(machine)} MiB, ${nodes}, ${cpus}, ${options.slab.toUpperCase()}, seed ${options.seed}\n`,
    log_line(text) {
      write(kept);
      kept = text;
    },
    flush: () => write(kept),
    summary(witness) {
      const note = `(all ${[...printk_records()].length} lines: dmesg)\n`;
      const last = kept.trimEnd();
      const fits = last.length + note.length < 80;
      return `${fits ? last.padEnd(81 - note.length) + note : kept}${summary_text(witness)}`;
    },
  };
}
