/** Files as memory: what a fault maps, copies and dirties, and what truncation takes away; shared memory without a file. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { _PAGE_DIRTY, _PAGE_RW } from "../../hal/page_walk.ts";
import { drop_caches } from "../../kernel/fs/drop_caches.ts";
import { vm_mmap_file, vm_mmap_zeroes } from "../../kernel/fs/file_mmap.ts";
import { fput } from "../../kernel/fs/file_table.ts";
import { filemap_find_page } from "../../kernel/fs/filemap.ts";
import { File, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY, SEEK_SET, type FilePtr } from "../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../kernel/fs/namei.ts";
import { do_filp_open, file_llseek, file_read, file_truncate, file_write } from "../../kernel/fs/open.ts";
import { EACCES, EINVAL, ENODEV, EOVERFLOW } from "../../kernel/lib/errno.ts";
import { VM_FAULT_SIGBUS, handle_mm_fault } from "../../mm/memory.ts";
import { MmStruct, VM_ACCESS_FLAGS, VM_SHARED, VmArea, get_mm_rss, type MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, do_mmap, do_munmap, dup_mm, mm_alloc,
  mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { do_mprotect, madvise_dontneed } from "../../mm/mprotect.ts";
import { PG_dirty, PG_swapbacked, Page, page_flag, type PagePtr } from "../../mm/page.ts";
import { PG_LEVEL_4K, pte_flags, pte_none, pte_offset, pte_page, type PtePtr } from "../../mm/pgtable.ts";
import { page_mapcount } from "../../mm/rmap.ts";
import {
  NR_ANON_MAPPED, NR_FILE_MAPPED, NR_FILE_PAGES, NR_SHMEM, PGFAULT, PGMAJFAULT, all_vm_events, global_node_page_state,
} from "../../mm/vmstat.ts"; // prettier-ignore
import { validate_mm } from "../../mm/validate.ts";
import { find_vma, for_each_vma } from "../../mm/vma.ts";
import { with_files } from "../kernel/fs/files.ts";
import { SEGV, load32, run_in, run_in_none, store32 } from "../lib/user.ts";

const RW = PROT_READ | PROT_WRITE;
const BASE = 0x400000;
const FILM = "/usr/media/film0";
const at = (page: number): number => BASE + page * PAGE_SIZE;
const pte_of = (mm: MmPtr, page: number): PtePtr => pte_offset(MmStruct.tables.at(mm), at(page), PG_LEVEL_4K);
const word = (text: string): number => Buffer.from(text).readInt32LE();
const gauges = (): number[] => [NR_FILE_MAPPED, NR_FILE_PAGES, NR_ANON_MAPPED, NR_SHMEM].map(global_node_page_state);
const rss = (mm: MmPtr): number[] => [MmStruct.rss_file, MmStruct.rss_anon, MmStruct.rss_shmem].map((f) => f.get(mm));

/** With an address space in which CPU 0 runs. */
function with_memory(fn: (mm: MmPtr) => void): void {
  with_files(() => {
    const mm = mm_alloc();
    run_in(0, mm);
    fn(mm);
    run_in_none();
    mmput(mm);
    expect(validate_mm()).toEqual([]);
  });
}

/** A file of `pages` pages on ramfs, each beginning with its number, or (0) none. */
function ram_file(pages: number, flags = O_RDWR): FilePtr {
  const file = do_filp_open("/tmp/f", flags | O_CREAT, 0o644);
  for (let i = 0; i < pages; i++) write_word(file, i * PAGE_SIZE, i + 1);
  return file;
}

function write_word(file: FilePtr, pos: number, value: number): void {
  file_llseek(file, pos, SEEK_SET);
  expect(file_write(file, new Uint8Array(new Int32Array([value]).buffer))).toBe(4);
}

function read_word(file: FilePtr, pos: number): number {
  file_llseek(file, pos, SEEK_SET);
  return new DataView((file_read(file, 4) as Uint8Array).buffer).getInt32(0, true);
}

