/** Pages that move: what a move keeps, and large blocks that come of it. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, type Pfn } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { MIB, PRESETS, type MachineSpec } from "../../hal/machine.ts";
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_RW } from "../../hal/page_walk.ts";
import { ram32 } from "../../hal/ram.ts";
import { drop_caches } from "../../kernel/fs/drop_caches.ts";
import { vm_mmap_file, vm_mmap_zeroes } from "../../kernel/fs/file_mmap.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { filemap_find_page } from "../../kernel/fs/filemap.ts";
import { File, O_CREAT, O_RDWR, SEEK_SET, type FilePtr } from "../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { do_filp_open, file_llseek, file_read, file_write } from "../../kernel/fs/open.ts";
import { EINVAL } from "../../kernel/lib/errno.ts";
import { fragmentation_index } from "../../mm/compaction.ts";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT, __GFP_NORETRY, __GFP_NOWARN, __GFP_THISNODE } from "../../mm/gfp.ts"; // prettier-ignore
import { isolate_movable_page, migrate_pages, putback_movable_pages } from "../../mm/migrate.ts";
import { MmStruct, type MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, do_mmap, dup_mm, mm_alloc, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { do_mprotect, madvise_dontneed } from "../../mm/mprotect.ts";
import { PG_dirty, PG_lru, PG_unevictable, Page, page_address, page_flag, page_to_pfn, pfn_to_page, pfn_valid, type PagePtr } from "../../mm/page.ts"; // prettier-ignore
import { __free_pages, alloc_pages, alloc_pages_node, get_page, put_page } from "../../mm/page_alloc.ts";
import { alloc_contig_range, free_contig_range } from "../../mm/page_isolation.ts";
import { drain_all_pages } from "../../mm/pcp.ts";
import { PG_LEVEL_4K, pte_flags, pte_offset, pte_page, type PtePtr } from "../../mm/pgtable.ts";
import { page_mapcount } from "../../mm/rmap.ts";
import { validate_mm } from "../../mm/validate.ts";
import {
  COMPACTFAIL, COMPACTFREE_SCANNED, COMPACTISOLATED, COMPACTMIGRATE_SCANNED, COMPACTSTALL, COMPACTSUCCESS,
  PGMIGRATE_SUCCESS, all_vm_events,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { high_wmark_pages, zone_free_pages } from "../../mm/watermark.ts";
import { FreeArea, NODE_DATA, PgData, Zone, page_zone, zone_end_pfn, type ZonePtr } from "../../mm/zone.ts";
import { echo, with_files } from "../kernel/fs/files.ts";
import { TEST_MACHINE, with_machine } from "../lib/machine.ts";
import { SEGV, load32, run_in, run_in_none, store32 } from "../lib/user.ts";

const RW = PROT_READ | PROT_WRITE;
const BASE = 0x400000;
const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const at = (page: number): number => BASE + page * PAGE_SIZE;
const pte_of = (mm: MmPtr, page: number): PtePtr => pte_offset(MmStruct.tables.at(mm), at(page), PG_LEVEL_4K);
const page_of = (mm: MmPtr, page: number): PagePtr => pte_page(pte_of(mm, page));

/** What `fn` adds to events, in that order. */
function counted(items: readonly number[], fn: () => void): number[] {
  const before = all_vm_events();
  fn();
  const after = all_vm_events();
  return items.map((item) => after[item]! - before[item]!);
}

/** Moves one page, anywhere. Returns where it is then: where it was, if it stays. */
function move(page: PagePtr): PagePtr {
  let to: PagePtr = page;
  expect(isolate_movable_page(page)).toBe(true);
  const left = migrate_pages([page], () => (to = alloc_pages(GFP_HIGHUSER_MOVABLE, 0)));
  putback_movable_pages(left);
  return left.length > 0 ? page : to;
}

