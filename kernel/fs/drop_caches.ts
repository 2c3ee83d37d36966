/**
 * /proc/sys/vm/drop_caches: 1 drops clean page cache, 2 unused dentries and inodes, 3 both; 4 on top: says nothing of it.
 */
import { static_data } from "../../hal/image.ts";
import { AddressSpace } from "../../mm/address_space.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { shrink_slab } from "../../mm/shrinker.ts";
import { DROP_PAGECACHE, DROP_SLAB, count_vm_event } from "../../mm/vmstat.ts";
import { for_each_online_node } from "../../mm/zone.ts";
import { EINVAL } from "../lib/errno.ts";
import { pr_info } from "../lib/printk.ts";
import { TaskStruct, current_task } from "../task.ts";
import { Inode } from "./fs.ts";
import { invalidate_mapping_pages } from "./filemap.ts";
import { ihold, iput, sb_inodes } from "./inode.ts";
import { for_each_super } from "./super.ts";

const sysctl = static_data("drop_caches", { stfu: "u32" });

/** Drops the clean pages of every file. */
function drop_pagecache(): void {
  for (const sb of for_each_super())
    for (const inode of sb_inodes(sb)) {
      if (AddressSpace.nrpages.get(Inode.i_data.at(inode)) === 0) continue;
      ihold(inode);
      invalidate_mapping_pages(Inode.i_data.at(inode));
      iput(inode); // one that nobody uses may go onto the LRU list now
    }
}

/** Asks all shrinkers for all they have, until little comes. */
function drop_slab(): void {
  let freed = 0;
  let round = 0;
  do {
    freed = 0;
    for (const nid of for_each_online_node()) freed += shrink_slab(GFP_KERNEL, nid, 0);
  } while (Math.floor(freed / 2 ** round++) > 1);
}

/** Drops what `what` names, 1 to 4. 0 or -EINVAL. */
export function drop_caches(what: number): number {
  if (!(what >= 1 && what <= 4)) return -EINVAL;
  if (what & 1) drop_pagecache();
  if (what & 1) count_vm_event(DROP_PAGECACHE);
  if (what & 2) drop_slab();
  if (what & 2) count_vm_event(DROP_SLAB);
  const task = current_task();
  if (!sysctl.stfu) pr_info(`${TaskStruct.comm.get(task)} (${TaskStruct.pid.get(task)}): drop_caches: ${what}`);
  sysctl.stfu = sysctl.stfu | (what & 4);
  return 0;
}
