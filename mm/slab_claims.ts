/**
 * The allocator as it is while modules are loaded: what it hands out is booked to the module that runs (mm/claims.ts).
 *
 *     kmem_cache_alloc ─ ops.alloc ─ [ the record below: book ] ─ the allocator's own alloc
 *
 * It also finds what Linux's might_sleep() finds: a module that asks for memory in a way that may sleep, where nothing
 * may. Both cost a module some nanoseconds a call; a machine without modules has the allocator's own record.
 */
import { NULL, type NodeId, type Obj } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { KERN_ERR, pr_err } from "../kernel/lib/printk.ts";
import { dump_stack } from "../kernel/lib/dump_stack.ts";
import { ksym } from "../kernel/lib/ksym.ts";
import { module_name, running_line, running_module, type ModulePtr } from "../kernel/lib/owner.ts";
import { in_atomic, in_interrupt } from "../kernel/lib/preempt.ts";
import {
  CLAIM_OBJECT, ModuleClaim, claiming, claims_number, claims_open, claims_pages, claims_pages_bytes, unclaim,
} from "./claims.ts"; // prettier-ignore
import { GFP_ATOMIC, GFP_KERNEL, __GFP_DIRECT_RECLAIM, __GFP_NOWARN, __GFP_ZERO } from "./gfp.ts";
import { alloc_pages_exact, free_pages_exact } from "./page_bulk.ts";
import { GATE_CLAIMS, alloc_gate_set } from "./plenty.ts";
import {
  alloc_one_by_one, kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, set_slab_ops, slab_ops, type CachePtr, type SlabOps,
} from "./slab_common.ts"; // prettier-ignore
import { SLAB_NO_MERGE } from "./slab_layout.ts";

const state = static_data("module_claims", { cache: "*kmem_cache", nr_modules: "u32" });

const take = ksym("module_claim_take", () => kmem_cache_alloc(state.cache, GFP_ATOMIC | __GFP_NOWARN));
const give = ksym("module_claim_give", (record: Obj) => kmem_cache_free(state.cache, record));

/** Reports a request of a module that may sleep where nothing may. */
function might_alloc(module: ModulePtr, gfp: number): void {
  if ((gfp & __GFP_DIRECT_RECLAIM) === 0 || !in_atomic()) return;
  pr_err(`BUG: sleeping function called from invalid context at ${module_name(module)}:${running_line()}`);
  pr_err(`in_atomic(): 1, irqs_disabled(): ${in_interrupt() ? 1 : 0}, non_block: 0: ask with GFP_ATOMIC here`);
  dump_stack(KERN_ERR);
}

/** What a module allocates by `make`; NULL also where there is no memory for the record. */
function booked(module: ModulePtr, cache: CachePtr, gfp: number, make: () => Obj): Obj {
  might_alloc(module, gfp);
  return claiming(CLAIM_OBJECT, make, NULL, cache) as Obj;
}

/** `inner` with books. Its optional functions stay absent where `inner` has none. */
function with_claims(inner: SlabOps): SlabOps {
  const { kmalloc, alloc_bulk, free_bulk, free_rcu } = inner;
  const outer: SlabOps = {
    ...inner,
    alloc(cache: CachePtr, gfp: number, node: NodeId): Obj {
      const module = running_module();
      if (module === NULL) return inner.alloc(cache, gfp, node);
      return booked(module, cache, gfp, () => inner.alloc(cache, gfp, node));
    },
    free(cache: CachePtr, object: Obj): void {
      unclaim(CLAIM_OBJECT, object);
      inner.free(cache, object);
    },
  };
  return {
    ...outer,
    ...(alloc_bulk && {
      alloc_bulk(cache: CachePtr, gfp: number, nr: number, objects: Obj[]): number {
        const take = running_module() === NULL ? alloc_bulk : alloc_one_by_one;
        return take(cache, gfp, nr, objects);
      },
    }),
    ...(free_bulk && {
      free_bulk(cache: CachePtr, nr: number, objects: Obj[]): void {
        for (const object of objects.slice(0, nr)) unclaim(CLAIM_OBJECT, object);
        free_bulk(cache, nr, objects);
      },
    }),
    ...(free_rcu && {
      free_rcu(cache: CachePtr, object: Obj): boolean {
        unclaim(CLAIM_OBJECT, object);
        return free_rcu(cache, object);
      },
    }),
    ...(kmalloc && {
      kmalloc: {
        ...kmalloc,
        alloc(size: number, gfp: number, node: NodeId): Obj {
          const module = running_module();
          if (module === NULL) return kmalloc.alloc(size, gfp, node);
          return booked(module, NULL, gfp, () => kmalloc.alloc(size, gfp, node));
        },
      },
    }),
  };
}

// eslint-disable-next-line kheap/no-module-state -- code, not state: the allocator's own record, while another stands before it
let inner: SlabOps | undefined;

/** A module is loaded: from the first on, books are kept. False without memory, or if there are 63 modules. */
export function claims_get(module: ModulePtr): boolean {
  if (state.nr_modules === 0 && !open_books()) return false;
  if (!claims_number(module)) return false;
  state.nr_modules = state.nr_modules + 1;
  return true;
}

/** A module is gone: with the last one the books go. */
export function claims_put(module: ModulePtr): void {
  claims_number(NULL, module);
  state.nr_modules = state.nr_modules - 1;
  if (state.nr_modules === 0) close_books();
}

function open_books(): boolean {
  state.cache = kmem_cache_create("module_claim", ModuleClaim.sizeof, 8, SLAB_NO_MERGE);
  if (state.cache === NULL) return false;
  const pages = alloc_pages_exact(claims_pages_bytes(), GFP_KERNEL | __GFP_ZERO);
  if (pages === NULL) {
    kmem_cache_destroy(state.cache);
    return false;
  }
  claims_open(take, give, pages);
  inner = slab_ops();
  set_slab_ops(with_claims(inner));
  alloc_gate_set(GATE_CLAIMS, true);
  return true;
}

function close_books(): void {
  alloc_gate_set(GATE_CLAIMS, false);
  if (inner) set_slab_ops(inner);
  inner = undefined;
  const pages = claims_pages();
  claims_open(NULL, NULL, NULL);
  free_pages_exact(pages, claims_pages_bytes());
  kmem_cache_destroy(state.cache);
}
