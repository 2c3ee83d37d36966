// scullc: scull with a cache of its own. Its objects are made ready once by a constructor, not at each allocation.
import { ENOMEM, ENOSPC } from "kheap/linux/errno";
import { read_bytes, register_chrdev, unregister_chrdev, write_bytes, type FileOps } from "kheap/linux/fs";
import { INIT_LIST_HEAD, ListHead, list_add_tail, list_del_init, list_empty, list_next } from "kheap/linux/list";
import { MODULE_DESCRIPTION, MODULE_LICENSE, module_exit, module_init } from "kheap/linux/module";
import {
  GFP_KERNEL,
  SLAB_HWCACHE_ALIGN,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_destroy,
  kmem_cache_free,
} from "kheap/linux/slab";
import { NULL, static_data, struct, type Ptr } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("memory as a character device, from a cache with a constructor");

const QUANTUM = 512;
const piece = struct("scullc_piece", { list: ListHead, used: "u32", data: "u8[512]" });
type PiecePtr = Ptr<"scullc_piece">;
const scullc = static_data("scullc", { cache: "*kmem_cache", pieces: ListHead, major: "u32", constructed: "u32" });

/** Runs once for each object of a new slab. A freed object must be as it left it: an empty list. */
function scullc_ctor(object: PiecePtr): void {
  INIT_LIST_HEAD(piece.list.at(object));
  scullc.constructed = scullc.constructed + 1;
}

function free_all(): void {
  while (!list_empty(scullc.pieces)) {
    const first: PiecePtr = list_next(scullc.pieces) - piece.list.offset;
    list_del_init(piece.list.at(first));
    kmem_cache_free(scullc.cache, first);
  }
}

/** The piece that holds byte `pos`, which is a multiple of the quantum away from the first; NULL behind the last. */
function piece_at(pos: number): PiecePtr {
  let node = list_next(scullc.pieces);
  for (let skip = Math.floor(pos / QUANTUM); skip > 0 && node !== scullc.pieces; skip--) node = list_next(node);
  return node === scullc.pieces ? NULL : node - piece.list.offset;
}

const scullc_fops: FileOps = {
  read(_file, pos, count) {
    const at = piece_at(pos);
    const start = pos % QUANTUM;
    if (at === NULL || start >= piece.used.get(at)) return new Uint8Array(0);
    return read_bytes(piece.data.at(at, start), Math.min(count, piece.used.get(at) - start));
  },
  write(_file, pos, bytes) {
    let at = piece_at(pos);
    const start = pos % QUANTUM;
    if (at === NULL) {
      if (start !== 0) return -ENOSPC;
      at = kmem_cache_alloc(scullc.cache, GFP_KERNEL);
      if (at === NULL) return -ENOMEM;
      list_add_tail(piece.list.at(at), scullc.pieces);
      piece.used.set(at, 0);
    }
    const part = bytes.subarray(0, QUANTUM - start);
    write_bytes(piece.data.at(at, start), part);
    piece.used.set(at, Math.max(piece.used.get(at), start + part.length));
    return part.length;
  },
};

module_init(() => {
  INIT_LIST_HEAD(scullc.pieces);
  scullc.cache = kmem_cache_create("scullc", piece.sizeof, 0, SLAB_HWCACHE_ALIGN, scullc_ctor);
  if (scullc.cache === NULL) return -ENOMEM;
  const major = register_chrdev(0, "scullc", scullc_fops);
  if (major < 0) {
    kmem_cache_destroy(scullc.cache);
    return major;
  }
  scullc.major = major;
  return 0;
});

module_exit(() => {
  unregister_chrdev(scullc.major, "scullc");
  free_all();
  kmem_cache_destroy(scullc.cache);
});
