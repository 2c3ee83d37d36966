/**
 * Scopes: code that holds something says once what all requests for memory inside it may not do, also those that it knows
 * nothing of.
 *
 *     const old = memalloc_nofs_save();      no request may reclaim by way of the file systems from here on
 *     …                                      kmalloc(GFP_KERNEL) is as kmalloc(GFP_NOFS)
 *     memalloc_nofs_restore(old);            … to here. Scopes nest
 *
 *     memalloc_noio    clears __GFP_IO and __GFP_FS         memalloc_nofs   clears __GFP_FS
 *     memalloc_pin     clears __GFP_MOVABLE: pages will stay where they are for long
 *
 * Since a kernel entry runs to its end on its CPU, the flags are the CPU's where they are the task's in Linux.
 */
import { __GFP_FS, __GFP_IO, __GFP_MOVABLE } from "./gfp.ts";
import { GATE_PIN, alloc_gate_set } from "./plenty.ts";
import { reclaim_flags, set_reclaim_flags } from "./reclaim_state.ts";

const PF_MEMALLOC_NOFS = 0x40000;
const PF_MEMALLOC_NOIO = 0x80000;
const PF_MEMALLOC_PIN = 0x10000000;
const SCOPES = PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO | PF_MEMALLOC_PIN;

/** Sets a flag; returns what it was. */
function save(flag: number): number {
  return set_reclaim_flags(reclaim_flags() | flag) & flag;
}

/** Makes a flag what it was. */
function restore(flag: number, old: number): void {
  set_reclaim_flags((reclaim_flags() & ~flag) | old);
}

export const memalloc_noio_save = (): number => save(PF_MEMALLOC_NOIO);
export const memalloc_noio_restore = (old: number): void => restore(PF_MEMALLOC_NOIO, old);
export const memalloc_nofs_save = (): number => save(PF_MEMALLOC_NOFS);
export const memalloc_nofs_restore = (old: number): void => restore(PF_MEMALLOC_NOFS, old);

/** While it is on, no request finds its page on the hot path: that looks at no scope. */
export function memalloc_pin_save(): number {
  alloc_gate_set(GATE_PIN, true);
  return save(PF_MEMALLOC_PIN);
}

export function memalloc_pin_restore(old: number): void {
  restore(PF_MEMALLOC_PIN, old);
  alloc_gate_set(GATE_PIN, old !== 0);
}

/** What a request may do within the scopes that are on. NOIO is the stricter one, and implies NOFS. */
export function current_gfp_context(gfp: number): number {
  const flags = reclaim_flags();
  if ((flags & SCOPES) === 0) return gfp;
  let allowed = gfp;
  if ((flags & PF_MEMALLOC_NOIO) !== 0) allowed &= ~(__GFP_IO | __GFP_FS);
  if ((flags & PF_MEMALLOC_NOFS) !== 0) allowed &= ~__GFP_FS;
  return (flags & PF_MEMALLOC_PIN) !== 0 ? allowed & ~__GFP_MOVABLE : allowed;
}
