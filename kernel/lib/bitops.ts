/** Small arithmetic on 32-bit words, named as in Linux. */

/** Index of the highest set bit counted from 1; 0 for 0. */
export function fls(x: number): number {
  return 32 - Math.clz32(x);
}

/** Floor of the binary logarithm; x > 0. */
export function ilog2(x: number): number {
  return 31 - Math.clz32(x);
}

/** Index of the lowest set bit counted from 0; x != 0. */
export function __ffs(x: number): number {
  return 31 - Math.clz32(x & -x);
}

/** Smallest order whose block of pages holds `size` bytes; for any size up to 2^53. */
export function get_order(size: number): number {
  let order = 0;
  for (let bytes = 4096; bytes < size; bytes *= 2) order++;
  return order;
}

export function is_power_of_2(x: number): boolean {
  return x > 0 && (x & (x - 1)) === 0;
}

/** Smallest power of two that is not below x; 1 <= x <= 2^30. */
export function roundup_pow_of_two(x: number): number {
  return x <= 1 ? 1 : 1 << fls(x - 1);
}

/** Largest power of two that is not above x; x >= 1. */
export function rounddown_pow_of_two(x: number): number {
  return 1 << ilog2(x);
}

/** Number of set bits. */
export function hweight32(x: number): number {
  let n = 0;
  for (let bits = x; bits !== 0; bits &= bits - 1) n++;
  return n;
}

/** Integer square root: floor(sqrt(x)), exact below 2^53. */
export function int_sqrt(x: number): number {
  let root = Math.floor(Math.sqrt(x));
  while (root * root > x) root--;
  while ((root + 1) * (root + 1) <= x) root++;
  return root;
}

/** The bytes of a word in reverse order. */
export function swab32(x: number): number {
  return (x >>> 24) | ((x >>> 8) & 0xff00) | ((x << 8) & 0xff0000) | (x << 24) | 0;
}

/** Ceiling division of non-negative numbers. */
export function div_round_up(n: number, d: number): number {
  return Math.floor((n + d - 1) / d);
}

export function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}

/** `%*pbl`: `0-3,8`; empty for none. `members` ascend. */
export function format_list(members: readonly number[]): string {
  const ranges: string[] = [];
  for (let i = 0; i < members.length;) {
    let j = i;
    while (members[j + 1] === members[j]! + 1) j++;
    ranges.push(i === j ? `${members[i]}` : `${members[i]}-${members[j]}`);
    i = j + 1;
  }
  return ranges.join(",");
}
