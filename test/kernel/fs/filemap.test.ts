/** The page cache and its tree: which pages a file has, what reads as zero, what comes back. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytes_of } from "../../../kernel/fs/bytes.ts";
import { drop_caches } from "../../../kernel/fs/drop_caches.ts";
import { MAX_LFS_FILESIZE } from "../../../kernel/fs/filemap.ts";
import { File, Inode, O_CREAT, O_RDWR, SEEK_SET, type FilePtr } from "../../../kernel/fs/fs.ts";
import { do_unlinkat } from "../../../kernel/fs/namei.ts";
import { file_llseek, file_read, file_truncate, file_write } from "../../../kernel/fs/open.ts";
import { XA_MAX_INDEX, XaNode, xa_erase, xa_for_each, xa_insert, xa_load } from "../../../kernel/fs/xarray.ts";
import { EINVAL } from "../../../kernel/lib/errno.ts";
import { AddressSpace } from "../../../mm/address_space.ts";
import { GFP_KERNEL } from "../../../mm/gfp.ts";
import { kfree, kzalloc } from "../../../mm/kmalloc.ts";
import { find_cache, get_slabinfo } from "../../../mm/slab_common.ts";
import { NR_FILE_PAGES, NR_UNEVICTABLE, global_node_page_state, global_zone_page_state } from "../../../mm/vmstat.ts";
import { NR_ZONE_UNEVICTABLE } from "../../../mm/zone.ts";
import { cat, echo, expect_same, figures, with_each_failure, with_file, with_files } from "./files.ts";

const nodes_live = (): number => get_slabinfo(find_cache("radix_tree_node")).live_objs;
const pages_of = (file: FilePtr): number => AddressSpace.nrpages.get(File.f_mapping.get(file));

describe("the page cache", () => {
  it("has a page for each page of a file that was written, and counts it", () => {
    with_files(() => {
      with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
        file_write(file, new Uint8Array(10_000).fill(7));
        expect(pages_of(file)).toBe(3);
        expect(global_node_page_state(NR_FILE_PAGES)).toBe(3);
        expect(global_node_page_state(NR_UNEVICTABLE)).toBe(3);
        expect(global_zone_page_state(NR_ZONE_UNEVICTABLE)).toBe(3);
        file_truncate(file, 4097);
        expect(global_node_page_state(NR_FILE_PAGES)).toBe(2);
      });
      do_unlinkat("/tmp/a");
      expect(global_node_page_state(NR_FILE_PAGES)).toBe(0);
    });
  });

  it("what was never written reads as zeroes and is a clean page, which drop_caches 1 takes; what was written stays", () => {
    with_files(() => {
      with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
        file_llseek(file, 100_000, SEEK_SET);
        file_write(file, bytes_of("end"));
        expect(pages_of(file)).toBe(1);
        file_llseek(file, 0, SEEK_SET);
        expect(file_read(file, 5000)).toEqual(new Uint8Array(5000));
        expect(pages_of(file)).toBe(3);
        drop_caches(1);
        expect(pages_of(file)).toBe(1);
        file_llseek(file, 99_999, SEEK_SET);
        expect(file_read(file, 100)).toEqual(Uint8Array.from([0, ...bytes_of("end")]));
      });
      do_unlinkat("/tmp/a");
    });
  });

  it("what is behind a file's end is gone when the file grows again", () => {
    with_files(() => {
      with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
        file_write(file, bytes_of("0123456789"));
        file_truncate(file, 3);
        file_truncate(file, 6);
        expect(cat("/tmp/a")).toBe("012\0\0\0");
        expect(Inode.i_size.get(File.f_inode.get(file))).toBe(6);
      });
      do_unlinkat("/tmp/a");
    });
  });

  it("a file may be as large as its tree can be, with the pages that it has", () => {
    with_files(() => {
      with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
        expect(file_llseek(file, MAX_LFS_FILESIZE + 1, SEEK_SET)).toBe(-EINVAL);
        expect(file_llseek(file, MAX_LFS_FILESIZE - 1, SEEK_SET)).toBe(MAX_LFS_FILESIZE - 1);
        expect(file_write(file, bytes_of("xy"))).toBe(-27); // EFBIG
        expect(file_write(file, bytes_of("x"))).toBe(1);
        expect([pages_of(file), nodes_live()]).toEqual([1, 5]);
        file_llseek(file, 0, SEEK_SET);
        expect(file_write(file, bytes_of("x"))).toBe(1);
        expect([pages_of(file), nodes_live()]).toEqual([2, 9]);
      });
      do_unlinkat("/tmp/a");
      expect(nodes_live()).toBe(0);
    });
  });

  it("a write that runs out of memory says how much it wrote, and the file has just that", () => {
    with_files(() => {
      echo("", "/tmp/a");
      const before = figures();
      const bytes = new Uint8Array(9000).fill(65);
      const runs = with_each_failure(
        () => with_file("/tmp/a", O_RDWR, (file) => file_write(file, bytes)),
        (written) => {
          const text = cat("/tmp/a");
          expect(written < 0 ? 0 : written).toBe((text as string).length);
          if (written < 0) expect(text).toBe("");
          else expect(text).toBe("A".repeat(written));
          with_file("/tmp/a", O_RDWR, (file) => file_truncate(file, 0));
          expect_same(before);
        },
      );
      expect(runs).toBeGreaterThanOrEqual(6); // name, file, three pages, a node of the tree
      do_unlinkat("/tmp/a");
    });
  });

  it("random writes, truncations, reads and dropped caches agree with an array of bytes", () => {
    const at = fc.integer({ min: 0, max: 300_000 });
    const operation = fc.oneof(
      fc.record({ what: fc.constant("write"), at, bytes: fc.uint8Array({ minLength: 1, maxLength: 9000 }) }),
      fc.record({ what: fc.constant("read"), at, count: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ what: fc.constant("truncate"), at }),
      fc.record({ what: fc.constant("drop") }),
    );
    with_files(() => {
      const run = (operations: { what: string; at?: number; bytes?: Uint8Array; count?: number }[]): void => {
        let model = new Uint8Array(0);
        const resize = (size: number): void => {
          const next = new Uint8Array(size);
          next.set(model.subarray(0, size));
          model = next;
        };
        with_file("/tmp/a", O_CREAT | O_RDWR, (file) => {
          for (const { what, at = 0, bytes = model, count = 0 } of operations) {
            if (what === "drop") drop_caches(1);
            else file_llseek(file, at, SEEK_SET);
            if (what === "write") {
              if (at + bytes.length > model.length) resize(at + bytes.length);
              model.set(bytes, at);
              expect(file_write(file, bytes)).toBe(bytes.length);
            } else if (what === "truncate") {
              resize(at);
              file_truncate(file, at);
            } else if (what === "read") expect(Buffer.compare(file_read(file, count) as Uint8Array, model.slice(at, at + count))).toBe(0); // prettier-ignore
            expect(Inode.i_size.get(File.f_inode.get(file))).toBe(model.length);
          }
        });
        do_unlinkat("/tmp/a");
        expect([global_node_page_state(NR_FILE_PAGES), nodes_live()]).toEqual([0, 0]);
      };
      fc.assert(fc.property(fc.array(operation, { maxLength: 40 }), run), { numRuns: 50, seed: 1 });
    });
  });
});

describe("the xarray", () => {
  it("agrees with a map, is walked in order, and is empty when all is erased", () => {
    const index = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: XA_MAX_INDEX }));
    with_files(() => {
      const xa = AddressSpace.xa_head;
      const owner = kzalloc(AddressSpace.sizeof, GFP_KERNEL);
      const run = (steps: [number, boolean][], from: number): void => {
        const model = new Map<number, number>();
        for (const [at, insert] of steps) {
          if (insert && !model.has(at)) {
            model.set(at, 4096 + model.size * 64);
            expect(xa_insert(xa, owner, at, model.get(at)!, GFP_KERNEL)).toBe(0);
          } else if (!insert) {
            model.delete(at);
            xa_erase(xa, owner, at);
          }
          expect(xa_load(xa, owner, at)).toBe(model.get(at) ?? 0);
        }
        const expected = [...model].filter(([at]) => at >= from).sort(([a], [b]) => a - b);
        const found = [...xa_for_each(xa, owner, from)].map((e): [number, number] => [e.index, e.entry]);
        expect(found).toEqual(expected);
        for (const at of model.keys()) xa_erase(xa, owner, at);
        expect([xa.get(owner), nodes_live()]).toEqual([0, 0]);
      };
      const steps = fc.array(fc.tuple(index, fc.boolean()), { maxLength: 60 });
      fc.assert(fc.property(steps, fc.integer({ min: 0, max: 300 }), run), { numRuns: 100, seed: 1 });
      kfree(owner);
    });
  });

  it("an insertion without memory changes nothing that can be found, and nothing is lost", () => {
    with_files(() => {
      const xa = AddressSpace.xa_head;
      const owner = kzalloc(AddressSpace.sizeof, GFP_KERNEL);
      const before = figures();
      for (const first of [0, 1, 70, 5000]) {
        const runs = with_each_failure(
          () => xa_insert(xa, owner, first, 64, GFP_KERNEL) || xa_insert(xa, owner, 300_000, 128, GFP_KERNEL),
          (result, failed) => {
            expect(failed ? [0, -12] : [0]).toContain(result); // a slab may be had in a smaller order
            expect(xa_load(xa, owner, 300_000)).toBe(result ? 0 : 128);
            for (const { index } of xa_for_each(xa, owner)) xa_erase(xa, owner, index);
            expect(xa.get(owner)).toBe(0);
            expect_same(before);
          },
        );
        expect(runs).toBeGreaterThan(3);
      }
      kfree(owner);
    });
  });

  it("a node is as its constructor made it when it is freed", () => {
    with_files(() => {
      const xa = AddressSpace.xa_head;
      const owner = kzalloc(AddressSpace.sizeof, GFP_KERNEL);
      xa_insert(xa, owner, 4097, 64, GFP_KERNEL);
      const top = xa.get(owner) & ~3;
      expect([XaNode.shift.get(top), XaNode.count.get(top)]).toEqual([12, 1]);
      xa_erase(xa, owner, 4097);
      expect([XaNode.shift.get(top), XaNode.count.get(top), XaNode.parent.get(top), XaNode.slots.get(top, 1)]).toEqual([0, 0, 0, 0]); // prettier-ignore
      kfree(owner);
    });
  });
});
