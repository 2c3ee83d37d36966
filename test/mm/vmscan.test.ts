/** Reclaim of pages: LRU rules, scan sizes and what counts them, by hand from the formulas. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { static_data } from "../../hal/image.ts";
import { PRESETS } from "../../hal/machine.ts";
import { bytes_of } from "../../kernel/fs/bytes.ts";
import { drop_caches } from "../../kernel/fs/drop_caches.ts";
import { vm_mmap_file, vm_mmap_zeroes } from "../../kernel/fs/file_mmap.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { File, Inode, O_CREAT, O_RDONLY, O_RDWR, SEEK_SET, type FilePtr } from "../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { do_filp_open, file_llseek, file_read, file_write, vfs_stat } from "../../kernel/fs/open.ts";
import { xa_load } from "../../kernel/fs/xarray.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { GFP_ATOMIC, GFP_DMA32, GFP_KERNEL, GFP_NOWAIT, __GFP_NOWARN, gfp_zone } from "../../mm/gfp.ts";
import { __free_pages, alloc_pages, get_page, put_page } from "../../mm/page_alloc.ts";
import {
  PG_active,
  PG_lru,
  PG_referenced,
  PG_unevictable,
  clear_page_flag,
  page_flag,
  page_zonenum,
  set_page_flag,
  type PagePtr,
} from "../../mm/page.ts";
import {
  shrinker_alloc,
  shrinker_free,
  shrinker_register,
  type ShrinkControl,
  type ShrinkerPtr,
} from "../../mm/shrinker.ts";
import { MmStruct, type MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, mm_alloc, mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { flush_tlb_mm_range } from "../../mm/tlbflush.ts";
import { validate_mm } from "../../mm/validate.ts";
import { try_to_free_pages } from "../../mm/vmscan.ts";
import { inactive_is_low, shrink_active_list, shrink_inactive_list, type ScanControl } from "../../mm/vmscan_lru.ts";
import {
  ALLOCSTALL, NR_ACTIVE_FILE, NR_FILE_PAGES, NR_INACTIVE_FILE, NR_UNEVICTABLE, PGACTIVATE, PGDEACTIVATE, PGMAJFAULT, PGREFILL,
  PGSCAN_ANON, PGSCAN_KSWAPD, PGSKIP, PGSTEAL_ANON, PGSTEAL_KSWAPD, SLABS_SCANNED, all_vm_events, global_node_page_state,
  global_vm_event, mod_node_page_state,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { LRU_ACTIVE_FILE, LRU_INACTIVE_FILE, NODE_DATA, Zone, for_each_populated_zone } from "../../mm/zone.ts";
import { lru_pages } from "../../mm/swap.ts";
import { first_zoneref } from "../../mm/zonelist.ts";
import { text_of, with_file, with_files } from "../kernel/fs/files.ts";
import { with_machine } from "../lib/machine.ts";
import { load32, run_in, run_in_none, store32 } from "../lib/user.ts";

const PAGE = 4096;
const FILM = "/usr/media/film0";
const lists = (): number[] =>
  [NR_INACTIVE_FILE, NR_ACTIVE_FILE, NR_UNEVICTABLE].map((item) => global_node_page_state(item));
/** Reads pages first..first+count of a film, each once. */
function read_pages(count: number, first = 0, path = FILM): void {
  with_file(path, O_RDONLY, (file) => {
    file_llseek(file, first * PAGE, SEEK_SET);
    expect((file_read(file, count * PAGE) as Uint8Array).length).toBe(count * PAGE);
  });
}
const page_of = (file: FilePtr, index: number): PagePtr =>
  xa_load(AddressSpace.xa_head, File.f_mapping.get(file), index);
/** Direct reclaim for a request that node 0 alone may serve. */
const reclaim = (gfp = GFP_KERNEL): number => try_to_free_pages(first_zoneref(0, gfp, gfp_zone(gfp), 1), 0, gfp, 1);
/** What `fn` adds to events, in that order. */
function counted(items: readonly number[], fn: () => void): number[] {
  const before = all_vm_events();
  fn();
  const after = all_vm_events();
  return items.map((item) => after[item]! - before[item]!);
}
const DIRECT = 1;
const FILE = 1;
const SCAN_AND_STEAL = [PGSCAN_KSWAPD + DIRECT, PGSTEAL_KSWAPD + DIRECT, PGSCAN_ANON + FILE, PGSTEAL_ANON + FILE];

