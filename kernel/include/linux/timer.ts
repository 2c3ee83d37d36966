/** Timers: a function that runs as an interrupt once its time has come; it may not sleep. */
export { TimerList, mod_timer, timer_delete, timer_pending, timer_setup, type TimerPtr } from "../../timer.ts";
export { HZ, jiffies } from "../../../hal/clock.ts";