describe("a page that moves", () => {
  it("of a program: its own and a forked one go on where it went, with the rights and bits that they had", () => {
    with_files(() => {
      const mm = mm_alloc();
      run_in(0, mm);
      do_mmap(mm, BASE, 4 * PAGE_SIZE, RW, FIXED);
      for (let i = 0; i < 3; i++) store32(0, at(i), 10 + i);
      const [old, own] = [page_of(mm, 0), page_of(mm, 2)];
      expect(move(own)).toBe(page_of(mm, 2));
      expect(page_of(mm, 2)).not.toBe(own);
      expect([load32(0, at(2)), store32(0, at(2), 99), load32(0, at(2))]).toEqual([12, undefined, 99]); // exclusive still
      expect(ram32[page_address(page_of(mm, 2)) >> 2]).toBe(99); // and no TLB says otherwise
      const child = dup_mm(mm);
      run_in(1, child);
      load32(1, at(0));
      expect(do_mprotect(mm, at(1), PAGE_SIZE, 0)).toBe(0);
      const to = move(old);
      expect([page_of(mm, 0), page_of(child, 0), page_mapcount(to), Page.refcount.get(to)]).toEqual([to, to, 2, 2]);
      expect(pte_flags(pte_of(child, 0)) & (_PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)).toBe(
        _PAGE_ACCESSED | _PAGE_DIRTY,
      );
      expect([load32(0, at(0)), load32(1, at(0)), Page.refcount.get(old)]).toEqual([10, 10, 0]);
      const hidden = move(page_of(mm, 1));
      expect([load32(0, at(1)), load32(1, at(1)), page_mapcount(hidden)]).toEqual([SEGV, 11, 2]);
      expect([store32(1, at(0), 5), load32(0, at(0)), load32(1, at(0))]).toEqual([undefined, 10, 5]); // copied on write
      expect(validate_mm()).toEqual([]);
      run_in_none();
      for (const each of [mm, child]) mmput(each);
    });
  });

  it("of a file, mapped or not, is the file's page from then on; shared memory stays shared", () => {
    with_files(() => {
      echo("hello", "/tmp/f");
      const file = do_filp_open("/tmp/f", O_RDWR, 0);
      const mapping = File.f_mapping.get(file);
      const mm = mm_alloc();
      run_in(0, mm);
      const plain = move(filemap_find_page(mapping, 0));
      expect(filemap_find_page(mapping, 0)).toBe(plain);
      expect([PG_dirty, PG_unevictable, PG_lru].map((flag) => page_flag(plain, flag))).toEqual([true, true, true]);
      vm_mmap_file(mm, BASE, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, file, 0);
      vm_mmap_zeroes(mm, at(1), PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
      store32(0, at(0), 7);
      store32(0, at(1), 8);
      const other = dup_mm(mm);
      run_in(1, other);
      load32(1, at(1));
      for (const page of [0, 1]) expect(move(page_of(mm, page))).toBe(page_of(mm, page));
      expect([store32(0, at(0), 70), store32(1, at(1), 80), load32(0, at(1))]).toEqual([undefined, undefined, 80]);
      file_llseek(file, 0, SEEK_SET);
      expect([...(file_read(file, 4) as Uint8Array)]).toEqual([70, 0, 0, 0]);
      expect(validate_mm()).toEqual([]);
      run_in_none();
      for (const each of [mm, other]) mmput(each);
      fput(file);
      do_unlinkat("/tmp/f");
    });
  });

  it("stays while somebody else has a use of it, and where there is no page to go to", () => {
    with_files(() => {
      const mm = mm_alloc();
      run_in(0, mm);
      do_mmap(mm, BASE, 2 * PAGE_SIZE, RW, FIXED);
      store32(0, at(0), 1);
      const page = page_of(mm, 0);
      get_page(page);
      expect(move(page)).toBe(page);
      put_page(page);
      expect(isolate_movable_page(page)).toBe(true);
      expect(isolate_movable_page(page)).toBe(false); // it is already
      const left = migrate_pages([page], () => 0);
      expect(left).toEqual([page]);
      putback_movable_pages(left);
      expect([load32(0, at(0)), page_of(mm, 0), validate_mm()]).toEqual([1, page, []]);
      run_in_none();
      mmput(mm);
    });
  });
});

/*
 * Node 1: 24 MiB of Normal, 12 page blocks. A program and a file take all of it page by page; then some pages are given back by
 * a seed, so that what is free is in small pieces:
 *
 *     page block   p f p . p p . p f . . p  …     p a program's, f a file's, . free
 */
const MACHINE: MachineSpec = {
  ...TEST_MACHINE,
  memory: TEST_MACHINE.memory.map((each) => (each.start === MIB ? { ...each, size: 55 * MIB } : each)),
  nodes: [TEST_MACHINE.nodes[0]!, { ranges: [{ start: 32 * MIB, size: 24 * MIB }], cpus: [1] }],
};
const NODE = 1;
const ORDER = 9;
const GFP = GFP_KERNEL | __GFP_THISNODE | __GFP_NOWARN;

function node_zone(): ZonePtr {
  for (let i = 0; i < PgData.node_zones.length; i++) {
    const zone = PgData.node_zones.at(NODE_DATA(NODE), i);
    if (Zone.managed_pages.get(zone) > 0) return zone;
  }
  throw new Error("node 1 has no memory");
}

function blocks_of_order(zone: ZonePtr, order: number): number {
  let nr = 0;
  for (let each = order; each <= 10; each++) nr += FreeArea.nr_free.get(Zone.free_area.at(zone, each));
  return nr;
}

/** Runs `fn` with node 1 in pieces; `check` looks at all that programs and files hold there. */
function with_fragments(seed: number, fn: (zone: ZonePtr, check: () => void, mm: MmPtr) => void): void {
  with_files(() => {
    const zone = node_zone();
    const mm = mm_alloc();
    run_in(NODE, mm);
    const file = do_filp_open("/tmp/frag", O_RDWR | O_CREAT, 0o644);
    do_mmap(mm, BASE, 6144 * PAGE_SIZE, RW, FIXED);
    const kept = new Map<number, number>();
    on_cpu(NODE, () => {
      for (let i = 0; zone_free_pages(zone) > high_wmark_pages(zone) + 64; i++) {
        expect(store32(NODE, at(i), i + 1)).toBeUndefined();
        kept.set(i, i + 1);
        if (i % 8 === 5) write_word(file, i, i);
      }
    });
    let x = seed;
    for (const page of [...kept.keys()]) {
      x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
      if ((x >> 8) % 16 < 5) continue;
      expect(madvise_dontneed(mm, at(page), PAGE_SIZE)).toBe(0);
      kept.delete(page);
    }
    drain_all_pages();
    fn(
      zone,
      () => {
        for (const [page, value] of kept) {
          expect(load32(NODE, at(page))).toBe(value);
          if (page % 8 === 5) expect(read_word(file, page)).toBe(page);
        }
        expect(validate_mm()).toEqual([]);
      },
      mm,
    );
    run_in_none();
    mmput(mm);
    fput(file);
    do_unlinkat("/tmp/frag");
  }, { machine: MACHINE }); // prettier-ignore
}

function write_word(file: FilePtr, page: number, value: number): void {
  file_llseek(file, page * PAGE_SIZE, SEEK_SET);
  expect(file_write(file, new Uint8Array(new Int32Array([value]).buffer))).toBe(4);
}

function read_word(file: FilePtr, page: number): number {
  file_llseek(file, page * PAGE_SIZE, SEEK_SET);
  return new DataView((file_read(file, 4) as Uint8Array).buffer).getInt32(0, true);
}

const COUNTS = [COMPACTSTALL, COMPACTSUCCESS, COMPACTFAIL];
const SCANS = [COMPACTMIGRATE_SCANNED, COMPACTFREE_SCANNED, COMPACTISOLATED, PGMIGRATE_SUCCESS];

describe("compaction", () => {
  it("makes a block of order 9 of a node that is all in pieces; whoever has pages there notices nothing", () => {
    // A request for movable pages has it after the first, asynchronous round, which moves pages out of movable blocks alone;
    // one for others fails there, reclaims, and has it after the second.
    const movable = GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NOWARN;
    for (const [seed, gfp, expected] of [
      [1, movable, [1, 1, 0]],
      [2, GFP, [2, 1, 1]],
    ] as const)
      // prettier-ignore
      with_fragments(seed, (zone, check) => {
        expect([blocks_of_order(zone, ORDER), fragmentation_index(zone, ORDER) > 500]).toEqual([0, true]);
        expect(alloc_pages_node(NODE, GFP_NOWAIT | __GFP_THISNODE, ORDER)).toBe(0); // who may not wait gets none
        let page: PagePtr = 0;
        let counts: number[] = [];
        const [migrate, free, isolated, moved] = counted(SCANS, () => {
          counts = counted(COUNTS, () => (page = alloc_pages_node(NODE, gfp, ORDER)));
        });
        expect(page_zone(page)).toBe(zone);
        expect(counts).toEqual(expected);
        expect(moved).toBeGreaterThan(100);
        expect(isolated).toBeGreaterThanOrEqual(2 * moved!); // pages to move, and free pages to move them to
        expect(Math.min(migrate!, free!)).toBeGreaterThanOrEqual(moved!);
        check();
        __free_pages(page, ORDER);
        check();
      });
  });

  it("is left alone for a while where it was in vain, and longer each time", () => {
    with_fragments(4, (zone, check) => {
      // Pages that nobody may move, one in each 64 frames.
      const held: PagePtr[] = [];
      for (let pfn: Pfn = Zone.zone_start_pfn.get(zone); pfn < zone_end_pfn(zone); pfn++) {
        const page = pfn_to_page(pfn);
        if (held.length > 0 && pfn - page_to_pfn(held.at(-1)!) < 64) continue;
        if (pfn_valid(pfn) && page_zone(page) === zone && page_flag(page, PG_lru)) held.push(page);
      }
      held.forEach(get_page);
      const scanned: boolean[] = [];
      for (let i = 0; i < 9; i++) {
        const [migrate] = counted(SCANS, () => expect(alloc_pages_node(NODE, GFP, ORDER)).toBe(0));
        scanned.push(migrate! > 0);
      }
      // The first request tries asynchronously and then in earnest: shift 1. Each request considers it twice.
      expect(scanned.filter((tried) => tried).length).toBeLessThan(6);
      expect(scanned.filter((tried) => !tried).length).toBeGreaterThan(2);
      held.forEach(put_page);
      check();
      for (let i = 0; i < 70 && blocks_of_order(zone, ORDER) === 0; i++) {
        const page = alloc_pages_node(NODE, GFP, ORDER);
        if (page !== 0) __free_pages(page, ORDER);
      }
      expect(blocks_of_order(zone, ORDER)).toBeGreaterThan(0);
      check();
    });
  });

  it("is not tried where memory is short rather than in pieces, nor without __GFP_IO", () => {
    with_fragments(5, (zone, check) => {
      const none = (gfp: number): number[] => counted([...COUNTS, ...SCANS], () => expect(alloc_pages_node(NODE, gfp, ORDER)).toBe(0)); // prettier-ignore
      expect(none(GFP_NOIO | __GFP_THISNODE | __GFP_NOWARN)).toEqual([0, 0, 0, 0, 0, 0, 0]);
      const taken: PagePtr[] = [];
      while (zone_free_pages(zone) > 512) taken.push(alloc_pages_node(NODE, GFP, 0));
      expect(none(GFP | __GFP_NORETRY)).toEqual([0, 0, 0, 0, 0, 0, 0]);
      taken.forEach((page) => __free_pages(page, 0));
      check();
    });
  });

  it("/proc/sys/vm/compact_memory: 1 compacts all zones; nothing else is taken", () => {
    with_fragments(6, (zone, check) => {
      const before = blocks_of_order(zone, 7);
      expect([echo("2", "/proc/sys/vm/compact_memory"), echo("x", "/proc/sys/vm/compact_memory")]).toEqual([-EINVAL, -EINVAL]); // prettier-ignore
      const [moved] = counted([PGMIGRATE_SUCCESS], () => expect(echo("1\n", "/proc/sys/vm/compact_memory")).toBe(2));
      expect(moved).toBeGreaterThan(100);
      expect(blocks_of_order(zone, 7)).toBeGreaterThan(before);
      check();
    });
  });

  it("goes over a machine with holes and uneven nodes", () => {
    with_machine({ machine: PRESETS.server!, until: "kernel" }, () => {
      expect(echo("1", "/proc/sys/vm/compact_memory")).toBe(1);
      expect(validate_mm()).toEqual([]);
      drop_caches(3);
      drop_caches(2);
    });
  });

  it("alloc_contig_range moves what can be moved out of the range", () => {
    with_fragments(7, (zone, check, mm) => {
      // The page block of some page of the program; if nothing there is unmovable it can be had.
      const blocks = new Set<Pfn>();
      for (let i = 0; i < 1500; i++) if (load32(NODE, at(i)) !== 0) blocks.add(page_to_pfn(page_of(mm, i)) & -512);
      let got = 0;
      for (const block of blocks) {
        if (alloc_contig_range(block, block + 512, GFP_KERNEL) !== 0) continue;
        got++;
        for (let pfn = block; pfn < block + 512; pfn++) expect(Page.refcount.get(pfn_to_page(pfn))).toBe(1);
        check();
        free_contig_range(block, 512);
      }
      expect(got).toBeGreaterThan(0);
      expect(page_zone(pfn_to_page([...blocks][0]!))).toBe(zone);
      check();
    });
  });
});