describe("LRU lists", () => {
  it("a page of the disc is inactive when it is read first, active from the second use on", () => {
    with_files(() => {
      read_pages(10);
      expect(lists().slice(0, 2)).toEqual([10, 0]);
      expect(counted([PGACTIVATE], () => read_pages(4))).toEqual([4]);
      expect(lists().slice(0, 2)).toEqual([6, 4]);
      expect(counted([PGACTIVATE], () => read_pages(4))).toEqual([0]);
      with_file(FILM, O_RDONLY, (file) => {
        const flags = (at: number): boolean[] => [PG_lru, PG_active, PG_referenced].map((flag) => page_flag(page_of(file, at), flag)); // prettier-ignore
        expect([flags(0), flags(5)]).toEqual([[true, true, true], [true, false, true]]); // prettier-ignore
      });
      expect(text_of("/proc/meminfo")).toMatch(/^Active\(file\): +16 kB\nInactive\(file\): +24 kB$/m);
    });
  });

  it("reading on in the page where the last read ended is no second use", () => {
    with_files(() => {
      with_file(FILM, O_RDONLY, (file) => {
        for (let i = 0; i < 8; i++) file_read(file, 1024);
      });
      expect(lists().slice(0, 2)).toEqual([2, 0]);
    });
  });

  it("what ramfs holds is unevictable, however often it is used", () => {
    with_files(() => {
      const boots = lists()[2]!; // the link /bin
      with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
        file_write(file, bytes_of("text"));
        for (let i = 0; i < 3; i++) {
          file_llseek(file, 0, SEEK_SET);
          file_read(file, 4);
        }
        expect(page_flag(page_of(file, 0), PG_unevictable)).toBe(true);
        expect(lists()).toEqual([0, 0, boots + 1]);
        expect(counted(SCAN_AND_STEAL, () => expect(reclaim()).toBe(0))).toEqual([0, 0, 0, 0]);
      });
      do_unlinkat("/tmp/a");
      expect(lists()).toEqual([0, 0, boots]);
    });
  });

  it("new pages come first, the tail is the oldest", () => {
    with_files(() => {
      read_pages(5);
      with_file(FILM, O_RDONLY, (file) => {
        const expected = [4, 3, 2, 1, 0].map((index) => page_of(file, index));
        expect([...lru_pages(NODE_DATA(0), LRU_INACTIVE_FILE, 100)]).toEqual(expected);
      });
    });
  });

  it("inactive is low below the active list, below a GiB; then by the root of ten times the GiB", () => {
    expect([inactive_is_low(10, 11), inactive_is_low(10, 10)]).toEqual([true, false]);
    const gib = 1 << 18;
    expect([inactive_is_low(gib, 3 * gib), inactive_is_low(gib, 7 * gib)]).toEqual([false, false]); // ratio 6, 8
    expect(inactive_is_low(gib / 4, 7 * gib)).toBe(true); // ratio 8: 2 < 7
  });

  it("validate_mm() finds a page without PG_lru, one on the wrong list, and a wrong counter", () => {
    with_files(() => {
      read_pages(3);
      const page = [...lru_pages(NODE_DATA(0), LRU_INACTIVE_FILE, 1)][0]!;
      const findings = (spoil: () => void, mend: () => void): number => {
        spoil();
        const found = validate_mm().length;
        mend();
        return found;
      };
      const flag = (bit: number): number => findings(() => (page_flag(page, bit) ? clear_page_flag : set_page_flag)(page, bit), () => (page_flag(page, bit) ? clear_page_flag : set_page_flag)(page, bit)); // prettier-ignore
      expect([flag(PG_lru), flag(PG_active)]).toEqual([3, 1]); // and NR_FILE_PAGES
      const count = (by: number) => () => mod_node_page_state(NODE_DATA(0), NR_INACTIVE_FILE, by);
      expect(findings(count(1), count(-1))).toBe(1);
      expect(validate_mm()).toEqual([]);
    });
  });
});

