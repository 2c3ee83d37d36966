/** Time in ticks, HZ a second. */
export { HZ, jiffies } from "../../../hal/clock.ts";
