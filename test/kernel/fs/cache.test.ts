/** The caches of names and inodes: what they keep, what they give up and in which order, and what their slabs show. */
import { describe, expect, it } from "vitest";
import { events } from "../../../hal/events.ts";
import { d_is_negative, d_lookup, dentry_stat, dput, prune_dcache_sb } from "../../../kernel/fs/dcache.ts";
import { drop_caches } from "../../../kernel/fs/drop_caches.ts";
import { fput } from "../../../kernel/fs/file_table.ts";
import { DCACHE_REFERENCED, Dentry, File, Inode, Mount, O_RDONLY, SuperBlock, type DentryPtr } from "../../../kernel/fs/fs.ts"; // prettier-ignore
import { hash_entries } from "../../../kernel/fs/hashtable.ts";
import { iget_locked, inode_stat, iput, new_inode, prune_icache_sb } from "../../../kernel/fs/inode.ts";
import { list_lru_count } from "../../../kernel/fs/list_lru.ts";
import { do_mkdirat, do_rmdir, do_unlinkat } from "../../../kernel/fs/namei.ts";
import { for_each_mount } from "../../../kernel/fs/namespace.ts";
import { do_filp_open } from "../../../kernel/fs/open.ts";
import { printk_records } from "../../../kernel/lib/printk.ts";
import { GFP_KERNEL } from "../../../mm/gfp.ts";
import { page_to_nid, virt_to_page } from "../../../mm/page.ts";
import { nr_free_pages } from "../../../mm/page_alloc.ts";
import { drain_all_pages } from "../../../mm/pcp.ts";
import { find_cache, get_slabinfo, kmem_cache_create, kmem_cache_destroy, kmem_cache_alloc, kmem_cache_free, kmem_cache_shrink, KmemCache } from "../../../mm/slab_common.ts"; // prettier-ignore
import { SLABS_SCANNED, DROP_SLAB, DROP_PAGECACHE, global_vm_event } from "../../../mm/vmstat.ts";
import { cat, echo, figures, expect_same, settle, text_of, with_file, with_files } from "./files.ts";

/** The superblock and the root of what is mounted in the nth place: 0 /, 1 /proc, 2 /sys. */
function mounted(n: number): { sb: number; root: DentryPtr } {
  const mnt = [...for_each_mount()][n]!;
  return { sb: Mount.mnt_sb.get(mnt), root: Mount.mnt_root.get(mnt) };
}

/** The cached dentry of a path below a root, with a use that the caller ends; 0 if it is not cached. */
function cached(root: DentryPtr, path: string): DentryPtr {
  let dentry = root;
  for (const name of path.split("/")) {
    const next = d_lookup(dentry, name);
    if (dentry !== root) dput(dentry);
    if (next === 0) return 0;
    dentry = next;
  }
  return dentry;
}

const ATTRIBUTES = ["order", "align", "slabs", "objects", "partial", "slab_size"];
const read_attributes = (): void => ATTRIBUTES.forEach((name) => void text_of(`/sys/kernel/slab/dentry/${name}`));

