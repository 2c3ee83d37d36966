/** Scopes: what requests inside them may not do. */
import { expect, test } from "vitest";
import { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOFS, GFP_NOIO, MIGRATE_MOVABLE, MIGRATE_UNMOVABLE } from "../../mm/gfp.ts"; // prettier-ignore
import {
  current_gfp_context, memalloc_nofs_restore, memalloc_nofs_save, memalloc_noio_restore, memalloc_noio_save,
  memalloc_pin_restore, memalloc_pin_save,
} from "../../mm/gfp_scope.ts"; // prettier-ignore
import { __free_pages, alloc_pages } from "../../mm/page_alloc.ts";
import { get_pageblock_migratetype } from "../../mm/pageblock.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { with_machine } from "../lib/machine.ts";

test("noio is as GFP_NOIO, nofs as GFP_NOFS; they nest", () => {
  with_machine({}, () => {
    expect(current_gfp_context(GFP_KERNEL)).toBe(GFP_KERNEL);
    const outer = memalloc_nofs_save();
    expect(current_gfp_context(GFP_KERNEL)).toBe(GFP_NOFS);
    const inner = memalloc_noio_save();
    expect(current_gfp_context(GFP_KERNEL)).toBe(GFP_NOIO);
    const again = memalloc_nofs_save();
    memalloc_nofs_restore(again);
    memalloc_noio_restore(inner);
    expect(current_gfp_context(GFP_KERNEL)).toBe(GFP_NOFS);
    memalloc_nofs_restore(outer);
    expect(current_gfp_context(GFP_KERNEL)).toBe(GFP_KERNEL);
  });
});

test("within pin, no page comes from a movable block, from the hot path either", () => {
  with_machine({}, () => {
    const type = (): number => {
      const page = alloc_pages(GFP_HIGHUSER_MOVABLE, 0);
      const found = get_pageblock_migratetype(page);
      __free_pages(page, 0);
      return found;
    };
    expect(type()).toBe(MIGRATE_MOVABLE);
    const old = memalloc_pin_save();
    expect(type()).toBe(MIGRATE_UNMOVABLE);
    const inner = memalloc_pin_save();
    memalloc_pin_restore(inner);
    expect(validate_pages()).toEqual([]);
    expect(type()).toBe(MIGRATE_UNMOVABLE);
    memalloc_pin_restore(old);
    expect(type()).toBe(MIGRATE_MOVABLE);
  });
});