/** A shrinker that has always as much as `script.freeable` says. */
const script = static_data("t_vmscan_shrinker", { freeable: "u32", scanned: "u32" });
const count = ksym("t_vmscan_count", () => script.freeable);
const scan = ksym("t_vmscan_scan", (_shrinker: ShrinkerPtr, sc: ShrinkControl) => {
  script.scanned = script.scanned + sc.nr_to_scan;
  return 0;
});

describe("direct reclaim", () => {
  /*
   * 2000 inactive pages, 10,000 objects of a shrinker (seeks 2, batch 128):
   *
   *   p    pages: size >> p        left    sum   objects: (10000 >> p) * 2   + deferred >> p   scanned   deferred
   *   12   2000 >> 12 = 0          2000      0      4                          0                  0          4
   *   11   2000 >> 11 = 0          2000      0      8                          0                  0         12
   *   10   2000 >> 10 = 1          1999      1     18                          0                  0         30
   *    9   1999 >> 9  = 3          1996      4     38                          0                  0         68
   *    8   1996 >> 8  = 7          1989     11     78                          0                  0        146
   *    7   1989 >> 7  = 15         1974     26    156                          1     157:       128        174
   *    6   1974 >> 6  = 30         1944     56    312                          2     314: 2 x   128        230
   *        32 are wanted: 56 is enough
   */
  it("scans by priority until 32 pages are free: a worked example", () => {
    with_files(() => {
      const boots = global_node_page_state(NR_FILE_PAGES);
      read_pages(2000);
      expect(lists().slice(0, 2)).toEqual([2000, 0]);
      const shrinker = shrinker_alloc(0);
      Object.assign(script, { freeable: 10_000, scanned: 0 });
      shrinker_register(shrinker, count, scan, 0);
      const items = [...SCAN_AND_STEAL, SLABS_SCANNED, ALLOCSTALL + 2, ALLOCSTALL + 1, PGREFILL];
      const events = counted(items, () => expect(reclaim()).toBe(56));
      expect(events).toEqual([56, 56, 56, 56, 384, 1, 0, 0]);
      expect(lists().slice(0, 2)).toEqual([1944, 0]);
      expect([script.scanned, global_node_page_state(NR_FILE_PAGES) - boots]).toEqual([384, 1944]);
      shrinker_free(shrinker);
    });
  });

  it("takes the oldest pages, and a file that is read again has them again", () => {
    with_files(() => {
      read_pages(2000);
      reclaim();
      with_file(FILM, O_RDONLY, (file) => {
        const gone = Array.from({ length: 2000 }, (_, i) => i).filter((i) => page_of(file, i) === 0);
        expect(gone).toEqual(Array.from({ length: 56 }, (_, i) => i));
        const text = Buffer.from(file_read(file, PAGE) as Uint8Array).toString();
        expect(text.slice(64, 127).trimEnd()).toBe("inode 16 byte 64");
      });
    });
  });

  /*
   * 100 inactive, 1000 active: inactive is low as long as it is smaller than the active list, so active pages are moved.
   *
   *   p     inactive >> p     freed    active >> p      moved to inactive
   *   12…10       0                       0
   *    9          0                    1000 >> 9 = 1     1     active 999, inactive 101
   *    8          0                     999 >> 8 = 3     3     996, 104
   *    7          0                     996 >> 7 = 7     7     989, 111
   *    6    111 >> 6 = 1        1       989 >> 6 = 15   15     974, 125
   *    5    125 >> 5 = 3        3       974 >> 5 = 30   30     944, 152
   *    4    152 >> 4 = 9        9       944 >> 4 = 59   59     885, 202      32, then 27
   *    3    202 >> 3 = 25      25       885 >> 3 = 110   110     25 in this round are not yet 32, so all of it;
   *                                                               38 in all rounds are, so it is the last
   */
  it("makes active pages inactive while there are too few of those", () => {
    with_files(() => {
      read_pages(1000, 100);
      read_pages(1000, 100);
      read_pages(100);
      expect(lists().slice(0, 2)).toEqual([100, 1000]);
      const events = counted([...SCAN_AND_STEAL.slice(0, 2), PGREFILL, PGDEACTIVATE], () => expect(reclaim()).toBe(38));
      expect(events).toEqual([38, 38, 225, 225]);
      expect(lists().slice(0, 2)).toEqual([100 - 38 + 225, 1000 - 225]);
    });
  });

  it("spares active pages while there are enough inactive ones, but takes them when nothing else is left", () => {
    with_files(() => {
      read_pages(40);
      read_pages(20);
      // 20 inactive and 20 active: not low. Every inactive page is in use by somebody else and cannot go.
      const held: PagePtr[] = [];
      with_file(FILM, O_RDONLY, (file) => {
        for (let i = 20; i < 40; i++) held.push(page_of(file, i));
      });
      held.forEach(get_page);
      const events = counted([ALLOCSTALL + 2, PGDEACTIVATE], () => expect(reclaim()).toBeGreaterThan(0));
      expect(events[0]).toBe(2); // once around sparing them, once not
      expect(events[1]).toBeGreaterThan(0);
      held.forEach(put_page);
      expect(validate_mm()).toEqual([]);
    });
  });

  it("for a low zone passes over pages of higher ones, which it looks at but does not count as its own", () => {
    with_files(() => {
      // Node 0 has 16 MiB of Normal and 12 MiB of DMA32: the oldest pages lie in Normal.
      const normal: PagePtr[] = [];
      read_pages(5000);
      for (const page of lru_pages(NODE_DATA(0), LRU_INACTIVE_FILE, 1e6))
        if (page_zonenum(page) === 2) normal.push(page);
      expect(normal.length).toBeGreaterThan(1000);
      const low = lists()[0]! - normal.length;
      expect(low).toBeGreaterThan(100);
      const [skipped, scanned, stolen, stalls] = counted(
        [PGSKIP + 2, PGSCAN_KSWAPD + DIRECT, PGSTEAL_KSWAPD + DIRECT, ALLOCSTALL + 1],
        () =>
          // prettier-ignore
          expect(reclaim(GFP_DMA32 | GFP_KERNEL)).toBeGreaterThanOrEqual(32),
      ) as [number, number, number, number];
      expect(skipped).toBeGreaterThan(0);
      expect([scanned, stalls]).toEqual([skipped + stolen, 1]);
      expect([...lru_pages(NODE_DATA(0), LRU_INACTIVE_FILE, 1e6)].filter((page) => page_zonenum(page) === 2)).toHaveLength(normal.length); // prettier-ignore
    });
  });

  it("a file whose last page was taken can be reclaimed itself, and is read from the disc again", () => {
    with_files(() => {
      with_file("/usr/src/000/001.c", O_RDONLY, (file) => void file_read(file, 5000));
      const inode_of = (): number => {
        const file = do_filp_open("/usr/src/000/001.c", O_RDONLY, 0);
        const inode = File.f_inode.get(file);
        fput(file);
        return inode;
      };
      const inode = inode_of();
      expect(AddressSpace.nrpages.get(Inode.i_data.at(inode))).toBe(1);
      for (let i = 0; i < 20 && lists()[0]! + lists()[1]! > 0; i++) reclaim();
      expect(lists().slice(0, 2)).toEqual([0, 0]);
      expect(vfs_stat("/usr/src/000/001.c", true)).toMatchObject({ size: 2000 });
    });
  });
});