const map = (mm: MmPtr, file: FilePtr, pages: number, prot: number, type: number, first = 0, page = 0): number =>
  vm_mmap_file(mm, at(page), pages * PAGE_SIZE, prot, type | MAP_FIXED, file, first * PAGE_SIZE);

describe("a mapped file", () => {
  it("is read from the disc where it is touched, a major fault, and mapped where it is in memory around it", () => {
    with_memory((mm) => {
      const film = do_filp_open(FILM, O_RDONLY, 0);
      file_read(film, 10 * PAGE_SIZE); // pages 0 to 9 are in memory
      const before = gauges();
      const events = all_vm_events();
      const counted = (item: number): number => all_vm_events()[item]! - events[item]!;
      expect(map(mm, film, 40, PROT_READ, MAP_PRIVATE, 4)).toBe(BASE);
      expect(load32(0, at(2))).toBe(word("inod"));
      expect([counted(PGFAULT), counted(PGMAJFAULT), rss(mm)]).toEqual([1, 0, [6, 0, 0]]); // pages 4 to 9
      expect(load32(0, at(5))).toBe(word("inod"));
      expect(load32(0, at(20))).toBe(word("inod"));
      expect([counted(PGFAULT), counted(PGMAJFAULT), rss(mm)]).toEqual([2, 1, [7, 0, 0]]);
      expect(gauges().map((now, i) => now - before[i]!)).toEqual([7, 1, 0, 0]);
      const page = pte_page(pte_of(mm, 20));
      expect(page).toBe(filemap_find_page(File.f_mapping.get(film), 24));
      expect([Page.refcount.get(page), page_mapcount(page)]).toEqual([2, 1]);
      fput(film); // the area has a use of its own
      expect(load32(0, at(21))).toBe(word("inod"));
      expect(do_munmap(mm, BASE, 40 * PAGE_SIZE)).toBe(0);
      expect([rss(mm), Page.refcount.get(page), page_mapcount(page)]).toEqual([[0, 0, 0], 1, 0]);
    });
  });

  it("private: a write copies, read before or not; the file does not change, and changes no copy", () => {
    with_memory((mm) => {
      const file = ram_file(3);
      map(mm, file, 3, RW, MAP_PRIVATE);
      expect(load32(0, at(0))).toBe(1);
      expect(rss(mm)).toEqual([3, 0, 0]);
      store32(0, at(0), 100);
      expect(rss(mm)).toEqual([2, 1, 0]);
      expect(do_munmap(mm, at(1), PAGE_SIZE)).toBe(0);
      map(mm, file, 1, RW, MAP_PRIVATE, 1, 1);
      store32(0, at(1), 200);
      expect([rss(mm), [...for_each_vma(mm)].length]).toEqual([[1, 2, 0], 1]); // joined again
      write_word(file, 0, 7);
      write_word(file, 2 * PAGE_SIZE, 8);
      expect([0, 1, 2].map((page) => load32(0, at(page)))).toEqual([100, 200, 8]);
      expect([0, 1].map((page) => read_word(file, page * PAGE_SIZE))).toEqual([7, 2]);
      expect(madvise_dontneed(mm, BASE, 3 * PAGE_SIZE)).toBe(0);
      expect([0, 1, 2].map((page) => load32(0, at(page)))).toEqual([7, 2, 8]); // what the file says
      fput(file);
      do_unlinkat("/tmp/f");
    });
  });

  it("shared: a write is the file's at once, for every address space and for read(); the page is dirty", () => {
    with_memory((mm) => {
      const file = ram_file(1);
      file_truncate(file, 3 * PAGE_SIZE);
      map(mm, file, 3, RW, MAP_SHARED);
      const other = mm_alloc();
      run_in(1, other);
      map(other, file, 3, RW, MAP_SHARED);
      store32(0, at(1), 5);
      const page = pte_page(pte_of(mm, 1));
      expect([page_flag(page, PG_dirty), pte_flags(pte_of(mm, 1)) & _PAGE_DIRTY]).toEqual([true, _PAGE_DIRTY]);
      expect([load32(1, at(1)), read_word(file, PAGE_SIZE)]).toEqual([5, 5]);
      expect([Page.refcount.get(page), page_mapcount(page)]).toEqual([3, 2]);
      expect(load32(0, at(2))).toBe(0); // a hole: clean, and writable
      expect(pte_flags(pte_of(mm, 2)) & (_PAGE_RW | _PAGE_DIRTY)).toBe(_PAGE_RW);
      const hole = pte_page(pte_of(mm, 2));
      store32(0, at(2), 6);
      expect(page_flag(hole, PG_dirty)).toBe(false); // the entry knows it
      drop_caches(1);
      expect(do_munmap(mm, BASE, 3 * PAGE_SIZE)).toBe(0);
      expect(page_flag(hole, PG_dirty)).toBe(true);
      drop_caches(1);
      expect([read_word(file, 2 * PAGE_SIZE), load32(1, at(2))]).toEqual([6, 6]);
      run_in(1, 0);
      mmput(other);
      fput(file);
      do_unlinkat("/tmp/f");
    });
  });

  it("ends with its last page: SIGBUS behind; cutting it takes pages and copies away; unlinked, it lives on", () => {
    with_memory((mm) => {
      const file = ram_file(4);
      map(mm, file, 6, RW, MAP_PRIVATE);
      store32(0, at(2), 300);
      store32(0, at(0), 100);
      expect(load32(0, at(3))).toBe(4);
      expect([load32(0, at(4)), MmStruct.fault.get(mm)]).toEqual([SEGV, VM_FAULT_SIGBUS]);
      expect(handle_mm_fault(find_vma(mm, at(4)), at(4), true)).toBe(VM_FAULT_SIGBUS);
      expect(file_truncate(file, PAGE_SIZE + 1)).toBe(0);
      expect([rss(mm), load32(0, at(2))]).toEqual([[1, 1, 0], SEGV]);
      expect([load32(0, at(0)), load32(0, at(1))]).toEqual([100, 2 & 0xff]);
      file_truncate(file, 3 * PAGE_SIZE);
      expect([load32(0, at(1)), load32(0, at(2))]).toEqual([2, 0]);
      do_unlinkat("/tmp/f");
      fput(file);
      expect(madvise_dontneed(mm, BASE, 6 * PAGE_SIZE)).toBe(0);
      expect([load32(0, at(0)), get_mm_rss(mm)]).toEqual([1, 3]);
    });
  });

  it("is mapped only as it is open, from whole pages on, if it can be mapped at all", () => {
    with_memory((mm) => {
      const film = do_filp_open(FILM, O_RDONLY, 0);
      const file = ram_file(1, O_WRONLY);
      const meminfo = do_filp_open("/proc/meminfo", O_RDONLY, 0);
      expect(map(mm, film, 1, RW, MAP_SHARED)).toBe(-EACCES);
      expect(map(mm, file, 1, PROT_READ, MAP_PRIVATE)).toBe(-EACCES);
      expect(map(mm, meminfo, 1, PROT_READ, MAP_PRIVATE)).toBe(-ENODEV);
      expect(map(mm, film, 1, PROT_READ, MAP_PRIVATE, 0.5)).toBe(-EINVAL);
      expect(map(mm, film, 1, PROT_READ, MAP_SHARED | MAP_PRIVATE)).toBe(-EINVAL);
      expect(map(mm, film, 1, PROT_READ, MAP_PRIVATE, 2 ** 40)).toBe(-EOVERFLOW);
      expect(map(mm, film, 1, PROT_READ, MAP_SHARED)).toBe(BASE);
      expect(VmArea.vm_flags.get(find_vma(mm, BASE)) & (VM_SHARED | VM_ACCESS_FLAGS)).toBe(PROT_READ);
      expect(do_mprotect(mm, BASE, PAGE_SIZE, RW)).toBe(-EACCES);
      expect(map(mm, film, 1, PROT_READ, MAP_PRIVATE)).toBe(BASE);
      expect(do_mprotect(mm, BASE, PAGE_SIZE, RW)).toBe(0); // a copy may be written to
      expect([store32(0, BASE, 1), load32(0, BASE)]).toEqual([undefined, 1]);
      for (const each of [film, file, meminfo]) fput(each);
      do_unlinkat("/tmp/f");
    });
  });

  it("areas of it are joined where offsets follow on, and cut with their offsets", () => {
    with_memory((mm) => {
      const film = do_filp_open(FILM, O_RDONLY, 0);
      const areas = (): number[][] =>
        [...for_each_vma(mm)].map((vma) => [(VmArea.vm_start.get(vma) - BASE) / PAGE_SIZE, VmArea.vm_pgoff.get(vma)]);
      map(mm, film, 2, PROT_READ, MAP_PRIVATE, 10, 0);
      map(mm, film, 2, PROT_READ, MAP_PRIVATE, 12, 2);
      expect(areas()).toEqual([[0, 10]]);
      map(mm, film, 2, PROT_READ, MAP_PRIVATE, 20, 4); // another part
      map(mm, film, 1, PROT_READ, MAP_SHARED, 22, 6); // another kind
      const again = do_filp_open(FILM, O_RDONLY, 0);
      map(mm, again, 1, PROT_READ, MAP_SHARED, 23, 7); // another open file
      expect(areas()).toEqual([[0, 10], [4, 20], [6, 22], [7, 23]]); // prettier-ignore
      expect(do_munmap(mm, at(1), PAGE_SIZE)).toBe(0);
      expect(areas().slice(0, 2)).toEqual([[0, 10], [2, 12]]); // prettier-ignore
      for (const file of [film, again]) fput(file);
    });
  });
});

