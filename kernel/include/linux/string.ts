/** Strings and blocks of memory. */
export { kmemdup, kstrdup } from "../../../mm/kmalloc.ts";
export { ram_copy as memcpy, ram_fill as memset, ram_read_string as read_string, ram_write_string as strscpy } from "../../../hal/ram.ts"; // prettier-ignore