describe("pages that programs have mapped", () => {
  const BASE = 0x400000;
  const PAGES = 64;
  const at = (page: number): number => BASE + page * PAGE;

  /** With PAGES pages of a film mapped and touched in `programs` address spaces, one a CPU, as the only pages on any list. */
  function with_mapped(programs: number, prot: number, fn: (mms: readonly MmPtr[], film: FilePtr) => void): void {
    with_files(() => {
      const film = do_filp_open(FILM, O_RDONLY, 0);
      const mms = Array.from({ length: programs }, (_, cpu) => {
        const mm = mm_alloc();
        run_in(cpu, mm);
        expect(vm_mmap_file(mm, BASE, PAGES * PAGE, prot, MAP_PRIVATE | MAP_FIXED, film, 0)).toBe(BASE);
        for (let page = PAGES - 1; page >= 0; page--) expect(typeof load32(cpu, at(page))).toBe("number");
        return mm;
      });
      expect(validate_mm()).toEqual([]);
      fn(mms, film);
      expect(validate_mm()).toEqual([]);
      run_in_none();
      mms.forEach(mmput);
      fput(film);
    });
  }
  const rss_of = (mm: MmPtr): number => MmStruct.rss_file.get(mm);
  const SCAN: ScanControl = {
    gfp: GFP_KERNEL, order: 0, reclaim_idx: 2, is_kswapd: false, nr_to_reclaim: 32, priority: 12, nr_scanned: 0,
    nr_reclaimed: 0, force_deactivate: false, skipped_deactivate: false,
  }; // prettier-ignore
  /** Looks at all inactive pages once; how many came free. */
  const look_at_inactive = (): number => shrink_inactive_list(NODE_DATA(0), LRU_INACTIVE_FILE, PAGES, { ...SCAN });
  const ITEMS = [PGSCAN_KSWAPD + DIRECT, PGSTEAL_KSWAPD + DIRECT, PGACTIVATE];

  it("one that was touched has a second chance; then it is unmapped, and the next touch finds it on the disc", () => {
    with_mapped(1, PROT_READ, ([mm], film) => {
      const pages = Array.from({ length: PAGES }, (_, i) => page_of(film, i));
      expect(lists().slice(0, 2)).toEqual([PAGES, 0]);
      // The first look clears the accessed bits and marks; nobody touches them, so the next takes what it sees.
      expect(counted(ITEMS, () => expect(look_at_inactive()).toBe(0))).toEqual([PAGES, 0, 0]);
      const [scanned, stolen, activated] = counted(ITEMS, () => expect(reclaim()).toBeGreaterThanOrEqual(32));
      expect([activated, scanned]).toEqual([0, stolen]);
      expect(rss_of(mm!)).toBe(PAGES - stolen!);
      const gone = pages.filter((page, i) => page_of(film, i) !== page).length;
      expect(gone).toBe(stolen);
      const faults = global_vm_event(PGMAJFAULT);
      for (let page = 0; page < PAGES; page++) expect(load32(0, at(page))).toBe(Buffer.from("inod").readInt32LE());
      expect(global_vm_event(PGMAJFAULT) - faults).toBe(stolen);
    });
  });

  it("one that is touched again between two looks, or by two, becomes active", () => {
    with_mapped(1, PROT_READ, ([mm]) => {
      const touch_all = (): void => {
        flush_tlb_mm_range(mm!, BASE, at(PAGES));
        for (let page = 0; page < PAGES; page++) load32(0, at(page));
      };
      expect(look_at_inactive()).toBe(0); // all were touched: marked
      touch_all();
      expect(counted([PGACTIVATE], () => expect(look_at_inactive()).toBe(0))).toEqual([PAGES]);
      expect(lists().slice(0, 2)).toEqual([0, PAGES]);
      expect(rss_of(mm!)).toBe(PAGES);
    });
    with_mapped(2, PROT_READ, () => {
      expect(counted([PGACTIVATE], () => expect(look_at_inactive()).toBe(0))).toEqual([PAGES]);
    });
  });

  it("code that was run becomes active at once, and stays while it is run", () => {
    with_mapped(1, PROT_READ | PROT_EXEC, ([mm]) => {
      expect(counted([PGACTIVATE], () => expect(look_at_inactive()).toBe(0))).toEqual([PAGES]);
      flush_tlb_mm_range(mm!, BASE, at(PAGES));
      load32(0, at(3));
      expect(
        counted([PGDEACTIVATE, PGREFILL], () => shrink_active_list(NODE_DATA(0), LRU_ACTIVE_FILE, PAGES, SCAN)),
      ).toEqual([PAGES - 1, PAGES]);
      expect(lists().slice(0, 2)).toEqual([PAGES - 1, 1]);
    });
  });

  it("memory of programs and shared memory stay, for want of swap", () => {
    with_files(() => {
      const mm = mm_alloc();
      run_in(0, mm);
      vm_mmap_zeroes(mm, BASE, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED);
      for (let page = 0; page < 8; page++) store32(0, at(page), page);
      expect(counted(ITEMS, () => expect(reclaim()).toBe(0))).toEqual([0, 0, 0]);
      expect(load32(0, at(7))).toBe(7);
      run_in_none();
      mmput(mm);
    });
  });
});