describe("shared memory without a file", () => {
  it("is one for all that a fork makes of it, counts as shmem, and goes with the last of them", () => {
    with_memory((mm) => {
      const before = gauges();
      expect(vm_mmap_zeroes(mm, BASE, 4 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)).toBe(BASE);
      expect(do_mmap(mm, at(8), PAGE_SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)).toBe(at(8));
      store32(0, at(0), 1);
      store32(0, at(8), 2);
      const child = dup_mm(mm);
      expect([rss(mm), rss(child)]).toEqual([[0, 1, 1], [0, 1, 0]]); // prettier-ignore
      run_in(1, child);
      store32(1, at(0), 11);
      store32(1, at(1), 12);
      store32(1, at(8), 13);
      expect([0, 1, 8].map((page) => load32(0, at(page)))).toEqual([11, 12, 2]);
      const page: PagePtr = pte_page(pte_of(mm, 0));
      expect([page_mapcount(page), Page.refcount.get(page), page_flag(page, PG_swapbacked)]).toEqual([2, 3, true]);
      expect(gauges().map((now, i) => now - before[i]!)).toEqual([2, 2, 2, 2]);
      expect(validate_mm()).toEqual([]);
      run_in(0, 0);
      expect(do_munmap(mm, BASE, 4 * PAGE_SIZE)).toBe(0);
      expect(load32(1, at(0))).toBe(11);
      run_in(1, 0);
      mmput(child);
      expect(gauges().map((now, i) => now - before[i]!)).toEqual([0, 0, 1, 0]);
    });
  });
});

