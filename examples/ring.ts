// A ring of the last `size` numbers: a cache, an object a number, a file in /proc, and functions for other modules.
import {
  EXPORT_SYMBOL,
  MODULE_DESCRIPTION,
  MODULE_LICENSE,
  module_exit,
  module_init,
  module_param,
  pr_info,
} from "kheap/linux/module";
import { proc_create, proc_remove } from "kheap/linux/proc_fs";
import {
  GFP_KERNEL,
  KMEM_CACHE,
  SLAB_PANIC,
  kmem_cache_alloc,
  kmem_cache_destroy,
  kmem_cache_free,
} from "kheap/linux/slab";
import { NULL, static_data, struct, type Ptr } from "kheap/linux/types";
import { ENOMEM } from "kheap/linux/errno";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("keeps the last numbers that were pushed");

const ring_item = struct("ring_item", { id: "u32", name: "char[16]", next: "*ring_item" });
type ItemPtr = Ptr<"ring_item">;
const ring = static_data("ring", {
  cache: "*kmem_cache",
  head: "*ring_item",
  tail: "*ring_item",
  count: "u32",
  proc: "*kernfs_node",
});
const size = module_param("size", "uint", 8, { min: 1, max: 1024 });

/** Takes a number in; the oldest goes if the ring is full. 0 or -ENOMEM. */
export function ring_push(id: number): number {
  const item: ItemPtr = kmem_cache_alloc(ring.cache, GFP_KERNEL);
  if (item === NULL) return -ENOMEM;
  ring_item.id.set(item, id);
  ring_item.name.set(item, `number ${id}`);
  ring_item.next.set(item, NULL);
  if (ring.head === NULL) ring.head = item;
  else ring_item.next.set(ring.tail, item);
  ring.tail = item;
  ring.count = ring.count + 1;
  if (ring.count > size.value) ring_pop();
  return 0;
}
EXPORT_SYMBOL(ring_push);

/** The oldest number, or -1. */
export function ring_pop(): number {
  const item = ring.head;
  if (item === NULL) return -1;
  const id = ring_item.id.get(item);
  ring.head = ring_item.next.get(item);
  ring.count = ring.count - 1;
  kmem_cache_free(ring.cache, item);
  return id;
}
EXPORT_SYMBOL(ring_pop);

function show(): string {
  let text = "";
  for (let item = ring.head; item !== NULL; item = ring_item.next.get(item)) text += `${ring_item.name.get(item)}\n`;
  return text;
}

module_init(() => {
  ring.cache = KMEM_CACHE("my_object_cache", ring_item, SLAB_PANIC);
  ring.proc = proc_create("ring", { show, store: (_, text) => ring_push(Number(text)) });
  for (let id = 1; id <= 3; id++) if (ring_push(id) < 0) break;
  pr_info(`ring: ${ring.count} of ${size.value} numbers`);
  return 0;
});

module_exit(() => {
  proc_remove(ring.proc);
  while (ring_pop() >= 0);
  kmem_cache_destroy(ring.cache);
});
