/**
 * What a module still holds: named for its author, and taken back.
 *
 *     rmmod ─ exit ─ caches drained, grace periods over ─ held_by(module) ─ one line a kind, a source line and a cache
 *                                                       └ take_back(module): what runs first, then memory, caches last
 *
 * In Linux what a module leaves is lost until the next boot, and a timer or thread that it leaves takes the machine
 * down with it. Here it is given back, so that the next try starts clean.
 */
import { NULL, PAGE_SIZE, type Ptr } from "../hal/addr.ts";
import { image_symbol } from "../hal/image.ts";
import {
  CLAIM_CACHE, CLAIM_CHRDEV, CLAIM_NOTIFIER, CLAIM_OBJECT, CLAIM_PAGES, CLAIM_PERCPU, CLAIM_PROC,
  CLAIM_SHRINKER, CLAIM_SYSFS, CLAIM_THREAD, CLAIM_TIMER, CLAIM_VMALLOC, CLAIM_WORK, CLAIM_WORKQUEUE, claimed_pages,
  claims_of, unclaim, type Claim,
} from "../mm/claims.ts"; // prettier-ignore
import { kfree } from "../mm/kmalloc.ts";
import { kvfree_rcu_barrier } from "../mm/kfree_rcu.ts";
import { PGTY_large_kmalloc, page_address, page_type, type PagePtr } from "../mm/page.ts";
import { __free_pages } from "../mm/page_alloc.ts";
import { free_percpu } from "../mm/percpu.ts";
import { shrinker_free } from "../mm/shrinker.ts";
import {
  KmemCache,
  cache_exists,
  kmem_cache_bury,
  kmem_cache_destroy,
  kmem_cache_free,
  slab_ops,
} from "../mm/slab_common.ts";
import { find_vm_area, VmStruct, VM_MAP, vfree, vunmap } from "../mm/vmalloc.ts";
import { chrdev_path, remove_chrdev } from "./fs/char_dev.ts";
import { proc_remove } from "./fs/procfs.ts";
import { sysfs_remove } from "./fs/sysfs.ts";
import { KernfsNode } from "./fs/kernfs.ts";
import { rcu_barrier } from "./lib/rcu.ts";
import { module_suffix, type FnPtr } from "./lib/ksym.ts";
import type { ModulePtr } from "./lib/owner.ts";
import { kthread_end } from "./kthread.ts";
import {
  NotifierBlock,
  for_each_notifier,
  notifier_chain_unregister,
  oom_notify_list,
  reboot_notifier_list,
} from "./notifier.ts";
import { TaskStruct } from "./task.ts";
import { TimerList, for_each_timer, timer_delete } from "./timer.ts";
import { WorkStruct, cancel_work_sync, delayed_work_fn, destroy_workqueue, for_each_work } from "./workqueue.ts";

/** Things of one kind that one line of the source took. */
export interface Held {
  /** In words: "3 objects of my_object_cache (48 bytes each)". */
  readonly what: string;
  readonly line: number;
  readonly count: number;
}

interface Kind {
  /** What one is, for people; equal texts are counted together. */
  name(claim: Claim): string;
  take_back(claim: Claim): void;
}

const named = (name: string, take_back: (address: Ptr) => void): Kind => ({
  name: () => name,
  take_back: (claim) => take_back(claim.address),
});

const KINDS: Readonly<Record<number, Kind>> = Object.freeze({
  [CLAIM_THREAD]: {
    name: ({ address }: Claim) => `kernel thread (${TaskStruct.comm.get(address)})`,
    take_back: ({ address }: Claim) => kthread_end(address),
  },
  [CLAIM_TIMER]: named("armed timer", timer_delete),
  [CLAIM_WORK]: named("queued work", cancel_work_sync),
  [CLAIM_WORKQUEUE]: named("work queue", destroy_workqueue),
  [CLAIM_NOTIFIER]: named("notifier block", (block) => {
    for (const chain of [reboot_notifier_list, oom_notify_list]) notifier_chain_unregister(chain, block);
  }),
  [CLAIM_SHRINKER]: named("shrinker", shrinker_free),
  [CLAIM_CHRDEV]: {
    name: ({ address }: Claim) => `device (${chrdev_path(address)})`,
    take_back: ({ address }: Claim) => remove_chrdev(address),
  },
  [CLAIM_PROC]: { name: kernfs_name("/proc"), take_back: ({ address }: Claim) => proc_remove(address) },
  [CLAIM_SYSFS]: { name: kernfs_name("/sys"), take_back: ({ address }: Claim) => sysfs_remove(address) },
  [CLAIM_OBJECT]: {
    name({ cache }: Claim) {
      if (cache === NULL) return "kmalloc block";
      if (is_lost(cache)) return "object of a cache that is gone";
      return `object of ${KmemCache.name.get(cache)} (${KmemCache.object_size.get(cache)} bytes each)`;
    },
    take_back({ address, cache }: Claim) {
      if (cache === NULL) kfree(address);
      else if (!is_lost(cache)) kmem_cache_free(cache, address);
    },
  },
  [CLAIM_PAGES]: {
    name: ({ address, order }: Claim) =>
      page_type(address) === PGTY_large_kmalloc
        ? `kmalloc block (${PAGE_SIZE << order} bytes each)`
        : `block of pages (order ${order})`,
    take_back({ address, order }: Claim) {
      if (page_type(address) === PGTY_large_kmalloc) kfree(page_address(address as PagePtr));
      else __free_pages(address as PagePtr, order);
    },
  },
  [CLAIM_VMALLOC]: {
    name: ({ address }: Claim) =>
      VmStruct.flags.get(find_vm_area(address)) & VM_MAP ? "vmap mapping" : "vmalloc area",
    take_back({ address }: Claim) {
      if (VmStruct.flags.get(find_vm_area(address)) & VM_MAP) vunmap(address);
      else vfree(address);
    },
  },
  [CLAIM_PERCPU]: named("per-CPU object", free_percpu),
  [CLAIM_CACHE]: {
    name: ({ address }: Claim) => `cache (${KmemCache.name.get(address)})`,
    take_back: ({ address }: Claim) => kmem_cache_destroy(address),
  },
});

