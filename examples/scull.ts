// scull: a piece of memory as a device. What is written to /dev/scull can be read again, page by page from kmalloc.
import { ENOMEM, ENOSPC } from "kheap/linux/errno";
import {
  File,
  FMODE_WRITE,
  O_ACCMODE,
  O_TRUNC,
  O_WRONLY,
  read_bytes,
  register_chrdev,
  unregister_chrdev,
  write_bytes,
  type FileOps,
} from "kheap/linux/fs";
import { MODULE_DESCRIPTION, MODULE_LICENSE, module_exit, module_init, module_param } from "kheap/linux/module";
import { GFP_KERNEL, kfree, kzalloc } from "kheap/linux/slab";
import { NULL, static_data } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("memory as a character device");

const quantum = module_param("quantum", "uint", 4000, { min: 1, max: 65536 });
const MAX_QUANTA = 256;
const scull = static_data("scull", { major: "u32", size: "u32", quanta: "*void[256]" });

function scull_trim(): void {
  for (let i = 0; i < MAX_QUANTA; i++) {
    kfree(scull.quanta.get(i));
    scull.quanta.set(i, NULL);
  }
  scull.size = 0;
}

const scull_fops: FileOps = {
  open(_inode, file) {
    const flags = File.f_flags.get(file);
    if ((flags & O_ACCMODE) === O_WRONLY && (flags & O_TRUNC) !== 0) scull_trim();
    return 0;
  },
  read(_file, pos, count) {
    const [item, start] = [Math.floor(pos / quantum.value), pos % quantum.value];
    if (pos >= scull.size) return new Uint8Array(0);
    return read_bytes(scull.quanta.get(item) + start, Math.min(count, quantum.value - start, scull.size - pos));
  },
  write(file, pos, bytes) {
    if ((File.f_mode.get(file) & FMODE_WRITE) === 0) return -ENOSPC;
    const [item, start] = [Math.floor(pos / quantum.value), pos % quantum.value];
    if (item >= MAX_QUANTA) return -ENOSPC;
    if (scull.quanta.get(item) === NULL) scull.quanta.set(item, kzalloc(quantum.value, GFP_KERNEL));
    if (scull.quanta.get(item) === NULL) return -ENOMEM;
    const part = bytes.subarray(0, quantum.value - start); // less than asked for: the caller writes the rest
    write_bytes(scull.quanta.get(item) + start, part);
    scull.size = Math.max(scull.size, pos + part.length);
    return part.length;
  },
};

module_init(() => {
  const major = register_chrdev(0, "scull", scull_fops);
  if (major < 0) return major;
  scull.major = major;
  return 0;
});

module_exit(() => {
  unregister_chrdev(scull.major, "scull");
  scull_trim();
});
