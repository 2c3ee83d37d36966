/**
 * Notifier chains: who wants to hear of an event registers a function, and is called in the order of priority.
 *
 *     chain ─ notifier_block [ function | priority | data ] ─ notifier_block …          highest priority first
 *
 * A block lies in whatever it belongs to (a module's static_data). A function answers NOTIFY_DONE or NOTIFY_OK; one
 * that answers with NOTIFY_STOP_MASK ends the round.
 *
 * There are two chains: `reboot_notifier_list` (power-off, before tasks end) and `oom_notify_list` (before the OOM killer
 * picks a victim; who can free pages adds their number at the address it is given).
 *
 * Locks: none; a chain is changed and called in one kernel entry.
 */
import { NULL, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { CLAIM_NOTIFIER, claim, unclaim } from "../mm/claims.ts";
import { EEXIST, ENOENT } from "./lib/errno.ts";
import { ksym_address, ksym_fn } from "./lib/ksym.ts";

export const NOTIFY_DONE = 0;
export const NOTIFY_OK = 1;
export const NOTIFY_STOP_MASK = 0x8000;
export const NOTIFY_BAD = NOTIFY_STOP_MASK | 2;
/** Events of the reboot chain. */
export const SYS_POWER_OFF = 3;

/** Who wants to hear of an event: a function, and how early it is called. */
export const NotifierBlock = struct("notifier_block", {
  notifier_call: "*fn", // (block, event, data) => NOTIFY_*
  next: "*notifier_block",
  priority: "s32",
  pad: "u32",
});
export type NotifierPtr = Ptr<"notifier_block">;
export type NotifierFn = (block: NotifierPtr, event: number, data: Ptr) => number;
/** The address of the first block's pointer. */
export type NotifierChain = Ptr<"notifier_chain">;
const Link = struct("notifier_chain", { first: "*notifier_block" });

const chains = static_data("notifier_chains", { reboot: Link, oom: Link });
export const reboot_notifier_list: NotifierChain = chains.reboot;
export const oom_notify_list: NotifierChain = chains.oom;

/** The pointer that leads to a block, or to the place where one of this priority goes. */
function find_link(chain: NotifierChain, stop: (block: NotifierPtr) => boolean): Ptr {
  let link: Ptr = chain;
  for (let block = Link.first.get(chain); block !== NULL && !stop(block); block = NotifierBlock.next.get(block))
    link = NotifierBlock.next.at(block);
  return link;
}

/** Puts a block on a chain; 0 or -EEXIST. Its function is `fn`, its priority stands in it already. */
export function notifier_chain_register(chain: NotifierChain, block: NotifierPtr, fn: NotifierFn): number {
  if (Link.first.get(find_link(chain, (other) => other === block) as NotifierChain) === block) return -EEXIST;
  const priority = NotifierBlock.priority.get(block);
  const link = find_link(chain, (other) => NotifierBlock.priority.get(other) < priority) as NotifierChain;
  NotifierBlock.notifier_call.set(block, ksym_address(fn));
  NotifierBlock.next.set(block, Link.first.get(link));
  Link.first.set(link, block);
  claim(CLAIM_NOTIFIER, block);
  return 0;
}

/** Takes a block off a chain; 0 or -ENOENT. */
export function notifier_chain_unregister(chain: NotifierChain, block: NotifierPtr): number {
  const link = find_link(chain, (other) => other === block) as NotifierChain;
  if (Link.first.get(link) !== block) return -ENOENT;
  Link.first.set(link, NotifierBlock.next.get(block));
  unclaim(CLAIM_NOTIFIER, block);
  return 0;
}

/** The blocks of both chains. */
export function* for_each_notifier(): Generator<NotifierPtr> {
  for (const chain of [reboot_notifier_list, oom_notify_list])
    for (let block = Link.first.get(chain); block !== NULL; block = NotifierBlock.next.get(block)) yield block;
}

/** Calls all functions of a chain; what the last one answered. */
export function notifier_call_chain(chain: NotifierChain, event: number, data: Ptr): number {
  let answer = NOTIFY_DONE;
  for (let block = Link.first.get(chain), next = NULL; block !== NULL; block = next) {
    next = NotifierBlock.next.get(block);
    answer = (ksym_fn(NotifierBlock.notifier_call.get(block)) as NotifierFn)(block, event, data);
    if (answer & NOTIFY_STOP_MASK) break;
  }
  return answer;
}

/** Calls `fn` at power-off, before tasks end. 0 or -EEXIST. */
export const register_reboot_notifier = (block: NotifierPtr, fn: NotifierFn): number =>
  notifier_chain_register(reboot_notifier_list, block, fn);
/** Ends that. 0 or -ENOENT. */
export const unregister_reboot_notifier = (block: NotifierPtr): number =>
  notifier_chain_unregister(reboot_notifier_list, block);
/** Calls `fn` before the OOM killer picks anybody; it adds the pages that it gives back at `data`. 0 or -EEXIST. */
export const register_oom_notifier = (block: NotifierPtr, fn: NotifierFn): number =>
  notifier_chain_register(oom_notify_list, block, fn);
/** Ends that. 0 or -ENOENT. */
export const unregister_oom_notifier = (block: NotifierPtr): number =>
  notifier_chain_unregister(oom_notify_list, block);
