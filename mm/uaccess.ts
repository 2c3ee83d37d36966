/**
 * Copying between the kernel and the program whose call it carries out.
 *
 *     copy_from_user(to, from, n)      n bytes left over = it failed at the first; 0 = all done
 *       1  is the range in the user half at all?          no: nothing is copied
 *       2  may this kernel object be copied there?        no: a bug in the kernel, an oops
 *       3  through the MMU, with AC set                   a fault is resolved as the program's own would be, or ends it
 *
 * What the program gives is not to be trusted: whatever the address, the worst that comes back is "not all copied", for
 * the caller to turn into -EFAULT.
 *
 * Hardened usercopy: of an object in a slab only the window [useroffset, useroffset + usersize) of its cache may be
 * copied; kmalloc's caches have all of it. So a missing length check gives a program no more than its own field.
 *
 * Context: a system call: the program's address space is loaded.
 */
import { NULL, PAGE_SIZE, type Ptr, type Virt } from "../hal/addr.ts";
import { mmu_copy_from, mmu_copy_to, mmu_fill, mmu_translate } from "../hal/mmu.ts";
import { MMU_READ, MMU_WRITE, clac, stac } from "../hal/privilege.ts";
import { ram8, ram_fill, ram_read_bytes, ram_write_bytes } from "../hal/ram.ts";
import { BUG } from "../kernel/lib/bug.ts";
import { EFAULT } from "../kernel/lib/errno.ts";
import { pr_emerg } from "../kernel/lib/printk.ts";
import { nearest_obj, virt_to_cache } from "./kmalloc.ts";
import { pfn_valid } from "./page.ts";
import { TASK_SIZE_MAX } from "./pgtable.ts";
import { KmemCache } from "./slab_common.ts";

/** True if a range lies in the user half, whatever is mapped there. */
function access_ok(va: Virt, bytes: number): boolean {
  return Number.isInteger(va) && va >= 0 && va <= TASK_SIZE_MAX - bytes;
}

/** Copies to the program. Returns how many bytes it could not copy. */
export function copy_to_user(to: Virt, from: Ptr, bytes: number): number {
  if (!access_ok(to, bytes)) return bytes;
  check_heap_object(from, bytes, true);
  stac();
  const left = mmu_copy_to(to, from, bytes);
  clac();
  return left;
}

/** Copies from the program. Returns how many bytes it could not copy; those are zeroes, as in Linux. */
export function copy_from_user(to: Ptr, from: Virt, bytes: number): number {
  check_heap_object(to, bytes, false);
  let left = bytes;
  if (access_ok(from, bytes)) {
    stac();
    left = mmu_copy_from(to, from, bytes);
    clac();
  }
  ram_fill(to + bytes - left, 0, left);
  return left;
}

/**
 * Copies bytes that the host has at hand to the program. Returns how many it could not copy.
 *
 * With `fault_in_writeable` before, it can: whoever takes bytes from a pipe asks first.
 */
export function copy_bytes_to_user(to: Virt, bytes: Uint8Array): number {
  return for_each_user_piece(to, bytes.length, MMU_WRITE, (at, done, piece) =>
    ram_write_bytes(at, bytes.subarray(done, done + piece)),
  );
}

/** The first `bytes` bytes at an address of the program, or as many of them as it may read. */
export function copy_bytes_from_user(from: Virt, bytes: number): Uint8Array {
  const copy = new Uint8Array(access_ok(from, bytes) ? bytes : 0);
  const left = for_each_user_piece(from, copy.length, MMU_READ, (at, done, piece) =>
    copy.set(ram_read_bytes(at, piece), done),
  );
  return copy.subarray(0, copy.length - left);
}

/** How many of the first `bytes` bytes at an address the program may write to. */
export function fault_in_writeable(va: Virt, bytes: number): number {
  return bytes - for_each_user_piece(va, bytes, MMU_WRITE, () => {});
}

/** Calls `act` for each piece that lies in one page: where it is in RAM, and which bytes it is. Returns what is left. */
function for_each_user_piece(
  va: Virt,
  bytes: number,
  access: number,
  act: (at: Ptr, done: number, piece: number) => void,
): number {
  if (!access_ok(va, bytes)) return bytes;
  let done = 0;
  stac();
  while (done < bytes) {
    const at = mmu_translate(va + done, access);
    if (at < 0) break;
    const piece = Math.min(bytes - done, PAGE_SIZE - (at % PAGE_SIZE));
    act(at, done, piece);
    done += piece;
  }
  clac();
  return bytes - done;
}

/** Writes zeroes to the program. Returns how many bytes it could not write. */
export function clear_user(to: Virt, bytes: number): number {
  if (!access_ok(to, bytes)) return bytes;
  stac();
  const left = mmu_fill(to, 0, bytes);
  clac();
  return left;
}

/**
 * Copies a string up to and with its NUL, at most `count` bytes. Returns its length without NUL; `count` if there was
 * none in so many; -EFAULT where it runs into memory that the program has not.
 */
export function strncpy_from_user(to: Ptr, from: Virt, count: number): number {
  if (!access_ok(from, 1)) return -EFAULT;
  check_heap_object(to, count, false);
  stac();
  const length = copy_string(to, from, Math.min(count, TASK_SIZE_MAX - from));
  clac();
  return length === count || length === -EFAULT || ram8[to + length] === 0 ? length : -EFAULT;
}

function copy_string(to: Ptr, from: Virt, count: number): number {
  for (let done = 0; done < count;) {
    const at = mmu_translate(from + done, MMU_READ);
    if (at < 0) return -EFAULT;
    const piece = Math.min(count - done, PAGE_SIZE - (at % PAGE_SIZE));
    for (let i = 0; i < piece; i++, done++) {
      ram8[to + done] = ram8[at + i]!;
      if (ram8[at + i] === 0) return done;
    }
  }
  return count;
}

/** An oops if a part of a slab object is copied that programs must not see or change. */
function check_heap_object(ptr: Ptr, bytes: number, to_user: boolean): void {
  if (!pfn_valid(ptr >>> 12)) return;
  const cache = virt_to_cache(ptr);
  if (cache === NULL) return;
  const offset = ptr - nearest_obj(ptr);
  const from = KmemCache.useroffset.get(cache);
  const window_end = from + KmemCache.usersize.get(cache);
  if (offset >= from && offset + bytes <= window_end) return;
  const [what, where] = to_user ? ["exposure", "from"] : ["overwrite", "to"];
  const object = offset < 0 ? "SLUB object in left red zone" : "SLUB object";
  const name = KmemCache.name.get(cache);
  pr_emerg(`usercopy: Kernel memory ${what} attempt detected ${where} ${object} '${name}' (offset ${offset}, size ${bytes})!`); // prettier-ignore
  BUG("usercopy: a part of an object that programs must not have");
}
