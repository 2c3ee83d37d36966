/**
 * discfs: a read-only disc, mounted at /usr, larger than any memory here. It stands for every file system on a device:
 * what the page cache, the dentries and the inodes hold of it can be dropped and read again, so reclaim has something to do.
 *
 *     /usr/bin/cat …                     the programs, a line each                      inodes 32 …
 *     /usr/media/film0 … film7           32 MiB each                                   inodes 16 …
 *     /usr/src/000 … 255/000.c … 255.c   65,536 files of 1,000 to 8,000 bytes          inodes 256 …, 65536 …
 *
 * The disc is a formula, part of the machine like a drive: every line of 64 bytes says of which inode it is and where it
 * stands. Reading a page of it counts as 4 KiB read from a device (pgpgin).
 *
 * A name is looked up once and then remembered, also one that is not there. Inodes are hashed: when nobody uses them they
 * stay for the next look-up, on the LRU list, or off it while they have pages.
 *
 * Unlike Linux: there is no such file system there, and no block layer here; reading takes no time.
 */
import { NULL, PAGE_SIZE } from "../../hal/addr.ts";
import { ram_write_bytes } from "../../hal/ram.ts";
import { Page, page_address, type PagePtr } from "../../mm/page.ts";
import { PGPGIN, count_vm_events } from "../../mm/vmstat.ts";
import { ENOMEM, EROFS } from "../lib/errno.ts";
import { BIN, bin_text } from "../programs/bin.ts";
import { bytes_of } from "./bytes.ts";
import { d_add, d_make_root, d_name } from "./dcache.ts";
import {
  File, Inode, O_ACCMODE, O_RDONLY, O_TRUNC, S_IFDIR, S_IFREG, SuperBlock, is_dir, ops_symbol, type DentryPtr,
  type Dirent, type FileOps, type FilePtr, type FileSystemType, type InodeOps, type InodePtr, type SbPtr,
} from "./fs.ts"; // prettier-ignore
import { generic_file_mmap } from "./file_mmap.ts";
import { generic_file_read } from "./filemap.ts";
import { iget_locked } from "./inode.ts";

const ROOT_INO = 1;
const MEDIA_INO = 2;
const SRC_INO = 3;
const BIN_INO = 4;
const FIRST_FILM = 16;
const FIRST_BIN = 32;
const FILMS = 8;
const FILM_BYTES = 32 * 1024 * 1024;
const FIRST_FOLDER = 256;
/** Folders in src, and files in each. */
const SOURCES = 256;
const FIRST_SOURCE = SOURCES * SOURCES;
const DISC_LINE_BYTES = 64;

const PROGRAMS: readonly string[] = Object.freeze(Object.keys(BIN));
const ROOT_FOLDERS: Readonly<Record<string, number>> = Object.freeze({ bin: BIN_INO, media: MEDIA_INO, src: SRC_INO });

interface Entry {
  readonly ino: number;
  readonly type: number;
  readonly size: number;
}
const folder = (ino: number): Entry => ({ ino, type: S_IFDIR, size: 0 });
const source_size = (nr: number): number => (1 + (nr % 8)) * 1000;

/** What a name means in a directory; undefined if it is not there. */
function find_entry(dir: number, name: string): Entry | undefined {
  if (dir === ROOT_INO) return Object.hasOwn(ROOT_FOLDERS, name) ? folder(ROOT_FOLDERS[name]!) : undefined;
  if (dir === BIN_INO) {
    const nr = PROGRAMS.indexOf(name);
    return nr < 0 ? undefined : { ino: FIRST_BIN + nr, type: S_IFREG, size: bin_text(name).length };
  }
  const pattern = dir === MEDIA_INO ? /^film([0-7])$/ : dir === SRC_INO ? /^(\d{3})$/ : /^(\d{3})\.c$/;
  const match = pattern.exec(name);
  const nr = Number(match?.[1] ?? SOURCES);
  if (nr >= SOURCES) return undefined;
  if (dir === MEDIA_INO) return { ino: FIRST_FILM + nr, type: S_IFREG, size: FILM_BYTES };
  if (dir === SRC_INO) return folder(FIRST_FOLDER + nr);
  return { ino: FIRST_SOURCE + (dir - FIRST_FOLDER) * SOURCES + nr, type: S_IFREG, size: source_size(nr) };
}

