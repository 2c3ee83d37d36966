/** discfs: what is on the disc, and that all that memory holds of it can go and be had again. */
import { describe, expect, it } from "vitest";
import { MIB, PRESETS } from "../../../hal/machine.ts";
import { dentry_stat } from "../../../kernel/fs/dcache.ts";
import { O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, SEEK_SET } from "../../../kernel/fs/fs.ts";
import { inode_stat } from "../../../kernel/fs/inode.ts";
import { do_mkdirat, do_unlinkat } from "../../../kernel/fs/namei.ts";
import { file_llseek, file_read, vfs_stat } from "../../../kernel/fs/open.ts";
import { ENOENT, EROFS } from "../../../kernel/lib/errno.ts";
import { ALLOCSTALL, PGPGIN, PGSTEAL_KSWAPD, SLABS_SCANNED, all_vm_events } from "../../../mm/vmstat.ts";
import { node_state } from "../../../mm/zone.ts";
import { cat, ls, with_file, with_files } from "./files.ts";

describe("the disc", () => {
  it("has films and sources, and every line says where it stands", () => {
    with_files(() => {
      expect([ls("/usr"), (ls("/usr/media") as string[]).length, (ls("/usr/src") as string[]).length]).toEqual([["bin", "media", "src"], 8, 256]); // prettier-ignore
      expect((ls("/usr/src/255") as string[]).at(-1)).toBe("255.c");
      expect(vfs_stat("/usr/media/film7", true)).toMatchObject({ ino: 23, size: 32 * MIB, mode: 0o100444 });
      expect(vfs_stat("/usr/src/001/002.c", true)).toMatchObject({ ino: 65536 + 256 + 2, size: 3000 });
      const text = cat("/usr/src/001/002.c") as string;
      expect([text.length, text.slice(64, 84), text.slice(2944, 2966)]).toEqual([3000, "inode 65794 byte 64 ", "inode 65794 byte 2944 "]); // prettier-ignore
      with_file("/usr/media/film0", O_RDONLY, (file) => {
        file_llseek(file, 32 * MIB - 64, SEEK_SET);
        expect(Buffer.from(file_read(file, 4096) as Uint8Array).toString()).toBe(`${`inode 16 byte ${32 * MIB - 64}`.padEnd(63)}\n`); // prettier-ignore
      });
      expect(all_vm_events()[PGPGIN]).toBe(8); // two pages
    });
  });

  it("is read-only, and what is not there is remembered not to be", () => {
    with_files(() => {
      for (const flags of [O_RDWR, O_RDONLY | O_TRUNC])
        expect(with_file("/usr/src/000/000.c", flags, () => 0)).toBe(-EROFS);
      expect(with_file("/usr/src/new", O_RDWR | O_CREAT, () => 0)).toBe(-EROFS);
      expect([do_mkdirat("/usr/d", 0o755), do_unlinkat("/usr/src/000/000.c")]).toEqual([-EROFS, -EROFS]);
      const { nr_negative } = dentry_stat();
      for (const name of ["256", "00", "0000", "x"]) expect(vfs_stat(`/usr/src/${name}`, true)).toBe(-ENOENT);
      expect(dentry_stat().nr_negative).toBe(nr_negative + 4);
    });
  });

  it("a walk over more files than memory can remember comes to its end", () => {
    const files = 40_000;
    const walk = (): void => {
      for (let i = 0; i < files; i++) {
        const path = `/usr/src/${String(i >> 8).padStart(3, "0")}/${String(i & 255).padStart(3, "0")}.c`;
        if (typeof vfs_stat(path, true) === "number") expect(path).toBe("there");
      }
    };
    with_files(walk_and_look, { machine: PRESETS.embedded! });
    function walk_and_look(): void {
      walk();
      // A dentry and an inode are 384 bytes: all of them would be more than there is.
      expect(files * 384).toBeGreaterThan(node_state.totalram_pages * 4096);
      const events = all_vm_events();
      expect(dentry_stat().nr_dentry).toBeLessThan(files);
      expect(inode_stat().nr_inodes).toBeLessThan(files);
      expect(events[ALLOCSTALL + 2]).toBeGreaterThan(5);
      expect(events[SLABS_SCANNED]).toBeGreaterThan(1000);
      expect(events[PGSTEAL_KSWAPD + 1]).toBe(0); // slab pages are no pages of the LRU
    }
  });
});
