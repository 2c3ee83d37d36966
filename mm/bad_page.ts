/**
 * Checks of page structs, and the dump of one.
 *
 * A page that nobody owns has no flags, no mapping, no type, no references: `check_new_pages` looks before it is handed
 * out, `free_page_is_bad` when it comes back. A page that fails is reported and *leaked*: whoever wrote there may do so
 * again, so neither its owner nor the allocator gets it. The report:
 *
 *     BUG: Bad page state in process init  pfn:01234
 *     page: refcount:0 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x1234
 *     flags: 0x8000000000010(dirty|node=0|zone=1)
 *     raw: …                                                  the struct's eight words, four a line
 *     page dumped because: PAGE_FLAGS_CHECK_AT_PREP flag(s) set
 *
 * The checks cost, so they are made only with `debug_pagealloc=on`, `page_poison=on`, `init_on_alloc=1` or
 * `init_on_free=1` (GATE_CHECK, mm/plenty.ts: the hot path is closed then). Without them a free just clears the bits.
 *
 * Locks: none. Unlike Linux: no mapping counts of compound pages (they are mapped nowhere), no owner, no file name of a
 * mapping.
 */
import { NULL, hex, px } from "../hal/addr.ts";
import { HZ, jiffies } from "../hal/clock.ts";
import { static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { cmdline_bool } from "../kernel/lib/cmdline.ts";
import { current_comm, dump_stack } from "../kernel/lib/dump_stack.ts";
import { KERN_WARNING, pr_alert, pr_warn } from "../kernel/lib/printk.ts";
import {
  PGTY_NAMES, PGTY_buddy, PGTY_none, PG_active, PG_head, PG_hwpoison, PG_locked, PG_lru, PG_mlocked, PG_private,
  PG_private_2, PG_reserved, PG_unevictable, PG_writeback, Page, compound_head, compound_order, page_flag,
  page_is_anon, page_is_buddy, page_is_tail, page_to_nid, page_to_pfn, page_type, page_zonenum, set_page_type, type PagePtr,
} from "./page.ts"; // prettier-ignore
import { GATE_CHECK, alloc_gate, alloc_gate_set } from "./plenty.ts";

const m = ram32;
const REPORTS_A_MINUTE = 60;
const state = static_data("bad_page", { resume: "u64", nr_shown: "u32", nr_unshown: "u32" });

const mask = (bits: readonly number[]): number => bits.reduce((all, bit) => all | (1 << bit), 0);
/** Bits that nobody may have left set. */
const CHECK_AT_FREE = mask([
  PG_lru, PG_locked, PG_private, PG_private_2, PG_writeback, PG_reserved, PG_active, PG_unevictable, PG_mlocked,
]); // prettier-ignore
/** All of them, but that of a frame that the hardware lost. */
const CHECK_AT_PREP = ~(1 << PG_hwpoison);

/** Boot: switches the checks on if the command line asks for something that comes with them. */
export function check_pages_init(): void {
  const wanted = ["debug_pagealloc", "page_poison", "init_on_alloc", "init_on_free"];
  alloc_gate_set(GATE_CHECK, cmdline_bool(false, ...wanted));
}

/** True if page structs are checked. */
export function is_check_pages_enabled(): boolean {
  return (alloc_gate.bits & GATE_CHECK) !== 0;
}

/** What is wrong with a page that nobody owns: the last reason that holds; undefined if nothing is. */
function page_bad_reason(page: PagePtr, flags: number, text: string): string | undefined {
  let reason: string | undefined;
  if (page_type(page) !== PGTY_none) reason = "nonzero mapcount";
  if (Page.mapping.get(page) !== NULL) reason = "non-NULL mapping";
  if (Page.refcount.get(page) !== 0) reason = "nonzero _refcount";
  if ((Page.flags.get(page) & flags) !== 0) reason = text;
  if (Page.memcg_data.lo(page) !== 0 || Page.memcg_data.hi(page) !== 0) reason = "page still charged to cgroup";
  return reason;
}

/** True, with a report, if a page that was freed is still in use somehow; `no_flags`: bits that are no flags there. */
export function free_page_is_bad(page: PagePtr, no_flags = 0): boolean {
  const reason = page_bad_reason(page, CHECK_AT_FREE & ~no_flags, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set");
  if (reason !== undefined) bad_page(page, reason);
  return reason !== undefined;
}

/** True, with a report, if a page of a compound block that was freed is not what its head says. */
export function free_tail_page_is_bad(head: PagePtr, page: PagePtr): boolean {
  let reason: string | undefined;
  if (Page.mapping.get(page) !== NULL) reason = "corrupted mapping in tail page";
  else if (!page_is_tail(page)) reason = "PageTail not set";
  else if (compound_head(page) !== head) reason = "compound_head not consistent";
  if (reason !== undefined) bad_page(page, reason);
  return reason !== undefined;
}

/** True if a block may not be handed out: one of its pages was written to while it was free. */
export function check_new_pages(page: PagePtr, order: number): boolean {
  for (let at = page; at < page + (64 << order); at += 64) {
    const reason = page_bad_reason(at, CHECK_AT_PREP, "PAGE_FLAGS_CHECK_AT_PREP flag(s) set");
    if (reason === undefined) continue;
    if (!page_flag(at, PG_hwpoison)) bad_page(at, reason);
    return true;
  }
  return false;
}

/** Reports a page, at most 60 times a minute. */
function bad_page(page: PagePtr, reason: string): void {
  if (may_report()) {
    pr_alert(`BUG: Bad page state in process ${current_comm()}  pfn:${hex(page_to_pfn(page), 5)}`);
    dump_page(page, reason);
    pr_warn("Modules linked in:");
    dump_stack(KERN_WARNING);
  }
  if (page_is_buddy(page)) set_page_type(page, PGTY_none); // the other fields stay as they were found
}

function may_report(): boolean {
  if (state.nr_shown === REPORTS_A_MINUTE) {
    if (jiffies() < state.resume) {
      state.nr_unshown = state.nr_unshown + 1;
      return false;
    }
    if (state.nr_unshown > 0) pr_alert(`BUG: Bad page state: ${state.nr_unshown} messages suppressed`);
    state.nr_unshown = 0;
    state.nr_shown = 0;
  }
  if (state.nr_shown === 0) state.resume = jiffies() + 60 * HZ;
  state.nr_shown = state.nr_shown + 1;
  return true;
}

/** Prints all that a page struct says, and why. */
export function dump_page(page: PagePtr, reason: string): void {
  const head = compound_head(page);
  const mapping = Page.mapping.get(head);
  const index = Page.index.get(head) + (page - head) / Page.sizeof;
  const type = page_type(head);
  const has_type = type >= PGTY_buddy && type !== PGTY_none; // else the word counts mappings, from -1 up
  pr_warn(
    `page: refcount:${Page.refcount.get(head)} mapcount:${has_type ? 0 : Page.page_type.get(page) + 1} mapping:${mapping === NULL ? hex(0, 16) : px(mapping)} ` +
      `index:0x${hex(index)} pfn:0x${hex(page_to_pfn(page))}`,
  );
  const large = page_flag(head, PG_head);
  if (large) pr_warn(`head: order:${compound_order(head)} mapcount:0 entire_mapcount:0 nr_pages_mapped:0 pincount:0`);
  const memcg = hex64(Page.memcg_data.hi(head), Page.memcg_data.lo(head));
  if (memcg !== "0") pr_warn(`memcg:${memcg}`);
  pr_warn(`${page_is_anon(head) ? "anon " : ""}flags: ${format_page_flags(head)}`);
  if (has_type) pr_warn(`page_type: ${hex(type)}(${PGTY_NAMES[type] ?? "unknown"})`);
  for (const line of words(page, 8)) pr_warn(`raw: ${line}`);
  if (large) for (const line of words(head, 16)) pr_warn(`head: ${line}`);
  pr_warn(`page dumped because: ${reason}`);
}

/** A 64-bit number without leading zeroes. */
function hex64(hi: number, lo: number): string {
  return hi === 0 ? hex(lo >>> 0) : hex(hi >>> 0) + hex(lo >>> 0, 8);
}

/** Eight-byte words of RAM, four a line. */
function words(ptr: number, count: number): string[] {
  const word = (i: number): string => hex(m[(ptr >> 2) + 2 * i + 1]! >>> 0, 8) + hex(m[(ptr >> 2) + 2 * i]! >>> 0, 8);
  const all = Array.from({ length: count }, (_, i) => word(i));
  return Array.from({ length: count / 4 }, (_, i) => all.slice(4 * i, 4 * i + 4).join(" "));
}

/** Bits and their names, in the order in which `%pGp` prints them. */
const FLAG_NAMES: readonly (readonly [number, string])[] = Object.freeze([
  [0, "locked"], [7, "waiters"], [2, "referenced"], [3, "uptodate"], [4, "dirty"], [5, "lru"], [8, "active"],
  [9, "workingset"], [10, "owner_priv_1"], [11, "owner_2"], [12, "arch_1"], [13, "reserved"], [14, "private"],
  [15, "private_2"], [1, "writeback"], [6, "head"], [16, "reclaim"], [17, "swapbacked"], [18, "unevictable"],
  [19, "dropbehind"], [20, "mlocked"], [21, "hwpoison"],
]); // prettier-ignore

/** `%pGp`: `0x…(dirty|lru|node=0|zone=2)`. Node and zone stand in the upper word as Linux has them: ten bits, three bits. */
export function format_page_flags(page: PagePtr): string {
  const flags = Page.flags.get(page);
  const [node, zone] = [page_to_nid(page), page_zonenum(page)];
  const value = hex64((node << 22) | (zone << 19), flags);
  const names = FLAG_NAMES.filter(([bit]) => (flags >>> bit) & 1).map(([, name]) => name);
  return `0x${value}(${[...names, `node=${node}`, `zone=${zone}`].join("|")})`;
}