describe("a request for pages", () => {
  /** Takes pages until `gfp` gets no more; gives them back. */
  function take_all(gfp: number): number {
    const pages: PagePtr[] = [];
    for (let page = alloc_pages(gfp, 0); page !== 0; page = alloc_pages(gfp, 0)) pages.push(page);
    pages.forEach((page) => __free_pages(page, 0));
    return pages.length;
  }

  it("that may wait gets the page cache too; one that may not leaves it alone", () => {
    with_files(() => {
      const without = take_all(GFP_KERNEL | __GFP_NOWARN);
      read_pages(3000);
      for (const gfp of [GFP_NOWAIT, GFP_ATOMIC | __GFP_NOWARN]) {
        const [stalls] = counted([ALLOCSTALL + 2], () => take_all(gfp));
        expect([stalls, lists()[0]]).toEqual([0, 3000]);
      }
      const [stalls, stolen] = counted([ALLOCSTALL + 2, PGSTEAL_KSWAPD + DIRECT], () => {
        const got = take_all(GFP_KERNEL | __GFP_NOWARN);
        expect(got).toBeGreaterThan(without - 200); // inodes, dentries and nodes of trees hold some pages
        for (const zone of for_each_populated_zone()) expect(Zone.watermark_boost.get(zone)).toBe(0); // given up, too
      });
      expect(stolen).toBe(3000);
      expect(stalls).toBeGreaterThan(10);
      expect(global_vm_event(PGSTEAL_KSWAPD)).toBe(0); // no kswapd on a machine without tasks
    });
  });

  it("does not reclaim before the kernel is up, nor where there are no files", () => {
    with_machine({}, () => {
      const [stalls, scanned] = counted([ALLOCSTALL + 2, PGSCAN_KSWAPD + DIRECT], () => take_all(GFP_KERNEL | __GFP_NOWARN)); // prettier-ignore
      expect(stalls).toBeGreaterThan(0);
      expect(scanned).toBe(0);
    });
  });
});

