/** Files of /sys: `sysfs_create_file("kernel/ring", { show: () => text, store: (text) => 0 })`. */
export { sysfs_create_file, sysfs_remove } from "../../fs/sysfs.ts";
