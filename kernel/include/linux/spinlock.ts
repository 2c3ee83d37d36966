/** Spinlocks. While one is held nothing may sleep: ask for memory with GFP_ATOMIC. */
export { SpinLock, spin_lock, spin_trylock, spin_unlock, type SpinLockPtr } from "../../lib/spinlock.ts";
