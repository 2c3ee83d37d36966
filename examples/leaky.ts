// Forgets to give things back: rmmod names each with its line. Nothing here is a model for anything.
import { MODULE_DESCRIPTION, MODULE_LICENSE, module_exit, module_init, pr_info } from "kheap/linux/module";
import { proc_create } from "kheap/linux/proc_fs";
import { GFP_KERNEL, kfree, kmalloc, kmem_cache_alloc, kmem_cache_create } from "kheap/linux/slab";
import { HZ, TimerList, jiffies, mod_timer, timer_setup } from "kheap/linux/timer";
import { NULL, static_data } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("leaves things behind");

const leaky = static_data("leaky", { timer: TimerList, block: "*void" });

module_init(() => {
  leaky.block = kmalloc(100, GFP_KERNEL);
  for (let i = 0; i < 3; i++) kmalloc(200, GFP_KERNEL); // nobody knows where they are any more
  const cache = kmem_cache_create("leaky_cache", 48, 0, 0);
  if (cache !== NULL) kmem_cache_alloc(cache, GFP_KERNEL);
  proc_create("leaky", { show: () => "still here\n" });
  timer_setup(leaky.timer, () => pr_info("leaky: tick"), 0);
  mod_timer(leaky.timer, jiffies() + HZ);
  return 0;
});

module_exit(() => {
  kfree(leaky.block); // the one thing that it thinks of
});
