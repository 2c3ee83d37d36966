/**
 * Time, on a host that has other things to do: the processor time of this process, or the time on the wall if that is
 * less (helpers of the garbage collector run beside it).
 */
import { performance } from "node:perf_hooks";

/** Nanoseconds that `fn` takes. */
export function time(fn: () => unknown): number {
  const cpu = process.cpuUsage();
  const start = performance.now();
  fn();
  const wall = (performance.now() - start) * 1e6;
  const { user, system } = process.cpuUsage(cpu);
  return Math.min(wall, (user + system) * 1e3);
}