/** SLOB destroys a cache whatever it holds, and cannot tell where its objects end after that. */
const is_lost = (cache: Ptr): boolean => slab_ops().name === "slob" && !cache_exists(cache);

function kernfs_name(root: string) {
  return ({ address }: Claim): string => {
    let path = "";
    for (let node = address; KernfsNode.parent.get(node) !== NULL; node = KernfsNode.parent.get(node))
      path = `/${KernfsNode.name.get(node)}${path}`;
    return `file (${root}${path})`;
  };
}

/**
 * What would call the module's functions, booked or not: arming a timer cannot fail, so it may have gone without a record,
 * and the memory that it lies in is about to go.
 */
function* callers_of(module: ModulePtr): Generator<Claim> {
  const is_its = (fn: FnPtr): boolean => image_symbol(fn)?.name.endsWith(module_suffix(module)) ?? false;
  const found = (kind: number, address: Ptr): Claim => ({ kind, address, line: 0, order: 0, cache: NULL });
  for (const timer of for_each_timer())
    if (is_its(TimerList.function.get(timer)) || is_its(delayed_work_fn(timer))) yield found(CLAIM_TIMER, timer);
  for (const work of for_each_work()) if (is_its(WorkStruct.func.get(work))) yield found(CLAIM_WORK, work);
  for (const block of for_each_notifier())
    if (is_its(NotifierBlock.notifier_call.get(block))) yield found(CLAIM_NOTIFIER, block);
}

/** All of it, in the order in which it is taken back. Context: what waits for a grace period or on a list is through. */
function all_of(module: ModulePtr): Claim[] {
  const claims = [...claims_of(module), ...claimed_pages(module)];
  const booked = new Set(claims.map(({ kind, address }) => `${kind} ${address}`));
  for (const claim of callers_of(module)) if (!booked.has(`${claim.kind} ${claim.address}`)) claims.push(claim);
  return claims.sort((a, b) => a.kind - b.kind || a.line - b.line || a.address - b.address);
}

/** What the module holds, a line for each kind and source line. */
export function held_by(module: ModulePtr): Held[] {
  rcu_barrier();
  kvfree_rcu_barrier();
  const counts = new Map<string, { name: string; line: number; count: number }>();
  for (const claim of all_of(module)) {
    const name = KINDS[claim.kind]!.name(claim);
    const key = `${claim.line} ${name}`;
    const entry = counts.get(key) ?? { name, line: claim.line, count: 0 };
    entry.count++;
    counts.set(key, entry);
  }
  return [...counts.values()].map(({ name, line, count }) => ({ what: counted(name, count), line, count }));
}

/** "1 object of x", "3 objects of x": the first noun takes the plural. */
function counted(name: string, count: number): string {
  if (count === 1) return `1 ${name.replace(" each)", ")")}`;
  return `${count} ${name.replace(/^([\w-]+ )*?(\w+)(?= of | \(|$)/, (head) => plural(head))}`;
}

const plural = (noun: string): string => (/(s|x|ch)$/.test(noun) ? `${noun}es` : `${noun}s`);

/** Takes back everything that the module holds. */
export function take_back(module: ModulePtr): void {
  const undead = new Set<Ptr>(); // caches that were destroyed with objects in them
  for (const claim of all_of(module)) {
    if (claim.cache !== NULL && !cache_exists(claim.cache) && !is_lost(claim.cache)) undead.add(claim.cache);
    unclaim(claim.kind, claim.address);
    KINDS[claim.kind]!.take_back(claim);
  }
  for (const cache of undead) kmem_cache_bury(cache);
  rcu_barrier();
}
