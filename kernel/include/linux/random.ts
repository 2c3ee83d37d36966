/** Random numbers of the machine's seed. */
import { RANDOM_MODULE, get_random_u32 as next, get_random_u32_below as next_below } from "../../lib/random.ts";

/** 32 random bits. */
export const get_random_u32 = (): number => next(RANDOM_MODULE);
/** A random number 0 .. ceil - 1; ceil >= 1. */
export const get_random_u32_below = (ceil: number): number => next_below(RANDOM_MODULE, ceil);
