/**
 * memdup_user: a program's bytes in a block of their own.
 *
 * The program chooses how many they are and what is in them, so they come from a set of caches apart from kmalloc's
 * (mm/kmem_buckets.ts): memdup_user-8 … memdup_user-8k.
 */
import { NULL, type Ptr, type Obj, type Virt } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { EFAULT, ENOMEM } from "../kernel/lib/errno.ts";
import { GFP_USER, __GFP_NOWARN } from "./gfp.ts";
import { kmem_buckets_alloc, kmem_buckets_create } from "./kmem_buckets.ts";
import { kfree } from "./kmalloc.ts";
import { copy_from_user } from "./uaccess.ts";

const INT_MAX = 0x7fffffff;
const user = static_data("memdup_user", { buckets: "*kmem_buckets" });

/** Boot: makes the caches. */
export function memdup_user_init(): void {
  user.buckets = kmem_buckets_create("memdup_user", 0, 0, INT_MAX);
}

/** Copies `size` bytes of the program whose call is carried out; -ENOMEM or -EFAULT. Give the block back with kfree. */
export function memdup_user(from: Virt, size: number): Obj | number {
  const copy = kmem_buckets_alloc(user.buckets, size, GFP_USER | __GFP_NOWARN);
  if (copy === NULL) return -ENOMEM;
  if (copy_from_user(copy as Ptr, from, size) === 0) return copy;
  kfree(copy);
  return -EFAULT;
}
