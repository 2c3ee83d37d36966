/** `pt`: the walk of the page tables for one address, level by level. */
import { hex, parse_virt, virt_px, type Phys, type Ptr, type Virt } from "../../hal/addr.ts";
import {
  _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_GLOBAL, _PAGE_NX_HI, _PAGE_PRESENT, _PAGE_PSE, _PAGE_RW, _PAGE_USER, mmu_probe,
  table_index,
} from "../../hal/page_walk.ts"; // prettier-ignore
import { TaskStruct } from "../../kernel/task.ts";
import { MmStruct } from "../../mm/mm_types.ts";
import { PgTables } from "../../mm/pgtable.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { VMALLOC_START, ptr_to_virt, swapper_pg_dir } from "../../mm/kernel_map.ts";
import { CommandError, register, usage_error, type Result } from "./registry.ts";

const LEVEL_NAMES = ["", "PTE", "PMD", "PUD", "PGD"] as const;
const PAGE_NAMES = ["", "4 KiB page", "2 MiB page", "1 GiB page"] as const;
const BITS: readonly (readonly [number, string])[] = [
  [_PAGE_PRESENT, "P"], [_PAGE_RW, "RW"], [_PAGE_USER, "US"], [_PAGE_ACCESSED, "A"], [_PAGE_DIRTY, "D"],
  [_PAGE_PSE, "PS"], [_PAGE_GLOBAL, "G"],
]; // prettier-ignore

interface Step {
  readonly level: string;
  readonly table: string;
  readonly index: number;
  readonly entry: string;
  readonly bits: string;
  readonly to: string;
}

/** The page table of a task, or the kernel's: kernel threads, and tasks without user memory, have no other. */
export function page_table_of(command: string, who: string): Phys {
  if (who === "kernel") return swapper_pg_dir();
  if (!/^\d+$/.test(who)) throw new CommandError(`${command}: "${who}" is neither a pid nor "kernel"`);
  const task = find_task_by_pid(Number(who));
  if (task === 0) throw new CommandError(`${command}: no task has pid ${who}`);
  const mm = TaskStruct.mm.get(task);
  return mm === 0 ? swapper_pg_dir() : (PgTables.pgd.get(MmStruct.tables.at(mm)) as Ptr);
}

function steps_of(cr3: Phys, va: Virt): Step[] {
  return mmu_probe(cr3, va).entries.map(({ at, lo, hi }, i, all) => {
    const level = 4 - i;
    const bits = [...BITS.filter(([bit]) => lo & bit).map(([, name]) => name), ...(hi & _PAGE_NX_HI ? ["NX"] : [])];
    const leaf = level === 1 || (level < 4 && (lo & _PAGE_PSE) !== 0);
    const address = hex((hi & 0xff) * 2 ** 32 + ((lo & ~0xfff) >>> 0));
    const target = leaf ? `${PAGE_NAMES[level]} at ${address}` : `${LEVEL_NAMES[level - 1]} table at ${address}`;
    const ends = i === all.length - 1 && !(lo & _PAGE_PRESENT);
    return {
      level: LEVEL_NAMES[level]!,
      table: hex(at - (at % 4096)),
      index: table_index(va, level),
      entry: hex(hi, 8) + hex(lo, 8),
      bits: bits.join(" "),
      to: ends ? "not present" : target,
    };
  });
}

function describe(cr3: Phys, va: Virt): Result {
  const steps = steps_of(cr3, va);
  const { pa, r, w, x, user } = mmu_probe(cr3, va);
  const row = (level: string, table: string, index: string, entry: string, bits: string, to: string): string =>
    `${level.padEnd(5)} ${table.padStart(9)} ${index.padStart(6)}  ${entry.padEnd(16)}  ${bits.padEnd(18)} ${to}`.trimEnd();
  const rows = steps.map((s) => row(s.level, s.table, String(s.index), s.entry, s.bits, s.to));
  const rights = `${r ? "r" : "-"}${w ? "w" : "-"}${x ? "x" : "-"}, ${user ? "user" : "kernel only"}`;
  const end = pa === null ? `${virt_px(va)} is not mapped` : `${virt_px(va)} -> ${hex(pa)} (${virt_px(ptr_to_virt(pa))}), ${rights}`; // prettier-ignore
  return {
    text: [row("level", "table", "index", "entry", "bits", "leads to"), ...rows, end].join("\n"),
    json: { va: virt_px(va), cr3: hex(cr3), pa: pa === null ? null : hex(pa), r, w, x, user, steps },
  };
}

register({
  name: "pt",
  group: "look",
  usage: "pt PID|kernel VA",
  summary: "how an address is translated: the page-table walk, entry by entry",
  man: `Walks the page tables of a task, or the kernel's own, as the CPU does, but without a trace in them.
Each line is one level: the table's physical address, which of its 512 entries, the entry and its bits: P present,
RW writable, US user, A accessed, D dirty, PS a large page, G global, NX not executable. An access needs RW (US) at
every level, and NX at none.

    pt kernel ffff888000100000`,
  reads: true,
  complete: (args) => (args.length === 1 ? ["kernel"] : []),
  run(_ctx, [who, text, ...more]) {
    if (who === undefined || text === undefined || more.length > 0) throw usage_error(this);
    const va = parse_virt(text);
    if (Number.isNaN(va))
      throw new CommandError(`pt: "${text}" is no canonical address: one is ${virt_px(VMALLOC_START)}`);
    return describe(page_table_of("pt", who), va);
  },
});
