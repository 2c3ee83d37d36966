/** Files and character devices, as a module offers them. */
export { ram_read_bytes as read_bytes, ram_write_bytes as write_bytes } from "../../../hal/ram.ts";
export { register_chrdev, unregister_chrdev } from "../../fs/char_dev.ts";
export {
  File, FMODE_READ, FMODE_WRITE, Inode, O_ACCMODE, O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
  type FileOps, type FilePtr, type InodePtr,
} from "../../fs/fs.ts"; // prettier-ignore
