/**
 * sysfs: /sys. Who has something to show calls sysfs_create once /sys is there (sysfs_init). What the files say stands in
 * sysfs_slab.ts (caches), sysfs_node.ts (nodes and CPUs), sysfs_memory.ts (blocks of RAM).
 */
import { NULL } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { CLAIM_SYSFS, claiming, unclaim } from "../../mm/claims.ts";
import { S_IFDIR, ops_symbol, type FileSystemType } from "./fs.ts";
import { ENOMEM } from "../lib/errno.ts";
import { ksym_address } from "../lib/ksym.ts";
import type { ProcFile } from "./procfs.ts";
import {
  file_mode,
  kernfs_create,
  kernfs_fill_super,
  kernfs_find,
  kernfs_new_node,
  kernfs_remove,
  kernfs_text,
  kernfs_walk,
  type KernfsEntry,
  type KernfsPtr,
  type NodeSpec,
} from "./kernfs.ts";

const sysfs = static_data("sysfs_root", { root: "*kernfs_node" });

/** Makes a file, link or directory of /sys. Its node, or -EEXIST, -ENOMEM. */
export function sysfs_create(path: string, spec: NodeSpec): KernfsPtr {
  return claiming(CLAIM_SYSFS, () => kernfs_create(sysfs.root, path, spec), -ENOMEM);
}

/** Makes a plain file of /sys, as proc_create does of /proc. */
export function sysfs_create_file(path: string, { mode, show, store }: ProcFile): KernfsPtr {
  const permissions = mode ?? (store ? 0o644 : 0o444);
  return sysfs_create(path, { mode: file_mode(permissions), show: ksym_address(show), store: ksym_address(store) });
}

/** Takes what sysfs_create made out of /sys, with all below it; NULL and -errno are ignored. */
export function sysfs_remove(node: KernfsPtr): void {
  if (node <= 0) return;
  unclaim(CLAIM_SYSFS, node);
  kernfs_remove(node);
}

/** What a file of /sys says, read without a path walk: it takes no memory. */
export function sysfs_text(path: string): string {
  return kernfs_text(sysfs.root, path) ?? "";
}

/** Everything in /sys, or below one of its directories, at this moment; paths start there. */
export function sysfs_walk(below = ""): Generator<KernfsEntry> {
  return kernfs_walk(kernfs_find(sysfs.root, below));
}

/** Boot: the empty root. Returns it for the mount, or NULL. */
export function sysfs_root_init(): KernfsPtr {
  sysfs.root = kernfs_new_node(NULL, "sys", { mode: S_IFDIR | 0o755 });
  return sysfs.root;
}

/** Power-off: frees all nodes. /sys is no longer mounted. */
export function sysfs_exit(): void {
  kernfs_remove(sysfs.root);
}

export const sysfs_type = ops_symbol<FileSystemType>("sysfs_fs_type", {
  name: "sysfs",
  nodev: true,
  fill_super: kernfs_fill_super,
});