describe("random use of files under pressure", () => {
  it("leaves every list and counter as a walk finds it, and every file as it is on the disc", () => {
    const step = fc.record({
      what: fc.constantFrom("read", "stat", "reclaim", "squeeze", "drop"),
      folder: fc.integer({ min: 0, max: 255 }),
      file: fc.integer({ min: 0, max: 255 }),
    });
    const three = (n: number): string => String(n).padStart(3, "0");
    const run = (steps: { what: string; folder: number; file: number }[]): void => {
      for (const { what, folder, file } of steps) {
        const path = `/usr/src/${three(folder)}/${three(file)}.c`;
        if (what === "read")
          expect(text_of(path).startsWith(`inode ${65536 + folder * 256 + file} byte 0 `)).toBe(true);
        else if (what === "stat") expect(vfs_stat(path, true)).toMatchObject({ size: (1 + (file % 8)) * 1000 });
        else if (what === "reclaim") reclaim();
        else if (what === "squeeze") read_pages(100, (folder * 256 + file) % 8000);
        else drop_caches(1 + (file % 3));
      }
      expect(validate_mm()).toEqual([]);
    };
    with_files(() => void fc.assert(fc.property(fc.array(step, { maxLength: 40 }), run), { numRuns: 30, seed: 1 }), {
      machine: PRESETS.embedded!,
    });
  });
});
