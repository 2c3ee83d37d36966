/** What the slab layer says, letter for letter, and what it does with objects that come back the wrong way. */
import { describe, expect, it } from "vitest";
import { NULL, px, type Obj } from "../../hal/addr.ts";
import { TEXT_BASE, TEXT_BYTES } from "../../hal/image.ts";
import { ram8 } from "../../hal/ram.ts";
import { struct } from "../../hal/struct.ts";
import { KernelBug } from "../../kernel/lib/bug.ts";
import { list_add } from "../../kernel/lib/list.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { spin_lock, spin_unlock } from "../../kernel/lib/spinlock.ts";
import { kmem_dump_obj, mem_dump_obj } from "../../mm/dump_obj.ts";
import { GFP_ATOMIC, GFP_KERNEL, NUMA_NO_NODE, __GFP_DMA32, __GFP_HIGHMEM, __GFP_NOWARN, __GFP_ZERO } from "../../mm/gfp.ts"; // prettier-ignore
import {
  ZERO_SIZE_PTR, kfree, kfree_const, kmalloc, kmalloc_nolock, krealloc, ksize, kstrdup, kstrdup_const, kstrdup_text,
  kstrndup,
} from "../../mm/kmalloc.ts"; // prettier-ignore
import { kvmalloc } from "../../mm/kvmalloc.ts";
import {
  KMEM_CACHE_USERCOPY, KmemCache, get_slabinfo, kmem_cache_alloc, kmem_cache_create, kmem_cache_create_usercopy,
  kmem_cache_destroy, kmem_cache_free, kmem_cache_free_bulk, kmem_cache_shrink, slab_data, find_cache, type CachePtr,
} from "../../mm/slab_common.ts"; // prettier-ignore
import { virt_to_head_page } from "../../mm/page.ts";
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { set_and_flush_cpu_partial } from "../../mm/slub_cache.ts";
import { validate_mm } from "../../mm/validate.ts";
import { with_machine } from "../lib/machine.ts";
import { counters } from "./slab_counters.ts";

/** What `fn` made the kernel print, but for the lines of call traces. */
function said(fn: () => void): string[] {
  const before = [...printk_records()].length;
  fn();
  const texts = [...printk_records()].slice(before).map((record) => record.text);
  let traced = false;
  return texts.filter((text, i) => {
    if (text === " <TASK>") traced = true;
    const shown = !traced && text !== "Call Trace:" && texts[i + 1] !== "Call Trace:";
    if (text === " </TASK>") traced = false;
    return shown;
  });
}
const make = (name: string, size = 100): CachePtr => kmem_cache_create(name, size, 0, SLAB_NO_MERGE, null);
const HARDENED = { append: "slab_freelist_hardened=on" };

