/**
 * procfs: /proc, the kernel as files. Who has something to show calls
 *
 *     proc_create("sys/vm/drop_caches", { mode: 0o200, store: ksym("drop_caches_store", …) })
 *
 * once /proc is there (proc_root_init). Directories on the way are made. What the files say stands in proc_mm.ts
 * (memory), proc_misc.ts (the machine), proc_pid.ts (tasks).
 */
import { NULL } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { CLAIM_PROC, claiming, unclaim } from "../../mm/claims.ts";
import { ENOMEM } from "../lib/errno.ts";
import { ksym, ksym_address, type FnPtr } from "../lib/ksym.ts";
import { SB_NONEGATIVE, S_IFDIR, SuperBlock, ops_symbol, type FileSystemType } from "./fs.ts";
import { file_mode, kernfs_create, kernfs_fill_super, kernfs_new_node, kernfs_remove, kernfs_text, kernfs_walk, type KernfsEntry, type KernfsPtr, type Show, type Store } from "./kernfs.ts"; // prettier-ignore

const proc = static_data("proc_root", { root: "*kernfs_node" });

export interface ProcFile {
  /** Default 0444, with `store` 0644. */
  readonly mode?: number;
  readonly show?: FnPtr | Show;
  readonly store?: FnPtr | Store;
}

/** Makes a file of /proc. Its node, or -EEXIST, -ENOMEM. */
export function proc_create(path: string, file: ProcFile): KernfsPtr {
  const { mode = file.store ? 0o644 : 0o444, show, store } = file;
  const spec = { mode: file_mode(mode), show: ksym_address(show), store: ksym_address(store) };
  return claiming(CLAIM_PROC, () => kernfs_create(proc.root, path, spec), -ENOMEM);
}

/** Takes a file that proc_create made out of /proc; NULL and -errno are ignored. */
export function proc_remove(node: KernfsPtr): void {
  if (node <= 0) return;
  unclaim(CLAIM_PROC, node);
  kernfs_remove(node);
}

/** Names the producer of a file of /proc after the file. Call it at module level. */
export function proc_symbol(name: string, show: Show): FnPtr {
  return ksym(`proc_${name.replaceAll("/", "_")}_show`, show);
}

/** Makes a directory of /proc that stands for many. */
export function proc_create_many(path: string, names: FnPtr, find: FnPtr): KernfsPtr {
  return kernfs_create(proc.root, path, { mode: S_IFDIR | 0o555, names, find });
}

/** What a file of /proc says, read without a path walk: it takes no memory. */
export function proc_text(path: string): string {
  return kernfs_text(proc.root, path) ?? "";
}

/** Everything in /proc at this moment; paths start below it. */
export function proc_walk(): Generator<KernfsEntry> {
  return kernfs_walk(proc.root);
}

/** Boot: the empty root. Returns it for the mount, or NULL. */
export function proc_init(): KernfsPtr {
  proc.root = kernfs_new_node(NULL, "proc", { mode: S_IFDIR | 0o555 });
  return proc.root;
}

/** Power-off: frees all nodes. /proc is no longer mounted. */
export function proc_exit(): void {
  kernfs_remove(proc.root);
}

export const proc_type = ops_symbol<FileSystemType>("proc_fs_type", {
  name: "proc",
  nodev: true,
  fill_super: (sb) => {
    SuperBlock.s_flags.set(sb, SB_NONEGATIVE);
    return kernfs_fill_super(sb);
  },
  drop_inode: () => true,
});
