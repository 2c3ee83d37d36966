/** Every operation of the file layer with each of its allocations failing in turn: -ENOMEM, and nothing lost. */
import { describe, expect, it } from "vitest";
import { O_CREAT, O_RDONLY, O_WRONLY, SuperBlock } from "../../../kernel/fs/fs.ts";
import { copy_task_files, exit_task_files } from "../../../kernel/fs/fs_struct.ts";
import { do_mkdirat, do_rmdir, do_unlinkat } from "../../../kernel/fs/namei.ts";
import { vfs_stat } from "../../../kernel/fs/open.ts";
import { proc_create } from "../../../kernel/fs/procfs.ts";
import { kernfs_find, kernfs_remove } from "../../../kernel/fs/kernfs.ts";
import { ramfs_type } from "../../../kernel/fs/ramfs.ts";
import { for_each_super, generic_shutdown_super, mount_fs } from "../../../kernel/fs/super.ts";
import { ENOENT, ENOMEM, is_err } from "../../../kernel/lib/errno.ts";
import { current_task } from "../../../kernel/task.ts";
import { for_each_cache, kmem_cache_shrink } from "../../../mm/slab_common.ts";
import { cat, echo, expect_same, figures, ls, settle, with_each_failure, with_file, with_files } from "./files.ts";

const LONG = "n".repeat(200);

interface Operation {
  /** How many allocations it has at least, on a machine whose caches are empty. */
  readonly least: number;
  readonly run: () => unknown;
  readonly undo?: () => void;
}
const operations: Record<string, Operation> = {
  mkdir: { least: 4, run: () => do_mkdirat("/tmp/d", 0o755), undo: () => void do_rmdir("/tmp/d") },
  "mkdir of a long name": {
    least: 5,
    run: () => do_mkdirat(`/tmp/${LONG}`, 0o755),
    undo: () => void do_rmdir(`/tmp/${LONG}`),
  },
  "making a file": {
    least: 4,
    run: () => with_file("/tmp/a", O_CREAT | O_WRONLY, () => 0),
    undo: () => void do_unlinkat("/tmp/a"),
  },
  "writing a file": { least: 6, run: () => echo("x".repeat(9000), "/tmp/a"), undo: () => void do_unlinkat("/tmp/a") },
  "reading a file": { least: 2, run: () => cat("/tmp/file") },
  "listing a directory": { least: 2, run: () => ls("/tmp") },
  "stat of what is there": { least: 1, run: () => vfs_stat("/tmp/file", true) },
  "open of what is not": { least: 3, run: () => with_file("/tmp/nothing", O_RDONLY, () => 0) },
  "reading /proc": { least: 6, run: () => cat("/proc/sys/vm/min_free_kbytes") },
  "reading /sys": { least: 10, run: () => cat("/sys/kernel/slab/dentry/order") },
  "reading /sys through a link": { least: 12, run: () => cat("/sys/kernel/slab/files_cache/order") },
  "listing /sys": { least: 4, run: () => ls("/sys/kernel/slab") },
};

describe("without memory", () => {
  it.each(Object.entries(operations))("%s", (_what, { least, run, undo }) => {
    with_files(() => {
      do_mkdirat("/tmp", 0o755);
      echo("contents", "/tmp/file");
      const empty = (): void => {
        settle();
        for (const cache of for_each_cache()) kmem_cache_shrink(cache);
      };
      undo?.();
      const before = figures();
      empty();
      const expected = run();
      undo?.();
      empty();
      const runs = with_each_failure(run, (result, failed) => {
        if (!failed) expect(result).toEqual(expected);
        else if (typeof result === "number" && is_err(result)) expect([-ENOMEM, -ENOENT]).toContain(result);
        undo?.();
        expect_same(before);
      });
      expect(runs).toBeGreaterThanOrEqual(least);
      do_unlinkat("/tmp/file");
    });
  });

  it("unlink and rmdir need a name's page and a dentry, and remove all or nothing", () => {
    with_files(() => {
      echo("contents", "/tmp/a");
      do_mkdirat("/tmp/d", 0o755);
      const unlinked = with_each_failure(
        () => do_unlinkat("/tmp/a"),
        (result, failed) => {
          expect([result, cat("/tmp/a")]).toEqual(result === 0 ? [0, -ENOENT] : [-ENOMEM, "contents"]);
          if (result === 0 && failed) echo("contents", "/tmp/a");
        },
      );
      expect(unlinked).toBeGreaterThanOrEqual(1);
      expect(with_each_failure(() => do_rmdir("/tmp/d"), (result) => expect([0, -ENOMEM]).toContain(result))).toBeGreaterThanOrEqual(1); // prettier-ignore
    });
  });

  it("a mount, a task's files and a file of /proc are made whole or not at all", () => {
    with_files(() => {
      const before = figures();
      const mounts = with_each_failure(
        () => mount_fs(ramfs_type),
        (sb, failed) => {
          if (is_err(sb)) expect([failed, sb]).toEqual([true, -ENOMEM]);
          else generic_shutdown_super(sb);
          expect_same(before);
        },
      );
      expect(mounts).toBeGreaterThanOrEqual(7); // superblock, two LRUs, shrinker and its counts, inode, dentry
      const task = current_task();
      const copies = with_each_failure(
        () => copy_task_files(task, task),
        (result, failed) => {
          expect(failed ? [0, -ENOMEM] : [0]).toContain(result);
          exit_task_files(task);
          expect_same(before);
        },
      );
      expect(copies).toBeGreaterThanOrEqual(2);
      const nodes = with_each_failure(
        () => proc_create("one/two/three", {}),
        (node, failed) => {
          if (is_err(node)) expect([failed, node]).toEqual([true, -ENOMEM]);
        },
      );
      expect(nodes).toBeGreaterThanOrEqual(1);
      expect(ls("/proc/one/two")).toEqual(["three"]);
      const proc = SuperBlock.s_fs_info.get([...for_each_super()][1]!);
      settle();
      kernfs_remove(kernfs_find(proc, "one"));
    });
  });
});
