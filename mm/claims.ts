/**
 * Claims: what each module holds, so that what it leaves behind can be named with the line that took it.
 *
 *     claims.tree ─ module_claim [ address | kind | module | line ]   one a thing held, ordered by address and kind
 *     claims.pages ─ a word a page: whose alloc it is, and its line   blocks of pages need no record of their own
 *
 * A kernel function that hands something out wraps the making of it: `claiming(CLAIM_TIMER, () => …)`. While it works,
 * what it takes for itself is nobody's; what it returns is booked to the module that runs. Where the thing is given back
 * it says `unclaim(kind, address)`. Nothing is booked while no module runs, and nothing looked up while none is loaded.
 *
 * Slab objects are booked by a record of functions that stands before the allocator's while a module is loaded
 * (mm/slab_claims.ts); pages by a gate of the page allocator (GATE_CLAIMS, mm/plenty.ts) that is closed meanwhile.
 *
 * Locks: claims.lock.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { ram32 } from "../hal/ram.ts";
import { struct } from "../hal/struct.ts";
import { MAX_ERRNO } from "../kernel/lib/errno.ts";
import { ksym_fn, type FnPtr } from "../kernel/lib/ksym.ts";
import { as_kernel_own, running_line, running_module, set_running, type ModulePtr } from "../kernel/lib/owner.ts";
import { RbNode, RbRoot, rb_add, rb_erase, rb_first, rb_next, type RbPtr } from "../kernel/lib/rbtree.ts";
import { SpinLock, spin_lock, spin_unlock } from "../kernel/lib/spinlock.ts";
import { Page, mem_map_state, page_to_pfn, pfn_to_page, type PagePtr } from "./page.ts";

const m = ram32;

/** Kinds of things, in the order in which they are given back: what runs or is called first, memory after that. */
export const CLAIM_THREAD = 1;
export const CLAIM_TIMER = 2;
export const CLAIM_WORK = 3;
export const CLAIM_WORKQUEUE = 4;
export const CLAIM_NOTIFIER = 5;
export const CLAIM_SHRINKER = 6;
export const CLAIM_CHRDEV = 7;
export const CLAIM_PROC = 8;
export const CLAIM_SYSFS = 9;
export const CLAIM_OBJECT = 10;
export const CLAIM_PAGES = 11;
export const CLAIM_VMALLOC = 12;
export const CLAIM_PERCPU = 13;
export const CLAIM_CACHE = 14;

export const ModuleClaim = struct("module_claim", {
  node: RbNode, // claims.tree
  address: "s64", // a Ptr, or a Virt of vmalloc
  module: "*module",
  kind: "u32", // CLAIM_*
  line: "u32", // of the module's source
  cache: "*kmem_cache", // of an object; NULL: kmalloc without caches, or no object
});
type ClaimPtr = Ptr<"module_claim">;

const claims = static_data("claims", {
  lock: SpinLock,
  tree: RbRoot,
  take: "*fn", // () => a record or NULL
  give: "*fn", // (record)
  pages: "*void", // a word a page frame, or NULL while no module is loaded
  modules: "*module[64]", // by the number that `pages` has for them; 0 is nobody's
});
const PAGES = claims.$at("pages") >> 2;
export const CLAIM_MODULES_MAX = 64;
/** A page's word: number of the module << 24 | order of its block << 20 | line. */
const ORDER_SHIFT = 20;
const LINE_MASK = (1 << ORDER_SHIFT) - 1;

/** Where records come from while a module is loaded; NULL: none is. */
export function claims_open(take: FnPtr, give: FnPtr, pages: Ptr): void {
  claims.take = take;
  claims.give = give;
  claims.pages = pages;
}

/** The table of page claims. */
export function claims_pages(): Ptr {
  return claims.pages;
}

/** Bytes that the table of page claims needs. */
export function claims_pages_bytes(): number {
  return mem_map_state.max_pfn * 4;
}

/** Gives a module its number, or with NULL takes it back from one; false if all are taken. */
export function claims_number(module: ModulePtr, instead_of: ModulePtr = NULL): boolean {
  for (let i = 1; i < CLAIM_MODULES_MAX; i++)
    if (claims.modules.get(i) === instead_of) {
      claims.modules.set(i, module);
      return true;
    }
  return false;
}

function number_of(module: ModulePtr): number {
  for (let i = 1; i < CLAIM_MODULES_MAX; i++) if (claims.modules.get(i) === module) return i;
  return 0;
}

/** The claim on a thing; NULL: there is none. */
function find_claim(kind: number, address: number): ClaimPtr {
  for (let node: RbPtr = RbRoot.node.get(claims.tree); node !== NULL;) {
    const order = ModuleClaim.address.get(node) - address || ModuleClaim.kind.get(node) - kind;
    if (order === 0) return node as Ptr as ClaimPtr;
    node = order > 0 ? RbNode.left.get(node) : RbNode.right.get(node);
  }
  return NULL;
}

