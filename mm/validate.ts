/**
 * `validate_mm`: every invariant of memory management, by a bounded walk of RAM. It changes nothing and ends on any RAM.
 */
import { KmemCache, for_each_cache, slab_ops } from "./slab_common.ts";
import { locks_held } from "../kernel/lib/spinlock.ts";
import { check_lru } from "./lru_check.ts";
import { check_rmap } from "./rmap_check.ts";
import { validate_vmap } from "./vmap_area.ts";
import { validate_pages } from "./validate_pages.ts";

/** One line a finding; empty if all holds. Context: between two kernel entries, no lock held. */
export function validate_mm(): string[] {
  const findings = validate_pages();
  check_lru(findings);
  check_rmap(findings);
  validate_vmap(findings);
  for (const cache of for_each_cache()) {
    slab_ops().inspect(cache, findings);
    if (KmemCache.refcount.get(cache) === 0) findings.push(`${KmemCache.name.get(cache)}: listed without a reference`);
  }
  if (locks_held() !== 0) findings.push(`${locks_held()} locks are held`);
  return findings;
}
