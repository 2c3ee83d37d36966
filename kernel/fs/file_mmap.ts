/**
 * Files as memory of programs: what the page cache does for the areas that map a part of it.
 *
 *     vm_mmap_file        a program's request: may this file be mapped so?  -> do_mmap (mm/mmap.ts)
 *     shmem_zero_setup    the file without a name behind MAP_SHARED | MAP_ANONYMOUS
 *     filemap_fault       a page that is touched: found in the page cache, or read into it: a major fault
 *
 * Each area has a use of the open file, so the file is there as long as any part of it is mapped. Behind the page that
 * holds the file's last byte there is nothing: SIGBUS.
 *
 * Shared memory without a name is a file of the root file system that has no name there (Linux: of a tmpfs that is mounted
 * nowhere); it goes with the last area that maps it.
 */
import { NULL, PAGE_SIZE, type Virt } from "../../hal/addr.ts";
import { AS_SHMEM, AddressSpace, type MappingPtr } from "../../mm/address_space.ts";
import { VM_FAULT_OOM, VM_FAULT_SIGBUS } from "../../mm/memory.ts";
import { VmArea, type MmPtr, type VmOps, type VmaPtr } from "../../mm/mm_types.ts";
import { MAP_ANONYMOUS, MAP_SHARED, do_mmap, type FileToMap } from "../../mm/mmap.ts";
import type { PagePtr } from "../../mm/page.ts";
import { PGMAJFAULT, count_vm_event } from "../../mm/vmstat.ts";
import { node_state } from "../../mm/zone.ts";
import { EACCES, EINVAL, ENODEV, ENOMEM, EOVERFLOW, is_err } from "../lib/errno.ts";
import { d_make_root } from "./dcache.ts";
import { alloc_empty_file, fput, get_file } from "./file_table.ts";
import { MAX_LFS_FILESIZE, filemap_find_page, filemap_get_page } from "./filemap.ts";
import {
  FMODE_READ, FMODE_WRITE, File, Inode, Mount, O_RDWR, S_IFREG, SuperBlock, file_ops, ops_symbol, type FileOps,
  type FilePtr,
} from "./fs.ts"; // prettier-ignore
import { new_inode } from "./inode.ts";
import { root_path } from "./namespace.ts";

/** True if a file has a page of that index. */
function is_within(mapping: MappingPtr, pgoff: number): boolean {
  return pgoff * PAGE_SIZE < Inode.i_size.get(AddressSpace.host.get(mapping));
}

function filemap_fault(vma: VmaPtr, pgoff: number): PagePtr {
  const mapping = VmArea.vm_mapping.get(vma);
  if (!is_within(mapping, pgoff)) return -VM_FAULT_SIGBUS;
  const is_file = (AddressSpace.flags.get(mapping) & AS_SHMEM) === 0;
  if (is_file && filemap_find_page(mapping, pgoff) === NULL) count_vm_event(PGMAJFAULT);
  const page = filemap_get_page(mapping, pgoff);
  return page === NULL ? -VM_FAULT_OOM : page;
}

function filemap_cached(vma: VmaPtr, pgoff: number): PagePtr {
  const mapping = VmArea.vm_mapping.get(vma);
  return is_within(mapping, pgoff) ? filemap_find_page(mapping, pgoff) : NULL;
}

const generic_file_vm_ops = ops_symbol<VmOps>("generic_file_vm_ops", {
  open: (vma) => void get_file(VmArea.vm_file.get(vma)),
  close: (vma) => fput(VmArea.vm_file.get(vma)),
  fault: filemap_fault,
  cached: filemap_cached,
});

/** `mmap` of a file whose contents are its page cache. */
export function generic_file_mmap(_file: FilePtr, vma: VmaPtr): number {
  VmArea.vm_ops.set(vma, generic_file_vm_ops);
  return 0;
}

function file_to_map(file: FilePtr, offset: number): FileToMap {
  return {
    file,
    mapping: File.f_mapping.get(file),
    pgoff: offset / PAGE_SIZE,
    may_write: (File.f_mode.get(file) & FMODE_WRITE) !== 0,
    mmap: (vma) => file_ops(file).mmap!(file, vma),
  };
}

/** Maps an open file from byte `offset` on. The address, or -errno: a bad offset, not open for reading, cannot be mapped. */
export function vm_mmap_file(
  mm: MmPtr,
  address: Virt,
  length: number,
  prot: number,
  flags: number,
  file: FilePtr,
  offset: number,
): Virt {
  // prettier-ignore
  if (offset < 0 || offset % PAGE_SIZE !== 0) return -EINVAL;
  if (offset + length > MAX_LFS_FILESIZE) return -EOVERFLOW;
  if (!(File.f_mode.get(file) & FMODE_READ)) return -EACCES;
  if (!file_ops(file).mmap) return -ENODEV;
  return do_mmap(mm, address, length, prot, flags, file_to_map(file, offset));
}

const shmem_file_operations = ops_symbol<FileOps>("shmem_file_operations", { mmap: generic_file_mmap });

/** A file of zeroes without a name, with one user; -ENFILE or -ENOMEM. */
function shmem_zero_setup(bytes: number): FilePtr {
  if (bytes / PAGE_SIZE > node_state.totalram_pages) return -ENOMEM;
  const file = alloc_empty_file(O_RDWR);
  if (is_err(file)) return file;
  const sb = Mount.mnt_sb.get(root_path().mnt);
  const ino = SuperBlock.s_next_ino.get(sb);
  const inode = new_inode(sb, ino, S_IFREG | 0o777);
  const dentry = inode === NULL ? NULL : d_make_root(inode);
  if (dentry === NULL) {
    fput(file);
    return -ENOMEM;
  }
  SuperBlock.s_next_ino.set(sb, ino + 1);
  Inode.i_nlink.set(inode, 0);
  Inode.i_size.set(inode, bytes);
  AddressSpace.flags.set(Inode.i_data.at(inode), AS_SHMEM);
  File.f_mode.set(file, FMODE_READ | FMODE_WRITE);
  File.f_op.set(file, shmem_file_operations);
  File.f_inode.set(file, inode);
  File.f_mapping.set(file, Inode.i_mapping.get(inode));
  File.f_path_mnt.set(file, root_path().mnt);
  File.f_path_dentry.set(file, dentry);
  return file;
}

/** Maps zeroes: private to a program, or (MAP_SHARED) shared with those that it forks. The address, or -errno. */
export function vm_mmap_zeroes(mm: MmPtr, address: Virt, length: number, prot: number, flags: number): Virt {
  if (!(flags & MAP_SHARED) || length <= 0) return do_mmap(mm, address, length, prot, flags);
  const file = shmem_zero_setup(Math.ceil(length / PAGE_SIZE) * PAGE_SIZE);
  if (is_err(file)) return file as number;
  const result = do_mmap(mm, address, length, prot, flags & ~MAP_ANONYMOUS, file_to_map(file, 0));
  fput(file);
  return result;
}