describe("fork", () => {
  it("copies what a private area of a file has of its own, and leaves the rest to faults", () => {
    with_memory((mm) => {
      const file = ram_file(3);
      map(mm, file, 3, RW, MAP_PRIVATE);
      load32(0, at(0));
      const early = dup_mm(mm);
      expect([rss(mm), rss(early)]).toEqual([[3, 0, 0], [0, 0, 0]]); // prettier-ignore
      store32(0, at(1), 20);
      const child = dup_mm(mm);
      expect([rss(mm), rss(child)]).toEqual([[2, 1, 0], [2, 1, 0]]); // prettier-ignore
      run_in(1, child);
      expect([load32(1, at(1)), store32(1, at(1), 21), load32(0, at(1))]).toEqual([20, undefined, 20]);
      expect([pte_none(pte_of(child, 2)), page_mapcount(pte_page(pte_of(child, 2)))]).toEqual([false, 2]);
      run_in_none();
      for (const each of [early, child]) mmput(each);
      fput(file);
      do_unlinkat("/tmp/f");
    });
  });
});

/* Random programs over one file: two address spaces, each with private, shared and anonymous pages, and read() and write(). */
describe("any sequence of maps, accesses, forks, reads, writes and cuts", () => {
  const PAGES = 6;
  const operation = fc.record({
    kind: fc.constantFrom(
      "private",
      "shared",
      "store",
      "store",
      "load",
      "write",
      "read",
      "cut",
      "unmap",
      "fork",
      "drop",
    ),
    who: fc.nat(3),
    page: fc.nat(PAGES - 1),
    first: fc.nat(PAGES - 1),
    length: fc.integer({ min: 1, max: 3 }),
  });
  /** What lies at a page of memory: a page of the file, with the program's own copy if it wrote. */
  type Cell = { index: number; is_shared: boolean; own?: number };

  function live(operations: readonly (typeof operation extends fc.Arbitrary<infer T> ? T : never)[]): void {
    const file = ram_file(0);
    let size = 0; // in pages
    const contents = new Array<number>(PAGES * 2).fill(0);
    const programs: { mm: MmPtr; cells: (Cell | undefined)[] }[] = [{ mm: mm_alloc(), cells: [] }];
    const value_of = (cell: Cell | undefined): number | string =>
      cell === undefined || cell.index >= size ? SEGV : (cell.own ?? contents[cell.index]!);
    for (const [step, { kind, who, page, first, length }] of operations.entries()) {
      const { mm, cells } = programs[who % programs.length]!;
      const value = step + 1;
      run_in(0, mm);
      if (kind === "private" || kind === "shared") {
        expect(map(mm, file, length, RW, kind === "shared" ? MAP_SHARED : MAP_PRIVATE, first, page)).toBe(at(page));
        for (let i = 0; i < length; i++) cells[page + i] = { index: first + i, is_shared: kind === "shared" };
      }
      const cell = cells[page];
      if (kind === "load") expect(load32(0, at(page))).toBe(value_of(cell));
      if (kind === "store") {
        const may = cell !== undefined && cell.index < size;
        expect(store32(0, at(page), value)).toBe(may ? undefined : SEGV);
        if (may && cell.is_shared) contents[cell.index] = value;
        if (may && !cell.is_shared) cell.own = value;
      }
      if (kind === "write") {
        write_word(file, first * PAGE_SIZE, value);
        contents[first] = value;
        size = Math.max(size, first + 1);
      }
      if (kind === "read" && first < size) expect(read_word(file, first * PAGE_SIZE)).toBe(contents[first]);
      if (kind === "cut") {
        file_truncate(file, first * PAGE_SIZE);
        size = first;
        contents.fill(0, first);
        for (const each of programs) for (const c of each.cells) if (c && c.index >= first) delete c.own;
      }
      if (kind === "unmap") {
        do_munmap(mm, at(page), length * PAGE_SIZE);
        cells.fill(undefined, page, page + length);
      }
      if (kind === "fork" && programs.length < 4)
        programs.push({ mm: dup_mm(mm), cells: cells.map((each) => each && { ...each }) });
      if (kind === "drop") drop_caches(1);
    }
    expect(validate_mm()).toEqual([]);
    for (const { mm, cells } of programs) {
      run_in(0, mm);
      for (let i = 0; i < cells.length; i++) expect(load32(0, at(i))).toBe(value_of(cells[i]));
      expect(MmStruct.rss_anon.get(mm)).toBe(cells.filter((cell) => cell?.own !== undefined).length);
    }
    expect(validate_mm()).toEqual([]);
    run_in_none();
    for (const { mm } of programs) mmput(mm);
    fput(file);
    do_unlinkat("/tmp/f");
  }

  it("reads what a model of one file and each program's copies says", () => {
    with_files(() => {
      fc.assert(fc.property(fc.array(operation, { minLength: 10, maxLength: 60 }), live), { seed: 11, numRuns: 40 });
    });
  });
});