const is_program = (ino: number): boolean => ino >= FIRST_BIN && ino < FIRST_BIN + PROGRAMS.length;

/** The names in a directory. */
function names_in(dir: number): string[] {
  if (dir === ROOT_INO) return Object.keys(ROOT_FOLDERS);
  if (dir === BIN_INO) return [...PROGRAMS];
  if (dir === MEDIA_INO) return Array.from({ length: FILMS }, (_, nr) => `film${nr}`);
  const suffix = dir === SRC_INO ? "" : ".c";
  return Array.from({ length: SOURCES }, (_, nr) => `${String(nr).padStart(3, "0")}${suffix}`);
}

/** The inode of what is on the disc. NULL without memory. */
function disc_iget(sb: SbPtr, { ino, type, size }: Entry): InodePtr {
  const { inode, is_new } = iget_locked(sb, ino, type | (type === S_IFDIR || is_program(ino) ? 0o555 : 0o444));
  if (inode === NULL || !is_new) return inode;
  Inode.i_size.set(inode, size);
  Inode.i_mtime.set(inode, 0);
  Inode.i_op.set(inode, type === S_IFDIR ? dir_iops : NULL);
  Inode.i_fop.set(inode, type === S_IFDIR ? dir_fops : file_fops);
  return inode;
}

function disc_lookup(dir: InodePtr, dentry: DentryPtr): number {
  const entry = find_entry(Inode.i_ino.get(dir), d_name(dentry));
  const inode = entry ? disc_iget(Inode.i_sb.get(dir), entry) : NULL;
  if (entry && inode === NULL) return -ENOMEM;
  d_add(dentry, inode);
  return 0;
}

function disc_readdir(file: FilePtr): Dirent[] {
  const dir = Inode.i_ino.get(File.f_inode.get(file));
  return names_in(dir).map((name) => {
    const { ino, type } = find_entry(dir, name)!;
    return { name, ino, type };
  });
}

/** Reads a page from the disc. */
function disc_read_folio(inode: InodePtr, page: PagePtr): void {
  const [ino, size] = [Inode.i_ino.get(inode), Inode.i_size.get(inode)];
  const start = Page.index.get(page) * PAGE_SIZE;
  const bytes = new Uint8Array(PAGE_SIZE);
  const end = Math.min(size - start, PAGE_SIZE);
  if (is_program(ino)) bytes.set(bytes_of(bin_text(PROGRAMS[ino - FIRST_BIN]!)));
  else
    for (let at = 0; at < end; at += DISC_LINE_BYTES) {
      const text = `inode ${ino} byte ${start + at}`;
      for (let i = 0; i < DISC_LINE_BYTES - 1; i++) bytes[at + i] = i < text.length ? text.charCodeAt(i) : 32;
      bytes[at + DISC_LINE_BYTES - 1] = 10;
    }
  ram_write_bytes(page_address(page), bytes.fill(0, Math.max(end, 0)));
  count_vm_events(PGPGIN, PAGE_SIZE / 1024);
}

function disc_open(inode: InodePtr, file: FilePtr): number {
  const flags = File.f_flags.get(file);
  return !is_dir(inode) && ((flags & O_ACCMODE) !== O_RDONLY || flags & O_TRUNC) ? -EROFS : 0;
}

const refuse = (): number => -EROFS;
const dir_iops = ops_symbol<InodeOps>("discfs_dir_inode_operations", {
  lookup: disc_lookup, create: refuse, mkdir: refuse, unlink: refuse, rmdir: refuse, link: refuse,
  symlink: refuse, rename: refuse,
}); // prettier-ignore
const dir_fops = ops_symbol<FileOps>("discfs_dir_operations", { iterate: disc_readdir });
const file_fops = ops_symbol<FileOps>("discfs_file_operations", {
  open: disc_open,
  read: generic_file_read,
  mmap: generic_file_mmap,
});

function disc_fill_super(sb: SbPtr): number {
  const inode = disc_iget(sb, folder(ROOT_INO));
  const root = inode === NULL ? NULL : d_make_root(inode);
  SuperBlock.s_root.set(sb, root);
  return root === NULL ? -ENOMEM : 0;
}

export const discfs_type = ops_symbol<FileSystemType>("discfs_fs_type", {
  name: "discfs",
  nodev: false,
  fill_super: disc_fill_super,
  read_folio: disc_read_folio,
});
