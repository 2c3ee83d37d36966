/**
 * Watermarks: how many free pages a request must leave in a zone.
 *
 *     high   reclaim in the background stops here; below it, CPUs keep less
 *     low    an ordinary request wants more than this left; else kswapd is woken
 *     min    what the slow path may go down to; below it, only those in need: see `watermark_min`
 *
 * A request must leave strictly more than  mark + boost + lowmem_reserve[highest zone it could use]:  a zone keeps some
 * pages from those who could have had memory further up. Pages of the HighAtomic reserve do not count for most.
 *
 * Context: none takes a lock; a figure that is a little old makes one request go elsewhere.
 */
import { NULL } from "../hal/addr.ts";
import { ram32 } from "../hal/ram.ts";
import { static_data } from "../hal/image.ts";
import { list_empty } from "../kernel/lib/list.ts";
import { MIGRATE_HIGHATOMIC, MIGRATE_PCPTYPES } from "./gfp.ts";
import {
  FreeArea, NR_FREE_PAGES, NR_PAGE_ORDERS, WMARK_HIGH, WMARK_MIN, Zone, pageblock_nr_pages, type ZonePtr,
} from "./zone.ts"; // prettier-ignore
import { LOWMEM_RESERVE_RATIO } from "./zone_sizing.ts";

const m = ram32;

/** What a request may do. The two lowest bits are the mark it must keep: 0 min, 1 low, 2 high. */
export const ALLOC_WMARK_MIN = 0;
export const ALLOC_WMARK_LOW = 1;
export const ALLOC_WMARK_MASK = 3;
export const ALLOC_NO_WATERMARKS = 0x4;
/** The OOM killer's victim, on its way out. */
export const ALLOC_OOM = 0x8;
export const ALLOC_NON_BLOCK = 0x10;
/** __GFP_HIGH: half of min may be used up. */
export const ALLOC_MIN_RESERVE = 0x20;
export const ALLOC_CPUSET = 0x40;
/** Do not mix types in a page block while a lower zone of this node has free memory. */
export const ALLOC_NOFRAGMENT = 0x100;
export const ALLOC_HIGHATOMIC = 0x200;
/** __GFP_KSWAPD_RECLAIM: may wake kswapd. */
export const ALLOC_KSWAPD = 0x800;
/** Any of these may use pages of the HighAtomic reserve. */
const ALLOC_RESERVES = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC | ALLOC_OOM;

/** Boost for each page block that was mixed: at most this many ten-thousandths of the high mark. */
const sysctl = static_data("vm_watermark", {
  boost_factor: "u32",
  scale_factor: "u32",
  lowmem_reserve_ratio: "u32[5]",
});
const WATERMARK_BOOST_FACTOR = 15000;
/** Marks lie at least so many ten-thousandths of the zone apart. */
const WATERMARK_SCALE_FACTOR = 10;

/** Sets the knobs to what Linux boots with. */
export function watermark_init(): void {
  sysctl.boost_factor = WATERMARK_BOOST_FACTOR;
  sysctl.scale_factor = WATERMARK_SCALE_FACTOR;
  set_lowmem_reserve_ratio(LOWMEM_RESERVE_RATIO);
}

/** `vm.watermark_boost_factor`; 0 switches boosting off. */
export function set_watermark_boost_factor(factor: number): void {
  sysctl.boost_factor = factor;
}

export function watermark_boost_factor(): number {
  return sysctl.boost_factor;
}

/** `vm.watermark_scale_factor`; whoever sets it has the marks worked out anew. */
export function watermark_scale_factor(): number {
  return sysctl.scale_factor;
}

export function set_watermark_scale_factor(factor: number): void {
  sysctl.scale_factor = factor;
}

/** `vm.lowmem_reserve_ratio`, by zone; whoever sets it has the reserves worked out anew. */
export function lowmem_reserve_ratio(): number[] {
  return LOWMEM_RESERVE_RATIO.map((_, zone) => sysctl.lowmem_reserve_ratio.get(zone));
}

export function set_lowmem_reserve_ratio(ratios: readonly number[]): void {
  for (const [zone, ratio] of ratios.entries()) sysctl.lowmem_reserve_ratio.set(zone, ratio);
}