const less = (a: RbPtr, b: RbPtr): boolean =>
  (ModuleClaim.address.get(a) - ModuleClaim.address.get(b) || ModuleClaim.kind.get(a) - ModuleClaim.kind.get(b)) < 0;

/** A record for something that the running module is about to take; NULL without memory. */
function claim_take(): ClaimPtr {
  const module = set_running(NULL);
  const record = ksym_fn(claims.take)() as ClaimPtr;
  set_running(module);
  return record;
}

/** Gives a record back: there is nothing to book. */
function claim_give(record: ClaimPtr): void {
  ksym_fn(claims.give)(record);
}

/** Books a thing to the module that runs. */
function claim_book(record: ClaimPtr, kind: number, address: number, cache: Ptr<"kmem_cache"> = NULL): void {
  ModuleClaim.cache.set(record, cache);
  ModuleClaim.address.set(record, address);
  ModuleClaim.module.set(record, running_module());
  ModuleClaim.kind.set(record, kind);
  ModuleClaim.line.set(record, running_line());
  spin_lock(claims.lock);
  rb_add(claims.tree, ModuleClaim.node.at(record), less);
  spin_unlock(claims.lock);
}

/** Books what cannot be refused (a timer that is armed) to the module that runs, if one does and there is a record. */
export function claim(kind: number, address: number): void {
  const record = running_module() === NULL ? NULL : claim_take();
  if (record !== NULL) claim_book(record, kind, address);
}

/** A thing is given back: whoever held it holds it no more. */
export function unclaim(kind: number, address: number): void {
  if (RbRoot.node.get(claims.tree) === NULL) return;
  const record = find_claim(kind, address);
  if (record === NULL) return;
  spin_lock(claims.lock);
  rb_erase(claims.tree, ModuleClaim.node.at(record));
  spin_unlock(claims.lock);
  claim_give(record);
}

/**
 * Makes a thing (its address; NULL or -errno: there is none) for the module that runs, if one does. `failed` is what to
 * return without memory for the record; `cache` is an object's.
 */
export function claiming(kind: number, make: () => number, failed = 0, cache: Ptr<"kmem_cache"> = NULL): number {
  if (running_module() === NULL) return make();
  const record = claim_take();
  if (record === NULL) return failed;
  const thing = as_kernel_own(make);
  // Below zero lie -errno and, far from those, the addresses of vmalloc.
  if (thing > 0 || thing < -MAX_ERRNO) claim_book(record, kind, thing, cache);
  else claim_give(record);
  return thing;
}

/** Books a block of pages to the module that runs, or to nobody. Context: it was just taken. */
export function claim_pages(page: PagePtr, order: number): void {
  const table = m[PAGES]!;
  if (table === NULL) return;
  const module = running_module();
  const word = module === NULL ? 0 : (number_of(module) << 24) | (order << ORDER_SHIFT) | (running_line() & LINE_MASK);
  const first = (table >> 2) + page_to_pfn(page);
  for (let i = 0; i < 1 << order; i++) m[first + i] = word;
}

export interface Claim {
  readonly kind: number;
  /** Of a block of pages: its first page struct. */
  readonly address: number;
  readonly line: number;
  /** Of a block of pages. */
  readonly order: number;
  /** Of an object; it may have been destroyed since. NULL: none. */
  readonly cache: Ptr<"kmem_cache">;
}

/** What a module holds, but for pages; ordered by address. */
export function* claims_of(module: ModulePtr): Generator<Claim> {
  const { node: tree_node, address, kind, line, cache } = ModuleClaim;
  for (let node = rb_first(claims.tree); node !== NULL; node = rb_next(node)) {
    const record = node - tree_node.offset;
    if (ModuleClaim.module.get(record) === module)
      yield { kind: kind.get(record), address: address.get(record), line: line.get(record), order: 0, cache: cache.get(record) }; // prettier-ignore
  }
}

/** Blocks of pages that a module took and that are still in use; each page of a block that was split is one. */
export function* claimed_pages(module: ModulePtr): Generator<Claim> {
  const number = number_of(module);
  if (claims.pages === NULL || number === 0) return;
  for (let pfn = 0; pfn < mem_map_state.max_pfn; pfn++) {
    const word = m[(claims.pages >> 2) + pfn]!;
    const page = pfn_to_page(pfn);
    if (word >>> 24 !== number || Page.refcount.get(page) === 0) continue;
    const order = (word >>> ORDER_SHIFT) & 15;
    const is_split = order > 0 && Page.refcount.get(page + Page.sizeof) > 0;
    yield { kind: CLAIM_PAGES, address: page, line: word & LINE_MASK, order: is_split ? 0 : order, cache: NULL };
  }
}