describe("the dentry cache", () => {
  it("keeps what was looked up in /sys, and finds it there the next time", () => {
    with_files(() => {
      const before = dentry_stat();
      read_attributes();
      const after = dentry_stat();
      expect(after.nr_dentry - before.nr_dentry).toBe(ATTRIBUTES.length + 3); // kernel, slab, dentry
      expect(after.nr_unused - before.nr_unused).toBe(ATTRIBUTES.length); // directories are used by what is in them
      read_attributes();
      expect(dentry_stat()).toEqual(after);
      settle();
      expect(dentry_stat()).toEqual(before);
    });
  });

  it("remembers that a name does not exist, until it does", () => {
    with_files(() => {
      const { root } = mounted(2);
      expect(cat("/sys/kernel/slab/my_cache/order")).toBeLessThan(0);
      const negative = cached(root, "kernel/slab/my_cache");
      expect([negative !== 0, d_is_negative(negative)]).toEqual([true, true]);
      dput(negative);
      expect(dentry_stat().nr_negative).toBe(1);
      const cache = kmem_cache_create("my_cache", 300, 0, 0, null);
      expect(cat("/sys/kernel/slab/my_cache/slab_size")).toBe("304\n");
      expect(dentry_stat().nr_negative).toBe(0);
      kmem_cache_destroy(cache);
      expect(cat("/sys/kernel/slab/my_cache/slab_size")).toBeLessThan(0);
    });
  });

  it("remembers nothing of names that ramfs and procfs do not have", () => {
    with_files(() => {
      const before = dentry_stat();
      for (let i = 0; i < 50; i++) {
        expect(cat(`/tmp/nothing${i}`)).toBeLessThan(0);
        expect(cat(`/proc/nothing${i}`)).toBeLessThan(0);
      }
      expect(dentry_stat()).toEqual(before);
    });
  });

  it("shrinks from the oldest on, and gives what was used again a second chance", () => {
    with_files(() => {
      settle();
      const { sb, root } = mounted(2);
      for (const name of ["order", "align", "slabs"]) text_of(`/sys/kernel/slab/dentry/${name}`);
      text_of("/sys/kernel/slab/dentry/order"); // the oldest of the three is used again
      const held = (): string[] =>
        ["order", "align", "slabs"].filter((name) => {
          const dentry = cached(root, `kernel/slab/dentry/${name}`);
          const flags = dentry ? Dentry.d_flags.get(dentry) : 0;
          if (!dentry) return false;
          dput(dentry); // a use of our own, which would set the mark: put it back as it was
          Dentry.d_flags.set(dentry, flags);
          return true;
        });
      expect(held()).toEqual(["order", "align", "slabs"]);
      const nid = page_to_nid(virt_to_page(root)); // all of it was allocated here
      expect(prune_dcache_sb(sb, nid, 2)).toBe(1); // order goes to the tail, align is freed
      expect(held()).toEqual(["order", "slabs"]);
      expect(prune_dcache_sb(sb, nid, 1)).toBe(1); // slabs is older than order now
      expect(held()).toEqual(["order"]);
      expect(prune_dcache_sb(sb, nid, 1)).toBe(1); // no third chance; the directories go with it
      expect(cached(root, "kernel")).toBe(0);
    });
  });

  it("a dentry in use is taken off the list when the shrinker meets it, not freed", () => {
    with_files(() => {
      settle();
      text_of("/sys/kernel/slab/dentry/order");
      const file = do_filp_open("/sys/kernel/slab/dentry/order", O_RDONLY, 0);
      const dentry = File.f_path_dentry.get(file);
      const before = dentry_stat();
      expect(before.nr_unused).toBe(1);
      drop_caches(2);
      expect(dentry_stat()).toEqual({ ...before, nr_unused: 0 });
      expect(Dentry.d_count.get(dentry)).toBe(1);
      fput(file);
      expect(dentry_stat().nr_unused).toBe(1);
      expect(Dentry.d_flags.get(dentry) & DCACHE_REFERENCED).toBe(0);
    });
  });

  it("drop_caches 2 gives slabs back: all pages that the walk over /sys took", () => {
    with_files(() => {
      const before = figures();
      const caches = "kmalloc-8 kmalloc-16 kmalloc-32 kmalloc-64 dentry inode_cache names_cache radix_tree_node".split(
        " ",
      );
      for (const cache of caches) for (const name of ATTRIBUTES) text_of(`/sys/kernel/slab/${cache}/${name}`);
      drain_all_pages();
      expect(nr_free_pages()).toBeLessThan(before.free_pages);
      expect(get_slabinfo(find_cache("dentry")).live_objs).toBeGreaterThan(48);
      const scanned = global_vm_event(SLABS_SCANNED);
      expect(echo("2", "/proc/sys/vm/drop_caches")).toBe(1);
      expect(global_vm_event(SLABS_SCANNED) - scanned).toBeGreaterThan(48);
      expect(get_slabinfo(find_cache("dentry")).live_objs).toBeLessThan(16); // /, tmp, proc, sys, usr, dev, bin and what is open now
      expect_same(before);
    });
  });

  it("drop_caches counts what it was asked and says so, until it is told to be quiet", () => {
    with_files(() => {
      const said = (): number =>
        [...printk_records()].filter(({ text }) => / \(\d+\): drop_caches: \d$/.test(text)).length - before;
      let before = 0;
      before = said();
      const [pages, slab] = [global_vm_event(DROP_PAGECACHE), global_vm_event(DROP_SLAB)];
      echo("1\n", "/proc/sys/vm/drop_caches");
      echo("3", "/proc/sys/vm/drop_caches");
      echo("2", "/proc/sys/vm/drop_caches");
      expect([global_vm_event(DROP_PAGECACHE) - pages, global_vm_event(DROP_SLAB) - slab, said()]).toEqual([2, 2, 3]);
      echo("4", "/proc/sys/vm/drop_caches");
      echo("3", "/proc/sys/vm/drop_caches");
      expect(said()).toBe(4);
      expect([drop_caches(0), drop_caches(5)]).toEqual([-22, -22]);
    });
  });

  it("the hash table has an entry for each second page of RAM, in a power of two", () => {
    const mib = (n: number): number => n * 256;
    expect([16, 40, 256, 512, 1024, 2048].map((n) => hash_entries(mib(n), 13))).toEqual([2048, 8192, 32768, 65536, 131072, 262144]); // prettier-ignore
    expect(hash_entries(mib(256), 14)).toBe(16384);
    with_files(() => {
      const line = [...printk_records()].find(({ text }) => text.startsWith("Dentry cache hash table"))!.text;
      expect(line).toBe("Dentry cache hash table entries: 8192 (order: 4, 65536 bytes, linear)");
    });
  });
});