/** A mark as it is used and shown. */
export function wmark_pages(zone: ZonePtr, mark: number): number {
  return Zone.watermark.get(zone, mark) + Zone.watermark_boost.get(zone);
}

export function high_wmark_pages(zone: ZonePtr): number {
  return wmark_pages(zone, WMARK_HIGH);
}

/** Free pages of a zone, by its counter. */
export function zone_free_pages(zone: ZonePtr): number {
  return m[(zone + Zone.vm_stat.offset + NR_FREE_PAGES * 4) >> 2];
}

/** What is left of a mark for a request with `flags`. */
export function watermark_min(mark: number, flags: number): number {
  let min = mark;
  if ((flags & ALLOC_MIN_RESERVE) !== 0) {
    min -= min >> 1;
    if ((flags & ALLOC_NON_BLOCK) !== 0) min -= min >> 2;
  }
  if ((flags & ALLOC_OOM) !== 0) min -= min >> 1;
  return min;
}

/** True if `free` pages suffice for a block of 2^order that keeps `mark`, and such a block is there. */
export function __zone_watermark_ok(
  zone: ZonePtr,
  order: number,
  mark: number,
  highest_zoneidx: number,
  flags: number,
  free: number,
): boolean {
  let left = free - ((1 << order) - 1);
  if ((flags & ALLOC_RESERVES) === 0) left -= Zone.nr_free_highatomic.get(zone);
  if (left <= watermark_min(mark, flags) + Zone.lowmem_reserve.get(zone, highest_zoneidx)) return false;
  return order === 0 || zone_has_block(zone, order, flags);
}

/** True if some free block of at least `order` may be used. */
function zone_has_block(zone: ZonePtr, order: number, flags: number): boolean {
  const highatomic = (flags & (ALLOC_HIGHATOMIC | ALLOC_OOM)) !== 0;
  for (let high = order; high < NR_PAGE_ORDERS; high++) {
    const area = Zone.free_area.at(zone, high);
    if (FreeArea.nr_free.get(area) === 0) continue;
    for (let type = 0; type < MIGRATE_PCPTYPES; type++) if (!list_empty(FreeArea.free_list.at(area, type))) return true;
    if (highatomic && !list_empty(FreeArea.free_list.at(area, MIGRATE_HIGHATOMIC))) return true;
  }
  return false;
}

export function zone_watermark_ok(
  zone: ZonePtr,
  order: number,
  mark: number,
  highest_zoneidx: number,
  flags: number,
): boolean {
  return __zone_watermark_ok(zone, order, mark, highest_zoneidx, flags, zone_free_pages(zone));
}

/** The check that an allocation makes: as above, but a boost does not stop an order-0 request that may use reserves. */
export function zone_watermark_fast(
  zone: ZonePtr,
  order: number,
  mark: number,
  highest_zoneidx: number,
  flags: number,
): boolean {
  if (zone_watermark_ok(zone, order, mark, highest_zoneidx, flags)) return true;
  const boosted = order === 0 && Zone.watermark_boost.get(zone) > 0 && (flags & ALLOC_MIN_RESERVE) !== 0;
  if (!boosted || (flags & ALLOC_WMARK_MASK) !== ALLOC_WMARK_MIN) return false;
  return zone_watermark_ok(zone, 0, Zone.watermark.get(zone, WMARK_MIN), highest_zoneidx, flags);
}

/** Raises a zone's marks for a while because types were mixed; false where the zone is too small for it to help. */
export function boost_watermark(zone: ZonePtr): boolean {
  if (zone === NULL || sysctl.boost_factor === 0) return false;
  if (Zone.managed_pages.get(zone) < pageblock_nr_pages * 4) return false;
  const share = Math.floor((Zone.watermark.get(zone, WMARK_HIGH) * sysctl.boost_factor) / 10000);
  if (share === 0) return false;
  const limit = Math.max(share, pageblock_nr_pages);
  Zone.watermark_boost.set(zone, Math.min(Zone.watermark_boost.get(zone) + pageblock_nr_pages, limit)); // zone->lock is held
  return true;
}
