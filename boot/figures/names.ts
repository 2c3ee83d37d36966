/**
 * How memory is written on the console: addresses as `%px`, slabs as letters, counts and shares in words. Names that
 * people type are read in boot/figures/address.ts.
 */
import { PAGE_SIZE, px, type Ptr } from "../../hal/addr.ts";
import { ZERO_SIZE_PTR } from "../../mm/kmalloc.ts";
import { mem_map_state } from "../../mm/page.ts";

/** The address as `%px` shows it; NULL and the marker of kmalloc(0) are no direct-map addresses. */
export function address_text(ptr: Ptr): string {
  return ptr <= ZERO_SIZE_PTR ? ptr.toString(16).padStart(16, "0") : px(ptr);
}

/** `1 page`, `3 pages`. */
export function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** `392 of 8192 (4.8 %)`. */
export function share(part: number, whole: number): string {
  return `${part} of ${whole} (${percent(part, whole)} %)`;
}

/** With one digit behind the point; 0.0 of nothing. */
export function percent(part: number, whole: number): string {
  return (whole === 0 ? 0 : (100 * part) / whole).toFixed(1);
}

/** True if `ptr` is an address for which there may be RAM; the walks below read nothing else. */
export function in_ram(ptr: Ptr): boolean {
  return ptr > 0 && ptr < mem_map_state.max_pfn * PAGE_SIZE;
}

/** A, B, … Z, AA, AB, … */
export function letters(index: number): string {
  const last = String.fromCharCode(65 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}