describe("an object that comes back the wrong way", () => {
  it("A57 to another cache, hardened: one report naming both, and the object goes to its own", () => {
    for (const append of [HARDENED.append, `${HARDENED.append} slab_freelist_random=on slab_full=off`])
      with_machine({ append }, () => {
        const [mine, other] = [make("mine"), make("other")];
        const objects = Array.from({ length: 6 }, () => kmem_cache_alloc(mine, GFP_KERNEL));
        const message = "WARNING: cache_from_obj: Wrong slab cache. other but object is from mine";
        expect(said(() => kmem_cache_free(other, objects.pop()!))).toEqual([message]);
        expect(said(() => kmem_cache_free_bulk(other, 3, objects.splice(0, 3)))).toEqual([message]); // one group
        expect([get_slabinfo(mine).live_objs, get_slabinfo(other).live_objs]).toEqual([2, 0]);
        expect(said(() => objects.forEach((object) => kmem_cache_free(mine, object)))).toEqual([]);
        expect(validate_mm()).toEqual([]);
        [mine, other].forEach(kmem_cache_destroy);
      });
  });

  it("to a cache with sheaves, hardened: the same", () => {
    with_machine(HARDENED, () => {
      const mine = kmem_cache_create("mine", 100, { sheaf_capacity: 8 }, 0);
      const other = make("other");
      const object = kmem_cache_alloc(mine, GFP_KERNEL);
      expect(said(() => kmem_cache_free(other, object))).toEqual(["WARNING: cache_from_obj: Wrong slab cache. other but object is from mine"]); // prettier-ignore
      expect(counters(mine)).toMatchObject({ free_cpu_sheaf: 1 });
      [mine, other].forEach(kmem_cache_destroy);
    });
  });

  it("that is no object of any cache, hardened: one report, and nothing is done", () => {
    with_machine(HARDENED, () => {
      const cache = make("mine");
      const large = kmalloc(20_000, GFP_KERNEL);
      expect(said(() => kmem_cache_free(cache, large))).toEqual(["WARNING: virt_to_cache: Object is not a Slab page!"]);
      expect(validate_mm()).toEqual([]);
      kfree(large);
      kmem_cache_destroy(cache);
    });
  });

  it("twice in a row, hardened: BUG, and the list stays whole", () => {
    with_machine(HARDENED, () => {
      const cache = make("mine");
      const objects = Array.from({ length: 45 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      const [elsewhere, here] = [objects[0]!, objects.at(-1)!]; // in a full slab, in the active one
      for (const object of [elsewhere, here]) {
        kmem_cache_free(cache, object);
        expect(() => kmem_cache_free(cache, object)).toThrow(KernelBug);
        expect(validate_mm()).toEqual([]);
      }
      for (const object of objects.slice(1, -1)) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });

  it("to kfree, which is no object of kmalloc: one report", () => {
    with_machine({}, () => {
      expect(said(() => kfree(TEXT_BASE)).join()).toContain("Not a kmalloc allocation");
    });
  });
});

describe("messages", () => {
  it("flags that make no sense for objects are taken off, once a new slab or a large block is needed", () => {
    with_machine({}, () => {
      const cache = make("fixed");
      let object: Obj = NULL;
      const bad = GFP_KERNEL | __GFP_HIGHMEM | __GFP_DMA32;
      expect(said(() => (object = kmem_cache_alloc(cache, bad)))).toEqual([
        "Unexpected gfp: 0x6 (GFP_DMA32|__GFP_HIGHMEM). Fixing up to gfp: 0xcc0 (GFP_KERNEL). Fix your code!",
      ]);
      expect(said(() => kmem_cache_free(cache, kmem_cache_alloc(cache, bad)))).toEqual([]); // there is a slab now
      let large: Obj = NULL;
      expect(said(() => (large = kmalloc(9000, GFP_KERNEL | 0x40000000)))).toEqual([
        "Unexpected gfp: 0x40000000 (0x40000000). Fixing up to gfp: 0xcc0 (GFP_KERNEL). Fix your code!",
      ]);
      expect([...printk_records()].filter(({ text }) => text === "Call Trace:").length).toBe(2);
      kfree(large);
      kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });

  it("a cache that is given up with live objects is reported: slabs with room, their objects, and who did it", () => {
    with_machine({}, () => {
      const cache = make("busy", 1000);
      const objects = Array.from({ length: 18 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      const lines = said(function my_exit() {
        kmem_cache_destroy(cache);
      });
      expect(lines.slice(0, 4)).toEqual([
        "=".repeat(77), "BUG busy (Not tainted): Objects remaining on __kmem_cache_shutdown()", "-".repeat(77), "",
      ]); // prettier-ignore
      // The full slab is on no list that anybody looks at.
      const slab = virt_to_head_page(objects[16]!);
      const flags = "0x200000000000240(head|workingset|node=0|zone=2)";
      expect(lines.at(-2)).toBe(`Slab 0x${px(slab)} objects=16 used=2 fp=0x${px(objects[17]! + 1000)} flags=${flags}`);
      expect(lines.slice(4, -2)).toEqual(objects.slice(16).map((object, i) => `Object 0x${px(object)} @offset=${i * 1000}`)); // prettier-ignore
      expect(lines.at(-1)).toMatch(/^WARNING: kmem_cache_destroy busy: Slab cache still has objects when called from my_exit\+0x0\/0x10 \[test\/mm\/slab_messages\.test\.ts:\d+\]$/); // prettier-ignore
      expect(find_cache("busy")).toBe(NULL); // unlinked all the same
      // Undo the leak by hand: the cache is listed again and destroyed without objects.
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_shrink(cache);
      list_add(KmemCache.list.at(cache), slab_data.caches);
      slab_data.nr_caches = slab_data.nr_caches + 1;
      KmemCache.refcount.set(cache, 1);
      expect(said(() => kmem_cache_destroy(cache))).toEqual([]);
    });
  });

  it("without memory the report names CPU, node, flags, cache and what each node has; ten times in five seconds", () => {
    with_machine({}, () => {
      const cache = make("starved", 4096);
      const objects: Obj[] = [];
      for (let object; (object = kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN)) !== NULL;) objects.push(object);
      const lines = said(() => kmem_cache_alloc(cache, GFP_ATOMIC)).filter((line) => /^(SLUB|  )/.test(line));
      expect(lines[0]).toBe("SLUB: Unable to allocate memory on CPU 0 (of node 0) on node -1, gfp=0x820(GFP_ATOMIC)");
      expect(lines[1]).toBe("  cache: starved, object size: 4096, buffer size: 4096, default order: 3, min order: 0");
      expect(lines.slice(2).every((line) => /^ {2}node [01]: slabs: \d+, objs: \d+, free: 0$/.test(line))).toBe(true);
      expect(lines.length).toBe(4);
      const more = said(() => {
        for (let i = 0; i < 20; i++) kmem_cache_alloc(cache, GFP_ATOMIC);
      });
      expect(more.filter((line) => line.startsWith("SLUB: Unable")).length).toBe(9);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });

  it("kvmalloc of more than 2 GiB warns once, and not at all if told not to", () => {
    with_machine({}, () => {
      const asked = (gfp: number): string[] => said(() => expect(kvmalloc(2 ** 31, gfp)).toBe(0));
      expect(asked(GFP_KERNEL | __GFP_NOWARN)).toEqual([]);
      expect(asked(GFP_KERNEL)).toEqual(["WARNING: kvmalloc of 2147483648 bytes"]);
      expect(asked(GFP_KERNEL)).toEqual([]);
    });
  });

  it("a cache that cannot be made says so", () => {
    with_machine({}, () => {
      expect(
        said(() => make("huge", 8 << 20))
          .filter((text) => !/^ |^C/.test(text))
          .at(-1),
      ).toBe("__kmem_cache_create_args(huge) failed with error -22");
    });
  });

  it("A45 zero asked of a cache with a constructor is warned of once, and the object is zero", () => {
    with_machine({}, () => {
      const cache = kmem_cache_create("both", 2048, { ctor: (object: Obj) => void (ram8[object] = 1) }, 0);
      const objects: Obj[] = [];
      const zeroed = (): void => {
        for (let i = 0; i < 20; i++) objects.push(kmem_cache_alloc(cache, GFP_KERNEL | __GFP_ZERO));
      };
      expect(said(zeroed)).toEqual(["WARNING: both: __GFP_ZERO and a constructor"]);
      expect(said(zeroed)).toEqual([]);
      expect(objects.every((object) => ram8[object] === 0)).toBe(true);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
    });
  });

  it("a window for copies to programs is kept, and one that does not fit is dropped with a warning", () => {
    with_machine({}, () => {
      const layout = struct("with_window", { id: "u64", text: "char[24]" });
      const cache = KMEM_CACHE_USERCOPY(layout, 0, "text");
      expect([KmemCache.useroffset.get(cache), KmemCache.usersize.get(cache)]).toEqual([8, 24]);
      let wrong: CachePtr = NULL;
      expect(said(() => (wrong = kmem_cache_create_usercopy("wrong", 32, 0, SLAB_NO_MERGE, 16, 24)))).toEqual(["WARNING: usercopy of wrong"]); // prettier-ignore
      expect([KmemCache.useroffset.get(wrong), KmemCache.usersize.get(wrong)]).toEqual([0, 0]);
      [cache, wrong].forEach(kmem_cache_destroy);
    });
  });

  it("an address is described by its slab", () => {
    with_machine({}, () => {
      const object = kmalloc(60, GFP_KERNEL);
      const about = ` slab kmalloc-64 start ${px(object)} pointer offset 5 size 64`;
      expect(kmem_dump_obj(object + 5)).toBe(about);
      expect(said(() => mem_dump_obj("rcu head", object + 5))).toEqual([`rcu head${about}`]);
      const large = kmalloc(20_000, GFP_KERNEL);
      const other = [NULL, ZERO_SIZE_PTR, large].flatMap((address) => said(() => mem_dump_obj("p", address)));
      expect(other).toEqual(["p NULL pointer", "p zero-size pointer", "p non-slab/vmalloc memory"]);
      [object, large].forEach(kfree);
    });
  });
});

describe("the rest of the kmalloc family", () => {
  const text_at = (ptr: Obj): string => {
    let text = "";
    for (let at = ptr; ram8[at] !== 0; at++) text += String.fromCharCode(ram8[at]!);
    return text;
  };

  it("strings: kstrndup cuts, kstrdup_const shares what never changes", () => {
    with_machine({}, () => {
      const name = kstrdup_text("a rather long name", GFP_KERNEL);
      const cut = kstrndup(name, 8, GFP_KERNEL);
      const whole = kstrndup(name, 80, GFP_KERNEL);
      expect([cut, whole].map(text_at)).toEqual(["a rather", "a rather long name"]);
      expect([ksize(cut), kstrndup(NULL, 3, GFP_KERNEL), kstrdup(NULL, GFP_KERNEL)]).toEqual([16, NULL, NULL]);
      const constant = TEXT_BASE + TEXT_BYTES + 64; // a name in the kernel's symbol table
      expect(kstrdup_const(constant, GFP_KERNEL)).toBe(constant);
      kfree_const(constant);
      const copy = kstrdup_const(name, GFP_KERNEL);
      expect([copy === name, text_at(copy)]).toEqual([false, "a rather long name"]);
      kfree_const(copy);
      [name, cut, whole].forEach(kfree);
    });
  });

  it("kmalloc_nolock gives up above the largest class, with other flags, and while a lock is held", () => {
    with_machine({}, () => {
      const object = kmalloc_nolock(100, __GFP_ZERO, NUMA_NO_NODE);
      expect(ksize(object)).toBe(128);
      expect(kmalloc_nolock(8193, 0, NUMA_NO_NODE)).toBe(NULL);
      expect(said(() => kmalloc_nolock(8, GFP_KERNEL, NUMA_NO_NODE))).toHaveLength(1);
      spin_lock(slab_data.mutex);
      expect(kmalloc_nolock(100, 0, NUMA_NO_NODE)).toBe(NULL);
      spin_unlock(slab_data.mutex);
      expect(kmalloc_nolock(0, 0, NUMA_NO_NODE)).toBe(ZERO_SIZE_PTR);
      kfree(object);
    });
  });

  it("krealloc keeps the address while the slot is large enough, shrinks in place, and fails without harm", () => {
    with_machine({}, () => {
      const object = kmalloc(100, GFP_KERNEL);
      ram8[object + 99] = 7;
      expect([krealloc(object, 128, GFP_KERNEL), krealloc(object, 1, GFP_KERNEL)]).toEqual([object, object]);
      expect(krealloc(object, 8 << 20, GFP_KERNEL | __GFP_NOWARN)).toBe(NULL);
      expect(ram8[object + 99]).toBe(7);
      expect(krealloc(object, 0, GFP_KERNEL)).toBe(ZERO_SIZE_PTR);
      const fresh = krealloc(NULL, 10, GFP_KERNEL);
      expect(ksize(fresh)).toBe(16);
      kfree(fresh);
    });
  });
});

it("a write to cpu_partial flushes what the CPUs keep", () => {
  with_machine({}, () => {
    const cache = make("tuned", 512);
    const objects = Array.from({ length: 64 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
    for (const object of objects) kmem_cache_free(cache, object);
    const flushed = counters(cache)["cpuslab_flush"] ?? 0;
    expect(set_and_flush_cpu_partial(cache, 10)).toBe(0);
    expect(counters(cache)["cpuslab_flush"]).toBe(flushed + 1);
    expect([KmemCache.cpu_partial.get(cache), KmemCache.cpu_partial_slabs.get(cache)]).toEqual([10, 2]);
    expect(get_slabinfo(cache).active_objs).toBe(0); // nothing is left on a CPU
    const none = kmem_cache_create("none", 512, { cpu_partial: "off" }, SLAB_NO_MERGE);
    expect([set_and_flush_cpu_partial(none, 0), set_and_flush_cpu_partial(none, 5)]).toEqual([0, -22]);
    [cache, none].forEach(kmem_cache_destroy);
    expect(find_cache("tuned")).toBe(NULL);
  });
});
