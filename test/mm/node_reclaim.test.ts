/** vm.zone_reclaim_mode on two nodes, one CPU each: is memory of files on node 0 had back, or does a request go to node 1? */
import { describe, expect, test } from "vitest";
import { on_cpu } from "../../hal/cpu.ts";
import { O_RDONLY } from "../../kernel/fs/fs.ts";
import { file_read } from "../../kernel/fs/open.ts";
import { EINVAL } from "../../kernel/lib/errno.ts";
import { GFP_ATOMIC, GFP_KERNEL, __GFP_NOWARN, __GFP_THISNODE } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { page_to_nid, type PagePtr } from "../../mm/page.ts";
import { NR_INACTIVE_FILE, ZONE_RECLAIM_FAILED, ZONE_RECLAIM_SUCCESS, all_vm_events, node_page_state } from "../../mm/vmstat.ts"; // prettier-ignore
import { NODE_DATA } from "../../mm/zone.ts";
import { echo, text_of, with_file, with_files } from "../kernel/fs/files.ts";

const FILM_PAGES = 1000;
const knob = (name: string, value: number): number => echo(String(value), `/proc/sys/vm/${name}`, 0);
const cached = (): number => node_page_state(NODE_DATA(0), NR_INACTIVE_FILE);

/** With a film in node 0's page cache and the rest of that node in use, down to its low marks: what `count` requests get. */
function with_full_node(mode: number, fn: (get: (count: number, gfp?: number) => number[]) => void): void {
  with_files(() => {
    with_file("/usr/media/film0", O_RDONLY, (file) => file_read(file, FILM_PAGES * 4096));
    const pages: PagePtr[] = [];
    const light = (GFP_ATOMIC & ~0x20) | __GFP_NOWARN | __GFP_THISNODE; // without reserves
    for (let page = alloc_pages(light, 0); page !== 0; page = alloc_pages(light, 0)) pages.push(page);
    for (const page of pages.splice(0, 64)) __free_pages(page, 0);
    expect(cached()).toBe(FILM_PAGES);
    knob("zone_reclaim_mode", mode);
    fn((count, gfp = GFP_KERNEL | __GFP_NOWARN) => {
      const got = Array.from({ length: count }, () => alloc_pages(gfp, 0));
      pages.push(...got);
      return got.map(page_to_nid);
    });
    knob("zone_reclaim_mode", 0);
    for (const page of pages) __free_pages(page, 0);
  });
}

/** How many node reclaims succeeded, and failed, meanwhile. */
function reclaims(fn: () => void): number[] {
  const counts = (): number[] => [ZONE_RECLAIM_SUCCESS, ZONE_RECLAIM_FAILED].map((item) => all_vm_events()[item]!);
  const before = counts();
  fn();
  return counts().map((count, i) => count - before[i]!);
}

describe("a request that finds its node below the mark", () => {
  test("goes to another node while node reclaim is off", () => {
    with_full_node(0, (get) => {
      expect(reclaims(() => expect(get(200)).toContain(1))).toEqual([0, 0]);
      expect(cached()).toBe(FILM_PAGES);
    });
  });

  test("stays, with memory of files had back, while it is on", () => {
    with_full_node(1, (get) => {
      const [done, failed] = reclaims(() => expect(get(200)).not.toContain(1));
      expect(done).toBeGreaterThan(0);
      expect(failed).toBe(0);
      expect(cached()).toBeLessThan(FILM_PAGES - 100);
      expect(text_of("/proc/vmstat")).toMatch(new RegExp(`^zone_reclaim_success ${done}$`, "m"));
    });
  });

  test("who may not reclaim, or is on another node's CPU, goes on", () => {
    with_full_node(1, (get) => {
      const light = (GFP_ATOMIC & ~0x20) | __GFP_NOWARN;
      expect(reclaims(() => expect(get(200, light)).toContain(1))).toEqual([0, 0]);
      expect(reclaims(() => on_cpu(1, () => expect(get(50)).not.toContain(0)))).toEqual([0, 0]);
    });
  });

  test("nothing is done where too little could be had", () => {
    with_full_node(1, (get) => {
      knob("min_unmapped_ratio", 50);
      knob("min_slab_ratio", 50);
      expect(reclaims(() => expect(get(200)).toContain(1))).toEqual([0, 0]);
    });
  });
});

test("the knobs", () => {
  with_files(() => {
    const names = ["zone_reclaim_mode", "min_unmapped_ratio", "min_slab_ratio"];
    expect(names.map((name) => text_of(`/proc/sys/vm/${name}`))).toEqual(["0\n", "1\n", "5\n"]);
    expect(names.map((name) => knob(name, 101))).toEqual([3, -EINVAL, -EINVAL]);
    expect(text_of("/proc/sys/vm/zone_reclaim_mode")).toBe("101\n");
  });
});