describe("the inode cache", () => {
  it("its constructor runs once an object of a new slab, not once an allocation", () => {
    with_files(() => {
      const inode_cache = find_cache("inode_cache");
      const per_slab = get_slabinfo(inode_cache).objects_per_slab;
      const slabs = (): number => get_slabinfo(inode_cache).num_slabs;
      const [slabs_before, constructed] = [slabs(), inode_stat().nr_constructed];
      expect(constructed).toBe(slabs_before * per_slab);
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 100; i++) echo("", `/tmp/f${i}`);
        for (let i = 0; i < 100; i++) do_unlinkat(`/tmp/f${i}`);
      }
      expect(inode_stat().nr_constructed - constructed).toBe((slabs() - slabs_before) * per_slab);
      expect(slabs() - slabs_before).toBeLessThan(300 / per_slab);
    });
  });

  it("a freed inode lies in its slab as the constructor made it", () => {
    with_files(() => {
      const { sb } = mounted(0);
      echo("contents", "/tmp/a");
      const file = do_filp_open("/tmp/a", O_RDONLY, 0);
      const inode = File.f_inode.get(file);
      fput(file);
      do_unlinkat("/tmp/a");
      const again = new_inode(sb, 99, 0o100644);
      expect(again).toBe(inode); // the slab hands out what came back last
      expect(Inode.i_mapping.get(again)).toBe(Inode.i_data.at(again));
      expect(Inode.i_size.get(again)).toBe(0);
      iput(again);
    });
  });

  it("inodes of /sys are kept when their dentries go, found again, and get a second chance", () => {
    with_files(() => {
      settle();
      const { sb } = mounted(2);
      const nodes = [0, 1];
      const lru = SuperBlock.s_inode_lru.get(sb);
      const { inode, is_new } = iget_locked(sb, 4_000_000_000_000, 0o100444);
      expect([is_new, list_lru_count(lru)]).toEqual([true, 0]);
      iput(inode);
      expect([list_lru_count(lru), inode_stat().nr_unused]).toEqual([1, 1]);
      expect(iget_locked(sb, 4_000_000_000_000, 0)).toEqual({ inode, is_new: false });
      iput(inode); // it was on the list already: a reference
      expect(nodes.map((nid) => prune_icache_sb(sb, nid, 1))).toEqual([0, 0]);
      expect(list_lru_count(lru)).toBe(1);
      expect(nodes.reduce((sum, nid) => sum + prune_icache_sb(sb, nid, 1), 0)).toBe(1);
      expect([list_lru_count(lru), inode_stat().nr_unused]).toEqual([0, 0]);
    });
  });

  it("an inode in use is taken off the list, not freed", () => {
    with_files(() => {
      settle();
      const { sb } = mounted(2);
      const { inode } = iget_locked(sb, 12345678, 0o100444);
      iput(inode);
      iget_locked(sb, 12345678, 0);
      const live = inode_stat().nr_inodes;
      drop_caches(2);
      expect(inode_stat()).toMatchObject({ nr_inodes: live, nr_unused: 0 });
      iput(inode);
      settle();
      expect(inode_stat().nr_inodes).toBe(live - 1);
    });
  });

  it("says of each inode that comes and goes, if somebody listens", () => {
    with_files(() => {
      const seen: string[] = [];
      const on_new = (event: { ino: number; fs: string }): unknown => seen.push(`new ${event.fs} ${event.ino}`);
      const on_free = (event: { ino: number; fs: string }): unknown => seen.push(`free ${event.fs} ${event.ino}`);
      events.on("inode:new", on_new);
      events.on("inode:free", on_free);
      echo("x", "/tmp/a");
      do_mkdirat("/tmp/d", 0o755);
      do_unlinkat("/tmp/a");
      do_rmdir("/tmp/d");
      events.off("inode:new", on_new);
      events.off("inode:free", on_free);
      const [a, d] = [seen[0]!.split(" ")[2]!, seen[1]!.split(" ")[2]!];
      expect(seen).toEqual([`new ramfs ${a}`, `new ramfs ${d}`, `free ramfs ${a}`, `free ramfs ${d}`]);
      expect(Number(d)).toBe(Number(a) + 1);
    });
  });
});

describe("the caches of the file layer", () => {
  it("have Linux's geometry", () => {
    with_files(() => {
      const geometry = (name: string): number[] => {
        const cache = find_cache(name);
        const info = get_slabinfo(cache);
        return [KmemCache.object_size.get(cache), KmemCache.size.get(cache), info.objects_per_slab, info.cache_order];
      };
      expect(geometry("dentry")).toEqual([192, 192, 21, 0]);
      expect(geometry("filp")).toEqual([184, 192, 21, 0]);
      expect(geometry("files_cache")).toEqual([704, 704, 23, 2]);
      expect(geometry("names_cache")).toEqual([4096, 4096, 8, 3]);
      expect(geometry("radix_tree_node")).toEqual([576, 584, 14, 1]);
    });
  });

  it("a page of a path is in use while it is walked, and only then", () => {
    with_files(() => {
      const names = find_cache("names_cache");
      kmem_cache_shrink(names);
      const object = kmem_cache_alloc(names, GFP_KERNEL);
      kmem_cache_free(names, object);
      with_file("/proc/meminfo", O_RDONLY, () => expect(get_slabinfo(names).live_objs).toBe(0));
      expect(get_slabinfo(names).num_slabs).toBe(1);
    });
  });
});
