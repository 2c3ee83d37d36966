/**
 * Character devices: files whose contents are what a driver makes of reads and writes.
 *
 *     register_chrdev(0, "scull", { open, read, write, release })     /dev/scull appears, /proc/devices lists it
 *     unregister_chrdev(major, "scull")                               both go
 *
 *     chrdevs ─ char_device [ major | name | file operations | module | node in /dev ] …
 *
 * /dev is a tree of kernfs nodes, as devtmpfs is one of its own in Linux. Whoever has a device open keeps its module.
 *
 * Locks: none; registering, opening and closing are parts of kernel entries. Unlike Linux: one minor a major.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { static_data } from "../../hal/image.ts";
import { struct } from "../../hal/struct.ts";
import { CLAIM_CHRDEV, claiming, unclaim } from "../../mm/claims.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kzalloc } from "../../mm/kmalloc.ts";
import { EBUSY, EINVAL, ENODEV, ENOMEM, is_err } from "../lib/errno.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "../lib/list.ts";
import { running_module } from "../lib/owner.ts";
import { module_put, try_module_get } from "../module.ts";
import {
  File,
  Inode,
  S_IFCHR,
  S_IFDIR,
  ops_at,
  ops_symbol,
  type FileOps,
  type FilePtr,
  type FileSystemType,
} from "./fs.ts";
import { kernfs_create, kernfs_fill_super, kernfs_new_node, kernfs_remove, type KernfsPtr } from "./kernfs.ts";
import { proc_create, proc_symbol } from "./procfs.ts";

/** Majors that are given out, from above, as in Linux. */
const FIRST_DYNAMIC = 254;
const LAST_DYNAMIC = 234;
const NAME_BYTES = 32;

const CharDevice = struct("char_device", {
  list: ListHead, // chrdevs, by major
  fops: "*fn", // a record of file operations
  owner: "*module", // NULL: the kernel
  node: "*kernfs_node", // in /dev
  major: "u32",
  pad: "u32",
  name: "char[32]",
});
type CharDevicePtr = Ptr<"char_device">;

const chrdevs = static_data("chrdevs", { list: ListHead, dev: "*kernfs_node" });

/** Boot: the root of /dev. Returns it for the mount, or NULL. */
export function devtmpfs_init(): KernfsPtr {
  init_list_head(chrdevs.list);
  chrdevs.dev = kernfs_new_node(NULL, "dev", { mode: S_IFDIR | 0o755 });
  return chrdevs.dev;
}

/** Power-off: frees all nodes. /dev is no longer mounted. */
export function devtmpfs_exit(): void {
  kernfs_remove(chrdevs.dev);
}

export const devtmpfs_type = ops_symbol<FileSystemType>("devtmpfs_type", {
  name: "devtmpfs",
  nodev: true,
  fill_super: kernfs_fill_super,
});

function* devices(): Generator<CharDevicePtr> {
  for (let node = list_next(chrdevs.list), next = 0; node !== chrdevs.list; node = next) {
    next = list_next(node);
    yield (node - CharDevice.list.offset) as CharDevicePtr;
  }
}

function find_device(test: (device: CharDevicePtr) => boolean): CharDevicePtr {
  for (const device of devices()) if (test(device)) return device;
  return NULL;
}

/**
 * Makes /dev/`name`, whose reads and writes are `fops`. `major` 0: any. The major, or -EBUSY, -EINVAL, -ENOMEM.
 * Context: may sleep.
 */
export function register_chrdev(major: number, name: string, fops: FileOps): number {
  if (!/^[\w-]+$/.test(name) || name.length >= NAME_BYTES || major < 0 || major > 511) return -EINVAL;
  let number = major || FIRST_DYNAMIC;
  const is_taken = (): boolean => find_device((device) => CharDevice.major.get(device) === number) !== NULL;
  while (major === 0 && number > LAST_DYNAMIC && is_taken()) number--;
  if (is_taken() || find_device((device) => CharDevice.name.get(device) === name) !== NULL) return -EBUSY;
  const owner = running_module();
  const symbol = ops_symbol(`chrdev ${name}`, fops);
  const device = claiming(CLAIM_CHRDEV, () => new_device(number, name), -ENOMEM);
  if (is_err(device)) return device;
  CharDevice.fops.set(device, symbol);
  CharDevice.owner.set(device, owner);
  return number;
}

function new_device(major: number, name: string): CharDevicePtr {
  const device: CharDevicePtr = kzalloc(CharDevice.sizeof, GFP_KERNEL);
  const node =
    device === NULL ? -ENOMEM : kernfs_create(chrdevs.dev, name, { mode: S_IFCHR | 0o600, show: chrdev_fops });
  if (is_err(node)) {
    kfree(device);
    return node;
  }
  CharDevice.major.set(device, major);
  CharDevice.name.set(device, name);
  CharDevice.node.set(device, node);
  list_add_tail(CharDevice.list.at(device), chrdevs.list);
  return device;
}

/** Takes a device away. Context: nobody has it open; its module would be in use. */
export function unregister_chrdev(major: number, name: string): void {
  const device = find_device((one) => CharDevice.major.get(one) === major && CharDevice.name.get(one) === name);
  if (device !== NULL) remove_chrdev(device);
}

/** As unregister_chrdev, by the device. */
export function remove_chrdev(device: Ptr): void {
  unclaim(CLAIM_CHRDEV, device);
  kernfs_remove(CharDevice.node.get(device));
  list_del(CharDevice.list.at(device));
  kfree(device);
}

/** /dev/NAME of a device, for reports. */
export const chrdev_path = (device: Ptr): string => `/dev/${CharDevice.name.get(device)}`;

const device_of = (file: FilePtr): CharDevicePtr => {
  const node = Inode.i_private.get(File.f_inode.get(file));
  return find_device((device) => CharDevice.node.get(device) === node);
};
const driver_of = (file: FilePtr): FileOps => {
  const device = device_of(file);
  return device === NULL ? {} : ops_at<FileOps>(CharDevice.fops.get(device));
};

/** Stands before every driver: keeps its module while the device is open, and says -EINVAL for what it does not do. */
const chrdev_fops = ops_symbol<FileOps>("chrdev_fops", {
  open(inode, file) {
    const device = device_of(file);
    if (device === NULL || !try_module_get(CharDevice.owner.get(device))) return -ENODEV;
    const error = driver_of(file).open?.(inode, file) ?? 0;
    if (error !== 0) module_put(CharDevice.owner.get(device));
    return error;
  },
  release(file) {
    const device = device_of(file);
    if (device === NULL) return;
    driver_of(file).release?.(file);
    module_put(CharDevice.owner.get(device));
  },
  read: (file, pos, count) => driver_of(file).read?.(file, pos, count) ?? -EINVAL,
  write: (file, pos, bytes) => driver_of(file).write?.(file, pos, bytes) ?? -EINVAL,
  wait: (file, mode) => driver_of(file).wait?.(file, mode) ?? -EINVAL,
});

const devices_show = proc_symbol("devices", () => {
  const rows = [...devices()].sort((a, b) => CharDevice.major.get(a) - CharDevice.major.get(b));
  const lines = rows.map(
    (device) => `${String(CharDevice.major.get(device)).padStart(3)} ${CharDevice.name.get(device)}\n`,
  );
  return `Character devices:\n${lines.join("")}\nBlock devices:\n`;
});

/** Boot: /proc/devices. */
export function proc_devices_init(): void {
  proc_create("devices", { show: devices_show });
}
