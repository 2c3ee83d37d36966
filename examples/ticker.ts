// A timer takes notes where nothing may sleep, and a kernel thread works them off where one may.
import {
  GFP_ATOMIC,
  GFP_KERNEL,
  KMEM_CACHE,
  SLAB_PANIC,
  kmem_cache_alloc,
  kmem_cache_destroy,
  kmem_cache_free,
} from "kheap/linux/slab";
import { INIT_LIST_HEAD, ListHead, list_add_tail, list_del, list_empty, list_next } from "kheap/linux/list";
import { EXIT, RUN, SLEEP, kthread_run, kthread_should_stop, kthread_stop, wake_up_process } from "kheap/linux/kthread";
import {
  MODULE_DESCRIPTION,
  MODULE_LICENSE,
  module_exit,
  module_init,
  module_param,
  pr_info,
} from "kheap/linux/module";
import { SpinLock, spin_lock, spin_unlock } from "kheap/linux/spinlock";
import { HZ, TimerList, jiffies, mod_timer, timer_delete, timer_setup } from "kheap/linux/timer";
import { NULL, static_data, struct, type Ptr } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("a timer that allocates, and the thread that frees");

const lesson = module_param("lesson", "bool", false); // y: asks with GFP_KERNEL in the timer, and the kernel complains
const note = struct("tick_note", { list: ListHead, when: "u64" });
type NotePtr = Ptr<"tick_note">;
const ticker = static_data("ticker", {
  lock: SpinLock,
  notes: ListHead,
  cache: "*kmem_cache",
  timer: TimerList,
  thread: "*task_struct",
  seen: "u32",
  lost: "u32",
});

/** An interrupt: it may not sleep, so it asks for memory with GFP_ATOMIC and lives with NULL. */
function tick(): void {
  const item: NotePtr = kmem_cache_alloc(ticker.cache, lesson.value ? GFP_KERNEL : GFP_ATOMIC);
  if (item === NULL) ticker.lost = ticker.lost + 1;
  else {
    note.when.set(item, jiffies());
    spin_lock(ticker.lock);
    list_add_tail(note.list.at(item), ticker.notes);
    spin_unlock(ticker.lock);
    wake_up_process(ticker.thread);
  }
  mod_timer(ticker.timer, jiffies() + HZ / 10);
}

/** One step of the thread: a note, if there is one. */
function work(): number {
  const item = take_note();
  if (item === NULL) return kthread_should_stop() ? EXIT : SLEEP;
  ticker.seen = ticker.seen + 1;
  kmem_cache_free(ticker.cache, item);
  return RUN;
}

function take_note(): NotePtr {
  spin_lock(ticker.lock);
  const first = list_next(ticker.notes);
  const item: NotePtr = list_empty(ticker.notes) ? NULL : first - note.list.offset;
  if (item !== NULL) list_del(first);
  spin_unlock(ticker.lock);
  return item;
}

module_init(() => {
  INIT_LIST_HEAD(ticker.notes);
  ticker.cache = KMEM_CACHE(note, SLAB_PANIC);
  const thread = kthread_run(work, NULL, "ticker");
  if (thread < 0) {
    kmem_cache_destroy(ticker.cache);
    return thread;
  }
  ticker.thread = thread;
  timer_setup(ticker.timer, tick, NULL);
  mod_timer(ticker.timer, jiffies() + HZ / 10);
  return 0;
});

module_exit(() => {
  timer_delete(ticker.timer);
  kthread_stop(ticker.thread);
  for (let item = take_note(); item !== NULL; item = take_note()) kmem_cache_free(ticker.cache, item);
  kmem_cache_destroy(ticker.cache);
  pr_info(`ticker: ${ticker.seen} notes, ${ticker.lost} lost`);
});
