/**
 * sysfs: /sys. Who has something to show calls sysfs_create once /sys is there (sysfs_init). What the files say stands in
 * sysfs_slab.ts (caches) and sysfs_node.ts (nodes and CPUs).
 */
import { NULL } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { S_IFDIR, ops_symbol, type FileSystemType } from "./fs.ts";
import {
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
  return kernfs_create(sysfs.root, path, spec);
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
