/** Text forms that the files of /proc and /sys share: C's widths, sets of CPUs and nodes, numbers that are written. */
import { EINVAL, ERANGE } from "../lib/errno.ts";

/** `%Nlu`: a number or a word at the right end of `width` places. */
export function lpad(value: number | string, width: number): string {
  return String(value).padStart(width);
}

/** `%-Ns`: a word at the left end of `width` places. */
export function rpad(value: number | string, width: number): string {
  return String(value).padEnd(width);
}

/** `%*pb`: hex words of 32 bits parted by commas, the highest first and no wider than `bits` needs. */
export function format_mask(members: readonly number[], bits: number): string {
  const words: string[] = [];
  for (let first = 0; first < bits; first += 32) {
    let word = 0;
    for (const member of members) if (member >= first && member < first + 32) word |= 1 << (member - first);
    words.unshift((word >>> 0).toString(16).padStart(Math.ceil(Math.min(bits - first, 32) / 4), "0"));
  }
  return words.join(",");
}

/** Reads a whole number, with or without a newline behind it, as kstrtouint does: -EINVAL, and -ERANGE above 32 bits. */
export function kstrtou(text: string): number {
  if (!/^\+?\d+\n?$/.test(text)) return -EINVAL;
  return Number(text) > 0xffffffff ? -ERANGE : Number(text);
}
