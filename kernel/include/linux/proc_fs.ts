/** Files of /proc: `proc_create("ring", { show: () => text })`. */
export { proc_create, proc_remove } from "../../fs/procfs.ts";
