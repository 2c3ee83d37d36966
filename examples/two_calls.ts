import { NULL } from "../hal/addr.ts";
import { PRESETS } from "../hal/machine.ts";
import { struct } from "../hal/struct.ts";
import { boot } from "../boot/start_kernel.ts";
import { KMEM_CACHE, KmemCache, kmem_cache_create } from "../mm/slab_common.ts";
import { SLAB_PANIC } from "../mm/slab_layout.ts";
boot({ machine: PRESETS.textbook! });
const my_struct = struct("my_struct", { id: "u32", name: "char[288]", next: "*my_struct" });
const one = KMEM_CACHE("my_object_cache", my_struct, SLAB_PANIC);
const two = kmem_cache_create("my_object_cache", my_struct.sizeof, 0, SLAB_PANIC, NULL);
for (const cache of [one, two])
  console.log(KmemCache.name.get(cache), KmemCache.size.get(cache), KmemCache.oo.get(cache) & 0xffff);
