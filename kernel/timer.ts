/**
 * Timers: "call this function once `expires` ticks have passed since power-on".
 *
 * A timer is a struct that lies in whatever it belongs to (a task, a device). Armed timers hang on one list, ordered by
 * expiry, those of the same tick in the order in which they were armed; the scheduler's loop runs what is due between
 * two kernel entries, as an interrupt of the CPU that armed it.
 *
 * Locks: timer_base.lock protects the list. Unlike Linux: one sorted list instead of a wheel a CPU.
 */
import { NULL, type CpuId, type Ptr } from "../hal/addr.ts";
import { smp_processor_id } from "../hal/cpu.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { CLAIM_TIMER, claim, unclaim } from "../mm/claims.ts";
import { ListHead, init_list_head, list_add, list_del_init, list_empty, list_next, list_prev } from "./lib/list.ts";
import { ksym_address, ksym_fn, type FnPtr } from "./lib/ksym.ts";
import { SpinLock, spin_lock, spin_unlock } from "./lib/spinlock.ts";

/** A timer: a function and the tick at which it is due. */
export const TimerList = struct("timer_list", {
  entry: ListHead, // timer_base.list; empty while not armed
  expires: "u64", // jiffies
  function: "*fn", // called with `data`
  data: "*void",
  cpu: "u32", // that armed it
});
export type TimerPtr = Ptr<"timer_list">;

const timer_base = static_data("timer_base", { lock: SpinLock, list: ListHead });

/** Boot: no timer is armed. */
export function timers_init(): void {
  init_list_head(timer_base.list);
}

/** Makes a timer of an object whose bytes mean nothing yet. Suits a constructor. */
export function timer_setup(timer: TimerPtr, fn: FnPtr | ((data: Ptr) => void), data: Ptr): void {
  init_list_head(TimerList.entry.at(timer));
  TimerList.function.set(timer, ksym_address(fn));
  TimerList.data.set(timer, data);
}

/** True while a timer is armed. */
export function timer_pending(timer: TimerPtr): boolean {
  return !list_empty(TimerList.entry.at(timer));
}

/** Arms a timer, or moves one that is armed. Context: any. */
export function mod_timer(timer: TimerPtr, expires: number): void {
  const entry = TimerList.entry.at(timer);
  unclaim(CLAIM_TIMER, timer);
  claim(CLAIM_TIMER, timer);
  spin_lock(timer_base.lock);
  list_del_init(entry);
  TimerList.expires.set(timer, expires);
  TimerList.cpu.set(timer, smp_processor_id());
  let after = list_prev(timer_base.list);
  while (after !== timer_base.list && TimerList.expires.get(after) > expires) after = list_prev(after);
  list_add(entry, after);
  spin_unlock(timer_base.lock);
}

/** Disarms a timer; true if it was armed. Context: any. */
export function timer_delete(timer: TimerPtr): boolean {
  const pending = timer_pending(timer);
  unclaim(CLAIM_TIMER, timer);
  spin_lock(timer_base.lock);
  list_del_init(TimerList.entry.at(timer));
  spin_unlock(timer_base.lock);
  return pending;
}

/** All armed timers, the next that is due first. The body may disarm the one it is given. */
export function* for_each_timer(): Generator<TimerPtr> {
  for (let node = list_next(timer_base.list), next = 0; node !== timer_base.list; node = next) {
    next = list_next(node);
    yield (node - TimerList.entry.offset) as TimerPtr;
  }
}

/** The tick at which the next timer is due; undefined if none is armed. */
export function next_timer_expiry(): number | undefined {
  const first = list_next(timer_base.list);
  return first === timer_base.list ? undefined : TimerList.expires.get(first);
}

/** Takes the first timer that is due off the list; NULL if there is none. */
export function take_expired_timer(now: number): TimerPtr {
  const first = list_next(timer_base.list) as TimerPtr;
  if (first === timer_base.list || TimerList.expires.get(first) > now) return NULL;
  timer_delete(first);
  return first;
}

/** The CPU that armed the timer. */
export function timer_cpu(timer: TimerPtr): CpuId {
  return TimerList.cpu.get(timer);
}

/** Calls the timer's function. Context: interrupt. */
export function call_timer_fn(timer: TimerPtr): void {
  ksym_fn(TimerList.function.get(timer))(TimerList.data.get(timer));
}
