/** Error numbers, Linux's. A call that fails returns one of them negated, or NULL. */
export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const E2BIG = 7;
export const ENOEXEC = 8;
export const EBADF = 9;
export const ECHILD = 10;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const EXDEV = 18;
export const ENODEV = 19;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENFILE = 23;
export const EMFILE = 24;
export const EFBIG = 27;
export const ENOSPC = 28;
export const ESPIPE = 29;
export const EROFS = 30;
export const EPIPE = 32;
export const ERANGE = 34;
export const ENAMETOOLONG = 36;
export const ENOSYS = 38;
export const ENOTEMPTY = 39;
export const ELOOP = 40;
export const EOVERFLOW = 75;
export const EOPNOTSUPP = 95;
export const ERESTARTSYS = 512;
/** An error pointer is -1 .. -MAX_ERRNO. */
export const MAX_ERRNO = 4095;

const NAMES: Readonly<Record<number, string>> = Object.freeze({
  1: "EPERM", 2: "ENOENT", 3: "ESRCH", 4: "EINTR", 5: "EIO", 7: "E2BIG", 8: "ENOEXEC", 9: "EBADF", 10: "ECHILD",
  11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT", 16: "EBUSY", 17: "EEXIST", 18: "EXDEV", 19: "ENODEV",
  20: "ENOTDIR", 21: "EISDIR", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE", 27: "EFBIG", 28: "ENOSPC", 29: "ESPIPE", 30: "EROFS", 32: "EPIPE", 34: "ERANGE",
  36: "ENAMETOOLONG", 38: "ENOSYS", 39: "ENOTEMPTY", 40: "ELOOP", 95: "EOPNOTSUPP", 75: "EOVERFLOW", 512: "ERESTARTSYS",
}); // prettier-ignore

const TEXTS: Readonly<Record<number, string>> = Object.freeze({
  1: "Operation not permitted", 2: "No such file or directory", 3: "No such process", 4: "Interrupted system call",
  5: "Input/output error", 7: "Argument list too long", 8: "Exec format error", 9: "Bad file descriptor",
  10: "No child processes", 11: "Resource temporarily unavailable", 12: "Cannot allocate memory", 13: "Permission denied",
  14: "Bad address", 16: "Device or resource busy", 17: "File exists", 18: "Invalid cross-device link",
  19: "No such device", 20: "Not a directory", 21: "Is a directory", 22: "Invalid argument",
  23: "Too many open files in system", 24: "Too many open files", 27: "File too large", 28: "No space left on device", 29: "Illegal seek", 30: "Read-only file system",
  32: "Broken pipe",
  34: "Numerical result out of range", 36: "File name too long", 38: "Function not implemented", 39: "Directory not empty",
  40: "Too many levels of symbolic links", 95: "Operation not supported", 75: "Value too large for defined data type",
}); // prettier-ignore

/** "ENOMEM" for 12 or -12. */
export function errno_name(error: number): string {
  return NAMES[Math.abs(error)] ?? `errno ${Math.abs(error)}`;
}

/** "Cannot allocate memory" for 12 or -12, as strerror says it. */
export function strerror(error: number): string {
  return TEXTS[Math.abs(error)] ?? `Unknown error ${Math.abs(error)}`;
}

/** True if a pointer is an error number in disguise. */
export function is_err(ptr: number): boolean {
  return ptr < 0 && ptr >= -MAX_ERRNO;
}
