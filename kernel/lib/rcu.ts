/**
 * RCU: freeing later what somebody may still be looking at.
 *
 *     reader   rcu_read_lock(); … looks at an object that others may give up meanwhile … rcu_read_unlock();
 *     writer   takes the object out of sight, then call_rcu(head, fn): fn(head) runs after a grace period
 *
 * A grace period is over once every CPU has been outside of its read sections. No kernel entry stops in the middle, so
 * between two entries that holds, unless a section was left open: callbacks run there, each on the CPU that queued it,
 * oldest first. The callback's two words lie in the object itself (or in the page struct): nothing is allocated.
 *
 *     rcu_data (a CPU)   nesting   head -> rcu_head -> rcu_head -> NULL   tail
 *
 * Locks: none; a CPU touches its own list only.
 * Unlike Linux: one kind of RCU; no grace-period thread and no batches, since nobody runs while callbacks do. Waiting
 * inside an entry for a section of any CPU would wait for ever, and is a BUG.
 */
import { NULL, type Ptr } from "../../hal/addr.ts";
import { nr_cpu_ids, on_cpu, this_cpu_ptr } from "../../hal/cpu.ts";
import { per_cpu_data, per_cpu_ptr, static_data } from "../../hal/image.ts";
import { struct } from "../../hal/struct.ts";
import { BUG_ON } from "./bug.ts";
import { ksym_fn, type FnPtr } from "./ksym.ts";

/** What an object that is freed by RCU has room for: at least these 16 bytes. */
export const RcuHead = struct("rcu_head", { next: "*rcu_head", func: "*fn" }, { sizeof: 16 });
export type RcuHeadPtr = Ptr<"rcu_head">;

const rcu_data = per_cpu_data("rcu_data", {
  nesting: "u32", // read sections this CPU is in
  len: "u32", // callbacks that wait
  head: "*rcu_head",
  tail: "*rcu_head",
});
const rcu_state = static_data("rcu_state", { pending: "u32" }); // callbacks of all CPUs

/** Begins a read section: what it finds stays until the section ends. Sections nest. Context: any; must not sleep. */
export function rcu_read_lock(): void {
  const rdp = this_cpu_ptr(rcu_data.ptr);
  rcu_data.nesting.set(rdp, rcu_data.nesting.get(rdp) + 1);
}

/** Ends a read section. */
export function rcu_read_unlock(): void {
  const rdp = this_cpu_ptr(rcu_data.ptr);
  const nesting = rcu_data.nesting.get(rdp);
  BUG_ON(nesting === 0, "rcu_read_unlock outside of a read section");
  rcu_data.nesting.set(rdp, nesting - 1);
}

/** True if any CPU is in a read section: no grace period ends now. */
export function rcu_has_readers(): boolean {
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++)
    if (rcu_data.nesting.get(per_cpu_ptr(rcu_data.ptr, cpu)) !== 0) return true;
  return false;
}

/** Calls `fn(head)` after a grace period. The two words at `head` are RCU's until then. Context: any. */
export function call_rcu(head: RcuHeadPtr, fn: FnPtr): void {
  const rdp = this_cpu_ptr(rcu_data.ptr);
  RcuHead.next.set(head, NULL);
  RcuHead.func.set(head, fn);
  if (rcu_data.head.get(rdp) === NULL) rcu_data.head.set(rdp, head);
  else RcuHead.next.set(rcu_data.tail.get(rdp), head);
  rcu_data.tail.set(rdp, head);
  rcu_data.len.set(rdp, rcu_data.len.get(rdp) + 1);
  rcu_state.pending = rcu_state.pending + 1;
}

/** Callbacks that wait, on all CPUs. */
export function rcu_pending(): number {
  return rcu_state.pending;
}

/** Runs this CPU's callbacks, but not those that they queue. Context: a grace period has just ended. */
export function rcu_do_batch(): void {
  const rdp = this_cpu_ptr(rcu_data.ptr);
  let head = rcu_data.head.get(rdp);
  rcu_state.pending = rcu_state.pending - rcu_data.len.get(rdp);
  rcu_data.head.set(rdp, NULL);
  rcu_data.len.set(rdp, 0);
  while (head !== NULL) {
    const next = RcuHead.next.get(head); // the callback may free the object that it lies in
    ksym_fn(RcuHead.func.get(head))(head);
    head = next;
  }
}

/** Waits until every read section that is open now has ended. Context: may sleep. */
export function synchronize_rcu(): void {
  BUG_ON(rcu_has_readers(), "a grace period is waited for in a read section");
}

/** Waits until every callback queued so far has run. Context: may sleep. */
export function rcu_barrier(): void {
  synchronize_rcu();
  for (let cpu = 0; cpu < nr_cpu_ids(); cpu++) on_cpu(cpu, rcu_do_batch);
}
