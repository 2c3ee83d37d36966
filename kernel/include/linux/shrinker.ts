/** Shrinkers: give memory back when it is short. */
export {
  DEFAULT_SEEKS, SHRINKER_NUMA_AWARE, SHRINK_EMPTY, SHRINK_STOP, Shrinker, shrinker_alloc, shrinker_free,
  shrinker_register, type CountObjects, type ScanObjects, type ShrinkControl, type ShrinkerPtr,
} from "../../../mm/shrinker.ts"; // prettier-ignore
